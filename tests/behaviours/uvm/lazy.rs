//! Lazy forks: one anon map for both sides until one of them needs its own.
//!
//! The lines of a story have a column more than elsewhere: after what is done, the anon map of each process's first page as `number:references`, with
//! a `!` where it is to be copied. Then, as elsewhere: anons, references and rights; what it cost.
//!
//! Sources: uvm.md 2.2, 4.3 (column L) and 9; [UVM §5].

use super::{TOUCHED, TWO};
use crate::Scene;
use crate::harness::addr;
use page_db::{Access, Counter};

fn scene(setup: &str) -> Scene {
    let mut s = Scene::on("machine memory=1024 fork=lazy");
    s.run(setup);
    s
}

/// Runs a table: what is done `|` maps `|` state `|` counts.
#[track_caller]
fn story(s: &mut Scene, pages: u64, table: &str) {
    for line in table.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [does, maps, state, counted] = columns[..] else { panic!("not four columns: {line}") };
        s.story(pages, &format!("{does} | {state} | {counted}"));
        let live = s.state(1).split(' ').filter(|word| word.contains('[')).count() as u32;
        let got: Vec<_> = (0..live).map(|p| format!("{p}={}", s.map_of(p, 0))).collect();
        assert_eq!(got.join(" "), maps, "at: {line}");
    }
}

fn forked() -> Scene {
    let mut s = scene(TWO);
    s.run(TOUCHED);
    story(&mut s, 2, "fork 0 1 | 0=1:2! 1=1:2! | 0[a:1/r-- b:1/r--] 1[a:1/- b:1/-] |");
    s
}

#[test]
fn u03_a_fork_shares_the_map_and_counts_no_anon() {
    let s = forked();
    assert_eq!(s.machine().anon().maps().len(), 1);
    s.end();
}

#[test]
fn u05_the_worked_example_with_late_copies() {
    let mut s = scene(TWO);
    story(
        &mut s,
        2,
        "
        verify                       | 0=-          | 0[. .]                                     |
        write 0 0 0+1 65             | 0=1:1        | 0[a:1/rw- .]                               | f1 2B1 zf1
        write 0 1 0+1 66             | 0=1:1        | 0[a:1/rw- b:1/rw-]                         | f1 2B1 zf1
        fork 0 1                     | 0=1:2! 1=1:2! | 0[a:1/r-- b:1/r--] 1[a:1/- b:1/-]         |
        write 1 1 0+1 67             | 0=1:1! 1=2:1 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-]        | f1 1B1 cp1
        write 0 1 0+1 68             | 0=1:1 1=2:1  | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-]        | f1 1A1
        read 0 0 0+1; expect ok b=41 | 0=1:1 1=2:1  | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-]        |
        read 1 0 0+1; expect ok b=41 | 0=1:1 1=2:1  | 0[a:2/r-- b:1/rw-] 1[a:2/r-- c:1/rw-]      | f1 1A1
        write 0 0 0+1 69             | 0=1:1 1=2:1  | 0[d:1/rw- b:1/rw-] 1[a:1/r-- c:1/rw-]      | f1 1B1 cp1
        write 1 0 0+1 70             | 0=1:1 1=2:1  | 0[d:1/rw- b:1/rw-] 1[a:1/rw- c:1/rw-]      | f1 1A1
        exit 1                       | 0=1:1        | 0[d:1/rw- b:1/rw-]                         |
    ",
    );
    s.end();
}

#[test]
fn u04_whoever_stores_first_gets_the_new_map() {
    let mut s = forked();
    story(
        &mut s,
        2,
        "
        write 0 1 0+1 67             | 0=2:1 1=1:1! | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/-]   | f1 1B1 cp1
        read 1 1 0+1; expect ok b=42 | 0=2:1 1=1:1  | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/rw-] | f1 1A1
        write 1 1 0+1 68             | 0=2:1 1=1:1  | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/rw-] |
    ",
    );
    s.end();
}

#[test]
fn u07_a_child_that_exits_unwritten_never_counted_an_anon() {
    let mut s = forked();
    story(
        &mut s,
        2,
        "
        exit 1                             | 0=1:1! | 0[a:1/r-- b:1/r--] |
        write 0 0 0+1 67; write 0 1 0+1 68 | 0=1:1  | 0[a:1/rw- b:1/rw-] | f2 1A2
    ",
    );
    s.end();
}

#[test]
fn u08_of_three_owners_two_copy_and_one_takes_over() {
    let mut s = scene(TWO);
    story(
        &mut s,
        1,
        "
        write 0 0 0+1 65   | 0=1:1                | 0[a:1/rw-]                       | f1 2B1 zf1
        fork 0 1; fork 0 2 | 0=1:3! 1=1:3! 2=1:3! | 0[a:1/r--] 1[a:1/-] 2[a:1/-]     |
        write 1 0 0+1 66   | 0=1:2! 1=2:1 2=1:2!  | 0[a:1/r--] 1[b:1/rw-] 2[a:1/-]   | f1 1B1 cp1
        write 0 0 0+1 67   | 0=3:1 1=2:1 2=1:1!   | 0[c:1/rw-] 1[b:1/rw-] 2[a:1/-]   | f1 1B1 cp1
        write 2 0 0+1 68   | 0=3:1 1=2:1 2=1:1    | 0[c:1/rw-] 1[b:1/rw-] 2[a:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn u09_what_was_not_touched_before_the_fork_is_the_touchers_alone() {
    // 9, 10: a load of zeros adds to the map, so it needs one of its own.
    let mut s = scene(TWO);
    story(
        &mut s,
        2,
        "
        fork 0 1                     | 0=- 1=-             | 0[. .] 1[. .]                       |
        exit 1; write 0 0 0+1 65     | 0=1:1               | 0[a:1/rw- .]                        | f1 2B1 zf1
        fork 0 1                     | 0=1:2! 1=1:2!       | 0[a:1/r-- .] 1[a:1/- .]             |
        read 1 1 0+1; expect ok b=00 | 0=1:1! 1=2:1        | 0[a:2/r-- .] 1[a:2/- b:1/rw-]       | f1 2B1 zf1
        read 0 1 0+1; expect ok b=00 | 0=1:1 1=2:1         | 0[a:2/r-- c:1/rw-] 1[a:2/- b:1/rw-] | f1 2B1 zf1
    ",
    );
    s.end();
}

#[test]
fn u11_a_load_alone_copies_the_map() {
    let mut s = scene(TWO);
    story(
        &mut s,
        1,
        "
        write 0 0 0+1 65; fork 0 1   | 0=1:2! 1=1:2! | 0[a:1/r--] 1[a:1/-]   | f1 2B1 zf1
        read 1 0 0+1; expect ok b=41 | 0=1:1! 1=2:1  | 0[a:2/r--] 1[a:2/r--] | f1 1A1
        write 0 0 0+1 66             | 0=1:1 1=2:1   | 0[b:1/rw-] 1[a:1/r--] | f1 1B1 cp1
        read 1 0 0+1; expect ok b=41 | 0=1:1 1=2:1   | 0[b:1/rw-] 1[a:1/r--] |
    ",
    );
    s.end();
}

#[test]
fn a_load_of_a_file_leaves_the_map_shared() {
    let mut s = scene("file 0 8192; map 0 0 2 rw priv fixed file 0 0; advise 0 0 2 random");
    story(
        &mut s,
        2,
        "
        write 0 0 0+1 65 | 0=1:1         | 0[a:1/rw- .]                                     | f1 2B1 cp1 maj1
        fork 0 1         | 0=1:2! 1=1:2! | 0[a:1/r-- .] 1[a:1/- .]                          |
        read 1 0 0+1     | 0=1:2! 1=1:2! | 0[a:1/r-- .] 1[a:1/r-- .]                        | f1 1A1
        read 1 1 0+1     | 0=1:2! 1=1:2! | 0[a:1/r-- .] 1[a:1/r-- file/r--]                 | f1 2A1 maj1
        write 1 1 0+1 66 | 0=1:1! 1=2:1  | 0[a:2/r-- .] 1[a:2/r-- b:1/rw-]                  | f1 2B1 cp1
        write 0 0 0+1 67 | 0=1:1 1=2:1   | 0[c:1/rw- .] 1[a:1/r-- b:1/rw-]                  | f1 1B1 cp1
    ",
    );
    s.end();
}

#[test]
fn shared_memory_stays_shared() {
    // 12
    let mut s = scene("map 0 0 2 rw shared fixed anon; advise 0 0 2 random");
    story(
        &mut s,
        1,
        "
        write 0 0 0+1 65             | 0=1:1       | 0[a:1/rw-]            | f1 2B1 zf1
        fork 0 1                     | 0=1:2 1=1:2 | 0[a:1/rw-] 1[a:1/-]   |
        write 1 0 0+1 66             | 0=1:2 1=1:2 | 0[a:1/rw-] 1[a:1/rw-] | f1 1A1
        read 0 0 0+1; expect ok b=42 | 0=1:2 1=1:2 | 0[a:1/rw-] 1[a:1/rw-] |
    ",
    );
    s.end();
}

#[test]
fn a_part_that_one_side_unmaps_goes_with_the_last_that_reaches_it() {
    // 22 between the fork and the copy
    let mut s = scene("map 0 0 3 rw priv fixed anon; advise 0 0 3 random");
    s.run("write 0 0 0+1 65; write 0 1 0+1 66; write 0 2 0+1 67; fork 0 1");
    story(
        &mut s,
        3,
        "
        unmap 0 1 1      | 0=1:3! 1=1:3! | 0[a:1/r-- . b:1/r--] 1[a:1/- c:1/- b:1/-]    |
        write 0 0 0+1 68 | 0=2:1 1=1:2!  | 0[d:1/rw- . b:1/r--] 1[a:1/- c:1/- b:1/-]    | f1 1B1 cp1
        write 1 2 0+1 69 | 0=2:1 1=3:1   | 0[d:1/rw- . b:1/r--] 1[a:1/- c:1/- e:1/rw-]  | f1 1B1 cp1
        write 0 2 0+1 70 | 0=2:1 1=3:1   | 0[d:1/rw- . b:1/rw-] 1[a:1/- c:1/- e:1/rw-]  | f1 1A1
    ",
    );
    s.end();
    let mut s = scene("map 0 0 3 rw priv fixed anon; advise 0 0 3 random");
    s.run("write 0 0 0+1 65; write 0 1 0+1 66; write 0 2 0+1 67; fork 0 1");
    // The parts of what was one segment take over the map when the other side is gone, each its own.
    story(
        &mut s,
        3,
        "
        unmap 0 1 1; exit 1 | 0=1:2! | 0[a:1/r-- . b:1/r--] |
        write 0 0 0+1 68    | 0=1:2  | 0[a:1/rw- . b:1/r--] | f1 1A1
        write 0 2 0+1 69    | 0=1:2  | 0[a:1/rw- . b:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn u28_what_may_be_dropped_is_kept_while_it_is_shared() {
    let mut s = forked();
    s.run("advise 0 0 2 free; pageout *");
    s.run("read 0 0 0+1; expect ok b=41; read 1 1 0+1; expect ok b=42");
    s.end();
}

/// 28 under lazy forks: until the map is this side's own there is nothing to drop; discarding makes it so first.
#[test]
fn what_is_dropped_is_kept_and_what_is_discarded_goes() {
    let mut s = forked();
    s.run("advise 0 0 2 drop; read 0 0 0+1; expect ok b=41; read 1 0 0+1; expect ok b=41");
    s.end();
    let mut s = forked();
    s.run("advise 0 0 1 discard; read 0 0 0+1; expect ok b=00; read 1 0 0+1; expect ok b=41");
    s.run("read 0 1 0+1; expect ok b=42; advise 1 0 2 discard; read 1 1 0+1; expect ok b=00");
    s.run("read 0 1 0+1; expect ok b=42");
    s.end();
}

#[test]
fn pages_that_are_zeros_in_the_child_and_pages_under_io_are_copied_at_the_fork() {
    let mut s = scene(TWO);
    s.run(TOUCHED);
    story(
        &mut s,
        2,
        "
        advise 0 1 1 inherit_zero    | 0=1:1       | 0[a:1/rw- b:1/rw-]                  |
        fork 0 1                     | 0=1:1 1=2:1 | 0[a:2/r-- b:1/r--] 1[a:2/- .]       |
        read 1 1 0+1; expect ok b=00 | 0=1:1 1=2:1 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] | f1 2B1 zf1
    ",
    );
    s.end();
    let mut s = scene(TWO);
    s.run(TOUCHED);
    let pinned = {
        let p = s.process(0);
        let range = page_db::VirtRange::exact(addr(0).get(), page_db::PAGE_SIZE).unwrap();
        p.space().lock_pages(p.cx(), range, Access::Write).expect("resident")
    };
    let child = s.process(0).fork().expect("memory");
    s.process(0).space().unlock_pages(s.process(0).cx(), pinned).expect("pinned here");
    s.machine().verify().expect("sound");
    assert_eq!((s.rights(0, 0), s.rights(0, 1)), ("rw-".into(), "rw-".into()));
    assert_eq!(s.map_of(0, 0), "1:1");
    assert_eq!(child.load_u8(addr(0).get()).expect("mapped"), 65);
    assert_eq!(child.load_u8(addr(1).get()).expect("mapped"), 66);
    child.exit();
    s.end();
}

#[test]
fn locking_needs_a_map_of_ones_own() {
    let mut s = forked();
    story(
        &mut s,
        2,
        "
        lock 1 0 2       | 0=1:1! 1=2:1 | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-]     |
        write 1 0 0+1 67 | 0=1:1! 1=2:1 | 0[a:1/r-- b:2/r--] 1[c:1/rw- b:2/-]   | f1 1B1 cp1
        unlock 1 0 2     | 0=1:1! 1=2:1 | 0[a:1/r-- b:2/r--] 1[c:1/rw- b:2/-]   |
    ",
    );
    s.end();
}

#[test]
fn a_shared_map_does_not_grow() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; fork 0 1");
    // Beside it a segment of its own, until the map is the process's alone.
    s.run("map 0 2 1 rw priv fixed anon; write 0 2 0+1 67");
    assert_eq!((s.map_of(0, 0), s.map_of(0, 2)), ("1:2!".into(), "2:1".into()));
    s.run("exit 1; unmap 0 2 1; map 0 2 1 rw priv fixed anon; write 0 2 0+1 68");
    assert_eq!((s.map_of(0, 0), s.map_of(0, 2)), ("1:1".into(), "1:1".into()));
    s.end();
}

#[test]
fn paged_out_while_shared_and_read_back_by_both() {
    let mut s = forked();
    s.run("pageout *");
    s.run(
        "read 1 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=42; read 1 1 0+1; expect ok b=42",
    );
    s.end();
}

#[test]
fn a_fork_looks_at_no_slot() {
    let cost = |pages: u64| {
        let mut s = Scene::on("machine memory=4096 fork=lazy");
        s.run(&format!("map 0 0 {pages} rw priv fixed anon"));
        let p = s.process(0);
        (0..pages).for_each(|page| p.store(addr(page).get(), b"x").expect("room"));
        let before = s.machine().counters().snapshot();
        let child = p.fork().expect("room");
        let counts = s.machine().counters().snapshot().since(&before);
        child.exit();
        [Counter::AnonSlots, Counter::FrameAllocs, Counter::BytesCopied, Counter::TreeNodes]
            .map(|c| counts.get(c))
    };
    assert_eq!(cost(2), cost(2000));
    assert_eq!(cost(2000)[0], 0);
}

/// What `op` does on `n` segments of one page, each forked lazily with its page: slots visited and, in debug builds, locks taken.
fn gone_through(n: u64, op: &str) -> u64 {
    let mut s = Scene::on("machine memory=4096 fork=lazy");
    for page in 0..n {
        let prot = if page % 2 == 0 { "rw" } else { "rwx" };
        s.run(&format!("map 0 {page} 1 {prot} priv fixed anon; write 0 {page} 0+1 65"));
    }
    s.run("fork 0 1");
    let total = |s: &Scene| {
        let counters = s.machine().counters();
        [Counter::AnonSlots, Counter::LockAcquires].map(|c| counters.get(c)).iter().sum::<u64>()
    };
    let before = total(&s);
    s.run(&op.replace("ALL", &format!("0 0 {n}")));
    let after = total(&s);
    s.end();
    after - before
}

#[test]
fn many_segments_are_made_their_own_under_one_hold() {
    for op in ["advise ALL discard", "lock ALL"] {
        let [a, b, c] = [32, 64, 128].map(|n| gone_through(n, op));
        println!("{op}: 32 segments {a}, 64 segments {b}, 128 segments {c}");
        // Twice as much for twice as many, beside what does not grow; a pass for each segment would make the locks, which debug builds count, four times as many.
        assert!(
            2 * (c - b) < 5 * (b - a),
            "{op}: 32 segments {a}, 64 segments {b}, 128 segments {c}"
        );
    }
}

#[test]
fn a_second_fork_copies_no_slot_of_what_it_does_not_share() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; map 0 16 200 rwx priv fixed anon");
    s.run("write 0 0 1 65; write 0 16 200 66; fork 0 1; inherit 0 0 1 share");
    let slots = |s: &Scene| s.machine().counters().get(Counter::AnonSlots);
    let before = slots(&s);
    let child = s.process(0).fork().expect("memory enough");
    assert_eq!(slots(&s) - before, 0, "what is to be shared became its own when that was said");
    child.exit();
    s.end();
}
