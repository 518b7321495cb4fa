//! Physical memory by identity: the textbook's page chapter.
//!
//! There are two ways to look at memory. From above, an address space leads through segments and translations down to frames. From below,
//! each frame's page structure leads up to the object whose bytes it holds. They meet in one fact, the page's
//! **identity**: the pair (vnode, offset). Everything that has contents has a vnode: files have their own, anonymous
//! memory borrows swapfs's, the kernel has one.
//!
//! ```text
//!        ┌───────── page_hash[<vnode, offset>] ──────────┐
//!        ▼                                               │
//!   ┌─ page ─────────────────────────────────┐    lookup by name
//!   │ p_hash        chain of the hash        │
//!   │ p_vpnext/prev the vnode's page list    │◀── v_pages of the vnode
//!   │ p_next/prev   free list or cache list  │◀── frames to take
//!   │ p_mapping     who maps it              │──▶ hat: table and entry, hence address space and address
//!   │ p_selock      shared / exclusive       │
//!   └────────────────────────────────────────┘
//! ```
//!
//! This crate is the ground floor: it owns units, locks, the vnode and memory traits, and knows nothing of addresses being mapped. Read
//! [`db`] for the life of a page, [`selock`] for its lock, [`hash`] for how it is found, [`pageout`] for how it is taken away.
//!
//! Sources: [SI §10], illumos `vm/page.h` (structure and protocol, restated).

#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod access;
pub mod cache_list;
pub mod clock;
pub mod contract;
pub mod counters;
pub mod cx;
#[doc(hidden)]
pub mod damage;
pub mod db;
pub mod dump;
pub mod error;
pub mod fail;
mod frame_map;
pub mod free_list;
pub mod free_mem;
pub mod hash;
pub mod heap;
mod lists;
pub mod lock;
pub mod mappings;
pub mod owed;
pub mod page;
pub mod pageout;
pub mod phys_mem;
pub mod pvn;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod selock;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod units;
pub mod vnode;
pub mod vnode_pages;

pub use access::{Access, Prot};
pub use clock::{Clock, ManualClock};
pub use counters::{Counter, Counters, Snapshot};
pub use cx::{Cx, SpinHooks, ThreadId, WaitHooks};
pub use db::{DbMark, MemoryTries, MemoryWait, PageDb, PageDbConfig, PageDbError, Reserve, Wanted};
pub use error::{PageError, VnodeError, errno};
pub use fail::{FailKind, FailPlan};
pub use free_mem::Thresholds;
pub use hash::{HashKind, PageHash};
pub use lock::Rank;
pub use mappings::{PageMappings, RefMod, SyncMode};
pub use owed::Owed;
pub use page::{Page, PageId, PageState};
pub use pageout::{Pageout, PageoutConfig, PageoutState, ScanReport, SinglestepWait};
pub use phys_mem::{HostMem, PhysMem};
pub use selock::{ExclPage, LockedPage, SharedPage};
pub use units::{
    CpuId, FileOffset, PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, PageCount, Pfn, PhysAddr, UnitError,
    VirtAddr, VirtRange,
};
pub use vnode::{GotPage, Identity, PutFlags, Vnode, VnodeId, VnodeKind, VnodeTable};
