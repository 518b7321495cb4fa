//! Who borrows anons.
//!
//! This crate knows segments and pages, not anons: a driver that has some hands them out by number, and whoever knows the driver takes them.
//!
//! Sources: uvm.md 5.7.

use crate::error::SegError;
use core::num::NonZeroU32;
use page_db::{Cx, VirtAddr};

/// Who borrows anons from drivers that it knows ([`crate::AddrSpace::lend_anons`]).
pub trait Borrower {
    /// Takes over a reference of the anon that has the page at `addr`. A page is offered again when the operation starts over: the later offer counts, and
    /// the reference taken before is the borrower's to give up.
    ///
    /// # Errors
    /// [`SegError::NoMemory`]; [`SegError::Invalid`] for a page that was not asked for or an anon that nobody has. The reference is the caller's still.
    fn take(&mut self, cx: &Cx, addr: VirtAddr, anon: NonZeroU32) -> Result<(), SegError>;
}
