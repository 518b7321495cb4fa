//! Two adjacent segments become one.
//!
//! Allowed when everything that is kept once per segment is equal and what is kept per page can be joined: same file at contiguous offsets, same
//! kind, ceiling, rights, advice and way of being called (per-page rights travel as they are), nothing pinned at the seam, and at most one anon map whose slots
//! beside the seam are nobody's. A fresh segment has no map, so growing a heap or a stack costs no tree node, and filling the hole
//! between two halves of what was one segment makes it one again.
//!
//! Sources: illumos.md 4.2.

use super::vpage::VPages;
use super::{SegVn, VPage, vpns};
use addr_space::{Join, SegCx};
use page_db::VirtRange;
use page_db::heap::NoHeap;
use page_db::sync::atomic::Ordering;

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
    if a.amap().is_some() && b.amap().is_some() && a.is_named() != b.is_named() {
        return false; // whoever waits by what one is called would not be found
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
        b.lock.lock(scx.cx).vpage.trim();
        return false;
    }
    // held: as (writer). Nobody faults; both drivers are ours alone.
    {
        let as_is = || core::mem::take(&mut b.lock.lock(scx.cx).vpage);
        let theirs = pages.theirs.unwrap_or_else(as_is);
        let mut inner = a.lock.lock(scx.cx);
        if let Some(mine) = pages.mine {
            inner.vpage = mine;
        }
        inner.vpage.absorb(theirs);
        inner.vpage.trim();
        a.note_pages(&inner.vpage);
        if b.noted() {
            a.note();
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
    if b.is_named() {
        a.be_named();
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

/// What two segments are to have page by page, where they are marked before they join.
#[derive(Default)]
struct JoinedPages {
    /// The first one's.
    mine: Option<VPages>,
    /// The second one's.
    theirs: Option<VPages>,
}

/// Makes room where one's per-page state goes to that of the other. Segments reserved differently (whole, or not at all) are marked page by
/// page before they join, on copies: either may stay what it is. A segment is marked once, so growing it later looks at no run of it.
fn joined_pages(
    a: &SegVn,
    scx: &SegCx<'_>,
    b: &SegVn,
    b_range: VirtRange,
) -> Result<JoinedPages, NoHeap> {
    let whole = |s: &SegVn, range: VirtRange| s.swresv.load(Ordering::Acquire) == range.len();
    let alike = a.shared() || a.noreserve();
    let plain = |s: &SegVn| s.vpaged.load(Ordering::SeqCst) == 0;
    if plain(a) && plain(b) && (alike || whole(a, scx.seg) == whole(b, b_range)) {
        return Ok(JoinedPages { mine: None, theirs: Some(VPages::default()) }); // no lock for what is not there
    }
    let mut pages = JoinedPages::default();
    let mut inner = a.lock.lock(scx.cx);
    let mut next = b.lock.lock_nested(scx.cx);
    let sa = (inner.vpage.reserved() != 0, whole(a, scx.seg));
    let sb = (next.vpage.reserved() != 0, whole(b, b_range));
    if !alike && (sa != sb || sa.0) {
        let marked = |pages: &VPages, range: VirtRange| {
            let mut copy = pages.part(vpns(range))?;
            copy.make_room(vpns(range))?;
            copy.update(vpns(range), |v| VPage { reserved: true, ..v });
            Ok(copy)
        };
        let is_whole = (false, true);
        pages.mine = (sa == is_whole).then(|| marked(&inner.vpage, scx.seg)).transpose()?;
        pages.theirs = (sb == is_whole).then(|| marked(&next.vpage, b_range)).transpose()?;
    }
    let mine = pages.mine.as_mut().unwrap_or(&mut inner.vpage);
    mine.make_room_to_absorb(pages.theirs.as_mut().unwrap_or(&mut next.vpage))?;
    Ok(pages)
}
