//! The races of the whole library, explored; see [`page_db::sync::explore`] for how.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p seg-drivers schedules --target-dir target/shuttle`.
//!
//! ```text
//!   thread, CPU 0      thread, CPU 1      thread, CPU 2
//!        │ load, store: through what the CPU remembers, or walked, or a fault
//!        ▼                  ▼                  ▼
//!   AddrSpace ─▶ seg_vn ─▶ anon maps ─▶ swapfs ─▶ PageDb ◀─ page-out
//!        └──▶ HatX86, real tables ──▶ HostMmu
//! ```
//!
//! Bytes are what a scenario looks at first: a process must load what it stored and nobody else's. Then every layer is verified, the processes exit, and
//! nothing may be left.

mod debts;
mod file;
mod pins;
mod world;

use crate::anon::array::CHUNK;
use crate::seg_vn::{LentAnons, SegVnArgs};
use addr_space::{Advice, AsError, FaultError, Inherit, SegKind, SyncFlags, UnloadFlags};
use alloc::sync::Arc;
use file::Zeros;
use page_db::pageout::Hand;
use page_db::sync::Mutation as M;
use page_db::sync::explore::{explore, join};
use page_db::{CpuId, Cx, LockedPage, PAGE_SIZE, Prot, PutFlags, RefMod};
use swapfs::MemDevice;
use world::{LAST, World, page, pages};

/// Two threads fault on one page that neither has touched: one zeroed page comes of it, and both bytes are in it.
#[test]
fn fault_against_fault() {
    explore(100, &[M::BusySlotTaken], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 1);
        let threads = [0u16, 1].map(|n| {
            let p = p.clone();
            w.spawn(n, move |w, cx| {
                w.run(cx, &p);
                w.store(cx, &p, u64::from(n), 10 + n as u8).expect("mapped");
                assert_eq!(w.load(cx, &p, u64::from(n)), Ok(10 + n as u8));
            })
        });
        join(threads);
        assert_eq!((w.peek(&cx, &p, 0), w.peek(&cx, &p, 1), w.peek(&cx, &p, LAST)), (10, 11, 0));
        assert_eq!((p.hat().resident(), w.swap.live()), (1, 1));
        w.finish(&cx, &[&p]);
    });
}

/// A parent's page is unmapped while one thread of it loads and the child, now the only owner, stores in place: the parent's thread sees its own
/// byte or nothing.
#[test]
fn fault_against_unmap() {
    explore(100, &[M::UnloadedBeforeLocked], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 2);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        let child = w.fork(&cx, &p, 2);
        assert_eq!(w.load(&cx, &p, 0), Ok(7));
        let user = {
            let p = p.clone();
            w.spawn(0, move |w, cx| {
                for _ in 0..2 {
                    match w.load(cx, &p, 0) {
                        Ok(v) => assert_eq!(v, 7, "law 6: the child's byte"),
                        Err(e) => assert!(matches!(e, FaultError::NoMap { .. }), "{e}"),
                    }
                }
            })
        };
        let unmap = {
            let p = p.clone();
            w.spawn(1, move |_, cx| p.unmap(cx, page(0)).expect("no driver refuses"))
        };
        let stores = {
            let child = child.clone();
            w.spawn(2, move |w, cx| {
                w.run(cx, &child);
                w.store(cx, &child, 0, 9).expect("mapped");
            })
        };
        join([user, unmap, stores]);
        assert_eq!(w.peek(&cx, &child, 0), 9);
        w.finish(&cx, &[&p, &child]);
    });
}

/// A parent's page is unmapped while the child stores, in place if it is the only owner by then: the parent's processor never sees the child's byte.
#[test]
fn store_against_unmap() {
    explore(100, &[M::TranslationsAfterContents], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 2);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        let child = w.fork(&cx, &p, 2);
        assert_eq!(w.load(&cx, &p, 0), Ok(7));
        let unmap = {
            let p = p.clone();
            w.spawn(1, move |_, cx| p.unmap(cx, page(0)).expect("no driver refuses"))
        };
        let stores = {
            let child = child.clone();
            w.spawn(2, move |w, cx| {
                w.run(cx, &child);
                w.store(cx, &child, 0, 9).expect("mapped");
                // CPU 0 runs the parent.
                let seen = w.glance(cx, CpuId(0), 0);
                assert!(matches!(seen, None | Some(7)), "law 6: the child's byte");
            })
        };
        join([unmap, stores]);
        assert_eq!(w.peek(&cx, &child, 0), 9);
        w.finish(&cx, &[&p, &child]);
    });
}

/// The upper half of what was one segment is unmapped while memory is mapped beside the lower half, over the same slots: the new pages are zeros, and
/// what is stored there stays. The slots lie in two chunks, so that they are not emptied at once.
#[test]
fn map_beside_what_is_leaving() {
    const LAST_PAGE: u64 = CHUNK;
    explore(100, &[M::LeavingOverEarly], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, LAST_PAGE + 1);
        w.run(&cx, &p);
        for n in [LAST_PAGE - 1, LAST_PAGE] {
            w.store(&cx, &p, n * PAGE_SIZE, 7).expect("mapped");
        }
        p.unmap(&cx, page(LAST_PAGE - 2)).expect("no driver refuses");
        let unmap = {
            let p = p.clone();
            w.spawn(1, move |_, cx| p.unmap(cx, pages(LAST_PAGE - 1, 2)).expect("none refuses"))
        };
        let map = {
            let p = p.clone();
            w.spawn(0, move |w, cx| {
                let fresh = SegVnArgs::zfod(&w.driver, Prot::RW);
                match p.map(cx, pages(LAST_PAGE - 2, 3), &fresh) {
                    Ok(()) => {
                        let at = LAST_PAGE * PAGE_SIZE;
                        assert_eq!(w.load(cx, &p, at), Ok(0), "M3: an old page");
                        w.store(cx, &p, at, 9).expect("mapped");
                    }
                    Err(e) => assert!(matches!(e, AsError::Overlap { .. }), "{e}"),
                }
            })
        };
        join([unmap, map]);
        let there = w.load(&cx, &p, LAST_PAGE * PAGE_SIZE);
        assert!(matches!(there, Ok(9) | Err(FaultError::NoMap { .. })), "M3: {there:?}");
        w.finish(&cx, &[&p]);
    });
}

/// The same where the segment lives on: its upper part is emptied when the lock is free, and by then another thread may map and store there.
#[test]
fn map_where_a_part_is_leaving() {
    explore(100, &[M::LeavingOverEarly], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, CHUNK + 1);
        w.run(&cx, &p);
        for n in [0, CHUNK - 1, CHUNK] {
            w.store(&cx, &p, n * PAGE_SIZE, 7).expect("mapped");
        }
        let upper = pages(CHUNK - 1, 2);
        let unmap = {
            let p = p.clone();
            w.spawn(1, move |_, cx| p.unmap(cx, upper).expect("no driver refuses"))
        };
        let map = {
            let p = p.clone();
            w.spawn(0, move |w, cx| match p.map(cx, upper, &SegVnArgs::zfod(&w.driver, Prot::RW)) {
                Ok(()) => {
                    let at = CHUNK * PAGE_SIZE;
                    assert_eq!(w.load(cx, &p, at), Ok(0), "M3: an old page");
                    w.store(cx, &p, at, 9).expect("mapped");
                }
                Err(e) => assert!(matches!(e, AsError::Overlap { .. }), "{e}"),
            })
        };
        join([unmap, map]);
        let there = w.load(&cx, &p, CHUNK * PAGE_SIZE);
        assert!(matches!(there, Ok(9) | Err(FaultError::NoMap { .. })), "M3: {there:?}");
        assert_eq!(w.load(&cx, &p, 0), Ok(7));
        w.finish(&cx, &[&p]);
    });
}

/// Of two processes that share memory one unmaps a part of it, of which the other has a half, and ends at once, by another thread; the other loads from its half:
/// it finds what it had, and of the rest nothing is left.
#[test]
fn part_leaves_against_exit() {
    explore(150, &[M::RefsForgottenEarly], || {
        let (w, cx) = World::new(64);
        let p = w.proc(&cx, 1);
        let shared = SegVnArgs { kind: SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
        p.map(&cx, pages(0, 4), &shared).expect("free");
        w.run(&cx, &p);
        for n in 0..4 {
            w.store(&cx, &p, n * PAGE_SIZE, 7).expect("mapped");
        }
        let sharer = w.fork(&cx, &p, 2);
        sharer.unmap(&cx, pages(2, 2)).expect("no driver refuses");
        let unmap = {
            let p = p.clone();
            w.spawn(0, move |_, cx| p.unmap(cx, pages(1, 3)).expect("no driver refuses"))
        };
        let exit = {
            let p = p.clone();
            w.spawn(1, move |_, cx| p.free(cx))
        };
        let loads = {
            let sharer = sharer.clone();
            w.spawn(2, move |w, cx| {
                w.run(cx, &sharer);
                assert_eq!(w.load(cx, &sharer, PAGE_SIZE), Ok(7), "M1: a slot that is covered");
            })
        };
        join([unmap, exit, loads]);
        assert_eq!([0, 1].map(|n| w.peek(&cx, &sharer, n * PAGE_SIZE)), [7, 7]);
        assert_eq!(w.swap.live(), 2, "nobody covers the others");
        w.finish(&cx, &[&p, &sharer]);
    });
}

/// A process forks while one of its threads stores: what the child has once seen stays, and the parent's last store is the parent's.
#[test]
fn fault_against_dup() {
    explore(100, &[M::ForkForgetsToFlush], || store_while_forking(World::new(48)));
}

/// The same where the fork is lazy: both sides go on with one map until one needs its own.
#[test]
fn fault_against_lazy_dup() {
    explore(100, &[M::ForkForgetsToFlush], || store_while_forking(World::lazy(48)));
}

fn store_while_forking((w, cx): (World, Cx)) {
    let p = w.zfod(&cx, 1, 1);
    w.run(&cx, &p);
    w.store(&cx, &p, 0, 7).expect("mapped");
    let child = w.proc(&cx, 2);
    let user = {
        let p = p.clone();
        w.spawn(0, move |w, cx| {
            for v in [8, 9] {
                w.store(cx, &p, 0, v).expect("mapped");
            }
        })
    };
    let fork = {
        let (p, child) = (p.clone(), child.clone());
        w.spawn(1, move |w, cx| {
            p.dup(cx, &child).expect("a child");
            w.run(cx, &child);
            let first = w.load(cx, &child, 0).expect("mapped");
            assert!((7..=9).contains(&first));
            assert_eq!(w.load(cx, &child, 0), Ok(first), "law 6: the parent's byte");
        })
    };
    join([user, fork]);
    assert_eq!(w.peek(&cx, &p, 0), 9);
    w.finish(&cx, &[&p, &child]);
}

/// The right to store is taken away while another thread stores: afterwards nothing is stored.
#[test]
fn fault_against_set_prot() {
    explore(100, &[M::RightsPublishedLate, M::StampIgnored], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        p.hat().unload(&cx, page(0), UnloadFlags::empty()); // so that the first store faults
        let user = {
            let p = p.clone();
            w.spawn(0, move |w, cx| {
                for v in [8, 9] {
                    let done = w.store(cx, &p, 0, v);
                    assert!(matches!(done, Ok(()) | Err(FaultError::Prot { .. })), "{done:?}");
                }
            })
        };
        let change = {
            let p = p.clone();
            w.spawn(1, move |w, cx| {
                p.set_prot(cx, page(0), Prot::READ).expect("may be taken");
                w.run(cx, &p);
                let left = w.load(cx, &p, 0);
                let may = p
                    .hat()
                    .probe(cx, page(0).start())
                    .is_some_and(|t| t.prot.contains(Prot::WRITE));
                assert!(!may, "C1: a translation kept the right to store");
                assert_eq!(w.load(cx, &p, 0), left, "T1: stored after the right was taken");
            })
        };
        join([user, change]);
        w.finish(&cx, &[&p]);
    });
}

/// Parent and child store to one shared page at once, at different places: each copy has its owner's byte and else what was there before.
#[test]
fn copy_on_write_from_both_sides() {
    explore(100, &[M::ReferenceDroppedEarly], || store_on_both_sides(World::new(48)));
}

/// The same after a lazy fork: one side copies the map, or both do, or the last takes it over.
#[test]
fn own_maps_from_both_sides() {
    explore(150, &[M::MapLeftEarly], || store_on_both_sides(World::lazy(48)));
}

fn store_on_both_sides((w, cx): (World, Cx)) {
    let p = w.zfod(&cx, 1, 1);
    w.run(&cx, &p);
    w.store(&cx, &p, 0, 7).expect("mapped");
    w.store(&cx, &p, LAST, 7).expect("mapped");
    let child = w.fork(&cx, &p, 2);
    let threads = [(0u16, &p, 0, 8), (1, &child, LAST, 9)].map(|(n, who, at, v)| {
        let who = who.clone();
        w.spawn(n, move |w, cx| {
            w.run(cx, &who);
            w.store(cx, &who, at, v).expect("mapped");
        })
    });
    join(threads);
    assert_eq!((w.peek(&cx, &p, 0), w.peek(&cx, &p, LAST)), (8, 7), "law 6: the parent's");
    assert_eq!((w.peek(&cx, &child, 0), w.peek(&cx, &child, LAST)), (7, 9), "law 6: the child's");
    w.finish(&cx, &[&p, &child]);
}

/// A clean page is evicted while its owner stores to it: the store is not lost.
#[test]
fn page_out_against_fault() {
    explore(100, &[M::CleanBelieved], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        w.pageout.reclaim_all(&cx, &w.db);
        assert_eq!(w.load(&cx, &p, 0), Ok(7), "from the cache list: clean, and mapped for storing");
        let n = w.swap.live_numbers().next().expect("one anon");
        let found = w.db.exists(&cx, w.swap.identity(n)).expect("its page");
        w.pageout.check_page(&cx, &w.db, found, Hand::Front);
        let user = {
            let p = p.clone();
            w.spawn(0, move |w, cx| w.store(cx, &p, 0, 8).expect("mapped"))
        };
        let pager = w.spawn(1, move |w, cx| {
            w.pageout.check_page(cx, &w.db, found, Hand::Back);
        });
        join([user, pager]);
        // Whatever is clean now must be what is stored: its frame goes, and it is read again.
        w.put_out(&cx);
        assert_eq!(w.peek(&cx, &p, 0), 8, "O3: a store was lost");
        w.finish(&cx, &[&p]);
    });
}

/// A process ends while its dirty pages are being pushed: nothing of it is left.
#[test]
fn page_out_against_exit() {
    explore(100, &[M::PushNotAwaited], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 2);
        w.run(&cx, &p);
        for i in [0, 4096] {
            w.store(&cx, &p, i, 7).expect("mapped");
        }
        w.mmu_idle(&cx);
        let exit = {
            let p = p.clone();
            w.spawn(0, move |_, cx| p.free(cx))
        };
        let pager = w.spawn(1, |w, cx| {
            w.pageout.reclaim_all(cx, &w.db);
        });
        join([exit, pager]);
        w.finish(&cx, &[&p]);
    });
}

/// An area of swap is removed while the process whose page is stored there ends: its number goes back without a page.
#[test]
fn removal_of_swap_against_exit() {
    explore(300, &[M::RemovalUnseen], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        w.put_out(&cx);
        let exit = {
            let p = p.clone();
            w.spawn(0, move |_, cx| p.free(cx))
        };
        let removal = w.spawn(1, |w, cx| w.swap.remove(cx, w.area).expect("memory for all"));
        join([exit, removal]);
        w.finish(&cx, &[&p]);
    });
}

/// The same while the process waits for its second page, so that the first is in memory, and on its way to another area, before it ends the name.
#[test]
fn removal_of_swap_and_page_out_against_exit() {
    explore(300, &[M::SlotBeforePage], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 2);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        w.put_out(&cx);
        w.store(&cx, &p, PAGE_SIZE, 8).expect("mapped");
        w.mmu_idle(&cx);
        w.swap.add(&cx, Arc::new(MemDevice::new("swap1", 1)), 0, 1, 0).expect("another area");
        let [first, second] = [0, 1].map(|i| w.anon_at(&cx, i));
        let held = w.db.lookup_shared(&cx, w.swap.identity(second)).expect("in memory").leak();
        let exit = {
            let p = p.clone();
            w.spawn(0, move |_, cx| p.free(cx))
        };
        let removal = w.spawn(1, move |w, cx| {
            w.swap.remove(cx, w.area).expect("memory for all");
            drop(w.db.adopt_shared(cx, held));
            let push = PutFlags::ASYNC | PutFlags::FREE;
            let _ = w.swap.put_page(cx, first, push).and(w.swap.flush_pushes(cx)); // no space for a name that has ended
        });
        join([exit, removal]);
        w.finish(&cx, &[&p]);
    });
}

/// A page that is stored, and modified again, gives its slot up while it is written out to it: no other is to be had. (W1: the write looks.)
#[test]
fn slot_given_up_against_write_out() {
    explore(200, &[M::SlotFreedByALook], || {
        let (w, cx) = World::swapping(40, 1);
        let p = w.zfod(&cx, 1, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 6).expect("mapped");
        p.sync(&cx, page(0), SyncFlags::SYNC).expect("there is a slot");
        w.store(&cx, &p, 0, 7).expect("mapped");
        let n = w.anon(&cx);
        let gives_up = w.spawn(0, move |w, cx| {
            let page = w.db.lookup_shared(cx, w.swap.identity(n)).expect("nobody frees it");
            if w.swap.free_slot(cx, n, &page) {
                page.page().set_ref_mod(RefMod::MOD);
            }
        });
        let writes = w.spawn(1, move |w, cx| {
            w.swap.put_page(cx, n, PutFlags::empty()).expect("there is a slot");
        });
        join([gives_up, writes]);
        assert_eq!(w.peek(&cx, &p, 0), 7);
        w.finish(&cx, &[&p]);
    });
}

/// Two processes share private memory for good, whose page a third has as a copy. One stores while the other loads: once the store is made, all see it
/// but the third.
#[test]
fn joint_store_against_load() {
    explore(100, &[M::OthersKeepTheOld, M::SlotReadEarly], || {
        let (w, cx) = World::new(56);
        let p = w.zfod(&cx, 1, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        let copy = w.fork(&cx, &p, 2);
        p.inherit(&cx, page(0), Inherit::Share).expect("private memory may be shared");
        let sharer = w.fork(&cx, &p, 3);
        let stores = {
            let p = p.clone();
            w.spawn(0, move |w, cx| w.store(cx, &p, 0, 8).expect("mapped"))
        };
        let loads = {
            let sharer = sharer.clone();
            w.spawn(1, move |w, cx| {
                w.run(cx, &sharer);
                let [first, second] = [(), ()].map(|()| w.load(cx, &sharer, 0).expect("mapped"));
                assert!(matches!((first, second), (7, 7) | (7, 8) | (8, 8)), "{first}, {second}");
            })
        };
        join([stores, loads]);
        assert_eq!((w.peek(&cx, &p, 0), w.peek(&cx, &sharer, 0)), (8, 8), "J1: an old page");
        assert_eq!(w.peek(&cx, &copy, 0), 7, "law 6: the sharers' byte");
        w.finish(&cx, &[&p, &copy, &sharer]);
    });
}

/// Of two processes that share private memory for good one ends while the other forks by sharing: parent and child go on sharing it.
#[test]
fn sharer_exits_against_fork_by_sharing() {
    explore(150, &[M::JointBeforeCounted], || {
        let (w, cx) = World::new(64);
        let p = w.zfod(&cx, 1, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        p.inherit(&cx, page(0), Inherit::Share).expect("private memory may be shared");
        let sharer = w.fork(&cx, &p, 2);
        let child = w.proc(&cx, 3);
        let exits = {
            let sharer = sharer.clone();
            w.spawn(1, move |_, cx| sharer.free(cx))
        };
        let forks = {
            let (p, child) = (p.clone(), child.clone());
            w.spawn(0, move |_, cx| p.dup(cx, &child).expect("a child"))
        };
        join([exits, forks]);
        let maps = w.driver.layer().maps();
        assert!(maps.len() == 1 && maps[0].is_joint(), "J1: two share it");
        p.inherit(&cx, page(0), Inherit::Copy).expect("mapped");
        let copy = w.fork(&cx, &p, 4);
        assert_eq!(w.peek(&cx, &child, 0), 7);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 8).expect("mapped");
        assert_eq!((w.peek(&cx, &child, 0), w.peek(&cx, &copy, 0)), (8, 7), "J1: an old page");
        drop(maps);
        w.finish(&cx, &[&p, &child, &copy]);
    });
}

/// Two processes that share a map and touched different parts of it end at once: no chunk is left of it, whoever of them is last.
#[test]
fn sharers_exit_at_once() {
    const PAGES: u64 = 2 * CHUNK;
    explore(150, &[M::ChunkNotLookedForAgain], || {
        let (w, cx) = World::new(64);
        let p = w.proc(&cx, 1);
        let shared = SegVnArgs { kind: SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
        p.map(&cx, pages(0, PAGES), &shared).expect("free");
        w.run(&cx, &p);
        for n in [0, PAGES - 1] {
            w.store(&cx, &p, n * PAGE_SIZE, 7).expect("mapped");
        }
        let child = w.fork(&cx, &p, 2);
        p.unmap(&cx, pages(0, CHUNK)).expect("no driver refuses");
        child.unmap(&cx, pages(CHUNK, CHUNK)).expect("no driver refuses");
        let exits = [(0, &p), (1, &child)].map(|(n, p)| {
            let p = p.clone();
            w.spawn(n, move |_, cx| p.free(cx))
        });
        join(exits);
        w.finish(&cx, &[&p, &child]);
    });
}

/// A page comes back from swap while its contents are given up and another page is touched: the load sees the old byte or zeros, and the number goes
/// to the other page only when nothing of the old one is left.
#[test]
fn swap_in_against_discard() {
    explore(150, &[M::NumberBeforePage], || {
        let (w, cx) = World::new(40);
        let p = w.zfod(&cx, 1, 2);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        w.put_out(&cx);
        let discard = {
            let p = p.clone();
            w.spawn(0, move |_, cx| p.advise(cx, page(0), Advice::Discard).expect("not locked"))
        };
        let loads = {
            let p = p.clone();
            w.spawn(1, move |w, cx| {
                w.run(cx, &p);
                assert!(matches!(w.load(cx, &p, 0), Ok(7 | 0)));
            })
        };
        let touches = {
            let p = p.clone();
            // On CPU 0, too, where the number goes.
            w.spawn(3, move |w, cx| w.store(cx, &p, PAGE_SIZE, 9).expect("mapped"))
        };
        join([discard, loads, touches]);
        assert_eq!((w.peek(&cx, &p, 0), w.peek(&cx, &p, PAGE_SIZE)), (0, 9));
        w.finish(&cx, &[&p]);
    });
}

/// A file is cut while a process stores to its page through a shared mapping: afterwards the page is nowhere, and a load is refused.
#[test]
fn file_store_against_truncate() {
    explore(100, &[M::HeldPagePassedOver], || {
        let (w, cx) = World::new(40);
        let (file, p) = Zeros::mapped(&w, &cx, 2);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        let stores = {
            let p = p.clone();
            w.spawn(0, move |w, cx| {
                for v in [8, 9] {
                    let done = w.store(cx, &p, PAGE_SIZE, v);
                    assert!(matches!(done, Ok(()) | Err(FaultError::Object { .. })), "{done:?}");
                }
            })
        };
        let cut = {
            let file = file.clone();
            w.spawn(1, move |w, cx| file.cut(cx, &w.db, 1))
        };
        join([stores, cut]);
        assert_eq!(w.db.exists(&cx, file.page(1)), None, "a page behind the end");
        assert!(matches!(w.load(&cx, &p, PAGE_SIZE), Err(FaultError::Object { .. })));
        assert_eq!((w.load(&cx, &p, 0), p.hat().resident()), (Ok(7), 1));
        file.cut(&cx, &w.db, 0);
        w.finish(&cx, &[&p]);
    });
}

/// A file's page is lent to an anon that two processes have. The file is stored to while one of them locks the page in memory, which gives the anon a
/// page of its own, and the other loads: it sees the byte that was lent.
#[test]
fn borrower_against_break_and_lock() {
    explore(150, &[M::LenderBelieved, M::BorrowersKeepTheLender], || {
        let (w, cx) = World::new(56);
        let (file, p) = Zeros::mapped(&w, &cx, 1);
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        let lent = LentAnons::lend(&w.driver, &cx, &p, page(0)).expect("mapped");
        let b = w.proc(&cx, 2);
        lent.enter(&cx, &b, page(0), Prot::RW).map_err(|(e, _)| e).expect("free");
        let c = w.fork(&cx, &b, 3);
        let stores = {
            let p = p.clone();
            w.spawn(0, move |w, cx| w.store(cx, &p, 0, 8).expect("mapped"))
        };
        let locks = {
            let c = c.clone();
            w.spawn(1, move |_, cx| c.lock(cx, page(0)).expect("there is memory"))
        };
        let loads = {
            let b = b.clone();
            w.spawn(2, move |w, cx| {
                w.run(cx, &b);
                for _ in 0..2 {
                    assert_eq!(w.load(cx, &b, 0), Ok(7), "R2: the lender's byte");
                }
            })
        };
        join([stores, locks, loads]);
        assert_eq!([&p, &b, &c].map(|who| w.peek(&cx, who, 0)), [8, 7, 7]);
        c.unlock(&cx, page(0)).expect("locked");
        file.cut(&cx, &w.db, 0);
        w.finish(&cx, &[&p, &b, &c]);
    });
}
