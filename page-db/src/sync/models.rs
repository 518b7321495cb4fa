//! Memory orders, explored: the page lock, the hash chain, the reader-slot lock and the places to sleep, over loom's atomics.
//!
//! Shuttle runs one thread at a time and so sees every store at once; a missing release or fence is invisible to it. Here a load may return any
//! store that the memory model allows. The algorithms are generic over their words ([`super::generic`]), so this is the library's
//! code, in an ordinary test.
//!
//! Each model runs once as the code is, and once for each mistake it is there to notice ([`Slip`]); the second run must fail.
//! What loom cannot say it says in its own way: it gives sequentially consistent *accesses* no common order, only fences, so such an
//! access is modelled as one after a fence, which is how a machine without better instructions does it.
//!
//! Sources: the loom crate's documentation; Norris and Demsky, "CDSChecker" (2013).

#![allow(
    unsafe_code,
    reason = "what a lock guards is looked at through loom's cell, which checks for races"
)]

use crate::hash::chain::{self, Links};
use crate::selock::word as se;
use crate::selock::{COUNT, EWANTED, EXCL, WAITERS};
use crate::sync::generic::{Point, Sleeper, Slip, Word, sleep_while};
use crate::sync::slot_lock::Slots;
use crate::sync::wait::Place;
use alloc::sync::Arc;
use core::cell::Cell;
use core::sync::atomic::Ordering::{self, SeqCst};
use loom::cell::UnsafeCell;
use loom::sync::atomic::fence;
use loom::sync::{Condvar, Mutex};
use loom::thread;

/// No mistake.
const RIGHT: u8 = u8::MAX;

/// Loom's word, in a build that makes the mistake number `SLIP`.
struct Loom<const SLIP: u8>(loom::sync::atomic::AtomicU32);

impl<const SLIP: u8> Loom<SLIP> {
    fn new(value: u32) -> Self {
        Self(loom::sync::atomic::AtomicU32::new(value))
    }
    /// A sequentially consistent access is one after a fence.
    fn fenced<R>(order: Ordering, access: impl FnOnce() -> R) -> R {
        if order == SeqCst {
            fence(SeqCst);
        }
        access()
    }
    fn swap(&self, value: u32, order: Ordering) -> u32 {
        Self::fenced(order, || self.0.swap(value, order))
    }
}

impl<const SLIP: u8> Word for Loom<SLIP> {
    fn slips(slip: Slip) -> bool {
        slip as u8 == SLIP
    }
    fn load(&self, order: Ordering) -> u32 {
        Self::fenced(order, || self.0.load(order))
    }
    fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }
    fn compare_exchange(
        &self,
        old: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        Self::fenced(success, || self.0.compare_exchange(old, new, success, failure))
    }
    fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        Self::fenced(order, || self.0.fetch_add(n, order))
    }
    fn fetch_sub(&self, n: u32, order: Ordering) -> u32 {
        Self::fenced(order, || self.0.fetch_sub(n, order))
    }
    fn fetch_and(&self, bits: u32, order: Ordering) -> u32 {
        Self::fenced(order, || self.0.fetch_and(bits, order))
    }
    fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        Self::fenced(order, || self.0.fetch_or(bits, order))
    }
}

/// How often it was woken, and a condition to sleep on.
struct Bed {
    wakes: Mutex<u64>,
    cond: Condvar,
}

impl Bed {
    fn wakes(&self) -> loom::sync::MutexGuard<'_, u64> {
        self.wakes.lock().expect("a model that panics has failed")
    }
}

impl<const SLIP: u8> Point<Thread<'_, SLIP>> for Bed {
    fn wait_while(&self, _: &Thread<'_, SLIP>, must_wait: &mut dyn FnMut() -> bool) {
        let sleep_past = |seen| {
            let mut wakes = self.wakes();
            while *wakes == seen {
                wakes = self.cond.wait(wakes).expect("a model that panics has failed");
            }
        };
        let late = Loom::<SLIP>::slips(Slip::WakesReadLate);
        sleep_while(must_wait, || *self.wakes(), sleep_past, late);
    }
    fn wake_all(&self) {
        *self.wakes() += 1;
        self.cond.notify_all();
    }
}

/// A thread of a model, and the slot it reads through, if any.
struct Thread<'a, const SLIP: u8> {
    reads: Cell<Option<(&'a Slots<Loom<SLIP>, Bed>, usize)>>,
}

impl<const SLIP: u8> Thread<'_, SLIP> {
    fn new() -> Self {
        Self { reads: Cell::new(None) }
    }
}

impl<const SLIP: u8> Sleeper for Thread<'_, SLIP> {
    fn blocking<R>(&self, wait: impl FnOnce() -> R) -> R {
        let Some((slots, slot)) = self.reads.get() else { return wait() };
        slots.fall_asleep::<Self>(slot);
        let r = wait();
        slots.wake_up(slot, 1);
        r
    }
    fn reads_any(&self) -> bool {
        self.reads.get().is_some()
    }
}

fn place<const SLIP: u8>() -> Place<Loom<SLIP>, Bed> {
    Place::new(Loom::new(0), Bed { wakes: Mutex::new(0), cond: Condvar::new() })
}

/// What a lock guards: loom fails a model in which a look and a change, or two changes, are not in order.
#[derive(Default)]
struct Guarded(UnsafeCell<u32>);

// SAFETY: not sound, and meant so: loom's cell panics at the access that makes it unsound.
unsafe impl Sync for Guarded {}
// SAFETY: a number.
unsafe impl Send for Guarded {}

impl Guarded {
    fn read(&self) -> u32 {
        // SAFETY: the pointer is good for this read, and loom has checked that nobody writes.
        self.0.with(|v| unsafe { *v })
    }
    /// Adds one.
    fn write(&self) {
        // SAFETY: the pointer is good for this write, and loom has checked that nobody else looks.
        self.0.with_mut(|v| unsafe { *v += 1 });
    }
}

/// Explores every execution of `model` with at most `preemptions` forced switches.
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}
/// Runs a model of a mistake and requires that it fails.
#[track_caller]
fn notices(slip: Slip, run: impl FnOnce() + std::panic::UnwindSafe) {
    assert!(std::panic::catch_unwind(run).is_err(), "the model does not notice {slip:?}");
}
/// Runs `$model::<RIGHT>` and then the model with each mistake.
macro_rules! model {
    ($model:ident, $($slip:ident),+) => {{
        $model::<RIGHT>();
        $(notices(Slip::$slip, $model::<{ Slip::$slip as u8 }>);)+
    }};
}

// ---- the page lock ----

/// A page lock, a place to sleep, and what the lock guards.
struct PageLock<const SLIP: u8> {
    word: Loom<SLIP>,
    place: Place<Loom<SLIP>, Bed>,
    value: Guarded,
}

impl<const SLIP: u8> PageLock<SLIP> {
    fn new() -> Self {
        Self { word: Loom::new(0), place: place(), value: Guarded::default() }
    }
    fn wake(&self) {
        self.place.wake_all::<Thread<'_, SLIP>>();
    }
    fn sleep(&self, blocked: &mut dyn FnMut() -> bool) {
        self.place.wait_while(&Thread::<SLIP>::new(), blocked);
    }
    fn lock_shared(&self) {
        if !se::try_shared(&self.word, EXCL | EWANTED) {
            se::wait_shared(&self.word, |blocked| self.sleep(blocked));
        }
    }
    fn unlock_shared(&self) {
        let old = se::unlock_shared(&self.word);
        assert!(old & COUNT != 0, "K1");
        se::left_shared(&self.word, old, || self.wake());
    }
    fn lock_excl(&self) {
        self.lock_excl_as(false);
    }
    fn lock_excl_as(&self, announced: bool) {
        if !se::try_excl(&self.word, EWANTED) {
            se::wait_excl(&self.word, announced, |blocked| self.sleep(blocked));
        }
    }
    fn unlock_excl(&self) {
        if se::unlock_excl(&self.word) & WAITERS != 0 {
            self.wake();
        }
    }
}

/// K1: who is alone is alone, sees what was written before, and everybody gets in: a wake-up that is lost is a deadlock, which loom reports.
fn page_lock_shared_and_exclusive<const SLIP: u8>() {
    [false, true].into_iter().for_each(page_lock_with_a_reader::<SLIP>);
}

/// The same with a writer that is announced while it waits, or is not.
fn page_lock_with_a_reader<const SLIP: u8>(announced: bool) {
    explore(3, move || {
        let lock = Arc::new(PageLock::<SLIP>::new());
        let l = Arc::clone(&lock);
        let writer = thread::spawn(move || {
            l.lock_excl_as(announced);
            l.value.write();
            l.unlock_excl();
        });
        lock.lock_shared();
        let before = lock.value.read();
        assert_eq!(lock.value.read(), before, "K1");
        lock.unlock_shared();
        writer.join().expect("no panic");
        lock.lock_shared();
        assert_eq!(lock.value.read(), 1, "K1");
        lock.unlock_shared();
        assert_eq!(se::state(&lock.word), crate::selock::SeState::default());
    });
}

/// K1, K2 with two that want to be alone, of which one becomes a reader in between and may become alone again.
fn page_lock_up_and_down<const SLIP: u8>() {
    explore(2, || {
        let lock = Arc::new(PageLock::<SLIP>::new());
        let l = Arc::clone(&lock);
        // One is announced, the other waits for it too.
        let other = thread::spawn(move || {
            l.lock_excl_as(true);
            l.value.write();
            l.unlock_excl();
        });
        let l = Arc::clone(&lock);
        let reader = thread::spawn(move || {
            l.lock_shared();
            l.value.read();
            l.unlock_shared();
        });
        lock.lock_excl();
        lock.value.write();
        se::downgrade(&lock.word, || lock.wake());
        let mine = lock.value.read();
        if se::try_upgrade(&lock.word) {
            lock.value.write();
            lock.unlock_excl();
        } else {
            assert_eq!(lock.value.read(), mine, "K1");
            lock.unlock_shared();
        }
        other.join().expect("no panic");
        reader.join().expect("no panic");
        assert_eq!(se::state(&lock.word), crate::selock::SeState::default());
    });
}

#[test]
fn page_lock() {
    model!(page_lock_shared_and_exclusive, TakeRelaxed, LeaveRelaxed, ExclLeavesAlone);
}

#[test]
fn page_lock_changes_hands() {
    model!(page_lock_up_and_down, DowngradeWakesNobody);
}

// ---- the hash chain ----

/// Three pages and two buckets; a name is a bucket and a number in it.
struct Chains<const SLIP: u8> {
    heads: [Loom<SLIP>; 2],
    next: [Loom<SLIP>; 4],
    /// 0 for none.
    names: [Loom<SLIP>; 4],
    locks: [Mutex<()>; 2],
    /// The page locks.
    pages: [PageLock<SLIP>; 4],
}

impl<const SLIP: u8> Links for Chains<SLIP> {
    type Word = Loom<SLIP>;
    type Name = u32;
    fn head(&self, bucket: usize) -> &Loom<SLIP> {
        &self.heads[bucket]
    }
    /// The whole name: a tag that is never mistaken, so that what is mistaken is the order.
    fn as_head(&self, page: u32, name: u32) -> u32 {
        name << 2 | page
    }
    fn first(&self, head: u32) -> u32 {
        head & 3
    }
    fn name(&self, page: u32) -> u32 {
        self.names[page as usize].load(Ordering::Acquire)
    }
    fn next(&self, page: u32) -> &Loom<SLIP> {
        &self.next[page as usize]
    }
    fn is(&self, page: u32, name: u32) -> bool {
        self.names[page as usize].load(Ordering::Acquire) == name
    }
    fn rename(&self, page: u32, name: Option<u32>) {
        self.names[page as usize].store(name.unwrap_or(0), Ordering::Release);
    }
}

const fn bucket(name: u32) -> usize {
    name as usize & 1
}

impl<const SLIP: u8> Chains<SLIP> {
    fn new(pages: &[(u32, u32)]) -> Self {
        let this = Self {
            heads: core::array::from_fn(|_| Loom::new(0)),
            next: core::array::from_fn(|_| Loom::new(0)),
            names: core::array::from_fn(|_| Loom::new(0)),
            locks: core::array::from_fn(|_| Mutex::new(())),
            pages: core::array::from_fn(|_| PageLock::new()),
        };
        for (page, name) in pages {
            assert_eq!(this.file(*page, *name), Ok(()));
        }
        this
    }
    fn file(&self, page: u32, name: u32) -> Result<(), u32> {
        let _held = self.locks[bucket(name)].lock().expect("no panic");
        chain::file(self, bucket(name), name, page)
    }
    fn unfile(&self, page: u32, name: u32) {
        let _held = self.locks[bucket(name)].lock().expect("no panic");
        assert!(chain::unfile(self, bucket(name), page), "H4");
    }
    /// Where `name` is, by the walk without a lock and, when that misses, by the search under it.
    fn exists(&self, name: u32) -> Option<u32> {
        let head = self.heads[bucket(name)].load(Ordering::Acquire);
        // The tag is asked second: loom remembers the last access of a word only, and of all words on the way the name is the one that a mover
        // writes without a look at it first. Without this load it sees nothing to turn round.
        let hint = match head {
            0 => None,
            _ if self.is(self.first(head), name) || head >> 2 == name => Some(self.first(head)),
            _ => chain::walk_on(self, self.first(head), name).0,
        };
        let hint = hint.filter(|page| self.is(*page, name));
        if hint.is_some() || Loom::<SLIP>::slips(Slip::MissBelieved) {
            return hint;
        }
        let _held = self.locks[bucket(name)].lock().expect("no panic");
        chain::search(self, bucket(name), name)
    }
}

/// H2: page 1 stays under its name while page 2, in front of it, is taken, freed and used again on the next chain.
fn chain_carries_the_walker_away<const SLIP: u8>() {
    explore(3, || {
        let chains = Arc::new(Chains::<SLIP>::new(&[(1, 2), (3, 5), (2, 4)]));
        let c = Arc::clone(&chains);
        let mover = thread::spawn(move || {
            c.pages[2].lock_excl();
            c.unfile(2, 4);
            assert_eq!(c.file(2, 7), Ok(()));
            c.pages[2].unlock_excl();
        });
        assert_eq!(chains.exists(2), Some(1), "H2: it was there all the time");
        mover.join().expect("no panic");
    });
}

/// H1, L3: what is found by name is held by that name, whatever it was used for in between; its contents are those of the name.
fn chain_page_is_used_again<const SLIP: u8>() {
    explore(3, || {
        let chains = Arc::new(Chains::<SLIP>::new(&[(2, 4)]));
        let c = Arc::clone(&chains);
        let mover = thread::spawn(move || {
            c.pages[2].lock_excl();
            c.unfile(2, 4);
            c.pages[2].value.write();
            assert_eq!(c.file(2, 6), Ok(()));
            c.pages[2].unlock_excl();
        });
        for (name, contents) in [(4, 0), (6, 1)] {
            let Some(found) = chains.exists(name) else { continue };
            let page = &chains.pages[found as usize];
            page.lock_shared();
            if chains.is(found, name) || SLIP == Slip::HitBelieved as u8 {
                assert_eq!(page.value.read(), contents, "L3");
            }
            page.unlock_shared();
        }
        mover.join().expect("no panic");
    });
}

/// H3: two inserts of one name; the second learns of the first.
fn chain_one_name_one_page<const SLIP: u8>() {
    explore(3, || {
        let chains = Arc::new(Chains::<SLIP>::new(&[]));
        let c = Arc::clone(&chains);
        let other = thread::spawn(move || c.file(2, 4));
        let mine = chains.file(1, 4);
        let theirs = other.join().expect("no panic");
        assert!(matches!((mine, theirs), (Ok(()), Err(1)) | (Err(2), Ok(()))), "H3");
    });
}

/// E3: a name moves from page 1 to page 2, which takes its place in the middle of a chain. Who looks at the pages in this order sees the name on one of
/// them, and who searches finds it.
fn chain_name_moves<const SLIP: u8>() {
    explore(3, || {
        let chains = Arc::new(Chains::<SLIP>::new(&[(1, 2), (3, 4)]));
        let c = Arc::clone(&chains);
        let mover = thread::spawn(move || {
            c.pages[1].lock_excl();
            {
                let _held = c.locks[bucket(2)].lock().expect("no panic");
                assert!(chain::replace(&*c, bucket(2), 2, 1, 2), "H4");
            }
            c.pages[1].unlock_excl();
        });
        let seen = [1, 2].map(|page| chains.is(page, 2));
        assert!(seen.contains(&true), "E3: neither page had the name");
        assert!(chains.exists(2).is_some(), "E3: neither page was found");
        mover.join().expect("no panic");
        assert_eq!(chains.exists(2), Some(2));
    });
}

#[test]
fn hash_chain() {
    model!(chain_carries_the_walker_away, MissBelieved);
    model!(chain_page_is_used_again, HitBelieved, TakeRelaxed, LeaveRelaxed);
    model!(chain_one_name_one_page, InsertBlind);
    model!(chain_name_moves, NameLeavesFirst);
}

// ---- the reader-slot lock ----

/// A slot lock and what it guards.
struct SlotLock<const SLIP: u8> {
    slots: Slots<Loom<SLIP>, Bed>,
    value: Guarded,
}

impl<const SLIP: u8> SlotLock<SLIP> {
    fn new() -> Self {
        Self {
            slots: Slots::new(2, place(), || Loom::new(0)).expect("heap"),
            value: Guarded::default(),
        }
    }
    /// Reads through `slot`, running `inside` as a reader.
    fn read(&self, slot: usize, inside: impl FnOnce(&Thread<'_, SLIP>)) {
        let me = Thread::new();
        self.slots.enter(&me, slot);
        me.reads.set(Some((&self.slots, slot)));
        inside(&me);
        me.reads.set(None);
        self.slots.leave::<Thread<'_, SLIP>>(slot);
    }
    fn write(&self) {
        if !self.slots.try_alone::<Thread<'_, SLIP>>() {
            self.slots.enter_alone(&Thread::<SLIP>::new());
        }
        self.value.write();
        self.slots.leave_alone::<Thread<'_, SLIP>>();
    }
}

/// S1, S2: the writer is alone, and both get in.
fn slot_lock_reader_and_writer<const SLIP: u8>() {
    explore(3, || {
        let lock = Arc::new(SlotLock::<SLIP>::new());
        let l = Arc::clone(&lock);
        let reader = thread::spawn(move || {
            l.read(0, |_| {
                let before = l.value.read();
                assert_eq!(l.value.read(), before, "S1");
            });
        });
        lock.write();
        reader.join().expect("no panic");
        lock.read(1, |_| assert_eq!(lock.value.read(), 1, "S1"));
    });
}

/// A reader sleeps for something that only a newcomer does, with a writer at the gate.
fn slot_lock_sleeper_and_newcomer<const SLIP: u8>() {
    explore(2, || {
        let lock = Arc::new(SlotLock::<SLIP>::new());
        let event = Arc::new((place::<SLIP>(), Loom::<SLIP>::new(0)));
        let l = Arc::clone(&lock);
        let writer = thread::spawn(move || l.write());
        let (l, e) = (Arc::clone(&lock), Arc::clone(&event));
        let newcomer = thread::spawn(move || {
            l.read(1, |_| {
                e.1.swap(1, SeqCst);
                e.0.wake_all::<Thread<'_, SLIP>>();
            });
        });
        lock.read(0, |me| event.0.wait_while(me, &mut || event.1.load(SeqCst) == 0));
        writer.join().expect("no panic");
        newcomer.join().expect("no panic");
    });
}

#[test]
fn slot_lock() {
    model!(
        slot_lock_reader_and_writer,
        ReaderEntersRelaxed,
        ReaderLeavesRelaxed,
        WriterEntersRelaxed,
        WriterLeavesRelaxed,
        ReaderLeavesQuietly
    );
}

#[test]
fn slot_lock_with_a_sleeper() {
    model!(slot_lock_sleeper_and_newcomer, SleeperKeepsTheGate);
}

// ---- the place to sleep ----

/// A state changes and its waiter is woken; nothing but the announcement orders the two.
fn a_place_to_sleep<const SLIP: u8>() {
    explore(3, || {
        let event = Arc::new((place::<SLIP>(), Loom::<SLIP>::new(0)));
        let e = Arc::clone(&event);
        let waker = thread::spawn(move || {
            e.1.swap(1, SeqCst);
            e.0.wake_all::<Thread<'_, SLIP>>();
        });
        let order = Loom::<SLIP>::unless(Slip::SleeperLooksRelaxed, SeqCst);
        event.0.wait_while(&Thread::<SLIP>::new(), &mut || event.1.load(order) == 0);
        waker.join().expect("no panic");
    });
}

#[test]
fn place_to_sleep() {
    model!(a_place_to_sleep, SleeperLooksRelaxed, WakerLooksRelaxed, WakesReadLate);
}
