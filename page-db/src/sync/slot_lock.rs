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
//!   slot[cpu] = { state | readers, asleep }      OPEN ──writer tries──▶ HELD ──leaves──▶ OPEN
//!                                                  ▲ a few times        │ ▲
//!                                                  └──── readers in ────┤ │ all have left
//!                                                                       ▼ │
//!                                                                     WAITING
//!   reader:  slot.readers += 1, which tells the state
//!              OPEN     in
//!              WAITING  in, if this thread reads any slot lock already or some admitted reader is asleep; else step back, wait
//!              HELD     stay counted, wait until it is not HELD; in
//!   writer:  each slot: state = HELD, which tells the readers; none anywhere? in : OPEN for a while, again
//!              after some whiles WAITING instead, wait for none, again
//! ```
//!
//! - S1: count and state of a slot are one word, and both sides change it whole: either the reader sees `HELD` or the writer sees the reader, so
//!   the two are never in together. Nothing is asked of the order between two words, nor need all slots change at one moment.
//! - S2: `WAITING` only delays newcomers; admitting one is always safe. A reader that found its slot `HELD` is no newcomer: it stays counted, so
//!   the next writer waits for it, and it does not wait for writer after writer of a thread that maps in a loop.
//! - S3: a guard remembers its slot, whatever CPU the thread is on when it drops it.
//! - S4: a [`crate::Cx`] points at the slots of the locks it reads, to mark them before a wait. The slots live on the heap and are freed
//!   only when every count is zero, so a leaked guard leaks the slots instead of leaving that pointer dangling.
//! - S5: a writer waits for the readers that are in when it shuts the gate, and it shuts it after a bounded number of tries.
//! - S6: the readers of a slot never reach the state. Guards that are forgotten stay counted, and there may be any number of them; the count's top bit, `FULL`, is
//!   set long before, and a reader that meets it steps out again and panics. It sees the bit where it looks at the state, so the look is free.
//!
//! A writer is in for some hundred nanoseconds, as is a fault; parking a thread and waking it costs several times that, on both sides. So
//! whoever must wait looks again for a while before it sleeps (`Word::TURNS`), and where nobody sleeps nobody is woken.
//!
//! A line that two processors change costs a fault as much as dozens of its instructions, on some hosts as much as all of them. So a reader looks at its
//! own line and nowhere else, and a writer that met readers lets them pass for a bounded time (`Word::PAUSES`, some microseconds) before it shuts
//! the gate, looking less and less often: every look takes the line from its reader, and with the gate shut at once each fault of a busy
//! thread would wait for each change that another makes elsewhere. Meanwhile other writers may try, and readers that are few are met at the first look.
//!
//! Other roads. An ordinary `RwLock` measured 0.9x on two threads instead of 1.8x. The state in one word of its own, looked at after the count, spares
//! a writer a locked instruction for each slot, going in and coming out; a reader beside a busy writer then lost two lines on each
//! way. Locks for ranges, or for each segment, would let a fault pass a change elsewhere altogether, but a fault finds its segment in the tree that the change
//! edits, and its driver beside it: both would have to be readable while they change.

#![allow(unsafe_code, reason = "this file is a lock")]

use super::atomic::{AtomicU32, Ordering::SeqCst};
use super::generic::{Point, Sleeper, Slip, Word};
use super::imp::{self, WaitPoint};
use super::wait::{CpuPlace, Place};
use super::{Mutation, mutated};
use crate::cx::{Cx, WaitHooks};
use crate::heap::{self, NoHeap};
use crate::lock::Rank;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use crossbeam_utils::CachePadded;

/// A writer is in, or looks whether it may be.
const HELD: u32 = 1 << 31;
/// A writer waits for the readers to leave.
const WAITING: u32 = 1 << 30;
/// The readers; with neither bit above them the gate is open.
const COUNT: u32 = WAITING - 1;
/// More readers than threads can be (S6).
const FULL: u32 = 1 << 29;

#[derive(Default)]
struct Slot<W> {
    /// State and readers (S1).
    word: W,
    asleep: W,
}

impl<W: Word> Slot<W> {
    fn state(&self) -> u32 {
        self.word.load(SeqCst) & !COUNT
    }
}

/// The lock without what it guards, over the words and the place to sleep that it is made of.
pub(crate) struct Slots<W, P> {
    place: Place<W, P>,
    slots: Box<[CachePadded<Slot<W>>]>,
}

impl<W: Word, P> Slots<W, P> {
    /// `cpus` slots of words that `zero` makes.
    pub(crate) fn new(cpus: u16, place: Place<W, P>, zero: impl Fn() -> W) -> Result<Self, NoHeap> {
        let slot = |_| CachePadded::new(Slot { word: zero(), asleep: zero() });
        Ok(Self { place, slots: heap::boxed(usize::from(cpus.max(1)), slot)? })
    }
    fn readers(&self) -> u64 {
        self.slots.iter().map(|s| u64::from(s.word.load(SeqCst) & COUNT)).sum()
    }
    fn asleep(&self) -> bool {
        self.slots.iter().any(|s| s.asleep.load(SeqCst) != 0)
    }
    /// Counts a reader; the state it met, with `FULL` beside it where that is due (S6).
    #[inline]
    fn arrive(&self, slot: usize) -> u32 {
        let order = W::unless(Slip::ReaderEntersRelaxed, SeqCst);
        self.slots[slot].word.fetch_add(1, order) & (!COUNT | FULL)
    }
    /// Enters through a slot as reader.
    #[inline]
    pub(crate) fn enter<C: Sleeper>(&self, cx: &C, slot: usize)
    where
        P: Point<C>,
    {
        let met = self.arrive(slot);
        if met != 0 {
            self.enter_slow(cx, slot, met);
        }
    }
    #[cold]
    fn enter_slow<C: Sleeper>(&self, cx: &C, slot: usize, mut met: u32)
    where
        P: Point<C>,
    {
        let here = &self.slots[slot];
        loop {
            if met & FULL != 0 {
                self.leave(slot);
                panic!("S6: too many readers of a lock: guards are forgotten");
            }
            if met & HELD != 0 {
                // Counted all the while: whoever comes to write next finds this reader (S1).
                self.wait_while(cx, &mut || here.state() & HELD != 0);
                return;
            }
            if met == 0 || cx.reads_any() || self.asleep() {
                return;
            }
            self.leave(slot);
            self.wait_while(cx, &mut || match here.state() {
                0 => false,
                WAITING => !self.asleep(),
                _ => true,
            });
            met = self.arrive(slot);
        }
    }
    /// Waits while `must_wait` says so: turning first, then asleep.
    fn wait_while<C: Sleeper>(&self, cx: &C, must_wait: &mut dyn FnMut() -> bool)
    where
        P: Point<C>,
    {
        for _ in 0..W::TURNS {
            if !must_wait() {
                return;
            }
            core::hint::spin_loop();
        }
        self.place.wait_while(cx, must_wait);
    }
    /// Steps out of a slot; a waiting writer looks again.
    #[inline]
    pub(crate) fn leave<C>(&self, slot: usize)
    where
        P: Point<C>,
    {
        let order = W::unless(Slip::ReaderLeavesRelaxed, SeqCst);
        let met = self.slots[slot].word.fetch_sub(1, order) & !COUNT;
        let quiet = mutated(Mutation::ReaderLeavesQuietly) || W::slips(Slip::ReaderLeavesQuietly);
        if met != 0 && !quiet {
            self.place.wake_all();
        }
    }
    /// Marks a slot asleep once more; the gate reopens for whoever may end the sleep.
    pub(crate) fn fall_asleep<C>(&self, slot: usize)
    where
        P: Point<C>,
    {
        let here = &self.slots[slot];
        here.asleep.fetch_add(1, SeqCst);
        // A gate that is shut after this look is shut by a writer that wakes whoever waits before it.
        if here.state() != 0 && !W::slips(Slip::SleeperKeepsTheGate) {
            self.place.wake_all();
        }
    }
    /// Takes `n` sleeps from a slot.
    pub(crate) fn wake_up(&self, slot: usize, n: u32) {
        self.slots[slot].asleep.fetch_sub(n, SeqCst);
    }
    /// Enters as writer if no reader is in. The caller keeps other writers out.
    pub(crate) fn try_alone<C>(&self) -> bool
    where
        P: Point<C>,
    {
        let alone = self.hold();
        if !alone {
            self.reopen(COUNT);
        }
        alone
    }
    /// Lets readers pass for a while, looking less and less often whether there are any.
    fn let_pass(&self, pauses: &mut core::slice::Iter<'_, u32>) {
        for pause in pauses {
            (0..*pause).for_each(|_| core::hint::spin_loop());
            if self.readers() == 0 {
                return;
            }
        }
    }
    /// Enters as writer, alone; whoever is no reader yet waits meanwhile (S2). The caller keeps other writers out.
    pub(crate) fn enter_alone<C: Sleeper>(&self, cx: &C)
    where
        P: Point<C>,
    {
        while !self.hold() {
            self.reopen(!HELD);
            self.wait_while(cx, &mut || self.readers() != 0);
        }
    }
    /// Holds every slot; whether no reader is in.
    fn hold(&self) -> bool {
        let early = mutated(Mutation::WriterLooksFirst).then(|| self.readers());
        let order = W::unless(Slip::WriterEntersRelaxed, SeqCst);
        let hold = |s: &CachePadded<Slot<W>>| s.word.fetch_or(HELD | WAITING, order) & COUNT;
        let readers = self.slots.iter().map(hold).fold(0, |all, here| all | here);
        early.map_or(readers == 0, |early| early == 0)
    }
    /// Keeps of each slot's word what is in `keep`. Whoever saw it held, or waits for it to open, looks again.
    fn reopen<C>(&self, keep: u32)
    where
        P: Point<C>,
    {
        let order = W::unless(Slip::WriterLeavesRelaxed, SeqCst);
        self.slots.iter().for_each(|s| _ = s.word.fetch_and(keep, order));
        self.place.wake_all();
    }
    /// The writer leaves.
    pub(crate) fn leave_alone<C>(&self)
    where
        P: Point<C>,
    {
        self.reopen(COUNT);
    }
}

type CpuSlots = Slots<AtomicU32, WaitPoint>;

/// A held slot that can be marked asleep.
#[derive(Default)]
pub(crate) struct SleepMark {
    /// None in a blank mark, which is nobody's.
    slots: Cell<Option<NonNull<CpuSlots>>>,
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
    fn of(slots: NonNull<CpuSlots>, slot: usize) -> Self {
        Self { slots: Cell::new(Some(slots)), slot: Cell::new(slot), asleep: Cell::new(0) }
    }
    fn is_of(&self, slots: NonNull<CpuSlots>, slot: usize) -> bool {
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
    fn get(&self) -> &CpuSlots {
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
        s.fall_asleep::<Cx>(self.slot.get());
    }
    /// Ends the innermost sleep; nothing for a mark made during it.
    pub(crate) fn wake_up(&self) {
        if let Some(less) = self.asleep.get().checked_sub(1) {
            self.asleep.set(less);
            self.get().wake_up(self.slot.get(), 1);
        }
    }
    /// Ends every sleep of a mark that goes away.
    pub(crate) fn rouse(&self) {
        let n = self.asleep.take();
        if n != 0 {
            self.get().wake_up(self.slot.get(), n);
        }
    }
}

/// The lock; see the module's theory.
pub struct SlotRwLock<T> {
    rank: Rank,
    slots: NonNull<CpuSlots>,
    writers: CachePadded<imp::Mutex<()>>,
    data: UnsafeCell<T>,
}

// SAFETY: the protocol above gives `&T` to many threads or `&mut T` to one; `Slots` is made of atomics and a wait point.
unsafe impl<T: Send + Sync> Sync for SlotRwLock<T> {}
// SAFETY: the slots are owned by the lock; marks on other threads' `Cx` only reach them through S4.
unsafe impl<T: Send> Send for SlotRwLock<T> {}

impl<T> SlotRwLock<T> {
    /// A lock with a slot for each of `cpus` processors; `hooks` wakes whoever sleeps for it where there is no `std`.
    ///
    /// # Errors
    /// [`NoHeap`]; `value` is dropped.
    pub fn new(
        rank: Rank,
        cpus: u16,
        hooks: &Arc<dyn WaitHooks>,
        value: T,
    ) -> Result<Self, NoHeap> {
        let place = CpuPlace::with_hooks(hooks);
        let slots = Box::new(Slots::new(cpus, place, || AtomicU32::new(0))?);
        Ok(Self {
            rank,
            slots: NonNull::from(Box::leak(slots)),
            writers: CachePadded::new(imp::Mutex::new(())),
            data: UnsafeCell::new(value),
        })
    }
    fn slots(&self) -> &CpuSlots {
        // SAFETY: allocated in `new`, freed in `drop`.
        unsafe { self.slots.as_ref() }
    }
    /// Enters as reader.
    ///
    /// # Panics
    /// When half a thousand million guards of this CPU have been forgotten (S6).
    #[inline]
    pub fn read<'a>(&'a self, cx: &'a Cx) -> SlotReadGuard<'a, T> {
        cx.rank_wait(self.rank, cx.reads_any());
        let s = self.slots();
        let mut slot = usize::from(cx.cpu().0);
        if slot >= s.slots.len() {
            slot %= s.slots.len();
        }
        s.enter(cx, slot);
        cx.push_read(SleepMark::of(self.slots, slot));
        SlotReadGuard { lock: self, cx, slot }
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
    /// The writers' lock, if it is to be had before sleeping pays.
    fn turn(&self) -> Option<imp::MutexGuard<'_, ()>> {
        imp::try_lock(&self.writers).or_else(|| {
            (0..<AtomicU32 as Word>::TURNS).find_map(|_| {
                core::hint::spin_loop();
                imp::try_lock(&self.writers)
            })
        })
    }
    /// Queues for the writers' lock, which its holder has for as long as readers sleep. A thread that reads another slot lock here (none of
    /// ours does) counts as asleep meanwhile.
    fn queue<'a>(&'a self, cx: &'a Cx) -> Serial<'a> {
        let place = &self.slots().place;
        let guard = self.turn().unwrap_or_else(|| imp::queue(&self.writers, cx, place));
        Serial { guard: Some(guard), place }
    }
    fn write_inner<'a>(&'a self, cx: &'a Cx) -> SlotWriteGuard<'a, T> {
        let mut pauses = <AtomicU32 as Word>::PAUSES.iter();
        let slots = self.slots();
        loop {
            let serial = self.queue(cx);
            let alone = if pauses.len() == 0 {
                slots.enter_alone(cx);
                true
            } else {
                slots.try_alone::<Cx>()
            };
            if alone {
                return SlotWriteGuard { lock: self, cx, _serial: serial };
            }
            drop(serial); // another writer may find no reader sooner
            slots.let_pass(&mut pauses);
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
        self.lock.slots().leave::<Cx>(self.slot);
    }
}
impl<T> fmt::Debug for SlotReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotReadGuard").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// The writers' lock, held.
struct Serial<'a> {
    guard: Option<imp::MutexGuard<'a, ()>>,
    place: &'a CpuPlace,
}
impl Drop for Serial<'_> {
    fn drop(&mut self) {
        self.guard = None;
        imp::left_queue(self.place);
    }
}

/// Exclusive access to what a [`SlotRwLock`] guards.
pub struct SlotWriteGuard<'a, T> {
    lock: &'a SlotRwLock<T>,
    cx: &'a Cx,
    _serial: Serial<'a>,
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
        self.lock.slots().leave_alone::<Cx>();
    }
}
impl<T> fmt::Debug for SlotWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotWriteGuard").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
