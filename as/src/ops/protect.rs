//! Changing and asking for rights.
//!
//! The change is not undone at a hole or at a driver that refuses: what lies below stays changed, as in illumos.
//!
//! Sources: [SI §9.4.3]; illumos.md 3.7.

use super::OnPinned;
use crate::addr_space::AddrSpace;
use crate::callback::Events;
use crate::error::AsError;
use crate::seg::SegKind;
use page_db::{Cx, Prot, VirtRange};

impl AddrSpace {
    /// Gives every page of `range` exactly the rights `prot`. Waits while pages that must not change are pinned.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, [`crate::SegError::Access`] above a segment's ceiling, [`crate::SegError::NoSwap`] and others of the driver: the
    /// segments below are already changed and stay so.
    #[doc(alias("as_setprot", "mprotect"))]
    pub fn set_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) -> Result<(), AsError> {
        self.set_prot_with(cx, range, prot, OnPinned::Wait(Events::SETPROT))
    }
    /// As [`AddrSpace::set_prot`], without waiting for pinned pages.
    ///
    /// # Errors
    /// As [`AddrSpace::set_prot`], and [`crate::SegError::Pinned`].
    pub fn try_set_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) -> Result<(), AsError> {
        self.set_prot_with(cx, range, prot, OnPinned::ReturnAsWriter)
    }
    fn set_prot_with(
        &self,
        cx: &Cx,
        range: VirtRange,
        prot: Prot,
        pinned: OnPinned,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range, range.pages().get(), pinned, |segs, writer| {
            self.walk(cx, segs, range, writer, |scx, seg, piece| {
                seg.ops().set_prot(scx, piece, prot)
            })
        })
    }
    /// Whether every page of `range` allows all of `prot`.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, [`crate::SegError::Access`] naming the first run that does not.
    #[doc(alias = "as_checkprot")]
    pub fn check_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) -> Result<(), AsError> {
        self.check_limits(range)?;
        let segs = self.lock.read(cx);
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = piece?;
            seg.ops().check_prot(&self.scx(cx, seg.range(), false), piece, prot)?;
        }
        Ok(())
    }
    /// Reports the rights of `range` as runs, in order; runs of two segments stay apart.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole; what lies below has been reported.
    #[doc(alias("SEGOP_GETPROT", "as_getprot"))]
    pub fn prots(
        &self,
        cx: &Cx,
        range: VirtRange,
        f: &mut dyn FnMut(VirtRange, Prot),
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        let segs = self.lock.read(cx);
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = piece?;
            if seg.ops().kind().contains(SegKind::HOLE) {
                return Err(AsError::Unmapped { addr: piece.start() });
            }
            seg.ops().prots(&self.scx(cx, seg.range(), false), piece, f);
        }
        Ok(())
    }
}
