//! Letting a page go: with its name to the cache list, without one to the free list.

use super::PageDb;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::mappings::{RefMod, SyncMode};
use crate::page::PageState;
use crate::selock::{ExclPage, LockedPage, SharedPage};

/// What became of a page given to [`PageDb::release`].
#[doc(alias("PGREL_NOTREL", "PGREL_CLEAN", "PGREL_MOD"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Released {
    /// Still mapped, claimed, anonymous, or wanted by another: only unlocked.
    NotReleased,
    /// On the cache list now.
    Clean,
    /// Modified: only unlocked; somebody must write it.
    Modified,
}

impl PageDb {
    /// Frees a page: a named one goes to the tail of the cache list (to the head with `dontneed`), a nameless one to the free list.
    ///
    /// The page must be unmapped, unclaimed and not in transit; P2 is asserted in debug builds.
    #[doc(alias = "page_free")]
    pub fn free(&self, cx: &Cx, page: ExclPage<'_>, dontneed: bool) {
        let p = page.page();
        debug_assert!(!p.is_free(), "P1: a page is freed once");
        debug_assert!(!p.is_mapped(), "P2: a freed page has no mapping");
        debug_assert!(!p.is_claimed(), "P2: a freed page has no claim");
        p.clear_ref_mod(RefMod::all());
        p.set_state(PageState::FREE, PageState::KERNEL);
        let id = page.id();
        cx.count(Counter::FrameFrees);
        if page.identity().is_some() {
            // On the list before the lock goes: whoever finds it by name and locks it can take it off.
            self.cache_list().add(cx, self.pages(), id, dontneed);
            drop(page);
        } else {
            drop(page);
            let short = self.freemem() < self.free_mem().thresholds().lotsfree;
            self.free_list().add(cx, self.pages(), id, !short);
        }
    }
    /// Unlocks a page and, if nobody needs it (not mapped, not anonymous, not claimed, not in transit, no other holder), puts it on the
    /// cache list. With `check_mod` a modified page is only unlocked. Never waits.
    #[doc(alias = "page_release")]
    pub fn release(&self, cx: &Cx, page: SharedPage<'_>, check_mod: bool) -> Released {
        let p = page.page();
        if p.is_mapped()
            || p.state().contains(PageState::SWAP)
            || p.is_claimed()
            || self.is_io_locked(page.id())
        {
            return Released::NotReleased;
        }
        let Ok(page) = page.try_upgrade() else { return Released::NotReleased };
        if page.page().is_mapped() || page.page().is_claimed() {
            return Released::NotReleased;
        }
        let bits = self.sync_ref_mod(cx, &page, SyncMode::DontZero);
        if check_mod && bits.contains(RefMod::MOD) {
            return Released::Modified;
        }
        self.free(cx, page, false);
        Released::Clean
    }
}
