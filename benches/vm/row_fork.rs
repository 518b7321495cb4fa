//! Row 7: fork, per resident page and per segment, against the real one until it returns in the parent.
//!
//! Both sides leave the parent's pages write-protected; they are written again before the next repetition, so that
//! every fork finds writable entries. The kernel's side is mapped for the occasion and unmapped after it: a mapping
//! withheld from the child still costs a fork its walk over the tree.

use std::time::Instant;

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Samples};
use crate::linux::{PAGE, Region};
use crate::linux_fork::{NotInherited, fork_once};
use crate::our_world::World;
use crate::peers::shape;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal {
            row: "7a",
            name: "as_dup, per resident anonymous page, ns",
            ours: "7.ours.page",
            reference: "7.linux.page",
            against: "Linux fork, per page",
            form: Form::AtMost,
            threads: 1,
            must: 0.25,
            stretch: 0.12,
        },
        Goal {
            row: "7b",
            name: "as_dup, 10 000 one-page segments, per segment, ns",
            ours: "7.ours.segment",
            reference: "7.linux.segment",
            against: "Linux fork, per mapping",
            form: Form::AtMost,
            threads: 1,
            must: 1.0,
            stretch: 0.6,
        },
    ],
    also: &[
        Also {
            row: "7",
            name: "as_dup, 10 000 touched one-page segments, per segment, ns",
            key: "7.ours.touched",
        },
        Also {
            row: "7",
            name: "Linux fork, 10 000 touched one-page mappings, per mapping, ns",
            key: "7.linux.touched",
        },
        Also {
            row: "7",
            name: "Linux fork of a process holding nothing of the above, us",
            key: "7.linux.empty",
        },
    ],
    build: |config| Ok(Box::new(Fork::new(config)?)),
};

const PAGES: usize = 64_000;
const SEGMENTS: usize = 10_000;
const HOST_STRIDE: usize = 2 * PAGE;

struct Fork {
    resident: World,
    segments: World,
    touched: World,
}

/// One-page segments with one-page gaps.
fn one_page_segments(touch: bool) -> Result<World, String> {
    let world = World::new(if touch { SEGMENTS + 8192 } else { 4096 }, true)?;
    let hand = world.on(0);
    for segment in 0..SEGMENTS {
        let start = shape::BASE + segment * HOST_STRIDE;
        hand.map(start, PAGE);
        if touch {
            hand.fault(start);
        }
    }
    drop(hand);
    Ok(world)
}

fn one_page_mappings(touch: bool) -> Result<Region, String> {
    let region = Region::anonymous(SEGMENTS * HOST_STRIDE).map_err(|e| e.to_string())?;
    for mapping in 0..SEGMENTS {
        region
            .punch(mapping * HOST_STRIDE + PAGE, PAGE)
            .map_err(|e| format!("mapping {mapping} of {SEGMENTS}: {e}"))?;
        if touch {
            region.touch(mapping * HOST_STRIDE);
        }
    }
    Ok(region)
}

/// Until fork returns in the parent, in ns; only `keep` of the process's big mappings is inherited.
fn linux_fork(keep: &Region) -> std::io::Result<f64> {
    let _withheld = NotInherited::all_but(&keep.addresses())?;
    let start = Instant::now();
    Ok(fork_once(|| start.elapsed())?.as_nanos() as f64)
}

impl Fork {
    fn new(_config: &Config) -> Result<Self, String> {
        let resident = World::new(PAGES + 12_288, true)?;
        resident.on(0).map(shape::BASE, PAGES * PAGE);
        Ok(Self {
            resident,
            segments: one_page_segments(false)?,
            touched: one_page_segments(true)?,
        })
    }

    /// Makes every entry of ours writable again.
    fn write_everything(&self) {
        let (resident, touched) = (self.resident.on(0), self.touched.on(0));
        (0..PAGES).for_each(|page| resident.fault(shape::BASE + page * PAGE));
        (0..SEGMENTS).for_each(|segment| touched.fault(shape::BASE + segment * HOST_STRIDE));
    }
}

/// Forks this process with what `region` maps, and nothing else of size.
pub(crate) fn put_linux(
    samples: &mut Samples,
    key: &'static str,
    region: Result<Region, String>,
    scale: f64,
) {
    match region.and_then(|region| linux_fork(&region).map_err(|e| format!("fork: {e}"))) {
        Ok(time) => samples.put(key, time / scale),
        Err(why) => samples.lacks(key, why),
    }
}

pub(crate) fn resident_pages(count: usize) -> Result<Region, String> {
    let region = Region::anonymous(count * PAGE).map_err(|e| e.to_string())?;
    region.touch_all();
    Ok(region)
}

impl Group for Fork {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        self.write_everything();
        put_linux(samples, "7.linux.page", resident_pages(PAGES), PAGES as f64);
        put_linux(samples, "7.linux.segment", one_page_mappings(false), SEGMENTS as f64);
        put_linux(samples, "7.linux.touched", one_page_mappings(true), SEGMENTS as f64);
        put_linux(samples, "7.linux.empty", resident_pages(1), 1000.0);
        samples.put("7.ours.page", self.resident.on(0).fork_time() / PAGES as f64);
        samples.put("7.ours.segment", self.segments.on(0).fork_time() / SEGMENTS as f64);
        samples.put("7.ours.touched", self.touched.on(0).fork_time() / SEGMENTS as f64);
    }
}
