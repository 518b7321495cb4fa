//! Anon maps: a sparse array of slots that segments share.
//!
//! `refs` counts the segments that use it. Which slots each of them covers is told in [`super::cover`], how one gives up its slots in [`super::lose`].
//!
//! # Locks
//!
//! `grow` (rank AnonMap) guards the radix's shape and the references slot by slot; a slot's busy bit (rank AnonSlot) guards the slot. A fault takes only the bit, unless
//! it is the first in a chunk. See [`super::array`] for what a walk without locks may believe.

use super::array::{CHUNK, SharedShape, owner_word};
use super::cover::SlotRefs;
use super::promised::Promised;
use super::{AnonHome, AnonLayer};
use addr_space::Contents;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::{Cx, Rank};

/// An anon map's number, in order of creation while there are numbers that no map has had; no two live maps have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct AnonMapId(pub u32);

/// The map.
#[doc(alias("struct anon_map", "amp", "vm_amap"))]
pub struct AnonMap {
    home: Arc<AnonHome>,
    pub(super) id: u32,
    /// Where the home's list has it.
    place: u32,
    pub(super) refs: AtomicU32,
    /// Pages pinned through shared segments; see [`AnonMap::pins`].
    pins: AtomicU32,
    /// Parts that somebody has given up and not yet emptied; grows under `grow`.
    pub(super) leaving: AtomicU32,
    pub(super) promised: Promised,
    /// Slots of the object it was made for, from slot 0 on, as many as there are numbers for; 0 for the pages of one mapping; see `object`.
    pub(super) size: u32,
    pub(super) shape: SharedShape,
    pub(super) grow: Mutex<SlotRefs>,
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
        self.home.forget(self.place);
    }
}

impl Contents for AnonMap {
    fn empty(&self, cx: &Cx, part: Range<u64>, lost: u64, promised: u64) {
        self.empty_lost(cx, part, lost);
        self.layer().swap().unreserve(promised);
    }
    fn wait_emptied(&self, cx: &Cx) {
        let leaving = || self.leaving.load(Ordering::SeqCst) != 0;
        self.layer().db().waits().wait_while(cx, self.leaving_key(), leaving);
    }
}

impl AnonMap {
    /// An empty map with one reference, which has `swresv` bytes of swap reserved: those of an object that has as many pages, or of none.
    #[doc(alias("anonmap_alloc", "anon_create"))]
    pub fn new(home: &Arc<AnonHome>, swresv: u64) -> Arc<Self> {
        Self::of(home, swresv, swresv / page_db::PAGE_SIZE, false)
    }
    /// The same for a loan, whose one reference is that of the loan; it is no object ([`AnonMap::is_loan`]).
    pub(crate) fn for_loan(home: &Arc<AnonHome>, swresv: u64) -> Arc<Self> {
        Self::of(home, swresv, 0, true)
    }
    fn of(home: &Arc<AnonHome>, swresv: u64, size: u64, loan: bool) -> Arc<Self> {
        let mut map = Arc::new(Self {
            home: Arc::clone(home),
            id: 0,
            place: 0,
            refs: AtomicU32::new(1),
            pins: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
            promised: Promised::new(swresv, if loan { Promised::LOAN } else { 0 }),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            shape: SharedShape::default(),
            grow: Mutex::new(Rank::AnonMap, None),
        });
        home.list(&mut map);
        map
    }
    #[cfg(test)]
    pub(super) fn place(&self) -> u32 {
        self.place
    }
    /// Takes its number and its place on the list of its home.
    pub(super) fn be_listed(&mut self, id: u32, place: u32) {
        (self.id, self.place) = (id, place);
    }
    #[inline]
    pub(crate) fn layer(&self) -> &AnonLayer {
        self.home.layer()
    }
    /// The number.
    pub fn id(&self) -> AnonMapId {
        AnonMapId(self.id)
    }
    /// Segments that use the map.
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Acquire)
    }
    /// What is bumped whenever a chunk comes to be; see [`addr_space::Stamp::and`].
    #[inline]
    pub(crate) fn chunks_made(&self) -> &AtomicU32 {
        &self.shape.chunks
    }
    /// Pages that are pinned for i/o through shared segments, whichever and whosever: what one process has pinned another must not wait for.
    #[doc(alias = "a_softlockcnt")]
    pub fn pins(&self) -> u32 {
        self.pins.load(Ordering::Acquire)
    }
    /// A shared segment is about to pin `pages`; says whether there is room in the count.
    pub(crate) fn pin(&self, pages: u32) -> bool {
        let more = |pins: u32| pins.checked_add(pages);
        self.pins.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }
    /// It has let go of them.
    pub(crate) fn unpin(&self, pages: u32) {
        self.pins.fetch_sub(pages, Ordering::AcqRel);
    }
    /// Bytes of swap reserved by the map itself.
    pub fn swresv(&self) -> u64 {
        self.promised.bytes()
    }
    /// Takes up to `bytes` from what the map has reserved, and says how many there were.
    pub(crate) fn take_swresv(&self, bytes: u64) -> u64 {
        self.promised.take(bytes)
    }

    /// Whether private segments share the map for good, so that whoever replaces a slot replaces it for all of them. Once it is set it stays until
    /// one segment is left.
    #[doc(alias = "AMAP_SHARED")]
    #[inline]
    pub fn is_joint(&self) -> bool {
        self.promised.has(Promised::JOINT)
    }
    /// Whether a private segment calls its memory by the map, or did. Each side of a fork has a map of its own then: what memory is called by is not left for
    /// another, and no map is shared lazily and for good at once.
    pub(crate) fn has_named(&self) -> bool {
        self.promised.has(Promised::NAMES)
    }
    /// From now on that is so.
    pub(crate) fn note_named(&self) {
        self.promised.set(Promised::NAMES);
    }
    /// Whether one reference is that of a loan ([`crate::seg_vn::LentAnons`]), which covers the slots as a segment would.
    pub fn is_loan(&self) -> bool {
        self.promised.has(Promised::LOAN)
    }
    /// The reference that the caller has is a loan's no more.
    pub(crate) fn end_loan(&self) {
        self.promised.clear(Promised::LOAN);
    }
    /// Checks M1 and the radix's own books; the text names what is broken.
    ///
    /// # Errors
    /// The first thing found broken.
    pub fn verify(&self, cx: &Cx) -> Result<(), alloc::string::String> {
        let chunks = self.chunks(cx);
        for (base, used) in chunks {
            let owner = self.find_chunk(base).and_then(|id| self.chunk(id));
            if owner.is_none_or(|c| c.owner.load(Ordering::Acquire) != owner_word(self.id, base)) {
                return Err(alloc::format!(
                    "H1: the chunk at {base} of map {} does not say so",
                    self.id
                ));
            }
            for (i, n) in self.slots(cx, base..base + CHUNK) {
                if self.layer().anons.refs(n) == 0 {
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
            let held =
                self.slots(cx, base..base + CHUNK).fold(0u32, |m, (i, _)| m | 1 << (i % CHUNK));
            if held != used {
                return Err(alloc::format!(
                    "anon map {}: chunk at {base} marks {used:#x}, holds {held:#x}",
                    self.id
                ));
            }
        }
        Ok(())
    }
}
