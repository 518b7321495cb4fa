//! Letting go: cache list order, what may not be freed, release, destroy, rename (behaviours 47, 48, 51).

use crate::db::{Claim, Released, Reserve};
use crate::testing::{World, name};
use crate::{Counter, LockedPage, PageError, PageId, PageState, RefMod, VnodeKind};
use alloc::vec::Vec;

#[test]
fn free_with_a_name_goes_to_the_cache_list_and_lookup_takes_it_back() {
    // Behaviour 47.
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    w.free(name(v, 0), false);
    assert_eq!((w.db.freemem(), w.db.cache_list().count()), (8, 1));
    assert_eq!(w.verify().cached, 1);
    let page = w.db.lookup_shared(&w.cx, name(v, 0)).expect("still there");
    assert_eq!(page.id(), id);
    assert_eq!((w.db.freemem(), w.db.cache_list().count()), (7, 0));
    assert_eq!(page.page().ref_mod(), RefMod::REF);
    assert_eq!((w.count(Counter::PgRec), w.count(Counter::PgFrec)), (1, 1));
    drop(page);
    w.verify();
}

#[test]
fn free_without_a_name_goes_to_the_free_list() {
    let w = World::new(8);
    let page = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    w.db.free(&w.cx, page, false);
    assert_eq!((w.db.free_list().count(), w.db.cache_list().count()), (8, 0));
    w.verify();
}

#[test]
#[should_panic(expected = "P2: page 1 is freed while mapped")]
fn free_of_a_mapped_page_panics() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    w.hat.map(&w.cx, id, 1);
    w.free(name(v, 0), false);
}

#[test]
#[should_panic(expected = "P1: page 1 is freed twice")]
fn free_twice_panics() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    w.free(name(v, 0), false);
    let page = w.db.lock_excl(&w.cx, id);
    w.db.free(&w.cx, page, false);
}

#[test]
#[should_panic(expected = "P2: page 1 is freed while locked in memory")]
fn free_of_a_claimed_page_panics() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    w.make(name(v, 0));
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("there");
    w.db.claim(&page, Claim::Lck).expect("memory to spare");
    w.db.free(&w.cx, page, false);
}

#[test]
#[should_panic(expected = "K4: page 1 is freed while in transit")]
fn free_of_a_page_in_transit_panics() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let page = w.db.create(&w.cx, name(v, 0), 0, Reserve::Normal).expect("a frame");
    w.db.free(&w.cx, page, false);
}

#[test]
fn cache_list_order_is_oldest_first_with_dontneed_pages_before() {
    // Behaviour 48: A, B, then C with dontneed; the next two frames are C's and A's.
    let w = World::new(4);
    let v = w.vnode(VnodeKind::File);
    let ids: Vec<PageId> = (0..4).map(|i| w.make(name(v, i))).collect();
    w.free(name(v, 0), false);
    w.free(name(v, 1), false);
    w.free(name(v, 2), true);
    let next = || w.db.alloc(&w.cx, 0, Reserve::Push).expect("a cached page").leak();
    assert_eq!([next(), next()], [ids[2], ids[0]]);
    assert!(w.db.exists(&w.cx, name(v, 1)).is_some());
}

#[test]
fn release_lets_go_only_of_what_nobody_needs() {
    let w = World::new(16);
    let (file, swap) = (w.vnode(VnodeKind::File), w.vnode(VnodeKind::Swap));
    let release = |n| {
        let page = w.db.lookup_shared(&w.cx, n).expect("there");
        page.page().clear_ref_mod(RefMod::REF);
        w.db.release(&w.cx, page, true)
    };
    // Mapped.
    let mapped = w.make(name(file, 0));
    w.hat.map(&w.cx, mapped, 1);
    assert_eq!(release(name(file, 0)), Released::NotReleased);
    // Anonymous.
    w.make(name(swap, 0));
    assert_eq!(release(name(swap, 0)), Released::NotReleased);
    // Claimed.
    w.make(name(file, 1));
    let page = w.db.lookup_shared(&w.cx, name(file, 1)).expect("there");
    w.db.claim(&page, Claim::Cow).expect("memory to spare");
    drop(page);
    assert_eq!(release(name(file, 1)), Released::NotReleased);
    // Held by another reader.
    w.make(name(file, 2));
    let other = w.db.lookup_shared(&w.cx, name(file, 2)).expect("there").leak();
    assert_eq!(release(name(file, 2)), Released::NotReleased);
    drop(w.db.adopt_shared(&w.cx, other));
    // Modified.
    w.make(name(file, 3));
    let page = w.db.lookup_shared(&w.cx, name(file, 3)).expect("there");
    page.page().set_ref_mod(RefMod::MOD);
    assert_eq!(w.db.release(&w.cx, page, true), Released::Modified);
    // None of these.
    assert_eq!(release(name(file, 2)), Released::Clean);
    let census = w.verify();
    assert_eq!((census.cached, census.named), (1, 4));
}

#[test]
fn destroy_unloads_returns_claims_and_takes_the_name() {
    let w = World::new(1000);
    let v = w.vnode(VnodeKind::Swap);
    let id = w.make(name(v, 0));
    w.hat.map(&w.cx, id, 3);
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("there");
    w.db.claim(&page, Claim::Lck).expect("memory to spare");
    w.db.claim(&page, Claim::Cow).expect("memory to spare");
    w.db.claim(&page, Claim::Cow).expect("memory to spare");
    assert_eq!(w.db.free_mem().availrmem(), 997);
    w.db.destroy(&w.cx, page);
    assert_eq!(w.db.free_mem().availrmem(), 1000);
    assert!(w.db.exists(&w.cx, name(v, 0)).is_none());
    assert!(!w.db.page(id).is_mapped() && !w.db.page(id).state().contains(PageState::SWAP));
    assert_eq!(w.verify().free, 1000);
}

#[test]
fn destroy_of_a_cached_page_leaves_freemem_as_it_is_and_counts_no_reclaim() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    w.make(name(v, 0));
    w.free(name(v, 0), false);
    let page = w.db.lookup_excl_cached(&w.cx, name(v, 0)).expect("there");
    assert!(page.page().is_free());
    w.db.destroy(&w.cx, page);
    assert_eq!((w.db.freemem(), w.db.cache_list().count()), (8, 0));
    assert_eq!(w.count(Counter::PgRec), 0);
    w.verify();
}

#[test]
fn rename_over_an_existing_page_destroys_it_adds_its_claims_and_keeps_mappings() {
    // Behaviour 51.
    let w = World::new(1000);
    let v = w.vnode(VnodeKind::File);
    let (moved, old) = (w.make(name(v, 0)), w.make(name(v, 7)));
    w.hat.map(&w.cx, moved, 2);
    w.hat.map(&w.cx, old, 1);
    for (n, times) in [(0, 1), (7, 2)] {
        let page = w.db.lookup_shared(&w.cx, name(v, n)).expect("there");
        for _ in 0..times {
            w.db.claim(&page, Claim::Lck).expect("memory to spare");
        }
    }
    assert_eq!(w.db.free_mem().availrmem(), 998);
    let page = w.db.lookup_excl(&w.cx, name(v, 0)).expect("there");
    w.db.rename(&w.cx, &page, name(v, 7)).expect("nobody holds it");
    assert_eq!((page.identity(), page.page().lckcnt()), (Some(name(v, 7)), 3));
    assert!(page.page().ref_mod().is_empty(), "bits go with the old name");
    drop(page);
    assert_eq!(w.db.share_count(&w.cx, moved), 2);
    assert_eq!(w.db.exists(&w.cx, name(v, 7)), Some(moved));
    assert_eq!(w.db.exists(&w.cx, name(v, 0)), None);
    assert!(!w.db.page(old).is_mapped() && w.db.page(old).is_free());
    // Two pages with lck claims were charged twice, one is charged once.
    assert_eq!(w.db.free_mem().availrmem(), 999);
    w.verify();
}

#[test]
fn rename_waits_for_nobody_who_holds_the_name() {
    // He may be waiting for the page that is renamed, as whoever takes a range of pages in order does.
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    for n in 0..2 {
        w.make(name(v, n));
    }
    let held = w.db.lookup_shared(&w.cx, name(v, 0)).expect("there").leak();
    let page = w.db.lookup_excl(&w.cx, name(v, 1)).expect("there");
    page.page().set_ref_mod(RefMod::MOD);
    assert_eq!(w.db.rename(&w.cx, &page, name(v, 0)), Err(PageError::Exists(name(v, 0))));
    assert_eq!((page.identity(), page.page().ref_mod()), (Some(name(v, 1)), RefMod::MOD));
    drop(w.db.adopt_shared(&w.cx, held));
    assert_eq!(w.db.rename(&w.cx, &page, name(v, 0)), Ok(()));
    drop(page);
    assert_eq!(w.verify().named, 1);
}

#[test]
fn rename_between_kinds_of_vnodes_changes_the_swap_bit_and_may_meet_a_cached_page() {
    let w = World::new(8);
    let (file, swap) = (w.vnode(VnodeKind::File), w.vnode(VnodeKind::Swap));
    let moved = w.make(name(file, 0));
    w.make(name(swap, 0));
    w.free(name(swap, 0), false);
    let page = w.db.lookup_excl(&w.cx, name(file, 0)).expect("there");
    w.db.rename(&w.cx, &page, name(swap, 0)).expect("nobody holds it");
    assert!(page.page().state().contains(PageState::SWAP));
    drop(page);
    assert_eq!(w.db.exists(&w.cx, name(swap, 0)), Some(moved));
    assert_eq!(w.db.freemem(), 7);
    w.verify();
}
