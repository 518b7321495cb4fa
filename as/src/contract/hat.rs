//! The contract of [`Hat`]. What its processors may use, and the marks that they leave, are in [`used`].

mod used;

use crate::hat::{Hat, HatError, LoadFlags, Loaded, RunPage, Stamp, UnloadFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::contract::{Breach, Judge};
use page_db::sync::atomic::{AtomicU32, Ordering::SeqCst};
use page_db::{
    Access, CpuId, Cx, LockedPage as _, PAGE_SIZE, PageDb, PageId, Pfn, Prot, RefMod, Reserve,
    VirtAddr, VirtRange,
};

const ROOM: &str = "a hat, eight free pages of addresses and as many frames to try";
const LOAD: &str = "memload maps the page's frame with the rights asked for";
const RELOAD: &str = "an entry for the same frame is changed to the new rights";
const CONFLICT: &str = "another frame is mapped only with REMAP; refused, nothing has changed";
const STALE: &str = "an out-of-date stamp stores nothing";
const UNLOAD: &str = "unload removes the translations of its range";
const BESIDE: &str = "a call leaves translations outside its range alone";
const CHG: &str = "chg_prot gives existing translations exactly the rights, and makes none";
const NONE: &str = "chg_prot to no rights means unload";
const CLEAR: &str = "clear_write takes the right to write and no other";
const WALK: &str = "walk calls for each translation once, in order of address";
const RIGHTS: &str = "rights() tells each page's rights, none where there is no translation";
const RESIDENT: &str = "resident() counts the pages mapped";
const RUN: &str = "memload_run loads each page as memload would, and leaves places without one";
const ADV: &str = "an advisory run leaves what is there as it is";
const DEV: &str = "devload maps frames that count up";
const APART: &str = "hats do not share translations";
const T1: &str = "T1: on return no CPU can use a translation that was removed or weakened";
const BITS: &str = "unload and sync keep referenced and modified bits on the page";
const NOSYNC: &str = "NOSYNC: referenced and modified are not kept";
const AGAIN: &str = "after a harvest the next use is noted again";
const ONCE: &str = "what a sync has harvested and set to zero is not harvested again";
const LISTS: &str = "unloading a page removes its translations from every hat";
const END: &str = "after free_end no translation is left";
#[cfg(all(feature = "std", not(shuttle)))]
const TOGETHER: &str = "loads and unloads of several threads do not meet";

/// Makes one access on a CPU through what that CPU knows of a hat; says whether it was possible. A store leaves a byte other than 0 at the address.
pub type UseTranslation<'a> = &'a dyn Fn(&dyn Hat, CpuId, VirtAddr, Access) -> bool;

/// A hat to be judged.
#[derive(Clone, Copy)]
pub struct HatCase<'a> {
    /// Who is running.
    pub cx: &'a Cx,
    /// The pages.
    pub db: &'a PageDb,
    /// A name for it.
    pub name: &'a str,
    /// Makes a hat; asked for two.
    pub make: &'a dyn Fn() -> Result<Arc<dyn Hat>, HatError>,
    /// The first of eight pages that nothing is mapped at.
    pub at: VirtAddr,
    /// Whether translations are on their pages' mapping lists, and keep referenced and modified bits.
    pub lists: bool,
    /// How translations are used, where there are processors. CPUs 0 and 1 are asked.
    pub access: Option<UseTranslation<'a>>,
}

impl fmt::Debug for HatCase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HatCase")
            .field("name", &self.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

struct Bench<'a> {
    c: HatCase<'a>,
    judge: Judge,
    hat: Arc<dyn Hat>,
    pages: Vec<PageId>,
}

/// The contract of [`Hat`]: loads, runs, ranges, rights, bits, shootdown, the end, several threads.
///
/// # Errors
/// The first clause that does not hold.
pub fn check_hat(case: &HatCase<'_>) -> Result<(), Breach> {
    let judge = Judge::new("Hat", case.name);
    let hat = || (case.make)().map_err(|e| judge.breach(ROOM, format_args!("{e}")));
    let mut pages = Vec::new();
    for colour in 0..8 {
        let page = case.db.alloc(case.cx, colour, Reserve::Normal);
        pages.push(page.map_err(|e| judge.breach(ROOM, format_args!("{e}")))?.id());
    }
    let b = Bench { c: *case, judge: judge.clone(), hat: hat()?, pages };
    let other = hat()?;
    let checked = b.all(&*other);
    for hat in [&b.hat, &other] {
        hat.free_start(case.cx);
        hat.unload(case.cx, b.range(0, 8), UnloadFlags::UNLOCK);
        hat.free_end(case.cx);
    }
    checked?;
    b.is_gone(&b.pages)?;
    for page in b.pages {
        case.db.destroy(case.cx, case.db.lock_excl(case.cx, page));
    }
    judge.holds_nothing(case.cx, "free_end")
}

/// [`check_hat`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn hat(case: &HatCase<'_>) {
    Breach::raise(check_hat(case));
}

impl Bench<'_> {
    fn all(&self, other: &dyn Hat) -> Result<(), Breach> {
        loads(self)?;
        stamps(self)?;
        ranges(self)?;
        runs(self)?;
        devices(self)?;
        apart(self, other)?;
        used::shootdown(self)?;
        used::replacement(self)?;
        used::bits(self)?;
        used::lists(self, other)?;
        #[cfg(all(feature = "std", not(shuttle)))]
        together(self)?;
        self.judge.holds_nothing(self.c.cx, "the suite")
    }
    fn addr(&self, n: u64) -> VirtAddr {
        VirtRange::page_of(self.c.at).start().checked_add(n * PAGE_SIZE).unwrap_or(self.c.at)
    }
    fn range(&self, n: u64, pages: u64) -> VirtRange {
        let range = VirtRange::exact(self.addr(n).get(), pages * PAGE_SIZE);
        range.unwrap_or_else(|_| VirtRange::page_of(self.c.at))
    }
    fn pfn(&self, page: usize) -> Pfn {
        self.c.db.pfn(self.pages[page])
    }
    fn try_load(
        &self,
        n: u64,
        page: usize,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        let page = self.c.db.lock_shared(self.c.cx, self.pages[page]);
        self.hat.memload(self.c.cx, self.addr(n), &page, prot, flags, stamp)
    }
    fn load(&self, n: u64, page: usize, prot: Prot, flags: LoadFlags) -> Result<(), Breach> {
        let done = self.try_load(n, page, prot, flags, None);
        self.judge.same(LOAD, format_args!("a load at place {n}"), done, Ok(Loaded::Done))?;
        self.judge.holds_nothing(self.c.cx, "memload")
    }
    /// What place `n` shows: frame and rights.
    fn shows(&self, n: u64) -> Option<(Pfn, Prot)> {
        let user = Prot::USER;
        self.hat.probe(self.c.cx, self.addr(n)).map(|t| (t.pfn, t.prot.difference(user)))
    }
    fn is(&self, clause: &'static str, n: u64, due: Option<(usize, Prot)>) -> Result<(), Breach> {
        let due = due.map(|(page, prot)| (self.pfn(page), prot));
        self.judge.same(
            clause,
            format_args!("the translation at place {n}"),
            self.shows(n),
            due,
        )?;
        let accesses = [Access::Read, Access::Write, Access::Exec];
        let said = accesses.map(|access| self.hat.allows(self.c.cx, self.addr(n), access));
        let due = accesses.map(|access| due.is_some_and(|(_, prot)| prot.allows(access)));
        self.judge.same(clause, format_args!("what place {n} allows"), said, due)
    }
    /// Pages 0 to 7 at places 0 to 7, and nothing else.
    fn fill(&self, prot: Prot) -> Result<(), Breach> {
        self.empty();
        (0..8).try_for_each(|n| self.load(n, n as usize, prot, LoadFlags::empty()))?;
        self.counts(8)
    }
    fn empty(&self) {
        self.hat.unload(self.c.cx, self.range(0, 8), UnloadFlags::empty());
    }
    fn counts(&self, due: u64) -> Result<(), Breach> {
        self.judge.same(RESIDENT, format_args!("resident()"), self.hat.resident(), due)
    }
    fn uses(&self, cpu: u16, n: u64, access: Access) -> bool {
        self.c.access.is_some_and(|f| f(&*self.hat, CpuId(cpu), self.addr(n), access))
    }
    fn is_gone(&self, pages: &[PageId]) -> Result<(), Breach> {
        let left = self.hat.resident();
        self.judge.same(END, format_args!("resident() after free_end"), left, 0)?;
        let mapped = pages.iter().find(|p| self.c.db.page(**p).is_mapped());
        self.judge.require(END, mapped.is_none(), format_args!("{mapped:?} is still mapped"))
    }
    fn page_bits(&self, page: usize) -> RefMod {
        self.c.db.page(self.pages[page]).ref_mod() - RefMod::RO
    }
    fn clean(&self, page: usize) {
        self.c.db.page(self.pages[page]).clear_ref_mod(RefMod::MOD | RefMod::REF);
    }
}

fn loads(b: &Bench<'_>) -> Result<(), Breach> {
    b.is(UNLOAD, 0, None)?;
    b.load(0, 0, Prot::RW, LoadFlags::empty())?;
    b.is(LOAD, 0, Some((0, Prot::RW)))?;
    b.is(BESIDE, 1, None)?;
    b.counts(1)?;
    for prot in [Prot::READ, Prot::RX, Prot::RW] {
        b.load(0, 0, prot, LoadFlags::empty())?;
        b.is(RELOAD, 0, Some((0, prot)))?;
        b.counts(1)?;
    }
    let other = b.try_load(0, 1, Prot::READ, LoadFlags::empty(), None);
    let refused = matches!(other, Err(HatError::Conflict { .. }));
    b.judge.require(CONFLICT, refused, format_args!("the load answered {other:?}"))?;
    b.is(CONFLICT, 0, Some((0, Prot::RW)))?;
    b.load(0, 1, Prot::READ, LoadFlags::REMAP)?;
    b.is(CONFLICT, 0, Some((1, Prot::READ)))?;
    b.load(1, 2, Prot::RW, LoadFlags::LOCK)?;
    b.hat.unlock(b.c.cx, b.range(1, 1));
    b.is(LOAD, 1, Some((2, Prot::RW)))?;
    b.empty();
    b.is(UNLOAD, 1, None)?;
    b.counts(0)
}

fn stamps(b: &Bench<'_>) -> Result<(), Breach> {
    let (seq, also) = (AtomicU32::new(0), AtomicU32::new(8));
    let none = LoadFlags::empty();
    let now = Stamp::take(&seq).and(&also);
    let done = b.try_load(0, 0, Prot::READ, none, Some(now));
    b.judge.same(STALE, format_args!("a load with a current stamp"), done, Ok(Loaded::Done))?;
    for which in [&seq, &also] {
        let stamp = Stamp::take(&seq).and(&also);
        which.fetch_add(2, SeqCst);
        for (n, rights) in [(0, Some((0, Prot::READ))), (1, None)] {
            let done = b.try_load(n, n as usize, Prot::RW, none, Some(stamp));
            b.judge.same(
                STALE,
                format_args!("a late load at place {n}"),
                done,
                Ok(Loaded::Stale),
            )?;
            b.is(STALE, n, rights)?;
        }
    }
    b.empty();
    Ok(())
}

fn ranges(b: &Bench<'_>) -> Result<(), Breach> {
    let cx = b.c.cx;
    b.fill(Prot::RW)?;
    let mut walked = Vec::new();
    b.hat.walk(cx, b.range(1, 6), &mut |addr, t| walked.push((addr, t.pfn)));
    let due: Vec<_> = (1..7).map(|n| (b.addr(n), b.pfn(n as usize))).collect();
    b.judge.same(WALK, format_args!("a walk over places 1 to 6"), walked, due)?;
    b.hat.unload(cx, b.range(2, 2), UnloadFlags::empty());
    for n in 0..8 {
        let gone = n == 2 || n == 3;
        let clause = if gone { UNLOAD } else { BESIDE };
        b.is(clause, n, (!gone).then_some((n as usize, Prot::RW)))?;
    }
    b.counts(6)?;
    b.hat.chg_prot(cx, b.range(1, 4), Prot::READ);
    for n in 1..5 {
        let there = n == 1 || n == 4;
        b.is(CHG, n, there.then_some((n as usize, Prot::READ)))?;
    }
    b.is(BESIDE, 0, Some((0, Prot::RW)))?;
    b.is(BESIDE, 5, Some((5, Prot::RW)))?;
    b.hat.chg_prot(cx, b.range(1, 4), Prot::RWX);
    b.is(CHG, 4, Some((4, Prot::RWX)))?;
    b.hat.clear_write(cx, b.range(3, 3));
    b.is(CLEAR, 4, Some((4, Prot::RX)))?;
    b.is(CLEAR, 5, Some((5, Prot::READ)))?;
    b.is(CLEAR, 3, None)?;
    b.is(BESIDE, 6, Some((6, Prot::RW)))?;
    let mut rights = [Prot::all(); 8];
    b.hat.rights(cx, b.range(0, 8), &mut rights);
    let told = rights.map(|p| p.difference(Prot::USER));
    let due = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| b.shows(n).map_or(Prot::empty(), |(_, p)| p));
    b.judge.same(RIGHTS, format_args!("what rights() tells"), told, due)?;
    b.hat.chg_prot(cx, b.range(5, 1), Prot::empty());
    b.is(NONE, 5, None)?;
    b.judge.holds_nothing(cx, "range calls")?;
    b.empty();
    b.counts(0)
}

fn runs(b: &Bench<'_>) -> Result<(), Breach> {
    let (cx, db) = (b.c.cx, b.c.db);
    b.empty();
    b.load(1, 1, Prot::READ, LoadFlags::empty())?;
    let pages = [0, 1, 3].map(|n| db.try_lock_shared(cx, b.pages[n]));
    let [Some(p0), Some(p1), Some(p3)] = &pages else {
        return Err(b.judge.breach(ROOM, format_args!("a page is locked")));
    };
    let run = [
        Some(RunPage::new(p0, Prot::RW)),
        Some(RunPage::new(p1, Prot::RW)),
        None,
        Some(RunPage::new(p3, Prot::READ)),
    ];
    let ran = b.hat.memload_run(cx, b.addr(0), &run, LoadFlags::ADV, None);
    b.is(ADV, 1, Some((1, Prot::READ)))?;
    b.is(RUN, 0, Some((0, Prot::RW)))?;
    b.is(RUN, 2, None)?;
    b.is(RUN, 3, Some((3, Prot::READ)))?;
    let seen = (ran.passed, ran.loaded, ran.end);
    b.judge.same(RUN, format_args!("passed, loaded, end"), seen, (4, 2, Ok(Loaded::Done)))?;
    let ran = b.hat.memload_run(cx, b.addr(0), &run, LoadFlags::empty(), None);
    b.is(RUN, 1, Some((1, Prot::RW)))?;
    let seen = (ran.passed, ran.loaded, ran.end);
    b.judge.same(RUN, format_args!("passed, loaded, end"), seen, (4, 0, Ok(Loaded::Done)))?;
    let seq = AtomicU32::new(0);
    let stamp = Stamp::take(&seq);
    seq.fetch_add(2, SeqCst);
    let ran = b.hat.memload_run(cx, b.addr(4), &run[..1], LoadFlags::empty(), Some(stamp));
    let seen = (ran.passed, ran.loaded, ran.end);
    b.judge.same(STALE, format_args!("a late run"), seen, (0, 0, Ok(Loaded::Stale)))?;
    b.is(STALE, 4, None)?;
    drop(pages);
    b.judge.holds_nothing(cx, "memload_run")?;
    b.empty();
    Ok(())
}

fn devices(b: &Bench<'_>) -> Result<(), Breach> {
    let first = Pfn(0x8000);
    let done = b.hat.devload(b.c.cx, b.range(2, 3), first, Prot::RW, LoadFlags::empty());
    b.judge.same(DEV, format_args!("devload"), done, Ok(()))?;
    for n in 0..3 {
        let due = Some((Pfn(first.0 + n), Prot::RW));
        b.judge.same(DEV, format_args!("place {}", n + 2), b.shows(n + 2), due)?;
    }
    b.is(BESIDE, 5, None)?;
    b.counts(3)?;
    b.empty();
    b.counts(0)
}

fn apart(b: &Bench<'_>, other: &dyn Hat) -> Result<(), Breach> {
    b.fill(Prot::RW)?;
    let (there, count) = (other.probe(b.c.cx, b.addr(0)), other.resident());
    b.judge.same(APART, format_args!("the other hat's translation"), there, None)?;
    b.judge.same(APART, format_args!("the other hat's resident()"), count, 0)?;
    other.unload(b.c.cx, b.range(0, 8), UnloadFlags::empty());
    b.is(APART, 3, Some((3, Prot::RW)))
}

#[cfg(all(feature = "std", not(shuttle)))]
fn together(b: &Bench<'_>) -> Result<(), Breach> {
    b.empty();
    let (db, hat, judge, pages) = (b.c.db, &*b.hat, &b.judge, &b.pages);
    let addrs: Vec<_> = (0..3).map(|n| VirtRange::page_of(b.addr(n))).collect();
    let work = |me: usize| {
        let cpu = CpuId(me as u16 % db.cpus());
        let id = page_db::ThreadId(1 << 24 | me as u32);
        let cx = &Cx::new(db.counters(), cpu, id, Arc::new(page_db::SpinHooks));
        let (range, pfn) = (addrs[me], db.pfn(pages[me]));
        for round in 0..300 {
            let page = db.lock_shared(cx, pages[me]);
            let prot = if round % 2 == 0 { Prot::RW } else { Prot::READ };
            let none = LoadFlags::empty();
            let done = hat.memload(cx, range.start(), &page, prot, none, None);
            drop(page);
            judge.same(TOGETHER, format_args!("thread {me}'s load"), done, Ok(Loaded::Done))?;
            let has = hat.probe(cx, range.start()).map(|t| (t.pfn, t.prot - Prot::USER));
            let what = alloc::format!("thread {me}'s translation in round {round}");
            judge.same(TOGETHER, format_args!("{what}"), has, Some((pfn, prot)))?;
            hat.unload(cx, range, UnloadFlags::empty());
            let has = hat.probe(cx, range.start());
            judge.same(TOGETHER, format_args!("{what} after unload"), has, None)?;
        }
        Ok(())
    };
    judge.three_threads(work)?;
    b.counts(0)
}
