//! Emptying slots, a chunk at a time.
//!
//! # The difficulty
//!
//! Exit gives up every anon a process has. One at a time that is a count, a search by name, a page lock, a list, a bucket, a magazine and a stack of
//! numbers for each, every one of them a line to wait for and most of them a lock that the next anon takes again.
//!
//! # The rule
//!
//! ```text
//!   slots busy     read the numbers, empty the slots, take a reference from each; whose last it was is dead
//!   slots free     dead: pages by name, with the record's hint ─▶ physical slots ─▶ numbers         each step for the whole chunk
//! ```
//!
//! - N5: the order of N4 holds for each anon: its page is gone before its slot, its slot before its number. Frames and numbers go back in the order
//!   of the slots.
//!
//! A slot is held busy while its reference goes, so a count of 1 is this slot's and needs no locked instruction (N3). Nothing is waited for meanwhile:
//! pages are, for a push in flight, when no slot is busy.
//!
//! Sources: DESIGN D6; uvm.md 2.4, 7.2 (C3).

use super::AnonLayer;
use super::array::{CHUNK, bits};
use super::map::AnonMap;
use alloc::vec::Vec;
use core::ops::Range;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated, prefetch_write};
use page_db::{Cx, FileOffset, Identity, PageId, VnodeId, Wanted};
use swapfs::{AnonNumber, SwapFs};

/// Names of numbers that follow each other, of which most are of the same swap vnode.
pub(crate) struct NameRun<'a> {
    swap: &'a SwapFs,
    /// The vnode looked up last, by its index.
    last: Option<(u32, VnodeId)>,
}

impl<'a> NameRun<'a> {
    pub(crate) fn new(swap: &'a SwapFs) -> Self {
        Self { swap, last: None }
    }
    /// As [`SwapFs::identity`].
    #[inline]
    pub(crate) fn identity(&mut self, n: AnonNumber) -> Identity {
        match self.last {
            Some((index, vnode)) if index == n.vnode_index() => Identity::new(vnode, n.offset()),
            _ => {
                let id = self.swap.identity(n);
                self.last = Some((n.vnode_index(), id.vnode));
                id
            }
        }
    }
}

/// Anons of a chunk that have lost their last reference, and their pages' names.
struct Dead<'a> {
    layer: &'a AnonLayer,
    names: NameRun<'a>,
    anons: [AnonNumber; CHUNK as usize],
    pages: [Wanted; CHUNK as usize],
    count: usize,
}

impl<'a> Dead<'a> {
    fn new(layer: &'a AnonLayer) -> Self {
        const NOBODY: AnonNumber = AnonNumber::from_raw(u32::MAX).expect("not 0");
        let nothing = Wanted::from(Identity::new(VnodeId(0), FileOffset(0)));
        Self {
            layer,
            names: NameRun::new(&layer.swap),
            anons: [NOBODY; CHUNK as usize],
            pages: [nothing; CHUNK as usize],
            count: 0,
        }
    }
    fn add(&mut self, n: AnonNumber, hint: Option<PageId>) {
        if let Some(page) = hint {
            prefetch_write(self.layer.db.page(page)); // wanted when the whole chunk is empty
        }
        self.anons[self.count] = n;
        self.pages[self.count] = Wanted { id: self.names.identity(n), hint };
        self.count += 1;
    }
    /// Frees them (N5). No page lock may be held.
    fn end(&mut self, cx: &Cx) {
        let dead = &self.anons[..self.count];
        let early = mutated(Mutation::NumberBeforePage);
        let since = self.layer.swap.removals_seen();
        if early {
            self.layer.swap.free_run(cx, dead, since);
        }
        self.layer.db.destroy_run(cx, &self.pages[..self.count]);
        dead.iter().for_each(|n| self.layer.anons.forget(*n));
        if !early {
            self.layer.swap.free_run(cx, dead, since);
        }
        self.count = 0;
    }
}

/// Dead anons that are freed later, when the caller holds less.
#[derive(Default)]
pub(crate) struct Later(Vec<(AnonNumber, Option<PageId>)>);

impl Later {
    /// Frees them (N5). No page lock may be held.
    pub(crate) fn end(self, cx: &Cx, layer: &AnonLayer) {
        for chunk in self.0.chunks(CHUNK as usize) {
            let mut dead = Dead::new(layer);
            chunk.iter().for_each(|(n, hint)| dead.add(*n, *hint));
            dead.end(cx);
        }
    }
}

impl AnonMap {
    /// Empties the slots of `range`; each anon loses one reference. Translations are gone by now.
    #[doc(alias("anon_free", "amap_wiperange"))]
    pub fn free_range(&self, cx: &Cx, range: Range<u64>) {
        self.empty_range(cx, range, &mut |_| {}, None);
    }
    /// The same while the range is mapped, and says how many slots held something: `unload` is called with slots that are busy, and takes the translations
    /// of their pages away before any is emptied. Dead anons go to `later`, if there is one and memory for them.
    pub(crate) fn empty_range(
        &self,
        cx: &Cx,
        range: Range<u64>,
        unload: &mut dyn FnMut(Range<u64>),
        mut later: Option<&mut Later>,
    ) -> u64 {
        let mut emptied = 0;
        let mut dead = Dead::new(self.layer());
        let mut records = self.layer().anons.run();
        let mut at = range.start;
        while at < range.end {
            let mut end = range.end;
            let fits = |l: &mut &mut Later| l.0.try_reserve(CHUNK as usize).is_ok();
            let mut room = if later.as_mut().is_some_and(fits) { later.as_mut() } else { None };
            self.each_chunk(cx, at..range.end, |c, base, mask| {
                let held = mask & c.used();
                if held != 0 {
                    let first = base + u64::from(held.trailing_zeros());
                    unload(first..base + CHUNK - u64::from(held.leading_zeros()));
                }
                for i in bits(held) {
                    let n = AnonNumber::from_raw(c.slots[i].load(Ordering::Relaxed));
                    let Some(n) = n else { continue };
                    c.slots[i].store(0, Ordering::Release);
                    emptied += 1;
                    match (records.dec_busy(n), &mut room) {
                        ((true, hint), Some(later)) => later.0.push((n, hint)),
                        ((true, hint), None) => dead.add(n, hint),
                        _ => {}
                    }
                }
                end = base + CHUNK;
                false
            });
            // No slot is busy now: a page may have to be waited for.
            dead.end(cx);
            at = end;
        }
        emptied
    }
}
