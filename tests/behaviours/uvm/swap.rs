//! Swap that is full or fails, pages that go while they are written, two processors at once.

use super::scene;
use crate::{Scene, space};
use page_db::{CpuId, Cx, PAGE_SIZE, Pfn, PhysMem};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use swapfs::{DeviceError, FaultyDevice, MemDevice, SwapDevice};

#[test]
fn u26_a_locked_private_file_is_copied_by_stores_alone() {
    // UVM copies at the lock. Here the claim follows the copy that a store makes.
    let mut s = scene("file 0 16384; map 0 0 4 r priv fixed file 0 0");
    s.run("lock 0 0 4; expect ok; expect counter cow_fault +0");
    assert_eq!(s.machine().db().claimed_pages(), 4);
    s.run("protect 0 0 4 rw; expect ok; write 0 0 4 1; expect ok; expect counter cow_fault +4");
    assert_eq!(s.machine().db().claimed_pages(), 4, "the copies', not the file's");
    s.run("lock 0 0 4; expect ok; unlock 0 0 4; expect ok");
    assert_eq!((s.machine().db().claimed_pages(), space(&s, 0).state().locked()), (0, 0));
    s.end();
}

#[test]
fn u33_full_swap_takes_places_from_pages_in_memory() {
    // Swap holds half of what is used; whose places go is shown in swapfs, `slots::full_swap_takes_slots_from_pages_in_memory`.
    let mut s = Scene::on("machine memory=160 swap=mem:64");
    s.run("map 0 0 128 rw priv fixed anon");
    for round in 65..69 {
        let before = s.count("anonpgout");
        s.run(&format!("write 0 0 128 {round}; expect ok; pageout *"));
        assert!(s.count("anonpgout") - before >= 32, "round {round}: swap is used");
        assert_eq!(s.machine().swap().swapinfo().0[0].free, 0, "round {round}: and full");
        s.run(&format!(
            "read 0 0 0+1; expect ok b={round:02x}; read 0 127 0+1; expect ok b={round:02x}"
        ));
    }
    s.end();
}

/// A device whose writes wait to be let go.
#[derive(Debug)]
struct Gate {
    inner: MemDevice,
    arrived: AtomicBool,
    open: AtomicBool,
}

impl SwapDevice for Gate {
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
        self.arrived.store(true, Ordering::Release);
        while !self.open.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.inner.write(cx, page, frames, mem)
    }
}

#[test]
fn u35_the_last_reference_goes_while_the_page_is_written() {
    let mut s = Scene::on("machine memory=512 cpus=2");
    let (arrived, open) = (AtomicBool::new(false), AtomicBool::new(false));
    let gate = Arc::new(Gate { inner: MemDevice::new("gate", 8), arrived, open });
    let added = s.machine().swap().add(s.machine().cx(), Arc::<Gate>::clone(&gate) as _, 0, 8, 10);
    let area = added.expect("fits");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    let at = crate::addr(0).get();
    let (pusher, leaver) = (s.machine().thread(CpuId(1)), s.process(0).another_thread(CpuId(0)));
    let waited = std::thread::scope(|threads| {
        // Page-out writes with nothing of the address space held.
        threads.spawn(move || pusher.pageout_all());
        while !gate.arrived.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let gone = threads.spawn(move || leaver.munmap(at, PAGE_SIZE));
        // What it sleeps for is the page.
        let sleeps = || s.machine().db().waits().sleepers() != 0;
        while !sleeps() && !gone.is_finished() {
            std::thread::yield_now();
        }
        let waited = (sleeps(), s.machine().swap().live());
        gate.open.store(true, Ordering::Release);
        gone.join().expect("no panic").expect("unmapped");
        waited
    });
    assert_eq!(waited, (true, 1), "not before the write is done");
    assert_eq!(s.machine().swap().live(), 0);
    let places = s.machine().swap().swapinfo();
    let own = places.0.iter().find(|a| a.id == area).expect("listed");
    assert_eq!(own.free, 8, "its place is free, once");
    s.run("read 0 0 0+1; expect SEGV at=0 code=maperr");
    s.end();
}

#[test]
fn u36_a_page_that_swap_cannot_read_is_lost_and_its_place_with_it() {
    let mut s = Scene::new();
    let memory = Arc::new(MemDevice::new("bad", 8));
    let device = Arc::new(FaultyDevice::new(Arc::<MemDevice>::clone(&memory) as _));
    let added = s.machine().swap().add(
        s.machine().cx(),
        Arc::<FaultyDevice>::clone(&device) as _,
        0,
        8,
        10,
    );
    let area = added.expect("fits");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65; sync 0 0 1 sync+inval; expect ok");
    device.fail_read(1);
    s.run("read 0 0 0+1; expect BUS at=0");
    let reads = memory.transfers().0;
    s.run("read 0 0 0+1; expect BUS at=0; expect counter pgin +0");
    assert_eq!(memory.transfers().0, reads, "no second try");
    s.run("unmap 0 0 1");
    let places = s.machine().swap().swapinfo();
    let own = places.0.iter().find(|a| a.id == area).expect("listed");
    assert_eq!((s.machine().swap().live(), own.free, own.bad), (0, 7, 1), "never used again");
    s.end();
}

#[test]
fn u38_two_processors_store_to_one_shared_page() {
    for _ in 0..20 {
        let mut s = Scene::on("machine memory=512 cpus=2");
        s.run("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1");
        let (free, at) = (s.machine().db().freemem(), crate::addr(0).get());
        let copies = s.count("cow_fault");
        let sides = [0, 1].map(|p| s.process(p).another_thread(CpuId(p as u16)));
        std::thread::scope(|threads| {
            for (n, side) in (70u8..).zip(sides) {
                threads.spawn(move || side.store(at, &[n]).expect("stored"));
            }
        });
        let copied = s.count("cow_fault") - copies;
        assert!((1..=2).contains(&copied), "{copied}");
        s.run("verify; read 0 0 0+1; expect ok b=46; read 1 0 0+1; expect ok b=47");
        assert_eq!(s.machine().swap().live(), 2, "if both copied, the old one is gone");
        // A page more, and the child's tables.
        assert!(free - s.machine().db().freemem() <= 4);
        s.end();
    }
}
