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
//!   truncate   shape (writer) ─▶ pages past it listed ─▶ store cut ─▶ size set ─▶ shape let go ─▶ they are destroyed one by one ─▶ store cut again
//!   pwrite     shape (reader, or writer when it extends) ─▶ page ─▶ bytes ─▶ modified
//! ```
//!
//! - F2: no page past the end is in memory once a `truncate` that did not make the file longer has returned, nor mapped anywhere.
//! - F3: bytes past the end in the last page are zeros when it is filled, in the store always, and again when the file grows.
//! - F4: whoever stores makes the size cover it first and marks the page modified then, before he lets its lock go. Page-out never writes too
//!   little: a write-back beside the store that looked at the old size leaves a page that is marked again.
//! - F5: no user memory is touched with a lock held; callers copy through a buffer of their own.
//! - F6: who stores to a page takes it from its borrowers first ([`PageDb::break_loan`]).
//! - F7: a write-back looks at the size with its page in transit. So truncation, once it has set the size, waits for every transit of what
//!   it cuts, the last page too, and cuts the store again: whoever writes later has looked at the new size.
//! - F8: a file has pages in the database that it was made in, and in no other: there its number is another file's.
//! - F9: nobody waits for a page's exclusive lock while he holds `shape`. A pin lasts as long as somebody's i/o does, and whoever has it may come for `shape`
//!   meanwhile. A page that must be had alone is tried; if somebody has it, everything is let go, it is waited for, and the operation starts over. He may come
//!   to write the very page that he has pinned: that is no page to be had alone, for whoever pins one that is lent breaks the loan first (F6).
//!
//! The bytes of a file are in `bytes`, its size in `truncate`, what goes between a frame and the store in `transfer`.
//!
//! Waiting for the shape lock counts as sleeping ([`Cx::blocking`]): its holder may itself wait for the store.
//!
//! Sources: illumos.md 7.8 (`pvn_*`), 12; illumos behaviour of `segmap`-less file systems.

mod bytes;
mod error;
#[cfg(test)]
mod tests;
mod transfer;
mod truncate;

pub use self::error::FileError;

use self::transfer::Injected;
use self::truncate::Cutting;
use super::host_file::HostStore;
use super::mem_file::MemStore;
use super::store::{PageBuf, Store};
use page_db::sync::atomic::{AtomicU64, Ordering};
use page_db::sync::{Mutex, RwLock, spin_wait};
use page_db::{
    Access, Cx, DbMark, FileOffset, GotPage, Identity, LockedPage, MemoryTries, PAGE_SIZE, PageDb,
    Prot, PutFlags, Rank, SharedPage, Vnode, VnodeError, VnodeId, VnodeKind, errno, pvn,
};
use std::path::Path;
use std::sync::{Arc, Weak};

/// Frames that moving a piece within one page may want at once: that page and the one that holds the end, each with a copy of it if it is lent.
const FRAMES_AT_ONCE: u64 = 4;

/// Ticks (a second) that the end of a file waits for pages that somebody has. Whoever only looks at one has let go of it by then; whoever has it pinned may
/// not have, and may be waiting for the caller.
const HELD_TICKS: u32 = 100;

/// Turns of waiting after which [`spin_wait`] sleeps.
const ASLEEP: u32 = 1000;

/// The largest offset a file may have (`MAXOFFSET_T`).
pub const MAX_OFFSET: u64 = i64::MAX as u64;

const PAGE: usize = PAGE_SIZE as usize;

/// A regular file: a vnode whose pages are filled from a [`Store`] and written back to it.
#[doc(alias = "vnode_t")]
#[derive(Debug)]
pub struct File {
    id: VnodeId,
    /// The database that knows it under that number (F8).
    of: DbMark,
    name: String,
    /// Bytes; changes under `shape` as writer, or as F4 says.
    size: AtomicU64,
    /// Reader: the size stays. Writer: the size changes.
    shape: RwLock<Cutting>,
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
            of: db.mark().clone(),
            name,
            size: AtomicU64::new(size),
            shape: RwLock::new(Rank::Vnode, Cutting::default()),
            store,
            mapped: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            injected: Mutex::new(Rank::VnodeData, Injected::default()),
        });
        file.attach(db);
        Ok(file)
    }
    fn attach(self: &Arc<Self>, db: &PageDb) {
        let object: Weak<Self> = Arc::downgrade(self);
        let attached = db.vnodes().attach(self.id, object);
        debug_assert!(attached, "F8: the number is this file's");
    }
    /// Whether the file is one of this machine's (F8).
    #[inline]
    pub fn is_of(&self, db: &PageDb) -> bool {
        self.of == *db.mark()
    }
    fn check_of(&self, db: &PageDb) -> Result<(), VnodeError> {
        if self.is_of(db) { Ok(()) } else { Err(VnodeError::NoVnode { vnode: self.id }) }
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
    /// Marks the file as being run: its pages count as "Exec and libs" (`VVMEXEC`). Says whether it is one of this machine's.
    pub fn set_exec(&self, db: &PageDb) -> bool {
        self.is_of(db) && db.vnodes().set_kind(self.id, VnodeKind::Exec)
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
    /// The store's errno, or `EINVAL` in another machine's database.
    pub fn look(&self, cx: &Cx, db: &PageDb, offset: u64) -> Result<PageBuf, i32> {
        self.check_of(db).map_err(|e| e.errno())?;
        let mut bytes = [0; PAGE];
        match db.exists(cx, self.identity(offset)) {
            Some(page) => db.mem().read(db.pages().pfn(page), 0, &mut bytes),
            None => self.store.read(cx, offset, &mut bytes)?,
        }
        let inside = self.size().saturating_sub(offset).min(PAGE_SIZE) as usize;
        bytes[inside..].fill(0);
        Ok(bytes)
    }
    /// Ends the file: destroys every page and gives the vnode number back. Waits for whoever has a page of it, but no longer than a second.
    ///
    /// # Errors
    /// The file, when somebody else has it, maps it or goes on holding a page of it, it is another machine's, or there is no heap to list its pages. It is as it
    /// was, with every page that it had in memory.
    pub fn retire(self: Arc<Self>, cx: &Cx, db: &PageDb) -> Result<(), Arc<Self>> {
        if !self.is_of(db) {
            return Err(self);
        }
        // From here on nobody finds it by its number, nor has it otherwise.
        let file = Arc::try_unwrap(self)?;
        if file.destroy_pages(cx, db) && db.vnodes().retire(cx, file.id) {
            return Ok(());
        }
        let file = Arc::new(file);
        file.attach(db);
        Err(file)
    }
    /// Destroys every page of a file that nobody comes to by its number any more, or none; says which. What was never written is nowhere else: so the first
    /// page goes when each has been had alone once.
    fn destroy_pages(&self, cx: &Cx, db: &PageDb) -> bool {
        let Ok(pages) = pvn::pages_in(cx, db, self.id, FileOffset(0), 0) else { return false };
        let mut ticks = 0;
        for (id, _) in &pages {
            while Self::is_held(cx, db, *id) {
                if ticks == HELD_TICKS {
                    return false;
                }
                ticks += 1;
                cx.blocking(|| db.clock().tick());
                // A clock that is only counted does not let anybody get on.
                cx.blocking(|| spin_wait(cx, ASLEEP));
            }
        }
        // No mapping and no read comes to them. Who has one from here on has found it by its frame, and looks at it for a moment: he is waited for.
        let flags = PutFlags::INVAL | PutFlags::TRUNC | PutFlags::FORCE;
        pvn::put_pages(cx, db, pages, flags, |_, _| Ok(())).is_ok()
    }
    /// Whether somebody has the page named `id`, or moves it.
    fn is_held(cx: &Cx, db: &PageDb, id: Identity) -> bool {
        let Some(page) = db.try_lookup_excl_cached(cx, id) else {
            return db.exists(cx, id).is_some();
        };
        let still = db.io_trylock(&page);
        if still {
            db.io_unlock(page.id());
        }
        !still
    }

    fn io(&self, offset: u64, errno: i32) -> VnodeError {
        VnodeError::Io { vnode: self.id, offset: FileOffset(offset), errno }
    }
    fn identity(&self, offset: u64) -> Identity {
        Identity::new(self.id, FileOffset(offset))
    }
    /// The page at `floor`, filled if it must be. held: `shape`
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
    fn check_writable(&self) -> Result<(), FileError> {
        if self.store.is_writable() {
            return Ok(());
        }
        Err(FileError::ReadOnly { name: self.name.clone() })
    }
    /// Runs `op` until it needs no memory that is not there, and no page alone that others have (F9). `op` holds nothing when it returns.
    fn patiently<R>(
        &self,
        cx: &Cx,
        db: &PageDb,
        mut op: impl FnMut() -> Result<R, VnodeError>,
    ) -> Result<R, FileError> {
        let mut tries = MemoryTries::new(1, FRAMES_AT_ONCE);
        loop {
            match op() {
                Err(VnodeError::NoMemory { .. }) => tries
                    .wait(cx, db)
                    .map_err(|source| FileError::NoMemory { name: self.name.clone(), source })?,
                Err(VnodeError::Deadlock { offset, .. }) => self.await_page(cx, db, offset),
                other => return other.map_err(FileError::from),
            }
        }
    }
    /// Waits until nobody has the page at `offset`, nor moves it. The caller holds nothing.
    fn await_page(&self, cx: &Cx, db: &PageDb, offset: FileOffset) {
        if let Some(page) = db.lookup_excl_cached(cx, self.identity(offset.0)) {
            Self::await_transit(cx, db, &page);
        }
    }
    /// Waits for the end of a page's transit. Whoever moves it has looked at the size before (F7).
    fn await_transit(cx: &Cx, db: &PageDb, page: &dyn LockedPage) {
        cx.blocking(|| db.io_lock(cx, page));
        db.io_unlock(page.id());
    }
    /// The page as one that may be stored to (F6).
    ///
    /// # Errors
    /// [`VnodeError::Deadlock`] when it is lent and somebody else has it too (F9), [`VnodeError::NoMemory`].
    fn own<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        page: SharedPage<'a>,
    ) -> Result<SharedPage<'a>, VnodeError> {
        if !page.page().is_lent() {
            return Ok(page);
        }
        let (vnode, offset) = (self.id, page.identity().map(|id| id.offset).unwrap_or_default());
        let page = page.try_upgrade().map_err(|_| VnodeError::Deadlock { vnode, offset })?;
        db.break_loan_excl(cx, page, offset.page_index())
            .map_err(|_| VnodeError::NoMemory { vnode, offset })
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
        self.check_of(db)?;
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
        self.check_of(db)?;
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
