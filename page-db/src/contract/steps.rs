//! How three threads of a suite keep together.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// How far each of three threads is; one that has ended is past everything.
#[derive(Default)]
pub(super) struct Steps([AtomicU64; 3]);

impl Steps {
    /// Begins a round, counted from 1, once the others have begun the one before.
    pub(super) fn begin(&self, me: usize, round: u64) {
        self.0[me].store(round, SeqCst);
        self.wait(round - 1);
    }
    /// Comes to a step, counted from 1, and waits for the others there.
    pub(super) fn meet(&self, me: usize, step: u64) {
        self.0[me].store(step, SeqCst);
        self.wait(step);
    }
    fn wait(&self, step: u64) {
        while self.0.iter().any(|other| other.load(SeqCst) < step) {
            std::thread::yield_now();
        }
    }
    /// Marks a thread as ended when the answer is dropped, however it ends.
    pub(super) fn ends(&self, me: usize) -> impl Drop + '_ {
        struct Ended<'a>(&'a AtomicU64);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.store(u64::MAX, SeqCst);
            }
        }
        Ended(&self.0[me])
    }
    pub(super) fn has_ended(&self, thread: usize) -> bool {
        self.0[thread].load(SeqCst) == u64::MAX
    }
}
