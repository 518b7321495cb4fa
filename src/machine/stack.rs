//! The stack, which grows when something below it is touched.
//!
//! A process has a stack once exec or [`Process::grow_stack`] has made one. From then on a fault on an unmapped address within the
//! limit below it makes the stack reach down to that page, whole and faulted in at once.
//!
//! ```text
//!      guard         STACK_TOP - limit                    STACK_TOP - size                STACK_TOP
//!   │ seg_hole │           │  a fault here grows it                │  mapped                    │
//! ```
//!
//! Below the limit that holds when the stack is made, addresses are kept for nobody, so that a stack that runs over its end does not run into something else
//! ([`STACK_GUARD`]). If the limit is raised later the stack may grow into its guard, which gives way from above, until the least is left
//! ([`STACK_GUARD_LEAST`]). Where something is mapped already when the stack is made there is no guard: what would be guarded from is there.
//!
//! What a stack grows by is left out of a child of fork (`MADV_DONTFORK`) if the stack's lowest page is.
//!
//! - V29: growing looks at the limit, the guard and the neighbours; the stack, its guard and what the process knows of them change together or not at all.
//!
//! Sources: illumos `os/grow.c` (behaviour); illumos.md 3.12.

use super::SysError;
use super::image::Image;
use super::process::{Process, STACK_LIMIT, STACK_TOP};
use addr_space::{AsError, FaultKind, RangeClaim, SegKind};
use page_db::sync::atomic::Ordering;
use page_db::{Access, PAGE_MASK, PAGE_SIZE, Prot, VirtAddr, VirtRange, errno};
use seg_drivers::SegHoleArgs;

const GROW: &str = "grow";

/// The most room kept free below the stack, however large its limit.
const MOST_ROOM: u64 = 1 << 40;

/// Bytes kept below the stack's limit.
#[doc(alias = "p_stkg_start")]
pub const STACK_GUARD: u64 = 16 << 20;

/// Bytes of guard that are always left: 256 pages, more than any single frame of a stack that is not checked page by page.
#[doc(alias = "stack_guard_min_sz")]
pub const STACK_GUARD_LEAST: u64 = 1 << 20;

fn refused(what: &'static str) -> SysError {
    SysError::arg(GROW, errno::ENOMEM, what)
}

impl Process {
    /// Lets the stack reach down to the page of `addr`; nothing happens when it does already.
    ///
    /// # Errors
    /// `ENOMEM`: above the stack, over the stack limit, too little guard would be left, something is in the way, or no swap (the last as `EAGAIN`).
    #[doc(alias("grow", "grow_internal"))]
    pub fn grow_stack(&self, addr: u64) -> Result<(), SysError> {
        if addr >= STACK_TOP {
            return Err(refused("not below the stack"));
        }
        let wanted = STACK_TOP - (addr & !PAGE_MASK);
        let fresh = {
            let image = self.image();
            let claim = image.space.claim_range(self.cx()).map_err(|e| SysError::of(GROW, e))?;
            // held: as range; it guards the stack's size and its guard
            let size = image.stack_size.load(Ordering::Acquire);
            if wanted <= size {
                return Ok(());
            }
            if wanted > self.shared.limits.stack.load(Ordering::Acquire) {
                return Err(refused("over the stack limit"));
            }
            let fresh = VirtRange::exact(STACK_TOP - wanted, wanted - size)
                .map_err(|_| refused("no user range"))?;
            let change = self.make_way(&image, &claim, size == 0, fresh)?;
            let more = self.zfod(Prot::RW);
            let mapped = match VirtAddr::new(fresh.end()) {
                Ok(lowest) if size != 0 => claim.map_like(fresh, &more, lowest),
                _ => claim.map(fresh, &more),
            };
            if let Err(e) = mapped {
                self.take_back(&image, &claim, change);
                return Err(SysError::of(GROW, e));
            }
            image.stack_size.store(wanted, Ordering::Release);
            fresh
        };
        // A failure shows when the page is used.
        let _ = self.space_now().fault(self.cx(), fresh, FaultKind::Invalid, Access::Write);
        Ok(())
    }
    /// Makes the guard of a first stack, or takes `fresh` out of the guard of one that grows. held: as range
    fn make_way(
        &self,
        image: &Image,
        claim: &RangeClaim<'_>,
        first: bool,
        fresh: VirtRange,
    ) -> Result<GuardChange, SysError> {
        let (start, end) =
            (image.guard_start.load(Ordering::Acquire), image.guard_end.load(Ordering::Acquire));
        if first && end == 0 {
            let top = self.stack_room().start().get();
            let guard = VirtRange::exact(top.saturating_sub(STACK_GUARD), STACK_GUARD);
            let guard = guard.map_err(|_| refused("no room for a guard"))?;
            return match claim.map(guard, &SegHoleArgs) {
                Ok(()) => {
                    self.note_guard(image, guard.start().get(), guard.end());
                    Ok(GuardChange::Made(guard))
                }
                Err(AsError::Overlap { .. }) => Ok(GuardChange::None),
                Err(e) => Err(SysError::of(GROW, e)),
            };
        }
        let from = fresh.start();
        if from.get() >= end {
            return Ok(GuardChange::None);
        }
        if from.get() < start + STACK_GUARD_LEAST {
            return Err(refused("too little guard would be left"));
        }
        let part = VirtRange::exact(from.get(), end - from.get());
        let part = part.map_err(|_| refused("no user range"))?;
        let cx = self.cx();
        // What somebody has mapped there instead is in the way, and not ours to take away.
        let is_guard = image.space.kind_at(cx, from).is_some_and(|k| k.contains(SegKind::HOLE))
            && image.space.range_at(cx, from).is_some_and(|seg| seg.end() == end);
        if !is_guard {
            return Ok(GuardChange::None);
        }
        image.space.unmap(cx, part).map_err(|e| SysError::of(GROW, e))?;
        self.note_guard(image, start, from.get());
        Ok(GuardChange::Cut(part))
    }
    /// The stack did not grow: its guard is as it was. held: as range
    fn take_back(&self, image: &Image, claim: &RangeClaim<'_>, change: GuardChange) {
        match change {
            GuardChange::None => {}
            GuardChange::Made(guard) => {
                if image.space.unmap(self.cx(), guard).is_ok() {
                    self.note_guard(image, 0, 0);
                }
            }
            GuardChange::Cut(part) => {
                // Without heap for that the guard stays smaller, and the process knows it.
                if claim.map(part, &SegHoleArgs).is_ok() {
                    let start = image.guard_start.load(Ordering::Acquire);
                    self.note_guard(image, start, part.end());
                }
            }
        }
    }
    fn note_guard(&self, image: &Image, start: u64, end: u64) {
        image.guard_start.store(start, Ordering::Release);
        image.guard_end.store(end, Ordering::Release);
    }
    /// Whether a fault on an unmapped `addr` may be the stack growing, and if so, whether it could.
    pub(crate) fn try_grow(&self, addr: u64) -> bool {
        let size = self.image().stack_size.load(Ordering::Acquire);
        if addr < STACK_TOP && addr >= STACK_TOP - size {
            // Another thread has let it grow since this one's fault, or it is a hole that the program has made there.
            let kind =
                VirtAddr::new(addr).ok().and_then(|at| self.space_now().kind_at(self.cx(), at));
            return kind.is_some_and(|kind| !kind.contains(SegKind::HOLE));
        }
        let limit = self.shared.limits.stack.load(Ordering::Acquire);
        let below = size > 0 && addr < STACK_TOP - size;
        below && STACK_TOP - addr <= limit && self.grow_stack(addr).is_ok()
    }
    /// The addresses the stack has or may take.
    pub(crate) fn stack_room(&self) -> VirtRange {
        let limit = self.shared.limits.stack.load(Ordering::Acquire);
        let size = self.image().stack_size.load(Ordering::Acquire);
        let room = limit.clamp(STACK_LIMIT, MOST_ROOM).max(size);
        let room = room.next_multiple_of(PAGE_SIZE);
        VirtRange::exact(STACK_TOP - room, room).expect("U2: the stack's room is a range")
    }
}

/// What was done to the guard before the stack grew.
enum GuardChange {
    None,
    Made(VirtRange),
    Cut(VirtRange),
}
