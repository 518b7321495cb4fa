//! What the tree is made of: a node of 32 bytes in two halves, a cold record of 16, and the path of a walk.
//!
//! ```text
//!   keys[i]   start     8   where interval i begins: the key, compared inline
//!             kids    2 x 4   left and right, as indices; NIL = u32::MAX lies outside every arena
//!   rooms[i]  gap       8   the hole just below it: start - end of the predecessor
//!             augment   8   largest gap of the subtree (58 bits) and its height (6 bits)
//!   cold[i]   end       8   where interval i ends; 0 marks a slot of the free list
//!             next, prev  2 x 4   the thread in address order
//! ```
//!
//! The halves stand in arrays of their own because a lookup needs the first only: four keys to a cache line, and a tree of 30 000
//! intervals in half a megabyte. What a lookup asks of a room (where the hole below begins) it asks beside its way down, not on it. An
//! edit changes rooms up to the root and almost never a key there, so it takes from a lookup on another processor few of the lines it reads.
//!
//! The lowest six bits of `augment` hold the height, so the largest gap is kept rounded down to a
//! multiple of 64. Addresses of pages are multiples of 4096, so nothing is lost for them. A
//! caller that counts in other units still gets exact answers: pruning asks "may there be such a
//! gap in here", and each gap is then measured on its own, from the unrounded field.

use core::fmt;

/// The link that leads nowhere. Greater than any index, so the bounds check of `slice::get` is
/// also the test for the end of a walk, and costs nothing more.
pub(super) const NIL: u32 = u32::MAX;

/// Index into `kids`: the subtree below this node's interval, and the one above it.
pub(super) const LEFT: usize = 0;
pub(super) const RIGHT: usize = 1;

/// Low bits of `augment` that hold the height, and the grain to which the largest gap is rounded.
pub(super) const HEIGHT_MASK: u64 = 63;

/// The greatest height a tree of at most 2^32 - 1 nodes can have.
///
/// The smallest AVL tree of height h has N(h) = N(h-1) + N(h-2) + 1 nodes, which is F(h+2) - 1 in
/// Fibonacci numbers. F(47) = 2 971 215 073 is the last one below 2^32, so h = 45 still fits
/// and h = 46 does not. The constant is computed below rather than believed.
pub(super) const MAX_HEIGHT: usize = max_height(u32::MAX as u64);

const fn max_height(nodes: u64) -> usize {
    let (mut height, mut fewest, mut fewest_above) = (0, 0_u64, 1_u64); // N(h) and N(h+1)
    while fewest_above <= nodes {
        (fewest, fewest_above) = (fewest_above, fewest + fewest_above + 1);
        height += 1;
    }
    height
}

const _: () = assert!(MAX_HEIGHT == 45, "the argument above and the arithmetic agree");
const _: () = assert!(MAX_HEIGHT as u64 <= HEIGHT_MASK, "a height fits in its six bits");
const _: () = assert!(size_of::<Key>() == 16, "four keys to a cache line");
const _: () = assert!(size_of::<Room>() == 16, "a node is 32 bytes, its cold record aside");
const _: () = assert!(size_of::<Cold>() == 16);

/// Names an interval for as long as it is in the tree.
///
/// Ids are small integers: the slot of the interval in the tree's arena. A slot given back by
/// `remove` is given out again by the next `insert`, last freed first, so that the same history
/// always yields the same ids. An owner keeps what belongs to an interval in a `Vec` of its own
/// under [`NodeId::index`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

impl NodeId {
    /// Returns the index of the slot, for a parallel array.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the number itself, for a hint kept in an atomic.
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        self.0
    }

    /// Makes an id from a number that [`NodeId::to_raw`] gave once. It may be stale by now: ask
    /// [`Avl::covers`](super::Avl::covers) before anything else is done with it.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Turns a link into an id; the link that leads nowhere becomes `None`.
    pub(super) const fn from_link(link: u32) -> Option<Self> {
        if link == NIL { None } else { Some(Self(link)) }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Counts the tree nodes a search looked at: a cost that is exact and the same on every machine.
///
/// The caller owns the counter and passes it by reference, so that searches running side by side
/// share nothing that is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Visits(pub u64);

/// What a lookup reads of a node. Aligned to its size: none straddles two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Key {
    pub(super) start: u64,
    pub(super) kids: [u32; 2],
}

impl Key {
    pub(super) const fn leaf(start: u64) -> Self {
        Self { start, kids: [NIL, NIL] }
    }
}

/// What a node knows of holes: its own, and the largest of its subtree.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Room {
    pub(super) gap: u64,
    pub(super) augment: u64,
}

impl Room {
    /// A leaf's: its subtree is itself.
    pub(super) const fn leaf(gap: u64) -> Self {
        Self { gap, augment: pack(gap, 1) }
    }

    pub(super) const fn height(&self) -> u32 {
        height_of(self.augment)
    }

    /// The largest gap of the subtree, rounded down to the grain.
    pub(super) const fn max_gap(&self) -> u64 {
        self.augment & !HEIGHT_MASK
    }

    /// Tells whether the subtree may hold a gap of `need`. Never wrongly "no".
    pub(super) const fn may_hold(&self, need: u64) -> bool {
        self.augment | HEIGHT_MASK >= need
    }
}

/// What edits and walks in order read of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cold {
    pub(super) end: u64,
    pub(super) next: u32,
    pub(super) prev: u32,
}

/// Joins a gap (rounded down to the grain) and a height in one word.
pub(super) const fn pack(gap: u64, height: u64) -> u64 {
    (gap & !HEIGHT_MASK) | height
}

pub(super) const fn height_of(augment: u64) -> u32 {
    (augment & HEIGHT_MASK) as u32
}

/// The nodes from the root to where a walk is, instead of parent links. Invariants A4 and A5 bound
/// its length by [`MAX_HEIGHT`].
#[derive(Debug)]
pub(super) struct Path {
    nodes: [u32; MAX_HEIGHT],
    len: usize,
}

impl Path {
    pub(super) const fn new() -> Self {
        Self { nodes: [NIL; MAX_HEIGHT], len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn push(&mut self, node: u32) {
        self.nodes[self.len] = node;
        self.len += 1;
    }

    pub(super) const fn pop(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        self.len -= 1;
        Some(self.nodes[self.len])
    }

    pub(super) const fn at(&self, depth: usize) -> u32 {
        self.nodes[depth]
    }

    pub(super) const fn set(&mut self, depth: usize, node: u32) {
        self.nodes[depth] = node;
    }

    pub(super) const fn truncate(&mut self, len: usize) {
        self.len = len;
    }
}
