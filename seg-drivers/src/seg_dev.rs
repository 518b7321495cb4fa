//! `seg_dev`: the frames of a device, mapped as they are.
//!
//! A device's frames have no page structures, no identity and no copy-on-write: a translation is a frame number and rights. So the driver has no
//! layers and asks the device one question, which frame lies at an offset. Translations carry the segment's rights from the start, hence a
//! protection fault is always an error.
//!
//! - D1: `offset` follows the segment's base; it changes under the address-space lock as writer.
//! - D2: rights are published under a sequence number, as in [`crate::seg_vn`]; device loads are made under `lock`, so a change that comes
//!   after finds them.
//!
//! Sources: illumos `vm/seg_dev.c` (behaviour); illumos.md 10.

use crate::runs::Runs;
use addr_space::{
    FaultError, FaultKind, HatError, InCore, Join, LoadFlags, Remnant, SegCreate, SegCx, SegDetail,
    SegError, SegKind, SegOps, UnloadFlags,
};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use page_db::{Access, FileOffset, PAGE_SIZE, Pfn, Prot, Rank, VirtAddr, VirtRange, errno};

/// A device whose memory can be mapped.
#[doc(alias = "d_mmap")]
pub trait DeviceMemory: fmt::Debug + Send + Sync {
    /// A name for views.
    fn name(&self) -> String;
    /// How many pages can be mapped.
    fn pages(&self) -> u64;
    /// The frame of page `index`, or `None` where the device has none.
    fn frame(&self, index: u64) -> Option<Pfn>;
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

fn vpns(range: VirtRange) -> core::ops::Range<u64> {
    let first = range.start().vpn();
    first..first + range.pages().get()
}

impl SegCreate for SegDevArgs {
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
        let first = self.offset.page_index();
        let pages = scx.seg.pages().get();
        if first.checked_add(pages).is_none_or(|end| end > self.device.pages()) {
            return Err(SegError::Fault(FaultError::Object {
                addr: scx.seg.start(),
                errno: errno::ENXIO,
            }));
        }
        let mut prots = Runs::new(Prot::empty());
        prots.set(vpns(scx.seg), self.prot);
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

impl SegDev {
    fn frame_at(&self, seg: VirtRange, addr: VirtAddr) -> Option<Pfn> {
        self.device.frame(self.offset.load(Ordering::Acquire) / PAGE_SIZE + seg.page_index(addr))
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
            let pfn = self.frame_at(scx.seg, addr).ok_or(FaultError::NoMap { addr })?;
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
    fn cut(&self, scx: &SegCx<'_>, high: VirtRange) -> Self {
        let mut mine = self.prots.lock(scx.cx);
        let mut theirs = Runs::new(Prot::empty());
        theirs.absorb(&mine);
        theirs.set(0..high.start().vpn(), Prot::empty());
        mine.set(vpns(high), Prot::empty());
        let delta = high.start().get() - scx.seg.start().get();
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
    fn dup(&self, scx: &SegCx<'_>, _child: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        let prots = self.prots.lock(scx.cx).clone();
        Ok(Box::new(Self {
            device: Arc::clone(&self.device),
            offset: AtomicU64::new(self.offset.load(Ordering::Acquire)),
            max_prot: self.max_prot,
            softlocks: AtomicU32::new(0),
            prots: Mutex::new(Rank::SegPrivate, prots),
        }))
    }
    #[doc(alias = "segdev_unmap")]
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        if self.softlocks.load(Ordering::Acquire) != 0 {
            return Err(SegError::Pinned { range });
        }
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP | UnloadFlags::NOSYNC);
        self.prots.lock(scx.cx).set(vpns(range), Prot::empty());
        Ok(match (scx.seg.until(range.start().get()), scx.seg.from(range.end())) {
            (None, None) => Remnant::Nothing,
            (Some(_), None) => Remnant::Low,
            (None, Some(high)) => {
                self.offset.fetch_add(high.start().get() - scx.seg.start().get(), Ordering::AcqRel);
                Remnant::High
            }
            (Some(_), Some(high)) => Remnant::Both(Box::new(self.cut(scx, high))),
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
        let pages = u32::try_from(range.pages().get()).unwrap_or(u32::MAX);
        match kind {
            FaultKind::Prot => Err(FaultError::Prot { addr: range.start(), access }),
            FaultKind::Invalid => self.load(scx, range, access, LoadFlags::empty()),
            FaultKind::SoftLock => {
                self.load(scx, range, access, LoadFlags::LOCK)?;
                self.softlocks.fetch_add(pages, Ordering::AcqRel);
                Ok(())
            }
            FaultKind::SoftUnlock => {
                scx.hat.unlock(scx.cx, range);
                let left = self
                    .softlocks
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(pages));
                if left == Ok(pages) {
                    scx.space.pins_released(scx.db.waits());
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
        if self.softlocks.load(Ordering::Acquire) != 0 {
            return Err(SegError::Pinned { range });
        }
        self.prots.lock(scx.cx).set(vpns(range), prot);
        scx.hat.chg_prot(scx.cx, range, prot);
        Ok(())
    }
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        for (run, prot) in self.prots.lock(scx.cx).iter(vpns(range)) {
            let start = range.page_at(run.start - range.start().vpn());
            if let Ok(r) = VirtRange::exact(start.get(), (run.end - run.start) * PAGE_SIZE) {
                f(r, prot);
            }
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
