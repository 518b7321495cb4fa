//! Threads against each other: what must hold whatever the order.
//!
//! Loops are short by default; `SEGVM_STRESS=N` makes them N times as long.

use super::*;
use crate::files::{FileHandle, OpenMode};
use addr_space::Signal;
use page_db::{CpuId, PAGE_SIZE, Vnode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const P: u64 = PAGE_SIZE;

fn rounds(n: u64) -> u64 {
    let factor = std::env::var("SEGVM_STRESS").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    n * factor
}

/// A small repeatable generator: thread interleavings vary, what each thread does does not.
struct Lot(u64);
impl Lot {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn shared_file(p: &Process, handle: &FileHandle, pages: u64) -> u64 {
    let flags = MapFlags::SHARED;
    let request =
        MapRequest { addr: 0, len: pages * P, prot: 3, flags, file: Some(handle), offset: 0 };
    p.mmap(&request).expect("mapped")
}

#[test]
fn a_child_never_sees_what_its_parent_stores_after_fork() {
    let m = Machine::builder().frames(512).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(16 * P).expect("mapped");
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        let writer = p.another_thread(CpuId(1));
        let stop = &stop;
        s.spawn(move || {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                for page in 0..16 {
                    writer.store(at + page * P, &n.to_le_bytes()).expect("stored");
                }
            }
        });
        for _ in 0..rounds(40) {
            let child = p.fork().expect("a child");
            let look = || {
                let mut seen = Vec::new();
                for page in 0..16 {
                    let mut b = [0; 8];
                    child.load(at + page * P, &mut b).expect("there");
                    seen.push(u64::from_le_bytes(b));
                }
                seen
            };
            let first = look();
            thread::yield_now();
            assert_eq!(first, look(), "law 6: a store of the parent leaked into its child");
            child.store(at, &u64::MAX.to_le_bytes()).expect("stored");
            let mut b = [0; 8];
            p.load(at, &mut b).expect("there");
            assert_ne!(u64::from_le_bytes(b), u64::MAX, "law 6: the child's store leaked back");
            child.exit();
        }
        stop.store(true, Ordering::Relaxed);
    });
    m.verify().expect("sound");
    p.exit();
    assert_eq!(m.swap().live(), 0);
}

/// One thread stores all over its memory while another ends the process; a third gets frames all the time.
#[test]
fn a_thread_that_goes_on_storing_reaches_nobody_elses_memory() {
    const PAGES: u64 = 32;
    let m = Machine::builder().frames(512).cpus(3).build().expect("a machine");
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        let (next, stop) = (m.spawn("next").expect("a process").another_thread(CpuId(2)), &stop);
        s.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let at = next.map_anon(PAGES * P).expect("mapped");
                for look in 0..2 {
                    for page in 0..PAGES {
                        let mut b = [0; 8];
                        next.load(at + page * P, &mut b).expect("there");
                        assert_eq!(b, [0; 8], "law 6: page {page}, look {look}");
                    }
                    thread::yield_now();
                }
                next.munmap(at, PAGES * P).expect("unmapped");
            }
        });
        for round in 0..rounds(200) {
            let p = m.spawn("p").expect("a process");
            let at = p.map_anon(PAGES * P).expect("mapped");
            let user = p.another_thread(CpuId(1));
            let user = s.spawn(move || {
                let mut pages = (0..PAGES).cycle();
                loop {
                    let page = pages.next().expect("it goes on");
                    if let Err(e) = user.store(at + page * P, &[0xff; 8]) {
                        return e.signal;
                    }
                }
            });
            while p.space().hat().resident() < PAGES && !user.is_finished() {
                thread::yield_now();
            }
            p.exit();
            let signal = user.join();
            stop.fetch_or(signal.is_err(), Ordering::Relaxed); // whoever fails leaves nobody running
            let signal = signal.expect("no panic");
            assert_eq!(signal, Signal::SegvMapErr, "round {round}: nothing is mapped any more");
        }
        stop.store(true, Ordering::Relaxed);
    });
    m.verify().expect("sound");
}

#[test]
fn truncation_wins_against_stores_faults_and_page_out() {
    const PAGES: u64 = 24;
    let m = Machine::builder().frames(256).cpus(2).build().expect("a machine");
    let file = m.create_file("f", PAGES * P).expect("a file");
    let handle = FileHandle::new(Arc::clone(&file), OpenMode::ReadWrite);
    let procs: Vec<_> = (0..2).map(|_| m.spawn("p").expect("a process")).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|s| {
        for (t, p) in procs.iter().enumerate() {
            let at = shared_file(p, &handle, PAGES);
            let p = p.another_thread(CpuId(t as u16));
            let stop = &stop;
            s.spawn(move || {
                let mut lot = Lot(t as u64 + 1);
                while !stop.load(Ordering::Relaxed) {
                    let va = at + lot.below(PAGES) * P;
                    let done = if lot.below(2) == 0 {
                        p.store(va, &[7; 8])
                    } else {
                        p.load(va, &mut [0; 8])
                    };
                    let good = done.is_ok_and(|()| true)
                        || done.is_err_and(|e| matches!(e.signal, Signal::BusObjErr(_)));
                    assert!(good, "a page past the end is SIGBUS and nothing else: {done:?}");
                }
            });
        }
        let m2 = m.thread(CpuId(1));
        let stop2 = &stop;
        s.spawn(move || {
            while !stop2.load(Ordering::Relaxed) {
                m2.scan(64);
                thread::yield_now();
            }
        });
        let mut lot = Lot(99);
        for _ in 0..rounds(150) {
            let size = lot.below(PAGES * P + 1);
            file.truncate(m.cx(), m.db(), size).expect("truncated");
            for page in m.db().vnode_pages(m.cx(), file.id()) {
                let id = m.db().page(page).identity().filter(|id| id.vnode == file.id());
                assert!(
                    id.is_none_or(|id| id.offset.0 < size.next_multiple_of(P)),
                    "F2: {id:?} of {size:#x}"
                );
            }
            file.truncate(m.cx(), m.db(), PAGES * P).expect("grown");
            let mut tail = vec![1; (size.next_multiple_of(P) - size) as usize];
            let within = size % P;
            // Stores are whole words at page starts, so past the first words of a page nothing but zeros may be seen.
            if within > 8 {
                file.pread(m.cx(), m.db(), size, &mut tail).expect("readable");
                assert!(tail.iter().all(|b| *b == 0), "F3");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    m.verify().expect("sound");
}

#[test]
fn threads_map_and_unmap_beside_each_other() {
    let m = Machine::builder().frames(1024).cpus(4).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    thread::scope(|s| {
        for t in 0..4u64 {
            let p = p.another_thread(CpuId(t as u16));
            s.spawn(move || {
                let mut lot = Lot(t + 11);
                let mut mine: Vec<(u64, u64)> = Vec::new();
                for n in 0..rounds(120) {
                    match lot.below(4) {
                        0 | 1 => {
                            let pages = 1 + lot.below(8);
                            let at = p.map_anon(pages * P).expect("room");
                            let value = at ^ n ^ t << 56;
                            p.store(at, &value.to_le_bytes()).expect("stored");
                            mine.push((at, value));
                            // A hole above, so that ranges of threads stay apart in the list.
                            p.munmap(at + P, (pages - 1) * P).err().filter(|_| pages > 1);
                        }
                        2 if !mine.is_empty() => {
                            let (at, value) =
                                mine.swap_remove(lot.below(mine.len() as u64) as usize);
                            p.munmap(at, P).expect("unmapped");
                            // Another thread may have mapped the place anew by now: then it holds that thread's bytes, or zeros.
                            let mut b = [0; 8];
                            match p.load(at, &mut b) {
                                Ok(()) => {
                                    assert_ne!(u64::from_le_bytes(b), value, "a page that went")
                                }
                                Err(e) => assert_eq!(e.signal, Signal::SegvMapErr),
                            }
                        }
                        _ => {
                            for (at, value) in &mine {
                                let mut b = [0; 8];
                                p.load(*at, &mut b).expect("there");
                                assert_eq!(u64::from_le_bytes(b), *value, "nobody else's page");
                            }
                        }
                    }
                }
            });
        }
    });
    m.verify().expect("sound");
    p.exit();
    m.verify().expect("sound");
    assert_eq!(m.swap().live(), 0);
}

#[test]
fn shared_memory_is_one_memory_under_pressure() {
    const PAGES: u64 = 96;
    let m = Machine::builder().frames(160).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let flags = MapFlags::SHARED | MapFlags::ANON;
    let request = MapRequest { addr: 0, len: PAGES * P, prot: 3, flags, file: None, offset: 0 };
    let at = p.mmap(&request).expect("mapped");
    let child = p.fork().expect("a child");
    let daemons = m.spawn_daemons().expect("a thread");
    thread::scope(|s| {
        for (t, who) in [&p, &child].into_iter().enumerate() {
            let who = who.another_thread(CpuId(t as u16));
            s.spawn(move || {
                // Each writes its own half of the words and reads it back; the pages are common.
                for round in 0..rounds(12) {
                    for page in 0..PAGES {
                        let va = at + page * P + 8 * t as u64;
                        let mut b = [0; 8];
                        who.load(va, &mut b).expect("there");
                        let before = if round == 0 { 0 } else { page * 1000 + round - 1 };
                        assert_eq!(u64::from_le_bytes(b), before, "page {page}, round {round}");
                        who.store(va, &(page * 1000 + round).to_le_bytes()).expect("stored");
                    }
                }
            });
        }
    });
    drop(daemons);
    m.verify().expect("sound");
    p.exit();
    child.exit();
    m.verify().expect("sound");
    assert_eq!((m.swap().live(), m.swap().info().reserved()), (0, 0));
}
