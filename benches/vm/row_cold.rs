//! Rows 2 and 8: 64 000 cold pages in 1 000 segments, faulted in once, and taken away again.
//!
//! ```text
//!   ours    a random half of the frames free ─▶ fault every page (2) ─▶ drop the translations, fault again ─▶ unmap (8a)
//!           a random half of the frames free ─▶ another process faults every page ─▶ it exits (8b)
//!   Linux   touch, release, touch (2a) ─▶ release, populate (2b) ─▶ unmap (8)          in as many mappings with as many gaps
//! ```
//!
//! Our free frames lie scattered between frames in use, as they do after a long life; the kernel's are what its own lists give. How
//! many frames came right after the one before all the same is shown beside the row.

use page_db::Counter;

use crate::harness::{Also, Config, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::linux::{PAGE, Region};
use crate::our_world::{Aged, Hand, World};
use crate::peers::shape;
use crate::row_faults::linux_segments;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "2a",
            "zero-fill fault, 64 000 cold pages, ns",
            ["2.ours", "2.touch"],
            "Linux first touch",
            [0.70, 0.40],
        ),
        Goal::at_most(
            "2b",
            "zero-fill fault, 64 000 cold pages, ns",
            ["2.ours", "2.populate"],
            "Linux populate",
            [1.0, 0.60],
        ),
        Goal::at_most(
            "8a",
            "as_unmap, per resident page, ns",
            ["8.unmap", "8.linux"],
            "Linux munmap, per page",
            [0.80, 0.50],
        ),
        Goal::at_most(
            "8b",
            "exit, per resident page, ns",
            ["8.exit", "8.linux"],
            "Linux munmap, per page",
            [0.80, 0.50],
        ),
    ],
    also: &[
        Also::new("2", "faults that got the frame after the last one's, share", "2.in_order"),
        Also::new("2", "soft fault on the same pages, cold, ns", "2.soft"),
    ],
    build: |_| Ok(Box::new(Cold::new()?)),
};

/// Pages of all segments.
pub(crate) const PAGES: usize = shape::SEGMENTS * shape::PAGES;
/// Frames of a machine that holds them in half of its memory, with page tables and room above the page-out thresholds.
pub(crate) const FRAMES: usize = 2 * (PAGES + 12_288);

struct Cold {
    world: World,
    aged: Aged,
    rng: Rng,
}

impl Cold {
    fn new() -> Result<Self, String> {
        Ok(Self { world: World::new(FRAMES, true)?, aged: Aged::default(), rng: Rng::new(2) })
    }
}

/// A store's fault on every page, in order of address.
pub(crate) fn fault_all(hand: &Hand) -> f64 {
    timed(PAGES, |part| {
        for page in part {
            hand.fault(shape::address(shape::BASE, page / shape::PAGES, page % shape::PAGES));
        }
    })
}

/// The addresses of some segments in a row, from `base` on, gaps included.
fn span(base: usize, segments: std::ops::Range<usize>) -> (usize, usize) {
    (shape::address(base, segments.start, 0), segments.len() * shape::STRIDE)
}

/// How many pages lie in the frame after that of the page before.
fn in_order(hand: &Hand) -> f64 {
    let (start, len) = span(shape::BASE, 0..shape::SEGMENTS);
    let mut frames = Vec::with_capacity(PAGES);
    hand.walk(start, len, &mut |frame| frames.push(frame));
    let pairs = frames.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
    pairs as f64 / PAGES as f64
}

impl Group for Cold {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        const MADE: [(Counter, usize); 2] = [(Counter::Zfod, PAGES), (Counter::Case1A, 0)];
        const FOUND: [(Counter, usize); 2] = [(Counter::Zfod, 0), (Counter::Case1A, PAGES)];
        let hand = self.world.on(0);
        self.aged.anew(&hand, &mut self.rng);
        hand.map_fault_segments();
        samples.put("2.ours", hand.counted(&MADE, || fault_all(&hand)));
        samples.put("2.in_order", in_order(&hand));
        let (start, len) = span(shape::BASE, 0..shape::SEGMENTS);
        hand.forget(start, len);
        samples.put("2.soft", hand.counted(&FOUND, || fault_all(&hand)));
        let free = self.world.free_frames();
        let per_segment = timed(shape::SEGMENTS, |part| {
            let (start, len) = span(shape::BASE, part);
            hand.unmap(start, len);
        });
        assert!(self.world.free_frames() >= free + PAGES, "unmapping freed every page");
        samples.put("8.unmap", per_segment / shape::PAGES as f64);

        self.aged.anew(&hand, &mut self.rng);
        let other = hand.spawn();
        other.map_fault_segments();
        fault_all(&other);
        let free = self.world.free_frames();
        let start = std::time::Instant::now();
        other.exit();
        samples.put("8.exit", start.elapsed().as_nanos() as f64 / PAGES as f64);
        assert!(self.world.free_frames() >= free + PAGES, "the exit freed every page");
        if let Err(why) = linux(samples) {
            ["2.touch", "2.populate", "8.linux"]
                .into_iter()
                .for_each(|key| samples.lacks(key, why.clone()));
        }
    }
}

fn touch_all(region: &Region) -> f64 {
    timed(PAGES, |part| {
        for page in part {
            region.touch(shape::address(0, page / shape::PAGES, page % shape::PAGES));
        }
    })
}

fn release_all(region: &Region) -> Result<(), String> {
    (0..shape::SEGMENTS)
        .try_for_each(|segment| region.release(shape::address(0, segment, 0), shape::PAGES * PAGE))
        .map_err(|e| format!("releasing our own pages: {e}"))
}

fn linux(samples: &mut Samples) -> Result<(), String> {
    let region = linux_segments()?;
    touch_all(&region); // the frames come from the kernel's lists from here on, not from the host
    release_all(&region)?;
    samples.put("2.touch", touch_all(&region));
    release_all(&region)?;
    let per_segment = timed(shape::SEGMENTS, |part| {
        for segment in part {
            region
                .populate(shape::address(0, segment, 0), shape::PAGES * PAGE)
                .expect("memory that was there just now");
        }
    });
    samples.put("2.populate", per_segment / shape::PAGES as f64);
    let per_segment = timed(shape::SEGMENTS, |part| {
        let (start, len) = span(0, part);
        region.punch(start, len).expect("unmapping our own memory");
    });
    samples.put("8.linux", per_segment / shape::PAGES as f64);
    Ok(())
}
