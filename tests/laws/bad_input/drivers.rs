//! Device memory and the kernel's heap.

use super::{Ground, HUGE, KERNEL, MAX, Row, died, errno, row, run, said};
use crate::world::{NONE, PAGE, R, at};
use addr_space::{Advice, SegError, SegKind, SyncFlags};
use page_db::{FileOffset, Pfn, Prot, VirtRange};
use seg_drivers::{DeviceMemory, KmemArgs, SegDevArgs};
use segvm::machine::MemAdvice;
use std::sync::Arc;

fn told<T: std::fmt::Debug>(r: Result<T, SegError>) -> String {
    r.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |v| format!("{v:?}"))
}

fn range(addr: u64, pages: u64) -> VirtRange {
    VirtRange::exact(addr, pages * PAGE).unwrap()
}

/// A device of four pages; the last has no frame, which is refused when it is mapped, and the others' lie where this machine has no memory.
#[derive(Debug)]
struct Device;

impl DeviceMemory for Device {
    fn name(&self) -> String {
        "/dev/fb".to_owned()
    }
    fn pages(&self) -> u64 {
        4
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        (index < 3).then_some(Pfn(0x8_0000 + index))
    }
}

fn args() -> SegDevArgs {
    SegDevArgs {
        device: Arc::new(Device),
        offset: FileOffset(0),
        prot: Prot::RW,
        max_prot: Prot::RW,
        kind: SegKind::SHARED,
    }
}

fn device(g: &Ground, pages: u64, change: impl FnOnce(&mut SegDevArgs)) -> String {
    let mut args = args();
    change(&mut args);
    let mapped = g.p.space().map(g.cx(), range(at(40), pages), &args);
    mapped.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |()| "done".to_owned())
}

const DEVICE: &[Row] = &[
    row(
        "private",
        |g| device(g, 1, |a| a.kind = SegKind::empty()),
        "EINVAL: seg_dev: device memory can only be mapped shared at 0x100000028000..0x100000029000",
    ),
    row(
        "an offset off the page boundary",
        |g| device(g, 1, |a| a.offset = FileOffset(5)),
        "EINVAL: seg_dev: misaligned device offset at 0x100000028000..0x100000029000",
    ),
    row(
        "more rights than may be had",
        |g| device(g, 1, |a| a.max_prot = Prot::READ),
        "EACCES: 0x100000028000..0x100000029000 may not have that protection",
    ),
    row(
        "past the end",
        |g| device(g, 5, |_| ()),
        "ENXIO: seg_dev: the device has no page at offset 0x4000",
    ),
    row(
        "an offset of 2^63",
        |g| device(g, 1, |a| a.offset = FileOffset(HUGE)),
        "ENXIO: seg_dev: the device has no page at offset 0x8000000000000000",
    ),
    row(
        "an offset whose end wraps",
        |g| device(g, 2, |a| a.offset = FileOffset(MAX - 4095)),
        "ENXIO: seg_dev: the device has no page at offset 0xfffffffffffff000",
    ),
    row(
        "a page without a frame",
        |g| device(g, 4, |_| ()) + "; " + &died(g.p.load(at(40), &mut [0])),
        "ENXIO: seg_dev: the device has no page at offset 0x3000; SegvMapErr at 0x100000028000, after 0 bytes",
    ),
    row(
        "a frame without memory",
        |g| device(g, 3, |_| ()) + "; " + &died(g.p.store(at(40), &[1])),
        "done; BusAdrErr at 0x100000028000, after 0 bytes",
    ),
    row(
        "more rights, later",
        |g| device(g, 3, |a| a.max_prot = Prot::RW) + "; " + &said(g.p.mprotect(at(40), PAGE, 5)),
        "done; EACCES: 0x100000028000..0x100000029000 may not have that protection",
    ),
    row(
        "a store after the right is gone",
        |g| {
            device(g, 3, |_| ());
            g.p.mprotect(at(41), PAGE, R).unwrap();
            died(g.p.store(at(41), &[1]))
        },
        "SegvAccErr at 0x100000029000, after 0 bytes",
    ),
    row(
        "what only memory can do",
        |g| {
            device(g, 3, |_| ());
            let p = &g.p;
            [
                said(p.mlock(at(40), PAGE)),
                said(p.msync(at(40), PAGE, SyncFlags::INVALIDATE)),
                said(p.madvise(at(40), PAGE, MemAdvice::Use(Advice::Free))),
                said(p.madvise(at(40), PAGE, MemAdvice::InheritZero)),
                said(p.mincore(at(40), 2 * PAGE)),
            ]
            .join("; ")
        },
        "done; done; done; ENOTSUP: seg_dev does not support inherit; [1, 1]",
    ),
    row(
        "fork, cut the middle out, on both sides",
        |g| {
            device(g, 3, |_| ());
            let child = g.p.fork().unwrap();
            g.p.munmap(at(41), PAGE).unwrap();
            child.mprotect(at(40), 3 * PAGE, NONE).unwrap();
            let answer =
                died(child.load(at(41), &mut [0])) + "; " + &died(g.p.load(at(41), &mut [0]));
            child.exit();
            answer
        },
        "SegvAccErr at 0x100000029000, after 0 bytes; SegvMapErr at 0x100000029000, after 0 bytes",
    ),
];

fn alloc(g: &Ground, pages: u64) -> String {
    let got = g.m.kmem().alloc(&g.m.kernel_scx(), pages);
    let answer = told(got);
    if let Ok(range) = got {
        g.m.kmem().free(&g.m.kernel_scx(), range).unwrap();
    }
    answer
}

const HEAP: &[Row] = &[
    row(
        "no page",
        |g| alloc(g, 0),
        "EINVAL: seg_kmem: an allocation of no pages, or too many at 0xfffffe0000000000..0xfffffe8000000000",
    ),
    row(
        "2^63 pages",
        |g| alloc(g, HUGE),
        "EINVAL: seg_kmem: an allocation of no pages, or too many at 0xfffffe0000000000..0xfffffe8000000000",
    ),
    row(
        "as many as bytes that wrap to one page",
        |g| alloc(g, (1 << 52) + 1),
        "EINVAL: seg_kmem: an allocation of no pages, or too many at 0xfffffe0000000000..0xfffffe8000000000",
    ),
    row(
        "more than the window",
        |g| alloc(g, 1 << 40),
        "ENOMEM: no memory for 0xfffffe0000000000..0xfffffe8000000000",
    ),
    row(
        "more than memory; all of it is given back",
        |g| {
            let answer = alloc(g, 600);
            format!("{answer}; {} allocated", g.m.kmem().allocated(g.cx()))
        },
        "ENOMEM: no memory for 0xfffffe0000000000..0xfffffe0000258000; 0 allocated",
    ),
    row(
        "half of an allocation is freed, then all of it, twice",
        |g| {
            let scx = g.m.kernel_scx();
            let got = g.m.kmem().alloc(&scx, 4).unwrap();
            let half = range(got.start().get(), 2);
            [half, got, got].map(|r| told(g.m.kmem().free(&scx, r))).join("; ")
        },
        "EINVAL: seg_kmem: not one allocation at 0xfffffe0000000000..0xfffffe0000002000; (); EINVAL: seg_kmem: not one allocation at 0xfffffe0000000000..0xfffffe0000004000",
    ),
    row(
        "what is not the heap's is freed",
        |g| told(g.m.kmem().free(&g.m.kernel_scx(), range(KERNEL, 1))),
        "EINVAL: seg_kmem: not one allocation at 0xffff800000000000..0xffff800000001000",
    ),
    row(
        "the heap is mapped a second time",
        |g| {
            let again =
                g.m.kas().map(g.cx(), g.m.kmem().window(), &KmemArgs(Arc::clone(g.m.kmem())));
            format!("{again:?}")
        },
        "Err(Overlap { range: 0xfffffe0000000000..0xfffffe8000000000, with: 0xfffffe0000000000..0xfffffe8000000000 })",
    ),
    row(
        "the heap is mapped by a user",
        |g| {
            let heap = KmemArgs(Arc::clone(g.m.kmem()));
            let mapped = g.p.space().map(g.cx(), range(at(40), 1), &heap);
            mapped.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |()| "done".to_owned())
        },
        "EINVAL: seg_kmem: the segment must be the heap's whole window at 0x100000028000..0x100000029000",
    ),
    row(
        "rights of a page that is not allocated",
        |g| {
            let first = range(g.m.kmem().window().start().get(), 1);
            let changed = g.m.kas().set_prot(g.cx(), first, Prot::READ);
            changed.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |()| "done".to_owned())
        },
        "done",
    ),
    row(
        "a piece of the heap is unmapped",
        |g| {
            let first = range(g.m.kmem().window().start().get(), 1);
            let gone = g.m.kas().unmap(g.cx(), first);
            gone.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |()| "done".to_owned())
        },
        "ENOTSUP: seg_kmem does not support unmap",
    ),
    row(
        "a user's call on the heap",
        |g| {
            let first = range(g.m.kmem().window().start().get(), 1);
            let kas = g.m.kas();
            let answers = [
                kas.sync(g.cx(), first, SyncFlags::empty()),
                kas.lock(g.cx(), first),
                kas.advise(g.cx(), first, Advice::Free),
                kas.inherit_zero(g.cx(), first),
                kas.check_prot(g.cx(), first, Prot::READ),
            ];
            answers
                .map(|a| {
                    a.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |()| "done".into())
                })
                .join("; ")
        },
        "ENOTSUP: seg_kmem does not support sync; ENOTSUP: seg_kmem does not support lockop; ENOTSUP: seg_kmem does not support advise; ENOTSUP: seg_kmem does not support inherit; done",
    ),
];

#[test]
fn wrong_mappings_of_devices() {
    run(Ground::new, DEVICE);
}

#[test]
fn wrong_calls_of_the_kernels_heap() {
    run(Ground::new, HEAP);
}
