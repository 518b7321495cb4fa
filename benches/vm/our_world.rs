//! A machine with one process: the thing the fault, fork, map and size rows measure.
//!
//! Everything goes through the doors a user of the library has: `mmap`, `munmap`, `mprotect` and `fork` are the process's system
//! calls; a fault is `as_fault` for one page, which is what a processor's page fault calls.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use addr_space::{AddrSpace, FaultKind, GapRequest};
use page_db::{Access, CpuId, VirtAddr, VirtRange};
use segvm::machine::{SwapArea, SwapBacking};
use segvm::{Machine, MapFlags, MapRequest, Pid, Process};

use crate::linux::PAGE;
use crate::our_memory::NoData;
use crate::peers::shape;

/// Processors of every machine: as many as the threads of the two-thread rows.
const CPUS: u16 = 2;
/// Pages of swap, so that every reservation of every row is covered. Unused ones cost nothing.
const SWAP: u64 = 4 << 20;

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
    /// A machine of `frames`; without `data`, frames are neither zeroed nor copied ([`NoData`]).
    pub(crate) fn new(frames: usize, data: bool) -> Result<Self, String> {
        let swap = SwapArea { backing: SwapBacking::Memory, pages: SWAP, priority: 0 };
        let mut builder = Machine::builder().frames(frames as u64).cpus(CPUS).swap(swap);
        if !data {
            builder = builder.memory(Arc::new(NoData::new(frames)?));
        }
        let machine = builder.build().map_err(|e| e.to_string())?;
        let pid = machine.spawn("bench").map_err(|e| e.to_string())?.pid();
        Ok(Self { machine: Mutex::new(machine), pid })
    }

    /// A thread of the process on `cpu`.
    pub(crate) fn on(&self, cpu: usize) -> Hand {
        let machine = self.machine.lock().expect("nobody panics with the machine in hand");
        let process =
            machine.process(self.pid).expect("the process lives").another_thread(CpuId(cpu as u16));
        let space = Arc::clone(&process.space());
        Hand { process, space }
    }

    /// Frames that are free, in magazines included.
    pub(crate) fn free_frames(&self) -> usize {
        self.machine.lock().expect("nobody panics with the machine in hand").db().freemem() as usize
    }
}

fn address(at: usize) -> VirtAddr {
    VirtAddr::new(at as u64).expect("the rows' addresses are user addresses")
}

impl Hand {
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

    /// Forks and lets the child exit; ns until fork returned.
    pub(crate) fn fork_time(&self) -> f64 {
        let start = Instant::now();
        let child = self.process.fork().expect("memory and swap for a child");
        let time = start.elapsed().as_nanos() as f64;
        child.exit();
        time
    }
}
