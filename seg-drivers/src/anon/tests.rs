//! Anon maps alone: no segment, no translations.

use super::Lost;
use super::array::CHUNK;
use super::{AnonHome, AnonLayer, AnonMap, Homes};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::sync::atomic::Ordering;
use page_db::{
    Counters, CpuId, Cx, FailKind, FailPlan, HostMem, ManualClock, PageDb, PageDbConfig, Pfn, Rank,
    Reserve, SpinHooks, ThreadId,
};
use swapfs::{AnonNumber, SwapConfig, SwapFs};

struct World {
    cx: Cx,
    layer: Arc<AnonLayer>,
    homes: Homes,
}

fn world() -> World {
    let counters = Counters::new(2);
    let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
    let mem = Arc::new(HostMem::new(Pfn(16), 64).expect("heap"));
    let clock = Arc::new(ManualClock::default());
    let config = PageDbConfig { cpus: 2, ..PageDbConfig::default() };
    let db = Arc::new(PageDb::new(&cx, mem, clock, counters, &config).expect("small"));
    let swap = SwapFs::new(&cx, &db, SwapConfig::default()).expect("small");
    let layer = AnonLayer::new(&swap);
    World { homes: Homes::new(&layer), layer, cx }
}

/// Puts a fresh anon, with a page when `page`, into a slot.
fn fill(w: &World, map: &AnonMap, slot: u64, page: bool) -> AnonNumber {
    let n = w.layer.swap().alloc(&w.cx).expect("numbers");
    assert!(w.layer.anons().start(n).is_some());
    if page {
        let made = w
            .layer
            .db()
            .create(&w.cx, w.layer.swap().identity(n), 0, Reserve::Normal)
            .expect("frames");
        made.end_io();
    }
    let held = map.enter_or_make(&w.cx, slot).expect("heap");
    assert_eq!(held.set(Some(n)), None);
    n
}

fn check(w: &World, map: &AnonMap) {
    map.verify(&w.cx).expect("sound");
    w.layer.db().verify(&w.cx).expect("sound pages");
    assert!(w.cx.held().is_empty(), "X2: {:?}", w.cx.held());
}

#[test]
fn a_map_grows_both_ways_and_moves_nothing() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let mid = 1 << 40;
    let places =
        [mid, mid + 1, mid + 33, mid - 1, mid + (1 << 32) - 1, mid - (1 << 30), mid + 5000];
    let mut made = Vec::new();
    for p in places {
        made.push((p, fill(&w, &map, p, false)));
        for (slot, n) in &made {
            assert_eq!(map.peek(*slot), Some(*n), "slot {slot} after touching {p}");
        }
        check(&w, &map);
    }
    made.sort_unstable();
    assert!(map.slots(&w.cx, 0..u64::MAX >> 1).eq(made));
    assert_eq!(map.chunks(&w.cx).len(), 6, "slots 0 and 1 share a chunk");
    assert_eq!(map.count(&w.cx, mid..mid + 100), 3);
    map.lose(&w.cx, 0..u64::MAX >> 1, 0..u64::MAX >> 1);
    assert_eq!((w.layer.chunks.live(), w.layer.blocks.live(), w.layer.swap().live()), (0, 0, 0));
}

#[test]
fn slots_may_be_far_apart_but_not_all_of_the_numbers() {
    let w = world();
    for (first, far, too_far) in [(0, (1 << 61) - 1, 1 << 63), (1 << 40, 0, 1 << 62)] {
        let map = AnonMap::new(w.home(), 0);
        let n = fill(&w, &map, first, false);
        let blocks = w.layer.blocks.live();
        assert!(map.enter_or_make(&w.cx, too_far).is_err(), "{too_far:#x} beside {first:#x}");
        assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), (1, blocks));
        fill(&w, &map, far, false);
        assert!(map.enter_or_make(&w.cx, too_far).is_err());
        assert_eq!(map.peek(first), Some(n));
        check(&w, &map);
        [first, far].iter().for_each(|slot| map.free_range(&w.cx, *slot..slot + 1));
        assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), (0, 0));
    }
}

#[test]
fn untouched_slots_cost_nothing() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    assert_eq!(w.layer.chunks.live(), 0);
    let before = w.cx_slots();
    assert_eq!(map.slots(&w.cx, 0..1 << 32).next(), None);
    assert!(map.enter(&w.cx, 7).is_none());
    assert_eq!(w.cx_slots(), before, "no slot was visited");
    fill(&w, &map, 0, false);
    fill(&w, &map, (1 << 32) - 1, false);
    assert_eq!(w.layer.chunks.live(), 2);
    assert!(w.layer.blocks.live() <= 14, "two paths of seven blocks: {}", w.layer.blocks.live());
    map.free_range(&w.cx, 0..1 << 32);
    assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), (0, 0));
}

impl World {
    fn home(&self) -> &Arc<AnonHome> {
        self.homes.mine(&self.cx)
    }
    fn cx_slots(&self) -> u64 {
        self.layer.db().counters().get(page_db::Counter::AnonSlots)
    }
}

#[test]
fn dup_shares_the_anons_and_counts_them() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let a0 = fill(&w, &map, 0, true);
    let a1 = fill(&w, &map, 40, true);
    let copy = map.dup(&w.cx, w.home(), 0..64, None).expect("heap");
    assert_eq!((w.layer.anons().refs(a0), w.layer.anons().refs(a1)), (2, 2));
    assert!(copy.slots(&w.cx, 0..64).eq([(0, a0), (40, a1)]));
    // Only part of the slots, and only those wanted.
    let part = map.dup(&w.cx, w.home(), 0..64, Some(&|s| s != 0)).expect("heap");
    assert!(part.slots(&w.cx, 0..64).eq([(40, a1)]));
    assert_eq!(w.layer.anons().refs(a1), 3);
    check(&w, &map);
    for m in [&map, &copy, &part] {
        m.lose(&w.cx, 0..64, 0..64);
    }
    assert_eq!(w.layer.swap().live(), 0);
    assert_eq!(
        w.layer.db().verify(&w.cx).expect("sound").named,
        0,
        "the pages went with the last reference"
    );
}

/// Slots of a map that others use may be busy for long: whoever waits for them to copy it keeps nobody from the map's shape.
#[test]
fn who_copies_a_map_waits_for_a_slot_with_the_shape_free() {
    use core::sync::atomic::{AtomicBool, Ordering};
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let held: Vec<_> = [0, 40, 5000].map(|i| (i, fill(&w, &map, i, true))).into();
    map.gain(&w.cx, 0..8192, 0..8192).expect("heap");
    let busy = map.enter(&w.cx, 40).expect("filled");
    let under_way = AtomicBool::new(false);
    let (layer, home, shared) = (&w.layer, w.home(), &map);
    std::thread::scope(|threads| {
        let copy = threads.spawn(|| {
            let keep = |_| {
                under_way.store(true, Ordering::SeqCst);
                true
            };
            let counters = layer.db().counters();
            let cx = Cx::new(counters, CpuId(1), ThreadId(1), Arc::new(SpinHooks));
            shared.dup(&cx, home, 0..8192, Some(&keep)).expect("heap")
        });
        let free = || under_way.load(Ordering::SeqCst) && map.grow.try_lock(&w.cx).is_some();
        let mut seen = false;
        for _ in 0..5000 {
            seen = free();
            if seen {
                break;
            }
            std::thread::sleep(core::time::Duration::from_millis(1));
        }
        drop(busy);
        let copy = copy.join().expect("no panic");
        assert!(seen, "the shape is locked by who waits for a slot");
        assert!(copy.slots(&w.cx, 0..8192).eq(held));
        check(&w, &copy);
        copy.lose(&w.cx, 0..8192, 0..8192);
    });
    check(&w, &map);
    for _ in 0..2 {
        map.lose(&w.cx, 0..8192, 0..8192);
    }
    assert_eq!((w.layer.swap().live(), w.layer.chunks.live(), w.layer.blocks.live()), (0, 0, 0));
}

#[test]
fn slots_go_with_the_last_segment_that_reaches_them() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let n: Vec<_> = (0..4).map(|i| fill(&w, &map, i, true)).collect();
    // Two sharers of 4 pages; A unmaps pages 2-3, then B does.
    map.gain(&w.cx, 0..4, 0..4).expect("heap");
    assert_eq!(map.lose(&w.cx, 0..4, 2..4), Lost { refs: 2, slots: 0 });
    assert_eq!(map.slot_refs(&w.cx, 0..4), [(0..2, 2), (2..4, 1)]);
    assert_eq!(w.layer.swap().live(), 4, "B still reaches them");
    check(&w, &map);
    map.lose(&w.cx, 0..4, 2..4);
    assert_eq!(map.slot_refs(&w.cx, 0..4), [(0..2, 2), (2..4, 0)]);
    assert!(!w.layer.swap().is_live(n[2]) && !w.layer.swap().is_live(n[3]));
    assert_eq!(map.refs(), 2);
    check(&w, &map);
    map.lose(&w.cx, 0..2, 0..2);
    map.lose(&w.cx, 0..2, 0..2);
    assert_eq!(map.refs(), 0);
    assert_eq!(w.layer.swap().live(), 0);
}

#[test]
fn a_part_on_its_way_out_is_nobodys_and_is_not_taken_over() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    for i in 0..4 {
        fill(&w, &map, i, true);
    }
    assert_eq!(map.lose_part(&w.cx, 0..4, 2..4), Lost { refs: 1, slots: 2 });
    assert_eq!(w.layer.swap().live(), 4, "it is still there");
    assert!(!map.cover(&w.cx, 2..3), "M3");
    assert_eq!(map.gain_beside(&w.cx, 0..2, 2..4), Ok(None), "M3");
    map.empty_lost(&w.cx, 2..4, 2);
    assert_eq!(w.layer.swap().live(), 2);
    assert!(map.cover(&w.cx, 2..4), "one segment has whatever there is");
    check(&w, &map);
    map.lose(&w.cx, 0..4, 0..4);
    assert_eq!((w.layer.swap().live(), w.layer.chunks.live()), (0, 0));
}

#[test]
fn references_stay_as_long_as_somebody_empties_by_them_and_no_longer() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    for i in 0..4 {
        fill(&w, &map, i, true);
    }
    // B has 0-1, A all; A gives up 1-3 and ends before they are empty: slot 1 is still B's.
    map.gain(&w.cx, 0..4, 0..2).expect("heap");
    assert_eq!(map.lose_part(&w.cx, 0..4, 1..4), Lost { refs: 2, slots: 2 });
    assert_eq!(map.lose(&w.cx, 0..1, 0..1), Lost { refs: 1, slots: 0 });
    assert_eq!(map.slot_refs(&w.cx, 0..4), [(0..2, 1), (2..4, 0)]);
    assert_eq!(w.layer.swap().live(), 4);
    map.empty_lost(&w.cx, 1..4, 2);
    assert_eq!((w.layer.swap().live(), map.count(&w.cx, 0..2)), (2, 2));
    assert_eq!(map.slot_refs(&w.cx, 0..4), [(0..4, 1)], "M2");
    check(&w, &map);
    // The last segment ends while a part is on its way out: it takes nothing along, and each empties its own.
    assert_eq!(map.lose_part(&w.cx, 0..2, 0..1), Lost { refs: 1, slots: 1 });
    assert_eq!(map.lose(&w.cx, 1..2, 1..2), Lost { refs: 0, slots: 1 });
    assert_eq!(w.layer.swap().live(), 1);
    map.empty_lost(&w.cx, 0..1, 1);
    assert_eq!((w.layer.swap().live(), w.layer.chunks.live()), (0, 0));
    // The same where the part was another's too.
    let map = AnonMap::new(w.home(), 0);
    for i in 0..4 {
        fill(&w, &map, i, true);
    }
    map.gain(&w.cx, 0..4, 0..2).expect("heap");
    assert_eq!(map.lose_part(&w.cx, 0..4, 1..4), Lost { refs: 2, slots: 2 });
    for (range, left) in [(0..1, 1), (0..2, 0)] {
        assert_eq!(map.lose(&w.cx, range.clone(), range).refs, left);
    }
    map.empty_lost(&w.cx, 1..4, 2);
    assert_eq!((w.layer.swap().live(), w.layer.chunks.live()), (0, 0));
}

#[test]
fn a_split_map_knows_its_halves() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    for i in 0..3 {
        fill(&w, &map, i, true);
    }
    // The middle page of three is unmapped: two segments, slot references 1 0 1.
    map.lose(&w.cx, 0..3, 1..2);
    map.split(&w.cx, 0..1, 2..3);
    assert_eq!(map.slot_refs(&w.cx, 0..3), [(0..1, 1), (1..2, 0), (2..3, 1)]);
    assert_eq!(map.refs(), 2);
    assert_eq!(w.layer.swap().live(), 2);
    map.lose(&w.cx, 0..1, 0..1);
    assert_eq!(w.layer.swap().live(), 1, "the upper half keeps its page");
    map.lose(&w.cx, 2..3, 2..3);
    assert_eq!(w.layer.swap().live(), 0);
}

#[test]
fn planted_damage_is_named() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let n = fill(&w, &map, 5, false);
    check(&w, &map);
    w.layer.anons().damage_refs(n, -1);
    assert!(map.verify(&w.cx).expect_err("damage").starts_with("I1"));
    w.layer.anons().damage_refs(n, 1);
    map.damage_slot_refs(&w.cx, 0..32, 9);
    assert!(map.verify(&w.cx).expect_err("damage").starts_with("I6"));
    map.damage_slot_refs(&w.cx, 0..32, 1);
    check(&w, &map);
}

#[test]
fn threads_fill_and_empty_one_chunk() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let counters = Arc::clone(w.layer.db().counters());
    std::thread::scope(|s| {
        for t in 0..4u16 {
            let (map, layer, counters) = (&map, &w.layer, &counters);
            s.spawn(move || {
                let cx = Cx::new(
                    counters,
                    CpuId(t % 2),
                    ThreadId(u32::from(t) + 1),
                    Arc::new(SpinHooks),
                );
                for i in 0..2000u64 {
                    let slot = (i * 7 + u64::from(t)) % (2 * CHUNK);
                    let n = layer.swap().alloc(&cx).expect("numbers");
                    assert!(layer.anons().start(n).is_some());
                    let old = map.enter_or_make(&cx, slot).expect("heap").set(Some(n));
                    if let Some(old) = old {
                        layer.unref(&cx, old);
                    }
                    if i % 3 == 0 {
                        let gone = map.enter(&cx, slot).and_then(|g| g.set(None));
                        if let Some(gone) = gone {
                            layer.unref(&cx, gone);
                        }
                    }
                    if i % 50 == 0 {
                        map.free_range(&cx, 0..CHUNK);
                    }
                }
            });
        }
    });
    check(&w, &map);
    map.lose(&w.cx, 0..64, 0..64);
    assert_eq!((w.layer.swap().live(), w.layer.chunks.live()), (0, 0));
}

#[test]
fn an_aligned_map_of_64_slots_needs_no_block() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let first = 1 << 40;
    let n = [first + 63, first].map(|slot| (slot, fill(&w, &map, slot, false)));
    assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), (2, 0));
    check(&w, &map);
    // One slot more, on either side, and what there is hangs in a block as it did in the map.
    for beside in [first - 1, first + 64] {
        fill(&w, &map, beside, false);
        n.iter().for_each(|(slot, n)| assert_eq!(map.peek(*slot), Some(*n)));
        check(&w, &map);
        map.free_range(&w.cx, beside..beside + 1);
    }
    map.free_range(&w.cx, first..first + 64);
    assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), (0, 0));
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    for slot in [0, 3, 40, 600, 9000, 9001, 70_000] {
        fill(&w, &map, slot, false);
    }
    let before = (w.layer.chunks.live(), w.layer.blocks.live());
    let mut k = 0;
    loop {
        k += 1;
        w.layer.db().counters().fail(&FailPlan::counting().kth(FailKind::Record, k));
        let copy = map.dup(&w.cx, w.home(), 2..9001, None);
        w.layer.db().counters().fail(&FailPlan::default());
        check(&w, &map);
        if let Ok(copy) = copy {
            check(&w, &copy);
            let want: Vec<_> =
                map.slots(&w.cx, 0..70_001).filter(|(s, _)| (2..9001).contains(s)).collect();
            assert!(copy.slots(&w.cx, 0..70_001).eq(want.iter().copied()));
            want.iter().for_each(|(_, n)| assert_eq!(w.layer.anons().refs(*n), 2));
            copy.lose(&w.cx, 2..9001, 2..9001);
            break;
        }
        assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), before, "request {k}");
        map.slots(&w.cx, 0..70_001).for_each(|(_, n)| assert_eq!(w.layer.anons().refs(n), 1));
    }
    assert!(k > 8, "every block and chunk of the copy was refused once: {k}");
    assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), before);
}

#[test]
fn each_cpu_numbers_and_lists_its_maps_for_itself() {
    let w = world();
    let other = Cx::new(w.layer.db().counters(), CpuId(1), ThreadId(1), Arc::new(SpinHooks));
    let ids = |w: &World| w.layer.maps().iter().map(|m| m.id().0).collect::<Vec<_>>();
    let a: Vec<_> = (0..3).map(|_| AnonMap::new(w.home(), 0)).collect();
    let b = AnonMap::new(w.homes.mine(&other), 0);
    let c = AnonMap::new(w.home(), 0);
    assert_eq!(ids(&w), [1, 2, 3, 4, 65], "Z1");
    drop((a, b));
    assert_eq!(ids(&w), [4], "Z1");
    let d = AnonMap::new(w.home(), 0);
    assert_eq!(ids(&w), [4, 5], "a number is not used again");
    drop((c, d));
    assert_eq!(ids(&w), []);
    // Z2: the places of those that go are chained, and found again.
    let places = |maps: &[Arc<AnonMap>]| maps.iter().map(|m| m.place()).collect::<BTreeSet<_>>();
    let mut many: Vec<_> = (0..50).map(|_| AnonMap::new(w.home(), 0)).collect();
    assert_eq!(places(&many), (0..50).collect(), "those that were left come first");
    many.truncate(3);
    many.extend((0..47).map(|_| AnonMap::new(w.home(), 0)));
    assert_eq!(places(&many), (0..50).collect());
    assert_eq!(ids(&w).len(), 50, "Z1");
}

/// M4: a walker of the map that a chunk was of has an empty slot of it when the last one in use empties. The chunk is looked for again, and the last one
/// to come waits for the walker.
#[test]
fn a_chunk_that_a_stranger_has_a_slot_of_is_freed_in_the_end() {
    for at_the_end in [false, true] {
        let w = world();
        let (before, map) = (AnonMap::new(w.home(), 0), AnonMap::new(w.home(), 0));
        fill(&w, &before, 0, false);
        let stale = before.find_chunk(5).expect("there");
        before.lose(&w.cx, 0..64, 0..64);
        fill(&w, &map, 28, false);
        fill(&w, &map, 40, false);
        let id = map.find_chunk(0).expect("there");
        assert_eq!(id, stale, "the chunk freed last is the next one used");
        let chunk = map.chunk(id).expect("there");
        // As `take_bits` does before it looks whose the chunk is.
        assert!(chunk.try_busy(1 << 5));
        let counters = w.layer.db().counters();
        let stranger = Cx::new(counters, CpuId(1), ThreadId(1), Arc::new(SpinHooks));
        stranger.rank_tried(Rank::AnonSlot);
        let stranger_goes = || before.abandon_bits(&stranger, chunk, id, 1 << 5);
        let lost = map.lose_part(&w.cx, 28..64, 28..32);
        map.empty_lost(&w.cx, 28..32, lost.slots);
        assert_eq!(w.layer.chunks.live(), 2, "somebody has a slot of it");
        if !at_the_end {
            stranger_goes();
        }
        std::thread::scope(|s| {
            let (map, db) = (&map, w.layer.db());
            s.spawn(move || {
                let cx = Cx::new(db.counters(), CpuId(1), ThreadId(2), Arc::new(SpinHooks));
                map.lose(&cx, 32..64, 32..64);
            });
            if at_the_end {
                let since = std::time::Instant::now();
                while db.waits().sleepers() == 0 && since.elapsed().as_millis() < 500 {
                    std::thread::yield_now();
                }
                stranger_goes();
            }
        });
        drop((before, map));
        w.layer.verify(&w.cx).expect("M4");
        assert_eq!((w.layer.chunks.live(), w.layer.blocks.live()), (0, 0), "{at_the_end}");
    }
}

#[test]
fn numbers_do_not_end_and_no_two_live_maps_have_one() {
    let w = world();
    let other = Cx::new(w.layer.db().counters(), CpuId(1), ThreadId(1), Arc::new(SpinHooks));
    let (old, theirs) = (AnonMap::new(w.home(), 0), AnonMap::new(w.homes.mine(&other), 0));
    let n = fill(&w, &old, 0, false);
    // All but a run of those that are for maps have been given.
    w.layer.maps.last.store((1 << 30) - 64, Ordering::Relaxed);
    let few: Vec<_> = (0..64).map(|_| AnonMap::new(w.homes.mine(&other), 0)).collect();
    drop(few);
    let mut seen = Vec::new();
    for round in 0..100 {
        let maps: Vec<_> = (0..64).map(|_| AnonMap::new(w.homes.mine(&other), 0)).collect();
        let mut ids: Vec<_> = w.layer.maps().iter().map(|map| map.id().0).collect();
        ids.dedup();
        assert_eq!(ids.len(), 2 + maps.len(), "Z3: round {round}");
        seen.extend(ids);
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() < 256, "numbers are used again: {}", seen.len());
    assert!(w.layer.maps.last.load(Ordering::Relaxed) <= (1 << 30) + 64);
    // A new place takes a new number, to the last of them.
    w.layer.maps.last.store(u32::MAX - 130, Ordering::Relaxed);
    let maps: Vec<_> = (0..128).map(|_| AnonMap::new(w.home(), 0)).collect();
    assert_eq!(w.layer.maps().len(), 2 + maps.len());
    for map in maps.iter().chain([&old, &theirs]) {
        assert_eq!(map.peek(0), (map.id() == old.id()).then_some(n), "H1");
        check(&w, map);
    }
}

#[test]
fn slots_taken_together_leave_out_what_others_have() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    assert!(map.try_enter_run(&w.cx, 0..8).is_none(), "no chunk");
    assert!(map.is_absent(&w.cx, 0));
    let n = fill(&w, &map, 5, false);
    assert!(!map.is_absent(&w.cx, 0));
    {
        let other = map.enter(&w.cx, 3).expect("there");
        let run = map.try_enter_run(&w.cx, 2..7).expect("some are free");
        assert_eq!((0..8).filter(|s| run.holds(*s)).collect::<Vec<_>>(), [2, 4, 5, 6]);
        assert_eq!((run.get(5), run.get(4), run.get(3)), (Some(n), None, None));
        assert!(map.try_enter_run(&w.cx, 2..7).is_none(), "nothing is left");
        drop(other);
        assert!(map.try_enter(&w.cx, 3).is_some() && map.try_enter(&w.cx, 4).is_none());
        drop(run);
    }
    assert!(map.try_enter(&w.cx, 4).is_some());
    check(&w, &map);
    map.free_range(&w.cx, 0..32);
    assert!(map.is_absent(&w.cx, 5), "a chunk goes with its last anon");
}

#[test]
fn a_range_is_freed_in_the_order_of_its_slots_and_shared_anons_stay() {
    let w = world();
    let map = AnonMap::new(w.home(), 0);
    let range = 28..40;
    let all: Vec<_> = range.clone().map(|slot| fill(&w, &map, slot, slot % 3 != 0)).collect();
    let copy = map.dup(&w.cx, w.home(), range.clone(), Some(&|slot| slot % 2 == 0)).expect("heap");
    assert_eq!(w.layer.swap().live(), 12);
    map.free_range(&w.cx, range.clone());
    check(&w, &map);
    // The copy has every second one; the others are gone, and the number freed last is the next one used.
    assert_eq!(w.layer.swap().live(), 6);
    assert!(copy.slots(&w.cx, range.clone()).all(|(_, n)| w.layer.anons().refs(n) == 1));
    assert_eq!(w.layer.swap().alloc(&w.cx), Ok(all[11]));
    w.layer.swap().free(&w.cx, all[11]);
    copy.free_range(&w.cx, range);
    check(&w, &copy);
    assert_eq!(w.layer.swap().live(), 0);
    assert_eq!(w.layer.db().freemem(), 64);
}
