//! Claims: pages kept in memory by mlock, and what they cost availrmem.
//!
//! A claim through a shared or read-only mapping counts in `p_lckcnt` and is charged once however many there are; a claim
//! through a private writable mapping counts in `p_cowcnt` and is charged each time, since each may become a page of its own:
//!
//! ```text
//!   charge(page) = (p_lckcnt != 0) + p_cowcnt
//! ```
//!
//! Two holders of a shared page lock may claim at once, so both counts live in one word that changes by compare-and-swap,
//! and the charge follows from the word before and after:
//!
//! - Q1: `availrmem` is charged *before* a change that costs, and given back *after* a change that saves.
//! - Q2: what is charged for a page is `charge` of its word, whenever no claim is under way.
//!
//! Sources: illumos.md 7.6, behaviour 52.

use super::PageDb;
use crate::error::PageError;
use crate::page::Page;
use crate::selock::{ExclPage, LockedPage};
use crate::sync::atomic::Ordering;
use crate::sync::{Mutation, mutated};

/// Which count a claim is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// `p_lckcnt`.
    Lck,
    /// `p_cowcnt`.
    Cow,
}

/// The two counts of a page, as one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Claims {
    pub(crate) lck: u16,
    pub(crate) cow: u16,
}

impl Claims {
    pub(crate) const fn from_word(w: u32) -> Self {
        Self { lck: w as u16, cow: (w >> 16) as u16 }
    }
    pub(crate) fn word(self) -> u32 {
        u32::from(self.lck) | u32::from(self.cow) << 16
    }
    /// Pages of availrmem these claims hold.
    pub(crate) fn charge(self) -> u64 {
        u64::from(self.lck != 0) + u64::from(self.cow)
    }
    /// One more in `claim`; `None` when that count is full (`PAGE_LOCK_MAXIMUM`).
    fn plus(self, claim: Claim) -> Option<Self> {
        Some(match claim {
            Claim::Lck => Self { lck: self.lck.checked_add(1)?, ..self },
            Claim::Cow => Self { cow: self.cow.checked_add(1)?, ..self },
        })
    }
    /// One less in `claim`; `None` when that count is 0.
    fn minus(self, claim: Claim) -> Option<Self> {
        Some(match claim {
            Claim::Lck => Self { lck: self.lck.checked_sub(1)?, ..self },
            Claim::Cow => Self { cow: self.cow.checked_sub(1)?, ..self },
        })
    }
}

/// Why a change of claims was not made.
enum Unchanged {
    /// The change itself has no result (a count full, or 0 already).
    Impossible,
    /// availrmem would fall below the floor.
    Refused,
}

impl PageDb {
    /// Replaces the claims of a page by `next` of them, paying and refunding the difference (Q1).
    fn update_claims(
        &self,
        page: &Page,
        floor: u64,
        next: impl Fn(Claims) -> Option<Claims>,
    ) -> Result<(), Unchanged> {
        let mut word = page.claims.load(Ordering::Acquire);
        loop {
            let old = Claims::from_word(word);
            let new = next(old).ok_or(Unchanged::Impossible)?;
            let cost = new.charge().saturating_sub(old.charge());
            if cost != 0 && !self.free_mem().charge(cost, floor) {
                return Err(Unchanged::Refused);
            }
            if mutated(Mutation::ClaimInTwoSteps) {
                word = page.claims.load(Ordering::Acquire);
            }
            match page.claims.compare_exchange(
                word,
                new.word(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    self.note_claimed(old.word() != 0, new.word() != 0);
                    let saved = old.charge().saturating_sub(new.charge());
                    if saved != 0 {
                        self.free_mem().uncharge(saved);
                    }
                    return Ok(());
                }
                Err(now) => {
                    if cost != 0 {
                        self.free_mem().uncharge(cost);
                    }
                    word = now;
                }
            }
        }
    }
    /// Keeps the number of pages with claims; the orders of two threads do not matter to a sum.
    fn note_claimed(&self, before: bool, after: bool) {
        match (before, after) {
            (false, true) => self.claimed.fetch_add(1, Ordering::AcqRel),
            (true, false) => self.claimed.fetch_sub(1, Ordering::AcqRel),
            _ => return,
        };
    }
    /// Pages that something is locked in memory for; exact when quiet.
    pub fn claimed_pages(&self) -> u64 {
        self.claimed.load(Ordering::Acquire)
    }
    fn claim_refused(&self) -> PageError {
        PageError::ClaimRefused {
            availrmem: self.free_mem().availrmem(),
            floor: self.free_mem().pages_pp_maximum(),
        }
    }

    /// Claims a locked page.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when availrmem would fall below `pages_pp_maximum` or the count is full; nothing has changed.
    #[doc(alias = "page_pp_lock")]
    pub fn claim(&self, page: &dyn LockedPage, claim: Claim) -> Result<(), PageError> {
        let floor = self.free_mem().pages_pp_maximum();
        self.update_claims(page.page(), floor, |c| c.plus(claim)).map_err(|_| self.claim_refused())
    }
    /// Claims a locked page whatever the floor under user locks says; for a claim that moves to a copy and must not be lost.
    /// Only a full count, or no promised memory left at all, still leaves the page unclaimed; `false` says so.
    pub fn claim_forced(&self, page: &dyn LockedPage, claim: Claim) -> bool {
        self.update_claims(page.page(), 0, |c| c.plus(claim)).is_ok()
    }
    /// Drops a claim; a page without one is left as it is (locks do not nest).
    #[doc(alias = "page_pp_unlock")]
    pub fn unclaim(&self, page: &dyn LockedPage, claim: Claim) {
        // Fewer claims never cost, so the only failure is a count that is 0 already.
        let _ = self.update_claims(page.page(), 0, |c| c.minus(claim));
    }
    /// Moves one claim of a page between its counts: to [`Claim::Cow`] when its mapping becomes private and writable, to
    /// [`Claim::Lck`] when it stops being so. The last `lck` claim just moves; one of several needs another page of availrmem. Moving back
    /// gives that page up again. A page without a claim to move is left as it is.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when the move needs memory that is not to be had; nothing has changed.
    #[doc(alias("page_addclaim", "page_subclaim"))]
    pub fn move_claim(&self, page: &dyn LockedPage, to: Claim) -> Result<(), PageError> {
        let from = if to == Claim::Cow { Claim::Lck } else { Claim::Cow };
        let floor = self.free_mem().pages_pp_maximum();
        let moved = |c: Claims| match c.minus(from) {
            None => Some(c),
            Some(less) => less.plus(to),
        };
        self.update_claims(page.page(), floor, moved).map_err(|_| self.claim_refused())
    }
    /// Moves one claim from a page to its copy. The charge goes along, so no floor is asked; only when the claim was one of several
    /// `lck` claims does the copy need another page of availrmem.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when there is none, or the copy's count is full; nothing has changed.
    #[doc(alias = "page_pp_useclaim")]
    pub fn use_claim(
        &self,
        from: &dyn LockedPage,
        to: &dyn LockedPage,
        claim: Claim,
    ) -> Result<(), PageError> {
        // The copy is charged first, out of memory that is promised twice for a moment: neither a rival nor a floor can come between.
        if Claims::from_word(from.page().claims.load(Ordering::Acquire)).minus(claim).is_none() {
            return Ok(());
        }
        self.update_claims(to.page(), 0, |c| c.plus(claim)).map_err(|_| self.claim_refused())?;
        self.unclaim(from, claim);
        Ok(())
    }
    /// Returns all claims of a page that is being destroyed.
    pub(crate) fn drop_claims(&self, page: &ExclPage<'_>) {
        if !page.page().is_claimed() {
            return;
        }
        let _ = self.update_claims(page.page(), 0, |_| Some(Claims::default()));
    }
    /// Adds the claims of `from`, which is being destroyed, to `to`. A sum that passes the maximum stays at it.
    pub(crate) fn merge_claims(&self, from: &ExclPage<'_>, to: &ExclPage<'_>) {
        // Both are exclusive, so nobody else changes either word, and the sum never costs more than its parts did.
        let moved = Claims::from_word(from.page().claims.swap(0, Ordering::AcqRel));
        let old = Claims::from_word(to.page().claims.load(Ordering::Acquire));
        let new = Claims {
            lck: old.lck.saturating_add(moved.lck),
            cow: old.cow.saturating_add(moved.cow),
        };
        to.page().claims.store(new.word(), Ordering::Release);
        self.note_claimed(moved.word() != 0, false);
        self.note_claimed(old.word() != 0, new.word() != 0);
        let saved = moved.charge() + old.charge() - new.charge();
        if saved != 0 {
            self.free_mem().uncharge(saved);
        }
    }
}
