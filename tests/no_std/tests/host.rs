//! The crates without std under a host's scheduler: the hooks yield to it, and count how often they were asked to wait.

use addr_space::{AddrSpace, FaultKind, SegKind, SyncFlags};
use bare_machine::machine::{FIRST_FRAME, FRAMES, Hooks};
use bare_machine::{Machine, RomFile, tour};
use hat_x86::HatLimits;
use page_db::{
    Access, Clock, Counter, Cx, FileOffset, LockedPage, PAGE_SIZE, Pfn, Prot, VirtAddr, VirtRange,
    Vnode, WaitHooks,
};
use seg_drivers::{DeviceMemory, SegDevArgs, SegVnArgs};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// A kernel's yield, here the host's.
#[derive(Default)]
struct Yielding {
    pauses: AtomicU64,
}

impl WaitHooks for Yielding {
    fn pause(&self, _spins: u32) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
    }
}

impl Yielding {
    fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }
    /// Returns once a thread that uses these hooks has had to wait since `before`.
    fn until_one_waits(&self, before: u64) {
        while self.pauses() == before {
            thread::yield_now();
        }
    }
}

/// A kernel's queues of sleepers, here over one condition of the host's: for each place, how often it was woken.
#[derive(Default)]
struct Parking {
    pauses: AtomicU64,
    sleepers: AtomicU64,
    woken: Mutex<BTreeMap<u64, u64>>,
    changed: Condvar,
}

impl WaitHooks for Parking {
    fn pause(&self, _spins: u32) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
    }
    fn sleep(&self, place: u64, must_wait: &mut dyn FnMut() -> bool) {
        let seen = *self.woken.lock().expect("no panic").entry(place).or_default();
        if must_wait() {
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let woken = self.woken.lock().expect("no panic");
            let still = |woken: &mut BTreeMap<u64, u64>| woken[&place] == seen;
            let long = Duration::from_secs(30);
            let woken = self.changed.wait_timeout_while(woken, long, still).expect("no panic");
            assert!(!woken.1.timed_out(), "nobody wakes the thread");
        }
    }
    fn wake(&self, place: u64) {
        *self.woken.lock().expect("no panic").entry(place).or_default() += 1;
        self.changed.notify_all();
    }
}

impl Parking {
    /// Returns once `n` threads have fallen asleep, and a moment later.
    fn until_asleep(&self, n: u64) {
        while self.sleepers.load(Ordering::SeqCst) < n {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A kernel's clock, here the host's: a tick takes a hundredth of a second.
#[derive(Debug, Default)]
struct Ticking {
    ticks: AtomicU64,
}

impl Clock for Ticking {
    fn now(&self) -> u64 {
        self.ticks.load(Ordering::SeqCst)
    }
    fn tick(&self) {
        thread::sleep(Duration::from_millis(10));
        self.ticks.fetch_add(1, Ordering::SeqCst);
    }
}

fn hooks(cpus: u16) -> (Arc<Yielding>, Hooks) {
    let yielding = Arc::new(Yielding::default());
    (Arc::clone(&yielding), Hooks::new(cpus, yielding, Arc::new(Ticking::default())))
}

const BASE: u64 = 0x20_0000;

fn mapped(cx: &Cx, machine: &Machine, pages: u64) -> AddrSpace {
    let space = machine.space(cx).expect("a frame for the top table");
    let range = VirtRange::exact(BASE, pages * PAGE_SIZE).expect("a range");
    let args = SegVnArgs::zfod(&machine.vn, Prot::RW);
    space.map(cx, range, &args).expect("nothing is mapped there yet");
    space
}

#[test]
fn map_fault_fork_and_page_out_give_every_byte_back_and_one_thread_never_waits() {
    let (yielding, hooks) = hooks(1);
    let mut steps = Vec::new();
    let report = tour(&hooks, &mut |step| steps.push(step.to_owned())).expect("the tour");
    assert_eq!(steps.len(), 8, "{steps:?}");
    assert_eq!(yielding.pauses(), 0, "alone, there is nobody to wait for");
    let count = |counter| report.counters.get(counter);
    assert!(count(Counter::CowFault) >= 32, "{}", count(Counter::CowFault));
    assert!(count(Counter::AnonPgOut) > 300, "{}", count(Counter::AnonPgOut));
    assert!(count(Counter::AnonPgIn) > 300, "{}", count(Counter::AnonPgIn));
    // Clustered: many pages to a transfer.
    assert!(report.written * 4 < count(Counter::AnonPgOut), "{} transfers", report.written);
}

#[test]
fn the_same_calls_count_the_same() {
    let run = || {
        let (_, hooks) = hooks(1);
        tour(&hooks, &mut |_| {}).expect("the tour").counters
    };
    assert_eq!(run(), run());
}

#[test]
fn a_fault_on_a_locked_page_turns_in_the_hook_until_the_page_is_free() {
    let (yielding, hooks) = hooks(2);
    let cx = &hooks.cx(0, 1);
    let machine = &Machine::boot(cx, &hooks, 2).expect("a machine");
    let space = &mapped(cx, machine, 1);
    machine.store(cx, space, BASE, b"locked").expect("a store");

    let addr = VirtAddr::new(BASE).expect("canonical");
    let frame = space.hat().probe(cx, addr).expect("loaded by the store").pfn;
    let page = machine.db.page_of(frame).expect("memory, not a device");
    let page = machine.db.lock_excl(cx, page);
    machine.db.unload(cx, &page);
    let before = yielding.pauses();
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let cx = &hooks.cx(1, 2);
            let mut found = [0; 6];
            machine.load(cx, space, BASE, &mut found).expect("a load");
            found
        });
        yielding.until_one_waits(before);
        assert!(!reader.is_finished(), "the page is locked");
        machine.db.mem().write(page.pfn(), 0, b"opened");
        drop(page);
        assert_eq!(&reader.join().expect("the reader"), b"opened");
    });
    machine.verify(cx, &[space]).expect("every invariant");
    space.free(cx);
}

/// A wait that may take long is slept through: nothing runs meanwhile, and what ends it wakes the thread.
#[test]
fn whoever_waits_for_a_page_or_an_address_space_sleeps_in_the_hook_until_it_is_woken() {
    let parking = Arc::new(Parking::default());
    let hooks = &Hooks::new(2, Arc::clone(&parking) as _, Arc::new(Ticking::default()));
    let cx = &hooks.cx(0, 1);
    let machine = &Machine::boot(cx, hooks, 2).expect("a machine");
    let space = &mapped(cx, machine, 2);
    machine.store(cx, space, BASE, b"locked").expect("a store");

    let addr = VirtAddr::new(BASE).expect("canonical");
    let frame = space.hat().probe(cx, addr).expect("loaded by the store").pfn;
    let page = machine.db.page_of(frame).expect("memory, not a device");
    let page = machine.db.lock_excl(cx, page);
    machine.db.unload(cx, &page);
    thread::scope(|threads| {
        let reader = threads.spawn(|| {
            let mut found = [0; 6];
            machine.load(&hooks.cx(1, 2), space, BASE, &mut found).expect("a load");
            found
        });
        parking.until_asleep(1); // for the page
        let range = VirtRange::exact(BASE + PAGE_SIZE, PAGE_SIZE).expect("a range");
        let unmap = move |thread| space.unmap(&hooks.cx(1, thread), range).expect("mapped");
        let writer = threads.spawn(move || unmap(3));
        parking.until_asleep(2); // for the reader
        let next = threads.spawn(move || unmap(4));
        parking.until_asleep(3); // for the writer
        assert!(!reader.is_finished() && !writer.is_finished() && !next.is_finished());
        drop(page);
        assert_eq!(&reader.join().expect("the reader"), b"locked");
        writer.join().expect("the writer");
        next.join().expect("the next writer, with nothing left to unmap");
    });
    assert_eq!(parking.pauses.load(Ordering::SeqCst), 0, "no lock was held but for those waits");
    machine.verify(cx, &[space]).expect("every invariant");
    space.free(cx);
}

/// The clock is what such an operation waits by: with one whose ticks take no time it would have given up before the pin was let go.
#[test]
fn an_operation_on_a_page_that_another_has_pinned_waits_tick_by_tick() {
    let (_, hooks) = hooks(2);
    let cx = &hooks.cx(0, 1);
    let machine = &Machine::boot(cx, &hooks, 2).expect("a machine");
    let file = RomFile::new(cx, &machine.db, vec![7; PAGE_SIZE as usize]).expect("a vnode");
    let range = VirtRange::exact(BASE, PAGE_SIZE).expect("a range");
    let spaces = [(), ()].map(|()| {
        let space = machine.space(cx).expect("a frame for the top table");
        let vnode: Arc<dyn Vnode> = Arc::clone(&file) as _;
        let args = SegVnArgs {
            vnode: Some(vnode),
            offset: FileOffset(0),
            ..SegVnArgs::zfod(&machine.vn, Prot::READ)
        };
        space.map(cx, range, &args).expect("nothing is mapped there yet");
        space
    });
    let [mine, pinned] = &spaces;
    pinned.fault(cx, range, FaultKind::SoftLock, Access::Read).expect("mapped");
    thread::scope(|threads| {
        let waits = threads.spawn(|| mine.sync(&hooks.cx(1, 2), range, SyncFlags::INVALIDATE));
        while machine.db.clock().now() < 3 {
            thread::yield_now();
        }
        assert!(!waits.is_finished(), "the page is pinned");
        pinned.fault(cx, range, FaultKind::SoftUnlock, Access::Read).expect("pinned");
        waits.join().expect("the thread").expect("thrown out as soon as nobody has it pinned");
    });
    machine.verify(cx, &[mine, pinned]).expect("every invariant");
    spaces.iter().for_each(|space| space.free(cx));
    assert!(file.close(cx, &machine.db).expect("nothing is dirty"));
}

#[test]
fn a_writer_of_the_address_space_turns_in_the_hook_until_the_reader_is_gone() {
    let (yielding, hooks) = hooks(2);
    let cx = &hooks.cx(0, 1);
    let machine = &Machine::boot(cx, &hooks, 2).expect("a machine");
    let space = &mapped(cx, machine, 4);
    let segs = space.segs(cx);
    let before = yielding.pauses();
    thread::scope(|threads| {
        threads.spawn(|| {
            let cx = &hooks.cx(1, 2);
            let range = VirtRange::exact(BASE + PAGE_SIZE, PAGE_SIZE).expect("a range");
            space.unmap(cx, range).expect("mapped");
        });
        yielding.until_one_waits(before);
        assert_eq!(segs.len(), 1, "while it is read, the list stays as it is");
        drop(segs);
    });
    assert_eq!(space.segs(cx).len(), 2);
    machine.verify(cx, &[space]).expect("every invariant");
    space.free(cx);
}

/// No frame is short, so waiting for one ends at once, however often.
#[test]
fn a_space_whose_top_table_has_no_record_is_refused() {
    let (_, hooks) = hooks(1);
    let cx = &hooks.cx(0, 1);
    // The kernel's two, those under its heap, and one more.
    let limits = |tables| HatLimits { tables, ..HatLimits::default() };
    let machine = &Machine::boot_within(cx, &hooks, 1, limits(3)).expect("a machine");
    let first = machine.space(cx).expect("a record");
    let free = machine.db.freemem();
    let refused = machine.space(cx).expect_err("there is no other").to_string();
    assert!(refused.contains("no free frame"), "{refused}");
    assert_eq!(machine.db.freemem(), free);
    first.free(cx);
    machine.space(cx).expect("given back").free(cx);
    machine.verify(cx, &[]).expect("every invariant");
}

/// A device of one page.
#[derive(Debug)]
struct Register;

impl DeviceMemory for Register {
    fn name(&self) -> String {
        "register".into()
    }
    fn pages(&self) -> u64 {
        1
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        (index == 0).then_some(Pfn(FIRST_FRAME + FRAMES))
    }
}

/// Page-out takes no page of a device, so a table that maps nothing else is taken back by the hook, or never.
#[test]
fn tables_over_a_device_are_taken_back_when_frames_are_short() {
    const TABLE: u64 = 512 * PAGE_SIZE;
    const TABLES: u64 = FRAMES + 48;
    let (_, hooks) = hooks(1);
    let cx = &hooks.cx(0, 1);
    let machine = &Machine::boot(cx, &hooks, 1).expect("a machine");
    let space = machine.space(cx).expect("a frame for the top table");
    let args = SegDevArgs {
        device: Arc::new(Register),
        offset: FileOffset(0),
        prot: Prot::RW,
        max_prot: Prot::RWX,
        kind: SegKind::SHARED,
    };
    let at = |n: u64| BASE + n * TABLE;
    for n in 0..TABLES {
        let range = VirtRange::exact(at(n), PAGE_SIZE).expect("a range");
        space.map(cx, range, &args).expect("nothing is mapped there yet");
        machine.store(cx, &space, at(n), &[n as u8]).expect("a table, if another goes");
    }
    let mut found = [0];
    for n in 0..TABLES {
        machine.load(cx, &space, at(n), &mut found).expect("a table, if another goes");
        assert_eq!(found, [(TABLES - 1) as u8], "one register");
    }
    machine.verify(cx, &[&space]).expect("every invariant");
    space.free(cx);
    machine.verify(cx, &[]).expect("every invariant");
}

/// The short locks of ledgers and registries too: without `std` there is no way to take one that does not say how to wait.
#[test]
fn whoever_finds_a_ledger_locked_turns_in_the_hook() {
    let yielding = Arc::new(Yielding::default());
    let hooks: Arc<dyn WaitHooks> = Arc::clone(&yielding) as _;
    let ledger = &page_db::sync::Mutex::new(page_db::Rank::SwapReserve, 1);
    let mut books = ledger.lock_leaf(&*hooks);
    thread::scope(|threads| {
        let next = threads.spawn(|| *ledger.lock_leaf(&*hooks));
        yielding.until_one_waits(0);
        assert!(!next.is_finished());
        *books = 2;
        drop(books);
        assert_eq!(next.join().expect("the next"), 2);
    });
}

/// Of two threads that make a value that is set once neither waits: one may have lost its processor on the way.
#[test]
fn a_value_set_once_is_waited_for_by_nobody() {
    let once = page_db::sync::Once::new();
    let value = once.get_or_init(|| {
        let first = *thread::scope(|threads| {
            threads.spawn(|| once.get_or_init(|| 1)).join().expect("it does not wait")
        });
        first + 1
    });
    assert_eq!((*value, once.get(), once.set(3)), (1, Some(&1), Err(3)), "the first is believed");
}

/// Bytes that say which thread wrote them, to which page, in which round.
fn mark(thread: u64, page: u64, round: u64) -> [u8; 8] {
    (thread << 48 | page << 24 | (round + 1)).to_le_bytes()
}

/// Stores, forks, stores again and compares, while others do the same and memory is too small for all of them.
fn one_of_many(hooks: &Hooks, machine: &Machine, thread: u64) {
    const PAGES: u64 = 90;
    let cx = &hooks.cx(thread as u16, 10 + thread as u32);
    let space = mapped(cx, machine, PAGES);
    let at = |page: u64| BASE + page * PAGE_SIZE + 16;
    for page in 0..PAGES {
        machine.store(cx, &space, at(page), &mark(thread, page, 0)).expect("a store");
    }
    for round in 1..4 {
        let child = machine.space(cx).expect("a frame for the top table");
        space.dup(cx, &child).expect("a fork");
        for page in (0..PAGES).step_by(3) {
            machine.store(cx, &space, at(page), &mark(thread, page, round)).expect("a store");
        }
        for page in 0..PAGES {
            let now = if page % 3 == 0 { round } else { 0 };
            let then = if page % 3 == 0 { round - 1 } else { 0 };
            for (space, round) in [(&space, now), (&child, then)] {
                let mut found = [0; 8];
                machine.load(cx, space, at(page), &mut found).expect("a load");
                assert_eq!(found, mark(thread, page, round), "page {page}, thread {thread}");
            }
        }
        child.free(cx);
    }
    let bad = VirtAddr::new(BASE + PAGES * PAGE_SIZE).expect("canonical");
    space.fault_at(cx, bad, FaultKind::Invalid, Access::Read).expect_err("nothing is mapped");
    space.free(cx);
    assert!(cx.held().is_empty(), "X2");
}

#[test]
fn three_threads_share_too_little_memory_and_keep_their_bytes() {
    const THREADS: u16 = 3;
    let (_, hooks) = hooks(THREADS);
    let cx = &hooks.cx(0, 1);
    let machine = &Machine::boot(cx, &hooks, THREADS).expect("a machine");
    let at_boot = machine.db.freemem();
    thread::scope(|threads| {
        for n in 0..THREADS {
            let hooks = &hooks;
            threads.spawn(move || one_of_many(hooks, machine, u64::from(n)));
        }
    });
    machine.verify(cx, &[]).expect("every invariant");
    assert_eq!((machine.swap.live(), machine.swap.info().reserved()), (0, 0));
    machine.db.drain_magazines(cx);
    assert_eq!(machine.db.freemem(), at_boot);
    assert!(cx.held().is_empty(), "X2");
}
