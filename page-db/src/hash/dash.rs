//! The page hash as a `dashmap`: the other road (see [`crate::hash`]).

use super::PageHash;
use crate::cx::Cx;
use crate::page::{PageArray, PageId};
use crate::vnode::Identity;
use alloc::vec::Vec;
use core::fmt;

/// The second implementation: a `dashmap` from identity to page. No guard of it is returned or held across another call.
pub struct DashHash {
    map: dashmap::DashMap<Identity, PageId>,
}

impl fmt::Debug for DashHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashHash").field("entries", &self.map.len()).finish()
    }
}

impl DashHash {
    /// A table with room for `pages` entries.
    pub fn new(pages: u64) -> Self {
        Self { map: dashmap::DashMap::with_capacity(usize::try_from(pages).unwrap_or(0)) }
    }
}

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
    fn replace(&self, _cx: &Cx, pages: &PageArray, id: Identity, from: PageId, to: PageId) {
        let mut entry = self.map.get_mut(&id).filter(|e| **e == from);
        let entry =
            entry.as_deref_mut().expect("H4: a page is filed under the identity it carries");
        pages.get(to).set_identity(Some(id));
        *entry = to;
        pages.get(from).set_identity(None);
    }
    fn chain_lengths(&self, _cx: &Cx, _pages: &PageArray) -> Vec<u64> {
        alloc::vec![0, self.map.len() as u64]
    }
    fn all(&self, _cx: &Cx, _pages: &PageArray) -> Vec<(Identity, PageId)> {
        self.map.iter().map(|e| (*e.key(), *e.value())).collect()
    }
}
