//! Full swap: what it costs to find slots that can be done without, and when it is known that there are none.

use super::ctl::meddled;
use super::{PUSH, World};
use crate::{AnonNumber, AreaId, PhysSlot, SwapError, SwapFs};
use page_db::{Counter, Cx, PutFlags, VnodeError};

/// A machine with 8 slots, all of absent pages, and `names` names beside them.
fn full_of_absent(names: u32) -> World {
    let w = World::new(64);
    w.add("d", 8, 0);
    let cold: alloc::vec::Vec<_> = (0..8).map(|i| w.anon(i)).collect();
    for n in &cold {
        w.evict(*n);
    }
    for _ in 0..names {
        w.alloc();
    }
    w
}

#[test]
fn what_full_swap_costs_does_not_depend_on_the_names() {
    let looks = |names| {
        let w = full_of_absent(names);
        for i in 0..20 {
            assert!(w.push(w.anon(i)).is_err(), "every slot is an absent page's");
        }
        assert!(w.fs.is_full(&w.cx));
        w.check();
        w.counter(Counter::SweepLooks)
    };
    let few = looks(1000);
    assert_eq!(few, looks(64_000));
    assert_eq!(few, 8, "one turn; after that it is known");
}

#[test]
fn a_turn_in_vain_is_forgotten_when_a_name_gets_a_slot() {
    let w = full_of_absent(0);
    let first = AnonNumber::from_raw(1).expect("a number");
    let late = w.anon(9);
    assert!(w.push(late).is_err() && w.fs.is_full(&w.cx));
    assert_eq!(w.load(first), (0, true)); // read back: its slot is free
    assert!(!w.fs.is_full(&w.cx));
    w.fs.put_page(&w.cx, first, PutFlags::empty()).expect("room"); // stored again, and stays in memory
    assert!(!w.fs.is_full(&w.cx), "it can do without");
    w.push(late).expect("the slot of the page in memory");
    assert_eq!((w.fs.slot(&w.cx, first), w.modified(first)), (None, true));
    assert!(w.fs.is_full(&w.cx) != w.resident(late), "cached, it is in memory still");
    w.check();
}

#[test]
fn a_sweep_goes_on_where_the_last_one_ended() {
    let w = World::new(1024);
    let (_, id) = w.add("d", 700, 0);
    let all: alloc::vec::Vec<_> = (0..700).map(|i| w.anon(i as u8)).collect();
    for n in &all {
        w.evict(*n);
    }
    // One page in memory, whose slot is the last.
    let warm = all[699];
    w.load(warm);
    w.fs.put_page(&w.cx, warm, PutFlags::empty()).expect("room");
    assert_eq!(w.fs.slot(&w.cx, warm), Some(PhysSlot { area: id, index: 699 }));
    let late = w.anon(1);
    for looks in [256, 512] {
        assert!(w.push(late).is_err(), "not found so soon");
        assert_eq!(w.counter(Counter::SweepLooks), looks);
    }
    w.push(late).expect("found");
    assert_eq!(w.counter(Counter::SweepLooks), 700);
    w.check();
}

#[test]
fn a_sweep_makes_one_turn_at_most() {
    let w = World::new(64);
    w.add("d", 2, 0);
    for i in 0..2 {
        w.push(w.anon(i)).expect("room"); // cached: it keeps its slot, and the turn is not in vain
    }
    let late = w.anon(3);
    for looks in [2, 4, 6] {
        assert!(w.push(late).is_err());
        assert_eq!(w.counter(Counter::SweepLooks), looks);
    }
    w.check();
}

/// What is known of areas together is of those areas: when one has gone, it is looked again.
#[test]
fn a_turn_in_vain_is_forgotten_when_an_area_goes() {
    let w = World::new(1024);
    let (_, a) = w.add("a", 256, 1);
    (0..256).for_each(|i| w.evict(w.anon(i as u8)));
    w.add("b", 8, 0);
    let kept: alloc::vec::Vec<_> = (0..8).map(|i| w.anon(i)).collect();
    for n in &kept {
        w.fs.put_page(&w.cx, *n, PutFlags::empty()).expect("room"); // in memory, with a slot
    }
    assert!(w.push(w.anon(9)).is_err(), "as many slots were looked at as may be for a page");
    w.fs.remove(&w.cx, a).expect("there is memory for all");
    assert!(!w.fs.is_full(&w.cx), "eight pages can do without");
    w.push(w.anon(10)).expect("the slot of one of them");
    w.check();
}

/// Fills the area of `meddled`: the first slot is an absent page's, the others belong to pages in memory.
fn one_absent_of_20(w: &World) {
    w.evict(w.anon(0));
    for i in 1..20 {
        w.fs.put_page(&w.cx, w.anon(i), PutFlags::empty()).expect("room");
    }
}

/// Pushes the page of the last number.
fn push_last(fs: &SwapFs, cx: &Cx) -> Result<(), VnodeError> {
    let last = fs.live_numbers().last().expect("one");
    fs.put_page(cx, last, PUSH).and(fs.flush_pushes(cx))
}

#[test]
fn a_sweep_takes_no_slot_of_an_area_on_its_way_out() {
    let w = World::new(64);
    let (_, id) = meddled(&w, |fs, cx, _| {
        assert!(fs.list()[0].removing && !fs.is_full(cx), "two pages can do without");
        push_last(fs, cx).expect("the slot of one of them");
        assert_eq!(fs.list()[0].free, 0, "of use to nobody");
    });
    let (_, other) = w.add("d", 2, -1);
    one_absent_of_20(&w);
    for i in 20..22 {
        w.fs.put_page(&w.cx, w.anon(i), PutFlags::empty()).expect("room");
    }
    let late = w.anon(99);
    w.fs.remove(&w.cx, id).expect("there is memory for all");
    assert_eq!(w.fs.slot(&w.cx, late).map(|s| s.area), Some(other));
    w.check();
}

#[test]
fn a_removal_that_is_called_off_offers_its_slots_again() {
    let w = World::new(64);
    let (_, id) = meddled(&w, |fs, cx, dev| {
        assert!(push_last(fs, cx).is_err() && fs.is_full(cx), "no area but the one that goes");
        fs.add(cx, dev, 0, 20, 0).expect("it stays");
        assert!(!fs.is_full(cx), "nineteen pages can do without");
        push_last(fs, cx).expect("the slot of one of them");
    });
    one_absent_of_20(&w);
    w.anon(99);
    assert_eq!(w.fs.remove(&w.cx, id), Err(SwapError::CalledOff { area: id }));
    w.check();
}

#[test]
fn a_removal_that_fails_offers_its_slots_again() {
    let w = World::new(64);
    let (dev, id) = meddled(&w, |fs, cx, _| {
        assert!(push_last(fs, cx).is_err() && fs.is_full(cx), "no area but the one that goes");
    });
    one_absent_of_20(&w);
    let late = w.anon(99);
    dev.inner.fail_read(1);
    assert!(matches!(w.fs.remove(&w.cx, id), Err(SwapError::BringBack { area: AreaId(1), .. })));
    assert!(!w.fs.is_full(&w.cx), "nineteen pages can do without");
    w.push(late).expect("the slot of one of them");
    w.check();
}
