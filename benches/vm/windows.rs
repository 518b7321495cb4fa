//! Windows: what two threads do at once, measured from the first start to the last end.
//!
//! See [`crate::harness`] for the rule. [`windows`] is the mechanism: a barrier that spins, a fixed amount of work, set-up
//! outside the timed part.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_utils::CachePadded;

use crate::harness::{Config, quantile};

/// Turns a barrier spins before it lets other programs run: far longer than a window's skew.
const PATIENCE: u32 = 1 << 16;

/// A barrier that spins: threads leave it within tens of nanoseconds of each other.
#[derive(Debug)]
struct SpinBarrier {
    threads: usize,
    arrived: CachePadded<AtomicUsize>,
    round: CachePadded<AtomicUsize>,
    broken: AtomicBool,
}

impl SpinBarrier {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            arrived: CachePadded::default(),
            round: CachePadded::default(),
            broken: AtomicBool::new(false),
        }
    }

    fn wait(&self) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round + 1, Ordering::Release);
            return;
        }
        let mut spins = 0u32;
        while self.round.load(Ordering::Acquire) == round {
            assert!(!self.broken.load(Ordering::Relaxed), "another thread of this window panicked");
            spins += 1;
            if spins < PATIENCE {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now(); // the other thread has lost its processor: this window is lost too
            }
        }
    }
}

/// Wakes the spinners when a thread unwinds.
struct BreakOnPanic<'a>(&'a SpinBarrier);

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `count` windows on `threads` threads and returns their lengths in ns.
///
/// `make` gives each thread its state; `arm` prepares a window on the thread that will run it; when all have, `settle`
/// runs on the first one; `work` is the timed part.
pub(crate) fn windows<S>(
    config: &Config,
    threads: usize,
    count: usize,
    make: impl Fn(usize) -> S + Sync,
    arm: impl Fn(&mut S) + Sync,
    settle: impl Fn(&mut S) + Sync,
    work: impl Fn(&mut S) + Sync,
) -> Vec<f64> {
    let barrier = SpinBarrier::new(threads);
    let base = Instant::now();
    let run = |thread: usize| -> Vec<(u64, u64)> {
        let _guard = BreakOnPanic(&barrier);
        let mut state = make(thread);
        let window = |_| {
            arm(&mut state);
            barrier.wait();
            if thread == 0 {
                settle(&mut state);
            }
            barrier.wait();
            let start = base.elapsed().as_nanos() as u64;
            work(&mut state);
            let end = base.elapsed().as_nanos() as u64;
            barrier.wait(); // nobody re-arms while another still works
            (start, end)
        };
        (0..count).map(window).collect()
    };
    let spans = std::thread::scope(|scope| {
        let start = |thread: usize| {
            let (run, cpu) = (&run, config.cpus[thread % config.cpus.len()]);
            scope.spawn(move || {
                crate::linux::pin_thread(cpu);
                run(thread)
            })
        };
        let others: Vec<_> = (1..threads).map(start).collect();
        let mut spans = vec![run(0)];
        spans.extend(others.into_iter().map(|h| h.join().expect("a window thread panicked")));
        spans
    });
    let length = |w: usize| {
        let start = spans.iter().map(|s| s[w].0).min().unwrap_or(0);
        let end = spans.iter().map(|s| s[w].1).max().unwrap_or(0);
        (end - start) as f64
    };
    (0..count).map(length).collect()
}

/// The lower quartile of windows of `operations` each, in ns per operation (per thread).
pub(crate) fn per_operation(windows: &[f64], operations: usize) -> f64 {
    quantile(windows, 0.25) / operations as f64
}
