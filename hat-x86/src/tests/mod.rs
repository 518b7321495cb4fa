//! Tests that need a whole small machine: frames, pages, processors, hats.

mod above;
mod damage;
mod forgetful;
mod lists;
mod loads;
mod memory;
mod ranges;
mod runs;
mod shootdown;
mod tables;
mod threads;
mod upper;
mod views;
mod walks;

use crate::{HatLimits, HatX86, HostMmu, Mmu, SpaceId, UserAccess};
use addr_space::{Hat, HatProvider, LoadFlags, Loaded, UnloadFlags};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use page_db::{
    Counter, Counters, CpuId, Cx, HostMem, ManualClock, PageDb, PageDbConfig, PageId, PageMappings,
    Pfn, PhysMem, Prot, RefMod, Reserve, Snapshot, SpinHooks, SyncMode, ThreadId, Thresholds,
    VirtAddr, VirtRange,
};

pub(crate) const U: Prot = Prot::RW;

/// What threads share of a [`World`].
pub(crate) struct Parts {
    pub(crate) counters: Arc<Counters>,
    pub(crate) db: Arc<PageDb>,
    pub(crate) mmu: Arc<HostMmu>,
    pub(crate) hx: Arc<HatX86>,
}

/// A machine of two processors, and a thread on it.
pub(crate) struct World {
    pub(crate) cx: Cx,
    pub(crate) parts: Parts,
}

impl Deref for World {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.parts
    }
}

pub(crate) fn new_cx(counters: &Arc<Counters>, n: u16) -> Cx {
    Cx::new(counters, CpuId(n), ThreadId(u32::from(n)), Arc::new(SpinHooks))
}

/// Frames and pages alone, for two processors.
pub(crate) fn floor(frames: u64) -> (Arc<Counters>, Cx, Arc<dyn PhysMem>, Arc<PageDb>) {
    floor_of(frames, 2)
}
pub(crate) fn floor_of(
    frames: u64,
    cpus: u16,
) -> (Arc<Counters>, Cx, Arc<dyn PhysMem>, Arc<PageDb>) {
    let counters = Counters::new(cpus);
    let cx = new_cx(&counters, 0);
    let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), frames).expect("host memory"));
    let clock = Arc::new(ManualClock::default());
    let config = PageDbConfig {
        cpus,
        thresholds: Some(Thresholds::from_lotsfree(0)),
        ..PageDbConfig::default()
    };
    let db = PageDb::new(&cx, Arc::clone(&mem), clock, Arc::clone(&counters), &config);
    (counters, cx, mem, Arc::new(db.expect("small enough")))
}

impl World {
    pub(crate) fn new(frames: u64) -> Self {
        Self::with_limits(frames, HatLimits::default())
    }
    pub(crate) fn with_limits(frames: u64, limits: HatLimits) -> Self {
        let (counters, cx, mem, db) = floor(frames);
        let mmu = HostMmu::new(mem, 2);
        let hx = HatX86::with_limits(&cx, Arc::clone(&db), mmu.clone() as Arc<dyn Mmu>, limits)
            .expect("room for the kernel's tables");
        Self { cx, parts: Parts { counters, db, mmu, hx } }
    }
    pub(crate) fn hat(&self) -> Arc<dyn Hat> {
        self.hx.alloc(&self.cx).expect("room for a top table")
    }
    /// A nameless page, left unlocked.
    pub(crate) fn page(&self) -> PageId {
        use page_db::LockedPage as _;
        let page = self.db.alloc(&self.cx, 0, Reserve::Push).expect("room for a page");
        self.db.mem().zero(page.pfn());
        page.id()
    }
    pub(crate) fn free(&self, page: PageId) {
        let page = self.db.lock_excl(&self.cx, page);
        self.db.destroy(&self.cx, page);
    }
    pub(crate) fn load(&self, hat: &dyn Hat, addr: u64, page: PageId, prot: Prot) {
        self.load_with(hat, addr, page, prot, LoadFlags::empty());
    }
    pub(crate) fn load_with(
        &self,
        hat: &dyn Hat,
        addr: u64,
        page: PageId,
        prot: Prot,
        flags: LoadFlags,
    ) {
        let page = self.db.lock_shared(&self.cx, page);
        let done = hat.memload(&self.cx, va(addr), &page, prot, flags, None);
        assert_eq!(done, Ok(Loaded::Done));
    }
    pub(crate) fn unload(&self, hat: &dyn Hat, addr: u64, pages: u64) {
        hat.unload(&self.cx, range(addr, pages), UnloadFlags::empty());
    }
    pub(crate) fn run(&self, cpu: u16, hat: &dyn Hat) {
        self.mmu.activate(&self.cx, CpuId(cpu), Some(SpaceId(hat.id())));
    }
    /// Stores a byte at `addr` on a CPU; the translation is there.
    pub(crate) fn mmu_store(&self, cpu: u16, addr: u64) {
        self.mmu.store(&self.cx, CpuId(cpu), va(addr), b"x").expect("mapped and writable");
    }
    /// Loads a byte at `addr` on a CPU; the translation is there.
    pub(crate) fn mmu_load(&self, cpu: u16, addr: u64) {
        self.mmu.load(&self.cx, CpuId(cpu), va(addr), &mut [0]).expect("mapped");
    }
    pub(crate) fn end(&self, hat: &Arc<dyn Hat>) {
        hat.free_start(&self.cx);
        hat.free_end(&self.cx);
    }
    pub(crate) fn verify(&self) {
        self.hx.verify(&self.cx).expect("nothing is damaged");
        assert_eq!(self.mmu.stale_entries(&self.cx), []);
        self.db.verify(&self.cx).expect("pages are sound");
        assert_eq!(self.cx.held(), []);
    }
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.counters.snapshot()
    }
    pub(crate) fn bits(&self, page: PageId) -> RefMod {
        self.db.page(page).ref_mod()
    }
}

/// What was counted since: entries read, entries written.
pub(crate) fn cost(w: &World, since: &Snapshot) -> (u64, u64) {
    let d = w.snapshot().since(since);
    (d.get(Counter::PteReads), d.get(Counter::PteWrites))
}
pub(crate) fn va(addr: u64) -> VirtAddr {
    VirtAddr::new(addr).expect("canonical")
}
pub(crate) fn range(addr: u64, pages: u64) -> VirtRange {
    VirtRange::exact(addr, pages * 4096).expect("a range")
}

#[test]
fn a_page_is_mapped_used_and_unmapped() {
    let w = World::new(64);
    let free = w.db.freemem();
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x40_0000, page, U);
    crate::access::store(&*w.mmu, &w.cx, CpuId(0), va(0x40_0010), b"hello").expect("mapped");
    let mut got = [0; 5];
    crate::access::load(&*w.mmu, &w.cx, CpuId(0), va(0x40_0010), &mut got).expect("mapped");
    assert_eq!(&got, b"hello");
    assert_eq!(w.bits(page), RefMod::empty(), "bits stay in the entry until they are harvested");
    w.unload(&*hat, 0x40_0000, 1);
    assert_eq!(w.bits(page), RefMod::REF | RefMod::MOD);
    let gone = crate::access::load(&*w.mmu, &w.cx, CpuId(0), va(0x40_0010), &mut got);
    assert_eq!(gone.map_err(|s| s.done), Err(0));
    w.verify();
    w.end(&hat);
    w.free(page);
    assert_eq!(w.db.freemem(), free);
    w.verify();
}

#[test]
fn a_machine_drops_whole() {
    let w = World::new(64);
    let (db, hx) = (Arc::downgrade(&w.db), Arc::downgrade(&w.hx));
    let hat: Arc<dyn Hat> = w.hat();
    let kernel = w.hx.kernel();
    drop((w, hat, kernel));
    assert!(db.upgrade().is_none() && hx.upgrade().is_none(), "no cycle keeps them");
}

#[test]
fn numbers_of_hats_begin_anew_after_the_last_one() {
    let w = World::new(64);
    let first = w.hat();
    w.hx.next_id.store(u32::MAX - 1, core::sync::atomic::Ordering::Relaxed);
    let hats: Vec<_> = (0..3).map(|_| w.hat()).collect();
    // The kernel's, the first one's and what stands for many are passed over.
    let ids: Vec<u32> = hats.iter().map(|hat| hat.id()).collect();
    assert_eq!((first.id(), ids), (1, alloc::vec![u32::MAX - 1, 2, 3]));
    drop((first, hats));
    w.verify();
}

#[test]
fn a_frame_that_no_entry_can_hold_is_refused() {
    let mem: Arc<dyn PhysMem> =
        Arc::new(HostMem::new(Pfn(crate::pte::MAX_PFN.0 - 6), 8).expect("heap"));
    let counters = Counters::new(1);
    let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
    let clock = Arc::new(ManualClock::default());
    let db = PageDb::new(&cx, Arc::clone(&mem), clock, counters, &PageDbConfig::default());
    let hat = HatX86::new(&cx, Arc::new(db.expect("heap")), HostMmu::new(mem, 1));
    let pfn = Pfn(crate::pte::MAX_PFN.0 + 1);
    assert_eq!(hat.err(), Some(crate::SetupError::OutOfReach { pfn }));
}

#[test]
fn a_database_has_one_hat() {
    let w = World::new(64);
    let free = w.db.freemem();
    let again = HatX86::new(&w.cx, Arc::clone(&w.db), w.mmu.clone() as Arc<dyn Mmu>);
    assert_eq!(again.err(), Some(crate::SetupError::SecondHat));
    assert_eq!(w.db.freemem(), free);
}

#[test]
fn processors_have_one_hat_and_the_memory_of_its_pages() {
    let (_, cx, mem, db) = floor(64);
    let (_, other_cx, other_mem, other) = floor(64);
    let mmu = HostMmu::new(mem, 2);
    let new = |cx: &Cx, db: &Arc<PageDb>, mmu: &Arc<HostMmu>| {
        HatX86::new(cx, Arc::clone(db), Arc::clone(mmu) as Arc<dyn Mmu>)
    };
    assert_eq!(
        new(&other_cx, &other, &mmu).err(),
        Some(crate::SetupError::ForeignMmu),
        "other memory"
    );
    let first = new(&cx, &db, &mmu).expect("its own");
    assert_eq!((other.freemem(), other.has_mappings()), (64, false), "nothing has changed");
    let elsewhere = HostMmu::new(Arc::new(HostMem::new(Pfn(1 << 20), 8).expect("heap")), 1);
    assert_eq!(new(&other_cx, &other, &elsewhere).err(), Some(crate::SetupError::ForeignMmu));
    let second = new(&other_cx, &other, &HostMmu::new(other_mem, 2)).expect("its own");
    first.verify(&cx).expect("sound");
    second.verify(&other_cx).expect("sound");
}

#[test]
fn two_hats_of_one_memory_need_processors_of_their_own() {
    let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), 64).expect("heap"));
    let (counters, clock) = (Counters::new(2), Arc::new(ManualClock::default()));
    let cx = new_cx(&counters, 0);
    let db = |mem| {
        let config = PageDbConfig { cpus: 2, ..PageDbConfig::default() };
        let (clock, counters) = (clock.clone(), Arc::clone(&counters));
        Arc::new(PageDb::new(&cx, mem, clock, counters, &config).expect("small enough"))
    };
    let mmu = HostMmu::new(Arc::clone(&mem), 2);
    let (first, second) = (db(Arc::clone(&mem)), db(mem));
    let _hat = HatX86::new(&cx, first, Arc::clone(&mmu) as Arc<dyn Mmu>).expect("the first");
    assert_eq!(HatX86::new(&cx, second, mmu).err(), Some(crate::SetupError::ForeignMmu));
}
