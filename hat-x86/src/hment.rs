//! From a page to its mappings: one embedded in the page, or a list.
//!
//! ```text
//!   no mapping      p_mapping 0
//!   one             p_embed 1   p_mapping = table id, p_mlentry = entry      p_share 0
//!   two and more    p_embed 0   p_mapping ─▶ hment ⇄ hment ⇄ ...             p_share = length
//!   back to one     stays a list of one (p_share 1); back to none, and the next mapping embeds again
//! ```
//!
//! Most pages are mapped once and pay nothing. A page of a shared library is mapped by every process, and when one of them exits its mapping
//! must be found among thousands: so each record is also on a chain of a hash by (table, entry), and leaves in O(1).
//!
//! The fields on the page, its records and their chains are guarded by one of an array of locks, chosen by page id (`x86_hm_enter`).
//! Each lock owns its own part of the hash, which grows; when the heap refuses, chains get longer and nothing fails.
//!
//! - M1: while a page's list lock is free and the table's lock is free, an entry is present and consistent exactly when its page has
//!   the mapping (table, entry).
//! - M2: while a page's list lock is held, each of its mappings names an entry of a live table that holds this page's frame, or is
//!   empty because its remover waits for this lock. So bits may be harvested through the list without the table's lock.
//! - M3: a remover gives the page the entry's referenced and modified bits *before* the mapping leaves the list.
//!
//! Order: a table's lock, then a page's list lock.
//!
//! Sources: [SI §12.5]; illumos `i86pc/vm/hment.c` (behaviour); illumos.md 9.4.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use crossbeam_utils::CachePadded;
use page_db::page::PageMapping;
use page_db::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};
use page_db::sync::{Arena, ArenaFull, SpinMutex, SpinMutexGuard};
use page_db::{Cx, PageDb, PageId, Rank};

/// One mapping of a page with several. Guarded by the page's list lock.
#[doc(alias = "hment_t")]
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

/// Chains of the pages behind one lock: a few to begin with, then as many as there are records.
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
    ids: [u32; 2],
    count: usize,
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
    /// Locks the list of a page.
    #[doc(alias = "x86_hm_enter")]
    #[inline]
    pub(crate) fn enter<'a>(&'a self, cx: &'a Cx, db: &'a PageDb, page: PageId) -> PageList<'a> {
        let stripe = self.stripes[page.link() as usize & (self.stripes.len() - 1)].lock(cx);
        PageList { lists: self, cx, stripe, page: db.page(page).mapping() }
    }
    /// Makes sure that `spare` can serve one addition of any kind.
    pub(crate) fn reserve(&self, cx: &Cx, spare: &mut Spare) -> Result<(), ArenaFull> {
        while spare.count < spare.ids.len() {
            spare.ids[spare.count] = self.arena.alloc(cx)?;
            spare.count += 1;
        }
        Ok(())
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
    stripe: SpinMutexGuard<'a, Stripe>,
    page: PageMapping<'a>,
}

impl PageList<'_> {
    fn get(&self, id: u32) -> &HMent {
        self.lists.arena.get(id)
    }
    /// Adds a mapping that is not there. Takes records from `spare` first.
    ///
    /// # Errors
    /// [`ArenaFull`]; nothing has changed but what is in `spare`.
    #[doc(alias("hment_assign", "hment_prepare"))]
    pub(crate) fn add(&mut self, site: Site, spare: &mut Spare) -> Result<(), ArenaFull> {
        if self.page.head() == 0 {
            self.page.set_entry(site.entry);
            self.page.set_embedded(true);
            self.page.set_head(site.table);
            return Ok(());
        }
        let needed = 1 + usize::from(self.page.is_embedded());
        while spare.count < needed {
            spare.ids[spare.count] = self.lists.arena.alloc(self.cx)?;
            spare.count += 1;
        }
        if self.page.is_embedded() {
            let first = Site { table: self.page.head(), entry: self.page.entry() };
            self.page.set_embedded(false);
            self.page.set_entry(0);
            self.page.set_head(0);
            self.push(first, spare);
        }
        self.push(site, spare);
        Ok(())
    }
    fn push(&mut self, site: Site, spare: &mut Spare) {
        spare.count -= 1;
        let id = spare.ids[spare.count];
        let head = self.page.head();
        let h = self.get(id);
        h.table.store(site.table, Relaxed);
        h.entry.store(site.entry, Relaxed);
        h.prev.store(0, Relaxed);
        h.next.store(head, Relaxed);
        if head != 0 {
            self.get(head).prev.store(id, Relaxed);
        }
        self.page.set_head(id);
        self.page.set_share(self.page.share() + 1);
        self.chain_in(id, site);
    }
    fn chain_in(&mut self, id: u32, site: Site) {
        if self.stripe.count >= self.stripe.heads().len() {
            self.grow();
        }
        self.stripe.count += 1;
        let at = self.stripe.bucket(site);
        self.get(id).chain.store(self.stripe.heads()[at], Relaxed);
        *self.stripe.head(at) = id;
    }
    /// Doubles the chains; when the heap refuses they stay as many.
    #[cold]
    fn grow(&mut self) {
        let want = self.stripe.heads().len() * 2;
        let mut many = Vec::new();
        if many.try_reserve_exact(want).is_err() {
            return;
        }
        many.resize(want, 0);
        let few = self.stripe.few;
        let old = core::mem::replace(&mut self.stripe.many, many);
        let old = if old.is_empty() { &few[..] } else { &old[..] };
        for head in old {
            let mut id = *head;
            while id != 0 {
                let next = self.get(id).chain.load(Relaxed);
                let at = self.stripe.bucket(self.site(id));
                self.get(id).chain.store(self.stripe.many[at], Relaxed);
                self.stripe.many[at] = id;
                id = next;
            }
        }
    }
    fn site(&self, id: u32) -> Site {
        let h = self.get(id);
        Site { table: h.table.load(Relaxed), entry: h.entry.load(Relaxed) }
    }
    /// Takes a record off its chain and names it.
    fn chain_out(&mut self, site: Site) -> Option<u32> {
        let at = self.stripe.bucket(site);
        let (mut before, mut id) = (0, self.stripe.heads()[at]);
        while id != 0 && self.site(id) != site {
            (before, id) = (id, self.get(id).chain.load(Relaxed));
        }
        if id == 0 {
            return None;
        }
        let next = self.get(id).chain.load(Relaxed);
        match before {
            0 => *self.stripe.head(at) = next,
            b => self.get(b).chain.store(next, Relaxed),
        }
        self.stripe.count -= 1;
        Some(id)
    }
    /// Removes a mapping; says whether it was there.
    #[doc(alias = "hment_remove")]
    pub(crate) fn remove(&mut self, site: Site) -> bool {
        if self.page.is_embedded() {
            let here = self.page.head() == site.table && self.page.entry() == site.entry;
            if here {
                self.page.set_head(0);
                self.page.set_embedded(false);
                self.page.set_entry(0);
            }
            return here;
        }
        let Some(id) = self.chain_out(site) else { return false };
        let (next, prev) = (self.get(id).next.load(Relaxed), self.get(id).prev.load(Relaxed));
        match prev {
            0 => self.page.set_head(next),
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
        let head = self.page.head();
        let embedded =
            self.page.is_embedded().then(|| Site { table: head, entry: self.page.entry() });
        let mut id = if embedded.is_some() { 0 } else { head };
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
        if self.page.is_embedded() {
            return self.first() == Some(site);
        }
        let mut id = self.stripe.heads()[self.stripe.bucket(site)];
        while id != 0 && self.site(id) != site {
            id = self.get(id).chain.load(Relaxed);
        }
        id != 0
    }
    /// How many there are.
    #[doc(alias = "hat_page_getshare")]
    pub(crate) fn count(&self) -> u32 {
        if self.page.is_embedded() { 1 } else { self.page.share() }
    }
}
