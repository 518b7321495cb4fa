//! Page tables: a record for each, which says what the frame's bytes mean.
//!
//! # The difficulty
//!
//! The tables are walked from many sides at once: faults that load, ranges that unload, pages that are taken away, processors.
//! A table that becomes empty goes back to the page layer, and its frame may next hold somebody's data while a walker still looks at it.
//!
//! # The rule
//!
//! Walking is free of locks and believes nothing. Each table's frame leads to its record (`p_mapping` of the frame's page holds
//! the record's id), and the record, which is type-stable, says which table it is: hat, base, level, frame. Whoever wants to *change*
//! an entry locks the record and looks again; whoever concludes that an entry is *absent* looks at the record's number once more.
//!
//! ```text
//!   frame ──p_mapping──▶ HTable { seq, hat, base|level, pfn, parent }      seq odd: linked and alive, +1 at birth and at death
//!     ▲                     │  lock: valid, locks, busy
//!     └──── pfn ────────────┘
//! ```
//!
//! Missing tables are built aside, from the leaf up, and linked by one store in the lowest table that exists, while the new leaf is
//! already locked; so nobody ever meets an empty table that is nobody's. An emptied table is unlinked with its
//! parent and itself locked, parent first, and so on upwards. Between two levels nothing is held: the table above may be
//! empty by then, and is the unlinker's business until it has looked again. So a hat that ends may find no leaf and still have tables on
//! their way out, each with an entry in the one above that somebody is about to clear; its top table waits for them.
//!
//! - H1: `valid` of a table is the number of its present entries (of a user's top table: in the lower half; of the kernel's: its window's).
//! - H2: a linked table below the top that is empty is locked, or pinned (`busy`), or about to be unlinked by a thread that saw it empty.
//!   A top table ends, under its lock, when nothing is linked below it.
//! - H3: a table whose `locks` or `busy` is not 0 is not stolen; one whose `busy` is not 0 is not unlinked.
//! - H4: a record's seq, hat, base and parent change only while no entry points to its frame.
//! - H5: entries change by atomic operations only, since processors set A and D; a present entry becomes absent by a swap, which
//!   says what it was at that moment. A plain store does where the entry cannot change any more: a processor has nothing to add to one that has
//!   both bits, nor to one of a hat in which nothing runs, and everybody else waits for the locks that the remover holds (the table's, the page's list).
//! - H6: an entry that points to a table grants everything, but for the right to write, which the one above a leaf may deny
//!   ([`crate::above`]). Effective rights are the leaf's, less that.
//! - H7: frames of unlinked tables go back after the flush, after the last hat lock; frames for new ones are
//!   gathered before the first.
//! - H8: no leaf entry of a hat, of whatever kind, maps a table's frame: who could write there would map what it likes.
//!
//! # The other road
//!
//! A lock on each level, coupled on the way down, is simpler and makes the top table's lock a line that every fault writes.
//!
//! Sources: [SI §12.3]; illumos `i86pc/vm/htable.{c,h}` (structure and rules); illumos.md 9.3.

use crate::geometry::{ENTRIES, TOP, index, table_base};
use crate::hat::HatState;
use crate::hment::Site;
use crate::mmu::SpaceId;
use crate::provider::HatX86;
use crate::pte::{PteBits, X86Pte};
use crate::tlb::FlushDue;
use addr_space::HatError;
use page_db::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use page_db::sync::{Mutation, SpinMutex, SpinMutexGuard, mutated};
use page_db::{Counter, Cx, FailKind, LockedPage as _, PAGE_SIZE, Pfn, Rank, Reserve, VirtAddr};

/// The record of one page table.
#[doc(alias(
    "htable_t",
    "htable_alloc",
    "htable_create",
    "htable_free",
    "htable_lookup",
    "htable_release"
))]
#[repr(align(64))]
#[derive(Debug)]
pub struct HTable {
    /// Odd while the table is linked (or is a top table in use).
    seq: AtomicU32,
    hat: AtomicU32,
    /// Base address; the level in the bits below.
    tag: AtomicU64,
    pfn: AtomicU64,
    parent: AtomicU32,
    /// Next unlinked table whose flush is owed.
    pub(crate) link: AtomicU32,
    /// Counts below: changed under `lock`, readable as hints.
    valid: AtomicU16,
    busy: AtomicU16,
    locks: AtomicU32,
    /// The entry above denies stores (U1).
    denied: AtomicBool,
    lock: SpinMutex<()>,
}

impl Default for HTable {
    fn default() -> Self {
        Self {
            seq: AtomicU32::new(0),
            hat: AtomicU32::new(0),
            tag: AtomicU64::new(0),
            pfn: AtomicU64::new(0),
            parent: AtomicU32::new(0),
            link: AtomicU32::new(0),
            valid: AtomicU16::new(0),
            busy: AtomicU16::new(0),
            locks: AtomicU32::new(0),
            denied: AtomicBool::new(false),
            lock: SpinMutex::new(Rank::HTable, ()),
        }
    }
}

/// Base and level as one word.
pub(crate) const fn tag(addr: u64, level: u8) -> u64 {
    table_base(addr, level) | level as u64
}

impl HTable {
    /// The number that changes at birth and death; odd while alive.
    pub(crate) fn seq(&self) -> u32 {
        self.seq.load(SeqCst)
    }
    pub(crate) fn is_alive(&self) -> bool {
        self.seq() & 1 == 1
    }
    /// Whether this is now the table of `hat` with `tag`.
    #[inline]
    pub(crate) fn is(&self, hat: u32, tag: u64) -> bool {
        self.is_alive() && self.hat.load(SeqCst) == hat && self.tag.load(SeqCst) == tag
    }
    /// Id of the hat.
    pub fn hat(&self) -> u32 {
        self.hat.load(SeqCst)
    }
    /// First address translated; 0 for a top table.
    #[doc(alias = "ht_vaddr")]
    pub fn base(&self) -> u64 {
        self.tag.load(SeqCst) & !u64::from(TOP)
    }
    /// 0 for tables of pages.
    #[doc(alias = "ht_level")]
    pub fn level(&self) -> u8 {
        (self.tag.load(SeqCst) & u64::from(TOP)) as u8
    }
    /// The frame.
    #[doc(alias = "ht_pfn")]
    pub fn pfn(&self) -> Pfn {
        Pfn(self.pfn.load(SeqCst))
    }
    /// Id of the table above; 0 for a top table.
    #[doc(alias = "ht_parent")]
    pub fn parent(&self) -> u32 {
        self.parent.load(SeqCst)
    }
    /// Present entries (H1).
    #[doc(alias = "ht_valid_cnt")]
    pub fn valid(&self) -> u16 {
        self.valid.load(Relaxed)
    }
    /// Locked translations.
    #[doc(alias = "ht_lock_cnt")]
    pub fn locks(&self) -> u32 {
        self.locks.load(Relaxed)
    }
    /// Reasons to keep the table though it may be empty.
    #[doc(alias = "ht_busy")]
    pub fn busy(&self) -> u16 {
        self.busy.load(Relaxed)
    }
    /// Whether the entry above denies stores to all pages of this leaf.
    #[inline]
    pub fn is_denied(&self) -> bool {
        self.denied.load(Acquire)
    }
    pub(crate) fn set_denied(&self, on: bool) {
        self.denied.store(on, Release);
    }
    /// Makes a blank record the table of `hat` with `tag` under `parent`, holding `valid` entries.
    fn become_table(&self, hat: u32, tag: u64, parent: u32, valid: u16) {
        self.hat.store(hat, SeqCst);
        self.tag.store(tag, SeqCst);
        self.parent.store(parent, SeqCst);
        self.valid.store(valid, Relaxed);
        self.busy.store(0, Relaxed);
        self.locks.store(0, Relaxed);
        self.denied.store(false, Relaxed);
        debug_assert!(!self.is_alive(), "H4: a record is one table at a time");
        self.seq.fetch_add(1, SeqCst);
    }
    /// The reverse.
    fn cease(&self) {
        debug_assert!(self.is_alive(), "H4: a table ends once");
        self.seq.fetch_add(1, SeqCst);
    }
    /// Says that the table hangs under another, as a test's damage.
    #[cfg(all(test, not(shuttle)))]
    pub(crate) fn damage_parent(&self, parent: u32) {
        self.parent.store(parent, SeqCst);
    }
    #[doc(hidden)]
    pub fn damage_valid(&self, by: u16) {
        self.valid.store(self.valid().wrapping_add(by), Relaxed);
    }
}

/// A locked table, found alive.
pub(crate) struct TableGuard<'a> {
    pub(crate) hx: &'a HatX86,
    pub(crate) id: u32,
    pub(crate) rec: &'a HTable,
    pub(crate) pfn: Pfn,
    _lock: SpinMutexGuard<'a, ()>,
}

impl<'a> TableGuard<'a> {
    /// Its entries.
    #[inline]
    pub(crate) fn words(&self) -> &'a [AtomicU64; ENTRIES] {
        self.hx.db.words(self.pfn)
    }
    #[inline]
    pub(crate) fn cell(&self, index: usize) -> &'a AtomicU64 {
        self.hx.db.word(self.pfn, index)
    }
    /// The mapping by entry `index`.
    #[inline]
    pub(crate) fn site(&self, index: usize) -> Site {
        Site { table: self.id, entry: index as u16 }
    }
    #[inline]
    pub(crate) fn entry(&self, index: usize) -> X86Pte {
        X86Pte(self.cell(index).load(SeqCst))
    }
    pub(crate) fn add_valid(&self, n: u16) {
        self.rec.valid.store(self.rec.valid() + n, Relaxed);
    }
    pub(crate) fn sub_valid(&self, n: u16) {
        let v = self.rec.valid();
        debug_assert!(v >= n, "H1: valid_cnt counts present entries");
        self.rec.valid.store(v.wrapping_sub(n), Relaxed);
    }
    pub(crate) fn lock(&self, n: u16) {
        self.rec.locks.store(self.rec.locks().saturating_add(u32::from(n)), Relaxed);
    }
    pub(crate) fn unlock(&self, n: u16) {
        self.rec.locks.store(self.rec.locks().saturating_sub(u32::from(n)), Relaxed);
    }
    pub(crate) fn pin(&self) {
        self.rec.busy.store(self.rec.busy() + 1, Relaxed);
    }
    pub(crate) fn unpin(&self) {
        debug_assert!(self.rec.busy() > 0, "H3: unpinned once for each pin");
        self.rec.busy.store(self.rec.busy() - 1, Relaxed);
    }
    /// What [`HatX86::reclaim`] needs after the lock is gone, if the table should go.
    pub(crate) fn emptied(&self) -> Option<(u32, u32)> {
        let pinned = self.rec.busy() != 0 && !mutated(Mutation::PinUnseen);
        (self.rec.valid() == 0 && !pinned).then(|| (self.id, self.rec.seq()))
    }
}

/// Changes an entry by compare-and-swap until `next` has been applied to what is there; the old and the new entry.
#[inline]
pub(crate) fn update(cell: &AtomicU64, next: impl Fn(X86Pte) -> X86Pte) -> (X86Pte, X86Pte) {
    let mut old = cell.load(Acquire);
    loop {
        let new = next(X86Pte(old));
        if new.0 == old {
            return (X86Pte(old), new);
        }
        match cell.compare_exchange(old, new.0, AcqRel, Acquire) {
            Ok(_) => return (X86Pte(old), new),
            Err(now) => old = now,
        }
    }
}

/// Clears a present entry and says what it was. The table is locked, and the list of the page if there is one. `quiet` when nothing runs in the hat.
#[inline]
pub(crate) fn clear(cell: &AtomicU64, quiet: bool) -> X86Pte {
    let seen = X86Pte(cell.load(Acquire));
    if quiet || seen.has(PteBits::A.union(PteBits::D)) {
        cell.store(0, Release); // H5: nobody has anything to add to it
        return seen;
    }
    X86Pte(cell.swap(0, AcqRel))
}

/// Blank tables gathered before any lock: records with zeroed frames. Never more than the levels below the top.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    ids: [u32; TOP as usize],
    count: usize,
}

impl Supply {
    /// The one that is taken next; 0 when there is none.
    pub(crate) fn next(&self) -> u32 {
        self.count.checked_sub(1).map_or(0, |n| self.ids[n])
    }
    pub(crate) fn take(&mut self) -> u32 {
        self.count =
            self.count.checked_sub(1).expect("H7: tables are gathered before they are linked");
        self.ids[self.count]
    }
}

impl HatX86 {
    /// Locks a table; the caller checks what it is.
    #[inline(always)] // into the load of every fault
    pub(crate) fn lock_table<'a>(&'a self, cx: &'a Cx, id: u32) -> TableGuard<'a> {
        let rec = self.tables.get(id);
        let lock = rec.lock.lock(cx);
        TableGuard { hx: self, id, rec, pfn: rec.pfn(), _lock: lock }
    }
    /// Locks a table below one that is locked.
    pub(crate) fn lock_child<'a>(&'a self, cx: &'a Cx, id: u32) -> TableGuard<'a> {
        let rec = self.tables.get(id);
        let lock = rec.lock.lock_nested(cx);
        TableGuard { hx: self, id, rec, pfn: rec.pfn(), _lock: lock }
    }
    /// Fills `supply` up to `need` blank tables. No hat lock is held.
    ///
    /// # Errors
    /// [`HatError::NoMemory`]; what was gathered stays in `supply`.
    #[doc(alias = "htable_alloc")]
    pub(crate) fn gather(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        supply: &mut Supply,
        need: usize,
    ) -> Result<(), HatError> {
        while supply.count < need {
            let no_memory = HatError::NoMemory { addr };
            let id = self.tables.alloc(cx).map_err(|_| no_memory)?;
            let colour = addr.vpn().wrapping_add(u64::from(id));
            let denied = cx.fails(FailKind::Table);
            let page = if denied { None } else { self.db.alloc(cx, colour, Reserve::Normal).ok() };
            let Some(page) = page else {
                self.tables.free(cx, id);
                return Err(no_memory);
            };
            self.db.set_kernel(&page, true);
            self.db.mem().zero(page.pfn());
            page.page().mapping().set_head(cx, id);
            self.tables.get(id).pfn.store(page.pfn().0, SeqCst);
            // The page lock goes: a table's frame has no name, so nobody looks for it, and the scanner passes the kernel's pages by.
            drop(page);
            cx.count(Counter::TableAllocs);
            cx.count_n(Counter::BytesZeroed, PAGE_SIZE);
            supply.ids[supply.count] = id;
            supply.count += 1;
        }
        Ok(())
    }
    /// Gives back what was gathered and not linked. No hat lock is held.
    pub(crate) fn give_back(&self, cx: &Cx, supply: &mut Supply) {
        while supply.count > 0 {
            let id = supply.take();
            self.free_table(cx, self.tables.get(id).pfn());
        }
    }
    /// Gives a blank or unlinked table's frame and record back. No hat lock is held.
    #[doc(alias = "htable_free")]
    pub(crate) fn free_table(&self, cx: &Cx, pfn: Pfn) {
        let page = self.db.page_of(pfn).expect("H4: tables live in managed frames");
        let page = self.db.lock_unnamed(cx, page);
        let id = page.page().mapping().head();
        page.page().mapping().set_head(cx, 0);
        self.db.set_kernel(&page, false);
        self.db.free(cx, page, false);
        self.tables.free(cx, id);
        cx.count(Counter::TableFrees);
    }
    /// Builds the tables from `parent`'s level down to the leaf over `addr` and links them; the leaf comes back locked and empty.
    /// `parent` is alive, locked, and its entry for `addr` is absent.
    #[doc(alias = "htable_create")]
    pub(crate) fn link<'a>(
        &'a self,
        cx: &'a Cx,
        st: &HatState,
        parent: &TableGuard<'_>,
        addr: u64,
        supply: &mut Supply,
    ) -> TableGuard<'a> {
        let top = usize::from(parent.rec.level());
        let mut ids = [parent.id; TOP as usize + 1];
        ids[..top].iter_mut().for_each(|id| *id = supply.take());
        let pfn = |level: usize| self.tables.get(ids[level]).pfn();
        // From the leaf up, each one complete before its record says that it lives: somebody with an old id of one of these records may be
        // looking, and must find it locked (the leaf) or full (the others).
        let rec = self.tables.get(ids[0]);
        let lock = rec.lock.lock_nested(cx);
        rec.become_table(st.id, tag(addr, 0), ids[1], 0);
        let leaf = TableGuard { hx: self, id: ids[0], rec, pfn: rec.pfn(), _lock: lock };
        for level in 1..top {
            let cell = self.db.word(pfn(level), index(addr, level as u8));
            cell.store(X86Pte::table(pfn(level - 1), st.is_user()).0, SeqCst);
            let rec = self.tables.get(ids[level]);
            rec.become_table(st.id, tag(addr, level as u8), ids[level + 1], 1);
        }
        let link = X86Pte::table(pfn(top - 1), st.is_user());
        parent.cell(index(addr, top as u8)).store(link.0, SeqCst);
        parent.add_valid(1);
        cx.count_n(Counter::PteWrites, top as u64);
        leaf
    }
    /// Links one table under the locked top table `root` for good: it is pinned, empty or not.
    pub(crate) fn link_pinned(
        &self,
        cx: &Cx,
        st: &HatState,
        root: &TableGuard<'_>,
        addr: u64,
        supply: &mut Supply,
    ) {
        let id = supply.take();
        let rec = self.tables.get(id);
        rec.become_table(st.id, tag(addr, TOP - 1), root.id, 0);
        rec.busy.store(1, Relaxed);
        root.cell(index(addr, TOP)).store(X86Pte::table(rec.pfn(), st.is_user()).0, SeqCst);
        root.add_valid(1);
        cx.count(Counter::PteWrites);
    }
    /// Makes a top table of a blank one.
    pub(crate) fn become_root(&self, hat: u32, supply: &mut Supply) -> u32 {
        let id = supply.take();
        self.tables.get(id).become_table(hat, tag(0, TOP), 0, 0);
        id
    }
    /// Unlinks a table that was seen empty with `seq`, then its parents as they become empty. No hat lock is held; `due` owes their flush afterwards.
    /// Returns how many went.
    #[doc(alias = "htable_release")]
    pub(crate) fn reclaim(
        &self,
        cx: &Cx,
        mut emptied: Option<(u32, u32)>,
        due: &mut FlushDue,
    ) -> u64 {
        let mut gone = 0;
        while let Some((id, seq)) = emptied {
            let rec = self.tables.get(id);
            let above = rec.parent();
            if above == 0 {
                return gone; // a top table stays as long as its hat
            }
            let parent = self.lock_table(cx, above);
            if rec.seq() != seq {
                return gone; // gone already, so `above` may be anybody: the order between the two is not known
            }
            let child = self.lock_child(cx, id);
            let filled = rec.valid() != 0 && !mutated(Mutation::EmptyBelieved);
            if filled || (rec.busy() != 0 && !mutated(Mutation::PinUnseen)) {
                return gone;
            }
            let (base, level) = (rec.base(), rec.level() + 1);
            let old = X86Pte(parent.cell(index(base, level)).swap(0, SeqCst));
            debug_assert_eq!(old.pfn(), child.pfn, "H4: the parent's entry points to the child");
            parent.sub_valid(1);
            cx.count(Counter::PteWrites);
            rec.cease();
            due.add(SpaceId(rec.hat()), base, level, old, X86Pte::EMPTY);
            rec.link.store(due.retired, Relaxed);
            due.retired = id;
            drop(child);
            gone += 1;
            emptied = parent.emptied();
        }
        gone
    }
    /// Ends the top table of a hat that is going, unless something is linked below it (H2); says whether it has. From then on the hat is gone.
    pub(crate) fn retire_root(&self, cx: &Cx, st: &HatState, due: &mut FlushDue) -> bool {
        let root = self.lock_table(cx, st.root);
        if root.rec.valid() != 0 && !mutated(Mutation::TopEndsFirst) {
            return false;
        }
        st.go();
        root.rec.cease();
        root.rec.link.store(due.retired, Relaxed);
        due.retired = st.root;
        true
    }
}
