//! The Keyronex document: what each of its sentences says about behaviour, shown.
//!
//! The document's words and ours: `vm_page_t` is a page structure, the resident page table all of them; `vm_anon_t` an anon; `vm_amap_t` an
//! anon map; a vnode object a vnode with its page list; `vm_map_t` an address space and `kmap` the kernel's, `kas`; `vm_map_entry_t` a segment;
//! `pmap` the hat.
//!
//! Sources: the Keyronex document on its virtual memory manager; uvm.md 4.3 (the worked example as a table), 4.4.

use crate::harness::addr;
use crate::{Scene, check, run_ok};
use page_db::{Identity, PageState, Pfn, SyncMode, VirtAddr, VirtRange, VnodeKind};
use std::sync::Arc;

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

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

// ---- vm_anon_t ----

#[test]
fn an_anon_has_its_page_in_memory_or_a_place_to_read_it_from() {
    let mut s = Scene::on("machine memory=256 swap=mem:1024");
    s.run("map 0 0 512 rw priv fixed anon; write 0 0 512 1");
    let all: Vec<_> = (0..512).map(|p| s.anon(0, p).expect("stored to")).collect();
    assert!(all.iter().all(|a| a.frame.is_some() || a.on_swap), "I3: never neither");
    let out = all.iter().filter(|a| a.frame.is_none()).count();
    assert!(out > 0 && out < 512, "{out} of 512 are swapped out");
    // Whatever its state, the contents are the same: bytes 1, 2, 3, ... over the whole range.
    for page in [0, 1, 255, 511] {
        s.run(&format!("read 0 {page} 0+4; expect ok b=01020304"));
    }
    s.end();
}

#[test]
fn contents_come_back_by_the_identifier_kept_while_swapped_out() {
    check(
        "keyronex/swapped_anon",
        "swapped out: no page, a place on swap; read again: the same anon and name, resident, no place",
        "
        machine memory=256 swap=mem:1024
        map 0 0 1 rw priv fixed anon; write 0 0 1 65
        map 0 8 400 rw priv fixed anon noreserve; advise 0 8 400 random
        write 0 8 400 1
        ::anon 0 0
        read 0 0 0+2
        expect ok b=4142
        expect counter anonpgin +1
        ::anon 0 0
    ",
    );
}

#[test]
fn an_anons_references_are_the_slots_that_hold_it() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; advise 0 0 1 random");
    s.story(
        1,
        "
        write 0 0 1 65               | 0[a:1/rw-]                   | f1 2B1 zf1
        fork 0 1                     | 0[a:2/r--] 1[a:2/-]          |
        fork 1 2                     | 0[a:3/r--] 1[a:3/-] 2[a:3/-] |
        unmap 1 0 1                  | 0[a:2/r--] 1[.] 2[a:2/-]     |
        exit 0                       | 1[.] 2[a:1/-]                |
        read 2 0 0+1; expect ok b=41 | 1[.] 2[a:1/rw-]              | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn two_processors_that_store_to_one_shared_anon_both_get_their_own_bytes() {
    // What the anon's lock is for: the count says two or one, never something between.
    for round in 0..50 {
        let mut s = Scene::on("machine memory=256 cpus=2");
        s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1");
        let at = addr(0).get();
        std::thread::scope(|scope| {
            let threads = [0u8, 1].map(|p| {
                let thread = s.process(p.into()).another_thread(page_db::CpuId(p.into()));
                scope.spawn(move || thread.store(at + u64::from(p), &[200 + p]))
            });
            for t in threads {
                t.join().expect("no panic").expect("both may store");
            }
        });
        s.run("read 0 0 0+2; expect ok b=c842; read 1 0 0+2; expect ok b=41c9; verify");
        let copies = s.count("cow_fault");
        assert!((1..=2).contains(&copies), "round {round}: {copies} copies");
        assert_eq!(s.anon(0, 0).map(|a| a.refs), Some(1));
        assert_eq!(s.anon(1, 0).map(|a| a.refs), Some(1));
        assert_eq!(s.machine().swap().live(), 2, "the third is freed exactly once");
        s.end();
    }
}

#[test]
fn used_memory_is_described_by_anons_and_unused_memory_by_nothing() {
    let mut s = scene("map 0 0 16t rw priv fixed anon noreserve");
    assert_eq!(s.machine().swap().live(), 0);
    s.run("write 0 0 3 1; write 0 1000000000 2 1");
    assert_eq!(s.machine().swap().live(), 5, "as many anons as pages used");
    s.end();
}

// ---- vm_amap_t ----

#[test]
fn the_anon_map_is_a_sparse_array_of_chunks_of_32() {
    check(
        "keyronex/amap_chunks",
        "pages 0, 31, 32 and 3200 fill three chunks of 32 slots; the rest of 1 TiB has none",
        "
        machine memory=256
        map 0 0 1t rw priv fixed anon noreserve
        write 0 0 0+1 1; write 0 31 0+1 2; write 0 32 0+1 3; write 0 3200 0+1 4
        ::anon 0
        unmap 0 32 1
        ::anon 0
    ",
    );
}

#[test]
fn a_chunk_is_made_with_its_first_slot_and_freed_with_its_last() {
    let mut s = scene("map 0 0 128 rw priv fixed anon");
    let chunks = |s: &Scene| {
        let maps = s.machine().anon().maps();
        maps.iter().map(|m| m.chunks(s.machine().cx())).collect::<Vec<_>>()
    };
    s.run("write 0 5 1 1");
    let first = chunks(&s)[0][0].0;
    let used = |s: &Scene| -> Vec<_> {
        chunks(s)[0].iter().map(|(at, used)| ((at - first) / 32, used.count_ones())).collect()
    };
    assert_eq!(used(&s), vec![(0, 1)]);
    s.run("write 0 64 32 1");
    assert_eq!(used(&s), vec![(0, 1), (2, 32)]);
    s.run("advise 0 0 1 normal; unmap 0 64 64");
    assert_eq!(used(&s), vec![(0, 1)]);
    s.end();
}

// ---- vm_object_t ----

#[test]
fn an_entry_maps_anonymous_memory_or_a_vnode() {
    check(
        "keyronex/objects",
        "DATA is the anon map: private anonymous memory gets one when touched, shared at once, a file mapping when stored to",
        "
        machine memory=256
        file 0 16384
        map 0 0 2 rw priv fixed anon
        map 0 4 2 rw priv fixed anon; write 0 4 1 1
        map 0 8 2 rw shared fixed anon
        map 0 12 2 rw shared fixed file 0 0; write 0 12 1 1
        map 0 16 2 rw priv fixed file 0 2; read 0 16 1
        map 0 20 2 rw priv fixed file 0 2; write 0 20 1 1
        ::seg 0
        ::pmap -x 0
    ",
    );
}

#[test]
fn a_vnode_heads_the_list_of_its_resident_pages() {
    let mut s = scene("file 0 20480; map 0 0 5 r shared fixed file 0 0; advise 0 0 5 random");
    let listed = |s: &Scene| {
        let db = s.machine().db();
        let vnode = s.file_vnode(0);
        let mut offsets: Vec<_> = db
            .vnode_pages(s.machine().cx(), vnode)
            .into_iter()
            .map(|p| db.page(p).identity().expect("listed pages have names"))
            .inspect(|name| assert_eq!(name.vnode, vnode))
            .map(|name| name.offset.0 / 4096)
            .collect();
        offsets.sort_unstable();
        offsets
    };
    assert_eq!(listed(&s), vec![] as Vec<u64>);
    s.run("read 0 4 1; read 0 2 1");
    assert_eq!(listed(&s), vec![2, 4]);
    s.run("truncate 0 12288");
    assert_eq!(listed(&s), vec![2]);
    s.end();
}

// ---- vm_map_t, vm_map_entry_t ----

#[test]
fn an_address_space_is_a_tree_of_entries() {
    check(
        "keyronex/map_entries",
        "five entries in a balanced tree, in order of address, with the gaps between them",
        "
        machine memory=256
        file 0 16384
        map 0 40 2 r priv fixed file 0 0
        map 0 10 2 rw priv fixed anon
        map 0 30 2 rw shared fixed anon
        map 0 20 2 rx priv fixed file 0 2
        map 0 50 1 rw priv fixed anon
        ::segtree 0
        ::seg 0
    ",
    );
}

#[test]
fn the_kernels_map_is_in_every_process_and_no_user_may_use_it() {
    let mut s = scene("fork 0 1");
    let machine = s.machine().clone();
    let range = machine.kmem().alloc(&machine.kernel_scx(), 2).expect("frames");
    // Also in a process that is made afterwards.
    s.run("fork 1 2");
    for p in 0..3 {
        let hat = s.process(p).space().hat().id();
        for at in range.iter_pages() {
            let way = machine.hat().vatopfn(machine.cx(), hat, at).expect("a live hat");
            let (pfn, prot) = way.pfn.expect("the kernel's half is in every process's tables");
            assert!(!prot.contains(page_db::Prot::USER), "supervisor only");
            let page = s.page(pfn.0);
            let name = machine.db().page(page).identity().expect("named by the kernel's vnode");
            assert_eq!(machine.db().vnodes().kind(name.vnode), VnodeKind::Kernel);
            assert!(machine.db().page(page).is_claimed(), "wired");
        }
        let at = range.start();
        s.run(&format!(
            "read {p} {at} 0+1; expect SEGV at=0; write {p} {at} 0+1 1; expect SEGV at=0"
        ));
        s.run(&format!("read {p} @kern 0+1; expect SEGV at=0"));
    }
    machine.kmem().free(&machine.kernel_scx(), range).expect("an allocation");
    s.end();
}

#[test]
fn the_kernels_map_has_entries_of_its_own_kind() {
    check(
        "keyronex/kmap",
        "kas: one segment of the kernel's driver; none of the process's is in it",
        "
        machine memory=256
        map 0 0 1 rw priv fixed anon; write 0 0 1 1
        ::seg kas
        ::segtree kas
        ::seg 0
    ",
    );
}

#[test]
fn an_entry_carries_offset_size_and_maximum_rights() {
    let mut s = scene(
        "
        file 0 32768 ro; pwrite 0 0 32768 1
        map 0 0 2 r shared fixed file 0 3
        map 0 8 2 r priv fixed file 0 3
    ",
    );
    // Faults are resolved relative to the offset: page 3 of the file is the first of both.
    s.run("read 0 0 1; read 0 8 1");
    assert_eq!(s.frame(0, 0), s.file_frame(0, 3));
    assert_eq!(s.frame(0, 8), s.file_frame(0, 3));
    // The ceiling is the entry's, not the file's: a private mapping of the same read-only file may be made writable.
    s.run(
        "
        protect 0 0 2 rw; expect EACCES
        write 0 0 0+1 9; expect SEGV at=0 code=accerr
        protect 0 8 2 rw; expect ok
        write 0 8 0+1 9; expect ok
    ",
    );
    s.end();
}

#[test]
fn rights_belong_to_the_entry_not_to_the_object() {
    let mut s = scene(
        "
        file 0 4096; pwrite 0 0 4096 1
        map 0 0 1 r shared fixed file 0 0
        map 0 2 1 rw shared fixed file 0 0
        map 0 4 1 rx shared fixed file 0 0
        read 0 0 1; write 0 2 0+1 9; fetch 0 4
    ",
    );
    assert_eq!([0, 2, 4].map(|p| s.rights(0, p)), ["r--", "rw-", "r-x"]);
    assert_eq!(s.frame(0, 0), s.frame(0, 2));
    s.run(
        "
        write 0 0 0+1 1; expect SEGV at=0 code=accerr
        fetch 0 0; expect SEGV at=0 code=accerr
        fetch 0 2; expect SEGV at=0 code=accerr
        fetch 0 4; expect ok b=09
    ",
    );
    s.end();
}

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

#[test]
fn identity_says_which_object_a_page_belongs_to() {
    // The document's back pointers, as names: the anon's page under a swap vnode, the file's under its own, and the hash finds both.
    let mut s = scene(PRIVATE_FILE);
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
        let range = VirtRange::exact(VirtAddr::new(addr(0).get()).expect("canonical").get(), 4096);
        let range = range.expect("one page");
        s.process(0).space().hat().sync(machine.cx(), range, SyncMode::DontZero);
        machine.db().page(page).ref_mod()
    };
    assert!(!marks().contains(page_db::RefMod::MOD));
    s.process(0).store(addr(0).get(), &[1]).expect("may store");
    assert!(marks().contains(page_db::RefMod::MOD));
    s.end();
}
