//! A lock in the top bit of the word it guards.
//!
//! A page's line is in the cache already when its mapping list is changed; a lock elsewhere would be another line, and in an array of locks
//! another page's neighbour too. So the word carries its own lock: one locked instruction to take it, a plain store of
//! the new value to let it go. Whoever finds it taken waits as for a [`super::SpinMutex`] (N1 holds here as well).
//!
//! ```text
//!   63      62                    0
//!  ┌───────┬───────────────────────┐     free:   value
//!  │ taken │         value         │     taken:  the value as it was, until the holder stores another
//!  └───────┴───────────────────────┘
//! ```
//!
//! Readers may look at the word at any time. A word may also be changed without being taken, by compare-and-swap from an untaken value.

use super::atomic::{AtomicU64, Ordering};
use super::imp;
use crate::cx::Cx;
use crate::lock::Rank;

/// The bit that says "taken".
pub const TAKEN: u64 = 1 << 63;

/// The right to change a word; letting it go stores the value.
#[must_use = "dropping the guard lets the word go"]
#[derive(Debug)]
pub struct WordGuard<'a> {
    word: &'a AtomicU64,
    value: u64,
    cx: &'a Cx,
    rank: Rank,
}

impl<'a> WordGuard<'a> {
    /// Takes `word`, waiting for it.
    #[inline]
    pub fn lock(cx: &'a Cx, rank: Rank, word: &'a AtomicU64) -> Self {
        cx.rank_wait(rank, false);
        let seen = word.load(Ordering::Relaxed);
        let value = match take(word, seen) {
            Some(value) => value,
            None => wait(cx, word),
        };
        Self { word, value, cx, rank }
    }
    /// Takes `word` unless its value is 0 at a moment when nobody has it.
    #[inline]
    pub fn lock_unless_zero(cx: &'a Cx, rank: Rank, word: &'a AtomicU64) -> Option<Self> {
        let seen = word.load(Ordering::Acquire);
        if seen == 0 {
            return None;
        }
        let value = match take(word, seen) {
            Some(value) => value,
            None => wait_unless_zero(cx, word)?,
        };
        cx.rank_wait(rank, false);
        Some(Self { word, value, cx, rank })
    }
    /// The value, without the bit.
    #[inline]
    pub fn value(&self) -> u64 {
        self.value
    }
    /// Sets the value; it is seen when the guard goes.
    #[inline]
    pub fn set(&mut self, value: u64) {
        debug_assert!(value & TAKEN == 0, "the top bit is the lock");
        self.value = value;
    }
}

/// Takes the word if it is `seen` and not taken.
#[inline]
fn take(word: &AtomicU64, seen: u64) -> Option<u64> {
    let free = seen & TAKEN == 0;
    (free
        && word.compare_exchange(seen, seen | TAKEN, Ordering::Acquire, Ordering::Relaxed).is_ok())
    .then_some(seen)
}

#[cold]
fn wait(cx: &Cx, word: &AtomicU64) -> u64 {
    let mut turns = 0u32;
    loop {
        if let Some(value) = take(word, word.load(Ordering::Relaxed)) {
            return value;
        }
        imp::spin_wait(cx, turns);
        turns = turns.saturating_add(1);
    }
}

#[cold]
fn wait_unless_zero(cx: &Cx, word: &AtomicU64) -> Option<u64> {
    let mut turns = 0u32;
    loop {
        imp::spin_wait(cx, turns);
        turns = turns.saturating_add(1);
        let seen = word.load(Ordering::Acquire);
        if seen == 0 {
            return None;
        }
        if let Some(value) = take(word, seen) {
            return Some(value);
        }
    }
}

impl Drop for WordGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.word.store(self.value, Ordering::Release);
        self.cx.rank_release(self.rank);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::cx::SpinHooks;
    use crate::{Counters, CpuId, ThreadId};
    use alloc::sync::Arc;

    #[test]
    fn holders_take_turns_and_bystanders_change_it_only_when_it_is_free() {
        let counters = Counters::new(1);
        let word = AtomicU64::new(0);
        std::thread::scope(|s| {
            for t in 0..4 {
                let (word, counters) = (&word, &counters);
                s.spawn(move || {
                    let cx = Cx::new(counters, CpuId(0), ThreadId(t), Arc::new(SpinHooks));
                    for _ in 0..5_000 {
                        let mut g = WordGuard::lock(&cx, Rank::HMent, word);
                        g.set(core::hint::black_box(g.value()) + 1);
                        drop(g);
                        let add = |v: u64| (v & TAKEN == 0).then_some(v + 1);
                        while word.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add).is_err() {
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(word.load(Ordering::Relaxed), 40_000);
    }

    #[test]
    fn a_word_of_nothing_is_not_taken() {
        let counters = Counters::new(1);
        let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
        let word = AtomicU64::new(0);
        assert!(WordGuard::lock_unless_zero(&cx, Rank::HMent, &word).is_none());
        let mut g = WordGuard::lock(&cx, Rank::HMent, &word);
        assert_eq!(word.load(Ordering::Relaxed), TAKEN);
        g.set(5);
        drop(g);
        let g = WordGuard::lock_unless_zero(&cx, Rank::HMent, &word);
        assert_eq!(g.map(|g| g.value()), Some(5));
        assert_eq!(word.load(Ordering::Relaxed), 5);
        assert!(cx.held().is_empty());
    }
}
