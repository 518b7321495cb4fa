//! From a page to what it is used for.

use crate::{Scene, check, run_ok};
use page_db::dump::{ColourRow, FreeLists};
use page_db::{PageState, VnodeKind};
use std::sync::Arc;

#[test]
fn each_use_of_a_page_structure_is_a_membership_that_agrees_with_its_state() {
    let mut s = Scene::on("machine memory=256 colours=4");
    s.run(
        "
        file 0 32768; map 0 0 8 r shared fixed file 0 0; read 0 0 8; unmap 0 4 4
        map 0 16 4 rw priv fixed anon; write 0 16 4 1
    ",
    );
    let (cx, db) = (s.machine().cx(), s.machine().db());
    let named = db.hash().all(cx, db.pages());
    let (mut free, mut cached) = (0, 0);
    for id in db.pages().ids() {
        let p = db.page(id);
        let hashed = named.iter().any(|(_, page)| *page == id);
        let listed = p.identity().is_some_and(|n| db.vnode_pages(cx, n.vnode).contains(&id));
        assert_eq!(hashed, p.identity().is_some(), "{id}: in the hash if and only if named");
        assert_eq!(listed, hashed, "{id}: on its vnode's list if and only if in the hash");
        match (p.state().contains(PageState::FREE), hashed) {
            (true, true) => cached += 1,
            (true, false) => free += 1,
            (false, _) => {}
        }
    }
    let lists = FreeLists::of(cx, db);
    let on_lists = |f: fn(&ColourRow) -> u64| lists.colours.iter().map(f).sum::<u64>();
    assert_eq!((on_lists(|r| r.cached), cached), (4, 4), "cached: free, and named");
    assert_eq!(on_lists(|r| r.free) + lists.magazines.iter().sum::<u64>(), free);
    assert_eq!(lists.freemem, free + cached);
    assert_eq!(named.len(), 12);
    s.end();
}

#[test]
fn the_page_hash_maps_names_to_pages_through_chains() {
    // More pages than a small hash can keep apart: chains form, and every page is found in its own.
    let mut s = Scene::on("machine memory=512");
    s.run("map 0 0 200 rw priv fixed anon; write 0 0 200 1; file 0 400k; map 0 512 100 r shared fixed file 0 0; read 0 512 100");
    let (cx, db) = (s.machine().cx(), s.machine().db());
    let chains = db.hash().chain_lengths(cx, db.pages());
    let pages: u64 = chains.iter().zip(0u64..).map(|(n, length)| n * length).sum();
    assert_eq!(pages, 300, "{chains:?}");
    assert!(chains.iter().skip(2).sum::<u64>() > 0, "some chain has two pages or more: {chains:?}");
    for (name, page) in db.hash().all(cx, db.pages()) {
        assert_eq!(db.exists(cx, name), Some(page));
    }
    s.end();
}

#[test]
fn the_second_implementation_of_the_hash_finds_the_same_pages() {
    for hash in ["chain", "dashmap"] {
        let mut s = Scene::on(&format!("machine memory=256 hash={hash}"));
        s.run("file 0 64k; map 0 0 16 rw shared fixed file 0 0; write 0 0 16 1; unmap 0 0 16; map 0 0 16 r shared fixed file 0 0");
        s.run("read 0 0 16; expect counter pgpgin +0");
        s.end();
    }
}

#[test]
fn v_pages_lists_the_pages_of_files_and_of_identity_vnodes() {
    let mut s = Scene::new();
    s.run("file 0 12288; map 0 0 3 r shared fixed file 0 0; read 0 0 3; map 0 8 2 rw priv fixed anon; write 0 8 2 1");
    let machine = s.machine().clone();
    let heap = machine.kmem().alloc(&machine.kernel_scx(), 4).expect("frames");
    let (cx, db) = (machine.cx(), machine.db());
    let pages = |kind| {
        let ids = db.vnodes().ids().filter(|v| db.vnodes().kind(*v) == kind);
        let each = ids.map(|v| {
            let pages = db.vnode_pages(cx, v);
            assert!(pages.iter().all(|p| db.page(*p).identity().is_some_and(|n| n.vnode == v)));
            assert_eq!(pages.len() as u64, db.vnode_page_count(cx, v));
            pages.len()
        });
        each.sum::<usize>()
    };
    assert_eq!([VnodeKind::File, VnodeKind::Swap, VnodeKind::Kernel].map(pages), [3, 2, 4]);
    machine.kmem().free(&machine.kernel_scx(), heap).expect("an allocation");
    s.end();
}

#[test]
fn free_pages_lie_on_lists_by_colour() {
    let mut s = Scene::on("machine memory=128 colours=4");
    s.run("file 0 16k; map 0 0 4 r shared fixed file 0 0; read 0 0 4; unmap 0 0 4");
    let (cx, db) = (s.machine().cx(), s.machine().db());
    let lists = FreeLists::of(cx, db);
    assert_eq!(lists.colours.len(), 4);
    for row in &lists.colours {
        let mine = |named: bool| {
            let of_bin = db.pages().ids().filter(|p| db.pfn(*p).0 % 4 == row.bin);
            of_bin
                .filter(|p| db.page(*p).is_free() && db.page(*p).identity().is_some() == named)
                .count() as u64
        };
        assert_eq!((row.free, row.cached), (mine(false), mine(true)), "bin {}", row.bin);
    }
    assert!(lists.colours.iter().all(|r| r.cached == 1), "four pages in a row, one of each colour");
    s.end();
}

#[test]
fn consecutive_addresses_get_consecutive_colours() {
    let mut s = Scene::on("machine memory=128 colours=4");
    s.run("map 0 0 12 rw priv fixed anon; write 0 0 12 1");
    let colours: Vec<_> = (0..12).map(|p| s.frame(0, p).expect("stored to") % 4).collect();
    assert!(colours.windows(2).all(|w| (w[0] + 1) % 4 == w[1]), "{colours:?}");
    s.end();
}

#[test]
fn when_a_colour_runs_out_another_serves() {
    let mut s = Scene::on("machine memory=128 colours=4 swap=mem:256");
    // Every fourth page: all ask for one colour, which has 32 frames at most.
    s.run("map 0 0 400 rw priv fixed anon noreserve");
    for page in (0..200).step_by(4) {
        s.run(&format!("write 0 {page} 0+1 1; expect ok"));
    }
    let frames: Vec<_> = (0..200).step_by(4).filter_map(|p| s.frame(0, p)).collect();
    assert!(frames.iter().any(|f| f % 4 != frames[0] % 4), "some page has another colour");
    s.end();
}

#[test]
fn base_pages_are_the_one_size_there_is() {
    let mut s = Scene::on("machine memory=1024");
    s.run("map 0 512 1024 rw priv fixed anon; write 0 512 512 1");
    let space = Arc::clone(&s.process(0).space());
    let mut levels = Vec::new();
    space.hat().walk(s.machine().cx(), space.limits(), &mut |_, t| levels.push(t.level));
    assert_eq!((levels.len(), levels.iter().all(|l| *l == 0)), (512, true));
    s.end();
}

#[test]
fn the_cache_list_keeps_file_contents_for_the_next_who_maps_them() {
    check(
        "overview/cachelist",
        "unmapped: all four pages free, still named and listed; mapped by another process: back in use, nothing read",
        "
        machine memory=256
        file 0 16384; pwrite 0 0 16384 1; fork 0 1
        map 0 0 4 rw shared fixed file 0 0; read 0 0 4; sync 0 0 4 sync
        exit 0
        ::vnode 0
        ::memstat
        map 1 8 4 r shared fixed file 0 0; advise 1 8 4 random
        read 1 8 4
        expect counter pgin +0
        expect counter pgrec +4
        ::vnode 0
    ",
    );
}

#[test]
fn a_reopened_file_needs_no_io() {
    let path = std::env::temp_dir().join(format!("segvm-it-{}-reopen", std::process::id()));
    std::fs::write(&path, vec![7u8; 4 * 4096]).expect("a file in the temporary directory");
    let mut s = Scene::new();
    s.run(&format!(
        "
        hostfile 0 \"{}\" ro
        map 0 0 4 r shared fixed file 0 0; read 0 0 4; expect counter pgpgin +4
        unmap 0 0 4
        map 0 8 4 r priv fixed file 0 0; advise 0 8 4 random
        read 0 8 4; expect counter pgpgin +0; expect counter pgrec +4
        pread 0 0 16384; expect ok n=16384
        expect counter pgpgin +0
    ",
        path.display()
    ));
    s.end();
    std::fs::remove_file(path).expect("it was made above");
}

#[test]
fn read_and_write_find_the_page_by_its_name() {
    // No mapping is needed: the identity is enough.
    run_ok(
        "
        machine memory=256
        file 0 8192
        map 0 0 1 rw priv fixed anon
        fread 0 0 0 0 0+8; expect ok n=8
        expect counter pgpgin +1
        fread 0 0 100 0 0+8; expect ok n=8
        expect counter pgpgin +0
        fwrite 0 0 200 0 0+8; expect ok n=8
        expect counter pgpgin +0
        map 0 4 2 r shared fixed file 0 0; advise 0 4 2 random
        read 0 4 1
        expect counter pgpgin +0
    ",
    );
}

#[test]
fn cached_pages_are_taken_for_other_uses_oldest_first_when_no_page_is_free() {
    let mut s = Scene::on("machine memory=128");
    s.run("file 0 16k; map 0 0 4 r shared fixed file 0 0; advise 0 0 4 random");
    s.run("read 0 0 4; unmap 0 0 2; unmap 0 2 2");
    let cached = |s: &Scene| (0..4).filter(|p| s.file_frame(0, *p).is_some()).collect::<Vec<_>>();
    assert_eq!(cached(&s), [0, 1, 2, 3]);
    s.run("map 0 64 400 rw priv fixed anon noreserve");
    let mut gone = Vec::new();
    for page in 64.. {
        s.run(&format!("write 0 {page} 0+1 1; expect ok"));
        let left = cached(&s);
        gone.extend((0..4).filter(|p| !left.contains(p) && !gone.contains(p)).collect::<Vec<_>>());
        if left.is_empty() {
            break;
        }
    }
    assert_eq!(gone, [0, 1, 2, 3], "first in, first out");
    s.end();
}

#[test]
fn pages_that_will_not_be_needed_are_taken_first() {
    // Sequential advice frees behind the reader, to the head of the list.
    let mut s = Scene::on("machine memory=128");
    s.run(
        "
        file 0 4096; map 0 0 1 r shared fixed file 0 0; read 0 0 1; unmap 0 0 1
        file 1 256k; map 0 100 64 r shared fixed file 1 0; advise 0 100 64 sequential
    ",
    );
    for page in 0..32 {
        s.run(&format!("read 0 {} 1", 100 + page));
    }
    let behind = (0..32)
        .filter_map(|p| s.file_frame(1, p))
        .filter(|f| s.machine().db().page(s.page(*f)).is_free());
    assert!(behind.count() > 0, "pages behind the reader were offered");
    s.run("map 0 400 200 rw priv fixed anon noreserve");
    let mut page = 400;
    let first = loop {
        let held: Vec<_> = (0..32).filter(|p| s.file_frame(1, *p).is_some()).collect();
        s.run(&format!("write 0 {page} 0+1 1; expect ok"));
        page += 1;
        if s.file_frame(0, 0).is_none() {
            break "the page that was only unmapped";
        }
        if (0..32).filter(|p| s.file_frame(1, *p).is_some()).count() < held.len() {
            break "a page that was used once";
        }
    };
    assert_eq!(first, "a page that was used once");
    s.end();
}

#[test]
fn the_clock_frees_what_was_not_used_between_its_hands() {
    // 256 frames, the hands 128 apart. The back hand meets the page first and lets it be: it is referenced.
    let used = |between: &str| {
        let mut s = Scene::on("machine memory=256");
        s.run("file 0 4096; map 0 0 1 r shared fixed file 0 0; read 0 0 1");
        let frame = s.frame(0, 0).expect("mapped");
        let index = frame
            - s.machine()
                .db()
                .pages()
                .ids()
                .next()
                .map(|p| s.machine().db().pfn(p).0)
                .expect("memory");
        assert!(index < 100, "{index}");
        // The front hand starts at 128, so it clears the bit on its way round.
        s.run("scan 128");
        assert_ne!(s.rights(0, 0), "-", "the back hand found it referenced");
        s.run("scan 120");
        assert_ne!(s.rights(0, 0), "-", "the front hand only clears");
        s.run(between);
        s.run("scan 120");
        let gone = s.rights(0, 0) == "-";
        assert_eq!(s.machine().db().page(s.page(frame)).is_free(), gone);
        s.end();
        gone
    };
    assert!(used("verify"), "not used: to the cache list");
    assert!(!used("read 0 0 0+1"), "used again: kept");
}

#[test]
fn the_hat_is_enumerable_from_pages_and_from_spaces_alike() {
    let mut s = Scene::new();
    s.run(
        "
        file 0 16384; map 0 0 4 rw shared fixed file 0 0; map 0 8 4 rw priv fixed anon
        write 0 0 4 1; write 0 8 4 2; fork 0 1; read 1 0 12+0; read 1 8 4; fork 1 2; write 2 8 1 3
    ",
    );
    let (cx, db) = (s.machine().cx(), s.machine().db());
    let mut down = Vec::new();
    for proc in 0..3 {
        let space = Arc::clone(&s.process(proc).space());
        let hat = space.hat().id();
        space.hat().walk(cx, space.limits(), &mut |at, t| down.push((t.pfn.0, hat, at)));
    }
    let mut up = Vec::new();
    for id in db.pages().ids().filter(|p| db.page(*p).identity().is_some()) {
        let list = s.machine().hat().mappings_of(cx, id);
        up.extend(list.into_iter().map(|(hat, at, _)| (db.pfn(id).0, hat, at)));
    }
    down.sort_unstable();
    up.sort_unstable();
    assert_eq!(down, up);
    assert!(up.len() > 12);
    s.end();
}
