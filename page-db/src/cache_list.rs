//! Free pages that keep their identity: lists by colour, in at the tail, out at the head.
//!
//! A page freed with a name is still hashed, so a later lookup takes it back without i/o. When a frame is wanted and no nameless one is
//! left, the page that has waited longest gives up its name. `dontneed` pages enter at the head: they go first.
//!
//! - C1: a cached page has a vnode, is hashed, has `P_FREE`, and is on exactly one list; no mapping, no claim.
//!
//! Sources: [SI §10.2]; illumos.md 7.4, behaviour 48.

use crate::cx::Cx;
use crate::heap::NoHeap;
use crate::lists::Bins;
use crate::page::{PageArray, PageId};
use alloc::vec::Vec;

/// The cache lists.
#[doc(alias("page_cachelists", "page_list_add", "page_list_sub", "cachefree"))]
#[derive(Debug)]
pub struct CacheList {
    bins: Bins,
}

impl CacheList {
    pub(crate) fn new(colours: u32) -> Result<Self, NoHeap> {
        Ok(Self { bins: Bins::new(colours)? })
    }
    /// Pages on the lists.
    pub fn count(&self) -> u64 {
        self.bins.total()
    }
    pub(crate) fn add(&self, cx: &Cx, pages: &PageArray, id: PageId, dontneed: bool) {
        self.bins.add(cx, pages, id, dontneed);
    }
    pub(crate) fn remove(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        self.bins.remove(cx, pages, id);
    }
    /// Takes the oldest page that `accept` (a try-lock) lets go.
    pub(crate) fn take(
        &self,
        cx: &Cx,
        pages: &PageArray,
        colour: u64,
        accept: impl FnMut(PageId) -> bool,
    ) -> Option<PageId> {
        self.bins.take(cx, pages, colour, accept)
    }
    pub(crate) fn broken_link(&self, cx: &Cx, pages: &PageArray) -> Option<PageId> {
        self.bins.broken_link(cx, pages)
    }
    pub(crate) fn snapshot(&self, cx: &Cx, pages: &PageArray) -> Vec<Vec<PageId>> {
        self.bins.snapshot(cx, pages)
    }
}
