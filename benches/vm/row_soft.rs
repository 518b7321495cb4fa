//! Row 5: the soft fault, warm: the page is resident and only its translation is missing.
//!
//! Twice ours: pages that the anon map holds, and pages of a shared file that the vnode holds. A page beside each segment
//! stays mapped, so that the leaf table stays, as the kernel's does.

use page_db::Counter;
use segvm::files::FileHandle;

use crate::harness::{Config, Goal, Group, GroupSpec, Samples, per_operation, windows};
use crate::linux::{MemFile, PAGE, Region};
use crate::our_world::{Hand, World};
use crate::peers::shape;
use crate::row_faults::{WINDOW, linux_segments, linux_windows, warm_pages, warm_segments};

const TOUCH: &str = "Linux shared memfd write fault";
const POPULATE: &str = "Linux memfd populate";

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "5a",
            "soft fault, page in the anon map, warm, ns",
            ["5.anon", "5.touch"],
            TOUCH,
            [0.25, 0.13],
        ),
        Goal::at_most(
            "5b",
            "soft fault, page in the anon map, warm, ns",
            ["5.anon", "5.populate"],
            POPULATE,
            [0.70, 0.35],
        ),
        Goal::at_most(
            "5c",
            "soft fault, page of a shared file, warm, ns",
            ["5.file", "5.touch"],
            TOUCH,
            [0.25, 0.13],
        ),
        Goal::at_most(
            "5d",
            "soft fault, page of a shared file, warm, ns",
            ["5.file", "5.populate"],
            POPULATE,
            [0.70, 0.35],
        ),
    ],
    also: &[],
    build: |_| Ok(Box::new(Soft::new()?)),
};

/// Bytes of a segment.
const LEN: usize = shape::PAGES * PAGE;

/// The warm segments, beside which a page each stays mapped.
fn keep_tables(hand: &Hand) {
    for segment in warm_segments(0) {
        let beside = shape::address(shape::BASE, segment, shape::PAGES);
        hand.map(beside, PAGE);
        hand.fault(beside);
    }
}

struct Soft {
    anon: World,
    file: World,
    /// The file the warm segments of `file` map, in their order.
    _handle: FileHandle,
    memory: MemFile,
}

impl Soft {
    fn new() -> Result<Self, String> {
        let frames = 4 * WINDOW + 4096;
        let (anon, file) = (World::new(frames, true)?, World::new(frames, true)?);
        let hand = anon.on(0);
        hand.map_fault_segments();
        keep_tables(&hand);
        warm_pages(shape::BASE, 0).into_iter().for_each(|page| hand.fault(page));

        let hand = file.on(0);
        hand.map_fault_segments();
        let handle = hand.file(WINDOW * PAGE)?;
        for (i, segment) in warm_segments(0).enumerate() {
            hand.map_file(shape::address(shape::BASE, segment, 0), LEN, &handle, i * LEN);
        }
        keep_tables(&hand);
        warm_pages(shape::BASE, 0).into_iter().for_each(|page| hand.fault(page));
        drop(hand);
        let memory = MemFile::new(WINDOW * PAGE).map_err(|e| e.to_string())?;
        Ok(Self { anon, file, _handle: handle, memory })
    }
}

/// Windows of faults on the warm pages of `world`, each of which counts as one `case` and makes nothing.
fn ours(config: &Config, world: &World, count: usize, case: Counter) -> f64 {
    let pages = warm_pages(shape::BASE, 0);
    let run = || {
        windows(
            config,
            1,
            count,
            |cpu| world.on(cpu),
            |hand| {
                for segment in warm_segments(0) {
                    hand.forget(shape::address(shape::BASE, segment, 0), LEN);
                }
            },
            |_| (),
            |hand| pages.iter().for_each(|&page| hand.fault(page)),
        )
    };
    let soft = [
        (case, count * WINDOW),
        (Counter::FrameAllocs, 0),
        (Counter::BytesCopied, 0),
        (Counter::TableAllocs, 0),
    ];
    per_operation(&world.on(0).counted(&soft, run), WINDOW)
}

impl Soft {
    /// The kernel's warm mappings replaced by shared ones of a resident file.
    fn linux_shared(&self) -> Result<Region, String> {
        let region = linux_segments()?;
        for (i, segment) in warm_segments(0).enumerate() {
            let start = shape::address(0, segment, 0);
            region
                .put_file(start, LEN, &self.memory, i * LEN)
                .map_err(|e| format!("mapping a file in memory: {e}"))?;
        }
        warm_pages(0, 0).into_iter().for_each(|page| region.touch(page));
        Ok(region)
    }
}

impl Group for Soft {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let count = config.pick(101, 31);
        samples.put("5.anon", ours(config, &self.anon, count, Counter::Case1A));
        samples.put("5.file", ours(config, &self.file, count, Counter::Case2A));
        let region = match self.linux_shared() {
            Ok(region) => region,
            Err(why) => {
                ["5.touch", "5.populate"]
                    .into_iter()
                    .for_each(|key| samples.lacks(key, why.clone()));
                return;
            }
        };
        let touch =
            |_thread: usize, pages: &[usize]| pages.iter().for_each(|&page| region.touch(page));
        let lengths = linux_windows(config, &region, 1, count, touch);
        samples.put("5.touch", per_operation(&lengths, WINDOW));
        let populate = |thread: usize, _pages: &[usize]| {
            for segment in warm_segments(thread) {
                region
                    .populate(shape::address(0, segment, 0), LEN)
                    .expect("the pages are resident");
            }
        };
        let lengths = linux_windows(config, &region, 1, count, populate);
        samples.put("5.populate", per_operation(&lengths, WINDOW));
    }
}
