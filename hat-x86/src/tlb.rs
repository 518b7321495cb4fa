//! A flush that is owed, as a value.
//!
//! # The difficulty
//!
//! An entry is changed under a table's lock; what CPUs remember of it must go before the operation returns; and the call
//! that makes it go may sleep or interrupt other CPUs, so it cannot happen under that lock. Between the two, the debt must not get lost.
//!
//! # The rule
//!
//! Whoever changes an entry adds it to a [`FlushDue`], which every verb of the hat makes at its start and hands to
//! `HatX86::finish` at its end, with no lock held. Dropping one that owes something panics in a debug build.
//!
//! - F1: an entry is owed when what it had is not in what it has: [`X86Pte::loses_to`]. Gaining is never owed.
//! - F2: an entry whose accessed bit was never set is not owed if the backend promises
//!   [`referenced_before_cached`](crate::mmu::Caps::referenced_before_cached). This is sound because clearing the bit is itself owed (F1, and F4 while it is
//!   not paid), and because a walker sets it by compare-and-swap: the swap that finds it clear makes the walker's fail.
//! - F3: frames of unlinked tables travel with the debt, and go back only after it is paid.
//! - F4: whoever relies on the tables waits for the debts of others. See below.
//!
//! # Other threads' debts
//!
//! Between a change and its flush the tables already say what processors do not know yet. Whoever looks at them then sees
//! nothing left to do, and is wrong:
//!
//! ```text
//!   thread 1, munmap                    thread 2, page-out                     CPU 3
//!   entry cleared, mapping off list
//!                                       page has no mapping, is clean: freed
//!                                       ... the frame is somebody else's       stores through what it remembers
//!   flush
//! ```
//!
//! So `Debts` has a word for each CPU: how many debts are open there, and for which space. A verb opens its debt before its first change and closes it
//! after the flush. A verb on a range ends by looking for other debts on its space, a verb on a page (and the page layer, before it
//! frees a page or takes it for clean) for any; if there is one, it flushes that space itself. Each CPU writes its own word, so that
//! two threads that fault or unmap in different spaces write no line of each other's. Nor do they wait for each other, but where a page is freed: any debt may be
//! of that page. A load waits for nobody; who copies on write asks for what is owed in its own space ([`addr_space::Hat::settle`]).
//!
//! Up to [`FLUSH_ENTRIES`] entries are named one by one; past that their spaces are flushed whole, and past
//! [`FLUSH_SPACES`] spaces everything is. Linux draws the line at 33 entries, illumos at 8 ranges; naming one costs about what refilling one does.
//! Nothing is allocated here, for these values live under spin locks in a kernel.
//!
//! Sources: [SDM 3A §4.10.4]; illumos `hat_tlb_inval_range` (behaviour); x86_64's `MapperFlush` (the idea of the value).

use crate::geometry::LEVELS;
use crate::mmu::{CpuSet, SpaceId};
use crate::pte::{PteBits, X86Pte};
use page_db::sync::atomic::{AtomicU64, Ordering::SeqCst};
use page_db::sync::{Mutation, PerCpu, mutated};
use page_db::{Cx, VirtAddr};

/// Entries named one by one.
pub const FLUSH_ENTRIES: usize = 32;
/// Spaces a flush tells apart.
pub const FLUSH_SPACES: usize = 8;

/// One entry that lost something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushEntry {
    /// Whose table it is in.
    pub space: SpaceId,
    /// First address it translates.
    pub va: VirtAddr,
    /// Its table's level: 0 for a page; above that for a table. One that was unlinked (`new` is absent) was emptied before, entry by entry, and what must go is
    /// the entry itself: processors remember the way to a table, too, and its frame is about to be somebody else's. Of one that stays and lost a right,
    /// everything remembered through it must go (U3).
    pub level: u8,
    /// As it was.
    pub old: X86Pte,
    /// As it is.
    pub new: X86Pte,
}

/// The debts that are open now, by CPU (F4).
#[derive(Debug)]
pub(crate) struct Debts {
    /// Number of debts in the upper half; the space they are for, or [`MANY`], in the lower.
    slots: PerCpu<AtomicU64>,
}

/// Debts for several spaces, or for spaces not known in advance.
pub(crate) const MANY: u32 = u32::MAX;

impl Debts {
    pub(crate) fn new(cpus: u16) -> Self {
        Self { slots: PerCpu::new(cpus, |_| AtomicU64::new(0)) }
    }
    /// Opens a debt for `space`, `None` for any; the slot it is noted in.
    fn open(&self, cx: &Cx, space: Option<SpaceId>) -> usize {
        let slot = usize::from(cx.cpu().0);
        let mine = space.map_or(MANY, |s| s.0);
        let word = self.slots.get(slot);
        let mut old = word.load(SeqCst);
        loop {
            let space = if old >> 32 == 0 || old as u32 == mine { mine } else { MANY };
            let new = ((old >> 32) + 1) << 32 | u64::from(space);
            match word.compare_exchange(old, new, SeqCst, SeqCst) {
                Ok(_) => return slot,
                Err(now) => old = now,
            }
        }
    }
    fn close(&self, slot: usize) {
        let old = self.slots.get(slot).fetch_sub(1 << 32, SeqCst);
        debug_assert!(old >> 32 != 0, "F4: a debt is closed once");
    }
    /// Calls `f` with the space of each debt that is open besides one in slot `own`.
    fn others(&self, own: Option<usize>, mut f: impl FnMut(Option<SpaceId>)) {
        if mutated(Mutation::DebtsUnseen) {
            return;
        }
        let own = own.map(|s| s % self.slots.len());
        for (i, word) in self.slots.iter().enumerate() {
            let word = word.load(SeqCst);
            if word >> 32 > u64::from(own == Some(i)) {
                f((word as u32 != MANY).then_some(SpaceId(word as u32)));
            }
        }
    }
    /// Whether any debt is open.
    pub(crate) fn any(&self) -> bool {
        self.slots.iter().any(|w| w.load(SeqCst) >> 32 != 0)
    }
}

#[derive(Clone, Copy, Default)]
struct Packed {
    /// Address; below it, in bits the page offset leaves free, level and number of the space.
    at: u64,
    old: X86Pte,
    new: X86Pte,
}

/// What has to be forgotten before the verb that owes it returns.
#[must_use = "a flush is owed: hand it to HatX86::finish"]
pub struct FlushDue {
    entries: [Packed; FLUSH_ENTRIES],
    count: usize,
    named: u64,
    spaces: [SpaceId; FLUSH_SPACES],
    space_count: usize,
    /// Bit n: `spaces[n]` is flushed whole.
    whole: u8,
    everything: bool,
    skip_unreferenced: bool,
    /// Where it is noted as open (F4); `None` when it is closed, or when nothing is owed because nothing runs in the hat any more.
    slot: Option<usize>,
    /// The only space concerned; `None` for the verbs on pages.
    space: Option<SpaceId>,
    cpus: CpuSet,
    /// First of the unlinked tables, linked through their records; 0 for none.
    pub(crate) retired: u32,
}

impl FlushDue {
    /// Opens a debt for changes in `space`, or in any. `skip_unreferenced` is the backend's promise of F2.
    pub(crate) fn open(
        debts: &Debts,
        cx: &Cx,
        space: Option<SpaceId>,
        skip_unreferenced: bool,
    ) -> Self {
        let mut due = Self::muted();
        due.skip_unreferenced = skip_unreferenced;
        due.space = space;
        due.slot = Some(debts.open(cx, space));
        due
    }
    /// A debt that stays empty but for the frames of tables: nothing runs in the hat concerned any more.
    pub(crate) fn muted() -> Self {
        Self {
            entries: [Packed::default(); FLUSH_ENTRIES],
            count: 0,
            named: 0,
            spaces: [SpaceId::KERNEL; FLUSH_SPACES],
            space_count: 0,
            whole: 0,
            everything: false,
            skip_unreferenced: false,
            slot: None,
            space: None,
            cpus: CpuSet::of_group(0),
            retired: 0,
        }
    }
    /// The same of one space: what is joined to it is what others owe there.
    pub(crate) fn muted_of(space: SpaceId) -> Self {
        let mut due = Self::muted();
        due.space = Some(space);
        due
    }
    /// Adds what others owe and this verb's caller will rely on (F4). With no space of its own: everything that is open.
    pub(crate) fn join_others(&mut self, debts: &Debts) {
        debts.others(self.slot, |theirs| match (self.space, theirs) {
            (Some(mine), None) => self.add_space(mine),
            (Some(mine), Some(s)) if s != mine => {}
            (_, Some(s)) => self.add_space(s),
            (None, None) => self.everything = true,
        });
    }
    /// Whether it is noted as open.
    pub(crate) fn is_open(&self) -> bool {
        self.slot.is_some()
    }
    /// The flush is done.
    pub(crate) fn close(&mut self, debts: &Debts) {
        self.settle();
        if let Some(slot) = self.slot.take() {
            debts.close(slot);
        }
    }
    fn space_slot(&mut self, space: SpaceId) -> Option<usize> {
        if let Some(n) = self.spaces[..self.space_count].iter().position(|s| *s == space) {
            return Some(n);
        }
        if self.space_count == FLUSH_SPACES {
            self.everything = true;
            return None;
        }
        self.spaces[self.space_count] = space;
        self.space_count += 1;
        Some(self.space_count - 1)
    }
    /// Notes that an entry of a table of `level` changed; F1 and F2 decide whether it is owed.
    pub(crate) fn add(&mut self, space: SpaceId, va: u64, level: u8, old: X86Pte, new: X86Pte) {
        let cached = old.has(PteBits::A) || !self.skip_unreferenced;
        if self.slot.is_none() || !cached || !old.loses_to(new) {
            return;
        }
        self.named += 1;
        let Some(slot) = self.space_slot(space) else { return };
        if self.whole >> slot & 1 != 0 {
            return;
        }
        if self.count == FLUSH_ENTRIES {
            self.overflow();
            self.whole |= 1 << slot;
            return;
        }
        self.entries[self.count] =
            Packed { at: va | u64::from(level) | (slot as u64) << 2, old, new };
        self.count += 1;
    }
    /// Gives up naming entries: every space met so far is flushed whole.
    fn overflow(&mut self) {
        self.count = 0;
        self.whole = ((1u16 << self.space_count) - 1) as u8;
    }
    /// Owes everything remembered of a space.
    pub(crate) fn add_space(&mut self, space: SpaceId) {
        self.named += 1;
        if let Some(slot) = self.space_slot(space) {
            self.whole |= 1 << slot;
        }
    }
    pub(crate) fn set_cpus(&mut self, cpus: CpuSet) {
        self.cpus = cpus;
    }
    /// Whether anything has to be forgotten.
    pub fn is_owed(&self) -> bool {
        self.everything || self.space_count != 0
    }
    /// How many changes are owed for, named or not.
    pub fn changes(&self) -> u64 {
        self.named
    }
    /// The CPUs that must forget, of one group: [`Mmu::flush`](crate::mmu::Mmu::flush) is called for each.
    pub fn cpus(&self) -> &CpuSet {
        &self.cpus
    }
    /// Whether every translation of every space must go.
    pub fn is_everything(&self) -> bool {
        self.everything
    }
    /// The spaces concerned.
    pub fn spaces(&self) -> &[SpaceId] {
        &self.spaces[..self.space_count]
    }
    /// The spaces of which everything must go.
    pub fn whole_spaces(&self) -> impl Iterator<Item = SpaceId> + '_ {
        self.spaces().iter().enumerate().filter(|(n, _)| self.whole >> n & 1 != 0).map(|(_, s)| *s)
    }
    /// The entries named one by one, in the order they were changed.
    pub fn entries(&self) -> impl Iterator<Item = FlushEntry> + '_ {
        self.entries[..self.count].iter().map(|p| FlushEntry {
            space: self.spaces[(p.at >> 2) as usize & (FLUSH_SPACES - 1)],
            va: VirtAddr::new(p.at).unwrap_or_default().page_floor(),
            level: p.at as u8 & (LEVELS - 1),
            old: p.old,
            new: p.new,
        })
    }
    fn settle(&mut self) {
        (self.count, self.space_count) = (0, 0);
        self.everything = false;
    }
}

impl Drop for FlushDue {
    fn drop(&mut self) {
        #[cfg(all(debug_assertions, feature = "std"))]
        if !std::thread::panicking() {
            let paid = !self.is_owed() && self.retired == 0 && self.slot.is_none();
            assert!(paid, "T1: a flush was owed and never paid: {self:?}");
        }
    }
}

impl core::fmt::Debug for FlushDue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FlushDue")
            .field("cpus", &self.cpus)
            .field("everything", &self.everything)
            .field("spaces", &self.spaces())
            .field("whole", &self.whole)
            .field("entries", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use page_db::Pfn;

    fn cx() -> Cx {
        let hooks = alloc::sync::Arc::new(page_db::SpinHooks);
        Cx::new(&page_db::Counters::new(1), page_db::CpuId(0), page_db::ThreadId(0), hooks)
    }
    fn used(pfn: u64) -> X86Pte {
        X86Pte::new(Pfn(pfn), PteBits::P | PteBits::A)
    }

    #[test]
    fn entries_are_named_until_there_are_too_many() {
        let (debts, cx) = (Debts::new(1), cx());
        let mut due = FlushDue::open(&debts, &cx, None, true);
        due.add(SpaceId(7), 0x1000, 0, X86Pte::new(Pfn(1), PteBits::P), X86Pte::EMPTY);
        assert!(!due.is_owed(), "F2: never referenced");
        due.add(SpaceId(7), 0x20_0000, 1, used(1), X86Pte::EMPTY);
        due.add(SpaceId(9), 0x3000, 0, used(2), X86Pte::EMPTY);
        let named: Vec<_> = due.entries().map(|e| (e.space.0, e.va.get(), e.level)).collect();
        assert_eq!(named, [(7, 0x20_0000, 1), (9, 0x3000, 0)]);
        for i in 0..FLUSH_ENTRIES as u64 {
            due.add(SpaceId(9), i << 12, 0, used(i), X86Pte::EMPTY);
        }
        assert_eq!(due.entries().count(), 0);
        assert_eq!(due.whole_spaces().collect::<Vec<_>>(), [SpaceId(7), SpaceId(9)]);
        due.add(SpaceId(7), 0x5000, 0, used(1), X86Pte::EMPTY);
        assert_eq!((due.entries().count(), due.changes()), (0, FLUSH_ENTRIES as u64 + 3));
        for s in 0..FLUSH_SPACES as u32 {
            due.add(SpaceId(20 + s), 0, 0, used(1), X86Pte::EMPTY);
        }
        assert!(due.is_everything());
        due.close(&debts);
        assert!(!debts.any());
    }

    #[test]
    fn the_debts_of_others_are_seen_by_those_they_concern() {
        let (debts, cx) = (Debts::new(2), cx());
        let joined = |space, others: &[Option<SpaceId>]| {
            let mut open: Vec<_> =
                others.iter().map(|s| FlushDue::open(&debts, &cx, *s, true)).collect();
            let mut due = FlushDue::open(&debts, &cx, space, true);
            due.join_others(&debts);
            let seen = (due.whole_spaces().collect::<Vec<_>>(), due.is_everything());
            due.close(&debts);
            open.iter_mut().for_each(|d| d.close(&debts));
            assert!(!debts.any());
            seen
        };
        let (one, two) = (SpaceId(1), SpaceId(2));
        assert_eq!(joined(Some(one), &[]), (Vec::new(), false), "one's own is not another's");
        assert_eq!(joined(Some(one), &[Some(one)]), ([one].into(), false));
        // Threads of one CPU share its word: two spaces there are many.
        assert_eq!(joined(Some(one), &[Some(two)]), ([one].into(), false));
        assert_eq!(joined(None, &[Some(two)]), (Vec::new(), true));
        assert_eq!(joined(None, &[None]), (Vec::new(), true));
    }

    #[test]
    #[cfg(all(debug_assertions, feature = "std"))]
    #[should_panic(expected = "T1")]
    fn a_forgotten_debt_panics() {
        let mut due = FlushDue::open(&Debts::new(1), &cx(), Some(SpaceId(1)), false);
        due.add(SpaceId(1), 0, 0, used(1), X86Pte::EMPTY);
    }
}
