//! One structure for each frame: the textbook's `page_t`, in one cache line.
//!
//! ```text
//!   p_vnode/p_offset   identity, or none              excl lock + bucket lock to change; page lock or bucket lock to read
//!   p_hash             link in the hash chain          bucket lock; walked without it (a hint, checked afterwards)
//!   p_vpnext/p_vpprev  the vnode's page list           the vnode's list lock
//!   p_next/p_prev      free or cache list              that list's lock
//!   p_mapping ...      who maps it                     a bit of itself, the hat's
//!   p_selock           shared / exclusive              itself
//!   p_iolock           contents in transit             excl lock to take, anyone may release
//!   p_lckcnt, p_cowcnt claims that keep it in memory   page lock; compare-and-swap
//!   loan_count         who reads it besides its owner  exclusive lock to begin; see `db::lend`
//!   p_nrm              referenced, modified            atomic
//! ```
//!
//! Links are ids into the one array; 0 means none. The structure is never freed, so an id is always safe to look at.
//!
//! - P1: exactly one of: free (no vnode, `P_FREE`, on a free list or in a magazine), cached (vnode, `P_FREE`, hashed, on a cache
//!   list), named (vnode, hashed, not `P_FREE`), unnamed (neither, held by somebody; or retired, or no memory at all).
//! - P2: a page on the free or cache list has no mapping, no claim and no loan.
//!
//! Sources: [SI §10.2, Figs. 10.2, 10.3]; illumos `vm/page.h`.

use crate::cx::Cx;
use crate::db::{Claims, Era};
use crate::heap;
use crate::mappings::RefMod;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::sync::word::TAKEN;
use crate::sync::{Mutation, mutated, spin_wait};
use crate::units::{FileOffset, Pfn};
use crate::vnode::{Identity, VnodeId};
use alloc::boxed::Box;
use core::fmt;

/// Names a page structure, hence a frame: its index in the array plus one. 0 is "none" in links and never a `PageId`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct PageId(pub(crate) u32);

impl PageId {
    pub(crate) fn from_link(link: u32) -> Option<Self> {
        (link != 0).then_some(Self(link))
    }
    /// The number kept in links: never 0.
    pub const fn link(self) -> u32 {
        self.0
    }
    /// The id a non-zero link stands for; `None` for 0.
    pub const fn of_link(link: u32) -> Option<Self> {
        if link == 0 { None } else { Some(Self(link)) }
    }
}
impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

bitflags::bitflags! {
    /// `p_state`.
    #[doc(alias = "p_state")]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PageState: u8 {
        /// On the free list, in a magazine, or on the cache list.
        #[doc(alias = "P_FREE")]
        const FREE = 0x80;
        /// The identity is a swapfs name.
        #[doc(alias = "P_SWAP")]
        const SWAP = 0x10;
        /// Holds page tables or kernel memory: never scanned.
        const KERNEL = 0x08;
        /// Given to a device by [`crate::PageDb::set_device`], and the kernel's: users may map the frame, though it has no name.
        const DEVICE = 0x04;
        /// Out of service ([`crate::PageDb::retire`]).
        const RETIRED = 0x02;
        /// No memory is there ([`crate::PhysMem::is_memory`]).
        const ABSENT = 0x01;
    }
}

/// In [`Page::loans`]: the page has lost its name, and the last loan frees it.
pub(crate) const ORPHAN: u32 = 1 << 31;

/// The page structure.
#[doc(alias("page_t", "p_hash", "p_vpnext", "p_vpprev", "p_next", "p_prev"))]
#[repr(C, align(64))]
pub struct Page {
    pub(crate) selock: AtomicU32,
    pub(crate) vnode: AtomicU32,
    /// Offset of the identity, in pages.
    pub(crate) offset: AtomicU64,
    pub(crate) hash_next: AtomicU32,
    pub(crate) vp_next: AtomicU32,
    pub(crate) vp_prev: AtomicU32,
    pub(crate) next: AtomicU32,
    pub(crate) prev: AtomicU32,
    /// For the hat: number of mappings.
    pub(crate) share: AtomicU32,
    /// `p_lckcnt`, `p_cowcnt` and the era they are of ([`crate::db`], `claim`).
    pub(crate) claims: AtomicU64,
    /// For the hat: who maps the page ([`MapWord`]), and the lock of that list.
    pub(crate) mapping: AtomicU64,
    /// Loans, and whether the owner has gone ([`crate::db`], `lend`).
    pub(crate) loans: AtomicU32,
    pub(crate) iolock: AtomicU8,
    pub(crate) state: AtomicU8,
    pub(crate) nrm: AtomicU8,
}

const _: () = assert!(size_of::<Page>() <= 64, "D8: a page structure is one cache line");

impl Default for Page {
    fn default() -> Self {
        Self {
            selock: AtomicU32::new(0),
            vnode: AtomicU32::new(0),
            offset: AtomicU64::new(0),
            hash_next: AtomicU32::new(0),
            vp_next: AtomicU32::new(0),
            vp_prev: AtomicU32::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
            share: AtomicU32::new(0),
            claims: AtomicU64::new(0),
            mapping: AtomicU64::new(0),
            loans: AtomicU32::new(0),
            iolock: AtomicU8::new(0),
            state: AtomicU8::new(0),
            nrm: AtomicU8::new(0),
        }
    }
}

impl Page {
    /// The identity now. Stable under the page lock; a hint otherwise.
    #[doc(alias("p_vnode", "p_offset"))]
    #[inline]
    pub fn identity(&self) -> Option<Identity> {
        let vnode = self.vnode.load(Ordering::Acquire);
        (vnode != 0).then(|| Identity {
            vnode: VnodeId(vnode),
            offset: FileOffset::of_page(self.offset.load(Ordering::Relaxed)).unwrap_or_default(),
        })
    }
    /// Whether the page has an identity now. Stable under the page lock; a hint otherwise.
    #[inline]
    pub fn is_named(&self) -> bool {
        self.vnode.load(Ordering::Acquire) != 0
    }
    /// Whether the page carries `id` now, a hint unless the page is locked.
    #[inline]
    pub fn is(&self, id: Identity) -> bool {
        self.vnode.load(Ordering::Acquire) == id.vnode.0
            && self.offset.load(Ordering::Relaxed) == id.offset.page_index()
    }
    /// Gives the page a name or takes it; for implementations of [`crate::PageHash`], which do it together with filing the page (H4).
    pub fn set_identity(&self, id: Option<Identity>) {
        match id {
            Some(i) => {
                self.offset.store(i.offset.page_index(), Ordering::Relaxed);
                self.vnode.store(i.vnode.0, Ordering::Release);
            }
            None => {
                if !self.is_claimed() {
                    self.claims.store(0, Ordering::Relaxed); // nor is there an era any more (Q4)
                }
                self.vnode.store(0, Ordering::Release);
            }
        }
    }
    /// `p_state`.
    pub fn state(&self) -> PageState {
        PageState::from_bits_truncate(self.state.load(Ordering::Acquire))
    }
    pub(crate) fn set_state(&self, on: PageState, off: PageState) {
        // Only the exclusive holder changes the state, so a load and a store suffice.
        let s = self.state.load(Ordering::Relaxed);
        self.state.store((s & !off.bits()) | on.bits(), Ordering::Release);
    }
    /// Whether the page is on a free or cache list.
    #[doc(alias("PP_ISFREE", "page_isfree"))]
    pub fn is_free(&self) -> bool {
        self.state().contains(PageState::FREE)
    }
    /// Referenced and modified as kept on the page; translations may hold newer bits.
    #[doc(alias("hat_page_getattr", "p_nrm", "page_isref", "page_ismod"))]
    pub fn ref_mod(&self) -> RefMod {
        RefMod::from_bits_truncate(self.nrm.load(Ordering::Acquire))
    }
    /// Adds bits. Whoever has stored to the page, whichever way it is locked, says so afterwards with `MOD`: a write of the page that begins later has what was
    /// stored, and after one that began earlier the page is modified.
    #[doc(alias("hat_page_setattr", "hat_setmod", "hat_setref", "hat_setrefmod"))]
    pub fn set_ref_mod(&self, bits: RefMod) {
        if bits.contains(RefMod::MOD) {
            // Also of a page that is modified already: a look at the bit could come before the stores, and miss that it was taken away in between.
            self.nrm.fetch_or(bits.bits(), Ordering::AcqRel);
        } else {
            self.gather_ref_mod(bits);
        }
    }
    /// Adds bits that were found in a translation, and taken from it by an exchange: what the processor stored before that comes before this.
    ///
    /// The look is sequentially consistent, as [`Page::clear_ref_mod`]'s change is: whoever gathers has noted the flush that he owes before, and who clears looks
    /// for such notes afterwards, so that one of the two sees the other (V2 of [`crate::pvn`]).
    pub fn gather_ref_mod(&self, bits: RefMod) {
        if self.nrm.load(Ordering::SeqCst) & bits.bits() != bits.bits() {
            self.nrm.fetch_or(bits.bits(), Ordering::AcqRel);
        }
    }
    /// Adds bits to a page that is exclusively locked and not mapped: nobody else changes them then.
    pub(crate) fn set_ref_mod_alone(&self, bits: RefMod) {
        let have = self.nrm.load(Ordering::Relaxed);
        self.nrm.store(have | bits.bits(), Ordering::Release);
    }
    /// Takes bits away.
    #[doc(alias = "hat_page_clrattr")]
    pub fn clear_ref_mod(&self, bits: RefMod) {
        if self.ref_mod().intersects(bits) {
            self.nrm.fetch_and(!bits.bits(), Ordering::SeqCst);
        }
    }
    /// Takes all bits from a page that is exclusively locked. Where it is not mapped either, nobody else changes them, and a store will do: what its last
    /// translation had it was given before that went (M3 of the hat), and whoever ends a transit has the page locked.
    pub(crate) fn forget_ref_mod(&self) {
        if self.is_mapped() {
            self.clear_ref_mod(RefMod::all());
        } else {
            self.nrm.store(0, Ordering::Release);
        }
    }
    /// Whether any translation exists (as the hat keeps it).
    #[doc(alias = "hat_page_is_mapped")]
    pub fn is_mapped(&self) -> bool {
        self.mapping.load(Ordering::Acquire) != 0
    }
    /// Claims through shared or read-only mappings (`p_lckcnt`).
    #[doc(alias = "p_lckcnt")]
    pub fn lckcnt(&self) -> u16 {
        self.claims().lck
    }
    /// Claims through private writable mappings (`p_cowcnt`).
    #[doc(alias = "p_cowcnt")]
    pub fn cowcnt(&self) -> u16 {
        self.claims().cow
    }
    /// The era of the page's claims, if it was ever claimed under its name.
    pub fn claim_era(&self) -> Option<Era> {
        self.claims().era
    }
    pub(crate) fn claims(&self) -> Claims {
        Claims::from_word(self.claims.load(Ordering::Acquire))
    }
    /// Whether any claim keeps the page in memory.
    pub fn is_claimed(&self) -> bool {
        !self.claims().is_none()
    }
    /// How many loans of the page are out ([`crate::PageDb::lend`]).
    #[doc(alias = "loan_count")]
    pub fn loans(&self) -> u32 {
        self.loans.load(Ordering::Acquire) & !ORPHAN
    }
    /// Whether anybody has the page on loan: then nobody may store to it. Does not become true while somebody holds the page's lock.
    #[inline]
    pub fn is_lent(&self) -> bool {
        self.loans.load(Ordering::Acquire) != 0
    }
    /// Whether the page is lent and its owner has gone or taken another page for it: it has no name, and ends with the last loan.
    pub fn is_orphan(&self) -> bool {
        self.loans.load(Ordering::Acquire) & ORPHAN != 0
    }
    /// Whether the page must stay in memory: claimed, or lent.
    #[inline]
    pub fn is_kept(&self) -> bool {
        self.is_claimed() || self.is_lent()
    }
    /// The hat's words on this page.
    pub fn mapping(&self) -> PageMapping<'_> {
        PageMapping { page: self }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page")
            .field("identity", &self.identity())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Who maps a page, in one word: `p_mapping`, `p_mlentry` and `p_embed`. Its top bit is the list's lock ([`crate::sync::word`]).
///
/// ```text
///   63      48         47..32         31..0
///  ┌───────┬──────────┬──────────────┬──────────────────────────────┐
///  │ taken │ embedded │ entry        │ a table's id, if embedded;   │
///  │       │          │              │ else the first hment's       │
///  └───────┴──────────┴──────────────┴──────────────────────────────┘
/// ```
#[doc(alias("p_mapping", "p_mlentry", "p_embed"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapWord(pub u64);

impl MapWord {
    const EMBEDDED: u64 = 1 << 48;
    /// No mapping.
    pub const NONE: Self = Self(0);

    /// The one mapping by entry `entry` of table `table`.
    #[inline]
    pub const fn embedded(table: u32, entry: u16) -> Self {
        Self(Self::EMBEDDED | (entry as u64) << 32 | table as u64)
    }
    /// A list that begins with record `first`; none for 0.
    #[inline]
    pub const fn list(first: u32) -> Self {
        Self(first as u64)
    }
    /// `p_mapping`: an id of the hat's, 0 for none.
    #[inline]
    pub const fn head(self) -> u32 {
        self.0 as u32
    }
    /// `p_mlentry`.
    #[inline]
    pub const fn entry(self) -> u16 {
        (self.0 >> 32) as u16
    }
    /// `p_embed`: the single mapping is in the page itself.
    #[inline]
    pub const fn is_embedded(self) -> bool {
        self.0 & Self::EMBEDDED != 0
    }
}

/// The fields of a page that belong to the hat (`p_mapping`, `p_mlentry`, `p_share`, `p_embed`), guarded by the lock in
/// [`MapWord`]. A frame that holds a page table keeps its table's id there instead: such a page is never mapped. It is the kernel's
/// ([`PageState::KERNEL`]) before it has the id and until it has none; so who took the lock for a list's, by an old id of the page, can tell.
#[derive(Clone, Copy, Debug)]
pub struct PageMapping<'a> {
    page: &'a Page,
}

impl<'a> PageMapping<'a> {
    /// The word.
    #[inline]
    pub fn cell(&self) -> &'a AtomicU64 {
        &self.page.mapping
    }
    /// What the word says now, without the lock.
    #[inline]
    pub fn word(&self) -> MapWord {
        MapWord(self.page.mapping.load(Ordering::Acquire) & !TAKEN)
    }
    /// `p_mapping`: an id of the hat's, 0 for none.
    pub fn head(&self) -> u32 {
        self.word().head()
    }
    /// Sets `p_mapping` of a page that nobody maps. Waits for whoever has the word, and would put back what it was.
    pub fn set_head(&self, cx: &Cx, id: u32) {
        if mutated(Mutation::HeadStoredOver) {
            return self.page.mapping.store(MapWord::list(id).0, Ordering::Release);
        }
        // Nothing is done under the lock, so it is not taken: a compare-and-swap from an untaken value will do.
        let (cell, mut turns) = (self.cell(), 0);
        let swap = |v: u64| (v & TAKEN == 0).then_some(MapWord::list(id).0);
        while cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, swap).is_err() {
            spin_wait(cx, turns);
            turns = u32::saturating_add(turns, 1);
        }
    }
    /// `p_mlentry`.
    pub fn entry(&self) -> u16 {
        self.word().entry()
    }
    /// `p_embed`: the single mapping is in the page itself.
    pub fn is_embedded(&self) -> bool {
        self.word().is_embedded()
    }
    /// Makes the single mapping name another entry, as a test's damage.
    #[doc(hidden)]
    pub fn set_entry(&self, entry: u16) {
        let word = MapWord::embedded(self.head(), entry);
        self.page.mapping.store(word.0, Ordering::Release);
    }
    /// `p_share`: mappings on the list (0 while embedded).
    #[doc(alias = "p_share")]
    pub fn share(&self) -> u32 {
        self.page.share.load(Ordering::Acquire)
    }
    /// How many mappings `word` stands for, if it is this page's; without the list's lock a hint.
    #[doc(alias = "hat_page_getshare")]
    pub fn count(&self, word: MapWord) -> u32 {
        match word {
            MapWord::NONE => 0,
            word if word.is_embedded() => 1,
            _ => self.share(),
        }
    }
    /// Sets `p_share`.
    pub fn set_share(&self, n: u32) {
        self.page.share.store(n, Ordering::Release);
    }
}

/// All page structures, one for each frame from `base` on.
#[derive(Debug)]
pub struct PageArray {
    base: Pfn,
    pages: Box<[Page]>,
}

impl PageArray {
    /// Structures of `frames` frames from `base` on, none of them named or listed; `None` when there are more than ids, or no heap.
    pub fn new(base: Pfn, frames: u64) -> Option<Self> {
        let n = usize::try_from(frames).ok().filter(|n| *n < u32::MAX as usize)?;
        base.0.checked_add(frames)?;
        Some(Self { base, pages: heap::boxed(n, |_| Page::default()).ok()? })
    }
    /// The structure named `id`.
    #[inline]
    pub fn get(&self, id: PageId) -> &Page {
        &self.pages[id.0 as usize - 1]
    }
    /// The frame `id` stands for.
    #[doc(alias = "page_pptonum")]
    #[inline]
    pub fn pfn(&self, id: PageId) -> Pfn {
        Pfn(self.base.0 + u64::from(id.0) - 1)
    }
    /// The structure of a frame; `None` for those outside. Whether there is memory in it: [`crate::PageDb::page_of`].
    #[doc(alias = "page_numtopp_nolock")]
    #[inline]
    pub fn of_pfn(&self, pfn: Pfn) -> Option<PageId> {
        let i = pfn.0.checked_sub(self.base.0)?;
        (i < self.pages.len() as u64).then(|| PageId(i as u32 + 1))
    }
    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "a machine has frames")]
    pub fn len(&self) -> u64 {
        self.pages.len() as u64
    }
    /// All ids, by frame number.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = PageId> + use<> {
        (1..=self.pages.len() as u32).map(PageId)
    }
}
