//! `vm_object_t`, `vm_map_t`, `vm_map_entry_t`: what is mapped where.

use super::scene;
use crate::{Scene, check};
use page_db::VnodeKind;

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
