//! `seg_vn` on a machine of a few frames: real tables, real bytes, no facade.

use super::{ForkPolicy, SegVnArgs, VnDriver, VnTunables};
use crate::anon::AnonLayer;
use addr_space::{AddrSpace, AsId, FaultError, FaultKind, HatProvider};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hat_x86::{HatX86, HostMmu, Trap, UserAccess};
use page_db::pageout::{NoHook, Pageout, PageoutConfig, SinglestepWait};
use page_db::{
    Access, Counter, Counters, CpuId, Cx, HostMem, ManualClock, PAGE_SIZE, PageDb, PageDbConfig,
    Pfn, PhysMem, Prot, SpinHooks, ThreadId, VirtAddr, VirtRange,
};
use swapfs::{MemDevice, SwapConfig, SwapFs};

mod claims;
mod crowd;
mod hooked;
mod loans;
mod pins;
mod rights;
mod syncs;
mod together;
mod unhappy;

const BASE: u64 = 0x10000;

pub(crate) struct World {
    pub(crate) cx: Cx,
    pub(crate) db: Arc<PageDb>,
    swap: Arc<SwapFs>,
    mmu: Arc<HostMmu>,
    pub(crate) hat: Arc<HatX86>,
    pub(crate) driver: Arc<VnDriver>,
    pageout: Arc<Pageout>,
    next: core::cell::Cell<u32>,
}

pub(crate) struct Proc {
    pub(crate) space: AddrSpace,
}

pub(crate) fn world(frames: u64) -> World {
    world_with(frames, VnTunables::default())
}

fn world_with(frames: u64, tunables: VnTunables) -> World {
    world_over(Arc::new(HostMem::new(Pfn(16), frames).expect("heap")), tunables)
}

fn world_over(mem: Arc<dyn PhysMem>, tunables: VnTunables) -> World {
    let counters = Counters::new(1);
    let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
    let config = PageDbConfig::default();
    let db = Arc::new(
        PageDb::new(&cx, Arc::clone(&mem), Arc::new(ManualClock::default()), counters, &config)
            .expect("db"),
    );
    let swap = SwapFs::new(&cx, &db, SwapConfig::default()).expect("swap");
    swap.add(&cx, Arc::new(MemDevice::new("swap0", 256)), 0, 256, 0).expect("area");
    let mmu = HostMmu::new(mem, 1);
    let hat = HatX86::new(&cx, Arc::clone(&db), Arc::clone(&mmu) as _).expect("hat");
    let pageout = Arc::new(Pageout::new(&db, PageoutConfig::default()));
    let wait = SinglestepWait::new(Arc::clone(&pageout), Arc::new(NoHook));
    assert!(db.set_memory_wait(Arc::new(wait)), "the first");
    let layer = AnonLayer::new(&swap);
    let driver = VnDriver::new(&layer, tunables);
    World { cx, db, swap, mmu, hat, driver, pageout, next: core::cell::Cell::new(1) }
}

impl World {
    pub(crate) fn proc(&self) -> Proc {
        let id = self.next.replace(self.next.get() + 1);
        let hat = self.hat.alloc(&self.cx).expect("frames");
        let space = AddrSpace::new(
            &self.cx,
            AsId(id),
            addr_space::addr_space::USER_RANGE,
            hat,
            Arc::clone(&self.db),
        );
        Proc { space: space.expect("heap") }
    }
    fn mmu_activate(&self, p: &Proc) {
        use hat_x86::Mmu as _;
        self.mmu.activate(&self.cx, CpuId(0), Some(hat_x86::SpaceId(p.space.hat().id())));
    }
    fn access(&self, p: &Proc, va: u64, write: Option<u8>) -> Result<u8, FaultError> {
        self.mmu_activate(p);
        let va = VirtAddr::new(va).expect("canonical");
        loop {
            let mut b = [0];
            let done = match write {
                Some(v) => self.mmu.store(&self.cx, CpuId(0), va, &[v]),
                None => self.mmu.load(&self.cx, CpuId(0), va, &mut b),
            };
            match done {
                Ok(()) => return Ok(write.unwrap_or(b[0])),
                Err(Trap::Page(_)) => {
                    let access = if write.is_some() { Access::Write } else { Access::Read };
                    p.space.fault_at(&self.cx, va, FaultKind::Invalid, access)?;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    pub(crate) fn write(&self, p: &Proc, page: u64, v: u8) {
        self.access(p, BASE + page * PAGE_SIZE, Some(v)).expect("may store");
        self.check(p);
    }
    fn read(&self, p: &Proc, page: u64) -> u8 {
        let v = self.access(p, BASE + page * PAGE_SIZE, None).expect("may load");
        self.check(p);
        v
    }
    fn check(&self, p: &Proc) {
        assert!(self.cx.held().is_empty(), "X2: {:?}", self.cx.held());
        p.space.verify(&self.cx).expect("address space");
        self.db.verify(&self.cx).expect("pages");
        self.hat.verify(&self.cx).expect("hat");
        self.swap.verify(&self.cx).expect("swap");
        for m in self.driver.layer().maps() {
            m.verify(&self.cx).expect("anon map");
        }
    }
    pub(crate) fn map(&self, p: &Proc, pages: u64) {
        let range = VirtRange::exact(BASE, pages * PAGE_SIZE).expect("aligned");
        p.space.map(&self.cx, range, &SegVnArgs::zfod(&self.driver, Prot::RW)).expect("free");
    }
    fn fork(&self, p: &Proc) -> Proc {
        let child = self.proc();
        p.space.dup(&self.cx, &child.space).expect("fork");
        self.check(p);
        self.check(&child);
        child
    }
    /// References of the anons of a process's pages, 0 for none.
    fn refs(&self, p: &Proc, pages: u64) -> Vec<u32> {
        let segs = p.space.segs(&self.cx);
        let seg = segs.iter().next().expect("one segment");
        let any: &dyn core::any::Any = seg.ops();
        let vn = any.downcast_ref::<super::SegVn>().expect("seg_vn");
        (0..pages)
            .map(|i| {
                let slot =
                    vn.slot_of(seg.range(), VirtAddr::new(BASE + i * PAGE_SIZE).expect("ok"));
                let n = vn.amap().and_then(|m| m.peek(slot));
                n.map_or(0, |n| self.driver.layer().anons().refs(n))
            })
            .collect()
    }
    fn count(&self, c: Counter) -> u64 {
        self.db.counters().get(c)
    }
}

#[test]
fn the_worked_example_of_the_keyronex_document() {
    let w = world(128);
    let p1 = w.proc();
    w.map(&p1, 4);
    w.write(&p1, 0, 10);
    w.write(&p1, 1, 11);
    assert_eq!((w.refs(&p1, 3), w.count(Counter::Zfod)), ([1, 1, 0].to_vec(), 2));
    let p2 = w.fork(&p1);
    assert_eq!(w.refs(&p2, 3), [2, 2, 0]);
    w.write(&p2, 1, 99);
    assert_eq!((w.refs(&p1, 2), w.refs(&p2, 2)), ([2, 1].to_vec(), [2, 1].to_vec()));
    assert_eq!((w.read(&p1, 1), w.read(&p2, 1), w.count(Counter::CowFault)), (11, 99, 1));
    w.write(&p1, 1, 12); // the last owner stores in place
    assert_eq!(w.count(Counter::CowFault), 1);
    assert_eq!((w.read(&p1, 0), w.read(&p2, 0)), (10, 10));
    w.write(&p1, 0, 20);
    w.write(&p2, 0, 30);
    assert_eq!((w.count(Counter::CowFault), w.read(&p1, 0), w.read(&p2, 0)), (2, 20, 30));
    p2.space.free(&w.cx);
    w.check(&p1);
    p1.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
    assert_eq!(w.db.verify(&w.cx).expect("pages").named, 0);
}

#[test]
fn pages_go_to_swap_and_come_back() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 40);
    for i in 0..40 {
        w.write(&p, i, i as u8 + 1);
    }
    w.pageout.reclaim_all(&w.cx, &w.db);
    w.check(&p);
    assert!(w.count(Counter::AnonPgOut) >= 40, "{}", w.count(Counter::AnonPgOut));
    for i in 0..40 {
        assert_eq!(w.read(&p, i), i as u8 + 1);
    }
    p.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

#[test]
fn memory_short_of_the_working_set_is_paged() {
    let w = world(64);
    let p = w.proc();
    w.map(&p, 100);
    for round in 0..3 {
        for i in 0..100 {
            w.write(&p, i, (i + round) as u8);
        }
        for i in 0..100 {
            assert_eq!(w.read(&p, i), (i + round) as u8);
        }
    }
    p.space.free(&w.cx);
    w.db.verify(&w.cx).expect("pages");
}

#[test]
fn unmapping_the_middle_leaves_two_segments() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 3);
    for i in 0..3 {
        w.write(&p, i, 1 + i as u8);
    }
    let middle = VirtRange::exact(BASE + PAGE_SIZE, PAGE_SIZE).expect("ok");
    p.space.unmap(&w.cx, middle).expect("mapped");
    w.check(&p);
    assert_eq!(p.space.segs(&w.cx).len(), 2);
    assert_eq!(w.swap.live(), 2);
    assert_eq!((w.read(&p, 0), w.read(&p, 2)), (1, 3));
    assert!(w.access(&p, BASE + PAGE_SIZE, None).is_err());
    let child = w.fork(&p);
    w.write(&child, 2, 77);
    assert_eq!((w.read(&p, 2), w.read(&child, 2)), (3, 77));
    child.space.free(&w.cx);
    p.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

#[test]
fn rights_follow_the_pages() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 3);
    for i in 0..3 {
        w.write(&p, i, 5);
    }
    let middle = VirtRange::exact(BASE + PAGE_SIZE, PAGE_SIZE).expect("ok");
    p.space.set_prot(&w.cx, middle, Prot::READ).expect("may");
    w.check(&p);
    assert!(matches!(w.access(&p, BASE + PAGE_SIZE, Some(1)), Err(FaultError::Prot { .. })));
    assert_eq!(w.read(&p, 1), 5);
    w.write(&p, 0, 6);
    p.space.lock(&w.cx, VirtRange::exact(BASE, 3 * PAGE_SIZE).expect("ok")).expect("room");
    w.check(&p);
    p.space.set_prot(&w.cx, middle, Prot::RW).expect("may");
    w.write(&p, 1, 7);
    let child = w.fork(&p);
    w.write(&p, 1, 8);
    assert_eq!((w.read(&p, 1), w.read(&child, 1)), (8, 7));
    p.space.unlock(&w.cx, VirtRange::exact(BASE, 3 * PAGE_SIZE).expect("ok")).expect("mapped");
    w.check(&p);
    assert_eq!(w.db.free_mem().availrmem(), w.db.free_mem().total(), "every claim was given back");
    child.space.free(&w.cx);
    p.space.free(&w.cx);
}

#[test]
fn asking_for_the_identity_of_memory_makes_nothing_and_gives_no_rights_to_it() {
    let w = world(128);
    let p = w.proc();
    let range = VirtRange::exact(BASE, 3 * PAGE_SIZE).expect("aligned");
    let shared =
        SegVnArgs { kind: addr_space::SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, range, &shared).expect("free");
    let middle = VirtAddr::new(BASE + PAGE_SIZE).expect("ok");
    p.space.set_prot(&w.cx, VirtRange::page_of(middle), Prot::READ).expect("may");
    let id = p.space.mem_id(&w.cx, middle).expect("mapped");
    assert_eq!(w.swap.live(), 0, "no page is made");
    let child = w.fork(&p);
    let ids = [&p, &child].map(|p| p.space.mem_id(&w.cx, middle));
    assert_eq!(ids, [Ok(id); 2], "the same memory, the same identity");
    child.space.free(&w.cx);
    w.check(&p);
    let refused = w.access(&p, middle.get(), Some(1));
    assert!(matches!(refused, Err(FaultError::Prot { .. })), "{refused:?}");
    p.space.free(&w.cx);
}

#[test]
fn a_long_answer_about_residency_is_the_short_ones_in_a_row() {
    // Over several chunks and two tables: untouched, private, shared with a child, locked, and on swap.
    let w = world(4096);
    let p = w.proc();
    w.map(&p, 1100);
    let pages = [0, 1, 2, 31, 32, 33, 300, 511, 512, 513, 600, 700, 1099];
    pages.iter().for_each(|page| w.write(&p, *page, 7));
    let _child = w.fork(&p);
    w.write(&p, 32, 8);
    let at = |page| VirtAddr::new(BASE + page * PAGE_SIZE).expect("canonical");
    let locked = VirtRange::exact(at(600).get(), 2 * PAGE_SIZE).expect("aligned");
    p.space.lock(&w.cx, locked).expect("memory to spare");
    let pushed = VirtRange::exact(at(511).get(), 3 * PAGE_SIZE).expect("aligned");
    p.space.dont_need(&w.cx, pushed).expect("swap");
    let mut long = [0; 1100];
    let range = VirtRange::exact(BASE, 1100 * PAGE_SIZE).expect("aligned");
    let (done, end) = p.space.incore(&w.cx, range, &mut long);
    assert_eq!((done.get(), end), (1100, Ok(())));
    for (i, byte) in (0u64..).zip(long) {
        let mut one = [0];
        let _ = p.space.incore(&w.cx, VirtRange::page_of(at(i)), &mut one);
        assert_eq!(byte, one[0], "page {i}");
    }
    assert_eq!(long[32] & 0x21, 0x21, "its own, mapped for stores");
    assert_eq!((long[3], long[511]), (0, 0), "never touched, and pushed out");
    assert_eq!(long[600] & 0x07, 0x07, "locked, with a claim");
}
