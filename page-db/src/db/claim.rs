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
//! # Whose claim it is
//!
//! The counts do not say who claimed; who did keeps a note. Truncation ends a page with all its claims, and tells none of the holders. Grown again, the
//! file has another page of the name, and others may claim that one. A holder of the first must not give back what is theirs:
//!
//! ```text
//!   A claims      the file is cut and grows      B claims        A gives back
//!   page, era 1   no page                        page, era 2     not of era 1: nothing to give back
//! ```
//!
//! So claims are of an *era*. There is one number for all pages, which goes up when a page ends that has claims. A page's first claim takes it into the
//! word with the counts, and it stays there as long as the page has its name. Who claims is told the era and names it from then on.
//!
//! # A claim that cannot follow its page
//!
//! A store copies a claimed page, and the claim goes to the copy ([`PageDb::carry_claim`]). It may cost a page of availrmem: one of several `p_lckcnt` claims
//! becomes the only one of the copy; or a rival takes what the source has just given back. Where memory is promised to the last page the claim is lost, and
//! the store cannot wait for that to change. The holder's note stays. Nothing tells him, so this ends an era, too: a note of the era that is now has its
//! claim, and whoever locks again looks at what an older one names.
//!
//! ```text
//!   A claims      the copy cannot be claimed     A locks again
//!   page, era 1   copy, no claim; era 2          a note of era 1: looked at, claimed anew in era 2
//! ```
//!
//! To claim is otherwise refused ([`PageDb::claim`], [`PageDb::claim_forced`], [`PageDb::use_claim`]): then nothing is lost that anybody has noted.
//!
//! - Q1: `availrmem` is charged *before* a change that costs, and given back *after* a change that saves.
//! - Q2: what is charged for a page is `charge` of its word, whenever no claim is under way.
//! - Q3: a claim noted with an era is still there exactly if the page is of that era. (The note of a claim that ended with its page, or was lost on the way to
//!   a copy, is older than that end, so than any era that the name is claimed in later.) One that is noted with the era that is now is there.
//! - Q4: a page that has claims has an era; one without a name has neither.
//!
//! An era is 32 bits: a note that outlives four thousand million ends of claims could be taken for a new one.
//!
//! # The other road
//!
//! illumos keeps no era: whoever unlocks first after the file grew takes a claim, whosever it was. To go to the holders when the page ends would
//! need a way from a page to the mappings that locked it; a lock need not have a translation, so there is none.
//!
//! Sources: illumos.md 7.6, behaviour 52.

use super::PageDb;
use crate::error::PageError;
use crate::selock::{ExclPage, LockedPage};
use crate::sync::atomic::Ordering;
use crate::sync::{Mutation, mutated};
use core::num::NonZeroU32;

/// Which count a claim is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// `p_lckcnt`.
    Lck,
    /// `p_cowcnt`.
    Cow,
}

/// When a page was claimed: tells claims of a page from those of an earlier page of its name (Q3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Era(NonZeroU32);

impl Era {
    /// The era after `n` ends of claims.
    fn after(n: u64) -> Self {
        let n = n % u64::from(u32::MAX) + 1;
        Self(NonZeroU32::new(n as u32).unwrap_or(NonZeroU32::MIN)) // 1 at least
    }
}

/// The two counts of a page and their era, as one value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Claims {
    pub(crate) lck: u16,
    pub(crate) cow: u16,
    /// Of the first claim under the page's name.
    pub(crate) era: Option<Era>,
}

impl Claims {
    pub(crate) const fn from_word(w: u64) -> Self {
        let era = match NonZeroU32::new((w >> 32) as u32) {
            Some(n) => Some(Era(n)),
            None => None,
        };
        Self { lck: w as u16, cow: (w >> 16) as u16, era }
    }
    pub(crate) fn word(self) -> u64 {
        let era = self.era.map_or(0, |era| era.0.get());
        u64::from(self.lck) | u64::from(self.cow) << 16 | u64::from(era) << 32
    }
    pub(crate) const fn is_none(self) -> bool {
        self.lck == 0 && self.cow == 0
    }
    /// Whether a claim in `claim` of `era` is among them.
    fn has(self, claim: Claim, era: Era) -> bool {
        let count = if claim == Claim::Lck { self.lck } else { self.cow };
        self.era == Some(era) && count != 0
    }
    /// Pages of availrmem these claims hold.
    pub(crate) fn charge(self) -> u64 {
        u64::from(self.lck != 0) + u64::from(self.cow)
    }
    /// One more in `claim`, the first of `era`; `None` when that count is full (`PAGE_LOCK_MAXIMUM`).
    fn plus(self, claim: Claim, era: Era) -> Option<Self> {
        let era = self.era.or(Some(era));
        Some(match claim {
            Claim::Lck => Self { lck: self.lck.checked_add(1)?, era, ..self },
            Claim::Cow => Self { cow: self.cow.checked_add(1)?, era, ..self },
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
        page: &dyn LockedPage,
        floor: u64,
        next: impl Fn(Claims) -> Option<Claims>,
    ) -> Result<Claims, Unchanged> {
        self.assert_own(page);
        let page = page.page();
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
                    self.note_claimed(!old.is_none(), !new.is_none());
                    let saved = old.charge().saturating_sub(new.charge());
                    if saved != 0 {
                        self.free_mem().uncharge(saved);
                    }
                    return Ok(new);
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

    /// The era of a page that is claimed now for the first time. Claims noted with it are all still there.
    pub fn claim_era(&self) -> Era {
        Era::after(self.ended_claimed.load(Ordering::Acquire))
    }
    /// Whether a claim noted as in `claim`, of `era`, is still on the page (Q3).
    pub fn has_claim(&self, page: &dyn LockedPage, claim: Claim, era: Era) -> bool {
        page.page().claims().has(claim, era)
    }
    /// Claims a locked page, and says of which era the claim is; who gives it back names it.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when availrmem would fall below `pages_pp_maximum` or the count is full; nothing has changed.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "page_pp_lock")]
    pub fn claim(&self, page: &dyn LockedPage, claim: Claim) -> Result<Era, PageError> {
        let (floor, now) = (self.free_mem().pages_pp_maximum(), self.claim_era());
        let new = self.update_claims(page, floor, |c| c.plus(claim, now));
        new.map(|c| c.era.unwrap_or(now)).map_err(|_| self.claim_refused())
    }
    /// Claims a locked page whatever the floor under user locks says, as one of `era` if there is a note of it already: for a claim that must not be
    /// lost. Only a full count, claims of another era, or no promised memory left at all, still leaves the page unclaimed; `false` says so.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    pub fn claim_forced(&self, page: &dyn LockedPage, claim: Claim, era: Option<Era>) -> bool {
        let first = era.unwrap_or_else(|| self.claim_era());
        let joins = move |c: &Claims| era.is_none() || c.era.is_none() || c.era == era;
        let plus = |c: Claims| Some(c).filter(joins)?.plus(claim, first);
        self.update_claims(page, 0, plus).is_ok()
    }
    /// Claims a page for the kernel, out of memory that it has been promised ([`crate::free_mem::FreeMem::reserve_kernel`]): a page of that promise is the claim's from now
    /// on, and goes back with it. `false`, and nothing has changed, when somebody has claimed the page already.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[must_use = "without a claim the promise is the caller's still"]
    pub fn claim_reserved(&self, page: &ExclPage<'_>) -> bool {
        self.assert_own(page);
        let page = page.page();
        let old = page.claims();
        // Nobody else changes them: the page is the caller's alone.
        let first = if old.is_none() { old.plus(Claim::Lck, self.claim_era()) } else { None };
        let Some(new) = first else { return false };
        page.claims.store(new.word(), Ordering::Release);
        self.note_claimed(false, true);
        true
    }
    /// Drops a claim of `era`. A page without one is left as it is: locks do not nest, and a claim ends with its page.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "page_pp_unlock")]
    pub fn unclaim(&self, page: &dyn LockedPage, claim: Claim, era: Era) {
        // Fewer claims never cost, so the only failure is that there is none.
        let of_era = |c: &Claims| c.has(claim, era);
        let _ = self.update_claims(page, 0, |c| Some(c).filter(of_era)?.minus(claim));
    }
    /// Moves one claim of `era` between the counts of a page: to [`Claim::Cow`] when its mapping becomes private and writable, to
    /// [`Claim::Lck`] when it stops being so. The last `lck` claim just moves; one of several needs another page of availrmem. Moving back
    /// gives that page up again. A page without a claim to move is left as it is.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when the move needs memory that is not to be had; nothing has changed.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias("page_addclaim", "page_subclaim"))]
    pub fn move_claim(&self, page: &dyn LockedPage, to: Claim, era: Era) -> Result<(), PageError> {
        let from = if to == Claim::Cow { Claim::Lck } else { Claim::Cow };
        let floor = self.free_mem().pages_pp_maximum();
        let moved =
            |c: Claims| match Some(c).filter(|c| c.has(from, era)).and_then(|c| c.minus(from)) {
                None => Some(c),
                Some(less) => less.plus(to, era),
            };
        let moved = self.update_claims(page, floor, moved);
        moved.map(drop).map_err(|_| self.claim_refused())
    }
    /// Moves one claim of `era` from a page to its copy, which nobody has claimed. The charge goes along, so no floor is asked; only when the claim was one
    /// of several `lck` claims does the copy need another page of availrmem.
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when there is none, or the copy's count is full; nothing has changed.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "page_pp_useclaim")]
    pub fn use_claim(
        &self,
        from: &dyn LockedPage,
        to: &dyn LockedPage,
        claim: Claim,
        era: Era,
    ) -> Result<(), PageError> {
        // The copy is charged first, out of memory that is promised twice for a moment: neither a rival nor a floor can come between.
        if !self.has_claim(from, claim, era) {
            return Ok(());
        }
        if !self.claim_forced(to, claim, Some(era)) {
            return Err(self.claim_refused());
        }
        self.unclaim(from, claim, era);
        Ok(())
    }
    /// Takes the claim of `era` from a page to its copy, which nobody has claimed and nobody else knows of. The copy is claimed anew if `from` is not of that
    /// era (it is another page of the name). No floor is asked. `false`: there is no promised memory left at all, and the claim is lost; its era ends.
    #[doc(alias = "page_pp_useclaim")]
    pub fn carry_claim(
        &self,
        from: &dyn LockedPage,
        to: &dyn LockedPage,
        claim: Claim,
        era: Era,
    ) -> bool {
        if self.has_claim(from, claim, era) {
            if self.use_claim(from, to, claim, era).is_ok() {
                return true;
            }
            // Not one page is left to be promised twice for a moment: what the source gives up pays for the copy.
            self.unclaim(from, claim, era);
        }
        let carried = self.claim_forced(to, claim, Some(era));
        if !carried {
            self.lost_claims.fetch_add(1, Ordering::AcqRel);
            self.ended_claimed.fetch_add(1, Ordering::AcqRel);
        }
        carried
    }
    /// Claims that [`PageDb::carry_claim`] has lost.
    pub fn lost_claims(&self) -> u64 {
        self.lost_claims.load(Ordering::Acquire)
    }
    /// Returns all claims of a page that is being destroyed, and ends their era.
    pub(crate) fn drop_claims(&self, page: &ExclPage<'_>) {
        if !page.page().is_claimed() {
            return;
        }
        self.ended_claimed.fetch_add(1, Ordering::AcqRel);
        let _ = self.update_claims(page, 0, |_| Some(Claims::default()));
    }
    /// Adds the claims of `from`, which is being destroyed, to `to`. A sum that passes the maximum stays at it. They are of the era of `from`, whose name
    /// the holders know, if there were any.
    pub(crate) fn merge_claims(&self, from: &ExclPage<'_>, to: &ExclPage<'_>) {
        // Both are exclusive, so nobody else changes either word, and the sum never costs more than its parts did.
        let moved = Claims::from_word(from.page().claims.swap(0, Ordering::AcqRel));
        let old = to.page().claims();
        let new = Claims {
            lck: old.lck.saturating_add(moved.lck),
            cow: old.cow.saturating_add(moved.cow),
            era: if moved.is_none() { old.era.or(moved.era) } else { moved.era },
        };
        to.page().claims.store(new.word(), Ordering::Release);
        self.note_claimed(!moved.is_none(), false);
        self.note_claimed(!old.is_none(), !new.is_none());
        let saved = moved.charge() + old.charge() - new.charge();
        if saved != 0 {
            self.free_mem().uncharge(saved);
        }
    }
}
