//! Failures, memory running out, and threads that meet.

use super::{Flaw, Over::*, flaw, load, translations};
use crate::seg::flawed::{AS_IT_IS, Does};
use addr_space::{FaultError, FaultKind, LockOp, NewlyLocked, SegError};
use page_db::{Access, PAGE_SIZE, Prot, SharedPage, VirtRange, errno};

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "HidesFailures",
        "what says that it is done is done",
        Does {
            fault: |d, scx, range, kind, access| match d.inner.fault(scx, range, kind, access) {
                Err(FaultError::NoMemory { .. }) => Ok(()),
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "KeepsLocksOfAFailure",
        "a failure leaves the state before",
        Does {
            lock_op: |d, scx, range, op, newly| {
                if op != LockOp::Lock {
                    return d.inner.lock_op(scx, range, op, newly);
                }
                let mut own = NewlyLocked::default();
                d.inner.lock_op(scx, range, op, &mut own)?;
                own.runs()
                    .iter()
                    .flat_map(|run| run.iter_pages())
                    .for_each(|addr| newly.note(addr));
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeaksWhenItCannotBeMade",
        "a failure leaves the state before",
        Does {
            create: |make, scx| make.create(scx).inspect_err(|_| scx.space.add_resv(PAGE_SIZE)),
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "NeverForgetsAFailure",
        "once nothing fails any more",
        Does {
            fault: |d, scx, range, kind, access| {
                let addr = range.start();
                if d.note(|n| n.count) != 0 {
                    return Err(FaultError::Object { addr, errno: errno::EIO });
                }
                let done = d.inner.fault(scx, range, kind, access);
                if let Err(FaultError::NoMemory { .. }) = done {
                    d.note(|n| n.count += 1);
                }
                done
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "SaysObjectWithoutAFrame",
        "a driver that wants a frame",
        Does {
            fault: |d, scx, range, kind, access| match d.inner.fault(scx, range, kind, access) {
                Err(FaultError::NoMemory { addr }) if scx.db.freemem() == 0 => {
                    Err(FaultError::Object { addr, errno: errno::ENOMEM })
                }
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesAPageLockedWithoutAFrame",
        "what could not be done without a frame",
        Does {
            fault: |d, scx, range, kind, access| {
                let done = d.inner.fault(scx, range, kind, access);
                let first = scx.hat.probe(scx.cx, scx.seg.start());
                if let (Err(FaultError::NoMemory { .. }), 0, Some(t)) =
                    (&done, scx.db.freemem(), first)
                {
                    let page =
                        scx.db.page_of(t.pfn).and_then(|page| scx.db.try_lock_shared(scx.cx, page));
                    page.map(SharedPage::leak);
                }
                done
            },
            ..AS_IT_IS
        },
    ),
];

/// Those that show when two threads meet in them.
pub(super) const MEETINGS: &[Flaw] = &[
    flaw(
        Private,
        "WeakensAllForAMoment",
        "faults and changes elsewhere",
        Does {
            set_prot: |d, scx, range, prot| {
                if d.note(|n| n.who) == Some(scx.cx.thread()) {
                    return d.inner.set_prot(scx, range, prot);
                }
                let mut runs = Vec::new();
                d.inner.prots(scx, scx.seg, &mut |run, prot| runs.push((run, prot)));
                d.inner.set_prot(scx, scx.seg, Prot::READ)?;
                std::thread::yield_now();
                for (run, prot) in runs {
                    d.inner.set_prot(scx, run, prot)?;
                }
                d.inner.set_prot(scx, range, prot)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "TakesNoRightsFromOtherThreads",
        "when a change of rights returns",
        Does {
            fault: |d, scx, range, kind, access| {
                d.note(|n| n.count |= u64::from(n.who != Some(scx.cx.thread())));
                d.inner.fault(scx, range, kind, access)
            },
            set_prot: |d, scx, range, prot| {
                let there = translations(scx, range);
                d.inner.set_prot(scx, range, prot)?;
                if d.note(|n| n.count) != 0 {
                    load(scx, &there);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "KnowsPinsOfItsOwnThread",
        "unmap waits for pinned pages",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                match kind {
                    FaultKind::SoftLock => d.note(|n| {
                        n.who = Some(scx.cx.thread());
                        n.ranges.push(range);
                    }),
                    FaultKind::SoftUnlock => d.note(|n| n.ranges.retain(|pin| *pin != range)),
                    _ => {}
                }
                Ok(())
            },
            unmap: |d, scx, range| {
                let left = d.inner.unmap(scx, range);
                let another = d.note(|n| n.who) != Some(scx.cx.thread());
                let (true, Err(SegError::Pinned { .. })) = (another, &left) else { return left };
                for pin in d.note(|n| std::mem::take(&mut n.ranges)) {
                    d.inner.fault(scx, pin, FaultKind::SoftUnlock, Access::Write)?;
                }
                d.inner.unmap(scx, range)
            },
            ..AS_IT_IS
        },
    ),
];

/// Which of two threads gets the other's answer, and which clause that breaks, is chance.
pub(super) const MIXED_UP: Flaw = flaw(
    Private,
    "MixesUpItsCallers",
    "faults of several threads",
    Does {
        fault: |d, scx, range, kind, access| {
            d.note(|n| n.wanted = Some(range));
            (0..50).for_each(|_| std::thread::yield_now());
            let last: VirtRange = d.note(|n| n.wanted).unwrap_or(range);
            d.inner.fault(scx, last, kind, access)
        },
        ..AS_IT_IS
    },
);
