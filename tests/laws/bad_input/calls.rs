//! Advice, residency, write-out, locks, break and stack.

use super::{Ground, HOLE, HUGE, KERNEL, MAX, Row, TOP, row, run, said};
use crate::world::{ANON, PAGE, PRIVATE, RW, at, map};
use addr_space::{Advice, Inherit, LockAll, SyncFlags};
use segvm::machine::{BREAK_BASE, Limit, MemAdvice, STACK_TOP};

const RANDOM: MemAdvice = MemAdvice::Use(Advice::Random);

const ADVICE: &[Row] = &[
    row(
        "off the page boundary",
        |g| said(g.p.madvise(at(0) + 1, PAGE, RANDOM)),
        "EINVAL: the address is not on a page boundary",
    ),
    row("length 0", |g| said(g.p.madvise(at(0), 0, RANDOM)), "EINVAL: the length is 0"),
    row(
        "a length that wraps",
        |g| said(g.p.madvise(at(0), MAX, RANDOM)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "the kernel's half",
        |g| said(g.p.madvise(KERNEL, PAGE, MemAdvice::DontNeed)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a gap",
        |g| said(g.p.madvise(at(0), 6 * PAGE, RANDOM)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "a gap behind a free length, which is rounded down",
        |g| said(g.p.madvise(at(3), 2 * PAGE, MemAdvice::Use(Advice::Free))),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "bring in what is not mapped",
        |g| said(g.p.madvise(at(4), PAGE, MemAdvice::WillNeed)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "no fork for a gap",
        |g| said(g.p.madvise(at(3), 2 * PAGE, MemAdvice::DontFork)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "zeros on fork for a file",
        |g| said(g.p.madvise(at(24), PAGE, MemAdvice::InheritZero)),
        "EINVAL: seg_vn: zero on fork is for private anonymous memory at \
         0x100000018000..0x100000019000",
    ),
    row(
        "locked memory that is not needed",
        |g| {
            g.p.mlock(at(1), PAGE).unwrap();
            said(g.p.madvise(at(0), 4 * PAGE, MemAdvice::DontNeed))
        },
        "EBUSY: pages at 0x100000001000 are locked in memory",
    ),
    row(
        "locked memory that is to be emptied",
        |g| {
            g.p.mlock(at(0), PAGE).unwrap();
            said(g.p.madvise(at(0), 4 * PAGE, MemAdvice::Use(Advice::Drop)))
        },
        "EBUSY: pages at 0x100000000000 are locked in memory",
    ),
    row(
        "locked memory that is to be discarded",
        |g| {
            g.p.mlock(at(0), PAGE).unwrap();
            said(g.p.madvise(at(0), 4 * PAGE, MemAdvice::Use(Advice::Discard)))
        },
        "EBUSY: pages at 0x100000000000 are locked in memory",
    ),
    row(
        "locked memory that may be thrown away",
        |g| {
            g.p.mlock(at(0), 2 * PAGE).unwrap();
            said(g.p.madvise(at(0), 2 * PAGE, MemAdvice::Use(Advice::Purge)))
        },
        "EBUSY: pages at 0x100000000000 are locked in memory",
    ),
    row(
        "discard up to a gap",
        |g| said(g.p.madvise(at(3), 2 * PAGE, MemAdvice::Use(Advice::Discard))),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "inherit off the page boundary",
        |g| said(g.p.minherit(at(0) + 1, PAGE, Inherit::Share)),
        "EINVAL: the address is not on a page boundary",
    ),
    row(
        "inherit nothing of length 0",
        |g| said(g.p.minherit(at(0), 0, Inherit::None)),
        "EINVAL: the length is 0",
    ),
    row(
        "inherit a length that wraps",
        |g| said(g.p.minherit(at(0), MAX, Inherit::Zero)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "share up to a gap",
        |g| said(g.p.minherit(at(3), 2 * PAGE, Inherit::Share)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
];

const INCORE: &[Row] = &[
    row(
        "off the page boundary",
        |g| said(g.p.mincore(at(0) + 1, PAGE)),
        "EINVAL: the address is not on a page boundary",
    ),
    row("length 0", |g| said(g.p.mincore(at(0), 0)), "EINVAL: the length is 0 or negative"),
    row(
        "a negative length",
        |g| said(g.p.mincore(at(0), HUGE)),
        "EINVAL: the length is 0 or negative",
    ),
    row(
        "past the user's addresses",
        |g| said(g.p.mincore(TOP - PAGE, 2 * PAGE)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "the kernel's half",
        |g| said(g.p.mincore(KERNEL, PAGE)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a gap",
        |g| said(g.p.mincore(at(2), 4 * PAGE)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
];

const SYNC: &[Row] = &[
    row(
        "off the page boundary",
        |g| said(g.p.msync(at(16) + 1, PAGE, SyncFlags::empty())),
        "EINVAL: the address is not on a page boundary",
    ),
    row("length 0", |g| said(g.p.msync(at(16), 0, SyncFlags::empty())), "EINVAL: the length is 0"),
    row(
        "in the hole",
        |g| said(g.p.msync(HOLE, PAGE, SyncFlags::empty())),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a gap",
        |g| said(g.p.msync(at(16), 6 * PAGE, SyncFlags::empty())),
        "ENOMEM: nothing is mapped at 0x100000014000",
    ),
    row(
        "locked pages are not invalidated",
        |g| {
            g.p.mlock(at(17), PAGE).unwrap();
            said(g.p.msync(at(16), 3 * PAGE, SyncFlags::INVALIDATE))
        },
        "EBUSY: pages at 0x100000011000 are locked in memory",
    ),
    row(
        "a write to the file fails",
        |g| {
            g.p.store(at(16), b"dirty").unwrap();
            g.file.fail_write(g.cx(), 1, 5);
            said(g.p.msync(at(16), PAGE, SyncFlags::empty()))
        },
        "EIO: i/o error 5 at offset 0x0 of vnode 3",
    ),
];

const LOCKS: &[Row] = &[
    row(
        "off the page boundary",
        |g| said(g.p.mlock(at(0) + 1, PAGE)),
        "EINVAL: the address is not on a page boundary",
    ),
    row("length 0", |g| said(g.p.mlock(at(0), 0)), "EINVAL: the length is 0"),
    row(
        "a length that wraps",
        |g| said(g.p.mlock(at(0), MAX)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a gap; nothing stays locked",
        |g| {
            let answer = said(g.p.mlock(at(2), 4 * PAGE));
            format!("{answer}; {} bytes locked", g.p.space().state().locked())
        },
        "ENOMEM: nothing is mapped at 0x100000004000; 0 bytes locked",
    ),
    row(
        "over the limit; nothing stays locked",
        |g| {
            g.p.set_limit(Limit::Memlock, 3 * PAGE);
            let answer = said(g.p.mlock(at(0), 4 * PAGE));
            format!("{answer}; {} bytes locked", g.p.space().state().locked())
        },
        "EAGAIN: locking 0x100000000000..0x100000004000 passes a limit; 0 bytes locked",
    ),
    row(
        "more than memory can spare",
        |g| {
            map(&g.p, 100, 512, RW, PRIVATE | ANON, None).unwrap();
            said(g.p.mlock(at(100), 512 * PAGE))
        },
        "EAGAIN: locking 0x100000231000..0x100000232000 passes a limit",
    ),
    row(
        "a page that cannot be read",
        |g| {
            g.file.fail_read(g.cx(), 1, 5);
            said(g.p.mlock(at(16), PAGE))
        },
        "EIO: the object behind 0x100000010000 failed with errno 5",
    ),
    row(
        "unlock, off the page boundary",
        |g| said(g.p.munlock(at(0) + 1, PAGE)),
        "EINVAL: the address is not on a page boundary",
    ),
    row(
        "unlock a gap",
        |g| said(g.p.munlock(at(3), 2 * PAGE)),
        "ENOMEM: nothing is mapped at 0x100000004000",
    ),
    row(
        "unlock the kernel's half",
        |g| said(g.p.munlock(KERNEL, PAGE)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "lock all of nothing",
        |g| said(g.p.mlockall(LockAll::empty())),
        "EINVAL: neither current nor future memory",
    ),
    row(
        "lock all of what there is not",
        |g| said(g.p.mlockall(LockAll::from_bits_retain(4))),
        "EINVAL: neither current nor future memory",
    ),
    row(
        "lock all, over the limit; nothing stays locked",
        |g| {
            g.p.set_limit(Limit::Memlock, 5 * PAGE);
            let answer = said(g.p.mlockall(LockAll::CURRENT));
            format!("{answer}; {} bytes locked", g.p.space().state().locked())
        },
        "EAGAIN: locking 0x100000008000..0x10000000a000 passes a limit; 0 bytes locked",
    ),
];

const GROWTH: &[Row] = &[
    row(
        "a break below the first",
        |g| said(g.p.brk(BREAK_BASE - 1)),
        "ENOMEM: below the initial break, or no user address",
    ),
    row("a break at 0", |g| said(g.p.brk(0)), {
        "ENOMEM: below the initial break, or no user address"
    }),
    row(
        "a break of 2^64-1",
        |g| said(g.p.brk(MAX)),
        "ENOMEM: below the initial break, or no user address",
    ),
    row(
        "a break in the hole",
        |g| said(g.p.brk(HOLE)),
        "ENOMEM: below the initial break, or no user address",
    ),
    row(
        "a break over the data limit",
        |g| {
            g.p.set_limit(Limit::Data, PAGE);
            said(g.p.brk(BREAK_BASE + PAGE + 1))
        },
        "ENOMEM: over the data limit",
    ),
    row(
        "a break over the limit on address space",
        |g| {
            g.p.set_limit(Limit::Vmem, 0);
            said(g.p.brk(BREAK_BASE + 1))
        },
        "ENOMEM: 0x1000 bytes more would pass the address-space limit of 0x0",
    ),
    row(
        "a break that meets a mapping",
        |g| {
            g.p.mmap(&segvm::MapRequest {
                addr: BREAK_BASE + PAGE,
                len: PAGE,
                prot: RW,
                flags: PRIVATE | ANON | segvm::MapFlags::FIXED,
                file: None,
                offset: 0,
            })
            .unwrap();
            said(g.p.brk(BREAK_BASE + 2 * PAGE))
        },
        "ENOMEM: 0x600000000000..0x600000002000 overlaps the segment \
         0x600000001000..0x600000002000",
    ),
    row("a stack at its top", |g| said(g.p.grow_stack(STACK_TOP)), "ENOMEM: not below the stack"),
    row("a stack in the kernel", |g| said(g.p.grow_stack(MAX)), "ENOMEM: not below the stack"),
    row("a stack at 0", |g| said(g.p.grow_stack(0)), "ENOMEM: over the stack limit"),
    row(
        "a stack over its limit",
        |g| {
            g.p.set_limit(Limit::Stack, 2 * PAGE);
            said(g.p.grow_stack(STACK_TOP - 3 * PAGE))
        },
        "ENOMEM: over the stack limit",
    ),
    row(
        "a stack that meets a mapping",
        |g| {
            g.p.set_limit(Limit::Stack, MAX);
            said(g.p.grow_stack(at(0)))
        },
        "ENOMEM: 0x100000000000..0x7ffff0000000 overlaps the segment \
         0x100000000000..0x100000004000",
    ),
];

#[test]
fn wrong_advice() {
    run(Ground::new, ADVICE);
}

#[test]
fn wrong_questions_for_residency() {
    run(Ground::new, INCORE);
}

#[test]
fn wrong_writes_out() {
    run(Ground::new, SYNC);
}

#[test]
fn wrong_locks() {
    run(Ground::new, LOCKS);
}

#[test]
fn wrong_breaks_and_stacks() {
    run(Ground::new, GROWTH);
}
