//! The clock, hand by hand (behaviours 55 to 57).

use super::{
    Checked, Hand, NoHook, Pageout, PageoutConfig, ReclaimHook, SCAN_BATCH, SinglestepWait,
};
use crate::db::{Claim, MemoryWait, PageDb, Reserve};
use crate::free_mem::Thresholds;
use crate::testing::{TestFile, World, name};
use crate::{Counter, Cx, PageDbConfig, PageError, PageId, RefMod, Vnode, VnodeKind};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;

fn clock(w: &World) -> Pageout {
    Pageout::new(&w.db, PageoutConfig::default())
}

impl World {
    fn look(&self, p: &Pageout, id: PageId, hand: Hand) -> Checked {
        p.check_page(&self.cx, &self.db, id, hand)
    }
    fn set(&self, id: PageId, bits: RefMod) {
        self.db.page(id).set_ref_mod(bits);
    }
    /// Pages 0..n of a file, in use.
    fn file(&self, n: u64) -> (Arc<TestFile>, Vec<PageId>) {
        let file = TestFile::new(self);
        let pages = (0..n).map(|i| self.make(file.page(i))).collect();
        (file, pages)
    }
}

#[test]
fn a_page_referenced_once_dies_when_the_back_hand_finds_it_untouched() {
    // Behaviour 56.
    let w = World::new(32);
    let (_file, ids) = w.file(1);
    let p = clock(&w);
    w.hat.map(&w.cx, ids[0], 2);
    w.hat.touch(&w.cx, ids[0], RefMod::REF);
    assert_eq!(w.look(&p, ids[0], Hand::Front), Checked::Examined);
    assert!(w.db.page(ids[0]).ref_mod().is_empty(), "cleared in translation and page");
    assert_eq!(w.look(&p, ids[0], Hand::Back), Checked::Freed);
    assert!(w.db.page(ids[0]).is_free() && !w.db.page(ids[0]).is_mapped());
    assert_eq!(w.count(Counter::DFree), 1);
    assert_eq!(w.count(Counter::FsFree), 1);
    assert_eq!(w.verify().cached, 1);
}

#[test]
fn a_page_touched_between_the_hands_is_kept() {
    let w = World::new(32);
    let (_file, ids) = w.file(1);
    let p = clock(&w);
    w.hat.map(&w.cx, ids[0], 1);
    for _ in 0..3 {
        w.hat.touch(&w.cx, ids[0], RefMod::REF);
        assert_eq!(w.look(&p, ids[0], Hand::Front), Checked::Examined);
        w.hat.touch(&w.cx, ids[0], RefMod::REF);
        assert_eq!(w.look(&p, ids[0], Hand::Back), Checked::Examined);
    }
    assert!(w.db.page(ids[0]).is_mapped());
    w.verify();
}

#[test]
fn either_hand_takes_an_unreferenced_page() {
    for hand in [Hand::Front, Hand::Back] {
        let w = World::new(32);
        let (_file, ids) = w.file(1);
        assert_eq!(w.look(&clock(&w), ids[0], hand), Checked::Freed);
    }
}

#[test]
fn a_use_at_the_last_moment_saves_the_page() {
    // O3: bits that come with the unload.
    let w = World::new(32);
    let (_file, ids) = w.file(2);
    let p = clock(&w);
    for (id, late, freed) in [
        (ids[0], RefMod::REF, Checked::Examined),
        (ids[1], RefMod::MOD, Checked::Freed), // queued
    ] {
        w.hat.map(&w.cx, id, 1);
        w.hat.touch_at_unload(&w.cx, late);
        assert_eq!(w.look(&p, id, Hand::Back), freed);
        assert!(!w.db.page(id).is_free());
    }
    assert_eq!(p.state(&w.cx, &w.db).queued, 1);
    assert!(w.db.page(ids[1]).ref_mod().contains(RefMod::MOD), "not lost");
    w.verify();
}

#[test]
fn a_dirty_page_is_queued_still_mapped_and_freed_by_the_push() {
    let w = World::new(32);
    let (file, ids) = w.file(1);
    let p = clock(&w);
    w.hat.map(&w.cx, ids[0], 1);
    w.hat.touch(&w.cx, ids[0], RefMod::MOD);
    assert_eq!(w.look(&p, ids[0], Hand::Front), Checked::Freed);
    assert!(w.db.page(ids[0]).is_mapped(), "until the push");
    assert_eq!(w.look(&p, ids[0], Hand::Back), Checked::Freed);
    assert_eq!(p.state(&w.cx, &w.db).queued, 1, "queued once");
    let r = p.step(&w.cx, &w.db, 0);
    assert_eq!((r.pushed, r.freed, r.failed), (1, 1, 0));
    assert_eq!(*file.writes.lock(&w.cx), [0]);
    assert_eq!(file.flushes.load(Relaxed), 1);
    assert!(w.db.page(ids[0]).is_free());
    assert_eq!([Counter::PgOut, Counter::PgPgOut, Counter::FsPgOut].map(|c| w.count(c)), [1; 3]);
    assert_eq!(w.verify().cached, 1);
}

#[test]
fn what_is_none_of_its_business_is_skipped() {
    let w = World::new(32);
    let (file, ids) = w.file(4);
    let p = clock(&w);
    let skipped = |id| {
        for hand in [Hand::Front, Hand::Back] {
            assert_eq!(w.look(&p, id, hand), Checked::Skipped);
        }
    };
    // Claimed.
    let page = w.db.lookup_shared(&w.cx, file.page(0)).expect("there");
    w.db.claim(&page, Claim::Lck).expect("memory to spare");
    drop(page);
    skipped(ids[0]);
    // Locked, either way.
    let held = w.db.lookup_shared(&w.cx, file.page(1)).expect("there").leak();
    skipped(held);
    let held = w.db.adopt_shared(&w.cx, held).try_upgrade().expect("alone").leak();
    skipped(held);
    drop(w.db.adopt_excl(&w.cx, held));
    // Free, with and without a name.
    w.free(file.page(2), false);
    skipped(ids[2]);
    skipped(w.db.pages().ids().next_back().expect("the last frame"));
    // The kernel's: a page table, and a page of the kernel's vnode.
    let table = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    w.db.set_kernel(&table, true);
    let table = table.leak();
    skipped(table);
    let kvp = w.vnode(VnodeKind::Kernel);
    skipped(w.make(name(kvp, 0)));
    drop(w.db.adopt_excl(&w.cx, table));
}

#[test]
fn widely_shared_pages_are_left_alone_until_po_share_grows() {
    let w = World::new(32);
    let (_file, ids) = w.file(1);
    let p = clock(&w);
    w.hat.map(&w.cx, ids[0], 9);
    assert_eq!(w.look(&p, ids[0], Hand::Front), Checked::Skipped);
    assert_eq!(p.state(&w.cx, &w.db).po_share, 8);
    let r = p.reclaim(&w.cx, &w.db, 32);
    assert_eq!((r.freed, w.db.freemem()), (1, 32));
    assert_eq!(p.state(&w.cx, &w.db).po_share, 16);
    // With enough memory it falls back.
    p.run(&w.cx, &w.db);
    assert_eq!(p.state(&w.cx, &w.db).po_share, 8);
}

#[test]
fn a_push_that_fails_leaves_the_page_dirty_and_resident() {
    let w = World::new(32);
    let (file, ids) = w.file(2);
    let p = clock(&w);
    w.set(ids[0], RefMod::MOD);
    file.fail.store(true, Relaxed);
    let r = p.reclaim_all(&w.cx, &w.db);
    assert_eq!(r.freed, 1, "the clean one");
    assert!(r.failed >= 1);
    assert!(!w.db.page(ids[0]).is_free());
    assert!(w.db.page(ids[0]).ref_mod().contains(RefMod::MOD));
    assert!(!w.db.is_io_locked(ids[0]));
    w.verify();
    file.fail.store(false, Relaxed);
    assert_eq!(p.reclaim_all(&w.cx, &w.db).freed, 1);
    assert_eq!(w.db.freemem(), 32);
    w.verify();
}

#[test]
fn a_full_queue_leaves_pages_and_a_dead_vnode_leaks_nothing() {
    // Behaviour 57.
    let w = World::new(32);
    let (file, ids) = w.file(3);
    let p = Pageout::new(&w.db, PageoutConfig { queue: Some(2), ..PageoutConfig::default() });
    for id in &ids {
        w.set(*id, RefMod::MOD);
    }
    let looks = [0, 1, 2].map(|i| w.look(&p, ids[i], Hand::Front));
    assert_eq!(looks, [Checked::Freed, Checked::Freed, Checked::Examined]);
    assert_eq!(Arc::strong_count(&file), 1, "the queue holds no vnode");
    drop(file);
    let r = p.step(&w.cx, &w.db, 0);
    assert_eq!((r.pushed, r.failed, p.state(&w.cx, &w.db).queued), (0, 0, 0));
    // Nobody can write them now, so they stay.
    assert_eq!(w.look(&p, ids[0], Hand::Front), Checked::Examined);
    assert_eq!(p.reclaim_all(&w.cx, &w.db).freed, 0);
    w.verify();
}

#[test]
fn pushes_go_last_in_first_out() {
    let w = World::new(32);
    let (file, ids) = w.file(3);
    let p = clock(&w);
    for id in &ids {
        w.set(*id, RefMod::MOD);
        w.look(&p, *id, Hand::Back);
    }
    p.step(&w.cx, &w.db, 0);
    assert_eq!(*file.writes.lock(&w.cx), [2, 1, 0]);
    assert_eq!((file.puts.load(Relaxed), file.flushes.load(Relaxed)), (3, 1));
}

#[test]
fn a_page_used_during_its_push_stays() {
    let w = World::new(32);
    let (file, ids) = w.file(2);
    let p = clock(&w);
    for (id, used) in [(ids[0], RefMod::REF), (ids[1], RefMod::MOD)] {
        w.set(id, RefMod::MOD);
        w.look(&p, id, Hand::Back);
        *file.during_write.lock(&w.cx) = Some((id, used));
        assert_eq!(p.step(&w.cx, &w.db, 0).freed, 0);
        assert_eq!(w.db.page(id).ref_mod(), used, "what came during the write is kept, no more");
    }
    assert_eq!(w.count(Counter::PgRec), 2);
    w.verify();
}

#[test]
fn hands_move_together_and_stay_their_distance_apart() {
    let w = World::new(10);
    let config = PageoutConfig { handspreadpages: Some(3), ..PageoutConfig::default() };
    let p = Pageout::new(&w.db, config);
    for turns in [0, 1, 6, 25] {
        p.step(&w.cx, &w.db, turns);
        let s = p.state(&w.cx, &w.db);
        assert_eq!((s.back + 3) % 10, s.front);
    }
    // The front hand starts at 3: in 32 turns it passes frame 0 three times.
    assert_eq!(p.state(&w.cx, &w.db).front, (3 + 32) % 10);
    assert_eq!(w.count(Counter::Rev), 3);
}

#[test]
fn a_page_has_the_distance_between_the_hands_to_be_used_again() {
    // 16 frames, hands 4 apart; pages 1..=8 in frames 0..8, all referenced. Page 1 is used once more before the back hand comes.
    let w = World::new(16);
    let (_file, ids) = w.file(8);
    let config = PageoutConfig { handspreadpages: Some(4), ..PageoutConfig::default() };
    let p = Pageout::new(&w.db, config);
    for id in &ids {
        w.hat.map(&w.cx, *id, 1);
        w.hat.touch(&w.cx, *id, RefMod::REF);
    }
    // Front passes 4..8, back 0..4: those are still referenced.
    assert_eq!(p.step(&w.cx, &w.db, 4).freed, 0);
    // Back passes 4..8: cleared by the front hand four turns ago, except the one used since.
    w.hat.touch(&w.cx, ids[6], RefMod::REF);
    assert_eq!(p.step(&w.cx, &w.db, 4).freed, 3);
    assert!(!w.db.page(ids[6]).is_free());
    // Front comes round to 0..8 at turns 12..20; back follows at 16..24.
    assert_eq!(p.step(&w.cx, &w.db, 8).freed, 0);
    assert_eq!(p.step(&w.cx, &w.db, 8).freed, 4 + 1);
    assert_eq!(w.db.freemem(), 16);
    w.verify();
}

fn thresholds(lotsfree: u64) -> PageDbConfig {
    PageDbConfig {
        thresholds: Some(Thresholds::from_lotsfree(lotsfree)),
        ..PageDbConfig::default()
    }
}

#[test]
fn an_interval_scans_no_more_than_desscan_and_only_when_memory_is_short() {
    let w = World::with(64, &thresholds(32));
    let config =
        PageoutConfig { fastscan: Some(32), slowscan: Some(16), ..PageoutConfig::default() };
    let p = Pageout::new(&w.db, config);
    let (_file, _ids) = w.file(32);
    assert_eq!(w.db.freemem(), 32);
    assert_eq!(p.run(&w.cx, &w.db).turns, 0, "freemem is lotsfree");
    assert_eq!(w.count(Counter::PgRRun), 0);
    let _more = w.file(16);
    assert_eq!(p.desscan(&w.db), (16 * 16 + 32 * 16) / 32 / 4);
    let r = p.run(&w.cx, &w.db);
    assert_eq!((r.desscan, r.scanned), (6, 6));
    assert_eq!(w.count(Counter::PgRRun), 1);
    // Run after run, until lotsfree is reached and not a page more.
    for _ in 0..100 {
        p.run(&w.cx, &w.db);
    }
    assert_eq!(w.db.freemem(), 32);
    w.verify();
}

#[test]
fn scan_counts_turns_and_scanned_only_those_that_met_a_page_of_its_own() {
    let w = World::new(64);
    let (_file, _ids) = w.file(4);
    let r = clock(&w).step(&w.cx, &w.db, 64);
    assert_eq!((w.count(Counter::Scan), r.turns), (64, 64));
    assert_eq!(r.scanned, 4, "one hand meets each page first, and it goes");
}

#[test]
fn who_waits_for_memory_makes_the_hands_faster_and_the_goal_higher() {
    let w = World::with(64, &thresholds(32));
    let config =
        PageoutConfig { fastscan: Some(32), slowscan: Some(16), ..PageoutConfig::default() };
    let p = Pageout::new(&w.db, config);
    let (_file, _ids) = w.file(24);
    assert_eq!((w.db.freemem(), p.desscan(&w.db)), (40, 16 / 4));
    assert_eq!(p.run(&w.cx, &w.db).turns, 0, "enough is free");
    let needed = w.db.free_mem().need(24);
    assert_eq!(p.desscan(&w.db), (16 * 16 + 32 * 16) / 32 / 4, "as with 16 pages free");
    for _ in 0..100 {
        p.run(&w.cx, &w.db);
    }
    assert_eq!(w.db.freemem(), 32 + 24, "lotsfree and what is waited for, not a page more");
    drop(needed);
    w.verify();
}

#[test]
fn hands_on_one_frame_would_take_what_is_used() {
    // A spread of 0 is the rule's: the front hand clears the bits, and the back hand is not there yet to find them cleared.
    let w = World::new(32);
    let config = PageoutConfig { handspreadpages: Some(0), ..PageoutConfig::default() };
    let p = Pageout::new(&w.db, config);
    let (_file, ids) = w.file(16);
    ids.iter().for_each(|id| w.set(*id, RefMod::REF));
    assert_eq!(p.step(&w.cx, &w.db, 16).freed, 0);
    w.verify();
}

#[test]
fn an_interval_pushes_a_quarter_of_maxpgio() {
    let w = World::with(64, &thresholds(60));
    let config = PageoutConfig { maxpgio: Some(8), ..PageoutConfig::default() };
    let p = Pageout::new(&w.db, config);
    let (_file, ids) = w.file(50);
    for id in &ids {
        w.set(*id, RefMod::MOD);
    }
    let r = p.run(&w.cx, &w.db);
    assert!(r.queued > 2, "{r}");
    assert_eq!((r.pushed, r.freed), (2, 2));
    let left = p.state(&w.cx, &w.db).queued;
    assert_eq!(left, r.queued - 2);
}

#[test]
fn with_nothing_but_claimed_pages_a_run_ends_and_po_share_grows() {
    let w = World::with(64, &thresholds(60));
    let p = clock(&w);
    let (file, _ids) = w.file(40);
    for i in 0..40 {
        let page = w.db.lookup_shared(&w.cx, file.page(i)).expect("there");
        assert!(w.db.claim_forced(&page, Claim::Lck, None));
    }
    let r = p.run(&w.cx, &w.db);
    assert_eq!((r.scanned, r.freed, r.turns), (0, 0, 128));
    assert!(p.state(&w.cx, &w.db).po_share > 8);
    assert_eq!(p.reclaim(&w.cx, &w.db, 64).freed, 0);
}

#[test]
fn reclaim_stops_when_it_has_enough_and_reclaim_all_takes_the_rest() {
    let w = World::new(64);
    let p = clock(&w);
    let (_file, ids) = w.file(40);
    for id in &ids {
        w.set(*id, RefMod::REF);
    }
    let r = p.reclaim(&w.cx, &w.db, 30);
    assert_eq!((w.db.freemem(), r.freed), (30, 6));
    let r = p.reclaim_all(&w.cx, &w.db);
    assert_eq!((w.db.freemem(), r.freed), (64, 34));
    assert_eq!(p.reclaim_all(&w.cx, &w.db).freed, 0);
    w.verify();
}

/// O2: whoever pushes gets at the queue while the hands go round.
#[test]
fn a_long_scan_lets_others_at_the_queue() {
    let w = World::with(1000, &PageDbConfig { cpus: 2, ..PageDbConfig::default() });
    let (_file, ids) = w.file(900);
    ids.iter().for_each(|id| w.hat.map(&w.cx, *id, 1));
    // The first look ends when the other has asked and had time to fall asleep; then he is due whenever the lock was held for a while.
    let at_look = |look, asks: &AtomicBool| {
        while !asks.load(Relaxed) {
            std::thread::yield_now();
        }
        if look == 1 || look % u64::from(SCAN_BATCH) == 0 {
            std::thread::sleep(Duration::from_millis(if look == 1 { 100 } else { 5 }));
        }
    };
    assert!(w.hat.at_look.set(at_look).is_ok());
    let p = clock(&w);
    let looks = || w.hat.looks.load(Relaxed);
    std::thread::scope(|threads| {
        let (p, db, cx) = (&p, &w.db, w.thread(1));
        let scan = threads.spawn(move || p.step(&cx, db, 2000));
        while looks() == 0 {
            std::thread::yield_now();
        }
        w.hat.come_so_far.store(true, Relaxed);
        let _ = p.queued(&w.cx);
        let then = looks();
        assert_eq!(scan.join().expect("scans").freed, 900);
        assert!(then < looks(), "only when all {then} looks had been made");
    });
    w.verify();
}

#[test]
fn waiting_for_memory_runs_page_out_and_fails_when_nothing_can_go() {
    let w = World::new(64);
    let p = Arc::new(clock(&w));
    assert!(w.db.set_memory_wait(Arc::new(SinglestepWait::new(Arc::clone(&p), Arc::new(NoHook)))));
    let (file, _) = w.file(0);
    let mut n = 0;
    let fill = |n: &mut u64| {
        while let Ok(page) = w.db.create(&w.cx, file.page(*n), 0, Reserve::Normal) {
            page.end_io();
            *n += 1;
        }
    };
    fill(&mut n);
    assert_eq!(w.db.wait_for_memory(&w.cx, 1), Ok(()));
    assert!(w.db.freemem() >= w.db.free_mem().thresholds().lotsfree);
    fill(&mut n);
    for i in 0..n {
        if let Some(page) = w.db.try_lookup_shared(&w.cx, file.page(i)) {
            assert!(w.db.claim_forced(&page, Claim::Lck, None));
        }
    }
    let reserve = w.db.free_mem().thresholds().pageout_reserve;
    let refused = PageError::NoMemory { wanted: 1, freemem: reserve };
    assert_eq!(w.db.wait_for_memory(&w.cx, 1), Err(refused));
    // Page-out itself never waits (behaviour 57).
    w.cx.freeing_memory(|| assert!(w.db.wait_for_memory(&w.cx, 1).is_err()));
    w.verify();
}

/// A hook with a few frames of its own.
#[derive(Debug)]
struct Tables {
    frames: AtomicU64,
    hopeful: bool,
}

impl ReclaimHook for Tables {
    fn steal(&self, cx: &Cx, db: &PageDb, want: u64) -> u64 {
        let had = self.frames.load(Relaxed);
        let give = had.min(want);
        self.frames.store(had - give, Relaxed);
        let kernel: Vec<_> = db.pages().ids().filter(|p| db.lock_state(*p).excl).collect();
        for id in kernel.into_iter().take(give as usize) {
            db.free(cx, db.adopt_excl(cx, id), false);
        }
        give
    }
    fn is_reclaimable(&self, _cx: &Cx, _db: &PageDb) -> bool {
        self.hopeful
    }
}

#[test]
fn the_hook_gives_page_tables_back_and_tells_hope_from_none() {
    for hopeful in [false, true] {
        let w = World::new(16);
        let p = Arc::new(clock(&w));
        let hook = Arc::new(Tables { frames: AtomicU64::new(3), hopeful });
        let wait = SinglestepWait::new(p, hook);
        while let Ok(page) = w.db.alloc(&w.cx, 0, Reserve::Normal) {
            w.db.set_kernel(&page, true);
            _ = page.leak();
        }
        assert_eq!(wait.wait_for_memory(&w.cx, &w.db, 3), Ok(()), "three tables were stolen");
        while let Ok(page) = w.db.alloc(&w.cx, 0, Reserve::Normal) {
            _ = page.leak();
        }
        assert_eq!(wait.wait_for_memory(&w.cx, &w.db, 1).is_ok(), hopeful);
    }
}

#[test]
fn a_tiny_machine_all_dirty_is_emptied() {
    // V23: eight frames.
    let w = World::new(8);
    let p = clock(&w);
    let (file, ids) = w.file(8);
    for id in &ids {
        w.set(*id, RefMod::MOD | RefMod::REF);
    }
    assert_eq!(p.reclaim_all(&w.cx, &w.db).freed, 8);
    assert_eq!((w.db.freemem(), file.writes.lock(&w.cx).len()), (8, 8));
    w.verify();
}

#[test]
fn the_same_history_makes_the_same_report() {
    let run = || {
        let w = World::new(64);
        let p = clock(&w);
        let (file, ids) = w.file(40);
        for (i, id) in ids.iter().enumerate() {
            w.set(*id, [RefMod::empty(), RefMod::REF, RefMod::MOD][i % 3]);
        }
        let a = p.step(&w.cx, &w.db, 50);
        let b = p.reclaim(&w.cx, &w.db, 50);
        (a, b, p.state(&w.cx, &w.db), file.writes.lock(&w.cx).clone())
    };
    assert_eq!(run(), run());
}

#[test]
fn pages_of_two_files_at_one_offset_are_two_requests() {
    let w = World::new(32);
    let (a, ida) = w.file(1);
    let (b, idb) = w.file(1);
    assert_ne!(a.id(), b.id());
    let p = clock(&w);
    for id in [ida[0], idb[0]] {
        w.set(id, RefMod::MOD);
        w.look(&p, id, Hand::Back);
    }
    assert_eq!(p.state(&w.cx, &w.db).queued, 2);
    let r = p.step(&w.cx, &w.db, 0);
    assert_eq!(r.freed, 2);
}

#[test]
fn a_scan_of_more_turns_than_change_anything_comes_to_its_end() {
    let w = World::new(32);
    let (_file, ids) = w.file(4);
    let p = clock(&w);
    let total = w.db.pages().len();
    let report = p.step(&w.cx, &w.db, u64::MAX);
    assert!(ids.iter().all(|id| w.db.page(*id).is_free()), "what can go is gone");
    assert!((3 * total..6 * total).contains(&report.turns), "{report:?}");
    assert_eq!(p.step(&w.cx, &w.db, 1 << 40).turns, 3 * total, "nothing is left to go");
    assert_eq!(p.step(&w.cx, &w.db, 5).turns, 5);
}
