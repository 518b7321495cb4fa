//! What the tests of this crate build on: a hat that is a map, a driver that does what it is told, and a world to put them in.

mod hat;
mod toy;

pub(crate) use hat::RecHat;
pub(crate) use toy::{Fail, Plan, ToyArgs};

use crate::{AddrSpace, AsId, USER_RANGE};
use alloc::sync::Arc;
use page_db::{
    Counter, Counters, CpuId, Cx, HostMem, ManualClock, MemoryWait, PageDb, PageDbConfig,
    PageError, Pfn, SpinHooks, ThreadId, VirtAddr, VirtRange,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};

/// The page size, for addresses in tests.
pub(crate) const P: u64 = 0x1000;

pub(crate) fn range(start: u64, len: u64) -> VirtRange {
    VirtRange::exact(start, len).expect("a test's range is a range")
}

pub(crate) fn at(addr: u64) -> VirtAddr {
    VirtAddr::new(addr).expect("a test's address is canonical")
}

/// Memory that comes back so many times, and then does not.
#[derive(Debug)]
pub(crate) struct CountedWait {
    pub(crate) left: AtomicU64,
    pub(crate) waits: AtomicU64,
    /// Passed twice by whoever waits, and by the test that looks at what is so between the two.
    pub(crate) gate: OnceLock<Barrier>,
}

impl MemoryWait for CountedWait {
    fn wait_for_memory(&self, cx: &Cx, db: &PageDb, pages: u64) -> Result<(), PageError> {
        assert!(cx.held().is_empty(), "nothing is held while memory is waited for");
        self.waits.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = self.gate.get() {
            gate.wait();
            gate.wait();
        }
        let once_less = |n: u64| n.checked_sub(1);
        match self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, once_less) {
            Ok(_) => Ok(()),
            Err(_) => Err(PageError::NoMemory { wanted: pages, freemem: db.freemem() }),
        }
    }
}

/// A page database, a hat, an address space, and what toy drivers are told to do.
pub(crate) struct World {
    pub(crate) cx: Cx,
    pub(crate) counters: Arc<Counters>,
    pub(crate) db: Arc<PageDb>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) wait: Arc<CountedWait>,
    pub(crate) hat: Arc<RecHat>,
    pub(crate) space: AddrSpace,
    pub(crate) plan: Arc<Plan>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(USER_RANGE)
    }
    pub(crate) fn with_limits(limits: VirtRange) -> Self {
        let counters = Counters::new(2);
        let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
        let mem = Arc::new(HostMem::new(Pfn(0), 250).expect("a few frames"));
        let clock = Arc::new(ManualClock::default());
        let config = PageDbConfig { cpus: 2, ..PageDbConfig::default() };
        let db = PageDb::new(&cx, mem, Arc::clone(&clock) as _, Arc::clone(&counters), &config);
        let db = Arc::new(db.expect("structures for them"));
        let (left, waits, gate) = (AtomicU64::new(0), AtomicU64::new(0), OnceLock::new());
        let wait = Arc::new(CountedWait { left, waits, gate });
        assert!(db.set_memory_wait(Arc::clone(&wait) as _));
        let hat = Arc::new(RecHat::new(1));
        let space = AddrSpace::new(&cx, AsId(1), limits, Arc::clone(&hat) as _, Arc::clone(&db))
            .expect("heap");
        Self { cx, counters, db, clock, wait, hat, space, plan: Arc::default() }
    }
    pub(crate) fn child(&self) -> AddrSpace {
        let hat = Arc::new(RecHat::new(2));
        AddrSpace::new(&self.cx, AsId(2), self.space.limits(), hat, Arc::clone(&self.db))
            .expect("heap")
    }
    /// Arguments of a plain read-write toy.
    pub(crate) fn toy(&self) -> ToyArgs {
        ToyArgs::new(&self.plan)
    }
    pub(crate) fn map(&self, start: u64, len: u64) {
        self.map_as(start, len, &self.toy());
    }
    pub(crate) fn map_as(&self, start: u64, len: u64, args: &ToyArgs) {
        self.space.map(&self.cx, range(start, len), args).expect("the range is free");
        self.check();
    }
    /// Checks the space, and that nothing is held.
    pub(crate) fn check(&self) {
        assert!(self.cx.held().is_empty(), "X2: {:?} held on return", self.cx.held());
        self.space.verify(&self.cx).expect("every invariant holds");
    }
    /// The segments as `start..end driver`, for comparing before and after.
    pub(crate) fn shape(&self) -> alloc::vec::Vec<(u64, u64)> {
        shape_of(&self.space, &self.cx)
    }
    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.counters.get(counter)
    }
}

/// A context for another thread, on another CPU; made on that thread.
pub(crate) fn cx_on(counters: &Arc<Counters>, n: u16) -> Cx {
    Cx::new(counters, CpuId(n), ThreadId(n.into()), Arc::new(SpinHooks))
}

pub(crate) fn shape_of(space: &AddrSpace, cx: &Cx) -> alloc::vec::Vec<(u64, u64)> {
    space.segs(cx).iter().map(|seg| (seg.base().get(), seg.end())).collect()
}
