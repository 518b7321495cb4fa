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
//!   retire_tables(frames) ────────────────────▶ gives each frame back, now or in a later call, when its reuse is safe
//! ```
//!
//! Entries that only gained are not told of: an old copy causes a fault, and the fault finds that all is well by now.
//!
//! Sources: live-backends notes, section 5; [SDM 3A §4.10] for what hardware may remember.

use crate::tlb::FlushDue;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use page_db::{CpuId, Cx, Pfn, VirtRange};

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

/// A set of processors.
#[doc(alias = "cpuset_t")]
#[derive(Clone, PartialEq, Eq, Default)]
pub struct CpuSet {
    first: u64,
    /// Words for CPUs 64 and up; small machines never allocate.
    rest: Vec<u64>,
}

impl CpuSet {
    /// No CPU.
    pub const fn new() -> Self {
        Self { first: 0, rest: Vec::new() }
    }
    /// CPUs 0 to `count` - 1.
    pub fn all(count: u16) -> Self {
        let mut s = Self::new();
        (0..count).for_each(|c| s.insert(CpuId(c)));
        s
    }
    fn word(&self, cpu: CpuId) -> u64 {
        match usize::from(cpu.0 / 64) {
            0 => self.first,
            n => self.rest.get(n - 1).copied().unwrap_or(0),
        }
    }
    fn word_mut(&mut self, n: usize) -> &mut u64 {
        if n == 0 {
            return &mut self.first;
        }
        if self.rest.len() < n {
            self.rest.resize(n, 0);
        }
        &mut self.rest[n - 1]
    }
    /// Adds a CPU.
    pub fn insert(&mut self, cpu: CpuId) {
        *self.word_mut(usize::from(cpu.0 / 64)) |= 1 << (cpu.0 % 64);
    }
    /// Takes a CPU out.
    pub fn remove(&mut self, cpu: CpuId) {
        if self.contains(cpu) {
            *self.word_mut(usize::from(cpu.0 / 64)) &= !(1 << (cpu.0 % 64));
        }
    }
    /// Whether a CPU is in it.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.word(cpu) >> (cpu.0 % 64) & 1 != 0
    }
    /// Adds every CPU of `other`.
    pub fn union(&mut self, other: &Self) {
        self.first |= other.first;
        for (i, w) in other.rest.iter().enumerate().filter(|(_, w)| **w != 0) {
            *self.word_mut(i + 1) |= w;
        }
    }
    /// Whether it has no CPU.
    pub fn is_empty(&self) -> bool {
        self.first == 0 && self.rest.iter().all(|w| *w == 0)
    }
    /// The CPUs, upwards.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        (0..=self.rest.len()).flat_map(move |n| {
            let base = n as u16 * 64;
            let word = self.word(CpuId(base));
            (0..64).filter(move |b| word >> b & 1 != 0).map(move |b| CpuId(base + b))
        })
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|c| c.0)).finish()
    }
}

/// Who reads the tables when an access finds nothing remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Walks {
    /// [`crate::walker::walk`], called by the backend.
    Software,
    /// A memory-management unit.
    Hardware,
}

/// What a backend is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Caps {
    /// Who walks.
    pub walks: Walks,
    /// An entry is remembered only after its accessed bit was set, so an entry without it needs no flush.
    pub referenced_before_cached: bool,
    /// Wants [`Mmu::hint_loaded`].
    pub wants_hints: bool,
    /// Setting accessed and dirty at load saves more than a walk.
    pub preset_pays: bool,
    /// The same calls give the same state.
    pub deterministic: bool,
}

/// A backend. No method calls back into the hat except through the closure it is given; none is called with a hat lock held.
pub trait Mmu: fmt::Debug + Send + Sync {
    /// What it is like; the same at every call.
    fn caps(&self) -> Caps;
    /// A space has come to be; `root` is the frame of its top table. [`SpaceId::KERNEL`] comes first.
    #[doc(alias = "hat_alloc")]
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn);
    /// A space is going: whatever is remembered of it is dropped before this returns, no CPU runs in it any more and none gets in, though one may be
    /// told to at any time ([`Mmu::activate`] leads to the kernel's space then). Its tables still stand, and are taken apart afterwards without a word.
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, root: Pfn);
    /// `cpu` runs in `id` from now on, or in the kernel's space alone.
    #[doc(alias("hat_switch", "CR3"))]
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>);
    /// The CPUs that run in `id` now.
    fn running_on(&self, cx: &Cx, id: SpaceId) -> CpuSet;
    /// The CPUs that may remember translations of `id`. A CPU enters this set before it first walks the tables of `id`; all CPUs for the kernel.
    #[doc(alias("hat_cpus", "khat_cpuset"))]
    fn remembered_on(&self, cx: &Cx, id: SpaceId) -> CpuSet;
    /// Entries lost a right, the frame, A or D. On return no CPU in [`FlushDue::cpus`] can use an old one and no access through one is under way.
    /// May sleep.
    #[doc(alias("hat_tlb_inval", "x86pte_inval"))]
    fn flush(&self, cx: &Cx, due: &FlushDue);
    /// Takes over the frames of unlinked tables whose unlinking has been flushed, emptying `tables`. Each goes to `free` once its reuse is safe, in
    /// this call or in a later one (which may bring no new tables). The default: at once.
    fn retire_tables(&self, cx: &Cx, tables: &mut Vec<Pfn>, free: &mut dyn FnMut(Pfn)) {
        let _ = cx;
        tables.drain(..).for_each(free);
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

    #[test]
    fn a_set_grows_past_its_first_word() {
        let mut s = CpuSet::new();
        assert!(s.is_empty());
        for c in [3, 64, 200] {
            s.insert(CpuId(c));
        }
        assert_eq!(s.iter().map(|c| c.0).collect::<Vec<_>>(), [3, 64, 200]);
        s.remove(CpuId(64));
        s.remove(CpuId(1000));
        assert!(!s.contains(CpuId(64)) && !s.contains(CpuId(999)));
        let mut t = CpuSet::all(2);
        t.union(&s);
        assert_eq!(t.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1, 3, 200]);
    }
}
