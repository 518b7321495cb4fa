//! Row 4: a store to a page shared since fork, with the copy, cold: 64 000 pages of a child.
//!
//! The kernel's child does the same in a real fork of this process that inherits nothing else of size; it takes the time itself
//! and reports through a shared page. The second reference is the copy alone, from the calibration of the same repetition, between frames in
//! random order: ours are scattered, but come in the order of their addresses.

use std::sync::atomic::Ordering;
use std::time::Instant;

use page_db::{Counter, PAGE_SIZE};

use crate::harness::{Also, Config, Goal, Group, GroupSpec, Rng, Samples, median, timed};
use crate::linux::{PAGE, Region};
use crate::linux_fork::{NotInherited, fork_running};
use crate::our_world::{Aged, World};
use crate::peers::shape;
use crate::row_fork::resident_pages;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "4a",
            "copy-on-write fault in the child, 64 000 cold pages, ns",
            ["4.ours", "4.linux"],
            "Linux, in the forked child",
            [0.50, 0.35],
        ),
        Goal::at_most(
            "4b",
            "copy-on-write fault in the child, 64 000 cold pages, ns",
            ["4.ours", "calibration.copy_cold"],
            "memcpy 4 KiB cold + locked op",
            [2.0, 1.4],
        ),
    ],
    also: &[Also::new("4", "the parent's store after the child's exit (no copy), ns", "4.reuse")],
    build: |_| Ok(Box::new(Cow::new()?)),
};

const PAGES: usize = 64_000;
/// The parent's, and as many for the child in half of what is left.
const FRAMES: usize = 3 * PAGES + 2 * 16_384;

struct Cow {
    world: World,
    aged: Aged,
    rng: Rng,
}

impl Cow {
    fn new() -> Result<Self, String> {
        let world = World::new(FRAMES, true)?;
        let mut this = Self { world, aged: Aged::default(), rng: Rng::new(4) };
        let hand = this.world.on(0);
        this.aged.anew(&hand, &mut this.rng);
        hand.map(shape::BASE, PAGES * PAGE);
        (0..PAGES).for_each(|page| hand.fault(shape::BASE + page * PAGE));
        drop(hand);
        Ok(this)
    }
}

impl Group for Cow {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        const COPIES: [(Counter, usize); 3] = [
            (Counter::Case1B, PAGES),
            (Counter::CowFault, PAGES),
            (Counter::BytesCopied, PAGES * PAGE_SIZE as usize),
        ];
        const REUSES: [(Counter, usize); 2] = [(Counter::Case1A, PAGES), (Counter::BytesCopied, 0)];
        let hand = self.world.on(0);
        self.aged.anew(&hand, &mut self.rng);
        let child = hand.fork();
        let store = |page: usize| child.fault(shape::BASE + page * PAGE);
        let stores = || timed(PAGES, |part| part.for_each(store));
        samples.put("4.ours", hand.counted(&COPIES, stores));
        child.exit();
        let store = |page: usize| hand.fault(shape::BASE + page * PAGE);
        let stores = || timed(PAGES, |part| part.for_each(store));
        samples.put("4.reuse", hand.counted(&REUSES, stores));
        match linux() {
            Ok(time) => samples.put("4.linux", time),
            Err(why) => samples.lacks("4.linux", why),
        }
    }
}

/// Parts the child's loop is cut into, as [`timed`] does it.
const PARTS: usize = 16;

/// ns per page in the child.
fn linux() -> Result<f64, String> {
    let memory = resident_pages(PAGES)?;
    let report = Region::shared(PAGE).map_err(|e| e.to_string())?;
    let _withheld = NotInherited::all_but(&memory.addresses()).map_err(|e| e.to_string())?;
    let child = || {
        for part in 0..PARTS {
            let start = Instant::now();
            for page in part * (PAGES / PARTS)..(part + 1) * (PAGES / PARTS) {
                memory.touch(page * PAGE);
            }
            let time = start.elapsed().as_nanos() as u64;
            report.word(part).store(time, Ordering::Relaxed);
        }
    };
    fork_running(child, || ()).map_err(|e| format!("fork: {e}"))?;
    let parts: Vec<f64> =
        (0..PARTS).map(|part| report.word(part).load(Ordering::Relaxed) as f64).collect();
    Ok(median(&parts) / (PAGES / PARTS) as f64)
}
