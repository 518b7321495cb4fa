//! Values over ranges of page numbers, kept as runs: what would be an array of a segment's length takes space for its changes only.
//!
//! Most segments have no run, and most of the others one (a guard page, the page being written by a just-in-time compiler): these two
//! cases are kept in place and allocate nothing. From the second run on they stand in an ordered map.
//!
//! - U1: runs are disjoint, ascending, not empty; none carries the default value; neighbours that touch differ. A map has two runs at least.
//!
//! Keys are absolute (virtual page numbers, slot numbers), so trimming a segment moves nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Range;
use page_db::{PAGE_SIZE, VirtRange};

/// Virtual page numbers of a range.
pub fn vpns(range: VirtRange) -> Range<u64> {
    let first = range.start().vpn();
    first..first + range.pages().get()
}

/// The addresses of a run of virtual page numbers inside `whole`.
///
/// # Panics
/// When the run is empty or not inside `whole` (U2).
pub fn run_range(whole: VirtRange, run: &Range<u64>) -> VirtRange {
    let first = whole.page_at(run.start - whole.start().vpn());
    VirtRange::exact(first.get(), (run.end - run.start) * PAGE_SIZE)
        .expect("U2: part of a range is a range")
}

/// A map from page number to `V`, the default where nothing was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs<V> {
    default: V,
    held: Held<V>,
}

/// The runs: first number, end, value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held<V> {
    None,
    One(u64, u64, V),
    Many(BTreeMap<u64, (u64, V)>),
}

impl<V: Copy + Eq> Runs<V> {
    /// Everything is `default`.
    pub fn new(default: V) -> Self {
        Self { default, held: Held::None }
    }
    /// Whether everything is the default.
    pub fn is_plain(&self) -> bool {
        matches!(self.held, Held::None)
    }
    /// The value at `at`.
    pub fn get(&self, at: u64) -> V {
        let found = match &self.held {
            Held::None => None,
            Held::One(start, end, v) => (*start <= at && at < *end).then_some(*v),
            Held::Many(runs) => runs
                .range(..=at)
                .next_back()
                .filter(|(_, (end, _))| at < *end)
                .map(|(_, (_, v))| *v),
        };
        found.unwrap_or(self.default)
    }
    /// Calls `f` with the runs of `range`, defaults included, in order and without gaps, until it says no. Says whether it never did.
    fn visit(&self, range: Range<u64>, mut f: impl FnMut(Range<u64>, V) -> bool) -> bool {
        let mut at = range.start;
        let mut run = |start: u64, end: u64, v: V| {
            let (start, end) = (start.max(range.start), end.min(range.end));
            if start >= end {
                return true;
            }
            let before = core::mem::replace(&mut at, end)..start;
            (before.is_empty() || f(before, self.default)) && f(start..end, v)
        };
        let all = match &self.held {
            Held::None => true,
            Held::One(start, end, v) => run(*start, *end, *v),
            Held::Many(runs) => {
                let first = runs.range(..=range.start).next_back();
                let second = range.start.saturating_add(1);
                let later = runs.range(second..range.end.max(second));
                first.into_iter().chain(later).all(|(start, (end, v))| run(*start, *end, *v))
            }
        };
        all && (at >= range.end || f(at..range.end, self.default))
    }
    /// The runs of `range`, defaults included, in order and without gaps.
    pub fn iter(&self, range: Range<u64>) -> Vec<(Range<u64>, V)> {
        let mut out = Vec::new();
        self.visit(range, |r, v| {
            out.push((r, v));
            true
        });
        out
    }
    /// The runs that are not the default.
    pub(crate) fn held(&self) -> Vec<Range<u64>> {
        match &self.held {
            Held::None => Vec::new(),
            Held::One(start, end, _) => core::iter::once(*start..*end).collect(),
            Held::Many(runs) => runs.iter().map(|(start, (end, _))| *start..*end).collect(),
        }
    }
    /// Whether any run of `range` satisfies `test`.
    pub fn any(&self, range: Range<u64>, mut test: impl FnMut(V) -> bool) -> bool {
        !self.visit(range, |_, v| !test(v))
    }
    /// How many pages of `range` satisfy `test`.
    pub fn count(&self, range: Range<u64>, mut test: impl FnMut(V) -> bool) -> u64 {
        let mut n = 0;
        self.visit(range, |r, v| {
            n += if test(v) { r.end - r.start } else { 0 };
            true
        });
        n
    }
    /// Replaces each value `v` of `range` by `f(v)`.
    pub fn update(&mut self, range: Range<u64>, mut f: impl FnMut(V) -> V) {
        if range.start >= range.end {
            return;
        }
        match self.held {
            Held::None => self.hold(range, f(self.default)),
            // All of the only run changes, and nothing beside it.
            Held::One(start, end, v) if range == (start..end) => self.hold(range, f(v)),
            _ => self.update_map(range, f),
        }
    }
    /// Makes `range` the only run.
    fn hold(&mut self, range: Range<u64>, v: V) {
        let plain = v == self.default;
        self.held = if plain { Held::None } else { Held::One(range.start, range.end, v) };
    }
    fn update_map(&mut self, range: Range<u64>, mut f: impl FnMut(V) -> V) {
        let changed: Vec<_> =
            self.iter(range.clone()).into_iter().map(|(r, v)| (r, f(v))).collect();
        let mut runs = match core::mem::replace(&mut self.held, Held::None) {
            Held::None => BTreeMap::new(),
            Held::One(start, end, v) => BTreeMap::from([(start, (end, v))]),
            Held::Many(runs) => runs,
        };
        cut(&mut runs, range.start);
        cut(&mut runs, range.end);
        let gone: Vec<u64> = runs.range(range.clone()).map(|(s, _)| *s).collect();
        for s in gone {
            runs.remove(&s);
        }
        for (r, v) in changed {
            if v != self.default {
                runs.insert(r.start, (r.end, v));
            }
        }
        join(&mut runs, range);
        self.held = match runs.first_key_value().map(|(start, (end, v))| (*start, *end, *v)) {
            Some((start, end, v)) if runs.len() == 1 => Held::One(start, end, v),
            Some(_) => Held::Many(runs),
            None => Held::None,
        };
    }
    /// Sets `range` to `value`.
    pub fn set(&mut self, range: Range<u64>, value: V) {
        self.update(range, |_| value);
    }
    /// Puts everything of `other` that is not the default into this map.
    pub fn absorb(&mut self, other: &Self) {
        match &other.held {
            Held::None => {}
            Held::One(start, end, v) => self.set(*start..*end, *v),
            Held::Many(runs) => {
                runs.iter().for_each(|(start, (end, v))| self.set(*start..*end, *v))
            }
        }
    }
    /// Checks U1.
    pub fn verify(&self) -> bool {
        let runs = match &self.held {
            Held::None => return true,
            Held::One(start, end, v) => return start < end && *v != self.default,
            Held::Many(runs) => runs,
        };
        let mut last: Option<(u64, V)> = None;
        runs.len() > 1
            && runs.iter().all(|(s, (e, v))| {
                let ok = s < e
                    && *v != self.default
                    && last.is_none_or(|(end, prev)| end < *s || (end == *s && prev != *v));
                last = Some((*e, *v));
                ok
            })
    }
}

/// Splits the run around `at`, if one spans it.
fn cut<V: Copy>(runs: &mut BTreeMap<u64, (u64, V)>, at: u64) {
    let spanning = runs
        .range(..at)
        .next_back()
        .filter(|(_, (end, _))| *end > at)
        .map(|(s, (e, v))| (*s, *e, *v));
    if let Some((start, end, v)) = spanning {
        runs.insert(start, (at, v));
        runs.insert(at, (end, v));
    }
}

/// Joins equal runs that touch, inside and at the ends of `range`.
fn join<V: Copy + Eq>(runs: &mut BTreeMap<u64, (u64, V)>, range: Range<u64>) {
    let mut at = runs.range(..range.start).next_back().map_or(range.start, |(s, _)| *s);
    while let Some((start, (end, v))) = runs.range(at..).next().map(|(s, r)| (*s, *r)) {
        if start > range.end {
            break;
        }
        match runs.get(&end).copied() {
            Some((next_end, next)) if next == v => {
                runs.remove(&end);
                runs.insert(start, (next_end, v));
                at = start;
            }
            _ => at = start + 1,
        }
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
