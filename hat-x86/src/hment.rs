//! From a page to its mappings: one embedded in the page, or a list.
//!
//! ```text
//!   no mapping      p_mapping 0, all of the word
//!   one             p_embed 1   p_mapping = table id, p_mlentry = entry      p_share 0
//!   two and more    p_embed 0   p_mapping ─▶ hment ⇄ hment ⇄ ...             p_share = length
//!   back to one     stays a list of one (p_share 1); back to none, and the next mapping embeds again
//! ```
//!
//! Most pages are mapped once and pay nothing. A page of a shared library is mapped by every process, and when one of them exits its mapping
//! must be found among thousands: so each record is also on a chain of a hash by (table, entry), and leaves in O(1).
//!
//! The first three are one word of the page's own line ([`page_db::page::MapWord`]), and a bit of that word is the list's lock (`x86_hm_enter`): a fault
//! writes that line anyway. To become mapped is a single compare-and-swap from 0, without the lock; a page that its loader holds exclusively cannot be
//! looked at from anywhere else while nobody maps it, and takes a plain store. The hash has locks of its own, one for
//! each stripe of pages; each part grows, and when the heap refuses, chains get longer and nothing fails.
//!
//! - M1: while a page's list lock is free and the table's lock is free, an entry is present and consistent exactly when its page has
//!   the mapping (table, entry).
//! - M2: while a page's list lock is held, each of its mappings names an entry of a live table that holds this page's frame, or is still
//!   empty because its loader, which has the table's lock, is about to store it. So bits may be harvested through the list without the table's lock.
//! - M3: a remover takes the entry away with the list locked, and gives the page the entry's referenced and modified bits *before* the
//!   mapping leaves the list.
//! - M4: a word of 0 is never locked; so a list that is empty is looked at without writing anything.
//! - M5: a list is locked by who knows that the page is no table's: it has the page's lock, or an entry that maps the page in a locked table. Who has
//!   neither may have locked the word of a table's frame, and tells by the page's state, with the lock; who only counts locks nothing.
//! - M6: bits that are taken from an entry which stays are taken with the list locked, and the page has them when it is free again. Who asks with the lock
//!   all entries, and the page, misses none; and who takes them from the page knows that no entry has them still, so that the next store shows.
//!
//! # The other road
//!
//! An array of locks chosen by page id (illumos's) costs each load and each removal a second line that is in no cache, and fits pages that change
//! hands rarely. Here it remains for the hash, which pages mapped once never see.
//!
//! Order: a table's lock, then a page's list lock, then a stripe's.
//!
//! Sources: [SI §12.5]; illumos `i86pc/vm/hment.c` (behaviour); illumos.md 9.4.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use crossbeam_utils::CachePadded;
use page_db::page::{MapWord, PageMapping};
use page_db::sync::atomic::{
    AtomicU16, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use page_db::sync::{Arena, ArenaFull, SpinMutex, WordGuard};
use page_db::{Cx, PageDb, PageId, Rank};

/// One mapping of a page with several. Guarded by the page's list lock.
#[doc(alias(
    "hment_t",
    "hment_assign",
    "hment_insert",
    "hment_prepare",
    "hment_remove",
    "hment_walk",
    "x86_hm_enter"
))]
#[derive(Debug, Default)]
pub struct HMent {
    table: AtomicU32,
    entry: AtomicU16,
    next: AtomicU32,
    prev: AtomicU32,
    chain: AtomicU32,
}

/// Where a mapping is: a table's id and the index of its entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Site {
    pub(crate) table: u32,
    pub(crate) entry: u16,
}

impl Site {
    fn hash(self) -> u64 {
        ((u64::from(self.table) << 9) | u64::from(self.entry)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 32
    }
}

/// Chains of the pages of one stripe: a few to begin with, then as many as there are records.
#[derive(Default)]
struct Stripe {
    few: [u32; 8],
    many: Vec<u32>,
    count: usize,
}

impl Stripe {
    fn heads(&self) -> &[u32] {
        if self.many.is_empty() { &self.few } else { &self.many }
    }
    fn head(&mut self, at: usize) -> &mut u32 {
        if self.many.is_empty() { &mut self.few[at] } else { &mut self.many[at] }
    }
    fn bucket(&self, site: Site) -> usize {
        site.hash() as usize & (self.heads().len() - 1)
    }
}

/// Records obtained ahead of a change that must not fail.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    ids: [u32; 16],
    count: usize,
    /// Additions that are still to come: once records are needed at all, they are taken in handfuls.
    pub(crate) coming: usize,
}

/// The mapping lists of all pages.
pub(crate) struct MapLists {
    arena: Arena<HMent>,
    stripes: Box<[CachePadded<SpinMutex<Stripe>>]>,
}

impl fmt::Debug for MapLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapLists")
            .field("hments", &self.arena)
            .field("locks", &self.stripes.len())
            .finish()
    }
}

impl MapLists {
    /// Lists for `frames` pages and at most `limit` records. One lock for eight pages, 16 at least, 2048 (illumos's number) at most.
    pub(crate) fn new(cpus: u16, frames: u64, limit: u32) -> Self {
        let locks = (frames / 8).next_power_of_two().clamp(16, 2048) as usize;
        Self {
            arena: Arena::new("hment", cpus, limit),
            stripes: (0..locks)
                .map(|_| CachePadded::new(SpinMutex::new(Rank::HMent, Stripe::default())))
                .collect(),
        }
    }
    /// Records in use.
    pub(crate) fn live(&self) -> u64 {
        self.arena.live()
    }
    fn list<'a>(
        &'a self,
        cx: &'a Cx,
        page: PageId,
        of: PageMapping<'a>,
        word: Option<WordGuard<'a>>,
    ) -> PageList<'a> {
        let stripe = &self.stripes[page.link() as usize & (self.stripes.len() - 1)];
        PageList { lists: self, cx, stripe, page: of, word }
    }
    /// Locks the list of a page; there is nothing to lock while nobody maps it (M4).
    #[doc(alias = "x86_hm_enter")]
    #[inline]
    pub(crate) fn enter<'a>(&'a self, cx: &'a Cx, db: &'a PageDb, page: PageId) -> PageList<'a> {
        let of = db.page(page).mapping();
        self.list(cx, page, of, WordGuard::lock_unless_zero(cx, Rank::HMent, of.cell()))
    }
    /// Adds a mapping that is not there; `alone` when the caller holds the page exclusively. Takes records from `spare` first.
    ///
    /// # Errors
    /// [`ArenaFull`]; nothing has changed but what is in `spare`.
    #[doc(alias("hment_assign", "hment_prepare"))]
    #[inline]
    pub(crate) fn add(
        &self,
        cx: &Cx,
        db: &PageDb,
        page: PageId,
        site: Site,
        alone: bool,
        spare: &mut Spare,
    ) -> Result<(), ArenaFull> {
        if Self::add_first(db, page, site, alone) {
            return Ok(());
        }
        self.add_locked(cx, page, db.page(page).mapping(), site, spare)
    }
    /// Adds a mapping to a page that has none; says whether that was so.
    #[inline]
    pub(crate) fn add_first(db: &PageDb, page: PageId, site: Site, alone: bool) -> bool {
        let cell = db.page(page).mapping().cell();
        let one = MapWord::embedded(site.table, site.entry).0;
        if cell.load(Acquire) != 0 {
            return false;
        }
        if alone {
            cell.store(one, Release);
            return true;
        }
        cell.compare_exchange(0, one, AcqRel, Relaxed).is_ok()
    }
    /// Adds a mapping to a list that may have some.
    #[cold]
    fn add_locked(
        &self,
        cx: &Cx,
        page: PageId,
        of: PageMapping<'_>,
        site: Site,
        spare: &mut Spare,
    ) -> Result<(), ArenaFull> {
        loop {
            if let Some(word) = WordGuard::lock_unless_zero(cx, Rank::HMent, of.cell()) {
                return self.list(cx, page, of, Some(word)).add(site, spare);
            }
            let one = MapWord::embedded(site.table, site.entry).0;
            if of.cell().compare_exchange(0, one, AcqRel, Relaxed).is_ok() {
                return Ok(());
            }
        }
    }
    /// Makes sure that `spare` can serve one addition of any kind.
    pub(crate) fn reserve(&self, cx: &Cx, spare: &mut Spare) -> Result<(), ArenaFull> {
        self.take(cx, spare, 2)
    }
    /// Takes records until `spare` has `need`, and more if more additions are coming.
    fn take(&self, cx: &Cx, spare: &mut Spare, need: usize) -> Result<(), ArenaFull> {
        if spare.count < need {
            let more = spare.coming.min(spare.ids.len() - need);
            if more > 0 {
                spare.count += self.arena.alloc_some(cx, &mut spare.ids[spare.count..need + more]);
            }
        }
        while spare.count < need {
            spare.ids[spare.count] = self.arena.alloc(cx)?;
            spare.count += 1;
        }
        Ok(())
    }
    fn site(&self, id: u32) -> Site {
        let h = self.arena.get(id);
        Site { table: h.table.load(Relaxed), entry: h.entry.load(Relaxed) }
    }
    fn chain_in(&self, stripe: &mut Stripe, id: u32, site: Site) {
        if stripe.count >= stripe.heads().len() {
            self.grow(stripe);
        }
        stripe.count += 1;
        let at = stripe.bucket(site);
        self.arena.get(id).chain.store(stripe.heads()[at], Relaxed);
        *stripe.head(at) = id;
    }
    /// Doubles the chains; when the heap refuses they stay as many.
    #[cold]
    fn grow(&self, stripe: &mut Stripe) {
        let want = stripe.heads().len() * 2;
        let mut many = Vec::new();
        if many.try_reserve_exact(want).is_err() {
            return;
        }
        many.resize(want, 0);
        let few = stripe.few;
        let old = core::mem::replace(&mut stripe.many, many);
        let old = if old.is_empty() { &few[..] } else { &old[..] };
        for head in old {
            let mut id = *head;
            while id != 0 {
                let next = self.arena.get(id).chain.load(Relaxed);
                let at = stripe.bucket(self.site(id));
                self.arena.get(id).chain.store(stripe.many[at], Relaxed);
                stripe.many[at] = id;
                id = next;
            }
        }
    }
    /// The record of `site` and the one before it on its chain; 0 for none.
    fn find(&self, stripe: &Stripe, site: Site) -> (u32, u32) {
        let (mut before, mut id) = (0, stripe.heads()[stripe.bucket(site)]);
        while id != 0 && self.site(id) != site {
            (before, id) = (id, self.arena.get(id).chain.load(Relaxed));
        }
        (before, id)
    }
    /// Takes a record off its chain and names it.
    fn chain_out(&self, stripe: &mut Stripe, site: Site) -> Option<u32> {
        let (before, id) = self.find(stripe, site);
        if id == 0 {
            return None;
        }
        let next = self.arena.get(id).chain.load(Relaxed);
        match before {
            0 => {
                let at = stripe.bucket(site);
                *stripe.head(at) = next;
            }
            b => self.arena.get(b).chain.store(next, Relaxed),
        }
        stripe.count -= 1;
        Some(id)
    }
    /// Gives back what was not needed.
    pub(crate) fn give_back(&self, cx: &Cx, spare: &mut Spare) {
        while spare.count > 0 {
            spare.count -= 1;
            self.arena.free(cx, spare.ids[spare.count]);
        }
    }
}

/// A page's list, locked.
pub(crate) struct PageList<'a> {
    lists: &'a MapLists,
    cx: &'a Cx,
    stripe: &'a SpinMutex<Stripe>,
    page: PageMapping<'a>,
    /// The lock; `None` when nobody mapped the page.
    word: Option<WordGuard<'a>>,
}

impl PageList<'_> {
    fn get(&self, id: u32) -> &HMent {
        self.lists.arena.get(id)
    }
    #[inline]
    fn word(&self) -> MapWord {
        self.word.as_ref().map_or(MapWord::NONE, |w| MapWord(w.value()))
    }
    #[inline]
    fn set(&mut self, word: MapWord) {
        if let Some(w) = &mut self.word {
            w.set(word.0);
        }
    }
    /// Adds a mapping beside those that are there.
    fn add(mut self, site: Site, spare: &mut Spare) -> Result<(), ArenaFull> {
        let word = self.word();
        self.lists.take(self.cx, spare, 1 + usize::from(word.is_embedded()))?;
        if word.is_embedded() {
            let first = Site { table: word.head(), entry: word.entry() };
            self.set(MapWord::NONE);
            self.push(first, spare);
        }
        self.push(site, spare);
        Ok(())
    }
    fn push(&mut self, site: Site, spare: &mut Spare) {
        spare.count -= 1;
        let id = spare.ids[spare.count];
        let head = self.word().head();
        let h = self.get(id);
        h.table.store(site.table, Relaxed);
        h.entry.store(site.entry, Relaxed);
        h.prev.store(0, Relaxed);
        h.next.store(head, Relaxed);
        if head != 0 {
            self.get(head).prev.store(id, Relaxed);
        }
        self.set(MapWord::list(id));
        self.page.set_share(self.page.share() + 1);
        self.lists.chain_in(&mut self.stripe.lock_nested(self.cx), id, site);
    }
    fn site(&self, id: u32) -> Site {
        self.lists.site(id)
    }
    /// Removes a mapping; says whether it was there.
    #[doc(alias = "hment_remove")]
    #[inline]
    pub(crate) fn remove(&mut self, site: Site) -> bool {
        let word = self.word();
        if word.is_embedded() {
            let here = word == MapWord::embedded(site.table, site.entry);
            if here {
                self.set(MapWord::NONE);
            }
            return here;
        }
        self.remove_listed(site)
    }
    fn remove_listed(&mut self, site: Site) -> bool {
        let mut stripe = self.stripe.lock_nested(self.cx);
        let Some(id) = self.lists.chain_out(&mut stripe, site) else { return false };
        drop(stripe);
        let (next, prev) = (self.get(id).next.load(Relaxed), self.get(id).prev.load(Relaxed));
        match prev {
            0 => self.set(MapWord::list(next)),
            p => self.get(p).next.store(next, Relaxed),
        }
        if next != 0 {
            self.get(next).prev.store(prev, Relaxed);
        }
        self.page.set_share(self.page.share() - 1);
        self.lists.arena.free(self.cx, id);
        true
    }
    /// The mapping added last.
    #[doc(alias = "hment_walk")]
    pub(crate) fn first(&self) -> Option<Site> {
        self.sites().next()
    }
    /// All mappings, the one added last first.
    pub(crate) fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        let word = self.word();
        let embedded = word.is_embedded().then(|| Site { table: word.head(), entry: word.entry() });
        let mut id = if embedded.is_some() { 0 } else { word.head() };
        embedded.into_iter().chain(core::iter::from_fn(move || {
            (id != 0).then(|| {
                let site = self.site(id);
                id = self.get(id).next.load(Relaxed);
                site
            })
        }))
    }
    /// Whether the mapping is there.
    pub(crate) fn contains(&self, site: Site) -> bool {
        if self.word().is_embedded() {
            return self.first() == Some(site);
        }
        self.lists.find(&self.stripe.lock_nested(self.cx), site).1 != 0
    }
    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        self.page.count(self.word())
    }
}
