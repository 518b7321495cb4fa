//! Locking ranges in memory (`mlock`, `mlockall`).
//!
//! # The difficulty
//!
//! Locks do not nest within a mapping, and a call that fails has locked pages by then. What it undoes must be what it has done itself, and what nobody
//! counts on: another call may have found a page locked, by this one, and have answered that it is.
//!
//! ```text
//!   lock(S1 + S2)   marks X in S1, newly ........................ S2 refuses ─▶ X is unmarked
//!   lock(X)                       finds X marked ─▶ "it is locked"
//! ```
//!
//! # The rule
//!
//! Drivers note in [`NewlyLocked`] what they lock newly, the failing one included, and an undo touches nothing else. From its first page to the end of its
//! undo a pass of a lock is alone among the locks of its address space ([`Rank::AsLocking`](page_db::Rank::AsLocking)); the lock of the segment list is
//! held all that time as well, as reader, asleep as far as others can see, so that the faults of other threads get in though somebody waits to write.
//!
//! - G12: what a lock has answered for stays locked until somebody unlocks it: no other lock's undo takes it away.
//!
//! Between two passes nothing is locked that was not before, so nothing is held either: memory is waited for without. An unlock does not take part: what
//! it took away while a lock was under way it could as well have taken away after.
//!
//! # The other road
//!
//! illumos holds only the segment list, as reader, and has the window. A count of claims for each page, given back one by one, would close it without
//! waiting, and locks would nest.
//!
//! Sources: illumos.md 3.8, behaviour 16.

use super::select::each_meant;
use super::{OnPinned, Selection, Stop};
use crate::addr_space::AddrSpace;
use crate::error::{AsError, SegError};
use crate::seg::{LockOp, NewlyLocked, SegCx, SegKind};
use crate::segs::{Mark, Seg, Segs};
use page_db::{Cx, VirtRange};

bitflags::bitflags! {
    /// What [`AddrSpace::lock_all`] locks.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LockAll: u8 {
        /// What is mapped now.
        #[doc(alias = "MCL_CURRENT")]
        const CURRENT = 1;
        /// What will be mapped, at the time it is.
        #[doc(alias = "MCL_FUTURE")]
        const FUTURE = 2;
    }
}

/// Best effort, as in illumos; what needs memory is done when there is some.
fn unlock_run(scx: &SegCx<'_>, seg: Seg<'_>, run: VirtRange) -> Result<(), SegError> {
    match seg.ops().lock_op(scx, run, LockOp::Unlock, &mut NewlyLocked::default()) {
        Err(error @ SegError::NoMemory { .. }) => Err(error),
        _ => Ok(()),
    }
}

impl AddrSpace {
    /// Locks `range` in memory.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, or the first driver's error; what this call locked is unlocked again, what was locked before stays so.
    ///
    /// # Locks
    /// Waits for other threads that lock, with none of this address space's locks held but the range claim.
    #[doc(alias = "MC_LOCK")]
    pub fn lock(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.lock_meant(cx, range, None)
    }
    /// The same for the pages of `range` that are meant.
    ///
    /// # Errors
    /// As [`AddrSpace::lock`].
    pub fn lock_meant(
        &self,
        cx: &Cx,
        range: VirtRange,
        meant: Option<Selection>,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo_locking(cx, range, range.pages().get(), |segs, writer| {
            let mut newly = NewlyLocked::default();
            self.lock_part(cx, segs, writer, (range, meant), &mut newly)
        })
    }
    /// Locks what of `range` has `mark` ([`AddrSpace::lock_marked`]).
    pub(super) fn lock_newcomer(
        &self,
        cx: &Cx,
        range: VirtRange,
        mark: Mark,
    ) -> Result<(), AsError> {
        self.redo_locking(cx, range, range.pages().get(), |segs, writer| {
            let mut newly = NewlyLocked::default();
            let mut at = range.start().get();
            while let Some(run) = segs.marked(range, at, mark) {
                at = run.end();
                self.lock_part(cx, segs, writer, (run, None), &mut newly)?;
            }
            Ok(())
        })
    }
    /// Unlocks `range`; drivers' errors are ignored, but for want of memory.
    ///
    /// # Errors
    /// [`AsError::Unmapped`] at a hole, [`AsError::NoMemory`] where the heap has none for the borders of the range; what lies below is unlocked.
    #[doc(alias = "MC_UNLOCK")]
    pub fn unlock(&self, cx: &Cx, range: VirtRange) -> Result<(), AsError> {
        self.unlock_meant(cx, range, None)
    }
    /// The same for the pages of `range` that are meant.
    ///
    /// # Errors
    /// As [`AddrSpace::unlock`].
    pub fn unlock_meant(
        &self,
        cx: &Cx,
        range: VirtRange,
        meant: Option<Selection>,
    ) -> Result<(), AsError> {
        self.check_limits(range)?;
        self.redo(cx, range, 0, OnPinned::Return, |segs, writer| {
            self.walk_meant(cx, segs, range, writer, meant, unlock_run)
        })
    }
    /// Locks everything mapped now, or whatever will be mapped, or both. Holes that only look unmapped are skipped.
    ///
    /// # Errors
    /// The first driver's; what this call locked is unlocked again. The flag for future mappings stays set, as in illumos.
    #[doc(alias = "MC_LOCKAS")]
    pub fn lock_all(&self, cx: &Cx, what: LockAll) -> Result<(), AsError> {
        self.lock_all_meant(cx, what, None)
    }
    /// The same for the pages that are meant. What will be mapped is locked whatever it is.
    ///
    /// # Errors
    /// As [`AddrSpace::lock_all`].
    pub fn lock_all_meant(
        &self,
        cx: &Cx,
        what: LockAll,
        meant: Option<Selection>,
    ) -> Result<(), AsError> {
        if what.contains(LockAll::FUTURE) {
            self.state.set_lock_future(true);
        }
        if !what.contains(LockAll::CURRENT) {
            return Ok(());
        }
        let pages = self.state.size() / page_db::PAGE_SIZE;
        self.redo_locking(cx, self.limits(), pages, |segs, writer| {
            let mut newly = NewlyLocked::default();
            let all = segs.iter().filter(|seg| !seg.ops().kind().contains(SegKind::HOLE));
            for seg in all {
                let scx = self.scx(cx, seg.range(), writer);
                let done = cx.blocking(|| {
                    each_meant(meant, &scx, seg, seg.range(), &mut |run| {
                        seg.ops().lock_op(&scx, run, LockOp::Lock, &mut newly)
                    })
                });
                if let Err(error) = done {
                    self.undo_locks(cx, segs, writer, &newly);
                    return Err(Stop::Seg { error, seg: seg.range() });
                }
            }
            Ok(())
        })
    }
    /// Unlocks everything, and future mappings are not locked any more. Drivers' errors are ignored: of whole segments nothing needs memory.
    #[doc(alias = "MC_UNLOCKAS")]
    pub fn unlock_all(&self, cx: &Cx) {
        let _ = self.unlock_all_meant(cx, None);
    }
    /// The same for the pages that are meant.
    ///
    /// # Errors
    /// [`AsError::NoMemory`], as [`AddrSpace::unlock`]'s.
    pub fn unlock_all_meant(&self, cx: &Cx, meant: Option<Selection>) -> Result<(), AsError> {
        self.state.set_lock_future(false);
        self.redo(cx, self.limits(), 0, OnPinned::Return, |segs, writer| {
            segs.iter().try_for_each(|seg| {
                let scx = self.scx(cx, seg.range(), writer);
                let run = &mut |run| unlock_run(&scx, seg, run);
                let done = each_meant(meant, &scx, seg, seg.range(), run);
                done.map_err(|error| Stop::Seg { error, seg: seg.range() })
            })
        })
    }
    /// [`AddrSpace::redo`] of a `pass` that locks, and undoes what it has locked where it fails: each is alone (G12).
    fn redo_locking(
        &self,
        cx: &Cx,
        range: VirtRange,
        pages: u64,
        mut pass: impl FnMut(&Segs, bool) -> Result<(), Stop>,
    ) -> Result<(), AsError> {
        self.redo_passes(cx, range, pages, OnPinned::Return, |writer| {
            let _alone = self.locking.lock(cx);
            self.under_lock(cx, writer, &mut pass)
        })
    }
    /// Locks what is meant of `range`, noting it in `newly`; where that fails, all of `newly` is unlocked again. held: as, `locking`
    fn lock_part(
        &self,
        cx: &Cx,
        segs: &Segs,
        writer: bool,
        (range, meant): (VirtRange, Option<Selection>),
        newly: &mut NewlyLocked,
    ) -> Result<(), Stop> {
        let done = cx.blocking(|| {
            self.walk_meant(cx, segs, range, writer, meant, |scx, seg, run| {
                seg.ops().lock_op(scx, run, LockOp::Lock, newly)
            })
        });
        done.inspect_err(|_| self.undo_locks(cx, segs, writer, newly))
    }
    fn undo_locks(&self, cx: &Cx, segs: &Segs, writer: bool, newly: &NewlyLocked) {
        for run in newly.runs() {
            // A run may pass a border between segments.
            for (seg, piece) in segs.pieces(cx, *run).flatten() {
                let scx = self.scx(cx, seg.range(), writer);
                let _ = seg.ops().lock_op(&scx, piece, LockOp::Undo, &mut NewlyLocked::default());
            }
        }
    }
}
