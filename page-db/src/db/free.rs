//! Letting a page go: with its name to the cache list, without one to the free list.
//!
//! A named page is put on its list *before* its lock goes, so that whoever finds it by name and locks it can take it off again. A nameless
//! one is unlocked first: nobody can find it but by a stale hint, and whoever takes it from the list waits for such a look to end. So
//! whether it is to be retired is looked at when it is on its list, where retirement takes it from.

use super::{MEMORY_KEY, PageDb};
use crate::counters::Counter;
use crate::cx::Cx;
use crate::mappings::{RefMod, SyncMode};
use crate::page::{PageId, PageState};
use crate::selock::{ExclPage, LockedPage, RETIRE_PENDING, SharedPage};
use crate::sync::atomic::Ordering::SeqCst;
use crate::sync::{Mutation, mutated};

/// What became of a page given to [`PageDb::release`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Released {
    /// Still mapped, claimed, anonymous, or wanted by another: only unlocked.
    #[doc(alias = "PGREL_NOTREL")]
    NotReleased,
    /// On the cache list now.
    #[doc(alias = "PGREL_CLEAN")]
    Clean,
    /// Modified: only unlocked; somebody must write it.
    #[doc(alias = "PGREL_MOD")]
    Modified,
}

impl PageDb {
    /// Frees a page: a named one goes to the tail of the cache list (to the head with `dontneed`), a nameless one to the free list.
    ///
    /// # Panics
    /// When the page is free already, mapped, claimed or in transit (P1, P2), or another database's (K5): a page freed like that would be handed to
    /// somebody else while it is still in use.
    #[doc(alias = "page_free")]
    pub fn free(&self, cx: &Cx, page: ExclPage<'_>, dontneed: bool) {
        self.free_uncounted(cx, page, dontneed);
        cx.count(Counter::FrameFrees);
    }
    /// As [`PageDb::free`], of a page that was free before.
    pub(super) fn free_uncounted(&self, cx: &Cx, page: ExclPage<'_>, dontneed: bool) {
        self.assert_unused(&page);
        // Somebody who has just unmapped it may still owe the flush; no frame is used again before that.
        self.settle(cx);
        self.mark_free(&page);
        let id = page.id();
        if page.identity().is_some() {
            self.cache_list().add(cx, self.pages(), id, dontneed);
            drop(page);
            self.wake_memory_waiters();
        } else {
            page.unlock_quietly();
            self.free_nameless(cx, core::iter::once(id));
        }
    }
    pub(super) fn assert_unused(&self, page: &ExclPage<'_>) {
        let (p, id) = (page.page(), page.id());
        self.assert_own(page);
        assert!(!p.is_free(), "P1: page {id} is freed twice");
        assert!(!p.is_mapped(), "P2: page {id} is freed while mapped");
        assert!(!p.is_kept(), "P2: page {id} is freed while locked in memory or lent");
        assert!(!self.is_io_locked(id), "K4: page {id} is freed while in transit");
    }
    pub(super) fn mark_free(&self, page: &ExclPage<'_>) {
        page.page().clear_ref_mod(RefMod::all());
        page.page().set_state(PageState::FREE, PageState::KERNEL | PageState::DEVICE);
    }
    /// Puts nameless free pages, unlocked by now, where frames are taken from.
    pub(super) fn free_nameless(&self, cx: &Cx, ids: impl Iterator<Item = PageId> + Clone) {
        let mut rest = ids.clone();
        self.free_list().add_magazine(cx, self.pages(), &mut rest);
        for id in rest {
            self.free_slow(cx, id);
        }
        for id in ids {
            if self.page(id).selock.load(SeqCst) & RETIRE_PENDING != 0 {
                self.retire_pending(cx, id);
            }
        }
    }
    /// Memory is or was short: the frame goes to the lists at once, and magazines are allowed again when enough is there.
    #[cold]
    fn free_slow(&self, cx: &Cx, id: PageId) {
        self.free_list().add(cx, self.pages(), id);
        if self.free_list().magazine_size() != 0 {
            self.stock_if_ample(cx);
        }
        self.wake_memory_waiters();
    }
    /// Lets frames wait in magazines when enough are free and nobody waits for memory.
    fn stock_if_ample(&self, cx: &Cx) {
        let mem = self.free_mem();
        if mem.needfree() == 0
            && self.free_list().stock_if_ample(self.freemem(), mem.thresholds().lotsfree)
            && mem.needfree() != 0
            && !mutated(Mutation::StockedBesideAWaiter)
        {
            // F3: it began to wait meanwhile, and frames may have gone into magazines unheard of.
            self.free_list().drain(cx, self.pages());
            self.wake_memory_waiters();
        }
    }
    /// Wakes threads in [`PageDb::sleep_for_memory`], if there are any. Every free onto a list does, and while a thread sleeps there is no other (F3 of
    /// [`crate::free_list`]); so does whoever empties a magazine, and page-out at the end of a run.
    #[inline]
    pub fn wake_memory_waiters(&self) {
        if self.free_mem().needfree() != 0 {
            self.free_mem().told_free(self.freemem());
            self.waits().wake_all(MEMORY_KEY);
        }
    }
    /// Unlocks a page and, if nobody needs it (not mapped, not anonymous, not claimed, not in transit, no other holder), puts it on the
    /// cache list. With `check_mod` a modified page is only unlocked. Never waits.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "page_release")]
    pub fn release(&self, cx: &Cx, page: SharedPage<'_>, check_mod: bool) -> Released {
        if !self.is_releasable(&page) {
            return Released::NotReleased;
        }
        let Ok(page) = page.try_upgrade() else { return Released::NotReleased };
        self.release_excl(cx, page, check_mod)
    }
    /// As [`PageDb::release`] for a page held exclusively.
    ///
    /// # Panics
    /// As [`PageDb::release`].
    pub fn release_excl(&self, cx: &Cx, page: ExclPage<'_>, check_mod: bool) -> Released {
        if !self.is_releasable(&page) {
            return Released::NotReleased;
        }
        let bits = self.sync_ref_mod(cx, &page, SyncMode::DontZero);
        if check_mod && bits.contains(RefMod::MOD) {
            return Released::Modified;
        }
        self.free(cx, page, false);
        Released::Clean
    }
    fn is_releasable(&self, page: &dyn LockedPage) -> bool {
        self.assert_own(page);
        let p = page.page();
        let state = p.state();
        p.identity().is_some()
            && !p.is_mapped()
            && !state.intersects(PageState::SWAP | PageState::FREE | PageState::KERNEL)
            && !p.is_kept()
            && !self.is_io_locked(page.id())
    }
}
