//! F: advice, inheritance, residency, sync, locks.

use crate::{Scene, addr, scene, shape, space};
use page_db::db::RetireError;
use page_db::{PAGE_SIZE, Pfn};

fn bits(s: &Scene, proc: u32, pages: u64) -> Vec<u8> {
    s.process(proc).mincore(addr(0).get(), pages * PAGE_SIZE).expect("mapped")
}

scripts! {
    f01_what_is_not_needed_keeps_its_bytes: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; advise 0 0 1 dontneed; expect ok
        read 0 0 0+1; expect ok b=41";
    f02_in_a_child_too: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1; advise 1 0 1 dontneed; expect ok
        read 0 0 0+1; expect ok b=41; read 1 0 0+1; expect ok b=41";
    f04_a_copy_of_a_files_page_stays: "file 0 4096; map 0 0 1 rw priv fixed file 0 0; write 0 0 0+1 65; advise 0 0 1 dontneed; expect ok
        read 0 0 0+1; expect ok b=41";
    f05_whatever_the_rights: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; protect 0 0 1 -; advise 0 0 1 dontneed; expect ok
        protect 0 0 1 r; read 0 0 0+1; expect ok b=41";
    f07_wrong_advice: "map 0 0 1 rw priv fixed anon; advise 0 0+1 1 normal; expect EINVAL; advise 0 0 1 bad; expect EINVAL
        lock 0 0 1; advise 0 0 1 dontneed; expect EBUSY; advise 0 0 2 normal; expect ENOMEM; advise 0 0 2 free; expect ENOMEM
        file 0 4096; map 0 4 1 rw priv fixed file 0 0; advise 0 4 1 free; expect ok
        advise 0 4 1 inherit_zero; expect EINVAL; map 0 5 1 rw shared fixed anon; advise 0 5 1 inherit_zero; expect EINVAL";
    f08_zeros_in_child_and_grandchild: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; advise 0 0 1 inherit_zero
        fork 0 1; write 1 0 0+1 66; fork 1 2; read 2 0 0+1; expect ok b=00; read 0 0 0+1; expect ok b=41
        advise 0 0 1 inherit_copy; fork 0 3; read 3 0 0+1; expect ok b=41";
    f10_five_of_ten: "map 0 0 10 rw priv fixed anon; write 0 0 10 65
        advise 0 1 1 inherit_zero; advise 0 3 1 inherit_zero; advise 0 5 1 inherit_zero; advise 0 7 1 inherit_zero; advise 0 9 1 inherit_zero
        unmap 0 3 1; fork 0 1; read 1 1 0+1; expect ok b=00; read 1 3 0+1; expect SEGV at=0 code=maperr
        read 1 5 0+1; expect ok b=00; read 1 9 0+1; expect ok b=00; read 1 4 0+1; expect ok b=41; read 1 8 0+1; expect ok b=41
        read 0 1 0+1; expect ok b=41; read 0 9 0+1; expect ok b=41";
    f11_zeros_where_there_can_be_none: "advise 0 0 1 inherit_zero; expect ENOMEM; map 0 0 1 rw shared fixed anon
        advise 0 0 1 inherit_zero; expect EINVAL; file 0 4096; map 0 1 1 rw priv fixed file 0 0; advise 0 1 1 inherit_zero; expect EINVAL";
    f13_a_page_the_child_has_not: "map 0 0 3 rw shared fixed anon; write 0 0 3 65; map 0 8 3 rw priv fixed anon; write 0 8 3 66
        advise 0 1 1 dontfork; advise 0 9 1 dontfork; fork 0 1
        read 1 1 0+1; expect SEGV at=0 code=maperr; read 1 9 0+1; expect SEGV at=0 code=maperr
        read 1 0 0+1; expect ok b=41; read 1 2 0+1; expect ok b=41; read 1 8 0+1; expect ok b=42; read 1 10 0+1; expect ok b=42";
    f14_its_ranges: "map 0 0 2 rw priv fixed anon; advise 0 0+1 1 dontfork; expect EINVAL; advise 0 0 0 dontfork; expect EINVAL
        advise 0 0 @wrap dontfork; expect ENOMEM; advise 0 0 0+1 dontfork; expect ok; fork 0 1
        read 1 0 0+1; expect SEGV at=0 code=maperr; read 1 1 0+1; expect ok";
    f16_what_free_leaves_alone: "map 0 0 3 rw priv fixed anon; write 0 0 3 65; lock 0 0 1; advise 0 0 1 free; read 0 0 0+1; expect ok b=41
        sync 0 1 1 sync+inval; advise 0 1 1 free; read 0 1 0+1; expect ok b=41
        fork 0 1; advise 0 2 1 free; read 0 2 0+1; expect ok b=41; read 1 2 0+1; expect ok b=41";
    f22_odd_lengths_of_a_page: "map 0 0 1 rw priv fixed anon; lock 0 0 0+100; expect ok; unlock 0 0 0+4095; expect ok
        lock 0 0 0+1; expect ok; unlock 0 0 1; expect ok; setrlimit 0 memlock 4096; lock 0 0 0+17; expect ok";
    f23_no_access: "map 0 0 1 - priv fixed anon; lock 0 0 1; expect ok; unlock 0 0 1; expect ok";
    f25_stores_only: "file 0 4096; map 0 0 1 w shared fixed file 0 0; lock 0 0 1; expect ok; unlock 0 0 1; expect ok";
    f29_no_later_mapping_over_the_limit: "setrlimit 0 memlock 4096; lockall 0 future; map 0 0 2 rw priv fixed anon; expect EAGAIN
        map 0 0 1 rw priv fixed anon; expect ok";
    f31_wrong_ranges_of_residency: "map 0 0 1 rw priv fixed anon; incore 0 0+1 1; expect EINVAL; incore 0 0 2; expect ENOMEM
        incore 0 8 1; expect ENOMEM; incore 0 0 @wrap; expect EINVAL";
    f32_no_length: "map 0 0 1 rw priv fixed anon; incore 0 0 0; expect EINVAL";
    f35_ways_to_sync: "map 0 0 2 rw shared fixed anon; write 0 0 2 1; sync 0 0 2 sync; expect ok; sync 0 0 2 async; expect ok
        sync 0 0 2 inval; expect ok; sync 0 0 2 sync+async; expect EINVAL; sync 0 0 2 bad; expect EINVAL
        sync 0 0+1 1 sync; expect EINVAL; sync 0 0 1+7 sync; expect ok; sync 0 0 3 sync; expect ENOMEM; sync 0 8 1 sync; expect ENOMEM";
    f37_a_store_is_written_and_clean: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 1; sync 0 0 1 sync; expect ok
        expect counter pgpgout +1; sync 0 0 1 sync; expect counter pgpgout +0";
    f38_invalidated_after_a_write: "file 0 4096; map 0 0 1 r shared fixed file 0 0; read 0 0 1; pwrite 0 0 2 65
        sync 0 0 1 inval; expect ok; read 0 0 0+2; expect ok b=4142";
    f40_what_will_be_needed_is_brought_in: "map 0 0 4 rw shared fixed anon; write 0 0 4 65; sync 0 0 4 sync+inval; advise 0 0 4 willneed; expect ok
        read 0 0 4; expect counter maj_fault +0; expect counter anonpgin +0; read 0 2 0+1; expect ok b=41";
    f44_a_lock_is_on_pages: "map 0 0 1 rw priv fixed anon; lock 0 0+1 0+1; expect EINVAL; unlock 0 0+1 0+1; expect EINVAL";
}

#[test]
fn f17_free_pages_are_nobodys() {
    let mut s = scene("map 0 0 128 rw priv fixed anon; write 0 0 128 65");
    let (free, tables) = (s.machine().db().freemem(), space(&s, 0).hat().resident());
    assert_eq!(tables, 128);
    s.run("advise 0 0 128 free; expect ok; expect counter MADV_FREE_hit +128");
    assert_eq!(space(&s, 0).hat().resident(), 0);
    // They wait on the cache list, so that illumos's mincore still finds them.
    assert!(s.machine().db().freemem() >= free + 128);
    s.end();
}

#[test]
fn f19_no_lock_is_added_by_a_call_that_fails() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; lock 0 0 3; expect ENOMEM");
    assert_eq!((space(&s, 0).state().locked(), bits(&s, 0, 2)[0] & 2), (0, 0));
    s.run("advise 0 0 2 dontneed; expect ok");
    s.end();
}

#[test]
fn f26_locking_changes_no_range() {
    let mut s =
        scene("map 0 0 4 rw priv fixed anon; map 0 8 2 r priv fixed anon; brk 0 3; write 0 0 4 1");
    let before = shape(&s, 0);
    for (at, pages) in [("0", 4), ("8", 2), ("b:0", 3)] {
        s.run(&format!("lock 0 {at} {pages}; expect ok; unlock 0 {at} {pages}; expect ok"));
    }
    assert_eq!((shape(&s, 0), before), ((3, 9), (3, 9)));
    s.end();
}

#[test]
fn f28_future_memory_is_locked_until_all_is_unlocked() {
    let mut s = scene(
        "lockall 0 future; map 0 0 1 rw priv fixed anon; unlockall 0; map 0 1 1 r priv fixed anon",
    );
    assert_eq!(bits(&s, 0, 2).iter().map(|b| b & 2).sum::<u8>(), 0);
    s.run("lockall 0 future; map 0 2 1 rw priv fixed anon");
    assert_eq!(bits(&s, 0, 3).iter().map(|b| b & 2).collect::<Vec<_>>(), [0, 0, 2]);
    s.end();
}

#[test]
fn f34_what_a_child_locks_is_resident_for_the_parent() {
    let mut s = scene("file 0 16384; map 0 0 4 r priv fixed file 0 0; fork 0 1");
    assert_eq!(bits(&s, 0, 4), [0x10; 4]);
    s.run("lock 1 0 4; expect ok");
    assert!(bits(&s, 0, 4).iter().all(|b| b & 1 != 0));
    s.end();
}

#[test]
fn f41_a_lock_ends_with_its_mapping() {
    let mut s = scene(
        "map 0 0 1 rw priv fixed anon; lock 0 0 1; unmap 0 0 1; map 0 0 1 rw priv fixed anon",
    );
    assert_eq!((bits(&s, 0, 1)[0] & 2, space(&s, 0).state().locked()), (0, 0));
    s.run("write 0 0 1 1; advise 0 0 1 dontneed; expect ok");
    s.end();
}

#[test]
fn f43_a_clean_frame_is_retired_and_a_dirty_one_waits() {
    // Contents that are elsewhere are read again; a page whose only copy is in the frame stays until it is written. No signal either way.
    // One page of a thousand may be retired.
    let mut s = Scene::on("machine memory=2048");
    s.run("file 0 4096; pwrite 0 0 2 65; map 0 0 1 r shared fixed file 0 0; map 0 4 1 rw priv fixed anon; write 0 4 1 70");
    s.run("sync 0 0 1 sync; read 0 0 1");
    let frames = [0, 4].map(|p| Pfn(s.frame(0, p).expect("mapped")));
    let retire = |s: &Scene, n: usize| s.machine().db().retire(s.machine().cx(), frames[n]);
    let check = |s: &Scene, n: usize| s.machine().db().retire_check(frames[n]);
    assert_eq!((retire(&s, 0), check(&s, 0)), (Ok(()), Ok(())), "clean: at once");
    s.run("read 0 0 0+2; expect ok b=4142; expect counter pgin +1");
    assert_ne!(s.frame(0, 0), Some(frames[0].0), "another frame");
    let pending = Err(RetireError::Pending(frames[1]));
    assert_eq!((retire(&s, 1), check(&s, 1)), (pending, pending), "dirty: later");
    s.run("read 0 4 0+1; expect ok b=46");
    assert_eq!(check(&s, 1), pending, "looking at it writes nothing");
    s.run("sync 0 4 1 sync");
    assert_eq!(check(&s, 1), Ok(()), "once its contents are elsewhere");
    s.run("read 0 4 0+1; expect ok b=46; expect counter anonpgin +1");
    assert_ne!(s.frame(0, 4), Some(frames[1].0), "another frame");
    s.end();
}

#[test]
fn f20_without_the_privilege_and_over_the_limit() {
    let mut s = scene(
        "setrlimit 0 memlock 4096; map 0 0 2 rw priv fixed anon; lock 0 0 2; expect EAGAIN; lock 0 0 1; expect ok",
    );
    s.process(0).set_may_lock(false);
    s.run("lock 0 0 1; expect EPERM; unlock 0 0 1; expect EPERM; lockall 0 current; expect EPERM; unlockall 0; expect EPERM; lock 0 0+1 1; expect EINVAL");
    s.run("fork 0 1; lock 1 0 1; expect EPERM");
    assert_eq!(space(&s, 0).state().locked(), page_db::PAGE_SIZE, "what was locked stays");
    s.process(0).set_may_lock(true);
    s.run("lock 0 1 1; expect EAGAIN; unlock 0 0 1; expect ok; lock 0 1 1; expect ok");
    s.end();
}
