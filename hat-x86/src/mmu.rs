//! The seam under the tables: whatever remembers translations.
//!
//! The tables are the truth. A backend (a simulated processor, real registers, a host's mappings, a virtual machine) walks
//! them or has them walked, remembers what it found, and **may forget any of it at any time**; that freedom is what lets one
//! hat serve them all without an error path. In return it is told, before anybody relies on it, of every entry that lost something:
//!
//! ```text
//!   hat                                        backend
//!   store into a table  (lock held)
//!   collect FlushDue    (lock held)
//!   drop every lock
//!   flush(&due) ──────────────────────────────▶ on return no CPU can use an old entry, no access that did is under way
//!   retire_tables(tables) ────────────────────▶ gives each frame back, now or in a later call, when its reuse is safe
//! ```
//!
//! Entries that only gained are not told of: an old copy causes a fault, and the fault finds that all is well by now.
//!
//! Sources: live-backends notes, section 5; [SDM 3A §4.10], its §4.10.3 included, for what hardware may remember.

use crate::retired::RetiredTables;
use crate::tlb::FlushDue;
use alloc::string::String;
use core::fmt;
use page_db::{CpuId, Cx, Pfn, PhysMem, VirtRange};

/// A translated space, by number: the id of its hat. 0 is the kernel's, whose translations are part of every space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The kernel's space.
    pub const KERNEL: Self = Self(0);
}
impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Words of a set.
const WORDS: usize = 4;

/// A set of processors: some of the [`CpuSet::GROUP`] neighbours that are a group.
///
/// A flush cannot fail, so the set of those it goes to never asks the heap: it lies on the stack of whoever owes the flush, as wide as illumos's for its
/// largest machine. Of more processors there is one group after the other, and a flush for each group that has any; nearly every machine is one group.
///
/// The other roads: words for all processors, which are 8 KB on a stack; words of each hat, sized at boot, which only the backend knows to fill, and which
/// two threads that flush several hats at once would have to put together somewhere.
#[doc(alias = "cpuset_t")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CpuSet {
    words: [u64; WORDS],
    group: u16,
}

impl CpuSet {
    /// Processors of a group.
    #[doc(alias = "NCPU")]
    pub const GROUP: u16 = WORDS as u16 * 64;

    /// No CPU of a group; group 0 begins with CPU 0.
    pub const fn of_group(group: u16) -> Self {
        Self { words: [0; WORDS], group }
    }
    /// No CPU, for each group of a machine with `cpus` processors (at least one).
    pub fn groups(cpus: u16) -> impl Iterator<Item = Self> {
        (0..cpus.div_ceil(Self::GROUP).max(1)).map(Self::of_group)
    }
    /// Whether a CPU is of this set's group.
    pub const fn takes(&self, cpu: CpuId) -> bool {
        cpu.0 / Self::GROUP == self.group
    }
    /// Where a CPU of the group has its bit.
    fn place(cpu: CpuId) -> (usize, u64) {
        (usize::from(cpu.0 % Self::GROUP / 64), 1 << (cpu.0 % 64))
    }
    /// Adds a CPU; one of another group is passed over.
    pub fn insert(&mut self, cpu: CpuId) {
        let (word, bit) = Self::place(cpu);
        if self.takes(cpu) {
            self.words[word] |= bit;
        }
    }
    /// Adds those of CPUs 0 to `cpus` - 1 that are of the group.
    pub fn fill(&mut self, cpus: u16) {
        let first = u32::from(self.group) * u32::from(Self::GROUP);
        let count = u32::from(cpus).saturating_sub(first).min(u32::from(Self::GROUP));
        for (n, word) in (0..).zip(&mut self.words) {
            let bits = count.saturating_sub(n * 64).min(64);
            *word |= u64::MAX.checked_shr(64 - bits).unwrap_or(0);
        }
    }
    /// Takes a CPU out.
    pub fn remove(&mut self, cpu: CpuId) {
        let (word, bit) = Self::place(cpu);
        if self.takes(cpu) {
            self.words[word] &= !bit;
        }
    }
    /// Whether a CPU is in it.
    pub fn contains(&self, cpu: CpuId) -> bool {
        let (word, bit) = Self::place(cpu);
        self.takes(cpu) && self.words[word] & bit != 0
    }
    /// Adds the CPUs of `other`; those of another group are passed over.
    pub fn union(&mut self, other: &Self) {
        if self.group == other.group {
            self.words.iter_mut().zip(other.words).for_each(|(mine, theirs)| *mine |= theirs);
        }
    }
    /// Whether it has no CPU.
    pub fn is_empty(&self) -> bool {
        self.words == [0; WORDS]
    }
    /// The CPUs, upwards.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        let first = self.group.saturating_mul(Self::GROUP); // of a group that no CPU number reaches, nobody is ever a member
        (0..).zip(self.words).flat_map(move |(n, word)| {
            (0..64).filter(move |b| word >> b & 1 != 0).map(move |b| CpuId(first + n * 64 + b))
        })
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|c| c.0)).finish()
    }
}

/// What a backend is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Caps {
    /// An entry is remembered only after its accessed bit was set, so an entry without it needs no flush.
    pub referenced_before_cached: bool,
    /// Wants [`Mmu::hint_loaded`].
    pub wants_hints: bool,
    /// The same calls give the same state.
    pub deterministic: bool,
}

/// A backend. No method calls back into the hat except through the closure it is given; none is called with a hat lock held.
pub trait Mmu: fmt::Debug + Send + Sync {
    /// What it is like; the same at every call.
    fn caps(&self) -> Caps;
    /// Whether it can be the backend of a hat over `mem`, the kernel's top table of which is going to be `root`. Asked before [`SpaceId::KERNEL`] is created. A
    /// backend has one hat: numbers of spaces are a hat's own, so two would take each other's for theirs. One that walks in memory that it
    /// was given says no to any other; the default has no memory of its own, and believes its caller.
    fn serves(&self, cx: &Cx, mem: &dyn PhysMem, root: Pfn) -> bool {
        let _ = (cx, mem, root);
        true
    }
    /// A space has come to be; `root` is the frame of its top table. [`SpaceId::KERNEL`] comes first. No processor runs in it before this returns.
    ///
    /// A processor that loads `root` loses whatever is not in it. Of the upper half the hat has one entry there, [`crate::KERNEL_WINDOW`]'s; **the others are
    /// the backend's**: where the kernel's own text, stacks and view of all memory lie, it writes their entries here, the same ones in every root (P1: `verify`
    /// compares), [`SpaceId::KERNEL`]'s included. One that comes later is written into all roots. The hat reads none of them and counts none; when the space
    /// ends, its root's frame is freed, and nothing below them is. A simulated machine has no kernel there and writes nothing.
    #[doc(alias = "hat_alloc")]
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn);
    /// A space is going: whatever is remembered of it is dropped before this returns, no CPU runs in it any more and none gets in, though one may be
    /// told to at any time ([`Mmu::activate`] leads to the kernel's space then). Its tables still stand, and are taken apart afterwards without a word.
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, root: Pfn);
    /// `cpu` runs in `id` from now on, or in the kernel's space alone.
    #[doc(alias("hat_switch", "CR3"))]
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>);
    /// How many processors there are: their numbers begin with 0, and every one is below this. The same at every call.
    #[doc(alias = "ncpus")]
    fn cpu_count(&self) -> u16;
    /// Adds to `cpus` those of its group that run in `id` now.
    fn running_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet);
    /// Adds to `cpus` those of its group that may remember translations of `id`. A CPU is among them before it first walks the tables of `id`; all CPUs
    /// are for the kernel. Asks for no memory.
    #[doc(alias("hat_cpus", "khat_cpuset"))]
    fn remembered_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet);
    /// Entries lost a right, the frame, A or D. On return no CPU in [`FlushDue::cpus`] can use an old one and no access through one is under way.
    /// Called once for each group that has such CPUs. May sleep; cannot fail, so it asks for no memory.
    ///
    /// An entry of a level above 0 that is absent now led to a table which goes: no page under it is mapped, and still it needs an `INVLPG` of its address,
    /// because processors keep such entries in caches of their own and would walk the frame as a table whoever has it next.
    #[doc(alias("hat_tlb_inval", "x86pte_inval", "xc_call"))]
    fn flush(&self, cx: &Cx, due: &FlushDue);
    /// Takes over the frames of unlinked tables whose unlinking has been flushed, emptying `tables`. Each goes to `free` once its reuse is safe, in
    /// this call or in a later one (which may bring no new tables: [`HatX86::reap_tables`](crate::HatX86::reap_tables), and with it
    /// [`HatX86::steal_tables`](crate::HatX86::steal_tables), which whoever is short of frames calls). The default: at once.
    ///
    /// Cannot fail, so it asks for no memory: what it keeps for later it keeps in a [`KeptTables`](crate::KeptTables).
    ///
    /// ```
    /// # use hat_x86::{KeptTables, RetiredTables};
    /// # use page_db::Pfn;
    /// /// Gives back what the call before kept, and keeps the rest.
    /// fn retire_late(kept: &mut KeptTables, tables: &mut RetiredTables<'_>, free: &mut dyn FnMut(Pfn)) {
    ///     let mut safe = std::mem::take(kept);
    ///     tables.keep(kept);
    ///     tables.bring_back(&mut safe);
    ///     tables.for_each(free);
    /// }
    /// ```
    fn retire_tables(&self, cx: &Cx, tables: &mut RetiredTables<'_>, free: &mut dyn FnMut(Pfn)) {
        let _ = cx;
        tables.for_each(free);
    }
    /// What is remembered although the tables no longer hold it, in words; `None` when nothing is, or the backend cannot tell. Called when nothing runs.
    fn remembered_wrongly(&self, cx: &Cx) -> Option<String> {
        let _ = cx;
        None
    }
    /// Entries of `range` have just been stored and will be used at once.
    fn hint_loaded(&self, cx: &Cx, id: SpaceId, range: VirtRange) {
        let _ = (cx, id, range);
    }
}

const _: Option<&dyn Mmu> = None; // used as an object everywhere; stays one

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn cpus(set: &CpuSet) -> Vec<u16> {
        set.iter().map(|c| c.0).collect()
    }

    #[test]
    fn a_set_has_the_cpus_of_its_group() {
        let mut s = CpuSet::of_group(0);
        assert!(s.is_empty());
        for c in [3, 64, 200, 255, 256, 1000] {
            s.insert(CpuId(c));
        }
        assert_eq!(cpus(&s), [3, 64, 200, 255]);
        s.remove(CpuId(64));
        s.remove(CpuId(3 + CpuSet::GROUP));
        assert!(s.contains(CpuId(3)) && !s.contains(CpuId(64)));
        assert!(!s.contains(CpuId(3 + CpuSet::GROUP)));
        let mut t = CpuSet::of_group(0);
        t.fill(2);
        t.union(&s);
        assert_eq!(cpus(&t), [0, 1, 3, 200, 255]);
        let mut other = CpuSet::of_group(1);
        other.union(&t);
        assert!(other.is_empty(), "of another group");
        other.insert(CpuId(256));
        t.union(&other);
        assert_eq!((cpus(&other), t.contains(CpuId(256))), ([256].into(), false));
    }

    #[test]
    fn every_cpu_is_of_one_group() {
        for count in [0, 1, 63, 64, 65, 200, 256, 257, 600, u16::MAX] {
            let all: Vec<_> = CpuSet::groups(count)
                .flat_map(|mut set| {
                    set.fill(count);
                    cpus(&set)
                })
                .collect();
            assert!(all.iter().copied().eq(0..count), "{count}");
        }
        assert_eq!(CpuSet::groups(200).count(), 1);
    }
}
