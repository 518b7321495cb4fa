//! Address spaces: an AVL tree of segments that dispatch through [`SegOps`].
//!
//! ```text
//!   AddrSpace ── a_segtree (AVL by base) ──▶ Seg ──▶ dyn SegOps      what the range means: seg_vn, seg_dev, seg_kmem ...
//!       │
//!       └── a_hat ──▶ dyn Hat                                        what the hardware knows of it
//! ```
//!
//! An address space is a list of segments, and every operation on it is the same walk: find the first segment, call the driver for the part
//! of the range that lies in it, go on to the next. What differs is what a hole means, what is undone after a
//! failure, and who must wait. One verb, one file, under [`ops`].
//!
//! Read [`addr_space`] for the locks, [`ops`] for the walk and its retries, [`seg`] for what a driver is asked, [`segs`] and [`avl`] for how a
//! segment is found. A driver never edits the tree, and nothing waits with a lock held but for i/o and page locks.
//!
//! Package name: `as` is a keyword, so the folder `as/` holds the package `addr-space`.
//!
//! Sources: [SI §9.2-9.4]; illumos `vm/as.h`, `vm/vm_as.c` (behaviour); illumos.md 3.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod addr_space;
pub mod avl;
pub mod borrower;
pub mod callback;
pub mod contract;
pub mod dump;
pub mod error;
pub mod extract;
pub mod fault;
pub mod hat;
pub mod leaving;
pub mod ops;
pub mod runs;
pub mod seg;
pub mod segs;
pub mod state;
#[cfg(all(test, feature = "std"))]
mod testing;
#[cfg(all(test, feature = "std"))]
mod tests;
pub mod verify;
pub mod watch;

pub use addr_space::{AddrSpace, USER_RANGE};
pub use borrower::Borrower;
pub use callback::{AsCallback, CallbackError, Deleted, Events};
pub use dump::{Pmap, PmapRow, SegNode, SegRow, SegTable, SegTree};
pub use error::{AsError, Owner, SegError};
pub use extract::{Continued, Extract, Like};
pub use fault::{FaultError, FaultKind, Signal};
pub use hat::{
    Hat, HatError, HatProvider, LoadFlags, Loaded, RunLoaded, RunPage, Stamp, Translation,
    UnloadFlags,
};
pub use leaving::{Contents, Leaving};
pub use ops::{
    AddrRequest, FoundGap, GapOrder, GapRequest, Leave, LentPages, LockAll, PinnedPages,
    RangeClaim, Selection, Target,
};
pub use seg::{
    Advice, Capability, InCore, Inherit, Join, LockOp, MemId, NewlyLocked, PageList, Remnant,
    Residency, SegCreate, SegCx, SegDetail, SegKind, SegOps, SyncFlags,
};
pub use segs::{Hole, Mark, Pieces, Seg, Segs};
pub use state::{AsId, AsState};
pub use verify::{AsDamage, TestDamage};
pub use watch::{Moved, WatchArea, WatchError, WatchFlags, WatchHit};
