//! Watching bytes, and letting accesses beside them through ([`crate::watch`]).
//!
//! Setting and taking back hold the lock as writer, so no driver is loading a translation meanwhile. Rights are taken from the translations that
//! are there; given back they are by the next fault, as ever, which finds no translation: one that lacks a right may be the segment's last word.
//!
//! Sources: illumos.md 3.7.

use super::Redo;
use super::fault::is_transient;
use crate::addr_space::AddrSpace;
use crate::error::{AsError, SegError};
use crate::fault::{FaultError, FaultKind};
use crate::hat::UnloadFlags;
use crate::seg::SegCx;
use crate::segs::Segs;
use crate::watch::{Areas, MoveHat, Moved, WatchArea, WatchError, WatchFlags, WatchHit};
use alloc::vec::Vec;
use page_db::{Access, Cx, PAGE_SIZE, VirtAddr, VirtRange};

impl AddrSpace {
    /// Watches the bytes of `area`, mapped or not, from now on, whatever comes to be mapped there. A watch on the very same bytes is replaced.
    ///
    /// # Errors
    /// [`WatchError::Invalid`] for no bytes, nothing to wait for, and what may not be mapped here; [`WatchError::Overlap`]; [`SegError::Pinned`] while
    /// pages of a segment there are pinned for i/o; [`AsError::NoHeap`]. Nothing has changed.
    #[doc(alias("PCWATCH", "set_watched_area", "as_setwatch"))]
    pub fn watch(&self, cx: &Cx, area: WatchArea) -> Result<(), AsError> {
        let all = WatchFlags::READ | WatchFlags::WRITE | WatchFlags::EXEC;
        let pages = self.watchable(area.start, area.len)?;
        if !area.flags.intersects(all) || WatchFlags::from_bits(area.flags.bits()).is_none() {
            return Err(invalid(area.start, area.len));
        }
        self.change_watches(cx, pages, |areas| areas.with(area))
    }
    /// Takes the watch on exactly these bytes back.
    ///
    /// # Errors
    /// [`WatchError::NotFound`], and as [`AddrSpace::watch`].
    #[doc(alias("clear_watched_area", "as_clearwatch"))]
    pub fn unwatch(&self, cx: &Cx, start: VirtAddr, len: u64) -> Result<(), AsError> {
        let pages = self.watchable(start, len)?;
        self.change_watches(cx, pages, |areas| areas.without(start, len))
    }
    /// The watches, in order of address.
    pub fn watches(&self) -> Vec<WatchArea> {
        self.watch.areas().map_or_else(Vec::new, |areas| areas.list().to_vec())
    }
    /// Whether anything is watched.
    #[doc(alias = "pr_watch_active")]
    pub fn is_watched(&self) -> bool {
        self.watch.hat().is_some()
    }
    /// Whether the translation of the page at `addr` lacks the right to `access` it because of a watch.
    #[doc(alias = "pr_is_watchpage")]
    pub fn is_watched_page(&self, addr: VirtAddr, access: Access) -> bool {
        self.watch.areas().is_some_and(|areas| areas.taken(addr).allows(access))
    }
    /// Where an access to `len` bytes at `addr` meets a watch that waits for it first.
    pub fn watch_hit(&self, addr: VirtAddr, len: u64, access: Access) -> Option<WatchHit> {
        self.watch.areas()?.hit(addr, len, access)
    }
    /// Makes an access that a watch keeps the hardware from making: the bytes lie beside the watched ones of their page, or the trap is over. They are moved
    /// as the thread would have moved them, with a fault before it that resolves what must be. `seen` is the watch among the bytes that the caller knows of and
    /// will tell the thread of afterwards ([`AddrSpace::watch_hit`] of these bytes); with any other there by now they are not moved.
    ///
    /// # Errors
    /// As [`AddrSpace::fault`]; [`FaultError::Object`] with `EINTR` when another watch has come to be, or that one has gone: look again; [`FaultError::Align`] for bytes of two pages, [`FaultError::Hardware`] where no memory is. No byte has been moved.
    ///
    /// # Locks
    /// On entry: nothing of this address space. Takes the lock as writer.
    #[doc(alias("pr_mappage", "do_watch_step", "watch_copyin", "watch_copyout"))]
    pub fn access_watched(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        mut bytes: Moved<'_>,
        seen: Option<WatchHit>,
    ) -> Result<(), FaultError> {
        let (access, page) = (bytes.access(), VirtRange::page_of(addr));
        if bytes.len() > PAGE_SIZE - addr.page_offset() {
            return Err(FaultError::Align { addr });
        }
        if cx.reads_any() {
            // Whoever looks at the segments meanwhile would wait for itself.
            return Err(FaultError::Object { addr, errno: page_db::errno::EBUSY });
        }
        let mut redo = Redo::new(self, cx, 1);
        loop {
            // What takes long is done as any fault does it, beside other threads; the driver sends us back here if it must be done again.
            self.fault(cx, page, FaultKind::Invalid, access)?;
            match self.move_pass(cx, page, addr, bytes.again(), seen) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(FaultError::Hardware { addr }),
                Err(error) if is_transient(&error) => self.amend(&mut redo, error)?,
                Err(error) => return Err(error),
            }
        }
    }
    /// Answers whether the bytes have been moved; once they have, nothing that comes after fails.
    fn move_pass(
        &self,
        cx: &Cx,
        page: VirtRange,
        addr: VirtAddr,
        bytes: Moved<'_>,
        seen: Option<WatchHit>,
    ) -> Result<bool, FaultError> {
        let access = bytes.access();
        let segs = self.lock.write(cx);
        // held: as (write): nobody changes the rights, or what is watched, between the look at them and the move
        if self.watch_hit(addr, bytes.len(), access) != seen {
            return Err(FaultError::Object { addr, errno: page_db::errno::EINTR });
        }
        let Some(seg) = segs.seg_at(cx, page.start()) else {
            return Err(FaultError::NoMap { addr: page.start() });
        };
        let scx = self.scx(cx, seg.range(), true);
        let hat = MoveHat::new(scx.hat, self.db.mem(), addr, bytes);
        let done = seg.ops().fault(&SegCx { hat: &hat, ..scx }, page, FaultKind::Invalid, access);
        if hat.is_done() { Ok(true) } else { done.map(|()| false) }
    }
    /// The pages of bytes that may be watched.
    fn watchable(&self, start: VirtAddr, len: u64) -> Result<VirtRange, AsError> {
        let pages = VirtRange::covering(start.get(), len).ok();
        let mine = |pages: &VirtRange| len != 0 && self.limits().covers(*pages);
        pages.filter(mine).filter(|_| !self.state.is_kernel()).ok_or_else(|| invalid(start, len))
    }
    fn change_watches(
        &self,
        cx: &Cx,
        pages: VirtRange,
        change: impl FnOnce(&Areas) -> Result<Option<Areas>, WatchError>,
    ) -> Result<(), AsError> {
        let segs = self.lock.write(cx);
        // held: as (write)
        if segs.is_closed() {
            return Err(AsError::Freed { id: self.id() });
        }
        let now = self.watch.areas();
        let none = Areas::default();
        let before = now.as_deref().unwrap_or(&none);
        let changed = change(before)?;
        let Some(changed) = changed else { return Err(AsError::NoHeap { what: "watch" }) };
        self.check_unpinned(cx, &segs, pages)?;
        self.watch.set(changed, &self.hat, self.db.hooks());
        // Nothing fails from here on.
        let after = self.watch.areas();
        before.runs(pages, |run, had| {
            after.as_deref().unwrap_or(&none).runs(run, |run, taken| {
                // A driver need not be asked for a right that a translation lacks (a device's answers that the segment does not allow it): what was loaded
                // with less than the segment gives goes as well.
                let given_back = had.allows(Access::Write) && !taken.allows(Access::Write);
                if taken.allows(Access::Read) || given_back {
                    self.hat.unload(cx, run, UnloadFlags::empty());
                } else if taken.allows(Access::Write) {
                    self.hat.clear_write(cx, run);
                }
            });
        });
        Ok(())
    }
    /// Translations of pinned pages are counted by the hat: they must neither go nor come while they are.
    fn check_unpinned(&self, cx: &Cx, segs: &Segs, pages: VirtRange) -> Result<(), AsError> {
        let mut at = segs.find_or_next(cx, pages.start().get());
        while let Some(id) = at.filter(|id| segs.range(*id).intersect(pages).is_some()) {
            let range = segs.range(id);
            if segs.get(id).ops().detail(&self.scx(cx, range, true)).softlocks != 0 {
                return Err(SegError::Pinned { range }.into());
            }
            at = segs.next_id(id);
        }
        Ok(())
    }
}

fn invalid(start: VirtAddr, len: u64) -> AsError {
    WatchError::Invalid { start: start.get(), len }.into()
}
