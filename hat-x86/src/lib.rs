//! Hardware address translation: page tables as a cache of what segments know.
//!
//! # What a hat is
//!
//! Segments know what every address means; hardware knows only page tables. The hat (`hat` in the textbook, `pmap` elsewhere) keeps tables that
//! say a part of what the segments know, and may forget any of it: the next access faults, and the fault
//! loads it again. So nothing here decides anything. What is here must only never be *more* than the segments allow, on any processor, at any time.
//!
//! ```text
//!   AddrSpace ──▶ X86Hat ─▶ top table ─▶ ... ─▶ leaf table ─▶ entry ─▶ frame       bytes in frames of the page database:
//!                  (hat)     each table: a record, HTable      X86Pte      │        what a real MMU would walk
//!                                              ▲                           ▼
//!   PageDb ──▶ PageSide                        └───── embedded, or hment ◀─ page    from a page to all of its entries
//!
//!   Mmu: whatever remembers translations: HostMmu (simulated processors), metal, a host's mappings, KVM
//! ```
//!
//! # Reading order
//!
//! | file | what |
//! |---|---|
//! | [`geometry`], [`pte`] | levels and bits |
//! | [`htable`] | tables: how they come, are found, and go |
//! | [`hment`] | from a page to its mappings |
//! | [`walk`] | finding leaves without locks |
//! | [`load`], [`run`], [`range`], [`page`] | the verbs: one address, consecutive pages, a range, all mappings of a page |
//! | [`above`] | write protection of 2 MiB by one entry |
//! | [`tlb`], [`mmu`] | what is owed to processors, and how it is paid |
//! | [`walker`], [`host`], [`access`] | the simulated processors |
//! | [`steal`], [`retired`] | tables taken back when frames are short; how they go back |
//! | [`dump`], [`verify`] | `::htable`, `::vatopfn`, and the invariants checked |
//!
//! # Invariants
//!
//! H1..H8 in [`htable`], M1..M3 in [`hment`], C1..C2 in [`walk`], F1..F4 in [`tlb`], U1..U5 in [`above`], W1..W2 in [`walker`], P1 in [`provider`], A1 in [`access`]; T1, T2 are
//! [`addr_space::hat`]'s. [`HatX86::verify`] checks those that can be seen when nothing runs.
//!
//! # A translation, from load to trap
//!
//! ```
//! use ::addr_space::{HatProvider as _, LoadFlags, UnloadFlags};
//! use hat_x86::{HatX86, HostMmu, Mmu as _, SpaceId, UserAccess as _};
//! use page_db::*;
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let counters = Counters::new(1);
//! let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
//! let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), 64)?);
//! let clock = Arc::new(ManualClock::default());
//! let db = Arc::new(PageDb::new(&cx, mem.clone(), clock, counters, &PageDbConfig::default())?);
//! let mmu = HostMmu::new(mem, 1);
//! let provider = HatX86::new(&cx, db.clone(), mmu.clone())?;
//!
//! let hat = provider.alloc(&cx)?;
//! let page = db.alloc(&cx, 0, Reserve::Normal)?;
//! let at = VirtAddr::new(0x1000)?;
//! hat.memload(&cx, at, &page, Prot::RW, LoadFlags::empty(), None)?;
//!
//! mmu.activate(&cx, CpuId(0), Some(SpaceId(hat.id())));
//! mmu.store(&cx, CpuId(0), at, b"a byte of a frame")?;
//! hat.unload(&cx, VirtRange::page_of(at), UnloadFlags::empty());
//! assert!(page.page().ref_mod().contains(RefMod::MOD), "the dirty bit came along");
//! assert!(mmu.store(&cx, CpuId(0), at, b"again").is_err(), "and no CPU remembers");
//! provider.verify(&cx)?;
//! # db.destroy(&cx, page);
//! # Ok(())
//! # }
//! ```
//!
//! # Large pages
//!
//! The page layer hands out base pages only, so the hat stores no entry above level 0 that is a leaf. The walker and the
//! views understand such entries, for tables made elsewhere.
//!
//! Sources: [SI §12]; illumos `vm/hat.h`, `i86pc/vm/*` (behaviour); [SDM 3A §4]; illumos.md 9.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod above;
pub mod access;
pub mod contract;
pub mod dump;
pub mod error;
pub mod geometry;
pub mod hat;
pub mod hment;
pub mod host;
pub mod htable;
pub mod load;
pub mod mmu;
pub mod page;
pub mod provider;
pub mod pte;
pub mod range;
pub mod retired;
pub mod run;
pub mod steal;
pub mod tlb;
pub mod verify;
pub mod walk;
pub mod walker;

#[cfg(all(test, shuttle))]
mod schedules;
#[cfg(all(test, not(shuttle)))]
mod tests;

pub use access::{Bytes, Stopped, Trap, UserAccess};
pub use dump::{HTableRow, HTableTree, Vatopfn, VatopfnStep};
pub use error::{HatDamage, SetupError};
pub use geometry::{KERNEL_WINDOW, USER_WINDOW};
pub use hat::X86Hat;
pub use host::{HostConfig, HostMmu, StaleEntry};
pub use mmu::{Caps, CpuSet, Mmu, SpaceId};
pub use provider::{HatLimits, HatX86};
pub use pte::{PteBits, X86Pte};
pub use retired::{KeptTables, RetiredTables};
pub use tlb::{FlushDue, FlushEntry};
pub use verify::HatInfo;
pub use walker::{Mode, PageFault, PfError, Walked};
