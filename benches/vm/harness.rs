//! Tests, repetitions, ratios.
//!
//! # The difficulty
//!
//! The machines this runs on are shared: the host takes the processor away, the last-level cache belongs to
//! everybody, and a figure taken now cannot be compared with one taken a minute ago.
//!
//! # The rule
//!
//! ```text
//!   repetition 1   group A: ours, reference, ...   group B: ours, reference, ...   calibration
//!   repetition 2   group A: ...
//!                  ^ a ratio is formed here, inside one repetition; then the median of the ratios is taken
//! ```
//!
//! - Every test runs once per repetition; all raw samples are kept.
//! - A ratio never mixes repetitions. The median and the quartiles are those of the ratios.
//! - Two-thread figures come from *windows*: both threads meet at a spin barrier, do a small fixed amount of work and
//!   note start and end; a window lasts from the first start to the last end. What re-arms a window lies outside the
//!   timed part, on the core that will use what it frees. The lower quartile of the windows counts, for one thread and
//!   for two. A repetition in which two cores did not even run an ALU loop side by side is left out.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

pub(crate) use crate::windows::{per_operation, windows};

/// What the command line decided, and where threads may run.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// How often every test runs.
    pub(crate) repetitions: usize,
    /// Fewer repetitions and smaller sizes: a look, not a measurement.
    pub(crate) quick: bool,
    /// The processors this process may use; the harness pins thread `i` to entry `i`.
    pub(crate) cpus: Vec<usize>,
}

impl Config {
    /// Whether two threads can run at once.
    pub(crate) fn two_cpus(&self) -> bool {
        self.cpus.len() >= 2
    }

    /// `full` normally, `quick` under `--quick`.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// How two samples become the figure that is held against the gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// ours / reference, at most the gate.
    AtMost,
    /// Throughput of two threads (ours, ns per operation per thread) over that of one (reference), at least the gate.
    Speedup,
    /// Our own figure (bytes, a count), at most the gate; the ratio to the reference is shown beside it.
    Own,
}

/// One goal of the list: what is measured, against what, and where the gates stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// Its number, `"1a"`.
    pub(crate) row: &'static str,
    /// One line in words.
    pub(crate) name: &'static str,
    /// Key of our samples.
    pub(crate) ours: &'static str,
    /// Key of the reference's samples.
    pub(crate) reference: &'static str,
    /// The reference in words.
    pub(crate) against: &'static str,
    /// How the figure is formed.
    pub(crate) form: Form,
    /// How many threads run at once; with two, repetitions without two free cores are left out.
    pub(crate) threads: u8,
    /// The release gate.
    pub(crate) must: f64,
    /// The ambition.
    pub(crate) stretch: f64,
}

impl Goal {
    /// Ours over the reference, one thread, at most `must`.
    pub(crate) const fn at_most(
        row: &'static str,
        name: &'static str,
        [ours, reference]: [&'static str; 2],
        against: &'static str,
        [must, stretch]: [f64; 2],
    ) -> Self {
        let form = Form::AtMost;
        Self { row, name, ours, reference, against, form, threads: 1, must, stretch }
    }

    /// The same goal with two threads at once.
    pub(crate) const fn two_threads(mut self) -> Self {
        self.threads = 2;
        self
    }

    /// The same goal judged in another form.
    pub(crate) const fn judged(mut self, form: Form) -> Self {
        self.form = form;
        self
    }
}

/// A figure without a gate, shown below the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Also {
    /// The goal it belongs to.
    pub(crate) row: &'static str,
    /// One line in words, with the unit.
    pub(crate) name: &'static str,
    /// Key of the samples.
    pub(crate) key: &'static str,
}

impl Also {
    pub(crate) const fn new(row: &'static str, name: &'static str, key: &'static str) -> Self {
        Self { row, name, key }
    }
}

/// Tests that share their set-up, run side by side in every repetition.
pub(crate) trait Group {
    /// Runs every test of the group once.
    fn measure(&mut self, config: &Config, samples: &mut Samples);
}

/// A group before its set-up: known without cost, so that `--list` is instant.
pub(crate) struct GroupSpec {
    /// The goals it supplies samples for.
    pub(crate) goals: &'static [Goal],
    /// The figures it supplies beside them.
    pub(crate) also: &'static [Also],
    /// Builds what the tests need; an error is the reason why the rows are skipped.
    pub(crate) build: fn(&Config) -> Result<Box<dyn Group>, String>,
}

/// Raw samples, by repetition and key.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    repetitions: Vec<BTreeMap<&'static str, f64>>,
    missing: BTreeMap<&'static str, String>,
}

impl Samples {
    /// Opens the next repetition.
    pub(crate) fn next_repetition(&mut self) {
        self.repetitions.push(BTreeMap::new());
    }

    /// Records a sample of this repetition.
    pub(crate) fn put(&mut self, key: &'static str, value: f64) {
        if let Some(now) = self.repetitions.last_mut() {
            now.insert(key, value);
        }
    }

    /// The sample of `key` in this repetition.
    pub(crate) fn latest(&self, key: &str) -> Option<f64> {
        self.repetitions.last()?.get(key).copied()
    }

    /// Says why `key` has no samples.
    pub(crate) fn lacks(&mut self, key: &'static str, why: impl Into<String>) {
        self.missing.insert(key, why.into());
    }

    /// The reason given for a key without samples.
    pub(crate) fn why(&self, key: &str) -> Option<&str> {
        self.missing.get(key).map(String::as_str)
    }

    /// All samples of `key`.
    pub(crate) fn of(&self, key: &str) -> Vec<f64> {
        self.repetitions.iter().filter_map(|now| now.get(key).copied()).collect()
    }

    /// `(ours, reference)` of every repetition that has both and passes `keep`.
    pub(crate) fn pairs(
        &self,
        ours: &str,
        reference: &str,
        keep: impl Fn(&BTreeMap<&'static str, f64>) -> bool,
    ) -> Vec<(f64, f64)> {
        self.repetitions
            .iter()
            .filter(|now| keep(now))
            .filter_map(|now| Some((*now.get(ours)?, *now.get(reference)?)))
            .collect()
    }
}

/// The `q`-quantile (0 to 1) of `values` by linear interpolation; not a number when there are none.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = q * last as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// The median of `values`.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Parts a timed loop is cut into.
const PARTS: usize = 16;

/// Runs `work` over all of `0..operations`, part by part, and returns the median of the parts in ns per operation: when the
/// processor is taken away in the middle, one part of sixteen is lost and not the sample.
pub(crate) fn timed(operations: usize, mut work: impl FnMut(Range<usize>)) -> f64 {
    let part = operations.div_ceil(PARTS).max(1);
    let one = |from: usize| {
        let range = from..operations.min(from + part);
        let count = range.len() as f64;
        let start = Instant::now();
        work(range);
        start.elapsed().as_nanos() as f64 / count
    };
    median(&(0..operations).step_by(part).map(one).collect::<Vec<_>>())
}

/// Pseudo-random numbers for orders and addresses (xorshift64*): the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// The numbers below `n` in random order.
    pub(crate) fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        self.shuffle(&mut order);
        order
    }

    /// Puts `items` in random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
