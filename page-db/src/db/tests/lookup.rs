//! Finding pages by name (behaviour 49), in one thread; [`super::threads`] has the races.

use crate::db::{PageDbConfig, Reserve};
use crate::testing::{World, hashes, name};
use crate::{LockedPage, VnodeKind};

#[test]
fn lookup_nowait_of_a_cached_or_locked_page_finds_nothing() {
    // Behaviour 49.
    for hash in hashes() {
        let w = World::with(8, &PageDbConfig { hash, ..PageDbConfig::default() });
        let v = w.vnode(VnodeKind::File);
        let id = w.make(name(v, 0));
        let held = w.db.lookup_excl(&w.cx, name(v, 0)).expect("there");
        assert!(w.db.try_lookup_shared(&w.cx, name(v, 0)).is_none());
        assert!(w.db.try_lookup_excl(&w.cx, name(v, 0)).is_none());
        assert_eq!(w.db.exists(&w.cx, name(v, 0)), Some(id), "page_exists is only a hint");
        let held = held.downgrade();
        assert!(w.db.try_lookup_shared(&w.cx, name(v, 0)).is_some());
        assert!(w.db.try_lookup_excl(&w.cx, name(v, 0)).is_none());
        drop(held);
        w.free(name(v, 0), false);
        assert!(w.db.try_lookup_shared(&w.cx, name(v, 0)).is_none());
        assert!(w.db.try_lookup_excl(&w.cx, name(v, 0)).is_none());
        assert_eq!(w.db.exists(&w.cx, name(v, 0)), Some(id));
        assert_eq!(w.verify().cached, 1, "looking took nothing off the cache list");
    }
}

/// K3: the page waited for goes, and somebody pins its frame under another name for as long as he likes.
#[test]
fn a_page_is_not_waited_for_longer_than_it_has_its_name() {
    let w = World::new(1);
    let v = w.vnode(VnodeKind::File);
    for page in 0..20 {
        let (gone, other) = (name(v, 2 * page), name(v, 2 * page + 1));
        let id = w.make(gone);
        let held = w.db.lock_excl(&w.cx, id);
        let (done, finds) = std::sync::mpsc::channel();
        std::thread::scope(|s| {
            for n in 0..3u32 {
                let (db, cx, done) = (&w.db, w.thread(n + 1), done.clone());
                s.spawn(move || {
                    let found = match n {
                        0 => db.lookup_excl(&cx, gone).is_some(),
                        1 => db.lookup_excl_cached(&cx, gone).is_some(),
                        _ => db.lookup_shared(&cx, gone).is_some(),
                    };
                    done.send(found)
                });
            }
            while w.db.waits().sleepers() != 3 {
                std::thread::yield_now();
            }
            w.db.destroy(&w.cx, held);
            let page = w.db.create(&w.cx, other, 0, Reserve::Push).expect("the only frame");
            page.end_io();
            let pin = page.downgrade();
            let patience = std::time::Duration::from_secs(10);
            let answers: Vec<_> = (0..3).map(|_| finds.recv_timeout(patience)).collect();
            drop(pin); // before any answer fails the test
            assert_eq!(answers, [Ok(false); 3], "somebody waits for the pin of a stranger");
        });
        w.db.destroy(&w.cx, w.db.lookup_excl(&w.cx, other).expect("there"));
    }
    assert_eq!(w.verify().free, 1);
}

/// K3: the page waited for gets another name, and who gave it that goes on holding it.
#[test]
fn a_page_that_changes_its_name_is_waited_for_no_longer() {
    let w = World::new(2);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    let held = w.db.lock_excl(&w.cx, id);
    let (done, finds) = std::sync::mpsc::channel();
    std::thread::scope(|s| {
        for n in 0..2u32 {
            let (db, cx, done) = (&w.db, w.thread(n + 1), done.clone());
            s.spawn(move || {
                let found = match n {
                    0 => db.lookup_excl(&cx, name(v, 0)).is_some(),
                    _ => db.lookup_shared(&cx, name(v, 0)).is_some(),
                };
                done.send(found)
            });
        }
        while w.db.waits().sleepers() != 2 {
            std::thread::yield_now();
        }
        w.db.rename(&w.cx, &held, name(v, 1)).expect("nobody has it");
        let patience = std::time::Duration::from_secs(10);
        let answers: Vec<_> = (0..2).map(|_| finds.recv_timeout(patience)).collect();
        w.db.destroy(&w.cx, held); // before any answer fails the test
        assert_eq!(answers, [Ok(false); 2], "somebody waits for a page of another name");
    });
    assert_eq!(w.verify().free, 2);
}

#[test]
fn lookup_of_an_absent_name_finds_nothing() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    assert!(w.db.lookup_shared(&w.cx, name(v, 5)).is_none());
    assert!(w.db.lookup_excl(&w.cx, name(v, 5)).is_none());
    // A vnode number nobody handed out is just another absent name.
    assert!(w.db.lookup_shared(&w.cx, name(crate::VnodeId(77), 5)).is_none());
}

#[test]
fn a_hint_is_believed_only_if_it_still_carries_the_name() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let (a, b) = (w.make(name(v, 0)), w.make(name(v, 1)));
    let hit = |hint| w.db.lookup_shared_hint(&w.cx, name(v, 0), hint).map(|p| p.id());
    assert_eq!(hit(Some(a)), Some(a));
    assert_eq!(hit(Some(b)), Some(a), "a stale hint costs a search, nothing else");
    assert_eq!(hit(None), Some(a));
    w.free(name(v, 0), false);
    assert_eq!(hit(Some(a)), Some(a), "a cached page is taken back");
    assert_eq!(w.verify().cached, 0);
}

#[test]
fn the_vnode_list_has_the_newest_page_first() {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let ids = [0, 1, 2].map(|i| w.make(name(v, i)));
    assert_eq!(w.db.vnode_pages(&w.cx, v), [ids[2], ids[1], ids[0]]);
    let page = w.db.lookup_excl(&w.cx, name(v, 1)).expect("there");
    w.db.destroy(&w.cx, page);
    assert_eq!(w.db.vnode_pages(&w.cx, v), [ids[2], ids[0]]);
    assert_eq!(w.db.vnode_page_count(&w.cx, v), 2);
    assert!(!w.db.vnodes().retire(&w.cx, v), "N1: it has pages");
    for i in [0, 2] {
        let page = w.db.lookup_excl(&w.cx, name(v, i)).expect("there");
        w.db.destroy(&w.cx, page);
    }
    assert!(w.db.vnodes().retire(&w.cx, v));
    w.verify();
}
