//! A small machine with swap, and what the textbook says must happen on it.

mod area;
mod borrow;
mod clusters;
mod ctl;
mod faults;
mod names;
mod random;
mod reserve;
mod slots;
mod sweep;
mod threads;
mod verify;

use crate::{AnonNumber, AreaId, MemDevice, SwapConfig, SwapFs};
use alloc::sync::Arc;
use page_db::selock::LockedPage as _;
use page_db::{
    Counter, Counters, CpuId, Cx, HostMem, ManualClock, PageDb, PageDbConfig, Pfn, PutFlags,
    RefMod, SpinHooks, ThreadId, Thresholds,
};

pub(crate) const PUSH: PutFlags = PutFlags::ASYNC.union(PutFlags::FREE);

/// A machine of a few frames.
pub(crate) struct World {
    pub(crate) cx: Cx,
    pub(crate) db: Arc<PageDb>,
    pub(crate) fs: Arc<SwapFs>,
}

pub(crate) fn cx_on(counters: &Arc<Counters>, cpu: u16) -> Cx {
    Cx::new(counters, CpuId(cpu), ThreadId(u32::from(cpu)), Arc::new(SpinHooks))
}

impl World {
    pub(crate) fn new(frames: u64) -> Self {
        // Floors of 8 and 4 pages, whatever the rules say of so small a machine.
        let config = SwapConfig { minfree: Some(8), reserve: Some(4), ..SwapConfig::default() };
        Self::with(frames, config)
    }
    pub(crate) fn with(frames: u64, config: SwapConfig) -> Self {
        let counters = Counters::new(config.cpus);
        let cx = cx_on(&counters, 0);
        let mem = Arc::new(HostMem::new(Pfn(16), frames).expect("heap"));
        let db_config = PageDbConfig {
            cpus: config.cpus,
            thresholds: Some(Thresholds::from_lotsfree(4)),
            ..PageDbConfig::default()
        };
        let db = PageDb::new(&cx, mem, Arc::new(ManualClock::default()), counters, &db_config);
        let db = Arc::new(db.expect("small"));
        let fs = SwapFs::new(&cx, &db, config).expect("small");
        Self { cx, db, fs }
    }
    pub(crate) fn add(&self, name: &str, pages: u64, priority: i16) -> (Arc<MemDevice>, AreaId) {
        let dev = Arc::new(MemDevice::new(name, pages));
        let id = self.fs.add(&self.cx, dev.clone(), 0, pages, priority).expect("fits");
        (dev, id)
    }
    pub(crate) fn alloc(&self) -> AnonNumber {
        self.fs.alloc(&self.cx).expect("numbers left")
    }
    /// Stores a byte as a user would.
    pub(crate) fn store(&self, n: AnonNumber, byte: u8) {
        let got = self.fs.get_page(&self.cx, n, 0).expect("a page");
        self.db.mem().write(got.page.pfn(), 100, &[byte]);
        got.page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
    }
    /// A fresh anon with a byte stored.
    pub(crate) fn anon(&self, byte: u8) -> AnonNumber {
        let n = self.alloc();
        self.store(n, byte);
        n
    }
    /// Loads the byte; says whether a device was read.
    pub(crate) fn load(&self, n: AnonNumber) -> (u8, bool) {
        let got = self.fs.get_page(&self.cx, n, 0).expect("a page");
        let mut b = [0];
        self.db.mem().read(got.page.pfn(), 100, &mut b);
        (b[0], got.read)
    }
    /// As page-out does it, one page.
    pub(crate) fn push(&self, n: AnonNumber) -> Result<(), page_db::VnodeError> {
        let queued = self.fs.put_page(&self.cx, n, PUSH);
        queued.and(self.fs.flush_pushes(&self.cx))
    }
    /// Writes the page if it is dirty and takes its frame.
    pub(crate) fn evict(&self, n: AnonNumber) {
        self.fs.put_page(&self.cx, n, PutFlags::INVAL).expect("room");
    }
    pub(crate) fn resident(&self, n: AnonNumber) -> bool {
        self.db.exists(&self.cx, self.fs.identity(n)).is_some()
    }
    pub(crate) fn page_of(&self, n: AnonNumber) -> page_db::PageId {
        self.db.exists(&self.cx, self.fs.identity(n)).expect("resident")
    }
    pub(crate) fn modified(&self, n: AnonNumber) -> bool {
        let id = self.db.exists(&self.cx, self.fs.identity(n)).expect("resident");
        self.db.page(id).ref_mod().contains(RefMod::MOD)
    }
    /// The whole end of an anon: page, slot, number.
    pub(crate) fn free(&self, n: AnonNumber) {
        if let Some(page) = self.db.lookup_excl(&self.cx, self.fs.identity(n)) {
            self.db.destroy(&self.cx, page);
        }
        self.fs.free(&self.cx, n);
    }
    pub(crate) fn counter(&self, c: Counter) -> u64 {
        self.db.counters().get(c)
    }
    pub(crate) fn check(&self) -> crate::SwapCensus {
        self.db.verify(&self.cx).expect("pages");
        assert!(self.cx.held().is_empty(), "nothing is held on return");
        self.fs.verify(&self.cx).expect("swap")
    }
}
