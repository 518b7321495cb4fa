//! Taking a range away.
//!
//! Holes are skipped, and unmapping nothing succeeds. The driver gives up its piece and says what is left ([`Remnant`]); the tree is
//! edited here. Pinned pages end the walk: callbacks are run or the pins waited for, without the lock, and the walk starts from the
//! first address again, where what was taken away before is a hole by now.
//!
//! - G5: what the driver says is left is what the geometry says. The one thing that could fail, room for
//!   the second half of a cut segment, is reserved before the driver lets go.
//!
//! Sources: [SI §9.4.2]; illumos.md 3.5.

use super::{OnPinned, Redo, Stop};
use crate::addr_space::AddrSpace;
use crate::avl::NodeId;
use crate::callback::Events;
use crate::error::{AsError, SegError};
use crate::seg::Remnant;
use crate::segs::{Seg, Segs};
use alloc::vec::Vec;
use page_db::{Cx, VirtRange};

impl AddrSpace {
    /// Removes whatever is mapped in `range`; holes are skipped. Waits while pages are pinned for i/o.
    ///
    /// # Errors
    /// [`AsError::OutsideSpace`], [`AsError::NoHeap`] when a segment would be cut in two; nothing has changed. A driver's error: what
    /// lies below the failing segment is gone.
    #[doc(alias = "as_unmap")]
    pub fn unmap(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.unmap_with(cx, range, OnPinned::Wait(Events::UNMAP))
    }
    /// Removes what is mapped in `range` without waiting for pinned pages.
    ///
    /// # Errors
    /// As [`AddrSpace::unmap`], and [`SegError::Pinned`]; what lies below the pinned segment is gone.
    pub fn try_unmap(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.unmap_with(cx, range, OnPinned::Return)
    }
    fn unmap_with(&self, cx: &Cx, range: VirtRange, pinned: OnPinned) -> Result<(), AsError> {
        self.check_limits(range)?;
        let mut redo = Redo::new(self, cx, 0);
        loop {
            let epoch = self.state.pin_epoch();
            let mut gone = Vec::new();
            let done = self.unmap_pass(cx, &mut self.lock.write(cx), range, &mut gone);
            // held: nothing
            drop(gone);
            match (done, pinned) {
                (Ok(()), _) => return Ok(()),
                (Err(Stop::Seg { error: SegError::Pinned { .. }, seg }), OnPinned::Wait(event)) => {
                    self.wait_for_pins(cx, event, seg, epoch);
                }
                (Err(Stop::Seg { error, .. }), _) => redo.after(error)?,
                (Err(Stop::Space(error)), _) => return Err(error),
                (Err(Stop::Hole(addr)), _) => return Err(AsError::Unmapped { addr }),
            }
        }
    }
    /// Takes `range` out of every segment it meets. Segments that are gone whole are put into `gone`, to be dropped after the lock.
    pub(crate) fn unmap_pass(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        range: VirtRange,
        gone: &mut Vec<Seg>,
    ) -> Result<(), Stop> {
        let mut at = segs.find_or_next(cx, range.start().get());
        while let Some(id) = at {
            let seg = segs.get(id).range();
            let Some(piece) = seg.intersect(range) else { break };
            at = segs.next_id(id);
            if seg.start() < piece.start() && piece.end() < seg.end() {
                segs.reserve(1).map_err(Stop::Space)?;
            }
            let scx = self.scx(cx, seg, true);
            let ops = segs.get(id).ops();
            let left = ops.unmap(&scx, piece).map_err(|error| Stop::Seg { error, seg })?;
            // Nothing fails from here on.
            let whole = cut(segs, id, piece, left);
            // Without room to keep it until after the lock, it is dropped here and now.
            if gone.try_reserve(1).is_ok() {
                gone.extend(whole);
            }
            self.state.sub_size(piece.len());
            self.state.sub_resv(piece.len()); // a driver that counts for itself has put it back
        }
        Ok(())
    }
}

/// Edits the tree after a driver gave up `piece` of the segment `id` (G5). Returns the segment if it is gone whole.
fn cut(segs: &mut Segs, id: NodeId, piece: VirtRange, left: Remnant) -> Option<Seg> {
    let whole = segs.get(id).range();
    match (left, whole.until(piece.start().get()), whole.from(piece.end())) {
        (Remnant::Nothing, None, None) => return Some(segs.remove(id)),
        (Remnant::Low, Some(low), None) => segs.resize(id, low),
        (Remnant::High, None, Some(high)) => segs.resize(id, high),
        (Remnant::Both(ops), Some(low), Some(high)) => {
            segs.resize(id, low);
            segs.insert(high, ops);
        }
        (left, low, high) => {
            panic!("G5: {left:?} is left of {whole} less {piece}: {low:?}, {high:?}")
        }
    }
    None
}
