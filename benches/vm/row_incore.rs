//! Row 18: which pages are in memory, over 64 000 resident ones in one call, and page by page.

use crate::harness::{Also, Config, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::linux::{PAGE, Region};
use crate::our_world::{Aged, World};
use crate::peers::shape;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "18a",
            "incore over a resident range, per page, ns",
            ["18.ours", "18.linux"],
            "Linux mincore, per page",
            [6.0, 3.0],
        ),
        Goal::at_most(
            "18b",
            "incore of one page, ns",
            ["18.ours.one", "18.linux.one"],
            "Linux mincore of one page",
            [0.35, 0.20],
        ),
    ],
    also: &[Also::new("18", "the system call mincore over the range, per page, ns", "18.call")],
    build: |_| Ok(Box::new(InCore::new()?)),
};

const PAGES: usize = 64_000;
/// Pages of a bulk call: a sixteenth, so that the call can be repeated and its median taken.
const CALL: usize = PAGES / 16;
const SINGLES: usize = 4000;

struct InCore {
    world: World,
    /// Pages asked for one by one.
    order: Vec<u32>,
    out: Vec<u8>,
}

impl InCore {
    fn new() -> Result<Self, String> {
        let world = World::new(2 * (PAGES + 12_288), false)?;
        let hand = world.on(0);
        let mut rng = Rng::new(18);
        Aged::default().anew(&hand, &mut rng);
        hand.map(shape::BASE, PAGES * PAGE);
        (0..PAGES).for_each(|page| hand.fault(shape::BASE + page * PAGE));
        drop(hand);
        Ok(Self { world, order: rng.permutation(PAGES), out: vec![0; PAGES] })
    }
}

/// Bulk calls over everything, a part at a time; then single ones in random order.
fn both(
    order: &[u32],
    out: &mut [u8],
    mut in_core: impl FnMut(usize, usize, &mut [u8]),
) -> (f64, f64) {
    out.fill(0);
    let bulk = timed(PAGES / CALL, |part| {
        for call in part {
            let first = call * CALL;
            in_core(first * PAGE, CALL * PAGE, &mut out[first..first + CALL]);
        }
    });
    assert!(out.iter().all(|bits| bits & 1 == 1), "every page is in memory");
    let one = timed(SINGLES, |part| {
        for &page in &order[part] {
            in_core(page as usize * PAGE, PAGE, &mut out[..1]);
        }
    });
    (bulk / CALL as f64, one)
}

impl Group for InCore {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let Self { world, order, out } = self;
        let hand = world.on(0);
        let (bulk, one) = both(order, out, |at, len, out| hand.in_core(shape::BASE + at, len, out));
        samples.put("18.ours", bulk);
        samples.put("18.ours.one", one);
        let call = timed(PAGES / CALL, |part| {
            part.for_each(|call| hand.mincore(shape::BASE + call * CALL * PAGE, CALL * PAGE));
        });
        samples.put("18.call", call / CALL as f64);
        match crate::row_fork::resident_pages(PAGES) {
            Ok(region) => {
                let linux = |at: usize, len: usize, out: &mut [u8]| in_core(&region, at, len, out);
                let (bulk, one) = both(order, out, linux);
                samples.put("18.linux", bulk);
                samples.put("18.linux.one", one);
            }
            Err(why) => ["18.linux", "18.linux.one"]
                .into_iter()
                .for_each(|key| samples.lacks(key, why.clone())),
        }
    }
}

fn in_core(region: &Region, at: usize, len: usize, out: &mut [u8]) {
    region.in_core(at, len, out).expect("asking about our own memory");
}
