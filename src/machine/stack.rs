//! The stack, which grows when something below it is touched.
//!
//! A process has a stack once exec or [`Process::grow_stack`] has made one. From then on a fault on an unmapped address within the
//! limit below it makes the stack reach down to that page, whole and faulted in at once.
//!
//! ```text
//!   STACK_TOP - limit                    STACK_TOP - size                STACK_TOP
//!         │  a fault here grows it                │  mapped                    │
//! ```
//!
//! Sources: illumos `os/grow.c` (behaviour); illumos.md 3.12.

use super::SysError;
use super::process::{Process, STACK_LIMIT, STACK_TOP};
use addr_space::FaultKind;
use page_db::sync::atomic::Ordering;
use page_db::{Access, PAGE_MASK, PAGE_SIZE, Prot, VirtRange, errno};

const GROW: &str = "grow";

/// The most room kept free below the stack, however large its limit.
const MOST_ROOM: u64 = 1 << 40;

impl Process {
    /// Lets the stack reach down to the page of `addr`; nothing happens when it does already.
    ///
    /// # Errors
    /// `ENOMEM`: above the stack, over the stack limit, something is in the way, or no swap (the last as `EAGAIN`).
    #[doc(alias("grow", "grow_internal"))]
    pub fn grow_stack(&self, addr: u64) -> Result<(), SysError> {
        let refused = |what| SysError::arg(GROW, errno::ENOMEM, what);
        if addr >= STACK_TOP {
            return Err(refused("not below the stack"));
        }
        let wanted = STACK_TOP - (addr & !PAGE_MASK);
        let fresh = {
            let space = self.space();
            let claim = space.claim_range(self.cx());
            // held: as range; it guards the stack's size
            let size = self.shared.stack_size.load(Ordering::Acquire);
            if wanted <= size {
                return Ok(());
            }
            if wanted > self.shared.stack_limit.load(Ordering::Acquire) {
                return Err(refused("over the stack limit"));
            }
            let fresh = VirtRange::exact(STACK_TOP - wanted, wanted - size)
                .map_err(|_| refused("no user range"))?;
            claim.map(fresh, &self.zfod(Prot::RW)).map_err(|e| SysError::of(GROW, e))?;
            self.shared.stack_size.store(wanted, Ordering::Release);
            fresh
        };
        // A failure shows when the page is used.
        let _ = self.space().fault(self.cx(), fresh, FaultKind::Invalid, Access::Write);
        Ok(())
    }
    /// Whether a fault on an unmapped `addr` may be the stack growing, and if so, whether it could.
    pub(crate) fn try_grow(&self, addr: u64) -> bool {
        let size = self.shared.stack_size.load(Ordering::Acquire);
        let limit = self.shared.stack_limit.load(Ordering::Acquire);
        let below = size > 0 && addr < STACK_TOP - size;
        below && STACK_TOP - addr <= limit && self.grow_stack(addr).is_ok()
    }
    /// The addresses the stack has or may take.
    pub(crate) fn stack_room(&self) -> VirtRange {
        let limit = self.shared.stack_limit.load(Ordering::Acquire);
        let size = self.shared.stack_size.load(Ordering::Acquire);
        let room = limit.clamp(STACK_LIMIT, MOST_ROOM).max(size);
        let room = room.next_multiple_of(PAGE_SIZE);
        VirtRange::exact(STACK_TOP - room, room).expect("U2: the stack's room is a range")
    }
}
