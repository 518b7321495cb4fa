//! Case 2: the slot is empty, or there is no upper layer.
//!
//! A vnode is somebody else's code. What it hands out is believed to be the page that was asked for once its name has been compared: a page of another
//! name may be anybody's, a page table among others.

use super::SegVn;
use super::fault::{Found, PageFault};
use crate::anon::SlotGuard;
use addr_space::{FaultError, LoadFlags, SegCx};
use page_db::{Access, Counter, ExclPage, GotPage, Identity, LockedPage, PAGE_SIZE, Prot, errno};

impl SegVn {
    /// The file's page at the fault, shared-locked.
    pub(super) fn file_page<'a>(
        &self,
        f: &PageFault<'a>,
        access: Access,
    ) -> Result<GotPage<'a>, FaultError> {
        let backing = self.backing.as_ref().expect("the lower layer exists: the caller looked");
        let offset = self.file_offset(f.scx.seg, f.addr).unwrap_or_default();
        let id = self.file_identity(f.scx, f.addr);
        f.at_once(id)?;
        let got = backing
            .vnode
            .get_page(f.scx.cx, f.scx.db, offset, access)
            .map_err(|e| f.vnode_error(e))?;
        let got = what_was_asked_for(f, got, id, access)?;
        if got.read {
            f.scx.cx.count(Counter::MajFault);
        }
        Ok(got)
    }
    /// Case 2A: the file's own page is mapped; without the right to write when the mapping is private.
    pub(super) fn map_lower(&self, f: &PageFault<'_>) -> Result<Found, FaultError> {
        let access = if self.shared() { f.access } else { Access::Read };
        let got = self.file_page(f, access)?;
        f.scx.cx.count(Counter::Case2A);
        let given = got.prot | Prot::EXEC;
        let mut prot = f.prot & given;
        if !self.shared() {
            prot = prot.read_only();
        }
        // Whoever pins a page goes on to use it, and a store of his to a lent one would wait for his own pin: none is both (L5).
        let lent = (f.access.is_write() || f.soft()) && got.page.page().is_lent();
        let read = got.read;
        if lent && f.quick {
            return Err(FaultError::Retry { addr: f.addr });
        }
        let page = if lent { self.break_loan(f, got.page)? } else { got.page };
        f.load(&page, prot, LoadFlags::empty())?;
        self.finish(f, page);
        Ok(if read { Found::Read(given) } else { Found::There(given) })
    }
    /// Case 2B over a file: the file's page is copied into an anon. The file's page is neither modified nor consumed.
    pub(super) fn promote(
        &self,
        f: &PageFault<'_>,
        slot: &SlotGuard<'_>,
    ) -> Result<Found, FaultError> {
        let got = self.file_page(f, Access::Read)?;
        f.scx.cx.count(Counter::Case2B);
        self.copy(f, slot, None, got.page).map(|()| Found::Made)
    }
    /// Case 2B over nothing: zeros become an anon, for a load as for a store; there is no shared zero page.
    #[doc(alias("anon_zero", "zfod"))]
    pub(super) fn zero_fill(
        &self,
        f: &PageFault<'_>,
        slot: &SlotGuard<'_>,
    ) -> Result<Found, FaultError> {
        let extra = self.reserve_touch(f, true)?;
        let (n, page) = self.new_anon(f).inspect_err(|_| self.unreserve_touch(f, extra))?;
        fill_with_zeros(f.scx, &page);
        slot.set(Some(n));
        // held: as (reader), slot, page (exclusive)
        f.load(&page, f.prot, LoadFlags::REMAP)?;
        self.finish_made(f, page);
        Ok(Found::Made)
    }
}

/// A vnode's answer, if it is the page `id` of this very machine, with the rights to `access` it.
#[inline]
pub(super) fn what_was_asked_for<'a>(
    f: &PageFault<'_>,
    got: GotPage<'a>,
    id: Option<Identity>,
    access: Access,
) -> Result<GotPage<'a>, FaultError> {
    let named = id.is_some_and(|id| got.page.page().is(id));
    let ours = named && core::ptr::eq(got.page.db(), f.scx.db);
    match ours && (got.prot | Prot::EXEC).allows(access) {
        true => Ok(got),
        false => Err(FaultError::Object { addr: f.addr, errno: errno::EIO }),
    }
}

/// Fills a page just made with zeros and ends its transit (case 2B over nothing).
#[inline(always)] // into the fault and the run
pub(super) fn fill_with_zeros(scx: &SegCx<'_>, page: &ExclPage<'_>) {
    scx.cx.count(Counter::Case2B);
    scx.cx.count(Counter::Zfod);
    scx.db.mem().zero(page.pfn());
    scx.cx.count_n(Counter::BytesZeroed, PAGE_SIZE);
    page.mark_filled();
    page.end_io();
}
