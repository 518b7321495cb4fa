//! Law 1: what nobody has touched is free.
//!
//! One story is told twice, on a range of 16 KiB and on one of 16 TiB, for each kind of memory: map, fork, protect, advise, touch the first,
//! the middle and the last page, fork again, copy, lock, look, write out, cut pieces off, unmap. After each step the cost counters and the heap
//! are compared.
//!
//! What may differ: three pages of 16 KiB share one page table and one chunk of the anon map; those of 16 TiB have three of each. The
//! bounds in [`SLACK`] are these, worked out, and hold for ranges of any length.

use crate::tally;
use crate::world::{ANON, BASE, NONE, NORESERVE, PAGE, PRIVATE, R, RW, SHARED, at, map, open};
use addr_space::{Advice, LockAll, SyncFlags};
use page_db::{Counter, Snapshot};
use segvm::Machine;
use segvm::files::OpenMode;
use segvm::machine::{ForkPolicy, Limit, MapFlags, MemAdvice, Personality, Process, RemapFlags};
use segvm::machine::{SwapArea, SwapBacking};

const SMALL: u64 = (16 << 10) / PAGE;
/// What is compared with it.
const LENGTHS: [u64; 3] = [16 << 20, 16 << 30, 16 << 40];

/// Tables that three far pages have and three near ones have not: a leaf and two above it for each.
const TABLES: u64 = 3 * 3;
/// Entries of a page table.
const ENTRIES: u64 = 512;

/// By how much a counter may be higher for a range of any length, in one step. What is not here is equal.
const SLACK: &[(Counter, u64)] = &[
    // Making, filling and taking back the tables.
    (Counter::TableAllocs, TABLES),
    (Counter::TableFrees, TABLES),
    (Counter::FrameAllocs, TABLES),
    (Counter::FrameFrees, TABLES),
    (Counter::BytesZeroed, TABLES * PAGE),
    (Counter::PteWrites, TABLES),
    (Counter::FlushEntries, TABLES),
    // Tables go with the last page under them: three times instead of once.
    (Counter::Flushes, 2),
    // Names far apart may meet in a bucket of the page hash, which those of neighbours do not.
    (Counter::HashLinks, 16),
    // A walk reads the tables there are, and in the top one an entry for each 512 GiB of the range: 32. No step walks more than twice.
    (Counter::PteReads, 2 * (TABLES * ENTRIES + 32)),
    // A pass over the slots looks at whole chunks of 32: three of them instead of one. Checking the machine takes four passes.
    (Counter::AnonSlots, 4 * 3 * 32),
];

/// By how much more heap a step may ask for: three chunks and the blocks above them, and room to list what was found in three places.
const HEAP: u64 = 16 << 10;

struct Cost {
    step: &'static str,
    counts: Snapshot,
    asked: u64,
    kept: i64,
}

/// Tells the story and says what each step cost.
struct Teller {
    machine: Machine,
    costs: Vec<Cost>,
}

impl Teller {
    fn step<T>(&mut self, step: &'static str, work: impl FnOnce() -> T) -> T {
        let before = self.machine.counters().snapshot();
        let (result, asked, kept) = tally::of(work);
        let counts = self.machine.counters().snapshot().since(&before);
        self.costs.push(Cost { step, counts, asked, kept });
        result
    }
}

fn story(fork: ForkPolicy, pages: u64, flags: MapFlags, of_file: bool) -> Vec<Cost> {
    let area = SwapArea { backing: SwapBacking::Memory, pages: 3 << (34 - 12), priority: 0 };
    let m = Machine::builder().frames(1024).swap(area).fork(fork).build().unwrap();
    let file = of_file.then(|| open(&m, "large", pages * PAGE, OpenMode::ReadWrite));
    let p = m.spawn("p").unwrap();
    let mut t = Teller { machine: m.clone(), costs: Vec::new() };
    let (all, len) = (BASE, pages * PAGE);
    let three = [0, pages / 2, pages - 1];
    let write = |p: &Process, page: u64| p.store(at(page) + 8, b"written").unwrap();

    t.step("map elsewhere", || p.map_anon(PAGE).unwrap());
    t.step("map", || map(&p, 0, pages, RW, flags, file.as_ref()).unwrap());
    t.step("fork, untouched", || p.fork().unwrap().exit());
    t.step("protect", || p.mprotect(all, len, NONE).unwrap());
    t.step("protect back", || p.mprotect(all, len, RW).unwrap());
    t.step("advise", || p.madvise(all, len, MemAdvice::Use(Advice::Random)).unwrap());
    for (page, name) in three.into_iter().zip(["touch first", "touch middle", "touch last"]) {
        t.step(name, || write(&p, page));
    }
    let child = t.step("fork", || p.fork().unwrap());
    for (page, name) in three.into_iter().zip(["copy first", "copy middle", "copy last"]) {
        t.step(name, || write(&child, page));
    }
    t.step("child protects", || child.mprotect(all, len, R).unwrap());
    t.step("child exits", || child.exit());
    for (page, name) in three.into_iter().zip(["protect first", "protect middle", "protect last"]) {
        t.step(name, || p.mprotect(at(page), PAGE, R).unwrap());
    }
    t.step("protect all", || p.mprotect(all, len, RW).unwrap());
    for (page, name) in three.into_iter().zip(["lock first", "lock middle", "lock last"]) {
        t.step(name, || p.mlock(at(page), PAGE).unwrap());
    }
    let child = t.step("fork, locked", || p.fork().unwrap());
    t.step("child exits too", || child.exit());
    t.step("unlock", || p.munlock(all, len).unwrap());
    for (page, name) in three.into_iter().zip(["incore first", "incore middle", "incore last"]) {
        t.step(name, || p.mincore(at(page), PAGE).unwrap());
    }
    if !of_file {
        t.step("ask for it", || p.madvise(all, len, MemAdvice::WillNeed).unwrap());
    }
    if flags.contains(NORESERVE | ANON) {
        // Untouched pages that nothing is reserved for are not locked.
        t.step("lock all", || p.mlock(all, len).unwrap());
        t.step("unlock all", || p.munlock(all, len).unwrap());
        t.step("lock everything", || p.mlockall(LockAll::CURRENT).unwrap());
        t.step("unlock everything", || p.munlockall().unwrap());
    }
    t.step("pmap", || p.space().pmap(p.cx()).to_string());
    t.step("segment tree", || p.space().seg_tree(p.cx()).to_string());
    t.step("anon maps", || {
        m.anon().maps().iter().map(|map| map.chunks(m.cx()).len()).sum::<usize>()
    });
    t.step("free", || p.madvise(all, len, MemAdvice::Use(Advice::Free)).unwrap());
    for (page, name) in three.into_iter().zip(["again first", "again middle", "again last"]) {
        t.step(name, || write(&p, page));
    }
    t.step("write out", || p.msync(all, len, SyncFlags::empty()).unwrap());
    t.step("give up", || p.madvise(all, len, MemAdvice::DontNeed).unwrap());
    t.step("zero on fork", || {
        let _ = p.madvise(all, len, MemAdvice::InheritZero); // refused for files
    });
    t.step("no fork", || p.madvise(all, len, MemAdvice::DontFork).unwrap());
    t.step("fork of nothing", || p.fork().unwrap().exit());
    t.step("fork as ever", || p.madvise(all, len, MemAdvice::DoFork).unwrap());
    t.step("verify", || m.verify().unwrap());
    let new_place = all + (32 << 40);
    let moves = RemapFlags::MAYMOVE | RemapFlags::FIXED;
    t.step("move away", || p.mremap(all, len, len, moves, new_place).unwrap());
    t.step("move back, a page less", || p.mremap(new_place, len, len - PAGE, moves, all).unwrap());
    t.step("grow", || p.mremap(all, len - PAGE, len, RemapFlags::empty(), 0).unwrap());
    t.step("unmap middle", || p.munmap(at(pages / 2), PAGE).unwrap());
    t.step("unmap first", || p.munmap(all, PAGE).unwrap());
    t.step("unmap last", || p.munmap(at(pages - 1), PAGE).unwrap());
    t.step("verify pieces", || m.verify().unwrap());
    t.step("unmap", || p.munmap(all, len).unwrap());
    t.step("exit", || p.exit());
    m.verify().unwrap();
    t.costs
}

/// Tells the story of every length, with both ways to fork, and compares each with that of 16 KiB.
fn compare(lengths: &[u64], flags: MapFlags, of_file: bool) {
    for fork in [ForkPolicy::Eager, ForkPolicy::Lazy] {
        compare_with(fork, lengths, flags, of_file);
    }
}

fn compare_with(fork: ForkPolicy, lengths: &[u64], flags: MapFlags, of_file: bool) {
    let small = story(fork, SMALL, flags, of_file);
    for bytes in lengths {
        check(&small, &story(fork, bytes / PAGE, flags, of_file), *bytes);
    }
}

/// The costs of a story of `bytes` against those of 16 KiB.
fn check(small: &[Cost], large: &[Cost], bytes: u64) {
    assert_eq!(small.len(), large.len(), "one story");
    for (s, l) in small.iter().zip(large) {
        let step = s.step;
        // Locks of a debug build aside: the first touch of a part makes the blocks that lead to it, one for each floor of the radix.
        for c in Counter::ALL.iter().filter(|c| !c.is_debug_only()) {
            let more = SLACK.iter().find(|(k, _)| k == c).map_or(0, |(_, n)| *n);
            let (a, b) = (s.counts.get(*c), l.counts.get(*c));
            assert!(b <= a + more, "{step}: {} is {a} for 16 KiB, {b} for {bytes:#x}", c.name());
        }
        let (a, b) = (s.asked, l.asked);
        assert!(b <= a + HEAP, "{step}: {a} bytes of heap for 16 KiB, {b} for {bytes:#x}");
        let kept = l.kept - s.kept;
        assert!(kept <= HEAP as i64, "{step}: {kept} bytes of heap more are kept for {bytes:#x}");
    }
}

/// Calls that answer as Linux ask first what of their range is locked.
fn story_of_locks(pages: u64) -> Vec<Cost> {
    let m = Machine::builder().frames(1024).build().unwrap();
    let p = m.spawn("p").unwrap();
    let mut t = Teller { machine: m.clone(), costs: Vec::new() };
    let (all, len) = (BASE, pages * PAGE);
    map(&p, 0, pages, RW, PRIVATE | ANON | NORESERVE, None).unwrap();
    let elsewhere = p.map_anon(PAGE).unwrap();
    p.mlock(elsewhere, PAGE).unwrap();
    p.set_personality(Personality::Linux);
    t.step("free", || p.madvise(all, len, MemAdvice::Use(Advice::Free)).unwrap());
    // Room for all but one page, so what is locked of them is counted.
    p.set_limit(Limit::Memlock, len);
    t.step("lock", || p.mlock(all, len).unwrap_err());
    p.set_limit(Limit::Memlock, u64::MAX);
    p.store(at(pages / 2), b"written").unwrap();
    p.mlock(at(pages / 2), PAGE).unwrap();
    t.step("free what is locked", || {
        let free = MemAdvice::Use(Advice::Free);
        assert_eq!(p.madvise(all, len, free).unwrap_err().errno, page_db::errno::EINVAL);
    });
    p.exit();
    m.verify().unwrap();
    t.costs
}

#[test]
fn answers_about_locks_cost_what_is_locked() {
    let small = story_of_locks(SMALL);
    for bytes in LENGTHS {
        check(&small, &story_of_locks(bytes / PAGE), bytes);
    }
}

#[test]
fn private_memory_costs_what_is_touched() {
    compare(&LENGTHS, PRIVATE | ANON | NORESERVE, false);
}

/// Shared memory is reserved whole, whatever it is asked for with, so its length is bounded by the swap there is.
#[test]
fn shared_memory_costs_what_is_touched() {
    compare(&LENGTHS[..2], SHARED | ANON, false);
}

#[test]
fn reserved_private_memory_costs_what_is_touched() {
    compare(&LENGTHS[..2], PRIVATE | ANON, false);
}

#[test]
fn private_file_mappings_cost_what_is_touched() {
    compare(&LENGTHS, PRIVATE | NORESERVE, true);
}

#[test]
fn shared_file_mappings_cost_what_is_touched() {
    compare(&LENGTHS, SHARED, true);
}
