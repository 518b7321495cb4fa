//! Values over ranges of page numbers, kept as runs: what would be an array of a segment's length takes space for its changes only.
//!
//! # The difficulty
//!
//! Most segments have no run, and most of the others one (a guard page, the page being written by a just-in-time compiler). But a program may
//! have as many as it has pages, so that a change must find its place in a million of them, and may want memory that is not there; and it
//! comes in the middle of operations that must not fail half done.
//!
//! # The rule
//!
//! None and one are kept in place and allocate nothing. From the second run on they stand in order in blocks of up to 64, so a change moves
//! two kilobytes, and looks for its place twice by halving.
//!
//! ```text
//!   blocks   [ 10..12 a | 20..21 b | ... ] ─▶ [ 700..701 a | ... ] ─▶ ...      a full block gives its upper half to a new one, an empty one goes
//!   spare    [             ] [             ]                                   from make_room to trim: what splits will want
//! ```
//!
//! An operation calls [`Runs::make_room`] while it can still fail; what it changes afterwards finds the room there, and [`Runs::trim`] gives back what is
//! left of it. Whoever only looks walks run by run, without a copy.
//!
//! - U1: runs are disjoint, ascending, not empty; none carries the default value; neighbours that touch differ.
//! - U3: after [`Runs::make_room`] of a range, two changes of it, or of parts that begin and end with runs, ask the heap for nothing; nor, after
//!   [`Runs::make_room_for`], does what it was made for.
//!
//! Keys are absolute (virtual page numbers, slot numbers), so trimming a segment moves nothing.
//!
//! # The other road
//!
//! An ordered map of the standard library finds its place as fast and needs half the code; it ends the program when the heap refuses a node.

mod store;

use core::ops::Range;
use page_db::heap::NoHeap;
use page_db::{PAGE_SIZE, VirtRange};
use store::{At, Run, Store};

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
#[derive(Debug)]
pub struct Runs<V> {
    default: V,
    held: Held<V>,
}

/// The runs.
#[derive(Debug)]
enum Held<V> {
    None,
    One(Run<V>),
    /// Any number, while there is room that was made; else two at least.
    Many(Store<V>),
}

impl<V: Copy + Eq> Runs<V> {
    /// Everything is `default`.
    pub const fn new(default: V) -> Self {
        Self { default, held: Held::None }
    }
    /// `range` is `v`, the rest `default`.
    pub fn of(default: V, range: Range<u64>, v: V) -> Self {
        let mut runs = Self::new(default);
        if range.start < range.end {
            runs.hold(range, v);
        }
        runs
    }
    /// Whether everything is the default.
    pub fn is_plain(&self) -> bool {
        match &self.held {
            Held::None => true,
            Held::One(_) => false,
            Held::Many(runs) => runs.is_empty(),
        }
    }
    /// In how many blocks the runs stand: how long they are, told without looking at one.
    pub fn blocks(&self) -> usize {
        match &self.held {
            Held::None => 0,
            Held::One(_) => 1,
            Held::Many(runs) => runs.blocks(),
        }
    }
    /// Where the first run is that ends behind `at`.
    fn seek(&self, at: u64) -> At {
        match &self.held {
            Held::None => (0, 0),
            Held::One(run) => (0, usize::from(run.end <= at)),
            Held::Many(runs) => runs.seek(at),
        }
    }
    fn run_at(&self, place: At) -> Option<Run<V>> {
        match &self.held {
            Held::None => None,
            Held::One(run) => (place == (0, 0)).then_some(*run),
            Held::Many(runs) => runs.get(place),
        }
    }
    fn after(&self, (block, i): At) -> At {
        if let Held::Many(runs) = &self.held { runs.after((block, i)) } else { (block, i + 1) }
    }
    /// The value at `at`.
    pub fn get(&self, at: u64) -> V {
        self.run_at(self.seek(at)).filter(|run| run.start <= at).map_or(self.default, |run| run.v)
    }
    /// The run, or the gap between runs, with which `range` begins, as far as it lies in `range`; for walks with changes between the steps.
    pub fn first_of(&self, range: Range<u64>) -> (Range<u64>, V) {
        self.first_from(self.seek(range.start), range)
    }
    /// The same, of the first run that ends behind the start of `range`, or of the gap before it.
    fn first_from(&self, place: At, range: Range<u64>) -> (Range<u64>, V) {
        match self.run_at(place) {
            Some(run) if run.start <= range.start => (range.start..run.end.min(range.end), run.v),
            Some(run) => (range.start..run.start.min(range.end), self.default),
            None => (range, self.default),
        }
    }
    /// The runs of `range`, defaults included, in order and without gaps.
    pub fn iter(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, V)> {
        let (mut rest, mut place) = (range.clone(), self.seek(range.start));
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (run, v) = self.first_from(place, rest.clone());
            if v != self.default {
                place = self.after(place);
            }
            rest.start = run.end;
            Some((run, v))
        })
    }
    /// Calls `f` with what [`Runs::iter`] says of `range` until it says no, and says whether it never did: a loop without steps for none and one.
    #[inline]
    fn visit(&self, range: Range<u64>, mut f: impl FnMut(Range<u64>, V) -> bool) -> bool {
        if range.is_empty() {
            return true;
        }
        match &self.held {
            Held::None => f(range, self.default),
            Held::One(run) => {
                let start = run.start.clamp(range.start, range.end);
                let end = run.end.clamp(start, range.end);
                (range.start == start || f(range.start..start, self.default))
                    && (start == end || f(start..end, run.v))
                    && (end == range.end || f(end..range.end, self.default))
            }
            Held::Many(_) => self.iter(range).all(|(run, v)| f(run, v)),
        }
    }
    /// The runs that are not the default.
    pub(crate) fn held(&self) -> impl Iterator<Item = Range<u64>> {
        self.each().map(|run| run.start..run.end)
    }
    fn each(&self) -> impl Iterator<Item = &Run<V>> {
        let (one, many) = match &self.held {
            Held::None => (None, None),
            Held::One(run) => (Some(run), None),
            Held::Many(runs) => (None, Some(runs)),
        };
        one.into_iter().chain(many.into_iter().flat_map(Store::iter))
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
    /// Makes room for two changes of `range` or of parts of it that begin and end with runs (U3).
    ///
    /// # Errors
    /// [`NoHeap`]; no value has changed.
    pub fn make_room(&mut self, range: Range<u64>) -> Result<(), NoHeap> {
        match &mut self.held {
            Held::None => Ok(()),
            Held::One(run) if range == (run.start..run.end) => Ok(()),
            Held::One(run) => {
                let mut store = Store::new();
                store.try_push(*run)?;
                store.make_room(&range)?;
                self.held = Held::Many(store);
                Ok(())
            }
            Held::Many(runs) => runs.make_room(&range),
        }
    }
    /// Replaces each value `v` of `range` by `f(v)`.
    pub fn update(&mut self, range: Range<u64>, mut f: impl FnMut(V) -> V) {
        self.update_runs(range, |_, v| f(v));
    }
    /// The same, and `f` is told how many pages in a row have the value: each page of `range` is among them once.
    pub fn update_runs(&mut self, range: Range<u64>, mut f: impl FnMut(u64, V) -> V) {
        let pages = range.end.saturating_sub(range.start);
        if range.start >= range.end {
            return;
        }
        match &mut self.held {
            Held::None => {
                let v = f(pages, self.default);
                self.hold(range, v);
            }
            // All of the only run changes, and nothing beside it.
            Held::One(run) if range == (run.start..run.end) => {
                let v = f(pages, run.v);
                self.hold(range, v);
            }
            Held::One(run) => {
                let run = *run;
                let mut store = Store::new();
                store.insert((0, 0), run);
                self.update_store(store, range, f);
            }
            Held::Many(runs) => {
                let store = core::mem::replace(runs, Store::new());
                self.update_store(store, range, f);
            }
        }
    }
    /// Makes `range` the only run.
    fn hold(&mut self, range: Range<u64>, v: V) {
        let plain = v == self.default;
        let run = Run { start: range.start, end: range.end, v };
        self.held = if plain { Held::None } else { Held::One(run) };
    }
    fn update_store(
        &mut self,
        mut runs: Store<V>,
        range: Range<u64>,
        mut f: impl FnMut(u64, V) -> V,
    ) {
        cut(&mut runs, range.start);
        cut(&mut runs, range.end);
        let mut at = range.start;
        while at < range.end {
            let place = runs.seek(at);
            match runs.get(place).filter(|run| run.start < range.end) {
                Some(run) if run.start == at => {
                    let v = f(run.end - at, run.v);
                    at = run.end;
                    match v == self.default {
                        true => runs.remove(place),
                        false => runs.set(place, Run { v, ..run }),
                    }
                }
                next => {
                    let end = next.map_or(range.end, |run| run.start);
                    let v = f(end - at, self.default);
                    if v != self.default {
                        runs.insert(place, Run { start: at, end, v });
                    }
                    at = end;
                }
            }
        }
        join(&mut runs, &range);
        self.held = if runs.is_roomy() { Held::Many(runs) } else { in_place(runs) };
    }
    /// Sets `range` to `value`.
    pub fn set(&mut self, range: Range<u64>, value: V) {
        self.update(range, |_| value);
    }
    /// The runs of `range`, and defaults beside it.
    ///
    /// # Errors
    /// [`NoHeap`].
    pub fn part(&self, range: Range<u64>) -> Result<Self, NoHeap> {
        let mut store = Store::new();
        for (run, v) in self.iter(range).filter(|(_, v)| *v != self.default) {
            store.try_push(Run { start: run.start, end: run.end, v })?;
        }
        Ok(Self { default: self.default, held: in_place(store) })
    }
    /// Makes room for [`Runs::absorb`], and for a change of `forgotten` to the default besides.
    ///
    /// # Errors
    /// [`NoHeap`]; no value has changed.
    pub fn make_room_for(&mut self, other: &Self, forgotten: Range<u64>) -> Result<(), NoHeap> {
        let Some(first) = other.each().next() else {
            return if forgotten.is_empty() { Ok(()) } else { self.make_room(forgotten) };
        };
        let cuts = if forgotten.is_empty() { 0 } else { 2 };
        let places = [first.start, forgotten.start, forgotten.end];
        let n = other.each().count() + cuts;
        let mut store = Store::new();
        match &mut self.held {
            Held::Many(store) => return store.make_room_at(&places[..=cuts], n),
            Held::One(run) => store.try_push(*run)?,
            Held::None => {}
        }
        store.make_room_at(&places[..=cuts], n)?;
        self.held = Held::Many(store);
        Ok(())
    }
    /// Puts everything of `other` that is not the default into this map; nothing of this map lies between.
    pub fn absorb(&mut self, other: &Self) {
        other.each().for_each(|run| self.set(run.start..run.end, run.v));
    }
    /// All that is kept lies as far up, or down, as `to` is from `from`.
    pub fn shift(&mut self, from: u64, to: u64) {
        let moved = |at: u64| at.wrapping_sub(from).wrapping_add(to);
        let shift = |run: &mut Run<V>| (run.start, run.end) = (moved(run.start), moved(run.end));
        match &mut self.held {
            Held::None => {}
            Held::One(run) => shift(run),
            Held::Many(runs) => runs.iter_mut().for_each(shift),
        }
    }
    /// Lets go of room that was made and is not needed.
    pub fn trim(&mut self) {
        if let Held::Many(runs) = &mut self.held {
            runs.trim();
            self.held = in_place(core::mem::replace(runs, Store::new()));
        }
    }
    /// Checks U1.
    pub fn verify(&self) -> bool {
        let mut last: Option<(u64, V)> = None;
        let blocks = match &self.held {
            Held::Many(runs) => runs.verify(),
            _ => true,
        };
        blocks
            && self.each().all(|run| {
                let apart = |(end, v)| end < run.start || (end == run.start && v != run.v);
                let ok = run.start < run.end && run.v != self.default && last.is_none_or(apart);
                last = Some((run.end, run.v));
                ok
            })
    }
}

/// None and one in place.
fn in_place<V: Copy>(runs: Store<V>) -> Held<V> {
    match runs.only() {
        Some(run) => Held::One(run),
        None if runs.is_empty() => Held::None,
        None => Held::Many(runs),
    }
}

/// Splits the run around `at`, if one spans it.
fn cut<V: Copy>(runs: &mut Store<V>, at: u64) {
    let place: At = runs.seek(at);
    if let Some(run) = runs.get(place).filter(|run| run.start < at) {
        runs.set(place, Run { start: at, ..run });
        runs.insert(place, Run { end: at, ..run });
    }
}

/// Joins equal runs that touch, inside and at the ends of `range`.
fn join<V: Copy + Eq>(runs: &mut Store<V>, range: &Range<u64>) {
    let mut place = runs.seek(range.start.saturating_sub(1));
    while let Some(run) = runs.get(place).filter(|run| run.start < range.end) {
        let after = runs.after(place);
        match runs.get(after) {
            Some(next) if next.start == run.end && next.v == run.v => {
                runs.set(place, Run { end: next.end, ..run });
                runs.remove(after);
            }
            _ => place = after,
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
            if next(2) == 0 {
                runs.make_room(a..b).expect("heap");
            }
            let mut told = 0;
            runs.update_runs(a..b, |pages, old| {
                told += pages;
                if v == 2 { 1 - old.min(1) } else { v }
            });
            assert_eq!(told, b - a, "each page once");
            for x in &mut array[a as usize..b as usize] {
                *x = if v == 2 { 1 - (*x).min(1) } else { v };
            }
            assert!(runs.verify(), "U1 after {a}..{b} = {v}: {runs:?}");
            for (i, x) in array.iter().enumerate() {
                assert_eq!(runs.get(i as u64), *x, "at {i}");
            }
            let total: u64 = runs.iter(3..60).map(|(r, _)| r.end - r.start).sum();
            assert_eq!(total, 57);
            assert_eq!(
                runs.count(0..64, |v| v == 1),
                array.iter().filter(|v| **v == 1).count() as u64
            );
        }
    }
}
