//! Page-out: the two-handed clock.
//!
//! # The difficulty
//!
//! When memory runs short, pages must go that will not be missed. Nobody records each use of a page; the hardware sets one bit. So
//! time is made from distance: a first hand clears the bits, a second, some way behind, looks whether they came back.
//!
//! ```text
//!              front hand: gathers the bits of all translations and clears them
//!                 │
//!      ┌──────────▼───────────────────────────────┐
//!      │ ·  ·  ·  F  ·  ·  ·  ·  ·  B  ·  ·  ·  · │     frames in order, a circle
//!      └───────────────────────────▲──────────────┘
//!                  handspreadpages │
//!                                  back hand: looks; a page not used since F passed is a victim
//! ```
//!
//! A page must be referenced again within handspread / scan rate, or it goes. The rate rises in a straight line from slowscan at
//! freemem = lotsfree to fastscan at 0 ([`Pageout::desscan`]).
//!
//! # What becomes of a victim
//!
//! ```text
//!   clean    unloaded, bits read again, freed to the tail of the cache list: it keeps its name, a later use costs no i/o
//!   dirty    queued, still mapped; after the scan its vnode is asked to push it (put_page ASYNC | FREE), then to flush
//! ```
//!
//! # Rules
//!
//! - O1: page-out never waits for a page lock or for memory; what it cannot have at once it skips.
//! - O2: one mutex guards hands and queue; it is not held while a vnode pushes, nor by the scan for longer than a batch of turns, for pushers come for it.
//! - O3: a page is freed only if it was found unused *after* its last translation was removed.
//! - O4: a dirty page is never freed by the scan itself: the push does it, or leaves it dirty and resident.
//! - O5: the queue is bounded; a page that finds no place in it stays for the next round.
//!
//! # The other road
//!
//! Two queues, active and inactive, cost a list operation for each fault; the clock costs nothing until memory is short.
//!
//! Sources: [SI §10.3]; illumos `common/os/vm_pageout.c` (behaviour); illumos.md 8.

mod check;
mod config;
mod push;
mod report;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod wait;

pub use check::{Checked, Hand};
pub use config::PageoutConfig;
pub use report::{PageoutState, ScanReport};
pub use wait::{NoHook, ReclaimHook, SinglestepWait};

use crate::counters::Counter;
use crate::cx::Cx;
use crate::db::{DbMark, PageDb};
use crate::lock::Rank;
use crate::page::PageId;
use crate::sync::Mutex;
use push::Queue;

/// Mappings a page may have and still be looked at, at first and after a quiet spell.
const MIN_SHARE: u32 = 8;
/// The most `po_share` grows to.
const MAX_SHARE: u32 = 8 << 24;
/// Revolutions after which one [`Pageout::reclaim`] gives up even though pages still go: others take them as fast.
const MOST_REVOLUTIONS: u64 = 64;

/// Revolutions without a page that went after which [`Pageout::step`] stops. The first takes the reference bits, the second finds what was not used since; what
/// is still there then is in use, held, or waits for its push. One more, for whoever meanwhile let go.
const FRUITLESS_REVOLUTIONS: u64 = 3;

/// Turns of a scan between two times that whoever pushes gets at the queue; where memory is waited for, a share of the fast rate.
const SCAN_BATCH: u32 = 128;

/// Where the scan is; guarded by the one mutex (O2).
#[derive(Debug)]
struct Hands {
    /// Index of the frame the front hand looks at next.
    front: u64,
    /// The same of the back hand.
    back: u64,
    /// Pages with more mappings than this are left alone.
    po_share: u32,
    queue: Queue,
}

impl Hands {
    /// Makes more widely shared pages eligible; `false` at the limit.
    fn widen_share(&mut self) -> bool {
        let can = self.po_share < MAX_SHARE;
        if can {
            self.po_share *= 2;
        }
        can
    }
}

/// What one turn of both hands did.
struct Turn {
    /// A page went, or will with its push.
    success: bool,
    wrapped: bool,
}

/// The page-out of one machine; see the module's theory. Given another machine's database it does nothing, and reports that.
#[doc(alias("pageout", "pageout_scanner"))]
#[derive(Debug)]
pub struct Pageout {
    /// Whose frames they are.
    of: DbMark,
    /// Frames in the circle (`looppages`).
    total: u64,
    config: config::Settled,
    hands: Mutex<Hands>,
}

impl Pageout {
    /// Page-out over all frames of `db`. Settings that make no sense for that many frames are ignored or brought within
    /// bounds, as [`PageoutConfig`] says of each.
    pub fn new(db: &PageDb, config: PageoutConfig) -> Self {
        let total = db.pages().len();
        let config = config.settle(db.free_mem().total()); // rates are shares of memory; the circle has holes
        let hands = Hands {
            front: config.handspreadpages % total,
            back: 0,
            po_share: MIN_SHARE,
            queue: Queue::new(config.queue),
        };
        let hands = Mutex::new(Rank::Pageout, hands);
        Self { of: db.mark().clone(), total, config, hands }
    }
    /// Whether there is nothing to do in `db`.
    fn is_foreign(&self, db: &PageDb) -> bool {
        self.of != *db.mark()
    }

    /// Moves both hands by `turns` frames, whatever memory there is, and pushes what was queued. A few revolutions after each other in which no page went
    /// are the last: the rest would change nothing.
    pub fn step(&self, cx: &Cx, db: &PageDb, turns: u64) -> ScanReport {
        let mut report = ScanReport::default();
        if self.is_foreign(db) {
            return report;
        }
        let (mut left, mut fruitless) = (turns, 0);
        while left > 0 && fruitless < FRUITLESS_REVOLUTIONS * self.total {
            let mut hands = self.hands.lock(cx);
            let batch = left.min(u64::from(SCAN_BATCH));
            left -= batch;
            for _ in 0..batch {
                let turn = self.turn(cx, db, &mut hands, &mut report);
                fruitless = if turn.success { 0 } else { fruitless + 1 };
                if fruitless >= FRUITLESS_REVOLUTIONS * self.total {
                    break;
                }
            }
        }
        self.push(cx, db, u64::MAX, &mut report);
        report
    }

    /// What a scheduling interval (a quarter of a second) of a running system does: if less than lotsfree and what waiters need is free, scans
    /// until enough is, [`Pageout::desscan`] eligible frames were seen, or both hands went round twice; then pushes at most
    /// `maxpgio / 4` of the pages queued. With enough memory only old pushes are made, and `po_share` falls back by half.
    #[doc(alias = "schedpaging")]
    pub fn run(&self, cx: &Cx, db: &PageDb) -> ScanReport {
        self.run_by(cx, db, &mut |report, most| self.push(cx, db, most, report))
    }
    /// As [`Pageout::run`], with `push` to have as many of the queued pages pushed as it is told: where other threads push.
    pub fn run_by(
        &self,
        cx: &Cx,
        db: &PageDb,
        push: &mut dyn FnMut(&mut ScanReport, u64),
    ) -> ScanReport {
        if self.is_foreign(db) {
            return ScanReport::default();
        }
        let mut report = ScanReport { desscan: self.desscan(db), ..ScanReport::default() };
        if db.freemem() < self.wanted(db) {
            cx.count(Counter::PgRRun);
            db.drain_magazines(cx);
            self.scan(cx, db, &mut report);
        } else {
            let mut hands = self.hands.lock(cx);
            hands.po_share = (hands.po_share / 2).max(MIN_SHARE);
        }
        push(&mut report, (self.config.maxpgio / 4).max(1));
        db.wake_memory_waiters();
        report
    }
    /// The scan of one interval.
    fn scan(&self, cx: &Cx, db: &PageDb, report: &mut ScanReport) {
        let mut fruitless_wraps = 0;
        while self.scan_batch(cx, db, report, &mut fruitless_wraps) {}
    }
    /// At most [`SCAN_BATCH`] turns of it; says whether it goes on. Between two batches whoever pushes gets at the queue.
    fn scan_batch(
        &self,
        cx: &Cx,
        db: &PageDb,
        report: &mut ScanReport,
        fruitless_wraps: &mut u32,
    ) -> bool {
        let mut hands = self.hands.lock(cx);
        // The processor's budget, counted in turns so that runs are repeatable.
        let budget = 2 * self.total;
        for _ in 0..SCAN_BATCH {
            if report.scanned >= report.desscan
                || report.turns >= budget
                || db.freemem() >= self.wanted(db)
            {
                return false;
            }
            let turn = self.turn(cx, db, &mut hands, report);
            if turn.success {
                *fruitless_wraps = 0;
            }
            if turn.wrapped {
                *fruitless_wraps += 1;
                if *fruitless_wraps > 1 && !hands.widen_share() {
                    return false;
                }
            }
        }
        true
    }

    /// Scans and pushes until `want_free` pages are free, or two whole revolutions in a row free nothing however widely pages are
    /// shared. Pushes are not rationed: somebody is waiting.
    pub fn reclaim(&self, cx: &Cx, db: &PageDb, want_free: u64) -> ScanReport {
        self.reclaim_by(cx, db, want_free, &mut |report, _| self.push(cx, db, u64::MAX, report))
    }
    /// As [`Pageout::reclaim`], with `push` to have the queued pages pushed: where other threads push. It adds to the report what their pushes
    /// have freed. Told `true`, nothing more comes of scanning before pushes have ended, and it waits for them.
    pub fn reclaim_by(
        &self,
        cx: &Cx,
        db: &PageDb,
        want_free: u64,
        push: &mut dyn FnMut(&mut ScanReport, bool),
    ) -> ScanReport {
        let mut report = ScanReport::default();
        if self.is_foreign(db) {
            return report;
        }
        cx.count(Counter::PgRRun);
        db.drain_magazines(cx);
        let batch = (self.config.fastscan / 4).clamp(32, 4096);
        // Turns since a page went; looks at pages too widely shared before the last time that was widened.
        let (mut fruitless, mut shared_seen) = (0, 0);
        while db.freemem() < want_free && report.revs < MOST_REVOLUTIONS {
            let before = report.freed;
            let (turns, full) = self.reclaim_batch(cx, db, batch, want_free, &mut report);
            fruitless += turns;
            push(&mut report, full || fruitless >= 2 * self.total);
            if report.freed != before {
                fruitless = 0;
            } else if fruitless >= 2 * self.total {
                // Only pages skipped for being shared can still be made eligible.
                if report.shared == shared_seen || !self.hands.lock(cx).widen_share() {
                    break;
                }
                shared_seen = report.shared;
                fruitless = self.total; // one more revolution to free something
            }
        }
        db.wake_memory_waiters();
        report
    }
    /// At most `batch` turns, fewer when enough is free or the queue is full; how many, and whether it is.
    fn reclaim_batch(
        &self,
        cx: &Cx,
        db: &PageDb,
        batch: u64,
        want_free: u64,
        report: &mut ScanReport,
    ) -> (u64, bool) {
        let mut hands = self.hands.lock(cx);
        let before = report.turns;
        for _ in 0..batch {
            self.turn(cx, db, &mut hands, report);
            if db.freemem() >= want_free || hands.queue.is_full() {
                break;
            }
        }
        (report.turns - before, hands.queue.is_full())
    }
    /// Has at most `most` of the queued pages pushed and flushed by their vnodes. Any number of threads may do this at once.
    #[doc(alias = "queue_io_request")]
    pub fn push_queued(&self, cx: &Cx, db: &PageDb, most: u64) -> ScanReport {
        let mut report = ScanReport::default();
        if !self.is_foreign(db) {
            self.push(cx, db, most, &mut report);
        }
        report
    }
    /// Pages that wait to be pushed.
    pub fn queued(&self, cx: &Cx) -> u64 {
        self.hands.lock(cx).queue.len() as u64
    }
    /// Evicts all that can go: until two revolutions free nothing more.
    pub fn reclaim_all(&self, cx: &Cx, db: &PageDb) -> ScanReport {
        self.reclaim(cx, db, u64::MAX)
    }

    /// Both hands look at their frames and move on by one. held: hands
    fn turn(&self, cx: &Cx, db: &PageDb, hands: &mut Hands, report: &mut ScanReport) -> Turn {
        let before = report.freed + report.queued;
        let front = self.look_at(cx, db, hands, hands.front, Hand::Front, report);
        let back = self.look_at(cx, db, hands, hands.back, Hand::Back, report);
        report.turns += 1;
        cx.count(Counter::Scan);
        if front != Checked::Skipped || back != Checked::Skipped {
            report.scanned += 1; // ineligible frames do not count towards desscan
        }
        hands.back = (hands.back + 1) % self.total;
        hands.front = (hands.front + 1) % self.total;
        let wrapped = hands.front == 0;
        if wrapped {
            report.revs += 1;
            cx.count(Counter::Rev);
        }
        Turn { success: report.freed + report.queued != before, wrapped }
    }

    /// Free pages below which the scanner works.
    fn wanted(&self, db: &PageDb) -> u64 {
        db.free_mem().thresholds().lotsfree.saturating_add(db.free_mem().needfree())
    }
    /// Frames to scan in one interval at the memory free now: a quarter of slowscan at lotsfree, a quarter of fastscan at 0, linear between;
    /// at least one.
    pub fn desscan(&self, db: &PageDb) -> u64 {
        let have = db.freemem().saturating_sub(db.free_mem().needfree());
        self.config.desscan(have, db.free_mem().thresholds().lotsfree)
    }
    /// Hands, rates and queue now, for views.
    pub fn state(&self, cx: &Cx, db: &PageDb) -> PageoutState {
        let hands = self.hands.lock(cx);
        PageoutState {
            total: self.total,
            front: hands.front,
            back: hands.back,
            handspreadpages: self.config.handspreadpages,
            fastscan: self.config.fastscan,
            slowscan: self.config.slowscan,
            desscan: self.desscan(db),
            po_share: hands.po_share,
            maxpgio: self.config.maxpgio,
            queued: hands.queue.len() as u64,
            freemem: db.freemem(),
            needfree: db.free_mem().needfree(),
            thresholds: db.free_mem().thresholds(),
        }
    }
    /// The page of the frame with this index.
    fn id_at(index: u64) -> PageId {
        PageId::of_link(index as u32 + 1).expect("an index plus one is not 0")
    }
}
