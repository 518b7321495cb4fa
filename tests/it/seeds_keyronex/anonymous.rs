//! Anonymous mappings, and anonymous-on-vnode mappings: copy-on-write.

use super::scene;
use crate::{Scene, check};

// ---- anonymous mappings ----

#[test]
fn an_anon_with_two_references_is_never_mapped_writable() {
    // However the translation comes to be: kept from before fork, loaded by a load, by a neighbour's fault, after a change of rights.
    let mut s = scene("map 0 0 4 rw priv fixed anon; write 0 0 4 65; fork 0 1");
    let all_read_only = |s: &Scene| {
        for (proc, page) in (0..2).flat_map(|p| (0..4).map(move |n| (p, n))) {
            assert_eq!(s.anon(proc, page).map(|a| a.refs), Some(2));
            assert!(!s.rights(proc, page).contains('w'), "process {proc}, page {page}");
        }
    };
    all_read_only(&s);
    s.run("read 1 1 1");
    all_read_only(&s);
    s.run("protect 0 0 4 r; protect 0 0 4 rw; read 0 0 4");
    all_read_only(&s);
    s.run("advise 1 0 4 sequential; read 1 0 4");
    all_read_only(&s);
    s.run("pageout *; read 0 0 4; read 1 0 4");
    all_read_only(&s);
    s.run("write 0 0 1 1");
    assert_eq!(
        (s.rights(0, 0), s.rights(1, 0)),
        ("rw-".into(), "r--".into()),
        "a copy, and the last reference"
    );
    s.end();
}

#[test]
fn a_store_to_a_shared_anon_copies_anon_and_page_first() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1");
    let (before, frame) = (s.anon(0, 0).expect("there"), s.frame(0, 0));
    s.run(
        "
        write 1 0 0+1 99
        expect counter case_1b +1
        expect counter cow_fault +1
        expect counter bytes_copied +4096
        expect counter frame_allocs +>=1
    ",
    );
    let after = s.anon(1, 0).expect("there");
    assert_ne!(after.number, before.number, "another anon");
    assert_ne!(after.frame, before.frame, "with a page of its own");
    assert_eq!(s.anon(0, 0).map(|a| (a.number, a.refs)), Some((before.number, 1)));
    assert_eq!(s.frame(0, 0), frame, "the other side was not touched");
    s.run("read 1 0 0+3; expect ok b=634243; read 0 0 0+3; expect ok b=414243");
    s.end();
}

/// PID 1 and PID 2 of the document, as processes 0 and 1, up to the fork. Anons are lettered in order of appearance: a and b are PID 1's.
const UP_TO_FORK: &str = "
    # No anon is there yet: they are made at the first fault.
    map 0 0 2 rw priv fixed anon | 0[. .]                            |
    write 0 0 0+1 65             | 0[a:1/rw- .]                      | f1 2B1 zf1
    write 0 1 0+1 66             | 0[a:1/rw- b:1/rw-]                | f1 2B1 zf1
    # A map of its own, the same anons, one reference more; what was writable is read-only.
    fork 0 1                     | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-] |
";

fn pid_one_and_two() -> Scene {
    let mut s = Scene::new();
    s.story(2, UP_TO_FORK);
    let maps: Vec<_> = s.machine().anon().maps().iter().map(|m| m.refs()).collect();
    assert_eq!(maps, vec![1, 1], "two anon maps, each used by one segment");
    s
}

#[test]
fn pid_1_and_pid_2() {
    let mut s = pid_one_and_two();
    let shared = s.frame(0, 1);
    s.story(2, "
        # PID 2 stores to the second page: references 2, so anon and page are copied, and its reference is let go.
        write 1 1 0+1 67             | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-]   | f1 1B1 cp1
        # PID 1 is the only owner of b now: it stores in place.
        write 0 1 0+1 68             | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-]   | f1 1A1
        read 0 0 0+1; expect ok b=41 | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-]   |
        read 1 0 0+1; expect ok b=41 | 0[a:2/r-- b:1/rw-] 1[a:2/r-- c:1/rw-] | f1 1A1
        write 0 0 0+1 69             | 0[d:1/rw- b:1/rw-] 1[a:1/r-- c:1/rw-] | f1 1B1 cp1
        write 1 0 0+1 70             | 0[d:1/rw- b:1/rw-] 1[a:1/rw- c:1/rw-] | f1 1A1
    ");
    assert_eq!(s.frame(0, 1), shared);
    s.run("read 0 0 0+1; expect ok b=45; read 0 1 0+1; expect ok b=44");
    s.run("read 1 0 0+1; expect ok b=46; read 1 1 0+1; expect ok b=43");
    s.story(
        2,
        "
        exit 1 | 0[d:1/rw- b:1/rw-] |
    ",
    );
    assert_eq!(s.machine().swap().live(), 2, "a and c went with PID 2");
    s.end();
}

#[test]
fn the_same_happens_if_pid_1_stores_first() {
    let mut s = pid_one_and_two();
    let shared = s.frame(0, 1);
    s.story(
        2,
        "
        write 0 1 0+1 67 | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/-]   | f1 1B1 cp1
        write 1 1 0+1 68 | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/rw-] | f1 1A1
    ",
    );
    assert_eq!(s.frame(1, 1), shared, "PID 2 keeps the page that was there before");
    assert_ne!(s.frame(0, 1), shared);
    s.run("read 0 1 0+1; expect ok b=43; read 1 1 0+1; expect ok b=44");
    s.end();
}

#[test]
fn if_pid_2_exits_first_nothing_is_ever_copied() {
    let mut s = pid_one_and_two();
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
fn the_example_as_the_debugger_shows_it() {
    check(
        "keyronex/pid1_pid2",
        "after fork both maps hold the same anons with 2 references; after PID 2's store its second slot holds a new one",
        "
        machine memory=256
        map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66
        fork 0 1
        ::anon 0; ::anon 1
        write 1 1 0+1 67
        ::anon 0; ::anon 1
    ",
    );
}

// ---- anonymous-on-vnode mappings ----

/// Two pages of file, `a...` and `b...`; process 0 maps them private. No fault-ahead.
const PRIVATE_FILE: &str = "
    file 0 8192; pwrite 0 0 1 97; pwrite 0 4096 1 98
    map 0 0 2 rw priv fixed file 0 0; advise 0 0 2 random
";

#[test]
fn a_private_file_mapping_is_anons_over_a_vnode() {
    check(
        "keyronex/anon_on_vnode",
        "the stored-to page is an anon of the map above; the other is the file's own, found by the offset below",
        &format!(
            "
        machine memory=256
        {PRIVATE_FILE}
        read 0 1 0+1
        write 0 0 0+1 65
        ::seg 0
        ::walk 0 0
        ::walk 0 1
    "
        ),
    );
}

#[test]
fn a_load_asks_for_an_anon_first_and_then_the_file() {
    let mut s = scene(PRIVATE_FILE);
    s.story(
        2,
        "
        read 0 0 0+1; expect ok b=61 | 0[file/r-- .] | f1 2A1
        write 0 0 0+1 65             | 0[a:1/rw- .]  | f1 2B1 cp1
    ",
    );
    // Without its translation the page is found again: the anon, not the file.
    s.forget_translations();
    s.story(
        2,
        "
        read 0 0 0+1; expect ok b=41 | 0[a:1/rw- .] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn a_load_of_an_unwritten_page_maps_the_files_page_and_makes_no_anon() {
    let mut s = scene(PRIVATE_FILE);
    s.story(
        2,
        "
        read 0 0 0+1; read 0 1 0+1 | 0[file/r-- file/r--] | f2 2A2
    ",
    );
    assert_eq!(s.frame(0, 0), s.file_frame(0, 0));
    assert_eq!(s.frame(0, 1), s.file_frame(0, 1));
    assert_eq!(s.machine().swap().live(), 0);
    assert!(s.machine().anon().maps().is_empty());
    s.end();
}

#[test]
fn a_store_copies_the_files_page_into_an_anon_and_leaves_the_file_alone() {
    let mut s = scene(PRIVATE_FILE);
    s.run("read 0 0 0+1");
    let files = s.file_frame(0, 0).expect("cached");
    s.story(
        2,
        "
        write 0 0 0+1 65 | 0[a:1/rw- .] | f1 2B1 cp1
    ",
    );
    assert_ne!(s.frame(0, 0), Some(files));
    assert_eq!(s.file_frame(0, 0), Some(files), "the file's page is neither changed nor taken");
    assert_eq!(s.mappers(files), vec![]);
    // FNV of `a`: the file has the byte it had.
    s.run("pread 0 0 1; expect ok n=1 h=af63dc4c8601ec8c; read 0 0 0+1; expect ok b=41");
    s.run("write 0 0 0+1 66; expect counter as_fault +0");
    s.end();
}

#[test]
fn changes_of_the_file_show_in_unwritten_pages_only() {
    let mut s = scene(PRIVATE_FILE);
    s.run("read 0 0 0+1; read 0 1 0+1; write 0 0 0+1 65");
    // By write(2), and by a store through a shared mapping of another process.
    s.run("pwrite 0 0 1 120; pwrite 0 4096 1 121");
    s.story(
        2,
        "
        read 0 0 0+1; expect ok b=41 | 0[a:1/rw- file/r--] |
        read 0 1 0+1; expect ok b=79 | 0[a:1/rw- file/r--] |
    ",
    );
    s.run("fork 0 1; map 1 8 2 rw shared fixed file 0 0; write 1 8 0+1 122; write 1 9 0+1 123");
    s.run(
        "
        read 0 0 0+1; expect ok b=41
        read 0 1 0+1; expect ok b=7b
        expect counter as_fault +0
    ",
    );
    s.end();
}

#[test]
fn private_stores_never_reach_the_file_or_its_other_mappers() {
    let mut s = scene(PRIVATE_FILE);
    s.run(
        "
        fork 0 1
        map 1 8 2 r shared fixed file 0 0
        write 0 0 0+1 65; write 0 1 0+1 66; write 1 0 0+1 67
        read 1 8 0+1; expect ok b=61
        read 1 9 0+1; expect ok b=62
        read 1 1 0+1; expect ok b=62
        pageout *
        pread 0 0 1; expect ok n=1 h=af63dc4c8601ec8c
        read 0 0 0+1; expect ok b=41
        read 1 0 0+1; expect ok b=43
    ",
    );
    s.end();
}
