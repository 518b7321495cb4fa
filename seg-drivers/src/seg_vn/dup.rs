//! Fork: the child's half of a segment.
//!
//! Eager by default, as the Keyronex document and illumos have it: the child gets a map of its own whose slots hold the same anons, each with one
//! reference more, and the parent's translations lose the right to write. Lazy, as UVM has it: both sides go on with one map, and the slots
//! are copied by whoever first needs a map of its own ([`super::own`]). No page is copied, except where the parent's must stay where it is
//! because i/o is under way in it.
//!
//! ```text
//!   private   eager  parent amp ─▶ a0 (2) ◀─ child amp      parent's translations: read-only, flushed before this returns (V07)
//!             lazy   parent amp ═════════ child amp ─▶ a0   the same; one map, one more reference, both sides marked
//!   shared           parent amp ═════════ child amp         one map, one more reference; translations stay
//! ```
//!
//! What it costs, per segment, besides what every fork pays (a reservation, the right to write taken from page tables):
//!
//! | | slots visited | anons counted |
//! |---|---|---|
//! | eager | the occupied chunks | each |
//! | lazy | none | none |
//!
//! In both, pages that are zeros in the child (`inherit_zero`) have to be told from the others: the child's map is made at the fork.
//!
//! The parent and the child are locked as writers; nobody else reaches the child.
//!
//! Sources: illumos.md 4.4, uvm.md 4.

use super::fault::PageFault;
use super::own::ready;
use super::vpage::VPages;
use super::{Backing, ForkPolicy, SegVn, VPage, vpns};
use crate::anon::AnonMap;
use addr_space::{FaultError, SegCx, SegError, SegOps, Stamp};
use alloc::boxed::Box;
use alloc::sync::Arc;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::{Counter, LockedPage, PAGE_SIZE, Rank, VirtRange};

/// What becomes of a segment's map in the child.
enum ChildMap {
    /// There is none.
    Absent,
    /// The parent's, for good: a shared mapping.
    Shared(Arc<AnonMap>),
    /// The parent's, until one side needs its own.
    Lazy(Arc<AnonMap>),
    /// A copy, in whole or in part.
    Own(Arc<AnonMap>),
}

#[doc(alias("segvn_dup", "uvmspace_fork"))]
pub(super) fn dup(seg: &SegVn, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
    let range = scx.seg;
    let vpage = child_pages(seg, scx);
    let own = seg.swresv.load(Ordering::Acquire);
    let swap = seg.driver.layer.swap();
    // A fork that cannot reserve fails at once: waiting for memory would not bring swap.
    let held = swap.take(own / PAGE_SIZE).map_err(|_| SegError::NoSwap { range, bytes: own })?;
    let offset = seg.file_offset(range, range.start());
    if let (Some(b), Some(offset)) = (&seg.backing, offset) {
        b.vnode.add_map(scx.cx, offset, range.pages().get())?;
    }
    let map = child_map(seg, scx, &vpage).inspect_err(|_| {
        if let (Some(b), Some(offset)) = (&seg.backing, offset) {
            b.vnode.del_map(scx.cx, offset, range.pages().get());
        }
    })?;
    held.keep();
    let mut own = own;
    if seg.noreserve() && !matches!(map, ChildMap::Lazy(_)) {
        // Slots that become zeros in the child are not its own yet.
        let touched = match &map {
            ChildMap::Own(map) => map.count(scx.cx, seg.slots_of(range, range)) * PAGE_SIZE,
            _ => 0,
        };
        swap.unreserve((own - touched) / PAGE_SIZE);
        own = touched;
    }
    let lazy = matches!(map, ChildMap::Lazy(_));
    let amap = match map {
        ChildMap::Absent => None,
        ChildMap::Shared(map) | ChildMap::Lazy(map) | ChildMap::Own(map) => Some(map),
    };
    Ok(Box::new(SegVn {
        driver: Arc::clone(&seg.driver),
        backing: seg
            .backing
            .as_ref()
            .map(|b| Backing::new(&b.vnode, b.offset.load(Ordering::Acquire))),
        amap: ready(amap),
        amp_index: AtomicU64::new(seg.amp_index()),
        swresv: AtomicU64::new(own),
        seq: AtomicU32::new(0),
        softlocks: AtomicU32::new(0),
        prot: AtomicU8::new(seg.prot().bits()),
        max_prot: seg.max_prot,
        kind: seg.kind,
        advice: AtomicU8::new(seg.advice.load(Ordering::Relaxed)),
        vpaged: AtomicU8::new(u8::from(!vpage.is_plain())),
        needs_copy: AtomicBool::new(lazy),
        lock: Mutex::new(Rank::SegPrivate, super::Private { vpage }),
    }))
}

/// Per-page state of the child: everything but memory locks.
fn child_pages(seg: &SegVn, scx: &SegCx<'_>) -> VPages {
    let mut vpage = seg.lock.lock(scx.cx).vpage.clone();
    vpage.update(vpns(scx.seg), |v| VPage { locked: false, ..v });
    vpage
}

fn child_map(seg: &SegVn, scx: &SegCx<'_>, vpage: &VPages) -> Result<ChildMap, SegError> {
    let Some(map) = seg.amap() else { return Ok(ChildMap::Absent) };
    let slots = seg.slots_of(scx.seg, scx.seg);
    if seg.shared() {
        map.gain(scx.cx, slots);
        return Ok(ChildMap::Shared(Arc::clone(map)));
    }
    let pinned = seg.softlocks.load(Ordering::Acquire) != 0;
    let zeroed = vpage.any(vpns(scx.seg), |v| v.inherit_zero);
    if seg.driver.tunables.fork == ForkPolicy::Lazy && !pinned && !zeroed {
        map.gain(scx.cx, slots);
        if !seg.needs_copy.swap(true, Ordering::Relaxed) {
            scx.hat.clear_write(scx.cx, scx.seg); // else nothing has become writable since an earlier fork (O1)
        }
        return Ok(ChildMap::Lazy(Arc::clone(map)));
    }
    let base = scx.seg.start().vpn();
    let first = slots.start;
    let keep = |slot: u64| !vpage.get(base + slot.wrapping_sub(first)).inherit_zero;
    if pinned {
        return copy_pages(seg, scx, map, &keep).map(ChildMap::Own);
    }
    let keep = zeroed.then_some(&keep as &dyn Fn(u64) -> bool);
    let copy = map
        .dup(scx.cx, seg.driver.home(scx.cx), slots, keep)
        .map_err(|_| SegError::NoMemory { range: scx.seg })?;
    scx.hat.clear_write(scx.cx, scx.seg);
    Ok(ChildMap::Own(copy))
}

/// Copies every page: the parent keeps its own, writable, so that i/o under way in them stays valid.
#[doc(alias("segvn_dup_pages", "amap_cow_now"))]
fn copy_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    map: &AnonMap,
    keep: &dyn Fn(u64) -> bool,
) -> Result<Arc<AnonMap>, SegError> {
    let slots = seg.slots_of(scx.seg, scx.seg);
    let copy = AnonMap::new(seg.driver.home(scx.cx), 0);
    for (slot, n) in map.slots(scx.cx, slots.clone()).into_iter().filter(|(s, _)| keep(*s)) {
        let addr = scx.seg.page_at(slot.wrapping_sub(slots.start));
        let f = PageFault::by_system(scx, addr, seg.prot(), Stamp::take(&seg.seq));
        if let Err(e) = copy_one(seg, &f, &copy, slot, n) {
            copy.lose(scx.cx, slots.clone(), slots);
            return Err(match e {
                FaultError::NoMemory { .. } => {
                    SegError::NoMemory { range: VirtRange::page_of(addr) }
                }
                e => e.into(),
            });
        }
    }
    Ok(copy)
}

fn copy_one(
    seg: &SegVn,
    f: &PageFault<'_>,
    copy: &AnonMap,
    slot: u64,
    n: swapfs::AnonNumber,
) -> Result<(), FaultError> {
    let to = copy.enter_or_make(f.scx.cx, slot).map_err(|_| f.no_memory())?;
    let source = seg.anon_page(f, n)?;
    let (fresh, page) = seg.new_anon(f)?;
    f.scx.db.mem().copy(source.pfn(), page.pfn());
    f.scx.cx.count_n(Counter::BytesCopied, PAGE_SIZE);
    page.mark_filled();
    page.end_io();
    to.set(Some(fresh));
    Ok(())
}
