//! What a page and a segment cost in bytes: measured on live machines, not computed.
//!
//! ```text
//!   page      what a machine grows by for each frame (page structure, hash, tables sized at boot)
//!             + heap per page while a dense segment is faulted in (slot, anon, records of tables)
//!             + bytes of page tables per resident page
//!   segment   heap of mapping and touching aligned 64-page segments whose page tables exist already, with both of their
//!             chunks of slots, less the anons and less 4 bytes a slot
//! ```
//!
//! Whoever asks lends a way to read how many bytes the heap holds ([`Sizes::measure`]): the command's allocator counts, a test may bring its own.
//! Tables that grow by doubling hold room for up to as much again; the counts are chosen so that they are nearly full before and after.
//!
//! The figures beside ours: illumos's from its published structures (`page_t` 120, a hash head for four pages 2, `anon` 48, its slot 8, its share of
//! the anon hash 2, a table entry 8; `seg` 72 to 96, `segvn_data` 152 to 170, `anon_map` and `anon_hdr` 96), Linux's from its slab sizes (`struct page` 64
//! and a table entry; `vm_area_struct` 192, a share of a maple node 19, `anon_vma` and its chain 168).

use crate::machine::{BootError, Machine, MapFlags, MapRequest, Process, SwapArea, SwapBacking};
use addr_space::{AddrSpace, FaultKind};
use page_db::{Access, PAGE_SIZE, VirtAddr};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// illumos, bytes per resident private anonymous page.
pub const ILLUMOS_PAGE: f64 = 188.0;
/// Linux, bytes per resident private anonymous page.
pub const LINUX_PAGE: f64 = 72.0;
/// illumos, bytes per touched private anonymous segment beside its slots: the middle of 320 to 380.
pub const ILLUMOS_SEGMENT: f64 = 350.0;
/// Linux, bytes per touched private anonymous mapping.
pub const LINUX_SEGMENT: f64 = 379.0;

/// Frames of the smaller machine; the larger has twice as many.
const FRAMES: u64 = 1 << 15;
/// Pages of the dense segment: 15 x 63 chunks of 32 slots.
const DENSE: u64 = 15 * 63 * 32;
/// Segments of the sparse space, four to a leaf table; half of them are counted.
const SEGMENTS: u64 = 7936;
/// Pages of each, and of the gap behind it.
const SEGMENT_PAGES: u64 = 64;
const BASE: u64 = 0x10_0000_0000;

/// Why the sizes could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum SizesError {
    /// A machine did not start.
    #[error("cannot build a machine to measure")]
    Boot(#[from] BootError),
    /// A step on it failed.
    #[error("cannot {step}: {why}")]
    Step {
        /// What was attempted.
        step: &'static str,
        /// What it answered.
        why: String,
    },
}

/// One structure and its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Structure {
    /// The textbook's name.
    pub name: &'static str,
    /// What there is one of it for.
    pub per: &'static str,
    /// `size_of`, in bytes.
    pub bytes: usize,
}

/// Bytes of metadata, measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sizes {
    /// What a machine grows by per frame.
    pub frame: f64,
    /// Heap per page faulted in.
    pub heap: f64,
    /// Page tables per resident page.
    pub tables: f64,
    /// A 64-page private anonymous segment that nobody has touched.
    pub untouched: f64,
    /// The same, touched in both of its chunks, less its anons and 4 bytes a slot.
    pub segment: f64,
    /// The structures.
    pub structures: Vec<Structure>,
}

impl Sizes {
    /// All metadata of one resident private anonymous page.
    pub fn page(&self) -> f64 {
        self.frame + self.heap + self.tables
    }
    /// Builds two machines, uses them, and reads `heap`, the bytes the heap holds, on the way. Nothing else may use the heap meanwhile.
    ///
    /// # Errors
    /// [`SizesError`] when the host has too little memory for the machines (about 400 MB of addresses, 130 MB touched).
    pub fn measure(heap: &dyn Fn() -> u64) -> Result<Self, SizesError> {
        let (small, less) = kept(heap, || Subject::new(FRAMES))?;
        let (large, more) = kept(heap, || Subject::new(2 * FRAMES))?;
        small.map(BASE, DENSE)?;
        let free = small.machine.db().freemem();
        let ((), dense) = kept(heap, || small.touch(BASE, 0..DENSE))?;
        let tables = (free - small.machine.db().freemem() - DENSE) * PAGE_SIZE;
        let (untouched, segment) = segments(heap, &large)?;
        Ok(Self {
            frame: (more - less) / FRAMES as f64 - PAGE_SIZE as f64,
            heap: dense / DENSE as f64,
            tables: tables as f64 / DENSE as f64,
            untouched,
            segment,
            structures: structures(),
        })
    }
}

fn structures() -> Vec<Structure> {
    use page_db::Page;
    let of = |name, per, bytes| Structure { name, per, bytes };
    vec![
        of("page_t", "frame", size_of::<Page>()),
        of("anon chunk", "32 slots", size_of::<seg_drivers::anon::array::Chunk>()),
        of("anon_map", "touched segment", size_of::<seg_drivers::AnonMap>()),
        of("segvn_data", "segment", size_of::<seg_drivers::SegVn>()),
        of("htable_t", "page table", size_of::<hat_x86::htable::HTable>()),
        of("hment_t", "mapping of a page with several", size_of::<hat_x86::hment::HMent>()),
    ]
}

/// Runs `work` and answers with the bytes it left on the heap.
fn kept<T>(
    heap: &dyn Fn() -> u64,
    work: impl FnOnce() -> Result<T, SizesError>,
) -> Result<(T, f64), SizesError> {
    let before = heap();
    let made = work()?;
    Ok((made, heap() as f64 - before as f64))
}

/// Bytes of a 64-page segment, untouched and touched.
fn segments(heap: &dyn Fn() -> u64, on: &Subject) -> Result<(f64, f64), SizesError> {
    const SLOTS: [u64; 2] = [0, 32]; // one page in every chunk
    const EXTRA: u64 = 2;
    let start = |segment: u64| BASE + segment * 2 * SEGMENT_PAGES * PAGE_SIZE;
    let map = |segment: u64| on.map(start(segment), SEGMENT_PAGES);
    let touch =
        |segment: u64| SLOTS.iter().try_for_each(|page| on.touch(start(segment), *page..page + 1));
    // The first two of each four bring their leaf table in.
    let (first, counted): (Vec<u64>, Vec<u64>) = (0..SEGMENTS).partition(|s| s % 4 < 2);
    for &segment in &first {
        map(segment)?;
        touch(segment)?;
    }
    let ((), mapped) = kept(heap, || counted.iter().copied().try_for_each(map))?;
    let ((), touched) = kept(heap, || counted.iter().copied().try_for_each(touch))?;
    let more = |s: u64| on.touch(start(s), 1..1 + EXTRA);
    let ((), anons) = kept(heap, || (0..SEGMENTS).try_for_each(more))?;
    let anon = anons / (SEGMENTS * EXTRA) as f64;
    let beside = SLOTS.len() as f64 * anon + 4.0 * SEGMENT_PAGES as f64;
    let each = |bytes: f64| bytes / counted.len() as f64;
    Ok((each(mapped), each(mapped + touched) - beside))
}

/// A machine with one process.
struct Subject {
    machine: Machine,
    process: Process,
    space: Arc<AddrSpace>,
}

fn failed<T, E: fmt::Display>(step: &'static str, done: Result<T, E>) -> Result<T, SizesError> {
    done.map_err(|e| SizesError::Step { step, why: e.to_string() })
}

impl Subject {
    fn new(frames: u64) -> Result<Self, SizesError> {
        // Swap for every reservation; unused pages of it cost nothing.
        let swap = SwapArea { backing: SwapBacking::Memory, pages: 1 << 21, priority: 0 };
        let machine = Machine::builder().frames(frames).swap(swap).build()?;
        let process = failed("start a process", machine.spawn("sizes"))?;
        let space = Arc::clone(&process.space());
        Ok(Self { machine, process, space })
    }
    fn map(&self, at: u64, pages: u64) -> Result<(), SizesError> {
        let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
        let len = pages * PAGE_SIZE;
        let request = MapRequest { addr: at, len, prot: 3, flags, file: None, offset: 0 };
        failed("map a segment", self.process.mmap(&request)).map(|_| ())
    }
    fn touch(&self, at: u64, mut pages: std::ops::Range<u64>) -> Result<(), SizesError> {
        pages.try_for_each(|page| {
            let addr = failed("name a page", VirtAddr::new(at + page * PAGE_SIZE))?;
            let (kind, access) = (FaultKind::Invalid, Access::Write);
            failed("touch a page", self.space.fault_at(self.process.cx(), addr, kind, access))
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, what: &str, ours: f64, illumos: f64, linux: f64| {
            writeln!(f, "{what:<46} {ours:>8.1} {illumos:>8.0} {linux:>8.0}")
        };
        writeln!(f, "{:<46} {:>8} {:>8} {:>8}", "BYTES OF METADATA", "SEGVM", "ILLUMOS", "LINUX")?;
        let page = self.page();
        row(f, "per resident private anonymous page", page, ILLUMOS_PAGE, LINUX_PAGE)?;
        for (what, bytes) in [
            ("  of it: page structure and hash, per frame", self.frame),
            ("  of it: slot, anon, swap name, table record", self.heap),
            ("  of it: page tables", self.tables),
        ] {
            writeln!(f, "{what:<46} {bytes:>8.1}")?;
        }
        let segment = "per touched 64-page segment, beside its slots";
        row(f, segment, self.segment, ILLUMOS_SEGMENT, LINUX_SEGMENT)?;
        writeln!(f, "{:<46} {:>8.1}", "per untouched 64-page segment", self.untouched)?;
        writeln!(f, "\n{:<14} {:>6}  PER", "STRUCTURE", "BYTES")?;
        self.structures
            .iter()
            .try_for_each(|s| writeln!(f, "{:<14} {:>6}  {}", s.name, s.bytes, s.per))
    }
}
