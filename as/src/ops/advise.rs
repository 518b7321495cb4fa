//! Advice about use.
//!
//! Sources: illumos.md 3.8.

use super::OnPinned;
use super::fault::as_range_error;
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::seg::{Advice, SyncFlags};
use page_db::{Cx, VirtRange};

impl AddrSpace {
    /// Notes advice about `range`; done over as writer when a driver asks for it.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or the first driver's error; what lies below is advised.
    #[doc(alias("MC_ADVISE", "madvise"))]
    pub fn advise(&self, cx: &Cx, range: VirtRange, advice: Advice) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range, 1, OnPinned::Return, |segs, writer| {
            self.walk(cx, segs, range, writer, |scx, seg, piece| {
                seg.ops().advise(scx, piece, advice)
            })
        })
    }
    /// Starts reading `range` (`MADV_WILLNEED`).
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, [`AsError::Fault`]; what lies below has been started.
    #[doc(alias = "MADV_WILLNEED")]
    pub fn will_need(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.faulta(cx, range).map_err(as_range_error)
    }
    /// Pushes `range` to where it belongs and drops the pages (`MADV_DONTNEED`): contents are never lost.
    ///
    /// # Errors
    /// As [`AddrSpace::sync`].
    #[doc(alias = "MADV_DONTNEED")]
    pub fn dont_need(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.sync(cx, range, SyncFlags::ASYNC | SyncFlags::INVALIDATE)
    }
    /// Prefers the page size `code` for `range`, always as writer. A driver that has no such operation is `EINVAL` to the caller.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or the first driver's error; what lies below is changed.
    #[doc(alias = "as_setpagesize")]
    pub fn set_page_size(&self, cx: &Cx, range: VirtRange, code: u8) -> Result<(), AsError> {
        use crate::error::SegError::{Invalid, NotSupported};
        self.check_limits(range)?;
        self.redo(cx, range, 1, OnPinned::Return, |segs, writer| {
            self.walk(cx, segs, range, writer, |scx, seg, piece| {
                if !writer {
                    return Err(crate::SegError::Retry { range: piece });
                }
                seg.ops().set_page_size(scx, piece, code).map_err(|error| match error {
                    NotSupported { driver, op } => Invalid { driver, what: op, range: piece },
                    error => error,
                })
            })
        })
    }
}
