//! Giving contents up: four operations that look alike and are not.
//!
//! # The difficulty
//!
//! Each system has its word for "I do not need what is there any more", and a program that was told one of them and gets another reads zeros where
//! it expects its bytes, or holds memory that it thinks it gave back. So they are four, and none stands for another:
//!
//! | a page that is | `Free` (illumos) | `Purge` (illumos) | `Drop` (UVM) | `Discard` (Linux's `DONTNEED`) |
//! |---|---|---|---|---|
//! | anonymous, this mapping's alone, in memory | to the cache list, clean: old bytes or zeros | slot emptied | slot emptied | slot emptied |
//! | the same, on swap | kept | kept | slot emptied, its place free | the same |
//! | shared copy-on-write since a fork | kept | kept | this side's slot emptied | the same |
//! | the same, under a lazy fork, before the map is its own | kept | made its own, and kept | kept | made its own, then emptied |
//! | in a slot that another segment has too | kept | kept | kept | kept, unmapped here |
//! | a private file's, not copied | kept | kept | written back and dropped | unmapped here |
//! | shared memory or a shared file's | kept | kept | as if private, if no other segment has it | unmapped here |
//! | a file's, lent to anons, or locked in memory by somebody else | kept | kept | `EBUSY`, the others are done | unmapped here |
//! | locked in memory by this mapping | kept | `EBUSY`, the others are done | `EBUSY`, what lies below is done | the same |
//! | pinned for i/o | kept | kept | `EAGAIN`, nothing is done | the same |
//!
//! `Free` is in [`super::advise`]. An emptied slot shows what lies below: the file, or zeros. What is refused of the file's is refused when the slots are empty: under a
//! `Drop` that says `EBUSY` for a page of the file, the copy above that page is gone as well.
//!
//! # The rule
//!
//! A slot is emptied as an unmap empties it, but with the mapping in place and other threads at work in it. So the order is
//!
//! ```text
//!   segment's lock        nobody locks or pins a page meanwhile
//!     slots busy          nobody faults on them
//!       translations go   no CPU of this address space reaches the page
//!       slots emptied, references counted
//!     slots free          who faults now finds what lies below
//!   segment's lock free   a page may be waited for
//!   dead anons: page, place on swap, number (N5)
//! ```
//!
//! - D1: a page that this mapping has locked is never taken from its slot, so a claim has its page (V19).
//! - D2: where swap is reserved at the first touch, what is emptied is not reserved any more (I12). Elsewhere the mapping goes on being reserved.
//!
//! # The other road
//!
//! Unmapping the range and mapping it again needs no code. It takes the lock as writer, stops every other fault for the length of the range, and
//! gives up reservation, advice, rights and inheritance, which are then to be put back.
//!
//! Sources: illumos.md 4.8 (advise), 5.3 (`anon_disclaim`); uvm.md 5.5, 9 (28); Linux `madvise(2)`.

use super::{SegVn, sync, vpns};
use crate::anon::AnonMap;
use crate::anon::free::Later;
use crate::runs::run_range;
use addr_space::{Advice, FaultError, SegCx, SegError, SyncFlags, UnloadFlags};
use page_db::sync::atomic::Ordering;
use page_db::{Counter, LockedPage, PAGE_SIZE, VirtAddr, VirtRange};

/// `Discard` or `Drop`.
///
/// # Errors
/// [`SegError::Locked`] at the first page that this mapping has locked: what lies below is done. [`SegError::Pinned`]: nothing is done.
#[doc(alias("MADV_DONTNEED", "madvise_dontneed_single_vma", "amap_clean", "uvm_map_clean"))]
pub(super) fn empty(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    advice: Advice,
) -> Result<(), SegError> {
    let discard = advice == Advice::Discard;
    if discard && seg.needs_copy() && seg.amap().is_some() {
        return Err(FaultError::NotOwn { addr: range.start() }.into());
    }
    let inner = seg.lock.lock(scx.cx);
    // held: as (reader), segment: what is not locked or pinned now stays so
    if seg.softlocks.load(Ordering::Acquire) != 0 {
        return Err(SegError::Pinned { range });
    }
    let locked = inner.vpage.iter(vpns(range)).find(|(_, v)| v.is_locked());
    let locked = locked.map(|(run, _)| run_range(scx.seg, &run).start());
    let part = locked.map_or(Some(range), |at| range.until(at.get()));
    let (mut emptied, mut dead) = (0, Later::default());
    if let Some(part) = part {
        if let Some(map) = seg.amap().filter(|_| !seg.needs_copy()) {
            emptied = empty_slots(seg, scx, part, map, discard, &mut dead);
        }
        if discard && (seg.backing.is_some() || seg.is_joint()) {
            scx.hat.unload(scx.cx, part, UnloadFlags::empty());
        }
    }
    drop(inner);
    // held: as (reader)
    dead.end(scx.cx, &seg.driver.layer);
    give_back(seg, scx, emptied);
    if let (false, Some(part)) = (discard, part) {
        sync::drop_file(seg, scx, part, SyncFlags::INVALIDATE)?;
    }
    locked.map_or(Ok(()), |addr| Err(SegError::Locked { addr }))
}

/// Empties the slots of `part` that no other segment has too, and says how many held something. held: as (reader), segment
fn empty_slots(
    seg: &SegVn,
    scx: &SegCx<'_>,
    part: VirtRange,
    map: &AnonMap,
    discard: bool,
    dead: &mut Later,
) -> u64 {
    if discard && seg.shared() {
        return 0;
    }
    let slots = seg.slots_of(scx.seg, part);
    let (mut emptied, mut rest) = (0, slots.clone());
    while !rest.is_empty() {
        let (run, refs) = map.first_refs(scx.cx, rest.clone());
        rest.start = run.end;
        if refs > 1 {
            continue;
        }
        let mut unload = |busy: core::ops::Range<u64>| {
            let first = part.page_at(busy.start.wrapping_sub(slots.start));
            let bytes = (busy.end - busy.start) * PAGE_SIZE;
            if let Ok(pages) = VirtRange::exact(first.get(), bytes) {
                scx.hat.unload(scx.cx, pages, UnloadFlags::empty());
            }
        };
        emptied += map.empty_range(scx.cx, run, &mut unload, Some(dead));
    }
    emptied
}

/// D2.
fn give_back(seg: &SegVn, scx: &SegCx<'_>, slots: u64) {
    if slots == 0 || !seg.noreserve() || seg.shared() {
        return;
    }
    if seg.backing.is_none() {
        scx.space.sub_resv(slots * PAGE_SIZE);
    }
    seg.swresv.fetch_sub(slots * PAGE_SIZE, Ordering::AcqRel);
    seg.driver.layer.swap().unreserve(slots);
}

/// `Purge`: what is easily given up goes, slot and all. What is not in memory, in somebody's hands, or shared, stays.
///
/// # Errors
/// [`SegError::Locked`] names the first page that a mapping, this one or another, has locked; the others are done.
#[doc(alias("MADV_PURGE", "anon_disclaim"))]
pub(super) fn purge(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
    let (Some(map), false) = (seg.amap(), seg.shared()) else { return Ok(()) };
    if seg.needs_copy() {
        return Err(FaultError::NotOwn { addr: range.start() }.into());
    }
    let _no_locks = seg.lock.lock(scx.cx);
    // held: as (reader), segment: no page is locked meanwhile (D1)
    let slots = seg.slots_of(scx.seg, range);
    let (mut locked, mut emptied) = (None, 0);
    for (slot, _) in map.slots(scx.cx, slots.clone()) {
        let addr = range.page_at(slot.wrapping_sub(slots.start));
        if seg.shares_slot(scx, slot) {
            continue;
        }
        match purge_slot(seg, scx, map, slot) {
            Purged::Kept => {}
            Purged::Locked => locked = locked.or(Some(addr)),
            Purged::Gone => emptied += 1,
        }
    }
    give_back(seg, scx, emptied);
    locked.map_or(Ok(()), |addr: VirtAddr| Err(SegError::Locked { addr }))
}

enum Purged {
    Kept,
    Locked,
    Gone,
}

fn purge_slot(seg: &SegVn, scx: &SegCx<'_>, map: &AnonMap, slot: u64) -> Purged {
    let layer = &seg.driver.layer;
    let Some(held) = map.enter(scx.cx, slot) else { return Purged::Kept };
    let Some(n) = held.get().filter(|n| seg.alone(*n)) else { return Purged::Kept };
    let Some(page) = scx.db.try_lookup_excl(scx.cx, layer.swap().identity(n)) else {
        scx.cx.count(Counter::MadvFreeMiss);
        return Purged::Kept;
    };
    if page.page().is_claimed() {
        return Purged::Locked;
    }
    scx.db.unload(scx.cx, &page);
    drop(page);
    held.set(None);
    drop(held);
    layer.unref(scx.cx, n);
    scx.cx.count(Counter::MadvFreeHit);
    Purged::Gone
}
