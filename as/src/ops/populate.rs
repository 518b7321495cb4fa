//! Bringing a range in ahead of use: pages made or read, translations loaded (`MAP_POPULATE`, `MADV_POPULATE_WRITE`).
//!
//! A fault on a long range does the same things; what differs is what is left when memory is short. A fault starts over from its first
//! address, since all of it must hold at once. Here the work done stays done: the walk goes on from the page that could not be had, and when nothing can
//! be reclaimed any more the error says which page that was. So a range longer than memory comes to its end, and pushes out its own beginning.
//!
//! `MADV_WILLNEED` is another thing ([`AddrSpace::will_need`]): it starts reads and makes nothing.

use super::Redo;
use crate::addr_space::AddrSpace;
use crate::fault::FaultError;
use page_db::{Access, Cx, VirtRange, errno};

impl AddrSpace {
    /// Makes `access` possible on every page of `range` without a fault: a store finds pages of its own.
    ///
    /// # Errors
    /// [`FaultError`] of the first page that cannot be had, as [`AddrSpace::fault`] would answer for it; the pages below it are in place. At a hole,
    /// too.
    ///
    /// # Locks
    /// On entry: nothing of this address space. Holds the lock as reader during i/o.
    #[doc(alias("MAP_POPULATE", "MADV_POPULATE_READ", "MADV_POPULATE_WRITE", "mm_populate"))]
    pub fn populate(&self, cx: &Cx, range: VirtRange, access: Access) -> Result<(), FaultError> {
        if !self.limits().covers(range) {
            return Err(FaultError::NoMap { addr: self.first_outside(range) });
        }
        let mut rest = range;
        let mut redo = Redo::new(self, cx, 1);
        loop {
            let Err(error) = self.populate_pass(cx, rest, access) else { return Ok(()) };
            let addr = error.addr();
            match rest.from(addr.get()) {
                Some(left) if left != rest => {
                    rest = left;
                    redo = Redo::new(self, cx, 1); // others are waited for anew: this one gets on
                }
                _ => {}
            }
            match error {
                FaultError::NoMemory { .. } => redo
                    .wait_for_memory()
                    .map_err(|_| FaultError::Object { addr, errno: errno::ENOMEM })?,
                FaultError::Object { errno: errno::EDEADLK, .. } => redo.tick(),
                FaultError::Retry { .. } => {}
                error => return Err(error),
            }
        }
    }
    fn populate_pass(&self, cx: &Cx, range: VirtRange, access: Access) -> Result<(), FaultError> {
        let segs = self.lock.read(cx);
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = piece.map_err(|hole| FaultError::NoMap { addr: hole.addr })?;
            seg.ops().populate(&self.scx(cx, seg.range(), false), piece, access)?;
        }
        Ok(())
    }
}
