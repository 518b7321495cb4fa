//! A swap device on a host file or block device.
//!
//! The file may be in use, by this swap even, and under another name: until an area on it has been granted its length and its bytes are
//! nobody's to change. So opening touches neither, and [`SwapDevice::prepare`], which comes after the grant, only makes a file longer.

use crate::device::{DeviceError, DeviceOp, Medium, PAGE, SwapDevice};
use alloc::string::String;
use alloc::vec;
use page_db::{Cx, PAGE_SIZE, Pfn, PhysMem, errno};
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Pages of a host file, read and written in place. A page never written reads as zeros, as holes do.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    name: String,
    medium: Medium,
    /// Pages it has now, or will have once prepared.
    pages: u64,
}

/// The host's number where illumos has the same one, `EIO` where the tables differ.
fn refused(op: DeviceOp, page: u64, e: &std::io::Error) -> DeviceError {
    let errno = e.raw_os_error().filter(|n| (1..35).contains(n)).unwrap_or(errno::EIO);
    DeviceError { op, page, errno }
}

impl FileDevice {
    /// Uses an existing file or block device; its size is rounded down to pages.
    ///
    /// # Errors
    /// [`DeviceError`]: `EISDIR` for a directory, `ENOSYS` for what is neither file nor block device, else what the host says (`EROFS`, `EACCES`).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let fail = |e: std::io::Error| refused(DeviceOp::Open, 0, &e);
        let kind = std::fs::metadata(path).map_err(fail)?.file_type();
        let no = |errno| Err(DeviceError { op: DeviceOp::Open, page: 0, errno });
        if kind.is_dir() {
            return no(errno::EISDIR);
        }
        if !kind.is_file() && !kind.is_block_device() {
            return no(errno::ENOSYS);
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(fail)?;
        let found = file.metadata().map_err(fail)?; // of what was opened, whatever the path leads to by now
        let medium = if found.file_type().is_block_device() {
            Medium::Block { device: found.rdev() }
        } else {
            Medium::File { device: found.dev(), inode: found.ino() }
        };
        let bytes = (&file).seek(SeekFrom::End(0)).map_err(fail)?;
        let name = path.to_string_lossy().into_owned();
        Ok(Self { file, name, medium, pages: bytes / PAGE_SIZE })
    }
    /// Uses a file that has at least `pages` pages once it is prepared: made if there is none, made longer (by a hole) if it is shorter, never
    /// cut. Until then an existing file stays as it is, and a new one is empty. A block device has the pages it has.
    ///
    /// # Errors
    /// [`DeviceError`], as [`FileDevice::open`]; `EFBIG` for a size that no file can have.
    pub fn create(path: impl AsRef<Path>, pages: u64) -> Result<Self, DeviceError> {
        let path = path.as_ref();
        let fail = |e: std::io::Error| refused(DeviceOp::Open, 0, &e);
        if pages > i64::MAX as u64 / PAGE_SIZE {
            return Err(DeviceError { op: DeviceOp::Open, page: 0, errno: errno::EFBIG });
        }
        if !path.exists() {
            // Opened for writing only when there was nothing: what is no file may answer that by waiting.
            OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(fail)?;
        }
        let mut device = Self::open(path)?;
        if matches!(device.medium, Medium::File { .. }) {
            device.pages = device.pages.max(pages);
        }
        Ok(device)
    }
    fn check(&self, op: DeviceOp, page: u64, count: u64) -> Result<(), DeviceError> {
        match page.checked_add(count) {
            Some(end) if end <= self.pages => Ok(()),
            _ => Err(DeviceError { op, page, errno: errno::ENXIO }),
        }
    }
}

impl SwapDevice for FileDevice {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn medium(&self) -> Medium {
        self.medium.clone()
    }
    fn pages(&self) -> u64 {
        self.pages
    }
    fn prepare(&self, _cx: &Cx) -> Result<(), DeviceError> {
        let fail = |e: std::io::Error| refused(DeviceOp::Open, 0, &e);
        let bytes = self.pages * PAGE_SIZE;
        let is_file = matches!(self.medium, Medium::File { .. });
        if is_file && self.file.metadata().map_err(fail)?.len() < bytes {
            self.file.set_len(bytes).map_err(fail)?;
        }
        Ok(())
    }
    fn read(&self, _cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
        self.check(DeviceOp::Read, page, 1)?;
        let mut bounce = vec![0u8; PAGE];
        self.file
            .read_exact_at(&mut bounce, page * PAGE_SIZE)
            .map_err(|e| refused(DeviceOp::Read, page, &e))?;
        mem.write(to, 0, &bounce);
        Ok(())
    }
    fn write(
        &self,
        _cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        self.check(DeviceOp::Write, page, frames.len() as u64)?;
        let mut bounce = vec![0u8; PAGE * frames.len()];
        for (bytes, pfn) in bounce.chunks_exact_mut(PAGE).zip(frames) {
            mem.read(*pfn, 0, bytes);
        }
        self.file
            .write_all_at(&bounce, page * PAGE_SIZE)
            .map_err(|e| refused(DeviceOp::Write, page, &e))
    }
}
