//! No frame is free.
//!
//! The driver itself is asked: an address space that is told so has page-out find a frame, and asks again.

use super::SegCan;
use super::bench::{Bench, word};
use super::pin::access;
use crate::error::SegError;
use crate::fault::{FaultError, FaultKind};
use crate::seg::{LockOp, NewlyLocked, SegCx, SegOps};
use alloc::vec::Vec;
use page_db::contract::Breach;
use page_db::{Access, PageId, Reserve, VirtRange, VnodeError};

const SAYS: &str = "a driver that wants a frame, and there is none, answers NoMemory";
const LEAVES: &str = "what could not be done without a frame leaves nothing behind, and can be done when there is one";

/// Pages that have words before.
const TOUCHED: u64 = 4;

/// Something that may want a frame for the page that it is asked about, and how that is taken back.
struct Wish {
    what: &'static str,
    needs: SegCan,
    /// The page.
    n: u64,
    asks: fn(&SegCx<'_>, &dyn SegOps, VirtRange, Access) -> Result<(), SegError>,
    undo: fn(&SegCx<'_>, &dyn SegOps, VirtRange, Access),
}

fn nothing(_: &SegCx<'_>, _: &dyn SegOps, _: VirtRange, _: Access) {}

const WISHES: &[Wish] = &[
    Wish {
        what: "a load from a new page",
        needs: SegCan::FAULT,
        n: 6,
        asks: |scx, ops, page, _| Ok(ops.fault(scx, page, FaultKind::Invalid, Access::Read)?),
        undo: nothing,
    },
    Wish {
        what: "a store to a new page",
        needs: SegCan::FAULT.union(SegCan::STORE),
        n: 6,
        asks: |scx, ops, page, _| Ok(ops.fault(scx, page, FaultKind::Invalid, Access::Write)?),
        undo: nothing,
    },
    Wish {
        what: "a soft lock of a new page",
        needs: SegCan::FAULT.union(SegCan::SOFTLOCK),
        n: 5,
        asks: |scx, ops, page, access| Ok(ops.fault(scx, page, FaultKind::SoftLock, access)?),
        undo: |scx, ops, page, access| {
            let _ = ops.fault(scx, page, FaultKind::SoftUnlock, access);
        },
    },
    Wish {
        what: "a lock in memory of a new page",
        needs: SegCan::LOCK,
        n: 7,
        asks: |scx, ops, page, _| ops.lock_op(scx, page, LockOp::Lock, &mut NewlyLocked::default()),
        undo: |scx, ops, page, _| {
            let _ = ops.lock_op(scx, page, LockOp::Unlock, &mut NewlyLocked::default());
        },
    },
    Wish {
        what: "a loan of a new page",
        needs: SegCan::LEND,
        n: 4,
        asks: |scx, ops, page, _| {
            let lent = ops.lend_pages(scx, page)?;
            lent.pages.into_iter().for_each(|page| scx.db.unlend(scx.cx, page));
            Ok(())
        },
        undo: nothing,
    },
];

/// Everything that is free, until it is given back.
fn all_frames(b: &Bench<'_>) -> Vec<PageId> {
    let mut taken = Vec::new();
    while let Ok(page) = b.c.db.alloc(b.c.cx, 0, Reserve::Push) {
        taken.push(page.leak());
    }
    taken
}

fn give_back(b: &Bench<'_>, frames: Vec<PageId>) {
    let (cx, db) = (b.c.cx, b.c.db);
    frames.into_iter().for_each(|page| db.destroy(cx, db.adopt_excl(cx, page)));
}

pub(super) fn of_frames(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() {
        return Ok(());
    }
    WISHES.iter().filter(|wish| b.can(wish.needs)).try_for_each(|wish| refused(b, wish))
}

fn refused(b: &Bench<'_>, wish: &Wish) -> Result<(), Breach> {
    let p = b.written(TOUCHED)?;
    let (was, before) = (p.look()?, b.census());
    let (page, access) = (p.range(wish.n, 1), access(b));
    let ask = || p.ask(wish.n, |scx, ops| (wish.asks)(scx, ops, page, access)).unwrap_or(Ok(()));
    let taken = all_frames(b);
    let done = ask();
    give_back(b, taken);
    let Err(e) = done else {
        p.ask(wish.n, |scx, ops| (wish.undo)(scx, ops, page, access)); // it wanted none
        return p.end(b);
    };
    let said = matches!(
        e,
        SegError::NoMemory { .. }
            | SegError::Fault(FaultError::NoMemory { .. })
            | SegError::Vnode(VnodeError::NoMemory { .. })
    );
    b.judge.require(SAYS, said, format_args!("{}: {e:?}", wish.what))?;
    let what = wish.what;
    b.judge.same(LEAVES, format_args!("{what}: what is held"), &b.census(), &before)?;
    p.unchanged(LEAVES, what, &was)?;
    p.sound(what)?;
    b.judge.same(LEAVES, format_args!("{what}: again, it"), ask(), Ok(()))?;
    p.ask(wish.n, |scx, ops| (wish.undo)(scx, ops, page, access));
    p.have_words(b, LEAVES, 0..TOUCHED)?;
    p.write(wish.n, word(wish.n))?;
    p.sound(what)?;
    p.end(b)
}
