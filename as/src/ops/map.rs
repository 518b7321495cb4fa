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
//! Sources: [SI §9.4.1]; illumos.md 3.5, 4.2.

use super::Redo;
use crate::addr_space::AddrSpace;
use crate::avl::{NodeId, Place};
use crate::error::AsError;
use crate::runs::vpns;
use crate::seg::{Join, SegCreate, SegKind, SegOps};
use crate::segs::Segs;
use alloc::boxed::Box;
use page_db::{Cx, VirtAddr, VirtRange};

/// Drivers that the new segment made superfluous; dropped after the lock.
type Superfluous = [Option<Box<dyn SegOps>>; 2];

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
        loop {
            match self.map_pass(cx, range, make, like) {
                Ok(()) => break,
                Err(AsError::Seg(error)) => redo.after(error)?,
                Err(error) => return Err(error),
            }
        }
        // held: nothing
        if self.state.lock_future() && !self.is_hole(cx, range) {
            self.lock_new(cx, range)?;
        }
        Ok(())
    }
    /// Locks what has just been mapped; what cannot be locked is gone again.
    pub(super) fn lock_new(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.lock(cx, range).or_else(|error| {
            self.unmap(cx, range)?;
            Err(error)
        })
    }
    /// What only looks unmapped has no pages to lock.
    fn is_hole(&self, cx: &Cx, range: VirtRange) -> bool {
        self.kind_at(cx, range.start()).is_some_and(|kind| kind.contains(SegKind::HOLE))
    }
    fn map_pass(
        &self,
        cx: &Cx,
        range: VirtRange,
        make: &dyn SegCreate,
        like: Option<VirtAddr>,
    ) -> Result<(), AsError> {
        let ops = self.make(cx, range, make)?;
        // held: nothing
        match self.add(cx, range, ops, make.may_merge(), like) {
            Ok(superfluous) => drop::<Superfluous>(superfluous),
            Err((error, ops)) => {
                self.uncount(cx, range, &*ops);
                return Err(error);
            }
        }
        Ok(())
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
    /// Puts the new driver into the tree, or into the care of a neighbour. On failure it comes back.
    fn add(
        &self,
        cx: &Cx,
        range: VirtRange,
        ops: Box<dyn SegOps>,
        may_merge: bool,
        like: Option<VirtAddr>,
    ) -> Result<Superfluous, (AsError, Box<dyn SegOps>)> {
        let mut segs = self.lock.write(cx);
        let left_out = like.is_some_and(|like| segs.left_out.get(like.vpn()));
        let place = match self.place_for(cx, &segs, range) {
            Ok(place) => place,
            Err(error) => return Err((error, ops)),
        };
        let for_run = |segs: &mut Segs| if left_out { segs.make_room(range) } else { Ok(()) };
        if let Err(error) = segs.reserve(cx, 1).and_then(|()| for_run(&mut segs)) {
            return Err((error, ops));
        }
        // Nothing fails from here on.
        if left_out {
            segs.left_out.set(vpns(range), true);
            segs.left_out.trim();
        }
        let (prev, next) = if may_merge { segs.touching(&place) } else { (None, None) };
        match prev {
            Some(prev) if self.joined(cx, &segs, prev, range, &*ops, Join::Extend) => {
                let grown = grow(&mut segs, prev, range.end());
                let next = next.and_then(|next| self.join_next(cx, &mut segs, prev, grown, next));
                Ok([Some(ops), next])
            }
            _ => Ok([self.insert_or_extend(cx, &mut segs, range, &place, ops, next), None]),
        }
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
