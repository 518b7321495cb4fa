//! Rows 9 and 10: mapping and unmapping among many segments, and how every operation grows with their number.

use std::hint::black_box;

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::linux::{PAGE, map_and_unmap_one_page};
use crate::our_world::World;
use crate::peers::{Areas, shape};
use crate::row_faults::linux_segments;

pub(crate) const PAIR: GroupSpec = GroupSpec {
    goals: &[
        Goal {
            row: "9a",
            name: "as_map + as_unmap of an untouched page among 1 000 segments, ns",
            ours: "9.ours",
            reference: "9.linux",
            against: "Linux mmap + munmap",
            form: Form::AtMost,
            threads: 1,
            must: 0.35,
            stretch: 0.20,
        },
        Goal {
            row: "9b",
            name: "as_map + as_unmap of an untouched page among 1 000 segments, ns",
            ours: "9.ours",
            reference: "9.memory_set",
            against: "memory_set unmap + map",
            form: Form::AtMost,
            threads: 1,
            must: 0.25,
            stretch: 0.15,
        },
    ],
    also: &[],
    build: |_| Ok(Box::new(Pair::new()?)),
};

const PAIRS: usize = 2000;

struct Pair {
    world: World,
    areas: Areas,
    victims: Vec<u32>,
}

impl Pair {
    fn new() -> Result<Self, String> {
        let world = World::new(4096, true)?;
        world.on(0).map_fault_segments();
        let mut areas = Areas::new();
        (0..shape::SEGMENTS).for_each(|segment| {
            areas.map(shape::address(0, segment + 1, 0), shape::PAGES * PAGE, true)
        });
        Ok(Self { world, areas, victims: Rng::new(9).permutation(shape::SEGMENTS) })
    }
}

impl Group for Pair {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let hand = self.world.on(0);
        let pair = || {
            let at = hand.map_anywhere(PAGE);
            hand.unmap(at, PAGE);
        };
        (0..100).for_each(|_| pair());
        samples.put("9.ours", timed(PAIRS, |part| part.for_each(|_| pair())));
        match linux_segments() {
            Ok(_background) => {
                samples.put(
                    "9.linux",
                    timed(PAIRS, |part| part.for_each(|_| map_and_unmap_one_page())),
                );
            }
            Err(why) => samples.lacks("9.linux", why),
        }
        let per_pair = timed(self.victims.len(), |part| {
            for &victim in &self.victims[part] {
                let start = shape::address(0, victim as usize + 1, 0);
                self.areas.unmap(start, shape::PAGES * PAGE);
                self.areas.map(start, shape::PAGES * PAGE, true);
            }
        });
        samples.put("9.memory_set", per_pair);
    }
}

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

pub(crate) const GROWTH: GroupSpec = GroupSpec {
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
}

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
        Ok(Self {
            small: Crowd::new(1000)?,
            large: Crowd::new(100_000)?,
            areas: [areas(1000), areas(100_000)],
        })
    }
}

impl Group for Growth {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let Self { small, large, areas: [few, many] } = self;
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
    }
}
