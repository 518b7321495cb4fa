//! Which frames are free: a bit for each, by colour, with summaries above, so that the next one by address is found in a few steps.
//!
//! ```text
//!   level 2                    [1 0 0 ...]            a bit: the word below is not 0
//!   level 1          [1 0 1 ...]         [0 ...]
//!   level 0   [0110 ...] [0] [1 ...]                  a bit: this frame is free
//!                  ^ cursor: the next search begins here and goes round
//! ```
//!
//! A search goes up until a word has a bit at or after the cursor and down again by first bits: two words a level, and three levels
//! hold a gigabyte. A run takes the bits of a word one after the other, so neighbours cost a count of zeros each.
//!
//! - M1: a bit of a summary is set exactly when the word below it is not 0.
//! - M2: `count` is the number of frames put in and not taken out, hence of bits; a frame put in twice makes them differ.
//! - M3: a frame in a map has no links: it is on no list.
//!
//! One map and one lock for each colour, and not one map searched under a mask of colours: a summary over all colours cannot tell that one of
//! them is used up, and the search would look at every word.

use crate::cx::Cx;
use crate::heap::{self, NoHeap};
use crate::lists::nearest;
use crate::lock::Rank;
use crate::page::{PageArray, PageId};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use crate::sync::{Mutation, SpinMutex, mutated};
use crate::units::Pfn;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Bits of a word.
const WORD: usize = u64::BITS as usize;

/// A set of small numbers that is taken from in ascending order, round and round.
#[derive(Debug)]
struct FrameMap {
    /// The bits, then each summary of the level before it; the last is one word.
    levels: Box<[Box<[u64]>]>,
    cursor: usize,
    count: u64,
}

impl FrameMap {
    fn new(size: usize) -> Result<Self, NoHeap> {
        let mut levels = Vec::new(); // a handful
        let mut words = size;
        loop {
            words = words.div_ceil(WORD).max(1);
            levels.push(heap::boxed(words, |_| 0)?);
            if words == 1 {
                break;
            }
        }
        Ok(Self { levels: levels.into(), cursor: 0, count: 0 })
    }
    fn add(&mut self, at: usize) {
        self.count += 1;
        let mut at = at;
        for level in &mut self.levels {
            let word = &mut level[at / WORD];
            let was = core::mem::replace(word, *word | 1 << (at % WORD));
            if was != 0 {
                break;
            }
            at /= WORD;
        }
    }
    /// Clears `bits` of the lowest word `word`.
    fn clear(&mut self, word: usize, bits: u64) {
        let (mut at, mut bits) = (word, bits);
        for level in &mut self.levels {
            level[at] &= !bits;
            if level[at] != 0 {
                break;
            }
            (at, bits) = (at / WORD, 1 << (at % WORD));
        }
    }
    fn holds(&self, at: usize) -> bool {
        self.levels[0][at / WORD] & 1 << (at % WORD) != 0
    }
    fn take_this(&mut self, at: usize) -> bool {
        let bit = 1 << (at % WORD);
        let there = self.holds(at);
        if there {
            self.clear(at / WORD, bit);
            self.count -= 1;
        }
        there
    }
    /// The first member at or after `from`.
    fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(at / WORD)? >> (at % WORD);
            if rest != 0 {
                let top = at + rest.trailing_zeros() as usize;
                let below = self.levels[..height].iter().rev();
                return Some(below.fold(top, |w, l| w * WORD + l[w].trailing_zeros() as usize));
            }
            at = at / WORD + 1;
        }
        None
    }
    /// Takes up to `want` members from the cursor on and says how many.
    fn take_run(&mut self, want: usize, mut each: impl FnMut(usize)) -> usize {
        let mut taken = 0;
        while taken < want {
            let Some(first) = self.next(self.cursor).or_else(|| self.next(0)) else { break };
            let word = first / WORD;
            let there = self.levels[0][word] & (u64::MAX << (first % WORD));
            let mut left = there;
            while left != 0 && taken < want {
                let at = word * WORD + left.trailing_zeros() as usize;
                left &= left - 1;
                taken += 1;
                self.cursor = at + 1;
                each(at);
            }
            self.clear(word, there & !left);
        }
        self.count -= taken as u64;
        taken
    }
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let at = self.next(from)?;
            from = at + 1;
            Some(at)
        })
    }
    /// A member near which M1 or M2 does not hold.
    fn broken(&self) -> Option<usize> {
        for (height, pair) in self.levels.windows(2).enumerate() {
            let summary = |w: usize| pair[1][w / WORD] >> (w % WORD) & 1 != 0;
            if let Some(w) = (0..pair[0].len()).find(|w| summary(*w) != (pair[0][*w] != 0)) {
                return Some(w * WORD.pow(height as u32 + 1));
            }
        }
        let bits: u64 = self.levels[0].iter().map(|w| u64::from(w.count_ones())).sum();
        (bits != self.count).then_some(self.cursor)
    }
}

/// The free frames by colour, each colour behind its own lock, with a total that can be read without any. A magazine's lock, of the same
/// rank, may be held around all of this (magazine before map).
pub(crate) struct FrameMaps {
    maps: Box<[SpinMutex<FrameMap>]>,
    /// The first frame number without its colour.
    base: u64,
    total: AtomicU64,
}

impl FrameMaps {
    /// Maps for the frames of `pages`, none of them in.
    pub(crate) fn new(pages: &PageArray, colours: u32) -> Result<Self, NoHeap> {
        let n = colours.max(1).next_power_of_two();
        let first = pages.ids().next().map_or(0, |id| pages.pfn(id).0);
        let base = first >> n.trailing_zeros();
        let end = ((first + pages.len()) >> n.trailing_zeros()) + 1;
        let size = (end - base) as usize;
        let map = |_| Ok(SpinMutex::new(Rank::FreeList, FrameMap::new(size)?));
        Ok(Self { maps: heap::try_boxed(n as usize, map)?, base, total: AtomicU64::new(0) })
    }
    pub(crate) fn colours(&self) -> u64 {
        self.maps.len() as u64
    }
    pub(crate) fn total(&self) -> u64 {
        self.total.load(SeqCst) // F3
    }
    /// Where a page has its bit: the map and the place in it.
    fn place(&self, pages: &PageArray, id: PageId) -> (usize, usize) {
        let (pfn, n) = (pages.pfn(id).0, self.maps.len());
        ((pfn as usize) & (n - 1), ((pfn >> n.trailing_zeros()) - self.base) as usize)
    }
    fn pfn_at(&self, map: usize, at: usize) -> Pfn {
        Pfn(((at as u64 + self.base) << self.maps.len().trailing_zeros()) | map as u64)
    }
    fn page_at(&self, pages: &PageArray, map: usize, at: usize) -> PageId {
        pages.of_pfn(self.pfn_at(map, at)).expect("M2: only frames are put in")
    }
    pub(crate) fn add(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        let (map, at) = self.place(pages, id);
        let mut map = self.maps[map].lock_nested(cx);
        map.add(at);
        if mutated(Mutation::FreeCountedLate) {
            drop(map);
        }
        self.total.fetch_add(1, SeqCst); // before anybody can take it out
    }
    /// Puts pages in. Without colours the lock is taken once.
    pub(crate) fn add_all(
        &self,
        cx: &Cx,
        pages: &PageArray,
        ids: impl ExactSizeIterator<Item = PageId>,
    ) {
        if let [only] = &*self.maps {
            let n = ids.len() as u64;
            let mut map = only.lock_nested(cx);
            ids.for_each(|id| map.add(self.place(pages, id).1));
            self.total.fetch_add(n, SeqCst);
        } else {
            ids.for_each(|id| self.add(cx, pages, id));
        }
    }
    /// Whether a page is there.
    pub(crate) fn holds(&self, cx: &Cx, pages: &PageArray, id: PageId) -> bool {
        let (map, at) = self.place(pages, id);
        self.maps[map].lock_nested(cx).holds(at)
    }
    /// Takes a page out if it is there.
    pub(crate) fn take_this(&self, cx: &Cx, pages: &PageArray, id: PageId) -> bool {
        let (map, at) = self.place(pages, id);
        let there = self.maps[map].lock_nested(cx).take_this(at);
        self.total.fetch_sub(u64::from(there), Relaxed);
        there
    }
    /// Takes the next page of the wanted colour, else of the nearest.
    pub(crate) fn take(&self, cx: &Cx, pages: &PageArray, colour: u64) -> Option<PageId> {
        if self.total() == 0 {
            return None;
        }
        nearest(self.maps.len(), colour).find_map(|m| {
            let mut found = None;
            self.maps[m].lock_nested(cx).take_run(1, |at| found = Some(at));
            let at = found?;
            self.total.fetch_sub(1, Relaxed);
            Some(self.page_at(pages, m, at))
        })
    }
    /// Takes up to `want` pages, each of the colour after the one before if possible.
    pub(crate) fn take_run(
        &self,
        cx: &Cx,
        pages: &PageArray,
        colour: u64,
        want: usize,
        out: &mut Vec<PageId>,
    ) {
        if let [only] = &*self.maps {
            let mut map = only.lock_nested(cx);
            let n = map.take_run(want, |at| out.push(self.page_at(pages, 0, at)));
            self.total.fetch_sub(n as u64, Relaxed);
        } else {
            out.extend((0..want as u64).map_while(|i| self.take(cx, pages, colour + i)));
        }
    }
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn add_uncounted(&self, cx: &Cx, pages: &PageArray, id: PageId) {
        let (map, at) = self.place(pages, id);
        self.maps[map].lock_nested(cx).add(at);
    }
    /// A page at or near which a map is broken (M1, M2), or that is in a map and has links (M3).
    pub(crate) fn broken_link(&self, cx: &Cx, pages: &PageArray) -> Option<PageId> {
        let linked = |id: &PageId| {
            let p = pages.get(*id);
            p.next.load(Relaxed) != 0 || p.prev.load(Relaxed) != 0
        };
        self.maps.iter().enumerate().find_map(|(m, map)| {
            let map = map.lock_nested(cx);
            match map.broken() {
                Some(at) => pages.of_pfn(self.pfn_at(m, at)).or_else(|| pages.ids().next()),
                None => map.iter().map(|at| self.page_at(pages, m, at)).find(linked),
            }
        })
    }
    /// The pages in each map, for checks and views.
    pub(crate) fn snapshot(&self, cx: &Cx, pages: &PageArray) -> Vec<Vec<PageId>> {
        let members = |(m, map): (usize, &SpinMutex<FrameMap>)| {
            map.lock_nested(cx).iter().map(|at| self.page_at(pages, m, at)).collect()
        };
        self.maps.iter().enumerate().map(members).collect()
    }
}

impl fmt::Debug for FrameMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameMaps")
            .field("colours", &self.maps.len())
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    /// Numbers below `n` in an order that looks random.
    fn scattered(n: usize) -> impl Iterator<Item = usize> {
        let mut x = 1_u64;
        core::iter::from_fn(move || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some((x >> 33) as usize % n)
        })
    }

    #[test]
    fn a_map_goes_round_as_a_sorted_set_does() {
        for size in [1, 63, 64, 65, 4096, 4097, 300_000] {
            let (mut map, mut model) = (FrameMap::new(size).expect("heap"), BTreeSet::new());
            let mut cursor = 0;
            for (step, at) in scattered(size).take(4000).enumerate() {
                if step % 3 == 2 {
                    let want = at % 70;
                    let mut got = Vec::new();
                    map.take_run(want, |at| got.push(at));
                    for at in got.iter().copied() {
                        let next = model.range(cursor..).next().or(model.first()).copied();
                        assert_eq!(Some(at), next, "of {size}");
                        model.remove(&at);
                        cursor = at + 1;
                    }
                    assert!(got.len() == want || model.is_empty());
                } else if step % 5 == 0 {
                    assert_eq!(map.take_this(at), model.remove(&at));
                } else if model.insert(at) {
                    map.add(at);
                }
                assert_eq!(map.count, model.len() as u64);
            }
            assert_eq!(map.broken(), None);
            assert!(map.iter().eq(model.iter().copied()));
        }
    }

    #[test]
    fn a_number_put_in_twice_and_a_lost_summary_are_seen() {
        let mut map = FrameMap::new(5000).expect("heap");
        map.add(4500);
        assert_eq!(map.broken(), None);
        map.add(4500);
        assert!(map.broken().is_some(), "M2");
        let mut map = FrameMap::new(5000).expect("heap");
        map.add(4500);
        map.levels[1][4500 / WORD / WORD] = 0;
        assert_eq!(map.broken(), Some(4500 / WORD * WORD), "M1");
    }
}
