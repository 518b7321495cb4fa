//! Integration tests: a test is a script and a table.
//!
//! One binary, one file per subject. Scripts meet the API in `harness` alone, so that a hundred tests survive a change of signature. Every
//! statement is followed by `verify()`: a broken invariant fails the test at the statement that broke it.
//!
//! A stored snapshot carries its description and shows one concern in under forty lines. To accept changed ones: `INSTA_UPDATE=always cargo test -p segvm --test it`.

#[cfg(debug_assertions)]
mod allocations;
mod control;
mod harness;
mod held;
mod identity;
mod inherit;
mod kluster;
#[cfg(debug_assertions)]
mod locks;
mod no_heap;
mod parts;

pub(crate) use harness::{Scene, check, compare, run_ok};

#[cfg(debug_assertions)]
mod costs;
mod discard;
mod seeds_keyronex;
mod seeds_overview;
mod segment_trees;
mod short_of_frames;
mod swap_out;
mod textbook;
mod truncation;
mod vfork;
mod watch;
