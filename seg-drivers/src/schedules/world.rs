//! A small machine that several threads use: all five crates, real tables, real bytes, a processor for each thread.

use crate::anon::AnonLayer;
use crate::seg_vn::{ForkPolicy, SegVnArgs, VnDriver, VnTunables};
use addr_space::addr_space::USER_RANGE;
use addr_space::{AddrSpace, AsId, FaultError, FaultKind, HatProvider};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hat_x86::{HatX86, HostMmu, Mmu, SpaceId, Trap, UserAccess};
use page_db::pageout::{NoHook, Pageout, PageoutConfig, SinglestepWait};
use page_db::sync::explore;
use page_db::{
    Access, Counters, CpuId, Cx, ExclPage, HostMem, ManualClock, PAGE_SIZE, PageDb, PageDbConfig,
    PageId, Pfn, PhysMem, Prot, Reserve, SpinHooks, ThreadId, Thresholds, VirtAddr, VirtRange,
};
use shuttle::thread::JoinHandle;
use swapfs::{AnonNumber, AreaId, MemDevice, SwapConfig, SwapFs};

pub(super) const BASE: u64 = 0x10000;
/// The last byte of a page, for contents that a copy reaches last.
pub(super) const LAST: u64 = PAGE_SIZE - 1;
const CPUS: u16 = 3;
/// Swap in pages, more than any scenario stores.
const SWAP: u64 = 32;

/// The machine; every thread has a handle.
#[derive(Clone)]
pub(super) struct World {
    pub(super) db: Arc<PageDb>,
    pub(super) swap: Arc<SwapFs>,
    /// Where pages are stored.
    pub(super) area: AreaId,
    pub(super) mmu: Arc<HostMmu>,
    pub(super) hat: Arc<HatX86>,
    pub(super) driver: Arc<VnDriver>,
    pub(super) pageout: Arc<Pageout>,
    /// Frames taken away, so that those left are soon used again.
    taken: Arc<page_db::sync::Mutex<Vec<PageId>>>,
}

/// A process.
pub(super) type Proc = Arc<AddrSpace>;

/// What an access came to.
pub(super) type Got<T> = Result<T, FaultError>;

fn cx_of(counters: &Arc<Counters>, n: u16) -> Cx {
    Cx::new(counters, CpuId(n % CPUS), ThreadId(u32::from(n)), Arc::new(SpinHooks))
}

pub(super) fn page(n: u64) -> VirtRange {
    pages(n, 1)
}
pub(super) fn pages(first: u64, count: u64) -> VirtRange {
    VirtRange::exact(BASE + first * PAGE_SIZE, count * PAGE_SIZE).expect("aligned")
}

impl World {
    /// A machine, and the context of the thread that sets it up, on CPU 0.
    pub(super) fn new(frames: u64) -> (Self, Cx) {
        Self::with(frames, VnTunables::default(), SWAP)
    }
    /// The same with so many pages of swap.
    pub(super) fn swapping(frames: u64, swap: u64) -> (Self, Cx) {
        Self::with(frames, VnTunables::default(), swap)
    }
    /// The same, where fork is lazy.
    pub(super) fn lazy(frames: u64) -> (Self, Cx) {
        Self::with(frames, VnTunables { fork: ForkPolicy::Lazy, ..VnTunables::default() }, SWAP)
    }
    fn with(frames: u64, tunables: VnTunables, pages: u64) -> (Self, Cx) {
        let counters = Counters::new(CPUS);
        let cx = cx_of(&counters, 0);
        let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), frames).expect("heap"));
        let config = PageDbConfig {
            cpus: CPUS,
            thresholds: Some(Thresholds::from_lotsfree(0)),
            ..PageDbConfig::default()
        };
        let clock = Arc::new(ManualClock::default());
        let db = PageDb::new(&cx, Arc::clone(&mem), clock, counters, &config).expect("a database");
        let db = Arc::new(db);
        let swap_config = SwapConfig { cpus: CPUS, ..SwapConfig::default() };
        let swap = SwapFs::new(&cx, &db, swap_config).expect("swap");
        let device = Arc::new(MemDevice::new("swap0", pages));
        let area = swap.add(&cx, device, 0, pages, 0).expect("an area");
        let mmu = HostMmu::new(mem, CPUS);
        let hat = HatX86::new(&cx, Arc::clone(&db), Arc::clone(&mmu) as _).expect("a hat");
        let pageout = Arc::new(Pageout::new(&db, PageoutConfig::default()));
        let wait = SinglestepWait::new(Arc::clone(&pageout), Arc::new(NoHook));
        assert!(db.set_memory_wait(Arc::new(wait)));
        let driver = VnDriver::new(&AnonLayer::new(&swap), tunables);
        let taken = Arc::new(page_db::sync::Mutex::new(page_db::Rank::Registry, Vec::new()));
        (Self { db, swap, area, mmu, hat, driver, pageout, taken }, cx)
    }
    pub(super) fn proc(&self, cx: &Cx, id: u32) -> Proc {
        let hat = self.hat.alloc(cx).expect("frames");
        let space = AddrSpace::new(cx, AsId(id), USER_RANGE, hat, Arc::clone(&self.db));
        Arc::new(space.expect("heap"))
    }
    /// A process with `pages` pages of private memory at [`BASE`].
    pub(super) fn zfod(&self, cx: &Cx, id: u32, pages: u64) -> Proc {
        let p = self.proc(cx, id);
        p.map(cx, self::pages(0, pages), &SegVnArgs::zfod(&self.driver, Prot::RW)).expect("free");
        p
    }
    pub(super) fn fork(&self, cx: &Cx, p: &Proc, id: u32) -> Proc {
        let child = self.proc(cx, id);
        p.dup(cx, &child).expect("a child");
        child
    }
    /// Runs `f` in a thread of its own on CPU `n`.
    pub(super) fn spawn(
        &self,
        n: u16,
        f: impl FnOnce(&Self, &Cx) + Send + 'static,
    ) -> JoinHandle<()> {
        let w = self.clone();
        explore::spawn(move || {
            let cx = cx_of(w.db.counters(), n);
            f(&w, &cx);
            assert!(cx.held().is_empty(), "X2: {:?}", cx.held());
        })
    }
    /// Lets this thread's processor run `p`.
    pub(super) fn run(&self, cx: &Cx, p: &Proc) {
        self.mmu.activate(cx, cx.cpu(), Some(SpaceId(p.hat().id())));
    }
    /// Makes an access in `p`, which this thread's processor runs, resolving faults.
    fn access(&self, cx: &Cx, p: &Proc, at: u64, write: Option<u8>) -> Got<u8> {
        let va = VirtAddr::new(BASE + at).expect("canonical");
        loop {
            let mut b = [0];
            let done = match write {
                Some(v) => self.mmu.store(cx, cx.cpu(), va, &[v]),
                None => self.mmu.load(cx, cx.cpu(), va, &mut b),
            };
            match done {
                Ok(()) => return Ok(write.unwrap_or(b[0])),
                Err(Trap::Page(_)) => {
                    let access = if write.is_some() { Access::Write } else { Access::Read };
                    p.fault_at(cx, va, FaultKind::Invalid, access)?;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    /// Stores a byte, `at` bytes above [`BASE`].
    pub(super) fn store(&self, cx: &Cx, p: &Proc, at: u64, v: u8) -> Got<()> {
        self.access(cx, p, at, Some(v)).map(drop)
    }
    /// Loads a byte, `at` bytes above [`BASE`].
    pub(super) fn load(&self, cx: &Cx, p: &Proc, at: u64) -> Got<u8> {
        self.access(cx, p, at, None)
    }
    /// As [`World::load`] of a mapped page, from this thread's processor, which is switched to `p` for it.
    pub(super) fn peek(&self, cx: &Cx, p: &Proc, at: u64) -> u8 {
        self.run(cx, p);
        self.load(cx, p, at).expect("mapped")
    }
    /// What a processor gets where it is, without a fault.
    pub(super) fn glance(&self, cx: &Cx, cpu: CpuId, at: u64) -> Option<u8> {
        let va = VirtAddr::new(BASE + at).expect("canonical");
        let mut b = [0];
        self.mmu.load(cx, cpu, va, &mut b).ok().map(|()| b[0])
    }
    /// The only anon.
    pub(super) fn anon(&self, cx: &Cx) -> AnonNumber {
        self.anon_at(cx, 0)
    }
    /// The anon in so many-th of the slots that hold one, of the map made last.
    pub(super) fn anon_at(&self, cx: &Cx, i: usize) -> AnonNumber {
        let map = self.driver.layer().maps().pop().expect("a map");
        map.slots(cx, 0..u64::MAX >> 1).nth(i).expect("an anon").1
    }
    /// Puts out to swap what can be: the frames go, and what is stored there stays.
    pub(super) fn put_out(&self, cx: &Cx) {
        self.pageout.reclaim_all(cx, &self.db);
        self.squeeze(cx, 0);
        self.release(cx);
    }
    /// Takes frames away until `left` are free.
    pub(super) fn squeeze(&self, cx: &Cx, left: u64) {
        while self.db.freemem() > left {
            let page = self.db.alloc(cx, 0, Reserve::Push).expect("free");
            self.taken.lock_host().push(ExclPage::leak(page));
        }
    }
    /// Gives them back.
    pub(super) fn release(&self, cx: &Cx) {
        for id in core::mem::take(&mut *self.taken.lock_host()) {
            self.db.free(cx, self.db.adopt_excl(cx, id), false);
        }
    }
    /// Lets every processor leave the process it ran.
    pub(super) fn mmu_idle(&self, cx: &Cx) {
        for cpu in 0..CPUS {
            self.mmu.activate(cx, CpuId(cpu), None);
        }
    }
    /// Checks every layer, and what lies between them: an anon has a reference for each slot that holds it (I1). Nothing else runs.
    pub(super) fn verify(&self, cx: &Cx, procs: &[&Proc]) {
        assert!(cx.held().is_empty(), "X2: {:?}", cx.held());
        self.db.verify(cx).expect("pages are sound");
        self.swap.verify(cx).expect("swap is sound");
        self.hat.verify(cx).expect("the hat is sound");
        for p in procs {
            p.verify(cx).expect("an address space is sound");
        }
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        for map in self.driver.layer().maps() {
            map.verify(cx).expect("an anon map is sound");
            for (_, n) in map.slots(cx, 0..u64::MAX >> 1) {
                *held.entry(n.get()).or_default() += 1;
            }
        }
        for n in self.swap.live_numbers() {
            let slots = held.remove(&n.get()).unwrap_or(0);
            assert_eq!(self.driver.layer().anons().refs(n), slots, "I1: references of anon {n}");
        }
        self.driver.layer().verify(cx).expect("M4: chunks and blocks are some map's");
        assert!(held.is_empty(), "I3: slots hold {held:?}, which are not handed out");
    }
    /// Checks all, ends the processes, and sees that nothing of them is left.
    pub(super) fn finish(&self, cx: &Cx, procs: &[&Proc]) {
        self.release(cx);
        self.verify(cx, procs);
        for p in procs {
            self.mmu_idle(cx);
            p.free(cx);
        }
        self.verify(cx, procs);
        let census = self.db.verify(cx).expect("pages are sound");
        assert_eq!((self.swap.live(), census.named), (0, 0), "something anonymous is left");
        assert_eq!(self.swap.info().reserved(), 0, "a promise is left");
    }
}
