//! Files: bytes in pages, and the calls that use them by offset.

use crate::script::ast::OpenMode;
use crate::script::outcome::{Errno, FNV_OFFSET, Outcome, PAGE_BYTES, fnv, is_zero, page_hash};
use crate::script::world::{FileContents, TransferCall};

use super::{Attempt, File, Model, Object, USER_TOP, pieces};

/// The largest offset a file may have.
const OFFSET_MAX: u64 = i64::MAX as u64;

impl Object {
    /// Copies out bytes, which must lie before the end.
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len);
        for (_, at, n) in pieces(offset, len as u64) {
            let i = (at % PAGE_BYTES) as usize;
            out.extend_from_slice(&self.peek(at / PAGE_BYTES)[i..i + n]);
        }
        out
    }

    /// Stores bytes and lets the size follow.
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (done, at, n) in pieces(offset, bytes.len() as u64) {
            let (i, from) = ((at % PAGE_BYTES) as usize, done as usize);
            self.page(at / PAGE_BYTES)[i..i + n].copy_from_slice(&bytes[from..from + n]);
        }
        if !bytes.is_empty() {
            self.size = self.size.max(offset + bytes.len() as u64);
        }
    }

    /// Sets the size; what lies past a new end is gone, in its last page too.
    fn resize(&mut self, size: u64) {
        if size < self.size {
            let keep = size.div_ceil(PAGE_BYTES);
            self.pages.split_off(&keep);
            let tail = (size % PAGE_BYTES) as usize;
            if tail != 0
                && let Some(page) = self.pages.get_mut(&(size / PAGE_BYTES))
            {
                page[tail..].fill(0);
            }
        }
        self.size = size;
    }

    fn contents(&self) -> FileContents {
        let mut pages = Vec::new();
        for (&index, bytes) in self.pages.range(..self.page_count()) {
            let mut bytes = **bytes;
            let inside = (self.size - index * PAGE_BYTES).min(PAGE_BYTES) as usize;
            bytes[inside..].fill(0);
            if !is_zero(&bytes) {
                pages.push((index, page_hash(&bytes)));
            }
        }
        FileContents { size: self.size, pages }
    }
}

impl Model {
    fn add_file(&mut self, slot: u32, object: Object, mode: OpenMode) -> Outcome {
        self.objects.push(Object { is_file: true, ..object });
        self.files.insert(slot, File { object: self.objects.len() - 1, mode, closed: false });
        Outcome::OK
    }

    pub(super) fn make_file(&mut self, slot: u32, size: u64, mode: OpenMode) -> Outcome {
        if self.files.contains_key(&slot) {
            return Outcome::Skip;
        }
        let made = self.add_file(slot, Object::default(), mode);
        if size > OFFSET_MAX {
            return Errno::EINVAL.into();
        }
        self.objects[self.files[&slot].object].size = size;
        made
    }

    /// The bytes a host file has now; later changes of either side do not reach the other.
    pub(super) fn open_host_file(&mut self, slot: u32, path: &str, mode: OpenMode) -> Outcome {
        use std::io::ErrorKind;
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) => {
                return match e.kind() {
                    ErrorKind::NotFound => Errno::ENOENT,
                    ErrorKind::PermissionDenied => Errno::EACCES,
                    ErrorKind::IsADirectory => Errno::EISDIR,
                    _ => Errno::EIO,
                }
                .into();
            }
        };
        let mut object = Object::default();
        object.write(0, &bytes);
        self.add_file(slot, object, mode)
    }

    fn object_of(&mut self, slot: u32) -> Option<&mut Object> {
        let file = self.files.get(&slot)?;
        Some(&mut self.objects[file.object])
    }

    pub(super) fn resize_file(&mut self, slot: u32, size: u64) -> Outcome {
        let Some(object) = self.object_of(slot) else { return Outcome::Skip };
        if size > OFFSET_MAX {
            return Errno::EINVAL.into();
        }
        object.resize(size);
        Outcome::OK
    }

    pub(super) fn write_file(&mut self, slot: u32, offset: u64, len: u64, byte: u8) -> Outcome {
        let Some(object) = self.object_of(slot) else { return Outcome::Skip };
        if offset > OFFSET_MAX || len > OFFSET_MAX {
            return Errno::EINVAL.into();
        }
        if len > Self::MAX_WRITE || len > OFFSET_MAX - offset {
            return Errno::EFBIG.into();
        }
        let bytes: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
        object.write(offset, &bytes);
        Outcome::count(len)
    }

    pub(super) fn read_file(&mut self, slot: u32, offset: u64, len: u64) -> Outcome {
        let Some(object) = self.object_of(slot) else { return Outcome::Skip };
        if offset > OFFSET_MAX || len > OFFSET_MAX {
            return Errno::EINVAL.into();
        }
        let n = len.min(object.size.saturating_sub(offset));
        let mut hash = FNV_OFFSET;
        for (_, at, k) in pieces(offset, n) {
            let i = (at % PAGE_BYTES) as usize;
            hash = fnv(hash, &object.peek(at / PAGE_BYTES)[i..i + k]);
        }
        Outcome::count_and_hash(n, hash)
    }

    pub(super) fn close_file(&mut self, slot: u32) -> Outcome {
        match self.files.get_mut(&slot) {
            Some(file) if !file.closed => {
                file.closed = true;
                Outcome::OK
            }
            _ => Outcome::Skip,
        }
    }

    pub(super) fn contents_of(&self, slot: u32) -> Option<FileContents> {
        self.files.get(&slot).map(|f| self.objects[f.object].contents())
    }

    /// From a file into memory. A bad page half way is EFAULT; the bytes before it have moved.
    pub(super) fn file_to_memory(&mut self, call: &TransferCall) -> Result<Outcome, Errno> {
        let Some(&file) = self.files.get(&call.file.0) else { return Ok(Outcome::Skip) };
        if file.closed || file.mode == OpenMode::WriteOnly {
            return Err(Errno::EBADF);
        }
        let region = call.memory.region;
        check_transfer(call)?;
        let size = self.objects[file.object].size;
        let n = region.len.min(size.saturating_sub(call.offset));
        for (done, at, k) in pieces(region.addr, n) {
            if self.reach(region.proc.0, at, Attempt::Store, done).is_err() {
                return Err(Errno::EFAULT);
            }
            let hit = self.hit(region.proc.0, at, k as u64, Attempt::Store);
            let k = hit.map_or(k, |hit| hit.through as usize);
            if k == 0 {
                return Err(Errno::EFAULT);
            }
            let bytes = self.objects[file.object].read(call.offset + done, k);
            let i = (at % PAGE_BYTES) as usize;
            self.own(region.proc.0, at)[i..i + k].copy_from_slice(&bytes);
            if hit.is_some() {
                return Err(Errno::EFAULT);
            }
        }
        Ok(Outcome::count(n))
    }

    /// From memory into a file. A bad page half way is EFAULT; the bytes before it have moved.
    pub(super) fn memory_to_file(&mut self, call: &TransferCall) -> Result<Outcome, Errno> {
        let Some(&file) = self.files.get(&call.file.0) else { return Ok(Outcome::Skip) };
        if file.closed || file.mode == OpenMode::ReadOnly {
            return Err(Errno::EBADF);
        }
        let region = call.memory.region;
        check_transfer(call)?;
        if region.len > 0 && region.len > OFFSET_MAX - call.offset {
            return Err(Errno::EFBIG);
        }
        for (done, at, k) in pieces(region.addr, region.len) {
            let i = (at % PAGE_BYTES) as usize;
            let bytes = match self.reach(region.proc.0, at, Attempt::Load, done) {
                // What is watched stops the copy of the whole page, which was to be written at once.
                Ok(_) if self.hit(region.proc.0, at, k as u64, Attempt::Load).is_some() => {
                    return Err(Errno::EFAULT);
                }
                Ok(page) => self.bytes(page)[i..i + k].to_vec(),
                Err(_) => return Err(Errno::EFAULT),
            };
            self.objects[file.object].write(call.offset + done, &bytes);
        }
        Ok(Outcome::count(region.len))
    }
}

fn check_transfer(call: &TransferCall) -> Result<(), Errno> {
    let region = call.memory.region;
    match region.addr.checked_add(region.len) {
        Some(end) if end <= USER_TOP => {}
        _ => return Err(Errno::EFAULT),
    }
    if call.offset > OFFSET_MAX { Err(Errno::EINVAL) } else { Ok(()) }
}
