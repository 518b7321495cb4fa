//! `brk`: the heap, which grows by zero-filled pages that merge into the segment below.

use super::SysError;
use super::process::{Process, USER_TOP};
use addr_space::SegCreate;
use page_db::sync::atomic::Ordering;
use page_db::{PAGE_SIZE, Prot, VirtRange, errno};
use seg_drivers::seg_vn::SegVnArgs;

const BRK: &str = "brk";

impl Process {
    /// Moves the break to `addr`. Pages that are wholly above it go; new ones are zeros.
    ///
    /// # Errors
    /// `ENOMEM`: below the initial break, up and over the data limit, something is mapped in the way, no swap. The break is where it was.
    #[doc(alias("sbrk", "brk_internal"))]
    pub fn brk(&self, addr: u64) -> Result<(), SysError> {
        let refused = |what| SysError::arg(BRK, errno::ENOMEM, what);
        let space = self.space_now();
        let claim = space.claim_range(self.cx()).map_err(|e| SysError::of(BRK, e))?;
        // held: as range; it guards the break
        let (base, now) = self.heap();
        if addr < base || addr > USER_TOP {
            return Err(refused("below the initial break, or no user address"));
        }
        let asked = addr > now || self.answers().limits_any_break;
        if asked && addr - base > self.shared.limits.data.load(Ordering::Acquire) {
            return Err(refused("over the data limit"));
        }
        let (old, new) = (now.next_multiple_of(PAGE_SIZE), addr.next_multiple_of(PAGE_SIZE));
        if let Ok(more) = VirtRange::exact(old, new.saturating_sub(old)) {
            let gap = VirtRange::exact(new, self.answers().break_gap);
            if gap.is_ok_and(|gap| !self.mapped_in(gap).pieces.is_empty()) {
                return Err(refused("too near what is mapped above"));
            }
            let heap = self.zfod(Prot::RW);
            // One errno for a break that cannot go up; a mapping would tell what lacks.
            claim.map(more, &heap).map_err(|e| SysError::with(BRK, errno::ENOMEM, e))?;
        } else if let Ok(less) = VirtRange::exact(new, old.saturating_sub(new)) {
            space.unmap(self.cx(), less).map_err(|e| SysError::with(BRK, errno::ENOMEM, e))?;
        }
        self.image().break_now.store(addr, Ordering::Release);
        Ok(())
    }
    /// Arguments for private zero-filled memory.
    pub(crate) fn zfod(&self, prot: Prot) -> impl SegCreate + use<> {
        SegVnArgs::zfod(self.machine.vn(), prot)
    }
}
