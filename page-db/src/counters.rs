//! What happened, counted: illumos's kstat names, and costs that are exact on every machine.
//!
//! A fault counts half a dozen things; a shared counter line, or even a locked addition each, would cost more than the
//! work. So each [`crate::Cx`] owns a block that only it writes (a relaxed load and store), and readers add the blocks up.
//! The sum is exact when nothing runs; a block outlives its `Cx` as part of the retired sum of its CPU.
//!
//! Sources: [SI §9, §10] for the names; illumos.md 11.3.

use crate::cx::{SpinHooks, WaitHooks};
use crate::fail::{Asked, FailKind, FailPlan, Fails};
use crate::lock::Rank;
use crate::sync::{Mutex, Once, grow};
use crate::units::CpuId;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering}; // plain: one writer (X3), and no schedule depends on them

macro_rules! counters {
    ($($(#[$doc:meta])* $id:ident = $name:literal),+ $(,)?) => {
        /// One thing that is counted. [`Counter::name`] is the name every view prints.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(usize)]
        pub enum Counter { $($(#[$doc])* $id),+ }
        impl Counter {
            /// All of them, in the order views print.
            pub const ALL: &[Self] = &[$(Self::$id),+];
            /// The kstat's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$id => $name),+ }
            }
        }
    };
}

counters! {
    /// Faults handed to an address space, of every kind but the end of a soft lock.
    AsFault = "as_fault",
    /// Faults the entry already allowed by then (a race, or a translation a backend forgot).
    SpuriousFault = "spurious_fault",
    /// Faults that needed a read from a device or file.
    MajFault = "maj_fault",
    /// Private copies made.
    CowFault = "cow_fault",
    /// Faults for a right the translation lacked.
    ProtFault = "prot_fault",
    /// Soft locks taken through a fault.
    SoftLock = "softlock",
    /// Those of them in the kernel's address space.
    KernelAsFault = "kernel_asflt",
    /// Pages filled with zeros on demand.
    Zfod = "zfod",
    /// Fault case 1A: the slot's anon is mapped as it is.
    Case1A = "case_1a",
    /// Fault case 1B: a shared anon is copied.
    Case1B = "case_1b",
    /// Fault case 2A: the lower layer's page is mapped.
    Case2A = "case_2a",
    /// Fault case 2B: the lower layer's page, or zeros, become an anon.
    Case2B = "case_2b",
    /// Neighbours mapped along with a fault.
    FaultAhead = "fault_ahead",
    /// Free pages taken back by name, and pages that were to be freed after their write and were in use again.
    PgRec = "pgrec",
    /// The same from the free or cache list.
    PgFrec = "pgfrec",
    /// Page-in operations.
    PgIn = "pgin",
    /// Pages paged in.
    PgPgIn = "pgpgin",
    /// Writes of pages that succeeded, whoever asked for them.
    PgOut = "pgout",
    /// Pages written.
    PgPgOut = "pgpgout",
    /// Anonymous pages paged in.
    AnonPgIn = "anonpgin",
    /// Anonymous pages paged out.
    AnonPgOut = "anonpgout",
    /// Anonymous pages freed by page-out, or after any other write that was to free them.
    AnonFree = "anonfree",
    /// Pages of files being run paged in.
    ExecPgIn = "execpgin",
    /// Pages of files being run paged out.
    ExecPgOut = "execpgout",
    /// Pages of files being run freed so.
    ExecFree = "execfree",
    /// File pages paged in.
    FsPgIn = "fspgin",
    /// File pages paged out.
    FsPgOut = "fspgout",
    /// File pages freed so.
    FsFree = "fsfree",
    /// Turns of the clock: each moves both hands by a frame, whatever they meet there.
    Scan = "scan",
    /// Revolutions of the front hand.
    Rev = "rev",
    /// Pages freed by the clock, or when their write ended.
    DFree = "dfree",
    /// Times page-out ran.
    PgRRun = "pgrrun",
    /// `MADV_FREE` that found its page.
    MadvFreeHit = "MADV_FREE_hit",
    /// `MADV_FREE` that did not.
    MadvFreeMiss = "MADV_FREE_miss",
    /// Cost: nodes of the segment tree visited.
    TreeNodes = "tree_nodes",
    /// Cost: page-table entries written.
    PteWrites = "pte_writes",
    /// Cost: page-table entries read by range walks.
    PteReads = "pte_reads",
    /// Cost: page tables allocated.
    TableAllocs = "table_allocs",
    /// Cost: page tables given back.
    TableFrees = "table_frees",
    /// Cost: bytes of frames set to zero.
    BytesZeroed = "bytes_zeroed",
    /// Cost: bytes copied between frames.
    BytesCopied = "bytes_copied",
    /// Cost: flushes handed to the MMU.
    Flushes = "flushes",
    /// Cost: entries named by those flushes.
    FlushEntries = "flush_entries",
    /// Cost: page locks that had to be waited for.
    PageLockWaits = "page_lock_waits",
    /// Cost: slots of anon maps visited by range operations.
    AnonSlots = "anon_slots",
    /// Cost: frames allocated. What is in use is these and `pgfrec` less `frame_frees`.
    FrameAllocs = "frame_allocs",
    /// Cost: frames freed. A cached page that is destroyed was free before.
    FrameFrees = "frame_frees",
    /// Cost: page-hash chain links followed.
    HashLinks = "hash_links",
    /// Cost: slots of full swap looked at for pages in memory.
    SweepLooks = "sweep_looks",
    /// Cost: locks acquired, of every kind that has a rank. Debug builds only; 0 elsewhere, for counting them would cost as much as some of them.
    LockAcquires = "lock_acquires",
}

impl Counter {
    /// Whether only debug builds count it.
    pub fn is_debug_only(self) -> bool {
        self == Self::LockAcquires
    }
}

const N: usize = Counter::ALL.len();

/// The counters of one [`crate::Cx`]; only its owner writes.
#[repr(align(64))]
pub struct CounterBlock {
    cpu: CpuId,
    /// Whether a plan of failures is in force: written when one is made, read wherever something is handed out.
    may_fail: AtomicBool,
    values: [AtomicU64; N],
}

impl core::fmt::Debug for CounterBlock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CounterBlock").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

impl CounterBlock {
    fn new(cpu: CpuId) -> Self {
        Self {
            cpu,
            may_fail: AtomicBool::new(false),
            values: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
    /// Whether a plan of failures is in force.
    #[inline]
    pub(crate) fn may_fail(&self) -> bool {
        self.may_fail.load(Ordering::Relaxed)
    }
    pub(crate) fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }
    #[inline]
    pub(crate) fn add(&self, counter: Counter, n: u64) {
        let cell = &self.values[counter as usize];
        // X3: one writer, so no read-modify-write is needed.
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Registry {
    live: Vec<Arc<CounterBlock>>,
    retired: Vec<[u64; N]>,
}

/// All counters of a machine.
pub struct Counters {
    registry: Mutex<Registry>,
    /// Those of the first thread, to wait by for the registry.
    hooks: Once<Arc<dyn WaitHooks>>,
    /// What is to fail, for tests.
    fails: Fails,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Counters {
    /// Counters for `cpus` processors, all zero.
    pub fn new(cpus: u16) -> Arc<Self> {
        let retired = alloc::vec![[0; N]; usize::from(cpus.max(1))];
        Arc::new(Self {
            registry: Mutex::new(Rank::Registry, Registry { live: Vec::new(), retired }),
            hooks: Once::new(),
            fails: Fails::default(),
        })
    }
    fn registry(&self) -> impl DerefMut<Target = Registry> + '_ {
        self.registry.lock_leaf(self.hooks.get().map_or(&SpinHooks, |hooks| &**hooks))
    }
    pub(crate) fn register(&self, cpu: CpuId, hooks: &Arc<dyn WaitHooks>) -> Arc<CounterBlock> {
        if self.hooks.get().is_none() {
            let _ = self.hooks.set(Arc::clone(hooks)); // or another thread's, which wait as well
        }
        let block = Arc::new(CounterBlock::new(cpu));
        let mut room = Vec::new();
        loop {
            let mut r = self.registry();
            let need = r.live.len() + 1;
            match grow::give_room(&mut r.live, &mut room, need) {
                Ok(()) => {
                    block.may_fail.store(self.fails.is_armed(), Ordering::Relaxed);
                    r.live.push(Arc::clone(&block));
                    break;
                }
                Err(more) => {
                    drop(r);
                    room = Vec::with_capacity(more);
                }
            }
        }
        block
    }
    pub(crate) fn retire(&self, block: &Arc<CounterBlock>) {
        let mut r = self.registry();
        r.live.retain(|b| !Arc::ptr_eq(b, block)); // `block` keeps it: nothing is freed here
        let cpu = usize::from(block.cpu.0).min(r.retired.len() - 1);
        for (sum, v) in r.retired[cpu].iter_mut().zip(&block.values) {
            *sum = sum.wrapping_add(v.load(Ordering::Relaxed));
        }
    }
    /// Puts a plan of failures in force, in place of the one before; requests are counted from nothing again.
    pub fn fail(&self, plan: &FailPlan) {
        let r = self.registry();
        self.fails.set(plan);
        r.live.iter().for_each(|b| b.may_fail.store(self.fails.is_armed(), Ordering::Relaxed));
    }
    /// What was asked for since the plan in force was made.
    pub fn asked(&self) -> Asked {
        self.fails.asked()
    }
    /// [`crate::Cx::fails`] for those who have no [`crate::Cx`].
    #[inline]
    pub fn fails(&self, kind: FailKind) -> bool {
        self.fails.is_armed() && self.fails.strike(kind)
    }
    /// The sum of one counter over all CPUs; exact when nothing runs.
    pub fn get(&self, counter: Counter) -> u64 {
        self.snapshot().get(counter)
    }
    /// All sums at once.
    pub fn snapshot(&self) -> Snapshot {
        let r = self.registry();
        let mut sums = [0u64; N];
        for block in &r.retired {
            for (s, v) in sums.iter_mut().zip(block) {
                *s = s.wrapping_add(*v);
            }
        }
        for block in &r.live {
            for (s, v) in sums.iter_mut().zip(&block.values) {
                *s = s.wrapping_add(v.load(Ordering::Relaxed));
            }
        }
        Snapshot { sums }
    }
}

/// The counters at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    sums: [u64; N],
}

impl Snapshot {
    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.sums[counter as usize]
    }
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut sums = self.sums;
        for (s, e) in sums.iter_mut().zip(&earlier.sums) {
            *s = s.wrapping_sub(*e);
        }
        Self { sums }
    }
    /// Name and value of each counter, in view order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL.iter().map(|c| (c.name(), self.get(*c)))
    }
}
