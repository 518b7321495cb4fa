//! What one page of a segment may have of its own, and where it is kept.

use crate::runs::Runs;
use addr_space::{Advice, Inherit};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use page_db::Prot;

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
#[derive(Clone, Debug, Default)]
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
    pub(super) fn iter(&self, range: Range<u64>) -> Vec<(Range<u64>, VPage)> {
        match &self.0 {
            Some(runs) => runs.iter(range),
            None => Vec::from([(range, VPage::PLAIN)]),
        }
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
    /// The same for as many pages from `to` on as `from` has.
    pub(super) fn shifted(&self, from: Range<u64>, to: u64) -> Self {
        let mut moved = Self::default();
        let base = from.start;
        for (run, v) in self.iter(from) {
            moved.set(run.start - base + to..run.end - base + to, v);
        }
        moved
    }
    /// Takes over what another segment's pages have of their own.
    pub(super) fn absorb(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (Some(own), Some(theirs)) => own.absorb(theirs),
            (own @ None, theirs) => own.clone_from(theirs),
            (Some(_), None) => {}
        }
    }
    /// Checks U1 and U2.
    pub(super) fn verify(&self) -> bool {
        self.0.as_ref().is_none_or(|runs| !runs.is_plain() && runs.verify())
    }
}
