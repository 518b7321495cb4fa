//! What a child of fork gets.
//!
//! ```text
//!   left out    nothing, whatever the driver      kept here, as runs of pages beside the tree
//!   share       the same memory                  \
//!   copy        a copy on write                   }  kept by the driver, which makes the child's half
//!   zero        zeros                            /
//! ```
//!
//! What is left out concerns addresses, not contents, so no driver need know of it: fork asks for the parts that are left ([`crate::SegOps::dup`] with
//! `child.seg`). The two are independent, as Linux has it: taking back that pages are left out shows again what the driver was told before.
//!
//! - G7: a page that is left out is mapped. Whatever unmaps it forgets it, so what is mapped there later is inherited as its kind says.
//!
//! - G11: what is noted in both places, or for new pages, is noted in one hold of the lock as writer: a fork finds a page as it was or as it is to be.
//!
//! All of this is looked at by the next fork and by nothing else.
//!
//! Sources: uvm.md 4.1, 5.5; illumos.md 3.8 (MC_INHERIT_ZERO).

use super::{OnPinned, Redo, Stop};
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::seg::{Inherit, SegKind, SegOps};
use crate::segs::Segs;
use crate::{SegCx, SegError};
use page_db::{Cx, VirtRange};

impl AddrSpace {
    /// Sets what a child of fork finds in `range`.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or a driver's, [`SegError::NotSupported`] for one that knows no such thing; what lies below is set.
    #[doc(alias = "minherit")]
    pub fn inherit(&self, cx: &Cx, range: VirtRange, how: Inherit) -> Result<(), AsError> {
        if how == Inherit::None {
            return self.leave_out(cx, range, true);
        }
        self.check_limits(range)?;
        let mut redo = Redo::new(self, cx, 1).over(range);
        loop {
            let done = self.inherit_pass(cx, &mut self.lock.write(cx), range, how);
            // held: nothing
            match done {
                Ok(()) => return Ok(()),
                Err(Stop::Seg { error, .. }) => redo.after(error)?,
                Err(Stop::Space(error)) => return Err(error),
                Err(Stop::Hole(addr)) => return Err(AsError::Unmapped { addr }),
            }
        }
    }
    fn inherit_pass(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        range: VirtRange,
        how: Inherit,
    ) -> Result<(), Stop> {
        let mut end = range.start().get();
        let done = self.walk(cx, segs, range, true, |scx, seg, piece| {
            seg.ops().inherit(scx, piece, Some(how)).inspect(|()| end = piece.end())
        });
        // What the drivers below a hole or a refusal were told is not left out any more either.
        if let Some(told) = range.until(end) {
            segs.set_left_out(told, false).map_err(Stop::Space)?;
        }
        done
    }
    /// Makes `range` zeros in a child of fork; private anonymous memory only.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, [`SegError::NotSupported`] or [`SegError::Invalid`]; what lies below is marked.
    #[doc(alias = "MC_INHERIT_ZERO")]
    pub fn inherit_zero(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.each(cx, range, |ops, scx, piece| ops.inherit_zero(scx, piece))
    }
    /// Makes `range` in a child of fork what its kind says: a copy of private memory, the same shared memory.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or a driver's; what lies below is set.
    #[doc(alias = "MADV_KEEPONFORK")]
    pub fn inherit_usual(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.each(cx, range, |ops, scx, piece| ops.inherit(scx, piece, None))
    }
    /// Says whether `range` is left out of a child of fork.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole; what lies below is marked. [`AsError::NoHeap`]; nothing has changed.
    #[doc(alias("MADV_DONTFORK", "MADV_DOFORK"))]
    pub fn leave_out(&self, cx: &Cx, range: VirtRange, on: bool) -> Result<(), AsError> {
        self.check_limits(range)?;
        let mut segs = self.lock.write(cx);
        let hole = segs.pieces(cx, range).find_map(|piece| match piece {
            Err(hole) => Some(hole.addr),
            Ok((seg, piece)) => seg.ops().kind().contains(SegKind::HOLE).then_some(piece.start()),
        });
        let mapped = hole.map_or(Some(range), |hole| range.until(hole.get()));
        if let Some(mapped) = mapped {
            segs.set_left_out(mapped, on)?;
        }
        hole.map_or(Ok(()), |addr| Err(AsError::Unmapped { addr }))
    }
    fn each(
        &self,
        cx: &Cx,
        range: VirtRange,
        f: impl Fn(&dyn SegOps, &SegCx<'_>, VirtRange) -> Result<(), SegError>,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range, 1, OnPinned::Return, |segs, writer| {
            self.walk(cx, segs, range, writer, |scx, seg, piece| f(seg.ops(), scx, piece))
        })
    }
}
