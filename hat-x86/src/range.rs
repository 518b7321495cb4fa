//! What is done to all translations of a range: one walk, each leaf locked once, one flush.
//!
//! Taking the right to write from a whole leaf is one store, in the entry above it ([`crate::above`]); the entries are not even read.
//!
//! Every verb here is a loop over `Walk` with a different body. None of them fails, none allocates under a lock, and all cost what the
//! tables in the range cost, whatever the length of the range: `pte_reads` counts each entry looked at, `pte_writes` each one
//! changed, and both are exact when nothing else runs.
//!
//! A leaf's entries are looked at until all its present ones have been seen. What is counted for a leaf is added once, and the pages of entries that are removed
//! next are fetched for writing meanwhile: each removal writes its page's line (the mapping list), and those lines are in no cache.
//!
//! Sources: [SI §12.4]; illumos `hat_unload_callback`, `hat_updateattr`, `hat_sync` (behaviour); illumos.md 9.5.

use crate::hat::HatState;
use crate::hment::PageList;
use crate::htable::update;
use crate::provider::HatX86;
use crate::pte::{PteBits, X86Pte};
use crate::tlb::FlushDue;
use crate::walk::{Leaf, Walk};
use crate::walker::narrow;
use addr_space::{Translation, UnloadFlags};
use page_db::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use page_db::sync::{Mutation, mutated, prefetch_write};
use page_db::{Counter, Cx, PAGE_SHIFT, PageId, Prot, RefMod, SyncMode, VirtAddr, VirtRange};

/// How many translations are reported together.
const PIECE: usize = 32;
/// How many entries ahead of the one being removed pages are fetched.
const FETCH: usize = 8;
/// What harvesting takes.
const RM: PteBits = PteBits::A.union(PteBits::D);

impl HatX86 {
    /// Calls `f` with each present entry of the leaf that lies in the range: its index, its place, what it was when it was read.
    #[inline]
    pub(crate) fn each_entry(
        &self,
        cx: &Cx,
        leaf: &Leaf<'_>,
        mut f: impl FnMut(usize, &AtomicU64, X86Pte),
    ) {
        let (first, last) = (*leaf.entries.start(), *leaf.entries.end());
        let mut left = leaf.table.rec.valid();
        let mut reads = 0;
        for (i, cell) in (first..).zip(&leaf.table.words()[first..=last]) {
            if left == 0 {
                break;
            }
            reads += 1;
            let e = X86Pte(cell.load(Acquire));
            if e.is_present() {
                left -= 1;
                f(i, cell, e);
            }
        }
        cx.count_n(Counter::PteReads, reads);
    }
    /// Removes the leaf's entries that lie in the range; how many.
    pub(crate) fn empty_leaf(
        &self,
        cx: &Cx,
        st: &HatState,
        leaf: &Leaf<'_>,
        keep: bool,
        due: &mut FlushDue,
    ) -> u16 {
        let (quiet, words) = (st.is_freeing(), leaf.table.words());
        let mut gone = 0;
        self.each_entry(cx, leaf, |i, cell, _| {
            if let Some(next) = words.get(i + FETCH)
                && let Some(page) = self.db.pages().of_pfn(X86Pte(next.load(Relaxed)).pfn())
            {
                // The structure alone, and no look into it: absent or a device's, it is a hint that is of no use.
                prefetch_write(self.db.page(page));
            }
            let old = self.take_entry(cx, leaf.table.id, i, cell, keep, quiet);
            gone += 1;
            due.add(st.space(), leaf.addr(i), 0, old, X86Pte::EMPTY);
        });
        leaf.table.sub_valid(gone);
        cx.count_n(Counter::PteWrites, u64::from(gone));
        gone
    }
    pub(crate) fn unload_state(
        &self,
        cx: &Cx,
        st: &HatState,
        range: VirtRange,
        flags: UnloadFlags,
    ) {
        let mut due = self.flush_due_of(cx, st);
        let keep = !flags.contains(UnloadFlags::NOSYNC);
        let mut walk = Walk::new(self, st, range);
        while let Some(leaf) = walk.next(cx) {
            let gone = self.empty_leaf(cx, st, &leaf, keep, &mut due);
            if flags.contains(UnloadFlags::UNLOCK) {
                leaf.table.unlock(gone);
            }
            let emptied = leaf.table.emptied();
            drop(leaf);
            self.reclaim(cx, emptied, &mut due);
        }
        self.finish(cx, &mut due);
    }
    pub(crate) fn unlock_range(&self, cx: &Cx, st: &HatState, range: VirtRange) {
        let mut walk = Walk::new(self, st, range);
        while let Some(leaf) = walk.next(cx) {
            let mut n = 0;
            self.each_entry(cx, &leaf, |_, _, _| n += 1);
            leaf.table.unlock(n);
        }
    }
    /// Rewrites each entry of the leaf that lies in the range by `next` and notes what lost something. One that gains the right to write does so with its page's
    /// list locked: whoever takes that right from the page ([`page_db::PageMappings::clear_write`]) locks it too, and finds the right given, or has
    /// said before (`P_RO`) that it may not be.
    fn rewrite(
        &self,
        cx: &Cx,
        st: &HatState,
        leaf: &Leaf<'_>,
        due: &mut FlushDue,
        next: impl Fn(X86Pte) -> X86Pte,
    ) {
        let (rec, mut writes) = (leaf.table.rec, 0);
        self.each_entry(cx, leaf, |i, cell, seen| {
            let want = next(seen);
            if want != seen {
                let gains = want.has(PteBits::W) && !seen.has(PteBits::W);
                let list = if gains { self.list_behind(cx, seen) } else { None };
                let (old, new) = update(cell, &next);
                drop(list);
                writes += u64::from(old != new);
                let old = if mutated(Mutation::ForkForgetsToFlush) { new } else { old };
                due.add(st.space(), leaf.addr(i), 0, rec.effective(old), rec.effective(new));
            }
        });
        cx.count_n(Counter::PteWrites, writes);
    }
    pub(crate) fn chg_prot_range(&self, cx: &Cx, st: &HatState, range: VirtRange, prot: Prot) {
        let mut due = self.flush_due_of(cx, st);
        let mut walk = Walk::new(self, st, range);
        while let Some(leaf) = walk.next(cx) {
            if prot.contains(Prot::WRITE) {
                self.grant_write(cx, st, &leaf, prot, &mut due);
                continue;
            }
            if leaf.is_whole_and_dense() {
                self.deny(cx, st, &leaf.table, &mut due);
            }
            let denied = leaf.table.rec.is_denied();
            // As `entry_with`, with the bits worked out once.
            let keep = if denied { PteBits::W } else { PteBits::empty() };
            let on = X86Pte::EMPTY.with_prot(prot).bits();
            let off = (PteBits::W | PteBits::NX) - keep;
            self.rewrite(cx, st, &leaf, &mut due, |e| e.with(on, off));
        }
        self.finish(cx, &mut due);
    }
    /// Gives the entries of the leaf that lie in the range the rights `prot`, writing included.
    fn grant_write(&self, cx: &Cx, st: &HatState, leaf: &Leaf<'_>, prot: Prot, due: &mut FlushDue) {
        if !leaf.is_whole() {
            self.split(cx, &leaf.table);
        }
        let read_only = prot.read_only();
        self.rewrite(cx, st, leaf, due, |e| {
            // An entry that has the right is of a page that may have it (U4).
            let refused = !e.has(PteBits::W) && self.must_be_read_only(e);
            e.with_prot(if refused { read_only } else { prot })
        });
        self.allow(cx, &leaf.table);
    }
    /// The locked list of the entry's page, if it has one. The entry's table is locked.
    fn list_behind<'a>(&'a self, cx: &'a Cx, e: X86Pte) -> Option<PageList<'a>> {
        if !e.is_consistent() || mutated(Mutation::GrantBesideTheList) {
            return None;
        }
        Some(self.lists.enter(cx, &self.db, self.db.page_of(e.pfn())?))
    }
    /// Whether the entry's page must not be mapped writable (`P_RO`).
    fn must_be_read_only(&self, e: X86Pte) -> bool {
        e.is_consistent()
            && self
                .db
                .page_of(e.pfn())
                .is_some_and(|p| self.db.page(p).ref_mod().contains(RefMod::RO))
    }
    pub(crate) fn clear_write_range(&self, cx: &Cx, st: &HatState, range: VirtRange) {
        let mut due = self.flush_due_of(cx, st);
        let mut walk = Walk::new(self, st, range);
        while let Some(leaf) = walk.next(cx) {
            if leaf.is_whole_and_dense() {
                self.deny(cx, st, &leaf.table, &mut due);
            } else if !leaf.table.rec.is_denied() {
                let without = |e: X86Pte| e.with(PteBits::empty(), PteBits::W);
                self.rewrite(cx, st, &leaf, &mut due, without);
            }
        }
        self.finish(cx, &mut due);
    }
    /// Takes A and D from a present entry and gives them to `page`, which it maps; the entry as it was. With the page's list locked, as they are taken from the
    /// other side (M6): who asks all translations of the page meanwhile, and then the page, finds them in one place or the other, and what he takes from the
    /// page is not in an entry any more, where a store would leave no trace.
    fn harvest(&self, cx: &Cx, page: PageId, cell: &AtomicU64) -> X86Pte {
        let alone = mutated(Mutation::BitsInFlight);
        let list = (!alone).then(|| self.lists.enter(cx, &self.db, page));
        let old = X86Pte(cell.fetch_and(!RM.bits(), AcqRel));
        self.db.page(page).gather_ref_mod(old.ref_mod());
        drop(list);
        old
    }
    pub(crate) fn sync_range(&self, cx: &Cx, st: &HatState, range: VirtRange, mode: SyncMode) {
        let mut due = self.flush_due_of(cx, st);
        let mut walk = Walk::new(self, st, range);
        while let Some(leaf) = walk.next(cx) {
            self.each_entry(cx, &leaf, |i, cell, seen| {
                let page = if seen.is_synced() { self.db.page_of(seen.pfn()) } else { None };
                let Some(page) = page else { return };
                if mode != SyncMode::ZeroRm || !seen.bits().intersects(RM) {
                    return self.db.page(page).gather_ref_mod(seen.ref_mod());
                }
                let old = self.harvest(cx, page, cell);
                let new = old.with(PteBits::empty(), RM);
                cx.count_n(Counter::PteWrites, u64::from(old != new));
                let new = if mutated(Mutation::HarvestOwesNothing) { old } else { new };
                due.add(st.space(), leaf.addr(i), 0, old, new);
            });
        }
        self.finish(cx, &mut due);
    }
    /// Calls `f` for each translation, with no lock held: some of a leaf's entries are read under its lock and reported afterwards, then the next ones. So it
    /// asks for no memory, and a leaf that changes meanwhile is reported in part as it was and in part as it is.
    pub(crate) fn walk_range(
        &self,
        cx: &Cx,
        st: &HatState,
        range: VirtRange,
        f: &mut dyn FnMut(VirtAddr, Translation),
    ) {
        let mut walk = Walk::new(self, st, range);
        while let Some(leaf) = walk.next(cx) {
            let mut seen = [(0, X86Pte::EMPTY); PIECE];
            let n = self.read_piece(cx, &leaf, &mut seen);
            let (base, rights) = (leaf.addr(0), leaf.rights());
            if n == PIECE {
                walk.back_to(&leaf, seen[n - 1].0 + 1);
            }
            drop(leaf);
            // held: none
            for (i, e) in &seen[..n] {
                let prot = narrow(rights, *e);
                let t = Translation { pfn: e.pfn(), prot, ref_mod: e.ref_mod(), level: 0 };
                f(VirtAddr::new(base + ((*i as u64) << PAGE_SHIFT)).unwrap_or_default(), t);
            }
        }
    }
    /// The first present entries of the leaf that lie in the range, with their indices; how many.
    fn read_piece(&self, cx: &Cx, leaf: &Leaf<'_>, seen: &mut [(usize, X86Pte); PIECE]) -> usize {
        let (first, last) = (*leaf.entries.start(), *leaf.entries.end());
        let (mut n, mut reads) = (0, 0);
        let present = usize::from(leaf.table.rec.valid()).min(PIECE);
        for (i, cell) in (first..).zip(&leaf.table.words()[first..=last]) {
            if n == present {
                break;
            }
            reads += 1;
            let e = X86Pte(cell.load(Acquire));
            if e.is_present() {
                seen[n] = (i, e);
                n += 1;
            }
        }
        cx.count_n(Counter::PteReads, reads);
        n
    }
    /// Puts the rights of the translations of `inside` where they belong in `out`, whose first place is for the first page of `range`.
    pub(crate) fn rights_range(
        &self,
        cx: &Cx,
        st: &HatState,
        range: VirtRange,
        inside: VirtRange,
        out: &mut [Prot],
    ) {
        let mut walk = Walk::new(self, st, inside);
        while let Some(leaf) = walk.next(cx) {
            let first = (leaf.addr(*leaf.entries.start()) - range.start().get()) >> PAGE_SHIFT;
            let Some(out) = out.get_mut(first as usize..) else { return };
            let rights = leaf.rights();
            self.each_entry(cx, &leaf, |i, _, e| {
                if let Some(out) = out.get_mut(i - leaf.entries.start()) {
                    *out = narrow(rights, e);
                }
            });
        }
    }
    pub(crate) fn resident_of(&self, st: &HatState) -> u64 {
        let mut pages = 0;
        self.each_table(st, &mut |id| {
            let rec = self.tables.get(id);
            if rec.level() == 0 {
                pages += u64::from(rec.valid());
            }
        });
        pages
    }
}
