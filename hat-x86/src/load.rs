//! Loading a translation.
//!
//! # The difficulty
//!
//! A load may need memory for tables and mapping records, meets other loads of the same address, replaces what was there
//! before, and decides by a protection that may have changed since it was read. It must do all or nothing.
//!
//! # The rule
//!
//! ```text
//!   find and lock the leaf          tables gathered before any lock; a new chain is linked with the leaf locked
//!   stamp still current?            no: Stale, nothing stored; a leaf made in vain goes back
//!   the entry is
//!     absent                        page's list: add the mapping; store the entry
//!     for the same frame            change the rights; if they shrank, flush
//!     for another frame             Conflict, unless REMAP (or both are device memory):
//!                                   clear it, pin the table, unlock, flush, lock again, and look again
//! ```
//!
//! Replacing goes through *absent*, with a flush between: a store of one thread through the new frame is never followed by a load of another
//! through the old one that was found here. An entry that is absent already is filled at once: who made it so may owe its flush still (F4 of [`crate::tlb`]), and
//! a caller to whom that matters waits for it first ([`addr_space::Hat::settle`]). The pin keeps the table, and the records for the new mapping are taken before the old one goes, so nothing can fail after it.
//!
//! Accessed and dirty start clear: the walker sets them, and what a fault-ahead loaded in vain is not taken for used. NOSYNC and NOCONSIST
//! entries start with both set and are never harvested.
//!
//! Sources: [SI §12.4]; illumos `hati_load_common`, `hati_pte_map` (behaviour); illumos.md 9.5, 12.60.

use crate::geometry::index;
use crate::hat::HatState;
use crate::hment::{MapLists, Site, Spare};
use crate::htable::{Supply, TableGuard, clear, update};
use crate::provider::HatX86;
use crate::pte::{MAX_PFN, PteBits, X86Pte};
use crate::tlb::FlushDue;
use addr_space::{HatError, LoadFlags, Loaded, Stamp};
use page_db::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use page_db::sync::{Mutation, mutated};
use page_db::{Counter, Cx, LockedPage, PageId, Pfn, Prot, RefMod, VirtAddr, VirtRange};

/// What is to be loaded where.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) addr: VirtAddr,
    pub(crate) pfn: Pfn,
    /// The page, where there is one and its mapping list is kept.
    pub(crate) page: Option<PageId>,
    /// The page is locked exclusively.
    pub(crate) alone: bool,
    pub(crate) prot: Prot,
    pub(crate) flags: LoadFlags,
    pub(crate) stamp: Option<Stamp<'a>>,
}

/// What one look at the locked leaf came to.
enum Step {
    Done,
    /// Rights shrank: (old, new).
    Shrunk(X86Pte, X86Pte),
    /// Another frame's entry was cleared and the table pinned.
    Broken(X86Pte),
    Stale,
    Refused(HatError),
}

/// The bits of a new entry besides its rights.
#[inline]
pub(crate) fn kind(st: &HatState, flags: LoadFlags) -> PteBits {
    let user = if st.is_user() { PteBits::U } else { PteBits::G };
    let used = if flags.contains(LoadFlags::NOCONSIST) {
        PteBits::NOCONSIST | PteBits::A | PteBits::D
    } else if flags.contains(LoadFlags::NOSYNC) {
        PteBits::NOSYNC | PteBits::A | PteBits::D
    } else {
        PteBits::empty()
    };
    PteBits::P | user | used
}

impl HatX86 {
    #[expect(clippy::too_many_arguments, reason = "the trait's own, and the hat")]
    pub(crate) fn memload(
        &self,
        cx: &Cx,
        st: &HatState,
        addr: VirtAddr,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        let consistent = !flags.contains(LoadFlags::NOCONSIST);
        if !core::ptr::eq(page.db(), &*self.db) {
            return Err(HatError::ForeignPage { addr });
        }
        let (id, alone) = (page.id(), page.is_exclusive());
        let (pfn, page) = (self.db.pfn(id), consistent.then_some(id));
        self.load(cx, st, Load { addr, pfn, page, alone, prot, flags, stamp })
    }
    pub(crate) fn devload(
        &self,
        cx: &Cx,
        st: &HatState,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), HatError> {
        let flags = flags | LoadFlags::NOCONSIST;
        for (i, addr) in (0u64..).zip(range.iter_pages()) {
            let pfn = pfn.0.checked_add(i).map(Pfn).filter(|p| *p <= MAX_PFN);
            let pfn = pfn.ok_or(HatError::OutOfRange { addr })?;
            let load = Load { addr, pfn, page: None, alone: false, prot, flags, stamp: None };
            self.load(cx, st, load)?;
        }
        Ok(())
    }
    #[inline(always)] // into `memload`, and what is left of it for a device's page
    pub(crate) fn load(&self, cx: &Cx, st: &HatState, load: Load<'_>) -> Result<Loaded, HatError> {
        if !st.owns(load.addr) {
            return Err(HatError::OutOfRange { addr: load.addr });
        }
        if !load.prot.intersects(Prot::RWX) {
            return Ok(Loaded::Done); // no rights are expressed by having no translation
        }
        if self.load_simply(cx, st, load) {
            return Ok(Loaded::Done);
        }
        self.load_in_full(cx, st, &{ load })
    }
    /// The load of most faults: the leaf is one that this CPU used before, the entry is absent, nobody maps the page, and all flags ask for is what happens anyway.
    /// Says whether it was that; if not, nothing has changed.
    #[inline(always)] // with the load it is the first half of
    fn load_simply(&self, cx: &Cx, st: &HatState, load: Load<'_>) -> bool {
        let Some(page) = load.page else { return false };
        if !(LoadFlags::ADV | LoadFlags::REMAP).contains(load.flags) || self.caps.wants_hints {
            return false;
        }
        let Some(leaf) = self.hinted_leaf(cx, st, load.addr.get()) else { return false };
        let i = index(load.addr.get(), 0);
        let cell = leaf.cell(i);
        let granted = !load.prot.contains(Prot::WRITE) || !leaf.rec.is_denied();
        if !granted
            || cell.load(Acquire) != 0
            || load.stamp.is_some_and(|s| !s.is_current())
            || !MapLists::add_first(&self.db, page, leaf.site(i), load.alone)
        {
            return false;
        }
        let entry =
            X86Pte::new(load.pfn, kind(st, load.flags)).with_prot(self.granted_on(page, load.prot));
        cell.store(entry.0, Release);
        leaf.add_valid(1);
        cx.count(Counter::PteWrites);
        true
    }
    #[inline(never)]
    fn load_in_full(&self, cx: &Cx, st: &HatState, load: &Load<'_>) -> Result<Loaded, HatError> {
        let (mut supply, mut spare) = (Supply::default(), Spare::default());
        let done = self.load_with(cx, st, load, &mut supply, &mut spare);
        // held: none of the hat's
        self.give_back(cx, &mut supply);
        self.lists.give_back(cx, &mut spare);
        if load.flags.contains(LoadFlags::ADV) && matches!(done, Err(HatError::NoMemory { .. })) {
            return Ok(Loaded::Done);
        }
        if self.caps.wants_hints && matches!(done, Ok(Loaded::Done)) {
            self.mmu.hint_loaded(cx, st.space(), VirtRange::page_of(load.addr));
        }
        done
    }
    fn load_with(
        &self,
        cx: &Cx,
        st: &HatState,
        load: &Load<'_>,
        supply: &mut Supply,
        spare: &mut Spare,
    ) -> Result<Loaded, HatError> {
        let adv = load.flags.contains(LoadFlags::ADV);
        let Some(mut leaf) = self.lock_leaf(cx, st, load.addr, supply, adv)? else {
            return Ok(Loaded::Done);
        };
        loop {
            // held: leaf
            let mut due = None;
            let step = self.step(cx, st, &leaf, load, spare, &mut due);
            let emptied = leaf.emptied();
            let id = leaf.id;
            drop(leaf);
            // held: none of the hat's
            let (old, new, result) = match step {
                Step::Done if due.is_none() => return Ok(Loaded::Done),
                Step::Done => (X86Pte::EMPTY, X86Pte::EMPTY, Some(Ok(Loaded::Done))),
                Step::Shrunk(old, new) => (old, new, Some(Ok(Loaded::Done))),
                Step::Broken(old) => (old, X86Pte::EMPTY, None),
                Step::Stale => (X86Pte::EMPTY, X86Pte::EMPTY, Some(Ok(Loaded::Stale))),
                Step::Refused(e) => (X86Pte::EMPTY, X86Pte::EMPTY, Some(Err(e))),
            };
            let mut due = due.unwrap_or_else(|| self.flush_due_of(cx, st));
            due.add(st.space(), load.addr.page_floor().get(), 0, old, new);
            self.reclaim(cx, emptied, &mut due);
            self.finish(cx, &mut due);
            if let Some(r) = result {
                return r;
            }
            leaf = self.lock_table(cx, id);
            leaf.unpin();
        }
    }
    /// One look at the entry, the leaf locked.
    fn step(
        &self,
        cx: &Cx,
        st: &HatState,
        leaf: &TableGuard<'_>,
        load: &Load<'_>,
        spare: &mut Spare,
        due: &mut Option<FlushDue>,
    ) -> Step {
        if load.stamp.is_some_and(|s| !s.is_current()) && !mutated(Mutation::StampIgnored) {
            return Step::Stale;
        }
        if load.prot.contains(Prot::WRITE) {
            self.split(cx, leaf);
        }
        let i = index(load.addr.get(), 0);
        let old = leaf.entry(i);
        let open = || self.flush_due_of(cx, st);
        let step = if !old.is_present() {
            self.store(cx, st, leaf, i, load, spare)
        } else if old.pfn() == load.pfn {
            let prot = self.granted(load);
            if leaf.rec.effective(old).loses_to(old.with_prot(prot)) {
                due.get_or_insert_with(open); // F4: before the change
            }
            self.change(cx, leaf, i, prot)
        } else if let Err(e) = self.may_replace(cx, old, load, spare) {
            Step::Refused(e)
        } else {
            due.get_or_insert_with(open);
            let old = self.remove_entry(cx, leaf, i, true);
            leaf.pin();
            Step::Broken(old)
        };
        if load.flags.contains(LoadFlags::LOCK) && matches!(step, Step::Done | Step::Shrunk(..)) {
            leaf.lock(1);
        }
        step
    }
    /// The rights wanted less the right to store to a page that must not be mapped writable (`P_RO`).
    #[inline]
    fn granted(&self, load: &Load<'_>) -> Prot {
        load.page.map_or(load.prot, |page| self.granted_on(page, load.prot))
    }
    /// What of `prot` a page may be mapped with.
    #[inline]
    pub(crate) fn granted_on(&self, page: PageId, prot: Prot) -> Prot {
        if self.db.page(page).ref_mod().contains(RefMod::RO) { prot.read_only() } else { prot }
    }
    /// Fills an absent entry.
    fn store(
        &self,
        cx: &Cx,
        st: &HatState,
        leaf: &TableGuard<'_>,
        i: usize,
        load: &Load<'_>,
        spare: &mut Spare,
    ) -> Step {
        if let Some(page) = load.page
            && self.lists.add(cx, &self.db, page, leaf.site(i), load.alone, spare).is_err()
        {
            return Step::Refused(HatError::NoMemory { addr: load.addr });
        }
        // M2: the entry follows.
        let entry = X86Pte::new(load.pfn, kind(st, load.flags)).with_prot(self.granted(load));
        leaf.cell(i).store(entry.0, Release); // whoever must find it takes this table's lock (C1)
        leaf.add_valid(1);
        cx.count(Counter::PteWrites);
        Step::Done
    }
    /// Gives an entry for the same frame the rights wanted. What kind of entry it is (NOSYNC, NOCONSIST) stays.
    fn change(&self, cx: &Cx, leaf: &TableGuard<'_>, i: usize, prot: Prot) -> Step {
        let (old, new) = update(leaf.cell(i), |e| leaf.rec.entry_with(e, prot));
        cx.count_n(Counter::PteWrites, u64::from(old != new));
        let (old, new) = (leaf.rec.effective(old), leaf.rec.effective(new));
        if old.loses_to(new) { Step::Shrunk(old, new) } else { Step::Done }
    }
    /// Whether another frame's entry may be cleared to make room, with the records for the new mapping in hand.
    fn may_replace(
        &self,
        cx: &Cx,
        old: X86Pte,
        load: &Load<'_>,
        spare: &mut Spare,
    ) -> Result<(), HatError> {
        let device = load.page.is_none() && !old.is_consistent();
        if !load.flags.contains(LoadFlags::REMAP) && !device {
            let (have, want) = (old.pfn(), load.pfn);
            return Err(HatError::Conflict { addr: load.addr, have, want });
        }
        if load.page.is_some() && self.lists.reserve(cx, spare).is_err() {
            return Err(HatError::NoMemory { addr: load.addr });
        }
        Ok(())
    }
    /// Clears entry `i`, which is present: bits to the page if `keep`, mapping off its list. Returns what the entry was.
    pub(crate) fn remove_entry(
        &self,
        cx: &Cx,
        leaf: &TableGuard<'_>,
        i: usize,
        keep: bool,
    ) -> X86Pte {
        let old = self.take_entry(cx, leaf.id, i, leaf.cell(i), keep, false);
        leaf.sub_valid(1);
        cx.count(Counter::PteWrites);
        old
    }
    /// The same for entry `i` of the locked leaf `table`, in `cell`; the caller counts it. `quiet` when nothing runs in the hat.
    #[inline]
    pub(crate) fn take_entry(
        &self,
        cx: &Cx,
        table: u32,
        i: usize,
        cell: &AtomicU64,
        keep: bool,
        quiet: bool,
    ) -> X86Pte {
        let seen = X86Pte(cell.load(Acquire));
        if !seen.is_consistent() {
            return clear(cell, quiet);
        }
        let page = self.db.page_of(seen.pfn()).expect("M1: consistent entries map managed frames");
        let mut list = self.lists.enter(cx, &self.db, page);
        let old = clear(cell, quiet);
        let used = old.bits().intersects(PteBits::A | PteBits::D);
        if keep && used && old.is_synced() {
            self.db.page(page).gather_ref_mod(old.ref_mod()); // M3: before the mapping goes
        }
        let was = list.remove(Site { table, entry: i as u16 });
        debug_assert!(was, "M1: a consistent entry is on its page's list");
        old
    }
}
