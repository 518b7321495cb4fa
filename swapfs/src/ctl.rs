//! Areas come and go.
//!
//! ```text
//!   add      look for an overlap ─▶ prepare the device ─▶ publish the area ─▶ ani_max grows ─▶ promises move from memory to the new disk
//!   remove   shut the area ─▶ ani_max shrinks, its promises move to memory ─▶ bring back every page stored there ─▶ unpublish
//!                    └──────── anything fails, or an add of the same range calls it off: all of this undone
//! ```
//!
//! Media are compared, not names (illumos compares vnodes), and a device is touched only once its range is known to be nobody's: an add that is
//! refused must not harm the area it is refused for.
//!
//! Nothing is held while pages are brought back. Anons may be freed meanwhile, and pushes that took their slots before the area was
//! shut come to an end; the walk is repeated until no slot of the area is owned. Slots gone bad stay behind.
//!
//! Sources: illumos.md 6.5; uvm.md 6.5.

use crate::area::{AreaId, PhysSlot, Slots, SwapArea};
use crate::device::SwapDevice;
use crate::dump::AreaInfo;
use crate::error::SwapError;
use crate::fs::SwapFs;
use crate::name::{AnonNumber, Place};
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::selock::LockedPage as _;
use page_db::{Cx, MemoryTries, RefMod, VnodeError};

impl SwapFs {
    /// Adds pages `start_page..start_page + pages` of a device. Areas of higher priority fill first. Exactly the range of an area that is
    /// being removed calls the removal off and answers that area's id.
    ///
    /// No page is skipped for a disk label: whoever has one says so by `start_page`.
    ///
    /// # Errors
    /// [`SwapError::EmptyRange`], [`SwapError::OutsideDevice`], [`SwapError::Overlap`], [`SwapError::TooManyAreas`], [`SwapError::NoHeap`], and
    /// [`SwapError::Device`] when the device cannot be prepared; nothing has changed.
    #[doc(alias("swapadd", "SC_ADD"))]
    pub fn add(
        &self,
        cx: &Cx,
        device: Arc<dyn SwapDevice>,
        start_page: u64,
        pages: u64,
        priority: i16,
    ) -> Result<AreaId, SwapError> {
        let (name, medium, size) = (device.name(), device.medium(), device.pages());
        if pages == 0 {
            return Err(SwapError::EmptyRange { device: name });
        }
        let fits = start_page.checked_add(pages).is_some_and(|end| end <= size);
        let Some(len) = u32::try_from(pages).ok().filter(|_| fits) else {
            return Err(SwapError::OutsideDevice { device: name, start: start_page, pages, size });
        };
        let slots = Slots::new(len).ok_or(SwapError::NoHeap { what: "a swap area" })?;

        let _adding = self.space().adding(cx);
        let id = {
            let control = self.space().control(cx);
            let areas = self.space().areas();
            if let Some(old) = areas.by_id.iter().find(|a| a.overlaps(&medium, start_page, pages)) {
                let same = old.start() == start_page && u64::from(old.pages()) == pages;
                // The remover finds its mark gone and gives up.
                let mut slots = old.slots.lock_nested(cx);
                if same && slots.removal.is_some() {
                    self.reopen(&mut slots);
                    return Ok(old.id());
                }
                let area = old.id();
                return Err(SwapError::Overlap { device: name, start: start_page, pages, area });
            }
            AreaId(control.next_id)
        };
        if id > AreaId::MAX {
            return Err(SwapError::TooManyAreas);
        }
        cx.blocking(|| device.prepare(cx))?;

        let mut control = self.space().control(cx);
        control.next_id += 1;
        let area = SwapArea::new(id, device, start_page, priority, slots);
        let areas = self.space().areas().with(Arc::new(area));
        self.space().publish(&mut control, areas);
        self.ledger().grow(self.db().free_mem(), pages);
        Ok(id)
    }

    /// Removes an area: every page stored in it is brought back into memory and marked modified.
    ///
    /// # Errors
    /// [`SwapError::NoSuchArea`], [`SwapError::BeingRemoved`], [`SwapError::StillNeeded`]; [`SwapError::BringBack`] when a page cannot be read
    /// or no memory is left, [`SwapError::CalledOff`] when the same range was added meanwhile. The area stays in use then; pages brought
    /// back so far stay in memory.
    ///
    /// # Locks
    /// None held: pages and memory are waited for.
    #[doc(alias("swapdel", "SC_REMOVE"))]
    pub fn remove(&self, cx: &Cx, area: AreaId) -> Result<(), SwapError> {
        let (area, token) = self.shut(cx, area)?;
        let _running = self.removals.begin(); // before any word is looked at (W6)
        let done = self.empty(cx, &area, token);
        done.inspect_err(|_| {
            let _control = self.space().control(cx);
            let mut slots = area.slots.lock_nested(cx);
            if slots.removal == Some(token) {
                self.reopen(&mut slots); // else whoever called it off has
            }
        })
    }
    /// Stops allocation from the area and takes its pages off the books. The token is this removal's own.
    fn shut(&self, cx: &Cx, id: AreaId) -> Result<(Arc<SwapArea>, u64), SwapError> {
        let mut control = self.space().control(cx);
        let areas = self.space().areas();
        let area = areas.get(id).ok_or(SwapError::NoSuchArea { area: id })?;
        let mut slots = area.slots.lock_nested(cx);
        if slots.removal.is_some() {
            return Err(SwapError::BeingRemoved { area: id });
        }
        let (mem, pages) = (self.db().free_mem(), slots.promised());
        if !self.ledger().shrink(mem, pages) {
            return Err(SwapError::StillNeeded { area: id, pages, availrmem: mem.availrmem() });
        }
        control.removals += 1;
        slots.removal = Some(control.removals);
        Ok((Arc::clone(area), control.removals))
    }
    /// Ends a removal that came to nothing: the area is in use again, its pages are on the books, and its slots are offered to sweeps.
    fn reopen(&self, slots: &mut Slots) {
        slots.removal = None;
        self.ledger().grow(self.db().free_mem(), slots.promised());
        self.sweeps.forget(); // K2: after the mark is gone
    }
    fn empty(&self, cx: &Cx, area: &SwapArea, token: u64) -> Result<(), SwapError> {
        let id = area.id();
        for spins in 0.. {
            for (n, place) in self.names().walk(0) {
                if place.slot().is_some_and(|s| s.area == id) {
                    if area.slots.lock(cx).removal != Some(token) {
                        return Err(SwapError::CalledOff { area: id });
                    }
                    self.bring_back(cx, n, id)?;
                }
            }
            if self.unpublish(cx, area, token)? {
                return Ok(());
            }
            // Somebody is between the word and the bitmap: a push with its new slot, or a free with its old one, which waits for the write there if need be (W6).
            cx.blocking(|| cx.pause(spins));
            #[cfg(feature = "std")]
            std::thread::yield_now();
        }
        unreachable!("the range above has no end")
    }
    /// Takes the area off the list if nobody owns a slot of it; says whether it did.
    fn unpublish(&self, cx: &Cx, area: &SwapArea, token: u64) -> Result<bool, SwapError> {
        let mut control = self.space().control(cx);
        let slots = area.slots.lock_nested(cx);
        if slots.removal != Some(token) {
            return Err(SwapError::CalledOff { area: area.id() });
        }
        if slots.owned() != 0 {
            return Ok(false);
        }
        let rest = self.space().areas().without(area.id());
        self.space().publish(&mut control, rest);
        self.sweeps.forget();
        Ok(true)
    }
    /// Gets one anon's page into memory and takes its slot in the area.
    fn bring_back(&self, cx: &Cx, n: AnonNumber, id: AreaId) -> Result<(), SwapError> {
        let failed = |source| SwapError::BringBack { area: id, source };
        let in_area = |place: Place| place.slot().filter(|s| s.area == id);
        let mut tries = MemoryTries::new(1, 1);
        while in_area(self.names().place(n)).is_some() {
            match self.bring_in(cx, n, id) {
                Ok(()) => {} // read now: the slot is gone; or resident: taken below
                Err(VnodeError::NoName { .. }) => return Ok(()),
                Err(e @ VnodeError::NoMemory { .. }) => {
                    tries.wait(cx, self.db()).map_err(|_| failed(e))?;
                    continue;
                }
                Err(e) => return Err(failed(e)),
            }
            // Shared: it may be pinned, for however long (W1 keeps a write-out away).
            let Some(page) = self.db().lookup_shared(cx, self.identity(n)) else { continue };
            if in_area(self.names().place(n)).is_none() {
                continue;
            }
            if self.free_slot(cx, n, &page) {
                page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
            } else {
                // On its way there, or it was: when that is over there is another look.
                cx.blocking(|| self.db().io_lock(cx, &page));
                self.db().io_unlock(page.id());
            }
        }
        Ok(())
    }
    /// A name that said `slot` is bad says it no more: nobody will have that page of the disk again (V4).
    pub(crate) fn lose(&self, cx: &Cx, slot: PhysSlot) {
        let areas = self.space().areas();
        let Some(area) = areas.get(slot.area) else { return }; // removed, with all its pages
        let mut slots = area.slots.lock(cx);
        slots.lose();
        if slots.removal.is_none() {
            self.ledger().lose(self.db().free_mem()); // else the books have none of the area's pages
        }
    }
    /// The areas, by id.
    #[doc(alias("SC_LIST", "swap_list"))]
    pub fn list(&self) -> Vec<AreaInfo> {
        let hooks = &**self.db().hooks();
        self.space().areas().by_id.iter().map(|a| AreaInfo::of(a, hooks)).collect()
    }
}
