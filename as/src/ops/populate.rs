//! Bringing a range in ahead of use: pages made or read, translations loaded (`MAP_POPULATE`, `MADV_POPULATE_WRITE`).
//!
//! A fault on a long range does the same things; what differs is what is left when memory is short. A fault starts over from its first
//! address, since all of it must hold at once. Here the work done stays done:
//!
//! ```text
//!   drivers, piece by piece, each as far as it gets in one go
//!      │ stopped at a page: memory, a race, a reason to fail
//!      ▼
//!   a fault on that page, which waits, starts over or answers why not ─▶ drivers again, from the page behind it
//! ```
//!
//! So a range longer than memory comes to its end, and pushes out its own beginning.
//!
//! A gigabyte takes a while, and whoever waits for the lock as writer shuts out those who come to read after him. So the lock is let go of every
//! [`PIECE`] pages, where a writer gets in; and within a piece the reader counts as asleep, so that the gate stays open for the faults of other threads.
//!
//! `MADV_WILLNEED` is another thing ([`AddrSpace::will_need`]): it starts reads and makes nothing.

use crate::addr_space::AddrSpace;
use crate::fault::{FaultError, FaultKind};
use page_db::{Access, Cx, PAGE_SIZE, VirtRange};

/// Pages populated under one hold of the lock: half a table of them.
const PIECE: u64 = 256;

impl AddrSpace {
    /// Makes `access` possible on every page of `range` without a fault: a store finds pages of its own.
    ///
    /// # Errors
    /// [`FaultError`] of the first page that cannot be had, as [`AddrSpace::fault`] answers for it; the pages below it are in place.
    ///
    /// # Locks
    /// On entry: nothing of this address space. Holds the lock as reader during i/o.
    #[doc(alias("MAP_POPULATE", "MADV_POPULATE_READ", "MADV_POPULATE_WRITE", "mm_populate"))]
    pub fn populate(&self, cx: &Cx, range: VirtRange, access: Access) -> Result<(), FaultError> {
        if !self.limits().covers(range) {
            return Err(FaultError::NoMap { addr: self.first_outside(range) });
        }
        let mut rest = Some(range);
        while let Some(range) = rest {
            let piece = first_piece(range);
            let end = match self.populate_pass(cx, piece, access) {
                Ok(()) => piece.end(),
                Err(error) => {
                    let said = error.addr().page_floor();
                    // A driver that names a page of somebody else's is not believed, or this would go on from there.
                    let at = if piece.contains(said) { said } else { piece.start() };
                    self.fault_at(cx, at, FaultKind::Invalid, access)?;
                    at.get() + PAGE_SIZE
                }
            };
            rest = range.from(end);
        }
        Ok(())
    }
    fn populate_pass(&self, cx: &Cx, range: VirtRange, access: Access) -> Result<(), FaultError> {
        let segs = self.lock.read(cx);
        cx.blocking(|| {
            for piece in segs.pieces(cx, range) {
                let (seg, piece) = piece.map_err(|hole| FaultError::NoMap { addr: hole.addr })?;
                seg.ops().populate(&self.scx(cx, seg.range(), false), piece, access)?;
            }
            Ok(())
        })
    }
}

/// The part of `range` up to the next multiple of [`PIECE`] pages.
fn first_piece(range: VirtRange) -> VirtRange {
    let left = PIECE - range.start().vpn() % PIECE;
    if range.pages().get() <= left {
        range
    } else {
        range.until(range.page_at(left).get()).unwrap_or(range)
    }
}
