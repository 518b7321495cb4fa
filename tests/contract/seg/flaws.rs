//! Each flaw of a driver, and the clause that catches it.

use super::desk::Desk;
use super::flawed::{Flaw, FlawedArgs};
use crate::caught;
use addr_space::SegKind;
use page_db::Prot;
use segvm::contract::{Breach, SegCan};
use segvm::machine::ForkPolicy;

/// What the flawed driver maps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Private,
    Shared,
    PrivateFile,
    SharedFile,
}

fn judged(flaw: Flaw, over: Over) -> Result<(), Breach> {
    let desk = Desk::new(ForkPolicy::Eager);
    let (shared, file) = match over {
        Over::Private => (false, false),
        Over::Shared => (true, false),
        Over::PrivateFile => (false, true),
        Over::SharedFile => (true, true),
    };
    let kind = if shared { SegKind::SHARED } else { SegKind::empty() };
    let mut inner = if file { desk.file(kind) } else { desk.memory(kind) };
    if flaw == Flaw::IgnoresTheCeiling {
        inner.max_prot = Prot::RW;
    }
    let mut can = if file { Desk::FILE } else { Desk::ANON };
    can.set(SegCan::SHARE, shared);
    can.set(SegCan::LEND, flaw != Flaw::LendsAnonsOnly);
    let behind = |n| desk.word_of_file(n);
    desk.check("flawed", &FlawedArgs { inner, flaw }, can, file.then_some(&behind as _))
}

#[track_caller]
fn all_caught(over: Over, flaws: &[(Flaw, &str)]) {
    for (flaw, clause) in flaws {
        caught(flaw, judged(*flaw, over), clause);
    }
}

use Flaw::*;

#[test]
fn flaws_of_life_and_faults_are_caught() {
    let flaws = [
        (FreesNothing, "unmap and free give everything back"),
        (LeavesATranslation, "unmap removes translations"),
        (StartsWithOldBytes, "a new mapping shows what is mapped"),
        (SaysItIsShared, "a driver has one name, and says what kind"),
        (CountsNothing, "pages in use are told as resident"),
        (PushesMoreThanThereIs, "swapout answers for no more bytes"),
        (AnswersForTooMany, "incore answers for as many pages"),
        (ResolvesNothing, "after a resolved fault the translation allows"),
        (ResolvesOnePage, "a fault on a range makes every page"),
        (AllowsEverything, "an access that the rights do not allow"),
        (NamesTheFirstPage, "an access that the rights do not allow"),
        (SaysObject, "an access that the rights do not allow"),
        (MapsWhatItReadsAhead, "reading ahead loads no translation"),
        (PopulatesHalf, "populate makes the access possible"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn flaws_of_rights_and_cuts_are_caught() {
    let flaws = [
        (ChangesTheWholeSegment, "set_prot gives its range exactly the rights"),
        (LeavesOldTranslations, "set_prot takes the rights from translations"),
        (IgnoresTheCeiling, "a right beyond the ceiling"),
        (TellsOnePageLess, "after each step every invariant"),
        (SaysLow, "unmap says what is left"),
        (UnmapsForReaders, "whoever has not locked the address space as writer"),
        (LeavesSomethingOfNothing, "unmap says what is left"),
        (ZeroesThePageAbove, "what a cut leaves keeps its contents"),
        (ForgetsRightsAtACut, "what a cut leaves keeps its rights"),
        (ShowsThePageAbove, "what a cut leaves keeps its contents"),
        (ZeroesWhenJoining, "a mapping beside another"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn drivers_that_never_have_an_answer_are_caught() {
    let flaws = [
        (RetriesForEver, "a retry comes to an end"),
        (RetriesFaultsForEver, "a retry comes to an end"),
        (RetriesToBeMade, "a retry comes to an end"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn flaws_of_fork_are_caught() {
    let flaws = [
        (SharesPrivateMemory, "private memory: nobody sees"),
        (GivesZeros, "a child has its parent's segments"),
        (ForgetsRightsAtFork, "a child has its parent's segments"),
        (InheritsBeside, "the run that one driver of a child serves"),
        (InheritsLocks, "memory locks are not inherited"),
        (ForgetsHowToInherit, "inherited as zeros"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn flaws_of_pins_and_locks_are_caught() {
    let flaws = [
        (UnmapsPinned, "pinned pages cannot be unmapped"),
        (MovesPinnedPages, "the page of a pinned address stays"),
        (LeavesHalfASoftLock, "a soft lock that fails half-way"),
        (ListsBackwards, "pinned pages are listed one by one"),
        (ListsWithoutPinning, "pinned pages cannot be unmapped"),
        (NotesTooMuch, "lock notes the pages"),
        (LocksNothing, "locked pages are told as locked"),
        (KeepsLocks, "locks do not nest"),
    ];
    all_caught(Over::Private, &flaws);
    let flaws = [
        (LosesPinsInOneUnlock, "soft locks of one page add up"),
        (TellsNobody, "when the last pin goes"),
    ];
    all_caught(Over::Shared, &flaws);
}

#[test]
fn flaws_of_moves_are_caught() {
    let flaws = [
        (ZeroesWhatMoves, "what is moved keeps its contents"),
        (LeavesTheOldPlace, "where something was moved from"),
        (ForgetsRightsWhenMoving, "what is moved keeps its contents, its offsets and its rights"),
        (DropsLocksWhenMoving, "locks in memory come along"),
        (MovesWhatIsPinned, "a move to where something is, and of pinned pages"),
        (GoesOnWithAllRights, "a mapping goes on with"),
        (GoesOnWithoutTheLock, "a mapping goes on with"),
        (ShowsSomethingElse, "memory shown twice is one memory"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn flaws_of_loans_are_caught() {
    let flaws = [
        (LendsBackwards, "what is lent is what was there"),
        (LendsWhatIsLocked, "what is locked in memory is not lent"),
        (LetsStoreToWhatIsLent, "what is lent is what was there, page by page, and stands still"),
        (LendsTwice, "unmap and free give everything back"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn flaws_about_the_object_are_caught() {
    let flaws = [
        (StaysAtOneOffset, "offsets count up"),
        (NamesNoVnode, "the vnode and the offset of an address"),
        (HasOneIdentity, "identities are equal exactly when"),
        (LosesBytesAtSync, "sync loses no contents"),
        (WritesNothing, "sync writes dirty pages"),
        (ForgetsAdvice, "advice is kept"),
    ];
    all_caught(Over::SharedFile, &flaws);
}

#[test]
fn flaws_of_refusals_and_failures_are_caught() {
    let flaws = [
        (TakesAnyPageSize, "a page size that there is not"),
        (RefusesAsAnother, "what a driver cannot do it answers with NotSupported"),
        (ListsNothing, "what a driver cannot do it answers with NotSupported"),
    ];
    all_caught(Over::PrivateFile, &flaws);
    let flaws = [
        (LendsAnonsOnly, "what a driver cannot do it answers with NotSupported"),
        (HasOffsetsInNothing, "memory without a vnode has the offset 0"),
        (HidesFailures, "what says that it is done is done"),
        (KeepsLocksOfAFailure, "a failure leaves the state before"),
        (LeaksWhenItCannotBeMade, "a failure leaves the state before"),
    ];
    all_caught(Over::Private, &flaws);
}

#[test]
fn a_driver_that_mixes_up_its_threads_is_caught() {
    // Which of two threads gets the other's answer, and which clause it breaks by that, is chance.
    let clauses = ["faults ", "when a change of rights returns"];
    let breach = judged(MixesUpItsCallers, Over::Private).expect_err("noticed");
    assert!(clauses.iter().any(|c| breach.clause.starts_with(c)), "{breach}");
}
