//! A: map, unmap, fixed, holes.

use crate::{addr, range, reserved, scene, shape, space};
use addr_space::SegKind;
use page_db::{Cx, FailKind, FailPlan, PAGE_SIZE, Prot, errno};
use seg_drivers::{AnonMap, SegVnArgs};
use segvm::files::{File, FileHandle, OpenMode, PageBuf, Store};
use segvm::machine::{MapFlags, MapRequest};
use std::sync::Arc;

scripts! {
    a01_one_byte_is_a_page: "map 0 0 0+1 rw priv fixed anon; expect ok; write 0 0 1 7; expect ok
        read 0 1 0+1; expect SEGV at=0 code=maperr";
    a02_nothing_cannot_be_mapped: "map 0 0 0 rw priv fixed anon; expect EINVAL
        read 0 0 0+1; expect SEGV at=0 code=maperr";
    a04_shared_and_private: "map 0 0 1 rw both fixed anon; expect EINVAL
        file 0 4096; map 0 0 1 rw both fixed file 0 0; expect EINVAL";
    a05_a_fixed_place_is_on_a_page: "map 0 0+1 1 rw priv fixed anon; expect EINVAL";
    a07_hints_leave_alone_what_is_there: "map 0 4 1 rw priv fixed anon; write 0 4 0+1 9
        map 0 4 1 rw priv hint anon; expect ok moved
        map 0 @null 1 rw priv hint anon; expect ok moved
        map 0 0xffffffffffffffff 1 rw priv hint anon; expect ok
        map 0 @top 1 rw priv hint anon; expect ok
        map 0 @kern 1 rw priv hint anon; expect ok
        read 0 4 0+1; expect ok b=09";
    a08_nothing_is_placed_at_0: "map 0 @null 1 rw priv hint anon; expect ok moved
        read 0 @null 0+1; expect SEGV at=0 code=maperr";
    a10_a_fixed_place_is_exact: "map 0 17 1 rw priv fixed anon; write 0 17 1 1; expect ok
        read 0 16 0+1; expect SEGV at=0 code=maperr; read 0 18 0+1; expect SEGV at=0 code=maperr";
    a11_no_replacing: "map 0 0 2 rw priv fixed anon; write 0 0 2 65
        map 0 1 2 rw priv noreplace anon; expect EEXIST; read 0 1 0+1; expect ok b=41";
    a14_a_file_that_is_not_open: "map 0 0 1 rw priv fixed file 3 0; expect EBADF";
    a16_an_offset_is_on_a_page: "file 0 8192; map 0 0 1 r priv fixed file 0 0+100; expect EINVAL";
    a19_nothing_is_left_of_what_was_unmapped: "map 0 0 1 rw priv fixed anon; write 0 0 1 1; unmap 0 0 1
        read 0 0 0+1; expect SEGV at=0 code=maperr; write 0 0 0+1 1; expect SEGV at=0 code=maperr";
    a20_a_part_is_unmapped: "map 0 0 3 rw priv fixed anon; write 0 0 3 65; unmap 0 1 1; expect ok
        read 0 0 3; expect SEGV at=4096 code=maperr; read 0 2 0+1; expect ok b=41";
    a22_an_unmap_is_on_pages: "map 0 0 1 rw priv fixed anon; unmap 0 0+1 1; expect EINVAL; read 0 0 1; expect ok";
    a23_nothing_cannot_be_unmapped: "map 0 0 1 rw priv fixed anon; unmap 0 0 0; expect EINVAL; read 0 0 1; expect ok";
    a25_private_changes_go_with_the_mapping: "file 0 4096; pwrite 0 0 2 65
        map 0 0 1 rw priv fixed file 0 0; write 0 0 0+1 1; unmap 0 0 1
        map 0 0 1 rw priv fixed file 0 0; read 0 0 0+2; expect ok b=4142";
    a29_two_shared_mappings_of_nothing: "map 0 0 1 rw shared fixed anon; map 0 1 1 rw shared fixed anon
        write 0 0 0+1 65; read 0 1 0+1; expect ok b=00";
    a31_at_the_edges: "map 0 0x1 1 rw priv fixed anon; expect EINVAL; map 0 0xfff 1 rw priv fixed anon; expect EINVAL
        map 0 0x1000 1 rw priv fixed anon; expect ok; write 0 0x1000 1 1; expect ok
        map 0 0xfffffffffffff000 1 rw priv fixed anon; expect ENOMEM
        map 0 0xffffffffffffffff 1 rw priv fixed anon; expect EINVAL";
    a32_in_the_kernel: "map 0 @kern 1 rw priv fixed anon; expect ENOMEM";
    a34_what_is_refused_early_replaces_nothing: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65
        map 0 0 1 rw priv fixed file 3 0; expect EBADF; file 0 4096
        map 0 0 1 rw priv fixed file 0 0+1; expect EINVAL; read 0 0 0+1; expect ok b=41";
}

#[test]
fn a28_pages_of_a_file_out_of_order() {
    let mut s = scene("file 0 12288; pwrite 0 0 1 97; pwrite 0 4096 1 98; pwrite 0 8192 1 99");
    s.run("map 0 5 1 r shared fixed file 0 1; map 0 4 1 r shared fixed file 0 2; map 0 6 1 r shared fixed file 0 0");
    s.run(
        "read 0 5 0+1; expect ok b=62; read 0 4 0+1; expect ok b=63; read 0 6 0+1; expect ok b=61",
    );
    assert_eq!(shape(&s, 0), (3, 3), "none goes on where another ends");
    s.run("map 0 7 1 r shared fixed file 0 1; read 0 7 0+1; expect ok b=62");
    assert_eq!(shape(&s, 0), (3, 4), "this one does");
    s.end();
}

#[test]
fn a13_excl_beside_fixed_loses_nothing() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED | MapFlags::EXCL;
    let addr = addr(0).get();
    let request = MapRequest { addr, len: PAGE_SIZE, prot: 3, flags, file: None, offset: 0 };
    assert_eq!(s.process(0).mmap(&request).map_err(|e| e.errno), Err(errno::EEXIST));
    s.run("read 0 0 0+1; expect ok b=41");
    s.end();
}

#[test]
fn a26_a_split_that_cannot_be_recorded_leaves_the_mapping() {
    // There is no limit on segments but memory for their records.
    let mut s = scene("map 0 0 3 rw priv fixed anon; write 0 0 3 65");
    let before = (shape(&s, 0), reserved(&s), s.state(3));
    s.machine().fail(&FailPlan::counting().kth(FailKind::Node, 1));
    s.run("unmap 0 1 1; expect ENOMEM");
    s.machine().fail(&FailPlan::default());
    assert_eq!((shape(&s, 0), reserved(&s), s.state(3)), before);
    s.run("read 0 1 0+1; expect ok b=41; unmap 0 1 1; expect ok");
    assert_eq!(shape(&s, 0), (2, 2));
    s.end();
}

/// The bytes of a pipe: they go by.
#[derive(Debug)]
struct Pipe;

impl Store for Pipe {
    fn read(&self, _: &Cx, _: u64, _: &mut PageBuf) -> Result<(), i32> {
        Err(errno::EIO)
    }
    fn write(&self, _: &Cx, _: u64, _: &[u8]) -> Result<(), i32> {
        Err(errno::EIO)
    }
    fn resize(&self, _: &Cx, _: u64, _: u64) -> Result<(), i32> {
        Ok(())
    }
    fn is_mappable(&self) -> bool {
        false
    }
}

#[test]
fn a17_a_pipe_cannot_be_mapped() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65");
    let (cx, db) = (s.machine().cx(), s.machine().db());
    let pipe = File::new(cx, db, "pipe", 0, Box::new(Pipe)).expect("a vnode");
    let pipe = FileHandle::new(pipe, OpenMode::ReadWrite);
    let addr = addr(0).get();
    for share in [MapFlags::PRIVATE, MapFlags::SHARED] {
        let (flags, file) = (share | MapFlags::FIXED, Some(&pipe));
        let request = MapRequest { addr, len: PAGE_SIZE, prot: 3, flags, file, offset: 0 };
        assert_eq!(s.process(0).mmap(&request).map_err(|e| e.errno), Err(errno::ENODEV));
    }
    s.run("read 0 0 0+1; expect ok b=41");
    s.end();
}

/// A System V segment: an anon map that several mappings share, which its name has a reference to besides.
#[test]
fn a35_memory_that_was_removed_while_it_is_attached() {
    let mut s = scene("");
    let swap = Arc::clone(s.machine().swap());
    let before = swap.info().reserved();
    let driver = Arc::clone(s.machine().vn());
    swap.reserve(2).expect("swap");
    let named = AnonMap::new(driver.home(s.machine().cx()), 2 * PAGE_SIZE);
    for page in [0, 4] {
        let amp = Some(Arc::clone(&named));
        let args = SegVnArgs { amp, kind: SegKind::SHARED, ..SegVnArgs::zfod(&driver, Prot::RW) };
        space(&s, 0).map(s.machine().cx(), range(page, 2), &args).expect("room");
    }
    // Removed: the name's reference goes, those of the mappings stay.
    named.lose(s.machine().cx(), 0..2, 0..2);
    drop(named);
    s.run("verify; write 0 0 0+1 65; read 0 4 0+1; expect ok b=41; write 0 5 0+1 66; read 0 1 0+1; expect ok b=42");
    s.run("fork 0 1; write 1 0 0+1 67; unmap 0 0 2; read 0 4 0+2; expect ok b=4300; pageout *; exit 1");
    s.run("read 0 4 0+1; expect ok b=43; unmap 0 4 2");
    assert_eq!((swap.live(), swap.info().reserved()), (0, before), "gone with the last mapping");
    s.end();
}
