//! A doubly linked list of pages through `p_next`/`p_prev`, and bins of such lists by colour: the cache list's.

use crate::cx::Cx;
use crate::heap::{self, NoHeap};
use crate::lock::Rank;
use crate::page::{PageArray, PageId};
use crate::sync::SpinMutex;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// One list; guarded by the lock of its bin.
#[derive(Debug, Default)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    count: u64,
}

impl List {
    pub(crate) fn push_back(&mut self, pages: &PageArray, id: PageId) {
        let p = pages.get(id);
        p.next.store(0, Relaxed);
        p.prev.store(self.tail, Relaxed);
        match PageId::from_link(self.tail) {
            Some(t) => pages.get(t).next.store(id.link(), Relaxed),
            None => self.head = id.link(),
        }
        self.tail = id.link();
        self.count += 1;
    }
    pub(crate) fn push_front(&mut self, pages: &PageArray, id: PageId) {
        let p = pages.get(id);
        p.prev.store(0, Relaxed);
        p.next.store(self.head, Relaxed);
        match PageId::from_link(self.head) {
            Some(h) => pages.get(h).prev.store(id.link(), Relaxed),
            None => self.tail = id.link(),
        }
        self.head = id.link();
        self.count += 1;
    }
    pub(crate) fn remove(&mut self, pages: &PageArray, id: PageId) {
        let p = pages.get(id);
        let (next, prev) = (p.next.load(Relaxed), p.prev.load(Relaxed));
        match PageId::from_link(prev) {
            Some(b) => pages.get(b).next.store(next, Relaxed),
            None => self.head = next,
        }
        match PageId::from_link(next) {
            Some(a) => pages.get(a).prev.store(prev, Relaxed),
            None => self.tail = prev,
        }
        p.next.store(0, Relaxed);
        p.prev.store(0, Relaxed);
        self.count -= 1;
    }
    /// The first page whose back link is not the page before it, or the last of a list whose count is wrong.
    pub(crate) fn broken_link(&self, pages: &PageArray) -> Option<PageId> {
        let (mut prev, mut n) = (0, 0);
        for id in self.iter(pages) {
            n += 1;
            if pages.get(id).prev.load(Relaxed) != prev || n > self.count {
                return Some(id);
            }
            prev = id.link();
        }
        if prev != self.tail || n != self.count { PageId::from_link(prev.max(1)) } else { None }
    }
    pub(crate) fn iter<'a>(&self, pages: &'a PageArray) -> impl Iterator<Item = PageId> + 'a {
        let mut next = self.head;
        core::iter::from_fn(move || {
            let id = PageId::from_link(next)?;
            next = pages.get(id).next.load(Relaxed);
            Some(id)
        })
    }
}

/// Colours in order of distance from the wanted one of `n`: itself, then outwards on both sides.
pub(crate) fn nearest(n: usize, colour: u64) -> impl Iterator<Item = usize> {
    let c = colour as usize & (n - 1);
    (0..n).map(move |i| {
        let bin = if i % 2 == 1 { c + i.div_ceil(2) } else { c + n - i / 2 };
        bin & (n - 1)
    })
}

/// Lists by colour, each behind its own lock, with a total that can be read without any.
pub(crate) struct Bins {
    bins: Box<[SpinMutex<List>]>,
    total: AtomicU64,
}

impl Bins {
    pub(crate) fn new(colours: u32) -> Result<Self, NoHeap> {
        let n = colours.max(1).next_power_of_two();
        let bin = |_| SpinMutex::new(Rank::FreeList, List::default());
        Ok(Self { bins: heap::boxed(n as usize, bin)?, total: AtomicU64::new(0) })
    }
    pub(crate) fn total(&self) -> u64 {
        self.total.load(SeqCst)
    }
    pub(crate) fn colour_of(&self, pages: &PageArray, id: PageId) -> usize {
        (pages.pfn(id).0 as usize) & (self.bins.len() - 1)
    }
    pub(crate) fn add(&self, cx: &Cx, pages: &PageArray, id: PageId, front: bool) {
        let mut list = self.bins[self.colour_of(pages, id)].lock_nested(cx);
        if front {
            list.push_front(pages, id);
        } else {
            list.push_back(pages, id);
        }
        self.total.fetch_add(1, SeqCst); // F3
    }
    pub(crate) fn remove(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        self.bins[self.colour_of(pages, id)].lock_nested(cx).remove(pages, id);
        self.total.fetch_sub(1, Relaxed);
    }
    /// Takes the first page that `accept` lets go, from the wanted bin outwards.
    pub(crate) fn take(
        &self,
        cx: &Cx,
        pages: &PageArray,
        colour: u64,
        mut accept: impl FnMut(PageId) -> bool,
    ) -> Option<PageId> {
        if self.total() == 0 {
            return None;
        }
        for b in nearest(self.bins.len(), colour) {
            let mut list = self.bins[b].lock_nested(cx);
            let found = list.iter(pages).find(|id| accept(*id));
            if let Some(id) = found {
                list.remove(pages, id);
                self.total.fetch_sub(1, Relaxed);
                return Some(id);
            }
        }
        None
    }
    /// See [`List::broken_link`].
    pub(crate) fn broken_link(&self, cx: &Cx, pages: &PageArray) -> Option<PageId> {
        self.bins.iter().find_map(|b| b.lock_nested(cx).broken_link(pages))
    }
    /// The ids on each list, for checks and views.
    pub(crate) fn snapshot(&self, cx: &Cx, pages: &PageArray) -> Vec<Vec<PageId>> {
        self.bins.iter().map(|b| b.lock_nested(cx).iter(pages).collect()).collect()
    }
}

impl fmt::Debug for Bins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bins")
            .field("colours", &self.bins.len())
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}
