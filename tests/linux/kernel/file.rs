//! Files in memory, made before any process and known to all under the same numbers.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use segvm::script::ast::OpenMode;
use segvm::script::outcome::Outcome;

use super::words::answer;

/// A file that may be made, and the three descriptors of which a trace uses one.
#[derive(Debug)]
pub(super) struct File {
    control: OwnedFd,
    pub(super) opened: [OwnedFd; 3],
    pub(super) mode: Option<OpenMode>,
    pub(super) closed: bool,
}

impl File {
    pub(super) fn new() -> File {
        // SAFETY: a new descriptor, which is then owned.
        let control = unsafe {
            let fd = libc::memfd_create(c"segvm".as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0, "a file in memory: {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        let path = format!("/proc/self/fd/{}", control.as_raw_fd());
        let open = |read, write| -> OwnedFd {
            let opened = std::fs::OpenOptions::new().read(read).write(write).open(&path);
            opened.expect("a file in memory opens again").into()
        };
        let opened = [open(true, true), open(true, false), open(false, true)];
        File { control, opened, mode: None, closed: false }
    }

    /// The descriptor that the trace uses, or none.
    pub(super) fn fd(&self) -> RawFd {
        let which = match self.mode {
            Some(OpenMode::ReadWrite) => 0,
            Some(OpenMode::ReadOnly) => 1,
            Some(OpenMode::WriteOnly) => 2,
            None => return -1,
        };
        if self.closed { -1 } else { self.opened[which].as_raw_fd() }
    }

    pub(super) fn size(&self) -> u64 {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: a descriptor that is owned, and room for the answer.
        let size = unsafe {
            libc::fstat(self.control.as_raw_fd(), stat.as_mut_ptr());
            stat.assume_init().st_size
        };
        size as u64
    }

    pub(super) fn resize(&self, size: u64) -> Outcome {
        // SAFETY: takes two numbers.
        answer(i64::from(unsafe { libc::ftruncate(self.control.as_raw_fd(), size as i64) }))
    }

    pub(super) fn read_at(&self, offset: u64, to: &mut [u8]) -> Result<usize, Outcome> {
        let fd = self.control.as_raw_fd();
        // SAFETY: room for as many bytes as are asked for.
        let n = unsafe { libc::pread(fd, to.as_mut_ptr().cast(), to.len(), offset as i64) };
        usize::try_from(n).map_err(|_| answer(-1))
    }

    pub(super) fn write_at(&self, offset: u64, from: &[u8]) -> Result<usize, Outcome> {
        let fd = self.control.as_raw_fd();
        // SAFETY: as many bytes as are given.
        let n = unsafe { libc::pwrite(fd, from.as_ptr().cast(), from.len(), offset as i64) };
        usize::try_from(n).map_err(|_| answer(-1))
    }
}
