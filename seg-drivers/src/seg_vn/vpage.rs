//! What one page of a segment may have of its own.

use addr_space::Advice;
use page_db::Prot;

/// Per-page state, kept as runs. The default says "as the segment".
#[doc(alias = "struct vpage")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VPage {
    /// Rights, where they differ from the segment's.
    pub prot: Option<Prot>,
    /// Advice, where it differs from the segment's.
    pub advice: Option<Advice>,
    /// Locked in memory by this mapping (`PPLOCK`).
    pub locked: bool,
    /// Swap for this page is reserved, in segments that reserve page by page (`SWAPRES`).
    pub reserved: bool,
    /// Zeros in a forked child (`INHZERO`).
    pub inherit_zero: bool,
}

impl VPage {
    /// As the segment.
    pub const PLAIN: Self =
        Self { prot: None, advice: None, locked: false, reserved: false, inherit_zero: false };
}
