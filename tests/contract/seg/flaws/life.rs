//! From map to free.

use super::{Flaw, Over::*, flaw, page, zero};
use crate::seg::flawed::{AS_IT_IS, Does};
use addr_space::{FaultKind, Remnant, Residency, SegError, SegKind};
use page_db::{Access, PAGE_SIZE, Prot, VirtRange};

const PAGE: usize = PAGE_SIZE as usize;

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        Private,
        "RetriesForEver",
        "a retry comes to an end",
        Does { set_prot: |_, _, range, _| Err(SegError::Retry { range }), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "RetriesFaultsForEver",
        "a retry comes to an end",
        Does {
            fault: |_, _, range, _, _| Err(addr_space::FaultError::Retry { addr: range.start() }),
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "RetriesToBeMade",
        "a retry comes to an end",
        Does { create: |_, scx| Err(SegError::Retry { range: scx.seg }), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "HasAGranule",
        "what can be mapped is mapped",
        Does {
            create: |make, scx| match scx.seg.pages().get() % 4 {
                0 => make.create(scx),
                _ => {
                    let what = "no whole granule";
                    Err(SegError::Invalid { driver: "flawed", what, range: scx.seg })
                }
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "FreesNothing",
        "free takes back what create did",
        Does { free: |_, _| {}, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "FreesWhatWasNeverMappedOnly",
        "unmap and free give everything back",
        Does {
            unmap: |d, scx, range| {
                let left = d.inner.unmap(scx, range)?;
                d.note(|n| n.count += u64::from(matches!(left, Remnant::Nothing)));
                Ok(left)
            },
            free: |d, scx| {
                if d.note(|n| n.count) == 0 {
                    d.inner.free(scx);
                }
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LeavesATranslation",
        "unmap removes translations",
        Does {
            unmap: |d, scx, range| {
                let there = super::translations(scx, page(range.start()));
                let left = d.inner.unmap(scx, range)?;
                super::load(scx, &there);
                Ok(left)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "StartsWithOldBytes",
        "a new mapping shows what is mapped",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                super::write_if_zeros(scx, range.start(), 0);
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "ZeroesTheFirstLine",
        "a page is of one piece",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                super::write_if_zeros(scx, range.start(), 64);
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "CopiesTheFirstLine",
        "a page is of one piece",
        Does {
            fault: |d, scx, range, kind, access| {
                let before = scx.hat.probe(scx.cx, range.start());
                d.inner.fault(scx, range, kind, access)?;
                let now = scx.hat.probe(scx.cx, range.start());
                if let (Some(before), Some(now)) = (before, now)
                    && before.pfn != now.pfn
                {
                    scx.db.mem().write(now.pfn, 64, &[0; PAGE - 64]);
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "HasOneFrameForStores",
        "what was stored is loaded again",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                if access == Access::Write {
                    let last = d.note(|n| n.wanted.replace(range)).filter(|last| *last != range);
                    last.into_iter().for_each(|last| zero(scx, last.start()));
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "MakesAnewWhatHasNoTranslation",
        "translations are a cache",
        Does {
            fault: |d, scx, range, kind, access| {
                let before = scx.hat.probe(scx.cx, range.start());
                d.inner.fault(scx, range, kind, access)?;
                if kind == FaultKind::Invalid && before.is_none() {
                    zero(scx, range.start());
                }
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "LoadsMoreRightsThanItTells",
        "after each step every invariant",
        Does {
            fault: |d, scx, range, kind, access| {
                d.inner.fault(scx, range, kind, access)?;
                let mut there = super::translations(scx, page(range.start()));
                there.iter_mut().for_each(|(_, t)| t.prot |= Prot::EXEC);
                super::load(scx, &there);
                Ok(())
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        SaidShared,
        "KeepsStoresToItself",
        "stores into a shared mapping reach",
        Does { kind: |_| SegKind::SHARED, ..AS_IT_IS },
    ),
    flaw(
        SaidPrivate,
        "StoresIntoTheFile",
        "stores into a private mapping do not",
        Does { kind: |_| SegKind::empty(), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "SaysItIsShared",
        "a driver has one name, and says what kind",
        Does { kind: |d| d.inner.kind() | SegKind::SHARED, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "TellsMemoryBeyondItsEnd",
        "a mapping is the range that was asked for",
        Does {
            memory: |_, scx| {
                VirtRange::exact(scx.seg.start().get(), scx.seg.len() + PAGE_SIZE).ok()
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Private,
        "CountsNothing",
        "pages in use are told as resident",
        Does { residency: |_, _, _| Residency::default(), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "PushesMoreThanThereIs",
        "swapout answers for no more bytes",
        Does { swapout: |_, _| u64::MAX, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "AnswersForTooMany",
        "incore answers for as many pages",
        Does { incore: |d, scx, range, out| d.inner.incore(scx, range, out) + 1, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "HasEveryRight",
        "rights stay below the ceiling, and check_prot",
        Does { check_prot: |_, _, _, _| Ok(()), ..AS_IT_IS },
    ),
];
