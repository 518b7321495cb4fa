//! Slots: late, new at each push, gone at page-in.

use super::World;
use page_db::selock::LockedPage as _;
use page_db::{Counter, PAGE_SIZE, PutFlags, RefMod, VnodeError};

#[test]
fn an_untouched_anon_reads_as_zeros_and_costs_no_slot() {
    let w = World::new(32);
    w.add("d", 8, 0);
    let n = w.alloc();
    let zeroed = w.counter(Counter::BytesZeroed);
    assert_eq!(w.load(n), (0, false));
    assert_eq!(w.counter(Counter::BytesZeroed) - zeroed, PAGE_SIZE);
    assert!(!w.modified(n));
    w.push(n).expect("nothing to write");
    assert_eq!(w.fs.slot(&w.cx, n), None);
    assert_eq!(w.counter(Counter::PgOut), 0);
    assert_eq!(w.load(n), (0, false));
    w.check();
}

/// Behaviours 41 and uvm 29, 30 as illumos has them: reading back frees the slot, and the next push finds another.
#[test]
fn each_push_takes_a_new_slot_and_reading_back_gives_it_up() {
    let w = World::new(32);
    let (dev, _) = w.add("d", 8, 0);
    let n = w.anon(0x5a);
    w.push(n).expect("room");
    let first = w.fs.slot(&w.cx, n).expect("stored");
    assert_eq!(w.counter(Counter::AnonPgOut), 1);
    // On the cache list: found again without a read, clean, stored.
    assert_eq!(w.db.cache_list().count(), 1);
    assert_eq!(w.load(n), (0x5a, false));
    assert!(!w.modified(n));
    assert_eq!(w.fs.slot(&w.cx, n), Some(first));
    // Frame taken: read, slot gone at once, modified.
    w.evict(n);
    assert!(!w.resident(n));
    assert_eq!(dev.transfers(), (0, 1), "a clean page is not written again");
    assert_eq!(w.load(n), (0x5a, true));
    assert_eq!(w.fs.slot(&w.cx, n), None);
    assert!(w.modified(n));
    assert_eq!((w.counter(Counter::PgIn), w.counter(Counter::AnonPgIn)), (1, 1));
    let census = w.check();
    assert_eq!((census.free_slots, census.stored), (8, 0));
    w.push(n).expect("room");
    let second = w.fs.slot(&w.cx, n).expect("stored");
    assert_ne!(first, second, "as in a log");
    // Modified while stored: the old slot goes, one slot stays in use.
    w.store(n, 0x5b);
    w.push(n).expect("room");
    assert_ne!(w.fs.slot(&w.cx, n), Some(second));
    assert_eq!(w.check().free_slots, 7);
    w.evict(n);
    assert_eq!(w.load(n).0, 0x5b);
    w.free(n);
    assert_eq!(w.check().free_slots, 8);
}

/// Behaviour 42.
#[test]
fn without_a_slot_nothing_is_lost() {
    let w = World::new(32);
    let n = w.anon(9);
    let id = w.fs.identity(n);
    let nospace = VnodeError::NoSpace { vnode: id.vnode, offset: id.offset };
    assert_eq!(w.push(n), Err(nospace));
    assert!(w.resident(n) && w.modified(n));
    for flags in [PutFlags::empty(), PutFlags::INVAL, PutFlags::FREE, PutFlags::ASYNC] {
        assert_eq!(w.fs.put_page(&w.cx, n, flags), Ok(()), "{flags:?}");
        assert!(w.resident(n) && w.modified(n));
    }
    assert_eq!(w.load(n), (9, false));
    w.check();
}

#[test]
fn a_full_area_takes_a_page_to_its_old_slot() {
    let w = World::new(32);
    let (dev, _) = w.add("d", 1, 0);
    let n = w.anon(1);
    w.push(n).expect("room");
    let slot = w.fs.slot(&w.cx, n);
    w.store(n, 2);
    // The sweep cannot take the slot: the page is the one being pushed.
    w.push(n).expect("its own slot");
    assert_eq!(w.fs.slot(&w.cx, n), slot);
    assert_eq!(dev.transfers(), (0, 2));
    w.evict(n);
    assert_eq!(w.load(n), (2, true));
    w.check();
}

/// Behaviour 44, the part that is swap's.
#[test]
fn freeing_returns_slot_and_number() {
    let w = World::new(32);
    w.add("d", 8, 0);
    let (a, b) = (w.anon(1), w.anon(2));
    w.push(a).expect("room");
    w.evict(a);
    w.push(b).expect("room");
    let free = w.fs.info().free;
    w.free(a); // not resident
    w.free(b); // cached
    assert_eq!(w.fs.info().free, free + 2);
    let census = w.check();
    assert_eq!((census.live, census.free_slots), (0, 8));
    assert_eq!(w.db.freemem(), 32);
    assert_eq!(w.alloc(), b);
}

/// uvm 32, the part that is swap's: a stored page is brought in for a copy; the copy has no slot and is dirty.
#[test]
fn a_copy_of_a_stored_page_starts_without_a_slot() {
    let w = World::new(32);
    w.add("d", 8, 0);
    let old = w.anon(3);
    w.push(old).expect("room");
    w.evict(old);
    let new = w.alloc();
    {
        let from = w.fs.get_page(&w.cx, old, 0).expect("read");
        assert!(from.read);
        let to = w.fs.get_page(&w.cx, new, 0).expect("zeros");
        w.db.mem().copy(from.page.pfn(), to.page.pfn());
        to.page.page().set_ref_mod(RefMod::MOD);
    }
    assert_eq!(w.load(new), (3, false));
    assert_eq!((w.fs.slot(&w.cx, old), w.fs.slot(&w.cx, new)), (None, None));
    w.check();
}

/// uvm 33.
#[test]
fn full_swap_takes_slots_from_pages_in_memory() {
    let w = World::new(64);
    w.add("d", 8, 0);
    let hot: alloc::vec::Vec<_> = (0..8).map(|i| w.anon(i)).collect();
    for n in &hot {
        w.fs.put_page(&w.cx, *n, PutFlags::empty()).expect("room"); // written, stays
    }
    assert_eq!(w.check().free_slots, 0);
    let cold: alloc::vec::Vec<_> = (0..4).map(|i| w.anon(100 + i)).collect();
    for n in &cold {
        w.fs.put_page(&w.cx, *n, super::PUSH).expect("held back");
    }
    w.fs.flush_pushes(&w.cx).expect("the sweep finds slots");
    assert!(cold.iter().all(|n| w.fs.slot(&w.cx, *n).is_some()));
    let swept = hot.iter().filter(|n| w.fs.slot(&w.cx, **n).is_none());
    assert_eq!(swept.clone().count(), 4);
    assert!(swept.clone().all(|n| w.modified(*n)));
    for (i, n) in cold.iter().enumerate() {
        w.evict(*n);
        assert_eq!(w.load(*n), (100 + i as u8, true));
    }
    for (i, n) in hot.iter().enumerate() {
        assert_eq!(w.load(*n).0, i as u8);
    }
    w.check();
}

#[test]
fn the_sweep_leaves_cached_pages_their_slots() {
    let w = World::new(64);
    w.add("d", 2, 0);
    let (a, b) = (w.anon(1), w.anon(2));
    w.push(a).expect("room");
    w.push(b).expect("room"); // both cached: their slots are where their bytes are
    let c = w.anon(3);
    assert!(w.push(c).is_err());
    assert_eq!((w.load(a).0, w.load(b).0, w.load(c).0), (1, 2, 3));
    w.check();
}

#[test]
fn a_slot_given_up_under_the_lock_leaves_a_modified_page() {
    let w = World::new(32);
    w.add("d", 4, 0);
    let n = w.anon(4);
    w.fs.put_page(&w.cx, n, PutFlags::empty()).expect("room");
    assert!(!w.modified(n));
    {
        let page = w.db.lookup_excl(&w.cx, w.fs.identity(n)).expect("resident");
        assert!(w.fs.free_slot(&w.cx, n, &page));
        page.page().set_ref_mod(RefMod::MOD);
        assert!(!w.fs.free_slot(&w.cx, n, &page), "there was one");
    }
    assert_eq!(w.check().free_slots, 4);
    w.fs.put_page(&w.cx, n, PutFlags::empty()).expect("room");
    let other = w.anon(5);
    {
        let page = w.db.lookup_shared(&w.cx, w.fs.identity(other)).expect("resident");
        assert!(!w.fs.free_slot(&w.cx, n, &page), "a page of another name says nothing");
    }
    // In transit the slot belongs to the push.
    let page = w.db.lookup_shared(&w.cx, w.fs.identity(n)).expect("resident");
    assert!(w.db.io_trylock(&page));
    assert!(!w.fs.free_slot(&w.cx, n, &page));
    w.db.io_unlock(page.id());
    assert!(w.fs.free_slot(&w.cx, n, &page));
    page.page().set_ref_mod(RefMod::MOD);
    drop(page);
    w.check();
}

#[test]
fn truncation_drops_bytes_and_claims_protect_pages() {
    let w = World::new(64);
    w.add("d", 4, 0);
    let n = w.anon(4);
    {
        let page = w.db.lookup_excl(&w.cx, w.fs.identity(n)).expect("resident");
        w.db.claim(&page, page_db::db::Claim::Lck).expect("memory");
    }
    assert!(matches!(w.fs.put_page(&w.cx, n, PutFlags::INVAL), Err(VnodeError::Locked { .. })));
    w.push(n).expect("passed over");
    assert!(w.resident(n) && w.modified(n));
    w.fs.put_page(&w.cx, n, PutFlags::INVAL | PutFlags::TRUNC).expect("thrown away");
    assert!(!w.resident(n));
    assert_eq!(w.load(n), (0, false));
    w.check();
}

#[test]
fn read_ahead_reads_what_is_stored_and_absent() {
    let w = World::new(32);
    let (dev, _) = w.add("d", 4, 0);
    let (a, b) = (w.anon(4), w.alloc());
    w.push(a).expect("room");
    w.fs.read_ahead(&w.cx, a).expect("cached");
    assert_eq!(dev.transfers().0, 0);
    w.evict(a);
    w.fs.read_ahead(&w.cx, a).expect("read");
    w.fs.read_ahead(&w.cx, b).expect("nothing stored");
    assert_eq!(dev.transfers().0, 1);
    assert!(w.resident(a) && !w.resident(b));
    assert_eq!(w.load(a), (4, false));
}

#[test]
fn no_frame_is_an_answer() {
    let w = World::new(8);
    let mut kept = alloc::vec::Vec::new();
    let refused = loop {
        let n = w.alloc();
        match w.fs.get_page(&w.cx, n, 0) {
            Ok(got) => kept.push(got.page),
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, VnodeError::NoMemory { .. }));
    drop(kept);
    w.check();
}
