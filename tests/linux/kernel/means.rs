//! What the account and the kernel under the tests allow.
//!
//! Each means is tried, not looked up: limits, privileges and filters of system calls all have their say. What fails is left out of the traces, for both sides,
//! and the reason is printed.

use std::io::Error;

use segvm::script::ast::Advice;
use segvm::script::outcome::PAGE_BYTES;
use segvm::script::{BREAK_PAGES, DEFAULT_ARENA, Operation, Statement};

/// Operations to leave out, and why.
#[derive(Debug)]
struct Missing {
    is: fn(&Operation) -> bool,
    reason: String,
}

/// What there is not.
#[derive(Debug)]
pub(crate) struct Means {
    missing: Vec<Missing>,
}

/// As much as one process of a trace can have.
const LEN: usize = ((DEFAULT_ARENA + BREAK_PAGES) as u64 * PAGE_BYTES) as usize;

impl Means {
    /// Nothing is missing.
    pub(crate) fn all() -> Means {
        Means { missing: Vec::new() }
    }

    /// Tries everything.
    pub(crate) fn find() -> Means {
        let mut missing = Vec::new();
        let mut lacks = |what: &str, done: Result<(), Error>, is: fn(&Operation) -> bool| {
            if let Err(e) = done {
                missing.push(Missing { is, reason: format!("{what} left out: {e}") });
            }
        };
        lacks("locks are", on_memory(|at| unlock(at, lock(at))), |o| {
            matches!(
                o,
                Operation::Lock(_)
                    | Operation::Unlock(_)
                    | Operation::LockAll(..)
                    | Operation::UnlockAll(_)
            )
        });
        lacks("files are", memory_file(), |o| matches!(o, Operation::File { .. }));
        lacks("`advise free` is", advised(libc::MADV_FREE), |o| {
            matches!(o, Operation::Advise(_, Advice::Free))
        });
        lacks("`advise inherit_zero` is", advised(libc::MADV_WIPEONFORK), |o| {
            matches!(o, Operation::Advise(_, Advice::InheritZero | Advice::InheritCopy))
        });
        lacks("`advise dontfork` is", advised(libc::MADV_DONTFORK), |o| {
            matches!(o, Operation::Advise(_, Advice::DontFork | Advice::DoFork))
        });
        Means { missing }
    }

    /// Why operations are left out.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(|m| m.reason.as_str())
    }

    /// What can be run of a trace.
    pub(crate) fn possible(&self, statements: &[Statement]) -> Vec<Statement> {
        let can = |s: &&Statement| !self.missing.iter().any(|m| (m.is)(&s.operation));
        statements.iter().filter(can).cloned().collect()
    }
}

fn result(r: i32) -> Result<(), Error> {
    if r == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

fn on_memory(call: impl Fn(*mut libc::c_void) -> Result<(), Error>) -> Result<(), Error> {
    // SAFETY: a mapping of this function's own, gone at its end.
    unsafe {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        let at = libc::mmap(std::ptr::null_mut(), LEN, prot, flags, -1, 0);
        if at == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let done = call(at);
        libc::munmap(at, LEN);
        done
    }
}

fn lock(at: *mut libc::c_void) -> Result<(), Error> {
    // SAFETY: changes no byte of what `on_memory` mapped.
    result(unsafe { libc::mlock(at, LEN) })
}

fn unlock(at: *mut libc::c_void, locked: Result<(), Error>) -> Result<(), Error> {
    // SAFETY: as `lock`.
    locked.and_then(|()| result(unsafe { libc::munlock(at, LEN) }))
}

fn advised(advice: i32) -> Result<(), Error> {
    // SAFETY: nobody needs the bytes of what `on_memory` mapped.
    on_memory(|at| result(unsafe { libc::madvise(at, LEN, advice) }))
}

fn memory_file() -> Result<(), Error> {
    // SAFETY: makes a descriptor and closes it.
    unsafe {
        match libc::memfd_create(c"segvm".as_ptr(), libc::MFD_CLOEXEC) {
            -1 => Err(Error::last_os_error()),
            fd => result(libc::close(fd)),
        }
    }
}
