//! The slots of an anon map: taking them busy, reading and changing what they hold.

use super::array::{CHUNK, Chunk, bits, owner_word};
use super::map::AnonMap;
use core::fmt;
use core::ops::Range;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::sync::{ArenaFull, Mutation, mutated};
use page_db::{Counter, Cx, Rank};
use swapfs::AnonNumber;

impl AnonMap {
    pub(super) fn wait_key(chunk: u32) -> u64 {
        1 << 49 | u64::from(chunk)
    }
    /// Takes all bits of `mask` busy, waiting for them; `false` when the chunk is not (any longer) `slot`'s (H1).
    #[inline(always)] // the slots of one page, of a run, and of a walk
    pub(super) fn take_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32, slot: u64) -> bool {
        cx.rank_wait(Rank::AnonSlot, false);
        if !c.try_busy(mask) && !mutated(Mutation::BusySlotTaken) {
            self.wait_bits(cx, c, id, mask);
        }
        if c.owner.load(Ordering::SeqCst) == owner_word(self.id, slot) {
            return true;
        }
        self.abandon_bits(cx, c, id, mask);
        false
    }
    #[cold]
    fn wait_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32) {
        let waits = self.layer().db().waits();
        loop {
            waits.wait_while(cx, Self::wait_key(id), || c.busy() & mask != 0);
            if c.try_busy(mask) {
                return;
            }
        }
    }
    /// Lets go of slots of a chunk that turned out to be another's.
    pub(super) fn abandon_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32) {
        cx.rank_release(Rank::AnonSlot);
        c.bits.fetch_and(!u64::from(mask), Ordering::SeqCst);
        self.layer().db().waits().wake_all(Self::wait_key(id));
    }
    /// Lets go of busy slots and marks those in use; answers the slots of the chunk that are in use.
    pub(super) fn release_bits(&self, c: &Chunk, id: u32, mask: u32, used: u32) -> u32 {
        let used = c.let_go(mask, used);
        self.layer().db().waits().wake_all(Self::wait_key(id));
        used
    }
    pub(super) fn drop_bits(&self, cx: &Cx, c: &Chunk, id: u32, mask: u32, used: u32) -> u32 {
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
            // Another map's by now, or not yet this one's: whoever changes that has `grow`.
            drop(self.grow.lock(cx));
        }
    }
    /// Takes a slot busy, making its chunk if need be.
    ///
    /// # Errors
    /// [`ArenaFull`] when the heap refuses a chunk, or the map holds a slot 2^61 places away.
    pub fn enter_or_make<'a>(&'a self, cx: &'a Cx, slot: u64) -> Result<SlotGuard<'a>, ArenaFull> {
        match self.enter_known(cx, slot) {
            Some(held) => Ok(held),
            None => self.enter_made(cx, slot),
        }
    }
    /// The first half of [`AnonMap::enter_or_make`]: takes a slot busy, waiting for it, if its chunk is where a look without `grow` says.
    #[inline(always)] // into every fault on anonymous memory
    pub(crate) fn enter_known<'a>(&'a self, cx: &'a Cx, slot: u64) -> Option<SlotGuard<'a>> {
        let id = self.find_chunk(slot)?;
        let chunk = self.chunk(id)?;
        let held = self.take_bits(cx, chunk, id, 1 << (slot % CHUNK), slot);
        held.then(|| SlotGuard { map: self, cx, chunk, id, slot })
    }
    /// The second half: makes the chunk unless somebody has.
    #[inline(never)]
    pub(crate) fn enter_made<'a>(
        &'a self,
        cx: &'a Cx,
        slot: u64,
    ) -> Result<SlotGuard<'a>, ArenaFull> {
        loop {
            self.make_chunk(cx, slot)?;
            if let Some(held) = self.enter_known(cx, slot) {
                return Ok(held);
            }
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
    pub(super) fn each_chunk(
        &self,
        cx: &Cx,
        range: Range<u64>,
        mut f: impl FnMut(&Chunk, u64, u32) -> bool,
    ) {
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
    /// What the slots of the chunk that holds `slot` hold, as hints: nothing keeps it there. `None` for an absent chunk, whose slots are empty.
    pub fn peek_chunk(&self, slot: u64) -> Option<[u32; CHUNK as usize]> {
        let c = self.chunk(self.find_chunk(slot)?)?;
        let held = core::array::from_fn(|i| c.slots[i].load(Ordering::Acquire));
        (c.owner.load(Ordering::Acquire) == owner_word(self.id, slot)).then_some(held)
    }
    /// The occupied slots of `range`, in order, each as it is when the walk comes to its chunk.
    pub fn slots<'a>(&'a self, cx: &'a Cx, range: Range<u64>) -> Slots<'a> {
        Slots { map: self, cx, rest: range, base: 0, held: 0, numbers: [0; CHUNK as usize] }
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
}

/// The bits of the chunk at `base` that lie in `range`.
pub(super) fn mask_of(base: u64, range: &Range<u64>) -> u32 {
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
    #[inline]
    fn drop(&mut self) {
        let bit = 1 << (self.slot % CHUNK);
        let used = if self.get().is_some() { bit } else { 0 };
        // Looked at only now: who emptied another slot meanwhile was kept from freeing the chunk by this one's bit.
        if self.map.drop_bits(self.cx, self.chunk, self.id, bit, used) == 0 {
            self.map.try_free_chunk(self.cx, self.slot);
        }
    }
}

/// A walk over occupied slots, which notes what a chunk holds at once and keeps no lock between its steps.
#[derive(Debug)]
pub struct Slots<'a> {
    map: &'a AnonMap,
    cx: &'a Cx,
    /// Not looked at yet.
    rest: Range<u64>,
    /// First slot of the chunk met last, which of its slots are still to be told of, and what all of them held.
    base: u64,
    held: u32,
    numbers: [u32; CHUNK as usize],
}

impl Slots<'_> {
    /// Notes what the next chunk with anything in it holds.
    fn next_chunk(&mut self) {
        let Self { map, cx, rest, base, held, numbers } = self;
        map.each_chunk(cx, rest.clone(), |c, first, mask| {
            (*base, *held) = (first, mask & c.used());
            for i in bits(*held) {
                numbers[i] = c.slots[i].load(Ordering::Acquire);
            }
            *held == 0
        });
        rest.start = if *held == 0 { rest.end } else { (*base + CHUNK).min(rest.end) };
    }
}

impl Iterator for Slots<'_> {
    type Item = (u64, AnonNumber);
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.held == 0 {
                if self.rest.is_empty() {
                    return None;
                }
                self.next_chunk();
            }
            if let Some(i) = bits(self.held).next() {
                self.held &= self.held - 1;
                // Empty by now, if somebody was faster.
                if let Some(number) = AnonNumber::from_raw(self.numbers[i]) {
                    return Some((self.base + i as u64, number));
                }
            }
        }
    }
}
