//! From a process to its pages.

use crate::harness::addr;
use crate::{Scene, compare};
use addr_space::SegKind;
use page_db::{FileOffset, Identity, PAGE_SIZE, Pfn, Prot, VirtRange, Vnode, VnodeKind};
use seg_drivers::{DeviceMemory, SegDevArgs};
use std::sync::Arc;

/// A device with the given frames.
#[derive(Debug)]
struct Frames(Vec<Pfn>);

impl DeviceMemory for Frames {
    fn name(&self) -> String {
        "fb0".to_owned()
    }
    fn pages(&self) -> u64 {
        self.0.len() as u64
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        self.0.get(index as usize).copied()
    }
}

fn range(page: u64, pages: u64) -> VirtRange {
    VirtRange::exact(addr(page).get(), pages * PAGE_SIZE).expect("a range of the arena")
}

/// Process 0 with two pages of anonymous memory, two of a file and two of a device, whose frames were taken out of memory.
fn three_kinds() -> Scene {
    let mut s = Scene::on("machine memory=256");
    let device = Arc::new(Frames(s.device_frames(2)));
    s.run(
        "
        map 0 0 2 rw priv fixed anon
        file 0 8192; map 0 4 2 rw shared fixed file 0 0
    ",
    );
    let (offset, prot) = (FileOffset(0), Prot::RW);
    let args = SegDevArgs { device, offset, prot, max_prot: Prot::RWX, kind: SegKind::SHARED };
    s.process(0).space().map(s.machine().cx(), range(8, 2), &args).expect("a free range");
    s
}

#[test]
fn a_process_leads_to_a_tree_of_segments() {
    let mut s = Scene::new();
    s.run("map 0 8 4 rw priv fixed anon; map 0 0 4 r priv fixed anon; map 0 20 1 rw shared fixed anon");
    let space = Arc::clone(&s.process(0).space());
    let cx = s.machine().cx();
    let segs = space.segs(cx);
    let bases: Vec<_> = segs.iter().map(|seg| (seg.base(), seg.size() / PAGE_SIZE)).collect();
    assert_eq!(bases, [(addr(0), 4), (addr(8), 4), (addr(20), 1)], "in order of address");
    // Any address inside finds the segment; the holes on either side do not.
    for page in 8..12 {
        assert_eq!(segs.seg_at(cx, addr(page)).map(|seg| seg.base()), Some(addr(8)));
    }
    for page in [7, 12, 19, 21] {
        assert!(segs.seg_at(cx, addr(page)).is_none(), "page {page}");
    }
    assert_eq!(segs.seg_at_or_above(cx, addr(12)).map(|seg| seg.base()), Some(addr(20)));
    assert!(segs.seg_at_or_above(cx, addr(21)).is_none());
    assert_eq!(segs.last().map(|seg| seg.base()), Some(addr(20)));
    drop(segs);
    s.end();
}

#[test]
fn segments_never_overlap() {
    let mut s = Scene::new();
    s.run(
        "
        map 0 0 4 rw priv fixed anon
        map 0 3 4 r priv noreplace anon; expect EEXIST
        map 0 2 1 r priv noreplace anon; expect EEXIST
    ",
    );
    let before = s.run("::segtree 0");
    let space = Arc::clone(&s.process(0).space());
    let args = seg_drivers::SegVnArgs::zfod(s.machine().vn(), Prot::RW);
    let refused = space.map(s.machine().cx(), range(3, 4), &args);
    assert!(matches!(refused, Err(addr_space::AsError::Overlap { .. })), "{refused:?}");
    assert_eq!(space.state().size(), 4 * PAGE_SIZE, "a_size is as it was");
    assert_eq!(s.run("::segtree 0"), before);
    s.end();
}

#[test]
fn the_kernel_has_an_address_space_of_its_own() {
    let s = Scene::new();
    let machine = s.machine();
    let kas = machine.kas();
    let drivers: Vec<_> = kas.segs(machine.cx()).iter().map(|seg| seg.driver()).collect();
    assert_eq!(drivers, ["seg_kmem"]);
    let user = s.process(0).space().limits();
    assert!(user.end() <= kas.limits().start().get(), "the user's half lies below");
    assert_eq!(machine.spaces().len(), 2, "kas and process 0's");
    s.end();
}

#[test]
fn a_segment_is_data_and_the_methods_that_know_it() {
    // One class of objects, three drivers side by side: each segment's s_ops is the driver's, s_data its own.
    let mut s = three_kinds();
    let text = s.run(
        "
        write 0 0 0+1 65; write 0 4 0+1 66; write 0 8 0+1 67
        read 0 0 0+1; expect ok b=41
        read 0 4 0+1; expect ok b=42
        read 0 8 0+1; expect ok b=43
        ::seg 0
        ::seg kas
        ::pmap -x 0
        ::walk 0 8
    ",
    );
    compare(
        "overview/drivers",
        "seg_vn for anonymous memory and for a file, seg_dev for frames of a device, seg_kmem for the kernel: the same table",
        &text,
    );
    s.end();
}

#[test]
fn the_same_call_is_answered_by_each_driver_in_its_own_way() {
    let mut s = three_kinds();
    s.run("write 0 0 0+1 65; write 0 4 0+1 66; write 0 8 0+1 67");
    // Faults: zeros made on demand, the file's page, the device's frame.
    let kinds = [0, 4, 8].map(|page| {
        let frame = s.frame(0, page).expect("mapped");
        let name = s.machine().db().page(s.page(frame)).identity();
        name.map(|n| s.machine().db().vnodes().kind(n.vnode))
    });
    assert_eq!(kinds, [Some(VnodeKind::Swap), Some(VnodeKind::File), None]);
    // Fork: references, nothing, nothing; stores of the child: copied, shared, shared.
    s.run("fork 0 1; write 1 0 0+1 75; write 1 4 0+1 76; write 1 8 0+1 77");
    s.run(
        "
        read 0 0 0+1; expect ok b=41
        read 0 4 0+1; expect ok b=4c
        read 0 8 0+1; expect ok b=4d
    ",
    );
    assert_ne!(s.frame(0, 0), s.frame(1, 0));
    assert_eq!(s.frame(0, 4), s.frame(1, 4));
    assert_eq!(s.frame(0, 8), s.frame(1, 8));
    // Zero on fork is for private anonymous memory.
    s.run(
        "
        advise 0 0 1 inherit_zero; expect ok
        advise 0 4 1 inherit_zero; expect EINVAL
        advise 0 8 1 inherit_zero; expect ENOTSUP
    ",
    );
    s.end();
}

#[test]
fn a_page_of_a_file_mapping_is_vnode_plus_offset() {
    // <vp, offset + (addr - s_base)>, in both processes, at different addresses and offsets.
    let mut s = Scene::new();
    s.run(
        "
        file 0 65536; pwrite 0 0 65536 1
        fork 0 1
        map 0 0 16 r shared fixed file 0 0; read 0 0 16
        map 1 100 4 r priv fixed file 0 6; read 1 100 4
    ",
    );
    for page in 0..16 {
        assert_eq!(s.frame(0, page), s.file_frame(0, page));
    }
    for page in 0..4 {
        let frame = s.frame(1, 100 + page).expect("read");
        assert_eq!(Some(frame), s.file_frame(0, 6 + page));
        assert_eq!(s.mappers(frame), vec![(0, 6 + page), (1, 100 + page)], "one page_t for both");
    }
    s.end();
}

#[test]
fn anonymous_memory_has_an_anon_for_each_page_and_a_map_for_whole_segments() {
    // The logical extent: slots filled one by one; shared by whole segments, or slot by slot after a fork.
    let mut s = Scene::new();
    s.run("map 0 0 4 rw shared fixed anon; map 0 8 4 rw priv fixed anon; advise 0 0 12 random");
    s.run("write 0 0 0+1 65; write 0 8 0+1 66; write 0 9 0+1 67; fork 0 1");
    let refs = |s: &Scene| s.machine().anon().maps().iter().map(|m| m.refs()).collect::<Vec<_>>();
    assert_eq!(
        refs(&s),
        [2, 1, 1],
        "the shared map serves both segments; each private one has its own"
    );
    let anon = |s: &Scene, p, page| s.anon(p, page).map(|a| (a.number, a.refs));
    assert_eq!(anon(&s, 0, 0), anon(&s, 1, 0));
    assert_eq!(anon(&s, 0, 0).map(|a| a.1), Some(1), "one slot, seen by two processes");
    assert_eq!(anon(&s, 0, 8), anon(&s, 1, 8));
    assert_eq!(anon(&s, 0, 8).map(|a| a.1), Some(2), "two slots");
    assert_eq!(anon(&s, 0, 10), None, "nothing was touched there");
    s.run("write 1 8 0+1 68");
    assert_eq!(anon(&s, 0, 8).map(|a| a.1), Some(1), "a store splits what fork shared");
    s.end();
}

#[test]
fn an_anon_has_a_name_before_it_has_a_place_on_a_disk() {
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 1 65");
    let area = |s: &Scene| s.machine().swap().swapinfo().0[0].free;
    let name = |s: &Scene| {
        let page = s.page(s.anon(0, 0).and_then(|a| a.frame).expect("resident"));
        s.machine().db().page(page).identity().expect("named")
    };
    let born = name(&s);
    assert_eq!((s.anon(0, 0).map(|a| a.on_swap), area(&s)), (Some(false), 64));
    s.run("pageout *");
    assert_eq!(
        (s.anon(0, 0).map(|a| a.on_swap), area(&s)),
        (Some(true), 63),
        "a slot only at page-out"
    );
    assert_eq!(name(&s), born, "the name never changes");
    s.run("read 0 0 0+1; expect ok b=41; unmap 0 0 2");
    assert_eq!(area(&s), 64);
    s.end();
}

#[test]
fn every_page_is_found_by_its_one_identity() {
    // File, anonymous and kernel pages through one table; no two pages have one name.
    let mut s = Scene::new();
    s.run(
        "
        file 0 8192; map 0 0 2 rw shared fixed file 0 0; write 0 0 2 1
        map 0 4 2 rw priv fixed anon; write 0 4 2 1
    ",
    );
    let machine = s.machine().clone();
    let heap = machine.kmem().alloc(&machine.kernel_scx(), 2).expect("frames");
    let (cx, db) = (machine.cx(), machine.db());
    let mut named: Vec<(Identity, _)> = db.hash().all(cx, db.pages());
    named.sort_unstable();
    let kinds = |kind| named.iter().filter(|(n, _)| db.vnodes().kind(n.vnode) == kind).count();
    assert_eq!([VnodeKind::File, VnodeKind::Swap, VnodeKind::Kernel].map(kinds), [2, 2, 2]);
    for (name, page) in &named {
        assert_eq!(db.exists(cx, *name), Some(*page));
        assert_eq!(db.page(*page).identity(), Some(*name));
    }
    assert!(named.windows(2).all(|w| w[0].0 != w[1].0), "I4: one page for a name");
    machine.kmem().free(&machine.kernel_scx(), heap).expect("an allocation");
    s.end();
}

#[test]
fn memory_without_a_file_gets_a_vnode_for_its_identity() {
    let mut s = Scene::new();
    let machine = s.machine().clone();
    let vnodes = |kind| {
        let table = machine.db().vnodes();
        table.ids().filter(|id| table.kind(*id) == kind).count()
    };
    assert_eq!(vnodes(VnodeKind::Kernel), 1, "kvp, for the kernel's pages");
    assert_eq!(vnodes(VnodeKind::File), 0);
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 1");
    assert!(vnodes(VnodeKind::Swap) >= 1, "swapfs's, for anonymous pages");
    let names: Vec<_> = [0, 1]
        .map(|page| machine.db().page(s.page(s.frame(0, page).expect("mapped"))).identity())
        .into_iter()
        .flatten()
        .collect();
    assert!(names.iter().all(|n| machine.swap().vnodes().any(|v| v == n.vnode)));
    assert_ne!(names[0].offset, names[1].offset, "told apart by offset");
    s.end();
}

#[test]
fn text_data_heap_and_stack_all_resolve_to_vnode_and_offset() {
    // Whatever an address is for, its page has a name: the file's where it was not written, a swapfs vnode's where it was.
    let exe = std::env::current_exe().expect("this test is a program");
    let mut s = Scene::on("machine memory=4096");
    s.run(&format!("spawn 1 \"{}\"; expect ok; brk 1 4; write 1 b:0 4 1", exe.display()));
    let process = s.process(1);
    let (space, cx, db) = (Arc::clone(&process.space()), s.machine().cx(), s.machine().db());
    let stack = process.stack().expect("a program has a stack");
    let ranges: Vec<_> = space.segs(cx).iter().map(|seg| seg.range()).collect();
    for r in &ranges {
        // As far as its rights go; a reserve without any has no pages.
        let _ = process.load_u8(r.start().get());
    }
    let mut kinds = std::collections::BTreeMap::new();
    space.hat().walk(cx, space.limits(), &mut |at, t| {
        let page = db.page_of(t.pfn).expect("memory");
        let name =
            db.page(page).identity().unwrap_or_else(|| panic!("{at} has a page without a name"));
        *kinds.entry(db.vnodes().kind(name.vnode).word()).or_insert(0) += 1;
        if t.prot.contains(Prot::EXEC) {
            assert_ne!(db.vnodes().kind(name.vnode), VnodeKind::Swap, "text at {at} is the file's");
        }
    });
    assert!(ranges.iter().any(|r| r.covers(stack)), "the stack is a segment");
    assert!(kinds.contains_key("swap"), "{kinds:?}");
    assert!(kinds.contains_key("file") || kinds.contains_key("exec"), "{kinds:?}");
    s.end();
}

#[test]
fn a_file_is_one_sequence_of_bytes_however_it_is_reached() {
    let mut s = Scene::new();
    s.run(
        "
        file 0 8192; map 0 0 2 rw shared fixed file 0 0
        map 0 8 1 rw priv fixed anon
        write 0 1 0+1 97
        pread 0 4096 1; expect ok n=1 h=af63dc4c8601ec8c
        fread 0 0 4096 8 0+1; expect ok n=1
        read 0 8 0+1; expect ok b=61
        write 0 8 0+2 120
        fwrite 0 0 8191 8 0+2; expect ok n=2
        read 0 1+4095 0+1; expect ok b=78
    ",
    );
    let size = s.file(0).size();
    assert_eq!(size, 8193, "the write extended the file");
    s.end();
}

#[test]
fn the_ways_down_and_up_meet_in_the_page() {
    let mut s = Scene::new();
    s.run(
        "
        file 0 16384; map 0 0 4 rw priv fixed file 0 0; read 0 0 4; write 0 1 0+1 1
        map 0 8 4 rw shared fixed anon; write 0 8 4 1
        fork 0 1; read 1 0 4; read 1 8 4
    ",
    );
    let (cx, db) = (s.machine().cx(), s.machine().db());
    for (proc, page) in (0..2).flat_map(|p| [0, 1, 2, 3, 8, 9, 10, 11].map(|n| (p, n))) {
        // Down: by the address space's own records.
        let down = match s.anon(proc, page) {
            Some(anon) => anon.frame.expect("resident"),
            None => s.file_frame(0, page).expect("cached"),
        };
        assert_eq!(s.frame(proc, page), Some(down), "the translation agrees");
        // Up: from the frame to its name and to everybody who maps it.
        let id = s.page(down);
        let name = db.page(id).identity().expect("named");
        assert_eq!(db.exists(cx, name), Some(id));
        let mappers = s.mappers(down);
        assert!(mappers.contains(&(proc, page)));
        assert_eq!(mappers.len() as u32, db.share_count(cx, id));
        for (p, n) in mappers {
            assert_eq!(s.frame(p, n), Some(down), "each mapping on the list is in the tables");
        }
    }
    s.end();
}
