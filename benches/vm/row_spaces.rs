//! Row 9: mapping and unmapping one page among many segments.

use crate::harness::{Config, Form, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::linux::{PAGE, map_and_unmap_one_page};
use crate::our_world::World;
use crate::peers::{Areas, shape};
use crate::row_faults::linux_segments;

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal {
            row: "9a",
            name: "as_map + as_unmap of an untouched page among 1 000 segments, ns",
            ours: "9.ours",
            reference: "9.linux",
            against: "Linux mmap + munmap",
            form: Form::AtMost,
            threads: 1,
            must: 0.35,
            stretch: 0.20,
        },
        Goal {
            row: "9b",
            name: "as_map + as_unmap of an untouched page among 1 000 segments, ns",
            ours: "9.ours",
            reference: "9.memory_set",
            against: "memory_set unmap + map",
            form: Form::AtMost,
            threads: 1,
            must: 0.25,
            stretch: 0.15,
        },
    ],
    also: &[],
    build: |_| Ok(Box::new(Pair::new()?)),
};

const PAIRS: usize = 2000;

struct Pair {
    world: World,
    areas: Areas,
    victims: Vec<u32>,
}

impl Pair {
    fn new() -> Result<Self, String> {
        let world = World::new(4096, true)?;
        world.on(0).map_fault_segments();
        let mut areas = Areas::new();
        (0..shape::SEGMENTS).for_each(|segment| {
            areas.map(shape::address(0, segment + 1, 0), shape::PAGES * PAGE, true)
        });
        Ok(Self { world, areas, victims: Rng::new(9).permutation(shape::SEGMENTS) })
    }
}

impl Group for Pair {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let hand = self.world.on(0);
        let pair = || {
            let at = hand.map_anywhere(PAGE);
            hand.unmap(at, PAGE);
        };
        (0..100).for_each(|_| pair());
        samples.put("9.ours", timed(PAIRS, |part| part.for_each(|_| pair())));
        match linux_segments() {
            Ok(_background) => {
                samples.put(
                    "9.linux",
                    timed(PAIRS, |part| part.for_each(|_| map_and_unmap_one_page())),
                );
            }
            Err(why) => samples.lacks("9.linux", why),
        }
        let per_pair = timed(self.victims.len(), |part| {
            for &victim in &self.victims[part] {
                let start = shape::address(0, victim as usize + 1, 0);
                self.areas.unmap(start, shape::PAGES * PAGE);
                self.areas.map(start, shape::PAGES * PAGE, true);
            }
        });
        samples.put("9.memory_set", per_pair);
    }
}
