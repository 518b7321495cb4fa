//! Writing back, and pushing out.
//!
//! Sources: illumos.md 3.8, 3.2.

use super::{OnPinned, Selection};
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::seg::SyncFlags;
use page_db::{Cx, VirtRange};

impl AddrSpace {
    /// Writes the dirty pages of `range` to where they belong.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or the first driver's error; what lies below has been written.
    #[doc(alias("MC_SYNC", "msync"))]
    pub fn sync(&self, cx: &Cx, range: VirtRange, flags: SyncFlags) -> Result<(), AsError> {
        self.sync_meant(cx, range, flags, None)
    }
    /// The same for the pages of `range` that are meant.
    ///
    /// # Errors
    /// As [`AddrSpace::sync`].
    pub fn sync_meant(
        &self,
        cx: &Cx,
        range: VirtRange,
        flags: SyncFlags,
        meant: Option<Selection>,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range, 1, OnPinned::Return, |segs, writer| {
            self.walk_meant(cx, segs, range, writer, meant, |scx, seg, run| {
                seg.ops().sync(scx, run, flags)
            })
        })
    }
    /// Lets every driver take its translations away and push the pages that nobody maps then; returns the bytes freed. Faults bring them back: there is no
    /// `as_swapin`.
    #[doc(alias("as_swapout", "as_swapin", "hat_swapout"))]
    pub fn swapout(&self, cx: &Cx) -> u64 {
        let segs = self.lock.read(cx);
        let freed = segs.iter().map(|seg| seg.ops().swapout(&self.scx(cx, seg.range(), false)));
        freed.fold(0, u64::saturating_add)
    }
}
