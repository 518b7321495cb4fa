//! Mapping, merging, unmapping, and what is left when one of them fails.

use crate::error::{AsError, SegError};
use crate::seg::{SegCreate, SegCx, SegKind, SegOps};
use crate::testing::*;
use crate::{FaultKind, Leave, Target};
use alloc::boxed::Box;
use page_db::{Access, Counter, Prot};

fn no_swap() -> Fail {
    Fail::Seg(SegError::NoSwap { range: range(P, P), bytes: P })
}

#[test]
fn an_overlapping_map_changes_nothing() {
    let w = World::new();
    w.map(0x10000, 4 * P);
    for (start, len) in [(0x12000, P), (0xf000, 2 * P), (0x13000, 2 * P), (0xf000, 9 * P)] {
        let asked = range(start, len);
        let got = w.space.map(&w.cx, asked, &w.toy());
        assert_eq!(got, Err(AsError::Overlap { range: asked, with: range(0x10000, 4 * P) }));
    }
    assert_eq!(w.shape(), [(0x10000, 0x14000)]);
    assert_eq!(w.space.state().size(), 4 * P);
    assert_eq!(w.plan.take("create").len(), 1, "the driver is not asked before the range is free");
    w.check();
}

#[test]
fn lookups_find_the_segment_and_the_next_one() {
    let w = World::new();
    w.map(0x10000, 4 * P);
    w.map(0x20000, P);
    let segs = w.space.segs(&w.cx);
    let found = |addr| segs.seg_at(&w.cx, at(addr)).map(|seg| seg.base().get());
    let above = |addr| segs.seg_at_or_above(&w.cx, at(addr)).map(|seg| seg.base().get());
    assert_eq!([0x10000, 0x13fff].map(found), [Some(0x10000); 2]);
    assert_eq!([0x14000, 0xffff].map(found), [None; 2]);
    assert_eq!([0xffff, 0x14000, 0x21000].map(above), [Some(0x10000), Some(0x20000), None]);
    assert_eq!(segs.last().map(|seg| seg.base().get()), Some(0x20000));
}

#[test]
fn a_hint_is_each_cpus_own_and_survives_the_segment_it_names() {
    let w = World::new();
    for i in 0..64 {
        w.map(0x10000 + i * 2 * P, P);
    }
    let look = |addr| {
        let before = w.count(Counter::TreeNodes);
        assert!(w.space.segs(&w.cx).seg_at(&w.cx, at(addr)).is_some());
        w.count(Counter::TreeNodes) - before
    };
    assert!(look(0x20000) > 1, "the first lookup walks");
    assert_eq!(look(0x20000), 1, "the second looks at the hint");
    w.space.unmap(&w.cx, range(0x20000, P)).expect("nothing is pinned");
    assert!(w.space.segs(&w.cx).seg_at(&w.cx, at(0x20000)).is_none());
    w.map(0x20000, P);
    assert!(look(0x20000) >= 1);
}

#[test]
fn unmapping_nothing_succeeds_and_holes_are_skipped() {
    let w = World::new();
    w.space.unmap(&w.cx, range(0x10000, 16 * P)).expect("nothing is there");
    w.map(0x10000, 4 * P);
    w.map(0x20000, 4 * P);
    w.space.unmap(&w.cx, range(0x12000, 0x10000)).expect("two ends and a hole");
    w.check();
    assert_eq!(w.shape(), [(0x10000, 0x12000), (0x22000, 0x24000)]);
    assert_eq!(w.space.state().size(), 4 * P);
}

#[test]
fn unmap_of_the_middle_leaves_two_segments_with_their_pages() {
    let w = World::new();
    w.map(0x10000, 3 * P);
    w.space.set_prot(&w.cx, range(0x12000, P), Prot::READ).expect("below the ceiling");
    w.space.fault(&w.cx, range(0x10000, 3 * P), FaultKind::Invalid, Access::Read).expect("mapped");
    w.space.unmap(&w.cx, range(0x11000, P)).expect("nothing is pinned");
    w.check();
    assert_eq!(w.shape(), [(0x10000, 0x11000), (0x12000, 0x13000)]);
    let mut runs = alloc::vec![];
    w.space
        .prots(&w.cx, range(0x12000, P), &mut |run, prot| runs.push((run, prot)))
        .expect("mapped");
    assert_eq!(runs, [(range(0x12000, P), Prot::READ)], "the upper part kept its page");
}

/// Both ends of a range cut a segment, and between them one goes whole.
#[test]
fn what_parts_held_is_emptied_once_and_with_the_lock_free() {
    let w = World::new();
    let leaves = ToyArgs { leaves: true, ..w.toy() };
    for start in [0x10000, 0x20000, 0x30000] {
        w.map_as(start, 2 * P, &leaves);
    }
    w.space.unmap(&w.cx, range(0x11000, 0x20000)).expect("nothing is pinned");
    w.check();
    let emptied = |w: &World| {
        let calls = w.plan.take("empty").into_iter();
        calls.map(|c| (c.start, c.end, c.writer)).collect::<alloc::vec::Vec<_>>()
    };
    assert_eq!(emptied(&w), [(0x11000, 0x12000, false), (0x30000, 0x31000, false)], "G9");
    // Also when the pass ends with an error above.
    w.map_as(0x50000, P, &leaves);
    let pinned = Fail::Seg(SegError::Pinned { range: range(0x50000, P) });
    w.plan.fail("unmap", 0x50000, 1, pinned);
    assert!(w.space.try_unmap(&w.cx, range(0x10000, 0x50000)).is_err());
    assert!(w.space.try_unmap(&w.cx, range(0x10000, 0x50000)).is_ok());
    assert_eq!(emptied(&w), [], "of whole segments nothing is left behind");
    // What takes the place of a part is to find it empty.
    w.map_as(0x10000, 3 * P, &leaves);
    w.map_as(0x20000, P, &leaves.moving());
    w.space
        .move_range(&w.cx, range(0x20000, P), at(0x11000), Leave::Hole, Target::Replace)
        .expect("nothing is pinned");
    assert_eq!(emptied(&w), [(0x11000, 0x12000, cfg!(debug_assertions))], "G9");
    w.check();
}

#[test]
fn equal_neighbours_become_one_segment_in_illumos_order() {
    let w = World::new();
    let tagged = w.toy().tag(1);
    w.map_as(0x10000, 2 * P, &tagged);
    w.map_as(0x14000, 2 * P, &tagged);
    w.plan.take_all();
    w.map_as(0x12000, 2 * P, &tagged);
    assert_eq!(w.shape(), [(0x10000, 0x16000)], "the hole is filled and all three are one");
    let ops: alloc::vec::Vec<_> =
        w.plan.take_all().into_iter().map(|c| (c.op, c.start, c.end)).collect();
    let expected =
        [("create", 0x12000, 0x14000), ("extend", 0x10000, 0x14000), ("concat", 0x10000, 0x16000)];
    assert_eq!(ops, expected);
    assert_eq!(w.space.state().size(), 6 * P);
}

#[test]
fn a_new_segment_takes_the_next_one_over_only_if_the_one_below_does_not() {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy().tag(7));
    w.map_as(0x14000, 2 * P, &w.toy().tag(1));
    w.space.set_prot(&w.cx, range(0x15000, P), Prot::READ).expect("below the ceiling");
    w.map_as(0x12000, 2 * P, &w.toy().tag(1));
    assert_eq!(w.shape(), [(0x10000, 0x12000), (0x12000, 0x16000)]);
    assert!(w.space.check_prot(&w.cx, range(0x12000, 3 * P), Prot::RW).is_ok());
    assert!(
        w.space.check_prot(&w.cx, range(0x15000, P), Prot::WRITE).is_err(),
        "its page came along"
    );
    w.check();
}

#[test]
fn neighbours_that_have_lived_may_stay_apart() {
    let w = World::new();
    let args = ToyArgs { neighbours_merge: false, ..w.toy().tag(1) };
    w.map_as(0x10000, P, &args);
    w.map_as(0x12000, P, &args);
    w.map_as(0x11000, P, &args);
    assert_eq!(w.shape(), [(0x10000, 0x12000), (0x12000, 0x13000)]);
    let lonely = ToyArgs { may_merge: false, ..args };
    w.map_as(0x13000, P, &lonely);
    assert_eq!(w.shape().len(), 3, "who may not merge is not asked");
    w.map_as(0x14000, P, &w.toy().tag(2));
    assert_eq!(w.shape().len(), 4, "different attributes stay two");
}

#[test]
fn a_failing_create_leaves_nothing() {
    let w = World::new();
    w.map_as(0x10000, P, &w.toy().tag(1));
    w.plan.fail("create", 0, 1, no_swap());
    let got = w.space.map(&w.cx, range(0x11000, P), &w.toy().tag(1));
    assert_eq!(got.map_err(|e| e.errno()), Err(page_db::errno::EAGAIN));
    assert_eq!(w.shape(), [(0x10000, 0x11000)]);
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (P, P));
    w.check();
}

#[test]
fn a_create_short_of_memory_waits_without_the_lock_and_is_done_over() {
    let w = World::new();
    w.wait.left.store(2, std::sync::atomic::Ordering::SeqCst);
    w.plan.fail("create", 0, 2, Fail::Seg(SegError::NoMemory { range: range(P, P) }));
    w.map(0x10000, P);
    assert_eq!(w.plan.take("create").len(), 3);
    w.plan.fail("create", 0, 9, Fail::Seg(SegError::NoMemory { range: range(P, P) }));
    let got = w.space.map(&w.cx, range(0x20000, P), &w.toy());
    assert!(matches!(got, Err(AsError::NoMemory(_))), "{got:?}");
    w.check();
}

#[test]
fn the_address_space_limit_counts_what_is_reserved() {
    let w = World::new();
    w.space.state().set_vmem_limit(4 * P);
    w.map(0x10000, 3 * P);
    let got = w.space.map(&w.cx, range(0x20000, 2 * P), &w.toy());
    assert_eq!(got, Err(AsError::VmemLimit { bytes: 2 * P, limit: 4 * P }));
    let unreserved = w.toy().kind(SegKind::NORESERVE);
    w.map_as(0x20000, P, &unreserved);
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (4 * P, 3 * P));
    w.space.unmap(&w.cx, range(0x20000, P)).expect("nothing is pinned");
    assert_eq!(w.space.state().resv_size(), 3 * P);
    w.check();
}

/// Makes a toy, and maps beside it before that is known to the address space, as another thread could.
struct Beside<'a> {
    w: &'a World,
    kind: SegKind,
    pages: u64,
}

impl SegCreate for Beside<'_> {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        let made = self.w.toy().kind(self.kind).create(scx)?;
        self.w.map(0x40000, self.pages * P);
        Ok(made)
    }
}

/// What reserves nothing counts for nothing, also while it is mapped and unmapped: another thread's mapping is not refused for it.
#[test]
fn the_reserved_size_is_never_more_than_is_reserved() {
    let w = World::new();
    w.space.state().set_vmem_limit(4 * P);
    // While it is made.
    let beside = |kind, pages| {
        let done = w.space.map(&w.cx, range(0x10000, 3 * P), &Beside { w: &w, kind, pages });
        assert_eq!(w.space.state().resv_size(), pages * P);
        w.space.unmap(&w.cx, range(0x40000, pages * P)).expect("nothing is pinned");
        done
    };
    beside(SegKind::NORESERVE, 4).expect("there is room");
    w.space.unmap(&w.cx, range(0x10000, 3 * P)).expect("nothing is pinned");
    // Of two that do not fit together, and did alone, one is given back.
    let refused = Err(AsError::VmemLimit { bytes: 3 * P, limit: 4 * P });
    assert_eq!(beside(SegKind::empty(), 2), refused);
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (0, 0));
    w.map_as(0x10000, 3 * P, &w.toy().kind(SegKind::NORESERVE));
    // A mapping that does not fit with all its size is refused, whatever it reserves.
    let unreserved = w.toy().kind(SegKind::NORESERVE);
    let got = w.space.map(&w.cx, range(0x20000, 5 * P), &unreserved);
    assert_eq!(got, Err(AsError::VmemLimit { bytes: 5 * P, limit: 4 * P }));
    // While parts of it are unmapped, and the whole.
    w.map(0x13000, 2 * P);
    let seen = |range| {
        let before = w.plan.reserved_at("unmap").len();
        w.space.unmap(&w.cx, range).expect("nothing is pinned");
        w.plan.reserved_at("unmap").split_off(before)
    };
    assert_eq!(seen(range(0x12000, 2 * P)), [2 * P, 2 * P], "its end, and the start of the other");
    assert_eq!(w.space.state().resv_size(), P);
    assert_eq!(seen(range(0x10000, 5 * P)), [P, P], "both whole");
    assert_eq!((w.space.state().size(), w.space.state().resv_size()), (0, 0));
    w.check();
}

#[test]
fn ranges_outside_the_limits_are_refused_everywhere() {
    let w = World::with_limits(range(0x10000, 16 * P));
    for outside in
        [range(0x1000, P), range(0xf000, 2 * P), range(0x1f000, 2 * P), range(0x20000, P)]
    {
        let refused = Err(AsError::OutsideSpace { range: outside, limits: range(0x10000, 16 * P) });
        assert_eq!(w.space.map(&w.cx, outside, &w.toy()), refused);
        assert_eq!(w.space.unmap(&w.cx, outside), refused);
        assert_eq!(w.space.set_prot(&w.cx, outside, Prot::READ), refused);
        assert_eq!(w.space.lock(&w.cx, outside), refused);
        assert_eq!(w.space.incore(&w.cx, outside, &mut [0; 4]).1, refused);
        let fault = w.space.fault(&w.cx, outside, FaultKind::Invalid, Access::Read);
        assert!(matches!(fault, Err(crate::FaultError::NoMap { .. })));
    }
    w.check();
}

#[test]
fn huge_ranges_cost_what_small_ones_do() {
    let costs = |len: u64| {
        let w = World::new();
        for i in 0..32 {
            w.map(0x10000 + i * 2 * P, P);
        }
        let before = w.count(Counter::TreeNodes);
        let big = range(0x10_0000_0000, len);
        w.map_as(big.start().get(), len, &w.toy());
        w.space.fault_at(&w.cx, big.start(), FaultKind::Invalid, Access::Read).expect("mapped");
        let child = w.child();
        w.space.dup(&w.cx, &child).expect("toys fork");
        let _ = w.space.pmap(&w.cx);
        w.space.unmap(&w.cx, big).expect("nothing is pinned");
        child.free(&w.cx);
        w.check();
        w.count(Counter::TreeNodes) - before
    };
    assert_eq!(costs(4 * P), costs(16 << 40), "16 KiB like 16 TiB");
}

#[test]
fn unmap_waits_for_pins_and_starts_over() {
    let w = World::new();
    w.map(0x10000, 2 * P);
    w.map(0x20000, 2 * P);
    let pinned = range(0x20000, P);
    w.space.fault(&w.cx, pinned, FaultKind::SoftLock, Access::Write).expect("mapped");
    let refused = w.space.try_unmap(&w.cx, range(0x20000, 2 * P));
    assert!(matches!(refused, Err(AsError::Seg(SegError::Pinned { .. }))));
    let whole = range(0x10000, 0x12000);
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let unmapper = s.spawn(move || space.unmap(&cx_on(counters, 1), whole));
        // The first segment goes before the pinned one is met.
        while w.shape().first().is_none_or(|first| first.0 != 0x20000) {
            std::thread::yield_now();
        }
        assert!(!unmapper.is_finished(), "it waits while the page is pinned");
        w.space.fault(&w.cx, pinned, FaultKind::SoftUnlock, Access::Write).expect("it was locked");
        unmapper.join().expect("no panic").expect("the range is free of pins now");
    });
    w.check();
    assert_eq!(w.shape(), []);
}

#[test]
fn a_driver_may_ask_unmap_to_start_over_or_refuse() {
    let w = World::new();
    w.map(0x10000, P);
    w.map(0x20000, P);
    w.plan.fail("unmap", 0x20000, 1, Fail::Seg(SegError::Retry { range: range(P, P) }));
    w.space.unmap(&w.cx, range(0x10000, 0x11000)).expect("the second time it goes");
    assert_eq!(w.shape(), []);
    w.map(0x10000, P);
    w.map(0x20000, P);
    let refusal = SegError::Invalid { driver: "toy", what: "whole only", range: range(0x20000, P) };
    w.plan.fail("unmap", 0x20000, 1, Fail::Seg(refusal));
    assert_eq!(w.space.unmap(&w.cx, range(0x10000, 0x11000)), Err(refusal.into()));
    assert_eq!(w.shape(), [(0x20000, 0x21000)], "what was unmapped before stays unmapped");
    w.check();
}
