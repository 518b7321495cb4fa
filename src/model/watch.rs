//! Watched bytes: an access stops before the first of them, or behind them.
//!
//! A page of which nothing may be loaded is SIGBUS to whoever looks at it, as a script's digest does: it says what a load gives, and a trap is neither a
//! page nor a hole.

use crate::script::ast::WatchFor;
use crate::script::outcome::{Errno, Outcome, PAGE_BYTES, TrapCode};
use crate::script::world::Region;

use super::calls::Answer;
use super::{Attempt, Model, Process, USER_TOP};

/// Watched bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    start: u64,
    len: u64,
    what: WatchFor,
}

/// Where an access meets a watch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// Bytes that are moved all the same.
    pub(super) through: u64,
    /// What the process hears.
    code: TrapCode,
}

impl Hit {
    /// What an access answers that was `done` before this page.
    pub(super) fn trap(&self, done: u64) -> Outcome {
        Outcome::Trap { at: done + self.through, code: self.code }
    }
}

impl Watch {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
    fn waits_for(&self, attempt: Attempt) -> bool {
        match attempt {
            Attempt::Load => self.what.read,
            Attempt::Store => self.what.write,
            Attempt::Fetch => self.what.exec,
        }
    }
}

impl Process {
    pub(super) fn watch(&mut self, region: Region, what: WatchFor) -> Answer {
        check(region)?;
        let new = Watch { start: region.addr, len: region.len, what };
        let is_same = |w: &Watch| (w.start, w.len) == (new.start, new.len);
        let meets = |w: &&Watch| w.start < new.end() && new.start < w.end();
        if self.watches.iter().find(meets).is_some_and(|w| !is_same(w)) {
            return Err(Errno::EINVAL);
        }
        self.watches.retain(|w| !is_same(w));
        self.watches.push(new);
        self.watches.sort_by_key(|w| w.start);
        Ok(Outcome::OK)
    }

    pub(super) fn unwatch(&mut self, region: Region) -> Answer {
        check(region)?;
        let before = self.watches.len();
        self.watches.retain(|w| (w.start, w.len) != (region.addr, region.len));
        if self.watches.len() < before { Ok(Outcome::OK) } else { Err(Errno::ESRCH) }
    }
}

impl Model {
    /// The watches there are: whose, their first byte, and how many bytes.
    pub fn watched(&self) -> Vec<(u32, u64, u64)> {
        let of = |(slot, p): (&u32, &Process)| {
            let slot = *slot;
            p.watches.iter().map(move |w| (slot, w.start, w.len)).collect::<Vec<_>>()
        };
        self.procs.iter().flat_map(of).collect()
    }

    /// Whether a store to all of a page, by its number, would stop.
    pub fn is_watched_page(&self, proc: u32, page: u64) -> bool {
        self.hit(proc, page * PAGE_BYTES, PAGE_BYTES, Attempt::Store).is_some()
    }

    /// Where an access of `len` bytes within a page meets a watch that waits for it, first.
    pub(super) fn hit(&self, proc: u32, addr: u64, len: u64, attempt: Attempt) -> Option<Hit> {
        let watches = self.procs.get(&proc)?.watches.iter();
        let end = addr.saturating_add(len);
        let mut met = watches.filter(|w| w.start < end && addr < w.end() && w.waits_for(attempt));
        let first = met.next()?;
        let before = first.start.max(addr) - addr;
        let through = if first.what.after { end.min(first.end()) - addr } else { before };
        let code = match attempt {
            Attempt::Load => TrapCode::Rwatch,
            Attempt::Store => TrapCode::Wwatch,
            Attempt::Fetch => TrapCode::Xwatch,
        };
        Some(Hit { through, code })
    }

    /// Whether a page could not be looked at, or not be stored to at its first byte.
    pub(super) fn is_watched(&self, proc: u32, addr: u64, attempt: Attempt) -> bool {
        let len = if attempt == Attempt::Store { 1 } else { PAGE_BYTES };
        self.hit(proc, addr, len, attempt).is_some()
    }
}

fn check(region: Region) -> Result<(), Errno> {
    let end = region.addr.checked_add(region.len).filter(|end| *end <= USER_TOP);
    if region.len == 0 || end.is_none() { Err(Errno::EINVAL) } else { Ok(()) }
}
