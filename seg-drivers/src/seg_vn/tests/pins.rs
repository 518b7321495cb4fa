//! Pages in a stranger's hands: who holds an address space as writer waits for none of them.

use super::unhappy::{another, range};
use super::*;
use addr_space::{Inherit, SegError};
use core::time::Duration;
use std::sync::mpsc;

/// What `f` answers on a thread of its own. A test that waits for ever fails here.
fn in_time<R: Send + 'static>(f: impl FnOnce(&Cx) -> R + Send + 'static) -> R {
    let (says, hears) = mpsc::channel();
    std::thread::spawn(move || says.send(f(&another())));
    hears.recv_timeout(Duration::from_secs(20)).expect("it waits for a stranger's pin as writer")
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
    let done = in_time(move |cx| from.space.share_range(cx, range(1, 1), &into.space, to.start()));
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
    let done = in_time(move |cx| from.space.dup(cx, &to.space));
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
