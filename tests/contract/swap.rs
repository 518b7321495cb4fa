//! Swap devices: the three there are, and one in memory with flaws.

use crate::{HOLDS, all_caught, all_caught_some_time, caught, clauses_of};
use page_db::{
    Counters, CpuId, Cx, HostMem, PAGE_SIZE, Pfn, PhysMem, Rank, SpinHooks, ThreadId, errno,
};
use segvm::contract::{Breach, check_swap_device, check_swap_media, swap_device, swap_media};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use swapfs::{DeviceError, DeviceOp, FaultyDevice, FileDevice, Medium, MemDevice, SwapDevice};

const ONE_MEDIUM: &str = "two devices have equal media exactly when";

const PAGE: usize = PAGE_SIZE as usize;

fn mem() -> HostMem {
    HostMem::new(Pfn(0x30), 32).expect("memory of the host")
}

fn cx() -> Cx {
    Cx::new(&Counters::new(1), CpuId(0), ThreadId(1), Arc::new(SpinHooks))
}

#[test]
fn every_device_keeps_the_contract() {
    swap_device(&cx(), &MemDevice::new("memory", 64), &mem(), None);
    let dir = std::env::temp_dir().join(format!("segvm-contract-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let file = FileDevice::create(dir.join("swap"), 16).expect("a file");
    swap_device(&cx(), &file, &mem(), None);
    for inner in [Arc::new(file) as Arc<dyn SwapDevice>, Arc::new(MemDevice::new("memory", 16))] {
        let faulty = FaultyDevice::new(inner);
        let fail = |op| match op {
            DeviceOp::Open => faulty.fail_prepare(1),
            DeviceOp::Read => faulty.fail_read(1),
            DeviceOp::Write => faulty.fail_write(1),
        };
        swap_device(&cx(), &faulty, &mem(), Some(&fail));
    }
    std::fs::remove_dir_all(&dir).expect("it was made");
}

#[test]
fn a_medium_tells_bytes_from_bytes() {
    let dir = std::env::temp_dir().join(format!("segvm-media-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("sub")).expect("a directory");
    let file = |path: &str| FileDevice::create(dir.join(path), 16).expect("a file");
    let one = file("one");
    std::fs::hard_link(dir.join("one"), dir.join("hard")).expect("a link");
    std::os::unix::fs::symlink(dir.join("one"), dir.join("soft")).expect("a link");
    for path in ["one", "hard", "soft", "sub/../one"] {
        swap_media(&cx(), &one, &file(path), &mem());
        swap_media(&cx(), &FaultyDevice::new(Arc::new(file(path))), &one, &mem());
    }
    swap_media(&cx(), &one, &file("two"), &mem());
    let memory = MemDevice::new("one", 16);
    swap_media(&cx(), &one, &memory, &mem());
    swap_media(&cx(), &memory, &memory, &mem());
    swap_media(&cx(), &memory, &MemDevice::new("two", 16), &mem());
    std::fs::remove_dir_all(&dir).expect("it was made");
    // By their names the two links are two media; by its name another device is the first one.
    let by_name = |name: &'static str| Renamed { inner: &memory, name };
    let breach = check_swap_media(&cx(), &by_name("a"), &by_name("b"), &mem());
    caught("TwoNames", breach, ONE_MEDIUM);
    let breach = check_swap_media(&cx(), &memory, &MemDevice::new("one", 16), &mem());
    caught("OneName", breach, ONE_MEDIUM);
}

/// A second name for a device, which is all it says of its medium.
#[derive(Debug)]
struct Renamed<'a> {
    inner: &'a MemDevice,
    name: &'static str,
}

impl SwapDevice for Renamed<'_> {
    fn name(&self) -> String {
        self.name.into()
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
        self.inner.write(cx, page, frames, mem)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    DropsAWriteOver,
    ReadsTheBlockBeside,
    ReadsHalfAPage,
    WritesARunBackwards,
    DropsTheEndOfARun,
    SpillsIntoTheNextPage,
    WrapsAtTheEnd,
    NamesTheWrongPage,
    NamesTheWrongOp,
    SwallowsAFailure,
    StaysBroken,
    ScribblesOnAnotherFrame,
    EmptiesTheFrameWritten,
    WritesPairsWithoutALock,
    Shrinks,
    ShrinksToNothing,
    WritesForNoFrames,
    ForgetsWhenPrepared,
    CannotBePrepared,
    MovesToAnotherMedium,
    IsTooSmall,
    KeepsALockOfAWrite,
    KeepsALockOfARead,
    ScribblesOnTheFrameBehind,
    EmptiesTheFrameBehind,
    EmptiesTheFrameBefore,
    GivesUpAPageItCannotVerify,
}

/// Pages in memory, with a failure on request.
#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    pages: Mutex<Vec<[u8; PAGE]>>,
    /// The next transfer of this kind fails.
    fail: Mutex<Option<DeviceOp>>,
    calls: AtomicU64,
    /// Pages that are not written to any more.
    bad: Mutex<Vec<u64>>,
}

impl Flawed {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    fn admit(&self, op: DeviceOp, page: u64, n: u64) -> Result<(), DeviceError> {
        self.calls.fetch_add(1, SeqCst);
        let fits = page.checked_add(n).is_some_and(|end| end <= 64);
        if !fits && !self.is(Flaw::WrapsAtTheEnd) {
            let page = if self.is(Flaw::NamesTheWrongPage) { 0 } else { page };
            let op = if self.is(Flaw::NamesTheWrongOp) { DeviceOp::Open } else { op };
            return Err(DeviceError { op, page, errno: errno::ENXIO });
        }
        let mut fail = self.fail.lock().unwrap();
        if *fail == Some(op) {
            if !self.is(Flaw::StaysBroken) {
                *fail = None;
            }
            if !self.is(Flaw::SwallowsAFailure) {
                return Err(DeviceError { op, page, errno: errno::EIO });
            }
        }
        Ok(())
    }
    fn put(&self, at: u64, bytes: &[u8; PAGE]) {
        let at = (at % 64) as usize;
        if self.is(Flaw::WritesPairsWithoutALock) {
            // Blocks of two pages: read, changed, written back, with others let in between.
            let first = at & !1;
            let mut block: Vec<_> = self.pages.lock().unwrap()[first..first + 2].to_vec();
            block[at & 1] = *bytes;
            std::thread::sleep(std::time::Duration::from_micros(20));
            self.pages.lock().unwrap()[first..first + 2].copy_from_slice(&block);
            return;
        }
        let mut pages = self.pages.lock().unwrap();
        if !self.is(Flaw::DropsAWriteOver) || pages[at] == [0; PAGE] {
            pages[at] = *bytes;
        }
        if self.is(Flaw::SpillsIntoTheNextPage) && at < 63 {
            pages[at + 1][..8].copy_from_slice(&bytes[..8]);
        }
    }
}

impl SwapDevice for Flawed {
    fn name(&self) -> String {
        "flawed".into()
    }
    fn pages(&self) -> u64 {
        let shrunk = self.is(Flaw::Shrinks) && self.calls.load(SeqCst) > 500;
        if self.is(Flaw::ShrinksToNothing) {
            return if self.calls.fetch_add(1, SeqCst) == 0 { 64 } else { 0 };
        }
        match self.flaw {
            Flaw::IsTooSmall => 15,
            _ if shrunk => 63,
            _ => 64,
        }
    }
    fn medium(&self) -> Medium {
        let moved = self.is(Flaw::MovesToAnotherMedium) && self.calls.load(SeqCst) > 500;
        Medium::File { device: 1, inode: 2 + u64::from(moved) }
    }
    fn prepare(&self, _cx: &Cx) -> Result<(), DeviceError> {
        if self.is(Flaw::ForgetsWhenPrepared) {
            self.pages.lock().unwrap().fill([0; PAGE]);
        }
        if self.is(Flaw::CannotBePrepared) {
            return Err(DeviceError { op: DeviceOp::Open, page: 0, errno: errno::EIO });
        }
        Ok(())
    }
    fn read(&self, cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
        self.admit(DeviceOp::Read, page, 1)?;
        let beside = u64::from(self.is(Flaw::ReadsTheBlockBeside) && page == 7);
        let bytes = self.pages.lock().unwrap()[((page ^ beside) % 64) as usize];
        let n = if self.is(Flaw::ReadsHalfAPage) { PAGE / 2 } else { PAGE };
        mem.write(to, 0, &bytes[..n]);
        if self.is(Flaw::ScribblesOnAnotherFrame) {
            mem.zero(Pfn(to.0 - 1));
        }
        if self.is(Flaw::ScribblesOnTheFrameBehind) {
            mem.write(Pfn(to.0 + 1), 0, &bytes[..8]);
        }
        if self.is(Flaw::KeepsALockOfARead) {
            cx.rank_adopted(Rank::SwapArea);
        }
        Ok(())
    }
    fn write(
        &self,
        cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        self.admit(DeviceOp::Write, page, frames.len() as u64)?;
        let mut order = frames.to_vec();
        match self.flaw {
            Flaw::WritesARunBackwards => order.reverse(),
            Flaw::DropsTheEndOfARun if order.len() > 3 => order.truncate(3),
            Flaw::WritesForNoFrames if order.is_empty() => order.push(mem.base()),
            _ => {}
        }
        for (at, pfn) in (page..).zip(order) {
            let mut bytes = [0; PAGE];
            mem.read(pfn, 0, &mut bytes);
            if self.bad.lock().unwrap().contains(&at) {
                continue;
            }
            self.put(at, &bytes);
            match self.flaw {
                Flaw::EmptiesTheFrameWritten => mem.zero(pfn),
                Flaw::EmptiesTheFrameBehind => mem.zero(Pfn(pfn.0 + 1)),
                Flaw::EmptiesTheFrameBefore if pfn > mem.base() => mem.zero(Pfn(pfn.0 - 1)),
                // What is not there any more when it looks again was not written well, it thinks.
                Flaw::GivesUpAPageItCannotVerify => {
                    std::thread::yield_now();
                    let mut now = [0; PAGE];
                    mem.read(pfn, 0, &mut now);
                    self.bad.lock().unwrap().extend((now != bytes).then_some(at));
                }
                _ => {}
            }
        }
        if self.is(Flaw::KeepsALockOfAWrite) {
            cx.rank_adopted(Rank::SwapArea);
        }
        Ok(())
    }
}

/// Each flaw, and the clause that catches it.
const FLAWS: &[(Flaw, &str)] = {
    use Flaw::*;
    &[
        (DropsAWriteOver, "a page holds what was last written"),
        (ReadsTheBlockBeside, "a page holds what was last written"),
        (ReadsHalfAPage, "a page holds what was last written"),
        (WritesARunBackwards, "write puts frames on consecutive pages"),
        (DropsTheEndOfARun, "write puts frames on consecutive pages"),
        (SpillsIntoTheNextPage, "a write leaves other pages alone"),
        (WrapsAtTheEnd, "what passes the end of the device is refused"),
        (NamesTheWrongPage, "an error says what was asked, and where"),
        (NamesTheWrongOp, "an error says what was asked, and where"),
        (SwallowsAFailure, "a transfer that failed is an error"),
        (StaysBroken, "once the cause of a failure is gone"),
        (ScribblesOnAnotherFrame, "a transfer touches no frame but its own"),
        (EmptiesTheFrameWritten, "a transfer touches no frame but its own"),
        (Shrinks, "name and size stay"),
        (ShrinksToNothing, "name and size stay"),
        (WritesForNoFrames, "a write of no frames changes nothing"),
        (ForgetsWhenPrepared, "a device can be prepared"),
        (CannotBePrepared, "a device can be prepared"),
        (MovesToAnotherMedium, "the medium stays"),
        (IsTooSmall, "a device of sixteen pages"),
        (KeepsALockOfARead, HOLDS),
        (KeepsALockOfAWrite, HOLDS),
        (ScribblesOnTheFrameBehind, "a transfer touches no frame but its own"),
        (EmptiesTheFrameBehind, "a transfer touches no frame but its own"),
        (EmptiesTheFrameBefore, "a transfer touches no frame but its own"),
    ]
};

/// Those that show when two threads meet in them.
const MEETINGS: &[(Flaw, &str)] = &[
    (Flaw::WritesPairsWithoutALock, "transfers of several threads"),
    (Flaw::GivesUpAPageItCannotVerify, "a frame stored to while it is written"),
];

fn judged(flaw: Flaw) -> Result<(), Breach> {
    let flawed = Flawed {
        flaw,
        pages: Mutex::new(vec![[0; PAGE]; 64]),
        fail: Mutex::default(),
        calls: AtomicU64::new(0),
        bad: Mutex::default(),
    };
    let fail = |op| *flawed.fail.lock().unwrap() = Some(op);
    check_swap_device(&cx(), &flawed, &mem(), Some(&fail))
}

#[test]
fn every_flaw_of_a_device_is_caught_by_its_clause() {
    all_caught(FLAWS, judged);
    all_caught_some_time(MEETINGS, judged);
}

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    let media = [ONE_MEDIUM];
    clauses_of(&[FLAWS, MEETINGS]).into_iter().chain(media).collect()
}
