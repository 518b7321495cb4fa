//! What seg_vn does: mapping files and anonymous memory, with the reservations that go with it.
//!
//! The numbers in the first lines are those of illumos.md 12.

use crate::{Scene, run_ok};
use page_db::PAGE_SIZE;

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Pages of swap promised now.
fn reserved(s: &Scene) -> u64 {
    s.machine().swap().info().reserved()
}

fn anon_maps(s: &Scene) -> usize {
    s.machine().anon().maps().len()
}

#[test]
fn equal_neighbours_are_one_segment() {
    // 11
    let mut s = scene("map 0 0 4 rw priv fixed anon; map 0 4 4 rw priv fixed anon");
    let shape = |s: &Scene| {
        let space = std::sync::Arc::clone(&s.process(0).space());
        let segs = space.segs(s.machine().cx());
        (segs.len(), space.state().size() / PAGE_SIZE)
    };
    assert_eq!(shape(&s), (1, 8));
    s.run("map 0 8 4 r priv fixed anon");
    assert_eq!(shape(&s), (2, 12), "other rights: another segment");
    s.end();
}

#[test]
fn unmapping_the_middle_page_frees_its_anon_and_keeps_the_others() {
    // 12
    let mut s =
        scene("map 0 0 3 rw priv fixed anon; write 0 0 1 65; write 0 1 1 66; write 0 2 1 67");
    let [first, middle, last] = [0, 1, 2].map(|p| s.anon(0, p).expect("stored to"));
    let free = s.machine().db().freemem();
    s.run("unmap 0 1 1");
    assert_eq!(s.anon(0, 0), Some(first));
    assert_eq!(s.anon(0, 2), Some(last), "the same anon for the last page");
    assert_eq!(s.machine().db().freemem(), free + 1);
    let page = s.machine().db().page(s.page(middle.frame.expect("was resident")));
    assert_eq!(page.identity(), None, "its page was destroyed");
    s.end();
}

#[test]
fn anonymous_memory_is_promised_when_mapped_and_made_when_touched() {
    // 20
    let mut s = Scene::new();
    let before = reserved(&s);
    s.run("map 0 0 4 rw priv fixed anon");
    assert_eq!(reserved(&s), before + 4);
    assert_eq!((anon_maps(&s), s.machine().swap().live()), (0, 0));
    s.story(
        2,
        "
        read 0 0 0+1; expect ok b=00 | 0[a:1/rw- .] | f1 2B1 zf1
    ",
    );
    assert_eq!((anon_maps(&s), s.machine().swap().live()), (1, 1));
    assert_eq!(reserved(&s), before + 4, "touching promises nothing more");
    s.end();
}

#[test]
fn memory_without_reservation_is_promised_page_by_page() {
    // 21
    let mut s = Scene::new();
    let before = reserved(&s);
    s.run("map 0 0 1g rw priv fixed anon noreserve");
    assert_eq!(reserved(&s), before);
    s.run("write 0 7 0+1 1; write 0 100000 0+1 1; read 0 200000 0+1");
    assert_eq!(reserved(&s), before + 3);
    s.run("unmap 0 0 1g");
    assert_eq!(reserved(&s), before);
    s.end();
}

#[test]
fn a_private_file_mapping_is_promised_when_it_may_be_stored_to() {
    // 22
    let mut s = scene("file 0 16384; map 0 0 4 r priv fixed file 0 0");
    assert_eq!(reserved(&s), 0);
    s.run("protect 0 0 4 rw; expect ok");
    assert_eq!(reserved(&s), 4);
    s.run("protect 0 0 4 r; expect ok");
    assert_eq!(reserved(&s), 0, "returned: no page was copied");
    s.run("protect 0 0 4 rw; write 0 0 0+1 1; protect 0 0 4 r");
    assert_eq!(reserved(&s), 4, "kept: there is an anon map now");
    s.end();
}

#[test]
fn without_swap_rights_stay_as_they_are() {
    // 22
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run("file 0 0x10000000; map 0 0 0x10000000 r priv fixed file 0 0");
    s.run(
        "protect 0 0 0x10000000 rw; expect EAGAIN; write 0 0 0+1 1; expect SEGV at=0 code=accerr",
    );
    assert_eq!(reserved(&s), 0);
    s.end();
}

#[test]
fn a_mapping_that_cannot_be_promised_is_not_made() {
    // 23
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run("map 0 0 256m rw priv fixed anon; expect EAGAIN; read 0 0 0+1; expect SEGV at=0 code=maperr");
    assert_eq!(reserved(&s), 0);
    assert_eq!(s.process(0).space().state().size(), 0);
    s.run("map 0 0 256m rw priv fixed anon noreserve; expect ok");
    s.end();
}

#[test]
fn a_private_store_leaves_the_files_page_as_it_was() {
    // 24
    let mut s = scene(
        "file 0 4096; fork 0 1; map 0 0 1 rw priv fixed file 0 0; map 1 0 1 r shared fixed file 0 0; read 1 0 1",
    );
    s.run("read 0 0 1");
    let file = s.file_frame(0, 0).expect("cached");
    assert_eq!((s.rights(0, 0), s.mappers(file)), ("r--".into(), vec![(0, 0), (1, 0)]));
    s.run("write 0 0 0+1 65; expect counter cow_fault +1");
    let page = s.machine().db().page(s.page(file));
    assert!(
        !page.is_free() && !page.ref_mod().contains(page_db::RefMod::MOD),
        "resident, not modified"
    );
    assert_eq!(s.mappers(file), vec![(1, 0)], "its share count fell by one");
    s.run("write 0 0 0+1 66; expect counter cow_fault +0; read 1 0 0+1; expect ok b=00");
    s.end();
}

#[test]
fn the_last_holder_of_an_anon_steals_it() {
    // 25
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66");
    s.story(
        2,
        "
        fork 0 1        | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-]   |
        write 1 1 0+1 1 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] | f1 1B1 cp1
        write 0 1 0+1 2 | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn shared_memory_is_one_map_for_both_processes() {
    // 26
    let mut s =
        scene("map 0 0 1 rw shared fixed anon; write 0 0 0+1 65; fork 0 1; write 1 0 0+1 66");
    s.run("read 0 0 0+1; expect ok b=42");
    let maps = s.machine().anon().maps();
    assert_eq!((maps.len(), maps[0].refs()), (1, 2));
    drop(maps);
    let bits = s.process(0).mincore(crate::harness::addr(0).get(), PAGE_SIZE).expect("mapped");
    assert_eq!(bits[0] & 0x21, 0x21, "in memory, and anonymous although shared: {:#x}", bits[0]);
    s.end();
}

#[test]
fn rights_are_kept_by_page() {
    // 31
    let mut s =
        scene("map 0 0 3 rw priv fixed anon; write 0 0 1 65; write 0 1 1 66; write 0 2 1 67");
    s.run(
        "
        protect 0 1 1 -
        read 0 1 0+1; expect SEGV at=0 code=accerr
        read 0 0 0+1; expect ok b=41
        write 0 2 0+1 68; expect ok
    ",
    );
    assert_eq!([0, 1, 2].map(|p| s.rights(0, p)), ["rw-", "-", "rw-"]);
    let space = std::sync::Arc::clone(&s.process(0).space());
    let segs = space.segs(s.machine().cx());
    assert_eq!(segs.len(), 1);
    let seg = segs.iter().next().expect("one");
    let scx = space.scx(s.machine().cx(), seg.range(), false);
    let mut prots = Vec::new();
    seg.ops().prots(&scx, seg.range(), &mut |r, p| prots.push((r.pages().get(), p.to_string())));
    assert_eq!(prots, [(1, "rw-".into()), (1, "---".into()), (1, "rw-".into())]);
    drop(segs);
    s.run("protect 0 1 1 rw; read 0 1 0+1; expect ok b=42");
    s.end();
}

#[test]
fn two_processes_that_map_one_file_have_one_page() {
    // 36
    let mut s =
        scene("file 0 4096; map 0 0 1 rw priv fixed file 0 0; fork 0 1; read 0 0 1; read 1 0 1");
    let file = s.file_frame(0, 0).expect("cached");
    let share = |s: &Scene| s.machine().db().share_count(s.machine().cx(), s.page(file));
    assert_eq!(share(&s), 2);
    s.run("write 0 0 0+1 1");
    assert_eq!(share(&s), 1);
    assert_ne!(s.frame(0, 0), Some(file));
    s.end();
}

#[test]
fn an_unmapped_files_pages_wait_on_the_cache_list() {
    // 37
    run_ok(
        "
        machine memory=256
        file 0 16384
        map 0 0 4 r shared fixed file 0 0; advise 0 0 4 random
        read 0 0 4; expect counter pgpgin +4
        unmap 0 0 4
        ::page 0
        map 0 8 4 r shared fixed file 0 0; advise 0 8 4 random
        read 0 8 4
        expect counter pgpgin +0
        expect counter pgrec +4
        expect counter pgfrec +4
        expect counter maj_fault +0
    ",
    );
}

#[test]
fn a_large_map_has_only_the_chunks_that_were_touched() {
    // 38: 513 slots, as sparse as five million.
    for pages in [513, 5_000_000] {
        let mut s = Scene::new();
        s.run(&format!(
            "map 0 0 {pages} rw priv fixed anon noreserve; write 0 0 0+1 1; write 0 512 0+1 2"
        ));
        let maps = s.machine().anon().maps();
        let cx = s.machine().cx();
        let (map, first) = (&maps[0], seg_drivers::seg_vn::FIRST_SLOT);
        assert_eq!(map.chunks(cx).len(), 2, "of {pages} slots");
        let slots: Vec<_> =
            map.slots(cx, first..first + pages).iter().map(|(at, _)| at - first).collect();
        assert_eq!(slots, [0, 512]);
        drop(maps);
        s.end();
    }
}

// ---- the truth table of a fault: kind of mapping, what the slot holds, access ----

#[test]
fn private_anonymous_memory() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; advise 0 0 2 random");
    s.story(
        2,
        "
        # slot empty, load or store: a zero page of its own, full rights
        read 0 0 0+1             | 0[a:1/rw- .]                   | f1 2B1 zf1
        write 0 1 0+1 1          | 0[a:1/rw- b:1/rw-]             | f1 2B1 zf1
        fork 0 1                 | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-]     |
        # two references, load: the same page without write; store: a copy
        read 1 0 0+1             | 0[a:2/r-- b:2/r--] 1[a:2/r-- b:2/-]   | f1 1A1
        write 1 1 0+1 1          | 0[a:2/r-- b:1/r--] 1[a:2/r-- c:1/rw-] | f1 1B1 cp1
        # one reference, any access: the same page, full rights
        exit 0                   | 1[a:1/r-- c:1/rw-]             |
        write 1 0 0+1 1          | 1[a:1/rw- c:1/rw-]             | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn a_private_file_mapping() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 1; map 0 0 2 rwx priv fixed file 0 0; advise 0 0 2 random",
    );
    s.story(
        2,
        "
        # slot empty, load or fetch: the page cache's page without write, no anon map
        read 0 0 0+1    | 0[file/r-x .]                         | f1 2A1
        fetch 0 1       | 0[file/r-x file/r-x]                  | f1 2A1
        # store: a copy
        write 0 0 0+1 9 | 0[a:1/rwx file/r-x]                   | f1 2B1 cp1
        # slot filled: as anonymous memory, the file is not asked again
        fork 0 1        | 0[a:2/r-x file/r-x] 1[a:2/- .]        |
        read 1 0 0+1    | 0[a:2/r-x file/r-x] 1[a:2/r-x .]      | f1 1A1
        write 1 0 0+1 8 | 0[a:1/r-x file/r-x] 1[b:1/rwx .]      | f1 1B1 cp1
    ",
    );
    s.end();
}

#[test]
fn a_shared_file_mapping() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 1; map 0 0 2 rw shared fixed file 0 0; advise 0 0 2 random",
    );
    s.story(
        2,
        "
        read 0 0 0+1    | 0[file/rw- .]                  | f1 2A1
        write 0 1 0+1 9 | 0[file/rw- file/rw-]           | f1 2A1
        fork 0 1        | 0[file/rw- file/rw-] 1[. .]    |
        write 1 0 0+1 8 | 0[file/rw- file/rw-] 1[file/rw- .] | f1 2A1
        read 0 0 0+1; expect ok b=08 | 0[file/rw- file/rw-] 1[file/rw- .] |
    ",
    );
    s.end();
}

#[test]
fn shared_anonymous_memory() {
    let mut s = scene("map 0 0 1 rw shared fixed anon; fork 0 1; fork 0 2");
    s.story(
        1,
        "
        read 0 0 0+1    | 0[a:1/rw-] 1[a:1/-] 2[a:1/-]     | f1 2B1 zf1
        # full rights, however many see it
        read 1 0 0+1    | 0[a:1/rw-] 1[a:1/rw-] 2[a:1/-]   | f1 1A1
        write 2 0 0+1 9 | 0[a:1/rw-] 1[a:1/rw-] 2[a:1/rw-] | f1 1A1
        read 0 0 0+1; expect ok b=09 | 0[a:1/rw-] 1[a:1/rw-] 2[a:1/rw-] |
    ",
    );
    s.end();
}
