//! A machine: memory, processors, swap, a kernel and processes, all hanging off one value.
//!
//! ```text
//!   Process ─▶ AddrSpace ─▶ Seg ─▶ seg_vn ─┬─▶ anon maps ─▶ swapfs ─▶ swap areas
//!      │            │                      └─▶ File ─▶ store
//!      │            ▼                              │
//!      └── CPU ─▶ HatX86: tables in frames         ▼
//!              │                                PageDb: pages by <vnode, offset>, free lists, page-out
//!              └─▶ HostMmu: remembers translations, walks the same tables
//! ```
//!
//! There are no globals: any number of machines live side by side, and two machines given the same calls give the same answers. Numbers are
//! handed out in order of creation.
//!
//! A [`Machine`] is a handle that one thread works with: it carries that thread's [`Cx`]. Clone it for another thread.
//!
//! A machine is single-stepped: page-out runs when memory is waited for, or when it is asked for. [`Machine::spawn_daemons`] gives it threads.

#[cfg(test)]
mod beside_tests;
mod brk;
mod builder;
#[cfg(test)]
mod calls_tests;
mod copy;
mod cpu;
mod ctl;
mod daemons;
#[cfg(test)]
mod daemons_tests;
mod dump;
mod error;
mod exec;
#[cfg(test)]
mod exec_tests;
mod fork;
mod image;
mod laws;
mod lend;
mod limits;
mod loans;
mod memcntl;
mod meminfo;
mod memory;
mod mmap;
mod mremap;
mod personality;
mod pins;
mod process;
mod stack;
#[cfg(test)]
mod stress_tests;
mod verify;
mod waiters;
mod watch;
#[cfg(test)]
mod watch_tests;
mod words;
mod world;

pub use builder::{
    DEFAULT_FRAMES, DEFAULT_SWAP, ForkPolicy, LockedAtFork, MachineBuilder, SwapArea, SwapBacking,
};
pub use cpu::{AccessError, Processors};
pub use ctl::MemAdvice;
pub use daemons::Daemons;
pub use dump::WorldDump;
pub use error::{Cause, SysError};
pub use exec::{LOAD_BASE, Program};
pub use limits::Limit;
#[doc(alias = "struct memcntl_mha")]
pub use memcntl::HatAdvice;
pub use memcntl::{MemAttr, MemCall, MemCommand};
#[doc(alias = "MAX_MEMINFO_REQ")]
pub use meminfo::MOST_QUESTIONS;
pub use meminfo::{MemAnswer, MemInfo};
pub use memory::SwapCtlError;
pub use mmap::{MapFlags, MapRequest};
pub use mremap::RemapFlags;
pub use personality::Personality;
pub use process::{BREAK_BASE, Pid, Process, STACK_LIMIT, STACK_TOP, USER_RANGE, USER_TOP};
#[doc(alias = "p_stkg_start")]
pub use stack::STACK_GUARD;
#[doc(alias = "stack_guard_min_sz")]
pub use stack::STACK_GUARD_LEAST;
pub use verify::Violation;
pub use world::{ARENA, MachineWorld};

use crate::files::{File, FileError, Store};
use addr_space::{AddrSpace, AsError, HatProvider, SegCx, SegError};
use hat_x86::{HatX86, HostMmu, KERNEL_WINDOW, SetupError};
use page_db::fail::{Asked, FailPlan};
use page_db::pageout::Pageout;
use page_db::phys_mem::NoHostMemory;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::{
    Clock, Counters, CpuId, Cx, HostMem, ManualClock, MemoryTries, PageDb, PageDbConfig,
    PageDbError, PageId, Pfn, PhysMem, Rank, SpinHooks, ThreadId, Vnode, VnodeId,
};
use seg_drivers::anon::AnonLayer;
use seg_drivers::seg_kmem::{Kmem, KmemArgs};
use seg_drivers::seg_vn::VnDriver;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use swapfs::{SwapConfig, SwapError, SwapFs};

/// The first frame of memory: below lies what firmware keeps.
const FIRST_FRAME: Pfn = Pfn(0x100);

/// Why a machine cannot be switched on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The host has no memory for the frames.
    #[error(transparent)]
    Memory(#[from] NoHostMemory),
    /// The page database refused.
    #[error(transparent)]
    Pages(#[from] PageDbError),
    /// Swap could not be set up.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// A swap area could not be had.
    #[error(transparent)]
    SwapArea(#[from] SwapCtlError),
    /// The hat could not be set up.
    #[error(transparent)]
    Hat(#[from] SetupError),
    /// The kernel's heap could not be mapped.
    #[error("the kernel's heap: {0}")]
    Kernel(#[from] AsError),
    /// There is no memory for the first process.
    #[error("the machine is too small for one process")]
    NoProcess,
}

impl From<SegError> for BootError {
    fn from(e: SegError) -> Self {
        Self::Kernel(AsError::Seg(e))
    }
}

/// What all handles of a machine share.
pub(crate) struct Parts {
    pub(crate) db: Arc<PageDb>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) swap: Arc<SwapFs>,
    pub(crate) mmu: Arc<dyn Processors>,
    /// The same, if it is the one that comes with the library.
    host_mmu: Option<Arc<HostMmu>>,
    pub(crate) hat: Arc<HatX86>,
    pub(crate) vn: Arc<VnDriver>,
    pub(crate) kas: Arc<AddrSpace>,
    pub(crate) kmem: Arc<Kmem>,
    pub(crate) pageout: Arc<Pageout>,
    pub(crate) daemon: daemons::Daemon,
    /// Whose turn it is on each processor.
    pub(crate) turns: cpu::Turns,
    pub(crate) config: MachineBuilder,
    procs: Mutex<BTreeMap<Pid, Arc<process::Shared>>>,
    files: Mutex<BTreeMap<VnodeId, Arc<File>>>,
    /// Frames taken away by [`Machine::squeeze`].
    squeezed: Mutex<Vec<PageId>>,
    next_pid: AtomicU32,
    next_space: AtomicU32,
    next_thread: AtomicU32,
    pub(crate) next_device: AtomicU32,
}

/// One thread's handle of a machine.
pub struct Machine {
    parts: Arc<Parts>,
    cx: Cx,
}

impl Clone for Machine {
    /// A handle for another thread, on the same CPU.
    fn clone(&self) -> Self {
        self.thread(self.cx.cpu())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("frames", &self.parts.db.pages().len())
            .field("cpus", &self.parts.db.cpus())
            .field("cx", &self.cx)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine to be chosen.
    pub fn builder() -> MachineBuilder {
        MachineBuilder::default()
    }
    fn boot(config: &MachineBuilder) -> Result<Self, BootError> {
        let counters = Counters::new(config.cpus);
        let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
        let mem: Arc<dyn PhysMem> = match &config.memory {
            Some(mem) => Arc::clone(mem),
            None => Arc::new(HostMem::new(FIRST_FRAME, config.frames)?),
        };
        let clock = Arc::new(ManualClock::default());
        let db = Self::boot_pages(&cx, &mem, &clock, &counters, config)?;
        let (mmu, host_mmu) = match &config.mmu {
            Some(make) => ((make.0)(&mem, config.cpus), None),
            None => {
                let host = HostMmu::new(mem, config.cpus);
                (Arc::clone(&host) as Arc<dyn Processors>, Some(host))
            }
        };
        let hat = HatX86::new(&cx, Arc::clone(&db), Arc::clone(&mmu) as _)?;
        let swap = SwapFs::new(&cx, &db, SwapConfig { cpus: config.cpus, ..config.swap_config })?;
        let layer = AnonLayer::new(&swap);
        let vn = VnDriver::new(&layer, config.tunables);
        let kas = AddrSpace::kernel(&cx, KERNEL_WINDOW, hat.kernel(), Arc::clone(&db))?;
        let kmem = Kmem::new(&cx, &db, KERNEL_WINDOW)?;
        kas.map(&cx, KERNEL_WINDOW, &KmemArgs(Arc::clone(&kmem)))?;
        let parts = Arc::new(Parts {
            pageout: Arc::new(Pageout::new(&db, config.pageout)),
            daemon: daemons::Daemon::default(),
            turns: cpu::turns(config.cpus),
            db,
            counters,
            clock,
            swap,
            mmu,
            host_mmu,
            hat,
            vn,
            kas: Arc::new(kas),
            kmem,
            config: config.clone(),
            procs: Mutex::new(Rank::Registry, BTreeMap::new()),
            files: Mutex::new(Rank::Registry, BTreeMap::new()),
            squeezed: Mutex::new(Rank::Registry, Vec::new()),
            next_pid: AtomicU32::new(1),
            next_space: AtomicU32::new(1),
            next_thread: AtomicU32::new(1),
            next_device: AtomicU32::new(0),
        });
        let machine = Self { parts, cx };
        machine.install_memory_wait();
        match &config.swap {
            Some(areas) => areas.iter().try_for_each(|a| machine.swap_add(a).map(drop))?,
            None => {
                let area =
                    SwapArea { backing: SwapBacking::Memory, pages: DEFAULT_SWAP, priority: 0 };
                machine.swap_add(&area).map(drop)?;
            }
        }
        machine.fail(&config.fail);
        Ok(machine)
    }
    fn boot_pages(
        cx: &Cx,
        mem: &Arc<dyn PhysMem>,
        clock: &Arc<ManualClock>,
        counters: &Arc<Counters>,
        config: &MachineBuilder,
    ) -> Result<Arc<PageDb>, BootError> {
        let pages = PageDbConfig {
            cpus: config.cpus,
            colours: config.colours,
            hash: config.hash,
            thresholds: config.thresholds,
            ..PageDbConfig::default()
        };
        let (mem, counters) = (Arc::clone(mem), Arc::clone(counters));
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        Ok(Arc::new(match &config.page_hash {
            Some(make) => {
                let hash = (make.0)(mem.frames())?;
                PageDb::with_hash(cx, mem, clock, counters, &pages, hash)?
            }
            None => PageDb::new(cx, mem, clock, counters, &pages)?,
        }))
    }
    /// Puts a plan of failures in force, in place of the one before: the requests it names are refused ([`page_db::fail`]).
    ///
    /// ```
    /// use page_db::{FailKind, FailPlan};
    /// let machine = segvm::Machine::builder().frames(512).build()?;
    /// let process = machine.spawn("p")?;
    /// machine.fail(&FailPlan::counting().kth(FailKind::Reservation, 1));
    /// assert!(process.map_anon(4096).is_err());
    /// assert!(process.map_anon(4096).is_ok(), "the second promise is kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(&self, plan: &FailPlan) {
        self.parts.counters.fail(plan);
    }
    /// What was asked for since the plan in force was made, if there is one.
    pub fn asked(&self) -> Asked {
        self.parts.counters.asked()
    }
    /// A handle for a thread on `cpu`.
    #[must_use]
    pub fn thread(&self, cpu: CpuId) -> Self {
        let thread = ThreadId(self.parts.next_thread.fetch_add(1, Ordering::Relaxed));
        let cpu = self.clamp_cpu(cpu);
        let cx = Cx::new(&self.parts.counters, cpu, thread, Arc::new(SpinHooks));
        Self { parts: Arc::clone(&self.parts), cx }
    }
    /// CPUs that do not exist are those that do, counted round.
    pub(crate) fn clamp_cpu(&self, cpu: CpuId) -> CpuId {
        CpuId(cpu.0 % self.parts.db.cpus())
    }
    pub(crate) fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }
    /// This thread's context.
    pub fn cx(&self) -> &Cx {
        &self.cx
    }
    /// How the machine was chosen.
    pub fn config(&self) -> &MachineBuilder {
        &self.parts.config
    }
    /// The pages.
    pub fn db(&self) -> &Arc<PageDb> {
        &self.parts.db
    }
    /// Names and places of anonymous pages.
    pub fn swap(&self) -> &Arc<SwapFs> {
        &self.parts.swap
    }
    /// The page tables.
    pub fn hat(&self) -> &Arc<HatX86> {
        &self.parts.hat
    }
    /// The processors, which remember translations.
    pub fn mmu(&self) -> &Arc<dyn Processors> {
        &self.parts.mmu
    }
    /// The same where they are simulated ones, which tell what they remember; `None` with an [`MachineBuilder::mmu`] of the caller's own.
    pub fn host_mmu(&self) -> Option<&Arc<HostMmu>> {
        self.parts.host_mmu.as_ref()
    }
    /// What all `seg_vn` segments share.
    pub fn vn(&self) -> &Arc<VnDriver> {
        &self.parts.vn
    }
    /// Anonymous memory.
    pub fn anon(&self) -> &Arc<AnonLayer> {
        self.parts.vn.layer()
    }
    /// The kernel's address space.
    pub fn kas(&self) -> &Arc<AddrSpace> {
        &self.parts.kas
    }
    /// The kernel's heap.
    pub fn kmem(&self) -> &Arc<Kmem> {
        &self.parts.kmem
    }
    /// The kernel's address space as its heap wants it.
    pub fn kernel_scx(&self) -> SegCx<'_> {
        self.parts.kas.seg_cx(&self.cx, self.parts.kmem.window())
    }
    /// The counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.parts.counters
    }
    /// The clock: it moves only when something waits for a tick.
    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.parts.clock
    }

    // ---- processes ----

    /// Makes a process with an empty address space; its handle is a thread on this handle's CPU.
    ///
    /// # Errors
    /// `ENOMEM` when there is no frame for its page table.
    pub fn spawn(&self, name: &str) -> Result<Process, SysError> {
        Process::create(self, self.cx.cpu(), name).map(Process::announce)
    }
    /// The processes that live, by number.
    pub fn processes(&self) -> Vec<Process> {
        let live: Vec<_> = self.parts.procs.lock_host().values().cloned().collect();
        live.iter().map(|p| Process::handle(self, self.cx.cpu(), p)).collect()
    }
    /// A process by number.
    pub fn process(&self, pid: Pid) -> Option<Process> {
        let shared = self.parts.procs.lock_host().get(&pid).cloned()?;
        Some(Process::handle(self, self.cx.cpu(), &shared))
    }
    /// Every address space, the kernel's first, then by process; once each.
    pub fn spaces(&self) -> Vec<(Option<Pid>, Arc<AddrSpace>)> {
        let mut all = vec![(None, Arc::clone(&self.parts.kas))];
        for (pid, p) in self.parts.procs.lock_host().iter() {
            let space = p.space();
            // Of those who share one (vfork), the first.
            if !all.iter().any(|(_, known)| Arc::ptr_eq(known, &space)) {
                all.push((Some(*pid), space));
            }
        }
        all
    }
    pub(crate) fn next_pid(&self) -> Pid {
        Pid(self.parts.next_pid.fetch_add(1, Ordering::Relaxed))
    }
    pub(crate) fn register(&self, p: &Arc<process::Shared>) {
        self.parts.procs.lock_host().insert(p.pid, Arc::clone(p));
    }
    pub(crate) fn unregister(&self, pid: Pid) {
        self.parts.procs.lock_host().remove(&pid);
    }
    /// An empty user address space.
    pub(crate) fn new_space(&self, call: &'static str) -> Result<Arc<AddrSpace>, SysError> {
        let mut tries = MemoryTries::new(1, 1); // the top table
        let hat = loop {
            match self.parts.hat.alloc(&self.cx) {
                Ok(hat) => break hat,
                Err(addr_space::HatError::NoMemory { .. }) => {
                    tries.wait(&self.cx, &self.parts.db).map_err(|e| SysError::of(call, e))?
                }
                Err(e) => return Err(SysError::of(call, AsError::Hat(e))),
            }
        };
        let id = process::as_id(self.parts.next_space.fetch_add(1, Ordering::Relaxed));
        let db = Arc::clone(&self.parts.db);
        let space = AddrSpace::new(&self.cx, id, USER_RANGE, hat, db);
        Ok(Arc::new(space.map_err(|e| SysError::of(call, e))?))
    }
    /// Takes an address space apart. CPUs that run in it go to the kernel's.
    pub(crate) fn release_space(&self, space: &AddrSpace) {
        space.free(&self.cx);
    }

    // ---- files ----

    /// Makes a file of `size` zero bytes in the host's memory.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn create_file(&self, name: &str, size: u64) -> Result<Arc<File>, FileError> {
        let file = File::in_memory(&self.cx, &self.parts.db, name, size)?;
        Ok(self.keep_file(file))
    }
    /// Opens a file of the host. Opening one twice gives two vnodes, which do not see each other's pages.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open_host_file(&self, path: &Path, writable: bool) -> Result<Arc<File>, FileError> {
        let file = File::on_host(&self.cx, &self.parts.db, path, writable)?;
        Ok(self.keep_file(file))
    }
    /// A file of `size` bytes that a store of the caller's own holds.
    ///
    /// ```
    /// use page_db::Cx;
    /// use segvm::files::{FileHandle, OpenMode, PageBuf, Store};
    /// use segvm::{MapFlags, MapRequest};
    ///
    /// /// Every page of it begins with its number; what is written is refused.
    /// #[derive(Debug)]
    /// struct Numbers;
    /// impl Store for Numbers {
    ///     fn read(&self, _: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32> {
    ///         page[..8].copy_from_slice(&(offset / 4096).to_le_bytes());
    ///         Ok(())
    ///     }
    ///     fn write(&self, _: &Cx, _: u64, _: &[u8]) -> Result<(), i32> {
    ///         Err(page_db::errno::EROFS)
    ///     }
    ///     fn resize(&self, _: &Cx, _: u64, _: u64) -> Result<(), i32> {
    ///         Err(page_db::errno::EROFS)
    ///     }
    ///     fn is_writable(&self) -> bool {
    ///         false
    ///     }
    /// }
    ///
    /// let machine = segvm::Machine::builder().frames(512).build()?;
    /// let file = machine.add_file("numbers", 1 << 20, Box::new(Numbers))?;
    /// let process = machine.spawn("reader")?;
    /// let handle = FileHandle::new(file, OpenMode::ReadOnly);
    /// let at = process.mmap(&MapRequest {
    ///     addr: 0,
    ///     len: 1 << 20,
    ///     prot: 1,
    ///     flags: MapFlags::SHARED,
    ///     file: Some(&handle),
    ///     offset: 0,
    /// })?;
    /// assert_eq!(process.load_u8(at + (42 << 12))?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`FileError`].
    pub fn add_file(
        &self,
        name: &str,
        size: u64,
        store: Box<dyn Store>,
    ) -> Result<Arc<File>, FileError> {
        Ok(self.keep_file(File::new(&self.cx, &self.parts.db, name, size, store)?))
    }
    fn keep_file(&self, file: Arc<File>) -> Arc<File> {
        self.parts.files.lock_host().insert(file.id(), Arc::clone(&file));
        file
    }
    /// The files, by vnode number.
    pub fn files(&self) -> Vec<Arc<File>> {
        self.parts.files.lock_host().values().cloned().collect()
    }
    /// Forgets a file: its pages go, and its vnode number. Says whether it could; a file that is mapped or open
    /// elsewhere, or of which somebody goes on holding a page for a second, stays as it was.
    pub fn remove_file(&self, file: Arc<File>) -> bool {
        {
            let mut files = self.parts.files.lock_host();
            let known = files.get(&file.id()).is_some_and(|f| Arc::ptr_eq(f, &file));
            // The table's reference and the caller's are all there are.
            if !known || Arc::strong_count(&file) > 2 {
                return false;
            }
            files.remove(&file.id());
        }
        let gone = file.retire(&self.cx, &self.parts.db);
        gone.map_err(|file| self.keep_file(file)).is_ok()
    }
}
