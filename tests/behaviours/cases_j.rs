//! J: page cache and writing back.

use crate::{Scene, addr, scene};
use page_db::{CpuId, FileOffset, Identity, PAGE_SIZE};
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{MapFlags, MapRequest};

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
    let handle = FileHandle::new(file, OpenMode::ReadWrite);
    let (flags, len) = (MapFlags::SHARED | MapFlags::FIXED, 2 * pages * PAGE_SIZE);
    let request =
        MapRequest { addr: addr(0).get(), len, prot: 3, flags, file: Some(&handle), offset: 0 };
    s.process(0).mmap(&request).expect("free");
    (s, handle)
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
