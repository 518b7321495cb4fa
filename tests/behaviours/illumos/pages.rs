//! Pages: 46 to 54, of a file in a whole machine.
//!
//! To the last count they are pinned by the unit tests of `page-db/src/db/tests`, in files of the same subjects.

use crate::{Scene, available, page, scene, space};
use page_db::db::RetireError;
use page_db::{
    ExclPage, FileOffset, Identity, LockedPage, PAGE_SIZE, PageError, PageId, Reserve, errno,
};

/// A file of four pages whose first `n` are on the cache list.
fn cached(n: u64) -> Scene {
    let mut s = scene("file 0 16384");
    s.run(&format!("map 0 0 {n} r shared fixed file 0 0; read 0 0 {n}; unmap 0 0 {n}"));
    s
}

fn name(s: &Scene, n: u64) -> Identity {
    Identity::new(s.file_vnode(0), FileOffset(n * PAGE_SIZE))
}

fn id(s: &Scene, n: u64) -> Option<PageId> {
    s.machine().db().exists(s.machine().cx(), name(s, n))
}

#[test]
fn b46_creating_over_an_existing_page() {
    let mut s = scene("file 0 16384; map 0 0 1 r shared fixed file 0 1; read 0 0 1");
    let (db, cx, old) = (s.machine().db(), s.machine().cx(), id(&s, 1).expect("read"));
    let free = db.freemem();
    let e = db.create_range(cx, name(&s, 0), 3, 0, Reserve::Normal).err();
    assert_eq!(e, Some(PageError::Exists(name(&s, 1))), "PG_EXCL");
    assert_eq!((db.freemem(), id(&s, 0), id(&s, 2)), (free, None, None));
    let got = db.create_range_or_find(cx, name(&s, 0), 3, 0, Reserve::Normal).expect("PG_WAIT");
    assert_eq!(got[1].id(), old, "the one that was there, in its place");
    assert!(got.iter().all(ExclPage::is_exclusive));
    for page in got {
        page.end_io();
        let fresh = page.id() != old;
        if fresh {
            db.destroy(cx, page);
        }
    }
    s.run("read 0 0 0+1; expect ok b=00; expect counter pgin +0");
    s.end();
}

#[test]
fn b47_a_freed_page_keeps_its_name_if_it_has_one() {
    // Freeing what is mapped, claimed or free already panics in illumos; here the lock's type refuses it (page-db, `free`).
    let mut s = cached(1);
    let (free, file) = (s.machine().db().freemem(), id(&s, 0).expect("cached"));
    assert!(s.machine().db().page(file).is_free());
    s.run("map 0 0 1 r shared fixed file 0 0; map 0 4 1 rw priv fixed anon");
    s.run("read 0 0 1; expect counter pgrec +1; expect counter pgin +0");
    assert_eq!((id(&s, 0), s.machine().db().page(file).is_free()), (Some(file), false));
    s.run("write 0 4 1 1");
    let anon = s.page(s.frame(0, 4).expect("mapped"));
    s.run("unmap 0 0 8");
    assert_eq!(s.machine().db().page(anon).identity(), None, "without a vnode: the free list");
    assert_eq!((id(&s, 0), s.machine().db().freemem()), (Some(file), free));
    s.end();
}

#[test]
fn b48_the_cache_list_is_oldest_first_behind_what_is_not_needed() {
    let mut s = Scene::on("machine memory=128 colours=1");
    s.run("file 0 16384; map 0 0 3 r shared fixed file 0 0; read 0 0 3; unmap 0 0 3");
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let ids = [0, 1, 2].map(|n| id(&s, n).expect("cached"));
    for (n, dontneed) in [(0, false), (1, false), (2, true)] {
        db.free(cx, db.lookup_excl(cx, name(&s, n)).expect("reclaimed"), dontneed);
    }
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let page = db.alloc(cx, 0, Reserve::Push).expect("a frame");
        if ids.contains(&page.id()) {
            taken.push(page.id());
        }
        // Held until the end by its lock alone: the free list empties.
        _ = page.leak();
    }
    assert_eq!(taken, [ids[2], ids[0]], "C, then A");
    assert_eq!(id(&s, 1), Some(ids[1]));
    std::mem::forget(s);
}

#[test]
fn b49_looking_without_waiting_takes_nothing_off_a_list() {
    // That a lookup which waited compares the name again: `threads::lookup_waits_and_compares_the_name_again`.
    let s = cached(1);
    let (db, cx, page) = (s.machine().db(), s.machine().cx(), id(&s, 0));
    assert!(page.is_some() && db.try_lookup_shared(cx, name(&s, 0)).is_none());
    assert!(db.try_lookup_excl(cx, name(&s, 0)).is_none(), "cached");
    let held = db.lookup_excl(cx, name(&s, 0)).expect("reclaimed");
    assert!(db.try_lookup_shared(cx, name(&s, 0)).is_none(), "locked");
    assert_eq!(id(&s, 0), page, "page_exists is a hint");
    db.free(cx, held, false);
    s.end();
}

#[test]
fn b50_two_readers_cannot_upgrade() {
    // EWANTED, and the order of those who wait: `locks`. There is no unlock of what is not locked: the guard unlocks.
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    {
        let (db, cx) = (s.machine().db(), s.machine().cx());
        let page = s.page(s.frame(0, 0).expect("mapped"));
        let readers = [0, 1].map(|_| db.try_lock_shared(cx, page).expect("readers share"));
        assert!(db.try_lock_excl(cx, page).is_none());
        let [a, b] = readers;
        let a = a.try_upgrade().expect_err("two readers");
        assert_eq!(db.lock_state(page).shared, 2, "unchanged");
        drop(b);
        drop(a.try_upgrade().expect("alone"));
    }
    s.run("write 0 0 0+1 66; expect ok");
    s.end();
}

#[test]
fn b51_a_renamed_page_replaces_the_old_one_and_keeps_its_mappings() {
    // That the claims add up: `free::rename_over_an_existing_page_…`.
    let mut s = scene("file 0 16384; map 0 0 2 r shared fixed file 0 0; read 0 0 2; unmap 0 1 1");
    let (moved, old) = (id(&s, 0).expect("read"), id(&s, 1).expect("cached"));
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let page = db.lookup_excl(cx, name(&s, 0)).expect("there");
    db.rename(cx, &page, name(&s, 1)).expect("nobody holds it");
    drop(page);
    assert_eq!((id(&s, 0), id(&s, 1)), (None, Some(moved)));
    assert!(db.page(old).is_free() && db.page(old).identity().is_none(), "destroyed");
    assert_eq!(db.share_count(cx, moved), 1, "still mapped");
    // Where it is mapped is page 0 of the file, which the next look would find elsewhere: put it back.
    let page = db.lookup_excl(cx, name(&s, 1)).expect("there");
    db.rename(cx, &page, name(&s, 0)).expect("nobody holds it");
    drop(page);
    s.run("read 0 0 1; expect ok; expect counter pgin +0");
    s.end();
}

#[test]
fn b52_claims_for_copies_are_charged_each_and_others_once() {
    // At `pages_pp_maximum` nothing changes: `claims::claims_at_the_floor_change_nothing`.
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1; read 1 0 1");
    let before = available(&s);
    s.run("lock 0 0 1; lock 1 0 1");
    assert_eq!((page(&s, 0, 0).cowcnt(), available(&s)), (2, before - 2));
    s.run("unlock 0 0 1; unlock 1 0 1");
    s.run("file 0 4096; map 0 4 1 r shared fixed file 0 0; map 1 4 1 r shared fixed file 0 0");
    s.run("read 0 4 1; read 1 4 1; lock 0 4 1; lock 1 4 1");
    assert_eq!((page(&s, 0, 4).lckcnt(), available(&s)), (2, before - 1));
    s.run("unlock 0 4 1; unlock 1 4 1");
    assert_eq!(available(&s), before);
    s.end();
}

/// V19: truncation takes what was claimed of the pages it cuts, and nobody takes the claims of others afterwards.
#[test]
fn a_lock_ends_with_the_page_it_is_on_and_takes_no_others() {
    let mut s = scene("file 0 8192; fork 0 1");
    let before = available(&s);
    for kind in ["shared", "priv"] {
        let claims = |s: &Scene, at| {
            let page = page(s, 1, at);
            page.lckcnt() + page.cowcnt()
        };
        s.run(&format!("map 0 0 2 rw {kind} fixed file 0 0; map 1 0 2 rw {kind} fixed file 0 0"));
        s.run("lock 0 0 2; lock 1 0 1; truncate 0 4096; truncate 0 8192; read 1 0 2; verify");
        assert_eq!((claims(&s, 0), claims(&s, 1)), (2, 0), "page 1 is another");
        s.run("lock 1 1 1; verify");
        assert_eq!(claims(&s, 1), 1);
        // The mark of the first process is older than the page. It neither gives back nor moves the second one's claim.
        s.run("protect 0 0 2 r; verify; protect 0 0 2 rw; verify; unlock 0 1 1; verify");
        assert_eq!((claims(&s, 0), claims(&s, 1)), (2, 1));
        s.run("sync 0 1 1 sync+inval; expect EBUSY; sync 1 1 1 sync+inval; expect EBUSY");
        s.run("unlock 1 0 2; verify");
        assert_eq!((claims(&s, 0), claims(&s, 1)), (1, 0));
        s.run("sync 0 1 1 sync+inval; expect ok; unmap 0 0 2; verify; unmap 1 0 2; verify");
        assert_eq!(available(&s), before);
    }
    s.end();
}

/// A page that was cut off is locked again by a lock of it, and by a store that copies it; it is paid for once.
#[test]
fn what_was_cut_off_is_locked_again_when_it_is_there_again() {
    let mut s =
        scene("file 0 8192; map 0 0 2 rw shared fixed file 0 0; map 0 4 2 rw priv fixed file 0 0");
    let bytes = |s: &Scene| space(s, 0).state().locked();
    s.run("lock 0 0 2; lock 0 4 2; truncate 0 0; truncate 0 8192; read 0 0 2; verify");
    assert_eq!((bytes(&s), s.machine().db().claimed_pages()), (4 * PAGE_SIZE, 0));
    s.run("lock 0 0 2; verify; sync 0 0 2 sync+inval; expect EBUSY");
    assert_eq!((bytes(&s), s.machine().db().claimed_pages()), (4 * PAGE_SIZE, 2));
    s.run("write 0 4 0+1 65; verify");
    assert_eq!((page(&s, 0, 4).cowcnt(), s.machine().db().claimed_pages()), (1, 3));
    // A lock that fails leaves what it has claimed again: it was locked before.
    s.run("truncate 0 0; truncate 0 8192; lock 0 0 4; expect ENOMEM; verify");
    assert_eq!((bytes(&s), s.machine().db().claimed_pages()), (4 * PAGE_SIZE, 3));
    s.run("lockall 0 current; verify; read 0 1 1");
    let both = (page(&s, 0, 1).lckcnt(), page(&s, 0, 1).cowcnt());
    assert_eq!((bytes(&s), both), (4 * PAGE_SIZE, (1, 1)), "both mappings claim page 1");
    s.run("unlockall 0; verify");
    assert_eq!((bytes(&s), s.machine().db().claimed_pages()), (0, 0));
    s.end();
}

#[test]
fn b53_each_reserve_leaves_what_it_must() {
    // That a sleeper adds to `needfree` and is woken: `threads::a_sleeper_for_memory_…`.
    let s = scene("");
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let t = db.free_mem().thresholds();
    let last = |reserve| {
        let is_last = |n: &u64| db.throttle(cx, *n, reserve).is_err();
        (1..).find(is_last).map(|n| db.freemem() - (n - 1))
    };
    assert_eq!(last(Reserve::Spare), Some(t.throttlefree), "NORMALPRI");
    assert_eq!(last(Reserve::Normal), Some(t.pageout_reserve));
    assert_eq!(last(Reserve::Push), Some(0));
    // With daemons: everybody else waits for them.
    db.free_mem().hold_back(true);
    assert_eq!((last(Reserve::Normal), last(Reserve::Push)), (Some(t.throttlefree), Some(0)));
    db.free_mem().hold_back(false);
    s.end();
}

#[test]
fn b54_a_frame_in_use_is_retired_when_it_is_let_go() {
    let mut s = scene("file 0 16384; map 0 0 1 r shared fixed file 0 0; read 0 0 1");
    let (space, page) = (space(&s, 0), id(&s, 0).expect("read"));
    let memory = available(&s);
    {
        let (db, cx) = (s.machine().db(), s.machine().cx());
        let pfn = db.pfn(page);
        let held = db.lookup_shared(cx, name(&s, 0)).expect("there");
        let e = db.retire(cx, pfn).expect_err("locked");
        assert_eq!((e, e.errno()), (RetireError::Pending(pfn), errno::EAGAIN));
        assert!(db.try_lock_shared(cx, page).is_none(), "refused while pending");
        assert_eq!(db.retire(cx, pfn).map_err(|e| e.errno()), Err(errno::EIO), "a second time");
        drop(held);
        assert_eq!((db.retire_check(pfn), available(&s)), (Ok(()), memory - 1));
        assert!(db.try_lock_excl(cx, page).is_none(), "a lock without SE_RETIRED");
    }
    // The file is read again, into another frame.
    s.run("read 0 0 1; expect ok; expect counter pgin +1");
    assert_ne!(id(&s, 0), Some(page));
    {
        let (db, cx) = (s.machine().db(), s.machine().cx());
        let free = db.freemem();
        db.unretire(cx, db.pfn(page)).expect("it was retired");
        assert_eq!((db.freemem(), available(&s)), (free + 1, memory));
        // One page of a thousand is the limit; beyond it a frame is accepted and stays in service.
        let ids: Vec<_> = db.pages().ids().filter(|p| db.page(*p).is_free()).collect();
        let most = db.most_retired() as usize;
        for (n, id) in ids.iter().take(most + 1).enumerate() {
            assert_eq!(db.retire(cx, db.pfn(*id)), Ok(()));
            assert_eq!(db.retire_check(db.pfn(*id)).is_ok(), n < most);
        }
        for id in &ids[..most] {
            db.unretire(cx, db.pfn(*id)).expect("it was retired");
        }
    }
    drop(space);
    s.end();
}
