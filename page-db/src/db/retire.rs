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
//! - T2: no more than a thousandth of memory is retired or to be; requests beyond that are accepted and do nothing.
//! - T3: no free page is to be retired. One that is freed goes when it is on its list, for only from there it can be taken: whoever puts it
//!   there looks at the mark afterwards, and whoever has set the mark and has not found it on the list looks again. Where all of memory
//!   is promised, so that availrmem has no page to give, the request lapses.
//!
//! Sources: illumos `vm/page_retire.c` (behaviour); illumos.md 7.7, behaviour 54.

use super::PageDb;
use crate::cx::Cx;
use crate::error::errno;
use crate::mappings::{RefMod, SyncMode};
use crate::page::{PageId, PageState};
use crate::selock::{ExclPage, LockedPage, RETIRE_PENDING, RETIRED};
use crate::sync::atomic::Ordering::SeqCst;
use crate::sync::{Mutation, mutated};
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
    /// The page is retired, and somebody looks at it this moment.
    #[error("the page of frame {0} is held by somebody who looks at it")]
    Held(Pfn),
}

impl RetireError {
    /// The number the textbook prints.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoPage(_) => errno::EINVAL,
            Self::Already(_) | Self::NotRetired(_) => errno::EIO,
            Self::Pending(_) | Self::Held(_) => errno::EAGAIN,
        }
    }
}

impl PageDb {
    /// Takes the page of a frame out of service; at the limit (T2), and for a free page when all memory is promised (T3), succeeds without doing so.
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
        let most = self.most_retired();
        let one_more = |asked: u64| (asked < most).then_some(asked + 1);
        if self.to_retire.fetch_update(SeqCst, SeqCst, one_more).is_err() {
            return Ok(());
        }
        // Only where nobody has done so meanwhile: the mark must not come to a page that is retired already.
        let unmarked = |w: u32| {
            let is = w & (RETIRE_PENDING | RETIRED) == 0 || mutated(Mutation::MarkedBlindly);
            is.then_some(w | RETIRE_PENDING)
        };
        if word.fetch_update(SeqCst, SeqCst, unmarked).is_err() {
            self.to_retire.fetch_sub(1, SeqCst);
            return Err(RetireError::Already(pfn));
        }
        self.retire_pending(cx, id);
        if word.load(SeqCst) & RETIRE_PENDING == 0 {
            Ok(())
        } else {
            Err(RetireError::Pending(pfn))
        }
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
    /// [`RetireError::NoPage`], [`RetireError::NotRetired`]; [`RetireError::Held`] when the lock is not to be had at once.
    #[doc(alias = "page_unretire")]
    pub fn unretire(&self, cx: &Cx, pfn: Pfn) -> Result<(), RetireError> {
        let id = self.page_of(pfn).ok_or(RetireError::NoPage(pfn))?;
        let word = &self.page(id).selock;
        if word.load(SeqCst) & RETIRED == 0 {
            return Err(RetireError::NotRetired(pfn));
        }
        let page = self.try_lock_retired(cx, id).ok_or(RetireError::Held(pfn))?;
        if word.fetch_and(!RETIRED, SeqCst) & RETIRED == 0 {
            return Err(RetireError::NotRetired(pfn));
        }
        page.page().set_state(PageState::empty(), PageState::RETIRED);
        self.retired.fetch_sub(1, SeqCst);
        self.to_retire.fetch_sub(1, SeqCst);
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
        (self.free_mem().total() / 1000).max(1)
    }

    /// Retires a pending page if it can be now; never waits. Called without the page's lock: by [`PageDb::retire`], by every unlock of a
    /// pending page, and once a nameless one is on its list.
    #[cold]
    pub(crate) fn retire_pending(&self, cx: &Cx, id: PageId) {
        // Again as long as it came to its list only while this held its lock (T3): who put it there could not have it then.
        while self.try_retire(cx, id) && self.is_listed(cx, id) {}
    }
    /// Whether the page was free and on no list, so that nothing could be done.
    fn try_retire(&self, cx: &Cx, id: PageId) -> bool {
        let Some(page) = self.try_lock_excl(cx, id) else { return false };
        let word = &page.page().selock;
        if word.load(SeqCst) & RETIRE_PENDING == 0 {
            return false; // by another, meanwhile
        }
        // Charged first: a page once off its list has nowhere to go back to.
        if !self.free_mem().charge(1, 0) {
            if page.page().is_free() {
                word.fetch_and(!RETIRE_PENDING, SeqCst); // T3
                self.to_retire.fetch_sub(1, SeqCst);
            } else {
                page.unlock_quietly();
            }
            return false;
        }
        let done = self.is_dispensable(cx, &page);
        if done {
            self.take_out(cx, &page);
        } else {
            self.free_mem().uncharge(1);
        }
        let passing = !done && page.page().is_free();
        page.unlock_quietly();
        passing
    }
    /// Whether a free page without a name is on its list, and in no magazine.
    fn is_listed(&self, cx: &Cx, id: PageId) -> bool {
        self.drain_magazines(cx);
        self.free_list().holds(cx, self.pages(), id)
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
