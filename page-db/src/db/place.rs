//! Frames by their place: those that are no memory, those asked for by number, and runs of them.
//!
//! # The difficulty
//!
//! The frames between the first and the last are not all memory: a PC has a hole for its devices below 4 GiB, and in what is memory lie tables of the
//! firmware, the kernel itself, what the loader left behind. And some who want frames care which ones: a device that reads memory by itself takes its buffer
//! in one piece, below an address that it can form, where everybody else takes any frame.
//!
//! # The rule
//!
//! ```text
//!   base                                                       base + frames
//!   ├──── memory ────┤ tables │ memory ┤     hole     ├─── memory ───┤
//!        a page each   absent     a page       absent      a page        PhysMem::is_memory, asked once for each frame
//!                                   ▲▲▲▲
//!                                   alloc_contig: free or cached pages side by side, the lowest there are
//! ```
//!
//! Each frame has its structure, so that number and structure lead to each other by a subtraction; one that is no memory is
//! [`PageState::ABSENT`] for good. It has no name and is on no list, so nobody comes upon it but who goes over all structures; and whoever asks by number
//! ([`PageDb::page_of`]) hears that there is no page, as of a frame beyond the last. The total, and all that is a share of it, is memory alone.
//!
//! - A1: an absent page is nameless, not free, on no list, unmapped, unclaimed, and in no total.
//! - A2: a frame that is asked for by number is taken from its list as any other; one that is in use stays where it is: nothing is moved.
//! - A3: of a run all frames are taken or none.
//!
//! # The other roads
//!
//! A segment of structures for each piece of memory, as illumos has (`memseg`): no structures for holes, but a search in place of the subtraction wherever a
//! translation leads to its page. A structure is 64 bytes: a hole of 1 GiB costs 16 MiB, which [`crate::PageDbConfig::frames`] spares where it is at the
//! end. Moving pages out of the way, as `page_get_contigpages` does: it finds a run where memory is in small pieces, and needs every holder of a frame's
//! number to let go of it; who wants long runs here takes them early, as drivers do.
//!
//! Sources: illumos `vm/seg_kmem.h`, `memseg`, `page_create_io`, `page_get_contigpages` (behaviour).

use super::{PageDb, Reserve};
use crate::cx::Cx;
use crate::error::{PageError, errno};
use crate::fail::FailKind;
use crate::heap;
use crate::page::{PageId, PageState};
use crate::selock::{ExclPage, LockedPage};
use crate::units::Pfn;
use alloc::vec::Vec;

/// Which frames are wanted side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contig {
    /// How many.
    pub count: u64,
    /// The first one's number is a multiple of this (0 is taken for 1).
    pub align: u64,
    /// None lies below this one.
    pub from: Pfn,
    /// All lie below this one.
    pub below: Pfn,
}

impl Contig {
    /// `count` frames, anywhere.
    pub const fn new(count: u64) -> Self {
        Self { count, align: 1, from: Pfn(0), below: Pfn(u64::MAX) }
    }
}

/// Why particular frames cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlaceError {
    /// The frame is not managed memory.
    #[error("frame {0} has no page")]
    NoPage(Pfn),
    /// The page is in use, out of service, or on its way from one list to another.
    #[error("frame {0} is not free")]
    NotFree(Pfn),
    /// So many frames side by side are nowhere free in the bounds given.
    #[error("no {} free frames side by side from {} to {}, at a multiple of {}", .0.count, .0.from, .0.below, .0.align)]
    NoRun(Contig),
    /// That would leave less memory than the reserve keeps back, or the heap has no room for the list.
    #[error(transparent)]
    Memory(#[from] PageError),
}

impl PlaceError {
    /// The number the textbook prints.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoPage(_) => errno::EINVAL,
            Self::NotFree(_) => errno::EBUSY,
            Self::NoRun(_) => errno::ENOMEM,
            Self::Memory(e) => e.errno(),
        }
    }
}

impl PageDb {
    /// The page of a frame, if the frame is managed memory.
    #[doc(alias("page_numtopp_nolock", "pf_is_memory"))]
    #[inline]
    pub fn page_of(&self, pfn: Pfn) -> Option<PageId> {
        let id = self.pages().of_pfn(pfn)?;
        if self.absent == 0 || !self.is_absent(id) { Some(id) } else { None }
    }
    fn is_absent(&self, id: PageId) -> bool {
        self.page(id).state().contains(PageState::ABSENT)
    }
    /// Frames between the first and the last that are no memory.
    pub fn absent_frames(&self) -> u64 {
        self.absent
    }

    /// The frame `pfn`, exclusively locked, without a name, contents undefined; a cached page gives up its name for it.
    ///
    /// # Errors
    /// [`PlaceError`]; nothing has changed. [`PlaceError::NotFree`] may be of the moment: another thread frees it, or looks at it.
    #[doc(alias("page_numtopp_alloc", "page_claim_contig_pages"))]
    pub fn alloc_at<'a>(
        &'a self,
        cx: &'a Cx,
        pfn: Pfn,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PlaceError> {
        let id = self.page_of(pfn).ok_or(PlaceError::NoPage(pfn))?;
        self.admit(cx, 1, reserve)?;
        self.drain_magazines(cx); // none is a list from which a particular frame can be had
        self.take_at(cx, id).ok_or(PlaceError::NotFree(pfn))
    }
    /// Frames side by side as `wanted` says, the lowest that are free or cached, exclusively locked, without names, contents undefined.
    ///
    /// They come back one by one, each by [`PageDb::free`]. A driver's buffer that lasts is marked [`PageDb::set_kernel`] ([`PageDb::set_device`], if users map it) and paid for by
    /// [`crate::free_mem::FreeMem::reserve_kernel`], as all memory of the kernel's.
    ///
    /// # Errors
    /// [`PlaceError`]; what was taken on the way is free again (A3).
    #[doc(alias("page_create_io", "page_get_contigpages", "contig_alloc"))]
    #[doc(alias("ddi_dma_mem_alloc", "ddi_dma_attr", "dma_attr_addr_hi", "dma_attr_align"))]
    pub fn alloc_contig<'a>(
        &'a self,
        cx: &'a Cx,
        wanted: Contig,
        reserve: Reserve,
    ) -> Result<Vec<ExclPage<'a>>, PlaceError> {
        self.admit(cx, wanted.count, reserve)?;
        let Ok(mut run) =
            usize::try_from(wanted.count).map_err(|_| heap::NoHeap).and_then(heap::room)
        else {
            return Err(self.no_memory(wanted.count).into());
        };
        self.drain_magazines(cx);
        let mut from = wanted.from;
        while let Some(first) = self.next_run(from, &wanted) {
            match self.take_run_at(cx, first, wanted.count, &mut run) {
                Ok(()) => return Ok(run),
                Err(taken) => from = Pfn(taken.0 + 1), // somebody was faster
            }
        }
        Err(PlaceError::NoRun(wanted))
    }
    /// Whether `pages` pages may be taken.
    fn admit(&self, cx: &Cx, pages: u64, reserve: Reserve) -> Result<(), PageError> {
        if cx.fails(FailKind::Frame) {
            return Err(self.no_memory(pages));
        }
        self.throttle(cx, pages, reserve)
    }
    /// The first frame at or after `from` with which a run can begin, by a look without locks.
    fn next_run(&self, from: Pfn, wanted: &Contig) -> Option<Pfn> {
        let (base, frames) = (self.mem().base().0, self.pages().len());
        let end = wanted.below.0.min(base + frames);
        let mut first = from.0.max(base);
        loop {
            first = first.checked_next_multiple_of(wanted.align.max(1))?;
            let last = first.checked_add(wanted.count)?;
            if last > end {
                return None;
            }
            // From the far end: what is in the way furthest back is what the next try must begin behind.
            let free = |n: u64| self.page_of(Pfn(n)).is_some_and(|id| self.page(id).is_free());
            match (first..last).rev().find(|n| !free(*n)) {
                None => return Some(Pfn(first)),
                Some(n) => first = n + 1,
            }
        }
    }
    /// Takes `count` frames from `first` on into `run`, which is empty and has room.
    ///
    /// # Errors
    /// The first frame that is not free any more; `run` is empty, and what it held is free.
    fn take_run_at<'a>(
        &'a self,
        cx: &'a Cx,
        first: Pfn,
        count: u64,
        run: &mut Vec<ExclPage<'a>>,
    ) -> Result<(), Pfn> {
        for n in first.0..first.0 + count {
            match self.page_of(Pfn(n)).and_then(|id| self.take_at(cx, id)) {
                Some(page) => run.push(page),
                None => {
                    run.drain(..).for_each(|page| self.free(cx, page, false));
                    return Err(Pfn(n));
                }
            }
        }
        Ok(())
    }
    /// Takes one particular page that is on a free or cache list, and whose lock is free or held by a look at a nameless page.
    fn take_at<'a>(&'a self, cx: &'a Cx, id: PageId) -> Option<ExclPage<'a>> {
        if self.free_list().take_this(cx, self.pages(), id) {
            return Some(self.take_frame(cx, id));
        }
        let page = self.try_lock_excl(cx, id)?;
        if !page.page().is_free() || !page.page().is_named() {
            return None;
        }
        // held: the page (exclusive), so it stays on its list
        self.uncache(cx, &page);
        self.hash_out(cx, &page);
        self.rouse(&page);
        self.mark_taken(cx, &page);
        Some(page)
    }
}
