//! Requests that are refused, one by one.
//!
//! Each deed is done once to count what it asks for, and then as often as that, in a place made anew, with one request refused each time. The
//! plan is the machine's own, so nothing else may run in it.

use super::SegCan;
use super::bench::{Bench, Look, PAGES, Place, word};
use super::pin::access;
use crate::fault::FaultKind;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use page_db::contract::Breach;
use page_db::{Access, FailPlan, Prot};

const STATE: &str = "a failure leaves the state before, or the state after";
const DONE: &str = "what says that it is done is done";
const AGAIN: &str = "once nothing fails any more the same call works";
const WORDS: &str = "a failure loses no contents";

/// Pages that have words before the deed.
const TOUCHED: u64 = 4;

type Done = Result<(), String>;

/// Something that a driver takes part in. At most one page is new to it: pages below the one that fails may stay.
struct Deed {
    what: &'static str,
    needs: SegCan,
    how: fn(&Bench<'_>, &Place<'_>) -> Done,
    /// Takes back what would be in the way of ending the place.
    undo: fn(&Bench<'_>, &Place<'_>),
}

fn told<T, E: core::fmt::Display>(done: Result<T, E>) -> Done {
    done.map(drop).map_err(|e| e.to_string())
}

fn nothing(_: &Bench<'_>, _: &Place<'_>) {}

const DEEDS: &[Deed] = &[
    Deed {
        what: "a load from a new page",
        needs: SegCan::FAULT,
        how: |_, p| told(p.fault(6, FaultKind::Invalid, Access::Read)),
        undo: nothing,
    },
    Deed {
        what: "a store to a new page",
        needs: SegCan::FAULT.union(SegCan::STORE),
        how: |_, p| told(p.fault(6, FaultKind::Invalid, Access::Write)),
        undo: nothing,
    },
    Deed {
        what: "a cut",
        needs: SegCan::SPLIT,
        how: |_, p| told(p.space.try_unmap(p.cx, p.range(1, 2))),
        undo: nothing,
    },
    Deed {
        what: "set_prot of a part",
        needs: SegCan::PROT.union(SegCan::STORE),
        how: |_, p| told(p.space.try_set_prot(p.cx, p.range(1, 2), Prot::READ)),
        undo: nothing,
    },
    Deed {
        what: "a lock in memory",
        needs: SegCan::LOCK,
        how: |_, p| told(p.space.lock(p.cx, p.range(3, 2))),
        undo: nothing,
    },
    Deed {
        what: "a soft lock",
        needs: SegCan::SOFTLOCK,
        how: |b, p| told(p.space.fault(p.cx, p.range(3, 2), FaultKind::SoftLock, access(b))),
        undo: |b, p| {
            let _ = p.space.fault(p.cx, p.range(3, 2), FaultKind::SoftUnlock, access(b));
        },
    },
];

pub(super) fn fails(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() {
        return Ok(());
    }
    let mut able = DEEDS.iter().filter(|deed| b.can(deed.needs));
    able.try_for_each(|deed| refused(b, deed))?;
    maps(b)?;
    if b.can(SegCan::DUP) { forks(b) } else { Ok(()) }
}

/// What is shown, held and stored after a deed.
type After = (Look, super::bench::Census, Vec<u64>);

fn after(b: &Bench<'_>, p: &Place<'_>) -> Result<After, Breach> {
    p.sound("a deed with refusals")?;
    let (look, held) = (p.look()?, b.census());
    let there = (0..TOUCHED).filter(|n| look.rights[*n as usize].is_some());
    let words = there.map(|n| p.read(n)).collect::<Result<_, _>>()?;
    Ok((look, held.without_frames(), words))
}

/// Runs `f` with a plan in force.
fn under<R>(b: &Bench<'_>, plan: &FailPlan, f: impl FnOnce() -> R) -> (R, u64) {
    b.c.db.counters().fail(plan);
    let done = f();
    let asked = b.c.db.counters().asked().all();
    b.c.db.counters().fail(&FailPlan::default());
    (done, asked)
}

fn refused(b: &Bench<'_>, deed: &Deed) -> Result<(), Breach> {
    let p = b.written(TOUCHED)?;
    let before = after(b, &p)?;
    let (done, asked) = under(b, &FailPlan::counting(), || (deed.how)(b, &p));
    b.judge.same(AGAIN, format_args!("{}", deed.what), done, Ok(()))?;
    let clean = after(b, &p)?;
    (deed.undo)(b, &p);
    p.end(b)?;
    for k in 1..=asked {
        let what = format!("{}, request {k} of {asked} refused", deed.what);
        let p = b.written(TOUCHED)?;
        let plan = FailPlan::counting().kth_of_any(k);
        let (done, _) = under(b, &plan, || (deed.how)(b, &p));
        let is = after(b, &p)?;
        if done.is_ok() {
            b.judge.same(DONE, format_args!("{what}: it"), &is, &clean)?;
        } else {
            let good = is == before || is == clean;
            let facts = format_args!("{what}: {done:?}, and then {is:?}; before {before:?}");
            b.judge.require(STATE, good, facts)?;
            let again = (deed.how)(b, &p);
            b.judge.same(AGAIN, format_args!("{what}: again, it"), again, Ok(()))?;
            b.judge.same(AGAIN, format_args!("{what}: again, it"), &after(b, &p)?, &clean)?;
        }
        (deed.undo)(b, &p);
        p.end(b)?;
    }
    Ok(())
}

fn maps(b: &Bench<'_>) -> Result<(), Breach> {
    let Some(make) = b.c.make else { return Ok(()) };
    let mut asked = 1; // learnt in the first round, in which nothing fails
    let mut k = 0;
    while k <= asked {
        let what = format!("map, request {k} refused");
        let p = b.empty()?;
        let (was, held) = (p.look()?, b.census());
        let plan = FailPlan::counting().kth_of_any(k);
        let (done, counted) = under(b, &plan, || p.space.map(p.cx, p.range(0, PAGES), make));
        asked = if k == 0 { counted } else { asked };
        if done.is_err() {
            p.unchanged(STATE, &what, &was)?;
            b.judge.same(STATE, format_args!("{what}: what is held"), &b.census(), &held)?;
            b.map(&p, 0, PAGES)?;
        }
        (0..TOUCHED).try_for_each(|n| p.write(n, word(n)))?;
        p.have_words(b, WORDS, 0..TOUCHED)?;
        p.sound(&what)?;
        p.end(b)?;
        k += 1;
    }
    Ok(())
}

fn forks(b: &Bench<'_>) -> Result<(), Breach> {
    let mut asked = 1;
    let mut k = 0;
    while k <= asked {
        let what = format!("fork, request {k} refused");
        let p = b.written(TOUCHED)?;
        let c = b.empty()?;
        let (was, none, held) = (p.look()?, c.look()?, b.census());
        let plan = FailPlan::counting().kth_of_any(k);
        let (done, counted) = under(b, &plan, || p.space.dup(p.cx, &c.space));
        asked = if k == 0 { counted } else { asked };
        p.unchanged(STATE, &what, &was)?;
        if done.is_err() {
            c.unchanged(STATE, &what, &none)?;
            b.judge.same(STATE, format_args!("{what}: what is held"), &b.census(), &held)?;
            let again = p.space.dup(p.cx, &c.space);
            b.judge.same(AGAIN, format_args!("{what}: again, it"), again, Ok(()))?;
        }
        c.have_words(b, WORDS, 0..TOUCHED)?;
        p.have_words(b, WORDS, 0..TOUCHED)?;
        c.sound(&what)?;
        store_after_fork(b, &p, &c, k)?;
        c.end(b)?;
        p.sound(&what)?;
        p.end(b)?;
        k += 1;
    }
    Ok(())
}

/// The first store after a fork, with its k-th request refused: an answer or a page, and nobody else's bytes.
fn store_after_fork(b: &Bench<'_>, p: &Place<'_>, c: &Place<'_>, k: u64) -> Result<(), Breach> {
    if !p.keeps_words() || !b.can(SegCan::FAULT) {
        return Ok(());
    }
    let plan = FailPlan::counting().kth_of_any(k);
    let (done, _) = under(b, &plan, || c.fault(1, FaultKind::Invalid, Access::Write));
    if done.is_ok() {
        let has = c.shows(1).map(|t| t.prot);
        let facts = format_args!("a store after fork, request {k} refused: resolved to {has:?}");
        b.judge.require(DONE, has.is_some_and(|prot| prot.allows(Access::Write)), facts)?;
    }
    c.have_words(b, WORDS, 0..TOUCHED)?;
    c.write(1, word(50))?;
    c.has(WORDS, 1, word(50))?;
    let due = if b.can(SegCan::SHARE) { word(50) } else { word(1) };
    p.has(WORDS, 1, due)
}
