//! Each row of the table, with both answers.

use super::super::{Limit, Machine, MapFlags, MapRequest, MemAdvice, Process, STACK_TOP};
use super::*;
use crate::files::{FileHandle, OpenMode};
use addr_space::{Advice, LockAll, SyncFlags};
use page_db::PAGE_SIZE as P;
use page_db::errno::{
    EACCES, EAGAIN, EBUSY, EEXIST, EFAULT, EINVAL, ENOMEM, ENOTSUP, ENXIO, EOVERFLOW,
};

const AT: u64 = 0x1000_0000;
const OK: i32 = 0;
const MAX: u64 = u64::MAX;

/// Two pages of private memory, a hole of two pages, two pages of private memory; a file of one page and a bit, mapped private at page 8 and shared at
/// page 12, three pages each.
struct Ground {
    p: Process,
    file: FileHandle,
}

fn ground(personality: Personality) -> Ground {
    let m = Machine::builder().frames(512).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    p.set_personality(personality);
    let file = FileHandle::new(m.create_file("f", P + 100).expect("a file"), OpenMode::ReadWrite);
    let g = Ground { p, file };
    for page in [0, 4] {
        g.map(page, 2, 3, MapFlags::PRIVATE | MapFlags::ANON, None).expect("room");
        g.p.store(at(page), b"old").expect("mapped");
    }
    g.map(8, 3, 3, MapFlags::PRIVATE, Some(&g.file)).expect("room");
    g.map(12, 3, 3, MapFlags::SHARED, Some(&g.file)).expect("room");
    g
}

fn at(page: u64) -> u64 {
    AT + page * P
}

impl Ground {
    fn map(
        &self,
        page: u64,
        pages: u64,
        prot: u32,
        flags: MapFlags,
        file: Option<&FileHandle>,
    ) -> Result<u64, SysError> {
        let flags = flags | MapFlags::FIXED;
        self.p.mmap(&MapRequest { addr: at(page), len: pages * P, prot, flags, file, offset: 0 })
    }
    fn byte(&self, page: u64) -> u8 {
        self.p.load_u8(at(page)).expect("mapped")
    }
    /// Pages that are locked, of the first twenty-four that are mapped.
    fn locked(&self) -> Vec<u64> {
        let is = |page: &u64| {
            let mut bytes = Vec::new();
            let _ = self.p.mincore_into(at(*page), P, &mut bytes);
            bytes.first().is_some_and(|b| b & 2 != 0)
        };
        (0..24).filter(is).collect()
    }
}

fn number<T>(r: Result<T, SysError>) -> i32 {
    r.map_or_else(|e| e.errno, |_| OK)
}

/// Asks under both personalities, and wants illumos's answer and Linux's.
#[track_caller]
fn row<T: PartialEq + std::fmt::Debug>(what: &str, ask: impl Fn(&Ground) -> T, want: [T; 2]) {
    for (personality, want) in [Personality::Illumos, Personality::Linux].into_iter().zip(want) {
        let g = ground(personality);
        assert_eq!(ask(&g), want, "{what}, {personality:?}");
        g.p.machine().verify().unwrap_or_else(|v| panic!("after {what}: {v}"));
    }
}

const RANDOM: MemAdvice = MemAdvice::Use(Advice::Random);
const FREE: MemAdvice = MemAdvice::Use(Advice::Free);
const UNPROMISED: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANON).union(MapFlags::NORESERVE);

#[test]
fn r01_a_length_of_0() {
    row("protect", |g| number(g.p.mprotect(at(0), 0, 1)), [EINVAL, OK]);
    row("sync", |g| number(g.p.msync(at(0), 0, SyncFlags::SYNC)), [EINVAL, OK]);
    row("advise", |g| number(g.p.madvise(at(0), 0, RANDOM)), [EINVAL, OK]);
    row("incore", |g| number(g.p.mincore(at(0), 0)), [EINVAL, OK]);
    row("lock", |g| number(g.p.mlock(at(0), 0)), [EINVAL, OK]);
    row("protect off the page", |g| number(g.p.mprotect(at(0) + 1, 0, 1)), [EINVAL, EINVAL]);
}

#[test]
fn r02_a_lock_that_begins_within_a_page() {
    row(
        "lock",
        |g| (number(g.p.mlock(at(0) + 5, P)), g.locked()),
        [(EINVAL, vec![]), (OK, vec![0, 1])],
    );
    row("unlock", |g| number(g.p.munlock(at(1) + 5, 1)), [EINVAL, OK]);
}

#[test]
fn r05_an_advice_over_a_hole() {
    let ask = |g: &Ground| {
        let done = number(g.p.madvise(at(0), 6 * P, MemAdvice::DontFork));
        let child = g.p.fork().expect("memory");
        (done, child.load_u8(at(0)).is_ok(), child.load_u8(at(4)).is_ok())
    };
    row("leave out", ask, [(ENOMEM, false, true), (ENOMEM, false, false)]);
}

#[test]
fn r06_writing_back_over_a_hole() {
    let drop = SyncFlags::SYNC | SyncFlags::INVALIDATE;
    let ask = |g: &Ground| {
        g.p.mlock(at(4), P).expect("may");
        number(g.p.msync(at(0), 6 * P, drop))
    };
    row("a lock behind it", ask, [ENOMEM, EBUSY]);
    let start = |g: &Ground| {
        g.p.mlock(at(4), P).expect("may");
        number(g.p.msync(at(0), 6 * P, SyncFlags::ASYNC))
    };
    row("only to be started", start, [ENOMEM, ENOMEM]);
}

#[test]
fn r07_a_lock_over_a_hole() {
    row(
        "lock",
        |g| (number(g.p.mlock(at(0), 6 * P)), g.locked()),
        [(ENOMEM, vec![]), (ENOMEM, vec![0, 1])],
    );
}

#[test]
fn r08_a_lock_without_access() {
    let ask = |g: &Ground| {
        g.p.mprotect(at(0), 2 * P, 0).expect("mapped");
        (number(g.p.mlock(at(0), 2 * P)), g.locked())
    };
    row("lock", ask, [(OK, vec![0, 1]), (ENOMEM, vec![0, 1])]);
}

#[test]
fn r09_a_lock_past_the_end_of_a_file() {
    row("lock", |g| number(g.p.mlock(at(12), 3 * P)), [OK, ENOMEM]);
}

#[test]
fn r10_a_lock_of_a_private_file() {
    let ask = |g: &Ground| {
        g.p.mlock(at(8), P).expect("may");
        g.file.vnode.pwrite(g.p.cx(), g.p.machine().db(), 0, b"new").expect("room");
        g.byte(8)
    };
    row("lock, then write to the file", ask, [b'n', 0]);
    let write = |g: &Ground| {
        g.file.vnode.pwrite(g.p.cx(), g.p.machine().db(), 0, b"new").expect("room");
    };
    let all = |g: &Ground| {
        g.p.mlockall(LockAll::CURRENT).expect("may");
        write(g);
        g.byte(8)
    };
    row("lock all, then write to the file", all, [b'n', 0]);
    for flag in [MapFlags::POPULATE, MapFlags::LOCKED] {
        let mapped = |g: &Ground| {
            g.map(20, 1, 3, MapFlags::PRIVATE | flag, Some(&g.file)).expect("room");
            g.map(22, 1, 1, MapFlags::PRIVATE | flag, Some(&g.file)).expect("room");
            write(g);
            (g.byte(20), g.byte(22))
        };
        row("map, then write to the file", mapped, [(b'n', b'n'), (0, b'n')]);
    }
    let future = |g: &Ground| {
        g.p.mlockall(LockAll::FUTURE).expect("may");
        g.map(20, 1, 3, MapFlags::PRIVATE, Some(&g.file)).expect("room");
        write(g);
        (g.byte(20), g.byte(8))
    };
    row("map where all is to be locked, then write to the file", future, [(b'n', b'n'), (0, b'n')]);
}

#[test]
fn r11_a_lock_over_the_limit() {
    let ask = |g: &Ground| {
        g.p.set_limit(Limit::Memlock, P);
        number(g.p.mlock(at(0), 2 * P))
    };
    row("lock", ask, [EAGAIN, ENOMEM]);
}

/// Linux compares lengths with the limit before it locks anything: what nobody has touched, and what is not mapped, counts.
#[test]
fn r11_the_limit_is_asked_first() {
    const UNPROMISED: MapFlags = MapFlags::PRIVATE.union(MapFlags::ANON).union(MapFlags::NORESERVE);
    const LIMIT: u64 = 4 * P;
    fn limited(g: &Ground) {
        g.map(20, 4, 3, UNPROMISED, None).expect("room");
        g.p.mlock(at(0), 2 * P).expect("may");
        g.p.set_limit(Limit::Memlock, LIMIT);
    }
    let lock = |range: (u64, u64)| {
        move |g: &Ground| {
            limited(g);
            (number(g.p.mlock(at(range.0), range.1 * P)), g.locked().len())
        }
    };
    // What is locked already counts once. illumos counts what is mapped, driver by driver, as it gets there; a hole is seen first.
    row("what is locked, and a hole", lock((0, 4)), [(ENOMEM, 2), (ENOMEM, 2)]);
    row("two more and a hole of two", lock((4, 4)), [(ENOMEM, 2), (ENOMEM, 2)]);
    row("one more and a hole of one", lock((5, 2)), [(ENOMEM, 2), (ENOMEM, 3)]);
    row("two more of four", lock((4, 2)), [(OK, 4), (OK, 4)]);
    row("three more", lock((8, 3)), [(EAGAIN, 2), (ENOMEM, 2)]);
    row("what nobody touched", lock((20, 3)), [(EAGAIN, 2), (ENOMEM, 2)]);
    row("of that what may be", lock((20, 2)), [(OK, 2), (OK, 4)]);
    let all = |what| {
        move |g: &Ground| {
            limited(g);
            (number(g.p.mlockall(what)), g.locked().len(), g.p.space().state().lock_future())
        }
    };
    let both = LockAll::CURRENT | LockAll::FUTURE;
    row("all of now and later", all(both), [(EAGAIN, 2, true), (ENOMEM, 2, false)]);
    let with_a_stack = |g: &Ground| {
        g.p.grow_stack(STACK_TOP - P).expect("room");
        g.p.set_limit(Limit::Memlock, 20 * P);
        number(g.p.mlockall(LockAll::CURRENT))
    };
    row("a stack's guard is not memory", with_a_stack, [OK, OK]);
    row("all of later", all(LockAll::FUTURE), [(OK, 2, true), (OK, 2, true)]);
    let map = |future: bool, flags, pages| {
        move |g: &Ground| {
            limited(g);
            if future {
                g.p.mlockall(LockAll::FUTURE).expect("may");
            }
            let made = number(g.map(4, pages, 3, UNPROMISED | flags, None).map(drop));
            (made, g.locked().len(), g.p.load_u8(at(4)).ok())
        }
    };
    let none = MapFlags::empty();
    row(
        "map three locked",
        map(false, MapFlags::LOCKED, 3),
        [(EAGAIN, 2, None), (EAGAIN, 2, Some(b'o'))],
    );
    row("map three for later", map(true, none, 3), [(EAGAIN, 2, None), (EAGAIN, 2, Some(b'o'))]);
    row("map two for later", map(true, none, 2), [(OK, 2, Some(0)), (OK, 4, Some(0))]);
}

#[test]
fn r12_private_memory_that_is_not_needed() {
    let ask = |g: &Ground| {
        g.p.madvise(at(0), 2 * P, MemAdvice::DontNeed).expect("mapped");
        g.byte(0)
    };
    row("dontneed", ask, [b'o', 0]);
}

#[test]
fn r13_copies_of_a_file_that_are_not_needed() {
    let ask = |g: &Ground| {
        g.p.store(at(8), b"mine").expect("mapped");
        g.p.madvise(at(8), P, MemAdvice::DontNeed).expect("mapped");
        g.byte(8)
    };
    row("dontneed", ask, [b'm', 0]);
}

#[test]
fn r14_locked_memory_that_is_not_needed() {
    let ask = |g: &Ground| {
        g.p.mlock(at(1), P).expect("may");
        number(g.p.madvise(at(0), 2 * P, MemAdvice::DontNeed))
    };
    row("dontneed", ask, [EBUSY, EINVAL]);
}

/// Whoever locks memory that is promised to nobody keeps it: its contents are not thrown away.
#[test]
fn r14_locked_memory_that_was_promised_to_nobody() {
    type Lock = fn(&Ground);
    fn map(g: &Ground, flags: MapFlags) {
        g.map(20, 2, 3, UNPROMISED | flags, None).expect("room");
    }
    let ways: [(&str, Lock); 5] = [
        ("lock", |g| {
            map(g, MapFlags::empty());
            g.p.mlock(at(20), 2 * P).expect("may");
        }),
        ("lock over a hole", |g| {
            map(g, MapFlags::empty());
            assert_eq!(number(g.p.mlock(at(20), 3 * P)), ENOMEM);
        }),
        ("map locked", |g| map(g, MapFlags::LOCKED)),
        ("lock all", |g| {
            map(g, MapFlags::empty());
            g.p.mlockall(LockAll::CURRENT).expect("may");
        }),
        ("lock all that will be", |g| {
            g.p.mlockall(LockAll::FUTURE).expect("may");
            map(g, MapFlags::empty());
        }),
    ];
    for (what, lock) in ways {
        let g = ground(Personality::Linux);
        lock(&g);
        g.p.store(at(20), b"kept").expect("mapped");
        let drop = SyncFlags::SYNC | SyncFlags::INVALIDATE;
        assert_eq!(number(g.p.msync(at(20), P, drop)), EBUSY, "{what}");
        assert_eq!(number(g.p.madvise(at(20), 2 * P, MemAdvice::DontNeed)), EINVAL, "{what}");
        assert_eq!((g.byte(20), g.byte(21)), (b'k', 0), "{what}");
        g.p.machine().verify().unwrap_or_else(|v| panic!("after {what}: {v}"));
    }
    let over = |g: &Ground| {
        g.p.set_limit(Limit::Memlock, P);
        let flags = UNPROMISED | MapFlags::LOCKED;
        (number(g.map(20, 2, 3, flags, None)), g.p.load_u8(at(20)).is_ok())
    };
    row("more than the limit", over, [(EAGAIN, false); 2]);
}

/// What cannot be had now, without a right to it, does not keep the pages above from being brought in and locked.
#[test]
fn r10_locking_everything_goes_on_behind_pages_without_rights() {
    let ask = |g: &Ground| {
        g.map(20, 4, 3, UNPROMISED, None).expect("room");
        g.p.mprotect(at(21), P, 0).expect("mapped");
        g.p.mlockall(LockAll::CURRENT).expect("may");
        [20, 21, 22, 23].map(|page| g.p.mincore(at(page), P).expect("mapped")[0] & 3)
    };
    row("in memory, and locked", ask, [[0, 0, 0, 0], [3, 0, 3, 3]]);
}

#[test]
fn populating_stops_at_a_hole() {
    let ask = |g: &Ground| {
        g.map(20, 3, 3, MapFlags::PRIVATE | MapFlags::ANON, None).expect("room");
        g.p.munmap(at(21), P).expect("mapped");
        let done = number(g.p.madvise(at(20), 3 * P, MemAdvice::Populate(Access::Write)));
        let there = |page| g.p.mincore(at(page), P).map(|b| b[0] & 1).map_err(|e| e.errno);
        (done, there(20), there(22))
    };
    row("populate for stores", ask, [(ENOMEM, Ok(1), Ok(0)); 2]);
}

#[test]
fn r15_freeing_what_is_not_private_memory() {
    row("a file", |g| number(g.p.madvise(at(8), P, FREE)), [OK, EINVAL]);
    row("shared", |g| number(g.p.madvise(at(12), P, FREE)), [OK, EINVAL]);
    row("private memory", |g| number(g.p.madvise(at(0), 2 * P, FREE)), [OK, OK]);
    let locked = |g: &Ground| {
        g.p.mlock(at(1), P).expect("may");
        let anons = || g.p.machine().counters().get(page_db::Counter::MadvFreeHit);
        let before = anons();
        (number(g.p.madvise(at(0), 2 * P, FREE)), anons() - before)
    };
    row("locked memory behind other", locked, [(OK, 1), (EINVAL, 1)]);
}

#[test]
fn r19_past_the_end_of_a_file() {
    let ask = |g: &Ground| g.p.load_u8(at(14)).map_err(|e| e.signal);
    row("touch", ask, [Err(Signal::BusObjErr(EFAULT)), Err(Signal::BusAdrErr)]);
}

#[test]
fn r20_writing_back_unasked() {
    let ask = |g: &Ground| {
        g.p.store(at(12), b"new").expect("mapped");
        let done = number(g.p.msync(at(12), P, SyncFlags::empty()));
        let at = VirtAddr::new(at(12)).expect("user");
        let mapped = g.p.space().hat().probe(g.p.cx(), at).map(|have| have.ref_mod);
        let dirty = mapped.is_some_and(|rm| rm.contains(page_db::RefMod::MOD));
        (done, dirty)
    };
    row("no flag", ask, [(OK, false), (OK, true)]);
    row(
        "no flag, a hole",
        |g| number(g.p.msync(at(0), 3 * P, SyncFlags::empty())),
        [ENOMEM, ENOMEM],
    );
}

#[test]
fn r22_to_r24_lengths_that_wrap() {
    row("sync", |g| number(g.p.msync(at(0), MAX, SyncFlags::SYNC)), [ENOMEM, OK]);
    row(
        "sync, a page less",
        |g| number(g.p.msync(at(0), MAX - P, SyncFlags::SYNC)),
        [ENOMEM, ENOMEM],
    );
    row("advise", |g| number(g.p.madvise(at(0), MAX, RANDOM)), [ENOMEM, EINVAL]);
    row("advise, over the top", |g| number(g.p.madvise(at(0), MAX - P, RANDOM)), [ENOMEM, EINVAL]);
    row("advise, the kernel's", |g| number(g.p.madvise(1 << 63, P, RANDOM)), [ENOMEM, ENOMEM]);
    row("incore", |g| number(g.p.mincore(at(0), 1 << 63)), [EINVAL, ENOMEM]);
}

#[test]
fn locks_that_wrap() {
    row("lock", |g| number(g.p.mlock(at(0), MAX)), [ENOMEM, OK]);
    row("lock, a page less", |g| number(g.p.mlock(at(0), MAX - P)), [ENOMEM, EINVAL]);
    row("unlock, a page less", |g| number(g.p.munlock(at(0), MAX - P)), [ENOMEM, EINVAL]);
    let none = |g: &Ground| (number(g.p.mlock(at(1) + 5, 0)), g.locked());
    row("nothing, within a page", none, [(EINVAL, vec![]), (OK, vec![1])]);
}

#[test]
fn asking_for_what_cannot_be_had() {
    let past = |g: &Ground| number(g.p.madvise(at(8), 3 * P, MemAdvice::WillNeed));
    row("past the end of a file", past, [EFAULT, OK]);
    let hole = |g: &Ground| number(g.p.madvise(at(8), 4 * P, MemAdvice::WillNeed));
    row("past the end, and a hole", hole, [EFAULT, ENOMEM]);
}

#[test]
fn r26_a_file_shared_and_private() {
    let both = MapFlags::PRIVATE | MapFlags::SHARED;
    row("a file", |g| number(g.map(20, 1, 3, both, Some(&g.file))), [EINVAL, OK]);
    row("memory", |g| number(g.map(20, 1, 3, both | MapFlags::ANON, None)), [EINVAL, EINVAL]);
    let g = ground(Personality::Linux);
    g.map(20, 1, 3, both, Some(&g.file)).expect("shared");
    g.p.store(at(20), b"seen").expect("mapped");
    assert_eq!(g.byte(12), b's');
}

#[test]
fn r27_unknown_bits_of_protection() {
    let anon = MapFlags::PRIVATE | MapFlags::ANON;
    row("map", |g| number(g.map(20, 1, 1 | 1 << 30, anon, None)), [ENOTSUP, OK]);
    row("protect", |g| number(g.p.mprotect(at(0), P, 1 | 1 << 30)), [ENOTSUP, EINVAL]);
}

#[test]
fn r28_memory_with_a_descriptor() {
    let anon = MapFlags::PRIVATE | MapFlags::ANON;
    let ask = |g: &Ground| {
        g.file.vnode.pwrite(g.p.cx(), g.p.machine().db(), 0, b"file").expect("room");
        (number(g.map(20, 1, 3, anon, Some(&g.file))), g.p.load_u8(at(20)).ok())
    };
    row("map", ask, [(EINVAL, None), (OK, Some(0))]);
}

#[test]
fn r31_a_negative_offset() {
    let ask = |g: &Ground| {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let file = Some(&g.file);
        let request = MapRequest { addr: at(20), len: P, prot: 1, flags, file, offset: 1 << 63 };
        number(g.p.mmap(&request))
    };
    row("map", ask, [ENXIO, EOVERFLOW]);
    let unreadable = |g: &Ground| {
        let file = FileHandle::new(g.file.vnode.clone(), OpenMode::WriteOnly);
        let (flags, file) = (MapFlags::PRIVATE | MapFlags::FIXED, Some(&file));
        let offset = i64::MAX as u64 & !(P - 1);
        let request = MapRequest { addr: at(20), len: P, prot: 1, flags, file, offset };
        number(g.p.mmap(&request))
    };
    row("map, without the right", unreadable, [EOVERFLOW, EOVERFLOW]);
}

#[test]
fn several_wrong_arguments_of_a_mapping() {
    const OUTSIDE: u64 = 0xffff_8000_0000_0000;
    let fixed = MapFlags::FIXED;
    let (anon, private, shared) = (fixed | MapFlags::ANON, MapFlags::PRIVATE, MapFlags::SHARED);
    let map = |g: &Ground, addr, flags: MapFlags, prot, offset| {
        let file = FileHandle::new(g.file.vnode.clone(), OpenMode::ReadOnly);
        let file = (!flags.contains(MapFlags::ANON)).then_some(&file);
        number(g.p.mmap(&MapRequest { addr, len: P, prot, flags, file, offset }))
    };
    row("no kind, outside", |g| map(g, OUTSIDE, anon, 3, 0), [EINVAL, ENOMEM]);
    let off_page = |g: &Ground| map(g, OUTSIDE + 1, anon | private, 3, 0);
    row("off a page, outside", off_page, [EINVAL, ENOMEM]);
    row("no right, outside", |g| map(g, OUTSIDE, fixed | shared, 3, 0), [EACCES, ENOMEM]);
    row("no right, off a page", |g| map(g, at(20) + 1, fixed | shared, 3, 0), [EACCES, EINVAL]);
    let negative = |g: &Ground| map(g, at(20), fixed | shared, 3, 1 << 63);
    row("no right, a negative offset", negative, [ENXIO, EOVERFLOW]);
    let unknown = |g: &Ground| map(g, OUTSIDE, anon | private, 1 | 1 << 30, 0);
    row("an unknown right, outside", unknown, [ENOTSUP, ENOMEM]);
    let taken = |g: &Ground| map(g, at(0), anon | MapFlags::EXCL, 3, 0);
    row("no kind, taken", taken, [EINVAL, EEXIST]);
    for len in [1 << 63, MAX] {
        let long = |g: &Ground| {
            let (flags, file) = (fixed | private, Some(&g.file));
            number(g.p.mmap(&MapRequest { addr: at(20), len, prot: 1, flags, file, offset: P }))
        };
        row("longer than offsets are", long, [ENOMEM, ENOMEM]);
    }
}

#[test]
fn r32_a_transfer_that_meets_a_hole() {
    let read = |g: &Ground| g.p.pread(&g.file, 0, at(1), P + 50).map_err(|e| e.errno);
    row("read", read, [Err(EFAULT), Ok(P)]);
    let write = |g: &Ground| g.p.pwrite(&g.file, 0, at(1), P + 50).map_err(|e| e.errno);
    row("write", write, [Err(EFAULT), Ok(P)]);
    let none = |g: &Ground| g.p.pread(&g.file, 0, at(2), 50).map_err(|e| e.errno);
    row("the first byte", none, [Err(EFAULT), Err(EFAULT)]);
}

#[test]
fn r33_the_break_beside_a_mapping() {
    let ask = |g: &Ground| {
        let base = g.p.heap().0;
        let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
        let addr = base + 4 * P;
        let request = MapRequest { addr, len: P, prot: 3, flags, file: None, offset: 0 };
        g.p.mmap(&request).expect("room");
        [3, 4].map(|pages| number(g.p.brk(base + pages * P)))
    };
    row("brk", ask, [[OK, OK], [OK, ENOMEM]]);
}

/// Where more than the call would have to know, everybody gets illumos's answer.
#[test]
fn r17_r29_r30_are_answered_by_the_core() {
    let cut = |g: &Ground| {
        g.p.store(at(9), b"mine").expect("mapped");
        g.file.vnode.truncate(g.p.cx(), g.p.machine().db(), P).expect("smaller");
        g.byte(9)
    };
    row("17, cut below a copy", cut, [b'm'; 2]);
    let late = |g: &Ground| {
        g.p.set_limit(Limit::Vmem, 3 * P);
        let anon = MapFlags::PRIVATE | MapFlags::ANON;
        (number(g.map(0, 2, 3, anon, None)), g.p.load_u8(at(0)).is_ok())
    };
    row("29, a fixed mapping over the limit", late, [(ENOMEM, false); 2]);
    let much = |g: &Ground| {
        let anon = MapFlags::PRIVATE | MapFlags::ANON;
        [anon, anon | MapFlags::NORESERVE].map(|flags| number(g.map(20, 1 << 20, 3, flags, None)))
    };
    row("30, more memory than there is", much, [[EAGAIN, OK]; 2]);
}

#[test]
fn a_child_has_its_parents_personality() {
    let g = ground(Personality::Linux);
    assert_eq!(g.p.fork().expect("memory").personality(), Personality::Linux);
    assert_eq!(g.p.vfork().expect("memory").personality(), Personality::Linux);
    g.p.set_personality(Personality::Illumos);
    assert_eq!(number(g.p.madvise(at(0), 0, RANDOM)), EINVAL);
}
