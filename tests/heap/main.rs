//! The heap refuses, and the caller is told.
//!
//! What a caller can make as large or as many as he likes is asked of the heap in a way that can fail. Here a heap of the test's own refuses the k-th such
//! request of an operation, and then that and all later ones: nothing aborts, the answer is an error with a number, every invariant holds, what can be
//! seen is as before or as after, and the same call succeeds when the heap does again.
//!
//! The operations work on a mapping whose every other page has rights of its own, so that the lists involved are long.

mod allocator;

use addr_space::runs::Runs;
use addr_space::{Advice, Inherit, SyncFlags, UnloadFlags};
use allocator::{Asked, Heap, Plan, under};
use page_db::errno::ENOMEM;
use page_db::{Access, Counter, CpuId, PAGE_SIZE as PAGE, VirtRange};
use segvm::Machine;
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{
    MapFlags, MapRequest, MemAdvice, Process, RemapFlags, SwapArea, SwapBacking, WorldDump,
};

#[global_allocator]
static HEAP: Heap = Heap;

/// Requests from this size on are refused: larger than any record of a fixed size, smaller than a block of anything that grows.
const FROM: usize = 1200;

/// Pages of the mappings.
const PAGES: u64 = 400;

const AT: u64 = 0x1000_0000_0000;
const FILE_AT: u64 = AT + 2 * PAGES * PAGE;
const MOVED: u64 = AT + 8 * PAGES * PAGE;
const SHARED_AT: u64 = AT + 4 * PAGES * PAGE;

struct World {
    m: Machine,
    p: Process,
    /// Shares memory with it.
    q: Process,
}

type Done = Result<(), String>;

fn done<T, E: std::fmt::Display>(r: Result<T, E>) -> Done {
    r.map(drop).map_err(|e| e.to_string())
}

fn map(p: &Process, addr: u64, file: Option<&FileHandle>) {
    let kind = if file.is_some() { MapFlags::SHARED } else { MapFlags::PRIVATE | MapFlags::ANON };
    let flags = kind | MapFlags::FIXED;
    p.mmap(&MapRequest { addr, len: PAGES * PAGE, prot: 3, flags, file, offset: 0 }).unwrap();
}

impl World {
    fn new() -> Self {
        let m = Machine::builder().frames(1536).build().unwrap();
        let p = m.spawn("p").unwrap();
        let file = m.create_file("file", PAGES * PAGE).unwrap();
        map(&p, AT, None);
        map(&p, FILE_AT, Some(&FileHandle::new(file, OpenMode::ReadWrite)));
        for page in (0..PAGES).step_by(2) {
            p.store(AT + page * PAGE, &[1]).unwrap();
            p.store(FILE_AT + page * PAGE, &[1]).unwrap();
            p.mprotect(AT + page * PAGE, PAGE, 1).unwrap();
        }
        // The host's file has its bytes; what it keeps them in is not the library's.
        p.msync(FILE_AT, PAGES * PAGE, SyncFlags::empty()).unwrap();
        let (flags, len) = (MapFlags::SHARED | MapFlags::ANON | MapFlags::FIXED, PAGES * PAGE);
        p.mmap(&MapRequest { addr: SHARED_AT, len, prot: 3, flags, file: None, offset: 0 })
            .unwrap();
        (0..PAGES).step_by(4).for_each(|page| p.store(SHARED_AT + page * PAGE, &[3]).unwrap());
        let q = m.spawn("q").unwrap();
        p.share_range(SHARED_AT, len, &q).unwrap();
        (0..PAGES).step_by(2).for_each(|page| p.store(FILE_AT + page * PAGE, &[2]).unwrap());
        Self { m, p, q }
    }
}

/// What is done, and whether it goes step by step, so that those before the one that fails are done.
type Deed = (&'static str, bool, fn(&World) -> Done);

const DEEDS: &[Deed] = &[
    ("protect every page alike", false, |w| done(w.p.mprotect(AT, PAGES * PAGE, 3))),
    ("protect pages between others", true, |w| {
        (1..PAGES).step_by(4).try_for_each(|page| done(w.p.mprotect(AT + page * PAGE, PAGE, 0)))
    }),
    ("give advice about pages between others", true, |w| {
        let random = MemAdvice::Use(Advice::Random);
        (1..PAGES).step_by(4).try_for_each(|n| done(w.p.madvise(AT + n * PAGE, PAGE, random)))
    }),
    ("leave pages between others to a child as zeros", true, |w| {
        let zero = |n| done(w.p.minherit(AT + n * PAGE, PAGE, Inherit::Zero));
        (1..PAGES).step_by(4).try_for_each(zero)
    }),
    ("leave pages out of a child", true, |w| {
        let none = |n| done(w.p.minherit(AT + n * PAGE, PAGE, Inherit::None));
        (1..PAGES).step_by(4).try_for_each(none)
    }),
    ("lock pages", false, |w| done(w.p.mlock(AT, PAGES / 4 * PAGE))),
    ("lock pages between others", true, |w| {
        (1..PAGES).step_by(8).try_for_each(|page| done(w.p.mlock(AT + page * PAGE, PAGE)))
    }),
    ("unlock pages between others", true, |w| {
        done(w.p.mlock(AT, PAGES / 4 * PAGE))?;
        (1..PAGES / 4).step_by(2).try_for_each(|page| done(w.p.munlock(AT + page * PAGE, PAGE)))
    }),
    ("unmap the middle", false, |w| done(w.p.munmap(AT + PAGES / 2 * PAGE, PAGE))),
    ("unmap the end", false, |w| done(w.p.munmap(AT + PAGES / 2 * PAGE, PAGES / 2 * PAGE))),
    ("unmap pages of shared memory one by one", true, |w| {
        (1..PAGES).step_by(2).try_for_each(|n| done(w.p.munmap(SHARED_AT + n * PAGE, PAGE)))
    }),
    ("unmap pages one by one", true, |w| {
        (1..PAGES).step_by(40).try_for_each(|page| done(w.p.munmap(AT + page * PAGE, PAGE)))
    }),
    ("fork", false, |w| done(w.p.fork())),
    ("fork with a page that is shared with the child", true, |w| {
        w.p.minherit(AT, PAGE, Inherit::Share).map_err(|e| e.to_string())?;
        done(w.p.fork())
    }),
    ("map beside it", false, |w| {
        let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
        let request = MapRequest {
            addr: AT + PAGES * PAGE,
            len: PAGE,
            prot: 3,
            flags,
            file: None,
            offset: 0,
        };
        done(w.p.mmap(&request))
    }),
    ("fill pages", true, |w| {
        done(w.p.madvise(AT + PAGE, PAGE, MemAdvice::Populate(Access::Write)))
    }),
    ("write a file's pages out", true, |w| {
        done(w.p.msync(FILE_AT, PAGES * PAGE, SyncFlags::empty()))
    }),
    ("move every page elsewhere", false, |w| {
        let place = RemapFlags::MAYMOVE | RemapFlags::FIXED;
        done(w.p.mremap(AT, PAGES * PAGE, PAGES * PAGE, place, MOVED))
    }),
    ("discard every page", true, |w| {
        done(w.p.madvise(AT, PAGES * PAGE, MemAdvice::Use(Advice::Discard)))
    }),
    ("add a large disk", false, |w| {
        let area = SwapArea { backing: SwapBacking::Memory, pages: 1 << 20, priority: 0 };
        done(w.m.swap_add(&area))
    }),
    ("take pages that may go", false, |w| done(w.p.space().purge(w.p.cx()))),
    ("swap out", true, |w| {
        w.p.swap_out();
        Ok(())
    }),
];

/// What can be seen of a world, without the names of memory devices: one that was refused has used up its number.
fn seen(dump: &WorldDump) -> Vec<String> {
    let lines = dump.visible().iter().map(|line| match line.split_once('`') {
        Some((area, rest)) if area.starts_with("area ") => {
            format!("{area}{}", rest.split_once('`').map_or("", |(_, rest)| rest))
        }
        _ => line.clone(),
    });
    lines.collect()
}

/// Does `how` in a new world while requests are refused as planned, and compares what can be seen with `after`, which a run without refusals has left.
fn try_deed(
    (what, piecemeal, how): Deed,
    (before, after): (&WorldDump, &WorldDump),
    plan: Plan,
) -> (Done, Asked) {
    let w = World::new();
    let (answer, asked) = under(plan, || how(&w));
    let at = format!("{what}: {plan:?}: {answer:?}, {asked:?}");
    w.m.verify().unwrap_or_else(|v| panic!("{at}: {v}"));
    let same = |as_it: &WorldDump, when: &str| {
        let is = w.m.dump();
        let wrong = as_it.difference(&is);
        assert!(seen(&is) == seen(as_it), "{at}: not as {when}:\n{wrong}");
    };
    if answer.is_err() {
        assert!(asked.refused != 0, "{at}: nothing was refused");
        if !piecemeal {
            same(before, "before");
        }
        assert_eq!(how(&w), Ok(()), "{at}: nothing is refused any more");
        w.m.verify().unwrap_or_else(|v| panic!("{at}, again: {v}"));
        same(after, "after, when it is done again");
    } else {
        same(after, "after");
    }
    w.m.processes().iter().for_each(Process::exit);
    w.m.verify().unwrap_or_else(|v| panic!("{at}, after the last exit: {v}"));
    assert_eq!(w.m.swap().live(), 0, "{at}: law 3");
    (answer, asked)
}

/// Tries all plans from the first request on, until one finds nothing to refuse.
fn sweep(and_later: bool, mut f: impl FnMut(&Done, Asked)) {
    let before = World::new().m.dump();
    for deed in DEEDS {
        let clean = World::new();
        assert_eq!((deed.2)(&clean), Ok(()), "{}", deed.0);
        let after = clean.m.dump();
        for k in 1.. {
            let plan = Plan { from: FROM, k, and_later };
            let (answer, asked) = try_deed(*deed, (&before, &after), plan);
            f(&answer, asked);
            if asked.refused == 0 {
                break;
            }
        }
    }
}

/// One request is refused: mostly the operation lets everything go, waits for memory, starts over, and is done.
#[test]
fn one_request_is_refused() {
    let mut refused = 0;
    sweep(false, |_, asked| refused += asked.refused);
    println!("{refused} requests refused");
    assert!(refused > 20, "only {refused}");
}

/// A request is refused, and all later ones: the operation gives up.
#[test]
fn the_heap_is_used_up() {
    let (mut refused, mut errors) = (0, 0);
    sweep(true, |answer, asked| {
        refused += u64::from(asked.refused != 0);
        errors += u64::from(answer.is_err());
    });
    println!("{refused} operations met a refusal, {errors} failed");
    assert!(errors > 10, "only {errors} of {refused}");
}

/// Counts of the slots of shared memory are never lost: what has no room for them is refused, and has changed nothing.
#[test]
fn an_unmap_of_shared_memory_in_part_is_refused_whole() {
    let (w, mut refused) = (World::new(), 0);
    for n in (1..PAGES).step_by(2) {
        let before = w.m.dump();
        let unmap = || w.p.munmap(SHARED_AT + n * PAGE, PAGE);
        let (answer, asked) = under(Plan { from: FROM, k: 1, and_later: true }, unmap);
        w.m.verify().unwrap_or_else(|v| panic!("page {n}: {v}"));
        if let Err(e) = answer {
            assert_eq!(e.errno, ENOMEM, "page {n}: {e}");
            assert_ne!(asked.refused, 0, "page {n}: nothing was refused");
            assert_eq!(w.m.dump().visible(), before.visible(), "page {n}: not as before");
            assert!(unmap().is_ok(), "page {n}: nothing is refused any more");
            refused += 1;
        }
    }
    println!("{refused} unmaps refused");
    assert!(refused > 1, "only {refused}");
    w.m.processes().iter().for_each(Process::exit);
    assert_eq!(w.m.swap().live(), 0, "law 3");
}

/// Who ends cannot be refused, also where a child was not to have all pages.
#[test]
fn an_end_is_not_refused() {
    let w = World::new();
    (1..PAGES).step_by(2).for_each(|page| {
        w.p.madvise(AT + page * PAGE, PAGE, MemAdvice::DontFork).unwrap();
    });
    under(Plan { from: FROM, k: 1, and_later: true }, || {
        w.p.exit();
        w.q.exit();
    });
    w.m.verify().unwrap();
    assert_eq!((w.m.swap().live(), w.m.anon().maps().len()), (0, 0), "law 3");
}

/// U3: in the room that was made, changes ask for nothing; and what is refused while it is made changes nothing.
#[test]
fn changes_in_the_room_that_was_made_ask_for_nothing() {
    let mut seed = 11u64;
    let mut lot = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let mut runs = Runs::new(0u8);
    let mut array = [0u8; 2000];
    for _ in 0..6000 {
        let a = lot(2000);
        let most = [1, 3, 40][lot(3) as usize];
        let range = a..(a + 1 + lot(most)).min(2000);
        let first = Plan { from: 1, k: 1 + lot(2), and_later: true };
        let (room, _) = under(first, || runs.make_room(range.clone()));
        if room.is_err() {
            let same = |(at, v): (usize, &u8)| runs.get(at as u64) == *v;
            assert!(runs.verify() && array.iter().enumerate().all(same), "changed though refused");
            runs.make_room(range.clone()).unwrap();
        }
        let (add, none) = (lot(3) as u8, Plan { from: 1, k: 1, and_later: true });
        // Twice, as an operation may: what the first one cut need not be cut again.
        let (_, asked) = under(none, || {
            runs.update(range.clone(), |v| (v + add) % 3);
            runs.update(range.clone(), |v| (v + 1) % 3);
        });
        assert_eq!(asked, Asked::default(), "{range:?} of {runs:?}");
        for v in &mut array[range.start as usize..range.end as usize] {
            *v = (*v + add + 1) % 3;
        }
        assert!(runs.verify());
    }
    assert!((0..2000).all(|at| runs.get(at) == array[at as usize]));
}

/// U3, of runs that come from elsewhere, while others are forgotten.
#[test]
fn runs_come_and_go_in_the_room_that_was_made() {
    let mut seed = 5u64;
    let mut lot = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let nothing = Plan { from: 1, k: 1, and_later: true };
    for _ in 0..600 {
        let (mut runs, mut array) = (Runs::new(false), [false; 1200]);
        let comes = 200 + lot(300);
        let comes = comes..comes + 1 + lot(500);
        let goes = lot(200);
        let goes =
            if lot(2) == 0 { goes..goes } else { goes..(goes + 1 + lot(200)).min(comes.start) };
        let mut coming = Runs::new(false);
        let dense = 1 + lot(4);
        for at in 0..1200 {
            if lot(dense) == 0 {
                let new = comes.contains(&at);
                if new { &mut coming } else { &mut runs }.set(at..at + 1, true);
                array[at as usize] = !goes.contains(&at);
            }
        }
        let refusal = Plan { from: 1, k: 1 + lot(4), and_later: true };
        let (room, _) = under(refusal, || runs.make_room_for(&coming, goes.clone()));
        if room.is_err() {
            assert!(runs.verify() && !runs.any(comes.clone(), |on| on), "changed though refused");
            runs.make_room_for(&coming, goes.clone()).unwrap();
        }
        let (_, asked) = under(nothing, || {
            runs.absorb(&coming);
            runs.set(goes.clone(), false);
        });
        assert_eq!(asked, Asked::default(), "{coming:?} to {runs:?}, without {goes:?}");
        runs.trim();
        assert!(runs.verify() && (0..1200).all(|at| runs.get(at) == array[at as usize]));
    }
}

/// What a child is not to have moves with the pages, and is noted of what is shown twice, or nothing has happened.
#[test]
fn what_is_not_forked_comes_along_or_nothing_does() {
    type How = fn(&World) -> Done;
    let deeds: [(&str, How); 3] = [
        ("moved", |w| {
            let place = RemapFlags::MAYMOVE | RemapFlags::FIXED;
            done(w.p.mremap(AT, PAGES * PAGE, PAGES * PAGE, place, MOVED))
        }),
        ("shown here", |w| done(w.p.share_range(SHARED_AT, PAGES * PAGE, &w.p))),
        ("shown there", |w| done(w.p.share_range(SHARED_AT, PAGES * PAGE, &w.q))),
    ];
    let left_out = |p: &Process| {
        let space = p.space();
        let runs = space.segs(p.cx()).left_out(space.limits()).count();
        runs as u64
    };
    let mut refused = 0;
    for (what, how) in deeds {
        for k in 1.. {
            let w = World::new();
            let shown =
                w.q.space().segs(w.q.cx()).iter().next().map(|seg| seg.range().start().get());
            for (p, at) in [(&w.p, AT), (&w.p, SHARED_AT), (&w.q, shown.unwrap())] {
                let out = |n| p.madvise(at + n * PAGE, PAGE, MemAdvice::DontFork);
                (1..PAGES).step_by(2).try_for_each(out).unwrap();
            }
            let before = (w.m.dump(), left_out(&w.p), left_out(&w.q));
            let (answer, asked) = under(Plan { from: FROM, k, and_later: true }, || how(&w));
            w.m.verify().unwrap_or_else(|v| panic!("{what}: {v}"));
            if answer.is_err() {
                assert_eq!(w.m.dump().visible(), before.0.visible(), "{what}: not as before");
                assert_eq!((left_out(&w.p), left_out(&w.q)), (before.1, before.2), "{what}");
                assert_eq!(how(&w), Ok(()), "{what}: nothing is refused any more");
                refused += 1;
            }
            let more = if what == "moved" { 0 } else { PAGES / 2 };
            let runs = left_out(&w.p) + left_out(&w.q);
            assert_eq!(runs, before.1 + before.2 + more, "{what}");
            w.m.verify().unwrap_or_else(|v| panic!("{what}, again: {v}"));
            if asked.refused == 0 {
                break;
            }
        }
    }
    assert!(refused > 6, "only {refused}");
}

/// What a machine needs in proportion to its memory is asked for in a way that can fail.
#[test]
fn a_machine_is_not_switched_on() {
    const BOOT_FROM: usize = 512 << 10;
    let mut errors = 0;
    for k in 1.. {
        let plan = Plan { from: BOOT_FROM, k, and_later: true };
        let (built, asked) = under(plan, || Machine::builder().frames(1 << 18).build());
        if asked.refused == 0 {
            built.expect("nothing was refused").verify().unwrap();
            break;
        }
        let error = built.expect_err("there is no machine without them");
        println!("{k}: {error}");
        errors += 1;
    }
    assert!(errors > 1, "only {errors}");
}

/// What each processor keeps at hand of a process is asked for in a way that can fail: there is no process then, and nothing of it.
#[test]
fn a_process_is_not_made() {
    const CPUS: u16 = 16; // so that the smallest of these arrays is larger than any record
    type How = fn(&Process) -> Result<Process, segvm::machine::SysError>;
    let calls: [(&str, How); 3] =
        [("spawn", |p| p.machine().spawn("q")), ("fork", Process::fork), ("vfork", Process::vfork)];
    let m = Machine::builder().frames(1024).cpus(CPUS).build().unwrap();
    let hats = || m.hat().hats(m.cx()).len();
    for ((what, how), and_later) in calls.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let mut errors = 0;
        for k in 1.. {
            let p = m.spawn("p").unwrap();
            map(&p, AT, None);
            p.store(AT, &[1]).unwrap();
            p.mprotect(AT, PAGE, 1).unwrap(); // as a fork leaves the translation
            let (before, free, had) = (m.dump(), m.db().freemem(), hats());
            let plan = Plan { from: FROM, k, and_later };
            let (made, asked) = under(plan, || how(&p));
            let at = format!("{what}: {plan:?}, {asked:?}");
            m.verify().unwrap_or_else(|v| panic!("{at}: {v}"));
            match made {
                Ok(made) => made.exit(),
                Err(e) => {
                    assert_eq!(e.errno, ENOMEM, "{at}: {e}");
                    assert_ne!(asked.refused, 0, "{at}: nothing was refused");
                    errors += 1;
                }
            }
            assert_eq!(m.dump().visible(), before.visible(), "{at}: not as before");
            assert_eq!((m.db().freemem(), hats()), (free, had), "{at}: something is left");
            p.exit();
            if asked.refused == 0 {
                break;
            }
        }
        // The hat's is waited for, and asked for again; the address space's two are not.
        assert!(errors >= if and_later { 3 } else { 2 }, "{what}: only {errors}");
    }
}

/// A flush cannot fail: on however many processors an entry is remembered, it goes without the heap.
#[test]
fn a_flush_asks_for_nothing() {
    let none = Plan { from: 1, k: 1, and_later: true };
    for cpus in [1, 2, 64, 65, 200, 257, 600] {
        let m = Machine::builder().frames(4096).cpus(cpus).build().unwrap();
        let p = m.spawn("p").unwrap();
        map(&p, AT, None);
        let cpu_of = |n: u64| CpuId((n * 37 % u64::from(cpus)) as u16);
        for page in 0..40 {
            p.run_on(cpu_of(page));
            p.store(AT + page * PAGE, &[1]).unwrap();
        }
        let hat = std::sync::Arc::clone(p.space().hat());
        let range = |pages| VirtRange::exact(AT, pages * PAGE).unwrap();
        let flushes = || m.counters().get(Counter::Flushes);
        let before = flushes();
        let (_, asked) = under(none, || {
            hat.clear_write(p.cx(), range(1)); // one entry
            hat.clear_write(p.cx(), range(40)); // the whole space
            hat.unload(p.cx(), range(39), UnloadFlags::empty());
        });
        assert_eq!((asked, flushes() - before), (Asked::default(), 3), "{cpus} processors");
        m.verify().unwrap();
    }
}

/// An unmap cannot be refused: a map of more than a pair of chunks takes its own index apart.
#[test]
fn an_index_is_taken_apart_without_the_heap() {
    let none = Plan { from: 1, k: 1, and_later: true };
    let m = Machine::builder().frames(4096).build().unwrap();
    let p = m.spawn("p").unwrap();
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let len = 400 * PAGE;
    p.mmap(&MapRequest { addr: AT, len, prot: 3, flags, file: None, offset: 0 }).unwrap();
    for page in [0, 300] {
        p.store(AT + page * PAGE, &[1]).unwrap();
    }
    let (done, asked) = under(none, || p.munmap(AT, len));
    assert_eq!((done.map_err(|e| e.errno), asked), (Ok(()), Asked::default()));
    m.verify().unwrap();
}

/// An end cannot be refused, however little the heap has: page tables that go back need no list, however many they are.
#[test]
fn an_end_needs_no_heap() {
    const LEAVES: u64 = 20;
    let none = Plan { from: 1, k: 1, and_later: true };
    let m = Machine::builder().frames(4096).build().unwrap();
    let p = m.spawn("p").unwrap();
    for n in 0..LEAVES {
        map(&p, AT + n * 512 * PAGE, None);
        p.store(AT + n * 512 * PAGE, &[1]).unwrap();
    }
    let before = m.counters().get(Counter::TableFrees);
    under(none, || p.exit());
    let freed = m.counters().get(Counter::TableFrees) - before;
    assert_eq!(freed, LEAVES + 3);
    m.verify().unwrap();
    assert_eq!(m.swap().live(), 0, "law 3");
}

/// Page tables are taken back when memory is short, so that asks the heap for no list of those it takes them from; and a walk of translations for none
/// of what it reports.
#[test]
fn tables_are_taken_back_without_the_heap() {
    const PROCESSES: u64 = 100;
    const LEAVES: u64 = 10;
    const SPAN: u64 = 512 * PAGE; // of a leaf
    let m = Machine::builder().frames(4096).build().unwrap();
    let all: Vec<_> = (0..PROCESSES).map(|_| m.spawn("p").unwrap()).collect();
    for p in &all {
        let fixed = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
        let (len, flags) = (LEAVES * SPAN, fixed | MapFlags::NORESERVE);
        p.mmap(&MapRequest { addr: AT, len, prot: 3, flags, file: None, offset: 0 }).unwrap();
        p.store(AT, &[1]).unwrap();
    }
    // Of one there is more to report, and more to take, than fits on a stack.
    let many = &all[PROCESSES as usize / 2];
    (0..512).for_each(|n| many.store(AT + n * PAGE, &[1]).unwrap());
    (1..LEAVES).for_each(|n| many.store(AT + n * SPAN, &[1]).unwrap());
    let (mut seen, whole) = (0, VirtRange::exact(AT, LEAVES * SPAN).unwrap());
    let none = Plan { from: 1, k: 1, and_later: true };
    let walk = || many.space().hat().walk(many.cx(), whole, &mut |_, _| seen += 1);
    assert_eq!((under(none, walk).1, seen), (Asked::default(), 512 + LEAVES - 1));
    let (taken, asked) = under(none, || m.hat().steal_tables(m.cx(), u64::MAX));
    let leaves_and_above = 3 * PROCESSES + LEAVES - 1; // the two above each
    assert_eq!((taken, asked), (leaves_and_above, Asked::default()));
    m.verify().unwrap();
    let mut byte = [0];
    all.iter().for_each(|p| p.load(AT, &mut byte).unwrap());
    assert_eq!(byte, [1]);
    m.verify().unwrap();
}
