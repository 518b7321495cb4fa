//! Finding tables: one leaf for a fault, one leaf after another for a range.
//!
//! Both go down from the top table by atomic loads, holding nothing; see the theory in [`crate::htable`]. A fault first asks its
//! CPU's hints, which name the leaves it used before: such faults cost one lock and no walk.
//!
//! A range visits each leaf that exists in it once, locked, and steps over an absent entry in one go, whatever it spans: 16 TiB of
//! nothing are 32 reads. The step is believed only if the table that held the absent entry is still the same afterwards, otherwise the
//! cursor goes back to the top *at the address it had reached*.
//!
//! - C1: a change of protection that publishes its number and then walks, and a fault that links tables and then compares the number, cannot
//!   both miss each other: stores that link, loads that walk, the number's store and its comparison are all
//!   sequentially consistent. Either the walk meets the table (and waits for its lock), or the comparison fails.
//! - C2: every entry a range looks at is counted once in `pte_reads`. A range within the leaf its CPU used last reads no entry above it.
//!
//! Sources: illumos `htable_walk` (behaviour); illumos.md 9.3; DESIGN D12.

use crate::above::DENSE;
use crate::geometry::{ENTRIES, TOP, index, span, table_base, table_span};
use crate::hat::HatState;
use crate::htable::{Supply, TableGuard, tag};
use crate::provider::HatX86;
use crate::pte::X86Pte;
use crate::walker::narrow;
use addr_space::{HatError, Translation};
use core::ops::RangeInclusive;
use page_db::sync::atomic::{
    AtomicU64, Ordering::Acquire, Ordering::Release, Ordering::SeqCst, spin_loop,
};
use page_db::sync::{Mutation, mutated};
use page_db::{Access, Counter, Cx, PAGE_SHIFT, Prot, VirtAddr, VirtRange};

/// Leaves a CPU remembers.
const LEAVES: usize = 32;

/// The leaves a CPU used, each by the number of its 2 MiB span and its id, 0 for none; and the table above the one it walked to last.
///
/// Only hints: whoever follows one looks whether the record still is the table meant. Threads that fault in many places find most of
/// their leaves here, and the rest one level down instead of three.
#[derive(Debug, Default)]
pub(crate) struct Hint {
    /// The one used last.
    last: AtomicU64,
    /// By the low bits of the span's number.
    leaves: [AtomicU64; LEAVES],
    /// Of level 1, by the number of its 1 GiB span.
    middle: AtomicU64,
}

/// `id` filed under the number of the span of a table of `level` that holds `addr`. Numbers of spans that differ in the bits kept differ.
#[inline]
const fn filed(addr: u64, level: u8, id: u32) -> u64 {
    (addr / table_span(level)) << 32 | id as u64
}

/// The id filed in `h`, if it is filed under that number.
#[inline]
const fn unfiled(h: u64, addr: u64, level: u8) -> Option<u32> {
    if h != 0 && h >> 32 == filed(addr, level, 0) >> 32 { Some(h as u32) } else { None }
}

/// Hints are shared by all threads of a processor: whoever reads an id must see the place it is for, which may be new.
impl Hint {
    #[inline]
    fn slot(&self, addr: u64) -> &AtomicU64 {
        &self.leaves[(addr / table_span(0)) as usize % LEAVES]
    }
    #[inline]
    pub(crate) fn get(&self, addr: u64) -> Option<u32> {
        let h = self.slot(addr).load(Acquire);
        let id = unfiled(h, addr, 0)?;
        if self.last.load(Acquire) != h {
            self.last.store(h, Release);
        }
        Some(id)
    }
    /// The same for a look, which is no use.
    #[inline]
    fn peek(&self, addr: u64) -> Option<u32> {
        unfiled(self.slot(addr).load(Acquire), addr, 0)
    }
    /// The same, if it is the one used last.
    fn last(&self, addr: u64) -> Option<u32> {
        unfiled(self.last.load(Acquire), addr, 0)
    }
    pub(crate) fn set(&self, addr: u64, id: u32) {
        let h = filed(addr, 0, id);
        self.last.store(h, Release);
        self.slot(addr).store(h, Release);
    }
    fn middle(&self, addr: u64) -> Option<u32> {
        unfiled(self.middle.load(Acquire), addr, 1)
    }
    fn set_middle(&self, addr: u64, id: u32) {
        self.middle.store(filed(addr, 1, id), Release);
    }
}

/// Turns of a search that met a table which was one no more. Each such turn needs another thread to unlink one between two of
/// our loads; so many of them mean that an entry leads nowhere, and looping on would hide it.
#[derive(Default)]
struct Turns(u32);

impl Turns {
    fn again(&mut self) {
        self.0 += 1;
        assert!(self.0 < 1 << 20, "H4: an entry of a table leads to no table");
        spin_loop();
    }
}

/// Where a search for a leaf ended.
pub(crate) enum Found {
    /// The leaf's id, to be locked and checked.
    Leaf(u32),
    /// The lowest table that exists, to be locked and checked, and its level.
    Missing(u32, u8),
}

impl HatX86 {
    /// The entry `index` of the table with record `id`, and whether that record's number still is `seq`.
    #[inline]
    fn read(&self, id: u32, seq: u32, index: usize) -> (X86Pte, bool) {
        let rec = self.tables.get(id);
        let entry = X86Pte(self.db.word(rec.pfn(), index).load(SeqCst));
        (entry, rec.seq() == seq)
    }
    /// The record of the table that `entry` points to, if it is the table of `hat` with `tag`, and its number.
    #[inline]
    pub(crate) fn child(&self, hat: u32, entry: X86Pte, tag: u64) -> Option<(u32, u32)> {
        let page = self.db.page_of(entry.pfn())?;
        let id = self.db.page(page).mapping().head();
        let rec = self.tables.try_get(id)?;
        let seq = rec.seq();
        (rec.is(hat, tag) && rec.pfn() == entry.pfn()).then_some((id, seq))
    }
    /// Goes down from the top to the leaf over `addr` or the lowest table that exists.
    pub(crate) fn find(&self, cx: &Cx, st: &HatState, addr: u64) -> Found {
        let hint = st.hints.mine(cx);
        let mut start = self.middle(st, hint, addr);
        let mut turns = Turns::default();
        'top: loop {
            let (mut id, mut level) = start.take().map_or((st.root, TOP), |(id, _)| (id, 1));
            if st.is_gone() {
                return Found::Missing(id, level);
            }
            loop {
                let rec = self.tables.get(id);
                let entry = X86Pte(self.db.word(rec.pfn(), index(addr, level)).load(SeqCst));
                if !entry.is_present() {
                    return Found::Missing(id, level);
                }
                let Some((child, _)) = self.child(st.id, entry, tag(addr, level - 1)) else {
                    turns.again(); // read from a frame that is a table no more
                    continue 'top;
                };
                (id, level) = (child, level - 1);
                match level {
                    0 => return Found::Leaf(id),
                    1 => hint.set_middle(addr, id),
                    _ => {}
                }
            }
        }
    }
    /// The table of level 1 over `addr` that this CPU walked to last, if it is one still, and its number.
    fn middle(&self, st: &HatState, hint: &Hint, addr: u64) -> Option<(u32, u32)> {
        let id = hint.middle(addr)?;
        let rec = self.tables.get(id);
        let seq = rec.seq();
        rec.is(st.id, tag(addr, 1)).then_some((id, seq))
    }
    /// The leaf over `addr`, locked, if this CPU knows it.
    #[inline(always)] // the first step of every load
    pub(crate) fn hinted_leaf<'a>(
        &'a self,
        cx: &'a Cx,
        st: &HatState,
        addr: u64,
    ) -> Option<TableGuard<'a>> {
        let leaf = self.lock_table(cx, st.hints.mine(cx).get(addr)?);
        leaf.rec.is(st.id, tag(addr, 0)).then_some(leaf)
    }
    /// Locks the leaf over `addr`, making tables as needed; with `existing` none are made, and `None` says that the leaf is missing.
    ///
    /// # Errors
    /// [`HatError::NoMemory`], or [`HatError::OutOfRange`] when the hat is going; nothing has changed but what is in `supply`.
    #[doc(alias("htable_lookup", "htable_create"))]
    pub(crate) fn lock_leaf<'a>(
        &'a self,
        cx: &'a Cx,
        st: &HatState,
        addr: VirtAddr,
        supply: &mut Supply,
        existing: bool,
    ) -> Result<Option<TableGuard<'a>>, HatError> {
        let (va, want) = (addr.get(), tag(addr.get(), 0));
        let hint = st.hints.mine(cx);
        if let Some(leaf) = self.hinted_leaf(cx, st, va) {
            return Ok(Some(leaf));
        }
        loop {
            if st.is_gone() {
                return Err(HatError::OutOfRange { addr });
            }
            match self.find(cx, st, va) {
                Found::Leaf(id) => {
                    let leaf = self.lock_table(cx, id);
                    if leaf.rec.is(st.id, want) {
                        hint.set(va, id);
                        return Ok(Some(leaf));
                    }
                }
                Found::Missing(..) if existing => return Ok(None),
                Found::Missing(id, level) => {
                    self.gather(cx, addr, supply, usize::from(level))?;
                    let parent = self.lock_table(cx, id);
                    let alive = parent.rec.is(st.id, tag(va, level))
                        || mutated(Mutation::LinkedUnderTheDead);
                    if alive && !parent.entry(index(va, level)).is_present() {
                        let leaf = self.link(cx, st, &parent, va, supply);
                        hint.set(va, leaf.id);
                        return Ok(Some(leaf));
                    }
                }
            }
        }
    }
    /// The leaf entry for `addr`, read without locks and checked to have been one table's at one moment, and whether the entry above denies stores; `None` if
    /// this CPU does not know the leaf. A table of the hat lies in its window, so nobody need ask whether the address does.
    #[inline(always)] // into its two callers
    fn hinted_entry(&self, cx: &Cx, st: &HatState, addr: u64) -> Option<(X86Pte, bool)> {
        let rec = self.tables.get(st.hints.mine(cx).peek(addr)?);
        let seq = rec.seq();
        if !rec.is(st.id, tag(addr, 0)) {
            return None;
        }
        let denied = rec.is_denied(); // U5: before the entry
        let entry = X86Pte(self.db.word(rec.pfn(), index(addr, 0)).load(SeqCst));
        (rec.seq() == seq).then_some((entry, denied))
    }
    /// The translation of `addr`.
    #[inline]
    pub(crate) fn translate(&self, cx: &Cx, st: &HatState, addr: VirtAddr) -> Option<Translation> {
        let Some((entry, denied)) = self.hinted_entry(cx, st, addr.get()) else {
            return self.translate_slow(cx, st, addr);
        };
        if !entry.is_present() {
            return None;
        }
        let prot = if denied { entry.prot().read_only() } else { entry.prot() };
        Some(translation(entry, prot)) // H6
    }
    #[inline(never)]
    fn translate_slow(&self, cx: &Cx, st: &HatState, addr: VirtAddr) -> Option<Translation> {
        if !st.owns(addr) {
            return None;
        }
        let (entry, prot) = self.probe_walk(st, st.hints.mine(cx), addr.get())?;
        Some(translation(entry, prot))
    }
    /// Whether the leaf entry for `addr` grants `access`. An absent entry of this CPU's leaf is answered at once, without a second look at the record: who hears
    /// "no" goes on to lock the table.
    pub(crate) fn entry_allows(
        &self,
        cx: &Cx,
        st: &HatState,
        addr: VirtAddr,
        access: Access,
    ) -> bool {
        let hint = st.hints.mine(cx);
        if let Some(id) = hint.get(addr.get()) {
            let rec = self.tables.get(id);
            if rec.is(st.id, tag(addr.get(), 0)) {
                let cell = self.db.word(rec.pfn(), index(addr.get(), 0));
                if !X86Pte(cell.load(SeqCst)).is_present() {
                    return false;
                }
            }
        }
        self.granted_to(cx, st, addr, access)
    }
    /// The same with the whole check.
    #[inline(never)]
    fn granted_to(&self, cx: &Cx, st: &HatState, addr: VirtAddr, access: Access) -> bool {
        self.translate(cx, st, addr).is_some_and(|have| have.prot.allows(access))
    }
    fn probe_walk(&self, st: &HatState, hint: &Hint, addr: u64) -> Option<(X86Pte, Prot)> {
        let mut start = self.middle(st, hint, addr);
        let mut turns = Turns::default();
        'top: loop {
            turns.again();
            let (mut id, mut seq, top) = match start.take() {
                Some((id, seq)) => (id, seq, 1), // what is above denies nothing (U1)
                None => (st.root, self.tables.get(st.root).seq(), TOP),
            };
            let mut prot = Prot::RWX | Prot::USER;
            for level in (0..=top).rev() {
                let (entry, same) = self.read(id, seq, index(addr, level));
                if !same {
                    if st.is_gone() {
                        return None;
                    }
                    continue 'top;
                }
                if !entry.is_present() {
                    return None;
                }
                prot = narrow(prot, entry);
                match level {
                    0 => {
                        hint.set(addr, id);
                        return Some((entry, prot));
                    }
                    1 => hint.set_middle(addr, id),
                    _ => {}
                }
                match self.child(st.id, entry, tag(addr, level - 1)) {
                    Some(next) => (id, seq) = next,
                    None => continue 'top,
                }
            }
        }
    }
    /// Calls `f` with every table of a hat, top first, then by address: a hint where tables come and go.
    pub(crate) fn each_table(&self, st: &HatState, f: &mut dyn FnMut(u32)) {
        f(st.root);
        self.each_below(st, st.root, TOP, f);
    }
    fn each_below(&self, st: &HatState, id: u32, level: u8, f: &mut dyn FnMut(u32)) {
        let rec = self.tables.get(id);
        let base = if level == TOP { st.window.start().get() } else { rec.base() };
        let first = if level == TOP { index(base, TOP) } else { 0 };
        let mut left = rec.valid();
        for i in first..ENTRIES {
            if left == 0 {
                return;
            }
            let entry = X86Pte(self.db.word(rec.pfn(), i).load(SeqCst));
            if !entry.is_present() {
                continue;
            }
            left -= 1;
            let at = base + (i - first) as u64 * span(level);
            if let Some((child, _)) = self.child(st.id, entry, tag(at, level - 1)) {
                f(child);
                if level > 1 {
                    self.each_below(st, child, level - 1, f);
                }
            }
        }
    }
}

/// A leaf entry as a translation with the rights `prot`.
#[inline]
fn translation(entry: X86Pte, prot: Prot) -> Translation {
    Translation { pfn: entry.pfn(), prot, ref_mod: entry.ref_mod(), level: 0 }
}

/// A cursor over the leaves of a range.
#[doc(alias = "htable_walk")]
pub(crate) struct Walk<'a> {
    hx: &'a HatX86,
    st: &'a HatState,
    at: u64,
    end: u64,
    level: u8,
    /// Nothing has been read yet.
    fresh: bool,
    turns: Turns,
    /// Record and number of the table at each level from `level` up.
    path: [(u32, u32); TOP as usize + 1],
}

/// A leaf the cursor stopped at.
pub(crate) struct Leaf<'a> {
    pub(crate) table: TableGuard<'a>,
    /// The entries of it that lie in the range.
    pub(crate) entries: RangeInclusive<usize>,
}

impl Leaf<'_> {
    /// The address entry `index` translates.
    #[inline]
    pub(crate) fn addr(&self, index: usize) -> u64 {
        self.table.rec.base() + ((index as u64) << PAGE_SHIFT)
    }
    /// Rights the upper levels grant (H6).
    pub(crate) fn rights(&self) -> Prot {
        let all = Prot::RWX | Prot::USER;
        if self.table.rec.is_denied() { all.read_only() } else { all }
    }
    /// Whether all of the leaf lies in the range.
    pub(crate) fn is_whole(&self) -> bool {
        self.entries == (0..=ENTRIES - 1)
    }
    /// Whether it is worth denying stores to it from above.
    pub(crate) fn is_whole_and_dense(&self) -> bool {
        self.table.rec.valid() >= DENSE && self.is_whole()
    }
}

impl<'a> Walk<'a> {
    /// A cursor at the start of `range`, which lies in the hat's window.
    pub(crate) fn new(hx: &'a HatX86, st: &'a HatState, range: VirtRange) -> Self {
        let seq = hx.tables.get(st.root).seq();
        Self {
            hx,
            st,
            at: range.start().get(),
            end: range.end(),
            level: TOP,
            fresh: true,
            turns: Turns::default(),
            path: [(st.root, seq); TOP as usize + 1],
        }
    }
    fn restart(&mut self) {
        self.level = TOP;
        self.turns.again();
        if self.st.is_gone() {
            self.at = self.end;
        }
    }
    /// Moves on to `to`, the end of what an entry of `level` spans.
    fn advance(&mut self, to: u64, level: u8) {
        self.turns = Turns::default();
        self.at = to;
        self.level = level;
        while self.level < TOP && index(to, self.level) == 0 {
            self.level += 1; // past the end of this table
        }
    }
    /// The next leaf that exists, locked. The cursor is past it already.
    pub(crate) fn next(&mut self, cx: &'a Cx) -> Option<Leaf<'a>> {
        if self.fresh {
            self.fresh = false;
            if let Some(leaf) = self.hinted(cx) {
                return Some(leaf);
            }
        }
        while self.at < self.end {
            if self.level == 0 {
                if let Some(leaf) = self.stop(cx) {
                    return Some(leaf);
                }
                continue;
            }
            let (level, at) = (self.level, self.at);
            let (id, seq) = self.path[usize::from(level)];
            let (entry, same) = self.hx.read(id, seq, index(at, level));
            cx.count(Counter::PteReads);
            if !same {
                if level == TOP {
                    return None; // the hat is gone
                }
                self.restart();
            } else if !entry.is_present() {
                self.advance((at & !(span(level) - 1)) + span(level), level);
            } else {
                match self.hx.child(self.st.id, entry, tag(at, level - 1)) {
                    Some(child) => {
                        self.path[usize::from(level - 1)] = child;
                        self.level = level - 1;
                    }
                    None => self.restart(),
                }
            }
        }
        None
    }
    /// Makes entry `index` of `leaf`, the one it stopped at last, the next that it looks at, if that is in the range.
    pub(crate) fn back_to(&mut self, leaf: &Leaf<'_>, index: usize) {
        if index <= *leaf.entries.end() {
            (self.at, self.level) = (leaf.addr(index), 0);
            self.path[0] = (leaf.table.id, leaf.table.rec.seq());
        }
    }
    /// The CPU's hint, if all of the range lies in its leaf: a small range next to a fault is not walked to.
    fn hinted(&mut self, cx: &'a Cx) -> Option<Leaf<'a>> {
        if self.end - table_base(self.at, 0) > table_span(0) {
            return None;
        }
        let id = self.st.hints.mine(cx).last(self.at)?;
        let table = self.hx.lock_table(cx, id);
        if !table.rec.is(self.st.id, tag(self.at, 0)) {
            return None;
        }
        let entries = index(self.at, 0)..=index(self.end - 1, 0);
        self.at = self.end;
        Some(Leaf { table, entries })
    }
    /// Locks the leaf the path ends in; `None` if it is one no more.
    fn stop(&mut self, cx: &'a Cx) -> Option<Leaf<'a>> {
        let (id, seq) = self.path[0];
        let table = self.hx.lock_table(cx, id);
        if table.rec.seq() != seq {
            drop(table);
            self.restart();
            return None;
        }
        let base = table_base(self.at, 0);
        let until = (base + table_span(0)).min(self.end);
        let entries = index(self.at, 0)..=index(until - 1, 0);
        self.advance(base + table_span(0), 1);
        Some(Leaf { table, entries })
    }
}
