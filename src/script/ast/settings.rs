//! What a script asks of its machine.

use super::{ForkPolicy, HashKind, LockedAtFork};
use crate::script::outcome::PAGE_BYTES;

/// Where a swap area's pages are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SwapBacking {
    /// In memory of the host.
    Memory,
    /// In a file of the host.
    File(String),
}

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SwapSpec {
    /// Where it is kept.
    pub backing: SwapBacking,
    /// How many pages it holds.
    pub pages: u64,
    /// Its priority; areas of higher priority fill first.
    pub priority: Option<i32>,
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Amount {
    /// Frames.
    Frames(u64),
    /// Bytes.
    Bytes(u64),
}

impl Amount {
    /// The number of whole frames, rounded down.
    pub const fn frames(self) -> u64 {
        match self {
            Amount::Frames(n) => n,
            Amount::Bytes(n) => n / PAGE_BYTES,
        }
    }
}

/// The settings of a `machine` statement; what is not given is the machine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MachineSettings {
    /// Physical memory.
    pub memory: Option<Amount>,
    /// Number of simulated CPUs.
    pub cpus: Option<u32>,
    /// Number of page colours.
    pub colours: Option<u32>,
    /// Which page hash.
    pub hash: Option<HashKind>,
    /// What fork does with amaps.
    pub fork: Option<ForkPolicy>,
    /// What it does with pages locked in memory.
    pub locked: Option<LockedAtFork>,
    /// Pages of a file that may be read along with one that must be.
    pub kluster: Option<u64>,
    /// Seed of whatever the machine draws by lot.
    pub seed: Option<u64>,
    /// Swap areas, in order. Empty means the machine's default.
    pub swap: Vec<SwapSpec>,
}

impl MachineSettings {
    /// Lays `later` over this: its words win, its swap areas follow.
    pub fn merge(&mut self, later: &MachineSettings) {
        self.memory = later.memory.or(self.memory);
        self.cpus = later.cpus.or(self.cpus);
        self.colours = later.colours.or(self.colours);
        self.hash = later.hash.or(self.hash);
        self.fork = later.fork.or(self.fork);
        self.locked = later.locked.or(self.locked);
        self.kluster = later.kluster.or(self.kluster);
        self.seed = later.seed.or(self.seed);
        self.swap.extend(later.swap.iter().cloned());
    }
}
