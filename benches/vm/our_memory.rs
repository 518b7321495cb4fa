//! Frames whose contents nobody fills: what remains of a fault is its bookkeeping.
//!
//! Zeroing and copying do nothing, yet every frame is zero whenever it is handed out: page tables are emptied entry by
//! entry before their frame is freed, and no test stores through a translation. The frames are mapped, not taken
//! from the heap, so the counting allocator sees the bookkeeping alone.

use page_db::phys_mem::PhysMem;
use page_db::sync::atomic::AtomicU64;
use page_db::{PAGE_SIZE, Pfn};

use crate::linux::Region;

/// The number of the first frame: as on a real machine, not 0.
const BASE: u64 = 256;
const WORDS: usize = PAGE_SIZE as usize / 8;

/// Memory of zeros.
#[derive(Debug)]
pub(crate) struct NoData(Region);

impl NoData {
    pub(crate) fn new(frames: usize) -> Result<Self, String> {
        Region::anonymous(frames * PAGE_SIZE as usize)
            .map(Self)
            .map_err(|e| format!("{frames} frames: {e}"))
    }
}

impl PhysMem for NoData {
    fn base(&self) -> Pfn {
        Pfn(BASE)
    }

    fn frames(&self) -> u64 {
        self.0.len() as u64 / PAGE_SIZE
    }

    fn zero(&self, _pfn: Pfn) {}

    fn copy(&self, _from: Pfn, _to: Pfn) {}

    fn read(&self, _pfn: Pfn, _offset: usize, buf: &mut [u8]) {
        buf.fill(0);
    }

    fn write(&self, _pfn: Pfn, _offset: usize, _bytes: &[u8]) {}

    #[inline]
    fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS] {
        let word = (pfn.0 - BASE) as usize * WORDS;
        assert!(word + WORDS <= self.0.len() / 8, "M1: an access stays inside its frame");
        // SAFETY: the words lie inside the region, which lives as long as `self`, is page-aligned, zero-initialised by
        // the kernel, and reached in no other way than as these atomics.
        unsafe { &*self.0.as_ptr().cast::<AtomicU64>().add(word).cast::<[AtomicU64; WORDS]>() }
    }

    fn side_by_side(&self) -> Option<&[[AtomicU64; WORDS]]> {
        let (first, frames) = (self.0.as_ptr().cast::<[AtomicU64; WORDS]>(), self.frames());
        // SAFETY: as above, for all of the region.
        Some(unsafe { std::slice::from_raw_parts(first, frames as usize) })
    }
}
