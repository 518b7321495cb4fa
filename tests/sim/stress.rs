//! Threads on several address spaces, each doing whatever comes, against what each knows to be true.
//!
//! A thread keeps a naive model of what is its own: the pages it mapped in its process, what it stored in them, what it may do with them, and the children
//! it forked with what they saw then. Its words in memory that all processes share are its own too; of the other threads' words it
//! knows that they only grow. Everything else (which pages are in memory, who pages them out, whose tables are taken) goes on around it.
//!
//! ```text
//!   threads   map unmap grow store load protect fork exit page-out madvise share ... a few hundred each    ─┐
//!   all       stop; the machine is verified; page-out moves into threads of its own, or back           ├ again, for ten seconds
//!                                                                                                     ─┘
//! ```
//!
//! `SEGVM_STRESS_SECONDS=S` makes it S seconds, `SEGVM_STRESS_SEED=S` does what a failed run did, as far as the host's scheduler lets it: what each
//! thread does is repeated exactly, who is first is not.

use page_db::CpuId;
use segvm::machine::{MapFlags, MapRequest, MemAdvice, Process, RemapFlags};
use segvm::{Machine, SysError};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const P: u64 = 4096;
const PROCESSES: u64 = 3;
const THREADS: u64 = 6;
/// Frames, less than what the threads use together.
const FRAMES: u64 = 420;
/// Pages a thread maps at most.
const OWN: u64 = 72;
const SHARED: u64 = 24;
/// Operations between two quiet points.
const ROUND: u64 = 300;

/// Where all threads meet; a thread that failed lets the others go.
#[derive(Default)]
struct Gate {
    arrived: AtomicU32,
    opened: AtomicU64,
    failed: AtomicBool,
}

impl Gate {
    /// Waits for all; the last one to come runs `alone`. `false` when a thread has failed.
    fn meet(&self, alone: impl FnOnce()) -> bool {
        let before = self.opened.load(SeqCst);
        if self.arrived.fetch_add(1, SeqCst) + 1 == THREADS as u32 {
            self.arrived.store(0, SeqCst);
            alone();
            self.opened.fetch_add(1, SeqCst);
        }
        while self.opened.load(SeqCst) == before && !self.failed.load(SeqCst) {
            std::thread::yield_now();
        }
        !self.failed.load(SeqCst)
    }
}

#[derive(Clone, Copy)]
struct Page {
    at: u64,
    /// Stored in its first and last word; 0 before.
    value: u64,
    writable: bool,
}

impl Page {
    fn store(&mut self, p: &Process, value: u64) {
        for at in [self.at, self.at + P - 8] {
            p.store(at, &value.to_le_bytes()).unwrap_or_else(|e| panic!("a store to a page: {e}"));
        }
        self.value = value;
    }
    fn check(&self, p: &Process, who: &str) {
        for at in [self.at, self.at + P - 8] {
            let seen = word(p, at);
            assert_eq!(seen, self.value, "{who} at {at:#x}");
        }
    }
}

fn word(p: &Process, at: u64) -> u64 {
    let mut b = [0; 8];
    p.load(at, &mut b).unwrap_or_else(|e| panic!("a load from a page: {e}"));
    u64::from_le_bytes(b)
}

/// A thread, and what it knows.
struct User<'a> {
    me: u64,
    machine: Machine,
    p: Process,
    lot: u64,
    own: Vec<Page>,
    children: Vec<(Process, Vec<Page>)>,
    /// First byte of the shared memory, and what this thread has stored in each of its pages.
    shared: u64,
    mine: Vec<u64>,
    /// The most seen of every thread's words.
    seen: Vec<u64>,
    gate: &'a Gate,
}

impl User<'_> {
    fn below(&mut self, n: u64) -> u64 {
        crate::lot(&mut self.lot, n)
    }
    fn any(&mut self) -> Option<usize> {
        let n = self.own.len() as u64;
        (n != 0).then(|| self.below(n) as usize)
    }
    fn map(&mut self) {
        let pages = 1 + self.below(8);
        if self.own.len() as u64 + pages > OWN {
            return self.unmap();
        }
        let at = self.p.map_anon(pages * P).expect("room");
        self.own.extend((0..pages).map(|i| Page { at: at + i * P, value: 0, writable: true }));
    }
    /// A run of up to four pages, from anywhere: segments are cut in all ways.
    fn unmap(&mut self) {
        let Some(i) = self.any() else { return };
        let at = self.own[i].at;
        let pages = 1 + self.below(4);
        let run = (0..pages).take_while(|n| self.own.iter().any(|o| o.at == at + n * P)).count();
        self.p.munmap(at, run as u64 * P).expect("mapped");
        self.own.retain(|o| o.at < at || o.at >= at + run as u64 * P);
    }
    /// A run of up to four pages grows by up to two, where it is or elsewhere.
    fn grow(&mut self) {
        let (Some(i), more) = (self.any(), self.below(3)) else { return };
        let (at, pages) = (self.own[i].at, 1 + self.below(4));
        let of = |own: &[Page], n: u64| own.iter().position(|o| o.at == at + n * P);
        let run: Vec<usize> = (0..pages).map_while(|n| of(&self.own, n)).collect();
        if self.own.len() as u64 + more > OWN {
            return;
        }
        let had = run.len() as u64;
        let (len, new) = (had * P, (had + more) * P);
        let to = self.p.mremap(at, len, new, RemapFlags::MAYMOVE, 0).expect("room");
        for (n, i) in run.iter().enumerate() {
            self.own[*i].at = to + n as u64 * P;
        }
        let writable = self.own[run[run.len() - 1]].writable;
        let grown = (had..had + more).map(|n| Page { at: to + n * P, value: 0, writable });
        self.own.extend(grown);
    }
    fn store(&mut self) {
        let Some(i) = self.any() else { return };
        let value = self.me << 56 | self.below(1 << 31) | 1;
        if self.own[i].writable {
            self.own[i].store(&self.p, value);
        } else {
            let refused = self.p.store(self.own[i].at, &value.to_le_bytes());
            assert!(refused.is_err(), "a page that may only be read was stored to");
        }
    }
    fn load(&mut self) {
        if let Some(i) = self.any() {
            self.own[i].check(&self.p, "a page");
        }
    }
    fn protect(&mut self) {
        let Some(i) = self.any() else { return };
        let writable = !self.own[i].writable;
        let prot = if writable { 3 } else { 1 };
        self.p.mprotect(self.own[i].at, P, prot).expect("mapped");
        self.own[i].writable = writable;
    }
    fn fork(&mut self) {
        if self.children.len() > 1 {
            return self.look_at_child();
        }
        let child = self.p.fork().expect("memory for a child");
        self.children.push((child, self.own.clone()));
    }
    /// The child still has what it was forked with; then it stores, and sometimes ends.
    fn look_at_child(&mut self) {
        let Some((child, mut saw)) = self.children.pop() else { return };
        let some = self.below(4);
        for page in saw.iter().skip(some as usize).step_by(3) {
            page.check(&child, "a child's page");
        }
        let value = self.me << 56 | 0xc << 40 | self.below(1 << 31) | 1;
        if let Some(page) = saw.iter_mut().find(|page| page.writable) {
            page.store(&child, value);
        }
        if self.below(2) == 0 {
            child.exit();
        } else {
            self.children.insert(0, (child, saw));
        }
    }
    fn shared_word(&self, page: u64, thread: u64) -> u64 {
        self.shared + page * P + thread * 64
    }
    fn share(&mut self) {
        let page = self.below(SHARED);
        let at = self.shared_word(page, self.me);
        let mine = &mut self.mine[page as usize];
        assert_eq!(word(&self.p, at), *mine, "shared page {page}");
        *mine += 1;
        self.p.store(at, &mine.to_le_bytes()).expect("shared memory");
    }
    fn look_around(&mut self) {
        let (page, thread) = (self.below(SHARED), self.below(THREADS));
        let now = word(&self.p, self.shared_word(page, thread));
        let seen = &mut self.seen[(page * THREADS + thread) as usize];
        assert!(
            now >= *seen,
            "shared page {page}: thread {thread}'s word fell from {seen} to {now}"
        );
        *seen = now;
    }
    fn advise(&mut self) {
        let Some(i) = self.any() else { return };
        self.p.madvise(self.own[i].at, P, MemAdvice::DontNeed).expect("contents are kept");
    }
    fn once(&mut self) {
        match self.below(40) {
            0..4 => self.map(),
            4..6 => self.unmap(),
            6..15 => self.store(),
            15..24 => self.load(),
            24..26 => self.protect(),
            26 => self.fork(),
            27 | 28 => self.look_at_child(),
            29..33 => self.share(),
            33..36 => self.look_around(),
            36 => self.advise(),
            37 if self.me % 2 == 1 => self.grow(),
            37 => drop(self.machine.scan(32)),
            38 => drop(self.p.swap_out()),
            _ if self.me == 0 => drop(self.machine.pageout_all()),
            _ => std::thread::yield_now(),
        }
    }
    /// Operations, and a quiet point, again and again until that says that time is `over`.
    fn run(&mut self, over: &AtomicBool, quiet: &(dyn Fn(&Machine) + Sync)) {
        while !over.load(SeqCst) {
            for _ in 0..ROUND {
                self.once();
                if self.gate.failed.load(SeqCst) {
                    return;
                }
            }
            if !self.gate.meet(|| quiet(&self.machine)) {
                return;
            }
        }
    }
    fn finish(mut self) {
        for page in &self.own {
            page.check(&self.p, "a page in the end");
        }
        for (child, saw) in self.children.drain(..) {
            saw.iter().for_each(|page| page.check(&child, "a child's page in the end"));
            child.exit();
        }
    }
}

/// Processes that share memory: the first, and its children.
fn processes(m: &Machine) -> Result<(Vec<Process>, u64), SysError> {
    let first = m.spawn("p")?;
    let flags = MapFlags::SHARED | MapFlags::ANON;
    let request = MapRequest { addr: 0, len: SHARED * P, prot: 3, flags, file: None, offset: 0 };
    let shared = first.mmap(&request)?;
    let mut all = vec![first];
    for _ in 1..PROCESSES {
        all.push(all[0].fork()?);
    }
    Ok((all, shared))
}

#[test]
fn threads_on_several_spaces_find_what_they_left() {
    let seconds = crate::number("SEGVM_STRESS_SECONDS", 10);
    let seed = crate::number("SEGVM_STRESS_SEED", 1);
    eprintln!("SEGVM_STRESS_SEED={seed}");
    let m = Machine::builder().frames(FRAMES).cpus(4).build().expect("a machine");
    let (procs, shared) = processes(&m).expect("room for all");
    let gate = Gate::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    let daemons = std::sync::Mutex::new(None);
    let over = AtomicBool::new(false);
    let quiet = |m: &Machine| {
        let mut daemons = daemons.lock().expect("no panic");
        let ran = daemons.take().is_some(); // and have ended: it is not quiet beside them
        m.verify().unwrap_or_else(|e| panic!("at a quiet point: {e}"));
        *daemons = if ran { None } else { m.spawn_daemons() };
        over.store(Instant::now() >= end, SeqCst);
    };
    std::thread::scope(|s| {
        for t in 0..THREADS {
            let p = procs[(t % PROCESSES) as usize].another_thread(CpuId((t % 4) as u16));
            let mut user = User {
                me: t,
                machine: m.thread(CpuId((t % 4) as u16)),
                p,
                lot: seed.wrapping_mul(1000).wrapping_add(t),
                own: Vec::new(),
                children: Vec::new(),
                shared,
                mine: vec![0; SHARED as usize],
                seen: vec![0; (SHARED * THREADS) as usize],
                gate: &gate,
            };
            let (quiet, gate, over) = (&quiet, &gate, &over);
            s.spawn(move || {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    user.run(over, quiet);
                    if !gate.failed.load(SeqCst) {
                        user.finish();
                    }
                }));
                if let Err(why) = done {
                    gate.failed.store(true, SeqCst);
                    resume_unwind(why);
                }
            });
        }
    });
    drop(daemons);
    m.verify().expect("sound");
    procs.iter().for_each(Process::exit);
    m.verify().expect("sound after the last exit");
    assert_eq!((m.swap().live(), m.swap().info().reserved()), (0, 0));
}
