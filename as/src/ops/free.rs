//! The end of an address space, and the part of it that may be thrown away before.
//!
//! Sources: illumos.md 3.2.

use super::unmap::Gone;
use super::{OnPinned, Redo, Stop};
use crate::addr_space::AddrSpace;
use crate::callback::Events;
use crate::error::{AsError, SegError};
use crate::hat::UnloadFlags;
use crate::seg::SegKind;
use crate::segs::{Seg, Segs};
use page_db::sync::atomic::Ordering;
use page_db::{Cx, VirtRange};

impl AddrSpace {
    /// Unmaps everything and gives the translations back. Runs every callback first, whatever it was registered for; while pages are pinned it runs
    /// those that come late, and waits.
    ///
    /// Afterwards the space is empty and stays so: nothing can be mapped, no callback is taken, other operations find nothing. Freeing twice does
    /// nothing. A segment whose driver will not let go goes all the same, with its translations; what the driver holds is the driver's. A thread that still runs in the space faults from the beginning of this on, and its faults find nothing.
    #[doc(alias = "as_free")]
    pub fn free(&self, cx: &Cx) {
        if self.freed.swap(true, Ordering::AcqRel) {
            return;
        }
        while self.run_callback(cx, Events::all(), None) {}
        self.hat.free_start(cx); // after the mark: who is put out faults, and must not be told to try again
        let mut redo = Redo::new(self, cx, 0);
        let mut hopeless = None;
        loop {
            let epoch = self.state.pin_epoch();
            let mut gone = Gone::default();
            let given_up = hopeless.take();
            if given_up.is_some() {
                redo = Redo::new(self, cx, 0); // the others have their own tries
            }
            let refused = self.free_pass(cx, &mut self.lock.write(cx), given_up, &mut gone);
            // held: nothing
            self.finish(cx, gone);
            match refused {
                None => break,
                // One that came since.
                Some((SegError::Pinned { .. }, _)) => {
                    if !self.run_callback(cx, Events::all(), None) {
                        self.state.wait_unpinned(cx, self.db.waits(), epoch);
                    }
                }
                Some((error, seg)) => hopeless = redo.after(error).err().map(|_| seg),
            }
        }
        while self.run_last_callback(cx) {} // the last time that anybody can be told (Q4)
        self.hat.free_end(cx);
    }
    /// Unmaps segment after segment, and closes the space, but for a segment that refuses. One that is hopeless is not asked again.
    fn free_pass(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        hopeless: Option<VirtRange>,
        gone: &mut Gone,
    ) -> Option<(SegError, VirtRange)> {
        segs.forget_all();
        if let Some(seg) = hopeless {
            self.abandon(cx, segs, seg, gone);
        }
        if let Err(Stop::Seg { error, seg }) = self.unmap_pass(cx, segs, self.limits(), gone) {
            return Some((error, seg));
        }
        segs.close();
        None
    }
    /// Removes a segment whose driver refuses to go, which no driver may; its translations go all the same.
    #[cold]
    pub(super) fn abandon(&self, cx: &Cx, segs: &mut Segs, seg: VirtRange, gone: &mut Gone) {
        self.hat.unload(cx, seg, UnloadFlags::UNMAP | UnloadFlags::UNLOCK);
        if let Some((id, range)) = segs.find(cx, seg.start().get()) {
            self.state.sub_resv(self.resv_of(cx, range, segs.get(id).ops()));
            self.state.sub_size(range.len());
            let _ = gone.keep(segs.remove(id)); // else it is dropped here and now
        }
    }
    /// Unmaps every segment that may be thrown away, and waits for pins of theirs. What is mapped meanwhile stays, unless it may be thrown away too.
    ///
    /// # Errors
    /// A driver's; the segments below are gone.
    #[doc(alias("as_purge", "AS_NEEDSPURGE"))]
    pub fn purge(&self, cx: &Cx) -> Result<(), AsError> {
        self.purge_but(cx, None)
    }
    /// The same, but for what lies in `spared`.
    ///
    /// # Errors
    /// As [`AddrSpace::purge`].
    pub(super) fn purge_but(&self, cx: &Cx, spared: Option<VirtRange>) -> Result<(), AsError> {
        let pass = |gone: &mut Gone| self.purge_pass(cx, &mut self.lock.write(cx), spared, gone);
        self.redo_taking(cx, OnPinned::Wait(Events::UNMAP), pass)
    }
    /// What may be thrown away is looked for and goes under one hold of the lock: later its addresses may be somebody else's.
    fn purge_pass(
        &self,
        cx: &Cx,
        segs: &mut Segs,
        spared: Option<VirtRange>,
        gone: &mut Gone,
    ) -> Result<(), Stop> {
        let mut at = segs.find_or_next(cx, self.limits().start().get());
        while let Some(id) = at {
            at = segs.next_id(id);
            if is_disposable(&segs.get(id), spared) {
                let range = segs.range(id);
                self.unmap_pass(cx, segs, range, gone)?;
            }
        }
        Ok(())
    }
    /// Whether there is anything to throw away but in `spared`.
    pub(super) fn needs_purge(&self, cx: &Cx, spared: Option<VirtRange>) -> bool {
        self.lock.read(cx).iter().any(|seg| is_disposable(&seg, spared))
    }
}

/// Whether the segment may be thrown away, and has no page in `spared`: it goes whole or not at all.
fn is_disposable(seg: &Seg<'_>, spared: Option<VirtRange>) -> bool {
    let wanted = spared.is_some_and(|range| range.intersect(seg.range()).is_some());
    seg.ops().kind().contains(SegKind::PURGE) && !wanted
}
