//! The kernel's fork beside ours: until it returns in the parent, and what the child pays for its first stores.
//!
//! `fork` copies the page tables of everything inheritable, so [`NotInherited`] withholds every other arena of this process
//! meanwhile. The child therefore has no heap: it runs plain loops over inherited memory, reports through a shared mapping, and ends.

use std::ffi::c_void;
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;

use crate::linux::PAGE;

/// Forks and runs `then` in the parent as soon as the call returns there. The child sleeps until then and ends: it runs on the same
/// processor, and taking it apart is not part of the call. Waits for the child.
pub(crate) fn fork_once<T>(then: impl FnOnce() -> T) -> io::Result<T> {
    let (reader, mut writer) = io::pipe()?;
    let mut byte = 0u8;
    let child = || {
        // SAFETY: reads one byte into a live variable of the child's stack.
        unsafe { libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) };
    };
    let then = || {
        let result = then();
        (result, writer.write_all(&[0]))
    };
    let (result, woken) = fork_running(child, then)?;
    woken.map(|()| result)
}

/// Forks and runs `child` in the child, `then` in the parent. Waits for the child, which must end by itself.
///
/// The raw system call is used: libc's fork handlers would run allocator code in a child that inherits no heap. For the same
/// reason `child` must neither allocate nor panic.
pub(crate) fn fork_running<T>(child: impl FnOnce(), then: impl FnOnce() -> T) -> io::Result<T> {
    let nothing = 0usize;
    // SAFETY: plain fork semantics (no shared memory, no new stack). The child runs `child`, which by this function's
    // contract needs no memory but its stack, which is never withheld, and what the caller kept for it.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, libc::SIGCHLD as usize, nothing, nothing, nothing, nothing)
    };
    if pid == 0 {
        child();
        // SAFETY: ends the child without running anything else of this process's.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let result = then();
    let mut status = 0;
    // SAFETY: waits for the child just made, storing into a live integer.
    unsafe { libc::waitpid(pid as i32, &raw mut status, 0) };
    if libc::WIFSIGNALED(status) {
        return Err(io::Error::other(format!(
            "the child died of signal {}",
            libc::WTERMSIG(status)
        )));
    }
    Ok(result)
}

/// Private anonymous memory withheld from children while this lives.
#[derive(Debug)]
pub(crate) struct NotInherited(Vec<Range<usize>>);

impl NotInherited {
    /// Withholds every mapping of a mebibyte or more, except `keep`, the stack and the thread's own block. The kernel merges
    /// neighbours, so it is parts of mappings that are kept.
    pub(crate) fn all_but(keep: &Range<usize>) -> io::Result<Self> {
        let mut kept = [keep.clone(), thread_block()];
        kept.sort_by_key(|range| range.start);
        let mut withheld = Vec::new();
        for line in fs::read_to_string("/proc/self/maps")?.lines() {
            let Some(range) = anonymous_range(line).filter(|range| range.len() >= 1 << 20) else {
                continue;
            };
            let mut from = range.start;
            for keep in &kept {
                withheld.push(from..range.end.min(keep.start));
                from = from.max(keep.end);
            }
            withheld.push(from..range.end);
        }
        withheld.retain(|range| !range.is_empty());
        let guard = Self(withheld);
        guard.advise(libc::MADV_DONTFORK);
        Ok(guard)
    }

    fn advise(&self, advice: i32) {
        for range in &self.0 {
            // SAFETY: changes only what a child would inherit; a mapping that went away meanwhile is an error we ignore.
            unsafe { libc::madvise(range.start as *mut c_void, range.len(), advice) };
        }
    }
}

impl Drop for NotInherited {
    fn drop(&mut self) {
        self.advise(libc::MADV_DOFORK);
    }
}

/// The pages around this thread's local variables: the child's C library looks there.
fn thread_block() -> Range<usize> {
    const AROUND: usize = 8 * PAGE;
    // SAFETY: takes nothing and answers the address of a variable of this thread.
    let at = unsafe { libc::__errno_location() } as usize & !(PAGE - 1);
    at - AROUND..at + AROUND
}

/// The addresses of a line of `/proc/self/maps` that is writable private anonymous memory and not the stack.
fn anonymous_range(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_whitespace();
    let (span, rights, _offset, _device, inode) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let name = fields.next().unwrap_or("");
    if !rights.starts_with("rw")
        || !rights.ends_with('p')
        || inode != "0"
        || name.starts_with("[stack")
        || name.starts_with("[v")
    {
        return None;
    }
    let (start, end) = span.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}
