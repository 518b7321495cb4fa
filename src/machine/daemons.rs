//! Waiting for memory, and page-out in a thread of its own.
//!
//! No allocation sleeps. Whoever finds no frame backs out of all its locks and asks here. A machine is single-stepped: the asker runs page-out on
//! its own time, until there is enough or nothing left to take; frames that hold the page tables of idle ranges are the last resort. With
//! daemons the asker sleeps instead, and a thread does what the textbook's pageout daemon does: it works while somebody waits or less than lotsfree is free.
//!
//! ```text
//!   waiter    needfree ↑ ─▶ wakes the daemon ─▶ sleeps until enough is free, or a round begun since then was fruitless
//!   daemon    round n ─▶ reclaim, steal tables ─▶ nothing? fruitless = n ─▶ wakes the waiters
//! ```
//!
//! - D1: a waiter gives up only after a whole round that began after it started to wait, and found nothing.
//! - D2: waiters never outlive the daemon's word: when it stops, they run page-out themselves again.

use super::{Machine, Parts};
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use page_db::{Cx, MemoryWait, PageDb, PageError, Rank};
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// How long the daemon sleeps when nobody wakes it: the textbook's quarter of a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// Rounds in a row after which a waiter without daemon gives up although each of them freed something: others take it as fast.
const MOST_ROUNDS: u32 = 64;

/// What waiters and the daemon know of each other.
pub(crate) struct Daemon {
    running: AtomicBool,
    /// Rounds begun.
    round: AtomicU64,
    /// The last round that found nothing.
    fruitless: AtomicU64,
    thread: Mutex<Option<Thread>>,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            running: AtomicBool::new(false),
            round: AtomicU64::new(0),
            fruitless: AtomicU64::new(0),
            thread: Mutex::new(Rank::Registry, None),
        }
    }
}

impl Daemon {
    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock_leaf() {
            thread.unpark();
        }
    }
}

/// How one round of reclaiming ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    /// Enough is free.
    Enough,
    /// Something was freed, and others have taken it, or it was not enough.
    Some,
    /// Nothing more can be freed.
    Nothing,
}

impl Parts {
    /// Reclaims until `pages` pages can be had, by page-out and then by taking page tables of idle ranges. The caller holds no lock.
    fn reclaim_round(&self, cx: &Cx, pages: u64) -> Round {
        let (db, t) = (&self.db, self.db.free_mem().thresholds());
        let enough = pages.saturating_add(t.pageout_reserve);
        let report = self.pageout.reclaim(cx, db, enough.max(t.lotsfree));
        let mut freed = report.freed;
        if db.freemem() < enough {
            freed += self.hat.steal_tables(cx, enough - db.freemem());
            // Pages that the tables mapped have lost a user: they are looked at again.
            db.drain_magazines(cx);
            freed += self.pageout.reclaim(cx, db, enough).freed;
        }
        match () {
            () if db.freemem() >= enough => Round::Enough,
            () if freed > 0 => Round::Some,
            () => Round::Nothing,
        }
    }
}

/// Waiting for memory, with and without the daemon.
pub(super) struct MachineWait {
    parts: Weak<Parts>,
}

impl fmt::Debug for MachineWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MachineWait").finish_non_exhaustive()
    }
}

impl MemoryWait for MachineWait {
    fn wait_for_memory(&self, cx: &Cx, db: &PageDb, pages: u64) -> Result<(), PageError> {
        let none = || PageError::NoMemory { wanted: pages, freemem: db.freemem() };
        let parts = self.parts.upgrade().ok_or_else(none)?;
        let daemon = &parts.daemon;
        if daemon.running.load(SeqCst) {
            let begun = daemon.round.load(SeqCst);
            daemon.wake();
            let give_up = || daemon.fruitless.load(SeqCst) > begun || !daemon.running.load(SeqCst);
            // It may wake for pages that others have taken by the time it looks.
            while !give_up() {
                if db.sleep_for_memory(cx, pages, give_up) {
                    return Ok(());
                }
            }
            if daemon.running.load(SeqCst) {
                return Err(none()); // D1
            }
        }
        for _ in 0..MOST_ROUNDS {
            match parts.reclaim_round(cx, pages) {
                Round::Enough => return Ok(()),
                Round::Some => thread::yield_now(),
                Round::Nothing => return Err(none()),
            }
        }
        Err(none())
    }
}

/// The daemons of a machine; they stop when this is dropped.
#[must_use = "the daemons stop when this is dropped"]
#[derive(Debug)]
pub struct Daemons {
    machine: Machine,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    pub(super) fn install_memory_wait(&self) {
        let parts = self.parts();
        let wait = MachineWait { parts: Arc::downgrade(parts) };
        let first = parts.db.set_memory_wait(Arc::new(wait));
        debug_assert!(first, "a machine's page database is its own");
    }
    /// Starts page-out in a thread of its own. Runs with daemons are not repeatable. Nothing happens, and the answer is `None`, when they
    /// run already or the host has no thread to give.
    #[doc(alias("pageout", "pageout_scanner"))]
    pub fn spawn_daemons(&self) -> Option<Daemons> {
        let daemon = &self.parts().daemon;
        if daemon.running.swap(true, SeqCst) {
            return None;
        }
        let machine = self.clone();
        let spawned = thread::Builder::new().name("pageout".into()).spawn(move || work(&machine));
        match spawned {
            Ok(handle) => {
                *daemon.thread.lock_leaf() = Some(handle.thread().clone());
                daemon.wake();
                Some(Daemons { machine: self.clone(), thread: Some(handle) })
            }
            Err(_) => {
                daemon.running.store(false, SeqCst);
                None
            }
        }
    }
}

/// The daemon's life.
fn work(machine: &Machine) {
    let (cx, db, parts) = (machine.cx(), machine.db(), machine.parts());
    let daemon = &parts.daemon;
    while daemon.running.load(SeqCst) {
        let wanted = db.free_mem().needfree();
        if wanted == 0 {
            if db.freemem() < db.free_mem().thresholds().lotsfree {
                parts.pageout.run(cx, db);
            }
            thread::park_timeout(INTERVAL);
            continue;
        }
        let round = daemon.round.fetch_add(1, SeqCst) + 1;
        if parts.reclaim_round(cx, wanted) == Round::Nothing {
            daemon.fruitless.store(round, SeqCst);
        }
        db.wake_memory_waiters();
        thread::yield_now(); // to whoever has just been woken
    }
    db.wake_memory_waiters(); // D2
}

impl Drop for Daemons {
    fn drop(&mut self) {
        let daemon = &self.machine.parts().daemon;
        daemon.running.store(false, SeqCst);
        daemon.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by the thread itself.
            let _ = thread.join();
        }
        *daemon.thread.lock_leaf() = None;
        self.machine.db().wake_memory_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use page_db::{CpuId, PAGE_SIZE};

    #[test]
    fn threads_that_use_more_than_there_is_are_served_by_the_daemon() {
        let m = Machine::builder().frames(192).cpus(2).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let at = p.map_anon(600 * PAGE_SIZE).expect("mapped");
        let daemons = m.spawn_daemons().expect("a thread");
        assert!(m.spawn_daemons().is_none(), "once");
        thread::scope(|s| {
            for t in 0..2u64 {
                let worker = p.another_thread(CpuId(t as u16));
                s.spawn(move || {
                    for round in 0..3u64 {
                        for i in (t..600).step_by(2) {
                            let va = at + i * PAGE_SIZE;
                            let mut b = [0; 8];
                            worker.load(va, &mut b).expect("there");
                            let before = if round == 0 { 0 } else { i * 10 + round - 1 };
                            assert_eq!(u64::from_le_bytes(b), before, "page {i}, round {round}");
                            worker.store(va, &(i * 10 + round).to_le_bytes()).expect("stored");
                        }
                    }
                });
            }
        });
        drop(daemons);
        m.verify().expect("sound");
        p.exit();
        m.verify().expect("sound");
        assert_eq!(m.swap().live(), 0);
    }

    #[test]
    fn when_nothing_can_be_reclaimed_waiters_are_told() {
        let m = Machine::builder().frames(64).no_swap().build().expect("a machine");
        let daemons = m.spawn_daemons().expect("a thread");
        let taken = m.squeeze(1000);
        assert!(taken < 64);
        let p = m.spawn("p");
        assert!(p.is_err() || p.is_ok_and(|p| p.map_anon(PAGE_SIZE).is_err()), "no swap, no frame");
        drop(daemons);
        assert_eq!(m.release(), taken);
        m.verify().expect("sound");
    }
}
