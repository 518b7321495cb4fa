//! A range shown a second time: records of pages that have one place for their bytes together.

use crate::script::outcome::{Errno, Outcome, PAGE_BYTES};
use crate::script::world::{ProcSlot, Region};

use super::calls::{Answer, checked_end};
use super::{Backing, Cell, Model, Page};

impl Model {
    /// Shows a range in `into`, which may be the same process, at `to`, where nothing may be.
    pub(super) fn share_pages(&mut self, region: Region, into: ProcSlot, to: u64) -> Answer {
        let from = region.addr / PAGE_BYTES..checked_end(region)? / PAGE_BYTES;
        let len = (from.end - from.start) * PAGE_BYTES;
        let place = checked_end(Region { addr: to, len, proc: into })?;
        let into = self.seat(into);
        let Some(other) = self.procs.get(&into) else { return Ok(Outcome::Skip) };
        if other.has_any(to / PAGE_BYTES..place / PAGE_BYTES) {
            return Err(Errno::EEXIST);
        }
        let proc = self.seat(region.proc);
        let Some(process) = self.procs.get_mut(&proc) else { return Ok(Outcome::Skip) };
        for n in from.clone() {
            match process.pages.get(&n) {
                None => return Err(Errno::EFAULT),
                Some(page) if page.noreserve && !page.shared => return Err(Errno::ENOTSUP),
                Some(_) => {}
            }
        }
        let mut twins = Vec::new();
        for (_, page) in process.pages.range_mut(from) {
            page.enter_cell(&mut self.cells);
            twins.push(page.clone());
        }
        self.seat(ProcSlot(into));
        let other = self.procs.entry(into).or_default();
        let locked = other.future;
        let twins = twins.into_iter().map(|page| Page { locked, ..page });
        other.pages.extend((to / PAGE_BYTES..).zip(twins));
        Ok(Outcome::OK)
    }
}

impl Page {
    /// A private page gets a cell, which has the bytes that were its alone, unless it has one.
    pub(super) fn enter_cell(&mut self, cells: &mut Vec<Cell>) {
        if self.shared || self.cell.is_some() {
            return;
        }
        self.cell = Some(cells.len());
        let of_file = self.backing != Backing::Zero;
        cells.push(Cell { copy: self.copy.take(), of_file });
    }
}
