//! Adding a segment, and merging it with its neighbours.
//!
//! Every thread of the process may be waiting for the lock, so under it is done what needs the tree and nothing else. The driver is made, and what
//! it promises is paid for, before; what turns out superfluous is dropped after.
//!
//! ```text
//!   reader: is the range free? ─no─▶          refused; the driver was not asked
//!   would it fit under the limit? ─no─▶       the same
//!   make the driver, count what it reserves   no lock: allocates, reserves swap, may fail or wait for memory
//!   writer: is it still free? ─no─▶           the driver is given back (SegOps::free), as if it had never been
//!           merge or insert
//!   drop what a neighbour took over           no lock
//! ```
//!
//! The first look is a courtesy (a range that is taken is reported before anything else that is wrong) and left out where a search has just
//! found the hole. The second decides. The driver is made before it is known whether it will be kept: if the segment below takes it over, it
//! is dropped again.
//!
//! ```text
//!   [ prev ][ new ]          prev.concat(new, Extend)        one segment; new's driver goes
//!   [ prev + new ][ next ]   prev.concat(next, Neighbours)   one segment; next's driver goes as well
//!           [ new ][ next ]  new.concat(next, Extend)        only if prev did not take it; next's driver goes
//! ```
//!
//! The other road, everything under the lock, is how the textbook has it; two threads that map and unmap beside each other then wait for each
//! other's allocations.
//!
//! # What is mapped and then locked
//!
//! A mapping that is to be locked in memory, as all are with future memory locked, is locked when it is there, which may wait for memory; and is gone again if
//! that is refused. Meanwhile another thread may unmap it and map something else in its place, for which it needs nobody's leave. So the new pages
//! have a mark until they are locked, given and looked for with the lock held as writer and taken away by whatever unmaps or moves them:
//!
//! ```text
//!   map      [ m m m m ]              locked: waits for memory
//!   others   [ m m ][ x x ]           two pages are unmapped, and others mapped there
//!   refused         [ x x ]           what has the mark goes
//! ```
//!
//! - G13: a mapping that is refused its lock takes away nothing but itself, and locks nothing else: what others have unmapped of it is not missed.
//!
//! Sources: [SI §9.4.1]; illumos.md 3.5, 4.2.

use super::{OnPinned, Redo};
use crate::addr_space::AddrSpace;
use crate::avl::{NodeId, Place};
use crate::callback::Events;
use crate::error::AsError;
use crate::runs::vpns;
use crate::seg::{Join, SegCreate, SegKind, SegOps};
use crate::segs::{Mark, Segs};
use alloc::boxed::Box;
use page_db::sync::atomic::Ordering;
use page_db::{Cx, VirtAddr, VirtRange};

/// Drivers that the new segment made superfluous; dropped after the lock.
type Superfluous = [Option<Box<dyn SegOps>>; 2];

/// These, and by what mark the new mapping is to be locked.
type Added = (Superfluous, Option<Mark>);

impl AddrSpace {
    /// Adds a segment at `range`, which must be free; merges it with its neighbours where the drivers agree.
    ///
    /// # Errors
    /// [`AsError::OutsideSpace`], [`AsError::Overlap`], [`AsError::VmemLimit`], [`AsError::NoHeap`], [`AsError::Freed`], or the driver's;
    /// nothing has changed. With locking of future mappings on, also whatever [`AddrSpace::lock`] answers; the mapping is gone again.
    #[doc(alias = "as_map")]
    pub fn map(&self, cx: &Cx, range: VirtRange, make: &dyn SegCreate) -> Result<(), AsError> {
        self.map_at(cx, range, make, None)
    }
    /// The same, and the new pages are left out of a child of fork if the page `like` is.
    pub(super) fn map_at(
        &self,
        cx: &Cx,
        range: VirtRange,
        make: &dyn SegCreate,
        like: Option<VirtAddr>,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.check_free(cx, &self.lock.read(cx), range)?;
        self.map_like(cx, range, make, like)
    }
    /// The same for a range inside the limits that was just seen to be free.
    pub(super) fn map_free(
        &self,
        cx: &Cx,
        range: VirtRange,
        make: &dyn SegCreate,
    ) -> Result<(), AsError> {
        self.map_like(cx, range, make, None)
    }
    /// The same, and the new pages are left out of a child of fork if the page `like` is: that is so as soon as they are there.
    pub(super) fn map_like(
        &self,
        cx: &Cx,
        range: VirtRange,
        make: &dyn SegCreate,
        like: Option<VirtAddr>,
    ) -> Result<(), AsError> {
        let mut redo = Redo::new(self, cx, 0);
        let to_lock = loop {
            match self.map_pass(cx, range, make, like) {
                Ok(to_lock) => break to_lock,
                Err(AsError::Seg(error)) => redo.after(error)?,
                Err(error) => return Err(error),
            }
        };
        // held: nothing
        let Some(mark) = to_lock else { return Ok(()) };
        let done = self.lock_marked(cx, range, mark);
        if make.mark().is_none() {
            self.forget_mark(cx, range, mark);
        }
        done
    }
    /// What a mapping may be made with that is to be locked in memory ([`SegCreate::mark`], [`AddrSpace::lock_marked`]). Whoever takes it ends it
    /// ([`AddrSpace::forget_mark`]).
    pub fn new_mark(&self) -> Mark {
        Mark(self.marks.fetch_add(1, Ordering::Relaxed) + 1)
    }
    /// Locks what has been mapped in `range` with `mark`, where it is still mapped; what cannot be locked is gone again, all of it (G13).
    ///
    /// # Errors
    /// As [`AddrSpace::lock`].
    pub fn lock_marked(&self, cx: &Cx, range: VirtRange, mark: Mark) -> Result<(), AsError> {
        self.lock_newcomer(cx, range, mark).or_else(|error| {
            self.redo_taking(cx, OnPinned::Wait(Events::UNMAP), |gone| {
                let mut segs = self.lock.write(cx);
                let mut at = range.start().get();
                while let Some(run) = segs.marked(range, at, mark) {
                    at = run.end();
                    self.unmap_pass(cx, &mut segs, run, gone)?;
                }
                Ok(())
            })?;
            Err(error)
        })
    }
    /// What has been mapped in `range` with `mark` is a mapping like others from now on.
    pub fn forget_mark(&self, cx: &Cx, range: VirtRange, mark: Mark) {
        self.lock.write(cx).unmark(range, mark);
    }
    /// Says by what mark the new mapping is to be locked, if all future memory is.
    fn map_pass(
        &self,
        cx: &Cx,
        range: VirtRange,
        make: &dyn SegCreate,
        like: Option<VirtAddr>,
    ) -> Result<Option<Mark>, AsError> {
        let ops = self.make(cx, range, make)?;
        // held: nothing
        match self.add(cx, range, ops, make, like) {
            Ok((superfluous, to_lock)) => {
                drop::<Superfluous>(superfluous);
                Ok(to_lock)
            }
            Err((error, ops)) => {
                self.uncount(cx, range, &*ops);
                Err(error)
            }
        }
    }
    /// Makes the driver and counts it; nothing is counted when that fails.
    fn make(
        &self,
        cx: &Cx,
        range: VirtRange,
        make: &dyn SegCreate,
    ) -> Result<Box<dyn SegOps>, AsError> {
        // Before it promises anything. What it will have reserved only the driver knows.
        self.state.check_resv(if make.counts() { range.len() } else { 0 })?;
        let scx = self.scx(cx, range, false);
        let ops = make.create(&scx)?;
        match self.count(&scx, &*ops) {
            Ok(()) => Ok(ops),
            Err(error) => {
                ops.free(&scx);
                Err(error)
            }
        }
    }
    /// Whether a segment can be added at `range`, inside the limits.
    pub(super) fn check_free(&self, cx: &Cx, segs: &Segs, range: VirtRange) -> Result<(), AsError> {
        match segs.in_the_way(cx, range) {
            _ if segs.is_closed() => Err(AsError::Freed { id: self.id() }),
            Some(with) => Err(AsError::Overlap { range, with }),
            None => Ok(()),
        }
    }
    /// The place of a new segment at `range`.
    #[inline]
    fn place_for(&self, cx: &Cx, segs: &Segs, range: VirtRange) -> Result<Place, AsError> {
        if segs.is_closed() {
            return Err(AsError::Freed { id: self.id() });
        }
        segs.locate(cx, range).map_err(|with| AsError::Overlap { range, with })
    }
    /// Puts the new driver into the tree, or into the care of a neighbour. On failure it comes back. Also says by what mark the mapping is to be locked.
    fn add(
        &self,
        cx: &Cx,
        range: VirtRange,
        ops: Box<dyn SegOps>,
        make: &dyn SegCreate,
        like: Option<VirtAddr>,
    ) -> Result<Added, (AsError, Box<dyn SegOps>)> {
        let mut segs = self.lock.write(cx);
        // Whoever locks all there is says so first, and looks then: he meets the mapping, or it is seen here. What only looks unmapped has no pages to lock.
        let locks = self.state.lock_future() && !ops.kind().contains(SegKind::HOLE);
        let mark = make.mark().or_else(|| locks.then(|| self.new_mark()));
        let left_out = like.is_some_and(|like| segs.left_out.get(like.vpn()));
        let place = match self.place_for(cx, &segs, range) {
            Ok(place) => place,
            Err(error) => return Err((error, ops)),
        };
        let for_run = |segs: &mut Segs| if left_out { segs.make_room(range) } else { Ok(()) };
        let to_mark = |segs: &mut Segs| mark.map_or(Ok(()), |_| segs.make_room_to_mark(range));
        let room = segs.reserve(cx, 1).and_then(|()| for_run(&mut segs));
        if let Err(error) = room.and_then(|()| to_mark(&mut segs)) {
            return Err((error, ops));
        }
        // Nothing fails from here on.
        if left_out {
            segs.left_out.set(vpns(range), true);
            segs.left_out.trim();
        }
        if let Some(mark) = mark {
            segs.mark(range, mark);
        }
        let may_merge = make.may_merge();
        let (prev, next) = if may_merge { segs.touching(&place) } else { (None, None) };
        let superfluous = match prev {
            Some(prev) if self.joined(cx, &segs, prev, range, &*ops, Join::Extend) => {
                let grown = grow(&mut segs, prev, range.end());
                let next = next.and_then(|next| self.join_next(cx, &mut segs, prev, grown, next));
                [Some(ops), next]
            }
            _ => [self.insert_or_extend(cx, &mut segs, range, &place, ops, next), None],
        };
        Ok((superfluous, mark.filter(|_| locks)))
    }
    /// Offers the driver of `seg` the adjacent `next` above it.
    fn joined(
        &self,
        cx: &Cx,
        segs: &Segs,
        seg: NodeId,
        next_range: VirtRange,
        next: &dyn SegOps,
        join: Join,
    ) -> bool {
        let seg = segs.get(seg);
        seg.ops().concat(&self.scx(cx, seg.range(), true), next_range, next, join)
    }
    /// Lets `prev`, which has just grown to `range`, take over `next`, which it touches now; returns the driver that is not needed any more.
    fn join_next(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        prev: NodeId,
        range: VirtRange,
        next: NodeId,
    ) -> Option<Box<dyn SegOps>> {
        let taken = {
            let (prev, next) = (segs.get(prev), segs.get(next));
            let scx = self.scx(cx, range, true);
            prev.ops().concat(&scx, next.range(), next.ops(), Join::Neighbours)
        };
        taken.then(|| {
            let gone = segs.remove(next);
            grow(segs, prev, gone.range.end());
            gone.ops
        })
    }
    /// Puts the new driver in the place of `next` if it can take that over, else into a segment of its own.
    fn insert_or_extend(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        range: VirtRange,
        place: &Place,
        ops: Box<dyn SegOps>,
        next: Option<NodeId>,
    ) -> Option<Box<dyn SegOps>> {
        let taken = next.filter(|next| {
            let next = segs.get(*next);
            ops.concat(&self.scx(cx, range, true), next.range(), next.ops(), Join::Extend)
        });
        let Some(next) = taken else {
            segs.insert_at(place, ops);
            return None;
        };
        let whole = spanning(range, segs.get(next).end());
        segs.resize(next, whole);
        Some(segs.replace_ops(next, ops))
    }
}

/// Moves the end of a segment up.
fn grow(segs: &mut Segs, id: NodeId, end: u64) -> VirtRange {
    let old = segs.get(id).range();
    let new = spanning(old, end);
    segs.resize(id, new);
    new
}

/// From the start of `low` to `end`.
fn spanning(low: VirtRange, end: u64) -> VirtRange {
    VirtRange::exact(low.start().get(), end - low.start().get())
        .expect("U2: two adjacent ranges make one")
}
