//! Locks, advice, page-out and swap, fault-ahead.

use super::{forked, scene};
use crate::{Scene, available, reserved, run_ok};

#[test]
fn u27_locked_pages_are_copied_at_fork_and_the_parent_never_faults_on_them() {
    // 27 by UVM's policy, whatever fork does with anon maps: copies 3, the parent stores without a fault, the child's frames are its own and unlocked.
    for lazy in ["eager", "lazy"] {
        let mut s = Scene::on(&format!("machine memory=512 fork={lazy} locked=copy"));
        s.run("map 0 0 4 rw priv fixed anon; advise 0 0 4 random; write 0 0 4 65; lock 0 1 3; expect ok");
        let before: Vec<_> = (0..4).map(|page| s.frame(0, page)).collect();
        s.run("fork 0 1; expect ok; expect counter bytes_copied +12288");
        assert_eq!(
            s.state(4),
            "0[a:2/r-- b:1/rw- c:1/rw- d:1/rw-] 1[a:2/- e:1/- f:1/- g:1/-]",
            "{lazy}: the page that is not locked is shared"
        );
        s.run("write 0 1 3 97; expect ok; expect counter as_fault +0");
        assert_eq!((0..4).map(|page| s.frame(0, page)).collect::<Vec<_>>(), before, "{lazy}");
        s.run(
            "read 1 1 0+1; expect ok b=41; write 1 1 3 33; expect ok; expect counter cow_fault +0",
        );
        s.run("read 0 1 0+1; expect ok b=61; read 1 0 0+1; expect ok b=41");
        for page in 1..4 {
            let claims = |proc| {
                let frame = s.frame(proc, page).expect("mapped");
                s.machine().db().page(s.page(frame)).cowcnt()
            };
            assert_eq!((claims(0), claims(1)), (1, 0), "{lazy}: locks are the parent's alone");
        }
        s.end();
    }
}

#[test]
fn without_memory_for_the_copies_there_is_no_child() {
    let mut s = Scene::on("machine memory=128 swap=mem:512 locked=copy");
    s.run("map 0 0 48 rw priv fixed anon; write 0 0 48 65; lock 0 0 48; expect ok; map 0 100 20 rw priv fixed anon; write 0 100 20 1; lock 0 100 20");
    // Page tables are taken when memory is short, so translations may have gone; anons and claims have not.
    let state = |s: &Scene| (available(s), reserved(s), [0, 47, 100].map(|page| s.anon(0, page)));
    let before = state(&s);
    s.run("fork 0 1; expect ENOMEM");
    assert_eq!(state(&s), before);
    assert_eq!(s.machine().processes().len(), 1);
    s.run("unlock 0 0 48; fork 0 1; expect ok; read 1 47 0+1; expect ok b=41");
    s.end();
}

#[test]
fn by_default_a_locked_page_is_shared_by_fork_and_the_lock_follows_the_copy() {
    // As illumos has it: only pages with i/o under way are copied at fork. A locked page that is stored to takes its claim along.
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 2 65; lock 0 0 2; expect ok");
    let cow = |s: &Scene, proc| s.frame(proc, 0).map(|f| s.machine().db().page(s.page(f)).cowcnt());
    assert_eq!(cow(&s, 0), Some(1));
    s.story(
        2,
        "
        fork 0 1         | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-]   |
        write 0 0 0+1 66 | 0[c:1/rw- b:2/r--] 1[a:1/- b:2/-]   | f1 1B1 cp1
        write 1 0 0+1 67 | 0[c:1/rw- b:2/r--] 1[a:1/rw- b:2/-] | f1 1A1
    ",
    );
    assert_eq!((cow(&s, 0), cow(&s, 1)), (Some(1), Some(0)), "locks are the parent's alone");
    s.end();
}

#[test]
fn u28_free_leaves_alone_what_somebody_else_has() {
    // 28 as illumos has it: only an unshared page is given away.
    let mut s = forked();
    s.story(
        1,
        "
        advise 0 0 1 free; expect ok; expect counter MADV_FREE_hit +0 | 0[a:2/r--] 1[a:2/-] |
        read 0 0 0+1; expect ok b=41                                  | 0[a:2/r--] 1[a:2/-] |
        exit 1                                                        | 0[a:1/r--]          |
        advise 0 0 1 free; expect counter MADV_FREE_hit +1            | 0[a:1/-]            |
    ",
    );
    s.end();
}

/// 28 as UVM has it: the caller's slot is emptied, whoever else has the page keeps it.
#[test]
fn what_is_dropped_is_gone_on_this_side_alone() {
    let mut s = forked();
    s.story(
        1,
        "
        advise 0 0 1 drop; expect ok | 0[.] 1[a:1/-]         |
        read 0 0 0+1; expect ok b=00 | 0[c:1/rw-] 1[a:1/-]   | f1 2B1 zf1
        read 1 0 0+1; expect ok b=41 | 0[c:1/rw-] 1[a:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn u29_a_pushed_page_found_again_keeps_its_place() {
    // 29: the page waits on the cache list, so using it again reads nothing, and evicting it again writes nothing.
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    s.run("pageout *; expect counter anonpgout +1");
    let out = s.anon(0, 0).expect("the anon lives");
    assert!(out.on_swap);
    assert_eq!(s.rights(0, 0), "-");
    s.run("read 0 0 0+1; expect ok b=41; expect counter pgin +0; expect counter pgrec +1");
    assert!(s.anon(0, 0).expect("there").on_swap, "clean, and its place kept");
    s.run("pageout *; expect counter anonpgout +0");
    assert_eq!(s.anon(0, 0).map(|a| a.on_swap), Some(true));
    s.end();
}

#[test]
fn u30_a_page_read_back_gives_up_its_place_and_gets_a_new_one() {
    // 30: its frame was taken, so it is read; from then on the only copy is in memory.
    let mut s = Scene::on("machine memory=256 swap=mem:256");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65; pageout *; squeeze 150");
    assert_eq!(s.machine().swap().swapinfo().0[0].free, 255);
    s.run("map 0 16 200 rw priv fixed anon");
    for page in 16.. {
        if s.anon(0, 0).expect("lives").frame.is_none() {
            break;
        }
        s.run(&format!("write 0 {page} 0+1 66"));
    }
    let before = s.anon(0, 0).expect("lives");
    assert!(before.on_swap);
    s.run("unmap 0 16 200");
    assert_eq!(s.machine().swap().swapinfo().0[0].free, 255);
    s.run("release");
    s.story(
        1,
        "
        read 0 0 0+1; expect ok b=41; expect counter anonpgin +1 | 0[a:1/rw-] | f1 1A1 maj1
    ",
    );
    let after = s.anon(0, 0).expect("lives");
    assert_eq!(
        (after.number, after.on_swap),
        (before.number, false),
        "the same anon, its place given back"
    );
    s.run("write 0 0 0+1 66; pageout *; expect counter anonpgout +1");
    assert_eq!(s.machine().swap().swapinfo().0[0].free, 255, "as many places in use as before");
    s.run("read 0 0 0+1; expect ok b=42");
    s.end();
}

#[test]
fn u31_sixteen_pages_of_four_processes_go_out_in_one_transfer() {
    let mut s = scene("fork 0 1; fork 0 2; fork 0 3");
    for p in 0..4 {
        s.run(&format!("map {p} 0 4 rw priv fixed anon; write {p} 0 4 {}", 65 + p));
    }
    s.run("pageout *; expect counter pgout +1; expect counter pgpgout +16; expect counter anonpgout +16");
    for p in 0..4 {
        s.run(&format!("read {p} 3 0+1; expect ok b={:02x}", 65 + p));
    }
    s.end();
}

#[test]
fn u39_a_load_maps_resident_neighbours_along() {
    // 39: three back, four forward, read-only because the anons are shared.
    let touched = "map 0 0 16 rw priv fixed anon; write 0 0 16 65; fork 0 1";
    let mut s = scene(touched);
    s.run("read 1 8 0+1; expect counter as_fault +1; expect counter fault_ahead +7");
    let mapped = |s: &Scene| (0..16).filter(|p| s.rights(1, *p) != "-").collect::<Vec<_>>();
    assert_eq!(mapped(&s), (5..=12).collect::<Vec<_>>());
    assert!((5..=12).all(|p| s.rights(1, p) == "r--"));
    s.run("read 1 5 8; expect counter as_fault +0");
    s.end();

    let mut s = scene(touched);
    s.run("advise 1 0 16 random; read 1 8 0+1; expect counter fault_ahead +0");
    assert_eq!(mapped(&s), vec![8]);
    s.end();

    let mut s = scene(touched);
    s.run("advise 1 0 16 sequential; read 1 8 0+1; expect counter fault_ahead +15");
    assert_eq!(mapped(&s), (0..16).collect::<Vec<_>>());
    s.end();
}

#[test]
fn a_reader_of_a_resident_file_faults_once_in_sixteen_pages() {
    // The aligned window of 16, forwards, backwards and from the middle; the first address is a multiple of 16 pages.
    for kind in ["shared", "priv"] {
        let mut s = Scene::on("machine memory=512");
        s.run(&format!(
            "file 0 262144; map 0 0 64 r {kind} fixed file 0 0; advise 0 0 64 willneed"
        ));
        s.run("read 0 0 64; expect counter as_fault +4; expect counter fault_ahead +60");
        s.end();

        let mut s = Scene::on("machine memory=512");
        s.run(&format!(
            "file 0 262144; map 0 0 64 r {kind} fixed file 0 0; advise 0 0 64 willneed"
        ));
        s.run("read 0 31 0+1; expect counter fault_ahead +15");
        s.run("read 0 16 16; expect counter as_fault +0");
        s.run("read 0 32 0+1; expect counter as_fault +1");
        s.run("advise 0 0 16 random; read 0 7 0+1; expect counter fault_ahead +0");
        s.end();
    }
}

#[test]
fn more_may_be_asked_for_than_there_is_memory_for() {
    let mut s = Scene::on("machine memory=64 swap=mem:2048");
    s.run("file 0 8388608 rw; map 0 0 60 r priv fixed file 0 0; advise 0 0 60 willneed; expect ok");
    s.run("unmap 0 0 60; map 0 0 100 rw priv fixed anon; write 0 0 100 65; pageout *");
    let read = |s: &Scene| s.machine().counters().get(page_db::Counter::AnonPgIn);
    let before = read(&s);
    s.run("advise 0 0 100 willneed; expect ok");
    let once = read(&s) - before;
    assert!(once < 200, "each page is read once, or a few twice: {once}");
    s.end();

    // Copies over a file, each of them and each page of the file once.
    let mut s = Scene::on("machine memory=64 swap=mem:2048");
    s.run("file 0 409600 rw; map 0 0 100 rw priv fixed file 0 0; write 0 20 60 65; pageout *");
    let before = read(&s);
    s.run("advise 0 0 100 willneed; expect ok; read 0 20 0+1; expect ok b=41");
    let once = read(&s) - before;
    assert!(once < 120, "{once}");
    s.end();
}

#[test]
fn a_window_over_a_file_takes_copies_and_rights_as_they_are() {
    // Page 3 has a copy of its own, page 5 may not be read, the file ends within page 8.
    let mut s = Scene::on("machine memory=512");
    s.run("file 0 36000; map 0 0 16 rw priv fixed file 0 0; advise 0 0 8 willneed; read 0 8 0+1");
    s.run("write 0 3 0+1 77; fork 0 1; protect 1 5 1 -");
    s.run("read 1 0 0+1; expect counter as_fault +1; expect counter fault_ahead +7");
    let mapped = (0..16).filter(|p| s.rights(1, *p) != "-").collect::<Vec<_>>();
    assert_eq!(mapped, [0, 1, 2, 3, 4, 6, 7, 8]);
    assert!(mapped.iter().all(|p| s.rights(1, *p) == "r--"));
    s.run("read 1 3 0+1; expect ok b=4d; expect counter as_fault +0");
    s.end();
}

#[test]
fn populated_memory_takes_no_fault() {
    let mut s = Scene::on("machine memory=512");
    s.run("map 0 0 70 rw priv fixed anon; write 0 40 0+1 9");
    s.run("advise 0 0 70 populate_write; expect ok; expect counter zfod +69; expect counter as_fault +0");
    s.run("write 0 0 70 65; expect counter as_fault +0; expect counter zfod +0");
    // A side of a fork gets pages of its own, for loads it keeps what it shares.
    s.run("fork 0 1; advise 1 0 8 populate_read; expect counter cow_fault +0");
    s.run("advise 1 0 8 populate_write; expect counter cow_fault +8; write 1 0 8 70; expect counter as_fault +0");
    s.run("read 0 0 0+1; expect ok b=41");
    s.end();

    let mut s = Scene::on("machine memory=512");
    s.run("file 0 262144; map 0 0 64 r shared fixed file 0 0; advise 0 0 64 populate_read");
    s.run("read 0 0 64; expect counter as_fault +0; expect counter pgpgin +0");
    s.run("unmap 0 0 64; map 0 0 64 rw priv fixed file 0 0");
    s.run("advise 0 0 16 populate_write; expect counter cow_fault +16");
    s.run("write 0 0 16 1; expect counter as_fault +0");
    s.end();
}

#[test]
fn populating_stops_where_it_must_and_keeps_what_it_did() {
    run_ok(
        "
        machine memory=512
        map 0 0 8 rw priv fixed anon; map 0 9 8 rw priv fixed anon
        advise 0 0 17 populate_write
        expect ENOMEM
        expect counter zfod +8
        advise 0 9+1 1 populate_write
        expect EINVAL
        protect 0 12 1 r
        advise 0 9 8 populate_write
        expect EINVAL
        expect counter zfod +3
        advise 0 9 8 populate_read
        expect ok
        expect counter zfod +5
        file 0 10000
        map 0 32 8 rw shared fixed file 0 0
        advise 0 32 8 populate_write
        expect EFAULT
        expect counter pgpgin +3
    ",
    );
}

#[test]
fn more_than_memory_is_populated_to_its_end() {
    let mut s = Scene::on("machine memory=128 swap=mem:512");
    s.run("map 0 0 300 rw priv fixed anon; advise 0 0 300 populate_write; expect ok; expect counter zfod +300");
    s.run("write 0 0 300 65");
    s.run("read 0 17 0+1; expect ok b=41");
    s.end();
}

#[test]
fn fault_ahead_neither_reads_nor_makes_anything() {
    // 39
    run_ok(
        "
        machine memory=512
        file 0 65536
        map 0 0 16 r priv fixed file 0 0
        read 0 8 0+1
        expect counter as_fault +1
        expect counter pgpgin +1
        expect counter fault_ahead +0
        map 0 16 16 rw priv fixed anon
        write 0 24 0+1 65; fork 0 1; read 1 24 0+1
        expect counter frame_allocs +>=0
        expect counter zfod +0
        expect counter fault_ahead +0
    ",
    );
}

#[test]
fn u32_a_store_to_a_shared_anon_on_swap_reads_it_and_copies_it() {
    // 32: what was read is the other's from then on, and has no place on swap until it is written again.
    let mut s = Scene::on("machine memory=256 swap=mem:512");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1; pageout *");
    s.run("map 0 16 300 rw priv fixed anon noreserve");
    for page in 16.. {
        if s.anon(0, 0).expect("lives").frame.is_none() {
            break;
        }
        s.run(&format!("write 0 {page} 0+1 66"));
    }
    s.run("unmap 0 16 300");
    let old = s.anon(0, 0).expect("lives");
    assert_eq!((old.refs, old.frame, old.on_swap), (2, None, true));
    s.story(
        1,
        "write 1 0 0+1 99; expect counter anonpgin +1 | 0[a:1/-] 1[b:1/rw-] | f1 1B1 cp1 maj1",
    );
    let (old, new) = (s.anon(0, 0).expect("lives"), s.anon(1, 0).expect("lives"));
    assert!(old.frame.is_some(), "the page that was read stays");
    assert_eq!((old.on_swap, new.on_swap), (false, false));
    s.run("read 0 0 0+2; expect ok b=4142; read 1 0 0+2; expect ok b=6342");
    s.end();
}

#[test]
fn u34_with_reservation_it_is_the_mapping_or_the_fork_that_fails() {
    // 34: nobody dies later for what was promised.
    let mut s = Scene::on("machine memory=128 swap=mem:64");
    let mut pages = 0;
    while s.run(&format!("map 0 {pages} 8 rw priv fixed anon")).contains("-> ok") {
        pages += 8;
    }
    assert!((64..64 + 128).contains(&pages), "{pages}");
    s.run("fork 0 1; expect ENOMEM");
    s.run(&format!("write 0 0 {pages} 1; expect ok"));
    s.run(&format!("read 0 {} 0+2; expect ok b=0102", pages - 1));
    s.end();
}

#[test]
fn a_shared_slots_old_page_goes_when_its_owner_is_replaced() {
    // 32, the half without swap: the source keeps its page, the copy has its own.
    let mut s = forked();
    s.run("write 1 0 0+1 70");
    let old = s.frame(0, 0).expect("mapped");
    assert_eq!(s.mappers(old), vec![(0, 0)]);
    s.run("write 0 0 0+1 71; exit 0");
    assert_eq!(s.mappers(old), vec![]);
    s.end();
}
