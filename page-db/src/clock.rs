//! Time, as far as anything here needs it: ticks.

use crate::sync::atomic::{AtomicU64, Ordering};
use core::fmt;

/// A source of ticks (100 to the second in the textbook's arithmetic).
#[doc(alias = "lbolt")]
pub trait Clock: fmt::Debug + Send + Sync {
    /// Ticks since boot.
    fn now(&self) -> u64;
    /// Lets one tick pass (sleeps on a host, advances a manual clock).
    fn tick(&self);
}

/// A clock that moves only when told: runs are repeatable.
#[derive(Debug, Default)]
pub struct ManualClock {
    ticks: AtomicU64,
}

impl Clock for ManualClock {
    fn now(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }
    fn tick(&self) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
    }
}
