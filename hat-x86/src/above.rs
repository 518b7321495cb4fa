//! Write protection one level up: what fork takes from 512 pages with one store.
//!
//! # The difficulty
//!
//! A fork takes the right to write from every page its parent has, which as one entry after another is the greater part of what it costs. Most of
//! those entries are never looked at again before the address space is gone: a child that runs another program writes a handful of them.
//!
//! # The rule
//!
//! Rights are the AND over the levels, so a leaf table's own entry, in the table above, can deny stores to all of it:
//!
//! ```text
//!     level 1     ... │ P W U │ ...              ... │ P · U │ ...             ... │ P W U │ ...
//!                         │                          │                             │
//!     leaf        W W · W ...  W W        W W · W ...  W W              · · · W ...  · ·
//!
//!                 as loaded           after clear_write: one store,     after the first store fault: the
//!                                     one flush of 2 MiB                denial is pushed down, then one W granted
//! ```
//!
//! A range that takes the right to write from a whole leaf which is [`DENSE`] denies above, and leaves the entries as they are. Whoever
//! then grants that right to one of its pages first *splits*: it takes W from all entries of the leaf, then gives it back above, and only then
//! stores the entry that may have it. So the cost a fork was spared is paid once for each 2 MiB, by the first store, and never where none comes. Giving the right
//! to the whole leaf needs no split: the entries that had it still do, and only the one above is stored.
//!
//! - U1: the entry above a leaf lacks W exactly when the leaf's record says so ([`HTable::is_denied`]), which holds the lock's holders' word for it:
//!   both change only with the leaf's lock held, while the leaf is linked. Entries above level 1 deny nothing.
//! - U2: no instant grants what was not granted before: denying is a single atomic store; a split takes W from every
//!   entry before it gives it back above. A walker that read the entry above before a denial is waited for by the flush, as any other.
//! - U3: the flush owed for a denial names the entry above, and means all that was remembered through it.
//! - U4: an entry's own W says what it would grant: it is set only where the page may be written, and the verbs on a page take it away whether or not it is
//!   denied above. So undoing a denial brings back no right that a page has lost.
//! - U5: what anybody is told are effective rights; a reader without the lock looks above first, then at the entry, and so reports no right that
//!   was not there at one moment.
//!
//! Referenced and modified bits stay in the entries and are harvested there.
//!
//! # The other road
//!
//! Two address spaces could share the leaf table itself until one of them stores (shared page tables, as was proposed for Linux more than once). That spares the
//! child its faults on pages it only reads; but then an entry belongs to several hats: a page's mapping list would name one site for many
//! spaces, harvesting and unloading would have to flush all of them, locked translations and stolen tables need an owner, and
//! the counts of pages mapped are shared too. A denial costs one store more per 2 MiB and leaves every entry with one owner.
//!
//! Sources: [SDM 3A §4.6, §4.10.2]; the idea of shared tables: McCracken, "Sharing Page Tables in the Linux Kernel" (2003); performance.md 12, row 7.

use crate::geometry::{ENTRIES, index};
use crate::hat::HatState;
use crate::htable::{HTable, TableGuard};
use crate::provider::HatX86;
use crate::pte::{PteBits, X86Pte};
use crate::tlb::FlushDue;
use page_db::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire},
};
use page_db::sync::{Mutation, mutated};
use page_db::{Counter, Cx, Prot};

/// Present entries from which on a leaf is denied from above. With fewer, the entries themselves are as cheap, and a store fault later is cheaper.
/// Where schedules are explored two are enough.
pub const DENSE: u16 = if cfg!(shuttle) { 2 } else { ENTRIES as u16 / 4 };

impl HTable {
    /// What effective rights make of `entry`, one of this leaf's.
    #[inline]
    pub(crate) fn effective(&self, entry: X86Pte) -> X86Pte {
        if self.is_denied() { entry.with(PteBits::empty(), PteBits::W) } else { entry }
    }
    /// The entry that has the effective rights `prot` in place of `entry`, one of this leaf's. Where stores are denied, `prot` allows none.
    #[inline]
    pub(crate) fn entry_with(&self, entry: X86Pte, prot: Prot) -> X86Pte {
        let new = entry.with_prot(prot);
        if !self.is_denied() {
            return new;
        }
        debug_assert!(!prot.contains(Prot::WRITE), "U2: a leaf is split before it grants stores");
        new.with(X86Pte(entry.0).bits() & PteBits::W, PteBits::empty())
    }
}

impl HatX86 {
    /// The entry that points to a leaf. The leaf is linked and locked, so the table above stays.
    fn above(&self, leaf: &TableGuard<'_>) -> &AtomicU64 {
        let parent = self.tables.get(leaf.rec.parent());
        self.db.word(parent.pfn(), index(leaf.rec.base(), 1))
    }
    /// Takes the right to write from all pages of a locked leaf, if any has it.
    pub(crate) fn deny(&self, cx: &Cx, st: &HatState, leaf: &TableGuard<'_>, due: &mut FlushDue) {
        if leaf.rec.is_denied() || !Self::grants(cx, leaf) {
            return;
        }
        leaf.rec.set_denied(true);
        let old = X86Pte(self.above(leaf).fetch_and(!PteBits::W.bits(), AcqRel));
        cx.count(Counter::PteWrites);
        due.add(st.space(), leaf.rec.base(), 1, old, old.with(PteBits::empty(), PteBits::W));
    }
    /// Whether any entry has the right to write: of a leaf that can be written, the first one looked at tells.
    fn grants(cx: &Cx, leaf: &TableGuard<'_>) -> bool {
        let words = leaf.words();
        let at = words.iter().position(|cell| X86Pte(cell.load(Acquire)).has(PteBits::W));
        cx.count_n(Counter::PteReads, at.map_or(ENTRIES, |i| i + 1) as u64);
        at.is_some()
    }
    /// Makes each entry of a locked leaf say for itself what it grants, before one of them is given the right to write.
    #[inline]
    pub(crate) fn split(&self, cx: &Cx, leaf: &TableGuard<'_>) {
        if leaf.rec.is_denied() {
            self.push_down(cx, leaf);
        }
    }
    #[cold]
    fn push_down(&self, cx: &Cx, leaf: &TableGuard<'_>) {
        if mutated(Mutation::AllowedFirst) {
            self.above(leaf).fetch_or(PteBits::W.bits(), AcqRel);
        }
        let mut left = leaf.rec.valid();
        let mut writes = 0;
        for cell in leaf.words() {
            if left == 0 {
                break;
            }
            let e = X86Pte(cell.load(Acquire));
            left -= u16::from(e.is_present());
            if e.has(PteBits::W) {
                cell.fetch_and(!PteBits::W.bits(), AcqRel);
                writes += 1;
            }
        }
        cx.count_n(Counter::PteWrites, writes);
        self.allow(cx, leaf);
    }
    /// Undoes a denial: each entry of the locked leaf grants what it should by itself.
    pub(crate) fn allow(&self, cx: &Cx, leaf: &TableGuard<'_>) {
        if leaf.rec.is_denied() {
            self.above(leaf).fetch_or(PteBits::W.bits(), AcqRel);
            leaf.rec.set_denied(false);
            cx.count(Counter::PteWrites);
        }
    }
}
