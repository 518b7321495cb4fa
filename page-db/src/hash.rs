//! From identity to page: the global page hash, as a trait with two implementations.
//!
//! The textbook's table is a chain through the page array (`p_hash`): four bytes a page and a lookup that writes nothing. A walker without
//! a lock may be carried onto a foreign chain by a page that is rehashed under it, so:
//!
//! - H1: a hit of [`PageHash::search_hint`] is believed only after the caller compared the identity under the page lock.
//! - H2: a miss of it is believed only after [`PageHash::search_locked`].
//! - H3: an insert searches again under the bucket lock; the first one wins.
//! - H4: a page on a chain is filed under the identity it carries; both change inside the bucket lock.
//!
//! The bucket function keeps neighbouring offsets in neighbouring buckets, so a run of a file's pages walks adjacent lines.
//! The other road is `dashmap` (`DashHash`): simpler, 50 bytes an entry, and a written lock word for each lookup.
//! Sources: [SI §10.2]; illumos.md 7.2.

pub(crate) mod chain;

use self::chain::Links;
use crate::counters::Counter;
use crate::cx::Cx;
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
    /// Looks without promising anything: both a hit and a miss may be wrong (H1, H2).
    fn search_hint(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId>;
    /// Looks under the bucket lock; a miss is true at that moment.
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

/// Chains through the page array.
pub struct ChainHash {
    heads: Box<[AtomicU32]>,
    /// 64 less the binary logarithm of the number of buckets.
    shift: u32,
    locks: Box<[CachePadded<SpinMutex<()>>]>,
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainHash").field("buckets", &self.heads.len()).finish_non_exhaustive()
    }
}

impl ChainHash {
    /// A table for `pages` pages: at least as many buckets, so the mean chain is at most one.
    pub fn new(pages: u64) -> Self {
        let buckets = usize::try_from(pages).unwrap_or(usize::MAX >> 1).max(16).next_power_of_two();
        let locks = (buckets / 16).clamp(8, 1024);
        Self {
            shift: 64 - buckets.trailing_zeros(),
            heads: (0..buckets).map(|_| AtomicU32::new(0)).collect(),
            locks: (0..locks)
                .map(|_| CachePadded::new(SpinMutex::new(Rank::HashShard, ())))
                .collect(),
        }
    }
    /// Neighbouring offsets of one vnode fall into neighbouring buckets, and vnodes with neighbouring numbers begin far from each other: the
    /// high bits of a multiple of the golden ratio split the table ever more evenly, so files of like size hardly overlap
    /// while buckets are plenty (a thousand files of a thousand pages at load 1/2: one page in 400 is not at the head of its chain,
    /// against one in five with starts at random).
    #[inline]
    fn bucket(&self, id: Identity) -> usize {
        let start = u64::from(id.vnode.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift;
        let page = id.offset.page_index();
        let high = (page >> 24).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 24;
        (start.wrapping_add(page).wrapping_add(high)) as usize & (self.heads.len() - 1)
    }
    /// Neighbouring buckets share a lock in groups of 16 (one line of heads).
    fn lock_index(&self, bucket: usize) -> usize {
        (bucket >> 4) & (self.locks.len() - 1)
    }
    fn lock_of(&self, bucket: usize) -> &SpinMutex<()> {
        &self.locks[self.lock_index(bucket)]
    }
    fn chain<'a>(&'a self, pages: &'a PageArray) -> Chain<'a> {
        Chain { heads: &self.heads, pages }
    }
    /// The search, once the head of the chain was another page.
    #[cold]
    fn walk_on(&self, cx: &Cx, pages: &PageArray, head: PageId, id: Identity) -> Option<PageId> {
        let (found, steps) = chain::walk_on(&self.chain(pages), head.link(), id);
        cx.count_n(Counter::HashLinks, u64::from(steps));
        found.and_then(PageId::from_link)
    }
    /// held: the bucket
    fn file(
        &self,
        pages: &PageArray,
        bucket: usize,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
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
    heads: &'a [AtomicU32],
    pages: &'a PageArray,
}

impl Links for Chain<'_> {
    type Word = AtomicU32;
    type Name = Identity;
    fn head(&self, bucket: usize) -> &AtomicU32 {
        &self.heads[bucket]
    }
    fn next(&self, page: u32) -> &AtomicU32 {
        &self.pages.get(PageId(page)).hash_next
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
        let head = PageId::from_link(self.heads[self.bucket(id)].load(Ordering::Acquire))?;
        if pages.get(head).is(id) { Some(head) } else { self.walk_on(cx, pages, head, id) }
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
            let mut link = self.heads[b].load(Ordering::Acquire);
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
            let mut link = self.heads[b].load(Ordering::Acquire);
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

/// The second implementation: a `dashmap` from identity to page. No guard of it is returned or held across another call.
#[cfg(feature = "dashmap")]
pub struct DashHash {
    map: dashmap::DashMap<Identity, PageId>,
}

#[cfg(feature = "dashmap")]
impl fmt::Debug for DashHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashHash").field("entries", &self.map.len()).finish()
    }
}

#[cfg(feature = "dashmap")]
impl DashHash {
    /// A table with room for `pages` entries.
    pub fn new(pages: u64) -> Self {
        Self { map: dashmap::DashMap::with_capacity(usize::try_from(pages).unwrap_or(0)) }
    }
}

#[cfg(feature = "dashmap")]
impl PageHash for DashHash {
    fn name(&self) -> &'static str {
        "dashmap"
    }
    fn search_hint(&self, _cx: &Cx, _pages: &PageArray, id: Identity) -> Option<PageId> {
        self.map.get(&id).map(|e| *e.value())
    }
    fn search_locked(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        self.search_hint(cx, pages, id)
    }
    fn insert_unless_present(
        &self,
        _cx: &Cx,
        pages: &PageArray,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
        match self.map.entry(id) {
            dashmap::Entry::Occupied(e) => Err(*e.get()),
            dashmap::Entry::Vacant(e) => {
                pages.get(page).set_identity(Some(id));
                e.insert(page);
                Ok(())
            }
        }
    }
    fn remove(&self, _cx: &Cx, pages: &PageArray, id: Identity, page: PageId) {
        let gone = self.map.remove_if(&id, |_, p| {
            let ours = *p == page;
            if ours {
                pages.get(page).set_identity(None);
            }
            ours
        });
        assert!(gone.is_some(), "H4: a page is filed under the identity it carries");
    }
    fn chain_lengths(&self, _cx: &Cx, _pages: &PageArray) -> Vec<u64> {
        alloc::vec![0, self.map.len() as u64]
    }
    fn all(&self, _cx: &Cx, _pages: &PageArray) -> Vec<(Identity, PageId)> {
        self.map.iter().map(|e| (*e.key(), *e.value())).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::contract;
    use crate::testing::{cx, name};
    use crate::units::Pfn;
    use crate::vnode::VnodeId;

    #[test]
    fn chain_hash_keeps_the_contract() {
        contract::page_hash(|n| Box::new(ChainHash::new(n)));
        // All in sixteen buckets: long chains, walks that give up.
        contract::page_hash(|_| Box::new(ChainHash::new(1)));
    }

    #[test]
    #[cfg(feature = "dashmap")]
    fn dash_hash_keeps_the_contract() {
        contract::page_hash(|n| Box::new(DashHash::new(n)));
    }

    #[test]
    fn neighbouring_offsets_fall_into_neighbouring_buckets() {
        let h = ChainHash::new(1024);
        for vnode in 1..20 {
            for page in [0, 5, 1000, 1 << 23] {
                let at = |p| h.bucket(name(VnodeId(vnode), p));
                assert_eq!(at(page + 1), (at(page) + 1) & 1023);
            }
        }
    }

    #[test]
    fn a_walk_that_is_too_long_leaves_the_answer_to_the_locked_search() {
        let (cx, h) = (cx(), ChainHash::new(1));
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
