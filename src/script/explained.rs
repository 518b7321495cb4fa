//! Answers that may differ, each for a reason that is understood.
//!
//! # The difficulty
//!
//! A machine is judged by others: a Linux kernel, models that know bytes and no pages. Some answers differ and both sides are right by their own lights. To
//! leave such operations out, or to let any answer of theirs pass, would hide the next mistake behind the last excuse.
//!
//! # The rule
//!
//! One table, [`EXPLAINED`]. A row names what the machine answered, what the judge answered, and an exact condition on the state the operation met; the same
//! operation with other answers, or in another state, is a difference. The state is that of the naive model, which is driven through everything that came
//! before, with notes kept beside it that the model itself has no use for:
//!
//! ```text
//!   lock 0 8 4            page 10 is a hole:  ENOMEM, nothing locked          (illumos undoes)
//!                         stuck = {8, 9}      what a judge that does not undo still calls locked
//!
//!   truncate F 0          the locked page 3 of the file is no more, nor is the claim on it
//!                         lapsed = {3}        what a judge that locks addresses still calls locked
//!
//!   map 0 0 4 ... noreserve
//!   write 0 2 1           pages 0, 1 and 3 were never touched: nothing is reserved for them
//!   lock 0 0 4            and they are passed over                            (illumos makes no page)
//!                         skipped = {0, 1, 3}
//! ```
//!
//! Conditions speak of the pages an operation walks: those up to the first hole, in order.
//!
//! Where a judge's document and `illumos.md` disagree, `illumos.md` is right, and the row names its section.

use std::collections::BTreeSet;
use std::fmt;

use crate::model::{Backing, Model, Page};

use super::ast::{Advice, Operation, Placement, Prot, Range};
use super::books::{Books, wraps};
use super::frames::Place;

/// A difference that is understood.
pub struct Explained {
    /// What the machine answers, as result lines have it.
    pub ours: &'static [&'static str],
    /// What the judge answers.
    pub theirs: &'static [&'static str],
    /// When that is so.
    holds: fn(&Scene<'_>) -> bool,
    /// One side did it and the other did not: what follows cannot be compared.
    pub departs: bool,
    /// Where it is written that the machine is right.
    pub section: &'static str,
    /// Why they differ.
    pub reason: &'static str,
}

impl fmt::Debug for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explained").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Every difference that is understood, one row each.
pub const EXPLAINED: &[Explained] = &[
    Explained {
        ours: &["EBUSY"],
        theirs: &["ok", "ENOMEM"],
        holds: |s| s.walked().any(|(n, page)| s.is_claimed_elsewhere(n, page)),
        departs: false,
        section: "illumos.md 4.8, sync",
        reason: "what any process has locked is not thrown away; others ask the caller's own locks only",
    },
    Explained {
        ours: &["ok", "ENOMEM"],
        theirs: &["EBUSY"],
        holds: |s| s.nothing_is_claimed() && s.walked().any(|(n, _)| s.is_in(&s.books.stuck, n)),
        departs: false,
        section: "illumos.md 3.8, MC_LOCK",
        reason: "a lock that fails half way is undone; the model keeps its first pages locked",
    },
    Explained {
        ours: &["ok", "ENOMEM"],
        theirs: &["EBUSY"],
        holds: |s| s.nothing_is_claimed() && s.walked().any(|(n, _)| s.is_in(&s.books.skipped, n)),
        departs: false,
        section: "illumos.md 4.8, lockop: NORESERVE holes",
        reason: "where nothing is reserved, a lock passes over pages that nobody has touched; others lock addresses",
    },
    Explained {
        ours: &["ok", "ENOMEM"],
        theirs: &["EBUSY"],
        holds: |s| s.nothing_is_claimed() && s.walked().any(|(n, _)| s.is_in(&s.books.lapsed, n)),
        departs: false,
        section: "illumos.md 4.8, lockop",
        reason: "a page past the end of its file cannot be locked, and one cut off is no more; a model locks addresses",
    },
    Explained {
        ours: &["ENOMEM"],
        theirs: &["EINVAL"],
        holds: |s| s.length_wraps(),
        departs: false,
        section: "illumos.md 3.8, common",
        reason: "a length that wraps is no address space (ENOMEM); the model has Linux's answer to some",
    },
    Explained {
        ours: &["EFAULT"],
        theirs: &["ok", "ENOMEM"],
        holds: |s| s.wants_pages_past_the_end(),
        departs: false,
        section: "illumos.md 3.8, WILLNEED; 4.4, GETPAGE",
        reason: "asking for pages past the end of a file fails as the read would; the model does not look",
    },
    Explained {
        ours: &["EINVAL"],
        theirs: &["ENOMEM"],
        holds: |s| s.length_is_negative(),
        departs: false,
        section: "src/machine/personality.rs, row 24",
        reason: "the length of `incore` is a signed number; the model has Linux's answer",
    },
    Explained {
        ours: &["ENOTSUP"],
        theirs: &["EINVAL"],
        holds: |s| matches!(s.operation, Operation::Protect(_, Prot::Bad)),
        departs: false,
        section: "illumos.md 3.7, mprotect",
        reason: "unknown bits of protection are not supported; the model has Linux's answer",
    },
    Explained {
        ours: &["ENOTSUP", "EACCES"],
        theirs: &["ok", "ok moved"],
        holds: |s| matches!(s.operation, Operation::Map(m) if m.prot == Prot::Bad),
        departs: true,
        section: "illumos.md 3.12, mmap",
        reason: "nothing is mapped with unknown bits of protection; the model maps, as Linux does",
    },
    Explained {
        ours: &["EACCES"],
        theirs: &["EEXIST"],
        holds: |s| matches!(s.operation, Operation::Map(m) if m.placement == Placement::NoReplace),
        departs: false,
        section: "illumos.md 3.12, mmap",
        reason: "a file's rights come before the place; the model looks for room first, as Linux does",
    },
];

/// Looks for the row that explains why `operation`, which followed `past`, was answered `ours` by a machine and `theirs` by somebody else.
pub fn explanation<'a>(
    past: impl IntoIterator<Item = &'a Operation>,
    operation: &Operation,
    ours: &str,
    theirs: &str,
) -> Option<&'static Explained> {
    let fits = |e: &&Explained| e.ours.contains(&ours) && e.theirs.contains(&theirs);
    if !EXPLAINED.iter().any(|e| fits(&e)) {
        return None;
    }
    let mut books = Books::new();
    past.into_iter().for_each(|o| books.enter(o));
    let scene = Scene { books: &books, operation };
    EXPLAINED.iter().filter(fits).find(|e| (e.holds)(&scene))
}

/// An operation and the state it met.
struct Scene<'a> {
    books: &'a Books,
    operation: &'a Operation,
}

impl Scene<'_> {
    fn model(&self) -> &Model {
        self.books.model.world()
    }

    /// The range of an operation that throws pages out of memory.
    fn thrown_away(&self) -> Option<&Range> {
        match self.operation {
            Operation::Advise(range, Advice::DontNeed) => Some(range),
            Operation::Sync(range, flags) if flags.invalidate => Some(range),
            _ => None,
        }
    }

    /// The pages that such an operation walks; of any other, none.
    fn walked(&self) -> impl Iterator<Item = (u64, &Page)> {
        let range = self.thrown_away();
        range.into_iter().flat_map(|r| self.books.walked(r)).map(|((_, n), page)| (n, page))
    }

    fn is_in(&self, places: &BTreeSet<Place>, n: u64) -> bool {
        let slot = self.thrown_away().and_then(|r| self.books.slot(&r.proc));
        slot.is_some_and(|slot| places.contains(&(slot, n)))
    }

    /// No page that is walked is locked, but for such as have lost their claims or never had any.
    fn nothing_is_claimed(&self) -> bool {
        let books = self.books;
        self.walked().all(|(n, page)| {
            !page.locked || self.is_in(&books.lapsed, n) || self.is_in(&books.skipped, n)
        })
    }

    /// The page is not locked here, but the same frame is, at another place.
    fn is_claimed_elsewhere(&self, n: u64, page: &Page) -> bool {
        let (model, books) = (self.model(), self.books);
        let Some(slot) = self.thrown_away().and_then(|r| books.slot(&r.proc)) else { return false };
        let everyone = model.processes().iter();
        let everyone = everyone.flat_map(|(of, p)| p.pages().iter().map(|(m, q)| ((*of, *m), q)));
        let mut claims = everyone.filter(|(place, other)| {
            other.locked && !books.lapsed.contains(place) && !books.skipped.contains(place)
        });
        !page.locked
            && claims.any(|(place, other)| {
                books.frames.are_one((slot, n), place) || of_one_object(model, page, other)
            })
    }

    fn length_wraps(&self) -> bool {
        match self.operation {
            Operation::Advise(range, _)
            | Operation::Sync(range, _)
            | Operation::Lock(range)
            | Operation::Unlock(range) => wraps(range),
            _ => false,
        }
    }

    fn length_is_negative(&self) -> bool {
        let Operation::Incore(range) = self.operation else { return false };
        range.len.resolve(range.addr.resolve(Model::LAYOUT)) > i64::MAX as u64
    }

    fn wants_pages_past_the_end(&self) -> bool {
        let Operation::Advise(range, Advice::WillNeed) = self.operation else { return false };
        let model = self.model();
        self.books.walked(range).any(|(_, page)| model.is_past_end(page))
    }
}

/// Two pages show the same page of an object, and neither a copy of it.
fn of_one_object(model: &Model, page: &Page, other: &Page) -> bool {
    let of_object = matches!(page.backing, Backing::Object { .. });
    of_object && page.backing == other.backing && !model.is_copied(page) && !model.is_copied(other)
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;

    /// The row that explains the last statement of a script, by its reason's first words.
    fn why(script: &str, ours: &str, theirs: &str) -> Option<&'static str> {
        let script = parse(script).expect("parses");
        let operations: Vec<&Operation> = script.operations().collect();
        let (last, past) = operations.split_last().expect("a statement");
        explanation(past.iter().copied(), last, ours, theirs).map(|e| e.section)
    }

    const LOCKS: Option<&str> = Some("illumos.md 4.8, sync");
    const UNDONE: Option<&str> = Some("illumos.md 3.8, MC_LOCK");
    const SKIPPED: Option<&str> = Some("illumos.md 4.8, lockop: NORESERVE holes");
    const LAPSED: Option<&str> = Some("illumos.md 4.8, lockop");

    #[test]
    fn a_lock_of_somebody_else_explains_a_refusal() {
        let two = "map 0 0 4 rw shared fixed anon; fork 0 1; lock 1 1 1; ";
        assert_eq!(why(&format!("{two} advise 0 0 2 dontneed"), "EBUSY", "ok"), LOCKS);
        assert_eq!(why(&format!("{two} sync 0 1 9 sync+inval"), "EBUSY", "ENOMEM"), LOCKS);
        // Not what nobody locks, not what is behind a hole, and not a refusal of something else.
        assert_eq!(why(&format!("{two} advise 0 2 2 dontneed"), "EBUSY", "ok"), None);
        assert_eq!(
            why(&format!("{two} unmap 0 0 1; advise 0 0 2 dontneed"), "EBUSY", "ENOMEM"),
            None
        );
        assert_eq!(why(&format!("{two} advise 0 0 2 normal"), "EBUSY", "ok"), None);
        assert_eq!(why(&format!("{two} sync 0 0 2 sync"), "EBUSY", "ok"), None);
        assert_eq!(why(&format!("{two} unlock 1 1 1; advise 0 0 2 dontneed"), "EBUSY", "ok"), None);
        assert_eq!(why(&format!("{two} exit 1; advise 0 0 2 dontneed"), "EBUSY", "ok"), None);
    }

    #[test]
    fn what_a_fork_left_two_with_is_one_frame_until_somebody_stores() {
        let two = "map 0 0 2 rw priv fixed anon; write 0 0 2 7; lock 0 0 2; fork 0 1; ";
        assert_eq!(why(&format!("{two} advise 1 0 2 dontneed"), "EBUSY", "ok"), LOCKS);
        assert_eq!(
            why(&format!("{two} write 1 0 2 9; advise 1 0 2 dontneed"), "EBUSY", "ok"),
            None
        );
    }

    #[test]
    fn what_moves_no_bytes_leaves_the_frame_as_it_is() {
        let two = "map 0 0 2 rw priv fixed anon; fork 0 1; lock 0 0 2; fork 0 2; ";
        let dontneed = "advise 2 0 2 dontneed";
        // No such file; one that ends before the second page is reached; and one that does not.
        assert_eq!(why(&format!("{two} fread 2 3 0 0 2; {dontneed}"), "EBUSY", "ok"), LOCKS);
        let short = "file 3 4096 rw; fread 2 3 0 0 2; ";
        assert_eq!(why(&format!("{two} {short} {dontneed}"), "EBUSY", "ok"), LOCKS);
        let whole = "file 3 8192 rw; fread 2 3 0 0 2; ";
        assert_eq!(why(&format!("{two} {whole} {dontneed}"), "EBUSY", "ok"), None);
        // What stops at a page that is not there has read the one before it, which is then one for both sides of a fork.
        let stopped = "file 2 4096 rw; brk 0 8; fwrite 0 2 4096 b:7 2; fork 0 3; lock 0 b:6 2; ";
        let sync = "sync 3 b:0 8 sync+inval";
        assert_eq!(why(&format!("{stopped} {sync}"), "EBUSY", "ok"), LOCKS);
        let refused = "brk 0 8; fwrite 0 2 4096 b:7 2; fork 0 3; lock 0 b:6 2; ";
        assert_eq!(why(&format!("{refused} {sync}"), "EBUSY", "ok"), None);
    }

    #[test]
    fn the_same_bytes_are_not_the_same_frame() {
        let two = "map 0 0 4 rw priv fixed anon; write 0 0 1 7; write 0 2 1 7; fork 0 1; ";
        // Both have stored the same, at the same place.
        let both = format!("{two} write 1 0 1 7; lock 0 0 1; ");
        assert_eq!(why(&format!("{both} advise 1 0 1 dontneed"), "EBUSY", "ok"), None);
        // Nobody had touched it before the fork.
        let late = format!("{two} lock 0 1 1; read 1 1 1; ");
        assert_eq!(why(&format!("{late} advise 1 1 1 dontneed"), "EBUSY", "ok"), None);
        // Another page with the same bytes; and the one that was moved.
        let moved = format!("{two} lock 0 0 1; remap 1 0 1 1 may+fixed 3; ");
        assert_eq!(why(&format!("{moved} advise 1 2 1 dontneed"), "EBUSY", "ok"), None);
        assert_eq!(why(&format!("{moved} advise 1 3 1 dontneed"), "EBUSY", "ok"), LOCKS);
        // What is thrown away is another page when it is found again.
        let gone = format!("{two} lock 0 0 1; advise 1 0 1 discard; write 1 0 1 7; ");
        assert_eq!(why(&format!("{gone} advise 1 0 1 dontneed"), "EBUSY", "ok"), None);
        // One that is handed on is one whoever stores.
        let handed = "map 0 0 1 rw priv fixed anon; inherit 0 0 1 share; fork 0 1; write 1 0 1 7; ";
        let handed = format!("{handed} lock 1 0 1; advise 0 0 1 dontneed");
        assert_eq!(why(&handed, "EBUSY", "ok"), LOCKS);
    }

    #[test]
    fn what_is_brought_in_as_it_is_mapped_is_one_frame_after_a_fork() {
        let two =
            |how: &str| format!("map 0 0 2 {how}; fork 0 1; lock 0 0 1; sync 1 0 2 sync+inval");
        assert_eq!(why(&two("rw priv fixed anon populate"), "EBUSY", "ok"), LOCKS);
        assert_eq!(why(&two("rw priv fixed anon"), "EBUSY", "ok"), None);
        assert_eq!(why(&two("- priv fixed anon populate"), "EBUSY", "ok"), None);
    }

    #[test]
    fn a_failed_lock_explains_a_refusal_until_it_is_unlocked() {
        let hole = "map 0 0 2 rw priv fixed anon; lock 0 0 3; ";
        assert_eq!(why(&format!("{hole} advise 0 0 2 dontneed"), "ok", "EBUSY"), UNDONE);
        for undone in ["unlock 0 0 2", "unlockall 0", "map 0 0 2 rw priv fixed anon"] {
            assert_eq!(
                why(&format!("{hole} {undone}; advise 0 0 2 dontneed"), "ok", "EBUSY"),
                None,
                "{undone}"
            );
        }
        assert_eq!(why(&format!("{hole} lock 0 1 1; advise 0 0 2 dontneed"), "ok", "EBUSY"), None);
        // What is refused for its arguments locks and unlocks nothing.
        for refused in ["unlock 0 0 @wrap", "unlock 0 0 @max", "unlock 0 0+1 1"] {
            assert_eq!(
                why(&format!("{hole} {refused}; advise 0 0 2 dontneed"), "ok", "EBUSY"),
                UNDONE,
                "{refused}"
            );
        }
        let wrapped = "map 0 0 2 rw priv fixed anon; lock 0 0 @wrap; advise 0 0 2 dontneed";
        assert_eq!(why(wrapped, "ok", "EBUSY"), None);
    }

    #[test]
    fn a_page_that_was_cut_off_has_no_claim_until_it_is_copied() {
        let cut = "file 0 8192; map 0 0 2 rw priv fixed file 0 0; lock 0 0 2; truncate 0 4096; truncate 0 8192; ";
        assert_eq!(why(&format!("{cut} sync 0 1 1 sync+inval"), "ok", "EBUSY"), LAPSED);
        assert_eq!(why(&format!("{cut} sync 0 0 2 sync+inval"), "ok", "EBUSY"), None);
        assert_eq!(
            why(&format!("{cut} write 0 1 1 3; sync 0 1 1 sync+inval"), "ok", "EBUSY"),
            None
        );
    }

    #[test]
    fn what_was_never_there_is_locked_by_the_next_lock() {
        let late = "file 0 4096; map 0 0 2 rw shared fixed file 0 0; fork 0 1; lock 0 0 2; truncate 0 8192; ";
        assert_eq!(why(&format!("{late} sync 0 1 1 sync+inval"), "ok", "EBUSY"), LAPSED);
        let again = format!("{late} lock 0 1 1; ");
        assert_eq!(why(&format!("{again} sync 0 1 1 sync+inval"), "ok", "EBUSY"), None);
        assert_eq!(why(&format!("{again} sync 1 1 1 sync+inval"), "EBUSY", "ok"), LOCKS);
    }

    #[test]
    fn a_page_locked_past_the_end_is_not_claimed_by_a_copy() {
        let past = "file 0 4096; map 0 0 2 rw priv fixed file 0 0; lock 0 0 2; truncate 0 8192; write 0 1 1 3; ";
        assert_eq!(why(&format!("{past} advise 0 1 1 dontneed"), "ok", "EBUSY"), LAPSED);
        assert_eq!(why(&format!("{past} lock 0 1 1; advise 0 1 1 dontneed"), "ok", "EBUSY"), None);
    }

    #[test]
    fn what_is_locked_again_has_a_claim_again() {
        let two = "file 0 8192; fork 0 1; map 0 0 2 rw shared fixed file 0 0; map 1 0 2 rw shared fixed file 0 0; ";
        let cut = format!("{two} lock 0 0 2; truncate 0 0; truncate 0 8192; ");
        assert_eq!(why(&format!("{cut} sync 0 1 1 sync+inval"), "ok", "EBUSY"), LAPSED);
        for again in ["lock 0 0 2", "lockall 0 current"] {
            let again = format!("{cut} {again}; ");
            assert_eq!(why(&format!("{again} sync 0 1 1 sync+inval"), "ok", "EBUSY"), None);
            assert_eq!(why(&format!("{again} sync 1 1 1 sync+inval"), "EBUSY", "ok"), LOCKS);
        }
        assert_eq!(why(&format!("{cut} sync 1 1 1 sync+inval"), "EBUSY", "ok"), None);
        assert_eq!(
            why(&format!("{cut} lockall 0 future; sync 0 1 1 sync+inval"), "ok", "EBUSY"),
            LAPSED
        );
    }

    #[test]
    fn what_nobody_touched_is_locked_as_it_is_touched() {
        let map = "lockall 0 future; map 0 0 3 rw priv fixed anon noreserve; write 0 1 1 5; ";
        assert_eq!(why(&format!("{map} sync 0 0 1 sync+inval"), "ok", "EBUSY"), SKIPPED);
        assert_eq!(why(&format!("{map} sync 0 1 1 sync+inval"), "ok", "EBUSY"), None);
    }

    #[test]
    fn what_nobody_touched_is_passed_over_where_nothing_is_reserved() {
        let all = "map 0 0 3 rw priv fixed anon noreserve; write 0 1 1 5; lock 0 0 3; ";
        assert_eq!(why(&format!("{all} sync 0 0 1 sync+inval"), "ok", "EBUSY"), SKIPPED);
        assert_eq!(why(&format!("{all} sync 0 0 2 sync+inval"), "ok", "EBUSY"), None);
        // Touching it later does not lock it; another lock does.
        assert_eq!(
            why(&format!("{all} read 0 0 1; sync 0 0 1 sync+inval"), "ok", "EBUSY"),
            SKIPPED
        );
        assert_eq!(
            why(&format!("{all} read 0 0 1; lock 0 0 1; sync 0 0 1 sync+inval"), "ok", "EBUSY"),
            None
        );
        assert_eq!(why(&format!("{all} unlock 0 0 3; sync 0 0 1 sync+inval"), "ok", "EBUSY"), None);
        let child = "map 0 0 3 rw priv fixed anon noreserve; write 0 1 1 5; fork 0 1; lock 1 0 3; ";
        assert_eq!(why(&format!("{child} advise 1 0 1 dontneed"), "ok", "EBUSY"), SKIPPED);
        assert_eq!(why(&format!("{child} advise 1 1 1 dontneed"), "ok", "EBUSY"), None);
        let reserved = "map 0 0 3 rw priv fixed anon; lock 0 0 3; ";
        assert_eq!(why(&format!("{reserved} sync 0 0 1 sync+inval"), "ok", "EBUSY"), None);
        let future = "lockall 0 future; map 0 0 3 rw priv fixed anon noreserve; ";
        assert_eq!(why(&format!("{future} sync 0 0 1 sync+inval"), "ok", "EBUSY"), SKIPPED);
    }

    #[test]
    fn errors_of_arguments_are_explained_for_those_arguments_only() {
        assert!(why("lock 0 0 @wrap", "ENOMEM", "EINVAL").is_some());
        assert!(why("lock 0 0 4", "ENOMEM", "EINVAL").is_none());
        assert!(why("incore 0 0 @max", "EINVAL", "ENOMEM").is_some());
        assert!(why("incore 0 0 4", "EINVAL", "ENOMEM").is_none());
        assert!(why("protect 0 0 4 bad", "ENOTSUP", "EINVAL").is_some());
        assert!(why("protect 0 0 4 rw", "ENOTSUP", "EINVAL").is_none());
        let file = "file 0 4096; map 0 0 2 r priv fixed file 0 0; ";
        assert!(why(&format!("{file} advise 0 0 2 willneed"), "EFAULT", "ok").is_some());
        assert!(why(&format!("{file} advise 0 0 1 willneed"), "EFAULT", "ok").is_none());
        assert!(why("map 0 0 1 bad priv fixed anon", "ENOTSUP", "ok").is_some_and(|_| true));
        let taken = "file 0 4096 wo; map 0 0 1 rw priv fixed anon; map 0 0 1 rw priv";
        assert!(why(&format!("{taken} noreplace file 0 0"), "EACCES", "EEXIST").is_some());
        assert!(why(&format!("{taken} fixed file 0 0"), "EACCES", "EEXIST").is_none());
    }

    #[test]
    fn every_row_has_its_reason_and_its_section() {
        for row in EXPLAINED {
            assert!(!row.reason.is_empty() && !row.section.is_empty(), "{row:?}");
        }
    }
}
