//! Showing a range twice: a fork of a part of it, with nothing copied on write.
//!
//! Each driver makes one that shares ([`share`](crate::extract::Extract::share)), for this address space or another. A driver may have to make pages of its own to
//! share, as for one that is locked in memory and is the file's still; whoever stores to the file is not seen there any more. So what can be known to be
//! refused is asked for before the first driver makes anything:
//!
//! ```text
//!   place    something at `to`, no room for segments     refused; nothing has changed
//!   check    a hole, a driver that cannot, pins, limits  the same
//!   make     one driver for each piece                   no memory, no swap, a stranger's hold on a page: what was made is freed again; but
//!                                                        locked pages below may have become their mapping's own
//!   commit                                               nothing fails
//! ```
//!
//! Sources: uvm.md 5.6.

use super::extract::{Made, extract, insert_all, mapped, moved};
use super::{Redo, Stop};
use crate::addr_space::AddrSpace;
use crate::error::{AsError, SegError};
use crate::extract::Continued;
use crate::segs::{Mark, Segs};
use page_db::{Cx, VirtAddr, VirtRange};

impl AddrSpace {
    /// Shows what is mapped in `from` a second time, at `to` in `into` (which may be this address space): what is stored on either side is seen on both, and
    /// nothing is copied. `to` must be free. Locks in memory do not come along.
    ///
    /// # Errors
    /// [`AsError::Foreign`] when `into` is another machine's, [`AsError::Unmapped`] at a hole, [`SegError::NotSupported`], [`AsError::Overlap`], [`SegError::Pinned`] while somebody, here or elsewhere, has pages
    /// pinned that would be replaced (whoever holds two locks waits for nobody), and whatever a new mapping in `into` may answer; `into` is as it
    /// was, and so is this address space, but that after a driver's error, or for want of memory, pages of it which are locked in memory may have been copied.
    ///
    /// # Locks
    /// Takes both locks as writer, that of the lower number first.
    #[doc(alias = "uvm_map_extract")]
    pub fn share_range(
        &self,
        cx: &Cx,
        from: VirtRange,
        into: &Self,
        to: VirtAddr,
    ) -> Result<(), AsError> {
        let to = from.at(to.get())?;
        self.check_machine("an address space", into)?;
        self.check_limits(from)?;
        into.check_limits(to)?;
        let mut redo = Redo::new(self, cx, 1).over(from);
        let to_lock = loop {
            let mut made = Made::default();
            let done = self.share_pass(cx, from, into, to, &mut made);
            // held: nothing
            into.give_back(cx, made);
            match done {
                Ok(to_lock) => break to_lock,
                Err(Stop::Seg { error: SegError::Pinned { .. }, .. }) if redo.held_a_moment() => {}
                Err(Stop::Seg { error, .. }) => redo.after(error)?,
                Err(Stop::Space(error)) => return Err(error),
                Err(Stop::Hole(addr)) => return Err(AsError::Unmapped { addr }),
            }
        };
        let Some(mark) = to_lock else { return Ok(()) };
        let done = into.lock_marked(cx, to, mark);
        into.forget_mark(cx, to, mark);
        done
    }
    /// Says by what mark what is shown is to be locked, if all future memory of `into` is.
    fn share_pass(
        &self,
        cx: &Cx,
        from: VirtRange,
        into: &Self,
        to: VirtRange,
        made: &mut Made,
    ) -> Result<Option<Mark>, Stop> {
        if core::ptr::eq(self, into) {
            let mut segs = self.lock.write(cx);
            let n = segs.pieces(cx, from).count();
            into.room_for(cx, &mut segs, to, n)?;
            let left_out = segs.left_out_at(from, to).map_err(Stop::Space)?;
            self.check_shares(cx, &segs, from, into)?;
            self.make_shares(cx, &segs, from, into, to, made)?;
            segs.make_room_for(&left_out, None).map_err(Stop::Space)?;
            let mark = into.mark_shown(&mut segs, to)?;
            segs.note_left_out(&left_out, None);
            self.shares_done(cx, &segs, from, made);
            insert_all(&mut segs, made);
            return Ok(mark);
        }
        let first_is_ours = self.id() < into.id();
        let mut theirs = (!first_is_ours).then(|| into.lock.write(cx));
        let segs = if first_is_ours { self.lock.write(cx) } else { self.lock.write_nested(cx) };
        let theirs = theirs.get_or_insert_with(|| into.lock.write_nested(cx));
        // held: both as (write)
        into.room_for(cx, theirs, to, segs.pieces(cx, from).count())?;
        let left_out = segs.left_out_at(from, to).map_err(Stop::Space)?;
        self.check_shares(cx, &segs, from, into)?;
        self.make_shares(cx, &segs, from, into, to, made)?;
        theirs.make_room_for(&left_out, None).map_err(Stop::Space)?;
        let mark = into.mark_shown(theirs, to)?;
        theirs.note_left_out(&left_out, None);
        self.shares_done(cx, &segs, from, made);
        insert_all(theirs, made);
        Ok(mark)
    }
    /// Marks what comes to lie at `to`, where nothing is, if all future memory is to be locked. Nothing fails after that.
    fn mark_shown(&self, segs: &mut Segs, to: VirtRange) -> Result<Option<Mark>, Stop> {
        let mark = self.state.lock_future().then(|| self.new_mark());
        if let Some(mark) = mark {
            segs.make_room_to_mark(to).map_err(Stop::Space)?;
            segs.mark(to, mark);
        }
        Ok(mark)
    }
    /// Sees to it that `n` segments can be added at `to`.
    fn room_for(&self, cx: &Cx, segs: &mut Segs, to: VirtRange, n: usize) -> Result<(), Stop> {
        self.check_free(cx, segs, to).map_err(Stop::Space)?;
        segs.reserve(cx, n).map_err(Stop::Space)
    }
    /// What would refuse one of the pieces when those below have been made.
    fn check_shares(&self, cx: &Cx, segs: &Segs, from: VirtRange, into: &Self) -> Result<(), Stop> {
        let mut coming = 0_u64;
        for piece in segs.pieces(cx, from) {
            let (seg, piece) = mapped(piece)?;
            let scx = self.scx(cx, seg.range(), true);
            let may = extract(seg).and_then(|extract| extract.may_share(&scx, piece));
            may.map_err(|error| Stop::Seg { error, seg: seg.range() })?;
            into.state.check_resv(coming.saturating_add(piece.len())).map_err(Stop::Space)?;
            coming += self.counts(cx, seg, piece);
        }
        Ok(())
    }
    fn make_shares(
        &self,
        cx: &Cx,
        segs: &Segs,
        from: VirtRange,
        into: &Self,
        to: VirtRange,
        made: &mut Made,
    ) -> Result<(), Stop> {
        for piece in segs.pieces(cx, from) {
            let (seg, piece) = mapped(piece)?;
            let scx = self.scx(cx, seg.range(), true);
            let place = moved(piece, from, to);
            into.state.check_resv(place.len()).map_err(Stop::Space)?;
            into.make_one(cx, seg, place, made, |extract, to| {
                extract.share(&scx, piece, to).map(Continued::Made)
            })?;
            into.count_made(cx, made)?;
        }
        Ok(())
    }
    /// Nothing fails any more: tells the drivers of `from`.
    fn shares_done(&self, cx: &Cx, segs: &Segs, from: VirtRange, made: &Made) {
        for ((seg, piece), made) in segs.pieces(cx, from).flatten().zip(&made.segs) {
            seg.ops().dup_done(&self.scx(cx, seg.range(), true), piece, &*made.ops);
        }
    }
}
