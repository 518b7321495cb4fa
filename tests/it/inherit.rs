//! What a child of fork finds: shared, copied, left out, zeros. Behaviours 14, 40 and V09 have their tests with the others of their lists.

use crate::Scene;
use crate::harness::addr;
use addr_space::{FaultKind, Inherit};
use page_db::{Access, PAGE_SIZE, VirtRange};
use segvm::machine::STACK_TOP;

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Says what a child of `proc` finds in `pages` pages from `page` on.
#[track_caller]
fn minherit(s: &mut Scene, proc: u32, page: u64, pages: u64, how: Inherit) {
    let done = s.process(proc).minherit(addr(page).get(), pages * PAGE_SIZE, how);
    done.unwrap_or_else(|e| panic!("{e}"));
    s.run("verify");
}

/// A segment inherited in four ways is as many segments in the child, each with what it was promised.
#[test]
fn one_segment_may_be_inherited_in_several_ways() {
    for fork in ["eager", "lazy"] {
        let mut s = Scene::on(&format!("machine memory=512 fork={fork}"));
        s.run("map 0 0 8 rw priv fixed anon; advise 0 0 8 random");
        for page in 0..8 {
            s.run(&format!("write 0 {page} 0+1 {}", 65 + page));
        }
        minherit(&mut s, 0, 1, 1, Inherit::Share);
        minherit(&mut s, 0, 3, 1, Inherit::None);
        minherit(&mut s, 0, 5, 1, Inherit::Zero);
        s.run("fork 0 1; write 0 1 0+1 97; write 0 2 0+1 98; write 0 5 0+1 99");
        s.run("read 1 0 0+1; expect ok b=41; read 1 1 0+1; expect ok b=61");
        s.run("read 1 2 0+1; expect ok b=43; read 1 3 0+1; expect SEGV at=0 code=maperr");
        s.run("read 1 5 0+1; expect ok b=00; read 1 7 0+1; expect ok b=48");
        // A second fork finds the shared page shared again, by three now.
        s.run("fork 1 2; write 2 1 0+1 100; read 0 1 0+1; expect ok b=64; exit 0; read 1 1 0+1; expect ok b=64");
        s.end();
    }
}

/// What is shown twice is inherited at both places as it was at the first: what a child is not to have it gets at neither.
#[test]
fn what_is_shown_twice_is_inherited_as_it_was() {
    for mark in ["inherit 0 1 1 none", "advise 0 1 1 dontfork"] {
        let mut s = scene("fork 0 1; map 0 0 3 rw priv fixed anon; write 0 0 3 65");
        s.run(mark);
        s.run("share 0 0 3 0 10; expect ok; share 0 1 2 1 20; expect ok; fork 0 2; fork 1 3");
        s.run("read 2 0 0+1; expect ok b=41; read 2 10 0+1; expect ok b=41; read 2 12 0+1; expect ok b=41");
        s.run("read 2 1 0+1; expect SEGV at=0 code=maperr; read 2 11 0+1; expect SEGV at=0 code=maperr");
        s.run("read 3 20 0+1; expect SEGV at=0 code=maperr; read 3 21 0+1; expect ok b=41");
        s.end();
    }
}

/// Copies of shared files, and zeros over anything.
#[test]
fn shared_files_may_be_copied_and_anything_may_be_zeros() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 97; map 0 0 2 rw shared fixed file 0 0; advise 0 0 2 random
         map 0 8 1 rw shared fixed anon; write 0 8 0+1 65",
    );
    minherit(&mut s, 0, 0, 1, Inherit::Copy);
    minherit(&mut s, 0, 1, 1, Inherit::Zero);
    minherit(&mut s, 0, 8, 1, Inherit::Zero);
    s.run("fork 0 1; read 1 1 0+1; expect ok b=00; read 1 8 0+1; expect ok b=00");
    s.run("read 1 0 0+1; expect ok b=61; write 0 0 0+1 66; read 1 0 0+1; expect ok b=42");
    s.run("write 1 0 0+1 67; read 0 0 0+1; expect ok b=42; write 1 8 0+1 68; read 0 8 0+1; expect ok b=41");
    s.end();
}

/// Pages locked in memory stay where they are when shared memory is copied: the child gets copies at once, and the claims stay with the sharers.
#[test]
fn locked_pages_of_shared_memory_are_copied_at_the_fork() {
    let mut s = scene("map 0 0 2 rw shared fixed anon; advise 0 0 2 random");
    s.run("write 0 0 0+1 65; write 0 1 0+1 66; lock 0 0 1");
    minherit(&mut s, 0, 0, 2, Inherit::Copy);
    s.run("fork 0 1");
    let refs = |s: &Scene, page| s.anon(0, page).map(|a| a.refs);
    assert_eq!((refs(&s, 0), refs(&s, 1)), (Some(1), Some(2)));
    s.run("lock 0 1 1"); // breaks what is shared with the child first
    assert_eq!((refs(&s, 0), refs(&s, 1)), (Some(1), Some(1)));
    s.run("write 0 0 0+1 67; write 0 1 0+1 68; read 1 0 0+1; expect ok b=41; read 1 1 0+1; expect ok b=42");
    s.run("unlock 0 0 2");
    s.end();
}

/// A page that was locked before its map was joint, in a part of it that is handed on later, is made the map's own then: the claim goes along.
#[test]
fn a_locked_page_handed_on_by_a_second_fork_takes_its_claim_along() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 97; map 0 0 2 rw priv fixed file 0 0; advise 0 0 2 random",
    );
    s.run("lock 0 1 1; inherit 0 0 1 share; fork 0 1; inherit 0 1 1 share; fork 0 2");
    s.run("write 2 1 0+1 65; read 0 1 0+1; expect ok b=41; unlock 0 1 1; verify; read 2 1 0+1; expect ok b=41");
    s.end();
}

/// Sharing memory that reserves at the first touch is refused, and says so.
#[test]
fn sharing_what_reserves_at_the_first_touch_is_not_supported() {
    let s = scene("map 0 0 1 rw priv fixed anon noreserve");
    let refused = s.process(0).minherit(addr(0).get(), PAGE_SIZE, Inherit::Share);
    assert_eq!(refused.map_err(|e| e.errno), Err(page_db::errno::ENOTSUP));
    let hole = s.process(0).minherit(addr(1).get(), PAGE_SIZE, Inherit::None);
    assert_eq!(hole.map_err(|e| e.errno), Err(page_db::errno::ENOMEM));
    s.end();
}

/// A stack that a child does not get grows by pages that it does not get.
#[test]
fn a_stack_that_is_not_inherited_grows_by_pages_that_are_not() {
    let page = |n: u64| STACK_TOP - n * PAGE_SIZE;
    let mut s = Scene::new();
    s.run(&format!("grow 0 {:#x}; expect ok", page(2)));
    s.run(&format!(
        "advise 0 {:#x} 2 dontfork; expect ok; grow 0 {:#x}; expect ok",
        page(2),
        page(5)
    ));
    s.run(&format!("write 0 {:#x} 5 66; expect ok; fork 0 1", page(5)));
    for n in 1..=5 {
        s.run(&format!("read 1 {:#x} 0+1; expect SEGV at=0 code=maperr", page(n)));
    }
    // Of one that is inherited again it gets what comes from then on.
    s.run(&format!("advise 0 {:#x} 1 dofork; grow 0 {:#x}; fork 0 2", page(5), page(6)));
    s.run(&format!("read 2 {:#x} 2; expect ok; read 2 {:#x} 0+1; expect SEGV", page(6), page(4)));
    s.end();
}

/// J3: what is locked in a slot that several show for good is the map's own, so a file's page there is copied: they all see the same one.
#[test]
fn a_lock_of_a_private_file_that_several_show_copies_it() {
    let mut s = scene("file 0 8192 rw; map 0 0 2 rw priv fixed file 0 0");
    minherit(&mut s, 0, 0, 2, Inherit::Share);
    s.run("fork 0 1; lock 0 0 1; expect ok; pwrite 0 0 8 65; read 0 0 0+4; expect ok b=00000000");
    s.run("read 1 0 0+4; expect ok b=00000000");
    // A pin for reading likewise, where nothing may be stored.
    s.run("map 0 8 1 r priv fixed file 0 1; inherit 0 8 1 share; fork 0 2");
    let pin = |s: &Scene, kind| {
        let page = VirtRange::page_of(addr(8));
        s.process(0).space().fault(s.machine().cx(), page, kind, Access::Read).expect("mapped");
    };
    pin(&s, FaultKind::SoftLock);
    s.run("pwrite 0 4096 8 67; read 0 8 0+4; expect ok b=00000000; read 2 8 0+4; expect ok b=00000000");
    pin(&s, FaultKind::SoftUnlock);
    // What nobody else shows is not.
    s.run("map 0 4 2 rw priv fixed file 0 0; lock 0 4 1; pwrite 0 0 8 66; read 0 4 0+4; expect ok b=42434445");
    s.end();
}

/// Showing a range twice that is refused at a hole, a limit or a mapping that cannot be shown twice leaves what lies below as it was: a page that is locked and the
/// file's still goes on showing what is stored to the file.
#[test]
fn a_range_that_is_not_shown_twice_reads_as_before() {
    let behind = [
        ("", "EFAULT"),
        ("map 0 1 1 rw priv fixed anon noreserve", "ENOTSUP"),
        ("map 0 1 1 rw priv fixed anon; setrlimit 0 vmem 12k", "ENOMEM"),
    ];
    for (setup, errno) in behind {
        let mut s = scene("file 0 8192 rw; map 0 0 1 rw priv fixed file 0 0; lock 0 0 1");
        s.run(setup);
        s.run(&format!("share 0 0 2 0 8; expect {errno}; verify; read 0 0 0+1; expect ok b=00"));
        s.run("pwrite 0 0 1 69; read 0 0 0+1; expect ok b=45");
        s.end();
    }
}
