//! `mmap`, `munmap`, `mprotect`.

use super::{Ground, HOLE, HUGE, KERNEL, MAX, Row, TOP, row, run, said};
use crate::world::{ANON, FIXED, NONE, NORESERVE, PAGE, PRIVATE, R, RW, SHARED, at};
use segvm::files::FileHandle;
use segvm::machine::{Limit, MapFlags, MapRequest};

/// A good request for a page of anonymous memory at page 40.
fn good() -> MapRequest<'static> {
    let flags = PRIVATE | ANON | FIXED;
    MapRequest { addr: at(40), len: PAGE, prot: RW, flags, file: None, offset: 0 }
}

fn mmap(g: &Ground, change: impl FnOnce(&mut MapRequest<'_>)) -> String {
    let mut request = good();
    change(&mut request);
    said(g.p.mmap(&request))
}

fn on_file(g: &Ground, file: &FileHandle, change: impl FnOnce(&mut MapRequest<'_>)) -> String {
    let mut request = MapRequest { flags: PRIVATE | FIXED, file: Some(file), ..good() };
    change(&mut request);
    said(g.p.mmap(&request))
}

const MMAP: &[Row] = &[
    row("length 0", |g| mmap(g, |r| r.len = 0), "EINVAL: the length is 0"),
    row(
        "a length that rounds up to 2^64",
        |g| mmap(g, |r| r.len = MAX),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "length 2^63",
        |g| mmap(g, |r| r.len = HUGE),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "length 2^63 anywhere",
        |g| mmap(g, |r| (r.len, r.flags) = (HUGE, PRIVATE | ANON)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "all of the user's addresses anywhere",
        |g| mmap(g, |r| (r.len, r.flags) = (TOP, PRIVATE | ANON | NORESERVE)),
        "ENOMEM: no gap of 0x7ffffffff000 bytes",
    ),
    row(
        "more than is free, anywhere",
        |g| mmap(g, |r| (r.len, r.flags) = (TOP - (1 << 40), PRIVATE | ANON | NORESERVE)),
        "ENOMEM: no gap of 0x7efffffff000 bytes",
    ),
    row(
        "a fixed place off the page boundary",
        |g| mmap(g, |r| r.addr += 1),
        "EINVAL: the address is not on a page boundary",
    ),
    row(
        "a fixed place at the first address past the user's",
        |g| mmap(g, |r| r.addr = TOP),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a fixed place that ends past the user's addresses",
        |g| mmap(g, |r| (r.addr, r.len) = (TOP - PAGE, 2 * PAGE)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a fixed place in the hole",
        |g| mmap(g, |r| r.addr = HOLE),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a fixed place in the kernel's half",
        |g| mmap(g, |r| r.addr = KERNEL),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "a fixed place whose end wraps",
        |g| mmap(g, |r| (r.addr, r.len) = (0u64.wrapping_sub(PAGE), 2 * PAGE)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row("a fixed place at 0", |g| mmap(g, |r| r.addr = 0), "0x0"),
    row(
        "a hint in the hole is not followed",
        |g| mmap(g, |r| (r.addr, r.flags) = (HOLE, PRIVATE | ANON)),
        "0x7fffef5ff000",
    ),
    row(
        "a hint in the kernel's half is not followed",
        |g| mmap(g, |r| (r.addr, r.flags) = (KERNEL, PRIVATE | ANON)),
        "0x7fffef5ff000",
    ),
    row(
        "a hint of 2^64-1 is not followed",
        |g| mmap(g, |r| (r.addr, r.flags) = (MAX, PRIVATE | ANON)),
        "0x7fffef5ff000",
    ),
    row(
        "a hint off the page boundary is rounded down",
        |g| mmap(g, |r| (r.addr, r.flags) = (at(40) + 5, PRIVATE | ANON)),
        "0x100000028000",
    ),
    row(
        "a hint at what is taken is not followed",
        |g| mmap(g, |r| (r.addr, r.flags) = (at(0), PRIVATE | ANON)),
        "0x7fffef5ff000",
    ),
    row(
        "neither shared nor private",
        |g| mmap(g, |r| r.flags = ANON | FIXED),
        "EINVAL: a mapping is either shared or private",
    ),
    row(
        "shared and private",
        |g| mmap(g, |r| r.flags |= SHARED),
        "EINVAL: a mapping is either shared or private",
    ),
    row(
        "an unknown flag",
        |g| mmap(g, |r| r.flags = MapFlags::from_bits_retain(0x8000_0112)),
        "EINVAL: an unknown flag",
    ),
    row(
        "an unknown protection bit",
        |g| mmap(g, |r| r.prot = 0x11),
        "ENOTSUP: an unknown protection bit",
    ),
    row(
        "an unknown protection bit for a file anywhere",
        |g| on_file(g, &g.rw, |r| (r.prot, r.flags) = (1 << 31, PRIVATE)),
        "EACCES: an unknown protection bit",
    ),
    row(
        "an offset off the page boundary",
        |g| on_file(g, &g.rw, |r| r.offset = 512),
        "EINVAL: the offset is not a multiple of the page size",
    ),
    row(
        "a negative offset",
        |g| on_file(g, &g.rw, |r| r.offset = HUGE),
        "ENXIO: a negative offset",
    ),
    row(
        "the last page before 2^63 and one more",
        |g| on_file(g, &g.rw, |r| (r.offset, r.len) = (HUGE - PAGE, 2 * PAGE)),
        "EOVERFLOW: the mapping passes the largest offset",
    ),
    row(
        "anonymous memory of a file",
        |g| on_file(g, &g.rw, |r| r.flags |= ANON),
        "EINVAL: anonymous memory and a descriptor",
    ),
    row("no file", |g| mmap(g, |r| r.flags = PRIVATE), "EBADF: no such descriptor"),
    row(
        "a descriptor that only writes",
        |g| on_file(g, &g.wo, |r| r.prot = RW),
        "EACCES: the descriptor does not allow that",
    ),
    row(
        "a descriptor that only writes, for nothing",
        |g| on_file(g, &g.wo, |r| r.prot = NONE),
        "EACCES: the descriptor does not allow that",
    ),
    row(
        "shared stores by a descriptor that only reads",
        |g| on_file(g, &g.ro, |r| r.flags = SHARED | FIXED),
        "EACCES: the descriptor does not allow that",
    ),
    row(
        "private stores by a descriptor that only reads",
        |g| on_file(g, &g.ro, |_| ()),
        "0x100000028000",
    ),
    row(
        "what is taken, exclusively",
        |g| mmap(g, |r| (r.addr, r.flags) = (at(3), r.flags | MapFlags::EXCL)),
        "EEXIST: something is mapped there",
    ),
    row(
        "an alignment that is no power of two",
        |g| mmap(g, |r| (r.addr, r.flags) = (3 * PAGE, PRIVATE | ANON | MapFlags::ALIGN)),
        "EINVAL: an alignment that is none, or a fixed place",
    ),
    row(
        "an alignment below a page",
        |g| mmap(g, |r| (r.addr, r.flags) = (64, PRIVATE | ANON | MapFlags::ALIGN)),
        "EINVAL: an alignment that is none, or a fixed place",
    ),
    row(
        "an alignment of 2^63",
        |g| mmap(g, |r| (r.addr, r.flags) = (HUGE, PRIVATE | ANON | MapFlags::ALIGN)),
        "ENOMEM: no gap of 0x1000 bytes",
    ),
    row(
        "an alignment and a fixed place",
        |g| mmap(g, |r| r.flags |= MapFlags::ALIGN),
        "EINVAL: an alignment that is none, or a fixed place",
    ),
    row(
        "text that cannot be executed",
        |g| mmap(g, |r| r.flags |= MapFlags::TEXT),
        "EINVAL: text that cannot be executed, or is data",
    ),
    row(
        "text that is data",
        |g| mmap(g, |r| (r.prot, r.flags) = (5, r.flags | MapFlags::TEXT | MapFlags::INITDATA)),
        "EINVAL: text that cannot be executed, or is data",
    ),
    row(
        "more than the limit on address space",
        |g| {
            g.p.set_limit(Limit::Vmem, 16 * PAGE);
            mmap(g, |r| r.len = 2 * PAGE)
        },
        "ENOMEM: 0x2000 bytes more would pass the address-space limit of 0x10000",
    ),
    row(
        "locked at once, over the limit",
        |g| {
            g.p.set_limit(Limit::Memlock, PAGE);
            mmap(g, |r| (r.len, r.flags) = (2 * PAGE, r.flags | MapFlags::LOCKED))
        },
        "EAGAIN: locking 0x100000028000..0x10000002a000 passes a limit",
    ),
];

const MUNMAP: &[Row] = &[
    row(
        "off the page boundary",
        |g| said(g.p.munmap(at(0) + 1, PAGE)),
        "EINVAL: the address is not on a page boundary",
    ),
    row("length 0", |g| said(g.p.munmap(at(0), 0)), "EINVAL: the length is 0"),
    row(
        "a length that wraps",
        |g| said(g.p.munmap(at(0), MAX)),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "a length that wraps to the page itself",
        |g| said(g.p.munmap(at(0), PAGE.wrapping_sub(at(0)))),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "in the hole",
        |g| said(g.p.munmap(HOLE, PAGE)),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "the kernel's half",
        |g| said(g.p.munmap(KERNEL, PAGE)),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "past the user's addresses",
        |g| said(g.p.munmap(TOP - PAGE, 2 * PAGE)),
        "EINVAL: the range leaves the user's addresses",
    ),
    row("what is not mapped", |g| said(g.p.munmap(at(1000), 1 << 40)), "done"),
];

const MPROTECT: &[Row] = &[
    row(
        "off the page boundary",
        |g| said(g.p.mprotect(at(0) + 8, PAGE, R)),
        "EINVAL: the address is not on a page boundary",
    ),
    row("length 0", |g| said(g.p.mprotect(at(0), 0, R)), "EINVAL: the length is 0"),
    row(
        "a length that wraps",
        |g| said(g.p.mprotect(at(0), MAX, R)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "in the hole",
        |g| said(g.p.mprotect(HOLE, PAGE, R)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row(
        "the kernel's half",
        |g| said(g.p.mprotect(KERNEL, PAGE, RW)),
        "ENOMEM: the range leaves the user's addresses",
    ),
    row("nothing mapped", |g| said(g.p.mprotect(at(4), PAGE, R)), {
        "ENOMEM: nothing is mapped at 0x100000004000"
    }),
    row(
        "a gap behind what is mapped, whose rights change all the same",
        |g| {
            let answer = said(g.p.mprotect(at(2), 4 * PAGE, NONE));
            format!("{answer}; {}", super::died(g.p.load(at(3), &mut [0])))
        },
        "ENOMEM: nothing is mapped at 0x100000004000; SegvAccErr at 0x100000003000, after 0 bytes",
    ),
    row(
        "an unknown bit",
        |g| said(g.p.mprotect(at(0), PAGE, 8)),
        "ENOTSUP: an unknown protection bit",
    ),
    row(
        "the bit of the mode",
        |g| said(g.p.mprotect(at(0), PAGE, 0x80)),
        "ENOTSUP: an unknown protection bit",
    ),
    row(
        "stores to a file that was opened for reading",
        |g| said(g.p.mprotect(at(32), PAGE, RW)),
        "EACCES: 0x100000020000..0x100000021000 may not have that protection",
    ),
];

#[test]
fn wrong_maps() {
    run(Ground::new, MMAP);
}

#[test]
fn wrong_unmaps() {
    run(Ground::new, MUNMAP);
}

#[test]
fn wrong_protections() {
    run(Ground::new, MPROTECT);
}
