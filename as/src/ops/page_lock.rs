//! Pinning pages for i/o.
//!
//! The fast way asks each driver for its pages. If one has none to offer, what was pinned is given up again and the whole range is locked by
//! a soft-lock fault, which every driver can do; then nobody knows the pages, only that they stay.
//!
//! Sources: illumos.md 3.10.

use crate::addr_space::AddrSpace;
use crate::error::{AsError, Owner};
use crate::fault::{FaultError, FaultKind};
use crate::seg::PageList;
use crate::segs::Segs;
use crate::state::AsId;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::{Access, Cx, Owed, PageDb, PageId, VirtRange, errno};

/// Pages pinned by [`AddrSpace::lock_pages`]; given back to [`AddrSpace::unlock_pages`] of the same address space, no other takes them. What is dropped
/// instead stays pinned, and whoever unmaps it sleeps for ever; a debug build panics at once ([`page_db::owed`]).
#[must_use = "pinned pages stay pinned until they are given back"]
#[derive(Debug)]
pub struct PinnedPages {
    /// Where.
    space: AsId,
    db: Arc<PageDb>,
    range: VirtRange,
    access: Access,
    /// Each segment's own list, in order of address; `None` when the range is soft-locked.
    lists: Option<Vec<(VirtRange, PageList)>>,
    owed: Owed,
}

impl PinnedPages {
    /// The range.
    pub fn range(&self) -> VirtRange {
        self.range
    }
    /// What the pages were pinned for.
    pub fn access(&self) -> Access {
        self.access
    }
    /// The pages in order of address (the shadow list); `None` when they are known only to the translations.
    #[doc(alias = "shadow list")]
    pub fn pages(&self) -> Option<impl Iterator<Item = PageId> + '_> {
        let lists = self.lists.as_ref()?;
        Some(lists.iter().flat_map(|(_, list)| list.pages.iter().copied()))
    }
    /// Leaves the pages pinned, for good: for a machine that ends with them.
    pub fn abandon(self) {
        self.owed.paid();
    }
}

impl AddrSpace {
    /// Pins the pages of `range` for i/o that reads or writes memory, as `access` says.
    ///
    /// # Errors
    /// [`FaultError::NoMap`] at a hole (`EFAULT`), a driver's error, or that of the soft lock; nothing is pinned.
    #[doc(alias = "as_pagelock")]
    pub fn lock_pages(
        &self,
        cx: &Cx,
        range: VirtRange,
        access: Access,
    ) -> Result<PinnedPages, AsError> {
        self.check_limits(range)?;
        let lists = match self.pin_pass(cx, range, access) {
            Ok(lists) => Some(lists),
            Err(AsError::Seg(error))
                if [errno::ENOTSUP, errno::EFAULT].contains(&error.errno()) =>
            {
                self.fault(cx, range, FaultKind::SoftLock, access)?;
                None
            }
            Err(error) => return Err(error),
        };
        let owed = Owed::new(&"pinned pages (AddrSpace::unlock_pages)");
        Ok(PinnedPages { space: self.id(), db: Arc::clone(&self.db), range, access, lists, owed })
    }
    fn pin_pass(
        &self,
        cx: &Cx,
        range: VirtRange,
        access: Access,
    ) -> Result<Vec<(VirtRange, PageList)>, AsError> {
        let segs = self.lock.read(cx);
        let mut lists = Vec::new();
        for piece in segs.pieces(cx, range) {
            let pinned = match piece {
                Ok(_) if lists.try_reserve(1).is_err() => {
                    Err(AsError::NoHeap { what: "page list" })
                }
                Ok((seg, piece)) => {
                    let scx = self.scx(cx, seg.range(), false);
                    let list = seg.ops().lock_pages(&scx, piece, access);
                    list.map(|list| (piece, list)).map_err(AsError::Seg)
                }
                Err(hole) => Err(AsError::Fault(FaultError::NoMap { addr: hole.addr })),
            };
            match pinned {
                Ok(list) => lists.push(list),
                Err(error) => {
                    self.unpin(cx, &segs, access, lists);
                    return Err(error);
                }
            }
        }
        Ok(lists)
    }
    /// Gives back what [`AddrSpace::lock_pages`] pinned.
    ///
    /// # Errors
    /// [`AsError::Foreign`] for what another address space has pinned; it stays pinned, and is handed back.
    #[doc(alias = "as_pageunlock")]
    pub fn unlock_pages(&self, cx: &Cx, pinned: PinnedPages) -> Result<(), (AsError, PinnedPages)> {
        let here = Arc::ptr_eq(&pinned.db, &self.db);
        if !here || pinned.space != self.id() {
            let owner = if here { Owner::Space(pinned.space) } else { Owner::Machine };
            let foreign = AsError::Foreign { what: "pinned pages", owner, id: self.id() };
            return Err((foreign, pinned));
        }
        pinned.owed.paid();
        match pinned.lists {
            Some(lists) => self.unpin(cx, &self.lock.read(cx), pinned.access, lists),
            None => {
                let undone = self.fault(cx, pinned.range, FaultKind::SoftUnlock, pinned.access);
                debug_assert!(undone.is_ok(), "what was soft-locked is still there: {undone:?}");
            }
        }
        Ok(())
    }
    fn unpin(&self, cx: &Cx, segs: &Segs, access: Access, lists: Vec<(VirtRange, PageList)>) {
        for (piece, list) in lists {
            let seg = segs.seg_at(cx, piece.start());
            debug_assert!(seg.is_some(), "a segment with pinned pages cannot be unmapped");
            if let Some(seg) = seg {
                seg.ops().unlock_pages(&self.scx(cx, seg.range(), false), piece, access, list);
            }
        }
    }
}
