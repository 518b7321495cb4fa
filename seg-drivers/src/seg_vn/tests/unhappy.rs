//! What is refused, undone, or done by two at once: nothing may be left over.

use super::hooked::Hooked;
use super::*;
use crate::anon::AnonMap;
use addr_space::{AsError, SegError, SegKind};
use alloc::string::String;
use core::time::Duration;
use page_db::{
    FileOffset, GotPage, Identity, PutFlags, Reserve, Vnode, VnodeError, VnodeId, VnodeKind, pvn,
};
use std::sync::mpsc;

/// A file of zeros, whatever is written to it.
#[derive(Debug)]
pub(super) struct Zeros {
    pub(super) id: VnodeId,
    pub(super) size: u64,
}

impl Vnode for Zeros {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        "zeros".into()
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        if offset.0 >= self.size {
            return Err(VnodeError::BeyondEof { vnode: self.id, offset, size: self.size });
        }
        let id = Identity::new(self.id, offset);
        if let Some(page) = db.lookup_shared(cx, id) {
            return Ok(GotPage { page, prot: Prot::RWX, read: false });
        }
        let page = db.create(cx, id, 0, Reserve::Normal).expect("frames");
        db.mem().zero(page_db::LockedPage::pfn(&page));
        page.end_io();
        Ok(GotPage { page: page.downgrade(), prot: Prot::RWX, read: true })
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        pvn::put_range(cx, db, self.id, offset, len, flags, |_, _| Ok(()))
    }
}

impl World {
    pub(super) fn file(&self, pages: u64) -> Arc<dyn Vnode> {
        let id = self.db.vnodes().register(&self.cx, VnodeKind::File).expect("a number");
        let file: Arc<dyn Vnode> = Arc::new(Zeros { id, size: pages * PAGE_SIZE });
        assert!(self.db.vnodes().attach(id, Arc::downgrade(&file)));
        file
    }
    pub(super) fn map_file(&self, p: &Proc, file: &Arc<dyn Vnode>, pages: u64, prot: Prot) {
        let vnode = Some(Arc::clone(file));
        let args = SegVnArgs { vnode, ..SegVnArgs::zfod(&self.driver, prot) };
        p.space.map(&self.cx, range(0, pages), &args).expect("free");
    }
    fn map_as(&self, p: &Proc, pages: u64, kind: SegKind) {
        let args = SegVnArgs { kind, ..SegVnArgs::zfod(&self.driver, Prot::RW) };
        p.space.map(&self.cx, range(0, pages), &args).expect("free");
    }
    fn reserved(&self) -> u64 {
        self.swap.info().reserved()
    }
    /// Maps `pages` pages of `map` at page `at`, and says what is wrong with that.
    fn attach(&self, p: &Proc, map: &Arc<AnonMap>, at: u64, pages: u64) -> Result<(), String> {
        self.attach_from(p, map, 0, at, pages)
    }
    /// The same from slot `first` of the map on.
    fn attach_from(
        &self,
        p: &Proc,
        map: &Arc<AnonMap>,
        first: u64,
        at: u64,
        pages: u64,
    ) -> Result<(), String> {
        let (amp, kind) = (Some(Arc::clone(map)), SegKind::SHARED);
        let offset = FileOffset(first * PAGE_SIZE);
        let args = SegVnArgs { amp, kind, offset, ..SegVnArgs::zfod(&self.driver, Prot::RW) };
        p.space.map(&self.cx, range(at, pages), &args).map_err(|e| match e {
            AsError::Seg(SegError::Invalid { what, .. }) => what.into(),
            e => panic!("{e}"),
        })
    }
}

/// M5: an anon map is mapped as far as the object it was made for, and as far as somebody still has it.
#[test]
fn an_anon_map_is_mapped_as_far_as_its_object_reaches() {
    const SHORT: &str = "the anon map does not reach as far";
    let w = world(64);
    let p = w.proc();
    let before = w.reserved();
    w.swap.reserve(4).expect("swap");
    let map = AnonMap::new(w.driver.home(&w.cx), 4 * PAGE_SIZE);
    let attach = |at, pages| w.attach(&p, &map, at, pages);
    assert_eq!(attach(0, 5), Err(SHORT.into()));
    assert_eq!(attach(0, 1 << 20), Err(SHORT.into()));
    assert_eq!(attach(0, 4), Ok(()));
    assert_eq!(attach(8, 2), Ok(()), "less will do");
    w.write(&p, 3, 65);
    w.write(&p, 9, 66);
    assert_eq!(w.read(&p, 1), 66);
    // Its name goes, then its end: nobody covers that any more, and nothing is promised for it.
    map.lose(&w.cx, 0..4, 0..4);
    p.space.unmap(&w.cx, range(3, 1)).expect("mapped");
    assert_eq!(attach(16, 4), Err(SHORT.into()));
    assert_eq!((attach(16, 3), w.read(&p, 17)), (Ok(()), 66));
    for (at, pages) in [(0, 3), (8, 2)] {
        p.space.unmap(&w.cx, range(at, pages)).expect("mapped");
    }
    // One is left, and it is known no more what of the object it has.
    assert_eq!(attach(0, 1), Err(SHORT.into()));
    p.space.unmap(&w.cx, range(16, 3)).expect("mapped");
    assert_eq!(attach(0, 1), Err(SHORT.into()), "it is gone");
    w.check(&p);
    assert_eq!((w.swap.live(), w.reserved()), (0, before));
}

/// Stores into it would not be private.
#[test]
fn an_anon_map_is_not_mapped_private() {
    let w = world(64);
    let p = w.proc();
    w.swap.reserve(1).expect("swap");
    let map = AnonMap::new(w.driver.home(&w.cx), PAGE_SIZE);
    let args = SegVnArgs { amp: Some(Arc::clone(&map)), ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    let refused = p.space.map(&w.cx, range(0, 1), &args).map_err(|e| e.errno());
    assert_eq!(refused, Err(page_db::errno::EINVAL));
    map.lose(&w.cx, 0..1, 0..1);
    w.check(&p);
}

/// M5: an anon map is mapped from any of its slots on.
#[test]
fn an_anon_map_is_mapped_from_its_middle_too() {
    let w = world(64);
    let p = w.proc();
    w.swap.reserve(4).expect("swap");
    let map = AnonMap::new(w.driver.home(&w.cx), 4 * PAGE_SIZE);
    assert_eq!(w.attach(&p, &map, 0, 4), Ok(()));
    let short = Err("the anon map does not reach as far".into());
    assert_eq!(w.attach_from(&p, &map, 2, 8, 3), short);
    assert_eq!(w.attach_from(&p, &map, 5, 8, 1), short);
    assert_eq!(w.attach_from(&p, &map, 2, 8, 2), Ok(()));
    w.write(&p, 2, 65);
    w.write(&p, 9, 66);
    assert_eq!((w.read(&p, 8), w.read(&p, 3), w.read(&p, 0)), (65, 66, 0));
    // What only the second covers stays until it goes.
    map.lose(&w.cx, 0..4, 0..4);
    p.space.unmap(&w.cx, range(0, 4)).expect("mapped");
    assert_eq!((w.read(&p, 8), w.read(&p, 9), w.swap.live()), (65, 66, 2));
    w.check(&p);
    p.space.unmap(&w.cx, range(8, 2)).expect("mapped");
    assert_eq!(w.swap.live(), 0);
    w.check(&p);
}

/// The pages of one mapping are no object, nor are those of another machine.
#[test]
fn an_anon_map_of_one_mapping_is_not_mapped_by_others() {
    let (w, other) = (world(64), world(64));
    let (p, q) = (w.proc(), other.proc());
    w.map(&p, 2);
    w.write(&p, 0, 65);
    let maps = w.driver.layer().maps();
    let map = maps.first().expect("a page was stored to");
    assert_eq!(w.attach(&p, map, 8, 1), Err("the anon map does not reach as far".into()));
    assert_eq!(other.attach(&q, map, 8, 1), Err("an anon map of another machine".into()));
    drop(maps);
    w.check(&p);
}

pub(super) fn range(first: u64, pages: u64) -> VirtRange {
    VirtRange::exact(BASE + first * PAGE_SIZE, pages * PAGE_SIZE).expect("aligned")
}

/// Another thread's view of the machine.
pub(super) fn another(db: &PageDb) -> Cx {
    Cx::new(db.counters(), CpuId(0), ThreadId(1), Arc::new(SpinHooks))
}

/// A locked page is copied by a store; while the bytes are copied, `meanwhile` runs in another thread. No claim may be left over.
fn while_a_locked_page_is_copied(meanwhile: impl Fn(&Cx, &AddrSpace) + Sync) {
    type Turn = Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>;
    let turn = Arc::new(std::sync::Mutex::new(Turn::None));
    let told = Arc::clone(&turn);
    let before_copy = move || {
        if let Some((go, done)) = told.lock().expect("quiet").take() {
            go.send(()).expect("somebody waits");
            // Whoever must wait for this copy does not answer: that is as good.
            let _ = done.recv_timeout(Duration::from_millis(200));
        }
    };
    let mem = Arc::new(Hooked::new(128, || {}, before_copy));
    let w = world_over(mem, VnTunables::default());
    let p = w.proc();
    w.map(&p, 1);
    w.write(&p, 0, 1);
    p.space.lock(&w.cx, range(0, 1)).expect("room");
    let child = w.fork(&p);
    let (go, asked) = mpsc::channel();
    let (answer, done) = mpsc::channel();
    *turn.lock().expect("quiet") = Some((go, done));
    let (space, meanwhile) = (&p.space, &meanwhile);
    std::thread::scope(|s| {
        s.spawn(move || {
            asked.recv().expect("a copy");
            meanwhile(&another(space.db()), space);
            let _ = answer.send(());
        });
        w.mmu_activate(&p);
        let at = VirtAddr::new(BASE).expect("canonical");
        // A store that is overtaken by a change of rights is refused in the end; that is not what is asked here.
        let _ = p.space.fault_at(&w.cx, at, FaultKind::Prot, Access::Write);
    });
    p.space.unlock(&w.cx, range(0, 1)).expect("mapped");
    let mem = w.db.free_mem();
    assert_eq!(mem.availrmem(), mem.total(), "every claim was given back");
    w.check(&p);
    child.space.free(&w.cx);
    p.space.free(&w.cx);
}

#[test]
fn an_unlock_finds_the_claim_of_a_copy_under_way() {
    while_a_locked_page_is_copied(|cx, space| space.unlock(cx, range(0, 1)).expect("mapped"));
}

#[test]
fn a_change_of_rights_finds_the_claim_of_a_copy_under_way() {
    while_a_locked_page_is_copied(|cx, space| {
        space.set_prot(cx, range(0, 1), Prot::READ).expect("may");
    });
}

#[test]
fn rights_that_are_refused_reserve_nothing() {
    let w = world(128);
    let (a, b) = (w.proc(), w.proc());
    let file = w.file(2);
    for p in [&a, &b] {
        w.map_file(p, &file, 2, Prot::READ);
        p.space.lock(&w.cx, range(0, 1)).expect("room");
    }
    // Two claims of one page are charged once, so that one of them cannot move without another page of memory; there is none.
    let mem = w.db.free_mem();
    let rest = mem.availrmem();
    assert!(mem.charge(rest, 0));
    for pages in [range(0, 1), range(0, 2)] {
        let refused = a.space.set_prot(&w.cx, pages, Prot::RW);
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(w.reserved(), 0);
    }
    mem.uncharge(rest);
    a.space.set_prot(&w.cx, range(0, 2), Prot::RW).expect("room");
    assert_eq!(w.reserved(), 2);
    a.space.free(&w.cx);
    b.space.free(&w.cx);
    assert_eq!((w.reserved(), mem.availrmem()), (0, mem.total()));
}

#[test]
fn pinning_what_cannot_be_stored_to_makes_no_copy() {
    let w = world(128);
    let p = w.proc();
    let file = w.file(2);
    w.map_file(&p, &file, 2, Prot::READ);
    p.space.fault(&w.cx, range(0, 2), FaultKind::SoftLock, Access::Read).expect("may");
    assert!(w.swap.live() <= w.reserved(), "I12: a copy needs a reservation");
    let pinned = p.space.try_set_prot(&w.cx, range(0, 2), Prot::RW);
    assert!(pinned.is_err(), "the i/o's pages stay the mapping's: {pinned:?}");
    p.space.fault(&w.cx, range(0, 2), FaultKind::SoftUnlock, Access::Read).expect("was locked");
    p.space.try_set_prot(&w.cx, range(0, 2), Prot::RW).expect("may");
    p.space.free(&w.cx);
}

#[test]
fn a_soft_lock_that_fails_half_way_leaves_no_pin() {
    let w = world(128);
    let p = w.proc();
    let file = w.file(1);
    w.map_file(&p, &file, 2, Prot::RW);
    let beyond = p.space.fault(&w.cx, range(0, 2), FaultKind::SoftLock, Access::Read);
    assert!(beyond.is_err(), "{beyond:?}");
    p.space.try_unmap(&w.cx, range(0, 2)).expect("nothing is pinned");
    assert_eq!((w.swap.live(), w.reserved()), (0, 0));
}

#[test]
fn locking_untouched_address_space_walks_what_is_touched() {
    const PAGES: u64 = 16 << 28; // 16 TiB
    let w = world(128);
    let p = w.proc();
    w.map_as(&p, PAGES, SegKind::NORESERVE);
    w.write(&p, 7, 1);
    w.write(&p, PAGES - 1, 2);
    p.space.lock(&w.cx, range(0, PAGES)).expect("room");
    assert_eq!(p.space.state().locked(), 2 * PAGE_SIZE);
    p.space.unlock(&w.cx, range(0, PAGES)).expect("mapped");
    assert_eq!(p.space.state().locked(), 0);
    p.space.free(&w.cx);
}

#[test]
fn a_shared_map_gives_back_what_nobody_covers() {
    let w = world(128);
    let p = w.proc();
    w.map_as(&p, 8, SegKind::SHARED);
    p.space.unmap(&w.cx, range(3, 1)).expect("mapped");
    assert_eq!(w.reserved(), 7);
    p.space.unmap(&w.cx, range(6, 2)).expect("mapped");
    assert_eq!(w.reserved(), 5, "the other half does not keep it");
    let child = w.fork(&p);
    p.space.unmap(&w.cx, range(0, 2)).expect("mapped");
    assert_eq!(w.reserved(), 5, "the child still covers it");
    child.space.unmap(&w.cx, range(0, 2)).expect("mapped");
    assert_eq!(w.reserved(), 3);
    child.space.free(&w.cx);
    p.space.free(&w.cx);
    assert_eq!(w.reserved(), 0);
}

#[test]
fn the_last_two_users_of_a_shared_map_return_its_reservation_once() {
    let w = world(128);
    let keep = w.proc();
    w.map(&keep, 4); // whoever returns too much returns this
    for _ in 0..300 {
        let p = w.proc();
        let other = range(100, 8);
        let args = SegVnArgs { kind: SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
        p.space.map(&w.cx, other, &args).expect("free");
        let child = w.proc();
        p.space.dup(&w.cx, &child.space).expect("fork");
        let (first, second) = (&p.space, &child.space);
        std::thread::scope(|s| {
            s.spawn(|| first.unmap(&another(first.db()), other).expect("mapped"));
            second.unmap(&w.cx, other).expect("mapped");
        });
        assert_eq!(w.reserved(), 4);
        for p in [p, child] {
            p.space.free(&w.cx);
        }
    }
}

/// Who pins is counted before its first page: what would wait for that page with the segment in its hands is refused.
#[test]
fn a_page_that_is_pinned_first_is_safe_before_the_last_one_is() {
    let w = world(64);
    let p = w.proc();
    w.map(&p, 2);
    w.write(&p, 0, 1);
    w.write(&p, 1, 2);
    let (id, map, second) = {
        let segs = p.space.segs(&w.cx);
        let seg = segs.iter().next().expect("one segment");
        let any: &dyn core::any::Any = seg.ops();
        let vn = any.downcast_ref::<super::super::SegVn>().expect("seg_vn");
        let slot = vn.slot_of(seg.range(), VirtAddr::new(BASE).expect("ok"));
        let map = Arc::clone(vn.amap().expect("stored to"));
        let n = map.peek(slot).expect("stored to");
        (w.db.exists(&w.cx, w.swap.identity(n)).expect("in memory"), map, slot + 1)
    };
    let range = |pages| VirtRange::exact(BASE, pages * PAGE_SIZE).expect("aligned");
    let (space, counters) = (&p.space, w.db.counters());
    std::thread::scope(|s| {
        let faulter = Cx::new(counters, CpuId(0), ThreadId(2), Arc::new(SpinHooks));
        let second = map.enter(&faulter, second).expect("stored to");
        let pins = s.spawn(move || {
            let cx = Cx::new(counters, CpuId(0), ThreadId(1), Arc::new(SpinHooks));
            let pinned = space.lock_pages(&cx, range(2), Access::Write).expect("in memory");
            space.unlock_pages(&cx, pinned).expect("pinned here");
        });
        while w.db.lock_state(id).shared == 0 {
            std::thread::yield_now();
        }
        // The first page is pinned, the second is not.
        let counted = {
            let segs = p.space.segs(&w.cx);
            let seg = segs.iter().next().expect("one segment");
            let any: &dyn core::any::Any = seg.ops();
            let vn = any.downcast_ref::<super::super::SegVn>().expect("seg_vn");
            vn.softlocks.load(page_db::sync::atomic::Ordering::Acquire)
        };
        assert_eq!(counted, 2);
        for advice in [addr_space::Advice::Discard, addr_space::Advice::Drop] {
            let refused = p.space.advise(&w.cx, range(1), advice).expect_err("pinned");
            assert_eq!(refused.errno(), page_db::errno::EAGAIN);
        }
        drop(second);
        pins.join().expect("pinned, and given back");
    });
    p.space.advise(&w.cx, range(2), addr_space::Advice::Discard).expect("nobody pins");
    w.check(&p);
    assert_eq!((w.read(&p, 0), w.read(&p, 1)), (0, 0));
    p.space.free(&w.cx);
}

#[test]
fn a_fork_that_fails_leaves_nothing_reserved_for_those_who_would_have_shared() {
    let w = world(64);
    let p = w.proc();
    let file = w.file(4);
    w.map_file(&p, &file, 4, Prot::READ);
    p.space.inherit(&w.cx, range(0, 4), addr_space::Inherit::Share).expect("mapped");
    assert_eq!(w.reserved(), 0, "nobody can store there");
    let free = w.swap.info().available();
    let more = SegVnArgs::zfod(&w.driver, Prot::RW);
    p.space.map(&w.cx, range(100, free - 20), &more).expect("free");
    let before = w.reserved();
    let child = w.proc();
    let done = p.space.dup(&w.cx, &child.space);
    assert!(matches!(done, Err(AsError::Seg(SegError::NoSwap { .. }))), "{done:?}");
    assert_eq!(w.reserved(), before, "D11");
    w.check(&p);
    p.space.unmap(&w.cx, range(100, free - 20)).expect("mapped");
    p.space.dup(&w.cx, &child.space).expect("there is room");
    assert_eq!(w.reserved(), 8, "either side may go on alone");
    w.check(&p);
    w.check(&child);
    [&p, &child].into_iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!(w.reserved(), 0);
}

/// What is locked is made the parent's own before it is shared; what is promised for that is the parent's then, too, whatever becomes of the fork.
#[test]
fn what_a_fork_that_fails_has_made_is_promised() {
    for locked in [1, 3, 4] {
        let w = world(64);
        let p = w.proc();
        w.map_file(&p, &w.file(4), 4, Prot::READ);
        p.space.lock(&w.cx, range(0, locked)).expect("room");
        p.space.inherit(&w.cx, range(0, 4), addr_space::Inherit::Share).expect("mapped");
        // Room for both sides of the first segment, and not for the child's part of the second one.
        let more = SegVnArgs::zfod(&w.driver, Prot::RW);
        p.space.map(&w.cx, range(100, 8), &more).expect("free");
        let mut all = 0;
        while p.space.map(&w.cx, range(200 + all, 1), &more).is_ok() {
            all += 1;
        }
        p.space.unmap(&w.cx, range(200, 12)).expect("mapped");
        let before = w.reserved();
        for _ in 0..2 {
            let done = p.space.dup(&w.cx, &w.proc().space);
            assert!(matches!(done, Err(AsError::Seg(SegError::NoSwap { .. }))), "{done:?}");
            w.check(&p);
            assert_eq!((w.swap.live(), w.reserved()), (locked, before + locked), "I12");
        }
        p.space.unmap(&w.cx, range(200, all)).expect("mapped");
        let child = w.proc();
        p.space.dup(&w.cx, &child.space).expect("there is room");
        assert_eq!(w.reserved(), 8 + 16, "either side may go on alone");
        w.check(&p);
        w.check(&child);
        [&p, &child].into_iter().for_each(|p| p.space.free(&w.cx));
        assert_eq!((w.swap.live(), w.reserved()), (0, 0));
    }
}

#[test]
fn a_range_that_cannot_be_shown_twice_leaves_nothing_reserved() {
    let w = world(64);
    let p = w.proc();
    let file = w.file(4);
    w.map_file(&p, &file, 4, Prot::READ);
    let noreserve = SegVnArgs { kind: SegKind::NORESERVE, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, range(4, 1), &noreserve).expect("free");
    let show = |pages| p.space.share_range(&w.cx, range(1, pages), &p.space, range(20, 1).start());
    let done = show(4);
    assert!(matches!(done, Err(AsError::Seg(SegError::NotSupported { .. }))), "{done:?}");
    assert_eq!(w.reserved(), 0, "D11");
    w.check(&p);
    show(3).expect("free");
    assert_eq!(w.reserved(), 6, "three pages on either side");
    w.check(&p);
    p.space.free(&w.cx);
    assert_eq!(w.reserved(), 0);
}

/// G3: whoever has only found a segment does not take its memory, which stays in the tree.
#[test]
fn a_driver_gives_nothing_up_to_a_reader() {
    let w = world(128);
    let (p, child) = (w.proc(), w.proc());
    w.map(&p, 4);
    w.write(&p, 1, 7);
    let segs = p.space.segs(&w.cx);
    let seg = segs.iter().next().expect("mapped");
    let scx = p.space.seg_cx(&w.cx, seg.range());
    assert!(!scx.is_writer());
    for part in [seg.range(), range(1, 1)] {
        let gone = seg.ops().unmap(&scx, part).map(drop);
        assert!(matches!(gone, Err(SegError::Invalid { driver: "seg_vn", .. })), "{gone:?}");
        assert!(seg.ops().unmap_part(&scx, part).is_err(), "nor in part");
    }
    let forked = seg.ops().dup(&scx, &child.space.seg_cx(&w.cx, seg.range())).map(drop);
    assert!(matches!(forked, Err(SegError::Invalid { driver: "seg_vn", .. })), "{forked:?}");
    let next = addr_space::Join::Neighbours;
    assert!(!seg.ops().concat(&scx, range(4, 1), seg.ops(), next), "nor does it grow");
    drop(segs);
    assert_eq!(w.read(&p, 1), 7);
    w.check(&p);
    [&p, &child].into_iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!((w.swap.live(), w.reserved()), (0, 0));
}
