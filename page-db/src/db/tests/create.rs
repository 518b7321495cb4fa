//! Making pages: names, undoing, depth of reserve (behaviours 46 and 53).

use crate::db::{PageDbConfig, Reserve};
use crate::free_mem::Thresholds;
use crate::pageout::{Pageout, PageoutConfig};
use crate::testing::{World, hashes, name};
use crate::{
    Counter, Counters, CpuId, Cx, ExclPage, HostMem, LockedPage, ManualClock, PageDb, PageDbError,
    PageError, PageId, Pfn, RefMod, SpinHooks, ThreadId, VnodeKind,
};
use alloc::sync::Arc;
use alloc::vec::Vec;

fn thresholds(lotsfree: u64, throttlefree: u64, pageout_reserve: u64) -> Option<Thresholds> {
    let minfree = throttlefree;
    Some(Thresholds { lotsfree, desfree: lotsfree / 2, minfree, throttlefree, pageout_reserve })
}

fn named(w: &World, v: crate::VnodeId, range: core::ops::Range<u64>) -> Vec<bool> {
    range.map(|i| w.db.exists(&w.cx, name(v, i)).is_some()).collect()
}

#[test]
fn a_created_page_is_exclusive_in_transit_referenced_and_named() {
    for hash in hashes() {
        let w = World::with(8, &PageDbConfig { hash, ..PageDbConfig::default() });
        let v = w.vnode(VnodeKind::File);
        let page = w.db.create(&w.cx, name(v, 3), 0, Reserve::Normal).expect("a frame");
        assert!(w.db.lock_state(page.id()).excl && w.db.is_io_locked(page.id()));
        assert_eq!(page.page().ref_mod(), RefMod::REF);
        assert_eq!(page.identity(), Some(name(v, 3)));
        assert_eq!(w.db.vnode_pages(&w.cx, v), [page.id()]);
        assert_eq!(w.db.freemem(), 7);
        page.end_io();
        drop(page);
        assert_eq!(w.verify().named, 1);
    }
}

#[test]
fn create_excl_of_a_range_with_an_existing_page_undoes_everything() {
    // Behaviour 46, PG_EXCL: page 2 of 3 exists.
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    w.make(name(v, 1));
    let before = w.db.freemem();
    let e = w.db.create_range(&w.cx, name(v, 0), 3, 0, Reserve::Normal);
    assert_eq!(e.err(), Some(PageError::Exists(name(v, 1))));
    assert_eq!(named(&w, v, 0..3), [false, true, false]);
    assert_eq!(w.db.freemem(), before);
    assert!(w.cx.held().is_empty());
    w.verify();
}

#[test]
fn create_or_find_yields_the_existing_page_in_its_place() {
    // Behaviour 46, PG_WAIT without PG_EXCL; once in use, once on the cache list.
    for cached in [false, true] {
        let w = World::new(16);
        let v = w.vnode(VnodeKind::File);
        let old = w.make(name(v, 1));
        if cached {
            w.free(name(v, 1), false);
        }
        let got = w.db.create_range_or_find(&w.cx, name(v, 0), 3, 0, Reserve::Normal);
        let got = got.expect("three pages");
        assert_eq!(got[1].id(), old);
        let names: Vec<_> = got.iter().map(ExclPage::identity).collect();
        assert_eq!(names, [0, 1, 2].map(|i| Some(name(v, i))));
        assert!(got.iter().all(|p| w.db.is_io_locked(p.id())));
        for page in got {
            page.end_io();
        }
        assert_eq!(w.verify().named, 3);
    }
}

/// Which frame a page is in is known once it is locked: whoever waits for one of a range holds none of the others, of whatever offset.
#[test]
fn create_or_find_waits_for_one_page_with_none_of_the_others_held() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let (found, pinned) = (w.make(name(v, 1)), w.make(name(v, 2)));
    let pin = w.db.lock_shared(&w.cx, pinned);
    std::thread::scope(|s| {
        let cx = w.thread(1);
        let db = &w.db;
        let ids = s.spawn(move || {
            let got = db.create_range_or_find(&cx, name(v, 0), 4, 0, Reserve::Normal);
            let got = got.expect("four pages");
            got.iter().for_each(ExclPage::end_io);
            got.iter().map(LockedPage::id).collect::<Vec<_>>()
        });
        while w.db.waits().sleepers() == 0 {
            std::thread::yield_now();
        }
        let held = w.db.try_lock_excl(&w.cx, found).is_none();
        let made = named(&w, v, 0..4);
        drop(pin); // before any answer fails the test
        assert_eq!(ids.join().expect("no panic")[1..3], [found, pinned]);
        assert_eq!((held, made), (false, vec![false, true, true, false]));
    });
    assert_eq!(w.verify().named, 4);
}

#[test]
fn a_range_past_the_last_offset_or_half_of_memory_is_refused() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let last = crate::Identity::new(v, crate::FileOffset(u64::MAX));
    assert!(w.db.create_range(&w.cx, last, 2, 0, Reserve::Push).is_err());
    let got = w.db.create_range(&w.cx, last, 1, 0, Reserve::Push).expect("the last page");
    for page in got {
        page.end_io();
        w.db.destroy(&w.cx, page);
    }
    assert!(w.db.create_range(&w.cx, name(v, 0), 8, 0, Reserve::Push).is_err());
    assert!(w.db.create_range(&w.cx, name(v, 0), u64::MAX, 0, Reserve::Push).is_err());
    assert!(w.db.create_range(&w.cx, name(v, 0), 0, 0, Reserve::Push).is_ok_and(|v| v.is_empty()));
    assert_eq!(w.verify().free, 16);
}

#[test]
fn senseless_thresholds_leave_memory_to_use() {
    for v in [0, 1, 99, 100, 1000, u64::MAX / 2, u64::MAX] {
        let usual = Thresholds::for_memory(1000);
        for t in [
            Thresholds { lotsfree: v, ..usual },
            Thresholds { desfree: v, ..usual },
            Thresholds { minfree: v, ..usual },
            Thresholds { throttlefree: v, ..usual },
            Thresholds { pageout_reserve: v, ..usual },
            thresholds(v, v, v).expect("some"),
        ] {
            let config = PageDbConfig { thresholds: Some(t), ..PageDbConfig::default() };
            let w = World::with(1000, &config);
            for reserve in [Reserve::Spare, Reserve::Normal] {
                let page = w.db.alloc(&w.cx, 0, reserve).unwrap_or_else(|e| panic!("{t:?}: {e}"));
                w.db.free(&w.cx, page, false);
            }
            let pageout = Pageout::new(&w.db, PageoutConfig::default());
            pageout.run(&w.cx, &w.db);
            w.verify();
        }
    }
}

#[test]
fn each_reserve_leaves_what_it_must() {
    // Behaviour 53: NORMALPRI stops at throttlefree, a plain request at pageout_reserve, PUSHPAGE takes the last page.
    let config = PageDbConfig { thresholds: thresholds(14, 6, 4), ..PageDbConfig::default() };
    let w = World::with(16, &config);
    let v = w.vnode(VnodeKind::File);
    let fill = |reserve, from: u64| {
        let made = (from..).map_while(|i| w.db.create(&w.cx, name(v, i), 0, reserve).ok());
        made.map(|p| p.end_io()).count() as u64
    };
    assert_eq!(fill(Reserve::Spare, 0), 10);
    assert_eq!(w.db.freemem(), 6);
    assert_eq!(fill(Reserve::Normal, 100), 2);
    assert_eq!(w.db.freemem(), 4);
    let refused = w.db.create(&w.cx, name(v, 900), 0, Reserve::Normal).err();
    assert_eq!(refused, Some(PageError::NoMemory { wanted: 1, freemem: 4 }));
    // Page-out itself asks like anybody else and gets what it needs.
    w.cx.freeing_memory(|| {
        let page = w.db.create(&w.cx, name(v, 200), 0, Reserve::Normal).expect("from the reserve");
        page.end_io();
    });
    assert_eq!(fill(Reserve::Push, 300), 3);
    assert_eq!(w.db.freemem(), 0);
    assert!(w.db.alloc(&w.cx, 0, Reserve::Push).is_err());
    assert_eq!(w.verify().named, 16);
}

#[test]
fn waiting_without_a_machine_is_refused_and_counts_the_need_meanwhile() {
    let w = World::new(8);
    assert!(matches!(w.db.wait_for_memory(&w.cx, 3), Err(PageError::NoMemory { wanted: 3, .. })));
    assert_eq!(w.db.free_mem().needfree(), 0);
}

#[test]
fn consecutive_colours_yield_consecutive_frames() {
    let w = World::with(32, &PageDbConfig { colours: 4, ..PageDbConfig::default() });
    let got: Vec<_> =
        (0..8u64).map(|c| w.db.alloc(&w.cx, c, Reserve::Push).expect("a frame")).collect();
    let colours: Vec<_> = got.iter().map(|p| p.pfn().0 % 4).collect();
    assert_eq!(colours, [0, 1, 2, 3, 0, 1, 2, 3]);
    // When the wanted colour is used up the nearest one serves: all of colour 1 first, then its neighbours.
    let more: Vec<_> =
        (0..8).map(|_| w.db.alloc(&w.cx, 1, Reserve::Push).expect("a frame")).collect();
    let colours: Vec<_> = more.iter().map(|p| p.pfn().0 % 4).collect();
    assert_eq!(colours, [1, 1, 1, 1, 1, 1, 2, 2]);
    for page in got.into_iter().chain(more) {
        w.db.free(&w.cx, page, false);
    }
    assert_eq!(w.verify().free, 32);
}

#[test]
fn a_frame_is_taken_from_the_cache_list_only_when_no_nameless_one_is_left() {
    let w = World::new(4);
    let v = w.vnode(VnodeKind::File);
    w.make(name(v, 0));
    w.free(name(v, 0), false);
    for i in 1..4 {
        w.make(name(v, i));
    }
    assert!(w.db.exists(&w.cx, name(v, 0)).is_some());
    w.make(name(v, 4));
    assert!(w.db.exists(&w.cx, name(v, 0)).is_none(), "the cached page gave up its name");
    assert_eq!(w.db.freemem(), 0);
    w.verify();
}

#[test]
fn magazines_keep_within_their_bound_and_are_empty_when_memory_is_short() {
    // F2: 1024 frames, 2 CPUs: at most 64 each. lotsfree is 128 here.
    let w = World::with(1024, &PageDbConfig { cpus: 2, ..PageDbConfig::default() });
    assert_eq!(w.db.free_list().magazine_size(), 64);
    let other = w.thread(1);
    let mut held = Vec::new();
    for i in 0..400u64 {
        let cx = if i % 3 == 0 { &other } else { &w.cx };
        held.push(w.db.alloc(cx, i, Reserve::Normal).expect("a frame").leak());
        assert_eq!(w.db.freemem(), 1023 - i, "frames in magazines are free");
    }
    assert!(w.db.free_list().in_magazines() > 0);
    for (i, id) in held.drain(..).enumerate() {
        let cx = if i % 2 == 0 { &other } else { &w.cx };
        w.db.free(cx, w.db.adopt_excl(cx, id), false);
        w.verify();
    }
    assert_eq!(w.db.freemem(), 1024);
    // Down to the reserve: the first refill below lotsfree drains both.
    while let Ok(page) = w.db.alloc(&w.cx, 0, Reserve::Normal) {
        held.push(page.leak());
    }
    assert_eq!(w.db.free_list().in_magazines(), 0);
    assert_eq!(w.db.freemem(), w.db.free_mem().thresholds().pageout_reserve);
    for id in held {
        w.db.free(&w.cx, w.db.adopt_excl(&w.cx, id), false);
    }
    assert!(w.db.free_list().in_magazines() > 0, "memory is plentiful again");
    assert_eq!(w.verify().free, 1024);
    let c = |c| w.count(c);
    assert_eq!(c(Counter::FrameAllocs), c(Counter::FrameFrees));
}

#[test]
fn machines_under_256_frames_have_no_magazines() {
    let w = World::new(255);
    assert_eq!(w.db.free_list().magazine_size(), 0);
    let page = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    w.db.free(&w.cx, page, false);
    assert_eq!(w.db.free_list().in_magazines(), 0);
}

#[test]
fn frames_freed_in_no_order_come_back_in_the_order_of_their_addresses() {
    for colours in [1, 4] {
        let w = World::with(1024, &PageDbConfig { colours, ..PageDbConfig::default() });
        let taken = core::iter::from_fn(|| w.db.alloc(&w.cx, 0, Reserve::Push).ok());
        let mut held: Vec<_> = taken.map(ExclPage::leak).collect();
        assert_eq!(held.len(), 1024);
        // 7 and 1024 have no common factor, so this is each frame once, far from the one before; a quarter stays in use.
        held.sort_unstable();
        for i in (0..768).map(|i| i * 7 * 37 % 1024) {
            w.db.free(&w.cx, w.db.adopt_excl(&w.cx, held[i]), false);
        }
        w.db.drain_magazines(&w.cx);
        // One more in the ordinary way, and frames may wait in magazines again.
        let last = held[768 * 7 * 37 % 1024];
        w.db.free(&w.cx, w.db.adopt_excl(&w.cx, last), false);
        assert_eq!(w.db.free_list().in_magazines(), 0);
        let first = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("plenty").leak();
        let mut batch = w.db.free_list().magazines(&w.cx).remove(0);
        batch.push(first);
        batch.reverse();
        assert!(batch.len() > 8, "a batch was taken");
        for colour in 0..u64::from(colours) {
            let of = |id: &&PageId| w.db.pfn(**id).0 % u64::from(colours) == colour;
            assert!(batch.iter().filter(of).is_sorted(), "{colours} colours: {batch:?}");
        }
        w.db.free(&w.cx, w.db.adopt_excl(&w.cx, first), false);
        assert_eq!(w.verify().free, 769);
    }
}

/// Settings from outside that make no sense for the memory are an error, or bounded; none is a panic.
#[test]
fn a_database_is_of_some_frames_and_of_no_more_colours() {
    let counters = Counters::new(1);
    let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
    let make = |base, config: &PageDbConfig| {
        let mem = Arc::new(HostMem::new(Pfn(base), 8).expect("heap"));
        let clock = Arc::new(ManualClock::default());
        PageDb::new(&cx, mem, clock, Arc::clone(&counters), config)
    };
    let none = PageDbConfig { frames: Some(0), ..PageDbConfig::default() };
    assert_eq!(make(16, &none).err(), Some(PageDbError::NoFrames));
    let past = make(u64::MAX - 4, &PageDbConfig::default());
    assert_eq!(past.err(), Some(PageDbError::TooManyFrames { frames: 8 }));
    let colours = PageDbConfig { colours: u32::MAX, ..PageDbConfig::default() };
    let db = make(16, &colours).expect("bounded");
    assert_eq!(db.free_list().colours(), 8);
    db.verify(&cx).expect("sound");
}

/// X4. What is counted, and what is to fail, is one machine's.
#[test]
fn a_database_counts_where_its_threads_do() {
    let cx = crate::testing::cx();
    let mem = Arc::new(HostMem::new(Pfn(16), 8).expect("heap"));
    let clock = Arc::new(ManualClock::default());
    let made = PageDb::new(&cx, mem, clock, Counters::new(1), &PageDbConfig::default());
    assert_eq!(made.err(), Some(PageDbError::ForeignCx));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic = "X4: another machine's context"]
fn another_machines_context_locks_no_page() {
    let (w, other) = (World::new(8), World::new(8));
    drop(w.db.alloc(&other.cx, 0, Reserve::Normal));
}

/// N3: between a look at the number and the list of its vnode the number may be given back: then the page has no name, and whoever has the number next no page.
#[test]
fn a_page_does_not_join_a_number_that_was_given_back() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let page = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    let slot = w.db.vnodes().used_slot(v).expect("in use");
    let hashed = w.db.hash().insert_unless_present(&w.cx, w.db.pages(), name(v, 0), page.id());
    assert!(hashed.is_ok());
    assert!(w.db.vnodes().retire(&w.cx, v), "it has no page");
    assert!(!w.db.join_vnode(&w.cx, slot, core::slice::from_ref(&page)));
    w.db.take_back(&w.cx, &page, name(v, 0));
    assert!(page.identity().is_none() && w.db.exists(&w.cx, name(v, 0)).is_none());
    assert_eq!(w.db.hash_in(&w.cx, &page, name(v, 0)), Err(PageError::NoVnode { vnode: v }));
    assert_eq!(w.vnode(VnodeKind::File), v, "the next to come");
    w.db.hash_in(&w.cx, &page, name(v, 0)).expect("it is in use");
    assert!(!w.db.vnodes().retire(&w.cx, v), "N1: it has a page");
    w.db.destroy(&w.cx, page);
    assert_eq!(w.verify().free, 8);
}
