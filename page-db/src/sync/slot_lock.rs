//! A reader/writer lock whose readers write only their own cache line.
//!
//! # The difficulty
//!
//! Every fault takes the address-space lock as reader. A reader count on one shared line makes two CPUs slower than one.
//! And a reader may sleep in here for a page that only another reader can unlock (a soft unlock, an i/o completion), so a
//! writer in the queue must not shut readers out for ever; yet a steady stream of readers must not shut the writer out either.
//!
//! # The rule
//!
//! ```text
//!   word: OPEN ──writer comes──▶ WAITING ⇄ HELD ──writer leaves──▶ OPEN       slot[cpu] = { readers, asleep }
//!
//!   reader:  slot.readers += 1;  look at word
//!              OPEN     in
//!              WAITING  in, if this thread reads any slot lock already or some admitted reader is asleep; else step back, wait
//!              HELD     step back, wait
//!   writer:  word = HELD; all slots zero? in : word = WAITING, wait for a zero, again
//! ```
//!
//! - S1: a reader's increment comes before its look at `word`, and the writer's `HELD` before its look at the slots, all
//!   sequentially consistent: at least one sees the other, so reader and writer are never in together.
//! - S2: `WAITING` only delays newcomers; admitting one is always safe.
//! - S3: a guard remembers its slot, whatever CPU the thread is on when it drops it.
//! - S4: a [`crate::Cx`] points at the slots of the locks it reads, to mark them before a wait. The slots live on the heap and are freed
//!   only when every count is zero, so a leaked guard leaks the slots instead of leaving that pointer dangling.
//!
//! - S5: who goes to sleep adds itself to `sleepers` and *then* looks at the state once more; who wakes changes the state and *then* looks
//!   at `sleepers`, all sequentially consistent. So no wake-up is lost, and where nobody sleeps nobody is woken.
//!
//! A writer is in for some hundred nanoseconds, as is a fault; parking a thread and waking it costs several times that, on both sides. So
//! whoever must wait looks again for a while before it sleeps ([`TURNS`]). What a writer writes while it is in (`writers`, the value)
//! lies on other lines than what a reader reads to come in.
//!
//! The other road, an ordinary `RwLock`, measured 0.9x on two threads instead of 1.8x.

#![allow(unsafe_code, reason = "this file is a lock")]

use super::atomic::{AtomicU32, Ordering::SeqCst};
use super::imp::{self, WaitPoint};
use super::{Mutation, mutated};
use crate::cx::Cx;
use crate::lock::Rank;
use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

/// How often a thread looks again before it sleeps: about two microseconds of `pause`, the price of parking and being woken. Nowhere a
/// scheduler explores: it would only see the same state again.
const TURNS: u32 = if cfg!(any(shuttle, loom)) { 0 } else { 64 };

const OPEN: u32 = 0;
const WAITING: u32 = 1;
const HELD: u32 = 2;

#[derive(Default)]
struct Slot {
    readers: AtomicU32,
    asleep: AtomicU32,
}

struct Slots {
    word: CachePadded<AtomicU32>,
    /// Threads asleep at `point`, or about to be (S5).
    sleepers: AtomicU32,
    point: WaitPoint,
    slots: Box<[CachePadded<Slot>]>,
}

impl Slots {
    fn readers(&self) -> u32 {
        self.slots.iter().map(|s| s.readers.load(SeqCst)).sum()
    }
    fn asleep(&self) -> bool {
        self.slots.iter().any(|s| s.asleep.load(SeqCst) != 0)
    }
    /// Steps out of a slot; a waiting writer looks again.
    #[inline]
    fn leave(&self, slot: usize) {
        self.slots[slot].readers.fetch_sub(1, SeqCst);
        if self.word.load(SeqCst) != OPEN && !mutated(Mutation::ReaderLeavesQuietly) {
            self.wake();
        }
    }
    /// Waits while `must_wait` says so: turning first, then asleep.
    fn wait_while(&self, cx: &Cx, must_wait: &mut dyn FnMut() -> bool) {
        for _ in 0..TURNS {
            if !must_wait() {
                return;
            }
            core::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, SeqCst);
        self.point.wait_while(cx, must_wait);
        self.sleepers.fetch_sub(1, SeqCst);
    }
    /// Has whoever sleeps look again. The state was changed before (S5).
    fn wake(&self) {
        if self.sleepers.load(SeqCst) != 0 {
            self.point.wake_all();
        }
    }
}

/// A held slot that can be marked asleep.
#[derive(Default)]
pub(crate) struct SleepMark {
    /// None in a blank mark, which is nobody's.
    slots: Cell<Option<NonNull<Slots>>>,
    slot: Cell<usize>,
    /// How much of the slot's `asleep` is this mark's: waits nest.
    asleep: Cell<u32>,
}

// SAFETY: a mark lies in its `Cx` only while a guard borrows that `Cx`, so a `Cx` that moves to another thread carries none; and
// what a mark points to is made of atomics and a wait point, which every thread may use.
unsafe impl Send for SleepMark {}
const _: fn() = || {
    fn moves<T: Send>() {}
    moves::<Cx>(); // a thread's context is made by whoever starts the thread
};

impl SleepMark {
    fn of(slots: NonNull<Slots>, slot: usize) -> Self {
        Self { slots: Cell::new(Some(slots)), slot: Cell::new(slot), asleep: Cell::new(0) }
    }
    fn is_of(&self, slots: NonNull<Slots>, slot: usize) -> bool {
        self.slots.get() == Some(slots) && self.slot.get() == slot
    }
    pub(crate) fn is_blank(&self) -> bool {
        self.slots.get().is_none()
    }
    /// Makes a blank mark what `mark` is.
    #[inline]
    pub(crate) fn become_mark(&self, mark: Self) {
        debug_assert!(self.is_blank(), "a mark is one guard's");
        self.slots.set(mark.slots.get());
        self.slot.set(mark.slot.get());
        self.asleep.set(mark.asleep.get());
    }
    /// Leaves a blank mark behind.
    #[inline]
    pub(crate) fn take(&self) -> Self {
        let (slot, asleep) = (self.slot.clone(), Cell::new(self.asleep.take()));
        Self { slots: Cell::new(self.slots.take()), slot, asleep }
    }
    fn get(&self) -> &Slots {
        let slots = self.slots.get().expect("only marks of guards are asked");
        // SAFETY: S4: the slot counted by this mark is non-zero until its guard drops, which also removes the mark; the
        // slots are freed only with all counts zero.
        unsafe { slots.as_ref() }
    }
    pub(crate) fn fall_asleep(&self) {
        let s = self.get();
        if mutated(Mutation::SleeperUnmarked) {
            return;
        }
        self.asleep.set(self.asleep.get() + 1);
        s.slots[self.slot.get()].asleep.fetch_add(1, SeqCst);
        if s.word.load(SeqCst) == WAITING {
            s.wake(); // the gate reopens
        }
    }
    /// Ends the innermost sleep; nothing for a mark made during it.
    pub(crate) fn wake_up(&self) {
        if let Some(less) = self.asleep.get().checked_sub(1) {
            self.asleep.set(less);
            self.get().slots[self.slot.get()].asleep.fetch_sub(1, SeqCst);
        }
    }
    /// Ends every sleep of a mark that goes away.
    pub(crate) fn rouse(&self) {
        let n = self.asleep.take();
        if n != 0 {
            self.get().slots[self.slot.get()].asleep.fetch_sub(n, SeqCst);
        }
    }
}

/// The lock; see the module's theory.
pub struct SlotRwLock<T> {
    rank: Rank,
    slots: NonNull<Slots>,
    writers: CachePadded<imp::Mutex<()>>,
    data: UnsafeCell<T>,
}

// SAFETY: the protocol above gives `&T` to many threads or `&mut T` to one; `Slots` is made of atomics and a wait point.
unsafe impl<T: Send + Sync> Sync for SlotRwLock<T> {}
// SAFETY: the slots are owned by the lock; marks on other threads' `Cx` only reach them through S4.
unsafe impl<T: Send> Send for SlotRwLock<T> {}

impl<T> SlotRwLock<T> {
    /// A lock with a slot for each of `cpus` processors.
    pub fn new(rank: Rank, cpus: u16, value: T) -> Self {
        let slots = Box::new(Slots {
            word: CachePadded::new(AtomicU32::new(OPEN)),
            sleepers: AtomicU32::new(0),
            point: WaitPoint::default(),
            slots: (0..cpus.max(1)).map(|_| CachePadded::default()).collect(),
        });
        Self {
            rank,
            slots: NonNull::from(Box::leak(slots)),
            writers: CachePadded::new(imp::Mutex::new(())),
            data: UnsafeCell::new(value),
        }
    }
    fn slots(&self) -> &Slots {
        // SAFETY: allocated in `new`, freed in `drop`.
        unsafe { self.slots.as_ref() }
    }
    /// Enters as reader.
    #[inline]
    pub fn read<'a>(&'a self, cx: &'a Cx) -> SlotReadGuard<'a, T> {
        cx.rank_wait(self.rank, cx.reads_any());
        let s = self.slots();
        let mut slot = usize::from(cx.cpu().0);
        if slot >= s.slots.len() {
            slot %= s.slots.len();
        }
        s.slots[slot].readers.fetch_add(1, SeqCst);
        if s.word.load(SeqCst) != OPEN {
            self.read_slow(cx, slot);
        }
        cx.push_read(SleepMark::of(self.slots, slot));
        SlotReadGuard { lock: self, cx, slot }
    }
    #[cold]
    fn read_slow(&self, cx: &Cx, slot: usize) {
        let s = self.slots();
        loop {
            match s.word.load(SeqCst) {
                OPEN => return,
                WAITING if cx.reads_any() || s.asleep() => return,
                _ => {}
            }
            s.leave(slot);
            cx.blocking(|| {
                s.wait_while(cx, &mut || match s.word.load(SeqCst) {
                    OPEN => false,
                    WAITING => !s.asleep(),
                    _ => true,
                });
            });
            s.slots[slot].readers.fetch_add(1, SeqCst);
        }
    }
    /// Enters as writer, alone.
    pub fn write<'a>(&'a self, cx: &'a Cx) -> SlotWriteGuard<'a, T> {
        cx.rank_wait(self.rank, false);
        self.write_inner(cx)
    }
    /// Enters as writer while another lock of this rank is held (fork: the parent's first).
    pub fn write_nested<'a>(&'a self, cx: &'a Cx) -> SlotWriteGuard<'a, T> {
        cx.rank_wait(self.rank, true);
        self.write_inner(cx)
    }
    fn write_inner<'a>(&'a self, cx: &'a Cx) -> SlotWriteGuard<'a, T> {
        // A thread that reads another slot lock here (none of ours does) counts as asleep while it queues.
        let serial = imp::try_lock(&self.writers)
            .unwrap_or_else(|| cx.blocking(|| imp::lock(&self.writers, cx)));
        let s = self.slots();
        loop {
            let early = mutated(Mutation::WriterLooksFirst).then(|| s.readers());
            s.word.swap(HELD, SeqCst);
            if early.unwrap_or_else(|| s.readers()) == 0 {
                return SlotWriteGuard { lock: self, cx, _serial: serial };
            }
            s.word.swap(WAITING, SeqCst);
            s.wake(); // whoever saw HELD may now be admitted
            cx.blocking(|| s.wait_while(cx, &mut || s.readers() != 0));
        }
    }
    /// The value, when nobody else can reach the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }
}

impl<T> Drop for SlotRwLock<T> {
    fn drop(&mut self) {
        let s = self.slots();
        if s.readers() == 0 && !s.asleep() {
            // SAFETY: allocated by `Box` in `new`; no reader, hence by S4 no mark, points here.
            drop(unsafe { Box::from_raw(self.slots.as_ptr()) });
        }
    }
}

impl<T> fmt::Debug for SlotRwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotRwLock")
            .field("rank", &self.rank)
            .field("readers", &self.slots().readers())
            .finish_non_exhaustive()
    }
}

/// Shared access to what a [`SlotRwLock`] guards.
pub struct SlotReadGuard<'a, T> {
    lock: &'a SlotRwLock<T>,
    cx: &'a Cx,
    slot: usize,
}

impl<T> Deref for SlotReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: S1: while this guard's slot is counted no writer is in.
        unsafe { &*self.lock.data.get() }
    }
}
impl<T> Drop for SlotReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Before the slot is left: a mark may look at the slots only while they are counted (S4).
        self.cx.pop_read(|m| m.is_of(self.lock.slots, self.slot));
        self.cx.rank_release(self.lock.rank);
        self.lock.slots().leave(self.slot);
    }
}
impl<T> fmt::Debug for SlotReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotReadGuard").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// Exclusive access to what a [`SlotRwLock`] guards.
pub struct SlotWriteGuard<'a, T> {
    lock: &'a SlotRwLock<T>,
    cx: &'a Cx,
    _serial: imp::MutexGuard<'a, ()>,
}

impl<T> Deref for SlotWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the writer is alone (S1, and `writers` among writers).
        unsafe { &*self.lock.data.get() }
    }
}
impl<T> DerefMut for SlotWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `&mut self` makes this the only path.
        unsafe { &mut *self.lock.data.get() }
    }
}
impl<T> Drop for SlotWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.cx.rank_release(self.lock.rank);
        let s = self.lock.slots();
        s.word.swap(OPEN, SeqCst);
        s.wake();
    }
}
impl<T> fmt::Debug for SlotWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWriteGuard").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::cx::SpinHooks;
    use crate::{Counters, CpuId, ThreadId};
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
    use core::time::Duration;
    use std::thread;

    struct Cpus(Arc<Counters>);
    impl Cpus {
        fn new() -> Self {
            Self(Counters::new(4))
        }
        fn cx(&self, cpu: u16) -> Cx {
            Cx::new(&self.0, CpuId(cpu), ThreadId(cpu.into()), Arc::new(SpinHooks))
        }
    }
    fn lock() -> SlotRwLock<u64> {
        SlotRwLock::new(Rank::AsLock, 4, 0)
    }
    fn until(mut done: impl FnMut() -> bool) {
        while !done() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    fn word(l: &SlotRwLock<u64>) -> u32 {
        l.slots().word.load(SeqCst)
    }
    fn asleep(l: &SlotRwLock<u64>) -> u32 {
        l.slots().slots.iter().map(|s| s.asleep.load(SeqCst)).sum()
    }

    #[test]
    fn readers_share_and_re_enter() {
        let (cpus, l) = (Cpus::new(), lock());
        let (a, b) = (cpus.cx(0), cpus.cx(1));
        let (x, y, z) = (l.read(&a), l.read(&a), l.read(&b));
        assert_eq!(l.slots().readers(), 3);
        drop((x, y, z));
        assert_eq!(l.slots().readers(), 0);
        *l.write(&a) += 1;
        assert_eq!(*l.read(&b), 1);
    }

    #[test]
    fn writers_exclude_readers_and_each_other() {
        let (cpus, l) = (Cpus::new(), lock());
        let inside = AtomicU32::new(0);
        thread::scope(|s| {
            for t in 0..4u16 {
                let (cx, l, inside) = (cpus.cx(t), &l, &inside);
                s.spawn(move || {
                    for i in 0..3000u64 {
                        if i % 8 == u64::from(t) {
                            let mut g = l.write(&cx);
                            assert_eq!(inside.fetch_add(1 << 16, SeqCst), 0, "S1");
                            *g += 1;
                            inside.fetch_sub(1 << 16, SeqCst);
                        } else {
                            let g = l.read(&cx);
                            assert_eq!(inside.fetch_add(1, SeqCst) >> 16, 0, "S1");
                            core::hint::black_box(*g);
                            inside.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(*l.read(&cpus.cx(0)), 4 * 375);
        assert_eq!((l.slots().readers(), asleep(&l), word(&l)), (0, 0, OPEN));
    }

    #[test]
    fn a_steady_stream_of_readers_does_not_starve_a_writer() {
        let (cpus, l) = (Cpus::new(), lock());
        let stop = AtomicBool::new(false);
        thread::scope(|s| {
            for t in 0..2u16 {
                let (cx, l, stop) = (cpus.cx(t), &l, &stop);
                s.spawn(move || {
                    while !stop.load(SeqCst) {
                        // Overlapping holds: without the gate the count would hardly ever be 0.
                        let g = l.read(&cx);
                        for _ in 0..200 {
                            core::hint::spin_loop();
                        }
                        drop(g);
                    }
                });
            }
            let cx = cpus.cx(3);
            for _ in 0..200 {
                *l.write(&cx) += 1;
            }
            stop.store(true, SeqCst);
        });
        assert_eq!(*l.read(&cpus.cx(0)), 200);
    }

    #[test]
    fn the_gate_is_shut_to_newcomers_and_open_to_those_inside() {
        let (cpus, l) = (Cpus::new(), lock());
        let (a, w, n) = (cpus.cx(0), cpus.cx(1), cpus.cx(2));
        let entered = AtomicBool::new(false);
        let outer = l.read(&a);
        thread::scope(|s| {
            s.spawn(|| {
                let w = w;
                *l.write(&w) = 7;
            });
            until(|| word(&l) == WAITING);
            s.spawn(|| {
                let n = n;
                let g = l.read(&n);
                entered.store(true, SeqCst);
                assert_eq!(*g, 7, "after the writer");
            });
            thread::sleep(Duration::from_millis(10));
            assert!(!entered.load(SeqCst), "a newcomer waits for the writer");
            drop(l.read(&a)); // re-entry does not
            drop(outer);
        });
        assert!(entered.load(SeqCst));
    }

    #[test]
    fn a_sleeping_reader_opens_the_gate_to_newcomers() {
        let (cpus, l) = (Cpus::new(), lock());
        let (a, w, n) = (cpus.cx(0), cpus.cx(1), cpus.cx(2));
        let woken = AtomicBool::new(false);
        let held = l.read(&a);
        thread::scope(|s| {
            s.spawn(|| {
                let w = w;
                *l.write(&w) = 1;
            });
            until(|| word(&l) == WAITING);
            // Whoever will wake the sleeper has to read first: with the gate shut this would hang.
            let waker = s.spawn(|| {
                let n = n;
                let g = l.read(&n);
                assert_eq!(*g, 0, "before the writer");
                woken.store(true, SeqCst);
            });
            a.blocking(|| until(|| woken.load(SeqCst)));
            waker.join().expect("no panic");
            assert_eq!(asleep(&l), 0);
            drop(held);
        });
        assert_eq!(*l.read(&cpus.cx(0)), 1);
    }

    #[test]
    fn a_guard_remembers_its_slot_across_a_migration() {
        let (cpus, l) = (Cpus::new(), lock());
        let cx = cpus.cx(0);
        let g = l.read(&cx);
        cx.migrate(CpuId(3));
        let h = l.read(&cx);
        assert_eq!(l.slots().slots[0].readers.load(SeqCst), 1);
        assert_eq!(l.slots().slots[3].readers.load(SeqCst), 1);
        cx.blocking(|| assert_eq!(asleep(&l), 2));
        drop((g, h));
        assert_eq!(l.slots().readers(), 0);
        *l.write(&cx) = 1;
    }

    #[test]
    fn a_guard_dropped_while_its_thread_sleeps_leaves_no_sleeper() {
        let (cpus, l) = (Cpus::new(), lock());
        let cx = cpus.cx(0);
        let g = l.read(&cx);
        let keep = l.read(&cx);
        cx.blocking(|| {
            drop(g);
            assert_eq!(asleep(&l), 1);
            let inner = l.read(&cx);
            cx.blocking(|| assert_eq!(asleep(&l), 3, "waits nest; one guard is new"));
            drop(inner);
            assert_eq!(asleep(&l), 1);
        });
        assert_eq!((asleep(&l), l.slots().readers()), (0, 1));
        drop(keep);
    }

    #[test]
    fn a_leaked_guard_leaks_the_slots_and_nothing_dangles() {
        let cpus = Cpus::new();
        let cx = cpus.cx(0);
        {
            let l = lock();
            core::mem::forget(l.read(&cx));
        }
        cx.blocking(|| {}); // walks the mark of the lock that is gone (S4)
        assert_eq!(cx.held().len(), usize::from(cfg!(debug_assertions)));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn writing_while_reading_is_out_of_order() {
        let (cpus, l) = (Cpus::new(), lock());
        let cx = cpus.cx(0);
        let _g = l.read(&cx);
        let _ = l.write(&cx);
    }
}
