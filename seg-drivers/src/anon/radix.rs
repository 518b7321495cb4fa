//! The radix of an anon map: finding, hanging and freeing chunks.
//!
//! Everything that changes the shape is done with the map's `grow` held; finding is done without, and then says only where to look (H1, H2).
//! See [`super::array`] for the picture.

use super::array::{CHUNK, Chunk, FANOUT, HIGHEST, Shape, owner_word, under};
use super::map::AnonMap;
use super::promised::Promised;
use alloc::vec::Vec;
use core::ops::Range;
use page_db::Cx;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::sync::{ArenaFull, Mutation, mutated};

impl AnonMap {
    pub(super) fn chunk(&self, id: u32) -> Option<&Chunk> {
        self.layer().chunks.try_get(id)
    }
    pub(super) fn entries(&self, block: u32) -> &[AtomicU32; FANOUT as usize] {
        &self.layer().blocks.get(block).entries
    }
    /// The shape. Who publishes another holds it up for a few stores, unless he loses his processor there: the hooks see to it that he has it again.
    #[inline]
    pub(super) fn shape(&self) -> Shape {
        self.shape.try_load().unwrap_or_else(|| self.shape_later())
    }
    #[cold]
    fn shape_later(&self) -> Shape {
        self.shape.load_later(|turns| self.layer().db().hooks().pause(turns))
    }
    /// The chunk that holds `slot`: a hint without `grow`, the truth with it.
    #[inline(always)] // the first step of every fault on anonymous memory, and a few instructions
    pub(super) fn find_chunk(&self, slot: u64) -> Option<u32> {
        let s = self.shape();
        if !s.holds(slot) {
            return None;
        }
        let mut id = if s.height == 0 { s.roots[s.half(slot)] } else { s.roots[0] };
        for level in (0..s.height).rev() {
            id = self.layer().blocks.try_get(id)?.entries[s.entry(slot, level)]
                .load(Ordering::Acquire);
        }
        (id != 0).then_some(id)
    }
    /// Makes the chunk that holds `slot`, unless somebody has.
    pub(super) fn make_chunk(&self, cx: &Cx, slot: u64) -> Result<u32, ArenaFull> {
        let _grow = self.grow.lock_nested(cx);
        match self.find_chunk(slot) {
            Some(id) => Ok(id),
            None => self.add_chunk(cx, slot),
        }
    }
    /// Makes the chunk that holds `slot`, of which there is none. The caller holds `grow`, or nobody else reaches the map.
    pub(super) fn add_chunk(&self, cx: &Cx, slot: u64) -> Result<u32, ArenaFull> {
        let id = self.layer().chunks.alloc(cx)?;
        let chunk = self.layer().chunks.get(id);
        debug_assert_eq!(chunk.used(), 0, "H1: a free chunk is empty");
        if let Err(e) = self.link(cx, slot, id) {
            self.prune(cx, slot);
            self.layer().chunks.free(cx, id);
            return Err(e);
        }
        // Before anybody can take a slot of it: whoever believed that there is no chunk is out of date by then.
        self.shape.chunks.fetch_add(1, Ordering::SeqCst);
        chunk.owner.store(owner_word(self.id, slot), Ordering::SeqCst);
        Ok(id)
    }
    /// Hangs a chunk into the radix, raising it as far as needed. After a failure there may be blocks on the way with nothing in them.
    fn link(&self, cx: &Cx, slot: u64, chunk: u32) -> Result<(), ArenaFull> {
        let mut s = self.shape();
        if s.is_empty() {
            s = Shape::around(slot);
        }
        if !s.reaches(slot) {
            let live = self.layer().chunks.live();
            return Err(ArenaFull { what: "slots that far apart", live });
        }
        while !s.is_empty() && !s.holds(slot) {
            let (origin, at) = s.raised(slot);
            let root = self.layer().blocks.alloc(cx)?;
            for (entry, old) in self.entries(root)[at as usize..].iter().zip(s.roots) {
                entry.store(old, Ordering::Release);
            }
            s = Shape { roots: [root, 0], height: s.height + 1, origin };
            self.shape.store(s);
        }
        if s.height == 0 {
            s.roots[s.half(slot)] = chunk;
            self.shape.store(s);
            return Ok(());
        }
        let mut block = s.roots[0];
        for level in (1..s.height).rev() {
            let entry = &self.entries(block)[s.entry(slot, level)];
            block = match entry.load(Ordering::Acquire) {
                0 => {
                    let fresh = self.layer().blocks.alloc(cx)?;
                    entry.store(fresh, Ordering::Release);
                    fresh
                }
                there => there,
            };
        }
        self.entries(block)[s.entry(slot, 0)].store(chunk, Ordering::Release);
        Ok(())
    }
    /// Frees the chunk that holds `slot` if it is empty and idle, and blocks that become empty with it.
    #[inline(never)]
    pub(super) fn try_free_chunk(&self, cx: &Cx, slot: u64) {
        match self.grow.try_lock(cx) {
            Some(_grow) => self.free_chunk(cx, slot, false),
            None => self.promised.set(Promised::MISSED), // M4
        }
    }
    /// Frees the chunks that [`AnonMap::try_free_chunk`] left where they were, unless they are in use again (M4). No slot is held.
    pub(super) fn free_missed_chunks(&self, cx: &Cx) {
        if mutated(Mutation::ChunkNotLookedForAgain) {
            return;
        }
        while self.promised.clear(Promised::MISSED) {
            let last = self.refs.load(Ordering::SeqCst) == 0;
            let _grow = self.grow.lock(cx);
            let s = self.shape();
            let (mut at, end) = (s.origin, s.origin.wrapping_add(s.span()));
            while let Some((base, _)) = self.next_chunk(at..end) {
                self.free_chunk(cx, base, last);
                at = base.wrapping_add(CHUNK);
            }
            // What is left again is looked for by whoever gives up a part next, unless the last one has while this was under way.
            if last || self.refs.load(Ordering::SeqCst) != 0 {
                return;
            }
        }
    }
    /// Frees the chunk that holds `slot` if it is empty. While a slot of it is busy it is left, to be looked for again, or as `last` it is waited for. The caller
    /// holds `grow`.
    fn free_chunk(&self, cx: &Cx, slot: u64, last: bool) {
        let Some(id) = self.find_chunk(slot) else { return };
        let c = self.layer().chunks.get(id);
        // No slot in use, none busy, and from here on all busy.
        let all = u64::from(u32::MAX);
        while let Err(bits) = c.bits.compare_exchange(0, all, Ordering::SeqCst, Ordering::SeqCst) {
            if bits >> 32 != 0 {
                return;
            }
            if !last {
                return self.promised.set(Promised::MISSED);
            }
            // A stranger, who came with an old id and is about to see that. Nobody has a slot of a map that no segment uses, and keeps it.
            self.layer().db().waits().wait_while(cx, Self::wait_key(id), || c.busy() != 0);
        }
        let mut s = self.shape();
        if s.height == 0 {
            s.roots[s.half(slot)] = 0;
            self.shape.store(if s.is_empty() { Shape::default() } else { s });
        } else {
            let mut block = s.roots[0];
            for level in (1..s.height).rev() {
                block = self.entries(block)[s.entry(slot, level)].load(Ordering::Acquire);
            }
            self.entries(block)[s.entry(slot, 0)].store(0, Ordering::Release);
            self.prune(cx, slot);
        }
        c.owner.store(0, Ordering::SeqCst);
        self.release_bits(c, id, u32::MAX, 0);
        self.layer().chunks.free(cx, id);
    }
    /// Frees the blocks on the way to `slot` that have nothing in them. The caller holds `grow`.
    fn prune(&self, cx: &Cx, slot: u64) {
        let s = self.shape();
        if s.height == 0 || !s.holds(slot) {
            return;
        }
        // An unmap and an exit come by here, and a heap that has just refused: nothing is asked of it.
        let (mut path, mut len) = ([(0, 0); HIGHEST as usize], 0);
        let mut block = s.roots[0];
        for level in (0..s.height).rev() {
            path[len] = (block, s.entry(slot, level));
            len += 1;
            block = match self.entries(block)[s.entry(slot, level)].load(Ordering::Acquire) {
                0 => break,
                below => below,
            };
        }
        for i in (0..len).rev() {
            let (block, _) = path[i];
            if self.entries(block).iter().any(|e| e.load(Ordering::Relaxed) != 0) {
                return;
            }
            match i.checked_sub(1).map(|above| path[above]) {
                Some((above, at)) => self.entries(above)[at].store(0, Ordering::Release),
                None => self.shape.store(Shape::default()),
            }
            self.layer().blocks.free(cx, block);
        }
    }
    /// The first chunk that holds a slot in `range`, and its first slot. The caller holds `grow`.
    pub(super) fn next_chunk(&self, range: Range<u64>) -> Option<(u64, u32)> {
        let s = self.shape();
        let rel = self.inside(s, range)?;
        let (at, id) = if s.height == 0 {
            let halves = rel.start / CHUNK..rel.end.div_ceil(CHUNK);
            let half = halves.into_iter().find(|half| s.roots[*half as usize] != 0)?;
            (half * CHUNK, s.roots[half as usize])
        } else {
            self.seek(s.roots[0], s.height, 0, rel)?
        };
        Some((s.origin.wrapping_add(at), id))
    }
    /// The part of `range` that the radix can hold, counted from its origin; `None` when that is nothing.
    pub(super) fn inside(&self, s: Shape, range: Range<u64>) -> Option<Range<u64>> {
        let rel = |slot: u64| {
            let d = slot.wrapping_sub(s.origin);
            if (d as i64) < 0 { 0 } else { d.min(s.span()) }
        };
        let (start, end) = (rel(range.start), rel(range.end));
        (!s.is_empty() && start < end).then_some(start..end)
    }
    fn seek(&self, id: u32, height: u32, base: u64, range: Range<u64>) -> Option<(u64, u32)> {
        if height == 0 {
            return Some((base, id));
        }
        let below = under(height - 1);
        let first = range.start.saturating_sub(base) / below;
        for e in first..FANOUT {
            let at = base + e * below;
            if at >= range.end {
                break;
            }
            let child = self.entries(id)[e as usize].load(Ordering::Acquire);
            if child != 0
                && let Some(found) = self.seek(child, height - 1, at, range.clone())
            {
                return Some(found);
            }
        }
        None
    }
    /// How many chunks and blocks the radix holds, for checks.
    pub(super) fn holds(&self, cx: &Cx) -> (u64, u64) {
        fn under(map: &AnonMap, id: u32, height: u32, held: &mut (u64, u64)) {
            match (id, height) {
                (0, _) => {}
                (_, 0) => held.0 += 1,
                _ => {
                    held.1 += 1;
                    for entry in map.entries(id) {
                        under(map, entry.load(Ordering::Acquire), height - 1, held);
                    }
                }
            }
        }
        let _grow = self.grow.lock(cx);
        let (s, mut held) = (self.shape(), (0, 0));
        s.roots.iter().for_each(|root| under(self, *root, s.height, &mut held));
        held
    }
    /// The first slot and the occupancy of each chunk, for views.
    pub fn chunks(&self, cx: &Cx) -> Vec<(u64, u32)> {
        let _grow = self.grow.lock(cx);
        let s = self.shape();
        let mut out = Vec::new();
        let mut at = s.origin;
        let end = s.origin.wrapping_add(s.span());
        while let Some((base, id)) = self.next_chunk(at..end) {
            out.push((base, self.layer().chunks.get(id).used()));
            at = base.wrapping_add(CHUNK);
        }
        out
    }
}
