//! Law 2: what fails leaves the state before or the state after.
//!
//! Each operation is done on a small world in which everything occurs, with one thing failing: the first, the second, ... transfer that it
//! makes, or all frames, or all promises of swap but so many. Then every invariant is checked, and the whole state, every byte that every process
//! and file shows, is compared with the state before and the state after. What failed is done again when nothing fails any more, and
//! must now succeed; and when everybody has exited nothing is left.
//!
//! Two things are as the device left them: bytes of a swap page that could not be read are lost ([`swapfs`] asks no device twice), and an operation that
//! goes page by page (an access, a transfer, a write-out) has done the pages before.

use crate::world::{ANON, NONE, PAGE, PRIVATE, R, RW, SHARED, at, map, open};
use addr_space::SyncFlags;
use page_db::{Access, FailKind, FailPlan, LockedPage, VirtRange};
use segvm::Machine;
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{ForkPolicy, MapFlags, MemAdvice, Process, STACK_TOP};
use std::sync::Arc;
use swapfs::{AreaId, FaultyDevice, MemDevice};

/// Pages of the disk.
const DISK: u64 = 128;
/// Where memory is mapped, in pages; and where operations may map more.
const PLACES: [std::ops::Range<u64>; 6] = [0..4, 8..12, 16..20, 24..26, 32..34, 40..44];

struct World {
    m: Machine,
    p: Process,
    /// Its child, which has touched nothing.
    child: Process,
    file: FileHandle,
    memory: Arc<MemDevice>,
    disk: Arc<FaultyDevice>,
}

impl World {
    fn new(fork: ForkPolicy) -> Self {
        let m = Machine::builder().frames(200).no_swap().fork(fork).build().unwrap();
        let memory = Arc::new(MemDevice::new("/dev/disk", DISK));
        let disk = Arc::new(FaultyDevice::new(Arc::clone(&memory) as _));
        m.swap().add(m.cx(), Arc::clone(&disk) as _, 0, DISK, 0).unwrap();
        let file = open(&m, "file", 4 * PAGE - 100, OpenMode::ReadWrite);
        let p = m.spawn("p").unwrap();
        for page in 0..4u8 {
            let at = u64::from(page) * PAGE;
            file.vnode.pwrite(m.cx(), m.db(), at + 10, &[b'f', page]).unwrap();
        }
        file.vnode.sync(m.cx(), m.db()).unwrap();
        map(&p, 0, 4, RW, PRIVATE | ANON, None).unwrap();
        map(&p, 8, 4, RW, SHARED, Some(&file)).unwrap();
        map(&p, 16, 4, RW, PRIVATE, Some(&file)).unwrap();
        map(&p, 24, 2, RW, SHARED | ANON, None).unwrap();
        map(&p, 32, 2, R, PRIVATE, Some(&file)).unwrap();
        for page in [0, 1, 2, 9, 10, 17, 24] {
            p.store(at(page) + 20, &[b'm', page as u8]).unwrap();
        }
        let child = p.fork().unwrap();
        let w = Self { m, p, child, file, memory, disk };
        w.m.pageout_all();
        w.forget();
        // Modified since, and in memory.
        w.p.store(at(9) + 30, b"dirty").unwrap();
        w.p.store(at(2) + 30, b"dirty").unwrap();
        w
    }
    /// Takes the frames of pages that are free, so that they must be read.
    fn forget(&self) {
        let db = self.m.db();
        let cached = |p: &page_db::PageId| db.page(*p).is_free();
        let names: Vec<_> =
            db.pages().ids().filter(cached).filter_map(|p| db.page(p).identity()).collect();
        for id in names {
            let page = db.lookup_excl(self.m.cx(), id).expect("nothing else runs");
            assert!(!page.page().is_mapped());
            db.destroy(self.m.cx(), page);
        }
    }
    /// Transfers so far: reads and writes of the file, reads and writes of the disk. Then what was asked for since [`World::count`].
    fn used(&self) -> [u64; 8] {
        let ((fr, fw), (sr, sw)) = (self.file.vnode.transfers(), self.memory.transfers());
        let [f, r, n, s] = GRANTS.map(|what| self.m.asked().of(what));
        [fr, fw, sr, sw, f, r, n, s]
    }
    /// Begins to count what is asked for.
    fn count(&self) {
        self.m.fail(&FailPlan::counting());
    }
    /// Everything anybody can see: per process the segments and every page, and the file.
    fn state(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (i, p) in self.m.processes().into_iter().enumerate() {
            let (space, cx) = (p.space(), p.cx());
            let segs: Vec<_> = space.segs(cx).iter().map(|s| s.range().to_string()).collect();
            let (size, locked) = (space.state().size(), space.state().locked());
            lines.push(format!("{i}: {} {size:#x} locked {locked:#x}", segs.join(" ")));
            for page in PLACES.into_iter().flatten() {
                lines.push(format!("{i} {page}: {}", shown(&p, page)));
            }
        }
        let mut bytes = vec![0; 5 * PAGE as usize];
        let n = self.file.vnode.pread(self.m.cx(), self.m.db(), 0, &mut bytes).unwrap();
        lines.push(format!("file: {n:#x} bytes"));
        for (page, bytes) in bytes.chunks(PAGE as usize).enumerate() {
            lines.push(format!("file {page}: {:?}", interesting(bytes)));
        }
        lines
    }
    fn end(self) {
        self.m.processes().iter().for_each(Process::exit);
        self.p.exit();
        self.m.verify().unwrap();
        assert_eq!((self.m.swap().live(), self.m.swap().info().reserved()), (0, 0), "law 3");
        assert!(self.m.anon().maps().is_empty(), "law 3");
    }
}

/// Bytes that are not zero, and where.
fn interesting(bytes: &[u8]) -> Vec<(usize, u8)> {
    bytes.iter().copied().enumerate().filter(|(_, b)| *b != 0).collect()
}

/// What a process sees of a page.
fn shown(p: &Process, page: u64) -> String {
    let mut bytes = vec![0; PAGE as usize];
    match p.load(at(page), &mut bytes) {
        Ok(()) => format!("{:?}", interesting(&bytes)),
        Err(e) => format!("{:?}", e.signal),
    }
}

/// What is refused by a plan here.
const GRANTS: [FailKind; 4] = [FailKind::Frame, FailKind::Record, FailKind::Anon, FailKind::Slot];

const LOST: &str = "BusObjErr(5)";

type Done = Result<(), String>;

/// Something that is done, and may fail.
struct Deed {
    what: &'static str,
    how: fn(&World) -> Done,
    /// Whether it goes page by page, so that pages before the failing one are done.
    piecemeal: bool,
}

const fn whole(what: &'static str, how: fn(&World) -> Done) -> Deed {
    Deed { what, how, piecemeal: false }
}
const fn piecemeal(what: &'static str, how: fn(&World) -> Done) -> Deed {
    Deed { what, how, piecemeal: true }
}

fn done<T, E: std::fmt::Display>(r: Result<T, E>) -> Done {
    r.map(drop).map_err(|e| e.to_string())
}

const DEEDS: &[Deed] = &[
    whole("load a page of a file", |w| done(w.p.load_u8(at(11)))),
    whole("load a page that is on the disk", |w| done(w.p.load_u8(at(0)))),
    whole("store into a page that is on the disk", |w| done(w.p.store(at(1) + 40, b"new"))),
    whole("store into a page never touched", |w| done(w.p.store(at(3) + 40, b"new"))),
    whole("copy a page of a file", |w| done(w.p.store(at(18) + 40, b"new"))),
    whole("store into a shared page that is on the disk", |w| done(w.p.store(at(24) + 40, b"new"))),
    piecemeal("store across pages on the disk", |w| {
        done(w.p.store(at(0) + 40, &[b'n'; 3 * PAGE as usize]))
    }),
    piecemeal("store across pages of a file", |w| {
        done(w.p.store(at(16) + 40, &[b'n'; 3 * PAGE as usize]))
    }),
    whole("fork", |w| done(w.p.fork())),
    whole("fork with pages pinned", |w| {
        let (space, cx) = (w.p.space(), w.p.cx());
        let range = VirtRange::exact(at(2), PAGE).unwrap();
        let pinned = space.lock_pages(cx, range, Access::Write).map_err(|e| e.to_string())?;
        let forked = done(w.p.fork());
        space.unlock_pages(cx, pinned);
        forked
    }),
    whole("store into a page shared by fork", |w| done(w.child.store(at(2) + 50, b"child"))),
    whole("store into a page shared by fork, on the disk", |w| {
        done(w.child.store(at(0) + 50, b"child"))
    }),
    piecemeal("write out a file's pages", |w| done(w.p.msync(at(8), 4 * PAGE, SyncFlags::empty()))),
    piecemeal("write out and drop", |w| done(w.p.msync(at(8), 4 * PAGE, SyncFlags::INVALIDATE))),
    piecemeal("write out anonymous pages", |w| {
        done(w.p.msync(at(0), 4 * PAGE, SyncFlags::empty()))
    }),
    piecemeal("page everything out", |w| {
        w.m.pageout_all();
        Ok(())
    }),
    whole("lock pages that are on the disk", |w| done(w.p.mlock(at(0), 4 * PAGE))),
    whole("lock pages of a file", |w| done(w.p.mlock(at(8), 4 * PAGE))),
    piecemeal("ask for pages in advance", |w| {
        done(w.p.madvise(at(16), 4 * PAGE, MemAdvice::WillNeed))
    }),
    piecemeal("read into memory", |w| {
        // A transfer that was cut short says how far it came.
        match w.p.pread(&w.file, 5, at(0) + 5, 3 * PAGE) {
            Ok(n) if n < 3 * PAGE => Err(format!("{n} bytes")),
            other => done(other),
        }
    }),
    piecemeal("write from memory", |w| match w.p.pwrite(&w.file, PAGE + 5, at(0) + 5, 2 * PAGE) {
        Ok(n) if n < 2 * PAGE => Err(format!("{n} bytes")),
        other => done(other),
    }),
    whole("extend the file", |w| done(w.p.pwrite(&w.file, 4 * PAGE + 20, at(2) + 20, 20))),
    whole("truncate the file", |w| done(w.file.vnode.truncate(w.m.cx(), w.m.db(), PAGE + 100))),
    whole("map more", |w| done(map(&w.p, 40, 4, RW, PRIVATE | ANON, None))),
    piecemeal("map more and fill it", |w| {
        done(map(&w.p, 40, 4, RW, PRIVATE | ANON | MapFlags::POPULATE, None))
    }),
    whole("map more and lock it", |w| {
        done(map(&w.p, 40, 4, RW, PRIVATE | ANON | MapFlags::LOCKED, None))
    }),
    whole("let a file's pages be stored into", |w| done(w.p.mprotect(at(32), 2 * PAGE, RW))),
    whole("take all rights from what is on the disk", |w| {
        done(w.p.mprotect(at(0), 4 * PAGE, NONE))
    }),
    whole("unmap a page in the middle", |w| done(w.p.munmap(at(1), PAGE))),
    whole("move the break", |w| done(w.p.brk(w.p.heap().0 + 2 * PAGE))),
    whole("grow the stack", |w| done(w.p.grow_stack(STACK_TOP - 2 * PAGE))),
    piecemeal("empty the disk", |w| {
        if w.m.swap().list().is_empty() {
            return Ok(());
        }
        done(w.m.swap_del(AreaId(1)))
    }),
    piecemeal("exit", |w| {
        w.p.exit();
        Ok(())
    }),
];

/// One way to make something fail.
type Harm = fn(&World, u64);

/// Compares what is with what may be. `lossy`: pages may have been lost.
fn judge(deed: &Deed, is: &[String], before: &[String], after: &[String], lossy: bool) {
    let what = deed.what;
    if is == before || is == after {
        return;
    }
    assert!(deed.piecemeal || lossy, "{what}: neither before nor after:\n{}", differ(is, before));
    for line in is {
        let known = before.contains(line) || after.contains(line);
        let lost = lossy && line.ends_with(LOST);
        // A store that stopped in the middle: its pages are compared by those that it did and those that it did not.
        assert!(
            known || lost,
            "{what}: {line} is neither before nor after\n{}",
            differ(is, before)
        );
    }
}

fn differ(is: &[String], was: &[String]) -> String {
    let fresh = is.iter().filter(|l| !was.contains(l)).map(|l| format!("  now {l}\n"));
    let gone = was.iter().filter(|l| !is.contains(l)).map(|l| format!("  was {l}\n"));
    fresh.chain(gone).collect()
}

/// Does every deed with the `k`-th thing failing, for each `k` up to `most` of what a run without failures uses. Answers how often something was
/// harmed, and how often that was answered with an error. All of it twice: with maps copied at the fork, and when they must.
fn run(harm: Harm, most: fn([u64; 8]) -> u64, lossy: bool) -> (u32, u32) {
    let done = [ForkPolicy::Eager, ForkPolicy::Lazy].map(|fork| run_with(fork, harm, most, lossy));
    done.into_iter().fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
}

fn run_with(fork: ForkPolicy, harm: Harm, most: fn([u64; 8]) -> u64, lossy: bool) -> (u32, u32) {
    let before = World::new(fork).state();
    let (mut harmed, mut failures) = (0, 0);
    for deed in DEEDS {
        let clean = World::new(fork);
        clean.count();
        let start = clean.used();
        (deed.how)(&clean).unwrap_or_else(|e| panic!("{}: {e}", deed.what));
        let used = std::array::from_fn(|i| clean.used()[i] - start[i]);
        clean.heal();
        let after = clean.state();
        clean.end();
        for k in 1..=most(used) {
            let w = World::new(fork);
            harm(&w, k);
            harmed += 1;
            let answer = (deed.how)(&w);
            w.heal();
            let at = format!("{}, {k}: {answer:?}", deed.what);
            w.m.verify().unwrap_or_else(|v| panic!("{at}: {v}"));
            let is = w.state();
            w.m.verify().unwrap_or_else(|v| panic!("{at}, looked at: {v}"));
            match &answer {
                Ok(()) if !lossy => assert!(is == after, "{at}:\n{}", differ(&is, &after)),
                _ => judge(deed, &is, &before, &after, lossy),
            }
            if answer.is_err() {
                failures += 1;
                let again = (deed.how)(&w);
                w.m.verify().unwrap_or_else(|v| panic!("{at}, again: {v}"));
                if !lossy {
                    assert_eq!(again, Ok(()), "{at}: nothing fails any more");
                    let is = w.state();
                    assert!(is == after, "{at}, again:\n{}", differ(&is, &after));
                }
            }
            w.end();
        }
    }
    (harmed, failures)
}

impl World {
    fn heal(&self) {
        self.disk.heal();
        self.m.fail(&FailPlan::default());
        self.file.vnode.fail_read(self.m.cx(), 0, 0);
        self.file.vnode.fail_write(self.m.cx(), 0, 0);
        for hog in self.m.processes().into_iter().filter(|p| p.name() == "hog") {
            hog.exit();
        }
    }
}

#[test]
fn a_read_of_the_file_fails() {
    let done = run(|w, k| w.file.vnode.fail_read(w.m.cx(), k, 5), |used| used[0], false);
    assert!(done.0 == done.1 && done.1 > 10, "{done:?}");
}

#[test]
fn a_write_to_the_file_fails() {
    let done = run(|w, k| w.file.vnode.fail_write(w.m.cx(), k, 5), |used| used[1], false);
    assert!(done.0 > done.1 && done.1 > 1, "page-out hides its failures: {done:?}");
}

#[test]
fn a_read_of_the_disk_fails() {
    let done = run(|w, k| w.disk.fail_read(k), |used| used[2], true);
    assert!(done.0 == done.1 && done.1 > 10, "{done:?}");
}

#[test]
fn a_write_to_the_disk_fails() {
    let done = run(|w, k| w.disk.fail_write(k), |used| used[3], false);
    assert!(done.0 > done.1 && done.1 > 0, "page-out hides its failures: {done:?}");
}

/// A frame is not to be had at once: the operation backs out, waits for memory, starts over, and is done.
#[test]
fn a_frame_is_refused() {
    let done =
        run(|w, k| w.m.fail(&FailPlan::counting().kth(FailKind::Frame, k)), |used| used[4], false);
    assert!(done.0 > 50 && done.1 == 0, "{done:?}");
}

/// So with a record of a page table, of a mapping, of a chunk of slots.
#[test]
fn a_record_is_refused() {
    let done =
        run(|w, k| w.m.fail(&FailPlan::counting().kth(FailKind::Record, k)), |used| used[5], false);
    assert!(done.0 > 10 && done.1 == 0, "{done:?}");
}

/// No waiting brings numbers, so the want of one is an answer.
#[test]
fn a_name_is_refused() {
    let done =
        run(|w, k| w.m.fail(&FailPlan::counting().kth(FailKind::Anon, k)), |used| used[6], false);
    assert!(done.0 > 20 && done.1 > 10, "{done:?}");
}

/// A page that finds no slot stays in memory, modified.
#[test]
fn a_slot_is_refused() {
    let done =
        run(|w, k| w.m.fail(&FailPlan::counting().kth(FailKind::Slot, k)), |used| used[7], false);
    assert!(done.0 > 0 && done.1 == 0, "{done:?}");
}

/// A process that takes what the others want.
fn hog(w: &World) -> Process {
    w.m.spawn("hog").unwrap()
}

/// Pages of swap that can still be promised.
fn left(w: &World) -> u64 {
    let (mut can, mut cannot) = (0, 10_000);
    while can + 1 < cannot {
        let pages = (can + cannot) / 2;
        if w.m.swap().take(pages).is_ok() {
            can = pages;
        } else {
            cannot = pages;
        }
    }
    can
}

/// All frames but `k - 1` are in use, and none can be had back: nothing can be written.
#[test]
fn frames_run_out() {
    let starve: Harm = |w, k| {
        let hog = hog(w);
        (1..2000).for_each(|n| w.disk.fail_write(n));
        let pages = left(w) - 40;
        map(&hog, 0, pages, RW, PRIVATE | ANON, None).unwrap();
        let full = (0..pages).find(|page| hog.store(at(*page), b"x").is_err());
        let full = full.expect("there are more pages than frames");
        hog.munmap(at(full - k + 1), (k - 1).max(1) * PAGE).unwrap();
    };
    let (_, failures) = run(starve, |_| 8, false);
    assert!(failures > 40, "only {failures} deeds failed");
}

/// All swap but `k - 1` pages is promised to somebody else.
#[test]
fn promises_run_out() {
    let promise: Harm = |w, k| {
        let hog = hog(w);
        map(&hog, 0, left(w) - (k - 1), RW, PRIVATE | ANON, None).unwrap();
    };
    let (_, failures) = run(promise, |_| 20, false);
    assert!(failures > 30, "only {failures} deeds failed");
}
