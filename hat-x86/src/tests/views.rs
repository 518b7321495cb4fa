//! `::htable` and `::vatopfn` as text.

use super::*;

#[test]
fn the_tree_of_tables_and_the_way_of_an_address() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load_with(&*hat, 0x40_0000, page, U, LoadFlags::LOCK);
    w.load(&*hat, 0x7fff_ffff_f000, page, Prot::RX);
    w.mmu_store(0, 0x40_0000);
    let tree = w.hx.dump_tables(&w.cx, 1).expect("the hat lives").to_string();
    let want = "\
LEVEL                 VADDR    ID      PFN VALID LOCKS
3                       0x0     3     0x12     2     0
 2                      0x0     4     0x14     1     0
  1                     0x0     5     0x15     1     0
   0               0x400000     6     0x16     1     1
 2           0x7f8000000000     7     0x17     1     0
  1          0x7fffc0000000     8     0x18     1     0
   0         0x7fffffe00000     9     0x19     1     0
";
    assert_eq!(tree, want);
    let way = w.hx.vatopfn(&w.cx, 1, va(0x40_0123)).expect("the hat lives").to_string();
    let want = "\
level=3 htable=0x12 entry=0   pfn 0x14 P W U A
level=2 htable=0x14 entry=0   pfn 0x15 P W U A
level=1 htable=0x15 entry=2   pfn 0x16 P W U A
level=0 htable=0x16 entry=0   pfn 0x13 P W U A D NX
virtual 0x400123 mapped to pfn 0x13 rw- user
";
    assert_eq!(way, want);
    let none = w.hx.vatopfn(&w.cx, 1, va(0x80_0000)).expect("the hat lives").to_string();
    assert_eq!(none.lines().last(), Some("virtual 0x800000 not mapped"));
    assert!(w.hx.dump_tables(&w.cx, 99).is_none() && w.hx.vatopfn(&w.cx, 99, va(0)).is_none());
    let hats = w.hx.hats(&w.cx);
    let seen: Vec<_> = hats.iter().map(|h| (h.id, h.resident, h.tables)).collect();
    assert_eq!(seen, [(0, 0, 2), (1, 2, 7)]);
}
