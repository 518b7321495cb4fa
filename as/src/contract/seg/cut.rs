//! Taking parts away, and putting parts together.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use crate::error::AsError;
use crate::fault::{FaultError, FaultKind};
use crate::seg::{MemId, Remnant};
use alloc::vec::Vec;
use page_db::contract::Breach;
use page_db::{Access, FileOffset, Prot};

const LEFT: &str = "unmap says what is left: nothing, the part below, the part above, or both";
const CUT: &str = "a part can be unmapped, and only it is gone";
const WORDS: &str = "what a cut leaves keeps its contents";
const RIGHTS: &str = "what a cut leaves keeps its rights and its locks";
const NAMES: &str = "what a cut leaves keeps its place in what is mapped";
const STORES: &str = "what a cut leaves can be stored to";
const FRESH: &str = "what is mapped into a gap is new";
const JOINED: &str = "a mapping beside another leaves the other's contents alone";

/// Asks a driver that no tree knows, so that a wrong answer tears none apart.
pub(super) fn says_what_is_left(b: &Bench<'_>) -> Result<(), Breach> {
    let Some(make) = b.c.make else { return Ok(()) };
    let pieces = [(0, PAGES), (0, 2), (6, 2), (3, 2)];
    for (n, pages) in pieces.into_iter().take(if b.can(SegCan::SPLIT) { 4 } else { 1 }) {
        let p = b.empty()?;
        let (whole, piece) = (p.range(0, PAGES), p.range(n, pages));
        let made = make.create(&p.space.scx(p.cx, whole, false));
        let low = made.map_err(|e| b.judge.breach(LEFT, format_args!("create answered {e}")))?;
        let left = low.unmap(&p.space.scx(p.cx, whole, true), piece);
        let (below, above) = (whole.until(piece.start().get()), whole.from(piece.end()));
        let high = match (left, below.is_some(), above.is_some()) {
            (Ok(Remnant::Nothing), false, false)
            | (Ok(Remnant::Low), true, false)
            | (Ok(Remnant::High), false, true) => None,
            (Ok(Remnant::Both(high)), true, true) => Some(high),
            (left, ..) => {
                let facts = format_args!("of {whole} less {piece} it says {left:?}");
                return Err(b.judge.breach(LEFT, facts));
            }
        };
        let rest = match high {
            Some(high) => Vec::from([(below, low), (above, high)]),
            None => Vec::from([(below.or(above), low)]),
        };
        for (range, ops) in rest {
            let range = range.unwrap_or(whole);
            if range != whole {
                let gone = ops.unmap(&p.space.scx(p.cx, range, true), range);
                let whole = matches!(gone, Ok(Remnant::Nothing));
                b.judge.require(LEFT, whole, format_args!("of all of {range}: {gone:?}"))?;
            }
            ops.free(&p.space.scx(p.cx, range, false));
        }
        // All of that the address space counts.
        b.judge.same(LEFT, format_args!("reserved bytes"), p.space.state().resv_size(), 0)?;
        p.end(b)?;
    }
    Ok(())
}

/// What each page is, apart from its contents.
#[derive(Clone)]
struct Known {
    rights: Vec<Option<Prot>>,
    locked: Vec<bool>,
    names: Vec<Option<(u32, FileOffset)>>,
    ids: Vec<Option<Result<MemId, AsError>>>,
}

impl Known {
    fn of(p: &Place<'_>) -> Result<Self, Breach> {
        let name = |n| {
            p.ask(n, |scx, ops| {
                Some((ops.vnode(scx, p.addr(n))?.id().0, ops.offset(scx, p.addr(n))))
            })
        };
        let id = |n| p.can(SegCan::MEM_ID).then(|| p.space.mem_id(p.cx, p.addr(n)));
        Ok(Self {
            rights: p.rights()?,
            locked: p.locked(),
            names: (0..PAGES).map(|n| name(n).flatten()).collect(),
            ids: (0..PAGES).map(id).collect(),
        })
    }
    fn lose(&mut self, n: u64) {
        self.rights[n as usize] = None;
        self.locked[n as usize] = false;
        self.names[n as usize] = None;
    }
}

pub(super) fn keeps_the_rest(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::SPLIT) {
        return Ok(());
    }
    let all: [&[(u64, u64)]; 6] = [
        &[(0, 2)],
        &[(6, 2)],
        &[(3, 2)],
        &[(3, 2), (6, 1), (0, 1)],
        &[(1, 1), (4, 1), (6, 1)],
        &[(0, 3), (6, 2), (4, 1)],
    ];
    all.into_iter().try_for_each(|cuts| cut(b, cuts))
}

fn cut(b: &Bench<'_>, cuts: &[(u64, u64)]) -> Result<(), Breach> {
    let p = b.written(PAGES)?;
    let judge = &b.judge;
    if b.can(SegCan::PROT | SegCan::STORE) {
        for n in [2, 5] {
            let done = p.space.try_set_prot(p.cx, p.range(n, 1), Prot::READ);
            judge.same(CUT, format_args!("set_prot of page {n}"), done, Ok(()))?;
        }
    }
    if b.can(SegCan::LOCK) {
        let done = p.space.lock(p.cx, p.range(1, 1)).and(p.space.lock(p.cx, p.range(5, 1)));
        judge.same(CUT, format_args!("locking pages 1 and 5"), done, Ok(()))?;
    }
    let mut known = Known::of(&p)?;
    let mut there: Vec<u64> = (0..PAGES).collect();
    for &(n, pages) in cuts {
        let done = p.space.try_unmap(p.cx, p.range(n, pages));
        judge.same(CUT, format_args!("unmap of {pages} pages at page {n}"), done, Ok(()))?;
        p.sound("a cut")?;
        there.retain(|page| !(n..n + pages).contains(page));
        (n..n + pages).for_each(|n| known.lose(n));
        left(b, &p, &there, &known)?;
    }
    p.forget(); // so that the driver is asked
    for &n in there.iter().filter(|n| known.rights[**n as usize] != Some(Prot::READ)) {
        let stored = p.write(n, word(n + PAGES));
        stored.map_err(|breach| b.judge.breach(STORES, format_args!("{}", breach.facts)))?;
        let due = if p.keeps_words() { word(n + PAGES) } else { b.fresh(n) };
        p.has(STORES, n, due)?;
    }
    p.sound("stores beside a cut")?;
    let done = p.space.try_unmap(p.cx, p.range(0, PAGES));
    judge.same(CUT, format_args!("unmap of what is left"), done, Ok(()))?;
    let state = p.space.state();
    let sizes = (state.size(), state.resv_size(), state.locked());
    judge.same(CUT, format_args!("mapped, reserved, locked bytes"), sizes, (0, 0, 0))?;
    p.end(b)
}

fn left(b: &Bench<'_>, p: &Place<'_>, there: &[u64], known: &Known) -> Result<(), Breach> {
    let mut shape: Vec<(u64, u64)> = Vec::new();
    for n in there {
        match shape.last_mut() {
            Some((_, end)) if *end == *n => *end += 1,
            _ => shape.push((*n, *n + 1)),
        }
    }
    b.judge.same(CUT, format_args!("the segments"), p.shape(), shape)?;
    for n in (0..PAGES).filter(|n| !there.contains(n)) {
        let done = p.fault(n, FaultKind::Invalid, Access::Read);
        let due = Err(FaultError::NoMap { addr: p.addr(n) });
        b.judge.same(CUT, format_args!("a fault where page {n} was"), done, due)?;
    }
    let now = Known::of(p)?;
    b.judge.same(RIGHTS, format_args!("rights"), &now.rights, &known.rights)?;
    b.judge.same(RIGHTS, format_args!("locks"), &now.locked, &known.locked)?;
    b.judge.same(NAMES, format_args!("vnodes and offsets"), &now.names, &known.names)?;
    for n in there {
        let (now, was) = (now.ids[*n as usize], known.ids[*n as usize]);
        b.judge.same(NAMES, format_args!("the identity of page {n}"), now, was)?;
    }
    p.have_words(b, WORDS, there.iter().copied())?;
    p.forget();
    p.have_words(b, WORDS, there.iter().copied())?;
    p.sound("loads beside a cut")
}

/// A gap filled again, and mappings that touch: one segment or several, nobody can tell.
pub(super) fn joins(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::SPLIT) {
        return Ok(());
    }
    let p = b.written(PAGES)?;
    let done = p.space.try_unmap(p.cx, p.range(3, 2));
    b.judge.same(CUT, format_args!("unmap of the middle"), done, Ok(()))?;
    b.map(&p, 3, 2)?;
    beside(b, &p, 3, 2)?;
    p.end(b)?;
    for (first, second) in [(0, 4), (4, 0)] {
        let p = b.empty()?;
        b.map(&p, first, 4)?;
        (first..first + 4).try_for_each(|n| p.write(n, word(n)))?;
        b.map(&p, second, 4)?;
        beside(b, &p, second, 4)?;
        p.end(b)?;
    }
    Ok(())
}

/// The pages from `n` on are new, the others have their words.
fn beside(b: &Bench<'_>, p: &Place<'_>, n: u64, pages: u64) -> Result<(), Breach> {
    p.sound("map beside")?;
    // Memory that is shared beyond the space shows the words of the pages it is.
    let others = (0..PAGES).filter(|page| !(n..n + pages).contains(page));
    if !(b.can(SegCan::SHARE) && b.c.behind.is_some()) {
        p.have_words(b, JOINED, others.clone())?;
    }
    for page in n..n + pages {
        p.has(FRESH, page, b.fresh(page - n))?;
        p.write(page, word(page))?;
    }
    p.forget();
    if !(b.can(SegCan::SHARE) && b.c.behind.is_some()) {
        p.have_words(b, JOINED, others)?;
    }
    p.have_words(b, JOINED, n..n + pages)?;
    p.sound("stores beside")
}
