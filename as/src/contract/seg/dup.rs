//! Fork: what a child finds, and what the two see of each other.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::fault::{FaultError, FaultKind};
use crate::seg::Inherit;
use page_db::contract::Breach;
use page_db::{Access, Prot};

const CHILD: &str = "a child has its parent's segments, rights and contents";
const RUN: &str =
    "the run that one driver of a child serves begins where it is asked for, and ends within";
const PARENT: &str = "fork changes nothing in the parent";
const UNLOCKED: &str = "memory locks are not inherited";
const APART: &str = "private memory: nobody sees the other's stores";
const TOGETHER: &str = "shared memory: each sees the other's stores";
const ALONE: &str = "a child outlives its parent";
const ZERO: &str = "inherited as zeros: the child finds zeros, and has them alone";
const SHARE: &str = "inherited shared: each sees the other's stores";
const COPY: &str = "inherited as a copy: nobody sees the other's stores";
const OUT: &str = "left out: the child has nothing there";

fn child<'a>(b: &'a Bench<'_>, p: &Place<'_>) -> Result<Place<'a>, Breach> {
    let child = b.empty()?;
    let done = p.space.dup(p.cx, &child.space);
    b.judge.same(CHILD, format_args!("fork"), done, Ok(()))?;
    p.sound("fork")?;
    child.sound("fork")?;
    Ok(child)
}

pub(super) fn copies(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::DUP) {
        return Ok(());
    }
    let p = b.written(6)?;
    if b.can(SegCan::PROT | SegCan::STORE) {
        let done = p.space.try_set_prot(p.cx, p.range(2, 1), Prot::READ);
        b.judge.same(CHILD, format_args!("set_prot"), done, Ok(()))?;
    }
    if b.can(SegCan::LOCK) {
        let done = p.space.lock(p.cx, p.range(4, 1));
        b.judge.same(UNLOCKED, format_args!("locking page 4"), done, Ok(()))?;
    }
    for (n, pages) in [(0, PAGES), (2, 3)] {
        let part = p.range(n, pages);
        let run = p.ask(n, |scx, ops| ops.inherit_run(scx, part));
        let within = run.is_none_or(|run| run.start() == part.start() && part.covers(run));
        b.judge.require(RUN, within, format_args!("of {part} it serves {run:?}"))?;
    }
    let was = p.look()?;
    let c = child(b, &p)?;
    p.unchanged(PARENT, "fork", &was)?;
    b.judge.same(CHILD, format_args!("its segments"), c.shape(), p.shape())?;
    b.judge.same(CHILD, format_args!("its rights"), c.rights()?, p.rights()?)?;
    let none = alloc::vec![false; PAGES as usize];
    b.judge.same(UNLOCKED, format_args!("its locks"), c.locked(), none)?;
    b.judge.same(UNLOCKED, format_args!("its locked bytes"), c.space.state().locked(), 0)?;
    c.have_words(b, CHILD, 0..6)?;
    p.have_words(b, PARENT, 0..6)?;
    if p.keeps_words() {
        let fresh = b.fresh(6);
        c.has(CHILD, 6, fresh)?;
        stores(b, &p, &c, fresh)?;
        let grand = child(b, &c)?;
        stores(b, &c, &grand, word(22))?;
        grand.end(b)?;
    }
    c.end(b)?;
    p.sound("the child's end")?;
    p.end(b)
}

/// Stores on either side; page 6 had `fresh` on both.
fn stores(b: &Bench<'_>, p: &Place<'_>, c: &Place<'_>, fresh: u64) -> Result<(), Breach> {
    let share = b.can(SegCan::SHARE);
    let clause = if share { TOGETHER } else { APART };
    let before = [(p.read(0)?, 0), (p.read(1)?, 1), (fresh, 6)];
    for (n, store) in [(0, 20), (1, 21), (6, 22)] {
        let (by, other) = if n == 0 { (p, c) } else { (c, p) };
        by.write(n, word(store))?;
        by.has(clause, n, word(store))?;
        let old = before.iter().find(|(_, page)| *page == n).map_or(0, |(old, _)| *old);
        other.has(clause, n, if share { word(store) } else { old })?;
        other.forget();
        other.has(clause, n, if share { word(store) } else { old })?;
    }
    p.sound("stores after fork")?;
    c.sound("stores after fork")
}

pub(super) fn outlives(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::DUP) {
        return Ok(());
    }
    let p = b.written(4)?;
    let c = child(b, &p)?;
    p.end(b)?;
    c.have_words(b, ALONE, 0..4)?;
    c.write(1, word(30))?;
    c.has(ALONE, 1, if c.keeps_words() { word(30) } else { b.fresh(1) })?;
    if b.can(SegCan::SPLIT) {
        let done = c.space.try_unmap(c.cx, c.range(2, 1));
        b.judge.same(ALONE, format_args!("a cut in the child"), done, Ok(()))?;
        c.have_words(b, ALONE, [0, 3])?;
    }
    c.sound("the parent's end")?;
    c.end(b)
}

pub(super) fn inherits(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::DUP | SegCan::INHERIT | SegCan::STORE | SegCan::BYTES) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let mut chosen = alloc::vec![(0, Inherit::Zero), (2, Inherit::Copy), (3, Inherit::None)];
    chosen.extend(b.can(SegCan::INHERIT_SHARE).then_some((1, Inherit::Share)));
    for (n, how) in chosen {
        let done = p.space.inherit(p.cx, p.range(n, 1), how);
        b.judge.same(CHILD, format_args!("inherit as {how:?}"), done, Ok(()))?;
    }
    p.have_words(b, PARENT, 0..PAGES)?;
    p.sound("inherit")?;
    let c = b.empty()?;
    let done = p.space.dup(p.cx, &c.space);
    b.judge.same(CHILD, format_args!("fork"), done, Ok(()))?;
    let left = c.shows(3).map(|t| t.prot);
    b.judge.same(OUT, format_args!("a translation in the child"), left, None)?;
    p.sound("fork")?;
    c.sound("fork")?;
    c.has(ZERO, 0, 0)?;
    c.write(0, word(40))?;
    p.has(ZERO, 0, word(0))?;
    if b.can(SegCan::INHERIT_SHARE) {
        c.has(SHARE, 1, word(1))?;
        c.write(1, word(41))?;
        p.has(SHARE, 1, word(41))?;
        p.write(1, word(42))?;
        c.has(SHARE, 1, word(42))?;
    }
    c.has(COPY, 2, word(2))?;
    c.write(2, word(43))?;
    p.has(COPY, 2, word(2))?;
    p.write(2, word(44))?;
    c.has(COPY, 2, word(43))?;
    let done = c.fault(3, FaultKind::Invalid, Access::Read);
    let due = Err(FaultError::NoMap { addr: c.addr(3) });
    b.judge.same(OUT, format_args!("a fault in the child"), done, due)?;
    c.have_words(b, CHILD, 4..PAGES)?;
    p.sound("inherited stores")?;
    c.sound("inherited stores")?;
    c.end(b)?;
    p.sound("the child's end")?;
    p.end(b)
}
