//! A process that is swapped out: what goes, what stays, and that every byte is there afterwards.

use crate::Scene;
use crate::harness::addr;
use addr_space::FaultKind;
use page_db::{Access, PAGE_SIZE, VirtRange};

/// What is mapped is unmapped first, so it goes as well; each page has its place, and its bytes.
#[test]
fn a_process_that_is_swapped_out_gives_its_pages_back() {
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    s.run("map 0 0 4 rw priv fixed anon; write 0 0 4 65");
    let free = |s: &Scene| s.machine().swap().list().iter().map(|a| a.free).sum::<u64>();
    let (slots, frames) = (free(&s), s.machine().db().freemem());
    assert_eq!(s.process(0).swap_out(), 4 * PAGE_SIZE);
    assert_eq!(free(&s), slots - 4);
    assert!(s.machine().db().freemem() >= frames + 4, "and tables, maybe");
    assert!((0..4).all(|page| s.translation(0, page).is_none()));
    s.run("verify; read 0 0 4; expect ok; read 0 3 0+1; expect ok b=41");
    assert_eq!(s.process(0).swap_out(), 4 * PAGE_SIZE, "clean by now");
    s.end();
}

/// Locked, pinned, mapped by somebody else: it stays. What is known of stores is not lost with the translations, and a file gets its bytes.
#[test]
fn what_somebody_needs_stays_when_a_process_is_swapped_out() {
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 65; lock 0 0 1");
    s.run("file 0 8192 rw; map 0 4 2 rw shared fixed file 0 0; write 0 4 2 66");
    s.run("map 0 8 1 rw shared fixed anon; write 0 8 1 67; fork 0 1; read 1 8 0+1; map 0 12 1 rw priv fixed anon");
    s.run("write 0 12 1 68");
    let page = VirtRange::page_of(addr(12));
    let soft = |s: &Scene, kind| {
        s.process(0).space().fault(s.machine().cx(), page, kind, Access::Write).expect("mapped");
    };
    soft(&s, FaultKind::SoftLock);
    let pinned = s.translation(0, 12);
    assert!(pinned.is_some());
    // The second anonymous page is the child's too, which has not touched it; the file's pages go to the file.
    assert_eq!(s.process(0).swap_out(), 3 * PAGE_SIZE);
    assert_eq!(s.translation(0, 12), pinned, "it may be locked");
    assert!([0, 8].into_iter().all(|page| s.anon(0, page).is_some_and(|a| a.frame.is_some())));
    soft(&s, FaultKind::SoftUnlock);
    s.run("verify; read 0 0 0+1; expect ok b=41; read 0 12 0+1; expect ok b=44");
    s.run("read 0 4 0+1; expect ok b=42; fread 0 0 4096 0 1; read 0 8 0+1; expect ok b=43; unlock 0 0 1");
    s.end();
}
