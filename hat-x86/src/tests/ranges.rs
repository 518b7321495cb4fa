//! Ranges cost what is in them (laws 1 and D12), and each verb does what it says.

use super::*;

const TIB: u64 = 1 << 40;

#[test]
fn sixteen_tib_of_nothing_are_thirty_two_reads() {
    let w = World::new(64);
    let hat = w.hat();
    let huge = VirtRange::exact(0x1000 << 30, 16 * TIB).expect("a range");
    type Verb = fn(&dyn Hat, &Cx, VirtRange);
    let verbs: [Verb; 6] = [
        |h, cx, r| h.unload(cx, r, UnloadFlags::empty()),
        |h, cx, r| h.chg_prot(cx, r, Prot::READ),
        |h, cx, r| h.clear_write(cx, r),
        |h, cx, r| h.sync(cx, r, SyncMode::ZeroRm),
        |h, cx, r| h.unlock(cx, r),
        |h, cx, r| h.walk(cx, r, &mut |_, _| panic!("nothing is mapped")),
    ];
    for verb in verbs {
        let before = w.snapshot();
        verb(&*hat, &w.cx, huge);
        assert_eq!(cost(&w, &before), (32, 0));
    }
    let before = w.snapshot();
    w.unload(&*hat, 0x1000, 4);
    assert_eq!(cost(&w, &before), (1, 0));
}

#[test]
fn a_lone_page_costs_its_path() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    let huge = VirtRange::exact(0, 16 * TIB).expect("a range");
    w.load(&*hat, 0x1000, page, U);
    // The leaf's third entry is not read: both present ones... the only present one was the second.
    let before = w.snapshot();
    hat.clear_write(&w.cx, huge);
    let (top, upper, middle, leaf) = (32, 512, 512, 2);
    assert_eq!(cost(&w, &before), (top + upper + middle + leaf, 1));
    // Unloading takes the tables along: one entry at each level, the one after the leaf in a table that is gone by then, and the
    // way on from the top, where the first entry is absent now.
    let before = w.snapshot();
    w.run(0, &*hat);
    hat.unload(&w.cx, huge, UnloadFlags::empty());
    assert_eq!(cost(&w, &before), (3 + 2 + 1 + 32, 4));
    w.verify();
}

#[test]
fn a_single_page_reads_one_entry_a_level_or_its_own_alone() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    for i in 0..3 {
        w.load(&*hat, 0x1000 * i, page, U);
    }
    let before = w.snapshot();
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(cost(&w, &before), (1, 1), "this CPU used the leaf last");
    let (before, other) = (w.snapshot(), new_cx(&w.counters, 1));
    hat.unload(&other, range(0x2000, 1), UnloadFlags::empty());
    assert_eq!(cost(&w, &before), (4, 1), "the other one walks");
    assert_eq!(hat.resident(), 1);
    w.verify();
}

#[test]
fn many_pages_are_one_flush() {
    let w = World::new(256);
    let hat = w.hat();
    w.run(0, &*hat);
    w.run(1, &*hat);
    let pages: Vec<_> = (0..100).map(|_| w.page()).collect();
    for (i, p) in (0u64..).zip(&pages) {
        w.load(&*hat, 0x1f_0000 + (i << 12), *p, U);
        w.mmu_store(i as u16 & 1, 0x1f_0000 + (i << 12));
    }
    let spent = |f: &dyn Fn()| {
        let before = w.snapshot();
        f();
        let d = w.snapshot().since(&before);
        (d.get(Counter::PteWrites), d.get(Counter::Flushes), d.get(Counter::FlushEntries))
    };
    let all = range(0x10_0000, 0x1000);
    assert_eq!(spent(&|| hat.clear_write(&w.cx, all)), (100, 1, 100));
    assert_eq!(spent(&|| hat.clear_write(&w.cx, all)), (0, 0, 0));
    assert_eq!(spent(&|| hat.chg_prot(&w.cx, all, Prot::RWX)), (100, 0, 0), "rights only grew");
    assert_eq!(spent(&|| hat.chg_prot(&w.cx, all, Prot::RX)), (100, 1, 100));
    w.verify();
    // 100 entries, and the three tables.
    let writes = spent(&|| hat.unload(&w.cx, all, UnloadFlags::UNMAP)).0;
    assert_eq!(writes, 100 + 2 + 2, "two leaves, the table above them, and its");
    assert!(pages.iter().all(|p| w.bits(*p) == RefMod::REF | RefMod::MOD));
    w.verify();
    w.end(&hat);
    pages.into_iter().for_each(|p| w.free(p));
    w.verify();
}

#[test]
fn never_used_pages_owe_no_flush() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, page, U);
    hat.chg_prot(&w.cx, range(0x1000, 1), Prot::READ);
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(w.snapshot().get(Counter::Flushes), 0);
    w.verify();
}

#[test]
fn a_harvest_makes_the_next_use_seen_again() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, page, U);
    w.mmu_store(0, 0x1000);
    hat.sync(&w.cx, range(0x1000, 1), SyncMode::DontZero);
    assert_eq!(w.bits(page), RefMod::REF | RefMod::MOD);
    w.db.page(page).clear_ref_mod(RefMod::all());
    hat.sync(&w.cx, range(0x1000, 1), SyncMode::ZeroRm);
    assert_eq!(w.bits(page), RefMod::REF | RefMod::MOD, "they were still in the entry");
    w.db.page(page).clear_ref_mod(RefMod::all());
    hat.sync(&w.cx, range(0x1000, 1), SyncMode::ZeroRm);
    assert_eq!(w.bits(page), RefMod::empty());
    w.mmu_load(0, 0x1000);
    hat.sync(&w.cx, range(0x1000, 1), SyncMode::ZeroRm);
    assert_eq!(w.bits(page), RefMod::REF);
    w.mmu_store(0, 0x1000);
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(w.bits(page), RefMod::REF | RefMod::MOD);
    w.verify();
}

#[test]
fn a_walk_tells_each_translation_in_order_and_may_call_the_hat() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    let at = [0x7fff_ffff_f000, 0x1000, 0x8000_0000, 0x1f_f000, 0x20_0000];
    for a in at {
        w.load(&*hat, a, page, if a == 0x1000 { Prot::READ } else { Prot::RWX });
    }
    let mut seen = Vec::new();
    hat.walk(&w.cx, VirtRange::exact(0, VirtAddr::LOWER_END).expect("all"), &mut |va, t| {
        seen.push((va.get(), t.prot.to_string(), t.pfn));
        hat.clear_write(&w.cx, VirtRange::page_of(va)); // no lock is held
    });
    let pfn = w.db.pfn(page);
    let want = [
        (0x1000, "r--"),
        (0x1f_f000, "rwx"),
        (0x20_0000, "rwx"),
        (0x8000_0000, "rwx"),
        (0x7fff_ffff_f000, "rwx"),
    ];
    assert_eq!(seen, want.map(|(a, p)| (a, p.to_string(), pfn)));
    let mut some = 0;
    hat.walk(&w.cx, range(0x1f_f000, 2), &mut |_, t| {
        assert_eq!(t.prot, Prot::RX | Prot::USER);
        some += 1;
    });
    assert_eq!(some, 2);
    w.verify();
}

#[test]
fn protection_changes_keep_to_the_range() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    for i in 0..4u64 {
        w.load(&*hat, 0x1f_e000 + (i << 12), page, U);
    }
    hat.chg_prot(&w.cx, range(0x1f_f000, 2), Prot::RX);
    let seen: Vec<String> = (0..4u64)
        .map(|i| hat.probe(&w.cx, va(0x1f_e000 + (i << 12))).expect("mapped").prot.to_string())
        .collect();
    assert_eq!(seen, ["rw-", "r-x", "r-x", "rw-"]);
    w.verify();
}

#[test]
fn rights_are_asked_for_by_the_table() {
    let w = World::new(64);
    let (hat, a, b) = (w.hat(), w.page(), w.page());
    w.load(&*hat, 0x1ff << 12, a, U);
    w.load(&*hat, 0x201 << 12, b, U);
    let range = VirtRange::exact(0x1fe << 12, 5 << 12).expect("a range");
    hat.chg_prot(&w.cx, VirtRange::exact(0x201 << 12, 1 << 12).expect("a page"), Prot::READ);
    let mut rights = [Prot::RWX; 6];
    hat.rights(&w.cx, range, &mut rights);
    for (i, got) in (0u64..).zip(rights) {
        let at = VirtAddr::new((0x1fe + i) << 12).expect("canonical");
        assert_eq!(got, hat.probe(&w.cx, at).map_or(Prot::empty(), |t| t.prot), "place {i}");
    }
    assert!(rights[1].contains(Prot::WRITE) && rights[3].contains(Prot::READ));
    // Room for less than the range, and a range that is not the hat's.
    hat.rights(&w.cx, range, &mut rights[..2]);
    let kernel = VirtRange::exact(0xffff_8000_0000_0000, 2 << 12).expect("a range");
    hat.rights(&w.cx, kernel, &mut rights);
    assert!(rights.iter().all(|r| r.is_empty()));
}

/// A walk reports some translations at a time, each once, in order, whatever they are and wherever it begins and ends.
#[test]
fn a_walk_reports_in_pieces_each_translation_once() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    // A leaf that is full, one with every third page, one with exactly as many as are reported together.
    let pages = (0..512).chain((512..1024).step_by(3)).chain(1024..1056);
    let there: Vec<u64> = pages.map(|n| n * 4096).collect();
    there.iter().for_each(|at| w.load(&*hat, *at, page, U));
    for (from, to) in
        [(0, 2048), (0, 512), (5, 511), (31, 63), (500, 600), (513, 1040), (1024, 1056)]
    {
        let range = range(from * 4096, to - from);
        let mut seen = Vec::new();
        hat.walk(&w.cx, range, &mut |at, t| {
            assert_eq!((t.pfn, t.prot), (w.db.pfn(page), U | Prot::USER));
            seen.push(at.get());
        });
        let want: Vec<u64> = there.iter().copied().filter(|at| range.contains(va(*at))).collect();
        assert_eq!(seen, want, "{from}..{to}");
    }
    // What it is called for may unload all there is: nothing is locked, and the rest is not there any more.
    let mut seen = 0;
    hat.walk(&w.cx, range(0, 2048), &mut |_, _| {
        seen += 1;
        w.unload(&*hat, 0, 2048);
    });
    assert_eq!(seen, 32, "those that had been read");
    w.end(&hat);
    w.free(page);
    w.verify();
}
