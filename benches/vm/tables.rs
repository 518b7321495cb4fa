//! Page tables of other crates, over an arena of touched frames and without the privileged flush.

use std::sync::{LazyLock, Mutex};

use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::{
    GenericPTE, MappingFlags, PageSize, PageTable64, PagingHandler, PagingMetaData,
    x86_64::X64PageTable,
};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
    Translate,
};

use crate::linux::{PAGE, Region};

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

/// A page table of `page_table_multiarch` in the arena.
pub(crate) type MultiarchTable =
    PageTable64<QuietX64, <X64PageTable<Tables> as Entries>::Entry, Tables>;

/// The arena as `x86_64` wants it.
pub(crate) struct OffsetFrames;

// SAFETY: every frame comes out of the arena's free list once and is given back by nobody but its taker.
unsafe impl FrameAllocator<Size4KiB> for OffsetFrames {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        PhysFrame::from_start_address(x86_64::PhysAddr::new(TABLES.take()? as u64)).ok()
    }
}

/// An empty table of the `x86_64` crate; it is never given back.
pub(crate) fn offset_table() -> OffsetPageTable<'static> {
    let root = TABLES.memory.as_ptr().wrapping_add(TABLES.take().expect("a frame for the root"));
    // SAFETY: the frame was just taken, so nobody else refers to it; the arena is static and page-aligned; zero
    // bytes are an empty table.
    let root = unsafe {
        root.write_bytes(0, PAGE);
        &mut *root.cast::<PageTable>()
    };
    let offset = x86_64::VirtAddr::new(TABLES.memory.as_ptr() as u64);
    // SAFETY: every table frame lies in the arena at `offset` plus its number, which is what "offset" promises.
    unsafe { OffsetPageTable::new(root, offset) }
}

/// Rights of the rows' translations.
const RIGHTS: [MappingFlags; 2] = [
    MappingFlags::READ.union(MappingFlags::USER),
    MappingFlags::READ.union(MappingFlags::USER).union(MappingFlags::WRITE),
];

/// A bare page table of `page_table_multiarch`.
pub(crate) struct Multiarch(MultiarchTable);

impl Multiarch {
    pub(crate) fn new() -> Self {
        Self(MultiarchTable::try_new().expect("a frame for the root"))
    }

    /// Maps `count` pages from `at` on to the frames that `frame` names, with one cursor.
    #[inline]
    pub(crate) fn load(&mut self, at: usize, count: usize, frame: impl Fn(usize) -> usize) {
        let mut cursor = self.0.cursor();
        for page in 0..count {
            let (address, target) = (VirtAddr::from(at + page * PAGE), PhysAddr::from(frame(page)));
            cursor.map(address, target, PageSize::Size4K, RIGHTS[1]).expect("not mapped before");
        }
    }

    #[inline]
    pub(crate) fn translate(&self, at: usize) -> usize {
        self.0.query(VirtAddr::from(at)).map_or(0, |(target, ..)| target.as_usize())
    }

    pub(crate) fn protect(&mut self, at: usize, len: usize, writable: bool) {
        let rights = RIGHTS[usize::from(writable)];
        self.0.cursor().protect_region(VirtAddr::from(at), len, rights).expect("it is mapped");
    }

    pub(crate) fn unload(&mut self, at: usize, len: usize) {
        self.0.cursor().unmap_region(VirtAddr::from(at), len).expect("it is mapped");
    }
}

/// A bare page table of `x86_64`, used again and again.
pub(crate) struct Offset(OffsetPageTable<'static>);

impl Offset {
    pub(crate) fn new() -> Self {
        Self(offset_table())
    }

    #[inline]
    pub(crate) fn load(&mut self, at: usize, frame: usize) {
        let page = Page::<Size4KiB>::containing_address(x86_64::VirtAddr::new(at as u64));
        let frame = PhysFrame::<Size4KiB>::containing_address(x86_64::PhysAddr::new(frame as u64));
        let rights =
            PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE;
        // SAFETY: nothing executes through these tables; the entry is only ever read back by this crate.
        unsafe { self.0.map_to(page, frame, rights, &mut OffsetFrames) }
            .expect("not mapped before")
            .ignore();
    }

    #[inline]
    pub(crate) fn translate(&self, at: usize) -> usize {
        let target = self.0.translate_addr(x86_64::VirtAddr::new(at as u64));
        target.map_or(0, |target| target.as_u64() as usize)
    }

    pub(crate) fn unload(&mut self, at: usize) {
        let page = Page::<Size4KiB>::containing_address(x86_64::VirtAddr::new(at as u64));
        self.0.unmap(page).expect("it is mapped").1.ignore();
    }
}
