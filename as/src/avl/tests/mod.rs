//! Tests of the segment index: single cases here, random histories and gap searches beside.

mod gaps;
mod random;

use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;

/// The page size of these tests.
const K4: u64 = 0x1000;

/// A generator whose every sequence follows from its seed (SplitMix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn tree(low: u64, high: u64, intervals: &[(u64, u64)]) -> Avl {
    let mut tree = Avl::new(low, high);
    for &(start, end) in intervals {
        tree.insert(start, end).expect("fits");
        tree.verify().expect("sound after an insert");
    }
    tree
}

fn intervals(tree: &Avl) -> Vec<(u64, u64)> {
    tree.iter().map(|id| (tree.start(id), tree.end(id))).collect()
}

fn find(tree: &Avl, addr: u64) -> Option<u64> {
    tree.find(addr, &mut Visits::default()).map(|id| tree.start(id))
}

fn find_or_next(tree: &Avl, addr: u64) -> Option<u64> {
    tree.find_or_next(addr, &mut Visits::default()).map(|id| tree.start(id))
}

/// Page-sized intervals with page-sized gaps, at 2i pages.
fn comb(teeth: u64) -> Avl {
    let mut tree = Avl::new(0, teeth * 2 * K4);
    for i in 0..teeth {
        tree.insert(2 * i * K4, (2 * i + 1) * K4).expect("fits");
    }
    tree
}

#[test]
fn an_empty_tree_answers_every_question() {
    let tree = Avl::new(K4, 9 * K4);
    let mut visits = Visits::default();
    assert_eq!((tree.len(), tree.is_empty(), tree.height()), (0, true, 0));
    assert_eq!((tree.first(), tree.last()), (None, None));
    assert_eq!((find(&tree, 2 * K4), find_or_next(&tree, 0)), (None, None));
    assert_eq!(tree.iter().count() + tree.iter_from(0).count(), 0);
    assert!(tree.shape().is_empty());
    assert_eq!(tree.verify(), Ok(()));
    assert_eq!(tree.find_or_next(u64::MAX, &mut visits), None);
    assert_eq!(visits, Visits(0));
}

#[test]
fn find_tells_inside_from_outside_at_both_ends() {
    let tree = tree(0, u64::MAX, &[(0x1000, 0x2000), (0x2000, 0x3000), (0x8000, 0x9000)]);
    let probes = [
        (0, None, Some(0x1000)),
        (0xfff, None, Some(0x1000)),
        (0x1000, Some(0x1000), Some(0x1000)),
        (0x1fff, Some(0x1000), Some(0x1000)),
        (0x2000, Some(0x2000), Some(0x2000)),
        (0x2fff, Some(0x2000), Some(0x2000)),
        (0x3000, None, Some(0x8000)),
        (0x7fff, None, Some(0x8000)),
        (0x8fff, Some(0x8000), Some(0x8000)),
        (0x9000, None, None),
        (u64::MAX, None, None),
    ];
    for (addr, held, or_next) in probes {
        assert_eq!(find(&tree, addr), held, "find {addr:#x}");
        assert_eq!(find_or_next(&tree, addr), or_next, "find_or_next {addr:#x}");
    }
}

#[test]
fn inserts_in_the_way_are_refused_and_change_nothing() {
    let mut tree = tree(0x1000, 0xa000, &[(0x2000, 0x4000), (0x4000, 0x5000), (0x7000, 0x8000)]);
    let [a, b, c] = [0x2000, 0x4000, 0x7000]
        .map(|addr| tree.find(addr, &mut Visits::default()).expect("there"));
    let before = intervals(&tree);
    let refusals = [
        (0x2000, 0x4000, InsertError::Overlap { with: a }),
        (0x3fff, 0x4001, InsertError::Overlap { with: a }),
        (0x1000, 0xa000, InsertError::Overlap { with: a }),
        (0x4000, 0x4001, InsertError::Overlap { with: b }),
        (0x4800, 0x6000, InsertError::Overlap { with: b }),
        (0x5000, 0x7001, InsertError::Overlap { with: c }),
        (0x7fff, 0xa000, InsertError::Overlap { with: c }),
        (0x0fff, 0x2000, InsertError::OutOfLimits),
        (0x9000, 0xa001, InsertError::OutOfLimits),
        (0x9000, u64::MAX, InsertError::OutOfLimits),
        (0x6000, 0x6000, InsertError::Empty),
        (0x6000, 0x5000, InsertError::Empty),
        (u64::MAX, 0, InsertError::Empty),
    ];
    for (start, end, why) in refusals {
        assert_eq!(tree.insert(start, end), Err(why), "[{start:#x}, {end:#x})");
        assert_eq!(intervals(&tree), before);
        assert_eq!(tree.verify(), Ok(()));
    }
    // Every hole can be filled to the brim.
    for (start, end) in [(0x1000, 0x2000), (0x5000, 0x7000), (0x8000, 0xa000)] {
        assert!(tree.insert(start, end).is_ok());
        assert_eq!(tree.verify(), Ok(()));
    }
    assert!(tree.iter().all(|id| tree.gap_before(id) == 0));
}

#[test]
fn limits_at_the_end_of_the_number_line() {
    let mut tree = Avl::new(0, u64::MAX);
    let whole = tree.insert(0, u64::MAX).expect("fits");
    assert_eq!(find(&tree, u64::MAX - 1), Some(0));
    assert_eq!(find(&tree, u64::MAX), None);
    assert_eq!(tree.set_end(whole, 1), Ok(()));
    tree.insert(u64::MAX - 1, u64::MAX).expect("fits");
    assert_eq!(tree.verify(), Ok(()));
    assert_eq!(tree.remove(whole), Some((0, 1)));
    assert_eq!(tree.verify(), Ok(()));

    let mut upside_down = Avl::new(5, 4);
    assert_eq!(upside_down.limits(), (5, 5));
    assert_eq!(upside_down.insert(4, 5), Err(InsertError::OutOfLimits));
    assert_eq!(upside_down.insert(5, 6), Err(InsertError::OutOfLimits));
}

#[test]
fn ends_move_as_far_as_the_neighbours() {
    let mut tree = tree(0x1000, 0xa000, &[(0x2000, 0x3000), (0x5000, 0x6000), (0x8000, 0x9000)]);
    let ids: Vec<NodeId> = tree.iter().collect();
    let [a, b, c] = ids[..] else { panic!("three") };
    assert_eq!(tree.set_start(b, 0x2fff), Err(ResizeError::Overlap { with: a }));
    assert_eq!(tree.set_start(b, 0), Err(ResizeError::OutOfLimits));
    assert_eq!(tree.set_start(a, 0xfff), Err(ResizeError::OutOfLimits));
    assert_eq!(tree.set_start(b, 0x6000), Err(ResizeError::Empty));
    assert_eq!(tree.set_start(b, u64::MAX), Err(ResizeError::Empty));
    assert_eq!(tree.set_end(b, 0x8001), Err(ResizeError::Overlap { with: c }));
    assert_eq!(tree.set_end(b, 0xb000), Err(ResizeError::OutOfLimits));
    assert_eq!(tree.set_end(c, 0xa001), Err(ResizeError::OutOfLimits));
    assert_eq!(tree.set_end(b, 0x5000), Err(ResizeError::Empty));
    assert_eq!(tree.set_end(b, 0), Err(ResizeError::Empty));
    assert_eq!(tree.verify(), Ok(()));
    assert_eq!(intervals(&tree), [(0x2000, 0x3000), (0x5000, 0x6000), (0x8000, 0x9000)]);

    type SetEnd = fn(&mut Avl, NodeId, u64) -> Result<(), ResizeError>;
    let moves: [(SetEnd, NodeId, u64); 6] = [
        (Avl::set_start, b, 0x3000),
        (Avl::set_end, b, 0x8000),
        (Avl::set_start, a, 0x1000),
        (Avl::set_end, c, 0xa000),
        (Avl::set_end, b, 0x5000),
        (Avl::set_start, c, 0x9fff),
    ];
    for (set, id, to) in moves {
        assert_eq!(set(&mut tree, id, to), Ok(()));
        assert_eq!(tree.verify(), Ok(()));
    }
    assert_eq!(intervals(&tree), [(0x1000, 0x3000), (0x3000, 0x5000), (0x9fff, 0xa000)]);
    tree.remove(b);
    assert_eq!(tree.set_start(b, 0x4000), Err(ResizeError::NotInTree));
    assert_eq!(tree.set_end(b, 0x4000), Err(ResizeError::NotInTree));
}

#[test]
fn ids_stay_and_the_last_one_freed_comes_back_first() {
    let mut tree = tree(0, 1 << 20, &[(0, 1), (10, 11), (20, 21), (30, 31), (40, 41)]);
    let ids: Vec<NodeId> = tree.iter().collect();
    assert_eq!(ids.iter().map(|id| id.index()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(tree.remove(ids[1]), Some((10, 11)));
    assert_eq!(tree.remove(ids[3]), Some((30, 31)));
    assert_eq!(tree.remove(ids[3]), None);
    assert_eq!(tree.remove(NodeId::from_raw(99)), None);
    for id in [ids[0], ids[2], ids[4]] {
        assert_eq!(tree.start(id), 10 * id.index() as u64);
    }
    assert!(tree.covers(ids[2], 20) && !tree.covers(ids[2], 21));
    assert!(!tree.covers(ids[3], 30) && !tree.covers(ids[3], 0));
    assert!(!tree.covers(NodeId::from_raw(u32::MAX), 30));
    assert_eq!(tree.insert(50, 51), Ok(ids[3]));
    assert_eq!(tree.insert(60, 61), Ok(ids[1]));
    assert_eq!(tree.insert(70, 71).map(NodeId::index), Ok(5));
    assert_eq!(tree.verify(), Ok(()));
}

#[test]
fn a_loop_may_remove_the_node_it_stands_on() {
    let mut tree = comb(100);
    let mut at = tree.find_or_next(50 * K4, &mut Visits::default());
    while let Some(id) = at.filter(|&id| tree.start(id) < 150 * K4) {
        at = tree.next(id);
        tree.remove(id).expect("there");
        tree.verify().expect("sound after each removal");
    }
    assert_eq!(tree.len(), 50);
    assert_eq!(at, tree.find(150 * K4, &mut Visits::default()));
    let mut backwards = Vec::new();
    let mut at = tree.last();
    while let Some(id) = at {
        backwards.push(id);
        at = tree.prev(id);
    }
    backwards.reverse();
    assert!((&tree).into_iter().eq(backwards));
    assert_eq!(tree.iter_from(151 * K4).count(), 24);
}

#[test]
fn reserved_inserts_do_not_allocate() {
    let mut tree = comb(10);
    tree.remove(tree.first().expect("ten"));
    assert_eq!(tree.reserve(usize::MAX), Err(AllocError { wanted: usize::MAX }));
    assert_eq!(tree.reserve(1000), Ok(()));
    let heap = tree.heap_bytes();
    tree.high = u64::MAX;
    for i in 0..1000 {
        tree.insert((100 + i) * K4, (101 + i) * K4).expect("fits");
    }
    assert_eq!(tree.heap_bytes(), heap);
    assert_eq!(tree.verify(), Ok(()));
}

#[test]
fn sorted_inserts_keep_the_height_bound() {
    for downwards in [false, true] {
        let mut tree = Avl::new(0, u64::MAX);
        for i in 0..4096_u64 {
            let at = if downwards { 5000 - i } else { i } * K4;
            tree.insert(at, at + K4).expect("fits");
            let bound = 1.4405 * ((tree.len() + 2) as f64).log2();
            assert!(f64::from(tree.height()) < bound, "{} for {}", tree.height(), tree.len());
        }
        assert_eq!(tree.verify(), Ok(()));
    }
    assert_eq!(comb(1).height(), 1);
    assert_eq!(comb(7).height(), 3);
}

#[test]
fn find_at_a_hundred_thousand_visits_few_nodes() {
    const N: u64 = 100_000;
    let mut order: Vec<u64> = (0..N).collect();
    let mut rng = Rng(7);
    for i in (1..N).rev() {
        order.swap(i as usize, rng.below(i + 1) as usize);
    }
    let mut tree = Avl::new(0, u64::MAX);
    for &i in &order {
        tree.insert(2 * i * K4, (2 * i + 1) * K4).expect("fits");
    }
    assert_eq!(tree.verify(), Ok(()));
    let bound = 1.45 * (N as f64).log2() + 2.0;
    let mut sum = 0;
    for i in 0..N {
        let mut visits = Visits::default();
        assert_eq!(find(&tree, 2 * i * K4 + 5), Some(2 * i * K4));
        assert!(tree.find((2 * i + 1) * K4, &mut visits).is_none());
        assert!((visits.0 as f64) <= bound, "{} visits", visits.0);
        sum += visits.0;
    }
    // On average a walk is about log2(n) long.
    assert!((sum as f64) / (N as f64) < (N as f64).log2() + 1.0);
}

#[test]
fn each_planted_damage_is_named() {
    for teeth in 1..40 {
        for invariant in Invariant::ALL {
            let mut tree = comb(teeth);
            if teeth > 3 {
                tree.remove(NodeId::from_raw(2)); // a free slot
            }
            assert_eq!(tree.verify(), Ok(()));
            let planted = tree.damage_for_test(invariant);
            assert_eq!(planted, teeth >= 3 || invariant != Invariant::Balance);
            if planted {
                let damage = tree.verify().expect_err("damaged");
                assert_eq!(damage.invariant, invariant, "{teeth} teeth: {damage}");
                // Looking at it must end.
                assert!(tree.shape().len() <= teeth as usize);
                assert!(!tree.to_string().is_empty());
            }
        }
    }
    assert!(Invariant::ALL.iter().all(|&invariant| !Avl::new(0, 9).damage_for_test(invariant)));
    let mut tree = comb(3);
    tree.damage_for_test(Invariant::Gap);
    let damage = tree.verify().expect_err("damaged");
    assert_eq!(
        damage.to_string(),
        "A6: gap is the distance from the predecessor, violated at #0: expected 0x0, found 0x1"
    );
}

#[test]
fn the_shape_is_the_tree() {
    let tree = comb(6);
    let shape = tree.shape();
    let depths: Vec<u32> = shape.iter().map(|node| node.depth).collect();
    assert_eq!(depths, [2, 1, 2, 0, 1, 2]);
    let root = shape[3];
    assert_eq!((root.height, root.balance, root.gap_before, root.max_gap), (3, 0, K4, K4));
    assert_eq!((shape[4].height, shape[4].balance), (2, 1));
    assert!(shape.iter().map(|node| node.id).eq(tree.iter()));
}

#[test]
fn the_picture_shows_links_addresses_and_holes() {
    let mut tree = comb(14);
    tree.remove(NodeId::from_raw(2));
    tree.set_end(NodeId::from_raw(13), 0x1b800).expect("fits");
    let expected = "\
13 intervals in 0-1c000, height 4, largest gap 12K
tree       start    end  size  height  bal  gap  max gap
    ┌─#0       0   1000    4K       1    0    0        0
  ┌─#1      2000   3000    4K       2   -1   4K       4K
┌─#3        6000   7000    4K       3    0  12K      12K
│ │ ┌─#4    8000   9000    4K       1    0   4K       4K
│ └─#5      a000   b000    4K       2    0   4K       4K
│   └─#6    c000   d000    4K       1    0   4K       4K
#7          e000   f000    4K       4    0   4K      12K
│   ┌─#8   10000  11000    4K       1    0   4K       4K
│ ┌─#9     12000  13000    4K       2    0   4K       4K
│ │ └─#10  14000  15000    4K       1    0   4K       4K
└─#11      16000  17000    4K       3    0   4K       4K
  └─#12    18000  19000    4K       2   +1   4K       4K
    └─#13  1a000  1b800    6K       1    0   4K       4K
tail       1b800  1c000                      2K
";
    let picture = tree.to_string();
    assert_eq!(picture, expected, "\n{picture}");
}
