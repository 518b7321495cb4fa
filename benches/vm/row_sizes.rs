//! Row 20: bytes, counted by the allocator, not computed; Linux's as the kernel tells them, illumos's from its headers.
//!
//! ```text
//!   page      what a machine grows by per frame (page structure, hash, tables sized at boot)
//!             + heap growth per page while a dense segment is faulted in (slot, anon, table structures)
//!             + frames of page tables per resident page
//!   segment   heap growth of mapping and touching aligned 64-page segments whose page tables exist already,
//!             every block of slots present, less the anons themselves and less 4 bytes per slot
//! ```
//!
//! Tables that grow by doubling hold room for more than is in use, up to as much again. The counts are chosen so that they
//! are nearly full, before and after what is counted: spare room is a matter of the moment, not of a page.

use crate::alloc::bytes_kept;
use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Samples};
use crate::linux::{PAGE, Region};
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
    Goal { row, name, ours, reference, against, form: Form::Own, threads: 1, must, stretch }
}

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        goal(
            "20a",
            "metadata per resident private anonymous page, bytes",
            "20.page",
            "20.linux.page",
            "Linux",
            104.0,
            96.0,
        ),
        goal(
            "20b",
            "per touched 64-page segment beside 4 per page, bytes",
            "20.segment",
            "20.linux.segment",
            "Linux",
            288.0,
            192.0,
        ),
    ],
    also: &[
        Also { row: "20", name: "of it: per frame of the machine, bytes", key: "20.frame" },
        Also { row: "20", name: "of it: heap per page faulted in, bytes", key: "20.heap" },
        Also { row: "20", name: "of it: page tables per resident page, bytes", key: "20.tables" },
        Also { row: "20", name: "untouched 64-page segment, bytes", key: "20.untouched" },
        Also::new("20", "illumos, per resident private anonymous page, bytes", "20.illumos.page"),
        Also::new("20", "illumos, per touched segment, bytes", "20.illumos.segment"),
    ],
    build: |_| Ok(Box::new(Sizes::count()?)),
};

/// `struct page`, which no interface tells.
const LINUX_STRUCT_PAGE: f64 = 64.0;
/// Share of a maple node that a mapping takes after the tree has settled.
const LINUX_NODE_SHARE: f64 = 19.0;
/// `vm_area_struct`, `anon_vma` and `anon_vma_chain` of a common build, where the kernel does not tell.
const LINUX_SLABS: f64 = 192.0 + 104.0 + 64.0;
/// `page_t` 120, hash head 2, `anon` 48, slot 8, share of the anon hash 2, entry 8 (from the published headers).
const ILLUMOS_PAGE: f64 = 188.0;
/// `seg` 72 to 96, `segvn_data` 152 to 170, `anon_map` 64, `anon_hdr` 32: the middle.
const ILLUMOS_SEGMENT: f64 = 350.0;

/// Bytes of Linux per resident page: `struct page` and what its page tables grow by.
fn linux_page() -> Result<f64, String> {
    let before = page_table_bytes()?;
    let region = Region::anonymous(DENSE * PAGE).map_err(|e| e.to_string())?;
    region.touch_all();
    Ok(LINUX_STRUCT_PAGE + (page_table_bytes()? - before) / DENSE as f64)
}

/// Bytes of this process's page tables.
fn page_table_bytes() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmPTE:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib * 1024.0).ok_or_else(|| "no VmPTE in /proc/self/status".into())
}

/// Bytes of Linux per touched private mapping: its objects as the slab allocator gives them.
fn linux_segment() -> f64 {
    let text = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let size = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
        line.split_whitespace().nth(3)?.parse::<f64>().ok()
    };
    let slabs = ["vm_area_struct", "anon_vma", "anon_vma_chain"].into_iter().map(size);
    slabs.sum::<Option<f64>>().unwrap_or(LINUX_SLABS) + LINUX_NODE_SHARE
}

/// Counted once: bytes do not vary.
struct Sizes {
    frame: f64,
    heap: f64,
    tables: f64,
    untouched: f64,
    segment: f64,
}

/// Frames of the smaller machine; the larger has twice as many.
const FRAMES: usize = 1 << 17;
/// Pages of the dense segment: 15 x 256 blocks of 32 slots.
const DENSE: usize = 15 * 256 * 32;
/// Segments of the sparse space; half of them are counted.
const SEGMENTS: usize = 7936;

impl Sizes {
    fn count() -> Result<Self, String> {
        let (small, less) = bytes_kept(|| World::new(FRAMES, false));
        let (large, more) = bytes_kept(|| World::new(2 * FRAMES, false));
        let (small, large) = (small?, large?);
        let hand = small.on(0);
        hand.map(shape::BASE, DENSE * PAGE);
        let free = small.free_frames();
        let ((), heap) =
            bytes_kept(|| (0..DENSE).for_each(|page| hand.fault(shape::BASE + page * PAGE)));
        let tables = (free - small.free_frames() - DENSE) * PAGE;
        let (untouched, segment) = segments(&large);
        Ok(Self {
            frame: (more - less) as f64 / FRAMES as f64,
            heap: heap as f64 / DENSE as f64,
            tables: tables as f64 / DENSE as f64,
            untouched,
            segment,
        })
    }
}

/// Bytes of a 64-page segment, untouched and touched.
fn segments(world: &World) -> (f64, f64) {
    const SLOTS: [usize; 2] = [0, 32]; // one page in every block of slots
    const EXTRA: usize = 2;
    let hand = world.on(0);
    let start = |segment: usize| shape::address(shape::BASE, segment, 0);
    let map = |segment: usize| hand.map(start(segment), shape::PAGES * PAGE);
    let touch =
        |segment: usize| SLOTS.iter().for_each(|page| hand.fault(start(segment) + page * PAGE));
    let touch_more = |segment: usize| {
        (1..=EXTRA).for_each(|page| hand.fault(start(segment) + page * PAGE));
    };
    // Four segments share a leaf table: the first two of each four bring it in.
    let (first, counted): (Vec<usize>, Vec<usize>) =
        (0..SEGMENTS).partition(|segment| segment % 4 < 2);
    for &segment in &first {
        map(segment);
        touch(segment);
    }
    let ((), mapped) = bytes_kept(|| counted.iter().copied().for_each(map));
    let ((), touched) = bytes_kept(|| counted.iter().copied().for_each(touch));
    let ((), anons) = bytes_kept(|| (0..SEGMENTS).for_each(touch_more));
    let anon = anons as f64 / (SEGMENTS * EXTRA) as f64;
    let per_segment = |bytes: isize| bytes as f64 / counted.len() as f64;
    let beside = SLOTS.len() as f64 * anon + 4.0 * shape::PAGES as f64;
    (per_segment(mapped), per_segment(mapped + touched) - beside)
}

impl Group for Sizes {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        samples.put("20.page", self.frame + self.heap + self.tables);
        match linux_page() {
            Ok(bytes) => samples.put("20.linux.page", bytes),
            Err(why) => samples.lacks("20.linux.page", why),
        }
        samples.put("20.segment", self.segment);
        samples.put("20.linux.segment", linux_segment());
        samples.put("20.illumos.page", ILLUMOS_PAGE);
        samples.put("20.illumos.segment", ILLUMOS_SEGMENT);
        samples.put("20.frame", self.frame);
        samples.put("20.heap", self.heap);
        samples.put("20.tables", self.tables);
        samples.put("20.untouched", self.untouched);
    }
}
