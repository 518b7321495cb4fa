//! What can go wrong besides [`HatError`]: setting up, and damage that a check found.

use addr_space::HatError;
use alloc::string::String;

/// Why a [`HatX86`](crate::HatX86) cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    /// No frame, or no heap, for the kernel's tables and what each processor remembers of them.
    #[error("cannot make the kernel's page tables: {0}")]
    Tables(#[from] HatError),
    /// The page database has a hat already; a page's translations are kept by one.
    #[error("the page database has a hat already")]
    SecondHat,
    /// The processors look at other memory than the page database's, or have a hat already ([`Mmu::serves`](crate::Mmu::serves)).
    #[error("the processors are another machine's")]
    ForeignMmu,
    /// A frame whose number no entry can hold.
    #[error("frame {pfn:?} is out of the reach of a page table")]
    OutOfReach {
        /// The last frame.
        pfn: page_db::Pfn,
    },
}

/// A broken invariant of the hat; see the list in [`crate`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct HatDamage {
    /// The invariant's short name.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

impl HatDamage {
    pub(crate) fn new(invariant: &'static str, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}
