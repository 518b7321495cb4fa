//! Segments that share a map: where they may grow, what of it is theirs alone, and what they reserve.

use super::unhappy::{another, range};
use super::*;
use addr_space::{Advice, Inherit, Leave, SegKind, Target};
use alloc::string::ToString;
use page_db::FileOffset;

/// A process that has mapped `pages` pages at page `first`, of `kind`.
fn map_at(w: &World, p: &Proc, first: u64, pages: u64, kind: SegKind) {
    let args = SegVnArgs { kind, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, range(first, pages), &args).expect("free");
}

fn end(w: &World, procs: &[&Proc]) {
    procs.iter().for_each(|p| p.space.free(&w.cx));
    w.driver.layer().verify(&w.cx).expect("nothing is left of the maps");
    assert_eq!((w.swap.live(), w.swap.info().reserved()), (0, 0));
    assert_eq!(w.db.verify(&w.cx).expect("pages").named, 0);
}

/// A copy of shared memory begins at slot 0, as the original does: what is mapped below it is a segment of its own.
#[test]
fn memory_below_a_copy_of_shared_memory_has_slots_of_its_own() {
    let w = world(128);
    let p = w.proc();
    map_at(&w, &p, 2, 2, SegKind::SHARED);
    w.write(&p, 2, 65);
    p.space.inherit(&w.cx, range(2, 2), Inherit::Copy).expect("mapped");
    let q = w.fork(&p);
    map_at(&w, &q, 1, 1, SegKind::empty());
    map_at(&w, &q, 4, 1, SegKind::empty());
    assert_eq!(q.space.segs(&w.cx).len(), 2, "above there is room");
    w.write(&q, 1, 7);
    w.write(&q, 4, 8);
    let r = w.fork(&q);
    assert_eq!([1, 2, 4].map(|page| w.read(&r, page)), [7, 65, 8]);
    w.check(&q);
    end(&w, &[&p, &q, &r]);
}

/// Who locks a read-only file in memory makes no copies where nobody can replace the page, whatever else of the map is shared: no swap is promised there.
#[test]
fn a_lock_over_a_file_copies_only_what_is_shared() {
    let w = world(128);
    let p = w.proc();
    w.map_file(&p, &w.file(4), 4, Prot::READ);
    p.space.inherit(&w.cx, range(0, 1), Inherit::Share).expect("mapped");
    let q = w.fork(&p);
    let promised = w.swap.info().reserved();
    p.space.lock(&w.cx, range(0, 4)).expect("room");
    w.check(&p);
    assert_eq!(w.refs(&p, 4), [1, 0, 0, 0], "J3: the shared page is the map's");
    assert_eq!((w.swap.info().reserved(), w.swap.live()), (promised, 1));
    // As much of pages pinned for i/o.
    let pin = |kind| p.space.fault(&w.cx, range(1, 2), kind, Access::Read);
    pin(FaultKind::SoftLock).expect("mapped");
    assert_eq!(w.refs(&p, 4), [1, 0, 0, 0]);
    let refused = p.space.share_range(&w.cx, range(1, 1), &q.space, range(8, 1).start());
    assert!(refused.is_err(), "pinned, and not the map's alone");
    p.space.inherit(&w.cx, range(0, 4), Inherit::Share).expect("mapped");
    assert!(p.space.dup(&w.cx, &w.proc().space).is_err(), "the same");
    pin(FaultKind::SoftUnlock).expect("pinned");
    // Shared in the end: what is locked is settled first.
    let r = w.fork(&p);
    assert_eq!(w.refs(&p, 4), [1, 1, 1, 1]);
    p.space.unlock(&w.cx, range(0, 4)).expect("locked");
    assert_eq!(w.db.free_mem().availrmem(), w.db.free_mem().total(), "every claim was given back");
    end(&w, &[&p, &q, &r]);
}

/// What is moved into the middle of memory joins it, over the slots of what was there.
#[test]
fn what_moves_over_a_part_joins_what_is_left() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 3);
    (0..3).for_each(|page| w.write(&p, page, 65));
    map_at(&w, &p, 9, 1, SegKind::empty());
    let (from, to) = (range(9, 1), range(1, 1).start());
    p.space.move_range(&w.cx, from, to, Leave::Hole, Target::Replace).expect("there is room");
    w.check(&p);
    assert_eq!((p.space.segs(&w.cx).len(), w.swap.live(), w.swap.info().reserved()), (1, 2, 3));
    assert_eq!([0, 1, 2].map(|page| w.read(&p, page)), [65, 0, 65]);
    end(&w, &[&p]);
}

/// A map is joint no longer when the segments that one process cut of it are one again.
#[test]
fn one_segment_that_was_two_shares_its_map_with_nobody() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 4);
    (0..4).for_each(|page| w.write(&p, page, 65));
    p.space.inherit(&w.cx, range(0, 4), Inherit::Share).expect("mapped");
    let q = w.fork(&p);
    p.space.inherit(&w.cx, range(0, 4), Inherit::Copy).expect("mapped");
    p.space.unmap(&w.cx, range(1, 1)).expect("mapped");
    q.space.free(&w.cx);
    let joint = || w.driver.layer().maps().iter().map(|map| map.is_joint()).collect::<Vec<_>>();
    assert_eq!(joint(), [true]);
    // Already now its pages are its alone.
    p.space.advise(&w.cx, range(3, 1), Advice::Purge).expect("not locked");
    p.space.advise(&w.cx, range(2, 1), Advice::Free).expect("not locked");
    assert_eq!((w.count(Counter::MadvFreeHit), w.read(&p, 3)), (2, 0));
    map_at(&w, &p, 1, 1, SegKind::empty());
    assert_eq!((p.space.segs(&w.cx).len(), joint()), (1, [false].to_vec()));
    end(&w, &[&p]);
}

/// What is purged of a slot that a sharer has too stays, and so do its translations; discarding takes these away.
#[test]
fn what_sharers_have_too_is_kept_and_discarding_unmaps_it() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 2);
    (0..2).for_each(|page| w.write(&p, page, 65));
    p.space.inherit(&w.cx, range(0, 1), Inherit::Share).expect("mapped");
    let q = w.fork(&p);
    w.write(&p, 1, 66);
    for (advice, mapped) in [(Advice::Purge, true), (Advice::Free, true), (Advice::Discard, false)]
    {
        p.space.advise(&w.cx, range(0, 1), advice).expect("not locked");
        assert_eq!(p.space.hat().probe(&w.cx, range(0, 1).start()).is_some(), mapped, "{advice:?}");
        assert_eq!((w.read(&p, 0), w.read(&q, 0)), (65, 65), "{advice:?}");
    }
    end(&w, &[&p, &q]);
}

/// Purging finds after a lazy fork what it finds after an eager one, also when the process is alone again.
#[test]
fn purging_after_a_fork_is_the_same_under_both_policies() {
    for fork in [ForkPolicy::Eager, ForkPolicy::Lazy] {
        let w = world_with(128, VnTunables { fork, ..VnTunables::default() });
        let p = w.proc();
        w.map(&p, 2);
        (0..2).for_each(|page| w.write(&p, page, 65));
        p.space.lock(&w.cx, range(1, 1)).expect("room");
        let q = w.fork(&p);
        let purge = |p: &Proc| p.space.advise(&w.cx, range(0, 2), Advice::Purge);
        purge(&p).expect("all is shared");
        assert_eq!([w.read(&p, 0), w.read(&q, 0)], [65, 65], "{fork:?}");
        q.space.free(&w.cx);
        assert!(purge(&p).is_err(), "{fork:?}: the other page is locked");
        assert_eq!([w.read(&p, 0), w.read(&p, 1)], [0, 65], "{fork:?}");
        end(&w, &[&p]);
    }
}

/// A change of rights looks at its own pages, of a segment with a few pages that have rights of their own as of one with thousands; of a private file's
/// mapping, too, which reserves page by page what may be stored to.
#[test]
fn a_change_of_rights_looks_at_its_own_pages() {
    let looks = |pages: u64, of_a_file: bool| {
        let w = world(8192);
        let p = w.proc();
        match of_a_file {
            true => w.map_file(&p, &w.file(pages), pages, Prot::READ),
            false => w.map(&p, pages),
        }
        let (own, other) = if of_a_file { (Prot::RW, Prot::READ) } else { (Prot::READ, Prot::RW) };
        for page in (0..pages).step_by(2) {
            p.space.set_prot(&w.cx, range(page, 1), own).expect("may");
        }
        w.check(&p);
        let looked = || {
            let segs = p.space.segs(&w.cx);
            let any: &dyn core::any::Any = segs.iter().next().expect("one").ops();
            let vn = any.downcast_ref::<crate::SegVn>().expect("seg_vn");
            vn.lock.lock(&w.cx).vpage.looked()
        };
        // One page, to what its neighbours have and back; three that are not alike; what they have already.
        let mid = pages / 2;
        let seen = [(1, 1, own), (1, 1, other), (1, 3, own), (1, 3, own)].map(|(off, n, prot)| {
            let before = looked();
            p.space.set_prot(&w.cx, range(mid + off, n), prot).expect("may");
            looked() - before
        });
        w.check(&p);
        p.space.free(&w.cx);
        assert_eq!(w.swap.info().reserved(), 0);
        seen
    };
    for of_a_file in [false, true] {
        let (few, many) = (looks(16, of_a_file), looks(4096, of_a_file));
        assert_eq!(few, many, "file: {of_a_file}");
        assert!(many.iter().all(|n| *n <= 12), "file: {of_a_file}: {many:?}");
    }
}

/// What `what` costs, in slots and runs looked at, in a process with one segment of `pages` touched pages, of which every second has other rights.
fn cost(w: &World, args: &SegVnArgs, pages: u64, what: impl FnOnce(&Proc)) -> (u64, u64) {
    let p = w.proc();
    p.space.map(&w.cx, range(16, pages), args).expect("free");
    let touch = |page| w.access(&p, BASE + page * PAGE_SIZE, Some(1));
    let other = args.prot ^ Prot::WRITE;
    for page in (16..16 + pages).step_by(2) {
        if other == Prot::READ {
            touch(page).expect("may store");
            touch(page + 1).expect("may store");
        }
        p.space.set_prot(&w.cx, range(page, 1), other).expect("may");
    }
    w.check(&p);
    let looked = || {
        let segs = p.space.segs(&w.cx);
        let any: &dyn core::any::Any = segs.iter().next().expect("one").ops();
        any.downcast_ref::<crate::SegVn>().expect("seg_vn").lock.lock(&w.cx).vpage.looked()
    };
    let before = (w.count(Counter::AnonSlots), looked());
    what(&p);
    assert_eq!(p.space.segs(&w.cx).len(), 1, "it is a part of the segment, or becomes one");
    let cost = (w.count(Counter::AnonSlots) - before.0, looked() - before.1);
    w.check(&p);
    p.space.free(&w.cx);
    assert_eq!((w.swap.info().reserved(), w.swap.live()), (0, 0));
    cost
}

/// A page less at an end of a segment, or a page more, costs what the page does, however it is reserved (S5).
#[test]
fn a_page_less_or_more_looks_at_no_other() {
    let costs = |pages: u64, kind: SegKind, prot: Prot, of_a_file: bool| {
        let w = world(4096);
        let file = of_a_file.then(|| w.file(pages + 32));
        let at = |first: u64| SegVnArgs {
            kind,
            vnode: file.clone(),
            offset: FileOffset(first * PAGE_SIZE),
            ..SegVnArgs::zfod(&w.driver, prot)
        };
        let less = |page| {
            cost(&w, &at(16), pages, |p| p.space.unmap(&w.cx, range(page, 1)).expect("mapped"))
        };
        let more = |page| {
            let args = at(page);
            cost(&w, &at(16), pages, |p| {
                p.space.map(&w.cx, range(page, 1), &args).expect("free");
            })
        };
        [less(16), less(15 + pages), more(15), more(16 + pages)]
    };
    for (kind, prot, of_a_file) in [
        (SegKind::NORESERVE, Prot::RW, false),
        (SegKind::NORESERVE, Prot::RW, true),
        (SegKind::empty(), Prot::RW, false),
        (SegKind::empty(), Prot::RW, true),
        (SegKind::empty(), Prot::READ, true),
    ] {
        let [few, many] = [64, 2048].map(|pages| costs(pages, kind, prot, of_a_file));
        assert_eq!(few, many, "{kind:?}, {prot}, file: {of_a_file}");
    }
}

/// A private file mapping has reserved all of it, what is marked, or nothing that may be stored to.
#[test]
fn a_wrong_reservation_of_a_file_mapping_is_reported() {
    for prot in [Prot::RW, Prot::READ] {
        let w = world(128);
        let p = w.proc();
        w.map_file(&p, &w.file(4), 4, prot);
        p.space.set_prot(&w.cx, range(1, 1), Prot::RW ^ (prot & Prot::WRITE)).expect("may");
        w.check(&p);
        {
            let segs = p.space.segs(&w.cx);
            let any: &dyn core::any::Any = segs.iter().next().expect("one").ops();
            any.downcast_ref::<crate::SegVn>().expect("seg_vn").damage_reserved();
        }
        let found = p.space.verify(&w.cx).expect_err("a page more than there is");
        assert!(found.to_string().contains("I12"), "{found}");
    }
}

/// What a page that is shown twice may come to need is marked page by page, and the segment says so (I12).
#[test]
fn a_page_of_a_read_only_file_shown_twice_is_accounted_for_when_others_go() {
    let w = world(64);
    let p = w.proc();
    let file = w.file(6);
    w.map_file(&p, &file, 6, Prot::READ);
    p.space.share_range(&w.cx, range(1, 1), &p.space, range(23, 1).start()).expect("free");
    w.check(&p);
    let reserved = w.swap.info().reserved();
    p.space.unmap(&w.cx, range(4, 2)).expect("mapped");
    w.check(&p);
    assert_eq!(w.swap.info().reserved(), reserved, "the page that is shown twice is another");
    p.space.unmap(&w.cx, range(0, 3)).expect("mapped");
    w.check(&p);
    p.space.free(&w.cx);
    assert_eq!(w.swap.info().reserved(), 0);
}

/// Shared memory goes on over places that another thread is emptying: that is waited for, asleep and with nothing held.
#[test]
fn memory_that_goes_on_sleeps_until_the_places_are_empty() {
    let w = world(128);
    let p = w.proc();
    map_at(&w, &p, 0, 4, SegKind::SHARED);
    (0..4).for_each(|page| w.write(&p, page, 65));
    let map = w.driver.layer().maps().pop().expect("made with the mapping");
    let held = w.swap.identity(map.peek(3).expect("touched"));
    let held = w.db.lookup_shared(&w.cx, held).expect("in memory");
    let space = &p.space;
    let asleep = |n| {
        let since = std::time::Instant::now();
        while w.db.waits().sleepers() != n && since.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
        w.db.waits().sleepers()
    };
    let seen = std::thread::scope(|s| {
        // The page is out of reach at once, and is emptied when this thread lets go of it.
        let gone = s.spawn(|| space.unmap(&another(space.db()), range(3, 1)));
        let first = asleep(1);
        let more = s.spawn(|| space.extend(&another(space.db()), range(2, 1).start(), range(3, 2)));
        let both = asleep(2);
        let args = SegVnArgs::zfod(&w.driver, Prot::RW);
        let beside = s.spawn(move || space.map(&another(space.db()), range(16, 1), &args)).join();
        let still = w.db.waits().sleepers();
        drop(held);
        let done = [gone.join(), more.join(), beside].map(|done| done.expect("no panic"));
        (first, both, still, done)
    });
    assert_eq!(seen, (1, 2, 2, [Ok(()); 3]), "asleep, and nobody had to wait for that");
    w.check(&p);
    assert_eq!([2, 3, 4].map(|page| w.read(&p, page)), [65, 0, 0], "what follows is new");
    assert_eq!(w.swap.info().reserved(), 5 + 1, "of each page once");
    drop(map);
    end(&w, &[&p]);
}
