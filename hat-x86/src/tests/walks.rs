//! Walks through entries that the hat does not make: larger pages, and bits that are reserved.

use super::*;
use crate::{Mode, PfError, PteBits, X86Pte, walker};
use page_db::Access;

/// A top table whose entry 0 is `top`, and a table of level 2 whose entry 0 is `second`.
fn tables(w: &World, top: PteBits, second: X86Pte) -> Pfn {
    let [root, below] = [w.page(), w.page()].map(|page| w.db.pfn(page));
    let set = |table, entry: X86Pte| {
        w.db.mem().u64_at(table, 0).store(entry.0, core::sync::atomic::Ordering::SeqCst);
    };
    set(root, X86Pte::new(below, PteBits::P | PteBits::W | PteBits::U | top));
    set(below, second);
    root
}

#[test]
fn the_frame_of_a_larger_page_has_no_low_bits() {
    let w = World::new(64);
    // Bit 12 is PAT in an entry for 1 GiB.
    let large = PteBits::P | PteBits::W | PteBits::U | PteBits::PS;
    let root = tables(&w, PteBits::empty(), X86Pte::new(Pfn(1), large));
    let (mem, at) = (w.db.mem(), va(0x1234_5000));
    let found = walker::peek(mem, root, at).map(|walked| (walked.pfn, walked.level));
    assert_eq!(found, Some((Pfn(0x1_2345), 2)));
    let walked = walker::walk(mem, root, at, Access::Write, Mode::User).expect("allowed");
    assert_eq!((walked.pfn, walked.level), (Pfn(0x1_2345), 2));
}

#[test]
fn the_top_table_has_no_leaves() {
    let w = World::new(64);
    let large = PteBits::P | PteBits::W | PteBits::U | PteBits::PS;
    let root = tables(&w, PteBits::PS, X86Pte::new(Pfn(0), large));
    let (mem, at) = (w.db.mem(), va(0x1000));
    assert_eq!(walker::peek(mem, root, at), None);
    let fault = walker::walk(mem, root, at, Access::Read, Mode::User).expect_err("reserved");
    assert_eq!(fault.error, PfError::P | PfError::RSVD | PfError::U);
}
