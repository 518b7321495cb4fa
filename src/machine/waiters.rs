//! Who waits for the daemons, and for whom it is in vain.
//!
//! # The difficulty
//!
//! The scanner works for the sum of what all want. A round that does not come to the sum may well come to what one of them wants; and whether that one
//! got it says nothing, for it may have had no turn of its processor before another took it. So a round is judged for each waiter by itself, by the most
//! that was free at once ([`PageDb::most_free`](page_db::PageDb::most_free)), seen as it was freed and not when the round was over.
//!
//! ```text
//!   A wants 60, D wants 1     the round frees 20, B takes them     A: short once more     D: has had its page go by, and sleeps on
//! ```
//!
//! # Rules
//!
//! - W1: a round counts for a waiter only if it began after the waiter did.
//! - W2: a round that had the waiter's pages begins both counts anew. Else one that freed something is *short*, and one that freed nothing is
//!   *fruitless*; something freed begins the fruitless ones anew.
//! - W3: waiting is in vain after [`MOST_SHORT`] short rounds and one more, after [`PATIENCE`] fruitless ones, or after one fruitless one if nothing can be
//!   reclaimed. It stays so.

use super::daemons::Round;
use page_db::Rank;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

/// Rounds after which a waiter gives up although each of them freed something: others take it as fast, or it is not enough.
pub(super) const MOST_SHORT: u32 = 64;
/// Rounds in a row that find nothing before a waiter gives up although something could be reclaimed: two seconds of the scanner's naps.
const PATIENCE: u32 = 200;

/// What the rounds of one waiter came to.
struct Waiter {
    pages: u64,
    /// The last round that began before it did.
    begun: u64,
    short: u32,
    fruitless: u32,
    vain: Arc<AtomicBool>,
}

impl Waiter {
    /// Counts a round (W2, W3).
    fn count(&mut self, had: u64, came_to: Round, is_reclaimable: bool) {
        if had >= self.pages {
            (self.short, self.fruitless) = (0, 0);
            return;
        }
        let is_vain = match came_to {
            Round::Nothing => {
                self.fruitless += 1;
                self.fruitless >= PATIENCE || !is_reclaimable
            }
            Round::Enough | Round::Some => {
                (self.short, self.fruitless) = (self.short + 1, 0);
                self.short > MOST_SHORT
            }
        };
        if is_vain {
            self.vain.store(true, SeqCst);
        }
    }
}

/// All who wait for the daemons.
pub(super) struct Waiters {
    all: Mutex<Vec<Waiter>>,
}

impl Default for Waiters {
    fn default() -> Self {
        Self { all: Mutex::new(Rank::Registry, Vec::new()) }
    }
}

impl Waiters {
    /// Waits for `pages` pages from now on, when `begun` rounds have begun.
    pub(super) fn begin(&self, pages: u64, begun: u64) -> Waiting<'_> {
        let vain = Arc::new(AtomicBool::new(false));
        let waiter = Waiter { pages, begun, short: 0, fruitless: 0, vain: Arc::clone(&vain) };
        self.all.lock_host().push(waiter);
        Waiting { of: self, vain }
    }
    /// Judges round `round`, which had up to `had` pages at once, for each waiter. Says whether anybody still has a reason to wait.
    pub(super) fn judge(&self, round: u64, had: u64, came_to: Round, is_reclaimable: bool) -> bool {
        let mut all = self.all.lock_host();
        for waiter in all.iter_mut().filter(|w| w.begun < round) {
            waiter.count(had, came_to, is_reclaimable); // W1
        }
        all.is_empty() || all.iter().any(|w| !w.vain.load(SeqCst)) // who has not yet come has a reason, too
    }
}

/// One who waits, until it is dropped.
pub(super) struct Waiting<'a> {
    of: &'a Waiters,
    vain: Arc<AtomicBool>,
}

impl Waiting<'_> {
    /// Whether it is to give up.
    pub(super) fn is_vain(&self) -> bool {
        self.vain.load(SeqCst)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.of.all.lock_host().retain(|w| !Arc::ptr_eq(&w.vain, &self.vain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many rounds it takes until it is in vain for `who`.
    fn rounds_until_vain(
        all: &Waiters,
        who: &Waiting<'_>,
        (had, came_to): (u64, Round),
    ) -> Option<u64> {
        (1..=1000).find(|round| {
            let _ = all.judge(*round, had, came_to, true);
            who.is_vain()
        })
    }

    #[test]
    fn a_round_that_finds_nothing_is_a_matter_of_patience_not_of_shortness() {
        let all = Waiters::default();
        let who = all.begin(1, 0);
        let vain = rounds_until_vain(&all, &who, (0, Round::Nothing));
        assert_eq!(vain, Some(u64::from(PATIENCE)));
        // Something freed now and then begins it anew.
        let who = all.begin(1, 0);
        for round in 1..3 * u64::from(PATIENCE) {
            let came_to = if round % 100 == 0 { Round::Some } else { Round::Nothing };
            assert!(all.judge(round, 0, came_to, true));
        }
        assert!(!who.is_vain());
        // With nothing to be reclaimed one is enough.
        assert!(!all.judge(1000, 0, Round::Nothing, false) && who.is_vain());
    }

    #[test]
    fn who_wants_little_is_not_refused_for_who_wants_much() {
        let all = Waiters::default();
        let (much, little) = (all.begin(60, 0), all.begin(1, 0));
        let vain = rounds_until_vain(&all, &much, (20, Round::Some));
        assert_eq!(vain, Some(u64::from(MOST_SHORT) + 1));
        assert!(!little.is_vain(), "its page went by in each of them");
        drop(much);
        let vain = rounds_until_vain(&all, &little, (0, Round::Some));
        assert_eq!(vain, Some(u64::from(MOST_SHORT) + 1), "from the last that had it");
    }

    #[test]
    fn a_round_that_was_under_way_does_not_count() {
        let all = Waiters::default();
        let who = all.begin(1, 5);
        assert!(all.judge(5, 0, Round::Nothing, false) && !who.is_vain());
        assert!(!all.judge(6, 0, Round::Nothing, false) && who.is_vain());
        drop(who);
        assert!(all.all.lock_host().is_empty());
    }
}
