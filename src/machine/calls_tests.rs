//! The system calls: a table of wrong calls, and what right ones do.

use super::*;
use crate::files::{FileHandle, OpenMode};
use addr_space::{Advice, LockAll, Signal, SyncFlags};
use page_db::errno::*;
use page_db::{CpuId, PAGE_SIZE};

const P: u64 = PAGE_SIZE;
const AT: u64 = 0x1000_0000;
const TOP: u64 = USER_TOP;
/// Inside the non-canonical hole.
const HOLE: u64 = 0x8000_0000_0000;
const KERN: u64 = 0xffff_8000_0000_0000;

fn machine() -> Machine {
    Machine::builder().frames(512).build().expect("a machine")
}

/// A process with eight pages at [`AT`], a hole above them.
fn process() -> Process {
    let p = machine().spawn("p").expect("a process");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let request = MapRequest { addr: AT, len: 8 * P, prot: 3, flags, file: None, offset: 0 };
    assert_eq!(p.mmap(&request), Ok(AT));
    p
}

fn file(p: &Process, size: u64, mode: OpenMode) -> FileHandle {
    FileHandle::new(p.machine().create_file("f", size).expect("a file"), mode)
}

#[track_caller]
fn check<T: std::fmt::Debug>(p: &Process, what: &str, got: Result<T, SysError>, want: i32) {
    match got {
        Err(e) if e.errno == want => {}
        other => panic!("{what}: errno {want} expected, got {other:?}"),
    }
    p.machine().verify().unwrap_or_else(|v| panic!("after {what}: {v}"));
}

#[test]
fn wrong_maps_have_their_errno() {
    let p = process();
    let rw = file(&p, 3 * P, OpenMode::ReadWrite);
    let ro = file(&p, 3 * P, OpenMode::ReadOnly);
    let wo = file(&p, 3 * P, OpenMode::WriteOnly);
    let (private, shared) = (MapFlags::PRIVATE, MapFlags::SHARED);
    let (anon, fixed) = (MapFlags::ANON, MapFlags::FIXED);
    let good =
        MapRequest { addr: 0, len: P, prot: 3, flags: private | anon, file: None, offset: 0 };
    let on = |h| MapRequest { flags: private, file: Some(h), ..good };
    let unknown = MapFlags::from_bits_retain(1 << 31);
    let table: &[(&str, MapRequest<'_>, i32)] = &[
        ("length 0", MapRequest { len: 0, ..good }, EINVAL),
        ("length that rounds to 2^64", MapRequest { len: u64::MAX, ..good }, ENOMEM),
        ("length 2^64 - a page", MapRequest { len: 0u64.wrapping_sub(P), ..good }, ENOMEM),
        ("longer than the user's half", MapRequest { len: TOP + P, ..good }, ENOMEM),
        ("neither shared nor private", MapRequest { flags: anon, ..good }, EINVAL),
        ("shared and private", MapRequest { flags: private | shared | anon, ..good }, EINVAL),
        ("an unknown flag", MapRequest { flags: private | anon | unknown, ..good }, EINVAL),
        ("an unknown right", MapRequest { prot: 64, ..good }, ENOTSUP),
        ("the kernel's right", MapRequest { prot: 8 | 1, ..good }, ENOTSUP),
        ("anonymous with a file", MapRequest { file: Some(&rw), ..good }, EINVAL),
        ("no file", MapRequest { flags: private, ..good }, EBADF),
        (
            "text that cannot run",
            MapRequest { flags: private | anon | MapFlags::TEXT, ..good },
            EINVAL,
        ),
        (
            "text and data",
            MapRequest {
                prot: 5,
                flags: private | anon | MapFlags::TEXT | MapFlags::INITDATA,
                ..good
            },
            EINVAL,
        ),
        (
            "align, fixed",
            MapRequest { addr: P, flags: private | anon | fixed | MapFlags::ALIGN, ..good },
            EINVAL,
        ),
        (
            "align to 3 pages",
            MapRequest { addr: 3 * P, flags: private | anon | MapFlags::ALIGN, ..good },
            EINVAL,
        ),
        (
            "align to 16",
            MapRequest { addr: 16, flags: private | anon | MapFlags::ALIGN, ..good },
            EINVAL,
        ),
        (
            "fixed, misaligned",
            MapRequest { addr: AT + 1, flags: private | anon | fixed, ..good },
            EINVAL,
        ),
        (
            "fixed in the hole",
            MapRequest { addr: HOLE, flags: private | anon | fixed, ..good },
            ENOMEM,
        ),
        (
            "fixed across the end",
            MapRequest { addr: TOP - P, len: 2 * P, flags: private | anon | fixed, ..good },
            ENOMEM,
        ),
        (
            "fixed in the kernel",
            MapRequest { addr: KERN, flags: private | anon | fixed, ..good },
            ENOMEM,
        ),
        (
            "fixed at the last page",
            MapRequest { addr: 0u64.wrapping_sub(P), flags: private | anon | fixed, ..good },
            ENOMEM,
        ),
        (
            "excl over something",
            MapRequest { addr: AT, flags: private | anon | fixed | MapFlags::EXCL, ..good },
            EEXIST,
        ),
        ("offset misaligned", MapRequest { offset: 100, ..on(&rw) }, EINVAL),
        ("offset negative", MapRequest { offset: 1 << 63, ..on(&rw) }, ENXIO),
        (
            "offset too large",
            MapRequest { offset: (1 << 63) - P, len: 2 * P, ..on(&rw) },
            EOVERFLOW,
        ),
        ("write-only descriptor", on(&wo), EACCES),
        ("shared writable, read-only descriptor", MapRequest { flags: shared, ..on(&ro) }, EACCES),
        ("unknown right, hint, file", MapRequest { prot: 64, addr: AT, ..on(&rw) }, EACCES),
    ];
    for (what, request, want) in table {
        check(&p, what, p.mmap(request), *want);
    }
    // Read-only shared is fine, and can never become writable.
    let at = p.mmap(&MapRequest { prot: 1, flags: shared, ..on(&ro) }).expect("readable");
    check(&p, "protect above the ceiling", p.mprotect(at, P, 3), EACCES);
}

#[test]
fn wrong_ranges_have_their_errno() {
    let p = process();
    type Call = fn(&Process, u64, u64) -> Result<(), SysError>;
    let calls: &[(&str, Call)] = &[
        ("mprotect", |p, a, l| p.mprotect(a, l, 1)),
        ("madvise normal", |p, a, l| p.madvise(a, l, MemAdvice::Use(Advice::Normal))),
        ("madvise free", |p, a, l| p.madvise(a, l, MemAdvice::Use(Advice::Free))),
        ("madvise willneed", |p, a, l| p.madvise(a, l, MemAdvice::WillNeed)),
        ("madvise dontneed", |p, a, l| p.madvise(a, l, MemAdvice::DontNeed)),
        ("madvise dontfork", |p, a, l| p.madvise(a, l, MemAdvice::DontFork)),
        ("msync", |p, a, l| p.msync(a, l, SyncFlags::empty())),
        ("mlock", Process::mlock),
        ("munlock", Process::munlock),
        ("mincore", |p, a, l| p.mincore(a, l).map(drop)),
    ];
    let end = AT + 8 * P;
    let ranges: &[(&str, u64, u64, i32)] = &[
        ("length 0", AT, 0, EINVAL),
        ("misaligned", AT + 1, P, EINVAL),
        ("a hole above", AT, 9 * P, ENOMEM),
        ("nothing mapped", end, P, ENOMEM),
        ("in the canonical hole", HOLE, P, ENOMEM),
        ("in the kernel", KERN, P, ENOMEM),
        ("across the end of user addresses", TOP - P, 2 * P, ENOMEM),
        ("wrapping", AT, 0u64.wrapping_sub(AT) + P, ENOMEM),
    ];
    for (call, make) in calls {
        for (what, addr, len, want) in ranges {
            let negative = *call == "mincore" && *len > i64::MAX as u64;
            let want = if negative { EINVAL } else { *want };
            check(&p, &format!("{call} {what}"), make(&p, *addr, *len), want);
        }
    }
    for (what, addr, len) in [
        ("length 0", AT, 0),
        ("misaligned", AT + 5, P),
        ("across the end", TOP - P, 2 * P),
        ("in the hole", HOLE, P),
        ("wrapping", AT, u64::MAX),
    ] {
        check(&p, what, p.munmap(addr, len), EINVAL);
    }
    assert_eq!(p.munmap(end, 100 * P), Ok(()), "nothing there is no error");
    check(&p, "unknown right", p.mprotect(AT, P, 16), ENOTSUP);
    check(
        &p,
        "zero on fork of a file",
        {
            let f = file(&p, P, OpenMode::ReadWrite);
            let flags = MapFlags::PRIVATE;
            let at =
                p.mmap(&MapRequest { addr: 0, len: P, prot: 3, flags, file: Some(&f), offset: 0 });
            p.madvise(at.expect("mapped"), P, MemAdvice::InheritZero)
        },
        EINVAL,
    );
    check(&p, "lock neither", p.mlockall(LockAll::empty()), EINVAL);
    p.set_limit(Limit::Memlock, P);
    check(&p, "lock over the limit", p.mlock(AT, 2 * P), EAGAIN);
    p.mlock(AT, P).expect("within the limit");
    check(&p, "drop locked pages", p.madvise(AT, P, MemAdvice::DontNeed), EBUSY);
    check(&p, "drop locked pages", p.msync(AT, P, SyncFlags::INVALIDATE), EBUSY);
}

#[test]
fn accesses_die_of_the_right_signal() {
    let p = process();
    p.mprotect(AT + P, P, 1).expect("read-only");
    p.mprotect(AT + 2 * P, P, 0).expect("no access");
    let f = file(&p, P, OpenMode::ReadWrite);
    let flags = MapFlags::SHARED;
    let at = p
        .mmap(&MapRequest { addr: 0, len: 2 * P, prot: 3, flags, file: Some(&f), offset: 0 })
        .expect("mapped past the end");
    let mut two = vec![0; 2 * P as usize];
    let e = |done, signal, addr| Err(AccessError { done, signal, addr });
    assert_eq!(p.store(AT + P - 1, &[1, 2]), e(1, Signal::SegvAccErr, AT + P));
    assert_eq!(p.load(AT + P, &mut two), e(P, Signal::SegvAccErr, AT + 2 * P));
    assert_eq!(p.fetch(AT, &mut two[..1]), e(0, Signal::SegvAccErr, AT));
    assert_eq!(p.load(AT + 7 * P, &mut two), e(P, Signal::SegvMapErr, AT + 8 * P));
    assert_eq!(p.load(at, &mut two), e(P, Signal::BusObjErr(EFAULT), at + P));
    for addr in [0, TOP, HOLE, KERN, u64::MAX] {
        assert_eq!(p.load(addr, &mut two[..1]), e(0, Signal::SegvMapErr, addr));
    }
    f.vnode.truncate(p.cx(), p.machine().db(), 0).expect("cut below the mapping");
    assert_eq!(p.load(at, &mut two[..1]), e(0, Signal::BusObjErr(EFAULT), at));
    p.machine().verify().expect("sound");
}

#[test]
fn the_kernel_copies_with_the_users_rights() {
    let p = process();
    p.mprotect(AT + P, P, 1).expect("read-only");
    let f = file(&p, 0, OpenMode::ReadWrite);
    p.store(AT, &[7; 4096]).expect("stored");
    assert_eq!(p.pwrite(&f, 100, AT, 2 * P), Ok(2 * P));
    assert_eq!(f.vnode.size(), 100 + 2 * P);
    check(&p, "read into a read-only page", p.pread(&f, 100, AT + P, 8), EFAULT);
    check(&p, "half of it", p.pread(&f, 100, AT, 2 * P), EFAULT);
    assert_eq!(p.pread(&f, 100 + P, AT, 4 * P), {
        check(&p, "past the read-only page", p.pread(&f, 100 + P - 1, AT, 4 * P), EFAULT);
        Ok(P)
    });
    check(&p, "write from nowhere", p.pwrite(&f, 0, AT + 8 * P, 1), EFAULT);
    check(&p, "write from the kernel", p.pwrite(&f, 0, KERN, 1), EFAULT);
    check(&p, "write past the largest offset", p.pwrite(&f, i64::MAX as u64, AT, 8), EFBIG);
    check(&p, "write at a negative offset", p.pwrite(&f, 1 << 63, AT, 8), EINVAL);
    assert_eq!(f.vnode.size(), 100 + 2 * P, "no failed write extended it");
    let (ro, wo) = (file(&p, P, OpenMode::ReadOnly), file(&p, P, OpenMode::WriteOnly));
    check(&p, "write to a read-only descriptor", p.pwrite(&ro, 0, AT, 1), EBADF);
    check(&p, "read from a write-only descriptor", p.pread(&wo, 0, AT, 1), EBADF);
    f.vnode.fail_read(p.cx(), 1, EIO);
    f.vnode.put_page_out(&p);
    check(&p, "a device that fails", p.pread(&f, 0, AT, 8), EIO);
}

impl crate::files::File {
    /// Writes every page back and drops it.
    fn put_page_out(&self, p: &Process) {
        use page_db::{FileOffset, PutFlags, Vnode};
        let flags = PutFlags::INVAL;
        self.put_page(p.cx(), p.machine().db(), FileOffset(0), 0, flags).expect("written");
    }
}

#[test]
fn a_file_copied_over_its_own_mapping_does_not_lock_up() {
    let p = process();
    let f = file(&p, 4 * P, OpenMode::ReadWrite);
    let flags = MapFlags::SHARED;
    let request = MapRequest { addr: 0, len: 4 * P, prot: 3, flags, file: Some(&f), offset: 0 };
    let at = p.mmap(&request).expect("mapped");
    p.store(at, b"abc").expect("stored");
    assert_eq!(p.pread(&f, 0, at, 4 * P), Ok(4 * P));
    assert_eq!(p.pwrite(&f, 0, at, 4 * P), Ok(4 * P));
    let mut b = [0; 3];
    p.load(at, &mut b).expect("readable");
    assert_eq!(&b, b"abc");
    p.machine().verify().expect("sound");
}

#[test]
fn the_break_moves_and_merges() {
    let p = process();
    let (base, _) = p.heap();
    p.brk(base + 100).expect("grown");
    p.store(base, &[1; 100]).expect("there");
    p.brk(base + 3 * P).expect("grown");
    assert_eq!(p.space().segs(p.cx()).len(), 2, "one heap segment");
    p.brk(base + 1).expect("shrunk");
    let gone = p.load_u8(base + P).expect_err("gone");
    assert_eq!(gone.signal, Signal::SegvMapErr);
    assert_eq!(p.load_u8(base), Ok(1));
    p.brk(base + 2 * P).expect("grown");
    assert_eq!(p.load_u8(base + P), Ok(0), "new pages are zeros");
    check(&p, "below the initial break", p.brk(base - 1), ENOMEM);
    check(&p, "past the user's addresses", p.brk(u64::MAX), ENOMEM);
    p.set_limit(Limit::Data, 4 * P);
    check(&p, "over the data limit", p.brk(base + 5 * P), ENOMEM);
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let wall = MapRequest { addr: base + 3 * P, len: P, prot: 3, flags, file: None, offset: 0 };
    p.mmap(&wall).expect("a wall");
    check(&p, "something is in the way", p.brk(base + 4 * P), ENOMEM);
    assert_eq!(p.heap(), (base, base + 2 * P));
    p.brk(base).expect("all of it");
    p.machine().verify().expect("sound");
}

#[test]
fn the_stack_grows_down_to_a_touch() {
    let p = process();
    let below = STACK_TOP - 10 * P;
    let e = p.store(below, &[1]).expect_err("no stack yet");
    assert_eq!(e.signal, Signal::SegvMapErr);
    p.grow_stack(STACK_TOP - P).expect("a first page");
    p.store(below + 8, &[1]).expect("it grows by itself");
    assert_eq!(p.stack().map(|r| r.pages().get()), Some(10));
    assert_eq!(p.space().hat().resident(), 10, "faulted in whole");
    // A fault of this thread's that lost the race against another one's: what it touched is there by now, unless somebody has made a hole.
    assert!(p.try_grow(STACK_TOP - 5 * P));
    p.munmap(STACK_TOP - 5 * P, P).expect("it is mapped");
    assert!(!p.try_grow(STACK_TOP - 5 * P));
    p.set_limit(Limit::Stack, 12 * P);
    p.store(STACK_TOP - 12 * P, &[1]).expect("to the limit");
    let e = p.store(STACK_TOP - 13 * P, &[1]).expect_err("over it");
    assert_eq!(e.signal, Signal::SegvMapErr);
    check(&p, "by hand, over the limit", p.grow_stack(STACK_TOP - 13 * P), ENOMEM);
    check(&p, "above the stack", p.grow_stack(STACK_TOP), ENOMEM);
    p.set_limit(Limit::Stack, u64::MAX);
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let wall =
        MapRequest { addr: STACK_TOP - 14 * P, len: P, prot: 3, flags, file: None, offset: 0 };
    p.mmap(&wall).expect("a wall");
    check(&p, "through a mapping", p.grow_stack(STACK_TOP - 15 * P), ENOMEM);
    assert_eq!(p.stack().map(|r| r.pages().get()), Some(12));
    let child = p.fork().expect("a child");
    child.store(STACK_TOP - 13 * P, &[1]).expect("the child's stack grows as well");
    assert_eq!(p.stack().map(|r| r.pages().get()), Some(12), "and its own only");
    p.machine().verify().expect("sound");
}

#[test]
fn mappings_without_an_address_go_below_the_stack() {
    let p = process();
    let first = p.map_anon(4 * P).expect("room");
    let second = p.map_anon(P).expect("room");
    assert!(first + 4 * P <= STACK_TOP - STACK_LIMIT);
    assert_eq!(second, first - P, "top-down");
    let flags = MapFlags::PRIVATE | MapFlags::ANON;
    let hint = |addr| MapRequest { addr, len: P, prot: 3, flags, file: None, offset: 0 };
    assert_eq!(p.mmap(&hint(0x7000_0123)), Ok(0x7000_0000), "a hint is rounded down");
    assert_ne!(p.mmap(&hint(AT)), Ok(AT), "what is there stays");
    let aligned = MapRequest { flags: flags | MapFlags::ALIGN, ..hint(1 << 30) };
    assert!(p.mmap(&aligned).expect("room").is_multiple_of(1 << 30));
    p.machine().verify().expect("sound");
}

#[test]
fn swap_that_is_not_there_is_refused_where_it_is_promised() {
    let m = Machine::builder().frames(256).no_swap().build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let much = 4096 * P;
    check(&p, "mmap", p.map_anon(much), EAGAIN);
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::NORESERVE;
    let later = MapRequest { addr: 0, len: much, prot: 3, flags, file: None, offset: 0 };
    let at = p.mmap(&later).expect("promised nothing");
    let e = (0..4096).find_map(|i| p.store(at + i * P, &[1]).err()).expect("no more swap");
    assert_eq!(e.signal, Signal::BusObjErr(ENOMEM), "a page that cannot be reserved kills");
    m.verify().expect("sound");
    check(&p, "fork", p.fork(), ENOMEM);
    check(&p, "brk", p.brk(p.heap().0 + much), ENOMEM);
    assert_eq!(m.processes().len(), 1, "no half-made child is left");
    p.munmap(at, much).expect("unmapped");
    m.verify().expect("sound");
}

#[test]
fn memory_is_taken_away_and_given_back() {
    let p = process();
    let m = p.machine().clone();
    let before = m.db().freemem();
    p.store(AT, &[5; 8 * 4096]).expect("stored");
    let taken = m.squeeze(10_000);
    assert!(taken > 400 && taken < 512, "{taken}");
    assert_eq!(m.squeezed(), taken);
    m.verify().expect("sound");
    let mut bytes = vec![0; 8 * P as usize];
    let e = p.load(AT, &mut bytes).expect_err("no frame is left");
    assert_eq!(e.signal, Signal::BusObjErr(ENOMEM));
    m.verify().expect("sound");
    assert_eq!(m.release(), taken);
    p.load(AT, &mut bytes).expect("back from swap");
    assert_eq!(bytes, vec![5; 8 * P as usize]);
    p.exit();
    m.pageout_all();
    assert_eq!(m.db().freemem(), before + 1, "its top table is free as well");
    m.verify().expect("sound");
}

#[test]
fn swap_areas_come_and_go_with_their_pages() {
    let m = Machine::builder().frames(256).no_swap().build().expect("a machine");
    let small = |pages| SwapArea { backing: SwapBacking::Memory, pages, priority: 0 };
    let first = m.swap_add(&small(100)).expect("an area");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(64 * P).expect("promised");
    for i in 0..64 {
        p.store(at + i * P, &i.to_le_bytes()).expect("stored");
    }
    m.pageout_all();
    assert!(m.swap().list()[0].free < 100, "something is on swap");
    let second = m.swap_add(&small(80)).expect("another area");
    m.swap_del(first).expect("brought back");
    m.verify().expect("sound");
    assert_eq!(m.swap_del(first).map_err(|e| e.errno()), Err(EINVAL), "no such area");
    for i in 0..64 {
        let mut b = [0; 8];
        p.load(at + i * P, &mut b).expect("there");
        assert_eq!(u64::from_le_bytes(b), i);
    }
    assert_ne!(first, second);
    let e = m.swap_add(&SwapArea { backing: SwapBacking::File("/".into()), pages: 1, priority: 0 });
    assert!(e.is_err_and(|e| e.errno() == EISDIR));
    p.exit();
    m.verify().expect("sound");
}

#[test]
fn after_the_last_process_nothing_anonymous_is_left() {
    let m = machine();
    let frames = m.db().freemem();
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(32 * P).expect("mapped");
    p.store(at, &[1; 16 * 4096]).expect("stored");
    let children: Vec<_> = (0..4).map(|_| p.fork().expect("a child")).collect();
    for (i, c) in children.iter().enumerate() {
        c.store(at + i as u64 * P, &[9]).expect("copied");
        m.verify().expect("sound");
    }
    p.exit();
    m.verify().expect("sound");
    for c in &children {
        c.exit();
        c.exit();
        m.verify().expect("sound");
    }
    assert_eq!((m.swap().live(), m.swap().info().reserved()), (0, 0));
    assert_eq!(m.db().freemem(), frames);
    assert!(m.processes().is_empty());
    assert_eq!(children[0].load_u8(at).map_err(|e| e.signal), Err(Signal::SegvMapErr));
    check(&p, "a call after the end", children[0].map_anon(P), ESRCH);
}

#[test]
fn two_threads_fault_in_one_process() {
    let m = Machine::builder().frames(2048).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(400 * P).expect("mapped");
    std::thread::scope(|s| {
        for t in 0..2u64 {
            let thread = p.another_thread(CpuId(t as u16));
            s.spawn(move || {
                for i in (t..400).step_by(2) {
                    thread.store(at + i * P, &i.to_le_bytes()).expect("stored");
                }
            });
        }
    });
    for i in 0..400 {
        let mut b = [0; 8];
        p.load(at + i * P, &mut b).expect("there");
        assert_eq!(u64::from_le_bytes(b), i);
    }
    m.verify().expect("sound");
}

#[test]
fn a_machine_without_memory_says_so() {
    assert!(matches!(Machine::builder().frames(0).build(), Err(BootError::Memory(_))));
    assert!(Machine::builder().frames(1).build().is_err(), "no room for the kernel's tables");
}

#[test]
fn truncation_drops_claims_with_the_page() {
    let p = process();
    let f = file(&p, 4 * P, OpenMode::ReadWrite);
    let request = MapRequest {
        addr: 0,
        len: 4 * P,
        prot: 3,
        flags: MapFlags::SHARED,
        file: Some(&f),
        offset: 0,
    };
    let at = p.mmap(&request).expect("mapped");
    p.mlock(at, 4 * P).expect("locked");
    let (cx, db) = (p.cx(), p.machine().db());
    f.vnode.truncate(cx, db, P).expect("cut under the locks");
    p.machine().verify().expect("sound");
    f.vnode.truncate(cx, db, 4 * P).expect("grown");
    assert_eq!(p.load_u8(at + 2 * P), Ok(0));
    p.machine().verify().expect("sound");
    p.munlock(at, 4 * P).expect("unlocked");
    assert_eq!(p.space().state().locked(), 0);
    p.exit();
    p.machine().verify().expect("sound");
}

#[test]
fn a_file_that_takes_no_writes_refuses_shared_stores() {
    let p = process();
    let path = std::env::current_exe().expect("a path");
    let vnode = p.machine().open_host_file(&path, false).expect("readable");
    let handle = FileHandle::new(Arc::clone(&vnode), OpenMode::ReadWrite);
    assert!(!handle.writable, "the store has the last word");
    let shared = |h| MapRequest {
        addr: 0,
        len: P,
        prot: 3,
        flags: MapFlags::SHARED,
        file: Some(h),
        offset: 0,
    };
    check(&p, "a shared writable mapping of it", p.mmap(&shared(&handle)), EACCES);
    check(&p, "a write to it", p.pwrite(&handle, 0, AT, 1), EBADF);
    // Even with a descriptor that lies, a store ends in a signal and not in an endless fault.
    let liar = FileHandle { vnode, readable: true, writable: true };
    let at = p.mmap(&shared(&liar)).expect("mapped");
    assert_eq!(p.load_u8(at), Ok(0x7f));
    let e = p.store(at, &[0]).expect_err("refused");
    assert_eq!(e.signal, Signal::BusObjErr(EROFS));
    check(&p, "a write by the liar", p.pwrite(&liar, 0, AT, 1), EROFS);
    // A private mapping may be stored to: the copy is the process's own.
    let private = MapRequest { flags: MapFlags::PRIVATE, ..shared(&handle) };
    let at = p.mmap(&private).expect("mapped");
    p.store(at, &[0]).expect("copied");
    p.machine().verify().expect("sound");
}

/// A guard is a hole to who asks, and counts for nothing under a limit.
#[test]
fn a_guard_is_a_hole_for_advice_meminfo_and_limits() {
    let m = Machine::builder().frames(256).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    p.set_limit(Limit::Vmem, 8 << 20);
    p.grow_stack(STACK_TOP - PAGE_SIZE).expect("a stack, whose guard is larger than the limit");
    let guard = p.stack_guard().expect("a guard").start().get();
    let below = guard - PAGE_SIZE;
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let page = MapRequest { addr: below, len: PAGE_SIZE, prot: 3, flags, file: None, offset: 0 };
    p.mmap(&page).expect("a page below the guard");
    let free = |at, len| p.madvise(at, len, MemAdvice::Use(Advice::Free)).map_err(|e| e.errno);
    assert_eq!(free(below, 2 * PAGE_SIZE), Err(ENOMEM), "a hole");
    assert_eq!((free(below, PAGE_SIZE + 1), free(guard, 1)), (Ok(()), Err(ENOMEM)), "rounded down");
    let answers = p.meminfo(&[below, guard], &[MemInfo::PageSize]).expect("addresses");
    assert_eq!((answers[0].validity & 1, answers[1].validity), (1, 0));
    m.verify().expect("sound");
}

/// What cannot be locked is refused before anything is replaced, and unmapped where it was mapped.
#[test]
fn a_mapping_that_may_not_be_locked_replaces_nothing() {
    let m = Machine::builder().frames(256).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(PAGE_SIZE).expect("room");
    p.store(at, &[9]).expect("stored");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::LOCKED;
    let request = MapRequest { addr: at, len: PAGE_SIZE, prot: 3, flags, file: None, offset: 0 };
    p.set_may_lock(false);
    let fixed = MapRequest { flags: flags | MapFlags::FIXED, ..request };
    assert_eq!(p.mmap(&fixed).expect_err("no privilege").errno, EPERM);
    assert_eq!(p.load_u8(at), Ok(9));
    p.set_may_lock(true);
    p.set_limit(Limit::Memlock, 0);
    let size = p.space().state().size();
    for linux in [false, true] {
        p.set_personality(if linux { Personality::Linux } else { Personality::Illumos });
        assert_eq!(p.mmap(&request).expect_err("over the limit").errno, EAGAIN);
        assert_eq!(p.space().state().size(), size, "it is gone again");
    }
    p.set_limit(Limit::Memlock, u64::MAX);
    let nothing = MapRequest { prot: 0, ..request };
    p.mmap(&nothing).expect("without rights there is nothing to bring in");
    m.verify().expect("sound");
}

/// Where nothing is reserved there is nothing to lock when memory is mapped; with all future memory locked it is locked as it is touched, if that can be
/// done.
#[test]
fn unreserved_memory_is_locked_as_it_is_touched() {
    let m = machine();
    let p = m.spawn("p").expect("a process");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::NORESERVE;
    let request = MapRequest { addr: 0, len: 8 * P, prot: 3, flags, file: None, offset: 0 };
    p.mlockall(LockAll::FUTURE).expect("allowed");
    let at = p.mmap(&request).expect("room");
    let locked = || p.space().state().locked() / P;
    let busy = |addr| p.msync(addr, P, SyncFlags::SYNC | SyncFlags::INVALIDATE).is_err();
    assert_eq!(locked(), 0, "nothing is there");
    p.store(at, &[1]).expect("stored");
    p.load(at + P, &mut [0]).expect("a load makes a page as well");
    assert_eq!((locked(), busy(at), busy(at + P)), (2, true, true));
    m.verify().expect("sound");
    // Best effort: over the limit the page is there and not locked, until a lock of it succeeds.
    p.set_limit(Limit::Memlock, 2 * P);
    p.store(at + 2 * P, &[1]).expect("stored");
    assert_eq!((locked(), busy(at + 2 * P)), (2, false));
    p.set_limit(Limit::Memlock, u64::MAX);
    p.store(at + 2 * P, &[2]).expect("stored");
    assert_eq!(locked(), 2, "touched before");
    p.mlock(at, 8 * P).expect("what is there is locked");
    assert_eq!(locked(), 3);
    // No longer asked for.
    p.munlockall().expect("allowed");
    p.store(at + 4 * P, &[1]).expect("stored");
    assert_eq!(locked(), 0);
    m.verify().expect("sound");
}

/// What was mapped before all future memory was to be locked is not future memory.
#[test]
fn unreserved_memory_mapped_before_is_not_locked() {
    let p = machine().spawn("p").expect("a process");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::NORESERVE;
    let request = MapRequest { addr: 0, len: 2 * P, prot: 3, flags, file: None, offset: 0 };
    let at = p.mmap(&request).expect("room");
    p.mlockall(LockAll::FUTURE).expect("allowed");
    p.store(at, &[1]).expect("stored");
    assert_eq!(p.space().state().locked(), 0);
    // Locked while nothing was there to lock: what is touched from then on is.
    p.mlock(at, 2 * P).expect("what is there is locked");
    assert_eq!(p.space().state().locked(), P);
    p.store(at + P, &[1]).expect("stored");
    assert_eq!(p.space().state().locked(), 2 * P);
}
