//! What one page of a segment may have of its own, and where it is kept.

use crate::runs::Runs;
use addr_space::{Advice, Inherit};
use alloc::boxed::Box;
use core::ops::Range;
use page_db::Prot;
use page_db::db::Era;
use page_db::heap::NoHeap;

/// Per-page state, kept as runs. The default says "as the segment".
#[doc(alias = "struct vpage")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VPage {
    /// Rights, where they differ from the segment's.
    pub prot: Option<Prot>,
    /// Advice, where it differs from the segment's.
    pub advice: Option<Advice>,
    /// Locked in memory by this mapping (`PPLOCK`): of which era its claim on the page is, if that is still there.
    pub claim: Option<Era>,
    /// Swap for this page is reserved, in segments that reserve page by page (`SWAPRES`).
    pub reserved: bool,
    /// What a forked child finds (`INHZERO` is one of them), where that is not what the mapping's kind says.
    pub inherit: Option<Inherit>,
}

impl VPage {
    /// As the segment.
    pub const PLAIN: Self =
        Self { prot: None, advice: None, claim: None, reserved: false, inherit: None };

    /// Whether this mapping has locked the page in memory.
    pub const fn is_locked(self) -> bool {
        self.claim.is_some()
    }
}

/// The per-page state of a segment, by virtual page number. Nearly every segment has none: it pays for a pointer only.
///
/// What is asked of a whole segment whenever a range of it changes (are there pages with rights of their own? how many are reserved?) is summed up: a change looks
/// at the runs of its range.
///
/// - U2: what is there is not plain.
/// - U4: the sums are those of all pages.
#[derive(Debug, Default)]
pub(super) struct VPages(Option<Box<Noted>>);

#[derive(Debug)]
struct Noted {
    runs: Runs<VPage>,
    sums: Sums,
    #[cfg(all(test, not(shuttle)))]
    looked: Looked,
}

/// How many pages have rights of their own, and are marked as reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Sums {
    prots: u64,
    reserved: u64,
}

impl Sums {
    fn add(&mut self, pages: u64, v: VPage) {
        self.prots += if v.prot.is_some() { pages } else { 0 };
        self.reserved += if v.reserved { pages } else { 0 };
    }
    fn remove(&mut self, pages: u64, v: VPage) {
        self.prots -= if v.prot.is_some() { pages } else { 0 };
        self.reserved -= if v.reserved { pages } else { 0 };
    }
    fn of(runs: &Runs<VPage>) -> Self {
        let mut sums = Self::default();
        runs.iter(0..u64::MAX).for_each(|(run, v)| sums.add(run.end - run.start, v));
        sums
    }
}

/// How many runs have been looked at, for tests of what a change costs.
#[cfg(all(test, not(shuttle)))]
type Looked = core::cell::Cell<u64>;

impl Noted {
    fn new(runs: Runs<VPage>) -> Self {
        Self {
            sums: Sums::of(&runs),
            runs,
            #[cfg(all(test, not(shuttle)))]
            looked: Looked::new(0),
        }
    }
    fn look(&self) {
        #[cfg(all(test, not(shuttle)))]
        self.looked.set(self.looked.get() + 1);
    }
    fn look_at_all_of(&self, _runs: &Runs<VPage>) {
        #[cfg(all(test, not(shuttle)))]
        _runs.iter(0..u64::MAX).filter(|(_, v)| *v != VPage::PLAIN).for_each(|_| self.look());
    }
    fn update(&mut self, range: Range<u64>, mut f: impl FnMut(VPage) -> VPage) {
        let Self { runs, sums, .. } = self;
        let mut steps = 0u64;
        runs.update_runs(range, |pages, old| {
            steps += 1;
            let new = f(old);
            sums.remove(pages, old);
            sums.add(pages, new);
            new
        });
        (0..steps).for_each(|_| self.look());
    }
}

impl VPages {
    /// Whether every page is as the segment.
    pub(super) fn is_plain(&self) -> bool {
        self.0.is_none()
    }
    /// Whether any page has rights of its own.
    pub(super) fn any_prot(&self) -> bool {
        self.0.as_ref().is_some_and(|noted| noted.sums.prots != 0)
    }
    /// How many pages are marked as reserved.
    pub(super) fn reserved(&self) -> u64 {
        self.0.as_ref().map_or(0, |noted| noted.sums.reserved)
    }
    /// How many runs have been looked at.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn looked(&self) -> u64 {
        self.0.as_ref().map_or(0, |noted| noted.looked.get())
    }
    /// The state of page `at`.
    pub(super) fn get(&self, at: u64) -> VPage {
        self.0.as_ref().map_or(VPage::PLAIN, |noted| noted.runs.get(at))
    }
    /// The runs of `range`, in order and without gaps.
    pub(super) fn iter(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, VPage)> {
        let plain = (self.is_plain() && !range.is_empty()).then(|| (range.clone(), VPage::PLAIN));
        let noted = self.0.iter();
        plain.into_iter().chain(
            noted.flat_map(move |noted| noted.runs.iter(range.clone()).inspect(|_| noted.look())),
        )
    }
    /// The run with which `range` begins; for walks with changes between the steps.
    pub(super) fn first_of(&self, range: Range<u64>) -> (Range<u64>, VPage) {
        match &self.0 {
            Some(noted) => {
                noted.look();
                noted.runs.first_of(range)
            }
            None => (range, VPage::PLAIN),
        }
    }
    /// Makes room for two changes of `range` (U3).
    pub(super) fn make_room(&mut self, range: Range<u64>) -> Result<(), NoHeap> {
        self.0.as_mut().map_or(Ok(()), |noted| noted.runs.make_room(range))
    }
    /// Whether any page of `range` satisfies `test`.
    pub(super) fn any(&self, range: Range<u64>, mut test: impl FnMut(VPage) -> bool) -> bool {
        match &self.0 {
            Some(noted) => noted.runs.any(range, |v| {
                noted.look();
                test(v)
            }),
            None => test(VPage::PLAIN),
        }
    }
    /// How many pages of `range` satisfy `test`.
    pub(super) fn count(&self, range: Range<u64>, mut test: impl FnMut(VPage) -> bool) -> u64 {
        match &self.0 {
            Some(noted) => noted.runs.count(range, |v| {
                noted.look();
                test(v)
            }),
            None if test(VPage::PLAIN) => range.end - range.start,
            None => 0,
        }
    }
    /// Replaces the state of each page of `range`.
    pub(super) fn update(&mut self, range: Range<u64>, mut f: impl FnMut(VPage) -> VPage) {
        if self.is_plain() && f(VPage::PLAIN) == VPage::PLAIN {
            return;
        }
        let noted = self.0.get_or_insert_with(|| Box::new(Noted::new(Runs::new(VPage::PLAIN))));
        noted.update(range, f);
        if noted.runs.is_plain() {
            self.0 = None;
        }
    }
    /// Sets `range` to `value`.
    pub(super) fn set(&mut self, range: Range<u64>, value: VPage) {
        self.update(range, |_| value);
    }
    /// All that is kept lies as far up, or down, as `to` is from `from`.
    pub(super) fn shift(&mut self, from: u64, to: u64) {
        if let Some(noted) = &mut self.0 {
            noted.runs.shift(from, to);
        }
    }
    /// Lets go of room that was made and is not needed.
    pub(super) fn trim(&mut self) {
        if let Some(noted) = &mut self.0 {
            noted.runs.trim();
        }
    }
    /// A copy of the state of `range`, beside which all is plain.
    pub(super) fn part(&self, range: Range<u64>) -> Result<Self, NoHeap> {
        let Some(noted) = &self.0 else { return Ok(Self(None)) };
        let part = noted.runs.part(range)?;
        noted.look_at_all_of(&part);
        Ok(Self((!part.is_plain()).then(|| Box::new(Noted::new(part)))))
    }
    /// The same where nothing may fail: the heap must give it.
    pub(super) fn copy(&self, range: Range<u64>) -> Self {
        let mut copy = Self::default();
        self.iter(range).for_each(|(run, v)| copy.set(run, v));
        copy
    }
    /// Whether this has more runs than `other`, to within a block.
    fn is_longer_than(&self, other: &Self) -> bool {
        let blocks = |pages: &Self| pages.0.as_ref().map_or(0, |noted| noted.runs.blocks());
        blocks(self) > blocks(other)
    }
    /// Makes room for [`VPages::absorb`] in the longer of the two.
    pub(super) fn make_room_to_absorb(&mut self, other: &mut Self) -> Result<(), NoHeap> {
        let (long, short) = if other.is_longer_than(self) { (other, self) } else { (self, other) };
        match (&mut long.0, &short.0) {
            (Some(long), Some(short)) => long.runs.make_room_for(&short.runs, 0..0),
            _ => Ok(()),
        }
    }
    /// Takes over what another segment's pages, beside this one's, have of their own: the runs of the shorter go to those of the longer.
    pub(super) fn absorb(&mut self, mut other: Self) {
        if other.is_longer_than(self) {
            core::mem::swap(self, &mut other);
        }
        match (&mut self.0, other.0) {
            (Some(long), Some(short)) => {
                long.runs.absorb(&short.runs);
                long.sums.prots += short.sums.prots;
                long.sums.reserved += short.sums.reserved;
                long.look_at_all_of(&short.runs);
            }
            (none @ None, short) => *none = short,
            (Some(_), None) => {}
        }
    }
    /// Checks U1, U2 and U4.
    pub(super) fn verify(&self) -> bool {
        self.0.as_ref().is_none_or(|noted| {
            let Noted { runs, sums, .. } = &**noted;
            !runs.is_plain() && runs.verify() && *sums == Sums::of(runs)
        })
    }
}
