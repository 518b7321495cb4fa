//! The hat's races, explored; see [`page_db::sync::explore`] for how.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p hat-x86 schedules --target-dir target/shuttle`.

mod read_only;

use crate::{HatX86, HostMmu, Mmu, SpaceId, UserAccess};
use addr_space::{Hat, HatProvider, LoadFlags, Loaded, Stamp, UnloadFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use page_db::sync::atomic::AtomicU32;
use page_db::sync::explore::{self, explore, join};
use page_db::sync::{Mutation as M, Mutex};
use page_db::{
    Counters, CpuId, Cx, FileOffset, HostMem, Identity, LockedPage, ManualClock, PageDb,
    PageDbConfig, PageId, PageMappings, Pfn, PhysMem, Prot, PutFlags, Rank, RefMod, Reserve,
    SharedPage, SpinHooks, SyncMode, ThreadId, Thresholds, VirtAddr, VirtRange, VnodeKind, pvn,
};
use shuttle::thread;

#[derive(Clone)]
struct World {
    counters: Arc<Counters>,
    db: Arc<PageDb>,
    mmu: Arc<HostMmu>,
    hx: Arc<HatX86>,
    hat: Arc<dyn Hat>,
}

fn cx_of(counters: &Arc<Counters>, n: u16) -> Cx {
    Cx::new(counters, CpuId(n % 2), ThreadId(u32::from(n)), Arc::new(SpinHooks))
}

fn world() -> (World, Cx) {
    let counters = Counters::new(2);
    let cx = cx_of(&counters, 0);
    let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), 24).expect("host memory"));
    let config = PageDbConfig {
        cpus: 2,
        thresholds: Some(Thresholds::from_lotsfree(0)),
        ..PageDbConfig::default()
    };
    let clock = Arc::new(ManualClock::default());
    let db = PageDb::new(&cx, Arc::clone(&mem), clock, Arc::clone(&counters), &config);
    let db = Arc::new(db.expect("small enough"));
    let mmu = HostMmu::new(mem, 2);
    let hx = HatX86::new(&cx, Arc::clone(&db), mmu.clone() as Arc<dyn Mmu>).expect("room");
    let hat = hx.alloc(&cx).expect("room");
    mmu.activate(&cx, CpuId(1), Some(SpaceId(hat.id())));
    (World { counters, db, mmu, hx, hat }, cx)
}

impl World {
    fn page(&self, cx: &Cx) -> PageId {
        let page = self.db.alloc(cx, 0, Reserve::Push).expect("room");
        self.db.mem().zero(page.pfn());
        page.id()
    }
    fn load(&self, cx: &Cx, addr: u64, page: PageId) {
        let page = self.db.lock_shared(cx, page);
        let done = self.hat.memload(cx, va(addr), &page, Prot::RW, LoadFlags::REMAP, None);
        assert_eq!(done, Ok(Loaded::Done));
    }
    fn unload(&self, cx: &Cx, addr: u64) {
        self.hat.unload(cx, one(addr), UnloadFlags::empty());
    }
    /// The page of the only leaf's frame.
    fn leaf_frame(&self) -> PageId {
        let is_leaf = |id: &u32| {
            let rec = self.hx.tables.get(*id);
            rec.is_alive() && rec.level() == 0
        };
        let leaf = (1..=self.hx.tables.high()).find(is_leaf).expect("a leaf");
        self.db.page_of(self.hx.tables.get(leaf).pfn()).expect("managed")
    }
    fn spawn(&self, n: u16, f: impl FnOnce(&Self, &Cx) + Send + 'static) -> thread::JoinHandle<()> {
        let w = self.clone();
        explore::spawn(move || {
            let cx = cx_of(&w.counters, n);
            f(&w, &cx);
            assert!(cx.held().is_empty());
        })
    }
    fn verify(&self, cx: &Cx) {
        self.hx.verify(cx).expect("nothing is damaged");
        self.db.verify(cx).expect("pages are sound");
    }
}

fn va(addr: u64) -> VirtAddr {
    VirtAddr::new(addr).expect("canonical")
}
fn one(addr: u64) -> VirtRange {
    VirtRange::page_of(va(addr))
}

/// C1: a fault that read the old protection never leaves it behind a change that has returned.
#[test]
fn stamp_against_change() {
    explore(300, &[M::StampIgnored], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        let (seq, prot) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(1)));
        let (s, p) = (Arc::clone(&seq), Arc::clone(&prot));
        let fault = w.spawn(1, move |w, cx| {
            let page = w.db.lock_shared(cx, page);
            loop {
                let stamp = Stamp::take(&s);
                let prot = if p.load(SeqCst) == 1 { Prot::RW } else { Prot::READ };
                let done =
                    w.hat.memload(cx, va(0x1000), &page, prot, LoadFlags::empty(), Some(stamp));
                if done.expect("room") == Loaded::Done {
                    return;
                }
                thread::yield_now();
            }
        });
        let change = w.spawn(0, move |w, cx| {
            seq.store(1, SeqCst);
            prot.store(0, SeqCst);
            seq.store(2, SeqCst);
            w.hat.chg_prot(cx, one(0x1000), Prot::READ);
            let t = w.hat.probe(cx, va(0x1000));
            assert!(t.is_none_or(|t| !t.prot.contains(Prot::WRITE)), "C1");
        });
        join([fault, change]);
        let t = w.hat.probe(&cx, va(0x1000)).expect("loaded in the end");
        assert!(!t.prot.contains(Prot::WRITE), "C1");
        w.verify(&cx);
    });
}

/// H1, H2: neighbouring leaves come and go, and with them the tables above.
#[test]
fn tables_come_and_go() {
    explore(300, &[M::LinkedUnderTheDead], || {
        let (w, cx) = world();
        let pages = [w.page(&cx), w.page(&cx)];
        let threads: Vec<_> = (0..2u16)
            .map(|n| {
                w.spawn(n, move |w, cx| {
                    let at = 0x40_0000 + u64::from(n) * 0x20_0000;
                    for _ in 0..2 {
                        w.load(cx, at, pages[usize::from(n)]);
                        assert!(w.hat.probe(cx, va(at)).is_some());
                        w.unload(cx, at);
                    }
                })
            })
            .collect();
        join(threads);
        assert_eq!(w.hat.resident(), 0);
        w.verify(&cx);
    });
}

/// H2: a leaf that one thread has just emptied is filled by another before it is unlinked.
#[test]
fn a_leaf_emptied_and_filled() {
    explore(300, &[M::EmptyBelieved], || {
        let (w, cx) = world();
        let pages = [w.page(&cx), w.page(&cx)];
        w.load(&cx, 0x1000, pages[0]);
        let empties = w.spawn(0, |w, cx| w.unload(cx, 0x1000));
        let fills = w.spawn(1, move |w, cx| w.load(cx, 0x2000, pages[1]));
        join([empties, fills]);
        assert!(w.hat.probe(&cx, va(0x2000)).is_some(), "H2");
        assert_eq!(w.hat.resident(), 1);
        w.verify(&cx);
    });
}

/// H2: a hat ends while a page is unloaded from below, which has emptied the only leaf and takes one table after another out of the one above. What was the top
/// table's is somebody else's frame and record next.
#[test]
fn an_end_against_an_unload_on_its_way_up() {
    const BYTES: u64 = 0x5a5a_5a5a_5a5a_5a5a;
    explore(600, &[M::TopEndsFirst], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        let below = w.spawn(1, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            w.db.unload(cx, &page);
        });
        let next = Arc::new(Mutex::new(Rank::Registry, Vec::new()));
        let owned = Arc::clone(&next);
        let end = w.spawn(0, move |w, cx| {
            // Nothing is mapped any more, so nothing is missed by ending without a look through all tables, in which the other would get away.
            while w.hat.resident() != 0 {
                thread::yield_now();
            }
            w.hat.free_start(cx);
            w.hat.free_end(cx);
            let mine = [(); 4].map(|()| w.page(cx));
            for page in mine {
                w.db.mem().u64_at(w.db.pfn(page), 0).store(BYTES, SeqCst);
            }
            owned.lock_host().extend(mine);
            let hat = w.hx.alloc(cx).expect("room");
            let page = w.db.lock_shared(cx, page);
            let done = hat.memload(cx, va(0x1000), &page, Prot::RW, LoadFlags::empty(), None);
            assert_eq!(done, Ok(Loaded::Done));
        });
        join([below, end]);
        for page in next.lock_host().iter() {
            let pfn = w.db.pfn(*page);
            assert_eq!(w.db.mem().u64_at(pfn, 0).load(SeqCst), BYTES, "law 6: frame {pfn}");
        }
        w.verify(&cx);
    });
}

/// T1, law 6: a hat ends while another thread of the space stores and switches to it again. The frame has another owner as soon as it is unmapped.
#[test]
fn an_end_against_a_store() {
    explore(300, &[M::FreeingBeforeLeft], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        let user = w.spawn(1, |w, cx| {
            for _ in 0..3 {
                let _ = w.mmu.store(cx, CpuId(1), va(0x1000), &[1]);
                w.mmu.activate(cx, CpuId(1), Some(SpaceId(w.hat.id())));
            }
        });
        let end = w.spawn(0, move |w, cx| {
            w.hat.free_start(cx);
            w.unload(cx, 0x1000);
            w.db.mem().zero(w.db.pfn(page));
            w.hat.free_end(cx);
        });
        join([user, end]);
        assert_eq!(w.db.mem().u64_at(w.db.pfn(page), 0).load(SeqCst), 0, "law 6");
        assert!(w.mmu.store(&cx, CpuId(1), va(0x1000), &[1]).is_err(), "T1");
        assert_eq!(
            w.mmu.current(&cx, CpuId(1)),
            SpaceId::KERNEL,
            "nobody stays in a space that is gone"
        );
        w.verify(&cx);
    });
}

/// M1, M3: a page is unloaded from below while it is loaded and unloaded from above.
#[test]
fn page_side_against_range_side() {
    explore(300, &[], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        let above = w.spawn(1, move |w, cx| {
            w.load(cx, 0x2000, page);
            w.unload(cx, 0x1000);
            w.load(cx, 0x1000, page);
        });
        let below = w.spawn(0, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            w.db.unload(cx, &page);
            assert_eq!(w.db.share_count(cx, page.id()), 0, "M1: no load while it is held");
        });
        join([above, below]);
        w.verify(&cx);
    });
}

/// M5: somebody asks who maps a page, and how often, by an id he has from before: the frame is a table's, and then free.
#[test]
fn mappings_of_a_frame_that_was_a_table() {
    explore(300, &[M::HeadStoredOver], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        let leaf = w.leaf_frame();
        let unload = w.spawn(1, move |w, cx| w.unload(cx, 0x1000));
        let looks = w.spawn(0, move |w, cx| {
            for _ in 0..2 {
                assert_eq!(w.db.share_count(cx, leaf), 0);
                assert_eq!(w.hx.mappings_of(cx, leaf), []);
            }
        });
        join([unload, looks]);
        assert!(!w.db.page(leaf).is_mapped(), "M5");
        w.load(&cx, 0x1000, page);
        w.verify(&cx);
    });
}

/// M1: a mapping is removed by way of its range and of its page at once.
#[test]
fn one_mapping_removed_from_both_sides() {
    explore(300, &[M::MappingBelieved], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        let range = w.spawn(1, |w, cx| w.unload(cx, 0x1000));
        let below = w.spawn(0, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            w.db.unload(cx, &page);
        });
        join([range, below]);
        assert_eq!(w.hat.resident(), 0);
        w.verify(&cx);
    });
}

/// T1, F4: no store reaches a frame after whoever unmapped or freed it has returned.
#[test]
fn no_store_into_a_freed_frame() {
    explore(300, &[M::DebtsUnseen], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        let user = w.spawn(1, move |w, cx| {
            for _ in 0..2 {
                let _ = w.mmu.store(cx, CpuId(1), va(0x1000), &[1]);
            }
        });
        let unmap = w.spawn(2, move |w, cx| w.unload(cx, 0x1000));
        let free = w.spawn(0, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            let pfn = page.pfn();
            w.db.destroy(cx, page);
            w.db.mem().write(pfn, 0, &[7]);
            thread::yield_now();
            let mut now = [0];
            w.db.mem().read(pfn, 0, &mut now);
            assert_eq!(now, [7], "T1");
        });
        join([user, unmap, free]);
        w.verify(&cx);
    });
}

/// F2: an entry whose accessed bit was harvested is flushed all the same, whoever removes it.
#[test]
fn harvest_against_unload() {
    explore(300, &[M::HarvestOwesNothing], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        w.mmu.store(&cx, CpuId(1), va(0x1000), &[1]).expect("mapped");
        let harvest = w.spawn(1, move |w, cx| w.hat.sync(cx, one(0x1000), SyncMode::ZeroRm));
        let unload = w.spawn(0, |w, cx| {
            w.unload(cx, 0x1000);
            assert_eq!(w.mmu.remembered(cx, CpuId(1)), [], "T1");
        });
        join([harvest, unload]);
        w.verify(&cx);
    });
}

/// A page of a file, mapped at 0x1000 and modified.
fn modified_page(w: &World, cx: &Cx) -> PageId {
    let vnode = w.db.vnodes().register(cx, VnodeKind::File).expect("a number");
    let name = Identity { vnode, offset: FileOffset(0) };
    let page = w.db.create(cx, name, 0, Reserve::Push).expect("room");
    w.db.mem().zero(page.pfn());
    page.end_io();
    let page = page.downgrade().id();
    w.load(cx, 0x1000, page);
    w.db.page(page).set_ref_mod(RefMod::MOD);
    page
}
/// The first byte of a page.
fn byte_of(w: &World, page: &dyn LockedPage) -> u32 {
    let mut byte = [0];
    w.db.mem().read(page.pfn(), 0, &mut byte);
    u32::from(byte[0])
}

/// Writes the page of [`modified_page`] out while a processor stores to it and `beside` takes its translation's bits.
fn write_out_against(mutation: M, beside: fn(&World, &Cx)) {
    explore(600, &[mutation], move || {
        let (w, cx) = world();
        let page = modified_page(&w, &cx);
        let store = w.spawn(1, move |w, cx| {
            for byte in 1..8 {
                let _ = w.mmu.store(cx, CpuId(1), va(0x1000), &[byte]);
            }
        });
        let beside = w.spawn(2, beside);
        let written = Arc::new(AtomicU32::new(0));
        let out = Arc::clone(&written);
        let write = w.spawn(0, move |w, cx| {
            let page = w.db.lock_shared(cx, page);
            let dirty = pvn::get_dirty_shared(cx, &w.db, page, PutFlags::empty());
            let dirty = dirty.expect("V2: it is modified");
            out.store(byte_of(w, &dirty.page), SeqCst);
            pvn::write_done(cx, &w.db, dirty, true, PutFlags::empty()).expect("it may stay");
        });
        join([store, beside, write]);
        let page = w.db.lock_shared(&cx, page);
        let modified = w.db.sync_ref_mod(&cx, &page, SyncMode::DontZero).contains(RefMod::MOD);
        assert!(modified || byte_of(&w, &page) == written.load(SeqCst), "V2: a store is lost");
        drop(page);
        w.verify(&cx);
    });
}

/// V2: what a processor stores through a translation that is being removed is written out, or the page is modified.
#[test]
fn write_out_against_unload() {
    write_out_against(M::CleanBesideADebt, |w, cx| w.unload(cx, 0x1000));
}

/// M6: the same of a translation that only loses its bits.
#[test]
fn write_out_against_harvest() {
    write_out_against(M::HarvestOwesNothing, |w, cx| w.hat.sync(cx, one(0x1000), SyncMode::ZeroRm));
}

/// Ends a write with `flags` while somebody who has mapped the page again meanwhile stores to it, and loses the translation again.
fn store_against_the_end_of_a_write(flags: PutFlags) {
    explore(600, &[M::UsedAskedFirst], move || {
        let (w, cx) = world();
        let page = modified_page(&w, &cx);
        let name = w.db.page(page).identity().expect("it has a name");
        let (begun, stored) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (b, s) = (Arc::clone(&begun), Arc::clone(&stored));
        let store = w.spawn(1, move |w, cx| {
            while b.load(SeqCst) == 0 {
                thread::yield_now();
            }
            if w.mmu.store(cx, CpuId(1), va(0x1000), &[7]).is_ok() {
                s.store(7, SeqCst);
            }
            w.unload(cx, 0x1000);
        });
        let write = w.spawn(0, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            let dirty = pvn::get_dirty(cx, &w.db, page, flags).expect("it is modified");
            // Somebody's fault, while the page is being written.
            let remap = LoadFlags::REMAP;
            let done = w.hat.memload(cx, va(0x1000), &dirty.page, Prot::RW, remap, None);
            assert_eq!(done, Ok(Loaded::Done));
            begun.store(1, SeqCst);
            pvn::write_done(cx, &w.db, dirty, true, flags).expect("nothing locks it");
        });
        join([store, write]);
        let is_modified = |page: &SharedPage<'_>| {
            let bits = w.db.sync_ref_mod(&cx, page, SyncMode::DontZero);
            bits.contains(RefMod::MOD)
        };
        let kept = w.db.lookup_shared(&cx, name).filter(is_modified);
        // What was written is zeros.
        let found = kept.map_or(0, |page| byte_of(&w, &page));
        assert_eq!(found, stored.load(SeqCst), "V4: a store is lost");
        w.verify(&cx);
    });
}

/// V4: a store to a page that is to leave memory after its write keeps it there.
#[test]
fn store_against_the_end_of_an_invalidating_write() {
    store_against_the_end_of_a_write(PutFlags::INVAL);
}

/// V4: so does one to a page that is to be free.
#[test]
fn store_against_the_end_of_a_freeing_write() {
    store_against_the_end_of_a_write(PutFlags::ASYNC | PutFlags::FREE);
}

/// M6: what was stored before somebody asks about the page is seen by him, wherever the bit has got to.
#[test]
fn harvest_of_a_range_against_harvest_of_a_page() {
    explore(300, &[M::BitsInFlight], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        w.mmu.load(&cx, CpuId(1), va(0x1000), &mut [0]).expect("mapped");
        let stored = Arc::new(AtomicU32::new(0));
        let s = Arc::clone(&stored);
        let store = w.spawn(1, move |w, cx| {
            w.mmu.store(cx, CpuId(1), va(0x1000), &[1]).expect("mapped");
            s.store(1, SeqCst);
        });
        let range = w.spawn(0, |w, cx| w.hat.sync(cx, one(0x1000), SyncMode::ZeroRm));
        let below = w.spawn(2, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            let before = stored.load(SeqCst) == 1;
            let bits = w.db.sync_ref_mod(cx, &page, SyncMode::ZeroRm);
            assert!(bits.contains(RefMod::MOD) || !before, "M6");
        });
        join([store, range, below]);
        w.verify(&cx);
    });
}

/// H3: theft, replacement and a walk of the same leaf.
#[test]
fn theft_against_replacement() {
    explore(300, &[M::PinUnseen], || {
        let (w, cx) = world();
        let pages = [w.page(&cx), w.page(&cx)];
        w.load(&cx, 0x1000, pages[0]);
        let replace = w.spawn(1, move |w, cx| {
            w.load(cx, 0x1000, pages[1]);
            let _ = w.mmu.store(cx, CpuId(1), va(0x1000), &[1]);
        });
        let steal = w.spawn(0, |w, cx| assert!(w.hx.steal_tables(cx, 1) <= 3));
        let walk =
            w.spawn(2, |w, cx| w.hat.walk(cx, one(0x1000), &mut |_, t| assert_eq!(t.level, 0)));
        join([replace, steal, walk]);
        w.verify(&cx);
    });
}

/// U2: a leaf is denied from above; one thread is granted a page of it, another's store to its neighbour fails at every instant.
#[test]
fn a_split_gives_nothing_away() {
    explore(300, &[M::AllowedFirst], || {
        let (w, cx) = world();
        let pages = [w.page(&cx), w.page(&cx)];
        w.load(&cx, 0x1000, pages[0]);
        w.load(&cx, 0x2000, pages[1]);
        w.hat.clear_write(&cx, VirtRange::exact(0, 1 << 21).expect("a leaf's"));
        let grant = w.spawn(0, move |w, cx| w.load(cx, 0x1000, pages[0]));
        let store = w.spawn(1, move |w, cx| {
            for _ in 0..3 {
                assert!(w.mmu.store(cx, CpuId(1), va(0x2000), &[1]).is_err(), "U2");
            }
        });
        join([grant, store]);
        assert!(w.mmu.store(&cx, CpuId(1), va(0x1000), &[1]).is_ok());
        w.verify(&cx);
    });
}

/// U2, C1: a leaf is denied from above while a fault that was decided before grants a page of it.
#[test]
fn a_denial_against_a_load() {
    explore(300, &[M::StampIgnored], || {
        let (w, cx) = world();
        let pages = [w.page(&cx), w.page(&cx)];
        w.load(&cx, 0x1000, pages[0]);
        w.load(&cx, 0x2000, pages[1]);
        let (seq, cow) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (s, c) = (Arc::clone(&seq), Arc::clone(&cow));
        let fault = w.spawn(1, move |w, cx| {
            let page = w.db.lock_shared(cx, pages[0]);
            let stamp = Stamp::take(&s);
            if c.load(SeqCst) == 0 {
                let flags = LoadFlags::empty();
                let done = w.hat.memload(cx, va(0x1000), &page, Prot::RW, flags, Some(stamp));
                let _ = done.expect("no memory is needed");
            }
        });
        let fork = w.spawn(0, move |w, cx| {
            seq.store(1, SeqCst);
            cow.store(1, SeqCst);
            seq.store(2, SeqCst);
            w.hat.clear_write(cx, VirtRange::exact(0, 1 << 21).expect("a leaf's"));
            assert!(w.mmu.store(cx, CpuId(1), va(0x1000), &[1]).is_err(), "C1");
        });
        join([fault, fork]);
        w.verify(&cx);
    });
}
