//! Loading runs of pages: the same as one load each, for less.

use super::*;
use addr_space::{HatError, RunLoaded, RunPage, Stamp};
use page_db::SharedPage;
use page_db::sync::atomic::{AtomicU32, Ordering::SeqCst};

const DONE: Result<Loaded, HatError> = Ok(Loaded::Done);

fn lock<'a>(w: &'a World, pages: &[PageId]) -> Vec<SharedPage<'a>> {
    pages.iter().map(|p| w.db.try_lock_shared(&w.cx, *p).expect("nobody else holds it")).collect()
}
fn run_of<'a>(pages: &'a [SharedPage<'a>], prot: Prot) -> Vec<Option<RunPage<'a>>> {
    pages.iter().map(|p| Some(RunPage::new(p, prot))).collect()
}
fn ended(passed: usize, loaded: usize, end: Result<Loaded, HatError>) -> RunLoaded {
    RunLoaded { passed, loaded, end }
}

/// A hat's own run beside the trait's default, which is one load each: the same answers, the same tables.
#[test]
fn a_run_is_one_load_each() {
    #[derive(Debug)]
    struct OneByOne(Arc<dyn Hat>);
    impl Hat for OneByOne {
        fn id(&self) -> u32 {
            self.0.id()
        }
        fn memload(
            &self,
            cx: &Cx,
            addr: VirtAddr,
            page: &dyn page_db::LockedPage,
            prot: Prot,
            flags: LoadFlags,
            stamp: Option<Stamp<'_>>,
        ) -> Result<Loaded, HatError> {
            self.0.memload(cx, addr, page, prot, flags, stamp)
        }
        fn devload(
            &self,
            cx: &Cx,
            range: VirtRange,
            pfn: Pfn,
            prot: Prot,
            flags: LoadFlags,
        ) -> Result<(), HatError> {
            self.0.devload(cx, range, pfn, prot, flags)
        }
        fn unload(&self, cx: &Cx, range: VirtRange, flags: UnloadFlags) {
            self.0.unload(cx, range, flags);
        }
        fn unlock(&self, cx: &Cx, range: VirtRange) {
            self.0.unlock(cx, range);
        }
        fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) {
            self.0.chg_prot(cx, range, prot);
        }
        fn settle(&self, cx: &Cx) {
            self.0.settle(cx);
        }
        fn clear_write(&self, cx: &Cx, range: VirtRange) {
            self.0.clear_write(cx, range);
        }
        fn sync(&self, cx: &Cx, range: VirtRange, mode: SyncMode) {
            self.0.sync(cx, range, mode);
        }
        fn probe(&self, cx: &Cx, addr: VirtAddr) -> Option<addr_space::Translation> {
            self.0.probe(cx, addr)
        }
        fn walk(
            &self,
            cx: &Cx,
            range: VirtRange,
            f: &mut dyn FnMut(VirtAddr, addr_space::Translation),
        ) {
            self.0.walk(cx, range, f);
        }
        fn resident(&self) -> u64 {
            self.0.resident()
        }
        fn free_start(&self, cx: &Cx) {
            self.0.free_start(cx);
        }
        fn free_end(&self, cx: &Cx) {
            self.0.free_end(cx);
        }
    }
    let w = World::new(256);
    let pages: Vec<_> = (0..24).map(|_| w.page()).collect();
    let own: Arc<dyn Hat> = w.hat();
    let each: Arc<dyn Hat> = Arc::new(OneByOne(w.hat()));
    let flags = [LoadFlags::empty(), LoadFlags::ADV, LoadFlags::REMAP, LoadFlags::LOCK];
    let mut seed = 7;
    for round in 0..200 {
        let mut next = |n: u64| {
            seed = u64::wrapping_add(
                u64::wrapping_mul(seed, 6364136223846793005),
                1442695040888963407,
            );
            (seed >> 33) % n
        };
        let at = 0x40_0000 - 0x8000 + (next(16) << 12);
        let len = next(20) as usize;
        let flags = flags[next(4) as usize];
        let kinds = [None, Some(Prot::READ), Some(U), Some(Prot::RX), Some(Prot::empty())];
        let chosen: Vec<_> =
            (0..len).map(|_| (pages[next(24) as usize], kinds[next(5) as usize])).collect();
        let locked = lock(&w, &chosen.iter().map(|c| c.0).collect::<Vec<_>>());
        let run: Vec<_> = locked
            .iter()
            .zip(&chosen)
            .map(|(p, c)| c.1.map(|prot| RunPage::new(p, prot)))
            .collect();
        let answers = [&own, &each].map(|h| h.memload_run(&w.cx, va(at), &run, flags, None));
        assert_eq!(answers[0], answers[1], "round {round}: {at:#x} {flags:?}");
        drop(locked);
        let lower = range(0, 0x1000);
        let seen = [&own, &each].map(|h| {
            let mut all = Vec::new();
            h.walk(&w.cx, lower, &mut |va, t| all.push((va, t.pfn, t.prot)));
            all
        });
        assert_eq!(seen[0], seen[1], "round {round}");
        let locks = [&own, &each].map(|h| {
            let tree = w.hx.dump_tables(&w.cx, h.id()).expect("lives");
            tree.tables.iter().map(|t| t.locks).collect::<Vec<_>>()
        });
        assert_eq!(locks[0], locks[1], "round {round}: {flags:?}");
        if round % 10 == 9 {
            let some = range(0x40_0000 - 0x8000 + (next(16) << 12), 8);
            [&own, &each].iter().for_each(|h| h.unload(&w.cx, some, UnloadFlags::UNLOCK));
        }
        w.verify();
    }
    for h in [own, each] {
        w.end(&h);
    }
    w.verify();
}

#[test]
fn a_run_over_two_leaves_locks_and_counts_each_once() {
    let w = World::new(256);
    let hat = w.hat();
    let pages: Vec<_> = (0..16).map(|_| w.page()).collect();
    let locked = lock(&w, &pages);
    let before = w.snapshot();
    let run = run_of(&locked, U);
    let done = hat.memload_run(&w.cx, va(0x3f_8000), &run, LoadFlags::empty(), None);
    assert_eq!(done, ended(16, 16, DONE));
    let d = w.snapshot().since(&before);
    assert_eq!(
        d.get(Counter::PteWrites),
        16 + 3 + 1,
        "a chain of three tables, then one more leaf"
    );
    assert_eq!(d.get(Counter::Flushes), 0);
    // The same again: nothing is new.
    let before = w.snapshot();
    let done = hat.memload_run(&w.cx, va(0x3f_8000), &run, LoadFlags::empty(), None);
    assert_eq!((done, cost(&w, &before)), (ended(16, 0, DONE), (0, 0)));
    assert_eq!(hat.resident(), 16);
    drop(locked);
    w.verify();
}

#[test]
fn absent_places_and_pages_without_rights_are_passed_over() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    let locked = w.db.lock_shared(&w.cx, page);
    let one = Some(RunPage::new(&locked, U));
    let none = Some(RunPage::new(&locked, Prot::empty()));
    let run = [None, one, none, None, one, None];
    let done = hat.memload_run(&w.cx, va(0x1000), &run, LoadFlags::empty(), None);
    assert_eq!(done, ended(6, 2, DONE));
    let done = hat.memload_run(&w.cx, va(0x80_0000), &[None, none], LoadFlags::empty(), None);
    assert_eq!(done, ended(2, 0, DONE));
    assert_eq!(hat.memload_run(&w.cx, va(0), &[], LoadFlags::empty(), None), ended(0, 0, DONE));
    assert_eq!(hat.resident(), 2);
    drop(locked);
    w.verify();
}

#[test]
fn advice_needs_no_table_and_changes_nothing_that_is_there() {
    let w = World::new(64);
    let hat = w.hat();
    let pages: Vec<_> = (0..3).map(|_| w.page()).collect();
    let other = w.page();
    let locked = lock(&w, &pages);
    let run = run_of(&locked, U);
    let done = hat.memload_run(&w.cx, va(0x1f_f000), &run, LoadFlags::ADV, None);
    assert_eq!((done, hat.resident()), (ended(3, 0, DONE), 0), "no leaf, none made");
    drop(locked);
    w.load(&*hat, 0x20_0000, other, Prot::READ);
    let locked = lock(&w, &pages);
    let run = run_of(&locked, U);
    let done = hat.memload_run(&w.cx, va(0x1f_f000), &run, LoadFlags::ADV, None);
    assert_eq!(done, ended(3, 1, DONE), "the second leaf is there, its first entry taken");
    let pfns = [0x1f_f000, 0x20_0000, 0x20_1000].map(|a| hat.probe(&w.cx, va(a)).map(|t| t.pfn));
    assert_eq!(pfns, [None, Some(w.db.pfn(other)), Some(w.db.pfn(pages[2]))]);
    drop(locked);
    w.verify();
}

#[test]
fn a_run_stops_where_it_must_and_says_how_far_it_came() {
    let w = World::new(64);
    let hat = w.hat();
    let pages: Vec<_> = (0..4).map(|_| w.page()).collect();
    let other = w.page();
    w.load(&*hat, 0x3000, other, U);
    let locked = lock(&w, &pages);
    let run = run_of(&locked, U);
    let done = hat.memload_run(&w.cx, va(0x1000), &run, LoadFlags::empty(), None);
    let (have, want) = (w.db.pfn(other), w.db.pfn(pages[2]));
    assert_eq!(done, ended(2, 2, Err(HatError::Conflict { addr: va(0x3000), have, want })));
    let done = hat.memload_run(&w.cx, va(0x1000), &run, LoadFlags::REMAP, None);
    assert_eq!(done.end, DONE);
    assert_eq!((done.passed, hat.resident()), (4, 4));
    // Half of it past the end of the half.
    let top = VirtAddr::LOWER_END - 0x2000;
    let done = hat.memload_run(&w.cx, va(top), &run, LoadFlags::empty(), None);
    assert_eq!((done.passed, done.loaded), (2, 2));
    assert!(matches!(done.end, Err(HatError::OutOfRange { .. })));
    drop(locked);
    w.verify();
}

#[test]
fn a_stale_stamp_ends_the_run() {
    let w = World::new(64);
    let hat = w.hat();
    let pages = [w.page(), w.page()];
    let (free, seq) = (w.db.freemem(), AtomicU32::new(4));
    let stamp = Stamp::take(&seq);
    let locked = lock(&w, &pages);
    let run = run_of(&locked, U);
    let load = |at| hat.memload_run(&w.cx, va(at), &run, LoadFlags::empty(), Some(stamp));
    assert_eq!(load(0x1000), ended(2, 2, DONE));
    seq.store(6, SeqCst);
    assert_eq!(load(0x5000), ended(0, 0, Ok(Loaded::Stale)));
    assert_eq!(load(0x4000_0000), ended(0, 0, Ok(Loaded::Stale)), "and leaves no table");
    assert_eq!((hat.resident(), free - w.db.freemem()), (2, 3));
    drop(locked);
    w.verify();
}

#[test]
fn frames_and_records_run_out_in_the_middle() {
    let w = World::with_limits(64, HatLimits { hments: 5, ..HatLimits::default() });
    let hat = w.hat();
    let pages: Vec<_> = (0..4).map(|_| w.page()).collect();
    for (i, p) in (0u64..).zip(&pages) {
        w.load(&*hat, 0x10_0000 + (i << 12), *p, U);
    }
    let locked = lock(&w, &pages);
    let run = run_of(&locked, U);
    // Two records for each page that becomes a list.
    let done = hat.memload_run(&w.cx, va(0x1000), &run, LoadFlags::empty(), None);
    assert_eq!(done, ended(2, 2, Err(HatError::NoMemory { addr: va(0x3000) })));
    w.hx.verify(&w.cx).expect("nothing is damaged");
    let done = hat.memload_run(&w.cx, va(0x1000), &run, LoadFlags::ADV, None);
    assert_eq!(done, ended(4, 0, DONE), "advice does not fail");
    // No frame for the second leaf.
    drop(locked);
    w.unload(&*hat, 0, 0x1000);
    w.load(&*hat, 0, pages[0], U);
    let held: Vec<_> = core::iter::from_fn(|| (w.db.freemem() > 0).then(|| w.page())).collect();
    let locked = lock(&w, &pages);
    let run = run_of(&locked[1..], U);
    let done = hat.memload_run(&w.cx, va(0x1f_e000), &run, LoadFlags::empty(), None);
    assert_eq!(done, ended(2, 2, Err(HatError::NoMemory { addr: va(0x20_0000) })));
    drop(locked);
    held.into_iter().for_each(|p| w.free(p));
    w.verify();
}
