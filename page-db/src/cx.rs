//! Who is running: the value that takes the place of thread-locals.
//!
//! Every operation of the library takes a `&Cx`. It names the CPU (an index into per-CPU arrays sized at boot) and the
//! thread, keeps what a debug build checks (the ranks of the locks held), and what the reader-slot lock needs to know (which
//! slot locks this thread reads, so that it can be marked asleep before it waits). A host makes one per thread through
//! the machine; a kernel makes one per kernel thread and passes its own [`WaitHooks`].
//!
//! - X1: a `Cx` is used by one thread at a time (`!Sync`), and a guard never outlives it (guards borrow it).
//! - X2: on return to user code no rank is held ([`Cx::held`] is empty).
//! - X3: its counter block has one writer, so counting is a load and a store on a line nobody else writes.
//! - X4: a `Cx` is shown to the machine whose counters it was made with, and to no other: what it counts, what it is told to let fail and what wakes it are that
//!   machine's. A debug build panics where another's pages are locked, or its address spaces asked ([`crate::PageDb::assert_cx`]).

use crate::counters::{Counter, CounterBlock, Counters};
use crate::fail::FailKind;
use crate::lock::Rank;
use crate::sync::slot_lock::SleepMark;
use crate::units::CpuId;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;

/// A thread's identity: small, unique within a machine, given by whoever makes the [`Cx`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct ThreadId(pub u32);

/// What the library asks of its surroundings when a thread must wait and no host parking exists.
///
/// On a `std` host none of it is ever called: waiting parks the thread. A kernel supplies its scheduler's yield, sleep and wake, or leaves the defaults,
/// which spin. The hooks of all threads of a machine share their queues: what one puts to sleep another wakes.
///
/// There are two kinds of wait. A lock that is held for some instructions is asked for again and again, with [`WaitHooks::pause`] between. What may take
/// long (a page in transit, a pin, memory, the readers of an address space) is slept for. Whoever ends such a wait changes a word, looks
/// whether anybody has announced itself there, and only then calls [`WaitHooks::wake`]:
///
/// ```text
///   sleeper   announced ─▶ sleep: 1 listed at the place ─▶ 2 must_wait? ─▶ 3 blocks, unless woken since 1
///   waker                         changes the word ─▶ anybody announced? ─▶ wake: whoever is listed there runs
/// ```
///
/// A sleeper that looks before it is listed is lost: the change, and the wake that found nobody listed, came between. None of the three
/// calls anything of the library, but `sleep` asks `must_wait`, which may call `wake`.
pub trait WaitHooks: Send + Sync {
    /// Called over and over while a lock is not to be had; `spins` counts the calls of one wait. Whoever has it must come to run: where priorities are
    /// strict, a yield among equals is not enough after the first few.
    fn pause(&self, spins: u32) {
        let _ = spins;
        core::hint::spin_loop();
    }
    /// Puts the thread to sleep while `must_wait` says so, until somebody wakes `place`. In this order: list the thread at `place`; ask
    /// `must_wait`; if it says yes, block until a [`WaitHooks::wake`] of `place` that came after the listing; and so on. It may come back at any time: then
    /// the library looks for itself and calls again.
    ///
    /// `must_wait` is asked with nothing locked that `wake` takes, for it may itself wake others. Several kinds of waits share a
    /// `place`, and being woken says only that it is time to look. Places come and go, some with the machine and one with each address space, and a number may come
    /// again for another: it means nothing while nobody sleeps there. The default turns in [`WaitHooks::pause`].
    ///
    /// # Locks
    /// Page locks, busy anon slots, and address spaces: as reader (marked asleep), whose holders sleep for a device; as writer, whose holders wait for slots that
    /// others have and, in a fork or a view of one range in another space, for a second address space; and the right to choose addresses. Also two that are held
    /// for moments otherwise: a segment's own lock, while a memory lock reads its pages, and an anon map's growth, while a copy waits for its slots. Without `std`
    /// who wants one of these or the right to choose turns in [`WaitHooks::pause`] for that long.
    fn sleep(&self, place: u64, must_wait: &mut dyn FnMut() -> bool) {
        let _ = place;
        let mut spins = 0u32;
        while must_wait() {
            self.pause(spins);
            spins = spins.saturating_add(1);
        }
    }
    /// Lets every thread that is listed at `place` run. Called by whoever unlocks, with any lock of the library held; it does not wait. The default has nobody to
    /// wake.
    fn wake(&self, place: u64) {
        let _ = place;
    }
}

/// Hooks that only spin; what a host uses (it parks threads and never calls them).
#[derive(Debug, Default, Clone, Copy)]
pub struct SpinHooks;
impl WaitHooks for SpinHooks {}

/// The slot locks a thread reads, in the order they were taken: nearly always none or one, so the first has a place of its own.
#[derive(Default)]
struct Reads {
    /// Blank only when `more` is empty.
    first: SleepMark,
    more: RefCell<Vec<SleepMark>>,
    /// Length of `more`.
    others: Cell<usize>,
}

impl Reads {
    #[inline]
    fn any(&self) -> bool {
        !self.first.is_blank()
    }
    #[inline]
    fn push(&self, mark: SleepMark) {
        if self.first.is_blank() {
            self.first.become_mark(mark);
        } else {
            self.push_another(mark);
        }
    }
    #[cold]
    fn push_another(&self, mark: SleepMark) {
        self.more.borrow_mut().push(mark);
        self.others.set(self.others.get() + 1);
    }
    /// Takes out the innermost mark that `is` recognises: an older one may count a sleep that goes on.
    #[inline]
    fn pop(&self, is: impl Fn(&SleepMark) -> bool) -> SleepMark {
        if self.others.get() != 0 {
            return self.pop_of_many(is);
        }
        assert!(is(&self.first), "X1: a read guard's mark is on its own Cx");
        self.first.take()
    }
    #[cold]
    fn pop_of_many(&self, is: impl Fn(&SleepMark) -> bool) -> SleepMark {
        let mut more = self.more.borrow_mut();
        self.others.set(more.len() - 1);
        if let Some(at) = more.iter().rposition(&is) {
            return more.remove(at);
        }
        assert!(is(&self.first), "X1: a read guard's mark is on its own Cx");
        let first = self.first.take();
        self.first.become_mark(more.remove(0));
        first
    }
    fn each(&self, f: impl Fn(&SleepMark)) {
        if self.any() {
            f(&self.first);
            self.more.borrow().iter().for_each(f);
        }
    }
}

/// One thread's context; see the module's theory.
pub struct Cx {
    cpu: Cell<CpuId>,
    thread: ThreadId,
    hooks: Arc<dyn WaitHooks>,
    block: Arc<CounterBlock>,
    counters: Arc<Counters>,
    #[cfg(debug_assertions)]
    held: RefCell<Vec<Rank>>,
    /// Slot locks this thread reads.
    reads: Reads,
    /// `NOMEMWAIT`: this thread is page-out.
    frees_memory: Cell<bool>,
}

impl Cx {
    /// A context for `thread` running on `cpu`, counting into a new block of `counters`.
    pub fn new(
        counters: &Arc<Counters>,
        cpu: CpuId,
        thread: ThreadId,
        hooks: Arc<dyn WaitHooks>,
    ) -> Self {
        Self {
            cpu: Cell::new(cpu),
            thread,
            block: counters.register(cpu, &hooks),
            hooks,
            counters: Arc::clone(counters),
            #[cfg(debug_assertions)]
            held: RefCell::new(Vec::new()),
            reads: Reads::default(),
            frees_memory: Cell::new(false),
        }
    }
    /// The CPU this thread runs on.
    pub fn cpu(&self) -> CpuId {
        self.cpu.get()
    }
    /// The thread.
    pub fn thread(&self) -> ThreadId {
        self.thread
    }
    /// Moves the thread to another CPU. Guards taken before remember their slot; counters stay with the block.
    pub fn migrate(&self, cpu: CpuId) {
        self.cpu.set(cpu);
    }
    /// The machine's counters, this thread's among them.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
    /// Adds one to a counter.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.block.add(counter, 1);
    }
    /// Adds `n` to a counter.
    #[inline]
    pub fn count_n(&self, counter: Counter, n: u64) {
        self.block.add(counter, n);
    }
    /// What this context has counted so far, whatever others count meanwhile.
    pub fn counted(&self, counter: Counter) -> u64 {
        self.block.get(counter)
    }
    /// Whether this request is to fail ([`crate::fail`]). Asked where something is handed out.
    #[inline]
    pub fn fails(&self, kind: FailKind) -> bool {
        self.block.may_fail() && self.counters.fails(kind)
    }
    /// Whether [`Cx::fails`] may answer yes now.
    #[inline]
    pub(crate) fn may_fail(&self) -> bool {
        self.block.may_fail()
    }
    /// Whether this thread is freeing memory now (page-out's pushes): it may take the last frame, and never waits for one.
    #[doc(alias = "NOMEMWAIT")]
    pub fn frees_memory(&self) -> bool {
        self.frees_memory.get()
    }
    /// Runs `f` as a thread that frees memory ([`Cx::frees_memory`]).
    pub fn freeing_memory<R>(&self, f: impl FnOnce() -> R) -> R {
        // Also after a panic in `f`: a thread that goes on must wait for memory like any other.
        struct Before<'a>(&'a Cell<bool>, bool);
        impl Drop for Before<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let _before = Before(&self.frees_memory, self.frees_memory.replace(true));
        f()
    }
    /// The hooks this thread waits by.
    #[inline]
    pub fn hooks(&self) -> &Arc<dyn WaitHooks> {
        &self.hooks
    }
    /// One turn of a wait that nothing will wake.
    pub fn pause(&self, spins: u32) {
        self.hooks.pause(spins);
    }

    /// Runs `wait`, during which this thread counts as asleep for every slot lock it reads (the gate of DESIGN D3 reopens).
    /// Everything that may take long wraps itself in this: page locks, memory, device transfers.
    pub fn blocking<R>(&self, wait: impl FnOnce() -> R) -> R {
        // The marks keep what they added: a guard dropped inside `wait`, or a panic in it, leaves no slot asleep for ever.
        struct Awake<'a>(&'a Cx);
        impl Drop for Awake<'_> {
            fn drop(&mut self) {
                self.0.reads.each(SleepMark::wake_up);
            }
        }
        self.reads.each(SleepMark::fall_asleep);
        let _awake = Awake(self);
        wait()
    }
    /// Whether this thread reads any slot lock now (it is then always admitted again).
    #[must_use]
    pub fn reads_any(&self) -> bool {
        self.reads.any()
    }
    #[inline]
    pub(crate) fn push_read(&self, mark: SleepMark) {
        self.reads.push(mark);
    }
    /// Forgets the innermost mark that `is` recognises; a sleep it still counts ends with it.
    #[inline]
    pub(crate) fn pop_read(&self, is: impl Fn(&SleepMark) -> bool) {
        self.reads.pop(is).rouse();
    }

    /// Notes a lock that may be waited for.
    ///
    /// # Panics
    /// In a debug build, when the order of [`Rank`] is broken.
    #[inline]
    pub fn rank_wait(&self, rank: Rank, nested: bool) {
        #[cfg(debug_assertions)]
        {
            let mut held = self.held.borrow_mut();
            let worst = held.iter().copied().max();
            let bad = worst.is_some_and(|w| w > rank || (w == rank && !nested));
            assert!(
                !bad,
                "lock order: waits for {rank:?} while holding {held:?} (rank table: page-db/src/lock.rs)"
            );
            held.push(rank);
            self.count(Counter::LockAcquires);
        }
        let _ = (rank, nested);
    }
    /// Notes a lock that was tried and got.
    #[inline]
    pub fn rank_tried(&self, rank: Rank) {
        self.rank_adopted(rank);
        #[cfg(debug_assertions)]
        self.count(Counter::LockAcquires);
    }
    /// Notes a lock that was taken before, by whoever left it behind.
    #[inline]
    pub fn rank_adopted(&self, rank: Rank) {
        #[cfg(debug_assertions)]
        self.held.borrow_mut().push(rank);
        let _ = rank;
    }
    /// Forgets a lock.
    ///
    /// # Panics
    /// In a debug build, when this context holds none of that rank.
    #[inline]
    pub fn rank_release(&self, rank: Rank) {
        #[cfg(debug_assertions)]
        {
            let mut held = self.held.borrow_mut();
            let at =
                held.iter().rposition(|r| *r == rank).expect("X1: a guard's rank is on its own Cx");
            held.remove(at);
        }
        let _ = rank;
    }
    /// The ranks held now, in order of acquisition. Always empty in a release build, where nothing is recorded.
    pub fn held(&self) -> Vec<Rank> {
        #[cfg(debug_assertions)]
        return self.held.borrow().clone();
        #[cfg(not(debug_assertions))]
        Vec::new()
    }
}

impl Drop for Cx {
    fn drop(&mut self) {
        self.counters.retire(&self.block);
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cx")
            .field("cpu", &self.cpu.get().0)
            .field("thread", &self.thread.0)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    /// A thread that took the last frame as page-out, and never waits for one, is not a thread that goes on for a user.
    #[test]
    fn a_thread_that_panics_while_it_frees_memory_frees_none_afterwards() {
        let cx = crate::testing::cx();
        cx.freeing_memory(|| {
            let failed = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                cx.freeing_memory(|| panic!("a push"))
            }));
            assert!(failed.is_err() && cx.frees_memory(), "it does what it did before");
        });
        let failed = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            cx.freeing_memory(|| panic!("a push"))
        }));
        assert!(failed.is_err() && !cx.frees_memory());
    }
}
