//! Setting a file's size: what is past a new end leaves memory, mappings and store (F2, F3, F7).
//!
//! # The difficulty
//!
//! A page past a new end may be pinned, and whoever has it pinned goes on to use the file: faults on the next page, reads it, makes it longer. He must not
//! wait for a truncation that waits for him.
//!
//! # The rule
//!
//! ```text
//!   truncate   shape (writer)            pages past the end listed, store cut, size set, last page cleared
//!              for each: shape (reader)  past the end still? ─ no ─▶ left alone
//!                                        tried ─ held ─▶ shape let go, the page waited for; once more
//!              shape (writer)            store cut again
//!   growth     shape (writer)            pages in the way that a truncation has yet to take away: transit over, cleared
//!                                        store cut to the old end, grown, size set
//! ```
//!
//! - T1: from the moment the size is set nobody finds a page past it, for `get_page` looks at the size.
//! - T2: nor does one come up, or a byte of it in the store, when the file grows over it before the truncation has taken it away: growth clears it where it
//!   is, as it does the last page, and it is the file's again. Until a truncation is over `shape` knows how far what it cut off may reach.
//! - T3: whether a page is past the end is asked under the same hold of `shape` that takes it away: what has been stored since the file grew stays.
//!
//! # The other road
//!
//! To try for all the pages at once under `shape`, and let go of all for each that somebody has, needs no growth that clears. But of many pages
//! one is always held, if only by the clock's hands, and the truncation of a large file in use would not end.

use super::{File, FileError, MAX_OFFSET, PAGE};
use crate::files::store::PageBuf;
use page_db::sync::atomic::Ordering;
use page_db::{
    Cx, FileOffset, Identity, LockedPage, PAGE_MASK, PAGE_SIZE, PageDb, PageId, PutFlags,
    SharedPage, Vnode, VnodeError, pvn,
};

static ZEROS: PageBuf = [0; PAGE];

/// Truncations that have set the size, and may have pages to take away still (T2).
#[derive(Debug, Default)]
pub(super) struct Cutting {
    truncations: u64,
    /// What they have cut off ends here at the latest; 0 when there are none.
    reach: u64,
}

/// Pages to take away, by their offsets.
type CutOff = Vec<(Identity, PageId)>;

impl File {
    /// Sets the size. Pages past a new end are destroyed and every mapping of them is unloaded; a page that somebody holds locked is
    /// waited for, unless the file grows over it meanwhile. Growth makes a hole, and waits for no page but one that it grows over and must clear (T2).
    ///
    /// # Errors
    /// [`FileError`]; nothing has changed.
    ///
    /// # Locks
    /// The caller has no page of the file pinned.
    #[doc(alias("VOP_SPACE", "VOP_SETATTR", "pvn_vplist_dirty"))]
    pub fn truncate(&self, cx: &Cx, db: &PageDb, size: u64) -> Result<(), FileError> {
        self.check_of(db)?;
        self.check_writable()?;
        if size > MAX_OFFSET {
            return Err(FileError::BadOffset { name: self.name.clone(), offset: size });
        }
        let cut_off = self.patiently(cx, db, || {
            let mut shape = cx.blocking(|| self.shape.write(cx));
            self.clear_cut_off(cx, db, &shape, size)?;
            let tail = self.own_tail(cx, db, size.min(self.size()))?;
            Ok(self.set_size(cx, db, &mut shape, size, tail))
        })??;
        if !cut_off.is_empty() {
            self.take_away(cx, db, &cut_off);
        }
        Ok(())
    }
    /// As [`File::truncate`], but that the pages past the end are there still. Unless there are none, [`File::take_away`] is to be called. held: `shape`, as
    /// writer; `tail`, the page that holds the nearer end
    fn set_size(
        &self,
        cx: &Cx,
        db: &PageDb,
        shape: &mut Cutting,
        size: u64,
        tail: Option<SharedPage<'_>>,
    ) -> Result<CutOff, FileError> {
        let old = self.size();
        let reach = shape.reach.max(old);
        if size == old && shape.truncations == 0 {
            return Ok(CutOff::new());
        }
        let cut = || cx.blocking(|| self.store.resize(cx, reach, size));
        // What can fail comes first: the list of pages past the end, to which none is added from now on (T1), and the store. What is past the end of a file
        // that grows is on another truncation's list.
        let cut_off =
            if size > old { CutOff::new() } else { self.pages_between(cx, db, size, reach)? };
        let resized = if size > old { self.grow_store(cx, shape, size) } else { cut() };
        resized.map_err(|errno| FileError::Store { name: self.name.clone(), errno })?;
        if size > old {
            Self::zero_tail(db, tail.as_ref(), old);
            self.size.store(size, Ordering::Release);
        } else {
            self.size.store(size, Ordering::Release);
            Self::zero_tail(db, tail.as_ref(), size);
            if let Some(tail) = tail {
                Self::await_transit(cx, db, &tail);
                let _ = cut(); // F7
            }
        }
        if !cut_off.is_empty() {
            shape.truncations += 1;
            shape.reach = reach;
        }
        Ok(cut_off)
    }
    /// Destroys what is past the end of `cut_off`, and cuts the store again: a page on its way out when it was cut may have been written after it (F7).
    fn take_away(&self, cx: &Cx, db: &PageDb, cut_off: &[(Identity, PageId)]) {
        let flags = PutFlags::INVAL | PutFlags::TRUNC | PutFlags::FORCE | PutFlags::NOWAIT;
        let mut left = cut_off;
        loop {
            let shape = cx.blocking(|| self.shape.read(cx));
            let size = self.size();
            let is_held = |(id, _): &(Identity, PageId)| {
                id.offset.0 >= size && pvn::take(cx, db, *id, flags).is_err() // T3, F9
            };
            let held = left.iter().position(is_held);
            drop(shape);
            let Some(at) = held else { break };
            left = &left[at..];
            self.await_page(cx, db, left[0].0.offset);
        }
        let mut shape = cx.blocking(|| self.shape.write(cx));
        let size = self.size();
        if shape.reach > size {
            let _ = cx.blocking(|| self.store.resize(cx, shape.reach, size));
        }
        shape.truncations -= 1;
        if shape.truncations == 0 {
            shape.reach = 0;
        }
    }
    /// Clears what truncations have yet to take away, and a growth to `end` would bring up (T2). held: `shape`, as writer
    ///
    /// # Errors
    /// [`VnodeError::Deadlock`], [`VnodeError::NoMemory`], as [`File::own`]; the file is as it was.
    pub(super) fn clear_cut_off(
        &self,
        cx: &Cx,
        db: &PageDb,
        shape: &Cutting,
        end: u64,
    ) -> Result<(), VnodeError> {
        for (id, _) in self.pages_between(cx, db, self.size(), end.min(shape.reach))? {
            if let Some(page) = db.lookup_shared(cx, id) {
                let page = self.own(cx, db, page)?;
                Self::await_transit(cx, db, &page);
                db.mem().zero(page.pfn());
            }
        }
        Ok(())
    }
    /// Makes room for a growth to `end`, with nothing in it (T2). held: `shape`, as writer
    ///
    /// # Errors
    /// The store's errno; nothing has changed.
    pub(super) fn grow_store(&self, cx: &Cx, shape: &Cutting, end: u64) -> Result<(), i32> {
        let old = self.size();
        cx.blocking(|| {
            if shape.reach > old {
                self.store.resize(cx, shape.reach, old)?;
            }
            self.store.resize(cx, old, end)
        })
    }
    /// The resident pages from the first that starts at or after `from` to the one that holds the byte before `to`. held: `shape`, as writer
    fn pages_between(
        &self,
        cx: &Cx,
        db: &PageDb,
        from: u64,
        to: u64,
    ) -> Result<CutOff, VnodeError> {
        let first = from.div_ceil(PAGE_SIZE) * PAGE_SIZE;
        if to <= first {
            return Ok(CutOff::new());
        }
        let offset = FileOffset(first);
        pvn::pages_in(cx, db, self.id, offset, to - first)
            .map_err(|_| VnodeError::NoMemory { vnode: self.id, offset })
    }
    /// The page that holds the end `size`, if the end lies within one and it is in memory, as one that may be stored to (F6). It cannot be lent while
    /// it is held, nor come into memory while `shape` is held as writer.
    ///
    /// # Errors
    /// As [`File::own`].
    pub(super) fn own_tail<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        size: u64,
    ) -> Result<Option<SharedPage<'a>>, VnodeError> {
        if size & PAGE_MASK == 0 {
            return Ok(None);
        }
        let page = db.lookup_shared(cx, self.identity(size & !PAGE_MASK));
        page.map(|page| self.own(cx, db, page)).transpose()
    }
    /// Clears what a store through a mapping may have left past `size` in the last page (F3), which [`File::own_tail`] has found.
    pub(super) fn zero_tail(db: &PageDb, tail: Option<&SharedPage<'_>>, size: u64) {
        if let Some(page) = tail {
            let within = (size & PAGE_MASK) as usize;
            db.mem().write(page.pfn(), within, &ZEROS[within..]);
        }
    }
}
