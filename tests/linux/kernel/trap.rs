//! Loads and stores that may fault, and what happens then.
//!
//! A process of the trace reads and writes addresses of which nobody knows whether they are mapped. Each of the two loops below has one instruction that may
//! fault; the handler knows both addresses, notes the signal and its code, and lets the loop return where it stands, so that its count of bytes done says
//! how far it came. A fault anywhere else is a mistake of this program: the process ends, and the trace gets its CRASH.
//!
//! Jumping out of the handler (`siglongjmp`) would do as well, but may not be done over Rust's frames.

use std::arch::global_asm;
use std::sync::atomic::{AtomicI32, Ordering};

global_asm!(
    ".globl segvm_linux_load, segvm_linux_load_at",
    ".globl segvm_linux_store, segvm_linux_store_at",
    ".globl segvm_linux_stop",
    // rdi to, rsi from, rdx bytes; rax bytes done
    "segvm_linux_load:",
    "xor eax, eax",
    "2: cmp rax, rdx",
    "je segvm_linux_stop",
    "segvm_linux_load_at: mov cl, [rsi + rax]",
    "mov [rdi + rax], cl",
    "inc rax",
    "jmp 2b",
    // rdi to, rsi bytes, dl first byte; rax bytes done
    "segvm_linux_store:",
    "xor eax, eax",
    "3: cmp rax, rsi",
    "je segvm_linux_stop",
    "lea ecx, [rdx + rax]",
    "segvm_linux_store_at: mov [rdi + rax], cl",
    "inc rax",
    "jmp 3b",
    "segvm_linux_stop: ret",
);

unsafe extern "C" {
    fn segvm_linux_load(to: *mut u8, from: u64, len: u64) -> u64;
    fn segvm_linux_store(to: u64, len: u64, first: u8) -> u64;
    safe fn segvm_linux_load_at();
    safe fn segvm_linux_store_at();
    safe fn segvm_linux_stop();
}

/// `si_code` of SIGSEGV: nothing is mapped there, or the mapping does not allow the access.
pub(super) const SEGV_MAPERR: i32 = 1;
pub(super) const SEGV_ACCERR: i32 = 2;

/// The signal that stopped the last loop, and its code.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

/// An access that a signal stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// Bytes done before.
    pub(super) at: u64,
    /// SIGSEGV or SIGBUS.
    pub(super) signal: i32,
    /// `si_code`
    pub(super) code: i32,
}

fn stopped(done: u64, len: u64) -> Result<(), Fault> {
    if done == len {
        return Ok(());
    }
    let (signal, code) = (SIGNAL.load(Ordering::Relaxed), CODE.load(Ordering::Relaxed));
    Err(Fault { at: done, signal, code })
}

/// Loads `to.len()` bytes from `from`, one by one, upwards. The handler must be in place.
pub(super) fn load(to: &mut [u8], from: u64) -> Result<(), Fault> {
    let len = to.len() as u64;
    // SAFETY: `to` may be written as far as it is long; what the load from `from` meets is the handler's business.
    let done = unsafe { segvm_linux_load(to.as_mut_ptr(), from, len) };
    stopped(done, len)
}

/// Stores `first`, `first + 1`, ... at `to`, one by one, upwards.
///
/// # Safety
/// The handler is in place, and nothing of this program's own lies there.
pub(super) unsafe fn store(to: u64, len: u64, first: u8) -> Result<(), Fault> {
    // SAFETY: a store that faults is the handler's business; that others do no harm is promised.
    let done = unsafe { segvm_linux_store(to, len, first) };
    stopped(done, len)
}

/// Puts the handler in place, in this process alone.
pub(super) fn catch_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all zeros is a `sigaction`; the handler touches nothing but two atomics and the context it is given.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands both to a handler with SA_SIGINFO; nobody else looks at them meanwhile.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let place = &mut context.uc_mcontext.gregs[libc::REG_RIP as usize];
    let known = [segvm_linux_load_at as *const (), segvm_linux_store_at as *const ()];
    if !known.iter().any(|at| *at as usize as i64 == *place) {
        // SAFETY: ends this process and nothing else.
        unsafe { libc::_exit(111) }
    }
    SIGNAL.store(signal, Ordering::Relaxed);
    CODE.store(info.si_code, Ordering::Relaxed);
    *place = segvm_linux_stop as *const () as usize as i64;
}
