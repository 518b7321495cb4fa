//! Locking ranges in memory (`mlock`, `mlockall`).
//!
//! Locks do not nest within a mapping, so an undo must touch exactly the pages that this very call has locked: drivers note them
//! in [`NewlyLocked`], the failing one included.
//!
//! Sources: illumos.md 3.8.

use super::{OnPinned, Stop};
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::seg::{LockOp, NewlyLocked, SegKind};
use crate::segs::Segs;
use page_db::{Cx, VirtRange};

bitflags::bitflags! {
    /// What [`AddrSpace::lock_all`] locks.
    #[doc(alias("MCL_CURRENT", "MCL_FUTURE"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LockAll: u8 {
        /// What is mapped now.
        const CURRENT = 1;
        /// What will be mapped, at the time it is.
        const FUTURE = 2;
    }
}

impl AddrSpace {
    /// Locks `range` in memory.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or the first driver's error; what this call locked is unlocked again, what was locked before stays so.
    #[doc(alias = "MC_LOCK")]
    pub fn lock(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range.pages().get(), OnPinned::Return, |segs, writer| {
            let mut newly = NewlyLocked::default();
            let done = self.walk(cx, segs, range, writer, |scx, seg, piece| {
                seg.ops().lock_op(scx, piece, LockOp::Lock, &mut newly)
            });
            done.inspect_err(|_| self.undo_locks(cx, segs, writer, &newly))
        })
    }
    /// Unlocks `range`; drivers' errors are ignored.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole; what lies below is unlocked.
    #[doc(alias = "MC_UNLOCK")]
    pub fn unlock(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.check_limits(range)?;
        let segs = self.lock.read(cx);
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = piece?;
            let scx = self.scx(cx, seg.range(), false);
            // Best effort, as in illumos.
            let _ = seg.ops().lock_op(&scx, piece, LockOp::Unlock, &mut NewlyLocked::default());
        }
        Ok(())
    }
    /// Locks everything mapped now, or whatever will be mapped, or both. Holes that only look unmapped are skipped.
    ///
    /// # Errors
    /// The first driver's; what this call locked is unlocked again. The flag for future mappings stays set, as in illumos.
    #[doc(alias = "MC_LOCKAS")]
    pub fn lock_all(&self, cx: &Cx, what: LockAll) -> Result<(), AsError> {
        if what.contains(LockAll::FUTURE) {
            self.state.set_lock_future(true);
        }
        if !what.contains(LockAll::CURRENT) {
            return Ok(());
        }
        self.redo(cx, self.state.size() / page_db::PAGE_SIZE, OnPinned::Return, |segs, writer| {
            let mut newly = NewlyLocked::default();
            let all = segs.iter().filter(|seg| !seg.ops().kind().contains(SegKind::HOLE));
            for seg in all {
                let scx = self.scx(cx, seg.range(), writer);
                if let Err(error) = seg.ops().lock_op(&scx, seg.range(), LockOp::Lock, &mut newly) {
                    self.undo_locks(cx, segs, writer, &newly);
                    return Err(Stop::Seg { error, seg: seg.range() });
                }
            }
            Ok(())
        })
    }
    /// Unlocks everything, and future mappings are not locked any more. Drivers' errors are ignored.
    #[doc(alias = "MC_UNLOCKAS")]
    pub fn unlock_all(&self, cx: &Cx) {
        self.state.set_lock_future(false);
        for seg in self.lock.read(cx).iter() {
            let scx = self.scx(cx, seg.range(), false);
            let _ =
                seg.ops().lock_op(&scx, seg.range(), LockOp::Unlock, &mut NewlyLocked::default());
        }
    }
    fn undo_locks(&self, cx: &Cx, segs: &Segs, writer: bool, newly: &NewlyLocked) {
        for run in newly.runs() {
            // A run may pass a border between segments.
            for (seg, piece) in segs.pieces(cx, *run).flatten() {
                let scx = self.scx(cx, seg.range(), writer);
                let _ = seg.ops().lock_op(&scx, piece, LockOp::Unlock, &mut NewlyLocked::default());
            }
        }
    }
}
