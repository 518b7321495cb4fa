//! `seg_hole`: addresses that are kept and look unmapped.
//!
//! What guards a stack must not be given to anybody, and must not be there either: a touch is answered as if nothing were mapped, and a search for room goes
//! round it. So it is a segment whose every operation answers what a hole would answer.
//!
//! | operation | answer |
//! |---|---|
//! | fault, fault ahead | nothing is mapped |
//! | protect, check, ask for rights, advise, lock, lend, page size | `ENOMEM`, as at a hole |
//! | move, go on, show twice | not asked: nothing is mapped |
//! | what a child of fork gets | `ENOMEM`, as at a hole; illumos: `ENOTSUP` |
//! | pin for i/o, identity | `EFAULT`, as at a hole; illumos of the identity: `ENODEV` |
//! | incore | answers for no page, so the caller sees a hole |
//! | sync | nothing to do |
//! | unmap | from either end, or all; a piece of the middle is `EINVAL` |
//! | fork | the child keeps the same addresses |
//!
//! It has no memory and promises none, so it does not count as reserved. Two of them that touch are one.
//!
//! Sources: illumos `vm/seg_hole.c` (behaviour); illumos.md 2.5, 10.

use addr_space::{
    Advice, Borrower, FaultError, FaultKind, Inherit, Join, LockOp, MemId, NewlyLocked, PageList,
    Remnant, SegCreate, SegCx, SegDetail, SegError, SegKind, SegOps,
};
use alloc::boxed::Box;
use alloc::string::ToString;
use page_db::{Access, Prot, VirtAddr, VirtRange};

/// Makes a hole.
#[doc(alias("seghole_crargs", "seghole_create"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegHoleArgs;

/// The driver; it has no state.
#[doc(alias = "seghole_data")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegHole;

fn unmapped<T>(range: VirtRange) -> Result<T, SegError> {
    Err(SegError::Unmapped { addr: range.start() })
}

impl SegCreate for SegHoleArgs {
    fn create(&self, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Ok(Box::new(SegHole))
    }
    fn counts(&self) -> bool {
        false
    }
}

impl SegOps for SegHole {
    fn driver(&self) -> &'static str {
        "seg_hole"
    }
    fn dup(&self, _: &SegCx<'_>, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Ok(Box::new(Self))
    }
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        let low = scx.seg.until(range.start().get()).is_some();
        let high = scx.seg.from(range.end()).is_some();
        let remnant = match (low, high) {
            (false, false) => Remnant::Nothing,
            (true, false) => Remnant::Low,
            (false, true) => Remnant::High,
            (true, true) => {
                let what = "a guard is only unmapped from its ends";
                return Err(SegError::Invalid { driver: self.driver(), what, range });
            }
        };
        Ok(remnant)
    }
    fn fault(
        &self,
        _: &SegCx<'_>,
        range: VirtRange,
        _: FaultKind,
        _: Access,
    ) -> Result<(), FaultError> {
        Err(FaultError::NoMap { addr: range.start() })
    }
    fn faulta(&self, _: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        Err(FaultError::NoMap { addr })
    }
    fn set_prot(&self, _: &SegCx<'_>, range: VirtRange, _: Prot) -> Result<(), SegError> {
        unmapped(range)
    }
    fn prots(&self, _: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        f(range, Prot::empty());
    }
    fn check_prot(&self, _: &SegCx<'_>, range: VirtRange, _: Prot) -> Result<(), SegError> {
        unmapped(range)
    }
    fn incore(&self, _: &SegCx<'_>, _: VirtRange, _: &mut [u8]) -> usize {
        0
    }
    fn lock_op(
        &self,
        _: &SegCx<'_>,
        range: VirtRange,
        _: LockOp,
        _: &mut NewlyLocked,
    ) -> Result<(), SegError> {
        unmapped(range)
    }
    fn kind(&self) -> SegKind {
        SegKind::HOLE
    }
    fn advise(&self, _: &SegCx<'_>, range: VirtRange, _: Advice) -> Result<(), SegError> {
        unmapped(range)
    }
    fn lock_pages(&self, _: &SegCx<'_>, range: VirtRange, _: Access) -> Result<PageList, SegError> {
        Err(FaultError::NoMap { addr: range.start() }.into())
    }
    fn lend_pages(&self, _: &SegCx<'_>, range: VirtRange) -> Result<PageList, SegError> {
        unmapped(range)
    }
    fn lend_anons(
        &self,
        _: &SegCx<'_>,
        range: VirtRange,
        _: &mut dyn Borrower,
    ) -> Result<(), SegError> {
        unmapped(range)
    }
    fn set_page_size(&self, _: &SegCx<'_>, range: VirtRange, _: u8) -> Result<(), SegError> {
        unmapped(range)
    }
    fn mem_id(&self, _: &SegCx<'_>, addr: VirtAddr) -> Result<MemId, SegError> {
        Err(FaultError::NoMap { addr }.into())
    }
    fn inherit_zero(&self, _: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        unmapped(range)
    }
    fn inherit(&self, _: &SegCx<'_>, range: VirtRange, _: Option<Inherit>) -> Result<(), SegError> {
        unmapped(range)
    }
    fn concat(&self, _: &SegCx<'_>, _: VirtRange, next: &dyn SegOps, _: Join) -> bool {
        next.kind().contains(SegKind::HOLE) && next.driver() == self.driver()
    }
    fn counts_own_resv(&self, _: &SegCx<'_>) -> bool {
        true
    }
    fn detail(&self, _: &SegCx<'_>) -> SegDetail {
        SegDetail { name: "[ guard ]".to_string(), ..SegDetail::default() }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::seg_vn::tests::world;
    use addr_space::{AsError, Leave, LockAll, SyncFlags, Target};
    use page_db::{PAGE_SIZE, errno};

    fn range(first: u64, pages: u64) -> VirtRange {
        VirtRange::exact(0x20000 + first * PAGE_SIZE, pages * PAGE_SIZE).expect("aligned")
    }

    /// Every operation answers what it answers where nothing is mapped, but for a search for room.
    #[test]
    fn a_hole_answers_as_if_nothing_were_there() {
        let w = world(64);
        let p = w.proc();
        let (cx, space) = (&w.cx, &p.space);
        space.map(cx, range(0, 4), &SegHoleArgs).expect("free");
        let number = |r: Result<(), AsError>| r.map_err(|e| e.errno()).err();
        let hole = range(0, 4);
        let twice = |what: &str, f: &dyn Fn(VirtRange) -> Option<i32>, want: i32| {
            assert_eq!((f(hole), f(range(8, 4))), (Some(want), Some(want)), "{what}");
        };
        twice("protect", &|r| number(space.set_prot(cx, r, Prot::RW)), errno::ENOMEM);
        twice("check", &|r| number(space.check_prot(cx, r, Prot::empty())), errno::ENOMEM);
        twice("rights", &|r| number(space.prots(cx, r, &mut |_, _| {})), errno::ENOMEM);
        twice("lock", &|r| number(space.lock(cx, r)), errno::ENOMEM);
        twice("advise", &|r| number(space.advise(cx, r, Advice::Random)), errno::ENOMEM);
        twice("ahead", &|r| number(space.will_need(cx, r)), errno::ENOMEM);
        twice("page size", &|r| number(space.set_page_size(cx, r, 0)), errno::ENOMEM);
        twice("leave out", &|r| number(space.leave_out(cx, r, true)), errno::ENOMEM);
        for how in [Inherit::Share, Inherit::Copy, Inherit::None, Inherit::Zero] {
            twice("inherit", &|r| number(space.inherit(cx, r, how)), errno::ENOMEM);
        }
        twice("zeros", &|r| number(space.inherit_zero(cx, r)), errno::ENOMEM);
        twice("as usual", &|r| number(space.inherit_usual(cx, r)), errno::ENOMEM);
        twice("identity", &|r| number(space.mem_id(cx, r.start()).map(drop)), errno::EFAULT);
        twice("pin", &|r| number(space.lock_pages(cx, r, Access::Read).map(drop)), errno::EFAULT);
        twice("incore", &|r| number(space.incore(cx, r, &mut [0; 4]).1), errno::ENOMEM);
        twice("lend", &|r| number(space.lend_pages(cx, r).map(drop)), errno::ENOMEM);
        twice("is mapped", &|r| number(space.check_mapped(cx, r)), errno::ENOMEM);
        twice("may move", &|r| number(space.may_move(cx, r)), errno::ENOMEM);
        let to = range(16, 4).start();
        let moved = |r| space.move_range(cx, r, to, Leave::Hole, Target::Replace);
        twice("move", &|r| number(moved(r)), errno::ENOMEM);
        twice("go on", &|r| number(space.extend(cx, r.start(), range(16, 1))), errno::ENOMEM);
        twice("show", &|r| number(space.share_range(cx, r, space, to)), errno::ENOMEM);
        let fault = |r: VirtRange| space.fault(cx, r, FaultKind::Invalid, Access::Read);
        assert_eq!(fault(hole), Err(FaultError::NoMap { addr: hole.start() }));
        assert!(space.vnode_at(cx, hole.start()).is_none());
        assert_eq!(space.memory(cx).count(), 0);
        assert_eq!(number(space.sync(cx, hole, SyncFlags::empty())), None, "nothing to do");
        space.lock_all(cx, LockAll::CURRENT | LockAll::FUTURE).expect("it is skipped");
        space.map(cx, range(4, 1), &SegHoleArgs).expect("and so are those to come");
        assert_eq!((space.state().size(), space.state().resv_size()), (5 * PAGE_SIZE, 0));
        assert_eq!(space.segs(cx).len(), 1, "two that touch are one");
        space.verify(cx).expect("whole");
        space.free(cx);
    }

    #[test]
    fn a_hole_is_cut_from_its_ends_only_and_is_inherited() {
        let w = world(64);
        let (p, child) = (w.proc(), w.proc());
        let (cx, space) = (&w.cx, &p.space);
        space.map(cx, range(0, 6), &SegHoleArgs).expect("free");
        let middle = space.unmap(cx, range(2, 1)).map_err(|e| e.errno());
        assert_eq!(middle, Err(errno::EINVAL));
        space.unmap(cx, range(0, 1)).expect("its start");
        space.unmap(cx, range(4, 2)).expect("its end");
        assert_eq!(space.range_at(cx, range(1, 1).start()), Some(range(1, 3)));
        space.dup(cx, &child.space).expect("memory");
        assert_eq!(child.space.range_at(cx, range(1, 1).start()), Some(range(1, 3)));
        assert_eq!(child.space.state().resv_size(), 0);
        for space in [space, &child.space] {
            space.verify(cx).expect("whole");
            space.unmap(cx, range(1, 3)).expect("all of it");
            assert_eq!((space.state().size(), space.state().resv_size()), (0, 0));
            space.free(cx);
        }
    }
}
