//! Free pages without identity: lists by page size and colour, and a magazine of frames for each CPU.
//!
//! ```text
//!   page_freelists[szc][bin]     szc 0 only for now; bin = colour = low bits of the frame number
//!   magazine[cpu]                frames taken from the lists in batches; still free, still counted in freemem
//! ```
//!
//! A fault takes its frame from its CPU's magazine and writes no line another fault writes. A magazine holds at most frames / (8 x CPUs),
//! none on machines under 256 frames, and is drained before an allocation fails or page-out starts. Frames wait in the
//! order of their addresses at boot, so batches come in runs.
//!
//! - F1: a free page has no vnode, `P_FREE`, and is on exactly one list or in one magazine.
//!
//! Sources: [SI §10.2.7]; illumos.md 7.5.

use crate::cx::Cx;
use crate::lists::Bins;
use crate::lock::Rank;
use crate::page::{PageArray, PageId};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Mutex, PerCpu};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Page sizes that lists exist for.
const SIZES: usize = 1;
/// Frames a magazine takes at once.
const BATCH: usize = 16;

#[derive(Debug)]
struct Magazine {
    frames: Mutex<Vec<PageId>>,
    count: AtomicU32,
}

/// The free lists.
#[doc(alias = "page_freelists")]
#[derive(Debug)]
pub struct FreeList {
    sizes: Box<[Bins]>,
    magazines: PerCpu<Magazine>,
    magazine_size: usize,
}

impl FreeList {
    pub(crate) fn new(frames: u64, cpus: u16, colours: u32) -> Self {
        let share = frames / (8 * u64::from(cpus.max(1)));
        let magazine_size = if frames < 256 { 0 } else { share.min(64) as usize };
        Self {
            sizes: (0..SIZES).map(|_| Bins::new(colours)).collect(),
            magazines: PerCpu::new(cpus, |_| Magazine {
                frames: Mutex::new(Rank::FreeList, Vec::new()),
                count: AtomicU32::new(0),
            }),
            magazine_size,
        }
    }
    /// Free frames, on lists and in magazines.
    pub fn count(&self) -> u64 {
        self.sizes[0].total() + self.in_magazines()
    }
    /// Free frames that wait in magazines.
    pub fn in_magazines(&self) -> u64 {
        self.magazines.iter().map(|m| u64::from(m.count.load(Relaxed))).sum()
    }
    /// Number of colours.
    pub fn colours(&self) -> u64 {
        self.sizes[0].colours()
    }
    /// A frame from this CPU's magazine.
    #[inline]
    pub(crate) fn take_magazine(&self, cx: &Cx) -> Option<PageId> {
        if self.magazine_size == 0 {
            return None;
        }
        let m = self.magazines.mine(cx);
        let mut frames = m.frames.lock(cx);
        let id = frames.pop();
        m.count.store(frames.len() as u32, Relaxed);
        id
    }
    /// A frame from the lists, of the wanted colour if possible; with `stock` the magazine is filled along the way.
    pub(crate) fn take(
        &self,
        cx: &Cx,
        pages: &PageArray,
        colour: u64,
        stock: bool,
    ) -> Option<PageId> {
        let id = self.sizes[0].pop(cx, pages, colour)?;
        if stock && self.magazine_size > 0 {
            let want = BATCH.min(self.magazine_size);
            let mut batch = Vec::with_capacity(want);
            // Popped in ascending order of colour, pushed in reverse: the magazine hands them out ascending.
            let next = pages.pfn(id).0 + 1;
            batch.extend((0..want as u64).map_while(|i| self.sizes[0].pop(cx, pages, next + i)));
            let m = self.magazines.mine(cx);
            let mut frames = m.frames.lock(cx);
            frames.extend(batch.into_iter().rev());
            m.count.store(frames.len() as u32, Relaxed);
        }
        Some(id)
    }
    /// Puts a nameless page back: into this CPU's magazine while it has room and `stock` allows, else at the tail of its list.
    pub(crate) fn add(&self, cx: &Cx, pages: &PageArray, id: PageId, stock: bool) {
        if stock && self.magazine_size > 0 {
            let m = self.magazines.mine(cx);
            let mut frames = m.frames.lock(cx);
            if frames.len() < self.magazine_size {
                frames.push(id);
                m.count.store(frames.len() as u32, Relaxed);
                return;
            }
        }
        self.sizes[0].add(cx, pages, id, false);
    }
    /// Empties every magazine onto the lists.
    pub(crate) fn drain(&self, cx: &Cx, pages: &PageArray) {
        for m in self.magazines.iter() {
            let frames = {
                let mut f = m.frames.lock(cx);
                m.count.store(0, Relaxed);
                core::mem::take(&mut *f)
            };
            for id in frames {
                self.sizes[0].add(cx, pages, id, false);
            }
        }
    }
    /// The lists by colour, for checks and views.
    pub(crate) fn snapshot(&self, cx: &Cx, pages: &PageArray) -> Vec<Vec<PageId>> {
        self.sizes[0].snapshot(cx, pages)
    }
    /// The magazines by CPU, for checks and views.
    pub(crate) fn magazines(&self, cx: &Cx) -> Vec<Vec<PageId>> {
        self.magazines.iter().map(|m| m.frames.lock(cx).clone()).collect()
    }
}
