//! What is told of a run: events, who takes them, and what can go wrong.

use std::fmt;

use thiserror::Error;

use super::super::ast::Statement;
use super::super::outcome::Outcome;
use super::super::token::Span;
use super::super::world::ViewError;

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
    /// Show every view as JSON; what the script expects of it still looks at what it asked for.
    pub json_views: bool,
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
