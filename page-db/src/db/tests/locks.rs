//! The page lock's table, as behaviour 50 and the table in [`crate::selock`] state it.

use crate::selock::SeState;
use crate::testing::{World, name};
use crate::{Counter, LockedPage, PageId, VnodeKind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

fn world() -> (World, PageId) {
    let w = World::new(8);
    let v = w.vnode(VnodeKind::File);
    let id = w.make(name(v, 0));
    (w, id)
}

/// Waits until `done`, for a thread that is about to sleep.
fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let (w, id) = world();
    let a = w.db.try_lock_shared(&w.cx, id).expect("free");
    let b = w.db.try_lock_shared(&w.cx, id).expect("readers share");
    assert!(w.db.try_lock_excl(&w.cx, id).is_none());
    assert_eq!(w.db.lock_state(id), SeState { shared: 2, excl: false, wanted: false });
    drop((a, b));
    let x = w.db.try_lock_excl(&w.cx, id).expect("free again");
    assert!(w.db.try_lock_shared(&w.cx, id).is_none());
    assert!(w.db.try_lock_excl(&w.cx, id).is_none());
    let s = x.downgrade();
    assert_eq!(w.db.lock_state(id).shared, 1);
    drop(s);
    assert_eq!(w.db.lock_state(id), SeState::default());
}

#[test]
fn upgrade_needs_to_be_alone() {
    let (w, id) = world();
    let a = w.db.lock_shared(&w.cx, id);
    let b = w.db.try_lock_shared(&w.cx, id).expect("readers share").leak();
    let a = a.try_upgrade().expect_err("two readers");
    assert_eq!(w.db.lock_state(id).shared, 2, "the lock is unchanged");
    drop(w.db.adopt_shared(&w.cx, b));
    let x = a.try_upgrade().expect("the only one");
    assert!(w.db.lock_state(id).excl);
    drop(x);
}

#[test]
fn an_announced_writer_keeps_new_readers_out_and_existing_ones_finish() {
    let (w, id) = world();
    let reader = w.db.lock_shared(&w.cx, id);
    let got = AtomicBool::new(false);
    let cx = w.thread(1);
    thread::scope(|s| {
        s.spawn(|| {
            let cx = cx;
            let x = w.db.lock_excl_wanted(&cx, id);
            got.store(true, SeqCst);
            assert!(!w.db.lock_state(x.id()).wanted, "EWANTED is cleared by the one who set it");
        });
        until(|| w.db.lock_state(id).wanted);
        assert!(w.db.try_lock_shared(&w.cx, id).is_none(), "EWANTED");
        let reader = reader.try_upgrade().expect_err("an exclusive waiter is announced");
        assert!(!got.load(SeqCst));
        drop(reader);
    });
    assert!(got.load(SeqCst));
    assert_eq!(w.db.lock_state(id), SeState::default());
}

/// Whoever holds a page shared and comes again does not wait for the one that waits for it.
#[test]
fn a_writer_that_is_not_announced_lets_readers_in() {
    let (w, id) = world();
    let reader = w.db.lock_shared(&w.cx, id);
    let cx = w.thread(1);
    thread::scope(|s| {
        let writer = s.spawn(|| {
            let cx = cx;
            drop(w.db.lock_excl(&cx, id));
        });
        until(|| w.count(Counter::PageLockWaits) != 0);
        assert!(!w.db.lock_state(id).wanted);
        let again = w.db.try_lock_shared(&w.cx, id).expect("another reader");
        drop(reader);
        assert!(!writer.is_finished(), "a reader is left");
        drop(again);
    });
    assert_eq!(w.db.lock_state(id), SeState::default());
}

/// The one that was announced goes first, whoever else waits.
#[test]
fn a_writer_that_is_not_announced_waits_for_one_that_is() {
    let (w, id) = world();
    let reader = w.db.lock_shared(&w.cx, id);
    let order = AtomicU32::new(0);
    let (first, second) = (w.thread(1), w.thread(2));
    thread::scope(|s| {
        s.spawn(|| {
            let cx = second;
            let _held = w.db.lock_excl(&cx, id);
            assert_eq!(order.fetch_add(1, SeqCst), 1);
        });
        until(|| w.count(Counter::PageLockWaits) != 0);
        s.spawn(|| {
            let cx = first;
            let _held = w.db.lock_excl_wanted(&cx, id);
            assert_eq!(order.fetch_add(1, SeqCst), 0);
        });
        until(|| w.db.lock_state(id).wanted);
        drop(reader);
    });
    assert_eq!(order.load(SeqCst), 2);
}

#[test]
fn downgrade_keeps_the_announcement_and_the_writer_gets_in() {
    let (w, id) = world();
    let x = w.db.lock_excl(&w.cx, id);
    let cx = w.thread(1);
    thread::scope(|s| {
        s.spawn(|| {
            let cx = cx;
            drop(w.db.lock_excl_wanted(&cx, id));
        });
        until(|| w.db.lock_state(id).wanted);
        let shared = x.downgrade();
        until(|| w.db.lock_state(id).wanted);
        assert_eq!(w.db.lock_state(id).shared, 1);
        drop(shared);
    });
    assert_eq!(w.db.lock_state(id), SeState::default());
}

#[test]
#[should_panic(expected = "K1: page 1 is not held shared")]
fn unlock_of_an_unlocked_page_panics() {
    let (w, id) = world();
    drop(w.db.adopt_shared(&w.cx, id));
}

#[test]
#[should_panic(expected = "K1: page 1 is not held exclusively")]
fn exclusive_unlock_of_a_shared_page_panics() {
    let (w, id) = world();
    let shared = w.db.lock_shared(&w.cx, id).leak();
    drop(w.db.adopt_excl(&w.cx, shared));
}

#[test]
#[should_panic(expected = "lock order")]
#[cfg(debug_assertions)]
fn waiting_for_a_second_page_is_out_of_order() {
    let (w, id) = world();
    let other = w.make(name(crate::VnodeId(1), 1));
    let _first = w.db.lock_shared(&w.cx, id);
    let _second = w.db.lock_shared(&w.cx, other);
}

#[test]
fn the_io_lock_is_given_back_by_another_thread() {
    let (w, id) = world();
    let page = w.db.lock_excl(&w.cx, id);
    assert!(w.db.io_trylock(&page));
    assert!(!w.db.io_trylock(&page));
    thread::scope(|s| {
        s.spawn(|| {
            thread::sleep(Duration::from_millis(5));
            w.db.io_unlock(id);
        });
        w.db.io_lock(&w.cx, &page);
    });
    assert!(w.db.is_io_locked(id));
    page.end_io();
    assert!(!w.db.is_io_locked(id));
}

#[test]
#[should_panic(expected = "K4")]
fn io_unlock_of_a_page_not_in_transit_panics() {
    let (w, id) = world();
    w.db.io_unlock(id);
}

/// K1 and K2 together: no two writers, no reader beside a writer, nobody sleeps for ever.
#[test]
fn nobody_is_left_asleep() {
    let (w, id) = world();
    let (readers, writers) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|s| {
        for t in 0..4u32 {
            let cx = w.thread(t);
            let (db, readers, writers) = (&w.db, &readers, &writers);
            s.spawn(move || {
                for i in 0..2000 {
                    match (i + t) % 4 {
                        0 => {
                            let x = db.lock_excl(&cx, id);
                            assert_eq!(writers.fetch_add(1, SeqCst), 0, "K1");
                            assert_eq!(readers.load(SeqCst), 0, "K1");
                            writers.fetch_sub(1, SeqCst);
                            if i % 8 == 0 {
                                drop(x.downgrade());
                            }
                        }
                        1 => {
                            if let Ok(x) = db.lock_shared(&cx, id).try_upgrade() {
                                assert_eq!(writers.fetch_add(1, SeqCst), 0, "K1");
                                writers.fetch_sub(1, SeqCst);
                                drop(x);
                            }
                        }
                        _ => {
                            let p = db.lock_shared(&cx, id);
                            readers.fetch_add(1, SeqCst);
                            assert_eq!(writers.load(SeqCst), 0, "K1");
                            readers.fetch_sub(1, SeqCst);
                            drop(p);
                        }
                    }
                }
            });
        }
    });
    assert_eq!(w.db.lock_state(id), SeState::default());
    w.verify();
}

/// K6. Users pin a page as often as they like.
#[test]
fn no_number_of_holders_frees_a_page_for_a_writer() {
    let (w, id) = world();
    let page = w.db.page(id);
    page.selock.store(1 << 25, SeqCst);
    let last = w.db.lock_shared(&w.cx, id);
    assert!(!last.may_leak(), "pins end here");
    drop(last);
    page.selock.store((1 << 25) - 1, SeqCst);
    assert!(w.db.lock_shared(&w.cx, id).may_leak(), "not before");
    page.selock.store((1 << 26) - 1, SeqCst);
    let held = w.db.try_lock_shared(&w.cx, id).expect("a guard comes in long after");
    assert!(w.db.try_lock_shared(&w.cx, id).is_none());
    assert!(
        w.db.try_lookup_shared(&w.cx, name(page.identity().expect("named").vnode, 0)).is_none()
    );
    assert!(w.db.try_lock_excl(&w.cx, id).is_none());
    let cx = w.thread(1);
    let more = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        drop(w.db.lock_shared(&cx, id));
    }));
    assert!(more.is_err(), "and no wait would end");
    core::mem::forget(cx); // it notes a lock that it did not get
    assert_eq!(w.db.lock_state(id).shared, 1 << 26);
    drop(held);
    page.selock.store(0, SeqCst);
    assert!(w.db.try_lock_excl(&w.cx, id).is_some());
}
