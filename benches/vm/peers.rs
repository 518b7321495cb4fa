//! The crates people would reach for instead, wrapped so that each does the same work as ours.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};

use dashmap::DashMap;
use memory_addr::{PhysAddr, VirtAddr};
use memory_set::{MappingBackend, MemoryArea, MemorySet};
use page_table_multiarch::{MappingFlags, PageSize};
use x86_64::structures::paging::{
    Mapper, OffsetPageTable, Page, PageTableFlags, PhysFrame, Size4KiB,
};

use crate::linux::PAGE;
use crate::tables::{MultiarchTable, OffsetFrames, offset_table};

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
        let table = offset_table();
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
