//! `fork`: a copy of the address space, on write.

use super::SysError;
use super::process::{Process, USER_RANGE, vpns};
use addr_space::{AddrSpace, AsError};
use page_db::{PAGE_SIZE, VirtRange, errno};

impl Process {
    /// Makes a child with a copy of this address space; its handle is a thread on the same CPU.
    ///
    /// # Errors
    /// `ENOMEM` when the swap the child needs cannot be reserved, or for want of memory; `EAGAIN` for anything else. There is no child then.
    #[doc(alias("cfork", "as_dup"))]
    pub fn fork(&self) -> Result<Self, SysError> {
        const CALL: &str = "fork";
        let child = Self::create(&self.machine, self.cx().cpu(), &self.name())?;
        let done = {
            let (from, to) = (self.space(), child.space());
            // The claim keeps the break and the stack as they are meanwhile.
            let _claim = from.claim_range(self.cx());
            child.shared.inherit(&self.shared);
            from.dup(self.cx(), &to).and_then(|()| self.leave_out(&to))
        };
        match done {
            Ok(()) => Ok(child),
            Err(e) => {
                child.exit();
                // Not swap, not memory: the caller may try again.
                let errno = match e.errno() {
                    errno::ENOMEM => errno::ENOMEM,
                    _ if is_swap(&e) => errno::ENOMEM,
                    _ => errno::EAGAIN,
                };
                Err(SysError::with(CALL, errno, e))
            }
        }
    }
}

impl Process {
    /// Unmaps in a child what it is not to have.
    fn leave_out(&self, child: &AddrSpace) -> Result<(), AsError> {
        let all = vpns(USER_RANGE);
        let runs = {
            let no_fork = self.shared.no_fork.lock_leaf();
            if no_fork.is_plain() { Vec::new() } else { no_fork.iter(all) }
        };
        for (run, _) in runs.into_iter().filter(|(_, on)| *on) {
            let range = VirtRange::exact(run.start * PAGE_SIZE, (run.end - run.start) * PAGE_SIZE)?;
            child.unmap(self.cx(), range)?;
        }
        Ok(())
    }
}

/// A segment's swap could not be reserved: `segvn_dup` says `ENOMEM` where other calls say `EAGAIN`.
fn is_swap(e: &AsError) -> bool {
    matches!(e, AsError::Seg(addr_space::SegError::NoSwap { .. }))
}
