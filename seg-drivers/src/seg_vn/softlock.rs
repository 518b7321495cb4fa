//! Pages locked for i/o: soft locks through faults, and shadow lists.
//!
//! A soft lock leaves the page's lock taken (shared) and the translation locked until the unlock, which finds the pages again by name.
//! A shadow list pins pages without translations; only anonymous pages that nobody else refers to qualify, for a later copy would leave the
//! i/o at the old page.
//!
//! - P1: a segment counts no more pins than there are locks on its pages.
//!
//! Sources: illumos.md 4.6.

use super::SegVn;
use crate::anon::AnonMap;
use addr_space::{FaultError, FaultKind, PageList, SegCx, SegError};
use alloc::string::String;
use page_db::sync::atomic::Ordering;
use page_db::{
    Access, Identity, LockedPage, PageId, RefMod, SharedPage, VirtAddr, VirtRange, errno, heap,
};

impl SegVn {
    /// The name of the page that `addr` shows: the anon's, else the file's.
    fn identity_at(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Identity> {
        let anon = self.amap().and_then(|m| m.peek(self.slot_of(scx.seg, addr)));
        if let Some(n) = anon {
            return Some(self.driver.layer.swap().identity(n));
        }
        self.file_identity(scx, addr)
    }
    /// The name of the file's page at `addr`.
    pub(super) fn file_identity(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Identity> {
        let b = self.backing.as_ref()?;
        Some(Identity::new(b.vnode.id(), self.file_offset(scx.seg, addr)?))
    }
    /// Whether pages are pinned for i/o: through this segment, or through another that shares its memory. A hint, except about this segment's while its lock
    /// is held.
    pub(super) fn is_pinned(&self) -> bool {
        let others = || self.shared_map().is_some_and(|map| map.pins() != 0);
        self.softlocks.load(Ordering::Acquire) != 0 || others()
    }
    /// The map of shared memory without a file: a shared segment has it from the first, or never.
    fn shared_map(&self) -> Option<&AnonMap> {
        self.amap().filter(|_| self.shared()).map(|map| &**map)
    }
    /// Whether somebody may have `page` pinned through this segment though it is not the segment's own ([`Access::ReadNoCow`]), the caller aside. A store there
    /// waits: the i/o would stay at the old page, and the unlock would look for the pin at the new one.
    #[inline]
    pub(super) fn is_pinned_as(&self, scx: &SegCx<'_>, page: &SharedPage<'_>) -> bool {
        self.pinned_shared.load(Ordering::Acquire) && scx.db.lock_state(page.id()).shared > 1
    }
    /// Pins are counted under the segment's lock, and before the first page: whoever changes rights, or takes pages from their slots, holds it until that is
    /// done. So it either sees the count or is done before a page is pinned.
    ///
    /// Answers whether there is room in the count.
    fn count_pins(&self, scx: &SegCx<'_>, pages: u32, access: Access) -> bool {
        let _publishers = self.lock.lock(scx.cx);
        // Counts also change without the lock, but only downwards.
        if self.softlocks.load(Ordering::Acquire).checked_add(pages).is_none() {
            return false;
        }
        if self.shared_map().is_some_and(|map| !map.pin(pages)) {
            return false;
        }
        self.softlocks.fetch_add(pages, Ordering::AcqRel);
        if access == Access::ReadNoCow && !self.shared() {
            self.pinned_shared.store(true, Ordering::Release);
        }
        true
    }
    fn unpinned(&self, scx: &SegCx<'_>, pages: u32) {
        if let Some(map) = self.shared_map() {
            map.unpin(pages);
        }
        if self.softlocks.fetch_sub(pages, Ordering::AcqRel) != pages {
            return;
        }
        if self.pinned_shared.load(Ordering::Acquire) {
            let _publishers = self.lock.lock(scx.cx);
            if self.softlocks.load(Ordering::Acquire) == 0 {
                self.pinned_shared.store(false, Ordering::Release);
            }
        }
        scx.space.pins_released(scx.db.waits());
    }
}

/// Locks the pages of `range` one by one, all of them or none.
#[doc(alias = "F_SOFTLOCK")]
pub(super) fn lock(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    access: Access,
) -> Result<(), FaultError> {
    // More pages than there are page numbers cannot all be in memory.
    let no_room = FaultError::Object { addr: range.start(), errno: errno::ENOMEM };
    let pages = u32::try_from(range.pages().get()).map_err(|_| no_room)?;
    if !seg.count_pins(scx, pages, access) {
        return Err(no_room);
    }
    for (done, addr) in (0u32..).zip(range.iter_pages()) {
        if let Err(e) = super::fault::fault_at(seg, scx, addr, FaultKind::SoftLock, access) {
            if let Some(before) = range.until(addr.get()) {
                unlock(seg, scx, before, Access::Other);
            }
            seg.unpinned(scx, pages - done);
            return Err(e);
        }
    }
    Ok(())
}

/// Undoes soft locks of `range`. `access` says what the i/o did to the pages. What is not soft-locked through this segment is left alone, whoever else may
/// have it: there are no more locks here than were counted.
#[doc(alias = "segvn_softunlock")]
pub(super) fn unlock(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange, access: Access) {
    let (mut pages, most) = (0, seg.softlocks.load(Ordering::Acquire));
    for addr in range.iter_pages() {
        if pages == most {
            break; // the caller's range was not the one it locked
        }
        let id = seg.identity_at(scx, addr);
        // The page is locked, so it has kept its name and its place.
        let Some(page) = id.and_then(|i| scx.db.exists(scx.cx, i)) else { continue };
        if scx.db.lock_state(page).shared == 0 {
            continue;
        }
        scx.hat.unlock(scx.cx, VirtRange::page_of(addr));
        let page = scx.db.adopt_shared(scx.cx, page);
        match access {
            Access::Write => page.page().set_ref_mod(RefMod::REF | RefMod::MOD),
            Access::Other => {}
            _ => page.page().set_ref_mod(RefMod::REF),
        }
        drop(page);
        pages += 1;
    }
    if pages != 0 {
        seg.unpinned(scx, pages);
    }
}

#[doc(alias = "segvn_pagelock")]
pub(super) fn lock_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    access: Access,
) -> Result<PageList, SegError> {
    let slow = Err(SegError::NotSupported { driver: "seg_vn", op: "pagelock" });
    let (None, true) = (&seg.backing, matches!(access, Access::Read | Access::Write)) else {
        return slow;
    };
    let Some(map) = seg.amap() else { return slow };
    let count = range.pages().get();
    let Ok(pins) = u32::try_from(count) else { return Err(SegError::NoMemory { range }) };
    if !seg.count_pins(scx, pins, access) {
        return Err(SegError::NoMemory { range });
    }
    let done = pin_pages(seg, scx, range, access, map);
    match &done {
        Ok(_) => drop(seg.driver.pinned.fetch_add(count, Ordering::AcqRel)),
        Err(_) => seg.unpinned(scx, pins),
    }
    done
}

/// All pages of `range`, which are counted already, or none.
fn pin_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    access: Access,
    map: &AnonMap,
) -> Result<PageList, SegError> {
    let mut bad = None;
    super::protect::prots(seg, scx, range, &mut |run, prot| {
        if !prot.allows(access) {
            bad = Some(run);
        }
    });
    if let Some(range) = bad {
        return Err(SegError::Access { range });
    }
    let floor = scx.db.free_mem().thresholds().minfree;
    let count = range.pages().get();
    let room = usize::try_from(count).ok().and_then(|n| heap::room(n).ok());
    let mut pages = room.ok_or(SegError::NoMemory { range })?;
    if !scx.db.free_mem().charge(count, floor) {
        return Err(SegError::NoMemory { range });
    }
    for addr in range.iter_pages() {
        let pinned = map.enter(scx.cx, seg.slot_of(scx.seg, addr)).and_then(|slot| {
            let n = slot.get().filter(|n| seg.alone(*n))?;
            let page = scx.db.try_lookup_shared(scx.cx, seg.driver.layer.swap().identity(n))?;
            (!page.page().is_lent() && page.may_leak()).then(|| page.leak())
        });
        match pinned {
            Some(id) => pages.push(id),
            None => {
                for id in pages {
                    drop(scx.db.adopt_shared(scx.cx, id));
                }
                scx.db.free_mem().uncharge(count);
                return Err(SegError::NotSupported { driver: "seg_vn", op: "pagelock" });
            }
        }
    }
    Ok(PageList { pages })
}

pub(super) fn unlock_pages(seg: &SegVn, scx: &SegCx<'_>, access: Access, list: PageList) {
    // The list says how many there were; it was made by `lock_pages`, which counts in 32 bits.
    let pins = u32::try_from(list.pages.len()).unwrap_or(u32::MAX);
    let bits = if access == Access::Write { RefMod::REF | RefMod::MOD } else { RefMod::REF };
    for id in list.pages {
        let page = scx.db.adopt_shared(scx.cx, id);
        page.page().set_ref_mod(bits);
    }
    scx.db.free_mem().uncharge(u64::from(pins));
    seg.driver.pinned.fetch_sub(u64::from(pins), Ordering::AcqRel);
    seg.unpinned(scx, pins);
}

/// P1, of a segment whose pages nobody is about to lock or unlock. Others may hold locks of them, too.
pub(super) fn verify(seg: &SegVn, scx: &SegCx<'_>) -> Result<(), String> {
    let pins = u64::from(seg.softlocks.load(Ordering::Acquire));
    if pins == 0 {
        return Ok(());
    }
    let holders = |page: PageId| u64::from(scx.db.lock_state(page).shared);
    let mut locks: u64 = 0;
    if let Some(map) = seg.amap() {
        let swap = seg.driver.layer.swap();
        let anons = map.slots(scx.cx, seg.slots_of(scx.seg, scx.seg));
        let pages = anons.filter_map(|(_, n)| scx.db.exists(scx.cx, swap.identity(n)));
        locks += pages.map(holders).sum::<u64>();
    }
    if let Some((b, first)) = seg.backing.as_ref().zip(seg.file_offset(scx.seg, scx.seg.start())) {
        let inside = first.0..first.0.saturating_add(scx.seg.len());
        let of_file = scx.db.vnode_pages(scx.cx, b.vnode.id()).into_iter();
        let name = |page: PageId| scx.db.page(page).identity();
        let here = of_file.filter(|p| name(*p).is_some_and(|id| inside.contains(&id.offset.0)));
        locks += here.map(holders).sum::<u64>();
    }
    if pins > locks {
        return Err(alloc::format!("P1: {pins} pins are counted, its pages have {locks} locks"));
    }
    Ok(())
}
