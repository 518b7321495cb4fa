//! G: mremap. illumos has no such call: what it does is UVM's (uvm.md 5.6), its flags and numbers are Linux's. G10 alone is answered otherwise, by name.

use crate::{Scene, addr, scene, shape};
use page_db::{PAGE_SIZE, errno};
use segvm::machine::{ARENA, Limit, RemapFlags};

scripts! {
    g01_the_same_size: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; remap 0 0 1 1 none; expect ok; remap 0 0 1 0+1 may; expect ok
        expect counter frame_allocs +0; read 0 0 0+1; expect ok b=41";
    g02_shrunk_in_place: "map 0 0 2 rw priv fixed anon; write 0 0 2 65; remap 0 0 2 1 none; expect ok
        read 0 1 0+1; expect SEGV at=0 code=maperr; read 0 0 0+1; expect ok b=41
        map 0 8 3 rw priv fixed anon; write 0 8 3 65; remap 0 8 2 1 may; expect ok
        read 0 8 0+1; expect ok b=41; read 0 9 0+1; expect SEGV at=0 code=maperr; read 0 10 0+1; expect ok b=41";
    g04_grown_in_place: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; remap 0 0 1 2 none; expect ok
        read 0 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=00; write 0 1 0+1 66; expect ok
        map 0 3 1 rw priv fixed anon; remap 0 0 2 4 none; expect ENOMEM; read 0 2 0+1; expect SEGV at=0 code=maperr
        read 0 1 0+1; expect ok b=42; remap 0 0 2 3 none; expect ok; write 0 2 0+1 67; expect ok";
    g07_moved_to_a_place: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; remap 0 0 1 1 may+fixed 8; expect ok
        read 0 8 0+1; expect ok b=41; read 0 0 0+1; expect SEGV at=0 code=maperr
        map 0 4 3 rw priv fixed anon; write 0 4 3 70; remap 0 8 1 1 may+fixed 5; expect ok
        read 0 4 0+1; expect ok b=46; read 0 5 0+1; expect ok b=41; read 0 6 0+1; expect ok b=46; read 0 8 0+1; expect SEGV at=0 code=maperr";
    g08_moved_and_shrunk: "map 0 0 2 rw priv fixed anon; write 0 0 2 65; remap 0 0 2 1 may+fixed 8; expect ok
        read 0 8 0+1; expect ok b=41; read 0 0 0+1; expect SEGV at=0 code=maperr; read 0 1 0+1; expect SEGV at=0 code=maperr
        map 0 0 3 rw priv fixed anon; write 0 0 3 66; remap 0 0 2 1 may+fixed 12; expect ok; read 0 12 0+1; expect ok b=42
        read 0 1 0+1; expect SEGV at=0 code=maperr; read 0 2 0+1; expect ok b=42; read 0 13 0+1; expect SEGV at=0 code=maperr";
    g10_a_length_of_0_is_no_second_mapping: "map 0 0 1 rw shared fixed anon; remap 0 0 0 1 none; expect EINVAL; remap 0 0 0 1 may; expect EINVAL
        remap 0 0 0 1 may+fixed 8; expect EINVAL; map 0 1 1 rw priv fixed anon; remap 0 1 0 1 may; expect EINVAL";
    g11_copies_and_growth: "file 0 12288; pwrite 0 0 1 97; pwrite 0 4096 1 98; pwrite 0 8192 1 99
        map 0 0 2 rw priv fixed file 0 0; write 0 1 0+1 100; remap 0 0 2 3 none; expect ok
        read 0 0 0+1; expect ok b=61; read 0 1 0+1; expect ok b=64; read 0 2 0+1; expect ok b=63
        map 0 8 2 rw priv fixed file 0 0; write 0 9 0+1 100; remap 0 8 2 3 may+fixed 16; expect ok
        read 0 16 0+1; expect ok b=61; read 0 17 0+1; expect ok b=64; read 0 18 0+1; expect ok b=63; write 0 18 0+1 1; pread 0 8192 1; expect ok n=1";
    g13_wrong_ranges: "map 0 0 1 rw shared fixed anon; remap 0 0+1 1 1 none; expect EINVAL; remap 0 8 1 1 none; expect EFAULT; remap 0 8 1 2 may; expect EFAULT
        remap 0 0 2 3 may; expect EFAULT; remap 0 @kern 1 1 none; expect EFAULT; setrlimit 0 vmem 8k; remap 0 0 1 3 none; expect ENOMEM
        remap 0 0 1 3 may; expect ENOMEM; remap 0 0 1 2 none; expect ok";
}

/// A process's answer, as pages of the arena where it is a place there.
fn remap(s: &mut Scene, page: u64, old: u64, new: u64, flags: RemapFlags) -> Result<u64, i32> {
    let (old, new) = (old * PAGE_SIZE, new * PAGE_SIZE);
    let at = s.process(0).mremap(addr(page).get(), old, new, flags, 0);
    s.run("verify");
    at.map_err(|e| e.errno)
}

#[test]
fn g05_moved_to_grow() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66");
    let frame = s.frame(0, 0).expect("mapped");
    let at = remap(&mut s, 0, 1, 3, RemapFlags::MAYMOVE).expect("there is room elsewhere");
    let page = (at - ARENA) / PAGE_SIZE;
    s.run("read 0 0 0+1; expect SEGV at=0 code=maperr; read 0 1 0+1; expect ok b=42");
    s.run(&format!("read 0 {at:#x} 0+1; expect ok b=41; expect counter cow_fault +0"));
    assert_eq!(s.frame(0, page), Some(frame), "not a byte was copied");
    s.run(&format!("write 0 {:#x} 2 67; expect ok; read 0 1 0+1; expect ok b=42", at + PAGE_SIZE));
    assert_eq!(shape(&s, 0), (3, 4), "the slot behind the one that moved is its old neighbour's");
    s.end();
}

/// Pages of a file, moved away and back: one mapping again, each page the file's right one.
#[test]
fn g14_back_and_forth() {
    let mut s = scene(
        "file 0 12288; pwrite 0 0 1 97; pwrite 0 4096 1 98; pwrite 0 8192 1 99; map 0 0 3 r shared fixed file 0 0",
    );
    let pages =
        "read 0 0 0+1; expect ok b=61; read 0 1 0+1; expect ok b=62; read 0 2 0+1; expect ok b=63";
    s.run(pages);
    for middle in 0..3 {
        s.run(&format!("remap 0 {middle} 1 1 may+fixed 8; expect ok"));
        s.run(&format!("read 0 8 0+1; expect ok b={:x}", 0x61 + middle));
        s.run(&format!("read 0 {middle} 0+1; expect SEGV at=0 code=maperr"));
        s.run(&format!("remap 0 8 1 1 may+fixed {middle}; expect ok"));
        assert_eq!(shape(&s, 0), (1, 3), "page {middle}");
        s.run(pages);
    }
    s.end();
}

#[test]
fn g16_locked() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; lock 0 0 1; remap 0 0 1 2 none; expect ok");
    let locked = |s: &Scene| s.process(0).space().state().locked() / PAGE_SIZE;
    assert_eq!(locked(&s), 2, "what it grew by is locked too");
    s.run("advise 0 1 1 dontneed; expect EBUSY; map 0 2 1 rw priv fixed anon");
    for limit in [0, 2] {
        s.process(0).set_limit(Limit::Memlock, limit * PAGE_SIZE);
        for flags in [RemapFlags::empty(), RemapFlags::MAYMOVE] {
            let refused = if flags.is_empty() { errno::ENOMEM } else { errno::EAGAIN };
            assert_eq!(remap(&mut s, 0, 2, 3, flags), Err(refused), "limit {limit}");
        }
        assert_eq!((locked(&s), shape(&s, 0).1), (2, 3));
        // Neither the size nor the number of locked pages changes: no limit is in the way.
        s.run("remap 0 0 2 2 may+fixed 8; expect ok; remap 0 8 2 2 may+fixed 0; expect ok");
    }
    s.run("unmap 0 2 1");
    assert_eq!(remap(&mut s, 0, 2, 3, RemapFlags::empty()), Err(errno::EAGAIN), "over the limit");
    assert_eq!((locked(&s), shape(&s, 0).1), (2, 2));
    s.process(0).set_limit(Limit::Memlock, 3 * PAGE_SIZE);
    assert_eq!(remap(&mut s, 0, 2, 3, RemapFlags::empty()), Ok(ARENA));
    assert_eq!(locked(&s), 3);
    s.run("unlock 0 0 3");
    assert_eq!(locked(&s), 0);
    s.end();
}

/// A driver that cannot cut, move or continue its mappings says so; what asks nothing of it succeeds. Nor can memory be shown twice of which nobody knows who
/// promised its pages.
#[test]
fn what_cannot_be_moved_or_shown_twice_says_so() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; map 0 4 1 rw priv fixed anon noreserve");
    crate::device(&mut s, 12);
    s.run("remap 0 12 1 1 may+fixed 20; expect ENOTSUP; remap 0 12 1 2 may; expect ENOTSUP; remap 0 12 1 1 none; expect ok");
    for page in [4, 12] {
        let shown = s.process(0).share_range(addr(page).get(), PAGE_SIZE, s.process(0));
        assert_eq!(shown.map_err(|e| e.errno), Err(errno::ENOTSUP), "page {page}");
    }
    s.run("remap 0 4 1 2 may+fixed 8; expect ok; write 0 8 2 65; expect ok");
    s.end();
}

/// What one process lets grow, another finds, once it has let it grow too.
#[test]
fn shared_memory_grows_for_all_who_map_it() {
    let mut s = scene(
        "map 0 0 1 rw shared fixed anon; write 0 0 0+1 65; fork 0 1; remap 0 0 1 3 none; expect ok",
    );
    assert_eq!(crate::reserved(&s), 3, "a page is promised once, by whoever reaches it first");
    s.run("write 0 1 0+1 66; write 0 2 0+1 67; remap 1 0 1 2 may+fixed 8; expect ok");
    assert_eq!(crate::reserved(&s), 3);
    s.run("read 1 8 0+1; expect ok b=41; read 1 9 0+1; expect ok b=42; write 1 9 0+1 68; read 0 1 0+1; expect ok b=44");
    s.run("exit 0; read 1 9 0+1; expect ok b=44");
    assert_eq!(crate::reserved(&s), 2, "the third page went with the last who reached it");
    s.run("remap 1 8 2 3 none; expect ok; read 1 10 0+1; expect ok b=00");
    s.end();
}

/// What a mapping grows by is like the last page that grew, whatever lies behind that.
#[test]
fn what_it_grows_by_is_like_its_last_page() {
    let mut s = scene(
        "map 0 0 4 rw priv fixed anon; protect 0 0 2 -; remap 0 1 1 4 may+fixed 11; expect ok",
    );
    s.run("read 0 12 0+1; expect SEGV at=0 code=accerr; read 0 14 0+1; expect SEGV at=0 code=accerr; write 0 2 2 65; expect ok");
    s.run("remap 0 0 1 2 none; expect ok; read 0 1 0+1; expect SEGV at=0 code=accerr; remap 0 0 3 3 may+fixed+dontunmap 20; expect ok");
    s.run(
        "read 0 20 0+1; expect SEGV at=0 code=accerr; read 0 0 0+1; expect SEGV at=0 code=accerr",
    );
    s.run("read 0 22 0+1; expect ok b=41; read 0 2 0+1; expect ok b=00; write 0 2 0+1 66; read 0 22 0+1; expect ok b=41");
    s.end();
}
