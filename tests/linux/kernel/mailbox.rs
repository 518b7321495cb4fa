//! Memory that the test and the processes of a trace share, and how they wake each other.
//!
//! Each process has a [`Mailbox`]: a call with its arguments, an answer, and a word that says whose turn it is, on which both sides sleep. One page store
//! beside them takes what a process saw of all its pages. Everything in the mailboxes is atomic; the page store belongs to whoever's turn it is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use segvm::script::outcome::{PAGE_BYTES, PageBytes};

/// Processes of the trace language.
pub(super) const SLOTS: usize = 8;

/// What a process is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Call {
    /// Find a place for the arena, tell it and the break: the first process's first call.
    Begin = 1,
    /// Make the system call of number `args[0]` with the six that follow.
    System,
    /// Load `args[1]` bytes from `args[0]`.
    Load,
    /// Store `args[2]` and so on to `args[1]` bytes at `args[0]`.
    Store,
    /// Look at every page; with `args[0]`, store to those that can be read.
    Look,
    /// Fork into slot `args[0]`.
    Fork,
    /// End.
    Exit,
}

impl Call {
    fn of(word: u64) -> Option<Call> {
        use Call as C;
        [C::Begin, C::System, C::Load, C::Store, C::Look, C::Fork, C::Exit]
            .into_iter()
            .find(|c| *c as u64 == word)
    }
}

/// Whose turn it is.
const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;

/// A call and its answer.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Mailbox {
    turn: AtomicU32,
    call: AtomicU64,
    args: [AtomicU64; 7],
    answer: [AtomicU64; 4],
}

impl Mailbox {
    /// Nothing is asked.
    pub(super) fn clear(&self) {
        self.turn.store(IDLE, Ordering::Release);
    }

    /// Asks for a call.
    pub(super) fn ask(&self, call: Call, args: &[u64]) {
        self.call.store(call as u64, Ordering::Relaxed);
        for (to, from) in self.args.iter().zip(args) {
            to.store(*from, Ordering::Relaxed);
        }
        self.hand_over(ASKED);
    }

    /// The answer, if it comes before `patience` is over.
    pub(super) fn answer(&self, patience: Duration) -> Option<[u64; 4]> {
        self.wait_for(ANSWERED, Some(patience)).then(|| {
            let words = [0, 1, 2, 3].map(|i| self.answer[i].load(Ordering::Relaxed));
            self.clear();
            words
        })
    }

    /// Waits until a call is asked for.
    pub(super) fn next_call(&self) -> (Option<Call>, [u64; 7]) {
        while !self.wait_for(ASKED, None) {}
        let args = [0, 1, 2, 3, 4, 5, 6].map(|i| self.args[i].load(Ordering::Relaxed));
        (Call::of(self.call.load(Ordering::Relaxed)), args)
    }

    /// Answers.
    pub(super) fn reply(&self, words: [u64; 4]) {
        for (to, from) in self.answer.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        self.hand_over(ANSWERED);
    }

    fn hand_over(&self, turn: u32) {
        self.turn.store(turn, Ordering::Release);
        // SAFETY: wakes sleepers on a word that lives.
        unsafe { libc::syscall(libc::SYS_futex, &raw const self.turn, libc::FUTEX_WAKE, 1) };
    }

    /// Sleeps until it is the turn asked for; `false` when `patience` ended first.
    fn wait_for(&self, turn: u32, patience: Option<Duration>) -> bool {
        // The other side mostly answers sooner than one falls asleep.
        for _ in 0..200 {
            if self.turn.load(Ordering::Acquire) == turn {
                return true;
            }
            std::hint::spin_loop();
        }
        let until = patience.map(|p| libc::timespec {
            tv_sec: p.as_secs() as i64,
            tv_nsec: i64::from(p.subsec_nanos()),
        });
        let until = until.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        loop {
            let now = self.turn.load(Ordering::Acquire);
            if now == turn {
                return true;
            }
            // SAFETY: sleeps on a word that lives, for a time that lives.
            let woken = unsafe {
                libc::syscall(libc::SYS_futex, &raw const self.turn, libc::FUTEX_WAIT, now, until)
            };
            // SAFETY: the place of this thread's errno.
            if woken == -1 && unsafe { *libc::__errno_location() } == libc::ETIMEDOUT {
                return self.turn.load(Ordering::Acquire) == turn;
            }
        }
    }
}

/// Everything shared.
#[derive(Debug)]
pub(super) struct Shared {
    base: *mut u8,
    bytes: usize,
    pages: usize,
}

impl Shared {
    const BOXES: usize = SLOTS * size_of::<Mailbox>();

    /// Mailboxes, and a store for so many pages.
    pub(super) fn new(pages: usize) -> Shared {
        let page = PAGE_BYTES as usize;
        let bytes =
            Self::BOXES.next_multiple_of(page) + pages.next_multiple_of(page) + pages * page;
        // SAFETY: a new mapping at a place of the system's choice.
        let base = unsafe {
            let (prot, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANON);
            libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0)
        };
        assert_ne!(base, libc::MAP_FAILED, "no memory to share with the processes of a trace");
        Shared { base: base.cast(), bytes, pages }
    }

    /// The mailbox of a process.
    pub(super) fn mailbox(&self, slot: usize) -> &Mailbox {
        assert!(slot < SLOTS);
        // SAFETY: within the mapping and aligned; all zeros is a mailbox, and its fields are atomic.
        unsafe { &*self.base.cast::<Mailbox>().add(slot) }
    }

    fn letters(&self) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.base.add(Self::BOXES.next_multiple_of(PAGE_BYTES as usize)) }
    }

    /// The letters of all pages. They belong to whoever's turn it is.
    #[expect(
        clippy::mut_from_ref,
        reason = "turns keep the two sides apart, and each side has one thread"
    )]
    pub(super) fn states(&self) -> &mut [u8] {
        // SAFETY: within the mapping; the other side is asleep, and this side holds one at a time.
        unsafe { std::slice::from_raw_parts_mut(self.letters(), self.pages) }
    }

    /// What was found on page `index`. It belongs to whoever's turn it is.
    #[expect(
        clippy::mut_from_ref,
        reason = "turns keep the two sides apart, and each side has one thread"
    )]
    pub(super) fn page(&self, index: usize) -> &mut PageBytes {
        assert!(index < self.pages);
        let page = PAGE_BYTES as usize;
        // SAFETY: within the mapping; the other side is asleep, and this side holds one at a time.
        unsafe { &mut *self.letters().add(self.pages.next_multiple_of(page) + index * page).cast() }
    }

    /// How many pages there are.
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// An address where a system call may put a byte per page.
    pub(super) fn scratch(&self) -> u64 {
        self.letters() as u64
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: made by `new`; the processes that share it have mappings of their own.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}
