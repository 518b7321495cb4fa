//! The slots of an anon map: chunks of 32 under a sparse radix of small blocks.
//!
//! ```text
//!   height 0    map ─▶ chunk, chunk                        64 slots, an aligned pair: most maps, and no block at all
//!   height 1    map ─▶ block[16] ─▶ chunk                  512
//!   height 2    map ─▶ block[16] ─▶ block[16] ─▶ chunk     8192 ...
//! ```
//!
//! An absent block or chunk costs nothing, and a chunk is freed when its last slot empties. Slot numbers are logical: the radix remembers which
//! number its first place stands for (`origin`) and is raised by one level, upwards or downwards, when a number outside is touched. So a map that
//! grows, on either side, moves nothing.
//!
//! Chunks and blocks live in type-stable arenas and are walked without a lock, so a walker may land on a chunk that has been freed and used
//! again, by this map or another. What it finds is believed like this:
//!
//! - H1: a chunk's `owner` says which map and which part of it the chunk is; it is compared *after* one of its slots was taken busy,
//!   and a chunk loses its owner only with every slot busy, and gets one only when it is linked.
//! - H2: an absent chunk is believed only under the map's shape lock.
//! - H3: a slot changes only while its busy bit is held.
//!
//! Sources: the Keyronex document (two levels, chunks of 32), OpenBSD's chunked amap (freed when empty); uvm.md 1.3.

use page_db::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Slots in a chunk.
pub const CHUNK: u64 = 32;
/// Entries in a block.
pub const FANOUT: u64 = 16;
const FANOUT_BITS: u32 = 4;

/// 32 slots and the bits that guard them.
#[doc(alias = "vm_amap_chunk_t")]
#[derive(Debug, Default)]
pub struct Chunk {
    /// Two bits a slot, in one word so that they change together. Low half: somebody works on it. High half: it holds an anon.
    pub(crate) bits: AtomicU64,
    /// Map number and chunk number (logical slot number / 32, low 32 bits); 0 while free.
    pub(crate) owner: AtomicU64,
    /// Anon numbers, 0 for empty.
    pub(crate) slots: [AtomicU32; CHUNK as usize],
}

impl Chunk {
    /// The slots that somebody works on.
    pub(crate) fn busy(&self) -> u32 {
        self.bits.load(Ordering::SeqCst) as u32
    }
    /// The slots that hold an anon.
    pub(crate) fn used(&self) -> u32 {
        (self.bits.load(Ordering::SeqCst) >> 32) as u32
    }
    /// Takes `mask` busy if none of it is. The caller remembers to let go of it.
    #[inline]
    pub(crate) fn try_busy(&self, mask: u32) -> bool {
        let mut bits = self.bits.load(Ordering::SeqCst);
        while bits as u32 & mask == 0 {
            let taken = bits | u64::from(mask);
            match self.bits.compare_exchange_weak(bits, taken, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => bits = now,
            }
        }
        false
    }
    /// Lets go of `mask`, whose slots hold an anon afterwards as `used` says. The caller holds them all busy; answers the slots in use then.
    #[inline]
    pub(crate) fn let_go(&self, mask: u32, used: u32) -> u32 {
        let marked = self.used() & mask; // nobody else changes the marks of busy slots (H3)
        let (set, clear) = (used & mask & !marked, marked & !used);
        // Each bit that is added is clear and each that is taken away is set, so nothing is carried: one addition does it all.
        let change = (u64::from(set) << 32)
            .wrapping_sub(u64::from(clear) << 32)
            .wrapping_sub(u64::from(mask));
        let before = self.bits.fetch_add(change, Ordering::SeqCst);
        debug_assert_eq!(before as u32 & mask, mask, "H3: only busy slots are let go");
        (before.wrapping_add(change) >> 32) as u32
    }
    /// The slots of `mask` that hold an anon, as their words say. The caller holds them busy.
    pub(crate) fn occupied(&self, mask: u32) -> u32 {
        bits(mask)
            .filter(|i| self.slots[*i].load(Ordering::Relaxed) != 0)
            .fold(0, |m, i| m | 1 << i)
    }
}

/// The places of the ones in `mask`.
pub(crate) fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let i = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(i)
    })
}

/// Sixteen ids of blocks or chunks, 0 for absent.
#[derive(Debug, Default)]
#[doc(alias = "anon_hdr")]
pub struct Block {
    pub(crate) entries: [AtomicU32; FANOUT as usize],
}

/// Roots, height and origin, as one reader must see them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    /// Height 0: the chunks of the two halves. Above: the top block, and 0.
    pub(crate) roots: [u32; 2],
    pub(crate) height: u32,
    /// Logical number of the first slot the radix can hold; a multiple of 32, and as a signed number possibly below zero.
    pub(crate) origin: u64,
}

/// Chunks that a map without blocks holds.
const PAIR: u64 = 2;
/// The highest radix: 2^61 slots. One more level would be told in 65 bits, and a segment has no more than 2^52.
pub(crate) const HIGHEST: u32 = 14;

impl Shape {
    /// The empty radix of a map whose first slot is `slot`.
    pub(crate) fn around(slot: u64) -> Self {
        Self { roots: [0; 2], height: 0, origin: slot / (PAIR * CHUNK) * (PAIR * CHUNK) }
    }
    pub(crate) fn is_empty(self) -> bool {
        self.roots == [0; 2]
    }
    /// Whether the radix can be raised so far that it holds `slot`.
    pub(crate) fn reaches(mut self, slot: u64) -> bool {
        while !self.is_empty() && !self.holds(slot) {
            if self.height == HIGHEST {
                return false;
            }
            self = Self { origin: self.raised(slot).0, height: self.height + 1, ..self };
        }
        true
    }
    /// Slots the radix can hold.
    pub(crate) fn span(self) -> u64 {
        span(self.height)
    }
    #[inline]
    pub(crate) fn holds(self, slot: u64) -> bool {
        !self.is_empty() && slot.wrapping_sub(self.origin) < self.span()
    }
    /// Which of the pair `slot` lies in, at height 0.
    #[inline]
    pub(crate) fn half(self, slot: u64) -> usize {
        (slot.wrapping_sub(self.origin) / CHUNK) as usize & 1
    }
    /// Which entry of a block at `level` (height - 1 at the root, 0 just above chunks) leads to `slot`.
    #[inline]
    pub(crate) fn entry(self, slot: u64, level: u32) -> usize {
        ((slot.wrapping_sub(self.origin) / CHUNK) >> (FANOUT_BITS * level)) as usize
            & (FANOUT as usize - 1)
    }
    /// Where the radix starts, and which entry of a new top block leads to what there is, when it is raised by a level towards `slot`: upwards the
    /// old root becomes the first entry (or two), downwards the last.
    pub(crate) fn raised(self, slot: u64) -> (u64, u64) {
        let below = (slot.wrapping_sub(self.origin) as i64) < 0;
        let (step, roots) = if self.height == 0 { (CHUNK, PAIR) } else { (self.span(), 1) };
        let at = if below { FANOUT - roots } else { 0 };
        (self.origin.wrapping_sub(at * step), at)
    }
}

/// Slots under a radix of `height`.
pub(crate) fn span(height: u32) -> u64 {
    if height == 0 { PAIR * CHUNK } else { under(height) }
}
/// Slots under one entry at `height` levels above chunks.
pub(crate) fn under(height: u32) -> u64 {
    CHUNK << (FANOUT_BITS * height)
}

/// A [`Shape`] read without a lock and written under one (a sequence lock).
#[derive(Debug, Default)]
pub(crate) struct SharedShape {
    seq: AtomicU32,
    /// Bumped whenever a chunk comes to be, which leaves the shape as it was.
    pub(super) chunks: AtomicU32,
    roots: AtomicU64,
    /// The height in the bits below 32, which an origin leaves free.
    origin_height: AtomicU64,
}

impl SharedShape {
    /// The shape, unless a writer, who has a few stores to make, is in the middle of them.
    #[inline]
    pub(crate) fn try_load(&self) -> Option<Shape> {
        let before = self.seq.load(Ordering::Acquire);
        let roots = self.roots.load(Ordering::Acquire);
        let oh = self.origin_height.load(Ordering::Acquire);
        let shape = Shape {
            roots: [roots as u32, (roots >> 32) as u32],
            height: (oh & (CHUNK - 1)) as u32,
            origin: oh & !(CHUNK - 1),
        };
        (before & 1 == 0 && self.seq.load(Ordering::Acquire) == before).then_some(shape)
    }
    /// The shape; `pause` is called for each turn that a writer makes it wait.
    #[cold]
    pub(crate) fn load_later(&self, pause: impl Fn(u32)) -> Shape {
        let mut turns: u32 = 0;
        loop {
            pause(turns);
            if let Some(shape) = self.try_load() {
                return shape;
            }
            turns = turns.saturating_add(1);
        }
    }
    /// Publishes another shape; the caller holds the map's shape lock.
    pub(crate) fn store(&self, s: Shape) {
        self.seq.fetch_add(1, Ordering::AcqRel);
        self.roots.store(u64::from(s.roots[0]) | u64::from(s.roots[1]) << 32, Ordering::Release);
        self.origin_height.store(s.origin | u64::from(s.height), Ordering::Release);
        self.seq.fetch_add(1, Ordering::Release);
    }
}

/// What a chunk's owner word says for the chunk that holds `slot` of map `map`.
pub(crate) fn owner_word(map: u32, slot: u64) -> u64 {
    u64::from(map) << 32 | (slot / CHUNK) & 0xffff_ffff
}
