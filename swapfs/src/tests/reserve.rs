//! Promises: disk first, then memory; the books after each.

use super::World;
use crate::reserve::{minfree_for, reserve_for};
use crate::{SwapConfig, SwapError};
use alloc::format;
use page_db::errno;

fn books(w: &World) -> (u64, u64, u64, u64) {
    let i = w.fs.info();
    (i.max, i.phys_resv, i.mem_resv, w.db.free_mem().availrmem())
}

/// Behaviour 43.
#[test]
fn disk_is_promised_first_and_memory_returned_first() {
    let w = World::new(64);
    w.add("d", 10, 0);
    w.fs.reserve(8).expect("disk");
    assert_eq!(books(&w), (10, 8, 0, 64));
    w.fs.reserve(5).expect("disk and memory");
    assert_eq!(books(&w), (10, 10, 3, 61));
    w.fs.unreserve(4);
    assert_eq!(books(&w), (10, 9, 0, 64));
    w.fs.unreserve(9);
    assert_eq!(books(&w), (10, 0, 0, 64));
    w.check();
}

#[test]
fn memory_stays_above_the_floor_and_a_refusal_changes_nothing() {
    let w = World::new(64); // floors 8 and 4
    w.add("d", 10, 0);
    w.fs.reserve(10 + 51).expect("64 - 51 is above 12");
    let before = books(&w);
    let refused = w.fs.reserve(1);
    assert_eq!(refused, Err(SwapError::NoSwap { wanted: 1, disk: 0, availrmem: 13, floor: 12 }));
    assert_eq!(refused.map_err(|e| e.errno()), Err(errno::ENOMEM));
    assert_eq!(books(&w), before);
    w.fs.reserve_privileged(4).expect("64 - 55 is above 8");
    assert!(w.fs.reserve_privileged(1).is_err());
    assert!(w.fs.reserve(u64::MAX).is_err());
    w.fs.unreserve(65);
    assert_eq!(books(&w), (10, 0, 0, 64));
    w.check();
}

#[test]
fn a_reservation_returns_when_dropped_unless_kept() {
    let w = World::new(64);
    {
        let mut r = w.fs.take(6).expect("memory");
        assert_eq!((r.pages(), w.fs.info().mem_resv), (6, 6));
        assert_eq!(r.keep_some(2), 2);
    }
    assert_eq!(w.fs.info().mem_resv, 2);
    assert_eq!(w.fs.take(3).expect("memory").keep(), 3);
    assert_eq!(w.fs.info().mem_resv, 5);
    w.fs.unreserve(5);
    assert!(w.fs.take(1000).is_err());
    assert_eq!(books(&w), (0, 0, 0, 64));
}

#[test]
fn locked_memory_is_not_moved_to_disk() {
    let w = World::new(64);
    let (_, id) = w.add("d", 10, 0);
    w.fs.reserve(6).expect("disk");
    w.fs.lock_reserved(4).expect("memory");
    assert_eq!(books(&w), (10, 2, 4, 60));
    assert_eq!(w.fs.info().locked_swap, 4);
    w.fs.unreserve(2);
    assert_eq!(books(&w), (10, 0, 4, 60), "the locked part is not returned first");
    assert!(w.fs.lock_reserved(1).is_err(), "nothing else is promised");
    w.fs.unlock_reserved(4);
    assert_eq!(books(&w), (10, 4, 0, 64));
    w.fs.unreserve(4);
    w.fs.remove(&w.cx, id).expect("unused");
    w.check();
}

#[test]
fn names_and_promises_make_the_sums_of_swap_s() {
    let w = World::new(64);
    w.add("d", 20, 0);
    w.fs.reserve(25).expect("both");
    for _ in 0..3 {
        w.alloc();
    }
    let i = w.fs.info();
    assert_eq!((i.max, i.phys_resv, i.mem_resv, i.free, i.avail_mem), (20, 20, 5, 22, 51));
    assert_eq!((i.available(), i.total(), i.reserved()), (51, 71, 25));
    let s = w.fs.summary();
    assert_eq!((s.allocated, s.reserved, s.used, s.available), (3, 22, 25, 51));
    assert_eq!(
        format!("{s}"),
        "total: 12k bytes allocated + 88k reserved = 100k used, 204k available"
    );
}

#[test]
fn the_floors_follow_the_rules_down_to_small_machines() {
    let mb = 256;
    assert_eq!((minfree_for(16 << 18), reserve_for(16 << 18)), (512 * mb, 128 * mb));
    assert_eq!((minfree_for(256 * mb), reserve_for(256 * mb)), (32 * mb, 4 * mb));
    assert_eq!((minfree_for(256), reserve_for(256)), (32, 32));
    let w = World::with(256, SwapConfig::default());
    assert_eq!(w.fs.floors(), (32, 32));
}
