//! Names and places for pages that have no file.
//!
//! # Three things that used to be one
//!
//! "Swap" is a word for three different things, and each comes to be at its own time:
//!
//! ```text
//!                what it is                          comes to be            goes
//!   reservation  a promise of one page of store      at map and fork        at unmap          reserve.rs
//!   name         a number, hence (vnode, offset)     at first touch         with its anon     name.rs
//!   slot         a page on a swap device             when the page is       when it is read   area.rs
//!                                                    pushed, and not before back, or freed
//! ```
//!
//! An anon *is* its number. The name of its page is computed from the number and never changes; the page is resident when the
//! page hash finds that name. So the page layer treats anonymous pages like any others, and swapfs is the file system they
//! belong to: its vnodes have no bytes of their own, only, for each name, a word that says where the bytes went.
//!
//! ```text
//!                page hash: hit             page hash: miss
//!   no slot      resident, never stored     never touched, or freed clean: reads as zeros
//!   slot         resident and stored        stored: the next fault reads it
//!   bad          (rewritten since)          lost by a read error: EIO, without asking the device again
//!   borrowed     -                          another's page has the bytes, until the anon needs one of its own (borrow.rs)
//! ```
//!
//! # The life of a slot
//!
//! A push always takes a *new* slot and gives the old one back, which lets pages of different owners, pushed at one time,
//! lie side by side and go out in one transfer ([`push`]). A page read back gives its slot up at once and is marked
//! modified: it owns no space, and its next push writes it again. (UVM keeps the slot, so that an unmodified page can be
//! evicted again for nothing; illumos does not, and here illumos is followed: with strict reservation a slot that nobody
//! needs is better free.) A page that was pushed and found again before its frame was taken is resident, clean *and* stored.
//!
//! # Invariants
//!
//! - W1: a name's word changes only under its page's lock: exclusive, or shared with the i/o lock held. The exceptions are
//!   [`SwapFs::free`], when the owner has seen that there is no page any more, and [`SwapFs::borrow`], before there is one.
//! - W2: a slot belongs to one name at most; allocated slots = names with a slot + bad slots (uvm.md I9), when quiet.
//! - W3: a clean page without a slot may be lost: it holds zeros that nobody wrote, or bytes its owner gave up (`MADV_FREE`). So whoever
//!   takes a slot from a page in memory marks the page modified.
//! - W4: a dead name has no page, no slot and is nowhere but among the free numbers.
//! - W5: reservations add up: what is promised from disk fits the disks, what is promised from memory is charged to availrmem.
//! - W6: whoever ends a name has looked for a page that a removal of an area made meanwhile (`removal`), and destroyed it, before the slot is free
//!   and before the number is.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use page_db::*;
//! use std::sync::Arc;
//! use swapfs::{MemDevice, SwapConfig, SwapFs};
//!
//! let counters = Counters::new(1);
//! let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
//! let mem = Arc::new(HostMem::new(Pfn(0), 64)?);
//! let clock = Arc::new(ManualClock::default());
//! let db = Arc::new(PageDb::new(&cx, mem, clock, counters, &PageDbConfig::default())?);
//! let swap = SwapFs::new(&cx, &db, SwapConfig::default())?;
//! swap.add(&cx, Arc::new(MemDevice::new("/dev/swap", 100)), 0, 100, 0)?;
//!
//! let promise = swap.take(1)?; //                    a reservation,
//! let anon = swap.alloc(&cx)?; //                    a name,
//! let got = swap.get_page(&cx, anon, 0)?; //         a page of zeros,
//! got.page.page().set_ref_mod(RefMod::MOD);
//! drop(got);
//! assert_eq!(swap.slot(&cx, anon), None);
//! swap.put_page(&cx, anon, PutFlags::INVAL)?; //     and a slot
//! assert!(swap.slot(&cx, anon).is_some());
//!
//! swap.free(&cx, anon);
//! drop(promise);
//! swap.verify(&cx)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Reading order
//!
//! [`name`] for numbers, [`reserve`] for promises, [`area`] for slots, then [`page_in`] and [`push`] for what moves between
//! them, [`sweep`] for full swap, [`ctl`] for areas that come and go, [`borrow`] for names whose bytes are in another's page.
//!
//! Sources: [SI §9.8, §11]; illumos.md 5.2, 6; uvm.md 2.6, 6.2, 6.5.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod area;
pub mod borrow;
pub mod contract;
#[doc(alias = "swapctl")]
pub mod ctl;
pub mod device;
pub mod dump;
pub mod error;
#[cfg(all(feature = "std", unix))]
pub mod file;
pub mod fs;
pub mod name;
pub mod page_in;
pub mod push;
mod removal;
pub mod reserve;
mod space;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod vnode;

pub use area::{AreaId, PhysSlot, SwapArea};
pub use device::{DeviceError, DeviceOp, FaultyDevice, Medium, MemDevice, SwapDevice};
pub use dump::{AreaInfo, SwapInfo, SwapSummary};
pub use error::SwapError;
#[cfg(all(feature = "std", unix))]
pub use file::FileDevice;
pub use fs::{SwapConfig, SwapFs};
pub use name::{AnonNumber, Place};
pub use removal::RemovalsSeen;
pub use reserve::{AnonInfo, Reservation};
pub use verify::{Plant, SwapCensus, SwapDamage};
pub use vnode::SwapVnode;
