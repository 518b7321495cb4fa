//! Finding a page by name, and holding on to it.
//!
//! # The difficulty
//!
//! Looking a name up writes nothing: the chain is walked without a lock. But a page met on the walk may lose its name, be freed,
//! and come back on another chain, and carry the walker with it:
//!
//! ```text
//!   wrong hit     the page found has another identity by now, or only looked as if it had this one
//!   false miss    the walk ended on a foreign chain; the page is there all the same
//! ```
//!
//! # The rule
//!
//! A hit is believed after comparing identity under the page's lock (L3). A miss is believed after a second search under the
//! bucket lock. A lock is waited for as long as the page has the name, and no longer (K3 of [`crate::selock`]). A page found on the cache list is taken back ([`super::reclaim`]) before it is handed out: the result is never free.
//!
//! # The other road
//!
//! A lock per lookup is simpler, and two threads then run slower than one (0.95x measured).
//!
//! Sources: [SI §10.2]; illumos `page.h`, the locking protocol and its table.

use super::PageDb;
use crate::cx::Cx;
use crate::page::PageId;
use crate::selock::{ExclPage, LockedPage, SharedPage};
use crate::sync::{Mutation, mutated, prefetch_write};
use crate::vnode::Identity;

impl PageDb {
    /// The page named `id`, if there is one; a hint, for the page is not locked and may be on the cache list.
    #[doc(alias("page_exists", "page_find"))]
    #[inline]
    pub fn exists(&self, cx: &Cx, id: Identity) -> Option<PageId> {
        let found = self.hash().search_hint(cx, self.pages(), id).filter(|p| self.page(*p).is(id));
        if mutated(Mutation::MissBelieved) {
            return found;
        }
        found.or_else(|| self.hash().search_locked(cx, self.pages(), id))
    }
    /// Finds the page named `id` and locks it shared, waiting for the lock and taking it off the cache list if need be.
    #[doc(alias = "page_lookup")]
    #[inline]
    pub fn lookup_shared<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<SharedPage<'a>> {
        // Found at the first look, in use, and nobody in the way: all but always.
        let hint = self.hash().search_hint(cx, self.pages(), id);
        if let Some(found) = hint
            && let page = self.page(found)
            && let () = prefetch_write(page) // the first look would fetch the line for reading, the lock once more for writing
            && !page.is_free()
            && let Some(locked) = self.lock_shared_at_once(cx, found, page)
            && page.is(id)
            && !page.is_free()
        {
            return Some(locked);
        }
        if hint.is_none() && mutated(Mutation::MissBelieved) {
            return None;
        }
        self.lookup_shared_slow(cx, id)
    }
    #[cold]
    fn lookup_shared_slow<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<SharedPage<'a>> {
        loop {
            let found = self.exists(cx, id)?;
            if self.page(found).is_free() {
                let page = self.lock_excl_named(cx, found, id, false);
                if let Some(page) = page.and_then(|page| self.reclaim_named(cx, page, id)) {
                    return Some(page.downgrade());
                }
                continue;
            }
            let Some(page) = self.lock_shared_named(cx, found, id) else { continue };
            let believed = mutated(Mutation::HitBelieved);
            if (page.page().is(id) && !page.page().is_free()) || believed {
                return Some(page);
            }
        }
    }
    /// As [`PageDb::lookup_shared`], starting with a page that carried the name the last time somebody looked.
    #[inline]
    pub fn lookup_shared_hint<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        hint: Option<PageId>,
    ) -> Option<SharedPage<'a>> {
        if let Some(h) = hint
            && self.page(h).is(id)
            && let Some(page) = self.try_lock_shared(cx, h)
            && page.page().is(id)
            && !page.page().is_free()
        {
            return Some(page);
        }
        self.lookup_shared(cx, id)
    }
    /// Finds the page named `id` and locks it exclusively, waiting for the lock and taking it off the cache list if need be.
    #[doc(alias = "page_lookup")]
    pub fn lookup_excl<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<ExclPage<'a>> {
        loop {
            let page = self.lock_excl_named(cx, self.exists(cx, id)?, id, false);
            if let Some(page) = page.and_then(|page| self.reclaim_named(cx, page, id)) {
                return Some(page);
            }
        }
    }
    /// The same page exclusively: at once if nobody else holds it, else by its name, waiting. `None` when it has lost the name meanwhile, or has none.
    ///
    /// # Panics
    /// When the page is another database's (K5), and somebody else holds it.
    pub fn upgrade<'a>(&'a self, cx: &'a Cx, page: SharedPage<'a>) -> Option<ExclPage<'a>> {
        let page = match page.try_upgrade() {
            Ok(page) => return Some(page),
            Err(page) => page,
        };
        self.assert_own(&page);
        let name = page.identity();
        drop(page);
        self.lookup_excl(cx, name?)
    }
    /// Finds the page named `id` and locks it exclusively, waiting for the lock, but leaves it on the cache list if it is there. The caller
    /// destroys a free page or lets it go as it is.
    #[doc(alias = "P_NO_RECLAIM")]
    pub fn lookup_excl_cached<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<ExclPage<'a>> {
        loop {
            let page = self.lock_excl_named(cx, self.exists(cx, id)?, id, false);
            if let Some(page) = page.filter(|page| page.page().is(id)) {
                return Some(page);
            }
        }
    }
    /// If the locked page still is `id`, takes it back from the cache list when it was there.
    pub(super) fn reclaim_named<'a>(
        &'a self,
        cx: &'a Cx,
        page: ExclPage<'a>,
        id: Identity,
    ) -> Option<ExclPage<'a>> {
        if !page.page().is(id) {
            return None;
        }
        if page.page().is_free() {
            self.reclaim(cx, &page);
        }
        Some(page)
    }
    /// The page named `id`, shared, if it is there, in use, and lockable without waiting.
    #[doc(alias = "page_lookup_nowait")]
    pub fn try_lookup_shared<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<SharedPage<'a>> {
        let page = self.try_lock_shared(cx, self.exists(cx, id)?)?;
        (page.page().is(id) && !page.page().is_free()).then_some(page)
    }
    /// The same, and also if it is to be retired: for whoever starts over until it has the page, or has to say that somebody else does.
    pub fn lookup_shared_now<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<SharedPage<'a>> {
        let page = self.lock_shared_now(cx, self.exists(cx, id)?)?;
        (page.page().is(id) && !page.page().is_free()).then_some(page)
    }
    /// The page named `id`, exclusive, if it is there, in use, and lockable without waiting.
    #[doc(alias = "page_lookup_nowait")]
    pub fn try_lookup_excl<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<ExclPage<'a>> {
        self.try_lookup_excl_cached(cx, id).filter(|page| !page.page().is_free())
    }
    /// As [`PageDb::lookup_excl_cached`] if the page is lockable without waiting.
    pub fn try_lookup_excl_cached<'a>(&'a self, cx: &'a Cx, id: Identity) -> Option<ExclPage<'a>> {
        let page = self.try_lock_excl(cx, self.exists(cx, id)?)?;
        page.page().is(id).then_some(page)
    }
}
