//! Contents of its own: what a lazily forked segment does not have until it needs them.
//!
//! # The difficulty
//!
//! Under the lazy policy a fork copies no slot. Both segments refer to one anon map, in which each anon goes on having one reference; so the count
//! of an anon no longer says who may store into its page. Sooner or later one side has to add to the map or replace a slot, and must do that in
//! a map of its own, while faults find the map without a lock.
//!
//! ```text
//!   fork            parent ─▶ M (refs 2) ─▶ a0 (1), a1 (1) ◀─ M ◀─ child      both need a copy; nothing is mapped writable
//!   child stores    child ─▶ C ─▶ a0 (2), a1 (2)     parent ─▶ M (refs 1)     and then case 1B, in C
//!   parent stores   parent ─▶ M: the last one takes over, nothing is copied   and then case 1A or 1B, in M
//! ```
//!
//! # The rule
//!
//! A fault that finds `needs_copy` and wants more than to look below, or at what is there, answers [`FaultError::NotOwn`]. The address space
//! drops its lock, takes it as writer, and calls [`make_own`]: alone in the address space, with the driver to itself (`&mut`), it copies the slots
//! it covers and lets go of the shared map, or takes the map over if nobody else reaches its part. Then the fault starts over. As the pointer
//! is replaced only through `&mut`, the reference a fault holds cannot outlive its map, and a fault pays for all this with the look at one byte
//! of a line it reads anyway.
//!
//! A load does the same where there is nothing below: the child's map must be the child's before a page of zeros can be added to it, and a load
//! that meets an anon is not told apart (UVM's rule). Over a file a load maps what it finds, without the right to write.
//!
//! # Invariants
//!
//! - O1 (I7): `needs_copy` is set on private segments only, which have a map; such a segment adds nothing to the map, replaces nothing in it,
//!   and has none of its pages mapped writable.
//! - O2: an occupied slot of a private segment that does not need a copy is covered by no other segment.
//! - O3: so the slots of a map with several users change only by being emptied, by the last segment that reaches them; whoever copies them
//!   copies what every other side sees.
//! - O4: an anon is this segment's alone if it has one reference *and* the segment does not need a copy ([`SegVn::alone`]).
//!
//! Partial unmaps between the fork and the copy go through the map's slot references, as those of shared mappings do. Segments whose map is still
//! shared do not join others; pages pinned for i/o, and ranges that become zeros in the child, are copied at the fork.
//!
//! # The other road
//!
//! Replacing the map under the address-space lock as reader would not stop the other faults of the process for the copy. It needs a pointer that
//! can be replaced under those who use it, and a recheck after each slot is taken; the price would be every fault's, the gain one fault's in a
//! fork.
//!
//! Sources: uvm.md 2.2, 4.1-4.3, 7.2 (C3); [UVM §5].

use super::SegVn;
use crate::anon::AnonMap;
use addr_space::{SegCx, SegError};
use alloc::sync::Arc;
use page_db::VirtRange;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, Once, mutated};
use swapfs::AnonNumber;

impl SegVn {
    /// Whether the anon map is shared with another side of a fork until one of them needs its own.
    #[doc(alias = "UVM_ET_NEEDSCOPY")]
    #[inline]
    pub fn needs_copy(&self) -> bool {
        self.needs_copy.load(Ordering::Relaxed)
    }
    /// Whether an anon of this segment's is nobody else's (O4): exact for whoever holds its slot busy and is answered `true` (N3).
    #[inline]
    pub(super) fn alone(&self, n: AnonNumber) -> bool {
        self.driver.layer.anons.refs(n) == 1 && !self.needs_copy()
    }
    /// Takes the map over if no other segment reaches this one's part of it. Says whether the segment has contents of its own now.
    ///
    /// # Locks
    /// The address-space lock as writer.
    pub(super) fn try_own(&self, scx: &SegCx<'_>, range: VirtRange) -> bool {
        if self.needs_copy()
            && self.amap().is_none_or(|map| map.sole(scx.cx, self.slots_of(range, range)))
        {
            self.needs_copy.store(false, Ordering::Relaxed);
        }
        !self.needs_copy()
    }
    /// Claims or denies that the map is shared lazily (tests of `verify`).
    #[doc(hidden)]
    pub fn damage_needs_copy(&self, needs_copy: bool) {
        self.needs_copy.store(needs_copy, Ordering::Relaxed);
    }
}

/// See [`addr_space::SegOps::make_own`].
#[doc(alias("amap_copy", "uvmfault_amapcopy"))]
pub(super) fn make_own(seg: &mut SegVn, scx: &SegCx<'_>) -> Result<(), SegError> {
    debug_assert!(scx.is_writer(), "O1: a map is replaced with nobody else in the address space");
    if seg.try_own(scx, scx.seg) {
        return Ok(());
    }
    let Some(shared) = seg.amap().map(Arc::clone) else { return Ok(()) };
    let slots = seg.slots_of(scx.seg, scx.seg);
    let early = mutated(Mutation::MapLeftEarly);
    if early {
        shared.lose(scx.cx, slots.clone(), slots.clone());
    }
    let own = shared
        .dup(scx.cx, seg.driver.home(scx.cx), slots.clone(), None)
        .map_err(|_| SegError::NoMemory { range: scx.seg })?;
    seg.amap = ready(Some(own));
    seg.needs_copy.store(false, Ordering::Relaxed);
    // The others have gone, or copied, meanwhile? Then this was the last reference, and what it still held is given up here.
    if !early {
        shared.lose(scx.cx, slots.clone(), slots);
    }
    Ok(())
}

/// A place for a segment's map that has it already, if there is one.
pub(super) fn ready(map: Option<Arc<AnonMap>>) -> Once<Arc<AnonMap>> {
    let place = Once::new();
    if let Some(map) = map {
        let _ = place.set(map); // the place is new
    }
    place
}
