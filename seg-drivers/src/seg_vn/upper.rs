//! Case 1: the slot holds an anon.

use super::SegVn;
use super::fault::{Found, PageFault};
use crate::anon::SlotGuard;
use addr_space::{FaultError, LoadFlags, UnloadFlags};
use page_db::sync::{Mutation, mutated};
use page_db::{
    Counter, ExclPage, LockedPage, PAGE_SIZE, PageDb, Prot, RefMod, Reserve, SharedPage, VirtRange,
};
use swapfs::AnonNumber;

impl SegVn {
    /// The slot holds `n`: map its page (1A), or a copy of it (1B).
    pub(super) fn upper(
        &self,
        f: &PageFault<'_>,
        slot: &SlotGuard<'_>,
        n: AnonNumber,
    ) -> Result<Found, FaultError> {
        let page = self.anon_page(f, n)?;
        // Exact: this thread holds a slot with the number busy, so 1 cannot become 2 (N3).
        let alone = self.alone(n);
        if f.break_cow && !alone {
            f.scx.cx.count(Counter::Case1B);
            return self.copy(f, slot, Some(n), page).map(|()| Found::Made);
        }
        let lent = (f.break_cow || f.soft()) && page.page().is_lent();
        if lent && f.quick {
            return Err(FaultError::Retry { addr: f.addr });
        }
        let page = if lent { self.settle_lent(f, n, page)? } else { page };
        f.scx.cx.count(Counter::Case1A);
        let prot = if alone { f.prot } else { f.prot.read_only() };
        f.load(&page, prot, LoadFlags::REMAP)?;
        self.finish(f, page);
        Ok(Found::There(Prot::RWX))
    }
    /// The page with the bytes of an anon, shared-locked: by hint, by name, from swap, or the one it has borrowed them with, which is lent.
    #[doc(alias = "anon_getpage")]
    #[inline]
    pub(super) fn anon_page<'a>(
        &'a self,
        f: &PageFault<'a>,
        n: AnonNumber,
    ) -> Result<SharedPage<'a>, FaultError> {
        let layer = &self.driver.layer;
        let cx = f.scx.cx;
        if f.quick {
            return self.anon_page_now(f, n);
        }
        let hint = layer.anons.hint(n);
        let found = f.scx.db.lookup_shared_hint(cx, layer.swap().identity(n), hint);
        let Some(page) = found else { return self.anon_page_later(f, n) };
        if hint != Some(page.id()) {
            layer.anons.set_hint(n, Some(page.id()));
        }
        Ok(page)
    }
    /// The same for a fault that waits for nobody.
    #[cold]
    fn anon_page_now<'a>(
        &'a self,
        f: &PageFault<'a>,
        n: AnonNumber,
    ) -> Result<SharedPage<'a>, FaultError> {
        let (swap, cx) = (self.driver.layer.swap(), f.scx.cx);
        let own = || f.scx.db.lookup_shared_now(cx, swap.identity(n));
        let page = swap.try_lender(cx, n).or_else(own);
        page.ok_or(FaultError::Retry { addr: f.addr })
    }
    /// The same where there is no page of the anon's name.
    #[cold]
    fn anon_page_later<'a>(
        &'a self,
        f: &PageFault<'a>,
        n: AnonNumber,
    ) -> Result<SharedPage<'a>, FaultError> {
        match self.driver.layer.swap().lender(f.scx.cx, n) {
            Some(page) => Ok(page),
            None => self.own_page(f, n),
        }
    }
    /// The anon's page under its own name, shared-locked: found, read, or, if it had borrowed its bytes, made.
    #[cold]
    pub(super) fn own_page<'a>(
        &'a self,
        f: &PageFault<'a>,
        n: AnonNumber,
    ) -> Result<SharedPage<'a>, FaultError> {
        let layer = &self.driver.layer;
        let cx = f.scx.cx;
        let got = layer
            .swap()
            .get_page(cx, n, PageDb::colour_for(f.addr))
            .map_err(|e| f.vnode_error(e))?;
        if got.read {
            cx.count(Counter::MajFault);
        }
        layer.anons.set_hint(n, Some(got.page.id()));
        Ok(got.page)
    }
    /// Copies `source` into a new anon of this segment's own and maps it. `old` is the anon the slot held; its reference is dropped.
    ///
    /// # Locks
    /// On entry: as (reader), slot, source page (shared). On return the slot only; a soft lock keeps the new page's.
    #[doc(alias("anon_private", "uvm_fault_lower_promote"))]
    pub(super) fn copy(
        &self,
        f: &PageFault<'_>,
        slot: &SlotGuard<'_>,
        old: Option<AnonNumber>,
        source: SharedPage<'_>,
    ) -> Result<(), FaultError> {
        let (cx, db) = (f.scx.cx, f.scx.db);
        if self.is_pinned_as(f.scx, &source) {
            return Err(f.held());
        }
        let source = if self.is_joint() { self.unmap_everywhere(f, source)? } else { source };
        if !f.stamp.is_current() {
            // Locked or unlocked in memory meanwhile: the claims move with the copy, so what was read must still hold.
            return Err(FaultError::Retry { addr: f.addr });
        }
        cx.count(Counter::CowFault);
        source.page().set_ref_mod(RefMod::REF);
        let extra = self.reserve_touch(f, old.is_none())?;
        let (n, page) = self.new_anon(f).inspect_err(|_| self.unreserve_touch(f, extra))?;
        let early = old.filter(|_| mutated(Mutation::ReferenceDroppedEarly));
        if let Some(old) = early {
            self.driver.layer.unref(cx, old);
        }
        db.mem().copy(source.pfn(), page.pfn());
        cx.count_n(Counter::BytesCopied, PAGE_SIZE);
        page.mark_filled();
        page.end_io();
        // held: as (reader), slot, source (shared), page (exclusive)
        // No CPU may go on reading the source here once the copy can be stored to: break before make.
        // Where nothing is mapped nothing can come to be while the slot is this thread's; what others have removed they may still owe.
        if f.scx.hat.probe(cx, f.addr).is_some() {
            f.scx.hat.unload(cx, VirtRange::page_of(f.addr), UnloadFlags::empty());
        } else {
            f.scx.hat.settle(cx);
        }
        self.move_claim(f, &source, &page);
        match old {
            Some(_) => drop(source),
            None => {
                db.release(cx, source, true);
            }
        }
        slot.set(Some(n));
        let loaded = f.load(&page, f.prot, LoadFlags::REMAP);
        if loaded.is_ok() {
            self.finish_made(f, page);
        } else {
            drop(page);
        }
        // held: as (reader), slot
        if let Some(old) = old.filter(|_| early.is_none()) {
            self.driver.layer.unref(cx, old);
        }
        // The copy is in place whatever became of the translation: a fault that starts over finds it (case 1A).
        loaded
    }
    /// A number, its record, and its page: exclusive, io-locked, contents undefined.
    #[doc(alias = "anon_alloc")]
    #[inline(always)] // into the zero-fill and the copy
    pub(super) fn new_anon<'a>(
        &self,
        f: &PageFault<'a>,
    ) -> Result<(AnonNumber, ExclPage<'a>), FaultError> {
        let layer = &self.driver.layer;
        let (n, name) = layer.swap().alloc_named(f.scx.cx).map_err(|e| f.swap_error(&e))?;
        let record = layer.start(f.scx.cx, n).ok_or_else(|| f.no_memory())?;
        match f.scx.db.create(f.scx.cx, name, PageDb::colour_for(f.addr), Reserve::Normal) {
            Ok(page) => {
                record.set_hint(page.id());
                Ok((n, page))
            }
            Err(e) => {
                layer.unref(f.scx.cx, n);
                Err(f.page_error(e))
            }
        }
    }
    /// Ends a fault on a mapped page: unlocks it, or keeps it locked for a soft lock, whose unlock finds the page by its name.
    pub(super) fn finish(&self, f: &PageFault<'_>, page: SharedPage<'_>) {
        if f.soft() {
            _ = page.leak();
        } else {
            drop(page);
        }
    }
    /// The same for a page this fault has made.
    pub(super) fn finish_made(&self, f: &PageFault<'_>, page: ExclPage<'_>) {
        if f.soft() {
            _ = page.downgrade().leak();
        } else {
            drop(page);
        }
    }
    /// Rights with which the slot's page may be mapped when nothing is being broken.
    pub(super) fn mapped_prot(&self, prot: Prot, n: AnonNumber) -> Prot {
        if self.alone(n) { prot } else { prot.read_only() }
    }
}
