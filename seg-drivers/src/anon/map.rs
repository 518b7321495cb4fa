//! Anon maps: a sparse array of slots that segments share.
//!
//! # References
//!
//! `refs` counts segments. As long as all of them cover the same slots that is enough; when one is split or loses a part, references are kept per
//! slot from then on (`slot_refs`, UVM's ppref, as runs), so that a slot is freed with the last segment that can reach it.
//!
//! ```text
//!   one segment of 3 pages              slot_refs none           refs 1
//!   its middle is unmapped              1 0 1                    refs 2     (two segments now; slot 1 was freed)
//! ```
//!
//! - M1 (I6): `0 <= slot_refs[i] <= refs`, and a slot with 0 is empty.
//! - M2: without `slot_refs`, every segment that refers to the map covers the same slots.
//!
//! # Locks
//!
//! `grow` (rank AnonMap) guards the radix's shape and `slot_refs`; a slot's busy bit (rank AnonSlot) guards the slot. A fault takes only the bit, unless
//! it is the first in a chunk. See [`super::array`] for what a walk without locks may believe.

use super::AnonLayer;
use super::array::{CHUNK, Chunk, FANOUT, Shape, SharedShape, bits, owner_word, span};
use crate::runs::Runs;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use page_db::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use page_db::sync::{ArenaFull, Mutex};
use page_db::{Counter, Cx, Rank};
use swapfs::AnonNumber;

/// An anon map's number, in order of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct AnonMapId(pub u32);

#[derive(Debug, Default)]
struct Grow {
    slot_refs: Option<Runs<u32>>,
    chunks: u64,
}

/// What [`AnonMap::lose`] came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// References left; only one caller is told 0.
    pub refs: u32,
    /// Slots that no segment covers any more, occupied or not.
    pub slots: u64,
}

/// The map.
#[doc(alias("struct anon_map", "amp", "vm_amap"))]
pub struct AnonMap {
    layer: Arc<AnonLayer>,
    id: u32,
    refs: AtomicU32,
    /// Bytes of swap reserved by the map itself (shared memory).
    swresv: AtomicU64,
    /// Bumped whenever a chunk comes to be; see [`addr_space::Stamp::and`].
    pub(crate) seq: AtomicU32,
    shape: SharedShape,
    grow: Mutex<Grow>,
}

impl fmt::Debug for AnonMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnonMap")
            .field("id", &self.id)
            .field("refs", &self.refs())
            .finish_non_exhaustive()
    }
}

impl Drop for AnonMap {
    fn drop(&mut self) {
        self.layer.unregister(self.id);
    }
}

impl AnonMap {
    /// An empty map with one reference, which has `swresv` bytes of swap reserved.
    #[doc(alias = "anonmap_alloc")]
    pub fn new(layer: &Arc<AnonLayer>, swresv: u64) -> Arc<Self> {
        layer.register(|id| {
            Arc::new(Self {
                layer: Arc::clone(layer),
                id,
                refs: AtomicU32::new(1),
                swresv: AtomicU64::new(swresv),
                seq: AtomicU32::new(0),
                shape: SharedShape::default(),
                grow: Mutex::new(Rank::AnonMap, Grow::default()),
            })
        })
    }
    /// The number.
    pub fn id(&self) -> AnonMapId {
        AnonMapId(self.id)
    }
    /// Segments that use the map.
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Acquire)
    }
    /// Bytes of swap reserved by the map itself.
    pub fn swresv(&self) -> u64 {
        self.swresv.load(Ordering::Acquire)
    }
    /// Takes up to `bytes` from what the map has reserved, and says how many there were.
    pub(crate) fn take_swresv(&self, bytes: u64) -> u64 {
        let mut have = self.swresv();
        loop {
            let taken = bytes.min(have);
            let next = have - taken;
            match self.swresv.compare_exchange(have, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return taken,
                Err(now) => have = now,
            }
        }
    }

    // ---- the radix ----

    fn chunk(&self, id: u32) -> Option<&Chunk> {
        self.layer.chunks.try_get(id)
    }
    /// The chunk that holds `slot`: a hint without `grow`, the truth with it.
    #[inline]
    fn find_chunk(&self, slot: u64) -> Option<u32> {
        let s = self.shape.load();
        if !s.holds(slot) {
            return None;
        }
        let mut id = s.root;
        for level in (0..s.height).rev() {
            id = self.layer.blocks.try_get(id)?.entries[s.entry(slot, level)]
                .load(Ordering::Acquire);
            if id == 0 {
                return None;
            }
        }
        Some(id)
    }
    /// Makes the chunk that holds `slot`, unless somebody has.
    fn make_chunk(&self, cx: &Cx, slot: u64) -> Result<u32, ArenaFull> {
        let mut grow = self.grow.lock_nested(cx);
        if let Some(id) = self.find_chunk(slot) {
            return Ok(id);
        }
        let id = self.layer.chunks.alloc(cx)?;
        let chunk = self.layer.chunks.get(id);
        debug_assert_eq!(chunk.used(), 0, "H1: a free chunk is empty");
        if let Err(e) = self.link(cx, slot, id) {
            self.layer.chunks.free(cx, id);
            return Err(e);
        }
        grow.chunks += 1;
        // Before anybody can take a slot of it: whoever believed that there is no chunk is out of date by then.
        self.seq.fetch_add(1, Ordering::SeqCst);
        chunk.owner.store(owner_word(self.id, slot), Ordering::SeqCst);
        Ok(id)
    }
    /// Hangs a chunk into the radix, raising it as far as needed. Blocks made before a failure stay, empty, until the map goes.
    fn link(&self, cx: &Cx, slot: u64, chunk: u32) -> Result<(), ArenaFull> {
        let mut s = self.shape.load();
        if s.root == 0 {
            self.shape.store(Shape { root: chunk, height: 0, origin: slot / CHUNK * CHUNK });
            return Ok(());
        }
        while !s.holds(slot) {
            // Upwards the old root becomes the first entry, downwards the last.
            let below = (slot.wrapping_sub(s.origin) as i64) < 0;
            let at = if below { FANOUT - 1 } else { 0 };
            let root = self.layer.blocks.alloc(cx)?;
            self.layer.blocks.get(root).entries[at as usize].store(s.root, Ordering::Release);
            s = Shape { root, height: s.height + 1, origin: s.origin.wrapping_sub(at * s.span()) };
            self.shape.store(s);
        }
        let mut block = s.root;
        for level in (1..s.height).rev() {
            let entry = &self.layer.blocks.get(block).entries[s.entry(slot, level)];
            block = match entry.load(Ordering::Acquire) {
                0 => {
                    let fresh = self.layer.blocks.alloc(cx)?;
                    entry.store(fresh, Ordering::Release);
                    fresh
                }
                there => there,
            };
        }
        self.layer.blocks.get(block).entries[s.entry(slot, 0)].store(chunk, Ordering::Release);
        Ok(())
    }
    /// Frees the chunk that holds `slot` if it is empty and idle, and blocks that become empty with it.
    fn try_free_chunk(&self, cx: &Cx, slot: u64) {
        let Some(mut grow) = self.grow.try_lock(cx) else { return };
        let Some(id) = self.find_chunk(slot) else { return };
        let c = self.layer.chunks.get(id);
        // No slot in use, none busy, and from here on all busy.
        let all = u64::from(u32::MAX);
        if c.bits.compare_exchange(0, all, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return;
        }
        self.unlink(cx, slot);
        c.owner.store(0, Ordering::SeqCst);
        grow.chunks -= 1;
        self.release_bits(c, id, u32::MAX, 0);
        self.layer.chunks.free(cx, id);
    }
    fn unlink(&self, cx: &Cx, slot: u64) {
        let s = self.shape.load();
        let mut path = Vec::with_capacity(s.height as usize);
        let mut id = s.root;
        for level in (0..s.height).rev() {
            path.push((id, s.entry(slot, level)));
            id = self.layer.blocks.get(id).entries[s.entry(slot, level)].load(Ordering::Acquire);
        }
        while let Some((block, at)) = path.pop() {
            let b = self.layer.blocks.get(block);
            b.entries[at].store(0, Ordering::Release);
            if b.entries.iter().any(|e| e.load(Ordering::Relaxed) != 0) {
                return;
            }
            if path.is_empty() {
                self.shape.store(Shape::default());
            }
            self.layer.blocks.free(cx, block);
        }
        self.shape.store(Shape::default());
    }
    /// The first chunk that holds a slot in `range`, and its first slot. The caller holds `grow`.
    fn next_chunk(&self, range: Range<u64>) -> Option<(u64, u32)> {
        let s = self.shape.load();
        let rel = |slot: u64| {
            let d = slot.wrapping_sub(s.origin);
            if (d as i64) < 0 { 0 } else { d.min(s.span()) }
        };
        if s.root == 0 || rel(range.start) >= rel(range.end) {
            return None;
        }
        self.seek(s.root, s.height, 0, rel(range.start)..rel(range.end))
            .map(|(at, id)| (s.origin.wrapping_add(at), id))
    }
    fn seek(&self, id: u32, height: u32, base: u64, range: Range<u64>) -> Option<(u64, u32)> {
        if height == 0 {
            return Some((base, id));
        }
        let below = span(height - 1);
        let first = range.start.saturating_sub(base) / below;
        for e in first..FANOUT {
            let at = base + e * below;
            if at >= range.end {
                break;
            }
            let child = self.layer.blocks.get(id).entries[e as usize].load(Ordering::Acquire);
            if child != 0
                && let Some(found) = self.seek(child, height - 1, at, range.clone())
            {
                return Some(found);
            }
        }
        None
    }

    // ---- slots ----

    fn wait_key(chunk: u32) -> u64 {
        1 << 49 | u64::from(chunk)
    }
    /// Takes all bits of `mask` busy, waiting for them; `false` when the chunk is not (any longer) `slot`'s (H1).
    fn take_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32, slot: u64) -> bool {
        cx.rank_wait(Rank::AnonSlot, false);
        while !c.try_busy(mask) {
            let waits = self.layer.db().waits();
            waits.wait_while(cx, Self::wait_key(id), || c.busy() & mask != 0);
        }
        if c.owner.load(Ordering::SeqCst) == owner_word(self.id, slot) {
            return true;
        }
        self.abandon_bits(cx, c, id, mask);
        false
    }
    /// Lets go of slots of a chunk that turned out to be another's.
    fn abandon_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32) {
        cx.rank_release(Rank::AnonSlot);
        c.bits.fetch_and(!u64::from(mask), Ordering::SeqCst);
        self.layer.db().waits().wake_all(Self::wait_key(id));
    }
    /// Lets go of busy slots and marks those in use; answers the slots of the chunk that are in use.
    fn release_bits(&self, c: &Chunk, id: u32, mask: u32, used: u32) -> u32 {
        let used = c.let_go(mask, used);
        self.layer.db().waits().wake_all(Self::wait_key(id));
        used
    }
    fn drop_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32, used: u32) -> u32 {
        cx.rank_release(Rank::AnonSlot);
        self.release_bits(c, id, mask, used)
    }
    /// Takes a slot busy, waiting for it. `None` when its chunk does not exist: the slot is empty, and stays so until one is made (`seq`).
    #[doc(alias = "anon_array_enter")]
    pub fn enter<'a>(&'a self, cx: &'a Cx, slot: u64) -> Option<SlotGuard<'a>> {
        loop {
            let id = match self.find_chunk(slot) {
                Some(id) => id,
                None => {
                    let _grow = self.grow.lock(cx);
                    self.find_chunk(slot)?
                }
            };
            let Some(chunk) = self.chunk(id) else { continue };
            let bit = 1 << (slot % CHUNK);
            if self.take_bits(cx, chunk, id, bit, slot) {
                return Some(SlotGuard { map: self, cx, chunk, id, slot });
            }
        }
    }
    /// Takes a slot busy, making its chunk if need be.
    ///
    /// # Errors
    /// [`ArenaFull`] when the heap refuses a chunk.
    pub fn enter_or_make<'a>(&'a self, cx: &'a Cx, slot: u64) -> Result<SlotGuard<'a>, ArenaFull> {
        loop {
            if let Some(id) = self.find_chunk(slot)
                && let Some(chunk) = self.chunk(id)
                && self.take_bits(cx, chunk, id, 1 << (slot % CHUNK), slot)
            {
                return Ok(SlotGuard { map: self, cx, chunk, id, slot });
            }
            self.make_chunk(cx, slot)?;
        }
    }
    /// Takes a slot busy if its chunk exists and nobody else has it.
    #[doc(alias = "anon_array_try_enter")]
    pub fn try_enter<'a>(&'a self, cx: &'a Cx, slot: u64) -> Option<SlotGuard<'a>> {
        let id = self.find_chunk(slot)?;
        let chunk = self.chunk(id)?;
        let bit = 1 << (slot % CHUNK);
        if !chunk.try_busy(bit) {
            return None;
        }
        cx.rank_tried(Rank::AnonSlot);
        if chunk.owner.load(Ordering::SeqCst) != owner_word(self.id, slot) {
            self.abandon_bits(cx, chunk, id, bit);
            return None;
        }
        Some(SlotGuard { map: self, cx, chunk, id, slot })
    }
    /// The anon in a slot, as a hint: nothing keeps it there.
    #[doc(alias("anon_get_ptr", "amap_lookup"))]
    pub fn peek(&self, slot: u64) -> Option<AnonNumber> {
        let c = self.chunk(self.find_chunk(slot)?)?;
        let n = c.slots[(slot % CHUNK) as usize].load(Ordering::Acquire);
        if c.owner.load(Ordering::Acquire) != owner_word(self.id, slot) {
            None
        } else {
            AnonNumber::from_raw(n)
        }
    }
    /// Calls `f` with each chunk's part of `range`, its slots busy: first slot, and the numbers of the slots in range (0 for empty).
    fn each_chunk(&self, cx: &Cx, range: Range<u64>, mut f: impl FnMut(&Chunk, u64, u32) -> bool) {
        let mut at = range.start;
        while at < range.end {
            let next = {
                let _grow = self.grow.lock(cx);
                self.next_chunk(at..range.end)
            };
            let Some((base, id)) = next else { return };
            let Some(c) = self.chunk(id) else { continue };
            let mask = mask_of(base, &range);
            if !self.take_bits(cx, c, id, mask, base) {
                continue;
            }
            cx.count_n(Counter::AnonSlots, u64::from(mask.count_ones()));
            let go_on = f(c, base, mask);
            if self.drop_bits(cx, c, id, mask, c.occupied(mask)) == 0 {
                self.try_free_chunk(cx, base);
            }
            if !go_on {
                return;
            }
            at = base + CHUNK;
        }
    }
    /// Empties the slots of `range`; each anon loses one reference. Translations are gone by now.
    #[doc(alias("anon_free", "amap_wiperange"))]
    pub fn free_range(&self, cx: &Cx, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let mut taken = [None; CHUNK as usize];
            let mut end = range.end;
            self.each_chunk(cx, at..range.end, |c, base, mask| {
                for i in bits(mask & c.used()) {
                    taken[i] = AnonNumber::from_raw(c.slots[i].load(Ordering::Relaxed));
                    c.slots[i].store(0, Ordering::Release);
                }
                end = base + CHUNK;
                false
            });
            // No slot is busy now: the last reference may have to wait for a page.
            for n in taken.into_iter().flatten() {
                self.layer.unref(cx, n);
            }
            at = end;
        }
    }
    /// The occupied slots of `range`, in order.
    pub fn slots(&self, cx: &Cx, range: Range<u64>) -> Vec<(u64, AnonNumber)> {
        let mut out = Vec::new();
        self.each_chunk(cx, range, |c, base, mask| {
            for i in bits(mask & c.used()) {
                out.extend(
                    AnonNumber::from_raw(c.slots[i].load(Ordering::Acquire))
                        .map(|n| (base + i as u64, n)),
                );
            }
            true
        });
        out
    }
    /// How many slots of `range` are occupied.
    #[doc(alias = "anon_pages")]
    pub fn count(&self, cx: &Cx, range: Range<u64>) -> u64 {
        let mut n = 0;
        self.each_chunk(cx, range, |c, _, mask| {
            n += u64::from((c.used() & mask).count_ones());
            true
        });
        n
    }
    /// The first slot and the occupancy of each chunk, for views.
    pub fn chunks(&self, cx: &Cx) -> Vec<(u64, u32)> {
        let _grow = self.grow.lock(cx);
        let s = self.shape.load();
        let mut out = Vec::new();
        let mut at = 0;
        while s.root != 0 && at < s.span() {
            let Some((base, id)) = self.seek(s.root, s.height, 0, at..s.span()) else { break };
            out.push((s.origin.wrapping_add(base), self.layer.chunks.get(id).used()));
            at = base + CHUNK;
        }
        out
    }
    /// A new map whose slots of `range` hold what this one's do, each anon with one reference more. `keep` says which slots are copied.
    ///
    /// # Errors
    /// [`ArenaFull`]; nothing is left behind.
    #[doc(alias("anon_dup", "amap_copy"))]
    pub fn dup(
        &self,
        cx: &Cx,
        range: Range<u64>,
        keep: impl Fn(u64) -> bool,
    ) -> Result<Arc<Self>, ArenaFull> {
        let copy = Self::new(&self.layer, 0);
        let mut at = range.start;
        while at < range.end {
            let mut held = [0u32; CHUNK as usize];
            let mut found = None;
            self.each_chunk(cx, at..range.end, |c, base, mask| {
                for i in bits(mask & c.used()) {
                    if !keep(base + i as u64) {
                        continue;
                    }
                    held[i] = c.slots[i].load(Ordering::Acquire);
                    if let Some(n) = AnonNumber::from_raw(held[i]) {
                        self.layer.anons.inc(n);
                    }
                }
                found = Some(base);
                false
            });
            let Some(base) = found else { break };
            if let Err(e) = copy.install(cx, base, &held) {
                held.iter()
                    .filter_map(|n| AnonNumber::from_raw(*n))
                    .for_each(|n| self.layer.unref(cx, n));
                copy.free_range(cx, range);
                return Err(e);
            }
            at = base + CHUNK;
        }
        Ok(copy)
    }
    /// Fills a chunk of a map nobody else can reach yet.
    fn install(&self, cx: &Cx, base: u64, held: &[u32; CHUNK as usize]) -> Result<(), ArenaFull> {
        if held.iter().all(|n| *n == 0) {
            return Ok(());
        }
        let id = self.make_chunk(cx, base)?;
        let c = self.layer.chunks.get(id);
        for (slot, n) in c.slots.iter().zip(held) {
            slot.store(*n, Ordering::Release);
        }
        // A walker with an old id may have slots busy for a moment: its bits stay as they are.
        c.bits.fetch_or(u64::from(c.occupied(u32::MAX)) << 32, Ordering::SeqCst);
        Ok(())
    }

    // ---- references ----

    /// One segment more, covering `range` (fork of a shared mapping: the same slots as the segment it copies).
    #[doc(alias = "amap_ref")]
    pub fn gain(&self, cx: &Cx, range: Range<u64>) {
        let mut grow = self.grow.lock(cx);
        self.refs.fetch_add(1, Ordering::AcqRel);
        if let Some(pp) = &mut grow.slot_refs {
            pp.update(range, |n| n + 1);
        }
    }
    /// A segment becomes two, which cover `low` and `high`; what lay between has been given up before.
    #[doc(alias = "amap_splitref")]
    pub fn split(&self, cx: &Cx, low: Range<u64>, high: Range<u64>) {
        let mut grow = self.grow.lock(cx);
        let refs = self.refs();
        grow.slot_refs.get_or_insert_with(|| {
            let mut pp = Runs::new(0);
            pp.set(low, refs);
            pp.set(high, refs);
            pp
        });
        self.refs.fetch_add(1, Ordering::AcqRel);
    }
    /// Two adjacent segments that use the map become one (the reverse of [`AnonMap::split`]).
    pub fn unsplit(&self, cx: &Cx) {
        let mut grow = self.grow.lock(cx);
        if self.refs.fetch_sub(1, Ordering::AcqRel) == 2 {
            grow.slot_refs = None; // one segment covers whatever is left (M2)
        }
    }
    /// A segment beside `range` takes it over, if no segment covers any of its slots. Says whether it did.
    ///
    /// After a split the map has several segments, so it may not grow as it likes: what lies beside one of them may be another's.
    #[doc(alias = "amap_extend")]
    pub fn cover(&self, cx: &Cx, range: Range<u64>) -> bool {
        let mut grow = self.grow.lock(cx);
        match &mut grow.slot_refs {
            // One segment, which has whatever there is (M2).
            None => self.refs() == 1,
            Some(pp) if pp.any(range.clone(), |n| n != 0) => false,
            Some(pp) => {
                pp.set(range, 1);
                true
            }
        }
    }
    fn establish<'a>(&self, grow: &'a mut Grow, coverage: Range<u64>) -> &'a mut Runs<u32> {
        let refs = self.refs();
        grow.slot_refs.get_or_insert_with(|| {
            let mut pp = Runs::new(0);
            pp.set(coverage, refs);
            pp
        })
    }
    /// A segment that covers `coverage` gives up `part` of it (all of it: the segment goes). Slots nobody covers any more are freed.
    /// Translations are gone by now.
    #[doc(alias("amap_unref", "anon_free"))]
    pub fn lose(&self, cx: &Cx, coverage: Range<u64>, part: Range<u64>) -> Lost {
        let whole = coverage == part;
        let mut freed = Vec::new();
        let left;
        {
            let mut grow = self.grow.lock(cx);
            let refs = self.refs();
            if refs == 1 && grow.slot_refs.is_none() {
                freed.push(part.clone());
            } else if !(whole && grow.slot_refs.is_none()) {
                let pp = self.establish(&mut grow, coverage);
                pp.update(part.clone(), |n| n.saturating_sub(1));
                freed.extend(
                    pp.iter(part.clone()).into_iter().filter(|(_, n)| *n == 0).map(|(r, _)| r),
                );
            }
            left = if whole { self.refs.fetch_sub(1, Ordering::AcqRel) - 1 } else { refs };
            if left == 1 {
                // One segment is left, and it covers every slot that is still occupied (M2): it may grow like any other.
                grow.slot_refs = None;
            }
        }
        let slots = freed.iter().map(|r| r.end - r.start).sum();
        for range in freed {
            self.free_range(cx, range);
        }
        Lost { refs: left, slots }
    }
    /// References of `range` slot by slot, as runs, for views and checks.
    #[doc(alias = "ppref")]
    pub fn slot_refs(&self, cx: &Cx, range: Range<u64>) -> Vec<(Range<u64>, u32)> {
        let grow = self.grow.lock(cx);
        match &grow.slot_refs {
            Some(pp) => pp.iter(range),
            None => alloc::vec![(range, self.refs())],
        }
    }
    /// Checks M1 and the radix's own books; the text names what is broken.
    ///
    /// # Errors
    /// The first thing found broken.
    pub fn verify(&self, cx: &Cx) -> Result<(), alloc::string::String> {
        let chunks = self.chunks(cx);
        {
            let grow = self.grow.lock(cx);
            if grow.chunks != chunks.len() as u64 {
                return Err(alloc::format!(
                    "anon map {} counts {} chunks, has {}",
                    self.id,
                    grow.chunks,
                    chunks.len()
                ));
            }
        }
        for (base, used) in chunks {
            for (i, n) in self.slots(cx, base..base + CHUNK) {
                if self.layer.anons.refs(n) == 0 {
                    return Err(alloc::format!(
                        "I1: anon {n} in slot {i} of map {} has no references",
                        self.id
                    ));
                }
                let pp = self.slot_refs(cx, i..i + 1);
                let refs = pp.first().map_or(0, |(_, n)| *n);
                if refs == 0 || refs > self.refs() {
                    return Err(alloc::format!(
                        "I6: slot {i} of map {} has {refs} references of {}",
                        self.id,
                        self.refs()
                    ));
                }
            }
            let held = self
                .slots(cx, base..base + CHUNK)
                .iter()
                .fold(0u32, |m, (i, _)| m | 1 << (i % CHUNK));
            if held != used {
                return Err(alloc::format!(
                    "anon map {}: chunk at {base} marks {used:#x}, holds {held:#x}",
                    self.id
                ));
            }
        }
        Ok(())
    }
    /// Plants a wrong number of references on the whole map (tests of `verify`).
    #[doc(hidden)]
    pub fn damage_slot_refs(&self, cx: &Cx, range: Range<u64>, refs: u32) {
        let mut grow = self.grow.lock(cx);
        self.establish(&mut grow, range.clone()).set(range, refs);
    }
}

/// The bits of the chunk at `base` that lie in `range`.
fn mask_of(base: u64, range: &Range<u64>) -> u32 {
    let lo = range.start.saturating_sub(base).min(CHUNK);
    let hi = range.end.saturating_sub(base).min(CHUNK);
    let ones = |n: u64| ((1u64 << n) - 1) as u32;
    ones(hi) & !ones(lo)
}

/// A slot held busy: what it holds is this thread's to change (H3).
#[must_use = "dropping the guard lets the slot go"]
pub struct SlotGuard<'a> {
    map: &'a AnonMap,
    cx: &'a Cx,
    chunk: &'a Chunk,
    id: u32,
    slot: u64,
}

impl fmt::Debug for SlotGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotGuard({}, {:?})", self.slot, self.get())
    }
}

impl SlotGuard<'_> {
    fn word(&self) -> &AtomicU32 {
        &self.chunk.slots[(self.slot % CHUNK) as usize]
    }
    /// The anon in the slot.
    pub fn get(&self) -> Option<AnonNumber> {
        AnonNumber::from_raw(self.word().load(Ordering::Acquire))
    }
    /// Puts an anon into the slot (its reference moves in) or empties it, and returns what was there, with its reference.
    #[doc(alias("anon_set_ptr", "amap_add", "amap_unadd"))]
    pub fn set(&self, n: Option<AnonNumber>) -> Option<AnonNumber> {
        // The slot's mark follows when the guard goes; nobody believes it of a busy slot.
        let before = self.get();
        self.word().store(n.map_or(0, AnonNumber::get), Ordering::Release);
        before
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let bit = 1 << (self.slot % CHUNK);
        let used = if self.get().is_some() { bit } else { 0 };
        // Looked at only now: who emptied another slot meanwhile was kept from freeing the chunk by this one's bit.
        if self.map.drop_bits(self.cx, self.chunk, self.id, bit, used) == 0 {
            self.map.try_free_chunk(self.cx, self.slot);
        }
    }
}
