//! Which private pages are one frame, as stores, forks and moves leave them.
//!
//! A lock belongs to a frame: what anybody has locked nobody throws out of memory. For memory of an object the object says which pages are one; for private
//! memory it is history:
//!
//! ```text
//!   write 0 0 1 65; fork 0 1           (0, 0) ─▶ slot a ─▶ frame 1 ◀─ slot b ◀─ (1, 0)
//!   write 1 0 1 66                     (0, 0) ─▶ slot a ─▶ frame 1    slot b ◀─ (1, 0)
//!                                                                     slot b ─▶ frame 2
//!   inherit 0 0 1 share; fork 0 2      (0, 0) ─▶ slot a ◀─ (2, 0)     whoever stores, both see it
//! ```
//!
//! A store may give a slot a frame that nothing else has, whether it had one or shared one: what matters is who else has it.

use std::collections::BTreeMap;
use std::ops::Range as Span;

/// A page of a process: its slot and the page's number.
pub(super) type Place = (u32, u64);

/// What a child's page has of its parent's.
pub(super) enum Handed {
    /// Nothing.
    Nothing,
    /// The frame, until one of them stores.
    Frame,
    /// The slot.
    Slot,
}

/// The frames of private pages.
#[derive(Debug, Default)]
pub(super) struct Frames {
    slots: BTreeMap<Place, usize>,
    /// By slot. A frame is a number that is given once.
    frames: Vec<Option<u64>>,
    made: u64,
}

impl Frames {
    /// A page has been loaded from that is nobody's but its own.
    pub(super) fn load(&mut self, place: Place) {
        let slot = self.slot_of(place);
        if self.frames[slot].is_none() {
            self.make(slot);
        }
    }

    /// A page has been stored to.
    pub(super) fn store(&mut self, place: Place) {
        let slot = self.slot_of(place);
        self.make(slot);
    }

    /// A page has been thrown away, which others that have its slot forbid.
    pub(super) fn discard(&mut self, place: Place) {
        let Some(slot) = self.slots.get(&place).copied() else { return };
        if self.slots.values().filter(|s| **s == slot).count() == 1 {
            self.frames[slot] = None;
        }
    }

    /// A child has been made.
    pub(super) fn fork(&mut self, parent: Place, child: u32, what: Handed) {
        let slot = match what {
            Handed::Nothing => return,
            Handed::Slot => self.slot_of(parent),
            Handed::Frame => {
                let Some(slot) = self.slots.get(&parent) else { return };
                self.frames.push(self.frames[*slot]);
                self.frames.len() - 1
            }
        };
        self.slots.insert((child, parent.1), slot);
    }

    /// A page is shown a second time.
    pub(super) fn twin(&mut self, of: Place, at: Place) {
        let slot = self.slot_of(of);
        self.slots.insert(at, slot);
    }

    /// Whatever was there, something else is.
    pub(super) fn forget(&mut self, proc: u32, pages: &Span<u64>) {
        self.slots.retain(|(of, n), _| *of != proc || !pages.contains(n));
    }

    /// Pages have gone elsewhere, where nothing was.
    pub(super) fn shift(&mut self, proc: u32, pages: &Span<u64>, to: u64) {
        let kept = self.slots.range((proc, pages.start)..(proc, pages.end));
        let moved = kept.map(|((_, n), slot)| ((proc, n - pages.start + to), *slot));
        let moved: Vec<(Place, usize)> = moved.collect();
        self.forget(proc, pages);
        self.slots.extend(moved);
    }

    /// Forgets pages that are not mapped.
    pub(super) fn retain(&mut self, is_there: impl Fn(&Place) -> bool) {
        self.slots.retain(|place, _| is_there(place));
    }

    /// Two pages are one frame.
    pub(super) fn are_one(&self, a: Place, b: Place) -> bool {
        self.frame(a).is_some() && self.frame(a) == self.frame(b)
    }

    fn frame(&self, place: Place) -> Option<u64> {
        self.frames[*self.slots.get(&place)?]
    }

    fn make(&mut self, slot: usize) {
        self.made += 1;
        self.frames[slot] = Some(self.made);
    }

    fn slot_of(&mut self, place: Place) -> usize {
        *self.slots.entry(place).or_insert_with(|| {
            self.frames.push(None);
            self.frames.len() - 1
        })
    }
}
