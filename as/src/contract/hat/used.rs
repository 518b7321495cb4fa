//! What processors may use of a hat, when they may not any more, and the marks that they leave.

use super::{AGAIN, BITS, Bench, LISTS, LOAD, NOSYNC, ONCE, T1};
use crate::hat::{Hat, LoadFlags, Loaded, RunPage, UnloadFlags};
use page_db::contract::Breach;
use page_db::{Access, Prot, RefMod, SyncMode};

/// Two CPUs use a translation, and then may not.
pub(super) fn shootdown(b: &Bench<'_>) -> Result<(), Breach> {
    if b.c.access.is_none() {
        return Ok(());
    }
    type Weaken<'a> = (&'static str, &'a dyn Fn(u64), Access);
    let cx = b.c.cx;
    let takes: [Weaken<'_>; 6] = [
        ("unload", &|n| b.hat.unload(cx, b.range(n, 1), UnloadFlags::empty()), Access::Read),
        ("chg_prot", &|n| b.hat.chg_prot(cx, b.range(n, 1), Prot::READ), Access::Write),
        ("clear_write", &|n| b.hat.clear_write(cx, b.range(n, 1)), Access::Write),
        (
            "memload",
            &|n| {
                let _ = b.try_load(n, n as usize, Prot::READ, LoadFlags::empty(), None);
            },
            Access::Write,
        ),
        (
            "memload_run",
            &|n| {
                let page = b.c.db.lock_shared(cx, b.pages[n as usize]);
                let run = [Some(RunPage::new(&page, Prot::READ))];
                let _ = b.hat.memload_run(cx, b.addr(n), &run, LoadFlags::empty(), None);
            },
            Access::Write,
        ),
        (
            "chg_prot to nothing",
            &|n| b.hat.chg_prot(cx, b.range(n, 1), Prot::empty()),
            Access::Read,
        ),
    ];
    b.fill(Prot::RW)?;
    for (n, (what, take, access)) in (0..).zip(takes) {
        for cpu in 0..2 {
            let worked = b.uses(cpu, n, Access::Write) && b.uses(cpu, n, access);
            b.judge.require(LOAD, worked, format_args!("CPU {cpu} cannot use place {n}"))?;
        }
        take(n);
        for cpu in 0..2 {
            let used = b.uses(cpu, n, access);
            let facts = format_args!("after {what}, CPU {cpu} could still {access:?} at place {n}");
            b.judge.require(T1, !used, facts)?;
        }
    }
    b.empty();
    Ok(())
}

/// Two CPUs use a translation, and then it leads to another frame: no store comes to the old one any more. The new one may be stored to as the old one was, so
/// that a hat which asks for less than the frame sees nothing to forget.
pub(super) fn replacement(b: &Bench<'_>) -> Result<(), Breach> {
    if b.c.access.is_none() {
        return Ok(());
    }
    let (cx, db) = (b.c.cx, b.c.db);
    let memload = |n: u64, page: usize| {
        b.try_load(n, page, Prot::RW, LoadFlags::REMAP, None).is_ok_and(|l| l == Loaded::Done)
    };
    let memload_run = |n: u64, page: usize| {
        let page = db.lock_shared(cx, b.pages[page]);
        let run = [Some(RunPage::new(&page, Prot::RW))];
        b.hat.memload_run(cx, b.addr(n), &run, LoadFlags::REMAP, None).passed == 1
    };
    let devload = |n: u64, page: usize| {
        let none = LoadFlags::empty();
        b.hat.devload(cx, b.range(n, 1), b.pfn(page), Prot::RW, none).is_ok()
    };
    type Map<'a> = (&'static str, &'a dyn Fn(u64, usize) -> bool);
    let maps: [Map<'_>; 3] =
        [("memload", &memload), ("memload_run", &memload_run), ("devload", &devload)];
    // A device's frames: of pages that are given to it for that long.
    let to_device = |on: bool| {
        [4, 5].iter().for_each(|page| db.set_device(&db.lock_excl(cx, b.pages[*page]), on));
    };
    b.empty();
    to_device(true);
    let judged = (0..).zip(maps).try_for_each(|(n, (what, map))| {
        let (old, new) = (n as usize * 2, n as usize * 2 + 1);
        let mapped = map(n, old);
        let stores = |cpu| b.uses(cpu, n, Access::Write) || b.uses(cpu, n, Access::Write);
        for cpu in 0..2 {
            let facts = format_args!("CPU {cpu} cannot store where {what} mapped a frame");
            b.judge.require(LOAD, mapped && stores(cpu), facts)?;
        }
        let mapped = map(n, new);
        b.judge.require(LOAD, mapped, format_args!("{what} of another frame"))?;
        db.mem().zero(b.pfn(old));
        for cpu in 0..2 {
            let facts = format_args!("CPU {cpu} cannot store where {what} mapped another frame");
            b.judge.require(LOAD, stores(cpu), facts)?;
            let mut byte = [0];
            db.mem().read(b.pfn(old), 0, &mut byte);
            let facts = format_args!(
                "after {what} of another frame, CPU {cpu} could still store to the first one"
            );
            b.judge.require(T1, byte == [0], facts)?;
        }
        Ok(())
    });
    b.empty();
    to_device(false);
    judged
}

pub(super) fn bits(b: &Bench<'_>) -> Result<(), Breach> {
    if b.c.access.is_none() || !b.c.lists {
        return Ok(());
    }
    let (cx, both) = (b.c.cx, RefMod::REF | RefMod::MOD);
    (0..3).for_each(|n| b.clean(n));
    b.fill(Prot::RW)?;
    b.uses(0, 2, Access::Write);
    b.hat.unload(cx, b.range(2, 1), UnloadFlags::empty());
    b.judge.same(BITS, format_args!("after unload, the bits"), b.page_bits(2), both)?;
    b.uses(0, 0, Access::Write);
    b.uses(0, 1, Access::Read);
    b.hat.sync(cx, b.range(0, 2), SyncMode::ZeroRm);
    b.judge.same(BITS, format_args!("after sync, the bits"), b.page_bits(0), both)?;
    b.judge.same(BITS, format_args!("after sync, the bits"), b.page_bits(1), RefMod::REF)?;
    b.clean(1);
    b.hat.unload(cx, b.range(1, 1), UnloadFlags::empty());
    b.judge.same(ONCE, format_args!("the bits, unused since"), b.page_bits(1), RefMod::empty())?;
    b.clean(0);
    b.uses(0, 0, Access::Write);
    b.hat.unload(cx, b.range(0, 1), UnloadFlags::empty());
    b.judge.same(AGAIN, format_args!("after a second store, the bits"), b.page_bits(0), both)?;
    b.clean(3);
    b.uses(0, 3, Access::Write);
    b.hat.unload(cx, b.range(3, 1), UnloadFlags::NOSYNC);
    b.judge.same(NOSYNC, format_args!("the bits"), b.page_bits(3), RefMod::empty())?;
    b.empty();
    Ok(())
}

pub(super) fn lists(b: &Bench<'_>, other: &dyn Hat) -> Result<(), Breach> {
    if !b.c.lists {
        return Ok(());
    }
    let (cx, db) = (b.c.cx, b.c.db);
    b.load(0, 0, Prot::RW, LoadFlags::empty())?;
    b.load(1, 0, Prot::READ, LoadFlags::empty())?;
    let page = db.lock_shared(cx, b.pages[0]);
    let done = other.memload(cx, b.addr(2), &page, Prot::READ, LoadFlags::empty(), None);
    drop(page);
    b.judge.same(LOAD, format_args!("a load in the other hat"), done, Ok(Loaded::Done))?;
    let count = db.share_count(cx, b.pages[0]);
    b.judge.same(LISTS, format_args!("translations on the page's list"), count, 3)?;
    // Each CPU has used both, or there is nothing that it could still use afterwards.
    let each = || (0..2).flat_map(|cpu| [(cpu, 0), (cpu, 1)]);
    if b.c.access.is_some() {
        for (cpu, n) in each() {
            let used = b.uses(cpu, n, Access::Read);
            b.judge.require(LOAD, used, format_args!("CPU {cpu} cannot use place {n}"))?;
        }
    }
    b.clean(0);
    if b.c.access.is_some() {
        let stored = b.uses(1, 0, Access::Write);
        b.judge.require(LOAD, stored, format_args!("CPU 1 cannot store to place 0"))?;
    }
    let page = db.lock_excl(cx, b.pages[0]);
    db.unload(cx, &page);
    drop(page);
    if b.c.access.is_some() {
        let both = RefMod::REF | RefMod::MOD;
        b.judge.same(
            BITS,
            format_args!("after the page's own unload, the bits"),
            b.page_bits(0),
            both,
        )?;
    }
    for (cpu, n) in each() {
        let used = b.uses(cpu, n, Access::Read);
        let facts =
            format_args!("CPU {cpu} could still read a page that was unloaded, at place {n}");
        b.judge.require(T1, !used, facts)?;
    }
    b.is(LISTS, 0, None)?;
    b.is(LISTS, 1, None)?;
    let there = other.probe(cx, b.addr(2));
    b.judge.same(LISTS, format_args!("the other hat's translation"), there, None)?;
    b.counts(0)
}
