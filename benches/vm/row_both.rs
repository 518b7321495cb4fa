//! Row 16: two threads that change the address space at once, and a fault's latency beside one that does.
//!
//! Each thread maps, touches and unmaps one page in a region of its own, so that each time a leaf table comes and goes as well. No
//! simulated processor runs in the process; the figure beside the row has it active on both, so that every unmap flushes both.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::harness::{
    Also, Config, Form, Goal, Group, GroupSpec, Samples, per_operation, quantile, windows,
};
use crate::linux::{PAGE, Region};
use crate::our_world::World;
use crate::peers::shape;
use crate::row_faults::{WINDOW, linux_segments, warm_pages, warm_segments};

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "16a",
            "two threads map, touch, unmap a page each, ns per round per thread",
            ["16.round.2", "16.round.1"],
            "one thread",
            [0.9, 1.5],
        )
        .judged(Form::Speedup)
        .two_threads(),
        Goal::at_most(
            "16b",
            "warm zero-fill fault while another thread maps and unmaps, ns",
            ["16.busy", "16.quiet"],
            "the same in quiet",
            [1.5, 1.15],
        )
        .two_threads(),
    ],
    also: &[
        Also::new("16", "ours, both processors active, speed-up", "16.active"),
        Also::new("16", "ours, latency while the other maps, touches and unmaps", "16.touching"),
        Also::new("16", "Linux, map, touch, unmap, speed-up", "16.linux.round"),
        Also::new("16", "Linux, latency while the other maps and unmaps", "16.linux.busy"),
        Also::new("16", "Linux, latency while the other touches too", "16.linux.touching"),
    ],
    build: |config| {
        if config.two_cpus() {
            Ok(Box::new(Both::new()?))
        } else {
            Err("this process may use one CPU only".into())
        }
    },
};

/// Rounds of one window.
const ROUNDS: usize = 64;
/// Each thread's region: a gibibyte of its own, behind the segments.
const REGION: usize = 1 << 30;

fn region_of(thread: usize) -> usize {
    shape::BASE + (thread + 1) * REGION
}

struct Both {
    world: World,
    active: World,
}

impl Both {
    fn new() -> Result<Self, String> {
        let make = || {
            let world = World::new(8 * WINDOW + 8192, true)?;
            world.on(0).map_fault_segments();
            Ok::<_, String>(world)
        };
        Ok(Self { world: make()?, active: make()? })
    }

    /// Latency of thread 0's faults, quiet or beside thread 1.
    fn latency(&self, config: &Config, count: usize, other: Option<Other>) -> f64 {
        let pages = warm_pages(shape::BASE, 0);
        latency(
            config,
            count,
            other,
            |thread| self.world.on(thread),
            |hand| {
                for segment in warm_segments(0) {
                    let start = shape::address(shape::BASE, segment, 0);
                    hand.unmap(start, shape::PAGES * PAGE);
                    hand.map(start, shape::PAGES * PAGE);
                }
            },
            |hand| pages.iter().for_each(|&page| hand.fault(page)),
            |hand, touch| {
                hand.map(region_of(1), PAGE);
                if touch {
                    hand.fault(region_of(1));
                }
                hand.unmap(region_of(1), PAGE);
            },
        )
    }
}

/// What the other thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    MapsAndUnmaps,
    TouchesToo,
}

/// ns per fault of thread 0, which takes its own time, while thread 1 works until thread 0 has done.
fn latency<H>(
    config: &Config,
    count: usize,
    other: Option<Other>,
    make: impl Fn(usize) -> H + Sync,
    arm: impl Fn(&H) + Sync,
    faults: impl Fn(&H) + Sync,
    work: impl Fn(&H, bool) + Sync,
) -> f64 {
    let (done, times) = (AtomicBool::new(false), Mutex::new(Vec::with_capacity(count)));
    windows(
        config,
        if other.is_some() { 2 } else { 1 },
        count,
        |thread| (thread, make(thread)),
        |(thread, hand)| {
            if *thread == 0 {
                arm(hand);
                done.store(false, Ordering::Release);
            }
        },
        |_| (),
        |(thread, hand)| {
            if *thread == 0 {
                let start = Instant::now();
                faults(hand);
                let time = start.elapsed().as_nanos() as f64;
                done.store(true, Ordering::Release);
                times.lock().expect("nobody panics with the times in hand").push(time);
            } else {
                while !done.load(Ordering::Acquire) {
                    work(hand, other == Some(Other::TouchesToo));
                }
            }
        },
    );
    let times = times.into_inner().expect("nobody panics with the times in hand");
    quantile(&times, 0.25) / WINDOW as f64
}

/// ns per round and thread.
fn rounds(config: &Config, world: &World, threads: usize, count: usize, active: bool) -> f64 {
    let lengths = windows(
        config,
        threads,
        count,
        |thread| {
            let hand = world.on(thread);
            if active {
                hand.activate();
            }
            (hand, region_of(thread))
        },
        |_| (),
        |_| (),
        |(hand, at)| {
            for _ in 0..ROUNDS {
                hand.map(*at, PAGE);
                hand.fault(*at);
                hand.unmap(*at, PAGE);
            }
        },
    );
    per_operation(&lengths, ROUNDS)
}

/// The kernel's rounds: each thread in its own gibibyte of a reservation.
fn linux_rounds(config: &Config, region: &Region, threads: usize, count: usize) -> f64 {
    let work = |thread: &mut usize| {
        for _ in 0..ROUNDS {
            round(region, *thread, true);
        }
    };
    per_operation(&windows(config, threads, count, |thread| thread, |_| (), |_| (), work), ROUNDS)
}

fn round(region: &Region, thread: usize, touch: bool) {
    let at = thread * REGION + REGION / 2;
    region.plug(at, PAGE).expect("one page in a hole");
    if touch {
        region.touch(at);
    }
    region.punch(at, PAGE).expect("unmapping our own page");
}

fn linux_latency(
    config: &Config,
    segments: &Region,
    region: &Region,
    count: usize,
    other: Option<Other>,
) -> f64 {
    let pages = warm_pages(0, 0);
    latency(
        config,
        count,
        other,
        |thread| thread,
        |_| {
            for segment in warm_segments(0) {
                segments
                    .release(shape::address(0, segment, 0), shape::PAGES * PAGE)
                    .expect("releasing our own pages");
            }
        },
        |_| pages.iter().for_each(|&page| segments.touch(page)),
        |_, touch| round(region, 1, touch),
    )
}

impl Group for Both {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let count = config.pick(101, 31);
        samples.put("16.round.1", rounds(config, &self.world, 1, count, false));
        samples.put("16.round.2", rounds(config, &self.world, 2, count, false));
        let one = rounds(config, &self.active, 1, count, true);
        let two = rounds(config, &self.active, 2, count, true);
        samples.put("16.active", 2.0 * one / two);
        let quiet = self.latency(config, count, None);
        samples.put("16.quiet", quiet);
        samples.put("16.busy", self.latency(config, count, Some(Other::MapsAndUnmaps)));
        let touching = self.latency(config, count, Some(Other::TouchesToo));
        samples.put("16.touching", touching / quiet);

        // A hole in each gibibyte of a reservation: whatever is mapped there has page tables of its own.
        let reservation = Region::anonymous(2 * REGION);
        if let (Ok(region), Ok(segments)) = (reservation, linux_segments())
            && (0..2).all(|thread| region.punch(thread * REGION, REGION - PAGE).is_ok())
        {
            let one = linux_rounds(config, &region, 1, count);
            samples.put("16.linux.round", 2.0 * one / linux_rounds(config, &region, 2, count));
            let ours = |other| linux_latency(config, &segments, &region, count, other);
            let quiet = ours(None);
            samples.put("16.linux.busy", ours(Some(Other::MapsAndUnmaps)) / quiet);
            samples.put("16.linux.touching", ours(Some(Other::TouchesToo)) / quiet);
        }
    }
}
