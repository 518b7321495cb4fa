//! The address space's own calls, without the checks of the system calls in front of them.

use super::{Ground, KERNEL, Row, TOP, errno, row, run};
use crate::world::{PAGE, R, at};
use addr_space::{AsError, FaultKind, LockAll, SyncFlags};
use page_db::{Access, Prot, VirtAddr, VirtRange};
use seg_drivers::SegVnArgs;

fn told<T: std::fmt::Debug>(r: Result<T, AsError>) -> String {
    r.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |v| format!("{v:?}"))
}

fn range(addr: u64, pages: u64) -> VirtRange {
    VirtRange::exact(addr, pages * PAGE).unwrap()
}

fn kernel() -> VirtRange {
    range(KERNEL, 1)
}

fn va(addr: u64) -> VirtAddr {
    VirtAddr::new(addr).unwrap()
}

const SPACE: &[Row] = &[
    row(
        "map in the kernel's half",
        |g| {
            let args = SegVnArgs::zfod(g.m.vn(), Prot::RW);
            told(g.p.space().map(g.cx(), kernel(), &args))
        },
        "ENOMEM: 0xffff800000000000..0xffff800000001000 lies outside 0x0..0x7ffffffff000",
    ),
    row(
        "map the user's last page and the next",
        |g| {
            let args = SegVnArgs::zfod(g.m.vn(), Prot::RW);
            told(g.p.space().map(g.cx(), range(TOP - PAGE, 2), &args))
        },
        "ENOMEM: 0x7fffffffe000..0x800000000000 lies outside 0x0..0x7ffffffff000",
    ),
    row(
        "map over what is there",
        |g| {
            let args = SegVnArgs::zfod(g.m.vn(), Prot::RW);
            told(g.p.space().map(g.cx(), range(at(3), 2), &args))
        },
        "ENOMEM: 0x100000003000..0x100000005000 overlaps the segment 0x100000000000..0x100000004000",
    ),
    row(
        "unmap the kernel's half",
        |g| told(g.p.space().unmap(g.cx(), kernel())),
        "ENOMEM: 0xffff800000000000..0xffff800000001000 lies outside 0x0..0x7ffffffff000",
    ),
    row(
        "protect the kernel's half",
        |g| told(g.p.space().set_prot(g.cx(), kernel(), Prot::RW)),
        "ENOMEM: 0xffff800000000000..0xffff800000001000 lies outside 0x0..0x7ffffffff000",
    ),
    row(
        "check the rights of a gap",
        |g| told(g.p.space().check_prot(g.cx(), range(at(3), 2), Prot::READ)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "check rights that are not there",
        |g| told(g.p.space().check_prot(g.cx(), range(at(8), 1), Prot::RW)),
        "EACCES: 0x100000008000..0x100000009000 may not have that protection",
    ),
    row(
        "a fault in the kernel's half",
        |g| {
            let fault = g.p.space().fault(g.cx(), kernel(), FaultKind::Invalid, Access::Read);
            format!("{fault:?}")
        },
        "Err(NoMap { addr: 0xffff800000000000 })",
    ),
    row(
        "a fault that runs into a gap",
        |g| {
            let fault =
                g.p.space().fault(g.cx(), range(at(2), 4), FaultKind::Invalid, Access::Write);
            format!("{fault:?}")
        },
        "Err(NoMap { addr: 0x100000004000 })",
    ),
    row(
        "read ahead in the kernel's half",
        |g| format!("{:?}", g.p.space().faulta(g.cx(), kernel())),
        "Err(NoMap { addr: 0xffff800000000000 })",
    ),
    row(
        "write out the kernel's half",
        |g| told(g.p.space().sync(g.cx(), kernel(), SyncFlags::empty())),
        "ENOMEM: 0xffff800000000000..0xffff800000001000 lies outside 0x0..0x7ffffffff000",
    ),
    row(
        "lock the kernel's half",
        |g| told(g.p.space().lock(g.cx(), kernel())),
        "ENOMEM: 0xffff800000000000..0xffff800000001000 lies outside 0x0..0x7ffffffff000",
    ),
    row("lock all of nothing", |g| told(g.p.space().lock_all(g.cx(), LockAll::empty())), "()"),
    row(
        "a page size that does not exist",
        |g| told(g.p.space().set_page_size(g.cx(), range(at(0), 1), 200)),
        "EINVAL: seg_vn: setpagesize at 0x100000000000..0x100000001000",
    ),
    row(
        "pin a gap",
        |g| told(g.p.space().lock_pages(g.cx(), range(at(3), 2), Access::Read).map(|_| ())),
        "EFAULT: nothing is mapped at 0x100000004000",
    ),
    row(
        "pin for stores what is read-only",
        |g| told(g.p.space().lock_pages(g.cx(), range(at(8), 1), Access::Write).map(|_| ())),
        "EACCES: Write is not allowed at 0x100000008000",
    ),
    row(
        "copy a space onto itself",
        |g| told(g.p.space().dup(g.cx(), &g.p.space())),
        "ENOMEM: 0x0..0x7ffffffff000 overlaps the segment 0x0..0x7ffffffff000",
    ),
    row(
        "copy a space onto one that is not empty",
        |g| {
            let other = g.p.fork().unwrap();
            let answer = told(g.p.space().dup(g.cx(), &other.space()));
            other.exit();
            answer
        },
        "ENOMEM: 0x0..0x7ffffffff000 overlaps the segment 0x100000000000..0x100000004000",
    ),
    row(
        "map in a space that is gone",
        |g| {
            let other = g.p.fork().unwrap();
            let space = std::sync::Arc::clone(&other.space());
            other.exit();
            let args = SegVnArgs::zfod(g.m.vn(), Prot::RW);
            told(space.map(g.cx(), range(at(40), 1), &args))
        },
        "ESRCH: address space 2 is gone",
    ),
    row(
        "the identity of a gap",
        |g| told(g.p.space().mem_id(g.cx(), va(at(4)))),
        "EFAULT: nothing is mapped at 0x100000004000",
    ),
    row(
        "rights of kernel addresses that are not its heap's",
        |g| {
            let kas = g.m.kas();
            told(kas.set_prot(g.cx(), range(KERNEL, 1), Prot::READ))
        },
        "ENOMEM: 0xffff800000000000..0xffff800000001000 lies outside 0xfffffe0000000000..0xfffffe8000000000",
    ),
    row(
        "a call on a process that has exited",
        |g| {
            let other = g.p.fork().unwrap();
            other.exit();
            super::said(other.map_anon(PAGE)) + "; " + &super::said(other.mprotect(at(0), PAGE, R))
        },
        "ESRCH: address space 2 is gone; ENOMEM: nothing is mapped at 0x100000000000",
    ),
    row(
        "a fork of a process that has exited",
        |g| {
            let other = g.p.fork().unwrap();
            other.exit();
            super::said(other.fork().map(|_| ()))
        },
        "EAGAIN: address space 2 is gone",
    ),
];

/// Ranges that are none are refused before any space sees them.
#[test]
fn ranges_that_are_none() {
    let made = [
        (at(0), 0),
        (at(0) + 1, PAGE),
        (at(0), PAGE + 1),
        (0u64.wrapping_sub(PAGE), PAGE),
        (TOP, 2 * PAGE),
        (super::HOLE, PAGE),
        (at(0), !0xfff),
    ]
    .map(|(addr, len)| {
        VirtRange::exact(addr, len).map_or_else(|e| e.to_string(), |r| r.to_string())
    });
    assert_eq!(
        made,
        [
            "range at 0x100000000000 is empty",
            "address 0x100000000001 is not page-aligned",
            "length 0x1001 is not a whole number of pages",
            "range 0xfffffffffffff000+0x1000 wraps or leaves its canonical half",
            "range 0x7ffffffff000+0x2000 wraps or leaves its canonical half",
            "address 0x900000000000 lies in the non-canonical hole",
            "range 0x100000000000+0xfffffffffffff000 wraps or leaves its canonical half",
        ]
    );
}

#[test]
fn wrong_calls_of_a_space() {
    run(Ground::new, SPACE);
}
