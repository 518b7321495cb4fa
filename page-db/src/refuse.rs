//! Refusals on request: the k-th frame, record, name or slot that is asked for is not to be had.
//!
//! Failures that are rare in life come in tests when they are called, one at a time and each once, so that every place where
//! an operation may have to back out is visited. Debug builds only; elsewhere nothing is ever refused and nothing is counted.

#[cfg(debug_assertions)]
use core::sync::atomic::{AtomicU64, Ordering};

/// What can be refused.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// A frame ([`crate::PageDb::alloc`]).
    Frame,
    /// A record of an arena ([`crate::sync::Arena::alloc`]).
    Record,
    /// An anon's number.
    Name,
    /// A run of slots on a swap device.
    Slot,
}

/// Requests of each kind that are still granted, plus one; 0 for all. Plain atomics: no schedule depends on them.
#[cfg(debug_assertions)]
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; 4]);

#[cfg(debug_assertions)]
impl Refusals {
    pub(crate) fn plan(&self, what: Refusal, k: u64) {
        self.0[what as usize].store(k, Ordering::Relaxed);
    }
    pub(crate) fn left(&self, what: Refusal) -> u64 {
        self.0[what as usize].load(Ordering::Relaxed)
    }
    /// Whether this request is the one.
    pub(crate) fn strike(&self, what: Refusal) -> bool {
        let cell = &self.0[what as usize];
        match cell.load(Ordering::Relaxed) {
            0 => false,
            k => {
                cell.store(k - 1, Ordering::Relaxed);
                k == 1
            }
        }
    }
}
