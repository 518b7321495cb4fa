//! Pages in a stranger's hands: who holds an address space as writer waits for none of them.

use super::super::{LentAnons, SegVn};
use super::unhappy::{another, range};
use super::*;
use addr_space::{Inherit, SegError, SegKind, SyncFlags};
use core::time::Duration;
use page_db::sync::atomic::Ordering;
use page_db::{RefMod, SyncMode, Vnode, errno};
use std::sync::mpsc;

/// What `f` answers on a thread of its own. A test that waits for ever fails here.
fn in_time<R: Send + 'static>(w: &World, f: impl FnOnce(&Cx) -> R + Send + 'static) -> R {
    let (says, hears) = mpsc::channel();
    let db = Arc::clone(&w.db);
    std::thread::spawn(move || says.send(f(&another(&db))));
    hears.recv_timeout(Duration::from_secs(20)).expect("it waits for what a stranger holds")
}

/// A parent that has locked two pages in memory, and the child it forked: both anons have two references.
fn family(w: &World) -> (Arc<Proc>, Arc<Proc>) {
    let p = w.proc();
    w.map(&p, 2);
    w.write(&p, 0, 1);
    w.write(&p, 1, 2);
    p.space.lock(&w.cx, range(0, 2)).expect("room");
    let q = w.fork(&p);
    assert_eq!(w.refs(&p, 2), [2, 2]);
    (Arc::new(p), Arc::new(q))
}

#[test]
fn a_range_is_not_shown_twice_while_a_stranger_has_its_page_pinned() {
    let w = world(128);
    let (p, q) = family(&w);
    let r = w.proc();
    p.space.share_range(&w.cx, range(0, 1), &r.space, range(0, 1).start()).expect("free");
    assert_eq!(w.refs(&p, 2), [1, 2], "what is locked is its own, where the map is joint");
    let pin = |kind| q.space.fault(&w.cx, range(1, 1), kind, Access::ReadNoCow);
    pin(FaultKind::SoftLock).expect("mapped");
    let (from, into) = (Arc::clone(&p), Arc::clone(&q));
    let to = range(8, 1);
    let done =
        in_time(&w, move |cx| from.space.share_range(cx, range(1, 1), &into.space, to.start()));
    assert_eq!(done, Err(SegError::Pinned { range: range(1, 1) }.into()));
    assert_eq!(w.refs(&p, 2), [1, 2], "nothing has changed");
    pin(FaultKind::SoftUnlock).expect("pinned");
    p.space.share_range(&w.cx, range(1, 1), &q.space, to.start()).expect("nobody holds it");
    w.write(&p, 1, 9);
    assert_eq!((w.read(&q, 8), w.read(&q, 1)), (9, 2));
    [&p, &q].into_iter().for_each(|p| p.space.free(&w.cx));
    r.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

#[test]
fn a_fork_that_inherits_by_sharing_does_not_wait_for_a_strangers_pin() {
    let w = world(128);
    let (p, q) = family(&w);
    let r = w.proc();
    p.space.share_range(&w.cx, range(0, 1), &r.space, range(0, 1).start()).expect("free");
    p.space.inherit(&w.cx, range(1, 1), Inherit::Share).expect("mapped");
    let pin = |kind| q.space.fault(&w.cx, range(1, 1), kind, Access::ReadNoCow);
    pin(FaultKind::SoftLock).expect("mapped");
    let child = Arc::new(w.proc());
    let (from, to) = (Arc::clone(&p), Arc::clone(&child));
    let done = in_time(&w, move |cx| from.space.dup(cx, &to.space));
    assert_eq!(done, Err(SegError::Pinned { range: range(1, 1) }.into()));
    assert_eq!(child.space.segs(&w.cx).len(), 0, "nobody sees half a child");
    pin(FaultKind::SoftUnlock).expect("pinned");
    p.space.dup(&w.cx, &child.space).expect("nobody holds it");
    w.write(&p, 1, 9);
    assert_eq!((w.read(&child, 1), w.read(&q, 1)), (9, 2));
    [&p, &q, &child].into_iter().for_each(|p| p.space.free(&w.cx));
    r.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

/// Rights are read under a sequence number: a fault does without the segment's lock, which is another's here.
#[test]
fn a_fault_takes_no_lock_of_the_segment() {
    let w = world(128);
    let p = Arc::new(w.proc());
    w.map(&p, 4);
    w.write(&p, 0, 1);
    let segs = p.space.segs(&w.cx);
    let ops: &dyn core::any::Any = segs.iter().next().expect("mapped").ops();
    let held = ops.downcast_ref::<SegVn>().expect("a seg_vn").lock.lock(&w.cx);
    for (page, access) in [(1, Access::Write), (2, Access::Read), (0, Access::Write)] {
        let who = Arc::clone(&p);
        let fault = move |cx: &Cx| who.space.fault(cx, range(page, 1), FaultKind::Invalid, access);
        assert_eq!(in_time(&w, fault), Ok(()), "page {page}");
    }
    drop(held);
    drop(segs);
    p.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

/// What the address space asks of the driver with the lock as writer, when it has to move an access beside a watch.
fn as_writer(p: &Proc, cx: &Cx, page: u64, access: Access) -> Result<(), FaultError> {
    ask(p, cx, page, access, true)
}

/// One answer of the driver, which the address space does not act on here.
fn ask(p: &Proc, cx: &Cx, page: u64, access: Access, writer: bool) -> Result<(), FaultError> {
    let segs = p.space.segs(cx);
    let at = range(page, 1);
    let seg = segs.iter().find(|seg| seg.range().contains(at.start())).expect("mapped");
    let scx = p.space.seg_cx(cx, seg.range());
    let scx = if writer { scx.as_if_writer() } else { scx };
    seg.ops().fault(&scx, at, FaultKind::Invalid, access)
}

#[test]
fn a_fault_as_writer_waits_for_nobody() {
    let w = world(128);
    let (p, r) = (Arc::new(w.proc()), w.proc());
    let file = w.file(2);
    w.map_file(&p, &file, 2, Prot::RW);
    // Joint, so that who stores removes the translations of others.
    p.space.share_range(&w.cx, range(0, 2), &r.space, range(0, 2).start()).expect("free");
    // The file's page is pinned through another mapping of the same process, which could not let go of it.
    let other = range(8, 1);
    let vnode = Some(Arc::clone(&file));
    let args = SegVnArgs { vnode, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, other, &args).expect("free");
    p.space.fault(&w.cx, other, FaultKind::SoftLock, Access::ReadNoCow).expect("mapped");
    let q = Arc::clone(&p);
    let done = in_time(&w, move |cx| as_writer(&q, cx, 0, Access::Write));
    assert!(matches!(done, Err(FaultError::Retry { .. })), "{done:?}");
    p.space.fault(&w.cx, other, FaultKind::SoftUnlock, Access::ReadNoCow).expect("pinned");
    as_writer(&p, &w.cx, 0, Access::Write).expect("nobody holds it");
    [&*p, &r].into_iter().for_each(|p| p.space.free(&w.cx));
}

#[test]
fn a_fault_as_writer_reads_nothing() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 1);
    w.write(&p, 0, 7);
    w.pageout.reclaim_all(&w.cx, &w.db);
    let read = w.count(Counter::MajFault);
    for access in [Access::Read, Access::Write] {
        let done = as_writer(&p, &w.cx, 0, access);
        assert!(matches!(done, Err(FaultError::Retry { .. })), "{done:?}");
    }
    assert_eq!(w.count(Counter::MajFault), read);
    assert_eq!(w.read(&p, 0), 7);
    as_writer(&p, &w.cx, 0, Access::Write).expect("it is there now");
    p.space.free(&w.cx);
    let (p, file) = (w.proc(), w.file(1));
    w.map_file(&p, &file, 1, Prot::RW);
    for access in [Access::Read, Access::Write] {
        let done = as_writer(&p, &w.cx, 0, access);
        assert!(matches!(done, Err(FaultError::Retry { .. })), "{done:?}");
    }
    p.space.fault(&w.cx, range(0, 1), FaultKind::Invalid, Access::Read).expect("read");
    as_writer(&p, &w.cx, 0, Access::Write).expect("it is there now");
    p.space.free(&w.cx);
}

/// Two processes with the same shared memory of two pages, in which the second has page 1 pinned.
fn neighbours(w: &World) -> (Arc<Proc>, Arc<Proc>) {
    let p = w.proc();
    let shared = SegVnArgs { kind: SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, range(0, 2), &shared).expect("free");
    w.write(&p, 0, 1);
    w.write(&p, 1, 2);
    let q = w.fork(&p);
    pin(w, &q, 1, FaultKind::SoftLock);
    (Arc::new(p), Arc::new(q))
}

fn pin(w: &World, q: &Proc, page: u64, kind: FaultKind) {
    q.space.fault(&w.cx, range(page, 1), kind, Access::ReadNoCow).expect("mapped");
}

/// illumos.md 4.8: pages of shared memory that anybody has pinned are not written out.
#[test]
fn shared_memory_that_a_stranger_has_pinned_is_not_written_out() {
    let w = world(128);
    let (p, q) = neighbours(&w);
    let ticks = w.db.clock().now();
    for flags in [SyncFlags::empty(), SyncFlags::ASYNC, SyncFlags::INVALIDATE] {
        // Of page 0 neither: the count is the map's.
        let done = p.space.sync(&w.cx, range(0, 1), flags);
        assert_eq!(done, Err(SegError::Pinned { range: range(0, 1) }.into()), "{flags:?}");
    }
    assert_eq!(w.db.clock().now(), ticks, "at once");
    let lent = p.space.lend_pages(&w.cx, range(1, 1));
    assert_eq!(lent.map(drop), Err(SegError::Pinned { range: range(1, 1) }.into()));
    pin(&w, &q, 1, FaultKind::SoftUnlock);
    p.space.sync(&w.cx, range(0, 2), SyncFlags::INVALIDATE).expect("nobody holds it");
    assert_eq!((w.read(&q, 0), w.read(&p, 1)), (1, 2));
    [&p, &q].into_iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!(w.swap.live(), 0);
}

/// A process that has a page of the file mapped, and one that has it mapped and pinned.
fn readers(w: &World) -> (Arc<Proc>, Proc, Arc<dyn Vnode>) {
    let (p, q) = (w.proc(), w.proc());
    let file = w.file(2);
    for p in [&p, &q] {
        let (vnode, kind) = (Some(Arc::clone(&file)), SegKind::SHARED);
        let args = SegVnArgs { vnode, kind, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
        p.space.map(&w.cx, range(0, 2), &args).expect("free");
    }
    w.write(&p, 0, 5);
    pin(w, &q, 0, FaultKind::SoftLock);
    (Arc::new(p), q, file)
}

#[test]
fn a_files_page_that_a_stranger_has_pinned_is_written_and_not_thrown_out() {
    let w = world(128);
    let (p, q, file) = readers(&w);
    let modified = || {
        let name = page_db::Identity::new(file.id(), page_db::FileOffset(0));
        let page = w.db.lookup_shared(&w.cx, name).expect("in memory");
        w.db.sync_ref_mod(&w.cx, &page, SyncMode::DontZero).contains(RefMod::MOD)
    };
    assert!(modified());
    let p2 = Arc::clone(&p);
    in_time(&w, move |cx| p2.space.sync(cx, range(0, 2), SyncFlags::empty())).expect("written");
    assert!(!modified());
    w.write(&p, 0, 6);
    let ticks = w.db.clock().now();
    let p2 = Arc::clone(&p);
    let done = in_time(&w, move |cx| p2.space.sync(cx, range(0, 2), SyncFlags::INVALIDATE));
    assert_eq!(done, Err(SegError::Pinned { range: range(0, 1) }.into()));
    assert_eq!(w.db.clock().now(), ticks + 100, "a second");
    assert_eq!(w.read(&q, 0), 6, "whoever has it pinned waits for nobody");
    pin(&w, &q, 0, FaultKind::SoftUnlock);
    p.space.sync(&w.cx, range(0, 2), SyncFlags::INVALIDATE).expect("nobody holds it");
    assert_eq!(w.read(&q, 0), 0, "as it is in the file");
    [&*p, &q].into_iter().for_each(|p| p.space.free(&w.cx));
}

#[test]
fn a_files_page_that_a_stranger_has_pinned_is_not_lent() {
    let w = world(128);
    let (p, q, _file) = readers(&w);
    let held = Err(SegError::Pinned { range: range(0, 1) }.into());
    let p2 = Arc::clone(&p);
    let done = in_time(&w, move |cx| p2.space.lend_pages(cx, range(0, 1)).map(drop));
    assert_eq!(done, held);
    let (p2, driver) = (Arc::clone(&p), Arc::clone(&w.driver));
    let done =
        in_time(&w, move |cx| LentAnons::lend(&driver, cx, &p2.space, range(0, 1)).map(drop));
    assert_eq!(done, held);
    pin(&w, &q, 0, FaultKind::SoftUnlock);
    p.space.lend_pages(&w.cx, range(0, 1)).expect("nobody holds it").give_back(&w.cx);
    [&*p, &q].into_iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!(w.swap.live(), 0);
}

/// Whoever has pinned a page that is not its own finds the pin where it was: who stores there waits.
#[test]
fn a_store_waits_for_a_pin_of_the_page_that_it_copies() {
    let w = world(128);
    let p = Arc::new(w.proc());
    let file = w.file(2);
    w.map_file(&p, &file, 2, Prot::RW);
    pin(&w, &p, 0, FaultKind::SoftLock);
    let (says, hears) = mpsc::channel();
    let q = Arc::clone(&p);
    std::thread::spawn(move || {
        let done =
            q.space.fault(&another(q.space.db()), range(0, 1), FaultKind::Invalid, Access::Write);
        says.send(done)
    });
    let ticks = w.db.clock().now();
    while w.db.clock().now() == ticks {
        std::thread::yield_now();
    }
    assert!(hears.try_recv().is_err(), "the page is pinned");
    pin(&w, &p, 0, FaultKind::SoftUnlock);
    hears.recv_timeout(Duration::from_secs(20)).expect("in time").expect("copied");
    assert_eq!(w.refs(&p, 1), [1]);
    p.space.try_unmap(&w.cx, range(0, 2)).expect("nothing is pinned");
    let name = page_db::Identity::new(file.id(), page_db::FileOffset(0));
    let page = w.db.exists(&w.cx, name);
    assert!(page.is_none_or(|page| w.db.lock_state(page).shared == 0), "no lock is left over");
    p.space.free(&w.cx);
}

/// A store takes the name of a lent page to a copy, and must have the page alone for that. Whoever has it may be about to come to the slot, or to pin for
/// long (J5): he is waited for by the address space, with nothing held.
#[test]
fn a_store_to_a_lent_page_waits_for_no_stranger_with_its_slot_busy() {
    let w = world(128);
    let (p, r) = (Arc::new(w.proc()), Arc::new(w.proc()));
    w.map(&p, 1);
    let file = w.file(1);
    let (vnode, kind) = (Some(Arc::clone(&file)), SegKind::SHARED);
    let args = SegVnArgs { vnode, kind, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    r.space.map(&w.cx, range(0, 1), &args).expect("free");
    [&p, &r].into_iter().for_each(|p| w.write(p, 0, 7));
    let map = w.driver.layer().maps().pop().expect("the map of anonymous memory");
    let (slot, n) = map.slots(&w.cx, 0..u64::MAX >> 1).next().expect("stored to");
    let of_file = page_db::Identity::new(file.id(), page_db::FileOffset(0));
    for (who, name) in [(&p, w.swap.identity(n)), (&r, of_file)] {
        let lent = who.space.lend_pages(&w.cx, range(0, 1)).expect("nobody holds it");
        let held = w.db.lookup_shared(&w.cx, name).expect("in memory");
        let ask_for = |writer| {
            let who = Arc::clone(who);
            in_time(&w, move |cx| ask(&who, cx, 0, Access::Write, writer))
        };
        let done = ask_for(false);
        let again = matches!(done, Err(FaultError::Object { errno: errno::EDEADLK, .. }));
        assert!(again, "{name:?}: {done:?}");
        let done = ask_for(true);
        assert!(matches!(done, Err(FaultError::Retry { .. })), "{name:?}: {done:?}");
        drop(map.try_enter(&w.cx, slot).expect("nobody has it busy"));
        drop(held);
        w.write(who, 0, 9);
        assert_eq!(w.db.lent_pages(), 1, "the loan has the old page");
        lent.give_back(&w.cx);
        assert_eq!((w.read(who, 0), w.db.lent_pages()), (9, 0));
    }
    [&p, &r].into_iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!(w.swap.live(), 0);
}

/// Whose pin it is says who mapped the page, not who asks.
#[test]
fn what_a_stranger_has_pinned_is_not_unlocked() {
    let w = world(128);
    let (p, q, _file) = readers(&w);
    for page in [0, 1] {
        p.space.fault(&w.cx, range(page, 1), FaultKind::Invalid, Access::Read).expect("mapped");
    }
    pin(&w, &p, 0, FaultKind::SoftUnlock);
    pin(&w, &p, 1, FaultKind::SoftLock);
    pin(&w, &p, 1, FaultKind::SoftUnlock);
    pin(&w, &p, 0, FaultKind::SoftUnlock);
    let refused = q.space.try_unmap(&w.cx, range(0, 2));
    assert_eq!(refused, Err(SegError::Pinned { range: range(0, 2) }.into()));
    pin(&w, &q, 0, FaultKind::SoftUnlock);
    q.space.try_unmap(&w.cx, range(0, 2)).expect("nothing is pinned");
    [&*p, &q].into_iter().for_each(|p| p.space.free(&w.cx));
}

/// A count that is full is an error, and hides no pin.
#[test]
fn more_pins_than_can_be_counted_are_refused() {
    let w = world(128);
    let p = w.proc();
    let kind = SegKind::NORESERVE;
    let args = SegVnArgs { kind, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    let pages = u64::from(u32::MAX);
    p.space.map(&w.cx, range(0, pages), &args).expect("free");
    pin(&w, &p, 0, FaultKind::SoftLock);
    let all = p.space.fault(&w.cx, range(0, pages), FaultKind::SoftLock, Access::Read);
    assert!(
        matches!(all, Err(FaultError::Object { errno: page_db::errno::ENOMEM, .. })),
        "{all:?}"
    );
    let refused = p.space.try_unmap(&w.cx, range(0, 1));
    assert_eq!(refused, Err(SegError::Pinned { range: range(0, 1) }.into()));
    pin(&w, &p, 0, FaultKind::SoftUnlock);
    p.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

/// The last page that there can be of a private file mapping is written out, and none behind it.
#[test]
fn a_sync_at_the_end_of_the_lower_half_ends_there() {
    let w = world(128);
    let all = VirtRange::exact(BASE, VirtAddr::LOWER_END - BASE).expect("aligned");
    let hat = w.hat.alloc(&w.cx).expect("frames");
    let space = AddrSpace::new(&w.cx, AsId(9), all, hat, Arc::clone(&w.db));
    let p = Proc { space: space.expect("heap") };
    let file = w.file(8);
    let last = VirtRange::exact(all.end() - 2 * PAGE_SIZE, 2 * PAGE_SIZE).expect("aligned");
    let vnode = Some(Arc::clone(&file));
    let args = SegVnArgs { vnode, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, last, &args).expect("free");
    let fault = |page, access| {
        let at = VirtRange::page_of(last.page_at(page));
        p.space.fault(&w.cx, at, FaultKind::Invalid, access).expect("mapped");
    };
    fault(0, Access::Write); // there is a map
    fault(1, Access::Read);
    let name = |page| page_db::Identity::new(file.id(), page_db::FileOffset(page * PAGE_SIZE));
    drop(file.get_page(&w.cx, &w.db, name(5).offset, Access::Read).expect("read"));
    p.space.sync(&w.cx, last, SyncFlags::INVALIDATE).expect("nothing is locked");
    assert!(w.db.exists(&w.cx, name(1)).is_none(), "thrown out");
    assert!(w.db.exists(&w.cx, name(5)).is_some(), "not mapped");
    p.space.free(&w.cx);
}

/// A store to joint memory whose page somebody has pinned waits without the slot, which a fork of the memory needs.
#[test]
fn a_fork_does_not_stand_behind_a_store_that_waits_for_a_pin() {
    let w = world(128);
    let (p, q) = (Arc::new(w.proc()), Arc::new(w.proc()));
    let file = w.file(2);
    w.map_file(&p, &file, 2, Prot::RW);
    p.space.share_range(&w.cx, range(0, 2), &q.space, range(0, 2).start()).expect("free");
    // The file's page is pinned through another mapping of the process that forks.
    let other = range(8, 1);
    let vnode = Some(Arc::clone(&file));
    let args = SegVnArgs { vnode, kind: SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.space.map(&w.cx, other, &args).expect("free");
    pin(&w, &p, 8, FaultKind::SoftLock);
    let ticks = w.db.clock().now();
    let storer = Arc::clone(&q);
    let (says, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let done = storer.space.fault(
            &another(storer.space.db()),
            range(0, 1),
            FaultKind::Invalid,
            Access::Write,
        );
        says.send(done)
    });
    while w.db.clock().now() == ticks {
        std::thread::yield_now();
    }
    let child = Arc::new(w.proc());
    let (from, to) = (Arc::clone(&p), Arc::clone(&child));
    in_time(&w, move |cx| from.space.dup(cx, &to.space)).expect("forked");
    assert!(hears.try_recv().is_err(), "the page is pinned");
    pin(&w, &p, 8, FaultKind::SoftUnlock);
    hears.recv_timeout(Duration::from_secs(20)).expect("in time").expect("stored");
    [&p, &q, &child].into_iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!(w.swap.live(), 0);
}

/// P1.
#[test]
fn pins_that_no_lock_stands_for_are_damage() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 2);
    w.write(&p, 0, 1);
    let pinned = || p.space.lock_pages(&w.cx, range(0, 1), Access::Write).expect("in memory");
    let (a, b) = (pinned(), pinned());
    p.space.verify(&w.cx).expect("one page, pinned twice");
    let change = |to: &dyn Fn(u32) -> u32| {
        let segs = p.space.segs(&w.cx);
        let any: &dyn core::any::Any = segs.iter().next().expect("one segment").ops();
        let pins = &any.downcast_ref::<SegVn>().expect("seg_vn").softlocks;
        pins.store(to(pins.load(Ordering::Acquire)), Ordering::Release);
    };
    for by in [1, u32::MAX - 2] {
        change(&|n| n + by);
        let said = p.space.verify(&w.cx).expect_err("nobody locked them").to_string();
        assert!(said.contains("P1"), "{said}");
        change(&|n| n - by);
    }
    for pinned in [a, b] {
        p.space.unlock_pages(&w.cx, pinned).expect("pinned here");
    }
    w.check(&p);
    p.space.free(&w.cx);
}

/// K6 of the page lock: nothing charges a process for a soft lock, and it may ask for them for ever.
#[test]
fn a_page_that_is_pinned_too_often_is_refused_and_stays_as_it_is() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 2);
    w.write(&p, 0, 1);
    w.write(&p, 1, 2);
    let at = range(1, 1).start();
    let page = p.space.hat().probe(&w.cx, at).and_then(|t| w.db.page_of(t.pfn)).expect("stored to");
    let held = |n| w.db.damage(&w.cx, page_db::damage::Damage::Hold(page, n));
    let many = (1 << 25) - 1;
    held(many);
    let pin = |kind| p.space.fault(&w.cx, range(0, 2), kind, Access::Write);
    pin(FaultKind::SoftLock).expect("the last");
    let full = FaultError::Object { addr: at, errno: errno::EAGAIN };
    assert_eq!(pin(FaultKind::SoftLock), Err(full));
    let listed = p.space.lock_pages(&w.cx, range(0, 2), Access::Write).map(drop);
    assert_eq!(listed, Err(full.into()), "by way of a list, too");
    assert_eq!(w.db.lock_state(page).shared, many + 1);
    assert_eq!((w.read(&p, 0), w.read(&p, 1)), (1, 2), "whoever only looks at it comes in");
    held(1);
    pin(FaultKind::SoftUnlock).expect("pinned");
    assert_eq!(w.db.lock_state(page).shared, 0);
    p.space.free(&w.cx);
    assert_eq!(w.swap.live(), 0);
}

/// O1: the frames would be nobody's.
#[test]
#[cfg(debug_assertions)]
fn loans_that_are_dropped_are_missed_at_once() {
    let w = world(64);
    let p = w.proc();
    w.map(&p, 2);
    w.write(&p, 0, 1);
    let lost = |lend: &dyn Fn()| {
        let lost = std::panic::catch_unwind(core::panic::AssertUnwindSafe(lend));
        *lost.expect_err("missed").downcast::<alloc::string::String>().expect("a message")
    };
    let kernel = || p.space.lend_pages(&w.cx, range(0, 1)).expect("resident");
    let anons = || LentAnons::lend(&w.driver, &w.cx, &p.space, range(0, 1));
    assert!(lost(&|| drop(kernel())).contains("not given back: pages lent to the kernel"));
    let said = lost(&|| drop(anons().expect("resident")));
    assert!(said.contains("not given back: pages lent to anons"), "{said}");
    kernel().give_back(&w.cx);
    anons().expect("resident").give_back(&w.cx);
    kernel().abandon();
    p.space.free(&w.cx);
}
