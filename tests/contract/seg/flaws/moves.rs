//! Moves and loans.

use super::{Flaw, Over::*, flaw, load, page, translations, zero};
use crate::seg::flawed::{AS_IT_IS, Born, Does};
use addr_space::{Continued, FaultKind, Like, LoadFlags, LockOp, NewlyLocked, SegError};
use page_db::{Access, Prot};

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "ZeroesWhatMoves",
        "what is moved keeps its contents",
        Does {
            relocate: |d, scx, to| {
                scx.seg.iter_pages().for_each(|addr| zero(scx, addr));
                (AS_IT_IS.relocate)(d, scx, to);
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ForgetsRightsWhenMoving",
        "what is moved keeps its contents, its offsets",
        Does {
            relocate: |d, scx, to| {
                d.inner.set_prot(scx, scx.seg, Prot::RW).expect("memory");
                (AS_IT_IS.relocate)(d, scx, to);
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "DropsLocksWhenMoving",
        "locks in memory come along",
        Does {
            relocate: |d, scx, to| {
                let mut newly = NewlyLocked::default();
                d.inner.lock_op(scx, scx.seg, LockOp::Unlock, &mut newly).expect("locked");
                (AS_IT_IS.relocate)(d, scx, to);
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesTheOldPlace",
        "where something was moved from",
        Does {
            relocate: |d, scx, to| {
                let there = translations(scx, page(scx.seg.start()));
                (AS_IT_IS.relocate)(d, scx, to);
                load(scx, &there);
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "MovesWhatIsPinned",
        "a move to where something is, and of pinned pages",
        Does { may_move: |_, _, _| Ok(()), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "LeavesOldBytesBehind",
        "what is left behind is as if it were new",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                if d.born == Born::LeftBehind {
                    super::write_if_zeros(scx, range.start(), 0);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "GoesOnWithAllRights",
        "a mapping goes on with",
        Does {
            continued: |d, scx, first, like, to| {
                let made = (AS_IT_IS.continued)(d, scx, first, like, to)?;
                if let Continued::Made(made) = &made {
                    made.set_prot(to, to.seg, Prot::RW)?;
                }
                Ok(made)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "GoesOnWithoutTheLock",
        "a mapping goes on with",
        Does { is_locked: |_, _, _| false, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "ShowsSomethingElse",
        "memory shown twice is one memory",
        Does {
            share: |d, scx, range, to| match (AS_IT_IS.continued)(d, scx, 0, Like::Repeated, to)? {
                Continued::Made(made) => Ok(made),
                Continued::Leaving(_) => Err(SegError::Pinned { range }),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LocksWhatItShowsTwice",
        "memory shown twice is not locked twice",
        Does {
            share: |d, scx, range, to| {
                let made = (AS_IT_IS.share)(d, scx, range, to)?;
                made.lock_op(to, to.seg, LockOp::Lock, &mut NewlyLocked::default())?;
                Ok(made)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "TakesWhatIsShownTwiceAlong",
        "memory shown twice stays for one",
        Does {
            share: |d, scx, range, to| {
                d.note(|n| n.count = 1);
                (AS_IT_IS.share)(d, scx, range, to)
            },
            unmap: |d, scx, range| {
                scx.check_writer("flawed", range)?;
                if d.note(|n| n.count) == 1 {
                    range.iter_pages().for_each(|addr| zero(scx, addr));
                }
                d.inner.unmap(scx, range)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LendsBackwards",
        "what is lent is what was there",
        Does {
            lend_pages: |d, scx, range| {
                let mut lent = d.inner.lend_pages(scx, range)?;
                lent.pages.reverse();
                Ok(lent)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LetsStoreToWhatIsLent",
        "what is lent is what was there, page by page, and stands still",
        Does {
            lend_pages: |d, scx, range| {
                let there = translations(scx, range);
                let lent = d.inner.lend_pages(scx, range)?;
                load(scx, &there);
                Ok(lent)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LoadsFromWhatIsLent",
        "who stores to what is lent sees",
        Does {
            lend_pages: |d, scx, range| {
                let lent = d.inner.lend_pages(scx, range)?;
                let frames = range.iter_pages().zip(&lent.pages).map(|(a, p)| (a, scx.db.pfn(*p)));
                d.note(|n| n.frames.extend(frames));
                Ok(lent)
            },
            fault: |d, scx, range, kind, access| {
                let at = range.start();
                let lent = d.note(|n| n.frames.iter().find(|(addr, _)| *addr == at).copied());
                if let (Some((_, pfn)), FaultKind::Invalid, Access::Read) = (lent, kind, access) {
                    let flags = LoadFlags::NOCONSIST | LoadFlags::REMAP;
                    let _ = scx.hat.devload(scx.cx, page(at), pfn, Prot::READ | Prot::USER, flags);
                    return Ok(());
                }
                d.inner.fault(scx, range, kind, access)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LendsWhatIsLocked",
        "what is locked in memory is not lent",
        Does {
            lend_pages: |d, scx, range| match d.inner.lend_pages(scx, range) {
                Err(SegError::Locked { .. }) => {
                    let mut newly = NewlyLocked::default();
                    d.inner.lock_op(scx, range, LockOp::Unlock, &mut newly)?;
                    d.inner.lend_pages(scx, range)
                }
                lent => lent,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LendsTwice",
        "unmap and free give everything back",
        Does {
            lend_pages: |d, scx, range| {
                let lent = d.inner.lend_pages(scx, range)?;
                d.inner.lend_pages(scx, range)?;
                Ok(lent)
            },
            ..AS_IT_IS
        },
    ),
];
