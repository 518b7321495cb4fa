//! The contract of [`crate::SegOps`].
//!
//! # The difficulty
//!
//! A driver is never alone. Its calls make sense in the order in which an address space makes them, most of what it promises shows in somebody
//! else's books (translations, counts, claims, promises of swap), and what it does wrong shows one operation later: a cut that moves an
//! offset is seen by the next fault, a pin that is not given back by whoever unmaps.
//!
//! # The rule
//!
//! ```text
//!   scene:  count what is held ─▶ map the driver ─▶ operation ─▶ verify() ─▶ what each page shows ─▶ ... ─▶ free ─▶ count again
//!                                                     │                        rights, bytes, lock, name
//!                                                     └─ the driver itself is asked only where an address space would hide the answer
//! ```
//!
//! The suite maps the driver over eight pages of address spaces of its own and lives there as a process does. Every page gets a word that no other
//! page has, and is filled with bytes that belong to it, so that a page in another's place is seen, and half a page. What is held is counted by the suite (frames, locks and claims on pages)
//! and by the case (promises, numbers, whatever else the machine hands out), before the first step and after the last.
//!
//! Not every driver can do everything. A case says what its driver can ([`SegCan`]); what it cannot the driver must refuse, with the
//! error and under its own name, or leave undone where the trait's default does nothing. So an operation has three outcomes and no fourth: done, said, or
//! documented as nothing.
//!
//! Where an operation may fail half-way, [`page_db::fail`] makes every request in it fail once: the state before is there, or the state after, and the
//! same call works when nothing fails any more.
//!
//! The other road, a driver called with contexts made by hand, needs no address space. It would judge drivers by calls that nobody makes.

mod bench;
mod cut;
mod dup;
mod ends;
mod fail;
mod fault;
mod life;
mod lock;
mod moves;
mod object;
mod pin;
mod refuse;
mod rights;
mod short;
#[cfg(all(feature = "std", not(shuttle)))]
mod together;

use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::seg::SegCreate;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bench::Bench;
use core::fmt;
use page_db::contract::{Breach, Judge};
use page_db::{Cx, PageDb, VirtAddr};

bitflags::bitflags! {
    /// What a driver can do. What is not said it must refuse.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SegCan: u32 {
        /// A fault brings a translation. A driver that cannot has its translations in place from the start.
        const FAULT = 1;
        /// Pages may be stored to.
        const STORE = 1 << 1;
        /// What is mapped is memory that [`PageDb::mem`] can read and write.
        const BYTES = 1 << 2;
        /// Stores are seen by everybody who maps the same ([`crate::SegKind::SHARED`]); otherwise they are private.
        const SHARE = 1 << 3;
        /// A part can be unmapped.
        const SPLIT = 1 << 4;
        /// A child can have it.
        const DUP = 1 << 5;
        /// Rights can be changed, page by page.
        const PROT = 1 << 6;
        /// Pages can be locked in memory.
        const LOCK = 1 << 7;
        /// Pages can be pinned by a fault.
        const SOFTLOCK = 1 << 8;
        /// Pages that were stored to can be pinned as a list.
        const PAGELOCK = 1 << 9;
        /// Advice about use is kept.
        const ADVISE = 1 << 10;
        /// Pages can be written to where they belong.
        const SYNC = 1 << 11;
        /// What a child finds can be chosen: zeros, a copy, nothing.
        const INHERIT = 1 << 12;
        /// A vnode is mapped, page by page.
        const VNODE = 1 << 13;
        /// Memory has an identity.
        const MEM_ID = 1 << 14;
        /// A page size can be asked for.
        const PAGE_SIZE = 1 << 15;
        /// A child can be given the same memory, private memory among it.
        const INHERIT_SHARE = 1 << 16;
        /// Mappings can be moved and go on; with [`SegCan::INHERIT_SHARE`] they can be shown twice.
        const EXTRACT = 1 << 17;
        /// Pages can be lent to the kernel.
        const LEND = 1 << 18;
    }
}

/// A segment driver to be judged, and where. The suite needs some hundred free frames, as many pages of swap, and a machine in which nothing else runs.
#[derive(Clone, Copy)]
pub struct SegCase<'a> {
    /// Who is running.
    pub cx: &'a Cx,
    /// The pages.
    pub db: &'a PageDb,
    /// A name for it.
    pub name: &'a str,
    /// Makes an empty address space; asked for many. Without [`SegCase::make`]: the space in which the segment is.
    pub space: &'a dyn Fn() -> Result<Arc<AddrSpace>, AsError>,
    /// Makes the driver, with rights to load (and to store, if it can). `None`: the segment is there, covers the eight pages, and stays.
    pub make: Option<&'a (dyn SegCreate + Sync)>,
    /// The first of eight pages for it, with a free page on either side.
    pub at: VirtAddr,
    /// What it can do.
    pub can: SegCan,
    /// The bytes of the n-th page of what is mapped, as they are there now. `None`: zeros, each time.
    pub behind: Option<&'a dyn Fn(u64) -> Vec<u8>>,
    /// What the machine has handed out and will want back, in numbers: promises of swap, names of anonymous pages.
    pub counts: &'a dyn Fn() -> Vec<(&'static str, u64)>,
}

impl fmt::Debug for SegCase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegCase")
            .field("name", &self.name)
            .field("at", &self.at)
            .field("can", &self.can)
            .finish_non_exhaustive()
    }
}

/// One part of the suite; it leaves nothing behind.
type Scene = fn(&Bench<'_>) -> Result<(), Breach>;

const SCENES: &[Scene] = &[
    ends::made,
    cut::says_what_is_left, // before a tree is cut by what it says
    ends::done,
    life::lives,
    life::answers,
    object::names,
    object::identities,
    fault::resolves,
    rights::changes,
    rights::ceiling,
    fault::refuses,
    fault::ahead,
    cut::keeps_the_rest,
    cut::joins,
    dup::copies,
    dup::outlives,
    dup::inherits,
    object::identities_over_fork,
    object::stays_itself,
    pin::soft_locks,
    pin::undoes,
    pin::lists,
    lock::locks,
    moves::moves,
    moves::shows_twice,
    moves::lends,
    object::syncs,
    object::advises,
    refuse::refuses,
    fail::fails,
    short::of_frames,
    #[cfg(all(feature = "std", not(shuttle)))]
    together::faults,
    #[cfg(all(feature = "std", not(shuttle)))]
    together::changes,
    #[cfg(all(feature = "std", not(shuttle)))]
    together::waits,
];

/// The contract of [`SegOps`](crate::SegOps): life, faults, rights, cuts, fork, pins, locks, moves, loans, names, refusals, failures, memory
/// running out, several threads.
///
/// # Errors
/// The first clause that does not hold.
pub fn check_seg_ops(case: &SegCase<'_>) -> Result<(), Breach> {
    let b = &Bench { c: *case, judge: Judge::new("SegOps", case.name) };
    for scene in SCENES {
        let before = b.census();
        scene(b)?;
        b.nothing_left(&before)?;
        b.judge.holds_nothing(case.cx, "the scene")?;
    }
    Ok(())
}

/// [`check_seg_ops`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn seg_ops(case: &SegCase<'_>) {
    Breach::raise(check_seg_ops(case));
}
