//! What every implementation of a trait of this crate must do, as checks that anybody can run over their own.
//!
//! # The difficulty
//!
//! A trait's documentation is a promise between people. The compiler holds an implementation to the signatures and to nothing else: a hash
//! that loses one page in a thousand, a pager that forgets a store, compile as well as good ones, and show it far from where it went wrong.
//!
//! # The rule
//!
//! ```text
//!   clause of the documentation ─▶ a scene that only a keeper of it survives ─▶ Breach: whose, which clause, what was seen
//! ```
//!
//! A suite asks through the trait alone, of one implementation at a time, and stops at the first clause that does not hold. What a trait
//! leaves open (a hint that misses, an operation answered with "not supported") a suite leaves open too. Each comes twice: `check_` returns
//! the [`Breach`], the plain name panics with it, for tests.
//!
//! The suites of the other traits are built the same way in the crates that own them; the facade `segvm::contract` has all of them.
//!
//! The road not taken: one suite over a whole machine. It would find as much, and say less: which of five parts was wrong is the question.

mod hash;
mod phys_mem;
#[cfg(all(feature = "std", not(shuttle)))]
mod steps;
mod vnode;

pub use hash::{check_page_hash, page_hash};
pub use phys_mem::{check_phys_mem, phys_mem};
pub use vnode::{Transfer, VnodeCase, check_vnode, vnode};

use crate::cx::Cx;
use alloc::format;
use alloc::string::String;
use core::fmt;

#[cfg(all(feature = "std", not(shuttle)))]
const FALLS: &str = "it does not panic";
const HOLDS: &str = "no lock is held past a call";

/// A clause of a trait's contract that does not hold, and how that was seen.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{contract} `{subject}` breaks the clause \"{clause}\": {facts}")]
pub struct Breach {
    /// The trait.
    pub contract: &'static str,
    /// Which implementation: its own name for itself.
    pub subject: String,
    /// What it must do, in the words of the trait's documentation.
    pub clause: &'static str,
    /// What it did.
    pub facts: String,
}

impl Breach {
    /// Ends a test with the breach as its message, if there is one.
    ///
    /// # Panics
    /// When there is one.
    #[track_caller]
    pub fn raise(checked: Result<(), Self>) {
        if let Err(breach) = checked {
            panic!("{breach}");
        }
    }
}

/// Who is being judged, by what; the means to write a suite with.
#[derive(Clone, Debug)]
pub struct Judge {
    contract: &'static str,
    subject: String,
}

impl Judge {
    /// A judge of `subject` by the contract of the trait `contract`.
    pub fn new(contract: &'static str, subject: impl Into<String>) -> Self {
        Self { contract, subject: subject.into() }
    }
    /// Goes on if the clause held.
    ///
    /// # Errors
    /// The breach, when it did not.
    pub fn require(
        &self,
        clause: &'static str,
        held: bool,
        facts: fmt::Arguments<'_>,
    ) -> Result<(), Breach> {
        if held { Ok(()) } else { Err(self.breach(clause, facts)) }
    }
    /// Goes on if what was seen is what the clause demands.
    ///
    /// # Errors
    /// The breach with both.
    pub fn same<T: PartialEq + fmt::Debug>(
        &self,
        clause: &'static str,
        what: fmt::Arguments<'_>,
        seen: T,
        due: T,
    ) -> Result<(), Breach> {
        self.require(clause, seen == due, format_args!("{what} is {seen:?}, not {due:?}"))
    }
    /// The breach of a clause.
    pub fn breach(&self, clause: &'static str, facts: fmt::Arguments<'_>) -> Breach {
        Breach {
            contract: self.contract,
            subject: self.subject.clone(),
            clause,
            facts: format!("{facts}"),
        }
    }
    /// Runs `work` on three threads beside each other, which it is told apart by.
    ///
    /// # Errors
    /// The first of their breaches, a panic among them.
    #[cfg(all(feature = "std", not(shuttle)))]
    pub fn three_threads(
        &self,
        work: impl Fn(usize) -> Result<(), Breach> + Sync,
    ) -> Result<(), Breach> {
        std::thread::scope(|s| {
            let work = &work;
            let threads = [0, 1, 2].map(|me| s.spawn(move || work(me)));
            threads.map(|t| t.join()).into_iter().try_for_each(|ended| self.ended(ended)?)
        })
    }
    /// What a thread ended with.
    ///
    /// # Errors
    /// The breach, when it panicked.
    #[cfg(all(feature = "std", not(shuttle)))]
    pub fn ended<T>(&self, thread: std::thread::Result<T>) -> Result<T, Breach> {
        thread.map_err(|_| self.breach(FALLS, format_args!("a thread fell")))
    }
    /// Goes on if the thread holds no lock. Only a debug build knows.
    ///
    /// # Errors
    /// The breach, with the ranks that are held.
    pub fn holds_nothing(&self, cx: &Cx, after: &str) -> Result<(), Breach> {
        let held = cx.held();
        self.require(HOLDS, held.is_empty(), format_args!("after {after}, {held:?} is held"))
    }
}
