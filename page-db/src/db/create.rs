//! Getting a frame, and giving it a name.
//!
//! A frame comes from the CPU's magazine, else from the free list of the wanted colour, else from another colour, else from
//! the head of the cache list, whose page gives up its name. What may be taken when memory is short depends on who asks:
//!
//! ```text
//!   freemem   ≥ n + throttlefree      Spare (read-ahead: nobody waits for the page)
//!             ≥ n + pageout_reserve   Normal
//!             ≥ n                     Push (page-out, and whoever frees memory by allocating)
//! ```
//!
//! The check is made once for a whole request, and not again for each page, nor against other CPUs at that moment: with n CPUs up to n - 1
//! requests may reach into the reserve together, which is what a reserve is for. A magazine holds frames only while memory is plentiful
//! (F2 in [`crate::free_list`]), so taking from it asks nothing.
//!
//! Nothing here waits for memory; see D15 in [`super`].

use super::PageDb;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::error::PageError;
use crate::fail::FailKind;
use crate::heap;
use crate::mappings::RefMod;
use crate::page::{PageId, PageState};
use crate::selock::{ExclPage, LockedPage};
use crate::sync::{Mutation, mutated};
use crate::units::{FileOffset, PAGE_SIZE, VirtAddr};
use crate::vnode::{Identity, VnodeKind, VnodeSlot};
use alloc::vec::Vec;

/// How deep an allocation may reach when memory is short. A thread that frees memory ([`Cx::frees_memory`]) always asks for [`Reserve::Push`].
#[doc(alias = "page_create_throttle")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reserve {
    /// Leaves `throttlefree` pages: for pages that nobody waits for.
    #[doc(alias = "PG_NORMALPRI")]
    Spare,
    /// Leaves `pageout_reserve` pages, or more while allocators are held back ([`crate::free_mem::FreeMem::hold_back`]).
    #[default]
    Normal,
    /// May take the last page.
    #[doc(alias = "PG_PUSHPAGE")]
    Push,
}

impl PageDb {
    /// The colour for a page that will be mapped at `addr`: consecutive addresses ask for consecutive colours.
    #[doc(alias("AS_2_BIN", "page_coloring"))]
    pub fn colour_for(addr: VirtAddr) -> u64 {
        addr.vpn()
    }

    /// A frame without a name, exclusively locked, contents undefined.
    ///
    /// # Errors
    /// [`PageError::NoMemory`]; nothing has changed.
    #[doc(alias("page_get_freelist", "page_get_cachelist"))]
    #[inline]
    pub fn alloc<'a>(
        &'a self,
        cx: &'a Cx,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        if cx.fails(FailKind::Frame) {
            return Err(self.no_memory(1));
        }
        self.alloc_frame(cx, colour, reserve)
    }
    /// [`PageDb::alloc`], once no test wants it refused.
    #[inline]
    pub(super) fn alloc_frame<'a>(
        &'a self,
        cx: &'a Cx,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        if let Some(id) = self.free_list().take_magazine(cx, self.pages()) {
            return Ok(self.take_frame(cx, id));
        }
        let page = self.alloc_slow(cx, colour, reserve)?;
        self.mark_taken(cx, &page);
        Ok(page)
    }
    /// Locks a frame that has just come out of a magazine.
    #[inline]
    pub(super) fn take_frame<'a>(&'a self, cx: &'a Cx, id: PageId) -> ExclPage<'a> {
        let page = self.lock_unnamed(cx, id);
        self.mark_taken(cx, &page);
        page
    }
    #[inline]
    pub(super) fn mark_taken(&self, cx: &Cx, page: &ExclPage<'_>) {
        page.page().set_state(PageState::empty(), PageState::FREE);
        cx.count(Counter::FrameAllocs);
    }
    #[cold]
    fn alloc_slow<'a>(
        &'a self,
        cx: &'a Cx,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        self.throttle(cx, 1, reserve)?;
        if self.freemem() <= self.free_mem().thresholds().lotsfree {
            // From here on no frame waits in a magazine.
            self.drain_magazines(cx);
        }
        if let Some(id) = self.free_list().take(cx, self.pages(), colour) {
            return Ok(self.lock_unnamed(cx, id));
        }
        if let Some(page) = self.take_cached(cx, colour) {
            return Ok(page);
        }
        // What is free sits in magazines of other CPUs, or a rival took it.
        self.drain_magazines(cx);
        match self.free_list().take(cx, self.pages(), colour) {
            Some(id) => Ok(self.lock_unnamed(cx, id)),
            None => self.take_cached(cx, colour).ok_or_else(|| self.no_memory(1)),
        }
    }
    /// Whether `wanted` pages may be taken now; takes none.
    ///
    /// # Errors
    /// [`PageError::NoMemory`] when that would leave less than `reserve` keeps back.
    #[doc(alias = "page_create_throttle")]
    pub fn throttle(&self, cx: &Cx, wanted: u64, reserve: Reserve) -> Result<(), PageError> {
        let t = self.free_mem().thresholds();
        let keep = match reserve {
            _ if cx.frees_memory() => 0,
            Reserve::Spare => t.throttlefree,
            Reserve::Normal => self.free_mem().normal_reserve(),
            Reserve::Push => 0,
        };
        let freemem = self.freemem();
        if freemem < wanted.saturating_add(keep) {
            return Err(PageError::NoMemory { wanted, freemem });
        }
        Ok(())
    }
    /// The page that has waited longest on the cache list gives up its name.
    #[doc(alias = "page_get_cachelist")]
    fn take_cached<'a>(&'a self, cx: &'a Cx, colour: u64) -> Option<ExclPage<'a>> {
        let id = self.cache_list().take(cx, self.pages(), colour, |id| {
            self.try_lock_excl(cx, id).map(ExclPage::leak).is_some()
        })?;
        let page = self.adopt_excl(cx, id);
        self.hash_out(cx, &page);
        self.rouse(&page);
        Some(page)
    }

    /// Makes the page named `id`: exclusively locked, io-locked, referenced, contents undefined.
    ///
    /// # Errors
    /// [`PageError::Exists`] when the name has a page (in use or cached), [`PageError::NoVnode`], [`PageError::NoMemory`]; nothing has changed.
    #[doc(alias = "page_create_va")]
    #[inline]
    pub fn create<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        colour: u64,
        reserve: Reserve,
    ) -> Result<ExclPage<'a>, PageError> {
        let page = self.alloc(cx, colour, reserve)?;
        if let Err(e) = self.give_name(cx, &page, id) {
            self.free(cx, page, false);
            return Err(e);
        }
        page.start_io();
        page.page().set_ref_mod_alone(RefMod::REF);
        Ok(page)
    }
    /// Makes `count` pages named `id`, `id` + 1 page, ...: all of them or none (`PG_EXCL`). They are locked in the order of their offsets.
    ///
    /// # Errors
    /// As [`PageDb::create`], and [`PageError::NoMemory`] for half of memory or more, or a range that passes the last offset;
    /// everything obtained is undone.
    #[doc(alias("page_create_va", "PG_EXCL"))]
    pub fn create_range<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        count: u64,
        colour: u64,
        reserve: Reserve,
    ) -> Result<Vec<ExclPage<'a>>, PageError> {
        self.fill_range(cx, id, count, reserve, |name, i| {
            self.create(cx, name, colour.wrapping_add(i), reserve).map(|page| (page, true))
        })
    }
    /// As [`PageDb::create_range`], but a name that has a page already yields that page in its place, exclusively and io-locked (`PG_WAIT`
    /// without `PG_EXCL`); a page on the cache list is taken back. The caller holds no page lock: a page that somebody has is waited for.
    ///
    /// It is waited for with none of the others held. Which frame it is in is a guess until it is locked, and by then that may be the frame of any other page,
    /// whose holder waits for one of those: the order of offsets would be no order.
    ///
    /// # Errors
    /// [`PageError::NoMemory`], [`PageError::NoVnode`]; the pages made are undone, the pages found are unlocked.
    #[doc(alias("page_create_va", "PG_WAIT", "page_lookup_create"))]
    pub fn create_range_or_find<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        count: u64,
        colour: u64,
        reserve: Reserve,
    ) -> Result<Vec<ExclPage<'a>>, PageError> {
        let one = |name, i| {
            loop {
                match self.create(cx, name, colour.wrapping_add(i), reserve) {
                    Err(PageError::Exists(_)) => {}
                    made => return made.map(|page| (page, true)),
                }
                let page = self.try_lookup_excl_cached(cx, name);
                if let Some(page) = page.filter(|page| self.io_trylock(page)) {
                    if page.page().is_free() {
                        self.reclaim(cx, &page);
                    }
                    return Ok((page, false));
                }
                if self.exists(cx, name).is_some() {
                    return Err(PageError::Exists(name)); // somebody has it
                }
            }
        };
        loop {
            match self.fill_range(cx, id, count, reserve, one) {
                Err(PageError::Exists(name)) => {
                    // held: nothing
                    if let Some(page) = self.lookup_excl_cached(cx, name) {
                        self.io_lock(cx, &page);
                        page.end_io();
                    }
                }
                done => return done,
            }
        }
    }
    /// Runs `one` for each name of a range; it answers with a page and whether it made it. On failure undoes all that was done.
    fn fill_range<'a>(
        &'a self,
        cx: &'a Cx,
        id: Identity,
        count: u64,
        reserve: Reserve,
        one: impl Fn(Identity, u64) -> Result<(ExclPage<'a>, bool), PageError>,
    ) -> Result<Vec<ExclPage<'a>>, PageError> {
        let first = id.offset.page_index();
        let fits = first.checked_add(count).is_some_and(|end| end <= u64::MAX / PAGE_SIZE + 1);
        // max_page_get: a request for half of memory would wait for ever.
        if !fits || (count > 1 && count >= self.free_mem().total() / 2) {
            return Err(self.no_memory(count));
        }
        self.throttle(cx, count, reserve)?;
        let (Ok(mut pages), Ok(mut made)) =
            (heap::room(count as usize), heap::room(count as usize))
        else {
            return Err(self.no_memory(count));
        };
        for i in 0..count {
            let offset = FileOffset::of_page(first + i).expect("the range was checked to fit");
            match one(Identity::new(id.vnode, offset), i) {
                Ok((page, is_new)) => {
                    pages.push(page);
                    made.push(is_new);
                }
                Err(e) => {
                    for (page, is_new) in pages.into_iter().zip(made) {
                        page.end_io();
                        if is_new {
                            self.destroy(cx, page);
                        }
                    }
                    return Err(e);
                }
            }
        }
        Ok(pages)
    }

    /// Gives an exclusively locked, nameless page the name `id`.
    ///
    /// # Errors
    /// [`PageError::Exists`], [`PageError::NoVnode`]; nothing has changed.
    ///
    /// # Panics
    /// When the page has a name already, or is another database's (K5).
    #[doc(alias = "page_hashin")]
    pub fn hash_in(&self, cx: &Cx, page: &ExclPage<'_>, id: Identity) -> Result<(), PageError> {
        self.assert_own(page);
        assert!(!page.page().is_named(), "L1: page {} has a name already", page.id());
        self.give_name(cx, page, id)
    }
    /// [`PageDb::hash_in`] for a page of this database that has no name.
    #[inline]
    fn give_name(&self, cx: &Cx, page: &ExclPage<'_>, id: Identity) -> Result<(), PageError> {
        let Some(vnode) = self.vnodes().used_slot(id.vnode) else {
            return Err(PageError::NoVnode { vnode: id.vnode });
        };
        self.hash()
            .insert_unless_present(cx, self.pages(), id, page.id())
            .map_err(|_| PageError::Exists(id))?;
        if !self.join_vnode(cx, vnode, core::slice::from_ref(page)) {
            return Err(self.name_gone(cx, page, id));
        }
        Ok(())
    }
    /// Takes the name back from a page whose vnode's number was given back meanwhile (N3).
    #[cold]
    fn name_gone(&self, cx: &Cx, page: &ExclPage<'_>, id: Identity) -> PageError {
        self.take_back(cx, page, id);
        PageError::NoVnode { vnode: id.vnode }
    }
    /// Puts pages that have just been named on their vnode's list; not if its number has been given back by now (N3), and then their names are to be taken
    /// back.
    #[inline]
    pub(super) fn join_vnode(&self, cx: &Cx, vnode: &VnodeSlot, pages: &[ExclPage<'_>]) -> bool {
        let mut list = vnode.pages.lock(cx);
        if !vnode.is_used() && !mutated(Mutation::JoinedBlind) {
            return false;
        }
        let swap = vnode.kind() == VnodeKind::Swap;
        for page in pages {
            if swap {
                page.page().set_state(PageState::SWAP, PageState::empty());
            }
            list.add(self.pages(), page.id());
        }
        true
    }
    /// Takes the name from a page that its vnode's list has not.
    pub(super) fn take_back(&self, cx: &Cx, page: &ExclPage<'_>, id: Identity) {
        self.hash().remove(cx, self.pages(), id, page.id());
        self.forget_name(page);
    }
    /// Takes the name from an exclusively locked page, with its referenced and modified bits. Nothing happens to a page without one.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "page_hashout")]
    pub fn hash_out(&self, cx: &Cx, page: &ExclPage<'_>) {
        self.assert_own(page);
        let Some(id) = page.identity() else { return };
        self.vnodes().slot(id.vnode).pages.lock(cx).sub(self.pages(), page.id());
        self.take_back(cx, page, id);
    }
    /// What else goes with a page's name. Whoever waits for it by that name finds another identity when it wakes (K3).
    pub(super) fn forget_name(&self, page: &ExclPage<'_>) {
        page.page().forget_ref_mod();
        page.page().set_state(PageState::empty(), PageState::SWAP);
    }
    /// Marks a nameless page as the kernel's (page tables): never scanned, counted as kernel.
    pub fn set_kernel(&self, page: &ExclPage<'_>, on: bool) {
        self.mark_kernel(page, PageState::KERNEL, on);
    }
    /// Gives a nameless page to a device, for which it is the kernel's, or takes it back ([`PageDb::free`] does that, too). That it is the kernel's does not
    /// tell who may map it: page tables are.
    pub fn set_device(&self, page: &ExclPage<'_>, on: bool) {
        self.mark_kernel(page, PageState::KERNEL | PageState::DEVICE, on);
    }
    /// Sets `bits` of a nameless page, or takes away whatever says that it is the kernel's.
    fn mark_kernel(&self, page: &ExclPage<'_>, bits: PageState, on: bool) {
        self.assert_own(page);
        let (none, all) = (PageState::empty(), PageState::KERNEL | PageState::DEVICE);
        let (set, clear) = if on { (bits, none) } else { (none, all) };
        page.page().set_state(set, clear);
    }
}
