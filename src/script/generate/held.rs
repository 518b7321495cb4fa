//! What others do with a process's memory: each of them comes, stays for a while, and lets go.
//!
//! What is to be let go of is chosen among what the model has, by number; a machine that has refused one of them has other numbers, and answers as the model
//! does for what is not there.

use super::super::ast::*;
use super::super::outcome::PAGE_BYTES;
use super::Generator;
use crate::model::Model;

/// Pages of a swap area, enough for all there is: whichever goes, the others have room.
const AREA: u64 = 4096;

/// Swap areas by number. The first is the machine's own.
#[derive(Debug)]
pub(super) struct Areas {
    made: u32,
    there: Vec<u32>,
}

impl Default for Areas {
    fn default() -> Self {
        Areas { made: 1, there: vec![0] }
    }
}

impl Generator {
    /// Pins: a new one, a look at one, or the end of one.
    pub(super) fn pin(&mut self) -> Vec<Operation> {
        let pins = self.model().pins();
        if !pins.is_empty() && self.lot.chance(60) {
            let n = self.lot.pick(&pins);
            return vec![match self.lot.chance(50) {
                true => Operation::Pinned(n),
                false => Operation::Unpin(n),
            }];
        }
        let what = self.lot.pick(&[PinFor::Read, PinFor::Write]);
        vec![Operation::Pin(self.any_range(), what)]
    }

    /// Loans to the kernel, which reads them while they last.
    pub(super) fn loan(&mut self) -> Vec<Operation> {
        let loans = self.model().loans(false);
        if !loans.is_empty() && self.lot.chance(60) {
            let (n, _) = self.lot.pick(&loans);
            return vec![match self.lot.chance(50) {
                true => Operation::Lent(n),
                false => Operation::Unlend(n),
            }];
        }
        vec![Operation::Lend(self.any_range())]
    }

    /// Loans to anons, most of which are shown to somebody.
    pub(super) fn loan_to_anons(&mut self) -> Vec<Operation> {
        let loans = self.model().loans(true);
        if loans.is_empty() || self.lot.chance(45) {
            return vec![Operation::LendAnon(self.any_range())];
        }
        let (n, pages) = self.lot.pick(&loans);
        if self.lot.chance(20) {
            return vec![Operation::Unlend(n)];
        }
        let proc = self.proc();
        let addr = self.room(proc, pages);
        vec![Operation::Borrow { proc: ProcRef::Slot(proc), addr, loan: n }]
    }

    pub(super) fn share(&mut self) -> Vec<Operation> {
        let range = self.any_range();
        let into = self.proc();
        let Length::Pages(pages, _) = range.len else { return Vec::new() };
        let to = self.room(into, pages);
        vec![Operation::ShareRange { range, into: ProcRef::Slot(into), to }]
    }

    /// A place where so many pages are free, for the most part; else any.
    fn room(&mut self, proc: u32, pages: u64) -> Addr {
        let first = Addr::arena(0).resolve(Model::LAYOUT) / PAGE_BYTES;
        let taken: Vec<u64> = self.process_pages(proc).map(|(n, _)| n).collect();
        let is_free = |at: &u64| !(*at..*at + pages).any(|i| taken.contains(&(first + i)));
        let free: Vec<u64> = (0..=self.arena().saturating_sub(pages)).filter(is_free).collect();
        if free.is_empty() || self.lot.chance(8) {
            return Addr::arena(self.lot.below(self.arena().saturating_sub(pages) + 1));
        }
        Addr::arena(self.lot.pick(&free))
    }

    /// Bytes to watch, and watches to take back.
    pub(super) fn watch(&mut self) -> Vec<Operation> {
        let watched = self.model().watched();
        if !watched.is_empty() && self.lot.chance(55) {
            let (proc, addr, len) = self.lot.pick(&watched);
            let (pages, plus) = (addr / PAGE_BYTES, addr % PAGE_BYTES);
            let addr = self.addr_of(pages).plus(plus);
            let range = Range { proc: ProcRef::Slot(proc), addr, len: Length::of(len) };
            return vec![Operation::Unwatch(range)];
        }
        let Range { proc, addr, len } = self.any_range();
        let (offset, bytes) = (self.lot.below(PAGE_BYTES), self.lot.between(1, 100));
        let letters = |read, write, after| WatchFor { read, write, exec: false, after };
        let what = self.lot.pick(&[
            letters(false, true, false),
            letters(false, true, true),
            letters(true, false, false),
            letters(true, true, false),
        ]);
        let range = match self.lot.chance(70) {
            true => Range { proc, addr: addr.plus(offset), len: Length::Pages(0, bytes) },
            false => Range { proc, addr, len },
        };
        vec![Operation::Watch(range, what)]
    }

    /// A frame goes bad, in whatever use it is; or all are put back.
    pub(super) fn retire(&mut self) -> Vec<Operation> {
        if self.lot.chance(30) {
            return vec![Operation::Unretire];
        }
        let proc = self.proc();
        let (addr, _) = self.mapped(proc);
        let retire = Operation::Retire { proc: ProcRef::Slot(proc), addr };
        // There is room for one or two in a small memory.
        if self.lot.chance(60) { vec![Operation::Unretire, retire] } else { vec![retire] }
    }

    pub(super) fn squeeze(&mut self) -> Vec<Operation> {
        match self.lot.chance(50) {
            true => vec![Operation::Squeeze(self.lot.between(1, 40))],
            false => vec![Operation::Release],
        }
    }

    /// Swap areas: another one, or one less, whatever is stored there.
    pub(super) fn swap(&mut self) -> Vec<Operation> {
        if self.areas.there.len() > 1 && self.lot.chance(60) {
            let at = self.lot.below(self.areas.there.len() as u64) as usize;
            return vec![Operation::SwapDel(self.areas.there.remove(at))];
        }
        self.areas.there.push(self.areas.made);
        self.areas.made += 1;
        let priority = self.lot.pick(&[None, Some(5), Some(-3)]);
        let area = SwapSpec { backing: SwapBacking::Memory, pages: AREA, priority };
        vec![Operation::SwapAdd(area)]
    }
}
