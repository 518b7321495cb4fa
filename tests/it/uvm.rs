//! UVM's behaviours of anonymous memory, under the eager fork policy: each with its fault cases, its copies, its translations.
//!
//! The lines of a story read: what is done; what every process has then (anon, references, rights); what it cost. Where loads are not
//! about neighbours the range is advised `random`, which turns fault-ahead off.
//!
//! Sources: uvm.md 9, whose numbers the tests carry in their first lines; [UVM §4, §5].

use crate::{Scene, run_ok};

/// Private anonymous memory of two pages in process 0, no fault-ahead.
const TWO: &str = "map 0 0 2 rw priv fixed anon; advise 0 0 2 random";
/// Both pages stored to: `A` in the first, `B` in the second; then a fork.
const TOUCHED: &str = "write 0 0 0+1 65; write 0 1 0+1 66";

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Two touched pages, forked into process 1.
fn forked() -> Scene {
    let mut s = scene(TWO);
    s.run(TOUCHED);
    s.story(
        2,
        "
        fork 0 1 | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-] |
    ",
    );
    s
}

#[test]
fn the_first_load_makes_a_zero_page_that_a_store_may_use() {
    // 1
    let mut s = scene(TWO);
    s.story(
        2,
        "
        read 0 0 0+1; expect ok b=00 | 0[a:1/rw- .] | f1 2B1 zf1
        write 0 0 0+1 65             | 0[a:1/rw- .] |
    ",
    );
    s.end();
}

#[test]
fn the_first_store_fills_one_slot_of_one_chunk() {
    // 2
    let mut s = scene("map 0 0 100 rw priv fixed anon");
    assert!(s.machine().anon().maps().is_empty(), "no anon map before the first touch");
    s.story(
        2,
        "
        write 0 1 0+1 65 | 0[. a:1/rw-] | f1 2B1 zf1
    ",
    );
    let maps = s.machine().anon().maps();
    assert_eq!((maps.len(), maps[0].chunks(s.machine().cx()).len()), (1, 1));
    let frame = s.frame(0, 1).expect("mapped");
    let page = s.machine().db().page(s.page(frame));
    assert!(page.ref_mod().contains(page_db::RefMod::MOD), "a zero-filled page owes a write");
    drop(maps);
    s.end();
}

#[test]
fn fork_shares_what_was_touched_and_takes_the_right_to_write() {
    // 3
    let s = forked();
    assert_eq!(s.machine().anon().maps().len(), 2, "eager: the child has a map of its own");
    s.end();
}

#[test]
fn the_child_stores_into_a_copy() {
    // 4
    let mut s = forked();
    let parents = s.frame(0, 1);
    s.story(
        2,
        "
        write 1 1 0+1 67             | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] | f1 1B1 cp1
        read 0 1 0+1; expect ok b=42 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] |
        read 1 1 0+1; expect ok b=43 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] |
    ",
    );
    assert_eq!(s.frame(0, 1), parents, "the parent's page stayed where it was");
    assert_ne!(s.frame(1, 1), parents);
    s.end();
}

#[test]
fn the_last_owner_stores_in_place() {
    // 5
    let mut s = forked();
    let parents = s.frame(0, 1);
    s.story(
        2,
        "
        write 1 1 0+1 67 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] | f1 1B1 cp1
        write 0 1 0+1 68 | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-] | f1 1A1
    ",
    );
    assert_eq!(s.frame(0, 1), parents, "no copy for the only owner");
    s.end();
}

#[test]
fn whoever_stores_first_copies_and_the_other_does_not() {
    // 6
    let mut s = forked();
    s.story(
        2,
        "
        write 0 0 0+1 68 | 0[c:1/rw- b:2/r--] 1[a:1/- b:2/-]   | f1 1B1 cp1
        write 1 0 0+1 69 | 0[c:1/rw- b:2/r--] 1[a:1/rw- b:2/-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn a_child_that_exits_unwritten_leaves_nothing_to_copy() {
    // 7
    let mut s = forked();
    s.story(
        2,
        "
        exit 1                             | 0[a:1/r-- b:1/r--] |
        write 0 0 0+1 67; write 0 1 0+1 68 | 0[a:1/rw- b:1/rw-] | f2 1A2
    ",
    );
    s.end();
}

#[test]
fn of_three_owners_two_copy() {
    // 8
    let mut s = scene(TWO);
    s.story(
        1,
        "
        write 0 0 0+1 65   | 0[a:1/rw-]                       | f1 2B1 zf1
        fork 0 1; fork 0 2 | 0[a:3/r--] 1[a:3/-] 2[a:3/-]     |
        write 1 0 0+1 66   | 0[a:2/r--] 1[b:1/rw-] 2[a:2/-]   | f1 1B1 cp1
        write 0 0 0+1 67   | 0[c:1/rw-] 1[b:1/rw-] 2[a:1/-]   | f1 1B1 cp1
        write 2 0 0+1 68   | 0[c:1/rw-] 1[b:1/rw-] 2[a:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn untouched_memory_is_not_shared_by_fork() {
    // 9
    let mut s = scene(TWO);
    s.story(
        1,
        "
        fork 0 1                     | 0[.] 1[.]             |
        write 0 0 0+1 65             | 0[a:1/rw-] 1[.]       | f1 2B1 zf1
        read 1 0 0+1; expect ok b=00 | 0[a:1/rw-] 1[b:1/rw-] | f1 2B1 zf1
    ",
    );
    assert_ne!(s.frame(0, 0), s.frame(1, 0));
    s.end();
}

#[test]
fn a_page_first_touched_after_fork_is_the_touchers_alone() {
    // 10
    let mut s = scene(TWO);
    s.story(
        2,
        "
        write 0 0 0+1 65             | 0[a:1/rw- .]                        | f1 2B1 zf1
        fork 0 1                     | 0[a:2/r-- .] 1[a:2/- .]             |
        write 1 1 0+1 66             | 0[a:2/r-- .] 1[a:2/- b:1/rw-]       | f1 2B1 zf1
        read 0 1 0+1; expect ok b=00 | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/rw-] | f1 2B1 zf1
    ",
    );
    s.end();
}

#[test]
fn a_reader_keeps_the_old_page_when_the_other_copies() {
    // 11
    let mut s = scene(TWO);
    s.story(
        1,
        "
        write 0 0 0+1 65; fork 0 1   | 0[a:2/r--] 1[a:2/-]   | f1 2B1 zf1
        read 1 0 0+1; expect ok b=41 | 0[a:2/r--] 1[a:2/r--] | f1 1A1
        write 0 0 0+1 66             | 0[b:1/rw-] 1[a:1/r--] | f1 1B1 cp1
        read 1 0 0+1; expect ok b=41 | 0[b:1/rw-] 1[a:1/r--] |
    ",
    );
    s.end();
}

#[test]
fn shared_memory_stays_shared_and_writable_over_fork() {
    // 12
    let mut s = scene("map 0 0 2 rw shared fixed anon; advise 0 0 2 random");
    s.story(
        1,
        "
        write 0 0 0+1 65             | 0[a:1/rw-]            | f1 2B1 zf1
        fork 0 1                     | 0[a:1/rw-] 1[a:1/-]   |
        write 1 0 0+1 66             | 0[a:1/rw-] 1[a:1/rw-] | f1 1A1
        read 0 0 0+1; expect ok b=42 | 0[a:1/rw-] 1[a:1/rw-] |
    ",
    );
    let maps = s.machine().anon().maps();
    assert_eq!((maps.len(), maps[0].refs()), (1, 2), "one anon map, used by two segments");
    drop(maps);
    s.end();
}

#[test]
fn shared_memory_touched_after_fork_is_one_page() {
    // 13
    let mut s = scene("map 0 0 2 rw shared fixed anon; advise 0 0 2 random");
    s.story(
        1,
        "
        fork 0 1                     | 0[.] 1[.]             |
        write 0 0 0+1 65             | 0[a:1/rw-] 1[a:1/-]   | f1 2B1 zf1
        read 1 0 0+1; expect ok b=41 | 0[a:1/rw-] 1[a:1/rw-] | f1 1A1
    ",
    );
    assert_eq!(s.frame(0, 0), s.frame(1, 0));
    s.end();
}

/// A file of two pages, `a` and `b` repeated; process 0 has it private, process 1 shared. No fault-ahead.
const FILE: &str = "
    fork 0 1
    file 0 2x
    map 0 0 2 rw priv fixed file 0 0; advise 0 0 2 random
    map 1 0 2 rw shared fixed file 0 0; advise 1 0 2 random
";

fn file_scene() -> Scene {
    scene(&FILE.replace("2x", "8192; pwrite 0 0 1 97; pwrite 0 4096 1 98"))
}

#[test]
fn a_private_load_maps_the_files_own_page() {
    // 15
    let mut s = file_scene();
    s.story(
        1,
        "
        read 0 0 0+1; expect ok b=61 | 0[file/r--] 1[.]        | f1 2A1
        write 1 0 0+1 120            | 0[file/r--] 1[file/rw-] | f1 2A1
        read 0 0 0+1; expect ok b=78 | 0[file/r--] 1[file/rw-] |
    ",
    );
    assert_eq!(s.frame(0, 0), s.frame(1, 0));
    assert!(s.machine().anon().maps().is_empty(), "no anon map for loads");
    s.end();
}

#[test]
fn a_private_store_copies_the_files_page_and_hides_later_changes() {
    // 16
    let mut s = file_scene();
    s.story(2, "
        read 0 0 0+1; read 0 1 0+1                    | 0[file/r-- file/r--] 1[. .]              | f2 2A2
        write 0 0 0+1 120                             | 0[a:1/rw- file/r--] 1[. .]               | f1 2B1 cp1
        pread 0 0 1; expect ok n=1 h=af63dc4c8601ec8c | 0[a:1/rw- file/r--] 1[. .]               |
        write 1 0 0+1 121; write 1 1 0+1 122          | 0[a:1/rw- file/r--] 1[file/rw- file/rw-] | f2 2A2
        read 0 0 0+1; expect ok b=78                  | 0[a:1/rw- file/r--] 1[file/rw- file/rw-] |
        read 0 1 0+1; expect ok b=7a                  | 0[a:1/rw- file/r--] 1[file/rw- file/rw-] |
    ");
    assert_ne!(s.frame(0, 0), s.frame(1, 0));
    assert_eq!(s.frame(0, 1), s.frame(1, 1));
    s.end();
}

#[test]
fn a_private_store_to_an_absent_page_reads_it_once_and_leaves_it_cached() {
    // 17
    let mut s = scene("file 0 8192; map 0 0 2 rw priv fixed file 0 0");
    s.story(
        1,
        "
        write 0 0 0+1 120; expect counter pgin +1 | 0[a:1/rw-] | f1 2B1 cp1 maj1
    ",
    );
    let cached = s.file_frame(0, 0).expect("the file's page stays");
    assert_eq!(s.mappers(cached), vec![], "not mapped here");
    s.story(
        1,
        "
        pread 0 0 1; expect ok n=1; expect counter pgin +0 | 0[a:1/rw-] |
    ",
    );
    s.end();
}

#[test]
fn fork_shares_copies_and_the_file_below_them() {
    // 18
    let mut s = scene("file 0 8192; map 0 0 2 rw priv fixed file 0 0; advise 0 0 2 random");
    s.story(
        2,
        "
        write 0 0 0+1 120; read 0 1 0+1 | 0[a:1/rw- file/r--]                  | f2 2A1 2B1 cp1 maj2
        fork 0 1                        | 0[a:2/r-- file/r--] 1[a:2/- .]       |
        write 1 1 0+1 121               | 0[a:2/r-- file/r--] 1[a:2/- b:1/rw-] | f1 2B1 cp1
        read 0 1 0+1; expect ok b=00    | 0[a:2/r-- file/r--] 1[a:2/- b:1/rw-] |
    ",
    );
    s.end();
}

#[test]
fn a_shared_store_dirties_the_files_page_which_is_written_once() {
    // 19
    let mut s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0");
    s.story(
        1,
        "
        write 0 0 0+1 120                                     | 0[file/rw-] | f1 2A1 maj1
        sync 0 0 1 sync; expect ok; expect counter pgpgout +1 | 0[file/rw-] |
        sync 0 0 1 sync; expect ok; expect counter pgpgout +0 | 0[file/rw-] |
    ",
    );
    s.end();
}

#[test]
fn raising_rights_waits_for_the_store_to_decide() {
    // 20. The translation goes (illumos), so the next access faults; it is never raised to writable.
    let mut s = scene(TWO);
    s.story(
        1,
        "
        write 0 0 0+1 65; fork 0 1                          | 0[a:2/r--] 1[a:2/-]   | f1 2B1 zf1
        protect 0 0 2 r                                     | 0[a:2/r--] 1[a:2/-]   |
        write 0 0 0+1 66; expect SEGV at=0 code=accerr      | 0[a:2/r--] 1[a:2/-]   | f1
        protect 0 0 2 rw                                    | 0[a:2/-] 1[a:2/-]     |
        read 0 0 0+1; expect ok b=41                        | 0[a:2/r--] 1[a:2/-]   | f1 1A1
        write 0 0 0+1 66                                    | 0[b:1/rw-] 1[a:1/-]   | f1 1B1 cp1
        protect 1 0 2 r; protect 1 0 2 rw; write 1 0 0+1 67 | 0[b:1/rw-] 1[a:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn unmapping_the_middle_frees_its_page_at_once() {
    // 22
    let mut s =
        scene("map 0 0 3 rw priv fixed anon; write 0 0 1 65; write 0 1 1 66; write 0 2 1 67");
    let (db, swap) =
        (std::sync::Arc::clone(s.machine().db()), std::sync::Arc::clone(s.machine().swap()));
    let (free, reserved, live) = (db.freemem(), swap.info().reserved(), swap.live());
    s.run("unmap 0 1 1");
    assert_eq!(db.freemem(), free + 1);
    assert_eq!(swap.info().reserved(), reserved - 1);
    assert_eq!(swap.live(), live - 1);
    s.run(
        "
        read 0 0 0+1; expect ok b=41
        read 0 1 0+1; expect SEGV at=0 code=maperr
        read 0 2 0+1; expect ok b=43
    ",
    );
    s.end();
}

#[test]
fn the_last_sharer_to_unmap_a_page_frees_it() {
    // 23
    let mut s = scene("map 0 0 4 rw shared fixed anon; write 0 0 4 65; fork 0 1");
    let swap = std::sync::Arc::clone(s.machine().swap());
    s.run("unmap 0 2 2");
    assert_eq!(swap.live(), 4, "the other sharer still reaches them");
    s.run("unmap 1 2 2");
    assert_eq!(swap.live(), 2, "nobody reaches pages 2 and 3 any more");
    let maps = s.machine().anon().maps();
    assert_eq!((maps.len(), maps[0].refs()), (1, 2), "the map itself is still shared");
    drop(maps);
    s.run("read 1 1 0+1; expect ok b=41");
    s.end();
}

#[test]
fn a_reserve_without_rights_costs_nothing() {
    // 25
    let mut s = Scene::new();
    let free = s.machine().db().freemem();
    s.run("map 0 0 1g - priv fixed anon noreserve");
    assert_eq!(s.machine().db().freemem(), free, "no frames");
    s.story(
        1,
        "
        read 0 0 0+1; expect SEGV at=0 code=accerr      | 0[.] | f1
        write 0 0 0+1 65; expect SEGV at=0 code=accerr  | 0[.] | f1
        read 0 262144 0+1; expect SEGV at=0 code=maperr | 0[.] | f1
    ",
    );
    assert!(s.machine().anon().maps().is_empty(), "no anon map");
    s.run("file 0 4096; map 0 0 2 r priv fixed file 0 0; read 0 1 0+1; expect BUS at=0");
    s.end();
}

#[test]
fn a_locked_page_is_shared_by_fork_and_the_lock_follows_the_copy() {
    // 27 as illumos has it: only pages with i/o under way are copied at fork. A locked page that is stored to takes its claim along.
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
fn free_leaves_alone_what_somebody_else_has() {
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

#[test]
fn a_pushed_page_found_again_keeps_its_place() {
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
fn a_page_read_back_gives_up_its_place_and_gets_a_new_one() {
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
fn sixteen_pages_of_four_processes_go_out_in_one_transfer() {
    // 31
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
fn a_load_maps_resident_neighbours_along() {
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
fn rights_above_the_ceiling_are_refused_where_they_are_met() {
    // 21 as illumos has it: what lies before the segment that refuses has changed.
    let mut s = scene(
        "
        file 0 4096 ro
        map 0 0 1 r priv fixed anon; map 0 1 1 r shared fixed file 0 0; map 0 2 1 r priv fixed anon
        protect 0 0 3 rw; expect EACCES
        write 0 0 0+1 1; expect ok
        write 0 1 0+1 1; expect SEGV at=0 code=accerr
        write 0 2 0+1 1; expect SEGV at=0 code=accerr
    ",
    );
    s.run("read 0 1 0+1; expect ok b=00");
    s.end();
}

#[test]
fn a_store_to_a_shared_anon_on_swap_reads_it_and_copies_it() {
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
fn with_reservation_it_is_the_mapping_or_the_fork_that_fails() {
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
