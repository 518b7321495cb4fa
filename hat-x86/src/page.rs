//! All translations of one page: page-out's and destruction's way into every address space.
//!
//! The lists of [`crate::hment`] lead from the page to the entries, which is against the order of the locks (a table's, then a
//! page's list). So unloading copies one mapping, lets the list go, locks the table and looks again:
//!
//! ```text
//!   list locked:   copy (table, entry)                     none left: done
//!   list free
//!   table locked:  does the entry still map this frame?    no: somebody else removed it; look at the list again
//!                  swap it out, bits to the page, mapping off the list
//!   table free:    empty now? unlink it
//!   ... until none is left; then one flush for all spaces
//! ```
//!
//! Harvesting and write protection take no mapping away, so they change the entries through the list alone (M2).
//!
//! A page may have lost a mapping to another thread that has not flushed yet; see F4 in [`crate::tlb`] for why every verb here ends by looking for such debts.
//!
//! The page database holds this side weakly: it is owned by what it would own.
//!
//! Sources: [SI §12.5]; illumos `hat_pageunload`, `hat_pagesync` (behaviour); illumos.md 9.5; DESIGN D10.

use crate::geometry::shift;
use crate::hment::Site;
use crate::mmu::SpaceId;
use crate::provider::HatX86;
use crate::pte::{PteBits, X86Pte};
use crate::tlb::{Debts, FlushDue};
use alloc::sync::{Arc, Weak};
use page_db::sync::atomic::{AtomicU64, Ordering::SeqCst};
use page_db::sync::{Mutation, mutated};
use page_db::{Counter, Cx, PageId, PageMappings, RefMod, SyncMode};

/// What the page database is given.
#[derive(Debug)]
pub(crate) struct PageSide {
    hx: Weak<HatX86>,
    /// Looked at whenever a page is freed, so not through `hx`: taking a reference writes a line that all CPUs would share.
    debts: Arc<Debts>,
}

impl PageSide {
    pub(crate) fn new(hx: &Arc<HatX86>) -> Self {
        Self { hx: Arc::downgrade(hx), debts: Arc::clone(&hx.debts) }
    }
}

/// After the hat is gone no page is mapped.
impl PageMappings for PageSide {
    fn unload(&self, cx: &Cx, page: PageId) {
        if let Some(hx) = self.hx.upgrade() {
            hx.unload(cx, page);
        }
    }
    fn sync(&self, cx: &Cx, page: PageId, mode: SyncMode) -> RefMod {
        self.hx.upgrade().map_or_else(RefMod::empty, |hx| hx.sync(cx, page, mode))
    }
    fn clear_write(&self, cx: &Cx, page: PageId) {
        if let Some(hx) = self.hx.upgrade() {
            hx.clear_write(cx, page);
        }
    }
    fn share_count(&self, cx: &Cx, page: PageId) -> u32 {
        self.hx.upgrade().map_or(0, |hx| hx.share_count(cx, page))
    }
    fn settle(&self, cx: &Cx) {
        if self.debts.any()
            && let Some(hx) = self.hx.upgrade()
        {
            hx.pay_for_others(cx);
        }
    }
}

impl HatX86 {
    /// The entry at `site`, whose page's list is locked and has it (M2).
    pub(crate) fn cell_at(&self, site: Site) -> &AtomicU64 {
        self.db.word(self.tables.get(site.table).pfn(), usize::from(site.entry))
    }
    /// Space and address of `site`, under the same condition.
    pub(crate) fn place_of(&self, site: Site) -> (SpaceId, u64) {
        let rec = self.tables.get(site.table);
        (SpaceId(rec.hat()), rec.base() + (u64::from(site.entry) << shift(0)))
    }
    /// Takes `bits` from the entry at `site` and notes what is owed; the entry as it was.
    fn take_bits(&self, cx: &Cx, site: Site, bits: PteBits, due: &mut FlushDue) -> X86Pte {
        let old = X86Pte(self.cell_at(site).fetch_and(!bits.bits(), SeqCst));
        let new = old.with(PteBits::empty(), bits);
        if old != new {
            cx.count(Counter::PteWrites);
            let (space, va) = self.place_of(site);
            due.add(space, va, 0, old, new);
        }
        old
    }
    /// Removes the mapping at `site` if it is still one of `page`'s.
    fn unload_site(&self, cx: &Cx, page: PageId, site: Site, due: &mut FlushDue) {
        let leaf = self.lock_table(cx, site.table);
        let entry = leaf.entry(usize::from(site.entry));
        let live = leaf.rec.is_alive() && leaf.rec.level() == 0;
        let ours =
            live && entry.is_present() && entry.is_consistent() && entry.pfn() == self.db.pfn(page);
        if !ours && !mutated(Mutation::MappingBelieved) {
            debug_assert!(
                !self.lists.enter(cx, &self.db, page).contains(site),
                "M1: with the table locked, a listed mapping has its entry"
            );
            return;
        }
        let (space, va) = self.place_of(site);
        let old = self.remove_entry(cx, &leaf, usize::from(site.entry), true);
        due.add(space, va, 0, old, X86Pte::EMPTY);
        let emptied = leaf.emptied();
        drop(leaf);
        self.reclaim(cx, emptied, due);
    }
}

impl PageMappings for HatX86 {
    fn unload(&self, cx: &Cx, page: PageId) {
        let mut due = self.flush_due(cx);
        loop {
            let first = self.lists.enter(cx, &self.db, page).first();
            let Some(site) = first else { break };
            self.unload_site(cx, page, site, &mut due);
        }
        self.finish(cx, &mut due);
    }
    fn sync(&self, cx: &Cx, page: PageId, mode: SyncMode) -> RefMod {
        let kept = self.db.page(page);
        let mut due = self.flush_due(cx);
        let list = self.lists.enter(cx, &self.db, page);
        let mut bits = kept.ref_mod(); // M6: what has been taken from an entry is here by now
        if let SyncMode::StopOnRef { share_limit } = mode
            && list.count() > share_limit
        {
            bits |= RefMod::REF;
        }
        for site in list.sites() {
            if matches!(mode, SyncMode::StopOnRef { .. }) && bits.contains(RefMod::REF) {
                break;
            }
            let entry = X86Pte(self.cell_at(site).load(SeqCst));
            cx.count(Counter::PteReads);
            if !entry.is_synced() {
                continue;
            }
            bits |= match mode {
                SyncMode::ZeroRm => {
                    self.take_bits(cx, site, PteBits::A | PteBits::D, &mut due).ref_mod()
                }
                _ => entry.ref_mod(),
            };
        }
        if mode == SyncMode::ZeroRm {
            kept.gather_ref_mod(bits);
        }
        drop(list);
        self.finish(cx, &mut due);
        bits
    }
    fn clear_write(&self, cx: &Cx, page: PageId) {
        let mut due = self.flush_due(cx);
        let list = self.lists.enter(cx, &self.db, page);
        for site in list.sites() {
            self.take_bits(cx, site, PteBits::W, &mut due);
        }
        drop(list);
        self.finish(cx, &mut due);
    }
    /// Asked by the scanner about every frame, before it has the page's lock (M5): writes nothing.
    fn share_count(&self, _cx: &Cx, page: PageId) -> u32 {
        let of = self.db.page(page).mapping();
        of.count(of.word())
    }
    fn settle(&self, cx: &Cx) {
        if self.debts.any() {
            self.pay_for_others(cx);
        }
    }
}
