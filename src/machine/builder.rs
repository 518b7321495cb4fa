//! Choosing a machine before it is switched on.

use super::{BootError, Machine, Processors};
use page_db::{FailPlan, HashKind, PageDbError, PageHash, PageoutConfig, PhysMem, Thresholds};
use seg_drivers::VnTunables;
pub use seg_drivers::{ForkPolicy, LockedAtFork};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use swapfs::SwapConfig;

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

/// Makes a part of the machine when it is switched on: a builder can be used more than once, and no two machines share a part.
pub(super) struct Make<F: ?Sized>(pub(super) Arc<F>);

impl<F: ?Sized> Clone for Make<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> fmt::Debug for Make<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller's own")
    }
}

type MakeHash = dyn Fn(u64) -> Result<Box<dyn PageHash>, PageDbError> + Send + Sync;
type MakeMmu = dyn Fn(&Arc<dyn PhysMem>, u16) -> Arc<dyn Processors> + Send + Sync;

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
    pub(super) page_hash: Option<Make<MakeHash>>,
    pub(super) mmu: Option<Make<MakeMmu>>,
    pub(super) pageout: PageoutConfig,
    pub(super) swap_config: SwapConfig,
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
            page_hash: None,
            mmu: None,
            pageout: PageoutConfig::default(),
            swap_config: SwapConfig::default(),
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
    /// Which of the library's page hashes.
    #[must_use]
    pub fn hash(mut self, hash: HashKind) -> Self {
        (self.hash, self.page_hash) = (hash, None);
        self
    }
    /// A page hash of the caller's own, made for so many pages. [`crate::contract::page_hash`] tells whether it keeps its promises.
    ///
    /// ```
    /// use page_db::hash::ChainHash;
    /// let builder = segvm::Machine::builder().frames(512);
    /// let machine = builder.page_hash(|pages| Ok(Box::new(ChainHash::new(pages)?))).build()?;
    /// assert_eq!(machine.db().hash().name(), "chain");
    /// # Ok::<(), segvm::BootError>(())
    /// ```
    #[must_use]
    pub fn page_hash(
        mut self,
        make: impl Fn(u64) -> Result<Box<dyn PageHash>, PageDbError> + Send + Sync + 'static,
    ) -> Self {
        self.page_hash = Some(Make(Arc::new(make)));
        self
    }
    /// Processors of the caller's own, made over the machine's memory for so many of them, in place of simulated ones that remember everything.
    ///
    /// ```
    /// use hat_x86::{HostConfig, HostMmu};
    /// use std::sync::Arc;
    /// let small = HostConfig { capacity: Some(16), seed: 7 };
    /// let builder = segvm::Machine::builder().frames(512);
    /// let machine = builder
    ///     .mmu(move |mem, cpus| HostMmu::with_config(Arc::clone(mem), cpus, small))
    ///     .build()?;
    /// let process = machine.spawn("p")?;
    /// let at = process.map_anon(64 << 12)?;
    /// for page in 0..64 {
    ///     process.store(at + (page << 12), b"through sixteen entries")?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn mmu(
        mut self,
        make: impl Fn(&Arc<dyn PhysMem>, u16) -> Arc<dyn Processors> + Send + Sync + 'static,
    ) -> Self {
        self.mmu = Some(Make(Arc::new(make)));
        self
    }
    /// The rates and distances of page-out, instead of the textbook's rules. When it starts is said by [`MachineBuilder::thresholds`].
    ///
    /// ```
    /// use page_db::PageoutConfig;
    /// let slow = PageoutConfig { slowscan: Some(1), fastscan: Some(100), ..PageoutConfig::default() };
    /// let machine = segvm::Machine::builder().frames(512).pageout(slow).build()?;
    /// assert_eq!(machine.pageout_state().fastscan, 100);
    /// # Ok::<(), segvm::BootError>(())
    /// ```
    #[must_use]
    pub fn pageout(mut self, config: PageoutConfig) -> Self {
        self.pageout = config;
        self
    }
    /// How swapfs promises, names and clusters; the processors are the machine's, whatever it says of them.
    ///
    /// ```
    /// use swapfs::SwapConfig;
    /// let alone = SwapConfig { cluster: 1, ..SwapConfig::default() };
    /// let machine = segvm::Machine::builder().frames(512).swap_config(alone).build()?;
    /// assert_eq!(machine.swap().live(), 0);
    /// # Ok::<(), segvm::BootError>(())
    /// ```
    #[must_use]
    pub fn swap_config(mut self, config: SwapConfig) -> Self {
        self.swap_config = config;
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
