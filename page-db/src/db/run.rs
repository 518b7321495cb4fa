//! Many pages at once: the verbs of exit, unmap, populate and fault-ahead.
//!
//! # The difficulty
//!
//! Ending one page by its name takes a page lock, a vnode list, a bucket and a magazine, and waits for three lines one after the other:
//! the bucket, the page, its neighbours on the vnode's list. An exit does that for every page it had.
//!
//! # The rule
//!
//! Names are worked on sixteen at a time, each step for all of them before the next, so that the misses of one step overlap and a lock that
//! several of them need is taken once:
//!
//! ```text
//!   prefetch buckets ─▶ search, prefetch pages ─▶ try-lock, compare ─▶ unload ─▶ vnode list, once for each run of one vnode
//!                                                                                   │
//!        magazine, once ◀─ unlock ◀─ settle, once ◀─ buckets, once for each run under one lock
//! ```
//!
//! - U1: a batch only *tries* page locks and waits for none while it holds others. What it cannot have at once is done alone,
//!   by the verb for one page, after the batch has let go of everything.
//! - U2: the outcome is that of the verb for one page, name by name, in the order given; so are the counters.
//!
//! # The other road
//!
//! Walking the vnode's list instead of asking for names: shorter where a whole file goes, but anonymous pages of one process lie
//! among those of others.

use super::PageDb;
use crate::Reserve;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::error::PageError;
use crate::fail::FailKind;
use crate::mappings::RefMod;
use crate::page::PageId;
use crate::selock::{ExclPage, LockedPage, SharedPage};
use crate::sync::{Mutation, mutated, prefetch_write};
use crate::vnode::Identity;
use alloc::vec::Vec;
use core::array;

/// Names worked on together.
const BATCH: usize = 16;

/// A page asked for by name, and where it was the last time somebody looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its name.
    pub id: Identity,
    /// A page that may carry the name; it is compared, and searched for when it does not.
    pub hint: Option<PageId>,
}

impl From<Identity> for Wanted {
    fn from(id: Identity) -> Self {
        Self { id, hint: None }
    }
}

impl PageDb {
    /// Where the pages of a batch probably are; their structures are on the way into the cache.
    fn search_batch(&self, cx: &Cx, names: &[Wanted]) -> [Option<PageId>; BATCH] {
        for w in names {
            self.hash().prefetch(w.id);
            if let Some(h) = w.hint {
                prefetch_write(self.page(h));
            }
        }
        let mut found = [None; BATCH];
        for (w, found) in names.iter().zip(&mut found) {
            *found = match w.hint {
                Some(h) if self.page(h).is(w.id) => Some(h),
                _ => self.hash().search_hint(cx, self.pages(), w.id),
            };
            if let Some(p) = *found {
                prefetch_write(self.page(p));
            }
        }
        found
    }

    /// Destroys the pages named `names`, those that exist; says how many did. The same as [`PageDb::lookup_excl`] and [`PageDb::destroy`]
    /// for each. Waits for page locks: the caller holds none.
    ///
    /// # Panics
    /// When a page is in transit though its lock could be had (K4).
    pub fn destroy_run(&self, cx: &Cx, names: &[Wanted]) -> u64 {
        names.chunks(BATCH).map(|batch| self.destroy_batch(cx, batch)).sum()
    }
    fn destroy_batch(&self, cx: &Cx, names: &[Wanted]) -> u64 {
        let found = self.search_batch(cx, names);
        let mut held: [Option<ExclPage<'_>>; BATCH] = array::from_fn(|_| None);
        let mut alone = [None; BATCH];
        for (i, (w, found)) in names.iter().zip(found).enumerate() {
            let page = found.and_then(|p| self.try_lock_excl(cx, p));
            match page.and_then(|page| self.reclaim_named(cx, page, w.id)) {
                Some(page) => held[i] = Some(page),
                None => alone[i] = Some(w.id),
            }
        }
        // held: the pages (exclusive)
        let mut ended = self.destroy_held(cx, &mut held);
        // held: nothing (U1)
        for id in alone.into_iter().flatten() {
            let page = if mutated(Mutation::PushNotAwaited) {
                self.try_lookup_excl(cx, id)
            } else {
                self.lookup_excl(cx, id)
            };
            if let Some(page) = page {
                self.destroy(cx, page);
                ended += 1;
            }
        }
        ended
    }
    /// Ends pages in use that are held exclusively, and says how many there were.
    fn destroy_held(&self, cx: &Cx, held: &mut [Option<ExclPage<'_>>; BATCH]) -> u64 {
        for page in held.iter().flatten() {
            if page.page().is_mapped() {
                self.unload(cx, page);
            }
            self.drop_claims(page);
        }
        let n = held.iter().flatten().count() as u64;
        self.hash_out_run(cx, held);
        // Somebody who has just unmapped one of them may still owe the flush. An orphan that is let go here is its borrower's from then on.
        self.settle(cx);
        for place in held.iter_mut() {
            match place {
                Some(page) if self.disown(page.page()) => *place = None,
                Some(page) => self.assert_unused(page),
                None => {}
            }
        }
        let mut freed = [None; BATCH];
        for (page, freed) in held.iter_mut().zip(&mut freed) {
            if let Some(page) = page.take() {
                self.mark_free(&page);
                cx.count(Counter::FrameFrees);
                *freed = Some(page.id());
                page.unlock_quietly();
            }
        }
        self.free_nameless(cx, freed.into_iter().flatten());
        n
    }
    /// Takes the names of pages as [`PageDb::hash_out`] does.
    fn hash_out_run(&self, cx: &Cx, held: &[Option<ExclPage<'_>>; BATCH]) {
        let mut rest = held.iter().flatten().peekable();
        while let Some(first) = rest.next() {
            let Some(id) = first.identity() else { continue };
            let same = |p: &&ExclPage<'_>| p.identity().is_some_and(|i| i.vnode == id.vnode);
            let mut list = self.vnodes().slot(id.vnode).pages.lock(cx);
            list.sub(self.pages(), first.id());
            while let Some(page) = rest.next_if(same) {
                list.sub(self.pages(), page.id());
            }
        }
        let mut ids = held.iter().flatten().map(LockedPage::id);
        self.hash().remove_run(cx, self.pages(), &mut ids);
        for page in held.iter().flatten() {
            self.forget_name(page);
        }
    }

    /// For each name the page, shared, if it is in use and lockable without waiting, as [`PageDb::try_lookup_shared`] finds it; says how many
    /// there are. A page may be overlooked while pages around it in the hash move: for fault-ahead, which may skip any.
    pub fn try_lookup_shared_run<'a>(
        &'a self,
        cx: &'a Cx,
        names: &[Wanted],
        got: &mut [Option<SharedPage<'a>>],
    ) -> usize {
        let mut n = 0;
        for (names, got) in names.chunks(BATCH).zip(got.chunks_mut(BATCH)) {
            let found = self.search_batch(cx, names);
            for ((w, found), got) in names.iter().zip(found).zip(got) {
                let page = found.and_then(|p| self.try_lock_shared(cx, p));
                *got = page.filter(|page| page.page().is(w.id) && !page.page().is_free());
                n += usize::from(got.is_some());
            }
        }
        n
    }

    /// Makes the pages named `names`, in that order, as [`PageDb::create`] does, and appends them to `made`. Stops at the first that cannot be
    /// made; what was made before it stays. Colours follow one another from `colour` on.
    ///
    /// # Errors
    /// As [`PageDb::create`], for the name after the last one made.
    pub fn create_run<'a>(
        &'a self,
        cx: &'a Cx,
        names: &[Identity],
        colour: u64,
        reserve: Reserve,
        made: &mut Vec<ExclPage<'a>>,
    ) -> Result<(), PageError> {
        let first = made.len();
        for (i, names) in (0u64..).zip(names.chunks(BATCH)) {
            names.iter().for_each(|id| self.hash().prefetch(*id));
            let from = made.len();
            let colour = colour.wrapping_add(i * BATCH as u64);
            let short = self.alloc_batch(cx, names.len(), colour, reserve, made).err();
            let named = self.hash_in_run(cx, &names[..made.len() - from], &made[from..]);
            let taken = named.err().map(|(n, e)| {
                made.drain(from + n..).for_each(|page| self.free(cx, page, false));
                e
            });
            for page in &made[from..] {
                page.start_io();
                page.page().set_ref_mod(RefMod::REF);
            }
            if let Some(e) = taken.or(short) {
                return Err(e);
            }
        }
        debug_assert_eq!(made.len() - first, names.len());
        Ok(())
    }
    /// Appends up to `count` (at most a batch) frames without a name to `got`, exclusively locked.
    fn alloc_batch<'a>(
        &'a self,
        cx: &'a Cx,
        count: usize,
        colour: u64,
        reserve: Reserve,
        got: &mut Vec<ExclPage<'a>>,
    ) -> Result<(), PageError> {
        let asked = if cx.may_fail() { count } else { 0 };
        let refused = (0..asked).position(|_| cx.fails(FailKind::Frame));
        let granted = refused.unwrap_or(count);
        let mut frames = [None; BATCH];
        self.free_list().take_magazine_run(cx, &mut frames[..granted]);
        // Those a magazine gave come first, so an error loses none.
        for (i, frame) in (0u64..).zip(&frames[..granted]) {
            got.push(match *frame {
                Some(id) => self.take_frame(cx, id),
                None => self.alloc_frame(cx, colour.wrapping_add(i), reserve)?,
            });
        }
        if refused.is_some() { Err(self.no_memory(1)) } else { Ok(()) }
    }
    /// Gives `pages` the names `names`, one each; the index of the first that cannot be given otherwise, from which on nothing has changed, and why.
    fn hash_in_run(
        &self,
        cx: &Cx,
        names: &[Identity],
        pages: &[ExclPage<'_>],
    ) -> Result<(), (usize, PageError)> {
        let unknown = names.iter().position(|id| self.vnodes().used_slot(id.vnode).is_none());
        let known = &names[..unknown.unwrap_or(names.len())];
        let mut pairs = known.iter().copied().zip(pages.iter().map(LockedPage::id));
        let n = self.hash().insert_run(cx, self.pages(), &mut pairs).err().unwrap_or(known.len());
        let mut at = 0;
        for same in names[..n].chunk_by(|a, b| a.vnode == b.vnode) {
            let (vnode, end) = (same[0].vnode, at + same.len());
            if !self.join_vnode(cx, self.vnodes().slot(vnode), &pages[at..end]) {
                let named = names[at..n].iter().zip(&pages[at..n]);
                named.for_each(|(id, page)| self.take_back(cx, page, *id));
                return Err((at, PageError::NoVnode { vnode }));
            }
            at = end;
        }
        if n < known.len() {
            return Err((n, PageError::Exists(names[n])));
        }
        unknown.map_or(Ok(()), |n| Err((n, PageError::NoVnode { vnode: names[n].vnode })))
    }
}
