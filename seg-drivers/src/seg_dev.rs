//! `seg_dev`: the frames of a device, mapped as they are.
//!
//! A device's frames have no page structures, no identity and no copy-on-write: a translation is a frame number and rights. So the driver has no
//! layers and asks the device one question, which frame lies at an offset: of every page when the range is mapped, so that a hole in the device
//! is the mapper's error and not a later fault's, and again at each fault, for a device may take a page back. Translations carry the segment's
//! rights from the start, hence a protection fault is always an error.
//!
//! What has no page structure is unlocked and on no list, so nobody would flush it when the frame got another use. Hence a frame that the page database gives out
//! to whoever asks is as absent as none (D3). One that it has given to the device, and is marked as given, is the device's to keep for as long as it answers it.
//! That a frame is the kernel's is no such mark: page tables are, and whoever stored into one would map what he likes.
//!
//! - D1: `offset` follows the segment's base; it changes under the address-space lock as writer.
//! - D2: rights are read and loaded, and changed together with the translations, under the lock of `prots`. There is no copy to decide about
//!   and no memory to wait for but tables, so a fault may take it.
//! - D3: what is loaded is no frame of memory but one marked as given to a device, and its address is a number.
//!
//! Sources: illumos `vm/seg_dev.c` (behaviour); illumos.md 10.

use crate::runs::{Runs, run_range, vpns};
use addr_space::{
    FaultError, FaultKind, HatError, InCore, Join, LoadFlags, MemId, Remnant, SegCreate, SegCx,
    SegDetail, SegError, SegKind, SegOps, UnloadFlags,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use page_db::{
    Access, FileOffset, PAGE_SIZE, PageDb, PageState, Pfn, Prot, Rank, VirtAddr, VirtRange, errno,
};

/// A device whose memory can be mapped.
#[doc(alias = "d_mmap")]
pub trait DeviceMemory: fmt::Debug + Send + Sync {
    /// A name for views.
    fn name(&self) -> String;
    /// How many pages can be mapped.
    fn pages(&self) -> u64;
    /// The frame of page `index`, or `None` where the device has none. It lies outside what the page database manages, or the device has got it there and
    /// marked it with [`PageDb::set_device`]; any other is as absent.
    fn frame(&self, index: u64) -> Option<Pfn>;
    /// The first of `pages` pages from `first` on that has no frame, or none that `may` be mapped, asked when they are mapped. The default asks for each; a device
    /// that knows where its frames are may answer at once.
    fn first_absent(&self, first: u64, pages: u64, may: &dyn Fn(Pfn) -> bool) -> Option<u64> {
        let absent = |index: &u64| self.frame(*index).is_none_or(|frame| !may(frame));
        (first..first.saturating_add(pages)).find(absent)
    }
}

const _: Option<&dyn DeviceMemory> = None; // used as an object everywhere; stays one

/// Arguments for a new segment.
#[doc(alias = "segdev_crargs")]
#[derive(Debug)]
pub struct SegDevArgs {
    /// The device.
    pub device: Arc<dyn DeviceMemory>,
    /// Offset of the first page; page-aligned.
    pub offset: FileOffset,
    /// Rights.
    pub prot: Prot,
    /// Ceiling for later changes.
    pub max_prot: Prot,
    /// Must be `SHARED`: a device's frames cannot be copied on write.
    pub kind: SegKind,
}

/// One `seg_dev` segment.
#[doc(alias = "segdev_data")]
#[derive(Debug)]
pub struct SegDev {
    device: Arc<dyn DeviceMemory>,
    offset: AtomicU64,
    max_prot: Prot,
    softlocks: AtomicU32,
    /// Rights by virtual page number.
    prots: Mutex<Runs<Prot>>,
}

impl SegCreate for SegDevArgs {
    /// # Errors
    /// [`SegError::Invalid`], [`SegError::Access`]; [`SegError::NoDevicePage`] where the device ends, or refuses.
    #[doc(alias = "segdev_create")]
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        let invalid = |what| SegError::Invalid { driver: "seg_dev", what, range: scx.seg };
        if !self.kind.contains(SegKind::SHARED) {
            return Err(invalid("device memory can only be mapped shared"));
        }
        if !self.offset.is_page_aligned() {
            return Err(invalid("misaligned device offset"));
        }
        if !self.max_prot.contains(self.prot) {
            return Err(SegError::Access { range: scx.seg });
        }
        let (first, pages) = (self.offset.page_index(), scx.seg.pages().get());
        let all = self.device.pages().min(u64::MAX / PAGE_SIZE); // offsets are in bytes
        let absent = match first + pages > all {
            true => Some(first.max(all)),
            false => self.device.first_absent(first, pages, &|frame| may_map(scx.db, frame)),
        };
        if let Some(index) = absent {
            let offset = FileOffset(index * PAGE_SIZE);
            return Err(SegError::NoDevicePage { driver: "seg_dev", offset });
        }
        let prots = Runs::of(Prot::empty(), vpns(scx.seg), self.prot);
        Ok(Box::new(SegDev {
            device: Arc::clone(&self.device),
            offset: AtomicU64::new(self.offset.0),
            max_prot: self.max_prot,
            softlocks: AtomicU32::new(0),
            prots: Mutex::new(Rank::SegPrivate, prots),
        }))
    }
    fn may_merge(&self) -> bool {
        false
    }
}

/// D3.
fn may_map(db: &PageDb, frame: Pfn) -> bool {
    let given = |id| db.page(id).state().contains(PageState::DEVICE);
    frame.0 <= u64::MAX / PAGE_SIZE && db.page_of(frame).is_none_or(given)
}

impl SegDev {
    fn frame_at(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Pfn> {
        let first = self.offset.load(Ordering::Acquire) / PAGE_SIZE;
        let frame = self.device.frame(first + scx.seg.page_index(addr));
        frame.filter(|frame| may_map(scx.db, *frame))
    }
    fn load(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
        flags: LoadFlags,
    ) -> Result<(), FaultError> {
        let prots = self.prots.lock(scx.cx); // D2
        for addr in range.iter_pages() {
            let prot = prots.get(addr.vpn());
            if !prot.allows(access) {
                return Err(FaultError::Prot { addr, access });
            }
            let pfn = self.frame_at(scx, addr).ok_or(FaultError::NoMap { addr })?;
            let page = VirtRange::page_of(addr);
            scx.hat.devload(scx.cx, page, pfn, prot, flags | LoadFlags::NOCONSIST).map_err(
                |e| match e {
                    HatError::NoMemory { .. } => FaultError::NoMemory { addr },
                    _ => FaultError::Object { addr, errno: errno::EFAULT },
                },
            )?;
        }
        Ok(())
    }
    /// Locks the translations of `range`, all of them or none.
    fn soft_lock(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), FaultError> {
        let no_room = FaultError::Object { addr: range.start(), errno: errno::ENOMEM };
        let pages = u32::try_from(range.pages().get()).map_err(|_| no_room)?;
        {
            // Counted first, under the lock: a change of rights holds it until the translations are changed.
            let _publishers = self.prots.lock(scx.cx);
            let more = |pins: u32| pins.checked_add(pages);
            let counted = self.softlocks.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
            counted.map_err(|_| no_room)?;
        }
        for addr in range.iter_pages() {
            let page = VirtRange::page_of(addr);
            if let Err(e) = self.load(scx, page, access, LoadFlags::LOCK) {
                if let Some(before) = range.until(addr.get()) {
                    scx.hat.unlock(scx.cx, before);
                }
                self.unpinned(scx, pages);
                return Err(e);
            }
        }
        Ok(())
    }
    fn unpinned(&self, scx: &SegCx<'_>, pages: u32) {
        let left = self
            .softlocks
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(pages));
        if left == Ok(pages) {
            scx.space.pins_released(scx.db.waits());
        }
    }
    /// A driver for `part` of the segment, a child's or what lies above a hole, with the rights of its pages.
    fn cut(&self, scx: &SegCx<'_>, part: VirtRange, theirs: Runs<Prot>) -> Self {
        let delta = part.start().get() - scx.seg.start().get();
        Self {
            device: Arc::clone(&self.device),
            offset: AtomicU64::new(self.offset.load(Ordering::Acquire) + delta),
            max_prot: self.max_prot,
            softlocks: AtomicU32::new(0),
            prots: Mutex::new(Rank::SegPrivate, theirs),
        }
    }
}

impl SegOps for SegDev {
    fn driver(&self) -> &'static str {
        "seg_dev"
    }
    #[doc(alias = "segdev_dup")]
    fn dup(&self, scx: &SegCx<'_>, child: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        let prots = self.prots.lock(scx.cx).part(vpns(child.seg));
        let prots = prots.map_err(|_| SegError::NoMemory { range: child.seg })?;
        Ok(Box::new(self.cut(scx, child.seg, prots)))
    }
    #[doc(alias = "segdev_unmap")]
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        scx.check_writer("seg_dev", range)?;
        if self.softlocks.load(Ordering::Acquire) != 0 {
            return Err(SegError::Pinned { range });
        }
        let (below, above) = (scx.seg.until(range.start().get()), scx.seg.from(range.end()));
        let no_room = |_| SegError::NoMemory { range };
        let mut theirs = Runs::new(Prot::empty());
        {
            let mut prots = self.prots.lock(scx.cx);
            // All of it goes with the driver, and cannot be refused.
            if below.is_some() || above.is_some() {
                prots.make_room(vpns(range)).map_err(no_room)?;
            }
            if let (Some(_), Some(high)) = (below, above) {
                theirs = prots.part(vpns(high)).map_err(no_room)?;
            }
        }
        // Nothing fails from here on.
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP | UnloadFlags::NOSYNC);
        if below.is_some() || above.is_some() {
            let mut prots = self.prots.lock(scx.cx);
            prots.set(vpns(range), Prot::empty());
            if let (Some(_), Some(high)) = (below, above) {
                prots.set(vpns(high), Prot::empty());
            }
            prots.trim(); // the room was for all of these changes
        }
        Ok(match (below, above) {
            (None, None) => Remnant::Nothing,
            (Some(_), None) => Remnant::Low,
            (None, Some(high)) => {
                self.offset.fetch_add(high.start().get() - scx.seg.start().get(), Ordering::AcqRel);
                Remnant::High
            }
            (Some(_), Some(high)) => Remnant::Both(Box::new(self.cut(scx, high, theirs))),
        })
    }
    #[doc(alias = "segdev_fault")]
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        match kind {
            FaultKind::Prot => Err(FaultError::Prot { addr: range.start(), access }),
            FaultKind::Invalid => self.load(scx, range, access, LoadFlags::empty()),
            FaultKind::SoftLock => self.soft_lock(scx, range, access),
            FaultKind::SoftUnlock => {
                let pages = u32::try_from(range.pages().get()).unwrap_or(u32::MAX);
                // What was not locked is left alone: the tables may be locked for others.
                if pages <= self.softlocks.load(Ordering::Acquire) {
                    scx.hat.unlock(scx.cx, range);
                    self.unpinned(scx, pages);
                }
                Ok(())
            }
        }
    }
    #[doc(alias = "segdev_setprot")]
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        let prot = prot.difference(Prot::USER);
        if !self.max_prot.contains(prot) {
            return Err(SegError::Access { range });
        }
        let mut prots = self.prots.lock(scx.cx);
        if self.softlocks.load(Ordering::Acquire) != 0 {
            return Err(SegError::Pinned { range });
        }
        prots.make_room(vpns(range)).map_err(|_| SegError::NoMemory { range })?;
        prots.set(vpns(range), prot);
        prots.trim();
        scx.hat.chg_prot(scx.cx, range, prot); // with the lock held (D2): of two changes the later one has the last word in both
        Ok(())
    }
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        let mut rest = vpns(range);
        while !rest.is_empty() {
            let (run, prot) = self.prots.lock(scx.cx).first_of(rest.clone());
            rest.start = run.end;
            f(run_range(range, &run), prot);
        }
    }
    fn incore(&self, _scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        let n = range.pages().get().min(out.len() as u64) as usize;
        out[..n].fill(InCore::INCORE.bits());
        n
    }
    fn offset(&self, scx: &SegCx<'_>, addr: VirtAddr) -> FileOffset {
        FileOffset(
            self.offset.load(Ordering::Acquire) + (addr.page_floor().get() - scx.seg.start().get()),
        )
    }
    fn kind(&self) -> SegKind {
        SegKind::SHARED
    }
    /// The frame and the offset in it: whoever maps the frame maps the same memory, by whatever name the device has.
    #[doc(alias = "segdev_getmemid")]
    fn mem_id(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<MemId, SegError> {
        let none = SegError::NoIdentity { driver: self.driver() };
        let frame = self.frame_at(scx, addr).ok_or(none)?;
        Ok(MemId(3 << 62, frame.0 * PAGE_SIZE + addr.page_offset()))
    }
    fn concat(
        &self,
        _scx: &SegCx<'_>,
        _next_range: VirtRange,
        _next: &dyn SegOps,
        _join: Join,
    ) -> bool {
        false
    }
    fn detail(&self, scx: &SegCx<'_>) -> SegDetail {
        SegDetail {
            name: format!("[ {} ]", self.device.name()),
            prot: self.prots.lock(scx.cx).get(scx.seg.start().vpn()),
            max_prot: self.max_prot,
            offset: FileOffset(self.offset.load(Ordering::Acquire)),
            softlocks: u64::from(self.softlocks.load(Ordering::Acquire)),
            ..SegDetail::default()
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
