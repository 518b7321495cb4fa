//! Parts that are taken away, and parts that are put together.

use super::{Flaw, Over::*, flaw, zero};
use crate::seg::flawed::{AS_IT_IS, Born, Does};
use addr_space::{FaultError, Remnant, SegError};
use page_db::{Access, FileOffset, PAGE_SIZE, Prot, VirtRange};

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "SaysLow",
        "unmap says what is left",
        Does {
            unmap: |d, scx, range| {
                let left = d.inner.unmap(scx, range)?;
                Ok(if matches!(left, Remnant::Both(_)) { Remnant::Low } else { left })
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesSomethingOfNothing",
        "unmap says what is left",
        Does {
            unmap: |d, scx, range| {
                let left = d.inner.unmap(scx, range)?;
                Ok(if matches!(left, Remnant::Nothing) { Remnant::High } else { left })
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "UnmapsForReaders",
        "whoever has not locked the address space as writer",
        Does { unmap: |d, scx, range| d.inner.unmap(&scx.as_if_writer(), range), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "RefusesToCutWhatIsLocked",
        "a part can be unmapped",
        Does {
            unmap: |d, scx, range| match d.inner.first_locked(scx, range) {
                Some(run) => Err(SegError::Locked { addr: run.start() }),
                None => d.inner.unmap(scx, range),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesThePageAbove",
        "what a cut leaves keeps its contents",
        Does {
            unmap: |d, scx, range| {
                scx.check_writer("flawed", range)?;
                if range.end() < scx.seg.end() {
                    zero(scx, range.page_at(range.pages().get()));
                }
                d.inner.unmap(scx, range)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ShowsThePageAbove",
        "what a cut leaves keeps its contents",
        Does {
            fault: |d, scx, range, kind, access| {
                let longer =
                    VirtRange::exact(scx.seg.start().get() - PAGE_SIZE, scx.seg.len() + PAGE_SIZE);
                let seg = longer.ok().filter(|_| d.born == Born::Above).unwrap_or(scx.seg);
                d.inner.fault(&scx.of(seg), range, kind, access)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ForgetsRightsAtACut",
        "what a cut leaves keeps its rights",
        Does {
            unmap: |d, scx, range| {
                scx.check_writer("flawed", range)?;
                if range != scx.seg {
                    d.inner.set_prot(scx, scx.seg, Prot::RW)?;
                }
                d.inner.unmap(scx, range)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "NumbersFromTheCut",
        "what a cut leaves keeps its place",
        Does {
            offset: |d, scx, addr| match d.born {
                Born::Above => FileOffset(addr.get() - scx.seg.start().get()),
                _ => d.inner.offset(scx, addr),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesWhatIsAboveReadOnly",
        "what a cut leaves can be stored to",
        Does {
            fault: |d, scx, range, kind, access| match (d.born, access) {
                (Born::Above, Access::Write) => {
                    Err(FaultError::Prot { addr: range.start(), access })
                }
                _ => d.inner.fault(scx, range, kind, access),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "FindsOldBytesInAGap",
        "what is mapped into a gap is new",
        Does {
            joins: |d, _, next| d.note(|n| n.ranges.push(next)),
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                if d.note(|n| n.ranges.iter().any(|next| next.covers(range))) {
                    super::write_if_zeros(scx, range.start(), 0);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesWhenJoining",
        "a mapping beside another",
        Does { joins: |_, scx, next| zero(scx, next.start()), ..AS_IT_IS },
    ),
];
