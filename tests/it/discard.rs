//! Contents that are given up: purged, dropped, discarded. What each of them keeps is in the table of `seg_vn/discard.rs`.

use crate::Scene;
use crate::harness::addr;
use addr_space::{Advice, FaultKind};
use page_db::{Access, PAGE_SIZE, VirtRange, errno};
use segvm::machine::{MapFlags, MapRequest, MemAdvice, RemapFlags};

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Pages of memory that are free, with what is cached.
fn free(s: &Scene) -> u64 {
    s.machine().db().freemem()
}

/// Pages of swap promised.
fn reserved(s: &Scene) -> u64 {
    s.machine().swap().info().reserved()
}

#[track_caller]
fn advise(s: &Scene, page: u64, pages: u64, advice: Advice) -> Result<(), i32> {
    let done = s.process(0).madvise(addr(page).get(), pages * PAGE_SIZE, MemAdvice::Use(advice));
    done.map_err(|e| e.errno)
}

/// Anonymous memory is zeros at once, its frames and its places on swap are free; what is promised stays promised.
#[test]
fn discarded_memory_is_zeros_and_its_frames_are_free() {
    for word in ["discard", "drop", "purge"] {
        let mut s = scene("map 0 0 40 rw priv fixed anon; write 0 0 40 65");
        let (before, promised) = (free(&s), reserved(&s));
        s.run(&format!("advise 0 1 34 {word}; expect ok; verify"));
        assert_eq!((free(&s) - before, reserved(&s)), (34, promised), "{word}");
        s.run("read 0 0 0+1; expect ok b=41; read 0 35 0+1; expect ok");
        s.run(
            "read 0 1 0+1; expect ok b=00; read 0 34 0+1; expect ok b=00; expect counter zfod +1",
        );
        s.end();
    }
}

/// What is on swap goes with its place there, but for what only may be purged.
#[test]
fn what_is_on_swap_is_discarded_too() {
    for (word, want) in [("discard", "00"), ("drop", "00"), ("purge", "41")] {
        let mut s =
            scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66; pageout *");
        s.run("squeeze 4096"); // nothing stays on the cache list
        s.run("release");
        let used = |s: &Scene| s.machine().swap().live();
        assert_eq!(used(&s), 2);
        s.run(&format!("advise 0 0 1 {word}; expect ok; verify"));
        assert_eq!(used(&s), if want == "00" { 1 } else { 2 }, "{word}");
        s.run(&format!("read 0 0 0+1; expect ok b={want}; read 0 1 0+1; expect ok b=42"));
        s.end();
    }
}

/// A private file's copies go, and the file shows again; the file itself is unmapped, or written back and dropped.
#[test]
fn copies_of_a_file_go_and_the_file_shows() {
    for word in ["discard", "drop", "purge"] {
        let mut s = scene("file 0 12288; pwrite 0 0 12288 97; map 0 0 3 rw priv fixed file 0 0");
        s.run("advise 0 0 3 random; read 0 0 0+1; write 0 1 0+1 65");
        s.run(&format!("advise 0 0 3 {word}; expect ok; read 0 1 0+1; expect ok b=61; verify"));
        s.run("pwrite 0 0 1 98; read 0 0 0+1; expect ok b=62; read 0 2 0+1; expect ok b=61");
        s.end();
    }
}

/// Shared memory and shared files keep their bytes; only translations go.
#[test]
fn what_is_shared_is_only_unmapped() {
    let mut s =
        scene("file 0 4096; map 0 0 1 rw shared fixed anon; map 0 1 1 rw shared fixed file 0 0");
    s.run("write 0 0 0+1 65; write 0 1 0+1 66; fork 0 1; advise 0 0 2 discard; expect ok");
    assert_eq!((s.rights(0, 0), s.rights(0, 1)), ("-".into(), "-".into()));
    s.run(
        "read 0 0 0+1; expect ok b=41; read 1 1 0+1; expect ok b=42; advise 0 0 2 drop; expect ok",
    );
    s.run("read 0 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=42");
    // Nobody else has it any more: it is dropped as private memory is.
    s.run("exit 1; advise 0 0 2 drop; read 0 0 0+1; expect ok b=00; read 0 1 0+1; expect ok b=42");
    s.end();
}

/// Private memory that was inherited by sharing is kept while another has it.
#[test]
fn what_was_inherited_by_sharing_is_kept_while_another_has_it() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66");
    s.run("inherit 0 0 2 share; fork 0 1; unmap 1 1 1");
    for word in ["purge", "drop", "discard"] {
        s.run(&format!("advise 0 0 1 {word}; expect ok; read 1 0 0+1; expect ok b=41; read 0 0 0+1; expect ok b=41"));
    }
    // The second page is nobody else's.
    s.run("advise 0 0 2 discard; read 0 1 0+1; expect ok b=00; read 0 0 0+1; expect ok b=41");
    s.run("exit 1; advise 0 0 1 discard; read 0 0 0+1; expect ok b=00");
    s.end();
}

/// D2: where swap is reserved at the first touch, it is given back.
#[test]
fn what_is_reserved_at_the_first_touch_is_given_back() {
    for word in ["discard", "drop", "purge"] {
        let mut s = scene("map 0 0 8 rw priv fixed anon noreserve");
        let before = (reserved(&s), s.process(0).space().state().resv_size());
        s.run(&format!("write 0 0 5 1; advise 0 1 7 {word}; verify"));
        let now = (reserved(&s), s.process(0).space().state().resv_size());
        assert_eq!(now, (before.0 + 1, before.1 + PAGE_SIZE), "{word}");
        s.end();
    }
}

/// D1: what lies below a locked page is done, and the lock holds; purging does the pages on both sides.
#[test]
fn a_locked_page_is_where_it_ends() {
    for (advice, above) in [(Advice::Discard, "42"), (Advice::Drop, "42"), (Advice::Purge, "00")] {
        let mut s = scene(
            "map 0 0 3 rw priv fixed anon; write 0 0 0+1 64; write 0 1 0+1 65; write 0 2 0+1 66; lock 0 1 1",
        );
        assert_eq!(advise(&s, 0, 3, advice), Err(errno::EBUSY));
        s.run("verify; read 0 0 0+1; expect ok b=00; read 0 1 0+1; expect ok b=41");
        s.run(&format!("read 0 2 0+1; expect ok b={above}; unlock 0 1 1"));
        assert_eq!(advise(&s, 0, 3, advice), Ok(()));
        s.run("read 0 1 0+1; expect ok b=00");
        s.end();
    }
}

/// A page under i/o is refused, and nothing is done; purging leaves it alone.
#[test]
fn a_pinned_page_is_refused() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66");
    let page = VirtRange::exact(addr(1).get(), PAGE_SIZE).expect("a page");
    let pin = |s: &Scene, kind| {
        let p = s.process(0);
        p.space().fault(p.cx(), page, kind, Access::Write).expect("mapped");
    };
    pin(&s, FaultKind::SoftLock);
    assert_eq!(advise(&s, 0, 2, Advice::Discard), Err(errno::EAGAIN));
    assert_eq!(advise(&s, 0, 2, Advice::Drop), Err(errno::EAGAIN));
    s.run("read 0 0 0+1; expect ok b=41");
    assert_eq!(advise(&s, 0, 2, Advice::Purge), Ok(()));
    s.run("read 0 0 0+1; expect ok b=00; read 0 1 0+1; expect ok b=42");
    pin(&s, FaultKind::SoftUnlock);
    s.end();
}

/// A mapping that may be thrown away: not inherited, and gone when the process is short of room.
#[test]
fn a_mapping_may_be_thrown_away_whole() {
    let mut s = scene("map 0 0 1 rw priv fixed anon");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED | MapFlags::PURGE;
    let at = addr(1).get();
    let request = MapRequest { addr: at, len: PAGE_SIZE, prot: 3, flags, file: None, offset: 0 };
    assert_eq!(s.process(0).mmap(&request), Ok(at));
    s.run("write 0 0 0+1 65; write 0 1 0+1 66; fork 0 1; read 1 0 0+1; expect ok b=41");
    s.run("read 1 1 0+1; expect SEGV at=0 code=maperr; read 0 1 0+1; expect ok b=42");
    s.process(0).space().purge(s.machine().cx()).expect("nothing is pinned");
    s.run("verify; read 0 0 0+1; expect ok b=41; read 0 1 0+1; expect SEGV at=0 code=maperr");
    s.end();
}

/// Whoever moves or shows again a mapping that may be thrown away does not throw it away to make room for itself. Others go.
#[test]
fn what_is_to_move_is_not_thrown_away_for_its_own_sake() {
    let mut s = scene("");
    {
        let p = s.process(0);
        let flags = MapFlags::PRIVATE | MapFlags::ANON;
        let all = |len, flags| MapRequest { addr: 0, len, prot: 3, flags, file: None, offset: 0 };
        let mut first = 0;
        for shift in (12..48).rev() {
            while let Ok(at) = p.mmap(&all(1 << shift, flags | MapFlags::NORESERVE)) {
                first = if first == 0 { at } else { first };
            }
        }
        let disposable = |addr, pages: u64| {
            let flags = flags | MapFlags::FIXED | MapFlags::PURGE;
            let request = MapRequest { addr, ..all(pages * PAGE_SIZE, flags) };
            assert_eq!(p.mmap(&request), Ok(addr));
            p.store(addr, b"kept").expect("stored");
        };
        let kept = |addr| {
            let mut bytes = [0; 4];
            p.load(addr, &mut bytes).map(|_| bytes == *b"kept").unwrap_or(false)
        };
        let grow = |addr| {
            let moved = p.mremap(addr, 2 * PAGE_SIZE, 4 * PAGE_SIZE, RemapFlags::MAYMOVE, 0);
            moved.map_err(|e| e.errno)
        };
        let (one, two) = (first + 16 * PAGE_SIZE, first + 32 * PAGE_SIZE);
        disposable(one, 2);
        assert_eq!(p.share_range(one, 2 * PAGE_SIZE, p).map_err(|e| e.errno), Err(errno::ENOMEM));
        disposable(two, 3);
        assert_eq!(grow(one), Err(errno::ENOMEM));
        assert_eq!((kept(one), kept(two)), (true, false), "the other one has gone, for nothing");
        disposable(two, 4);
        // A part of what may be thrown away is as good as all of it.
        let part = p.mremap(one, PAGE_SIZE, 5 * PAGE_SIZE, RemapFlags::MAYMOVE, 0);
        assert_eq!(part.map_err(|e| e.errno), Err(errno::ENOMEM));
        disposable(two, 4);
        assert_eq!((grow(one), kept(two), kept(one)), (Ok(two), true, false), "moved there");
        disposable(one, 2);
        let shown = p.share_range(two, 2 * PAGE_SIZE, p).expect("there is room by now");
        assert_eq!((shown, kept(shown), kept(two)), (one, true, true));
    }
    s.run("verify");
    s.end();
}

/// A terabyte of untouched memory is discarded for nothing (D12).
#[test]
fn untouched_memory_is_discarded_for_nothing() {
    let mut s =
        scene("map 0 0x200000000000 1t rw priv fixed anon noreserve; write 0 0x200000001000 1 1");
    s.run("advise 0 0x200000000000 1t discard; expect ok; expect counter anon_slots +32");
    s.end();
}

/// UVM's guard region: no rights, none to come, no memory and no promise.
#[test]
fn a_guard_region_is_kept_for_nobody() {
    let mut s = scene("map 0 0 1 rw priv fixed anon");
    let before = reserved(&s);
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED | MapFlags::GUARD;
    let at = addr(1).get();
    let request =
        MapRequest { addr: at, len: 2 * PAGE_SIZE, prot: 0, flags, file: None, offset: 0 };
    assert_eq!(s.process(0).mmap(&request), Ok(at));
    for wrong in [
        MapRequest { prot: 1, ..request },
        MapRequest { flags: flags.difference(MapFlags::PRIVATE) | MapFlags::SHARED, ..request },
    ] {
        assert_eq!(s.process(0).mmap(&wrong).map_err(|e| e.errno), Err(errno::EINVAL));
    }
    s.run("read 0 1 0+1; expect SEGV at=0 code=accerr; protect 0 1 1 r; expect EACCES; protect 0 1 1 -; expect ok");
    assert_eq!(reserved(&s), before);
    s.run("fork 0 1; protect 1 2 1 rw; expect EACCES; unmap 0 1 1; read 0 1 0+1; expect SEGV at=0 code=maperr");
    s.end();
}

/// Dropping goes through to the file. What the file cannot let go is said, and the copy above is gone by then.
#[test]
fn a_copy_is_dropped_also_where_the_file_keeps_its_page() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 97; map 0 0 2 rw priv fixed file 0 0; write 0 0 2 65; fork 0 1",
    );
    s.run("unmap 1 0 2; map 1 1 1 rw shared fixed file 0 0; lock 1 1 1; advise 0 0 2 drop; expect EBUSY; verify");
    s.run("read 0 0 0+1; expect ok b=61; read 0 1 0+1; expect ok; unlock 1 1 1; advise 0 0 2 drop; expect ok");
    s.end();
}
