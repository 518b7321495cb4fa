//! mlock: pages kept in memory by this mapping.
//!
//! A lock is a mark on the page of the *mapping* and a claim on the page *structure*: `p_cowcnt` when the mapping is private and the page
//! writable, `p_lckcnt` otherwise. The claim follows the page when a store copies it, and moves between the counts when the right to
//! write changes. Locks do not nest: one unlock ends any number of them. Locking does not break copy-on-write.
//!
//! - V19: claims on pages equal the locked pages of mappings.
//!
//! The segment's lock is held throughout, and the sequence number bumped before a slot is taken, so a fault that copies either finishes before
//! the page is looked for or starts over and sees the mark.
//!
//! Sources: illumos.md 4.8 (lockop), 7.6.

use super::fault::PageFault;
use super::{SegVn, VPage, run_range, vpns};
use addr_space::{FaultError, FaultKind, NewlyLocked, SegCx, SegError, Stamp};
use alloc::vec::Vec;
use page_db::db::Claim;
use page_db::sync::atomic::Ordering;
use page_db::{
    Access, LockedPage, PAGE_SIZE, Prot, RefMod, SharedPage, VirtAddr, VirtRange, VnodeError, errno,
};

fn claim_kind(seg: &SegVn, prot: Prot) -> Claim {
    if !seg.shared() && prot.contains(Prot::WRITE) { Claim::Cow } else { Claim::Lck }
}

#[doc(alias = "segvn_lockop")]
pub(super) fn lock(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    newly: &mut NewlyLocked,
) -> Result<(), SegError> {
    let mut inner = seg.lock.lock(scx.cx);
    seg.publish(|| {});
    let runs = inner.vpage.iter(vpns(range));
    for (run, v) in runs.into_iter().filter(|(_, v)| !v.locked) {
        let prot = v.prot.unwrap_or_else(|| seg.prot());
        for addr in run_range(scx.seg, &run).iter_pages() {
            if !scx.space.charge_locked(PAGE_SIZE) {
                return Err(SegError::LockLimit { range });
            }
            match lock_page(seg, scx, addr, prot) {
                Ok(true) => {
                    inner.vpage.update(addr.vpn()..addr.vpn() + 1, |v| VPage { locked: true, ..v });
                    seg.vpaged.store(1, Ordering::SeqCst);
                    newly.note(addr);
                }
                Ok(false) => scx.space.credit_locked(PAGE_SIZE),
                Err(e) => {
                    scx.space.credit_locked(PAGE_SIZE);
                    return Err(e);
                }
            }
        }
    }
    Ok(())
}

/// Claims one page. `Ok(false)`: there is nothing to lock (an untouched NORESERVE page, past the end of a file).
fn lock_page(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr, prot: Prot) -> Result<bool, SegError> {
    let range = VirtRange::page_of(addr);
    let f = PageFault {
        scx,
        addr,
        kind: FaultKind::Invalid,
        access: Access::Other,
        prot,
        stamp: Stamp::take(&seg.seq),
        break_cow: false,
        locked: false,
    };
    let page = match find_page(seg, &f) {
        Ok(Some(page)) => page,
        Ok(None) => return Ok(false),
        Err(FaultError::NoMemory { .. }) => return Err(SegError::NoMemory { range }),
        Err(e) => return Err(e.into()),
    };
    scx.db.claim(&page, claim_kind(seg, prot)).map_err(|_| SegError::LockLimit { range })?;
    Ok(true)
}

/// The page of a mapping, made or read if need be, shared-locked. `None`: nothing to lock there.
fn find_page<'a>(seg: &'a SegVn, f: &PageFault<'a>) -> Result<Option<SharedPage<'a>>, FaultError> {
    let scx = f.scx;
    if seg.backing.is_none() || (!seg.shared() && seg.amap().is_some()) {
        let map = seg.amap_or_make();
        let f = PageFault { stamp: Stamp::take(&seg.seq), ..*f };
        let slot_no = seg.slot_of(scx.seg, f.addr);
        let slot = if seg.backing.is_none() && !seg.noreserve() {
            Some(map.enter_or_make(scx.cx, slot_no).map_err(|_| f.no_memory())?)
        } else {
            map.enter(scx.cx, slot_no)
        };
        if let Some(slot) = &slot {
            if slot.get().is_none() && seg.backing.is_none() && !seg.noreserve() {
                seg.zero_fill(&f, slot)?;
            }
            if let Some(n) = slot.get() {
                let page = seg.anon_page(&f, n)?;
                if seg.driver.layer.swap().free_slot(scx.cx, n) {
                    page.page().set_ref_mod(RefMod::MOD); // its only copy is in memory now
                }
                return Ok(Some(page));
            }
        }
    }
    let (Some(b), Some(offset)) = (&seg.backing, seg.file_offset(scx.seg, f.addr)) else {
        return Ok(None);
    };
    match b.vnode.get_page(scx.cx, scx.db, offset, Access::Read) {
        Ok(got) => Ok(Some(got.page)),
        Err(VnodeError::BeyondEof { .. }) => Ok(None),
        Err(e @ VnodeError::Io { .. }) => {
            Err(FaultError::Object { addr: f.addr, errno: e.errno().max(errno::EIO) })
        }
        Err(e) => Err(f.vnode_error(e)),
    }
}

pub(super) fn unlock(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) {
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return;
    }
    let mut inner = seg.lock.lock(scx.cx);
    seg.publish(|| {});
    let runs = inner.vpage.iter(vpns(range));
    for (run, v) in runs.into_iter().filter(|(_, v)| v.locked) {
        let prot = v.prot.unwrap_or_else(|| seg.prot());
        for addr in run_range(scx.seg, &run).iter_pages() {
            if let Some(page) = seg.claimed_page(scx, addr) {
                scx.db.unclaim(&page, claim_kind(seg, prot));
            }
            scx.space.credit_locked(PAGE_SIZE);
        }
        inner.vpage.update(run, |v| VPage { locked: false, ..v });
    }
    seg.vpaged.store(u8::from(!inner.vpage.is_plain()), Ordering::SeqCst);
}

impl SegVn {
    /// The pages this mapping has locked in memory, and whether their claims count in `p_cowcnt`. For checks.
    pub fn locked_pages(&self, scx: &SegCx<'_>) -> Vec<(VirtAddr, bool)> {
        let inner = self.lock.lock(scx.cx);
        let runs = inner.vpage.iter(vpns(scx.seg)).into_iter().filter(|(_, v)| v.locked);
        runs.flat_map(|(run, v)| {
            let cow = claim_kind(self, v.prot.unwrap_or_else(|| self.prot())) == Claim::Cow;
            let pages: Vec<_> = run_range(scx.seg, &run).iter_pages().map(|a| (a, cow)).collect();
            pages
        })
        .collect()
    }
    /// A store copies a locked page: the claim goes along. The copy is writable, so it counts in `p_cowcnt`, as the source's did.
    #[doc(alias = "page_pp_useclaim")]
    pub(super) fn move_claim(&self, f: &PageFault<'_>, from: &dyn LockedPage, to: &dyn LockedPage) {
        if !f.locked {
            return;
        }
        let kind = claim_kind(self, f.prot);
        f.scx.db.unclaim(from, kind);
        if f.scx.db.claim(to, kind).is_err() {
            // Only a rival that took the page just given up can have caused this; the lock is honoured over the floor.
            f.scx.db.claim_forced(to, kind);
        }
    }
}
