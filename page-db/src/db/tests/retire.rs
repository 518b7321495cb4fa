//! Frames out of service (behaviour 54).

use crate::db::{Claim, Reserve, RetireError};
use crate::testing::{World, name};
use crate::{LockedPage, Pfn, RefMod, VnodeKind};
use alloc::vec::Vec;

#[test]
fn a_locked_page_is_retired_when_it_is_unlocked() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    let pfn = w.db.pfn(id);
    w.hat.map(&w.cx, id, 2);
    let held = w.db.lookup_shared(&w.cx, name(v, 0)).expect("there");
    let e = w.db.retire(&w.cx, pfn).expect_err("held");
    assert_eq!((e, e.errno()), (RetireError::Pending(pfn), crate::errno::EAGAIN));
    assert_eq!(w.db.retire_check(pfn), Err(RetireError::Pending(pfn)));
    assert!(w.db.try_lock_shared(&w.cx, id).is_none(), "refused while pending");
    assert_eq!(w.db.retire(&w.cx, pfn).map_err(|e| e.errno()), Err(crate::errno::EIO), "twice");
    assert_eq!(w.db.free_mem().availrmem(), 16);
    drop(held);
    assert_eq!(w.db.retire_check(pfn), Ok(()));
    assert_eq!(w.db.free_mem().availrmem(), 15);
    assert!(w.db.exists(&w.cx, name(v, 0)).is_none() && !w.db.page(id).is_mapped());
    assert!(w.db.try_lock_excl(&w.cx, id).is_none() && w.db.try_lock_shared(&w.cx, id).is_none());
    // A stale hint that waits gets the lock and finds the name gone (T1).
    assert!(w.db.lock_shared(&w.cx, id).identity().is_none());
    let census = w.verify();
    assert_eq!((census.retired, census.total(), w.db.freemem()), (1, 16, 15));
    w.db.unretire(&w.cx, pfn).expect("back");
    assert_eq!(w.db.retire_check(pfn), Err(RetireError::NotRetired(pfn)));
    assert_eq!((w.db.freemem(), w.db.free_mem().availrmem()), (16, 16));
    assert_eq!(w.verify().free, 16);
}

#[test]
fn free_and_cached_pages_are_retired_at_once() {
    let w = World::new(3000);
    let v = w.vnode(VnodeKind::File);
    let cached = w.make(name(v, 0));
    w.free(name(v, 0), false);
    // One in a magazine, one on a list.
    let page = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    let stocked = page.id();
    w.db.free(&w.cx, page, false);
    let last = w.db.pages().ids().next_back().expect("the last frame");
    for (n, id) in [cached, stocked, last].into_iter().enumerate() {
        w.db.retire(&w.cx, w.db.pfn(id)).expect("nobody holds it");
        assert_eq!(w.db.freemem(), 2999 - n as u64);
        assert_eq!(w.verify().retired, n as u64 + 1);
    }
    // T2: three of 3000 are the limit; more are accepted and stay in service.
    let more = w.db.pfn(w.make(name(v, 9)));
    assert_eq!(w.db.retire(&w.cx, more), Ok(()));
    assert_eq!(w.db.retire_check(more), Err(RetireError::NotRetired(more)));
    assert_eq!(w.verify().retired, 3);
}

#[test]
fn a_dirty_or_claimed_page_waits_until_it_is_neither() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    let pfn = w.db.pfn(id);
    w.db.page(id).set_ref_mod(RefMod::MOD);
    assert_eq!(w.db.retire(&w.cx, pfn), Err(RetireError::Pending(pfn)));
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("still there");
    page.page().clear_ref_mod(RefMod::MOD);
    let era = w.db.claim(&page, Claim::Lck).expect("memory to spare");
    drop(page);
    assert_eq!(w.db.retire_check(pfn), Err(RetireError::Pending(pfn)), "claimed");
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("still there");
    w.db.unclaim(&page, Claim::Lck, era);
    drop(page);
    assert_eq!(w.db.retire_check(pfn), Ok(()));
    w.verify();
}

#[test]
fn what_is_no_frame_or_not_retired_is_an_error() {
    let w = World::new(16);
    let nowhere = Pfn(1 << 40);
    assert_eq!(w.db.retire(&w.cx, nowhere), Err(RetireError::NoPage(nowhere)));
    assert_eq!(RetireError::NoPage(nowhere).errno(), crate::errno::EINVAL);
    assert_eq!(w.db.unretire(&w.cx, nowhere), Err(RetireError::NoPage(nowhere)));
    let first = w.db.pfn(w.db.pages().ids().next().expect("a frame"));
    assert_eq!(w.db.unretire(&w.cx, first), Err(RetireError::NotRetired(first)));
    w.verify();
}

#[test]
fn a_pending_page_that_is_freed_is_retired_then() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    let pfn = w.db.pfn(id);
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("there");
    page.page().set_ref_mod(RefMod::MOD);
    assert!(w.db.retire(&w.cx, pfn).is_err());
    w.db.destroy(&w.cx, page);
    assert_eq!(w.db.retire_check(pfn), Ok(()));
    w.verify();
}

#[test]
fn pending_pages_that_end_together_are_retired_then() {
    // With magazines and without.
    for (frames, limit) in [(3000, 3), (200, 1)] {
        let w = World::new(frames);
        let v = w.vnode(VnodeKind::Swap);
        let pages: Vec<_> = (0..limit).map(|n| w.make(name(v, n))).collect();
        for id in &pages {
            w.db.page(*id).set_ref_mod(RefMod::MOD);
            let pfn = w.db.pfn(*id);
            assert_eq!(w.db.retire(&w.cx, pfn), Err(RetireError::Pending(pfn)));
        }
        let names: Vec<_> = (0..limit).map(|n| name(v, n).into()).collect();
        assert_eq!(w.db.destroy_run(&w.cx, &names), limit);
        let census = w.verify();
        assert_eq!((census.retired, census.free), (limit, frames - limit));
    }
}

#[test]
fn requests_that_wait_count_towards_the_limit() {
    // T2: one of 16 pages.
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let pfns = [0, 1].map(|n| w.db.pfn(w.make(name(v, n))));
    let held = [0, 1].map(|n| w.db.try_lookup_shared(&w.cx, name(v, n)).expect("there"));
    assert_eq!(w.db.retire(&w.cx, pfns[0]), Err(RetireError::Pending(pfns[0])));
    assert_eq!(w.db.retire(&w.cx, pfns[1]), Ok(()), "accepted, and no more");
    drop(held);
    assert_eq!(w.db.retire_check(pfns[1]), Err(RetireError::NotRetired(pfns[1])));
    assert_eq!(w.verify().retired, 1);
    // Back in service, it makes room for another.
    w.db.unretire(&w.cx, pfns[0]).expect("retired");
    assert_eq!(w.db.retire(&w.cx, pfns[1]), Ok(()));
    assert_eq!(w.db.retire_check(pfns[1]), Ok(()));
    w.verify();
}

#[test]
fn a_free_page_is_not_retired_when_all_memory_is_promised() {
    // T3: the request lapses.
    let w = World::new(16);
    let pfn = w.db.pfn(w.db.pages().ids().next().expect("a frame"));
    assert!(w.db.free_mem().charge(16, 0));
    assert_eq!(w.db.retire(&w.cx, pfn), Ok(()));
    assert_eq!(w.db.retire_check(pfn), Err(RetireError::NotRetired(pfn)));
    w.db.free_mem().uncharge(16);
    w.verify();
    assert_eq!(w.db.retire(&w.cx, pfn), Ok(()));
    assert_eq!(w.verify().retired, 1);
}

#[test]
fn putting_into_service_waits_for_nobody() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    let pfn = w.db.pfn(id);
    let pinned = w.db.lookup_shared(&w.cx, name(v, 0)).expect("there").leak();
    assert_eq!(w.db.unretire(&w.cx, pfn), Err(RetireError::NotRetired(pfn)));
    drop(w.db.try_lock_shared(&w.cx, id).expect("no writer is announced"));
    drop(w.db.adopt_shared(&w.cx, pinned));
    assert_eq!(w.db.retire(&w.cx, pfn), Ok(()));
    let look = w.db.lock_shared(&w.cx, id);
    let e = w.db.unretire(&w.cx, pfn).expect_err("looked at");
    assert_eq!((e, e.errno()), (RetireError::Held(pfn), crate::errno::EAGAIN));
    drop(look);
    w.db.unretire(&w.cx, pfn).expect("back");
    w.verify();
}
