//! Loading one translation (behaviour 60).

use super::*;
use crate::KERNEL_WINDOW;
use addr_space::{HatError, Stamp};
use page_db::Access;
use page_db::sync::atomic::{AtomicU32, Ordering::SeqCst};

fn prot_at(w: &World, hat: &dyn Hat, addr: u64) -> String {
    hat.probe(&w.cx, va(addr)).map_or("none".into(), |t| t.prot.to_string())
}

#[test]
fn the_same_load_twice_is_nothing() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.load(&*hat, 0x1000, page, U);
    let before = w.snapshot();
    w.load(&*hat, 0x1000, page, U);
    assert_eq!(cost(&w, &before), (0, 0));
    assert_eq!(w.db.share_count(&w.cx, page), 1);
    w.verify();
}

#[test]
fn another_frame_is_a_conflict_unless_it_may_replace() {
    let w = World::new(64);
    let (hat, old, new) = (w.hat(), w.page(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, old, U);
    w.mmu_store(0, 0x1000);
    let page = w.db.lock_shared(&w.cx, new);
    let refused = hat.memload(&w.cx, va(0x1000), &page, U, LoadFlags::empty(), None);
    let (have, want) = (w.db.pfn(old), w.db.pfn(new));
    assert_eq!(refused, Err(HatError::Conflict { addr: va(0x1000), have, want }));
    assert_eq!(refused.map_err(|e| e.errno()), Err(page_db::errno::ENOMEM));
    drop(page);
    w.verify();
    let before = w.snapshot();
    w.load_with(&*hat, 0x1000, new, U, LoadFlags::REMAP);
    let d = w.snapshot().since(&before);
    assert_eq!(
        (d.get(Counter::PteWrites), d.get(Counter::Flushes)),
        (2, 1),
        "cleared, flushed, stored"
    );
    assert_eq!(w.bits(old), RefMod::REF | RefMod::MOD);
    assert_eq!(w.db.share_count(&w.cx, old), 0);
    assert_eq!(hat.probe(&w.cx, va(0x1000)).map(|t| t.pfn), Some(want));
    w.verify();
    w.free(old);
    w.verify();
}

#[test]
fn rights_grow_for_nothing_and_shrink_with_a_flush() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load(&*hat, 0x1000, page, Prot::READ);
    w.mmu_load(0, 0x1000);
    let flushes = |w: &World| w.snapshot().get(Counter::Flushes);
    w.load(&*hat, 0x1000, page, Prot::RWX);
    assert_eq!((flushes(&w), prot_at(&w, &*hat, 0x1000).as_str()), (0, "rwx"));
    w.mmu_store(0, 0x1000);
    w.load(&*hat, 0x1000, page, Prot::READ);
    assert_eq!((flushes(&w), prot_at(&w, &*hat, 0x1000).as_str()), (1, "r--"));
    let t = hat.probe(&w.cx, va(0x1000)).expect("still mapped");
    assert_eq!(t.ref_mod, RefMod::REF | RefMod::MOD, "a change of rights loses no bits");
    assert!(w.mmu.store(&w.cx, CpuId(0), va(0x1000), b"x").is_err());
    w.verify();
}

#[test]
fn no_rights_is_no_translation() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.load(&*hat, 0x1000, page, Prot::empty());
    assert_eq!(hat.resident(), 0);
    w.load(&*hat, 0x1000, page, U);
    w.load(&*hat, 0x1000, page, Prot::empty());
    assert_eq!(prot_at(&w, &*hat, 0x1000), "rw-", "left as it is");
    hat.chg_prot(&w.cx, range(0x1000, 1), Prot::empty());
    assert_eq!(hat.resident(), 0);
    w.verify();
}

#[test]
fn what_is_on_no_list_changes_its_rights_like_others() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.load_with(&*hat, 0x1000, page, U, LoadFlags::NOCONSIST);
    for (prot, shown) in [(Prot::READ, "r--"), (Prot::RX, "r-x"), (U, "rw-")] {
        hat.chg_prot(&w.cx, range(0x1000, 1), prot);
        assert_eq!(prot_at(&w, &*hat, 0x1000), shown);
    }
    w.verify();
}

#[test]
fn a_page_that_must_stay_clean_is_never_mapped_writable() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.db.page(page).set_ref_mod(RefMod::RO);
    w.load(&*hat, 0x1000, page, U);
    assert_eq!(prot_at(&w, &*hat, 0x1000), "r--");
    hat.chg_prot(&w.cx, range(0x1000, 1), U);
    assert_eq!(prot_at(&w, &*hat, 0x1000), "r--");
    w.db.page(page).clear_ref_mod(RefMod::RO);
    w.load(&*hat, 0x1000, page, U);
    assert_eq!(prot_at(&w, &*hat, 0x1000), "rw-");
    w.verify();
}

#[test]
fn unsynced_translations_leave_no_bits() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.run(0, &*hat);
    w.load_with(&*hat, 0x1000, page, U, LoadFlags::NOSYNC);
    w.mmu_store(0, 0x1000);
    hat.sync(&w.cx, range(0x1000, 1), SyncMode::ZeroRm);
    assert_eq!(w.hx.sync(&w.cx, page, SyncMode::ZeroRm), RefMod::empty());
    w.verify();
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(w.bits(page), RefMod::empty());
    w.load(&*hat, 0x1000, page, U);
    w.mmu_store(0, 0x1000);
    hat.unload(&w.cx, range(0x1000, 1), UnloadFlags::NOSYNC);
    assert_eq!(w.bits(page), RefMod::empty(), "not wanted");
    w.verify();
}

#[test]
fn a_stale_stamp_stores_nothing_and_keeps_no_table() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    let (free, seq, upper) = (w.db.freemem(), AtomicU32::new(4), AtomicU32::new(7));
    let try_load = |stamp| {
        let page = w.db.lock_shared(&w.cx, page);
        hat.memload(&w.cx, va(0x1000), &page, U, LoadFlags::empty(), Some(stamp))
    };
    let stamp = Stamp::take(&seq);
    let both = stamp.and(&upper);
    assert_eq!(try_load(both), Ok(Loaded::Done));
    w.unload(&*hat, 0x1000, 1);
    upper.store(8, SeqCst);
    assert_eq!(try_load(both), Ok(Loaded::Stale));
    seq.store(5, SeqCst); // being changed
    assert_eq!(try_load(Stamp::take(&seq)), Ok(Loaded::Stale));
    seq.store(6, SeqCst);
    assert_eq!(try_load(stamp), Ok(Loaded::Stale));
    assert_eq!((hat.resident(), w.db.freemem()), (0, free));
    w.verify();
}

#[test]
fn each_hat_keeps_to_its_half() {
    let w = World::new(64);
    let (user, kernel, page) = (w.hat(), w.hx.kernel(), w.page());
    let page = w.db.lock_shared(&w.cx, page);
    let top = VirtAddr::LOWER_END - 4096;
    for (hat, addr) in
        [(&user, KERNEL_WINDOW.start().get()), (&kernel, 0x1000), (&kernel, VirtAddr::UPPER_START)]
    {
        let refused = hat.memload(&w.cx, va(addr), &page, U, LoadFlags::empty(), None);
        assert_eq!(refused, Err(HatError::OutOfRange { addr: va(addr) }));
        hat.unload(&w.cx, range(addr, 1), UnloadFlags::empty());
        assert_eq!(hat.probe(&w.cx, va(addr)), None);
    }
    assert_eq!(user.memload(&w.cx, va(top), &page, U, LoadFlags::empty(), None), Ok(Loaded::Done));
    let last = KERNEL_WINDOW.end() - 4096;
    assert_eq!(
        kernel.memload(&w.cx, va(last), &page, U, LoadFlags::empty(), None),
        Ok(Loaded::Done)
    );
    drop(page);
    w.verify();
}

#[test]
fn devices_have_frames_without_pages() {
    let w = World::new(64);
    let hat = w.hat();
    w.run(0, &*hat);
    let far = Pfn(0xf_0000);
    hat.devload(&w.cx, range(0x1000, 3), far, U, LoadFlags::empty()).expect("room");
    assert_eq!(hat.probe(&w.cx, va(0x3000)).map(|t| t.pfn), Some(Pfn(0xf_0002)));
    let trap = w.mmu.store(&w.cx, CpuId(0), va(0x2000), b"x");
    assert_eq!(trap, Err(crate::Trap::Bus { va: va(0x2000), pfn: Pfn(0xf_0001) }));
    w.verify();
    // A driver may show other frames in the same place.
    hat.devload(&w.cx, range(0x2000, 1), Pfn(0xf_0009), U, LoadFlags::empty())
        .expect("devices may");
    assert_eq!(hat.probe(&w.cx, va(0x2000)).map(|t| t.pfn), Some(Pfn(0xf_0009)));
    let past = hat.devload(&w.cx, range(0x9000, 1), Pfn(u64::MAX), U, LoadFlags::empty());
    assert_eq!(past, Err(HatError::OutOfRange { addr: va(0x9000) }));
    w.verify();
    w.unload(&*hat, 0, 16);
    assert_eq!(hat.resident(), 0);
    w.verify();
}

#[test]
fn locks_are_counted_per_table_and_dropped_by_unlock_or_unload() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    let locks = || w.hx.dump_tables(&w.cx, hat.id()).expect("lives").tables.last().map(|t| t.locks);
    w.load_with(&*hat, 0x1000, page, U, LoadFlags::LOCK);
    w.load_with(&*hat, 0x1000, page, U, LoadFlags::LOCK);
    w.load_with(&*hat, 0x2000, page, U, LoadFlags::LOCK);
    w.load(&*hat, 0x3000, page, U);
    assert_eq!(locks(), Some(3));
    hat.unlock(&w.cx, range(0x1000, 1));
    assert_eq!(locks(), Some(2));
    hat.unload(&w.cx, range(0x1000, 2), UnloadFlags::UNLOCK);
    assert_eq!(locks(), Some(0));
    w.verify();
}

#[test]
fn what_an_entry_allows_is_what_a_probe_says() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    let allows = |addr| {
        let said = [Access::Read, Access::Write].map(|a| hat.allows(&w.cx, va(addr), a));
        let probe = hat.probe(&w.cx, va(addr)).map_or(Prot::empty(), |t| t.prot);
        assert_eq!(said, [Access::Read, Access::Write].map(|a| probe.allows(a)), "{addr:#x}");
        said
    };
    assert_eq!(allows(0x1000), [false; 2], "no table");
    assert_eq!(allows(KERNEL_WINDOW.start().get()), [false; 2], "not this hat's");
    w.load(&*hat, 0x1000, page, Prot::READ);
    assert_eq!((allows(0x1000), allows(0x2000)), ([true, false], [false; 2]));
    w.load(&*hat, 0x1000, page, U);
    assert_eq!(allows(0x1000), [true; 2]);
    // The leaf goes, and its record becomes another leaf's, which this CPU remembers under the old address.
    w.unload(&*hat, 0x1000, 1);
    w.load(&*hat, 0x4020_1000, page, U);
    assert_eq!((allows(0x1000), allows(0x4020_1000)), ([false; 2], [true; 2]));
    w.end(&hat);
    assert_eq!(allows(0x4020_1000), [false; 2], "gone");
}
