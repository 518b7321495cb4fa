//! Mappings that move, go on and are shown twice; and pages that are lent.

use super::SegCan;
use super::bench::{Bench, Place, first_word, word};
use crate::error::{AsError, SegError};
use crate::fault::FaultKind;
use crate::ops::{Leave, LentPages, Target};
use page_db::contract::Breach;
use page_db::{Access, PAGE_SIZE, Prot};

const MOVES: &str = "what is moved keeps its contents, its offsets and its rights";
const LOCKS: &str = "locks in memory come along with what is moved";
const OLD: &str = "where something was moved from, no translation is left, and nothing is mapped";
const FRESH: &str = "what is left behind is as if it were new";
const TAKEN: &str =
    "a move to where something is, and of pinned pages, is refused and changes nothing";
const GOES_ON: &str =
    "a mapping goes on with what follows in its object, the rights and the lock of its last page";
const TWICE: &str = "memory shown twice is one memory: both see what either stores";
const UNLOCKED: &str = "memory shown twice is not locked twice";
const STAYS: &str = "memory shown twice stays for one when the other goes";
const LENT: &str = "what is lent is what was there, page by page, and stands still";
const STORED: &str = "who stores to what is lent sees what was stored";
const NOT_LENT: &str = "what is locked in memory is not lent, and stays as it is";

/// Three pages at the beginning: the second is locked, if it can be, the third cannot be stored to any more.
fn three<'b>(b: &'b Bench<'_>) -> Result<Place<'b>, Breach> {
    let p = b.empty()?;
    b.map(&p, 0, 3)?;
    (0..3).try_for_each(|n| p.write(n, word(n)))?;
    if b.can(SegCan::LOCK) {
        let done = p.space.lock(p.cx, p.range(1, 1));
        b.judge.same(LOCKS, format_args!("lock"), done, Ok(()))?;
    }
    if b.can(SegCan::PROT) {
        let done = p.space.set_prot(p.cx, p.range(2, 1), Prot::READ | Prot::USER);
        b.judge.same(MOVES, format_args!("set_prot"), done, Ok(()))?;
    }
    Ok(p)
}

fn word_of(b: &Bench<'_>, p: &Place<'_>, n: u64) -> u64 {
    if p.keeps_words() { word(n) } else { b.fresh(n) }
}

/// What the n-th page was is at page `at`.
fn same_page(b: &Bench<'_>, p: &Place<'_>, n: u64, at: u64) -> Result<(), Breach> {
    p.has(MOVES, at, word_of(b, p, n))?;
    if b.can(SegCan::PROT) {
        let has = p.rights()?[at as usize].map(|prot| prot.contains(Prot::WRITE));
        let due = Some(n != 2 && b.can(SegCan::STORE));
        b.judge.same(MOVES, format_args!("the right to store at page {at}"), has, due)?;
    }
    let locked = p.locked()[at as usize];
    b.judge.same(
        LOCKS,
        format_args!("the lock of page {at}"),
        locked,
        n == 1 && b.can(SegCan::LOCK),
    )
}

pub(super) fn moves(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::EXTRACT) {
        return Ok(());
    }
    let p = three(b)?;
    let offset = |n| p.ask(n, |scx, ops| ops.offset(scx, p.addr(n)));
    let was = offset(1);
    let done = p.space.move_range(p.cx, p.range(1, 2), p.addr(5), Leave::Hole, Target::Free);
    b.judge.same(MOVES, format_args!("the move of pages 1 and 2"), done, Ok(()))?;
    b.judge.same(OLD, format_args!("the segments"), p.shape(), [(0, 1), (5, 7)].into())?;
    let left = (1..3).find(|n| p.shows(*n).is_some());
    b.judge.same(OLD, format_args!("the first page with a translation"), left, None)?;
    p.sound("a move")?;
    (0..3).zip([0, 5, 6]).try_for_each(|(n, at)| same_page(b, &p, n, at))?;
    b.judge.same(MOVES, format_args!("the offset of page 5"), offset(5), was)?;
    refused(b, &p)?;
    goes_on(b, &p)?;
    let done = p.space.move_range(p.cx, p.range(0, 1), p.addr(2), Leave::Fresh, Target::Free);
    b.judge.same(FRESH, format_args!("the move of page 0"), done, Ok(()))?;
    same_page(b, &p, 0, 2)?;
    let due = if b.can(SegCan::SHARE) { word_of(b, &p, 0) } else { b.fresh(0) };
    p.has(FRESH, 0, due)?;
    p.sound("moves")?;
    p.end(b)
}

fn refused(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    let was = p.look()?;
    let done = p.space.move_range(p.cx, p.range(0, 1), p.addr(6), Leave::Hole, Target::Free);
    let due = matches!(done, Err(AsError::Overlap { .. }));
    b.judge.require(TAKEN, due, format_args!("a move onto page 6 answered {done:?}"))?;
    if b.can(SegCan::SOFTLOCK) {
        let pinned = p.fault(5, FaultKind::SoftLock, Access::Read);
        b.judge.same(TAKEN, format_args!("soft lock of page 5"), pinned, Ok(()))?;
        let done = p.space.may_move(p.cx, p.range(5, 2));
        let due = matches!(done, Err(AsError::Seg(SegError::Pinned { .. })));
        b.judge.require(TAKEN, due, format_args!("moving a pinned page answered {done:?}"))?;
        let freed = p.fault(5, FaultKind::SoftUnlock, Access::Read);
        b.judge.same(TAKEN, format_args!("soft unlock of page 5"), freed, Ok(()))?;
    }
    p.unchanged(TAKEN, "refused moves", &was)
}

/// Behind page 6, which shows the third page of the object; once more behind page 5 in a space of its own, where that is locked.
fn goes_on(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    let done = p.space.extend(p.cx, p.addr(6), p.range(7, 1));
    b.judge.same(GOES_ON, format_args!("extend"), done, Ok(()))?;
    p.has(GOES_ON, 7, b.fresh(3))?;
    let rights = p.rights()?;
    b.judge.same(GOES_ON, format_args!("rights of page 7"), rights[7], rights[6])?;
    b.judge.same(GOES_ON, format_args!("the lock of page 7"), p.locked()[7], false)?;
    let q = b.empty()?;
    b.map(&q, 0, 2)?;
    q.write(1, word(1))?;
    if b.can(SegCan::LOCK) {
        let done = q.space.lock(q.cx, q.range(1, 1));
        b.judge.same(GOES_ON, format_args!("lock"), done, Ok(()))?;
    }
    let done = q.space.extend(q.cx, q.addr(1), q.range(2, 1));
    b.judge.same(GOES_ON, format_args!("extend behind a lock"), done, Ok(()))?;
    // Where nothing is promised, a lock passes over what nobody has touched.
    let promised = b.can(SegCan::LOCK | SegCan::INHERIT_SHARE);
    let locked = [false, b.can(SegCan::LOCK), promised];
    b.judge.same(GOES_ON, format_args!("locks"), &q.locked()[..3], &locked[..])?;
    q.sound("a longer mapping")?;
    q.end(b)
}

pub(super) fn shows_twice(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::EXTRACT | SegCan::INHERIT_SHARE) {
        return Ok(());
    }
    let (p, q) = (three(b)?, b.empty()?);
    let done = p.space.share_range(p.cx, p.range(0, 3), &q.space, q.addr(4));
    b.judge.same(TWICE, format_args!("share_range"), done, Ok(()))?;
    (0..3).try_for_each(|n| q.has(TWICE, 4 + n, word_of(b, &p, n)))?;
    let locked = q.locked().iter().position(|locked| *locked);
    b.judge.same(UNLOCKED, format_args!("the first locked page"), locked, None)?;
    if p.keeps_words() {
        q.write(4, word(40))?;
        p.has(TWICE, 0, word(40))?;
        p.write(1, word(41))?;
        q.has(TWICE, 5, word(41))?;
    }
    p.sound("stores on both sides")?;
    q.sound("stores on both sides")?;
    p.end(b)?;
    let due = [word(40), word(41), word(2)];
    if q.keeps_words() {
        (4..).zip(due).try_for_each(|(n, due)| q.has(STAYS, n, due))?;
    }
    q.end(b)
}

/// The word of each page of a loan, each page of one piece.
fn words(p: &Place<'_>, lent: &LentPages) -> Result<alloc::vec::Vec<u64>, Breach> {
    let word = |offset| {
        let mut page = [0; PAGE_SIZE as usize];
        lent.read(offset, &mut page);
        p.whole(format_args!("what is lent {offset:#x} bytes on"), &page)?;
        Ok(first_word(&page))
    };
    (0..lent.range().len()).step_by(PAGE_SIZE as usize).map(word).collect()
}

/// What pages 1 to 3 show to whoever has them lent, whatever becomes of the range.
fn while_lent(
    b: &Bench<'_>,
    p: &Place<'_>,
    lent: &LentPages,
    due: alloc::vec::Vec<u64>,
) -> Result<(), Breach> {
    b.judge.same(LENT, format_args!("the words lent"), words(p, lent)?, due.clone())?;
    if p.keeps_words() {
        p.write(1, word(51))?;
        p.has(STORED, 1, word(51))?;
        p.forget();
        p.has(STORED, 1, word(51))?;
    }
    b.judge.same(LENT, format_args!("the words after a store"), words(p, lent)?, due.clone())?;
    p.sound("a store to what is lent")?;
    if b.can(SegCan::SPLIT) && !b.stands() {
        let done = p.space.try_unmap(p.cx, p.range(2, 1));
        b.judge.same(LENT, format_args!("unmap of what is lent"), done, Ok(()))?;
        b.judge.same(LENT, format_args!("the words after an unmap"), words(p, lent)?, due)?;
    }
    Ok(())
}

pub(super) fn lends(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::LEND) {
        return Ok(());
    }
    let p = b.written(4)?;
    let before = b.census();
    let due: alloc::vec::Vec<u64> = (1..4).map(|n| word_of(b, &p, n)).collect();
    let lent = p.space.lend_pages(p.cx, p.range(1, 3));
    let lent = lent.map_err(|e| b.judge.breach(LENT, format_args!("lend_pages answered {e}")))?;
    if let Err(breach) = while_lent(b, &p, &lent, due) {
        lent.abandon(); // who knows what there is to be given back
        return Err(breach);
    }
    lent.give_back(p.cx);
    b.judge.same(
        LENT,
        format_args!("locks and claims afterwards"),
        b.census().pages_held(),
        before.pages_held(),
    )?;
    if b.can(SegCan::LOCK) {
        let done = p.space.lock(p.cx, p.range(3, 1));
        b.judge.same(NOT_LENT, format_args!("lock"), done, Ok(()))?;
        let done = p.space.lend_pages(p.cx, p.range(3, 1)).map(|lent| lent.give_back(p.cx));
        let due = matches!(done, Err(AsError::Seg(SegError::Locked { .. })));
        b.judge.require(
            NOT_LENT,
            due,
            format_args!("a loan of a locked page answered {done:?}"),
        )?;
        b.judge.same(NOT_LENT, format_args!("the lock of page 3"), p.locked()[3], true)?;
    }
    p.end(b)
}
