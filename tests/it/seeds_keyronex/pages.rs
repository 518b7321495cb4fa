//! The whole, and `vm_page_t`: frames, their queues, their names, their mappings.

use super::scene;
use crate::harness::addr;
use crate::{Scene, check, run_ok};
use page_db::{Identity, PAGE_SIZE, PageState, Pfn, SyncMode, VirtRange, VnodeKind};
use std::sync::Arc;

// ---- the introduction ----

#[test]
fn translation_is_kept_apart_from_what_is_mapped() {
    // The hat may forget anything at any time; what segments know brings it back, and nothing that a process sees changes.
    let mut s = scene(
        "
        map 0 0 4 rw priv fixed anon; write 0 0 4 65
        file 0 8192; pwrite 0 0 8192 1; map 0 8 2 r shared fixed file 0 0
        fork 0 1; write 1 1 1 99
        digest 0; digest 1
    ",
    );
    let [zero, one] = [0, 1].map(|p| s.run(&format!("read {p} 0 4; read {p} 8 2")));
    let tail = |text: &str| {
        text.lines().map(|l| l.split("->").nth(1).map(str::to_owned)).collect::<Vec<_>>()
    };
    let (was_zero, was_one) = (tail(&zero), tail(&one));
    s.forget_translations();
    assert!((0..10).all(|page| s.rights(0, page) == "-" && s.rights(1, page) == "-"));
    assert_eq!(tail(&s.run("read 0 0 4; read 0 8 2")), was_zero);
    assert_eq!(tail(&s.run("read 1 0 4; read 1 8 2")), was_one);
    s.end();
}

#[test]
fn anonymous_memory_is_backed_by_swap() {
    let mut s = Scene::on("machine memory=256 swap=mem:1024");
    // Three times more than there are frames.
    s.run("map 0 0 768 rw priv fixed anon; write 0 0 768 1; expect ok");
    assert!(s.count("anonpgout") >= 512);
    s.run("read 0 0 0+4; expect ok b=01020304; read 0 767 0+1; expect ok b=01");
    assert!(s.count("anonpgin") > 0);
    s.end();
}

#[test]
fn file_pages_are_cached() {
    run_ok(
        "
        machine memory=256
        file 0 8192
        map 0 0 2 r shared fixed file 0 0
        read 0 0 2; expect counter pgpgin +2
        unmap 0 0 2
        map 0 4 2 r shared fixed file 0 0
        read 0 4 2; expect counter pgpgin +0
        pread 0 0 8192; expect ok n=8192
        expect counter pgpgin +0
    ",
    );
}

// ---- vm_page_t ----

#[test]
fn every_frame_has_one_page_structure() {
    let s = Scene::on("machine memory=300");
    let db = Arc::clone(s.machine().db());
    assert_eq!(db.pages().len(), 300);
    for id in db.pages().ids() {
        assert_eq!(db.page_of(db.pfn(id)), Some(id));
    }
    let first = db.pages().ids().next().map(|id| db.pfn(id).0).expect("not empty");
    assert_eq!(db.page_of(Pfn(first + 300)), None, "what is not memory has none");
    s.end();
}

#[test]
fn a_page_is_on_the_queue_of_its_state() {
    // Free, cached, wired, in use as a file's or as anonymous memory: each frame is in exactly one row.
    check(
        "keyronex/queues",
        "free, cached, locked, anonymous and file pages: the rows add up to all frames",
        "
        machine memory=256
        file 0 16384
        map 0 0 4 rw priv fixed anon; write 0 0 4 65
        lock 0 0 1
        map 0 8 4 r shared fixed file 0 0; read 0 8 4
        unmap 0 10 2
        ::page
        ::memstat
    ",
    );
}

#[test]
fn a_free_page_has_no_name_and_a_wired_one_does_not_move() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 2 65; lock 0 0 1; expect ok");
    let [wired, free] = [0, 1].map(|p| s.frame(0, p).expect("mapped"));
    let (db, swap) = (Arc::clone(s.machine().db()), Arc::clone(s.machine().swap()));
    s.run("pageout *");
    assert_eq!(s.frame(0, 0), Some(wired), "a locked page stays mapped");
    assert_eq!(s.frame(0, 1), None);
    let page = |s: &Scene, frame| db.page(s.page(frame));
    assert!(!page(&s, wired).is_free() && page(&s, wired).is_claimed());
    assert!(
        page(&s, free).is_free() && page(&s, free).identity().is_some(),
        "cached: free, and named"
    );
    s.run("unmap 0 0 2");
    for frame in [wired, free] {
        assert!(page(&s, frame).is_free());
        assert_eq!(page(&s, frame).identity(), None, "free: no name");
    }
    assert_eq!(swap.live(), 0);
    s.end();
}

#[test]
fn the_resident_page_table_accounts_for_every_frame() {
    let mut s = Scene::on("machine memory=256");
    let total = |s: &Scene| {
        let all = page_db::dump::MemStat::of(s.machine().cx(), s.machine().db()).rows();
        (all[..6].iter().map(|r| r.pages.0).sum::<u64>(), all[7].pages.0)
    };
    for piece in [
        "map 0 0 64 rw priv fixed anon; write 0 0 64 1",
        "fork 0 1; write 1 0 32 2",
        "file 0 65536; map 1 100 16 rw shared fixed file 0 0; write 1 100 16 3",
        "pageout *",
        "squeeze 20",
        "release",
        "exit 1",
    ] {
        s.run(piece);
        assert_eq!(total(&s), (256, 256), "{piece}");
    }
    s.end();
}

#[test]
fn an_anonymous_page_leads_to_its_anon() {
    let s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    let anon = s.anon(0, 0).expect("stored to");
    let frame = s.frame(0, 0).expect("mapped");
    assert_eq!(anon.frame, Some(frame));
    let name = s.machine().db().page(s.page(frame)).identity().expect("in use under a name");
    let found = s.machine().swap().number_of(name).expect("an anonymous page's name is an anon's");
    assert_eq!(found.get(), anon.number);
    assert_eq!(s.machine().db().vnodes().kind(name.vnode), VnodeKind::Swap);
    s.end();
}

#[test]
fn a_file_page_is_on_its_vnodes_list_with_its_offset() {
    check(
        "keyronex/vnode_page",
        "each resident page of the file with its offset, on the vnode's own list; nothing else",
        "
        machine memory=256
        file 0 20480
        map 0 0 5 rw shared fixed file 0 0; advise 0 0 5 random
        map 0 8 2 rw priv fixed anon; write 0 8 2 1
        read 0 3 1; write 0 0 1 65; read 0 1 1
        ::vnode 0
        ::page 0
    ",
    );
}

#[test]
fn a_page_lists_every_mapping_of_it() {
    let mut s = scene(
        "
        file 0 4096; pwrite 0 0 4096 7
        fork 0 1
        map 0 3 1 r shared fixed file 0 0
        map 0 9 1 rw priv fixed file 0 0
        map 1 5 1 rw shared fixed file 0 0
        read 0 3 1; read 0 9 1; read 1 5 1
    ",
    );
    let frame = s.file_frame(0, 0).expect("cached");
    assert_eq!(s.mappers(frame), vec![(0, 3), (0, 9), (1, 5)]);
    s.run("write 0 9 1 1");
    assert_eq!(s.mappers(frame), vec![(0, 3), (1, 5)], "a copy took the place of one mapping");
    s.run("exit 1");
    assert_eq!(s.mappers(frame), vec![(0, 3)]);
    s.run("unmap 0 3 1");
    assert_eq!(s.mappers(frame), vec![]);
    s.end();
}

#[test]
fn the_mapping_list_names_address_space_and_address() {
    check(
        "keyronex/pv_list",
        "one frame, mapped at two addresses of one process and one of another",
        "
        machine memory=256
        file 0 4096; pwrite 0 0 4096 7
        fork 0 1
        map 0 3 1 r shared fixed file 0 0; read 0 3 1
        map 0 9 1 r shared fixed file 0 0; read 0 9 1
        map 1 5 1 rw shared fixed file 0 0; write 1 5 0+1 8
        ::walk 0 3
    ",
    );
}

#[test]
fn identity_says_which_object_a_page_belongs_to() {
    // The document's back pointers, as names: the anon's page under a swap vnode, the file's under its own, and the hash finds both.
    let mut s = scene("file 0 8192; map 0 0 2 rw priv fixed file 0 0");
    s.run("write 0 0 0+1 65; read 0 1 0+1");
    let (cx, db) = (s.machine().cx(), s.machine().db());
    for (page, kind) in [(0, VnodeKind::Swap), (1, VnodeKind::File)] {
        let id = s.page(s.frame(0, page).expect("mapped"));
        let name: Identity = db.page(id).identity().expect("in use under a name");
        assert_eq!(db.vnodes().kind(name.vnode), kind);
        assert_eq!(db.exists(cx, name), Some(id), "found by its name");
        assert!(db.vnode_pages(cx, name.vnode).contains(&id), "on its vnode's list");
        assert!(!db.page(id).state().contains(PageState::FREE));
    }
    s.end();
}

/// Rights and marks of a translation are the hat's to gather: a page's own record is complete once they are.
#[test]
fn stores_mark_the_page_through_its_translation() {
    let s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0; read 0 0 1");
    let page = s.page(s.frame(0, 0).expect("mapped"));
    let machine = s.machine().clone();
    let marks = || {
        let range = VirtRange::exact(addr(0).get(), PAGE_SIZE).expect("one page");
        s.process(0).space().hat().sync(machine.cx(), range, SyncMode::DontZero);
        machine.db().page(page).ref_mod()
    };
    assert!(!marks().contains(page_db::RefMod::MOD));
    s.process(0).store(addr(0).get(), &[1]).expect("may store");
    assert!(marks().contains(page_db::RefMod::MOD));
    s.end();
}
