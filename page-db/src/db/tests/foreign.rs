//! What belongs to another database, and numbers that are nobody's: refused or a panic, and neither database is any different for it.

use crate::db::Claim;
use crate::pageout::{Checked, Hand, Pageout, PageoutConfig};
use crate::testing::{TestFile, World, name};
use crate::{
    Cx, ExclPage, Identity, LockedPage, PageDb, PageError, Reserve, ScanReport, SyncMode, Vnode,
    VnodeError, VnodeId, VnodeKind, pvn,
};
use alloc::sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `deed` said when it panicked.
fn panics(deed: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(deed)).expect_err("it panics");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

/// Numbers that name nothing: never handed out, of which the table has a record or not, and one that was given back.
fn nobodys(w: &World) -> [VnodeId; 4] {
    let gone = w.vnode(VnodeKind::File);
    assert!(w.db.vnodes().retire(&w.cx, gone));
    [VnodeId(0), VnodeId(40), VnodeId(1 << 30), gone]
}

#[test]
fn a_page_of_another_database_is_not_taken() {
    type Deed = fn(&PageDb, &Cx, ExclPage<'_>);
    let deeds: [(&str, Deed); 16] = [
        ("free", |db, cx, page| db.free(cx, page, false)),
        ("destroy", |db, cx, page| db.destroy(cx, page)),
        ("release", |db, cx, page| _ = db.release(cx, page.downgrade(), false)),
        ("release_excl", |db, cx, page| _ = db.release_excl(cx, page, false)),
        ("reclaim", |db, cx, page| db.reclaim(cx, &page)),
        ("hash_in", |db, cx, page| _ = db.hash_in(cx, &page, name(VnodeId(1), 5))),
        ("hash_out", |db, cx, page| db.hash_out(cx, &page)),
        ("rename", |db, cx, page| _ = db.rename(cx, &page, name(VnodeId(1), 5))),
        ("lend", |db, cx, page| _ = db.lend(cx, &page)),
        ("claim", |db, _, page| _ = db.claim(&page, Claim::Lck)),
        ("claim_forced", |db, _, page| _ = db.claim_forced(&page, Claim::Cow, None)),
        ("unclaim", |db, _, page| db.unclaim(&page, Claim::Lck, db.claim_era())),
        ("unload", |db, cx, page| db.unload(cx, &page)),
        ("clear_write", |db, cx, page| db.clear_write(cx, &page)),
        ("sync_ref_mod", |db, cx, page| _ = db.sync_ref_mod(cx, &page, SyncMode::DontZero)),
        ("io_lock", |db, cx, page| db.io_lock(cx, &page)),
    ];
    for (what, deed) in deeds {
        let (w, other) = (World::new(8), World::new(64));
        let v = other.vnode(VnodeKind::File);
        assert_eq!(w.vnode(VnodeKind::File), v, "numbers say nothing");
        // Each has a page of that name; the other's lies where this database has no frame.
        w.make(name(v, 0));
        (1..20).for_each(|i| _ = other.make(name(v, i)));
        let id = other.make(name(v, 0));
        let page = other.db.lock_excl(&other.cx, id);
        let said = panics(|| deed(&w.db, &w.cx, page));
        assert!(said.contains("K5"), "{what}: {said}");
        assert_eq!((w.db.freemem(), w.db.free_mem().availrmem()), (7, 8), "{what}");
        assert_eq!(other.db.freemem(), 64 - 20, "{what}");
        w.verify();
        other.verify();
        let page = other.db.lookup_excl(&other.cx, name(v, 0)).expect("still there, and unlocked");
        other.db.destroy(&other.cx, page);
        w.verify();
        other.verify();
    }
}

#[test]
fn what_is_not_lent_is_not_taken_for_a_loan() {
    let w = World::new(64);
    let id = w.make(name(w.vnode(VnodeKind::File), 0));
    let said = panics(|| w.db.unlend(&w.cx, id));
    assert!(said.contains("E2"), "{said}");
    assert_eq!((w.db.page(id).loans(), w.db.lent_pages()), (0, 0));
    w.verify();
    let page = w.db.lock_excl(&w.cx, id);
    w.db.lend(&w.cx, &page).expect("memory to spare");
    drop(page);
    w.db.unlend(&w.cx, id);
    w.verify();
}

#[test]
fn more_than_was_promised_does_not_come_back() {
    let w = World::new(64);
    let mem = w.db.free_mem();
    assert!(mem.charge(5, 0));
    for pages in [6, u64::MAX] {
        let _ = panics(|| mem.uncharge(pages));
        assert_eq!(mem.availrmem(), 59);
    }
    mem.uncharge(5);
    w.verify();
}

#[test]
fn page_out_leaves_another_machines_memory_alone() {
    let (w, other) = (World::new(600), World::new(64));
    let file = TestFile::new(&other);
    (0..8).for_each(|i| _ = other.make(file.page(i)));
    let p = Pageout::new(&w.db, PageoutConfig::default());
    let front = p.state(&w.cx, &w.db).front;
    let nothing = ScanReport::default();
    assert_eq!(p.step(&other.cx, &other.db, 600), nothing);
    assert_eq!(p.run(&other.cx, &other.db), nothing);
    assert_eq!(p.reclaim_all(&other.cx, &other.db), nothing);
    assert_eq!(p.push_queued(&other.cx, &other.db, 9), nothing);
    let id = w.db.pages().ids().next_back().expect("600 of them");
    assert_eq!(p.check_page(&other.cx, &other.db, id, Hand::Back), Checked::Skipped);
    assert_eq!(p.state(&w.cx, &w.db).front, front);
    other.verify();
}

#[test]
fn a_number_that_is_nobodys_names_no_page() {
    let w = World::new(16);
    let v = w.vnode(VnodeKind::File);
    for vnode in nobodys(&w) {
        let id = name(vnode, 0);
        let none = PageError::NoVnode { vnode };
        let made = |r: Result<ExclPage<'_>, PageError>| r.map(drop).expect_err("no name");
        assert_eq!(made(w.db.create(&w.cx, id, 0, Reserve::Normal)), none);
        let range = w.db.create_range(&w.cx, id, 3, 0, Reserve::Normal);
        assert_eq!(range.map(drop).expect_err("no name"), none);
        let range = w.db.create_range_or_find(&w.cx, id, 3, 0, Reserve::Normal);
        assert_eq!(range.map(drop).expect_err("no name"), none);
        // Those before it are made.
        let (mut run, names) = (Vec::new(), [name(v, 0), name(v, 1), id, name(v, 2)]);
        let end = w.db.create_run(&w.cx, &names, 0, Reserve::Normal, &mut run);
        assert_eq!((end, run.len()), (Err(none), 2));
        for page in run {
            page.end_io();
            w.db.destroy(&w.cx, page);
        }
        let page = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
        assert_eq!(w.db.hash_in(&w.cx, &page, id), Err(none));
        w.db.free(&w.cx, page, false);
        let of_v = w.make(name(v, 3));
        let page = w.db.lock_excl(&w.cx, of_v);
        assert_eq!(w.db.rename(&w.cx, &page, id), Err(none));
        assert_eq!(page.identity(), Some(name(v, 3)));
        w.db.destroy(&w.cx, page);
        let filled = pvn::get(&w.cx, &w.db, id, 0, |_| Ok(()));
        assert_eq!(filled.map(drop).expect_err("no name"), VnodeError::NoVnode { vnode });
        assert_eq!(w.db.exists(&w.cx, id), None);
        assert_eq!(w.db.freemem(), 16, "no frame is lost");
        w.verify();
    }
}

#[test]
fn only_a_number_in_use_is_given_back_or_told_of() {
    let w = World::new(8);
    let t = w.db.vnodes();
    let file: Arc<dyn Vnode> = TestFile::new(&w);
    let before: Vec<VnodeId> = t.ids().collect();
    for id in nobodys(&w) {
        assert!(!t.attach(id, Arc::downgrade(&file)) && t.object(id).is_none());
        assert!(!t.set_kind(id, VnodeKind::Exec));
        assert!(!t.retire(&w.cx, id), "it is not in use");
    }
    let (x, y) = (w.vnode(VnodeKind::File), w.vnode(VnodeKind::File));
    assert_ne!(x, y, "a number that came back twice would be handed out twice");
    assert!(before.iter().all(|id| t.ids().any(|i| i == *id)));
    drop(file);
}

#[test]
fn a_number_stays_while_its_object_lives() {
    let w = World::new(8);
    let t = w.db.vnodes();
    let file = TestFile::new(&w);
    let id: VnodeId = file.id();
    assert!(!t.retire(&w.cx, id), "N1: the object would name pages of whoever has the number next");
    assert!(t.is_object(&*file));
    let weak = |file: &Arc<TestFile>| Arc::downgrade(&(Arc::clone(file) as Arc<dyn Vnode>));
    let impostor = TestFile::new(&w);
    assert!(!t.attach(id, weak(&impostor)), "N1: two objects with one number");
    assert!(t.attach(id, weak(&file)), "as it is already");
    w.make(file.page(0));
    drop(file);
    assert!(!t.retire(&w.cx, id), "N1: it has pages");
    let page = w.db.lookup_excl(&w.cx, Identity::new(id, crate::FileOffset(0))).expect("there");
    w.db.destroy(&w.cx, page);
    assert!(t.retire(&w.cx, id) && !t.retire(&w.cx, id));
}

#[test]
fn an_object_is_of_one_database() {
    let (w, other) = (World::new(8), World::new(8));
    let (mine, others) = (TestFile::new(&w), TestFile::new(&other));
    assert_eq!(mine.id(), others.id());
    assert!(w.db.vnodes().is_object(&*mine) && other.db.vnodes().is_object(&*others));
    assert!(!w.db.vnodes().is_object(&*others) && !other.db.vnodes().is_object(&*mine));
    assert_eq!(w.db.mark(), w.db.mark());
    assert_ne!(w.db.mark(), other.db.mark());
}
