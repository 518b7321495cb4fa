//! Retiring frames that go bad.
//!
//! Diagnosis says that a frame produces errors. Its page is taken out of service: no name, no translation, on no list, one page less of
//! availrmem. If somebody holds it, or its bytes are stored nowhere else, that must wait:
//!
//! ```text
//!   in service ──retire──▶ retired            free, cached, or clean and unclaimed, and the lock to be had
//!        │                    ▲
//!        └──retire──▶ pending ┘               at the unlock that finds it so; meanwhile tries for a shared lock are refused
//! ```
//!
//! - T1: a retired page is nameless, not free, and every try for its lock is refused; whoever waits for the lock by a stale hint gets it
//!   and finds that the name is gone.
//! - T2: no more than a thousandth of memory is retired; requests beyond that are accepted and do nothing.
//!
//! Sources: illumos `vm/page_retire.c` (behaviour); illumos.md 7.7, behaviour 54.

use super::PageDb;
use crate::cx::Cx;
use crate::error::errno;
use crate::mappings::{RefMod, SyncMode};
use crate::page::{PageId, PageState};
use crate::selock::{ExclPage, LockedPage, RETIRE_PENDING, RETIRED};
use crate::sync::atomic::Ordering::SeqCst;
use crate::units::Pfn;

/// Why a frame is not retired, or not in service again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RetireError {
    /// The frame is not managed memory.
    #[error("frame {0} has no page")]
    NoPage(Pfn),
    /// The page is retired already, or that was asked for before.
    #[error("frame {0} is retired, or will be")]
    Already(Pfn),
    /// The page is in use; it will be retired when it can be.
    #[error("frame {0} is in use and will be retired later")]
    Pending(Pfn),
    /// The page is in service.
    #[error("frame {0} is not retired")]
    NotRetired(Pfn),
}

impl RetireError {
    /// The number the textbook prints.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoPage(_) => errno::EINVAL,
            Self::Already(_) | Self::NotRetired(_) => errno::EIO,
            Self::Pending(_) => errno::EAGAIN,
        }
    }
}

impl PageDb {
    /// Takes the page of a frame out of service; at the limit (T2) succeeds without doing so.
    ///
    /// # Errors
    /// [`RetireError::NoPage`], [`RetireError::Already`]; [`RetireError::Pending`] when the page is held, claimed, dirty or the kernel's: it
    /// is retired when its lock is next given back and it is none of these.
    #[doc(alias = "page_retire")]
    pub fn retire(&self, cx: &Cx, pfn: Pfn) -> Result<(), RetireError> {
        let id = self.page_of(pfn).ok_or(RetireError::NoPage(pfn))?;
        let word = &self.page(id).selock;
        if word.load(SeqCst) & (RETIRE_PENDING | RETIRED) != 0 {
            return Err(RetireError::Already(pfn));
        }
        if self.retired_pages() >= self.most_retired() {
            return Ok(());
        }
        if word.fetch_or(RETIRE_PENDING, SeqCst) & (RETIRE_PENDING | RETIRED) != 0 {
            return Err(RetireError::Already(pfn));
        }
        if self.retire_pending(cx, id) { Ok(()) } else { Err(RetireError::Pending(pfn)) }
    }
    /// Whether a frame is retired.
    ///
    /// # Errors
    /// [`RetireError::Pending`], [`RetireError::NotRetired`], [`RetireError::NoPage`].
    #[doc(alias = "page_retire_check")]
    pub fn retire_check(&self, pfn: Pfn) -> Result<(), RetireError> {
        let id = self.page_of(pfn).ok_or(RetireError::NoPage(pfn))?;
        match self.page(id).selock.load(SeqCst) {
            w if w & RETIRED != 0 => Ok(()),
            w if w & RETIRE_PENDING != 0 => Err(RetireError::Pending(pfn)),
            _ => Err(RetireError::NotRetired(pfn)),
        }
    }
    /// Puts a retired page back into service, on the free list.
    ///
    /// # Errors
    /// [`RetireError::NoPage`], [`RetireError::NotRetired`].
    #[doc(alias = "page_unretire")]
    pub fn unretire(&self, cx: &Cx, pfn: Pfn) -> Result<(), RetireError> {
        let id = self.page_of(pfn).ok_or(RetireError::NoPage(pfn))?;
        // Only stale hints are looked at through its lock, so waiting is for moments.
        let page = self.lock_unnamed(cx, id);
        if page.page().selock.fetch_and(!RETIRED, SeqCst) & RETIRED == 0 {
            return Err(RetireError::NotRetired(pfn));
        }
        page.page().set_state(PageState::empty(), PageState::RETIRED);
        self.retired.fetch_sub(1, SeqCst);
        self.free_mem().uncharge(1);
        self.free(cx, page, false);
        Ok(())
    }
    /// Pages out of service.
    pub fn retired_pages(&self) -> u64 {
        self.retired.load(SeqCst)
    }
    /// Pages that may be retired at most (T2); at least one.
    pub fn most_retired(&self) -> u64 {
        (self.pages().len() / 1000).max(1)
    }

    /// Retires a pending page if it can be now; never waits. Called without the page's lock: by [`PageDb::retire`], and by every unlock of a
    /// pending page.
    #[cold]
    pub(crate) fn retire_pending(&self, cx: &Cx, id: PageId) -> bool {
        let Some(page) = self.try_lock_excl(cx, id) else { return false };
        // Charged first: a page once off its list has nowhere to go back to.
        let charged = self.free_mem().charge(1, 0);
        let done = charged && self.is_dispensable(cx, &page);
        if done {
            self.take_out(cx, &page);
        } else if charged {
            self.free_mem().uncharge(1);
        }
        page.unlock_quietly();
        done
    }
    /// Whether nothing is lost when the page goes; a free or cached page that may go is off its list then.
    fn is_dispensable(&self, cx: &Cx, page: &ExclPage<'_>) -> bool {
        let p = page.page();
        if p.state().contains(PageState::KERNEL) || p.is_kept() || self.is_io_locked(page.id()) {
            return false;
        }
        match (p.is_free(), p.identity().is_some()) {
            (true, true) => {
                self.uncache(cx, page);
                true
            }
            (true, false) => {
                // In a magazine, on a list, or on its way to somebody who waits for this lock.
                self.drain_magazines(cx);
                let found = self.free_list().take_this(cx, self.pages(), page.id());
                if found {
                    p.set_state(PageState::empty(), PageState::FREE);
                }
                found
            }
            (false, true) => {
                let bits = self.sync_ref_mod(cx, page, SyncMode::DontZero);
                if bits.contains(RefMod::MOD) {
                    return false;
                }
                self.unload(cx, page);
                !p.ref_mod().contains(RefMod::MOD)
            }
            (false, false) => false, // an operation has it in hand
        }
    }
    /// held: the page (exclusive), on no list
    fn take_out(&self, cx: &Cx, page: &ExclPage<'_>) {
        self.hash_out(cx, page);
        self.mem().zero(page.pfn());
        page.page().set_state(PageState::RETIRED, PageState::empty());
        page.page().selock.fetch_or(RETIRED, SeqCst);
        page.page().selock.fetch_and(!RETIRE_PENDING, SeqCst);
        self.retired.fetch_add(1, SeqCst);
    }
}
