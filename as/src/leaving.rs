//! What a segment that lives on has given up, and what is done with it when the lock is free.
//!
//! # The difficulty
//!
//! A segment that goes whole keeps its contents until it is out of the tree and the lock is dropped ([`crate::SegOps::free`]). Of one that loses a part the
//! driver stays, with another geometry, and other threads are at work in it as soon as the lock is free: by then nothing of the driver says what went.
//!
//! # The rule
//!
//! ```text
//!   as writer      the driver gives the part up: no address and no segment leads to it any more, and nobody takes its place
//!   lock free      Leaving::empty: pages, places on swap, and then what was promised for them
//! ```
//!
//! What holds the contents ([`Contents`]) is shared by whoever has parts of it, so the part outlives the segment it came from, and may be emptied beside the
//! end of the whole space. It is named by a range of the holder's own numbers: a part that leaves needs no heap, for there may be none.
//!
//! Who wants to take the place of a part that is on its way out waits for its end ([`Contents::wait_emptied`]). Whoever empties it may need a page that
//! somebody else has, and that one the lock of any address space: so none is held. A claim on ranges may be, which nobody asks for who is to end the wait.
//!
//! - G9: what was given up is emptied once, before the call that took it away returns; a promise is given back after what it was made for.
//!
//! # The other road
//!
//! Cutting the part off as a segment of its own, to be freed like any other, needs nothing new of a driver. It makes a driver for what is about to go, and counts
//! one segment more in everything that is shared, under the lock.
//!
//! Sources: illumos.md 3.5; DESIGN D3.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use page_db::Cx;

/// What several segments have parts of: an anon map.
pub trait Contents: fmt::Debug + Send + Sync {
    /// Empties what nobody has any more of `part`, `lost` places of it, and then gives back `promised` pages of swap. No lock of the address space is held,
    /// but where what comes next must find the part empty.
    fn empty(&self, cx: &Cx, part: Range<u64>, lost: u64, promised: u64);
    /// Sleeps while any part is on its way out: given up, and not emptied yet. The caller holds nothing but perhaps a claim on ranges, and is to empty none
    /// itself.
    fn wait_emptied(&self, cx: &Cx);
}

/// A part that a segment has given up, and that is still to be emptied.
#[must_use = "what is not emptied stays for ever"]
#[derive(Debug)]
pub struct Leaving {
    of: Arc<dyn Contents>,
    part: Range<u64>,
    lost: u64,
    promised: u64,
}

impl Leaving {
    /// The part `part` of `of`, of which nobody has `lost` places any more, and for which `promised` pages of swap are reserved that nobody else will give
    /// back.
    pub fn new(of: Arc<dyn Contents>, part: Range<u64>, lost: u64, promised: u64) -> Self {
        Self { of, part, lost, promised }
    }
    /// Empties it.
    pub fn empty(self, cx: &Cx) {
        self.of.empty(cx, self.part, self.lost, self.promised);
    }
}
