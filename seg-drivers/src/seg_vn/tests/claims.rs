//! Locks in memory whose claim is gone.

use super::unhappy::range;
use super::*;
use crate::seg_vn::SegVn;
use addr_space::SegCx;
use page_db::db::Claim;
use page_db::{Identity, LockedPage as _};

/// What `f` says of the first segment of a process.
fn first<R>(w: &World, p: &Proc, f: impl FnOnce(&SegVn, &SegCx<'_>) -> R) -> R {
    let segs = p.space.segs(&w.cx);
    let seg = segs.iter().next().expect("mapped");
    let any: &dyn core::any::Any = seg.ops();
    f(any.downcast_ref().expect("seg_vn"), &p.space.seg_cx(&w.cx, seg.range()))
}

/// The name of the first page of a process.
fn name(w: &World, p: &Proc) -> Identity {
    let n = first(w, p, |vn, scx| vn.amap()?.peek(vn.slot_of(scx.seg, scx.seg.start())));
    w.swap.identity(n.expect("touched"))
}

/// What it has of claims, `p_lckcnt` and `p_cowcnt`.
fn claims(w: &World, p: &Proc) -> (u16, u16) {
    let page = w.db.lookup_shared(&w.cx, name(w, p)).expect("in memory");
    (page.page().lckcnt(), page.page().cowcnt())
}

/// In which count the claims are of the pages that it has marked as locked.
fn marks(w: &World, p: &Proc) -> Vec<Claim> {
    first(w, p, |vn, scx| vn.locked_pages(scx).into_iter().map(|(_, kind, _)| kind).collect())
}

/// Memory is promised to the last page while a lock in memory moves with a copy that costs a page more: the lock is a mark without a claim, and the next
/// one claims again.
#[test]
fn a_lock_claims_again_what_was_lost_for_want_of_memory() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 1);
    w.write(&p, 0, 65);
    p.space.set_prot(&w.cx, range(0, 1), Prot::READ).expect("may");
    p.space.lock(&w.cx, range(0, 1)).expect("room");
    let child = w.fork(&p);
    child.space.lock(&w.cx, range(0, 1)).expect("room");
    assert_eq!(claims(&w, &p), (2, 0), "one page, charged once");
    let mem = w.db.free_mem();
    let rest = mem.availrmem();
    assert!(mem.charge(rest, 0), "promised to the last page");
    // Shown twice, what is locked must be the map's alone: it is copied.
    p.space.share_range(&w.cx, range(0, 1), &p.space, range(8, 1).start()).expect("swap");
    assert_eq!((w.refs(&p, 1), w.refs(&child, 1)), ([1].to_vec(), [1].to_vec()));
    assert_eq!((claims(&w, &p), claims(&w, &child), w.db.lost_claims()), ((0, 0), (1, 0), 1));
    assert_eq!(marks(&w, &p), [Claim::Lck], "the mark stays");
    let refused = p.space.lock(&w.cx, range(0, 1)).map_err(|e| e.errno());
    assert_eq!((refused, p.space.state().locked()), (Err(page_db::errno::EAGAIN), PAGE_SIZE));
    mem.uncharge(rest);
    p.space.lock(&w.cx, range(0, 1)).expect("room");
    assert_eq!((claims(&w, &p), p.space.state().locked()), ((1, 0), PAGE_SIZE), "charged once");
    for p in [&p, &child] {
        w.check(p);
        p.space.unlock(&w.cx, range(0, 1)).expect("locked");
    }
    assert_eq!(mem.availrmem(), mem.total(), "every claim was given back");
    p.space.free(&w.cx);
    child.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

/// A lock of what is locked looks at no page of anonymous memory while no claim has been lost, whatever files have been cut.
#[test]
fn a_second_lock_of_anonymous_memory_looks_at_no_page() {
    let w = world(256);
    let p = w.proc();
    w.map(&p, 64);
    p.space.lock(&w.cx, range(0, 64)).expect("room");
    let looked = |pages| {
        let before = w.count(Counter::LockAcquires);
        p.space.lock(&w.cx, range(0, pages)).expect("room");
        w.count(Counter::LockAcquires) - before
    };
    assert_eq!(looked(64), looked(1), "it is a run");
    // A claimed page of another ends.
    let other = w.proc();
    w.map(&other, 1);
    w.write(&other, 0, 65);
    let page = w.db.lookup_excl(&w.cx, name(&w, &other)).expect("in memory");
    let era = w.db.claim(&page, Claim::Lck).expect("room");
    w.db.unload(&w.cx, &page);
    w.db.destroy(&w.cx, page);
    assert_ne!(w.db.claim_era(), era);
    assert_eq!(looked(64), looked(1), "no claim has been lost");
    other.space.free(&w.cx);
    p.space.free(&w.cx);
}
