//! What is mapped: its name, its identity, the way back to it, advice about its use.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::error::{AsError, SegError};
use crate::seg::{Advice, Inherit, SyncFlags};
use page_db::contract::Breach;
use page_db::{Access, FileOffset, Identity, PAGE_SIZE, RefMod};

const VNODE: &str = "the vnode and the offset of an address name the page that it shows";
const NO_OFFSET: &str = "memory without a vnode has the offset 0, or offsets that count up";
const COUNTS: &str = "offsets count up with addresses";
const ID: &str = "identities are equal exactly when object and offset are the same";
const SYNC: &str = "sync writes dirty pages to where they belong";
const KEPT: &str = "sync loses no contents";
const LOCKED: &str = "sync does not invalidate what is locked: Locked, and nothing has changed";
const ADVICE: &str = "advice is kept, and changes no contents";
const FREE: &str = "freed contents are the old ones or zeros, in the range and nowhere else";

pub(super) fn names(b: &Bench<'_>) -> Result<(), Breach> {
    let p = b.place()?;
    if !b.can(SegCan::VNODE) {
        let offset = |n| p.ask(n, |scx, ops| ops.offset(scx, p.addr(n)).0).unwrap_or_default();
        for n in 0..PAGES {
            let (first, this) = (offset(0), offset(n));
            let counts = first.checked_add(n * PAGE_SIZE) == Some(this);
            let facts = format_args!("{this:#x} at page {n}, {first:#x} at the first");
            b.judge.require(NO_OFFSET, counts || (first, this) == (0, 0), facts)?;
        }
        return p.end(b);
    }
    let mut first = None;
    for n in 0..PAGES {
        let pfn = p.reach(n, Access::Read)?;
        let addr = p.addr(n);
        let told = p.ask(n, |scx, ops| (ops.vnode(scx, addr), ops.offset(scx, addr)));
        let Some((Some(vnode), offset)) = told else {
            return Err(b.judge.breach(VNODE, format_args!("page {n} has no vnode")));
        };
        let (id, start) = *first.get_or_insert((vnode.id(), offset));
        b.judge.same(VNODE, format_args!("the vnode of page {n}"), vnode.id(), id)?;
        let due = FileOffset(start.0.wrapping_add(n * PAGE_SIZE));
        b.judge.same(COUNTS, format_args!("the offset of page {n}"), offset, due)?;
        let page = p.db.exists(p.cx, Identity::new(vnode.id(), offset));
        let frame = page.map(|page| p.db.pfn(page));
        b.judge.same(VNODE, format_args!("the frame of the page named"), frame, Some(pfn))?;
    }
    p.end(b)
}

pub(super) fn identities(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::MEM_ID) {
        return Ok(());
    }
    let p = b.written(2)?;
    let ids = (0..PAGES).map(|n| p.space.mem_id(p.cx, p.addr(n)));
    let ids: Result<alloc::vec::Vec<_>, AsError> = ids.collect();
    let ids = ids.map_err(|e| b.judge.breach(ID, format_args!("{e}")))?;
    for (n, id) in (0..).zip(&ids) {
        let twin = ids.iter().position(|other| other == id);
        b.judge.same(
            ID,
            format_args!("the first page with the identity of page {n}"),
            twin,
            Some(n),
        )?;
        let again = p.space.mem_id(p.cx, p.addr(n as u64));
        b.judge.same(ID, format_args!("asked again, page {n}"), again, Ok(*id))?;
    }
    p.sound("mem_id")?;
    p.end(b)
}

/// (After fork has been judged: a flaw of that is told by its own clause.)
pub(super) fn identities_over_fork(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::MEM_ID | SegCan::DUP) {
        return Ok(());
    }
    let (p, c) = (b.written(2)?, b.empty()?);
    let done = p.space.dup(p.cx, &c.space);
    b.judge.same(ID, format_args!("fork"), done, Ok(()))?;
    for n in 0..PAGES {
        let (mine, theirs) = (p.space.mem_id(p.cx, p.addr(n)), c.space.mem_id(c.cx, c.addr(n)));
        let what = format_args!("whether a child's page {n} has the same");
        b.judge.same(ID, what, mine.is_ok() && mine == theirs, b.can(SegCan::SHARE))?;
    }
    c.end(b)?;
    p.end(b)
}

/// A copy of page 0 is given away and it is stored to, or it comes to be shared.
pub(super) fn stays_itself(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::MEM_ID | SegCan::DUP) {
        return Ok(());
    }
    let how = match (b.can(SegCan::SHARE), b.can(SegCan::INHERIT_SHARE)) {
        (true, _) if b.can(SegCan::INHERIT | SegCan::STORE) => Inherit::Copy,
        (false, true) => Inherit::Share,
        _ => return Ok(()),
    };
    let p = b.written(2)?;
    let id = p.space.mem_id(p.cx, p.addr(0));
    let done = p.space.inherit(p.cx, p.range(0, 1), how);
    b.judge.same(ID, format_args!("inherit as {how:?}"), done, Ok(()))?;
    let c = b.empty()?;
    let done = p.space.dup(p.cx, &c.space);
    b.judge.same(ID, format_args!("fork"), done, Ok(()))?;
    p.write(0, word(9))?;
    let (mine, theirs) = (p.space.mem_id(p.cx, p.addr(0)), c.space.mem_id(c.cx, c.addr(0)));
    let what = format_args!("whether a child that inherits as {how:?} has the same");
    b.judge.same(ID, what, mine == theirs, how == Inherit::Share)?;
    if how == Inherit::Copy {
        b.judge.same(ID, format_args!("asked again after a store"), mine, id)?;
    }
    c.end(b)?;
    p.end(b)
}

pub(super) fn syncs(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::SYNC | SegCan::STORE) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    for (n, pages, flags) in [
        (2, 2, SyncFlags::empty()),
        (0, PAGES, SyncFlags::ASYNC),
        (1, 5, SyncFlags::INVALIDATE),
        (0, PAGES, SyncFlags::ASYNC | SyncFlags::INVALIDATE),
    ] {
        p.write(3, word(3))?;
        let done = p.space.sync(p.cx, p.range(n, pages), flags);
        b.judge.same(SYNC, format_args!("{flags:?} of {pages} pages at {n}"), done, Ok(()))?;
        p.sound("sync")?;
        if b.can(SegCan::VNODE | SegCan::SHARE) && !flags.contains(SyncFlags::ASYNC) {
            (n..n + pages).try_for_each(|n| clean(b, &p, n))?;
        }
        p.have_words(b, KEPT, 0..PAGES)?;
    }
    if b.can(SegCan::LOCK) {
        let done = p.space.lock(p.cx, p.range(4, 1));
        b.judge.same(LOCKED, format_args!("locking page 4"), done, Ok(()))?;
        let was = p.look()?;
        let done = p.space.sync(p.cx, p.range(0, PAGES), SyncFlags::INVALIDATE);
        let refused = matches!(done, Err(AsError::Seg(SegError::Locked { .. })));
        b.judge.require(LOCKED, refused, format_args!("sync answered {done:?}"))?;
        p.unchanged(LOCKED, "a refused sync", &was)?;
        p.have_words(b, LOCKED, 0..PAGES)?;
    }
    p.end(b)
}

/// The page of the vnode at page `n` has nothing left to write.
fn clean(b: &Bench<'_>, p: &Place<'_>, n: u64) -> Result<(), Breach> {
    let addr = p.addr(n);
    let id =
        p.ask(n, |scx, ops| Some(Identity::new(ops.vnode(scx, addr)?.id(), ops.offset(scx, addr))));
    let page = id.flatten().and_then(|id| p.db.exists(p.cx, id));
    let dirty = page.is_some_and(|page| p.db.page(page).ref_mod().contains(RefMod::MOD));
    b.judge.require(SYNC, !dirty, format_args!("page {n} is still dirty"))
}

pub(super) fn advises(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::ADVISE) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let advised = || p.ask(0, |scx, ops| ops.detail(scx).advice);
    for advice in [Advice::Sequential, Advice::Random, Advice::Normal] {
        let done = p.space.advise(p.cx, p.range(0, PAGES), advice);
        b.judge.same(ADVICE, format_args!("advise {advice:?}"), done, Ok(()))?;
        b.judge.same(ADVICE, format_args!("the advice"), advised(), Some(advice))?;
        p.have_words(b, ADVICE, 0..PAGES)?;
    }
    for advice in [Advice::Random, Advice::AccessDefault, Advice::AccessLwp, Advice::AccessMany] {
        let done = p.space.advise(p.cx, p.range(2, 3), advice);
        b.judge.same(ADVICE, format_args!("advise {advice:?}"), done, Ok(()))?;
        b.judge.same(ADVICE, format_args!("the advice"), advised(), Some(Advice::Normal))?;
        p.have_words(b, ADVICE, 0..PAGES)?;
    }
    p.sound("advice")?;
    let done = p.space.advise(p.cx, p.range(2, 3), Advice::Free);
    b.judge.same(FREE, format_args!("advise Free"), done, Ok(()))?;
    p.have_words(b, FREE, [0, 1, 5, 6, 7])?;
    for n in 2..5 {
        let seen = p.read(n)?;
        let known = !p.keeps_words() || seen == word(n) || seen == 0;
        b.judge.require(FREE, known, format_args!("page {n} holds {seen:#x}"))?;
    }
    p.sound("advice to free")?;
    p.end(b)
}
