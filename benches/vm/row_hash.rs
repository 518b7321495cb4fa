//! Row 13: finding a page by name among a million, against `dashmap` with its default number of shards.
//!
//! The names are 1 024 vnodes of 1 024 pages. Frames are handed out in the order of the names for the row itself, as in
//! a freshly read file, and in random order for the figures beside it, since the chain through the page array gains
//! from the first. Every name is asked for once per test, in random order: a second round over fewer names would find
//! their lines in the cache.

use std::hint::black_box;

use crate::harness::{
    Also, Config, Form, Goal, Group, GroupSpec, Rng, Samples, per_operation, timed, windows,
};
use crate::our_pages::Pages;
use crate::peers::DashPages;

const fn goal(
    row: &'static str,
    name: &'static str,
    ours: &'static str,
    reference: &'static str,
    threads: u8,
    must: f64,
    stretch: f64,
) -> Goal {
    Goal {
        row,
        name,
        ours,
        reference,
        against: "dashmap 6 get, default shards",
        form: Form::AtMost,
        threads,
        must,
        stretch,
    }
}

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        goal("13a", "page hash hit at 1M, independent, ns", "13.ours", "13.dash", 1, 1.0, 0.8),
        goal(
            "13b",
            "page hash hit at 1M, dependent, ns",
            "13.ours.dependent",
            "13.dash.dependent",
            1,
            0.6,
            0.4,
        ),
        goal(
            "13c",
            "page hash hit at 1M, two threads, ns per lookup per thread",
            "13.ours.2",
            "13.dash.2",
            2,
            0.6,
            0.4,
        ),
        goal(
            "13d",
            "page_lookup at 1M: hit, shared lock, verify, unlock, ns",
            "13.ours.locked",
            "13.dash",
            1,
            1.4,
            1.1,
        ),
    ],
    also: &[
        Also {
            row: "13",
            name: "page_exists, independent: hit, identity compared, ns",
            key: "13.exists",
        },
        Also { row: "13", name: "hit, independent, frames in random order, ns", key: "13.random" },
        Also {
            row: "13",
            name: "hit, dependent, frames in random order, ns",
            key: "13.random.dependent",
        },
        Also {
            row: "13",
            name: "page_lookup, frames in random order, ns",
            key: "13.random.locked",
        },
        Also { row: "13", name: "speed-up of two threads, ours", key: "13.speedup.ours" },
        Also { row: "13", name: "speed-up of two threads, dashmap", key: "13.speedup.dash" },
    ],
    build: |config| Ok(Box::new(Hashes::new(config)?)),
};

/// Names: `VNODES` x `OFFSETS`.
pub(crate) const OFFSETS: u32 = 1024;
pub(crate) const VNODES: u32 = 1024;
/// Lookups of one window.
const WINDOW: usize = 4096;

/// Name number `i`: the vnode, and the byte offset in it.
pub(crate) fn name(i: u32) -> (u64, u64) {
    (u64::from(i / OFFSETS) + 1, u64::from(i % OFFSETS) << 12)
}

struct Hashes {
    in_order: Pages,
    shuffled: Pages,
    dash: DashPages,
    queries: Vec<u32>,
}

impl Hashes {
    fn new(config: &Config) -> Result<Self, String> {
        let vnodes = config.pick(VNODES, VNODES / 8);
        let count = vnodes * OFFSETS;
        let names: Vec<(u64, u64)> = (0..count).map(name).collect();
        let mut rng = Rng::new(13);
        let shuffled: Vec<(u64, u64)> =
            rng.permutation(names.len()).into_iter().map(|i| names[i as usize]).collect();
        let dash = DashPages::default();
        names.iter().zip(0..).for_each(|(&name, page)| _ = dash.insert(name, page));
        let queries = rng.permutation(names.len());
        Ok(Self { in_order: Pages::new(&names)?, shuffled: Pages::new(&shuffled)?, dash, queries })
    }
}

/// Lookups the processor may overlap.
fn independent(queries: &[u32], lookup: impl Fn((u64, u64)) -> u32) -> f64 {
    timed(queries.len(), |part| {
        let queries = queries[part].iter();
        black_box(queries.fold(0u32, |sum, &query| sum.wrapping_add(lookup(name(query)))));
    })
}

/// Lookups of which each waits for the one before it.
fn dependent(queries: &[u32], lookup: impl Fn((u64, u64)) -> u32) -> f64 {
    let zero = black_box(0);
    timed(queries.len(), |part| {
        let queries = queries[part].iter();
        black_box(queries.fold(0u32, |last, &query| lookup(name(query | (last & zero)))));
    })
}

/// Windows of `threads`, each with queries and a way to the table of its own.
fn threaded<H>(
    config: &Config,
    queries: &[u32],
    threads: usize,
    hand: impl Fn(usize) -> H + Sync,
    lookup: impl Fn(&H, (u64, u64)) -> u32 + Sync,
) -> f64 {
    let own = |thread: usize| queries[thread * (queries.len() / 2)..].iter().copied().cycle();
    let lengths = windows(
        config,
        threads,
        config.pick(101, 31),
        |thread| (hand(thread), own(thread)),
        |_| (),
        |_| (),
        |(hand, own)| {
            let own = own.by_ref().take(WINDOW);
            black_box(own.fold(0u32, |sum, query| sum.wrapping_add(lookup(hand, name(query)))));
        },
    );
    per_operation(&lengths, WINDOW)
}

impl Group for Hashes {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        let Self { in_order, shuffled, dash, queries } = self;
        let get = |name| dash.get(&name).map_or(u32::MAX, |page| *page);
        let (ordered, random) = (in_order.on(0), shuffled.on(0));
        samples.put("13.ours", independent(queries, |name| ordered.find(name)));
        samples.put("13.dash", independent(queries, get));
        samples.put("13.ours.dependent", dependent(queries, |name| ordered.find(name)));
        samples.put("13.dash.dependent", dependent(queries, get));
        samples.put("13.ours.locked", independent(queries, |name| ordered.lookup(name)));
        samples.put("13.exists", independent(queries, |name| ordered.exists(name)));
        // A third of the names each, none twice.
        let [first, second, third]: [&[u32]; 3] =
            std::array::from_fn(|i| &queries[i * (queries.len() / 3)..][..queries.len() / 3]);
        samples.put("13.random", independent(first, |name| random.find(name)));
        samples.put("13.random.dependent", dependent(second, |name| random.find(name)));
        samples.put("13.random.locked", independent(third, |name| random.lookup(name)));
        if !config.two_cpus() {
            samples.lacks("13.ours.2", "this process may use one CPU only");
            return;
        }
        let ours = |threads| {
            threaded(config, queries, threads, |cpu| in_order.on(cpu), |hand, name| hand.find(name))
        };
        let theirs = |threads| threaded(config, queries, threads, |_| (), |(), name| get(name));
        let (one, two) = (ours(1), ours(2));
        samples.put("13.ours.2", two);
        samples.put("13.speedup.ours", 2.0 * one / two);
        let (one, two) = (theirs(1), theirs(2));
        samples.put("13.dash.2", two);
        samples.put("13.speedup.dash", 2.0 * one / two);
    }
}
