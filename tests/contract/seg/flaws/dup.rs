//! Fork.

use super::{Flaw, Over::*, flaw, page, translations, zero};
use crate::seg::flawed::{AS_IT_IS, Does, Flawed};
use addr_space::{Inherit, LoadFlags, LockOp, NewlyLocked, SegCx, SegError, SegOps};
use page_db::Prot;

/// A fork of memory that was to be inherited otherwise.
fn dup_as(
    d: &Flawed,
    scx: &SegCx<'_>,
    child: &SegCx<'_>,
    how: Inherit,
) -> Result<Box<dyn SegOps>, SegError> {
    d.inner.inherit(scx, scx.seg, Some(how))?;
    let made = d.inner.dup(scx, child)?;
    d.inner.inherit(scx, scx.seg, None)?;
    Ok(made)
}

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "SharesPrivateMemory",
        "private memory: nobody sees",
        Does { dup: |d, scx, child| dup_as(d, scx, child, Inherit::Share), ..AS_IT_IS },
    ),
    flaw(
        Shared,
        "CopiesSharedMemory",
        "shared memory: each sees",
        Does { dup: |d, scx, child| dup_as(d, scx, child, Inherit::Copy), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "GivesZeros",
        "a child has its parent's segments",
        Does { dup: |d, scx, child| dup_as(d, scx, child, Inherit::Zero), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "ForgetsRightsAtFork",
        "a child has its parent's segments",
        Does {
            dup: |d, scx, child| {
                let made = d.inner.dup(scx, child)?;
                made.set_prot(child, child.seg, Prot::RW)?;
                Ok(made)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "TakesRightsFromTheParent",
        "fork changes nothing in the parent",
        Does {
            dup: |d, scx, child| {
                let made = d.inner.dup(scx, child)?;
                d.inner.set_prot(scx, scx.seg, Prot::READ)?;
                Ok(made)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "InheritsBeside",
        "the run that one driver of a child serves",
        Does { inherit_run: |_, scx, _| scx.seg, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "InheritsLocks",
        "memory locks are not inherited",
        Does {
            dup: |d, scx, child| {
                let made = d.inner.dup(scx, child)?;
                let there = page(child.seg.page_at(4));
                made.lock_op(child, there, LockOp::Lock, &mut NewlyLocked::default())?;
                Ok(made)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesWhatItUnmaps",
        "a child outlives its parent",
        Does {
            unmap: |d, scx, range| {
                scx.check_writer("flawed", range)?;
                range.iter_pages().for_each(|addr| zero(scx, addr));
                d.inner.unmap(scx, range)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ForgetsHowToInherit",
        "inherited as zeros",
        Does { inherit: |_, _, _, _| Ok(()), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "CopiesWhatIsToBeShared",
        "inherited shared: each sees",
        Does {
            inherit: |d, scx, range, how| {
                d.inner.inherit(scx, range, how.filter(|how| *how != Inherit::Share))
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "SharesWhatIsToBeCopied",
        "inherited as a copy: nobody sees",
        Does {
            inherit: |d, scx, range, how| {
                let share = |how| if how == Inherit::Copy { Inherit::Share } else { how };
                d.inner.inherit(scx, range, how.map(share))
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LoadsWhatIsLeftOut",
        "left out: the child has nothing there",
        Does {
            dup: |d, scx, child| {
                let made = d.inner.dup(scx, child)?;
                for (addr, t) in translations(scx, scx.seg) {
                    if !child.seg.covers(page(addr)) {
                        let flags = LoadFlags::NOCONSIST;
                        let _ = child.hat.devload(child.cx, page(addr), t.pfn, Prot::READ, flags);
                    }
                }
                Ok(made)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesAParentThatCannotFork",
        "a failure loses no contents",
        Does {
            dup: |d, scx, child| {
                let made = d.inner.dup(scx, child);
                made.inspect_err(|_| zero(scx, scx.seg.page_at(1)))
            },
            ..AS_IT_IS
        },
    ),
];
