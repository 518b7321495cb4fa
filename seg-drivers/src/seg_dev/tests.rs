//! The device driver: frames that come, go, or are not the device's.

use super::*;
use crate::seg_vn::{SegVnArgs, tests::world};
use addr_space::AsError;

/// Eight pages of a device; some are missing, by bit.
#[derive(Debug)]
struct Card(AtomicU32);

impl DeviceMemory for Card {
    fn name(&self) -> String {
        "card".into()
    }
    fn pages(&self) -> u64 {
        8
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        (self.0.load(Ordering::SeqCst) >> index & 1 == 0).then_some(Pfn(0x8000 + index))
    }
}

fn args(first: u64, prot: Prot) -> SegDevArgs {
    args_of(&Arc::new(Card(AtomicU32::new(0))), first, prot)
}
fn args_of(card: &Arc<Card>, first: u64, prot: Prot) -> SegDevArgs {
    SegDevArgs {
        device: Arc::clone(card) as _,
        offset: FileOffset(first * PAGE_SIZE),
        prot,
        max_prot: Prot::RW,
        kind: SegKind::SHARED,
    }
}
fn range(first: u64, pages: u64) -> VirtRange {
    VirtRange::exact(0x20000 + first * PAGE_SIZE, pages * PAGE_SIZE).expect("aligned")
}

/// Memory is what files and anonymous memory have, and a device has none of it.
#[test]
fn a_device_is_not_listed_as_memory() {
    let w = world(64);
    let p = w.proc();
    p.space.map(&w.cx, range(0, 8), &args(0, Prot::RW)).expect("free");
    p.space.map(&w.cx, range(16, 2), &SegVnArgs::zfod(&w.driver, Prot::RW)).expect("free");
    let memory: alloc::vec::Vec<_> = p.space.memory(&w.cx).collect();
    assert_eq!(memory, [range(16, 2)]);
    assert!(p.space.vnode_at(&w.cx, range(0, 1).start()).is_some_and(|vnode| vnode.is_none()));
    p.space.free(&w.cx);
}

#[test]
fn a_soft_lock_that_meets_a_missing_frame_is_undone() {
    let w = world(64);
    let p = w.proc();
    let card = Arc::new(Card(AtomicU32::new(0)));
    p.space.map(&w.cx, range(0, 8), &args_of(&card, 0, Prot::RW)).expect("free");
    card.0.store(1 << 5, Ordering::SeqCst); // taken back
    let locks = || {
        let tree = w.hat.dump_tables(&w.cx, p.space.hat().id()).expect("a hat");
        tree.tables.iter().map(|t| t.locks).sum::<u32>()
    };
    let done = p.space.fault(&w.cx, range(2, 4), FaultKind::SoftLock, Access::Write);
    assert!(matches!(done, Err(FaultError::NoMap { .. })), "{done:?}");
    assert_eq!(locks(), 0);
    p.space.fault(&w.cx, range(2, 3), FaultKind::SoftLock, Access::Write).expect("frames");
    assert_eq!(locks(), 3);
    let pinned = p.space.try_set_prot(&w.cx, range(0, 1), Prot::READ);
    assert!(pinned.is_err(), "{pinned:?}");
    p.space.fault(&w.cx, range(2, 3), FaultKind::SoftUnlock, Access::Write).expect("was locked");
    assert_eq!(locks(), 0);
    p.space.try_set_prot(&w.cx, range(0, 1), Prot::READ).expect("nothing is pinned");
    p.space.free(&w.cx);
}

#[test]
fn what_is_left_shows_the_frames_it_showed() {
    let w = world(64);
    let p = w.proc();
    p.space.map(&w.cx, range(0, 5), &args(0, Prot::RW)).expect("free");
    p.space.set_prot(&w.cx, range(3, 1), Prot::READ).expect("may");
    p.space.unmap(&w.cx, range(0, 1)).expect("mapped");
    p.space.unmap(&w.cx, range(2, 1)).expect("mapped");
    for (page, access) in [(1, Access::Write), (3, Access::Read), (4, Access::Write)] {
        let at = range(page, 1).start();
        p.space.fault_at(&w.cx, at, FaultKind::Invalid, access).expect("mapped");
        let have = p.space.hat().probe(&w.cx, at).expect("loaded");
        assert_eq!(have.pfn, Pfn(0x8000 + page));
        assert_eq!(have.prot.contains(Prot::WRITE), page != 3);
    }
    let at = range(3, 1).start();
    let refused = p.space.fault_at(&w.cx, at, FaultKind::Prot, Access::Write);
    assert!(matches!(refused, Err(FaultError::Prot { .. })), "{refused:?}");
    p.space.free(&w.cx);
}

#[test]
fn a_store_is_allowed_again_when_nobody_watches_any_more() {
    let w = world(64);
    let p = w.proc();
    p.space.map(&w.cx, range(0, 1), &args(0, Prot::RW)).expect("free");
    let at = range(0, 1).start();
    let store = || {
        let there = p.space.hat().probe(&w.cx, at).is_some();
        let kind = if there { FaultKind::Prot } else { FaultKind::Invalid };
        p.space.fault_at(&w.cx, at, kind, Access::Write)
    };
    store().expect("may");
    let flags = addr_space::WatchFlags::WRITE;
    let area = addr_space::WatchArea { start: at, len: 8, flags };
    p.space.watch(&w.cx, area).expect("free");
    assert!(matches!(store(), Err(FaultError::Prot { .. })), "a device's last word");
    p.space.unwatch(&w.cx, at, 8).expect("there");
    store().expect("may again");
    let have = p.space.hat().probe(&w.cx, at).expect("loaded");
    assert!(have.prot.contains(Prot::WRITE), "{have:?}");
    p.space.free(&w.cx);
}

#[test]
fn no_offset_passes_the_end_of_the_device() {
    let w = world(64);
    let p = w.proc();
    for first in [6, 8, u64::MAX / PAGE_SIZE] {
        let refused = p.space.map(&w.cx, range(0, 3), &args(first, Prot::RW));
        let offset = FileOffset(first.max(8) * PAGE_SIZE);
        let due = SegError::NoDevicePage { driver: "seg_dev", offset };
        assert_eq!(refused, Err(AsError::Seg(due)), "{first}");
    }
    p.space.free(&w.cx);
}

#[test]
fn a_page_that_the_device_refuses_is_refused_to_whoever_maps_it() {
    let w = world(64);
    let p = w.proc();
    let card = Arc::new(Card(AtomicU32::new(1 << 5 | 1 << 7)));
    let map =
        |first, at, pages| p.space.map(&w.cx, range(at, pages), &args_of(&card, first, Prot::RW));
    for (first, pages, absent) in [(0, 8, 5), (3, 3, 5), (5, 1, 5), (6, 2, 7)] {
        let refused = map(first, 0, pages);
        let offset = FileOffset(absent * PAGE_SIZE);
        let due = SegError::NoDevicePage { driver: "seg_dev", offset };
        assert_eq!(refused, Err(AsError::Seg(due)), "{pages} from {first}");
        assert_eq!(refused.map_err(|e| e.errno()), Err(errno::ENXIO));
        assert_eq!(p.space.state().size(), 0, "nothing is mapped");
    }
    map(0, 0, 5).expect("they are there");
    map(6, 5, 1).expect("it is there");
    p.space.verify(&w.cx).expect("whole");
    p.space.free(&w.cx);
}

/// Eight pages, one of them where it likes.
#[derive(Debug)]
struct Odd(u64, Pfn);

impl DeviceMemory for Odd {
    fn name(&self) -> String {
        "odd".into()
    }
    fn pages(&self) -> u64 {
        8
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        Some(if index == self.0 { self.1 } else { Pfn(0x8000 + index) })
    }
}

/// The same, of a device that says it knows where its frames are.
#[derive(Debug)]
struct Sure(Odd);

impl DeviceMemory for Sure {
    fn name(&self) -> String {
        self.0.name()
    }
    fn pages(&self) -> u64 {
        self.0.pages()
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        self.0.frame(index)
    }
    fn first_absent(&self, _: u64, _: u64, _: &dyn Fn(Pfn) -> bool) -> Option<u64> {
        None
    }
}

/// D3: nobody would take the translation away when the frame is somebody else's.
#[test]
fn a_frame_of_memory_in_use_is_not_the_devices() {
    let w = world(64);
    let p = w.proc();
    let page = w.db.alloc(&w.cx, 0, page_db::Reserve::Normal).expect("a frame");
    let (managed, end) = (page_db::LockedPage::pfn(&page), Pfn(u64::MAX / PAGE_SIZE));
    let page = page.leak();
    let of = |device| SegDevArgs { device, ..args(0, Prot::RW) };
    for (frame, allowed) in [(managed, false), (Pfn(end.0 + 1), false), (end, true)] {
        let mapped = p.space.map(&w.cx, range(0, 8), &of(Arc::new(Odd(3, frame))));
        let offset = FileOffset(3 * PAGE_SIZE);
        let absent = AsError::Seg(SegError::NoDevicePage { driver: "seg_dev", offset });
        assert_eq!(mapped, if allowed { Ok(()) } else { Err(absent) }, "{frame:?}");
        let sure = of(Arc::new(Sure(Odd(3, frame))));
        p.space.map(&w.cx, range(16, 8), &sure).expect("it says so");
        let at = range(19, 1).start();
        let fault = p.space.fault_at(&w.cx, at, FaultKind::Invalid, Access::Write);
        let errno = errno::EFAULT; // no entry holds the number
        let none = FaultError::NoMap { addr: at };
        let far = FaultError::Object { addr: at, errno };
        assert_eq!(fault, Err(if allowed { far } else { none }), "{frame:?}");
        assert!(p.space.hat().probe(&w.cx, at).is_none());
        let id = p.space.mem_id(&w.cx, at);
        assert_eq!(id.is_ok(), allowed, "{id:?}");
        p.space.unmap(&w.cx, range(0, 24)).expect("whatever is there");
    }
    let page = w.db.adopt_excl(&w.cx, page);
    w.db.set_kernel(&page, true);
    let page = page.leak();
    let odd = || of(Arc::new(Odd(3, managed)));
    p.space.map(&w.cx, range(0, 8), &odd()).expect_err("the kernel's, and not the device's");
    let page = w.db.adopt_excl(&w.cx, page);
    w.db.set_device(&page, true);
    let page = page.leak();
    p.space.map(&w.cx, range(0, 8), &odd()).expect("given to it");
    let at = range(3, 1).start();
    p.space.fault_at(&w.cx, at, FaultKind::Invalid, Access::Write).expect("mapped");
    assert_eq!(p.space.hat().probe(&w.cx, at).expect("loaded").pfn, managed);
    p.space.free(&w.cx);
    let page = w.db.adopt_excl(&w.cx, page);
    w.db.free(&w.cx, page, false);
    w.db.verify(&w.cx).expect("sound");
}

/// D3: who stores into a table maps what he likes. The device's frame may have become one when it was given back.
#[test]
fn a_page_table_is_not_the_devices() {
    let w = world(64);
    let p = w.proc();
    let frame =
        page_db::LockedPage::pfn(&w.db.alloc(&w.cx, 0, page_db::Reserve::Normal).expect("one"));
    let given = |on| {
        let id = w.db.page_of(frame).expect("managed");
        let page = w.db.lock_excl(&w.cx, id);
        if on {
            w.db.set_device(&page, true);
        } else {
            w.db.free(&w.cx, page, false);
        }
    };
    given(true);
    let of = |device| SegDevArgs { device, ..args(0, Prot::RW) };
    p.space.map(&w.cx, range(0, 8), &of(Arc::new(Odd(3, frame)))).expect("given");
    given(false);
    let at = |page: u64| range(page, 1).start();
    let fault = |page| p.space.fault_at(&w.cx, at(page), FaultKind::Invalid, Access::Write);
    fault(0).expect("another frame");
    assert_eq!(fault(3), Err(FaultError::NoMap { addr: at(3) }), "given back");
    let of_the_kernel =
        |id: &page_db::PageId| w.db.page(*id).state().contains(page_db::PageState::KERNEL);
    let tables: Vec<_> = w.db.pages().ids().filter(of_the_kernel).collect();
    assert!(tables.len() >= 4, "the root, and what is above page 0");
    for (n, id) in tables.into_iter().enumerate() {
        let table = w.db.pfn(id);
        let absent = p.space.map(&w.cx, range(16, 8), &of(Arc::new(Odd(3, table))));
        assert!(absent.is_err(), "table {n}");
        p.space.map(&w.cx, range(16, 8), &of(Arc::new(Sure(Odd(3, table))))).expect("it says so");
        assert_eq!(fault(19), Err(FaultError::NoMap { addr: at(19) }), "table {n}");
        p.space.unmap(&w.cx, range(16, 8)).expect("mapped");
    }
    p.space.free(&w.cx);
    w.db.verify(&w.cx).expect("sound");
}
