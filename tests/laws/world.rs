//! Small machines, and the few calls that every test here makes.

use page_db::PAGE_SIZE;
use segvm::Machine;
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{MapFlags, MapRequest, Process, SysError};

/// Where tests map: a place that begins a whole entry of the top page table.
pub(crate) const BASE: u64 = 0x1000_0000_0000;

pub(crate) const PAGE: u64 = PAGE_SIZE;
pub(crate) const NONE: u32 = 0;
pub(crate) const R: u32 = 1;
pub(crate) const RW: u32 = 3;

pub(crate) const ANON: MapFlags = MapFlags::ANON;
pub(crate) const PRIVATE: MapFlags = MapFlags::PRIVATE;
pub(crate) const SHARED: MapFlags = MapFlags::SHARED;
pub(crate) const FIXED: MapFlags = MapFlags::FIXED;
pub(crate) const NORESERVE: MapFlags = MapFlags::NORESERVE;

/// The address of a page of the place where tests map.
pub(crate) fn at(page: u64) -> u64 {
    BASE + page * PAGE
}

/// A file of the machine, opened.
pub(crate) fn open(machine: &Machine, name: &str, size: u64, mode: OpenMode) -> FileHandle {
    FileHandle::new(machine.create_file(name, size).expect("a file"), mode)
}

/// Maps `pages` pages at page `first`, in place of what is there.
pub(crate) fn map(
    p: &Process,
    first: u64,
    pages: u64,
    prot: u32,
    flags: MapFlags,
    file: Option<&FileHandle>,
) -> Result<u64, SysError> {
    let request = MapRequest {
        addr: at(first),
        len: pages * PAGE,
        prot,
        flags: flags | FIXED,
        file,
        offset: 0,
    };
    p.mmap(&request)
}
