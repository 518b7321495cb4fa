//! Row 12: the rights of the middle page of three taken and given back, among 1 000 segments.
//!
//! Where the pages are touched, the pair ends with the page writable again, by whatever that takes: both sides store to it.
//! The kernel flushes processors; our figure has none to flush, and the one beside it has the process active on one.

use page_db::Counter;

use crate::harness::{Also, Config, Goal, Group, GroupSpec, Samples, timed};
use crate::linux::{PAGE, Region};
use crate::our_world::{Hand, World};
use crate::peers::shape;
use crate::row_faults::linux_segments;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "12a",
            "setprot of the middle of three and back, untouched, ns",
            ["12.ours", "12.linux"],
            "Linux mprotect pair",
            [0.30, 0.15],
        ),
        Goal::at_most(
            "12b",
            "setprot of the middle of three and back, touched, ns",
            ["12.ours.touched", "12.linux.touched"],
            "Linux mprotect pair",
            [0.15, 0.08],
        ),
    ],
    also: &[Also::new("12", "touched, the process active on a processor, ns", "12.ours.active")],
    build: |_| Ok(Box::new(Protect::new()?)),
};

const PAIRS: usize = 4000;
/// Above all segments: the three pages.
const THREE: usize = shape::BASE + (shape::SEGMENTS + 1) * shape::STRIDE;

struct Protect {
    untouched: World,
    touched: World,
    active: World,
}

impl Protect {
    fn new() -> Result<Self, String> {
        let make = |touch: bool| {
            let world = World::new(4096, true)?;
            let hand = world.on(0);
            hand.map_fault_segments();
            hand.map(THREE, 3 * PAGE);
            if touch {
                (0..3).for_each(|page| hand.fault(THREE + page * PAGE));
            }
            drop(hand);
            Ok::<_, String>(world)
        };
        let (untouched, touched, active) = (make(false)?, make(true)?, make(true)?);
        active.on(0).activate();
        Ok(Self { untouched, touched, active })
    }
}

/// A pair; afterwards a store to a touched page needs no fault.
fn pair(hand: &Hand, touched: bool) {
    let middle = THREE + PAGE;
    hand.protect(middle, PAGE, false);
    hand.protect(middle, PAGE, true);
    if touched && !hand.is_writable(middle) {
        hand.fault(middle);
    }
}

fn ours(world: &World, touched: bool) -> f64 {
    let hand = world.on(0);
    let pairs = || timed(PAIRS, |part| part.for_each(|_| pair(&hand, touched)));
    pair(&hand, touched);
    let time = hand.counted(&[(Counter::Zfod, 0), (Counter::FrameAllocs, 0)], pairs);
    assert_eq!(hand.is_writable(THREE + PAGE), touched, "as it was before");
    time
}

fn linux(region: &Region, touched: bool) -> f64 {
    timed(PAIRS, |part| {
        for _ in part {
            region.protect(PAGE, PAGE, false).expect("taking a right");
            region.protect(PAGE, PAGE, true).expect("giving it back");
            if touched {
                region.touch(PAGE);
            }
        }
    })
}

impl Group for Protect {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        samples.put("12.ours", ours(&self.untouched, false));
        samples.put("12.ours.touched", ours(&self.touched, true));
        samples.put("12.ours.active", ours(&self.active, true));
        let three = || Region::anonymous(3 * PAGE).map_err(|e| e.to_string());
        match linux_segments().and_then(|background| Ok((background, three()?))) {
            Ok((_background, region)) => {
                samples.put("12.linux", linux(&region, false));
                (0..3).for_each(|page| region.touch(page * PAGE));
                samples.put("12.linux.touched", linux(&region, true));
            }
            Err(why) => ["12.linux", "12.linux.touched"]
                .into_iter()
                .for_each(|key| samples.lacks(key, why.clone())),
        }
    }
}
