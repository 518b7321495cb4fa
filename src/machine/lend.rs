//! Lending user memory to the kernel.
//!
//! Sources: uvm.md 5.7.

use super::SysError;
use super::process::{Process, USER_TOP};
use addr_space::LentPages;
use page_db::{VirtRange, errno};

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
        let no_range = |_| SysError::arg(CALL, errno::EINVAL, "not a range of whole pages");
        let range = VirtRange::exact(addr, len).map_err(no_range)?;
        if range.end() > USER_TOP {
            return Err(SysError::arg(CALL, errno::EINVAL, "not the user's memory"));
        }
        self.space().lend_pages(self.cx(), range).map_err(|e| SysError::of(CALL, e))
    }
}
