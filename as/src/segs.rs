//! The segments of an address space, in order of base.
//!
//! The tree ([`crate::avl`]) knows intervals and holes, and names each interval by a small id; the drivers stand in an array
//! beside it, under the same ids. A walk of the tree touches no driver, and an id outlives every edit but the removal of its own.
//!
//! ```text
//!   hint of this CPU ──covers?──▶ id, range          id ──▶ tree: start, end, gap     (what searches read)
//!   tree walk, O(log n) ────────▶ id, range             └─▶ ops[id]: dyn SegOps
//! ```
//!
//! A segment is the two together: its range is in the tree and nowhere else, and whoever asks for the range alone reads nothing but the
//! nodes of the way to it.
//!
//! The textbook's `a_seglast` is one field that every lookup writes. Here each CPU remembers its own last answer; the
//! memory may be as old as it likes, because it is compared with the interval before it is believed.
//!
//! - V01: ranges are disjoint, in order, inside the limits; every lookup equals a linear scan; the tree is balanced (A1..A10).
//! - G4: an interval of the tree has a driver, a slot without an interval has none.
//!
//! Sources: [SI §9.4]; illumos.md 3.3.

use crate::avl::{Avl, Gap, GapQuery, InsertError, NodeId, Place, Visits};
use crate::error::AsError;
use crate::runs::{Runs, run_range, vpns};
use crate::seg::SegOps;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use page_db::heap::NoHeap;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::sync::{PerCpu, prefetch_all};
use page_db::{Counter, Cx, FailKind, VirtAddr, VirtRange};

/// A segment: a range of addresses and the driver that gives it meaning.
#[doc(alias = "struct seg")]
#[derive(Clone, Copy, Debug)]
pub struct Seg<'a> {
    range: VirtRange,
    ops: &'a dyn SegOps,
}

impl<'a> Seg<'a> {
    /// The range.
    pub fn range(self) -> VirtRange {
        self.range
    }
    /// First address.
    #[doc(alias = "s_base")]
    pub fn base(self) -> VirtAddr {
        self.range.start()
    }
    /// Bytes.
    #[doc(alias("s_size", "seg_pages"))]
    pub fn size(self) -> u64 {
        self.range.len()
    }
    /// First byte past the segment.
    pub fn end(self) -> u64 {
        self.range.end()
    }
    /// The driver.
    #[doc(alias("s_ops", "s_data"))]
    pub fn ops(self) -> &'a dyn SegOps {
        self.ops
    }
    /// The driver's textbook name.
    pub fn driver(self) -> &'static str {
        self.ops.driver()
    }
}

/// What a mapping is known by that is to be locked in memory, until it is: no two of an address space have had the same
/// ([`AddrSpace::new_mark`](crate::AddrSpace::new_mark)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark(pub(crate) u64);

/// A segment that is in no tree any more.
#[derive(Debug)]
pub(crate) struct Removed {
    pub(crate) range: VirtRange,
    pub(crate) ops: Box<dyn SegOps>,
}

/// The segments of one address space. Each processor remembers the one it found last, where illumos has one `a_seglast` for all.
#[doc(alias = "a_seglast")]
pub struct Segs {
    tree: Avl,
    ops: Vec<Option<Box<dyn SegOps>>>,
    /// What each CPU found last (`a_seglast`, unshared); compared before it is believed.
    hints: PerCpu<AtomicU32>,
    /// Pages that a child of fork does not get, by virtual page number (G7).
    pub(crate) left_out: Runs<bool>,
    /// Mappings that are gone again if they cannot be locked, by virtual page number: whose they are ([`crate::ops::map`]). 0: nobody's.
    newcomers: Runs<u64>,
    /// No segment may be added any more: the address space has been freed.
    closed: bool,
}

impl Segs {
    pub(crate) fn new(limits: VirtRange, cpus: u16) -> Result<Self, NoHeap> {
        Ok(Self {
            tree: Avl::new(limits.start().get(), limits.end()),
            ops: Vec::new(),
            hints: PerCpu::try_new(cpus, |_| Ok(AtomicU32::new(u32::MAX)))?,
            left_out: Runs::new(false),
            newcomers: Runs::new(0),
            closed: false,
        })
    }
    /// How many segments there are.
    pub fn len(&self) -> usize {
        self.tree.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }
    /// The tree, for views.
    #[doc(alias = "a_segtree")]
    pub fn tree(&self) -> &Avl {
        &self.tree
    }
    /// The segment named `id`.
    ///
    /// # Panics
    /// When `id` names no segment now: ids come from this address space, under the lock they are used under (G4).
    #[inline]
    pub fn get(&self, id: NodeId) -> Seg<'_> {
        Seg { range: self.range(id), ops: self.ops_of(id) }
    }
    pub(crate) fn range(&self, id: NodeId) -> VirtRange {
        range_of(self.tree.start(id), self.tree.end(id))
    }
    #[inline]
    fn ops_of(&self, id: NodeId) -> &dyn SegOps {
        self.ops[id.index()].as_deref().expect("G4: an interval of the tree has a driver")
    }
    /// Starts to fetch the driver of `id`, all of it: a driver is longer than a line, and one that locks itself first asks for the second line only when the first is there.
    #[inline]
    pub(crate) fn fetch_driver(&self, id: NodeId) {
        if let Some(Some(ops)) = self.ops.get(id.index()) {
            prefetch_all(&**ops);
        }
    }
    /// The same for a driver that is about to leave the tree, and for its neighbours' records there.
    pub(crate) fn fetch_for_removal(&self, id: NodeId) {
        self.fetch_driver(id);
        self.tree.fetch_neighbours(id);
    }
    /// Finds the id and the range of the segment that holds `addr`: by this CPU's hint, else by the tree.
    #[inline]
    pub(crate) fn find(&self, cx: &Cx, addr: u64) -> Option<(NodeId, VirtRange)> {
        let hint = self.hints.mine(cx);
        let last = NodeId::from_raw(hint.load(Ordering::Relaxed));
        if let Some((start, end)) = self.tree.interval_around(last, addr) {
            cx.count(Counter::TreeNodes);
            return Some((last, range_of(start, end)));
        }
        self.find_in_tree(cx, addr, hint)
    }
    #[inline(never)]
    fn find_in_tree(&self, cx: &Cx, addr: u64, hint: &AtomicU32) -> Option<(NodeId, VirtRange)> {
        let mut visits = Visits::default();
        let found = self.tree.find_interval(addr, &mut visits);
        cx.count_n(Counter::TreeNodes, visits.0);
        let (id, start, end) = found?;
        hint.store(id.to_raw(), Ordering::Relaxed);
        self.tree.fetch_end(id);
        Some((id, range_of(start, end)))
    }
    /// Finds the id of the segment that holds `addr`, else of the next one above.
    pub(crate) fn find_or_next(&self, cx: &Cx, addr: u64) -> Option<NodeId> {
        let mut visits = Visits::default();
        let found = self.tree.find_or_next(addr, &mut visits);
        cx.count_n(Counter::TreeNodes, visits.0);
        found
    }
    /// The range of the segment that holds `addr`; no driver is looked at.
    #[inline]
    pub fn range_at(&self, cx: &Cx, addr: VirtAddr) -> Option<VirtRange> {
        self.find(cx, addr.get()).map(|(_, range)| range)
    }
    /// The segment that holds `addr`.
    #[inline]
    #[doc(alias = "as_segat")]
    pub fn seg_at(&self, cx: &Cx, addr: VirtAddr) -> Option<Seg<'_>> {
        let (id, range) = self.find(cx, addr.get())?;
        Some(Seg { range, ops: self.ops_of(id) })
    }
    /// The segment that holds `addr`, else the next one above it.
    #[doc(alias = "as_findseg")]
    pub fn seg_at_or_above(&self, cx: &Cx, addr: VirtAddr) -> Option<Seg<'_>> {
        self.find_or_next(cx, addr.get()).map(|id| self.get(id))
    }
    /// The highest segment (`as_findseg` with `tail`).
    pub fn last(&self) -> Option<Seg<'_>> {
        self.tree.last().map(|id| self.get(id))
    }
    /// All segments, in order of address.
    #[doc(alias("AS_SEGFIRST", "AS_SEGNEXT"))]
    pub fn iter(&self) -> impl Iterator<Item = Seg<'_>> {
        self.tree.iter().map(|id| self.get(id))
    }
    pub(crate) fn next_id(&self, id: NodeId) -> Option<NodeId> {
        self.tree.next(id)
    }
    /// Cuts `range` at segment borders, upwards. Yields the first address without a segment, if there is one, as its last item.
    pub fn pieces(&self, cx: &Cx, range: VirtRange) -> Pieces<'_> {
        let first = self.find(cx, range.start().get());
        Pieces { segs: self, next: first, rest: Some(range) }
    }
    /// The lowest segment in the way of one at `range`, if there is any.
    pub fn in_the_way(&self, cx: &Cx, range: VirtRange) -> Option<VirtRange> {
        let first = self.find_or_next(cx, range.start().get())?;
        Some(self.range(first)).filter(|seg| seg.start().get() < range.end())
    }
    /// Finds the place of a segment at `range`, which must be free.
    ///
    /// # Errors
    /// The lowest segment in the way.
    #[inline]
    pub(crate) fn locate(&self, cx: &Cx, range: VirtRange) -> Result<Place, VirtRange> {
        let mut visits = Visits::default();
        let found = self.tree.locate(range.start().get(), range.end(), &mut visits);
        cx.count_n(Counter::TreeNodes, visits.0);
        found.map_err(|error| match error {
            InsertError::Overlap { with } => self.range(with),
            error => panic!("G2: {range} lies inside the limits: {error}"),
        })
    }
    /// The segments that end where the place begins, and begin where it ends.
    pub(crate) fn touching(&self, place: &Place) -> (Option<NodeId>, Option<NodeId>) {
        self.tree.touching(place)
    }
    pub(crate) fn find_gap(&self, cx: &Cx, query: &GapQuery) -> Option<Gap> {
        let mut visits = Visits::default();
        let gap = self.tree.find_gap(query, &mut visits);
        cx.count_n(Counter::TreeNodes, visits.0);
        gap
    }

    /// Makes room for `n` more segments, so that adding them cannot fail.
    ///
    /// # Errors
    /// [`AsError::NoHeap`]; nothing has changed.
    pub(crate) fn reserve(&mut self, cx: &Cx, n: usize) -> Result<(), AsError> {
        let refused = AsError::NoHeap { what: "segment" };
        if cx.fails(FailKind::Node) {
            return Err(refused);
        }
        self.tree.reserve(n).map_err(|_| refused)?;
        self.ops
            .try_reserve((self.tree.len() + n).saturating_sub(self.ops.len()))
            .map_err(|_| refused)
    }
    /// Adds a segment at a free range. Room was reserved under the same writer lock.
    pub(crate) fn insert(&mut self, range: VirtRange, ops: Box<dyn SegOps>) -> NodeId {
        let place = self.tree.locate(range.start().get(), range.end(), &mut Visits::default());
        self.insert_at(&place.expect("G2: the range is free and inside the limits"), ops)
    }
    /// Adds a segment at its place. Room was reserved under the same writer lock.
    #[doc(alias = "as_addseg")]
    pub(crate) fn insert_at(&mut self, place: &Place, ops: Box<dyn SegOps>) -> NodeId {
        let id = self.tree.insert_at(place).expect("G2: room was reserved");
        match self.ops.get_mut(id.index()) {
            Some(slot) => *slot = Some(ops),
            None => {
                debug_assert_eq!(self.ops.len(), id.index(), "G4: ids are dense");
                self.ops.push(Some(ops));
            }
        }
        id
    }
    /// Takes a segment out. The caller frees and drops it, after the lock if it can.
    #[doc(alias = "as_removeseg")]
    pub(crate) fn remove(&mut self, id: NodeId) -> Removed {
        let (start, end) = self.tree.remove(id).expect("G4: the segment is in the tree");
        let ops = self.ops[id.index()].take().expect("G4: an interval of the tree has a driver");
        Removed { range: range_of(start, end), ops }
    }
    /// Moves the borders of a segment; the way is free.
    pub(crate) fn resize(&mut self, id: NodeId, range: VirtRange) {
        let old = self.range(id);
        if old.start() != range.start() {
            self.tree.set_start(id, range.start().get()).expect("G2: the way down is free");
        }
        if old.end() != range.end() {
            self.tree.set_end(id, range.end()).expect("G2: the way up is free");
        }
    }
    /// Puts another driver in a segment's place and returns the old one.
    pub(crate) fn replace_ops(&mut self, id: NodeId, ops: Box<dyn SegOps>) -> Box<dyn SegOps> {
        self.ops[id.index()].replace(ops).expect("G4: an interval of the tree has a driver")
    }
    /// A segment's driver, to change what it is made of.
    pub(crate) fn ops_mut(&mut self, id: NodeId) -> &mut dyn SegOps {
        &mut **self.ops[id.index()].as_mut().expect("G4: an interval of the tree has a driver")
    }
    /// The runs of `range` that a child of fork does not get, in order.
    pub fn left_out(&self, range: VirtRange) -> impl Iterator<Item = VirtRange> {
        let runs = self.left_out.iter(vpns(range)).filter(|(_, on)| *on);
        runs.map(move |(run, _)| run_range(range, &run))
    }
    /// Makes room, so that [`Segs::forget`] and changes of what is left out of `range` cannot fail.
    pub(crate) fn make_room(&mut self, range: VirtRange) -> Result<(), AsError> {
        self.left_out.make_room(vpns(range)).map_err(no_notes)?;
        self.newcomers.make_room(vpns(range)).map_err(no_notes)
    }
    /// Makes room for [`Segs::mark`] and [`Segs::unmark_all`].
    pub(crate) fn make_room_to_mark(&mut self, range: VirtRange) -> Result<(), AsError> {
        self.newcomers.make_room(vpns(range)).map_err(no_notes)
    }
    /// Takes every mark in `range` away, for what lies there goes: for good, or to another place, where whoever has mapped it does not look for it.
    pub(crate) fn unmark_all(&mut self, range: VirtRange) {
        if !self.newcomers.is_plain() {
            self.newcomers.set(vpns(range), 0);
            self.newcomers.trim();
        }
    }
    /// Marks what has just been mapped at `range`.
    pub(crate) fn mark(&mut self, range: VirtRange, mark: Mark) {
        self.newcomers.set(vpns(range), mark.0);
        self.newcomers.trim();
    }
    /// The first run of `range` from `addr` on that has `mark` still.
    pub(crate) fn marked(&self, range: VirtRange, addr: u64, mark: Mark) -> Option<VirtRange> {
        let rest = range.from(addr)?;
        let mut runs = self.newcomers.iter(vpns(rest));
        runs.find(|(_, of)| *of == mark.0).map(|(run, _)| run_range(rest, &run))
    }
    /// Takes the mark away wherever it is in `range`. Where the heap has no room for that it stays, which means nothing when its owner has forgotten it.
    pub(crate) fn unmark(&mut self, range: VirtRange, mark: Mark) {
        while let Some(run) = self.marked(range, range.start().get(), mark) {
            if self.newcomers.make_room(vpns(run)).is_err() {
                return;
            }
            self.newcomers.set(vpns(run), 0);
        }
        self.newcomers.trim();
    }
    /// Notes whether `range` is left out of a child.
    pub(crate) fn set_left_out(&mut self, range: VirtRange, on: bool) -> Result<(), AsError> {
        self.make_room(range)?;
        self.left_out.set(vpns(range), on);
        self.left_out.trim();
        Ok(())
    }
    /// What is left out of `from`, as if it lay at `to`.
    pub(crate) fn left_out_at(
        &self,
        from: VirtRange,
        to: VirtRange,
    ) -> Result<Runs<bool>, AsError> {
        let mut left_out = self.left_out.part(vpns(from)).map_err(no_notes)?;
        left_out.shift(from.start().vpn(), to.start().vpn());
        Ok(left_out)
    }
    /// Makes room for [`Segs::note_left_out`].
    pub(crate) fn make_room_for(
        &mut self,
        coming: &Runs<bool>,
        going: Option<VirtRange>,
    ) -> Result<(), AsError> {
        self.left_out.make_room_for(coming, going.map_or(0..0, vpns)).map_err(no_notes)
    }
    /// What is `coming` lies where nothing did, and is left out of a child too; `going` is not mapped there any more.
    pub(crate) fn note_left_out(&mut self, coming: &Runs<bool>, going: Option<VirtRange>) {
        self.left_out.absorb(coming);
        if let Some(going) = going {
            self.left_out.set(vpns(going), false);
        }
        self.left_out.trim();
    }
    /// `range` is not mapped any more: nothing is known of its pages (G7).
    pub(crate) fn forget(&mut self, range: VirtRange) {
        if !self.left_out.is_plain() {
            self.left_out.set(vpns(range), false);
            self.left_out.trim();
        }
        self.unmark_all(range);
    }
    /// No child is made any more, and nothing is locked: to forget piece by piece may want heap.
    pub(crate) fn forget_all(&mut self) {
        self.left_out = Runs::new(false);
        self.newcomers = Runs::new(0);
    }
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
    /// The tree itself, for tests that break it.
    pub(crate) fn tree_for_test(&mut self) -> &mut Avl {
        &mut self.tree
    }
    /// Takes the driver from the first segment; says whether there is one.
    pub(crate) fn lose_driver_for_test(&mut self) -> bool {
        self.ops.iter_mut().find_map(Option::take).is_some()
    }

    /// Checks the tree, the array beside it, and every lookup against a linear scan.
    ///
    /// # Errors
    /// The first invariant broken, and how.
    pub fn verify(&self) -> Result<(), (&'static str, String)> {
        self.tree.verify().map_err(|damage| ("V01", damage.to_string()))?;
        let filled = self.ops.iter().flatten().count();
        if filled != self.tree.len() {
            return Err(("G4", format!("{filled} drivers for {} intervals", self.tree.len())));
        }
        let (low, high) = self.tree.limits();
        let mut floor = low;
        for id in &self.tree {
            let interval = (self.tree.start(id), self.tree.end(id));
            if self.ops.get(id.index()).is_none_or(Option::is_none) {
                return Err(("G4", format!("interval {id} has no driver")));
            }
            self.verify_lookups(id, floor, interval)?;
            floor = interval.1;
        }
        let mut left_out = self.left_out.held();
        let within = |run: &core::ops::Range<u64>| {
            let (start, end) = (run.start * page_db::PAGE_SIZE, run.end * page_db::PAGE_SIZE);
            let mut gaps = self.tree.find_interval(start, &mut Visits::default());
            while let Some((id, _, last)) = gaps.filter(|(_, _, last)| *last < end) {
                let next = self.tree.next(id).filter(|next| self.tree.start(*next) == last);
                gaps = next.map(|next| (next, last, self.tree.end(next)));
            }
            gaps.is_some()
        };
        if let Some(run) = left_out.find(|run| !within(run)) {
            return Err(("G7", format!("pages {run:x?} are left out of a child and not mapped")));
        }
        if floor < high && self.tree.find_or_next(floor, &mut Visits::default()).is_some() {
            return Err((
                "V01",
                format!("a lookup above the last segment, at {floor:#x}, finds one"),
            ));
        }
        Ok(())
    }
    /// Asks for both ends of the interval, and of the hole below it.
    fn verify_lookups(
        &self,
        id: NodeId,
        floor: u64,
        (start, end): (u64, u64),
    ) -> Result<(), (&'static str, String)> {
        let mut v = Visits::default();
        let mut asks = Vec::from([(start, Some(id), Some(id)), (end - 1, Some(id), Some(id))]);
        if floor < start {
            asks.extend([(floor, None, Some(id)), (start - 1, None, Some(id))]);
        }
        for (addr, at, at_or_above) in asks {
            let found = (self.tree.find(addr, &mut v), self.tree.find_or_next(addr, &mut v));
            let interval = self.tree.find_interval(addr, &mut v);
            if found != (at, at_or_above) || interval != at.map(|id| (id, start, end)) {
                let what = format!(
                    "lookups of {addr:#x} answer {found:?}, a scan {at:?}, {at_or_above:?}"
                );
                return Err(("V01", what));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Segs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The parts of a range that lie in segments, in order; see [`Segs::pieces`].
#[derive(Debug)]
pub struct Pieces<'a> {
    segs: &'a Segs,
    /// The segment that must hold the start of `rest`, and its range.
    next: Option<(NodeId, VirtRange)>,
    rest: Option<VirtRange>,
}

/// Where a walk met no segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// First address without one.
    pub addr: VirtAddr,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<(Seg<'a>, VirtRange), Hole>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let Some((id, range)) = self.next.filter(|(_, range)| range.contains(rest.start())) else {
            return Some(Err(Hole { addr: rest.start() }));
        };
        self.segs.fetch_driver(id);
        let piece = rest.until(range.end().min(rest.end())).expect("U2: the piece holds its start");
        self.rest = rest.from(piece.end());
        if self.rest.is_some() {
            self.next = self.segs.next_id(id).map(|id| (id, self.segs.range(id)));
        }
        Some(Ok((Seg { range, ops: self.segs.ops_of(id) }, piece)))
    }
}

fn no_notes(_: NoHeap) -> AsError {
    AsError::NoHeap { what: "range that is not forked" }
}

/// An interval of the tree as a range.
#[inline]
fn range_of(start: u64, end: u64) -> VirtRange {
    VirtRange::exact(start, end - start).expect("U2: what came into the tree was a range")
}

impl From<Hole> for AsError {
    fn from(hole: Hole) -> Self {
        Self::Unmapped { addr: hole.addr }
    }
}
