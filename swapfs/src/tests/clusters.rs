//! Pushes gathered into transfers: how many, of what, in what order.

use super::{PUSH, World};
use crate::{AnonNumber, SwapConfig};
use alloc::vec::Vec;
use page_db::{Counter, PutFlags};

/// uvm 31.
#[test]
fn sixteen_pushes_are_one_write_of_neighbouring_slots() {
    let w = World::new(64);
    let (dev, _) = w.add("d", 64, 0);
    let all: Vec<AnonNumber> = (0..16).map(|i| w.anon(i)).collect();
    for n in &all[..15] {
        w.fs.put_page(&w.cx, *n, PUSH).expect("held back");
    }
    assert_eq!((dev.transfers().1, w.check().queued), (0, 15));
    w.fs.put_page(&w.cx, all[15], PUSH).expect("room");
    assert_eq!((dev.transfers().1, w.check().queued), (1, 0));
    let slots: Vec<u32> = all.iter().map(|n| w.fs.slot(&w.cx, *n).expect("stored").index).collect();
    assert_eq!(slots, (0..16).collect::<Vec<_>>());
    assert_eq!(
        [Counter::PgOut, Counter::PgPgOut, Counter::AnonPgOut, Counter::AnonFree]
            .map(|c| w.counter(c)),
        [1, 16, 16, 16]
    );
    assert_eq!(w.db.cache_list().count(), 16);
    for (i, n) in all.iter().enumerate() {
        w.evict(*n);
        assert_eq!(w.load(*n), (i as u8, true));
    }
    w.check();
}

#[test]
fn requests_that_cannot_be_met_now_drop_out_and_lose_nothing() {
    let w = World::new(64);
    let (dev, _) = w.add("d", 64, 0);
    let all: Vec<AnonNumber> = (0..6).map(|i| w.anon(i)).collect();
    let other = super::cx_on(w.db.counters(), 0);
    let locked = w.db.lookup_shared(&other, w.fs.identity(all[1])).expect("resident");
    let clean = w.alloc();
    w.load(clean);
    for n in [all[0], all[1], clean, all[2], all[3], all[3], all[4], all[5]] {
        w.fs.put_page(&w.cx, n, PUSH).expect("held back");
    }
    w.free(all[4]); // before its turn
    w.fs.flush_pushes(&w.cx).expect("room");
    drop(locked);
    assert_eq!(dev.transfers().1, 1);
    let stored: Vec<bool> = all.iter().map(|n| w.fs.slot(&w.cx, *n).is_some()).collect();
    assert_eq!(stored, [true, false, true, true, false, true]);
    assert!(w.modified(all[1]));
    w.check();
    w.fs.flush_pushes(&w.cx).expect("nothing left");
    assert_eq!(dev.transfers().1, 1);
}

#[test]
fn a_fragmented_area_takes_the_pieces_it_has() {
    let w = World::new(64);
    let (dev, _) = w.add("d", 8, 0);
    let old: Vec<AnonNumber> = (0..8).map(|i| w.anon(i)).collect();
    for n in &old {
        w.fs.put_page(&w.cx, *n, PUSH).expect("held back");
    }
    w.fs.flush_pushes(&w.cx).expect("room");
    for i in [1, 2, 5] {
        w.free(old[i]); // slots 1, 2 and 5 are free now
    }
    let new: Vec<AnonNumber> = (0..3).map(|i| w.anon(50 + i)).collect();
    for n in &new {
        w.fs.put_page(&w.cx, *n, PUSH).expect("held back");
    }
    w.fs.flush_pushes(&w.cx).expect("room");
    assert_eq!(dev.transfers().1, 3, "two pieces");
    let slots: Vec<u32> = new.iter().map(|n| w.fs.slot(&w.cx, *n).expect("stored").index).collect();
    assert_eq!(slots, [1, 2, 5]);
    for (i, n) in new.iter().enumerate() {
        w.evict(*n);
        assert_eq!(w.load(*n), (50 + i as u8, true));
    }
    w.check();
}

#[test]
fn priorities_fill_in_order_and_equals_take_turns() {
    let config = SwapConfig { max_contig: 4, minfree: Some(8), ..SwapConfig::default() };
    let w = World::with(128, config);
    let (_, low) = w.add("low", 16, 0);
    let (_, a) = w.add("a", 8, 5);
    let (_, b) = w.add("b", 8, 5);
    let mut where_to = Vec::new();
    for i in 0..24 {
        let n = w.anon(i);
        w.fs.put_page(&w.cx, n, PutFlags::empty()).expect("room");
        where_to.push(w.fs.slot(&w.cx, n).expect("stored").area);
    }
    let turns = |id, n| core::iter::repeat_n(id, n);
    let expect: Vec<_> = turns(a, 4)
        .chain(turns(b, 4))
        .chain(turns(a, 4))
        .chain(turns(b, 4))
        .chain(turns(low, 8))
        .collect();
    assert_eq!(where_to, expect);
    w.check();
}

#[test]
fn a_cluster_of_one_writes_at_once() {
    let w = World::with(32, SwapConfig { cluster: 0, ..SwapConfig::default() });
    w.add("d", 4, 0);
    let n = w.anon(1);
    w.fs.put_page(&w.cx, n, PUSH).expect("room");
    assert!(w.fs.slot(&w.cx, n).is_some());
}
