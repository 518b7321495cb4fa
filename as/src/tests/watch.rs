//! Areas of watched bytes against a plain array of bytes, and a toy's translations under them.

use crate::testing::*;
use crate::watch::{Areas, MoveHat, Moved, WatchArea, WatchError, WatchFlags};
use crate::{AsError, FaultError, FaultKind, Hat, LoadFlags, Loaded, RunPage};
use alloc::vec::Vec;
use page_db::{Access, FileOffset, Identity, Prot, Reserve, VnodeKind};
use std::sync::Barrier;
use std::sync::atomic::Ordering;

const R: WatchFlags = WatchFlags::READ;
const W: WatchFlags = WatchFlags::WRITE;
const X: WatchFlags = WatchFlags::EXEC;
const PAGES: u64 = 8;
const BASE: u64 = 0x10000;

fn area(start: u64, len: u64, flags: WatchFlags) -> WatchArea {
    WatchArea { start: at(start), len, flags }
}

/// What the areas say, asked of a list of bytes.
fn check(areas: &Areas, bytes: &[WatchFlags]) {
    let of_page = |page: u64| {
        let bytes = &bytes[(page * P) as usize..((page + 1) * P) as usize];
        bytes.iter().fold(WatchFlags::empty(), |all, f| all | *f)
    };
    let taken = |flags: WatchFlags| match flags {
        f if f.intersects(R | X) => Prot::RWX,
        f if f.contains(W) => Prot::WRITE,
        _ => Prot::empty(),
    };
    for page in 0..PAGES {
        assert_eq!(areas.taken(at(BASE + page * P + 7)), taken(of_page(page)), "page {page}");
    }
    for (first, pages) in [(0, PAGES), (1, 3), (PAGES - 1, 1)] {
        let mut next = BASE + first * P;
        areas.runs(range(next, pages * P), |run, prot| {
            assert_eq!(run.start().get(), next, "without gaps");
            for page in run.iter_pages() {
                assert_eq!(prot, taken(of_page((page.get() - BASE) / P)), "{page}");
            }
            next = run.end();
        });
        assert_eq!(next, BASE + (first + pages) * P, "to the end");
    }
    for (from, len) in [(0, PAGES * P), (5, 100), (P - 3, 6), (3 * P, 1), (2 * P + 9, 3 * P)] {
        for (access, flag) in [(Access::Read, R), (Access::Write, W), (Access::Exec, X)] {
            let mine = &bytes[from as usize..(from + len) as usize];
            let first = mine.iter().position(|f| f.contains(flag)).map(|i| BASE + from + i as u64);
            let hit = areas.hit(at(BASE + from), len, access);
            assert_eq!(hit.map(|h| h.first.get()), first, "{access:?} of {len} at {from}");
        }
    }
}

#[test]
fn areas_are_what_a_list_of_bytes_has() {
    let (mut areas, mut seed) = (Areas::default(), 7u64);
    let mut bytes = alloc::vec![WatchFlags::empty(); (PAGES * P) as usize];
    let (mut set, mut refused) = (0, 0);
    for _ in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let lens = [1, 8, 100, P, P + 1, 3 * P];
        let len = lens[(seed >> 20) as usize % lens.len()];
        let from = (seed >> 33) % (PAGES * P - len);
        let flags = [R, W, X, R | W, W | WatchFlags::AFTER][(seed >> 50) as usize % 5];
        let mine = from as usize..(from + len) as usize;
        match areas.with(area(BASE + from, len, flags)) {
            Ok(all) => {
                areas = all.expect("a heap");
                assert!(bytes[mine.clone()].iter().all(|f| f.is_empty()), "W2");
                bytes[mine].fill(flags);
                set += 1;
            }
            Err(error) => {
                assert!(matches!(error, WatchError::Overlap { .. }));
                assert!(bytes[mine].iter().any(|f| !f.is_empty()));
                refused += 1;
            }
        }
        if areas.list().len() > 6 {
            let gone = areas.list()[(seed >> 40) as usize % 6];
            let wrong = areas.without(gone.start, gone.len + 1);
            assert!(matches!(wrong, Err(WatchError::NotFound { .. })));
            areas = areas.without(gone.start, gone.len).expect("it is there").expect("a heap");
            let from = (gone.start.get() - BASE) as usize;
            bytes[from..from + gone.len as usize].fill(WatchFlags::empty());
        }
        check(&areas, &bytes);
    }
    assert!(set > 50 && refused > 50, "{set} {refused}");
}

#[test]
fn the_same_bytes_may_be_watched_for_something_else() {
    let once = Areas::default().with(area(BASE + 10, 5, R)).expect("free").expect("a heap");
    let twice = once.with(area(BASE + 10, 5, W)).expect("the same bytes").expect("a heap");
    assert_eq!(twice.list(), [area(BASE + 10, 5, W)]);
    assert_eq!(
        twice.with(area(BASE + 10, 4, W)).err(),
        Some(WatchError::Overlap { start: at(BASE + 10) })
    );
}

#[test]
fn rights_are_taken_from_translations_and_from_nothing_else() {
    let w = World::new();
    w.map(BASE, 2 * P);
    let fault = |addr| w.space.fault_at(&w.cx, at(addr), FaultKind::Invalid, Access::Write);
    let rights = |addr| w.hat.probe(&w.cx, at(addr)).map(|t| t.prot);
    fault(BASE).and_then(|()| fault(BASE + P)).expect("mapped");
    assert_eq!(rights(BASE), Some(Prot::RW));
    w.space.watch(&w.cx, area(BASE + 8, 4, W)).expect("free");
    assert_eq!((rights(BASE), rights(BASE + P)), (Some(Prot::READ), Some(Prot::RW)));
    fault(BASE).expect("as far as the segment goes");
    assert_eq!(rights(BASE), Some(Prot::READ), "W1");
    w.space.watch(&w.cx, area(BASE + 100, 4, R)).expect("free");
    assert_eq!(rights(BASE), None);
    w.check();
    // The segment says what the page would have.
    let mut said = Vec::new();
    w.space.prots(&w.cx, range(BASE, P), &mut |_, prot| said.push(prot)).expect("mapped");
    assert_eq!(said, [Prot::RW]);
    w.space.set_prot(&w.cx, range(BASE, 2 * P), Prot::RW).expect("allowed");
    fault(BASE).expect("resolved");
    assert_eq!(rights(BASE), None);
    w.space.unwatch(&w.cx, at(BASE + 100), 4).expect("there");
    w.space.unwatch(&w.cx, at(BASE + 8), 4).expect("there");
    assert!(!w.space.is_watched(), "W3");
    fault(BASE).expect("resolved");
    assert_eq!(rights(BASE), Some(Prot::RW));
    w.check();
    // A translation with a right that a watch takes is named.
    w.space.watch(&w.cx, area(BASE, 1, W)).expect("free");
    w.hat.plant(BASE, Prot::RW);
    assert_eq!(w.space.verify(&w.cx).expect_err("planted").invariant, "W1");
    w.hat.plant(BASE, Prot::READ);
    w.space.free(&w.cx);
    let after = w.space.watch(&w.cx, area(BASE, 1, R)).expect_err("gone");
    assert!(matches!(after, AsError::Freed { .. }));
}

/// A driver may map the page whose bytes are to be moved in one run with its neighbours: they get translations, it does not.
#[test]
fn bytes_are_moved_in_a_run_of_pages_too() {
    let w = World::new();
    let vnode = w.db.vnodes().register(&w.cx, VnodeKind::Swap).expect("a number");
    let pages: Vec<_> = (0..3)
        .map(|i| {
            w.db.create(&w.cx, Identity::new(vnode, FileOffset(i * P)), 0, Reserve::Push)
                .expect("a frame")
        })
        .collect();
    let run: Vec<_> = pages.iter().map(|page| Some(RunPage::new(page, Prot::RW))).collect();
    let hat = MoveHat::new(&*w.hat, w.db.mem(), at(BASE + P + 8), Moved::Store(b"seen"));
    let loaded = hat.memload_run(&w.cx, at(BASE), &run, LoadFlags::empty(), None);
    assert_eq!((loaded.passed, loaded.loaded, loaded.end), (3, 2, Ok(Loaded::Done)));
    assert!(hat.is_done());
    let there = [0, 1, 2].map(|i| w.hat.probe(&w.cx, at(BASE + i * P)).is_some());
    assert_eq!(there, [true, false, true]);
    let mut bytes = [0; 4];
    w.db.mem().read(run[1].as_ref().expect("a page").page().pfn(), 8, &mut bytes);
    assert_eq!(&bytes, b"seen");
}

/// What an access beside a watch may map is asked when it is made: a page that comes to be watched after it has begun is mapped as watched.
#[test]
fn what_is_mapped_beside_an_access_is_mapped_as_watched_by_then() {
    let w = World::new();
    w.map_as(BASE, 2 * P, &ToyArgs { ahead: true, ..w.toy() });
    w.plan.fail("fault", BASE, 1, Fail::Fault(FaultError::NoMemory { addr: at(BASE) }));
    w.wait.left.store(1, Ordering::SeqCst);
    let gate = w.wait.gate.get_or_init(|| Barrier::new(2));
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let store = Moved::Store(b"seen");
        let access =
            s.spawn(move || space.access_watched(&cx_on(counters, 1), at(BASE), store, None));
        gate.wait();
        let watched = w.space.watch(&w.cx, area(BASE + P, 8, W));
        gate.wait();
        access.join().expect("no panic").expect("memory came back");
        watched.expect("free");
    });
    assert_eq!(w.hat.probe(&w.cx, at(BASE + P)).map(|t| t.prot), Some(Prot::READ));
    w.check();
}

#[test]
fn no_translation_is_left_that_lacks_a_right_for_a_watch_that_is_over() {
    let w = World::new();
    w.map(BASE, 3 * P);
    let rights = |page| w.hat.probe(&w.cx, at(BASE + page * P)).map(|t| t.prot);
    let touch = || {
        for page in 0..3 {
            let addr = at(BASE + page * P);
            w.space.fault_at(&w.cx, addr, FaultKind::Invalid, Access::Write).expect("mapped");
        }
    };
    w.space.watch(&w.cx, area(BASE, P + 8, W)).expect("free");
    w.space.watch(&w.cx, area(BASE + P + 8, 8, W)).expect("free");
    touch();
    assert_eq!([0, 1, 2].map(rights), [Some(Prot::READ), Some(Prot::READ), Some(Prot::RW)]);
    w.space.unwatch(&w.cx, at(BASE), P + 8).expect("there");
    assert_eq!([0, 1, 2].map(rights), [None, Some(Prot::READ), Some(Prot::RW)], "one is left");
    touch();
    w.space.unwatch(&w.cx, at(BASE + P + 8), 8).expect("there");
    assert_eq!([0, 1, 2].map(rights), [Some(Prot::RW), None, Some(Prot::RW)]);
    w.check();
}
