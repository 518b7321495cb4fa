//! Two worlds side by side: the same script, one statement at a time, compared after each.
//!
//! Outcomes must agree at once; contents (every page of every process, every file) are compared
//! after as many steps as asked for, but not while what was just purged or dropped is not stored to
//! again: how much of it is still there goes by what is in memory and who shares it. An operation
//! that the right side answers ENOSYS is one it
//! does not know; it is not compared, and must not change what can be seen. Answers that differ for
//! a reason in the table of [`EXPLAINED`](super::EXPLAINED) pass.

use std::fmt;

use thiserror::Error;

use super::ast::{Advice, Operation, ProcRef, Script, Statement};
use super::explained::explanation;
use super::outcome::{Errno, Outcome, PAGE_BYTES, PageState};
use super::refusals::{Held, done_before};
use super::run::{RunError, RunOptions, Runner, Silent};
use super::world::{FileContents, FileSlot, ProcSlot, World};

/// Where two worlds part.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("after statement {step} (`{statement}`): {what}")]
pub struct Divergence {
    /// The statement's number, from 1.
    pub step: usize,
    /// What it says.
    pub statement: String,
    /// What differs.
    pub what: Box<Difference>,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Difference {
    /// The answers.
    #[error("left answers `{left}`, right `{right}`")]
    Outcome {
        /// Of the left world.
        left: Outcome,
        /// Of the right world.
        right: Outcome,
    },
    /// What can be done with a page.
    #[error("page {page} of process {} is {} on the left, {} on the right", .proc.0, .left.letter(), .right.letter())]
    State {
        /// Whose page.
        proc: ProcSlot,
        /// Which, as dumps name it.
        page: String,
        /// On the left.
        left: PageState,
        /// On the right.
        right: PageState,
    },
    /// A byte of a page.
    #[error("byte {byte} of page {page} of process {} is {left:#04x} on the left, {right:#04x} on the right", .proc.0)]
    Byte {
        /// Whose page.
        proc: ProcSlot,
        /// Which, as dumps name it.
        page: String,
        /// The first byte that differs.
        byte: usize,
        /// On the left.
        left: u8,
        /// On the right.
        right: u8,
    },
    /// A file.
    #[error("file {} differs: {}", .file.0, Files(.left, .right))]
    File {
        /// Which.
        file: FileSlot,
        /// On the left.
        left: Box<FileContents>,
        /// On the right.
        right: Box<FileContents>,
    },
    /// A world came to grief by itself.
    #[error("{side}: {error}")]
    Run {
        /// `left` or `right`.
        side: &'static str,
        /// What happened.
        error: Box<RunError>,
    },
}

/// The first thing that differs between two files.
struct Files<'a>(&'a FileContents, &'a FileContents);

impl fmt::Display for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Files(left, right) = self;
        if left.size != right.size {
            return write!(f, "{} bytes on the left, {} on the right", left.size, right.size);
        }
        let only = |a: &FileContents, b: &FileContents| {
            a.pages.iter().find(|p| !b.pages.contains(p)).map(|p| p.0)
        };
        match only(left, right).or_else(|| only(right, left)) {
            Some(page) => write!(f, "page {page}"),
            None => f.write_str("not at all"),
        }
    }
}

/// Two worlds that are driven alike.
#[derive(Debug)]
pub struct Lockstep<L, R> {
    left: Runner<L>,
    right: Runner<R>,
    steps: usize,
    /// What has been done, for [`explanation`].
    past: Vec<Operation>,
    /// Who has memory of the left world's, for the refusals that are for that.
    held: Held,
    /// Steps between two comparisons of contents; 0 compares at the end only.
    every: usize,
    /// Contents were given up at once, and are not stored to since: there is nothing to compare.
    given_up: bool,
}

impl<L: World, R: World> Lockstep<L, R> {
    /// Two worlds at the start of a script. Contents are compared after every `every` operations
    /// (0: only when asked); with `verify_each`, the left world's invariants are checked after
    /// each.
    pub fn new(left: L, right: R, every: usize, verify_each: bool) -> Self {
        let left = Runner::new(left, RunOptions { verify_each, ..RunOptions::default() });
        let right = Runner::new(right, RunOptions { ignore_views: true, ..RunOptions::default() });
        Lockstep {
            left,
            right,
            steps: 0,
            past: Vec::new(),
            held: Held::default(),
            every,
            given_up: false,
        }
    }

    /// The left side.
    pub fn left(&mut self) -> &mut Runner<L> {
        &mut self.left
    }

    /// The right side.
    pub fn right(&mut self) -> &mut Runner<R> {
        &mut self.right
    }

    /// Runs a script on both and compares all contents at its end.
    ///
    /// # Errors
    /// Where they part first.
    pub fn run(&mut self, script: &Script) -> Result<(), Divergence> {
        for statement in &script.statements {
            self.step(statement)?;
        }
        let last = script.statements.last().map(|s| s.operation.to_string());
        self.compare_contents().map_err(|what| self.divergence(last.unwrap_or_default(), what))
    }

    /// Runs one statement on both.
    ///
    /// # Errors
    /// What differs after it.
    pub fn step(&mut self, statement: &Statement) -> Result<Option<Outcome>, Divergence> {
        self.steps += 1;
        self.try_step(statement)
            .map_err(|what| self.divergence(statement.operation.to_string(), what))
    }

    fn divergence(&self, statement: String, what: Difference) -> Divergence {
        Divergence { step: self.steps, statement, what: Box::new(what) }
    }

    fn try_step(&mut self, statement: &Statement) -> Result<Option<Outcome>, Difference> {
        let left = self
            .left
            .step(statement, &mut Silent)
            .map_err(|e| Difference::Run { side: "left", error: Box::new(e) })?;
        let operation = &statement.operation;
        if matches!(operation, Operation::Expect(_) | Operation::View(_)) {
            return Ok(left);
        }
        let refusal = left.as_ref().and_then(|left| self.held.refusal(operation, left));
        if let Some(left) = &left {
            self.held.note(operation, left);
        }
        // What a refusal has left of contents that were to go cannot be compared either.
        self.given_up |= matches!(operation, Operation::Advise(_, Advice::Purge | Advice::Drop));
        if refusal.is_some_and(|row| !row.goes_on) {
            let part = left.as_ref().and_then(|left| done_before(operation, left));
            if let Some(part) = part.map(Statement::from) {
                let done = self.right.step(&part, &mut Silent);
                done.map_err(|e| Difference::Run { side: "right", error: Box::new(e) })?;
                self.past.push(part.operation);
            }
            return self.compare_when_due(left);
        }
        let right = self
            .right
            .step(statement, &mut Silent)
            .map_err(|e| Difference::Run { side: "right", error: Box::new(e) })?;
        if let (Some(left), Some(right)) = (left, right) {
            let unknown = right == Outcome::Errno(Errno::ENOSYS);
            let differs = !unknown && refusal.is_none() && !left.agrees_with(&right);
            if differs && !self.is_explained(operation, &left, &right) {
                return Err(Difference::Outcome { left, right });
            }
            self.given_up &= !matches!(operation, Operation::Write(..));
        }
        self.past.push(operation.clone());
        self.compare_when_due(left)
    }

    fn compare_when_due(&mut self, left: Option<Outcome>) -> Result<Option<Outcome>, Difference> {
        let due = self.every != 0 && self.steps.is_multiple_of(self.every);
        if due && left.is_some() && !self.given_up {
            self.compare_contents()?;
        }
        Ok(left)
    }

    /// The two answers may differ here.
    fn is_explained(&self, operation: &Operation, left: &Outcome, right: &Outcome) -> bool {
        explanation(&self.past, operation, &left.to_string(), &right.to_string())
            .is_some_and(|row| !row.departs)
    }

    /// Compares every page of every process and every file, now.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare_contents(&mut self) -> Result<(), Difference> {
        let mut left = [0; PAGE_BYTES as usize];
        let mut right = [0; PAGE_BYTES as usize];
        for proc in self.left.live() {
            let places = self.left.pages(proc).zip(self.right.pages(proc));
            for ((index, here), (_, there)) in places {
                let l = self.left.world_mut().peek(proc, here, &mut left);
                let r = self.right.world_mut().peek(proc, there, &mut right);
                let page = || self.left.page_name(index);
                if l != r {
                    return Err(Difference::State { proc, page: page(), left: l, right: r });
                }
                if l.is_readable() && left != right {
                    let byte = (0..left.len()).find(|&i| left[i] != right[i]).unwrap_or_default();
                    let (left, right) = (left[byte], right[byte]);
                    return Err(Difference::Byte { proc, page: page(), byte, left, right });
                }
            }
            self.past.push(Operation::Digest(ProcRef::Slot(proc.0))); // all of it has been read
        }
        for file in self.left.made_files() {
            let left = self.left.world_mut().file_contents(file).unwrap_or_default();
            let right = self.right.world_mut().file_contents(file).unwrap_or_default();
            if left != right {
                let (left, right) = (Box::new(left), Box::new(right));
                return Err(Difference::File { file, left, right });
            }
        }
        Ok(())
    }
}
