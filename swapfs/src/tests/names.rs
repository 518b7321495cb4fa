//! Numbers: handed out, computed into names, given back.

use super::World;
use crate::name::{Names, VNODE_PAGES};
use crate::vnode::SwapVnode;
use crate::{AnonNumber, SwapConfig, SwapError, SwapFs};
use alloc::collections::BTreeSet;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use page_db::{CpuId, FileOffset, Identity, PAGE_SIZE, Rank, VnodeError, VnodeId, VnodeKind};

#[test]
fn numbers_ascend_and_the_last_freed_is_the_next_used() {
    let w = World::new(16);
    let all: Vec<AnonNumber> = (0..300).map(|_| w.alloc()).collect();
    assert_eq!(all.iter().map(|n| n.get()).collect::<Vec<_>>(), (1..=300).collect::<Vec<_>>());
    assert_eq!((w.fs.live(), w.fs.high()), (300, 300));
    for n in &all {
        w.free(*n);
    }
    w.check();
    let again: Vec<u32> = (0..301).map(|_| w.alloc().get()).collect();
    assert_eq!(again, (1..=300).rev().chain([301]).collect::<Vec<_>>());
    assert_eq!(w.check().live, 301);
}

/// Behaviour 45.
#[test]
fn two_anons_never_share_a_name_and_a_name_leads_back_while_its_anon_lives() {
    let w = World::new(16);
    let n = 3 * VNODE_PAGES + 5;
    let all: Vec<AnonNumber> = (0..n).map(|_| w.alloc()).collect();
    let names: BTreeSet<Identity> = all.iter().map(|n| w.fs.identity(*n)).collect();
    assert_eq!(names.len(), n as usize);
    for a in &all {
        let id = w.fs.identity(*a);
        assert_eq!(w.fs.number_of(id), Some(*a));
        assert_eq!(w.db.vnodes().kind(id.vnode), VnodeKind::Swap);
    }
    assert_eq!(w.fs.vnodes().count(), 4);
    let last = all[all.len() - 1];
    assert!(w.fs.is_live(last));
    w.free(last);
    assert!(!w.fs.is_live(last));
    assert_eq!(w.fs.get_page(&w.cx, last, 0).map(drop), Err(no_name(&w.fs, last)));
    assert_eq!(w.fs.live_numbers().count() as u64, w.fs.live());
}

fn no_name(fs: &SwapFs, n: AnonNumber) -> VnodeError {
    let Identity { vnode, offset } = fs.identity(n);
    VnodeError::NoName { vnode, offset }
}

#[test]
fn a_number_never_handed_out_is_answered_not_believed() {
    let w = World::new(16);
    for raw in [1, 1023, 1024, u32::MAX] {
        let n = AnonNumber::from_raw(raw).expect("not 0");
        assert!(!w.fs.is_live(n));
        assert_eq!(w.fs.slot(&w.cx, n), None);
        assert!(w.fs.get_page(&w.cx, n, 0).is_err());
        assert_eq!(w.fs.put_page(&w.cx, n, super::PUSH), Ok(()));
        assert_eq!(w.fs.read_ahead(&w.cx, n), Ok(()));
    }
    assert_eq!(w.fs.flush_pushes(&w.cx), Ok(()));
    assert_eq!(AnonNumber::from_raw(0), None);
    assert_eq!(w.fs.number_of(Identity::new(VnodeId(99), FileOffset(0))), None);
    let first = w.fs.vnodes().next().expect("made with swapfs");
    assert_eq!(w.fs.number_of(Identity::new(first, FileOffset(0))), None, "0 is no number");
    let past = FileOffset(u64::from(VNODE_PAGES) * PAGE_SIZE);
    assert_eq!(w.fs.number_of(Identity::new(first, past)), None);
    w.check();
}

#[test]
fn two_processors_draw_from_different_vnodes() {
    let w = World::with(16, SwapConfig { cpus: 2, ..SwapConfig::default() });
    let a: Vec<u32> = (0..5).map(|_| w.alloc().get()).collect();
    w.cx.migrate(CpuId(1));
    let b: Vec<u32> = (0..5).map(|_| w.alloc().get()).collect();
    assert_eq!(a, [1, 2, 3, 4, 5]);
    assert_eq!(b, [1024, 1025, 1026, 1027, 1028]);
    // Freed there, used there.
    w.free(AnonNumber::from_raw(3).expect("not 0"));
    assert_eq!(w.alloc().get(), 3);
    assert_eq!((w.fs.live(), w.fs.high()), (10, 1028));
    w.check();
}

#[test]
fn the_limit_is_an_error_after_every_cpu_has_been_asked() {
    let w = World::with(16, SwapConfig { cpus: 2, max_names: 5, ..SwapConfig::default() });
    let first: Vec<u32> = (0..2).map(|_| w.alloc().get()).collect();
    assert_eq!(first, [1, 2]);
    w.cx.migrate(CpuId(1));
    let rest: Vec<u32> = (0..3).map(|_| w.alloc().get()).collect();
    assert_eq!(rest, [3, 4, 5]);
    assert_eq!(w.fs.alloc(&w.cx), Err(SwapError::NoNames { live: 5 }));
    w.free(AnonNumber::from_raw(4).expect("not 0"));
    w.cx.migrate(CpuId(0));
    assert_eq!(w.alloc().get(), 4);
    w.check();
}

#[test]
fn freed_numbers_find_their_way_to_another_cpu() {
    let w = World::with(16, SwapConfig { cpus: 2, ..SwapConfig::default() });
    for _ in 0..50 {
        let some: Vec<AnonNumber> = (0..200).map(|_| w.alloc()).collect();
        w.cx.migrate(CpuId(1));
        for n in some {
            w.free(n);
        }
        w.cx.migrate(CpuId(0));
    }
    // 10000 were asked for; what waits in a CPU's stack and the depot is at most two stacks full.
    assert!(w.fs.high() < 2048, "numbers are used again: {}", w.fs.high());
    assert_eq!(w.fs.live(), 0);
    w.check();
}

#[test]
fn a_swap_vnode_is_a_vnode() {
    let w = World::new(16);
    w.add("d", 8, 0);
    let n = w.anon(7);
    let id = w.fs.identity(n);
    let v = w.db.vnodes().object(id.vnode).expect("attached");
    assert_eq!((v.name().as_str(), v.size(), v.id()), ("swap[0]", 1024 * PAGE_SIZE, id.vnode));
    assert_eq!(v.put_page(&w.cx, &w.db, id.offset, PAGE_SIZE, super::PUSH), Ok(()));
    assert_eq!(w.fs.slot(&w.cx, n), None, "held back");
    assert_eq!(v.flush(&w.cx, &w.db), Ok(()));
    assert!(w.fs.slot(&w.cx, n).is_some());
    drop(v.get_page(&w.cx, &w.db, id.offset, page_db::Access::Read).expect("a page"));
    let end = FileOffset(v.size());
    let beyond = v.get_page(&w.cx, &w.db, end, page_db::Access::Read).map(drop);
    assert_eq!(beyond.map_err(|e| e.errno()), Err(page_db::errno::EFAULT));
    // Once swapfs is gone its vnodes know no names.
    let World { cx, db, fs } = w;
    let weak = Arc::downgrade(&fs);
    drop(fs);
    assert!(weak.upgrade().is_none(), "no cycle keeps swapfs alive");
    assert!(v.get_page(&cx, &db, id.offset, page_db::Access::Read).is_err());
    drop(v);
    assert!(db.vnodes().object(id.vnode).is_none());
}

#[test]
fn creating_a_page_reads_nothing() {
    let w = World::new(16);
    let n = w.alloc();
    let id = w.fs.identity(n);
    let v = w.db.vnodes().object(id.vnode).expect("attached");
    let page = v.create_page(&w.cx, &w.db, id.offset).expect("a frame");
    page.end_io();
    drop(page);
    assert!(w.resident(n));
    w.check();
    w.free(n);
    assert_eq!(v.create_page(&w.cx, &w.db, id.offset).map(drop), Err(no_name(&w.fs, n)));
    w.check();
}

#[test]
fn a_vnode_is_made_with_no_spin_lock_held() {
    let w = World::new(16);
    let names = Names::new(1, u32::MAX);
    let make = |index| {
        // The making lock, for which others sleep; neither the stack nor the depot.
        assert_eq!(w.cx.held(), [Rank::SwapNames]);
        Ok(Arc::new(SwapVnode::new(Weak::new(), VnodeId(index + 1), index)))
    };
    let all: Vec<AnonNumber> =
        (0..3 * VNODE_PAGES).map(|_| names.alloc(&w.cx, make).expect("numbers").0).collect();
    assert_eq!(names.vnodes_made(), 4, "number 0 is none, so the last is of a fourth");
    names.free_run(&w.cx, &all);
    let room = names.unused(&w.cx).len();
    assert_eq!(room, 4 * VNODE_PAGES as usize - 1);
    assert!(w.cx.held().is_empty());
}
