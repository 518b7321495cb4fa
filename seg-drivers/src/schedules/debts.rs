//! Pages that nobody maps any more, and processors that have not heard of it (F4 of `hat-x86`).
//!
//! ```text
//!   CPU 1, munmap by a sharer           CPU 0, who shows the page to another as it is     CPU 2, runs the sharer
//!   entry cleared, mapping off list
//!                                       a reference more; no translation to take
//!                                       the right to write from: done
//!   flush                                                                                  stores through what it remembers
//! ```

use super::world::{BASE, Proc, World, page};
use crate::seg_vn::{LentAnons, SegVnArgs};
use addr_space::{FaultKind, Inherit, SegKind};
use hat_x86::{Mmu, SpaceId, UserAccess};
use page_db::sync::Mutation as M;
use page_db::sync::explore::{explore, join};
use page_db::{Access, CpuId, Cx, Prot, VirtAddr};

const SHARER: CpuId = CpuId(2);

/// Stores a byte from [`SHARER`] if that remembers a translation or finds one; says whether it did.
fn poke(w: &World, cx: &Cx, v: u8) -> bool {
    let va = VirtAddr::new(BASE).expect("canonical");
    w.mmu.store(cx, SHARER, va, &[v]).is_ok()
}

/// Two processes that share a page; only the second has a translation, which its processor remembers, and has stored a 7.
fn sharers(w: &World, cx: &Cx) -> (Proc, Proc) {
    let p = w.proc(cx, 1);
    let shared = SegVnArgs { kind: SegKind::SHARED, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
    p.map(cx, page(0), &shared).expect("free");
    let sharer = w.fork(cx, &p, 2);
    w.mmu.activate(cx, SHARER, Some(SpaceId(sharer.hat().id())));
    let va = VirtAddr::new(BASE).expect("canonical");
    sharer.fault_at(cx, va, FaultKind::Invalid, Access::Write).expect("mapped");
    assert!(poke(w, cx, 7));
    (p, sharer)
}

/// One of two sharers of a page unmaps it while the other forks a child that gets a copy: what is stored once the child is there it does not see.
#[test]
fn joint_copy_against_unmap() {
    explore(100, &[M::CopiedBesideADebt], || {
        let (w, cx) = World::new(56);
        let (p, sharer) = sharers(&w, &cx);
        p.inherit(&cx, page(0), Inherit::Copy).expect("mapped");
        let child = w.proc(&cx, 3);
        let unmaps = {
            let sharer = sharer.clone();
            w.spawn(1, move |_, cx| sharer.unmap(cx, page(0)).expect("no driver refuses"))
        };
        let forks = {
            let (p, child) = (p.clone(), child.clone());
            w.spawn(0, move |w, cx| {
                p.dup(cx, &child).expect("a child");
                poke(w, cx, 8);
            })
        };
        join([unmaps, forks]);
        assert_eq!(w.peek(&cx, &child, 0), 7, "law 6: the sharers' byte");
        assert!(matches!(w.peek(&cx, &p, 0), 7 | 8));
        w.finish(&cx, &[&p, &sharer, &child]);
    });
}

/// The same when the page is lent to an anon of another process.
#[test]
fn loan_against_unmap() {
    explore(100, &[M::LentBesideADebt], || {
        let (w, cx) = World::new(56);
        let (p, sharer) = sharers(&w, &cx);
        let borrower = w.proc(&cx, 3);
        let unmaps = {
            let sharer = sharer.clone();
            w.spawn(1, move |_, cx| sharer.unmap(cx, page(0)).expect("no driver refuses"))
        };
        let lends = {
            let (p, borrower) = (p.clone(), borrower.clone());
            w.spawn(0, move |w, cx| {
                let lent = LentAnons::lend(&w.driver, cx, &p, page(0)).expect("mapped");
                poke(w, cx, 8);
                lent.enter(cx, &borrower, page(0), Prot::RW).map_err(|(e, _)| e).expect("free");
            })
        };
        join([unmaps, lends]);
        assert_eq!(w.peek(&cx, &borrower, 0), 7, "law 6: what was lent");
        assert!(matches!(w.peek(&cx, &p, 0), 7 | 8));
        w.finish(&cx, &[&p, &sharer, &borrower]);
    });
}
