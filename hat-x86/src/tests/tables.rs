//! Tables come and go with what they map (behaviour 59).

use super::forgetful::forgetful;
use super::*;
use crate::htable::Supply;
use crate::retired::{KeptTables, RetiredTables};
use crate::{KERNEL_WINDOW, PteBits, walker};

fn tables(w: &World, hat: &dyn Hat) -> Vec<(u8, u64, u16)> {
    let tree = w.hx.dump_tables(&w.cx, hat.id()).expect("the hat lives");
    tree.tables.iter().map(|t| (t.level, t.base, t.valid)).collect()
}

#[test]
fn the_last_entry_takes_its_tables_along_up_to_the_top() {
    let w = World::new(64);
    let (hat, page, other) = (w.hat(), w.page(), w.page());
    let free = w.db.freemem();
    assert_eq!(tables(&w, &*hat), [(3, 0, 0)]);
    w.load(&*hat, 0x4000_0000, page, U);
    w.load(&*hat, 0x4000_1000, other, U);
    w.load(&*hat, 0x40_0000, page, U);
    let full = [
        (3, 0, 1),
        (2, 0, 2),
        (1, 0, 1),
        (0, 0x40_0000, 1),
        (1, 0x4000_0000, 1),
        (0, 0x4000_0000, 2),
    ];
    assert_eq!(tables(&w, &*hat), full);
    assert_eq!(free - w.db.freemem(), 5);
    assert_eq!(hat.resident(), 3);
    w.verify();
    w.unload(&*hat, 0x4000_0000, 1);
    assert_eq!(tables(&w, &*hat)[5], (0, 0x4000_0000, 1));
    w.unload(&*hat, 0x4000_1000, 1);
    assert_eq!(
        tables(&w, &*hat),
        full[..4].iter().map(|t| if t.0 == 2 { (2, 0, 1) } else { *t }).collect::<Vec<_>>()
    );
    w.verify();
    w.unload(&*hat, 0x40_0000, 1);
    assert_eq!(tables(&w, &*hat), [(3, 0, 0)]);
    assert_eq!(w.db.freemem(), free);
    w.verify();
}

#[test]
fn the_end_of_a_hat_gives_everything_back() {
    let w = World::new(128);
    let free = w.db.freemem();
    let hat = w.hat();
    let pages: Vec<_> = (0..8).map(|_| w.page()).collect();
    for (i, p) in (0u64..).zip(&pages) {
        w.load(&*hat, i << 30, *p, U);
    }
    w.run(1, &*hat);
    w.end(&hat);
    assert_eq!(w.mmu.current(&w.cx, CpuId(1)), SpaceId::KERNEL);
    assert_eq!(w.hx.hats(&w.cx).len(), 1);
    w.verify();
    // What is asked of a hat that is gone does nothing.
    let page = w.db.lock_shared(&w.cx, pages[0]);
    let refused = hat.memload(&w.cx, va(0x1000), &page, U, LoadFlags::empty(), None);
    assert_eq!(refused, Err(addr_space::HatError::OutOfRange { addr: va(0x1000) }));
    drop(page);
    w.unload(&*hat, 0, 100);
    assert_eq!((hat.probe(&w.cx, va(0)), hat.resident()), (None, 0));
    w.end(&hat);
    pages.into_iter().for_each(|p| w.free(p));
    assert_eq!(w.db.freemem(), free);
    w.verify();
}

#[test]
fn locked_translations_keep_their_table_from_being_stolen() {
    let w = World::new(64);
    let (hat, locked, plain) = (w.hat(), w.page(), w.page());
    w.load_with(&*hat, 0x1000, locked, U, LoadFlags::LOCK);
    w.load(&*hat, 0x4000_0000, plain, U);
    w.run(0, &*hat);
    w.mmu_store(0, 0x4000_0000);
    w.mmu_store(0, 0x1000);
    let free = w.db.freemem();
    assert_eq!(w.hx.steal_tables(&w.cx, 100), 2, "the leaf and the table above it");
    assert_eq!(w.db.freemem(), free + 2);
    assert_eq!(w.bits(plain), RefMod::REF | RefMod::MOD, "what it knew is kept");
    assert_eq!((w.bits(locked), hat.resident()), (RefMod::empty(), 1));
    w.verify();
    hat.unlock(&w.cx, range(0x1000, 1));
    assert_eq!(w.hx.steal_tables(&w.cx, 1), 3);
    assert_eq!((w.bits(locked), hat.resident()), (RefMod::REF | RefMod::MOD, 0));
    w.verify();
}

#[test]
fn idle_hats_are_stolen_from_first_and_in_turn() {
    let w = World::new(128);
    let hats: Vec<_> = (0..3).map(|_| w.hat()).collect();
    let pages: Vec<_> = (0..6).map(|_| w.page()).collect();
    for (i, p) in pages.iter().enumerate() {
        w.load(&*hats[i % 3], 0x1000 + ((i as u64 / 3) << 30), *p, U);
    }
    w.run(0, &*hats[0]);
    let resident = |w: &World| w.hx.hats(&w.cx)[1..].iter().map(|h| h.resident).collect::<Vec<_>>();
    assert_eq!(resident(&w), [2, 2, 2]);
    w.hx.steal_tables(&w.cx, 1);
    assert_eq!(resident(&w), [2, 1, 2]);
    w.hx.steal_tables(&w.cx, 1);
    assert_eq!(resident(&w), [2, 1, 1], "the hand moved on");
    w.hx.steal_tables(&w.cx, 100);
    assert_eq!(resident(&w), [0, 0, 0]);
    w.verify();
}

#[test]
fn the_kernel_is_in_every_hat_and_for_the_kernel_only() {
    let w = World::new(64);
    let kernel = w.hx.kernel();
    let (before, page) = (w.hat(), w.page());
    let at = KERNEL_WINDOW.start().get() + 0x1234_5000;
    w.load(&*kernel, at, page, U);
    let after = w.hat();
    assert_eq!(kernel.id(), 0);
    for hat in [&before, &after] {
        let seen = w.hx.vatopfn(&w.cx, hat.id(), va(at)).expect("the hat lives");
        assert_eq!(seen.pfn, Some((w.db.pfn(page), Prot::RW)), "no user right");
        w.run(0, &**hat);
        let mut b = [0];
        let fault = w.mmu.load(&w.cx, CpuId(0), va(at), &mut b).expect_err("user code is kept out");
        let crate::Trap::Page(fault) = fault else { panic!("{fault}") };
        assert_eq!(fault.error, walker::PfError::P | walker::PfError::U);
        let sup = crate::Mode::Supervisor { write_protect: true };
        w.mmu.access(&w.cx, CpuId(0), sup, va(at), crate::Bytes::Load(&mut b)).expect("mapped");
    }
    assert!(w.hx.mappings_of(&w.cx, page)[0].2.has(PteBits::G));
    // The window's own table stays when it is empty.
    w.verify();
    w.unload(&*kernel, at, 1);
    assert_eq!(tables(&w, &*kernel).len(), 2);
    w.verify();
    kernel.free_start(&w.cx);
    kernel.free_end(&w.cx);
    w.load(&*kernel, at, page, U);
    w.verify();
}

#[test]
fn the_way_to_an_unlinked_table_is_forgotten_with_it() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x40_0000, page, U);
    w.mmu_store(0, 0x40_0000);
    w.mmu.forget_all(&w.cx, CpuId(0));
    w.load(&*hat, 0x40_1000, page, U);
    w.mmu_store(0, 0x40_1000); // the way alone leads to the first page
    let before = w.snapshot();
    w.unload(&*hat, 0x40_0000, 2);
    assert_eq!(w.snapshot().since(&before).get(Counter::Flushes), 1);
    w.verify();
    w.load(&*hat, 0x40_0000, page, U);
    w.mmu_store(0, 0x40_0000);
    // A leaf that was unlinked and linked again between two accesses has another frame, or the same one again; the way is learnt anew.
    w.unload(&*hat, 0x40_0000, 1);
    let held = w.page();
    w.load(&*hat, 0x40_0000, page, U);
    w.mmu_store(0, 0x40_0000);
    w.verify();
    w.free(held);
}

#[test]
fn frames_that_a_backend_keeps_come_when_tables_are_taken() {
    let (w, mmu) = forgetful();
    mmu.late.store(true, core::sync::atomic::Ordering::Relaxed);
    let (hat, page) = (w.hat(), w.page());
    let free = w.db.freemem();
    w.load(&*hat, 0x1000, page, U);
    assert_eq!(w.hx.steal_tables(&w.cx, 1), 3);
    assert_eq!(w.db.freemem(), free, "asked for at the end");
    w.load(&*hat, 0x1000, page, U);
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(w.db.freemem(), free - 3, "kept");
    let (other, at) = (w.hat(), w.db.freemem());
    w.load(&*other, 0x1000, page, U);
    assert_eq!(w.hx.steal_tables(&w.cx, 3), 3, "no table is taken while as many are kept");
    assert_eq!((w.db.freemem(), other.resident()), (at, 1));
    w.verify();
}

#[test]
fn what_is_kept_again_and_again_comes_back_once() {
    let w = World::new(64);
    let mut supply = Supply::default();
    w.hx.gather(&w.cx, va(0x1000), &mut supply, 3).expect("room");
    let ids = [supply.take(), supply.take(), supply.take()];
    let pfns = ids.map(|id| w.hx.tables.get(id).pfn());
    let alone = |id: u32| {
        w.hx.tables.get(id).link.store(0, core::sync::atomic::Ordering::Relaxed);
        RetiredTables::new(&w.hx.tables, id)
    };
    let mut kept = KeptTables::new();
    RetiredTables::new(&w.hx.tables, 0).keep(&mut kept);
    assert!(kept.is_empty());
    let (mut first, mut second, mut third) = (alone(ids[0]), alone(ids[1]), alone(ids[2]));
    first.keep(&mut kept);
    second.keep(&mut kept);
    assert!(first.is_empty() && second.next().is_none() && !kept.is_empty());
    third.bring_back(&mut kept);
    assert!(kept.is_empty());
    let mut back = Vec::new();
    while let Some(pfn) = third.next() {
        w.hx.free_table(&w.cx, pfn); // its record may be the next table's at once
        back.push(pfn);
        third.bring_back(&mut kept);
    }
    assert_eq!(back, [pfns[1], pfns[0], pfns[2]]);
    w.verify();
}
