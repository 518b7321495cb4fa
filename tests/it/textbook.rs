//! The book's figures, drawn from live structures: lay the page and the output side by side.
//!
//! What the figures call by pointer, these tables call by number: segments, anon maps, anons, vnodes, pages and hats are numbered in order of
//! creation, frames by the machine.
//!
//! Sources: [SI] figures by number and page as the founding notes cite them; illumos.md 11.5 (the walk).

use crate::{Scene, check, compare};
use page_db::dump::{FreeLists, HashStat, PageTable, VnodeList};

#[test]
fn figure_9_10_seg_vn_to_vnode() {
    check(
        "figure_9_10",
        "page 483: two processes map parts of one file; as -> seg -> segvn_data {vp, offset} -> vnode -> v_pages; page 2 of the file is one page",
        r#"
        machine memory=256
        file $libc 32768
        fork 0 1
        map 0 0x10000 16k rx priv fixed file $libc 0
        map 1 0x40000 8k r shared fixed file $libc 2
        fetch 0 0x12000
        read 1 0x40000 0+1
        ::pmap 0; ::pmap 1
        ::walk 0 0x12000
        expect "hat 1 at 0x12000: r-x"
        expect "hat 2 at 0x40000: r--"
        ::walk 1 0x40000
        expect "offset 0x2000"
        expect "hat 1 at 0x12000: r-x"
        ::vnode $libc
    "#,
    );
}

#[test]
fn figure_9_11_anon_layers() {
    check(
        "figure_9_11",
        "page 486: seg -> segvn_data {amp} -> anon_map -> anon_hdr -> anon {an_vp, an_off} -> swapfs vnode -> page",
        r#"
        machine memory=256
        map 0 0 64 rw priv fixed anon
        write 0 0 1 65; write 0 40 1 66
        ::seg 0
        ::anon 0
        expect "chunks 2"
        ::walk 0 40
        expect "an_vp/an_off <1, 0x2000>"
        ::swapinfo
    "#,
    );
}

#[test]
fn figure_10_2_page_lists() {
    let mut s = Scene::on("machine memory=128 colours=2");
    s.run(
        "
        file 0 16384
        map 0 0 4 r shared fixed file 0 0; read 0 0 4
        map 0 8 2 rw priv fixed anon; write 0 8 2 1
        unmap 0 2 2
    ",
    );
    let (cx, db) = (s.machine().cx(), s.machine().db());
    let text = format!(
        "page_hash: pages by <vnode, offset>\n{}\n{}\nvnodes and their v_pages\n{}\nfree and cache lists, by colour\n{}",
        HashStat::of(cx, db),
        PageTable::named(cx, db),
        VnodeList::of(cx, db),
        FreeLists::of(cx, db),
    );
    compare(
        "figure_10_2",
        "page 506: the lists a page is on: the hash (all that have names), a vnode's, the free or the cache list of its colour",
        &text,
    );
    s.end();
}

#[test]
fn figure_10_3_identity_to_page() {
    check(
        "figure_10_3",
        "page 507: <vnode, offset> leads to the page through the hash; the vnode's list has the same pages; one without a name is in neither",
        r#"
        machine memory=256
        file 0 12288
        map 0 0 3 rw shared fixed file 0 0; advise 0 0 3 random
        write 0 0 1 1; read 0 1 1
        ::hash
        ::page
        ::vnode 0
        ::page pfn 0x108
    "#,
    );
}

#[test]
fn figure_11_2_kernel_segments() {
    let mut s = Scene::on("machine memory=256");
    let machine = s.machine().clone();
    let range = machine.kmem().alloc(&machine.kernel_scx(), 3).expect("frames");
    let text = s.run(&format!(
        r#"
        map 0 0 1 rw priv fixed anon; write 0 0 1 1
        ::seg kas
        expect "seg_kmem"
        expect not "seg_vn"
        ::segtree kas
        ::pmap -x kas
        ::vatopfn 0 {}
        expect not "user"
        ::memstat
    "#,
        range.start()
    ));
    machine.kmem().free(&machine.kernel_scx(), range).expect("an allocation");
    compare(
        "figure_11_2",
        "page 533: the kernel's address space and its segment; its pages are mapped in a process too, without the user's right",
        &text,
    );
    s.end();
}

// ---- the walk: proc_t -> page_t ----

#[test]
fn walk_of_private_anonymous_memory() {
    check(
        "walk_private_anon",
        "before the first touch there is no anon map; after it the steps lead to the page and back up to its one mapping; an untouched page; a hole",
        r#"
        machine memory=256
        map 0 0 4 rw priv fixed anon
        ::walk 0 1
        expect "amp NULL"
        write 0 1 1 65
        ::walk 0 1
        expect "an_refcnt 1"
        expect "hat 1 at 0x100000001000: rw-"
        ::walk 0 2
        expect "slot empty"
        ::walk 0 9
        expect "none holds"
    "#,
    );
}

#[test]
fn walk_of_a_private_file_mapping() {
    check(
        "walk_private_file",
        "read: the file's page, mapped without write; written: the anon's page, the file's is no longer mapped; the neighbour is still the file's",
        r#"
        machine memory=256
        file 0 16384
        map 0 0 4 rw priv fixed file 0 0; advise 0 0 4 random
        read 0 1 1; read 0 2 1
        ::walk 0 1
        expect "amp NULL"
        expect "hat 1 at 0x100000001000: r--"
        write 0 1 1 65
        ::walk 0 1
        expect "an_refcnt 1"
        expect "hat 1 at 0x100000001000: rw-"
        ::walk 0 2
        expect "slot empty"
        expect "hat 1 at 0x100000002000: r--"
    "#,
    );
}

#[test]
fn walk_of_shared_anonymous_memory() {
    check(
        "walk_shared_anon",
        "one anon map used by two segments, one anon with one reference, one page with two mappings that may both store",
        r#"
        machine memory=256
        map 0 0 2 rw shared fixed anon
        fork 0 1
        write 0 0 1 65; write 1 0 0+1 66
        ::walk 0 0
        expect "refcnt 2"
        expect "an_refcnt 1"
        expect "hat 2 at 0x100000000000: rw-"
        ::walk 1 0
        expect "hat 1 at 0x100000000000: rw-"
    "#,
    );
}

#[test]
fn walk_of_a_shared_file_mapping() {
    check(
        "walk_shared_file",
        "no anon map: vp and offset name the page; both mappings may store",
        r#"
        machine memory=256
        file 0 16384
        map 0 0 2 rw shared fixed file 0 2
        fork 0 1
        write 0 1 1 65; write 1 1 0+1 66
        ::walk 0 1
        expect "amp NULL"
        expect "hat 2 at 0x100000001000: rw-"
        ::walk 1 1
        expect "hat 1 at 0x100000001000: rw-"
    "#,
    );
}

#[test]
fn walk_after_fork() {
    check(
        "walk_after_fork",
        "two anon maps, the same anon with two references, the same page, two mappings both without write",
        r#"
        machine memory=256
        map 0 0 2 rw priv fixed anon
        write 0 0 1 65
        fork 0 1
        read 1 0 0+1
        ::walk 0 0
        expect "an_refcnt 2"
        expect "hat 1 at 0x100000000000: r--"
        expect "hat 2 at 0x100000000000: r--"
        ::walk 1 0
        expect "an_refcnt 2"
        expect "hat 1 at 0x100000000000: r--"
        expect "hat 2 at 0x100000000000: r--"
    "#,
    );
}

#[test]
fn walk_of_a_swapped_out_page() {
    check(
        "walk_swapped",
        "the anon has a place on swap and no page; after the read it has a page and no place",
        r#"
        machine memory=256 swap=mem:1024
        map 0 0 1 rw priv fixed anon; write 0 0 1 65
        map 0 8 400 rw priv fixed anon noreserve; write 0 8 400 1
        ::walk 0 0
        expect "an_poff swap"
        expect "not in memory"
        read 0 0 0+1
        expect ok b=41
        ::walk 0 0
        expect "an_pvp NULL"
        expect "finds page"
    "#,
    );
}
