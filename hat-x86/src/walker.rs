//! The walk a processor makes, over the bytes of the tables.
//!
//! One walker serves every backend that walks in software. It follows the manual: rights are gathered over the levels and
//! checked at the leaf, then the accessed bit of each entry used and the dirty bit of the leaf are set by compare-and-swap,
//! so that an entry changed meanwhile is never marked and the walk begins again.
//!
//! - W1: an entry's accessed bit is set before the level below it is read. So a table whose entry was taken away without that bit set
//!   has no walker in it, and otherwise the flush of its unlinking waits for the walker (see [`crate::tlb`], F2).
//! - W2: the dirty bit is set only for a store that is allowed, and no store happens through a translation without it.
//!
//! The error code is the one a processor pushes: it tells the fault handler "not there" from "not allowed", nothing else.
//!
//! Sources: [SDM 3A §4.5, §4.6, §4.7, §4.8].

use crate::geometry::{TOP, index, shift};
use crate::pte::{PteBits, X86Pte};
use core::fmt;
use page_db::sync::atomic::Ordering::{AcqRel, Acquire};
use page_db::{Access, Pfn, PhysMem, Prot, VirtAddr};

/// Who makes an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum Mode {
    /// User code, or the kernel on its behalf with the user's rights.
    #[default]
    User,
    /// The kernel.
    Supervisor {
        /// `CR0.WP`: stores to pages without R/W fault even here.
        write_protect: bool,
    },
}

bitflags::bitflags! {
    /// The error code of a page fault.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PfError: u32 {
        /// A translation is there and does not allow the access.
        const P = 1;
        /// A store.
        const W = 2;
        /// From user mode.
        const U = 4;
        /// A reserved bit was set in an entry (here: PS in the top table, or a table frame that is no memory).
        const RSVD = 8;
        /// A fetch.
        const I = 16;
    }
}

/// A page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("page fault at {va}, error code {:#x}", .error.bits())]
pub struct PageFault {
    /// The address (CR2).
    pub va: VirtAddr,
    /// Why.
    pub error: PfError,
    /// What was attempted.
    pub access: Access,
}

impl PageFault {
    /// A fault of `access` from `mode` at `va` with the bits `why` added.
    pub fn new(va: VirtAddr, access: Access, mode: Mode, why: PfError) -> Self {
        let mut error = why;
        error.set(PfError::W, access.is_write());
        error.set(PfError::I, access == Access::Exec);
        error.set(PfError::U, mode == Mode::User);
        Self { va, error, access }
    }
    /// How an address space is told.
    pub fn kind(&self) -> addr_space::FaultKind {
        if self.error.contains(PfError::P) {
            addr_space::FaultKind::Prot
        } else {
            addr_space::FaultKind::Invalid
        }
    }
}

/// A translation as a walk found it.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Walked {
    /// Frame of the 4 KiB page that holds the address, whatever the size of the leaf.
    pub pfn: Pfn,
    /// Effective rights.
    pub prot: Prot,
    /// The leaf entry, with the bits the walk set.
    pub leaf: X86Pte,
    /// The leaf's level.
    pub level: u8,
}

impl fmt::Debug for Walked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (level {}, {})", self.pfn, self.prot, self.level, self.leaf)
    }
}

impl Walked {
    fn new(va: VirtAddr, leaf: X86Pte, level: u8, prot: Prot) -> Self {
        // Of a larger page's number the low bits are none: bit 12 is PAT there, the others are reserved.
        let low = (1 << (shift(level) - shift(0))) - 1;
        let inside = (va.get() >> shift(0)) & low;
        Self { pfn: Pfn(leaf.pfn().0 & !low | inside), prot, leaf, level }
    }
    /// An entry of level 1 on the way, with the rights down to it.
    const fn passed(entry: X86Pte, prot: Prot) -> Self {
        Self { pfn: entry.pfn(), prot, leaf: entry, level: 1 }
    }
    /// Whether the effective rights allow `access` from `mode`.
    pub fn allows(&self, access: Access, mode: Mode) -> bool {
        if mode == Mode::User && !self.prot.contains(Prot::USER) {
            return false;
        }
        match access {
            Access::Exec => self.prot.contains(Prot::EXEC),
            a if a.is_write() => {
                self.prot.contains(Prot::WRITE) || mode == Mode::Supervisor { write_protect: false }
            }
            _ => true,
        }
    }
}

/// Rights of an entry over those gathered so far: AND of all, with NX as the lack of a right.
pub(crate) fn narrow(so_far: Prot, entry: X86Pte) -> Prot {
    so_far & entry.prot()
}

/// Where a walk begins: at a top table, or, for a processor that remembers it, at one below.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    table: Pfn,
    level: u8,
    /// Rights of the entries above.
    prot: Prot,
}

impl Start {
    /// At a top table.
    pub(crate) const fn root(table: Pfn) -> Self {
        Self { table, level: TOP, prot: Prot::RWX.union(Prot::USER) }
    }
    /// At the table that an entry leads to, as a walk found it on its way.
    pub(crate) const fn below(passed: &Walked) -> Self {
        Self { table: passed.pfn, level: passed.level - 1, prot: passed.prot }
    }
}

/// A translation, and the entry of level 1 that led to its leaf table, if the walk passed one: what a processor remembers of its way (a PDE cache).
pub(crate) type Way = (Walked, Option<Walked>);

/// Whether no processor goes on from `entry`: the top table has no leaves.
const fn is_reserved(entry: X86Pte, level: u8) -> bool {
    level == TOP && entry.has(PteBits::PS)
}

/// Translates `va` for `access` from `mode` in the tables at `root`, setting accessed and dirty bits as a processor does.
///
/// # Errors
/// The page fault the processor would raise; no dirty bit was set.
pub fn walk(
    mem: &dyn PhysMem,
    root: Pfn,
    va: VirtAddr,
    access: Access,
    mode: Mode,
) -> Result<Walked, PageFault> {
    walk_from(mem, Start::root(root), va, access, mode).map(|(walked, _)| walked)
}

/// [`walk`] from anywhere on the way.
pub(crate) fn walk_from(
    mem: &dyn PhysMem,
    start: Start,
    va: VirtAddr,
    access: Access,
    mode: Mode,
) -> Result<Way, PageFault> {
    let fault = |why| Err(PageFault::new(va, access, mode, why));
    'again: loop {
        let Start { mut table, mut level, mut prot } = start;
        let mut passed = None;
        loop {
            if !mem.has(table) {
                return fault(PfError::P | PfError::RSVD);
            }
            let cell = mem.u64_at(table, index(va.get(), level));
            let entry = X86Pte(cell.load(Acquire));
            if !entry.is_present() {
                return fault(PfError::empty());
            }
            if is_reserved(entry, level) {
                return fault(PfError::P | PfError::RSVD);
            }
            prot = narrow(prot, entry);
            let leaf = entry.is_leaf(level);
            let mut mark = PteBits::A;
            if leaf {
                if !Walked::new(va, entry, level, prot).allows(access, mode) {
                    return fault(PfError::P);
                }
                mark.set(PteBits::D, access.is_write()); // W2
            }
            let marked = entry.with(mark, PteBits::empty());
            if marked != entry && cell.compare_exchange(entry.0, marked.0, AcqRel, Acquire).is_err()
            {
                continue 'again;
            }
            if leaf {
                return Ok((Walked::new(va, marked, level, prot), passed));
            }
            if level == 1 {
                passed = Some(Walked::passed(marked, prot));
            }
            (table, level) = (entry.pfn(), level - 1); // W1: marked before the step down
        }
    }
}

/// Translates `va` in the tables at `root` without marking anything; `None` when an entry is absent. For views and checks.
pub fn peek(mem: &dyn PhysMem, root: Pfn, va: VirtAddr) -> Option<Walked> {
    look(mem, root, va).0
}

/// The entry of level 1 through which a walk for `va` would pass now, if it leads to a table.
pub(crate) fn peek_table(mem: &dyn PhysMem, root: Pfn, va: VirtAddr) -> Option<Walked> {
    look(mem, root, va).1
}

/// What a walk for `va` would find and pass, as far as it comes.
fn look(mem: &dyn PhysMem, root: Pfn, va: VirtAddr) -> (Option<Walked>, Option<Walked>) {
    let Start { mut table, mut level, mut prot } = Start::root(root);
    let mut passed = None;
    loop {
        if !mem.has(table) {
            return (None, passed);
        }
        let entry = X86Pte(mem.u64_at(table, index(va.get(), level)).load(Acquire));
        if !entry.is_present() || is_reserved(entry, level) {
            return (None, passed);
        }
        prot = narrow(prot, entry);
        if entry.is_leaf(level) {
            return (Some(Walked::new(va, entry, level, prot)), passed);
        }
        if level == 1 {
            passed = Some(Walked::passed(entry, prot));
        }
        (table, level) = (entry.pfn(), level - 1);
    }
}
