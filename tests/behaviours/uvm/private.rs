//! Private anonymous memory: first touch, fork, copy, take over.

use super::{TWO, forked, scene};

#[test]
fn u01_the_first_load_makes_a_zero_page_that_a_store_may_use() {
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
fn u02_the_first_store_fills_one_slot_of_one_chunk() {
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
fn u03_fork_shares_what_was_touched_and_takes_the_right_to_write() {
    let s = forked();
    assert_eq!(s.machine().anon().maps().len(), 2, "eager: the child has a map of its own");
    s.end();
}

#[test]
fn u04_the_child_stores_into_a_copy() {
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
fn u05_the_last_owner_stores_in_place() {
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
fn u06_whoever_stores_first_copies_and_the_other_does_not() {
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
fn u07_a_child_that_exits_unwritten_leaves_nothing_to_copy() {
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
fn u08_of_three_owners_two_copy() {
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
fn u09_untouched_memory_is_not_shared_by_fork() {
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
fn u10_a_page_first_touched_after_fork_is_the_touchers_alone() {
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
fn u11_a_reader_keeps_the_old_page_when_the_other_copies() {
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
