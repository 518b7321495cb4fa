//! Reading and writing a file by its bytes: piece by piece, each within a page, through the page cache.

use super::{File, FileError, MAX_OFFSET, PAGE};
use page_db::sync::atomic::Ordering;
use page_db::{
    Cx, ExclPage, LockedPage, PAGE_MASK, PAGE_SIZE, PageDb, Pfn, RefMod, Vnode, VnodeError, pvn,
};

impl File {
    /// Reads bytes at `offset` through the page cache; returns how many there were before the end of the file.
    ///
    /// # Errors
    /// [`FileError`] when not even the first page could be read, or the file is another machine's; after that the count is short.
    pub fn pread(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, FileError> {
        self.check_of(db)?;
        if offset > MAX_OFFSET {
            return Err(FileError::BadOffset { name: self.name.clone(), offset });
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let left = &mut buf[done..];
            match self.patiently(cx, db, || self.read_piece(cx, db, at, left)) {
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
    /// Writes bytes at `offset` through the page cache, extending the file; returns how many were written.
    ///
    /// # Errors
    /// [`FileError`] when not even the first page could be written, or the file is another machine's; after that the count is short.
    pub fn pwrite(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: u64,
        bytes: &[u8],
    ) -> Result<usize, FileError> {
        self.check_of(db)?;
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
            match self.patiently(cx, db, || self.write_piece(cx, db, at, left)) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
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
        let shape = cx.blocking(|| self.shape.write(cx));
        let old = self.size();
        if end > old {
            self.clear_cut_off(cx, db, &shape, end)?;
            let tail = self.own_tail(cx, db, old)?;
            self.grow_store(cx, &shape, end).map_err(|e| self.io(at, e))?;
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
        let fill = |page: &ExclPage<'_>| {
            if covers {
                if piece.len() < PAGE {
                    db.mem().zero(page.pfn());
                }
                put(page.pfn());
                return Ok(());
            }
            self.fill(cx, db, floor, page.pfn())
        };
        let got = pvn::get(cx, db, self.identity(floor), floor / PAGE_SIZE, fill)?;
        let page = if got.filled && covers {
            got.page // new: nobody has it on loan
        } else {
            let page = self.own(cx, db, got.page)?;
            put(page.pfn());
            page
        };
        self.size.fetch_max(end, Ordering::AcqRel); // F4: the size first
        page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
        Ok(())
    }
}
