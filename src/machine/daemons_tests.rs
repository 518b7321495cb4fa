//! Page-out in threads: progress under pressure, and an answer when there is none to be had.

use super::*;
use addr_space::Signal;
use page_db::pageout::PageoutConfig;
use page_db::{Counter, Cx, MemoryTries, PAGE_SIZE, PageError, Pfn, Reserve, errno};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use swapfs::{DeviceError, MemDevice, SwapDevice};

const P: u64 = PAGE_SIZE;

fn word(i: u64, round: u64) -> u64 {
    i * 1000 + round + 1
}

/// Every page of `at`, `pages` long, is stored and read back `rounds` times by `threads` threads, each its own pages.
fn work(p: &Process, at: u64, pages: u64, threads: u64, rounds: u64) {
    thread::scope(|s| {
        for t in 0..threads {
            let worker = p.another_thread(CpuId(t as u16));
            s.spawn(move || {
                for round in 0..rounds {
                    for i in (t..pages).step_by(threads as usize) {
                        let va = at + i * P;
                        let mut b = [0; 8];
                        worker.load(va, &mut b).expect("there");
                        let before = if round == 0 { 0 } else { word(i, round - 1) };
                        assert_eq!(u64::from_le_bytes(b), before, "page {i}, round {round}");
                        worker.store(va, &word(i, round).to_le_bytes()).expect("stored");
                    }
                }
            });
        }
    });
}

fn ends_well(m: &Machine, p: &Process) {
    m.verify().expect("sound");
    p.exit();
    m.verify().expect("sound");
    assert_eq!((m.swap().live(), m.swap().info().reserved()), (0, 0));
}

/// A device with something to do about each write; it is told how many there were before, and how many are under way.
pub(super) struct Watched<F> {
    inner: MemDevice,
    before: F,
    writes: AtomicU32,
    now: AtomicU32,
}

impl<F> Watched<F> {
    pub(super) fn new(before: F) -> Arc<Self> {
        let (writes, now) = (AtomicU32::new(0), AtomicU32::new(0));
        Arc::new(Self { inner: MemDevice::new("watched", 4096), before, writes, now })
    }
}

impl<F> std::fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.inner).finish()
    }
}

impl<F: Fn(u32, u32) + Send + Sync> SwapDevice for Watched<F> {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn pages(&self) -> u64 {
        self.inner.pages()
    }
    fn read(&self, cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
        self.inner.read(cx, page, to, mem)
    }
    fn write(
        &self,
        cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        (self.before)(self.writes.fetch_add(1, Ordering::SeqCst), now);
        let done = self.inner.write(cx, page, frames, mem);
        self.now.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

/// A machine with one process of `pages` pages of memory that nothing is reserved for.
fn unreserved(m: &Machine, pages: u64) -> (Process, u64) {
    let p = m.spawn("p").expect("a process");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::NORESERVE;
    let request = MapRequest { addr: 0, len: pages * P, prot: 3, flags, file: None, offset: 0 };
    let at = p.mmap(&request).expect("mapped");
    (p, at)
}

/// A process with one page touched, on a machine that has no frame left; and the address of a page it has not touched.
fn starved() -> (Machine, Process, u64) {
    let m = Machine::builder().frames(96).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(4 * P).expect("mapped");
    p.store(at, b"x").expect("stored");
    assert!(m.squeeze(1000) > 0);
    (m, p, at + P)
}

#[test]
fn threads_that_use_more_than_there_is_are_served() {
    let m = Machine::builder().frames(192).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(600 * P).expect("mapped");
    let daemons = m.spawn_daemons().expect("threads");
    assert!(m.spawn_daemons().is_none(), "once");
    work(&p, at, 600, 2, 3);
    drop(daemons);
    ends_well(&m, &p);
    assert!(m.spawn_daemons().is_some(), "and again");
}

#[test]
fn daemons_start_when_those_before_them_have_ended() {
    // D4. Two threads start and stop them; one that takes new daemons' word for its own never ends.
    let m = Machine::builder().frames(64).build().expect("a machine");
    let (done, ends) = std::sync::mpsc::channel();
    for _ in 0..2 {
        let (m, done) = (m.clone(), done.clone());
        thread::spawn(move || {
            let started = (0..300).filter(|_| m.spawn_daemons().is_some()).count();
            done.send(started)
        });
    }
    let started: usize = (0..2)
        .map(|_| ends.recv_timeout(Duration::from_secs(60)).expect("nobody waits for ever"))
        .sum();
    assert!(started > 0);
    assert!(m.spawn_daemons().is_some(), "they are off");
    m.verify().expect("sound");
}

#[test]
fn pages_of_a_program_that_runs_can_be_reclaimed() {
    let m = Machine::builder().frames(256).no_swap().build().expect("a machine");
    let (cx, db) = (m.cx(), m.db());
    let file = File::in_memory(cx, db, "program", 0).expect("a file");
    let len = 64 * P as usize;
    assert_eq!(file.pwrite(cx, db, 0, &vec![1; len]), Ok(len));
    assert!(m.parts().is_reclaimable(cx));
    file.set_exec(db);
    assert!(m.parts().is_reclaimable(cx), "still a file's");
    file.truncate(cx, db, 0).expect("cut");
    assert!(!m.parts().is_reclaimable(cx));
}

#[test]
fn pushes_overlap() {
    let m = Machine::builder().frames(256).cpus(2).no_swap().build().expect("a machine");
    let most = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&most);
    let slow = Watched::new(move |_: u32, now: u32| {
        seen.fetch_max(now, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(2));
    });
    m.swap().add(m.cx(), slow as _, 0, 4096, 0).expect("an area");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(800 * P).expect("mapped");
    let daemons = m.spawn_daemons().expect("threads");
    work(&p, at, 800, 2, 2);
    drop(daemons);
    assert!(most.load(Ordering::SeqCst) > 1, "one transfer at a time");
    ends_well(&m, &p);
}

#[test]
fn with_swap_full_a_store_is_refused_and_nothing_is_lost() {
    let area = SwapArea { backing: SwapBacking::Memory, pages: 32, priority: 0 };
    let m = Machine::builder().frames(128).cpus(2).swap(area).build().expect("a machine");
    let (p, at) = unreserved(&m, 1000);
    let daemons = m.spawn_daemons().expect("threads");
    let stored = |i: u64| p.store(at + i * P, &word(i, 0).to_le_bytes());
    let full = (0..1000).find(|i| stored(*i).is_err()).expect("memory and swap have an end");
    assert!(full > 100, "{full} pages of 128 frames and 32 slots");
    let refused = stored(full).expect_err("still full");
    assert_eq!(refused.signal, Signal::BusObjErr(errno::ENOMEM));
    for i in 0..full {
        let mut b = [0; 8];
        p.load(at + i * P, &mut b).expect("what was stored is kept");
        assert_eq!(u64::from_le_bytes(b), word(i, 0));
    }
    // A promise that cannot be kept is refused when it is asked for (C2).
    let refused = p.map_anon(1000 * P).expect_err("more than there is");
    assert_eq!(refused.errno, errno::EAGAIN);
    assert!(
        matches!(refused.cause, Cause::Space(AsError::Seg(SegError::NoSwap { .. }))),
        "{refused}"
    );
    p.munmap(at, 64 * P).expect("unmapped");
    stored(full).expect("there is room again");
    drop(daemons);
    ends_well(&m, &p);
}

#[test]
fn with_everything_locked_there_is_an_answer() {
    let m = Machine::builder().frames(128).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(200 * P).expect("mapped");
    let locked = (0..200).take_while(|i| p.mlock(at + i * P, P).is_ok()).count() as u64;
    assert!(locked > 10, "{locked}");
    m.squeeze(1000);
    let daemons = m.spawn_daemons().expect("threads");
    let begun = Instant::now();
    let refused = p.store(at + 199 * P, b"x").expect_err("no frame can be had");
    assert_eq!(refused.signal, Signal::BusObjErr(errno::ENOMEM));
    assert!(begun.elapsed() < Duration::from_secs(60), "a hang");
    drop(daemons);
    m.release();
    p.store(at + 199 * P, b"x").expect("frames are back");
    ends_well(&m, &p);
}

#[test]
fn a_fault_sleeps_until_memory_returns() {
    let (m, p, at) = starved();
    let daemons = m.spawn_daemons().expect("threads");
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        let user = p.another_thread(CpuId(1));
        let done = &done;
        s.spawn(move || {
            user.store(at, b"y").expect("memory returned in time");
            done.store(true, Ordering::SeqCst);
        });
        thread::sleep(Duration::from_millis(100));
        assert!(!done.load(Ordering::SeqCst), "there is no frame");
        assert!(m.db().free_mem().needfree() > 0, "it sleeps");
        m.release();
    });
    assert_eq!(p.load_u8(at), Ok(b'y'));
    drop(daemons);
    ends_well(&m, &p);
}

#[test]
fn whoever_sleeps_when_the_daemons_stop_helps_itself() {
    let (m, p, at) = starved();
    let daemons = m.spawn_daemons().expect("threads");
    thread::scope(|s| {
        let user = p.another_thread(CpuId(1));
        let asleep = s.spawn(move || user.store(at, b"y"));
        while m.db().free_mem().needfree() == 0 {
            thread::yield_now();
        }
        drop(daemons);
        let refused = asleep.join().expect("no panic").expect_err("it found nothing either");
        assert_eq!(refused.signal, Signal::BusObjErr(errno::ENOMEM));
    });
    assert_eq!(m.db().free_mem().needfree(), 0);
    m.release();
    ends_well(&m, &p);
}

#[test]
fn when_nothing_can_be_reclaimed_waiters_are_told() {
    let m = Machine::builder().frames(64).no_swap().build().expect("a machine");
    let daemons = m.spawn_daemons().expect("threads");
    let taken = m.squeeze(1000);
    assert!(taken < 64);
    let p = m.spawn("p");
    assert!(p.is_err() || p.is_ok_and(|p| p.map_anon(P).is_err()), "no swap, no frame");
    drop(daemons);
    assert_eq!(m.release(), taken);
    m.verify().expect("sound");
}

/// What `ask` answers beside a thread that takes more pages than there are, again and again, and after how many rounds; from 2000 on it is answered by the
/// daemons' end.
fn beside_who_takes<T: Send>(
    (m, p): (&Machine, &Process),
    daemons: Daemons,
    ask: impl FnOnce(&Machine) -> T + Send,
) -> (T, u64) {
    let at = p.map_anon(150 * P).expect("mapped");
    let (over, begun) = (AtomicBool::new(false), m.parts().daemon.rounds());
    thread::scope(|s| {
        let (user, asks, over) = (p.another_thread(CpuId(1)), m.clone(), &over);
        s.spawn(move || {
            for i in (0..150).cycle().take_while(|_| !over.load(Ordering::SeqCst)) {
                user.store(at + i * P, b"x").expect("one page can always be had");
            }
        });
        let asker = s.spawn(move || ask(&asks));
        let rounds = || m.parts().daemon.rounds() - begun;
        while !asker.is_finished() && rounds() < 2000 {
            thread::yield_now();
        }
        let taken = rounds();
        over.store(true, Ordering::SeqCst);
        drop(daemons);
        (asker.join().expect("no panic"), taken)
    })
}

#[test]
fn who_asks_for_more_than_can_be_had_is_answered_beside_one_who_takes_it_again() {
    // D1: no round finds nothing, for what goes is brought back at once. Counted in rounds, not in seconds.
    let m = Machine::builder().frames(96).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let daemons = m.spawn_daemons().expect("threads");
    let most = m.db().free_mem().total() - m.db().free_mem().thresholds().pageout_reserve;
    let ask = |m: &Machine| m.db().wait_for_memory(m.cx(), most);
    let (answer, rounds) = beside_who_takes((&m, &p), daemons, ask);
    assert!(rounds < 2000, "no answer after {rounds} rounds");
    assert!(matches!(answer, Err(PageError::NoMemory { .. })), "page tables are in the way");
    ends_well(&m, &p);
}

#[test]
fn rounds_that_find_nothing_for_a_moment_refuse_nobody() {
    // D1: as many as a waiter is refused after if they free something. Counted in rounds, not in seconds.
    let (m, p, at) = starved();
    let daemons = m.spawn_daemons().expect("threads");
    thread::scope(|s| {
        let user = p.another_thread(CpuId(1));
        let asleep = s.spawn(move || user.store(at, b"y"));
        while m.db().free_mem().needfree() == 0 {
            thread::yield_now();
        }
        let begun = m.parts().daemon.rounds();
        while m.parts().daemon.rounds() - begun < 80 && !asleep.is_finished() {
            thread::yield_now();
        }
        assert!(!asleep.is_finished(), "it sleeps");
        m.release();
        asleep.join().expect("no panic").expect("what was locked was let go");
    });
    drop(daemons);
    ends_well(&m, &p);
}

#[test]
fn who_wants_a_page_is_not_refused_beside_who_wants_more_than_can_be_had() {
    // D1: one that waits for a page, and has no turn of its processor in all that time, beside one that takes them and one that asks for all.
    let m = Machine::builder().frames(96).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let daemons = m.spawn_daemons().expect("threads");
    let (daemon, mem) = (&m.parts().daemon, m.db().free_mem());
    let most = mem.total() - mem.thresholds().pageout_reserve;
    let little = daemon.waiters.begin(1, daemon.rounds());
    let ask =
        |m: &Machine| (0..3).filter(|_| m.db().wait_for_memory(m.cx(), most).is_err()).count();
    let (refused, rounds) = beside_who_takes((&m, &p), daemons, ask);
    assert!(rounds < 2000, "no answer after {rounds} rounds");
    assert!(!little.is_vain(), "pages went by");
    assert_eq!(refused, 3, "page tables are in the way");
    drop(little);
    ends_well(&m, &p);
}

#[test]
fn nothing_is_evicted_for_who_asks_for_more_than_there_can_be() {
    let m = Machine::builder().frames(96).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(8 * P).expect("mapped");
    (0..8).for_each(|i| p.store(at + i * P, b"x").expect("stored"));
    let refused = |pages| {
        let before = m.counters().snapshot();
        assert!(m.db().wait_for_memory(m.cx(), pages).is_err());
        m.counters().snapshot().since(&before).get(Counter::AnonPgOut)
    };
    let mem = m.db().free_mem();
    let most = mem.total() - mem.thresholds().pageout_reserve;
    assert_eq!((refused(most + 1), refused(u64::MAX)), (0, 0));
    assert_eq!(refused(most), 8, "that many there could be");
    // Nor does an operation ask for so much, however much it wants.
    let mut tries = MemoryTries::new(1, u64::MAX);
    let most = mem.total() - mem.normal_reserve();
    assert!((64..128).contains(&most), "64 can be had, and the double of it is too much");
    let asked = (0..8).find_map(|_| tries.wait(m.cx(), m.db()).err()).expect("too much");
    assert!(matches!(asked, PageError::NoMemory { wanted, .. } if wanted == most), "{asked}");
    ends_well(&m, &p);
}

/// Whether `comes` is so within twenty seconds.
fn in_time(mut comes: impl FnMut() -> bool) -> bool {
    (0..2000).any(|_| {
        let now = comes();
        if !now {
            thread::sleep(Duration::from_millis(10));
        }
        now
    })
}

#[test]
fn with_nobody_waiting_the_daemons_keep_lotsfree_free_and_push_as_maxpgio_allows() {
    const PUSHES: u64 = 2; // an interval
    let config = PageoutConfig { maxpgio: Some(4 * PUSHES), ..PageoutConfig::default() };
    let m = Machine::builder().frames(64).pageout(config).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(64 * P).expect("mapped");
    let t = m.db().free_mem().thresholds();
    let mut stored = 0;
    while m.db().freemem() > t.throttlefree {
        p.store(at + stored * P, b"x").expect("there is a frame");
        stored += 1;
    }
    let before = m.counters().snapshot();
    assert_eq!(before.get(Counter::PgRRun), 0, "nobody has waited");
    let daemons = m.spawn_daemons().expect("threads");
    // The hands need some intervals before there is a victim: those up to the last with nothing pushed yet do not count.
    let mut idle = 0;
    let enough = in_time(|| {
        let counted = m.counters().snapshot().since(&before);
        if counted.get(Counter::AnonPgOut) == 0 {
            idle = counted.get(Counter::PgRRun);
        }
        m.db().freemem() >= t.lotsfree
    });
    assert!(enough, "{} of {t:?}", m.db().freemem());
    let counted = m.counters().snapshot().since(&before);
    let (runs, pushed) = (counted.get(Counter::PgRRun), counted.get(Counter::AnonPgOut));
    let runs = runs - idle + 1; // the last idle one may have pushed since it was looked at
    assert!(pushed >= t.lotsfree - t.throttlefree, "{pushed} pushed");
    assert!(pushed <= PUSHES * runs, "{pushed} pushed in {runs} intervals");
    drop(daemons);
    ends_well(&m, &p);
}

#[test]
fn while_daemons_run_throttlefree_is_left_to_those_that_free_memory() {
    let m = Machine::builder().frames(1024).build().expect("a machine");
    let (cx, db, t) = (m.cx(), m.db(), m.db().free_mem().thresholds());
    let between = t.pageout_reserve + 2;
    assert!(between < t.throttlefree, "{t:?}");
    let taken = m.squeeze(db.freemem() - between);
    assert_eq!(db.freemem(), between);
    let is_served = |reserve| db.alloc(cx, 0, reserve).map(|page| db.free(cx, page, false)).is_ok();
    assert!(is_served(Reserve::Normal), "down to pageout_reserve");
    let daemons = m.spawn_daemons().expect("threads");
    assert!(in_time(|| !is_served(Reserve::Normal)), "throttlefree holds nobody back");
    assert!(is_served(Reserve::Push));
    cx.freeing_memory(|| assert!(is_served(Reserve::Normal), "page-out's own"));
    drop(daemons);
    assert!(is_served(Reserve::Normal));
    assert_eq!(m.release(), taken);
    m.verify().expect("sound");
}

#[test]
fn when_a_pusher_panics_waiters_help_themselves() {
    // D2, D3, and V3 of `pvn`: nobody waits for the push that is gone, and its pages have their bytes and are in nobody's transit.
    let m = Machine::builder().frames(128).cpus(2).no_swap().build().expect("a machine");
    let bad = Watched::new(|before: u32, _: u32| assert_ne!(before, 2, "the third write"));
    m.swap().add(m.cx(), Arc::clone(&bad) as _, 0, 4096, 0).expect("an area");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(400 * P).expect("mapped");
    let daemons = m.spawn_daemons().expect("threads");
    work(&p, at, 400, 2, 2);
    assert!(bad.writes.load(Ordering::SeqCst) > 3, "writes go on");
    assert!(in_time(|| !m.parts().daemon.at_work().0), "D2: the others are told");
    assert!(m.spawn_daemons().is_none(), "D4: those before have not been cleared away");
    drop(daemons);
    assert_eq!(m.parts().daemon.at_work(), (false, 0), "D3");
    assert!(m.spawn_daemons().is_some());
    ends_well(&m, &p);
}

#[test]
fn counters_are_exact_when_nothing_runs() {
    const PAGES: u64 = 500;
    let m = Machine::builder().frames(8192).cpus(4).build().expect("a machine");
    let before = m.counters().snapshot();
    let procs: Vec<_> = (0..4).map(|_| m.spawn("p").expect("a process")).collect();
    let daemons = m.spawn_daemons().expect("threads");
    thread::scope(|s| {
        for (t, p) in procs.iter().enumerate() {
            let at = p.map_anon(PAGES * P).expect("mapped");
            let p = p.another_thread(CpuId(t as u16));
            s.spawn(move || {
                for i in 0..PAGES {
                    p.store(at + i * P, b"x").expect("stored");
                }
            });
        }
    });
    let child = procs[0].fork().expect("a child");
    drop(daemons);
    let counted = m.counters().snapshot().since(&before);
    let get = |c| counted.get(c);
    assert_eq!(get(Counter::AsFault), 4 * PAGES, "a store is a fault: nothing else was touched");
    assert_eq!((get(Counter::Zfod), get(Counter::Case2B)), (4 * PAGES, 4 * PAGES));
    let tables = get(Counter::TableAllocs) - get(Counter::TableFrees);
    let frames = get(Counter::FrameAllocs) - get(Counter::FrameFrees);
    assert_eq!(frames, 4 * PAGES + tables, "frames in use: pages and tables");
    assert_eq!(get(Counter::BytesZeroed), P * (4 * PAGES + get(Counter::TableAllocs)));
    for p in procs.iter().chain([&child]) {
        p.exit();
    }
    let counted = m.counters().snapshot().since(&before);
    assert_eq!(
        counted.get(Counter::FrameAllocs),
        counted.get(Counter::FrameFrees),
        "all came back"
    );
    assert_eq!(counted.get(Counter::TableAllocs), counted.get(Counter::TableFrees));
    m.verify().expect("sound");
}
