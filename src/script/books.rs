//! What judges may make of the state that operations leave: the naive model, driven through all that was done, with notes kept beside it that it has
//! no use for itself. [`super::explained`] tells what for.

use std::collections::BTreeSet;
use std::ops::Range as Span;

use crate::model::{Attempt, Model, Page, Process};

use super::ast::{
    Addr, Advice, Inherit, Length, LockAll, Map, Operation, ProcRef, Range, RemapFlags, Share,
    Source,
};
use super::frames::{Frames, Handed, Place};
use super::outcome::{Errno, Outcome, PAGE_BYTES};
use super::run::{RunOptions, Runner, Silent};

/// The state that operations leave, and what judges may make of it.
pub(super) struct Books {
    pub(super) model: Runner<Model>,
    /// Pages of failed locks that nothing has unlocked since.
    pub(super) stuck: BTreeSet<Place>,
    /// Locked pages whose claims are gone, or never were: they lay past the end of their file.
    pub(super) lapsed: BTreeSet<Place>,
    /// Those of them that lay there when they were locked: another lock finds what has come there since, where one that was cut off counts as locked.
    missed: BTreeSet<Place>,
    /// Private memory for which nothing is reserved.
    unreserved: BTreeSet<Place>,
    /// Pages of it that somebody has touched, and so have bytes.
    touched: BTreeSet<Place>,
    /// Locked pages of it that nobody had touched when they were locked.
    pub(super) skipped: BTreeSet<Place>,
    /// Private pages that are one frame.
    pub(super) frames: Frames,
}

impl Books {
    pub(super) fn new() -> Books {
        Books {
            model: Runner::new(Model::new(), RunOptions::default()),
            stuck: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            missed: BTreeSet::new(),
            unreserved: BTreeSet::new(),
            touched: BTreeSet::new(),
            skipped: BTreeSet::new(),
            frames: Frames::default(),
        }
    }

    /// Notes what an operation changes. One that expects or shows something changes nothing.
    pub(super) fn enter(&mut self, operation: &Operation) {
        if !operation.has_outcome()
            && !matches!(operation, Operation::Arena(_) | Operation::Proc { .. })
        {
            return;
        }
        let walked: Vec<Place> = match operation {
            // A range that is no range of addresses is refused before any page is looked at.
            Operation::Lock(r) | Operation::Unlock(r) if !wraps(r) => {
                self.walked(r).map(|(place, _)| place).collect()
            }
            _ => Vec::new(),
        };
        let mut reached = self.touched_by(operation);
        let outcome = self.model.step(&operation.clone().into(), &mut Silent).ok().flatten();
        let done = outcome.is_some_and(|o| o.is_ok()) && outcome != Some(Outcome::MOVED);
        match operation {
            Operation::Lock(_) if outcome == Some(Errno::ENOMEM.into()) => {
                self.see_what_is_loaded(&walked);
                self.stuck.extend(walked)
            }
            Operation::Lock(_) if done => self.see_what_is_skipped(walked),
            Operation::Unlock(_) if outcome != Some(Errno::EINVAL.into()) => {
                walked.iter().for_each(|place| _ = self.stuck.remove(place));
            }
            Operation::LockAll(p, LockAll::Current | LockAll::Both) if done => {
                self.see_what_is_skipped(self.places_of(p));
            }
            Operation::UnlockAll(p) if done => {
                let slot = self.slot(p);
                self.stuck.retain(|(of, _)| Some(*of) != slot);
            }
            Operation::Map(map) if done => self.enter_map(map),
            Operation::Fork { parent, child } if done => self.enter_fork(parent, child),
            Operation::ShareRange { range, into, to } if done => {
                self.enter_share(range, into, *to);
            }
            Operation::Remap { range, new_len, flags, to } => {
                self.enter_remap(range, *new_len, *flags, to.filter(|_| done));
            }
            Operation::Advise(range, Advice::Discard | Advice::Drop) => self.see_what_goes(range),
            _ => {}
        }
        if let Operation::Fread(t) | Operation::Fwrite(t) = operation {
            // As far as there were bytes: a file that is not there, or ends, moves none. What meets a page that cannot be reached has moved those before.
            let moved = match outcome {
                Some(Outcome::Ok(f)) => f.n.unwrap_or(0),
                Some(Outcome::Errno(Errno::EFAULT)) => u64::MAX,
                _ => 0,
            };
            let addr = t.memory.range.addr.resolve(Model::LAYOUT);
            reached.retain(|(_, n)| moved != 0 && n * PAGE_BYTES < addr.saturating_add(moved));
        }
        if stores(operation) {
            for place in &reached {
                if self.page(place).is_some_and(|page| !page.shared) {
                    self.frames.store(*place);
                }
            }
        } else {
            self.see_what_is_loaded(&reached);
        }
        self.see_what_is_touched(&reached);
        self.touched.extend(reached);
        self.see_what_lapses();
    }

    fn enter_map(&mut self, map: &Map) {
        let over = Range { proc: map.proc.clone(), addr: map.addr, len: map.len };
        let (slot, pages) = (self.slot(&map.proc).unwrap_or(u32::MAX), pages_of(&over));
        self.forget(slot, &pages);
        let places: Vec<Place> = pages.map(|n| (slot, n)).collect();
        if map.flags.noreserve && map.share == Share::Private && map.source == Source::Anon {
            self.unreserved.extend(&places);
        }
        if map.flags.populate {
            self.touched.extend(&places);
            let read = places.iter().copied().filter(|place| self.can(place, Attempt::Load));
            self.see_what_is_loaded(&read.collect::<Vec<_>>());
        }
        self.see_what_is_skipped(places);
    }

    /// Whatever was in a place, something else is.
    fn forget(&mut self, slot: u32, pages: &Span<u64>) {
        for notes in self.notes() {
            notes.retain(|(of, n)| *of != slot || !pages.contains(n));
        }
        self.frames.forget(slot, pages);
    }

    fn notes(&mut self) -> [&mut BTreeSet<Place>; 6] {
        let Books { stuck, lapsed, missed, unreserved, touched, skipped, .. } = self;
        [stuck, lapsed, missed, unreserved, touched, skipped]
    }

    /// What is known of pages goes with them. `to` is where they went, if that is where somebody may look.
    fn enter_remap(&mut self, range: &Range, new_len: Length, flags: RemapFlags, to: Option<Addr>) {
        let (slot, old) = (self.slot(&range.proc).unwrap_or(u32::MAX), pages_of(range));
        let new = Range { addr: to.unwrap_or(range.addr), len: new_len, ..range.clone() };
        let new = pages_of(&new);
        let last = old.end.checked_sub(1).map(|n| (slot, n));
        let bare = last.is_some_and(|last| self.unreserved.contains(&last));
        if to.is_some() && flags.fixed {
            self.forget(slot, &new);
            let kept = old.start..old.end.min(old.start + (new.end - new.start));
            for notes in self.notes() {
                let gone: Vec<Place> =
                    notes.range((slot, kept.start)..(slot, kept.end)).copied().collect();
                gone.iter().for_each(|place| _ = notes.remove(place));
                notes.extend(gone.iter().map(|(_, n)| (slot, n - old.start + new.start)));
            }
            self.frames.shift(slot, &kept, new.start);
        } else if flags.dontunmap {
            self.forget(slot, &old);
        }
        // What stays in place, or is longer than it was, is like what was there.
        if bare {
            let all = new.chain(old).map(|n| (slot, n));
            self.unreserved.extend(all);
        }
    }

    /// Pages that are shown twice are touched, and past the end of their file, for both.
    fn enter_share(&mut self, range: &Range, into: &ProcRef, to: Addr) {
        let (from, into) = (self.slot(&range.proc), self.slot(into));
        let (Some(from), Some(into)) = (from, into) else { return };
        let first = to.resolve(Model::LAYOUT) / PAGE_BYTES;
        for (n, twin) in pages_of(range).zip(first..) {
            let (of, at) = ((from, n), (into, twin));
            if self.touched.contains(&of) {
                self.touched.insert(at);
            }
            if self.page(&of).is_some_and(|page| !page.shared) {
                self.frames.twin(of, at);
            }
        }
    }

    /// Private pages that have been read have frames, but for those that show a file.
    fn see_what_is_loaded(&mut self, places: &[Place]) {
        for place in places {
            if self.page(place).is_some_and(Page::is_private_anon) {
                self.frames.load(*place);
            }
        }
    }

    /// Private pages that are thrown away lose their frames, up to one that is locked.
    fn see_what_goes(&mut self, range: &Range) {
        let goes = self.walked(range).take_while(|(_, page)| !page.locked);
        let gone: Vec<Place> = goes.filter(|(_, page)| !page.shared).map(|(p, _)| p).collect();
        gone.into_iter().for_each(|place| self.frames.discard(place));
    }

    fn page(&self, (slot, n): &Place) -> Option<&Page> {
        self.model.world().processes().get(slot)?.pages().get(n)
    }

    /// A child has touched what its parent had, but for what it finds zeroed.
    fn enter_fork(&mut self, parent: &ProcRef, child: &ProcRef) {
        let (Some(parent), Some(child)) = (self.slot(parent), self.slot(child)) else { return };
        let pages = self.model.world().processes().get(&parent).map(|p| p.pages());
        let wiped = |n: &u64| {
            pages.and_then(|p| p.get(n)).is_some_and(|page| page.inherit == Some(Inherit::Zero))
        };
        let of_parent = |(of, n): &Place| (*of == parent).then_some(*n);
        let unreserved: Vec<Place> =
            self.unreserved.iter().filter_map(of_parent).map(|n| (child, n)).collect();
        let touched = self.touched.iter().filter_map(of_parent).filter(|n| !wiped(n));
        let touched: Vec<Place> = touched.map(|n| (child, n)).collect();
        self.unreserved.extend(unreserved);
        self.touched.extend(touched);
        let handed = |page: &Page| {
            if page.shared || page.inherit == Some(Inherit::Zero) {
                Handed::Nothing
            } else if page.is_handed_on() {
                Handed::Slot
            } else {
                Handed::Frame
            }
        };
        let handed = pages.into_iter().flatten().map(|(n, page)| ((parent, *n), handed(page)));
        let handed: Vec<(Place, Handed)> = handed.collect();
        handed.into_iter().for_each(|(place, what)| self.frames.fork(place, child, what));
    }

    /// Of pages that were to be locked, those with nothing to lock are noted; a lock of what was passed over earlier finds it now.
    fn see_what_is_skipped(&mut self, places: Vec<Place>) {
        let mut found = Vec::new();
        for place in places {
            let locked = self.page(&place).is_some_and(|p| p.locked);
            let past_end = self.page(&place).is_some_and(|p| self.model.world().is_past_end(p));
            if locked && past_end && !self.lapsed.contains(&place) {
                self.missed.insert(place);
            } else if locked && !past_end {
                // What is there is claimed, for the first time or again.
                self.missed.remove(&place);
                self.lapsed.remove(&place);
            }
            if locked && self.unreserved.contains(&place) && !self.touched.contains(&place) {
                self.skipped.insert(place);
            } else {
                self.skipped.remove(&place);
                if locked {
                    found.push(place);
                }
            }
        }
        self.see_what_is_loaded(&found);
    }

    /// What was passed over is locked when it is first touched, if all future memory is to be.
    fn see_what_is_touched(&mut self, reached: &[Place]) {
        let model = self.model.world();
        let future = |slot| model.processes().get(slot).is_some_and(Process::locks_what_is_touched);
        for place in reached.iter().filter(|(slot, _)| future(slot)) {
            self.skipped.remove(place);
        }
    }

    /// The pages of private memory that an operation loads from or stores to.
    fn touched_by(&self, operation: &Operation) -> Vec<Place> {
        let (range, attempt) = match operation {
            Operation::Read(a) => (&a.range, Attempt::Load),
            Operation::Write(a, _) => (&a.range, Attempt::Store),
            Operation::Fread(t) => (&t.memory.range, Attempt::Store),
            Operation::Fwrite(t) => (&t.memory.range, Attempt::Load),
            Operation::Advise(r, Advice::PopulateRead) => (r, Attempt::Load),
            Operation::Advise(r, Advice::PopulateWrite) => (r, Attempt::Store),
            Operation::Digest(p) => {
                let places = self.places_of(p).into_iter();
                return places.filter(|place| self.can(place, Attempt::Load)).collect();
            }
            _ => return Vec::new(),
        };
        let places = self.walked(range).map(|(place, _)| place);
        places.take_while(|place| self.can(place, attempt)).collect()
    }

    fn can(&self, place: &Place, attempt: Attempt) -> bool {
        self.model.world().reach(place.0, place.1 * PAGE_BYTES, attempt, 0).is_ok()
    }

    /// Every mapped page of a process.
    fn places_of(&self, proc: &ProcRef) -> Vec<Place> {
        let slot = self.slot(proc).unwrap_or(u32::MAX);
        let process = self.model.world().processes().get(&slot);
        process.into_iter().flat_map(|p| p.pages().keys()).map(|n| (slot, *n)).collect()
    }

    fn see_what_lapses(&mut self) {
        let model = self.model.world();
        let page_at =
            |(slot, n): &Place| model.processes().get(slot).and_then(|p| p.pages().get(n));
        let there = |place: &Place| page_at(place).is_some();
        self.stuck.retain(there);
        self.unreserved.retain(there);
        self.touched.retain(there);
        self.frames.retain(there);
        self.skipped.retain(|place| page_at(place).is_some_and(|page| page.locked));
        self.missed.retain(|place| page_at(place).is_some_and(|page| page.locked));
        // A claim comes back with a copy, which is claimed as it is made; one that never was does not.
        let (lapsed, missed) = (&mut self.lapsed, &self.missed);
        lapsed.retain(|place| {
            let comes_back = |page: &Page| model.is_copied(page) && !missed.contains(place);
            page_at(place).is_some_and(|page| page.locked && !comes_back(page))
        });
        for (slot, process) in model.processes() {
            let cut =
                process.pages().iter().filter(|(_, page)| page.locked && model.is_past_end(page));
            self.lapsed.extend(cut.map(|(n, _)| (*slot, *n)));
        }
    }

    pub(super) fn slot(&self, proc: &ProcRef) -> Option<u32> {
        match proc {
            ProcRef::Slot(n) => Some(*n),
            ProcRef::Name(name) => self.model.proc_slot(name).map(|slot| slot.0),
        }
    }

    /// The pages that an operation on a range walks.
    pub(super) fn walked(&self, range: &Range) -> impl Iterator<Item = (Place, &Page)> {
        let slot = self.slot(&range.proc).unwrap_or(u32::MAX);
        let process = self.model.world().processes().get(&slot);
        let numbers = pages_of(range);
        let first = numbers.start;
        let mapped = process.into_iter().flat_map(move |p| p.pages().range(numbers.clone()));
        let in_a_row = mapped.zip(first..).take_while(|((n, _), expected)| **n == *expected);
        in_a_row.map(move |((n, page), _)| ((slot, *n), page))
    }
}

/// The numbers of a range's pages.
fn pages_of(range: &Range) -> Span<u64> {
    let addr = range.addr.resolve(Model::LAYOUT);
    let end = addr.saturating_add(range.len.resolve(addr)).div_ceil(PAGE_BYTES);
    addr / PAGE_BYTES..end.max(addr / PAGE_BYTES)
}

/// Says whether a range, its length rounded up to whole pages, goes around the end of all addresses.
pub(super) fn wraps(range: &Range) -> bool {
    let addr = range.addr.resolve(Model::LAYOUT);
    let len = range.len.resolve(addr).checked_next_multiple_of(PAGE_BYTES);
    len.and_then(|len| addr.checked_add(len)).is_none()
}

/// An operation that stores to the pages it reaches.
fn stores(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Write(..) | Operation::Fread(_) | Operation::Advise(_, Advice::PopulateWrite)
    )
}
