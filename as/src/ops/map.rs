//! Adding a segment, and merging it with its neighbours.
//!
//! The driver is made before it is known whether it will be kept: if the segment below takes it over, it is dropped again.
//! Everything the tree needs was reserved before, so nothing can fail once the driver exists.
//!
//! ```text
//!   [ prev ][ new ]          prev.concat(new, Extend)        one segment; new's driver goes
//!   [ prev + new ][ next ]   prev.concat(next, Neighbours)   one segment; next's driver goes as well
//!           [ new ][ next ]  new.concat(next, Extend)        only if prev did not take it; next's driver goes
//! ```
//!
//! Sources: [SI §9.4.1]; illumos.md 3.5, 4.2.

use super::Redo;
use crate::addr_space::AddrSpace;
use crate::avl::NodeId;
use crate::error::AsError;
use crate::seg::{Join, SegCreate, SegOps};
use crate::segs::Segs;
use alloc::boxed::Box;
use page_db::{Cx, VirtRange};

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
        self.check_limits(range)?;
        let mut redo = Redo::new(self, cx, 0);
        loop {
            match self.map_pass(cx, range, make) {
                Ok(()) => break,
                Err(AsError::Seg(error)) => redo.after(error)?,
                Err(error) => return Err(error),
            }
        }
        // held: nothing
        if self.state.lock_future() {
            self.lock(cx, range).or_else(|error| {
                self.unmap(cx, range)?;
                Err(error)
            })?;
        }
        Ok(())
    }
    fn map_pass(&self, cx: &Cx, range: VirtRange, make: &dyn SegCreate) -> Result<(), AsError> {
        let superfluous = {
            let mut segs = self.lock.write(cx);
            if segs.is_closed() {
                return Err(AsError::Freed { id: self.id() });
            }
            let touching =
                segs.touching(cx, range).map_err(|with| AsError::Overlap { range, with })?;
            self.check_vmem(range.len())?;
            segs.reserve(1)?;
            // Counted first: a driver that counts for itself takes it off again.
            self.state.add_resv(range.len());
            let made = make.create(&self.scx(cx, range, true));
            let ops = made.inspect_err(|_| self.state.sub_resv(range.len()))?;
            // Nothing fails from here on.
            self.state.add_size(range.len());
            if !make.may_merge() {
                segs.insert(range, ops);
                return Ok(());
            }
            match touching.prev {
                Some(prev) if self.joined(cx, &segs, prev, range, &*ops, Join::Extend) => {
                    let grown = grow(&mut segs, prev, range.end());
                    let next = touching
                        .next
                        .and_then(|next| self.join_next(cx, &mut segs, prev, grown, next));
                    [Some(ops), next]
                }
                _ => [self.insert_or_extend(cx, &mut segs, range, ops, touching.next), None],
            }
        };
        // held: nothing
        drop::<Superfluous>(superfluous);
        Ok(())
    }
    fn check_vmem(&self, bytes: u64) -> Result<(), AsError> {
        let limit = self.state.vmem_limit();
        match self.state.resv_size().checked_add(bytes) {
            Some(sum) if sum <= limit => Ok(()),
            _ => Err(AsError::VmemLimit { bytes, limit }),
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
            grow(segs, prev, gone.end());
            gone.into_ops()
        })
    }
    /// Puts the new driver in the place of `next` if it can take that over, else into a segment of its own.
    fn insert_or_extend(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        range: VirtRange,
        ops: Box<dyn SegOps>,
        next: Option<NodeId>,
    ) -> Option<Box<dyn SegOps>> {
        let taken = next.filter(|next| {
            let next = segs.get(*next);
            ops.concat(&self.scx(cx, range, true), next.range(), next.ops(), Join::Extend)
        });
        let Some(next) = taken else {
            segs.insert(range, ops);
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
