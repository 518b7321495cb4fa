//! Several threads in one address space.

use super::SegCan;
use super::bench::{Bench, PAGES, Place, word};
use super::pin::{soft_lock, soft_unlock};
use crate::addr_space::AddrSpace;
use crate::fault::FaultKind;
use alloc::format;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use page_db::contract::{Breach, Judge};
use page_db::{Access, CpuId, Cx, PageDb, Prot, SpinHooks, ThreadId, VirtAddr};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const FAULTS: &str = "faults of several threads are resolved, each its own, and no store is lost";
const BESIDE: &str = "faults and changes elsewhere in the segment do not meet";
const AT_ONCE: &str = "when a change of rights returns no thread can use the old ones";
const WAITS: &str = "unmap waits for pinned pages, and goes on when the last pin is gone";

/// The parts of a bench that threads may share.
struct Team<'a> {
    judge: &'a Judge,
    db: &'a PageDb,
    space: &'a Arc<AddrSpace>,
    at: VirtAddr,
    can: SegCan,
    /// Where all three set out together.
    start: Barrier,
}

impl<'a> Team<'a> {
    fn of(b: &'a Bench<'_>, p: &'a Place<'_>) -> Self {
        Self {
            judge: &b.judge,
            db: b.c.db,
            space: &p.space,
            at: b.c.at,
            can: b.c.can,
            start: Barrier::new(3),
        }
    }
    fn cx(&self, me: usize) -> Cx {
        let cpu = CpuId(me as u16 % self.db.cpus());
        Cx::new(self.db.counters(), cpu, ThreadId(1 << 25 | me as u32), Arc::new(SpinHooks))
    }
    /// The place as thread `cx` sees it.
    fn place<'b>(&'b self, cx: &'b Cx) -> Place<'b> {
        Place::new(self.judge, cx, self.db, Arc::clone(self.space), self.at, self.can, None)
    }
}

/// Three threads touch the same pages and pages of their own, a word of each page for each thread.
pub(super) fn faults(b: &Bench<'_>) -> Result<(), Breach> {
    for _ in 0..8 {
        let p = b.place()?;
        let team = Team::of(b, &p);
        b.judge.three_threads(|me| {
            let cx = team.cx(me);
            let p = team.place(&cx);
            let (mine, at) = (5 + me as u64, 64 * (me + 1));
            team.start.wait();
            for n in [0, 1, mine, 2, 3] {
                let due = word(n) ^ me as u64;
                reached(team.judge, FAULTS, p.write_at(n, at, &due.to_le_bytes()))?;
                let seen = reached(team.judge, FAULTS, p.read_at(n, at))?;
                let kept = !p.keeps_words() || seen == due;
                let facts = format!("thread {me}'s word of page {n} is {seen:#x}, not {due:#x}");
                team.judge.require(FAULTS, kept, format_args!("{facts}"))?;
            }
            team.judge.holds_nothing(&cx, "a thread's faults")
        })?;
        p.sound("faults of several threads")?;
        for (me, n) in (0..3).flat_map(|me| [0, 1, 2, 3, 5 + me].map(|n| (me, n))) {
            let seen = p.read_at(n, 64 * (me as usize + 1))?;
            let kept = !p.keeps_words() || seen == word(n) ^ me;
            let facts = format_args!("afterwards thread {me}'s word of page {n} is {seen:#x}");
            b.judge.require(FAULTS, kept, facts)?;
        }
        p.end(b)?;
    }
    Ok(())
}

/// A breach of a clause that threads are not asked about, as one of theirs.
fn reached<T>(judge: &Judge, clause: &'static str, done: Result<T, Breach>) -> Result<T, Breach> {
    done.map_err(|breach| judge.breach(clause, format_args!("{}", breach.facts)))
}

/// One thread stores, one changes rights elsewhere, one unmaps and maps elsewhere.
pub(super) fn changes(b: &Bench<'_>) -> Result<(), Breach> {
    if !b.can(SegCan::FAULT | SegCan::STORE) {
        return Ok(());
    }
    let p = b.written(4)?;
    let (team, make) = (Team::of(b, &p), b.c.make);
    b.judge.three_threads(|me| {
        let cx = team.cx(me);
        let p = team.place(&cx);
        team.start.wait();
        (0..60).try_for_each(|round| match (me, make) {
            (0, _) => stores(&p, round),
            (1, _) if p.can(SegCan::PROT) => weakens(&p),
            (2, Some(make)) if p.can(SegCan::SPLIT) => {
                let range = p.range(6, 2);
                let gone = p.space.try_unmap(p.cx, range);
                p.judge.same(BESIDE, format_args!("unmap"), gone, Ok(()))?;
                let there = p.space.map(p.cx, range, make);
                p.judge.same(BESIDE, format_args!("map"), there, Ok(()))?;
                // It may be the page that page 0 shows, where what is mapped is shared: another word of it.
                reached(p.judge, BESIDE, p.write_at(6, 512, &round.to_le_bytes()))
            }
            _ => Ok(()),
        })
    })?;
    p.sound("changes of several threads")?;
    p.end(b)
}

fn stores(p: &Place<'_>, round: u64) -> Result<(), Breach> {
    for n in 0..4 {
        reached(p.judge, BESIDE, p.write_at(n, 0, &word(round + n).to_le_bytes()))?;
        if n == 0 {
            p.space.hat().unload(p.cx, p.range(0, 1), crate::hat::UnloadFlags::empty());
        }
        reached(p.judge, BESIDE, p.read_at(n, 0)).and_then(|seen| {
            let kept = !p.keeps_words() || seen == word(round + n);
            p.judge.require(BESIDE, kept, format_args!("page {n} holds {seen:#x}"))
        })?;
    }
    // The right to store to page 4 comes and goes meanwhile. Whatever this finds, it leaves no more than there is then.
    let _ = p.fault(4, FaultKind::Invalid, Access::Write);
    Ok(())
}

fn weakens(p: &Place<'_>) -> Result<(), Breach> {
    let set = |prot| {
        let done = p.space.try_set_prot(p.cx, p.range(4, 1), prot);
        p.judge.same(BESIDE, format_args!("set_prot to {prot}"), done, Ok(()))
    };
    reached(p.judge, BESIDE, p.reach(4, Access::Write))?;
    set(Prot::READ)?;
    let has = p.shows(4).map(|t| t.prot);
    let weak = has.is_none_or(|prot| !prot.allows(Access::Write));
    p.judge.require(AT_ONCE, weak, format_args!("page 4 is mapped {has:?}"))?;
    let stored = p.fault(4, FaultKind::Invalid, Access::Write);
    p.judge.require(AT_ONCE, stored.is_err(), format_args!("a store to page 4 worked"))?;
    set(Prot::RW)
}

/// An unmap that finds pages pinned.
pub(super) fn waits(b: &Bench<'_>) -> Result<(), Breach> {
    if b.stands() || !b.can(SegCan::SOFTLOCK) {
        return Ok(());
    }
    let p = b.written(4)?;
    soft_lock(b, &p, 1, 2)?;
    let team = Team::of(b, &p);
    let gone = &AtomicBool::new(false);
    std::thread::scope(|s| {
        let unmapping = s.spawn(|| {
            let cx = team.cx(1);
            let p = team.place(&cx);
            let pages = if p.can(SegCan::SPLIT) { 4 } else { PAGES };
            let done = p.space.unmap(&cx, p.range(0, pages));
            gone.store(true, SeqCst);
            team.judge.same(WAITS, format_args!("unmap"), done, Ok(()))
        });
        std::thread::sleep(Duration::from_millis(2));
        let early = gone.load(SeqCst);
        let unlocked = soft_unlock(b, &p, 1, 2);
        let late = !ends_in_time(gone);
        if late {
            p.space.state().pins_released(p.db.waits()); // so that the thread ends
        }
        b.judge.ended(unmapping.join())??;
        let facts = format_args!("pages 1 and 2 were unmapped while they were pinned");
        b.judge.require(WAITS, !early, facts)?;
        unlocked?;
        b.judge.require(WAITS, !late, format_args!("it waits although no page is pinned"))
    })?;
    p.sound("an unmap that waited")?;
    p.end(b)
}

fn ends_in_time(gone: &AtomicBool) -> bool {
    let start = Instant::now();
    while !gone.load(SeqCst) {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}
