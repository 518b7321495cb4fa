//! Cutting, moving, continuing and showing twice: what is kept by address, and what is not.
//!
//! Contents hang on slots and file offsets, which count from the segment's base, and on the anon map, which knows no addresses. So a segment is moved by
//! taking its translations away and shifting the per-page state, which is kept by virtual page number; nothing else knows where it lies.
//!
//! | what | cut | moved | continued | shown twice |
//! |---|---|---|---|---|
//! | anon map | one more reference, slot by slot from now on | as it is | private: none until it joins the segment below; shared: the same, with the slots that follow | the same, joint (J1-J4) |
//! | file | | as it is | the same, the offsets that follow | the same |
//! | rights, advice, inheritance | divided | as they are | the last page's | as they are |
//! | locks in memory | divided | as they are | none; the address space locks | none |
//! | promises of swap | divided | as they are | made anew; for shared memory, of slots nobody had | private: made for the other side too |
//!
//! Shared anonymous memory grows with its map: a sharer that goes on finds the slots that another has gone on to before, and whoever covers a slot first
//! promises its page. (UVM leaves the grown tail of such a mapping without either layer, and an access to it fails.)
//!
//! Private memory that reserves at the first touch cannot be shown twice: of two sharers neither knows who promised what.
//!
//! Sources: uvm.md 2.4, 2.5, 5.6.

use super::inherit::Heir;
use super::unmap::{Reserved, upper_part};
use super::vpage::VPages;
use super::{Backing, FIRST_SLOT, SegVn, VPage, dup, joint, own, vpns};
use addr_space::{Continued, Extract, Like, SegCx, SegError, SegOps, UnloadFlags};
use alloc::boxed::Box;
use alloc::sync::Arc;
use page_db::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::{PAGE_SIZE, Prot, VirtAddr, VirtRange};

impl Extract for SegVn {
    fn may_move(&self, _: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        match self.softlocks.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => Err(SegError::Pinned { range }),
        }
    }
    fn split(&self, scx: &SegCx<'_>, at: VirtAddr) -> Box<dyn SegOps> {
        let (low, high) = (scx.seg.until(at.get()), scx.seg.from(at.get()));
        let (low, high) = low.zip(high).expect("G8: a segment is cut at a page inside it");
        let vpage = self.lock.lock(scx.cx).vpage.copy(vpns(high));
        let its = Reserved::of(self, scx).of_upper(self, scx, low, high, &vpage);
        if let Some(map) = self.amap() {
            map.split(scx.cx, self.slots_of(scx.seg, low), self.slots_of(scx.seg, high));
        }
        Box::new(upper_part(self, scx, high, its, vpage))
    }
    fn relocate(&self, scx: &SegCx<'_>, to: VirtRange) {
        if self.backing.is_some() || self.amap().is_some() {
            scx.hat.unload(scx.cx, scx.seg, UnloadFlags::UNMAP);
        }
        shift(self, scx, scx.seg, to);
    }
    fn continued(
        &self,
        scx: &SegCx<'_>,
        first: u64,
        like: Like,
        to: &SegCx<'_>,
    ) -> Result<Continued, SegError> {
        let range = to.seg;
        let vpage = states(self, scx, first, like, range)?;
        let offset = offset_after(self, first, range)?;
        let writable = |v: VPage| v.prot.unwrap_or_else(|| self.prot()).contains(Prot::WRITE);
        let wanted = match &self.backing {
            None => !self.noreserve(),
            Some(_) => !self.shared() && !self.noreserve() && vpage.any(vpns(range), writable),
        };
        let reserve = if wanted { range.len() } else { 0 };
        let swap = self.driver.layer.swap();
        let held = swap.take(reserve / PAGE_SIZE);
        let held = held.map_err(|_| SegError::NoSwap { range, bytes: reserve })?;
        if let Some(b) = &self.backing {
            b.vnode.add_map(scx.cx, page_db::FileOffset(offset), range.pages().get())?;
        }
        let (mut own, mut index, mut amap) = (reserve, FIRST_SLOT, None);
        if self.shared() && self.backing.is_none() {
            let map = self.amap_or_make(scx);
            index = self.amp_index().wrapping_add(first);
            let slots = index..index.wrapping_add(range.pages().get());
            let had = map.gain_beside(scx.cx, self.slots_of(scx.seg, scx.seg), slots);
            let had = had.map_err(|_| SegError::NoMemory { range })?;
            let Some(had) = had else { return Ok(Continued::Leaving(Arc::clone(map) as _)) };
            amap = Some(Arc::clone(map));
            own = 0; // the map has it
            held.keep();
            swap.unreserve(had / PAGE_SIZE);
        } else {
            held.keep();
        }
        Ok(Continued::Made(Box::new(Self {
            driver: Arc::clone(&self.driver),
            backing: self.backing.as_ref().map(|b| Backing::new(&b.vnode, offset)),
            amap: own::ready(amap),
            amp_index: AtomicU64::new(index),
            swresv: AtomicU64::new(own),
            seq: AtomicU32::new(0),
            softlocks: AtomicU32::new(0),
            pinned_shared: AtomicBool::new(false),
            prot: AtomicU8::new(self.prot().bits()),
            max_prot: self.max_prot,
            kind: self.kind,
            advice: AtomicU8::new(self.advice.load(Ordering::Relaxed)),
            vpaged: AtomicU8::new(u8::from(!vpage.is_plain())),
            lasting: AtomicU8::new(self.noted_bit()),
            needs_copy: AtomicBool::new(false),
            lock: Self::lock_over(vpage),
        })))
    }
    fn may_share(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        if self.shared() {
            return Ok(());
        }
        if self.noreserve() {
            return Err(SegError::NotSupported { driver: "seg_vn", op: "share" });
        }
        joint::check_pins(self, scx, range)
    }
    fn share(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        to: &SegCx<'_>,
    ) -> Result<Box<dyn SegOps>, SegError> {
        self.may_share(scx, range)?;
        let twin = dup::dup_as(self, scx, range, Heir::Same)?;
        shift(&twin, scx, range, to.seg);
        Ok(Box::new(twin))
    }
    fn is_locked(&self, scx: &SegCx<'_>, addr: VirtAddr) -> bool {
        self.vpaged.load(Ordering::SeqCst) != 0
            && self.lock.lock(scx.cx).vpage.get(addr.vpn()).is_locked()
    }
}

/// Per-page state of `range`, which continues the segment at its page `first`.
fn states(
    seg: &SegVn,
    scx: &SegCx<'_>,
    first: u64,
    like: Like,
    range: VirtRange,
) -> Result<VPages, SegError> {
    let mut to = VPages::default();
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return Ok(to);
    }
    let inner = seg.lock.lock(scx.cx);
    let (from, new) = (scx.seg.start().vpn() + first, vpns(range));
    if like == Like::Repeated {
        let part = inner.vpage.part(from..from + range.pages().get());
        to = part.map_err(|_| SegError::NoMemory { range })?;
        to.shift(from, new.start);
    } else {
        to.set(new.clone(), inner.vpage.get(from - 1));
    }
    to.update(new, |v| VPage { claim: None, reserved: false, ..v }); // joins runs, and makes none
    Ok(to)
}

/// Offset in the file of page `first`, from which `range` is mapped; 0 without a file.
fn offset_after(seg: &SegVn, first: u64, range: VirtRange) -> Result<u64, SegError> {
    let Some(b) = &seg.backing else { return Ok(0) };
    let offset = b.offset.load(Ordering::Acquire) + first * PAGE_SIZE; // no further than the mapping's end
    match offset.checked_add(range.len()) {
        Some(end) if end <= i64::MAX as u64 => Ok(offset),
        _ => Err(SegError::Invalid { driver: "seg_vn", what: "file offset too large", range }),
    }
}

/// What is kept of the pages of `from` by address is kept of those of `to` from now on.
fn shift(seg: &SegVn, scx: &SegCx<'_>, from: VirtRange, to: VirtRange) {
    if seg.vpaged.load(Ordering::SeqCst) != 0 {
        seg.lock.lock(scx.cx).vpage.shift(from.start().vpn(), to.start().vpn());
    }
}
