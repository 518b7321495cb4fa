//! Running a script over a world.
//!
//! The [`Runner`] stands between the two: it gives names their slots, turns addresses and lengths
//! into numbers, answers `skip` for what cannot be meant, numbers the operations of the trace
//! language, computes digests, compares what happened with what the script expects, and reports
//! everything to a [`Sink`].
//!
//! # The rules of `skip`
//!
//! An operation on a process that does not live, on a file that was not made, or into a slot that
//! is taken does nothing. So any part of a script is again a script, which is what minimising
//! rests on. One exception: `map` of a file that was not made arrives and is answered EBADF.
//!
//! # Counters since the last operation
//!
//! `expect counter NAME +N` needs the counter's value from before the operation it looks back on.
//! The runner notes the counters it watches before each operation: [`Runner::run`] watches those
//! that the script expects, the shell all there are ([`Runner::watch_all`]).

mod look;
mod perform;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::ast::*;
use super::outcome::{FNV_OFFSET, Outcome, PAGE_BYTES, PageBytes, PageState, ZERO_PAGE_HASH};
use super::outcome::{fnv, page_hash};
use super::token::Span;
use super::words::{FILE_SLOTS, PROC_SLOTS};
use super::world::*;

pub use self::report::{
    Event, PlainText, Report, ResultText, RunError, RunOptions, RunProblem, Silent, Sink,
};

/// Pages of the break that digests and the final dump cover.
pub const BREAK_PAGES: u32 = 64;

/// Pages of the arena when the script does not say.
pub const DEFAULT_ARENA: u32 = 256;

/// Drives a world.
#[derive(Clone, Debug)]
pub struct Runner<W> {
    world: W,
    options: RunOptions,
    procs: BTreeMap<String, u32>,
    files: BTreeMap<String, u32>,
    live: BTreeSet<u32>,
    /// Files that were made, and whether their descriptors are closed.
    made: BTreeMap<u32, bool>,
    arena: u32,
    begun: bool,
    number: u32,
    fingerprint: u64,
    last_outcome: Option<Outcome>,
    last_view: Option<String>,
    watched: BTreeSet<String>,
    counted: BTreeMap<String, u64>,
}

impl<W: World> Runner<W> {
    /// A runner at the start of a script.
    pub fn new(world: W, options: RunOptions) -> Self {
        Runner {
            world,
            options,
            procs: BTreeMap::new(),
            files: BTreeMap::new(),
            live: BTreeSet::from([0]),
            made: BTreeMap::new(),
            arena: DEFAULT_ARENA,
            begun: false,
            number: 0,
            fingerprint: FNV_OFFSET,
            last_outcome: None,
            last_view: None,
            watched: BTreeSet::new(),
            counted: BTreeMap::new(),
        }
    }

    /// The world.
    pub fn world(&self) -> &W {
        &self.world
    }

    /// The world, to be looked at more closely or disturbed.
    pub fn world_mut(&mut self) -> &mut W {
        &mut self.world
    }

    /// Gives the world back.
    pub fn into_world(self) -> W {
        self.world
    }

    /// The slots of the processes that live, upwards.
    pub fn live(&self) -> Vec<ProcSlot> {
        self.live.iter().copied().map(ProcSlot).collect()
    }

    /// The slots of the files that were made, upwards.
    pub fn made_files(&self) -> Vec<FileSlot> {
        self.made.keys().copied().map(FileSlot).collect()
    }

    /// The slot of a named process.
    pub fn proc_slot(&self, name: &str) -> Option<ProcSlot> {
        self.procs.get(name).copied().map(ProcSlot)
    }

    /// The slot of a named file.
    pub fn file_slot(&self, name: &str) -> Option<FileSlot> {
        self.files.get(name).copied().map(FileSlot)
    }

    /// Pages of the arena.
    pub fn arena(&self) -> u32 {
        self.arena
    }

    /// Notes every counter before each operation from now on, so that any of them may be expected.
    pub fn watch_all(&mut self) {
        self.watched = self.world.counters().into_iter().collect();
    }

    /// Runs a whole script and its final dump.
    ///
    /// # Errors
    /// The first thing that went wrong (with `keep_going`, only what makes going on useless).
    pub fn run(&mut self, script: &Script, sink: &mut dyn Sink) -> Result<Report, RunError> {
        let failures = self.run_statements(&script.statements, sink)?;
        self.finish(sink)?;
        Ok(Report { operations: self.number, fingerprint: self.fingerprint, failures })
    }

    /// Runs statements that follow those run before, without a dump. Returns what failed when the
    /// options say to go on.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn run_statements(
        &mut self,
        statements: &[Statement],
        sink: &mut dyn Sink,
    ) -> Result<Vec<RunError>, RunError> {
        for s in statements {
            if let Operation::Expect(Expectation::Counter { name, delta: true, .. }) = &s.operation
            {
                self.watched.insert(name.clone());
            }
        }
        let mut failures = Vec::new();
        for statement in statements {
            match self.step(statement, sink) {
                Ok(_) => {}
                Err(e) if e.problem == RunProblem::Output || !self.options.keep_going => {
                    return Err(e);
                }
                Err(e) => failures.push(e),
            }
        }
        Ok(failures)
    }

    /// Runs one statement; returns what it answered, if it is one that answers.
    ///
    /// # Errors
    /// A failed expectation, a view that cannot be shown, a violated invariant, or a sink that
    /// cannot take more.
    pub fn step(
        &mut self,
        statement: &Statement,
        sink: &mut dyn Sink,
    ) -> Result<Option<Outcome>, RunError> {
        self.try_step(statement, sink).map_err(|problem| RunError {
            file: self.options.file.clone(),
            span: statement.span(),
            problem,
        })
    }

    fn try_step(
        &mut self,
        statement: &Statement,
        sink: &mut dyn Sink,
    ) -> Result<Option<Outcome>, RunProblem> {
        let operation = &statement.operation;
        match operation {
            Operation::Header | Operation::Machine(_) => {}
            Operation::Arena(pages) => self.arena = *pages,
            Operation::Proc { name, slot } => {
                self.procs.insert(name.clone(), *slot);
            }
            Operation::View(request) => self.view(statement, request, sink)?,
            Operation::Expect(expectation) => self.expect(expectation)?,
            Operation::Echo(text) => sink.event(Event::Echo(text))?,
            Operation::Verify => self.verify()?,
            _ => {
                self.begin();
                self.note_counters();
                let outcome = self.perform(operation)?;
                self.last_outcome = Some(outcome);
                let number = operation.is_traced().then(|| {
                    self.number += 1;
                    self.number
                });
                if let Some(n) = number {
                    self.mark(&format!("{n} {outcome}"));
                }
                sink.event(Event::Outcome { number, statement, outcome })?;
                if self.options.verify_each {
                    self.verify()?;
                }
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// Ends the script: the final dump and the last line.
    ///
    /// # Errors
    /// When the sink cannot take more.
    pub fn finish(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        self.begin();
        let mut write = || -> fmt::Result {
            for line in self.dump(true) {
                self.mark(&line);
                sink.event(Event::Final(&line))?;
            }
            sink.event(Event::End { operations: self.number, fingerprint: self.fingerprint })
        };
        write().map_err(|e| RunError {
            file: self.options.file.clone(),
            span: Span::default(),
            problem: e.into(),
        })
    }

    /// The lines of the final dump: what every process sees and every file holds. With `store`,
    /// pages are told writable by storing to them.
    pub fn dump(&mut self, store: bool) -> Vec<String> {
        let mut lines = Vec::new();
        let mut bytes = [0; PAGE_BYTES as usize];
        for proc in self.live() {
            lines.push(format!("P {} live", proc.0));
            for (index, addr) in self.pages(proc) {
                let state = self.world.page(proc, addr, store, &mut bytes);
                if state == PageState::Unmapped {
                    continue;
                }
                let mut line = format!("D {} {} {}", proc.0, self.page_name(index), state.letter());
                match page_hash_of(state, &bytes) {
                    ZERO_PAGE_HASH => line.push_str(" zero"),
                    FNV_OFFSET => {}
                    hash => line.push_str(&format!(" {hash:016x}")),
                }
                lines.push(line);
            }
        }
        for file in self.made_files() {
            let contents = self.world.file_contents(file).unwrap_or_default();
            lines.push(format!("F {} size={}", file.0, contents.size));
            for (page, hash) in contents.pages {
                lines.push(format!("G {} {page} {hash:016x}", file.0));
            }
        }
        lines
    }

    /// Index and address of every page that digests cover: the arena's, then the break's.
    pub fn pages(&self, proc: ProcSlot) -> impl Iterator<Item = (u32, u64)> + use<W> {
        let Layout { arena, brk } = self.world.layout(proc);
        let at = |base: u64, i: u32| base.wrapping_add(u64::from(i) * PAGE_BYTES);
        let pages = self.arena;
        (0..pages)
            .map(move |i| (i, at(arena, i)))
            .chain((0..BREAK_PAGES).map(move |i| (pages + i, at(brk, i))))
    }

    /// How a dump calls the page of this index.
    pub fn page_name(&self, index: u32) -> String {
        match index.checked_sub(self.arena) {
            Some(i) => format!("b:{i}"),
            None => index.to_string(),
        }
    }

    /// Checks the world now.
    fn verify(&mut self) -> Result<(), RunProblem> {
        self.begin();
        self.world.verify().map_err(RunProblem::Verify)
    }

    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            self.world.begin(self.arena);
        }
    }

    fn mark(&mut self, line: &str) {
        self.fingerprint = fnv(fnv(self.fingerprint, line.as_bytes()), b"\n");
    }

    fn note_counters(&mut self) {
        for name in &self.watched {
            if let Some(value) = self.world.counter(name) {
                self.counted.insert(name.clone(), value);
            }
        }
    }

    // ---- names and numbers

    fn proc(&self, proc: &ProcRef) -> Result<ProcSlot, RunProblem> {
        match proc {
            ProcRef::Slot(n) => Ok(ProcSlot(*n)),
            ProcRef::Name(name) => {
                self.proc_slot(name).ok_or_else(|| RunProblem::NoName(name.clone()))
            }
        }
    }

    fn new_proc(&mut self, proc: &ProcRef) -> ProcSlot {
        match proc {
            ProcRef::Slot(n) => ProcSlot(*n),
            ProcRef::Name(name) => ProcSlot(slot_for(&mut self.procs, name, PROC_SLOTS)),
        }
    }

    fn file(&self, file: &FileRef) -> Result<FileSlot, RunProblem> {
        match file {
            FileRef::Slot(n) => Ok(FileSlot(*n)),
            FileRef::Name(name) => {
                self.file_slot(name).ok_or_else(|| RunProblem::NoName(name.clone()))
            }
        }
    }

    fn new_file(&mut self, file: &FileRef) -> FileSlot {
        match file {
            FileRef::Slot(n) => FileSlot(*n),
            FileRef::Name(name) => FileSlot(slot_for(&mut self.files, name, FILE_SLOTS)),
        }
    }

    fn lives(&self, proc: ProcSlot) -> bool {
        self.live.contains(&proc.0)
    }

    fn is_made(&self, file: FileSlot) -> bool {
        self.made.contains_key(&file.0)
    }

    fn region(&self, proc: ProcSlot, addr: Addr, len: Length) -> Region {
        let addr = addr.resolve(self.world.layout(proc));
        Region { proc, addr, len: len.resolve(addr) }
    }
}

/// The slot of `name`, the next free one from `first` up when it has none.
fn slot_for(names: &mut BTreeMap<String, u32>, name: &str, first: u32) -> u32 {
    if let Some(slot) = names.get(name) {
        return *slot;
    }
    let slot = names.values().map(|s| s + 1).max().unwrap_or(first).max(first);
    names.insert(name.to_owned(), slot);
    slot
}

/// The hash that a digest has for a page: of its bytes, or of none when it cannot be read.
pub(super) fn page_hash_of(state: PageState, bytes: &PageBytes) -> u64 {
    if state.is_readable() { page_hash(bytes) } else { FNV_OFFSET }
}
