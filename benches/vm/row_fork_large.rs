//! Rows 7c and 7d: fork with a gibibyte resident, as it is by default and under the lazy policy.
//!
//! Fork neither reads nor writes the pages' contents, so our frames hold none. Before each fork every page is stored to, so
//! that it finds writable entries; after it, the first stores in the child show what was put off.

use page_db::Counter;
use segvm::machine::ForkPolicy;

use crate::harness::{Also, Config, Goal, Group, GroupSpec, Samples, timed};
use crate::linux::PAGE;
use crate::our_world::World;
use crate::peers::shape;
use crate::row_fork::{put_linux, resident_pages};

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "7c",
            "as_dup of 1 GiB resident, per page, ns",
            ["7.ours.large", "7.linux.large"],
            "Linux fork, per page",
            [1.0 / 12.0, 1.0 / 12.0],
        ),
        Goal::at_most(
            "7d",
            "as_dup of 1 GiB resident, lazy policy, per page, ns",
            ["7.ours.lazy", "7.linux.large"],
            "Linux fork, per page",
            [0.01, 0.01],
        ),
    ],
    also: &[
        Also::new("7", "copy-on-write in the child, 1 GiB, no data, per page, ns", "7.first"),
        Also::new("7", "the same under the lazy policy, ns", "7.first.lazy"),
    ],
    build: |_| Ok(Box::new(Large::new()?)),
};

const PAGES: usize = (1 << 30) / PAGE;
/// Pages the child stores to, spread over all 2 MiB stretches.
const STORES: usize = PAGES / 16;

struct Large {
    eager: World,
    lazy: Result<World, String>,
}

fn resident(policy: ForkPolicy) -> Result<World, String> {
    let world = World::forking(PAGES + STORES + 32_768, policy)?;
    world.on(0).map(shape::BASE, PAGES * PAGE);
    Ok(world)
}

/// Forks and stores in the child; ns per resident page, and per store.
fn fork(world: &World) -> (f64, f64) {
    let hand = world.on(0);
    (0..PAGES).for_each(|page| hand.fault(shape::BASE + page * PAGE));
    let start = std::time::Instant::now();
    let child = hand.fork();
    let time = start.elapsed().as_nanos() as f64 / PAGES as f64;
    let store = |i: usize| child.fault(shape::BASE + i * 16 * PAGE);
    let stores = || timed(STORES, |part| part.for_each(store));
    let first = hand.counted(&[(Counter::CowFault, STORES)], stores);
    child.exit();
    (time, first)
}

impl Large {
    fn new() -> Result<Self, String> {
        Ok(Self { eager: resident(ForkPolicy::Eager)?, lazy: resident(ForkPolicy::Lazy) })
    }
}

impl Group for Large {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let (time, first) = fork(&self.eager);
        samples.put("7.ours.large", time);
        samples.put("7.first", first);
        match &self.lazy {
            Ok(world) => {
                let (time, first) = fork(world);
                samples.put("7.ours.lazy", time);
                samples.put("7.first.lazy", first);
            }
            Err(why) => samples.lacks("7.ours.lazy", why.clone()),
        }
        put_linux(samples, "7.linux.large", resident_pages(PAGES), PAGES as f64);
    }
}
