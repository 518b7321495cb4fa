//! Long operations beside the faults of other threads, while somebody waits for the lock as writer.

use super::hooked::Hooked;
use super::unhappy::{another, range};
use super::*;
use core::time::Duration;
use page_db::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};

const PATIENCE: Duration = Duration::from_secs(10);

/// What one frame that is zeroed tells, and for what answer it waits; `None` where none came.
type Turn = (u64, Sender<()>, Receiver<()>, Sender<bool>);

/// Counts the frames that are zeroed, and stops at some for an answer.
#[derive(Default)]
struct Stops {
    zeroed: AtomicU64,
    turns: std::sync::Mutex<Vec<Turn>>,
}

/// The other end of a turn.
struct Stop {
    reached: Receiver<()>,
    go_on: Sender<()>,
    answered: Receiver<bool>,
}

impl Stops {
    fn before_zero(&self) {
        let n = self.zeroed.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
        let mut turns = self.turns.lock().expect("quiet");
        let turn = turns.iter().position(|turn| turn.0 == n).map(|at| turns.remove(at));
        drop(turns);
        if let Some((_, go, done, answered)) = turn {
            let _ = go.send(());
            let _ = answered.send(done.recv_timeout(PATIENCE).is_ok());
        }
    }
    fn at(&self, nth: u64) -> Stop {
        let ((go, reached), (go_on, done), (says, answered)) = (channel(), channel(), channel());
        self.turns.lock().expect("quiet").push((nth, go, done, says));
        Stop { reached, go_on, answered }
    }
}

/// `long` works on 400 pages; in the middle of it somebody comes to write, and then another thread faults elsewhere.
fn beside(long: impl Fn(&Cx, &AddrSpace, VirtRange) + Sync, lets_writers_in: bool) {
    let stops = Arc::new(Stops::default());
    let zeroing = Arc::clone(&stops);
    let mem = Arc::new(Hooked::new(2048, move || zeroing.before_zero(), || {}));
    let w = world_over(mem, VnTunables::default());
    let p = w.proc();
    w.map(&p, 400);
    let other = SegVnArgs::zfod(&w.driver, Prot::RW);
    p.space.map(&w.cx, range(1000, 1), &other).expect("free");
    let so_far = stops.zeroed.load(core::sync::atomic::Ordering::SeqCst);
    let (early, late) = (stops.at(so_far + 100), stops.at(so_far + 390));
    let (space, long) = (&p.space, &long);
    std::thread::scope(|s| {
        s.spawn(move || long(&another(space.db()), space, range(0, 400)));
        early.reached.recv().expect("it zeroes");
        let written = s.spawn(|| {
            space.unmap(&another(space.db()), range(2000, 1)).expect("nothing is there");
            let _ = late.go_on.send(());
        });
        std::thread::sleep(Duration::from_millis(50)); // it waits by now; if not, that is no failure
        let at = range(1000, 1).start();
        space.fault_at(&w.cx, at, FaultKind::Invalid, Access::Read).expect("mapped");
        let _ = early.go_on.send(());
        assert_eq!(early.answered.recv(), Ok(true), "a fault waits for all of it");
        if lets_writers_in {
            assert_eq!(late.answered.recv(), Ok(true), "who writes waits for all of it");
        } else {
            late.reached.recv().expect("it goes on");
            let _ = late.go_on.send(());
        }
        written.join().expect("no panic");
    });
    w.check(&p);
    p.space.free(&w.cx);
}

/// What a part held is emptied when the lock is free: a page of it that somebody has is waited for, and nobody who maps waits along. Only then is its
/// promise given back.
#[test]
fn a_part_is_emptied_with_the_lock_free() {
    let w = world(128);
    let p = w.proc();
    w.map(&p, 3);
    (0..3).for_each(|page| w.write(&p, page, 7));
    let (space, middle) = (&p.space, range(1, 1));
    let books = || (w.swap.live(), w.swap.info().reserved());
    let (says, mapped) = channel();
    let cx_of = |n| Cx::new(w.db.counters(), CpuId(0), ThreadId(n), Arc::new(SpinHooks));
    let (holder, other) = (cx_of(7), SegVnArgs::zfod(&w.driver, Prot::RW));
    let anon = w.swap.live_numbers().nth(1).expect("three");
    let held = w.db.lookup_shared(&holder, w.swap.identity(anon)).expect("resident");
    let (done, before) = std::thread::scope(|s| {
        s.spawn(|| space.unmap(&cx_of(1), middle).expect("mapped"));
        s.spawn(|| {
            let cx = cx_of(2);
            while space.segs(&cx).range_at(&cx, middle.start()).is_some() {
                std::thread::yield_now();
            }
            space.map(&cx, range(1000, 1), &other).expect("free");
            let _ = says.send(());
        });
        let seen = (mapped.recv_timeout(PATIENCE), books());
        drop(held);
        seen
    });
    assert_eq!((done, before), (Ok(()), (3, 4)), "all is still there, and the lock is free");
    assert_eq!(books(), (2, 3));
    w.check(&p);
    p.space.free(&w.cx);
}

#[test]
fn filling_a_range_lets_others_fault_and_map() {
    beside(|cx, space, range| space.populate(cx, range, Access::Write).expect("mapped"), true);
}

#[test]
fn locking_a_range_lets_others_fault() {
    beside(|cx, space, range| space.lock(cx, range).expect("room"), false);
}
