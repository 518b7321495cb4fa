//! What operations do to the tree of segments: shapes, heights, balance, gaps.
//!
//! Each snapshot is the tree lying on its side, the lowest address first. `bal` is the height of the right subtree less that of the left; `gap` the
//! hole below a segment, `max gap` the largest one in its subtree.
//!
//! Sources: illumos.md 4.2, 4.3, 12 (3, 5, 11, 12, 31); DESIGN D2.

use crate::{Scene, compare};

/// Runs `setup` without showing it, then `script`, whose operations and views are compared with the snapshot.
#[track_caller]
fn check(name: &str, what: &str, setup: &str, script: &str) {
    let mut s = Scene::on("machine memory=256");
    s.run(setup);
    let text = s.run(script);
    s.end();
    compare(&format!("segment_trees/{name}"), what, &text);
}

/// Maps one page at each of the given places, with rights that keep neighbours apart.
fn map_each(pages: impl IntoIterator<Item = u64>) -> String {
    let map = |page| format!("map 0 {page} 1 rw priv fixed anon\n");
    pages.into_iter().map(map).collect()
}

// ---- shapes ----

#[test]
fn ascending_addresses_give_a_balanced_tree() {
    check(
        "ascending",
        "15 segments, height 4, every balance 0: a perfect tree",
        &map_each((0..15).map(|i| 2 * i)),
        "::segtree 0",
    );
}

#[test]
fn descending_addresses_give_the_mirror_image() {
    check(
        "descending",
        "7 segments mapped from high to low: the ids run backwards, the shape is perfect",
        &map_each((0..7).rev().map(|i| 2 * i)),
        "::segtree 0",
    );
}

#[test]
fn a_single_rotation_left_and_right() {
    check(
        "single_rotations",
        "the third insertion rotates: the middle one of the three becomes the root",
        "",
        "
        map 0 10 1 rw priv fixed anon; map 0 20 1 rw priv fixed anon
        ::segtree 0
        map 0 30 1 rw priv fixed anon
        ::segtree 0
        unmap 0 10 21
        map 0 30 1 rw priv fixed anon; map 0 20 1 rw priv fixed anon; map 0 10 1 rw priv fixed anon
        ::segtree 0
    ",
    );
}

#[test]
fn a_double_rotation_from_either_side() {
    check(
        "double_rotations",
        "low, high, middle and high, low, middle: both times the middle one, inserted last, becomes the root",
        "",
        "
        map 0 10 1 rw priv fixed anon; map 0 30 1 rw priv fixed anon; map 0 20 1 rw priv fixed anon
        ::segtree 0
        unmap 0 10 21
        map 0 30 1 rw priv fixed anon; map 0 10 1 rw priv fixed anon; map 0 20 1 rw priv fixed anon
        ::segtree 0
    ",
    );
}

#[test]
fn removing_segments_rebalances() {
    check(
        "removal",
        "of seven the four lowest go, two at a time: when the root goes the tree turns and loses a level",
        &map_each((0..7).map(|i| 2 * i)),
        "
        unmap 0 0 3
        ::segtree 0
        unmap 0 4 3
        ::segtree 0
    ",
    );
}

// ---- gaps ----

#[test]
fn every_node_knows_the_largest_gap_below_it() {
    check(
        "gaps",
        "holes of 1, 2, 4 and 8 pages: each max gap is the largest of the node's own and its children's",
        &map_each([1, 3, 6, 11, 20, 21]),
        "
        ::segtree 0
        unmap 0 6 1
        ::segtree 0
    ",
    );
}

#[test]
fn filling_the_largest_gap_shows_all_the_way_up() {
    check(
        "gap_filled",
        "the root's largest gap falls from 32K to 8K when the hole of 8 pages is filled",
        &map_each([0, 2, 5, 14]),
        "
        ::segtree 0
        map 0 6 8 r priv fixed anon
        ::segtree 0
    ",
    );
}

// ---- splitting and joining ----

#[test]
fn unmapping_the_middle_splits_a_segment() {
    check(
        "split",
        "one segment of 8 pages, then two of 3 around a hole of 2",
        "map 0 0 8 rw priv fixed anon",
        "
        ::segtree 0
        unmap 0 3 2
        ::segtree 0
    ",
    );
}

#[test]
fn unmapping_an_end_shortens_a_segment() {
    check(
        "trim",
        "two pages off the front, two off the back: still one segment, the same id",
        "map 0 0 8 rw priv fixed anon",
        "
        unmap 0 0 2
        unmap 0 6 2
        ::segtree 0
        unmap 0 2 4
        ::segtree 0
    ",
    );
}

#[test]
fn the_halves_of_a_split_keep_their_pages() {
    check(
        "split_anons",
        "the anons of pages 0 and 2 live on in two segments; that of page 1 is gone",
        "map 0 0 3 rw priv fixed anon; write 0 0 3 65",
        "
        ::anon 0
        unmap 0 1 1
        ::anon 0
        ::segtree 0
    ",
    );
}

#[test]
fn a_mapping_like_its_neighbour_extends_it() {
    check(
        "concat",
        "mapped above and below an equal segment: one segment of 6 pages",
        "map 0 4 2 rw priv fixed anon",
        "
        map 0 6 2 rw priv fixed anon
        ::segtree 0
        map 0 2 2 rw priv fixed anon
        ::segtree 0
    ",
    );
}

#[test]
fn filling_the_hole_between_two_halves_joins_them() {
    check(
        "fill",
        "split, then filled with the same kind: one segment again",
        "map 0 0 8 rw priv fixed anon; unmap 0 3 2",
        "
        ::segtree 0
        map 0 3 2 rw priv fixed anon
        ::segtree 0
    ",
    );
}

#[test]
fn filling_the_hole_between_touched_halves_joins_them_too() {
    check(
        "fill_touched",
        "both halves have anons in the map they share; half the hole filled: the lower one grows; all of it: one segment, one use of the map",
        "
        map 0 0 8 rw priv fixed anon; write 0 0 1 65; write 0 7 1 66; unmap 0 3 4",
        "
        map 0 3 2 rw priv fixed anon
        ::segtree 0
        map 0 5 2 rw priv fixed anon
        ::segtree 0
        ::anon 0
        read 0 0 0+1; expect ok b=41
        read 0 4 0+1; expect ok b=00
        read 0 7 0+1; expect ok b=42
    ",
    );
}

#[test]
fn unlike_neighbours_stay_apart() {
    check(
        "unlike",
        "other rights, shared, a file, a file's other part: five segments side by side",
        "
        file 0 32768
        map 0 0 2 rw priv fixed anon
        map 0 2 2 r priv fixed anon
        map 0 4 2 r shared fixed anon
        map 0 6 2 r priv fixed file 0 0
        map 0 8 2 r priv fixed file 0 4",
        "
        ::segtree 0
        ::pmap 0
    ",
    );
}

#[test]
fn neighbouring_parts_of_a_file_join() {
    check(
        "file_concat",
        "pages 0-1, 2-3 and 4-5 of a file side by side: one segment; pages 0-1 again beside them: another",
        "file 0 32768",
        "
        map 0 0 2 r priv fixed file 0 0
        map 0 2 2 r priv fixed file 0 2
        map 0 4 2 r priv fixed file 0 4
        map 0 6 2 r priv fixed file 0 0
        ::segtree 0
        ::pmap 0
    ",
    );
}

// ---- several segments at once ----

#[test]
fn unmapping_across_holes_trims_both_ends() {
    check(
        "unmap_across",
        "three segments and two holes: the outer ones are cut, the inner one goes",
        "
        map 0 0 4 rw priv fixed anon; map 0 6 2 rw priv fixed anon; map 0 10 4 rw priv fixed anon",
        "
        ::segtree 0
        unmap 0 2 10; expect ok
        ::segtree 0
        unmap 0 2 8; expect ok
    ",
    );
}

#[test]
fn a_fixed_mapping_replaces_what_it_covers() {
    check(
        "fixed_over",
        "laid over the end of one, a hole, a whole one, a hole and the beginning of a third",
        "
        map 0 0 4 rw priv fixed anon; map 0 6 2 rw priv fixed anon; map 0 10 4 rw priv fixed anon",
        "
        map 0 2 10 r priv fixed anon
        ::segtree 0
        ::pmap 0
    ",
    );
}

#[test]
fn a_fixed_mapping_inside_splits_what_it_covers() {
    check(
        "fixed_inside",
        "three segments where there was one",
        "map 0 0 8 rw priv fixed anon",
        "
        map 0 3 2 r shared fixed anon
        ::segtree 0
        ::pmap 0
    ",
    );
}

#[test]
fn the_child_of_a_fork_has_the_same_tree() {
    check(
        "fork",
        "the same segments in the child, numbered from 0 in order of address; the parent's tree is as it was",
        &map_each([8, 4, 12, 2, 6]),
        "
        ::segtree 0
        fork 0 1
        ::segtree 0
        ::segtree 1
    ",
    );
}

#[test]
fn after_fork_each_side_has_a_tree_of_its_own() {
    check(
        "fork_apart",
        "unmapping in the child changes nothing in the parent",
        "map 0 0 8 rw priv fixed anon; write 0 0 8 1; fork 0 1",
        "
        unmap 1 2 4
        ::segtree 0
        ::segtree 1
    ",
    );
}

// ---- rights ----

#[test]
fn protecting_part_of_a_segment_keeps_one_segment() {
    check(
        "protect",
        "one segment, three rows of rights: rights are kept by page",
        "map 0 0 8 rw priv fixed anon",
        "
        protect 0 2 3 r
        ::segtree 0
        ::pmap 0
        protect 0 2 3 rw
        ::pmap 0
    ",
    );
}

#[test]
fn protecting_across_a_hole_changes_what_lies_before_it() {
    check(
        "protect_hole",
        "ENOMEM at the hole; the first segment has changed, the second has not",
        "
        map 0 0 2 rw priv fixed anon; map 0 4 2 rw priv fixed anon",
        "
        protect 0 0 6 r; expect ENOMEM
        ::pmap 0
    ",
    );
}

#[test]
fn a_segment_with_rights_by_page_splits_with_them() {
    check(
        "protect_split",
        "pages 2 to 5 are read-only; unmapping 3 and 4 leaves one read-only page on either side",
        "
        map 0 0 8 rw priv fixed anon; protect 0 2 4 r",
        "
        unmap 0 3 2
        ::segtree 0
        ::pmap 0
    ",
    );
}
