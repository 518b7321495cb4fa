//! What processors remember, and that it goes in time (laws 5 and V07, V10).

use super::forgetful::{Meanwhile, forgetful};
use super::*;
use crate::{Bytes, HostConfig, Mode, PfError, Trap, access};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

fn fault(w: &World, cpu: u16, addr: u64, byte: Option<u8>) -> PfError {
    let done = match byte {
        Some(b) => w.mmu.store(&w.cx, CpuId(cpu), va(addr), &[b]),
        None => w.mmu.load(&w.cx, CpuId(cpu), va(addr), &mut [0]),
    };
    match done {
        Err(Trap::Page(f)) => f.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_shootdown_is_used_and_is_named() {
    let (w, mmu) = forgetful();
    let (hat, page) = (w.hat(), w.page());
    w.run(1, &*hat);
    w.load(&*hat, 0x1000, page, U);
    w.mmu_store(1, 0x1000);
    w.verify();
    mmu.lose.store(true, Relaxed);
    hat.clear_write(&w.cx, range(0x1000, 1));
    w.mmu_store(1, 0x1000); // through what CPU 1 remembers
    let damage = w.hx.verify(&w.cx).expect_err("CPU 1 can still store");
    let pfn = w.db.pfn(page);
    assert_eq!(damage.invariant, "T1 no stale translation");
    assert_eq!(
        damage.what,
        alloc::format!(
            "cpu 1 remembers 0x1000 of space 1 as {pfn} rw- (level 0, pfn {pfn} P W U A D NX), \
             the tables say {pfn} r-- (level 0, pfn {pfn} P U A D NX)"
        )
    );
    w.unload(&*hat, 0x1000, 1);
    let stale = w.mmu.stale_entries(&w.cx);
    let lost = [(1, 0, None), (0, 1, None)]; // the translation, and the way to the table that was unlinked
    assert_eq!(lost, [0, 1].map(|n| (stale[n].vpn, stale[n].remembered.level, stale[n].now)));
    assert_eq!(stale.len(), 2);
    w.mmu.forget_all(&w.cx, CpuId(1));
    w.verify();
}

#[test]
fn a_lost_harvest_is_named() {
    let (w, mmu) = forgetful();
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, page, U);
    w.mmu_store(0, 0x1000);
    mmu.lose.store(true, Relaxed);
    assert_eq!(w.hx.sync(&w.cx, page, SyncMode::ZeroRm), RefMod::REF | RefMod::MOD);
    w.mmu_store(0, 0x1000);
    assert_eq!(w.hx.sync(&w.cx, page, SyncMode::DontZero) - w.bits(page), RefMod::empty());
    assert!(w.hx.verify(&w.cx).is_err(), "the second store left no dirty bit");
}

#[test]
fn a_store_after_a_harvest_is_dirty_again() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, page, U);
    for _ in 0..3 {
        w.mmu_store(0, 0x1000);
        assert_eq!(w.hx.sync(&w.cx, page, SyncMode::ZeroRm), RefMod::REF | RefMod::MOD);
        w.db.page(page).clear_ref_mod(RefMod::all());
        assert_eq!(w.hx.sync(&w.cx, page, SyncMode::DontZero), RefMod::empty());
        w.verify();
    }
}

#[test]
fn a_store_through_a_clean_translation_walks_again() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, page, U);
    w.mmu_load(0, 0x1000);
    assert_eq!(w.hx.sync(&w.cx, page, SyncMode::DontZero), RefMod::REF);
    w.mmu_store(0, 0x1000);
    assert_eq!(w.hx.sync(&w.cx, page, SyncMode::DontZero), RefMod::REF | RefMod::MOD);
    w.verify();
}

#[test]
fn a_page_leaves_three_hats_with_one_flush() {
    let w = World::new(64);
    let (hats, page) = ([w.hat(), w.hat(), w.hat()], w.page());
    for (i, h) in (1u64..).zip(&hats) {
        w.load(&**h, i << 30, page, U);
        w.run(1, &**h);
        w.mmu_store(1, i << 30);
    }
    assert_eq!(w.db.share_count(&w.cx, page), 3);
    let before = w.snapshot();
    {
        let locked = w.db.lock_excl(&w.cx, page);
        w.db.clear_write(&w.cx, &locked);
        assert_eq!(fault(&w, 1, 3 << 30, Some(1)), PfError::P | PfError::W | PfError::U);
        w.db.unload(&w.cx, &locked);
    }
    assert_eq!(w.snapshot().since(&before).get(Counter::Flushes), 2);
    assert_eq!((w.bits(page), w.db.share_count(&w.cx, page)), (RefMod::REF | RefMod::MOD, 0));
    assert!(hats.iter().all(|h| h.resident() == 0));
    for (i, h) in (1u64..).zip(&hats) {
        w.run(1, &**h);
        assert_eq!(fault(&w, 1, i << 30, None), PfError::U);
    }
    w.verify();
    w.free(page);
    w.verify();
}

#[test]
fn sync_stops_where_it_is_told() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    for i in 1..=3 {
        w.load(&*hat, i << 12, page, U);
    }
    let stop = |limit| w.hx.sync(&w.cx, page, SyncMode::StopOnRef { share_limit: limit });
    assert_eq!(stop(3), RefMod::empty());
    assert_eq!(stop(2), RefMod::REF, "mapped too often to be taken away");
    w.mmu_store(0, 0x3000);
    let before = w.snapshot();
    assert_eq!(stop(8), RefMod::REF | RefMod::MOD);
    assert_eq!(cost(&w, &before), (1, 0), "the mapping added last is looked at first");
    assert_eq!(w.bits(page), RefMod::empty(), "only looked");
}

#[test]
fn what_is_remembered_of_a_space_survives_a_switch_and_is_flushed_all_the_same() {
    let w = World::new(64);
    let (a, b, page) = (w.hat(), w.hat(), w.page());
    w.run(0, &*a);
    w.load(&*a, 0x1000, page, U);
    w.mmu_load(0, 0x1000);
    w.run(0, &*b);
    assert_eq!(fault(&w, 0, 0x1000, None), PfError::U, "another space");
    assert_eq!(w.mmu.remembered(&w.cx, CpuId(0)).len(), 1);
    w.unload(&*a, 0x1000, 1);
    assert_eq!(w.mmu.remembered(&w.cx, CpuId(0)).len(), 0);
    w.mmu.activate(&w.cx, CpuId(0), None);
    assert_eq!(fault(&w, 0, 0x1000, None), PfError::U, "no user space at all");
    w.verify();
}

#[test]
fn kernel_translations_are_flushed_everywhere() {
    let w = World::new(64);
    let (kernel, user, page) = (w.hx.kernel(), w.hat(), w.page());
    let at = crate::KERNEL_WINDOW.start().get();
    w.load(&*kernel, at, page, U);
    w.run(1, &*user);
    let sup = Mode::Supervisor { write_protect: true };
    for cpu in [CpuId(0), CpuId(1)] {
        w.mmu.access(&w.cx, cpu, sup, va(at), Bytes::Store(b"k")).expect("mapped");
    }
    w.verify();
    kernel.chg_prot(&w.cx, range(at, 1), Prot::READ);
    for cpu in [CpuId(0), CpuId(1)] {
        let e = w.mmu.access(&w.cx, cpu, sup, va(at), Bytes::Store(b"k")).expect_err("read-only");
        assert!(matches!(e, Trap::Page(f) if f.error == PfError::P | PfError::W));
        let raw = Mode::Supervisor { write_protect: false };
        w.mmu.access(&w.cx, cpu, raw, va(at), Bytes::Store(b"k")).expect("CR0.WP is off");
    }
    w.unload(&*kernel, at, 1);
    assert!(w.mmu.remembered(&w.cx, CpuId(0)).is_empty());
    w.verify();
}

#[test]
fn error_codes_are_the_processors() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    assert_eq!(fault(&w, 0, 0x1000, None), PfError::U);
    assert_eq!(fault(&w, 0, 0x1000, Some(1)), PfError::U | PfError::W);
    w.load(&*hat, 0x1000, page, Prot::READ);
    assert_eq!(fault(&w, 0, 0x1000, Some(1)), PfError::P | PfError::U | PfError::W);
    let Err(Trap::Page(f)) = w.mmu.fetch(&w.cx, CpuId(0), va(0x1000), &mut [0]) else {
        panic!("NX")
    };
    assert_eq!(f.error, PfError::P | PfError::U | PfError::I);
    assert_eq!(f.kind(), addr_space::FaultKind::Prot);
    w.load(&*hat, 0x1000, page, Prot::RX);
    w.mmu.fetch(&w.cx, CpuId(0), va(0x1000), &mut [0]).expect("executable now");
    w.verify();
}

#[test]
fn long_accesses_are_split_and_say_how_far_they_came() {
    let w = World::new(64);
    let (hat, a, b) = (w.hat(), w.page(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, a, U);
    let text = [7u8; 100];
    let mmu: &dyn crate::UserAccess = &*w.mmu;
    let stopped =
        access::store(mmu, &w.cx, CpuId(0), va(0x1fc0), &text).expect_err("the next page");
    assert_eq!(stopped.done, 64);
    assert!(matches!(stopped.trap, Trap::Page(f) if f.va == va(0x2000)));
    w.load(&*hat, 0x2000, b, U);
    access::store(mmu, &w.cx, CpuId(0), va(0x1fc0), &text).expect("both are mapped");
    let mut back = [0; 100];
    access::load(mmu, &w.cx, CpuId(0), va(0x1fc0), &mut back).expect("both are mapped");
    assert_eq!(back, text);
    let whole = mmu.store(&w.cx, CpuId(0), va(0x1fc0), &text);
    assert_eq!(whole, Err(Trap::Crosses { va: va(0x1fc0), len: 100 }));
    // The very end of the lower half: no address wraps.
    w.load(&*hat, 0x7fff_ffff_f000, a, U);
    let end = access::load(mmu, &w.cx, CpuId(0), va(0x7fff_ffff_fff0), &mut back);
    assert_eq!(end.expect_err("the hole").done, 16);
    assert_eq!(mmu.load(&w.cx, CpuId(0), va(0x9000), &mut []), Ok(()), "nothing is touched");
}

#[test]
fn a_full_cpu_forgets_the_same_ones_each_time() {
    let run = |seed| {
        let (_counters, cx, mem, db) = floor(64);
        let mmu = HostMmu::with_config(mem, 1, HostConfig { capacity: Some(3), seed });
        let hx = HatX86::new(&cx, Arc::clone(&db), mmu.clone() as Arc<dyn Mmu>).expect("room");
        let hat = hx.alloc(&cx).expect("room");
        mmu.activate(&cx, CpuId(0), Some(SpaceId(hat.id())));
        for i in 1..9u64 {
            let page = db.alloc(&cx, 0, Reserve::Push).expect("room");
            let loaded = hat.memload(&cx, va(i << 12), &page, U, LoadFlags::empty(), None);
            assert_eq!(loaded, Ok(Loaded::Done));
            mmu.load(&cx, CpuId(0), va(i << 12), &mut [0]).expect("mapped");
        }
        hx.verify(&cx).expect("nothing is damaged");
        mmu.remembered(&cx, CpuId(0)).iter().map(|r| r.1).collect::<Vec<_>>()
    };
    let (a, b) = (run(1), run(1));
    assert_eq!((a.len(), &a), (3, &b));
    assert!(a.contains(&8), "the newest stays");
    assert!((2..20).any(|seed| run(seed) != a), "the seed matters");
}

#[test]
fn a_hat_that_ends_is_flushed_once() {
    let w = World::new(256);
    let hat = w.hat();
    w.run(0, &*hat);
    let pages: Vec<_> = (0..50).map(|_| w.page()).collect();
    for (i, p) in (0u64..).zip(&pages) {
        w.load(&*hat, i << 21, *p, U);
        w.mmu_store(0, i << 21);
    }
    w.mmu.activate(&w.cx, CpuId(0), None);
    let before = w.snapshot();
    hat.free_start(&w.cx);
    for i in 0..50u64 {
        w.unload(&*hat, i << 21, 512);
    }
    hat.free_end(&w.cx);
    assert_eq!(w.snapshot().since(&before).get(Counter::Flushes), 1);
    assert!(pages.iter().all(|p| w.bits(*p) == RefMod::REF | RefMod::MOD));
    w.verify();
}

#[test]
fn nobody_runs_in_a_hat_that_begins_to_end() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(1, &*hat);
    w.load(&*hat, 0x1000, page, U);
    w.mmu_store(1, 0x1000);
    hat.free_start(&w.cx);
    assert_eq!(fault(&w, 1, 0x1000, Some(1)), PfError::W | PfError::U);
    w.run(1, &*hat);
    assert_eq!(w.mmu.current(&w.cx, CpuId(1)), SpaceId::KERNEL);
    assert_eq!(fault(&w, 1, 0x1000, Some(1)), PfError::W | PfError::U);
    w.unload(&*hat, 0x1000, 1);
    hat.free_end(&w.cx);
    w.verify();
}

/// A page mapped at 0x1000 that CPU 1 has stored to, and what happens between a first change and its flush: `second`, by another
/// thread on CPU 1. When that returns, nothing stale may be left of what it relied on.
fn between(
    first: impl FnOnce(&World, &Arc<dyn Hat>, PageId),
    second: impl FnOnce(&Parts, &Cx, &Arc<dyn Hat>, PageId) + Send + 'static,
) {
    let (w, mmu) = forgetful();
    let (hat, page) = (w.hat(), w.page());
    w.run(1, &*hat);
    w.load(&*hat, 0x1000, page, U);
    w.mmu_store(1, 0x1000);
    let Parts { counters, db, mmu: host, hx } = &w.parts;
    let parts = Parts {
        counters: Arc::clone(counters),
        db: Arc::clone(db),
        mmu: Arc::clone(host),
        hx: Arc::clone(hx),
    };
    let (also, done) = (Arc::clone(&hat), Arc::new(AtomicBool::new(false)));
    let came = Arc::clone(&done);
    let meanwhile: Meanwhile = Box::new(move || {
        let cx = new_cx(&parts.counters, 1);
        let stale = parts.mmu.stale_entries(&cx); // and maybe the way to its table
        let pages = stale.iter().filter(|stale| stale.remembered.level == 0).count();
        assert_eq!(pages, 1, "the first flush is still owed");
        second(&parts, &cx, &also, page);
        assert_eq!(parts.mmu.stale_entries(&cx), [], "F4: the second one paid for it");
        came.store(true, Relaxed);
    });
    *mmu.meanwhile.lock().expect("not poisoned") = Some(meanwhile);
    first(&w, &hat, page);
    assert!(done.load(Relaxed), "there was a flush");
    w.verify();
}

#[test]
fn a_page_is_not_freed_while_somebody_owes_its_flush() {
    between(
        |w, hat, _| w.unload(&**hat, 0x1000, 1),
        |w, cx, _, page| {
            let page = w.db.lock_excl(cx, page);
            assert!(!page_db::LockedPage::page(&page).is_mapped());
            w.db.free(cx, page, false);
        },
    );
}

#[test]
fn an_unused_looking_entry_is_flushed_while_its_harvest_is_owed() {
    let harvest =
        |w: &World, hat: &Arc<dyn Hat>| hat.sync(&w.cx, range(0x1000, 1), SyncMode::ZeroRm);
    between(
        move |w, hat, _| harvest(w, hat),
        |_, cx, hat, _| hat.unload(cx, range(0x1000, 1), UnloadFlags::empty()),
    );
    between(
        move |w, hat, _| harvest(w, hat),
        |w, cx, _, page| w.db.unload(cx, &w.db.lock_excl(cx, page)),
    );
    between(
        move |w, hat, _| harvest(w, hat),
        |w, cx, hat, _| {
            let page = w.db.alloc(cx, 0, Reserve::Push).expect("room");
            let done = hat.memload(cx, va(0x1000), &page, U, LoadFlags::REMAP, None);
            assert_eq!(done, Ok(Loaded::Done));
        },
    );
}

#[test]
fn a_protection_found_done_is_not_done_while_its_flush_is_owed() {
    let lock = |w: &World, page| {
        let page = w.db.lock_shared(&w.cx, page);
        w.db.clear_write(&w.cx, &page);
    };
    between(
        move |w, _, page| lock(w, page),
        |_, cx, hat, _| hat.chg_prot(cx, range(0x1000, 1), Prot::READ),
    );
    between(
        |w, hat, _| hat.clear_write(&w.cx, range(0x1000, 1)),
        |w, cx, _, page| w.db.clear_write(cx, &w.db.lock_shared(cx, page)),
    );
}

/// F4: who asks about one space pays what is owed there, and nothing for another.
#[test]
fn a_space_is_settled_without_the_flushes_of_others() {
    between(
        |w, hat, _| w.unload(&**hat, 0x1000, 1),
        |w, cx, hat, _| {
            let other = w.hx.alloc(cx).expect("room");
            w.mmu.activate(cx, CpuId(0), Some(SpaceId(other.id())));
            let flushes = |f: &dyn Fn()| {
                let before = w.counters.snapshot();
                f();
                w.counters.snapshot().since(&before).get(Counter::Flushes)
            };
            assert_eq!(flushes(&|| other.settle(cx)), 0, "owed in another space");
            assert_eq!(flushes(&|| hat.settle(cx)), 1);
            other.free_start(cx);
            other.free_end(cx);
        },
    );
}

/// The same, where the first change denies a whole leaf from above.
#[test]
fn a_denied_leaf_is_flushed_and_owed_for_like_a_page() {
    let full = |w: &World, hat: &Arc<dyn Hat>, page| {
        (2..512u64).for_each(|i| w.load(&**hat, i << 12, page, U));
        hat.clear_write(&w.cx, range(0, 512));
    };
    between(full, |_, cx, hat, _| hat.clear_write(cx, range(0, 512)));
    between(full, |_, cx, hat, _| hat.chg_prot(cx, range(0x1000, 1), Prot::READ));
    between(full, |w, cx, _, page| w.db.clear_write(cx, &w.db.lock_shared(cx, page)));
    between(full, |w, cx, _, page| w.db.unload(cx, &w.db.lock_excl(cx, page)));
    let (w, mmu) = forgetful();
    let (hat, page) = (w.hat(), w.page());
    w.run(1, &*hat);
    (0..512u64).for_each(|i| w.load(&*hat, i << 12, page, U));
    w.mmu_store(1, 0x7000);
    mmu.lose.store(true, Relaxed);
    hat.clear_write(&w.cx, range(0, 512));
    w.mmu_store(1, 0x7000); // through what CPU 1 remembers
    assert_eq!(w.hx.verify(&w.cx).map_err(|d| d.invariant), Err("T1 no stale translation"));
    w.mmu.forget_all(&w.cx, CpuId(1));
    assert_eq!(fault(&w, 1, 0x7000, Some(1)), PfError::P | PfError::W | PfError::U);
    w.verify();
}

/// More processors than a set has are flushed group by group, and it is one flush; those that were never there are not.
#[test]
fn every_one_of_many_processors_forgets() {
    for cpus in [65, 200, 256, 257, 600] {
        let (counters, cx, mem, db) = floor_of(64, cpus);
        let mmu = HostMmu::new(mem, cpus);
        let hx = HatX86::new(&cx, Arc::clone(&db), mmu.clone() as Arc<dyn Mmu>).expect("room");
        let w = World { cx, parts: Parts { counters, db, mmu, hx } };
        let (hat, page) = (w.hat(), w.page());
        w.load(&*hat, 0x1000, page, U);
        let there: Vec<u16> =
            [0, 63, 64, 255, 256, 511, 599].into_iter().filter(|c| *c < cpus).collect();
        for cpu in &there {
            w.run(*cpu, &*hat);
            w.mmu_store(*cpu, 0x1000);
        }
        let before = w.counters.snapshot();
        hat.clear_write(&w.cx, range(0x1000, 1));
        let counted = w.counters.snapshot().since(&before);
        assert_eq!(counted.get(Counter::Flushes), 1, "of {cpus}");
        for cpu in &there {
            assert!(fault(&w, *cpu, 0x1000, Some(1)).contains(PfError::W), "{cpu} of {cpus}");
        }
        w.verify();
        w.unload(&*hat, 0x1000, 1);
        assert!(w.mmu.stale_entries(&w.cx).is_empty(), "of {cpus}");
    }
}
