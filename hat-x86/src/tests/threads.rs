//! Real threads on one hat: loads, unloads, page-side unloads, harvests, theft and accesses at once.

use super::*;
use crate::access;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Barrier;

/// Rounds per thread; `HAT_ROUNDS` makes it longer.
fn rounds() -> u64 {
    std::env::var("HAT_ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(300)
}

/// A small generator, so that a failure can be run again.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn two_threads_load_and_unload_their_own_ranges_of_one_hat() {
    let w = World::new(256);
    let hat = w.hat();
    let pages: Vec<_> = (0..32).map(|_| w.page()).collect();
    let start = Barrier::new(2);
    std::thread::scope(|s| {
        for t in 0..2u16 {
            let (w, hat, pages, start) = (&w.parts, &hat, &pages, &start);
            s.spawn(move || {
                let cx = new_cx(&w.counters, t);
                w.mmu.activate(&cx, CpuId(t), Some(SpaceId(hat.id())));
                start.wait();
                let mut seed = u64::from(t) + 1;
                for _ in 0..rounds() {
                    // Neighbouring leaves of one table, so that both make and unmake the tables above.
                    let at = 0x4000_0000 + u64::from(t) * 0x20_0000;
                    for i in 0..8u64 {
                        let id = pages[next(&mut seed) as usize % pages.len()];
                        let page = w.db.lock_shared(&cx, id);
                        let done = hat.memload(
                            &cx,
                            va(at + (i << 12)),
                            &page,
                            U,
                            LoadFlags::empty(),
                            None,
                        );
                        assert_eq!(done, Ok(Loaded::Done));
                        drop(page);
                        w.mmu
                            .store(&cx, CpuId(t), va(at + (i << 12)), b"y")
                            .expect("mine, and mapped");
                    }
                    assert!(hat.probe(&cx, va(at)).is_some());
                    hat.unload(&cx, range(at, 512), UnloadFlags::empty());
                    assert!(w.mmu.load(&cx, CpuId(t), va(at), &mut [0]).is_err());
                    assert_eq!(cx.held(), []);
                }
            });
        }
    });
    assert_eq!(hat.resident(), 0);
    w.verify();
    w.end(&hat);
    pages.into_iter().for_each(|p| w.free(p));
    w.verify();
}

/// One step of a thread that does anything to shared pages at shared addresses.
fn anything(w: &Parts, cx: &Cx, hats: &[Arc<dyn Hat>], pages: &[PageId], seed: &mut u64) {
    let hat = &hats[next(seed) as usize % hats.len()];
    let page = pages[next(seed) as usize % pages.len()];
    let addr = 0x4000_0000 + ((next(seed) % 3) << 21) + ((next(seed) % 4) << 12);
    let span = range(addr, 1 + next(seed) % 3);
    match next(seed) % 12 {
        0..=4 => {
            let page = w.db.lock_shared(cx, page);
            let flags = if next(seed) & 1 == 0 { LoadFlags::REMAP } else { LoadFlags::empty() };
            match hat.memload(cx, va(addr), &page, U, flags, None) {
                Ok(_) | Err(addr_space::HatError::Conflict { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        }
        5 => hat.unload(cx, span, UnloadFlags::empty()),
        6 => hat.chg_prot(cx, span, Prot::READ),
        7 => hat.clear_write(cx, span),
        8 => hat.walk(cx, range(0, 1 << 20), &mut |_, _| {}),
        9 => {
            let page = w.db.lock_excl(cx, page);
            w.db.unload(cx, &page);
            assert_eq!(
                w.db.share_count(cx, page_db::LockedPage::id(&page)),
                0,
                "M1: none comes back while it is held"
            );
        }
        10 => {
            let page = w.db.lock_shared(cx, page);
            w.db.sync_ref_mod(cx, &page, SyncMode::ZeroRm);
        }
        _ => drop(w.hx.steal_tables(cx, 1)),
    }
}

#[test]
fn threads_do_anything_to_shared_pages_and_nothing_is_damaged() {
    for seed in 0..3u64 {
        let w = World::new(256);
        let hats = [w.hat(), w.hat()];
        let pages: Vec<_> = (0..6).map(|_| w.page()).collect();
        std::thread::scope(|s| {
            for t in 0..3u16 {
                let (w, hats, pages) = (&w.parts, &hats, &pages);
                s.spawn(move || {
                    let (cx, cpu) = (new_cx(&w.counters, t), CpuId(t % 2));
                    let mut seed = seed * 16 + u64::from(t) + 1;
                    for i in 0..rounds() * 2 {
                        anything(w, &cx, hats, pages, &mut seed);
                        if i % 16 == 0 {
                            let space = hats[(i / 16) as usize % 2].id();
                            w.mmu.activate(&cx, cpu, Some(SpaceId(space)));
                        }
                        let at = va(0x4000_0000 + ((next(&mut seed) % 3) << 21));
                        let _ = access::store(&*w.mmu, &cx, cpu, at, &[1; 3]);
                        assert_eq!(cx.held(), []);
                    }
                });
            }
        });
        w.verify();
        hats.iter().for_each(|h| w.end(h));
        pages.into_iter().for_each(|p| w.free(p));
        w.verify();
    }
}

#[test]
fn a_frame_is_never_used_by_two() {
    // One thread maps a fresh page, lets the other store into it through the hat, unmaps and frees it, and looks for stores that came late.
    let w = World::new(64);
    let hat = w.hat();
    let (stop, stores) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| {
        let (parts, hat, stop, stores) = (&w.parts, &hat, &stop, &stores);
        s.spawn(move || {
            let w = parts;
            let cx = new_cx(&w.counters, 1);
            w.mmu.activate(&cx, CpuId(1), Some(SpaceId(hat.id())));
            while !stop.load(Relaxed) {
                let done = w.mmu.store(&cx, CpuId(1), va(0x1000), &[0xee; 64]);
                stores.fetch_add(u64::from(done.is_ok()), Relaxed);
            }
        });
        let mut seen = 0;
        for round in 0.. {
            let page = w.page();
            w.load(&**hat, 0x1000, page, U);
            if round % 8 == 0 {
                std::thread::yield_now();
            }
            {
                use page_db::LockedPage as _;
                let page = w.db.lock_excl(&w.cx, page);
                w.db.unload(&w.cx, &page);
                w.db.mem().zero(page.pfn());
                std::thread::yield_now();
                let mut got = [0u8; 64];
                w.db.mem().read(page.pfn(), 0, &mut got);
                assert_eq!(got, [0; 64], "T1: nobody stores after the unload returned");
            }
            w.free(page);
            seen = stores.load(Relaxed);
            if round >= rounds() && (seen > 0 || round > rounds() * 100) {
                break;
            }
        }
        stop.store(true, Relaxed);
        assert!(seen > 0, "the other thread came to store");
    });
    w.verify();
}
