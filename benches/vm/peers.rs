//! The crates people would reach for instead, wrapped so that each does the same work as ours.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{LazyLock, Mutex};

use dashmap::DashMap;
use memory_addr::{PhysAddr, VirtAddr};
use memory_set::{MappingBackend, MemoryArea, MemorySet};
use page_table_multiarch::{
    GenericPTE, MappingFlags, PageSize, PageTable64, PagingHandler, PagingMetaData,
    x86_64::X64PageTable,
};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};

use crate::linux::{PAGE, Region};

/// The segments every fault row works on: 1 000 of 64 pages, as much gap between them.
pub(crate) mod shape {
    use crate::linux::PAGE;

    pub(crate) const SEGMENTS: usize = 1000;
    pub(crate) const PAGES: usize = 64;
    /// From one base to the next.
    pub(crate) const STRIDE: usize = 2 * PAGES * PAGE;
    /// Where simulated address spaces put the first of them.
    pub(crate) const BASE: usize = 0x10_0000_0000;
    /// The segments of the warm tests: 256 pages, which stay in the second-level cache.
    pub(crate) const WARM: usize = 4;

    /// The address of page `page` of segment `segment`, from `base` on.
    pub(crate) fn address(base: usize, segment: usize, page: usize) -> usize {
        base + segment * STRIDE + page * PAGE
    }
}

/// Memory for the page tables of both crates; frames that a dropped table gives back are used again.
struct TableArena {
    memory: Region,
    free: Mutex<Vec<usize>>,
}

/// Enough for 64 000 pages in 1 000 segments, several times over.
const TABLE_BYTES: usize = 64 << 20;

static TABLES: LazyLock<TableArena> = LazyLock::new(|| {
    let memory = Region::anonymous(TABLE_BYTES).expect("address space for page tables");
    memory.touch_all();
    // Frame 0 stays out: page_table_multiarch takes a table at address 0 for none.
    TableArena { free: Mutex::new((PAGE..memory.len()).step_by(PAGE).rev().collect()), memory }
});

impl TableArena {
    fn take(&self) -> Option<usize> {
        self.free.lock().ok()?.pop()
    }

    fn give(&self, offset: usize) {
        if let Ok(mut free) = self.free.lock() {
            free.push(offset);
        }
    }
}

/// The arena as `page_table_multiarch` wants it: static functions.
#[derive(Debug)]
pub(crate) enum Tables {}

impl PagingHandler for Tables {
    fn alloc_frames(count: usize, _align: usize) -> Option<PhysAddr> {
        assert_eq!(count, 1, "page tables are one frame each");
        TABLES.take().map(PhysAddr::from)
    }

    fn dealloc_frames(at: PhysAddr, _count: usize) {
        TABLES.give(at.as_usize());
    }

    fn phys_to_virt(at: PhysAddr) -> VirtAddr {
        VirtAddr::from(TABLES.memory.as_ptr() as usize + at.as_usize())
    }
}

/// x86-64 without the privileged flush.
#[derive(Debug)]
pub(crate) enum QuietX64 {}

impl PagingMetaData for QuietX64 {
    const LEVELS: usize = 4;
    const PA_MAX_BITS: usize = 52;
    const VA_MAX_BITS: usize = 48;
    type VirtAddr = VirtAddr;

    fn flush_tlb(_address: Option<VirtAddr>) {}
}

/// Names the entry type of a page table, which the crate does not re-export.
pub(crate) trait Entries {
    type Entry: GenericPTE;
}

impl<M: PagingMetaData, E: GenericPTE, H: PagingHandler> Entries for PageTable64<M, E, H> {
    type Entry = E;
}

type MultiarchTable = PageTable64<QuietX64, <X64PageTable<Tables> as Entries>::Entry, Tables>;

/// A backend that does nothing: the cost of `memory_set` alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nothing;

impl MappingBackend for Nothing {
    type Addr = VirtAddr;
    type Flags = MappingFlags;
    type PageTable = ();

    fn map(&self, _start: VirtAddr, _size: usize, _flags: MappingFlags, _table: &mut ()) -> bool {
        true
    }

    fn unmap(&self, _start: VirtAddr, _size: usize, _table: &mut ()) -> bool {
        true
    }

    fn protect(
        &self,
        _start: VirtAddr,
        _size: usize,
        _flags: MappingFlags,
        _table: &mut (),
    ) -> bool {
        true
    }
}

/// `memory_set` as an address space without pages.
pub(crate) struct Areas(MemorySet<Nothing>);

impl Areas {
    pub(crate) fn new() -> Self {
        Self(MemorySet::new())
    }

    pub(crate) fn map(&mut self, start: usize, size: usize, writable: bool) {
        let flags = MappingFlags::READ | MappingFlags::USER;
        let flags = if writable { flags | MappingFlags::WRITE } else { flags };
        let area = MemoryArea::new(VirtAddr::from(start), size, flags, Nothing);
        self.0.map(area, &mut (), false).expect("the range is free");
    }

    pub(crate) fn unmap(&mut self, start: usize, size: usize) {
        self.0.unmap(VirtAddr::from(start), size, &mut ()).expect("unmapping never fails here");
    }

    pub(crate) fn flags_at(&self, address: usize) -> Option<MappingFlags> {
        self.0.find(VirtAddr::from(address)).map(MemoryArea::flags)
    }
}

/// What a fault is to somebody who needs only the mapping: find the area, write the entry. No lock, no page, no anon.
pub(crate) struct MappingOnly {
    areas: Areas,
    table: MultiarchTable,
}

impl MappingOnly {
    /// The fault rows' segments, nothing mapped in the table.
    pub(crate) fn new() -> Self {
        let mut areas = Areas::new();
        for segment in 0..shape::SEGMENTS {
            areas.map(shape::address(shape::BASE, segment, 0), shape::PAGES * PAGE, true);
        }
        Self { areas, table: MultiarchTable::try_new().expect("a frame for the root") }
    }

    #[inline]
    pub(crate) fn fault(&mut self, address: usize, frame: usize) {
        let flags = self.areas.flags_at(address).expect("the address lies in an area");
        let target = PhysAddr::from(frame);
        self.table
            .cursor()
            .map(VirtAddr::from(address), target, PageSize::Size4K, flags)
            .expect("not mapped before");
    }

    pub(crate) fn unload(&mut self, address: usize) {
        _ = self.table.cursor().unmap(VirtAddr::from(address));
    }

    /// Starts over with an empty page table.
    pub(crate) fn empty(&mut self) {
        self.table = MultiarchTable::try_new().expect("a frame for the root");
    }
}

/// The same with `BTreeMap` as the index and the `x86_64` crate's table.
pub(crate) struct OffsetMapping {
    areas: BTreeMap<usize, (usize, PageTableFlags)>,
    table: OffsetPageTable<'static>,
}

struct OffsetFrames;

// SAFETY: every frame comes out of the arena's free list once and is given back by nobody but its taker.
unsafe impl FrameAllocator<Size4KiB> for OffsetFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        PhysFrame::from_start_address(x86_64::PhysAddr::new(TABLES.take()? as u64)).ok()
    }
}

impl OffsetMapping {
    pub(crate) fn new() -> Self {
        let flags =
            PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE;
        let areas = (0..shape::SEGMENTS)
            .map(|segment| {
                let start = shape::address(shape::BASE, segment, 0);
                (start, (start + shape::PAGES * PAGE, flags))
            })
            .collect();
        let root =
            TABLES.memory.as_ptr().wrapping_add(TABLES.take().expect("a frame for the root"));
        // SAFETY: the frame was just taken, so nobody else refers to it; the arena is static and page-aligned; zero
        // bytes are an empty table.
        let root = unsafe {
            root.write_bytes(0, PAGE);
            &mut *root.cast::<PageTable>()
        };
        let offset = x86_64::VirtAddr::new(TABLES.memory.as_ptr() as u64);
        // SAFETY: every table frame lies in the arena at `offset` plus its number, which is what "offset" promises.
        let table = unsafe { OffsetPageTable::new(root, offset) };
        Self { areas, table }
    }

    #[inline]
    pub(crate) fn fault(&mut self, address: usize, frame: usize) {
        let (_, &(end, flags)) = self.areas.range(..=address).next_back().expect("an area below");
        assert!(address < end, "the address lies in an area");
        let page = Page::<Size4KiB>::containing_address(x86_64::VirtAddr::new(address as u64));
        let frame = PhysFrame::<Size4KiB>::containing_address(x86_64::PhysAddr::new(frame as u64));
        // SAFETY: nothing executes through these tables; the entry is only ever read back by this crate.
        unsafe { self.table.map_to(page, frame, flags, &mut OffsetFrames) }
            .expect("not mapped before")
            .ignore();
    }

    pub(crate) fn unload(&mut self, address: usize) {
        let page = Page::<Size4KiB>::containing_address(x86_64::VirtAddr::new(address as u64));
        if let Ok((_, flush)) = self.table.unmap(page) {
            flush.ignore();
        }
    }
}

/// The cheap hasher both sides of the hash rows use: multiply and fold, one step per word.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
        self.0 = wide as u64 ^ (wide >> 64) as u64;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Pages by name in a `DashMap` with its default number of shards.
pub(crate) type DashPages = DashMap<(u64, u64), u32, BuildHasherDefault<Fold>>;
