//! The calibration block: what this machine can do at this moment, taken in every repetition.
//!
//! Its figures explain the others: a fault cannot be cheaper than the page it zeroes, and two threads cannot scale
//! where two ALU loops do not.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{Also, Config, Group, Rng, Samples, per_operation, timed, windows};
use crate::linux::{self, PAGE, Region};

/// Key of the two-thread ALU speed-up; repetitions below [`TWO_CPUS`] do not count for two-thread goals.
pub(crate) const TWO_THREAD_ALU: &str = "calibration.alu_two_threads";
/// The same for a loop that fills the execution ports: two threads of one core share those, and only here it shows.
pub(crate) const TWO_THREAD_PORTS: &str = "calibration.ports_two_threads";
/// The least ALU speed-up at which a two-thread figure means anything.
pub(crate) const TWO_CPUS: f64 = 1.9;

pub(crate) const ALSO: &[Also] = &[
    Also { row: "cal", name: "ALU chain, ns per step", key: "calibration.alu" },
    Also { row: "cal", name: "ALU chain on two threads, speed-up", key: TWO_THREAD_ALU },
    Also {
        row: "cal",
        name: "port-bound ALU on two threads, speed-up (far below 2: two threads of one core)",
        key: TWO_THREAD_PORTS,
    },
    Also {
        row: "cal",
        name: "memset 4 KiB warm (1 MiB set) + locked op, ns",
        key: "calibration.zero_warm",
    },
    Also {
        row: "cal",
        name: "memset 4 KiB cold (random frame) + locked op, ns",
        key: "calibration.zero_cold",
    },
    Also { row: "cal", name: "memcpy 4 KiB warm (1 MiB set), ns", key: "calibration.copy_warm" },
    Also {
        row: "cal",
        name: "memcpy 4 KiB cold (random frames) + locked op, ns",
        key: "calibration.copy_cold",
    },
    Also { row: "cal", name: "locked add, private line, ns", key: "calibration.locked_add" },
    Also { row: "cal", name: "null system call, ns", key: "calibration.syscall" },
];

/// Bytes of the arena that stands for cold memory.
const COLD: usize = 512 << 20;
/// Bytes of the set that stays in the second-level cache.
const WARM: usize = 1 << 20;

/// The calibration tests and their memory.
#[derive(Debug)]
pub(crate) struct Calibration {
    arena: Region,
    order: Vec<u32>,
    next: usize,
}

impl Calibration {
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let len = config.pick(COLD, COLD / 4);
        let arena =
            Region::anonymous(len).map_err(|e| format!("no memory for calibration: {e}"))?;
        arena.touch_all();
        let order = Rng::new(1).permutation(len / PAGE);
        Ok(Self { arena, order, next: 0 })
    }

    fn frame(&self, index: u32) -> *mut u8 {
        self.arena.as_ptr().wrapping_add(index as usize * PAGE)
    }

    /// The next `n` frames nobody has touched for a long time.
    fn cold_frames(&mut self, n: usize) -> Vec<u32> {
        let frames = (0..n).map(|i| self.order[(self.next + i) % self.order.len()]).collect();
        self.next = (self.next + n) % self.order.len();
        frames
    }

    fn zero(&self, frames: impl Iterator<Item = u32>) {
        let fence = AtomicU64::new(0);
        for frame in frames {
            // SAFETY: the frame lies inside the arena, which only this single-threaded test uses.
            unsafe { self.frame(frame).write_bytes(black_box(0), PAGE) };
            fence.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn copy(&self, pairs: impl Iterator<Item = (u32, u32)>) {
        let fence = AtomicU64::new(0);
        for (from, to) in pairs {
            // SAFETY: both frames lie inside the arena and differ; only this single-threaded test uses it.
            unsafe { self.frame(from).copy_to_nonoverlapping(self.frame(to), PAGE) };
            fence.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A chain of dependent shifts and multiplications, `steps` long, that no compiler folds.
#[inline(never)]
fn alu_chain(steps: usize) -> u64 {
    let mut x = black_box(1u64);
    for _ in 0..steps {
        x = (x ^ (x >> 7)).wrapping_mul(0x5851_f42d_4c95_7f2d);
    }
    black_box(x)
}

/// Six independent sums, `steps` long, as many instructions at once as the processor takes.
#[inline(never)]
fn alu_ports(steps: usize) -> u64 {
    let mut x = [black_box(1u64), 2, 3, 4, 5, 6];
    for i in 0..steps as u64 {
        x[0] = x[0].wrapping_add(i);
        x[1] ^= i;
        x[2] = x[2].wrapping_sub(i);
        x[3] |= i;
        x[4] = x[4].wrapping_add(x[5]);
        x[5] ^= i << 1;
        if i & 15 == 0 {
            x = black_box(x); // no folding, no vectors
        }
    }
    x.iter().fold(0, |a, b| a ^ b)
}

impl Group for Calibration {
    fn measure(&mut self, config: &Config, samples: &mut Samples) {
        const STEPS: usize = 100_000;
        samples.put("calibration.alu", timed(STEPS, |part| _ = alu_chain(part.len())));
        if config.two_cpus() {
            let count = config.pick(101, 31);
            let lengths = |threads| {
                windows(config, threads, count, |_| (), |()| (), |()| (), |()| _ = alu_chain(STEPS))
            };
            let (one, two) = (per_operation(&lengths(1), STEPS), per_operation(&lengths(2), STEPS));
            samples.put(TWO_THREAD_ALU, 2.0 * one / two);
            let lengths = |threads| {
                windows(config, threads, count, |_| (), |()| (), |()| (), |()| _ = alu_ports(STEPS))
            };
            let (one, two) = (per_operation(&lengths(1), STEPS), per_operation(&lengths(2), STEPS));
            samples.put(TWO_THREAD_PORTS, 2.0 * one / two);
        } else {
            samples.lacks(TWO_THREAD_ALU, "this process may use one CPU only");
        }
        let warm = (WARM / PAGE) as u32;
        let half = warm / 2;
        let frame = move |i: usize| i as u32 % warm;
        let pair = move |i: usize| (i as u32 % half, i as u32 % half + half);
        self.zero(0..warm);
        samples.put(
            "calibration.zero_warm",
            timed(16 * warm as usize, |part| self.zero(part.map(frame))),
        );
        samples.put(
            "calibration.copy_warm",
            timed(16 * warm as usize, |part| self.copy(part.map(pair))),
        );
        let cold = self.cold_frames(8192);
        samples.put(
            "calibration.zero_cold",
            timed(cold.len(), |part| self.zero(cold[part].iter().copied())),
        );
        let cold = self.cold_frames(8192);
        let pairs: Vec<_> = cold.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        samples.put(
            "calibration.copy_cold",
            timed(pairs.len(), |part| self.copy(pairs[part].iter().copied())),
        );
        let word = AtomicU64::new(0);
        let add = |_| _ = word.fetch_add(1, Ordering::SeqCst);
        samples.put("calibration.locked_add", timed(STEPS, |part| part.for_each(add)));
        let call = |_| linux::null_system_call();
        samples.put("calibration.syscall", timed(10_000, |part| part.for_each(call)));
    }
}
