//! Two adjacent segments become one.
//!
//! Allowed when everything that is kept once per segment is equal and what is kept per page can be joined: same file at contiguous offsets, same
//! kind, ceiling, rights and advice (per-page rights travel as they are), nothing pinned at the seam, and at most one anon map whose slots
//! beside the seam are nobody's. A fresh segment has no map, so growing a heap or a stack costs no tree node, and filling the hole
//! between two halves of what was one segment makes it one again.
//!
//! Sources: illumos.md 4.2.

use super::vpage::VPages;
use super::{SegVn, VPage, vpns};
use addr_space::{Join, SegCx};
use page_db::heap::NoHeap;
use page_db::sync::atomic::Ordering;
use page_db::{PAGE_SIZE, VirtRange};

#[doc(alias("segvn_concat", "segvn_extend_prev", "segvn_extend_next"))]
pub(super) fn concat(
    a: &SegVn,
    scx: &SegCx<'_>,
    b_range: VirtRange,
    b: &SegVn,
    join: Join,
) -> bool {
    if !same_kind(a, b) || !contiguous(a, scx.seg, b, b_range) {
        return false;
    }
    if a.softlocks.load(Ordering::Acquire) != 0 || b.softlocks.load(Ordering::Acquire) != 0 {
        return false;
    }
    // What another side of a fork still reaches does not grow, and is not cut anew.
    if !a.try_own(scx, scx.seg) || !b.try_own(scx, b_range) {
        return false;
    }
    let Ok(pages) = joined_pages(a, scx, b, b_range) else { return false };
    // The last thing that can refuse: it takes the slots.
    if !maps_join(a, scx, b, b_range, join) {
        a.lock.lock(scx.cx).vpage.trim();
        return false;
    }
    // held: as (writer). Nobody faults; both drivers are ours alone.
    {
        let mut inner = a.lock.lock(scx.cx);
        if let Some(mine) = pages.mine {
            inner.vpage = mine;
        }
        inner.vpage.absorb(pages.theirs);
        inner.vpage.trim();
        a.note_pages(&inner.vpage);
        if b.noted() {
            a.noted.store(true, Ordering::Relaxed);
        }
    }
    a.swresv.fetch_add(b.swresv.load(Ordering::Acquire), Ordering::AcqRel);
    if let (None, Some(map)) = (a.amap(), b.amap()) {
        let pages = scx.seg.pages().get();
        a.amp_index.store(b.amp_index().wrapping_sub(pages), Ordering::Release);
        let _ = a.amap.set(alloc::sync::Arc::clone(map));
    } else if let (Some(map), Some(_)) = (a.amap(), b.amap()) {
        map.unsplit(scx.cx);
    }
    true
}

fn same_kind(a: &SegVn, b: &SegVn) -> bool {
    a.kind == b.kind
        && a.max_prot == b.max_prot
        && a.prot() == b.prot()
        && a.advice.load(Ordering::Relaxed) == b.advice.load(Ordering::Relaxed)
        && alloc::sync::Arc::ptr_eq(&a.driver, &b.driver)
}

fn contiguous(a: &SegVn, a_range: VirtRange, b: &SegVn, b_range: VirtRange) -> bool {
    match (&a.backing, &b.backing) {
        (None, None) => true,
        (Some(x), Some(y)) => {
            x.vnode.id() == y.vnode.id()
                && x.offset.load(Ordering::Acquire) + a_range.len()
                    == y.offset.load(Ordering::Acquire)
                && b_range.start().get() == a_range.end()
        }
        _ => false,
    }
}

/// No map, two parts of the same map, or (when one of the two is new) one private map that takes over the slots of the new one.
fn maps_join(a: &SegVn, scx: &SegCx<'_>, b: &SegVn, b_range: VirtRange, join: Join) -> bool {
    let (a_pages, b_pages) = (scx.seg.pages().get(), b_range.pages().get());
    // A shared map belongs to the object, not to the segment: it does not grow.
    let may_grow = join == Join::Extend && !a.shared();
    match (a.amap(), b.amap()) {
        (None, None) => true,
        (Some(x), Some(y)) => {
            alloc::sync::Arc::ptr_eq(x, y)
                && a.amp_index().wrapping_add(a_pages) == b.amp_index()
                && b_range.start().get() == scx.seg.end()
        }
        (Some(x), None) => {
            let room = a.amp_index().checked_add(a_pages);
            let room = room.and_then(|first| Some(first..first.checked_add(b_pages)?));
            may_grow && room.is_some_and(|slots| x.cover(scx.cx, slots))
        }
        (None, Some(y)) => {
            // The copy of a shared map begins where that did, at slot 0: nothing fits below.
            let room = b.amp_index().checked_sub(a_pages).map(|first| first..b.amp_index());
            may_grow && room.is_some_and(|slots| y.cover(scx.cx, slots))
        }
    }
}

/// What two segments keep page by page, ready to be put together.
#[derive(Default)]
struct JoinedPages {
    /// The first segment's, where that changes.
    mine: Option<VPages>,
    /// The second one's.
    theirs: VPages,
}

/// Copies what is kept page by page, and makes room where the copies go. Segments reserved differently (whole, or not at all) are marked page by
/// page before they join.
fn joined_pages(
    a: &SegVn,
    scx: &SegCx<'_>,
    b: &SegVn,
    b_range: VirtRange,
) -> Result<JoinedPages, NoHeap> {
    let whole = |s: &SegVn, range: VirtRange| {
        s.swresv.load(Ordering::Acquire) == range.pages().get() * PAGE_SIZE
    };
    let alike = a.shared() || a.noreserve();
    let plain = |s: &SegVn| s.vpaged.load(Ordering::SeqCst) == 0;
    if plain(a) && plain(b) && (alike || whole(a, scx.seg) == whole(b, b_range)) {
        return Ok(JoinedPages::default());
    }
    let marked = |pages: &VPages, range: VirtRange| pages.any(vpns(range), |v| v.reserved);
    let mark = |pages: &mut VPages, range: VirtRange| {
        pages.make_room(vpns(range))?;
        pages.update(vpns(range), |v| VPage { reserved: true, ..v });
        Ok::<_, NoHeap>(())
    };
    let mut theirs = b.lock.lock(scx.cx).vpage.part(vpns(b_range))?;
    let sa = (marked(&a.lock.lock(scx.cx).vpage, scx.seg), whole(a, scx.seg));
    let sb = (marked(&theirs, b_range), whole(b, b_range));
    let alike = alike || (sa == sb && !sa.0);
    if !alike && sb == (false, true) {
        mark(&mut theirs, b_range)?;
    }
    let mut inner = a.lock.lock(scx.cx);
    if alike || sa != (false, true) {
        inner.vpage.make_room_for(&theirs)?;
        return Ok(JoinedPages { mine: None, theirs });
    }
    let mut mine = inner.vpage.part(vpns(scx.seg))?;
    mark(&mut mine, scx.seg)?;
    mine.make_room_for(&theirs)?;
    Ok(JoinedPages { mine: Some(mine), theirs })
}
