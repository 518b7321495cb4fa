//! The words in which a driver is asked and answers: advice, flags, kinds, and what is told of a segment.

use alloc::string::String;
use alloc::vec::Vec;
use page_db::heap::NoHeap;
use page_db::{FileOffset, PageId, Prot, VirtAddr, VirtRange};

/// Why two adjacent segments might become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Join {
    /// The second is new: nothing has been touched in it (`segvn_extend_prev`, or `_next` with the first one new).
    Extend,
    /// Both have lived (`segvn_concat`).
    Neighbours,
}

/// Advice about future use.
#[doc(alias("MADV_NORMAL", "MADV_RANDOM", "MADV_SEQUENTIAL", "MADV_FREE", "MADV_PURGE"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum Advice {
    /// No special treatment.
    #[default]
    Normal,
    /// Expect random references: no neighbours.
    Random,
    /// Expect sequential references: read ahead, free behind.
    Sequential,
    /// The contents may be dropped: old bytes or zeros until they are stored to.
    Free,
    /// The same, and what is easily given up goes at once, place on swap and all.
    Purge,
    /// The contents are given up on this side: zeros, or the file, are found next, whatever another side of a fork has (UVM's `MADV_FREE`). What other
    /// segments have too is kept. What lies below in a file is written back and dropped, too; where that cannot go (lent, or locked by another mapping) the call says
    /// so, and this side's contents are gone all the same.
    Drop,
    /// As [`Advice::Drop`], but the file's own pages and shared memory are only unmapped (Linux's `MADV_DONTNEED`).
    Discard,
    /// The default NUMA policy.
    #[doc(alias = "MADV_ACCESS_DEFAULT")]
    AccessDefault,
    /// The next thread to touch the range will use it most.
    #[doc(alias = "MADV_ACCESS_LWP")]
    AccessLwp,
    /// Many threads will use the range.
    #[doc(alias = "MADV_ACCESS_MANY")]
    AccessMany,
}

bitflags::bitflags! {
    /// How [`SegOps::sync`](super::SegOps::sync) writes.
    #[doc(alias("MS_SYNC", "MS_ASYNC", "MS_INVALIDATE"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SyncFlags: u8 {
        /// Do not wait for the writes.
        const ASYNC = 1;
        /// Afterwards drop the pages from memory.
        const INVALIDATE = 2;
        /// Wait for the writes, which is what happens when nothing is said. System calls refuse it beside `ASYNC`.
        const SYNC = 4;
    }
}

bitflags::bitflags! {
    /// One byte a page, as mincore(2) shows it.
    #[doc(alias("SEG_PAGE_INCORE", "SEG_PAGE_LOCKED", "SEG_PAGE_HASCOW", "SEG_PAGE_SOFTLOCK", "SEG_PAGE_VNODEBACKED",
                "SEG_PAGE_ANON", "SEG_PAGE_VNODE"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct InCore: u8 {
        /// Resident.
        const INCORE = 0x01;
        /// Locked by this mapping.
        const LOCKED = 0x02;
        /// The page has claims of private writable mappings.
        const HASCOW = 0x04;
        /// The page has other claims.
        const SOFTLOCK = 0x08;
        /// The segment is backed by a vnode.
        const VNODEBACKED = 0x10;
        /// A private copy, mapped writable.
        const ANON = 0x20;
        /// The backing vnode's page is resident.
        const VNODE = 0x40;
    }
}

bitflags::bitflags! {
    /// What [`SegOps::kind`](super::SegOps::kind) answers.
    #[doc(alias("MAP_SHARED", "MAP_PRIVATE", "MAP_NORESERVE", "MAP_TEXT", "MAP_INITDATA"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct SegKind: u8 {
        /// Stores are seen by everybody who maps the object; otherwise they are private.
        const SHARED = 1;
        /// Swap is reserved page by page at the first touch.
        const NORESERVE = 2;
        /// Program text.
        const TEXT = 4;
        /// Initialised data.
        const INITDATA = 8;
        /// Must look unmapped (a guard).
        const HOLE = 16;
        /// May be thrown away by purge, and is not copied by fork.
        const PURGE = 32;
    }
}

/// What [`SegOps::capable`](super::SegOps::capable) is asked.
#[doc(alias = "segcapability_t")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Capability {
    /// No page ever takes a minor fault, as it would after being moved.
    #[doc(alias = "S_CAPABILITY_NOMINFLT")]
    NoMinorFaults,
}

/// What a child of fork finds where its parent has something.
#[doc(alias(
    "minherit",
    "MAP_INHERIT_SHARE",
    "MAP_INHERIT_COPY",
    "MAP_INHERIT_NONE",
    "MAP_INHERIT_ZERO"
))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Inherit {
    /// The same memory: what one stores the other sees.
    Share,
    /// A copy, on write.
    Copy,
    /// Nothing is mapped there.
    None,
    /// Zeros.
    Zero,
}

/// Lock or unlock.
#[doc(alias("MC_LOCK", "MC_UNLOCK"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOp {
    /// Lock in memory.
    Lock,
    /// Let go. Where the heap does not give what a part of a locked range needs to be told from the rest: [`SegError::NoMemory`](crate::SegError::NoMemory), and nothing has changed.
    Unlock,
    /// Let go of what has just been locked, which cannot be refused.
    Undo,
}

/// Pages that a lock call has newly locked, so that exactly those can be undone.
#[doc(alias = "lockmap")]
#[derive(Debug, Default)]
pub struct NewlyLocked {
    runs: Vec<VirtRange>,
}

impl NewlyLocked {
    /// Makes room for one more page to be noted.
    ///
    /// # Errors
    /// [`NoHeap`]; what is noted stays.
    pub fn make_room(&mut self) -> Result<(), NoHeap> {
        self.runs.try_reserve(1).map_err(|_| NoHeap)
    }
    /// Notes one page; runs of neighbours take one record. Asks the heap for nothing after [`NewlyLocked::make_room`].
    pub fn note(&mut self, page: VirtAddr) {
        if let Some(last) = self.runs.last_mut()
            && last.end() == page.get()
            && let Ok(grown) = VirtRange::exact(last.start().get(), last.len() + page_db::PAGE_SIZE)
        {
            *last = grown;
            return;
        }
        self.runs.push(VirtRange::page_of(page));
    }
    /// The runs noted, in order.
    pub fn runs(&self) -> &[VirtRange] {
        &self.runs
    }
}

/// Pages pinned for i/o, one id a page (a shadow list).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PageList {
    /// The pages, in order of address.
    pub pages: Vec<PageId>,
}

/// Two words that are equal exactly when object and offset are the same. They stay what they are while the memory is mapped, whatever becomes of its pages; but private
/// memory is another object while several segments share it for good.
#[doc(alias = "memid_t")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct MemId(pub u64, pub u64);

/// What is in memory of a segment, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Residency {
    /// Resident pages that belong to the mapping.
    pub rss: u64,
    /// Those of them that are private copies.
    pub anon: u64,
    /// Pages locked by this mapping.
    pub locked: u64,
}

/// What a view shows of a segment.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct SegDetail {
    /// Path or bracketed name, as pmap prints it: `[ anon ]`, `/bin/sh`, `[ seg_dev ]`.
    pub name: String,
    /// Rights of the segment (per-page rights may differ).
    pub prot: Prot,
    /// Ceiling.
    pub max_prot: Prot,
    /// Offset in the object of the segment's first byte.
    pub offset: FileOffset,
    /// The anon map's number, if there is one.
    pub amp: Option<u32>,
    /// Index in the anon map of the segment's first page.
    pub amp_index: u64,
    /// Bytes of swap reserved by this segment.
    pub swresv: u64,
    /// Whether per-page protections exist.
    pub page_prot: bool,
    /// Advice of the segment.
    pub advice: Advice,
    /// Pages pinned for i/o.
    pub softlocks: u64,
}
