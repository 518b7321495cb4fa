//! Names whose bytes are in another's page: the borrowed state of an anon.
//!
//! # The difficulty
//!
//! A page of a file is lent to an anon: from then on the anon's bytes are the page's, without a copy. But a page has one name, and this one is the
//! file's; whoever looks the anon's name up finds nothing, and "no page and no slot" has so far meant zeros. Meanwhile the file may be stored to,
//! cut off or closed, and the anon may be stored to, shared by a fork, pinned, or freed.
//!
//! # The rule
//!
//! The name's word says it ([`Place::Borrowed`]): which page, and that one loan of it ([`PageDb::lend`]) is this name's. Everything the
//! lender may do is settled by the loan, which keeps the bytes as they are; what is left is how the borrower comes into its own:
//!
//! ```text
//!   borrow           <v, o> page 7, loans 1                     word: borrowed page 7      mapped r-- by both
//!   borrower needs
//!   a page           <v, o> page 7, loans 0                     word: nowhere, <swap> page 9, a copy
//!   lender stores    <v, o> page 8, a copy; page 7 an orphan    word: borrowed page 7
//!     and borrower
//!     looks again    <v, o> page 8                              word: nowhere, <swap> page 7: adopted, nothing is copied
//!   borrower ends    <v, o> page 7, loans 0; or a free frame    dead
//! ```
//!
//! A name is born borrowed, and leaves that state once: it is like any other then. So a lookup by name costs what it did, and only a miss meets the
//! word, which it has to read anyway.
//!
//! - R1 (the third state of uvm.md's I3): a borrowed name has no page under its name and no slot. It owes no write: page-out passes it by, and the
//!   lender's page stays in memory (E2).
//! - R2: the word stops saying "borrowed" with the lender's page locked exclusively, and before the loan ends; so whoever holds that page locked and
//!   finds the word unchanged has the borrower's bytes before it, and who comes later finds the name's own page.
//! - R3: when it stops, all translations of the lender's page are gone: those of the borrower would show a page that may change from now on.
//! - R4: a page of several loans is lent to each name by itself. Names are not shared by way of the page, so the number of an anon's references stays the
//!   business of who holds one.
//!
//! A lender may be a borrower's page in its turn: adopted, and lent to others all the while.
//!
//! # The other road
//!
//! UVM lets page and anon point at each other (`uanon`), and a second loan of the page raises the first anon's references. Here only a holder of an
//! anon's slot may raise them, which lets faults and forks count without locked instructions; the price is a number for each loan.
//! Copying at once would need none of this, and no loan.
//!
//! Sources: uvm.md 2.6, 5.7, 7.2 (C9); [UVM §7].

use crate::fs::SwapFs;
use crate::name::{AnonNumber, Place};
use page_db::selock::{ExclPage, LockedPage as _, SharedPage};
use page_db::sync::{Mutation, mutated};
use page_db::{Counter, Cx, PAGE_SIZE, PageDb, PageError, PageId, Reserve, VnodeError};

impl SwapFs {
    /// Gives a name that has just been handed out, and that nobody else knows, the bytes of `page`, which is lent to it.
    ///
    /// # Errors
    /// As [`PageDb::lend`]; nothing has changed.
    ///
    /// # Panics
    /// When the name is not fresh: it is dead, has a place, or borrows already.
    #[doc(alias = "UVM_LOAN_TOANON")]
    pub fn borrow(&self, cx: &Cx, n: AnonNumber, page: &ExclPage<'_>) -> Result<(), PageError> {
        self.db().lend(cx, page)?;
        let fresh = self.names().change(n, Place::Nowhere, Place::Borrowed(page.id()));
        assert!(fresh, "R1: anon {n} is not one without a page and a slot");
        Ok(())
    }
    /// The page that has the bytes of a borrowed name, shared-locked: to be read, and to be mapped without the right to write. `None` when the name has, or
    /// is to have, a page of its own ([`SwapFs::get_page`]).
    ///
    /// # Locks
    /// A reference on the anon is held, no page lock. Waits for the page's.
    pub fn lender<'a>(&'a self, cx: &'a Cx, n: AnonNumber) -> Option<SharedPage<'a>> {
        loop {
            let page = self.db().lock_shared(cx, self.names().place(n).lender()?);
            let still = self.names().place(n) == Place::Borrowed(page.id()); // R2
            if still || mutated(Mutation::LenderBelieved) {
                // An orphan is the borrower's for the asking.
                return page.page().is_named().then_some(page);
            }
        }
    }
    /// As [`SwapFs::lender`], without waiting for the page's lock.
    pub fn try_lender<'a>(&'a self, cx: &'a Cx, n: AnonNumber) -> Option<SharedPage<'a>> {
        let page = self.db().lock_shared_now(cx, self.names().place(n).lender()?)?;
        let still = self.names().place(n) == Place::Borrowed(page.id()); // R2
        (still && page.page().is_named()).then_some(page)
    }
    /// Gives a borrowed name a page of its own: its lender's, if that has no owner any more, else a copy. `None` when it has come to one meanwhile.
    ///
    /// # Errors
    /// [`VnodeError::NoMemory`]; [`VnodeError::Deadlock`] when somebody has the lender's page, who may have it pinned for long, and may be waiting for what the
    /// caller holds.
    ///
    /// # Locks
    /// No page lock held. Waits for none.
    pub(crate) fn end_borrow<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        n: AnonNumber,
        lender: PageId,
        colour: u64,
    ) -> Result<Option<SharedPage<'a>>, VnodeError> {
        let (id, borrowed) = (self.identity(n), Place::Borrowed(lender));
        let old = db.try_lock_excl(cx, lender);
        if self.names().place(n) != borrowed {
            return Ok(None); // R2: what is in that frame now is none of ours
        }
        let held = VnodeError::Deadlock { vnode: id.vnode, offset: id.offset };
        let old = old.ok_or(held)?;
        let failed = |e| match e {
            PageError::Exists(_) => Ok(None), // on its way out: see `fill`
            _ => Err(VnodeError::NoMemory { vnode: id.vnode, offset: id.offset }),
        };
        if old.page().is_orphan() {
            return match db.adopt_orphan(cx, &old, id) {
                Ok(()) => {
                    self.names().change(n, borrowed, Place::Nowhere);
                    Ok(Some(old.downgrade()))
                }
                Err(e) => failed(e),
            };
        }
        // held: the lender's page (exclusive)
        let own = match db.create(cx, id, colour, Reserve::Normal) {
            Ok(own) => own,
            Err(e) => return failed(e),
        };
        db.mem().copy(old.pfn(), own.pfn());
        cx.count_n(Counter::BytesCopied, PAGE_SIZE);
        own.mark_filled();
        own.end_io();
        if !mutated(Mutation::BorrowersKeepTheLender) {
            db.unload(cx, &old); // R3
        }
        self.names().change(n, borrowed, Place::Nowhere);
        drop(old);
        db.unlend(cx, lender);
        Ok(Some(own.downgrade()))
    }
}
