//! A lock for a few instructions: its holder never waits, sleeps or calls out.
//!
//! A lock that can park its waiters must ask on release whether there are any, which is a second locked instruction. The lines
//! a fault takes locks on (a magazine, a bucket, a page list, a table) are held for tens of nanoseconds and hardly ever wanted by two, so
//! here the release is a plain store, and whoever finds the lock taken spins, then lets other threads run: on a host the holder may have lost its
//! processor.
//!
//! | build | lock | a waiter |
//! |---|---|---|
//! | `std` | `spin`'s | spins, then yields, then sleeps a moment at a time |
//! | no `std` | `spin`'s | turns [`crate::WaitHooks::pause`] |
//! | `cfg(shuttle)` | shuttle's mutex | shuttle's scheduler |
//!
//! - N1: nothing is waited for under such a lock but a lock of its own kind, of a later rank or of the same one in a known order (a magazine before
//!   its depot). The heap is not asked either: its locks are not ours, and what it hands out may be large. What is wanted of it is made
//!   before, with nothing held, and the lock's holder only puts it in its place (`Arena::grow`, `VnodePages::give_room`).

use super::imp;
use crate::cx::Cx;
use crate::lock::{Rank, Ranked};
use core::fmt;
use core::ops::{Deref, DerefMut};

/// A mutual-exclusion lock with a rank, for sections of a few instructions; see the module's theory.
#[doc(alias = "MUTEX_SPIN")]
pub struct SpinMutex<T> {
    rank: Ranked,
    inner: imp::SpinMutex<T>,
}

impl<T> SpinMutex<T> {
    /// A lock of `rank` around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank: Ranked::new(rank), inner: imp::SpinMutex::new(value) }
    }
    /// Takes the lock, waiting for it.
    #[inline]
    pub fn lock<'a>(&'a self, cx: &'a Cx) -> SpinMutexGuard<'a, T> {
        cx.rank_wait(self.rank.get(), false);
        SpinMutexGuard { guard: imp::spin_lock(&self.inner, cx), cx, rank: self.rank }
    }
    /// Takes the lock while another of the same rank is held; the caller knows the order between them.
    #[inline]
    pub fn lock_nested<'a>(&'a self, cx: &'a Cx) -> SpinMutexGuard<'a, T> {
        cx.rank_wait(self.rank.get(), true);
        SpinMutexGuard { guard: imp::spin_lock(&self.inner, cx), cx, rank: self.rank }
    }
    /// Takes the lock if that needs no waiting.
    #[inline]
    pub fn try_lock<'a>(&'a self, cx: &'a Cx) -> Option<SpinMutexGuard<'a, T>> {
        let guard = imp::spin_try_lock(&self.inner)?;
        cx.rank_tried(self.rank.get());
        Some(SpinMutexGuard { guard, cx, rank: self.rank })
    }
}

impl<T> fmt::Debug for SpinMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpinMutex").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// Access to what a [`SpinMutex`] guards.
pub struct SpinMutexGuard<'a, T> {
    guard: imp::SpinMutexGuard<'a, T>,
    cx: &'a Cx,
    rank: Ranked,
}

impl<T> Deref for SpinMutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> DerefMut for SpinMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
impl<T> Drop for SpinMutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cx.rank_release(self.rank.get());
    }
}
impl<T: fmt::Debug> fmt::Debug for SpinMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::cx::SpinHooks;
    use crate::{Counters, CpuId, ThreadId};
    use alloc::sync::Arc;

    #[test]
    fn more_threads_than_processors_take_turns() {
        let counters = Counters::new(1);
        let lock = SpinMutex::new(Rank::FreeList, 0u64);
        std::thread::scope(|s| {
            for t in 0..8 {
                let (lock, counters) = (&lock, &counters);
                s.spawn(move || {
                    let cx = Cx::new(counters, CpuId(0), ThreadId(t), Arc::new(SpinHooks));
                    for _ in 0..10_000 {
                        let mut g = lock.lock(&cx);
                        let before = *g;
                        *g = core::hint::black_box(before) + 1;
                    }
                });
            }
        });
        let cx = Cx::new(&counters, CpuId(0), ThreadId(9), Arc::new(SpinHooks));
        assert_eq!(*lock.lock(&cx), 80_000);
    }

    #[test]
    fn a_lock_that_is_held_is_not_had_by_trying() {
        let counters = Counters::new(1);
        let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
        let lock = SpinMutex::new(Rank::FreeList, ());
        let held = lock.lock(&cx);
        assert!(lock.try_lock(&cx).is_none());
        drop(held);
        assert!(lock.try_lock(&cx).is_some());
        assert!(cx.held().is_empty());
    }
}
