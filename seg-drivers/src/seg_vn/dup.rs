//! Fork: the child's half of a segment.
//!
//! Eager, as the Keyronex document and illumos have it: the child gets a map of its own whose slots hold the same anons, each with one
//! reference more, and the parent's translations lose the right to write. No page is copied, except where the parent's must stay
//! where it is because i/o is under way in it.
//!
//! ```text
//!   private   parent amp ─▶ a0 (2) ◀─ child amp        parent's translations: read-only, flushed before this returns (V07)
//!   shared    parent amp ═══════════ child amp          one map, one more reference; translations stay
//! ```
//!
//! The parent and the child are locked as writers; nobody else reaches the child.
//!
//! Sources: illumos.md 4.4, uvm.md 4.

use super::fault::PageFault;
use super::vpage::VPages;
use super::{Backing, SegVn, VPage, vpns};
use crate::anon::AnonMap;
use addr_space::{FaultError, SegCx, SegError, SegOps, Stamp};
use alloc::boxed::Box;
use alloc::sync::Arc;
use page_db::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::sync::{Mutex, Once};
use page_db::{Counter, LockedPage, PAGE_SIZE, Rank, RefMod, VirtRange};

#[doc(alias("segvn_dup", "uvmspace_fork"))]
pub(super) fn dup(seg: &SegVn, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
    let range = scx.seg;
    let vpage = child_pages(seg, scx);
    let zeroed = vpage.any(vpns(range), |v| v.inherit_zero);
    let own = seg.swresv.load(Ordering::Acquire);
    let swap = seg.driver.layer.swap();
    // A fork that cannot reserve fails at once: waiting for memory would not bring swap.
    let held = swap.take(own / PAGE_SIZE).map_err(|_| SegError::NoSwap { range, bytes: own })?;
    let offset = seg.file_offset(range, range.start());
    if let (Some(b), Some(offset)) = (&seg.backing, offset) {
        b.vnode.add_map(scx.cx, offset, range.pages().get())?;
    }
    let map = child_map(seg, scx, &vpage, zeroed).inspect_err(|_| {
        if let (Some(b), Some(offset)) = (&seg.backing, offset) {
            b.vnode.del_map(scx.cx, offset, range.pages().get());
        }
    })?;
    held.keep();
    let mut own = own;
    if seg.noreserve()
        && let Some(map) = &map
    {
        // Slots that become zeros in the child are not its own yet.
        let touched = map.count(scx.cx, seg.slots_of(range, range)) * PAGE_SIZE;
        swap.unreserve((own - touched) / PAGE_SIZE);
        own = touched;
    }
    let amap = Once::new();
    if let Some(map) = map {
        let _ = amap.set(map);
    }
    Ok(Box::new(SegVn {
        driver: Arc::clone(&seg.driver),
        backing: seg
            .backing
            .as_ref()
            .map(|b| Backing::new(&b.vnode, b.offset.load(Ordering::Acquire))),
        amap,
        amp_index: AtomicU64::new(seg.amp_index()),
        swresv: AtomicU64::new(own),
        seq: AtomicU32::new(0),
        softlocks: AtomicU32::new(0),
        prot: AtomicU8::new(seg.prot().bits()),
        max_prot: seg.max_prot,
        kind: seg.kind,
        advice: AtomicU8::new(seg.advice.load(Ordering::Relaxed)),
        vpaged: AtomicU8::new(u8::from(!vpage.is_plain())),
        lock: Mutex::new(Rank::SegPrivate, super::Private { vpage }),
    }))
}

/// Per-page state of the child: everything but memory locks.
fn child_pages(seg: &SegVn, scx: &SegCx<'_>) -> VPages {
    let mut vpage = seg.lock.lock(scx.cx).vpage.clone();
    vpage.update(vpns(scx.seg), |v| VPage { locked: false, ..v });
    vpage
}

fn child_map(
    seg: &SegVn,
    scx: &SegCx<'_>,
    vpage: &VPages,
    zeroed: bool,
) -> Result<Option<Arc<AnonMap>>, SegError> {
    let Some(map) = seg.amap() else { return Ok(None) };
    let slots = seg.slots_of(scx.seg, scx.seg);
    if seg.shared() {
        map.gain(scx.cx, slots);
        return Ok(Some(Arc::clone(map)));
    }
    let base = scx.seg.start().vpn();
    let first = slots.start;
    let keep = |slot: u64| !vpage.get(base + slot.wrapping_sub(first)).inherit_zero;
    let no_memory = |_| SegError::NoMemory { range: scx.seg };
    if seg.softlocks.load(Ordering::Acquire) != 0 {
        return copy_pages(seg, scx, map, &keep).map(Some);
    }
    let keep = zeroed.then_some(&keep as &dyn Fn(u64) -> bool);
    let home = seg.driver.home(scx.cx);
    let copy = map.dup(scx.cx, home, slots, keep).map_err(no_memory)?;
    scx.hat.clear_write(scx.cx, scx.seg);
    Ok(Some(copy))
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
    page.page().set_ref_mod(RefMod::REF | RefMod::MOD);
    page.end_io();
    to.set(Some(fresh));
    Ok(())
}
