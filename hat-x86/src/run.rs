//! Loading a run of pages in one go.
//!
//! # The difficulty
//!
//! Whoever maps neighbours of a fault, or fills a range ahead of use, has a handful to hundreds of pages for consecutive addresses. One load
//! each would find, lock and count the same table again for every page, and costs several times what storing an entry does.
//!
//! # The rule
//!
//! ```text
//!   for each leaf under the run:
//!     find and lock it, making it if a page needs it         an advisory run steps over a leaf that is missing
//!     stamp still current?                                   no: the run ends here, Stale
//!     for each place with a page
//!       the entry is absent             page's list: add the mapping; store the entry       (what one load does)
//!       advisory                        what is there stays
//!       anything else                   unlock, and load this one alone (`crate::load`): it may replace, flush, fail
//!     count once, unlock
//! ```
//!
//! The stamp is compared once for each time the leaf is locked: a change that comes later waits for the lock and finds everything
//! (C1 of [`crate::walk`]). Records for mapping lists are taken in handfuls, and only when the first page that needs one is met. Nothing
//! is allocated for the run itself, whatever its length. Pages of the run that come next are fetched for writing while one is stored.
//!
//! Sources: illumos `hat_memload_array` (behaviour); illumos.md 9.5; performance.md 12, rows 6 and 17.

use crate::geometry::{ENTRIES, index};
use crate::hat::HatState;
use crate::hment::Spare;
use crate::htable::{Supply, TableGuard};
use crate::load::{Load, kind};
use crate::provider::HatX86;
use crate::pte::X86Pte;
use addr_space::{HatError, LoadFlags, Loaded, RunLoaded, RunPage, Stamp};
use page_db::sync::atomic::Ordering::{Acquire, Release};
use page_db::sync::prefetch_write;
use page_db::{Counter, Cx, PAGE_SIZE, PageDb, Prot, VirtAddr, VirtRange};

/// How many pages ahead of the one being stored are fetched.
const FETCH: usize = 4;

/// A run under way.
struct Run<'a> {
    start: VirtAddr,
    pages: &'a [Option<RunPage<'a>>],
    flags: LoadFlags,
    stamp: Option<Stamp<'a>>,
    done: RunLoaded,
}

impl Run<'_> {
    /// Index of the next place that needs an entry.
    fn next(&self) -> Option<usize> {
        let wanted = |p: &Option<RunPage<'_>>| p.is_some_and(|p| p.prot().intersects(Prot::RWX));
        let ahead = self.pages[self.done.passed..].iter().position(wanted)?;
        Some(self.done.passed + ahead)
    }
    /// The address of place `i`, if it exists.
    fn at(&self, i: usize) -> Option<VirtAddr> {
        self.start.checked_add(i as u64 * PAGE_SIZE).ok()
    }
    /// What one load of place `i` would be given. The address is the hat's.
    fn load(&self, db: &PageDb, i: usize, page: &RunPage<'_>) -> Load<'_> {
        let consistent = !self.flags.contains(LoadFlags::NOCONSIST);
        Load {
            addr: self.at(i).unwrap_or_default(),
            pfn: db.pfn(page.id()),
            page: consistent.then(|| page.id()),
            alone: page.is_exclusive(),
            prot: page.prot(),
            flags: self.flags,
            stamp: self.stamp,
        }
    }
}

/// Why the entries of a locked leaf were left.
enum Left {
    /// The leaf ends, or the run.
    Over,
    /// The page at the place reached has to be loaded alone.
    Alone,
    Stale,
    NoRecord,
    /// The page at the place reached is another machine's.
    Foreign,
}

impl HatX86 {
    pub(crate) fn memload_run(
        &self,
        cx: &Cx,
        st: &HatState,
        start: VirtAddr,
        pages: &[Option<RunPage<'_>>],
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> RunLoaded {
        let done = RunLoaded { passed: 0, loaded: 0, end: Ok(Loaded::Done) };
        let mut run = Run { start, pages, flags, stamp, done };
        let (mut supply, mut spare) = (Supply::default(), Spare::default());
        while let Some(i) = run.next() {
            run.done.passed = i;
            run.done.end = self.load_leaf(cx, st, &mut run, &mut supply, &mut spare);
            // held: none of the hat's
            let adv = flags.contains(LoadFlags::ADV);
            match run.done.end {
                Ok(Loaded::Done) => continue,
                Err(HatError::NoMemory { .. }) if adv => run.done.end = Ok(Loaded::Done),
                _ => {}
            }
            break;
        }
        if run.done.end == Ok(Loaded::Done) {
            run.done.passed = pages.len();
        }
        self.give_back(cx, &mut supply);
        self.lists.give_back(cx, &mut spare);
        self.hint_run(cx, st, &run);
        run.done
    }
    fn hint_run(&self, cx: &Cx, st: &HatState, run: &Run<'_>) {
        let bytes = run.done.passed as u64 * PAGE_SIZE;
        if self.caps.wants_hints
            && run.done.loaded != 0
            && let Ok(range) = VirtRange::covering(run.start.get(), bytes)
        {
            self.mmu.hint_loaded(cx, st.space(), range);
        }
    }
    /// Goes on with the run from the place it has reached, which needs an entry, to the end of its leaf.
    fn load_leaf(
        &self,
        cx: &Cx,
        st: &HatState,
        run: &mut Run<'_>,
        supply: &mut Supply,
        spare: &mut Spare,
    ) -> Result<Loaded, HatError> {
        let first = run.done.passed;
        let addr = run.at(first).ok_or(HatError::OutOfRange { addr: run.start })?;
        if !st.owns(addr) {
            return Err(HatError::OutOfRange { addr });
        }
        let behind = (first + ENTRIES - index(addr.get(), 0)).min(run.pages.len());
        let adv = run.flags.contains(LoadFlags::ADV);
        let Some(leaf) = self.lock_leaf(cx, st, addr, supply, adv)? else {
            run.done.passed = behind;
            return Ok(Loaded::Done);
        };
        let left = self.fill(cx, st, &leaf, run, behind, spare);
        let emptied = leaf.emptied();
        drop(leaf);
        // held: none of the hat's
        if emptied.is_some() {
            let mut due = self.flush_due_of(cx, st);
            self.reclaim(cx, emptied, &mut due);
            self.finish(cx, &mut due);
        }
        match left {
            Left::Over => Ok(Loaded::Done),
            Left::Stale => Ok(Loaded::Stale),
            Left::NoRecord => {
                Err(HatError::NoMemory { addr: run.at(run.done.passed).unwrap_or(addr) })
            }
            Left::Foreign => {
                Err(HatError::ForeignPage { addr: run.at(run.done.passed).unwrap_or(addr) })
            }
            Left::Alone => self.load_alone(cx, st, run),
        }
    }
    /// Loads the page at the place reached by itself: something is there already.
    fn load_alone(&self, cx: &Cx, st: &HatState, run: &mut Run<'_>) -> Result<Loaded, HatError> {
        let at = run.done.passed;
        if let Some(page) = &run.pages[at]
            && let other = self.load(cx, st, run.load(&self.db, at, page))
            && other != Ok(Loaded::Done)
        {
            return other;
        }
        run.done.passed = at + 1;
        Ok(Loaded::Done)
    }
    /// Stores the entries of the run up to place `behind`, all of them in `leaf`.
    fn fill(
        &self,
        cx: &Cx,
        st: &HatState,
        leaf: &TableGuard<'_>,
        run: &mut Run<'_>,
        behind: usize,
        spare: &mut Spare,
    ) -> Left {
        if run.stamp.is_some_and(|s| !s.is_current()) {
            return Left::Stale;
        }
        spare.coming = behind - run.done.passed;
        let (words, kind) = (leaf.words(), kind(st, run.flags));
        let listed = !run.flags.contains(LoadFlags::NOCONSIST);
        let entry = index(run.start.get(), 0); // of place 0, in a leaf of its own
        let (mut stored, mut counted) = (0, 0);
        let mut left = Left::Over;
        let mut i = run.done.passed;
        while i < behind {
            if let Some(Some(next)) = run.pages.get(i + FETCH) {
                prefetch_write(self.db.page(next.id()));
            }
            if let Some(page) = &run.pages[i]
                && page.prot().intersects(Prot::RWX)
            {
                if !core::ptr::eq(page.db(), &*self.db) {
                    left = Left::Foreign;
                    break;
                }
                let at = (entry + i) % ENTRIES;
                let cell = &words[at];
                if cell.load(Acquire) != 0 {
                    if !run.flags.contains(LoadFlags::ADV) {
                        left = Left::Alone;
                        break;
                    }
                } else {
                    let (id, site) = (page.id(), leaf.site(at));
                    let (lists, alone) = (&self.lists, page.is_exclusive());
                    if listed && lists.add(cx, &self.db, id, site, alone, spare).is_err() {
                        left = Left::NoRecord;
                        break;
                    }
                    let prot = if listed { self.granted_on(id, page.prot()) } else { page.prot() };
                    if prot.contains(Prot::WRITE) {
                        // Splitting looks at as many present entries as the table counts (H1): those stored so far are among them.
                        leaf.add_valid(stored - counted);
                        counted = stored;
                        self.split(cx, leaf);
                    }
                    cell.store(X86Pte::new(self.db.pfn(id), kind).with_prot(prot).0, Release);
                    stored += 1;
                }
            }
            i += 1;
        }
        leaf.add_valid(stored - counted);
        cx.count_n(Counter::PteWrites, u64::from(stored));
        if run.flags.contains(LoadFlags::LOCK) {
            leaf.lock(stored);
        }
        run.done.passed = i;
        run.done.loaded += usize::from(stored);
        left
    }
}
