//! A plain AVL tree of disjoint intervals over an arena; it knows nothing of segments.
//!
//! # The difficulty
//!
//! Every fault asks which segment holds an address, every mapping asks where a hole is, and both
//! must stay cheap at a hundred thousand segments. A walk costs one cache miss per level below
//! those that stay in the cache; so what a walk reads of a node, its key and its links, is a
//! quarter of a line, and nothing else is on it. A list of holes kept beside the tree would have
//! to be kept right by every edit, and would be ordered either by address or by size, while the
//! question ("the lowest hole of this size in that window") needs both.
//!
//! # The picture
//!
//! ```text
//!   low limit                                                                high limit
//!     |<- gap of a ->[== a ==)<- gap of b ->[= b =)[= c =)<- gap of d ->[= d =)<- tail ->|
//!
//!                         b   height 3, largest gap of a, b, c, d
//!                        / \
//!                       a   d   height 2, largest gap of c, d
//!                          /
//!                         c     gap 0: touches b
//! ```
//!
//! Each node owns the hole *below* it, so n intervals make n + 1 holes: one per node, and the
//! tail above the last interval, which belongs to the tree. A node's key and gap give the end of
//! its predecessor (`start - gap`), so a search that ends between two nodes knows where the
//! lower one stops without a look at it: [`Avl::find`] reads the nodes of its way and nothing else.
//!
//! # The rule
//!
//! An edit changes at most two gaps: that of the interval and that of its successor. Whoever
//! changes a gap walks from there to the root and puts the largest gaps and heights right; the
//! walk ends early where a subtree comes out as it was.
//!
//! - An inserted node is a leaf, and its successor is then an ancestor: one walk mends both.
//! - A removed node with two children is replaced by its successor, which is relinked, not
//!   copied, so that ids stay. The walk begins where the successor was taken out.
//! - A removed node with a right child only has a leaf there, its successor, which moves up.
//! - Otherwise the successor is an ancestor again, or there is none and the tail grows.
//!
//! There are no parent links: an edit keeps the path it came down in a fixed array, see
//! `node.rs` for the 45 of its length. What allocates comes before what changes.
//!
//! # Invariants
//!
//! - A1: every link leads into the arena; each interval is reached once from the root, and `len`
//!   counts them.
//! - A2: in symmetric order the intervals ascend, none is empty, no two overlap.
//! - A3: all lie within [low limit, high limit).
//! - A4: a node's height is one more than its higher child's, a missing child counting 0.
//! - A5: the heights of two siblings differ by at most one.
//! - A6: a node's gap is its start less its predecessor's end, or less the low limit.
//! - A7: a node's largest gap is the largest gap in its subtree, rounded down to 64.
//! - A8: the thread (first, next, prev, last) runs through the intervals in symmetric order.
//! - A9: every slot of the arena is in the tree or on the free list, once; free slots are marked.
//! - A10: the tail begins at the end of the last interval, or at the low limit.
//!
//! [`Avl::verify`] checks them in this order and names the first that fails.
//!
//! # The other road
//!
//! A packed B+-like layout finds faster still (0.39x of a pointer AVL against 0.64x), but an
//! interval moves between its nodes, so ids would need a second map, and the figure in the
//! textbook would be of something else.
//!
//! # Units and locks
//!
//! Addresses and sizes are `u64` in whatever unit the caller counts; `segs.rs` uses bytes. An
//! interval is half-open, so the unit at `u64::MAX` itself cannot be in one. The tree has no
//! lock: whoever edits holds it by `&mut`, readers share `&` and write nothing.
//!
//! Sources: [SI §9.4]; Adelson-Velsky and Landis 1962; Knuth, TAOCP 3, §6.2.3.

mod edit;
mod error;
mod gap;
mod node;
mod shape;
#[cfg(test)]
mod tests;
mod verify;

use alloc::vec::Vec;
use core::fmt;
use core::hint::select_unpredictable;
use core::iter::FusedIterator;

use page_db::sync::prefetch_read;

pub use edit::Place;
pub use error::{AllocError, InsertError, ResizeError};
pub use gap::{Gap, GapQuery, Order};
pub use node::{NodeId, Visits};
pub use shape::ShapeNode;
pub use verify::{Damage, Invariant};

use node::{Cold, Key, LEFT, NIL, RIGHT, Room};

/// Disjoint, non-empty, half-open intervals of `u64` between two limits, in an AVL tree that also
/// knows the holes between them.
#[doc(alias = "a_segtree")]
#[doc(alias = "avl_tree_t")]
pub struct Avl {
    keys: Vec<Key>,
    rooms: Vec<Room>,
    cold: Vec<Cold>,
    root: u32,
    first: u32,
    last: u32,
    /// Slots to reuse, last freed first, linked through `Cold::next`.
    free: u32,
    len: u32,
    low: u64,
    high: u64,
    /// Where the tail begins (A10).
    tail: u64,
}

impl Avl {
    /// Makes an empty tree for intervals within `[low_limit, high_limit)`; allocates nothing.
    ///
    /// With `high_limit` below `low_limit` there is no room, and every insert is out of limits.
    #[must_use]
    #[doc(alias = "avl_create")]
    pub const fn new(low_limit: u64, high_limit: u64) -> Self {
        Self {
            keys: Vec::new(),
            rooms: Vec::new(),
            cold: Vec::new(),
            root: NIL,
            first: NIL,
            last: NIL,
            free: NIL,
            len: 0,
            low: low_limit,
            high: if high_limit < low_limit { low_limit } else { high_limit },
            tail: low_limit,
        }
    }

    /// Returns the number of intervals.
    #[must_use]
    #[doc(alias = "avl_numnodes")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Tells whether there is no interval.
    #[must_use]
    #[doc(alias = "avl_is_empty")]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of levels: 0 when empty, at most 1.4405 log2(n + 2), at most 45.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.rooms.get(self.root as usize).map_or(0, Room::height)
    }

    /// Returns the limits `[low, high)` that the tree was made with.
    #[must_use]
    pub const fn limits(&self) -> (u64, u64) {
        (self.low, self.high)
    }

    /// Returns the bytes of heap the arena occupies: 48 per slot, free ones and spares included.
    #[must_use]
    pub const fn heap_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Key>()
            + self.rooms.capacity() * size_of::<Room>()
            + self.cold.capacity() * size_of::<Cold>()
    }

    /// Returns where the interval starts.
    ///
    /// # Panics
    /// If `id` never came from this tree. The answer means nothing once the interval is removed.
    #[must_use]
    #[inline]
    pub fn start(&self, id: NodeId) -> u64 {
        debug_assert!(self.contains_id(id), "A9: {id} is not in the tree");
        self.keys[id.index()].start
    }

    /// Returns where the interval ends: the first address above it.
    ///
    /// # Panics
    /// If `id` never came from this tree. The answer means nothing once the interval is removed.
    #[must_use]
    #[inline]
    pub fn end(&self, id: NodeId) -> u64 {
        debug_assert!(self.contains_id(id), "A9: {id} is not in the tree");
        self.cold[id.index()].end
    }

    /// Returns the size of the hole just below the interval.
    ///
    /// # Panics
    /// If `id` never came from this tree. The answer means nothing once the interval is removed.
    #[must_use]
    pub fn gap_before(&self, id: NodeId) -> u64 {
        debug_assert!(self.contains_id(id), "A9: {id} is not in the tree");
        self.rooms[id.index()].gap
    }

    /// Tells whether `id` names an interval that is in the tree now.
    #[must_use]
    pub fn contains_id(&self, id: NodeId) -> bool {
        self.cold.get(id.index()).is_some_and(|cold| cold.end != 0)
    }

    /// Tells whether `id` names an interval that is in the tree now and holds `addr`: the test of a
    /// hint, which may be as old as it likes.
    #[must_use]
    #[inline]
    pub fn covers(&self, id: NodeId, addr: u64) -> bool {
        self.interval_around(id, addr).is_some()
    }

    /// Returns the `[start, end)` of `id` on the same condition as [`Avl::covers`].
    #[must_use]
    #[inline]
    pub fn interval_around(&self, id: NodeId, addr: u64) -> Option<(u64, u64)> {
        // A free slot ends at 0 (A9), so it covers nothing.
        let (key, cold) = (self.keys.get(id.index())?, self.cold.get(id.index())?);
        (key.start <= addr && addr < cold.end).then_some((key.start, cold.end))
    }

    /// Starts to fetch what [`Avl::interval_around`] will read of an interval just found: a search has read everything else, but learns the end from the hole above.
    #[inline]
    pub(crate) fn fetch_end(&self, id: NodeId) {
        if let Some(cold) = self.cold.get(id.index()) {
            prefetch_read(cold);
        }
    }

    /// Returns the lowest interval.
    #[must_use]
    #[doc(alias = "AS_SEGFIRST")]
    pub const fn first(&self) -> Option<NodeId> {
        NodeId::from_link(self.first)
    }

    /// Returns the highest interval.
    #[must_use]
    #[doc(alias = "avl_last")]
    pub const fn last(&self) -> Option<NodeId> {
        NodeId::from_link(self.last)
    }

    /// Returns the next interval above `id`, in constant time.
    ///
    /// A loop that removes as it goes asks for the next one before it removes this one; removing
    /// an interval disturbs no other id.
    ///
    /// # Panics
    /// If `id` never came from this tree. The answer means nothing once the interval is removed.
    #[must_use]
    #[doc(alias = "AS_SEGNEXT")]
    pub fn next(&self, id: NodeId) -> Option<NodeId> {
        debug_assert!(self.contains_id(id), "A9: {id} is not in the tree");
        NodeId::from_link(self.cold[id.index()].next)
    }

    /// Returns the next interval below `id`, in constant time.
    ///
    /// # Panics
    /// If `id` never came from this tree. The answer means nothing once the interval is removed.
    #[must_use]
    #[doc(alias = "AS_SEGPREV")]
    pub fn prev(&self, id: NodeId) -> Option<NodeId> {
        debug_assert!(self.contains_id(id), "A9: {id} is not in the tree");
        NodeId::from_link(self.cold[id.index()].prev)
    }

    /// Finds the interval that holds `addr`. Costs one visit per level.
    #[must_use]
    #[inline]
    #[doc(alias = "as_segat")]
    #[doc(alias = "avl_find")]
    pub fn find(&self, addr: u64, visits: &mut Visits) -> Option<NodeId> {
        let (below, above) = self.straddle(addr, visits);
        if addr < self.end_below(above) { NodeId::from_link(below) } else { None }
    }

    /// Finds the interval that holds `addr`, with its `[start, end)`; no more is read for that.
    #[must_use]
    #[inline]
    pub fn find_interval(&self, addr: u64, visits: &mut Visits) -> Option<(NodeId, u64, u64)> {
        let (below, above) = self.straddle(addr, visits);
        let end = self.end_below(above);
        if addr >= end {
            return None;
        }
        let id = NodeId::from_link(below)?;
        Some((id, self.keys[id.index()].start, end))
    }

    /// Finds the interval that holds `addr`, else the next one above it.
    #[must_use]
    #[inline]
    #[doc(alias = "as_findseg")]
    #[doc(alias = "avl_nearest")]
    pub fn find_or_next(&self, addr: u64, visits: &mut Visits) -> Option<NodeId> {
        let (below, above) = self.straddle(addr, visits);
        let held = below != NIL && addr < self.end_below(above);
        NodeId::from_link(if held { below } else { above })
    }

    /// Walks the intervals in address order.
    #[must_use]
    pub const fn iter(&self) -> Iter<'_> {
        Iter { tree: self, next: self.first }
    }

    /// Walks the intervals in address order, from the one that holds `addr` or the next above it.
    #[must_use]
    pub fn iter_from(&self, addr: u64) -> Iter<'_> {
        let from = self.find_or_next(addr, &mut Visits::default());
        Iter { tree: self, next: from.map_or(NIL, |id| id.0) }
    }

    /// Finds the neighbours of the point just above `addr`: the last interval that starts at or
    /// below it, and the first that starts above it.
    #[inline]
    fn straddle(&self, addr: u64, visits: &mut Visits) -> (u32, u32) {
        let (mut below, mut above) = (NIL, NIL);
        let mut at = self.root;
        let mut visited = 0;
        // The bounds check is the loop condition: NIL lies outside the arena.
        while let Some(key) = self.keys.get(at as usize) {
            visited += 1;
            // Selected, not branched: which way a walk turns cannot be predicted.
            let right = key.start <= addr;
            below = select_unpredictable(right, at, below);
            above = select_unpredictable(right, above, at);
            at = select_unpredictable(right, key.kids[RIGHT], key.kids[LEFT]);
        }
        visits.0 += visited;
        (below, above)
    }

    /// Returns the end of the interval before `above`, or of the last one; the low limit if none.
    #[inline]
    fn end_below(&self, above: u32) -> u64 {
        match self.keys.get(above as usize) {
            Some(key) => key.start - self.rooms[above as usize].gap,
            None => self.tail,
        }
    }

    /// Returns where the hole below `at` begins, which is where the predecessor ends.
    #[inline]
    fn hole_start(&self, at: u32) -> u64 {
        self.keys[at as usize].start - self.rooms[at as usize].gap
    }
}

impl fmt::Debug for Avl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Avl")
            .field("low", &format_args!("{:#x}", self.low))
            .field("high", &format_args!("{:#x}", self.high))
            .field("len", &self.len)
            .field("height", &self.height())
            .finish_non_exhaustive()
    }
}

/// The intervals of a tree in address order; see [`Avl::iter`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    tree: &'a Avl,
    next: u32,
}

impl Iterator for Iter<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let id = NodeId::from_link(self.next)?;
        self.next = self.tree.cold[id.index()].next;
        Some(id)
    }
}

impl FusedIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Avl {
    type Item = NodeId;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
