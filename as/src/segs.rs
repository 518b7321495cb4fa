//! The segments of an address space, in order of base.
//!
//! The tree ([`crate::avl`]) knows intervals and holes, and names each interval by a small id; the segments stand in an array
//! beside it, under the same ids. A walk of the tree touches no segment, and an id outlives every edit but the removal of its own.
//!
//! ```text
//!   hint of this CPU ──covers?──▶ id          id ──▶ tree: start, end, gap      (what searches read)
//!   tree walk, O(log n) ────────▶ id             └─▶ segs[id]: range, dyn SegOps
//! ```
//!
//! The textbook's `a_seglast` is one field that every lookup writes. Here each CPU remembers its own last answer; the
//! memory may be as old as it likes, because it is compared with the interval before it is believed.
//!
//! - V01: ranges are disjoint, in order, inside the limits; every lookup equals a linear scan; the tree is balanced (A1..A10).
//! - G4: the range kept beside the driver is the tree's interval of that id; slots without an interval are empty.
//!
//! Sources: [SI §9.4]; illumos.md 3.3.

use crate::avl::{Avl, Gap, GapQuery, NodeId, Visits};
use crate::error::AsError;
use crate::seg::SegOps;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::PerCpu;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::{Counter, Cx, VirtAddr, VirtRange};

/// A segment: a range of addresses and the driver that gives it meaning.
#[doc(alias = "struct seg")]
#[derive(Debug)]
pub struct Seg {
    range: VirtRange,
    ops: Box<dyn SegOps>,
}

impl Seg {
    pub(crate) fn new(range: VirtRange, ops: Box<dyn SegOps>) -> Self {
        Self { range, ops }
    }
    /// The range.
    pub fn range(&self) -> VirtRange {
        self.range
    }
    /// First address.
    #[doc(alias = "s_base")]
    pub fn base(&self) -> VirtAddr {
        self.range.start()
    }
    /// Bytes.
    #[doc(alias = "s_size")]
    pub fn size(&self) -> u64 {
        self.range.len()
    }
    /// First byte past the segment.
    pub fn end(&self) -> u64 {
        self.range.end()
    }
    /// The driver.
    #[doc(alias("s_ops", "s_data"))]
    pub fn ops(&self) -> &dyn SegOps {
        &*self.ops
    }
    pub(crate) fn into_ops(self) -> Box<dyn SegOps> {
        self.ops
    }
    /// The driver's textbook name.
    pub fn driver(&self) -> &'static str {
        self.ops.driver()
    }
}

/// The segments of one address space.
pub struct Segs {
    tree: Avl,
    segs: Vec<Option<Seg>>,
    /// What each CPU found last (`a_seglast`, unshared); compared before it is believed.
    hints: PerCpu<AtomicU32>,
    /// No segment may be added any more: the address space has been freed.
    closed: bool,
}

/// The segments that touch a free range from below and from above.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touching {
    pub(crate) prev: Option<NodeId>,
    pub(crate) next: Option<NodeId>,
}

impl Segs {
    pub(crate) fn new(limits: VirtRange, cpus: u16) -> Self {
        Self {
            tree: Avl::new(limits.start().get(), limits.end()),
            segs: Vec::new(),
            hints: PerCpu::new(cpus, |_| AtomicU32::new(u32::MAX)),
            closed: false,
        }
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
    pub fn get(&self, id: NodeId) -> &Seg {
        self.segs[id.index()].as_ref().expect("G4: an interval of the tree has a segment")
    }
    /// Finds the id of the segment that holds `addr`: by this CPU's hint, else by the tree.
    #[inline]
    pub(crate) fn find(&self, cx: &Cx, addr: u64) -> Option<NodeId> {
        let hint = self.hints.mine(cx);
        let last = NodeId::from_raw(hint.load(Ordering::Relaxed));
        if self.tree.covers(last, addr) {
            cx.count(Counter::TreeNodes);
            return Some(last);
        }
        let mut visits = Visits::default();
        let found = self.tree.find(addr, &mut visits);
        cx.count_n(Counter::TreeNodes, visits.0);
        if let Some(id) = found {
            hint.store(id.to_raw(), Ordering::Relaxed);
        }
        found
    }
    /// Finds the id of the segment that holds `addr`, else of the next one above.
    pub(crate) fn find_or_next(&self, cx: &Cx, addr: u64) -> Option<NodeId> {
        let mut visits = Visits::default();
        let found = self.tree.find_or_next(addr, &mut visits);
        cx.count_n(Counter::TreeNodes, visits.0);
        found
    }
    /// The segment that holds `addr`.
    #[doc(alias = "as_segat")]
    pub fn seg_at(&self, cx: &Cx, addr: VirtAddr) -> Option<&Seg> {
        self.find(cx, addr.get()).map(|id| self.get(id))
    }
    /// The segment that holds `addr`, else the next one above it.
    #[doc(alias = "as_findseg")]
    pub fn seg_at_or_above(&self, cx: &Cx, addr: VirtAddr) -> Option<&Seg> {
        self.find_or_next(cx, addr.get()).map(|id| self.get(id))
    }
    /// The highest segment (`as_findseg` with `tail`).
    pub fn last(&self) -> Option<&Seg> {
        self.tree.last().map(|id| self.get(id))
    }
    /// All segments, in order of address.
    #[doc(alias("AS_SEGFIRST", "AS_SEGNEXT"))]
    pub fn iter(&self) -> impl Iterator<Item = &Seg> {
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
    /// Says which segments touch `range`, which must be free.
    ///
    /// # Errors
    /// The lowest segment in the way.
    pub(crate) fn touching(&self, cx: &Cx, range: VirtRange) -> Result<Touching, VirtRange> {
        let above = self.find_or_next(cx, range.start().get());
        if let Some(id) = above
            && self.tree.start(id) < range.end()
        {
            return Err(self.get(id).range);
        }
        let below = above.map_or_else(|| self.tree.last(), |id| self.tree.prev(id));
        Ok(Touching {
            prev: below.filter(|id| self.tree.end(*id) == range.start().get()),
            next: above.filter(|id| self.tree.start(*id) == range.end()),
        })
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
    pub(crate) fn reserve(&mut self, n: usize) -> Result<(), AsError> {
        let refused = AsError::NoHeap { what: "segment" };
        self.tree.reserve(n).map_err(|_| refused)?;
        self.segs.try_reserve(n).map_err(|_| refused)
    }
    /// Adds a segment. Room was reserved and the range found free under the same writer lock.
    #[doc(alias = "as_addseg")]
    pub(crate) fn insert(&mut self, range: VirtRange, ops: Box<dyn SegOps>) -> NodeId {
        let id = self
            .tree
            .insert(range.start().get(), range.end())
            .expect("G2: the range is free, inside the limits, and room was reserved");
        let seg = Some(Seg::new(range, ops));
        match self.segs.get_mut(id.index()) {
            Some(slot) => *slot = seg,
            None => {
                debug_assert_eq!(self.segs.len(), id.index(), "G4: ids are dense");
                self.segs.push(seg);
            }
        }
        id
    }
    /// Takes a segment out. The caller drops it, after the lock if it can.
    #[doc(alias = "as_removeseg")]
    pub(crate) fn remove(&mut self, id: NodeId) -> Seg {
        self.tree.remove(id).expect("G4: the segment is in the tree");
        self.segs[id.index()].take().expect("G4: an interval of the tree has a segment")
    }
    /// Moves the borders of a segment; the way is free.
    pub(crate) fn resize(&mut self, id: NodeId, range: VirtRange) {
        let seg =
            self.segs[id.index()].as_mut().expect("G4: an interval of the tree has a segment");
        let old = core::mem::replace(&mut seg.range, range);
        if old.start() != range.start() {
            self.tree.set_start(id, range.start().get()).expect("G2: the way down is free");
        }
        if old.end() != range.end() {
            self.tree.set_end(id, range.end()).expect("G2: the way up is free");
        }
    }
    /// Puts another driver in a segment's place and returns the old one.
    pub(crate) fn replace_ops(&mut self, id: NodeId, ops: Box<dyn SegOps>) -> Box<dyn SegOps> {
        let seg =
            self.segs[id.index()].as_mut().expect("G4: an interval of the tree has a segment");
        core::mem::replace(&mut seg.ops, ops)
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
    /// Gives the first segment a range that is not its interval's; says whether there is one.
    pub(crate) fn misplace_for_test(&mut self) -> bool {
        let seg = self.segs.iter_mut().flatten().next();
        seg.map(|seg| seg.range = VirtRange::page_of(VirtAddr::default())).is_some()
    }

    /// Checks the tree, the array beside it, and every lookup against a linear scan.
    ///
    /// # Errors
    /// The first invariant broken, and how.
    pub fn verify(&self) -> Result<(), (&'static str, String)> {
        self.tree.verify().map_err(|damage| ("V01", damage.to_string()))?;
        let filled = self.segs.iter().flatten().count();
        if filled != self.tree.len() {
            return Err(("G4", format!("{filled} segments for {} intervals", self.tree.len())));
        }
        let (low, high) = self.tree.limits();
        let mut floor = low;
        for id in &self.tree {
            let interval = (self.tree.start(id), self.tree.end(id));
            let Some(seg) = self.segs.get(id.index()).and_then(Option::as_ref) else {
                return Err(("G4", format!("interval {id} has no segment")));
            };
            if (seg.base().get(), seg.end()) != interval {
                let (start, end) = interval;
                return Err(("G4", format!("{} stands at {start:#x}..{end:#x}", seg.range)));
            }
            self.verify_lookups(id, floor, interval)?;
            floor = interval.1;
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
            if found != (at, at_or_above) {
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
    /// The segment that must hold the start of `rest`.
    next: Option<NodeId>,
    rest: Option<VirtRange>,
}

/// Where a walk met no segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// First address without one.
    pub addr: VirtAddr,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<(&'a Seg, VirtRange), Hole>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.take()?;
        let seg = self.next.map(|id| self.segs.get(id)).filter(|s| s.range.contains(rest.start()));
        let Some(seg) = seg else { return Some(Err(Hole { addr: rest.start() })) };
        let piece = rest.until(seg.end().min(rest.end())).expect("U2: the piece holds its start");
        self.rest = rest.from(piece.end());
        if self.rest.is_some() {
            self.next = self.next.and_then(|id| self.segs.next_id(id));
        }
        Some(Ok((seg, piece)))
    }
}

impl From<Hole> for AsError {
    fn from(hole: Hole) -> Self {
        Self::Unmapped { addr: hole.addr }
    }
}
