//! Faults: what they resolve, how they refuse, and what comes before them.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::fault::{FaultError, FaultKind};
use alloc::vec::Vec;
use page_db::contract::Breach;
use page_db::{Access, Prot};

const EVERY: &str = "a fault on a range makes every page of it accessible";
const PROT: &str = "a protection fault is resolved, or answered with Prot";
const REFUSED: &str = "an access that the rights do not allow is answered with Prot, which names the page and the access";
const BELOW: &str = "a fault on a range stops at the first page that refuses";
const NOT_MAPPED: &str = "reading ahead loads no translation, and is no fault";
const POPULATED: &str = "populate makes the access possible on every page of its range";
const SAME: &str = "a fault changes no contents";

pub(super) fn resolves(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::FAULT) {
        return Ok(());
    }
    let access = if b.can(SegCan::STORE) { Access::Write } else { Access::Read };
    for access in [Access::Read, access, Access::Other] {
        let p = b.place()?;
        let done = p.space.fault(p.cx, p.range(1, 5), FaultKind::Invalid, access);
        b.judge.same(EVERY, format_args!("{access:?} of pages 1 to 5"), done, Ok(()))?;
        for n in 1..6 {
            let has = p.shows(n).map(|t| t.prot);
            let facts = format_args!("after {access:?}, page {n} has {has:?}");
            b.judge.require(EVERY, has.is_some_and(|prot| prot.allows(access)), facts)?;
        }
        (0..PAGES).try_for_each(|n| p.has(SAME, n, b.fresh(n)))?;
        protection(b, &p)?;
        p.sound("faults")?;
        p.end(b)?;
    }
    Ok(())
}

/// A store to a page that was loaded from: the processor says that the right is missing.
fn protection(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::STORE) {
        return Ok(());
    }
    let (n, access) = (7, Access::Write);
    p.reach(n, Access::Read)?;
    match p.fault(n, FaultKind::Prot, access) {
        Ok(()) => {
            let has = p.shows(n).map(|t| t.prot);
            let facts = format_args!("it was resolved to {has:?}");
            b.judge.require(PROT, has.is_some_and(|prot| prot.allows(access)), facts)
        }
        done => {
            let due = Err(FaultError::Prot { addr: p.addr(n), access });
            b.judge.same(PROT, format_args!("a store to a page without the right"), done, due)
        }
    }
}

/// Each access under all rights there can be.
pub(super) fn refuses(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::FAULT) {
        return Ok(());
    }
    let p = b.written(3)?;
    let ceiling = p.ask(0, |scx, ops| ops.detail(scx).max_prot).unwrap_or_default();
    let all = [Prot::READ, Prot::RW, Prot::RX, Prot::empty(), Prot::RWX];
    let mut rights: Vec<_> = all.into_iter().filter(|prot| ceiling.contains(*prot)).collect();
    if !b.can(SegCan::PROT) {
        rights = p.rights()?.into_iter().flatten().take(1).collect();
    }
    for prot in rights {
        if b.can(SegCan::PROT) {
            let done = p.space.try_set_prot(p.cx, p.range(2, 1), prot);
            b.judge.same(REFUSED, format_args!("set_prot to {prot}"), done, Ok(()))?;
        }
        for access in [Access::Read, Access::Write, Access::Exec] {
            if prot.allows(access) {
                p.reach(2, access)?;
                continue;
            }
            let mut kinds = Vec::from([FaultKind::Invalid, FaultKind::Prot]);
            kinds.extend(b.can(SegCan::SOFTLOCK).then_some(FaultKind::SoftLock));
            kinds.into_iter().try_for_each(|kind| refusal(b, &p, kind, access))?;
        }
        p.sound("refused faults")?;
    }
    p.have_words(b, SAME, [0, 1])?;
    p.end(b)
}

fn refusal(b: &Bench<'_>, p: &Place<'_>, kind: FaultKind, access: Access) -> Result<(), Breach> {
    let due = FaultError::Prot { addr: p.addr(2), access };
    let done = p.fault(2, kind, access);
    b.judge.same(REFUSED, format_args!("{kind:?}, {access:?}"), done, Err(due))?;
    let has = p.shows(2).map(|t| t.prot);
    // The hardware cannot withhold loads from a page that allows anything else.
    let excess = access != Access::Read && has.is_some_and(|prot| prot.allows(access));
    b.judge.require(REFUSED, !excess, format_args!("refused, {access:?} finds {has:?}"))?;
    let below = p.space.check_prot(p.cx, p.range(1, 1), wanted(access)).is_ok();
    if kind != FaultKind::Invalid || !below {
        return Ok(());
    }
    let done = p.space.fault(p.cx, p.range(1, 3), kind, access);
    b.judge.same(BELOW, format_args!("{access:?} of pages 1 to 3"), done, Err(due))?;
    // Nobody has stored to page 3. It may have come along to be loaded from, or to be stored to if that takes no page of its own.
    let own = access == Access::Write && !(b.can(SegCan::SHARE) && b.c.behind.is_some());
    let above = p.shows(3).map(|t| t.prot);
    let stops = !own || above.is_none_or(|prot| !prot.allows(access));
    b.judge.require(BELOW, stops, format_args!("page 3 is mapped {above:?}"))
}

fn wanted(access: Access) -> Prot {
    match access {
        Access::Write => Prot::WRITE,
        Access::Exec => Prot::EXEC,
        _ => Prot::READ,
    }
}

/// Reading ahead, and making everything ready at once.
pub(super) fn ahead(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::FAULT) {
        return Ok(());
    }
    let p = b.place()?;
    let done = p.space.faulta(p.cx, p.range(0, 4));
    b.judge.same(NOT_MAPPED, format_args!("faulta"), done, Ok(()))?;
    let mapped = (0..PAGES).find(|n| p.shows(*n).is_some());
    b.judge.same(NOT_MAPPED, format_args!("the first page with a translation"), mapped, None)?;
    p.sound("faulta")?;
    let access = if b.can(SegCan::STORE) { Access::Write } else { Access::Read };
    let done = p.space.populate(p.cx, p.range(1, 6), access);
    b.judge.same(POPULATED, format_args!("{access:?}"), done, Ok(()))?;
    for n in 1..7 {
        let has = p.shows(n).map(|t| t.prot);
        let facts = format_args!("after {access:?}, page {n} has {has:?}");
        b.judge.require(POPULATED, has.is_some_and(|prot| prot.allows(access)), facts)?;
    }
    (0..PAGES).try_for_each(|n| p.has(SAME, n, b.fresh(n)))?;
    (0..4).try_for_each(|n| p.write(n, word(n)))?;
    p.have_words(b, SAME, 0..4)?;
    p.sound("populate")?;
    p.end(b)
}
