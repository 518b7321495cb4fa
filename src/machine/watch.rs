//! Watchpoints, as a debugger sets them.
//!
//! An access that reaches a watched byte ends with [`addr_space::Signal::TrapWatch`], whoever makes it; the kernel's copies to and from user memory
//! answer `EFAULT` there. fork and exec make address spaces without watches.
//!
//! Sources: illumos.md 3.7; proc(5) `PCWATCH`.

use super::SysError;
use super::process::Process;
use addr_space::{AsError, WatchArea, WatchFlags};
use page_db::{VirtAddr, errno};

impl Process {
    /// Watches `len` bytes at `addr`, mapped or not. The same bytes may be watched for something else later; other watches must not overlap them.
    ///
    /// # Errors
    /// `ESRCH` when the process has exited, `EINVAL` for no bytes, nothing to wait for, what is no user range, and an overlap; `EAGAIN` while pages there are pinned for i/o; `ENOMEM`
    /// without heap.
    #[doc(alias = "PCWATCH")]
    pub fn watch(&self, addr: u64, len: u64, flags: WatchFlags) -> Result<(), SysError> {
        const CALL: &str = "watch";
        let area = WatchArea { start: byte(CALL, addr)?, len, flags };
        self.space_now().watch(self.cx(), area).map_err(|e| SysError::of(CALL, e))
    }
    /// Takes the watch on exactly these bytes back.
    ///
    /// # Errors
    /// `ESRCH` when there is none or the process has exited, and as [`Process::watch`].
    pub fn unwatch(&self, addr: u64, len: u64) -> Result<(), SysError> {
        const CALL: &str = "unwatch";
        let start = byte(CALL, addr)?;
        self.space_now().unwatch(self.cx(), start, len).map_err(|e: AsError| SysError::of(CALL, e))
    }
}

fn byte(call: &'static str, addr: u64) -> Result<VirtAddr, SysError> {
    VirtAddr::new(addr).map_err(|_| SysError::arg(call, errno::EINVAL, "not an address"))
}
