//! Row 15: two threads faulting at once, in segments of their own and in one segment.

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Samples, per_operation, windows};
use crate::linux::{PAGE, Region};
use crate::our_world::World;
use crate::peers::shape;
use crate::row_faults::{WINDOW, linux_segments, linux_windows, our_windows};

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal {
            row: "15a",
            name: "two threads, warm zero-fill, disjoint segments, ns per fault per thread",
            ours: "15.ours.segments.2",
            reference: "15.ours.segments.1",
            against: "one thread",
            form: Form::Speedup,
            threads: 2,
            must: 1.7,
            stretch: 1.85,
        },
        Goal {
            row: "15b",
            name: "two threads, warm zero-fill, one segment, disjoint pages, ns per fault per thread",
            ours: "15.ours.one.2",
            reference: "15.ours.one.1",
            against: "one thread",
            form: Form::Speedup,
            threads: 2,
            must: 1.3,
            stretch: 1.6,
        },
    ],
    also: &[
        Also { row: "15", name: "Linux, disjoint mappings, speed-up", key: "15.linux.segments" },
        Also {
            row: "15",
            name: "Linux, one mapping, disjoint pages, speed-up",
            key: "15.linux.one",
        },
        Also {
            row: "15",
            name: "ours, data untouched, disjoint segments, speed-up",
            key: "15.ours.no_data",
        },
    ],
    build: |config| {
        if config.two_cpus() {
            Ok(Box::new(Threads::new()?))
        } else {
            Err("this process may use one CPU only".into())
        }
    },
};

/// Where the segment lies that two threads share; above all others.
const SHARED: usize = shape::BASE + (shape::SEGMENTS + 1) * shape::STRIDE;

struct Threads {
    world: World,
    blind: World,
}

impl Threads {
    fn new() -> Result<Self, String> {
        let frames = 8 * WINDOW + 8192;
        let (world, blind) = (World::new(frames, true)?, World::new(frames, false)?);
        world.on(0).map_fault_segments();
        blind.on(0).map_fault_segments();
        world.on(0).map(SHARED, 2 * WINDOW * PAGE);
        Ok(Self { world, blind })
    }

    /// Each thread gives its own half back, so that frames return to the processor that used them; then the whole is
    /// mapped again, once.
    fn one_segment(&self, config: &Config, threads: usize, count: usize) -> f64 {
        let half = WINDOW * PAGE;
        let lengths = windows(
            config,
            threads,
            count,
            |cpu| (self.world.on(cpu), SHARED + cpu * half),
            |(hand, start)| hand.unmap(*start, half),
            |(hand, _)| {
                if threads == 1 {
                    hand.unmap(SHARED + half, half);
                }
                hand.map(SHARED, 2 * half);
            },
            |(hand, start)| (0..WINDOW).for_each(|page| hand.fault(*start + page * PAGE)),
        );
        per_operation(&lengths, WINDOW)
    }
}

/// The kernel's two halves of one mapping.
fn linux_one(config: &Config, region: &Region, threads: usize, count: usize) -> f64 {
    let half = WINDOW * PAGE;
    let arm =
        |thread: &mut usize| region.release(*thread * half, half).expect("releasing our own pages");
    let work = |thread: &mut usize| {
        (0..WINDOW).for_each(|page| region.touch(*thread * half + page * PAGE))
    };
    per_operation(&windows(config, threads, count, |thread| thread, arm, |_| (), work), WINDOW)
}

impl Group for Threads {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let count = config.pick(151, 51);
        let ours = |world: &World, threads| {
            per_operation(&our_windows(config, world, threads, count), WINDOW)
        };
        samples.put("15.ours.segments.1", ours(&self.world, 1));
        samples.put("15.ours.segments.2", ours(&self.world, 2));
        samples.put("15.ours.one.1", self.one_segment(config, 1, count));
        samples.put("15.ours.one.2", self.one_segment(config, 2, count));
        samples.put("15.ours.no_data", 2.0 * ours(&self.blind, 1) / ours(&self.blind, 2));
        if let Ok(region) = linux_segments() {
            let touch =
                |_thread: usize, pages: &[usize]| pages.iter().for_each(|&page| region.touch(page));
            let linux = |threads| {
                per_operation(&linux_windows(config, &region, threads, count, touch), WINDOW)
            };
            samples.put("15.linux.segments", 2.0 * linux(1) / linux(2));
        }
        if let Ok(region) = Region::anonymous(2 * WINDOW * PAGE) {
            let one = linux_one(config, &region, 1, count);
            samples.put("15.linux.one", 2.0 * one / linux_one(config, &region, 2, count));
        }
    }
}
