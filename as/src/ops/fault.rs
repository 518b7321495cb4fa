//! Resolving faults, and locking pages by software.
//!
//! A fault is the operation everything else is arranged for. The lock is taken as reader and kept across i/o; the segment comes from
//! this CPU's own hint; nothing that another fault must write is written.
//!
//! ```text
//!   entry allows the access by now? ─ yes ─▶ spurious: done          (rights are added without a flush)
//!          │ no
//!   segment, segment, ... each must begin where the last one ended   (else NoMap)
//!          │
//!   a soft lock that fails half-way undoes the segments before; the failing driver has undone its own part
//! ```
//!
//! One answer of a driver needs more than a reader: [`FaultError::NotOwn`], once a segment and fork, where forks are lazy. Then the lock is
//! taken as writer, with nothing else held, for the driver to take its contents apart from the other side's, and the fault starts over.
//!
//! Sources: [SI §9.4.4]; illumos.md 3.6.

use super::Redo;
use crate::addr_space::AddrSpace;
use crate::error::AsError;
use crate::fault::{FaultError, FaultKind};
use crate::segs::Segs;
use page_db::{Access, Counter, Cx, PAGE_SIZE, VirtAddr, VirtRange, errno};

impl AddrSpace {
    /// Resolves a fault on `range`: afterwards every page of it can be accessed (once, at least). Counted whole, however often it starts over.
    ///
    /// A [`FaultKind::SoftUnlock`] must have the range and access of its [`FaultKind::SoftLock`].
    ///
    /// # Errors
    /// [`FaultError`]: never `NoMemory` (it becomes an `Object` error with `ENOMEM` when nothing can be reclaimed) and never `Retry` or
    /// `NotOwn` (an `Object` error with `EDEADLK` from a driver that has no other answer). After a failed soft lock nothing of it is left; otherwise the pages below the failing one stay as they are.
    ///
    /// # Locks
    /// On entry: nothing of this address space, or the lock as reader; then a segment that must first be made its own (after a lazy fork) is
    /// [`FaultError::Object`] with `EBUSY`. Holds the lock as reader during i/o.
    #[doc(alias("as_fault", "uvm_fault"))]
    pub fn fault(
        &self,
        cx: &Cx,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        self.count_fault(cx, kind);
        if !self.limits().covers(range) {
            return Err(FaultError::NoMap { addr: self.first_outside(range) });
        }
        let done = self.fault_pass(cx, range, kind, access);
        if let Err(error) = &done
            && is_transient(error)
        {
            return self.fault_again(cx, range, kind, access, *error);
        }
        done
    }
    /// Resolves a fault on one page.
    ///
    /// # Errors
    /// As [`AddrSpace::fault`].
    pub fn fault_at(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        self.fault(cx, VirtRange::page_of(addr), kind, access)
    }
    fn count_fault(&self, cx: &Cx, kind: FaultKind) {
        match kind {
            FaultKind::SoftUnlock => return,
            FaultKind::Prot => cx.count(Counter::ProtFault),
            FaultKind::SoftLock => cx.count(Counter::SoftLock),
            FaultKind::Invalid => {}
        }
        cx.count(Counter::AsFault);
        if self.state.is_kernel() {
            cx.count(Counter::KernelAsFault);
        }
    }
    #[cold]
    pub(super) fn first_outside(&self, range: VirtRange) -> VirtAddr {
        let limits = self.limits();
        if limits.contains(range.start()) {
            // The end of the limits is inside the range, so it is an address.
            range.page_at((limits.end() - range.start().get()) / PAGE_SIZE)
        } else {
            range.start()
        }
    }
    /// What the fault starts over for is waited for here, with no lock held.
    #[cold]
    fn fault_again(
        &self,
        cx: &Cx,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
        mut error: FaultError,
    ) -> Result<(), FaultError> {
        let mut redo = Redo::new(self, cx, range.pages().get()).over(range);
        loop {
            self.amend(&mut redo, error)?;
            // A pin may be waited for by whoever has made it, who would wait for itself here.
            if let FaultError::Object { addr, errno: errno::EDEADLK } = error
                && kind == FaultKind::SoftLock
                && !redo.held_long()
            {
                return Err(FaultError::Object { addr, errno: errno::EAGAIN });
            }
            match self.fault_pass(cx, range, kind, access) {
                Err(again) if is_transient(&again) => error = again,
                done => return done,
            }
        }
    }
    /// Does what a transient error asks for before the fault starts over. The caller holds no lock of this address space.
    pub(super) fn amend(&self, redo: &mut Redo<'_>, error: FaultError) -> Result<(), FaultError> {
        if !matches!(error, FaultError::NoMemory { .. }) && !redo.once_more() {
            return Err(FaultError::Object { addr: error.addr(), errno: errno::EDEADLK }); // G10
        }
        let error = match error {
            FaultError::NotOwn { addr } => match redo.make_own(addr) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
            error => error,
        };
        match error {
            FaultError::NoMemory { addr } => redo
                .wait_for_memory()
                .map_err(|_| FaultError::Object { addr, errno: errno::ENOMEM }),
            FaultError::Object { errno: errno::EDEADLK, .. } => {
                redo.tick();
                Ok(())
            }
            FaultError::Retry { .. } => Ok(()),
            error => Err(error),
        }
    }
    #[inline(always)] // into the first pass, and into those of whoever starts over
    fn fault_pass(
        &self,
        cx: &Cx,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        // Nothing runs in a space that is being freed; what was locked before is unlocked all the same.
        if self.is_freed() && kind != FaultKind::SoftUnlock {
            return Err(FaultError::NoMap { addr: range.start() });
        }
        let segs = self.lock.read(cx);
        // held: as (read)
        let first = segs.seg_at(cx, range.start());
        let Some(seg) = first else { return Err(FaultError::NoMap { addr: range.start() }) };
        if range.len() != PAGE_SIZE {
            return self.fault_walk(cx, &segs, range, kind, access);
        }
        if matches!(kind, FaultKind::Invalid | FaultKind::Prot)
            && self.hat.allows(cx, range.start(), access)
        {
            cx.count(Counter::SpuriousFault);
            return Ok(());
        }
        seg.ops().fault(&self.scx(cx, seg.range(), false), range, kind, access)
    }
    #[inline(never)]
    fn fault_walk(
        &self,
        cx: &Cx,
        segs: &Segs,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        for piece in segs.pieces(cx, range) {
            let (at, done) = match piece {
                Ok((seg, piece)) => {
                    let scx = self.scx(cx, seg.range(), false);
                    (piece.start(), seg.ops().fault(&scx, piece, kind, access))
                }
                Err(hole) => (hole.addr, Err(FaultError::NoMap { addr: hole.addr })),
            };
            if let Err(error) = done {
                if kind == FaultKind::SoftLock
                    && let Some(before) = range.until(at.get())
                {
                    self.soft_unlock_walk(cx, segs, before);
                }
                return Err(error);
            }
        }
        Ok(())
    }
    /// Undoes a soft lock of `range`, of which every piece was locked, as if nothing had been touched.
    fn soft_unlock_walk(&self, cx: &Cx, segs: &Segs, range: VirtRange) {
        for (seg, piece) in segs.pieces(cx, range).flatten() {
            let scx = self.scx(cx, seg.range(), false);
            // A soft lock that was granted can be undone; a driver that says otherwise has lost its own pins.
            let _ = seg.ops().fault(&scx, piece, FaultKind::SoftUnlock, Access::Other);
        }
    }
    /// Starts reading the pages of `range`, loading no translations. It goes on from the page at which memory was short, so a range longer than memory
    /// comes to its end, and pushes out its own beginning.
    ///
    /// # Errors
    /// [`FaultError::NoMap`] at a hole, or the first driver's error; what lies below has been started.
    #[doc(alias = "as_faulta")]
    pub fn faulta(&self, cx: &Cx, range: VirtRange) -> Result<(), FaultError> {
        if !self.limits().covers(range) {
            return Err(FaultError::NoMap { addr: self.first_outside(range) });
        }
        let mut rest = range;
        let mut redo = Redo::new(self, cx, 1).over(range);
        loop {
            match self.faulta_pass(cx, rest) {
                Err(error) if is_transient(&error) => {
                    let at = error.addr().page_floor();
                    // Each page that it got on by has its own tries. A driver that names a page of somebody else's is not believed. Of a lock inversion the
                    // file system says no more than that it is to be asked again.
                    if matches!(error, FaultError::NoMemory { .. })
                        && at > rest.start()
                        && let Some(left) = rest.from(at.get())
                    {
                        rest = left;
                        redo = Redo::new(self, cx, 1).over(range);
                    }
                    self.amend(&mut redo, error)?;
                }
                done => return done,
            }
        }
    }
    fn faulta_pass(&self, cx: &Cx, range: VirtRange) -> Result<(), FaultError> {
        let segs = self.lock.read(cx);
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = piece.map_err(|hole| FaultError::NoMap { addr: hole.addr })?;
            seg.ops().read_ahead(&self.scx(cx, seg.range(), false), piece)?;
        }
        Ok(())
    }
}

/// Whether the fault is to start over rather than fail.
pub(super) fn is_transient(error: &FaultError) -> bool {
    matches!(
        error,
        FaultError::NoMemory { .. }
            | FaultError::Retry { .. }
            | FaultError::NotOwn { .. }
            | FaultError::Object { errno: errno::EDEADLK, .. }
    )
}

/// A fault's error as `madvise` and `memcntl` report it.
pub(super) fn as_range_error(error: FaultError) -> AsError {
    match error {
        FaultError::NoMap { addr } => AsError::Unmapped { addr },
        error => AsError::Fault(error),
    }
}
