//! What every implementation of a trait of this crate must do, as checks that anybody can run over their own.
//!
//! Each function panics at the first broken clause, naming it. Tests here run them over this crate's implementations; an embedder
//! runs them over another.

use crate::cx::{Cx, SpinHooks};
use crate::hash::PageHash;
use crate::page::{PageArray, PageId};
use crate::units::{CpuId, FileOffset, PAGE_SIZE, Pfn};
use crate::vnode::{Identity, VnodeId};
use crate::{Counters, ThreadId};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

const FRAMES: u64 = 256;

fn context() -> Cx {
    Cx::new(&Counters::new(1), CpuId(0), ThreadId(0), Arc::new(SpinHooks))
}
fn name(vnode: u32, page: u64) -> Identity {
    Identity::new(VnodeId(vnode), FileOffset(page.wrapping_mul(PAGE_SIZE)))
}

/// A hash under test with pages to file.
struct Bench {
    cx: Cx,
    hash: Box<dyn PageHash>,
    pages: PageArray,
    ids: Vec<PageId>,
}

impl Bench {
    fn new(make: &dyn Fn(u64) -> Box<dyn PageHash>) -> Self {
        let pages = PageArray::new(Pfn(0), FRAMES).expect("heap");
        let ids = pages.ids().collect();
        Self { cx: context(), hash: make(FRAMES), pages, ids }
    }
    fn insert(&self, id: Identity, page: PageId) -> Result<(), PageId> {
        self.hash.insert_unless_present(&self.cx, &self.pages, id, page)
    }
    fn remove(&self, id: Identity, page: PageId) {
        self.hash.remove(&self.cx, &self.pages, id, page);
    }
    #[track_caller]
    fn finds(&self, id: Identity, page: Option<PageId>) {
        let locked = self.hash.search_locked(&self.cx, &self.pages, id);
        assert_eq!(locked, page, "{}: a locked search for {id} is exact", self.hash.name());
        // Quiet, a hint may still miss (a chain longer than a walk) or take one name for another, as long as the page says otherwise.
        let hint = self.hash.search_hint(&self.cx, &self.pages, id);
        let believed = hint.filter(|page| self.pages.get(*page).is(id));
        assert!(believed == page || believed.is_none(), "{}: a hint for {id}", self.hash.name());
    }
}

/// The contract of [`PageHash`]: exact when quiet, the first insert wins, identity and filing change together (H1 to H4).
///
/// # Panics
/// At the first clause that does not hold.
pub fn page_hash(make: impl Fn(u64) -> Box<dyn PageHash>) {
    files_and_finds(&Bench::new(&make));
    the_first_insert_wins(&Bench::new(&make));
    names_at_the_edges(&Bench::new(&make));
    many_names(&Bench::new(&make));
    #[cfg(all(feature = "std", not(shuttle)))]
    under_threads(&Bench::new(&make));
}

fn files_and_finds(b: &Bench) {
    let (id, page) = (name(1, 5), b.ids[0]);
    b.finds(id, None);
    assert_eq!(b.insert(id, page), Ok(()), "an absent name can be filed");
    assert_eq!(b.pages.get(page).identity(), Some(id), "filing gives the page its name (H4)");
    b.finds(id, Some(page));
    b.finds(name(1, 6), None);
    b.finds(name(2, 5), None);
    b.remove(id, page);
    assert_eq!(b.pages.get(page).identity(), None, "removing takes the name (H4)");
    b.finds(id, None);
    // The same page under another name, and another page under the old one.
    assert_eq!(b.insert(name(9, 9), page), Ok(()));
    assert_eq!(b.insert(id, b.ids[1]), Ok(()));
    b.finds(name(9, 9), Some(page));
    b.finds(id, Some(b.ids[1]));
    let mut all = b.hash.all(&b.cx, &b.pages);
    all.sort_unstable();
    assert_eq!(all, [(id, b.ids[1]), (name(9, 9), page)], "all() lists every entry once");
}

fn the_first_insert_wins(b: &Bench) {
    let id = name(3, 0);
    assert_eq!(b.insert(id, b.ids[0]), Ok(()));
    assert_eq!(b.insert(id, b.ids[1]), Err(b.ids[0]), "the loser learns who won (H3)");
    assert_eq!(b.pages.get(b.ids[1]).identity(), None, "the loser stays nameless");
    b.finds(id, Some(b.ids[0]));
    b.remove(id, b.ids[0]);
    assert_eq!(b.insert(id, b.ids[1]), Ok(()));
    b.finds(id, Some(b.ids[1]));
}

fn names_at_the_edges(b: &Bench) {
    let last = u64::MAX / PAGE_SIZE;
    let names = [name(1, 0), name(1, last), name(u32::MAX, 0), name(u32::MAX, last)];
    for (n, page) in names.into_iter().zip(&b.ids) {
        assert_eq!(b.insert(n, *page), Ok(()));
    }
    for (n, page) in names.into_iter().zip(&b.ids) {
        b.finds(n, Some(*page));
    }
}

/// Runs of neighbours in several vnodes, then every other one removed from the front of its chain, its middle or its end.
fn many_names(b: &Bench) {
    let names: Vec<Identity> =
        (0..FRAMES).map(|i| name(1 + (i % 4) as u32, (i / 4) * 64 + i % 3)).collect();
    for (n, page) in names.iter().zip(&b.ids) {
        assert_eq!(b.insert(*n, *page), Ok(()));
    }
    let lengths = b.hash.chain_lengths(&b.cx, &b.pages);
    let counted: u64 = lengths.iter().zip(0u64..).map(|(chains, n)| chains * n).sum();
    assert!(
        counted <= FRAMES,
        "chain lengths add up to the entries, the last bucket counting for less"
    );
    for (i, (n, page)) in names.iter().zip(&b.ids).enumerate() {
        if i % 2 == 0 {
            b.remove(*n, *page);
        }
    }
    for (i, (n, page)) in names.iter().zip(&b.ids).enumerate() {
        b.finds(*n, (i % 2 == 1).then_some(*page));
    }
    assert_eq!(b.hash.all(&b.cx, &b.pages).len() as u64, FRAMES / 2);
}

/// A page that stays filed is never missed by hint-then-locked while others are rehashed around it, and one inserter wins each name.
#[cfg(all(feature = "std", not(shuttle)))]
fn under_threads(b: &Bench) {
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let (hash, pages) = (&*b.hash, &b.pages);
    let fixed: Vec<_> = (0..8).map(|i| (name(1, i * 3), b.ids[i as usize])).collect();
    for (n, page) in &fixed {
        assert_eq!(b.insert(*n, *page), Ok(()));
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let movers = [0u64, 1].map(|t| {
            let mine = &b.ids[(16 + t * 100) as usize..(116 + t * 100) as usize];
            s.spawn(move || {
                let cx = context();
                for round in 0..300u64 {
                    for (i, page) in mine.iter().enumerate() {
                        // Names collide between the movers in part.
                        let n = name(1 + (round % 3) as u32, 1 + (i as u64 * 7 + round) % 120 * 3);
                        match hash.insert_unless_present(&cx, pages, n, *page) {
                            Ok(()) => hash.remove(&cx, pages, n, *page),
                            Err(winner) => assert_ne!(winner, *page, "H3"),
                        }
                    }
                }
            })
        });
        let (fixed, stop) = (&fixed, &stop);
        s.spawn(move || {
            let cx = context();
            while !stop.load(SeqCst) {
                for (n, page) in fixed {
                    let found = hash
                        .search_hint(&cx, pages, *n)
                        .filter(|p| pages.get(*p).is(*n))
                        .or_else(|| hash.search_locked(&cx, pages, *n));
                    assert_eq!(found, Some(*page), "H2: {n} was there all the time");
                }
            }
        });
        let ended = movers.map(|m| m.join());
        stop.store(true, SeqCst);
        assert!(ended.iter().all(Result::is_ok), "a mover failed");
    });
    assert_eq!(hash.all(&b.cx, pages).len(), fixed.len());
}
