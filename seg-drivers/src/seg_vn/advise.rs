//! Advice, and the identity of memory.
//!
//! Sources: illumos.md 4.8 (advise, getmemid); uvm.md 7.2 (C11).

use super::{NAMED, SegVn, VPage, discard, vpns};
use addr_space::{Advice, MemId, SegCx, SegError, UnloadFlags};
use page_db::sync::atomic::Ordering;
use page_db::{Counter, LockedPage, PAGE_SIZE, PutFlags, VirtAddr, VirtRange, pvn};

#[doc(alias = "segvn_advise")]
pub(super) fn advise(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    advice: Advice,
) -> Result<(), SegError> {
    match advice {
        Advice::Free => {
            free(seg, scx, range);
            Ok(())
        }
        Advice::Purge => discard::purge(seg, scx, range),
        Advice::Drop | Advice::Discard => discard::empty(seg, scx, range, advice),
        Advice::AccessDefault | Advice::AccessLwp | Advice::AccessMany => Ok(()),
        Advice::Normal | Advice::Random | Advice::Sequential => note(seg, scx, range, advice),
    }
}

fn note(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange, advice: Advice) -> Result<(), SegError> {
    let mut inner = seg.lock.lock(scx.cx);
    if advice == Advice::Sequential && seg.softlocks.load(Ordering::Acquire) != 0 {
        return Err(SegError::Pinned { range });
    }
    inner.vpage.make_room(vpns(range)).map_err(|_| SegError::NoMemory { range })?;
    if range == scx.seg {
        inner.vpage.update(vpns(range), |v| VPage { advice: None, ..v });
        let word = match advice {
            Advice::Random => 1,
            Advice::Sequential => 2,
            _ => 0,
        };
        seg.advice.store(word, Ordering::Relaxed);
    } else {
        let base = seg.seg_advice();
        inner
            .vpage
            .update(vpns(range), |v| VPage { advice: (advice != base).then_some(advice), ..v });
    }
    inner.vpage.trim();
    seg.note_pages(&inner.vpage);
    // held: as, segment: nobody pins before the translations are gone
    if advice == Advice::Sequential && range == scx.seg {
        // Translations go, so that free-behind finds the pages unmapped.
        scx.hat.unload(scx.cx, range, UnloadFlags::empty());
    }
    Ok(())
}

/// The contents of unshared anonymous pages may be dropped: they go to the cache list, clean, with nothing behind them. A later use
/// finds the old bytes or zeros. Never fails; what is locked, claimed, shared or absent keeps its bytes, and so does what lies in a slot that another
/// segment has too.
#[doc(alias = "anon_disclaim")]
fn free(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) {
    if seg.backing.is_some() || seg.shared() {
        return;
    }
    let Some(map) = seg.amap() else { return };
    let layer = &seg.driver.layer;
    let slots = seg.slots_of(scx.seg, range);
    for (slot, _) in map.slots(scx.cx, slots) {
        if seg.shares_slot(scx, slot) {
            continue; // as reader: who reaches a slot alone goes on doing so
        }
        let Some(held) = map.enter(scx.cx, slot) else { continue };
        let Some(n) = held.get() else { continue };
        if !seg.alone(n) {
            continue;
        }
        let Some(page) = scx.db.try_lookup_excl(scx.cx, layer.swap().identity(n)) else {
            scx.cx.count(Counter::MadvFreeMiss);
            continue;
        };
        if page.page().is_claimed() {
            continue;
        }
        scx.db.unload(scx.cx, &page);
        layer.swap().free_slot(scx.cx, n, &page);
        page.page().clear_ref_mod(page.page().ref_mod());
        pvn::dispose(scx.cx, scx.db, page, PutFlags::FREE);
        scx.cx.count(Counter::MadvFreeHit);
    }
}

impl SegVn {
    /// Whether private memory is called by the map and the place in it, for several segments share it for good, or did, or are about to. Whoever waits by what
    /// it is called may do so for longer than the others are there.
    ///
    /// That is the segment's and not the map's: other parts of the map may be another process's, which has asked for nothing.
    pub(super) fn is_named(&self) -> bool {
        self.lasting.load(Ordering::Acquire) & NAMED != 0
    }
    /// From now on that is so. The segment has a map, and contents of its own.
    pub(super) fn be_named(&self) {
        debug_assert!(self.amap().is_some() && !self.needs_copy());
        self.lasting.fetch_or(NAMED, Ordering::Release);
        if let Some(map) = self.amap() {
            map.note_named();
        }
    }
    /// Advice for one page.
    pub(super) fn advice_at(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Advice {
        if self.vpaged.load(Ordering::Relaxed) == 0 {
            return self.seg_advice();
        }
        let own = self.lock.lock(scx.cx).vpage.get(addr.vpn()).advice;
        own.unwrap_or_else(|| self.seg_advice())
    }
}

/// The address, of private memory; the file and the offset, of a shared file; of anything else that several segments reach, the anon map and the place
/// in it. That is no anon's number: a slot gets another when a copy of it is given away and it is stored to, and whoever waits by the old one would wait in vain.
/// For his sake private memory that is to be inherited by sharing is called so from when that is said, and what was shared for good is called so when the
/// others have gone.
#[doc(alias = "segvn_getmemid")]
pub(super) fn mem_id(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> MemId {
    if !seg.shared() && !seg.is_named() {
        return MemId(u64::from(scx.space.id().0), addr.get());
    }
    if let (true, Some(b), Some(offset)) =
        (seg.shared(), &seg.backing, seg.file_offset(scx.seg, addr))
    {
        return MemId(1 << 63 | u64::from(b.vnode.id().0), offset.0 + addr.page_offset());
    }
    let (map, slot) = (seg.amap_or_make(scx), seg.slot_of(scx.seg, addr));
    MemId(1 << 62 | u64::from(map.id().0), slot * PAGE_SIZE + addr.page_offset())
}
