//! A file: size, pages and store, kept together.
//!
//! # The difficulty
//!
//! A file's size is read by every fault on it and changed by writes and truncation, while pages come and go and are written
//! back. Truncation must leave no page past the new end, in no address space; growth must not bring up bytes that a store through
//! a mapping left behind the old end.
//!
//! # The rule
//!
//! ```text
//!   get_page   shape (reader) ─▶ offset < size? ─▶ page locked ─▶ shape let go         the page is there: truncation waits for its lock
//!   truncate   shape (writer) ─▶ pages past it listed ─▶ store cut ─▶ size set ─▶ they are destroyed, one lock at a time ─▶ store cut again
//!   pwrite     shape (reader, or writer when it extends) ─▶ page ─▶ bytes ─▶ modified
//! ```
//!
//! - F2: no page past the end is in memory once `truncate` has returned, nor mapped anywhere.
//! - F3: bytes past the end in the last page are zeros when it is filled, in the store always, and again when the file grows.
//! - F4: whoever stores makes the size cover it first and marks the page modified then, before he lets its lock go. Page-out never writes too
//!   little: a write-back beside the store that looked at the old size leaves a page that is marked again.
//! - F5: no user memory is touched with a lock held; callers copy through a buffer of their own.
//! - F6: who stores to a page takes it from its borrowers first ([`PageDb::break_loan`]).
//! - F7: a write-back looks at the size with its page in transit. So truncation, once it has set the size, waits for every transit of what
//!   it cuts, the last page too, and cuts the store again: whoever writes later has looked at the new size.
//!
//! Waiting for the shape lock counts as sleeping ([`Cx::blocking`]): its holder may itself wait for a page that somebody pins.
//!
//! Sources: illumos.md 7.8 (`pvn_*`), 12; illumos behaviour of `segmap`-less file systems.

use super::host_file::HostStore;
use super::mem_file::MemStore;
use super::store::{PageBuf, Store};
use page_db::sync::atomic::{AtomicU64, Ordering};
use page_db::sync::{Mutex, RwLock};
use page_db::{
    Access, Counter, Cx, ExclPage, FailKind, FileOffset, GotPage, Identity, LockedPage, PAGE_MASK,
    PAGE_SIZE, PageDb, PageError, PageId, Pfn, Prot, PutFlags, Rank, RefMod, SharedPage, Vnode,
    VnodeError, VnodeId, VnodeKind, errno, pvn,
};
use std::path::Path;
use std::sync::{Arc, Weak};

/// The largest offset a file may have (`MAXOFFSET_T`).
pub const MAX_OFFSET: u64 = i64::MAX as u64;

const PAGE: usize = PAGE_SIZE as usize;
static ZEROS: PageBuf = [0; PAGE];

/// Why a file could not be read, written or resized.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// The file may not be written.
    #[error("`{name}` is on a read-only store")]
    ReadOnly {
        /// The file.
        name: String,
    },
    /// The offset is not one.
    #[error("offset {offset:#x} of `{name}` passes the largest file offset")]
    BadOffset {
        /// The file.
        name: String,
        /// What was asked for.
        offset: u64,
    },
    /// The file would become too large.
    #[error("`{name}` cannot have {end:#x} bytes")]
    TooBig {
        /// The file.
        name: String,
        /// Bytes it would have.
        end: u64,
    },
    /// The store refused a new size, or to open, or to flush.
    #[error("the store of `{name}` failed with errno {errno}")]
    Store {
        /// The file.
        name: String,
        /// What it said.
        errno: i32,
    },
    /// No frame could be had, and nothing can be reclaimed.
    #[error("no memory for a page of `{name}`: {source}")]
    NoMemory {
        /// The file.
        name: String,
        /// Why.
        source: PageError,
    },
    /// No number for the vnode.
    #[error("no vnode number is left for `{name}`")]
    NoVnode {
        /// The file.
        name: String,
    },
    /// A page could not be had.
    #[error(transparent)]
    Vnode(#[from] VnodeError),
}

impl FileError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::ReadOnly { .. } => errno::EROFS,
            Self::BadOffset { .. } => errno::EINVAL,
            Self::TooBig { .. } => errno::EFBIG,
            Self::Store { errno, .. } => *errno,
            Self::NoMemory { .. } | Self::NoVnode { .. } => errno::ENOMEM,
            Self::Vnode(e) => e.errno(),
        }
    }
}

/// Failures to come, for tests: the k-th transfer from now fails.
#[derive(Debug, Default)]
struct Injected {
    reads: Option<(u64, i32)>,
    writes: Option<(u64, i32)>,
}

impl Injected {
    fn strike(slot: &mut Option<(u64, i32)>) -> Result<(), i32> {
        match slot {
            Some((1, errno)) => {
                let errno = *errno;
                *slot = None;
                Err(errno)
            }
            Some((k, _)) => {
                *k -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A regular file: a vnode whose pages are filled from a [`Store`] and written back to it.
#[doc(alias = "vnode_t")]
#[derive(Debug)]
pub struct File {
    id: VnodeId,
    name: String,
    /// Bytes; changes under `shape` as writer, or as F4 says.
    size: AtomicU64,
    /// Reader: the size stays. Writer: the size changes.
    shape: RwLock<()>,
    store: Box<dyn Store>,
    /// Pages of all mappings.
    mapped: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    injected: Mutex<Injected>,
}

impl File {
    /// A file of `size` bytes that `store` holds.
    ///
    /// # Errors
    /// [`FileError::TooBig`], [`FileError::NoVnode`].
    pub fn new(
        cx: &Cx,
        db: &PageDb,
        name: &str,
        size: u64,
        store: Box<dyn Store>,
    ) -> Result<Arc<Self>, FileError> {
        let name = name.to_owned();
        if size > MAX_OFFSET {
            return Err(FileError::TooBig { name, end: size });
        }
        let Ok(id) = db.vnodes().register(cx, VnodeKind::File) else {
            return Err(FileError::NoVnode { name });
        };
        let file = Arc::new(Self {
            id,
            name,
            size: AtomicU64::new(size),
            shape: RwLock::new(Rank::Vnode, ()),
            store,
            mapped: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            injected: Mutex::new(Rank::VnodeData, Injected::default()),
        });
        let object: Weak<Self> = Arc::downgrade(&file);
        db.vnodes().attach(id, object);
        Ok(file)
    }
    /// A file of `size` zero bytes in the host's memory.
    ///
    /// # Errors
    /// As [`File::new`].
    pub fn in_memory(cx: &Cx, db: &PageDb, name: &str, size: u64) -> Result<Arc<Self>, FileError> {
        Self::new(cx, db, name, size, Box::new(MemStore::new()))
    }
    /// A file of the host, under its path as name.
    ///
    /// # Errors
    /// [`FileError::Store`] with the host's errno, and as [`File::new`].
    pub fn on_host(
        cx: &Cx,
        db: &PageDb,
        path: &Path,
        writable: bool,
    ) -> Result<Arc<Self>, FileError> {
        let name = path.display().to_string();
        let (store, size) = HostStore::open(path, writable)
            .map_err(|errno| FileError::Store { name: name.clone(), errno })?;
        Self::new(cx, db, &name, size, Box::new(store))
    }
    /// Whether the store takes writes.
    pub fn is_writable(&self) -> bool {
        self.store.is_writable()
    }
    /// Whether it can be mapped.
    #[doc(alias = "VNOMAP")]
    pub fn is_mappable(&self) -> bool {
        self.store.is_mappable()
    }
    /// Marks the file as being run: its pages count as "Exec and libs" (`VVMEXEC`).
    pub fn set_exec(&self, db: &PageDb) {
        db.vnodes().set_kind(self.id, VnodeKind::Exec);
    }
    /// Pages of all mappings of the file (mapped, not resident).
    pub fn mapped_pages(&self) -> u64 {
        self.mapped.load(Ordering::Acquire)
    }
    /// Pages read from and written to the store so far.
    pub fn transfers(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.writes.load(Ordering::Relaxed))
    }
    /// The page at `offset` as it is now, in memory or in the store, without bringing it in.
    ///
    /// # Errors
    /// The store's errno.
    pub fn look(&self, cx: &Cx, db: &PageDb, offset: u64) -> Result<PageBuf, i32> {
        let mut bytes = [0; PAGE];
        match db.exists(cx, self.identity(offset)) {
            Some(page) => db.mem().read(db.pages().pfn(page), 0, &mut bytes),
            None => self.store.read(cx, offset, &mut bytes)?,
        }
        let inside = self.size().saturating_sub(offset).min(PAGE_SIZE) as usize;
        bytes[inside..].fill(0);
        Ok(bytes)
    }
    /// Makes the `k`-th read from now (counting from 1) fail with `errno`; 0 calls it off.
    pub fn fail_read(&self, cx: &Cx, k: u64, errno: i32) {
        self.injected.lock(cx).reads = (k != 0).then_some((k, errno));
    }
    /// Makes the `k`-th write from now (counting from 1) fail with `errno`; 0 calls it off.
    pub fn fail_write(&self, cx: &Cx, k: u64, errno: i32) {
        self.injected.lock(cx).writes = (k != 0).then_some((k, errno));
    }
    /// Destroys every page and gives the vnode number back; for a file that nobody maps or has open. Says whether it could.
    pub fn retire(&self, cx: &Cx, db: &PageDb) -> bool {
        let flags = PutFlags::INVAL | PutFlags::TRUNC | PutFlags::FORCE;
        let gone = pvn::put_range(cx, db, self.id, FileOffset(0), 0, flags, |_, _| Ok(()));
        gone.is_ok() && db.vnodes().retire(cx, self.id)
    }

    fn io(&self, offset: u64, errno: i32) -> VnodeError {
        VnodeError::Io { vnode: self.id, offset: FileOffset(offset), errno }
    }
    fn identity(&self, offset: u64) -> Identity {
        Identity::new(self.id, FileOffset(offset))
    }
    /// Whether a transfer may be made: neither this file nor the machine is to fail it.
    fn may(
        &self,
        cx: &Cx,
        kind: FailKind,
        line: fn(&mut Injected) -> &mut Option<(u64, i32)>,
    ) -> Result<(), i32> {
        if cx.fails(kind) {
            return Err(errno::EIO);
        }
        Injected::strike(line(&mut self.injected.lock(cx)))
    }
    /// Fills a frame with the page at `offset` (F3).
    fn fill(&self, cx: &Cx, db: &PageDb, offset: u64, pfn: Pfn) -> Result<(), VnodeError> {
        let mut page = [0; PAGE];
        self.may(cx, FailKind::VnodeRead, |i| &mut i.reads)
            .and_then(|()| self.store.read(cx, offset, &mut page))
            .map_err(|e| self.io(offset, e))?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        cx.count(Counter::PgIn);
        cx.count(Counter::PgPgIn);
        cx.count(match db.vnodes().kind(self.id) {
            VnodeKind::Exec => Counter::ExecPgIn,
            _ => Counter::FsPgIn,
        });
        let inside = self.size().saturating_sub(offset).min(PAGE_SIZE) as usize;
        page[inside..].fill(0);
        db.mem().write(pfn, 0, &page);
        Ok(())
    }
    /// Writes a frame to the store, up to the end of the file.
    fn write_back(&self, cx: &Cx, db: &PageDb, offset: u64, pfn: Pfn) -> Result<(), VnodeError> {
        let inside = self.size().saturating_sub(offset).min(PAGE_SIZE) as usize;
        if inside == 0 {
            return Ok(()); // truncation is on its way to destroy the page
        }
        let mut page = [0; PAGE];
        db.mem().read(pfn, 0, &mut page[..inside]);
        self.may(cx, FailKind::VnodeWrite, |i| &mut i.writes)
            .and_then(|()| self.store.write(cx, offset, &page[..inside]))
            .map_err(|e| self.io(offset, e))?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    /// Runs `op` until it needs no memory that is not there. `op` holds nothing when it returns.
    fn with_memory<R>(
        &self,
        cx: &Cx,
        db: &PageDb,
        mut op: impl FnMut() -> Result<R, VnodeError>,
    ) -> Result<R, FileError> {
        loop {
            match op() {
                Err(VnodeError::NoMemory { .. }) => db
                    .wait_for_memory(cx, 1)
                    .map_err(|source| FileError::NoMemory { name: self.name.clone(), source })?,
                other => return other.map_err(FileError::from),
            }
        }
    }

    /// Reads bytes at `offset` through the page cache; returns how many there were before the end of the file.
    ///
    /// # Errors
    /// [`FileError`] when not even the first page could be read; after that the count is short.
    pub fn pread(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, FileError> {
        if offset > MAX_OFFSET {
            return Err(FileError::BadOffset { name: self.name.clone(), offset });
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let left = &mut buf[done..];
            match self.with_memory(cx, db, || self.read_piece(cx, db, at, left)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    /// Reads what one page holds of `buf`; 0 at the end of the file.
    fn read_piece(
        &self,
        cx: &Cx,
        db: &PageDb,
        at: u64,
        buf: &mut [u8],
    ) -> Result<usize, VnodeError> {
        let _shape = cx.blocking(|| self.shape.read(cx));
        let within = (at & PAGE_MASK) as usize;
        let inside = self.size().saturating_sub(at).min((PAGE - within) as u64);
        let n = buf.len().min(inside as usize);
        if n > 0 {
            let floor = at & !PAGE_MASK;
            let got = self.page_at(cx, db, floor)?;
            db.mem().read(got.page.pfn(), within, &mut buf[..n]);
        }
        Ok(n)
    }
    fn page_at<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        floor: u64,
    ) -> Result<pvn::Filled<'a>, VnodeError> {
        pvn::get(cx, db, self.identity(floor), floor / PAGE_SIZE, |page| {
            self.fill(cx, db, floor, page.pfn())
        })
    }

    /// Writes bytes at `offset` through the page cache, extending the file; returns how many were written.
    ///
    /// # Errors
    /// [`FileError`] when not even the first page could be written; after that the count is short.
    pub fn pwrite(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, FileError> {
        self.check_writable()?;
        let name = || self.name.clone();
        if offset > MAX_OFFSET {
            return Err(FileError::BadOffset { name: name(), offset });
        }
        let end = offset + bytes.len() as u64;
        if end > MAX_OFFSET {
            return Err(FileError::TooBig { name: name(), end });
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let left = &bytes[done..];
            match self.with_memory(cx, db, || self.write_piece(cx, db, at, left)) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn check_writable(&self) -> Result<(), FileError> {
        if self.store.is_writable() {
            return Ok(());
        }
        Err(FileError::ReadOnly { name: self.name.clone() })
    }
    /// Writes what fits into one page.
    fn write_piece(
        &self,
        cx: &Cx,
        db: &PageDb,
        at: u64,
        bytes: &[u8],
    ) -> Result<usize, VnodeError> {
        let within = (at & PAGE_MASK) as usize;
        let piece = &bytes[..bytes.len().min(PAGE - within)];
        let end = at + piece.len() as u64;
        {
            let _shape = cx.blocking(|| self.shape.read(cx));
            if end <= self.size() {
                self.store_piece(cx, db, at, piece)?;
                return Ok(piece.len());
            }
        }
        let _shape = cx.blocking(|| self.shape.write(cx));
        let old = self.size();
        if end > old {
            let tail = self.own_tail(cx, db, old)?;
            cx.blocking(|| self.store.resize(cx, old, end)).map_err(|e| self.io(at, e))?;
            Self::zero_tail(db, tail.as_ref(), old);
        }
        let stored = self.store_piece(cx, db, at, piece);
        if stored.is_err() && end > old {
            // Back to before; nobody has seen the new size. If the store refuses, it has zeros to spare.
            let _ = cx.blocking(|| self.store.resize(cx, end, old));
        }
        stored.map(|()| piece.len())
    }
    /// Puts bytes into the page that holds `at` and lets the size follow. `shape` is held, as writer when the size must grow.
    fn store_piece(&self, cx: &Cx, db: &PageDb, at: u64, piece: &[u8]) -> Result<(), VnodeError> {
        let (floor, within) = (at & !PAGE_MASK, (at & PAGE_MASK) as usize);
        let end = at + piece.len() as u64;
        // Nothing of the store shows when the piece reaches from the page's start to its end or the file's, or the page is new.
        let size = self.size();
        let covers = floor >= size || (within == 0 && (piece.len() == PAGE || end >= size));
        let put = |pfn: Pfn| db.mem().write(pfn, within, piece);
        let page = loop {
            let got = pvn::get(
                cx,
                db,
                self.identity(floor),
                floor / PAGE_SIZE,
                |page: &ExclPage<'_>| {
                    if covers {
                        if piece.len() < PAGE {
                            db.mem().zero(page.pfn());
                        }
                        put(page.pfn());
                        return Ok(());
                    }
                    self.fill(cx, db, floor, page.pfn())
                },
            )?;
            if got.filled && covers {
                break got.page; // new: nobody has it on loan
            }
            if let Some(page) = self.own(cx, db, got.page)? {
                put(page.pfn());
                break page;
            }
        };
        self.size.fetch_max(end, Ordering::AcqRel); // F4: the size first
        page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
        Ok(())
    }
    /// The page as one that may be stored to (F6); `None` when it has to be looked up again.
    fn own<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        page: SharedPage<'a>,
    ) -> Result<Option<SharedPage<'a>>, VnodeError> {
        let offset = page.identity().map(|id| id.offset).unwrap_or_default();
        db.break_loan(cx, page, offset.page_index())
            .map_err(|_| VnodeError::NoMemory { vnode: self.id, offset })
    }
    /// The page that holds the end `size`, if the end lies within one and it is in memory, as one that may be stored to (F6). It cannot be lent while
    /// it is held, nor come into memory while `shape` is held as writer.
    fn own_tail<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        size: u64,
    ) -> Result<Option<SharedPage<'a>>, VnodeError> {
        if size & PAGE_MASK == 0 {
            return Ok(None);
        }
        loop {
            let Some(page) = db.lookup_shared(cx, self.identity(size & !PAGE_MASK)) else {
                return Ok(None);
            };
            if let Some(own) = self.own(cx, db, page)? {
                return Ok(Some(own));
            }
        }
    }
    /// Clears what a store through a mapping may have left past `size` in the last page (F3), which [`File::own_tail`] has found.
    fn zero_tail(db: &PageDb, tail: Option<&SharedPage<'_>>, size: u64) {
        if let Some(page) = tail {
            let within = (size & PAGE_MASK) as usize;
            db.mem().write(page.pfn(), within, &ZEROS[within..]);
        }
    }

    /// Sets the size. Pages past a new end are destroyed and every mapping of them is unloaded; a page that somebody holds locked is
    /// waited for. Growth makes a hole.
    ///
    /// # Errors
    /// [`FileError`]; nothing has changed.
    #[doc(alias("VOP_SPACE", "VOP_SETATTR", "pvn_vplist_dirty"))]
    pub fn truncate(&self, cx: &Cx, db: &PageDb, size: u64) -> Result<(), FileError> {
        self.check_writable()?;
        if size > MAX_OFFSET {
            return Err(FileError::BadOffset { name: self.name.clone(), offset: size });
        }
        self.with_memory(cx, db, || {
            let _shape = cx.blocking(|| self.shape.write(cx));
            let tail = self.own_tail(cx, db, size.min(self.size()))?;
            Ok(self.set_size(cx, db, size, tail))
        })?
    }
    /// As [`File::truncate`]. held: `shape`, as writer; `tail`, the page that holds the nearer end
    fn set_size(
        &self,
        cx: &Cx,
        db: &PageDb,
        size: u64,
        tail: Option<SharedPage<'_>>,
    ) -> Result<(), FileError> {
        let old = self.size();
        if size == old {
            return Ok(());
        }
        let resize = |from| cx.blocking(|| self.store.resize(cx, from, size));
        // What can fail comes first: the list of pages past the end, to which none is added while `shape` is held, and the store.
        let going = self.pages_between(cx, db, size, old)?;
        resize(old).map_err(|errno| FileError::Store { name: self.name.clone(), errno })?;
        if size > old {
            Self::zero_tail(db, tail.as_ref(), old);
            self.size.store(size, Ordering::Release);
            return Ok(());
        }
        self.size.store(size, Ordering::Release);
        Self::zero_tail(db, tail.as_ref(), size);
        if let Some(tail) = tail {
            // F7: a write that began before looked at the old size.
            cx.blocking(|| db.io_lock(cx, &tail));
            db.io_unlock(tail.id());
        }
        // held: `shape`. Pages past the end may have to be waited for, those in transit among them (F7).
        let flags = PutFlags::INVAL | PutFlags::TRUNC | PutFlags::FORCE;
        let gone = pvn::put_pages(cx, db, going, flags, |_, _| Ok(()));
        debug_assert!(gone.is_ok(), "F2: pages are destroyed without writing them: {gone:?}");
        // A page on its way out when the store was cut may have been written after it; all of those are over now.
        let _ = resize(old);
        Ok(())
    }
    /// The resident pages past the end `size` of a file that has `old` bytes. held: `shape`, as writer
    fn pages_between(
        &self,
        cx: &Cx,
        db: &PageDb,
        size: u64,
        old: u64,
    ) -> Result<Vec<(Identity, PageId)>, FileError> {
        let first = size.div_ceil(PAGE_SIZE) * PAGE_SIZE;
        if old <= first {
            return Ok(Vec::new());
        }
        let offset = FileOffset(first);
        pvn::pages_in(cx, db, self.id, offset, old - first)
            .map_err(|_| FileError::Vnode(VnodeError::NoMemory { vnode: self.id, offset }))
    }

    /// Writes every dirty page and makes it permanent.
    ///
    /// # Errors
    /// The first failure; pages that could not be written stay dirty.
    #[doc(alias = "VOP_FSYNC")]
    pub fn sync(&self, cx: &Cx, db: &PageDb) -> Result<(), FileError> {
        self.put_page(cx, db, FileOffset(0), 0, PutFlags::empty())?;
        cx.blocking(|| self.store.flush(cx))
            .map_err(|errno| FileError::Store { name: self.name.clone(), errno })
    }
}

impl Vnode for File {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        self.name.clone()
    }
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        if access.is_write() && !self.store.is_writable() {
            return Err(self.io(offset.0, errno::EROFS));
        }
        let _shape = cx.blocking(|| self.shape.read(cx));
        let size = self.size();
        if offset.0 >= size {
            return Err(VnodeError::BeyondEof { vnode: self.id, offset, size });
        }
        let got = self.page_at(cx, db, offset.page_floor().0)?;
        let prot = if self.store.is_writable() { Prot::RWX } else { Prot::RX };
        Ok(GotPage { page: got.page, prot, read: got.filled })
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        pvn::put_range(cx, db, self.id, offset, len, flags, |id, pfn| {
            self.write_back(cx, db, id.offset.0, pfn)
        })
    }
    fn add_map(&self, _cx: &Cx, _offset: FileOffset, pages: u64) -> Result<(), VnodeError> {
        self.mapped.fetch_add(pages, Ordering::AcqRel);
        Ok(())
    }
    fn del_map(&self, _cx: &Cx, _offset: FileOffset, pages: u64) {
        self.mapped.fetch_sub(pages, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
