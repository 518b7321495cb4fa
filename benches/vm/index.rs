//! The ordered indexes of row 11 behind one face: segments by address.

use std::collections::BTreeMap;

use addr_space::avl::{Avl, NodeId, Visits};
use rangemap::RangeMap;

use crate::avl_c::CAvl;
use crate::avl_pointer::{Node, PointerAvl};
use crate::harness::Rng;

/// Bytes from one segment's base to the next, and of a segment: eight pages and four.
pub(crate) const STEP: u64 = 8 << 12;
pub(crate) const LEN: u64 = 4 << 12;

/// The answer "nothing there".
pub(crate) const NOTHING: u64 = u64::MAX;

/// The segments of a crowd of `n`, in the order of their birth: by address a random permutation.
pub(crate) fn segments(n: usize) -> Vec<(u64, u64)> {
    Rng::new(110)
        .permutation(n)
        .into_iter()
        .map(|i| (u64::from(i) * STEP, u64::from(i) * STEP + LEN))
        .collect()
}

/// An ordered index of segments; answers are small numbers that depend on what was read.
pub(crate) trait Index {
    /// What holds `address`.
    fn find(&self, address: u64) -> u64;
    /// What holds `address`, or comes next.
    fn find_or_next(&self, address: u64) -> u64;
    /// Takes segment `victim` (by birth) out and puts it back.
    fn replace(&mut self, victim: usize);
}

/// Ours. Ids are small integers that reuse may permute, so the victims' ids are kept beside.
pub(crate) struct Ours {
    tree: Avl,
    ids: Vec<NodeId>,
    segments: Vec<(u64, u64)>,
}

impl Ours {
    pub(crate) fn new(segments: &[(u64, u64)]) -> Self {
        let mut tree = Avl::new(0, 1 << 47);
        let ids = segments
            .iter()
            .map(|&(start, end)| tree.insert(start, end).expect("segments are disjoint"))
            .collect();
        Self { tree, ids, segments: segments.to_vec() }
    }

    /// The hint of the address space, in its bare form: the segment that answered last is asked first.
    #[inline]
    pub(crate) fn find_with_hint(&self, address: u64, hint: &mut Option<NodeId>) -> u64 {
        if let Some(id) = *hint
            && self.tree.covers(id, address)
        {
            return id.index() as u64;
        }
        *hint = self.tree.find(address, &mut Visits::default());
        hint.map_or(NOTHING, |id| id.index() as u64)
    }
}

impl Index for Ours {
    #[inline]
    fn find(&self, address: u64) -> u64 {
        self.tree.find(address, &mut Visits::default()).map_or(NOTHING, |id| id.index() as u64)
    }

    #[inline]
    fn find_or_next(&self, address: u64) -> u64 {
        self.tree
            .find_or_next(address, &mut Visits::default())
            .map_or(NOTHING, |id| id.index() as u64)
    }

    fn replace(&mut self, victim: usize) {
        let (start, end) = self.segments[victim];
        self.tree.remove(self.ids[victim]);
        self.ids[victim] = self.tree.insert(start, end).expect("it was there just now");
    }
}

/// The standard library's ordered map, by start.
pub(crate) struct BTree {
    map: BTreeMap<u64, (u64, u32)>,
    segments: Vec<(u64, u64)>,
}

impl BTree {
    pub(crate) fn new(segments: &[(u64, u64)]) -> Self {
        let mut map = BTreeMap::new();
        for (i, &(start, end)) in segments.iter().enumerate() {
            map.insert(start, (end, i as u32));
        }
        Self { map, segments: segments.to_vec() }
    }
}

impl Index for BTree {
    #[inline]
    fn find(&self, address: u64) -> u64 {
        match self.map.range(..=address).next_back() {
            Some((_, &(end, value))) if address < end => u64::from(value),
            _ => NOTHING,
        }
    }

    #[inline]
    fn find_or_next(&self, address: u64) -> u64 {
        match self.find(address) {
            NOTHING => self
                .map
                .range(address..)
                .next()
                .map_or(NOTHING, |(_, &(_, value))| u64::from(value)),
            value => value,
        }
    }

    fn replace(&mut self, victim: usize) {
        let (start, end) = self.segments[victim];
        self.map.remove(&start);
        self.map.insert(start, (end, victim as u32));
    }
}

/// `rangemap`, which also merges and splits.
pub(crate) struct Ranges {
    map: RangeMap<u64, u32>,
    segments: Vec<(u64, u64)>,
}

impl Ranges {
    pub(crate) fn new(segments: &[(u64, u64)]) -> Self {
        let mut map = RangeMap::new();
        for (i, &(start, end)) in segments.iter().enumerate() {
            map.insert(start..end, i as u32);
        }
        Self { map, segments: segments.to_vec() }
    }
}

impl Index for Ranges {
    #[inline]
    fn find(&self, address: u64) -> u64 {
        self.map.get(&address).map_or(NOTHING, |&value| u64::from(value))
    }

    fn find_or_next(&self, address: u64) -> u64 {
        match self.find(address) {
            NOTHING => self
                .map
                .overlapping(address..u64::MAX)
                .next()
                .map_or(NOTHING, |(_, &value)| u64::from(value)),
            value => value,
        }
    }

    fn replace(&mut self, victim: usize) {
        let (start, end) = self.segments[victim];
        self.map.remove(start..end);
        self.map.insert(start..end, victim as u32);
    }
}

/// The classic tree: a C library where one is given, the pointer AVL otherwise.
pub(crate) enum Classic {
    Pointer { tree: PointerAvl, nodes: &'static [Node] },
    C(CAvl),
}

impl Classic {
    pub(crate) fn new(segments: &[(u64, u64)]) -> Result<Self, String> {
        if let Some(loaded) = CAvl::load(segments) {
            let mut tree = loaded?;
            (0..segments.len()).for_each(|i| tree.insert(i));
            return Ok(Self::C(tree));
        }
        let (tree, nodes) = (PointerAvl::new(), PointerAvl::nodes(segments));
        nodes.iter().for_each(|node| tree.insert(node));
        Ok(Self::Pointer { tree, nodes })
    }
}

impl Index for Classic {
    #[inline]
    fn find(&self, address: u64) -> u64 {
        match self {
            Self::Pointer { tree, .. } => {
                tree.find(address).map_or(NOTHING, |node| u64::from(node.value))
            }
            Self::C(tree) => tree.find(address).map_or(NOTHING, u64::from),
        }
    }

    #[inline]
    fn find_or_next(&self, address: u64) -> u64 {
        match self {
            Self::Pointer { tree, .. } => {
                tree.find_or_next(address).map_or(NOTHING, |node| u64::from(node.value))
            }
            Self::C(tree) => tree.find_or_next(address).map_or(NOTHING, u64::from),
        }
    }

    fn replace(&mut self, victim: usize) {
        match self {
            Self::Pointer { tree, nodes } => {
                tree.remove(&nodes[victim]);
                tree.insert(&nodes[victim]);
            }
            Self::C(tree) => {
                tree.remove(victim);
                tree.insert(victim);
            }
        }
    }
}

/// Whether two indexes agree on where everything is: checked once before anything is measured.
pub(crate) fn agree(a: &impl Index, b: &impl Index, n: usize) -> bool {
    (0..n as u64).step_by(1 + n / 1000).all(|i| {
        let (inside, gap) = (i * STEP + LEN - 1, i * STEP + LEN);
        (a.find(inside) == NOTHING) == (b.find(inside) == NOTHING)
            && a.find(gap) == NOTHING
            && b.find(gap) == NOTHING
            && (a.find_or_next(gap) == NOTHING) == (b.find_or_next(gap) == NOTHING)
    })
}
