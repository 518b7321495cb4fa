//! Taking a range elsewhere, letting a mapping go on.
//!
//! # The difficulty
//!
//! What is mapped at some addresses is to be found at others, and nothing else may change: not a byte is copied, no count of a page or an anon moves,
//! what is locked stays locked. The range may begin and end inside segments and hold several; something may be in the way; and a failure in the
//! middle would leave a mapping torn in two.
//!
//! # The rule
//!
//! ```text
//!   from   [ x  a ][ b ][ c  y ]                       to   [ p  q ]
//!
//!   check   a hole, a driver that cannot, pins         refused; nothing has changed
//!           something at `to`, if that is to be free   the same
//!   room    for two cuts and one in the way            refused; nothing has changed
//!   clear   what lies at `to` goes                     may have to wait for pins, and starts over then
//!   count   what stays behind of `from`, if it does    refused if somebody took the room meanwhile; what was in the way is gone
//!   notes   room for what is not forked of `from`      refused; but what was in the way is gone
//!   cut     [ x ][ a ][ b ][ c ][ y ]                  from here on nothing fails (G8)
//!   carry   [ x ]             [ y ]                    to   [ a ][ b ][ c ]      the same drivers, in the same order
//!   join                                               with what lies beside, where the drivers agree
//! ```
//!
//! All of it under one hold of the lock as writer: no thread sees half of it, and what had a translation faults at the old address and finds its
//! frame at the new one. While places that a mapping is to go on over are on their way out of its object ([`crate::leaving`]), whoever asks for them gives
//! back what has been made so far, and waits with nothing held.
//!
//! Showing a range twice has a file of its own (`share`). A mapping goes on by a new segment just above that its driver makes
//! ([`Extract::continued`]), which then joins the one below like any other new neighbour; so a growing mapping takes the slots of its anon map that follow, and shared memory grows for all who map it.
//!
//! # The other road
//!
//! UVM moves by sharing and then unmapping the source. That needs nothing new of a driver, but for a moment twice the promises, and a share that fails must be taken
//! back. Here nothing is promised twice, so a move needs no memory at all but for the cuts.
//!
//! Sources: uvm.md 5.6.

use super::unmap::Gone;
use super::{OnPinned, Stop};
use crate::addr_space::AddrSpace;
use crate::callback::Events;
use crate::error::{AsError, SegError};
use crate::extract::{Continued, Extract, Like};
use crate::fault::FaultError;
use crate::leaving::Contents;
use crate::seg::{Join, SegCreate, SegCx, SegKind, SegOps};
use crate::segs::{Hole, Mark, Removed, Seg, Segs};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use page_db::{Cx, VirtAddr, VirtRange};

/// Segments that a move may cut: two of what moves, one of what is in the way.
const CUTS: usize = 3;

/// What is left where a range was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// Nothing is mapped there.
    Hole,
    /// The same mappings as if they were new: the object, the rights, no private page.
    #[doc(alias = "MREMAP_DONTUNMAP")]
    Fresh,
}

/// What a move asks of the place it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// That nothing is there: what is found there stays, and the move is refused.
    Free,
    /// Nothing: what is there goes.
    #[doc(alias = "MREMAP_FIXED")]
    Replace,
}

/// A move, as it was asked for.
#[derive(Clone, Copy)]
struct Move {
    from: VirtRange,
    to: VirtRange,
    leave: Leave,
    target: Target,
}

pub(super) type Piece<'a> = (Seg<'a>, VirtRange);

/// Drivers that are not in the tree yet.
#[derive(Default)]
pub(super) struct Made {
    pub(super) segs: Vec<Removed>,
    /// How many, from the first, have been counted in size and reservation.
    counted: usize,
    /// What is waited for before the next pass makes more.
    leaving: Option<Arc<dyn Contents>>,
}

fn no_heap(_: alloc::collections::TryReserveError) -> AsError {
    AsError::NoHeap { what: "segment" }
}

/// A piece of a range, or the hole it is found to be. Addresses that are kept from everybody are one: nothing of them moves.
pub(super) fn mapped<'a>(piece: Result<Piece<'a>, Hole>) -> Result<Piece<'a>, Hole> {
    piece.and_then(|(seg, piece)| match seg.ops().kind().contains(SegKind::HOLE) {
        true => Err(Hole { addr: piece.start() }),
        false => Ok((seg, piece)),
    })
}

pub(super) fn extract(seg: Seg<'_>) -> Result<&dyn Extract, SegError> {
    let driver = seg.driver();
    seg.ops().extract().ok_or(SegError::NotSupported { driver, op: "extract" })
}

impl AddrSpace {
    /// Whether all of `range` is mapped. A guard is not ([`SegKind::HOLE`]).
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at the first hole, [`AsError::OutsideSpace`].
    pub fn check_mapped(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.check_limits(range)?;
        let segs = self.lock.read(cx);
        let hole = segs.pieces(cx, range).find_map(|piece| mapped(piece).err());
        hole.map_or(Ok(()), |hole| Err(hole.into()))
    }
    /// Whether `range` could be moved now, but for want of memory.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, [`SegError::NotSupported`] of a driver that has no [`Extract`], [`SegError::Pinned`].
    pub fn may_move(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.check_move(cx, &self.lock.write(cx), range)
    }
    /// Moves whatever is mapped in `from` to `to`; pages, references, locks in memory and what a child of fork is to find come along. With
    /// [`Target::Replace`] it takes the place of what is there; what is in the way and pinned is waited for.
    ///
    /// # Errors
    /// As [`AddrSpace::may_move`]; [`AsError::Overlap`] when the two overlap, or something is where [`Target::Free`] wants nothing; [`AsError::NoHeap`]; with [`Leave::Fresh`] also what a new mapping may
    /// answer. Nothing has changed. A driver's error, [`AsError::NoHeap`], or [`AsError::VmemLimit`] if another thread took the room that what was in the way left, once something was found there: that is gone below the failing segment, and nothing has moved.
    #[doc(alias("mremap", "as_move"))]
    pub fn move_range(
        &self,
        cx: &Cx,
        from: VirtRange,
        to: VirtAddr,
        leave: Leave,
        target: Target,
    ) -> Result<(), AsError> {
        let to = from.at(to.get())?;
        self.check_limits(from)?;
        self.check_limits(to)?;
        if from.intersect(to).is_some() {
            return Err(AsError::Overlap { range: to, with: from });
        }
        let call = Move { from, to, leave, target };
        self.redo_taking(cx, OnPinned::Wait(Events::UNMAP), |gone| {
            let mut made = Made::default();
            let mut segs = self.lock.write(cx);
            let done = self.remap_pass(cx, &mut segs, call, gone, &mut made);
            drop(segs);
            self.give_back(cx, made);
            done
        })
    }
    fn remap_pass(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        Move { from, to, leave, target }: Move,
        gone: &mut Gone,
        made: &mut Made,
    ) -> Result<(), Stop> {
        self.check_move(cx, segs, from).map_err(Stop::Space)?;
        if target == Target::Free {
            self.check_free(cx, segs, to).map_err(Stop::Space)?;
        }
        let fresh = if leave == Leave::Fresh { segs.pieces(cx, from).count() } else { 0 };
        segs.reserve(cx, fresh + CUTS).map_err(Stop::Space)?;
        if leave == Leave::Fresh {
            self.make_fresh(cx, segs, from, to, made)?;
        }
        let left_out = segs.left_out_at(from, to).map_err(Stop::Space)?;
        let forgotten = (leave == Leave::Hole).then_some(from);
        self.unmap_pass(cx, segs, to, gone)?;
        self.uncount_gone(gone);
        self.count_made(cx, made)?;
        segs.make_room_for(&left_out, forgotten).map_err(Stop::Space)?;
        segs.make_room_to_mark(from).map_err(Stop::Space)?;
        gone.empty_parts(cx); // or what comes to lie there would not join its neighbours, whose slots those were
        // Nothing fails from here on.
        self.cut_at(cx, segs, from.start().get());
        self.cut_at(cx, segs, from.end());
        self.carry(cx, segs, from, to);
        segs.unmark_all(from);
        segs.note_left_out(&left_out, forgotten);
        insert_all(segs, made);
        // What lies above may have been mapped a moment ago, for the mapping to grow into.
        self.join_at(cx, segs, to.end(), Join::Extend);
        self.join_at(cx, segs, to.start().get(), Join::Neighbours);
        Ok(())
    }
    fn check_move(&self, cx: &Cx, segs: &Segs, range: VirtRange) -> Result<(), AsError> {
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = mapped(piece)?;
            extract(seg)?.may_move(&self.scx(cx, seg.range(), true), piece)?;
        }
        Ok(())
    }
    /// What stays behind of each piece of `from`; it is to fit under the limit when what lies at `to` has gone, and is counted then.
    fn make_fresh(
        &self,
        cx: &Cx,
        segs: &Segs,
        from: VirtRange,
        to: VirtRange,
        made: &mut Made,
    ) -> Result<(), Stop> {
        let (going, mut coming) = (self.counted_in(cx, segs, to), 0_u64);
        for piece in segs.pieces(cx, from) {
            let (seg, piece) = piece?;
            let fits = self.state.check_resv_without(going, coming.saturating_add(piece.len()));
            fits.map_err(Stop::Space)?;
            coming += self.counts(cx, seg, piece);
            let first = seg.range().page_index(piece.start());
            let scx = self.scx(cx, seg.range(), true);
            self.make_one(cx, seg, piece, made, |extract, to| {
                extract.continued(&scx, first, Like::Repeated, to)
            })?;
        }
        Ok(())
    }
    /// Bytes that the piece of a segment, or one that is made like it, counts for in `resv_size` by its size.
    pub(super) fn counts(&self, cx: &Cx, seg: Seg<'_>, piece: VirtRange) -> u64 {
        let own = seg.ops().counts_own_resv(&self.scx(cx, seg.range(), true));
        if own { 0 } else { piece.len() }
    }
    /// The same of all that is mapped in `range`.
    fn counted_in(&self, cx: &Cx, segs: &Segs, range: VirtRange) -> u64 {
        let mut at = segs.find_or_next(cx, range.start().get());
        let parts = core::iter::from_fn(|| {
            let id = at?;
            at = segs.next_id(id);
            let part = segs.range(id).intersect(range)?;
            Some(self.counts(cx, segs.get(id), part))
        });
        parts.sum()
    }
    /// Counts what has been made and is not counted yet.
    pub(super) fn count_made(&self, cx: &Cx, made: &mut Made) -> Result<(), Stop> {
        for Removed { range, ops } in &made.segs[made.counted..] {
            self.count(&self.scx(cx, *range, true), &**ops).map_err(Stop::Space)?;
            made.counted += 1;
        }
        Ok(())
    }
    /// One driver for `range` of this address space, made from `seg`, not counted yet.
    pub(super) fn make_one(
        &self,
        cx: &Cx,
        seg: Seg<'_>,
        range: VirtRange,
        made: &mut Made,
        make: impl FnOnce(&dyn Extract, &SegCx<'_>) -> Result<Continued, SegError>,
    ) -> Result<(), Stop> {
        made.segs.try_reserve(1).map_err(no_heap).map_err(Stop::Space)?;
        let scx = self.scx(cx, range, true);
        let ops = match extract(seg).and_then(|extract| make(extract, &scx)) {
            Ok(Continued::Made(ops)) => ops,
            Ok(Continued::Leaving(contents)) => {
                made.leaving = Some(contents);
                let again = FaultError::Retry { addr: range.start() };
                return Err(Stop::Seg { error: again.into(), seg: seg.range() });
            }
            Err(error) => return Err(Stop::Seg { error, seg: seg.range() }),
        };
        made.segs.push(Removed { range, ops });
        Ok(())
    }
    /// Undoes [`AddrSpace::make_one`] and [`AddrSpace::count_made`], and waits for what kept it from making more. No lock is held.
    pub(super) fn give_back(&self, cx: &Cx, made: Made) {
        for (i, Removed { range, ops }) in made.segs.into_iter().enumerate() {
            if i < made.counted {
                self.uncount(cx, range, &*ops);
            } else {
                ops.free(&self.scx(cx, range, false));
            }
        }
        if let Some(contents) = made.leaving {
            contents.wait_emptied(cx);
        }
    }
    /// Cuts the segment that spans `at`, if there is one. Room was reserved.
    fn cut_at(&self, cx: &Cx, segs: &mut Segs, at: u64) {
        let Some((id, range)) = segs.find(cx, at) else { return };
        let (Some(low), Some(high)) = (range.until(at), range.from(at)) else { return };
        let scx = self.scx(cx, range, true);
        let driver = extract(segs.get(id)).expect("G8: it was asked before");
        let upper = driver.split(&scx, high.start());
        segs.resize(id, low);
        segs.insert(high, upper);
    }
    /// Takes the segments of `from`, which ends where segments end, to `to`, where nothing is.
    fn carry(&self, cx: &Cx, segs: &mut Segs, from: VirtRange, to: VirtRange) {
        let mut at = segs.find(cx, from.start().get()).map(|(id, _)| id);
        while let Some(id) = at {
            let range = segs.range(id);
            if range.start().get() >= from.end() {
                break;
            }
            at = segs.next_id(id);
            let place = moved(range, from, to);
            let scx = self.scx(cx, range, true);
            extract(segs.get(id)).expect("G8: it was asked before").relocate(&scx, place);
            let Removed { ops, .. } = segs.remove(id);
            segs.insert(place, ops);
        }
    }
    /// Makes one of the two segments that meet at `at`, if there are two and their drivers agree.
    fn join_at(&self, cx: &Cx, segs: &mut Segs, at: u64, join: Join) {
        let lower = at.checked_sub(1).and_then(|below| segs.find(cx, below));
        let (Some((lower, low)), Some((upper, high))) = (lower, segs.find(cx, at)) else { return };
        if low.end() != high.start().get() {
            return; // the middle of one
        }
        let (a, b) = (segs.get(lower), segs.get(upper));
        if a.ops().concat(&self.scx(cx, low, true), high, b.ops(), join) {
            segs.remove(upper);
            let whole = VirtRange::exact(low.start().get(), high.end() - low.start().get());
            segs.resize(lower, whole.expect("U2: two adjacent ranges make one"));
        }
    }

    /// Maps `tail`, which must be free, as if the mapping that holds the page `last` went on there: what follows in its object, with the rights, the advice and
    /// the inheritance of that page, and locked in memory if that is. Joins its neighbours like any new segment.
    ///
    /// # Errors
    /// As [`AddrSpace::map`]; [`AsError::Seg`] with [`SegError::NotSupported`] or [`SegError::Unmapped`]. Nothing has changed.
    #[doc(alias = "amap_extend")]
    pub fn extend(&self, cx: &Cx, last: VirtAddr, tail: VirtRange) -> Result<(), AsError> {
        let (last, mark) = (last.page_floor(), self.new_mark());
        let more = More { space: self, last, locked: Cell::new(false), mark };
        let mut done = self.map_at(cx, tail, &more, Some(last));
        if more.locked.get() {
            if done.is_ok() {
                // Also when it has been locked as whatever is mapped is: whether that was so when it was mapped, nobody can tell now.
                done = self.lock_marked(cx, tail, mark);
            }
            self.forget_mark(cx, tail, mark);
        }
        done
    }
}

pub(super) fn insert_all(segs: &mut Segs, made: &mut Made) {
    for made in made.segs.drain(..) {
        segs.insert(made.range, made.ops);
    }
}

/// Where `part` of `from` comes to lie.
pub(super) fn moved(part: VirtRange, from: VirtRange, to: VirtRange) -> VirtRange {
    let start = to.page_at(from.page_index(part.start()));
    part.at(start.get()).expect("U2: part of a range is a range")
}

/// Makes what follows a mapping.
struct More<'a> {
    space: &'a AddrSpace,
    /// The page after which it follows.
    last: VirtAddr,
    /// Whether that was found to be locked in memory.
    locked: Cell<bool>,
    mark: Mark,
}

impl SegCreate for More<'_> {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        match self.ask(scx)? {
            Continued::Made(ops) => Ok(ops),
            Continued::Leaving(contents) => {
                // held: nothing
                contents.wait_emptied(scx.cx);
                Err(FaultError::Retry { addr: self.last }.into()) // which the caller counts
            }
        }
    }
    fn mark(&self) -> Option<Mark> {
        self.locked.get().then_some(self.mark)
    }
}

impl More<'_> {
    fn ask(&self, scx: &SegCx<'_>) -> Result<Continued, SegError> {
        let space = self.space;
        let segs = space.lock.read(scx.cx);
        let seg = segs.seg_at(scx.cx, self.last);
        let seg = seg.filter(|seg| !seg.ops().kind().contains(SegKind::HOLE));
        let seg = seg.ok_or(SegError::Unmapped { addr: self.last })?;
        let (range, extract) = (seg.range(), extract(seg)?);
        let of = space.scx(scx.cx, range, false);
        self.locked.set(extract.is_locked(&of, self.last));
        extract.continued(&of, range.page_index(self.last) + 1, Like::Before, scx)
    }
}
