//! Truncation beside soft locks of the pages that it takes away.

use addr_space::FaultKind;
use page_db::{Access, CpuId, PAGE_SIZE, VirtRange};
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{Machine, MapFlags, MapRequest};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A soft lock pins page after page while the file is cut: it fails and gives them up, or the file waits for its end.
#[test]
fn a_soft_lock_of_many_pages_ends_beside_a_truncation() {
    const PAGES: u64 = 500;
    let m = Machine::builder().frames(2048).cpus(2).build().expect("a machine");
    let f = m.create_file("f", PAGES * PAGE_SIZE).expect("a file");
    let h = FileHandle::new(Arc::clone(&f), OpenMode::ReadWrite);
    let p = m.spawn("p").expect("a process");
    let len = PAGES * PAGE_SIZE;
    let flags = MapFlags::SHARED;
    let addr = p
        .mmap(&MapRequest { addr: 0, len, prot: 3, flags, file: Some(&h), offset: 0 })
        .expect("room");
    let range = VirtRange::exact(addr, len).expect("aligned");
    for round in 0..20 {
        let (locker, locked) = channel();
        let user = p.another_thread(CpuId(1));
        std::thread::spawn(move || {
            let fault = |kind| user.space().fault(user.cx(), range, kind, Access::Read);
            let _ = locker.send(None);
            let done = fault(FaultKind::SoftLock);
            if done.is_ok() {
                fault(FaultKind::SoftUnlock).expect("it is locked");
            }
            let _ = locker.send(Some(done));
        });
        let (cutter, cut) = channel();
        let (file, t) = (Arc::clone(&f), m.thread(CpuId(0)));
        assert_eq!(locked.recv(), Ok(None));
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(100 * round));
            let _ = cutter.send(file.truncate(t.cx(), t.db(), 0));
        });
        let patience = Duration::from_secs(60);
        let done = locked.recv_timeout(patience).expect("F9: neither waits for the other for ever");
        assert!(done.is_some());
        assert_eq!(cut.recv_timeout(patience), Ok(Ok(())), "F9: nobody is in its way");
        assert_eq!(m.db().vnode_page_count(m.cx(), page_db::Vnode::id(&*f)), 0, "F2");
        f.truncate(m.cx(), m.db(), len).expect("grown");
    }
    m.verify().expect("sound");
}
