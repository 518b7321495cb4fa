//! A segment gives up slots of an anon map, and what nobody covers any more is emptied.
//!
//! What a segment covers is changed under `grow`. Emptying a slot may wait for whoever has it busy, and for its page, so it comes afterwards:
//!
//! ```text
//!   give_up   grow: slot_refs[part] -= 1, refs -= 1 if it is the whole segment, leaving += 1 if slots are nobody's now and others are left
//!   empty     the slots of `part` with no reference, chunk by chunk; then chunks that are empty (M4)
//!   over      leaving -= 1; the references go if one segment is left, which covers whatever is left
//! ```
//!
//! - M3: slots that nobody covers any more are emptied after the lock is gone (that of the map, and if a segment lives on without them that of the address
//!   space), and by then another segment of the map may want to grow over them; it does not while any part is on its way out.
//! - M4: a chunk that becomes empty is freed at once, unless somebody has the shape's lock or a slot of the chunk: a walker of another map, that the chunk was of
//!   before, may have one for a moment (H1). Then the map remembers, and whoever gives up a part next looks again. As every segment gives up its part in
//!   the end, nothing is left of a map without one: who finds no segment left waits for such walkers.

use super::cover::SlotRefs;
use super::map::AnonMap;
use super::promised::Promised;
use crate::runs::Runs;
use core::ops::Range;
use page_db::Cx;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated};

/// What [`AnonMap::lose`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// References left; only one caller is told 0.
    pub refs: u32,
    /// Slots that no segment covers any more, occupied or not.
    pub slots: u64,
}

impl AnonMap {
    /// A segment that covers `coverage` gives up `part` of it (all of it: the segment goes). Slots nobody covers any more are freed.
    /// Translations are gone by now.
    #[doc(alias("amap_unref", "anon_free", "anon_release", "anonmap_free"))]
    pub fn lose(&self, cx: &Cx, coverage: Range<u64>, part: Range<u64>) -> Lost {
        let (lost, last) = self.give_up(cx, coverage, part.clone());
        self.empty_places(cx, part, lost.slots, last.as_deref());
        if lost.refs != 0 && lost.slots != 0 {
            self.no_longer_leaving(cx);
        }
        lost
    }
    /// The first half of [`AnonMap::lose`], of a part of what a segment covers that lives on: no segment comes by these slots any more, and what they hold is
    /// still there. Where `slots` of the answer is not 0, [`AnonMap::empty_lost`] is called next, with no lock that anybody waits for.
    pub(crate) fn lose_part(&self, cx: &Cx, coverage: Range<u64>, part: Range<u64>) -> Lost {
        debug_assert_ne!(coverage, part, "a segment that lives on keeps something");
        let (lost, last) = self.give_up(cx, coverage, part);
        debug_assert!(last.is_none() && lost.refs != 0, "a segment that lives on has a reference");
        if lost.slots == 0 {
            self.free_missed_chunks(cx);
        }
        lost
    }
    /// The second half, once: empties those slots of `part` that nobody covers, `lost` of them.
    pub(crate) fn empty_lost(&self, cx: &Cx, part: Range<u64>, lost: u64) {
        self.empty_places(cx, part, lost, None);
        self.no_longer_leaving(cx);
    }
    /// A segment gives up `part`. If others are left and some of its slots are nobody's now, they are on their way out (M3). Answers references that
    /// nobody needs any more, but to find those slots.
    fn give_up(&self, cx: &Cx, coverage: Range<u64>, part: Range<u64>) -> (Lost, SlotRefs) {
        let whole = coverage == part;
        let mut grow = self.grow.lock(cx);
        let refs = self.refs();
        let slots = if grow.is_none() && refs == 1 {
            part.end.wrapping_sub(part.start)
        } else if whole && grow.is_none() {
            0
        } else {
            let pp = self.establish(&mut grow, coverage);
            pp.update(part.clone(), |n| n.saturating_sub(1));
            pp.trim();
            pp.count(part, |n| n == 0)
        };
        let left = if whole { self.refs.fetch_sub(1, Ordering::SeqCst) - 1 } else { refs };
        let last = match left {
            0 => grow.take(),
            1 if whole => {
                self.promised.clear(Promised::JOINT);
                self.forget_refs(&mut grow)
            }
            _ => None,
        };
        if left != 0 && slots != 0 {
            self.promised.set(Promised::UNEVEN);
            if !mutated(Mutation::LeavingOverEarly) {
                self.leaving.fetch_add(1, Ordering::SeqCst);
            }
        }
        (Lost { refs: left, slots }, last)
    }
    /// Empties the `lost` slots of `part` that nobody covers, and looks for chunks that nobody could free.
    fn empty_places(&self, cx: &Cx, part: Range<u64>, lost: u64, refs: Option<&Runs<u32>>) {
        if lost == part.end.wrapping_sub(part.start) {
            self.free_range(cx, part);
        } else if lost != 0 {
            self.free_unreferenced(cx, part, refs);
        }
        self.free_missed_chunks(cx);
    }
    /// Slots that were on their way out are empty.
    fn no_longer_leaving(&self, cx: &Cx) {
        if mutated(Mutation::LeavingOverEarly) {
            return;
        }
        self.leaving.fetch_sub(1, Ordering::SeqCst);
        self.layer().db().waits().wake_all(self.leaving_key());
        if self.promised.has(Promised::KEPT) {
            let mut grow = self.grow.lock(cx);
            if self.refs() == 1 {
                self.forget_refs(&mut grow);
            }
        }
    }
    /// Where threads wait for parts to be empty.
    pub(super) fn leaving_key(&self) -> u64 {
        1 << 51 | u64::from(self.id)
    }
    /// One segment is left, and it covers every slot that will stay occupied (M2): it may grow like any other. But while somebody empties slots that
    /// nobody covers (M3), the references are what he goes by, and stay until he is through.
    pub(super) fn forget_refs(&self, grow: &mut SlotRefs) -> SlotRefs {
        // Said before it is looked: either he is not through yet, or he sees it when he is.
        self.promised.set(Promised::KEPT);
        if self.leaving.load(Ordering::SeqCst) != 0 && !mutated(Mutation::RefsForgottenEarly) {
            return None;
        }
        self.promised.clear(Promised::KEPT);
        grow.take()
    }
    /// Empties the slots of `part` that no segment covers: as `refs` says, or as the map's own references say, looked at run by run. What another segment gives up meanwhile may be met here too, and is emptied twice: nobody takes it over before both are through (M3).
    fn free_unreferenced(&self, cx: &Cx, part: Range<u64>, refs: Option<&Runs<u32>>) {
        let mut rest = part;
        while !rest.is_empty() {
            let first = match refs {
                Some(refs) => Some(refs.first_of(rest.clone())),
                None => self.grow.lock(cx).as_ref().map(|refs| refs.first_of(rest.clone())),
            };
            let (run, n) = first.unwrap_or_else(|| (rest.clone(), 0));
            rest.start = run.end;
            if n == 0 {
                self.free_range(cx, run);
            }
        }
    }
}
