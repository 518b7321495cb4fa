//! Refusals that go by who has memory, and how much there is.
//!
//! A naive model has no memory to run out of, and no devices that hold on to it. Where a machine refuses for such a reason, nothing has been done, and the
//! model does not do it either; that nothing is what can be seen then, contents show. What may be refused, with what, and when, is one table: any other
//! refusal that the model does not give is a difference.
//!
//! Which operations meet a pin goes by segments, of which nobody outside knows; so whoever has pinned anything may be in the way of any of them.

use std::collections::BTreeSet;
use std::fmt;

use super::ast::{AccessRange, Advice, Length, Operation, Range};
use super::outcome::{Errno, Outcome};

/// A refusal that is understood.
pub(super) struct Refusal {
    with: fn(&Outcome) -> bool,
    of: fn(&Operation) -> bool,
    when: fn(&Held, &Operation) -> bool,
    /// The model does it all the same: there it is done, and here it was before.
    pub(super) goes_on: bool,
    why: &'static str,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal").field("why", &self.why).finish_non_exhaustive()
    }
}

use Operation as O;

/// Every refusal that is understood, one row each.
const REFUSALS: &[Refusal] = &[
    Refusal {
        with: |a| *a == Outcome::Errno(Errno::EINVAL),
        of: |o| matches!(o, O::Pinned(_) | O::Unpin(_)),
        when: |held, o| matches!(o, O::Pinned(n) | O::Unpin(n) if held.pins.contains(n)),
        goes_on: true,
        why: "whoever waits for a device stops it, and that ends its pin",
    },
    Refusal {
        with: |a| *a == Outcome::Errno(Errno::EAGAIN),
        of: |o| {
            matches!(
                o,
                O::Sync(..)
                    | O::Advise(..)
                    | O::Lend(_)
                    | O::LendAnon(_)
                    | O::ShareRange { .. }
                    | O::Remap { .. }
                    | O::Inherit(..)
                    | O::Watch(..)
                    | O::Unwatch(_)
                    | O::Fork { .. }
                    | O::Pin(..)
            )
        },
        when: |held, _| !held.pins.is_empty(),
        goes_on: false,
        why: "a device has pages of the same segment, or this page through another mapping",
    },
    Refusal {
        with: |a| *a == Outcome::Errno(Errno::EDEADLK),
        of: |o| matches!(o, O::Lock(_) | O::Pin(..)),
        when: |held, _| !held.pins.is_empty(),
        goes_on: false,
        why: "a page that is to be copied is pinned by a stranger, who is waited for for a while",
    },
    Refusal {
        with: |a| matches!(a, Outcome::Bus { .. }),
        of: |o| matches!(o, O::Write(..)),
        when: |held, _| !held.pins.is_empty(),
        goes_on: false,
        why: "the same of a store, the bytes before which are stored",
    },
    Refusal {
        with: |a| *a == Outcome::Errno(Errno::EBUSY),
        of: |o| {
            matches!(o, O::Sync(_, how) if how.invalidate)
                || matches!(o, O::Advise(_, Advice::DontNeed | Advice::Drop))
        },
        when: |held, _| held.lent,
        goes_on: false,
        why: "what is lent is not thrown away, nor a file's page while anons have it",
    },
    Refusal {
        with: |a| *a == Outcome::Errno(Errno::EBUSY),
        of: |o| matches!(o, O::Lend(_) | O::LendAnon(_)),
        when: |held, _| held.locked,
        goes_on: false,
        why: "what any process has locked is not lent; the model asks the lender's own locks only",
    },
    Refusal {
        with: |a| *a == Outcome::Errno(Errno::ENOTSUP),
        of: |o| matches!(o, O::Pinned(_)),
        when: |held, _| held.watched,
        goes_on: true,
        why: "behind a watch that lets no load through no translation tells what a device has",
    },
];

/// What was done of an operation before it was refused so.
pub(super) fn done_before(operation: &Operation, answer: &Outcome) -> Option<Operation> {
    match (operation, answer) {
        (O::Write(access, byte), Outcome::Bus { at, .. }) if *at != 0 => {
            let range = Range { len: Length::of(*at), ..access.range.clone() };
            Some(O::Write(AccessRange { range, ..access.clone() }, *byte))
        }
        _ => None,
    }
}

/// Who has memory of a machine's.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Pins that no script has let go of.
    pins: BTreeSet<u64>,
    /// Something was lent: to anons, whoever borrowed it may have it still.
    lent: bool,
    /// Something was locked in memory.
    locked: bool,
    /// Bytes were watched.
    watched: bool,
}

impl Held {
    /// The row that allows this answer, if one does.
    pub(super) fn refusal(
        &self,
        operation: &Operation,
        answer: &Outcome,
    ) -> Option<&'static Refusal> {
        let fits =
            |r: &&Refusal| (r.with)(answer) && (r.of)(operation) && (r.when)(self, operation);
        REFUSALS.iter().find(fits)
    }

    /// Notes what a machine has answered.
    pub(super) fn note(&mut self, operation: &Operation, answer: &Outcome) {
        match (operation, answer) {
            (O::Pin(..), Outcome::Ok(facts)) => self.pins.extend(facts.n),
            (O::Unpin(n), _) => _ = self.pins.remove(n),
            (O::Lend(_) | O::LendAnon(_), Outcome::Ok(_)) => self.lent = true,
            (O::Lock(_) | O::LockAll(..), Outcome::Ok(_)) => self.locked = true,
            (O::Watch(..), Outcome::Ok(_)) => self.watched = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{BusCode, Facts};
    use super::*;

    fn operation(text: &str) -> Operation {
        let script = super::super::parse(text).expect("parses");
        script.statements.into_iter().next().expect("a statement").operation
    }

    /// Every row: what must have been done before, and what is refused then.
    #[test]
    fn refusals_are_understood_where_somebody_has_memory() {
        let bus = Outcome::Bus { at: 3, code: BusCode::Objerr };
        let cases: [(&str, &str, Outcome); 8] = [
            ("pin 0 0 1 r", "unpin 1", Errno::EINVAL.into()),
            ("pin 0 0 1 r", "inherit 0 0 1 share", Errno::EAGAIN.into()),
            ("pin 0 0 1 r", "lock 0 0 1", Errno::EDEADLK.into()),
            ("pin 0 0 1 r", "write 0 0 1 7", bus),
            ("lend 0 0 1", "sync 0 0 1 inval", Errno::EBUSY.into()),
            ("lock 0 0 1", "lend 0 0 1", Errno::EBUSY.into()),
            ("watch 0 0 1 r", "pinned 1", Errno::ENOTSUP.into()),
            ("lendanon 0 0 1", "advise 0 0 1 dontneed", Errno::EBUSY.into()),
        ];
        let mut rows = BTreeSet::new();
        for (before, text, answer) in cases {
            let (before, refused) = (operation(before), operation(text));
            let mut held = Held::default();
            assert!(held.refusal(&refused, &answer).is_none(), "{text}: nobody has anything");
            held.note(&before, &Errno::EAGAIN.into());
            assert!(held.refusal(&refused, &answer).is_none(), "{text}: it was refused");
            held.note(&before, &Outcome::Ok(Facts { n: Some(1), ..Facts::default() }));
            let row = held.refusal(&refused, &answer).expect(text);
            assert!(
                held.refusal(&refused, &Errno::EFAULT.into()).is_none(),
                "{text}: that is none"
            );
            assert!(held.refusal(&operation("read 0 0 1"), &answer).is_none(), "{text}");
            rows.insert(row.why);
        }
        assert_eq!(rows.len(), REFUSALS.len(), "{rows:?}");
        // A pin that has been let go of is in nobody's way.
        let mut held = Held::default();
        held.note(&operation("pin 0 0 1 r"), &Outcome::count(1));
        held.note(&operation("unpin 1"), &Outcome::OK);
        assert!(held.refusal(&operation("lock 0 0 1"), &Errno::EDEADLK.into()).is_none());
    }

    #[test]
    fn a_store_that_stops_has_stored_what_was_before() {
        let stop = |at| Outcome::Bus { at, code: BusCode::Objerr };
        let store = operation("write 0 3+4000 2 7 cpu=1");
        let part = done_before(&store, &stop(96)).map(|o| o.to_string());
        assert_eq!(part.as_deref(), Some("write 0 3+4000 0+96 7 cpu=1"));
        assert_eq!(done_before(&store, &stop(0)), None);
        assert_eq!(done_before(&store, &Errno::EAGAIN.into()), None);
    }
}
