//! Which pages are in memory (`mincore`).
//!
//! Sources: illumos.md 3.9.

use crate::addr_space::AddrSpace;
use crate::error::AsError;
use page_db::{Cx, PAGE_SIZE, PageCount, VirtRange};

impl AddrSpace {
    /// Fills one byte a page ([`crate::InCore`] bits) and says for how many pages; no more than `out` holds. What was obtained before an error is valid.
    ///
    /// # Errors
    /// In the second part: [`AsError::Unmapped`] at a hole, or where a driver answered for fewer pages than it was asked about.
    #[doc(alias("as_incore", "mincore"))]
    pub fn incore(
        &self,
        cx: &Cx,
        range: VirtRange,
        out: &mut [u8],
    ) -> (PageCount, Result<(), AsError>) {
        if let Err(error) = self.check_limits(range) {
            return (PageCount(0), Err(error));
        }
        let room = (out.len() as u64).saturating_mul(PAGE_SIZE).min(range.len());
        let Some(range) = range.until(range.start().get() + room) else {
            return (PageCount(0), Ok(()));
        };
        let segs = self.lock.read(cx);
        let mut done = 0;
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = match piece {
                Ok(found) => found,
                Err(hole) => return (PageCount(done as u64), Err(hole.into())),
            };
            let pages = piece.pages().get() as usize; // no more than `out` is long
            let scx = self.scx(cx, seg.range(), false);
            let told = seg.ops().incore(&scx, piece, &mut out[done..done + pages]).min(pages);
            done += told;
            if told < pages {
                let addr = piece.page_at(told as u64);
                return (PageCount(done as u64), Err(AsError::Unmapped { addr }));
            }
        }
        (PageCount(done as u64), Ok(()))
    }
}
