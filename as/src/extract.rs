//! The side of a driver that lets its segments be cut, moved, continued and shown twice: what `mremap` and extraction ask for.
//!
//! A driver that has it hands it out ([`crate::SegOps::extract`]); of one that has not, no range is moved, and that is said. The address space
//! does the geometry ([`crate::ops`], `extract`), the driver what hangs on it:
//!
//! ```text
//!   split        [ a b c ]            ─▶  [ a ][ b c ]          slots, translations, locks, promises stay; none is taken or given back
//!   relocate     [ b c ] at 0x3000    ─▶  [ b c ] at 0x9000     the same slots; what is kept by address follows, translations go
//!   continued    [ b c ] + 2 pages    ─▶  [ b c ], [ . . ]      two more pages of the object, with the rights of the last page
//!   share        [ b c ]              ─▶  [ b c ] , [ b c ]     one memory, twice mapped
//! ```
//!
//! - G8: what can fail (pins, promises, records) is asked for by `may_move`, `may_share`, `continued` and `share`; `split` and `relocate`, which
//!   change the segment, do not fail. So a move of several segments is all or nothing.
//!
//! Sources: uvm.md 5.6 (`uvm_map_extract`, mremap), 2.4, 2.5.

use crate::error::SegError;
use crate::leaving::Contents;
use crate::seg::{SegCx, SegOps};
use alloc::boxed::Box;
use alloc::sync::Arc;
use page_db::{VirtAddr, VirtRange};

/// Of which pages of a segment new ones have the rights, the advice and the inheritance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Like {
    /// Each of the page whose place in the object it repeats, which is there.
    Repeated,
    /// All of the page before the first: a mapping goes on.
    Before,
}

/// What [`Extract::continued`] comes to.
#[derive(Debug)]
pub enum Continued {
    /// The driver for what follows.
    Made(Box<dyn SegOps>),
    /// Places of the object are on their way out of these contents, and may be the ones that follow: nothing has changed, and the caller asks again when
    /// they are gone ([`Contents::wait_emptied`]).
    Leaving(Arc<dyn Contents>),
}

/// See the module's theory.
#[doc(alias("uvm_map_extract", "mremap"))]
pub trait Extract {
    /// Whether `range` may be taken to another place now.
    ///
    /// # Errors
    /// [`SegError::Pinned`] while pages of the segment are pinned for i/o, which must not lose their address.
    ///
    /// # Locks
    /// The address-space lock as writer; so for [`Extract::split`] and [`Extract::relocate`], which follow while it is held.
    fn may_move(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError>;

    /// Cuts the segment at `at`, a page inside it: this driver keeps what lies below, the box serves the rest. Nobody notices.
    #[doc(alias("uvm_map_clip_start", "uvm_map_clip_end", "amap_splitref"))]
    fn split(&self, scx: &SegCx<'_>, at: VirtAddr) -> Box<dyn SegOps>;

    /// The segment, whole, lies at `to` from now on; the two do not overlap. No translation is left where it was. Contents, references, locks in
    /// memory and promises stay as they are.
    fn relocate(&self, scx: &SegCx<'_>, to: VirtRange);

    /// A driver for `to.seg`, as if that had been mapped along with the segment: its page `i` is page `first + i` of the segment's object, but holds nothing
    /// that private pages hold. Rights, advice and inheritance are `like` those of pages of the segment. Locks in memory do not come along. `first` is at most
    /// the segment's length in pages. Counts as a [`crate::SegCreate`].
    ///
    /// # Errors
    /// As those of creation; [`SegError::Invalid`] where the object's offsets end.
    ///
    /// # Locks
    /// The address-space lock, as reader or writer: nothing is waited for here that another thread of the process may have to end.
    #[doc(alias = "amap_extend")]
    fn continued(
        &self,
        scx: &SegCx<'_>,
        first: u64,
        like: Like,
        to: &SegCx<'_>,
    ) -> Result<Continued, SegError>;

    /// Whether `range` may be shown twice now, as far as that can be said without making anything: it is asked of all drivers before the first makes one.
    ///
    /// # Errors
    /// Those of [`Extract::share`].
    ///
    /// # Locks
    /// The address-space lock as writer; it is held until [`Extract::share`].
    fn may_share(&self, _scx: &SegCx<'_>, _range: VirtRange) -> Result<(), SegError> {
        Ok(())
    }

    /// A driver for `to.seg`, perhaps of another address space, that shows the same memory as `range`: what is stored on either side is seen on
    /// both, private memory included. Locks in memory do not come along.
    ///
    /// # Errors
    /// Any; nothing has changed, but that a store may have been anticipated: pages locked in memory have been copied that somebody else has too, or that
    /// were a file's.
    ///
    /// # Locks
    /// Both address-space locks as writer.
    fn share(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        to: &SegCx<'_>,
    ) -> Result<Box<dyn SegOps>, SegError>;

    /// Whether the page at `addr` is locked in memory by this mapping.
    fn is_locked(&self, scx: &SegCx<'_>, addr: VirtAddr) -> bool;
}

const _: Option<&dyn Extract> = None; // used as an object; stays one
