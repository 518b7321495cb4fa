//! Loads, stores and fetches, and what the kernel does with a user's address.

use super::{Ground, HOLE, HUGE, KERNEL, MAX, Row, TOP, died, row, run, said};
use crate::world::{PAGE, R, at};
use segvm::machine::STACK_TOP;

fn load(g: &Ground, addr: u64, len: usize) -> String {
    died(g.p.load(addr, &mut vec![0; len]))
}

fn store(g: &Ground, addr: u64, len: usize) -> String {
    died(g.p.store(addr, &vec![7; len]))
}

const ACCESS: &[Row] = &[
    row("a load from 0", |g| load(g, 0, 1), "SegvMapErr at 0x0, after 0 bytes"),
    row("a load from a gap", |g| load(g, at(4), 1), {
        "SegvMapErr at 0x100000004000, after 0 bytes"
    }),
    row(
        "a load that runs into a gap",
        |g| load(g, at(3) + 4090, 20),
        "SegvMapErr at 0x100000004000, after 6 bytes",
    ),
    row("a load from the hole", |g| load(g, HOLE, 8), {
        "SegvMapErr at 0x900000000000, after 0 bytes"
    }),
    row("a load at the user's end", |g| load(g, TOP, 1), {
        "SegvMapErr at 0x7ffffffff000, after 0 bytes"
    }),
    row("a load from the kernel's heap", |g| load(g, KERNEL, 8), {
        "SegvMapErr at 0xffff800000000000, after 0 bytes"
    }),
    row(
        "a store into the kernel's heap, which every page table maps",
        |g| {
            let kernel = g.m.kmem().alloc(&g.m.kernel_scx(), 1).unwrap();
            let answer = store(g, kernel.start().get(), 8);
            g.m.kmem().free(&g.m.kernel_scx(), kernel).unwrap();
            answer
        },
        "SegvMapErr at 0xfffffe0000000000, after 0 bytes",
    ),
    row("a load that wraps", |g| load(g, MAX, 2), {
        "SegvMapErr at 0xffffffffffffffff, after 0 bytes"
    }),
    row("nothing, from nowhere", |g| load(g, HOLE, 0), "done"),
    row("a store where loads are allowed", |g| store(g, at(8), 1), {
        "SegvAccErr at 0x100000008000, after 0 bytes"
    }),
    row("a load where nothing is allowed", |g| load(g, at(10), 1), {
        "SegvAccErr at 0x10000000a000, after 0 bytes"
    }),
    row(
        "a fetch where it is not allowed",
        |g| died(g.p.fetch(at(0), &mut [0; 4])),
        "SegvAccErr at 0x100000000000, after 0 bytes",
    ),
    row(
        "a store that runs into what is read-only",
        |g| {
            g.p.mprotect(at(1), PAGE, R).unwrap();
            store(g, at(0) + 100, PAGE as usize)
        },
        "SegvAccErr at 0x100000001000, after 3996 bytes",
    ),
    // illumos says BUS_OBJERR with EFAULT where others say BUS_ADRERR.
    row("a load past the end of a file", |g| load(g, at(19), 1), {
        "BusObjErr(14) at 0x100000013000, after 0 bytes"
    }),
    row("a store past the end of a file, in its last page", |g| store(g, at(18) + 4000, 1), "done"),
    row(
        "a store that runs past the last page of a file",
        |g| store(g, at(18) + 4000, 200),
        "BusObjErr(14) at 0x100000013000, after 96 bytes",
    ),
    row(
        "a page of a file that was cut off since",
        |g| {
            g.p.load(at(17), &mut [0]).unwrap();
            g.file.truncate(g.cx(), g.m.db(), 100).unwrap();
            load(g, at(17), 1)
        },
        "BusObjErr(14) at 0x100000011000, after 0 bytes",
    ),
    row(
        "a private page of a file that was cut off",
        |g| {
            g.p.load(at(25), &mut [0]).unwrap();
            g.file.truncate(g.cx(), g.m.db(), 0).unwrap();
            store(g, at(25), 1)
        },
        "BusObjErr(14) at 0x100000019000, after 0 bytes",
    ),
    row(
        "a copy of a page of a file that was cut off stays",
        |g| {
            g.p.store(at(25), b"mine").unwrap();
            g.file.truncate(g.cx(), g.m.db(), 0).unwrap();
            load(g, at(25), 4)
        },
        "done",
    ),
    row(
        "a page of a file that cannot be read",
        |g| {
            g.file.fail_read(g.cx(), 1, 5);
            load(g, at(16), 1)
        },
        "BusObjErr(5) at 0x100000010000, after 0 bytes",
    ),
    row(
        "the same page, read again",
        |g| {
            g.file.fail_read(g.cx(), 1, 5);
            let _ = load(g, at(16), 1);
            load(g, at(16), 1)
        },
        "done",
    ),
    row(
        "an address far below the stack",
        |g| {
            g.p.grow_stack(STACK_TOP - 1).unwrap();
            store(g, STACK_TOP - (11 << 20), 1)
        },
        "SegvMapErr at 0x7fffef500000, after 0 bytes",
    ),
];

const TRANSFERS: &[Row] = &[
    row(
        "read, by a descriptor that writes",
        |g| said(g.p.pread(&g.wo, 0, at(0), 8)),
        "EBADF: not open for reading",
    ),
    row(
        "write, by a descriptor that reads",
        |g| said(g.p.pwrite(&g.ro, 0, at(0), 8)),
        "EBADF: not open for writing",
    ),
    row(
        "read at a negative offset",
        |g| said(g.p.pread(&g.rw, HUGE, at(0), 8)),
        "EINVAL: a negative offset",
    ),
    row(
        "write at a negative offset",
        |g| said(g.p.pwrite(&g.rw, MAX, at(0), 8)),
        "EINVAL: a negative offset",
    ),
    row(
        "write past the largest offset",
        |g| said(g.p.pwrite(&g.rw, HUGE - 4, at(0), 8)),
        "EFBIG: the file would become too large",
    ),
    row("read past the end", |g| said(g.p.pread(&g.rw, 1 << 40, at(0), 8)), "0x0"),
    row(
        "read into what is read-only",
        |g| said(g.p.pread(&g.rw, 0, at(8), 8)),
        "EFAULT: the mapping does not allow it",
    ),
    row(
        "read into a gap",
        |g| said(g.p.pread(&g.rw, 0, at(4), 8)),
        "EFAULT: nothing is mapped there",
    ),
    row(
        "read into the kernel",
        |g| said(g.p.pread(&g.rw, 0, KERNEL, 8)),
        "EFAULT: not the user's memory",
    ),
    row(
        "read into a buffer that wraps",
        |g| said(g.p.pread(&g.rw, 0, at(0), MAX)),
        "EFAULT: not the user's memory",
    ),
    row(
        "write from a gap",
        |g| said(g.p.pwrite(&g.rw, 0, at(4), 8)),
        "EFAULT: nothing is mapped there",
    ),
    row(
        "write from past the end of a mapped file",
        |g| said(g.p.pwrite(&g.rw, 0, at(19), 8)),
        "EFAULT: the object behind it failed",
    ),
    row(
        "copy in from 2^64-1",
        |g| said(g.p.copyin(MAX, &mut [0; 8])),
        "EFAULT: nothing is mapped there",
    ),
    row(
        "copy out to the hole",
        |g| said(g.p.copyout(HOLE, &[0; 8])),
        "EFAULT: nothing is mapped there",
    ),
    row(
        "the file cannot be read",
        |g| {
            g.file.fail_read(g.cx(), 1, 5);
            said(g.p.pread(&g.rw, 0, at(0), 8))
        },
        "EIO: i/o error 5 at offset 0x0 of vnode 3",
    ),
    row(
        "the second page of the file cannot be read",
        |g| {
            g.file.fail_read(g.cx(), 2, 5);
            said(g.p.pread(&g.rw, 0, at(1), 2 * PAGE))
        },
        "0x1000",
    ),
];

#[test]
fn wrong_accesses() {
    run(Ground::new, ACCESS);
}

#[test]
fn wrong_transfers() {
    run(Ground::new, TRANSFERS);
}
