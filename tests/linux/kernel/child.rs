//! What runs in a process of the trace.
//!
//! It is a copy of the test process with one thread, made while other threads may have held any lock. So it does nothing but system calls, loads and stores:
//! no allocation (the break is the trace's), no output, no panic.

use std::arch::asm;
use std::sync::atomic::{AtomicI32, Ordering};

use segvm::script::BREAK_PAGES;
use segvm::script::outcome::{FNV_OFFSET, PAGE_BYTES, PageState, fnv};

use super::mailbox::{Call, Mailbox, Shared};
use super::trap;

/// Where a process looks for room for its arena first, and how far apart its tries are.
const ARENA: u64 = 0x1000_0000_0000;
const STRIDE: u64 = 1 << 40;

/// An answer's first word: done, or stopped by a signal.
pub(super) const DONE: u64 = 0;
pub(super) const STOPPED: u64 = 1;

/// A system call, as the kernel answers it: a number, or an error's, negated.
///
/// # Safety
/// As the call is.
pub(super) unsafe fn system(number: i64, args: [u64; 6]) -> i64 {
    let answer;
    // SAFETY: the kernel's convention; what the call does is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    answer
}

fn call(number: i64, args: [u64; 6]) -> i64 {
    // SAFETY: what a trace says is done to the process that serves it; that it may come to harm is why it is a process of its own.
    unsafe { system(number, args) }
}

/// Makes a copy of this process with one thread, a child of the same parent (`sibling`) or of this one. Answers 0 in the copy.
fn copy(sibling: bool) -> i64 {
    let parent = if sibling { libc::CLONE_PARENT } else { 0 };
    call(libc::SYS_clone, [(libc::SIGCHLD | parent) as u64, 0, 0, 0, 0, 0])
}

/// The test's process, without which no process of a trace lives on.
static TEST: AtomicI32 = AtomicI32::new(0);

/// Starts the first process; answers its number, or an error's negated.
pub(super) fn start(shared: &Shared) -> i64 {
    TEST.store(std::process::id() as i32, Ordering::Relaxed);
    match copy(false) {
        0 => {
            trap::catch_faults();
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            let all = libc::rlimit { rlim_cur: u64::MAX, rlim_max: u64::MAX };
            let set = |what: u32, limit: &libc::rlimit| {
                call(
                    libc::SYS_prlimit64,
                    [0, what.into(), std::ptr::from_ref(limit) as u64, 0, 0, 0],
                )
            };
            set(libc::RLIMIT_CORE, &none);
            set(libc::RLIMIT_MEMLOCK, &all);
            // No huge pages: what is locked and copied is then what the trace says.
            call(libc::SYS_prctl, [libc::PR_SET_THP_DISABLE as u64, 1, 0, 0, 0, 0]);
            serve(shared, 0)
        }
        pid => pid,
    }
}

fn serve(shared: &Shared, mut slot: usize) -> ! {
    let mut me = Me::default();
    loop {
        // Whoever ends, however, takes its children along.
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0, 0]);
        if call(libc::SYS_getppid, [0; 6]) != i64::from(TEST.load(Ordering::Relaxed)) {
            end(0)
        }
        slot = me.answer_calls(shared, slot);
    }
}

fn end(status: u64) -> ! {
    loop {
        call(libc::SYS_exit_group, [status, 0, 0, 0, 0, 0]);
    }
}

/// Where the arena and the break lie.
#[derive(Clone, Copy, Default)]
struct Me {
    arena: u64,
    brk: u64,
}

impl Me {
    /// Serves a mailbox until this process is a new one, whose slot it answers.
    fn answer_calls(&mut self, shared: &Shared, slot: usize) -> usize {
        let mailbox: &Mailbox = shared.mailbox(slot);
        loop {
            let (what, args) = mailbox.next_call();
            let words = match what {
                Some(Call::Begin) => self.begin(shared),
                Some(Call::System) => {
                    let [number, rest @ ..] = args;
                    [call(number as i64, rest) as u64, 0, 0, 0]
                }
                Some(Call::Load) => load(args[0], args[1]),
                Some(Call::Store) => store(args[0], args[1], args[2] as u8),
                Some(Call::Look) => {
                    self.look(shared, args[0] != 0);
                    [DONE; 4]
                }
                Some(Call::Fork) => match copy(true) {
                    0 => return args[0] as usize,
                    pid => [pid as u64, 0, 0, 0],
                },
                Some(Call::Exit) => {
                    mailbox.reply([DONE; 4]);
                    end(0)
                }
                None => end(112),
            };
            mailbox.reply(words);
        }
    }

    /// Finds room for the arena, and rounds the break up to a page.
    fn begin(&mut self, shared: &Shared) -> [u64; 4] {
        let len = (shared.pages() as u64 - u64::from(BREAK_PAGES)) * PAGE_BYTES;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED_NOREPLACE) as u64;
        let tries = (0..64).map(|i| ARENA + i * STRIDE);
        for at in tries {
            let got = call(libc::SYS_mmap, [at, len, libc::PROT_NONE as u64, flags, u64::MAX, 0]);
            if got > 0 {
                call(libc::SYS_munmap, [got as u64, len, 0, 0, 0, 0]);
            }
            if got as u64 == at {
                self.arena = at;
                break;
            }
        }
        let now = call(libc::SYS_brk, [0; 6]) as u64;
        let brk = now.next_multiple_of(PAGE_BYTES);
        if call(libc::SYS_brk, [brk, 0, 0, 0, 0, 0]) as u64 == brk {
            self.brk = brk;
        }
        [self.arena, self.brk, 0, 0]
    }

    /// Notes the letter of every page, and the bytes of those that can be read.
    fn look(&self, shared: &Shared, store: bool) {
        let arena = shared.pages() - BREAK_PAGES as usize;
        for index in 0..shared.pages() {
            let at = match index.checked_sub(arena) {
                None => self.arena + index as u64 * PAGE_BYTES,
                Some(i) => self.brk + i as u64 * PAGE_BYTES,
            };
            let state = look_at(at, shared.page(index), store);
            if let Some(letter) = shared.states().get_mut(index) {
                *letter = state.letter() as u8;
            }
        }
    }
}

fn look_at(at: u64, bytes: &mut [u8], store: bool) -> PageState {
    if let Err(fault) = trap::load(bytes, at) {
        return match (fault.signal, fault.code) {
            (libc::SIGBUS, _) => PageState::Bus,
            (_, trap::SEGV_MAPERR) => PageState::Unmapped,
            _ => PageState::NoAccess,
        };
    }
    if !store {
        return PageState::Readable;
    }
    let first = bytes.first().copied().unwrap_or_default();
    // SAFETY: arena and break are the trace's.
    match unsafe { trap::store(at, 1, first) } {
        Ok(()) => PageState::Writable,
        Err(fault) if fault.signal == libc::SIGBUS => PageState::BusOnWrite,
        Err(_) => PageState::Readable,
    }
}

/// Bytes done, the signal and its code.
fn stopped(fault: trap::Fault, done: u64) -> [u64; 4] {
    [STOPPED, done + fault.at, fault.signal as u64, fault.code as u64]
}

/// Answers the hash and the first sixteen bytes.
fn load(from: u64, len: u64) -> [u64; 4] {
    let mut bytes = [0; PAGE_BYTES as usize];
    let (mut hash, mut first, mut done) = (FNV_OFFSET, [0; 16], 0);
    while done < len {
        let n = (len - done).min(PAGE_BYTES) as usize;
        let Some(piece) = bytes.get_mut(..n) else { end(113) };
        if let Err(fault) = trap::load(piece, from.wrapping_add(done)) {
            return stopped(fault, done);
        }
        hash = fnv(hash, piece);
        if done == 0 {
            first.iter_mut().zip(piece.iter()).for_each(|(to, b)| *to = *b);
        }
        done += n as u64;
    }
    let first = u128::from_le_bytes(first);
    [DONE, hash, first as u64, (first >> 64) as u64]
}

fn store(to: u64, len: u64, first: u8) -> [u64; 4] {
    // SAFETY: the trace may store where it likes; this process serves nobody else.
    match unsafe { trap::store(to, len, first) } {
        Ok(()) => [DONE; 4],
        Err(fault) => stopped(fault, 0),
    }
}
