//! Faults and rights.

use super::{Flaw, Over::*, flaw, less, load, page, translations, zero};
use crate::seg::flawed::{AS_IT_IS, Does};
use addr_space::{FaultError, FaultKind, SegError};
use page_db::{Access, Prot, errno};

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "ResolvesNothing",
        "after a resolved fault the translation allows",
        Does {
            fault: |d, scx, range, kind, access| match kind {
                FaultKind::Invalid => Ok(()),
                _ => d.inner.fault(scx, range, kind, access),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "WantsToStoreAlways",
        "a fault that the rights allow is resolved",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                let may = d.inner.check_prot(scx, range, Prot::WRITE);
                may.map_err(|_| FaultError::Prot { addr: range.start(), access })
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ResolvesOnePage",
        "a fault on a range makes every page",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, page(range.start()), kind, access)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "IgnoresProtectionFaults",
        "a protection fault is resolved",
        Does {
            fault: |d, scx, range, kind, access| match kind {
                FaultKind::Prot => Ok(()),
                _ => d.inner.fault(scx, range, kind, access),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "ZeroesTheRestOfARange",
        "a fault changes no contents",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                if access == Access::Write && range.pages().get() > 1 {
                    range.iter_pages().skip(1).for_each(|addr| zero(scx, addr));
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "SkipsWhatRefuses",
        "a fault on a range stops at the first page",
        Does {
            fault: |d, scx, range, kind, access| {
                let pages = range.iter_pages().map(page);
                let all = pages.map(|page| d.inner.fault(scx, page, kind, access));
                all.fold(Ok(()), Result::and)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "AllowsEverything",
        "an access that the rights do not allow",
        Does {
            fault: |d, scx, range, kind, access| match d.inner.fault(scx, range, kind, access) {
                Err(FaultError::Prot { .. }) => Ok(()),
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "NamesTheFirstPage",
        "an access that the rights do not allow",
        Does {
            fault: |d, scx, range, kind, access| match d.inner.fault(scx, range, kind, access) {
                Err(FaultError::Prot { .. }) => {
                    Err(FaultError::Prot { addr: scx.seg.start(), access })
                }
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "SaysObject",
        "an access that the rights do not allow",
        Does {
            fault: |d, scx, range, kind, access| match d.inner.fault(scx, range, kind, access) {
                Err(FaultError::Prot { addr, .. }) => {
                    Err(FaultError::Object { addr, errno: errno::EACCES })
                }
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "MapsWhatItReadsAhead",
        "reading ahead loads no translation",
        Does {
            read_ahead: |d, scx, range| d.inner.fault(scx, range, FaultKind::Invalid, Access::Read),
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "PopulatesHalf",
        "populate makes the access possible",
        Does {
            populate: |d, scx, range, access| {
                less(range).map_or(Ok(()), |range| d.inner.populate(scx, range, access))
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "TellsOnePageLess",
        "rights are told page by page",
        Does {
            prots: |d, scx, range, f| {
                less(range).into_iter().for_each(|range| d.inner.prots(scx, range, f));
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ChangesTheWholeSegment",
        "set_prot gives its range exactly the rights",
        Does { set_prot: |d, scx, _, prot| d.inner.set_prot(scx, scx.seg, prot), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "LeavesOldTranslations",
        "set_prot takes the rights from translations",
        Does {
            set_prot: |d, scx, range, prot| {
                let there = translations(scx, range);
                d.inner.set_prot(scx, range, prot)?;
                load(scx, &there);
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "KeepsLoadsWithoutRights",
        "without rights there is no translation",
        Does {
            set_prot: |d, scx, range, prot| {
                let mut there = translations(scx, range);
                d.inner.set_prot(scx, range, prot)?;
                if prot.is_empty() {
                    there.iter_mut().for_each(|(_, t)| t.prot = Prot::READ | Prot::USER);
                    load(scx, &there);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesWhenRightsChange",
        "rights do not change contents",
        Does {
            set_prot: |d, scx, range, prot| {
                range.iter_pages().for_each(|addr| zero(scx, addr));
                d.inner.set_prot(scx, range, prot)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "NeverGivesARightBack",
        "a right that was given back can be used",
        Does {
            set_prot: |d, scx, range, prot| {
                if !prot.contains(Prot::WRITE) {
                    d.note(|n| n.ranges.push(range));
                }
                d.inner.set_prot(scx, range, prot)
            },
            fault: |d, scx, range, kind, access| {
                let taken = d.note(|n| n.ranges.iter().any(|had| had.covers(range)));
                if taken && access == Access::Write {
                    return Err(FaultError::Prot { addr: range.start(), access });
                }
                d.inner.fault(scx, range, kind, access)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        NotExecuted,
        "IgnoresTheCeiling",
        "a right beyond the ceiling",
        Does {
            set_prot: |d, scx, range, prot| match d.inner.set_prot(scx, range, prot) {
                Err(SegError::Access { .. }) => Ok(()),
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Mirror,
        "TakesFewerRights",
        "a driver whose rights cannot be changed",
        Does {
            set_prot: |d, scx, range, prot| match prot.is_empty() {
                true => Ok(()),
                false => d.inner.set_prot(scx, range, prot),
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "NamesTheWholeOfALack",
        "check_prot names the first run",
        Does {
            check_prot: |d, scx, range, prot| {
                d.inner.check_prot(scx, range, prot).map_err(|_| SegError::Access { range })
            },
            ..AS_IT_IS
        },
    ),
];
