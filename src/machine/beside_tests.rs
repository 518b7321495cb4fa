//! What two threads of a machine do beside each other, in an order that a test sees to: who waits, and whose memory is whose.
//!
//! Whoever might hang does so in a thread of his own, and is given up on after a while.

use super::daemons_tests::Watched;
use super::*;
use crate::files::file::File;
use crate::files::{FileHandle, OpenMode};
use addr_space::{FaultKind, Inherit, LockAll};
use page_db::errno::EAGAIN;
use page_db::{Access, CpuId, PAGE_SIZE as P, VirtAddr, VirtRange, Vnode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const AT: u64 = 0x1000_0000;
const PATIENCE: Duration = Duration::from_secs(20);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let from = Instant::now();
    while !is_so() {
        assert!(from.elapsed() < PATIENCE, "never so: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// Starts `op` in a thread of its own; its answer comes later.
fn start<R: Send + 'static>(op: impl FnOnce() -> R + Send + 'static) -> Receiver<R> {
    let (answer, answers) = channel();
    spawn(move || answer.send(op()));
    answers
}

fn pages(at: u64, n: u64) -> VirtRange {
    VirtRange::exact(at, n * P).expect("a range")
}

/// A machine, and a file of four pages of sevens.
fn machine() -> (Machine, Arc<File>) {
    let m = Machine::builder().frames(512).cpus(2).build().expect("a machine");
    let f = m.create_file("f", 4 * P).expect("a file");
    let sevens = [7; 4 * P as usize];
    f.pwrite(m.cx(), m.db(), 0, &sevens).expect("written");
    (m, f)
}

/// Maps all of the file at [`AT`].
fn map(p: &Process, f: &Arc<File>, prot: u32, flags: MapFlags) {
    let file = FileHandle::new(Arc::clone(f), OpenMode::ReadWrite);
    let flags = flags | MapFlags::FIXED;
    let request = MapRequest { addr: AT, len: 4 * P, prot, flags, file: Some(&file), offset: 0 };
    assert_eq!(p.mmap(&request), Ok(AT));
}

fn soft(p: &Process, page: u64, kind: FaultKind) {
    p.space().fault(p.cx(), pages(AT + page * P, 1), kind, Access::Read).expect("mapped");
}

/// A store takes a lent page's name away from it and must have it alone, so nobody has one pinned: a pin is of the copy already.
#[test]
fn who_pins_a_page_that_is_lent_goes_on_to_write_it() {
    for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
        let (m, f) = machine();
        let p = m.spawn("p").expect("a process");
        map(&p, &f, 1, flags);
        let lent = p.lend(AT, P).expect("in memory");
        soft(&p, 0, FaultKind::SoftLock);
        let (m2, f2) = (m.thread(CpuId(1)), Arc::clone(&f));
        let written = start(move || f2.pwrite(m2.cx(), m2.db(), 0, &[1]));
        let n = written.recv_timeout(PATIENCE).expect("F9: who has a page pinned waits for itself");
        assert_eq!((n, p.load_u8(AT)), (Ok(1), Ok(1)));
        let mut seen = [0; 1];
        m.db().mem().read(m.db().pfn(lent.pages()[0]), 0, &mut seen);
        assert_eq!(seen, [7], "what was lent stays what it was");
        soft(&p, 0, FaultKind::SoftUnlock);
        lent.give_back(p.cx());
        p.exit();
        m.verify().expect("sound");
    }
}

/// The same of memory without a file.
#[test]
fn memory_that_is_lent_is_pinned_as_a_copy() {
    let (m, _) = machine();
    let p = m.spawn("p").expect("a process");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let request = MapRequest { addr: AT, len: P, prot: 3, flags, file: None, offset: 0 };
    p.mmap(&request).expect("free");
    p.store(AT, &[7]).expect("mapped");
    p.mprotect(AT, P, 1).expect("mapped");
    let lent = p.lend(AT, P).expect("in memory");
    soft(&p, 0, FaultKind::SoftLock);
    let (pins, byte) = (m.db().lock_state(lent.pages()[0]).shared, p.load_u8(AT));
    soft(&p, 0, FaultKind::SoftUnlock);
    lent.give_back(p.cx());
    assert_eq!((pins, byte), (0, Ok(7)), "L5");
    p.exit();
    m.verify().expect("sound");
}

/// A lock of which a cut has left nothing ends where its map comes to be shared. The claim goes with it, for the page may be the file's again before
/// the cut has got to it.
#[test]
fn a_lock_past_the_end_that_a_share_ends_takes_its_claim_along() {
    for grows in [false, true] {
        let (m, f) = machine();
        let (p, q) = (m.spawn("p").expect("a process"), m.spawn("q").expect("a process"));
        map(&p, &f, 3, MapFlags::PRIVATE);
        map(&q, &f, 3, MapFlags::SHARED);
        p.mlock(AT + P, P).expect("allowed");
        soft(&q, 1, FaultKind::SoftLock);
        let (m2, f2) = (m.thread(CpuId(1)), Arc::clone(&f));
        let cut = start(move || f2.truncate(m2.cx(), m2.db(), 0));
        until("the truncation waits for the pin", || m.db().waits().sleepers() == 1);
        p.minherit(AT, 4 * P, Inherit::Share).expect("mapped");
        p.fork().expect("memory to spare").exit();
        assert_eq!((p.space().state().locked(), m.db().claimed_pages()), (0, 0), "V19");
        if grows {
            f.truncate(m.cx(), m.db(), 4 * P).expect("it grows");
        }
        soft(&q, 1, FaultKind::SoftUnlock);
        cut.recv_timeout(PATIENCE).expect("nobody is in its way").expect("cut");
        m.verify().expect("sound");
        p.exit();
        q.exit();
        let free = m.db().free_mem();
        assert_eq!(free.availrmem(), free.total());
    }
}

/// What a swap device waits at before its first write once it is armed.
#[derive(Debug, Default)]
struct Gate {
    armed: AtomicBool,
    reached: AtomicBool,
    open: AtomicBool,
}

impl Gate {
    fn pass(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.reached.store(true, Ordering::SeqCst);
            until("the gate opens", || self.open.load(Ordering::SeqCst));
        }
    }
}

/// How a mapping comes to be that is to be locked in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `mmap`, of a place that must be free.
    Excl,
    /// `mmap` as Linux has it, of memory that is locked when it has been brought in.
    Linux,
    /// A range shown twice, with all future memory locked.
    Share,
}

/// Maps eight pages at [`AT`].
fn map_locked(p: &Process, way: Way, from: u64) -> i32 {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::ANON | MapFlags::LOCKED;
    let flags = if way == Way::Excl { flags | MapFlags::EXCL } else { flags };
    let request = MapRequest { addr: AT, len: 8 * P, prot: 3, flags, file: None, offset: 0 };
    let done = match way {
        Way::Share => p.share_range_at(from, 8 * P, p, AT),
        Way::Excl | Way::Linux => p.mmap(&request).map(drop),
    };
    done.map_err(|e| e.errno).err().unwrap_or(0)
}

/// One thread maps what is to be locked, and waits for memory with that. Another unmaps it and maps something else, at all of the place or the upper half of
/// it, and no more may be locked now. What the first has mapped goes, where it is still there; what the second has mapped does not, nor is it locked.
#[test]
fn a_mapping_that_may_not_be_locked_takes_nobody_elses_away() {
    for (way, pages) in
        [(Way::Excl, 8), (Way::Excl, 4), (Way::Share, 8), (Way::Share, 4), (Way::Linux, 8)]
    {
        let m = Machine::builder().frames(160).cpus(4).no_swap().build().expect("a machine");
        let gate = Arc::new(Gate::default());
        let ahead = Arc::clone(&gate);
        let device = Watched::new(move |_: u32, _: u32| ahead.pass());
        m.swap().add(m.cx(), device, 0, 4096, 0).expect("added");
        let (p, q) = (m.spawn("p").expect("a process"), m.spawn("q").expect("a process"));
        p.set_personality(if way == Way::Linux {
            Personality::Linux
        } else {
            Personality::Illumos
        });
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::ANON;
        let other = MapRequest { addr: 0, len: P, prot: 3, flags, file: None, offset: 0 };
        // Tables for the place are there; all other memory is somebody's.
        p.mmap(&MapRequest { addr: AT - 16 * P, ..other }).expect("free");
        p.store(AT - 16 * P, &[0]).expect("mapped");
        let from = p.map_anon(8 * P).expect("room");
        let big = q.map_anon(400 * P).expect("room");
        let full = || m.db().freemem() <= m.db().free_mem().normal_reserve() + 1;
        for page in 0..400 {
            if !full() {
                q.store(big + page * P, &[1]).expect("mapped");
            }
        }
        gate.armed.store(true, Ordering::SeqCst);
        if way == Way::Share {
            p.mlockall(LockAll::FUTURE).expect("allowed");
        }
        let first = p.another_thread(CpuId(2));
        let mapped = start(move || map_locked(&first, way, from));
        until(&format!("{way:?}: the first waits"), || gate.reached.load(Ordering::SeqCst));
        let at = AT + (8 - pages) * P;
        let is_there = p.space().range_at(p.cx(), VirtAddr::new(at).expect("an address"));
        assert!(is_there.is_some(), "{way:?}: it has been mapped already");
        p.munlockall().expect("allowed");
        p.munmap(at, pages * P).expect("mapped");
        if way != Way::Linux {
            p.set_limit(Limit::Memlock, 0);
        }
        p.mmap(&MapRequest { addr: at, len: pages * P, ..other }).expect("free");
        gate.open.store(true, Ordering::SeqCst);
        let errno = mapped.recv_timeout(PATIENCE).expect("there is memory again");
        p.store(at, &[77]).unwrap_or_else(|e| panic!("{way:?}, {pages}: {e:?}"));
        assert_eq!(errno, if pages == 8 { 0 } else { EAGAIN }, "{way:?}, {pages}");
        assert_eq!(p.space().state().locked(), 0, "{way:?}, {pages}");
        let below = p.space().range_at(p.cx(), VirtAddr::new(AT).expect("an address"));
        assert_eq!(below.is_some(), pages == 8, "{way:?}, {pages}: what was the first's is gone");
        m.verify().expect("sound");
        p.exit();
        q.exit();
        m.verify().expect("sound");
    }
}

/// Whoever waits by the identity of memory waits for longer than its sharers live.
#[test]
fn memory_that_was_shared_once_keeps_its_identity() {
    let m = Machine::builder().frames(512).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(4 * P).expect("room");
    let id = |p: &Process, page: u64| {
        let at = VirtAddr::new(at + page * P).expect("an address");
        p.space().mem_id(p.cx(), at).expect("mapped")
    };
    p.store(at, &[1]).expect("mapped");
    p.minherit(at, 2 * P, Inherit::Share).expect("mapped");
    let before = (id(&p, 0), id(&p, 1));
    let c = p.fork().expect("memory to spare");
    assert_eq!((id(&p, 0), id(&p, 1)), before, "with a child");
    assert_eq!((id(&c, 0), id(&c, 1)), before, "the child's");
    c.exit();
    assert_eq!((id(&p, 0), id(&p, 1)), before, "when the child has gone");
    // What lies beside is mapped anew, and joins it if it can.
    p.munmap(at + 2 * P, 2 * P).expect("mapped");
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::ANON;
    let beside = MapRequest { addr: 0, len: P, prot: 3, flags, file: None, offset: 0 };
    for addr in [at - P, at + 2 * P, at + 3 * P] {
        p.mmap(&MapRequest { addr, ..beside }).expect("free");
        p.store(addr, &[1]).expect("mapped");
    }
    assert_eq!((id(&p, 0), id(&p, 1)), before, "with neighbours");
    let c = p.fork().expect("memory to spare");
    p.store(at, &[2]).expect("mapped");
    assert_eq!((id(&p, 0), id(&c, 1)), before, "with another child");
    c.exit();
    m.verify().expect("sound");
}

/// Under the lazy policy two processes may have one anon map for good, each its part of it. What one says of its own is nothing to the other.
#[test]
fn memory_of_another_process_keeps_its_identity() {
    for twice in [false, true] {
        let m = Machine::builder().frames(512).fork(ForkPolicy::Lazy).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let at = p.map_anon(4 * P).expect("room");
        let id = |p: &Process, at: u64| {
            let at = VirtAddr::new(at).expect("an address");
            p.space().mem_id(p.cx(), at).expect("mapped")
        };
        for page in 0..4 {
            p.store(at + page * P, &[7]).expect("mapped");
        }
        let c = p.fork().expect("memory to spare");
        p.munmap(at + 2 * P, 2 * P).expect("mapped");
        c.munmap(at, 2 * P).expect("mapped");
        let (its, before) = (id(&c, at + 2 * P), id(&p, at));
        if twice {
            let twin = p.share_range(at, P, &p).expect("room");
            assert_eq!(id(&p, twin), id(&p, at), "the same page at two places");
        } else {
            p.minherit(at, P, Inherit::Share).expect("mapped");
        }
        assert_ne!(id(&p, at), before, "its own is called by the map");
        assert_eq!(id(&c, at + 2 * P), its, "the other's");
        m.verify().expect("sound");
    }
}

/// A file that somebody else keeps a page of is not ended, and has lost nothing: what was never written is in its pages only.
#[test]
fn a_file_with_a_page_that_is_held_is_handed_back() {
    let (m, f) = machine();
    let id = f.id();
    let got = f.get_page(m.cx(), m.db(), page_db::FileOffset(P), Access::Read).expect("there");
    let held = got.page.leak();
    let m2 = m.thread(CpuId(1));
    let removed = start(move || m2.remove_file(f));
    let done = removed.recv_timeout(PATIENCE).expect("it waits for who holds the page");
    assert!(!done, "somebody has a page of it");
    let f = m.files().into_iter().find(|f| f.id() == id).expect("it is a file still");
    let mut bytes = [0; 4 * P as usize];
    assert_eq!(f.pread(m.cx(), m.db(), 0, &mut bytes), Ok(bytes.len()));
    let wrong = bytes.iter().position(|b| *b != 7);
    assert_eq!((wrong, f.transfers()), (None, (0, 0)), "all pages, as they were in memory");
    drop(m.db().adopt_shared(m.cx(), held));
    assert!(m.remove_file(f), "nobody has a page of it");
    m.verify().expect("sound");
}
