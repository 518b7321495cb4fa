//! Fork: the child's half of a segment.
//!
//! Eager by default, as the Keyronex document and illumos have it: the child gets a map of its own whose slots hold the same anons, each with one
//! reference more, and the parent's translations lose the right to write. Lazy, as UVM has it: both sides go on with one map, and the slots
//! are copied by whoever first needs a map of its own ([`super::own`]). No page is copied, except where the parent's must stay where it is
//! because i/o is under way in it, or, as UVM has it and by [`LockedAtFork::Copy`], because the parent has locked it in memory: then it is never
//! to fault there, and its translation keeps the right to write. Such copies are made one after another while other threads of the parent may store, so the child
//! may have a later store and not an earlier one into another page; of pages that are shared it has all that was stored before.
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
//! In both, pages that are zeros in the child have to be told from the others: the child's map is made at the fork. What a page's note says instead
//! of its mapping's kind ([`super::inherit`]) makes the cases that are neither:
//!
//! ```text
//!   share of private   parent amp ═════════ child amp         as shared memory, on a map made if need be and joint from now on (J1-J4)
//!   copy of joint      parent amp ─▶ a0 (2) ◀─ child amp      as eager; every sharer's translations lose the right to write
//!   copy of a file     parent's file ═══════ child's file     a private view: nothing above it yet
//!   zeros                                    child            private memory that nobody has touched
//! ```
//!
//! A child that reserves what the parent did not (a private copy of shared memory) reserves it here, and the fork fails where it cannot.
//!
//! The parent and the child are locked as writers; nobody else reaches the child.
//!
//! Sources: illumos.md 4.4, uvm.md 4.

use super::fault::PageFault;
use super::inherit::Heir;
use super::own::ready;
use super::protect::Gain;
use super::unmap::Reserved;
use super::vpage::VPages;
use super::{Backing, FIRST_SLOT, ForkPolicy, LockedAtFork, SegVn, VPage, joint, run_range, vpns};
use crate::anon::AnonMap;
use addr_space::{FaultError, Inherit, SegCx, SegError, SegKind, SegOps, Stamp};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::{Counter, LockedPage, PAGE_SIZE, Prot, VirtRange, heap};

/// What becomes of a segment's map in the child.
enum ChildMap {
    /// There is none.
    Absent,
    /// The parent's, for good.
    Shared(Arc<AnonMap>),
    /// The parent's, until one side needs its own.
    Lazy(Arc<AnonMap>),
    /// A copy, in whole or in part.
    Own(Arc<AnonMap>),
}

/// See [`addr_space::SegOps::dup`]; the child gets `part`, which is inherited in one way.
#[doc(alias("segvn_dup", "uvmspace_fork"))]
pub(super) fn dup(
    seg: &SegVn,
    scx: &SegCx<'_>,
    part: VirtRange,
) -> Result<Box<dyn SegOps>, SegError> {
    let noted = seg.vpaged.load(Ordering::SeqCst) != 0;
    let note = || seg.lock.lock(scx.cx).vpage.get(part.start().vpn()).inherit;
    let heir = seg.heir(noted.then(note).flatten());
    Ok(Box::new(dup_as(seg, scx, part, heir)?))
}

/// The same, whatever is noted of how the pages are inherited.
pub(super) fn dup_as(
    seg: &SegVn,
    scx: &SegCx<'_>,
    part: VirtRange,
    heir: Heir,
) -> Result<SegVn, SegError> {
    let mut vpage = child_pages(seg, scx, part)?;
    let mut own = reservation(seg, scx, part, heir, &vpage);
    let swap = seg.driver.layer.swap();
    // A fork that cannot reserve fails at once: waiting for memory would not bring swap.
    let no_swap = |_| SegError::NoSwap { range: part, bytes: own };
    let held = swap.take(own / PAGE_SIZE).map_err(no_swap)?;
    // Either side may go on alone with what both have stored, so both have reserved it. What the parent gains is the child's until no other segment can fail.
    let joins = heir == Heir::Same && !seg.shared();
    let mut gain = if joins && seg.backing.is_some() {
        Some(Gain::plan(seg, scx, &seg.lock.lock(scx.cx).vpage, part)?)
    } else {
        None
    };
    if joins && !seg.needs_copy() {
        joint::join(seg, scx, part, gain.as_mut())?;
    }
    if gain.is_some() {
        let no_room = |_| SegError::NoMemory { range: part };
        let room = seg.lock.lock(scx.cx).vpage.make_room(vpns(scx.seg)); // for all parts: they are taken over one after the other
        room.map_err(no_room)?;
    }
    let below = seg.backing.as_ref().filter(|_| heir != Heir::Zeros);
    let offset = seg.file_offset(scx.seg, part.start()).unwrap_or_default();
    if let Some(b) = below {
        b.vnode.add_map(scx.cx, offset, part.pages().get())?;
    }
    let map = child_map(seg, scx, part, heir, &vpage).inspect_err(|_| {
        if let Some(b) = below {
            b.vnode.del_map(scx.cx, offset, part.pages().get());
        }
    })?;
    // Nothing fails from here on.
    held.keep();
    if joins {
        seg.be_named();
    }
    let gained = gain.map_or(0, Gain::keep);
    if seg.noreserve() && heir != Heir::Zeros && !matches!(map, ChildMap::Lazy(_)) {
        // Slots that become zeros in the child are not its own yet.
        let touched = match &map {
            ChildMap::Own(map) => map.count(scx.cx, seg.slots_of(scx.seg, part)) * PAGE_SIZE,
            _ => 0,
        };
        swap.unreserve((own - touched) / PAGE_SIZE);
        own = touched;
    }
    if own == part.len() {
        vpage.update(vpns(part), |v| VPage { reserved: false, ..v }); // whole
    }
    let lazy = matches!(map, ChildMap::Lazy(_));
    let amap = match map {
        ChildMap::Absent => None,
        ChildMap::Shared(map) | ChildMap::Lazy(map) | ChildMap::Own(map) => Some(map),
    };
    let first = seg.slot_of(scx.seg, part.start());
    Ok(SegVn {
        driver: Arc::clone(&seg.driver),
        backing: below.map(|b| Backing::new(&b.vnode, offset.0)),
        amap: ready(amap),
        amp_index: AtomicU64::new(if heir == Heir::Zeros { FIRST_SLOT } else { first }),
        swresv: AtomicU64::new(own + gained),
        seq: AtomicU32::new(0),
        softlocks: AtomicU32::new(0),
        pinned_shared: AtomicBool::new(false),
        prot: AtomicU8::new(seg.prot().bits()),
        max_prot: seg.max_prot,
        kind: child_kind(seg, heir),
        advice: AtomicU8::new(seg.advice.load(Ordering::Relaxed)),
        vpaged: AtomicU8::new(u8::from(!vpage.is_plain())),
        lasting: AtomicU8::new(seg.noted_bit() | if joins { super::NAMED } else { 0 }),
        needs_copy: AtomicBool::new(lazy),
        lock: SegVn::lock_over(vpage),
    })
}

/// See [`addr_space::SegOps::dup_done`]: what the child has reserved beyond its own is the parent's.
pub(super) fn take_over(seg: &SegVn, scx: &SegCx<'_>, part: VirtRange, made: &SegVn) {
    let gained = made.swresv.load(Ordering::Acquire).saturating_sub(part.len());
    if gained != 0 {
        made.swresv.fetch_sub(gained, Ordering::AcqRel);
        let mut inner = seg.lock.lock(scx.cx);
        Gain::take_over(gained, seg, scx, &mut inner.vpage, part);
        seg.note_pages(&inner.vpage);
    }
}

fn child_kind(seg: &SegVn, heir: Heir) -> SegKind {
    match heir {
        Heir::Same => seg.kind,
        Heir::Copy => seg.kind.difference(SegKind::SHARED),
        Heir::Zeros => seg.kind.intersection(SegKind::NORESERVE),
    }
}

/// Per-page state of the child: everything but memory locks. What a note said of the parent's kind is said of the child's where it still
/// means something.
fn child_pages(seg: &SegVn, scx: &SegCx<'_>, part: VirtRange) -> Result<VPages, SegError> {
    let copy = seg.lock.lock(scx.cx).vpage.part(vpns(part));
    let mut vpage = copy.map_err(|_| SegError::NoMemory { range: part })?;
    vpage.update(vpns(part), |v| VPage { claim: None, ..v }); // joins runs, and makes none
    Ok(vpage)
}

/// Bytes that the child has to have reserved for `part`.
fn reservation(seg: &SegVn, scx: &SegCx<'_>, part: VirtRange, heir: Heir, vpage: &VPages) -> u64 {
    let writable = |v: VPage| v.prot.unwrap_or_else(|| seg.prot()).contains(Prot::WRITE);
    match heir {
        Heir::Same if seg.shared() => 0,
        Heir::Same => part.len(),
        Heir::Zeros if seg.noreserve() => 0,
        Heir::Zeros => part.len(),
        Heir::Copy if seg.stores_below() && !vpage.any(vpns(part), writable) => 0,
        Heir::Copy if seg.shared() => part.len(),
        Heir::Copy if part == scx.seg => seg.swresv.load(Ordering::Acquire),
        Heir::Copy => Reserved::of(seg, scx).of_part(seg, scx, part),
    }
}

fn child_map(
    seg: &SegVn,
    scx: &SegCx<'_>,
    part: VirtRange,
    heir: Heir,
    vpage: &VPages,
) -> Result<ChildMap, SegError> {
    let coverage = seg.slots_of(scx.seg, scx.seg);
    let slots = seg.slots_of(scx.seg, part);
    let no_room = |_| SegError::NoMemory { range: part };
    match heir {
        Heir::Zeros => return Ok(ChildMap::Absent),
        Heir::Same if seg.stores_below() => return Ok(ChildMap::Absent),
        Heir::Same if seg.needs_copy() => {
            // There must be something of its own to share.
            return Err(FaultError::NotOwn { addr: part.start() }.into());
        }
        Heir::Same => {
            let map = if seg.shared() {
                let map = seg.amap_or_make(scx);
                map.gain(scx.cx, coverage, slots).map_err(no_room)?;
                map
            } else {
                let map = seg.amap_or_make(scx); // made by `join`
                map.gain_joint(scx.cx, coverage, slots).map_err(no_room)?;
                map
            };
            return Ok(ChildMap::Shared(Arc::clone(map)));
        }
        Heir::Copy => {}
    }
    let Some(map) = seg.amap() else { return Ok(ChildMap::Absent) };
    let base = part.start().vpn();
    let first = slots.start;
    let zeros = |v: VPage| v.inherit == Some(Inherit::Zero);
    let keep = |slot: u64| !zeros(vpage.get(base + slot.wrapping_sub(first)));
    if seg.is_joint() {
        return joint::copy(seg, scx, map, part, &keep).map(ChildMap::Own);
    }
    let pinned = seg.softlocks.load(Ordering::Acquire) != 0;
    let zeroed = vpage.any(vpns(part), zeros);
    let locked = locked_runs(seg, scx, part)?;
    let own = pinned || zeroed || !locked.is_empty() || shares(seg, scx) || map.has_named();
    if seg.driver.tunables.fork == ForkPolicy::Lazy && !own {
        map.gain(scx.cx, coverage, slots).map_err(no_room)?;
        if !seg.needs_copy.swap(true, Ordering::Relaxed) {
            scx.hat.clear_write(scx.cx, scx.seg); // else nothing has become writable since an earlier fork (O1)
        }
        return Ok(ChildMap::Lazy(Arc::clone(map)));
    }
    if pinned {
        return copy_pages(seg, scx, map, part, &keep).map(ChildMap::Own);
    }
    if !locked.is_empty() {
        return copy_locked(seg, scx, map, part, &locked, &keep).map(ChildMap::Own);
    }
    let keep = zeroed.then_some(&keep as &dyn Fn(u64) -> bool);
    let copy = map
        .dup(scx.cx, seg.driver.home(scx.cx), slots, keep)
        .map_err(|_| SegError::NoMemory { range: part })?;
    scx.hat.clear_write(scx.cx, part);
    Ok(ChildMap::Own(copy))
}

/// Whether part of a segment is shared with the child: it keeps a map of its own then, also under the lazy policy.
fn shares(seg: &SegVn, scx: &SegCx<'_>) -> bool {
    let share = |v: VPage| v.inherit == Some(Inherit::Share);
    seg.vpaged.load(Ordering::SeqCst) != 0 && seg.lock.lock(scx.cx).vpage.any(vpns(scx.seg), share)
}

/// The pages of `part` that the parent has locked and is to keep as they are, in order.
fn locked_runs(seg: &SegVn, scx: &SegCx<'_>, part: VirtRange) -> Result<Vec<VirtRange>, SegError> {
    let none = seg.driver.tunables.locked_at_fork == LockedAtFork::Share;
    let mut locked = Vec::new();
    if none || seg.vpaged.load(Ordering::SeqCst) == 0 {
        return Ok(locked);
    }
    let inner = seg.lock.lock(scx.cx);
    for (run, _) in inner.vpage.iter(vpns(part)).filter(|(_, v)| v.is_locked()) {
        heap::push(&mut locked, run_range(scx.seg, &run))
            .map_err(|_| SegError::NoMemory { range: part })?;
    }
    Ok(locked)
}

/// Shares the pages that are not `locked`, and copies those that are: the parent's translations of these stay.
fn copy_locked(
    seg: &SegVn,
    scx: &SegCx<'_>,
    map: &AnonMap,
    part: VirtRange,
    locked: &[VirtRange],
    keep: &dyn Fn(u64) -> bool,
) -> Result<Arc<AnonMap>, SegError> {
    let slots = seg.slots_of(scx.seg, part);
    let addr_of = |slot: u64| part.page_at(slot.wrapping_sub(slots.start));
    let is_locked = |slot: u64| {
        let addr = addr_of(slot);
        let run = locked.partition_point(|run| run.end() <= addr.get());
        locked.get(run).is_some_and(|run| run.contains(addr))
    };
    let shared = |slot: u64| keep(slot) && !is_locked(slot);
    let copy = map
        .dup(scx.cx, seg.driver.home(scx.cx), slots.clone(), Some(&shared))
        .map_err(|_| SegError::NoMemory { range: part })?;
    for run in locked {
        let occupied = map.slots(scx.cx, seg.slots_of(scx.seg, *run));
        for (slot, _) in occupied.filter(|(slot, _)| keep(*slot)) {
            if let Err(e) = copy_slot(seg, scx, map, &copy, slot, addr_of(slot)) {
                copy.lose(scx.cx, slots.clone(), slots.clone());
                return Err(e);
            }
        }
    }
    let mut rest = Some(part);
    for run in locked {
        let Some(left) = rest else { break };
        if let Some(before) = left.until(run.start().get()) {
            scx.hat.clear_write(scx.cx, before);
        }
        rest = left.from(run.end());
    }
    if let Some(left) = rest {
        scx.hat.clear_write(scx.cx, left);
    }
    Ok(copy)
}

/// Copies every page: the parent keeps its own, writable, so that i/o under way in them stays valid.
#[doc(alias("segvn_dup_pages", "amap_cow_now"))]
fn copy_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    map: &AnonMap,
    part: VirtRange,
    keep: &dyn Fn(u64) -> bool,
) -> Result<Arc<AnonMap>, SegError> {
    let slots = seg.slots_of(scx.seg, part);
    let copy = AnonMap::new(seg.driver.home(scx.cx), 0);
    for (slot, _) in map.slots(scx.cx, slots.clone()).filter(|(s, _)| keep(*s)) {
        let addr = part.page_at(slot.wrapping_sub(slots.start));
        if let Err(e) = copy_slot(seg, scx, map, &copy, slot, addr) {
            copy.lose(scx.cx, slots.clone(), slots);
            return Err(e);
        }
    }
    Ok(copy)
}

/// Fills a slot of a map that nobody else reaches with a copy of the page that the same slot of `map` has, if it has one.
pub(super) fn copy_slot(
    seg: &SegVn,
    scx: &SegCx<'_>,
    map: &AnonMap,
    copy: &AnonMap,
    slot: u64,
    addr: page_db::VirtAddr,
) -> Result<(), SegError> {
    let f = PageFault::by_system(scx, addr, seg.prot(), Stamp::take(&seg.seq));
    let range = VirtRange::page_of(addr);
    let failed = |e| match e {
        FaultError::NoMemory { .. } => SegError::NoMemory { range },
        e => e.into(),
    };
    let Some(fresh) = copied(seg, &f, map, slot).map_err(failed)? else { return Ok(()) };
    // held: nothing of the source
    let Ok(to) = copy.enter_or_make(scx.cx, slot) else {
        seg.driver.layer.unref(scx.cx, fresh);
        return Err(SegError::NoMemory { range });
    };
    to.set(Some(fresh));
    Ok(())
}

fn copied(
    seg: &SegVn,
    f: &PageFault<'_>,
    map: &AnonMap,
    slot: u64,
) -> Result<Option<swapfs::AnonNumber>, FaultError> {
    let Some(held) = map.enter(f.scx.cx, slot) else { return Ok(None) };
    let Some(n) = held.get() else { return Ok(None) };
    let source = seg.anon_page(f, n)?;
    let (fresh, page) = seg.new_anon(f)?;
    f.scx.db.mem().copy(source.pfn(), page.pfn());
    f.scx.cx.count_n(Counter::BytesCopied, PAGE_SIZE);
    page.mark_filled();
    page.end_io();
    Ok(Some(fresh))
}
