//! The contract of [`SwapDevice`], for anybody's device. See [`page_db::contract`] for how suites work.

use crate::device::{DeviceError, DeviceOp, PAGE, SwapDevice};
use alloc::vec;
use alloc::vec::Vec;
use page_db::contract::{Breach, Judge};
#[cfg(all(feature = "std", not(shuttle)))]
use page_db::{CpuId, ThreadId};
use page_db::{Cx, Pfn, PhysMem};

const NAME: &str = "name and size stay";
const MEDIUM: &str = "the medium stays";
const READY: &str = "a device can be prepared, again too, and keeps its bytes";
const ONE_MEDIUM: &str = "two devices have equal media exactly when they have the same bytes";
const ROOM: &str = "a device of sixteen pages and memory of sixteen frames to try";
const BACK: &str = "a page holds what was last written to it";
const ORDER: &str = "write puts frames on consecutive pages, in order";
const BESIDE: &str = "a write leaves other pages alone";
const FRAMES: &str = "a transfer touches no frame but its own, and a write none";
const END: &str = "what passes the end of the device is refused";
const SAYS: &str = "an error says what was asked, and where";
const FAILS: &str = "a transfer that failed is an error";
const AGAIN: &str = "once the cause of a failure is gone the same transfer works";
const NOTHING: &str = "a write of no frames changes nothing";
#[cfg(all(feature = "std", not(shuttle)))]
const TOGETHER: &str = "transfers of several threads to pages of their own do not meet";
#[cfg(all(feature = "std", not(shuttle)))]
const MEANWHILE: &str = "a frame stored to while it is written is right when it is written again";

/// Pages and frames that a suite uses.
const N: u64 = 16;

struct Bench<'a> {
    judge: &'a Judge,
    cx: &'a Cx,
    device: &'a dyn SwapDevice,
    mem: &'a dyn PhysMem,
    /// Its pages, as it said when it was asked first.
    pages: u64,
}

/// The contract of [`SwapDevice`]: bytes come back from where they were put, nothing else is touched, what does not fit or fails is
/// said, no lock of the library's is held afterwards, and several threads do not meet. Uses the first and last pages of the device and the first sixteen frames of `mem`; what they held
/// is lost. Threads of its own wait and count as `cx` does. `fail` makes the next transfer of a kind fail once, if the medium can be made to.
///
/// ```
/// use page_db::{Counters, CpuId, Cx, HostMem, Pfn, SpinHooks, ThreadId};
/// use std::sync::Arc;
/// use swapfs::{MemDevice, contract::check_swap_device};
///
/// let mem = HostMem::new(Pfn(1), 16)?;
/// let cx = &Cx::new(&Counters::new(1), CpuId(0), ThreadId(1), Arc::new(SpinHooks));
/// check_swap_device(cx, &MemDevice::new("mine", 64), &mem, None)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first clause that does not hold.
pub fn check_swap_device(
    cx: &Cx,
    device: &dyn SwapDevice,
    mem: &dyn PhysMem,
    fail: Option<&dyn Fn(DeviceOp)>,
) -> Result<(), Breach> {
    let (name, medium, pages) = (device.name(), device.medium(), device.pages());
    let judge = &Judge::new("SwapDevice", name.clone());
    let b = &Bench { judge, cx, device, mem, pages };
    let stays = || {
        let now = (device.name(), device.pages());
        b.judge.same(NAME, format_args!("the device"), now, (name.clone(), pages))
    };
    let facts = format_args!("{pages} pages, {} frames", mem.frames());
    b.judge.require(ROOM, pages >= N && mem.frames() >= N, facts)?;
    stays()?;
    b.prepared()?;
    stays()?;
    holds_what_it_was_given(b)?;
    runs(b)?;
    ends(b)?;
    fail.map_or(Ok(()), |fail| fails(b, fail))?;
    #[cfg(all(feature = "std", not(shuttle)))]
    {
        together(b)?;
        stored_to_meanwhile(b)?;
    }
    stays()?;
    b.judge.same(MEDIUM, format_args!("the device"), device.medium(), medium)
}

/// The contract of [`SwapDevice::medium`] for two devices, of the same bytes or of different ones: what is written to one is read from the other
/// exactly when their media are equal. Swap areas on equal media are kept from overlapping, and nothing else keeps two areas
/// apart. Uses the first page of both and the first two frames of `mem`; what they held is lost.
///
/// ```
/// use page_db::{Counters, CpuId, Cx, HostMem, Pfn, SpinHooks, ThreadId};
/// use std::sync::Arc;
/// use swapfs::{MemDevice, contract::check_swap_media};
///
/// let mem = HostMem::new(Pfn(1), 16)?;
/// let cx = &Cx::new(&Counters::new(1), CpuId(0), ThreadId(1), Arc::new(SpinHooks));
/// check_swap_media(cx, &MemDevice::new("mine", 64), &MemDevice::new("yours", 64), &mem)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first clause that does not hold.
pub fn check_swap_media(
    cx: &Cx,
    one: &dyn SwapDevice,
    other: &dyn SwapDevice,
    mem: &dyn PhysMem,
) -> Result<(), Breach> {
    let [first, second] = [one, other].map(|device| Judge::new("SwapDevice", device.name()));
    let a = &Bench { judge: &first, cx, device: one, mem, pages: one.pages() };
    let b = &Bench { judge: &second, cx, device: other, mem, pages: other.pages() };
    a.prepared()?;
    b.prepared()?;
    let mut shared = [false; 2];
    for (shared, (from, to)) in shared.iter_mut().zip([(a, b), (b, a)]) {
        to.fill(0, 1);
        to.writes(0, &[0])?;
        from.fill(0, 2);
        from.writes(0, &[0])?;
        to.reads(0, 1)?;
        *shared = to.differs(1, 2).is_none();
        if !*shared {
            to.is(BESIDE, 1, 1, "after a write to another device, page", 0)?;
        }
    }
    let equal = one.medium() == other.medium();
    let facts = format_args!(
        "{:?} and {:?}, {} a write to either is read from the other",
        one.medium(),
        other.medium(),
        if shared == [true; 2] { "where" } else { "where not" }
    );
    a.judge.require(ONE_MEDIUM, shared == [equal; 2], facts)
}

/// [`check_swap_media`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn swap_media(cx: &Cx, one: &dyn SwapDevice, other: &dyn SwapDevice, mem: &dyn PhysMem) {
    Breach::raise(check_swap_media(cx, one, other, mem));
}

/// [`check_swap_device`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn swap_device(
    cx: &Cx,
    device: &dyn SwapDevice,
    mem: &dyn PhysMem,
    fail: Option<&dyn Fn(DeviceOp)>,
) {
    Breach::raise(check_swap_device(cx, device, mem, fail));
}

fn fill(mem: &dyn PhysMem, frame: Pfn, tag: u64) {
    for word in 0..PAGE / 8 {
        let bytes = pattern(tag, word).to_le_bytes();
        mem.write(frame, word * 8, &bytes);
    }
}

impl Bench<'_> {
    fn frame(&self, n: u64) -> Pfn {
        Pfn(self.mem.base().0 + n)
    }
    /// Fills frame `n` with bytes that only `tag` has, different in every word.
    fn fill(&self, n: u64, tag: u64) {
        fill(self.mem, self.frame(n), tag);
    }
    /// The first word of frame `n` that is not `tag`'s.
    fn differs(&self, n: u64, tag: u64) -> Option<(usize, u64)> {
        let mut bytes = vec![0; PAGE];
        self.mem.read(self.frame(n), 0, &mut bytes);
        let words =
            bytes.chunks_exact(8).map(|w| w.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
        words.enumerate().find(|(i, word)| *word != pattern(tag, *i))
    }
    fn is(
        &self,
        clause: &'static str,
        n: u64,
        tag: u64,
        what: &str,
        at: u64,
    ) -> Result<(), Breach> {
        match self.differs(n, tag) {
            None => Ok(()),
            Some((word, has)) => Err(self.judge.breach(
                clause,
                format_args!("{what} {at}: word {word} is {has:#x}, not {:#x}", pattern(tag, word)),
            )),
        }
    }
    fn prepared(&self) -> Result<(), Breach> {
        self.judge.same(READY, format_args!("the device"), self.device.prepare(self.cx), Ok(()))?;
        self.judge.holds_nothing(self.cx, "prepare")
    }
    /// Reads `page` into frame `n`.
    fn read(&self, page: u64, n: u64) -> Result<Result<(), DeviceError>, Breach> {
        let done = self.device.read(self.cx, page, self.frame(n), self.mem);
        self.judge.holds_nothing(self.cx, "a read").map(|()| done)
    }
    /// Writes `frames` to `page` and those behind it.
    fn write(&self, page: u64, frames: &[u64]) -> Result<Result<(), DeviceError>, Breach> {
        let frames: Vec<Pfn> = frames.iter().map(|n| self.frame(*n)).collect();
        let done = self.device.write(self.cx, page, &frames, self.mem);
        self.judge.holds_nothing(self.cx, "a write").map(|()| done)
    }
    fn reads(&self, page: u64, n: u64) -> Result<(), Breach> {
        self.judge.same(BACK, format_args!("a read of page {page}"), self.read(page, n)?, Ok(()))
    }
    fn writes(&self, page: u64, frames: &[u64]) -> Result<(), Breach> {
        let done = self.write(page, frames)?;
        self.judge.same(BACK, format_args!("a write from page {page}"), done, Ok(()))
    }
    /// Reads `page` into frame `n` and compares.
    fn page_is(&self, clause: &'static str, page: u64, n: u64, tag: u64) -> Result<(), Breach> {
        self.fill(n, !tag);
        let read = self.read(page, n)?;
        self.judge.same(clause, format_args!("a read of page {page}"), read, Ok(()))?;
        self.is(clause, n, tag, "page", page)
    }
    /// Runs `f`, which is about frame `n`; those before it and behind it stay as they are.
    fn alone(&self, n: u64, f: impl FnOnce() -> Result<(), Breach>) -> Result<(), Breach> {
        self.fill(n - 1, 98);
        self.fill(n + 1, 99);
        f()?;
        self.is(FRAMES, n - 1, 98, "before that of a transfer, frame", n - 1)?;
        self.is(FRAMES, n + 1, 99, "behind that of a transfer, frame", n + 1)
    }
    fn refused(&self, op: DeviceOp, page: u64, count: u64) -> Result<(), Breach> {
        let done = match op {
            DeviceOp::Write => self.write(page, &Vec::from_iter(0..count))?,
            _ => self.read(page, 0)?,
        };
        let what = format_args!("{op} of {count} pages from {page} of {}", self.pages);
        let Err(e) = done else {
            return Err(self.judge.breach(END, format_args!("{what} worked")));
        };
        self.says(e, op, page, count)
    }
    fn says(&self, e: DeviceError, op: DeviceOp, page: u64, count: u64) -> Result<(), Breach> {
        let there = e.op == op && e.page.checked_sub(page).is_some_and(|n| n < count.max(1));
        let facts = format_args!("{op} of {count} pages from {page} said: {e}");
        self.judge.require(SAYS, there && e.errno > 0, facts)
    }
}

/// The word `word` of what `tag` stands for.
fn pattern(tag: u64, word: usize) -> u64 {
    (tag.wrapping_add(1) ^ (word as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn holds_what_it_was_given(b: &Bench<'_>) -> Result<(), Breach> {
    let last = b.pages - 1;
    let pages = [0, 1, 2, 7, last - 1, last];
    for page in pages {
        b.fill(4, page);
        b.alone(4, || b.writes(page, &[4]))?;
        b.is(FRAMES, 4, page, "after a write from it, frame", 4)?;
    }
    for page in pages {
        b.alone(9, || b.page_is(BACK, page, 9, page))?;
        b.page_is(BACK, page, 2, page)?; // a second time the same
    }
    b.prepared()?;
    for page in pages {
        b.page_is(READY, page, 2, page)?;
    }
    // Written over: the new bytes, and the neighbours' old ones.
    b.fill(0, 1000);
    b.writes(1, &[0])?;
    b.page_is(BACK, 1, 2, 1000)?;
    b.page_is(BESIDE, 0, 2, 0)?;
    b.page_is(BESIDE, 2, 2, 2)
}

fn runs(b: &Bench<'_>) -> Result<(), Breach> {
    b.fill(0, 500);
    b.writes(3, &[0])?;
    b.writes(9, &[0])?;
    // Frames in no order, one of them twice.
    let frames = [5, 1, 4, 2, 5];
    (1..6).for_each(|n| b.fill(n, n));
    b.writes(4, &frames)?;
    for (page, n) in (4..).zip(frames) {
        b.page_is(ORDER, page, 6, n)?;
    }
    b.page_is(BESIDE, 3, 6, 500)?;
    b.page_is(BESIDE, 9, 6, 500)?;
    let done = b.write(4, &[])?;
    b.judge.same(NOTHING, format_args!("a write of no frames"), done, Ok(()))?;
    b.page_is(NOTHING, 4, 6, 5)
}

fn ends(b: &Bench<'_>) -> Result<(), Breach> {
    let pages = b.pages;
    b.fill(0, 700);
    b.writes(0, &[0])?;
    b.writes(pages - 3, &[0])?;
    for page in [pages, pages + 1, u64::MAX] {
        b.refused(DeviceOp::Read, page, 1)?;
        b.refused(DeviceOp::Write, page, 1)?;
    }
    (0..4).for_each(|n| b.fill(n, 800 + n));
    b.refused(DeviceOp::Write, pages - 2, 4)?;
    b.refused(DeviceOp::Write, u64::MAX - 1, 4)?;
    b.page_is(BESIDE, 0, 5, 700)?;
    b.page_is(BESIDE, pages - 3, 5, 700)
}

fn fails(b: &Bench<'_>, fail: &dyn Fn(DeviceOp)) -> Result<(), Breach> {
    (0..3).for_each(|n| b.fill(n, 900 + n));
    b.writes(4, &[0, 1, 2])?;
    fail(DeviceOp::Read);
    match b.read(5, 6)? {
        Ok(()) => return Err(b.judge.breach(FAILS, format_args!("a read that failed said Ok"))),
        Err(e) => b.says(e, DeviceOp::Read, 5, 1)?,
    }
    b.page_is(AGAIN, 5, 6, 901)?;
    b.fill(3, 903);
    fail(DeviceOp::Write);
    match b.write(5, &[3])? {
        Ok(()) => return Err(b.judge.breach(FAILS, format_args!("a write that failed said Ok"))),
        Err(e) => b.says(e, DeviceOp::Write, 5, 1)?,
    }
    b.is(FRAMES, 3, 903, "after a failed write from it, frame", 3)?;
    b.page_is(BESIDE, 4, 6, 900)?;
    b.page_is(BESIDE, 6, 6, 902)?;
    b.judge.same(AGAIN, format_args!("the write"), b.write(5, &[3])?, Ok(()))?;
    b.page_is(AGAIN, 5, 6, 903)
}

/// Every thread has pages between those of the others.
#[cfg(all(feature = "std", not(shuttle)))]
fn together(b: &Bench<'_>) -> Result<(), Breach> {
    const THREADS: u64 = 3;
    let (judge, device, mem, pages) = (b.judge, b.device, b.mem, b.pages);
    let (counters, hooks) = (b.cx.counters(), b.cx.hooks());
    let work = |me: u64| {
        let id = ThreadId(me as u32 + 1000);
        let cx = &Cx::new(counters, CpuId(0), id, alloc::sync::Arc::clone(hooks));
        let b = &Bench { judge, cx, device, mem, pages };
        let (out, back) = (me * 2, me * 2 + 1);
        for round in 0..40 {
            for page in (0..4).map(|i| i * THREADS + me) {
                let tag = round << 8 | page;
                b.fill(out, tag);
                b.writes(page, &[out])?;
                b.page_is(TOGETHER, page, back, tag)?;
            }
            for page in (0..4).map(|i| i * THREADS + me) {
                b.page_is(TOGETHER, page, back, round << 8 | page)?;
            }
        }
        Ok(())
    };
    judge.three_threads(|me| work(me as u64))
}

#[cfg(all(feature = "std", not(shuttle)))]
fn stored_to_meanwhile(b: &Bench<'_>) -> Result<(), Breach> {
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let stop = &AtomicBool::new(false);
    let (mem, frame) = (b.mem, b.frame(0));
    std::thread::scope(|s| {
        let storing = s.spawn(move || {
            let mut tag = 0;
            while !stop.load(SeqCst) {
                tag += 1;
                fill(mem, frame, tag);
            }
        });
        let written = (0..40).try_for_each(|_| b.writes(3, &[0]));
        stop.store(true, SeqCst);
        let stored = storing.join();
        b.judge.ended(stored).and(written)
    })?;
    b.fill(0, 77);
    b.writes(3, &[0])?;
    b.page_is(MEANWHILE, 3, 1, 77)
}
