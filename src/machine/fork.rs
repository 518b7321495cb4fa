//! `fork`: a copy of the address space, on write.

use super::SysError;
use super::process::Process;
use addr_space::AsError;
use page_db::errno;

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
            from.dup(self.cx(), &to)
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

/// A segment's swap could not be reserved: `segvn_dup` says `ENOMEM` where other calls say `EAGAIN`.
fn is_swap(e: &AsError) -> bool {
    matches!(e, AsError::Seg(addr_space::SegError::NoSwap { .. }))
}
