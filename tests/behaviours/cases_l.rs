//! L: concurrency. Every interleaving of the smallest of these is run by the model checker (`schedules`); here threads run as they come.

use crate::{Scene, addr};
use addr_space::Signal;
use page_db::{CpuId, PAGE_SIZE, errno};
use segvm::machine::{MapFlags, MapRequest, MemAdvice, Process, STACK_TOP};
use std::sync::atomic::{AtomicU8, Ordering};

/// A machine of two processors after `setup`.
fn two(setup: &str) -> Scene {
    let mut s = Scene::on("machine memory=512 cpus=2");
    s.run(setup);
    s
}

/// Maps a page of anonymous memory at page 0. While threads run nothing is verified: the laws are those of a machine at rest.
fn map_page(p: &Process) {
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let (addr, len) = (addr(0).get(), PAGE_SIZE);
    p.mmap(&MapRequest { addr, len, prot: 3, flags, file: None, offset: 0 }).expect("room");
}

#[test]
fn l01_loads_beside_maps_and_unmaps() {
    let s = two("verify");
    let at = addr(0).get();
    let reader = s.process(0).another_thread(CpuId(1));
    // The byte of the round that is on. A page of an earlier round went before the next began.
    let now = &AtomicU8::new(65);
    std::thread::scope(|threads| {
        threads.spawn(move || {
            for _ in 0..2000 {
                let before = now.load(Ordering::SeqCst);
                let got = reader.load_u8(at);
                let rounds = before..=now.load(Ordering::SeqCst);
                match got {
                    Ok(byte) => assert!(byte == 0 || rounds.contains(&byte), "{byte}: {rounds:?}"),
                    Err(e) => assert_eq!(e.signal, Signal::SegvMapErr),
                }
            }
        });
        for round in 0..60 {
            now.store(65 + round, Ordering::SeqCst);
            map_page(s.process(0));
            s.process(0).store(at, &[65 + round]).expect("stored");
            s.process(0).munmap(at, PAGE_SIZE).expect("unmapped");
        }
    });
    s.end();
}

#[test]
fn l02_many_faults_on_the_same_pages() {
    let mut s = two("map 0 0 16 rw priv fixed anon; write 0 0 16 65; fork 0 1");
    let sides = [0, 0, 1, 1].map(|p| (p, s.process(p).another_thread(CpuId(p as u16))));
    std::thread::scope(|threads| {
        for (n, (p, side)) in (0u64..).zip(sides) {
            threads.spawn(move || {
                for page in 0..16 {
                    // Each thread has its byte of each page.
                    side.store(addr(page).get() + 100 + n, &[70 + p as u8]).expect("stored");
                    side.load_u8(addr(page).get()).expect("there");
                }
            });
        }
    });
    for page in 0..16 {
        s.run(&format!("read 0 {page}+100 0+2; expect ok b=4646"));
        s.run(&format!("read 1 {page}+102 0+2; expect ok b=4747"));
    }
    assert_eq!(s.machine().swap().live(), 32, "one page each");
    s.end();
}

#[test]
fn l04_a_private_store_never_reaches_the_file() {
    // There is no forced store here; the race it needs, a store against a page that is given up meanwhile.
    let mut s = two("file 0 4096; pwrite 0 0 4 65; map 0 0 1 rw priv fixed file 0 0");
    let (at, writer) = (addr(0).get(), s.process(0).another_thread(CpuId(1)));
    std::thread::scope(|threads| {
        threads.spawn(move || (0..500).for_each(|n| writer.store(at, &[n as u8]).expect("stored")));
        for _ in 0..40 {
            s.process(0).madvise(at, PAGE_SIZE, MemAdvice::DontNeed).expect("mapped");
            s.machine().pageout_all();
        }
    });
    s.run("map 0 4 1 r shared fixed file 0 0; read 0 4 0+4; expect ok b=41424344");
    s.end();
}

#[test]
fn l05_a_stack_grows_beside_lookups() {
    let s = two("verify");
    s.process(0).grow_stack(STACK_TOP - PAGE_SIZE).expect("a first page");
    let looker = s.process(0).another_thread(CpuId(1));
    std::thread::scope(|threads| {
        threads.spawn(move || {
            for n in 0..500 {
                let _ = looker.load_u8(STACK_TOP - (n % 20 + 1) * PAGE_SIZE);
                let _ = looker.load_u8(addr(n % 4).get());
            }
        });
        for n in 2..20 {
            let _ = s.process(0).store(STACK_TOP - n * PAGE_SIZE, &[1]);
        }
    });
    assert!(s.process(0).stack().is_some_and(|r| r.pages().get() >= 19));
    s.machine().verify().expect("sound");
    s.end();
}

#[test]
fn l07_the_kernels_copy_beside_unmap_and_protect() {
    let s = two("map 0 0 2 rw priv fixed anon; write 0 0 2 65");
    let (at, copier) = (addr(0).get(), s.process(0).another_thread(CpuId(1)));
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut bytes = [0; 2 * PAGE_SIZE as usize];
            for _ in 0..500 {
                if let Err(e) = copier.copyin(at, &mut bytes) {
                    assert_eq!(e.errno, errno::EFAULT);
                }
            }
        });
        for _ in 0..40 {
            let p = s.process(0);
            p.mprotect(at + PAGE_SIZE, PAGE_SIZE, 0).expect("mapped");
            p.mprotect(at + PAGE_SIZE, PAGE_SIZE, 3).expect("mapped");
            p.munmap(at, PAGE_SIZE).expect("unmapped");
            map_page(p);
        }
    });
    s.end();
}

#[test]
fn l08_an_owner_exits_while_the_others_copy() {
    for exit in 0..4 {
        for first in (0..4).filter(|p| *p != exit) {
            let mut s =
                two("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1; fork 1 2; fork 0 3");
            s.run(&format!("write {first} 0 0+1 70; exit {exit}"));
            for p in (0..4).filter(|p| ![exit, first].contains(p)) {
                s.run(&format!("read {p} 0 0+1; expect ok b=41; write {p} 0 0+1 {}", 80 + p));
            }
            s.run(&format!("read {first} 0 0+1; expect ok b=46"));
            assert_eq!(s.machine().swap().live(), 3);
            s.end();
        }
    }
}

#[test]
fn l10_a_change_that_needs_the_writers_lock_starts_again() {
    // Returning a whole reservation is such a one: beside it, stores that make copies.
    for _ in 0..10 {
        let mut s = two("file 0 4096; map 0 0 1 rw priv fixed file 0 0");
        let (at, writer) = (addr(0).get(), s.process(0).another_thread(CpuId(1)));
        std::thread::scope(|threads| {
            threads.spawn(move || {
                let _ = writer.store(at, &[1]);
            });
            s.process(0).mprotect(at, PAGE_SIZE, 1).expect("mapped");
        });
        let copied = s.anon(0, 0).is_some();
        assert_eq!(crate::reserved(&s), u64::from(copied), "kept if there is a copy");
        s.run("protect 0 0 1 rw; expect ok; write 0 0 1 2; expect ok");
        s.end();
    }
}

#[test]
fn l11_a_lock_that_would_hang_is_given_up_and_tried_again() {
    let mut s = two("file 0 4096; file 1 4096; map 0 0 1 rw shared fixed file 0 0");
    s.file(0).fail_read(s.machine().cx(), 1, errno::EDEADLK);
    s.run("fwrite 0 1 0 0 1; expect ok n=4096");
    s.end();
}

#[test]
fn l13_two_scanners_finish() {
    let mut s = two("map 0 0 64 rw priv fixed anon; write 0 0 64 65");
    let other = s.process(0).another_thread(CpuId(1));
    std::thread::scope(|threads| {
        threads.spawn(move || (0..20).for_each(|_| _ = other.machine().pageout_all()));
        (0..20).for_each(|_| _ = s.machine().pageout_all());
    });
    s.run("verify; read 0 0 0+1; expect ok b=41; read 0 63 0+1; expect ok b=41");
    s.end();
}

#[test]
fn l14_a_new_mapping_is_seen_at_once() {
    let mut s = two("map 0 0 1 rw priv fixed anon");
    for n in 0..10 {
        s.run(&format!(
            "write 0 0 0+1 {} cpu=0; read 0 0 0+1 cpu=1; expect ok b={:02x}",
            65 + n,
            65 + n
        ));
        s.run("unmap 0 0 1; read 0 0 0+1 cpu=1; expect SEGV at=0 code=maperr; map 0 0 1 rw priv fixed anon; read 0 0 0+1 cpu=1; expect ok b=00");
    }
    s.end();
}

#[test]
fn l16_two_faults_on_one_empty_slot() {
    for _ in 0..20 {
        let s = two("map 0 0 1 rw priv fixed anon");
        let sides = [0, 1].map(|cpu| s.process(0).another_thread(CpuId(cpu)));
        std::thread::scope(|threads| {
            for (n, side) in (0u64..).zip(sides) {
                threads.spawn(move || side.store(addr(0).get() + n, &[65]).expect("stored"));
            }
        });
        assert_eq!((s.machine().swap().live(), s.count("zfod")), (1, 1), "one anon, one page");
        s.end();
    }
}
