//! Taking a range away.
//!
//! Holes are skipped, and unmapping nothing succeeds. The driver gives up its piece and says what is left ([`Remnant`]); the tree is
//! edited here. Pinned pages end the walk: callbacks are run or the pins waited for, without the lock, and the walk starts from the
//! first address again, where what was taken away before is a hole by now.
//!
//! Under the lock a segment gives up its translations and leaves the tree. What it held (pages, slots, a reservation, the driver itself) is
//! freed after the lock, since nobody can reach it any more and every thread of the process may be waiting. So is what a part held that a segment gave up and
//! lives on without ([`crate::leaving`]).
//!
//! ```text
//!   [ low | gone ] [ whole ] [ gone | high ]      lock ─▶ unlock ─▶ empty, empty, free      parts first: one call meets two at most
//! ```
//!
//! - G5: what is left is what the geometry says, and the driver says the same. The one thing that could fail, room for
//!   the second half of a cut segment, is reserved before the driver lets go. One that says something else has let go all the same: the piece is gone, what
//!   has a driver stays, what has none goes too, and the caller is told ([`SegError::Invalid`]).
//! - G6: a driver that left the tree whole is freed once ([`SegOps::free`]), by the thread that took it out.
//!
//! Sources: [SI §9.4.2]; illumos.md 3.5.

use super::{OnPinned, Stop};
use crate::addr_space::AddrSpace;
use crate::avl::NodeId;
use crate::callback::Events;
use crate::error::{AsError, SegError};
use crate::hat::UnloadFlags;
use crate::leaving::Leaving;
use crate::seg::{Remnant, SegOps};
use crate::segs::{Removed, Segs};
use alloc::vec::Vec;
use core::mem::take;
use page_db::sync::{Mutation, mutated};
use page_db::{Cx, VirtRange};

impl AddrSpace {
    /// Removes whatever is mapped in `range`; holes are skipped. Waits while pages are pinned for i/o.
    ///
    /// # Errors
    /// [`AsError::OutsideSpace`]; nothing has changed. [`AsError::NoHeap`] when a segment would be cut in two, or a range that a child is not to have,
    /// or a driver's error: what lies below the failing segment is gone. [`SegError::Invalid`] also from a driver that says wrongly what it leaves; then
    /// the part of its segment is gone as well.
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
        if mutated(Mutation::UnloadedBeforeLocked) {
            self.hat.unload(cx, range, UnloadFlags::UNMAP);
        }
        let pass = |gone: &mut Gone| self.unmap_pass(cx, &mut self.lock.write(cx), range, gone);
        self.redo_taking(cx, pinned, pass)
    }
    /// Takes `range` out of every segment it meets. What is left to do without the lock goes to `gone`, for [`AddrSpace::finish`].
    pub(crate) fn unmap_pass(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        range: VirtRange,
        gone: &mut Gone,
    ) -> Result<(), Stop> {
        let mut at = segs.find_or_next(cx, range.start().get());
        while let Some(id) = at {
            segs.fetch_for_removal(id);
            let seg = segs.range(id);
            let Some(piece) = seg.intersect(range) else { break };
            at = if piece.end() < range.end() { segs.next_id(id) } else { None };
            if seg.start() < piece.start() && piece.end() < seg.end() {
                segs.reserve(cx, 1).map_err(Stop::Space)?;
            }
            segs.make_room(piece).map_err(Stop::Space)?;
            let scx = self.scx(cx, seg, true);
            let ops = segs.get(id).ops();
            let own = ops.counts_own_resv(&scx).then(|| ops.reserved());
            let left = match piece == seg {
                true => ops.unmap(&scx, piece).map(|left| (left, None)),
                false => ops.unmap_part(&scx, piece),
            };
            let (left, leaving) = left.map_err(|error| Stop::Seg { error, seg })?;
            // Nothing fails from here on.
            let (left, agreed) = by_geometry(left, seg, piece);
            gone.bytes += piece.len();
            let less = own.map_or(piece.len(), |own| own.saturating_sub(reserved_of(ops, &left)));
            gone.reserved = gone.reserved.saturating_add(less);
            segs.forget(piece);
            if let Some(leaving) = leaving {
                gone.leave(cx, leaving);
            }
            let driver = segs.get(id).driver();
            if let Some(whole) = self.cut(cx, segs, (id, seg), piece, left, gone)
                && let Err(whole) = gone.keep(whole)
            {
                self.free_seg(cx, whole); // no heap to remember it by
            }
            if !agreed {
                let what = "unmap says wrongly what is left";
                let error = SegError::Invalid { driver, what, range: piece };
                return Err(Stop::Seg { error, seg });
            }
        }
        Ok(())
    }
    /// Edits the tree after a driver gave up `piece` of a segment (G5). Returns the segment if it is gone whole.
    fn cut(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        (id, whole): (NodeId, VirtRange),
        piece: VirtRange,
        left: Remnant,
        gone: &mut Gone,
    ) -> Option<Removed> {
        match (left, whole.until(piece.start().get()), whole.from(piece.end())) {
            (_, None, None) => return Some(segs.remove(id)),
            (_, Some(low), None) => segs.resize(id, low),
            (_, None, Some(high)) => segs.resize(id, high),
            (Remnant::Both(ops), Some(low), Some(high)) => {
                segs.resize(id, low);
                segs.insert(high, ops);
            }
            (_, Some(low), Some(high)) => {
                segs.resize(id, low);
                gone.reserved += self.counts(cx, segs.get(id), high);
                self.drop_orphan(cx, segs, high, gone);
            }
        }
        None
    }
    /// Forgets a part for which a driver has named none to serve it.
    #[cold]
    fn drop_orphan(&self, cx: &Cx, segs: &mut Segs, part: VirtRange, gone: &mut Gone) {
        self.hat.unload(cx, part, UnloadFlags::UNMAP | UnloadFlags::UNLOCK);
        if segs.make_room(part).is_ok() {
            segs.forget(part); // else a child does without whatever is mapped there next
        }
        gone.bytes += part.len();
    }
    /// Does what [`AddrSpace::unmap_pass`] left to be done without the lock.
    pub(crate) fn finish(&self, cx: &Cx, mut gone: Gone) {
        self.uncount_gone(&mut gone); // first: what is not mapped any more keeps nobody from mapping
        gone.empty_parts(cx);
        gone.first.into_iter().chain(gone.others).for_each(|seg| self.free_seg(cx, seg));
    }
    /// Takes what has gone off the counts, once.
    pub(super) fn uncount_gone(&self, gone: &mut Gone) {
        let (bytes, reserved) = (take(&mut gone.bytes), take(&mut gone.reserved));
        if bytes != 0 {
            self.state.sub_size(bytes);
            self.state.sub_resv(reserved);
        }
    }
    fn free_seg(&self, cx: &Cx, seg: Removed) {
        seg.ops.free(&self.scx(cx, seg.range, false));
    }
}

/// What a pass took out of the tree. One segment, the usual case, is remembered without the heap, and so are the parts at the ends of a range.
#[derive(Debug, Default)]
pub(crate) struct Gone {
    /// Bytes unmapped, of whole segments and of parts.
    bytes: u64,
    /// Those of them that counted as reserved.
    reserved: u64,
    parts: [Option<Leaving>; 2],
    first: Option<Removed>,
    others: Vec<Removed>,
}

impl Gone {
    /// Remembers a segment that left the tree whole.
    ///
    /// # Errors
    /// The segment itself, when there is no heap.
    pub(crate) fn keep(&mut self, seg: Removed) -> Result<(), Removed> {
        if self.first.is_none() {
            self.first = Some(seg);
        } else if self.others.try_reserve(1).is_ok() {
            self.others.push(seg);
        } else {
            return Err(seg);
        }
        Ok(())
    }
    /// Remembers a part that a segment gave up.
    fn leave(&mut self, cx: &Cx, leaving: Leaving) {
        match self.parts.iter_mut().find(|part| part.is_none()) {
            Some(part) => *part = Some(leaving),
            None => leaving.empty(cx), // of a pass over several ranges: here and now
        }
    }
    /// Empties the parts that segments gave up (G9), in the order in which they did.
    pub(crate) fn empty_parts(&mut self, cx: &Cx) {
        self.parts.iter_mut().filter_map(Option::take).for_each(|part| part.empty(cx));
    }
}

/// What is left reserved of a segment that has answered an unmap with `left`.
fn reserved_of(ops: &dyn SegOps, left: &Remnant) -> u64 {
    match left {
        Remnant::Nothing => 0,
        Remnant::Low | Remnant::High => ops.reserved(),
        Remnant::Both(high) => ops.reserved().saturating_add(high.reserved()),
    }
}

/// What is left of the segment at `whole` less `piece`, when its driver says `left`, and whether that is so (G5). Where there should be somebody to serve the
/// part above and is not, it is the part below.
fn by_geometry(left: Remnant, whole: VirtRange, piece: VirtRange) -> (Remnant, bool) {
    match (left, whole.start() < piece.start(), piece.end() < whole.end()) {
        (left @ Remnant::Nothing, false, false)
        | (left @ Remnant::Low, true, false)
        | (left @ Remnant::High, false, true)
        | (left @ Remnant::Both(_), true, true) => (left, true),
        (_, false, false) => (Remnant::Nothing, false),
        (_, true, _) => (Remnant::Low, false),
        (_, false, true) => (Remnant::High, false),
    }
}
