//! What a driver cannot do it says, under its own name; or it does nothing, where that is the trait's default.

use super::SegCan;
use super::bench::{Bench, PAGES, Place};
use crate::borrower::Borrower;
use crate::error::SegError;
use crate::fault::{FaultError, FaultKind};
use crate::seg::{Advice, Inherit, LockOp, NewlyLocked, SegOps, SyncFlags};
use alloc::format;
use core::num::NonZeroU32;
use page_db::contract::Breach;
use page_db::{Access, Cx, VirtAddr, VirtRange, errno};

const TYPED: &str =
    "what a driver cannot do it answers with NotSupported under its own name, and leaves undone";
const NOTHING: &str = "what a driver has no use for it answers with NotSupported, or does nothing";
const FAULT: &str =
    "a kind of fault that a driver cannot resolve is answered with NoSupport under its own name";
const NO_ID: &str = "memory without an identity is answered with NoIdentity";
const NO_VNODE: &str = "memory without a vnode names none";
const PAGE_SIZE: &str =
    "a page size that there is not is refused as Invalid; the usual one is taken";

const READER: &str =
    "whoever has not locked the address space as writer is refused what empties a driver (G3)";

/// Who would borrow, and takes nothing.
struct Nobody;

impl Borrower for Nobody {
    fn take(&mut self, _: &Cx, addr: VirtAddr, _: NonZeroU32) -> Result<(), SegError> {
        Err(SegError::NoMemory { range: VirtRange::page_of(addr) })
    }
}

pub(super) fn refuses(b: &Bench<'_>) -> Result<(), Breach> {
    let p = b.written(3)?;
    let was = p.look()?;
    geometry(b, &p)?;
    readers(b, &p)?;
    pages(b, &p)?;
    faults(b, &p)?;
    noted(b, &p)?;
    names(b, &p)?;
    p.unchanged(TYPED, "refusals", &was)?;
    p.have_words(b, TYPED, 0..3)?;
    p.sound("refusals")?;
    p.end(b)
}

fn driver(p: &Place<'_>) -> &'static str {
    p.ask(0, |_, ops| ops.driver()).unwrap_or_default()
}

/// The answer is NotSupported, with the driver's name.
fn typed<T: core::fmt::Debug>(
    b: &Bench<'_>,
    p: &Place<'_>,
    op: &str,
    done: Option<Result<T, SegError>>,
) -> Result<(), Breach> {
    let name = driver(p);
    let due = matches!(&done, Some(Err(e @ SegError::NotSupported { driver, .. }))
        if *driver == name && e.errno() == errno::ENOTSUP);
    b.judge.require(TYPED, due, format_args!("{op} of {name} answered {done:?}"))
}

/// The answer is NotSupported, or nothing was done.
fn nothing(
    b: &Bench<'_>,
    p: &Place<'_>,
    op: &str,
    done: Option<Result<(), SegError>>,
) -> Result<(), Breach> {
    if done == Some(Ok(())) {
        return Ok(()); // that nothing has changed is looked at in the end
    }
    let name = driver(p);
    let due = matches!(done, Some(Err(SegError::NotSupported { driver, .. })) if driver == name);
    b.judge.require(NOTHING, due, format_args!("{op} of {name} answered {done:?}"))
}

fn geometry(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::DUP) {
        let child = b.empty()?;
        let done =
            writer(p, |scx, ops| ops.dup(scx, &child.space.scx(p.cx, scx.seg, true)).map(drop));
        typed(b, p, "dup", done)?;
        child.end(b)?;
    }
    if !b.can(SegCan::EXTRACT) {
        let none = p.ask(0, |_, ops| ops.extract().is_none());
        b.judge.same(TYPED, format_args!("that it has no side to move by"), none, Some(true))?;
    }
    if !b.can(SegCan::LEND) {
        let done = p.ask(0, |scx, ops| ops.lend_pages(scx, p.range(0, 1)).map(drop));
        typed(b, p, "loan", done)?;
        let done = p.ask(0, |scx, ops| ops.lend_anons(scx, p.range(0, 1), &mut Nobody));
        typed(b, p, "loan to an anon", done)?;
    }
    if !b.can(SegCan::SPLIT) {
        let done = writer(p, |scx, ops| ops.unmap(scx, p.range(1, 1)).map(drop));
        typed(b, p, "unmap of a part", done)?;
    }
    if b.stands() {
        let done = writer(p, |scx, ops| ops.unmap(scx, scx.seg).map(drop));
        typed(b, p, "unmap", done)?;
    }
    Ok(())
}

/// The driver stays in the tree, where others go on using what it has.
fn readers(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if b.stands() {
        return Ok(());
    }
    let refused = |what, done| {
        let due = matches!(done, Some(Err(SegError::Invalid { .. })));
        b.judge.require(READER, due, format_args!("unmap of {what} answered {done:?}"))
    };
    if b.can(SegCan::SPLIT) {
        refused("a part", p.ask(0, |scx, ops| ops.unmap(scx, p.range(1, 1)).map(drop)))?;
    }
    refused("all of it", p.ask(0, |scx, ops| ops.unmap(scx, scx.seg).map(drop)))
}

/// Asks with the lock held as writer (G3).
fn writer<R>(p: &Place<'_>, f: impl FnOnce(&crate::seg::SegCx<'_>, &dyn SegOps) -> R) -> Option<R> {
    let segs = p.space.lock.write(p.cx);
    let seg = segs.seg_at(p.cx, p.addr(0))?;
    Some(f(&p.space.scx(p.cx, seg.range(), true), seg.ops()))
}

fn pages(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::PAGELOCK) {
        let done = p.ask(0, |scx, ops| ops.lock_pages(scx, p.range(0, 2), Access::Read));
        typed(b, p, "lock_pages", done)?;
        if b.can(SegCan::SOFTLOCK) {
            slow_pins(b, p)?;
        }
    }
    let size = |code| p.ask(0, |scx, ops| ops.set_page_size(scx, p.range(0, 2), code));
    if !b.can(SegCan::PAGE_SIZE) {
        return typed(b, p, "set_page_size", size(0));
    }
    b.judge.same(PAGE_SIZE, format_args!("code 0"), size(0), Some(Ok(())))?;
    let odd = size(0xee);
    let refused = matches!(odd, Some(Err(SegError::Invalid { .. })));
    b.judge.require(PAGE_SIZE, refused, format_args!("code 0xee: {odd:?}"))
}

/// Without a list the address space pins by faults.
fn slow_pins(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    let before = b.census();
    let pinned = p.space.lock_pages(p.cx, p.range(0, 2), Access::Read);
    let pinned = pinned.map_err(|e| b.judge.breach(TYPED, format_args!("soft locks: {e}")))?;
    let list = pinned.pages().is_some();
    let back = p.space.unlock_pages(p.cx, pinned);
    back.map_err(|(e, pinned)| {
        pinned.abandon();
        b.judge.breach(TYPED, format_args!("unlock_pages: {e}"))
    })?;
    b.judge.require(TYPED, !list, format_args!("lock_pages has a list after all"))?;
    b.judge.same(TYPED, format_args!("what is held"), &b.census(), &before)
}

fn faults(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    let name = driver(p);
    let no = |what: &str, kind, done: Option<Result<(), FaultError>>| {
        let facts = format!("{what} of {name} answered {done:?}");
        let due = matches!(done, Some(Err(e @ FaultError::NoSupport { driver, kind: k, .. }))
            if driver == name && k == kind && e.code() == 6 && e.errno() == errno::EFAULT);
        b.judge.require(FAULT, due, format_args!("{facts}"))
    };
    let ask = |kind| {
        let range = p.range(1, 1);
        (kind, p.ask(1, |scx, ops| ops.fault(scx, range, kind, Access::Read)))
    };
    if !b.can(SegCan::SOFTLOCK) {
        let before = b.census();
        for (kind, done) in [FaultKind::SoftLock, FaultKind::SoftUnlock].map(ask) {
            no("a soft lock", kind, done)?;
        }
        b.judge.same(FAULT, format_args!("what is held"), &b.census(), &before)?;
    }
    if !b.can(SegCan::FAULT) {
        for (kind, done) in [FaultKind::Invalid, FaultKind::Prot].map(ask) {
            no("a fault", kind, done)?;
        }
        let done = p.ask(1, |scx, ops| ops.faulta(scx, p.addr(1)));
        if done != Some(Ok(())) {
            no("faulta", FaultKind::Invalid, done)?;
        }
    }
    Ok(())
}

fn noted(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    let whole = p.range(0, PAGES);
    if !b.can(SegCan::LOCK) {
        let mut newly = NewlyLocked::default();
        for op in [LockOp::Lock, LockOp::Unlock, LockOp::Undo] {
            let done = p.ask(0, |scx, ops| ops.lock_op(scx, whole, op, &mut newly));
            nothing(b, p, "lock_op", done)?;
        }
        b.judge.same(NOTHING, format_args!("what lock_op noted"), newly.runs(), &[])?;
    }
    if !b.can(SegCan::SYNC) {
        let done = p.ask(0, |scx, ops| ops.sync(scx, whole, SyncFlags::INVALIDATE));
        nothing(b, p, "sync", done)?;
    }
    if !b.can(SegCan::ADVISE) {
        let advised = || p.ask(0, |scx, ops| ops.detail(scx).advice);
        let was = advised();
        let done = p.ask(0, |scx, ops| ops.advise(scx, whole, Advice::Sequential));
        nothing(b, p, "advise", done)?;
        b.judge.same(NOTHING, format_args!("the advice"), advised(), was)?;
    }
    if !b.can(SegCan::INHERIT_SHARE) {
        let done = p.ask(0, |scx, ops| ops.inherit(scx, p.range(0, 1), Some(Inherit::Share)));
        typed(b, p, "inherit", done)?;
    }
    if !b.can(SegCan::INHERIT) {
        for how in [Inherit::Zero, Inherit::Copy] {
            let done = p.ask(0, |scx, ops| ops.inherit(scx, p.range(0, 1), Some(how)));
            typed(b, p, "inherit", done)?;
        }
        let done = p.ask(0, |scx, ops| ops.inherit_zero(scx, p.range(0, 1)));
        typed(b, p, "inherit_zero", done)?;
        let done = p.ask(0, |scx, ops| ops.inherit(scx, p.range(0, 1), None));
        b.judge.same(NOTHING, format_args!("inherit as usual"), done, Some(Ok(())))?;
    }
    Ok(())
}

fn names(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::VNODE) {
        let named = p.ask(1, |scx, ops| ops.vnode(scx, p.addr(1)).map(|v| v.name()));
        b.judge.same(NO_VNODE, format_args!("the vnode"), named, Some(None))?;
    }
    if !b.can(SegCan::MEM_ID) {
        let done = p.ask(1, |scx, ops| ops.mem_id(scx, p.addr(1)));
        let due = Some(Err(SegError::NoIdentity { driver: driver(p) }));
        b.judge.same(NO_ID, format_args!("mem_id"), done, due)?;
    }
    Ok(())
}
