//! Many pages at once: the outcome is that of one by one (U1, U2).

use crate::db::PageDbConfig;
use crate::fail::{FailKind, FailPlan};
use crate::testing::{World, hashes, name};
use crate::{
    Counter, LockedPage, PageError, PageId, RefMod, Reserve, SharedPage, VnodeKind, Wanted,
};
use alloc::vec::Vec;
use core::time::Duration;

fn worlds() -> impl Iterator<Item = World> {
    hashes().map(|hash| World::with(512, &PageDbConfig { hash, ..PageDbConfig::default() }))
}

#[test]
fn pages_of_several_vnodes_end_together() {
    for w in worlds() {
        let (a, b) = (w.vnode(VnodeKind::File), w.vnode(VnodeKind::Swap));
        let ids: Vec<_> = (0..40).map(|i| name(if i % 7 < 4 { a } else { b }, i)).collect();
        let pages: Vec<PageId> = ids.iter().map(|id| w.make(*id)).collect();
        w.make(name(a, 100)); // not asked for
        w.hat.map(&w.cx, pages[3], 2);
        w.free(ids[8], false); // on the cache list
        let mut names: Vec<Wanted> = ids.iter().map(|id| (*id).into()).collect();
        names[1].hint = Some(pages[1]);
        names[2].hint = Some(pages[9]); // another's page
        names.push(ids[5].into()); // asked for twice
        names.push(name(a, 200).into()); // absent
        let free = w.db.freemem();
        let freed = w.count(Counter::FrameFrees);
        assert_eq!(w.db.destroy_run(&w.cx, &names), 40);
        assert_eq!(w.db.freemem(), free + 39, "one of them was free already");
        assert_eq!(w.count(Counter::FrameFrees), freed + 40);
        assert_eq!(w.count(Counter::PgFrec), 1, "the cached one was taken back, as by lookup_excl");
        assert!(w.cx.held().is_empty());
        let census = w.verify();
        assert_eq!((census.named, census.free), (1, 511));
    }
}

#[test]
fn a_page_that_is_held_is_waited_for_alone() {
    for w in worlds() {
        let v = w.vnode(VnodeKind::File);
        let names: Vec<Wanted> = (0..20).map(|i| name(v, i).into()).collect();
        names.iter().for_each(|n| _ = w.make(n.id));
        let other = w.thread(1);
        let held = w.db.lookup_shared(&other, names[4].id).expect("there");
        std::thread::scope(|s| {
            let (cx, db, all) = (w.thread(2), &*w.db, &names);
            let run = s.spawn(move || db.destroy_run(&cx, all));
            while w.count(Counter::PageLockWaits) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            // U1: while it waits, the others of its batch are gone and nothing of the next has begun.
            let there = |i: usize| w.db.exists(&w.cx, names[i].id).is_some();
            assert_eq!((0..20).filter(|i| there(*i)).collect::<Vec<_>>(), [4, 16, 17, 18, 19]);
            drop(held);
            assert_eq!(run.join().expect("no panic"), 20);
        });
        w.verify();
    }
}

#[test]
fn a_run_is_looked_up_without_waiting() {
    for w in worlds() {
        let v = w.vnode(VnodeKind::File);
        let ids: Vec<PageId> = (0..20).map(|i| w.make(name(v, i))).collect();
        w.free(name(v, 3), false);
        let busy = w.db.lookup_excl(&w.cx, name(v, 5)).expect("there");
        let mut names: Vec<Wanted> = (0..22).map(|i| name(v, i).into()).collect();
        names[7].hint = Some(ids[7]);
        names[9].hint = Some(ids[7]);
        let mut got: [Option<SharedPage<'_>>; 22] = core::array::from_fn(|_| None);
        assert_eq!(w.db.try_lookup_shared_run(&w.cx, &names, &mut got), 18);
        for (i, page) in got.iter().enumerate() {
            let absent = matches!(i, 3 | 5 | 20 | 21);
            assert_eq!(page.as_ref().map(LockedPage::id), (!absent).then(|| ids[i]));
        }
        drop((got, busy));
        assert!(w.cx.held().is_empty());
        w.verify();
    }
}

#[test]
fn a_run_is_made_until_a_name_is_taken() {
    for w in worlds() {
        let v = w.vnode(VnodeKind::Swap);
        let names: Vec<_> = (0..40).map(|i| name(v, i)).collect();
        let old = w.make(names[21]);
        let (free, mut made) = (w.db.freemem(), Vec::new());
        let e = w.db.create_run(&w.cx, &names, 0, Reserve::Normal, &mut made);
        assert_eq!(e, Err(PageError::Exists(names[21])));
        assert_eq!(made.len(), 21);
        assert_eq!(w.db.freemem(), free - 21);
        for (page, n) in made.iter().zip(&names) {
            assert_eq!(page.identity(), Some(*n));
            assert!(w.db.is_io_locked(page.id()) && page.page().ref_mod() == RefMod::REF);
            page.end_io();
        }
        drop(made);
        assert_eq!(w.db.exists(&w.cx, names[21]), Some(old));
        assert_eq!(w.verify().named, 22);
        let mut made = Vec::new();
        assert_eq!(w.db.create_run(&w.cx, &names[22..], 0, Reserve::Normal, &mut made), Ok(()));
        assert_eq!(made.len(), 18);
        made.iter().for_each(|page| page.end_io());
        drop(made);
        assert_eq!(w.verify().named, 40);
    }
}

#[test]
fn a_run_stops_where_memory_ends() {
    let w = World::new(64);
    let v = w.vnode(VnodeKind::File);
    let names: Vec<_> = (0..80).map(|i| name(v, i)).collect();
    let mut made = Vec::new();
    let e = w.db.create_run(&w.cx, &names, 0, Reserve::Push, &mut made);
    assert!(matches!(e, Err(PageError::NoMemory { .. })));
    assert_eq!((made.len(), w.db.freemem()), (64, 0));
    for page in made {
        page.end_io();
        w.db.destroy(&w.cx, page);
    }
    {
        let mut made = Vec::new();
        w.db.counters().fail(&FailPlan::counting().kth(FailKind::Frame, 19));
        assert!(w.db.create_run(&w.cx, &names, 0, Reserve::Push, &mut made).is_err());
        assert_eq!(made.len(), 18, "the nineteenth was refused");
        assert_eq!(w.db.counters().asked().failed(), 1);
        w.db.counters().fail(&FailPlan::default());
        for page in made {
            page.end_io();
            w.db.destroy(&w.cx, page);
        }
    }
    assert_eq!(w.verify().free, 64);
}
