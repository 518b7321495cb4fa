//! Each invariant that `verify` names is broken once, and is named.

use super::*;
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
