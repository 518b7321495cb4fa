//! Races of the page layer with real threads: what is found carries its name, what is free is nobody's, nothing gets lost.

use crate::db::{PageDb, PageDbConfig, Reserve};
use crate::pageout::{Pageout, PageoutConfig};
use crate::testing::{Lot, TestFile, World, hashes, name};
use crate::{Cx, HashKind, LockedPage, PageError, RefMod, VnodeKind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

/// Threads create, look up, free and destroy a few names on a machine that is too small for all of them, so that frames change names all
/// the time; each page found is stamped with its name in its contents.
fn churn(hash: HashKind, frames: u64, cpus: u16) {
    let w =
        World::with(frames, &PageDbConfig { hash, cpus, colours: 2, ..PageDbConfig::default() });
    let v = w.vnode(VnodeKind::File);
    let start = Barrier::new(4);
    thread::scope(|s| {
        for t in 0..4u32 {
            let (db, start, cx) = (&w.db, &start, w.thread(t));
            s.spawn(move || {
                let mut lot = Lot(0x1234_5678 + u64::from(t));
                start.wait();
                for _ in 0..4000 {
                    let n = lot.below(frames + frames / 2);
                    let id = name(v, n);
                    match lot.below(8) {
                        0..=3 => match db.create(&cx, id, n, Reserve::Push) {
                            Ok(page) => {
                                db.mem().write(page.pfn(), 0, &n.to_ne_bytes());
                                page.end_io();
                            }
                            Err(PageError::Exists(e)) => assert_eq!(e, id),
                            Err(_) => {} // all in use
                        },
                        4 => {
                            if let Some(page) = db.lookup_excl(&cx, id) {
                                db.free(&cx, page, lot.below(2) == 0);
                            }
                        }
                        5 => {
                            if let Some(page) = db.lookup_excl_cached(&cx, id) {
                                assert_eq!(page.identity(), Some(id), "L3");
                                db.destroy(&cx, page);
                            }
                        }
                        _ => {
                            if let Some(page) = db.lookup_shared(&cx, id) {
                                assert_eq!(page.identity(), Some(id), "L3");
                                assert!(!page.page().is_free(), "a page found is never free");
                                let mut stamp = [0; 8];
                                db.mem().read(page.pfn(), 0, &mut stamp);
                                assert_eq!(
                                    u64::from_ne_bytes(stamp),
                                    n,
                                    "the bytes of another name"
                                );
                            }
                        }
                    }
                    assert!(cx.held().is_empty());
                }
            });
        }
    });
    let census = w.verify();
    assert_eq!((census.unnamed, census.total()), (0, frames));
}

#[test]
fn frames_change_names_under_lookups() {
    for hash in hashes() {
        churn(hash, 12, 2);
        churn(hash, 300, 4);
    }
}

#[test]
fn one_of_several_creators_wins() {
    for hash in hashes() {
        let w = World::with(64, &PageDbConfig { hash, ..PageDbConfig::default() });
        let v = w.vnode(VnodeKind::File);
        for n in 0..50 {
            let start = Barrier::new(3);
            let won: usize = thread::scope(|s| {
                let spawn = |t: u32| {
                    let (db, start, cx) = (&w.db, &start, w.thread(t));
                    s.spawn(move || {
                        start.wait();
                        let made = db.create(&cx, name(v, n), 0, Reserve::Normal);
                        made.map(|p| p.end_io()).is_ok()
                    })
                };
                [0, 1, 2]
                    .map(spawn)
                    .into_iter()
                    .filter_map(|t| t.join().ok())
                    .filter(|w| *w)
                    .count()
            });
            assert_eq!(won, 1);
        }
        assert_eq!(w.verify().named, 50);
    }
}

#[test]
fn lookup_waits_and_compares_the_name_again() {
    // Behaviour 49: renamed while the lookup sleeps.
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    w.make(name(v, 0));
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("there");
    let cx = w.thread(1);
    let found = thread::scope(|s| {
        let sleeper = s.spawn(|| {
            let cx = cx;
            w.db.lookup_shared(&cx, name(v, 0)).map(|p| p.identity())
        });
        while w.count(crate::Counter::PageLockWaits) == 0 {
            thread::yield_now();
        }
        w.db.rename(&w.cx, &page, name(v, 9)).expect("nobody holds it");
        drop(page);
        sleeper.join().expect("no panic")
    });
    assert_eq!(found, None);
}

#[test]
fn page_out_beside_users_loses_no_page_and_no_store() {
    // Two threads store into pages of a file through "mappings" (bits on the page), two run page-out. A page is only ever freed clean.
    let w = World::with(64, &PageDbConfig { cpus: 4, ..PageDbConfig::default() });
    let file = TestFile::new(&w);
    let pageout = Pageout::new(&w.db, PageoutConfig { queue: Some(8), ..PageoutConfig::default() });
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        let scanners = [2, 3].map(|t| {
            let (db, pageout, stop, cx) = (&w.db, &pageout, &stop, w.thread(t));
            s.spawn(move || {
                while !stop.load(SeqCst) {
                    pageout.step(&cx, db, 20);
                    pageout.run(&cx, db);
                    assert!(cx.held().is_empty());
                }
            })
        });
        let users = [0, 1].map(|t| {
            let (db, file, cx) = (&w.db, &file, w.thread(t));
            s.spawn(move || {
                let mut lot = Lot(0xfeed + u64::from(t));
                for i in 0..3000u64 {
                    let id = file.page(lot.below(40));
                    let got =
                        crate::Vnode::get_page(&**file, &cx, db, id.offset, crate::Access::Write);
                    match got {
                        Ok(got) => {
                            assert_eq!(got.page.identity(), Some(id));
                            if i % 2 == 0 {
                                got.page.page().set_ref_mod(RefMod::REF | RefMod::MOD);
                            }
                        }
                        Err(e) => assert!(matches!(e, crate::VnodeError::NoMemory { .. }), "{e}"),
                    }
                }
            })
        });
        for u in users {
            u.join().expect("no panic");
        }
        stop.store(true, SeqCst);
        for sc in scanners {
            sc.join().expect("no panic");
        }
    });
    assert_eq!(w.verify().unnamed, 0);
    pageout.reclaim_all(&w.cx, &w.db);
    assert_eq!(w.db.freemem(), 64);
    assert_eq!(w.verify().named, 0);
}

#[test]
fn a_sleeper_for_memory_is_woken_by_a_free() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let mut n = 0;
    while let Ok(page) = w.db.create(&w.cx, name(v, n), 0, Reserve::Push) {
        page.end_io();
        n += 1;
    }
    let cx = w.thread(1);
    thread::scope(|s| {
        let sleeper = s.spawn(|| {
            let cx = cx;
            let _need = w.db.free_mem().need(2);
            w.db.sleep_for_memory(&cx, 2, || false)
        });
        while w.db.free_mem().needfree() == 0 {
            thread::yield_now();
        }
        for i in 0..2 + w.db.free_mem().thresholds().pageout_reserve {
            assert!(!sleeper.is_finished());
            w.free(name(v, i), false);
        }
        assert!(sleeper.join().expect("no panic"));
    });
    assert_eq!(w.db.free_mem().needfree(), 0);
}

#[test]
fn what_a_sleeper_was_woken_for_is_known_though_others_took_it() {
    let w = World::new(16);
    let _need = w.db.free_mem().need(16);
    let free = w.db.freemem();
    assert_eq!(w.db.most_free(), free, "those free now");
    let take = || w.db.alloc(&w.cx, 0, Reserve::Push).expect("a frame");
    let held: Vec<_> = (0..4).map(|_| take()).collect();
    assert_eq!(w.db.most_free(), free - 4);
    held.into_iter().for_each(|page| w.db.free(&w.cx, page, false));
    let again: Vec<_> = (0..4).map(|_| take()).collect();
    assert_eq!((w.db.freemem(), w.db.most_free()), (free - 4, free), "they went by");
    assert_eq!(w.db.most_free(), free - 4, "it is said once");
    again.into_iter().for_each(|page| w.db.free(&w.cx, page, false));
}

/// F3: also where a free wakes nobody as long as nobody waits.
#[test]
fn a_sleeper_for_memory_is_woken_by_a_free_that_a_magazine_could_take() {
    let thresholds = Some(crate::Thresholds::from_lotsfree(8));
    let w = World::with(512, &PageDbConfig { cpus: 2, thresholds, ..PageDbConfig::default() });
    let held: Vec<_> =
        (0..40).map(|_| w.db.alloc(&w.cx, 0, Reserve::Normal).expect("plenty").leak()).collect();
    assert!(w.db.free_list().stocks(), "472 frames are plenty");
    let (all, cx) = (512 - w.db.free_mem().normal_reserve(), w.thread(1));
    let late = AtomicBool::new(false);
    assert!(w.db.set_memory_wait(Arc::new(Sleeps)));
    thread::scope(|s| {
        let (db, late) = (&w.db, &late);
        let sleeper = s.spawn(move || {
            let cx = cx;
            let woken = db.wait_for_memory(&cx, all).is_ok();
            woken && !late.load(SeqCst)
        });
        while w.db.waits().sleepers() == 0 {
            thread::yield_now();
        }
        assert_eq!((w.db.free_list().in_magazines(), w.db.free_list().stocks()), (0, false));
        for id in held {
            assert!(!sleeper.is_finished());
            w.db.free(&w.cx, w.db.adopt_excl(&w.cx, id), false);
        }
        for _ in 0..10_000 {
            if sleeper.is_finished() {
                break;
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
        late.store(!sleeper.is_finished(), SeqCst);
        w.db.waits().wake_all(crate::db::MEMORY_KEY);
        assert!(sleeper.join().expect("no panic"), "woken by the last of the frees");
    });
    assert_eq!((w.db.free_list().in_magazines(), w.verify().free), (0, 512));
    // Nobody waits any more: magazines fill again.
    for _ in 0..2 {
        let page = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("plenty");
        w.db.free(&w.cx, page, false);
    }
    assert!(w.db.free_list().in_magazines() != 0);
}

/// Whether there is hope is asked with nothing locked: whoever is asked may free pages, which wakes whoever sleeps there.
#[test]
fn a_sleeper_for_memory_may_free_pages_when_it_is_asked_whether_there_is_hope() {
    const HELD: u64 = 300; // more than a sleeper looks before it falls asleep
    let w = World::new(512);
    let held: Vec<_> =
        (0..HELD).map(|_| w.db.alloc(&w.cx, 0, Reserve::Normal).expect("plenty").leak()).collect();
    let want = 512 - w.db.free_mem().normal_reserve();
    let sleeper = thread::spawn(move || {
        let (db, cx, mut held) = (&w.db, &w.cx, held);
        let _need = db.free_mem().need(want);
        db.drain_magazines(cx);
        db.sleep_for_memory(cx, want, || {
            let Some(id) = held.pop() else { return true };
            db.free(cx, db.adopt_excl(cx, id), false);
            false
        })
    });
    for _ in 0..10_000 {
        if sleeper.is_finished() {
            break;
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(sleeper.is_finished(), "it waits for what it holds itself");
    assert!(sleeper.join().expect("no panic"), "every page is free");
}

/// Waiting for memory is sleeping.
#[derive(Debug)]
struct Sleeps;

impl crate::MemoryWait for Sleeps {
    fn wait_for_memory(&self, cx: &Cx, db: &PageDb, pages: u64) -> Result<(), PageError> {
        match db.sleep_for_memory(cx, pages, || false) {
            true => Ok(()),
            false => Err(db.no_memory(pages)),
        }
    }
}
