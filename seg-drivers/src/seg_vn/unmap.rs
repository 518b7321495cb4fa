//! Giving up a range: locks, translations, contents, reservation, and then what is left.
//!
//! ```text
//!   whole    Remnant::Nothing        low part   Remnant::High (this driver keeps the upper part)
//!   middle   Remnant::Both           high part  Remnant::Low
//! ```
//!
//! Translations go before contents, so that no frame is freed that a CPU can reach. After that nothing can fail.
//!
//! A segment that goes whole keeps its contents until it is out of the tree and the address-space lock is dropped ([`free`]): nobody can
//! reach them any more, and every thread of the process waits for that lock. A part gives up its slots under the lock, because the driver lives on and
//! its geometry says which slots are its own; what is in them is emptied after it, by name of the map and the slots ([`Leaving`], M3).
//! A promise of swap goes after what it was made for: who gets it finds the place.
//!
//! ```text
//!   under the lock   translations ─▶ slots given up ─▶ per-page state, geometry, books           lock free   anons ─▶ promise
//! ```
//!
//! The books are kept by difference, so that a cut costs what its range does:
//!
//! - S5: of a segment that is cut the slots, marks and runs of the range are looked at, and those of the shorter part where two are left; never those of all that is left.
//!
//! Without layers there is no page, so there is no translation either, and none is looked for. As writer that is exact: no fault is under way.
//!
//! Sources: illumos.md 4.3; uvm.md 2.4, 5.2.

use super::vpage::VPages;
use super::{Backing, SegVn, VPage, lock, own, vpns};
use crate::anon::AnonMap;
use addr_space::{Leaving, Remnant, SegCx, SegError, UnloadFlags};
use alloc::boxed::Box;
use alloc::sync::Arc;
use page_db::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::sync::{Mutation, mutated};
use page_db::{PAGE_SIZE, VirtRange, pvn};

#[doc(alias = "segvn_unmap")]
pub(super) fn unmap(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
) -> Result<(Remnant, Option<Leaving>), SegError> {
    if seg.softlocks.load(Ordering::Acquire) != 0 {
        return Err(SegError::Pinned { range });
    }
    let (below, above) = (scx.seg.until(range.start().get()), scx.seg.from(range.end()));
    let above_pages = make_room(seg, scx, range, below, above)?;
    // Nothing fails from here on.
    lock::unlock(seg, scx, range);
    let late = mutated(Mutation::TranslationsAfterContents);
    let early = mutated(Mutation::UnloadedBeforeLocked);
    if (seg.backing.is_some() || seg.amap().is_some()) && !late && !early {
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP);
    }
    if below.is_none() && above.is_none() {
        return Ok((Remnant::Nothing, None)); // the rest by `free`
    }
    free_file_pages(seg, scx, range);
    let reserved = Reserved::of(seg, scx);
    // Counted while its slots and marks are there; what is left is the difference (S5).
    let gone = reserved.of_part(seg, scx, range);
    seg.swresv.fetch_sub(gone, Ordering::AcqRel);
    let (mut lost, mut promised) = lose_part(seg, scx, range);
    promised += gone / PAGE_SIZE;
    let slots = seg.slots_of(scx.seg, range);
    if late {
        if let (Some(map), true) = (seg.amap(), lost != 0) {
            map.empty_lost(scx.cx, slots.clone(), core::mem::take(&mut lost));
        }
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP);
    }
    if seg.vpaged.load(Ordering::SeqCst) != 0 {
        let mut inner = seg.lock.lock(scx.cx);
        inner.vpage.set(vpns(range), VPage::PLAIN);
        if below.and(above).is_none() {
            inner.vpage.trim(); // else the room is for what the part above takes along, too
        }
        seg.note_pages(&inner.vpage);
    }
    forget_file(seg, scx, range);
    let remnant = match (below, above) {
        (None, None) => Remnant::Nothing,
        (Some(_), None) => Remnant::Low,
        (None, Some(high)) => {
            move_base(seg, scx.seg, high);
            Remnant::High
        }
        (Some(low), Some(high)) => {
            if let Some(map) = seg.amap() {
                map.split(scx.cx, seg.slots_of(scx.seg, low), seg.slots_of(scx.seg, high));
            }
            let its = reserved.of_upper(seg, scx, low, high, &above_pages);
            let twin = upper_part(seg, scx, high, its, above_pages);
            Remnant::Both(Box::new(twin))
        }
    };
    let leaving = match seg.amap() {
        Some(map) if lost != 0 => Some(Leaving::new(Arc::clone(map) as _, slots, lost, promised)),
        _ => {
            seg.driver.layer.swap().unreserve(promised);
            None
        }
    };
    Ok((remnant, leaving))
}

/// Makes room for what a cut changes page by page and slot by slot. Says what the pages of a part above a hole have.
fn make_room(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    below: Option<VirtRange>,
    above: Option<VirtRange>,
) -> Result<VPages, SegError> {
    let no_room = |_| SegError::NoMemory { range };
    if below.is_none() && above.is_none() {
        return Ok(VPages::default());
    }
    let twin = below.and(above);
    if let Some(map) = seg.amap() {
        let slots = |range| seg.slots_of(scx.seg, range);
        map.make_room(scx.cx, slots(scx.seg), slots(range)).map_err(no_room)?;
    }
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return Ok(VPages::default());
    }
    let mut inner = seg.lock.lock(scx.cx);
    inner.vpage.make_room(vpns(range)).map_err(no_room)?;
    twin.map_or(Ok(VPages::default()), |high| inner.vpage.part(vpns(high)).map_err(no_room))
}

/// The contents of a segment that is out of the tree: pages, slots, reservation.
#[doc(alias = "segvn_free")]
pub(super) fn free(seg: &SegVn, scx: &SegCx<'_>) {
    free_file_pages(seg, scx, scx.seg);
    if let Some(map) = seg.amap() {
        lose_slots(seg, scx, map);
    }
    forget_file(seg, scx, scx.seg);
    if !seg.shared() {
        seg.driver.layer.swap().unreserve(seg.swresv.swap(0, Ordering::AcqRel) / PAGE_SIZE);
    }
}

/// The file loses this mapping of `range`.
fn forget_file(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) {
    if let (Some(b), Some(offset)) = (&seg.backing, seg.file_offset(scx.seg, range.start())) {
        b.vnode.del_map(scx.cx, offset, range.pages().get());
    }
}

/// All slots of the segment go; a shared map gives back the reservation of those that nobody covers any more, and with its last segment all it has.
fn lose_slots(seg: &SegVn, scx: &SegCx<'_>, map: &AnonMap) {
    let mine = seg.slots_of(scx.seg, scx.seg);
    let lost = map.lose(scx.cx, mine.clone(), mine);
    let bytes = if lost.refs == 0 { u64::MAX } else { lost.slots * PAGE_SIZE };
    seg.driver.layer.swap().unreserve(map.take_swresv(bytes) / PAGE_SIZE);
}

/// The segment gives up the slots of `range`. Answers how many of them nobody covers any more, and how many pages of swap a shared map had promised for these.
fn lose_part(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> (u64, u64) {
    let Some(map) = seg.amap() else { return (0, 0) };
    let (mine, part) = (seg.slots_of(scx.seg, scx.seg), seg.slots_of(scx.seg, range));
    let lost = map.lose_part(scx.cx, mine, part).slots;
    (lost, map.take_swresv(lost * PAGE_SIZE) / PAGE_SIZE)
}

/// How a segment's reservation is counted, told before it is cut.
#[derive(Clone, Copy)]
pub(super) enum Reserved {
    Nothing,
    Touched,
    Marked,
    Whole,
}

impl Reserved {
    pub(super) fn of(seg: &SegVn, scx: &SegCx<'_>) -> Self {
        if seg.shared() || seg.swresv.load(Ordering::Acquire) == 0 {
            Self::Nothing
        } else if seg.noreserve() {
            Self::Touched
        } else if seg.vpaged.load(Ordering::SeqCst) != 0 && seg.reserves_by_page(scx) {
            Self::Marked
        } else {
            Self::Whole
        }
    }
    /// Bytes that `part` of the segment has; its slots and marks are looked at.
    pub(super) fn of_part(self, seg: &SegVn, scx: &SegCx<'_>, part: VirtRange) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Whole => part.len(),
            Self::Touched => {
                seg.amap().map_or(0, |m| m.count(scx.cx, seg.slots_of(scx.seg, part)) * PAGE_SIZE)
            }
            Self::Marked => {
                seg.lock.lock(scx.cx).vpage.count(vpns(part), |v| v.reserved) * PAGE_SIZE
            }
        }
    }
    /// Bytes of what the segment has that are those of `high`, whose pages have `pages` of their own; `low` has the others. Of slots those of the shorter part
    /// are counted.
    pub(super) fn of_upper(
        self,
        seg: &SegVn,
        scx: &SegCx<'_>,
        low: VirtRange,
        high: VirtRange,
        pages: &VPages,
    ) -> u64 {
        match self {
            Self::Touched if low.len() < high.len() => {
                seg.swresv.load(Ordering::Acquire) - self.of_part(seg, scx, low)
            }
            Self::Marked => pages.reserved() * PAGE_SIZE,
            _ => self.of_part(seg, scx, high),
        }
    }
}

/// Offset and slot follow the base upwards (S4: the address-space lock is held as writer).
fn move_base(seg: &SegVn, old: VirtRange, new: VirtRange) {
    let delta = new.start().get() - old.start().get();
    if let Some(b) = &seg.backing {
        b.offset.fetch_add(delta, Ordering::AcqRel);
    }
    seg.amp_index.fetch_add(delta / PAGE_SIZE, Ordering::AcqRel);
}

/// A driver for the part above a hole, or a cut; `vpage` is what its pages have of their own, and `swresv` what they have of the segment's reservation.
pub(super) fn upper_part(
    seg: &SegVn,
    scx: &SegCx<'_>,
    high: VirtRange,
    swresv: u64,
    vpage: VPages,
) -> SegVn {
    seg.swresv.fetch_sub(swresv, Ordering::AcqRel);
    let mut inner = seg.lock.lock(scx.cx);
    inner.vpage.set(vpns(high), VPage::PLAIN);
    inner.vpage.trim();
    seg.note_pages(&inner.vpage);
    let offset = seg.file_offset(scx.seg, high.start()).unwrap_or_default();
    SegVn {
        driver: Arc::clone(&seg.driver),
        backing: seg.backing.as_ref().map(|b| Backing::new(&b.vnode, offset.0)),
        amap: own::ready(seg.amap().map(Arc::clone)),
        amp_index: AtomicU64::new(seg.slot_of(scx.seg, high.start())),
        swresv: AtomicU64::new(swresv),
        seq: AtomicU32::new(0),
        softlocks: AtomicU32::new(0),
        pinned_shared: AtomicBool::new(false),
        prot: AtomicU8::new(seg.prot().bits()),
        max_prot: seg.max_prot,
        kind: seg.kind,
        advice: AtomicU8::new(seg.advice.load(Ordering::Relaxed)),
        vpaged: AtomicU8::new(u8::from(!vpage.is_plain())),
        lasting: AtomicU8::new(seg.lasting.load(Ordering::Acquire)),
        needs_copy: AtomicBool::new(seg.needs_copy()),
        lock: SegVn::lock_over(vpage),
    }
}

/// Clean pages of the file that nobody maps or claims any more go to the cache list. Best effort: never waits, and leaves them where they are without heap for a list.
#[doc(alias = "free_vp_pages")]
fn free_file_pages(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) {
    let (Some(b), Some(offset)) = (&seg.backing, seg.file_offset(scx.seg, range.start())) else {
        return;
    };
    let pages = pvn::pages_in(scx.cx, scx.db, b.vnode.id(), offset, range.len());
    for (id, page) in pages.into_iter().flatten() {
        if scx.db.page(page).is_free() {
            continue;
        }
        if let Some(page) = scx.db.try_lookup_shared(scx.cx, id) {
            scx.db.release(scx.cx, page, true);
        }
    }
}
