//! Checking the invariants A1 to A10, and breaking each of them on purpose.
//!
//! The check believes nothing it has not checked: links are followed only within the arena and
//! each slot once, so that it ends, and names what is wrong, on any damage. The order of the
//! invariants is the order of the checks: each relies on those before it.

use alloc::vec;
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;

use super::Avl;
use super::node::{HEIGHT_MASK, LEFT, NIL, NodeId, RIGHT, height_of, pack};

/// The invariants of the tree, by the numbers of the theory at the head of `avl/mod.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// A1: every link leads into the arena, each interval is reached once, `len` counts them.
    Links,
    /// A2: the intervals ascend, none is empty, no two overlap.
    Ascending,
    /// A3: all intervals lie within the limits.
    Limits,
    /// A4: a height is one more than the higher child's.
    Height,
    /// A5: sibling heights differ by at most one.
    Balance,
    /// A6: a gap is the distance from the predecessor's end.
    Gap,
    /// A7: a largest gap is the largest gap of the subtree.
    MaxGap,
    /// A8: the thread runs through the intervals in order.
    Thread,
    /// A9: a slot is in the tree or on the free list.
    FreeList,
    /// A10: the tail begins where the last interval ends.
    Tail,
}

impl Invariant {
    /// All of them, in the order in which they are checked.
    pub const ALL: [Self; 10] = [
        Self::Links,
        Self::Ascending,
        Self::Limits,
        Self::Height,
        Self::Balance,
        Self::Gap,
        Self::MaxGap,
        Self::Thread,
        Self::FreeList,
        Self::Tail,
    ];

    const fn text(self) -> &'static str {
        match self {
            Self::Links => "A1: links reach each interval once",
            Self::Ascending => "A2: intervals ascend and are disjoint",
            Self::Limits => "A3: intervals lie within the limits",
            Self::Height => "A4: height is one more than the higher child's",
            Self::Balance => "A5: sibling heights differ by at most one",
            Self::Gap => "A6: gap is the distance from the predecessor",
            Self::MaxGap => "A7: largest gap of the subtree",
            Self::Thread => "A8: the thread follows the order",
            Self::FreeList => "A9: a slot is in the tree or free",
            Self::Tail => "A10: the tail begins at the last end",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The first invariant found violated, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What does not hold.
    pub invariant: Invariant,
    /// At which node; `None` if it concerns the tree as a whole.
    pub at: Option<NodeId>,
    /// What should be there: an address, size, height, id or count, as the invariant has it.
    pub expected: u64,
    /// What is there.
    pub found: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.invariant)?;
        if let Some(id) = self.at {
            write!(f, ", violated at {id}")?;
        }
        write!(f, ": expected {:#x}, found {:#x}", self.expected, self.found)
    }
}

impl Error for Damage {}

/// Passes if both are the same.
fn same(
    invariant: Invariant,
    at: Option<NodeId>,
    expected: impl Into<u64>,
    found: impl Into<u64>,
) -> Result<(), Damage> {
    let (expected, found) = (expected.into(), found.into());
    if expected == found { Ok(()) } else { Err(Damage { invariant, at, expected, found }) }
}

/// Passes if `found` is at least `least`.
fn at_least(
    invariant: Invariant,
    at: Option<NodeId>,
    least: u64,
    found: u64,
) -> Result<(), Damage> {
    if found >= least { Ok(()) } else { Err(Damage { invariant, at, expected: least, found }) }
}

impl Avl {
    /// Checks every invariant, in O(n) time and memory.
    ///
    /// # Errors
    /// [`Damage`] names the first invariant violated.
    pub fn verify(&self) -> Result<(), Damage> {
        let (parents_first, mut placed) = self.check_links()?;
        let in_order = self.in_order();
        self.check_intervals(&in_order)?;
        self.check_heights(&parents_first)?;
        self.check_gaps(&in_order, &parents_first)?;
        self.check_thread(&in_order)?;
        self.check_free(&mut placed)?;
        let end = in_order.last().map_or(self.low, |&at| self.cold[at as usize].end);
        same(Invariant::Tail, None, end, self.tail)
    }

    /// A1. Returns the nodes, parents before children, and a mark for each slot in the tree.
    fn check_links(&self) -> Result<(Vec<u32>, Vec<bool>), Damage> {
        use Invariant::Links;
        same(Links, None, self.keys.len() as u64, self.rooms.len() as u64)?;
        same(Links, None, self.keys.len() as u64, self.cold.len() as u64)?;
        let mut placed = vec![false; self.keys.len()];
        let mut order: Vec<u32> = Vec::with_capacity(self.len());
        let mut place = |link: u32, from: Option<NodeId>, order: &mut Vec<u32>| {
            if link == NIL {
                return Ok(());
            }
            let damage =
                |expected| Damage { invariant: Links, at: from, expected, found: link.into() };
            let mark = placed.get_mut(link as usize).ok_or(damage(self.keys.len() as u64))?;
            if core::mem::replace(mark, true) {
                return Err(damage(NIL.into())); // reached a second time
            }
            order.push(link);
            Ok(())
        };
        place(self.root, None, &mut order)?;
        let mut done = 0;
        while let Some(&at) = order.get(done) {
            for link in self.keys[at as usize].kids {
                place(link, Some(NodeId(at)), &mut order)?;
            }
            done += 1;
        }
        same(Links, None, self.len, order.len() as u64)?;
        Ok((order, placed))
    }

    /// The nodes in symmetric order. Relies on A1.
    fn in_order(&self) -> Vec<u32> {
        let (mut order, mut stack) = (Vec::with_capacity(self.len()), Vec::new());
        let mut at = self.root;
        loop {
            while at != NIL {
                stack.push(at);
                at = self.keys[at as usize].kids[LEFT];
            }
            let Some(top) = stack.pop() else { return order };
            order.push(top);
            at = self.keys[top as usize].kids[RIGHT];
        }
    }

    /// A2, then A3.
    fn check_intervals(&self, in_order: &[u32]) -> Result<(), Damage> {
        let mut floor = 0;
        for &at in in_order {
            let (id, start, end) = self.interval(at);
            at_least(Invariant::Ascending, id, floor, start)?;
            at_least(Invariant::Ascending, id, start.saturating_add(1), end)?;
            floor = end;
        }
        for &at in in_order {
            let (id, start, end) = self.interval(at);
            at_least(Invariant::Limits, id, self.low, start)?;
            at_least(Invariant::Limits, id, end, self.high)?;
        }
        Ok(())
    }

    /// A4, then A5.
    fn check_heights(&self, parents_first: &[u32]) -> Result<(), Damage> {
        let mut heights = vec![0_u32; self.keys.len()];
        let of = |heights: &[u32], link: u32| heights.get(link as usize).copied().unwrap_or(0);
        for &at in parents_first.iter().rev() {
            let [left, right] = self.keys[at as usize].kids;
            let height = 1 + of(&heights, left).max(of(&heights, right));
            heights[at as usize] = height;
            same(Invariant::Height, Some(NodeId(at)), height, self.rooms[at as usize].height())?;
        }
        for &at in parents_first.iter().rev() {
            let [left, right] = self.keys[at as usize].kids.map(|link| of(&heights, link));
            let (lower, higher) = (left.min(right), left.max(right));
            at_least(Invariant::Balance, Some(NodeId(at)), higher.into(), u64::from(lower) + 1)?;
        }
        Ok(())
    }

    /// A6, then A7.
    fn check_gaps(&self, in_order: &[u32], parents_first: &[u32]) -> Result<(), Damage> {
        let mut floor = self.low;
        for &at in in_order {
            let (id, start, end) = self.interval(at);
            same(Invariant::Gap, id, start - floor, self.rooms[at as usize].gap)?;
            floor = end;
        }
        let mut largest = vec![0_u64; self.keys.len()];
        for &at in parents_first.iter().rev() {
            let (gap, kids) = (self.rooms[at as usize].gap, self.keys[at as usize].kids);
            let below = |link: u32| largest.get(link as usize).copied().unwrap_or(0);
            let gap = gap.max(below(kids[LEFT])).max(below(kids[RIGHT]));
            largest[at as usize] = gap;
            let found = self.rooms[at as usize].max_gap();
            same(Invariant::MaxGap, Some(NodeId(at)), gap & !HEIGHT_MASK, found)?;
        }
        Ok(())
    }

    /// A8, forwards and backwards.
    fn check_thread(&self, in_order: &[u32]) -> Result<(), Damage> {
        let (mut before, mut forward) = (NIL, self.first);
        for &at in in_order {
            let here = NodeId::from_link(before);
            same(Invariant::Thread, here, at, forward)?;
            same(Invariant::Thread, Some(NodeId(at)), before, self.cold[at as usize].prev)?;
            (before, forward) = (at, self.cold[at as usize].next);
        }
        same(Invariant::Thread, NodeId::from_link(before), NIL, forward)?;
        same(Invariant::Thread, None, before, self.last)
    }

    /// A9. Takes the marks of A1 and marks the free slots too.
    fn check_free(&self, placed: &mut [bool]) -> Result<(), Damage> {
        use Invariant::FreeList;
        let (mut at, mut count) = (self.free, u64::from(self.len));
        while at != NIL {
            let slots = placed.len() as u64;
            let mark = placed.get_mut(at as usize).ok_or(Damage {
                invariant: FreeList,
                at: None,
                expected: slots,
                found: at.into(),
            })?;
            // A slot of the tree, or one met on this list before.
            same(FreeList, Some(NodeId(at)), 0_u64, core::mem::replace(mark, true))?;
            same(FreeList, Some(NodeId(at)), 0_u64, self.cold[at as usize].end)?;
            count += 1;
            at = self.cold[at as usize].next;
        }
        same(FreeList, None, placed.len() as u64, count)
    }

    fn interval(&self, at: u32) -> (Option<NodeId>, u64, u64) {
        (Some(NodeId(at)), self.keys[at as usize].start, self.cold[at as usize].end)
    }

    /// Breaks one invariant, so that a test can see it named by [`Avl::verify`] and by whatever
    /// calls that. Returns `false`, and breaks nothing, if the tree is too small to have it broken
    /// (none needs more than three intervals).
    ///
    /// The tree is good for [`Avl::verify`], [`Avl::shape`] and printing afterwards, for nothing
    /// else.
    #[doc(hidden)]
    pub fn damage_for_test(&mut self, invariant: Invariant) -> bool {
        let (root, first, last) = (self.root as usize, self.first as usize, self.last as usize);
        if self.is_empty() || (invariant == Invariant::Balance && self.len < 3) {
            return false;
        }
        match invariant {
            // A cycle, which a careless check would walk for ever.
            Invariant::Links => self.keys[first].kids[LEFT] = self.root,
            Invariant::Ascending => self.cold[first].end = self.keys[first].start,
            Invariant::Limits => self.high = self.cold[last].end - 1,
            Invariant::Height => self.rooms[root].augment += 1,
            Invariant::Balance => {
                // Rotates the lower child up; heights and gaps stay right.
                let height = |side: usize| {
                    let kid = self.keys[root].kids[side];
                    height_of(self.rooms[kid as usize].augment)
                };
                let side = if height(LEFT) <= height(RIGHT) { LEFT } else { RIGHT };
                self.root = self.raise(self.root, side);
            }
            Invariant::Gap => self.rooms[first].gap = self.rooms[first].gap.wrapping_add(1),
            Invariant::MaxGap => {
                let room = &mut self.rooms[root];
                let wrong = room.max_gap().wrapping_add(HEIGHT_MASK + 1);
                room.augment = pack(wrong, room.height().into());
            }
            Invariant::Thread => self.cold[last].next = self.first,
            Invariant::FreeList => self.free = self.root,
            Invariant::Tail => self.tail = self.tail.wrapping_add(1),
        }
        true
    }
}
