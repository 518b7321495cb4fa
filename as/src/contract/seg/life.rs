//! From map to free, and what a driver says of itself.

use super::SegCan;
use super::bench::{Bench, Census, PAGES, Place, word};
use crate::fault::{FaultError, FaultKind};
use crate::seg::{InCore, SegKind, SegOps};
use alloc::boxed::Box;
use alloc::format;
use page_db::contract::Breach;
use page_db::{Access, Prot};

const WHOLE: &str = "a mapping is the range that was asked for, and no more";
const FRESH: &str = "a new mapping shows what is mapped: zeros, or what lies behind it";
const KEEPS: &str = "what was stored is loaded again";
const BACK: &str = "translations are a cache: a fault brings back what was there";
const BEHIND: &str = "stores into a shared mapping reach what is mapped";
const PRIVATE: &str = "stores into a private mapping do not reach what is mapped";
const RESIDENT: &str = "pages in use are told as resident";
const GONE: &str = "unmap removes translations, sizes and segments";
const UNUSED: &str = "free takes back what create did, also where unmap was never called";
const NAME: &str = "a driver has one name, and says what kind of mapping it is";
const CEILING: &str = "rights stay below the ceiling, and check_prot tells them as prots does";
const PUSHED: &str = "swapout answers for no more bytes than the segment has, and loses none";
const FEW: &str = "incore answers for as many pages as were asked about and fit";

/// Two lives after each other, and one in which nothing happens.
pub(super) fn lives(b: &Bench<'_>) -> Result<(), Breach> {
    for life in ["first", "second"] {
        let p = b.place()?;
        if !b.stands() {
            b.judge.same(WHOLE, format_args!("the segments"), p.shape(), [(0, PAGES)].into())?;
            outside(b, &p, PAGES)?;
        }
        (0..PAGES).try_for_each(|n| p.has(FRESH, n, b.fresh(n)))?;
        let before: alloc::vec::Vec<_> = (0..PAGES).map(|n| b.fresh(n)).collect();
        (0..PAGES).try_for_each(|n| p.write(n, word(n)))?;
        p.have_words(b, KEEPS, 0..PAGES)?;
        p.sound("stores")?;
        p.forget();
        p.have_words(b, BACK, 0..PAGES)?;
        if p.keeps_words() && b.c.behind.is_some() {
            for n in 0..PAGES {
                let (clause, due) = match b.can(SegCan::SHARE) {
                    true => (BEHIND, word(n)),
                    false => (PRIVATE, before[n as usize]),
                };
                b.judge.same(clause, format_args!("behind page {n}"), b.fresh(n), due)?;
            }
        }
        resident(b, &p)?;
        let freed = p.ask(0, |scx, ops| ops.swapout(scx)).unwrap_or_default();
        let facts = format_args!("{freed:#x} of {:#x}", p.range(0, PAGES).len());
        b.judge.require(PUSHED, freed <= p.range(0, PAGES).len() || b.stands(), facts)?;
        p.have_words(b, PUSHED, 0..PAGES)?;
        p.sound("loads")?;
        if life == "first" {
            unmap(b, &p)?;
        }
        p.end(b)?;
    }
    b.place()?.end(b)
}

/// The page below and the page above are not the driver's.
fn outside(b: &Bench<'_>, p: &Place<'_>, n: u64) -> Result<(), Breach> {
    let below = p.addr(0).get() - page_db::PAGE_SIZE;
    for addr in [page_db::VirtAddr::new(below).unwrap_or(p.addr(n)), p.addr(n)] {
        let done = p.space.fault_at(p.cx, addr, FaultKind::Invalid, Access::Read);
        let due = Err(FaultError::NoMap { addr });
        b.judge.same(WHOLE, format_args!("a fault beside it"), done, due)?;
    }
    Ok(())
}

fn resident(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    for n in 0..PAGES {
        let told = p.in_core(n);
        let facts = format_args!("incore says {told:?} of page {n}");
        b.judge.require(RESIDENT, told.contains(InCore::INCORE), facts)?;
    }
    let rss = p.ask(0, |scx, ops| ops.residency(scx, p.range(0, PAGES)).rss);
    b.judge.same(RESIDENT, format_args!("residency"), rss, Some(PAGES))
}

fn unmap(b: &Bench<'_>, p: &Place<'_>) -> Result<(), Breach> {
    if b.stands() {
        return Ok(());
    }
    let done = p.space.try_unmap(p.cx, p.range(0, PAGES));
    b.judge.same(GONE, format_args!("unmap"), done, Ok(()))?;
    let left = (0..PAGES).find(|n| p.shows(*n).is_some());
    b.judge.same(GONE, format_args!("the first page with a translation"), left, None)?;
    let state = p.space.state();
    let sizes = (state.size(), state.resv_size(), state.locked());
    b.judge.same(GONE, format_args!("mapped, reserved, locked bytes"), sizes, (0, 0, 0))?;
    b.judge.same(GONE, format_args!("the segments"), p.shape(), [].into())?;
    p.sound("unmap")
}

/// A driver that was made in vain: another mapping came first.
pub(super) fn never_mapped(
    b: &Bench<'_>,
    p: &Place<'_>,
    ops: Box<dyn SegOps>,
    before: &Census,
) -> Result<(), Breach> {
    ops.free(&p.space.scx(p.cx, p.range(0, PAGES), false));
    drop(ops);
    b.judge.same(UNUSED, format_args!("reserved bytes"), p.space.state().resv_size(), 0)?;
    b.judge.same(UNUSED, format_args!("what is held"), &b.census(), before)?;
    p.end(b)
}

pub(super) fn answers(b: &Bench<'_>) -> Result<(), Breach> {
    let p = b.place()?;
    let told = p.ask(0, |scx, ops| {
        let shared = ops.kind().contains(SegKind::SHARED);
        (ops.driver(), shared, ops.detail(scx), ops.memory(scx))
    });
    let Some((driver, shared, detail, memory)) = told else {
        return Err(b.judge.breach(WHOLE, format_args!("no segment is there")));
    };
    b.judge.require(NAME, !driver.is_empty(), format_args!("it has none"))?;
    let again = p.ask(PAGES - 1, |_, ops| ops.driver());
    b.judge.same(NAME, format_args!("its name, asked again"), again, Some(driver))?;
    b.judge.same(NAME, format_args!("SHARED"), shared, b.can(SegCan::SHARE))?;
    if let Some(memory) = memory {
        let inside = p.space.range_at(p.cx, p.addr(0)).is_some_and(|seg| seg.covers(memory));
        b.judge.require(WHOLE, inside, format_args!("memory says {memory}"))?;
    }
    let (prot, ceiling) = (detail.prot - Prot::USER, detail.max_prot);
    let facts = format_args!("{prot} under the ceiling {ceiling}");
    b.judge.require(CEILING, ceiling.contains(prot), facts)?;
    for (n, rights) in (0..).zip(p.rights()?) {
        b.judge.same(CEILING, format_args!("rights of page {n}"), rights, Some(prot))?;
        for right in [Prot::READ, Prot::WRITE, Prot::EXEC] {
            let has = p.space.check_prot(p.cx, p.range(n, 1), right).is_ok();
            let what = format!("check_prot of {right} at page {n}");
            b.judge.same(CEILING, format_args!("{what}"), has, prot.contains(right))?;
        }
    }
    for room in [3, PAGES as usize + 2] {
        let mut out = alloc::vec![0xaa; room];
        let n = p.ask(0, |scx, ops| ops.incore(scx, p.range(0, 5), &mut out));
        b.judge.same(
            FEW,
            format_args!("incore of 5 pages in {room} bytes"),
            n,
            Some(room.min(5)),
        )?;
        let beyond = out.iter().skip(5).all(|byte| *byte == 0xaa);
        b.judge.require(FEW, beyond, format_args!("it wrote {out:x?} for 5 pages"))?;
    }
    p.end(b)
}
