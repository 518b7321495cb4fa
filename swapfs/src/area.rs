//! One swap area: a range of pages on a device, and which of them are taken.
//!
//! Slots are handed out next-fit: the search goes on where the last one ended and comes back to a freed slot only after a
//! turn through the area. So the pages of one scan, and of the next, lie one behind the other, as in a log. A run as long as asked for is
//! preferred; when none is left anywhere, the first free slots do.
//!
//! - G1: a bit is set from allocation until the slot is freed; a bad slot keeps its bit until the area goes.
//! - G2: `free` counts the clear bits.
//! - G3: `bad` = names whose word says bad, of this area, + `lost`, when quiet.
//! - G4: an area that fails has a free slot, when quiet: it is known to fail before the slot of the page that could not be written is anybody's.

use crate::device::{Medium, SwapDevice};
use crate::name::AnonNumber;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use page_db::sync::{GrowTable, Mutex};
use page_db::{Cx, Rank};

/// Names a swap area: in order of adding, never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct AreaId(pub u32);

impl AreaId {
    /// The last one; a number's word has 24 bits for it.
    pub const MAX: Self = Self((1 << 24) - 1);
}

impl fmt::Display for AreaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One page of a swap area.
#[doc(alias("an_pvp", "an_poff"))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct PhysSlot {
    /// Which area.
    pub area: AreaId,
    /// Which page of it, from 0.
    pub index: u32,
}

impl fmt::Display for PhysSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.area, self.index)
    }
}

/// Which slots are taken.
#[derive(Debug)]
pub(crate) struct Slots {
    words: Vec<u64>,
    len: u32,
    free: u32,
    bad: u32,
    /// Bad slots of names that have ended or moved on: nobody's promise any more (V4).
    lost: u32,
    /// Where the next search starts.
    hint: u32,
    /// Runs of this length are known not to exist since the last free.
    no_run: u32,
    /// Somebody empties the area; nothing is allocated from it (`ST_INDEL`, `ST_DOINGDEL`). The number tells removals apart.
    pub(crate) removal: Option<u64>,
}

impl Slots {
    /// `len` free slots, or `None` when the heap refuses.
    pub(crate) fn new(len: u32) -> Option<Self> {
        let n = len.div_ceil(64) as usize;
        let mut words = Vec::new();
        words.try_reserve_exact(n).ok()?;
        words.resize(n, 0);
        Some(Self {
            words,
            len,
            free: len,
            bad: 0,
            lost: 0,
            hint: 0,
            no_run: u32::MAX,
            removal: None,
        })
    }
    pub(crate) fn free_count(&self) -> u32 {
        self.free
    }
    pub(crate) fn bad_count(&self) -> u32 {
        self.bad
    }
    pub(crate) fn lost_count(&self) -> u32 {
        self.lost
    }
    /// Slots that back a promise: all but the lost.
    pub(crate) fn promised(&self) -> u64 {
        u64::from(self.len - self.lost)
    }
    /// Slots that some name owns, or is about to.
    pub(crate) fn owned(&self) -> u32 {
        self.len - self.free - self.bad
    }
    pub(crate) fn is_taken(&self, i: u32) -> bool {
        i < self.len && self.words[(i / 64) as usize] >> (i % 64) & 1 == 1
    }
    /// Slots with their bit set, counted anew.
    pub(crate) fn taken(&self) -> u32 {
        self.words.iter().map(|w| w.count_ones()).sum()
    }
    /// The first slot in `[i, end)` whose bit is `taken`, else `end`.
    fn next(&self, mut i: u32, end: u32, taken: bool) -> u32 {
        while i < end {
            let word = self.words[(i / 64) as usize];
            let ones = (if taken { word } else { !word }) >> (i % 64);
            if ones != 0 {
                return (i + ones.trailing_zeros()).min(end);
            }
            i = (i / 64 + 1) * 64;
        }
        end
    }
    /// The first run of `want` free slots that starts in `[from, to)`; without `exact`, the first run of any length up to that.
    fn scan(&self, from: u32, to: u32, want: u32, exact: bool) -> Option<(u32, u32)> {
        let mut i = from;
        loop {
            i = self.next(i, to, false);
            if i >= to {
                return None;
            }
            let limit = i.saturating_add(want).min(self.len);
            let got = self.next(i, limit, true) - i;
            if got == want || !exact {
                return Some((i, got));
            }
            i += got;
        }
    }
    /// Takes a run of `want` slots (1 or more), or with `exact` unset of fewer. Says where and how many.
    pub(crate) fn alloc(&mut self, want: u32, exact: bool) -> Option<(u32, u32)> {
        if self.removal.is_some() || self.free == 0 || want == 0 {
            return None;
        }
        if exact && (self.free < want || want >= self.no_run) {
            return None;
        }
        let found = self
            .scan(self.hint, self.len, want, exact)
            .or_else(|| self.scan(0, self.hint, want, exact));
        let Some((first, count)) = found else {
            self.no_run = self.no_run.min(want);
            return None;
        };
        for i in first..first + count {
            self.words[(i / 64) as usize] |= 1 << (i % 64);
        }
        self.free -= count;
        self.hint = if first + count == self.len { 0 } else { first + count };
        Some((first, count))
    }
    /// Gives one slot back.
    pub(crate) fn free(&mut self, i: u32) {
        debug_assert!(self.is_taken(i), "W2: a slot is freed once");
        if self.is_taken(i) {
            self.words[(i / 64) as usize] &= !(1 << (i % 64));
            self.free += 1;
            self.no_run = u32::MAX;
        }
    }
    /// Keeps a slot out of use for good (G1).
    pub(crate) fn mark_bad(&mut self, i: u32) {
        debug_assert!(self.is_taken(i), "W2: only an owned slot goes bad");
        self.bad += 1;
    }
    /// Counts a bad slot that no name says any more (G3).
    pub(crate) fn lose(&mut self) {
        self.lost += 1;
    }
    /// Flips a bit behind everybody's back, for tests of verify.
    pub(crate) fn plant(&mut self, i: u32) {
        if i < self.len {
            self.words[(i / 64) as usize] ^= 1 << (i % 64);
        }
    }
}

/// A swap area.
#[doc(alias("swapinfo", "swap_phys_alloc"))]
#[derive(Debug)]
pub struct SwapArea {
    id: AreaId,
    device: Arc<dyn SwapDevice>,
    name: String,
    medium: Medium,
    start: u64,
    pages: u32,
    priority: i16,
    pub(crate) slots: Mutex<Slots>,
    /// By slot: the number that took it last (K1).
    owners: GrowTable<AtomicU32, 6>,
    /// Whether the last write failed. Such an area is the last resort; its slots are not lost, for what is the matter may pass (a full file system).
    failing: AtomicBool,
}

impl SwapArea {
    pub(crate) fn new(
        id: AreaId,
        device: Arc<dyn SwapDevice>,
        start: u64,
        priority: i16,
        slots: Slots,
    ) -> Self {
        let (name, medium) = (device.name(), device.medium());
        let pages = slots.len;
        let slots = Mutex::new(Rank::SwapArea, slots);
        let (owners, failing) = (GrowTable::new(), AtomicBool::new(false));
        Self { id, device, name, medium, start, pages, priority, slots, owners, failing }
    }
    /// The area's id.
    pub fn id(&self) -> AreaId {
        self.id
    }
    /// Where its bytes go.
    pub fn device(&self) -> &dyn SwapDevice {
        &*self.device
    }
    /// The device's name.
    #[doc(alias = "si_pname")]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Its first page on the device.
    #[doc(alias = "si_soff")]
    pub fn start(&self) -> u64 {
        self.start
    }
    /// Its size in pages.
    #[doc(alias = "si_npgs")]
    pub fn pages(&self) -> u32 {
        self.pages
    }
    /// Areas of higher priority fill first.
    pub fn priority(&self) -> i16 {
        self.priority
    }
    /// Whether the last write to it failed: it is taken from when there is no room elsewhere.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::SeqCst)
    }
    /// Notes how a write ended; says whether that is otherwise than the one before.
    pub(crate) fn note_write(&self, ok: bool) -> bool {
        self.is_failing() == ok && self.failing.swap(!ok, Ordering::SeqCst) == ok
    }
    /// Gives a slot back.
    #[doc(alias = "swap_phys_free")]
    pub(crate) fn free(&self, cx: &Cx, index: u32) {
        self.slots.lock(cx).free(index);
    }
    /// The first taken slot at or after `from` that could be somebody else's; none while the area is being removed or fails.
    pub(crate) fn next_taken(&self, cx: &Cx, from: u32) -> Option<u32> {
        let slots = self.slots.lock(cx);
        let i = slots.next(from, self.pages, true);
        (i < self.pages && slots.removal.is_none() && !self.is_failing()).then_some(i)
    }
    /// Who took the slot last; a hint for whoever does not own the slot (K1).
    pub(crate) fn owner(&self, index: u32) -> Option<AnonNumber> {
        AnonNumber::from_raw(self.owners.get(index)?.load(Ordering::SeqCst))
    }
    /// Remembers who takes a slot, before the name's word says so; `false` when the heap refuses.
    pub(crate) fn set_owner(&self, index: u32, n: AnonNumber) -> bool {
        let entry = self.owners.ensure(index);
        entry.map(|e| e.store(n.get(), Ordering::SeqCst)).is_some()
    }
    /// Whether the area shares a page with `[start, start + pages)` of `medium`.
    pub(crate) fn overlaps(&self, medium: &Medium, start: u64, pages: u64) -> bool {
        self.medium == *medium
            && start < self.start + u64::from(self.pages)
            && self.start < start.saturating_add(pages)
    }
}
