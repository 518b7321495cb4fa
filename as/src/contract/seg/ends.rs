//! What a driver asks to be done again is done in the end.
//!
//! An address space begins an operation again when a driver says so, and gives it up after many times (G10). With nobody else in the machine a driver
//! has nothing to wait for.

use super::SegCan;
use super::bench::{Bench, PAGES, Place};
use super::life::never_mapped;
use crate::error::{AsError, SegError};
use crate::fault::{FaultError, FaultKind};
use crate::ops::MOST_PASSES;
use crate::seg::{Advice, SyncFlags};
use page_db::contract::Breach;
use page_db::{Access, Prot, VnodeError, errno};

const ENDS: &str = "a retry comes to an end";

/// Asks for a driver that no tree knows, and gives it back.
pub(super) fn made(b: &Bench<'_>) -> Result<(), Breach> {
    let Some(make) = b.c.make else { return Ok(()) };
    let p = b.empty()?;
    let (range, before) = (p.range(0, PAGES), b.census());
    let again = |error: &SegError| {
        matches!(
            error,
            SegError::Retry { .. }
                | SegError::Fault(FaultError::Retry { .. })
                | SegError::Vnode(VnodeError::Deadlock { .. })
        )
    };
    for _ in 0..MOST_PASSES {
        let scx = p.space.scx(p.cx, range, false);
        match make.create(&scx) {
            Ok(ops) => return never_mapped(b, &p, ops, &before),
            Err(error) => {
                if !again(&error) {
                    return p.end(b); // another clause knows
                }
                p.db.clock().tick();
            }
        }
    }
    Err(b.judge.breach(ENDS, format_args!("create still says so after {MOST_PASSES} times")))
}

/// Every operation that may be begun again.
pub(super) fn done(b: &Bench<'_>) -> Result<(), Breach> {
    let p = b.place()?;
    let judge = |op: &str, errno: Result<(), i32>| {
        let ended = errno != Err(errno::EDEADLK);
        b.judge.require(ENDS, ended, format_args!("{op} was given up after {MOST_PASSES} passes"))
    };
    let space = |op: &str, done: Result<(), AsError>| judge(op, done.map_err(|e| e.errno()));
    let fault = |op: &str, done: Result<(), FaultError>| judge(op, done.map_err(|e| e.errno()));
    if p.can(SegCan::FAULT) {
        fault("a load", p.fault(1, FaultKind::Invalid, Access::Read))?;
        let range = p.range(1, 2);
        fault("populate", p.space.populate(p.cx, range, Access::Read))?;
        fault("faulta", p.space.faulta(p.cx, range))?;
    }
    if p.can(SegCan::FAULT | SegCan::STORE) {
        fault("a store", p.fault(2, FaultKind::Invalid, Access::Write))?;
    }
    if b.stands() {
        return p.end(b);
    }
    if p.can(SegCan::PROT) {
        for prot in [Prot::READ, Prot::RW] {
            space("set_prot", p.space.try_set_prot(p.cx, p.range(1, 1), prot))?;
        }
    }
    if p.can(SegCan::LOCK) {
        space("lock", p.space.lock(p.cx, p.range(1, 2)))?;
        space("unlock", p.space.unlock(p.cx, p.range(1, 2)))?;
    }
    if p.can(SegCan::ADVISE) {
        space("advise", p.space.advise(p.cx, p.range(1, 2), Advice::Normal))?;
    }
    if p.can(SegCan::SYNC) {
        space("sync", p.space.sync(p.cx, p.range(0, PAGES), SyncFlags::SYNC))?;
    }
    if p.can(SegCan::LEND) {
        let lent = p.space.lend_pages(p.cx, p.range(3, 2));
        space("loan", lent.map(|lent| lent.give_back(p.cx)))?;
    }
    forked(b, &p, space)?;
    space("unmap", p.space.try_unmap(p.cx, p.range(0, PAGES)))?;
    p.end(b)
}

fn forked(
    b: &Bench<'_>,
    p: &Place<'_>,
    space: impl Fn(&str, Result<(), AsError>) -> Result<(), Breach>,
) -> Result<(), Breach> {
    if !b.can(SegCan::DUP) {
        return Ok(());
    }
    let child = b.empty()?;
    space("fork", p.space.dup(p.cx, &child.space))?;
    child.end(b)
}
