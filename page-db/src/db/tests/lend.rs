//! Pages that are lent: who may take them, what they cost, who frees them (uvm.md 5.7).

use crate::db::Claim;
use crate::pageout::{Checked, Hand, Pageout, PageoutConfig};
use crate::testing::{World, hashes, name};
use crate::{
    HashKind, Identity, LockedPage, PageDbConfig, PageError, PageId, RefMod, VnodeKind, Wanted,
};
use std::sync::Barrier;
use std::thread;

/// A database of `frames` frames and a page with a byte in it, named so.
fn world(hash: HashKind, frames: u64) -> (World, Identity, PageId) {
    let w = World::with(frames, &PageDbConfig { hash, ..PageDbConfig::default() });
    let id = name(w.vnode(VnodeKind::Swap), 0);
    let page = w.make(id);
    w.db.mem().write(w.db.pfn(page), 0, &[65]);
    (w, id, page)
}
fn lend(w: &World, id: Identity) -> Result<(), PageError> {
    let page = w.db.lookup_excl(&w.cx, id).expect("there");
    w.db.lend(&w.cx, &page)
}
fn byte(w: &World, page: PageId) -> u8 {
    let mut byte = [0];
    w.db.mem().read(w.db.pfn(page), 0, &mut byte);
    byte[0]
}
/// Frames free and promised for nothing, and orphans.
fn books(w: &World) -> (u64, u64, u64) {
    (w.db.freemem(), w.db.free_mem().availrmem(), w.verify().orphans)
}

#[test]
fn a_loan_is_charged_once_and_ends_with_the_last() {
    let (w, id, page) = world(HashKind::Chain, 1000);
    lend(&w, id).expect("memory to spare");
    lend(&w, id).expect("memory to spare");
    assert_eq!((books(&w), w.db.page(page).loans()), ((999, 999, 0), 2));
    w.db.unlend(&w.cx, page);
    assert_eq!((books(&w), w.db.lent_pages()), ((999, 999, 0), 1));
    w.db.unlend(&w.cx, page);
    assert_eq!((books(&w), w.db.lent_pages()), ((999, 1000, 0), 0));
}

#[test]
fn a_loan_at_the_floor_changes_nothing() {
    let (w, id, _) = world(HashKind::Chain, 1000);
    let mem = w.db.free_mem();
    assert!(mem.charge(mem.availrmem() - mem.pages_pp_maximum(), 0));
    let refused = lend(&w, id).expect_err("availrmem is at pages_pp_maximum");
    assert!(matches!(refused, PageError::ClaimRefused { .. }), "{refused}");
    assert_eq!(w.db.lent_pages(), 0);
    mem.uncharge(mem.total() - mem.availrmem());
    w.verify();
}

#[test]
fn a_broken_loan_leaves_the_name_to_a_copy() {
    for hash in hashes() {
        let (w, id, page) = world(hash, 1000);
        w.db.claim(&w.db.lock_shared(&w.cx, page), Claim::Cow).expect("memory to spare");
        w.hat.map(&w.cx, page, 2);
        w.hat.touch(&w.cx, page, RefMod::MOD);
        lend(&w, id).expect("memory to spare");
        let shared = w.db.lookup_shared(&w.cx, id).expect("there");
        let own = w.db.break_loan(&w.cx, shared, 0).expect("a frame").expect("named");
        assert_ne!(own.id(), page);
        let facts = (own.identity(), own.page().ref_mod(), own.page().cowcnt());
        assert_eq!(facts, (Some(id), RefMod::MOD, 1), "bits and claims go along");
        let own = own.leak();
        drop(w.db.adopt_shared(&w.cx, own));
        assert_eq!(w.db.exists(&w.cx, id), Some(own));
        assert_eq!(w.db.vnode_pages(&w.cx, id.vnode), [own]);
        assert_eq!((byte(&w, own), byte(&w, page)), (65, 65));
        assert_eq!(books(&w), (998, 998, 1));
        w.db.unlend(&w.cx, page);
        assert_eq!(books(&w), (999, 999, 0));
        // What nobody has on loan stays what it is.
        let shared = w.db.lookup_shared(&w.cx, id).expect("there");
        let same = w.db.break_loan(&w.cx, shared, 0).expect("no frame needed").expect("named");
        assert_eq!(same.id(), own);
    }
}

#[test]
fn a_copy_has_what_was_stored_before_the_translations_went() {
    let (w, id, page) = world(HashKind::Chain, 1000);
    lend(&w, id).expect("memory to spare");
    w.hat.map(&w.cx, page, 1);
    w.hat.touch_at_unload(&w.cx, RefMod::MOD);
    let shared = w.db.lookup_shared(&w.cx, id).expect("there");
    let own = w.db.break_loan(&w.cx, shared, 0).expect("a frame").expect("named");
    assert_eq!((byte(&w, own.id()), own.page().ref_mod()), (66, RefMod::MOD));
    drop(own);
    w.db.unlend(&w.cx, page);
    w.verify();
}

#[test]
fn without_a_frame_the_loan_holds() {
    let (w, id, page) = world(HashKind::Chain, 64);
    lend(&w, id).expect("memory to spare");
    let v = w.vnode(VnodeKind::File);
    for i in 0..63 {
        w.make(name(v, i));
    }
    let shared = w.db.lookup_shared(&w.cx, id).expect("there");
    assert!(w.db.break_loan(&w.cx, shared, 0).is_err());
    assert_eq!((w.db.exists(&w.cx, id), w.db.page(page).loans()), (Some(page), 1));
    w.verify();
    w.db.unlend(&w.cx, page);
}

#[test]
fn what_is_destroyed_while_it_is_lent_ends_with_its_loans() {
    for run in [false, true] {
        let (w, id, page) = world(HashKind::Chain, 1000);
        lend(&w, id).expect("memory to spare");
        lend(&w, id).expect("memory to spare");
        if run {
            assert_eq!(w.db.destroy_run(&w.cx, &[Wanted::from(id)]), 1);
        } else {
            w.db.destroy(&w.cx, w.db.lookup_excl(&w.cx, id).expect("there"));
        }
        assert_eq!((w.db.exists(&w.cx, id), byte(&w, page)), (None, 65));
        assert_eq!(books(&w), (999, 999, 1));
        w.db.unlend(&w.cx, page);
        assert_eq!(books(&w), (999, 999, 1));
        // The name is free for another page meanwhile.
        w.make(id);
        w.db.unlend(&w.cx, page);
        assert_eq!(books(&w), (999, 1000, 0));
    }
}

#[test]
fn page_out_passes_a_lent_page_over() {
    let w = World::new(1000);
    let id = name(w.vnode(VnodeKind::File), 0);
    let page = w.make(id);
    lend(&w, id).expect("memory to spare");
    let pageout = Pageout::new(&w.db, PageoutConfig::default());
    for hand in [Hand::Front, Hand::Back] {
        assert_eq!(pageout.check_page(&w.cx, &w.db, page, hand), Checked::Skipped);
    }
    assert!(!w.db.page(page).is_free());
    w.db.unlend(&w.cx, page);
    assert!(w.db.page(page).is_free(), "nobody needs it: it waits on the cache list");
    w.verify();
}

/// The owner breaks and destroys while loans begin and end; each frame is freed once.
#[test]
fn owner_and_borrowers_end_in_any_order() {
    for hash in hashes() {
        let w = World::with(256, &PageDbConfig { hash, cpus: 3, ..PageDbConfig::default() });
        let id = name(w.vnode(VnodeKind::Swap), 0);
        w.make(id);
        let start = Barrier::new(3);
        thread::scope(|s| {
            for t in 0..2 {
                let (db, start, cx) = (&w.db, &start, w.thread(t));
                s.spawn(move || {
                    start.wait();
                    for _ in 0..3000 {
                        let Some(page) = db.lookup_excl(&cx, id) else { continue };
                        let lent = db.lend(&cx, &page).map(|()| page.id());
                        drop(page);
                        if let Ok(page) = lent {
                            db.unlend(&cx, page);
                        }
                    }
                });
            }
            let (db, start, cx) = (&w.db, &start, w.thread(2));
            s.spawn(move || {
                start.wait();
                for i in 0..3000 {
                    if let Some(page) = db.lookup_shared(&cx, id) {
                        let _ = db.break_loan(&cx, page, i);
                    }
                    if i % 8 == 0
                        && let Some(page) = db.lookup_excl(&cx, id)
                    {
                        db.destroy(&cx, page);
                    }
                    if let Ok(page) = db.create(&cx, id, i, crate::Reserve::Push) {
                        page.end_io();
                    }
                }
            });
        });
        assert_eq!((w.db.lent_pages(), w.verify().orphans), (0, 0));
        assert_eq!(w.db.free_mem().availrmem(), 256);
        assert!(w.db.freemem() >= 255);
    }
}

#[test]
fn an_orphan_is_adopted_by_one_of_its_borrowers() {
    let (w, id, page) = world(HashKind::Chain, 1000);
    lend(&w, id).expect("memory to spare");
    lend(&w, id).expect("memory to spare");
    w.db.destroy(&w.cx, w.db.lookup_excl(&w.cx, id).expect("there"));
    let own = name(w.vnode(VnodeKind::Swap), 0);
    let other = w.make(name(own.vnode, 1));
    let orphan = w.db.lock_excl(&w.cx, page);
    let taken = Identity::new(own.vnode, w.db.page(other).identity().expect("named").offset);
    assert_eq!(w.db.adopt_orphan(&w.cx, &orphan, taken), Err(PageError::Exists(taken)));
    assert_eq!((w.db.page(page).loans(), w.db.page(page).is_orphan()), (2, true), "as it was");
    w.db.adopt_orphan(&w.cx, &orphan, own).expect("nobody's name");
    drop(orphan);
    assert_eq!((byte(&w, page), w.db.exists(&w.cx, own)), (65, Some(page)));
    assert!(w.db.page(page).ref_mod().contains(RefMod::MOD), "the only copy of its bytes");
    assert_eq!((w.db.page(page).loans(), w.db.lent_pages(), books(&w).2), (1, 1, 0));
    w.db.unlend(&w.cx, page);
    assert_eq!((w.db.lent_pages(), books(&w).1, w.db.exists(&w.cx, own)), (0, 1000, Some(page)));
}
