//! Tests of what every file system does with pages.

use super::*;
use crate::Vnode;
use crate::db::{Claim, RetireError};
use crate::sync::atomic::Ordering::Relaxed;
use crate::testing::{TestFile, World};
use alloc::sync::Arc;

const PUSH: PutFlags = PutFlags::ASYNC.union(PutFlags::FREE);

fn world(pages: u64) -> (World, Arc<TestFile>) {
    let w = World::new(32);
    let f = TestFile::new(&w);
    for i in 0..pages {
        w.make(f.page(i));
    }
    (w, f)
}
impl World {
    fn dirty(&self, id: Identity) -> PageId {
        let page = self.db.exists(&self.cx, id).expect("there");
        self.db.page(page).set_ref_mod(RefMod::MOD);
        page
    }
    fn put(&self, f: &TestFile, from: u64, pages: u64, flags: PutFlags) -> Result<(), VnodeError> {
        let at = FileOffset(from * PAGE_SIZE);
        f.put_page(&self.cx, &self.db, at, pages * PAGE_SIZE, flags)
    }
}

#[test]
fn a_page_is_filled_once_and_found_afterwards() {
    let (w, f) = world(0);
    let got = f.get_page(&w.cx, &w.db, FileOffset(0), crate::Access::Read).expect("filled");
    assert!(got.read);
    drop(got);
    let got = f.get_page(&w.cx, &w.db, FileOffset(0), crate::Access::Read).expect("found");
    assert!(!got.read);
    drop(got);
    assert_eq!(w.verify().named, 1);
}

#[test]
fn a_failed_fill_leaves_no_page() {
    // V1 and V25: the next attempt reads again.
    let (w, f) = world(0);
    f.fail.store(true, Relaxed);
    let e = f.get_page(&w.cx, &w.db, FileOffset(0), crate::Access::Read).expect_err("i/o error");
    assert_eq!(e.errno(), crate::errno::EIO);
    assert_eq!(w.verify().named, 0);
    f.fail.store(false, Relaxed);
    assert!(f.get_page(&w.cx, &w.db, FileOffset(0), crate::Access::Read).is_ok());
}

#[test]
fn no_frame_is_an_error_with_the_facts() {
    let (w, f) = world(30);
    let e = f.get_page(&w.cx, &w.db, FileOffset(99 * PAGE_SIZE), crate::Access::Read);
    let want = VnodeError::NoMemory { vnode: f.id(), offset: FileOffset(99 * PAGE_SIZE) };
    assert_eq!(e.err(), Some(want));
}

#[test]
fn a_range_is_written_in_order_and_only_where_dirty() {
    let (w, f) = world(8);
    for i in [6, 1, 3] {
        w.dirty(f.page(i));
    }
    w.put(&f, 0, 6, PutFlags::empty()).expect("written");
    assert_eq!(*f.writes.lock(&w.cx), [1, 3]);
    f.put_page(&w.cx, &w.db, FileOffset(0), 0, PutFlags::empty()).expect("written");
    assert_eq!(*f.writes.lock(&w.cx), [1, 3, 6]);
    // V5: nobody maps them.
    assert_eq!(w.verify().cached, 8);
}

#[test]
fn a_mapped_page_is_written_and_keeps_translations_and_reference() {
    let (w, f) = world(2);
    for (i, bits) in [(0, RefMod::all()), (1, RefMod::REF)] {
        let id = w.db.exists(&w.cx, f.page(i)).expect("there");
        w.hat.map(&w.cx, id, 1);
        w.hat.touch(&w.cx, id, bits.intersection(RefMod::REF | RefMod::MOD));
    }
    w.put(&f, 0, 2, PutFlags::empty()).expect("written");
    assert_eq!(*f.writes.lock(&w.cx), [0]);
    let at = |i| w.db.page(w.db.exists(&w.cx, f.page(i)).expect("there"));
    assert!(at(0).is_mapped() && at(1).is_mapped());
    assert!(at(0).ref_mod().is_empty());
    assert_eq!(at(1).ref_mod(), RefMod::REF, "a clean page's reference is not lost");
    w.verify();
}

#[test]
fn a_store_during_the_write_makes_the_page_dirty_again() {
    // V2, for each way of putting.
    for flags in [PutFlags::empty(), PutFlags::FREE, PutFlags::INVAL, PUSH] {
        let (w, f) = world(1);
        let id = w.dirty(f.page(0));
        *f.during_write.lock(&w.cx) = Some((id, RefMod::MOD));
        w.put(&f, 0, 1, flags).expect("written");
        assert_eq!(w.db.exists(&w.cx, f.page(0)), Some(id), "{flags:?}");
        assert!(w.db.page(id).ref_mod().contains(RefMod::MOD), "{flags:?}");
        assert!(!w.db.page(id).is_free(), "{flags:?}");
        w.verify();
    }
}

#[test]
fn a_write_that_is_never_ended_leaves_what_a_failed_one_leaves() {
    // V3: it has panicked.
    let (w, f) = world(1);
    let id = w.dirty(f.page(0));
    let taken = take(&w.cx, &w.db, f.page(0), PUSH).expect("not held").expect("dirty");
    assert!(w.db.is_io_locked(id) && w.db.page(id).ref_mod().is_empty());
    drop(taken);
    assert!(!w.db.is_io_locked(id) && w.db.page(id).ref_mod().contains(RefMod::MOD));
    w.put(&f, 0, 1, PutFlags::FREE).expect("written");
    assert_eq!(*f.writes.lock(&w.cx), [0]);
    assert_eq!(w.verify().cached, 1);
}

#[test]
fn a_failed_write_keeps_the_page_dirty_and_goes_on_with_the_next() {
    // V3.
    let (w, f) = world(2);
    let ids = [w.dirty(f.page(0)), w.dirty(f.page(1))];
    f.fail.store(true, Relaxed);
    let e = w.put(&f, 0, 2, PutFlags::FREE).expect_err("i/o error");
    assert!(matches!(e, VnodeError::Io { offset: FileOffset(0), .. }), "the first failure");
    for id in ids {
        assert!(w.db.page(id).ref_mod().contains(RefMod::MOD) && !w.db.is_io_locked(id));
    }
    let tried = ids.map(|id| w.db.page(id).ref_mod());
    assert_eq!(tried, [RefMod::MOD | RefMod::REF; 2], "both were attempted");
    let counted = || COUNTED.map(|c| w.count(c));
    assert_eq!(counted(), [0; 6], "a failed write counts however often it is tried");
    f.fail.store(false, Relaxed);
    w.put(&f, 0, 2, PutFlags::FREE).expect("written");
    assert_eq!(counted(), [2, 2, 2, 2, 2, 0]);
    w.verify();
}

const COUNTED: [Counter; 6] = [
    Counter::PgOut,
    Counter::PgPgOut,
    Counter::FsPgOut,
    Counter::DFree,
    Counter::FsFree,
    Counter::PgRec,
];

#[test]
fn pages_freed_count_when_their_write_ended_and_not_when_they_were_clean() {
    for (flags, mapped, dirty, counts) in [
        (PutFlags::FREE, false, false, [0, 0, 0, 0, 0, 0]), // free-behind
        (PutFlags::empty(), false, false, [0, 0, 0, 0, 0, 0]),
        (PutFlags::FREE, true, true, [1, 1, 1, 1, 1, 0]),
        (PutFlags::empty(), false, true, [1, 1, 1, 1, 1, 0]), // V5: nobody maps it
        (PutFlags::empty(), true, true, [1, 1, 1, 0, 0, 0]),  // msync
        (PutFlags::INVAL, false, true, [1, 1, 1, 0, 0, 0]),
    ] {
        let (w, f) = world(1);
        let id = w.db.exists(&w.cx, f.page(0)).expect("there");
        if mapped {
            w.hat.map(&w.cx, id, 1);
        }
        if dirty {
            w.dirty(f.page(0));
        }
        w.put(&f, 0, 1, flags).expect("written");
        assert_eq!(COUNTED.map(|c| w.count(c)), counts, "{flags:?} {mapped} {dirty}");
        w.verify();
    }
}

#[test]
fn a_page_that_others_hold_after_its_write_was_not_reclaimed() {
    // It stays (V4), and nobody is known to have used it: `pgrec` counts those found used.
    let (w, f) = world(1);
    w.dirty(f.page(0));
    let dirty = take(&w.cx, &w.db, f.page(0), PUSH).expect("not held").expect("dirty");
    let other = w.db.try_lookup_shared(&w.cx, f.page(0)).expect("shared");
    write_done(&w.cx, &w.db, dirty, true, PUSH).expect("it may stay");
    drop(other);
    assert_eq!((w.count(Counter::PgRec), w.count(Counter::DFree)), (0, 0));
    w.verify();
}

#[test]
fn dontneed_pages_go_before_others() {
    let w = World::new(2);
    let f = TestFile::new(&w);
    for i in 0..2 {
        w.make(f.page(i));
    }
    w.put(&f, 0, 1, PutFlags::FREE).expect("clean");
    w.put(&f, 1, 1, PutFlags::FREE | PutFlags::DONTNEED).expect("clean");
    _ = w.db.alloc(&w.cx, 0, Reserve::Push).expect("a cached page").leak();
    assert!(w.db.exists(&w.cx, f.page(0)).is_some() && w.db.exists(&w.cx, f.page(1)).is_none());
}

#[test]
fn invalidation_destroys_clean_dirty_and_cached_pages() {
    let (w, f) = world(3);
    w.dirty(f.page(1));
    w.free(f.page(2), false);
    w.put(&f, 0, 0, PutFlags::INVAL).expect("nothing holds them");
    assert_eq!(*f.writes.lock(&w.cx), [1], "dirty bytes are stored first");
    assert_eq!(w.verify().free, 32);
    assert_eq!(w.count(Counter::PgRec), 0);
}

#[test]
fn truncation_drops_dirty_bytes_and_claims() {
    let (w, f) = world(2);
    w.dirty(f.page(0));
    let page = w.db.lookup_shared(&w.cx, f.page(1)).expect("there");
    w.db.claim(&page, Claim::Lck).expect("memory to spare");
    drop(page);
    let e = w.put(&f, 0, 0, PutFlags::INVAL).expect_err("a claimed page stays");
    assert_eq!(e.errno(), crate::errno::EBUSY);
    w.put(&f, 0, 0, PutFlags::INVAL | PutFlags::TRUNC).expect("the file gets shorter");
    assert_eq!(w.verify().free, 32);
    assert_eq!(w.db.free_mem().availrmem(), 32);
}

#[test]
fn a_page_locked_in_memory_during_its_write_stays() {
    // V6: the write only shares the page.
    let (w, f) = world(1);
    let id = w.dirty(f.page(0));
    let put = |flags, db: &PageDb| {
        put_range(&w.cx, db, f.id(), FileOffset(0), 0, flags, |name, _| {
            let page = db.try_lookup_shared(&w.cx, name).expect("shared");
            db.claim(&page, Claim::Lck).expect("memory to spare");
            Ok(())
        })
    };
    let e = put(PutFlags::INVAL, &w.db).expect_err("locked");
    assert_eq!(e, VnodeError::Locked { vnode: f.id(), offset: FileOffset(0) });
    assert_eq!(w.db.exists(&w.cx, f.page(0)), Some(id));
    assert_eq!(w.db.page(id).lckcnt(), 1);
    assert!(!w.db.page(id).ref_mod().contains(RefMod::MOD), "written");
    w.verify();
    w.dirty(f.page(0));
    put(PutFlags::INVAL | PutFlags::FORCE, &w.db).expect("by force");
    assert_eq!(w.verify().free, 32);
    assert_eq!(w.db.free_mem().availrmem(), 32);
}

#[test]
fn a_push_skips_what_it_would_have_to_wait_for() {
    let (w, f) = world(3);
    let ids = [0, 1, 2].map(|i| w.dirty(f.page(i)));
    let held = w.db.lock_shared(&w.cx, ids[0]).leak();
    let page = w.db.lock_shared(&w.cx, ids[1]);
    w.db.claim(&page, Claim::Cow).expect("memory to spare");
    drop(page);
    w.put(&f, 0, 3, PUSH).expect("the third");
    assert_eq!(*f.writes.lock(&w.cx), [2]);
    drop(w.db.adopt_shared(&w.cx, held));
    assert_eq!(w.verify().cached, 1);
}

/// A page that is to be retired is refused to whoever could do without; a put that waits for nobody writes it all the same, and it goes.
#[test]
fn a_page_that_is_to_be_retired_is_written_without_waiting() {
    for flags in [PutFlags::NOWAIT, PutFlags::ASYNC] {
        let (w, f) = world(1);
        let id = w.dirty(f.page(0));
        let pfn = w.db.pfn(id);
        assert_eq!(
            w.db.retire(&w.cx, pfn),
            Err(RetireError::Pending(pfn)),
            "its bytes are nowhere"
        );
        assert_eq!(w.put(&f, 0, 1, flags), Ok(()), "{flags:?}");
        assert_eq!(*f.writes.lock(&w.cx), [0], "{flags:?}");
        assert_eq!(w.db.retire_check(pfn), Ok(()));
        w.verify();
    }
}

#[test]
fn a_large_file_is_walked_in_pieces() {
    let w = World::new(1000);
    let f = TestFile::new(&w);
    for i in 0..700 {
        w.make(f.page(i));
    }
    let met = || w.db.vnode_pages_met(&w.cx, f.id());
    w.put(&f, 699, 1, PutFlags::INVAL).expect("clean");
    assert_eq!(met(), 0, "one page of many is looked up by its name");
    let all = pages_in(&w.cx, &w.db, f.id(), FileOffset(0), 0).expect("heap");
    assert_eq!(all.len(), 699);
    // The first piece again, once there is room to note where the walk is.
    assert_eq!(met(), 699 + 64);
    pages_in(&w.cx, &w.db, f.id(), FileOffset(0), 0).expect("heap");
    assert_eq!(met(), 2 * 699 + 64);
    w.verify();
}

#[test]
fn ranges_are_found_from_either_side() {
    // Few pages in a wide range go by the vnode's list, a narrow range by name; both ascend and agree.
    let (w, f) = world(6);
    let list =
        |from: u64, len| pages_in(&w.cx, &w.db, f.id(), FileOffset(from), len).expect("heap");
    let offsets = |v: Vec<(Identity, PageId)>| {
        v.into_iter().map(|(id, _)| id.offset.page_index()).collect::<Vec<_>>()
    };
    assert_eq!(offsets(list(PAGE_SIZE, 2 * PAGE_SIZE)), [1, 2]);
    assert_eq!(offsets(list(PAGE_SIZE + 1, PAGE_SIZE)), [1, 2], "rounded outwards");
    assert_eq!(offsets(list(2 * PAGE_SIZE, 1 << 40)), [2, 3, 4, 5]);
    assert_eq!(offsets(list(0, 0)), [0, 1, 2, 3, 4, 5]);
    assert_eq!(offsets(list(u64::MAX, u64::MAX)), [0u64; 0]);
}

/// The list of pages is of hints: what a page was found under may be another page's name by the time it is put.
#[test]
fn a_name_that_has_moved_to_another_page_is_written_all_the_same() {
    let w = World::new(16);
    let v = w.vnode(crate::VnodeKind::File);
    let id = crate::testing::name(v, 0);
    w.make(id);
    let page = w.db.lookup_excl(&w.cx, id).expect("there");
    page.page().set_ref_mod(RefMod::MOD);
    w.db.lend(&w.cx, &page).expect("room");
    let lent = page.id();
    let listed = pages_in(&w.cx, &w.db, v, FileOffset(0), 0).expect("heap");
    let copy = w.db.break_loan(&w.cx, page.downgrade(), 0).expect("a frame").expect("named");
    assert_ne!(copy.id(), lent);
    drop(copy);
    w.db.unlend(&w.cx, lent);
    assert!(w.db.page(lent).is_free());
    let mut written = 0;
    let done = put_pages(&w.cx, &w.db, listed, PutFlags::empty(), |_, _| {
        written += 1;
        Ok(())
    });
    assert_eq!((done, written), (Ok(()), 1));
    w.verify();
}

/// V1: half a page, with a frame's old bytes in the rest, is nobody's to find; nor does it stay locked.
#[test]
fn a_fill_that_panics_leaves_no_page() {
    let (w, f) = world(0);
    let filled = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        get(&w.cx, &w.db, f.page(0), 0, |_| panic!("the disk is on fire")).map(drop)
    }));
    assert!(filled.is_err());
    assert_eq!((w.verify().named, w.db.freemem()), (0, 32));
    assert!(w.cx.held().is_empty(), "X2");
    assert!(get(&w.cx, &w.db, f.page(0), 0, |_| Ok(())).expect("made anew").filled);
}
