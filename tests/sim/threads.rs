//! Real threads on one machine: each keeps bytes of its own in pages that all of them use.
//!
//! Two threads of one process store to different bytes of the same pages while others fork, unmap and map elsewhere, change rights, and page everything
//! out. What a thread stored it must read again, in its process and in each child it forks. At the end, when nothing runs, every invariant holds.

use crate::lot;
use page_db::CpuId;
use segvm::Machine;
use segvm::machine::ForkPolicy;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGES: u64 = 48;

#[test]
fn threads_keep_their_bytes() {
    keep_bytes(ForkPolicy::Eager, crate::number("SEGVM_SIM_THREAD_ROUNDS", 30000));
}

#[test]
fn threads_keep_their_bytes_when_maps_are_copied_late() {
    keep_bytes(ForkPolicy::Lazy, crate::number("SEGVM_SIM_THREAD_ROUNDS", 30000) / 2);
}

fn keep_bytes(fork: ForkPolicy, rounds: u64) {
    let machine = Machine::builder().frames(400).cpus(4).fork(fork).build().expect("small");
    let process = machine.spawn("p").expect("frames");
    let at = process.map_anon(PAGES * 4096).expect("room");
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for t in 0..2u64 {
            let process = process.another_thread(CpuId(t as u16));
            let done = &done;
            s.spawn(move || {
                let mut seed = t + 1;
                let mut mine = [0u8; PAGES as usize];
                for round in 0..rounds {
                    let page = lot(&mut seed, PAGES);
                    let addr = at + page * 4096 + 64 * t;
                    match lot(&mut seed, 4) {
                        0 | 1 => {
                            mine[page as usize] = (round as u8) | 1;
                            process.store(addr, &[mine[page as usize]]).expect("mapped");
                        }
                        2 if round % 16 == 2 => {
                            let child = process.fork().expect("memory");
                            child.run_on(CpuId(t as u16));
                            assert_eq!(
                                child.load_u8(addr).expect("mapped"),
                                mine[page as usize],
                                "the child's page {page}"
                            );
                            child.store(addr, &[0xee]).expect("mapped");
                            child.exit();
                        }
                        _ => assert_eq!(
                            process.load_u8(addr).expect("mapped"),
                            mine[page as usize],
                            "page {page} of thread {t}"
                        ),
                    }
                }
                done.store(true, Ordering::Release);
            });
        }
        let mapper = process.another_thread(CpuId(2));
        let stop = &done;
        s.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let there = mapper.map_anon(8 * 4096).expect("room");
                mapper.store(there, b"x").expect("mapped");
                mapper.mprotect(there, 4096, 1).expect("mapped");
                mapper.munmap(there, 8 * 4096).expect("mapped");
            }
        });
        let pager = machine.thread(CpuId(3));
        s.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                pager.pageout_all();
                std::thread::yield_now();
            }
        });
    });
    machine.verify().expect("every invariant");
    process.exit();
    machine.verify().expect("every invariant after exit");
    assert_eq!(machine.swap().live(), 0);
}
