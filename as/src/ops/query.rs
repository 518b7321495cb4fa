//! Questions about one address, and the list of what holds memory.
//!
//! Sources: illumos.md 2.3, 3.9.

use super::Redo;
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::fault::FaultError;
use crate::seg::{Advice, Capability, MemId, SegCx, SegDetail, SegKind};
use crate::segs::Seg;
use alloc::sync::Arc;
use page_db::{Cx, FileOffset, VirtAddr, VirtRange, Vnode};

impl AddrSpace {
    fn ask<R>(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        f: impl FnOnce(&SegCx<'_>, Seg<'_>) -> R,
    ) -> Option<R> {
        let segs = self.lock.read(cx);
        let seg = segs.seg_at(cx, addr)?;
        Some(f(&self.scx(cx, seg.range(), false), seg))
    }
    /// The range of the segment at `addr`.
    #[doc(alias = "as_segat")]
    pub fn range_at(&self, cx: &Cx, addr: VirtAddr) -> Option<VirtRange> {
        self.lock.read(cx).range_at(cx, addr)
    }
    /// Shared or private, and the flags of the mapping at `addr`.
    #[doc(alias = "SEGOP_GETTYPE")]
    pub fn kind_at(&self, cx: &Cx, addr: VirtAddr) -> Option<SegKind> {
        self.ask(cx, addr, |_, seg| seg.ops().kind())
    }
    /// The vnode mapped at `addr`; the inner `None` is anonymous memory.
    #[doc(alias = "SEGOP_GETVP")]
    pub fn vnode_at(&self, cx: &Cx, addr: VirtAddr) -> Option<Option<Arc<dyn Vnode>>> {
        self.ask(cx, addr, |scx, seg| {
            (!seg.ops().kind().contains(SegKind::HOLE)).then(|| seg.ops().vnode(scx, addr))
        })
        .flatten()
    }
    /// Offset in the object of `addr`.
    #[doc(alias = "SEGOP_GETOFFSET")]
    pub fn offset_at(&self, cx: &Cx, addr: VirtAddr) -> Option<FileOffset> {
        self.ask(cx, addr, |scx, seg| seg.ops().offset(scx, addr))
    }
    /// What views show of the segment at `addr`.
    pub fn detail_at(&self, cx: &Cx, addr: VirtAddr) -> Option<SegDetail> {
        self.ask(cx, addr, |scx, seg| seg.ops().detail(scx))
    }
    /// The object and offset behind `addr`, as two words. A page that must be made for that waits for memory as a fault does.
    ///
    /// # Errors
    /// [`FaultError::NoMap`] where nothing is mapped (`EFAULT`), or the driver's, [`crate::SegError::NoIdentity`] (`ENODEV`) for one without.
    #[doc(alias = "as_getmemid")]
    pub fn mem_id(&self, cx: &Cx, addr: VirtAddr) -> Result<MemId, AsError> {
        let mut redo = Redo::new(self, cx, 1);
        loop {
            match self.ask(cx, addr, |scx, seg| seg.ops().mem_id(scx, addr)) {
                Some(Ok(id)) => return Ok(id),
                Some(Err(error)) => redo.after(error)?,
                None => return Err(FaultError::NoMap { addr }.into()),
            }
        }
    }
    /// The placement policy at `addr`; the inner `None` is the default.
    #[doc(alias = "SEGOP_GETPOLICY")]
    pub fn policy_at(&self, cx: &Cx, addr: VirtAddr) -> Option<Option<Advice>> {
        self.ask(cx, addr, |scx, seg| seg.ops().policy(scx, addr))
    }
    /// Whether the segment at `addr` has a property.
    #[doc(alias = "SEGOP_CAPABLE")]
    pub fn capable_at(&self, cx: &Cx, addr: VirtAddr, what: Capability) -> Option<bool> {
        self.ask(cx, addr, |_, seg| seg.ops().capable(what))
    }
    /// The first run of pages in `range` that a mapping has locked in memory; runs of two segments stay apart, and holes are passed over.
    pub fn first_locked(&self, cx: &Cx, range: VirtRange) -> Option<VirtRange> {
        let segs = self.lock.read(cx);
        let mut rest = Some(range);
        while let Some(left) = rest {
            let seg = segs.seg_at_or_above(cx, left.start())?;
            let inside = seg.range().intersect(left)?;
            let found = seg.ops().first_locked(&self.scx(cx, seg.range(), false), inside);
            // A driver that names a page of somebody else's is not believed.
            if let Some(run) = found.and_then(|run| run.intersect(inside)) {
                return Some(run);
            }
            rest = left.from(inside.end());
        }
        None
    }
    /// The ranges that hold memory, in order of address, each as it is when the walk comes to it.
    #[doc(alias = "as_memory")]
    pub fn memory(&self, cx: &Cx) -> impl Iterator<Item = VirtRange> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let segs = self.lock.read(cx);
            loop {
                let id = segs.find_or_next(cx, at)?;
                let range = segs.range(id);
                at = range.end();
                let memory = segs.get(id).ops().memory(&self.scx(cx, range, false));
                if memory.is_some() {
                    return memory;
                }
            }
        })
    }
}
