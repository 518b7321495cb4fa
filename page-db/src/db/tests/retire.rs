//! Frames out of service (behaviour 54).

use crate::db::{Claim, Reserve, RetireError};
use crate::testing::{World, name};
use crate::{LockedPage, Pfn, RefMod, VnodeKind};

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
    w.db.claim(&page, Claim::Lck).expect("memory to spare");
    drop(page);
    assert_eq!(w.db.retire_check(pfn), Err(RetireError::Pending(pfn)), "claimed");
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("still there");
    w.db.unclaim(&page, Claim::Lck);
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
    // The frame is between its lock and its list at that moment; whoever gets it next gives it back.
    if w.db.retire_check(pfn).is_err() {
        w.verify();
        drop(w.db.lock_excl(&w.cx, id));
    }
    assert_eq!(w.db.retire_check(pfn), Ok(()));
    w.verify();
}
