//! Where threads sleep for a state to change: a small table of places, found by key.
//!
//! The states waited for (a page's lock word, a slot's busy bit) are too many to carry a queue each, so they share places by
//! hash. The protocol loses no wake-up: the waiter adds itself to the place's count and *then* looks at the state; the
//! waker changes the state and *then* looks at the count. Both are sequentially consistent, so at least one sees the other.

use super::atomic::{AtomicU32, Ordering};
use super::imp::WaitPoint;
use super::{Mutation, mutated};
use crate::cx::Cx;
use alloc::boxed::Box;
use core::fmt;
use crossbeam_utils::CachePadded;

#[derive(Default)]
struct Place {
    waiters: AtomicU32,
    point: WaitPoint,
}

/// The table.
pub struct WaitTable {
    places: Box<[CachePadded<Place>]>,
}

impl Default for WaitTable {
    fn default() -> Self {
        Self::new(64)
    }
}

impl WaitTable {
    /// A table of `places` (rounded up to a power of two). Collisions cost spurious wake-ups, nothing else.
    pub fn new(places: usize) -> Self {
        Self { places: (0..places.next_power_of_two()).map(|_| CachePadded::default()).collect() }
    }
    fn place(&self, key: u64) -> &Place {
        let h = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        &self.places[h as usize & (self.places.len() - 1)]
    }
    /// Sleeps while `must_wait` is true. `must_wait` must read the state with sequentially consistent loads; it may be called often.
    /// Slot locks the thread reads are marked asleep meanwhile.
    pub fn wait_while(&self, cx: &Cx, key: u64, mut must_wait: impl FnMut() -> bool) {
        let place = self.place(key);
        if mutated(Mutation::WaitAnnouncedLate) {
            let mut first = must_wait();
            let looked = &mut || core::mem::take(&mut first) || must_wait();
            place.waiters.fetch_add(1, Ordering::SeqCst);
            cx.blocking(|| place.point.wait_while(cx, looked));
            place.waiters.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        place.waiters.fetch_add(1, Ordering::SeqCst);
        cx.blocking(|| place.point.wait_while(cx, &mut must_wait));
        place.waiters.fetch_sub(1, Ordering::SeqCst);
    }
    /// Wakes whoever sleeps under `key`. Call it after a sequentially consistent change of the state.
    #[inline]
    pub fn wake_all(&self, key: u64) {
        let place = self.place(key);
        if place.waiters.load(Ordering::SeqCst) != 0 {
            place.point.wake_all();
        }
    }
}

impl fmt::Debug for WaitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitTable").field("places", &self.places.len()).finish_non_exhaustive()
    }
}
