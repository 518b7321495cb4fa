//! Free pages without identity: a map of them for each page size and colour, and a magazine of frames for each CPU.
//!
//! # The difficulty
//!
//! Frames come back in the order in which programs let go of them, which is no order. On linked lists they go out in that order again: a refill
//! walks from one cold page structure to the next, each of them a miss that must end before the next one starts, and
//! neighbours in an address space get frames from all over memory.
//!
//! # The rule
//!
//! ```text
//!   page_freelists[szc][bin]     szc 0 only for now; bin = colour = low bits of the frame number
//!                                a bit for each frame, taken in the order of addresses, round and round (crate::frame_map)
//!   magazine[cpu]                frames taken from the maps in batches; still free, still counted in freemem
//! ```
//!
//! A fault takes its frame from its CPU's magazine and writes no line another fault writes. A batch is a word of the map or two, so it costs
//! two lines and one lock, touches no page structure, and comes in ascending order with frames that are near each other.
//!
//! Whether frames may wait in magazines is one
//! word that is read often and written rarely: it goes off, and every magazine is drained, when a refill finds less than lotsfree or page-out
//! starts, and on again when the maps hold lotsfree besides the most that magazines can hold. So nothing on the fast path
//! adds up counts of other CPUs, and no frame hides while memory is short.
//!
//! # Whoever waits for memory
//!
//! A frame put into a magazine is a free that nobody hears of: a line that tells of every free would be one that every free writes. So while a thread
//! waits no frame goes into a magazine. It goes onto the lists, and whoever puts it there wakes.
//!
//! ```text
//!   sleeper                                        who frees, on CPU c
//!   needfree += n                        (S)       lock magazine c
//!   stock off, if it is on               (S)       stock on? ── yes: into the magazine, unlock: nobody is told
//!   each magazine: lock, empty, unlock                └─ no: unlock; onto the lists, total += 1 (S); needfree? (S) some: wake
//!   sleep while free < n + reserve       (S)
//!
//!                                                  who sees that memory is ample
//!                                                  stock on (S); needfree? (S) ── some: stock off, empty each magazine, wake
//! ```
//!
//! (S) are sequentially consistent. The freer looks at `stock` once more when it has the magazine's lock; it may be an old value. Say it saw it on, and the
//! frame is in magazine c:
//!
//! - The sleeper empties c later. Then it finds the frame, and counts it before it sleeps.
//! - It has emptied c before. Then by c's lock the freer sees of `stock` what the sleeper stored or found (off), or what was stored after that. It saw it on, so
//!   somebody turned it on behind the sleeper's look: store of `stock` after load of `stock` after the sleeper's store of `needfree`, so that one looks at
//!   `needfree` and finds the sleeper. It empties c and wakes; or the frame came into c after that, and the argument begins anew with it in
//!   the place of the sleeper, who emptied c last.
//!
//! Else the frame is on the lists. Either its total comes before the sleeper's look at it, or the sleeper's `needfree` before the freer's look at that
//! (and its announcement at the place where it sleeps before the waker's look there, [`crate::sync::WaitTable`]): it counts the frame, or is woken.
//! Emptying a magazine moves frames from one sum to another; who adds up meanwhile may count too few, so whoever has moved some wakes too.
//!
//! What it costs: a frame freed into a magazine reads `stock` a second time, from a line that is hardly ever written. In illumos each bucket of `freemem` has,
//! beside its count and under its lock, the mark that somebody waits (`pcf_wait`); here one mark serves for all, and is looked at before the frame is put down.
//!
//! - F1: a free page has no vnode, `P_FREE`, no links, and is in exactly one map or in one magazine.
//! - F2: a magazine holds at most frames / (8 x CPUs), never more than 1024, and nothing on machines under 256 frames.
//! - F3: a thread that waits for memory has counted each free frame, or is woken when that frame is freed or moved.
//!
//! # The other roads
//!
//! Lists linked through the pages, as the textbook has them and the cache list still is: no memory of their own, but the misses above, and
//! one more line written for each frame that is put back. A depot of whole magazines, sorted when they come back: constant time
//! too, but each is sorted only within itself, so two frames that lie side by side and were freed an hour apart never meet again. Always the
//! lowest frame instead of a cursor that goes round: a freed frame would be handed out again at once, and a stale
//! look at it would be met more often.
//!
//! Sources: [SI §10.2.7]; illumos.md 7.5.

use crate::cx::Cx;
use crate::frame_map::FrameMaps;
use crate::heap::{self, NoHeap};
use crate::lock::Rank;
use crate::page::{PageArray, PageId};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use crate::sync::{Mutation, PerCpu, SpinMutex, mutated, prefetch_write};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Page sizes that lists exist for.
const SIZES: usize = 1;
/// Frames a magazine takes at once.
const BATCH: usize = 16;

#[derive(Debug)]
struct Magazine {
    frames: SpinMutex<Vec<PageId>>,
    /// Length of `frames`, for sums that take no lock.
    count: AtomicU32,
}

impl Magazine {
    fn note(&self, frames: &[PageId]) {
        self.count.store(frames.len() as u32, Relaxed);
    }
}

/// The free lists.
#[doc(alias("page_freelists", "page_list_add", "page_list_sub"))]
#[derive(Debug)]
pub struct FreeList {
    sizes: Box<[FrameMaps]>,
    magazines: PerCpu<Magazine>,
    /// Most frames a magazine holds (F2).
    magazine_size: usize,
    /// Whether frames may wait in magazines now. Believed under a magazine's lock (F3).
    stock: AtomicBool,
}

impl FreeList {
    /// Empty lists for the structures `pages`, of which `frames` are of memory.
    pub(crate) fn new(
        pages: &PageArray,
        frames: u64,
        cpus: u16,
        colours: u32,
    ) -> Result<Self, NoHeap> {
        let share = frames / (8 * u64::from(cpus.max(1)));
        let magazine_size = if frames < 256 { 0 } else { share.min(1024) as usize };
        let magazine = |_| {
            let frames = SpinMutex::new(Rank::FreeList, heap::room(magazine_size)?);
            Ok(Magazine { frames, count: AtomicU32::new(0) })
        };
        Ok(Self {
            sizes: heap::try_boxed(SIZES, |_| FrameMaps::new(pages, colours))?,
            magazines: PerCpu::try_new(cpus, magazine)?,
            magazine_size,
            stock: AtomicBool::new(false),
        })
    }
    /// Free frames, on lists and in magazines; exact when quiet.
    pub fn count(&self) -> u64 {
        self.sizes[0].total() + self.in_magazines()
    }
    /// Free frames that wait in magazines.
    pub fn in_magazines(&self) -> u64 {
        self.magazines.iter().map(|m| u64::from(m.count.load(Relaxed))).sum()
    }
    /// Most frames one magazine holds; 0 on machines without magazines.
    pub fn magazine_size(&self) -> u64 {
        self.magazine_size as u64
    }
    /// Most frames all magazines together hold.
    pub fn magazines_hold(&self) -> u64 {
        self.magazine_size() * self.magazines.len() as u64
    }
    /// Number of colours.
    pub fn colours(&self) -> u64 {
        self.sizes[0].colours()
    }
    /// Whether frames may wait in magazines now.
    pub(crate) fn stocks(&self) -> bool {
        self.stock.load(Relaxed)
    }
    /// Lets frames wait in magazines while so many are `free` that page-out has nothing to do even if all magazines are full. Says whether they may;
    /// the caller then looks for waiters (F3).
    pub(crate) fn stock_if_ample(&self, free: u64, lotsfree: u64) -> bool {
        let ample = free > lotsfree.saturating_add(self.magazines_hold());
        let on = ample && self.magazine_size > 0;
        self.set_stock(on);
        on // what was set here, whatever another has set since: who turns it on looks
    }
    fn set_stock(&self, on: bool) {
        if self.stock.load(SeqCst) != on {
            self.stock.store(on, SeqCst);
        }
    }
    /// A frame from this CPU's magazine.
    #[inline]
    pub(crate) fn take_magazine(&self, cx: &Cx, pages: &PageArray) -> Option<PageId> {
        if self.magazine_size == 0 {
            return None;
        }
        let m = self.magazines.mine(cx);
        let mut frames = m.frames.lock(cx);
        let id = frames.pop()?;
        if let Some(next) = frames.last() {
            // The next fault writes this line first.
            prefetch_write(pages.get(*next));
        }
        m.note(&frames);
        Some(id)
    }
    /// Frames from this CPU's magazine into `run`, from its front on, as many as there are.
    pub(crate) fn take_magazine_run(&self, cx: &Cx, run: &mut [Option<PageId>]) {
        if self.magazine_size == 0 {
            return;
        }
        let m = self.magazines.mine(cx);
        let mut frames = m.frames.lock(cx);
        for slot in run {
            let Some(id) = frames.pop() else { break };
            *slot = Some(id);
        }
        m.note(&frames);
    }
    /// A frame from the lists, of the wanted colour if possible; the magazine is filled along the way when frames may wait there.
    pub(crate) fn take(&self, cx: &Cx, pages: &PageArray, colour: u64) -> Option<PageId> {
        let id = self.sizes[0].take(cx, pages, colour)?;
        if self.stocks() {
            let m = self.magazines.mine(cx);
            let mut frames = m.frames.lock(cx);
            if !self.stocks() {
                return Some(id); // F3
            }
            let (have, room) = (frames.len(), self.magazine_size.saturating_sub(frames.len()));
            // Taken in ascending order, turned round: the magazine hands them out ascending.
            let next = pages.pfn(id).0 + 1;
            self.sizes[0].take_run(cx, pages, next, BATCH.min(room), &mut frames);
            frames[have..].reverse();
            m.note(&frames);
        }
        Some(id)
    }
    /// Puts nameless pages into this CPU's magazine; takes none of them when frames may not wait there now. A full magazine first
    /// moves its oldest frames to the lists.
    #[inline]
    pub(crate) fn add_magazine(
        &self,
        cx: &Cx,
        pages: &PageArray,
        ids: &mut impl Iterator<Item = PageId>,
    ) {
        if !self.stocks() {
            return;
        }
        let m = self.magazines.mine(cx);
        let mut frames = m.frames.lock(cx);
        if !self.stocks() && !mutated(Mutation::StockBelieved) {
            return; // F3
        }
        for id in ids {
            if frames.len() >= self.magazine_size {
                let oldest = BATCH.min(frames.len());
                self.sizes[0].add_all(cx, pages, frames.drain(..oldest));
            }
            frames.push(id);
        }
        m.note(&frames);
    }
    /// Puts a nameless page into its map.
    pub(crate) fn add(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        self.sizes[0].add(cx, pages, id);
    }
    /// Whether one particular page is in its map.
    pub(crate) fn holds(&self, cx: &Cx, pages: &PageArray, id: PageId) -> bool {
        self.sizes[0].holds(cx, pages, id)
    }
    /// Takes one particular page out of its map, if it is there.
    pub(crate) fn take_this(&self, cx: &Cx, pages: &PageArray, id: PageId) -> bool {
        self.sizes[0].take_this(cx, pages, id)
    }
    /// Empties every magazine onto the lists; none fills again until [`FreeList::stock_if_ample`]. Says whether a frame was moved.
    pub(crate) fn drain(&self, cx: &Cx, pages: &PageArray) -> bool {
        let mut moved = false;
        self.set_stock(false);
        for m in self.magazines.iter() {
            if mutated(Mutation::DrainLetsGo) {
                let seen = m.frames.lock(cx).clone();
                self.sizes[0].add_all(cx, pages, seen.into_iter());
                let mut frames = m.frames.lock(cx);
                frames.clear();
                m.note(&frames);
                continue;
            }
            let mut frames = m.frames.lock(cx);
            if !frames.is_empty() {
                self.sizes[0].add_all(cx, pages, frames.drain(..));
                m.note(&frames);
                moved = true;
            }
        }
        moved
    }
    pub(crate) fn broken_link(&self, cx: &Cx, pages: &PageArray) -> Option<PageId> {
        self.sizes.iter().find_map(|s| s.broken_link(cx, pages))
    }
    /// The lists by colour, for checks and views.
    pub(crate) fn snapshot(&self, cx: &Cx, pages: &PageArray) -> Vec<Vec<PageId>> {
        self.sizes[0].snapshot(cx, pages)
    }
    /// The magazines by CPU, for checks and views.
    pub(crate) fn magazines(&self, cx: &Cx) -> Vec<Vec<PageId>> {
        self.magazines.iter().map(|m| m.frames.lock(cx).clone()).collect()
    }
}

/// Damage, for tests of `verify`.
impl FreeList {
    pub(crate) fn lose(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        self.sizes[0].take_this(cx, pages, id);
    }
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn add_uncounted(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        self.sizes[0].add_uncounted(cx, pages, id);
    }
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn stuff_magazine(&self, cx: &Cx, id: PageId) {
        let m = self.magazines.mine(cx);
        let mut frames = m.frames.lock(cx);
        frames.push(id);
        m.note(&frames);
    }
}
