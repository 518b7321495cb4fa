//! From identity to page: the global page hash, as a trait with two implementations.
//!
//! The textbook's table is a chain through the page array (`p_hash`): four bytes a page, and a lookup that writes nothing. An id needs no more
//! bits than there are pages; those left over in the head of a chain are filled from the name of its first page (a tag), so the hit that
//! is nearly always the first page is found without a look at any page:
//!
//! ```text
//!            bucket                    page 7               page 3
//!   ┌───────────────┬───────────┐
//!   │ bits of A     │ id: 7     │ ──▶  name A, p_hash: 3 ─▶ name B, p_hash: 0
//!   └───────────────┴───────────┘
//!    11 bits for 1 to 2 million pages, 8 for 64 GB, none for 16 TB
//! ```
//!
//! A walker without a lock may be carried onto a foreign chain by a page that is rehashed under it, and two names may have one tag, so:
//!
//! - H1: a hit of [`PageHash::search_hint`] is believed only after the caller compared the identity, under the page lock if it has to stay true.
//! - H2: a miss of it is believed only after [`PageHash::search_locked`].
//! - H3: an insert searches again under the bucket lock; the first one wins.
//! - H4: a page on a chain is filed under the identity it carries; both change inside the bucket lock.
//!
//! A bare id there costs a hit two misses, bucket and page, before it has a page to wait for. 32 bits of tag beside the id cost four bytes
//! a page more and spare hardly a lookup: with 11, a name in another's bucket is taken for it once in two thousand.
//!
//! The bucket function keeps neighbouring offsets in neighbouring buckets, so a run of a file's pages walks adjacent lines.
//! The other road is `dashmap` (`DashHash`): simpler, 50 bytes an entry, and a written lock word for each lookup.
//! Sources: [SI §10.2]; illumos.md 7.2.

pub(crate) mod chain;
#[cfg(feature = "dashmap")]
mod dash;

use self::chain::Links;
#[cfg(feature = "dashmap")]
pub use self::dash::DashHash;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::heap::{self, NoHeap};
use crate::lock::Rank;
use crate::page::{PageArray, PageId};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{SpinMutex, SpinMutexGuard, prefetch_write};
use crate::vnode::Identity;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use crossbeam_utils::CachePadded;

/// A table from identity to page. Implementations never keep a lock past a call.
#[doc(alias = "page_hash")]
pub trait PageHash: fmt::Debug + Send + Sync {
    /// A name for tables and settings.
    fn name(&self) -> &'static str;
    /// Looks without promising anything: both a hit and a miss may be wrong (H1, H2), even while nobody changes the table.
    #[doc(alias = "PAGE_HASH_SEARCH")]
    fn search_hint(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId>;
    /// Looks under the bucket lock; a miss is true at that moment.
    #[doc(alias = "PAGE_HASH_SEARCH")]
    fn search_locked(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId>;
    /// Files `page` under `id` and gives it that identity, unless the identity has a page (H3, H4).
    ///
    /// # Errors
    /// The page that has the identity.
    fn insert_unless_present(
        &self,
        cx: &Cx,
        pages: &PageArray,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId>;
    /// Removes `page`, which carries `id`, and takes the identity from it.
    fn remove(&self, cx: &Cx, pages: &PageArray, id: Identity, page: PageId);
    /// Files `to` under `id` in the place of `from`, which carries it, and moves the identity. There is no moment at which neither is found: who
    /// looks without a lock finds one of the two, and of pages looked at in this order, `from` and then `to`, at least one carries the name.
    fn replace(&self, cx: &Cx, pages: &PageArray, id: Identity, from: PageId, to: PageId);
    /// Files several pages as [`PageHash::insert_unless_present`] does, in order.
    ///
    /// # Errors
    /// The index of the first whose identity has a page; it and those after it are as before.
    fn insert_run(
        &self,
        cx: &Cx,
        pages: &PageArray,
        run: &mut dyn Iterator<Item = (Identity, PageId)>,
    ) -> Result<(), usize> {
        for (i, (id, page)) in run.enumerate() {
            self.insert_unless_present(cx, pages, id, page).map_err(|_| i)?;
        }
        Ok(())
    }
    /// Removes several named pages as [`PageHash::remove`] does.
    fn remove_run(&self, cx: &Cx, pages: &PageArray, run: &mut dyn Iterator<Item = PageId>) {
        for page in run {
            if let Some(id) = pages.get(page).identity() {
                self.remove(cx, pages, id, page);
            }
        }
    }
    /// Brings near what a search for `id` reads first.
    fn prefetch(&self, id: Identity) {
        let _ = id;
    }
    /// How many chains (or shards' tables) have 0, 1, 2, ... entries; the last bucket counts everything longer.
    fn chain_lengths(&self, cx: &Cx, pages: &PageArray) -> Vec<u64>;
    /// Every page in the table, in no particular order.
    fn all(&self, cx: &Cx, pages: &PageArray) -> Vec<(Identity, PageId)>;
}

const _: Option<&dyn PageHash> = None; // used as an object everywhere; stays one

/// Which implementation a machine uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum HashKind {
    /// [`ChainHash`].
    #[default]
    Chain,
    /// `DashHash` (std with feature `dashmap`).
    Dash,
}

/// Bits of a name that have nothing to do with those that chose its bucket.
#[inline]
fn tag(id: Identity) -> u32 {
    let vnode = u64::from(id.vnode.0).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((vnode ^ id.offset.page_index().wrapping_mul(0xa076_1d64_78bd_642f)) >> 32) as u32
}

/// Chains through the page array.
#[doc(alias = "PAGE_HASH_FUNC")]
pub struct ChainHash {
    /// 0, or the id of the first page with its tag in the bits that `ids` leaves.
    heads: Box<[AtomicU32]>,
    /// The bits of an id.
    ids: u32,
    locks: Box<[CachePadded<SpinMutex<()>>]>,
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainHash").field("buckets", &self.heads.len()).finish_non_exhaustive()
    }
}

impl ChainHash {
    /// A table for pages with ids up to `pages`: fifteen buckets for sixteen pages, in whole lines. Some pages are always free or hold page
    /// tables, so the mean chain stays at one, and table and locks together at four bytes a page. Filing a page with a higher id panics: the table
    /// belongs to one page array.
    ///
    /// # Errors
    /// [`NoHeap`].
    pub fn new(pages: u64) -> Result<Self, NoHeap> {
        Self::with_buckets(pages, pages - pages / 16)
    }
    fn with_buckets(pages: u64, buckets: u64) -> Result<Self, NoHeap> {
        let buckets = usize::try_from(buckets).unwrap_or(usize::MAX >> 4);
        let buckets = buckets.max(16).next_multiple_of(16);
        let locks = (buckets / 16).next_power_of_two().clamp(8, 1024);
        let lock = |_| CachePadded::new(SpinMutex::new(Rank::HashShard, ()));
        Ok(Self {
            ids: u32::try_from(pages).map_or(u32::MAX, |n| u32::MAX >> n.leading_zeros().min(31)),
            heads: heap::boxed(buckets, |_| AtomicU32::new(0))?,
            locks: heap::boxed(locks, lock)?,
        })
    }
    /// Neighbouring offsets of one vnode fall into neighbouring buckets, and vnodes with neighbouring numbers begin far from each other:
    /// multiples of the golden ratio split the table ever more evenly, so files of like size hardly overlap while buckets are plenty. The
    /// remainder is for offsets beyond the size of memory.
    #[inline]
    fn bucket(&self, id: Identity) -> usize {
        let n = self.heads.len() as u64;
        let turn = u64::from(id.vnode.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let start = ((u128::from(turn) * u128::from(n)) >> 64) as u64;
        let page = id.offset.page_index();
        let at = start + if page < n { page } else { page % n };
        (if at < n { at } else { at - n }) as usize
    }
    /// Neighbouring buckets share a lock in groups of 16 (one line of heads).
    fn lock_index(&self, bucket: usize) -> usize {
        (bucket >> 4) & (self.locks.len() - 1)
    }
    fn lock_of(&self, bucket: usize) -> &SpinMutex<()> {
        &self.locks[self.lock_index(bucket)]
    }
    fn chain<'a>(&'a self, pages: &'a PageArray) -> Chain<'a> {
        Chain { table: self, pages }
    }
    /// The search, once the first page of the chain was another.
    #[cold]
    fn walk_on(&self, cx: &Cx, pages: &PageArray, first: PageId, id: Identity) -> Option<PageId> {
        let (found, steps) = chain::walk_on(&self.chain(pages), first.link(), id);
        cx.count_n(Counter::HashLinks, u64::from(steps));
        found.and_then(PageId::from_link)
    }
    /// held: the bucket
    #[inline(always)] // alone and in a run
    fn file(
        &self,
        pages: &PageArray,
        bucket: usize,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
        assert!(page.link() <= self.ids, "page {page} of a table made for ids up to {}", self.ids);
        chain::file(&self.chain(pages), bucket, id, page.link()).map_err(PageId)
    }
    /// held: the bucket
    fn unfile(&self, pages: &PageArray, bucket: usize, page: PageId) {
        let was_there = chain::unfile(&self.chain(pages), bucket, page.link());
        assert!(was_there, "H4: a page is filed under the identity it carries");
    }
}

/// The chains of a table, through the page array.
struct Chain<'a> {
    table: &'a ChainHash,
    pages: &'a PageArray,
}

impl Links for Chain<'_> {
    type Word = AtomicU32;
    type Name = Identity;
    fn head(&self, bucket: usize) -> &AtomicU32 {
        &self.table.heads[bucket]
    }
    fn as_head(&self, page: u32, name: Identity) -> u32 {
        (tag(name) & !self.table.ids) | page
    }
    fn first(&self, head: u32) -> u32 {
        head & self.table.ids
    }
    fn next(&self, page: u32) -> &AtomicU32 {
        &self.pages.get(PageId(page)).hash_next
    }
    fn name(&self, page: u32) -> Identity {
        self.pages.get(PageId(page)).identity().expect("H4: a page on a chain has an identity")
    }
    fn is(&self, page: u32, name: Identity) -> bool {
        self.pages.get(PageId(page)).is(name)
    }
    fn rename(&self, page: u32, name: Option<Identity>) {
        self.pages.get(PageId(page)).set_identity(name);
    }
}

/// The bucket lock held in the middle of a run, which is kept while the next bucket is under it too.
#[derive(Default)]
struct Held<'a>(Option<(usize, SpinMutexGuard<'a, ()>)>);

impl<'a> Held<'a> {
    fn of(&mut self, hash: &'a ChainHash, cx: &'a Cx, bucket: usize) {
        let lock = hash.lock_index(bucket);
        if self.0.as_ref().is_none_or(|(held, _)| *held != lock) {
            self.0 = None; // one of a rank at a time
            self.0 = Some((lock, hash.locks[lock].lock(cx)));
        }
    }
}

impl PageHash for ChainHash {
    fn name(&self) -> &'static str {
        "chain"
    }
    #[inline]
    fn search_hint(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        let head = self.heads[self.bucket(id)].load(Ordering::Acquire);
        let first = PageId::from_link(head & self.ids)?;
        let named_so = (head ^ tag(id)) & !self.ids == 0;
        if named_so { Some(first) } else { self.walk_on(cx, pages, first, id) }
    }
    fn search_locked(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        let bucket = self.bucket(id);
        let _held = self.lock_of(bucket).lock(cx);
        chain::search(&self.chain(pages), bucket, id).and_then(PageId::from_link)
    }
    fn insert_unless_present(
        &self,
        cx: &Cx,
        pages: &PageArray,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
        let bucket = self.bucket(id);
        let _held = self.lock_of(bucket).lock(cx);
        self.file(pages, bucket, id, page)
    }
    fn remove(&self, cx: &Cx, pages: &PageArray, id: Identity, page: PageId) {
        let bucket = self.bucket(id);
        let _held = self.lock_of(bucket).lock(cx);
        self.unfile(pages, bucket, page);
    }
    fn replace(&self, cx: &Cx, pages: &PageArray, id: Identity, from: PageId, to: PageId) {
        assert!(to.link() <= self.ids, "page {to} of a table made for ids up to {}", self.ids);
        let bucket = self.bucket(id);
        let _held = self.lock_of(bucket).lock(cx);
        let was_there = chain::replace(&self.chain(pages), bucket, id, from.link(), to.link());
        assert!(was_there, "H4: a page is filed under the identity it carries");
    }
    fn insert_run(
        &self,
        cx: &Cx,
        pages: &PageArray,
        run: &mut dyn Iterator<Item = (Identity, PageId)>,
    ) -> Result<(), usize> {
        let mut held = Held::default();
        for (i, (id, page)) in run.enumerate() {
            let bucket = self.bucket(id);
            held.of(self, cx, bucket);
            self.file(pages, bucket, id, page).map_err(|_| i)?;
        }
        Ok(())
    }
    fn remove_run(&self, cx: &Cx, pages: &PageArray, run: &mut dyn Iterator<Item = PageId>) {
        let mut held = Held::default();
        for page in run {
            if let Some(id) = pages.get(page).identity() {
                let bucket = self.bucket(id);
                held.of(self, cx, bucket);
                self.unfile(pages, bucket, page);
            }
        }
    }
    fn prefetch(&self, id: Identity) {
        prefetch_write(&self.heads[self.bucket(id)]);
    }
    fn chain_lengths(&self, cx: &Cx, pages: &PageArray) -> Vec<u64> {
        let mut hist = alloc::vec![0u64; 9];
        for b in 0..self.heads.len() {
            let _held = self.lock_of(b).lock(cx);
            let mut n = 0usize;
            let mut link = self.heads[b].load(Ordering::Acquire) & self.ids;
            while let Some(p) = PageId::from_link(link) {
                n += 1;
                link = pages.get(p).hash_next.load(Ordering::Acquire);
            }
            hist[n.min(8)] += 1;
        }
        hist
    }
    fn all(&self, cx: &Cx, pages: &PageArray) -> Vec<(Identity, PageId)> {
        let mut out = Vec::new();
        for b in 0..self.heads.len() {
            let _held = self.lock_of(b).lock(cx);
            let mut link = self.heads[b].load(Ordering::Acquire) & self.ids;
            while let Some(p) = PageId::from_link(link) {
                if let Some(id) = pages.get(p).identity() {
                    out.push((id, p));
                }
                link = pages.get(p).hash_next.load(Ordering::Acquire);
            }
        }
        out
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::contract;
    use crate::cx::SpinHooks;
    use crate::testing::{cx, name};
    use crate::units::Pfn;
    use crate::vnode::VnodeId;
    use alloc::sync::Arc;

    #[test]
    fn chain_hash_keeps_the_contract() {
        contract::page_hash(|n| Box::new(ChainHash::new(n).expect("heap")));
        // All in sixteen buckets: long chains, walks that give up.
        contract::page_hash(|n| Box::new(ChainHash::with_buckets(n, 1).expect("heap")));
        // And with no bits left for tags.
        contract::page_hash(|n| {
            Box::new(ChainHash::with_buckets(u64::from(u32::MAX), n).expect("heap"))
        });
    }

    #[test]
    #[cfg(feature = "dashmap")]
    fn dash_hash_keeps_the_contract() {
        contract::page_hash(|n| Box::new(DashHash::new(n)));
    }

    #[test]
    fn neighbouring_offsets_fall_into_neighbouring_buckets() {
        let h = ChainHash::new(1024).expect("heap");
        for vnode in 1..20 {
            for page in [0, 5, 1000, 1 << 23] {
                let at = |p| h.bucket(name(VnodeId(vnode), p));
                assert_eq!(at(page + 1), (at(page) + 1) & 1023);
            }
        }
    }

    /// Two names that a bucket cannot tell apart.
    fn twins(h: &ChainHash) -> [Identity; 2] {
        let mut seen = std::collections::HashMap::new();
        (0..1 << 22)
            .map(|i| name(VnodeId(1 + i % 1000), u64::from(i / 1000)))
            .find_map(|n| Some([seen.insert((h.bucket(n), tag(n) & !h.ids), n)?, n]))
            .expect("of so many names two are alike")
    }

    #[test]
    fn names_that_look_alike_in_their_bucket_are_told_apart_by_the_page() {
        let (cx, h) = (cx(), ChainHash::new(4).expect("heap"));
        let pages = PageArray::new(Pfn(0), 4).expect("heap");
        let ids: Vec<_> = pages.ids().collect();
        let [a, b] = twins(&h);
        h.insert_unless_present(&cx, &pages, a, ids[0]).expect("absent");
        assert_eq!(h.search_hint(&cx, &pages, b), Some(ids[0]), "H1: a hit of the wrong page");
        assert_eq!(h.search_locked(&cx, &pages, b), None);
        h.insert_unless_present(&cx, &pages, b, ids[1]).expect("absent");
        assert_eq!(h.search_locked(&cx, &pages, a), Some(ids[0]));
        assert_eq!(h.search_locked(&cx, &pages, b), Some(ids[1]));
        // The tag is that of whoever is first now.
        h.remove(&cx, &pages, b, ids[1]);
        assert_eq!(h.search_hint(&cx, &pages, a), Some(ids[0]));
    }

    #[test]
    fn a_hit_at_the_head_of_a_chain_follows_no_link() {
        let counters = crate::Counters::new(1);
        let cx = Cx::new(&counters, crate::CpuId(0), crate::ThreadId(0), Arc::new(SpinHooks));
        let (h, pages) =
            (ChainHash::new(4).expect("heap"), PageArray::new(Pfn(0), 4).expect("heap"));
        let ids: Vec<_> = pages.ids().collect();
        let names: Vec<_> = (0..3).map(|i| name(VnodeId(1), i * 16)).collect();
        for (n, page) in names.iter().zip(&ids) {
            h.insert_unless_present(&cx, &pages, *n, *page).expect("absent");
        }
        let links = |n: usize| {
            let before = counters.get(Counter::HashLinks);
            assert_eq!(h.search_hint(&cx, &pages, names[n]), Some(ids[n]));
            counters.get(Counter::HashLinks) - before
        };
        assert_eq!([2, 1, 0].map(links), [0, 1, 2]);
        // The second becomes the first.
        h.remove(&cx, &pages, names[2], ids[2]);
        assert_eq!([1, 0].map(links), [0, 1]);
    }

    #[test]
    fn a_walk_that_is_too_long_leaves_the_answer_to_the_locked_search() {
        let (cx, h) = (cx(), ChainHash::with_buckets(2000, 1).expect("heap"));
        let pages = PageArray::new(Pfn(0), 2000).expect("heap");
        // Sixteen buckets: every sixteenth page of a vnode is in one chain.
        let ids: Vec<_> = pages.ids().take(200).collect();
        for (i, id) in ids.iter().enumerate() {
            let n = name(VnodeId(1), i as u64 * 16);
            h.insert_unless_present(&cx, &pages, n, *id).expect("absent");
        }
        let oldest = name(VnodeId(1), 0);
        assert_eq!(h.search_hint(&cx, &pages, oldest), None, "the oldest is at the end");
        assert_eq!(h.search_locked(&cx, &pages, oldest), Some(ids[0]));
        assert_eq!(h.chain_lengths(&cx, &pages), [15, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
