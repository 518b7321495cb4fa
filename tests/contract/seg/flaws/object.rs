//! What is mapped, and what a driver cannot do.

use super::{Flaw, Over::*, flaw, zero};
use crate::seg::flawed::{AS_IT_IS, Does};
use addr_space::{Advice, FaultKind, MemId, PageList, SegError, SegOps as _};
use page_db::FileOffset;

pub(super) const FLAWS: &[Flaw] = &[
    flaw(
        SharedFile,
        "StaysAtOneOffset",
        "offsets count up",
        Does { offset: |d, scx, _| d.inner.offset(scx, scx.seg.start()), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "HasOffsetsInNothing",
        "memory without a vnode has the offset 0",
        Does { offset: |_, _, addr| FileOffset(u64::MAX - addr.get()), ..AS_IT_IS },
    ),
    flaw(
        SharedFile,
        "NamesNoVnode",
        "the vnode and the offset of an address",
        Does { vnode: |_, _, _| None, ..AS_IT_IS },
    ),
    flaw(
        Private,
        "NamesTheVnodeOfSwap",
        "memory without a vnode names none",
        Does {
            vnode: |_, scx, addr| {
                let page = scx.db.page_of(scx.hat.probe(scx.cx, addr)?.pfn)?;
                scx.db.vnodes().object(scx.db.page(page).identity()?.vnode)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        SharedFile,
        "HasOneIdentity",
        "identities are equal exactly when",
        Does { mem_id: |d, scx, _| d.inner.mem_id(scx, scx.seg.start()), ..AS_IT_IS },
    ),
    flaw(
        Mirror,
        "TellsAnIdentityOfNothing",
        "memory without an identity is answered",
        Does { mem_id: |_, _, addr| Ok(MemId(0, addr.get())), ..AS_IT_IS },
    ),
    flaw(
        SharedFile,
        "WritesNothing",
        "sync writes dirty pages",
        Does { sync: |_, _, _, _| Ok(()), ..AS_IT_IS },
    ),
    flaw(
        SharedFile,
        "LosesBytesAtSync",
        "sync loses no contents",
        Does {
            sync: |d, scx, range, flags| {
                range.iter_pages().for_each(|addr| zero(scx, addr));
                d.inner.sync(scx, range, flags)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        SharedFile,
        "SyncsAroundLocks",
        "sync does not invalidate what is locked",
        Does {
            sync: |d, scx, range, flags| match d.inner.sync(scx, range, flags) {
                Err(SegError::Locked { .. }) => Ok(()),
                done => done,
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        SharedFile,
        "ForgetsAdvice",
        "advice is kept",
        Does { advise: |_, _, _, _| Ok(()), ..AS_IT_IS },
    ),
    flaw(
        Private,
        "FreesTheWholeSegment",
        "freed contents are the old ones or zeros",
        Does {
            advise: |d, scx, range, advice| {
                if advice == Advice::Free {
                    scx.seg.iter_pages().for_each(|addr| zero(scx, addr));
                }
                d.inner.advise(scx, range, advice)
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "TakesAnyPageSize",
        "a page size that there is not",
        Does { set_page_size: |d, scx, range, _| d.inner.set_page_size(scx, range, 0), ..AS_IT_IS },
    ),
    flaw(
        PrivateFile,
        "RefusesAsAnother",
        "what a driver cannot do it answers with NotSupported",
        Does {
            lock_pages: |_, _, _, _| {
                Err(SegError::NotSupported { driver: "seg_other", op: "pagelock" })
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        PrivateFile,
        "ListsNothing",
        "what a driver cannot do it answers with NotSupported",
        Does {
            lock_pages: |_, _, _, _| Ok(PageList::default()),
            unlock_pages: |_, _, _, _, _| {},
            ..AS_IT_IS
        },
    ),
    flaw(
        NotLent,
        "LendsAnonsOnly",
        "what a driver cannot do it answers with NotSupported",
        Does {
            lend_anons: |_, _, _, _| Ok(()),
            lend_pages: |d, _, _| Err(SegError::NotSupported { driver: d.driver(), op: "loan" }),
            ..AS_IT_IS
        },
    ),
    flaw(
        Mirror,
        "SyncsWithAnError",
        "what a driver has no use for",
        Does {
            sync: |_, _, range, _| {
                Err(SegError::Invalid { driver: "seg_mirror", what: "nothing to write", range })
            },
            ..AS_IT_IS
        },
    ),
    flaw(
        Mirror,
        "PinsNothing",
        "a kind of fault that a driver cannot resolve",
        Does {
            fault: |d, scx, range, kind, access| match kind {
                FaultKind::SoftLock | FaultKind::SoftUnlock => Ok(()),
                _ => d.inner.fault(scx, range, kind, access),
            },
            ..AS_IT_IS
        },
    ),
];
