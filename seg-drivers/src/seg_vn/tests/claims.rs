//! Locks in memory whose claim is gone.

use super::unhappy::{another, range};
use super::*;
use crate::seg_vn::SegVn;
use addr_space::{LockAll, SegCx, SegKind, SyncFlags};
use alloc::boxed::Box;
use alloc::string::String;
use page_db::db::Claim;
use page_db::{Identity, LockedPage as _, errno};
use swapfs::{DeviceError, SwapDevice};

/// What `f` says of the first segment of a process.
fn first<R>(w: &World, p: &Proc, f: impl FnOnce(&SegVn, &SegCx<'_>) -> R) -> R {
    let segs = p.space.segs(&w.cx);
    let seg = segs.iter().next().expect("mapped");
    let any: &dyn core::any::Any = seg.ops();
    f(any.downcast_ref().expect("seg_vn"), &p.space.seg_cx(&w.cx, seg.range()))
}

/// The name of the first page of a process.
fn name(w: &World, p: &Proc) -> Identity {
    let n = first(w, p, |vn, scx| vn.amap()?.peek(vn.slot_of(scx.seg, scx.seg.start())));
    w.swap.identity(n.expect("touched"))
}

/// What it has of claims, `p_lckcnt` and `p_cowcnt`.
fn claims(w: &World, p: &Proc) -> (u16, u16) {
    let page = w.db.lookup_shared(&w.cx, name(w, p)).expect("in memory");
    (page.page().lckcnt(), page.page().cowcnt())
}

/// In which count the claims are of the pages that it has marked as locked.
fn marks(w: &World, p: &Proc) -> Vec<Claim> {
    first(w, p, |vn, scx| vn.locked_pages(scx).into_iter().map(|(_, kind, _)| kind).collect())
}

/// Memory is promised to the last page while a lock in memory moves with a copy that costs a page more: the lock is a mark without a claim, and the next
/// one claims again.
#[test]
fn a_lock_claims_again_what_was_lost_for_want_of_memory() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 1);
    w.write(&p, 0, 65);
    p.space.set_prot(&w.cx, range(0, 1), Prot::READ).expect("may");
    p.space.lock(&w.cx, range(0, 1)).expect("room");
    let child = w.fork(&p);
    child.space.lock(&w.cx, range(0, 1)).expect("room");
    assert_eq!(claims(&w, &p), (2, 0), "one page, charged once");
    let mem = w.db.free_mem();
    let rest = mem.availrmem();
    assert!(mem.charge(rest, 0), "promised to the last page");
    // Shown twice, what is locked must be the map's alone: it is copied.
    p.space.share_range(&w.cx, range(0, 1), &p.space, range(8, 1).start()).expect("swap");
    assert_eq!((w.refs(&p, 1), w.refs(&child, 1)), ([1].to_vec(), [1].to_vec()));
    assert_eq!((claims(&w, &p), claims(&w, &child), w.db.lost_claims()), ((0, 0), (1, 0), 1));
    assert_eq!(marks(&w, &p), [Claim::Lck], "the mark stays");
    let refused = p.space.lock(&w.cx, range(0, 1)).map_err(|e| e.errno());
    assert_eq!((refused, p.space.state().locked()), (Err(page_db::errno::EAGAIN), PAGE_SIZE));
    mem.uncharge(rest);
    p.space.lock(&w.cx, range(0, 1)).expect("room");
    assert_eq!((claims(&w, &p), p.space.state().locked()), ((1, 0), PAGE_SIZE), "charged once");
    for p in [&p, &child] {
        w.check(p);
        p.space.unlock(&w.cx, range(0, 1)).expect("locked");
    }
    assert_eq!(mem.availrmem(), mem.total(), "every claim was given back");
    p.space.free(&w.cx);
    child.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

/// A lock of what is locked looks at no page of anonymous memory while no claim has been lost, whatever files have been cut.
#[test]
fn a_second_lock_of_anonymous_memory_looks_at_no_page() {
    let w = world(256);
    let p = w.proc();
    w.map(&p, 64);
    p.space.lock(&w.cx, range(0, 64)).expect("room");
    let looked = |pages| {
        let before = w.count(Counter::LockAcquires);
        p.space.lock(&w.cx, range(0, pages)).expect("room");
        w.count(Counter::LockAcquires) - before
    };
    assert_eq!(looked(64), looked(1), "it is a run");
    // A claimed page of another ends.
    let other = w.proc();
    w.map(&other, 1);
    w.write(&other, 0, 65);
    let page = w.db.lookup_excl(&w.cx, name(&w, &other)).expect("in memory");
    let era = w.db.claim(&page, Claim::Lck).expect("room");
    w.db.unload(&w.cx, &page);
    w.db.destroy(&w.cx, page);
    assert_ne!(w.db.claim_era(), era);
    assert_eq!(looked(64), looked(1), "no claim has been lost");
    other.space.free(&w.cx);
    p.space.free(&w.cx);
}

/// A disk that lets something happen before it is read.
struct Slow {
    disk: MemDevice,
    before_read: Box<dyn Fn() + Send + Sync>,
}
impl core::fmt::Debug for Slow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Slow")
    }
}
impl SwapDevice for Slow {
    fn name(&self) -> String {
        self.disk.name()
    }
    fn pages(&self) -> u64 {
        self.disk.pages()
    }
    fn read(&self, cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
        (self.before_read)();
        self.disk.read(cx, page, to, mem)
    }
    fn write(
        &self,
        cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        self.disk.write(cx, page, frames, mem)
    }
}

/// A lock of memory that nobody has touched takes no room below the limit from what is touched elsewhere while it lasts; and is refused where all of it would pass the limit.
#[test]
fn a_lock_charges_what_it_locks_where_nothing_is_promised() {
    let w = world(128);
    let p = Arc::new(w.proc());
    let other = another(&w.db);
    let map = |at| {
        let zfod = SegVnArgs::zfod(&w.driver, Prot::RW);
        let args = SegVnArgs { kind: zfod.kind | SegKind::NORESERVE, ..zfod };
        p.space.map(&w.cx, at, &args).expect("free");
    };
    let (touches, other) = (Arc::clone(&p), std::sync::Mutex::new(Some(other)));
    let before_read = Box::new(move || {
        let Some(cx) = other.lock().expect("not poisoned").take() else { return };
        let (space, at) = (&touches.space, range(8, 1).start());
        let fault = move || space.fault_at(&cx, at, FaultKind::Invalid, Access::Write);
        std::thread::scope(|s| s.spawn(fault).join().expect("no panic")).expect("touched");
    });
    let slow = Slow { disk: MemDevice::new("slow", 16), before_read };
    w.swap.add(&w.cx, Arc::new(slow), 0, 16, 9).expect("area");

    map(range(0, 3));
    w.write(&p, 1, 7);
    p.space.sync(&w.cx, range(0, 3), SyncFlags::INVALIDATE).expect("room on the disk");
    p.space.lock_all(&w.cx, LockAll::FUTURE).expect("nothing is mapped by it");
    map(range(8, 4));
    p.space.state().set_memlock_limit(3 * PAGE_SIZE);
    let refused = p.space.lock(&w.cx, range(8, 4)).map_err(|e| e.errno());
    assert_eq!((refused, p.space.state().locked()), (Err(errno::EAGAIN), 0));
    p.space.lock(&w.cx, range(0, 3)).expect("room for three");
    assert_eq!(p.space.state().locked(), 2 * PAGE_SIZE, "one here, and what was touched there");
    assert_eq!((w.refs(&p, 3), w.count(Counter::Zfod)), ([0, 1, 0].to_vec(), 2));
    assert_eq!(w.read(&p, 1), 7);
    w.check(&p);
    p.space.free(&w.cx);
}
