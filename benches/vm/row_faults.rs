//! Row 1: the anonymous zero-fill fault, warm, against Linux with its trap and without.

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Samples, per_operation, windows};
use crate::linux::{PAGE, Region};
use crate::our_world::World;
use crate::peers::shape;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal {
            row: "1a",
            name: "zero-fill fault, 256 warm pages, ns",
            ours: "1.ours",
            reference: "1.touch",
            against: "Linux first touch",
            form: Form::AtMost,
            threads: 1,
            must: 0.35,
            stretch: 0.25,
        },
        Goal {
            row: "1b",
            name: "zero-fill fault, 256 warm pages, ns",
            ours: "1.ours",
            reference: "1.populate",
            against: "Linux populate",
            form: Form::AtMost,
            threads: 1,
            must: 0.75,
            stretch: 0.50,
        },
    ],
    also: &[Also {
        row: "1",
        name: "software part: the same fault, data untouched, ns",
        key: "1.no_data",
    }],
    build: |config| Ok(Box::new(Faults::new(config)?)),
};

/// Pages faulted in one window.
pub(crate) const WINDOW: usize = shape::WARM * shape::PAGES;

/// The kernel's copy of the fault rows' segments: as many mappings, as many gaps. Made for one
/// measurement and unmapped after it, so that it does not weigh on the fork row.
pub(crate) fn linux_segments() -> Result<Region, String> {
    let region = Region::anonymous(shape::SEGMENTS * shape::STRIDE).map_err(|e| e.to_string())?;
    for segment in 0..shape::SEGMENTS {
        let gap = shape::address(0, segment, shape::PAGES);
        region
            .punch(gap, shape::STRIDE - shape::PAGES * PAGE)
            .map_err(|e| format!("punching a gap: {e}"))?;
    }
    Ok(region)
}

/// The warm segments of thread `thread`, spread over the whole range.
pub(crate) fn warm_segments(thread: usize) -> impl Iterator<Item = usize> + Clone {
    (0..shape::WARM).map(move |i| i * (shape::SEGMENTS / shape::WARM) + 7 * thread)
}

/// One window's addresses.
pub(crate) fn warm_pages(base: usize, thread: usize) -> Vec<usize> {
    warm_segments(thread)
        .flat_map(|segment| (0..shape::PAGES).map(move |page| shape::address(base, segment, page)))
        .collect()
}

/// Windows of warm zero-fill faults through our whole path, `threads` at once, each in segments of its own.
pub(crate) fn our_windows(
    config: &Config,
    world: &World,
    threads: usize,
    count: usize,
) -> Vec<f64> {
    windows(
        config,
        threads,
        count,
        |cpu| (world.on(cpu), cpu, warm_pages(shape::BASE, cpu)),
        |(hand, cpu, _)| {
            for segment in warm_segments(*cpu) {
                let start = shape::address(shape::BASE, segment, 0);
                hand.unmap(start, shape::PAGES * PAGE);
                hand.map(start, shape::PAGES * PAGE);
            }
        },
        |_| (),
        |(hand, _, pages)| pages.iter().for_each(|&address| hand.fault(address)),
    )
}

/// The kernel's windows of the same shape.
pub(crate) fn linux_windows(
    config: &Config,
    region: &Region,
    threads: usize,
    count: usize,
    work: impl Fn(usize, &[usize]) + Sync,
) -> Vec<f64> {
    windows(
        config,
        threads,
        count,
        |thread| (thread, warm_pages(0, thread)),
        |(thread, _)| {
            for segment in warm_segments(*thread) {
                region
                    .release(shape::address(0, segment, 0), shape::PAGES * PAGE)
                    .expect("releasing our own pages");
            }
        },
        |_| (),
        |(thread, pages)| work(*thread, pages),
    )
}

struct Faults {
    world: World,
    blind: World,
}

impl Faults {
    fn new(_config: &Config) -> Result<Self, String> {
        let frames = 4 * WINDOW + 4096;
        let (world, blind) = (World::new(frames, true)?, World::new(frames, false)?);
        world.on(0).map_fault_segments();
        blind.on(0).map_fault_segments();
        Ok(Self { world, blind })
    }
}

impl Group for Faults {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let count = config.pick(101, 31);
        samples.put("1.ours", per_operation(&our_windows(config, &self.world, 1, count), WINDOW));
        match linux_segments() {
            Ok(region) => linux_faults(config, &region, count, samples),
            Err(why) => ["1.touch", "1.populate"]
                .into_iter()
                .for_each(|key| samples.lacks(key, why.clone())),
        }
        samples
            .put("1.no_data", per_operation(&our_windows(config, &self.blind, 1, count), WINDOW));
    }
}

fn linux_faults(config: &Config, region: &Region, count: usize, samples: &mut Samples) {
    let touch = |_thread: usize, pages: &[usize]| pages.iter().for_each(|&page| region.touch(page));
    samples.put("1.touch", per_operation(&linux_windows(config, region, 1, count, touch), WINDOW));
    let populate = |thread: usize, _pages: &[usize]| {
        for segment in warm_segments(thread) {
            region
                .populate(shape::address(0, segment, 0), shape::PAGES * PAGE)
                .expect("memory for 256 pages");
        }
    };
    samples.put(
        "1.populate",
        per_operation(&linux_windows(config, region, 1, count, populate), WINDOW),
    );
}
