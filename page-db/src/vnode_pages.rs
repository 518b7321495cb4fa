//! `v_pages`: the pages of one vnode, a circular list through the page array.
//!
//! A new page goes to the front. Guarded by the vnode's list lock; ids of pages met on a walk are hints until locked.

use crate::page::{PageArray, PageId};
use crate::sync::atomic::Ordering::Relaxed;

/// Head and length of the list.
#[derive(Debug, Default)]
pub struct VnodePages {
    head: u32,
    count: u64,
}

impl VnodePages {
    /// Number of pages.
    pub fn count(&self) -> u64 {
        self.count
    }
    /// The page most recently put on the list.
    pub fn first(&self) -> Option<PageId> {
        PageId::from_link(self.head)
    }
    /// Puts a page at the front.
    #[doc(alias = "page_vpadd")]
    pub(crate) fn add(&mut self, pages: &PageArray, id: PageId) {
        self.add_last(pages, id);
        self.head = id.link();
    }
    /// Puts a page at the end.
    pub(crate) fn add_last(&mut self, pages: &PageArray, id: PageId) {
        let p = pages.get(id);
        match PageId::from_link(self.head) {
            None => {
                p.vp_next.store(id.link(), Relaxed);
                p.vp_prev.store(id.link(), Relaxed);
                self.head = id.link();
            }
            Some(h) => {
                let tail = pages.get(h).vp_prev.load(Relaxed);
                p.vp_next.store(h.link(), Relaxed);
                p.vp_prev.store(tail, Relaxed);
                pages.get(h).vp_prev.store(id.link(), Relaxed);
                pages.get(PageId(tail)).vp_next.store(id.link(), Relaxed);
            }
        }
        self.count += 1;
    }
    /// Takes a page off.
    #[doc(alias = "page_vpsub")]
    pub(crate) fn sub(&mut self, pages: &PageArray, id: PageId) {
        let p = pages.get(id);
        let (next, prev) = (p.vp_next.load(Relaxed), p.vp_prev.load(Relaxed));
        debug_assert!(next != 0, "P1: a named page is on its vnode's list");
        if next == id.link() {
            self.head = 0;
        } else {
            pages.get(PageId(prev)).vp_next.store(next, Relaxed);
            pages.get(PageId(next)).vp_prev.store(prev, Relaxed);
            if self.head == id.link() {
                self.head = next;
            }
        }
        p.vp_next.store(0, Relaxed);
        p.vp_prev.store(0, Relaxed);
        self.count -= 1;
    }
    /// The pages from the front, at most `count` of them.
    pub fn iter<'a>(&self, pages: &'a PageArray) -> impl Iterator<Item = PageId> + 'a {
        let mut next = self.head;
        (0..self.count).map_while(move |_| {
            let id = PageId::from_link(next)?;
            next = pages.get(id).vp_next.load(Relaxed);
            Some(id)
        })
    }
}
