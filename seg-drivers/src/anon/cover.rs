//! Which slots of an anon map the segments that use it cover.
//!
//! `refs` counts segments. As long as all of them cover the same slots that is enough; when one is split or loses a part, references are kept per
//! slot from then on (`slot_refs`, UVM's ppref, as runs), so that a slot is freed with the last segment that can reach it.
//!
//! ```text
//!   one segment of 3 pages              slot_refs none           refs 1
//!   its middle is unmapped              1 0 1                    refs 2     (two segments now; slot 1 was freed)
//! ```
//!
//! - M1 (I6): `0 <= slot_refs[i] <= refs`, and a slot with 0 is empty.
//! - M2: without `slot_refs`, every segment that refers to the map covers the same slots.
//!
//! A segment that gives up slots leaves more to do, and to wait for: M3 and M4 of [`super::lose`].

use super::map::AnonMap;
use super::promised::Promised;
use crate::runs::Runs;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use page_db::Cx;
use page_db::heap::NoHeap;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated};

/// References slot by slot, where segments cover different parts; boxed, because few maps have them.
pub(super) type SlotRefs = Option<Box<Runs<u32>>>;

impl AnonMap {
    /// One segment more, covering `part` of what the segment that it comes from covers, `coverage` (fork: mostly all of it).
    ///
    /// # Errors
    /// [`NoHeap`] for the references slot by slot; there is no segment more.
    #[doc(alias = "amap_ref")]
    pub fn gain(&self, cx: &Cx, coverage: Range<u64>, part: Range<u64>) -> Result<(), NoHeap> {
        self.count_segment(&mut self.grow.lock(cx), coverage, part)
    }
    /// The same as [`AnonMap::gain`], and private segments share the map for good from now on: one step, because a segment that leaves meanwhile may find that it leaves one
    /// alone with the map ([`AnonMap::lose`]).
    ///
    /// # Errors
    /// As [`AnonMap::gain`]'s.
    pub(crate) fn gain_joint(
        &self,
        cx: &Cx,
        coverage: Range<u64>,
        part: Range<u64>,
    ) -> Result<(), NoHeap> {
        let early = mutated(Mutation::JointBeforeCounted);
        if early {
            self.promised.set(Promised::JOINT);
        }
        let mut grow = self.grow.lock(cx);
        self.count_segment(&mut grow, coverage, part)?;
        if !early {
            self.promised.set(Promised::JOINT);
        }
        Ok(())
    }
    pub(super) fn count_segment(
        &self,
        grow: &mut SlotRefs,
        coverage: Range<u64>,
        part: Range<u64>,
    ) -> Result<(), NoHeap> {
        if grow.is_some() || coverage != part {
            let pp = self.roomy(grow, coverage, part.clone())?;
            pp.update(part, |n| n + 1);
            pp.trim();
        }
        self.refs.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
    /// Makes room, so that a segment that covers `coverage` can give up `part` of it. Where other address spaces have the map too, one of them may gain or give
    /// up a part before that, and trim the room away: then the heap must give it again (`docs/heap.md`).
    ///
    /// # Errors
    /// [`NoHeap`]; nothing has changed.
    pub(crate) fn make_room(
        &self,
        cx: &Cx,
        coverage: Range<u64>,
        part: Range<u64>,
    ) -> Result<(), NoHeap> {
        let mut grow = self.grow.lock(cx);
        if grow.is_some() || self.refs() != 1 {
            self.roomy(&mut grow, coverage, part)?;
        }
        Ok(())
    }
    /// The references slot by slot, with room for a change of `part`.
    fn roomy<'a>(
        &self,
        grow: &'a mut SlotRefs,
        coverage: Range<u64>,
        part: Range<u64>,
    ) -> Result<&'a mut Runs<u32>, NoHeap> {
        match grow {
            Some(pp) => {
                pp.make_room(part)?;
                Ok(pp)
            }
            none => {
                let mut pp = Runs::of(0, coverage, self.refs());
                pp.make_room(part)?;
                Ok(none.insert(Box::new(pp)))
            }
        }
    }
    pub(super) fn establish<'a>(
        &self,
        grow: &'a mut SlotRefs,
        coverage: Range<u64>,
    ) -> &'a mut Runs<u32> {
        let refs = self.refs();
        grow.get_or_insert_with(|| Box::new(Runs::of(0, coverage, refs)))
    }
    /// A segment becomes two, which cover `low` and `high`; what lay between has been given up before.
    #[doc(alias = "amap_splitref")]
    pub fn split(&self, cx: &Cx, low: Range<u64>, high: Range<u64>) {
        let mut grow = self.grow.lock(cx);
        let refs = self.refs();
        grow.get_or_insert_with(|| {
            let mut pp = Runs::of(0, low, refs);
            pp.set(high, refs);
            Box::new(pp)
        });
        self.refs.fetch_add(1, Ordering::AcqRel);
    }
    /// Two adjacent segments that use the map become one (the reverse of [`AnonMap::split`]).
    pub fn unsplit(&self, cx: &Cx) {
        let mut grow = self.grow.lock(cx);
        if self.refs.fetch_sub(1, Ordering::AcqRel) == 2 {
            self.forget_refs(&mut grow);
            self.promised.clear(Promised::JOINT); // one segment covers whatever is left, and shares it with nobody
        }
    }
    /// A segment beside `range` takes it over, if no segment covers any of its slots. Says whether it did; not without heap to note it.
    ///
    /// After a split the map has several segments, so it may not grow as it likes: what lies beside one of them may be another's.
    #[doc(alias = "amap_extend")]
    pub fn cover(&self, cx: &Cx, range: Range<u64>) -> bool {
        let mut grow = self.grow.lock(cx);
        if range.start > range.end || self.leaving.load(Ordering::Acquire) != 0 {
            return false; // there are no such slots; M3
        }
        match &mut *grow {
            // One segment, which has whatever there is (M2).
            None => self.refs() == 1,
            Some(pp) => {
                let free =
                    !pp.any(range.clone(), |n| n != 0) && pp.make_room(range.clone()).is_ok();
                if free {
                    pp.set(range, 1);
                    pp.trim();
                }
                free
            }
        }
    }
    /// One segment more, covering `part`, beside what the segment that it comes from covers, `coverage`, or within: the object goes on. The
    /// caller has promised a page of swap for each slot of `part`; the map takes over those of slots that nobody has covered before, and answers how many
    /// bytes are left to the caller. `None`, and nothing has changed, while a part is on its way out (M3): waited for by [`Contents::wait_emptied`](addr_space::Contents::wait_emptied).
    ///
    /// # Errors
    /// [`NoHeap`] for the references slot by slot; nothing has changed.
    #[doc(alias = "amap_extend")]
    pub(crate) fn gain_beside(
        &self,
        cx: &Cx,
        coverage: Range<u64>,
        part: Range<u64>,
    ) -> Result<Option<u64>, NoHeap> {
        let mut grow = self.grow.lock(cx);
        if self.leaving.load(Ordering::Acquire) != 0 {
            return Ok(None);
        }
        let pp = self.roomy(&mut grow, coverage, part.clone())?;
        let fresh = pp.count(part.clone(), |n| n == 0) * page_db::PAGE_SIZE;
        pp.update(part.clone(), |n| n + 1);
        pp.trim();
        self.promised.set(Promised::UNEVEN);
        self.refs.fetch_add(1, Ordering::AcqRel);
        self.promised.add(fresh);
        Ok(Some((part.end - part.start) * page_db::PAGE_SIZE - fresh))
    }
    /// Whether no segment but the one that asks, which covers `range`, reaches a slot of it.
    pub fn sole(&self, cx: &Cx, range: Range<u64>) -> bool {
        let grow = self.grow.lock(cx);
        match &*grow {
            None => self.refs() == 1,
            Some(pp) => !pp.any(range, |n| n > 1),
        }
    }
    /// Whether the segment that asks, which covers `range`, is the only one that reaches some slot of it.
    pub(crate) fn sole_somewhere(&self, cx: &Cx, range: Range<u64>) -> bool {
        let grow = self.grow.lock(cx);
        match &*grow {
            None => self.refs() == 1,
            Some(pp) => pp.any(range, |n| n <= 1),
        }
    }
    /// The slots with which `range` begins that have as many references as the first, and how many these are.
    pub(crate) fn first_refs(&self, cx: &Cx, range: Range<u64>) -> (Range<u64>, u32) {
        let grow = self.grow.lock(cx);
        match &*grow {
            Some(pp) => pp.first_of(range),
            None => (range, self.refs()),
        }
    }
    /// References of `range` slot by slot, as runs, for views and checks.
    #[doc(alias = "ppref")]
    pub fn slot_refs(&self, cx: &Cx, range: Range<u64>) -> Vec<(Range<u64>, u32)> {
        let grow = self.grow.lock(cx);
        match &*grow {
            Some(pp) => pp.iter(range).collect(),
            None => alloc::vec![(range, self.refs())],
        }
    }
    /// Plants a wrong number of references on the whole map (tests of `verify`).
    #[doc(hidden)]
    pub fn damage_slot_refs(&self, cx: &Cx, range: Range<u64>, refs: u32) {
        let mut grow = self.grow.lock(cx);
        self.establish(&mut grow, range.clone()).set(range, refs);
    }
}
