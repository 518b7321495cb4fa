//! `seg_vn`: files and anonymous memory, private and shared.
//!
//! # Two layers
//!
//! A segment has at most two layers. Above, an anon map: sparse pages of the segment's own. Below, a vnode. A page is looked for above
//! first; where the slot is empty, below; where nothing is below, it is zeros.
//!
//! | above | below | what it is |
//! |---|---|---|
//! | - | - | private anonymous memory not touched yet, or reserved address space |
//! | anon map | - | anonymous memory, private or shared |
//! | - | vnode | a file, shared; or private and not yet stored to |
//! | anon map | vnode | a private file mapping with copies ("anonymous on vnode") |
//!
//! # What a fault may read without a lock
//!
//! A fault holds the address-space lock as reader, which keeps dup, unmap and splits away, and takes no lock of the segment. What may change
//! beside it is published:
//!
//! - S1: `prot` and the per-page rights change between an odd and an even `seq`, and translations are changed *after* the even one. A fault
//!   reads `seq` first, and the hat compares it under the table's lock ([`addr_space::Stamp`]).
//! - S2: the anon map is set once (and replaced only with nobody in the address space: `own`), over a file between an odd and an even `seq`: whoever finds it knows that a fault which found none cannot load a
//!   translation of the lower layer any more.
//! - S3: a private file page is mapped from below only with the slot held busy, or with a stamp on the map's own sequence number while the chunk
//!   does not exist.
//! - S4: `offset`, `amp_index` and the reservation follow the segment's geometry: they change under the address-space lock as writer.
//!
//! `lock` (rank SegPrivate) serialises those who publish; a fault takes it only when per-page state exists, to make the map over a file, or to pin.
//!
//! # Invariants
//!
//! - I2/I14: a page of an anon with several references, or of the file under a private mapping, is never mapped writable.
//! - J1-J3: what several segments share for good (`joint.rs`).
//! - I7: a segment that shares its map lazily is private, adds nothing to the map and maps none of its pages writable (`own`).
//! - I12: `swresv` is what this segment has reserved; for shared anonymous memory the map has it.
//!
//! Sources: [SI §9.4-9.7]; [UVM §4, §5]; illumos.md 4, uvm.md 1-4.

mod advise;
mod ahead;
mod args;
mod borrow;
mod concat;
mod discard;
mod dup;
mod extract;
mod fault;
mod incore;
mod inherit;
mod joint;
mod lend;
mod lock;
mod lower;
mod own;
mod populate;
mod protect;
mod reserve;
mod softlock;
mod sync;
#[cfg(all(test, not(shuttle)))]
pub(crate) mod tests;
mod unmap;
mod upper;
mod vpage;

#[doc(alias = "segvn_crargs")]
pub use args::SegVnArgs;
pub use args::{ForkPolicy, LockedAtFork, VnDriver, VnTunables};
pub use borrow::LentAnons;
#[doc(alias = "struct vpage")]
pub use vpage::VPage;
use vpage::VPages;

use crate::anon::AnonMap;
use crate::runs::{run_range, vpns};
use addr_space::{
    Advice, Borrower, Extract, FaultError, FaultKind, Inherit, Join, Leaving, LockOp, MemId,
    NewlyLocked, PageList, Remnant, Residency, SegCx, SegDetail, SegError, SegKind, SegOps,
    SyncFlags,
};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::ops::Range;
use page_db::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use page_db::sync::{Mutex, Once};
use page_db::{Access, FileOffset, PAGE_SIZE, Prot, Rank, VirtAddr, VirtRange, Vnode};

/// Slot number of the first page of a fresh private map: far from both ends, so that the map can grow either way.
pub const FIRST_SLOT: u64 = 1 << 40;

/// What several threads may change, behind the segment's lock.
#[derive(Debug)]
struct Private {
    /// Per-page rights, advice, locks and reservation, by virtual page number.
    vpage: VPages,
}

/// The lower layer.
#[derive(Debug)]
struct Backing {
    vnode: Arc<dyn Vnode>,
    /// Byte offset of the segment's first page (S4).
    offset: AtomicU64,
}

impl Backing {
    fn new(vnode: &Arc<dyn Vnode>, offset: u64) -> Box<Self> {
        Box::new(Self { vnode: Arc::clone(vnode), offset: AtomicU64::new(offset) })
    }
}

/// A page had state of its own, or was to be locked in memory: illumos has an array for such state from then on.
const NOTED: u8 = 1;
/// Private memory is called by the map and the place in it, not by its address ([`advise::mem_id`]).
const NAMED: u8 = 2;

/// One `seg_vn` segment. There are as many as mappings, so what only some have (a file, per-page state) lies behind a pointer.
#[doc(alias("segvn_data", "svd", "vm_map_entry"))]
#[derive(Debug)]
pub struct SegVn {
    driver: Arc<VnDriver>,
    backing: Option<Box<Backing>>,
    amap: Once<Arc<AnonMap>>,
    /// Slot of the segment's first page (S4).
    amp_index: AtomicU64,
    /// Bytes reserved by this segment (private mappings).
    swresv: AtomicU64,
    seq: AtomicU32,
    softlocks: AtomicU32,
    /// Since there were no pins, pages have been pinned that a store has to copy ([`SegVn::is_pinned_as`]). Changes under `lock`.
    pinned_shared: AtomicBool,
    prot: AtomicU8,
    max_prot: Prot,
    kind: SegKind,
    advice: AtomicU8,
    /// Whether any page has state of its own; read under a stamp.
    vpaged: AtomicU8,
    /// What stays once it is so: [`NOTED`], [`NAMED`].
    lasting: AtomicU8,
    /// The anon map is shared with another side of a fork until one of them needs its own (O1). Changes under the address-space lock as writer.
    needs_copy: AtomicBool,
    lock: Mutex<Private>,
}

impl SegVn {
    fn shared(&self) -> bool {
        self.kind.contains(SegKind::SHARED)
    }
    fn noreserve(&self) -> bool {
        self.kind.contains(SegKind::NORESERVE)
    }
    fn prot(&self) -> Prot {
        Prot::from_bits_truncate(self.prot.load(Ordering::SeqCst))
    }
    fn seg_advice(&self) -> Advice {
        match self.advice.load(Ordering::Relaxed) {
            1 => Advice::Random,
            2 => Advice::Sequential,
            _ => Advice::Normal,
        }
    }
    /// The anon map, if the segment has one.
    pub fn amap(&self) -> Option<&Arc<AnonMap>> {
        self.amap.get()
    }
    /// Slot of the segment's first page.
    pub fn amp_index(&self) -> u64 {
        self.amp_index.load(Ordering::Acquire)
    }
    /// The file below, if there is one.
    pub fn backing_vnode(&self) -> Option<&Arc<dyn Vnode>> {
        self.backing.as_ref().map(|b| &b.vnode)
    }
    /// Whether stores stay private to the address space.
    pub fn is_private(&self) -> bool {
        !self.shared()
    }
    /// Slot of the page at `addr`.
    pub fn slot_of(&self, seg: VirtRange, addr: VirtAddr) -> u64 {
        self.amp_index().wrapping_add(seg.page_index(addr))
    }
    /// Slots of the pages of `range`.
    pub fn slots_of(&self, seg: VirtRange, range: VirtRange) -> Range<u64> {
        let first = self.slot_of(seg, range.start());
        first..first.wrapping_add(range.pages().get())
    }
    /// Offset in the file of the page at `addr`; `None` without a file.
    fn file_offset(&self, seg: VirtRange, addr: VirtAddr) -> Option<FileOffset> {
        let b = self.backing.as_ref()?;
        // The argument check at creation made sure that offset + length does not pass 2^63.
        Some(FileOffset(
            b.offset.load(Ordering::Acquire)
                + (addr.get() - seg.start().get()) / PAGE_SIZE * PAGE_SIZE,
        ))
    }
    /// The anon map, made if need be (S2). Over a file the caller does not hold `lock`.
    fn amap_or_make(&self, scx: &SegCx<'_>) -> &Arc<AnonMap> {
        if let Some(map) = self.amap.get() {
            return map;
        }
        let make = || self.amap.get_or_init(|| AnonMap::new(self.driver.home(scx.cx), 0));
        if self.backing.is_none() {
            return make(); // there is no lower layer that could be loaded meanwhile
        }
        let _publishers = self.lock.lock(scx.cx);
        self.publish(make)
    }
    /// Publishes a change of rights (S1). The caller holds `lock`.
    fn publish<R>(&self, change: impl FnOnce() -> R) -> R {
        self.seq.fetch_add(1, Ordering::SeqCst);
        let r = change();
        self.seq.fetch_add(1, Ordering::SeqCst);
        r
    }
    /// Publishes whether any page has state of its own. The caller holds `lock`.
    fn note_pages(&self, vpage: &VPages) {
        let any = !vpage.is_plain();
        if any {
            self.note();
        }
        self.vpaged.store(u8::from(any), Ordering::SeqCst);
    }
    fn note(&self) {
        if !self.noted() {
            self.lasting.fetch_or(NOTED, Ordering::Relaxed);
        }
    }
    fn noted(&self) -> bool {
        self.noted_bit() != 0
    }
    /// What of it a copy of the segment takes along: what it is called by is its own.
    fn noted_bit(&self) -> u8 {
        self.lasting.load(Ordering::Relaxed) & NOTED
    }
    fn lock_over(vpage: VPages) -> Mutex<Private> {
        Mutex::new(Rank::SegPrivate, Private { vpage })
    }
    fn name(&self) -> String {
        self.backing.as_ref().map_or_else(|| "[ anon ]".to_string(), |b| b.vnode.name())
    }
}

impl SegOps for SegVn {
    fn driver(&self) -> &'static str {
        "seg_vn"
    }
    /// There is one page size until there are large pages; asking for it is heard, and changes nothing.
    #[doc(alias = "segvn_setpagesize")]
    fn set_page_size(&self, _: &SegCx<'_>, range: VirtRange, code: u8) -> Result<(), SegError> {
        match code {
            0 => Ok(()),
            _ => Err(SegError::Invalid { driver: "seg_vn", what: "setpagesize", range }),
        }
    }
    fn inherit_run(&self, scx: &SegCx<'_>, range: VirtRange) -> VirtRange {
        inherit::run(self, scx, range)
    }
    fn copies_locked(&self) -> bool {
        self.driver.tunables.locked_at_fork == LockedAtFork::Copy
    }
    #[doc(alias("segvn_dup", "segvn_dup_pages"))]
    fn dup(&self, scx: &SegCx<'_>, child: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        scx.check_writer("seg_vn", child.seg)?;
        dup::dup(self, scx, child.seg)
    }
    fn dup_done(&self, scx: &SegCx<'_>, part: VirtRange, made: &dyn SegOps) {
        let any: &dyn core::any::Any = made;
        if let Some(made) = any.downcast_ref::<Self>() {
            dup::take_over(self, scx, part, made);
        }
    }
    #[doc(alias = "segvn_unmap")]
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        let (left, leaving) = self.unmap_part(scx, range)?;
        leaving.into_iter().for_each(|leaving| leaving.empty(scx.cx));
        Ok(left)
    }
    fn unmap_part(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
    ) -> Result<(Remnant, Option<Leaving>), SegError> {
        scx.check_writer("seg_vn", range)?;
        unmap::unmap(self, scx, range)
    }
    #[doc(alias("segvn_free", "free_vp_pages"))]
    fn free(&self, scx: &SegCx<'_>) {
        unmap::free(self, scx);
    }
    #[doc(alias = "uvmfault_amapcopy")]
    fn make_own(&mut self, scx: &SegCx<'_>) -> Result<(), SegError> {
        own::make_own(self, scx)
    }
    #[doc(alias(
        "segvn_fault",
        "segvn_faultpage",
        "anon_private",
        "anon_zero",
        "uvm_fault_lower_promote",
        "segvn_softunlock"
    ))]
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        fault::fault(self, scx, range, kind, access)
    }
    #[doc(alias = "segvn_setprot")]
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        protect::set_prot(self, scx, range, prot)
    }
    #[doc(alias = "segvn_getprot")]
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        protect::prots(self, scx, range, f);
    }
    fn faulta(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        ahead::faulta(self, scx, addr)
    }
    #[doc(alias = "pvn_read_kluster")]
    fn read_ahead(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), FaultError> {
        ahead::read_ahead(self, scx, range)
    }
    fn populate(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), FaultError> {
        populate::populate(self, scx, range, access)
    }
    #[doc(alias = "segvn_kluster")]
    fn kluster(&self, scx: &SegCx<'_>, addr: VirtAddr, delta: i64) -> bool {
        ahead::kluster(self, scx, addr, delta)
    }
    #[doc(alias = "segvn_swapout")]
    fn swapout(&self, scx: &SegCx<'_>) -> u64 {
        sync::swapout(self, scx)
    }
    #[doc(alias = "segvn_sync")]
    fn sync(&self, scx: &SegCx<'_>, range: VirtRange, flags: SyncFlags) -> Result<(), SegError> {
        sync::sync(self, scx, range, flags)
    }
    #[doc(alias = "segvn_incore")]
    fn incore(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        incore::incore(self, scx, range, out)
    }
    #[doc(alias = "segvn_lockop")]
    fn lock_op(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        op: LockOp,
        newly: &mut NewlyLocked,
    ) -> Result<(), SegError> {
        match op {
            LockOp::Lock => lock::lock(self, scx, range, newly),
            LockOp::Unlock => lock::try_unlock(self, scx, range),
            LockOp::Undo => {
                lock::unlock(self, scx, range);
                Ok(())
            }
        }
    }
    #[doc(alias = "segvn_getoffset")]
    fn offset(&self, scx: &SegCx<'_>, addr: VirtAddr) -> FileOffset {
        self.file_offset(scx.seg, addr).unwrap_or_default()
    }
    #[doc(alias = "segvn_gettype")]
    fn kind(&self) -> SegKind {
        self.kind
    }
    #[doc(alias = "segvn_getvp")]
    fn vnode(&self, _scx: &SegCx<'_>, _addr: VirtAddr) -> Option<Arc<dyn Vnode>> {
        self.backing.as_ref().map(|b| Arc::clone(&b.vnode))
    }
    fn memory(&self, scx: &SegCx<'_>) -> Option<VirtRange> {
        Some(scx.seg)
    }
    #[doc(alias(
        "segvn_advise",
        "anon_disclaim",
        "amap_clean",
        "uvm_map_clean",
        "madvise_dontneed_single_vma"
    ))]
    fn advise(&self, scx: &SegCx<'_>, range: VirtRange, advice: Advice) -> Result<(), SegError> {
        advise::advise(self, scx, range, advice)
    }
    #[doc(alias = "segvn_pagelock")]
    fn lock_pages(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<PageList, SegError> {
        softlock::lock_pages(self, scx, range, access)
    }
    fn unlock_pages(&self, scx: &SegCx<'_>, _: VirtRange, access: Access, pages: PageList) {
        softlock::unlock_pages(self, scx, access, pages);
    }
    fn lend_pages(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<PageList, SegError> {
        lend::lend(self, scx, range)
    }
    fn lend_anons(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        to: &mut dyn Borrower,
    ) -> Result<(), SegError> {
        borrow::lend(self, scx, range, to)
    }
    #[doc(alias = "segvn_getmemid")]
    fn mem_id(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<MemId, SegError> {
        Ok(advise::mem_id(self, scx, addr))
    }
    #[doc(alias = "segvn_inherit")]
    fn inherit_zero(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        inherit::zero(self, scx, range)
    }
    fn inherit(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        how: Option<Inherit>,
    ) -> Result<(), SegError> {
        inherit::inherit(self, scx, range, how)
    }
    fn concat(
        &self,
        scx: &SegCx<'_>,
        next_range: VirtRange,
        next: &dyn SegOps,
        join: Join,
    ) -> bool {
        let any: &dyn core::any::Any = next;
        let next = any.downcast_ref::<Self>().filter(|_| scx.is_writer());
        next.is_some_and(|next| concat::concat(self, scx, next_range, next, join))
    }
    fn extract(&self) -> Option<&dyn Extract> {
        Some(self)
    }
    fn residency(&self, scx: &SegCx<'_>, range: VirtRange) -> Residency {
        incore::residency(self, scx, range)
    }
    fn first_locked(&self, scx: &SegCx<'_>, range: VirtRange) -> Option<VirtRange> {
        incore::first_locked(self, scx, range)
    }
    fn reserved(&self) -> u64 {
        self.swresv.load(Ordering::Acquire)
    }
    fn detail(&self, scx: &SegCx<'_>) -> SegDetail {
        SegDetail {
            name: self.name(),
            prot: self.prot(),
            max_prot: self.max_prot,
            offset: self.file_offset(scx.seg, scx.seg.start()).unwrap_or_default(),
            amp: self.amap().map(|m| m.id().0),
            amp_index: self.amp_index(),
            swresv: self.reserved(),
            page_prot: self.has_page_prot(scx),
            advice: self.seg_advice(),
            softlocks: u64::from(self.softlocks.load(Ordering::Acquire)),
        }
    }
    fn verify(&self, scx: &SegCx<'_>) -> Result<(), String> {
        softlock::verify(self, scx)?;
        reserve::verify(self, scx)
    }
}
