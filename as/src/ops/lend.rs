//! Lending pages of a range: to the kernel, or to anons.
//!
//! Between the moment the pages are lent and the moment they are given back the kernel reads them without a copy, whatever becomes of the address
//! space meanwhile: a store there finds a copy made first, and pages that are unmapped or whose process ends live on until they are given back.
//!
//! What is lent to anons is seen through another mapping, like the memory of a child after a fork, and may be stored to there. What an anon is this crate does
//! not know: a driver hands them out by number, to a borrower that knows.
//!
//! Sources: uvm.md 5.7 ([UVM §7], page loanout).

use super::OnPinned;
use crate::addr_space::AddrSpace;
use crate::borrower::Borrower;
use crate::error::{AsError, SegError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::{Cx, Owed, PAGE_SIZE, PageDb, PageId, VirtRange};

/// Pages lent by [`AddrSpace::lend_pages`]. They stay lent until [`LentPages::give_back`]. What was lent knows whose it is: it is read and given back where it
/// came from. What is dropped instead stays lent, and its frames are nobody's; a debug build panics at once ([`page_db::owed`]).
#[must_use = "lent pages stay lent until they are given back"]
#[derive(Debug)]
pub struct LentPages {
    db: Arc<PageDb>,
    range: VirtRange,
    pages: Vec<PageId>,
    owed: Owed,
}

impl LentPages {
    /// Where they were when they were lent.
    pub fn range(&self) -> VirtRange {
        self.range
    }
    /// The pages in order of address.
    pub fn pages(&self) -> &[PageId] {
        &self.pages
    }
    /// Reads bytes from `offset` into the range on, as they were when the pages were lent; says how many there were before its end.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let at = offset.saturating_add(done as u64);
            let index = usize::try_from(at / PAGE_SIZE).ok();
            let Some(page) = index.and_then(|i| self.pages.get(i)) else { break };
            let within = (at % PAGE_SIZE) as usize;
            let n = (buf.len() - done).min(PAGE_SIZE as usize - within);
            self.db.mem().read(self.db.pfn(*page), within, &mut buf[done..done + n]);
            done += n;
        }
        done
    }
    /// Ends the loan.
    #[doc(alias = "uvm_unloan")]
    pub fn give_back(self, cx: &Cx) {
        self.owed.paid();
        self.pages.into_iter().for_each(|page| self.db.unlend(cx, page));
    }
    /// Leaves the pages lent, for good: for a machine that ends with them.
    pub fn abandon(self) {
        self.owed.paid();
    }
}

impl AddrSpace {
    /// Lends the contents of the pages of `range` to anons, which `to` takes. They are what they are now, whatever becomes of the range: the pages
    /// of anons gain an owner and are copied by whoever stores first, those of a file are lent.
    ///
    /// # Errors
    /// As [`AddrSpace::lend_pages`]; what `to` has taken by then is for `to` to give up.
    ///
    /// # Locks
    /// As [`AddrSpace::lend_pages`].
    #[doc(alias("uvm_loan", "UVM_LOAN_TOANON"))]
    pub fn lend_anons(
        &self,
        cx: &Cx,
        range: VirtRange,
        to: &mut dyn Borrower,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range, range.pages().get(), OnPinned::Return, |segs, writer| {
            self.walk(cx, segs, range, writer, |scx, seg, piece| {
                seg.ops().lend_anons(scx, piece, to)
            })
        })
    }
    /// Lends the pages of `range` to the caller, who reads them by [`LentPages::read`]. Absent pages are made or read in. From then on nobody
    /// stores to them: a store gets a copy under the same name.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole (UVM: `ENOENT`); [`SegError::Access`] for pages that may not be read; [`SegError::Locked`] for one that is
    /// locked in memory (UVM: `EINVAL`), [`SegError::Pinned`] for a segment with pages pinned for i/o, [`SegError::LockLimit`] when too much
    /// memory is spoken for, [`SegError::NotSupported`], or why a page could not be had. Nothing is lent.
    ///
    /// # Locks
    /// None while it waits for whoever holds a page: a second at most, for somebody may have it pinned through another mapping ([`SegError::Pinned`]).
    #[doc(alias("uvm_loan", "UVM_LOAN_TOPAGE"))]
    pub fn lend_pages(&self, cx: &Cx, range: VirtRange) -> Result<LentPages, AsError> {
        self.check_limits(range)?;
        let owed = Owed::new(&"pages lent to the kernel (LentPages::give_back)");
        let mut lent = LentPages { db: Arc::clone(&self.db), range, pages: Vec::new(), owed };
        let done = self.redo(cx, range, range.pages().get(), OnPinned::Return, |segs, writer| {
            // What an earlier pass had is given back: it begins from the first address.
            core::mem::take(&mut lent.pages).into_iter().for_each(|p| self.db.unlend(cx, p));
            self.walk(cx, segs, range, writer, |scx, seg, piece| {
                let list = seg.ops().lend_pages(scx, piece)?;
                if lent.pages.try_reserve(list.pages.len()).is_err() {
                    list.pages.into_iter().for_each(|p| self.db.unlend(cx, p));
                    return Err(SegError::NoMemory { range: piece });
                }
                lent.pages.extend(list.pages);
                Ok(())
            })
        });
        match done {
            Ok(()) => Ok(lent),
            Err(e) => {
                lent.give_back(cx);
                Err(e)
            }
        }
    }
}
