//! Klusters: pages of a file read along with one that a load must read, where the segment finds it sensible.

use crate::Scene;
use crate::harness::addr;
use page_db::PAGE_SIZE;

/// A machine that reads up to eight pages in one go, and the file.
fn machine(setup: &str) -> Scene {
    let mut s = Scene::on("machine memory=512 kluster=8");
    s.run("file 0 65536");
    s.run(setup);
    s
}

/// The pages of the file that are in memory.
fn resident(s: &Scene) -> Vec<u64> {
    (0..16).filter(|page| s.file_frame(0, *page).is_some()).collect()
}

#[test]
fn a_load_reads_forward_and_then_backward() {
    let mut s =
        machine("map 0 0 16 r shared fixed file 0 0; read 0 6 0+1; expect counter maj_fault +1");
    assert_eq!(resident(&s), (6..14).collect::<Vec<_>>());
    s.run("read 0 7 7; expect counter maj_fault +0; read 0 0 0+1; expect counter maj_fault +1");
    assert_eq!(resident(&s), (0..14).collect::<Vec<_>>(), "up to the first that is there");
    s.end();

    let s = machine("map 0 0 16 r priv fixed file 0 0; read 0 13 0+1");
    assert_eq!(resident(&s), (8..16).collect::<Vec<_>>(), "three are left ahead, four are behind");
    s.end();
}

#[test]
fn advice_says_whether_and_which_way() {
    let mut s = machine("map 0 0 16 r shared fixed file 0 0; advise 0 0 16 random; read 0 6 0+1");
    assert_eq!(resident(&s), [6]);
    s.run("advise 0 0 16 sequential; read 0 14 0+1");
    assert_eq!(resident(&s), [6, 14, 15], "never backward");
    s.end();
}

#[test]
fn it_ends_at_the_ends() {
    // Of the segment, of the file, of memory.
    let s = machine("map 0 0 4 r shared fixed file 0 5; read 0 2 0+1");
    assert_eq!(resident(&s), [5, 6, 7, 8]);
    s.end();
    let mut s = machine("truncate 0 20000; map 0 0 16 r shared fixed file 0 0; read 0 3 0+1");
    assert_eq!(resident(&s), [0, 1, 2, 3, 4]);
    s.run("read 0 5 0+1; expect BUS");
    s.end();
    let mut s = machine("map 0 0 16 r shared fixed file 0 0");
    let spare = s.machine().db().freemem() - s.machine().db().free_mem().thresholds().minfree;
    s.run(&format!("squeeze {spare}; read 0 6 0+1; expect ok"));
    assert_eq!(resident(&s), [6], "memory is short");
    s.run("release");
    s.end();
}

#[test]
fn a_page_that_has_a_copy_of_its_own_ends_it() {
    let mut s = machine("map 0 0 16 rw priv fixed file 0 0; write 0 8 0+1 9; pageout *");
    s.run("truncate 0 0; truncate 0 65536; read 0 6 0+1; expect counter maj_fault +1");
    assert_eq!(resident(&s), [0, 1, 2, 3, 4, 5, 6, 7], "the file's page 8 is of no use here");
    s.end();
}

#[test]
fn stores_and_soft_locks_read_one_page_and_so_does_a_machine_that_is_not_told_to() {
    let s = machine("map 0 0 16 rw shared fixed file 0 0; write 0 6 0+1 1");
    assert_eq!(resident(&s), [6]);
    s.end();
    let mut s = Scene::new();
    s.run("file 0 65536; map 0 0 16 r shared fixed file 0 0; read 0 6 0+1");
    assert_eq!(resident(&s), [6]);
    s.end();
}

#[test]
fn a_segment_answers_for_its_own_pages() {
    // illumos.md 4.8: outside, advice, shared, no anons, one of two, two that lie together on swap.
    let mut s = machine(
        "map 0 0 8 rw priv fixed anon; map 0 100 4 rw shared fixed anon; advise 0 6 1 random; advise 0 7 1 sequential",
    );
    let asks = |s: &Scene, page: u64, pages: i64| {
        let (space, cx) = (s.process(0).space(), s.machine().cx());
        let segs = space.segs(cx);
        let seg = segs.seg_at(cx, addr(page)).expect("mapped");
        let delta = pages * PAGE_SIZE as i64;
        seg.ops().kluster(&space.seg_cx(cx, seg.range()), addr(page), delta)
    };
    assert!(asks(&s, 0, 1) && asks(&s, 100, 3), "no anons; shared");
    assert!(
        !asks(&s, 0, -1) && !asks(&s, 0, 8) && !asks(&s, 0, i64::MAX / PAGE_SIZE as i64),
        "outside"
    );
    assert!(!asks(&s, 6, -1) && !asks(&s, 7, -1) && asks(&s, 5, 1), "advice");
    s.run("write 0 0 0+1 1; write 0 1 0+1 1; write 0 3 0+1 1");
    assert!(asks(&s, 0, 1) && asks(&s, 1, -1), "neighbours in name");
    assert!(!asks(&s, 1, 1) && !asks(&s, 2, 1), "one of the two has an anon");
    assert!(!asks(&s, 1, 2), "anons, and not so far apart in name as in the segment");
    s.end();
}

/// The advice comes when much has been stored already: one load does not write all of that.
#[test]
fn a_fault_leaves_most_of_a_long_way_behind_it_to_page_out() {
    let setup = "arena 256; file 0 819200 rw; map 0 0 200 rw shared fixed file 0 0";
    let mut s = Scene::on("machine memory=512");
    s.run(&format!("{setup}; write 0 0 199 1"));
    s.run("advise 0 0 200 sequential; read 0 199 0+1; expect ok");
    assert_eq!((s.count("pgpgout"), s.count("fsfree")), (16, 16));
    // What is left is modified still.
    s.run("verify; sync 0 0 200 sync; expect ok; expect counter fspgout +183; verify");
    s.end();

    // Clean ones between them cost nothing, and are freed with them.
    let mut s = Scene::on("machine memory=512");
    s.run(&format!("{setup}; read 0 0 199"));
    for page in (0..199).step_by(4) {
        s.run(&format!("write 0 {page} 0+1 1"));
    }
    s.run("advise 0 0 200 sequential; read 0 199 0+1; expect ok");
    let free =
        |p: &u64| s.file_frame(0, *p).is_some_and(|f| s.machine().db().page(s.page(f)).is_free());
    assert_eq!((s.count("pgpgout"), (0..200).filter(free).count()), (16, 63));
    s.end();
}

/// Who reads and stores in turn leaves nothing modified behind: a fault writes as many pages as were mapped since the one before.
#[test]
fn a_sequential_reader_keeps_up_with_its_own_stores() {
    let mut s = Scene::on("machine memory=512");
    s.run("arena 256; file 0 819200 rw; pread 0 0 819200");
    s.run("map 0 0 200 rw shared fixed file 0 0; advise 0 0 200 sequential");
    for page in 0..200 {
        s.run(&format!("read 0 {page} 0+1; write 0 {page} 0+1 1"));
    }
    assert_eq!((s.count("pgpgout"), s.count("fsfree")), (192, 192), "at the last of 13 faults");
    s.end();
}
