//! Getting a frame, and giving it a name.
//!
//! A frame comes from the CPU's magazine, else from the free list of the wanted colour, else from another colour, else from
//! the head of the cache list, whose page gives up its name. What may be taken when memory is short depends on who asks:
//!
//! ```text
//!   freemem   ≥ 1 + pageout_reserve   Normal
//!             ≥ 1                     Push (page-out, and whoever frees memory by allocating)
//! ```
//!
//! Nothing here waits for memory; see D15 in [`super`].

use super::PageDb;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::error::PageError;
use crate::mappings::RefMod;
use crate::page::{PageId, PageState};
use crate::selock::{ExclPage, LockedPage};
use crate::units::VirtAddr;
use crate::vnode::{Identity, VnodeKind};
use alloc::vec::Vec;

/// How deep an allocation may reach when memory is short.
#[doc(alias("PG_NORMALPRI", "PG_PUSHPAGE"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reserve {
    /// Leaves `pageout_reserve` pages.
    #[default]
    Normal,
    /// May take the last page.
    Push,
}

impl PageDb {
    /// The colour for a page that will be mapped at `addr`: consecutive addresses ask for consecutive colours.
    #[doc(alias = "AS_2_BIN")]
    pub fn colour_for(addr: VirtAddr) -> u64 {
        addr.vpn()
    }

    /// A frame without a name, exclusively locked, contents undefined.
    ///
    /// # Errors
    /// [`PageError::NoMemory`]; nothing has changed.
    #[doc(alias = "page_get_freelist")]
    pub fn alloc<'a>(
        &'a self,
        cx: &'a Cx,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        let page = match self.free_list().take_magazine(cx) {
            Some(id) => self.lock_unnamed(cx, id),
            None => self.alloc_slow(cx, colour, reserve)?,
        };
        page.page().set_state(PageState::empty(), PageState::FREE);
        cx.count(Counter::FrameAllocs);
        Ok(page)
    }
    #[cold]
    fn alloc_slow<'a>(
        &'a self,
        cx: &'a Cx,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        let t = self.free_mem().thresholds();
        let keep = match reserve {
            Reserve::Normal => t.pageout_reserve,
            Reserve::Push => 0,
        };
        let freemem = self.freemem();
        if freemem <= keep {
            return Err(PageError::NoMemory { wanted: 1, freemem });
        }
        let plenty = freemem > t.lotsfree;
        if let Some(id) = self.free_list().take(cx, self.pages(), colour, plenty) {
            return Ok(self.lock_unnamed(cx, id));
        }
        if let Some(page) = self.take_cached(cx, colour) {
            return Ok(page);
        }
        // What is free sits in magazines (of other CPUs, too).
        self.drain_magazines(cx);
        match self.free_list().take(cx, self.pages(), colour, false) {
            Some(id) => Ok(self.lock_unnamed(cx, id)),
            None => self.take_cached(cx, colour).ok_or_else(|| self.no_memory(1)),
        }
    }
    /// The page that has waited longest on the cache list gives up its name.
    #[doc(alias = "page_get_cachelist")]
    fn take_cached<'a>(&'a self, cx: &'a Cx, colour: u64) -> Option<ExclPage<'a>> {
        let id = self.cache_list().take(cx, self.pages(), colour, |id| {
            self.try_lock_excl(cx, id).map(ExclPage::leak).is_some()
        })?;
        let page = self.adopt_excl(cx, id);
        self.hash_out(cx, &page);
        Some(page)
    }

    /// Makes the page named `id`: exclusively locked, io-locked, referenced, contents undefined.
    ///
    /// # Errors
    /// [`PageError::Exists`] when the name has a page (in use or cached), [`PageError::NoMemory`]; nothing has changed.
    #[doc(alias = "page_create_va")]
    pub fn create<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        let page = self.alloc(cx, colour, reserve)?;
        if let Err(e) = self.hash_in(cx, &page, id) {
            self.free(cx, page, false);
            return Err(e);
        }
        page.start_io();
        page.page().set_ref_mod(RefMod::REF);
        Ok(page)
    }
    /// Makes `count` pages named `id`, `id` + 1 page, ...: all of them or none (`PG_EXCL`).
    ///
    /// # Errors
    /// As [`PageDb::create`]; everything obtained is undone.
    pub fn create_range<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        count: u64,
        colour: u64,
        reserve: Reserve,
    ) -> Result<Vec<ExclPage<'a>>, PageError> {
        let mut got = Vec::new();
        for i in 0..count {
            let next = id
                .offset
                .page_index()
                .checked_add(i)
                .and_then(crate::units::FileOffset::of_page)
                .map(|o| Identity::new(id.vnode, o));
            let made = next
                .ok_or_else(|| self.no_memory(count))
                .and_then(|n| self.create(cx, n, colour + i, reserve));
            match made {
                Ok(p) => got.push(p),
                Err(e) => {
                    for page in got {
                        page.end_io();
                        self.destroy(cx, page);
                    }
                    return Err(e);
                }
            }
        }
        Ok(got)
    }

    /// Gives an exclusively locked, nameless page the name `id`.
    ///
    /// # Errors
    /// [`PageError::Exists`]; nothing has changed.
    #[doc(alias = "page_hashin")]
    pub fn hash_in(&self, cx: &Cx, page: &ExclPage<'_>, id: Identity) -> Result<(), PageError> {
        debug_assert!(page.identity().is_none(), "L1: a page has one name");
        self.hash()
            .insert_unless_present(cx, self.pages(), id, page.id())
            .map_err(|_| PageError::Exists(id))?;
        if self.vnodes().kind(id.vnode) == VnodeKind::Swap {
            page.page().set_state(PageState::SWAP, PageState::empty());
        }
        self.vnodes().slot(id.vnode).pages.lock(cx).add(self.pages(), page.id());
        Ok(())
    }
    /// Takes the name from an exclusively locked page, with its referenced and modified bits. Nothing happens to a page without one.
    #[doc(alias = "page_hashout")]
    pub fn hash_out(&self, cx: &Cx, page: &ExclPage<'_>) {
        let Some(id) = page.identity() else { return };
        self.vnodes().slot(id.vnode).pages.lock(cx).sub(self.pages(), page.id());
        self.hash().remove(cx, self.pages(), id, page.id());
        page.page().clear_ref_mod(RefMod::all());
        page.page().set_state(PageState::empty(), PageState::SWAP);
        // Whoever waits for this page by name finds another identity when it wakes (K3).
    }
    /// Marks a nameless page as the kernel's (page tables): never scanned, counted as kernel.
    pub fn set_kernel(&self, page: &ExclPage<'_>, on: bool) {
        if on {
            page.page().set_state(PageState::KERNEL, PageState::empty());
        } else {
            page.page().set_state(PageState::empty(), PageState::KERNEL);
        }
    }
    /// The page structure of a frame, if the frame is managed memory.
    pub fn page_of(&self, pfn: crate::units::Pfn) -> Option<PageId> {
        self.pages().of_pfn(pfn)
    }
}
