//! msync: dirty pages to where they belong, anonymous ones to swap, file pages to the file.
//!
//! Nobody who has a page pinned is waited for, since it may be waiting for whoever syncs: through this segment or another one of the same shared memory, a pin
//! is an error; a file's page is shared with whoever has it, and must it go, the address space waits for it without its lock.
//!
//! Sources: illumos.md 4.8 (sync, swapout).

use super::{SegVn, run_range, vpns};
use addr_space::{SegCx, SegError, SyncFlags, UnloadFlags};
use alloc::vec::Vec;
use core::ops::Range;
use page_db::sync::atomic::Ordering;
use page_db::{
    FileOffset, Identity, LockedPage, PAGE_SIZE, PutFlags, VirtAddr, VirtRange, VnodeError, pvn,
};
use swapfs::AnonNumber;

#[doc(alias = "segvn_sync")]
pub(super) fn sync(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    flags: SyncFlags,
) -> Result<(), SegError> {
    if seg.is_pinned() {
        return Err(SegError::Pinned { range });
    }
    let put = put_flags(flags);
    let invalidate = flags.contains(SyncFlags::INVALIDATE);
    let locked = if invalidate { first_locked(seg, scx, range)? } else { None };
    let below = locked.map_or(Some(range), |at| range.until(at.get()));
    below.map_or(Ok(()), |below| put_layers(seg, scx, below, put))?;
    locked.map_or(Ok(()), |addr| Err(SegError::Locked { addr }))
}

fn put_layers(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    put: PutFlags,
) -> Result<(), SegError> {
    if let (Some(b), None) = (&seg.backing, seg.amap()) {
        let offset = seg.file_offset(scx.seg, range.start()).unwrap_or_default();
        return b
            .vnode
            .put_page(scx.cx, scx.db, offset, range.len(), put)
            .map_err(|e| vnode_error(range, offset, e));
    }
    sync_layers(seg, scx, range, put)
}

fn put_flags(flags: SyncFlags) -> PutFlags {
    let mut put = PutFlags::empty();
    put.set(PutFlags::ASYNC, flags.contains(SyncFlags::ASYNC));
    put.set(PutFlags::INVAL | PutFlags::NOWAIT, flags.contains(SyncFlags::INVALIDATE));
    put
}

/// The first page that a mapping, this one or another, has locked in memory: it is not invalidated, and what lies above it neither.
fn first_locked(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
) -> Result<Option<VirtAddr>, SegError> {
    let mut first = None;
    each_page(seg, scx, range, &mut |addr, id| {
        if scx.db.exists(scx.cx, id).is_some_and(|p| scx.db.page(p).is_kept()) {
            first = Some(first.map_or(addr, |first: VirtAddr| first.min(addr)));
        }
        Ok(())
    })?;
    Ok(first)
}

/// What a vnode says of the page at an offset, said of the page of `range`, which shows what begins at `first`.
fn vnode_error(range: VirtRange, first: FileOffset, e: VnodeError) -> SegError {
    let last = range.pages().get().saturating_sub(1);
    let addr = |at: FileOffset| {
        range.page_at((at.0.saturating_sub(first.0) / PAGE_SIZE).min(last)) // whatever a vnode may say
    };
    match e {
        VnodeError::Locked { offset, .. } => SegError::Locked { addr: addr(offset) },
        VnodeError::NoMemory { .. } => SegError::NoMemory { range },
        VnodeError::Deadlock { offset, .. } => {
            SegError::Held { range: VirtRange::page_of(addr(offset)) }
        }
        e => SegError::Vnode(e),
    }
}

/// Anonymous pages go to swap, the pages of the file under empty slots to the file.
fn sync_layers(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    put: PutFlags,
) -> Result<(), SegError> {
    each_layer(seg, scx, range, put, |addr, n| {
        match seg.driver.layer.swap().put_page(scx.cx, n, put) {
            // Nowhere to write to, or in somebody's hands: the page stays. Nothing is lost, and its contents are no others anywhere else.
            Ok(())
            | Err(
                VnodeError::NoSpace { .. }
                | VnodeError::NoName { .. }
                | VnodeError::Deadlock { .. },
            ) => Ok(()),
            Err(e) => {
                let first = seg.driver.layer.swap().identity(n).offset;
                Err(vnode_error(VirtRange::page_of(addr), first, e))
            }
        }
    })
}

/// Writes back and drops the pages of the file under the empty slots of `range`.
pub(super) fn drop_file(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    flags: SyncFlags,
) -> Result<(), SegError> {
    match seg.backing {
        None => Ok(()),
        Some(_) => each_layer(seg, scx, range, put_flags(flags), |_, _| Ok(())),
    }
}

/// In order of address: `upper` for the slots of `range` that hold an anon, the pages of the file between them put as `put` says. Where there are slots the file is
/// asked once which of its pages are resident, and put run by run of those: asked gap by gap it would look through all it has for each.
fn each_layer(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    put: PutFlags,
    mut upper: impl FnMut(VirtAddr, AnonNumber) -> Result<(), SegError>,
) -> Result<(), SegError> {
    let slots = seg.slots_of(scx.seg, range);
    let pages = range.pages().get();
    let Some(map) = seg.amap() else { return sync_file(seg, scx, range, 0..pages, put) };
    let resident = file_pages(seg, scx, range)?;
    let mut below = resident.iter().map(|(addr, _)| range.page_index(*addr)).peekable();
    let mut file_until = |end: u64| {
        while let Some(first) = below.next_if(|page| *page < end) {
            let mut next = first + 1;
            while below.next_if(|page| *page == next && next < end).is_some() {
                next += 1;
            }
            sync_file(seg, scx, range, first..next, put)?;
        }
        let _under_the_copy = below.next_if_eq(&end);
        Ok::<_, SegError>(())
    };
    for (slot, n) in map.slots(scx.cx, slots.clone()) {
        let page = slot.wrapping_sub(slots.start);
        file_until(page)?;
        upper(range.page_at(page), n)?;
    }
    file_until(pages)
}

/// The resident pages of the file behind `range`, in order: where they would be seen, and their names. Hints.
fn file_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
) -> Result<Vec<(VirtAddr, Identity)>, SegError> {
    let (Some(b), Some(FileOffset(first))) =
        (&seg.backing, seg.file_offset(scx.seg, range.start()))
    else {
        return Ok(Vec::new());
    };
    let pages = pvn::pages_in(scx.cx, scx.db, b.vnode.id(), FileOffset(first), range.len());
    let pages = pages.map_err(|_| SegError::NoMemory { range })?;
    let addr = |id: Identity| range.page_at((id.offset.0 - first) / PAGE_SIZE);
    Ok(pages.into_iter().map(|(id, _)| (addr(id), id)).collect())
}

/// The file's pages that the `pages` of `range` show.
fn sync_file(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    pages: Range<u64>,
    put: PutFlags,
) -> Result<(), SegError> {
    let Some(b) = seg.backing.as_ref().filter(|_| !pages.is_empty()) else { return Ok(()) };
    let part = run_range(range, &(vpns(range).start + pages.start..vpns(range).start + pages.end));
    let offset = seg.file_offset(scx.seg, part.start()).unwrap_or_default();
    b.vnode
        .put_page(scx.cx, scx.db, offset, part.len(), put)
        .map_err(|e| vnode_error(part, offset, e))
}

/// Calls `f` with the name of each page of `range` that may be resident: occupied slots, and resident pages of the file.
pub(super) fn each_page(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    f: &mut dyn FnMut(VirtAddr, Identity) -> Result<(), SegError>,
) -> Result<(), SegError> {
    if let Some(map) = seg.amap() {
        let slots = seg.slots_of(scx.seg, range);
        for (slot, n) in map.slots(scx.cx, slots.clone()) {
            f(range.page_at(slot.wrapping_sub(slots.start)), seg.driver.layer.swap().identity(n))?;
        }
    }
    for (addr, id) in file_pages(seg, scx, range)? {
        let above = seg.amap().and_then(|m| m.peek(seg.slot_of(scx.seg, addr)));
        if above.is_none() {
            f(addr, id)?;
        }
    }
    Ok(())
}

/// Takes the segment's translations away and pushes the pages that nobody maps then; returns bytes freed. While pages are pinned through it, a translation may
/// be locked, and all of them stay.
#[doc(alias("segvn_swapout", "hat_swapout"))]
pub(super) fn swapout(seg: &SegVn, scx: &SegCx<'_>) -> u64 {
    let mut freed = 0;
    {
        let _pinners = seg.lock.lock(scx.cx); // who pins a page has counted it under this
        if seg.softlocks.load(Ordering::Acquire) == 0 {
            scx.hat.unload(scx.cx, scx.seg, UnloadFlags::empty());
        }
    }
    let _ = each_page(seg, scx, scx.seg, &mut |_, id| {
        let Some(page) = scx.db.try_lookup_excl(scx.cx, id) else { return Ok(()) };
        if page.page().is_mapped() || page.page().is_kept() {
            return Ok(());
        }
        drop(page);
        let Some(vnode) = scx.db.vnodes().object(id.vnode) else { return Ok(()) };
        let put = vnode.put_page(scx.cx, scx.db, id.offset, PAGE_SIZE, PutFlags::FREE);
        let gone = scx.db.exists(scx.cx, id).is_none_or(|p| scx.db.page(p).is_free());
        if put.is_ok() && gone {
            freed += PAGE_SIZE;
        }
        Ok(())
    });
    freed
}
