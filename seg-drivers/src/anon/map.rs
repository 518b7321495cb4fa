//! Anon maps: a sparse array of slots that segments share.
//!
//! # References
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
//! - M3: slots that nobody covers any more are emptied after the lock is gone (that of the map, and if a segment lives on without them that of the address
//!   space), and by then another segment of the map may want to grow over them; it does not while any part is on its way out.
//! - M4: a chunk that becomes empty is freed at once, unless somebody has the shape's lock. Then the map remembers, and whoever gives up a part next
//!   looks again. As every segment gives up its part in the end, nothing is left of a map without one.
//!
//! # Locks
//!
//! `grow` (rank AnonMap) guards the radix's shape and `slot_refs`; a slot's busy bit (rank AnonSlot) guards the slot. A fault takes only the bit, unless
//! it is the first in a chunk. See [`super::array`] for what a walk without locks may believe.

use super::array::{CHUNK, SharedShape, owner_word};
use super::promised::Promised;
use super::{AnonHome, AnonLayer};
use crate::runs::Runs;
use addr_space::Contents;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use page_db::heap::NoHeap;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::sync::{Mutation, Mutex, mutated};
use page_db::{Cx, Rank};

/// An anon map's number, in order of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct AnonMapId(pub u32);

/// References slot by slot, where segments cover different parts; boxed, because few maps have them.
type SlotRefs = Option<Box<Runs<u32>>>;

/// What [`AnonMap::lose`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// References left; only one caller is told 0.
    pub refs: u32,
    /// Slots that no segment covers any more, occupied or not.
    pub slots: u64,
}

/// The map.
#[doc(alias("struct anon_map", "amp", "vm_amap"))]
pub struct AnonMap {
    home: Arc<AnonHome>,
    pub(super) id: u32,
    /// Where the home's list has it.
    place: u32,
    refs: AtomicU32,
    /// Pages pinned through shared segments; see [`AnonMap::pins`].
    pins: AtomicU32,
    /// Parts that somebody has given up and not yet emptied; grows under `grow`.
    leaving: AtomicU32,
    pub(super) promised: Promised,
    /// Slots of the object it was made for, from slot 0 on, as many as there are numbers for; 0 for the pages of one mapping; see `object`.
    pub(super) size: u32,
    pub(super) shape: SharedShape,
    pub(super) grow: Mutex<SlotRefs>,
}

impl fmt::Debug for AnonMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnonMap")
            .field("id", &self.id)
            .field("refs", &self.refs())
            .finish_non_exhaustive()
    }
}

impl Drop for AnonMap {
    fn drop(&mut self) {
        self.home.forget(self.place);
    }
}

impl Contents for AnonMap {
    fn empty(&self, cx: &Cx, part: Range<u64>, lost: u64, promised: u64) {
        self.empty_lost(cx, part, lost);
        self.layer().swap().unreserve(promised);
    }
    fn wait_emptied(&self, cx: &Cx) {
        let leaving = || self.leaving.load(Ordering::SeqCst) != 0;
        self.layer().db().waits().wait_while(cx, self.leaving_key(), leaving);
    }
}

impl AnonMap {
    /// An empty map with one reference, which has `swresv` bytes of swap reserved: those of an object that has as many pages, or of none.
    #[doc(alias = "anonmap_alloc")]
    pub fn new(home: &Arc<AnonHome>, swresv: u64) -> Arc<Self> {
        Self::of(home, swresv, swresv / page_db::PAGE_SIZE, false)
    }
    /// The same for a loan, whose one reference is that of the loan; it is no object ([`AnonMap::is_loan`]).
    pub(crate) fn for_loan(home: &Arc<AnonHome>, swresv: u64) -> Arc<Self> {
        Self::of(home, swresv, 0, true)
    }
    fn of(home: &Arc<AnonHome>, swresv: u64, size: u64, loan: bool) -> Arc<Self> {
        home.list(|id, place| {
            Arc::new(Self {
                home: Arc::clone(home),
                id,
                place,
                refs: AtomicU32::new(1),
                pins: AtomicU32::new(0),
                leaving: AtomicU32::new(0),
                promised: Promised::new(swresv, if loan { Promised::LOAN } else { 0 }),
                size: u32::try_from(size).unwrap_or(u32::MAX),
                shape: SharedShape::default(),
                grow: Mutex::new(Rank::AnonMap, None),
            })
        })
    }
    #[inline]
    pub(crate) fn layer(&self) -> &AnonLayer {
        self.home.layer()
    }
    /// The number.
    pub fn id(&self) -> AnonMapId {
        AnonMapId(self.id)
    }
    /// Segments that use the map.
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Acquire)
    }
    /// What is bumped whenever a chunk comes to be; see [`addr_space::Stamp::and`].
    #[inline]
    pub(crate) fn chunks_made(&self) -> &AtomicU32 {
        &self.shape.chunks
    }
    /// Pages that are pinned for i/o through shared segments, whichever and whosever: what one process has pinned another must not wait for.
    #[doc(alias = "a_softlockcnt")]
    pub fn pins(&self) -> u32 {
        self.pins.load(Ordering::Acquire)
    }
    /// A shared segment is about to pin `pages`; says whether there is room in the count.
    pub(crate) fn pin(&self, pages: u32) -> bool {
        let more = |pins: u32| pins.checked_add(pages);
        self.pins.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
    /// It has let go of them.
    pub(crate) fn unpin(&self, pages: u32) {
        self.pins.fetch_sub(pages, Ordering::AcqRel);
    }
    /// Bytes of swap reserved by the map itself.
    pub fn swresv(&self) -> u64 {
        self.promised.bytes()
    }
    /// Takes up to `bytes` from what the map has reserved, and says how many there were.
    pub(crate) fn take_swresv(&self, bytes: u64) -> u64 {
        self.promised.take(bytes)
    }

    // ---- references ----

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
    /// Whether private segments share the map for good, so that whoever replaces a slot replaces it for all of them. Once it is set it stays until
    /// one segment is left.
    #[doc(alias = "AMAP_SHARED")]
    #[inline]
    pub fn is_joint(&self) -> bool {
        self.promised.has(Promised::JOINT)
    }
    /// Whether one reference is that of a loan ([`crate::seg_vn::LentAnons`]), which covers the slots as a segment would.
    pub fn is_loan(&self) -> bool {
        self.promised.has(Promised::LOAN)
    }
    /// The reference that the caller has is a loan's no more.
    pub(crate) fn end_loan(&self) {
        self.promised.clear(Promised::LOAN);
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
    /// bytes are left to the caller. `None`, and nothing has changed, while a part is on its way out (M3): waited for by [`Contents::wait_emptied`].
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
    fn establish<'a>(&self, grow: &'a mut SlotRefs, coverage: Range<u64>) -> &'a mut Runs<u32> {
        let refs = self.refs();
        grow.get_or_insert_with(|| Box::new(Runs::of(0, coverage, refs)))
    }
    /// A segment that covers `coverage` gives up `part` of it (all of it: the segment goes). Slots nobody covers any more are freed.
    /// Translations are gone by now.
    #[doc(alias("amap_unref", "anon_free"))]
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
        let left = if whole { self.refs.fetch_sub(1, Ordering::AcqRel) - 1 } else { refs };
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
    fn leaving_key(&self) -> u64 {
        1 << 51 | u64::from(self.id)
    }
    /// One segment is left, and it covers every slot that will stay occupied (M2): it may grow like any other. But while somebody empties slots that
    /// nobody covers (M3), the references are what he goes by, and stay until he is through.
    fn forget_refs(&self, grow: &mut SlotRefs) -> SlotRefs {
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
    /// Checks M1 and the radix's own books; the text names what is broken.
    ///
    /// # Errors
    /// The first thing found broken.
    pub fn verify(&self, cx: &Cx) -> Result<(), alloc::string::String> {
        let chunks = self.chunks(cx);
        for (base, used) in chunks {
            let owner = self.find_chunk(base).and_then(|id| self.chunk(id));
            if owner.is_none_or(|c| c.owner.load(Ordering::Acquire) != owner_word(self.id, base)) {
                return Err(alloc::format!(
                    "H1: the chunk at {base} of map {} does not say so",
                    self.id
                ));
            }
            for (i, n) in self.slots(cx, base..base + CHUNK) {
                if self.layer().anons.refs(n) == 0 {
                    return Err(alloc::format!(
                        "I1: anon {n} in slot {i} of map {} has no references",
                        self.id
                    ));
                }
                let pp = self.slot_refs(cx, i..i + 1);
                let refs = pp.first().map_or(0, |(_, n)| *n);
                if refs == 0 || refs > self.refs() {
                    return Err(alloc::format!(
                        "I6: slot {i} of map {} has {refs} references of {}",
                        self.id,
                        self.refs()
                    ));
                }
            }
            let held =
                self.slots(cx, base..base + CHUNK).fold(0u32, |m, (i, _)| m | 1 << (i % CHUNK));
            if held != used {
                return Err(alloc::format!(
                    "anon map {}: chunk at {base} marks {used:#x}, holds {held:#x}",
                    self.id
                ));
            }
        }
        Ok(())
    }
    /// Plants a wrong number of references on the whole map (tests of `verify`).
    #[doc(hidden)]
    pub fn damage_slot_refs(&self, cx: &Cx, range: Range<u64>, refs: u32) {
        let mut grow = self.grow.lock(cx);
        self.establish(&mut grow, range.clone()).set(range, refs);
    }
}
