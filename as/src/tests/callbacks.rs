//! Callbacks: when they run, how they go, and who waits for whom.

use crate::callback::{AsCallback, CallbackError, Deleted, Events};
use crate::testing::*;
use crate::{AddrSpace, AsError, FaultKind};
use alloc::sync::Arc;
use page_db::{Access, Cx, VirtRange};
use std::sync::Mutex;

/// Gives its pins up when it is told, and deletes itself.
#[derive(Debug)]
struct Pinner {
    token: u64,
    pins: Option<VirtRange>,
    heard: Arc<Mutex<Vec<(u64, Events, Deleted)>>>,
}

impl AsCallback for Pinner {
    fn call(&self, cx: &Cx, space: &AddrSpace, event: Events) {
        assert!(cx.held().is_empty(), "Q2");
        if let Some(pins) = self.pins {
            space.fault(cx, pins, FaultKind::SoftUnlock, Access::Read).expect("it holds them");
        }
        let deleted = space.delete_callback(cx, self.token);
        self.heard.lock().expect("quiet").push((self.token, event, deleted));
    }
}

struct Heard(Arc<Mutex<Vec<(u64, Events, Deleted)>>>);

impl Heard {
    fn new() -> Self {
        Self(Arc::default())
    }
    fn add(&self, w: &World, token: u64, events: Events, range: Option<VirtRange>) {
        self.add_pinner(w, token, events, range, None);
    }
    fn add_pinner(
        &self,
        w: &World,
        token: u64,
        events: Events,
        range: Option<VirtRange>,
        pins: Option<VirtRange>,
    ) {
        let callback = Arc::new(Pinner { token, pins, heard: Arc::clone(&self.0) });
        w.space.add_callback(&w.cx, callback, token, events, range).expect("a user space");
    }
    fn take(&self) -> Vec<(u64, Events, Deleted)> {
        core::mem::take(&mut *self.0.lock().expect("quiet"))
    }
}

/// Chooses an address before it gives its pins up.
#[derive(Debug)]
struct Chooser {
    pins: VirtRange,
    answer: Arc<Mutex<Option<Result<(), AsError>>>>,
}

impl AsCallback for Chooser {
    fn call(&self, cx: &Cx, space: &AddrSpace, _: Events) {
        let claimed = space.claim_range(cx).map(drop);
        *self.answer.lock().expect("quiet") = Some(claimed);
        space.fault(cx, self.pins, FaultKind::SoftUnlock, Access::Read).expect("it holds them");
        space.delete_callback(cx, 1);
    }
}

/// Q2: who is called by a thread that has the claim is answered, and does not wait for his own thread.
#[test]
fn a_callback_that_chooses_an_address_under_the_claim_is_refused() {
    let w = World::new();
    let page = range(0x11000, P);
    for claims in [true, false] {
        w.map(0x10000, 2 * P);
        w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
        let answer = Arc::default();
        let callback = Chooser { pins: page, answer: Arc::clone(&answer) };
        w.space.add_callback(&w.cx, Arc::new(callback), 1, Events::UNMAP, None).expect("a user's");
        let done = if claims {
            let claim = w.space.claim_range(&w.cx).expect("not held");
            claim.map_fixed(range(0x10000, 2 * P), &w.toy())
        } else {
            w.space.unmap(&w.cx, range(0x10000, 2 * P))
        };
        assert_eq!(done, Ok(()));
        let expected = if claims { Err(AsError::Claimed) } else { Ok(()) };
        assert_eq!(*answer.lock().expect("quiet"), Some(expected));
        assert!(w.space.claim_range(&w.cx).is_ok(), "given up");
        if claims {
            w.space.unmap(&w.cx, range(0x10000, 2 * P)).expect("no pins");
        }
    }
    w.check();
}

#[test]
fn unmap_of_pinned_pages_runs_the_callback_and_then_completes() {
    let w = World::new();
    w.map(0x10000, 2 * P);
    let page = range(0x11000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    let heard = Heard::new();
    heard.add(&w, 1, Events::SETPROT | Events::FREE, Some(page));
    heard.add(&w, 2, Events::UNMAP, Some(range(0x20000, P)));
    heard.add_pinner(&w, 3, Events::UNMAP, Some(page), Some(page));
    w.space.unmap(&w.cx, range(0x10000, 2 * P)).expect("the callback lets go");
    assert_eq!(heard.take(), [(3, Events::UNMAP, Deleted::Deferred)], "the others do not match");
    assert_eq!(w.shape(), []);
    w.check();
}

#[test]
fn a_change_of_rights_runs_its_own_callbacks() {
    let w = World::new();
    w.map(0x10000, P);
    let page = range(0x10000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    let heard = Heard::new();
    heard.add(&w, 1, Events::UNMAP, None);
    heard.add_pinner(&w, 2, Events::SETPROT, None, Some(page));
    w.space.set_prot(&w.cx, page, page_db::Prot::READ).expect("the callback lets go");
    assert_eq!(heard.take(), [(2, Events::SETPROT, Deleted::Deferred)]);
    w.check();
}

#[test]
fn the_end_runs_every_callback_newest_first_whatever_it_is_for() {
    let w = World::new();
    w.map(0x10000, P);
    let heard = Heard::new();
    heard.add(&w, 1, Events::FREE, Some(range(0x70000, P)));
    heard.add(&w, 2, Events::UNMAP, None);
    heard.add(&w, 3, Events::all(), None);
    heard.add(&w, 4, Events::SETPROT, Some(range(0x10000, P)));
    w.space.free(&w.cx);
    let order: Vec<_> = heard.take().into_iter().map(|(token, ..)| token).collect();
    assert_eq!(order, [4, 3, 2, 1]);
    for token in 1..=4 {
        assert_eq!(w.space.delete_callback(&w.cx, token), Deleted::NotFound);
    }
}

#[test]
fn ranges_match_that_meet() {
    let w = World::new();
    w.map(0x10000, P);
    let page = range(0x10000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    let heard = Heard::new();
    heard.add(&w, 1, Events::UNMAP, Some(range(0x12000, P)));
    heard.add_pinner(&w, 2, Events::UNMAP, Some(page), Some(page));
    heard.add(&w, 3, Events::UNMAP, Some(range(0xf000, P)));
    heard.add(&w, 4, Events::UNMAP, Some(range(0x11000, P)));
    w.space.unmap(&w.cx, page).expect("the callback lets go");
    let order: Vec<_> = heard.take().into_iter().map(|(token, ..)| token).collect();
    assert_eq!(order, [4, 3, 2], "those that end where it begins, and begin where it ends");
}

#[test]
fn deleting_says_what_became_of_it() {
    let w = World::new();
    let heard = Heard::new();
    heard.add(&w, 1, Events::FREE, None);
    assert_eq!(w.space.delete_callback(&w.cx, 9), Deleted::NotFound);
    assert_eq!(w.space.delete_callback(&w.cx, 1), Deleted::Deleted);
    assert_eq!(w.space.delete_callback(&w.cx, 1), Deleted::NotFound);
    w.space.free(&w.cx);
    assert_eq!(heard.take(), []);
}

#[test]
fn a_callback_added_while_somebody_waits_is_run() {
    let w = World::new();
    w.map(0x10000, P);
    let page = range(0x10000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    let heard = Heard::new();
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let unmapper = s.spawn(move || space.unmap(&cx_on(counters, 1), page));
        while w.plan.take("unmap").is_empty() {
            std::thread::yield_now();
        }
        heard.add_pinner(&w, 1, Events::UNMAP, None, Some(page));
        unmapper.join().expect("no panic").expect("the callback lets go");
    });
    assert_eq!(heard.take().len(), 1);
    assert_eq!(w.shape(), []);
}

#[test]
fn nonsense_and_the_kernel_are_refused() {
    let w = World::with_limits(range(0xffff_8000_0000_0000, 16 * P));
    let callback = || Arc::new(Pinner { token: 0, pins: None, heard: Arc::default() });
    let add = |events| w.space.add_callback(&w.cx, callback(), 0, events, None);
    assert_eq!(add(Events::FREE), Err(CallbackError::Kernel));
    assert_eq!(add(Events::empty()), Err(CallbackError::NoEvents));
}

/// Q4: nobody is left to wait for a call that is never made.
#[test]
fn who_comes_after_the_end_is_told_so() {
    let w = World::new();
    w.map(0x10000, P);
    let heard = Heard::new();
    heard.add(&w, 1, Events::UNMAP, None);
    w.space.free(&w.cx);
    assert_eq!(heard.take(), [(1, Events::UNMAP, Deleted::Deferred)]);
    let late = Pinner { token: 2, pins: None, heard: Arc::clone(&heard.0) };
    let added = w.space.add_callback(&w.cx, Arc::new(late), 2, Events::FREE, None);
    assert_eq!(added, Err(CallbackError::Freed));
    assert_eq!(w.space.delete_callback(&w.cx, 2), Deleted::NotFound);
}

#[test]
fn the_end_hears_of_whoever_would_let_go_whatever_he_waits_for() {
    for events in [Events::FREE, Events::SETPROT, Events::UNMAP] {
        let w = World::new();
        w.map(0x10000, P);
        let page = range(0x10000, P);
        w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
        let heard = Heard::new();
        std::thread::scope(|s| {
            let (space, counters) = (&w.space, &w.counters);
            let end = s.spawn(move || space.free(&cx_on(counters, 1)));
            while w.plan.take("unmap").is_empty() {
                std::thread::yield_now();
            }
            heard.add_pinner(&w, 1, events, None, Some(page));
            let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !end.is_finished() {
                if std::time::Instant::now() > patience {
                    let unpin = w.space.fault(&w.cx, page, FaultKind::SoftUnlock, Access::Read);
                    panic!("nobody asks {events:?}, {unpin:?}");
                }
                std::thread::yield_now();
            }
        });
        assert_eq!(heard.take(), [(1, events, Deleted::Deferred)]);
    }
}
