//! Write protection of a whole leaf by the entry above it.

use super::*;
use crate::above::DENSE;
use crate::pte::{PteBits, X86Pte};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

const LEAF: u64 = 0x4000_0000;
const ALL: u64 = 512;

/// A hat with `pages` translations of one page from [`LEAF`] on, running on both CPUs.
fn full(pages: u64) -> (World, Arc<dyn Hat>, PageId) {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    (0..pages).for_each(|i| w.load(&*hat, LEAF + (i << 12), page, U));
    (0..2).for_each(|cpu| w.run(cpu, &*hat));
    (w, hat, page)
}
/// Entries written, flushes, entries named by them.
fn spent(w: &World, f: impl FnOnce()) -> (u64, u64, u64) {
    let before = w.snapshot();
    f();
    let d = w.snapshot().since(&before);
    (d.get(Counter::PteWrites), d.get(Counter::Flushes), d.get(Counter::FlushEntries))
}
fn prot_of(w: &World, hat: &dyn Hat, i: u64) -> String {
    let at = va(LEAF + (i << 12));
    let seen = hat.probe(&w.cx, at).map_or("none".into(), |t| t.prot.to_string());
    // By every way there is, with the CPU's hint and without.
    let other = new_cx(&w.counters, 1);
    w.parts.hx.kernel().probe(&other, at);
    let walked = hat.probe(&other, at).map_or("none".into(), |t| t.prot.to_string());
    let table = w.hx.vatopfn(&w.cx, hat.id(), at).expect("lives").pfn;
    let table = table.map_or("none".into(), |(_, p)| p.to_string());
    assert_eq!((&walked, &table), (&seen, &seen));
    seen
}
/// The entry above the leaf, and entry `i` of it.
fn raw(w: &World, hat: &dyn Hat, i: u64) -> (X86Pte, X86Pte) {
    let steps = w.hx.vatopfn(&w.cx, hat.id(), va(LEAF + (i << 12))).expect("lives").steps;
    (steps[2].entry, steps[3].entry)
}
fn store(w: &Parts, cx: &Cx, cpu: u16, i: u64) -> bool {
    w.mmu.store(cx, CpuId(cpu), va(LEAF + (i << 12)), &[1]).is_ok()
}

#[test]
fn a_full_leaf_loses_the_right_to_write_by_one_store() {
    let (w, hat, page) = full(ALL);
    w.mmu_store(0, LEAF);
    w.mmu_store(1, LEAF + 0x1f_f000);
    assert_eq!(spent(&w, || hat.clear_write(&w.cx, range(LEAF, ALL))), (1, 1, 1));
    for i in [0, 1, 255, 511] {
        assert_eq!(prot_of(&w, &*hat, i), "r--");
    }
    let mut seen = 0;
    hat.walk(&w.cx, range(LEAF, ALL), &mut |_, t| {
        assert!(!t.prot.contains(Prot::WRITE));
        seen += 1;
    });
    assert_eq!(seen, ALL);
    assert!(w.hx.mappings_of(&w.cx, page).iter().all(|(.., e)| !e.has(PteBits::W)));
    assert!(!store(&w, &w.cx, 0, 0) && !store(&w, &w.cx, 1, 511), "T1: both CPUs forgot");
    w.mmu_load(1, LEAF + 0x1000);
    let (above, leaf) = raw(&w, &*hat, 0);
    assert!(!above.has(PteBits::W) && leaf.has(PteBits::W | PteBits::D), "U1, U4");
    assert_eq!(spent(&w, || hat.clear_write(&w.cx, range(LEAF, ALL))), (0, 0, 0), "done already");
    assert_eq!(spent(&w, || hat.clear_write(&w.cx, range(LEAF, 7))), (0, 0, 0));
    w.verify();
}

#[test]
fn many_leaves_cost_one_store_each_and_one_flush() {
    let w = World::new(128);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    for leaf in 0..3u64 {
        (0..ALL).for_each(|i| w.load(&*hat, LEAF + (leaf << 21) + (i << 12), page, U));
        w.mmu_store(0, LEAF + (leaf << 21));
    }
    let before = w.snapshot();
    hat.clear_write(&w.cx, range(LEAF, 3 * ALL));
    // The top, the two below it up to the leaves, and the first entry of each leaf.
    let reads = w.snapshot().since(&before).get(Counter::PteReads);
    assert_eq!(cost(&w, &before), (reads, 3));
    assert!(reads <= 12, "{reads}");
    assert_eq!(w.snapshot().since(&before).get(Counter::Flushes), 1);
    w.verify();
}

#[test]
fn the_first_store_splits_the_leaf_and_gives_nobody_else_anything() {
    let (w, hat, page) = full(ALL);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    let splits = spent(&w, || w.load(&*hat, LEAF + 0x7000, page, U));
    assert_eq!(splits, (512 + 1 + 1, 0, 0), "each entry, the one above, and the one that may");
    assert_eq!([6, 7, 8].map(|i| prot_of(&w, &*hat, i)), ["r--", "rw-", "r--"]);
    assert!(store(&w, &w.cx, 0, 7) && !store(&w, &w.cx, 0, 8));
    w.verify();
    let second = spent(&w, || w.load(&*hat, LEAF + 0x8000, page, U));
    assert_eq!(second, (1, 0, 0), "the next store finds it split");
    w.verify();
}

#[test]
fn what_grants_no_store_leaves_the_denial_alone() {
    let (w, hat, page) = full(ALL - 3);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    let last = LEAF + 0x1f_f000;
    assert_eq!(spent(&w, || w.load(&*hat, last, page, Prot::READ)), (1, 0, 0));
    assert_eq!(spent(&w, || w.load(&*hat, LEAF, page, Prot::READ)), (0, 0, 0), "as it is already");
    assert_eq!(spent(&w, || w.load(&*hat, LEAF, page, Prot::RX)), (1, 0, 0), "grows");
    w.mmu_load(0, LEAF);
    assert_eq!(spent(&w, || w.load(&*hat, LEAF, page, Prot::READ)), (1, 1, 1), "shrinks");
    assert!(!raw(&w, &*hat, 0).0.has(PteBits::W));
    w.verify();
    // A page that is new to the leaf, writable: it splits.
    assert_eq!(spent(&w, || w.load(&*hat, last - 0x1000, page, U)).0, (ALL - 3) + 1 + 1);
    assert_eq!([0, 1, 510, 511].map(|i| prot_of(&w, &*hat, i)), ["r--", "r--", "rw-", "r--"]);
    w.verify();
}

#[test]
fn a_run_splits_once_and_only_for_stores() {
    use addr_space::RunPage;
    let (w, hat, page) = full(ALL - 8);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    let locked = w.db.lock_shared(&w.cx, page);
    let load = |prots: &[Prot], at: u64| {
        let run: Vec<_> = prots.iter().map(|p| Some(RunPage::new(&locked, *p))).collect();
        let at = va(LEAF + (at << 12));
        hat.memload_run(&w.cx, at, &run, LoadFlags::empty(), None).loaded
    };
    assert_eq!(spent(&w, || assert_eq!(load(&[Prot::READ; 4], 504), 4)), (4, 0, 0));
    assert_eq!(spent(&w, || assert_eq!(load(&[Prot::READ, U, U], 508), 3)).0, 504 + 1 + 3);
    assert_eq!([0, 504, 508, 509].map(|i| prot_of(&w, &*hat, i)), ["r--", "r--", "r--", "rw-"]);
    drop(locked);
    w.verify();
}

/// What the run has stored before it splits is among the entries that lose the right to write.
#[test]
fn a_run_at_the_start_of_a_denied_leaf_gives_nothing_back_at_its_end() {
    use addr_space::RunPage;
    let (w, hat, page) = full(ALL);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    hat.unload(&w.cx, range(LEAF, 8), UnloadFlags::empty());
    let locked = w.db.lock_shared(&w.cx, page);
    let run: Vec<_> = [Prot::READ, Prot::READ, Prot::READ, U]
        .iter()
        .map(|p| Some(RunPage::new(&locked, *p)))
        .collect();
    assert_eq!(hat.memload_run(&w.cx, va(LEAF), &run, LoadFlags::empty(), None).loaded, 4);
    drop(locked);
    let rights = [0, 2, 3, 8, 508, 509, 510, 511].map(|i| prot_of(&w, &*hat, i));
    assert_eq!(rights, ["r--", "r--", "rw-", "r--", "r--", "r--", "r--", "r--"]);
    w.verify();
}

#[test]
fn protection_of_a_whole_leaf_is_one_store_there_and_one_back() {
    let (w, hat, page) = full(ALL);
    w.mmu_store(1, LEAF);
    let all = range(LEAF, ALL);
    assert_eq!(spent(&w, || hat.chg_prot(&w.cx, all, Prot::READ)), (1, 1, 1));
    assert!(!store(&w, &w.cx, 1, 0));
    assert_eq!(spent(&w, || hat.chg_prot(&w.cx, all, U)), (1, 0, 0));
    assert!(store(&w, &w.cx, 1, 0));
    w.verify();
    // The right to execute is each entry's own.
    assert_eq!(spent(&w, || hat.chg_prot(&w.cx, all, Prot::RX)).0, 1 + ALL);
    assert_eq!(prot_of(&w, &*hat, 3), "r-x");
    // Part of it back: the rest is still denied.
    assert_eq!(spent(&w, || hat.chg_prot(&w.cx, range(LEAF, 2), Prot::RWX)).0, ALL + 1 + 2);
    assert_eq!([0, 1, 2, 511].map(|i| prot_of(&w, &*hat, i)), ["rwx", "rwx", "r-x", "r-x"]);
    w.verify();
    hat.chg_prot(&w.cx, all, Prot::READ);
    w.load(&*hat, LEAF, page, U);
    assert_eq!([0, 1].map(|i| prot_of(&w, &*hat, i)), ["rw-", "r--"]);
    w.verify();
}

#[test]
fn a_leaf_with_few_entries_and_a_part_of_one_are_changed_entry_by_entry() {
    let few = u64::from(DENSE) - 1;
    let (w, hat, _) = full(few);
    assert_eq!(spent(&w, || hat.clear_write(&w.cx, range(LEAF, ALL))).0, few);
    assert!(raw(&w, &*hat, 0).0.has(PteBits::W) && !raw(&w, &*hat, 0).1.has(PteBits::W));
    let (w, hat, _) = full(ALL);
    assert_eq!(spent(&w, || hat.clear_write(&w.cx, range(LEAF, ALL - 1))).0, ALL - 1);
    assert_eq!([0, 511].map(|i| prot_of(&w, &*hat, i)), ["r--", "rw-"]);
    w.verify();
    // Nothing to take: nothing is stored and nothing flushed.
    hat.clear_write(&w.cx, range(LEAF, ALL));
    let (w, hat, _) = full(ALL);
    hat.chg_prot(&w.cx, range(LEAF, ALL - 1), Prot::READ);
    hat.chg_prot(&w.cx, range(LEAF + 0x1f_f000, 1), Prot::READ);
    w.mmu_load(0, LEAF);
    assert_eq!(spent(&w, || hat.clear_write(&w.cx, range(LEAF, ALL))), (0, 0, 0));
    w.verify();
}

#[test]
fn a_right_a_page_has_lost_does_not_come_back_with_the_leaf() {
    let (w, hat, page) = full(ALL);
    let other = w.page();
    w.load_with(&*hat, LEAF + 0x5000, other, U, LoadFlags::REMAP);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    w.db.page(other).set_ref_mod(RefMod::RO);
    w.db.clear_write(&w.cx, &w.db.lock_shared(&w.cx, other));
    assert_eq!(spent(&w, || hat.chg_prot(&w.cx, range(LEAF, ALL), U)).0, 1);
    assert_eq!([4, 5, 6].map(|i| prot_of(&w, &*hat, i)), ["rw-", "r--", "rw-"]);
    w.db.page(other).clear_ref_mod(RefMod::RO);
    let _ = page;
    w.verify();
}

#[test]
fn used_bits_are_harvested_from_a_denied_leaf() {
    let (w, hat, page) = full(ALL);
    w.mmu_store(0, LEAF + 0x3000);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    hat.sync(&w.cx, range(LEAF, ALL), SyncMode::ZeroRm);
    assert_eq!(w.bits(page), RefMod::REF | RefMod::MOD);
    w.db.page(page).clear_ref_mod(RefMod::all());
    w.mmu_load(0, LEAF + 0x3000);
    assert_eq!(w.hx.sync(&w.cx, page, SyncMode::ZeroRm), RefMod::REF);
    w.db.page(page).clear_ref_mod(RefMod::all());
    w.mmu_load(0, LEAF + 0x3000);
    w.unload(&*hat, LEAF, ALL);
    assert_eq!((w.bits(page), hat.resident()), (RefMod::REF, 0));
    w.verify();
    // A leaf in the same place begins with every right.
    w.load(&*hat, LEAF, page, U);
    assert_eq!(prot_of(&w, &*hat, 0), "rw-");
    w.verify();
}

#[test]
fn the_kernels_leaves_can_be_denied_too() {
    let w = World::new(64);
    let (kernel, page) = (w.hx.kernel(), w.page());
    let at = crate::KERNEL_WINDOW.start().get();
    (0..ALL).for_each(|i| w.load_with(&*kernel, at + (i << 12), page, U, LoadFlags::NOSYNC));
    assert_eq!(spent(&w, || kernel.clear_write(&w.cx, range(at, ALL))).0, 1);
    w.verify();
    assert_eq!(kernel.probe(&w.cx, va(at)).map(|t| t.prot), Some(Prot::READ));
    kernel.unload(&w.cx, range(at, ALL), UnloadFlags::empty());
    w.verify();
}

/// One thread denies the leaf over and over, one grants odd pages and stores to them, one tries to store to even ones and never may.
#[test]
fn a_page_nobody_grants_is_never_stored_to_again() {
    let (w, hat, page) = full(ALL);
    hat.clear_write(&w.cx, range(LEAF, ALL));
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let (parts, hat, stop) = (&w.parts, &hat, &stop);
        s.spawn(move || {
            let cx = new_cx(&parts.counters, 1);
            let mut i = 1;
            while !stop.load(Relaxed) {
                let locked = parts.db.lock_shared(&cx, page);
                let at = va(LEAF + (i << 12));
                let done = hat.memload(&cx, at, &locked, U, LoadFlags::empty(), None);
                assert_eq!(done, Ok(Loaded::Done));
                drop(locked);
                let _ = store(parts, &cx, 1, i);
                i = (i + 2) % ALL;
            }
        });
        s.spawn(move || {
            let cx = new_cx(&parts.counters, 0);
            let mut i = 0;
            while !stop.load(Relaxed) {
                assert!(!store(parts, &cx, 0, i), "U2: page {i} was denied");
                let seen = hat.probe(&cx, va(LEAF + (i << 12))).expect("mapped");
                assert!(!seen.prot.contains(Prot::WRITE), "U5: page {i}");
                i = (i + 2) % ALL;
            }
        });
        for _ in 0..400 {
            hat.clear_write(&w.cx, range(LEAF, ALL));
            std::thread::yield_now();
        }
        stop.store(true, Relaxed);
    });
    hat.clear_write(&w.cx, range(LEAF, ALL));
    assert!((0..ALL).all(|i| !store(&w, &w.cx, 1, i)));
    w.verify();
}
