//! Changing rights.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::error::{AsError, SegError};
use page_db::contract::Breach;
use page_db::{Access, Prot};

const RANGE: &str = "set_prot gives its range exactly the rights, and nothing else";
const WEAK: &str = "set_prot takes the rights from translations before it returns";
const KEEPS: &str = "rights do not change contents";
const AGAIN: &str = "a right that was given back can be used";
const NONE: &str = "without rights there is no translation";
const CEILING: &str = "a right beyond the ceiling is refused with Access; nothing has changed";
const FIXED: &str =
    "a driver whose rights cannot be changed says so with a typed error; nothing has changed";
const CHECK: &str = "check_prot names the first run that lacks a right";

pub(super) fn changes(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::PROT | SegCan::STORE) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let base = p.rights()?[0].unwrap_or_default();
    set(b, &p, 2, 2, Prot::READ, base)?;
    let done = p.space.check_prot(p.cx, p.range(0, PAGES), Prot::WRITE);
    let there = match done {
        Err(AsError::Seg(SegError::Access { range })) => range.start() == p.addr(2),
        _ => false,
    };
    b.judge.require(CHECK, there, format_args!("check_prot of w answered {done:?}"))?;
    [1, 4].into_iter().try_for_each(|n| p.write(n, word(n)))?;
    p.have_words(b, KEEPS, 0..PAGES)?;
    set(b, &p, 2, 2, base, base)?;
    let stored = p.reach(2, Access::Write).map(drop);
    stored.map_err(|breach| b.judge.breach(AGAIN, format_args!("{}", breach.facts)))?;
    p.have_words(b, KEEPS, 0..PAGES)?;
    set(b, &p, 0, PAGES, Prot::READ, base)?;
    p.have_words(b, KEEPS, 0..PAGES)?;
    set(b, &p, 0, PAGES, base, base)?;
    p.have_words(b, KEEPS, 0..PAGES)?;
    none(b, &p, base)?;
    p.end(b)
}

fn set(
    b: &Bench<'_>,
    p: &Place<'_>,
    n: u64,
    pages: u64,
    prot: Prot,
    base: Prot,
) -> Result<(), Breach> {
    let done = p.space.try_set_prot(p.cx, p.range(n, pages), prot);
    b.judge.same(RANGE, format_args!("set_prot to {prot} at page {n}"), done, Ok(()))?;
    for (page, has) in (0..).zip(p.rights()?) {
        let inside = (n..n + pages).contains(&page);
        let due = Some(if inside { prot } else { base });
        b.judge.same(RANGE, format_args!("rights of page {page}"), has, due)?;
    }
    for page in n..n + pages {
        let has = p.shows(page).map(|t| t.prot - Prot::USER);
        // The hardware cannot withhold loads from a page that allows anything else.
        let weak = has.is_none_or(|has| (prot | Prot::READ).contains(has));
        if prot.is_empty() {
            b.judge.same(NONE, format_args!("the translation of page {page}"), has, None)?;
        }
        b.judge.require(WEAK, weak, format_args!("page {page} is mapped {has:?}, not {prot}"))?;
    }
    p.sound("set_prot")
}

fn none(b: &Bench<'_>, p: &Place<'_>, base: Prot) -> Result<(), Breach> {
    if !b.can(SegCan::FAULT) {
        return Ok(()); // nothing would bring the translation back
    }
    set(b, p, 5, 1, Prot::empty(), base)?;
    set(b, p, 5, 1, base, base)?;
    p.have_words(b, KEEPS, 0..PAGES)
}

pub(super) fn ceiling(b: &Bench<'_>) -> Result<(), Breach> {
    let p = b.written(2)?;
    let base = p.rights()?[0].unwrap_or_default();
    let ceiling = p.ask(0, |scx, ops| ops.detail(scx).max_prot).unwrap_or_default();
    let was = p.look()?;
    for right in [Prot::READ, Prot::WRITE, Prot::EXEC] {
        if ceiling.contains(right) {
            continue;
        }
        for (n, pages) in [(1, 1), (0, PAGES)] {
            let done = p.space.try_set_prot(p.cx, p.range(n, pages), base | right);
            let typed = matches!(done, Err(AsError::Seg(SegError::Access { .. })));
            b.judge.require(CEILING, typed, format_args!("set_prot to {right} said {done:?}"))?;
            p.unchanged(CEILING, "set_prot beyond the ceiling", &was)?;
        }
    }
    if !b.can(SegCan::PROT) {
        let done = p.space.try_set_prot(p.cx, p.range(1, 1), Prot::empty());
        let typed = matches!(
            done,
            Err(AsError::Seg(
                SegError::Access { .. } | SegError::NotSupported { .. } | SegError::Invalid { .. }
            ))
        );
        b.judge.require(FIXED, typed, format_args!("set_prot said {done:?}"))?;
        p.unchanged(FIXED, "set_prot", &was)?;
    }
    p.sound("refused changes")?;
    p.end(b)
}
