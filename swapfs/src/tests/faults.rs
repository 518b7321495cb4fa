//! Devices that fail, and what is left where.

use super::World;
use crate::{
    AnonNumber, AreaId, DeviceError, DeviceOp, FaultyDevice, MemDevice, PhysSlot, Place,
    SwapDevice, SwapError,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::{Counter, FailKind, FailPlan, PutFlags, VnodeError, errno};

fn faulty(w: &World, pages: u64) -> (Arc<MemDevice>, Arc<FaultyDevice>, AreaId) {
    let mem = Arc::new(MemDevice::new("d", pages));
    let dev = Arc::new(FaultyDevice::new(mem.clone()));
    let id = w.fs.add(&w.cx, dev.clone(), 0, pages, 0).expect("fits");
    (mem, dev, id)
}

/// uvm 36.
#[test]
fn a_page_that_cannot_be_read_is_lost_once() {
    let w = World::new(32);
    let (mem, dev, id) = faulty(&w, 4);
    let n = w.anon(1);
    w.evict(n);
    dev.fail_read(1);
    let io = |e: VnodeError| matches!(e, VnodeError::Io { errno: errno::EIO, .. });
    assert!(w.fs.get_page(&w.cx, n, 0).is_err_and(io));
    assert!(!w.resident(n), "no half-filled page stays");
    assert_eq!(w.fs.place(n), Place::Bad(PhysSlot { area: id, index: 0 }));
    let reads = mem.transfers().0;
    assert!(w.fs.get_page(&w.cx, n, 0).is_err_and(io));
    assert_eq!(mem.transfers().0, reads, "the device is not asked again");
    let census = w.check();
    assert_eq!((census.lost, census.bad_slots, census.free_slots), (1, 1, 3));
    w.free(n);
    // The slot is never used again.
    let all: Vec<_> = (0..3).map(|i| w.anon(i)).collect();
    for n in &all {
        w.evict(*n);
    }
    assert_eq!(w.check().free_slots, 0);
    assert_eq!(w.fs.list()[0].bad, 1);
    let more = w.anon(9);
    assert!(w.push(more).is_err());
    w.fs.remove(&w.cx, id).expect("bad slots stay behind");
    w.check();
}

#[test]
fn a_failed_write_keeps_the_page_and_gives_the_slot_back() {
    let w = World::new(32);
    let (_, dev, _) = faulty(&w, 4);
    let n = w.anon(1);
    dev.fail_write(1);
    assert!(matches!(w.push(n), Err(VnodeError::Io { .. })));
    assert!(w.resident(n) && w.modified(n));
    assert_eq!(w.check().free_slots, 4);
    w.push(n).expect("the second time");
    // Stored before, failing now: the old slot went when the new one came.
    w.store(n, 2);
    dev.fail_write(1);
    assert!(w.fs.put_page(&w.cx, n, PutFlags::INVAL).is_err());
    assert!(w.resident(n) && w.modified(n));
    assert_eq!(w.check().free_slots, 4);
    assert_eq!(w.load(n), (2, false));
}

/// What cannot be written to one area goes to the others, whatever their priority; and back when there is no other room.
#[test]
fn a_device_that_fails_is_passed_over() {
    let w = World::new(64);
    let dead = Arc::new(FaultyDevice::new(Arc::new(MemDevice::new("dead", 8))));
    let first = w.fs.add(&w.cx, dead.clone(), 0, 8, 5).expect("fits");
    let (_, second) = w.add("d", 4, 0);
    (0..8).for_each(|page| dead.break_page(page));
    let all: Vec<_> = (0..5).map(|i| w.anon(i)).collect();
    assert!(matches!(w.push(all[0]), Err(VnodeError::Io { .. })), "nobody knows yet");
    for n in &all[..4] {
        w.push(*n).expect("there is another area");
        assert_eq!(w.fs.slot(&w.cx, *n).map(|s| s.area), Some(second));
    }
    assert!(matches!(w.push(all[4]), Err(VnodeError::Io { .. })), "the last resort");
    assert!(w.resident(all[4]) && w.modified(all[4]));
    // Not while a page in memory can do without its slot elsewhere.
    let (found, _) = (w.load(all[0]), w.load(all[1]));
    assert_eq!((found, w.modified(all[0]), w.modified(all[1])), ((0, false), false, false));
    w.push(all[4]).expect("a slot is swept");
    let swept = |n: &AnonNumber| w.fs.slot(&w.cx, *n).is_none();
    assert_eq!(all.iter().filter(|n| swept(n)).count(), 1);
    let loser = *all.iter().find(|n| swept(n)).expect("one");
    assert!(w.resident(loser) && w.modified(loser));
    assert_eq!(w.fs.slot(&w.cx, all[4]).map(|s| s.area), Some(second));
    w.evict(all[1]);
    assert!(matches!(w.push(loser), Err(VnodeError::Io { .. })), "no other can do without");
    dead.heal();
    w.push(loser).expect("it works again");
    assert_eq!(w.fs.slot(&w.cx, loser).map(|s| s.area), Some(first));
    let more = w.anon(9);
    w.push(more).expect("by priority again");
    assert_eq!(w.fs.slot(&w.cx, more).map(|s| s.area), Some(first));
    w.check();
}

/// Names whose pages are in memory and clean, with slots.
fn clean(w: &World, pages: u8) -> Vec<AnonNumber> {
    let all: Vec<_> = (0..pages).map(|i| w.anon(i)).collect();
    for n in &all {
        w.push(*n).expect("room");
        assert!(!w.load(*n).1 && !w.modified(*n));
    }
    all
}

/// What fails once has slots free, and the next page gets one of those.
#[test]
fn a_failing_area_with_room_is_not_swept() {
    let w = World::new(64);
    let (_, dev, _) = faulty(&w, 8);
    let all = clean(&w, 2);
    let late = w.anon(9);
    dev.fail_write(1);
    assert!(w.push(late).is_err());
    assert_eq!(w.check().free_slots, 6);
    w.push(late).expect("one of the six");
    assert!(all.iter().all(|n| !w.modified(*n)), "no page was asked for its slot");
    assert_eq!((w.check().free_slots, w.counter(Counter::SweepLooks)), (5, 0));
}

#[test]
fn a_dead_area_leaves_clean_pages_their_slots() {
    let w = World::new(64);
    let (_, dev, _) = faulty(&w, 32);
    let all = clean(&w, 16);
    (0..32).for_each(|page| dev.break_page(page));
    let late = w.anon(99);
    for _ in 0..18 {
        assert!(matches!(w.push(late), Err(VnodeError::Io { .. })), "the last resort");
        assert!(all.iter().all(|n| !w.modified(*n)));
    }
    assert_eq!(w.counter(Counter::SweepLooks), 0);
    w.check();
}

/// Beside a dead area, a full one where nothing can be had is looked at once.
#[test]
fn a_dead_area_does_not_make_every_push_sweep() {
    let w = World::new(1024);
    let (_, dev, _) = faulty(&w, 8);
    let (_, full) = w.add("full", 512, 9);
    for i in 0..512u32 {
        let n = w.anon(i as u8);
        w.evict(n);
        assert_eq!(w.fs.slot(&w.cx, n).map(|s| s.area), Some(full));
    }
    (0..8).for_each(|page| dev.break_page(page));
    let late = w.anon(99);
    for looks in [0, 256, 512, 512, 512, 512] {
        assert!(matches!(w.push(late), Err(VnodeError::Io { .. })), "the last resort");
        assert_eq!(w.counter(Counter::SweepLooks), looks);
    }
    w.check();
}

/// What is known of a failing area holds for as long as it fails; a page that gets a place there meanwhile is found afterwards.
#[test]
fn a_failure_that_ends_offers_the_slots_again() {
    let w = World::new(64);
    let (_, dev, id) = faulty(&w, 8);
    let (_, full) = w.add("full", 4, 9);
    let absent: Vec<_> = (0..4).map(|i| w.anon(i)).collect();
    for n in &absent {
        w.evict(*n);
        assert_eq!(w.fs.slot(&w.cx, *n).map(|s| s.area), Some(full));
    }
    let warm = clean(&w, 7);
    (0..8).for_each(|page| dev.break_page(page));
    let late = w.anon(99);
    for looks in [0, 4, 4] {
        assert!(matches!(w.push(late), Err(VnodeError::Io { .. })));
        assert_eq!(w.counter(Counter::SweepLooks), looks);
    }
    dev.heal();
    w.push(late).expect("it works again");
    assert_eq!(w.fs.slot(&w.cx, late).map(|s| s.area), Some(id));
    assert_eq!((w.check().free_slots, w.counter(Counter::SweepLooks)), (0, 4));
    assert!(!w.fs.is_full(&w.cx), "seven pages can do without");
    w.push(w.anon(100)).expect("the slot of one of them");
    assert_eq!(warm.iter().filter(|n| w.modified(**n)).count(), 1);
    w.check();
}

#[test]
fn one_failed_run_of_a_cluster_does_not_hurt_the_others() {
    let w = World::new(64);
    let (_, dev, _) = faulty(&w, 8);
    let old: Vec<_> = (0..8).map(|i| w.anon(i)).collect();
    for n in &old {
        w.evict(*n);
    }
    for i in [1, 2, 5, 6] {
        w.free(old[i]);
    }
    let new: Vec<_> = (0..4).map(|i| w.anon(50 + i)).collect();
    for n in &new {
        w.fs.put_page(&w.cx, *n, super::PUSH).expect("held back");
    }
    (1..=2).for_each(|page| dev.break_page(page));
    let out = || [Counter::PgOut, Counter::PgPgOut, Counter::AnonPgOut].map(|c| w.counter(c));
    let before = out();
    assert!(matches!(w.fs.flush_pushes(&w.cx), Err(VnodeError::Io { .. })));
    let written: Vec<u64> = out().iter().zip(before).map(|(now, then)| now - then).collect();
    assert_eq!(written, [1, 2, 2], "what failed was not paged out");
    let stored: Vec<bool> = new.iter().map(|n| w.fs.slot(&w.cx, *n).is_some()).collect();
    assert_eq!(stored, [false, false, true, true]);
    assert_eq!(w.counter(Counter::AnonFree), 2);
    for (i, n) in new.iter().enumerate() {
        assert_eq!(w.load(*n).0, 50 + i as u8);
    }
    w.check();
}

/// Pushes `all` as page-out does; what it is told, and how many transfers were asked for.
fn push_all(w: &World, all: &[AnonNumber]) -> (Result<(), VnodeError>, u64) {
    let asked = || w.db.counters().asked().of(FailKind::DeviceWrite);
    w.db.counters().fail(&FailPlan::counting());
    let before = asked();
    let put = |n: &AnonNumber| w.fs.put_page(&w.cx, *n, super::PUSH);
    let told = all.iter().map(put).fold(Ok(()), Result::and).and(w.fs.flush_pushes(&w.cx));
    (told, asked() - before)
}

#[test]
fn one_bad_place_of_a_cluster_hurts_no_other_page() {
    for bad in [0, 7, 15] {
        let w = World::new(64);
        let (_, dev, id) = faulty(&w, 32);
        let (_, other) = w.add("e", 8, -1);
        dev.break_page(bad);
        let all: Vec<_> = (0..16).map(|i| w.anon(i)).collect();
        let loser = all[bad as usize];
        let (told, transfers) = push_all(&w, &all);
        assert!(
            told.is_err_and(|e| matches!(e, VnodeError::Io { offset, .. } if offset == w.fs.identity(loser).offset)),
            "place {bad}: {told:?}"
        );
        assert_eq!(transfers, 17, "place {bad}: all at once, then each");
        assert_eq!([Counter::PgOut, Counter::PgPgOut].map(|c| w.counter(c)), [15, 15]);
        for n in &all {
            let stays = *n == loser;
            assert_eq!(w.fs.slot(&w.cx, *n).is_none(), stays, "place {bad}");
            assert_eq!(w.modified(*n), stays, "place {bad}");
        }
        assert_eq!(w.check().free_slots, 17 + 8);
        // The device works: its area is not the last resort, and the page goes to the next place there.
        w.push(loser).expect("another place");
        assert_eq!(w.fs.slot(&w.cx, loser), Some(PhysSlot { area: id, index: 16 }), "not {other}");
        for (i, n) in (0..).zip(&all) {
            w.evict(*n);
            assert_eq!(w.load(*n), (i, true));
        }
        w.check();
    }
}

/// A device that writes nothing is asked for the cluster and for two of its pages, and for one when it is known to fail.
#[test]
fn a_cluster_costs_a_dead_device_little() {
    let w = World::new(64);
    let (_, dev, _) = faulty(&w, 64);
    (0..64).for_each(|page| dev.break_page(page));
    let all: Vec<_> = (0..16).map(|i| w.anon(i)).collect();
    for transfers in [3, 2, 2] {
        let told = push_all(&w, &all);
        assert!(matches!(told, (Err(VnodeError::Io { .. }), n) if n == transfers), "{told:?}");
        assert!(all.iter().all(|n| w.modified(*n) && w.fs.slot(&w.cx, *n).is_none()));
        assert_eq!(w.check().free_slots, 64);
    }
    dev.heal();
    assert_eq!(push_all(&w, &all), (Ok(()), 1));
    // It dies while the pages are tried one by one: as many more failures as it had successes, and two.
    all.iter().enumerate().for_each(|(i, n)| w.store(*n, i as u8));
    [1].into_iter().chain(5..13).for_each(|nth| dev.fail_write(nth));
    let (told, transfers) = push_all(&w, &all);
    assert_eq!((told.is_err(), transfers), (true, 1 + 3 + 5));
    let stored: Vec<bool> = all.iter().map(|n| w.fs.slot(&w.cx, *n).is_some()).collect();
    assert_eq!(stored, (0..16).map(|i| i < 3).collect::<Vec<_>>());
    assert_eq!(w.check().free_slots, 61);
}

#[test]
fn an_unreadable_page_keeps_its_area() {
    let w = World::new(32);
    let (_, dev, id) = faulty(&w, 8);
    let all: Vec<_> = (0..4).map(|i| w.anon(i)).collect();
    for n in &all {
        w.evict(*n);
    }
    dev.break_page(2);
    let refused = w.fs.remove(&w.cx, id);
    assert!(matches!(refused, Err(SwapError::BringBack { .. })));
    assert_eq!(refused.map_err(|e| e.errno()), Err(errno::EIO));
    assert_eq!((w.fs.info().max, w.fs.list()[0].removing), (8, false));
    assert_eq!(w.check().lost, 1);
    dev.heal();
    w.fs.remove(&w.cx, id).expect("what was lost is lost");
    assert_eq!(w.load(all[3]).0, 3);
    assert!(w.fs.get_page(&w.cx, all[2], 0).is_err());
    w.check();
}

/// A machine with 8 slots, the first of which could not be read, and the name that lost its page by that. Disk is promised to the last.
fn one_bad_slot() -> (World, Arc<FaultyDevice>, AnonNumber, AreaId) {
    let w = World::new(64);
    let (_, dev, id) = faulty(&w, 8);
    w.fs.reserve(8).expect("disk");
    let n = w.anon(1);
    w.evict(n);
    dev.fail_read(1);
    assert!(w.fs.get_page(&w.cx, n, 0).is_err());
    let info = w.fs.info();
    assert_eq!(
        (info.max, info.phys_resv, info.mem_resv),
        (8, 8, 0),
        "its name holds its slot's promise"
    );
    (w, dev, n, id)
}

#[test]
fn a_lost_slot_backs_no_promise_once_its_name_has_ended() {
    let (w, _, n, id) = one_bad_slot();
    let availrmem = w.db.free_mem().availrmem();
    w.free(n);
    let info = w.fs.info();
    assert_eq!((info.max, info.phys_resv, info.mem_resv), (7, 7, 1), "memory has taken one over");
    assert_eq!(w.db.free_mem().availrmem(), availrmem - 1);
    w.check();
    w.fs.unreserve(1);
    assert_eq!(w.db.free_mem().availrmem(), availrmem);
    w.fs.unreserve(7);
    w.fs.reserve(8).expect("7 of disk, 1 of memory");
    assert_eq!((w.fs.info().phys_resv, w.fs.info().mem_resv), (7, 1));
    w.check();
    // The area goes and comes with 7.
    w.fs.unreserve(8);
    w.fs.remove(&w.cx, id).expect("nothing is on it");
    assert_eq!(w.fs.info().max, 0);
    w.check();
}

#[test]
fn a_lost_slot_is_owed_when_memory_cannot_take_it_over() {
    let (w, _, n, id) = one_bad_slot();
    let mem = w.db.free_mem();
    let rest = mem.availrmem() - 8;
    assert!(mem.charge(rest, 0));
    w.free(n);
    let info = w.fs.info();
    assert_eq!((info.max, info.phys_resv, info.mem_resv), (8, 8, 0), "owed");
    w.check();
    assert!(w.fs.reserve(1).is_err());
    w.fs.unreserve(1); // what the name was promised
    assert_eq!((w.fs.info().max, w.fs.info().phys_resv), (7, 7), "paid");
    assert!(w.fs.reserve(1).is_err(), "and not promised again");
    w.check();
    mem.uncharge(rest);
    w.fs.unreserve(7);
    w.fs.remove(&w.cx, id).expect("nothing is on it");
    w.check();
}

#[test]
fn a_removal_called_off_brings_back_what_the_area_still_has() {
    let (w, dev, n, id) = one_bad_slot();
    let kept = w.anon(2);
    w.evict(kept);
    w.fs.unreserve(8);
    w.free(n);
    assert_eq!(w.fs.info().max, 7);
    dev.fail_read(1);
    assert!(matches!(w.fs.remove(&w.cx, id), Err(SwapError::BringBack { .. })));
    assert_eq!(w.fs.info().max, 7, "the second is bad as well, and its name lives");
    w.check();
    w.free(kept);
    assert_eq!(w.fs.info().max, 6);
    w.fs.remove(&w.cx, id).expect("bad slots stay behind");
    w.check();
}

/// Adds a device whose preparation fails, twice; then it is mended.
fn an_add_that_cannot_prepare(inner: Arc<dyn SwapDevice>, untouched: &dyn Fn()) {
    let w = World::new(64);
    w.fs.reserve(10).expect("memory");
    let dev = Arc::new(FaultyDevice::new(inner));
    let before = (w.fs.info(), w.db.free_mem().availrmem());
    dev.fail_prepare(1);
    dev.fail_prepare(2);
    for _ in 0..2 {
        let refused = w.fs.add(&w.cx, dev.clone(), 0, 20, 0);
        let why = DeviceError { op: DeviceOp::Open, page: 0, errno: errno::EIO };
        assert_eq!(refused, Err(SwapError::Device(why)));
        assert_eq!(refused.map_err(|e| e.errno()), Err(errno::EIO));
        assert!(w.fs.list().is_empty());
        assert_eq!((w.fs.info(), w.db.free_mem().availrmem()), before);
        untouched();
        w.check();
    }
    assert!(w.push(w.anon(1)).is_err(), "there is no slot");
    assert_eq!(w.fs.add(&w.cx, dev, 0, 20, 0), Ok(AreaId(1)), "no id was used up");
    assert_eq!((w.fs.info().max, w.fs.info().mem_resv), (20, 0));
    let n = w.anon(7);
    w.evict(n);
    assert_eq!(w.load(n), (7, true));
    w.check();
    w.fs.remove(&w.cx, AreaId(1)).expect("memory is plenty");
}

#[test]
fn a_device_that_cannot_be_prepared_is_not_added() {
    let mem = Arc::new(MemDevice::new("d", 20));
    an_add_that_cannot_prepare(mem.clone(), &|| assert_eq!(mem.transfers(), (0, 0)));
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_prepared_stays_as_it_is() {
    use crate::FileDevice;
    let name = alloc::format!("swapfs-prepare-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let bytes = |n: usize| alloc::vec![0xab; n];
    for (has, then) in [(5000, 20 << 12), (30 << 12, 30 << 12)] {
        std::fs::write(&path, bytes(has)).expect("a temporary file");
        let untouched = || assert!(std::fs::read(&path).expect("there") == bytes(has));
        let dev = FileDevice::create(&path, 20).expect("a file");
        an_add_that_cannot_prepare(Arc::new(dev), &untouched);
        let len = std::fs::metadata(&path).expect("there").len();
        assert_eq!(len, then, "made longer once prepared, never cut");
    }
    std::fs::remove_file(&path).expect("ours");
}

#[test]
fn a_device_that_panics_leaves_no_half_filled_page() {
    let w = World::new(32);
    let (dev, _) = super::ctl::meddled(&w, |_, _, _| panic!("the device is on fire"));
    let n = w.anon(7);
    w.evict(n);
    let read = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        w.fs.get_page(&w.cx, n, 0).map(drop)
    }));
    assert!(read.is_err());
    assert!(!w.resident(n), "and nobody waits for it");
    assert!(matches!(w.fs.place(n), Place::At(_)), "its bytes are where they were");
    w.check();
    drop(dev);
    w.free(n);
}
