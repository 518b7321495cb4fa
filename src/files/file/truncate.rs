//! Setting a file's size: what is past a new end leaves memory, mappings and store (F2, F3, F7).

use super::{File, FileError, MAX_OFFSET, PAGE};
use crate::files::store::PageBuf;
use page_db::sync::atomic::Ordering;
use page_db::{
    Cx, FileOffset, Identity, LockedPage, PAGE_MASK, PAGE_SIZE, PageDb, PageId, PutFlags,
    SharedPage, Vnode, VnodeError, pvn,
};

static ZEROS: PageBuf = [0; PAGE];

impl File {
    /// Sets the size. Pages past a new end are destroyed and every mapping of them is unloaded; a page that somebody holds locked is
    /// waited for. Growth makes a hole.
    ///
    /// # Errors
    /// [`FileError`]; nothing has changed.
    #[doc(alias("VOP_SPACE", "VOP_SETATTR", "pvn_vplist_dirty"))]
    pub fn truncate(&self, cx: &Cx, db: &PageDb, size: u64) -> Result<(), FileError> {
        self.check_of(db)?;
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
    /// The page that holds the end `size`, if the end lies within one and it is in memory, as one that may be stored to (F6). It cannot be lent while
    /// it is held, nor come into memory while `shape` is held as writer.
    pub(super) fn own_tail<'a>(
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
    pub(super) fn zero_tail(db: &PageDb, tail: Option<&SharedPage<'_>>, size: u64) {
        if let Some(page) = tail {
            let within = (size & PAGE_MASK) as usize;
            db.mem().write(page.pfn(), within, &ZEROS[within..]);
        }
    }
}
