//! Fork, the end of an address space, and a driver that fails in either.

use crate::error::{AsError, SegError};
use crate::seg::SegKind;
use crate::testing::*;
use crate::{AddrRequest, AddrSpace, AsId, FaultKind, Inherit, Owner, USER_RANGE};
use page_db::{Access, Prot};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};

#[test]
fn a_child_has_the_parents_segments_and_rights_but_not_its_locks() {
    let w = World::new();
    w.map(0x10000, 3 * P);
    w.map_as(0x20000, P, &w.toy().kind(SegKind::HOLE).prot(Prot::empty()));
    w.map_as(0x30000, P, &w.toy().kind(SegKind::PURGE));
    w.space.set_prot(&w.cx, range(0x11000, P), Prot::READ).expect("below the ceiling");
    w.space.lock(&w.cx, range(0x10000, P)).expect("no limit");
    w.space.state().set_vmem_limit(1 << 30);
    let child = w.child();
    w.space.dup(&w.cx, &child).expect("toys fork");
    child.verify(&w.cx).expect("every invariant holds");
    assert_eq!(
        shape_of(&child, &w.cx),
        [(0x10000, 0x13000), (0x20000, 0x21000)],
        "no purgeable one"
    );
    assert_eq!((child.state().size(), child.state().resv_size()), (4 * P, 4 * P));
    assert_eq!(child.state().vmem_limit(), 1 << 30);
    assert!(child.check_prot(&w.cx, range(0x11000, P), Prot::WRITE).is_err());
    let mut bits = [0; 3];
    let (pages, done) = child.incore(&w.cx, range(0x10000, 3 * P), &mut bits);
    assert_eq!((pages.get(), done, bits), (3, Ok(()), [0; 3]), "nothing is locked or mapped");
    w.check();
    child.free(&w.cx);
}

#[test]
fn a_fork_failing_at_any_segment_leaves_an_empty_child_and_the_same_parent() {
    for failing in 0..4 {
        let w = World::new();
        for i in 0..4 {
            w.map(0x10000 + i * 0x10000, P);
        }
        let before = (w.shape(), w.space.state().size());
        let error = SegError::NoSwap { range: range(P, P), bytes: P };
        w.plan.fail("dup", 0x10000 + failing * 0x10000, 1, Fail::Seg(error));
        let child = w.child();
        assert_eq!(w.space.dup(&w.cx, &child), Err(error.into()));
        assert_eq!((w.shape(), w.space.state().size()), before);
        assert_eq!(w.plan.take("unmap").len() as u64, failing, "what the child got is given up");
        assert!(child.segs(&w.cx).is_empty());
        assert_eq!((child.state().size(), child.state().resv_size()), (0, 0));
        child.verify(&w.cx).expect("every invariant holds");
        w.check();
        w.space.dup(&w.cx, &child).expect("the child can be tried again");
        assert_eq!(shape_of(&child, &w.cx), before.0);
    }
}

#[test]
fn a_fork_short_of_memory_backs_out_waits_and_is_done_over() {
    let w = World::new();
    w.map(0x10000, P);
    w.map(0x20000, P);
    w.wait.left.store(1, Ordering::SeqCst);
    w.plan.fail("dup", 0x20000, 2, Fail::Seg(SegError::NoMemory { range: range(0x20000, P) }));
    let child = w.child();
    let got = w.space.dup(&w.cx, &child);
    assert!(matches!(got, Err(AsError::NoMemory(_))), "the second wait finds nothing: {got:?}");
    assert_eq!(w.plan.take("dup").len(), 4);
    assert!(child.segs(&w.cx).is_empty());
    w.space.dup(&w.cx, &child).expect("now there is memory");
    child.verify(&w.cx).expect("every invariant holds");
}

/// A fork waits for as many frames as it can use: for those of locked pages only where a driver copies them.
#[test]
fn a_fork_waits_for_what_is_locked_only_where_that_is_copied() {
    for (copies_locked, most) in [(false, 64), (true, 200)] {
        let w = World::new();
        w.map_as(0x10000, 200 * P, &ToyArgs { copies_locked, ..w.toy() });
        assert!(w.space.state().charge_locked(200 * P), "no limit");
        w.wait.left.store(10, Ordering::SeqCst);
        let none = SegError::NoMemory { range: range(0x10000, P) };
        w.plan.fail("dup", 0x10000, 100, Fail::Seg(none));
        let got = w.space.dup(&w.cx, &w.child());
        let Err(AsError::NoMemory(page_db::PageError::NoMemory { wanted, .. })) = got else {
            panic!("{got:?}")
        };
        assert_eq!(wanted, most + 8, "and tables");
    }
}

#[test]
fn only_an_empty_child_of_the_same_size_is_accepted() {
    let w = World::new();
    w.map(0x10000, P);
    assert!(matches!(w.space.dup(&w.cx, &w.space), Err(AsError::Overlap { .. })));
    let child = w.child();
    child.map(&w.cx, range(0x40000, P), &w.toy()).expect("free");
    assert!(matches!(w.space.dup(&w.cx, &child), Err(AsError::Overlap { .. })));
    let (limits, hat) = (range(0x100_0000, P), Arc::new(RecHat::new(3)));
    let small = AddrSpace::new(&w.cx, AsId(3), limits, hat, Arc::clone(&w.db)).expect("heap");
    assert!(matches!(w.space.dup(&w.cx, &small), Err(AsError::OutsideSpace { .. })));
    let other = World::new();
    let foreign = AsError::Foreign { what: "a child", owner: Owner::Machine, id: w.space.id() };
    assert_eq!(w.space.dup(&w.cx, &other.space), Err(foreign));
    other.check();
    child.free(&w.cx);
    assert_eq!(w.space.dup(&w.cx, &child), Err(AsError::Freed { id: child.id() }));
    w.check();
}

#[test]
fn a_freed_space_is_empty_and_everything_done_to_it_is_harmless() {
    let w = World::new();
    w.map(0x10000, 4 * P);
    w.map(0x20000, P);
    w.space.fault(&w.cx, range(0x10000, 2 * P), FaultKind::Invalid, Access::Write).expect("mapped");
    w.space.free(&w.cx);
    w.space.free(&w.cx);
    assert_eq!(w.hat.ends(), ["start", "end"]);
    assert_eq!(w.plan.take("unmap").len(), 2);
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (0, 0));
    let page = range(0x10000, P);
    assert_eq!(w.space.map(&w.cx, page, &w.toy()), Err(AsError::Freed { id: w.space.id() }));
    assert_eq!(w.space.unmap(&w.cx, USER_RANGE), Ok(()));
    assert!(w.space.fault(&w.cx, page, FaultKind::Invalid, Access::Read).is_err());
    assert!(w.space.set_prot(&w.cx, page, Prot::READ).is_err());
    assert!(w.space.pmap(&w.cx).rows.is_empty());
    w.check();
}

/// G11: a fork of another thread while a mapping goes on, whose last page a child is not to have.
#[test]
fn a_child_never_has_the_tail_of_what_is_left_out() {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy().moving().tag(7));
    w.space.lock(&w.cx, range(0x11000, P)).expect("mapped");
    w.space.leave_out(&w.cx, range(0x11000, P), true).expect("mapped");
    // The tail is there, and waits for memory to be locked in.
    let tail = range(0x12000, 2 * P);
    w.plan.fail("lock", 0x13000, 1, Fail::Seg(SegError::NoMemory { range: tail }));
    w.wait.left.store(1, Ordering::SeqCst);
    let gate = w.wait.gate.get_or_init(|| Barrier::new(2));
    let child = w.child();
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let more = s.spawn(move || space.extend(&cx_on(counters, 1), at(0x11000), tail));
        gate.wait();
        let forked = w.space.dup(&w.cx, &child);
        let shape = w.shape();
        gate.wait();
        more.join().expect("no panic").expect("memory came back");
        forked.expect("toys fork");
        assert_eq!(shape, [(0x10000, 0x14000)], "the tail was there");
    });
    assert_eq!(shape_of(&child, &w.cx), [(0x10000, 0x11000)]);
    w.check();
    child.free(&w.cx);
}

/// G11: what is said to drivers, and that nothing is left out any more, is one step, also up to a hole.
#[test]
fn what_a_child_is_to_have_is_noted_in_one_hold_of_the_lock() {
    let w = World::new();
    let toy = ToyArgs { inherits: true, ..w.toy() };
    w.map_as(0x10000, 2 * P, &toy);
    w.map_as(0x12000, P, &toy);
    w.space.leave_out(&w.cx, range(0x11000, 2 * P), true).expect("mapped");
    w.plan.take_all();
    let left_out = || w.space.segs(&w.cx).left_out(USER_RANGE).collect::<alloc::vec::Vec<_>>();
    let unable = SegError::NotSupported { driver: "toy", op: "inherit" };
    w.plan.fail("inherit", 0x12000, 1, Fail::Seg(unable));
    let whole = range(0x10000, 4 * P);
    assert_eq!(w.space.inherit(&w.cx, whole, Inherit::Share), Err(unable.into()));
    assert_eq!(left_out(), [range(0x12000, P)], "what lies below is set");
    let hole = Err(AsError::Unmapped { addr: at(0x13000) });
    assert_eq!(w.space.inherit(&w.cx, whole, Inherit::Share), hole);
    assert_eq!(left_out(), [], "the same");
    let told = w.plan.take("inherit");
    assert_eq!(told.iter().map(|call| call.writer).collect::<alloc::vec::Vec<_>>(), [true; 4]);
    w.check();
}

#[test]
fn the_end_waits_for_pins() {
    let w = World::new();
    w.map(0x10000, P);
    w.map(0x20000, P);
    let page = range(0x20000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let end = s.spawn(move || space.free(&cx_on(counters, 1)));
        while w.shape().len() > 1 {
            std::thread::yield_now();
        }
        assert!(!end.is_finished());
        w.space.fault(&w.cx, page, FaultKind::SoftUnlock, Access::Read).expect("locked");
        end.join().expect("no panic");
    });
    assert_eq!(w.hat.ends(), ["start", "end"]);
}

#[test]
fn purge_unmaps_what_may_be_thrown_away() {
    let w = World::new();
    w.map(0x10000, P);
    w.map_as(0x20000, P, &w.toy().kind(SegKind::PURGE));
    w.space.purge(&w.cx).expect("nothing is pinned");
    assert_eq!(w.shape(), [(0x10000, 0x11000)]);
    w.check();
}

#[test]
fn purge_leaves_what_is_mapped_while_it_waits() {
    let w = World::new();
    let purge = w.toy().kind(SegKind::PURGE);
    w.map_as(0x20000, P, &purge);
    w.map_as(0x30000, P, &purge);
    let pinned = range(0x20000, P);
    w.space.fault(&w.cx, pinned, FaultKind::SoftLock, Access::Read).expect("mapped");
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let purger = s.spawn(move || space.purge(&cx_on(counters, 1)));
        while w.plan.take("unmap").is_empty() {
            std::thread::yield_now();
        }
        w.space.unmap(&w.cx, range(0x30000, P)).expect("mapped");
        w.map(0x30000, P); // not to be thrown away
        w.space.fault(&w.cx, pinned, FaultKind::SoftUnlock, Access::Read).expect("locked");
        purger.join().expect("no panic").expect("the pin is gone");
    });
    assert_eq!(w.shape(), [(0x30000, 0x31000)]);
    w.check();
}

#[test]
fn what_may_be_thrown_away_makes_room_where_there_is_none() {
    let w = World::with_limits(range(0x10000, 8 * P));
    w.map(0x10000, 2 * P);
    w.map_as(0x13000, 4 * P, &w.toy().kind(SegKind::PURGE));
    let claim = w.space.claim_range(&w.cx).expect("not held");
    let place = |pages| claim.map_anywhere(&AddrRequest::new(pages * P), &w.toy());
    assert_eq!(place(1).map(|r| r.start().get()), Ok(0x17000), "a hole is large enough");
    assert_eq!(w.shape().len(), 3);
    assert_eq!(place(5).map(|r| r.start().get()), Ok(0x12000));
    assert_eq!(place(1).map(|_| ()), Err(AsError::NoGap { len: P }));
    drop(claim);
    w.check();
}
