//! `::swapinfo`: the swap areas, and the sums of `swap -s`.

use crate::machine::Machine;
use serde::Serialize;
use std::fmt;
use swapfs::{SwapInfo, SwapSummary};

/// The view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Swap {
    /// The areas.
    pub areas: SwapInfo,
    /// The sums, in pages.
    pub summary: SwapSummary,
}

impl Swap {
    /// Swap now.
    pub fn of(machine: &Machine) -> Self {
        Self { areas: machine.swap().swapinfo(), summary: machine.swap().summary() }
    }
}

impl fmt::Display for Swap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.areas)?;
        writeln!(f, "{}", self.summary)
    }
}
