//! The script language: one language for the command line, the shell, the tests and the benchmark.
//!
//! It is a superset of a neutral trace language in which two systems can be compared: one operation
//! per line, one result line per operation, and a digest of all contents at the end. What people
//! need on top (names, host files, views, expectations) cannot be mistaken for its words. The
//! whole language is described in `docs/script.md`.
//!
//! ```text
//!   text ──▶ token ──▶ parse ──▶ Script ──▶ Runner ──▶ World        what is driven: a machine,
//!              │         │         │          │                     or the naive model
//!              └ places  │         └ print    └──▶ Sink             what is shown
//!                        └ complete
//! ```
//!
//! - `token`, `words`, `numbers`, `parse`, `views`: text to values, every word with its place;
//! - `ast`, `print`: the values, and their canonical text;
//! - `outcome`: what an operation answers;
//! - `world`, `run`: the trait an executor implements, and what drives it;
//! - `generate`, `lockstep`, `minimise`: random scripts from a seed, two worlds that must agree on
//!   them, and how a script on which they do not is made short;
//! - `explained`, `books`, `frames`, `refusals`: the answers in which others may differ, why, and what must be known of the past for that.

pub mod ast;
mod blocks;
mod books;
mod complete;
mod control;
mod error;
mod explained;
mod frames;
mod generate;
mod lockstep;
mod minimise;
mod numbers;
pub mod outcome;
mod parse;
mod print;
mod refusals;
mod run;
mod terms;
mod token;
mod views;
mod words;
pub mod world;

pub use ast::{Operation, Script, Statement};
pub use blocks::script_blocks;
pub use complete::{Candidate, Completion, complete};
pub use error::{NameKind, ParseError, Problem};
pub use explained::{EXPLAINED, Explained, explanation};
pub use generate::{
    GenerateOptions, Lot, Objection, Profile, differs, generate, objection, undefined,
};
pub use lockstep::{Difference, Divergence, Lockstep};
pub use minimise::minimise;
pub use outcome::{Errno, Facts, Outcome, PageState};
pub use parse::{Parser, STATEMENTS, parse};
pub use run::{
    BREAK_PAGES, DEFAULT_ARENA, Event, PlainText, Report, ResultText, RunError, RunOptions,
    RunProblem, Runner, Silent, Sink,
};
pub use token::{Span, Token};
pub use world::{FileSlot, ProcSlot, View, ViewCall, ViewError, World};

#[cfg(test)]
mod tests;
