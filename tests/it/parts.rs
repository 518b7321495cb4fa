//! A machine with parts of the caller's own: each is asked, and everything still holds.

use hat_x86::{Bytes, Caps, CpuSet, FlushDue, HostMmu, Mmu, SpaceId, Trap, UserAccess};
use page_db::hash::ChainHash;
use page_db::page::PageArray;
use page_db::{CpuId, Cx, Identity, PAGE_SIZE, PageHash, PageId, PageoutConfig, Pfn, VirtAddr};
use segvm::Machine;
use segvm::files::{FileHandle, OpenMode, PageBuf, Store};
use segvm::machine::{MapFlags, MapRequest, Process};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use swapfs::SwapConfig;

const PAGES: u64 = 32;

/// Stores, forks, stores on both sides, pushes everything out and compares.
fn exercise(m: &Machine) {
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(PAGES * PAGE_SIZE).expect("room");
    let each = |p: &Process, byte: u8| {
        (0..PAGES).for_each(|i| p.store(at + i * PAGE_SIZE, &[byte, i as u8]).expect("mapped"));
    };
    let all = |p: &Process, byte: u8| {
        for i in 0..PAGES {
            let mut found = [0; 2];
            p.load(at + i * PAGE_SIZE, &mut found).expect("mapped");
            assert_eq!(found, [byte, i as u8]);
        }
    };
    each(&p, 1);
    let child = p.fork().expect("a child");
    each(&child, 2);
    m.pageout_all();
    all(&p, 1);
    all(&child, 2);
    m.verify().expect("every invariant");
    child.exit();
    p.exit();
    m.verify().expect("nothing is left");
}

/// The library's chain, with its calls counted.
#[derive(Debug)]
struct Counted {
    inner: ChainHash,
    inserted: Arc<AtomicU64>,
}

impl PageHash for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }
    fn search_hint(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        self.inner.search_hint(cx, pages, id)
    }
    fn search_locked(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        self.inner.search_locked(cx, pages, id)
    }
    fn insert_unless_present(
        &self,
        cx: &Cx,
        pages: &PageArray,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
        self.inserted.fetch_add(1, Relaxed);
        self.inner.insert_unless_present(cx, pages, id, page)
    }
    fn remove(&self, cx: &Cx, pages: &PageArray, id: Identity, page: PageId) {
        self.inner.remove(cx, pages, id, page);
    }
    fn replace(&self, cx: &Cx, pages: &PageArray, id: Identity, from: PageId, to: PageId) {
        self.inner.replace(cx, pages, id, from, to);
    }
    fn chain_lengths(&self, cx: &Cx, pages: &PageArray) -> Vec<u64> {
        self.inner.chain_lengths(cx, pages)
    }
    fn all(&self, cx: &Cx, pages: &PageArray) -> Vec<(Identity, PageId)> {
        self.inner.all(cx, pages)
    }
}

#[test]
fn a_page_hash_of_ones_own_files_every_page() {
    let inserted = Arc::new(AtomicU64::new(0));
    let (count, asked) = (Arc::clone(&inserted), Arc::new(AtomicU64::new(0)));
    let room = Arc::clone(&asked);
    let builder = Machine::builder().frames(600).page_hash(move |pages| {
        room.store(pages, Relaxed);
        Ok(Box::new(Counted { inner: ChainHash::new(pages)?, inserted: Arc::clone(&count) }))
    });
    let m = builder.build().expect("a machine");
    assert_eq!((m.db().hash().name(), asked.load(Relaxed)), ("counted", 600));
    exercise(&m);
    assert!(inserted.load(Relaxed) >= 2 * PAGES, "{}", inserted.load(Relaxed));
    // Each machine gets a table of its own; the last word decides.
    let other = builder.build().expect("another");
    assert_eq!(other.db().hash().name(), "counted");
    let chain = builder.hash(page_db::HashKind::Chain).build().expect("a third");
    assert_eq!(chain.db().hash().name(), "chain");
}

#[test]
fn a_page_hash_that_cannot_be_made_makes_no_machine() {
    let refused = page_db::PageDbError::TooManyFrames { frames: 600 };
    let built = Machine::builder().frames(600).page_hash(move |_| Err(refused)).build();
    assert_eq!(built.map(drop).unwrap_err().to_string(), refused.to_string());
}

/// Simulated processors that never say where they run, so that they are told before every access, and count flushes.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<HostMmu>,
    told: AtomicU64,
    flushed: AtomicU64,
}

impl Mmu for Forgetful {
    fn caps(&self) -> Caps {
        self.inner.caps()
    }
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.inner.space_created(cx, id, root);
    }
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.inner.space_destroyed(cx, id, root);
    }
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>) {
        self.told.fetch_add(1, Relaxed);
        self.inner.activate(cx, cpu, id);
    }
    fn cpu_count(&self) -> u16 {
        self.inner.cpu_count()
    }
    fn running_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        self.inner.running_on(cx, id, cpus);
    }
    fn remembered_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        self.inner.remembered_on(cx, id, cpus);
    }
    fn flush(&self, cx: &Cx, due: &FlushDue) {
        self.flushed.fetch_add(1, Relaxed);
        self.inner.flush(cx, due);
    }
    fn remembered_wrongly(&self, cx: &Cx) -> Option<String> {
        self.inner.remembered_wrongly(cx)
    }
}

impl UserAccess for Forgetful {
    fn access(
        &self,
        cx: &Cx,
        cpu: CpuId,
        mode: hat_x86::Mode,
        va: VirtAddr,
        bytes: Bytes<'_>,
    ) -> Result<(), Trap> {
        self.inner.access(cx, cpu, mode, va, bytes)
    }
}

#[test]
fn processors_of_ones_own_make_every_access_and_hear_of_every_flush() {
    let made: Arc<Mutex<Vec<Arc<Forgetful>>>> = Arc::default();
    let list = Arc::clone(&made);
    let builder = Machine::builder().frames(600).cpus(2).mmu(move |mem, cpus| {
        let inner = HostMmu::new(Arc::clone(mem), cpus);
        let mmu = Arc::new(Forgetful { inner, told: 0.into(), flushed: 0.into() });
        list.lock().expect("one at a time").push(Arc::clone(&mmu));
        mmu
    });
    let (m, idle) = (builder.build().expect("a machine"), builder.build().expect("another"));
    assert!(m.host_mmu().is_none() && m.mmu().caps().deterministic);
    exercise(&m);
    let made = made.lock().expect("one at a time");
    let [used, unused] = &made[..] else { panic!("a machine, an mmu: {made:?}") };
    assert_eq!(used.inner.cpu_count(), 2);
    // A store each for parent and child, a load each afterwards; the faults between come on top.
    assert!(used.told.load(Relaxed) >= 4 * PAGES, "{}", used.told.load(Relaxed));
    assert!(used.flushed.load(Relaxed) > 0);
    assert_eq!(unused.told.load(Relaxed), 0);
    drop(idle);
}

#[test]
fn page_out_goes_at_the_pace_that_the_builder_names() {
    let config = PageoutConfig {
        fastscan: Some(200),
        slowscan: Some(20),
        handspreadpages: Some(50),
        maxpgio: Some(3),
        queue: Some(4),
    };
    let m = Machine::builder().frames(600).pageout(config).build().expect("a machine");
    let s = m.pageout_state();
    assert_eq!((s.fastscan, s.slowscan, s.handspreadpages, s.maxpgio), (200, 20, 50, 3));
    exercise(&m);
}

#[test]
fn swapfs_clusters_and_holds_back_as_the_builder_says() {
    let config = SwapConfig {
        minfree: Some(17),
        reserve: Some(5),
        cluster: 1,
        cpus: 99,
        ..SwapConfig::default()
    };
    let m = Machine::builder().frames(600).swap_config(config).build().expect("a machine");
    assert_eq!(m.swap().floors(), (17, 5));
    exercise(&m);
}

/// Bytes in memory; what is written can be looked at.
#[derive(Clone, Debug, Default)]
struct Pages(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

impl Store for Pages {
    fn read(&self, _: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32> {
        page[..8].copy_from_slice(&offset.to_le_bytes());
        Ok(())
    }
    fn write(&self, _: &Cx, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        self.0.lock().expect("one at a time").insert(offset, bytes[..8].to_vec());
        Ok(())
    }
    fn resize(&self, _: &Cx, _: u64, _: u64) -> Result<(), i32> {
        Ok(())
    }
}

#[test]
fn a_store_of_ones_own_is_read_and_written_through_a_mapping() {
    let m = Machine::builder().frames(600).build().expect("a machine");
    let pages = Pages::default();
    let size = 4 * PAGE_SIZE;
    let file = m.add_file("mine", size, Box::new(pages.clone())).expect("a vnode");
    assert!(m.files().iter().any(|f| Arc::ptr_eq(f, &file)), "a file of the machine's");
    let p = m.spawn("p").expect("a process");
    let handle = FileHandle::new(Arc::clone(&file), OpenMode::ReadWrite);
    let request = MapRequest {
        addr: 0,
        len: size,
        prot: 3,
        flags: MapFlags::SHARED,
        file: Some(&handle),
        offset: 0,
    };
    let at = p.mmap(&request).expect("room");
    let mut found = [0; 8];
    p.load(at + 2 * PAGE_SIZE, &mut found).expect("mapped");
    assert_eq!(u64::from_le_bytes(found), 2 * PAGE_SIZE);
    p.store(at + PAGE_SIZE, b"through!").expect("mapped");
    p.msync(at, size, addr_space::SyncFlags::empty()).expect("mapped");
    let stored = pages.0.lock().expect("one at a time").clone();
    assert_eq!(stored.into_iter().collect::<Vec<_>>(), [(PAGE_SIZE, b"through!".to_vec())]);
    p.exit();
    drop(handle);
    assert!(m.remove_file(file), "nobody has it any more");
    m.verify().expect("every invariant");
}
