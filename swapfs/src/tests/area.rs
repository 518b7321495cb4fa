//! The bitmap against a row of flags.

use super::World;
use crate::area::Slots;
use alloc::vec;
use alloc::vec::Vec;

fn runs(taken: &[bool], want: usize) -> bool {
    taken.windows(want).any(|w| w.iter().all(|t| !t))
}

#[test]
fn a_run_is_found_whenever_there_is_one() {
    let mut rng = 1u64;
    let mut next = |n: u64| {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (rng >> 33) % n
    };
    for len in [1u32, 7, 64, 65, 130, 200] {
        let mut slots = Slots::new(len).expect("heap");
        let mut taken = vec![false; len as usize];
        for _ in 0..3000 {
            if next(2) == 0 {
                let want = 1 + next(u64::from(len.min(20))) as u32;
                let exact = next(2) == 0;
                let got = slots.alloc(want, exact);
                let free = taken.iter().filter(|t| !**t).count();
                let whole = want as usize <= taken.len() && runs(&taken, want as usize);
                match got {
                    Some((first, count)) => {
                        assert!(count == want || (!exact && count < want && count > 0));
                        for i in first..first + count {
                            assert!(!core::mem::replace(&mut taken[i as usize], true));
                        }
                    }
                    None if exact => assert!(!whole, "a run of {want} was there: {taken:?}"),
                    None => assert_eq!(free, 0),
                }
            } else {
                let used: Vec<u32> = (0..len).filter(|i| taken[*i as usize]).collect();
                if !used.is_empty() {
                    let i = used[next(used.len() as u64) as usize];
                    slots.free(i);
                    taken[i as usize] = false;
                }
            }
            let used = taken.iter().filter(|t| **t).count() as u32;
            assert_eq!(
                (slots.taken(), slots.free_count(), slots.owned()),
                (used, len - used, used)
            );
        }
    }
}

#[test]
fn the_search_goes_on_where_it_ended() {
    let mut s = Slots::new(10).expect("heap");
    assert_eq!(s.alloc(4, true), Some((0, 4)));
    s.free(0);
    assert_eq!(s.alloc(4, true), Some((4, 4)));
    assert_eq!(s.alloc(4, true), None);
    assert_eq!(s.alloc(4, false), Some((8, 2)));
    assert_eq!(s.alloc(4, false), Some((0, 1)));
    assert_eq!(s.alloc(1, false), None);
    s.free(5);
    s.removal = Some(1);
    assert_eq!(s.alloc(1, false), None, "an area on its way out");
    s.removal = None;
    assert_eq!(s.alloc(1, true), Some((5, 1)));
    assert_eq!(s.alloc(0, false), None);
}

#[test]
fn a_whole_run_on_another_area_beats_a_piece_here() {
    let w = World::new(32);
    let (_, a) = w.add("a", 8, 0);
    let (_, b) = w.add("b", 8, 0);
    let take = |n| w.fs.space().alloc(&w.cx, n, false).map(|r| (r.area.id(), r.first, r.count));
    assert_eq!(take(6), Some((a, 0, 6)));
    assert_eq!(take(4), Some((b, 0, 4)));
    assert_eq!(take(4), Some((b, 4, 4)));
    assert_eq!(take(4), Some((a, 6, 2)));
    assert_eq!(take(1), None);
}
