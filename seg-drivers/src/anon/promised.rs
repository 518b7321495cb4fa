//! What an anon map has promised, and what is so of it, in one word.

use page_db::PAGE_MASK;
use page_db::sync::atomic::{AtomicU64, Ordering};

/// Bytes of swap that the map itself has reserved (shared memory): whole pages. In the bits below a page is what is so or not so of the map, since there are
/// as many maps as mappings.
pub(super) struct Promised(AtomicU64);

impl Promised {
    /// The slots' references outlive their use, for a part was on its way out; whoever empties the last one looks again. Set under `grow`.
    pub(super) const KEPT: u64 = 1;
    /// A chunk became empty that could not be freed at once; see `AnonMap::free_missed_chunks`.
    pub(super) const MISSED: u64 = 2;
    /// Private segments share the map for good; see `AnonMap::is_joint`.
    pub(super) const JOINT: u64 = 4;
    /// One reference is a loan's, not a segment's; see `AnonMap::is_loan`.
    pub(super) const LOAN: u64 = 8;
    /// A segment calls its memory by the map; see `AnonMap::has_named`. It stays.
    pub(super) const NAMES: u64 = 32;
    /// Not every segment covers all of the object: slots have been given up, or others added. Changes under `grow`.
    pub(super) const UNEVEN: u64 = 16;

    /// `bytes`, rounded down to whole pages, and flags.
    pub(super) fn new(bytes: u64, flags: u64) -> Self {
        Self(AtomicU64::new(bytes & !PAGE_MASK | flags))
    }
    #[inline]
    pub(super) fn has(&self, flag: u64) -> bool {
        self.0.load(Ordering::SeqCst) & flag != 0
    }
    pub(super) fn set(&self, flag: u64) {
        self.0.fetch_or(flag, Ordering::SeqCst);
    }
    /// Takes a flag away; says whether it was there.
    pub(super) fn clear(&self, flag: u64) -> bool {
        self.0.fetch_and(!flag, Ordering::SeqCst) & flag != 0
    }
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire) & !PAGE_MASK
    }
    /// Whole pages more.
    pub(super) fn add(&self, bytes: u64) {
        debug_assert!(bytes & PAGE_MASK == 0, "{bytes:#x} bytes are no whole pages");
        self.0.fetch_add(bytes, Ordering::AcqRel);
    }
    /// Takes up to `bytes`, and says how many there were.
    pub(super) fn take(&self, bytes: u64) -> u64 {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let taken = bytes.min(word & !PAGE_MASK) & !PAGE_MASK;
            let next = word - taken;
            match self.0.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return taken,
                Err(now) => word = now,
            }
        }
    }
}
