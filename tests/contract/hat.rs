//! Hats: the one of page tables, over processors that flush and over some that do not, and behind a layer with flaws.

use crate::{all_caught, all_caught_some_time, clauses_of, machine};
use addr_space::{
    Hat, HatError, HatProvider as _, LoadFlags, Loaded, RunLoaded, RunPage, Stamp, Translation,
    UnloadFlags,
};
use hat_x86::{Caps, CpuSet, FlushDue, HatX86, HostConfig, HostMmu, Mmu, SpaceId, UserAccess as _};
use page_db::{
    Access, CpuId, Cx, LockedPage, PageDb, Pfn, Prot, RefMod, SyncMode, VirtAddr, VirtRange,
};
use segvm::contract::{Breach, HatCase, check_hat, hat};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// When processors that are told of a flush do nothing about it.
#[derive(Debug)]
enum When {
    Always,
    /// While a page of these is unloaded, which is locked then; whoever unloads it forgets on its own processor.
    ElsewhereOfPages(Arc<PageDb>),
    /// While this is set.
    Told(Arc<AtomicBool>),
    /// Never; but what a page of these, which is unloaded, was stored to is not known afterwards.
    LosesModified(Arc<PageDb>),
}

/// Processors that are told of flushes and do not always do something about it.
#[derive(Debug)]
struct Deaf {
    inner: Arc<HostMmu>,
    when: When,
}

impl Mmu for Deaf {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.inner.space_created(cx, id, root);
    }
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.inner.space_destroyed(cx, id, root);
    }
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>) {
        self.inner.activate(cx, cpu, id);
    }
    fn cpu_count(&self) -> u16 {
        self.inner.cpu_count()
    }
    fn running_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        self.inner.running_on(cx, id, cpus);
    }
    fn remembered_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        self.inner.remembered_on(cx, id, cpus);
    }
    fn flush(&self, cx: &Cx, due: &FlushDue) {
        let unloaded = |db: &PageDb| db.pages().ids().find(|page| db.lock_state(*page).excl);
        match &self.when {
            When::Always => return,
            When::ElsewhereOfPages(db) if unloaded(db).is_some() => {
                return self.inner.forget_all(cx, cx.cpu());
            }
            When::Told(deaf) if deaf.load(Relaxed) => return,
            When::LosesModified(db) => {
                unloaded(db).iter().for_each(|page| db.page(*page).clear_ref_mod(RefMod::MOD));
            }
            _ => {}
        }
        self.inner.flush(cx, due);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    Nothing,
    NeverFlushes,
    FlushesPagesHere,
    ReplacesInSecret,
    ReplacesInRunsInSecret,
    ReplacesDevicesInSecret,
    NarrowsRunsInSecret,
    LosesModifiedOfPages,
    LoadsReadOnly,
    KeepsOldRights,
    ReplacesUnasked,
    IgnoresStamps,
    LeavesTheLastOfARange,
    UnloadsOneTooMany,
    LeavesRightsAlone,
    LeavesWrite,
    TakesExecutionToo,
    WalksBackwards,
    WalksWithoutTheFirst,
    RightsOfTheFirstForAll,
    CountsOneTooMany,
    RunsOverWhatIsThere,
    MapsOneDeviceFrame,
    LosesModified,
    SyncsNothing,
    SyncsForEver,
    KeepsBitsOfNosync,
    UnloadsForAnother,
    HasNoRoom,
    KeepsLoadsWithoutRights,
    StopsRunsAtAGap,
    LosesWhatFollowsASync,
    ListsAPageOnce,
    KeepsOneAtTheEnd,
    MixesUpItsCallers,
}

/// The first page that the suite uses.
const AT: u64 = 0x40_0000;

#[derive(Debug)]
struct Flawed {
    inner: Arc<dyn Hat>,
    flaw: Flaw,
    /// Set when something has happened that it will not forget.
    since: AtomicBool,
    /// What the last caller wanted.
    wanted: AtomicU64,
    /// Set while processors are not to hear what they are told.
    deaf: Arc<AtomicBool>,
}

impl Flawed {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    /// What `call` says, with deaf processors under it if `so`.
    fn in_secret<T>(&self, so: bool, call: impl FnOnce() -> T) -> T {
        self.deaf.store(so, Relaxed);
        let said = call();
        self.deaf.store(false, Relaxed);
        said
    }
}

fn cut(range: VirtRange, less: u64) -> VirtRange {
    VirtRange::exact(range.start().get(), range.len() - less).unwrap_or(range)
}

impl Hat for Flawed {
    fn id(&self) -> u32 {
        self.inner.id()
    }
    fn memload(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        page: &dyn LockedPage,
        mut prot: Prot,
        mut flags: LoadFlags,
        mut stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        let old = self.inner.probe(cx, addr);
        match self.flaw {
            Flaw::LoadsReadOnly => prot = prot.read_only(),
            Flaw::KeepsOldRights if old.is_some() && flags.is_empty() && stamp.is_none() => {
                prot = old.map_or(prot, |t| t.prot);
            }
            Flaw::ReplacesUnasked => flags |= LoadFlags::REMAP,
            Flaw::IgnoresStamps => stamp = None,
            _ => {}
        }
        if self.is(Flaw::ListsAPageOnce) && old.is_none() && page.page().is_mapped() {
            flags |= LoadFlags::NOCONSIST;
        }
        let mut addr = addr;
        if self.is(Flaw::MixesUpItsCallers) {
            self.wanted.store(addr.get(), Relaxed);
            std::thread::yield_now();
            addr = VirtAddr::new(self.wanted.load(Relaxed)).expect("an address");
        }
        let secret = self.is(Flaw::ReplacesInSecret) && flags.contains(LoadFlags::REMAP);
        self.in_secret(secret, || self.inner.memload(cx, addr, page, prot, flags, stamp))
    }
    fn memload_run(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        pages: &[Option<RunPage<'_>>],
        mut flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> RunLoaded {
        if self.is(Flaw::RunsOverWhatIsThere) {
            flags -= LoadFlags::ADV;
        }
        let gap = pages.iter().position(Option::is_none).unwrap_or(pages.len());
        let pages = if self.is(Flaw::StopsRunsAtAGap) { &pages[..gap] } else { pages };
        let secret = match self.flaw {
            Flaw::ReplacesInRunsInSecret => flags.contains(LoadFlags::REMAP),
            Flaw::NarrowsRunsInSecret => !flags.contains(LoadFlags::REMAP),
            _ => false,
        };
        self.in_secret(secret, || self.inner.memload_run(cx, addr, pages, flags, stamp))
    }
    fn devload(
        &self,
        cx: &Cx,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), HatError> {
        if !self.is(Flaw::MapsOneDeviceFrame) {
            let secret = self.is(Flaw::ReplacesDevicesInSecret);
            return self.in_secret(secret, || self.inner.devload(cx, range, pfn, prot, flags));
        }
        let mut pages = range.iter_pages().map(VirtRange::page_of);
        pages.try_for_each(|page| self.inner.devload(cx, page, pfn, prot, flags))
    }
    fn unload(&self, cx: &Cx, range: VirtRange, mut flags: UnloadFlags) {
        let two = range.len() == 0x2000;
        let range = match self.flaw {
            Flaw::LeavesTheLastOfARange if two => cut(range, 0x1000),
            Flaw::UnloadsOneTooMany if two => {
                VirtRange::exact(range.start().get(), 0x3000).unwrap_or(range)
            }
            _ => range,
        };
        match self.flaw {
            Flaw::LosesModified => flags |= UnloadFlags::NOSYNC,
            Flaw::KeepsBitsOfNosync => flags -= UnloadFlags::NOSYNC,
            Flaw::LosesWhatFollowsASync if self.since.load(Relaxed) => flags |= UnloadFlags::NOSYNC,
            Flaw::KeepsOneAtTheEnd if self.since.load(Relaxed) => return,
            _ => {}
        }
        self.inner.unload(cx, range, flags);
    }
    fn unlock(&self, cx: &Cx, range: VirtRange) {
        self.inner.unlock(cx, range);
    }
    fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) {
        match self.flaw {
            Flaw::LeavesRightsAlone => {}
            Flaw::KeepsLoadsWithoutRights if prot.is_empty() => {
                self.inner.chg_prot(cx, range, Prot::READ);
            }
            _ => self.inner.chg_prot(cx, range, prot),
        }
    }
    fn clear_write(&self, cx: &Cx, range: VirtRange) {
        match self.flaw {
            Flaw::LeavesWrite => {}
            Flaw::TakesExecutionToo => self.inner.chg_prot(cx, range, Prot::READ),
            _ => self.inner.clear_write(cx, range),
        }
    }
    fn sync(&self, cx: &Cx, range: VirtRange, mode: SyncMode) {
        if self.is(Flaw::LosesWhatFollowsASync) {
            self.since.store(true, Relaxed);
        }
        match self.flaw {
            Flaw::SyncsNothing => {}
            Flaw::SyncsForEver => self.inner.sync(cx, range, SyncMode::DontZero),
            _ => self.inner.sync(cx, range, mode),
        }
    }
    fn probe(&self, cx: &Cx, addr: VirtAddr) -> Option<Translation> {
        self.inner.probe(cx, addr)
    }
    fn settle(&self, cx: &Cx) {
        self.inner.settle(cx);
    }
    fn walk(&self, cx: &Cx, range: VirtRange, f: &mut dyn FnMut(VirtAddr, Translation)) {
        let mut all = Vec::new();
        self.inner.walk(cx, range, &mut |addr, t| all.push((addr, t)));
        match self.flaw {
            Flaw::WalksBackwards => all.reverse(),
            Flaw::WalksWithoutTheFirst => drop(all.drain(..1.min(all.len()))),
            _ => {}
        }
        all.into_iter().for_each(|(addr, t)| f(addr, t));
    }
    fn rights(&self, cx: &Cx, range: VirtRange, out: &mut [Prot]) {
        self.inner.rights(cx, range, out);
        if self.is(Flaw::RightsOfTheFirstForAll) {
            out.fill(out[0]);
        }
    }
    fn resident(&self) -> u64 {
        let n = self.inner.resident();
        if self.is(Flaw::CountsOneTooMany) && n > 1 { n + 1 } else { n }
    }
    fn free_start(&self, cx: &Cx) {
        if self.is(Flaw::KeepsOneAtTheEnd) {
            let first = VirtRange::page_of(VirtAddr::new(AT).expect("canonical"));
            let none = LoadFlags::empty();
            self.inner.devload(cx, first, Pfn(0x8000), Prot::READ, none).expect("a table");
            return self.since.store(true, Relaxed);
        }
        self.inner.free_start(cx);
    }
    fn free_end(&self, cx: &Cx) {
        if !self.is(Flaw::KeepsOneAtTheEnd) {
            self.inner.free_end(cx);
        }
    }
}

/// Judges a hat with a flaw, on a machine of its own.
fn judged(flaw: Flaw) -> Result<(), Breach> {
    let (cx, db, mmu) = machine(2, HostConfig::default());
    let deaf = Arc::new(AtomicBool::new(false));
    let when = match flaw {
        Flaw::NeverFlushes => When::Always,
        Flaw::FlushesPagesHere => When::ElsewhereOfPages(Arc::clone(&db)),
        Flaw::LosesModifiedOfPages => When::LosesModified(Arc::clone(&db)),
        _ => When::Told(Arc::clone(&deaf)),
    };
    let under = Arc::new(Deaf { inner: Arc::clone(&mmu), when });
    let provider = HatX86::new(&cx, Arc::clone(&db), under).expect("frames");
    let first = std::sync::OnceLock::<Arc<dyn Hat>>::new();
    let make = || -> Result<Arc<dyn Hat>, HatError> {
        let at = VirtAddr::new(AT).expect("canonical");
        let inner = match (flaw, first.get()) {
            (Flaw::HasNoRoom, _) => return Err(HatError::NoMemory { addr: at }),
            (Flaw::UnloadsForAnother, Some(first)) => Arc::clone(first),
            _ => provider.alloc(&cx)?,
        };
        let _ = first.set(Arc::clone(&inner));
        Ok(Arc::new(Flawed {
            inner,
            flaw,
            since: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            deaf: Arc::clone(&deaf),
        }))
    };
    let access = |hat: &dyn Hat, cpu, addr, access| {
        mmu.activate(&cx, cpu, Some(SpaceId(hat.id())));
        match access {
            Access::Write => mmu.store(&cx, cpu, addr, &[1]).is_ok(),
            _ => mmu.load(&cx, cpu, addr, &mut [0]).is_ok(),
        }
    };
    let case = HatCase {
        cx: &cx,
        db: &db,
        name: "flawed",
        make: &make,
        at: VirtAddr::new(AT).expect("canonical"),
        lists: true,
        access: Some(&access),
    };
    check_hat(&case)?;
    if flaw == Flaw::Nothing {
        hat(&HatCase { name: "X86Hat", make: &|| provider.alloc(&cx), ..case });
        provider.verify(&cx).expect("the tables are sound");
        assert_eq!(mmu.stale_entries(&cx), []);
    }
    Ok(())
}

#[test]
fn page_tables_keep_the_contract() {
    Breach::raise(judged(Flaw::Nothing));
}

/// Each flaw, and the clause that catches it.
const FLAWS: &[(Flaw, &str)] = {
    use Flaw::*;
    &[
        (NeverFlushes, "T1"),
        (FlushesPagesHere, "T1"),
        (ReplacesInSecret, "T1"),
        (ReplacesInRunsInSecret, "T1"),
        (ReplacesDevicesInSecret, "T1"),
        (NarrowsRunsInSecret, "T1"),
        (LosesModifiedOfPages, "unload and sync keep"),
        (LoadsReadOnly, "memload maps the page's frame"),
        (KeepsOldRights, "an entry for the same frame"),
        (ReplacesUnasked, "another frame is mapped only with REMAP"),
        (IgnoresStamps, "an out-of-date stamp stores nothing"),
        (LeavesTheLastOfARange, "unload removes"),
        (UnloadsOneTooMany, "a call leaves translations outside"),
        (LeavesRightsAlone, "chg_prot gives existing"),
        (LeavesWrite, "clear_write"),
        (TakesExecutionToo, "clear_write"),
        (WalksBackwards, "walk calls for each"),
        (WalksWithoutTheFirst, "walk calls for each"),
        (RightsOfTheFirstForAll, "rights()"),
        (CountsOneTooMany, "resident()"),
        (RunsOverWhatIsThere, "an advisory run"),
        (MapsOneDeviceFrame, "devload"),
        (LosesModified, "unload and sync keep"),
        (SyncsNothing, "unload and sync keep"),
        (SyncsForEver, "what a sync has harvested"),
        (KeepsBitsOfNosync, "NOSYNC"),
        (UnloadsForAnother, "hats do not share"),
        (HasNoRoom, "a hat, eight free pages of addresses"),
        (KeepsLoadsWithoutRights, "chg_prot to no rights means unload"),
        (StopsRunsAtAGap, "memload_run loads each page"),
        (LosesWhatFollowsASync, "after a harvest the next use"),
        (ListsAPageOnce, "unloading a page removes"),
        (KeepsOneAtTheEnd, "after free_end no translation"),
    ]
};

/// Those that show when two threads meet in them.
const MEETINGS: &[(Flaw, &str)] =
    &[(Flaw::MixesUpItsCallers, "loads and unloads of several threads")];

#[test]
fn every_flaw_of_a_hat_is_caught_by_its_clause() {
    all_caught(FLAWS, judged);
    all_caught_some_time(MEETINGS, judged);
}

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    clauses_of(&[FLAWS, MEETINGS])
}
