//! Pins and locks in memory.

use super::{Flaw, Over::*, flaw, page, zero};
use crate::seg::flawed::{AS_IT_IS, Does, Flawed};
use addr_space::{
    FaultError, FaultKind, InCore, LockOp, NewlyLocked, PageList, Remnant, SegCx, SegError,
    UnloadFlags,
};
use page_db::{Access, SharedPage, VirtRange};

/// Keeps pins in a list of its own, and the pages move under them; an unlock of a range gives up those that `goes` says, of the list.
fn pins_by_itself(
    d: &Flawed,
    scx: &SegCx<'_>,
    range: VirtRange,
    kind: FaultKind,
    access: Access,
    gives_up: fn(&mut Vec<VirtRange>, VirtRange),
) -> Result<(), FaultError> {
    match kind {
        FaultKind::SoftLock => {
            d.inner.fault(scx, range, FaultKind::Invalid, access)?;
            d.note(|n| n.ranges.push(range));
            Ok(())
        }
        FaultKind::SoftUnlock => {
            d.note(|n| gives_up(&mut n.ranges, range));
            Ok(())
        }
        _ => d.inner.fault(scx, range, kind, access),
    }
}

fn one(pins: &mut Vec<VirtRange>, range: VirtRange) {
    if let Some(at) = pins.iter().position(|pin| *pin == range) {
        pins.remove(at);
    }
}

/// What is pinned by such a list is not unmapped.
fn unmap_unpinned(d: &Flawed, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
    scx.check_writer("flawed", range)?;
    if d.note(|n| n.ranges.is_empty()) {
        d.inner.unmap(scx, range)
    } else {
        Err(SegError::Pinned { range })
    }
}

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "PinsWithoutLoading",
        "a soft lock leaves a translation",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                if kind == FaultKind::SoftLock {
                    scx.hat.unload(scx.cx, range, UnloadFlags::UNLOCK);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "UnmapsPinned",
        "pinned pages cannot be unmapped",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                match kind {
                    FaultKind::SoftLock => d.note(|n| n.ranges.push(range)),
                    FaultKind::SoftUnlock => d.note(|n| one(&mut n.ranges, range)),
                    _ => {}
                }
                Ok(())
            },
            unmap: |d, scx, range| {
                let left = d.inner.unmap(scx, range);
                let Err(SegError::Pinned { .. }) = left else { return left };
                for pin in d.note(|n| std::mem::take(&mut n.ranges)) {
                    d.inner.fault(scx, pin, FaultKind::SoftUnlock, Access::Write)?;
                }
                d.inner.unmap(scx, range)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesWhatItPins",
        "pins change no contents",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                if kind == FaultKind::SoftLock {
                    zero(scx, range.start());
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "MovesPinnedPages",
        "the page of a pinned address stays",
        Does {
            fault: |d, scx, range, kind, access| pins_by_itself(d, scx, range, kind, access, one),
            unmap: unmap_unpinned,
            ..AS_IT_IS
        },
    ),
    flaw(
        Shared,
        "LosesPinsInOneUnlock",
        "soft locks of one page add up",
        Does {
            fault: |d, scx, range, kind, access| {
                let done = pins_by_itself(d, scx, range, kind, access, |pins, _| pins.clear());
                scx.space.pins_released(scx.db.waits());
                done
            },
            unmap: unmap_unpinned,
            ..AS_IT_IS
        },
    ),
    flaw(
        Shared,
        "TellsNobody",
        "when the last pin goes",
        Does {
            fault: |d, scx, range, kind, access| pins_by_itself(d, scx, range, kind, access, one),
            unmap: unmap_unpinned,
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesAPageLocked",
        "an unlock takes back exactly",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                let there = scx.hat.probe(scx.cx, range.start());
                if let (FaultKind::SoftUnlock, Some(t)) = (kind, there) {
                    let page =
                        scx.db.page_of(t.pfn).and_then(|page| scx.db.try_lock_shared(scx.cx, page));
                    page.map(SharedPage::leak);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesHalfASoftLock",
        "a soft lock that fails half-way",
        Does {
            fault: |d, scx, range, kind, access| {
                let done = d.inner.fault(scx, range, kind, access);
                if done.is_err() && kind == FaultKind::SoftLock && range.pages().get() > 1 {
                    d.inner.fault(scx, page(range.start()), kind, access)?;
                }
                done
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ListsBackwards",
        "pinned pages are listed one by one",
        Does {
            lock_pages: |d, scx, range, access| {
                let mut list = d.inner.lock_pages(scx, range, access)?;
                list.pages.reverse();
                Ok(list)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ListsWithoutPinning",
        "pinned pages cannot be unmapped",
        Does {
            lock_pages: |d, scx, range, access| {
                let list = d.inner.lock_pages(scx, range, access)?;
                let pages = list.pages.clone();
                d.inner.unlock_pages(scx, range, access, list);
                Ok(PageList { pages })
            },
            unlock_pages: |_, _, _, _, _| {},
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ListsForAnyAccess",
        "a list for an access that the rights",
        Does {
            lock_pages: |d, scx, range, _| d.inner.lock_pages(scx, range, Access::Read),
            unlock_pages: |d, scx, range, _, pages| {
                d.inner.unlock_pages(scx, range, Access::Read, pages);
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "NotesTooMuch",
        "lock notes the pages",
        Does {
            lock_op: |d, scx, range, op, newly| {
                if op != LockOp::Lock {
                    return d.inner.lock_op(scx, range, op, newly);
                }
                range.iter_pages().for_each(|addr| newly.note(addr));
                d.inner.lock_op(scx, range, op, &mut NewlyLocked::default())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LocksNothing",
        "locked pages are told as locked",
        Does {
            lock_op: |d, scx, range, op, newly| {
                if op != LockOp::Lock {
                    return d.inner.lock_op(scx, range, op, newly);
                }
                range.iter_pages().for_each(|addr| newly.note(addr));
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "TellsLockedPagesAsAbsent",
        "a locked page is in memory",
        Does {
            incore: |d, scx, range, out| {
                let n = d.inner.incore(scx, range, out);
                let locked = |byte: &&mut u8| **byte & InCore::LOCKED.bits() != 0;
                out.iter_mut().take(n).filter(locked).for_each(|b| *b &= !InCore::INCORE.bits());
                n
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "KeepsLocks",
        "locks do not nest",
        Does {
            lock_op: |d, scx, range, op, newly| match op {
                LockOp::Unlock => Ok(()),
                _ => d.inner.lock_op(scx, range, op, newly),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesWhatItUnlocks",
        "locks change no contents",
        Does {
            lock_op: |d, scx, range, op, newly| {
                if op == LockOp::Unlock {
                    zero(scx, range.start());
                }
                d.inner.lock_op(scx, range, op, newly)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "CountsLocksThatACutEnded",
        "unmap ends the locks of its range",
        Does {
            unmap: |d, scx, range| {
                let locked = d.inner.residency(scx, range).locked;
                let left = d.inner.unmap(scx, range)?;
                d.note(|n| n.count += locked);
                Ok(left)
            },
            residency: |d, scx, range| {
                let mut told = d.inner.residency(scx, range);
                told.locked += d.note(|n| n.count);
                told
            },
            ..AS_IT_IS
        },
    ),
];
