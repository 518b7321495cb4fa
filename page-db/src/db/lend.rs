//! Lending pages: the kernel reads a page that goes on being its owner's, without a copy.
//!
//! # The difficulty
//!
//! The borrower is to see the bytes as they were when the page was lent, and the owner may store, lose the page or end at any time. Both
//! know the page by different handles: the owner by name, through whatever is mapped or looked up; the borrower by frame, and it has no translation
//! that could be taken away.
//!
//! # The rule
//!
//! ```text
//!   lend           page <v, o>, loans 1, mapped r-- only
//!   owner stores   new page <v, o>, a copy, mapped rw-             the lent page: no name, loans 1 (an orphan)
//!   owner ends     -                                               the lent page: no name, loans 1 (an orphan)
//!   unlend         named: as before, it may be stored to again      orphan: a free frame
//!   adopt          -                                               orphan: <v', o'>, the borrower's own, a loan less
//! ```
//!
//! - E1: while a page is lent nobody may store to it (I10). The first loan takes the right to write from every translation, with the page held
//!   exclusively, and whoever maps a page looks at [`Page::is_lent`] with its lock held; who is to store calls [`PageDb::break_loan`] first.
//! - E2: a lent page stays in memory, named or not, and is charged to availrmem once.
//! - E3: breaking a loan moves the name in one step: a search finds the old page or the new one, a walk along the vnode's list meets one of them
//!   with the name (the new page is put on the list *behind* the old one before the name moves). Claims move along.
//! - E4: an orphan belongs to its loans. The bit that says so and the count are one word, so of the owner that leaves and the last borrower
//!   exactly one frees the frame.
//! - E5: a borrower that has a name for an orphan may take it for its own ([`PageDb::adopt_orphan`]): name and loan change in one step each, under the
//!   page's lock, and its own loan keeps the count from reaching 0 meanwhile. Other loans go on, of a page with a name.
//!
//! A page that is locked in memory is not lent: its owner has been promised that a store takes no fault. The other way round is fine: a lent page may
//! be locked, and the claim goes with the name.
//!
//! # The other road
//!
//! Letting the borrower have the copy would need no renaming; but it knows the frame, and it is the store that is to pay.
//!
//! Sources: uvm.md 5.7, 7.2 (C9), 7.4 (I10); [UVM §7].

use super::PageDb;
use super::create::Reserve;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::error::PageError;
use crate::mappings::RefMod;
use crate::page::{ORPHAN, Page, PageId, PageState};
use crate::selock::{ExclPage, LockedPage, SharedPage};
use crate::sync::atomic::Ordering;
use crate::sync::{Mutation, mutated};
use crate::units::PAGE_SIZE;
use crate::vnode::{Identity, VnodeKind};

impl PageDb {
    /// Lends a page: from now on nobody stores to it (E1). Each loan ends with an [`PageDb::unlend`].
    ///
    /// # Errors
    /// [`PageError::ClaimRefused`] when availrmem would fall below `pages_pp_maximum`; nothing has changed.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias("uvm_loan", "uvm_loanpage"))]
    pub fn lend(&self, cx: &Cx, page: &ExclPage<'_>) -> Result<(), PageError> {
        self.assert_own(page);
        let floor = self.free_mem().pages_pp_maximum();
        let word = &page.page().loans;
        let mut loans = word.load(Ordering::Acquire);
        loop {
            let first = loans == 0;
            if loans >= ORPHAN - 1 || (first && !self.free_mem().charge(1, floor)) {
                let availrmem = self.free_mem().availrmem();
                return Err(PageError::ClaimRefused { availrmem, floor });
            }
            let to = loans + 1;
            match word.compare_exchange(loans, to, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if !first => return Ok(()),
                Ok(_) => break,
                Err(now) => {
                    if first {
                        self.free_mem().uncharge(1);
                    }
                    loans = now; // a loan has ended meanwhile
                }
            }
        }
        // A figure: E1 does not rest on it, but on the page's lock. Rights to store are given page by page with that lock held; a driver whose range is
        // to have them unloads it, and lets the faults look.
        self.lent.fetch_add(1, Ordering::SeqCst);
        self.clear_write(cx, page);
        Ok(())
    }
    /// Ends one loan. With the last one an orphan's frame is freed; a page with a name that nobody needs goes to the cache list.
    ///
    /// # Panics
    /// When the page is not lent; nothing has changed.
    #[doc(alias("uvm_unloan", "uvm_unloanpage"))]
    pub fn unlend(&self, cx: &Cx, id: PageId) {
        let word = &self.page(id).loans;
        let less = |loans: u32| (loans & !ORPHAN != 0).then(|| loans - 1);
        let ended = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        let old = ended.unwrap_or(0);
        assert!(old != 0, "E2: page {id} is not lent");
        if old & !ORPHAN != 1 {
            return;
        }
        self.lent.fetch_sub(1, Ordering::SeqCst);
        if old & ORPHAN != 0 {
            let page = self.lock_unnamed(cx, id); // only stale hints are looked at through its lock
            word.store(0, Ordering::Release);
            self.free(cx, page, false);
        } else if let Some(page) = self.try_lock_excl(cx, id) {
            self.release_excl(cx, page, true);
        }
        self.free_mem().uncharge(1);
    }
    /// Makes an orphan the page named `id`, and ends the caller's loan of it: of the borrowers one has come into its own (E5). The only copy of its bytes
    /// is in memory.
    ///
    /// # Errors
    /// [`PageError::Exists`]; nothing has changed.
    ///
    /// # Panics
    /// When the page is no orphan, or another database's (K5).
    #[doc(alias = "uvm_anon_lockloanpg")]
    pub fn adopt_orphan(
        &self,
        cx: &Cx,
        page: &ExclPage<'_>,
        id: Identity,
    ) -> Result<(), PageError> {
        assert!(page.page().is_orphan(), "E5: page {} has an owner", page.id());
        self.hash_in(cx, page, id)?;
        page.page().set_ref_mod_alone(RefMod::REF | RefMod::MOD);
        let word = &page.page().loans;
        let mut loans = word.load(Ordering::Acquire);
        loop {
            let left = (loans & !ORPHAN) - 1;
            match word.compare_exchange(loans, left, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if left != 0 => return Ok(()),
                Ok(_) => break,
                Err(now) => loans = now, // another loan has ended
            }
        }
        self.lent.fetch_sub(1, Ordering::SeqCst);
        self.free_mem().uncharge(1);
        Ok(())
    }
    /// Pages that are lent; exact when quiet.
    pub fn lent_pages(&self) -> u64 {
        self.lent.load(Ordering::SeqCst)
    }
    /// Gives the name of a lent page to a copy, and returns the copy: it may be stored to. A page that is not lent is returned as it is. The lent page's
    /// translations go. Waits for whoever holds the page; `None` when it has lost its name meanwhile (look it up again).
    ///
    /// # Errors
    /// [`PageError::NoMemory`]; nothing has changed, and the page is unlocked.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    ///
    /// # Locks
    /// The caller holds no other page lock, nor what a holder of this one may come for: a pin is waited for. Who holds such a thing tries to have the page
    /// alone, and breaks the loan then ([`PageDb::break_loan_excl`]).
    #[doc(alias = "uvm_loanbreak")]
    pub fn break_loan<'a>(
        &'a self,
        cx: &'a Cx,
        page: SharedPage<'a>,
        colour: u64,
    ) -> Result<Option<SharedPage<'a>>, PageError> {
        if !page.page().is_named() || !page.page().is_lent() {
            return Ok(Some(page));
        }
        self.assert_own(&page);
        match self.upgrade(cx, page) {
            Some(page) => self.break_loan_excl(cx, page, colour).map(Some),
            None => Ok(None),
        }
    }
    /// As [`PageDb::break_loan`] of a page that the caller has to itself, so that nobody is waited for.
    ///
    /// # Errors
    /// [`PageError::NoMemory`]; nothing has changed, and the page is unlocked.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    pub fn break_loan_excl<'a>(
        &'a self,
        cx: &'a Cx,
        old: ExclPage<'a>,
        colour: u64,
    ) -> Result<SharedPage<'a>, PageError> {
        self.assert_own(&old);
        if !old.page().is_named() || !old.page().is_lent() {
            return Ok(old.downgrade());
        }
        // held: the lent page (exclusive)
        let new = self.alloc(cx, colour, Reserve::Normal)?;
        // Before the copy: it has all that was ever stored, whatever rights there were.
        self.unload(cx, &old);
        self.mem().copy(old.pfn(), new.pfn());
        cx.count_n(Counter::BytesCopied, PAGE_SIZE);
        self.supersede(cx, old, &new);
        Ok(new.downgrade())
    }
    /// `new`, a nameless copy of `old`, which nobody maps, takes its place (E3).
    fn supersede(&self, cx: &Cx, old: ExclPage<'_>, new: &ExclPage<'_>) {
        let name = old.identity().expect("E3: the name of an exclusive page stays");
        new.page().set_ref_mod_alone(old.page().ref_mod());
        self.merge_claims(&old, new);
        let vnode = self.vnodes().slot(name.vnode);
        if vnode.kind() == VnodeKind::Swap {
            new.page().set_state(PageState::SWAP, PageState::empty());
        }
        vnode.pages.lock(cx).add_last(self.pages(), new.id());
        if mutated(Mutation::NameMovedInTwoSteps) {
            self.hash().remove(cx, self.pages(), name, old.id());
            let named = self.hash().insert_unless_present(cx, self.pages(), name, new.id());
            assert!(named.is_ok(), "E3: the name is nobody's");
        } else {
            self.hash().replace(cx, self.pages(), name, old.id(), new.id());
        }
        vnode.pages.lock(cx).sub(self.pages(), old.id());
        self.forget_name(&old);
        if !self.disown(old.page()) {
            self.free(cx, old, false); // the last loan ended a moment ago
        }
    }
    /// The page has just lost its name; says whether it lives on as an orphan (E4). held: the page (exclusive)
    #[inline]
    pub(super) fn disown(&self, page: &Page) -> bool {
        page.is_lent() && self.leave_to_loans(page)
    }
    #[cold]
    fn leave_to_loans(&self, page: &Page) -> bool {
        let lent = if mutated(Mutation::DisownedByALook) {
            let seen = page.loans.load(Ordering::Acquire) != 0;
            page.loans.fetch_or(ORPHAN, Ordering::AcqRel);
            seen
        } else {
            page.loans.fetch_or(ORPHAN, Ordering::AcqRel) != 0
        };
        if !lent {
            page.loans.store(0, Ordering::Release);
        }
        lent
    }
}
