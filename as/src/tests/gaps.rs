//! Finding room: which hole, what part of it, and when there is none.

use crate::error::AsError;
use crate::testing::*;
use crate::{AddrRequest, GapRequest, USER_RANGE};
use page_db::{UnitError, VirtRange};

const K64: u64 = 0x10000;
const MB: u64 = 0x10_0000;

/// A window of 1 MB with 64 KB in its middle taken.
fn window() -> (World, VirtRange) {
    let w = World::new();
    w.map(0x18_0000, K64);
    (w, range(MB, MB))
}

#[test]
fn a_gap_is_the_whole_hole_inside_the_window() {
    let (w, window) = window();
    let gap = |request: GapRequest| w.space.find_gap(&w.cx, &request.within(window));
    let high = gap(GapRequest::new(K64)).expect("there is room above");
    assert_eq!(high.hole, range(0x19_0000, 0x7_0000));
    assert_eq!(high.place, range(0x1f_0000, K64), "at the top");
    let low = gap(GapRequest::new(K64).lowest()).expect("there is room below");
    assert_eq!((low.hole, low.place), (range(MB, 0x8_0000), range(MB, K64)));
    let around = gap(GapRequest::new(K64).around(at(0x15_0000))).expect("a hole is there");
    assert_eq!(around.hole, low.hole);
    let taken = gap(GapRequest::new(K64).around(at(0x18_8000)));
    assert_eq!(taken, Err(AsError::NoGap { len: K64 }));
    assert_eq!(gap(GapRequest::new(0x9_0000)), Err(AsError::NoGap { len: 0x9_0000 }));
}

#[test]
fn alignment_and_redzones_are_kept() {
    let (w, window) = window();
    let request = GapRequest::new(K64).within(window);
    let aligned = w.space.find_gap(&w.cx, &request.aligned(0x4_0000)).expect("0x1c0000 will do");
    assert_eq!(aligned.place, range(0x1c_0000, K64));
    let guarded = w.space.find_gap(&w.cx, &request.with_redzone(P)).expect("room to spare");
    assert_eq!(guarded.place, range(0x1e_f000, K64), "a page is left free above");
    let exact = GapRequest::new(0x6_e000).within(range(0x19_0000, 0x7_0000)).with_redzone(P);
    assert_eq!(w.space.find_gap(&w.cx, &exact).map(|g| g.place), Ok(range(0x19_1000, 0x6_e000)));
    let too_much = GapRequest { len: 0x6_f000, ..exact };
    assert!(w.space.find_gap(&w.cx, &too_much).is_err());
}

#[test]
fn nonsense_is_an_answer() {
    let w = World::new();
    let gap = |request: GapRequest| w.space.find_gap(&w.cx, &request).expect_err("nonsense");
    assert!(matches!(gap(GapRequest::new(0)), AsError::Range(UnitError::Empty(_))));
    assert_eq!(gap(GapRequest::new(1)), UnitError::PartialPage(1).into());
    assert_eq!(gap(GapRequest::new(P).with_redzone(7)), UnitError::PartialPage(7).into());
    assert_eq!(gap(GapRequest::new(P).aligned(3 * P)), UnitError::Misaligned(3 * P).into());
    let most = !(P - 1);
    assert_eq!(gap(GapRequest::new(most)), AsError::NoGap { len: most });
    assert_eq!(gap(GapRequest::new(P).with_redzone(most)), AsError::NoGap { len: P });
    assert_eq!(gap(GapRequest::new(P).aligned(1 << 63)), AsError::NoGap { len: P });
    let outside = range(0xffff_8000_0000_0000, P);
    assert_eq!(gap(GapRequest::new(P).within(outside)), AsError::NoGap { len: P });
}

#[test]
fn mmap_takes_the_hint_or_the_top() {
    let w = World::new();
    let claim = w.space.claim_range(&w.cx).expect("not held");
    let ask = |hint: u64| AddrRequest { hint: Some(at(hint)), ..AddrRequest::new(2 * P) };
    let first = claim.map_anywhere(&ask(0x40123), &w.toy()).expect("room");
    assert_eq!(first, range(0x40000, 2 * P), "the hint's page");
    let second = claim.map_anywhere(&ask(0x41000), &w.toy()).expect("room");
    assert_eq!(second, range(USER_RANGE.end() - 2 * P, 2 * P), "the hint is taken, so the top");
    let third = claim.map_anywhere(&AddrRequest::new(2 * P), &w.toy()).expect("room");
    assert_eq!(third.end(), second.start().get(), "downwards from there");
    let null = claim.choose_addr(&ask(0)).expect("room");
    assert_eq!(null.end(), third.start().get(), "0 is no hint");
    claim.map_fixed(range(0x41000, P), &w.toy()).expect("what is there goes");
    let full = AddrRequest { window: Some(first), ..AddrRequest::new(2 * P) };
    assert_eq!(claim.map_anywhere(&full, &w.toy()), Err(AsError::NoGap { len: 2 * P }));
    drop(claim);
    w.check();
    assert_eq!(w.shape().first(), Some(&(0x40000, 0x41000)));
}

#[test]
fn two_threads_that_claim_never_choose_the_same_place() {
    let w = World::new();
    std::thread::scope(|s| {
        for n in 0..2 {
            let (space, counters, args) = (&w.space, &w.counters, w.toy());
            s.spawn(move || {
                let cx = cx_on(counters, n);
                for _ in 0..200 {
                    let claim = space.claim_range(&cx).expect("not held");
                    claim.map_anywhere(&AddrRequest::new(P), &args).expect("no overlap");
                }
            });
        }
    });
    assert_eq!(w.space.segs(&w.cx).len(), 400);
    w.check();
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "lock order")]
fn the_range_claim_is_not_taken_under_the_lock() {
    let w = World::new();
    let _segs = w.space.segs(&w.cx);
    let _ = w.space.claim_range(&w.cx);
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "lock order")]
fn mapping_with_the_lock_held_breaks_the_order() {
    let w = World::new();
    let _segs = w.space.segs(&w.cx);
    let _ = w.space.map(&w.cx, range(0x10000, P), &w.toy());
}
