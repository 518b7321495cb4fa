//! What the lock algorithms ask of a 32-bit atomic.
//!
//! The page lock, the hash chain, the reader-slot lock and the places where threads sleep are written over this trait: in the library it is
//! the crate's own [`super::atomic::AtomicU32`], in the models it is loom's, so what is modelled is the code that runs.

use super::atomic::{AtomicU32, Ordering};
use super::imp::WaitPoint;
use crate::cx::Cx;

/// Mistakes in order and announcement that the models are shown to notice. In the library none is ever made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(any(not(test), shuttle), allow(dead_code, reason = "only models make them"))]
pub(crate) enum Slip {
    /// Taking a page lock does not acquire.
    TakeRelaxed,
    /// A reader that leaves a page lock does not release.
    LeaveRelaxed,
    /// The exclusive holder leaves, or becomes a reader, in order with the word alone.
    ExclLeavesAlone,
    /// A lock that becomes shared wakes nobody.
    DowngradeWakesNobody,
    /// A sleeper looks at the state without order after its announcement.
    SleeperLooksRelaxed,
    /// A waker looks for sleepers without order after its change.
    WakerLooksRelaxed,
    /// A sleeper looks at the state before it reads how often it was woken.
    WakesReadLate,
    /// A reader enters a slot without acquiring.
    ReaderEntersRelaxed,
    /// A reader leaves a slot without releasing.
    ReaderLeavesRelaxed,
    /// A writer holds the slots without acquiring.
    WriterEntersRelaxed,
    /// A writer leaves without releasing.
    WriterLeavesRelaxed,
    /// A reader leaves a slot without looking for a writer.
    ReaderLeavesQuietly,
    /// A reader that falls asleep does not open the gate.
    SleeperKeepsTheGate,
    /// A walk that ended elsewhere is believed.
    MissBelieved,
    /// A page is believed to carry the name it was found under.
    HitBelieved,
    /// An insert does not look whether the name is taken.
    InsertBlind,
    /// A page loses its name before the one in its place has it.
    NameLeavesFirst,
}

/// A 32-bit word that threads share.
pub(crate) trait Word {
    /// How often a thread looks again before it sleeps. A scheduler that explores would only see the same state again.
    const TURNS: u32 = 0;
    /// The pauses between the looks of a writer of a slot lock that met readers, before it shuts the gate to newcomers.
    const PAUSES: &[u32] = &[0];
    /// Whether `slip` is to be made here.
    #[inline(always)]
    fn slips(slip: Slip) -> bool {
        let _ = slip;
        false
    }
    /// `order`, unless `slip` is to be made: then none at all.
    #[inline(always)]
    fn unless(slip: Slip, order: Ordering) -> Ordering {
        if Self::slips(slip) { Ordering::Relaxed } else { order }
    }
    fn load(&self, order: Ordering) -> u32;
    fn store(&self, value: u32, order: Ordering);
    fn compare_exchange(
        &self,
        old: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32>;
    fn fetch_add(&self, n: u32, order: Ordering) -> u32;
    fn fetch_sub(&self, n: u32, order: Ordering) -> u32;
    fn fetch_and(&self, bits: u32, order: Ordering) -> u32;
    fn fetch_or(&self, bits: u32, order: Ordering) -> u32;
}

/// Who sleeps: the thread's context, or a model's.
pub(crate) trait Sleeper {
    /// Runs `wait`, during which slot locks that this thread reads count as asleep.
    fn blocking<R>(&self, wait: impl FnOnce() -> R) -> R;
    /// Whether this thread reads any slot lock.
    fn reads_any(&self) -> bool;
}

/// What threads sleep on.
pub(crate) trait Point<C> {
    /// Sleeps while `must_wait` says so, which is asked with nothing locked that a waker takes.
    fn wait_while(&self, cx: &C, must_wait: &mut dyn FnMut() -> bool);
    /// Wakes everybody.
    fn wake_all(&self);
}

/// Sleeps while `must_wait` says so, on a point that counts how often it was woken: `wakes` reads the count, `sleep_past` sleeps while it is what was
/// read. The count is read before the state is looked at, so whoever changes the state after that look also counts after that reading. The
/// look is taken with nothing locked: under the count's lock, one that frees what another waits for would wait for its own thread. `late` is a
/// model's mistake.
#[cfg(any(feature = "std", test))]
pub(crate) fn sleep_while(
    must_wait: &mut dyn FnMut() -> bool,
    wakes: impl Fn() -> u64,
    sleep_past: impl Fn(u64),
    late: bool,
) {
    loop {
        let mut seen = wakes();
        if !must_wait() {
            return;
        }
        if late {
            seen = wakes();
        }
        sleep_past(seen);
    }
}

impl Sleeper for Cx {
    fn blocking<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.blocking(wait)
    }
    fn reads_any(&self) -> bool {
        self.reads_any()
    }
}

impl Point<Cx> for WaitPoint {
    fn wait_while(&self, cx: &Cx, must_wait: &mut dyn FnMut() -> bool) {
        self.wait_while(cx, must_wait);
    }
    fn wake_all(&self) {
        self.wake_all();
    }
}

impl Word for AtomicU32 {
    /// About two microseconds of `pause`: the price of parking and being woken.
    const TURNS: u32 = if cfg!(shuttle) { 0 } else { 64 };
    /// Some microseconds, a dozen faults, in four looks.
    const PAUSES: &[u32] = if cfg!(shuttle) { &[0] } else { &[1, 8, 64, 128] };
    #[inline]
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }
    #[inline]
    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }
    #[inline]
    fn compare_exchange(
        &self,
        old: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.compare_exchange(old, new, success, failure)
    }
    #[inline]
    fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        self.fetch_add(n, order)
    }
    #[inline]
    fn fetch_sub(&self, n: u32, order: Ordering) -> u32 {
        self.fetch_sub(n, order)
    }
    #[inline]
    fn fetch_and(&self, bits: u32, order: Ordering) -> u32 {
        self.fetch_and(bits, order)
    }
    #[inline]
    fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        self.fetch_or(bits, order)
    }
}
