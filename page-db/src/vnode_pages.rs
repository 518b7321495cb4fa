//! `v_pages`: the pages of one vnode, a circular list through the page array.
//!
//! A new page goes to the front. Guarded by the vnode's list lock; ids of pages met on a walk are hints until locked.
//!
//! # Walks
//!
//! A file may have all of memory on its list, and every fault that makes or ends one of its pages takes the list's lock, spinning. So a walk holds the
//! lock for a piece of the list and lets go of it before the next. Meanwhile pages come and go, also the one where the walk goes on. Where that is stands
//! in the list itself, and whoever takes that page off moves the walk on to the next:
//!
//! ```text
//!   head ─▶ p9 ─▶ p4 ─▶ p7 ─▶ p2 ─▶ (head)         p7 is taken off: the walk goes on at p2; p2 too: it has ended
//!            met   met    ▲ walk 1
//! ```
//!
//! - Q1: a walk meets every page that is on the list from its beginning to its end, once; and one put at the end meanwhile, unless it had got there.
//! - Q2: at most `PIECE` pages are looked at under the lock, and nothing is asked of the heap: room to note a walk is brought along.
//!
//! The other road is a page that marks the place, held shared meanwhile: no room needed, but a page that somebody else holds cannot mark it, and one that is
//! held for a walk's sake is passed over by page-out.

use crate::page::{PageArray, PageId};
use crate::sync::atomic::Ordering::Relaxed;
use alloc::vec::Vec;
use core::mem;

/// Pages looked at before a walk lets go of the list's lock.
pub(crate) const PIECE: usize = 64;

/// A walk under way.
#[derive(Debug)]
pub(crate) struct Walk {
    number: u64,
    /// Link of the page it goes on at; 0 at the end.
    next: u32,
}

/// How far a piece of a walk has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// To the end; the walk is forgotten.
    End,
    /// It goes on under this number.
    More(u64),
    /// There is no room to note where it goes on: bring some ([`VnodePages::give_room`]) and begin again.
    NoRoom,
}

/// Head and length of the list.
#[doc(alias("page_vpadd", "page_vpsub"))]
#[derive(Debug, Default)]
pub struct VnodePages {
    head: u32,
    count: u64,
    /// In ascending order of their numbers.
    walks: Vec<Walk>,
    /// Cost: pages that walks have looked at.
    met: u64,
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
        if !self.walks.is_empty() {
            self.move_on(id.link(), self.behind(id.link(), next));
        }
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
    /// What a walk meets after the page `at`, whose link to the next is `next`: nothing after the last.
    fn behind(&self, at: u32, next: u32) -> u32 {
        let last = next == at || (next == self.head && at != self.head);
        if last { 0 } else { next }
    }
    /// Walks that go on at `from` do so at `to`.
    #[cold]
    fn move_on(&mut self, from: u32, to: u32) {
        for walk in self.walks.iter_mut().filter(|w| w.next == from) {
            walk.next = to;
        }
    }
    /// Calls `met` for the next piece of a walk, or of a new one.
    pub(crate) fn walk(
        &mut self,
        pages: &PageArray,
        number: Option<u64>,
        mut met: impl FnMut(PageId),
    ) -> Step {
        let noted = number.and_then(|n| self.noted(n));
        let mut at = noted.map_or(self.head, |i| self.walks[i].next);
        for _ in 0..PIECE {
            let Some(id) = PageId::from_link(at) else { break };
            met(id);
            self.met += 1;
            let next = pages.get(id).vp_next.load(Relaxed);
            // The head may be met first, and never again.
            at = if next == self.head { 0 } else { next };
        }
        match noted {
            Some(i) if at != 0 => {
                self.walks[i].next = at;
                Step::More(self.walks[i].number)
            }
            None if at != 0 => self.note(at),
            Some(i) => {
                self.walks.remove(i);
                Step::End
            }
            None => Step::End,
        }
    }
    fn noted(&self, number: u64) -> Option<usize> {
        self.walks.binary_search_by_key(&number, |w| w.number).ok()
    }
    fn note(&mut self, next: u32) -> Step {
        if self.walks.len() == self.walks.capacity() {
            return Step::NoRoom;
        }
        let number = self.walks.last().map_or(1, |w| w.number + 1);
        self.walks.push(Walk { number, next });
        Step::More(number)
    }
    /// Forgets a walk that does not go on.
    pub(crate) fn end_walk(&mut self, number: u64) {
        if let Some(i) = self.noted(number) {
            self.walks.remove(i);
        }
    }
    /// Walks under way.
    pub(crate) fn walks(&self) -> usize {
        self.walks.len()
    }
    /// Pages that walks have looked at so far.
    pub(crate) fn met(&self) -> u64 {
        self.met
    }
    /// Takes `room` for walks if it is more than there is, and answers with what is left over, to be dropped without the lock.
    pub(crate) fn give_room(&mut self, mut room: Vec<Walk>) -> Vec<Walk> {
        if room.capacity() > self.walks.capacity() {
            room.append(&mut self.walks);
            mem::swap(&mut room, &mut self.walks);
        }
        room
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

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::units::Pfn;

    struct Rig {
        pages: PageArray,
        list: VnodePages,
    }

    impl Rig {
        /// A list of `n` pages, the last of the array at the front.
        fn new(n: u64) -> Self {
            let pages = PageArray::new(Pfn(1), n + 8).expect("heap");
            let mut list = VnodePages::default();
            for id in pages.ids().take(n as usize) {
                list.add(&pages, id);
            }
            drop(list.give_room(Vec::with_capacity(4)));
            Self { pages, list }
        }
        fn id(&self, n: usize) -> PageId {
            self.pages.ids().nth(n).expect("a page")
        }
        fn piece(&mut self, number: Option<u64>) -> (Step, Vec<PageId>) {
            let mut met = Vec::new();
            let step = self.list.walk(&self.pages, number, |id| met.push(id));
            assert!(met.len() <= PIECE, "Q2");
            (step, met)
        }
        /// The rest of walk `n`, which then is forgotten.
        fn rest(&mut self, n: u64) -> Vec<PageId> {
            let (mut all, mut step) = (Vec::new(), Step::More(n));
            while let Step::More(n) = step {
                let (then, met) = self.piece(Some(n));
                all.extend(met);
                step = then;
            }
            assert_eq!((step, self.list.walks()), (Step::End, 0));
            all
        }
    }

    #[test]
    fn a_walk_meets_what_is_there_throughout_once() {
        for n in [0, 1, 63, 64, 65, 128, 200] {
            let mut r = Rig::new(n);
            let (step, mut met) = r.piece(None);
            if let Step::More(walk) = step {
                met.extend(r.rest(walk));
            }
            let want: Vec<_> = (0..n as usize).rev().map(|i| r.id(i)).collect();
            assert_eq!(met, want, "{n} pages");
        }
    }

    #[test]
    fn a_walk_goes_on_where_its_page_is_taken_off() {
        // 100 pages: the first piece meets 99 to 36.
        type Change = fn(&mut Rig);
        fn take(r: &mut Rig, ids: impl Iterator<Item = usize>) {
            for n in ids {
                let id = r.id(n);
                r.list.sub(&r.pages, id);
            }
        }
        let cases: [(Change, core::ops::Range<usize>); 6] = [
            (|r| take(r, 35..36), 0..35),
            (|r| take(r, (0..36).rev()), 0..0),
            (|r| take(r, 0..36), 0..0),
            (|r| take(r, (36..100).rev()), 0..36), // where it goes on is the head now
            (|r| take(r, (35..100).rev()), 0..35),
            (|r| take(r, 1..100), 0..1),
        ];
        for (i, (change, rest)) in cases.into_iter().enumerate() {
            let mut r = Rig::new(100);
            let (Step::More(walk), _) = r.piece(None) else { panic!("more than a piece") };
            change(&mut r);
            let want: Vec<_> = rest.rev().map(|n| r.id(n)).collect();
            assert_eq!(r.rest(walk), want, "case {i}");
        }
    }

    #[test]
    fn new_pages_are_met_at_the_end_only() {
        let mut r = Rig::new(100);
        let (Step::More(walk), _) = r.piece(None) else { panic!("more than a piece") };
        let (front, back) = (r.id(100), r.id(101));
        r.list.add(&r.pages, front);
        r.list.add_last(&r.pages, back);
        let want: Vec<_> = (0..36).rev().map(|n| r.id(n)).chain([back]).collect();
        assert_eq!(r.rest(walk), want);
    }

    #[test]
    fn walks_beside_each_other_need_room_each() {
        let mut r = Rig::new(100);
        let walks: Vec<_> = (0..4).map(|_| r.piece(None).0).collect();
        assert_eq!(r.piece(None).0, Step::NoRoom);
        drop(r.list.give_room(Vec::with_capacity(8)));
        let Step::More(fifth) = r.piece(None).0 else { panic!("room now") };
        for step in walks {
            let Step::More(n) = step else { panic!("room") };
            assert_eq!(r.piece(Some(n)).0, Step::End);
        }
        assert_eq!(r.rest(fifth).len(), 36);
    }
}
