//! Small worlds, all of them: every sequence of operations to a depth, on a machine with hardly any memory.
//!
//! # The difficulty
//!
//! Random sequences are long and find what happens often. What is wrong with the virtual memory of a kernel mostly shows in a handful of
//! operations on a handful of pages, in an order that nobody thinks of. There are few such sequences up to what does not matter; so all are tried.
//!
//! # The rule
//!
//! ```text
//!   two processes    three pages each    two files of one page
//!   two frames more than the page tables need    one slot of swap
//!
//!   states of depth d ──every operation──▶ answers agree with the model? verify()? ──▶ states of depth d + 1
//!                                              │                                         those met before are dropped
//!                                              └─ refused for want of memory: all as before
//!   each new state: with memory for it, every load finds what the model has; everybody exits; nothing is left
//! ```
//!
//! A machine cannot be copied, so a state is kept as the shortest sequence that leads to it, and made again from nothing: a small
//! machine is made in some ten microseconds, and the replay is checked to lead to the same state. An operation that leads back to the state it
//! was done in spoils nothing, so the next one is tried on the same machine: most do, and cost no replay.
//!
//! # What makes two states one
//!
//! A state is the whole of [`segvm::machine::WorldDump`], visible and hidden, and what the model makes of memory. The dump leaves out what operations cannot
//! tell apart: numbers of frames, anons, anon maps, slots and processes, which are only ever compared for being equal, and which the dump names in the order
//! in which a walk meets them, so that *which are equal* is kept (Y1). It keeps all that an operation looks at: geometry, rights, advice, locks and promises by page, who shares which
//! anon and map with how many references, what lies in memory, on swap or nowhere, its bytes, its referenced and modified bits in the page and in the
//! entries, translations with their rights, and the sums of frames, tables, promises and slots. Bytes are kept by hash.
//!
//! Left out besides: what processors remember of the tables, which is a part of the tables (law 5, checked by `verify()`), counters, and the order of frames, on which it depends
//! which of several pages the hands of the clock meet first. That decides which page goes, never what is answered or what a page
//! holds; and page-out is an operation here, so each of the pages goes in some sequence. So the number of states is that of states up to this order, each of them
//! really reached by the sequence that is kept for it.
//!
//! # Which sequences
//!
//! | | begins with | words | depth |
//! |---|---|---|---|
//! | [`from_nothing`] | an empty process | 29 | 5 |
//! | [`deep_after_fork`] | a child; memory of its own, a copied file, a shared file | 15 | 5 |
//! | [`after_fork`] | the same | 43 | 3 |
//! | [`with_too_few_frames`] | the same, with three frames less | 43 | 3 |
//!
//! The first three with eager and with lazy fork. An operation on a process that does not live is none, nor is one whose outcome
//! nobody defines (a lock of private pages of a file that are shared makes copies, and which is the driver's affair). `SEGVM_SMALL_DEPTH=N` goes to another depth and compares no
//! counts. So does `SEGVM_SMALL_FRAMES=N`, with N frames in all, of which too few make operations fail for want of memory. Advice `free` is in none: its pages hold old bytes or zeros, whichever it is.
//!
//! # The other road
//!
//! A model checker over an abstract machine visits more states, of something that is not the library.

mod alphabet;
mod explore;
mod world;

use explore::{Plan, Table};
use segvm::machine::ForkPolicy;
use segvm::script::parse;
use world::{FRAMES, TOO_FEW};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Explores, from `start` with `operations`, and compares the counts with those stored under `name`.
fn explore(name: &str, fork: ForkPolicy, frames: u64, start: &str, operations: &str, depth: usize) {
    let script = |text| parse(text).unwrap_or_else(|e| panic!("{e}"));
    let (deep, few) = (number("SEGVM_SMALL_DEPTH"), number("SEGVM_SMALL_FRAMES"));
    let plan = Plan {
        fork,
        frames: few.unwrap_or(frames),
        start: script(start),
        operations: script(operations).statements,
        depth: deep.map_or(depth, |n| n as usize),
    };
    let table: Table = plan.explore().unwrap_or_else(|e| panic!("{e}"));
    println!("{name}\n{table}");
    if deep.or(few).is_none() {
        let mut settings = insta::Settings::clone_current();
        settings.set_description(
            "operations tried at each depth; refused for want of memory; states not met before",
        );
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, table.to_string()));
    }
}

fn from_nothing(name: &str, fork: ForkPolicy) {
    explore(name, fork, FRAMES, alphabet::NOTHING, alphabet::FROM_NOTHING, 5);
}

fn after_fork(name: &str, fork: ForkPolicy, frames: u64) {
    explore(name, fork, frames, alphabet::FORKED, alphabet::AFTER_FORK, 3);
}

fn deep_after_fork(name: &str, fork: ForkPolicy) {
    explore(name, fork, FRAMES, alphabet::FORKED, alphabet::DEEP, 5);
}

#[test]
fn from_nothing_with_eager_forks() {
    from_nothing("from_nothing_eager", ForkPolicy::Eager);
}

#[test]
fn from_nothing_with_lazy_forks() {
    from_nothing("from_nothing_lazy", ForkPolicy::Lazy);
}

#[test]
fn after_an_eager_fork() {
    after_fork("after_fork_eager", ForkPolicy::Eager, FRAMES);
}

#[test]
fn after_a_lazy_fork() {
    after_fork("after_fork_lazy", ForkPolicy::Lazy, FRAMES);
}

#[test]
fn deep_after_an_eager_fork() {
    deep_after_fork("deep_after_fork_eager", ForkPolicy::Eager);
}

#[test]
fn deep_after_a_lazy_fork() {
    deep_after_fork("deep_after_fork_lazy", ForkPolicy::Lazy);
}

/// Memory runs out, and what is refused leaves all as it was.
#[test]
fn with_too_few_frames() {
    after_fork("too_few_frames", ForkPolicy::Eager, TOO_FEW);
}
