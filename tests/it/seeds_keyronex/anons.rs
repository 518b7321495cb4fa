//! `vm_anon_t` and `vm_amap_t`.

use super::scene;
use crate::harness::addr;
use crate::{Scene, check};

// ---- vm_anon_t ----

#[test]
fn an_anon_has_its_page_in_memory_or_a_place_to_read_it_from() {
    let mut s = Scene::on("machine memory=256 swap=mem:1024");
    s.run("map 0 0 512 rw priv fixed anon; write 0 0 512 1");
    let all: Vec<_> = (0..512).map(|p| s.anon(0, p).expect("stored to")).collect();
    assert!(all.iter().all(|a| a.frame.is_some() || a.on_swap), "I3: never neither");
    let out = all.iter().filter(|a| a.frame.is_none()).count();
    assert!(out > 0 && out < 512, "{out} of 512 are swapped out");
    // Whatever its state, the contents are the same: bytes 1, 2, 3, ... over the whole range.
    for page in [0, 1, 255, 511] {
        s.run(&format!("read 0 {page} 0+4; expect ok b=01020304"));
    }
    s.end();
}

#[test]
fn contents_come_back_by_the_identifier_kept_while_swapped_out() {
    check(
        "keyronex/swapped_anon",
        "swapped out: no page, a place on swap; read again: the same anon and name, resident, no place",
        "
        machine memory=256 swap=mem:1024
        map 0 0 1 rw priv fixed anon; write 0 0 1 65
        map 0 8 400 rw priv fixed anon noreserve; advise 0 8 400 random
        write 0 8 400 1
        ::anon 0 0
        read 0 0 0+2
        expect ok b=4142
        expect counter anonpgin +1
        ::anon 0 0
    ",
    );
}

#[test]
fn an_anons_references_are_the_slots_that_hold_it() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; advise 0 0 1 random");
    s.story(
        1,
        "
        write 0 0 1 65               | 0[a:1/rw-]                   | f1 2B1 zf1
        fork 0 1                     | 0[a:2/r--] 1[a:2/-]          |
        fork 1 2                     | 0[a:3/r--] 1[a:3/-] 2[a:3/-] |
        unmap 1 0 1                  | 0[a:2/r--] 1[.] 2[a:2/-]     |
        exit 0                       | 1[.] 2[a:1/-]                |
        read 2 0 0+1; expect ok b=41 | 1[.] 2[a:1/rw-]              | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn two_processors_that_store_to_one_shared_anon_both_get_their_own_bytes() {
    // What the anon's lock is for: the count says two or one, never something between.
    for round in 0..50 {
        let mut s = Scene::on("machine memory=256 cpus=2");
        s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1");
        let at = addr(0).get();
        std::thread::scope(|scope| {
            let threads = [0u8, 1].map(|p| {
                let thread = s.process(p.into()).another_thread(page_db::CpuId(p.into()));
                scope.spawn(move || thread.store(at + u64::from(p), &[200 + p]))
            });
            for t in threads {
                t.join().expect("no panic").expect("both may store");
            }
        });
        s.run("read 0 0 0+2; expect ok b=c842; read 1 0 0+2; expect ok b=41c9; verify");
        let copies = s.count("cow_fault");
        assert!((1..=2).contains(&copies), "round {round}: {copies} copies");
        assert_eq!(s.anon(0, 0).map(|a| a.refs), Some(1));
        assert_eq!(s.anon(1, 0).map(|a| a.refs), Some(1));
        assert_eq!(s.machine().swap().live(), 2, "the third is freed exactly once");
        s.end();
    }
}

#[test]
fn used_memory_is_described_by_anons_and_unused_memory_by_nothing() {
    let mut s = scene("map 0 0 16t rw priv fixed anon noreserve");
    assert_eq!(s.machine().swap().live(), 0);
    s.run("write 0 0 3 1; write 0 1000000000 2 1");
    assert_eq!(s.machine().swap().live(), 5, "as many anons as pages used");
    s.end();
}

// ---- vm_amap_t ----

#[test]
fn the_anon_map_is_a_sparse_array_of_chunks_of_32() {
    check(
        "keyronex/amap_chunks",
        "pages 0, 31, 32 and 3200 fill three chunks of 32 slots; the rest of 1 TiB has none",
        "
        machine memory=256
        map 0 0 1t rw priv fixed anon noreserve
        write 0 0 0+1 1; write 0 31 0+1 2; write 0 32 0+1 3; write 0 3200 0+1 4
        ::anon 0
        unmap 0 32 1
        ::anon 0
    ",
    );
}

#[test]
fn a_chunk_is_made_with_its_first_slot_and_freed_with_its_last() {
    let mut s = scene("map 0 0 128 rw priv fixed anon");
    let chunks = |s: &Scene| {
        let maps = s.machine().anon().maps();
        maps.iter().map(|m| m.chunks(s.machine().cx())).collect::<Vec<_>>()
    };
    s.run("write 0 5 1 1");
    let first = chunks(&s)[0][0].0;
    let used = |s: &Scene| -> Vec<_> {
        chunks(s)[0].iter().map(|(at, used)| ((at - first) / 32, used.count_ones())).collect()
    };
    assert_eq!(used(&s), vec![(0, 1)]);
    s.run("write 0 64 32 1");
    assert_eq!(used(&s), vec![(0, 1), (2, 32)]);
    s.run("advise 0 0 1 normal; unmap 0 64 64");
    assert_eq!(used(&s), vec![(0, 1)]);
    s.end();
}
