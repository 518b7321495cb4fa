//! What the tables show.

use crate::seg::SegKind;
use crate::testing::*;
use crate::{FaultKind, MemId};
use page_db::{Access, FileOffset, Prot};

fn painted() -> World {
    let w = World::new();
    w.map(0x10000, 4 * P);
    w.map_as(0x20000, P, &w.toy().named("toy_hole").kind(SegKind::HOLE).prot(Prot::empty()));
    w.map_as(0x40000, 16 << 40, &w.toy().kind(SegKind::SHARED | SegKind::NORESERVE));
    w.space.fault(&w.cx, range(0x10000, 2 * P), FaultKind::Invalid, Access::Write).expect("mapped");
    w.space.set_prot(&w.cx, range(0x13000, P), Prot::READ).expect("below the ceiling");
    w
}

#[test]
fn pmap_has_a_row_for_each_run_of_rights_and_none_for_holes() {
    let w = painted();
    let expected =
        "         Address       Kbytes        RSS       Anon     Locked Mode  Mapped File
0000000000010000           12          8          -          - rw--- [ toy ]
0000000000013000            4          -          -          - r---- [ toy ]
0000000000040000  17179869184          -          -          - rw-sR [ toy ]
---------------- ------------ ---------- ---------- ----------
        total Kb  17179869200          8          -          -
";
    assert_eq!(w.space.pmap(&w.cx).to_string(), expected);
    let expected = "         Address       Kbytes         Swap Mode  Mapped File
0000000000010000           12           12 rw--- [ toy ]
0000000000013000            4            - r---- [ toy ]
0000000000040000  17179869184            - rw-sR [ toy ]
---------------- ------------ ------------
        total Kb  17179869200           12
";
    assert_eq!(w.space.pmap(&w.cx).swap_view().to_string(), expected);
}

#[test]
fn the_seg_table_lists_every_segment() {
    let w = painted();
    let table = w.space.seg_table(&w.cx);
    let expected = "  SEG             BASE             SIZE   DATA OPS
    0            10000             4000      - toy
    1            20000             1000      - toy_hole
    2            40000     100000000000      - toy
";
    assert_eq!(table.to_string(), expected);
    let line = "seg 0 base=0x10000 size=16k ops=toy prot=rw- (max rwx) name=[ toy ] off=0x0 amp=- idx=0 resv=0k softlock=0 res=2/4";
    assert_eq!(table.rows[0].to_string(), line);
}

#[test]
fn the_tree_is_drawn_with_its_drivers() {
    let w = painted();
    let picture = w.space.seg_tree(&w.cx).to_string();
    let drivers: Vec<_> =
        picture.lines().map(|line| line.rsplit(' ').next().unwrap_or("")).collect();
    assert_eq!(&drivers[1..5], ["ops", "toy", "toy_hole", "toy"], "{picture}");
    assert!(picture.starts_with("3 intervals in 1000-7fffffffe000, height 2"), "{picture}");
}

#[test]
fn questions_about_an_address() {
    let w = painted();
    assert_eq!(w.space.range_at(&w.cx, at(0x11fff)), Some(range(0x10000, 4 * P)));
    assert_eq!(w.space.range_at(&w.cx, at(0x14000)), None);
    assert_eq!(w.space.kind_at(&w.cx, at(0x20000)), Some(SegKind::HOLE));
    assert!(matches!(w.space.vnode_at(&w.cx, at(0x10000)), Some(None)));
    assert!(w.space.vnode_at(&w.cx, at(0x5000)).is_none());
    assert_eq!(w.space.offset_at(&w.cx, at(0x10000)), Some(FileOffset(0)));
    assert_eq!(w.space.detail_at(&w.cx, at(0x10000)).map(|d| d.name), Some("[ toy ]".into()));
    let errno = |got: Result<MemId, crate::AsError>| got.map_err(|e| e.errno());
    assert_eq!(errno(w.space.mem_id(&w.cx, at(0x5000))), Err(page_db::errno::EFAULT));
    assert_eq!(errno(w.space.mem_id(&w.cx, at(0x10000))), Err(page_db::errno::ENODEV));
    assert_eq!(w.space.policy_at(&w.cx, at(0x10000)), Some(None));
    let still = crate::Capability::NoMinorFaults;
    assert_eq!(w.space.capable_at(&w.cx, at(0x10000), still), Some(false));
    assert_eq!(w.space.capable_at(&w.cx, at(0x5000), still), None);
    assert_eq!(w.space.memory(&w.cx).count(), 0, "only drivers that say so have memory");
    assert_eq!(w.space.swapout(&w.cx), 0);
    assert_eq!(
        format!("{:?}", w.space),
        "AddrSpace { id: 1, limits: 0x1000..0x7fffffffe000, size: 17592186064896, hat: 1, .. }"
    );
}
