//! Random histories, step by step against a `BTreeMap`, with every invariant checked at each step.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::*;

/// What the tree should hold: start to (end, id), and which ids come next.
#[derive(Default)]
struct Model {
    held: BTreeMap<u64, (u64, NodeId)>,
    freed: Vec<NodeId>,
    slots: u32,
}

impl Model {
    /// The lowest interval that overlaps `[start, end)`.
    fn overlap(&self, start: u64, end: u64) -> Option<NodeId> {
        let below = self.held.range(..=start).next_back().filter(|(_, held)| held.0 > start);
        let above = || self.held.range(start..end).next();
        below.or_else(above).map(|(_, held)| held.1)
    }

    fn insert(&mut self, start: u64, end: u64, limits: (u64, u64)) -> Result<NodeId, InsertError> {
        if start >= end {
            return Err(InsertError::Empty);
        }
        if start < limits.0 || end > limits.1 {
            return Err(InsertError::OutOfLimits);
        }
        if let Some(with) = self.overlap(start, end) {
            return Err(InsertError::Overlap { with });
        }
        let id = self.freed.pop().unwrap_or_else(|| {
            self.slots += 1;
            NodeId::from_raw(self.slots - 1)
        });
        self.held.insert(start, (end, id));
        Ok(id)
    }

    fn remove(&mut self, start: u64) {
        let (_, id) = self.held.remove(&start).expect("held");
        self.freed.push(id);
    }

    fn resize(
        &mut self,
        old: u64,
        (start, end): (u64, u64),
        limits: (u64, u64),
    ) -> Result<(), ResizeError> {
        let taken = self.held.remove(&old).expect("held");
        let verdict = if start >= end {
            Err(ResizeError::Empty)
        } else if start < limits.0 || end > limits.1 {
            Err(ResizeError::OutOfLimits)
        } else if let Some(with) = self.overlap_nearest(old, start, end) {
            Err(ResizeError::Overlap { with })
        } else {
            Ok(())
        };
        match verdict {
            Ok(()) => self.held.insert(start, (end, taken.1)),
            Err(_) => self.held.insert(old, taken),
        };
        verdict
    }

    /// Of the intervals that overlap `[start, end)`, the one next to the place `old`.
    fn overlap_nearest(&self, old: u64, start: u64, end: u64) -> Option<NodeId> {
        let overlaps = |&(at, held): &(&u64, &(u64, NodeId))| *at < end && held.0 > start;
        let below = self.held.range(..old).next_back().filter(overlaps);
        below.or_else(|| self.held.range(old..).next().filter(overlaps)).map(|(_, held)| held.1)
    }

    fn find_or_next(&self, addr: u64) -> Option<NodeId> {
        self.overlap(addr, addr + 1)
            .or_else(|| self.held.range(addr..).next().map(|(_, held)| held.1))
    }
}

/// One random step; `unit` is the grain of all addresses.
fn step(tree: &mut Avl, model: &mut Model, rng: &mut Rng, unit: u64, growing: bool) {
    let limits = tree.limits();
    let units = (limits.1 - limits.0) / unit;
    let addr = |rng: &mut Rng| limits.0 - unit + rng.below(units + 2) * unit;
    let pick = |model: &Model, rng: &mut Rng| {
        let near = addr(rng);
        let above = model.held.range(near..).next().or_else(|| model.held.iter().next());
        above.map(|(&start, &(end, id))| (start, end, id))
    };
    let inserts = if growing { 5 } else { 2 };
    match (rng.below(10), pick(model, rng)) {
        (roll, None) if roll >= inserts => {}
        (roll, _) if roll < inserts => {
            let start = addr(rng);
            let end = (start + rng.below(12) * unit).saturating_sub(rng.below(8) / 7 * unit);
            assert_eq!(tree.insert(start, end), model.insert(start, end, limits));
        }
        (6 | 7, Some((start, end, id))) => {
            let to = (start + rng.below(9) * unit).saturating_sub(4 * unit);
            assert_eq!(tree.set_start(id, to), model.resize(start, (to, end), limits));
        }
        (8 | 9, Some((start, end, id))) => {
            let to = (end + rng.below(9) * unit).saturating_sub(4 * unit);
            assert_eq!(tree.set_end(id, to), model.resize(start, (start, to), limits));
        }
        (_, Some((start, end, id))) => {
            assert_eq!(tree.remove(id), Some((start, end)));
            model.remove(start);
        }
        (_, None) => {}
    }
}

fn compare(tree: &Avl, model: &Model, rng: &mut Rng) {
    if let Err(damage) = tree.verify() {
        panic!("{damage}\n{tree}");
    }
    let held = model.held.iter().map(|(&start, &(end, id))| (start, end, id));
    assert!(tree.iter().map(|id| (tree.start(id), tree.end(id), id)).eq(held));
    let (low, high) = tree.limits();
    for _ in 0..4 {
        let addr = low.saturating_sub(9) + rng.below(high - low + 20);
        let mut visits = Visits::default();
        assert_eq!(tree.find(addr, &mut visits), model.overlap(addr, addr + 1));
        assert!(visits.0 <= tree.height().into());
        assert_eq!(tree.find_or_next(addr, &mut visits), model.find_or_next(addr));
        let from = tree.iter_from(addr).map(|id| tree.start(id));
        assert!(from.eq(tree.iter().filter(|&id| tree.end(id) > addr).map(|id| tree.start(id))));
    }
}

fn history(seed: u64, steps: u64, low: u64, high: u64, unit: u64) -> usize {
    let mut rng = Rng(seed);
    let (mut tree, mut model) = (Avl::new(low, high), Model::default());
    let mut most = 0;
    for i in 0..steps {
        // Tides, so that deep removals and full drains happen too.
        step(&mut tree, &mut model, &mut rng, unit, (i / 700) % 3 != 2);
        compare(&tree, &model, &mut rng);
        most = most.max(tree.len());
    }
    for id in tree.iter().collect::<Vec<_>>() {
        tree.remove(id).expect("held");
        tree.verify().expect("sound while draining");
    }
    assert_eq!((tree.first(), tree.last(), tree.height()), (None, None, 0));
    most
}

#[test]
fn eight_thousand_random_edits_agree_with_a_btree_map() {
    let most = history(1, 8000, 0x10_0000, 0x10_0000 + 6000 * K4, K4);
    assert!(most > 300, "only {most} at once");
}

#[test]
fn small_crowded_histories_agree_with_a_btree_map() {
    for seed in 0..200 {
        history(seed, 300, 3, 90, 1);
    }
}
