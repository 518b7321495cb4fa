//! Several slots of one chunk held busy together: fault-ahead and populate work on a window, not on a page.
//!
//! One locked instruction takes them all and one lets them go. Slots that another thread works on are left out and not waited for, so
//! holding some while asking for others blocks nobody.

use super::array::{CHUNK, Chunk, owner_word};
use super::map::AnonMap;
use super::slots::mask_of;
use core::fmt;
use core::ops::Range;
use page_db::sync::ArenaFull;
use page_db::sync::atomic::Ordering;
use page_db::{Cx, Rank};
use swapfs::AnonNumber;

/// Slots held busy: what they hold is this thread's to change (H3).
#[must_use = "dropping the guard lets the slots go"]
pub struct SlotRun<'a> {
    map: &'a AnonMap,
    cx: &'a Cx,
    chunk: &'a Chunk,
    id: u32,
    base: u64,
    mask: u32,
}

impl fmt::Debug for SlotRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotRun({} + {:#x})", self.base, self.mask)
    }
}

impl AnonMap {
    /// Takes busy what nobody else has of the slots of `range`, which lie in one chunk. `None` when the chunk does not exist, as far as can be seen
    /// without a lock, or not one slot is to be had.
    pub fn try_enter_run<'a>(&'a self, cx: &'a Cx, range: Range<u64>) -> Option<SlotRun<'a>> {
        let id = self.find_chunk(range.start)?;
        let chunk = self.chunk(id)?;
        let base = range.start / CHUNK * CHUNK;
        debug_assert!(range.end <= base + CHUNK, "the slots of a run lie in one chunk");
        let wanted = mask_of(base, &range);
        let mask = loop {
            let mask = wanted & !chunk.busy();
            if mask == 0 {
                return None;
            }
            if chunk.try_busy(mask) {
                break mask;
            }
        };
        cx.rank_tried(Rank::AnonSlot);
        if chunk.owner.load(Ordering::SeqCst) != owner_word(self.id, range.start) {
            self.abandon_bits(cx, chunk, id, mask);
            return None;
        }
        Some(SlotRun { map: self, cx, chunk, id, base, mask })
    }
    /// As [`AnonMap::try_enter_run`], making the chunk if need be.
    ///
    /// # Errors
    /// [`ArenaFull`] when the heap refuses a chunk.
    pub fn try_enter_run_or_make<'a>(
        &'a self,
        cx: &'a Cx,
        range: Range<u64>,
    ) -> Result<Option<SlotRun<'a>>, ArenaFull> {
        if let Some(run) = self.try_enter_run(cx, range.clone()) {
            return Ok(Some(run));
        }
        self.make_chunk(cx, range.start)?;
        Ok(self.try_enter_run(cx, range))
    }
    /// Whether the chunk that holds `slot` is absent. It stays so until one is made (`seq`).
    pub(crate) fn is_absent(&self, cx: &Cx, slot: u64) -> bool {
        let _grow = self.grow.lock(cx);
        self.find_chunk(slot).is_none()
    }
}

impl SlotRun<'_> {
    /// Whether `slot` is one of those held.
    pub fn holds(&self, slot: u64) -> bool {
        slot.wrapping_sub(self.base) < CHUNK && self.mask >> (slot % CHUNK) & 1 != 0
    }
    /// The anon in a slot that is held; `None` also for one that is not.
    pub fn get(&self, slot: u64) -> Option<AnonNumber> {
        if !self.holds(slot) {
            return None;
        }
        AnonNumber::from_raw(self.chunk.slots[(slot % CHUNK) as usize].load(Ordering::Acquire))
    }
    /// Puts an anon into a slot that is held and empty; its reference moves in.
    pub(crate) fn fill(&self, slot: u64, n: AnonNumber) {
        debug_assert!(self.holds(slot) && self.get(slot).is_none(), "H3: slot {slot} is ours");
        self.chunk.slots[(slot % CHUNK) as usize].store(n.get(), Ordering::Release);
    }
}

impl Drop for SlotRun<'_> {
    fn drop(&mut self) {
        let used = self.chunk.occupied(self.mask);
        if self.map.drop_bits(self.cx, self.chunk, self.id, self.mask, used) == 0 {
            self.map.try_free_chunk(self.cx, self.base);
        }
    }
}
