//! Several threads: pushes, page-ins, frees and removals at once.

use super::{PUSH, World, cx_on};
use crate::{AnonNumber, MemDevice, SwapConfig, SwapFs};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::selock::LockedPage as _;
use page_db::sync::atomic::{AtomicBool, Ordering};
use page_db::{PageDb, PutFlags, RefMod, VnodeError};

/// Four owners store, push, load and free, while a fifth thread adds and removes areas under them.
#[test]
fn areas_come_and_go_under_load() {
    let config =
        SwapConfig { cpus: 5, minfree: Some(8), reserve: Some(4), ..SwapConfig::default() };
    let w = World::with(512, config);
    w.add("fixed", 64, 0);
    let done = AtomicBool::new(false);
    let (fs, db) = (&w.fs, &w.db);
    std::thread::scope(|s| {
        let owners: Vec<_> = (0..4u16).map(|cpu| s.spawn(move || owner(fs, db, cpu))).collect();
        let done = &done;
        s.spawn(move || {
            let cx = cx_on(db.counters(), 4);
            let mut turn = 0u32;
            while !done.load(Ordering::Acquire) {
                turn += 1;
                let dev = Arc::new(MemDevice::new(format!("m{}", turn % 2), 40));
                let id = fs.add(&cx, dev, 0, 40, 1).expect("no other adds it");
                std::thread::yield_now();
                fs.remove(&cx, id).expect("memory is plenty");
            }
        });
        for o in owners {
            o.join().expect("owner");
        }
        done.store(true, Ordering::Release);
    });
    let census = w.check();
    assert_eq!((census.live, census.stored), (0, 0));
    assert_eq!(w.db.freemem(), 512);
}

fn owner(fs: &SwapFs, db: &PageDb, cpu: u16) {
    let cx = cx_on(db.counters(), cpu);
    let mut mine: Vec<(AnonNumber, u8)> = Vec::new();
    for turn in 0..3000u32 {
        let byte = turn as u8;
        let put = |n, flags| match fs.put_page(&cx, n, flags) {
            Ok(()) | Err(VnodeError::NoSpace { .. }) => {}
            Err(e) => panic!("{e}"),
        };
        match turn % 5 {
            0 => mine.push((fs.alloc(&cx).expect("numbers"), 0)),
            1 | 2 => {
                let i = turn as usize * 7 % mine.len();
                let got = fs.get_page(&cx, mine[i].0, 0).expect("a page");
                let mut b = [0];
                db.mem().read(got.page.pfn(), 0, &mut b);
                assert_eq!(b[0], mine[i].1, "anon {}", mine[i].0);
                db.mem().write(got.page.pfn(), 0, &[byte]);
                got.page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
                mine[i].1 = byte;
            }
            3 => {
                for (n, _) in &mine {
                    put(*n, PUSH);
                }
            }
            _ => {
                let i = turn as usize * 5 % mine.len();
                put(mine[i].0, PutFlags::INVAL);
                if mine.len() > 40 {
                    end(fs, db, &cx, mine.swap_remove(i).0);
                }
            }
        }
    }
    for (n, _) in mine {
        end(fs, db, &cx, n);
    }
    let _ = fs.flush_pushes(&cx);
}

/// A device whose first write waits to be let go.
#[derive(Debug)]
struct Gate {
    inner: MemDevice,
    arrived: AtomicBool,
    open: AtomicBool,
}

impl crate::SwapDevice for Gate {
    fn name(&self) -> alloc::string::String {
        self.inner.name()
    }
    fn pages(&self) -> u64 {
        self.inner.pages()
    }
    fn read(
        &self,
        cx: &page_db::Cx,
        page: u64,
        to: page_db::Pfn,
        mem: &dyn page_db::PhysMem,
    ) -> Result<(), crate::DeviceError> {
        self.inner.read(cx, page, to, mem)
    }
    fn write(
        &self,
        cx: &page_db::Cx,
        page: u64,
        frames: &[page_db::Pfn],
        mem: &dyn page_db::PhysMem,
    ) -> Result<(), crate::DeviceError> {
        if !self.arrived.swap(true, Ordering::AcqRel) {
            while !self.open.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
        }
        self.inner.write(cx, page, frames, mem)
    }
}

/// An area of so many pages on such a device.
fn gated(w: &World, pages: u64) -> Arc<Gate> {
    let (arrived, open) = (AtomicBool::new(false), AtomicBool::new(false));
    let gate = Arc::new(Gate { inner: MemDevice::new("g", pages), arrived, open });
    w.fs.add(&w.cx, gate.clone(), 0, pages, 0).expect("fits");
    gate
}

/// Pushes the page as page-out does, by processor 1.
fn push(fs: &SwapFs, db: &PageDb, n: AnonNumber) -> Result<(), VnodeError> {
    let cx = cx_on(db.counters(), 1);
    fs.put_page(&cx, n, PUSH).and(fs.flush_pushes(&cx))
}

fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

/// uvm 35: the last reference goes while the page is being written.
#[test]
fn a_free_waits_for_the_push_in_flight() {
    let w = World::with(64, SwapConfig { cpus: 2, ..SwapConfig::default() });
    let gate = gated(&w, 8);
    let n = w.anon(1);
    let (fs, db) = (&w.fs, &w.db);
    std::thread::scope(|s| {
        let push = s.spawn(move || push(fs, db, n));
        until(|| gate.arrived.load(Ordering::Acquire));
        // In transit: the slot is spoken for, the page is readable, and cannot be had for destruction.
        assert!(fs.slot(&w.cx, n).is_some());
        let page = db.lookup_shared(&w.cx, fs.identity(n)).expect("it is readable");
        assert!(!fs.free_slot(&w.cx, n, &page));
        drop(page);
        assert_eq!(w.load(n), (1, false));
        assert!(db.try_lookup_excl(&w.cx, fs.identity(n)).is_none());
        let gone = s.spawn(move || end(fs, db, &cx_on(db.counters(), 0), n));
        for _ in 0..200 {
            std::thread::yield_now();
        }
        assert!(!gone.is_finished() && fs.is_live(n), "freed under the push");
        gate.open.store(true, Ordering::Release);
        assert_eq!(push.join().expect("pushed"), Ok(()));
        gone.join().expect("freed");
    });
    let census = w.check();
    assert_eq!((census.live, census.free_slots), (0, 8));
    assert_eq!(w.db.freemem(), 64);
}

/// The same of a page that a removal has made after the owner had seen that there is none: the slot it is written to is nobody else's before.
#[test]
fn a_free_waits_for_the_push_of_a_page_brought_back() {
    let w = World::with(64, SwapConfig { cpus: 3, ..SwapConfig::default() });
    let (_, id) = w.add("d", 4, 0);
    let n = w.anon(1);
    w.evict(n);
    let since = w.fs.removals_seen();
    assert!(!w.resident(n), "the owner has nothing to destroy");
    let gate = gated(&w, 1);
    w.fs.remove(&w.cx, id).expect("memory is plenty");
    let other = w.anon(2);
    let (fs, db) = (&w.fs, &w.db);
    std::thread::scope(|s| {
        let pushed = s.spawn(move || push(fs, db, n));
        until(|| gate.arrived.load(Ordering::Acquire));
        let freed = s.spawn(move || fs.free_run(&cx_on(db.counters(), 2), &[n], since));
        until(|| !fs.is_live(n));
        for _ in 0..200 {
            std::thread::yield_now();
        }
        let early = w.push(other);
        gate.open.store(true, Ordering::Release);
        assert_eq!(pushed.join().expect("pushed"), Ok(()));
        freed.join().expect("freed");
        assert!(early.is_ok() || w.push(other).is_ok(), "there is room now");
        w.evict(other);
        assert_eq!(w.load(other), (2, true), "written over");
        assert!(matches!(early, Err(VnodeError::NoSpace { .. })), "the slot is given away");
    });
    w.free(other);
    let census = w.check();
    assert_eq!((census.live, census.free_slots, w.db.freemem()), (0, 1, 64));
}

/// A push that has its slot but has not put it in its word yet is waited for, though no word speaks of it.
#[test]
fn a_removal_waits_for_slots_on_their_way() {
    let w = World::with(64, SwapConfig { cpus: 2, ..SwapConfig::default() });
    let (_, id) = w.add("d", 8, 0);
    let run = w.fs.space().alloc(&w.cx, 1, true).expect("room");
    let (fs, db) = (&w.fs, &w.db);
    std::thread::scope(|s| {
        let gone = s.spawn(move || fs.remove(&cx_on(db.counters(), 1), id));
        until(|| fs.list()[0].removing);
        for _ in 0..200 {
            std::thread::yield_now();
        }
        assert!(!gone.is_finished());
        assert!(
            fs.space().alloc(&w.cx, 1, true).is_none(),
            "nothing new from an area on its way out"
        );
        fs.space().free(&w.cx, crate::PhysSlot { area: id, index: run.first });
        assert_eq!(gone.join().expect("removed"), Ok(()));
    });
    assert!(fs.list().is_empty());
    w.check();
}

fn end(fs: &SwapFs, db: &PageDb, cx: &page_db::Cx, n: AnonNumber) {
    if let Some(page) = db.lookup_excl(cx, fs.identity(n)) {
        db.destroy(cx, page);
    }
    fs.free(cx, n);
}
