//! Lending pages to anons, and showing what was lent to another address space.
//!
//! # The picture
//!
//! ```text
//!   lend     P ─▶ seg_vn ─▶ M ─▶ a (2) ◀─┐                     a page of an anon: one more reference, and nobody's translation may store
//!            P ─▶ seg_vn ─▶ file page ◀╌╌ b (1) ◀─┤            a page of the file: an anon that borrows it (swapfs, `borrow`)
//!                                                 L            the loan: an anon map without a segment, with a promise of swap
//!   enter    Q ─▶ seg_vn ─▶ N ─▶ a (2), b (1)                  private memory like any other, over a copy of L; the loan is over
//!   unlend   -                                                 L ends as the map of a segment does
//! ```
//!
//! What an anon has lent needs nothing new: two owners, and whoever stores first copies (case 1B). What a file has lent is the file's page as it is now: a
//! store through the file leaves it to the borrower, a store through the borrower copies it (1A-l), and so do a pin and a lock in memory. A load maps
//! the page itself.
//!
//! - L1 (I1): the loan is an anon map, so an anon's references are slots of maps, here as everywhere.
//! - L2 (I12): a loan has a page of swap promised for each of its pages before the first is lent: each may become one of its own.
//! - L3: while it is a loan, the map's reference is the loan's ([`AnonMap::is_loan`]), and covers its slots as a segment does.
//! - L4: no segment uses that map. Entering can still fail when other threads have stored to what is shown (all future memory is to be locked, and this
//!   is more than may be), and the loan that is handed back then must show what was lent: so who enters gets a map of its own, as a child of fork does. For
//!   a moment there are two references of each anon, and two promises of swap.
//!
//! Sources: uvm.md 1.2, 5.6, 5.7, 7.2 (C9); [UVM §7].

use super::lend::find;
use super::{FIRST_SLOT, SegVn, VnDriver};
use crate::anon::AnonMap;
use addr_space::{AddrSpace, AsError, Borrower, SegCreate, SegCx, SegError, SegOps};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::num::NonZeroU32;
use core::ops::Range;
use page_db::sync::atomic::AtomicU64;
use page_db::sync::{Mutation, mutated};
use page_db::{Access, Cx, LockedPage, Owed, PAGE_SIZE, Prot, VirtAddr, VirtRange};
use swapfs::AnonNumber;

/// Pages lent to anons. They stay lent until they are shown to an address space ([`LentAnons::enter`]) or given back; dropped instead, for good, and a debug
/// build panics at once ([`page_db::owed`]).
#[must_use = "what is lent stays lent until it is given back"]
#[derive(Debug)]
pub struct LentAnons {
    driver: Arc<VnDriver>,
    map: Arc<AnonMap>,
    range: VirtRange,
    owed: Owed,
}

impl LentAnons {
    /// Lends the pages of `range` of `space`, whose segments are `driver`'s, as they are now.
    ///
    /// # Errors
    /// As [`AddrSpace::lend_anons`]; [`SegError::NoSwap`] where no page of swap can be promised for each page; [`SegError::Invalid`] for another machine's
    /// address space. Nothing is lent.
    #[doc(alias("uvm_loan", "UVM_LOAN_TOANON"))]
    pub fn lend(
        driver: &Arc<VnDriver>,
        cx: &Cx,
        space: &AddrSpace,
        range: VirtRange,
    ) -> Result<Self, AsError> {
        same_machine(driver, space, range)?;
        let held = driver.layer.swap().take(range.pages().get());
        let held = held.map_err(|_| SegError::NoSwap { range, bytes: range.len() })?;
        let map = AnonMap::for_loan(driver.home(cx), held.keep() * PAGE_SIZE);
        let owed = Owed::new(&"pages lent to anons (LentAnons::give_back)");
        let mut lent = Self { driver: Arc::clone(driver), map, range, owed };
        match space.lend_anons(cx, range, &mut lent) {
            Ok(()) => Ok(lent),
            Err(e) => {
                lent.give_back(cx);
                Err(e)
            }
        }
    }
    /// Where the pages were when they were lent.
    pub fn range(&self) -> VirtRange {
        self.range
    }
    /// The anons, by page of the range.
    pub fn anons(&self, cx: &Cx) -> alloc::vec::Vec<(u64, AnonNumber)> {
        let held = self.map.slots(cx, self.slots());
        held.into_iter().map(|(slot, n)| (slot - FIRST_SLOT, n)).collect()
    }
    /// Shows the pages at `to` of `space` as private memory with rights `prot`; the loan is over. `to` is as long as what was lent, and free.
    ///
    /// # Errors
    /// As [`AddrSpace::map`], and [`SegError::Invalid`] for a range of another length or another machine's address space; nothing has changed, and the loan is
    /// handed back.
    #[doc(alias = "amap_add")]
    pub fn enter(
        self,
        cx: &Cx,
        space: &AddrSpace,
        to: VirtRange,
        prot: Prot,
    ) -> Result<(), (AsError, Self)> {
        let as_long = if to.len() == self.range.len() {
            same_machine(&self.driver, space, to)
        } else {
            Err(invalid("another length than was lent", to))
        };
        match as_long.and_then(|()| space.map(cx, to, &Entry { lent: &self, prot })) {
            Ok(()) => {
                self.give_back(cx); // the mapping has what there is
                Ok(())
            }
            Err(e) => Err((e, self)),
        }
    }
    /// Ends the loan: each anon loses a reference, and what was lent to one that nobody has any more is the lender's alone again.
    #[doc(alias = "uvm_unloan")]
    pub fn give_back(self, cx: &Cx) {
        self.map.end_loan();
        self.map.lose(cx, self.slots(), self.slots());
        let promised = self.map.take_swresv(u64::MAX);
        self.driver.layer.swap().unreserve(promised / PAGE_SIZE);
        self.owed.paid();
    }
    /// Leaves the pages lent, for good: for a machine that ends with them.
    pub fn abandon(self) {
        self.owed.paid();
    }
    fn slots(&self) -> Range<u64> {
        FIRST_SLOT..FIRST_SLOT + self.range.pages().get()
    }
}

impl Borrower for LentAnons {
    fn take(&mut self, cx: &Cx, addr: VirtAddr, anon: NonZeroU32) -> Result<(), SegError> {
        let range = VirtRange::page_of(addr);
        let wrong = |what| SegError::Invalid { driver: "seg_vn", what, range };
        if !self.range.contains(addr) {
            return Err(wrong("a page that was not asked for"));
        }
        let offered = AnonNumber::from_raw(anon.get());
        let layer = &self.driver.layer;
        if !offered.is_some_and(|n| layer.swap().is_live(n) && layer.anons().refs(n) != 0) {
            return Err(wrong("an anon that nobody has"));
        }
        let slot = FIRST_SLOT + self.range.page_index(addr);
        let held = self.map.enter_or_make(cx, slot).map_err(|_| SegError::NoMemory { range })?;
        let before = held.set(offered);
        drop(held);
        if let Some(before) = before {
            self.driver.layer.unref(cx, before); // of an earlier pass
        }
        Ok(())
    }
}

/// What makes the segment that shows a loan.
pub(super) struct Entry<'a> {
    pub(super) lent: &'a LentAnons,
    pub(super) prot: Prot,
}

impl SegCreate for Entry<'_> {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        let (lent, bytes) = (self.lent, scx.seg.len());
        let held = lent.driver.layer.swap().take(bytes / PAGE_SIZE);
        let held = held.map_err(|_| SegError::NoSwap { range: scx.seg, bytes })?;
        let map = lent.map.dup(scx.cx, lent.driver.home(scx.cx), lent.slots(), None);
        let map = map.map_err(|_| SegError::NoMemory { range: scx.seg })?;
        held.keep();
        let amap = super::own::ready(Some(map));
        let swresv = AtomicU64::new(bytes);
        Ok(Box::new(SegVn { amap, swresv, ..SegVn::bare(&lent.driver, self.prot) }))
    }
    /// It stands for what was lent, as far as that went.
    fn may_merge(&self) -> bool {
        false
    }
}

fn invalid(what: &'static str, range: VirtRange) -> AsError {
    SegError::Invalid { driver: "seg_vn", what, range }.into()
}

fn same_machine(driver: &VnDriver, space: &AddrSpace, range: VirtRange) -> Result<(), AsError> {
    if core::ptr::eq(driver.layer.db(), &**space.db()) {
        return Ok(());
    }
    Err(invalid("another machine's address space", range))
}

/// See [`SegOps::lend_anons`].
pub(super) fn lend(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    to: &mut dyn Borrower,
) -> Result<(), SegError> {
    if seg.is_pinned() {
        return Err(SegError::Pinned { range }); // as for loans to the kernel
    }
    range.iter_pages().try_for_each(|addr| {
        let n = lend_page(seg, scx, addr)?;
        // held: as (reader), and a reference of the anon
        let taken = NonZeroU32::new(n.get()).map_or(Ok(()), |number| to.take(scx.cx, addr, number));
        taken.inspect_err(|_| seg.driver.layer.unref(scx.cx, n))
    })
}

/// A reference of an anon with the contents of the page at `addr`.
fn lend_page(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> Result<AnonNumber, SegError> {
    let (f, slot) = find(seg, scx, addr)?;
    // held: as (reader), and the slot if there is one
    if let Some(n) = slot.as_ref().and_then(|slot| slot.get()) {
        share(seg, scx, addr, n)?;
        return Ok(n);
    }
    let layer = &seg.driver.layer;
    let n = layer.fresh(scx.cx).map_err(|e| SegError::from(f.swap_error(&e)))?;
    let borrowed = seg.file_page(&f, Access::Read).map_err(SegError::from).and_then(|got| {
        let range = VirtRange::page_of(addr);
        let page = got.page.try_upgrade().map_err(|_| SegError::Held { range })?;
        if page.page().is_claimed() {
            return Err(SegError::Locked { addr });
        }
        layer.swap().borrow(scx.cx, n, &page).map_err(|_| SegError::LockLimit { range })
    });
    borrowed.map(|()| n).inspect_err(|_| layer.unref(scx.cx, n))
}

/// Takes a reference of the anon in a slot, which is busy; from then on nobody may store to its page.
fn share(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr, n: AnonNumber) -> Result<(), SegError> {
    let layer = &seg.driver.layer;
    let id = layer.swap().identity(n);
    // Exclusive: i/o that others do in the page is over. What is not in memory nobody maps, nor what has been borrowed so that it could be stored to.
    let page = scx.db.try_lookup_excl_cached(scx.cx, id);
    if page.is_none() && scx.db.exists(scx.cx, id).is_some() {
        return Err(SegError::Held { range: VirtRange::page_of(addr) });
    }
    if page.as_ref().is_some_and(|page| page.page().is_claimed()) {
        return Err(SegError::Locked { addr });
    }
    layer.anons.run().inc_busy(n.get());
    // Also where nobody maps it: who took the last translation away may owe its flush, and a processor goes on storing until then (R1).
    if let Some(page) = page
        && (!mutated(Mutation::LentBesideADebt) || page.page().is_mapped())
    {
        scx.db.clear_write(scx.cx, &page);
    }
    Ok(())
}
