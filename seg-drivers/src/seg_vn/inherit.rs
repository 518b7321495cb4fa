//! What a child of fork finds in a segment: noted here page by page, looked at by [`super::dup`].
//!
//! | | usual | share | copy | zero |
//! |---|---|---|---|---|
//! | private | a copy | the same map, for good ([`super::joint`]) | a copy | zeros; over a file, private memory without it |
//! | shared | the same map or file | the same | a copy of the map; a private view of the file | private memory of zeros |
//!
//! A child's segment is one driver, so pages inherited in different columns are different segments in the child, except copies and zeros of
//! private anonymous memory, where zeros are slots left out of the copy. The notes are runs, so that marking a terabyte costs one.
//!
//! Sources: uvm.md 4.1, 7.2 (C11); illumos.md 4.4, 4.8 (inherit).

use super::{SegVn, VPage, vpns};
use crate::runs::run_range;
use addr_space::{FaultError, Inherit, SegCx, SegError};
use page_db::VirtRange;
use page_db::sync::atomic::Ordering;

/// How one driver of a child comes to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heir {
    /// The same memory.
    Same,
    /// A copy on write, in which some slots may be left out.
    Copy,
    /// Fresh private memory.
    Zeros,
}

impl SegVn {
    /// How a page with this note is inherited.
    pub(super) fn heir(&self, how: Option<Inherit>) -> Heir {
        let anonymous = self.backing.is_none() && !self.shared();
        match how {
            Some(Inherit::Share) => Heir::Same,
            Some(Inherit::Zero) if !anonymous => Heir::Zeros,
            Some(Inherit::Copy | Inherit::Zero) => Heir::Copy,
            Some(Inherit::None) | None if self.shared() => Heir::Same,
            Some(Inherit::None) | None => Heir::Copy,
        }
    }
}

/// See [`addr_space::SegOps::inherit_run`].
pub(super) fn run(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> VirtRange {
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return range;
    }
    let inner = seg.lock.lock(scx.cx);
    let mut heirs = inner.vpage.iter(vpns(range)).map(|(run, v)| (run, seg.heir(v.inherit)));
    let Some((first, heir)) = heirs.next() else { return range };
    let end = heirs.take_while(|(_, h)| *h == heir).last().map_or(first.end, |(run, _)| run.end);
    run_range(range, &(first.start..end))
}

/// Zeros, for private anonymous memory (illumos).
#[doc(alias = "segvn_inherit")]
pub(super) fn zero(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
    if seg.shared() || seg.backing.is_some() {
        return Err(SegError::Invalid {
            driver: "seg_vn",
            what: "zero on fork is for private anonymous memory",
            range,
        });
    }
    inherit(seg, scx, range, Some(Inherit::Zero))
}

/// Any of them (UVM).
#[doc(alias = "minherit")]
pub(super) fn inherit(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    how: Option<Inherit>,
) -> Result<(), SegError> {
    if how == Some(Inherit::Share) && !seg.shared() && seg.noreserve() {
        // Who touches a page reserves for it, and who unmaps it gives back; of two sharers these are not the same.
        return Err(SegError::NotSupported { driver: "seg_vn", op: "inherit" });
    }
    let note = how.filter(|how| seg.heir(Some(*how)) != seg.heir(None) || *how == Inherit::Zero);
    let shares = note == Some(Inherit::Share);
    if shares && seg.needs_copy() {
        // The map is another side's as well: what it is to be called by must be its own.
        return Err(FaultError::NotOwn { addr: range.start() }.into());
    }
    if shares {
        seg.amap_or_make(scx);
    }
    let mut inner = seg.lock.lock(scx.cx);
    if inner.vpage.any(vpns(range), |v| v.inherit != note) {
        let no_room = |_| SegError::NoMemory { range };
        inner.vpage.make_room(vpns(range)).map_err(no_room)?;
        inner.vpage.update(vpns(range), |v| VPage { inherit: note, ..v });
        inner.vpage.trim();
        seg.note_pages(&inner.vpage);
    }
    if shares {
        seg.be_named(); // whoever waits by it now is found after the fork
    }
    Ok(())
}
