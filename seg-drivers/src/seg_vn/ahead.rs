//! Neighbours: pages near a fault that are resident are mapped along, and pages behind a sequential reader are let go.
//!
//! Never blocks, allocates or reads: a neighbour is taken only if its slot, its page and its table are there and free at once.
//!
//! Sources: uvm.md 3.1 (6, 8, 11), 7.2 C14; illumos.md 4.5 (step 5), 4.8 (kluster).

use super::SegVn;
use super::fault::PageFault;
use crate::anon::SlotGuard;
use addr_space::{Advice, FaultError, LoadFlags, SegCx};
use page_db::{
    Access, Counter, Identity, LockedPage, PAGE_SIZE, Prot, PutFlags, VirtAddr, VirtRange,
};

impl SegVn {
    /// Maps resident neighbours of a load fault, as advice says.
    pub(super) fn map_neighbours(&self, f: &PageFault<'_>) {
        let t = self.driver.tunables;
        let (back, forward) = match self.advice_at(f.scx, f.addr) {
            Advice::Random => return,
            Advice::Sequential => t.ahead_sequential,
            _ => t.ahead_normal,
        };
        let at = f.scx.seg.page_index(f.addr);
        let first = at.saturating_sub(back);
        let last = at.saturating_add(forward).min(f.scx.seg.pages().get() - 1);
        for i in (first..=last).filter(|i| *i != at) {
            let addr = f.scx.seg.page_at(i);
            if f.scx.hat.probe(f.scx.cx, addr).is_none() {
                self.map_neighbour(f, addr);
            }
        }
    }
    fn map_neighbour(&self, f: &PageFault<'_>, addr: VirtAddr) {
        let Ok(near) = self.look(f.scx, addr, f.kind, Access::Read) else { return };
        if f.soft() {
            return;
        }
        let (cx, db) = (f.scx.cx, f.scx.db);
        let slot = match self.amap() {
            None => None,
            Some(map) => match map.try_enter(cx, self.slot_of(f.scx.seg, addr)) {
                Some(slot) => Some(slot),
                // Busy, or no chunk: only the shared file below may be mapped without the slot.
                None if self.shared() && self.backing.is_some() => None,
                None => return,
            },
        };
        let (id, prot) = match slot.as_ref().and_then(|s| s.get()) {
            Some(n) => (self.driver.layer.swap().identity(n), self.mapped_prot(near.prot, n)),
            None => {
                let Some(b) = &self.backing else { return };
                let Some(offset) = self.file_offset(f.scx.seg, addr) else { return };
                if offset.0 >= b.vnode.size() {
                    return;
                }
                let prot = if self.shared() { near.prot } else { near.prot.read_only() };
                (Identity::new(b.vnode.id(), offset), prot)
            }
        };
        let Some(page) = db.try_lookup_shared(cx, id) else { return };
        if db.is_io_locked(page.id()) || !prot.contains(Prot::READ) {
            return;
        }
        if near.load(&page, prot, LoadFlags::ADV).is_ok() {
            cx.count(Counter::FaultAhead);
        }
    }
    /// Under sequential advice the pages behind the fault are offered to the cache list, up to the first that is absent.
    pub(super) fn free_behind(&self, f: &PageFault<'_>) {
        if self.advice_at(f.scx, f.addr) != Advice::Sequential {
            return;
        }
        let Some(b) = &self.backing else { return };
        let at = f.scx.seg.page_index(f.addr);
        let (keep, _) = self.driver.tunables.ahead_sequential;
        // The nearest pages stay for a reader that steps back a little; the rest were used once.
        for i in (0..at.saturating_sub(keep)).rev().take(64) {
            let addr = f.scx.seg.page_at(i);
            let Some(offset) = self.file_offset(f.scx.seg, addr) else { return };
            let id = Identity::new(b.vnode.id(), offset);
            let resident = f.scx.db.exists(f.scx.cx, id).filter(|p| !f.scx.db.page(*p).is_free());
            if resident.is_none() || self.advice_at(f.scx, addr) != Advice::Sequential {
                return;
            }
            let flags = PutFlags::DONTNEED | PutFlags::FREE | PutFlags::ASYNC;
            if b.vnode.put_page(f.scx.cx, f.scx.db, offset, PAGE_SIZE, flags).is_err() {
                return;
            }
        }
    }
}

/// Starts reading one page; loads no translation.
#[doc(alias = "segvn_faulta")]
pub(super) fn faulta(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
    let error = |e: page_db::VnodeError| match e {
        page_db::VnodeError::NoMemory { .. } => FaultError::NoMemory { addr },
        e => FaultError::Object { addr, errno: e.errno() },
    };
    // Busy during the read: the slot's reference keeps the number from being freed under the page that is made for it.
    let slot = seg.amap().and_then(|m| m.enter(scx.cx, seg.slot_of(scx.seg, addr)));
    if let Some(n) = slot.as_ref().and_then(SlotGuard::get) {
        return seg.driver.layer.swap().read_ahead(scx.cx, n).map_err(error);
    }
    drop(slot);
    match (&seg.backing, seg.file_offset(scx.seg, addr)) {
        (Some(b), Some(offset)) => b.vnode.read_ahead(scx.cx, scx.db, offset).map_err(error),
        _ => Ok(()),
    }
}

#[doc(alias = "segvn_kluster")]
pub(super) fn kluster(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr, delta: i64) -> bool {
    let Some(other) = addr.get().checked_add_signed(delta).and_then(|a| VirtAddr::new(a).ok())
    else {
        return false;
    };
    if !scx.seg.contains(other) {
        return false;
    }
    match seg.advice_at(scx, addr) {
        Advice::Random => return false,
        Advice::Sequential if delta < 0 => return false,
        _ => {}
    }
    if seg.shared() {
        return true;
    }
    let Some(map) = seg.amap() else { return true };
    let name = |a| map.peek(seg.slot_of(scx.seg, a)).map(|n| seg.driver.layer.swap().identity(n));
    match (name(addr), name(other)) {
        (None, None) => true,
        (Some(x), Some(y)) => {
            x.vnode == y.vnode && y.offset.0.wrapping_sub(x.offset.0) as i64 == delta
        }
        _ => false,
    }
}

/// Starts reading the pages of `range` that are kept somewhere: pushed anons and pages of the file. The rest is zeros and costs nothing.
pub(super) fn read_ahead(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Result<(), FaultError> {
    if let Some(map) = seg.amap() {
        let slots = seg.slots_of(scx.seg, range);
        for (slot, _) in map.slots(scx.cx, slots.clone()) {
            faulta(seg, scx, range.page_at(slot.wrapping_sub(slots.start)))?;
        }
    }
    let (Some(b), Some(first)) = (&seg.backing, seg.file_offset(scx.seg, range.start())) else {
        return Ok(());
    };
    let behind = b.vnode.size().saturating_sub(first.0).div_ceil(PAGE_SIZE);
    for addr in range.iter_pages().take(usize::try_from(behind).unwrap_or(usize::MAX)) {
        faulta(seg, scx, addr)?;
    }
    // Past the end of the file only the segment's own copies can be had; the first page that has none ends the walk.
    let own = |i: &u64| {
        seg.amap().is_some_and(|m| m.peek(seg.slot_of(scx.seg, range.page_at(*i))).is_some())
    };
    match (behind..range.pages().get()).find(|i| !own(i)) {
        Some(i) => {
            Err(FaultError::Object { addr: range.page_at(i), errno: page_db::errno::EFAULT })
        }
        None => Ok(()),
    }
}
