//! Tests of the lock whose readers write only their own line.

use super::*;
use crate::cx::SpinHooks;
use crate::{Counters, CpuId, ThreadId};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use core::time::Duration;
use std::thread;

struct Cpus(Arc<Counters>);
impl Cpus {
    fn new() -> Self {
        Self(Counters::new(4))
    }
    fn cx(&self, cpu: u16) -> Cx {
        Cx::new(&self.0, CpuId(cpu), ThreadId(cpu.into()), Arc::new(SpinHooks))
    }
}
fn lock() -> SlotRwLock<u64> {
    let hooks: Arc<dyn WaitHooks> = Arc::new(SpinHooks);
    SlotRwLock::new(Rank::AsLock, 4, &hooks, 0).expect("heap")
}
fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        thread::sleep(Duration::from_millis(1));
    }
}
/// What all slots show.
fn state(l: &SlotRwLock<u64>) -> u32 {
    l.slots().slots.iter().map(|s| s.state()).reduce(|a, b| a & b).unwrap_or(0)
}
fn asleep(l: &SlotRwLock<u64>) -> u32 {
    l.slots().slots.iter().map(|s| s.asleep.load(SeqCst)).sum()
}

#[test]
fn readers_share_and_re_enter() {
    let (cpus, l) = (Cpus::new(), lock());
    let (a, b) = (cpus.cx(0), cpus.cx(1));
    let (x, y, z) = (l.read(&a), l.read(&a), l.read(&b));
    assert_eq!(l.slots().readers(), 3);
    drop((x, y, z));
    assert_eq!(l.slots().readers(), 0);
    *l.write(&a) += 1;
    assert_eq!(*l.read(&b), 1);
}

#[test]
fn writers_exclude_readers_and_each_other() {
    let (cpus, l) = (Cpus::new(), lock());
    let inside = AtomicU32::new(0);
    thread::scope(|s| {
        for t in 0..4u16 {
            let (cx, l, inside) = (cpus.cx(t), &l, &inside);
            s.spawn(move || {
                for i in 0..3000u64 {
                    if i % 8 == u64::from(t) {
                        let mut g = l.write(&cx);
                        assert_eq!(inside.fetch_add(1 << 16, SeqCst), 0, "S1");
                        *g += 1;
                        inside.fetch_sub(1 << 16, SeqCst);
                    } else {
                        let g = l.read(&cx);
                        assert_eq!(inside.fetch_add(1, SeqCst) >> 16, 0, "S1");
                        core::hint::black_box(*g);
                        inside.fetch_sub(1, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(*l.read(&cpus.cx(0)), 4 * 375);
    assert_eq!((l.slots().readers(), asleep(&l), state(&l)), (0, 0, 0));
}

#[test]
fn a_steady_stream_of_readers_does_not_starve_a_writer() {
    let (cpus, l) = (Cpus::new(), lock());
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        for t in 0..2u16 {
            let (cx, l, stop) = (cpus.cx(t), &l, &stop);
            s.spawn(move || {
                while !stop.load(SeqCst) {
                    // Overlapping holds: without the gate the count would hardly ever be 0.
                    let g = l.read(&cx);
                    for _ in 0..200 {
                        core::hint::spin_loop();
                    }
                    drop(g);
                }
            });
        }
        let cx = cpus.cx(3);
        for _ in 0..200 {
            *l.write(&cx) += 1;
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(*l.read(&cpus.cx(0)), 200);
}

#[test]
fn the_gate_is_shut_to_newcomers_and_open_to_those_inside() {
    let (cpus, l) = (Cpus::new(), lock());
    let (a, w, n) = (cpus.cx(0), cpus.cx(1), cpus.cx(2));
    let entered = AtomicBool::new(false);
    let outer = l.read(&a);
    thread::scope(|s| {
        s.spawn(|| {
            let w = w;
            *l.write(&w) = 7;
        });
        until(|| state(&l) == WAITING);
        s.spawn(|| {
            let n = n;
            let g = l.read(&n);
            entered.store(true, SeqCst);
            assert_eq!(*g, 7, "after the writer");
        });
        thread::sleep(Duration::from_millis(10));
        assert!(!entered.load(SeqCst), "a newcomer waits for the writer");
        drop(l.read(&a)); // re-entry does not
        drop(outer);
    });
    assert!(entered.load(SeqCst));
}

#[test]
fn a_sleeping_reader_opens_the_gate_to_newcomers() {
    let (cpus, l) = (Cpus::new(), lock());
    let (a, w, n) = (cpus.cx(0), cpus.cx(1), cpus.cx(2));
    let woken = AtomicBool::new(false);
    let held = l.read(&a);
    thread::scope(|s| {
        s.spawn(|| {
            let w = w;
            *l.write(&w) = 1;
        });
        until(|| state(&l) == WAITING);
        // Whoever will wake the sleeper has to read first: with the gate shut this would hang.
        let waker = s.spawn(|| {
            let n = n;
            let g = l.read(&n);
            assert_eq!(*g, 0, "before the writer");
            woken.store(true, SeqCst);
        });
        a.blocking(|| until(|| woken.load(SeqCst)));
        waker.join().expect("no panic");
        assert_eq!(asleep(&l), 0);
        drop(held);
    });
    assert_eq!(*l.read(&cpus.cx(0)), 1);
}

#[test]
fn a_guard_remembers_its_slot_across_a_migration() {
    let (cpus, l) = (Cpus::new(), lock());
    let cx = cpus.cx(0);
    let g = l.read(&cx);
    cx.migrate(CpuId(3));
    let h = l.read(&cx);
    assert_eq!(l.slots().slots[0].word.load(SeqCst), 1);
    assert_eq!(l.slots().slots[3].word.load(SeqCst), 1);
    cx.blocking(|| assert_eq!(asleep(&l), 2));
    drop((g, h));
    assert_eq!(l.slots().readers(), 0);
    *l.write(&cx) = 1;
}

#[test]
fn a_guard_dropped_while_its_thread_sleeps_leaves_no_sleeper() {
    let (cpus, l) = (Cpus::new(), lock());
    let cx = cpus.cx(0);
    let g = l.read(&cx);
    let keep = l.read(&cx);
    cx.blocking(|| {
        drop(g);
        assert_eq!(asleep(&l), 1);
        let inner = l.read(&cx);
        cx.blocking(|| assert_eq!(asleep(&l), 3, "waits nest; one guard is new"));
        drop(inner);
        assert_eq!(asleep(&l), 1);
    });
    assert_eq!((asleep(&l), l.slots().readers()), (0, 1));
    drop(keep);
}

#[test]
fn a_leaked_guard_leaks_the_slots_and_nothing_dangles() {
    let cpus = Cpus::new();
    let cx = cpus.cx(0);
    {
        let l = lock();
        core::mem::forget(l.read(&cx));
    }
    cx.blocking(|| {}); // walks the mark of the lock that is gone (S4)
    assert_eq!(cx.held().len(), usize::from(cfg!(debug_assertions)));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "lock order")]
fn writing_while_reading_is_out_of_order() {
    let (cpus, l) = (Cpus::new(), lock());
    let cx = cpus.cx(0);
    let _g = l.read(&cx);
    let _ = l.write(&cx);
}

/// S6. What is counted in eight slots comes to 0 in 32 bits.
#[test]
fn forgotten_readers_never_let_a_writer_in() {
    let counters = Counters::new(8);
    let hooks: Arc<dyn crate::WaitHooks> = Arc::new(SpinHooks);
    let l: SlotRwLock<u64> = SlotRwLock::new(Rank::AsLock, 8, &hooks, 0).expect("heap");
    for slot in l.slots().slots.iter() {
        slot.word.store(FULL - 1, SeqCst);
    }
    let cxs: Vec<Cx> = (0..8)
        .map(|n| Cx::new(&counters, CpuId(n), ThreadId(n.into()), Arc::new(SpinHooks)))
        .collect();
    cxs.iter().for_each(|cx| core::mem::forget(l.read(cx)));
    assert_eq!(l.slots().readers(), 8 * u64::from(FULL));
    let again = Cx::new(&counters, CpuId(3), ThreadId(9), Arc::new(SpinHooks));
    let tried = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| drop(l.read(&again))));
    assert!(tried.is_err(), "one more than threads can be");
    assert_eq!(l.slots().readers(), 8 * u64::from(FULL), "it has stepped out");
    assert!(!l.slots().try_alone::<Cx>(), "S1");
    assert_eq!(state(&l), 0, "the gate is open again");
    cxs.into_iter().for_each(core::mem::forget); // they carry the marks of what was forgotten
    l.slots().slots.iter().for_each(|slot| slot.word.store(0, SeqCst));
}
