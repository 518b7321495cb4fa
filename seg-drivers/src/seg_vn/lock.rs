//! mlock: pages kept in memory by this mapping.
//!
//! A lock is a mark on the page of the *mapping* and a claim on the page *structure*: `p_cowcnt` when the mapping is private and the page
//! writable, `p_lckcnt` otherwise. The claim follows the page when a store copies it, and moves between the counts when the right to
//! write changes. Locks do not nest: one unlock ends any number of them. Locking does not break copy-on-write, but in slots that several segments reach for
//! good: a page that is locked there is the map's own (J3).
//!
//! # What truncation takes
//!
//! A claim ends with its page when the file is cut, and the mapping's mark stays: the page is charged to the process, and locked again as soon as there is
//! something to lock. Between the two the mark has no claim behind it, and another mapping may have claimed the page that the file has by then. So the mark
//! notes the era of its claim (`page_db::db`, `claim`):
//!
//! ```text
//!   unlock       gives back a claim of that era, or none
//!   lock         claims the page anew where there is none of that era; nothing is charged twice
//!   a store      takes the claim along to the copy, or claims that: the copy is the mapping's own
//!   a share      takes the mark away with the charge, and the claim of that era if the truncation has yet to come to the page: what a sharer stores there
//!                when the file has grown is everybody's (J3)
//! ```
//!
//! No claim is gone while the era is what it was, so a lock of what is locked looks at no page then. Later it looks at those of files; pages of anonymous
//! memory do not end while they are mapped, and are looked at only if a claim has been lost for want of memory since the machine began.
//!
//! # What is touched later
//!
//! Where swap is reserved at the first touch, a lock passes over what nobody has touched. With all future memory locked
//! (`AS_PAGLCK`) a page of such a segment is locked when a fault has made it, if that can be done; else it stays unlocked. It is so in segments that a
//! lock has been asked of, as it is of all that is mapped from then on, or that had state page by page for another reason. The fault is over by then: claims
//! are noted under the segment's lock, which ranks before the slot.
//!
//! # Invariants
//!
//! - V19: the claims on a page are the marks of mappings that show it and are of its era.
//!
//! The segment's lock is held throughout. Before the first page is looked for, the segment says that it has per-page state and bumps the sequence
//! number ([`SegVn::hold_claims`]), and a page is looked for with its slot busy. So a fault that copies either finishes before the page is looked
//! for, or starts over and waits for the segment's lock, and then sees the mark.
//!
//! # The other road
//!
//! illumos gives back whatever claim the page has: the first to unlock after the file was cut and grew takes away what another has locked since, and a lock
//! of what was cut off claims nothing.
//!
//! Sources: illumos.md 4.5 (d), 4.8 (lockop), 7.6.

use super::fault::PageFault;
use super::lower::what_was_asked_for;
use super::protect::Gain;
use super::vpage::VPages;
use super::{SegVn, VPage, run_range, vpns};
use crate::anon::{AnonMap, SlotGuard};
use addr_space::{FaultError, NewlyLocked, SegCx, SegError, Stamp};
use alloc::vec::Vec;
use core::ops::Range;
use page_db::db::{Claim, Era};
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
    if seg.needs_copy() {
        // Pages are made here, and claims must not stay behind on pages that are another side's as well.
        return Err(FaultError::NotOwn { addr: range.start() }.into());
    }
    let mut inner = seg.lock.lock(scx.cx);
    seg.hold_claims();
    let done = lock_pages(seg, scx, range, &mut inner.vpage, newly);
    inner.vpage.trim();
    seg.note_pages(&inner.vpage);
    done
}

/// Claims and marks the pages of `range` that are not locked yet, and claims those again that have lost their claim. All that are not locked must be
/// within the limit, and are charged first; what there was nothing to lock of, or not got to, is credited at the end. But where only what is touched is locked, each page is charged
/// when it is found: such a range may be as long as the address space, and what is touched elsewhere meanwhile would not be locked for it. held: the segment's lock
fn lock_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    vpage: &mut VPages,
    newly: &mut NewlyLocked,
) -> Result<(), SegError> {
    let mut charged = vpage.count(vpns(range), |v| !v.is_locked()) * PAGE_SIZE;
    let touched_only = seg.backing.is_none() && seg.noreserve();
    if charged != 0 {
        let allowed = match touched_only {
            true => scx.space.may_lock(core::mem::take(&mut charged)),
            false => scx.space.charge_locked(charged),
        };
        if !allowed {
            return Err(SegError::LockLimit { range });
        }
    }
    let done = mark_pages(seg, scx, range, vpage, newly, &mut charged);
    scx.space.credit_locked(charged);
    done
}

/// The same; what is marked newly is taken from what is `charged`, or charged.
fn mark_pages(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    vpage: &mut VPages,
    newly: &mut NewlyLocked,
    charged: &mut u64,
) -> Result<(), SegError> {
    let mut rest = vpns(range);
    while !rest.is_empty() {
        let (run, v) = vpage.first_of(rest.clone());
        rest.start = run.end;
        if v.is_locked() && seg.has_claims_of(scx, v) {
            continue;
        }
        for addr in seg.lockable(scx, run_range(scx.seg, &run)) {
            newly.make_room().map_err(|_| SegError::NoMemory { range })?;
            if !v.is_locked() && *charged == 0 {
                if !scx.space.charge_locked(PAGE_SIZE) {
                    return Err(SegError::LockLimit { range });
                }
                *charged = PAGE_SIZE;
            }
            if mark_page(seg, scx, vpage, (range, addr), v)? && !v.is_locked() {
                *charged -= PAGE_SIZE;
                newly.note(addr);
            }
        }
    }
    Ok(())
}

/// Claims one page of `range`, whose state is `had`, and marks it. `Ok(false)`: there is nothing to lock. held: the segment's lock
fn mark_page(
    seg: &SegVn,
    scx: &SegCx<'_>,
    vpage: &mut VPages,
    (range, addr): (VirtRange, VirtAddr),
    had: VPage,
) -> Result<bool, SegError> {
    let page = addr.vpn()..addr.vpn() + 1;
    vpage.make_room(page.clone()).map_err(|_| SegError::NoMemory { range })?;
    let claimed = claim_page(seg, scx, addr, had)?;
    if let Some(era) = claimed {
        vpage.update(page, |v| VPage { claim: Some(era), ..v });
    }
    Ok(claimed.is_some())
}

/// Claims one page, whose state is `had`, unless it is claimed; says of which era the claim is. `None`: there is nothing to lock (an untouched NORESERVE
/// page, past the end of a file).
fn claim_page(
    seg: &SegVn,
    scx: &SegCx<'_>,
    addr: VirtAddr,
    had: VPage,
) -> Result<Option<Era>, SegError> {
    let range = VirtRange::page_of(addr);
    let prot = had.prot.unwrap_or_else(|| seg.prot());
    let kind = claim_kind(seg, prot);
    let f = PageFault {
        quick: scx.is_writer(),
        ..PageFault::by_system(scx, addr, prot, Stamp::take(&seg.seq))
    };
    // The slot stays busy until its page is claimed (J3).
    let (page, _slot) = match find_page(seg, &f) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(FaultError::NoMemory { .. }) => return Err(SegError::NoMemory { range }),
        Err(e) => return Err(e.into()),
    };
    if let Some(era) = had.claim.filter(|era| scx.db.has_claim(&page, kind, *era)) {
        return Ok(Some(era));
    }
    scx.db.claim(&page, kind).map(Some).map_err(|_| SegError::LockLimit { range })
}

/// Locks a page that a fault has just made, if that can be done: all future memory is to be locked, and only what is touched is there to be.
pub(super) fn lock_touched(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) {
    let mut inner = seg.lock.lock(scx.cx);
    seg.hold_claims();
    // Whoever unlocks all says so first, and looks then whether the segment has state of its own: one of the two sees the other.
    if !scx.space.lock_future() {
        seg.note_pages(&inner.vpage);
        return;
    }
    let had = inner.vpage.get(addr.vpn());
    // Refused, it is a page like others, which a later lock may lock.
    if !had.is_locked() && scx.space.charge_locked(PAGE_SIZE) {
        let page = (VirtRange::page_of(addr), addr);
        if !mark_page(seg, scx, &mut inner.vpage, page, had).unwrap_or(false) {
            scx.space.credit_locked(PAGE_SIZE);
        }
    }
    inner.vpage.trim();
    seg.note_pages(&inner.vpage);
}

/// A page and its slot, if it has one.
type Found<'a> = (SharedPage<'a>, Option<SlotGuard<'a>>);

/// The page of a mapping, made or read if need be, shared-locked. `None`: nothing to lock there.
fn find_page<'a>(seg: &'a SegVn, f: &PageFault<'a>) -> Result<Option<Found<'a>>, FaultError> {
    let scx = f.scx;
    if seg.backing.is_none() || (!seg.shared() && seg.amap().is_some()) {
        let map = seg.amap_or_make(scx);
        let f = PageFault { stamp: Stamp::take(&seg.seq), ..*f };
        let slot_no = seg.slot_of(scx.seg, f.addr);
        let joint = seg.shares_slot(scx, slot_no);
        let slot = if joint || (seg.backing.is_none() && !seg.noreserve()) {
            Some(map.enter_or_make(scx.cx, slot_no).map_err(|_| f.no_memory())?)
        } else {
            map.enter(scx.cx, slot_no)
        };
        if let Some(slot) = slot {
            if joint {
                seg.settle_slot(&f, &slot)?;
            } else if slot.get().is_none() && seg.backing.is_none() && !seg.noreserve() {
                seg.zero_fill(&f, &slot)?;
            }
            if let Some(n) = slot.get() {
                let page = seg.anon_page(&f, n)?;
                let own = page.page().is(seg.driver.layer.swap().identity(n));
                let page = if own {
                    page
                } else {
                    drop(page);
                    seg.own_page(&f, n)?
                }; // what is locked is the mapping's
                if seg.driver.layer.swap().free_slot(scx.cx, n, &page) {
                    page.page().set_ref_mod(RefMod::MOD); // its only copy is in memory now
                }
                return Ok(Some((page, Some(slot))));
            }
        }
    }
    let (Some(b), Some(offset)) = (&seg.backing, seg.file_offset(scx.seg, f.addr)) else {
        return Ok(None);
    };
    match b.vnode.get_page(scx.cx, scx.db, offset, Access::Read) {
        Ok(got) => {
            let got = what_was_asked_for(f, got, seg.file_identity(scx, f.addr), Access::Read)?;
            Ok(Some((got.page, None)))
        }
        Err(VnodeError::BeyondEof { .. }) => Ok(None),
        Err(e @ VnodeError::Io { .. }) => {
            Err(FaultError::Object { addr: f.addr, errno: e.errno().max(errno::EIO) })
        }
        Err(e) => Err(f.vnode_error(e)),
    }
}

/// Unlocks, unless the heap has no room for where `range` begins and ends.
pub(super) fn try_unlock(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return Ok(());
    }
    let mut inner = seg.lock.lock(scx.cx);
    if !inner.vpage.any(vpns(range), VPage::is_locked) {
        return Ok(());
    }
    if range != scx.seg {
        inner.vpage.make_room(vpns(range)).map_err(|_| SegError::NoMemory { range })?;
    }
    unlock_pages(seg, scx, range, &mut inner.vpage);
    inner.vpage.trim();
    Ok(())
}

/// Unlocks where nothing may fail: room was made, or what was locked beside others a moment ago is told from them again, for which the heap must give
/// what it took back.
pub(super) fn unlock(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) {
    if seg.vpaged.load(Ordering::SeqCst) != 0 {
        unlock_pages(seg, scx, range, &mut seg.lock.lock(scx.cx).vpage);
    }
}

/// Unclaims the pages of `range` that are locked, and takes their marks away. held: the segment's lock
fn unlock_pages(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange, vpage: &mut VPages) {
    seg.hold_claims();
    let mut rest = vpns(range);
    while !rest.is_empty() {
        let (run, v) = vpage.first_of(rest.clone());
        rest.start = run.end;
        let Some(era) = v.claim else { continue };
        let prot = v.prot.unwrap_or_else(|| seg.prot());
        for addr in run_range(scx.seg, &run).iter_pages() {
            if let Some(page) = seg.claimed_page(scx, addr) {
                scx.db.unclaim(&page, claim_kind(seg, prot), era);
            }
            scx.space.credit_locked(PAGE_SIZE);
        }
        vpage.update(run, |v| VPage { claim: None, ..v });
    }
    seg.note_pages(vpage);
}

/// Makes the pages of `part` that are locked in memory the segment's alone, with their claims: its map is about to be shared (J3). What a stranger has
/// pinned of them is not waited for (J5). A page that gets contents of its own has its promise from `gain`, also when another cannot be settled (I12). Where the
/// file has been cut nobody finds a page, and the lock ends: the next to store there may be another, who would leave a marked page without a claim. The page
/// may be there still, with a claim on it, and the file's again when that grows before the truncation has got to it (T2).
pub(super) fn settle_locked(
    seg: &SegVn,
    scx: &SegCx<'_>,
    part: VirtRange,
    map: &AnonMap,
    mut gain: Option<&mut Gain<'_>>,
) -> Result<(), SegError> {
    let mut rest = vpns(part);
    while !rest.is_empty() {
        let (run, v) = seg.lock.lock(scx.cx).vpage.first_of(rest.clone());
        rest.start = run.end;
        if !v.is_locked() {
            continue;
        }
        let prot = v.prot.unwrap_or_else(|| seg.prot());
        for addr in run_range(scx.seg, &run).iter_pages() {
            let f = PageFault::by_system(scx, addr, prot, Stamp::take(&seg.seq));
            let f = PageFault { claim: v.claim, ..f };
            let range = VirtRange::page_of(addr);
            let room = seg.lock.lock(scx.cx).vpage.make_room(vpns(range));
            room.map_err(|_| SegError::NoMemory { range })?;
            let slot = map.enter_or_make(scx.cx, seg.slot_of(scx.seg, addr));
            let slot = slot.map_err(|_| SegError::NoMemory { range })?;
            let done = seg.settle_slot(&f, &slot);
            let made = slot.get().is_some();
            drop(slot);
            // held: as (writer)
            if let (Some(gain), true) = (&mut gain, made) {
                gain.commit_page(seg, scx, range);
            }
            done.map_err(|e| match e {
                FaultError::Retry { .. } => SegError::Pinned { range },
                e => e.into(),
            })?;
            if !made {
                let mut inner = seg.lock.lock(scx.cx);
                unlock_pages(seg, scx, range, &mut inner.vpage); // into the room just made
                inner.vpage.trim();
            }
        }
    }
    Ok(())
}

impl SegVn {
    /// Keeps claims where they are until the segment's lock is released: no fault that has not taken its slot yet copies a page before that. The
    /// caller holds the segment's lock and sets `vpaged` right again.
    pub(super) fn hold_claims(&self) {
        // A stamp taken after this is followed by a look at the pages' own state, which waits for the lock.
        self.note();
        self.publish(|| self.vpaged.store(1, Ordering::SeqCst));
    }
    /// Whether pages of the state `v`, which is of locked ones, are known to have their claims (Q3).
    fn has_claims_of(&self, scx: &SegCx<'_>, v: VPage) -> bool {
        let may_end = self.backing.is_some() || scx.db.lost_claims() != 0;
        !may_end || v.claim == Some(scx.db.claim_era())
    }
    /// The pages of `range` at which there may be something to lock. Address space that nobody has touched is not walked (D12): where swap is reserved
    /// at the first touch only occupied slots count, and so it is past the end of the file.
    fn lockable<'a>(
        &'a self,
        scx: &SegCx<'a>,
        range: VirtRange,
    ) -> impl Iterator<Item = VirtAddr> + use<'a> {
        let pages = range.pages().get();
        let everywhere = match &self.backing {
            None if self.noreserve() => 0,
            None => pages,
            Some(b) => {
                let first = self.file_offset(scx.seg, range.start()).unwrap_or_default();
                b.vnode.size().saturating_sub(first.0).div_ceil(PAGE_SIZE).min(pages)
            }
        };
        let Range { start, end } = self.slots_of(scx.seg, range);
        let rest = start.wrapping_add(everywhere)..end;
        let cx = scx.cx;
        let touched = self.amap().into_iter().flat_map(move |m| m.slots(cx, rest.clone()));
        let touched = touched.map(move |(slot, _)| range.page_at(slot.wrapping_sub(start)));
        range.iter_pages().take(usize::try_from(everywhere).unwrap_or(usize::MAX)).chain(touched)
    }
    /// The page a claim of this mapping is on, if it still is, found with its slot busy, so that a copy under way is over. Claimed pages stay resident. The
    /// caller has called [`SegVn::hold_claims`].
    pub(super) fn claimed_page<'a>(
        &self,
        scx: &SegCx<'a>,
        addr: VirtAddr,
    ) -> Option<SharedPage<'a>> {
        let slot = self.amap().and_then(|m| m.enter(scx.cx, self.slot_of(scx.seg, addr)));
        let id = match slot.as_ref().and_then(SlotGuard::get) {
            Some(n) => self.driver.layer.swap().identity(n),
            None => self.file_identity(scx, addr)?,
        };
        scx.db.lookup_shared(scx.cx, id)
    }
    /// The pages this mapping has locked in memory, in which count their claims are and of which era. For checks.
    pub fn locked_pages(&self, scx: &SegCx<'_>) -> Vec<(VirtAddr, Claim, Era)> {
        let inner = self.lock.lock(scx.cx);
        let runs = inner.vpage.iter(vpns(scx.seg));
        let runs = runs.filter_map(|(run, v)| Some((run, v.claim?, v.prot)));
        let pages = runs.flat_map(|(run, era, prot)| {
            let kind = claim_kind(self, prot.unwrap_or_else(|| self.prot()));
            run_range(scx.seg, &run).iter_pages().map(move |addr| (addr, kind, era))
        });
        pages.collect()
    }
    /// What each page of the segment has, by its own or the segment's state, as runs: rights and advice are always said.
    pub fn page_states(&self, scx: &SegCx<'_>) -> Vec<(VirtRange, VPage)> {
        let inner = self.lock.lock(scx.cx);
        let said = |(run, v): (core::ops::Range<u64>, VPage)| {
            let prot = v.prot.or_else(|| Some(self.prot()));
            let advice = v.advice.or_else(|| Some(self.seg_advice()));
            (run_range(scx.seg, &run), VPage { prot, advice, ..v })
        };
        inner.vpage.iter(vpns(scx.seg)).map(said).collect()
    }
    /// A store copies a locked page: the claim goes along. The copy is writable, so it counts in `p_cowcnt`, as the source's did.
    pub(super) fn move_claim(&self, f: &PageFault<'_>, from: &dyn LockedPage, to: &dyn LockedPage) {
        let Some(era) = f.claim else { return };
        // Lost, it is claimed again by the next lock of the page.
        f.scx.db.carry_claim(from, to, claim_kind(self, f.prot), era);
    }
}
