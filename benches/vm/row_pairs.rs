//! Row 14: pages entering and leaving a page hash of a million, and what the table itself takes.
//!
//! Pages without names enter under new ones, 1 024 at a time, and leave again. The table is the one of row 13, in a machine
//! of the same size; its bytes are those of its own memory per frame of that machine, beside the link in the page structure.

use page_db::hash::ChainHash;

use crate::alloc::bytes_kept;
use crate::harness::{
    Also, Config, Form, Goal, Group, GroupSpec, Rng, Samples, per_operation, timed, windows,
};
use crate::our_pages::{PageHand, Pages};
use crate::peers::DashPages;
use crate::row_hash::{OFFSETS, VNODES, name};

const DASH: &str = "dashmap 6, default shards";

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "14a",
            "page hash insert + remove at 1M, ns",
            ["14.ours", "14.dash"],
            DASH,
            [0.8, 0.65],
        ),
        Goal::at_most(
            "14b",
            "page hash insert + remove at 1M, two threads, ns per pair per thread",
            ["14.ours.2", "14.dash.2"],
            DASH,
            [0.4, 0.25],
        )
        .two_threads(),
        Goal::at_most(
            "14c",
            "page hash, bytes per page beside the 4-byte link",
            ["14.bytes", "14.dash.bytes"],
            DASH,
            [8.0, 4.0],
        )
        .judged(Form::Own),
    ],
    also: &[
        Also::new("14", "speed-up of two threads, ours", "14.speedup.ours"),
        Also::new("14", "speed-up of two threads, dashmap", "14.speedup.dash"),
    ],
    build: |config| Ok(Box::new(Pairs::new(config)?)),
};

/// Names that come and go.
const EXTRA: usize = 65_536;
/// Names that are in at once.
const BATCH: usize = 1024;

struct Pairs {
    ours: Pages,
    dash: DashPages,
    /// New names, in random order.
    extra: Vec<(u64, u64)>,
    bytes: [f64; 2],
}

impl Pairs {
    fn new(config: &Config) -> Result<Self, String> {
        let count = config.pick(VNODES, VNODES / 8) * OFFSETS;
        let names: Vec<(u64, u64)> = (0..count).map(name).collect();
        let extra = Rng::new(14).permutation(EXTRA).into_iter().map(|i| name(count + i)).collect();
        let (dash, dash_bytes) = bytes_kept(|| {
            let dash = DashPages::default();
            names.iter().zip(0..).for_each(|(&name, page)| _ = dash.insert(name, page));
            dash
        });
        let ours = Pages::with_spare(&names, EXTRA)?;
        let frames = ours.frames();
        let (_table, our_bytes) = bytes_kept(|| ChainHash::new(frames).expect("heap"));
        let bytes = [our_bytes as f64 / frames as f64, dash_bytes as f64 / names.len() as f64];
        Ok(Self { ours, dash, extra, bytes })
    }
}

/// `pages` names in, the same names out, a batch at a time; ns per pair.
fn batches(
    names: &[(u64, u64)],
    mut insert: impl FnMut(usize, (u64, u64)),
    mut remove: impl FnMut(usize, (u64, u64)),
) -> f64 {
    let per_batch = timed(names.len() / BATCH, |part| {
        for batch in part {
            let names = &names[batch * BATCH..(batch + 1) * BATCH];
            names.iter().enumerate().for_each(|(i, &name)| insert(batch * BATCH + i, name));
            names.iter().enumerate().for_each(|(i, &name)| remove(batch * BATCH + i, name));
        }
    });
    per_batch / BATCH as f64
}

/// Windows of one batch a thread, each thread with names of its own.
fn threaded<H>(
    config: &Config,
    names: &[(u64, u64)],
    threads: usize,
    hand: impl Fn(usize) -> H + Sync,
    insert: impl Fn(&H, usize, (u64, u64)) + Sync,
    remove: impl Fn(&H, usize, (u64, u64)) + Sync,
) -> f64 {
    let half = names.len() / 2;
    let lengths = windows(
        config,
        threads,
        config.pick(101, 31),
        |thread| (hand(thread), thread * half),
        |(_, at)| *at = *at / half * half + (*at % half + BATCH) % half,
        |_| (),
        |(hand, at)| {
            (*at..*at + BATCH).for_each(|i| insert(hand, i, names[i]));
            (*at..*at + BATCH).for_each(|i| remove(hand, i, names[i]));
        },
    );
    per_operation(&lengths, BATCH)
}

impl Group for Pairs {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let Self { ours, dash, extra, bytes } = self;
        samples.put("14.bytes", bytes[0]);
        samples.put("14.dash.bytes", bytes[1]);
        let hand = ours.on(0);
        let put = |i: usize, name| _ = dash.insert(name, i as u32);
        let take = |_, name| _ = dash.remove(&name).expect("it was put in just now");
        samples.put("14.ours", batches(extra, |i, n| hand.insert(i, n), |i, n| hand.remove(i, n)));
        samples.put("14.dash", batches(extra, put, take));
        drop(hand);
        if !config.two_cpus() {
            samples.lacks("14.ours.2", "this process may use one CPU only");
            return;
        }
        let mine = |threads| {
            let hand = |cpu| ours.on(cpu);
            threaded(config, extra, threads, hand, PageHand::insert, PageHand::remove)
        };
        let theirs = |threads| {
            let (put, take) = (|(): &(), i, n| put(i, n), |(): &(), i, n| take(i, n));
            threaded(config, extra, threads, |_| (), put, take)
        };
        let (one, two) = (mine(1), mine(2));
        samples.put("14.ours.2", two);
        samples.put("14.speedup.ours", 2.0 * one / two);
        let (one, two) = (theirs(1), theirs(2));
        samples.put("14.dash.2", two);
        samples.put("14.speedup.dash", 2.0 * one / two);
    }
}
