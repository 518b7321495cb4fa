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

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use super::ast::*;
use super::error::nearest;
use super::outcome::{
    Digest, FNV_OFFSET, Outcome, PAGE_BYTES, PageBytes, PageState, fnv, page_hash,
};
use super::outcome::{FirstBytes, ZERO_PAGE_HASH};
use super::token::Span;
use super::words::{FILE_SLOTS, PROC_SLOTS};
use super::world::*;

/// Pages of the break that digests and the final dump cover.
pub const BREAK_PAGES: u32 = 64;

/// Pages of the arena when the script does not say.
pub const DEFAULT_ARENA: u32 = 256;

/// How a script is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The script's name in errors.
    pub file: Option<String>,
    /// Check every invariant after every operation.
    pub verify_each: bool,
    /// Pass over views and what is expected of them and of counters: for worlds that have none.
    pub ignore_views: bool,
    /// Go on after a failed expectation; all failures are in the report.
    pub keep_going: bool,
}

/// What happens while a script runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An operation was done, or refused.
    Outcome {
        /// Its number, when it is one of the trace language.
        number: Option<u32>,
        /// What it says.
        statement: &'a Statement,
        /// What it answered.
        outcome: Outcome,
    },
    /// A view was asked for.
    View {
        /// What was asked.
        statement: &'a Statement,
        /// What to show: the table, or the JSON.
        text: &'a str,
    },
    /// `echo`.
    Echo(&'a str),
    /// A line of the final dump.
    Final(&'a str),
    /// The script is over.
    End {
        /// Operations of the trace language.
        operations: u32,
        /// A hash over all result lines.
        fingerprint: u64,
    },
}

/// What is told of a run.
pub trait Sink {
    /// Takes one event.
    ///
    /// # Errors
    /// When it cannot be written; the run stops.
    fn event(&mut self, event: Event<'_>) -> fmt::Result;
}

impl<F: FnMut(Event<'_>) -> fmt::Result> Sink for F {
    fn event(&mut self, event: Event<'_>) -> fmt::Result {
        self(event)
    }
}

/// Forgets everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Sink for Silent {
    fn event(&mut self, _event: Event<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Writes the result format of the trace language: one numbered line per operation of it, the final
/// dump, the last line. Whatever else happens becomes a remark.
#[derive(Debug)]
pub struct ResultText<W>(pub W);

impl<W: fmt::Write> ResultText<W> {
    fn remark(&mut self, text: &str) -> fmt::Result {
        text.lines().try_for_each(|line| writeln!(self.0, "# {line}"))
    }
}

impl<W: fmt::Write> Sink for ResultText<W> {
    fn event(&mut self, event: Event<'_>) -> fmt::Result {
        match event {
            Event::Outcome { number: Some(n), outcome, .. } => writeln!(self.0, "{n} {outcome}"),
            Event::Outcome { number: None, statement, outcome } => {
                self.remark(&format!("{}: {outcome}", statement.operation))
            }
            Event::View { text, .. } | Event::Echo(text) => self.remark(text),
            Event::Final(line) => writeln!(self.0, "{line}"),
            Event::End { operations, fingerprint } => {
                writeln!(self.0, "end ops={operations} fingerprint={fingerprint:016x}")
            }
        }
    }
}

/// Writes for people: every operation with what it answered, views as they are, no dump.
#[derive(Debug)]
pub struct PlainText<W>(pub W);

impl<W: fmt::Write> Sink for PlainText<W> {
    fn event(&mut self, event: Event<'_>) -> fmt::Result {
        match event {
            Event::Outcome { number, statement, outcome } => {
                let number = number.map_or(String::new(), |n| n.to_string());
                writeln!(self.0, "{number:>4}  {}  -> {outcome}", statement.operation)
            }
            Event::View { text, .. } => {
                self.0.write_str(text)?;
                if text.ends_with('\n') { Ok(()) } else { self.0.write_char('\n') }
            }
            Event::Echo(text) => writeln!(self.0, "{text}"),
            Event::Final(_) | Event::End { .. } => Ok(()),
        }
    }
}

/// What went wrong while a script ran, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{span}: {problem}", .file.as_ref().map(|f| format!("{f}:")).unwrap_or_default())]
pub struct RunError {
    /// The script's name, if it has one.
    pub file: Option<String>,
    /// The statement.
    pub span: Span,
    /// What is wrong.
    pub problem: RunProblem,
}

/// What can go wrong while a script runs. That an operation is refused is not wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunProblem {
    /// Something else happened than the script expects.
    #[error("expected {expected}, got {got}")]
    Expectation {
        /// What was expected.
        expected: String,
        /// What happened.
        got: String,
    },
    /// There is no earlier operation or view to look back on.
    #[error("nothing came before that this could be about")]
    NothingBefore,
    /// There is no such counter.
    #[error("there is no counter `{name}`{}", .hint.as_ref().map(|h| format!(" (did you mean `{h}`?)")).unwrap_or_default())]
    NoCounter {
        /// Its name.
        name: String,
        /// One that resembles it.
        hint: Option<String>,
    },
    /// An invariant does not hold.
    #[error("invariant violated: {0}")]
    Verify(String),
    /// A view cannot be shown.
    #[error("{0}")]
    View(#[from] ViewError),
    /// A name was used that no statement made.
    #[error("nothing is called `${0}`")]
    NoName(String),
    /// The report could not be written.
    #[error("cannot write the result")]
    Output,
}

impl From<fmt::Error> for RunProblem {
    fn from(_: fmt::Error) -> Self {
        RunProblem::Output
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Operations of the trace language.
    pub operations: u32,
    /// A hash over all result lines.
    pub fingerprint: u64,
    /// What failed, when the options say to go on.
    pub failures: Vec<RunError>,
}

/// Drives a world.
#[derive(Debug)]
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

    // ---- operations

    fn perform(&mut self, operation: &Operation) -> Result<Outcome, RunProblem> {
        use Operation as O;
        match operation {
            O::File { .. }
            | O::HostFile { .. }
            | O::Truncate { .. }
            | O::Pwrite { .. }
            | O::Pread { .. }
            | O::Fclose(_) => self.on_file(operation),
            O::Scan(n) => Ok(self.world.scan(*n)),
            O::Squeeze(n) => Ok(self.world.squeeze(*n)),
            O::Release => Ok(self.world.release()),
            O::SwapAdd(area) => Ok(self.world.swap_add(area)),
            O::SwapDel(area) => Ok(self.world.swap_del(*area)),
            O::Pageout(None) => Ok(self.world.pageout(None)),
            O::Spawn { proc, path } => {
                let proc = self.new_proc(proc);
                if self.lives(proc) {
                    return Ok(Outcome::Skip);
                }
                let outcome = self.world.spawn(proc, path);
                if outcome.is_ok() {
                    self.live.insert(proc.0);
                }
                Ok(outcome)
            }
            _ => self.on_process(operation),
        }
    }

    fn on_file(&mut self, operation: &Operation) -> Result<Outcome, RunProblem> {
        use Operation as O;
        match operation {
            O::File { file, size, mode } => {
                let file = self.new_file(file);
                if self.is_made(file) {
                    return Ok(Outcome::Skip);
                }
                self.made.insert(file.0, false);
                return Ok(self.world.file(file, *size, *mode));
            }
            O::HostFile { file, path, mode } => {
                let file = self.new_file(file);
                if self.is_made(file) {
                    return Ok(Outcome::Skip);
                }
                let outcome = self.world.host_file(file, path, *mode);
                if outcome.is_ok() {
                    self.made.insert(file.0, false);
                }
                return Ok(outcome);
            }
            _ => {}
        }
        let (O::Truncate { file, .. }
        | O::Pwrite { file, .. }
        | O::Pread { file, .. }
        | O::Fclose(file)) = operation
        else {
            unreachable!("on_file is called with file operations only");
        };
        let slot = self.file(file)?;
        if !self.is_made(slot) {
            return Ok(Outcome::Skip);
        }
        Ok(match operation {
            O::Truncate { size, .. } => self.world.truncate(slot, *size),
            O::Pwrite { offset, len, byte, .. } => self.world.pwrite(slot, *offset, *len, *byte),
            O::Pread { offset, len, .. } => self.world.pread(slot, *offset, *len),
            _ => match self.made.insert(slot.0, true) {
                Some(true) => Outcome::Skip,
                _ => self.world.fclose(slot),
            },
        })
    }

    fn on_process(&mut self, operation: &Operation) -> Result<Outcome, RunProblem> {
        use Operation as O;
        if let O::Map(map) = operation {
            return self.map(map);
        }
        if let O::Unmap(r)
        | O::Protect(r, _)
        | O::Advise(r, _)
        | O::Sync(r, _)
        | O::Lock(r)
        | O::Unlock(r)
        | O::Incore(r)
        | O::Remap { range: r, .. }
        | O::Read(AccessRange { range: r, .. })
        | O::Write(AccessRange { range: r, .. }, _)
        | O::Fread(Transfer { memory: AccessRange { range: r, .. }, .. })
        | O::Fwrite(Transfer { memory: AccessRange { range: r, .. }, .. }) = operation
        {
            let proc = self.proc(&r.proc)?;
            if !self.lives(proc) {
                return Ok(Outcome::Skip);
            }
            let region = self.region(proc, r.addr, r.len);
            return self.on_region(operation, region);
        }
        let (O::Brk { proc, .. }
        | O::LockAll(proc, _)
        | O::UnlockAll(proc)
        | O::Fork { parent: proc, .. }
        | O::Exit(proc)
        | O::Digest(proc)
        | O::Pageout(Some(proc))
        | O::Exec { proc, .. }
        | O::Fetch { proc, .. }
        | O::Grow { proc, .. }
        | O::SetRlimit { proc, .. }) = operation
        else {
            unreachable!("on_process is called with operations of a process only");
        };
        let proc = self.proc(proc)?;
        // A name that fork gives its child gets its slot even when the fork is skipped.
        let child = match operation {
            O::Fork { child, .. } => Some(self.new_proc(child)),
            _ => None,
        };
        if !self.lives(proc) {
            return Ok(Outcome::Skip);
        }
        let layout = self.world.layout(proc);
        Ok(match operation {
            O::Brk { to, .. } => self.world.brk(proc, layout.brk.wrapping_add(to.resolve(0))),
            O::LockAll(_, what) => self.world.lock_all(proc, *what),
            O::UnlockAll(_) => self.world.unlock_all(proc),
            O::Fork { .. } => match child {
                Some(child) if !self.lives(child) => {
                    let outcome = self.world.fork(proc, child);
                    if outcome.is_ok() {
                        self.live.insert(child.0);
                    }
                    outcome
                }
                _ => Outcome::Skip,
            },
            O::Exit(_) => {
                self.live.remove(&proc.0);
                self.world.exit(proc)
            }
            O::Digest(_) => self.digest(proc),
            O::Pageout(_) => self.world.pageout(Some(proc)),
            O::Exec { file, .. } => match self.file(file)? {
                file if self.is_made(file) => self.world.exec(proc, file),
                _ => Outcome::Skip,
            },
            O::Fetch { addr, cpu, .. } => self.world.fetch(proc, addr.resolve(layout), *cpu),
            O::Grow { addr, .. } => self.world.grow(proc, addr.resolve(layout)),
            O::SetRlimit { limit, bytes, .. } => self.world.set_rlimit(proc, *limit, *bytes),
            _ => unreachable!("matched above"),
        })
    }

    fn on_region(&mut self, operation: &Operation, region: Region) -> Result<Outcome, RunProblem> {
        use Operation as O;
        let world = &mut self.world;
        Ok(match operation {
            O::Unmap(_) => world.unmap(region),
            O::Protect(_, prot) => world.protect(region, *prot),
            O::Advise(_, advice) => world.advise(region, *advice),
            O::Sync(_, flags) => world.sync(region, *flags),
            O::Lock(_) => world.lock(region),
            O::Unlock(_) => world.unlock(region),
            O::Incore(_) => world.incore(region),
            O::Remap { new_len, flags, to, .. } => {
                let layout = world.layout(region.proc);
                let to = to.map(|a| a.resolve(layout));
                world.remap(region, new_len.resolve(region.addr), *flags, to)
            }
            O::Read(a) => world.read(Access { region, cpu: a.cpu }),
            O::Write(a, byte) => world.write(Access { region, cpu: a.cpu }, *byte),
            O::Fread(t) | O::Fwrite(t) => {
                let file = self.file(&t.file)?;
                if !self.is_made(file) {
                    return Ok(Outcome::Skip);
                }
                let memory = Access { region, cpu: t.memory.cpu };
                let call = TransferCall { file, offset: t.offset, memory };
                match operation {
                    O::Fread(_) => self.world.fread(call),
                    _ => self.world.fwrite(call),
                }
            }
            _ => unreachable!("matched by the caller"),
        })
    }

    fn map(&mut self, map: &Map) -> Result<Outcome, RunProblem> {
        let proc = self.proc(&map.proc)?;
        if !self.lives(proc) {
            return Ok(Outcome::Skip);
        }
        let source = match &map.source {
            Source::Anon => MapSource::Anon,
            Source::File(file, offset) => MapSource::File(self.file(file)?, offset.resolve(0)),
        };
        let Map { prot, share, placement, flags, .. } = *map;
        let region = self.region(proc, map.addr, map.len);
        Ok(self.world.map(&MapCall { region, prot, share, placement, source, flags }))
    }

    fn digest(&mut self, proc: ProcSlot) -> Outcome {
        let mut digest = Digest::default();
        let mut bytes = [0; PAGE_BYTES as usize];
        for (index, addr) in self.pages(proc) {
            let state = self.world.page(proc, addr, false, &mut bytes);
            if state != PageState::Unmapped {
                digest.page(index, state, page_hash_of(state, &bytes));
            }
        }
        Outcome::hash(digest.value())
    }

    // ---- looking

    fn view(
        &mut self,
        statement: &Statement,
        request: &ViewRequest,
        sink: &mut dyn Sink,
    ) -> Result<(), RunProblem> {
        if self.options.ignore_views {
            return Ok(());
        }
        self.begin();
        let call = self.resolve_view(request)?;
        let view = self.world.view(&call)?;
        let text = if request.json { view.json } else { view.text };
        sink.event(Event::View { statement, text: &text })?;
        self.last_view = Some(text);
        Ok(())
    }

    /// Resolves a view's names and addresses.
    fn resolve_view(&self, request: &ViewRequest) -> Result<ViewCall, RunProblem> {
        let lives = |p: &ProcRef| {
            let p = self.proc(p)?;
            if self.lives(p) { Ok(p) } else { Err(RunProblem::from(ViewError::NoProcess(p))) }
        };
        let made = |f: &FileRef| {
            let f = self.file(f)?;
            if self.is_made(f) { Ok(f) } else { Err(RunProblem::from(ViewError::NoFile(f))) }
        };
        let space = |s: &SpaceRef| match s {
            SpaceRef::Process(p) => lives(p).map(SpaceRef::Process),
            SpaceRef::Kernel => Ok(SpaceRef::Kernel),
        };
        let at = |p: ProcSlot, a: &Addr| a.resolve(self.world.layout(p));
        let kind = match &request.kind {
            ViewKind::Pmap { space: s, extended } => {
                ViewKind::Pmap { space: space(s)?, extended: *extended }
            }
            ViewKind::Seg(s) => ViewKind::Seg(space(s)?),
            ViewKind::SegTree(s) => ViewKind::SegTree(space(s)?),
            ViewKind::Anon(p, a) => {
                let p = lives(p)?;
                ViewKind::Anon(p, a.as_ref().map(|a| at(p, a)))
            }
            ViewKind::Pages => ViewKind::Pages,
            ViewKind::FilePages(f) => ViewKind::FilePages(made(f)?),
            ViewKind::PageAt(pfn) => ViewKind::PageAt(*pfn),
            ViewKind::Memstat => ViewKind::Memstat,
            ViewKind::Vnode(f) => ViewKind::Vnode(made(f)?),
            ViewKind::Hash => ViewKind::Hash,
            ViewKind::VaToPfn(p, a) => {
                let p = lives(p)?;
                ViewKind::VaToPfn(p, at(p, a))
            }
            ViewKind::HTable(p) => ViewKind::HTable(lives(p)?),
            ViewKind::SwapInfo => ViewKind::SwapInfo,
            ViewKind::VmStat(names) => ViewKind::VmStat(names.clone()),
            ViewKind::Walk(p, a) => {
                let p = lives(p)?;
                ViewKind::Walk(p, at(p, a))
            }
        };
        Ok(ViewCall { kind, json: request.json })
    }

    fn expect(&mut self, expectation: &Expectation) -> Result<(), RunProblem> {
        match expectation {
            Expectation::Outcome(pattern) => {
                let got = self.last_outcome.ok_or(RunProblem::NothingBefore)?;
                if pattern.matches(&got) {
                    return Ok(());
                }
                let (expected, got) = (pattern.to_string(), got.to_string());
                Err(RunProblem::Expectation { expected, got })
            }
            _ if self.options.ignore_views => Ok(()),
            Expectation::Text { text, present } => {
                let view = self.last_view.as_ref().ok_or(RunProblem::NothingBefore)?;
                if view.contains(text.as_str()) == *present {
                    return Ok(());
                }
                let not = if *present { "" } else { "not " };
                let expected = format!("{not}{text:?} in the last view");
                Err(RunProblem::Expectation { expected, got: format!("\n{}", view.trim_end()) })
            }
            Expectation::Counter { name, delta, at_least, value } => {
                self.expect_counter(name, *delta, *at_least, *value)
            }
        }
    }

    fn expect_counter(
        &mut self,
        name: &str,
        delta: bool,
        at_least: bool,
        value: u64,
    ) -> Result<(), RunProblem> {
        self.begin();
        let Some(now) = self.world.counter(name) else {
            let all = self.world.counters();
            let hint = nearest(name, all.iter().map(String::as_str));
            return Err(RunProblem::NoCounter { name: name.into(), hint });
        };
        let got = match delta {
            false => now,
            true => {
                let before = self.counted.get(name).ok_or(RunProblem::NothingBefore)?;
                now.wrapping_sub(*before)
            }
        };
        if got == value || (at_least && got > value) {
            return Ok(());
        }
        let plus = if delta { "+" } else { "" };
        let least = if at_least { ">=" } else { "" };
        let expected = format!("{name} {plus}{least}{value}");
        Err(RunProblem::Expectation { expected, got: format!("{name} {plus}{got}") })
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

impl ExpectedOutcome {
    /// Says whether an outcome is as expected; words that are not given match anything.
    pub fn matches(&self, got: &Outcome) -> bool {
        fn same<T: PartialEq>(want: Option<T>, got: Option<T>) -> bool {
            want.is_none() || want == got
        }
        match (self, got) {
            (ExpectedOutcome::Ok { moved, n, h, b }, Outcome::Ok(facts)) => {
                let shown = facts.b.unwrap_or_default();
                let begins = |b: &FirstBytes| shown.as_slice().starts_with(b.as_slice());
                (!*moved || facts.moved)
                    && same(*n, facts.n)
                    && same(*h, facts.h)
                    && b.as_ref().is_none_or(begins)
            }
            (ExpectedOutcome::Errno(want), Outcome::Errno(got)) => want == got,
            (ExpectedOutcome::Segv { at, code }, Outcome::Segv { at: a, code: c }) => {
                same(*at, Some(*a)) && same(*code, Some(*c))
            }
            (ExpectedOutcome::Bus { at, code }, Outcome::Bus { at: a, code: c }) => {
                same(*at, Some(*a)) && same(*code, Some(*c))
            }
            (ExpectedOutcome::Skip, Outcome::Skip) => true,
            _ => false,
        }
    }
}
