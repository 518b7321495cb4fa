//! Where threads sleep for a state to change: a small table of places, found by key.
//!
//! The states waited for (a page's lock word, a slot's busy bit) are too many to carry a queue each, so they share places by
//! hash. The protocol loses no wake-up: the waiter adds itself to the place's count and *then* looks at the state; the
//! waker changes the state and *then* looks at the count. Both are sequentially consistent, so at least one sees the other.
//!
//! On a host the thread parks; without `std` it sleeps and is woken by [`WaitHooks::sleep`] and [`WaitHooks::wake`]. Either way the state is looked at
//! with nothing locked, so a look may itself change what others wait for here.

use super::atomic::{AtomicU32, Ordering::SeqCst};
use super::generic::{Point, Sleeper, Slip, Word};
use super::imp::WaitPoint;
use super::{Mutation, mutated};
use crate::cx::{Cx, WaitHooks};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use crossbeam_utils::CachePadded;

/// One place to sleep at.
pub(crate) struct Place<W, P> {
    waiters: W,
    point: P,
}

impl<W: Word, P> Place<W, P> {
    pub(crate) fn new(waiters: W, point: P) -> Self {
        Self { waiters, point }
    }
    /// Sleeps while `must_wait` is true; it must read the state with sequentially consistent loads.
    pub(crate) fn wait_while<C: Sleeper>(&self, cx: &C, must_wait: &mut dyn FnMut() -> bool)
    where
        P: Point<C>,
    {
        if mutated(Mutation::WaitAnnouncedLate) {
            let mut first = must_wait();
            let looked = &mut || core::mem::take(&mut first) || must_wait();
            self.waiters.fetch_add(1, SeqCst);
            cx.blocking(|| self.point.wait_while(cx, looked));
            self.waiters.fetch_sub(1, SeqCst);
            return;
        }
        self.waiters.fetch_add(1, SeqCst);
        cx.blocking(|| self.point.wait_while(cx, must_wait));
        self.waiters.fetch_sub(1, SeqCst);
    }
    /// Wakes whoever sleeps here. Call it after a sequentially consistent change of the state.
    #[inline]
    pub(crate) fn wake_all<C>(&self)
    where
        P: Point<C>,
    {
        if self.waiters.load(W::unless(Slip::WakerLooksRelaxed, SeqCst)) != 0 {
            self.wake_sleepers();
        }
    }
    #[cold]
    fn wake_sleepers<C>(&self)
    where
        P: Point<C>,
    {
        self.point.wake_all();
    }
}

/// A place outside of models.
pub(crate) type CpuPlace = Place<AtomicU32, WaitPoint>;

impl CpuPlace {
    /// A place whose sleepers `hooks` wakes.
    pub(crate) fn with_hooks(hooks: &Arc<dyn WaitHooks>) -> Self {
        Self::new(AtomicU32::new(0), WaitPoint::new(hooks))
    }
}

/// The table.
pub struct WaitTable {
    places: Box<[CachePadded<CpuPlace>]>,
}

impl WaitTable {
    /// A table of `places` (rounded up to a power of two), whose sleepers `hooks` wakes where there is no `std`. Collisions cost spurious wake-ups,
    /// nothing else.
    pub fn new(places: usize, hooks: &Arc<dyn WaitHooks>) -> Self {
        let place = |_| CachePadded::new(CpuPlace::with_hooks(hooks));
        Self { places: (0..places.next_power_of_two()).map(place).collect() }
    }
    fn place(&self, key: u64) -> &CpuPlace {
        let h = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        &self.places[h as usize & (self.places.len() - 1)]
    }
    /// Sleeps while `must_wait` is true. `must_wait` must read the state with sequentially consistent loads; it may be called often, with
    /// nothing locked but what the caller holds, and may wake others, here too; it must not wait. Slot locks the thread reads are marked asleep meanwhile.
    pub fn wait_while(&self, cx: &Cx, key: u64, mut must_wait: impl FnMut() -> bool) {
        self.place(key).wait_while(cx, &mut must_wait);
    }
    /// Threads that sleep here now, or have said that they are about to: for tests that must know when one has come that far.
    pub fn sleepers(&self) -> u32 {
        self.places.iter().map(|place| place.waiters.load(SeqCst)).sum()
    }
    /// Wakes whoever sleeps under `key`. Call it after a sequentially consistent change of the state.
    #[inline]
    pub fn wake_all(&self, key: u64) {
        self.place(key).wake_all::<Cx>();
    }
}

impl fmt::Debug for WaitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitTable").field("places", &self.places.len()).finish_non_exhaustive()
    }
}
