//! What is remembered of each anon beside its number: references, and where its page was last seen.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use page_db::PageId;
use page_db::sync::Once;
use page_db::sync::atomic::{AtomicU32, Ordering};
use swapfs::AnonNumber;

/// Eight bytes an anon.
#[doc(alias("struct anon", "vm_anon"))]
#[derive(Default)]
struct Anon {
    refs: AtomicU32,
    /// A page id's link, 0 for none; a hint.
    hint: AtomicU32,
}

/// The record of an anon that has just been given its number.
pub(crate) struct Started<'a>(&'a Anon);

impl Started<'_> {
    /// Notes where its page is.
    #[inline]
    pub(crate) fn set_hint(&self, page: PageId) {
        self.0.hint.store(page.link(), Ordering::Relaxed);
    }
}

/// log2 of the first bucket's size.
const FIRST: u32 = 8;
const BUCKETS: usize = 25;

/// The anons of a machine, indexed by number. Buckets double and never move; one is made when the first number in it is.
#[doc(alias("struct anon", "vm_anon"))]
pub struct AnonTable {
    buckets: [Once<Box<[Anon]>>; BUCKETS],
}

impl Default for AnonTable {
    fn default() -> Self {
        Self { buckets: core::array::from_fn(|_| Once::new()) }
    }
}

impl fmt::Debug for AnonTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnonTable").finish_non_exhaustive()
    }
}

impl AnonTable {
    fn locate(n: AnonNumber) -> (usize, usize) {
        let x = u64::from(n.get()) + (1 << FIRST);
        let top = 63 - x.leading_zeros();
        ((top - FIRST) as usize, (x - (1 << top)) as usize)
    }
    #[inline]
    fn get(&self, n: AnonNumber) -> Option<&Anon> {
        let (b, i) = Self::locate(n);
        self.buckets[b].get().map(|bucket| &bucket[i])
    }
    /// Makes sure that `n` has a record, and gives it one reference. `None` when the heap refuses.
    #[inline]
    pub(crate) fn start(&self, n: AnonNumber) -> Option<Started<'_>> {
        let (b, i) = Self::locate(n);
        let bucket = match self.buckets[b].get() {
            Some(bucket) => bucket,
            None => self.make(b)?,
        };
        let anon = &bucket[i];
        let before = anon.refs.load(Ordering::Relaxed);
        debug_assert_eq!(before, 0, "N2: a fresh number has no references");
        anon.refs.store(1, Ordering::Release);
        anon.hint.store(0, Ordering::Relaxed);
        Some(Started(anon))
    }
    #[cold]
    fn make(&self, b: usize) -> Option<&[Anon]> {
        let size = 1usize << (b as u32 + FIRST);
        let mut v = Vec::new();
        v.try_reserve_exact(size).ok()?;
        v.resize_with(size, Anon::default);
        Some(self.buckets[b].get_or_init(|| v.into_boxed_slice()))
    }
    /// References now: exact for whoever holds a slot with the number busy and sees 1 (N3), a hint otherwise.
    #[doc(alias = "an_refcnt")]
    pub fn refs(&self, n: AnonNumber) -> u32 {
        self.get(n).map_or(0, |a| a.refs.load(Ordering::Acquire))
    }
    /// For adding a reference to many anons whose numbers follow each other, as those of one CPU's run do.
    pub(crate) fn run(&self) -> CountRun<'_> {
        CountRun { table: self, first: 0, bucket: &[] }
    }
    /// One slot less; returns what is left.
    pub(crate) fn dec(&self, n: AnonNumber) -> u32 {
        let a = self.get(n).expect("N2: an anon in a slot has a record");
        let before = a.refs.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "N2: references never go below zero");
        before - 1
    }
    pub(crate) fn forget(&self, n: AnonNumber) {
        self.set_hint(n, None);
    }
    /// Where the page was last seen; compare the identity under its lock.
    pub fn hint(&self, n: AnonNumber) -> Option<PageId> {
        self.get(n).and_then(|a| PageId::of_link(a.hint.load(Ordering::Relaxed)))
    }
    pub(crate) fn set_hint(&self, n: AnonNumber, page: Option<PageId>) {
        if let Some(a) = self.get(n) {
            let link = page.map_or(0, PageId::link);
            if a.hint.load(Ordering::Relaxed) != link {
                a.hint.store(link, Ordering::Relaxed);
            }
        }
    }
    /// Plants a wrong count (tests of `verify`).
    #[doc(hidden)]
    pub fn damage_refs(&self, n: AnonNumber, by: i32) {
        if let Some(a) = self.get(n) {
            a.refs.store(a.refs.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
        }
    }
}

/// The part of the table that was looked at last.
pub(crate) struct CountRun<'a> {
    table: &'a AnonTable,
    /// Number of the bucket's first record.
    first: u64,
    bucket: &'a [Anon],
}

impl CountRun<'_> {
    /// One more slot holds the anon numbered `n`; the caller holds one that does, busy (N3).
    #[inline]
    pub(crate) fn inc_busy(&mut self, n: u32) {
        let at = u64::from(n).wrapping_sub(self.first) as usize;
        let a = match self.bucket.get(at) {
            Some(a) => a,
            None => self.turn_to(n),
        };
        let before = a.refs.load(Ordering::Acquire);
        debug_assert!(before > 0, "N3: only a live anon gains references");
        if before == 1 {
            // The one slot is in the caller's hands: nobody can add a reference, or take this one away.
            a.refs.store(2, Ordering::Release);
        } else {
            a.refs.fetch_add(1, Ordering::AcqRel);
        }
    }
    /// One slot less, the caller's, which it has busy; says whether it was the last, and where the page was last seen.
    #[inline]
    pub(crate) fn dec_busy(&mut self, n: AnonNumber) -> (bool, Option<PageId>) {
        let a = self.record(n);
        let before = a.refs.load(Ordering::Acquire);
        debug_assert!(before > 0, "N2: references never go below zero");
        let last = if before == 1 {
            a.refs.store(0, Ordering::Release); // the one slot is in the caller's hands
            true
        } else {
            a.refs.fetch_sub(1, Ordering::AcqRel) == 1
        };
        (last, PageId::of_link(a.hint.load(Ordering::Relaxed)))
    }
    /// As [`AnonTable::hint`].
    #[inline]
    pub(crate) fn hint(&mut self, n: AnonNumber) -> Option<PageId> {
        PageId::of_link(self.record(n).hint.load(Ordering::Relaxed))
    }
    #[inline]
    fn record(&mut self, n: AnonNumber) -> &Anon {
        let at = u64::from(n.get()).wrapping_sub(self.first) as usize;
        match self.bucket.get(at) {
            Some(a) => a,
            None => self.turn_to(n.get()),
        }
    }
    #[cold]
    fn turn_to(&mut self, n: u32) -> &Anon {
        let n = AnonNumber::from_raw(n).expect("Q1: an occupied slot holds a number");
        let (b, i) = AnonTable::locate(n);
        self.bucket = self.table.buckets[b].get().expect("N2: an anon in a slot has a record");
        self.first = u64::from(n.get()) - i as u64;
        &self.bucket[i]
    }
}
