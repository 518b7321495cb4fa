//! Promises: every page that may one day need a place is paid for before it exists.
//!
//! Without this a store into memory the system had granted could fail, and somebody would have to be killed. A promise is backed by
//! disk while there is any, then by memory: availrmem falls, as if the page were locked. Nobody owns a particular page of either.
//!
//! ```text
//!              reserve: disk first                          unreserve: memory first
//!   ani_max    ├── ani_phys_resv ──┼── left ──┤
//!   availrmem  ├── left ── floor ──┼ ani_mem_resv (charged) ┤       of which ani_locked_swap never goes back to disk
//! ```
//!
//! | | textbook | here |
//! |---|---|---|
//! | `swapfs_minfree` | min(512 MB, total/8) | the same |
//! | `swapfs_reserve` | min(128 MB, max(4 MB, total/128)) | and at most total/8, where 4 MB would be more (under 32 MB of memory) |
//!
//! - V1: `ani_phys_resv <= ani_max`, `ani_locked_swap <= ani_mem_resv`.
//! - V2: `ani_mem_resv` pages are charged to availrmem, no more and no fewer.
//! - V3: each change happens whole, under one lock.
//! - V4: `ani_max` counts the slots that can back a promise. One gone bad backs that of its own name, which never asks for another; when the
//!   name ends the promise returns and the slot does not, so `ani_max` is one less. If it is promised to the last and memory cannot take
//!   one promise over, the slot is owed: `ani_max` = slots that back promises + `owed`, and `owed` is 0 unless `ani_phys_resv = ani_max`.
//!
//! Everything counts pages. Sources: [SI §11.4]; illumos.md 5.2, 6.5.

use crate::error::SwapError;
use crate::fs::SwapFs;
use alloc::sync::Arc;
use core::fmt;
use core::ops::DerefMut;
use page_db::free_mem::FreeMem;
use page_db::sync::Mutex;
use page_db::{FailKind, PAGE_SIZE, Rank, WaitHooks};

const MB: u64 = (1 << 20) / PAGE_SIZE;

/// `swapfs_minfree` for a machine of `total` pages: memory that backs no promise at all.
pub fn minfree_for(total: u64) -> u64 {
    (total / 8).min(512 * MB)
}
/// `swapfs_reserve` for a machine of `total` pages: memory that backs promises of the privileged only.
pub fn reserve_for(total: u64) -> u64 {
    (total / 128).clamp(4 * MB, 128 * MB).min(total / 8)
}

/// The books, in pages (`struct k_anoninfo`).
#[doc(alias = "k_anoninfo")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct AnonInfo {
    /// Slots on all areas, less those gone bad whose names have ended.
    #[doc(alias = "ani_max")]
    pub max: u64,
    /// Names that could still be made: slots and memory-backed promises less names.
    #[doc(alias = "ani_free")]
    pub free: u64,
    /// Promised from the disks.
    #[doc(alias = "ani_phys_resv")]
    pub phys_resv: u64,
    /// Promised from memory, and charged to availrmem.
    #[doc(alias = "ani_mem_resv")]
    pub mem_resv: u64,
    /// The part of `mem_resv` that belongs to locked memory and stays there.
    #[doc(alias = "ani_locked_swap")]
    pub locked_swap: u64,
    /// Memory that could still back promises: availrmem less `swapfs_minfree`.
    pub avail_mem: u64,
}

impl AnonInfo {
    /// Pages promised.
    #[doc(alias = "ani_resv")]
    pub fn reserved(&self) -> u64 {
        self.phys_resv + self.mem_resv
    }
    /// Pages that can still be promised, to the last (`CURRENT_TOTAL_AVAILABLE_SWAP`).
    #[doc(alias = "CURRENT_TOTAL_AVAILABLE_SWAP")]
    pub fn available(&self) -> u64 {
        self.max.saturating_sub(self.phys_resv) + self.avail_mem
    }
    /// Disk and memory, whoever they are promised to (`TOTAL_AVAILABLE_SWAP`).
    #[doc(alias = "TOTAL_AVAILABLE_SWAP")]
    pub fn total(&self) -> u64 {
        self.max + self.avail_mem
    }
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Books {
    pub(crate) max: u64,
    pub(crate) phys_resv: u64,
    pub(crate) mem_resv: u64,
    pub(crate) locked: u64,
    /// Slots lost that are still promised (V4).
    pub(crate) owed: u64,
}

impl Books {
    /// Pays what is owed out of disk that nobody is promised.
    fn settle(&mut self) {
        let n = self.owed.min(self.max.saturating_sub(self.phys_resv));
        self.owed -= n;
        self.max -= n;
    }
    /// Moves promises from memory to whatever disk is left.
    fn shift_to_disk(&mut self, mem: &FreeMem) {
        let movable = self.mem_resv.saturating_sub(self.locked);
        let n = movable.min(self.max.saturating_sub(self.phys_resv));
        self.mem_resv -= n;
        self.phys_resv += n;
        mem.uncharge(n);
    }
}

/// The ledger.
pub(crate) struct Ledger {
    books: Mutex<Books>,
    pub(crate) minfree: u64,
    pub(crate) reserve: u64,
    /// The database's.
    hooks: Arc<dyn WaitHooks>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("books", &*self.books()).finish_non_exhaustive()
    }
}

impl Ledger {
    pub(crate) fn new(minfree: u64, reserve: u64, hooks: &Arc<dyn WaitHooks>) -> Self {
        let books = Mutex::new(Rank::SwapReserve, Books::default());
        Self { books, minfree, reserve, hooks: Arc::clone(hooks) }
    }
    /// The books, locked: a leaf (V3).
    #[inline]
    pub(crate) fn books(&self) -> impl DerefMut<Target = Books> + '_ {
        self.books.lock_leaf(&*self.hooks)
    }
    /// Promises `pages`, leaving more than `floor` pages of memory if any is taken.
    fn reserve(
        &self,
        mem: &FreeMem,
        pages: u64,
        floor: u64,
        denied: bool,
    ) -> Result<(), SwapError> {
        let mut b = self.books();
        let disk = b.max.saturating_sub(b.phys_resv);
        let from_disk = pages.min(disk);
        let from_mem = pages - from_disk;
        if denied || (from_mem != 0 && !mem.charge(from_mem, floor.saturating_add(1))) {
            let availrmem = mem.availrmem();
            return Err(SwapError::NoSwap { wanted: pages, disk, availrmem, floor });
        }
        b.phys_resv += from_disk;
        b.mem_resv += from_mem;
        Ok(())
    }
    fn unreserve(&self, mem: &FreeMem, pages: u64) {
        let mut b = self.books();
        debug_assert!(pages <= b.phys_resv + b.mem_resv, "V1: more returned than was promised");
        let to_mem = pages.min(b.mem_resv.saturating_sub(b.locked));
        b.mem_resv -= to_mem;
        b.phys_resv = b.phys_resv.saturating_sub(pages - to_mem);
        b.settle();
        mem.uncharge(to_mem);
    }
    /// `pages` of disk more; promises move there from memory.
    pub(crate) fn grow(&self, mem: &FreeMem, pages: u64) {
        let mut b = self.books();
        b.max += pages;
        b.settle();
        b.shift_to_disk(mem);
    }
    /// `pages` of disk fewer; what was promised from them moves to memory. Says whether memory could take it; nothing changes otherwise.
    pub(crate) fn shrink(&self, mem: &FreeMem, pages: u64) -> bool {
        let mut b = self.books();
        let max = b.max.saturating_sub(pages);
        let excess = b.phys_resv.saturating_sub(max);
        if excess != 0 && !mem.charge(excess, self.minfree) {
            return false;
        }
        b.max = max;
        b.phys_resv -= excess;
        b.mem_resv += excess;
        b.settle();
        true
    }
    /// One page of disk fewer, for good; if it is promised, memory takes the promise over, now or when another is returned (V4).
    pub(crate) fn lose(&self, mem: &FreeMem) {
        let mut b = self.books();
        b.owed += 1;
        b.settle();
        if b.owed != 0 && mem.charge(1, self.minfree) {
            b.phys_resv -= 1;
            b.mem_resv += 1;
            b.settle();
        }
    }
}

/// A promise that is returned when dropped, unless [`Reservation::keep`] hands it on.
#[must_use = "dropping the reservation returns it"]
pub struct Reservation<'a> {
    fs: &'a SwapFs,
    pages: u64,
}

impl Reservation<'_> {
    /// Pages promised.
    pub fn pages(&self) -> u64 {
        self.pages
    }
    /// Leaves the promise with the caller, who returns it by [`SwapFs::unreserve`] one day.
    pub fn keep(mut self) -> u64 {
        core::mem::take(&mut self.pages)
    }
    /// Hands on `pages` of it (or all, if it has fewer) and says how many; the rest stays here.
    pub fn keep_some(&mut self, pages: u64) -> u64 {
        let n = pages.min(self.pages);
        self.pages -= n;
        n
    }
}
impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.fs.unreserve(self.pages);
    }
}
impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("pages", &self.pages).finish_non_exhaustive()
    }
}

impl SwapFs {
    fn mem(&self) -> &FreeMem {
        self.db().free_mem()
    }
    /// Whether a plan of failures denies this promise. Nothing is no promise.
    fn denied(&self, pages: u64) -> bool {
        pages != 0 && self.db().counters().fails(FailKind::Reservation)
    }
    /// Promises `pages` pages, from disk while there is any, then from memory above `swapfs_minfree + swapfs_reserve`.
    ///
    /// # Errors
    /// [`SwapError::NoSwap`]; nothing has changed.
    #[doc(alias("anon_resv", "anon_resvmem"))]
    pub fn reserve(&self, pages: u64) -> Result<(), SwapError> {
        let l = self.ledger();
        l.reserve(self.mem(), pages, l.minfree.saturating_add(l.reserve), self.denied(pages))
    }
    /// As [`SwapFs::reserve`] for a privileged caller, whose floor is `swapfs_minfree` alone.
    ///
    /// # Errors
    /// [`SwapError::NoSwap`]; nothing has changed.
    pub fn reserve_privileged(&self, pages: u64) -> Result<(), SwapError> {
        let l = self.ledger();
        l.reserve(self.mem(), pages, l.minfree, self.denied(pages))
    }
    /// As [`SwapFs::reserve`], returned when the guard drops.
    ///
    /// # Errors
    /// [`SwapError::NoSwap`]; nothing has changed.
    pub fn take(&self, pages: u64) -> Result<Reservation<'_>, SwapError> {
        self.reserve(pages)?;
        Ok(Reservation { fs: self, pages })
    }
    /// Returns a promise of `pages` pages, memory first.
    #[doc(alias("anon_unresv", "anon_unresvmem"))]
    pub fn unreserve(&self, pages: u64) {
        if pages != 0 {
            self.ledger().unreserve(self.mem(), pages);
        }
    }
    /// Makes `pages` of the promises locked memory (an ISM segment): they are backed by memory from now on, and stay so.
    ///
    /// # Errors
    /// [`SwapError::NoSwap`] when memory cannot take over from disk, or fewer pages are promised; nothing has changed.
    #[doc(alias = "anon_swap_adjust")]
    pub fn lock_reserved(&self, pages: u64) -> Result<(), SwapError> {
        let (l, mem) = (self.ledger(), self.mem());
        let mut b = l.books();
        let short = pages.saturating_sub(b.mem_resv.saturating_sub(b.locked));
        if short > b.phys_resv || (short != 0 && !mem.charge(short, l.minfree.saturating_add(1))) {
            let disk = b.max.saturating_sub(b.phys_resv);
            let availrmem = mem.availrmem();
            return Err(SwapError::NoSwap { wanted: pages, disk, availrmem, floor: l.minfree });
        }
        b.phys_resv -= short;
        b.mem_resv += short;
        b.locked += pages;
        b.settle();
        Ok(())
    }
    /// Undoes [`SwapFs::lock_reserved`]; the promises move to disk where there is room.
    #[doc(alias = "anon_swap_restore")]
    pub fn unlock_reserved(&self, pages: u64) {
        let mut b = self.ledger().books();
        debug_assert!(pages <= b.locked, "V1: more unlocked than was locked");
        b.locked = b.locked.saturating_sub(pages);
        b.shift_to_disk(self.mem());
    }
    /// The books.
    pub fn info(&self) -> AnonInfo {
        let l = self.ledger();
        let b = *l.books();
        AnonInfo {
            max: b.max,
            free: (b.max + b.mem_resv).saturating_sub(self.live()),
            phys_resv: b.phys_resv,
            mem_resv: b.mem_resv,
            locked_swap: b.locked,
            avail_mem: self.mem().availrmem().saturating_sub(l.minfree),
        }
    }
    /// Pages of memory that back no promise (`swapfs_minfree`), and pages that back the privileged's only (`swapfs_reserve`).
    #[doc(alias("swapfs_minfree", "swapfs_reserve"))]
    pub fn floors(&self) -> (u64, u64) {
        (self.ledger().minfree, self.ledger().reserve)
    }
}
