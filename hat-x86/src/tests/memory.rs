//! Running out of frames and of records leaves the state as it was (law 2).

use super::*;
use crate::SetupError;
use addr_space::HatError;

/// Takes frames until `left` are free.
fn starve(w: &World, left: u64) -> Vec<PageId> {
    let mut held = Vec::new();
    while w.db.freemem() > left {
        held.push(w.page());
    }
    held
}

#[test]
fn a_load_needs_three_frames_and_takes_none_unless_it_gets_them() {
    for left in 0..=3 {
        let w = World::new(64);
        let (hat, page) = (w.hat(), w.page());
        let held = starve(&w, left);
        let (before, locked) = (w.snapshot(), w.db.lock_shared(&w.cx, page));
        let adv = hat.memload(&w.cx, va(0x1000), &locked, U, LoadFlags::ADV, None);
        assert_eq!(adv, Ok(Loaded::Done), "advice needs no table");
        assert_eq!((hat.resident(), w.db.freemem()), (0, left));
        let done = hat.memload(&w.cx, va(0x1000), &locked, U, LoadFlags::empty(), None);
        drop(locked);
        if left < 3 {
            assert_eq!(done, Err(HatError::NoMemory { addr: va(0x1000) }));
            assert_eq!((w.db.freemem(), hat.resident()), (left, 0));
            let d = w.snapshot().since(&before);
            assert_eq!(d.get(Counter::TableAllocs), d.get(Counter::TableFrees));
        } else {
            assert_eq!((done, hat.resident()), (Ok(Loaded::Done), 1));
        }
        w.verify();
        held.into_iter().for_each(|p| w.free(p));
        w.verify();
    }
}

#[test]
fn a_hat_and_the_kernels_tables_need_frames() {
    let w = World::new(64);
    starve(&w, 0);
    assert!(matches!(w.hx.alloc(&w.cx), Err(HatError::NoMemory { .. })));
    w.verify();
    for frames in 1..2 {
        let (_, cx, mem, db) = floor(frames);
        let mmu = HostMmu::new(mem, 1);
        let e = HatX86::new(&cx, Arc::clone(&db), mmu);
        assert!(matches!(e.err(), Some(SetupError::Tables(HatError::NoMemory { .. }))));
        assert_eq!(db.freemem(), frames);
    }
}

#[test]
fn records_of_mappings_run_out_without_a_trace() {
    let w = World::with_limits(64, HatLimits { hments: 3, ..HatLimits::default() });
    let (hat, a, b) = (w.hat(), w.page(), w.page());
    w.load(&*hat, 0x1000, a, U);
    w.load(&*hat, 0x2000, a, U);
    w.load(&*hat, 0x3000, b, U);
    let free = w.db.freemem();
    let page = w.db.lock_shared(&w.cx, b);
    for (addr, flags) in [
        (0x4000, LoadFlags::empty()),
        (0x4000_0000, LoadFlags::empty()),
        (0x2000, LoadFlags::REMAP),
    ] {
        // `b` needs two records to become a list, one is left.
        let done = hat.memload(&w.cx, va(addr), &page, U, flags, None);
        assert_eq!(done, Err(HatError::NoMemory { addr: va(addr) }));
        w.hx.verify(&w.cx).expect("nothing is damaged");
    }
    let adv = hat.memload(&w.cx, va(0x4000), &page, U, LoadFlags::ADV, None);
    assert_eq!(adv, Ok(Loaded::Done));
    drop(page);
    assert_eq!((hat.resident(), w.db.freemem()), (3, free), "tables made in vain went back");
    assert_eq!(hat.probe(&w.cx, va(0x2000)).map(|t| t.pfn), Some(w.db.pfn(a)), "not replaced");
    w.load(&*hat, 0x4000, a, U);
    w.verify();
}

#[test]
fn records_of_tables_run_out_without_a_trace() {
    // Two for the kernel, one top table, and two of the three that the first load needs.
    let w = World::with_limits(64, HatLimits { tables: 5, ..HatLimits::default() });
    let (hat, page) = (w.hat(), w.page());
    let free = w.db.freemem();
    let locked = w.db.lock_shared(&w.cx, page);
    let done = hat.memload(&w.cx, va(0x1000), &locked, U, LoadFlags::empty(), None);
    assert_eq!(done, Err(HatError::NoMemory { addr: va(0x1000) }));
    drop(locked);
    assert_eq!(w.db.freemem(), free);
    w.verify();
}
