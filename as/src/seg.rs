//! Segments, and the trait every segment driver implements.
//!
//! A segment is a range of addresses and a driver object; the textbook's `s_ops` and `s_data` are the one `dyn SegOps`. The
//! address space finds the segment and calls the driver; the driver never sees the tree. It is told on each call, by
//! [`SegCx`], where it lies and for whom it works, and when geometry changes it says what is left ([`Remnant`]) and the
//! address space edits.
//!
//! ```text
//!   AddrSpace::fault ──find──▶ Seg ──▶ dyn SegOps::fault(SegCx, range, kind, access)
//!                                        seg_vn: anon map over vnode      seg_dev: device frames      seg_kmem: kernel pages
//! ```
//!
//! - G1: every range handed to a driver lies wholly inside its segment and is page-aligned.
//! - G2: base and length of a segment change only under the address-space lock as writer, and only by the address space.
//! - G3: `dup`, `unmap`, `unmap_part` and `concat` are called with that lock as writer ([`SegCx::is_writer`]), the rest at least as reader; [`SegCreate::create`] and
//!   [`SegOps::free`], for a segment that is not in the tree, without it.
//!
//! Sources: [SI §9.3]; illumos `vm/seg.h`, `vm/vm_seg.c` (behaviour); illumos.md 2.

pub mod words;

pub use words::*;

use crate::borrower::Borrower;
use crate::error::SegError;
use crate::extract::Extract;
use crate::fault::{FaultError, FaultKind};
use crate::hat::Hat;
use crate::leaving::Leaving;
use crate::segs::Mark;
use crate::state::AsState;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt;
use page_db::{Access, Cx, FileOffset, PageDb, Prot, VirtAddr, VirtRange, Vnode};

/// What a driver is told on each call; a segment keeps no pointer to its address space (`s_as`).
#[doc(alias = "s_as")]
#[derive(Clone, Copy, Debug)]
pub struct SegCx<'a> {
    /// Who is running.
    pub cx: &'a Cx,
    /// The pages.
    pub db: &'a PageDb,
    /// The address space's translations.
    pub hat: &'a dyn Hat,
    /// The address space's sizes, limits and flags.
    pub space: &'a AsState,
    /// The whole segment.
    pub seg: VirtRange,
    /// Whether the address-space lock is held as writer. Said by the address space alone (G3): a context that others make never has it.
    pub(crate) writer: bool,
}

impl<'a> SegCx<'a> {
    /// Whether the address-space lock is held as writer.
    pub fn is_writer(&self) -> bool {
        self.writer
    }
    /// The same of another segment, or of what is to be one.
    #[must_use]
    pub fn of(self, seg: VirtRange) -> Self {
        Self { seg, ..self }
    }
    /// For what empties a driver, or changes its geometry (G3): whoever found the driver as reader must not have it done, for it stays in the tree.
    ///
    /// # Errors
    /// [`SegError::Invalid`] unless the address-space lock is held as writer.
    pub fn check_writer(&self, driver: &'static str, range: VirtRange) -> Result<(), SegError> {
        let what = "whoever has not locked the address space as writer";
        if self.writer { Ok(()) } else { Err(SegError::Invalid { driver, what, range }) }
    }
    /// The same, as the address space makes it with its lock held as writer. For tests of drivers that ask one for a single answer, which they do not act on:
    /// anybody else would break the address space.
    #[doc(hidden)]
    #[must_use]
    pub fn as_if_writer(self) -> Self {
        Self { writer: true, ..self }
    }
}

/// What is left of a segment after [`SegOps::unmap`]. The driver has already let go of the rest and adjusted itself.
#[derive(Debug)]
pub enum Remnant {
    /// Nothing: the whole segment was unmapped.
    Nothing,
    /// The part below the range; this driver keeps it.
    Low,
    /// The part above the range; this driver keeps it, and its base is now the range's end.
    High,
    /// Both: this driver keeps the part below, the box serves the part above.
    Both(Box<dyn SegOps>),
}

/// A segment driver's object: the virtual methods of one segment.
///
/// Seven methods are required; the others answer "nothing to do" or name what is missing. What a driver cannot do at all, a required method
/// among it, it answers with [`SegError::NotSupported`] (a kind of fault with [`FaultError::NoSupport`]) under its own name. A driver changes its own
/// state through `&self`; what faults read without a lock it publishes with a sequence number (see [`crate::hat::Stamp`]). Whether a driver keeps all
/// that is asked by [`crate::contract::seg_ops`].
///
/// A driver is called with the lock of its address space held: as reader it may fault elsewhere in it and look at its segments, but neither map nor unmap there, nor lock in memory, nor fork, which would
/// wait for the thread that it runs on. As writer ([`SegCx::is_writer`]) it calls nothing of the address space at all; [`SegCreate::create`] and
/// [`SegOps::free`], called without the lock, may, but choose no address there: their caller may have the range claim ([`crate::AsError::Claimed`]).
#[doc(alias("struct seg_ops", "s_ops", "s_data"))]
pub trait SegOps: Any + fmt::Debug + Send + Sync {
    /// The driver's textbook name, as every table prints it: `seg_vn`.
    fn driver(&self) -> &'static str;

    /// The part of `range`, from its start on, that one driver can serve in a child of fork. The rest, if any, is asked for again.
    fn inherit_run(&self, scx: &SegCx<'_>, range: VirtRange) -> VirtRange {
        let _ = scx;
        range
    }
    /// Whether fork copies what the parent has locked in memory, so that it may want as many frames.
    fn copies_locked(&self) -> bool {
        false
    }
    /// The child's driver for a forked copy of the segment. `child` speaks of the child's address space, and its `seg` is what the child gets: the
    /// whole segment, or a part of it where pages are left out or inherited otherwise. Memory locks are not inherited.
    ///
    /// # Errors
    /// Any; the child keeps nothing of this segment, the parent is unchanged.
    #[doc(alias = "segop_dup")]
    fn dup(&self, scx: &SegCx<'_>, child: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError>;

    /// The fork has come about, or the range is shown twice: no other driver can fail any more. What [`SegOps::dup`] (or [`Extract::share`]) of `part` has got
    /// for this segment and left in the care of `made`, which gives it back if it is freed before this, is taken over. The locks are still held.
    fn dup_done(&self, scx: &SegCx<'_>, part: VirtRange, made: &dyn SegOps) {
        let _ = (scx, part, made);
    }

    /// Gives up `range` with its translations, locks and contents, and says what is left. Of the whole segment the contents may be left to
    /// [`SegOps::free`].
    ///
    /// # Errors
    /// [`SegError::Pinned`] while pages are pinned; nothing has changed. No other error is legal for the whole range, but that of
    /// [`SegCx::check_writer`], which an address space never causes.
    #[doc(alias("segop_unmap", "seg_unmap"))]
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError>;
    /// As [`SegOps::unmap`] of a part of the segment, but what the part held may be left to the caller, who empties it when the lock is free: other threads wait
    /// for that lock. Translations and geometry are not left.
    ///
    /// # Errors
    /// As [`SegOps::unmap`].
    fn unmap_part(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
    ) -> Result<(Remnant, Option<Leaving>), SegError> {
        Ok((self.unmap(scx, range)?, None))
    }

    /// The end of a segment that gave itself up whole, or never came into the tree: no translation to it is left, nobody can reach it, and the
    /// lock is not held (but when there is no heap to put it off). Called once, with `scx.seg` as it was then. What takes long is done here, so that
    /// nobody waits for it.
    #[doc(alias("segop_free", "seg_free"))]
    fn free(&self, scx: &SegCx<'_>) {
        let _ = scx;
    }

    /// Gives the segment contents of its own, when it has shared them with another address space since a fork and a fault or a lock needs
    /// them unshared ([`FaultError::NotOwn`]). Nobody else is in the address space: its lock is held as writer.
    ///
    /// # Errors
    /// [`SegError::NoMemory`]; nothing has changed.
    #[doc(alias = "amap_copy")]
    fn make_own(&mut self, scx: &SegCx<'_>) -> Result<(), SegError> {
        let _ = scx;
        Ok(())
    }

    /// Resolves a fault on `range`. With the lock as writer ([`SegCx::is_writer`], for [`crate::AddrSpace::access_watched`]) it waits for no page and reads
    /// none: it answers [`FaultError::Retry`], and a fault on the same page as reader, which may wait, comes before it is asked again.
    ///
    /// A driver that copies on write sees to it that nobody in the space goes on reading the original once the copy can be stored to: see
    /// [`Hat::memload`].
    ///
    /// # Errors
    /// [`FaultError`]. After a failed soft lock the driver has undone its own part.
    #[doc(alias = "segop_fault")]
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError>;

    /// Changes the rights of `range`.
    ///
    /// # Errors
    /// [`SegError::Access`] above the ceiling, [`SegError::NoSwap`], [`SegError::Pinned`], [`SegError::Retry`].
    #[doc(alias = "segop_setprot")]
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError>;

    /// Reports the rights of `range` as runs, in order and without gaps, each as it is when the walk comes to it. No lock of the driver's is held while `f`
    /// is told.
    #[doc(alias = "segop_getprot")]
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot));

    /// Whether every page of `range` allows all of `prot`.
    ///
    /// # Errors
    /// [`SegError::Access`] naming the first run that does not.
    #[doc(alias("segop_checkprot", "segvn_checkprot"))]
    fn check_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        let mut bad = None;
        self.prots(scx, range, &mut |run, have| {
            if bad.is_none() && !have.contains(prot) {
                bad = Some(run);
            }
        });
        bad.map_or(Ok(()), |range| Err(SegError::Access { range }))
    }

    /// Starts reading one page, loading no translation (`MADV_WILLNEED`).
    ///
    /// # Errors
    /// [`FaultError`] of the read.
    #[doc(alias = "segop_faulta")]
    fn faulta(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        let _ = (scx, addr);
        Ok(())
    }
    /// Starts reading the pages of `range`, which a driver that knows where its pages are need not visit one by one.
    ///
    /// # Errors
    /// As [`SegOps::faulta`]; what lies below the failing page has been started.
    fn read_ahead(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), FaultError> {
        range.iter_pages().try_for_each(|addr| self.faulta(scx, addr))
    }
    /// Makes `access` possible on every page of `range` without a fault; pages done stay when a later one fails. The default faults on each, which
    /// is what it comes to.
    ///
    /// # Errors
    /// [`FaultError`], which says at which page; what lies below is in place.
    #[doc(alias = "MADV_POPULATE_WRITE")]
    fn populate(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), FaultError> {
        let mut pages = range.iter_pages().map(VirtRange::page_of);
        pages.try_for_each(|page| self.fault(scx, page, FaultKind::Invalid, access))
    }
    /// Whether reading the page at `addr + delta` bytes along with that at `addr` is sensible.
    #[doc(alias = "segop_kluster")]
    fn kluster(&self, scx: &SegCx<'_>, addr: VirtAddr, delta: i64) -> bool {
        let _ = (scx, addr, delta);
        false
    }
    /// Unloads the translations that can go and pushes the pages that nobody maps then; returns bytes freed. Which can go only the driver knows: one that is
    /// locked ([`crate::LoadFlags::LOCK`]) stays.
    #[doc(alias = "segop_swapout")]
    fn swapout(&self, scx: &SegCx<'_>) -> u64 {
        let _ = scx;
        0
    }
    /// Writes dirty pages of `range` to where they belong.
    ///
    /// # Errors
    /// [`SegError::Locked`] when invalidating locked pages, [`SegError::Pinned`], [`SegError::Held`], [`SegError::Vnode`]. The first error ends the walk.
    #[doc(alias = "segop_sync")]
    fn sync(&self, scx: &SegCx<'_>, range: VirtRange, flags: SyncFlags) -> Result<(), SegError> {
        let _ = (scx, range, flags);
        Ok(())
    }
    /// Fills one byte a page ([`InCore`] bits); returns how many pages it answered for. A hint that never blocks.
    #[doc(alias = "segop_incore")]
    fn incore(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        let _ = scx;
        let n = range.pages().get().min(out.len() as u64) as usize;
        out[..n].fill(InCore::INCORE.bits());
        n
    }
    /// Locks or unlocks pages in memory; newly locked ones are noted.
    ///
    /// # Errors
    /// [`SegError::LockLimit`], [`SegError::Vnode`], [`SegError::NoMemory`]; what was locked before the error is in `newly`.
    #[doc(alias = "segop_lockop")]
    fn lock_op(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        op: LockOp,
        newly: &mut NewlyLocked,
    ) -> Result<(), SegError> {
        let _ = (scx, range, op, newly);
        Ok(())
    }
    /// Offset in the object of `addr`.
    #[doc(alias = "segop_getoffset")]
    fn offset(&self, scx: &SegCx<'_>, addr: VirtAddr) -> FileOffset {
        let _ = (scx, addr);
        FileOffset(0)
    }
    /// Shared or private, and the flags of the mapping.
    #[doc(alias = "segop_gettype")]
    fn kind(&self) -> SegKind {
        SegKind::empty()
    }
    /// The vnode mapped at `addr`; `None` for anonymous memory.
    #[doc(alias = "segop_getvp")]
    fn vnode(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Arc<dyn Vnode>> {
        let _ = (scx, addr);
        None
    }
    /// Notes advice about `range`.
    ///
    /// # Errors
    /// [`SegError::Pinned`], [`SegError::Retry`], [`SegError::Invalid`].
    #[doc(alias = "segop_advise")]
    fn advise(&self, scx: &SegCx<'_>, range: VirtRange, advice: Advice) -> Result<(), SegError> {
        let _ = (scx, range, advice);
        Ok(())
    }
    /// Pins the pages of `range` for i/o. Drivers without page structures keep this default, and callers fall back on soft locks.
    ///
    /// # Errors
    /// [`SegError::NotSupported`] or why not.
    #[doc(alias("segop_pagelock", "L_PAGELOCK"))]
    fn lock_pages(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<PageList, SegError> {
        let _ = (scx, range, access);
        Err(SegError::NotSupported { driver: self.driver(), op: "pagelock" })
    }
    /// Undoes [`SegOps::lock_pages`] with the same arguments.
    #[doc(alias = "L_PAGEUNLOCK")]
    fn unlock_pages(&self, scx: &SegCx<'_>, range: VirtRange, access: Access, pages: PageList) {
        let _ = (scx, range, access, pages);
    }
    /// Lends the pages of `range` to the kernel ([`page_db::PageDb::lend`]), making or reading what is absent.
    ///
    /// # Errors
    /// [`SegError::NotSupported`], or why not; nothing is lent.
    #[doc(alias = "uvm_loan")]
    fn lend_pages(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<PageList, SegError> {
        let _ = (scx, range);
        Err(SegError::NotSupported { driver: self.driver(), op: "loan" })
    }
    /// Lends the contents of the pages of `range` to anons, each of which `to` takes a reference of, in order of address. What is absent is made or read.
    ///
    /// # Errors
    /// [`SegError::NotSupported`], or why not; what `to` has taken by then is `to`'s.
    #[doc(alias("uvm_loan", "UVM_LOAN_TOANON"))]
    fn lend_anons(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        to: &mut dyn Borrower,
    ) -> Result<(), SegError> {
        let _ = (scx, range, to);
        Err(SegError::NotSupported { driver: self.driver(), op: "loan to an anon" })
    }
    /// Prefers a page size for `range`.
    ///
    /// # Errors
    /// [`SegError::NotSupported`] or [`SegError::Invalid`].
    #[doc(alias = "segop_setpagesize")]
    fn set_page_size(&self, scx: &SegCx<'_>, range: VirtRange, code: u8) -> Result<(), SegError> {
        let _ = (scx, range, code);
        Err(SegError::NotSupported { driver: self.driver(), op: "setpagesize" })
    }
    /// The object and offset behind `addr`.
    ///
    /// # Errors
    /// [`SegError::NoIdentity`], or no memory to make the object.
    #[doc(alias = "segop_getmemid")]
    fn mem_id(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<MemId, SegError> {
        let _ = (scx, addr);
        Err(SegError::NoIdentity { driver: self.driver() })
    }
    /// Where pages for `addr` are best placed, of [`Advice::AccessLwp`] and [`Advice::AccessMany`]; `None` is the default policy. With one
    /// locality group there is no other, and advice about it is accepted without effect.
    #[doc(alias = "segop_getpolicy")]
    fn policy(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Advice> {
        let _ = (scx, addr);
        None
    }
    /// Whether the segment has a property that i/o frameworks ask about.
    #[doc(alias = "segop_capable")]
    fn capable(&self, what: Capability) -> bool {
        let _ = what;
        false
    }
    /// Sets what `range` becomes over fork: zeros.
    ///
    /// # Errors
    /// [`SegError::NotSupported`], [`SegError::Invalid`].
    #[doc(alias("segop_inherit", "MC_INHERIT_ZERO"))]
    fn inherit_zero(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        let _ = (scx, range);
        Err(SegError::NotSupported { driver: self.driver(), op: "inherit" })
    }
    /// Sets what `range` becomes over fork; `None` takes it back to what the mapping's kind says. Never [`Inherit::None`], which the address space
    /// sees to by itself.
    ///
    /// # Errors
    /// [`SegError::NotSupported`], [`SegError::Pinned`].
    #[doc(alias = "minherit")]
    fn inherit(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        how: Option<Inherit>,
    ) -> Result<(), SegError> {
        let _ = (scx, range);
        how.map_or(Ok(()), |_| Err(SegError::NotSupported { driver: self.driver(), op: "inherit" }))
    }
    /// Takes over `next`, an adjacent segment above this one, if the two can be one: on `true` this driver serves both ranges
    /// and `next` is dropped without further calls.
    #[doc(alias("segvn_concat", "segvn_extend_prev", "segvn_extend_next"))]
    fn concat(
        &self,
        scx: &SegCx<'_>,
        next_range: VirtRange,
        next: &dyn SegOps,
        join: Join,
    ) -> bool {
        let _ = (scx, next_range, next, join);
        false
    }
    /// The side that lets the segment be moved and shown twice, for drivers that have it.
    fn extract(&self) -> Option<&dyn Extract> {
        None
    }
    /// Bytes of swap this segment itself has reserved.
    #[doc(alias = "swresv")]
    fn reserved(&self) -> u64 {
        0
    }
    /// Whether this segment counts in `a_resvsize` only for what it has reserved ([`SegOps::reserved`]) instead of its whole size: private
    /// memory without a file that reserves at the first touch.
    ///
    /// The address space counts what a new segment has reserved, and takes off what one has less after an unmap, or had when it went. Such a driver counts
    /// only what it reserves between the two, when it has, and before it gives that back ([`AsState::add_resv`], [`AsState::sub_resv`]).
    #[doc(alias = "SEG_IS_PARTIAL_RESV")]
    fn counts_own_resv(&self, scx: &SegCx<'_>) -> bool {
        let kind = self.kind();
        kind.contains(SegKind::NORESERVE)
            && !kind.contains(SegKind::SHARED)
            && self.vnode(scx, scx.seg.start()).is_none()
    }
    /// The part of the segment that holds memory of files or anonymous memory, for drivers that have any (`as_memory`): not devices, nor holes.
    #[doc(alias = "as_memory")]
    fn memory(&self, scx: &SegCx<'_>) -> Option<VirtRange> {
        let _ = scx;
        None
    }
    /// How many pages of `range` are resident, private copies, and locked, found without visiting absent ones. The default counts
    /// translations; a driver with an anon map knows more.
    fn residency(&self, scx: &SegCx<'_>, range: VirtRange) -> Residency {
        let mut rss = 0;
        scx.hat.walk(scx.cx, range, &mut |_, _| rss += 1);
        Residency { rss, ..Residency::default() }
    }
    /// The first run of pages in `range` that the mapping has locked in memory, found without visiting others. The default is for drivers that lock none.
    fn first_locked(&self, scx: &SegCx<'_>, range: VirtRange) -> Option<VirtRange> {
        let _ = (scx, range);
        None
    }
    /// What views show.
    fn detail(&self, scx: &SegCx<'_>) -> SegDetail;
    /// Checks the driver's own invariants when nothing runs; the text begins with the short name of the one that is broken, and `: `.
    ///
    /// # Errors
    /// The first broken invariant.
    fn verify(&self, scx: &SegCx<'_>) -> Result<(), String> {
        let _ = scx;
        Ok(())
    }
}

const _: Option<&dyn SegOps> = None; // used as an object everywhere; stays one

/// Makes a segment's driver: the create function and its argument block in one.
#[doc(alias("segvn_create", "segcreate_func_t", "seg_alloc", "seg_attach"))]
pub trait SegCreate {
    /// Makes the driver for the new segment `scx.seg`. The lock is not held: another mapping may come first, and then [`SegOps::free`] takes back
    /// what was done here, without [`SegOps::unmap`] before it.
    ///
    /// # Errors
    /// Any; nothing is left behind.
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError>;
    /// Whether the new segment may merge with its neighbours.
    fn may_merge(&self) -> bool {
        true
    }
    /// Whether the new segment must fit under the limit on the address space, with all its size. One that says no counts for nothing in `a_resvsize`: its
    /// driver says [`SegOps::counts_own_resv`] and has reserved nothing.
    fn counts(&self) -> bool {
        true
    }
    /// What the new mapping is to be known by ([`AddrSpace::new_mark`](crate::AddrSpace::new_mark)), for a caller who is to lock it in memory.
    fn mark(&self) -> Option<Mark> {
        None
    }
}
