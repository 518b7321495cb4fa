//! Removals of areas, as whoever frees an anon must know of them.
//!
//! # The difficulty
//!
//! A removal makes pages of anons on which it has no reference. So an anon's last owner may look for its page, find none, and be about to give the number
//! back when the page is there all the same; and what is in memory is page-out's as well:
//!
//! ```text
//!   owner                              removal                                            page-out
//!   destroys the page: there is none   looks at the word: a slot of the area
//!                                      reads it into a page, under the name
//!                                      looks at the word again: the slot is free          puts a new slot of another area in the word
//!   kills the word: that slot                                                             writes the page there
//!   gives the slot back                                                                     ..  which may be another anon's by now
//!   gives the number back              looks at the word again, if it has not yet,
//!                                      which may be another anon's by now
//! ```
//!
//! A removal announces itself before it looks at the first word, and the owner kills the word before he looks for removals: one of the two sees the other.
//! A dead word takes no slot, so the one that the owner found is the last; and he has the page when nobody reads or writes it.
//!
//! # The rule
//!
//! - W6: the owner notes what has begun and ended ([`Removals::seen`]) before he destroys the page, and looks for a page once more unless the same is true after
//!   he has killed the word and nothing runs. Page, slot, number go in this order: the page is waited for, and the slot is nobody else's until then.
//!   What ended before he noted it has left its pages where he found them.
//!
//! The other road, to look again whenever there ever was a removal, needs no note; each anon freed after the first `swapdel` then costs a search that finds nothing.

use page_db::sync::atomic::{AtomicU64, Ordering};

/// Removals that run, in the upper half; how many have begun, in the lower. It is read by whoever frees and written by removals alone.
#[derive(Debug, Default)]
pub(crate) struct Removals(AtomicU64);

/// What was known of removals at some moment. The default is that of the time before the first: whoever goes by it looks again if there ever was one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RemovalsSeen(u64);

const RUNS: u64 = 1 << 32;

/// One that runs.
pub(crate) struct Running<'a>(&'a Removals);

impl Removals {
    /// Announces one.
    pub(crate) fn begin(&self) -> Running<'_> {
        let one_more = |word: u64| {
            Some((word + RUNS) & !(RUNS - 1) | u64::from((word as u32).wrapping_add(1)))
        };
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        Running(self)
    }
    pub(crate) fn seen(&self) -> RemovalsSeen {
        RemovalsSeen(self.0.load(Ordering::SeqCst))
    }
    /// Whether one may have made a page since (W6).
    pub(crate) fn may_have_made_pages(&self, since: RemovalsSeen) -> bool {
        let now = self.seen();
        now != since || now.0 >= RUNS
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(RUNS, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_before_is_not_looked_for() {
        let removals = Removals::default();
        let first = removals.seen();
        assert_eq!(first, RemovalsSeen::default());
        assert!(!removals.may_have_made_pages(first));
        let one = removals.begin();
        let during = removals.seen();
        let two = removals.begin();
        drop(one);
        assert!(
            [first, during, removals.seen()].map(|s| removals.may_have_made_pages(s)) == [true; 3]
        );
        drop(two);
        assert!([first, during].map(|s| removals.may_have_made_pages(s)) == [true; 2]);
        assert!(!removals.may_have_made_pages(removals.seen()));
    }
}
