//! Pages on their way out: new slots, side by side, one transfer.
//!
//! # The difficulty
//!
//! Page-out picks its victims one at a time, from any process, in the order of frames. Written one at a time they would cost a
//! transfer each. Since a slot is chosen only now, and always a new one, unrelated pages can be given neighbouring
//! slots and share a transfer; sixteen pages go out for the price of one.
//!
//! # The rule
//!
//! ```text
//!   put_page(ASYNC|FREE)   the number joins the queue; the 16th, or flush_pushes, drains it:
//!
//!     lock      each page still there, tried, never waited for ─▶ unload, take the dirty bit       a clean page is freed here
//!     place     runs of new slots for as many as possible; the old slots go      none left: sweep, else of an area that fails, else the old slot, else give up
//!     write     one transfer for each run of neighbours                               it fails: page by page
//!     done      per page: freed to the cache list, unless somebody used it meanwhile; on error modified again, slot given back
//!
//!   put_page(anything else)  the same with one page, at once; the page is waited for unless ASYNC or NOWAIT, and shared with who has it if it is to stay
//! ```
//!
//! Where the transfer of a run fails, some place in it cannot be written, or the device cannot. So its pages are tried one by one, and those whose places are good go
//! out; but not while there have been two failures more than successes (`ODDS`): a device that writes nothing is asked for two pages more, and for one when it
//! failed the last time too. So a run costs one transfer more than it has pages at most. Halves of halves would find one bad place in fewer
//! transfers, and several in more.
//!
//! A request dropped because its page is locked or gone loses nothing: the page is as dirty as before, and the scanner comes
//! again. A page that gets no place is marked modified again and stays ("backed by memory").
//!
//! # Invariants
//!
//! - U1: a thread with a page of the cluster locked only *tries* for the next, so two clusters never wait for each other.
//! - U2: from the moment a new slot is in the word until the write is done, the page is locked shared and in transit: nobody
//!   reads the slot, frees it, or gives the page away. The word stays as it is, unless the name ends; whoever ends it waits for the page first (W6).
//! - U3: a failed or impossible push leaves the page resident and modified; of a cluster, those pages alone whose own transfers failed, or were not tried any more.
//!
//! When every slot is taken, those of pages that are in memory can be had: [`crate::sweep`].
//!
//! Sources: illumos.md 6.3; uvm.md 6.2, 6.5.

use crate::area::{PhysSlot, SwapArea};
use crate::device::{DeviceError, DeviceOp};
use crate::fs::SwapFs;
use crate::name::{AnonNumber, Place};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use page_db::pvn::{self, DirtyPage};
use page_db::selock::LockedPage as _;
use page_db::{Counter, Cx, FailKind, Identity, Pfn, PutFlags, VnodeError, errno};

/// How many more failures than successes end the attempt to write the pages of a run one by one.
const ODDS: u32 = 2;

/// A dirty page and whose it is.
type Dirty<'a> = (AnonNumber, DirtyPage<'a>);

/// A dirty page and where it goes.
struct Placed<'a> {
    n: AnonNumber,
    dirty: DirtyPage<'a>,
    slot: PhysSlot,
}

fn is_push(flags: PutFlags) -> bool {
    flags == PutFlags::ASYNC | PutFlags::FREE
}

impl SwapFs {
    /// Writes the anon's page if it is in memory and dirty, and disposes of it as `flags` say. With flags exactly `ASYNC | FREE` (page-out)
    /// the push is held back until 16 are gathered or [`SwapFs::flush_pushes`] is called.
    ///
    /// # Errors
    /// [`VnodeError::Io`], [`VnodeError::Locked`] (`INVAL` of a claimed page), [`VnodeError::Deadlock`] (`NOWAIT`); [`VnodeError::NoSpace`] only for `ASYNC | FREE`, and then
    /// perhaps for another page of the cluster. The page is resident and modified then. Without a place to go, other puts succeed and
    /// leave the page modified.
    #[doc(alias("swap_putpage", "swap_putapage", "swap_newphysname"))]
    pub fn put_page(&self, cx: &Cx, n: AnonNumber, flags: PutFlags) -> Result<(), VnodeError> {
        let flags = flags.difference(PutFlags::FORCE);
        if !is_push(flags) {
            return self.put_now(cx, n, flags);
        }
        let batch = {
            let mut queue = self.pushes.lock(cx);
            queue.push(n);
            if queue.len() < self.cluster {
                return Ok(());
            }
            core::mem::take(&mut *queue)
        };
        self.push_cluster(cx, &batch)
    }
    /// Writes every push held back.
    ///
    /// # Errors
    /// As [`SwapFs::put_page`].
    pub fn flush_pushes(&self, cx: &Cx) -> Result<(), VnodeError> {
        let batch = core::mem::take(&mut *self.pushes.lock(cx));
        self.push_cluster(cx, &batch)
    }
    fn push_cluster(&self, cx: &Cx, batch: &[AnonNumber]) -> Result<(), VnodeError> {
        let flags = PutFlags::ASYNC | PutFlags::FREE;
        let db = self.db();
        let mut dirty = VecDeque::new();
        for n in batch {
            // U1: tried; a page that is locked, free or gone drops out.
            let Some(page) = db.try_lookup_excl(cx, self.identity(*n)) else { continue };
            if let Some(d) = pvn::get_dirty(cx, db, page, flags) {
                dirty.push_back((*n, d));
            }
        }
        self.write_out(cx, dirty, flags)
    }
    fn put_now(&self, cx: &Cx, n: AnonNumber, flags: PutFlags) -> Result<(), VnodeError> {
        let (db, id) = (self.db(), self.identity(n));
        let Some(found) = db.exists(cx, id) else { return Ok(()) };
        // A cached page is clean and free already; only invalidation has business with it.
        let free = db.page(found).is_free() && db.page(found).is(id);
        if free && !flags.intersects(PutFlags::INVAL | PutFlags::TRUNC) {
            return Ok(());
        }
        match pvn::take(cx, db, id, flags)? {
            Some(dirty) => self.write_out(cx, VecDeque::from([(n, dirty)]), flags),
            None => Ok(()),
        }
    }

    /// Finds places for dirty pages, writes them and lets them go. held: the pages (shared, i/o)
    fn write_out(
        &self,
        cx: &Cx,
        dirty: VecDeque<Dirty<'_>>,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        let mut result = Ok(());
        let (placed, left) = self.place_all(cx, dirty);
        for (_, d) in left {
            let Identity { vnode, offset } = d.identity;
            result = result.and(pvn::write_done(cx, self.db(), d, false, flags)); // U3
            if is_push(flags) {
                result = result.and(Err(VnodeError::NoSpace { vnode, offset }));
            }
        }
        let mut placed = placed.into_iter().peekable();
        while let Some(first) = placed.next() {
            let mut run = Vec::from([first]);
            while let Some(next) = placed.next_if(|p| follows(&run, p)) {
                run.push(next);
            }
            result = result.and(self.write_run(cx, run, flags));
        }
        result
    }
    /// Gives each page a new slot, as long as there are any; then its old one; what is left over has none. Slots of an area whose writes fail are free again and
    /// again, so pages in memory are asked for theirs elsewhere before.
    fn place_all<'a>(
        &self,
        cx: &Cx,
        mut todo: VecDeque<Dirty<'a>>,
    ) -> (Vec<Placed<'a>>, Vec<Dirty<'a>>) {
        let (mut placed, mut left) = (Vec::new(), Vec::new());
        let mut swept = false;
        while !todo.is_empty() {
            match self.space().alloc(cx, todo.len() as u32, swept) {
                Some(run) => {
                    for index in run.first..run.first + run.count {
                        let slot = PhysSlot { area: run.area.id(), index };
                        let (n, dirty) = todo.pop_front().expect("a run is no longer than asked");
                        // K1. Without the heap to remember it, the page has no place.
                        if run.area.set_owner(index, n) && self.install(cx, n, slot) {
                            placed.push(Placed { n, dirty, slot });
                        } else {
                            self.space().free(cx, slot);
                            left.push((n, dirty)); // of a dead name, perhaps: whoever frees it destroys the page
                        }
                    }
                    if !run.area.is_failing() {
                        self.sweeps.forget(); // K2: after the words; else once the failure ends
                    }
                }
                None if !swept => {
                    swept = true;
                    self.sweep(cx, todo.len() as u64);
                }
                None => break,
            }
        }
        for (n, dirty) in todo {
            match self.names().place(n).slot() {
                Some(slot) => placed.push(Placed { n, dirty, slot }),
                None => left.push((n, dirty)),
            }
        }
        (placed, left)
    }
    /// Puts a new slot in the name's word and gives the old one back; `false` for a dead name, which takes none.
    #[doc(alias = "swap_newphysname")]
    fn install(&self, cx: &Cx, n: AnonNumber, slot: PhysSlot) -> bool {
        loop {
            let at = self.names().place(n);
            if at == Place::Dead {
                return false;
            }
            if self.names().change(n, at, Place::At(slot)) {
                match at {
                    Place::At(old) => self.space().free(cx, old),
                    Place::Bad(old) => self.lose(cx, old),
                    _ => {}
                }
                return true;
            }
        }
    }
    /// Writes pages with neighbouring slots in one transfer, or else one by one, and ends their transit.
    fn write_run(&self, cx: &Cx, run: Vec<Placed<'_>>, flags: PutFlags) -> Result<(), VnodeError> {
        let first = run[0].slot;
        let areas = self.space().areas();
        let area = areas.get(first.area).expect("W2: an area with slots in use stays");
        let frames: Vec<Pfn> = run.iter().map(|p| p.dirty.page.pfn()).collect();
        let whole = self.transfer(cx, area, first, &frames);
        debug_assert!(
            run.iter().all(|p| self.keeps_slot(cx, area, p)),
            "U2: the slot that is written is its page's until that is done"
        );
        let mut odds = match whole.is_err() && frames.len() > 1 {
            true if area.is_failing() => ODDS - 1,
            true => ODDS,
            false => 0,
        };
        let (mut works, mut result) = (whole.is_ok(), Ok(()));
        for (Placed { n, dirty, slot }, frame) in run.into_iter().zip(&frames) {
            let wrote = match odds {
                0 => whole,
                _ => self.transfer(cx, area, slot, core::slice::from_ref(frame)),
            };
            if odds != 0 {
                odds = if wrote.is_ok() { odds + 1 } else { odds - 1 };
                works |= wrote.is_ok();
            }
            if area.note_write(works) && works {
                self.sweeps.forget(); // K2: after the mark is gone
            }
            // G4: after the mark is set.
            if wrote.is_err() && self.names().change(n, Place::At(slot), Place::Nowhere) {
                self.space().free(cx, slot); // what it holds now is nobody's page
            }
            let Identity { vnode, offset } = dirty.identity;
            let done = pvn::write_done(cx, self.db(), dirty, wrote.is_ok(), flags);
            let wrote = wrote.map_err(|e| VnodeError::Io { vnode, offset, errno: e.errno });
            result = result.and(wrote).and(done);
        }
        result
    }
    /// Whether the slot is the page's still: its name's word says so, or the name has ended and nobody else has taken the slot since (K1).
    fn keeps_slot(&self, cx: &Cx, area: &SwapArea, p: &Placed<'_>) -> bool {
        let index = p.slot.index;
        let taken = || area.slots.lock(cx).is_taken(index) && area.owner(index) == Some(p.n);
        match self.names().place(p.n) {
            Place::Dead => taken(),
            place => place.slot() == Some(p.slot),
        }
    }
    /// Writes frames to the slots from `first` on. held: the pages (shared, i/o)
    fn transfer(
        &self,
        cx: &Cx,
        area: &SwapArea,
        first: PhysSlot,
        frames: &[Pfn],
    ) -> Result<(), DeviceError> {
        let to = area.start() + u64::from(first.index);
        if cx.fails(FailKind::DeviceWrite) {
            return Err(DeviceError { op: DeviceOp::Write, page: to, errno: errno::EIO });
        }
        cx.blocking(|| area.device().write(cx, to, frames, self.db().mem()))?;
        cx.count(Counter::PgOut);
        cx.count_n(Counter::PgPgOut, frames.len() as u64);
        cx.count_n(Counter::AnonPgOut, frames.len() as u64);
        Ok(())
    }
}

/// Whether `next` lies right behind the run on the same area.
fn follows(run: &[Placed<'_>], next: &Placed<'_>) -> bool {
    let last = run[run.len() - 1].slot;
    next.slot.area == last.area && next.slot.index == last.index + 1
}
