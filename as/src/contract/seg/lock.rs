//! Pages locked in memory.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::seg::{InCore, LockOp, NewlyLocked};
use alloc::vec::Vec;
use page_db::contract::Breach;

const NOTES: &str = "lock notes the pages that it has newly locked, and no others";
const SHOWS: &str = "locked pages are told as locked, and others are not";
const THERE: &str = "a locked page is in memory";
const ONCE: &str = "locks do not nest: one unlock ends any number of them";
const WORDS: &str = "locks change no contents";
const GONE: &str = "unmap ends the locks of its range";

pub(super) fn locks(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::LOCK) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    op(b, &p, LockOp::Lock, 2, 1, &[2])?;
    are(b, &p, SHOWS, &[2])?;
    op(b, &p, LockOp::Lock, 1, 5, &[1, 3, 4, 5])?;
    are(b, &p, SHOWS, &[1, 2, 3, 4, 5])?;
    for n in 1..6 {
        let told = p.in_core(n);
        let facts = format_args!("incore says {told:?} of page {n}");
        b.judge.require(THERE, told.contains(InCore::INCORE), facts)?;
    }
    op(b, &p, LockOp::Lock, 0, PAGES, &[0, 6, 7])?;
    op(b, &p, LockOp::Unlock, 2, 2, &[])?;
    are(b, &p, ONCE, &[0, 1, 4, 5, 6, 7])?;
    p.have_words(b, WORDS, 0..PAGES)?;
    p.write(4, word(4))?;
    p.has(WORDS, 4, if p.keeps_words() { word(4) } else { b.fresh(4) })?;
    p.sound("stores to locked pages")?;
    op(b, &p, LockOp::Unlock, 0, PAGES, &[])?;
    are(b, &p, SHOWS, &[])?;
    let done = p.space.lock(p.cx, p.range(3, 4));
    b.judge.same(SHOWS, format_args!("lock of the space"), done, Ok(()))?;
    are(b, &p, SHOWS, &[3, 4, 5, 6])?;
    if b.can(SegCan::SPLIT) && !b.stands() {
        let done = p.space.try_unmap(p.cx, p.range(4, 2));
        b.judge.same(GONE, format_args!("unmap"), done, Ok(()))?;
        are(b, &p, GONE, &[3, 6])?;
    }
    p.end(b)
}

fn op(
    b: &Bench<'_>,
    p: &Place<'_>,
    op: LockOp,
    n: u64,
    pages: u64,
    due: &[u64],
) -> Result<(), Breach> {
    let mut newly = NewlyLocked::default();
    let done = p.ask(n, |scx, ops| ops.lock_op(scx, p.range(n, pages), op, &mut newly));
    b.judge.same(NOTES, format_args!("{op:?} of {pages} pages at {n}"), done, Some(Ok(())))?;
    let first = p.range(0, PAGES);
    let noted = newly.runs().iter().flat_map(|run| run.iter_pages());
    let noted: Vec<u64> = noted.map(|addr| first.page_index(addr)).collect();
    b.judge.same(NOTES, format_args!("{op:?} of {pages} pages at {n} noted"), &*noted, due)?;
    p.sound("lock_op")
}

fn are(b: &Bench<'_>, p: &Place<'_>, clause: &'static str, due: &[u64]) -> Result<(), Breach> {
    let locked: Vec<u64> = (0..).zip(p.locked()).filter(|(_, l)| *l).map(|(n, _)| n).collect();
    b.judge.same(clause, format_args!("the locked pages"), &*locked, due)?;
    let (mut told, mut runs) = (0, 0);
    let segs = p.space.segs(p.cx);
    for seg in segs.iter() {
        let scx = p.space.scx(p.cx, seg.range(), false);
        told += seg.ops().residency(&scx, seg.range()).locked;
        let mut rest = Some(seg.range());
        while let Some(run) = rest.and_then(|rest| seg.ops().first_locked(&scx, rest)) {
            runs += run.pages().get();
            rest = seg.range().from(run.end());
        }
    }
    b.judge.same(
        clause,
        format_args!("locked pages as residency tells"),
        told,
        due.len() as u64,
    )?;
    b.judge.same(clause, format_args!("locked pages, run by run"), runs, due.len() as u64)
}
