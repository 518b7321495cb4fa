//! Choosing a machine before it is switched on.

use super::{BootError, Machine};
use page_db::{FailPlan, HashKind, PhysMem, Thresholds};
use seg_drivers::VnTunables;
pub use seg_drivers::{ForkPolicy, LockedAtFork};
use std::path::PathBuf;
use std::sync::Arc;

/// Where a swap area's pages are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SwapBacking {
    /// In memory of the host.
    Memory,
    /// In a file of the host, made or resized to fit.
    File(PathBuf),
}

/// A swap area to begin with, or to add.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwapArea {
    /// Where.
    pub backing: SwapBacking,
    /// Pages.
    pub pages: u64,
    /// Areas of higher priority fill first.
    pub priority: i16,
}

/// How a machine is to be: what is not said is the default.
///
/// ```
/// let machine = segvm::Machine::builder().frames(512).cpus(2).build()?;
/// assert_eq!(machine.db().cpus(), 2);
/// # Ok::<(), segvm::BootError>(())
/// ```
#[derive(Clone, Debug)]
pub struct MachineBuilder {
    pub(super) frames: u64,
    pub(super) cpus: u16,
    pub(super) colours: u32,
    pub(super) hash: HashKind,
    pub(super) swap: Option<Vec<SwapArea>>,
    pub(super) seed: u64,
    pub(super) thresholds: Option<Thresholds>,
    pub(super) tunables: VnTunables,
    pub(super) memory: Option<Arc<dyn PhysMem>>,
    pub(super) fail: FailPlan,
}

/// Frames of a machine unless it says otherwise: 32 MB. The host gives them memory when they are used.
pub const DEFAULT_FRAMES: u64 = 8192;

/// Pages of the swap area of a machine that names none.
pub const DEFAULT_SWAP: u64 = 65536;

impl Default for MachineBuilder {
    fn default() -> Self {
        Self {
            frames: DEFAULT_FRAMES,
            cpus: 1,
            colours: 1,
            hash: HashKind::Chain,
            swap: None,
            seed: 0,
            thresholds: None,
            tunables: VnTunables::default(),
            memory: None,
            fail: FailPlan::default(),
        }
    }
}

impl MachineBuilder {
    /// Physical memory, in frames.
    #[must_use]
    pub fn frames(mut self, frames: u64) -> Self {
        self.frames = frames;
        self
    }
    /// Physical memory brought along, instead of frames on the host's heap; it says how many there are.
    #[must_use]
    pub fn memory(mut self, memory: Arc<dyn PhysMem>) -> Self {
        self.frames = memory.frames();
        self.memory = Some(memory);
        self
    }
    /// Processors, at least one.
    #[must_use]
    pub fn cpus(mut self, cpus: u16) -> Self {
        self.cpus = cpus.max(1);
        self
    }
    /// Cache colours.
    #[must_use]
    pub fn colours(mut self, colours: u32) -> Self {
        self.colours = colours.max(1);
        self
    }
    /// Which page hash.
    #[must_use]
    pub fn hash(mut self, hash: HashKind) -> Self {
        self.hash = hash;
        self
    }
    /// Adds a swap area. A machine that names none has one of [`DEFAULT_SWAP`] pages in memory.
    #[must_use]
    pub fn swap(mut self, area: SwapArea) -> Self {
        self.swap.get_or_insert_default().push(area);
        self
    }
    /// No swap area at all: promises are backed by memory alone.
    #[must_use]
    pub fn no_swap(mut self) -> Self {
        self.swap = Some(Vec::new());
        self
    }
    /// What fork does with anon maps.
    #[must_use]
    pub fn fork(mut self, policy: ForkPolicy) -> Self {
        self.tunables.fork = policy;
        self
    }
    /// What fork does with private pages that the parent has locked in memory.
    #[must_use]
    pub fn locked_at_fork(mut self, policy: LockedAtFork) -> Self {
        self.tunables.locked_at_fork = policy;
        self
    }
    /// Pages of a file that may be read along with one that a load fault must read.
    #[must_use]
    pub fn kluster(mut self, pages: u64) -> Self {
        self.tunables.kluster = pages;
        self
    }
    /// Seed of whatever is drawn by lot.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
    /// When page-out starts and allocators hold back, instead of the textbook's rule.
    #[must_use]
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = Some(thresholds);
        self
    }
    /// Numbers that steer `seg_vn`, and its fork policy.
    #[must_use]
    pub fn tunables(mut self, tunables: VnTunables) -> Self {
        self.tunables = tunables;
        self
    }
    /// What is to fail from the moment the machine is on ([`Machine::fail`]).
    #[must_use]
    pub fn fail(mut self, plan: FailPlan) -> Self {
        self.fail = plan;
        self
    }
    /// Switches the machine on.
    ///
    /// # Errors
    /// [`BootError`], naming what could not be had.
    pub fn build(&self) -> Result<Machine, BootError> {
        Machine::boot(self)
    }
}
