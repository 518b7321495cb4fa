//! A machine put together by hand, from the five library crates and nothing else: what an embedder's kernel does.
//!
//! ```text
//!   tests/       under a host's test harness, with hooks that yield to its scheduler and count
//!   freestanding with nothing under it: no libc, no std, its own allocator        (a package of its own)
//!        │
//!        ▼
//!   tour ─▶ machine: frames, page database, swap, hat, simulated processors, page-out, kernel ─▶ the five crates without std
//!              └─▶ rom: a file, which no crate has an opinion about
//! ```
//!
//! The facade does the same with more comfort. Here nothing is hidden, and everything is `core` and `alloc`.

#![no_std]

extern crate alloc;

pub mod machine;
pub mod rom;
pub mod tour;

pub use machine::Machine;
pub use rom::RomFile;
pub use tour::{Report, tour};

use alloc::boxed::Box;

/// Whatever went wrong; the library's errors convert by `?`.
pub type Error = Box<dyn core::error::Error + Send + Sync>;
/// The result of a step.
pub type Result<T> = core::result::Result<T, Error>;

/// Fails with a sentence unless something holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(alloc::format!($($what)+).into());
        }
    };
}
pub(crate) use ensure;
