//! A map that several segments share for good, and anons that somebody else has besides.
//!
//! # The difficulty
//!
//! Two things may be shared. Segments share a *map* when what one stores the others are to see: shared memory over a fork, or private memory inherited
//! by sharing. Maps share an *anon* when each is to see the page as it was: copy-on-write. Both at once is where the classic mistake lies:
//!
//! ```text
//!   P1 forks P2 (copy)      P1 ─▶ M1 ─▶ a (2) ◀─ M2 ◀─ P2
//!   P2 forks P3 (share)     P1 ─▶ M1 ─▶ a (2) ◀─ M2 ◀─ P2, P3
//!   P2 stores               P1 ─▶ M1 ─▶ a (1)      M2 ─▶ b (1)       P3 still has a translation to a's page: it reads the old bytes,
//!                                                                    and goes on when P1 has exited and the frame is somebody else's
//! ```
//!
//! The map does not know its segments, and another's address space is not ours to lock. But every translation is on its page's list.
//!
//! # The rule
//!
//! - J1: who replaces the page of a slot in a joint map (an anon by its copy, 1B; the file's page by a copy, 2B) first removes *every* translation of the
//!   old page, with the page locked exclusively and the slot busy ([`SegVn::unmap_everywhere`]). The others fault and find the new anon.
//! - J2: so in a joint map a page is only mapped with its slot busy; where there is no chunk one is made.
//! - J3: in a slot that several segments reach, a page that must stay where it is (pinned for i/o, claimed) is the map's alone: a lock of either kind
//!   breaks copy-on-write first, whatever the access, and a copy of the map takes such pages as copies at once instead of sharing their anons. Who
//!   reaches a slot alone may have no swap for a copy, and needs none: when the slot comes to be shared its claimed pages are settled first, and a
//!   pinned one refuses ([`join`]). A lock of which truncation has left nothing ends there.
//! - J4: who copies a joint map takes the right to write from all translations of the anons it now shares, *after* they are counted
//!   (`amap_share_protect`): a fault that still found one reference has loaded its translation by then, and one that comes later finds two. What has no
//!   translation any more a processor may remember still: flushes that others owe are waited for. The map's own segments are not marked
//!   `needs_copy`: they go on sharing it, and a store replaces the slot for all of them.
//!
//! - J5: the old page may be pinned by a stranger, for as long as he likes, and he needs his own address-space lock to let go. A fork, or the showing of a range
//!   twice, holds such a lock as writer while it waits for slots. So nobody waits for the old page with its slot busy: it is tried, and everything let go
//!   when somebody has it.
//!
//! A shared file mapping has no map; what is stored there goes to the file.
//!
//! # The other road
//!
//! A list of the segments of a map would find the translations without looking at those of strangers (who share the anon by a copy, and
//! only fault again). It would be a lock and a list that every fork and unmap of shared memory pays for, to save faults after a rare store.
//!
//! Sources: uvm.md 2.1, 2.4, 4.1 (the latent hole), 7.3; FreeBSD CVE-2021-29626.

use super::fault::PageFault;
use super::protect::Gain;
use super::{SegVn, lock};
use crate::anon::{AnonMap, SlotGuard};
use addr_space::{FaultError, SegCx, SegError};
use alloc::sync::Arc;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated};
use page_db::{ExclPage, SharedPage, VirtRange};
use swapfs::AnonNumber;

impl SegVn {
    /// Whether slots are replaced for other segments too.
    #[inline]
    pub(super) fn is_joint(&self) -> bool {
        self.shared() || self.amap().is_some_and(|map| map.is_joint())
    }
    /// Whether another segment may replace what is in the slot, or may come to while this one has it pinned. For a private segment the answer stays
    /// as it is under the address-space lock as reader: a slot gains a segment from one that reaches it.
    #[inline]
    pub(super) fn shares_slot(&self, scx: &SegCx<'_>, slot: u64) -> bool {
        self.shared()
            || self.amap().is_some_and(|map| map.is_joint() && !map.sole(scx.cx, slot..slot + 1))
    }
    /// Whether stores go to the file itself.
    #[inline]
    pub(super) fn stores_below(&self) -> bool {
        self.shared() && self.backing.is_some()
    }
    /// Removes every translation of a page that is about to be replaced in a joint map (J1), and returns it locked as it was.
    ///
    /// # Locks
    /// On entry and return: as, slot, page (shared). Whoever has the page as well is not waited for here, with the slot busy: a fork of another segment of the
    /// map waits for the slot as writer, and may be keeping a pin of its own process from its end. The fault starts over (J5).
    pub(super) fn unmap_everywhere<'a>(
        &self,
        f: &PageFault<'a>,
        page: SharedPage<'a>,
    ) -> Result<SharedPage<'a>, FaultError> {
        let (cx, db) = (f.scx.cx, f.scx.db);
        let page = page.try_upgrade().map_err(|_| f.held())?;
        if !mutated(Mutation::OthersKeepTheOld) {
            db.unload(cx, &page);
        }
        Ok(ExclPage::downgrade(page))
    }
    /// Makes the page of a slot of a joint map the map's alone, before it is locked in place (J3).
    /// Past the end of the file there is nothing to lock, and the slot stays empty.
    pub(super) fn settle_slot(
        &self,
        f: &PageFault<'_>,
        slot: &SlotGuard<'_>,
    ) -> Result<(), FaultError> {
        let f = &PageFault { break_cow: true, ..*f };
        match slot.get() {
            Some(n) if self.alone(n) => Ok(()),
            Some(_) if self.stores_below() => Ok(()),
            Some(n) => self.upper(f, slot, n).map(drop),
            None if self.backing.is_none() => self.zero_fill(f, slot).map(drop),
            None if self.is_past_end(f) => Ok(()),
            None => self.promote(f, slot).map(drop),
        }
    }
    fn is_past_end(&self, f: &PageFault<'_>) -> bool {
        let at = self.file_offset(f.scx.seg, f.addr);
        let size = self.backing.as_ref().map(|b| b.vnode.size());
        at.zip(size).is_none_or(|(at, size)| at.0 >= size)
    }
}

/// Makes the map of a private segment, if need be, before a child comes to have it as well ([`AnonMap::gain_joint`]): the pages that are locked in
/// memory are made its own. What is promised for these of what the segment is to `gain` is its own at once: they are made, whatever becomes of the fork.
pub(super) fn join(
    seg: &SegVn,
    scx: &SegCx<'_>,
    part: VirtRange,
    gain: Option<&mut Gain<'_>>,
) -> Result<(), SegError> {
    check_pins(seg, scx, part)?;
    let map = seg.amap_or_make(scx);
    // Also of a map that is joint already: pages of another part of it, locked when it was not, are handed on only now.
    lock::settle_locked(seg, scx, part, map, gain)
}

/// Refuses to share what may be pinned and is perhaps not the map's alone (J3).
pub(super) fn check_pins(seg: &SegVn, scx: &SegCx<'_>, part: VirtRange) -> Result<(), SegError> {
    let slots = || seg.slots_of(scx.seg, part);
    let settled = || seg.amap().is_some_and(|m| m.is_joint() && !m.sole_somewhere(scx.cx, slots()));
    match seg.softlocks.load(Ordering::Acquire) {
        0 => Ok(()),
        _ if settled() => Ok(()),
        _ => Err(SegError::Pinned { range: part }),
    }
}

/// Copies a joint map for a child that is to see it as it is now (J3, J4). `keep` says which slots.
pub(super) fn copy(
    seg: &SegVn,
    scx: &SegCx<'_>,
    map: &AnonMap,
    part: VirtRange,
    keep: &dyn Fn(u64) -> bool,
) -> Result<Arc<AnonMap>, SegError> {
    let (cx, layer) = (scx.cx, &seg.driver.layer);
    let slots = seg.slots_of(scx.seg, part);
    let stays = |slot: u64| map.peek(slot).is_some_and(|n| stays_put(seg, scx, n));
    let free = |slot: u64| keep(slot) && !stays(slot); // asked with the slot busy
    let copy = map
        .dup(cx, seg.driver.home(cx), slots.clone(), Some(&free))
        .map_err(|_| SegError::NoMemory { range: part })?;
    for (_, n) in copy.slots(cx, slots.clone()) {
        let id = layer.swap().identity(n);
        let mapped = scx.db.exists(cx, id).is_some_and(|page| scx.db.page(page).is_mapped());
        if let Some(page) = mapped.then(|| scx.db.lookup_shared(cx, id)).flatten() {
            scx.db.clear_write(cx, &page);
        }
    }
    // What nobody maps any more may be remembered still: a sharer's unmap, or page-out, takes a translation away and owes its flush after that.
    if !mutated(Mutation::CopiedBesideADebt) {
        scx.db.settle(cx);
    }
    for (slot, _) in map.slots(cx, slots.clone()) {
        if !keep(slot) || copy.peek(slot).is_some() {
            continue;
        }
        let addr = part.page_at(slot.wrapping_sub(slots.start));
        if let Err(e) = super::dup::copy_slot(seg, scx, map, &copy, slot, addr) {
            copy.lose(cx, slots.clone(), slots);
            return Err(e);
        }
    }
    Ok(copy)
}

/// Whether the anon's page is claimed, or in somebody's hands, who may be doing i/o (J3).
fn stays_put(seg: &SegVn, scx: &SegCx<'_>, n: AnonNumber) -> bool {
    let page = scx.db.exists(scx.cx, seg.driver.layer.swap().identity(n));
    page.is_some_and(|page| {
        let lock = scx.db.lock_state(page);
        scx.db.page(page).is_claimed() || lock.shared != 0 || lock.excl
    })
}
