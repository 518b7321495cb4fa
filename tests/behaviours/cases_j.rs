//! J: page cache and writing back.

use crate::gate::{Gate, GatedStore};
use crate::{Scene, addr, scene};
use addr_space::{Signal, SyncFlags};
use page_db::{CpuId, FileOffset, Identity, PAGE_SIZE, Vnode};
use segvm::files::{File, FileHandle, OpenMode, Store};
use segvm::machine::{MapFlags, MapRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

scripts! {
    j10_exactly_those_translations_go: "file 0 16384; map 0 0 4 r shared fixed file 0 0; map 0 8 2 r shared fixed file 0 2; read 0 0 4; read 0 8 2
        truncate 0 8192; read 0 0 2; expect ok; expect counter as_fault +0; read 0 2 0+1; expect BUS at=0; read 0 8 0+1; expect BUS at=0
        truncate 0 4096; read 0 0 1; expect counter as_fault +0; read 0 1 0+1; expect BUS at=0; truncate 0 0; read 0 0 0+1; expect BUS at=0";
    j14_populated_is_resident: "map 0 0 8 rw priv fixed anon populate; read 0 0 8; expect counter as_fault +0
        file 0 16384; pwrite 0 0 4 65; map 0 16 4 r shared fixed file 0 0 populate; read 0 16 0+4; expect ok b=41424344; expect counter as_fault +0";
}

/// A file, mapped shared at page 0 of process 0 of a machine of two processors.
fn mapped(pages: u64) -> (Scene, FileHandle) {
    let s = Scene::on("machine memory=512 cpus=2");
    let file = s.machine().create_file("f", pages * PAGE_SIZE).expect("a file");
    map(s, pages, file)
}

/// The same of a file whose transfers pass gates, for reads and for writes. Page N holds the byte 65 + N, on the disk alone.
fn gated(pages: u64) -> (Scene, FileHandle, Arc<Gate>, Arc<Gate>) {
    let s = Scene::on("machine memory=512 cpus=2");
    let (store, reads, writes) = GatedStore::new();
    for page in 0..pages {
        store.write(s.machine().cx(), page * PAGE_SIZE, &[65 + page as u8]).expect("in memory");
    }
    let size = pages * PAGE_SIZE;
    let file = File::new(s.machine().cx(), s.machine().db(), "f", size, Box::new(store));
    let (s, handle) = map(s, pages, file.expect("a file"));
    (s, handle, reads, writes)
}

fn map(s: Scene, pages: u64, file: Arc<File>) -> (Scene, FileHandle) {
    let handle = FileHandle::new(file, OpenMode::ReadWrite);
    let (flags, len) = (MapFlags::SHARED | MapFlags::FIXED, 2 * pages * PAGE_SIZE);
    let request =
        MapRequest { addr: addr(0).get(), len, prot: 3, flags, file: Some(&handle), offset: 0 };
    s.process(0).mmap(&request).expect("free");
    (s, handle)
}

/// Waits until a thread that must not get on sleeps.
#[track_caller]
fn wait_for_sleep<T>(s: &Scene, thread: &std::thread::ScopedJoinHandle<'_, T>) {
    while s.machine().db().waits().sleepers() == 0 {
        assert!(!thread.is_finished(), "it waits");
        std::thread::yield_now();
    }
}

#[test]
fn j01_a_cold_read_in_flight_is_overwritten() {
    let (s, file, reads, _) = gated(1);
    reads.shut();
    let (reader, writer) = (s.machine().thread(CpuId(0)), s.machine().thread(CpuId(1)));
    std::thread::scope(|threads| {
        let vnode = &file.vnode;
        let old = threads.spawn(move || {
            let mut byte = [0];
            vnode.pread(reader.cx(), reader.db(), 0, &mut byte).map(|n| (n, byte[0]))
        });
        reads.wait_for(1);
        // The page is being read: the write waits for it.
        let wrote = threads.spawn(move || vnode.pwrite(writer.cx(), writer.db(), 0, &[97]));
        wait_for_sleep(&s, &wrote);
        reads.open();
        // Once the page is there both go on, in any order.
        let got = old.join().expect("no panic").expect("read");
        assert!(matches!(got, (1, 65 | 97)), "{got:?}");
        assert_eq!(wrote.join().expect("no panic").expect("written"), 1);
    });
    assert_eq!(s.process(0).load_u8(addr(0).get()), Ok(97), "a later reader has what was written");
    assert_eq!(file.vnode.transfers().0, 1, "one read of the disk");
    drop(file);
    s.end();
}

#[test]
fn j02_stored_to_again_while_it_is_written() {
    let (s, file, _, writes) = gated(1);
    let at = addr(0).get();
    s.process(0).store(at, &[97]).expect("mapped");
    writes.shut();
    let writer = s.process(0).another_thread(CpuId(1));
    std::thread::scope(|threads| {
        let first = threads.spawn(move || writer.msync(at, PAGE_SIZE, SyncFlags::empty()));
        writes.wait_for(1);
        s.process(0).store(at, &[98]).expect("the page is not kept from its user meanwhile");
        writes.open();
        first.join().expect("no panic").expect("written");
    });
    assert_eq!(file.vnode.transfers().1, 1);
    s.process(0).msync(at, PAGE_SIZE, SyncFlags::INVALIDATE).expect("the second flush");
    assert_eq!(file.vnode.transfers().1, 2, "V14: it was dirty again");
    assert_eq!(s.process(0).load_u8(at), Ok(98), "read back: the newest is on the disk");
    drop(file);
    s.end();
}

#[test]
fn j04_a_fault_waits_for_the_disk_and_the_file_shrinks() {
    let (s, file, reads, _) = gated(2);
    let at = addr(1).get();
    reads.shut();
    let (reader, cutter) = (s.process(0).another_thread(CpuId(1)), s.machine().thread(CpuId(0)));
    let begun = &AtomicBool::new(false);
    std::thread::scope(|threads| {
        let vnode = &file.vnode;
        let load = threads.spawn(move || reader.load_u8(at).map_err(|e| e.signal));
        reads.wait_for(1);
        let cut = threads.spawn(move || {
            begun.store(true, Ordering::SeqCst);
            vnode.truncate(cutter.cx(), cutter.db(), PAGE_SIZE)
        });
        // It waits for the file, as the file's reader does for the disk: of that nobody can be told.
        while !begun.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!cut.is_finished(), "a page of the file is being read");
        reads.open();
        cut.join().expect("no panic").expect("shorter");
        // The load came before the cut or after it.
        let got = load.join().expect("no panic");
        assert!(matches!(got, Ok(66) | Err(Signal::BusObjErr(_))), "{got:?}");
    });
    let name = Identity::new(file.vnode.id(), FileOffset(PAGE_SIZE));
    assert!(s.machine().db().exists(s.machine().cx(), name).is_none(), "the page is gone");
    assert!(s.process(0).space().hat().probe(s.machine().cx(), addr(1)).is_none());
    let past = s.process(0).load_u8(at).expect_err("past the end");
    assert!(matches!(past.signal, Signal::BusObjErr(_)));
    drop(file);
    s.end();
}

#[test]
fn j07_late_completions_wake_everybody_who_waits() {
    // Four pages, two threads for each; the disk answers in reverse order.
    let (s, file, reads, _) = gated(4);
    reads.shut();
    std::thread::scope(|threads| {
        let wait = |page: u64, cpu| {
            let side = s.process(0).another_thread(CpuId(cpu));
            threads.spawn(move || side.load_u8(addr(page).get()))
        };
        let mut waiters: Vec<_> = (0..8).map(|n| (n / 2, wait(n / 2, (n % 2) as u16))).collect();
        reads.wait_for(4);
        while let Some((page, last)) = waiters.pop() {
            reads.let_through(page);
            let (also, first) = waiters.pop().expect("two for each");
            assert_eq!((page, also), (page, page));
            for one in [last, first] {
                assert_eq!(one.join().expect("no panic"), Ok(65 + page as u8), "page {page}");
            }
        }
    });
    assert_eq!(file.vnode.transfers().0, 4, "each page was read once");
    drop(file);
    s.end();
}

#[test]
fn j05_two_faults_read_a_page_once() {
    for _ in 0..20 {
        let (s, file) = mapped(1);
        let sides = [0, 1].map(|cpu| s.process(0).another_thread(CpuId(cpu)));
        std::thread::scope(|threads| {
            for side in sides {
                threads.spawn(move || assert_eq!(side.load_u8(addr(0).get()), Ok(0)));
            }
        });
        assert_eq!(file.vnode.transfers().0, 1);
        drop(file);
        s.end();
    }
}

#[test]
fn j08_truncated_and_stored_to_under_pressure() {
    let mut s = Scene::on("machine memory=128");
    s.run("file 0 0; map 0 100 90 rw priv fixed anon");
    for round in 0..12u64 {
        let pages = 1 + round % 4;
        s.run(&format!(
            "truncate 0 0; truncate 0 {}; map 0 0 {pages} rw shared fixed file 0 0",
            pages * 4096
        ));
        s.run(&format!(
            "read 0 {} 0+1; expect ok b=00; write 0 0 {pages} {}; write 0 100 90 1",
            pages - 1,
            65 + round
        ));
        s.run(&format!(
            "read 0 {} 0+1; expect ok b={:02x}; unmap 0 0 {pages}",
            pages - 1,
            65 + round
        ));
    }
    s.end();
}

#[test]
fn j11_a_look_for_cleaning_takes_nothing_off_a_list() {
    let s = scene("file 0 4096; map 0 0 1 r shared fixed file 0 0; read 0 0 1; unmap 0 0 1");
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let (name, free) = (Identity::new(s.file_vnode(0), FileOffset(0)), db.freemem());
    assert!(db.try_lookup_excl(cx, name).is_none() && db.exists(cx, name).is_some());
    assert_eq!(db.freemem(), free);
    s.end();
}

#[test]
fn j13_many_writers_while_the_file_grows() {
    let (s, file) = mapped(4);
    let sides = [0u64, 1].map(|n| (n, s.process(0).another_thread(CpuId(n as u16))));
    std::thread::scope(|threads| {
        for (n, side) in sides {
            threads.spawn(move || {
                for page in (n..8).step_by(2) {
                    // Past the end as it is then: a signal, and nothing stored.
                    let _ = side.store(addr(page).get(), &[65 + page as u8]);
                }
            });
        }
        file.vnode.truncate(s.machine().cx(), s.machine().db(), 8 * PAGE_SIZE).expect("grown");
    });
    for page in 0..8 {
        let byte = s.process(0).load_u8(addr(page).get()).expect("within the file");
        assert!(byte == 65 + page as u8 || (page >= 4 && byte == 0), "page {page}: {byte}");
    }
    drop(file);
    s.end();
}
