//! A store in a file of the host.
//!
//! The host file follows the size at once and the bytes when pages are written back ([`super::File::sync`], page-out), so between two
//! syncs other programs see old bytes. What other programs do to the file meanwhile shows in pages that are read later.

use super::store::{PageBuf, Store};
use page_db::{Cx, errno};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An open file of the host.
#[derive(Debug)]
pub struct HostStore {
    file: fs::File,
    writable: bool,
}

impl HostStore {
    /// Opens a regular file of the host and reports its size in bytes.
    ///
    /// # Errors
    /// The errno: `ENOENT`, `EACCES`, `EROFS`, `EISDIR`, `EIO`.
    pub fn open(path: &Path, writable: bool) -> Result<(Self, u64), i32> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(|e| errno_of(&e))?;
        let meta = file.metadata().map_err(|e| errno_of(&e))?;
        if meta.is_dir() {
            return Err(errno::EISDIR);
        }
        if !meta.is_file() {
            return Err(errno::ENODEV);
        }
        Ok((Self { file, writable }, meta.len()))
    }
}

/// The errno of a host error, in illumos's numbers (which differ from the host's above 34).
pub(crate) fn errno_of(e: &io::Error) -> i32 {
    match e.kind() {
        ErrorKind::NotFound => errno::ENOENT,
        ErrorKind::PermissionDenied => errno::EACCES,
        ErrorKind::IsADirectory => errno::EISDIR,
        ErrorKind::ReadOnlyFilesystem => errno::EROFS,
        ErrorKind::StorageFull => errno::ENOSPC,
        ErrorKind::FileTooLarge => errno::EFBIG,
        ErrorKind::OutOfMemory => errno::ENOMEM,
        ErrorKind::InvalidInput => errno::EINVAL,
        _ => errno::EIO,
    }
}

impl Store for HostStore {
    fn read(&self, _cx: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32> {
        let mut done = 0;
        while done < page.len() {
            match self.file.read_at(&mut page[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(errno_of(&e)),
            }
        }
        Ok(())
    }
    fn write(&self, _cx: &Cx, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        self.file.write_all_at(bytes, offset).map_err(|e| errno_of(&e))
    }
    fn resize(&self, _cx: &Cx, from: u64, to: u64) -> Result<(), i32> {
        if to > from {
            // Something may have grown the host file past our end: what lies there must not come up (F1).
            self.file.set_len(from).map_err(|e| errno_of(&e))?;
        }
        self.file.set_len(to).map_err(|e| errno_of(&e))
    }
    fn flush(&self, _cx: &Cx) -> Result<(), i32> {
        self.file.sync_data().map_err(|e| errno_of(&e))
    }
    fn is_writable(&self) -> bool {
        self.writable
    }
}
