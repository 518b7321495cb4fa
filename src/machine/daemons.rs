//! Waiting for memory, and page-out in threads of its own.
//!
//! # The difficulty
//!
//! No allocation sleeps. Whoever finds no frame backs out of all its locks and asks here. Somebody must then free memory, and writing dirty pages takes
//! long; and it must be known when waiting is in vain, for an answer is better than a hang, and a hasty one is worse than a wait.
//!
//! # Single-stepped
//!
//! The asker runs page-out on its own time, until there is enough or nothing left to take; frames that hold the page tables of idle ranges are
//! the last resort.
//!
//! # With daemons
//!
//! ```text
//!   waiter     needfree ↑ ─▶ wakes the scanner ─▶ sleeps until enough is free, or the daemons give up
//!   scanner    round n: both hands ─▶ victims: clean ones freed, dirty ones queued ─▶ wakes the pushers, scans on
//!                └ nothing more comes of it: waits for pushes under way; steals tables; nothing? the round was fruitless
//!   pushers    a batch of the queue each: put_page(ASYNC|FREE), flush ─▶ each page freed wakes the waiters
//! ```
//!
//! The textbook's two threads, `pageout_scanner` and `pageout`; of the second there are several, so that transfers overlap. When nobody waits the
//! scanner looks four times a second whether less than lotsfree is free, and has as many pages pushed as maxpgio allows.
//!
//! | free memory falls below | |
//! |---|---|
//! | lotsfree | the scanner works, faster the less there is |
//! | throttlefree (= minfree) | whoever allocates waits for the daemons, as long as they find something |
//! | pageout_reserve | also when they find nothing; only pushes go on |
//!
//! # When waiting ends
//!
//! A round that found nothing proves little: pages may be locked for a moment, or used faster than the hands turn. What decides is whether anything could
//! be reclaimed at all (uvm.md 3.4): while swap has room, or enough of memory are pages of files, the waiter stays asleep. But pages may also be
//! locked for good, so patience has an end. Nor does a round that freed something prove that waiting helps: one thread asks for more than can be had at
//! once, another brings its pages back as fast as they go, and so it would be for ever, with everything evicted all the time. And of two that wait, only
//! one may wait in vain.
//!
//! ```text
//!   A asks for 60 of 96 frames      scanner: frees 20, not enough      B faults its 20 in again      scanner: frees 20, not enough  …
//! ```
//!
//! - D1: a waiter gives up only by whole rounds that began after it started to wait, and of which none came to have what *it* waits for: after one that
//!   found nothing while swap is full and hardly a page is a file's; after patience has ended, by rounds in a row that found nothing; or after
//!   [`MOST_SHORT`] that freed something, as many as it makes itself without daemons. They are counted in `waiters`.
//! - D2: waiters never outlive the daemons' word: when they stop, waiters run page-out themselves again. One that panics (a caller's vnode or device did)
//!   stops the others: nobody waits for a thread that is gone.
//! - D3: a pusher counts itself as pushing before it takes from the queue, so when the queue is empty and nobody pushes, nothing is under way.
//! - D4: daemons start only when those before them have ended and been cleared away, so no thread takes the word to others for its own.
//! - D5: what a round freed is what its hands and its pushes freed. Others free pages too, by reading a file through or ending, and take them again.
//!
//! Sources: [SI §10.3]; illumos `common/os/vm_pageout.c` (behaviour); illumos.md 8; uvm.md 3.4, 6.1, 7.2 (C2).

use super::waiters::{MOST_SHORT, Waiters};
use super::{Machine, Parts};
use page_db::pageout::ScanReport;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use page_db::{Cx, MemoryWait, PAGE_SIZE, PageDb, PageError, Rank, VnodeKind};
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// How long the scanner sleeps when nobody wakes it: the textbook's quarter of a second.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long it lets others run after a round that found nothing though something can be reclaimed.
const NAP: Duration = Duration::from_millis(10);
/// Threads that push.
const PUSHERS: u16 = 2;
/// Pages a pusher takes from the queue at a time: two clusters of swapfs.
const BATCH: u64 = 32;

/// Where pushers sleep, and where the scanner sleeps for them.
const PUSH_KEY: u64 = 1 << 60;
const PUSHED_KEY: u64 = PUSH_KEY + 1;

/// No daemon, nor what one left behind.
const OFF: u8 = 0;
/// They run.
const ON: u8 = 1;
/// They have been told to end, and not all have.
const STOPPING: u8 = 2;

/// What waiters, the scanner and the pushers know of each other.
pub(crate) struct Daemon {
    /// [`OFF`], [`ON`] or [`STOPPING`] (D4).
    state: AtomicU8,
    /// Rounds begun.
    round: AtomicU64,
    /// Who waits, and for whom it is in vain (D1).
    pub(super) waiters: Waiters,
    /// Pages that pushers have freed (D5).
    freed: AtomicU64,
    scanner: Mutex<Option<Thread>>,
    /// Queued pages that may be pushed now.
    due: AtomicU64,
    /// Pushers at work (D3).
    pushing: AtomicU32,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(OFF),
            round: AtomicU64::new(0),
            waiters: Waiters::default(),
            freed: AtomicU64::new(0),
            scanner: Mutex::new(Rank::Registry, None),
            due: AtomicU64::new(0),
            pushing: AtomicU32::new(0),
        }
    }
}

impl Daemon {
    fn is_running(&self) -> bool {
        self.state.load(SeqCst) == ON
    }
    fn wake_scanner(&self) {
        if let Some(thread) = &*self.scanner.lock_host() {
            thread.unpark();
        }
    }
    /// Rounds begun so far.
    #[cfg(test)]
    pub(super) fn rounds(&self) -> u64 {
        self.round.load(SeqCst)
    }
    /// Whether they go on, and what they have under way (D3).
    #[cfg(test)]
    pub(super) fn at_work(&self) -> (bool, u32) {
        (self.is_running(), self.pushing.load(SeqCst))
    }
    /// Tells daemons that run to end, and waiters that they do (D2).
    fn stop(&self, db: &PageDb) {
        let _ = self.state.compare_exchange(ON, STOPPING, SeqCst, SeqCst); // or they are stopping already
        self.wake_scanner();
        db.waits().wake_all(PUSH_KEY);
        db.waits().wake_all(PUSHED_KEY);
        db.free_mem().hold_back(false);
        db.wake_memory_waiters();
    }
    /// Lets the pushers push `pages` of the queue.
    fn let_push(&self, db: &PageDb, pages: u64) {
        if pages != 0 {
            self.due.fetch_max(pages, SeqCst);
            db.waits().wake_all(PUSH_KEY);
        }
    }
    /// Takes up to a batch of what is due.
    fn take_due(&self) -> u64 {
        let less = |due: u64| (due != 0).then(|| due.saturating_sub(BATCH));
        self.due.fetch_update(SeqCst, SeqCst, less).map_or(0, |due| due.min(BATCH))
    }
}

/// How one round of reclaiming ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Round {
    /// Enough is free.
    Enough,
    /// Something was freed, and others have taken it, or it was not enough.
    Some,
    /// Nothing more can be freed.
    Nothing,
}

impl Parts {
    /// Reclaims until `pages` pages can be had, by page-out and then by taking page tables of idle ranges. The caller holds no lock.
    fn reclaim_round(
        &self,
        cx: &Cx,
        pages: u64,
        reclaim: &mut dyn FnMut(u64) -> ScanReport,
    ) -> Round {
        let (db, mem) = (&self.db, self.db.free_mem());
        let enough = pages.saturating_add(mem.normal_reserve());
        let report = reclaim(enough.max(mem.thresholds().lotsfree));
        let mut freed = report.freed;
        if db.freemem() < enough {
            freed += self.hat.steal_tables(cx, enough - db.freemem());
            // Pages that the tables mapped have lost a user: they are looked at again.
            db.drain_magazines(cx);
            freed += reclaim(enough).freed;
        }
        match () {
            () if db.freemem() >= enough => Round::Enough,
            () if freed > 0 => Round::Some,
            () => Round::Nothing,
        }
    }
    /// A round in which the waiter does everything.
    fn single_round(&self, cx: &Cx, pages: u64) -> Round {
        self.reclaim_round(cx, pages, &mut |want| self.pageout.reclaim(cx, &self.db, want))
    }
    /// A round of the scanner, with the pushers beside it.
    fn scanner_round(&self, cx: &Cx, pages: u64) -> Round {
        let mut counted = self.daemon.freed.load(SeqCst); // once: what pushes free between two of its turns is the round's too
        self.reclaim_round(cx, pages, &mut |want| {
            self.pageout.reclaim_by(cx, &self.db, want, &mut |report, wait| {
                self.daemon.let_push(&self.db, self.pageout.queued(cx));
                if wait {
                    self.wait_for_pushes(cx, want);
                }
                // The hands have counted theirs (D5).
                let now = self.daemon.freed.load(SeqCst);
                report.freed += now - counted;
                counted = now;
            })
        })
    }
    /// Sleeps until no push is under way or waits, or `want` pages are free.
    fn wait_for_pushes(&self, cx: &Cx, want: u64) {
        let (db, daemon) = (&self.db, &self.daemon);
        while daemon.is_running() && db.freemem() < want {
            let idle = || daemon.due.load(SeqCst) == 0 && daemon.pushing.load(SeqCst) == 0;
            db.waits().wait_while(cx, PUSHED_KEY, || {
                !idle() && daemon.is_running() && db.freemem() < want
            });
            match self.pageout.queued(cx) {
                0 if idle() => return,
                queued => daemon.let_push(db, queued),
            }
        }
    }
    /// Whether waiting can help although a round found nothing: swap has room, or enough of memory are pages of files (uvm.md 3.4).
    pub(super) fn is_reclaimable(&self, cx: &Cx) -> bool {
        if !self.swap.is_full(cx) {
            return true;
        }
        let (mut pageable, mut files) = (0u64, 0u64);
        for id in self.db.pages().ids() {
            let page = self.db.page(id);
            let Some(name) = page.identity().filter(|_| !page.is_free() && !page.is_kept()) else {
                continue;
            };
            pageable += 1;
            let kind = self.db.vnodes().kind(name.vnode);
            files += u64::from(matches!(kind, VnodeKind::File | VnodeKind::Exec));
        }
        files >= (pageable / 16).clamp(1, (5 << 20) / PAGE_SIZE)
    }
}

/// Waiting for memory, with and without daemons.
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
        if daemon.is_running() {
            let waiting = daemon.waiters.begin(pages, daemon.round.load(SeqCst));
            daemon.wake_scanner();
            let give_up = || waiting.is_vain() || !daemon.is_running();
            // It may wake for pages that others have taken by the time it looks.
            while !give_up() {
                if db.sleep_for_memory(cx, pages, give_up) {
                    return Ok(());
                }
            }
            if daemon.is_running() {
                return Err(none()); // D1
            }
        }
        for _ in 0..MOST_SHORT {
            match parts.single_round(cx, pages) {
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
    threads: Vec<JoinHandle<()>>,
}

impl Machine {
    pub(super) fn install_memory_wait(&self) {
        let parts = self.parts();
        let wait = MachineWait { parts: Arc::downgrade(parts) };
        let first = parts.db.set_memory_wait(Arc::new(wait));
        debug_assert!(first, "a machine's page database is its own");
    }
    /// Starts page-out in threads of its own: one that scans, others that push. Runs with daemons are not repeatable. Nothing happens, and
    /// the answer is `None`, when they run already or have not ended yet, or the host has no threads to give.
    #[doc(alias("pageout", "pageout_scanner"))]
    pub fn spawn_daemons(&self) -> Option<Daemons> {
        let daemon = &self.parts().daemon;
        if daemon.state.compare_exchange(OFF, ON, SeqCst, SeqCst).is_err() {
            return None;
        }
        // Should a thread not be had, dropping this stops those that were.
        let mut daemons = Daemons { machine: self.clone(), threads: Vec::new() };
        let scanner = self.clone();
        daemons.spawn("pageout_scanner", move || scan(&scanner))?;
        *daemon.scanner.lock_host() = daemons.threads.first().map(|t| t.thread().clone());
        for _ in 0..PUSHERS {
            let pusher = self.clone();
            daemons.spawn("pageout", move || push(&pusher))?;
        }
        daemon.wake_scanner();
        Some(daemons)
    }
}

/// The scanner's life.
fn scan(machine: &Machine) {
    let (cx, db, parts) = (machine.cx(), machine.db(), machine.parts());
    let (daemon, mem) = (&parts.daemon, db.free_mem());
    let _alive = Alive { db, daemon };
    mem.hold_back(true);
    while daemon.is_running() {
        let wanted = mem.needfree();
        if wanted == 0 {
            if db.freemem() >= mem.thresholds().lotsfree {
                mem.hold_back(true);
            }
            parts.pageout.run_by(cx, db, &mut |_, most| {
                daemon.let_push(db, most.min(parts.pageout.queued(cx)));
            });
            thread::park_timeout(INTERVAL);
            continue;
        }
        let round = daemon.round.fetch_add(1, SeqCst) + 1;
        let came_to = parts.scanner_round(cx, wanted);
        let had = db.most_free().saturating_sub(mem.normal_reserve());
        let freed = came_to != Round::Nothing;
        let any_hope = daemon.waiters.judge(round, had, came_to, freed || parts.is_reclaimable(cx)); // D1
        mem.hold_back(freed);
        db.wake_memory_waiters();
        if freed {
            thread::yield_now(); // to whoever has just been woken
        } else if any_hope {
            thread::park_timeout(NAP);
        }
    }
}

/// A pusher's life.
fn push(machine: &Machine) {
    let (cx, db, parts) = (machine.cx(), machine.db(), machine.parts());
    let daemon = &parts.daemon;
    let _alive = Alive { db, daemon };
    while daemon.is_running() {
        db.waits().wait_while(cx, PUSH_KEY, || daemon.due.load(SeqCst) == 0 && daemon.is_running());
        let _pushing = Pushing::begin(db, daemon); // D3
        let most = daemon.take_due();
        if most != 0 {
            let report = parts.pageout.push_queued(cx, db, most);
            daemon.freed.fetch_add(report.freed, SeqCst);
            if report.pushed < most {
                daemon.due.store(0, SeqCst); // the queue is empty
            }
        }
    }
}

/// A daemon's life. When it ends, by a panic too, so do the others', and waiters hear of it (D2).
struct Alive<'a> {
    db: &'a PageDb,
    daemon: &'a Daemon,
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.daemon.stop(self.db);
    }
}

/// A pusher that counts itself as pushing; who waits for pushes hears that it is done, however that came.
struct Pushing<'a> {
    db: &'a PageDb,
    daemon: &'a Daemon,
}

impl<'a> Pushing<'a> {
    fn begin(db: &'a PageDb, daemon: &'a Daemon) -> Self {
        daemon.pushing.fetch_add(1, SeqCst);
        Self { db, daemon }
    }
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        self.daemon.pushing.fetch_sub(1, SeqCst);
        self.db.waits().wake_all(PUSHED_KEY);
        self.db.wake_memory_waiters();
    }
}

impl Daemons {
    fn spawn(&mut self, name: &str, life: impl FnOnce() + Send + 'static) -> Option<()> {
        let spawned = thread::Builder::new().name(name.into()).spawn(life);
        spawned.map(|handle| self.threads.push(handle)).ok()
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        let (db, daemon) = (self.machine.db(), &self.machine.parts().daemon);
        daemon.stop(db);
        for thread in self.threads.drain(..) {
            // A panic in there has been reported by the thread itself.
            let _ = thread.join();
        }
        *daemon.scanner.lock_host() = None;
        daemon.due.store(0, SeqCst);
        daemon.state.store(OFF, SeqCst); // D4
    }
}
