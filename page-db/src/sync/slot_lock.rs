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
//! The other road, an ordinary `RwLock`, measured 0.9x on two threads instead of 1.8x.

#![allow(unsafe_code, reason = "this file is a lock")]

use super::atomic::{AtomicU32, Ordering::SeqCst};
use super::imp::{self, WaitPoint};
use crate::cx::Cx;
use crate::lock::Rank;
use alloc::boxed::Box;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

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
    fn leave(&self, slot: usize) {
        self.slots[slot].readers.fetch_sub(1, SeqCst);
        if self.word.load(SeqCst) != OPEN {
            self.point.wake_all();
        }
    }
}

/// A held slot that can be marked asleep.
pub(crate) struct SleepMark {
    slots: NonNull<Slots>,
    slot: usize,
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
    fn get(&self) -> &Slots {
        // SAFETY: S4: the slot counted by this mark is non-zero until its guard drops, which also removes the mark; the
        // slots are freed only with all counts zero.
        unsafe { self.slots.as_ref() }
    }
    pub(crate) fn fall_asleep(&self) {
        let s = self.get();
        self.asleep.set(self.asleep.get() + 1);
        s.slots[self.slot].asleep.fetch_add(1, SeqCst);
        if s.word.load(SeqCst) == WAITING {
            s.point.wake_all(); // the gate reopens
        }
    }
    /// Ends the innermost sleep; nothing for a mark made during it.
    pub(crate) fn wake_up(&self) {
        if let Some(less) = self.asleep.get().checked_sub(1) {
            self.asleep.set(less);
            self.get().slots[self.slot].asleep.fetch_sub(1, SeqCst);
        }
    }
    /// Ends every sleep of a mark that goes away.
    pub(crate) fn rouse(&self) {
        let n = self.asleep.take();
        if n != 0 {
            self.get().slots[self.slot].asleep.fetch_sub(n, SeqCst);
        }
    }
}

/// The lock; see the module's theory.
pub struct SlotRwLock<T> {
    rank: Rank,
    slots: NonNull<Slots>,
    writers: imp::Mutex<()>,
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
            point: WaitPoint::default(),
            slots: (0..cpus.max(1)).map(|_| CachePadded::default()).collect(),
        });
        Self {
            rank,
            slots: NonNull::from(Box::leak(slots)),
            writers: imp::Mutex::new(()),
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
        let slot = usize::from(cx.cpu().0) % s.slots.len();
        s.slots[slot].readers.fetch_add(1, SeqCst);
        if s.word.load(SeqCst) != OPEN {
            self.read_slow(cx, slot);
        }
        cx.push_read(SleepMark { slots: self.slots, slot, asleep: Cell::new(0) });
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
                s.point.wait_while(cx, &mut || match s.word.load(SeqCst) {
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
            s.word.swap(HELD, SeqCst);
            if s.readers() == 0 {
                return SlotWriteGuard { lock: self, cx, _serial: serial };
            }
            s.word.swap(WAITING, SeqCst);
            s.point.wake_all(); // whoever saw HELD may now be admitted
            cx.blocking(|| s.point.wait_while(cx, &mut || s.readers() != 0));
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
        self.cx.pop_read(|m| m.slots == self.lock.slots && m.slot == self.slot);
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
        s.point.wake_all();
    }
}
impl<T> fmt::Debug for SlotWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWriteGuard").finish_non_exhaustive()
    }
}
