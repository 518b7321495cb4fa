//! Lending pages to the kernel (case 1A-l and 2A-l of the decision table are in `upper` and `lower`).
//!
//! A page is found as a load would find it, but without a translation: what the slot holds, else the file's page, else zeros that become an anon. The
//! slot stays busy until the page is lent, so a copy under way is over. A page that somebody has is not waited for with the slot busy: whoever has it may
//! come to the slot ([`SegError::Held`]).
//!
//! - L5: no page is pinned through a mapping and lent. A store must have a lent page alone, to give its name to a copy, and waits for whoever has it pinned:
//!   also for a pin of its own, through another mapping or by writing the file. So what somebody has pinned is not lent, and whoever pins what is lent
//!   breaks the loan first, also where he only reads: the copy is what he pins.
//!
//! Sources: uvm.md 5.7, 7.2 (C9).

use super::SegVn;
use super::fault::PageFault;
use crate::anon::SlotGuard;
use addr_space::{FaultError, PageList, SegCx, SegError};
use alloc::vec::Vec;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated};
use page_db::{Access, LockedPage, PageDb, PageId, SharedPage, VirtAddr, VirtRange};
use swapfs::AnonNumber;

#[doc(alias = "uvm_loan")]
pub(super) fn lend(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Result<PageList, SegError> {
    if seg.is_pinned() {
        // Whoever has pages pinned may be storing to them, and a loan would wait for the end of that.
        return Err(SegError::Pinned { range });
    }
    let mut pages = Vec::new();
    for addr in range.iter_pages() {
        let lent = match pages.try_reserve(1) {
            Ok(()) => lend_page(seg, scx, addr),
            Err(_) => Err(SegError::NoMemory { range }),
        };
        match lent {
            Ok(page) => pages.push(page),
            Err(e) => {
                pages.into_iter().for_each(|page| scx.db.unlend(scx.cx, page));
                return Err(e);
            }
        }
    }
    Ok(PageList { pages })
}

fn lend_page(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> Result<PageId, SegError> {
    let (f, slot) = find(seg, scx, addr)?;
    // held: as (reader), and the slot if there is one
    let page = match slot.as_ref().and_then(SlotGuard::get) {
        Some(n) => seg.anon_page(&f, n)?,
        None => seg.file_page(&f, Access::Read)?.page,
    };
    let range = VirtRange::page_of(addr);
    let page = page.try_upgrade().map_err(|_| SegError::Held { range })?;
    if page.page().is_claimed() {
        return Err(SegError::Locked { addr });
    }
    scx.db.lend(scx.cx, &page).map_err(|_| SegError::LockLimit { range })?;
    Ok(page.id())
}

/// A fault for the page at `addr`, and the slot, busy, that holds its anon; without an anon the page is the file's. Where neither is yet, zeros become an
/// anon.
pub(super) fn find<'a>(
    seg: &'a SegVn,
    scx: &'a SegCx<'a>,
    addr: VirtAddr,
) -> Result<(PageFault<'a>, Option<SlotGuard<'a>>), SegError> {
    loop {
        let f = match seg.look(scx, addr, addr_space::FaultKind::Invalid, Access::Read) {
            Ok(f) => PageFault { break_cow: false, ..f },
            Err(FaultError::Prot { .. }) => {
                return Err(SegError::Access { range: VirtRange::page_of(addr) });
            }
            Err(e) => return Err(e.into()),
        };
        let slot = slot_of(seg, &f)?;
        // Pins are counted before the first page and come to a page through its slot: whoever is not seen here waits for the slot.
        if seg.softlocks.load(Ordering::Acquire) != 0 {
            return Err(SegError::Pinned { range: VirtRange::page_of(addr) });
        }
        match &slot {
            Some(slot) if slot.get().is_none() && seg.backing.is_none() => {
                settled(seg.zero_fill(&f, slot).map(drop))?; // there is an anon now
            }
            _ => return Ok((f, slot)),
        }
    }
}

/// The slot of the page, busy; none where nothing of the mapping's own can be.
fn slot_of<'a>(seg: &'a SegVn, f: &PageFault<'a>) -> Result<Option<SlotGuard<'a>>, SegError> {
    let at = seg.slot_of(f.scx.seg, f.addr);
    if seg.backing.is_some() {
        return Ok(seg.amap().and_then(|map| map.enter(f.scx.cx, at)));
    }
    let map = seg.amap_or_make(f.scx);
    if seg.needs_copy() && map.peek(at).is_none() {
        return Err(FaultError::NotOwn { addr: f.addr }.into()); // zeros will be added to it
    }
    let slot = map.enter_or_make(f.scx.cx, at);
    slot.map(Some).map_err(|_| SegError::NoMemory { range: VirtRange::page_of(f.addr) })
}

/// What `zero_fill` answers when the page is there but rights moved on before it was mapped is no failure here.
fn settled(made: Result<(), FaultError>) -> Result<(), FaultError> {
    match made {
        Err(FaultError::Retry { .. }) => Ok(()),
        done => done,
    }
}

impl SegVn {
    /// The page of the slot's anon, which is lent, or lent to it, as a fault needs it: the anon's own; and, if copy-on-write is to be broken, or it is to be
    /// pinned (L5), one that is not lent: a lent page is left to its loans, and a copy takes its name (case 1A-l).
    ///
    /// # Locks
    /// On entry and on `Ok`: as (reader), slot, page (shared).
    #[cold]
    pub(super) fn settle_lent<'a>(
        &'a self,
        f: &PageFault<'a>,
        n: AnonNumber,
        page: SharedPage<'a>,
    ) -> Result<SharedPage<'a>, FaultError> {
        let mut page = page;
        if !page.page().is(self.driver.layer.swap().identity(n)) {
            let lender = page.id();
            drop(page);
            page = self.own_page(f, n)?;
            if page.id() != lender {
                f.scx.cx.count(page_db::Counter::CowFault);
            }
        }
        if !f.break_cow && !f.soft() {
            return Ok(page);
        }
        let page = self.break_loan(f, page)?;
        self.driver.layer.anons.set_hint(n, Some(page.id()));
        Ok(page)
    }
    /// The file's page as one that may be stored to through a shared mapping, or pinned (case 2A-l), and what [`SegVn::settle_lent`] ends with.
    #[cold]
    pub(super) fn break_loan<'a>(
        &self,
        f: &PageFault<'a>,
        page: SharedPage<'a>,
    ) -> Result<SharedPage<'a>, FaultError> {
        if !page.page().is_lent() {
            return Ok(page);
        }
        let lent = page.id();
        // Whoever else has it may have it pinned (J5), and come for the address space or the slot: tried, not waited for.
        let page = if mutated(Mutation::PinLookedFor) {
            let pinned = f.scx.db.lock_state(lent).shared > 1;
            let page = if pinned { None } else { f.scx.db.upgrade(f.scx.cx, page) };
            page.ok_or_else(|| f.held())?
        } else {
            page.try_upgrade().map_err(|_| f.held())?
        };
        let page = f.scx.db.break_loan_excl(f.scx.cx, page, PageDb::colour_for(f.addr));
        let page = page.map_err(|e| f.page_error(e))?;
        if page.id() != lent {
            f.scx.cx.count(page_db::Counter::CowFault);
        }
        Ok(page)
    }
}
