//! `seg_mirror`: a range in which every page shows the same page of a file, read-only.

use addr_space::{
    FaultError, FaultKind, HatError, LoadFlags, Remnant, SegCreate, SegCx, SegDetail, SegError,
    SegOps, UnloadFlags,
};
use page_db::{Access, FileOffset, Prot, VirtRange, Vnode, VnodeError};
use std::sync::Arc;

/// The arguments and the segment in one: the file.
#[derive(Debug, Clone)]
pub(crate) struct SegMirror(pub(crate) Arc<dyn Vnode>);

impl SegCreate for SegMirror {
    fn create(&self, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Ok(Box::new(self.clone()))
    }
}

impl SegOps for SegMirror {
    fn driver(&self) -> &'static str {
        "seg_mirror"
    }
    fn dup(&self, _: &SegCx<'_>, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Ok(Box::new(self.clone()))
    }
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        scx.check_writer(self.driver(), range)?;
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP);
        Ok(match (scx.seg.until(range.start().get()), scx.seg.from(range.end())) {
            (None, None) => Remnant::Nothing,
            (Some(_), None) => Remnant::Low,
            (None, Some(_)) => Remnant::High,
            (Some(_), Some(_)) => Remnant::Both(Box::new(self.clone())),
        })
    }
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        if matches!(kind, FaultKind::SoftLock | FaultKind::SoftUnlock) {
            let (addr, driver) = (range.start(), self.driver());
            return Err(FaultError::NoSupport { addr, driver, kind }); // nothing keeps the page for i/o
        }
        for addr in range.iter_pages() {
            if !Prot::READ.allows(access) {
                return Err(FaultError::Prot { addr, access });
            }
            // Where a frame is wanting the address space has page-out find one, and asks again; what else is wrong is the object's.
            let object = |errno| FaultError::Object { addr, errno };
            let got =
                self.0.get_page(scx.cx, scx.db, FileOffset(0), access).map_err(|e| match e {
                    VnodeError::NoMemory { .. } => FaultError::NoMemory { addr },
                    e => object(e.errno()),
                })?;
            scx.hat
                .memload(scx.cx, addr, &got.page, Prot::READ, LoadFlags::empty(), None)
                .map_err(|e| match e {
                    HatError::NoMemory { .. } => FaultError::NoMemory { addr },
                    e => object(e.errno()),
                })?;
        }
        Ok(())
    }
    fn set_prot(&self, _: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        if prot == Prot::READ { Ok(()) } else { Err(SegError::Access { range }) }
    }
    fn prots(&self, _: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        f(range, Prot::READ);
    }
    fn detail(&self, _: &SegCx<'_>) -> SegDetail {
        SegDetail {
            name: format!("[ mirror of {} ]", self.0.name()),
            prot: Prot::READ,
            max_prot: Prot::READ,
            ..SegDetail::default()
        }
    }
}
