//! Numbers of anons, the names computed from them, and the word kept for each.
//!
//! ```text
//!   number   31          10 9         0
//!            [ vnode index ][ page    ]      identity = (vnode number of index, page * PAGESIZE)
//! ```
//!
//! The high bits choose one of many vnodes of 1024 pages each, made as they are needed. A CPU that runs out of numbers takes a whole
//! vnode for itself, so two CPUs that touch new memory at the same time put their pages on different vnode lists and set
//! different words. Within a CPU numbers ascend, and a freed number is the next one used.
//!
//! ```text
//!   alloc   the CPU's free numbers, last freed first ─▶ the depot's, if it has any ─▶ the CPU's fresh run ─▶ a new vnode ─▶ another CPU's
//!   free    the CPU's free numbers; above 1024 the oldest 512 go to the depot
//! ```
//!
//! - Q1: 0 is no number.
//! - Q2: a number is in exactly one place: live, on one CPU's stack, in one CPU's fresh run, in the depot, or not yet made.
//!   In the depot it is in a list that runs through the words of its numbers, whose links are in the bits of a word that no dead one uses.
//! - Q3: on one CPU the order is that of one stack; runs repeat exactly.
//! - Q4: a vnode is made, and the heap asked, with neither stack nor depot held (N1 of [`page_db::sync::spin`]): whoever finds no number lets go
//!   of them, makes a vnode if no other has meanwhile, and looks again.
//!
//! The word of a number says whether it lives and where its page is stored ([`Place`]), so "install this slot if the anon still lives"
//! is one compare-and-swap (W1). The road not taken is illumos's: the name is the structure's *address*, which needs no
//! allocator, and prints differently on every run.

use crate::area::{AreaId, PhysSlot};
use crate::error::SwapError;
use crate::vnode::SwapVnode;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;
use core::ops::Range;
use page_db::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use page_db::sync::grow::filled;
use page_db::sync::{GrowTable, Mutex, Once, PerCpu, SpinMutex};
use page_db::{Cx, FileOffset, Identity, PageId, Rank, VnodeId};

/// log2 of the pages of one swap vnode.
pub const VNODE_SHIFT: u32 = 10;
/// Pages of one swap vnode.
pub const VNODE_PAGES: u32 = 1 << VNODE_SHIFT;
/// Free numbers a CPU keeps at most; half of them move at a time.
const STACK: usize = 1024;

/// One anon's number; never 0.
#[doc(alias = "anon")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct AnonNumber(NonZeroU32);

impl AnonNumber {
    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
    /// The anon a non-zero number stands for; `None` for 0.
    pub const fn from_raw(n: u32) -> Option<Self> {
        match NonZeroU32::new(n) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }
    /// Which swap vnode the page belongs to (an index, not the vnode's number).
    pub const fn vnode_index(self) -> u32 {
        self.get() >> VNODE_SHIFT
    }
    /// Where in that vnode, in bytes.
    pub const fn offset(self) -> FileOffset {
        FileOffset(((self.get() & (VNODE_PAGES - 1)) as u64) << page_db::PAGE_SHIFT)
    }
    /// The anon whose page lies at `offset` of the swap vnode `index`; `None` past the vnode's end and for the page of number 0.
    pub fn at(index: u32, offset: FileOffset) -> Option<Self> {
        let page = u32::try_from(offset.page_index()).ok().filter(|p| *p < VNODE_PAGES)?;
        (index < 1 << (32 - VNODE_SHIFT)).then(|| Self::from_raw(index << VNODE_SHIFT | page))?
    }
}

impl fmt::Display for AnonNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the bytes of an anon that is not in memory are (`an_pvp`, `an_poff`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The number is nobody's.
    Dead,
    /// Nowhere: the page is in memory, or was never written.
    Nowhere,
    /// In a slot.
    At(PhysSlot),
    /// Lost: this slot could not be read.
    Bad(PhysSlot),
    /// In a page that it has on loan ([`crate::borrow`]).
    Borrowed(PageId),
}

const LIVE: u64 = 1 << 63;
const BAD: u64 = 1 << 62;
const HAS: u64 = 1 << 61;
const BORROWED: u64 = 1 << 60;

impl Place {
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Dead => 0,
            Self::Nowhere => LIVE,
            Self::Bad(s) => LIVE | BAD | u64::from(s.area.0) << 32 | u64::from(s.index),
            Self::At(s) => LIVE | HAS | u64::from(s.area.0) << 32 | u64::from(s.index),
            Self::Borrowed(page) => LIVE | BORROWED | u64::from(page.link()),
        }
    }
    pub(crate) fn of_word(w: u64) -> Self {
        let slot = PhysSlot { area: AreaId((w >> 32) as u32 & AreaId::MAX.0), index: w as u32 };
        if w & LIVE == 0 {
            Self::Dead
        } else if w & BAD != 0 {
            Self::Bad(slot)
        } else if w & HAS != 0 {
            Self::At(slot)
        } else if w & BORROWED != 0 {
            PageId::of_link(w as u32).map_or(Self::Nowhere, Self::Borrowed)
        } else {
            Self::Nowhere
        }
    }
    /// The slot that its bytes are in, if there is one.
    pub fn slot(self) -> Option<PhysSlot> {
        if let Self::At(s) = self { Some(s) } else { None }
    }
    /// The page on loan, if there is one.
    pub fn lender(self) -> Option<PageId> {
        if let Self::Borrowed(page) = self { Some(page) } else { None }
    }
}

/// One swap vnode and the words of its pages.
pub(crate) struct Vnode {
    /// The vnode's number, kept here to be near the words.
    pub(crate) id: VnodeId,
    /// The table of vnodes holds it weakly; this keeps it.
    _object: Arc<SwapVnode>,
    pub(crate) words: Box<[AtomicU64]>,
}

#[derive(Default)]
struct Stack {
    free: Vec<u32>,
    fresh: Range<u32>,
}

impl Stack {
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| self.fresh.next())
    }
}

struct PerCpuNames {
    stack: SpinMutex<Stack>,
    /// Numbers handed out less numbers given back here, wrapping; written under the stack's lock.
    live: AtomicU64,
    /// Largest number handed out from a fresh run.
    high: AtomicU32,
}

impl PerCpuNames {
    /// Adds `n` (wrapping) to the numbers handed out here. The caller holds the stack.
    fn count(&self, n: u64) {
        self.live.store(self.live.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

struct Depot {
    /// The number that came last, 0 for none.
    first: u32,
    len: u64,
    /// Vnodes whose numbers have been handed to a CPU.
    vnodes: u32,
}

/// All numbers.
pub(crate) struct Names {
    limit: u32,
    cpus: PerCpu<PerCpuNames>,
    depot: SpinMutex<Depot>,
    /// Held by the one thread that makes a vnode, and by nobody who holds a stack or the depot.
    making: Mutex<()>,
    /// Length of the depot, to pass it by without its lock.
    spare: AtomicU64,
    vnodes: GrowTable<Once<Vnode>, 6>,
    made: AtomicU32,
    /// By vnode number: index + 1.
    index_of: GrowTable<AtomicU32, 6>,
}

impl Names {
    /// No numbers yet; at most `limit` of them ever.
    pub(crate) fn new(cpus: u16, limit: u32) -> Self {
        let cpu = |_| PerCpuNames {
            // Room for all it ever has: numbers come back where nothing may fail.
            stack: SpinMutex::new(
                Rank::SwapNames,
                Stack { free: Vec::with_capacity(STACK), ..Stack::default() },
            ),
            live: AtomicU64::new(0),
            high: AtomicU32::new(0),
        };
        Self {
            limit: limit.min(u32::MAX - 1),
            cpus: PerCpu::new(cpus, cpu),
            depot: SpinMutex::new(Rank::SwapNames, Depot { first: 0, len: 0, vnodes: 0 }),
            making: Mutex::new(Rank::SwapNames, ()),
            spare: AtomicU64::new(0),
            vnodes: GrowTable::new(),
            made: AtomicU32::new(0),
            index_of: GrowTable::new(),
        }
    }

    /// Hands out a number and makes it live, with its page nowhere, and says the page's name. `make` makes the vnode of an index.
    #[inline(always)] // into whoever makes an anon
    pub(crate) fn alloc(
        &self,
        cx: &Cx,
        make: impl Fn(u32) -> Result<Arc<SwapVnode>, SwapError>,
    ) -> Result<(AnonNumber, Identity), SwapError> {
        let cpu = self.cpus.mine(cx);
        let raw = match self.draw(cx, cpu, &make)? {
            Some(raw) => raw,
            None => self.steal(cx).ok_or_else(|| SwapError::NoNames { live: self.live() })?,
        };
        let n = AnonNumber::from_raw(raw).expect("Q1: 0 is no number");
        if cpu.high.load(Ordering::Relaxed) < raw {
            cpu.high.fetch_max(raw, Ordering::Release);
        }
        let vnode = self.vnode(n.vnode_index()).expect("Q2: numbers come from made vnodes");
        let word = &vnode.words[(raw & (VNODE_PAGES - 1)) as usize];
        debug_assert_eq!(word.load(Ordering::Relaxed) & LIVE, 0, "W4: a free number is dead");
        // Nobody changes the word of a number that is not live (W4), and nobody learns of this one before it is in a slot.
        word.store(Place::Nowhere.to_word(), Ordering::Release);
        Ok((n, Identity::new(vnode.id, n.offset())))
    }
    /// A number from this CPU's stack or fresh run, filled up if need be; `None` when nothing is left there.
    #[inline]
    fn draw(
        &self,
        cx: &Cx,
        cpu: &PerCpuNames,
        make: &impl Fn(u32) -> Result<Arc<SwapVnode>, SwapError>,
    ) -> Result<Option<u32>, SwapError> {
        match self.draw_made(cx, cpu) {
            Some(raw) => Ok(Some(raw)),
            None => self.draw_more(cx, cpu, make),
        }
    }
    /// A number of a vnode that has been made.
    #[inline]
    fn draw_made(&self, cx: &Cx, cpu: &PerCpuNames) -> Option<u32> {
        let mut stack = cpu.stack.lock(cx);
        let ready = !stack.free.is_empty()
            || (self.spare.load(Ordering::Relaxed) == 0 && !stack.fresh.is_empty());
        if !ready && !self.restock(cx, &mut stack) {
            return None;
        }
        let raw = stack.take()?;
        cpu.count(1);
        Some(raw)
    }
    #[cold]
    fn draw_more(
        &self,
        cx: &Cx,
        cpu: &PerCpuNames,
        make: &impl Fn(u32) -> Result<Arc<SwapVnode>, SwapError>,
    ) -> Result<Option<u32>, SwapError> {
        while self.grow(cx, make)? {
            if let Some(raw) = self.draw_made(cx, cpu) {
                return Ok(Some(raw));
            }
        }
        Ok(None)
    }
    /// Numbers from the depot, else the fresh run, else a vnode that has been made; says whether there is one now. held: the stack
    #[cold]
    fn restock(&self, cx: &Cx, stack: &mut Stack) -> bool {
        let mut depot = self.depot.lock_nested(cx); // the CPU's stack before the depot
        if depot.first != 0 {
            while stack.free.len() < STACK / 2 && depot.first != 0 {
                stack.free.push(depot.first); // it was empty, and has room for all it ever has
                depot.first = self.after(depot.first);
                depot.len -= 1;
            }
            stack.free.reverse(); // the last that came goes first
            self.spare.store(depot.len, Ordering::Relaxed);
            return true;
        }
        if stack.fresh.is_empty() && depot.vnodes < self.vnodes_made() {
            stack.fresh = self.run(depot.vnodes);
            depot.vnodes += 1;
        }
        !stack.fresh.is_empty()
    }
    /// Makes one vnode more, and room for its numbers to come back; `false` when all have been made. held: nothing (Q4)
    #[cold]
    fn grow(
        &self,
        cx: &Cx,
        make: &impl Fn(u32) -> Result<Arc<SwapVnode>, SwapError>,
    ) -> Result<bool, SwapError> {
        let _making = self.making.lock(cx);
        let index = self.vnodes_made();
        if self.depot.lock_nested(cx).vnodes < index {
            return Ok(true); // made by another CPU meanwhile
        }
        if self.run(index).is_empty() {
            return Ok(false);
        }
        self.make_vnode(index, make)?;
        Ok(true)
    }
    /// The number behind `raw` in the depot's list, 0 at its end. held: the depot
    fn after(&self, raw: u32) -> u32 {
        self.word_of(raw).map_or(0, |w| w.load(Ordering::Relaxed) as u32)
    }
    fn word_of(&self, raw: u32) -> Option<&AtomicU64> {
        self.word(AnonNumber::from_raw(raw)?)
    }
    /// The numbers of a vnode; empty past the limit.
    fn run(&self, index: u32) -> Range<u32> {
        let end = u64::from(self.limit) + 1;
        let at = |i: u64| (i << VNODE_SHIFT).min(end).max(1) as u32;
        at(u64::from(index))..at(u64::from(index) + 1)
    }
    /// held: the making lock
    fn make_vnode(
        &self,
        index: u32,
        make: impl Fn(u32) -> Result<Arc<SwapVnode>, SwapError>,
    ) -> Result<(), SwapError> {
        let no_heap = || SwapError::NoHeap { what: "words of a swap vnode" };
        let place = self.vnodes.ensure(index).ok_or_else(no_heap)?;
        let words = filled(VNODE_PAGES as usize).ok_or_else(no_heap)?;
        let object = make(index)?;
        let back = self.index_of.ensure(object.number().0).ok_or_else(no_heap)?;
        back.store(index + 1, Ordering::Release);
        let _ = place.set(Vnode { id: object.number(), _object: object, words }); // the making lock makes us the only one
        self.made.store(index + 1, Ordering::Release);
        Ok(())
    }
    /// Makes the vnode of the first numbers ahead of need, so that its own number does not depend on who touches memory first.
    pub(crate) fn first_vnode(
        &self,
        cx: &Cx,
        make: impl Fn(u32) -> Result<Arc<SwapVnode>, SwapError>,
    ) -> Result<(), SwapError> {
        let _making = self.making.lock(cx);
        self.make_vnode(0, make)
    }
    /// A number from another CPU, when everything else is used up.
    #[cold]
    fn steal(&self, cx: &Cx) -> Option<u32> {
        self.cpus.iter().find_map(|c| {
            let raw = c.stack.lock(cx).take()?;
            c.count(1);
            Some(raw)
        })
    }
    /// Gives dead numbers back, one after the other.
    pub(crate) fn free_run(&self, cx: &Cx, dead: &[AnonNumber]) {
        let cpu = self.cpus.mine(cx);
        let mut stack = cpu.stack.lock(cx);
        cpu.count((dead.len() as u64).wrapping_neg());
        for n in dead {
            if stack.free.len() >= STACK {
                let mut depot = self.depot.lock_nested(cx);
                for raw in stack.free.drain(..STACK / 2) {
                    if let Some(word) = self.word_of(raw) {
                        word.store(u64::from(depot.first), Ordering::Relaxed);
                        depot.first = raw;
                        depot.len += 1;
                    }
                }
                self.spare.store(depot.len, Ordering::Relaxed);
            }
            stack.free.push(n.get());
        }
    }

    /// Numbers handed out and not given back; exact when quiet.
    pub(crate) fn live(&self) -> u64 {
        self.cpus.iter().fold(0, |n, c| n.wrapping_add(c.live.load(Ordering::Relaxed)))
    }
    /// The largest number ever handed out, 0 before the first.
    pub(crate) fn high(&self) -> u32 {
        self.cpus.iter().map(|c| c.high.load(Ordering::Acquire)).max().unwrap_or(0)
    }
    /// Vnodes made so far.
    pub(crate) fn vnodes_made(&self) -> u32 {
        self.made.load(Ordering::Acquire)
    }
    pub(crate) fn vnode(&self, index: u32) -> Option<&Vnode> {
        self.vnodes.get(index)?.get()
    }
    fn word(&self, n: AnonNumber) -> Option<&AtomicU64> {
        let vnode = self.vnode(n.vnode_index())?;
        vnode.words.get((n.get() & (VNODE_PAGES - 1)) as usize)
    }
    /// The name of a number's page. A number never handed out gets a name that no page has.
    pub(crate) fn identity(&self, n: AnonNumber) -> Identity {
        let vnode = self.vnode(n.vnode_index()).map_or(VnodeId(0), |v| v.id);
        Identity::new(vnode, n.offset())
    }
    /// The number whose page is named `id`.
    pub(crate) fn number_of(&self, id: Identity) -> Option<AnonNumber> {
        let index = self.index_of.get(id.vnode.0)?.load(Ordering::Acquire).checked_sub(1)?;
        AnonNumber::at(index, id.offset)
    }

    /// What the number's word says.
    #[inline]
    pub(crate) fn place(&self, n: AnonNumber) -> Place {
        self.word(n).map_or(Place::Dead, |w| Place::of_word(w.load(Ordering::SeqCst)))
    }
    /// Replaces `from` by `to`; says whether the word still said `from` (W1).
    pub(crate) fn change(&self, n: AnonNumber, from: Place, to: Place) -> bool {
        let (from, to) = (from.to_word(), to.to_word());
        self.word(n).is_some_and(|w| {
            w.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        })
    }
    /// Makes the number dead and says what its word said.
    pub(crate) fn kill(&self, n: AnonNumber) -> Place {
        let live = |w: u64| (w & LIVE != 0).then_some(0); // a dead one may be in the depot's list
        let word = self.word(n).map(|w| w.fetch_update(Ordering::SeqCst, Ordering::SeqCst, live));
        word.and_then(Result::ok).map_or(Place::Dead, Place::of_word)
    }
    /// The numbers from `first` on that are not dead, ascending, with what their words say.
    pub(crate) fn walk(&self, first: u32) -> impl Iterator<Item = (AnonNumber, Place)> + '_ {
        let skip = first & (VNODE_PAGES - 1);
        (first >> VNODE_SHIFT..self.vnodes_made())
            .filter_map(|i| Some((i, self.vnode(i)?)))
            .flat_map(move |(i, v)| {
                let skip = if i == first >> VNODE_SHIFT { skip as usize } else { 0 };
                v.words.iter().enumerate().skip(skip).map(move |(p, w)| (i, p as u32, w))
            })
            .filter_map(|(i, p, w)| match w.load(Ordering::SeqCst) {
                w if w & LIVE == 0 => None,
                w => Some((AnonNumber::from_raw(i << VNODE_SHIFT | p)?, Place::of_word(w))),
            })
    }
    /// Every number that is free or fresh, in no order, for checks.
    pub(crate) fn unused(&self, cx: &Cx) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.made_numbers(cx) as usize); // before the locks (Q4)
        {
            let depot = self.depot.lock(cx);
            let mut raw = depot.first;
            while raw != 0 {
                all.push(raw);
                raw = self.after(raw);
            }
        }
        for c in self.cpus.iter() {
            let stack = c.stack.lock(cx);
            all.extend_from_slice(&stack.free);
            all.extend(stack.fresh.clone());
        }
        all
    }
    /// Numbers that exist: live, free or fresh.
    pub(crate) fn made_numbers(&self, cx: &Cx) -> u64 {
        let drawn = self.depot.lock(cx).vnodes;
        (0..drawn).map(|i| self.run(i).len() as u64).sum()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("live", &self.live())
            .field("high", &self.high())
            .finish_non_exhaustive()
    }
}
