//! Making a `seg_vn` segment: its arguments, and what all of them share.

use super::vpage::VPages;
use super::{Backing, FIRST_SLOT, SegVn};
use crate::anon::{AnonHome, AnonLayer, AnonMap, Homes};
use addr_space::{SegCreate, SegCx, SegError, SegKind, SegOps};
use alloc::boxed::Box;
use alloc::sync::Arc;
use page_db::sync::Once;
use page_db::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::{Cx, FileOffset, Prot, Vnode};

/// What fork does with the anon maps of private mappings. Nobody can tell by what memory holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum ForkPolicy {
    /// The child has slots of its own from the start, each anon one reference more.
    #[default]
    Eager,
    /// Parent and child share the map until either needs its own (`needs_copy`).
    Lazy,
}

/// What fork does with private pages that the parent has locked in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum LockedAtFork {
    /// They are shared like others: whoever stores first copies, and the lock follows the parent's page.
    #[default]
    Share,
    /// The child gets copies at once, and the parent keeps its pages and the right to store to them: it never faults on a page it has locked.
    #[doc(alias = "amap_cow_now")]
    Copy,
}

/// Numbers that steer all `seg_vn` segments of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnTunables {
    /// Pages mapped along below and above a fault under normal advice.
    pub ahead_normal: (u64, u64),
    /// The same under sequential advice.
    pub ahead_sequential: (u64, u64),
    /// Over a file, whatever the advice but random: the pages of the aligned window of so many that holds the fault; 0 for the
    /// windows above. A power of two keeps a window under one page table.
    #[doc(alias = "fault_around_bytes")]
    pub ahead_file: u64,
    /// What fork does with anon maps.
    pub fork: ForkPolicy,
    /// What it does with pages locked in memory.
    pub locked_at_fork: LockedAtFork,
    /// Pages of a file that a load fault which must read may read along, if the segment finds it sensible ([`addr_space::SegOps::kluster`]); 0 or 1 reads the
    /// page alone.
    #[doc(alias("PVN_GETPAGE_SZ", "klustsize"))]
    pub kluster: u64,
}

impl Default for VnTunables {
    /// UVM's windows: 3 back and 4 forward, 8 and 7 for sequential access (uvm.md 3.1). Over a file UVM's largest window of 16 pages: the textbook's
    /// fault takes a whole kluster of a file along, forwards.
    fn default() -> Self {
        Self {
            ahead_normal: (3, 4),
            ahead_sequential: (8, 7),
            ahead_file: 16,
            fork: ForkPolicy::Eager,
            locked_at_fork: LockedAtFork::Share,
            kluster: 0,
        }
    }
}

/// What all `seg_vn` segments of a machine share.
#[derive(Debug)]
pub struct VnDriver {
    pub(super) layer: Arc<AnonLayer>,
    homes: Homes,
    pub(super) tunables: VnTunables,
    /// Pages in shadow lists, each charged to memory that may be locked (B1).
    pub(super) pinned: AtomicU64,
}

impl VnDriver {
    /// A driver over `layer`.
    pub fn new(layer: &Arc<AnonLayer>, tunables: VnTunables) -> Arc<Self> {
        Arc::new(Self {
            layer: Arc::clone(layer),
            homes: Homes::new(layer),
            tunables,
            pinned: AtomicU64::new(0),
        })
    }
    /// Where a new anon map is made on the CPU that `cx` runs on.
    #[must_use]
    pub fn home(&self, cx: &Cx) -> &Arc<AnonHome> {
        self.homes.mine(cx)
    }
    /// Pages that are pinned by shadow lists now ([`addr_space::SegOps::lock_pages`]): each is charged to the memory that may be locked.
    pub fn pinned_pages(&self) -> u64 {
        self.pinned.load(Ordering::Acquire)
    }
    /// The anonymous layer.
    pub fn layer(&self) -> &Arc<AnonLayer> {
        &self.layer
    }
}

/// Arguments for a new segment; `zfod` is the canned block for private zero-filled memory.
#[doc(alias("segvn_crargs", "zfod_argsp"))]
#[derive(Debug)]
pub struct SegVnArgs {
    /// What all segments of the machine share.
    pub driver: Arc<VnDriver>,
    /// The file, or `None` for anonymous memory.
    pub vnode: Option<Arc<dyn Vnode>>,
    /// Where in the file, or in the object of the anon map, the segment starts; page-aligned.
    pub offset: FileOffset,
    /// Rights.
    pub prot: Prot,
    /// Ceiling for later changes.
    pub max_prot: Prot,
    /// `SHARED`, `NORESERVE`, `TEXT`, `INITDATA`.
    pub kind: SegKind,
    /// An anon map to share (System V memory), from slot `offset` (in pages) on. The mapping must be `SHARED`, and end no later than the object that the map was
    /// made for ([`AnonMap::new`]), as far as the map's users still have that.
    pub amp: Option<Arc<AnonMap>>,
}

impl SegVnArgs {
    /// Private, zero-filled on demand.
    #[doc(alias = "zfod_argsp")]
    pub fn zfod(driver: &Arc<VnDriver>, prot: Prot) -> Self {
        Self {
            driver: Arc::clone(driver),
            vnode: None,
            offset: FileOffset(0),
            prot,
            max_prot: Prot::RWX,
            kind: SegKind::empty(),
            amp: None,
        }
    }
    fn invalid(scx: &SegCx<'_>, what: &'static str) -> SegError {
        SegError::Invalid { driver: "seg_vn", what, range: scx.seg }
    }
    fn check(&self, scx: &SegCx<'_>) -> Result<(), SegError> {
        if self.vnode.is_some() && self.amp.is_some() {
            return Err(Self::invalid(scx, "both a vnode and an anon map"));
        }
        if self.amp.is_some() && !self.kind.contains(SegKind::SHARED) {
            // Stores into it would not be private: its anons have one reference each.
            return Err(Self::invalid(scx, "an anon map can only be mapped shared"));
        }
        if !core::ptr::eq(self.driver.layer.db(), scx.db) {
            return Err(Self::invalid(scx, "another machine's driver"));
        }
        if self.vnode.as_ref().is_some_and(|vnode| !scx.db.vnodes().is_object(&**vnode)) {
            return Err(Self::invalid(scx, "an object that this machine does not have"));
        }
        if self.amp.as_ref().is_some_and(|amp| !core::ptr::eq(amp.layer(), &*self.driver.layer)) {
            return Err(Self::invalid(scx, "an anon map of another machine"));
        }
        if !self.offset.is_page_aligned() {
            return Err(Self::invalid(scx, "misaligned file offset"));
        }
        match self.offset.0.checked_add(scx.seg.len()) {
            Some(end) if end <= i64::MAX as u64 => {}
            _ => return Err(Self::invalid(scx, "file offset too large")),
        }
        if !self.max_prot.contains(self.prot) {
            return Err(SegError::Access { range: scx.seg });
        }
        Ok(())
    }
}

impl SegCreate for SegVnArgs {
    #[doc(alias = "segvn_create")]
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        self.check(scx)?;
        let shared = self.kind.contains(SegKind::SHARED);
        let kind = if shared { self.kind.difference(SegKind::NORESERVE) } else { self.kind };
        let bytes = scx.seg.len();
        // Reserved now: anonymous memory, and private mappings that can be stored to; unless told not to.
        let anonymous = self.vnode.is_none() && self.amp.is_none();
        let wanted = anonymous || (!shared && self.prot.contains(Prot::WRITE));
        let reserve = if wanted && !kind.contains(SegKind::NORESERVE) { bytes } else { 0 };
        let held = self
            .driver
            .layer
            .swap()
            .take(bytes_to_pages(reserve))
            .map_err(|_| SegError::NoSwap { range: scx.seg, bytes: reserve })?;
        if let Some(vnode) = &self.vnode {
            vnode.add_map(scx.cx, self.offset, scx.seg.pages().get())?;
        }
        let amap = Once::new();
        let mut own = reserve;
        let mut index = FIRST_SLOT;
        if let Some(amp) = &self.amp {
            index = bytes_to_pages(self.offset.0);
            let gained = amp.gain_object(scx.cx, index..index + scx.seg.pages().get());
            if !gained.map_err(|_| SegError::NoMemory { range: scx.seg })? {
                return Err(Self::invalid(scx, "the anon map does not reach as far"));
            }
            let _ = amap.set(Arc::clone(amp));
        } else if shared && anonymous {
            // Shared memory has its map from the start, and the map has the reservation.
            let _ = amap.set(AnonMap::new(self.driver.home(scx.cx), reserve));
            own = 0;
            index = 0;
        }
        held.keep();
        Ok(Box::new(SegVn {
            backing: self.vnode.as_ref().map(|v| Backing::new(v, self.offset.0)),
            amap,
            amp_index: AtomicU64::new(index),
            swresv: AtomicU64::new(own),
            max_prot: self.max_prot,
            kind,
            ..SegVn::bare(&self.driver, self.prot)
        }))
    }
    fn may_merge(&self) -> bool {
        self.amp.is_none()
    }
}

impl SegVn {
    /// A private segment without layers and promises.
    pub(super) fn bare(driver: &Arc<VnDriver>, prot: Prot) -> Self {
        Self {
            driver: Arc::clone(driver),
            backing: None,
            amap: Once::new(),
            amp_index: AtomicU64::new(FIRST_SLOT),
            swresv: AtomicU64::new(0),
            seq: AtomicU32::new(0),
            softlocks: AtomicU32::new(0),
            pinned_shared: AtomicBool::new(false),
            prot: AtomicU8::new(prot.bits()),
            max_prot: Prot::RWX,
            kind: SegKind::empty(),
            advice: AtomicU8::new(0),
            vpaged: AtomicU8::new(0),
            lasting: AtomicU8::new(0),
            needs_copy: AtomicBool::new(false),
            lock: Self::lock_over(VPages::default()),
        }
    }
}

/// Whole pages in a byte count that is a multiple of the page size.
pub(super) fn bytes_to_pages(bytes: u64) -> u64 {
    bytes / page_db::PAGE_SIZE
}
