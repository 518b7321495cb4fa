//! Locking in memory, pinning for i/o, and what is in memory.

use crate::error::{AsError, SegError};
use crate::seg::{InCore, SegKind};
use crate::testing::*;
use crate::{AddrSpace, FaultError, FaultKind, LockAll, Owner};
use page_db::{Access, Cx, errno};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn locked(w: &World, start: u64, pages: usize) -> Vec<bool> {
    locked_in(&w.space, &w.cx, start, pages)
}

fn locked_in(space: &AddrSpace, cx: &Cx, start: u64, pages: usize) -> Vec<bool> {
    let mut bits = vec![0; pages];
    let (_, done) = space.incore(cx, range(start, pages as u64 * P), &mut bits);
    done.expect("mapped");
    bits.into_iter().map(|b| InCore::from_bits_retain(b).contains(InCore::LOCKED)).collect()
}

fn limit(addr: u64) -> SegError {
    SegError::LockLimit { range: range(addr, P) }
}

#[test]
fn locking_into_a_hole_leaves_nothing_locked() {
    let w = World::new();
    w.map(0x10000, 2 * P);
    let got = w.space.lock(&w.cx, range(0x10000, 3 * P));
    assert_eq!(got, Err(AsError::Unmapped { addr: at(0x12000) }));
    assert_eq!(locked(&w, 0x10000, 2), [false, false]);
}

#[test]
fn a_lock_that_fails_undoes_exactly_what_it_locked() {
    let w = World::new();
    w.map(0x10000, 3 * P);
    w.map(0x13000, 3 * P);
    w.space.lock(&w.cx, range(0x11000, P)).expect("no limit");
    w.plan.fail("lock", 0x15000, 1, Fail::Seg(limit(0x15000)));
    let got = w.space.lock(&w.cx, range(0x10000, 6 * P));
    assert_eq!(got, Err(limit(0x15000).into()));
    let expected = [false, true, false, false, false, false];
    assert_eq!(locked(&w, 0x10000, 6), expected, "the page locked before stays so");
    w.check();
}

/// One thread locks two segments, of which the second refuses, `times` times; another locks a page of the first just before it does. The other is told
/// that its page is locked: it must be, whatever the first comes to.
fn lock_beside_one_that_fails(times: u32, fail: SegError) -> Result<(), AsError> {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy());
    w.map_as(0x12000, P, &w.toy());
    w.plan.fail("lock", 0x12000, times, Fail::Seg(fail));
    let (begin, begun) = mpsc::channel();
    let (end, ended) = mpsc::channel();
    // Before the pass that refuses has undone anything, for as long as it takes the other to find out.
    w.plan.meanwhile("lock", move || {
        let _ = begin.send(());
        let _ = ended.recv_timeout(Duration::from_millis(100));
    });
    let (space, counters) = (&w.space, &w.counters);
    thread::scope(|s| {
        s.spawn(move || {
            let cx = cx_on(counters, 1);
            begun.recv().expect("the first one refuses");
            space.lock(&cx, range(0x11000, P)).expect("nothing refuses this page");
            assert_eq!(locked_in(space, &cx, 0x11000, 1), [true], "G12: just reported");
            end.send(()).expect("a test waits");
        });
        w.space.lock(&w.cx, range(0x10000, 3 * P))
    })
    .inspect_err(|_| assert_eq!(locked(&w, 0x10000, 3), [false, true, false], "G12"))
}

#[test]
fn a_lock_that_fails_takes_none_away_that_another_has_been_told_of() {
    let got = lock_beside_one_that_fails(1, limit(0x12000));
    assert_eq!(got, Err(limit(0x12000).into()));
}

#[test]
fn a_lock_that_waits_for_memory_takes_none_away_that_another_has_been_told_of() {
    let no_memory = SegError::NoMemory { range: range(0x12000, P) };
    let got = lock_beside_one_that_fails(u32::MAX, no_memory);
    assert!(matches!(got, Err(AsError::NoMemory(_))), "{got:?}");
}

#[test]
fn locks_do_not_nest_and_end_with_the_mapping() {
    let w = World::new();
    w.map(0x10000, 2 * P);
    let all = range(0x10000, 2 * P);
    w.space.lock(&w.cx, all).expect("no limit");
    w.space.lock(&w.cx, all).expect("again");
    w.space.unlock(&w.cx, all).expect("mapped");
    assert_eq!(locked(&w, 0x10000, 2), [false, false]);
    assert_eq!(
        w.space.unlock(&w.cx, range(0x10000, 3 * P)),
        Err(AsError::Unmapped { addr: at(0x12000) })
    );
}

#[test]
fn a_lock_inversion_in_a_lock_is_undone_and_tried_again() {
    let w = World::new();
    w.map(0x10000, 2 * P);
    let deadlock = FaultError::Object { addr: at(0x11000), errno: errno::EDEADLK };
    w.plan.fail("lock", 0x11000, 1, Fail::Seg(deadlock.into()));
    w.space.lock(&w.cx, range(0x10000, 2 * P)).expect("the second time");
    assert_eq!(page_db::Clock::now(&*w.clock), 1);
    assert_eq!(locked(&w, 0x10000, 2), [true, true]);
}

#[test]
fn future_mappings_are_locked_or_not_made() {
    let w = World::new();
    w.map(0x10000, P);
    w.map_as(0x20000, P, &w.toy().kind(SegKind::HOLE));
    w.space.lock_all(&w.cx, LockAll::FUTURE).expect("nothing to lock yet");
    assert_eq!(locked(&w, 0x10000, 1), [false]);
    w.map(0x30000, 2 * P);
    assert_eq!(locked(&w, 0x30000, 2), [true, true]);
    w.plan.fail("lock", 0x41000, 1, Fail::Seg(limit(0x41000)));
    let got = w.space.map(&w.cx, range(0x40000, 2 * P), &w.toy());
    assert_eq!(got.map_err(|e| e.errno()), Err(errno::EAGAIN));
    assert_eq!(w.shape().len(), 3, "the mapping is gone again");
    w.space.lock_all(&w.cx, LockAll::CURRENT).expect("no limit");
    assert_eq!((locked(&w, 0x10000, 1), locked(&w, 0x20000, 1)), (vec![true], vec![false]));
    w.space.unlock_all(&w.cx);
    assert_eq!(locked(&w, 0x30000, 2), [false, false]);
    assert!(!w.space.state().lock_future());
    w.check();
}

#[test]
fn lock_all_that_fails_undoes_what_it_locked_and_keeps_the_flag() {
    let w = World::new();
    w.map(0x10000, P);
    w.map(0x20000, P);
    w.plan.fail("lock", 0x20000, 1, Fail::Seg(limit(0x20000)));
    let got = w.space.lock_all(&w.cx, LockAll::all());
    assert_eq!(got, Err(limit(0x20000).into()));
    assert_eq!(locked(&w, 0x10000, 1), [false]);
    assert!(w.space.state().lock_future(), "as illumos leaves it");
}

#[test]
fn mincore_tells_of_what_lies_before_a_hole() {
    let w = World::new();
    w.map(0x10000, 2 * P);
    w.space.fault_at(&w.cx, at(0x11000), FaultKind::Invalid, Access::Read).expect("mapped");
    let mut bits = [9; 4];
    let (pages, done) = w.space.incore(&w.cx, range(0x10000, 4 * P), &mut bits);
    assert_eq!((pages.get(), done), (2, Err(AsError::Unmapped { addr: at(0x12000) })));
    assert_eq!(bits, [0, 1, 9, 9]);
    let (pages, done) = w.space.incore(&w.cx, range(0x10000, 4 * P), &mut bits[..1]);
    assert_eq!((pages.get(), done), (1, Ok(())), "no more than there is room for");
    let (pages, done) = w.space.incore(&w.cx, range(0x10000, 4 * P), &mut []);
    assert_eq!((pages.get(), done), (0, Ok(())));
    w.plan.fail("incore", 0x11000, 1, Fail::Seg(limit(0x11000)));
    let (pages, done) = w.space.incore(&w.cx, range(0x10000, 2 * P), &mut bits);
    assert_eq!((pages.get(), done), (1, Err(AsError::Unmapped { addr: at(0x11000) })));
}

#[test]
fn pinning_collects_the_pages_of_every_segment() {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy().offering_pages());
    w.map_as(0x12000, P, &w.toy().offering_pages());
    let pinned = w.space.lock_pages(&w.cx, range(0x10000, 3 * P), Access::Write).expect("mapped");
    assert_eq!(pinned.pages().map(Iterator::count), Some(3));
    assert!(w.space.try_unmap(&w.cx, range(0x10000, P)).is_err());
    // Nobody else takes them.
    let (child, other) = (w.child(), World::new());
    let (e, pinned) = child.unlock_pages(&w.cx, pinned).expect_err("another space's");
    let owner = Owner::Space(w.space.id());
    assert_eq!(e, AsError::Foreign { what: "pinned pages", owner, id: child.id() });
    let (e, pinned) = other.space.unlock_pages(&w.cx, pinned).expect_err("another machine's");
    let owner = Owner::Machine;
    assert_eq!(e, AsError::Foreign { what: "pinned pages", owner, id: other.space.id() });
    assert!(w.plan.take("pageunlock").is_empty());
    assert!(w.space.try_unmap(&w.cx, range(0x10000, P)).is_err());
    w.space.unlock_pages(&w.cx, pinned).expect("pinned here");
    w.space.try_unmap(&w.cx, range(0x10000, 3 * P)).expect("nothing is pinned");
    w.check();
}

#[test]
fn pinning_falls_back_on_a_soft_lock_where_a_driver_has_no_pages_to_offer() {
    let w = World::new();
    w.map_as(0x10000, P, &w.toy().offering_pages());
    w.map(0x11000, P);
    let all = range(0x10000, 2 * P);
    let pinned = w.space.lock_pages(&w.cx, all, Access::Read).expect("mapped");
    assert!(pinned.pages().is_none());
    assert_eq!(w.plan.take("pageunlock").len(), 1, "what was pinned first is given up");
    assert!(w.space.try_unmap(&w.cx, all).is_err());
    w.space.unlock_pages(&w.cx, pinned).expect("pinned here");
    w.space.try_unmap(&w.cx, all).expect("nothing is pinned");
}

#[test]
fn pinning_that_fails_pins_nothing() {
    let w = World::new();
    w.map_as(0x10000, P, &w.toy().offering_pages());
    w.map_as(0x11000, P, &w.toy().offering_pages());
    w.plan.fail("pagelock", 0x11000, 1, Fail::Seg(limit(0x11000)));
    let got = w.space.lock_pages(&w.cx, range(0x10000, 2 * P), Access::Read);
    assert_eq!(got.err(), Some(limit(0x11000).into()));
    let hole = w.space.lock_pages(&w.cx, range(0x10000, 3 * P), Access::Read);
    assert_eq!(hole.err().map(|e| e.errno()), Some(errno::EFAULT));
    w.space.try_unmap(&w.cx, range(0x10000, 2 * P)).expect("nothing is pinned");
}

/// O1: an unmap would sleep for them for ever.
#[test]
#[cfg(debug_assertions)]
#[should_panic = "O1: dropped, and not given back: pinned pages"]
fn pins_that_are_dropped_are_missed_at_once() {
    let w = World::new();
    w.map(0x10000, P);
    drop(w.space.lock_pages(&w.cx, range(0x10000, P), Access::Read).expect("mapped"));
}
