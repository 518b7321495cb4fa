//! The kernel's access to user memory, and what `read` and `write` do with it.
//!
//! The kernel reaches user pages as the user does: through the translations, with the user's rights, faulting like the user. What is a
//! signal there is `EFAULT` here. No lock is held meanwhile: bytes wait in a buffer of the call's own, so copying a file over a
//! mapping of itself cannot lock up.
//!
//! Sources: illumos `copyin`, `copyout`, `uiomove` (behaviour); row 32 of the table in [`super::personality`].

use super::SysError;
use super::process::{Process, USER_TOP};
use crate::files::file::MAX_OFFSET;
use crate::files::{FileHandle, PageBuf};
use page_db::{PAGE_MASK, PAGE_SIZE, Vnode, errno};

/// The parts of `[addr, addr + len)` that lie in one page each: bytes before it, its address, its length.
pub(crate) fn pieces(addr: u64, len: u64) -> impl Iterator<Item = (u64, u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = addr.wrapping_add(done);
        let n = (len - done).min(PAGE_SIZE - (at & PAGE_MASK));
        let piece = (done, at, n as usize);
        done += n;
        Some(piece)
    })
}

impl Process {
    /// Copies bytes out of user memory.
    ///
    /// # Errors
    /// `EFAULT`; the bytes before the bad page have been copied.
    pub fn copyin(&self, addr: u64, buf: &mut [u8]) -> Result<(), SysError> {
        self.load(addr, buf).map_err(|e| SysError::arg("copyin", errno::EFAULT, e.what()))
    }
    /// Copies bytes into user memory.
    ///
    /// # Errors
    /// `EFAULT`; the bytes before the bad page have been copied.
    pub fn copyout(&self, addr: u64, bytes: &[u8]) -> Result<(), SysError> {
        self.store(addr, bytes).map_err(|e| SysError::arg("copyout", errno::EFAULT, e.what()))
    }
    /// Reads from a file at `offset` into user memory and says how many bytes there were.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` for the offset, `EFAULT` when user memory gives way at any byte (those before it have moved), or the
    /// file's error at the first byte.
    #[doc(alias = "pread64")]
    pub fn pread(
        &self,
        file: &FileHandle,
        offset: u64,
        addr: u64,
        len: u64,
    ) -> Result<u64, SysError> {
        const CALL: &str = "pread";
        if !file.readable {
            return Err(SysError::arg(CALL, errno::EBADF, "not open for reading"));
        }
        check_transfer(CALL, offset, addr, len)?;
        let mut buf: PageBuf = [0; PAGE_SIZE as usize];
        let there = len.min(file.vnode.size().saturating_sub(offset));
        for (done, at, n) in pieces(addr, there) {
            let got = match file.vnode.pread(
                self.cx(),
                self.machine.db(),
                offset + done,
                &mut buf[..n],
            ) {
                Ok(got) => got,
                Err(e) if done == 0 => return Err(SysError::of(CALL, e)),
                Err(_) => return Ok(done),
            };
            match self.copyout(at, &buf[..got]) {
                Ok(()) => {}
                Err(_) if done > 0 && self.answers().counts_what_was_moved => return Ok(done),
                Err(e) => return Err(SysError { call: CALL, ..e }),
            }
            if got < n {
                return Ok(done + got as u64); // the file got shorter meanwhile
            }
        }
        Ok(there)
    }
    /// Writes user memory to a file at `offset` and says how many bytes.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` for the offset, `EFBIG`, `EFAULT` when user memory gives way at any byte (those before it have moved), or
    /// the file's error at the first byte.
    #[doc(alias = "pwrite64")]
    pub fn pwrite(
        &self,
        file: &FileHandle,
        offset: u64,
        addr: u64,
        len: u64,
    ) -> Result<u64, SysError> {
        const CALL: &str = "pwrite";
        if !file.writable {
            return Err(SysError::arg(CALL, errno::EBADF, "not open for writing"));
        }
        check_transfer(CALL, offset, addr, len)?;
        if len > MAX_OFFSET - offset {
            return Err(SysError::arg(CALL, errno::EFBIG, "the file would become too large"));
        }
        let mut buf: PageBuf = [0; PAGE_SIZE as usize];
        for (done, at, n) in pieces(addr, len) {
            match self.copyin(at, &mut buf[..n]) {
                Ok(()) => {}
                Err(_) if done > 0 && self.answers().counts_what_was_moved => return Ok(done),
                Err(e) => return Err(SysError { call: CALL, ..e }),
            }
            match file.vnode.pwrite(self.cx(), self.machine.db(), offset + done, &buf[..n]) {
                Ok(wrote) if wrote < n => return Ok(done + wrote as u64),
                Ok(_) => {}
                Err(e) if done == 0 => return Err(SysError::of(CALL, e)),
                Err(_) => return Ok(done),
            }
        }
        Ok(len)
    }
}

fn check_transfer(call: &'static str, offset: u64, addr: u64, len: u64) -> Result<(), SysError> {
    if addr.checked_add(len).is_none_or(|end| end > USER_TOP) {
        return Err(SysError::arg(call, errno::EFAULT, "not the user's memory"));
    }
    if offset > MAX_OFFSET {
        return Err(SysError::arg(call, errno::EINVAL, "a negative offset"));
    }
    Ok(())
}
