//! Claims: pages kept in memory by mlock, and what they cost availrmem.
//!
//! A claim through a shared or read-only mapping counts in `p_lckcnt` and is charged once however many there are; a claim
//! through a private writable mapping counts in `p_cowcnt` and is charged each time, since each may become a page of its own.
//!
//! Sources: illumos.md 7.6, behaviour 52.

use super::PageDb;
use crate::error::PageError;
use crate::page::Page;
use crate::selock::LockedPage;
use crate::sync::atomic::{AtomicU16, Ordering};

/// Which count a claim is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// `p_lckcnt`.
    Lck,
    /// `p_cowcnt`.
    Cow,
}

fn counter(page: &Page, claim: Claim) -> &AtomicU16 {
    match claim {
        Claim::Lck => &page.lckcnt,
        Claim::Cow => &page.cowcnt,
    }
}

impl PageDb {
    /// Claims a locked page.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when availrmem would fall to `pages_pp_maximum` or the count is full; nothing has changed.
    #[doc(alias = "page_pp_lock")]
    pub fn claim(&self, page: &dyn LockedPage, claim: Claim) -> Result<(), PageError> {
        let refused = || PageError::ClaimRefused {
            availrmem: self.free_mem().availrmem(),
            floor: self.free_mem().pages_pp_maximum(),
        };
        // Charged first; given back if this turns out not to be the first lck claim.
        let count = counter(page.page(), claim);
        let prepaid = claim == Claim::Cow || count.load(Ordering::Acquire) == 0;
        if prepaid && !self.free_mem().charge(1, self.free_mem().pages_pp_maximum()) {
            return Err(refused());
        }
        let before = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_add(1));
        let pays = before.is_ok_and(|n| claim == Claim::Cow || n == 0);
        if prepaid && !pays {
            self.free_mem().uncharge(1);
        }
        before.map(drop).map_err(|_| refused())
    }
    /// Drops a claim; a page without one is left as it is (locks do not nest).
    #[doc(alias = "page_pp_unlock")]
    pub fn unclaim(&self, page: &dyn LockedPage, claim: Claim) {
        let before =
            counter(page.page(), claim)
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
        if before.is_ok_and(|n| claim == Claim::Cow || n == 1) {
            self.free_mem().uncharge(1);
        }
    }
    /// Moves one claim between the counts (a mapping gains or loses the right to write).
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when the move needs memory that is not to be had; nothing has changed.
    #[doc(alias("page_addclaim", "page_subclaim", "page_pp_useclaim"))]
    pub fn move_claim(&self, page: &dyn LockedPage, to: Claim) -> Result<(), PageError> {
        let from = if to == Claim::Cow { Claim::Lck } else { Claim::Cow };
        // Dropping first keeps the charge at its lowest; if the new claim is refused the old one is restored without asking.
        self.unclaim(page, from);
        self.claim(page, to).inspect_err(|_| {
            let before = counter(page.page(), from).fetch_add(1, Ordering::AcqRel);
            if from == Claim::Cow || before == 0 {
                let _ = self.free_mem().charge(1, 0);
            }
        })
    }
    /// Returns all claims of a page that is being destroyed.
    pub(crate) fn drop_claims(&self, page: &dyn LockedPage) {
        let lck = page.page().lckcnt.swap(0, Ordering::AcqRel);
        let cow = page.page().cowcnt.swap(0, Ordering::AcqRel);
        let charge = u64::from(lck != 0) + u64::from(cow);
        if charge != 0 {
            self.free_mem().uncharge(charge);
        }
    }
}
