//! What a script does to files.

use super::{MachineWorld, run_of};
use crate::files::{self, FileError, FileHandle};
use crate::machine::words::mode_of;
use crate::machine::{Process, SysError};
use crate::script::ast::OpenMode;
use crate::script::outcome::{
    Errno, FNV_OFFSET, Outcome, PAGE_BYTES, PageBytes, fnv, is_zero, page_hash,
};
use crate::script::world::{FileContents, FileSlot, Region, TransferCall};
use page_db::Vnode;
use std::sync::Arc;

/// Bytes that one write to a file may have.
const MAX_WRITE: u64 = 1 << 30;

/// A file as the script knows it.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) handle: FileHandle,
    pub(super) closed: bool,
}

impl MachineWorld {
    pub(super) fn on_file(&self, slot: FileSlot, f: impl FnOnce(&Slot) -> Outcome) -> Outcome {
        self.files.get(&slot.0).map_or(Outcome::Skip, f)
    }
    pub(super) fn add_file(
        &mut self,
        slot: FileSlot,
        made: Result<Arc<files::File>, FileError>,
        mode: OpenMode,
    ) -> Outcome {
        match made {
            Ok(file) => {
                let handle = FileHandle::new(file, mode_of(mode));
                self.files.insert(slot.0, Slot { handle, closed: false });
                Outcome::OK
            }
            Err(e) => e.into(),
        }
    }
    pub(super) fn make_file(&mut self, file: FileSlot, size: u64, mode: OpenMode) -> Outcome {
        if self.files.contains_key(&file.0) {
            return Outcome::Skip;
        }
        if size > files::file::MAX_OFFSET {
            // The file is made; it is its size that is refused.
            let made = self.machine.create_file(&format!("file{}", file.0), 0);
            let made = self.add_file(file, made, mode);
            return if made.is_ok() { Errno::EINVAL.into() } else { made };
        }
        let made = self.machine.create_file(&format!("file{}", file.0), size);
        self.add_file(file, made, mode)
    }
    pub(super) fn write_file(&self, file: FileSlot, offset: u64, len: u64, byte: u8) -> Outcome {
        self.on_file(file, |f| {
            if offset > files::file::MAX_OFFSET || len > files::file::MAX_OFFSET {
                return Errno::EINVAL.into();
            }
            if len > MAX_WRITE || len > files::file::MAX_OFFSET - offset {
                return Errno::EFBIG.into();
            }
            let (cx, db) = (self.machine.cx(), self.machine.db());
            let bytes = run_of(byte, 0, len as usize);
            match f.handle.vnode.pwrite(cx, db, offset, &bytes) {
                Ok(n) => Outcome::count(n as u64),
                Err(e) => e.into(),
            }
        })
    }
    pub(super) fn read_file(&self, file: FileSlot, offset: u64, len: u64) -> Outcome {
        self.on_file(file, |f| {
            if offset > files::file::MAX_OFFSET || len > files::file::MAX_OFFSET {
                return Errno::EINVAL.into();
            }
            let (cx, db) = (self.machine.cx(), self.machine.db());
            let (mut n, mut hash) = (0, FNV_OFFSET);
            let mut buf: PageBytes = [0; PAGE_BYTES as usize];
            let there = len.min(f.handle.vnode.size().saturating_sub(offset));
            while n < there {
                let want = (there - n).min(PAGE_BYTES) as usize;
                match f.handle.vnode.pread(cx, db, offset + n, &mut buf[..want]) {
                    Ok(0) => break,
                    Ok(got) => {
                        hash = fnv(hash, &buf[..got]);
                        n += got as u64;
                    }
                    Err(e) if n == 0 => return e.into(),
                    Err(_) => break,
                }
            }
            Outcome::count_and_hash(n, hash)
        })
    }
    pub(super) fn contents(&self, file: FileSlot) -> Option<FileContents> {
        let f = self.files.get(&file.0)?;
        let (cx, db, vnode) = (self.machine.cx(), self.machine.db(), &f.handle.vnode);
        let size = vnode.size();
        let mut pages = Vec::new();
        for index in 0..size.div_ceil(PAGE_BYTES) {
            let mut bytes: PageBytes = [0; PAGE_BYTES as usize];
            // A page that cannot be read shows as zeros.
            let _ = vnode.pread(cx, db, index * PAGE_BYTES, &mut bytes);
            if !is_zero(&bytes) {
                pages.push((index, page_hash(&bytes)));
            }
        }
        Some(FileContents { size, pages })
    }
    pub(super) fn transfer(
        &self,
        t: &TransferCall,
        call: impl FnOnce(&Process, &FileHandle, Region) -> Result<u64, SysError>,
    ) -> Outcome {
        let Some(f) = self.files.get(&t.file.0) else { return Outcome::Skip };
        self.on_proc(t.memory.region.proc, |p| {
            if f.closed {
                return Errno::EBADF.into();
            }
            match call(self.on_cpu(p, t.memory.cpu), &f.handle, t.memory.region) {
                Ok(n) => Outcome::count(n),
                Err(e) => e.into(),
            }
        })
    }
}
