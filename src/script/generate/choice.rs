//! What an operation is drawn about: a process, a range, a file, bytes.

use super::super::ast::*;
use super::super::outcome::PAGE_BYTES;
use super::Generator;
use crate::model::{Model, Page};

impl Generator {
    pub(super) fn arena(&self) -> u64 {
        u64::from(self.options.arena)
    }

    pub(super) fn proc(&mut self) -> u32 {
        let live: Vec<u32> = self.model().processes().keys().copied().collect();
        self.lot.pick(&live)
    }

    pub(super) fn cpu(&mut self) -> Option<u32> {
        let cpus = u64::from(self.options.cpus);
        (cpus > 1).then(|| self.lot.below(cpus) as u32)
    }

    /// A range of the arena, mapped or not.
    pub(super) fn pages(&mut self, long: bool) -> (u64, u64) {
        let arena = self.arena();
        let mut n = self.lot.pick(&[1, 1, 1, 2, 2, 3, 4, 5, 8, 12]);
        if long && self.lot.chance(10) {
            n = self.lot.between(12, 40);
        }
        let start = if self.lot.chance(93) {
            self.hot + self.lot.below((arena - self.hot).min(56))
        } else {
            self.lot.below(arena)
        };
        (start, n.min(arena - start).max(1))
    }

    /// The address of the page with this number in a process.
    pub(super) fn addr_of(&self, page: u64) -> Addr {
        let brk = Model::LAYOUT.brk / PAGE_BYTES;
        match page.checked_sub(brk) {
            Some(i) => Addr { base: AddrBase::Break(i), plus: 0 },
            None => Addr::arena(page - Model::LAYOUT.arena / PAGE_BYTES),
        }
    }

    /// A mapped page and how many follow it without a hole (at most 12), or a guess.
    pub(super) fn mapped(&mut self, proc: u32) -> (Addr, u64) {
        let mapped: Vec<u64> = self.process_pages(proc).map(|(n, _)| n).collect();
        if mapped.is_empty() || self.lot.chance(10) {
            let (start, n) = self.pages(false);
            return (Addr::arena(start), n);
        }
        let at = self.lot.below(mapped.len() as u64) as usize;
        let run = (at..mapped.len().min(at + 12))
            .take_while(|&i| mapped[i] - mapped[at] == (i - at) as u64)
            .count();
        (self.addr_of(mapped[at]), run as u64)
    }

    pub(super) fn process_pages(&self, proc: u32) -> impl Iterator<Item = (u64, &Page)> {
        let process = self.model().processes().get(&proc);
        process.into_iter().flat_map(|p| p.pages().iter().map(|(n, page)| (*n, page)))
    }

    /// A range to act on: mostly mapped, sometimes with a hole.
    pub(super) fn range(&mut self, proc: u32) -> Range {
        let (addr, run) = self.mapped(proc);
        let n =
            if self.lot.chance(80) { self.lot.between(1, run + 1) } else { self.lot.between(1, 9) };
        let limit = match addr.base {
            AddrBase::Arena(start) => self.arena().saturating_sub(start).max(1),
            _ => run,
        };
        Range { proc: ProcRef::Slot(proc), addr, len: Length::Pages(n.min(limit), 0) }
    }

    pub(super) fn any_range(&mut self) -> Range {
        let proc = self.proc();
        self.range(proc)
    }

    /// A file and its size.
    pub(super) fn some_file(&mut self) -> Option<(u32, u64)> {
        let model = self.model();
        let size = |f: &crate::model::File| model.objects()[f.object].size();
        let files: Vec<(u32, u64)> = model.files().iter().map(|(n, f)| (*n, size(f))).collect();
        if files.is_empty() { None } else { Some(self.lot.pick(&files)) }
    }

    pub(super) fn prot(&mut self) -> Prot {
        let letters = |read, write, exec| Prot::Letters { read, write, exec };
        self.lot.weighted(&[
            (Prot::RW, 60),
            (Prot::R, 20),
            (Prot::NONE, 8),
            (letters(false, true, false), 4),
            (letters(true, false, true), 5),
            (letters(true, true, true), 3),
        ])
    }

    pub(super) fn byte_count(&mut self) -> u64 {
        let choices = [
            (self.lot.between(1, 9), 40),
            (self.lot.between(9, 300), 30),
            (PAGE_BYTES, 15),
            (PAGE_BYTES + self.lot.between(1, 200), 10),
            (2 * PAGE_BYTES, 5),
        ];
        self.lot.weighted(&choices)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.lot.bits() as u8
    }

    /// Bytes to load or store, mostly mapped, at odd offsets too.
    pub(super) fn bytes(&mut self) -> AccessRange {
        let proc = self.proc();
        let (addr, run) = self.mapped(proc);
        let offsets = [0, 0, self.lot.below(PAGE_BYTES), PAGE_BYTES - self.lot.between(1, 50)];
        let offset = self.lot.pick(&offsets);
        let past = self.lot.pick(&[0, 0, 0, PAGE_BYTES]);
        let n = self.byte_count().min(run * PAGE_BYTES - offset + past).max(1);
        let range =
            Range { proc: ProcRef::Slot(proc), addr: addr.plus(offset), len: Length::of(n) };
        AccessRange { range, cpu: self.cpu() }
    }
}
