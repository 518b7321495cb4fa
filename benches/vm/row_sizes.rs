//! Row 20: bytes, counted by the allocator, not computed.
//!
//! ```text
//!   page      what a machine grows by per frame (page structure, hash, tables sized at boot)
//!             + heap growth per page while a dense segment is faulted in (slot, anon, table structures)
//!             + frames of page tables per resident page
//!   segment   heap growth of mapping and touching aligned 64-page segments whose page tables exist already,
//!             every block of slots present, less the anons themselves and less 4 bytes per slot
//! ```

use crate::alloc::bytes_kept;
use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Samples};
use crate::linux::PAGE;
use crate::our_world::World;
use crate::peers::shape;

const fn goal(
    row: &'static str,
    name: &'static str,
    ours: &'static str,
    reference: &'static str,
    against: &'static str,
    must: f64,
    stretch: f64,
) -> Goal {
    Goal { row, name, ours, reference, against, form: Form::Bytes, threads: 1, must, stretch }
}

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        goal(
            "20a",
            "metadata per resident private anonymous page, bytes",
            "20.page",
            "20.linux.page",
            "Linux (illumos ~188)",
            104.0,
            88.0,
        ),
        goal(
            "20b",
            "per touched 64-page segment beside 4 per page, bytes",
            "20.segment",
            "20.linux.segment",
            "Linux (illumos ~320-380)",
            288.0,
            192.0,
        ),
    ],
    also: &[
        Also { row: "20", name: "of it: per frame of the machine, bytes", key: "20.frame" },
        Also { row: "20", name: "of it: heap per page faulted in, bytes", key: "20.heap" },
        Also { row: "20", name: "of it: page tables per resident page, bytes", key: "20.tables" },
        Also { row: "20", name: "untouched 64-page segment, bytes", key: "20.untouched" },
    ],
    build: |_| Ok(Box::new(Sizes::count()?)),
};

/// `struct page` and a page-table entry; a VMA with its share of the tree, an anon_vma and its chain link.
const LINUX_PAGE: f64 = 72.0;
const LINUX_SEGMENT: f64 = 379.0;

/// Counted once: bytes do not vary.
struct Sizes {
    frame: f64,
    heap: f64,
    tables: f64,
    untouched: f64,
    segment: f64,
}

impl Sizes {
    fn count() -> Result<Self, String> {
        const FRAMES: usize = 1 << 16;
        let (small, less) = bytes_kept(|| World::new(FRAMES, false));
        let (large, more) = bytes_kept(|| World::new(2 * FRAMES, false));
        let (small, large) = (small?, large?);
        let frame = (more - less) as f64 / FRAMES as f64;

        let pages = FRAMES / 2;
        let hand = small.on(0);
        hand.map(shape::BASE, pages * PAGE);
        let free = small.free_frames();
        let ((), heap) =
            bytes_kept(|| (0..pages).for_each(|page| hand.fault(shape::BASE + page * PAGE)));
        let tables = (free - small.free_frames() - pages) * PAGE;
        let (untouched, segment) = segments(&large);
        Ok(Self {
            frame,
            heap: heap as f64 / pages as f64,
            tables: tables as f64 / pages as f64,
            untouched,
            segment,
        })
    }
}

/// Bytes of a 64-page segment, untouched and touched.
fn segments(world: &World) -> (f64, f64) {
    const SEGMENTS: usize = 4096;
    const SLOTS: [usize; 2] = [0, 32]; // one page in every block of slots
    let start = |segment: usize| shape::address(shape::BASE, segment, 0);
    let hand = world.on(0);
    let touch = |segment: usize, page: usize| hand.fault(start(segment) + page * PAGE);
    // Four segments share a leaf table: the first of each four brings it in and is not counted.
    let (first, counted): (Vec<usize>, Vec<usize>) =
        (0..SEGMENTS).partition(|segment| segment % 4 == 0);
    for &segment in &first {
        hand.map(start(segment), shape::PAGES * PAGE);
        SLOTS.iter().for_each(|&page| touch(segment, page));
    }
    let per_segment = |bytes: isize| bytes as f64 / counted.len() as f64;
    let ((), mapped) = bytes_kept(|| {
        counted.iter().for_each(|&segment| hand.map(start(segment), shape::PAGES * PAGE))
    });
    let ((), touched) = bytes_kept(|| {
        counted.iter().for_each(|&segment| SLOTS.iter().for_each(|&page| touch(segment, page)))
    });
    let ((), anons) = bytes_kept(|| {
        counted.iter().for_each(|&segment| SLOTS.iter().for_each(|&page| touch(segment, page + 1)))
    });
    let slots = 4.0 * shape::PAGES as f64;
    (per_segment(mapped), per_segment(mapped + touched - anons) - slots)
}

impl Group for Sizes {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        samples.put("20.page", self.frame + self.heap + self.tables);
        samples.put("20.linux.page", LINUX_PAGE);
        samples.put("20.segment", self.segment);
        samples.put("20.linux.segment", LINUX_SEGMENT);
        samples.put("20.frame", self.frame);
        samples.put("20.heap", self.heap);
        samples.put("20.tables", self.tables);
        samples.put("20.untouched", self.untouched);
    }
}
