//! What there is not enough of: swap, frames, working devices.

use super::{Ground, Row, died, row, run, said};
use crate::world::{ANON, FIXED, NORESERVE, PAGE, PRIVATE, R, RW, SHARED, at, map};
use addr_space::Signal;
use page_db::errno::{EFAULT, ENOMEM};
use segvm::Machine;
use segvm::machine::{MapRequest, MemAdvice, STACK_TOP, SwapArea, SwapBacking};
use std::sync::Arc;
use swapfs::{FaultyDevice, MemDevice};

/// A machine with 32 pages of swap on a disk.
fn tight() -> Ground {
    let area = SwapArea { backing: SwapBacking::Memory, pages: 32, priority: 0 };
    Ground::on(Machine::builder().frames(240).swap(area).build().unwrap())
}

/// Pages that can still be promised to a process.
fn left(g: &Ground) -> u64 {
    let swap = g.m.swap();
    let (mut can, mut cannot) = (0, 1 << 20);
    while can + 1 < cannot {
        let pages = (can + cannot) / 2;
        if swap.take(pages).is_ok() { can = pages } else { cannot = pages }
    }
    can
}

/// Promises everything there is but `spare` pages.
fn promise_all(g: &Ground, spare: u64) {
    map(&g.p, 1000, left(g) - spare, RW, PRIVATE | ANON, None).unwrap();
}

const SWAP: &[Row] = &[
    row(
        "map more than there is",
        |g| said(map(&g.p, 1000, 1 << 20, RW, PRIVATE | ANON, None)),
        "EAGAIN: no swap to reserve 0x100000000 bytes for 0x1000003e8000..0x1001003e8000",
    ),
    row(
        "share more than there is",
        |g| said(map(&g.p, 1000, 1 << 20, RW, SHARED | ANON | NORESERVE, None)),
        "EAGAIN: no swap to reserve 0x100000000 bytes for 0x1000003e8000..0x1001003e8000",
    ),
    row(
        "map a page when everything is promised; what was there is gone",
        |g| {
            promise_all(g, 0);
            let answer = said(map(&g.p, 40, 1, RW, PRIVATE | ANON, None));
            format!("{answer}; {} pages left", left(g))
        },
        "EAGAIN: no swap to reserve 0x1000 bytes for 0x100000028000..0x100000029000; 0 pages left",
    ),
    row(
        "fork more than there is; there is no child",
        |g| {
            promise_all(g, 3);
            let answer = g.p.fork().map(|_| ());
            format!("{}; {} processes", said(answer), g.m.processes().len())
        },
        "ENOMEM: no swap to reserve 0x4000 bytes for 0x100000000000..0x100000004000; 1 processes",
    ),
    row(
        "a file's private pages are to be stored into",
        |g| {
            map(&g.p, 40, 3, R, PRIVATE, Some(&g.rw)).unwrap();
            promise_all(g, 2);
            let answer = said(g.p.mprotect(at(40), 3 * PAGE, RW));
            format!("{answer}; {}", died(g.p.store(at(40), &[1])))
        },
        "EAGAIN: no swap to reserve 0x3000 bytes for 0x100000028000..0x10000002b000; \
         SegvAccErr at 0x100000028000, after 0 bytes",
    ),
    row(
        "the break moves",
        |g| {
            promise_all(g, 0);
            said(g.p.brk(g.p.heap().0 + 1))
        },
        "ENOMEM: no swap to reserve 0x1000 bytes for 0x600000000000..0x600000001000",
    ),
    row(
        "the stack grows",
        |g| {
            promise_all(g, 0);
            said(g.p.grow_stack(STACK_TOP - 1))
        },
        "EAGAIN: no swap to reserve 0x1000 bytes for 0x7fffeffff000..0x7ffff0000000",
    ),
    row(
        "an unreserved page is touched",
        |g| {
            map(&g.p, 40, 4, RW, PRIVATE | ANON | NORESERVE, None).unwrap();
            promise_all(g, 1);
            died(g.p.store(at(40), &[1; 5000]))
        },
        "BusObjErr(12) at 0x100000029000, after 4096 bytes",
    ),
    row(
        "an unreserved page of a file is copied",
        |g| {
            map(&g.p, 40, 2, RW, PRIVATE | NORESERVE, Some(&g.rw)).unwrap();
            promise_all(g, 0);
            died(g.p.store(at(40), &[1]))
        },
        "BusObjErr(12) at 0x100000028000, after 0 bytes",
    ),
    row(
        "an unreserved page is loaded from",
        |g| {
            map(&g.p, 40, 1, RW, PRIVATE | ANON | NORESERVE, None).unwrap();
            promise_all(g, 0);
            died(g.p.load(at(40), &mut [0]))
        },
        "BusObjErr(12) at 0x100000028000, after 0 bytes",
    ),
    row(
        "a disk is taken away that is needed",
        |g| {
            promise_all(g, 0);
            let area = g.m.swap().list()[0].id;
            match g.m.swap_del(area) {
                Ok(()) => "done".to_owned(),
                Err(e) => format!("{}: {e}", super::errno(e.errno())),
            }
        },
        "ENOMEM: swap area 1 (32 pages) backs reservations that 61 pages of availrmem cannot take \
         over",
    ),
];

/// A machine whose only disk fails when told to, and the disk.
fn faulty(pages: u64) -> (Ground, Arc<FaultyDevice>) {
    let g = Ground::on(Machine::builder().frames(240).no_swap().build().unwrap());
    let device = Arc::new(FaultyDevice::new(Arc::new(MemDevice::new("/dev/faulty", pages))));
    g.m.swap().add(g.cx(), Arc::clone(&device) as _, 0, pages, 0).unwrap();
    (g, device)
}

/// Takes the frames of pages that are on the disk as well, so that they must be read.
fn forget_stored(g: &Ground) {
    let (db, swap) = (g.m.db(), g.m.swap());
    for n in swap.live_numbers().filter(|n| swap.slot(g.cx(), *n).is_some()) {
        if let Some(page) = db.lookup_excl(g.cx(), swap.identity(n)) {
            db.destroy(g.cx(), page);
        }
    }
}

fn settled(g: &Ground) {
    g.m.verify().unwrap();
    g.p.exit();
    g.m.verify().unwrap();
    assert_eq!(g.m.swap().live(), 0, "law 3");
}

/// The page that could not be read is lost for good, and the others are not.
#[test]
fn a_swap_page_that_cannot_be_read() {
    let (g, disk) = faulty(64);
    g.p.store(at(1), b"other").unwrap();
    g.m.pageout_all();
    forget_stored(&g);
    disk.fail_read(1);
    let lost = "BusObjErr(5) at 0x100000000000, after 0 bytes";
    assert_eq!(died(g.p.load(at(0), &mut [0; 5])), lost);
    g.m.verify().unwrap();
    disk.heal();
    assert_eq!(died(g.p.load(at(0), &mut [0; 5])), lost, "the device is not asked again");
    assert_eq!(died(g.p.store(at(0), b"new")), lost);
    let mut other = [0; 5];
    g.p.load(at(1), &mut other).unwrap();
    assert_eq!(&other, b"other");
    let child = g.p.fork().unwrap();
    assert_eq!(died(child.load(at(0), &mut [0; 5])), lost, "nor is it found by a child");
    child.exit();
    settled(&g);
}

/// What cannot be written stays in memory, modified, and goes out another time.
#[test]
fn a_swap_device_that_cannot_be_written() {
    let (g, disk) = faulty(64);
    (0..4).for_each(|page| g.p.store(at(page), b"kept ").unwrap());
    (1..=8).for_each(|n| disk.fail_write(n));
    g.m.pageout_all();
    g.m.verify().unwrap();
    let stored = || g.m.swap().verify(g.cx()).unwrap().stored;
    assert_eq!(stored(), 0, "nothing is said to be stored");
    for page in 0..4 {
        let mut bytes = [0; 5];
        g.p.load(at(page), &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept ");
    }
    disk.heal();
    g.m.pageout_all();
    assert_eq!(stored(), 4);
    settled(&g);
}

/// A full disk: pages that find no slot stay.
#[test]
fn a_swap_device_that_is_full() {
    let (g, _disk) = faulty(2);
    (0..4).for_each(|page| g.p.store(at(page), b"alive").unwrap());
    g.m.pageout_all();
    g.m.verify().unwrap();
    assert_eq!(g.m.swap().verify(g.cx()).unwrap().stored, 2);
    for page in 0..4 {
        let mut bytes = [0; 5];
        g.p.load(at(page), &mut bytes).unwrap();
        assert_eq!(&bytes, b"alive");
    }
    settled(&g);
}

/// No frame, and nothing to take one from: what is in memory cannot be written out.
#[test]
fn no_frame_is_left() {
    let (g, disk) = faulty(256);
    map(&g.p, 40, 200, RW, PRIVATE | ANON, None).unwrap();
    (0..256).for_each(|page| disk.break_page(page));
    let taken = g.m.squeeze(100);
    let fails = (40..240).find_map(|page| g.p.store(at(page), b"x").err());
    let fails = fails.expect("there are fewer frames than pages");
    assert_eq!(fails.signal, Signal::BusObjErr(12), "{taken} frames taken");
    g.m.verify().unwrap();
    // Whatever else is asked for gets the frame of a page table that can be spared, or says that there is none; where the kernel reaches for
    // the user's memory, as the user would.
    let answers = [
        g.m.spawn("q").map(|q| q.exit()),
        g.p.fork().map(|child| child.exit()),
        g.p.mlock(fails.addr, PAGE),
        g.p.pread(&g.rw, 0, at(0), 8).map(drop),
        g.p.grow_stack(STACK_TOP - 1),
        g.p.madvise(at(16), PAGE, MemAdvice::WillNeed),
    ];
    for answer in answers {
        assert!(
            answer.as_ref().map_or_else(|e| [ENOMEM, EFAULT].contains(&e.errno), |()| true),
            "{answer:?}"
        );
    }
    g.m.verify().unwrap();
    assert_eq!(g.m.release(), taken);
    g.p.store(fails.addr, b"x").unwrap();
    for page in 40..=(fails.addr - at(0)) / PAGE {
        assert_eq!(g.p.load_u8(at(page)).unwrap(), b'x', "page {page}");
    }
    settled(&g);
}

/// A machine too small for anything says so.
#[test]
fn machines_that_cannot_be() {
    let table = [0, 1, 2, 3, 8].map(|frames| match Machine::builder().frames(frames).build() {
        Ok(m) => {
            let done = match m.spawn("p") {
                Ok(p) => died(p.store(p.map_anon(PAGE).unwrap(), b"x")),
                Err(e) => format!("no process: {}", super::errno(e.errno)),
            };
            m.verify().unwrap();
            format!("{frames}: {done}")
        }
        Err(e) => format!("{frames}: {e}"),
    });
    assert_eq!(
        table,
        [
            "0: no host memory for 0 frames",
            "1: cannot make the kernel's page tables: no memory for a page table at \
             0xfffffe0000000000",
            "2: no process: ENOMEM",
            "3: BusObjErr(12) at 0x7fffef5ff000, after 0 bytes",
            "8: done",
        ]
    );
    let area = |path: &str, pages| SwapArea {
        backing: SwapBacking::File(path.into()),
        pages,
        priority: 0,
    };
    let made = Machine::builder().frames(128).swap(area("/nowhere/at/all", 8)).build();
    assert_eq!(
        made.unwrap_err().to_string(),
        "swap on `/nowhere/at/all`: open at page 0 failed (errno 2)"
    );
}

#[test]
fn wrong_promises() {
    run(tight, SWAP);
}

/// A fixed mapping that fails for want of swap has removed what was there (illumos as well).
#[test]
fn a_failed_replacement_has_removed_what_was_there() {
    let g = tight();
    promise_all(&g, 0);
    let request = MapRequest {
        addr: at(8),
        len: 1 << 30,
        prot: RW,
        flags: PRIVATE | ANON | FIXED,
        file: None,
        offset: 0,
    };
    assert_eq!(
        said(g.p.mmap(&request)),
        "EAGAIN: no swap to reserve 0x40000000 bytes for 0x100000008000..0x100040008000"
    );
    assert_eq!(died(g.p.load(at(16), &mut [0])), "SegvMapErr at 0x100000010000, after 0 bytes");
    g.m.verify().unwrap();
}
