//! The shared half of the hat: tables, mapping lists, the registry of hats; and the making of hats.
//!
//! ```text
//!   Arc<HatX86> ── tables: Arena<HTable>     ── lists: hments and their locks      ── hats: id ─▶ HatState
//!       ▲    └──── db: Arc<PageDb>           └─ mmu: Arc<dyn Mmu>
//!       │               └──── mappings: PageSide ── Weak ──▶ the same HatX86        (weak, or neither would ever be dropped)
//!   X86Hat = Arc<HatX86> + Arc<HatState>
//! ```
//!
//! The kernel's hat is made here, with the tables of [`KERNEL_WINDOW`]'s top-level entry; each user hat copies that
//! entry of the kernel's top table when it is made, and never has to look at it again.
//!
//! - P1: the upper halves of all top tables are the same: the window's entry is copied here, the others are the backend's
//!   ([`Mmu::space_created`]). The hat neither reads nor counts them, and frees nothing below them.
//!
//! Sources: [SI §12.2]; illumos `hat_i86.c`, `hat_alloc`, `hat_create` (behaviour).

use crate::error::SetupError;
use crate::geometry::{KERNEL_WINDOW, USER_WINDOW, WINDOW_TOP};
use crate::hat::{HatState, X86Hat};
use crate::hment::MapLists;
use crate::htable::HTable;
use crate::htable::Supply;
use crate::mmu::{Caps, CpuSet, Mmu, SpaceId};
use crate::page::PageSide;
use crate::pte::{MAX_PFN, PteBits, X86Pte};
use crate::retired::RetiredTables;
use crate::tlb::{Debts, FlushDue, MANY};
use crate::walk::Hint;
use addr_space::{Hat, HatError, HatProvider};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst, fence};
use page_db::sync::{Arena, Mutation, Mutex, Once, PerCpu, mutated, spin_wait};
use page_db::{Counter, Cx, PageDb, Pfn, Rank, VirtRange};

/// Bounds on records, for machines that want to run out of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HatLimits {
    /// Page tables.
    pub tables: u32,
    /// Mappings of pages with several.
    pub hments: u32,
}

impl Default for HatLimits {
    fn default() -> Self {
        Self { tables: u32::MAX, hments: u32::MAX }
    }
}

/// All hats of a machine: the provider, and the page layer's way to every translation of a page.
pub struct HatX86 {
    me: Weak<Self>,
    pub(crate) db: Arc<PageDb>,
    pub(crate) mmu: Arc<dyn Mmu>,
    pub(crate) caps: Caps,
    pub(crate) tables: Arena<HTable>,
    pub(crate) lists: MapLists,
    /// Shared with the page database's side, which looks at it often.
    pub(crate) debts: Arc<Debts>,
    pub(crate) hats: Mutex<BTreeMap<u32, Arc<HatState>>>,
    kernel: Once<Arc<HatState>>,
    pub(crate) next_id: AtomicU32,
    /// The hat last stolen from; the next search starts behind it.
    pub(crate) steal_hand: AtomicU32,
}

impl fmt::Debug for HatX86 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HatX86")
            .field("mmu", &self.mmu)
            .field("tables", &self.tables.live())
            .field("hments", &self.lists.live())
            .finish_non_exhaustive()
    }
}

impl HatX86 {
    /// Makes the kernel's hat and becomes the page database's hat.
    ///
    /// # Errors
    /// [`SetupError`]; nothing has changed.
    pub fn new(cx: &Cx, db: Arc<PageDb>, mmu: Arc<dyn Mmu>) -> Result<Arc<Self>, SetupError> {
        Self::with_limits(cx, db, mmu, HatLimits::default())
    }
    /// As [`HatX86::new`], with bounds on records.
    ///
    /// # Errors
    /// [`SetupError`]; no frame is kept.
    pub fn with_limits(
        cx: &Cx,
        db: Arc<PageDb>,
        mmu: Arc<dyn Mmu>,
        limits: HatLimits,
    ) -> Result<Arc<Self>, SetupError> {
        let (cpus, frames) = (db.cpus(), db.pages().len());
        if let Some(last) = db.pages().ids().next_back().map(|id| db.pfn(id))
            && last > MAX_PFN
        {
            return Err(SetupError::OutOfReach { pfn: last });
        }
        let hx = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            caps: mmu.caps(),
            tables: Arena::new("page table", cpus, limits.tables),
            lists: MapLists::new(cpus, frames, limits.hments),
            debts: Arc::new(Debts::new(cpus)),
            hats: Mutex::new(Rank::Hat, BTreeMap::new()),
            kernel: Once::new(),
            next_id: AtomicU32::new(SpaceId::KERNEL.0),
            steal_hand: AtomicU32::new(0),
            db,
            mmu,
        });
        // The tables first: a machine that has no frames for them can be set up again, one that has a hat cannot.
        let mut supply = Supply::default();
        let addr = KERNEL_WINDOW.start();
        let ready = hx.gather(cx, addr, &mut supply, 2).map_err(SetupError::from);
        let ready = ready.and_then(|()| {
            let hints = HatState::make_hints(cpus).map_err(|_| HatError::NoMemory { addr })?;
            hx.install(cx, &supply).map(|()| hints)
        });
        match ready {
            Ok(hints) => {
                let st = hx.make_kernel(cx, hints, &mut supply);
                let _ = hx.kernel.set(st); // this is the only place that sets it
                Ok(hx)
            }
            Err(refused) => {
                hx.give_back(cx, &mut supply);
                Err(refused)
            }
        }
    }
    /// Becomes the page database's hat, with `supply` for the kernel's tables.
    fn install(&self, cx: &Cx, supply: &Supply) -> Result<(), SetupError> {
        if self.db.has_mappings() {
            return Err(SetupError::SecondHat);
        }
        if !self.mmu.serves(cx, self.db.mem(), self.tables.get(supply.next()).pfn()) {
            return Err(SetupError::ForeignMmu);
        }
        let first = self.db.set_mappings(Arc::new(PageSide::new(&self.strong())));
        if first { Ok(()) } else { Err(SetupError::SecondHat) }
    }
    /// The kernel's hat out of two gathered tables: the top, and the one of the window's entry.
    fn make_kernel(&self, cx: &Cx, hints: PerCpu<Hint>, supply: &mut Supply) -> Arc<HatState> {
        let st = self.register(cx, KERNEL_WINDOW, hints, supply);
        let root = self.lock_table(cx, st.root);
        self.link_pinned(cx, &st, &root, KERNEL_WINDOW.start().get(), supply);
        drop(root);
        self.mmu.space_created(cx, SpaceId::KERNEL, self.root_pfn(&st));
        st
    }
    /// Makes a hat of a gathered table and of hints, and enters it in the registry.
    fn register(
        &self,
        cx: &Cx,
        window: VirtRange,
        hints: PerCpu<Hint>,
        supply: &mut Supply,
    ) -> Arc<HatState> {
        let mut hats = self.hats.lock(cx);
        // held: the registry. Numbers begin anew after the last one, and those in use are passed over.
        let id = loop {
            let id = self.next_id.fetch_add(1, Relaxed);
            if id != MANY && !hats.contains_key(&id) {
                break id;
            }
        };
        let root = self.become_root(id, supply);
        let st = Arc::new(HatState::new(id, window, root, hints));
        hats.insert(id, Arc::clone(&st));
        st
    }
    pub(crate) fn kernel_state(&self) -> &Arc<HatState> {
        self.kernel.get().expect("P1: the kernel's hat is made first")
    }
    /// Frame of a hat's top table.
    pub(crate) fn root_pfn(&self, st: &HatState) -> Pfn {
        self.tables.get(st.root).pfn()
    }
    /// Opens a debt for changes in any hat.
    #[inline]
    pub(crate) fn flush_due(&self, cx: &Cx) -> FlushDue {
        FlushDue::open(&self.debts, cx, None, self.caps.referenced_before_cached)
    }
    /// Opens a debt for changes in one hat; nothing will be owed if it is being freed.
    #[inline]
    pub(crate) fn flush_due_of(&self, cx: &Cx, st: &HatState) -> FlushDue {
        if st.is_freeing() {
            return FlushDue::muted();
        }
        FlushDue::open(&self.debts, cx, Some(st.space()), self.caps.referenced_before_cached)
    }
    /// Pays: flushes what is owed, here and by others (F4), then gives the unlinked tables to the backend and what comes back to
    /// the page layer. No hat lock is held.
    pub(crate) fn finish(&self, cx: &Cx, due: &mut FlushDue) {
        if due.is_open() {
            due.join_others(&self.debts);
        }
        if due.is_owed() {
            self.flush(cx, due);
        }
        due.close(&self.debts);
        let first = core::mem::take(&mut due.retired);
        if first != 0 {
            self.retire(cx, first);
        }
    }
    /// Flushes for others what they owe now ([`page_db::PageMappings::settle`]).
    pub(crate) fn pay_for_others(&self, cx: &Cx) {
        self.pay(cx, FlushDue::muted());
    }
    /// The same for what they owe in one space ([`addr_space::Hat::settle`]).
    pub(crate) fn pay_for_others_in(&self, cx: &Cx, st: &HatState) {
        self.pay(cx, FlushDue::muted_of(st.space()));
    }
    fn pay(&self, cx: &Cx, mut due: FlushDue) {
        due.join_others(&self.debts);
        self.finish(cx, &mut due);
    }
    /// Gives the unlinked tables from `first` on to the backend, 0 for none; how many frames came back.
    fn retire(&self, cx: &Cx, first: u32) -> u64 {
        let mut back = 0;
        let mut tables = RetiredTables::new(&self.tables, first);
        self.mmu.retire_tables(cx, &mut tables, &mut |pfn| {
            self.free_table(cx, pfn);
            back += 1;
        });
        back
    }
    #[cold]
    fn flush(&self, cx: &Cx, due: &mut FlushDue) {
        let kernel = due.is_everything() || due.spaces().contains(&SpaceId::KERNEL);
        let mut flushed = false;
        // The entries first, then the sets: a change that was a plain store (H5) may still be on its way, and a CPU that comes now would walk what was.
        fence(SeqCst);
        for mut cpus in CpuSet::groups(self.mmu.cpu_count()) {
            // Read after the entries changed: a CPU that is not in the set yet will walk the tables as they are now.
            if kernel {
                self.mmu.remembered_on(cx, SpaceId::KERNEL, &mut cpus);
            } else {
                due.spaces().iter().for_each(|s| self.mmu.remembered_on(cx, *s, &mut cpus));
            }
            if cpus.is_empty() {
                continue;
            }
            flushed = true;
            due.set_cpus(cpus);
            self.mmu.flush(cx, due);
        }
        if flushed {
            cx.count(Counter::Flushes);
            cx.count_n(Counter::FlushEntries, due.changes());
        }
    }
    /// Whether `ask` finds a processor of any group.
    pub(crate) fn on_any(&self, ask: impl Fn(&mut CpuSet)) -> bool {
        CpuSet::groups(self.mmu.cpu_count()).any(|mut cpus| {
            ask(&mut cpus);
            !cpus.is_empty()
        })
    }
    /// Lets the backend give back tables it kept for later; how many it gave.
    pub fn reap_tables(&self, cx: &Cx) -> u64 {
        self.retire(cx, 0)
    }
    /// Nothing runs in the hat from here on. Only then is what is unloaded without a debt and cleared by plain stores (H5); a thread of the space that
    /// is still there faults, however long the rest takes.
    pub(crate) fn begin_to_end(&self, cx: &Cx, st: &HatState) {
        if !st.begin_to_leave() {
            return;
        }
        if !mutated(Mutation::FreeingBeforeLeft) {
            self.leave(cx, st);
        }
        st.begin_to_go();
    }
    /// Makes the processors leave the space for good, and forget all of it at once.
    fn leave(&self, cx: &Cx, st: &HatState) {
        let remembered = self.on_any(|cpus| self.mmu.remembered_on(cx, st.space(), cpus));
        let remembered = u64::from(remembered);
        self.mmu.space_destroyed(cx, st.space(), self.root_pfn(st));
        cx.count_n(Counter::Flushes, remembered);
        cx.count_n(Counter::FlushEntries, remembered);
    }
    /// Takes a user's hat apart: what it still maps is unloaded, every table goes back.
    pub(crate) fn end(&self, cx: &Cx, st: &HatState) {
        self.begin_to_end(cx, st);
        if !st.begin_to_end() {
            return;
        }
        let (mut due, mut turns) = (FlushDue::muted(), 0);
        loop {
            if self.tables.get(st.root).valid() != 0 && !mutated(Mutation::TopEndsFirst) {
                self.unload_state(cx, st, st.window, addr_space::UnloadFlags::empty());
            }
            if self.retire_root(cx, st, &mut due) {
                break;
            }
            // H2: a page's unloader or a thief has emptied a leaf and is on its way up, on which it waits for tables' locks only.
            spin_wait(cx, turns);
            turns = turns.saturating_add(1);
        }
        if mutated(Mutation::FreeingBeforeLeft) {
            self.leave(cx, st);
        }
        self.hats.lock(cx).remove(&st.id);
        self.finish(cx, &mut due);
    }
    /// The page database under it.
    pub fn db(&self) -> &Arc<PageDb> {
        &self.db
    }
    /// The backend.
    pub fn mmu(&self) -> &Arc<dyn Mmu> {
        &self.mmu
    }
    /// All hats, by id.
    pub(crate) fn states(&self, cx: &Cx) -> Vec<Arc<HatState>> {
        self.hats.lock(cx).values().cloned().collect()
    }
    /// A hat by id.
    pub(crate) fn state(&self, cx: &Cx, id: u32) -> Option<Arc<HatState>> {
        self.hats.lock(cx).get(&id).cloned()
    }
    fn strong(&self) -> Arc<Self> {
        self.me.upgrade().expect("a reference to the provider proves that it lives")
    }
}

impl HatProvider for HatX86 {
    fn alloc(&self, cx: &Cx) -> Result<Arc<dyn Hat>, HatError> {
        let (mut supply, addr) = (Supply::default(), USER_WINDOW.start());
        let hints = HatState::make_hints(self.db.cpus());
        let hints = hints.map_err(|_| HatError::NoMemory { addr })?;
        self.gather(cx, addr, &mut supply, 1)?;
        let st = self.register(cx, USER_WINDOW, hints, &mut supply);
        let (from, to) = (self.root_pfn(self.kernel_state()), self.root_pfn(&st));
        // P1: the rest of the upper half is the backend's. A was set by walks through the kernel's own top table; a copy starts without.
        let entry = X86Pte(self.db.word(from, WINDOW_TOP).load(SeqCst));
        let entry = entry.with(PteBits::empty(), PteBits::A);
        self.db.word(to, WINDOW_TOP).store(entry.0, SeqCst);
        cx.count(Counter::PteWrites);
        self.mmu.space_created(cx, SpaceId(st.id), to);
        Ok(Arc::new(X86Hat::new(self.strong(), st)))
    }
    fn kernel(&self) -> Arc<dyn Hat> {
        Arc::new(X86Hat::new(self.strong(), Arc::clone(self.kernel_state())))
    }
}
