//! What the benchmark's operations cost, counted: a change of shape fails here on any machine, whatever its clock says.
//!
//! Each table has a column for each case of one operation and a row for each thing that is counted; rows of zeros are left out. `locks` are acquisitions
//! of ranked locks of every kind, page locks included, and `heap` the allocations and growths the thread made. The machine has one processor and
//! has done all of it once before, so magazines, hints and lists are as in a running system.
//!
//! A figure that falls is an improvement to be accepted (`INSTA_UPDATE=always cargo test -p segvm --test it costs`); one that rises needs a reason.
//!
//! Locks are counted in debug builds only: what they cost there is no matter, and in a release build nothing counts them.

use crate::allocations::made;
use crate::compare;
use addr_space::UnloadFlags;
use page_db::{Counter, PAGE_SIZE, VirtRange};
use segvm::Machine;
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{MapFlags, MapRequest, Process};
use std::fmt::Write as _;

const P: u64 = PAGE_SIZE;

/// What is counted, in the order it is shown.
const ROWS: &[(&str, Counter, u64)] = &[
    ("tree nodes", Counter::TreeNodes, 1),
    ("entries read", Counter::PteReads, 1),
    ("entries written", Counter::PteWrites, 1),
    ("tables made", Counter::TableAllocs, 1),
    ("tables freed", Counter::TableFrees, 1),
    ("pages zeroed", Counter::BytesZeroed, P),
    ("pages copied", Counter::BytesCopied, P),
    ("flushes", Counter::Flushes, 1),
    ("entries flushed", Counter::FlushEntries, 1),
    ("frames taken", Counter::FrameAllocs, 1),
    ("frames freed", Counter::FrameFrees, 1),
    ("slots visited", Counter::AnonSlots, 1),
    ("hash links", Counter::HashLinks, 1),
    ("locks", Counter::LockAcquires, 1),
];

/// A machine, a process, and the table that is being made.
struct Bench {
    m: Machine,
    p: Process,
    names: Vec<&'static str>,
    columns: Vec<Vec<u64>>,
}

impl Bench {
    fn new() -> Self {
        let m = Machine::builder().frames(4096).build().expect("a machine");
        let p = m.spawn("p").expect("a process");
        let bench = Self { m, p, names: Vec::new(), columns: Vec::new() };
        // Once, unmeasured: every kind of thing has been made and given back.
        let at = bench.touched(64);
        bench.p.fork().expect("a child").exit();
        bench.p.store(at, b"x").expect("mapped");
        bench.p.munmap(at, 64 * P).expect("mapped");
        bench
    }
    fn map(&self, pages: u64) -> u64 {
        self.p.map_anon(pages * P).expect("room")
    }
    fn touch(&self, at: u64, pages: u64) {
        for i in 0..pages {
            self.p.store(at + i * P, b"x").expect("mapped");
        }
    }
    fn touched(&self, pages: u64) -> u64 {
        let at = self.map(pages);
        self.touch(at, pages);
        at
    }
    /// Segments of one page each, none beside another.
    fn scattered(&self, segments: u64) -> Vec<u64> {
        let at = self.map(2 * segments);
        for i in 0..segments {
            self.p.munmap(at + (2 * i + 1) * P, P).expect("mapped");
        }
        (0..segments).map(|i| at + 2 * i * P).collect()
    }
    /// Adds the column `name`: what `work` costs.
    fn column<T>(&mut self, name: &'static str, work: impl FnOnce(&Self) -> T) -> T {
        let (heap, before) = (made(), self.m.counters().snapshot());
        let result = work(self);
        // In this order: a snapshot allocates nothing, but the column does.
        let counted = self.m.counters().snapshot().since(&before);
        let heap = made() - heap;
        let mut column: Vec<_> = ROWS.iter().map(|(_, c, unit)| counted.get(*c) / unit).collect();
        column.push(heap);
        self.names.push(name);
        self.columns.push(column);
        result
    }
    /// Compares the table with the stored one, ends the process and sees that everything comes back.
    fn done(self, snapshot: &str, what: &str) {
        let mut text = format!("{:<16}", "");
        for name in &self.names {
            let _ = write!(text, "{name:>18}");
        }
        text.push('\n');
        for (i, row) in ROWS.iter().map(|r| r.0).chain(["heap"]).enumerate() {
            if self.columns.iter().any(|c| c[i] != 0) {
                let _ = write!(text, "{row:<16}");
                for column in &self.columns {
                    let _ = write!(text, "{:>18}", column[i]);
                }
                text.push('\n');
            }
        }
        self.m.verify().expect("sound");
        self.p.exit();
        self.m.verify().expect("sound");
        compare(&format!("costs/{snapshot}"), what, &text);
    }
}

#[test]
fn a_zero_fill_fault() {
    let mut b = Bench::new();
    let at = b.map(64);
    b.column("first in segment", |b| b.touch(at, 1));
    b.column("second", |b| b.touch(at + P, 1));
    b.column("third", |b| b.touch(at + 2 * P, 1));
    b.column("16 more", |b| b.touch(at + 3 * P, 16));
    b.done(
        "zero_fill_fault",
        "the second page and every one after it cost the same; the heap is asked once in many pages",
    );
}

#[test]
fn a_soft_fault() {
    let mut b = Bench::new();
    let at = b.touched(64);
    let range = VirtRange::exact(at, 64 * P).expect("aligned");
    b.p.space().hat().unload(b.m.cx(), range, UnloadFlags::empty());
    b.column("load, 8 around", |b| b.p.load_u8(at + 16 * P).expect("mapped"));
    b.column("store", |b| b.touch(at + 40 * P, 1));
    b.done("soft_fault", "resident pages are mapped again: nothing is zeroed, copied or allocated");
}

#[test]
fn a_copy_on_write_fault() {
    let mut b = Bench::new();
    let at = b.touched(16);
    let child = b.p.fork().expect("a child");
    b.column("parent, shared", |b| b.touch(at, 1));
    b.column("another", |b| b.touch(at + P, 1));
    child.exit();
    b.column("the last owner", |b| b.touch(at + 2 * P, 1));
    b.done("copy_on_write_fault", "one page copied, one flush; the last owner copies nothing");
}

#[test]
fn reading_a_file_of_16_pages() {
    let mut b = Bench::new();
    let file = b.m.create_file("f", 16 * P).expect("a file");
    let handle = FileHandle::new(file, OpenMode::ReadOnly);
    let map = |b: &Bench| {
        let flags = MapFlags::PRIVATE;
        let file = Some(&handle);
        b.p.mmap(&MapRequest { addr: 0, len: 16 * P, prot: 1, flags, file, offset: 0 })
            .expect("room")
    };
    let read = |b: &Bench, at: u64| {
        for i in 0..16 {
            b.p.load_u8(at + i * P).expect("mapped");
        }
    };
    let (cold, warm) = (map(&b), map(&b));
    b.column("from the file", |b| read(b, cold));
    b.column("pages in memory", |b| read(b, warm));
    drop(handle);
    b.done(
        "file_read",
        "whoever finds the pages in memory faults every few pages: neighbours are mapped along",
    );
}

#[test]
fn fork() {
    let mut b = Bench::new();
    let mut children = Vec::new();
    children.push(b.column("nothing touched", |b| b.p.fork().expect("a child")));
    b.touched(16);
    children.push(b.column("16 pages", |b| b.p.fork().expect("a child")));
    b.touched(240);
    children.push(b.column("256 pages", |b| b.p.fork().expect("a child")));
    b.scattered(16);
    children.push(b.column("and 16 segments", |b| b.p.fork().expect("a child")));
    children.iter().for_each(Process::exit);
    b.done("fork", "a slot and an entry for each page, a segment's worth for each segment, no frame but for the top table");
}

#[test]
fn mapping_and_unmapping_a_page() {
    let mut b = Bench::new();
    let again = |b: &Bench| {
        let at = b.map(1);
        b.p.munmap(at, P).expect("mapped");
    };
    again(&b);
    b.column("among none", again);
    b.scattered(64);
    again(&b);
    b.column("among 64", again);
    b.scattered(1024);
    again(&b);
    b.column("among 1088", again);
    b.done(
        "map_unmap",
        "the depth of the tree, and nothing else, grows with the number of segments",
    );
}

#[test]
fn changing_rights_and_back() {
    let mut b = Bench::new();
    let at = b.touched(64);
    let set = |at: u64, pages: u64, prot: u32| {
        move |b: &Bench| {
            b.p.mprotect(at, pages * P, prot).expect("mapped");
        }
    };
    set(at + 8 * P, 8, 1)(&b);
    set(at + 8 * P, 8, 3)(&b);
    b.touch(at, 64);
    b.column("8 of 64, taken", set(at + 8 * P, 8, 1));
    b.column("given back", set(at + 8 * P, 8, 3));
    b.touch(at, 64);
    b.column("all 64, taken", set(at, 64, 1));
    b.done(
        "set_prot",
        "the segment stays whole; only entries in the range are written, with one flush",
    );
}

#[test]
fn unmapping_64_pages() {
    let mut b = Bench::new();
    let [untouched, one, all] = [b.map(64), b.map(64), b.touched(64)];
    b.touch(one, 1);
    let unmap = |at: u64| move |b: &Bench| b.p.munmap(at, 64 * P).expect("mapped");
    b.column("untouched", unmap(untouched));
    b.column("one touched", unmap(one));
    b.column("all touched", unmap(all));
    b.done("unmap", "what was never touched costs at most a look at its entries; the rest one flush, and a frame and an entry for each page");
}

#[test]
fn asking_what_is_in_memory() {
    let mut b = Bench::new();
    let (none, all) = (b.map(64), b.touched(64));
    let ask = |at: u64| move |b: &Bench| b.p.mincore(at, 64 * P).expect("mapped").len();
    ask(none)(&b);
    b.column("64 untouched", ask(none));
    b.column("64 resident", ask(all));
    b.done("incore", "no page is locked for the asking");
}
