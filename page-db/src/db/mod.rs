//! The page database: the tables of the other modules under one roof.
//!
//! # Life of a page
//!
//! ```text
//!              create                     free (named)
//!   free list ───────▶ named, in use ───────────────────▶ cache list
//!       ▲                 ▲   │  ▲                          │   │
//!       │    destroy      │   │  └──── lookup (reclaim) ────┘   │ a frame is wanted: the name goes
//!       └─────────────────┼───┘                                 │
//!       ▲                 └── rename                            ▼
//!       └───────────────────────────────────────────────── unnamed, in use
//! ```
//!
//! One verb, one file. Every verb that needs a frame may answer [`PageError::NoMemory`]; none of them sleeps for memory or runs
//! page-out (D15): the operation backs out of its locks and calls [`PageDb::wait_for_memory`], by way of [`MemoryTries`].
//!
//! - L1: a page on a chain is filed under the identity it carries.
//! - L2: an identity changes only under an exclusive page lock, inside the bucket lock.
//! - L3: a lookup returns a page whose identity was compared *after* its lock was taken.
//! - L4: free + cached + in use + kernel = total.
//!
//! Sources: [SI §10.2]; illumos `vm/vm_page.c` (behaviour); illumos.md 7.

mod claim;
mod create;
mod destroy;
mod free;
mod lend;
mod lookup;
mod place;
mod reclaim;
mod rename;
mod retire;
mod run;
#[cfg(all(test, not(shuttle)))]
mod tests;
mod tries;
mod verify;

pub(crate) use claim::Claims;
pub use claim::{Claim, Era};
pub use create::Reserve;
pub use free::Released;
pub use place::{Contig, PlaceError};
pub use retire::RetireError;
pub use run::Wanted;
pub use tries::MemoryTries;
pub use verify::{PageCensus, PageDamage};

use crate::cache_list::CacheList;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::cx::{Cx, WaitHooks};
use crate::error::PageError;
use crate::free_list::FreeList;
use crate::free_mem::{FreeMem, Thresholds};
use crate::hash::{ChainHash, HashKind, PageHash};
use crate::heap::{self, NoHeap};
use crate::mappings::{PageMappings, RefMod, SyncMode};
use crate::page::{Page, PageArray, PageId, PageState};
use crate::phys_mem::{Memory, PhysMem, WORDS};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Once, WaitTable};
use crate::units::Pfn;
use crate::vnode::{Identity, VnodeTable};
use crate::vnode_pages::{PIECE, Step};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// What a machine does when an operation needs memory and has backed out of its locks.
pub trait MemoryWait: fmt::Debug + Send + Sync {
    /// Returns once at least `pages` pages are likely free: runs page-out when single-stepped, sleeps when there are daemons.
    ///
    /// # Errors
    /// [`PageError::NoMemory`] when nothing can be reclaimed.
    fn wait_for_memory(&self, cx: &Cx, db: &PageDb, pages: u64) -> Result<(), PageError>;
}

/// Where threads that wait for memory sleep ([`PageDb::waits`]).
pub(crate) const MEMORY_KEY: u64 = 1 << 41;

/// Places where threads of a machine sleep ([`WaitTable`]).
const WAIT_PLACES: usize = 64;

/// How to build a [`PageDb`].
#[derive(Clone, Copy, Debug)]
pub struct PageDbConfig {
    /// Frames to manage, from the first on, those included that are no memory; the rest belongs to devices. All of them by default.
    pub frames: Option<u64>,
    /// Processors: sizes the per-CPU arrays.
    pub cpus: u16,
    /// Cache colours (rounded up to a power of two; no more than there are frames).
    pub colours: u32,
    /// Which page hash.
    pub hash: HashKind,
    /// Thresholds, those that make no sense replaced ([`Thresholds::settle`]), or the rule of [`Thresholds::for_memory`].
    pub thresholds: Option<Thresholds>,
}

impl Default for PageDbConfig {
    fn default() -> Self {
        Self { frames: None, cpus: 1, colours: 1, hash: HashKind::Chain, thresholds: None }
    }
}

/// More colours than any cache has.
const MOST_COLOURS: u64 = 1 << 20;

/// Why a page database cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageDbError {
    /// No frame, or none that is memory.
    #[error("no frame to manage")]
    NoFrames,
    /// More frames than page ids or frame numbers, or no heap for their structures.
    #[error("cannot keep structures for {frames} frames")]
    TooManyFrames {
        /// Frames asked for.
        frames: u64,
    },
    /// The `dashmap` hash needs `std` and the crate's `dashmap` feature.
    #[error("page hash `{0:?}` is not built in")]
    HashNotBuilt(HashKind),
    /// No heap for the hash, the free lists or the magazines.
    #[error("the page database: {0}")]
    NoHeap(#[from] NoHeap),
    /// The context counts elsewhere: it is another machine's (X4).
    #[error("the context counts elsewhere than the page database is to")]
    ForeignCx,
}

/// Which database something is of, for who keeps no reference to it: equal to the mark of the same database, and to no other's, also when one of them is gone.
#[derive(Clone, Debug)]
pub struct DbMark(Arc<()>);

impl PartialEq for DbMark {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DbMark {}

/// The page database.
pub struct PageDb {
    mark: DbMark,
    pages: PageArray,
    mem: Memory,
    hash: Box<dyn PageHash>,
    vnodes: VnodeTable,
    free: FreeList,
    cache: CacheList,
    free_mem: FreeMem,
    /// Pages with claims on them: nearly always none, and then nobody need look at a page to know that it has none.
    claimed: AtomicU64,
    /// How often a page with claims has ended, or a claim was lost: what the era of claims is counted in (Q3).
    ended_claimed: AtomicU64,
    lost_claims: AtomicU64,
    /// Pages that are lent.
    lent: AtomicU64,
    waits: WaitTable,
    hooks: Arc<dyn WaitHooks>,
    mappings: Once<Arc<dyn PageMappings>>,
    memory_wait: Once<Arc<dyn MemoryWait>>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    cpus: u16,
    /// Frames that are no memory (A1); fixed.
    absent: u64,
    /// Pages out of service.
    retired: AtomicU64,
    /// The same with those that are to be.
    to_retire: AtomicU64,
}

impl fmt::Debug for PageDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageDb")
            .field("frames", &self.pages.len())
            .field("hash", &self.hash.name())
            .field("freemem", &self.freemem())
            .finish_non_exhaustive()
    }
}

impl PageDb {
    /// A database of all frames of `mem` that are memory, every one of them free. Its hooks ([`PageDb::hooks`]) are those of `cx`.
    ///
    /// # Errors
    /// [`PageDbError`].
    pub fn new(
        cx: &Cx,
        mem: Arc<dyn PhysMem>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        config: &PageDbConfig,
    ) -> Result<Self, PageDbError> {
        Self::build(cx, mem, clock, counters, config, None)
    }
    /// The same with a page hash of the caller's own, empty and made for as many pages as there are frames; [`PageDbConfig::hash`] says nothing then.
    /// [`crate::contract::page_hash`] tells whether it keeps the trait's promises.
    ///
    /// # Errors
    /// [`PageDbError`].
    pub fn with_hash(
        cx: &Cx,
        mem: Arc<dyn PhysMem>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        config: &PageDbConfig,
        hash: Box<dyn PageHash>,
    ) -> Result<Self, PageDbError> {
        Self::build(cx, mem, clock, counters, config, Some(hash))
    }
    fn hash_of(kind: HashKind, frames: u64) -> Result<Box<dyn PageHash>, PageDbError> {
        Ok(match kind {
            HashKind::Chain => Box::new(ChainHash::new(frames)?),
            #[cfg(feature = "dashmap")]
            HashKind::Dash => Box::new(crate::hash::DashHash::new(frames)),
            #[cfg(not(feature = "dashmap"))]
            HashKind::Dash => return Err(PageDbError::HashNotBuilt(HashKind::Dash)),
        })
    }
    fn build(
        cx: &Cx,
        mem: Arc<dyn PhysMem>,
        clock: Arc<dyn Clock>,
        counters: Arc<Counters>,
        config: &PageDbConfig,
        hash: Option<Box<dyn PageHash>>,
    ) -> Result<Self, PageDbError> {
        if !Arc::ptr_eq(cx.counters(), &counters) {
            return Err(PageDbError::ForeignCx);
        }
        let frames = config.frames.unwrap_or(u64::MAX).min(mem.frames());
        if frames == 0 {
            return Err(PageDbError::NoFrames);
        }
        let pages =
            PageArray::new(mem.base(), frames).ok_or(PageDbError::TooManyFrames { frames })?;
        let mut memory = 0;
        for id in pages.ids() {
            let there = mem.is_memory(pages.pfn(id));
            let state = if there { PageState::FREE } else { PageState::ABSENT };
            pages.get(id).set_state(state, PageState::empty());
            memory += u64::from(there);
        }
        if memory == 0 {
            return Err(PageDbError::NoFrames);
        }
        // One frame of each colour is as far apart as frames can be kept.
        let colours = u64::from(config.colours).min(memory).min(MOST_COLOURS) as u32;
        let hash = match hash {
            Some(hash) => hash,
            None => Self::hash_of(config.hash, memory)?,
        };
        let free = FreeList::new(&pages, memory, config.cpus, colours)?;
        for id in pages.ids().filter(|id| pages.get(*id).is_free()) {
            free.add(cx, &pages, id);
        }
        let rule = Thresholds::for_memory(memory);
        let thresholds = config.thresholds.map_or(rule, |tuned| tuned.settle(memory));
        free.stock_if_ample(memory, thresholds.lotsfree);
        Ok(Self {
            mark: DbMark(Arc::new(())),
            pages,
            mem: Memory::new(mem),
            hash,
            vnodes: VnodeTable::new(cx.hooks()),
            free,
            cache: CacheList::new(colours)?,
            free_mem: FreeMem::new(memory, thresholds),
            claimed: AtomicU64::new(0),
            ended_claimed: AtomicU64::new(0),
            lost_claims: AtomicU64::new(0),
            lent: AtomicU64::new(0),
            waits: WaitTable::new(WAIT_PLACES, cx.hooks()),
            hooks: Arc::clone(cx.hooks()),
            mappings: Once::new(),
            memory_wait: Once::new(),
            counters,
            clock,
            cpus: config.cpus.max(1),
            absent: frames - memory,
            retired: AtomicU64::new(0),
            to_retire: AtomicU64::new(0),
        })
    }
    /// Sees to it that `cx` is of this machine (X4). Costs nothing in a release build, where it is believed.
    ///
    /// # Panics
    /// In a debug build, when it counts elsewhere.
    #[inline]
    #[track_caller]
    pub fn assert_cx(&self, cx: &Cx) {
        debug_assert!(Arc::ptr_eq(cx.counters(), &self.counters), "X4: another machine's context");
    }
    /// Which database this is.
    #[inline]
    pub fn mark(&self) -> &DbMark {
        &self.mark
    }
    /// Installs the hat's side; once, before the first translation. Says whether it was the first.
    #[must_use = "where another hat was first, nothing unloads this one's translations when a page goes"]
    pub fn set_mappings(&self, m: Arc<dyn PageMappings>) -> bool {
        self.mappings.set(m).is_ok()
    }
    /// Whether a hat's side is installed.
    pub fn has_mappings(&self) -> bool {
        self.mappings.get().is_some()
    }
    /// Installs what [`PageDb::wait_for_memory`] calls; once. Says whether it was the first.
    #[must_use = "where somebody else was first, he is waited for"]
    pub fn set_memory_wait(&self, w: Arc<dyn MemoryWait>) -> bool {
        self.memory_wait.set(w).is_ok()
    }
    /// The page structures.
    pub fn pages(&self) -> &PageArray {
        &self.pages
    }
    /// The structure of a page.
    pub fn page(&self, id: PageId) -> &Page {
        self.pages.get(id)
    }
    /// The frame of a page.
    #[doc(alias = "page_pptonum")]
    pub fn pfn(&self, id: PageId) -> Pfn {
        self.pages.pfn(id)
    }
    /// The bytes of frames.
    #[inline]
    pub fn mem(&self) -> &dyn PhysMem {
        self.mem.all()
    }
    /// The 64-bit words of a frame, without a call through the trait where the frames lie side by side.
    #[inline]
    pub fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS] {
        self.mem.words(pfn)
    }
    /// One of them.
    #[inline]
    pub fn word(&self, pfn: Pfn, index: usize) -> &AtomicU64 {
        &self.words(pfn)[index]
    }
    /// The vnodes, by number.
    pub fn vnodes(&self) -> &VnodeTable {
        &self.vnodes
    }
    /// The page hash.
    pub fn hash(&self) -> &dyn PageHash {
        &*self.hash
    }
    /// The free lists.
    pub fn free_list(&self) -> &FreeList {
        &self.free
    }
    /// The cache lists.
    pub fn cache_list(&self) -> &CacheList {
        &self.cache
    }
    /// The ledger of promised memory, and the thresholds.
    pub fn free_mem(&self) -> &FreeMem {
        &self.free_mem
    }
    /// The counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
    /// Processors the machine was sized for.
    pub fn cpus(&self) -> u16 {
        self.cpus
    }
    /// Where threads sleep for page locks; also for locks of the same kind in other crates (keys at or above 2^48 are free).
    pub fn waits(&self) -> &WaitTable {
        &self.waits
    }
    /// The hooks that wake who sleeps for something of this machine, and turn who waits for a lock of it without a [`Cx`].
    pub fn hooks(&self) -> &Arc<dyn WaitHooks> {
        &self.hooks
    }
    /// Pages free: on free lists, in magazines, on cache lists.
    pub fn freemem(&self) -> u64 {
        self.free.count() + self.cache.count()
    }
    /// The most pages that were free at once since this was asked last, as far as sleepers for memory were woken for them
    /// ([`PageDb::wake_memory_waiters`]), and not less than are free now. For page-out in threads of its own: what it frees may be taken again before it looks.
    pub fn most_free(&self) -> u64 {
        self.free_mem.take_most_free().max(self.freemem())
    }
    /// Waits until about `pages` pages are free; the caller holds no lock. `needfree` counts the pages meanwhile, and magazines are drained before
    /// anything else. A thread that frees memory itself ([`Cx::frees_memory`]) is refused at once, and so is who asks for more than there can ever be:
    /// nobody's pages are evicted for that.
    ///
    /// # Errors
    /// [`PageError::NoMemory`] when nothing can be reclaimed, or no machine is there to do it.
    #[doc(alias("page_create_wait", "uvm_wait"))]
    pub fn wait_for_memory(&self, cx: &Cx, pages: u64) -> Result<(), PageError> {
        let mem = &self.free_mem;
        let enough = pages.saturating_add(mem.thresholds().pageout_reserve);
        if cx.frees_memory() || enough > mem.total() {
            return Err(self.no_memory(pages));
        }
        let _needed = self.free_mem.need(pages);
        self.drain_magazines(cx); // counted first: F3 of `free_list`
        match self.memory_wait.get() {
            Some(w) => w.wait_for_memory(cx, self, pages),
            None => Err(self.no_memory(pages)),
        }
    }
    /// Sleeps until an allocation of `pages` pages would succeed or `give_up` says that nobody will free any; says whether the memory is
    /// there. For a [`MemoryWait`] whose page-out runs in other threads, inside [`PageDb::wait_for_memory`], which counts the need and drains the
    /// magazines: so each free wakes the sleeper (F3 of `free_list`). Those threads call [`PageDb::wake_memory_waiters`] when `give_up` may
    /// have changed. It is called often, with nothing locked by the sleep itself; it may free pages and wake whoever waits for them, and must not wait.
    pub fn sleep_for_memory(&self, cx: &Cx, pages: u64, mut give_up: impl FnMut() -> bool) -> bool {
        let enough = || self.freemem() >= pages.saturating_add(self.free_mem.normal_reserve());
        self.waits.wait_while(cx, MEMORY_KEY, || !enough() && !give_up());
        enough()
    }
    /// Puts the frames of every magazine back on the lists. Whoever waits for memory and added up meanwhile looks again (F3).
    pub fn drain_magazines(&self, cx: &Cx) {
        if self.free.drain(cx, &self.pages) {
            self.wake_memory_waiters();
        }
    }
    pub(crate) fn no_memory(&self, wanted: u64) -> PageError {
        PageError::NoMemory { wanted, freemem: self.freemem() }
    }

    /// Removes all translations of a page ([`PageMappings::unload`]). The caller holds it exclusively.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    pub fn unload(&self, cx: &Cx, page: &crate::ExclPage<'_>) {
        use crate::selock::LockedPage as _;
        self.assert_own(page);
        match self.mappings.get() {
            Some(m) if page.page().is_mapped() => m.unload(cx, page.id()),
            _ => self.settle(cx),
        }
    }
    /// Waits for flushes that other threads owe ([`PageMappings::settle`]).
    pub fn settle(&self, cx: &Cx) {
        if let Some(m) = self.mappings.get() {
            m.settle(cx);
        }
    }
    /// Gathers referenced and modified bits ([`PageMappings::sync`]). The caller holds the page lock.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "hat_pagesync")]
    pub fn sync_ref_mod(&self, cx: &Cx, page: &dyn crate::LockedPage, mode: SyncMode) -> RefMod {
        self.assert_own(page);
        match self.mappings.get() {
            Some(m) if page.page().is_mapped() => m.sync(cx, page.id(), mode),
            _ => {
                if mode == SyncMode::ZeroRm {
                    self.settle(cx);
                }
                page.page().ref_mod()
            }
        }
    }
    /// Takes the right to write from all translations of a page. The caller holds the page lock.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    pub fn clear_write(&self, cx: &Cx, page: &dyn crate::LockedPage) {
        self.assert_own(page);
        match self.mappings.get() {
            Some(m) if page.page().is_mapped() => m.clear_write(cx, page.id()),
            _ => self.settle(cx),
        }
    }
    /// How many translations a page has.
    pub fn share_count(&self, cx: &Cx, id: PageId) -> u32 {
        match self.mappings.get() {
            Some(m) if self.pages.get(id).is_mapped() => m.share_count(cx, id),
            _ => 0,
        }
    }
    /// The ids on a vnode's page list, front first; hints until locked.
    pub fn vnode_pages(&self, cx: &Cx, vnode: crate::VnodeId) -> Vec<PageId> {
        self.vnodes
            .try_slot(vnode)
            .map_or_else(Vec::new, |s| s.pages.lock(cx).iter(&self.pages).collect())
    }
    /// The pages on a vnode's list whose names are `inside`, front first; hints until locked. The list's lock is held for a piece at a time, and names are
    /// read under it: when a name moves to another page, that one is put at the end of the list before (E3).
    ///
    /// # Errors
    /// [`NoHeap`] for the answer.
    pub(crate) fn find_vnode_pages(
        &self,
        cx: &Cx,
        vnode: crate::VnodeId,
        inside: impl Fn(&Identity) -> bool,
    ) -> Result<Vec<(Identity, PageId)>, NoHeap> {
        let mut found = Vec::new();
        let Some(slot) = self.vnodes.try_slot(vnode) else { return Ok(found) };
        let mut number = None;
        loop {
            if found.try_reserve(PIECE).is_err() {
                if let Some(n) = number {
                    slot.pages.lock(cx).end_walk(n);
                }
                return Err(NoHeap);
            }
            let step = slot.pages.lock(cx).walk(&self.pages, number, |page| {
                if let Some(id) = self.page(page).identity().filter(&inside) {
                    found.push((id, page)); // into the room just made
                }
            });
            match step {
                Step::End => return Ok(found),
                Step::More(n) => number = Some(n),
                Step::NoRoom => {
                    let walks = slot.pages.lock(cx).walks() + 1;
                    let room = heap::room(2 * walks)?;
                    let left_over = slot.pages.lock(cx).give_room(room);
                    drop(left_over);
                    found.clear();
                }
            }
        }
    }
    /// Cost: pages that walks along a vnode's list have looked at under its lock so far.
    pub fn vnode_pages_met(&self, cx: &Cx, vnode: crate::VnodeId) -> u64 {
        self.vnodes.try_slot(vnode).map_or(0, |s| s.pages.lock(cx).met())
    }
    /// How many pages a vnode has.
    pub fn vnode_page_count(&self, cx: &Cx, vnode: crate::VnodeId) -> u64 {
        self.vnodes.try_slot(vnode).map_or(0, |s| s.pages.lock(cx).count())
    }
}
