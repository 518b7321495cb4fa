//! E: fork and copy-on-write.

use crate::uvm::loans::{ONE, give_back, lend, orphans, seen};
use crate::{Scene, addr, page, range, scene, space};
use addr_space::FaultKind;
use page_db::{Access, PAGE_SIZE};

fn anons(s: &Scene) -> u64 {
    s.machine().swap().live()
}

scripts! {
    e01_private: "map 0 0 2 rw priv fixed anon; write 0 0 1 65; fork 0 1; write 1 0 0+1 66; write 1 1 0+1 67
        read 0 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=00";
    e02_shared: "map 0 0 2 rw shared fixed anon; write 0 0 1 65; fork 0 1; write 1 0 0+1 66; write 1 1 0+1 67
        read 0 0 0+1; expect ok b=42; read 0 1 0+1; expect ok b=43";
    e17_the_kernels_store_is_the_callers: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1
        file 0 4096; fread 1 0 0 0 0+1; expect ok n=1; read 1 0 0+1; expect ok b=00; read 0 0 0+1; expect ok b=41";
    e22_a_neighbour_of_the_childs_own: "map 0 0 2 rw priv fixed anon; write 0 0 2 65; fork 0 1
        map 1 2 2 rw priv fixed anon; write 1 2 2 70; write 0 1 0+1 80; read 1 1 0+1; expect ok b=41
        read 1 2 0+1; expect ok b=46; read 0 2 0+1; expect SEGV at=0 code=maperr";
    e25_a_read_only_page: "map 0 0 1 rw priv fixed anon; write 0 0 1 65; protect 0 0 1 r; fork 0 1
        write 1 0 0+1 1; expect SEGV at=0 code=accerr; read 1 0 0+1; expect ok b=41";
}

#[test]
fn e04_a_page_nobody_touched_before() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; fork 0 1; fork 1 3; fork 0 2");
    for p in 0..4 {
        s.run(&format!("write {p} 0 0+1 {}; expect counter cow_fault +0", 65 + p));
    }
    for p in 0..4 {
        s.run(&format!("read {p} 0 0+1; expect ok b={:02x}", 65 + p));
    }
    assert_eq!(anons(&s), 4, "one page each");
    s.end();
}

#[test]
fn e05_a_chain_loses_its_root_and_its_middle() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1; fork 1 2");
    s.run("write 1 0 0+1 66; write 2 0 0+1 67");
    assert_eq!(anons(&s), 3);
    s.run("exit 0; exit 1; read 2 0 0+1; expect ok b=43");
    assert_eq!((anons(&s), s.anon(2, 0).map(|a| a.refs)), (1, Some(1)));
    s.end();
}

#[test]
fn e07_no_page_is_kept_that_nobody_sees() {
    // A window of four pages, then a window of that.
    let mut s = scene("map 0 0 4 rw priv fixed anon; write 0 0 4 65; unmap 0 0 1; unmap 0 3 1");
    assert_eq!(anons(&s), 2);
    s.run("fork 0 1; unmap 1 1 1; fork 1 2; exit 0");
    assert_eq!(anons(&s), 1, "page 2 alone is seen");
    s.run("exit 1; read 2 2 0+1; expect ok b=41; read 2 1 0+1; expect SEGV at=0 code=maperr");
    s.end();
}

#[test]
fn e08_a_store_where_the_grandchild_cannot_see() {
    let mut s =
        scene("map 0 0 2 rw priv fixed anon; write 0 0 2 65; fork 0 1; unmap 1 1 1; fork 1 2");
    let before = anons(&s);
    s.run("write 0 1 0+1 66; expect counter cow_fault +0; expect counter frame_allocs +0");
    assert_eq!(anons(&s), before);
    s.end();
}

#[test]
fn e10_after_the_fork_the_same_frame_read_only() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    let before = s.translation(0, 0).expect("mapped");
    s.run("fork 0 1");
    assert_eq!(s.translation(0, 0), Some((before.0, "r--".to_owned())));
    s.end();
}

#[test]
fn e11_pages_of_two_as_they_store() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 2 65; fork 0 1");
    let mut pages = vec![anons(&s)];
    for store in ["1 0", "1 1", "0 0", "0 1"] {
        s.run(&format!("write {store} 0+1 70"));
        pages.push(anons(&s));
    }
    assert_eq!(pages, [2, 3, 4, 4, 4], "2/0, 2/1, 2/2, 2/2");
    s.end();
}

#[test]
fn e13_a_reader_beside_changes_of_rights() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65");
    s.story(
        1,
        "
        fork 0 1; read 1 0 0+1           | 0[a:2/r--] 1[a:2/r--] | f1 1A1
        protect 0 0 1 r; protect 0 0 1 rw | 0[a:2/-] 1[a:2/r--]  |
        write 0 0 0+1 66                 | 0[b:1/rw-] 1[a:1/r--] | f1 1B1 cp1
        read 1 0 0+1; expect ok b=41     | 0[b:1/rw-] 1[a:1/r--] |
    ",
    );
    s.end();
}

#[test]
fn e16_pinned_pages_are_copied_at_the_fork_and_others_later() {
    // By segments: the one with a pinned page is copied whole.
    let mut s = scene(
        "map 0 0 1 rw priv fixed anon; map 0 2 1 rw priv fixed anon; write 0 0 1 65; write 0 2 1 65",
    );
    let pin =
        |s: &Scene, kind| space(s, 0).fault(s.machine().cx(), range(0, 1), kind, Access::Write);
    pin(&s, FaultKind::SoftLock).expect("mapped");
    s.story(
        3,
        "
        fork 0 1 | 0[a:1/rw- . b:2/r--] 1[c:1/- . b:2/-] |
    ",
    );
    pin(&s, FaultKind::SoftUnlock).expect("it was locked");
    s.run("write 0 0 1 70; write 0 2 1 70; read 1 0 0+1; expect ok b=41; read 1 2 0+1; expect ok b=41");
    s.end();
}

#[test]
fn e20_locks_are_not_inherited() {
    let s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; lock 0 0 1; fork 0 1");
    let bits = |p| s.process(p).mincore(addr(0).get(), PAGE_SIZE).expect("mapped")[0];
    assert_eq!((bits(0) & 2, bits(1) & 2), (2, 0));
    assert_eq!(space(&s, 1).state().locked(), 0);
    s.end();
}

#[test]
fn e26_eight_processes_have_each_its_history() {
    let mut s = scene("map 0 0 8 rw priv fixed anon; write 0 0 8 1");
    for (n, parent) in [(1, 0), (2, 1), (3, 0), (4, 2), (5, 1), (6, 4), (7, 3)] {
        // Each generation marks its own page, and one that all have marked.
        s.run(&format!(
            "fork {parent} {n}; write {n} {n} 0+1 {}; write {n} 0 0+1 {}",
            100 + n,
            50 + n
        ));
    }
    let seen = [&[0][..], &[1], &[1, 2], &[3], &[1, 2, 4], &[1, 5], &[1, 2, 4, 6], &[3, 7]];
    for (p, own) in seen.iter().enumerate() {
        for page in 1..8 {
            let byte = if own.contains(&page) { 100 + page } else { 1 };
            s.run(&format!("read {p} {page} 0+1; expect ok b={byte:02x}"));
        }
        let first = if p == 0 { 1 } else { 50 + p };
        s.run(&format!("read {p} 0 0+1; expect ok b={first:02x}"));
    }
    s.end();
}

#[test]
fn e28_all_stores_of_many_children_are_seen() {
    let mut s = scene("map 0 0 8 rw shared fixed anon");
    for p in 1..8 {
        s.run(&format!("fork 0 {p}; write {p} {p} 0+1 {}", 64 + p));
    }
    for p in 1..8 {
        s.run(&format!("exit {p}; read 0 {p} 0+1; expect ok b={:02x}", 64 + p));
    }
    assert_eq!(anons(&s), 7);
    s.end();
}

#[test]
fn e29_the_lock_moves_to_the_copy() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; lock 0 0 1; fork 0 1");
    let old = s.frame(0, 0).expect("locked");
    s.run("write 0 0 0+1 66; expect counter cow_fault +1");
    assert_eq!(page(&s, 0, 0).cowcnt(), 1);
    assert_eq!(s.machine().db().page(s.page(old)).cowcnt(), 0);
    s.run("unlock 0 0 1; expect ok");
    s.end();
}

#[test]
fn e19_nobody_stores_against_the_rights() {
    // There is no debugger's store; a locked page that gets its rights back is copied and keeps its lock (e29).
    crate::not_built::no_word_for("poke 0 0 1");
    // The process and the kernel for it are refused, before and after a fork, and nothing is copied.
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; protect 0 0 1 r; lock 0 0 1");
    for forked in [false, true] {
        let (at, frame) = (crate::addr(0).get(), s.frame(0, 0));
        let store = s.process(0).store(at, &[1]).map_err(|e| e.signal);
        assert_eq!(store, Err(addr_space::Signal::SegvAccErr), "forked: {forked}");
        let copyout = s.process(0).copyout(at, &[1]).map_err(|e| e.errno);
        assert_eq!(copyout, Err(page_db::errno::EFAULT), "forked: {forked}");
        s.run("read 0 0 0+1; expect ok b=41; expect counter cow_fault +0");
        assert_eq!((s.frame(0, 0), page(&s, 0, 0).lckcnt()), (frame, 1), "forked: {forked}");
        if !forked {
            s.run("fork 0 1");
        }
    }
    s.end();
}

/// A fork shares the anon: the copy is the child's or the parent's as always, and only who is alone with the lent page breaks the loan.
#[test]
fn e14_one_side_lends_and_unmaps_the_other_stores() {
    for (lender, stores, breaks) in [(0, 1, true), (1, 0, true), (0, 0, false)] {
        let mut s = scene(ONE);
        s.run("fork 0 1");
        let lent = lend(&mut s, lender, 0, 1);
        if breaks {
            s.run(&format!("unmap {lender} 0 1"));
        }
        s.run(&format!("write {stores} 0 0+1 66; expect counter cow_fault +1"));
        assert_eq!(seen(&lent), [65], "{lender} lends, {stores} stores");
        assert_eq!(orphans(&s), u64::from(breaks));
        give_back(&mut s, lent);
        s.end();
    }
}

#[test]
fn e23_a_reader_of_lent_pages_reads_the_old_bytes() {
    // Whatever way the owner's bytes change: shared memory, a file's page through a mapping, by write, by truncation, as part of a page.
    let store = |setup: &str, change: &str, now: &str| {
        let mut s = scene(setup);
        let lent = lend(&mut s, 0, 0, 1);
        s.run(change);
        assert_eq!(seen(&lent), [65], "{change}");
        s.run(now);
        give_back(&mut s, lent);
        s.run(now);
        s.end();
    };
    let memory = "map 0 0 1 rw shared fixed anon; write 0 0 0+1 65; fork 0 1; read 1 0 0+1";
    store(memory, "write 1 0 0+1 66", "read 0 0 0+1; expect ok b=42; read 1 0 0+1; expect ok b=42");
    let rights = "protect 0 0 1 r; protect 0 0 1 rw; write 0 0 0+1 66";
    store(memory, rights, "read 1 0 0+1; expect ok b=42");
    let file = "file 0 4096; pwrite 0 0 4096 65; map 0 0 1 rw shared fixed file 0 0; read 0 0 0+1; \
                fork 0 1; read 1 0 0+1";
    store(file, "write 1 0 0+1 66", "read 0 0 0+1; expect ok b=42");
    store(file, "pwrite 0 0 1 66", "read 0 0 0+1; expect ok b=42; read 1 0 0+1; expect ok b=42");
    store(file, "truncate 0 0; truncate 0 4096", "read 0 0 0+1; expect ok b=00");
    let tail = "file 0 4096; pwrite 0 0 4096 65; map 0 0 1 rw shared fixed file 0 0; read 0 0 0+1";
    let mut s = scene(tail);
    let lent = lend(&mut s, 0, 0, 1);
    s.run("truncate 0 100; truncate 0 4096; read 0 0+100 0+1; expect ok b=00");
    let mut byte = [0];
    assert_eq!(lent.read(100, &mut byte), 1);
    assert_eq!(byte, [165], "the part that was cut off");
    give_back(&mut s, lent);
    s.end();
}
