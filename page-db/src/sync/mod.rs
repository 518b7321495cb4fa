//! The one place where locks, waiting and published pointers come from.
//!
//! | build | mutex | waiting | atomics |
//! |---|---|---|---|
//! | `std` (default) | `parking_lot` | parked threads | core's |
//! | no `std` | `spin`, turned by [`crate::WaitHooks::pause`] | [`crate::WaitHooks::sleep`] and [`crate::WaitHooks::wake`] | core's |
//! | `cfg(shuttle)` | shuttle's | shuttle's | core's layout, a yield point before each |
//!
//! The algorithms of the page lock, the hash chain, the reader-slot lock and the places to sleep are written over the words they are made of
//! (`generic.rs`), so that an ordinary test explores them, as they are, under every memory order (`models.rs`, with loom).
//!
//! Nothing else in the workspace names a lock crate. What is held for a few instructions on a fault's way is a [`SpinMutex`]. Every lock carries a [`Rank`] and is taken with a [`Cx`], which
//! checks the order in debug builds; a guard borrows both. What a thread may sleep on for long (page locks, memory, slots,
//! devices) goes through [`WaitTable`] and [`Cx::blocking`].

pub mod arena;
pub mod atomic;
#[cfg(shuttle)]
pub mod explore;
pub(crate) mod generic;
pub mod grow;
mod imp;
#[cfg(all(test, not(shuttle)))]
mod models;
#[doc(hidden)]
pub mod mutation;
pub mod per_cpu;
pub mod prefetch;
pub mod slot_lock;
pub mod spin;
pub mod wait;
pub mod word;

pub use self::spin::{SpinMutex, SpinMutexGuard};
pub use arena::{Arena, ArenaFull};
pub(crate) use generic::{Slip, Word};
pub use grow::GrowTable;
pub use imp::Once;
#[doc(hidden)]
pub use mutation::{Mutation, mutated};
pub use per_cpu::PerCpu;
pub use prefetch::{prefetch_all, prefetch_read, prefetch_write};
pub use slot_lock::{SlotReadGuard, SlotRwLock, SlotWriteGuard};
pub use wait::WaitTable;
pub use word::WordGuard;

use crate::cx::{Cx, WaitHooks};
use crate::lock::{Rank, Ranked};
use alloc::sync::Arc;
use core::fmt;
use core::ops::{Deref, DerefMut};

/// One turn of a wait for what another thread finishes in a few instructions, waiting for nothing itself; `turns` counts those of one wait.
pub fn spin_wait(cx: &Cx, turns: u32) {
    imp::spin_wait(cx, turns);
}

/// A mutual-exclusion lock with a rank.
pub struct Mutex<T> {
    rank: Ranked,
    inner: imp::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A lock of `rank` around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank: Ranked::new(rank), inner: imp::Mutex::new(value) }
    }
    /// Takes the lock, waiting for it.
    #[inline]
    pub fn lock<'a>(&'a self, cx: &'a Cx) -> MutexGuard<'a, T> {
        cx.rank_wait(self.rank.get(), false);
        MutexGuard { guard: imp::lock(&self.inner, cx), cx, rank: self.rank }
    }
    /// Takes the lock while another of the same rank is held; the caller knows the order between them.
    pub fn lock_nested<'a>(&'a self, cx: &'a Cx) -> MutexGuard<'a, T> {
        cx.rank_wait(self.rank.get(), true);
        MutexGuard { guard: imp::lock(&self.inner, cx), cx, rank: self.rank }
    }
    /// Takes the lock if that needs no waiting.
    pub fn try_lock<'a>(&'a self, cx: &'a Cx) -> Option<MutexGuard<'a, T>> {
        let guard = imp::try_lock(&self.inner)?;
        cx.rank_tried(self.rank.get());
        Some(MutexGuard { guard, cx, rank: self.rank })
    }
    /// Takes a lock under which no other is ever taken, nothing waits and the heap is not asked, where no [`Cx`] is at hand: who finds it taken turns in
    /// [`WaitHooks::pause`] of the owner's `hooks` ([`crate::PageDb::hooks`]).
    #[inline]
    pub fn lock_leaf(&self, hooks: &dyn WaitHooks) -> impl DerefMut<Target = T> + '_ {
        imp::lock_leaf(&self.inner, hooks)
    }
    /// As [`Mutex::lock_leaf`] on a host, where whoever waits parks, no hooks are asked, and the heap may be.
    #[cfg(feature = "std")]
    pub fn lock_host(&self) -> impl DerefMut<Target = T> + '_ {
        imp::lock_leaf(&self.inner, &crate::SpinHooks)
    }
    /// The value, when nobody else can reach it.
    pub fn get_mut(&mut self) -> &mut T {
        imp::get_mut(&mut self.inner)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// Access to what a [`Mutex`] guards.
pub struct MutexGuard<'a, T> {
    guard: imp::MutexGuard<'a, T>,
    cx: &'a Cx,
    rank: Ranked,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.cx.rank_release(self.rank.get());
    }
}
impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A reader/writer lock with a rank, for what is read often and by few; its readers share one line. Address spaces use [`SlotRwLock`].
pub struct RwLock<T> {
    rank: Ranked,
    inner: imp::RwLock<T>,
}

impl<T> RwLock<T> {
    /// A lock of `rank` around `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        Self { rank: Ranked::new(rank), inner: imp::RwLock::new(value) }
    }
    /// Takes the lock as reader.
    pub fn read<'a>(&'a self, cx: &'a Cx) -> RwReadGuard<'a, T> {
        cx.rank_wait(self.rank.get(), false);
        RwReadGuard { guard: imp::read(&self.inner, cx), cx, rank: self.rank }
    }
    /// Takes the lock as writer.
    pub fn write<'a>(&'a self, cx: &'a Cx) -> RwWriteGuard<'a, T> {
        cx.rank_wait(self.rank.get(), false);
        RwWriteGuard { guard: imp::write(&self.inner, cx), cx, rank: self.rank }
    }
    /// Takes the lock as writer while another of the same rank is held; the caller knows the order between them.
    pub fn write_nested<'a>(&'a self, cx: &'a Cx) -> RwWriteGuard<'a, T> {
        cx.rank_wait(self.rank.get(), true);
        RwWriteGuard { guard: imp::write(&self.inner, cx), cx, rank: self.rank }
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// Shared access to what a [`RwLock`] guards.
pub struct RwReadGuard<'a, T> {
    guard: imp::RwReadGuard<'a, T>,
    cx: &'a Cx,
    rank: Ranked,
}
impl<T> Deref for RwReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> Drop for RwReadGuard<'_, T> {
    fn drop(&mut self) {
        self.cx.rank_release(self.rank.get());
    }
}
impl<T: fmt::Debug> fmt::Debug for RwReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Exclusive access to what a [`RwLock`] guards.
pub struct RwWriteGuard<'a, T> {
    guard: imp::RwWriteGuard<'a, T>,
    cx: &'a Cx,
    rank: Ranked,
}
impl<T> Deref for RwWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}
impl<T> DerefMut for RwWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}
impl<T> Drop for RwWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.cx.rank_release(self.rank.get());
    }
}
impl<T: fmt::Debug> fmt::Debug for RwWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A pointer to an immutable value that is read often and replaced whole.
///
/// Readers get a shared handle to one version; a writer publishes the next. On `std` it is arc-swap; without, a short
/// lock around an `Arc` (arc-swap links only with thread-locals).
pub struct Published<T> {
    inner: imp::Published<T>,
}

impl<T> Published<T> {
    /// Publishes a first version; without `std`, whoever meets another at the pointer turns in `hooks`.
    pub fn new(hooks: &Arc<dyn WaitHooks>, value: T) -> Self {
        Self { inner: imp::Published::new(hooks, Arc::new(value)) }
    }
    /// The current version.
    pub fn load(&self) -> Arc<T> {
        self.inner.load()
    }
    /// Replaces the current version.
    pub fn store(&self, value: T) {
        self.inner.store(Arc::new(value));
    }
}
impl<T: fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}
