//! Each invariant that `verify` names is broken once, and is named.

use super::*;
use crate::hment::Spare;
use crate::{KERNEL_WINDOW, PteBits, X86Pte, geometry};

/// A world with a page mapped at 0x1000 and one at 0x2000.
fn world() -> (World, Arc<dyn Hat>, PageId) {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.load(&*hat, 0x1000, page, U);
    w.load(&*hat, 0x2000, page, U);
    w.verify();
    (w, hat, page)
}

fn named(w: &World) -> &'static str {
    w.hx.verify(&w.cx).expect_err("damaged").invariant
}

#[test]
fn a_wrong_count_is_h1() {
    let (w, hat, _) = world();
    w.hx.damage_valid_cnt(&w.cx, hat.id(), va(0x1000), 1);
    assert_eq!(named(&w), "H1 valid_cnt");
}

#[test]
fn an_entry_without_a_mapping_is_m1() {
    let (w, hat, page) = world();
    let e = X86Pte::new(w.db.pfn(page), PteBits::P | PteBits::U);
    assert!(w.hx.damage_entry(&w.cx, hat.id(), va(0x3000), e.0));
    w.hx.damage_valid_cnt(&w.cx, hat.id(), va(0x3000), 1);
    assert_eq!(named(&w), "M1 entries and mappings agree");
}

#[test]
fn a_mapping_without_an_entry_is_m1() {
    let (w, hat, _) = world();
    w.hx.damage_entry(&w.cx, hat.id(), va(0x1000), 0);
    w.hx.damage_valid_cnt(&w.cx, hat.id(), va(0x1000), u16::MAX);
    assert_eq!(named(&w), "M1 entries and mappings agree");
}

#[test]
fn an_entry_to_a_free_page_is_v10() {
    let (w, hat, _) = world();
    let other = w.page();
    w.free(other);
    let e = X86Pte::new(w.db.pfn(other), PteBits::P | PteBits::U);
    w.hx.damage_entry(&w.cx, hat.id(), va(0x1000), e.0);
    assert_eq!(named(&w), "V10 no entry maps a free page");
}

#[test]
fn a_kernel_half_of_ones_own_is_p1() {
    let (w, hat, _) = world();
    let i = geometry::index(KERNEL_WINDOW.start().get(), geometry::TOP);
    w.hx.damage_top(&w.cx, hat.id(), i, 0);
    assert_eq!(named(&w), "P1 one kernel half");
}

#[test]
fn a_table_entry_that_refuses_something_is_h6() {
    let (w, hat, _) = world();
    let top = w.hx.vatopfn(&w.cx, hat.id(), va(0x1000)).expect("lives").steps[0].entry;
    w.hx.damage_top(&w.cx, hat.id(), 0, top.0 | PteBits::NX.bits());
    assert_eq!(named(&w), "H6 a table's entry grants everything");
}

#[test]
fn a_table_that_leads_nowhere_is_h4() {
    let (w, hat, page) = world();
    w.hx.damage_top(&w.cx, hat.id(), 1, X86Pte::table(w.db.pfn(page), true).0);
    assert_eq!(named(&w), "H4 frame leads to record");
}

#[test]
fn a_supervisor_entry_in_the_users_half_is_h6() {
    let (w, hat, page) = world();
    let e = X86Pte::new(w.db.pfn(page), PteBits::P);
    w.hx.damage_entry(&w.cx, hat.id(), va(0x1000), e.0);
    assert_eq!(named(&w), "H6 user or kernel");
}

#[test]
fn bits_in_an_absent_entry_are_h5() {
    let (w, hat, _) = world();
    w.hx.damage_entry(&w.cx, hat.id(), va(0x5000), 0x40);
    assert_eq!(named(&w), "H5 an absent entry is empty");
}

impl World {
    /// The id of the leaf over 0x1000.
    fn leaf(&self, hat: &dyn Hat) -> u32 {
        let steps = self.hx.vatopfn(&self.cx, hat.id(), va(0x1000)).expect("lives").steps;
        let frame = self.db.page_of(steps.last().expect("a leaf").table).expect("managed");
        self.db.page(frame).mapping().head()
    }
    /// An entry of the leaf is taken away or put there, and counted.
    fn put(&self, hat: &dyn Hat, addr: u64, entry: X86Pte, more: i16) {
        assert!(self.hx.damage_entry(&self.cx, hat.id(), va(addr), entry.0));
        self.hx.damage_valid_cnt(&self.cx, hat.id(), va(addr), more.cast_unsigned());
    }
}

#[test]
fn a_table_that_nothing_leads_to_is_h2() {
    let (w, hat, _) = world();
    w.hx.damage_top(&w.cx, hat.id(), 0, 0);
    // The lowest that is left is the top.
    w.hx.damage_valid_cnt(&w.cx, hat.id(), va(0x1000), u16::MAX);
    assert_eq!(named(&w), "H2 no table is lost");
}

#[test]
fn an_empty_table_that_stays_is_h2() {
    let (w, hat, _) = world();
    for addr in [0x1000, 0x2000] {
        w.put(&*hat, addr, X86Pte::EMPTY, -1);
    }
    assert_eq!(named(&w), "H2 an empty table goes");
}

#[test]
fn a_lock_above_the_leaves_is_h3() {
    let (w, hat, _) = world();
    let above = w.hx.tables.get(w.leaf(&*hat)).parent();
    w.hx.lock_table(&w.cx, above).lock(1);
    assert_eq!(named(&w), "H3 locks count pages");
}

#[test]
fn a_record_under_another_table_is_h4() {
    let (w, hat, _) = world();
    let leaf = w.leaf(&*hat);
    w.hx.tables.get(leaf).damage_parent(leaf);
    assert_eq!(named(&w), "H4 a record says which table it is");
}

#[test]
fn a_table_in_a_frame_that_is_not_the_kernels_is_h4() {
    let (w, hat, _) = world();
    let pfn = w.hx.tables.get(w.leaf(&*hat)).pfn();
    let frame = w.db.lock_excl(&w.cx, w.db.page_of(pfn).expect("managed"));
    w.db.set_kernel(&frame, false);
    drop(frame);
    assert_eq!(named(&w), "H4 tables live in kernel frames");
}

#[test]
fn an_entry_without_bits_to_gather_that_says_it_was_not_used_is_h5() {
    let (w, hat, page) = world();
    let bits = PteBits::P | PteBits::U | PteBits::NOSYNC | PteBits::A;
    w.put(&*hat, 0x1000, X86Pte::new(w.db.pfn(page), bits), 0);
    assert_eq!(named(&w), "H5 unsynced entries start used");
}

#[test]
fn an_entry_to_no_managed_frame_that_a_list_should_have_is_m1() {
    let (w, hat, _) = world();
    let e = X86Pte::new(Pfn(1), PteBits::P | PteBits::U);
    w.put(&*hat, 0x3000, e, 1);
    assert_eq!(named(&w), "M1 a consistent entry has a page");
}

#[test]
fn an_entry_that_maps_a_page_table_is_h8_whatever_its_kind() {
    // Consistent with nothing, as entries of device memory are, it is on no list.
    for kind in [PteBits::empty(), PteBits::NOSYNC | PteBits::NOCONSIST | PteBits::A | PteBits::D] {
        let (w, hat, _) = world();
        let table = w.hx.tables.get(w.leaf(&*hat)).pfn();
        w.put(&*hat, 0x3000, X86Pte::new(table, PteBits::P | PteBits::U | PteBits::W | kind), 1);
        assert_eq!(named(&w), "H8 no leaf maps a table");
    }
}

#[test]
fn an_entry_to_a_frame_of_the_kernels_is_m1_if_it_is_consistent() {
    for (kind, is_sound) in [
        (PteBits::empty(), false),
        (PteBits::NOSYNC | PteBits::NOCONSIST | PteBits::A | PteBits::D, true),
    ] {
        let (w, hat, _) = world();
        let page = w.db.alloc(&w.cx, 0, page_db::Reserve::Push).expect("a frame");
        w.db.set_kernel(&page, true);
        let pfn = page_db::LockedPage::pfn(&page);
        drop(page);
        w.put(&*hat, 0x3000, X86Pte::new(pfn, PteBits::P | PteBits::U | PteBits::W | kind), 1);
        let found = w.hx.verify(&w.cx).err().map(|d| d.invariant);
        assert_eq!(found, (!is_sound).then_some("M1 a consistent entry has a list"));
    }
}

#[test]
fn a_list_that_says_it_is_longer_is_m1() {
    let (w, _hat, page) = world();
    let mapping = w.db.page(page).mapping();
    mapping.set_share(mapping.share() + 1);
    assert_eq!(named(&w), "M1 the list is whole");
}

#[test]
fn a_record_on_no_list_is_m1() {
    let (w, _hat, _) = world();
    let mut lost = Spare::default();
    w.hx.lists.reserve(&w.cx, &mut lost).expect("room");
    assert_eq!(named(&w), "M1 no record is lost");
    w.hx.lists.give_back(&w.cx, &mut lost);
    w.verify();
}

#[test]
fn a_translation_that_a_processor_kept_is_t1() {
    let (w, hat, _) = world();
    w.run(0, &*hat);
    w.mmu_store(0, 0x1000);
    let e = w.hx.vatopfn(&w.cx, hat.id(), va(0x1000)).expect("lives").steps;
    let e = e.last().expect("a leaf").entry;
    w.put(&*hat, 0x1000, e.with(PteBits::empty(), PteBits::W), 0);
    assert_eq!(named(&w), "T1 no stale translation");
}
