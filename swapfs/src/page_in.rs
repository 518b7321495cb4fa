//! Getting the page of an anon: found, read back, or made of zeros.
//!
//! ```text
//!   page hash ── hit ──▶ the page, shared                        (from the cache list, too: no read)
//!      │ miss
//!      └▶ make it, exclusive ─▶ the word says
//!            slot     read it ─▶ slot freed, page modified ─▶ shared
//!                         └ error ─▶ page destroyed, word says bad, slot of no use to anybody else (V4) ─▶ EIO
//!            nowhere  zeros, clean: evicting it loses nothing
//!            bad      EIO, nothing is read
//!            borrowed nothing is made: the lender's page is adopted or copied ([`super::borrow`])
//!            dead     no such name
//! ```
//!
//! The slot goes as soon as the read has succeeded, and the page owes a write from then on (the crate's theory says why).
//! Sources: illumos.md 6.2; uvm.md 2.6.

use crate::area::AreaId;
use crate::device::{DeviceError, DeviceOp};
use crate::fs::SwapFs;
use crate::name::{AnonNumber, Place};
use page_db::pvn::Filling;
use page_db::selock::{ExclPage, LockedPage as _};
use page_db::{
    Counter, Cx, FailKind, GotPage, Identity, PAGE_SIZE, PageDb, PageError, Prot, RefMod, Reserve,
    VnodeError, errno,
};

impl SwapFs {
    /// Finds the anon's page, or reads it from its slot, or makes it of zeros; shared-locked. `colour` matters when a frame is taken.
    ///
    /// # Errors
    /// [`VnodeError::NoMemory`], [`VnodeError::Io`] (now or ever: the bytes are lost), [`VnodeError::NoName`]; [`VnodeError::Deadlock`] where the bytes are
    /// a lender's, whose page somebody has.
    ///
    /// # Locks
    /// A reference on the anon is held, no page lock.
    #[doc(alias("anon_getpage", "swap_getapage"))]
    pub fn get_page<'a>(
        &'a self,
        cx: &'a Cx,
        n: AnonNumber,
        colour: u64,
    ) -> Result<GotPage<'a>, VnodeError> {
        self.get_page_in(cx, self.db(), n, colour)
    }
    pub(crate) fn get_page_in<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        n: AnonNumber,
        colour: u64,
    ) -> Result<GotPage<'a>, VnodeError> {
        let id = self.identity(n);
        loop {
            if let Some(page) = db.lookup_shared(cx, id) {
                return Ok(GotPage { page, prot: Prot::all(), read: false });
            }
            let place = self.names().place(n);
            if let Place::Borrowed(lender) = place {
                if let Some(page) = self.end_borrow(cx, db, n, lender, colour)? {
                    return Ok(GotPage { page, prot: Prot::all(), read: false });
                }
                continue;
            }
            self.readable(id, place)?;
            match db.create(cx, id, colour, Reserve::Normal) {
                Ok(page) => {
                    if let Some(got) = self.fill(cx, db, n, page)? {
                        return Ok(got);
                    }
                }
                Err(PageError::Exists(_)) => {} // lost a race: look again
                Err(_) => return Err(VnodeError::NoMemory { vnode: id.vnode, offset: id.offset }),
            }
        }
    }
    /// Sees to it that the page of a name that is stored in `area` is in memory, for somebody who holds no reference to the anon: by the time there is a frame
    /// the number may have been given back, and out again. So nothing is made but what is read from there; a page of zeros, or one that is in the way of
    /// what another anon has under the name, never stays.
    ///
    /// # Errors
    /// As [`SwapFs::get_page`].
    pub(crate) fn bring_in(&self, cx: &Cx, n: AnonNumber, area: AreaId) -> Result<(), VnodeError> {
        let (db, id) = (self.db(), self.identity(n));
        if db.lookup_shared(cx, id).is_some() {
            return Ok(());
        }
        let page = match db.create(cx, id, u64::from(n.get()), Reserve::Normal) {
            Ok(page) => page,
            Err(PageError::Exists(_)) => return Ok(()),
            Err(_) => return Err(VnodeError::NoMemory { vnode: id.vnode, offset: id.offset }),
        };
        let page = Filling::of(page);
        // W1: the word is believed only now.
        match self.names().place(n) {
            Place::At(slot) if slot.area == area => {
                self.read_slot(cx, db, n, &page)?;
                drop(page.done());
                Ok(())
            }
            other => self.readable(id, other),
        }
    }
    fn readable(&self, id: Identity, place: Place) -> Result<(), VnodeError> {
        let Identity { vnode, offset } = id;
        match place {
            Place::Dead => Err(VnodeError::NoName { vnode, offset }),
            Place::Bad(_) => Err(VnodeError::Io { vnode, offset, errno: errno::EIO }),
            Place::Nowhere | Place::At(_) | Place::Borrowed(_) => Ok(()),
        }
    }
    /// Gives a page just made its contents; `None` when there are none to give: the number is another anon's by now, which has borrowed its bytes. held:
    /// page (exclusive, i/o)
    fn fill<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        n: AnonNumber,
        page: ExclPage<'a>,
    ) -> Result<Option<GotPage<'a>>, VnodeError> {
        let page = Filling::of(page);
        // The word is believed only now, under the page's lock (W1).
        let read = match self.names().place(n) {
            Place::At(_) => {
                self.read_slot(cx, db, n, &page)?;
                true
            }
            Place::Nowhere => {
                db.mem().zero(page.pfn());
                cx.count_n(Counter::BytesZeroed, PAGE_SIZE);
                false
            }
            other => return self.readable(self.identity(n), other).map(|()| None),
        };
        Ok(Some(GotPage { page: page.done().downgrade(), prot: Prot::all(), read }))
    }
    fn read_slot(
        &self,
        cx: &Cx,
        db: &PageDb,
        n: AnonNumber,
        page: &ExclPage<'_>,
    ) -> Result<(), VnodeError> {
        let Identity { vnode, offset } = self.identity(n);
        let no_name = VnodeError::NoName { vnode, offset };
        let at = self.names().place(n);
        let slot = at.slot().ok_or(no_name)?;
        let areas = self.space().areas();
        let area = areas.get(slot.area).ok_or(no_name)?;
        let from = area.start() + u64::from(slot.index);
        let read = if cx.fails(FailKind::DeviceRead) {
            Err(DeviceError { op: DeviceOp::Read, page: from, errno: errno::EIO })
        } else {
            cx.blocking(|| area.device().read(cx, from, page.pfn(), db.mem()))
        };
        match read {
            Ok(()) => {
                // Only a free that runs beside a removal can have changed the word meanwhile.
                if !self.names().change(n, at, Place::Nowhere) {
                    return Err(no_name);
                }
                area.free(cx, slot.index);
                page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
                cx.count(Counter::PgIn);
                cx.count(Counter::PgPgIn);
                cx.count(Counter::AnonPgIn);
                Ok(())
            }
            Err(e) => {
                if !self.names().change(n, at, Place::Bad(slot)) {
                    return Err(no_name); // so that it was nobody's bytes that could not be read
                }
                area.slots.lock(cx).mark_bad(slot.index);
                Err(VnodeError::Io { vnode, offset, errno: e.errno })
            }
        }
    }
    /// Reads the anon's page if it is stored and absent; nothing otherwise.
    ///
    /// # Errors
    /// As [`SwapFs::get_page`].
    #[doc(alias = "segvn_faulta")]
    pub fn read_ahead(&self, cx: &Cx, n: AnonNumber) -> Result<(), VnodeError> {
        if self.names().place(n).slot().is_none()
            || self.db().exists(cx, self.identity(n)).is_some()
        {
            return Ok(());
        }
        self.get_page(cx, n, u64::from(n.get())).map(drop)
    }
}
