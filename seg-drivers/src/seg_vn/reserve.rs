//! Swap reserved by a segment: whole, page by page, or at the first touch.

use super::fault::PageFault;
use super::{SegVn, VPage, vpns};
use addr_space::{FaultError, SegCx};
use alloc::string::String;
use page_db::sync::atomic::Ordering;
use page_db::{PAGE_SIZE, Prot, errno};

impl SegVn {
    /// Reserves the page a NORESERVE segment is about to own. Answers whether it did.
    pub(super) fn reserve_touch(&self, f: &PageFault<'_>, fresh: bool) -> Result<bool, FaultError> {
        if !fresh || !self.noreserve() {
            return Ok(false);
        }
        self.driver
            .layer
            .swap()
            .reserve(1)
            .map_err(|_| FaultError::Object { addr: f.addr, errno: errno::ENOMEM })?;
        self.swresv.fetch_add(PAGE_SIZE, Ordering::AcqRel);
        if self.backing.is_none() {
            f.scx.space.add_resv(PAGE_SIZE);
        }
        Ok(true)
    }
    pub(super) fn unreserve_touch(&self, f: &PageFault<'_>, did: bool) {
        if did {
            if self.backing.is_none() {
                f.scx.space.sub_resv(PAGE_SIZE);
            }
            self.swresv.fetch_sub(PAGE_SIZE, Ordering::AcqRel);
            self.driver.layer.swap().unreserve(1);
        }
    }
    /// Counts a page more as reserved than is (tests of `verify`).
    #[doc(hidden)]
    pub fn damage_reserved(&self) {
        self.swresv.fetch_add(PAGE_SIZE, Ordering::AcqRel);
    }
    /// Whether single pages are marked as reserved, so that the segment is reserved neither whole nor not at all.
    pub(super) fn reserves_by_page(&self, scx: &SegCx<'_>) -> bool {
        self.lock.lock(scx.cx).vpage.reserved() != 0
    }
}

/// What a private segment must have reserved, for `verify` (I12 seen from the segment).
pub(super) fn verify(seg: &SegVn, scx: &SegCx<'_>) -> Result<(), String> {
    let inner = seg.lock.lock(scx.cx);
    if !inner.vpage.verify() {
        return Err("U1: per-page runs are not in order".into());
    }
    if (seg.vpaged.load(Ordering::SeqCst) != 0) == inner.vpage.is_plain() {
        return Err("S1: the segment does not say whether its pages have state of their own".into());
    }
    let by_page = inner.vpage.count(vpns(scx.seg), |v: VPage| v.reserved) * PAGE_SIZE;
    let writable = |v: VPage| v.prot.unwrap_or_else(|| seg.prot()).contains(Prot::WRITE);
    let stores = inner.vpage.any(vpns(scx.seg), writable);
    drop(inner);
    let own = seg.swresv.load(Ordering::Acquire);
    let expected = if seg.shared() {
        0
    } else if seg.noreserve() {
        let Some(map) = seg.amap() else { return check(own, 0) };
        map.count(scx.cx, seg.slots_of(scx.seg, scx.seg)) * PAGE_SIZE
    } else if by_page != 0 {
        by_page
    } else if own == 0 && seg.backing.is_some() && !stores {
        0 // it never had the right, or has given it up whole
    } else {
        scx.seg.len()
    };
    check(own, expected)
}

fn check(have: u64, want: u64) -> Result<(), String> {
    if have == want {
        return Ok(());
    }
    Err(alloc::format!(
        "I12: the segment has {have:#x} bytes of swap reserved, its pages account for {want:#x}"
    ))
}
