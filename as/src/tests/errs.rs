//! Drivers that err: that never have another answer, that will not go, that say wrongly what is left.

use crate::error::{AsError, SegError};
use crate::fault::{FaultError, FaultKind};
use crate::seg::{Advice, Remnant, SegKind};
use crate::testing::*;
use core::sync::atomic::Ordering;
use page_db::{Access, FileOffset, Prot, VnodeError, VnodeId, errno};
use std::vec::Vec;

const AT: u64 = 0x10000;

fn for_ever(op: &'static str, fail: Fail) -> World {
    let w = World::new();
    if op != "create" {
        w.map(AT, 2 * P);
    }
    w.plan.fail(op, 0, u32::MAX, fail);
    w
}

fn retry() -> Fail {
    Fail::Seg(SegError::Retry { range: range(AT, P) })
}

fn inversion() -> Fail {
    let (vnode, offset) = (VnodeId(1), FileOffset(0));
    Fail::Seg(SegError::Vnode(VnodeError::Deadlock { vnode, offset }))
}

/// What an operation answers when its driver has only `fail` to say.
type Case = (&'static str, Fail, fn(&World) -> Result<(), AsError>);

#[test]
fn an_operation_whose_driver_only_asks_for_another_try_comes_to_an_end() {
    let fault = |error| Fail::Fault(error);
    let addr = at(AT);
    let asks = [
        FaultError::Retry { addr },
        FaultError::NotOwn { addr },
        FaultError::Object { addr, errno: errno::EDEADLK },
    ];
    let mut cases: Vec<Case> = Vec::new();
    for ask in asks {
        cases.push(("fault", fault(ask), |w| {
            Ok(w.space.fault_at(&w.cx, at(AT), FaultKind::Invalid, Access::Write)?)
        }));
        cases.push(("faulta", fault(ask), |w| Ok(w.space.faulta(&w.cx, range(AT, P))?)));
        cases.push(("lock", Fail::Seg(ask.into()), |w| w.space.lock(&w.cx, range(AT, P))));
    }
    for ask in [retry(), inversion()] {
        cases.push(("set_prot", ask, |w| w.space.set_prot(&w.cx, range(AT, P), Prot::READ)));
        cases.push(("advise", ask, |w| w.space.advise(&w.cx, range(AT, P), Advice::Random)));
        cases.push(("create", ask, |w| w.space.map(&w.cx, range(AT, P), &w.toy())));
        cases.push(("dup", ask, |w| w.space.dup(&w.cx, &w.child())));
        cases.push(("unmap", ask, |w| w.space.unmap(&w.cx, range(AT, 2 * P))));
    }
    std::thread::scope(|threads| {
        for (op, ask, case) in cases {
            threads.spawn(move || {
                let w = for_ever(op, ask);
                let before = w.shape();
                let answer = case(&w).map_err(|e| e.errno());
                assert_eq!(answer, Err(errno::EDEADLK), "{op} with {ask:?}");
                assert_eq!(w.shape(), before, "{op} with {ask:?}");
                w.check();
            });
        }
    });
}

#[test]
fn what_is_given_up_says_how_often_and_why() {
    let w = for_ever("set_prot", retry());
    let error = w.space.set_prot(&w.cx, range(AT, P), Prot::READ).expect_err("for ever");
    let why = "to be redone as writer";
    assert_eq!(error, AsError::Deadlock { passes: 10_000, why, addr: Some(at(AT)) });
    let calls = w.plan.take("set_prot");
    assert!(!calls[0].writer && calls[1..].iter().all(|call| call.writer));
    assert_eq!(calls.len(), 10_001);
}

#[test]
fn a_space_ends_whatever_its_drivers_say() {
    let refusal = SegError::Invalid { driver: "toy", what: "it stays", range: range(AT, P) };
    let short = SegError::NoMemory { range: range(AT, P) };
    for fail in [retry(), inversion(), Fail::Seg(refusal), Fail::Seg(short)] {
        let w = World::new();
        w.map(AT, 2 * P);
        w.map(0x20000, P);
        w.map(0x30000, P);
        let write = |addr| w.space.fault_at(&w.cx, at(addr), FaultKind::Invalid, Access::Write);
        [AT, 0x20000, 0x30000].into_iter().try_for_each(write).expect("mapped");
        w.plan.fail("unmap", AT, u32::MAX, fail);
        w.plan.fail("unmap", 0x30000, u32::MAX, fail);
        w.wait.left.store(100, Ordering::SeqCst);
        w.space.free(&w.cx);
        assert_eq!((w.shape(), w.space.state().size()), (Vec::new(), 0));
        assert_eq!(w.space.state().resv_size(), 0);
        w.check();
    }
}

#[test]
fn half_a_child_goes_whatever_its_drivers_say() {
    let w = World::new();
    w.map(AT, P);
    w.map(0x20000, P);
    let refusal = SegError::Invalid { driver: "toy", what: "it stays", range: range(AT, P) };
    w.plan.fail("dup", 0x20000, 1, Fail::Seg(refusal));
    w.plan.fail("unmap", AT, 1, Fail::Seg(refusal));
    let child = w.child();
    assert_eq!(w.space.dup(&w.cx, &child), Err(refusal.into()));
    child.verify(&w.cx).expect("sound");
    assert!(shape_of(&child, &w.cx).is_empty());
    w.space.dup(&w.cx, &child).expect("the child is empty");
    w.check();
}

#[test]
fn a_driver_that_says_wrongly_what_is_left_is_cut_all_the_same_and_named() {
    let says: [fn(&ToyArgs) -> Remnant; 4] = [
        |_| Remnant::Nothing,
        |_| Remnant::Low,
        |_| Remnant::High,
        |toy| Remnant::Both(ToyArgs { says: None, ..toy.clone() }.fresh()),
    ];
    // Which answer is right, and what stays of four pages if it is and if it is not.
    type Shape = &'static [(u64, u64)];
    let cuts: [(u64, u64, usize, Shape, Shape); 4] = [
        (AT, 4, 0, &[], &[]),
        (0x12000, 2, 1, &[(AT, 0x12000)], &[(AT, 0x12000)]),
        (AT, 1, 2, &[(0x11000, 0x14000)], &[(0x11000, 0x14000)]),
        (0x11000, 1, 3, &[(AT, 0x11000), (0x12000, 0x14000)], &[(AT, 0x11000)]),
    ];
    let kinds = [SegKind::empty(), SegKind::NORESERVE]; // one that counts for itself too
    for (start, pages, right, agreed, otherwise) in cuts {
        for ((n, say), kind) in says.into_iter().enumerate().flat_map(|s| kinds.map(|k| (s, k))) {
            let w = World::new();
            w.map_as(AT, 4 * P, &ToyArgs { says: Some(say), ..w.toy().kind(kind) });
            for addr in [AT, 0x13000] {
                let done = w.space.fault_at(&w.cx, at(addr), FaultKind::Invalid, Access::Write);
                done.expect("mapped");
            }
            let piece = range(start, pages * P);
            let done = w.space.unmap(&w.cx, piece);
            if n == right {
                assert_eq!((done, w.shape()), (Ok(()), agreed.to_vec()));
            } else {
                let what = "unmap says wrongly what is left";
                let error = SegError::Invalid { driver: "toy", what, range: piece };
                assert_eq!((done, w.shape()), (Err(error.into()), otherwise.to_vec()));
            }
            w.check();
            w.space.free(&w.cx);
            assert_eq!(w.space.state().resv_size(), 0);
            w.check();
        }
    }
}

#[test]
fn a_child_gets_no_more_than_its_parent_has() {
    for run in [range(P, P), range(AT - 4 * P, 16 * P), range(AT, 64 * P), range(0x12000, P)] {
        let w = World::new();
        w.map_as(AT, 4 * P, &ToyArgs { run: Some(run), ..w.toy() });
        w.map(0x14000, P);
        let child = w.child();
        w.space.dup(&w.cx, &child).expect("served somehow");
        assert_eq!(shape_of(&child, &w.cx), w.shape(), "{run}");
        child.verify(&w.cx).expect("sound");
    }
    let w = World::new();
    w.map_as(AT, 4 * P, &ToyArgs { run: Some(range(AT, P)), ..w.toy() });
    let child = w.child();
    w.space.dup(&w.cx, &child).expect("in parts");
    assert_eq!(shape_of(&child, &w.cx), [(AT, 0x11000), (0x11000, 0x14000)]);
}
