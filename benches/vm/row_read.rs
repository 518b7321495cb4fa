//! Row 6: a resident file mapping read from end to end, and how many faults that takes.
//!
//! A reader touches every page in order; a page that an earlier fault brought along costs it nothing. Which pages still
//! fault is found once, unhurried; the timed runs take exactly those faults, and every page is mapped by one of them or along with it. So neither
//! the simulated processor's walk nor its loads are in our figure; the kernel's has its trap and one load a page.

use page_db::Counter;
use segvm::files::FileHandle;

use crate::harness::{Also, Config, Form, Goal, Group, GroupSpec, Samples, timed};
use crate::linux::{MemFile, PAGE, Region, minor_faults};
use crate::our_world::{Hand, World};
use crate::peers::shape;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "6a",
            "sequential read of a resident file mapping, per touched page, ns",
            ["6.ours", "6.linux"],
            "Linux shared memfd, fault-around",
            [0.50, 0.25],
        ),
        Goal::at_most(
            "6b",
            "the same, faults per touched page",
            ["6.ours.faults", "6.linux.faults"],
            "Linux",
            [0.125, 0.125],
        )
        .judged(Form::Own),
    ],
    also: &[
        Also::new("6", "under MADV_SEQUENTIAL, per touched page, ns", "6.sequential"),
        Also::new("6", "under MADV_SEQUENTIAL, faults per touched page", "6.sequential.faults"),
    ],
    build: |_| Ok(Box::new(Reader::new()?)),
};

const PAGES: usize = 32_768;

struct Reader {
    plain: Mapped,
    sequential: Mapped,
    memory: MemFile,
}

/// A machine whose process maps a resident file.
struct Mapped {
    world: World,
    _file: FileHandle,
    /// The pages that fault, in order.
    faults: Vec<usize>,
    /// Whether pages behind the reader lose their translations again.
    freed_behind: bool,
}

impl Mapped {
    fn new(sequential: bool) -> Result<Self, String> {
        let world = World::new(PAGES + 8192, false)?;
        let hand = world.on(0);
        let file = hand.file(PAGES * PAGE)?;
        hand.map_file(shape::BASE, PAGES * PAGE, &file, 0);
        if sequential {
            hand.will_read_in_order(shape::BASE, PAGES * PAGE);
        }
        read(&hand); // the pages come in
        hand.forget(shape::BASE, PAGES * PAGE);
        let faults = read(&hand);
        drop(hand);
        Ok(Self { world, _file: file, faults, freed_behind: sequential })
    }

    /// ns and faults per touched page.
    fn measure(&self) -> (f64, f64) {
        let hand = self.world.on(0);
        hand.forget(shape::BASE, PAGES * PAGE);
        let faults = self.faults.len();
        let resident = [(Counter::AsFault, faults), (Counter::MajFault, 0)];
        let per_fault = hand.counted(&resident, || {
            timed(faults, |part| {
                self.faults[part].iter().for_each(|&page| hand.read_fault(page));
            })
        });
        let mut pages = (0..PAGES).map(|page| shape::BASE + page * PAGE);
        let all = self.freed_behind || pages.all(|page| hand.is_mapped(page));
        assert!(all, "every page can be read");
        let per_page = faults as f64 / PAGES as f64;
        (per_fault * per_page, per_page)
    }
}

/// Reads every page in order and says which ones faulted.
fn read(hand: &Hand) -> Vec<usize> {
    let pages = (0..PAGES).map(|page| shape::BASE + page * PAGE);
    pages.filter(|&page| !hand.is_mapped(page)).inspect(|&page| hand.read_fault(page)).collect()
}

impl Reader {
    fn new() -> Result<Self, String> {
        let memory = MemFile::new(PAGES * PAGE).map_err(|e| e.to_string())?;
        Ok(Self { plain: Mapped::new(false)?, sequential: Mapped::new(true)?, memory })
    }

    fn linux(&self, samples: &mut Samples) -> std::io::Result<()> {
        let region = Region::anonymous(PAGES * PAGE)?;
        region.put_file(0, PAGES * PAGE, &self.memory, 0)?;
        region.touch_all(); // resident from the first repetition on
        region.release(0, PAGES * PAGE)?;
        let before = minor_faults();
        let time = timed(PAGES, |part| {
            part.for_each(|page| _ = std::hint::black_box(region.look(page * PAGE)));
        });
        samples.put("6.linux", time);
        samples.put("6.linux.faults", (minor_faults() - before) as f64 / PAGES as f64);
        Ok(())
    }
}

impl Group for Reader {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let (time, faults) = self.plain.measure();
        samples.put("6.ours", time);
        samples.put("6.ours.faults", faults);
        let (time, faults) = self.sequential.measure();
        samples.put("6.sequential", time);
        samples.put("6.sequential.faults", faults);
        if let Err(e) = self.linux(samples) {
            ["6.linux", "6.linux.faults"]
                .into_iter()
                .for_each(|key| samples.lacks(key, format!("mapping a file in memory: {e}")));
        }
    }
}
