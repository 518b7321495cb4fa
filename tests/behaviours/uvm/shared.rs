//! Shared memory, files, rights, partial unmaps.

use super::{TWO, scene};
use crate::Scene;
use page_db::{FailKind, FailPlan};

#[test]
fn u12_shared_memory_stays_shared_and_writable_over_fork() {
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
fn u13_shared_memory_touched_after_fork_is_one_page() {
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
fn u14_a_copy_of_shared_memory_leaves_its_sharers_together() {
    // 14, by the corrected rule: the sharers go on sharing, and a store by one is seen by both and by nobody else.
    let mut s = scene("map 0 0 1 rw shared fixed anon");
    s.story(
        1,
        "
        write 0 0 0+1 65; fork 0 1   | 0[a:1/rw-] 1[a:1/-]   | f1 2B1 zf1
        write 1 0 0+1 66             | 0[a:1/rw-] 1[a:1/rw-] | f1 1A1
    ",
    );
    s.run("inherit 0 0 1 copy");
    s.story(
        1,
        "
        fork 0 2                     | 0[a:2/r--] 1[a:2/r--] 2[a:2/-]   |
        write 1 0 0+1 67             | 0[b:1/-] 1[b:1/rw-] 2[a:1/-]     | f1 1B1 cp1
        read 0 0 0+1; expect ok b=43 | 0[b:1/rw-] 1[b:1/rw-] 2[a:1/-]   | f1 1A1
        read 2 0 0+1; expect ok b=42 | 0[b:1/rw-] 1[b:1/rw-] 2[a:1/rw-] | f1 1A1
        write 2 0 0+1 68             | 0[b:1/rw-] 1[b:1/rw-] 2[a:1/rw-] |
        read 0 0 0+1; expect ok b=43 | 0[b:1/rw-] 1[b:1/rw-] 2[a:1/rw-] |
    ",
    );
    assert_eq!(s.map_of(0, 0), s.map_of(1, 0), "the sharers' map");
    assert!(s.map_of(0, 0).ends_with(":2") && s.map_of(2, 0).ends_with(":1"), "and the copy");
    s.end();
}

#[test]
fn u15_a_private_load_maps_the_files_own_page() {
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
fn u16_a_private_store_copies_the_files_page_and_hides_later_changes() {
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
fn u17_a_private_store_to_an_absent_page_reads_it_once_and_leaves_it_cached() {
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
fn u18_fork_shares_copies_and_the_file_below_them() {
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
fn u19_a_shared_store_dirties_the_files_page_which_is_written_once() {
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
fn u20_raising_rights_waits_for_the_store_to_decide() {
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
fn u22_unmapping_the_middle_frees_its_page_at_once() {
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
fn u24_no_request_of_an_unmap_in_part_can_be_refused() {
    // UVM's counts of slots may find no memory; then pages are freed with the map, and nobody is told. Here whatever is refused, nobody is told
    // either, and the pages go at once: 23 as it is.
    for kind in FailKind::ALL {
        for k in 1..4 {
            let mut s = scene("map 0 0 4 rw shared fixed anon; write 0 0 4 65; fork 0 1");
            s.machine().fail(&FailPlan::counting().kth(kind, k));
            s.run("unmap 0 2 2; expect ok; unmap 1 2 2; expect ok");
            assert_eq!(s.machine().swap().live(), 2, "{kind:?} {k}");
            s.machine().fail(&FailPlan::default());
            s.run("read 1 1 0+1; expect ok b=41");
            s.end();
        }
    }
}

#[test]
fn u23_the_last_sharer_to_unmap_a_page_frees_it() {
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
fn u25_a_reserve_without_rights_costs_nothing() {
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
fn u21_rights_above_the_ceiling_are_refused_where_they_are_met() {
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
