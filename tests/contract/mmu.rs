//! Processors: the simulated ones, and some with flaws.

use crate::{all_caught, all_caught_some_time, clauses_of, machine};
use hat_x86::{
    Bytes, Caps, CpuSet, FlushDue, FlushEntry, HostConfig, HostMmu, Mmu, Mode, PteBits,
    RetiredTables, SpaceId, Trap, UserAccess,
};
use page_db::{CpuId, Cx, Pfn, PhysMem, Reserve, VirtAddr, VirtRange};
use segvm::contract::{Breach, MmuCase, check_mmu, mmu};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    Nothing,
    ServesNobody,
    ChangesItsMind,
    IsDeaf,
    ForgetsOneEntryOnly,
    ForgetsNoWholeSpace,
    ForgetsTablesOnly,
    ForgetsNoTable,
    ForgetsNoUnlinkedTable,
    EntersLate,
    KeepsTheKernels,
    KeepsMarks,
    StaysWhereItIs,
    NeverLeaves,
    RunsNowhere,
    RunsEverywhere,
    RemembersWhereItRuns,
    RemembersNoKernel,
    KeepsTheDead,
    LetsInToTheDead,
    LosesTables,
    SaysItIsWrong,
    ReachesThePageBeside,
    NeverStoresAgain,
    ShowsTheKernelToUsers,
    HasNoRoom,
}

/// The simulated processors behind a layer with a flaw.
#[derive(Debug)]
struct Flawed {
    host: Arc<HostMmu>,
    flaw: Flaw,
    asked: AtomicU16,
    /// Roots of spaces that are gone.
    dead: Mutex<BTreeMap<SpaceId, Pfn>>,
    /// Who has entered which space, as it says, and how often that was asked.
    entered: Mutex<BTreeSet<(SpaceId, u16)>>,
    looked: AtomicU64,
    /// Pages that were not to be stored to once.
    read_only: Mutex<BTreeSet<VirtAddr>>,
}

impl Flawed {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    /// Walks as soon as the space is there, and says only then that it is in it.
    fn enter_late(&self, cx: &Cx, cpu: CpuId, id: SpaceId) {
        self.host.activate(cx, cpu, Some(id));
        if self.entered.lock().unwrap().contains(&(id, cpu.0)) {
            return;
        }
        let at = VirtAddr::new(0x40_0000).expect("canonical");
        let mut byte = [0];
        if self.host.load(cx, cpu, at, &mut byte).is_ok() {
            let _ = self.host.store(cx, cpu, at, &byte); // or nothing that is remembered lets one through
        }
        let looked = self.looked.load(SeqCst);
        for _ in 0..1000 {
            if self.looked.load(SeqCst) != looked {
                break;
            }
            std::thread::yield_now();
        }
        self.entered.lock().unwrap().insert((id, cpu.0));
    }
    /// Flushes all that is named but the entries that led to tables.
    fn flush_no_unlinked(&self, cx: &Cx, due: &FlushDue) {
        if due.is_everything() || due.whole_spaces().next().is_some() {
            return self.host.flush(cx, due);
        }
        for e in due.entries().filter(|e| e.level == 0 || e.new.is_present()) {
            due.cpus().iter().for_each(|cpu| self.host.forget(cx, cpu, &e));
        }
    }
    fn is_lost(&self, due: &FlushDue) -> bool {
        let mut named = due.entries();
        match self.flaw {
            Flaw::IsDeaf => true,
            Flaw::ForgetsOneEntryOnly => named.count() > 1,
            Flaw::ForgetsNoWholeSpace => due.whole_spaces().next().is_some(),
            Flaw::ForgetsTablesOnly => named.all(|e| e.level == 0) && !due.is_everything(),
            Flaw::ForgetsNoTable => named.any(|e| e.level == 1 && e.new.is_present()),
            Flaw::KeepsTheKernels => due.spaces().contains(&SpaceId::KERNEL),
            Flaw::KeepsMarks => {
                let right = |e: &FlushEntry| e.old.has(PteBits::W) == e.new.has(PteBits::W);
                named.all(|e| e.old.pfn() == e.new.pfn() && right(&e))
                    && due.whole_spaces().next().is_none()
            }
            _ => false,
        }
    }
}

impl Mmu for Flawed {
    fn caps(&self) -> Caps {
        self.host.caps()
    }
    fn serves(&self, cx: &Cx, mem: &dyn PhysMem, root: Pfn) -> bool {
        !self.is(Flaw::ServesNobody) && self.host.serves(cx, mem, root)
    }
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.host.space_created(cx, id, root);
    }
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.dead.lock().unwrap().insert(id, root);
        if !self.is(Flaw::KeepsTheDead) {
            self.host.space_destroyed(cx, id, root);
        }
    }
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>) {
        match self.flaw {
            Flaw::StaysWhereItIs if id.is_some() && self.host.current(cx, cpu).0 != 0 => return,
            Flaw::NeverLeaves if id.is_none() => return,
            Flaw::LetsInToTheDead => {
                let root = id.and_then(|id| self.dead.lock().unwrap().get(&id).copied());
                if let (Some(id), Some(root)) = (id, root) {
                    self.host.space_created(cx, id, root);
                }
            }
            Flaw::EntersLate if id.is_some() => {
                return self.enter_late(cx, cpu, id.unwrap_or_default());
            }
            _ => {}
        }
        self.host.activate(cx, cpu, id);
    }
    fn cpu_count(&self) -> u16 {
        let more = self.is(Flaw::ChangesItsMind) && self.asked.fetch_add(1, Relaxed) == 0;
        self.host.cpu_count() + u16::from(more)
    }
    fn running_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        match self.flaw {
            Flaw::RunsNowhere => {}
            Flaw::RunsEverywhere => cpus.fill(self.host.cpu_count()),
            _ => self.host.running_on(cx, id, cpus),
        }
    }
    fn remembered_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        match self.flaw {
            Flaw::RemembersWhereItRuns => self.host.running_on(cx, id, cpus),
            Flaw::RemembersNoKernel if id == SpaceId::KERNEL => {}
            Flaw::EntersLate if id != SpaceId::KERNEL => {
                let mut here = CpuSet::of_group(0);
                self.host.remembered_on(cx, id, &mut here);
                let entered = self.entered.lock().unwrap();
                here.iter().filter(|c| entered.contains(&(id, c.0))).for_each(|c| cpus.insert(c));
                self.looked.fetch_add(1, SeqCst);
            }
            _ => self.host.remembered_on(cx, id, cpus),
        }
    }
    fn flush(&self, cx: &Cx, due: &FlushDue) {
        if self.is(Flaw::ForgetsNoUnlinkedTable) {
            return self.flush_no_unlinked(cx, due);
        }
        if self.is(Flaw::NeverStoresAgain) {
            let weaker = |e: &FlushEntry| e.old.has(PteBits::W) && !e.new.has(PteBits::W);
            let pages = due.entries().filter(weaker).map(|e| e.va);
            self.read_only.lock().unwrap().extend(pages);
        }
        if !self.is_lost(due) {
            self.host.flush(cx, due);
        }
    }
    fn retire_tables(&self, cx: &Cx, tables: &mut RetiredTables<'_>, free: &mut dyn FnMut(Pfn)) {
        if self.is(Flaw::LosesTables) {
            return tables.for_each(drop);
        }
        self.host.retire_tables(cx, tables, free);
    }
    fn remembered_wrongly(&self, _: &Cx) -> Option<String> {
        self.is(Flaw::SaysItIsWrong).then(|| "something".to_owned())
    }
    fn hint_loaded(&self, cx: &Cx, id: SpaceId, range: VirtRange) {
        self.host.hint_loaded(cx, id, range);
    }
}

impl UserAccess for Flawed {
    fn access(
        &self,
        cx: &Cx,
        cpu: CpuId,
        mode: Mode,
        va: VirtAddr,
        bytes: Bytes<'_>,
    ) -> Result<(), Trap> {
        let beside = VirtAddr::new(va.get() ^ page_db::PAGE_SIZE).unwrap_or(va);
        let nowhere = VirtAddr::new(0).expect("canonical");
        let stores = matches!(bytes, Bytes::Store(_));
        let (mode, va) = match self.flaw {
            Flaw::ReachesThePageBeside => (mode, beside),
            Flaw::ShowsTheKernelToUsers => (Mode::Supervisor { write_protect: true }, va),
            Flaw::NeverStoresAgain if stores && self.read_only.lock().unwrap().contains(&va) => {
                (mode, nowhere)
            }
            _ => (mode, va),
        };
        self.host.access(cx, cpu, mode, va, bytes)
    }
}

fn judged(flaw: Flaw) -> Result<(), Breach> {
    let (cx, db, host) = machine(2, HostConfig::default());
    let (asked, dead) = (AtomicU16::new(0), Mutex::default());
    let (entered, looked) = (Mutex::default(), AtomicU64::new(0));
    let read_only = Mutex::default();
    let flawed = Arc::new(Flawed { host, flaw, asked, dead, entered, looked, read_only });
    if flaw == Flaw::HasNoRoom {
        while let Ok(page) = db.alloc(&cx, 0, Reserve::Push) {
            let _ = page.leak(); // for good
        }
    }
    let user = Arc::clone(&flawed);
    check_mmu(&MmuCase { cx: &cx, db: &db, name: "flawed", mmu: flawed, user: &*user })
}

#[test]
fn simulated_processors_keep_the_contract() {
    // One, several, more than a group; that remember all, or hardly anything.
    for (cpus, capacity) in [(1, None), (2, None), (3, Some(2)), (300, Some(1))] {
        let (cx, db, host) = machine(cpus, HostConfig { capacity, seed: 7 });
        let user = Arc::clone(&host);
        mmu(&MmuCase { cx: &cx, db: &db, name: "HostMmu", mmu: host, user: &*user });
        db.verify(&cx).expect("pages are sound");
    }
    Breach::raise(judged(Flaw::Nothing));
}

/// Each flaw, and the clause that catches it.
const FLAWS: &[(Flaw, &str)] = {
    use Flaw::*;
    &[
        (ServesNobody, "serves()"),
        (ChangesItsMind, "caps() and cpu_count()"),
        (IsDeaf, "after flush()"),
        (ForgetsOneEntryOnly, "after flush()"),
        (ForgetsNoWholeSpace, "after flush()"),
        (ForgetsTablesOnly, "after flush()"),
        (ForgetsNoTable, "after flush()"),
        (ForgetsNoUnlinkedTable, "after flush()"),
        (KeepsTheKernels, "after flush()"),
        (KeepsMarks, "an access marks"),
        (StaysWhereItIs, "a processor uses no translation"),
        (NeverLeaves, "activate(None)"),
        (RunsNowhere, "running_on()"),
        (RunsEverywhere, "running_on()"),
        (RemembersWhereItRuns, "remembered_on()"),
        (RemembersNoKernel, "remembered_on()"),
        (KeepsTheDead, "of a destroyed space"),
        (LetsInToTheDead, "of a destroyed space"),
        (LosesTables, "retire_tables()"),
        (SaysItIsWrong, "nothing is remembered wrongly"),
        (ReachesThePageBeside, "a processor reaches what is mapped"),
        (NeverStoresAgain, "what an entry gains is used"),
        (ShowsTheKernelToUsers, "the kernel's translations are part of every space"),
        (HasNoRoom, "the case has memory for the suite"),
    ]
};

/// Those that show when two threads meet in them.
const MEETINGS: &[(Flaw, &str)] = &[(Flaw::EntersLate, "after flush()")];

#[test]
fn every_flaw_of_processors_is_caught_by_its_clause() {
    all_caught(FLAWS, judged);
    all_caught_some_time(MEETINGS, judged);
}

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    clauses_of(&[FLAWS, MEETINGS])
}
