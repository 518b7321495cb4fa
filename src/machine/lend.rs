//! Lending user memory: to the kernel, and to anons that another process is then shown.
//!
//! Sources: uvm.md 5.7.

use super::SysError;
use super::process::{Process, USER_TOP};
use addr_space::LentPages;
use page_db::{Prot, VirtRange, errno};
use seg_drivers::LentAnons;

impl Process {
    /// Lends the pages of `len` bytes at `addr`: the kernel reads them as they are now, whatever the process does ([`addr_space::AddrSpace::lend_pages`]).
    /// Both are multiples of the page size.
    ///
    /// # Errors
    /// `EINVAL` for what is no user range of whole pages; `ENOMEM` at a hole; `EACCES` for pages that may not be read; `EBUSY` for one that is locked
    /// in memory; `EAGAIN` beside pages pinned for i/o, or when too much memory is spoken for. Nothing is lent.
    #[doc(alias = "uvm_loan")]
    pub fn lend(&self, addr: u64, len: u64) -> Result<LentPages, SysError> {
        const CALL: &str = "lend";
        let range = whole_pages(CALL, addr, len)?;
        self.space_now().lend_pages(self.cx(), range).map_err(|e| SysError::of(CALL, e))
    }
    /// Lends the contents of `len` bytes at `addr` to anons ([`LentAnons::lend`]): they are what they are now, whatever the process does, and wait to be shown
    /// to a process by [`Process::borrow`].
    ///
    /// # Errors
    /// As [`Process::lend`], and `EAGAIN` when no swap is left to promise. Nothing is lent.
    #[doc(alias("uvm_loan", "UVM_LOAN_TOANON"))]
    pub fn lend_to_anons(&self, addr: u64, len: u64) -> Result<LentAnons, SysError> {
        const CALL: &str = "lend";
        let range = whole_pages(CALL, addr, len)?;
        let vn = self.machine().vn();
        LentAnons::lend(vn, self.cx(), &self.space_now(), range).map_err(|e| SysError::of(CALL, e))
    }
    /// Shows what was lent at `addr`, as private memory that may be read and stored to; the loan is over ([`LentAnons::enter`]).
    ///
    /// # Errors
    /// `EINVAL` for an address that is no page's or not the user's, or a loan from another machine; `ENOMEM` where something is mapped; what a mapping may fail
    /// with else. Nothing has changed, and the loan is handed back (in a box: the two are large).
    pub fn borrow(&self, lent: LentAnons, addr: u64) -> Result<(), Box<(SysError, LentAnons)>> {
        const CALL: &str = "borrow";
        match whole_pages(CALL, addr, lent.range().len()) {
            Ok(to) => {
                let entered = lent.enter(self.cx(), &self.space_now(), to, Prot::RW);
                entered.map_err(|(e, lent)| Box::new((SysError::of(CALL, e), lent)))
            }
            Err(e) => Err(Box::new((e, lent))),
        }
    }
}

/// A user range of whole pages.
pub(super) fn whole_pages(call: &'static str, addr: u64, len: u64) -> Result<VirtRange, SysError> {
    let no_range = |_| SysError::arg(call, errno::EINVAL, "not a range of whole pages");
    let range = VirtRange::exact(addr, len).map_err(no_range)?;
    if range.end() > USER_TOP {
        return Err(SysError::arg(call, errno::EINVAL, "not the user's memory"));
    }
    Ok(range)
}
