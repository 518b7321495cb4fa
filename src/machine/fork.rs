//! `fork`: a copy of the address space, on write; and `vfork`: the same address space.

use super::SysError;
use super::image::{Image, NotJoined};
use super::process::{BREAK_BASE, Process};
use addr_space::AsError;
use page_db::errno;
use std::sync::Arc;

impl Process {
    /// Makes a child with a copy of this address space; its handle is a thread on the same CPU.
    ///
    /// # Errors
    /// `ENOMEM` when the swap the child needs cannot be reserved, or for want of memory; `EAGAIN` for anything else. There is no child then.
    #[doc(alias("cfork", "as_dup"))]
    pub fn fork(&self) -> Result<Self, SysError> {
        const CALL: &str = "fork";
        self.may_make_space(CALL)?;
        let child = Self::create(&self.machine, self.cx().cpu(), &self.name())?;
        let done = {
            let (from, to) = (self.space_now(), child.space_now());
            // The claim keeps the break and the stack as they are meanwhile.
            from.claim_range(self.cx()).and_then(|_claim| {
                child.shared.inherit(&self.shared);
                child.shared.limits.inherit(&self.shared.limits);
                child.image().inherit(&self.image());
                let done = from.dup(self.cx(), &to);
                child.image().tell_limits(); // not those of a child that uses `from` too
                done
            })
        };
        match done {
            Ok(()) => Ok(child.announce()),
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
    /// Makes a child that uses this very address space, until it runs a program ([`Process::exec`]) or exits; nothing is copied. What it does to memory,
    /// break, stack and memory locks meanwhile it does to this process's.
    ///
    /// # Errors
    /// `ENOMEM` when there is no frame for what the one that goes first is left with, `EAGAIN` when this process has exited, or the caller has the range claim of its address
    /// space. There is no child then.
    #[doc(alias = "vforkx")]
    pub fn vfork(&self) -> Result<Self, SysError> {
        const CALL: &str = "vfork";
        let gone = || SysError::arg(CALL, errno::EAGAIN, "the process has exited");
        if self.has_exited() {
            return Err(gone());
        }
        self.may_make_space(CALL)?;
        let image = Arc::clone(&self.image());
        // P2: made beforehand, since going must not fail.
        let grave = if image.has_grave() { None } else { Some(self.grave(CALL)?) };
        let limits = Arc::default();
        image.join(grave, &limits, &self.shared.limits).map_err(|e| match e {
            NotJoined::Gone => gone(),
            NotJoined::NoHeap => SysError::arg(CALL, errno::ENOMEM, "no heap for a user more"),
        })?;
        let child = Self::with_image(&self.machine, self.cx().cpu(), &self.name(), image, limits);
        child.shared.inherit(&self.shared);
        Ok(child.announce())
    }
    /// Refuses whoever is called back while it chooses an address: no address space is made under a lock, and the claim is not had twice.
    pub(super) fn may_make_space(&self, call: &'static str) -> Result<(), SysError> {
        match self.space_now().has_claim(self.cx()) {
            true => Err(SysError::with(call, errno::EAGAIN, AsError::Claimed)),
            false => Ok(()),
        }
    }
    /// An image whose address space has been freed.
    fn grave(&self, call: &'static str) -> Result<Arc<Image>, SysError> {
        let space = self.machine.new_space(call)?;
        self.machine.release_space(&space);
        Ok(Image::new(space, BREAK_BASE, None))
    }
}

/// A segment's swap could not be reserved: `segvn_dup` says `ENOMEM` where other calls say `EAGAIN`.
fn is_swap(e: &AsError) -> bool {
    matches!(e, AsError::Seg(addr_space::SegError::NoSwap { .. }))
}
