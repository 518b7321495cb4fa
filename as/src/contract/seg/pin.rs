//! Pages pinned for i/o: by faults, and as lists.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::error::{AsError, SegError};
use crate::fault::{FaultError, FaultKind};
use crate::ops::PinnedPages;
use page_db::contract::Breach;
use page_db::{Access, Prot};

const LOCKS: &str = "a soft lock leaves a translation that allows the access";
const PINNED: &str = "pinned pages cannot be unmapped: Pinned, and nothing has changed";
const STAYS: &str = "the page of a pinned address stays the same, whoever stores to it";
const NESTS: &str = "soft locks of one page add up: each is undone by itself";
const BALANCE: &str = "an unlock takes back exactly what its lock took";
const TELLS: &str = "when the last pin goes, whoever waits for pins is told";
const UNDONE: &str = "a soft lock that fails half-way leaves nothing locked";
const WORDS: &str = "pins change no contents";
const LIST: &str = "pinned pages are listed one by one, in order of address";
const ACCESS: &str =
    "a list for an access that the rights do not allow is refused, and nothing is pinned";

/// An access that pins are for.
pub(super) fn access(b: &Bench<'_>) -> Access {
    if b.can(SegCan::STORE) { Access::Write } else { Access::Read }
}

pub(super) fn soft_lock(b: &Bench<'_>, p: &Place<'_>, n: u64, pages: u64) -> Result<(), Breach> {
    let done = p.space.fault(p.cx, p.range(n, pages), FaultKind::SoftLock, access(b));
    b.judge.same(LOCKS, format_args!("a soft lock of {pages} pages at {n}"), done, Ok(()))
}

pub(super) fn soft_unlock(b: &Bench<'_>, p: &Place<'_>, n: u64, pages: u64) -> Result<(), Breach> {
    let done = p.space.fault(p.cx, p.range(n, pages), FaultKind::SoftUnlock, access(b));
    b.judge.same(BALANCE, format_args!("a soft unlock of {pages} pages at {n}"), done, Ok(()))
}

/// Unmapping page `n`, or everything, is refused.
fn is_pinned(b: &Bench<'_>, p: &Place<'_>, clause: &'static str, n: u64) -> Result<(), Breach> {
    if b.stands() {
        return Ok(());
    }
    let was = p.look()?;
    let mut ranges = alloc::vec![p.range(0, PAGES)];
    ranges.extend(b.can(SegCan::SPLIT).then(|| p.range(n, 1)));
    for range in ranges {
        let done = p.space.try_unmap(p.cx, range);
        let refused = matches!(done, Err(AsError::Seg(SegError::Pinned { .. })));
        b.judge.require(clause, refused, format_args!("unmap of {range} answered {done:?}"))?;
    }
    p.unchanged(clause, "a refused unmap", &was)?;
    p.sound("a refused unmap")
}

pub(super) fn soft_locks(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::SOFTLOCK) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let before = b.census();
    soft_lock(b, &p, 2, 2)?;
    let frames = frames(b, &p, LOCKS)?;
    is_pinned(b, &p, PINNED, 3)?;
    p.have_words(b, WORDS, 0..PAGES)?;
    stays(b, &p, &frames)?;
    soft_lock(b, &p, 3, 1)?;
    soft_unlock(b, &p, 3, 1)?;
    is_pinned(b, &p, NESTS, 3)?;
    let epoch = p.space.state().pin_epoch();
    soft_unlock(b, &p, 2, 2)?;
    if !b.stands() {
        let told = p.space.state().pin_epoch() != epoch;
        b.judge.require(TELLS, told, format_args!("nobody was told after the last soft unlock"))?;
    }
    let now = b.census();
    b.judge.same(BALANCE, format_args!("what is held"), &now, &before)?;
    p.have_words(b, WORDS, 0..PAGES)?;
    p.sound("soft unlocks")?;
    freed(b, &p)?;
    p.end(b)
}

type Frames = [Option<page_db::Pfn>; 2];

fn frames(b: &Bench<'_>, p: &Place<'_>, clause: &'static str) -> Result<Frames, Breach> {
    let access = access(b);
    for n in [2, 3] {
        let has = p.shows(n).map(|t| t.prot);
        let facts = format_args!("page {n} is mapped {has:?}");
        b.judge.require(clause, has.is_some_and(|prot| prot.allows(access)), facts)?;
    }
    Ok([2, 3].map(|n| p.shows(n).map(|t| t.pfn)))
}

/// Neither a store nor a fork moves the page that i/o is going on in.
fn stays(b: &Bench<'_>, p: &Place<'_>, due: &Frames) -> Result<(), Breach> {
    for n in [2, 3] {
        p.write(n, word(n))?;
    }
    b.judge.same(STAYS, format_args!("after a store, the frames"), &frames(b, p, STAYS)?, due)?;
    if b.stands() || !b.can(SegCan::DUP) {
        return Ok(());
    }
    let c = b.empty()?;
    let done = p.space.dup(p.cx, &c.space);
    b.judge.same(STAYS, format_args!("fork"), done, Ok(()))?;
    p.write(2, word(2))?;
    c.write(3, word(3))?;
    b.judge.same(STAYS, format_args!("after fork, the frames"), &frames(b, p, STAYS)?, due)?;
    c.have_words(b, WORDS, 0..PAGES)?;
    c.sound("stores into a child")?;
    c.end(b)
}

/// With no pin left the pages can go.
fn freed(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if b.stands() {
        return Ok(());
    }
    let done = p.space.try_unmap(p.cx, p.range(0, PAGES));
    b.judge.same(BALANCE, format_args!("unmap after the last unlock"), done, Ok(()))?;
    p.sound("unmap")
}

/// Soft locks that meet a page that refuses.
pub(super) fn undoes(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::SOFTLOCK) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let before = b.census();
    let access = access(b);
    let (range, due) = if b.stands() {
        (p.range(6, 3), FaultError::NoMap { addr: p.addr(8) })
    } else if b.can(SegCan::PROT) {
        let prot = if access == Access::Write { Prot::READ } else { Prot::empty() };
        let done = p.space.try_set_prot(p.cx, p.range(2, 1), prot);
        b.judge.same(UNDONE, format_args!("set_prot"), done, Ok(()))?;
        (p.range(0, 4), FaultError::Prot { addr: p.addr(2), access })
    } else {
        return p.end(b);
    };
    let done = p.space.fault(p.cx, range, FaultKind::SoftLock, access);
    b.judge.same(UNDONE, format_args!("the soft lock"), done, Err(due))?;
    b.judge.same(UNDONE, format_args!("what is held"), &b.census(), &before)?;
    if !b.stands() {
        let done = p.space.try_unmap(p.cx, p.range(0, PAGES));
        b.judge.same(UNDONE, format_args!("unmap after it"), done, Ok(()))?;
    }
    p.sound("a failed soft lock")?;
    p.end(b)
}

/// Pages 2 to 4 while they are pinned.
fn while_listed(b: &Bench<'_>, p: &Place<'_>, pinned: &PinnedPages) -> Result<(), Breach> {
    let Some(pages) = pinned.pages().map(Iterator::collect::<alloc::vec::Vec<_>>) else {
        return Err(b.judge.breach(LIST, format_args!("there is no list")));
    };
    b.judge.same(LIST, format_args!("the length of the list"), pages.len(), 3)?;
    if b.can(SegCan::BYTES) {
        for (n, page) in (2..).zip(&pages) {
            let mapped = p.reach(n, Access::Write)?;
            b.judge.same(LIST, format_args!("the frame of page {n}"), b.c.db.pfn(*page), mapped)?;
        }
    }
    is_pinned(b, p, PINNED, 3)
}

pub(super) fn lists(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::PAGELOCK | SegCan::STORE) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let before = b.census();
    let pinned = p.space.lock_pages(p.cx, p.range(2, 3), Access::Write);
    let pinned = pinned.map_err(|e| b.judge.breach(LIST, format_args!("lock_pages: {e}")))?;
    if let Err(breach) = while_listed(b, &p, &pinned) {
        pinned.abandon(); // who knows what there is to be given back
        return Err(breach);
    }
    let epoch = p.space.state().pin_epoch();
    let back = p.space.unlock_pages(p.cx, pinned);
    back.map_err(|(e, pinned)| {
        pinned.abandon();
        b.judge.breach(LIST, format_args!("unlock_pages: {e}"))
    })?;
    let told = p.space.state().pin_epoch() != epoch;
    b.judge.require(TELLS, told, format_args!("nobody was told after the last page unlock"))?;
    b.judge.same(BALANCE, format_args!("what is held"), &b.census(), &before)?;
    p.have_words(b, WORDS, 0..PAGES)?;
    if b.can(SegCan::PROT) {
        let done = p.space.try_set_prot(p.cx, p.range(3, 1), Prot::READ);
        b.judge.same(ACCESS, format_args!("set_prot"), done, Ok(()))?;
        let done = p.space.lock_pages(p.cx, p.range(2, 3), Access::Write).map(PinnedPages::abandon);
        b.judge.require(
            ACCESS,
            done.is_err(),
            format_args!("page 3 is r--, it was pinned for w"),
        )?;
        b.judge.same(ACCESS, format_args!("what is held"), &b.census(), &before)?;
    }
    freed(b, &p)?;
    p.end(b)
}
