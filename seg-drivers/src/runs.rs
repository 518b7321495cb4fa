//! Values over ranges of page numbers, kept as runs: what would be an array of a segment's length takes space for its changes only.
//!
//! - U1: runs are disjoint, ascending, not empty; none carries the default value; neighbours that touch differ.
//!
//! Keys are absolute (virtual page numbers, slot numbers), so trimming a segment moves nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use page_db::{PAGE_SIZE, VirtRange};

/// Virtual page numbers of a range.
pub(crate) fn vpns(range: VirtRange) -> Range<u64> {
    let first = range.start().vpn();
    first..first + range.pages().get()
}

/// The addresses of a run of virtual page numbers inside `whole`.
pub(crate) fn run_range(whole: VirtRange, run: &Range<u64>) -> VirtRange {
    let first = whole.page_at(run.start - whole.start().vpn());
    VirtRange::exact(first.get(), (run.end - run.start) * PAGE_SIZE)
        .expect("U2: part of a range is a range")
}

/// A map from page number to `V`, the default where nothing was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs<V> {
    default: V,
    runs: BTreeMap<u64, (u64, V)>,
}

impl<V: Copy + Eq> Runs<V> {
    /// Everything is `default`.
    pub fn new(default: V) -> Self {
        Self { default, runs: BTreeMap::new() }
    }
    /// Whether everything is the default.
    pub fn is_plain(&self) -> bool {
        self.runs.is_empty()
    }
    /// The value at `at`.
    pub fn get(&self, at: u64) -> V {
        match self.runs.range(..=at).next_back() {
            Some((_, (end, v))) if at < *end => *v,
            _ => self.default,
        }
    }
    /// The runs of `range`, defaults included, in order and without gaps.
    pub fn iter(&self, range: Range<u64>) -> Vec<(Range<u64>, V)> {
        let mut out: Vec<(Range<u64>, V)> = Vec::new();
        let mut push = |r: Range<u64>, v: V| {
            if r.start < r.end {
                out.push((r, v));
            }
        };
        let first =
            self.runs.range(..=range.start).next_back().filter(|(_, (end, _))| *end > range.start);
        let mut at = range.start;
        let later = self
            .runs
            .range(range.start.saturating_add(1)..range.end.max(range.start.saturating_add(1)));
        for (start, (end, v)) in first.into_iter().chain(later) {
            let (s, e) = ((*start).max(range.start), (*end).min(range.end));
            push(at..s, self.default);
            push(s..e, *v);
            at = e;
        }
        push(at..range.end, self.default);
        out
    }
    /// Whether any run of `range` satisfies `test`.
    pub fn any(&self, range: Range<u64>, mut test: impl FnMut(V) -> bool) -> bool {
        self.iter(range).into_iter().any(|(_, v)| test(v))
    }
    /// How many pages of `range` satisfy `test`.
    pub fn count(&self, range: Range<u64>, mut test: impl FnMut(V) -> bool) -> u64 {
        self.iter(range).into_iter().filter(|(_, v)| test(*v)).map(|(r, _)| r.end - r.start).sum()
    }
    /// Replaces each value `v` of `range` by `f(v)`.
    pub fn update(&mut self, range: Range<u64>, mut f: impl FnMut(V) -> V) {
        if range.start >= range.end {
            return;
        }
        let changed: Vec<_> =
            self.iter(range.clone()).into_iter().map(|(r, v)| (r, f(v))).collect();
        self.cut(range.start);
        self.cut(range.end);
        let gone: Vec<u64> = self.runs.range(range.clone()).map(|(s, _)| *s).collect();
        for s in gone {
            self.runs.remove(&s);
        }
        for (r, v) in changed {
            if v != self.default {
                self.runs.insert(r.start, (r.end, v));
            }
        }
        self.join(range);
    }
    /// Sets `range` to `value`.
    pub fn set(&mut self, range: Range<u64>, value: V) {
        self.update(range, |_| value);
    }
    /// Puts everything of `other` that is not the default into this map.
    pub fn absorb(&mut self, other: &Self) {
        for (start, (end, v)) in &other.runs {
            self.set(*start..*end, *v);
        }
    }
    /// Splits the run around `at`, if one spans it.
    fn cut(&mut self, at: u64) {
        let spanning = self
            .runs
            .range(..at)
            .next_back()
            .filter(|(_, (end, _))| *end > at)
            .map(|(s, (e, v))| (*s, *e, *v));
        if let Some((start, end, v)) = spanning {
            self.runs.insert(start, (at, v));
            self.runs.insert(at, (end, v));
        }
    }
    /// Joins equal runs that touch, inside and at the ends of `range`.
    fn join(&mut self, range: Range<u64>) {
        let mut at = self.runs.range(..range.start).next_back().map_or(range.start, |(s, _)| *s);
        while let Some((start, (end, v))) = self.runs.range(at..).next().map(|(s, r)| (*s, *r)) {
            if start > range.end {
                break;
            }
            match self.runs.get(&end).copied() {
                Some((next_end, next)) if next == v => {
                    self.runs.remove(&end);
                    self.runs.insert(start, (next_end, v));
                    at = start;
                }
                _ => at = start + 1,
            }
        }
    }
    /// Checks U1.
    pub fn verify(&self) -> bool {
        let mut last: Option<(u64, V)> = None;
        self.runs.iter().all(|(s, (e, v))| {
            let ok = s < e
                && *v != self.default
                && last.is_none_or(|(end, prev)| end < *s || (end == *s && prev != *v));
            last = Some((*e, *v));
            ok
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_agree_with_an_array() {
        let mut runs = Runs::new(0u8);
        let mut array = [0u8; 64];
        let mut seed = 7u64;
        let mut next = |n: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        for _ in 0..4000 {
            let a = next(64);
            let b = a + next(65 - a);
            let v = next(3) as u8;
            runs.update(a..b, |old| if v == 2 { 1 - old.min(1) } else { v });
            for x in &mut array[a as usize..b as usize] {
                *x = if v == 2 { 1 - (*x).min(1) } else { v };
            }
            assert!(runs.verify(), "U1 after {a}..{b} = {v}: {runs:?}");
            for (i, x) in array.iter().enumerate() {
                assert_eq!(runs.get(i as u64), *x, "at {i}");
            }
            let total: u64 = runs.iter(3..60).iter().map(|(r, _)| r.end - r.start).sum();
            assert_eq!(total, 57);
            assert_eq!(
                runs.count(0..64, |v| v == 1),
                array.iter().filter(|v| **v == 1).count() as u64
            );
        }
    }
}
