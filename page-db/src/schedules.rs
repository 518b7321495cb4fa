//! The page layer's races, explored; see [`crate::sync::explore`] for how.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p page-db schedules --target-dir target/shuttle`.

use crate::db::{Claim, PageDbConfig, Reserve, RetireError};
use crate::lock::Rank;
use crate::pageout::{Pageout, PageoutConfig};
use crate::sync::Mutation as M;
use crate::sync::SlotRwLock;
use crate::sync::explore::{self, explore, join};
use crate::testing::{World, name};
use crate::{
    Counters, CpuId, Cx, LockedPage, PageDb, PageId, RefMod, SharedPage, SpinHooks, ThreadId,
    VnodeId, VnodeKind, WaitHooks,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use shuttle::thread;

fn spawn(
    db: &Arc<PageDb>,
    n: u32,
    f: impl FnOnce(&PageDb, &Cx) + Send + 'static,
) -> thread::JoinHandle<()> {
    let db = Arc::clone(db);
    explore::spawn(move || {
        let cx = Cx::new(db.counters(), CpuId(n as u16), ThreadId(n + 10), Arc::new(SpinHooks));
        f(&db, &cx);
        assert!(cx.held().is_empty());
    })
}

const V: VnodeId = VnodeId(1);

fn world(frames: u64) -> World {
    let w = World::with(frames, &PageDbConfig { cpus: 2, ..PageDbConfig::default() });
    assert_eq!(w.vnode(VnodeKind::File), V);
    w
}

/// K1, K2: writers alone, nobody sleeps for ever, EWANTED is never left behind.
#[test]
fn page_lock() {
    explore(500, &[M::DowngradeWakesNobody], || {
        let w = world(2);
        let id = w.make(name(V, 0));
        let inside = Arc::new(AtomicU32::new(0));
        let mut threads = Vec::new();
        for n in 0..2 {
            let inside = Arc::clone(&inside);
            threads.push(spawn(&w.db, n, move |db, cx| {
                let page = db.lock_excl(cx, id);
                assert_eq!(inside.fetch_add(100, SeqCst), 0, "K1");
                thread::yield_now();
                inside.fetch_sub(100, SeqCst);
                drop(page.downgrade());
            }));
        }
        let readers = Arc::clone(&inside);
        threads.push(spawn(&w.db, 2, move |db, cx| {
            let page = db.lock_shared(cx, id);
            assert!(readers.fetch_add(1, SeqCst) < 100, "K1");
            thread::yield_now();
            readers.fetch_sub(1, SeqCst);
            if let Ok(x) = page.try_upgrade() {
                assert_eq!(readers.fetch_add(100, SeqCst), 0, "K1");
                readers.fetch_sub(100, SeqCst);
                drop(x);
            }
        }));
        join(threads);
        assert_eq!(w.db.lock_state(id), crate::selock::SeState::default());
    });
}

/// K1: of two readers that want to be alone, at most one is told that it is.
#[test]
fn page_lock_upgrade() {
    explore(500, &[M::UpgradeBesideReaders], || {
        let w = world(2);
        let id = w.make(name(V, 0));
        let readers = Arc::new(AtomicU32::new(0));
        let reader = |n: u32| {
            let readers = Arc::clone(&readers);
            spawn(&w.db, n, move |db, cx| {
                let page = db.lock_shared(cx, id);
                readers.fetch_add(1, SeqCst);
                thread::yield_now();
                match page.try_upgrade() {
                    Ok(alone) => {
                        assert_eq!(readers.swap(0, SeqCst), 1, "K1");
                        drop(alone);
                    }
                    Err(page) => {
                        readers.fetch_sub(1, SeqCst);
                        drop(page);
                    }
                }
            })
        };
        join([reader(0), reader(1)]);
        assert_eq!(w.db.lock_state(id), crate::selock::SeState::default());
    });
}

/// K3: a page goes while somebody waits for it by name, and its frame is pinned under another: he finds that it is gone, with the pin still there.
#[test]
fn a_stranger_pins_the_frame_of_a_page_waited_for() {
    explore(300, &[M::StrangerAwaited], || {
        let w = world(1);
        let id = w.make(name(V, 0));
        let finder = |n| {
            move |db: &PageDb, cx: &Cx| match n {
                0 => drop(db.lookup_excl(cx, name(V, 0))),
                1 => drop(db.lookup_excl_cached(cx, name(V, 0))),
                _ => drop(db.lookup_shared(cx, name(V, 0))),
            }
        };
        let page = w.db.lock_excl(&w.cx, id).leak();
        let finders = (0..3).map(|n| spawn(&w.db, n, finder(n)));
        let stranger = spawn(&w.db, 1, move |db, cx| {
            db.destroy(cx, db.adopt_excl(cx, page));
            let page = db.create(cx, name(V, 1), 0, Reserve::Push).expect("the only frame");
            page.end_io();
            assert_eq!(page.downgrade().leak(), id);
        });
        join(finders.chain([stranger]).collect::<Vec<_>>());
        drop(w.db.adopt_shared(&w.cx, id));
    });
}

/// The i/o lock is given back by another thread while a holder of the page lock waits for it.
#[test]
fn io_lock() {
    explore(500, &[M::IoWaiterUnannounced], || {
        let w = world(2);
        let id = w.make(name(V, 0));
        let page = w.db.lock_shared(&w.cx, id);
        assert!(w.db.io_trylock(&page));
        let waiter = spawn(&w.db, 0, move |db, cx| {
            let page = db.lock_shared(cx, id);
            db.io_lock(cx, &page);
            db.io_unlock(id);
        });
        let done = spawn(&w.db, 1, move |db, _| db.io_unlock(id));
        join([waiter, done]);
        drop(page);
    });
}

fn hooks() -> Arc<dyn WaitHooks> {
    Arc::new(SpinHooks)
}
fn context(n: u16) -> Cx {
    Cx::new(&Counters::new(2), CpuId(n), ThreadId(n.into()), hooks())
}

/// S1: no reader beside a writer.
#[test]
fn slot_lock_excludes() {
    explore(500, &[M::WriterLooksFirst], || {
        let lock = Arc::new(SlotRwLock::new(Rank::AsLock, 2, &hooks(), 0u32).expect("heap"));
        let l = Arc::clone(&lock);
        let writer = explore::spawn(move || {
            let cx = context(0);
            let mut g = l.write(&cx);
            *g = 1;
            thread::yield_now();
            *g = 2;
        });
        let reader = explore::spawn(move || {
            let cx = context(1);
            let g = lock.read(&cx);
            let before = *g;
            thread::yield_now();
            assert!(before != 1 && *g == before, "S1");
        });
        join([writer, reader]);
    });
}

/// S1 to S3: no reader beside a writer, everybody gets in.
#[test]
fn slot_lock() {
    explore(500, &[M::ReaderLeavesQuietly], || {
        let lock = Arc::new(SlotRwLock::new(Rank::AsLock, 2, &hooks(), 0u32).expect("heap"));
        let threads: Vec<_> = (0..3u16)
            .map(|n| {
                let lock = Arc::clone(&lock);
                explore::spawn(move || {
                    let cx = context(n);
                    if n == 0 {
                        let mut g = lock.write(&cx);
                        *g += 1;
                        thread::yield_now();
                        *g += 1;
                    } else {
                        let g = lock.read(&cx);
                        let before = *g;
                        assert!(before != 1, "S1");
                        drop(lock.read(&cx)); // re-entry, writer waiting or not
                        assert_eq!(*g, before, "S1");
                    }
                })
            })
            .collect();
        join(threads);
    });
}

/// A reader sleeps for something only a newcomer can do, with a writer at the gate.
#[test]
fn slot_lock_opens_for_whoever_wakes_a_sleeper() {
    explore(500, &[M::SleeperUnmarked], || {
        let lock = Arc::new(SlotRwLock::new(Rank::AsLock, 2, &hooks(), 0u32).expect("heap"));
        let table = Arc::new(crate::sync::WaitTable::new(1, &hooks()));
        let done = Arc::new(AtomicBool::new(false));
        let (l, t, d) = (Arc::clone(&lock), Arc::clone(&table), Arc::clone(&done));
        let sleeper = explore::spawn(move || {
            let cx = context(0);
            let g = l.read(&cx);
            t.wait_while(&cx, 1, || !d.load(SeqCst));
            drop(g);
        });
        let l = Arc::clone(&lock);
        let waker = explore::spawn(move || {
            let cx = context(1);
            let g = l.read(&cx);
            done.store(true, SeqCst);
            table.wake_all(1);
            drop(g);
        });
        let writer = explore::spawn(move || *lock.write(&context(1)) += 1);
        join([sleeper, waker, writer]);
    });
}

/// H2: a page that stays is found although another is taken from the head of its chain and filed on the next.
#[test]
fn lookup_carried_onto_another_chain() {
    explore(500, &[M::MissBelieved], || {
        let w = world(2);
        w.make(name(V, 0));
        w.make(name(V, 16)); // the bucket of the first, and in front of it
        let mover = spawn(&w.db, 0, |db, cx| {
            let page = db.lookup_excl(cx, name(V, 16)).expect("it was there all the time");
            db.destroy(cx, page);
            db.create(cx, name(V, 1), 0, Reserve::Push).expect("that frame").end_io();
        });
        let reader = spawn(&w.db, 1, |db, cx| {
            assert!(db.lookup_shared(cx, name(V, 0)).is_some(), "H2: it was there all the time");
        });
        join([mover, reader]);
        assert_eq!(w.verify().named, 2);
    });
}

/// H1 to H4 and L3: a page that stays is found while its neighbours are destroyed and made again under other names; frames never have two owners.
#[test]
fn lookups_among_moving_names() {
    explore(500, &[], || {
        let w = world(3);
        w.make(name(V, 0));
        let mover = |n: u32| {
            spawn(&w.db, n, move |db, cx| {
                for i in 1..3 {
                    if let Ok(page) = db.create(cx, name(V, i), 0, Reserve::Push) {
                        page.end_io();
                        db.destroy(cx, page);
                    }
                }
            })
        };
        let reader = spawn(&w.db, 1, |db, cx| {
            for _ in 0..2 {
                let page = db.lookup_shared(cx, name(V, 0)).expect("H2: it was there all the time");
                assert_eq!(page.identity(), Some(name(V, 0)), "L3");
            }
        });
        join([mover(0), reader, mover(1)]);
        let census = w.verify();
        assert_eq!((census.named, census.free), (1, 2));
    });
}

/// H3: two threads make the page of one name at once; one of them is told that it exists.
#[test]
fn one_name_one_page() {
    explore(500, &[M::InsertBlind], || {
        let w = world(4);
        let maker = |n: u32| {
            spawn(&w.db, n, move |db, cx| match db.create(cx, name(V, 0), 0, Reserve::Push) {
                Ok(page) => page.end_io(),
                Err(e) => assert_eq!(e, crate::PageError::Exists(name(V, 0))),
            })
        };
        join([maker(0), maker(1)]);
        let census = w.verify();
        assert_eq!((census.named, census.free), (1, 3), "H3");
    });
}

/// N3: a number is given back while somebody names pages by it: it has pages and stays, or it is gone and so are they.
#[test]
fn a_number_given_back_names_no_page() {
    explore(500, &[M::JoinedBlind], || {
        let w = world(4);
        let one = spawn(&w.db, 0, |db, cx| match db.create(cx, name(V, 0), 0, Reserve::Push) {
            Ok(page) => page.end_io(),
            Err(e) => assert_eq!(e, crate::PageError::NoVnode { vnode: V }),
        });
        let given_back = Arc::new(AtomicBool::new(false));
        let said = Arc::clone(&given_back);
        let retire = spawn(&w.db, 1, move |db, cx| {
            said.store(db.vnodes().retire(cx, V), SeqCst);
        });
        join([one, retire]);
        let named = if given_back.load(SeqCst) { 0 } else { 1 };
        assert_eq!(w.db.vnodes().ids().count(), named);
        let census = w.verify();
        assert_eq!((census.named, census.free), (named as u64, 4 - named as u64), "N3");
    });
}

/// A cached page is wanted by name, as a frame, and by an invalidation, all at once.
#[test]
fn a_cached_page_has_one_fate() {
    explore(1000, &[M::HitBelieved], || {
        let w = world(1);
        w.make(name(V, 0));
        w.free(name(V, 0), false);
        let by_name = spawn(&w.db, 0, |db, cx| {
            if let Some(page) = db.lookup_shared(cx, name(V, 0)) {
                assert!(!page.page().is_free());
                assert_eq!(page.identity(), Some(name(V, 0)));
            }
        });
        let as_frame = spawn(&w.db, 1, |db, cx| {
            if let Ok(page) = db.alloc(cx, 0, Reserve::Push) {
                assert!(page.identity().is_none());
                db.free(cx, page, false);
            }
        });
        let gone = spawn(&w.db, 0, |db, cx| {
            if let Some(page) = db.lookup_excl_cached(cx, name(V, 0)) {
                db.destroy(cx, page);
            }
        });
        join([by_name, as_frame, gone]);
        let census = w.verify();
        assert_eq!((census.unnamed, census.total()), (0, 1));
    });
}

/// Q1, Q2: claims of two holders are charged exactly.
#[test]
fn claims() {
    explore(500, &[M::ClaimInTwoSteps], || {
        let w = world(8);
        let id = w.make(name(V, 0));
        let claimer = |n, claim| {
            spawn(&w.db, n, move |db, cx| {
                let page = db.lock_shared(cx, id);
                if let Ok(era) = db.claim(&page, claim) {
                    let _ = db.move_claim(&page, Claim::Cow, era);
                    db.unclaim(&page, Claim::Cow, era);
                }
            })
        };
        join([claimer(0, Claim::Lck), claimer(1, Claim::Lck), claimer(0, Claim::Cow)]);
        let page = w.db.lock_excl(&w.cx, id);
        let left = u64::from(page.page().lckcnt() != 0) + u64::from(page.page().cowcnt());
        assert_eq!(w.db.free_mem().availrmem(), 8 - left, "Q2");
    });
}

/// F1: frames go from a magazine to the thread that takes them or to the lists, while it is filled, emptied, and filled again.
#[test]
fn magazine_refill_against_drain() {
    explore(150, &[M::DrainLetsGo], || {
        let thresholds = Some(crate::Thresholds::from_lotsfree(8));
        let config = PageDbConfig { cpus: 1, thresholds, ..PageDbConfig::default() };
        let w = World::with(256, &config);
        drop_frame(&w.db, &w.cx); // fills the magazine of CPU 0
        assert!(w.db.free_list().in_magazines() > 1);
        let user = spawn(&w.db, 0, |db, cx| {
            drop_frame(db, cx);
            drop_frame(db, cx);
        });
        let drain = spawn(&w.db, 1, |db, cx| db.drain_magazines(cx));
        join([user, drain]);
        assert_eq!((w.verify().free, w.db.freemem()), (256, 256), "F1");
    });
}

/// F1: a frame goes to the list while another thread takes just this one from there: as many are free as there are.
#[test]
fn a_free_frame_is_counted_before_it_is_taken() {
    explore(300, &[M::FreeCountedLate], || {
        let w = world(1);
        let page = w.db.alloc(&w.cx, 0, Reserve::Push).expect("the frame").leak();
        let pfn = w.db.pfn(page);
        let frees = spawn(&w.db, 0, move |db, cx| db.free(cx, db.adopt_excl(cx, page), false));
        let takes = spawn(&w.db, 1, move |db, cx| {
            let _ = db.retire(cx, pfn);
            assert!(db.freemem() <= 1, "F1: {} frames are free", db.freemem());
        });
        join([frees, takes]);
        assert_eq!((w.db.retired_pages(), w.db.freemem()), (1, 0));
        w.verify();
    });
}

/// T1, T2: of two that want a frame retired one is told that it is asked for already, and it counts once.
#[test]
fn one_frame_is_retired_once() {
    explore(40, &[M::MarkedBlindly], || {
        // So many that two may be retired; else the limit keeps the second request off.
        let w = world(2000);
        let mut pfns = w.db.pages().ids().map(|id| w.db.pfn(id));
        let [pfn, other] = [(); 2].map(|()| pfns.next().expect("a frame"));
        let already = Arc::new(AtomicU32::new(0));
        let threads = [0, 1].map(|n| {
            let already = Arc::clone(&already);
            spawn(&w.db, n, move |db, cx| match db.retire(cx, pfn) {
                Ok(()) => {}
                Err(e) => {
                    assert_eq!(e, RetireError::Already(pfn));
                    already.fetch_add(1, SeqCst);
                }
            })
        });
        join(threads);
        assert_eq!((already.load(SeqCst), w.db.retire_check(pfn)), (1, Ok(())));
        w.db.retire(&w.cx, other).expect("the limit is two");
        assert_eq!((w.db.retired_pages(), w.db.freemem()), (2, 1998), "T2");
        assert_eq!(w.db.free_mem().availrmem(), 1998);
    });
}

fn drop_frame(db: &PageDb, cx: &Cx) {
    let page = db.alloc(cx, 0, Reserve::Normal).expect("plenty");
    db.free(cx, page, false);
}

/// A thread that sleeps for memory is woken by whoever frees, and both hands run beside it.
#[test]
fn memory_comes_to_the_sleeper() {
    explore(500, &[M::WaitAnnouncedLate], || {
        let w = world(2);
        for i in 0..2 {
            w.make(name(V, i));
        }
        let sleeper = spawn(&w.db, 0, |db, cx| {
            let need = db.free_mem().need(1);
            assert!(db.sleep_for_memory(cx, 1, || false));
            drop(need);
        });
        let p = Arc::new(Pageout::new(&w.db, PageoutConfig::default()));
        let scanner = spawn(&w.db, 1, move |db, cx| while p.step(cx, db, 1).freed == 0 {});
        let user = spawn(&w.db, 0, |db, cx| {
            if let Some(page) = db.lookup_shared(cx, name(V, 0)) {
                page.page().set_ref_mod(RefMod::REF);
            }
        });
        join([sleeper, scanner, user]);
        w.verify();
    });
}

/// A world whose frames may wait in magazines or not, and `N` of its frames, held.
fn magazines<const N: usize>(stock: bool) -> (World, [PageId; N]) {
    let thresholds = Some(crate::Thresholds::from_lotsfree(8));
    let w = World::with(256, &PageDbConfig { cpus: 2, thresholds, ..PageDbConfig::default() });
    let held = [(); N].map(|()| w.db.alloc(&w.cx, 0, Reserve::Normal).expect("plenty").leak());
    if !stock {
        w.db.drain_magazines(&w.cx);
    }
    assert_eq!(w.db.free_list().stocks(), stock);
    (w, held)
}

/// Sleeps until all frames of [`magazines`] are free.
fn sleeper(w: &World) -> thread::JoinHandle<()> {
    spawn(&w.db, 0, |db, cx| {
        let all = db.free_mem().total() - db.free_mem().normal_reserve();
        let need = db.free_mem().need(all);
        db.drain_magazines(cx);
        assert!(db.sleep_for_memory(cx, all, || false));
        drop(need);
    })
}

fn freer(w: &World, n: u32, id: PageId) -> thread::JoinHandle<()> {
    spawn(&w.db, n, move |db, cx| db.free(cx, db.adopt_excl(cx, id), false))
}

/// F3: a frame is freed into a magazine while a thread falls asleep for it.
#[test]
fn a_free_into_a_magazine_reaches_the_sleeper() {
    explore(300, &[M::StockBelieved], || {
        let (w, [id]) = magazines(true);
        join([sleeper(&w), freer(&w, 1, id)]);
        assert_eq!(w.verify().free, 256);
    });
}

/// F3: a free finds memory ample and lets the next one wait in a magazine, while a thread falls asleep for both.
#[test]
fn magazines_filled_beside_a_sleeper() {
    explore(500, &[M::StockedBesideAWaiter], || {
        let (w, [one, two]) = magazines(false);
        join([sleeper(&w), freer(&w, 0, one), freer(&w, 1, two)]);
        assert_eq!(w.verify().free, 256);
    });
}

/// A page of one byte, lent once.
fn lent(w: &World) -> PageId {
    let id = w.make(name(V, 0));
    let page = w.db.lock_excl(&w.cx, id);
    w.db.mem().write(page.pfn(), 0, &[7]);
    w.db.lend(&w.cx, &page).expect("plenty of memory");
    drop(page);
    id
}

/// The owner's page as one that may be stored to.
fn broken<'a>(db: &'a PageDb, cx: &'a Cx) -> SharedPage<'a> {
    let page = db.lookup_shared(cx, name(V, 0)).expect("it is the owner's");
    let page = db.break_loan(cx, page, 0).expect("a frame").expect("nobody takes the name");
    assert!(!page.page().is_lent(), "E1");
    page
}

/// E4: the owner of a lent page ends while the last loan does: one of the two frees the frame.
#[test]
fn destroy_against_the_last_unlend() {
    explore(300, &[M::DisownedByALook], || {
        let w = world(3);
        let id = lent(&w);
        let owner = spawn(&w.db, 0, |db, cx| {
            let page = db.lookup_excl(cx, name(V, 0)).expect("nobody else takes the name");
            db.destroy(cx, page);
        });
        let borrower = spawn(&w.db, 1, move |db, cx| db.unlend(cx, id));
        join([owner, borrower]);
        assert_eq!(w.verify().free, 3, "E4: the frame is somebody's");
        assert_eq!((w.db.lent_pages(), w.db.free_mem().availrmem()), (0, 3), "E2");
    });
}

/// E4: a store breaks the loan while it ends: the owner has the bytes under the name, in the page or in a copy, and no frame is lost.
#[test]
fn break_loan_against_the_last_unlend() {
    explore(300, &[M::DisownedByALook], || {
        let w = world(3);
        let id = lent(&w);
        let owner = spawn(&w.db, 0, |db, cx| {
            let page = broken(db, cx);
            let mut byte = [0];
            db.mem().read(page.pfn(), 0, &mut byte);
            assert_eq!(byte, [7]);
        });
        let borrower = spawn(&w.db, 1, move |db, cx| {
            let mut byte = [0];
            db.mem().read(db.pfn(id), 0, &mut byte);
            assert_eq!(byte, [7], "E2: lent, and somebody else's");
            db.unlend(cx, id);
        });
        join([owner, borrower]);
        let census = w.verify();
        // A page whose loan has ended goes to the cache list if nobody holds it.
        assert_eq!((census.named + census.cached, census.free), (1, 2), "E4: a frame is lost");
        assert_eq!((w.db.lent_pages(), w.db.free_mem().availrmem()), (0, 3), "E2");
    });
}

/// E3: whoever looks for the page while its loan is broken finds the lent page or the copy.
#[test]
fn break_loan_against_lookup() {
    explore(300, &[M::NameMovedInTwoSteps], || {
        let w = world(3);
        let id = lent(&w);
        let owner = spawn(&w.db, 0, |db, cx| {
            drop(broken(db, cx));
        });
        let reader = spawn(&w.db, 1, |db, cx| {
            let page = db.lookup_shared(cx, name(V, 0)).expect("E3: it was there all the time");
            let mut byte = [0];
            db.mem().read(page.pfn(), 0, &mut byte);
            assert_eq!((page.identity(), byte), (Some(name(V, 0)), [7]));
        });
        join([owner, reader]);
        w.db.unlend(&w.cx, id);
        let census = w.verify();
        assert_eq!((census.named, census.free), (1, 2), "E4: a frame is lost");
    });
}
