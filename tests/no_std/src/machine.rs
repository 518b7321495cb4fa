//! The parts, in the order in which they need each other.

use crate::{Result, ensure};
use addr_space::{AddrSpace, AsId, HatError, HatProvider, USER_RANGE};
use alloc::sync::{Arc, Weak};
use hat_x86::access::{self, Stopped};
use hat_x86::{HatLimits, HatX86, HostMmu, KERNEL_WINDOW, Mmu, SpaceId, Trap};
use page_db::pageout::{Pageout, PageoutConfig, ReclaimHook, SinglestepWait};
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::{
    Clock, Counters, CpuId, Cx, HostMem, MemoryTries, PageDb, PageDbConfig, Pfn, PhysMem, ThreadId,
    VirtAddr, VirtRange, WaitHooks,
};
use seg_drivers::seg_kmem::KmemArgs;
use seg_drivers::{AnonLayer, Kmem, VnDriver, VnTunables};
use swapfs::{MemDevice, SwapConfig, SwapFs};

/// Frames the page database manages.
pub const FRAMES: u64 = 240;
/// Frames behind them that belong to a device.
pub const DEVICE_FRAMES: u64 = 16;
/// Number of the first frame: as on real machines, not 0.
pub const FIRST_FRAME: u64 = 256;
/// Pages of the swap area.
pub const SWAP_PAGES: u64 = 1024;
/// Pages of the kernel's heap.
const HEAP_PAGES: u64 = 64;

/// A machine. Nothing of it is global; the tests run several at a time.
#[derive(Debug)]
pub struct Machine {
    /// Pages.
    pub db: Arc<PageDb>,
    /// Names and places of anonymous pages.
    pub swap: Arc<SwapFs>,
    /// Its one area's device.
    pub disk: Arc<MemDevice>,
    /// Page tables.
    pub hat: Arc<HatX86>,
    /// Processors.
    pub mmu: Arc<HostMmu>,
    /// What `seg_vn` segments share.
    pub vn: Arc<VnDriver>,
    /// The two-handed clock.
    pub pageout: Arc<Pageout>,
    /// `kas`.
    pub kernel: AddrSpace,
    /// The kernel's heap, the one segment of `kas`.
    pub kmem: Arc<Kmem>,
    next_space: AtomicU32,
}

impl core::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Hooks")
    }
}

/// What makes contexts: the hooks of whoever runs the machine, and the numbers of its threads; and its clock, by which operations wait.
#[derive(Clone)]
pub struct Hooks {
    counters: Arc<Counters>,
    hooks: Arc<dyn WaitHooks>,
    clock: Arc<dyn Clock>,
}

impl Hooks {
    /// For a machine with `cpus` processors.
    pub fn new(cpus: u16, hooks: Arc<dyn WaitHooks>, clock: Arc<dyn Clock>) -> Self {
        Self { counters: Counters::new(cpus), hooks, clock }
    }
    /// The context of a thread: by hand, as a kernel makes one for each of its threads.
    pub fn cx(&self, cpu: u16, thread: u32) -> Cx {
        Cx::new(&self.counters, CpuId(cpu), ThreadId(thread), Arc::clone(&self.hooks))
    }
}

/// What is left when page-out has taken all it can: page tables of ranges that are idle. Weak, for the hat holds the database, which holds this.
#[derive(Debug)]
struct StealTables(Weak<HatX86>);

impl ReclaimHook for StealTables {
    fn steal(&self, cx: &Cx, _: &PageDb, want: u64) -> u64 {
        self.0.upgrade().map_or(0, |hat| hat.steal_tables(cx, want))
    }
}

impl Machine {
    /// Switches a machine on.
    ///
    /// # Errors
    /// Whatever a part could not have.
    pub fn boot(cx: &Cx, hooks: &Hooks, cpus: u16) -> Result<Self> {
        Self::boot_within(cx, hooks, cpus, HatLimits::default())
    }
    /// The same with bounds on the hat's records.
    ///
    /// # Errors
    /// Whatever a part could not have.
    pub fn boot_within(cx: &Cx, hooks: &Hooks, cpus: u16, limits: HatLimits) -> Result<Self> {
        let mem: Arc<dyn PhysMem> =
            Arc::new(HostMem::new(Pfn(FIRST_FRAME), FRAMES + DEVICE_FRAMES)?);
        let config = PageDbConfig { frames: Some(FRAMES), cpus, ..PageDbConfig::default() };
        let (clock, counters) = (Arc::clone(&hooks.clock), Arc::clone(&hooks.counters));
        let db = Arc::new(PageDb::new(cx, Arc::clone(&mem), clock, counters, &config)?);

        let swap = SwapFs::new(cx, &db, SwapConfig { cpus, ..SwapConfig::default() })?;
        let disk = Arc::new(MemDevice::new("disk", SWAP_PAGES));
        swap.add(cx, Arc::clone(&disk) as Arc<_>, 0, SWAP_PAGES, 0)?;

        let mmu = HostMmu::new(mem, cpus);
        let hat =
            HatX86::with_limits(cx, Arc::clone(&db), Arc::clone(&mmu) as Arc<dyn Mmu>, limits)?;

        let pageout = Arc::new(Pageout::new(&db, PageoutConfig::default()));
        let tables = Arc::new(StealTables(Arc::downgrade(&hat)));
        let wait = SinglestepWait::new(Arc::clone(&pageout), tables);
        ensure!(db.set_memory_wait(Arc::new(wait)), "somebody else waits for memory");

        let kernel = AddrSpace::kernel(cx, KERNEL_WINDOW, hat.kernel(), Arc::clone(&db))?;
        let heap = VirtRange::exact(KERNEL_WINDOW.start().get(), HEAP_PAGES * page_db::PAGE_SIZE)?;
        let kmem = Kmem::new(cx, &db, heap)?;
        kernel.map(cx, heap, &KmemArgs(Arc::clone(&kmem)))?;

        let vn = VnDriver::new(&AnonLayer::new(&swap), VnTunables::default());
        let next_space = AtomicU32::new(1);
        Ok(Self { db, swap, disk, hat, mmu, vn, pageout, kernel, kmem, next_space })
    }
    /// An empty address space for a user. Making a hat needs a frame and does not wait for one: nothing that allocates does. The caller
    /// waits, with nothing held, and tries again. Not for ever: what is short may be a record of the heap's, and frames are plenty.
    ///
    /// # Errors
    /// No frame for its top table, and none to be had; no heap.
    pub fn space(&self, cx: &Cx) -> Result<AddrSpace> {
        let mut tries = MemoryTries::new(1, 1); // the top table
        let hat = loop {
            match self.hat.alloc(cx) {
                Ok(hat) => break hat,
                Err(HatError::NoMemory { .. }) => tries.wait(cx, &self.db)?,
                Err(error) => return Err(error.into()),
            }
        };
        let id = AsId(self.next_space.fetch_add(1, Ordering::Relaxed));
        Ok(AddrSpace::new(cx, id, USER_RANGE, hat, Arc::clone(&self.db))?)
    }
    /// Loads what a user of `space` would find at `addr`, on the thread's processor, faulting as it does.
    ///
    /// # Errors
    /// The fault that could not be resolved.
    pub fn load(&self, cx: &Cx, space: &AddrSpace, addr: u64, buf: &mut [u8]) -> Result<()> {
        self.run(cx, space, |done| {
            access::load(&*self.mmu, cx, cx.cpu(), at(addr, done)?, &mut buf[done..])
                .map_or_else(|stopped| Ok(Some(stopped)), |()| Ok(None))
        })
    }
    /// Stores as a user of `space` does.
    ///
    /// # Errors
    /// The fault that could not be resolved.
    pub fn store(&self, cx: &Cx, space: &AddrSpace, addr: u64, bytes: &[u8]) -> Result<()> {
        self.run(cx, space, |done| {
            access::store(&*self.mmu, cx, cx.cpu(), at(addr, done)?, &bytes[done..])
                .map_or_else(|stopped| Ok(Some(stopped)), |()| Ok(None))
        })
    }
    /// The trap handler: resolves page faults until the access, told how many bytes are done, comes to its end.
    fn run(
        &self,
        cx: &Cx,
        space: &AddrSpace,
        mut go_on: impl FnMut(usize) -> Result<Option<Stopped>>,
    ) -> Result<()> {
        self.mmu.activate(cx, cx.cpu(), Some(SpaceId(space.hat().id())));
        let mut done = 0;
        while let Some(stopped) = go_on(done)? {
            done += stopped.done;
            match stopped.trap {
                Trap::Page(fault) => space.fault_at(cx, fault.va, fault.kind(), fault.access)?,
                other => return Err(other.into()),
            }
        }
        Ok(())
    }
    /// Checks every structure against every other, with nothing running and nothing held.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn verify(&self, cx: &Cx, spaces: &[&AddrSpace]) -> Result<()> {
        ensure!(cx.held().is_empty(), "X2: a thread holds {:?} on return", cx.held());
        self.db.verify(cx)?;
        self.swap.verify(cx)?;
        self.hat.verify(cx)?;
        self.kernel.verify(cx)?;
        for space in spaces {
            space.verify(cx)?;
        }
        for map in self.vn.layer().maps() {
            map.verify(cx)?;
        }
        Ok(())
    }
}

fn at(addr: u64, done: usize) -> Result<VirtAddr> {
    Ok(VirtAddr::new(addr + done as u64)?)
}
