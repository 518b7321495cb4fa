//! Which pages an operation is meant for, where it names them by what they are rather than by address alone.
//!
//! illumos's `memcntl` takes such a selection for writing back, locking and unlocking. Kind and rights are known of any driver, so the walk asks for them and
//! hands the driver only what was meant: no driver knows of selections. Rights are compared page by page and exactly, and a page that was not meant counts as
//! done; holes are holes all the same.
//!
//! Between the question and the operation another thread may change rights; what was meant is what was found.
//!
//! Sources: illumos.md 3.8, 4.8 (sync, lockop).

use super::Stop;
use crate::addr_space::AddrSpace;
use crate::error::SegError;
use crate::seg::{SegCx, SegKind};
use crate::segs::{Seg, Segs};
use alloc::vec::Vec;
use page_db::{Cx, Prot, VirtRange, heap};

/// Pages of one kind of mapping with exactly these rights.
#[doc(alias("attr", "SHARED", "PRIVATE", "PROC_TEXT", "PROC_DATA"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Selection {
    /// Pages of shared mappings; otherwise of private ones.
    pub shared: bool,
    /// Their rights.
    pub prot: Prot,
}

impl Selection {
    /// The runs of `piece` that are meant.
    fn runs(
        self,
        scx: &SegCx<'_>,
        seg: Seg<'_>,
        piece: VirtRange,
    ) -> Result<Vec<VirtRange>, SegError> {
        let (mut runs, mut all) = (Vec::new(), Ok(()));
        if seg.ops().kind().contains(SegKind::SHARED) == self.shared {
            seg.ops().prots(scx, piece, &mut |run, prot| {
                if prot.difference(Prot::USER) == self.prot {
                    all = all.and_then(|()| heap::push(&mut runs, run));
                }
            });
        }
        all.map_err(|_| SegError::NoMemory { range: piece })?;
        Ok(runs)
    }
}

/// Calls `f` for what `meant` selects of a piece; all of it, when nothing is selected.
pub(super) fn each_meant(
    meant: Option<Selection>,
    scx: &SegCx<'_>,
    seg: Seg<'_>,
    piece: VirtRange,
    f: &mut dyn FnMut(VirtRange) -> Result<(), SegError>,
) -> Result<(), SegError> {
    match meant {
        None => f(piece),
        Some(meant) => meant.runs(scx, seg, piece)?.into_iter().try_for_each(f),
    }
}

impl AddrSpace {
    /// Calls `f` for each run of `range` that is meant.
    pub(super) fn walk_meant(
        &self,
        cx: &Cx,
        segs: &Segs,
        range: VirtRange,
        writer: bool,
        meant: Option<Selection>,
        mut f: impl FnMut(&SegCx<'_>, Seg<'_>, VirtRange) -> Result<(), SegError>,
    ) -> Result<(), Stop> {
        self.walk(cx, segs, range, writer, |scx, seg, piece| {
            each_meant(meant, scx, seg, piece, &mut |run| f(scx, seg, run))
        })
    }
}
