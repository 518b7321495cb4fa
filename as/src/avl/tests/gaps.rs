//! Gap searches against a scan of every hole, and the cost that must not grow with their number.

use alloc::vec::Vec;

use super::*;

fn gap(tree: &Avl, query: &GapQuery) -> Option<(u64, u64)> {
    tree.find_gap(query, &mut Visits::default()).map(|gap| (gap.start, gap.end))
}

/// The same answer by looking at every hole, in both passes.
fn scan(tree: &Avl, query: &GapQuery) -> Option<Gap> {
    let (low, high) = tree.limits();
    let mut holes = Vec::new();
    let (mut floor, mut below) = (low, None);
    for above in tree.iter().map(Some).chain([None]) {
        let end = above.map_or(high, |id| tree.start(id));
        let (start, end) = (floor.max(query.window.0), end.min(query.window.1));
        if start < end {
            holes.push(Gap { start, end, above, below });
        }
        (floor, below) = (above.map_or(high, |id| tree.end(id)), above);
    }
    if query.order == Order::Highest {
        holes.reverse();
    }
    let wide = |size: u64| {
        let need = u128::from(size) + 2 * u128::from(query.redzone);
        move |gap: &&Gap| u128::from(gap.end - gap.start) >= need
    };
    let fits = |gap: &&Gap| {
        (gap.start..gap.end).any(|place| {
            place % query.align.max(1) == 0
                && u128::from(place) >= u128::from(gap.start) + u128::from(query.redzone)
                && u128::from(place) + u128::from(query.len) + u128::from(query.redzone)
                    <= u128::from(gap.end)
        })
    };
    if query.len == 0 {
        return None;
    }
    if let Some(addr) = query.containing {
        return holes.iter().filter(fits).find(|gap| gap.start <= addr && addr < gap.end).copied();
    }
    let generous = query.len.saturating_add(if query.align > 1 { query.align } else { 0 });
    let first = holes.iter().find(wide(generous));
    first.or_else(|| holes.iter().find(fits)).copied()
}

#[test]
fn as_gap_of_the_reference_window() {
    // A 1 MB window with 64 KB taken in its middle (illumos behaviour 10).
    let (base, size) = (0x100_0000, 0x10_0000);
    let taken = base + 0x7_8000;
    let tree = tree(0, 1 << 40, &[(taken, taken + 0x1_0000)]);
    let window = (base, base + size);
    let lower = Some((base, taken));
    let upper = Some((taken + 0x1_0000, base + size));
    let ask = |len, order, containing| {
        gap(&tree, &GapQuery { containing, ..GapQuery::new(window, len, order) })
    };
    assert_eq!(ask(0x1_0000, Order::Highest, None), upper);
    assert_eq!(ask(0x1_0000, Order::Lowest, None), lower);
    for order in [Order::Lowest, Order::Highest] {
        assert_eq!(ask(0x1_0000, order, Some(taken + 0x8000)), None);
        assert_eq!(ask(0x1_0000, order, Some(taken - 1)), lower);
        assert_eq!(ask(0x1_0000, order, Some(taken + 0x1_0000)), upper);
        assert_eq!(ask(0x7_8001, order, None), None);
    }
    let found = tree.find_gap(&GapQuery::new(window, 1, Order::Highest), &mut Visits::default());
    assert_eq!(found.map(|gap| (gap.above, gap.below)), Some((None, tree.first())));
    let found = tree.find_gap(&GapQuery::new(window, 1, Order::Lowest), &mut Visits::default());
    assert_eq!(found.map(|gap| (gap.above, gap.below)), Some((tree.first(), None)));
}

#[test]
fn the_window_of_an_empty_tree_is_its_hole() {
    let tree = Avl::new(K4, 100 * K4);
    for order in [Order::Lowest, Order::Highest] {
        let ask = |window, len| gap(&tree, &GapQuery::new(window, len, order));
        assert_eq!(ask((2 * K4, 5 * K4), 3 * K4), Some((2 * K4, 5 * K4)));
        assert_eq!(ask((2 * K4, 5 * K4), 3 * K4 + 1), None);
        assert_eq!(ask((0, u64::MAX), 1), Some((K4, 100 * K4)));
        assert_eq!(ask((0, K4), 1), None); // below the limits
        assert_eq!(ask((100 * K4, u64::MAX), 1), None); // above them
        assert_eq!(ask((5 * K4, 5 * K4), 1), None); // no window
        assert_eq!(ask((6 * K4, 5 * K4), 1), None); // upside down
        assert_eq!(ask((0, u64::MAX), 0), None); // nothing wanted
    }
}

#[test]
fn sizes_beyond_the_number_line_find_nothing() {
    let mut tree = Avl::new(0, u64::MAX);
    tree.insert(5 * K4, 6 * K4).expect("fits");
    let all = (0, u64::MAX);
    for order in [Order::Lowest, Order::Highest] {
        for containing in [None, Some(0), Some(7 * K4), Some(u64::MAX - 1), Some(u64::MAX)] {
            let plain = GapQuery { containing, ..GapQuery::new(all, u64::MAX, order) };
            assert_eq!(gap(&tree, &plain), None);
            assert_eq!(gap(&tree, &GapQuery { redzone: u64::MAX, len: 1, ..plain }), None);
            assert_eq!(gap(&tree, &GapQuery { redzone: 1 << 63, len: 1, ..plain }), None);
            assert_eq!(gap(&tree, &GapQuery { redzone: u64::MAX, ..plain }), None);
            // A multiple of the alignment that is not 0 is not below the end.
            let lofty = GapQuery { align: 1 << 63, len: (1 << 63) + 1, ..plain };
            assert_eq!(gap(&tree, &lofty), None);
        }
        // The alignment finds no place but 0, and 1 << 63; the generous pass would overflow.
        let half = GapQuery { align: 1 << 63, ..GapQuery::new(all, (1 << 63) - 1, order) };
        assert_eq!(gap(&tree, &half), Some((6 * K4, u64::MAX)));
        assert_eq!(half.lowest_in(6 * K4, u64::MAX), Some(1 << 63));
        assert_eq!(half.highest_in(6 * K4, u64::MAX), Some(1 << 63));
        // Larger than any hole: 0 is its only multiple within reach; the first hole starts there.
        let huge = GapQuery { align: 1 << 62, ..GapQuery::new((0, 8 * K4), 2 * K4, order) };
        assert_eq!(gap(&tree, &huge), Some((0, 5 * K4)));
        assert_eq!(gap(&tree, &GapQuery { window: (1, 8 * K4), ..huge }), None);
        assert_eq!(gap(&tree, &GapQuery { redzone: K4, ..huge }), None);
    }
}

#[test]
fn the_place_keeps_alignment_and_redzones() {
    let query = GapQuery { align: 0x4000, redzone: K4, ..GapQuery::new((0, 0), K4, Order::Lowest) };
    assert_eq!(query.lowest_in(0x3000, 0x6000), Some(0x4000));
    assert_eq!(query.highest_in(0x3000, 0x6000), Some(0x4000));
    assert_eq!(query.lowest_in(0x3001, 0x6000), None);
    assert_eq!(query.highest_in(0x3000, 0x5fff), None);
    assert_eq!(query.lowest_in(0x3000, 0x10_0000), Some(0x4000));
    assert_eq!(query.highest_in(0x3000, 0x10_0000), Some(0xf_c000));
    let gap = Gap { start: 0x3000, end: 0x10_0000, above: None, below: None };
    assert_eq!(query.place_in(&gap), Some(0x4000));
    assert_eq!(GapQuery { order: Order::Highest, ..query }.place_in(&gap), Some(0xf_c000));
}

#[test]
fn an_exact_fit_is_found_when_there_is_no_generous_one() {
    // Holes [0x2000, 0x6000) and [0x7000, 0xb000): 0x4000 large, only one begins aligned for it.
    let tree = tree(0x1000, 0xc000, &[(0x1000, 0x2000), (0x6000, 0x7000), (0xb000, 0xc000)]);
    let query = GapQuery { align: 0x2000, ..GapQuery::new((0, 0xc000), 0x4000, Order::Highest) };
    assert_eq!(gap(&tree, &query), Some((0x2000, 0x6000)));
    // With a generous hole further away, that one is preferred, as as_gap does.
    let query = GapQuery { order: Order::Lowest, window: (0, u64::MAX), ..query };
    let mut tree = tree;
    tree.high = 0x2_0000;
    assert_eq!(gap(&tree, &query), Some((0xc000, 0x2_0000)));
}

#[test]
fn every_kind_of_query_agrees_with_a_scan() {
    let mut rng = Rng(42);
    let (mut found, mut missed) = (0, 0);
    for round in 0..400 {
        let low = rng.below(100);
        let high = low + 1 + rng.below(if round % 2 == 0 { 3000 } else { 200 });
        let mut tree = Avl::new(low, high);
        for _ in 0..rng.below(60) {
            let start = rng.below(high + 10);
            let _refused_if_in_the_way = tree.insert(start, start + 1 + rng.below(30));
        }
        for _ in 0..200 {
            let from = rng.below(high + 40);
            let (whole, most) = (rng.below(3) == 0, [20, 400][rng.below(2) as usize]);
            let query = GapQuery {
                window: if whole { (0, u64::MAX) } else { (from, from + rng.below(high)) },
                len: rng.below(most),
                align: [0, 1, 1, 2, 8, 64, 256, 12][rng.below(8) as usize],
                redzone: [0, 0, 0, 1, 7, 40][rng.below(6) as usize],
                order: [Order::Lowest, Order::Highest][rng.below(2) as usize],
                containing: (rng.below(4) == 0).then(|| rng.below(high + 20)),
            };
            let expected = scan(&tree, &query);
            let got = tree.find_gap(&query, &mut Visits::default());
            assert_eq!(got, expected, "{query:?}\n{tree}");
            match got {
                Some(gap) => {
                    let place = query.place_in(&gap).expect("a hole that was found has room");
                    assert_eq!(place % query.align.max(1), 0);
                    assert!(place - query.redzone >= gap.start);
                    assert!(place + query.len + query.redzone <= gap.end);
                    found += 1;
                }
                None => missed += 1,
            }
        }
    }
    assert!(found > 10_000 && missed > 10_000, "{found} found, {missed} missed");
}

#[test]
fn a_hole_among_a_hundred_thousand_costs_a_few_walks() {
    const N: u64 = 100_000;
    let mut tree = comb(N);
    tree.high -= K4; // no tail
    tree.verify().expect("sound");
    let wide_at = 60_001;
    tree.remove(tree.find(2 * wide_at * K4, &mut Visits::default()).expect("held"));
    let wide = Some(((2 * wide_at - 1) * K4, (2 * wide_at + 2) * K4));
    let walk = u64::from(tree.height());
    for order in [Order::Lowest, Order::Highest] {
        let cost = |query: &GapQuery, answer: Option<(u64, u64)>| {
            let mut visits = Visits::default();
            let got = tree.find_gap(query, &mut visits).map(|gap| (gap.start, gap.end));
            assert_eq!(got, answer, "{query:?}");
            visits.0
        };
        let query = GapQuery::new((0, u64::MAX), 2 * K4, order);
        assert!(cost(&query, wide) <= 2 * walk);
        assert!(cost(&GapQuery { len: K4, align: K4, ..query }, wide) <= 2 * walk);
        assert!(cost(&GapQuery { len: K4, redzone: K4, ..query }, wide) <= 2 * walk);
        assert!(cost(&GapQuery { containing: Some(2 * wide_at * K4), ..query }, wide) <= walk);
        // A look at the root is enough to see that there is none.
        assert_eq!(cost(&GapQuery { len: 4 * K4, ..query }, None), 1);
        // Windows that end just before the wide hole, on either side, and one cut too short by it.
        let before = (0, (2 * wide_at - 1) * K4);
        let after = ((2 * wide_at + 2) * K4, u64::MAX);
        let within = ((2 * wide_at) * K4, (2 * wide_at + 1) * K4);
        for window in [before, after, within] {
            assert!(cost(&GapQuery { window, ..query }, None) <= 4 * walk);
        }
        // The only hole in the window is cut short; thousands outside on either side would do.
        let cut_low = ((N + 1) * K4 + 1, (N + 3) * K4);
        let cut_high = (N * K4, (N + 2) * K4 - 1);
        for window in [cut_low, cut_high] {
            assert!(cost(&GapQuery { window, len: K4, ..query }, None) <= 4 * walk);
        }
    }
}
