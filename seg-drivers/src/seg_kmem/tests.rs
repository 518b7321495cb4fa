//! The kernel's heap: who may ask, rights, and two who free.

use super::*;
use crate::seg_vn::tests::{World, world};
use addr_space::{AddrSpace, HatProvider as _};
use page_db::{CpuId, SpinHooks, ThreadId};

fn heap(w: &World) -> (AddrSpace, Arc<Kmem>) {
    let window = hat_x86::KERNEL_WINDOW;
    let kas = AddrSpace::kernel(&w.cx, window, w.hat.kernel(), Arc::clone(&w.db)).expect("heap");
    let kmem = Kmem::new(&w.cx, &w.db, window).expect("a number");
    kas.map(&w.cx, window, &KmemArgs(Arc::clone(&kmem))).expect("free");
    (kas, kmem)
}

/// Without memory a caller waits and asks again; here that would never end.
#[test]
fn a_users_address_space_does_not_have_the_heap() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let p = w.proc();
    let user = p.space.seg_cx(&w.cx, kmem.window());
    let invalid = |range| {
        let what = "an address space that does not have the heap";
        SegError::Invalid { driver: "seg_kmem", what, range }
    };
    let before = w.db.freemem();
    assert_eq!(kmem.alloc(&user, 1), Err(invalid(kmem.window())));
    assert_eq!(w.db.freemem(), before);
    let kernel = kas.seg_cx(&w.cx, kmem.window());
    let range = kmem.alloc(&kernel, 1).expect("frames");
    assert_eq!(kmem.free(&user, range), Err(invalid(range)));
    assert!(kas.hat().probe(&w.cx, range.start()).is_some(), "nothing has changed");
    kmem.free(&kernel, range).expect("an allocation");
    let elsewhere = Kmem::new(&w.cx, &w.db, VirtRange::page_of(VirtAddr::new(0x1000).expect("ok")));
    let elsewhere = elsewhere.expect("a number");
    assert_eq!(elsewhere.alloc(&kernel, 1), Err(invalid(elsewhere.window())), "nor is it there");
    p.space.free(&w.cx);
}

#[test]
fn of_two_who_free_a_range_one_is_refused() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let kernel = || kas.seg_cx(&w.cx, kmem.window());
    let range = kmem.alloc(&kernel(), 2).expect("frames");
    let name = kmem.identity(range.page_at(1));
    let held = w.db.lookup_shared(&w.cx, name).expect("resident").leak();
    let cx = Cx::new(w.db.counters(), CpuId(0), ThreadId(1), Arc::new(SpinHooks));
    std::thread::scope(|s| {
        let first = s.spawn(|| {
            let cx = cx;
            kmem.free(&kas.seg_cx(&cx, kmem.window()), range)
        });
        while w.db.lock_state(held).shared != 1 {
            std::thread::yield_now(); // the first is past its look, and waits for the page
        }
        let again = kmem.free(&kernel(), range);
        let what = "not one allocation";
        assert_eq!(again, Err(SegError::Invalid { driver: "seg_kmem", what, range }));
        let other = kmem.alloc(&kernel(), 1).expect("frames");
        assert_eq!(range.intersect(other), None, "it is not free yet");
        kmem.free(&kernel(), other).expect("an allocation");
        drop(w.db.adopt_shared(&w.cx, held));
        assert_eq!(first.join().expect("no panic"), Ok(()));
    });
    assert_eq!(kmem.allocated(&w.cx), 0);
    assert_eq!(kmem.alloc(&kernel(), 2), Ok(range), "now it is");
    kmem.free(&kernel(), range).expect("an allocation");
    w.db.verify(&w.cx).expect("sound");
}

/// K4: what is freed waits for a soft lock, and the unlock is not taken for one of the wire.
#[test]
fn a_range_is_freed_beside_a_soft_lock() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let kernel = || kas.seg_cx(&w.cx, kmem.window());
    let range = kmem.alloc(&kernel(), 2).expect("frames");
    let page = VirtRange::page_of(range.page_at(1));
    let id = w.db.exists(&w.cx, kmem.identity(page.start())).expect("resident");
    let soft = |kind| kas.fault(&w.cx, page, kind, Access::Write);
    for _ in 0..2 {
        soft(FaultKind::SoftLock).expect("wired");
    }
    soft(FaultKind::SoftUnlock).expect("locked");
    kas.verify(&w.cx).expect("one is left");
    let cx = Cx::new(w.db.counters(), CpuId(0), ThreadId(1), Arc::new(SpinHooks));
    std::thread::scope(|s| {
        let free = s.spawn(|| {
            let cx = cx;
            kmem.free(&kas.seg_cx(&cx, kmem.window()), range)
        });
        while w.db.lock_state(id).shared != 1 {
            std::thread::yield_now(); // the wire's lock has gone
        }
        let said = kas.verify(&w.cx).expect_err("a range is on its way").to_string();
        assert!(said.contains("K1"), "{said}");
        let both = kas.fault(&w.cx, range, FaultKind::SoftLock, Access::Write);
        let first = range.start();
        assert_eq!(both, Err(FaultError::NoMap { addr: first }), "the first page is gone already");
        for _ in 0..2 {
            soft(FaultKind::SoftUnlock).expect("one too many does nothing");
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !free.is_finished() {
            if std::time::Instant::now() > deadline {
                drop(w.db.adopt_shared(&w.cx, id)); // lets it end
                panic!("K4: the range waits for a lock that was given back");
            }
            std::thread::yield_now();
        }
        assert_eq!(free.join().expect("no panic"), Ok(()));
    });
    kas.verify(&w.cx).expect("nothing is left behind");
    assert_eq!(kmem.alloc(&kernel(), 2), Ok(range));
    soft(FaultKind::SoftUnlock).expect("does nothing");
    kmem.free(&kernel(), range).expect("an allocation");
    w.db.verify(&w.cx).expect("sound");
}

/// K4: who only looks at a page is not taken for a soft lock of it.
#[test]
fn an_unlock_too_many_leaves_the_wire_alone_while_somebody_looks() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let range = kmem.alloc(&kas.seg_cx(&w.cx, kmem.window()), 1).expect("frames");
    let looks = w.db.lookup_shared(&w.cx, kmem.identity(range.start())).expect("wired").leak();
    kas.fault(&w.cx, range, FaultKind::SoftUnlock, Access::Read).expect("does nothing");
    assert_eq!(w.db.lock_state(looks).shared, 2);
    drop(w.db.adopt_shared(&w.cx, looks));
    kmem.free(&kas.seg_cx(&w.cx, kmem.window()), range).expect("an allocation");
    w.db.verify(&w.cx).expect("sound");
}

/// K6 of the page lock.
#[test]
fn a_page_of_the_heap_that_is_pinned_too_often_is_refused_and_stays_as_it_is() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let range = kmem.alloc(&kas.seg_cx(&w.cx, kmem.window()), 2).expect("frames");
    let [first, second] =
        [0, 1].map(|n| w.db.exists(&w.cx, kmem.identity(range.page_at(n))).expect("resident"));
    let held = |n| w.db.damage(&w.cx, page_db::damage::Damage::Hold(second, n));
    let many = (1 << 25) - 1;
    held(many);
    let pin = |kind| kas.fault(&w.cx, range, kind, Access::Write);
    pin(FaultKind::SoftLock).expect("the last");
    let full = FaultError::Object { addr: range.page_at(1), errno: errno::EAGAIN };
    assert_eq!(pin(FaultKind::SoftLock), Err(full));
    assert_eq!([first, second].map(|id| w.db.lock_state(id).shared), [2, many + 1]);
    held(2); // the wire's, and the one that came in
    pin(FaultKind::SoftUnlock).expect("pinned");
    kas.verify(&w.cx).expect("as before");
    kmem.free(&kas.seg_cx(&w.cx, kmem.window()), range).expect("an allocation");
    w.db.verify(&w.cx).expect("sound");
}

#[test]
fn rights_of_the_heap_are_told_as_they_are() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let window = kmem.window();
    let range = kmem.alloc(&kas.seg_cx(&w.cx, window), 3).expect("frames");
    let page = VirtRange::page_of(range.page_at(1));
    kas.set_prot(&w.cx, page, Prot::READ).expect("may");
    let rights = |range| {
        let mut runs = Vec::new();
        kas.prots(&w.cx, range, &mut |_, prot| runs.push(prot)).expect("mapped");
        runs
    };
    assert_eq!(rights(range), [Prot::RWX, Prot::READ, Prot::RWX]);
    let have = kas.hat().probe(&w.cx, page.start()).expect("wired");
    assert!(!have.prot.contains(Prot::WRITE));
    let gone = kas.set_prot(&w.cx, page, Prot::empty());
    assert!(gone.is_err(), "K1: {gone:?}");
    assert!(kas.hat().probe(&w.cx, page.start()).is_some());
    // An unlock without a lock leaves the wire alone.
    kas.fault(&w.cx, page, FaultKind::SoftUnlock, Access::Write).expect("does nothing");
    kmem.free(&kas.seg_cx(&w.cx, window), range).expect("an allocation");
    let again = kmem.alloc(&kas.seg_cx(&w.cx, window), 3).expect("frames");
    assert_eq!(rights(again), [Prot::RWX]);
    kmem.free(&kas.seg_cx(&w.cx, window), again).expect("an allocation");
}

#[test]
fn what_is_not_allocated_of_the_heap_is_not_in_core() {
    let w = world(64);
    let (kas, kmem) = heap(&w);
    let window = kmem.window();
    let scx = kas.seg_cx(&w.cx, window);
    let alloc = |pages| kmem.alloc(&scx, pages).expect("frames");
    let (one, two) = (alloc(3), alloc(2));
    assert_eq!(one.end(), two.start().get(), "side by side");
    let asked = |first: u64, pages: u64| {
        let from = window.page_at(first).get();
        let range = VirtRange::exact(from, pages * PAGE_SIZE).expect("in the window");
        let mut out = [0xff; 8];
        let (n, _) = kas.incore(&w.cx, range, &mut out[..pages as usize]);
        assert!(out[..n.get() as usize].iter().all(|bits| *bits == InCore::INCORE.bits()));
        n.get()
    };
    assert_eq!([asked(0, 8), asked(2, 2), asked(4, 4), asked(5, 3)], [5, 2, 1, 0]);
    kmem.free(&scx, one).expect("an allocation");
    assert_eq!([asked(0, 8), asked(3, 5)], [0, 2]);
    kmem.free(&scx, two).expect("an allocation");
}

/// Pages of a file that nobody maps.
fn cached(w: &World, pages: u64) {
    let vnode = w.db.vnodes().register(&w.cx, VnodeKind::File).expect("a number");
    for i in 0..pages {
        let name = Identity::new(vnode, FileOffset(i * PAGE_SIZE));
        let page = w.db.create(&w.cx, name, i, Reserve::Normal).expect("frames");
        page.end_io();
        w.db.free(&w.cx, page, false);
    }
}

#[test]
fn who_asks_the_heap_for_more_than_there_is_takes_nobodys_page() {
    // K2.
    let w = world(512);
    let (kas, kmem) = heap(&w);
    cached(&w, 40);
    let before = (w.db.freemem(), w.db.cache_list().count(), w.db.free_mem().availrmem());
    let kernel = kas.seg_cx(&w.cx, kmem.window());
    // t_minarmem stays: 8 of 512.
    for pages in [600, before.2 - 7] {
        let refused = kmem.alloc(&kernel, pages).expect_err("more than can be promised");
        assert!(matches!(refused, SegError::NoMemory { .. }), "{refused}");
        let after = (w.db.freemem(), w.db.cache_list().count(), w.db.free_mem().availrmem());
        assert_eq!((after, w.db.counters().get(Counter::PgRRun)), (before, 0));
    }
    // What can be promised and not be had is given back: a frame stays for page-out.
    let refused = kmem.alloc(&kernel, before.2 - 8).expect_err("page-out has its reserve");
    assert!(matches!(refused, SegError::NoMemory { .. }), "{refused}");
    assert_eq!((w.db.freemem(), w.db.free_mem().availrmem()), (before.0, before.2));
    assert_eq!((kmem.allocated(&w.cx), w.db.claimed_pages()), (0, 0));
    let range = kmem.alloc(&kernel, 5).expect("frames");
    assert_eq!((w.db.free_mem().availrmem(), w.db.claimed_pages()), (before.2 - 5, 5));
    kmem.free(&kernel, range).expect("an allocation");
    assert_eq!((w.db.free_mem().availrmem(), w.db.claimed_pages()), (before.2, 0));
    w.db.verify(&w.cx).expect("sound");
}

#[test]
fn the_heap_has_page_out_run_when_all_memory_is_in_use() {
    // K3.
    let w = world(128);
    let (kas, kmem) = heap(&w);
    let p = w.proc();
    w.map(&p, 200);
    let mut page = 0;
    while w.db.freemem() > w.db.free_mem().normal_reserve() {
        w.write(&p, page, 1); // dirty, all of them
        page += 1;
    }
    let kernel = kas.seg_cx(&w.cx, kmem.window());
    let range = kmem.alloc(&kernel, 30).expect("page-out finds more");
    assert!(w.db.counters().get(Counter::AnonPgOut) >= 30);
    kmem.free(&kernel, range).expect("an allocation");
    p.space.free(&w.cx);
    w.db.verify(&w.cx).expect("sound");
}
