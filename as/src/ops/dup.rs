//! Fork: a copy of an address space.
//!
//! Both locks are held as writer, the parent's first. Each driver makes the child's driver; what that means for the
//! pages (counts, shared maps, the right to write taken away) is the driver's. The translations are not copied: the child faults them in.
//!
//! If any driver fails, the child's segments are unmapped again before the locks are dropped, so nobody sees half a child.
//! The room for the child's segments is reserved before the first driver is asked, that for the pieces of a segment that is inherited in several
//! ways ([`super::inherit`]) as they come.
//!
//! Sources: [SI §9.4.5]; illumos.md 3.2; uvm.md 4.1.

use super::unmap::Gone;
use super::{Redo, Stop};
use crate::addr_space::AddrSpace;
use crate::error::{AsError, SegError};
use crate::runs::{run_range, vpns};
use crate::seg::{SegCx, SegKind};
use crate::segs::{Seg, Segs};
use page_db::{Cx, VirtRange};

/// The most frames a fork asks for in one wait, where no driver copies what is locked in memory: it copies only pinned pages, and its own records are small.
const FORK_PAGES: u64 = 64;

impl AddrSpace {
    /// Makes `child`, which must be empty and have the same limits, a copy. Memory locks and their future flag are not inherited, limits
    /// on sizes are. Segments that may be purged are left out, and pages of which [`AddrSpace::leave_out`] says so.
    ///
    /// # Errors
    /// [`AsError::Overlap`] when the child is not empty (or is this very space), [`AsError::Foreign`] when it is another machine's, [`AsError::OutsideSpace`], [`AsError::NoHeap`], [`AsError::Freed`],
    /// [`AsError::NoMemory`], [`SegError::Pinned`] where pages would be replaced that somebody else has pinned, or a driver's. The child is empty and the parent unchanged, but that pages may have become read-only, and private
    /// pages that are locked in memory, and inherited by sharing, copies of their own.
    ///
    /// # Locks
    /// Takes both locks as writer. The child is not yet known to any other thread.
    #[doc(alias("as_dup", "uvmspace_fork"))]
    pub fn dup(&self, cx: &Cx, child: &Self) -> Result<(), AsError> {
        if core::ptr::eq(self, child) {
            return Err(AsError::Overlap { range: self.limits(), with: self.limits() });
        }
        self.check_machine("a child", child)?;
        let mut redo = Redo::new(self, cx, FORK_PAGES);
        loop {
            match self.dup_pass(cx, child) {
                Err(AsError::Seg(SegError::Pinned { .. })) if redo.held_a_moment() => {}
                Err(AsError::Seg(error)) => {
                    redo.may_need(self.copied_locked(cx));
                    redo.after(error)?;
                }
                done => return done,
            }
        }
    }
    /// The most pages that drivers copy because they are locked: they start over with all of them.
    fn copied_locked(&self, cx: &Cx) -> u64 {
        let locked = self.state.locked() / page_db::PAGE_SIZE;
        let copies = || self.lock.read(cx).iter().any(|seg| seg.ops().copies_locked());
        if locked > FORK_PAGES && copies() { locked } else { 0 }
    }
    fn dup_pass(&self, cx: &Cx, child: &Self) -> Result<(), AsError> {
        let mut gone = Gone::default();
        let parents = self.lock.write(cx);
        let mut childs = child.lock.write_nested(cx);
        // held: parent as (write), child as (write)
        check_child(&parents, self, &childs, child)?;
        childs.reserve(cx, parents.len())?;
        let done = parents
            .iter()
            .try_for_each(|seg| self.dup_parts(cx, &parents, seg, child, &mut childs));
        match done {
            Ok(()) => {
                self.dup_done(cx, &parents, &childs);
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
    /// The parts of a segment that are not left out.
    fn dup_parts(
        &self,
        cx: &Cx,
        parents: &Segs,
        seg: Seg<'_>,
        child: &Self,
        childs: &mut Segs,
    ) -> Result<(), AsError> {
        if seg.ops().kind().contains(SegKind::PURGE) {
            return Ok(());
        }
        if parents.left_out.is_plain() {
            return self.dup_part(cx, seg, seg.range(), child, childs);
        }
        for (run, left_out) in parents.left_out.iter(vpns(seg.range())) {
            if !left_out {
                self.dup_part(cx, seg, run_range(seg.range(), &run), child, childs)?;
            }
        }
        Ok(())
    }
    /// A segment of the child for each run of `part` that its driver can serve as one.
    fn dup_part(
        &self,
        cx: &Cx,
        seg: Seg<'_>,
        part: VirtRange,
        child: &Self,
        childs: &mut Segs,
    ) -> Result<(), AsError> {
        let scx = self.scx(cx, seg.range(), true);
        let mut rest = Some(part);
        while let Some(part) = rest {
            let run = seg.ops().inherit_run(&scx, part);
            // From the start on, and no further than the part: a driver that says something else serves all of it.
            let run = run.intersect(part).filter(|run| run.start() == part.start()).unwrap_or(part);
            childs.reserve(cx, 1)?; // there is room, but for cut segments
            self.dup_run(cx, &scx, seg, run, child, childs)?;
            rest = part.from(run.end());
        }
        Ok(())
    }
    fn dup_run(
        &self,
        cx: &Cx,
        scx: &SegCx<'_>,
        seg: Seg<'_>,
        range: VirtRange,
        child: &Self,
        childs: &mut Segs,
    ) -> Result<(), AsError> {
        let child_scx = child.scx(cx, range, true);
        let ops = seg.ops().dup(scx, &child_scx)?;
        let id = childs.insert(range, ops);
        child.state.add_size(range.len());
        child.state.add_resv(child.resv_of(cx, range, childs.get(id).ops()));
        Ok(())
    }
    /// Nothing fails any more: tells the parent's drivers.
    fn dup_done(&self, cx: &Cx, parents: &Segs, childs: &Segs) {
        let mut parents = parents.iter();
        let mut parent = parents.next();
        for made in childs.iter() {
            while parent.as_ref().is_some_and(|seg| !seg.range().covers(made.range())) {
                parent = parents.next();
            }
            let Some(seg) = &parent else { break };
            seg.ops().dup_done(&self.scx(cx, seg.range(), true), made.range(), made.ops());
        }
    }
    /// Unmaps every segment of a child that nobody has run in.
    fn empty(&self, cx: &Cx, segs: &mut Segs, gone: &mut Gone) {
        let all = self.limits();
        // Nothing of a child that never ran is pinned. A driver that refuses all the same is not asked again.
        while let Err(Stop::Seg { seg, .. }) = self.unmap_pass(cx, segs, all, gone) {
            self.abandon(cx, segs, seg, gone);
        }
    }
}

fn check_child(
    parents: &Segs,
    parent: &AddrSpace,
    childs: &Segs,
    child: &AddrSpace,
) -> Result<(), AsError> {
    let parent_ends = parents.is_closed() || parent.is_freed();
    if parent_ends || childs.is_closed() {
        let id = if parent_ends { parent.id() } else { child.id() };
        return Err(AsError::Freed { id });
    }
    if let Some(seg) = childs.iter().next() {
        return Err(AsError::Overlap { range: child.limits(), with: seg.range() });
    }
    let mut ranges = parents.iter().map(Seg::range);
    let fits = |range: &VirtRange| !child.limits().covers(*range);
    ranges.find(fits).map_or(Ok(()), |range| child.check_limits(range))
}
