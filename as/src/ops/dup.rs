//! Fork: a copy of an address space.
//!
//! Both locks are held as writer, the parent's first. Each driver makes the child's driver; what that means for the
//! pages (counts, shared maps, the right to write taken away) is the driver's. The translations are not copied: the child faults them in.
//!
//! If any driver fails, the child's segments are unmapped again before the locks are dropped, so nobody sees half a child.
//! The room for the child's segments is reserved before the first driver is asked.
//!
//! Sources: [SI §9.4.5]; illumos.md 3.2; uvm.md 4.1.

use super::Redo;
use super::unmap::Gone;
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::seg::SegKind;
use crate::segs::{Seg, Segs};
use page_db::{Cx, VirtRange};

/// The most frames a fork asks for in one wait: it copies only pinned pages, and its own records are small.
const FORK_PAGES: u64 = 64;

impl AddrSpace {
    /// Makes `child`, which must be empty and have the same limits, a copy. Memory locks and their future flag are not inherited, limits
    /// on sizes are. Segments that may be purged are left out.
    ///
    /// # Errors
    /// [`AsError::Overlap`] when the child is not empty (or is this very space), [`AsError::OutsideSpace`], [`AsError::NoHeap`], [`AsError::Freed`],
    /// [`AsError::NoMemory`], or a driver's. The child is empty and the parent unchanged, but that pages may have become read-only.
    ///
    /// # Locks
    /// Takes both locks as writer. The child is not yet known to any other thread.
    #[doc(alias("as_dup", "uvmspace_fork"))]
    pub fn dup(&self, cx: &Cx, child: &Self) -> Result<(), AsError> {
        if core::ptr::eq(self, child) {
            return Err(AsError::Overlap { range: self.limits(), with: self.limits() });
        }
        let mut redo = Redo::new(self, cx, FORK_PAGES);
        loop {
            match self.dup_pass(cx, child) {
                Err(AsError::Seg(error)) => redo.after(error)?,
                done => return done,
            }
        }
    }
    fn dup_pass(&self, cx: &Cx, child: &Self) -> Result<(), AsError> {
        let mut gone = Gone::default();
        let parents = self.lock.write(cx);
        let mut childs = child.lock.write_nested(cx);
        // held: parent as (write), child as (write)
        check_child(&parents, self, &childs, child)?;
        childs.reserve(cx, parents.len())?;
        let done = parents.iter().try_for_each(|seg| self.dup_seg(cx, seg, child, &mut childs));
        match done {
            Ok(()) => {
                child.state.set_vmem_limit(self.state.vmem_limit());
                child.state.set_memlock_limit(self.state.memlock_limit());
            }
            Err(_) => child.empty(cx, &mut childs, &mut gone),
        }
        drop((childs, parents));
        // held: nothing
        child.finish(cx, gone);
        done
    }
    fn dup_seg(
        &self,
        cx: &Cx,
        seg: Seg<'_>,
        child: &Self,
        childs: &mut Segs,
    ) -> Result<(), AsError> {
        if seg.ops().kind().contains(SegKind::PURGE) {
            return Ok(());
        }
        let range = seg.range();
        let child_scx = child.scx(cx, range, true);
        let ops = seg.ops().dup(&self.scx(cx, range, true), &child_scx)?;
        let id = childs.insert(range, ops);
        child.state.add_size(range.len());
        child.state.add_resv(child.resv_of(cx, range, childs.get(id).ops()));
        Ok(())
    }
    /// Unmaps every segment of a child that nobody has run in.
    fn empty(&self, cx: &Cx, segs: &mut Segs, gone: &mut Gone) {
        let all = self.limits();
        let done = self.unmap_pass(cx, segs, all, gone);
        debug_assert!(done.is_ok(), "nothing of a child that never ran is pinned: {done:?}");
    }
}

fn check_child(
    parents: &Segs,
    parent: &AddrSpace,
    childs: &Segs,
    child: &AddrSpace,
) -> Result<(), AsError> {
    if parents.is_closed() || childs.is_closed() {
        let id = if parents.is_closed() { parent.id() } else { child.id() };
        return Err(AsError::Freed { id });
    }
    if let Some(seg) = childs.iter().next() {
        return Err(AsError::Overlap { range: child.limits(), with: seg.range() });
    }
    let mut ranges = parents.iter().map(Seg::range);
    let fits = |range: &VirtRange| !child.limits().covers(*range);
    ranges.find(fits).map_or(Ok(()), |range| child.check_limits(range))
}
