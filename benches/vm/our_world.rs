//! A machine with one process: the thing the fault, fork, map and size rows measure.
//!
//! Everything goes through the doors a user of the library has: `mmap`, `munmap`, `mprotect` and `fork` are the process's system
//! calls; a fault is `as_fault` for one page, which is what a processor's page fault calls.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use addr_space::{AddrSpace, Advice, FaultKind, GapRequest, Hat, LoadFlags, RunPage, UnloadFlags};
use hat_x86::SpaceId;
use page_db::{
    Access, Counter, CpuId, Cx, ExclPage, HostMem, PageId, Pfn, PhysMem, Prot, Reserve, VirtAddr,
    VirtRange,
};
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{ForkPolicy, MachineBuilder, MemAdvice, SwapArea, SwapBacking};
use segvm::{Machine, MapFlags, MapRequest, Pid, Process};

use crate::harness::Rng;
use crate::linux::PAGE;
use crate::our_memory::NoData;
use crate::peers::shape;

/// Processors of every machine: as many as the threads of the two-thread rows.
const CPUS: u16 = 2;
/// Pages of swap, so that every reservation of every row is covered. Unused ones cost nothing.
const SWAP: u64 = 4 << 20;

/// Pages that [`Hand::load_run`] loads at once.
pub(crate) const RUN: usize = 16;

/// The first frame of memory that is brought along.
const FIRST_FRAME: Pfn = Pfn(256);

/// A machine and its process.
#[derive(Debug)]
pub(crate) struct World {
    machine: Mutex<Machine>,
    pid: Pid,
}

/// One thread of the process.
#[derive(Debug)]
pub(crate) struct Hand {
    process: Process,
    space: Arc<AddrSpace>,
}

impl World {
    /// A machine of `frames`. With `data`, all have been stored to: the first touch of the host's memory belongs to no row. Without, frames are neither zeroed
    /// nor copied ([`NoData`]).
    pub(crate) fn new(frames: usize, data: bool) -> Result<Self, String> {
        if !data {
            return Self::boot(Machine::builder().memory(Arc::new(NoData::new(frames)?)));
        }
        let memory = HostMem::new(FIRST_FRAME, frames as u64).map_err(|e| e.to_string())?;
        (0..frames as u64).for_each(|frame| memory.zero(Pfn(FIRST_FRAME.0 + frame)));
        Self::boot(Machine::builder().memory(Arc::new(memory)))
    }

    /// A machine of `frames` without data whose forks follow `policy`.
    pub(crate) fn forking(frames: usize, policy: ForkPolicy) -> Result<Self, String> {
        Self::boot(Machine::builder().memory(Arc::new(NoData::new(frames)?)).fork(policy))
    }

    fn boot(builder: MachineBuilder) -> Result<Self, String> {
        let swap = SwapArea { backing: SwapBacking::Memory, pages: SWAP, priority: 0 };
        let machine = builder.cpus(CPUS).swap(swap).build().map_err(|e| e.to_string())?;
        let pid = machine.spawn("bench").map_err(|e| e.to_string())?.pid();
        Ok(Self { machine: Mutex::new(machine), pid })
    }

    /// A thread of the process on `cpu`.
    pub(crate) fn on(&self, cpu: usize) -> Hand {
        let machine = self.machine.lock().expect("nobody panics with the machine in hand");
        let process =
            machine.process(self.pid).expect("the process lives").another_thread(CpuId(cpu as u16));
        Hand::of(process)
    }

    /// Frames that are free, in magazines included.
    pub(crate) fn free_frames(&self) -> usize {
        self.machine.lock().expect("nobody panics with the machine in hand").db().freemem() as usize
    }
}

/// Frames kept in use so that the free ones lie scattered, as after a long life: about every second one is free, at random, in runs of one to
/// a few. The allocator hands them out in the order of their addresses.
#[derive(Debug, Default)]
pub(crate) struct Aged(Vec<PageId>);

impl Aged {
    /// Gives back what it keeps, takes every free frame, and frees a random half of them.
    pub(crate) fn anew(&mut self, hand: &Hand, rng: &mut Rng) {
        let (db, cx) = (hand.machine().db(), hand.cx());
        self.0.drain(..).for_each(|page| db.destroy(cx, db.adopt_excl(cx, page)));
        let mut frames = Vec::new();
        while let Ok(frame) = db.alloc(cx, frames.len() as u64, Reserve::Push) {
            frames.push(frame);
        }
        rng.shuffle(&mut frames);
        self.0.extend(frames.split_off(frames.len().div_ceil(2)).into_iter().map(ExclPage::leak));
        frames.into_iter().for_each(|frame| db.destroy(cx, frame));
    }
}

fn address(at: usize) -> VirtAddr {
    VirtAddr::new(at as u64).expect("the rows' addresses are user addresses")
}

/// Page-aligned addresses of the rows are always a range.
fn range(start: usize, len: usize) -> VirtRange {
    VirtRange::exact(start as u64, len as u64).expect("the rows' ranges are user ranges")
}

impl Hand {
    fn of(process: Process) -> Self {
        let space = process.space();
        Self { process, space }
    }

    /// This thread's context.
    pub(crate) fn cx(&self) -> &Cx {
        self.process.cx()
    }

    /// The translations of the process.
    pub(crate) fn hat(&self) -> &dyn Hat {
        &**self.space.hat()
    }

    /// The machine.
    pub(crate) fn machine(&self) -> &Machine {
        self.process.machine()
    }

    /// Maps anonymous private memory at `start`, nothing touched.
    pub(crate) fn map(&self, start: usize, len: usize) {
        let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
        let request = MapRequest {
            addr: start as u64,
            len: len as u64,
            prot: 3,
            flags,
            file: None,
            offset: 0,
        };
        self.process.mmap(&request).expect("room and swap for a mapping");
    }

    /// The same wherever there is room.
    pub(crate) fn map_anywhere(&self, len: usize) -> usize {
        self.process.map_anon(len as u64).expect("room and swap for a mapping") as usize
    }

    pub(crate) fn unmap(&self, start: usize, len: usize) {
        self.process.munmap(start as u64, len as u64).expect("unmapping our own");
    }

    /// Makes a range read-only, or writable again.
    pub(crate) fn protect(&self, start: usize, len: usize, writable: bool) {
        self.process
            .mprotect(start as u64, len as u64, if writable { 3 } else { 1 })
            .expect("rights within the ceiling");
    }

    /// A store's page fault.
    #[inline]
    pub(crate) fn fault(&self, at: usize) {
        let done =
            self.space.fault_at(self.process.cx(), address(at), FaultKind::Invalid, Access::Write);
        done.expect("memory for one page");
    }

    /// Start of the segment that holds `at`, or 0.
    #[inline]
    pub(crate) fn find(&self, at: usize) -> usize {
        self.space
            .range_at(self.process.cx(), address(at))
            .map_or(0, |range| range.start().get() as usize)
    }

    /// The lowest hole of `len` bytes in the window.
    pub(crate) fn find_gap(&self, start: usize, window: usize, len: usize) -> Option<usize> {
        let window = VirtRange::exact(start as u64, window as u64).ok()?;
        let request = GapRequest::new(len as u64).lowest().within(window);
        let found = self.space.find_gap(self.process.cx(), &request).ok()?;
        Some(found.place.start().get() as usize)
    }

    /// The segments of the fault rows.
    pub(crate) fn map_fault_segments(&self) {
        for segment in 0..shape::SEGMENTS {
            self.map(shape::address(shape::BASE, segment, 0), shape::PAGES * PAGE);
        }
    }

    /// A load's page fault.
    #[inline]
    pub(crate) fn read_fault(&self, at: usize) {
        let done =
            self.space.fault_at(self.process.cx(), address(at), FaultKind::Invalid, Access::Read);
        done.expect("memory for a page table");
    }

    /// Whether a store at `at` would need no fault.
    pub(crate) fn is_writable(&self, at: usize) -> bool {
        self.hat().probe(self.cx(), address(at)).is_some_and(|have| have.prot.allows(Access::Write))
    }

    /// Whether a load at `at` would need no fault.
    pub(crate) fn is_mapped(&self, at: usize) -> bool {
        self.hat().probe(self.cx(), address(at)).is_some()
    }

    /// Takes the translations of a range away; the pages stay.
    pub(crate) fn forget(&self, start: usize, len: usize) {
        self.hat().unload(self.cx(), range(start, len), UnloadFlags::empty());
    }

    /// Loads a writable translation to a page.
    #[inline]
    pub(crate) fn load(&self, at: usize, page: &ExclPage<'_>) {
        let done =
            self.hat().memload(self.cx(), address(at), page, Prot::RW, LoadFlags::empty(), None);
        done.expect("memory for a page table");
    }

    /// Loads writable translations to pages at consecutive addresses, [`RUN`] at most.
    #[inline]
    pub(crate) fn load_run(&self, at: usize, pages: &[ExclPage<'_>]) {
        let run: [_; RUN] = std::array::from_fn(|i| Some(RunPage::new(pages.get(i)?, Prot::RW)));
        let run = &run[..pages.len()];
        let done = self.hat().memload_run(self.cx(), address(at), run, LoadFlags::empty(), None);
        assert_eq!(done.loaded, pages.len(), "memory for a page table");
    }

    /// The frame behind an address, or 0.
    #[inline]
    pub(crate) fn translate(&self, at: usize) -> usize {
        self.hat().probe(self.cx(), address(at)).map_or(0, |have| have.pfn.0 as usize)
    }

    /// Changes the translations of a range, whatever the segments say.
    pub(crate) fn hat_protect(&self, start: usize, len: usize, writable: bool) {
        let prot = if writable { Prot::RW } else { Prot::READ };
        self.hat().chg_prot(self.cx(), range(start, len), prot);
    }

    /// The frames mapped in a range, in order of address.
    pub(crate) fn walk(&self, start: usize, len: usize, f: &mut dyn FnMut(u64)) {
        self.hat().walk(self.cx(), range(start, len), &mut |_, have| f(have.pfn.0));
    }

    /// The thread's processor runs in the process from here on: flushes go to it.
    pub(crate) fn activate(&self) {
        self.machine().mmu().activate(self.cx(), self.cx().cpu(), Some(SpaceId(self.hat().id())));
    }

    /// The system call, which answers for a range in a list of its own.
    pub(crate) fn mincore(&self, start: usize, len: usize) {
        let bits = self.process.mincore(start as u64, len as u64).expect("no hole in the range");
        assert_eq!(std::hint::black_box(bits).len(), len / PAGE);
    }

    /// One byte a page of a range: bit 0 says whether it is in memory.
    #[inline]
    pub(crate) fn in_core(&self, start: usize, len: usize, out: &mut [u8]) {
        let (_, done) = self.space.incore(self.cx(), range(start, len), out);
        done.expect("no hole in the range");
    }

    /// A file of `len` zero bytes that the process may read and write.
    pub(crate) fn file(&self, len: usize) -> Result<FileHandle, String> {
        let file = self.machine().create_file("bench", len as u64).map_err(|e| e.to_string())?;
        Ok(FileHandle::new(file, OpenMode::ReadWrite))
    }

    /// Maps a part of a file, shared.
    pub(crate) fn map_file(&self, start: usize, len: usize, file: &FileHandle, from: usize) {
        let request = MapRequest {
            addr: start as u64,
            len: len as u64,
            prot: 3,
            flags: MapFlags::SHARED | MapFlags::FIXED,
            file: Some(file),
            offset: from as u64,
        };
        self.process.mmap(&request).expect("room for a mapping");
    }

    /// Says that a range will be read from end to end.
    pub(crate) fn will_read_in_order(&self, start: usize, len: usize) {
        let advice = MemAdvice::Use(Advice::Sequential);
        self.process.madvise(start as u64, len as u64, advice).expect("no hole in the range");
    }

    /// A new process of the same machine, with nothing in it.
    pub(crate) fn spawn(&self) -> Self {
        Self::of(self.machine().spawn("bench").expect("memory for a process"))
    }

    /// A child with a copy of this process.
    pub(crate) fn fork(&self) -> Self {
        Self::of(self.process.fork().expect("memory and swap for a child"))
    }

    /// The end of the process.
    pub(crate) fn exit(self) {
        self.process.exit();
    }

    /// Runs `work` and holds it to what it is said to do: each counter rises by exactly that much.
    pub(crate) fn counted<T>(&self, expected: &[(Counter, usize)], work: impl FnOnce() -> T) -> T {
        let counters = self.machine().counters();
        let before = counters.snapshot();
        let result = work();
        let done = counters.snapshot().since(&before);
        for &(counter, n) in expected {
            assert_eq!(done.get(counter), n as u64, "{} of the measured work", counter.name());
        }
        result
    }

    /// Forks and lets the child exit; ns until fork returned.
    pub(crate) fn fork_time(&self) -> f64 {
        let start = Instant::now();
        let child = self.process.fork().expect("memory and swap for a child");
        let time = start.elapsed().as_nanos() as f64;
        child.exit();
        time
    }
}
