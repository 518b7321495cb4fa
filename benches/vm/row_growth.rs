//! Row 10: how every operation on one segment grows from 1 000 segments to 100 000.
//!
//! The goal holds ours against itself; the figures beside it are the growth of the maps one would take instead, each
//! as an index alone: the classic tree (a C library where `SEGVM_AVL_C` names one), `BTreeMap`, and `memory_set`.

use std::hint::black_box;

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::index::{self, BTree, Classic, Index, segments};
use crate::linux::PAGE;
use crate::our_world::World;
use crate::peers::{Areas, shape};
use crate::row_index::{addresses, dependent, pairs};

/// One operation at 100 000 segments over the same at 1 000.
const fn growth(
    row: &'static str,
    name: &'static str,
    ours: &'static str,
    reference: &'static str,
    must: f64,
    stretch: f64,
) -> Goal {
    Goal {
        row,
        name,
        ours,
        reference,
        against: "at 1 000",
        form: Form::AtMost,
        threads: 1,
        must,
        stretch,
    }
}

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        growth(
            "10.map",
            "unmap + map a random segment at 100 000 segments, ns",
            "10.pair.100k",
            "10.pair.1k",
            2.0,
            1.6,
        ),
        growth(
            "10.setprot",
            "setprot, one page of four and back, at 100 000 segments, ns",
            "10.prot.100k",
            "10.prot.1k",
            2.0,
            1.3,
        ),
        growth(
            "10.find",
            "find a random segment at 100 000 segments, ns",
            "10.find.100k",
            "10.find.1k",
            3.0,
            2.6,
        ),
        growth(
            "10.gap",
            "gap search with one fitting hole at 100 000 segments, ns",
            "10.gap.100k",
            "10.gap.1k",
            2.5,
            1.5,
        ),
    ],
    also: &[
        Also {
            row: "10",
            name: "memory_set unmap + map at 1 000 areas, ns",
            key: "10.memory_set.1k",
        },
        Also {
            row: "10",
            name: "memory_set unmap + map at 100 000 areas, ns",
            key: "10.memory_set.100k",
        },
        Also { row: "10", name: "building up, per segment, 100 000 segments, ns", key: "10.build" },
        Also::new("10", "classic tree, remove + insert, 100 000 over 1 000", "10.classic.pair"),
        Also::new("10", "classic tree, find, 100 000 over 1 000", "10.classic.find"),
        Also::new("10", "BTreeMap, remove + insert, 100 000 over 1 000", "10.btree.pair"),
        Also::new("10", "BTreeMap, find, 100 000 over 1 000", "10.btree.find"),
    ],
    build: |config| Ok(Box::new(Growth::new(config)?)),
};

/// Pages of a segment, and pages from one base to the next.
const LEN: usize = 4 * PAGE;
const STEP: usize = 8 * PAGE;
/// The hole the gap search is for: three segments left out.
const HOLE: usize = 3;

/// A space of `n` segments, made in random order, with one hole.
struct Crowd {
    world: World,
    n: usize,
    hole: usize,
    /// Its segments, in an order that has nothing to do with address or birth.
    victims: Vec<u32>,
    built: f64,
}

impl Crowd {
    fn new(n: usize) -> Result<Self, String> {
        let world = World::new(4096, true)?;
        let hole = n * 3 / 5;
        let order: Vec<u32> = Rng::new(10)
            .permutation(n)
            .into_iter()
            .filter(|&i| !(hole..hole + HOLE).contains(&(i as usize)))
            .collect();
        let hand = world.on(0);
        let built =
            timed(order.len(), |part| order[part].iter().for_each(|&i| hand.map(start(i), LEN)));
        let mut victims = order;
        Rng::new(12).shuffle(&mut victims);
        drop(hand);
        Ok(Self { world, n, hole, victims, built })
    }

    fn pair(&self, count: usize) -> f64 {
        let hand = self.world.on(0);
        timed(count, |part| {
            for &i in &self.victims[part] {
                hand.unmap(start(i), LEN);
                hand.map(start(i), LEN);
            }
        })
    }

    fn protect(&self, count: usize) -> f64 {
        let hand = self.world.on(0);
        timed(count, |part| {
            for &i in &self.victims[part] {
                hand.protect(start(i) + PAGE, PAGE, false);
                hand.protect(start(i) + PAGE, PAGE, true);
            }
        })
    }

    /// Each address depends on the last answer, as one fault's find does on nothing before it.
    fn find(&self, count: usize) -> f64 {
        let hand = self.world.on(0);
        let zero = black_box(0);
        let mut last = 0;
        timed(count, |part| {
            for i in part {
                let victim = self.victims[i % self.victims.len()];
                last = hand.find((start(victim) + PAGE) | (last & zero));
            }
            black_box(last);
        })
    }

    fn gap(&self, count: usize) -> f64 {
        let hand = self.world.on(0);
        let hole = start(self.hole as u32) - (STEP - LEN);
        let end = start(self.n as u32) - (STEP - LEN);
        timed(count, |part| {
            for _ in part {
                let at = hand.find_gap(shape::BASE, end - shape::BASE, HOLE * STEP + STEP - LEN);
                assert_eq!(black_box(at), Some(hole), "the only hole that fits");
            }
        })
    }
}

fn start(segment: u32) -> usize {
    shape::BASE + segment as usize * STEP
}

struct Growth {
    small: Crowd,
    large: Crowd,
    areas: [Areas; 2],
    classic: [Classic; 2],
    btree: [BTree; 2],
    /// Addresses inside the segments of each crowd.
    inside: [Vec<u64>; 2],
}

/// Segments of the small crowd and of the large one.
const SIZES: [usize; 2] = [1000, 100_000];

fn areas(n: usize) -> Areas {
    let mut areas = Areas::new();
    Rng::new(10).permutation(n).into_iter().for_each(|i| areas.map(start(i), LEN, true));
    areas
}

/// `count` random areas of `n` taken out and put back.
fn replace(areas: &mut Areas, n: usize, count: usize) -> f64 {
    let victims = Rng::new(11).permutation(n);
    timed(count, |part| {
        for &i in &victims[part] {
            areas.unmap(start(i), LEN);
            areas.map(start(i), LEN, true);
        }
    })
}

impl Growth {
    fn new(_config: &Config) -> Result<Self, String> {
        let [small, large] = SIZES.map(segments);
        Ok(Self {
            small: Crowd::new(SIZES[0])?,
            large: Crowd::new(SIZES[1])?,
            areas: SIZES.map(areas),
            classic: [Classic::new(&small)?, Classic::new(&large)?],
            btree: [BTree::new(&small), BTree::new(&large)],
            inside: SIZES.map(|n| addresses(&mut Rng::new(111), n, 0..index::LEN)),
        })
    }
}

/// How much dearer a pair and a find are in the larger of two indexes.
fn growth_of(indexes: &mut [impl Index; 2], inside: &[Vec<u64>; 2]) -> (f64, f64) {
    let [few, many] = indexes;
    let pair = pairs(many, SIZES[1]) / pairs(few, SIZES[0]);
    let find = |index: &dyn Fn(u64) -> u64, addresses| dependent(addresses, index);
    let few = find(&|address| few.find(address), &inside[0]);
    (pair, find(&|address| many.find(address), &inside[1]) / few)
}

impl Group for Growth {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let Self { small, large, areas: [few, many], classic, btree, inside } = self;
        small.pair(900); // the first run of a repetition pays for what the other groups left in the cache
        samples.put("10.pair.1k", small.pair(900));
        samples.put("10.pair.100k", large.pair(20_000));
        samples.put("10.prot.1k", small.protect(900));
        samples.put("10.prot.100k", large.protect(20_000));
        samples.put("10.find.1k", small.find(50_000));
        samples.put("10.find.100k", large.find(50_000));
        samples.put("10.gap.1k", small.gap(5000));
        samples.put("10.gap.100k", large.gap(5000));
        samples.put("10.memory_set.1k", replace(few, 1000, 500));
        samples.put("10.memory_set.100k", replace(many, 100_000, 40));
        samples.put("10.build", large.built);
        let (pair, find) = growth_of(classic, inside);
        samples.put("10.classic.pair", pair);
        samples.put("10.classic.find", find);
        let (pair, find) = growth_of(btree, inside);
        samples.put("10.btree.pair", pair);
        samples.put("10.btree.find", find);
    }
}
