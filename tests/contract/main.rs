//! The contract suites over every implementation in the repository, and over flawed ones: each flaw breaks one clause, and is caught by it.

mod hash;
mod hat;
mod memory;
mod mmu;
mod seg;
mod swap;
mod vnode;

use segvm::contract::Breach;

/// The suite found a breach of the clause that begins with `clause`.
#[track_caller]
fn caught(flaw: impl std::fmt::Debug, checked: Result<(), Breach>, clause: &str) {
    match checked {
        Ok(()) => panic!("{flaw:?} went unnoticed"),
        Err(breach) => {
            assert!(breach.clause.starts_with(clause), "{flaw:?} was caught by another: {breach}");
            assert!(breach.to_string().contains(clause) && !breach.facts.is_empty());
        }
    }
}
