//! Moving, continuing and showing twice, and what is left when one of them fails.

use crate::error::{AsError, SegError};
use crate::ops::{Leave, Target};
use crate::testing::*;
use crate::{FaultKind, SegKind};
use alloc::vec;
use page_db::{Access, Prot};

/// Three segments in a row of 2, 1 and 3 pages at 0x10000, which do not merge.
fn row(w: &World) {
    for (start, pages, tag) in [(0x10000, 2, 1), (0x12000, 1, 2), (0x13000, 3, 3)] {
        w.map_as(start, pages * P, &w.toy().moving().tag(tag));
    }
}

const ROW: [(u64, u64); 3] = [(0x10000, 0x12000), (0x12000, 0x13000), (0x13000, 0x16000)];

#[test]
fn a_range_of_several_segments_moves_as_one_and_is_cut_at_both_ends() {
    let w = World::new();
    row(&w);
    w.space.fault(&w.cx, range(0x10000, 6 * P), FaultKind::Invalid, Access::Read).expect("mapped");
    w.space.set_prot(&w.cx, range(0x13000, P), Prot::READ).expect("below the ceiling");
    w.space.leave_out(&w.cx, range(0x11000, P), true).expect("mapped");
    w.plan.take_all();
    w.space
        .move_range(&w.cx, range(0x11000, 3 * P), at(0x40000), Leave::Hole, Target::Replace)
        .expect("it moves");
    w.check();
    let moved = [(0x40000, 0x41000), (0x41000, 0x42000), (0x42000, 0x43000)];
    assert_eq!(w.shape()[..2], [(0x10000, 0x11000), (0x14000, 0x16000)]);
    assert_eq!(w.shape()[2..], moved);
    let calls =
        |op| w.plan.take(op).iter().map(|c| (c.start, c.end)).collect::<alloc::vec::Vec<_>>();
    assert_eq!(calls("split"), [(0x11000, 0x12000), (0x14000, 0x15000)]);
    assert_eq!(calls("relocate"), [(0x11000, 0x12000), (0x12000, 0x13000), (0x13000, 0x14000)]);
    assert_eq!(calls("unmap"), [], "nothing was in the way");
    let mut prots = alloc::vec::Vec::new();
    w.space.prots(&w.cx, range(0x40000, 3 * P), &mut |_, prot| prots.push(prot)).expect("mapped");
    assert_eq!(prots, [Prot::RW, Prot::RW, Prot::READ], "rights move along");
    let segs = w.space.segs(&w.cx);
    let left_out = segs.left_out(range(0x10000, 0x40000));
    assert!(left_out.eq([range(0x40000, P)]), "so does what a child lacks");
    assert_eq!(w.space.state().size(), 6 * P);
    assert!(w.space.hat().probe(&w.cx, at(0x12000)).is_none(), "no translation is left");
    assert!(w.space.hat().probe(&w.cx, at(0x14000)).is_some(), "but what stays has its own");
}

#[test]
fn what_is_in_the_way_goes_and_neighbours_that_agree_are_joined() {
    let w = World::new();
    w.map_as(0x10000, 4 * P, &w.toy().moving().tag(7));
    w.map_as(0x20000, 4 * P, &w.toy().moving());
    w.space
        .move_range(&w.cx, range(0x12000, P), at(0x21000), Leave::Hole, Target::Replace)
        .expect("it moves");
    w.check();
    assert_eq!(w.shape()[..2], [(0x10000, 0x12000), (0x13000, 0x14000)]);
    assert_eq!(w.shape()[2..], [(0x20000, 0x21000), (0x21000, 0x22000), (0x22000, 0x24000)]);
    assert_eq!(w.space.state().size(), 7 * P);
    w.space
        .move_range(&w.cx, range(0x21000, P), at(0x12000), Leave::Hole, Target::Replace)
        .expect("and back");
    w.check();
    assert_eq!(w.shape(), [(0x10000, 0x14000), (0x20000, 0x21000), (0x22000, 0x24000)]);
}

/// Whoever chose a place because it was free must not take it from somebody who mapped there since.
#[test]
fn a_place_that_is_to_be_free_is_not_taken_from_whoever_was_faster() {
    let w = World::new();
    row(&w);
    w.map(0x42000, P);
    let shape = w.shape();
    let taken = AsError::Overlap { range: range(0x40000, 3 * P), with: range(0x42000, P) };
    for leave in [Leave::Hole, Leave::Fresh] {
        let moved =
            w.space.move_range(&w.cx, range(0x11000, 3 * P), at(0x40000), leave, Target::Free);
        assert_eq!(moved, Err(taken));
        assert_eq!(w.shape(), shape, "not even cut");
        w.check();
    }
    assert_eq!((w.plan.take("unmap"), w.plan.take("continued")), (vec![], vec![]));
    w.space
        .move_range(&w.cx, range(0x11000, 2 * P), at(0x40000), Leave::Hole, Target::Free)
        .expect("it is free");
    w.check();
}

#[test]
fn a_move_that_is_refused_changes_nothing() {
    let w = World::new();
    row(&w);
    w.map(0x18000, P); // a driver without the side that moves
    let (from, to) = (range(0x11000, 3 * P), at(0x40000));
    let tried = |from, to| w.space.move_range(&w.cx, from, to, Leave::Hole, Target::Replace);
    let unable = tried(range(0x18000, P), to);
    assert!(
        matches!(unable, Err(AsError::Seg(SegError::NotSupported { op: "extract", .. }))),
        "{unable:?}"
    );
    assert_eq!(tried(range(0x15000, 3 * P), to), Err(AsError::Unmapped { addr: at(0x16000) }));
    assert!(matches!(tried(from, at(0x12000)), Err(AsError::Overlap { .. })));
    assert!(matches!(tried(from, at(0)), Err(AsError::OutsideSpace { .. })));
    let page = range(0x13000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    assert_eq!(tried(from, to), Err(SegError::Pinned { range: page }.into()));
    w.space.fault(&w.cx, page, FaultKind::SoftUnlock, Access::Read).expect("it was");
    // The second of three pieces cannot be left behind: the first, made already, is taken back.
    let none = SegError::NoSwap { range: range(0x12000, P), bytes: P };
    w.plan.fail("continued", 0x12000, 1, Fail::Seg(none));
    assert_eq!(w.space.move_range(&w.cx, from, to, Leave::Fresh, Target::Free), Err(none.into()));
    w.check();
    assert_eq!(w.shape()[..3], ROW);
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (7 * P, 7 * P));
    assert_eq!(w.plan.take("relocate"), []);
}

#[test]
fn what_stays_behind_is_new() {
    let w = World::new();
    row(&w);
    w.space.set_prot(&w.cx, range(0x12000, P), Prot::READ).expect("below the ceiling");
    w.space
        .move_range(&w.cx, range(0x12000, 2 * P), at(0x40000), Leave::Fresh, Target::Free)
        .expect("it moves");
    w.check();
    assert_eq!(w.space.state().size(), 8 * P);
    let there = w.shape();
    assert_eq!(there[1..3], [(0x12000, 0x13000), (0x13000, 0x14000)]);
    assert_eq!(there[4..], [(0x40000, 0x41000), (0x41000, 0x42000)]);
}

/// At the limit there is room for what stays behind where something was in the way; a driver that does not go leaves all as it was, and nothing counted twice.
#[test]
fn what_stays_behind_takes_the_room_of_what_was_in_the_way() {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy().moving());
    w.map(0x40000, P);
    w.map(0x41000, P);
    let state = w.space.state();
    state.set_vmem_limit(4 * P);
    let go = || {
        w.space.move_range(&w.cx, range(0x10000, 2 * P), at(0x40000), Leave::Fresh, Target::Replace)
    };
    let refused = SegError::Invalid { driver: "toy", what: "as ordered", range: range(0x41000, P) };
    w.plan.fail("unmap", 0x41000, 1, Fail::Seg(refused));
    assert_eq!(go(), Err(refused.into()));
    w.check();
    assert_eq!((state.size(), state.resv_size()), (3 * P, 3 * P), "the first in the way is gone");
    go().expect("there is room");
    w.check();
    assert_eq!(w.shape(), [(0x10000, 0x12000), (0x40000, 0x42000)]);
    assert_eq!((state.size(), state.resv_size()), (4 * P, 4 * P));
    let more = w.space.move_range(
        &w.cx,
        range(0x10000, 2 * P),
        at(0x50000),
        Leave::Fresh,
        Target::Replace,
    );
    assert!(matches!(more, Err(AsError::VmemLimit { .. })), "{more:?}");
}

#[test]
fn a_mapping_goes_on_like_its_last_page() {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy().moving().tag(7).kind(SegKind::NORESERVE));
    let (last, tail) = (at(0x11000), range(0x12000, 2 * P));
    w.space.lock(&w.cx, range(0x11000, P)).expect("mapped");
    w.space.leave_out(&w.cx, range(0x11000, P), true).expect("mapped");
    w.plan.take_all();
    let limit = SegError::LockLimit { range: tail };
    w.plan.fail("lock", 0x13000, 1, Fail::Seg(limit));
    assert_eq!(w.space.extend(&w.cx, last, tail), Err(limit.into()));
    w.check();
    assert_eq!(w.shape(), [(0x10000, 0x12000)]);
    w.space.extend(&w.cx, last, tail).expect("there is room");
    w.check();
    assert_eq!(w.shape(), [(0x10000, 0x14000)], "one segment");
    assert!(w.space.segs(&w.cx).left_out(range(0x10000, 4 * P)).eq([range(0x11000, 3 * P)]));
    assert!(matches!(w.space.extend(&w.cx, last, tail), Err(AsError::Overlap { .. })));
    let gone = w.space.extend(&w.cx, at(0x30000), range(0x40000, P));
    assert_eq!(gone, Err(SegError::Unmapped { addr: at(0x30000) }.into()));
}

/// Places that are on their way out are waited for with nothing held, and then the driver is asked again.
#[test]
fn what_goes_on_over_places_that_leave_waits_for_them() {
    let w = World::new();
    row(&w);
    let waits = |n: usize| {
        let waits = w.plan.take("wait_emptied");
        assert_eq!(waits.iter().map(|w| w.writer).collect::<alloc::vec::Vec<_>>(), vec![false; n]);
    };
    let leaving = |page, times| {
        w.plan.fail("leaving", page, times, Fail::Seg(SegError::Retry { range: range(page, P) }))
    };
    leaving(0x16000, 2);
    w.space.extend(&w.cx, at(0x15000), range(0x16000, P)).expect("it is free in the end");
    waits(2);
    // The second of three pieces that stay behind: the first, made already, is given back before.
    leaving(0x12000, 1);
    w.plan.take("continued");
    w.space
        .move_range(&w.cx, range(0x11000, 3 * P), at(0x40000), Leave::Fresh, Target::Free)
        .expect("it moves in the end");
    waits(1);
    assert_eq!(w.plan.take("continued").len(), 2 + 3);
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (10 * P, 10 * P));
    w.check();
}

#[test]
fn showing_a_range_in_another_address_space_is_all_or_nothing() {
    let w = World::new();
    row(&w);
    let (other, from) = (w.child(), range(0x11000, 3 * P));
    let no_swap = SegError::NoSwap { range: range(0x13000, P), bytes: P };
    for into in [&w.space, &other] {
        w.plan.fail("share", 0x13000, 1, Fail::Seg(no_swap));
        assert_eq!(w.space.share_range(&w.cx, from, into, at(0x40000)), Err(no_swap.into()));
        assert_eq!(into.state().size(), if core::ptr::eq(into, &w.space) { 6 * P } else { 0 });
        w.space.share_range(&w.cx, from, into, at(0x40000)).expect("there is room");
        let taken = w.space.share_range(&w.cx, from, into, at(0x42000));
        assert!(matches!(taken, Err(AsError::Overlap { .. })), "{taken:?}");
    }
    // Who meets a hole, or a limit, has asked no driver to make anything.
    w.plan.take("share");
    let hole = w.space.share_range(&w.cx, range(0x12000, 5 * P), &other, at(0x50000));
    assert!(matches!(hole, Err(AsError::Unmapped { .. })), "{hole:?}");
    other.state().set_vmem_limit(5 * P);
    let limit = w.space.share_range(&w.cx, from, &other, at(0x50000));
    assert!(matches!(limit, Err(AsError::VmemLimit { .. })), "{limit:?}");
    assert_eq!(w.plan.take("share").len(), 0);
    // Against the order of numbers too.
    other.share_range(&w.cx, range(0x41000, P), &w.space, at(0x50000)).expect("there is room");
    w.check();
    other.verify(&w.cx).expect("every invariant holds");
    let shown = [(0x40000, 0x41000), (0x41000, 0x42000), (0x42000, 0x43000)];
    assert_eq!(shape_of(&other, &w.cx), shown);
    assert_eq!(w.shape()[3..6], shown);
    assert_eq!((w.space.state().size(), other.state().size()), (10 * P, 3 * P));
}
