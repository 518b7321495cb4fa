//! Finding a hole: the lowest or the highest in a window that has room for so much.
//!
//! # The difficulty
//!
//! The largest gap of a subtree says whether to go down there, but the window cuts holes short
//! and an alignment makes a hole that is large enough by size useless. Whoever trusts the largest
//! gap alone then walks from hole to hole.
//!
//! # The rule
//!
//! At most two holes straddle an edge of the window; all others are whole or outside. So the
//! search starts on the path to the window's near edge, looks at one hole that may be cut short,
//! and from there takes the first subtree whose largest gap suffices: O(log n). Down to the edge,
//! up until a subtree will do, and down in it with a look at both children: four heights at most.
//!
//! With an alignment it searches twice, as `as_gap_aligned` does. First for `len + align +
//! 2 redzone`: any such hole fits wherever it begins, so this is the search above. Only if there
//! is none, for `len + 2 redzone`, and every hole found is tried exactly.
//!
//! # Cost
//!
//! O(log n) visits without an alignment, and with one whenever a hole of the generous size
//! exists. Otherwise O(log n + k log n), k being the holes in the window that are as large as
//! `len + 2 redzone` and still do not fit; k can be n, in a space with no generous hole at all.
//! With addresses that are not multiples of 64, holes that fall short by less than 64 are looked
//! at too.
//!
//! Sources: [SI §9.4]; illumos `vm_as.c`, the contract of `as_gap_aligned`.

use super::node::{LEFT, NIL, NodeId, Path, RIGHT};
use super::{Avl, Visits};

/// Which of the suitable holes is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// The one at the lowest address.
    #[doc(alias = "AH_LO")]
    Lowest,
    /// The one at the highest address.
    #[doc(alias = "AH_HI")]
    Highest,
}

/// What hole is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GapQuery {
    /// Where to look: `[low, high)`. What lies outside the limits of the tree counts as taken.
    pub window: (u64, u64),
    /// How much room is wanted. A length of 0 finds nothing.
    pub len: u64,
    /// The room must begin at a multiple of this; 0 and 1 say anywhere. Meant for powers of two;
    /// other numbers are taken at their word.
    pub align: u64,
    /// How much must stay free on each side of the room, within the hole and the window.
    pub redzone: u64,
    /// Which hole to take if several are suitable.
    pub order: Order,
    /// Only the hole that holds this address, inside the window, will do (`AH_CONTAIN`).
    pub containing: Option<u64>,
}

/// The part inside the window of a hole that was found, whole: the caller chooses a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// Where it begins.
    pub start: u64,
    /// Where it ends: the first address above it.
    pub end: u64,
    /// The interval above the hole, `None` for the tail.
    pub above: Option<NodeId>,
    /// The interval below the hole, `None` for the hole at the low limit.
    pub below: Option<NodeId>,
}

impl GapQuery {
    /// Asks for the lowest or highest hole of `len` in `window`, without conditions.
    #[must_use]
    pub const fn new(window: (u64, u64), len: u64, order: Order) -> Self {
        Self { window, len, align: 0, redzone: 0, order, containing: None }
    }

    /// Returns the lowest address in `[start, end)` at which the room fits, redzones included.
    #[must_use]
    pub fn lowest_in(&self, start: u64, end: u64) -> Option<u64> {
        let place = start.checked_add(self.redzone)?.checked_next_multiple_of(self.align.max(1))?;
        let needed = place.checked_add(self.len)?.checked_add(self.redzone)?;
        (needed <= end).then_some(place)
    }

    /// Returns the highest address in `[start, end)` at which the room fits, redzones included.
    #[must_use]
    pub fn highest_in(&self, start: u64, end: u64) -> Option<u64> {
        let highest = end.checked_sub(self.redzone)?.checked_sub(self.len)?;
        let place = highest - highest % self.align.max(1);
        (start.checked_add(self.redzone)? <= place).then_some(place)
    }

    /// Returns where in `gap` the room goes: as low or as high as it fits, as `order` says.
    #[must_use]
    pub fn place_in(&self, gap: &Gap) -> Option<u64> {
        match self.order {
            Order::Lowest => self.lowest_in(gap.start, gap.end),
            Order::Highest => self.highest_in(gap.start, gap.end),
        }
    }

    /// The size below which no hole will do, wherever it begins; `None` beyond 2^64.
    fn least(&self) -> Option<u64> {
        self.len.checked_add(self.redzone.checked_mul(2)?)
    }
}

/// A query with its window clipped to the limits, and the size a hole must have in this pass.
struct Search<'a> {
    query: &'a GapQuery,
    low: u64,
    high: u64,
    need: u64,
}

impl Search<'_> {
    /// Clips a hole to the window, and returns what is left of it if that will do.
    fn accept(&self, hole_start: u64, hole_end: u64) -> Option<(u64, u64)> {
        let (start, end) = (hole_start.max(self.low), hole_end.min(self.high));
        let fits = end.checked_sub(start)? >= self.need;
        (fits && self.query.lowest_in(start, end).is_some()).then_some((start, end))
    }

    /// Which child lies towards the edge of the window where the search starts.
    const fn near(&self) -> usize {
        match self.query.order {
            Order::Lowest => LEFT,
            Order::Highest => RIGHT,
        }
    }

    /// Tells whether the hole of the node at `start` reaches beyond the edge where the search starts; all
    /// holes further on do.
    const fn is_reached(&self, hole_start: u64, start: u64) -> bool {
        match self.query.order {
            Order::Lowest => start > self.low,
            Order::Highest => hole_start < self.high,
        }
    }

    /// Tells whether every hole further on than that of the node at `start` is outside the window.
    const fn is_last(&self, hole_start: u64, start: u64) -> bool {
        match self.query.order {
            Order::Lowest => start >= self.high,
            Order::Highest => hole_start <= self.low,
        }
    }
}

impl Avl {
    /// Finds a hole and returns the whole part of it that lies inside the window.
    ///
    /// The hole above the last interval, up to the high limit, counts like any other. In an empty
    /// tree the window itself is the hole. With an alignment, a hole with room to spare is
    /// preferred to a nearer one in which only an exact fit would do; see the head of this file,
    /// also for the cost.
    #[must_use]
    #[doc(alias = "as_gap")]
    #[doc(alias = "as_gap_aligned")]
    pub fn find_gap(&self, query: &GapQuery, visits: &mut Visits) -> Option<Gap> {
        let low = query.window.0.max(self.low);
        let high = query.window.1.min(self.high);
        if query.len == 0 || low >= high {
            return None;
        }
        let least = query.least()?;
        let exact = Search { query, low, high, need: least };
        if let Some(addr) = query.containing {
            return self.gap_around(&exact, addr, visits);
        }
        if query.align > 1
            && let Some(need) = least.checked_add(query.align)
            && let Some(gap) = self.first_gap(&Search { need, ..exact }, visits)
        {
            return Some(gap);
        }
        self.first_gap(&exact, visits)
    }

    /// Tries the one hole that holds `addr`.
    fn gap_around(&self, search: &Search<'_>, addr: u64, visits: &mut Visits) -> Option<Gap> {
        if addr < search.low || addr >= search.high {
            return None;
        }
        let (_, above) = self.straddle(addr, visits);
        if addr < self.end_below(above) {
            return None; // taken
        }
        self.try_hole(search, above)
    }

    /// Finds the first hole in the order of the search that it accepts.
    fn first_gap(&self, search: &Search<'_>, visits: &mut Visits) -> Option<Gap> {
        if search.query.order == Order::Highest
            && let Some(gap) = self.try_hole(search, NIL)
        {
            return Some(gap);
        }
        let near = search.near();
        // The nodes still to come, nearest on top: first those on the path to the near edge.
        let mut path = Path::new();
        let mut at = self.root;
        while let Some(room) = self.rooms.get(at as usize) {
            visits.0 += 1;
            if !room.may_hold(search.need) {
                break;
            }
            let key = &self.keys[at as usize];
            if search.is_reached(key.start - room.gap, key.start) {
                path.push(at);
                at = key.kids[near];
            } else {
                at = key.kids[1 - near];
            }
        }
        while let Some(at) = path.pop() {
            if let Some(gap) = self.try_hole(search, at) {
                return Some(gap);
            }
            let key = &self.keys[at as usize];
            if search.is_last(self.hole_start(at), key.start) {
                return None;
            }
            // Then those of the subtree further on, as far as there is a large enough gap below.
            let mut at = key.kids[1 - near];
            while let Some(room) = self.rooms.get(at as usize) {
                visits.0 += 1;
                if !room.may_hold(search.need) {
                    break;
                }
                path.push(at);
                at = self.keys[at as usize].kids[near];
            }
        }
        match search.query.order {
            Order::Lowest => self.try_hole(search, NIL),
            Order::Highest => None,
        }
    }

    /// Offers the search the hole below `above`, or the tail.
    fn try_hole(&self, search: &Search<'_>, above: u32) -> Option<Gap> {
        let (hole, below) = match self.keys.get(above as usize) {
            Some(key) => ((self.hole_start(above), key.start), None),
            None => ((self.tail, self.high), Some(self.last)),
        };
        let (start, end) = search.accept(hole.0, hole.1)?;
        let below = below.unwrap_or_else(|| self.cold[above as usize].prev);
        Some(Gap { start, end, above: NodeId::from_link(above), below: NodeId::from_link(below) })
    }
}
