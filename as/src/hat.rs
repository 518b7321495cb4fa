//! What an address space asks of the machine's address translation.
//!
//! The traits live here, with their callers; `hat-x86` supplies them. Two promises matter to every caller:
//!
//! - T1: when a method returns, no CPU can use a translation it removed or weakened (flushes are complete), and no HAT lock is held.
//! - T2: a translation is a cache of what segments know. A backend may forget any of them; a fault brings it back.
//!
//! A fault on a private mapping takes no segment lock (DESIGN D3b), so between reading the protection and storing the entry a
//! `set_prot` may pass by. [`Stamp`] closes that gap: the segment bumps its sequence number *before* it changes translations,
//! and the hat compares the number under the table's lock right before the store. Either the store comes first and the change
//! finds it, or the comparison fails and the fault starts over.
//!
//! Sources: [SI §12]; illumos `vm/hat.h` (interface); illumos.md 9.

use alloc::sync::Arc;
use core::fmt;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::{
    Access, Cx, LockedPage, PAGE_SIZE, PageDb, PageId, Pfn, Prot, RefMod, SyncMode, VirtAddr,
    VirtRange, errno,
};

bitflags::bitflags! {
    /// How a translation is loaded.
    #[doc(alias("HAT_LOAD_LOCK", "HAT_LOAD_ADV", "HAT_LOAD_NOCONSIST", "HAT_LOAD_REMAP"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct LoadFlags: u8 {
        /// The translation may not be stolen until [`Hat::unlock`] or an unload with [`UnloadFlags::UNLOCK`].
        const LOCK = 1;
        /// Advisory (fault-ahead): skipped, not failed, when it would need memory. In a run, what is there already stays as it is.
        const ADV = 2;
        /// Not on the page's mapping list (device memory).
        const NOCONSIST = 4;
        /// May replace a translation to another frame.
        const REMAP = 8;
        /// Referenced and modified are set from the start and never harvested (kernel memory).
        const NOSYNC = 16;
    }
}

bitflags::bitflags! {
    /// How translations are removed.
    #[doc(alias("HAT_UNLOAD_NOSYNC", "HAT_UNLOAD_UNLOCK", "HAT_UNLOAD_UNMAP"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct UnloadFlags: u8 {
        /// Referenced and modified are not kept.
        const NOSYNC = 1;
        /// The translations were locked.
        const UNLOCK = 2;
        /// The range is going away for good.
        const UNMAP = 4;
    }
}

/// What a fault was decided on, as it was read: one or two sequence numbers and their values then.
///
/// The first guards the segment's protection. The second, where a private file mapping read the lower layer, guards the absence
/// of an upper layer at that place: an anon map bumps it when a new part of it comes to be.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    seq: &'a AtomicU32,
    value: u32,
    also: Option<(&'a AtomicU32, u32)>,
}

impl<'a> Stamp<'a> {
    /// Reads `seq` now; read what it guards after this.
    pub fn take(seq: &'a AtomicU32) -> Self {
        Self { seq, value: seq.load(Ordering::SeqCst), also: None }
    }
    /// The same stamp, guarding also what `seq` guards; read that after this.
    #[must_use]
    pub fn and(self, seq: &'a AtomicU32) -> Self {
        Self { also: Some((seq, seq.load(Ordering::SeqCst))), ..self }
    }
    /// The stamp without what [`Stamp::and`] added: something stronger holds it now.
    #[must_use]
    pub fn without_second(self) -> Self {
        Self { also: None, ..self }
    }
    /// Whether nothing has been published since, and nothing is being published (odd numbers).
    #[inline]
    pub fn is_current(&self) -> bool {
        self.value & 1 == 0
            && self.seq.load(Ordering::SeqCst) == self.value
            && self.also.is_none_or(|(seq, value)| seq.load(Ordering::SeqCst) == value)
    }
}

/// What became of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// The translation is there (or an advisory one was skipped).
    Done,
    /// The stamp was out of date; nothing was stored.
    Stale,
}

/// One page of a run ([`Hat::memload_run`]), with the rights it is mapped with.
#[derive(Clone, Copy)]
pub struct RunPage<'a> {
    page: &'a dyn LockedPage,
    id: PageId,
    prot: Prot,
    exclusive: bool,
    db: &'a PageDb,
}

impl<'a> RunPage<'a> {
    /// `page` with the rights `prot`; it stays locked while this lives.
    #[inline]
    pub fn new<P: LockedPage>(page: &'a P, prot: Prot) -> Self {
        Self { page, id: page.id(), prot, exclusive: page.is_exclusive(), db: page.db() }
    }
    /// The database it is of, without asking the page.
    #[inline]
    pub fn db(&self) -> &'a PageDb {
        self.db
    }
    /// The page.
    pub fn page(&self) -> &'a dyn LockedPage {
        self.page
    }
    /// Its id, without asking the page.
    #[inline]
    pub fn id(&self) -> PageId {
        self.id
    }
    /// The rights.
    #[inline]
    pub fn prot(&self) -> Prot {
        self.prot
    }
    /// Whether it is locked exclusively.
    #[inline]
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }
}

impl fmt::Debug for RunPage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunPage({}, {})", self.id, self.prot)
    }
}

/// How far a run came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunLoaded {
    /// Places dealt with, from the first: their pages are mapped, or there was none, or an advisory one was skipped.
    pub passed: usize,
    /// Translations that were not there before.
    pub loaded: usize,
    /// Why it ended: `Ok(Done)` past the last place, otherwise what became of the place behind the passed ones.
    pub end: Result<Loaded, HatError>,
}

/// A translation as the tables hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Translation {
    /// The frame.
    pub pfn: Pfn,
    /// Effective rights: the AND over the levels.
    pub prot: Prot,
    /// Referenced and modified bits of the leaf entry.
    #[serde(skip)]
    pub ref_mod: RefMod,
    /// Level of the leaf entry: 0 for 4 KiB.
    pub level: u8,
}

/// Why the hat refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HatError {
    /// No frame or no record for a page table or a mapping, or no heap for what a new hat keeps for each processor; back out and wait for memory. A wait for frames ends at once where they are plenty and it
    /// was the heap that had no record, so who waits gives up after some tries ([`page_db::MemoryTries`]).
    #[error("no memory for a page table at {addr}")]
    NoMemory {
        /// The address whose translation was wanted.
        addr: VirtAddr,
    },
    /// Another frame is mapped there and [`LoadFlags::REMAP`] was not given.
    #[error("{addr} is mapped to frame {have}, not {want}")]
    Conflict {
        /// The address.
        addr: VirtAddr,
        /// The frame mapped.
        have: Pfn,
        /// The frame asked for.
        want: Pfn,
    },
    /// The range is not this hat's to map (a user hat and the kernel's half, or the reverse).
    #[error("{addr} does not belong to this hat")]
    OutOfRange {
        /// The address.
        addr: VirtAddr,
    },
    /// The page is another machine's.
    #[error("the page for {addr} is another machine's")]
    ForeignPage {
        /// Where it was to be mapped.
        addr: VirtAddr,
    },
}

impl HatError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoMemory { .. } | Self::Conflict { .. } | Self::OutOfRange { .. } => {
                errno::ENOMEM
            }
            Self::ForeignPage { .. } => errno::EINVAL,
        }
    }
}

/// The translations of one address space.
///
/// Of illumos's list some have no call here, for there is nothing to do: a fork copies no translation (`hat_dup`) and swapping in loads none
/// (`hat_swapin`), since faults load what is missing; swapping out is an unload by each segment (`hat_swapout`), which knows what is locked; address spaces share no tables (`hat_share`); and each load brings its own
/// frames for tables (`hat_reserve`).
#[doc(alias(
    "struct hat",
    "hat_dup",
    "hat_swapin",
    "hat_swapout",
    "hat_share",
    "hat_unshare",
    "hat_reserve"
))]
pub trait Hat: fmt::Debug + Send + Sync {
    /// A number for views, in order of creation.
    fn id(&self) -> u32;
    /// Loads a translation to a locked page. An entry for the same frame is changed to `prot`; rights that shrink are flushed. A `prot` without rights is answered
    /// with [`Loaded::Done`] whatever the stamp says: it asks for no translation, and one that is there is left as it is ([`Hat::chg_prot`] and [`Hat::unload`]
    /// take them away).
    ///
    /// Where nothing is mapped nothing is flushed, either, and nobody is waited for: whoever removed what was there may not have told the processors yet. That
    /// does no harm while the frame is the same, or what was in it is no more. But **a driver that maps a copy in the place of the original** (copy-on-write)
    /// would let one thread of the space store to the copy while another goes on reading the original: it unloads what is mapped there, or where it
    /// finds nothing calls [`Hat::settle`], before it loads the copy. With [`LoadFlags::REMAP`] the hat sees to an entry that it finds, and to no other.
    ///
    /// # Errors
    /// [`HatError`]; nothing has changed.
    #[doc(alias = "hat_memload")]
    fn memload(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError>;
    /// Loads translations to locked pages at consecutive addresses from `addr` on, each as [`Hat::memload`] would; places without a
    /// page are left as they are. The pages before the place it stops at are loaded, and stay.
    ///
    /// One stamp guards the whole run, so it covers what all of its pages were decided on.
    #[doc(alias = "hat_memload_array")]
    fn memload_run(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        pages: &[Option<RunPage<'_>>],
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> RunLoaded {
        let mut run = RunLoaded { passed: 0, loaded: 0, end: Ok(Loaded::Done) };
        for (i, place) in (0u64..).zip(pages) {
            let at = addr.checked_add(i * PAGE_SIZE).map_err(|_| HatError::OutOfRange { addr });
            if let Some(p) = place
                && let there = at.is_ok_and(|at| self.probe(cx, at).is_some())
                && !(there && flags.contains(LoadFlags::ADV))
            {
                run.end = at.and_then(|at| self.memload(cx, at, p.page(), p.prot(), flags, stamp));
                if run.end != Ok(Loaded::Done) {
                    break;
                }
                let now = at.is_ok_and(|at| self.probe(cx, at).is_some());
                run.loaded += usize::from(now && !there);
            }
            run.passed += 1;
        }
        run
    }
    /// Loads translations to frames without page structures, `pfn` for the first page and counting up.
    ///
    /// # Errors
    /// [`HatError`]; the pages before the failing one are loaded.
    #[doc(alias = "hat_devload")]
    fn devload(
        &self,
        cx: &Cx,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), HatError>;
    /// Removes the translations of a range, keeping their referenced and modified bits on the pages.
    #[doc(alias("hat_unload", "hat_unload_callback"))]
    fn unload(&self, cx: &Cx, range: VirtRange, flags: UnloadFlags);
    /// Drops one lock count from the translations of a range.
    #[doc(alias = "hat_unlock")]
    fn unlock(&self, cx: &Cx, range: VirtRange);
    /// Gives the existing translations of a range exactly the rights `prot`; none means unload. Absent ones stay absent.
    #[doc(alias("hat_chgprot", "hat_chgattr", "hat_setattr"))]
    fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot);
    /// Takes the right to write from the existing translations of a range (fork).
    #[doc(alias = "hat_clrattr")]
    fn clear_write(&self, cx: &Cx, range: VirtRange);
    /// Gathers referenced and modified bits of a range onto the pages.
    #[doc(alias = "hat_sync")]
    fn sync(&self, cx: &Cx, range: VirtRange, mode: SyncMode);
    /// The translation of an address, if there is one. Reads tables without locks: a hint.
    #[doc(alias("hat_probe", "hat_getpfnum", "hat_getattr", "hat_getkpfnum"))]
    fn probe(&self, cx: &Cx, addr: VirtAddr) -> Option<Translation>;
    /// Returns once no processor can use a translation of this space that another thread has removed or weakened but may not have flushed yet. Usually a glance
    /// at one word for each CPU. Flushes that are owed for other spaces are waited for by whoever frees a page
    /// ([`PageMappings::settle`](page_db::PageMappings::settle)).
    fn settle(&self, cx: &Cx);
    /// Whether the translation of an address allows the access now: what every fault asks first. As [`Hat::probe`] would say, but a hat may know the answer
    /// "no" from less.
    #[inline]
    fn allows(&self, cx: &Cx, addr: VirtAddr, access: Access) -> bool {
        self.probe(cx, addr).is_some_and(|have| have.prot.allows(access))
    }
    /// Calls `f` for each translation of a range, in order of address, skipping absent sub-trees.
    #[doc(alias = "htable_walk")]
    fn walk(&self, cx: &Cx, range: VirtRange, f: &mut dyn FnMut(VirtAddr, Translation));
    /// The effective rights of the translations of a range, page by page from its first: none where there is no translation. Fills what `out` has room
    /// for. A hint, as [`Hat::probe`].
    fn rights(&self, cx: &Cx, range: VirtRange, out: &mut [Prot]) {
        out.fill(Prot::empty());
        self.walk(cx, range, &mut |addr, t| {
            if let Some(out) = out.get_mut(range.page_index(addr) as usize) {
                *out = t.prot;
            }
        });
    }
    /// Pages mapped now.
    #[doc(alias = "hat_pages_mapped")]
    fn resident(&self) -> u64;
    /// The address space begins to go: when this returns no processor runs in it, remembers anything of it or gets into it again, so nothing needs
    /// flushing for it from then on. A thread that is still in it faults.
    #[doc(alias = "hat_free_start")]
    fn free_start(&self, cx: &Cx);
    /// The address space is gone: every table goes back. No translation is left by then.
    #[doc(alias("hat_free_end", "hat_free"))]
    fn free_end(&self, cx: &Cx);
}

const _: Option<&dyn Hat> = None; // used as an object everywhere; stays one

/// Makes hats.
pub trait HatProvider: fmt::Debug + Send + Sync {
    /// A hat for a new user address space; the kernel's half is in it from the start.
    ///
    /// # Errors
    /// [`HatError::NoMemory`] when there is no frame for the top table.
    #[doc(alias = "hat_alloc")]
    fn alloc(&self, cx: &Cx) -> Result<Arc<dyn Hat>, HatError>;
    /// The kernel's hat; the same one each time.
    #[doc(alias = "kas.a_hat")]
    fn kernel(&self) -> Arc<dyn Hat>;
}
