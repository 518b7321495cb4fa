//! The address space: its fields, its locks, its making. What can be done to it is in [`crate::ops`], a verb a file.
//!
//! ```text
//!   range claim    held from "choose an address" to "map it"; taken without the lock below       AsRange
//!   locking        one at a time locks in memory, and undoes what it did of that                 AsLocking
//!   lock           reader: faults, and whatever keeps the segment list as it is                  AsLock
//!                  writer: map, unmap, fork, and what a driver asks to be redone as writer
//!   callbacks      who wants to be told before a pinned range goes                               AsContents
//!   state          sizes, limits, flags: atomics, no lock
//! ```
//!
//! - I13: the sizes of the segments add up to `size`, and what they count as reserved to `resv_size`.
//! - V05: every translation lies in a segment, with no right that the page does not have.
//!
//! Nothing is held on return, and nothing waits for memory with the lock held: an operation that meets
//! `NoMemory` backs out, waits, and starts over (DESIGN D15). The range claim is no such lock: a thread that maps keeps it, or another would choose its place,
//! while it waits for memory, and for pins in what it takes the place of. Whoever is to end such a wait must not want the claim (Q2).
//!
//! Sources: [SI §9.2]; illumos.md 3.1, 3.2.

use crate::hat::Hat;
use crate::ops::ClaimPlace;
use crate::seg::{SegCx, SegOps};
use crate::segs::Segs;
use crate::state::{AsId, AsState};
use crate::watch::Watch;
use crate::{AsError, Owner, callback::Callbacks};
use alloc::sync::Arc;
use core::fmt;
use page_db::sync::atomic::{AtomicBool, AtomicU64};
use page_db::sync::{Mutex, SlotReadGuard, SlotRwLock};
use page_db::{Cx, PageDb, Rank, VirtRange};

/// What a user may map by default: not the first page, and not the last two below the hole of the canonical addresses.
#[doc(alias = "USERLIMIT")]
pub const USER_RANGE: VirtRange = match VirtRange::exact(0x1000, 0x7fff_ffff_e000 - 0x1000) {
    Ok(range) => range,
    Err(_) => panic!("U2: the default user range is a range"),
};

/// An address space.
#[doc(alias("struct as", "kas"))]
pub struct AddrSpace {
    pub(crate) state: AsState,
    pub(crate) lock: SlotRwLock<Segs>,
    pub(crate) range_claim: Apart<ClaimPlace>,
    pub(crate) locking: Mutex<()>,
    pub(crate) callbacks: Callbacks,
    pub(crate) hat: Arc<dyn Hat>,
    pub(crate) watch: Watch,
    pub(crate) db: Arc<PageDb>,
    /// Set by the first `free`; the second does nothing.
    pub(crate) freed: AtomicBool,
    /// Marks given out so far ([`AddrSpace::new_mark`]).
    pub(crate) marks: AtomicU64,
}

/// On cache lines of its own: who maps writes it, and beside it lies what faults read.
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl AddrSpace {
    /// Makes an empty address space for the addresses `limits`, translated by `hat`. Whoever makes it owes it an [`AddrSpace::free`]: dropped without
    /// one it gives nothing back, neither anons nor promises of swap nor page tables.
    ///
    /// `hat` is this space's alone: of two that share one, each would take the other's translations away. It is of the machine of `db`, for another's refuses
    /// every page it is shown ([`crate::HatError::ForeignPage`]).
    ///
    /// # Errors
    /// [`AsError::NoHeap`] when the heap refuses what each processor keeps at hand of an address space; `hat`, which would have been its, has ended.
    #[doc(alias = "as_alloc")]
    pub fn new(
        cx: &Cx,
        id: AsId,
        limits: VirtRange,
        hat: Arc<dyn Hat>,
        db: Arc<PageDb>,
    ) -> Result<Self, AsError> {
        debug_assert!(cx.held().is_empty(), "X2: an address space is made with no lock held");
        let cpus = db.cpus();
        let lock = Segs::new(limits, cpus)
            .and_then(|segs| SlotRwLock::new(Rank::AsLock, cpus, db.hooks(), segs));
        let Ok(lock) = lock else {
            hat.free_start(cx);
            hat.free_end(cx);
            return Err(AsError::NoHeap { what: "processor's place in an address space" });
        };
        Ok(Self {
            state: AsState::new(id, limits),
            lock,
            range_claim: Apart(ClaimPlace::new()),
            locking: Mutex::new(Rank::AsLocking, ()),
            callbacks: Callbacks::new(),
            hat,
            watch: Watch::new(),
            db,
            freed: AtomicBool::new(false),
            marks: AtomicU64::new(0),
        })
    }
    /// Makes the kernel's address space: number 0, with the kernel's hat.
    ///
    /// # Errors
    /// As [`AddrSpace::new`].
    #[doc(alias = "kas")]
    pub fn kernel(
        cx: &Cx,
        limits: VirtRange,
        hat: Arc<dyn Hat>,
        db: Arc<PageDb>,
    ) -> Result<Self, AsError> {
        Self::new(cx, AsId(0), limits, hat, db)
    }
    /// The number.
    pub fn id(&self) -> AsId {
        self.state.id()
    }
    /// Sizes, limits and flags.
    pub fn state(&self) -> &AsState {
        &self.state
    }
    /// The translations.
    #[doc(alias = "a_hat")]
    pub fn hat(&self) -> &Arc<dyn Hat> {
        &self.hat
    }
    /// The pages.
    pub fn db(&self) -> &Arc<PageDb> {
        &self.db
    }
    /// The range that may be mapped.
    pub fn limits(&self) -> VirtRange {
        self.state.limits()
    }
    /// The segments, held as reader until the guard is dropped.
    ///
    /// # Locks
    /// The lock as reader. The same thread may go on to look, to fault, to load and to store; what needs the lock as writer (map, unmap, fork, a segment that must first be
    /// made its own), or locks in memory beside others that do, would wait for itself, for ever: the guard is dropped before that.
    ///
    /// # Panics
    /// In a debug build, when the thread holds a lock that comes after this one ([`Rank`]), or waits for the lock as writer with the guard held.
    #[doc(alias("AS_LOCK_ENTER", "a_lock"))]
    pub fn segs<'a>(&'a self, cx: &'a Cx) -> SlotReadGuard<'a, Segs> {
        self.lock.read(cx)
    }
    /// Whether [`AddrSpace::free`] has begun.
    pub fn is_freed(&self) -> bool {
        self.freed.load(page_db::sync::atomic::Ordering::Acquire)
    }
    /// What a driver is told when it is called for the segment `seg`, by whoever has found it as reader ([`AddrSpace::segs`]) or brings one that is in no tree.
    pub fn seg_cx<'a>(&'a self, cx: &'a Cx, seg: VirtRange) -> SegCx<'a> {
        self.scx(cx, seg, false)
    }
    /// What a driver is told when it is called for the segment `seg`.
    pub(crate) fn scx<'a>(&'a self, cx: &'a Cx, seg: VirtRange, writer: bool) -> SegCx<'a> {
        self.db.assert_cx(cx);
        let hat = self.watch.hat().map_or(&*self.hat, |watched| watched as &dyn Hat);
        SegCx { cx, db: &self.db, hat, space: &self.state, seg, writer }
    }
    pub(crate) fn check_limits(&self, range: VirtRange) -> Result<(), AsError> {
        let limits = self.state.limits();
        if limits.covers(range) { Ok(()) } else { Err(AsError::OutsideSpace { range, limits }) }
    }
    /// Whether `other` is of this machine.
    pub(crate) fn check_machine(&self, what: &'static str, other: &Self) -> Result<(), AsError> {
        if Arc::ptr_eq(&self.db, &other.db) {
            return Ok(());
        }
        Err(AsError::Foreign { what, owner: Owner::Machine, id: self.id() })
    }
    /// Bytes that the segment at `range` counts for in `resv_size`.
    pub(crate) fn resv_of(&self, cx: &Cx, range: VirtRange, ops: &dyn SegOps) -> u64 {
        resv_of(&self.scx(cx, range, false), ops)
    }
    /// Counts a driver that was just made, and is not in the tree yet. Nothing is counted that it has not reserved, not for a moment: another mapping would
    /// be refused for it. Where its size was to fit under the limit, that was looked at before it was made ([`AsState::check_resv`]); refused here, because
    /// somebody else's mapping came first, it is the caller's to free.
    #[inline]
    pub(crate) fn count(&self, scx: &SegCx<'_>, ops: &dyn SegOps) -> Result<(), AsError> {
        self.state.charge_resv(resv_of(scx, ops))?;
        self.state.add_size(scx.seg.len());
        Ok(())
    }
    /// Undoes [`AddrSpace::count`], and gives the driver back. No lock is held.
    pub(crate) fn uncount(&self, cx: &Cx, range: VirtRange, ops: &dyn SegOps) {
        self.state.sub_size(range.len());
        self.state.sub_resv(self.resv_of(cx, range, ops));
        ops.free(&self.scx(cx, range, false));
    }
}

/// Bytes that the segment `scx.seg` counts for in `resv_size`.
#[inline]
fn resv_of(scx: &SegCx<'_>, ops: &dyn SegOps) -> u64 {
    if ops.counts_own_resv(scx) { ops.reserved() } else { scx.seg.len() }
}

impl fmt::Debug for AddrSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddrSpace")
            .field("id", &self.id().0)
            .field("limits", &self.limits())
            .field("size", &self.state.size())
            .field("hat", &self.hat.id())
            .finish_non_exhaustive()
    }
}
