//! What one page of a segment may have of its own, and where it is kept.

use crate::runs::Runs;
use addr_space::{Advice, Inherit};
use alloc::boxed::Box;
use core::ops::Range;
use page_db::Prot;
use page_db::heap::NoHeap;

/// Per-page state, kept as runs. The default says "as the segment".
#[doc(alias = "struct vpage")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VPage {
    /// Rights, where they differ from the segment's.
    pub prot: Option<Prot>,
    /// Advice, where it differs from the segment's.
    pub advice: Option<Advice>,
    /// Locked in memory by this mapping (`PPLOCK`).
    pub locked: bool,
    /// Swap for this page is reserved, in segments that reserve page by page (`SWAPRES`).
    pub reserved: bool,
    /// What a forked child finds (`INHZERO` is one of them), where that is not what the mapping's kind says.
    pub inherit: Option<Inherit>,
}

impl VPage {
    /// As the segment.
    pub const PLAIN: Self =
        Self { prot: None, advice: None, locked: false, reserved: false, inherit: None };
}

/// The per-page state of a segment, by virtual page number. Nearly every segment has none: it pays for a pointer only.
///
/// - U2: what is there is not plain.
#[derive(Debug, Default)]
pub(super) struct VPages(Option<Box<Runs<VPage>>>);

impl VPages {
    /// Whether every page is as the segment.
    pub(super) fn is_plain(&self) -> bool {
        self.0.is_none()
    }
    /// The state of page `at`.
    pub(super) fn get(&self, at: u64) -> VPage {
        self.0.as_ref().map_or(VPage::PLAIN, |runs| runs.get(at))
    }
    /// The runs of `range`, in order and without gaps.
    pub(super) fn iter(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, VPage)> {
        let plain = (self.is_plain() && !range.is_empty()).then(|| (range.clone(), VPage::PLAIN));
        plain.into_iter().chain(self.0.iter().flat_map(move |runs| runs.iter(range.clone())))
    }
    /// The run with which `range` begins; for walks with changes between the steps.
    pub(super) fn first_of(&self, range: Range<u64>) -> (Range<u64>, VPage) {
        match &self.0 {
            Some(runs) => runs.first_of(range),
            None => (range, VPage::PLAIN),
        }
    }
    /// Makes room for two changes of `range` (U3).
    pub(super) fn make_room(&mut self, range: Range<u64>) -> Result<(), NoHeap> {
        self.0.as_mut().map_or(Ok(()), |runs| runs.make_room(range))
    }
    /// Whether any page of `range` satisfies `test`.
    pub(super) fn any(&self, range: Range<u64>, mut test: impl FnMut(VPage) -> bool) -> bool {
        match &self.0 {
            Some(runs) => runs.any(range, test),
            None => test(VPage::PLAIN),
        }
    }
    /// How many pages of `range` satisfy `test`.
    pub(super) fn count(&self, range: Range<u64>, mut test: impl FnMut(VPage) -> bool) -> u64 {
        match &self.0 {
            Some(runs) => runs.count(range, test),
            None if test(VPage::PLAIN) => range.end - range.start,
            None => 0,
        }
    }
    /// Replaces the state of each page of `range`.
    pub(super) fn update(&mut self, range: Range<u64>, mut f: impl FnMut(VPage) -> VPage) {
        if self.is_plain() && f(VPage::PLAIN) == VPage::PLAIN {
            return;
        }
        let runs = self.0.get_or_insert_with(|| Box::new(Runs::new(VPage::PLAIN)));
        runs.update(range, f);
        if runs.is_plain() {
            self.0 = None;
        }
    }
    /// Sets `range` to `value`.
    pub(super) fn set(&mut self, range: Range<u64>, value: VPage) {
        self.update(range, |_| value);
    }
    /// All that is kept lies as far up, or down, as `to` is from `from`.
    pub(super) fn shift(&mut self, from: u64, to: u64) {
        if let Some(runs) = &mut self.0 {
            runs.shift(from, to);
        }
    }
    /// Lets go of room that was made and is not needed.
    pub(super) fn trim(&mut self) {
        if let Some(runs) = &mut self.0 {
            runs.trim();
        }
    }
    /// A copy of the state of `range`, beside which all is plain.
    pub(super) fn part(&self, range: Range<u64>) -> Result<Self, NoHeap> {
        let Some(runs) = &self.0 else { return Ok(Self(None)) };
        let part = runs.part(range)?;
        Ok(Self((!part.is_plain()).then(|| Box::new(part))))
    }
    /// The same where nothing may fail: the heap must give it.
    pub(super) fn copy(&self, range: Range<u64>) -> Self {
        let mut copy = Self::default();
        self.iter(range).for_each(|(run, v)| copy.set(run, v));
        copy
    }
    /// Makes room for [`VPages::absorb`].
    pub(super) fn make_room_for(&mut self, other: &Self) -> Result<(), NoHeap> {
        match (&mut self.0, &other.0) {
            (Some(own), Some(theirs)) => own.make_room_for(theirs),
            _ => Ok(()),
        }
    }
    /// Takes over what another segment's pages have of their own.
    pub(super) fn absorb(&mut self, other: Self) {
        match (&mut self.0, other.0) {
            (Some(own), Some(theirs)) => own.absorb(&theirs),
            (own @ None, theirs) => *own = theirs,
            (Some(_), None) => {}
        }
    }
    /// Checks U1 and U2.
    pub(super) fn verify(&self) -> bool {
        self.0.as_ref().is_none_or(|runs| !runs.is_plain() && runs.verify())
    }
}
