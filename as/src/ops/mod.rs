//! What can be done to an address space, a verb a file, and the walk that all of them share.
//!
//! # The difficulty
//!
//! Drivers may fail in ways that are nobody's error: a frame is missing, pages are pinned, the segment list must be held as
//! writer, a file system saw a lock inversion. None of that may be waited for with the lock held, and all of it must lead to the
//! same operation being done, whole, once.
//!
//! # The rule
//!
//! ```text
//!   pass: lock ─▶ piece, piece, piece ... ─▶ unlock        one walk; a driver's error ends it
//!     │
//!     ├─ done, or an error that is the caller's ─▶ returned
//!     ├─ Retry      ─▶ again, as writer                                        ┐
//!     ├─ NotOwn     ─▶ made its own, and what follows, as writer; again        ├ 10 000 times; then it is EDEADLK to the caller
//!     ├─ EDEADLK    ─▶ one tick, again                                         ┘
//!     ├─ NoMemory   ─▶ wait for memory (no lock held), again; given up when nothing can be reclaimed
//!     ├─ Held       ─▶ one tick, again; after 100 of them it is Pinned
//!     └─ Pinned     ─▶ as writer; then callbacks or a wait for the pins, again; or the caller's error, by operation
//! ```
//!
//! A pass starts from the first address every time: what an earlier one did is a hole by then (unmap), or done twice to the same effect
//! (protect, advise), or was undone (lock, soft lock).
//!
//! - G10: every operation comes to an end, whatever a driver answers and however often. Only who unmaps waits for pins as long as they last; a store that has to copy a pinned page waits for `MOST_PASSES` passes.
//!
//! Sources: illumos.md 3.5-3.9.

mod advise;
mod dup;
mod extract;
mod fault;
mod free;
mod gap;
mod incore;
mod inherit;
mod lend;
mod lock;
mod map;
mod page_lock;
mod populate;
mod protect;
mod query;
mod select;
mod share;
mod sync;
mod unmap;
mod watch;

pub use extract::{Leave, Target};
pub(crate) use gap::ClaimPlace;
#[doc(alias = "as_rangeunlock")]
pub use gap::RangeClaim;
pub use gap::{AddrRequest, FoundGap, GapOrder, GapRequest};
pub use lend::LentPages;
pub use lock::LockAll;
pub use page_lock::PinnedPages;
pub use select::Selection;

use self::unmap::Gone;
use crate::addr_space::AddrSpace;
use crate::callback::Events;
use crate::error::{AsError, SegError};
use crate::fault::FaultError;
use crate::seg::SegCx;
use crate::segs::{Hole, Seg, Segs};
use page_db::sync::spin_wait;
use page_db::{Cx, MemoryTries, PageError, VirtAddr, VirtRange, VnodeError, errno};

/// Ticks (a second) that an operation waits for a page that is held. Whoever looks at it, fills it or writes it out is done by then; whoever has it pinned
/// may not be, and may be waiting for the caller.
const HELD_TICKS: u32 = 100;

/// How often an operation starts over because a driver asks for nothing but that. Who is told so honestly has met another thread's change, which that
/// thread has finished by the next pass, or holds up, asleep, for less than this. From the two hundredth pass on each is preceded by 50 microseconds on a
/// host, so all of them are half a second in which every other thread had the processor; where ticks are time, those after a lock inversion are a
/// hundred seconds.
pub(crate) const MOST_PASSES: u32 = 10_000;

/// Turns of waiting after which [`spin_wait`] sleeps.
const ASLEEP: u32 = 1000;

/// Frames an operation may want besides its pages: one table for each level, twice for a range over a border.
const TABLES: u64 = 8;

/// Why a pass ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// No segment at this address.
    Hole(VirtAddr),
    /// The driver of the segment `seg` failed.
    Seg { error: SegError, seg: VirtRange },
    /// The address space itself refused.
    Space(AsError),
}

impl From<Hole> for Stop {
    fn from(hole: Hole) -> Self {
        Self::Hole(hole.addr)
    }
}

/// What to do when a driver says that pages are pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnPinned {
    /// It is the caller's error.
    Return,
    /// As writer first; then it is the caller's error.
    ReturnAsWriter,
    /// As writer first; then run a callback for this event, or wait until pins are released.
    Wait(Events),
}

/// The waits between two passes of one operation.
#[derive(Debug)]
pub(crate) struct Redo<'a> {
    space: &'a AddrSpace,
    cx: &'a Cx,
    memory: MemoryTries,
    /// Ticks waited for pages that are held.
    held: u32,
    /// Passes begun again at a driver's word ([`MOST_PASSES`]).
    passes: u32,
    /// Where the operation ends: up to there the segments that follow one that must be made its own come to that as well.
    end: u64,
    /// Whether the next pass holds the lock as writer.
    pub(crate) writer: bool,
}

impl<'a> Redo<'a> {
    /// For an operation that needs at most `pages` frames at once, tables aside.
    pub(crate) fn new(space: &'a AddrSpace, cx: &'a Cx, pages: u64) -> Self {
        let most = pages.saturating_add(TABLES);
        let memory = MemoryTries::new(2, most);
        Self { space, cx, memory, held: 0, passes: 0, end: 0, writer: false }
    }
    /// The operation goes through all of `range`, and needs each segment there to be its own that needs the first one to be. A fork is not told of: it asks
    /// that of few, and copies no slot of the others.
    pub(crate) fn over(self, range: VirtRange) -> Self {
        Self { end: range.end(), ..self }
    }
    /// The operation may need `pages` frames at once, it turns out.
    pub(crate) fn may_need(&mut self, pages: u64) {
        self.memory.may_need(pages.saturating_add(TABLES));
    }
    /// Waits until there is memory. The caller holds no lock of this address space.
    pub(crate) fn wait_for_memory(&mut self) -> Result<(), PageError> {
        self.memory.wait(self.cx, &self.space.db)
    }
    /// Whether to start over at a driver's word: not for ever (G10). Others are let on with what they do.
    pub(crate) fn once_more(&mut self) -> bool {
        self.passes = self.passes.saturating_add(1);
        // The first time there may be nobody to wait for: a segment is made its own, or the lock is taken as writer.
        if self.passes > 1 {
            self.cx.blocking(|| spin_wait(self.cx, self.passes));
        }
        self.passes <= MOST_PASSES
    }
    /// The same for an operation that answers with the driver's last word.
    fn once_more_after(&mut self, last: SegError) -> Result<(), AsError> {
        if self.once_more() {
            return Ok(());
        }
        let (why, addr) = match last {
            SegError::Retry { range } => ("to be redone as writer", Some(range.start())),
            SegError::Fault(error @ FaultError::Retry { .. }) => {
                ("a fault must start over", Some(error.addr()))
            }
            SegError::Fault(error @ FaultError::NotOwn { .. }) => {
                ("contents of its own are needed first", Some(error.addr()))
            }
            SegError::Fault(error) => ("a lock inversion", Some(error.addr())),
            _ => ("a lock inversion", None),
        };
        Err(AsError::Deadlock { passes: MOST_PASSES, why, addr })
    }
    /// Lets a tick pass, after a lock inversion.
    pub(crate) fn tick(&self) {
        self.cx.blocking(|| self.space.db.clock().tick());
    }
    /// Whether to start over where pages are pinned, for an operation that does not wait for pins: once, a tick later. Whoever only looks at a page
    /// is gone by then.
    pub(crate) fn held_a_moment(&mut self) -> bool {
        self.held_for(1)
    }
    /// The same for an operation that waits, but not for ever.
    pub(crate) fn held_long(&mut self) -> bool {
        self.held_for(HELD_TICKS)
    }
    /// Lets a tick pass unless `ticks` have passed for pages that are held.
    fn held_for(&mut self, ticks: u32) -> bool {
        let again = self.held < ticks;
        if again {
            self.held += 1;
            self.tick();
            // A clock that is only counted does not let anybody get on.
            self.cx.blocking(|| spin_wait(self.cx, ASLEEP));
        }
        again
    }
    /// Gives the segment at `addr` contents of its own, and those that follow, under one hold of the lock: or a range of many would be gone through once for
    /// each. The caller holds no lock of this address space.
    pub(crate) fn make_own(&self, addr: VirtAddr) -> Result<(), FaultError> {
        self.space.make_own(self.cx, addr, self.end)
    }
    /// Decides about a driver's error: `Ok` says start over.
    pub(crate) fn after(&mut self, error: SegError) -> Result<(), AsError> {
        match error {
            SegError::Retry { .. } => {
                self.once_more_after(error)?;
                self.writer = true;
            }
            SegError::Fault(FaultError::Retry { .. }) => self.once_more_after(error)?,
            SegError::Fault(FaultError::NotOwn { addr }) => {
                self.once_more_after(error)?;
                match self.make_own(addr) {
                    Err(FaultError::NoMemory { .. }) => {
                        self.wait_for_memory().map_err(AsError::NoMemory)?;
                    }
                    done => done?,
                }
            }
            SegError::NoMemory { .. }
            | SegError::Vnode(VnodeError::NoMemory { .. })
            | SegError::Fault(FaultError::NoMemory { .. }) => {
                self.wait_for_memory().map_err(AsError::NoMemory)?;
            }
            SegError::Held { range } if !self.held_for(HELD_TICKS) => {
                return Err(SegError::Pinned { range }.into());
            }
            SegError::Held { .. } => {}
            SegError::Vnode(VnodeError::Deadlock { .. })
            | SegError::Fault(FaultError::Object { errno: errno::EDEADLK, .. }) => {
                self.once_more_after(error)?;
                self.tick();
            }
            error => return Err(error.into()),
        }
        Ok(())
    }
}

impl AddrSpace {
    /// Gives the segment at `addr` contents of its own, and each above it that begins below `end`. The caller holds no
    /// lock of this address space.
    #[cold]
    fn make_own(&self, cx: &Cx, addr: VirtAddr, end: u64) -> Result<(), FaultError> {
        if cx.reads_any() {
            // Whoever looks at the segments while it faults would wait for itself.
            return Err(FaultError::Object { addr, errno: errno::EBUSY });
        }
        let mut segs = self.lock.write(cx);
        // held: as (write). Unmapped meanwhile: whoever starts over finds that out.
        let Some((mut id, mut range)) = segs.find(cx, addr.get()) else { return Ok(()) };
        let mut first = true;
        loop {
            let done = segs.ops_mut(id).make_own(&self.scx(cx, range, true));
            match done {
                Ok(()) => {}
                // Perhaps nobody will ask for this one; whoever does will be told.
                Err(_) if !first => return Ok(()),
                Err(SegError::NoMemory { .. }) => return Err(FaultError::NoMemory { addr }),
                Err(error) => return Err(FaultError::Object { addr, errno: error.errno() }),
            }
            first = false;
            let next = segs.next_id(id).map(|next| (next, segs.range(next)));
            let Some(above) = next.filter(|(_, above)| above.start().get() < end) else {
                return Ok(());
            };
            (id, range) = above;
        }
    }
    /// Runs `pass` over `range` under the lock until it is done or has failed for good; see the module's theory.
    pub(crate) fn redo(
        &self,
        cx: &Cx,
        range: VirtRange,
        pages: u64,
        pinned: OnPinned,
        mut pass: impl FnMut(&Segs, bool) -> Result<(), Stop>,
    ) -> Result<(), AsError> {
        self.redo_passes(cx, range, pages, pinned, |writer| self.under_lock(cx, writer, &mut pass))
    }
    /// Holds the lock for one pass.
    fn under_lock<T>(&self, cx: &Cx, writer: bool, pass: impl FnOnce(&Segs, bool) -> T) -> T {
        if writer { pass(&self.lock.write(cx), true) } else { pass(&self.lock.read(cx), false) }
    }
    /// The same as [`AddrSpace::redo`] for a `pass` that takes the lock itself, as writer or as reader.
    fn redo_passes(
        &self,
        cx: &Cx,
        range: VirtRange,
        pages: u64,
        pinned: OnPinned,
        mut pass: impl FnMut(bool) -> Result<(), Stop>,
    ) -> Result<(), AsError> {
        let mut redo = Redo::new(self, cx, pages).over(range);
        loop {
            let epoch = self.state.pin_epoch();
            let writer = redo.writer;
            let done = pass(writer);
            // held: nothing
            let (error, seg) = match done {
                Ok(()) => return Ok(()),
                Err(Stop::Hole(addr)) => return Err(AsError::Unmapped { addr }),
                Err(Stop::Space(error)) => return Err(error),
                Err(Stop::Seg { error, seg }) => (error, seg),
            };
            match (error, pinned) {
                (SegError::Pinned { .. }, OnPinned::ReturnAsWriter | OnPinned::Wait(_))
                    if !writer =>
                {
                    redo.writer = true;
                }
                (SegError::Pinned { .. }, OnPinned::Wait(event)) => {
                    self.wait_for_pins(cx, event, seg, epoch);
                }
                _ => redo.after(error)?,
            }
        }
    }
    /// Runs a `pass` that takes segments out, and the lock as writer for that, until it is done or has failed for good. What it took out is finished with
    /// the lock free.
    pub(crate) fn redo_taking(
        &self,
        cx: &Cx,
        pinned: OnPinned,
        mut pass: impl FnMut(&mut Gone) -> Result<(), Stop>,
    ) -> Result<(), AsError> {
        let mut redo = Redo::new(self, cx, 0);
        loop {
            let epoch = self.state.pin_epoch();
            let mut gone = Gone::default();
            let done = pass(&mut gone);
            // held: nothing
            self.finish(cx, gone);
            match (done, pinned) {
                (Ok(()), _) => return Ok(()),
                (Err(Stop::Seg { error: SegError::Pinned { .. }, seg }), OnPinned::Wait(event)) => {
                    self.wait_for_pins(cx, event, seg, epoch);
                }
                (Err(Stop::Seg { error, .. }), _) => redo.after(error)?,
                (Err(Stop::Space(error)), _) => return Err(error),
                (Err(Stop::Hole(addr)), _) => return Err(AsError::Unmapped { addr }),
            }
        }
    }
    /// Calls `f` for each piece of `range`.
    pub(crate) fn walk(
        &self,
        cx: &Cx,
        segs: &Segs,
        range: VirtRange,
        writer: bool,
        mut f: impl FnMut(&SegCx<'_>, Seg<'_>, VirtRange) -> Result<(), SegError>,
    ) -> Result<(), Stop> {
        for piece in segs.pieces(cx, range) {
            let (seg, piece) = piece?;
            f(&self.scx(cx, seg.range(), writer), seg, piece)
                .map_err(|error| Stop::Seg { error, seg: seg.range() })?;
        }
        Ok(())
    }
}
