//! Names whose bytes are in another's page (uvm.md 5.7, 7.2 C9). The lender is another anon here; a file does not differ.

use super::World;
use crate::{AnonNumber, Place};
use page_db::selock::LockedPage as _;
use page_db::{Counter, PAGE_SIZE, PageError, PageId};

/// An anon with a byte, its page, and another anon that has borrowed it.
fn borrowed() -> (World, AnonNumber, PageId, AnonNumber) {
    let w = World::new(32);
    let lender = w.anon(65);
    let (page, n) = (w.page_of(lender), w.alloc());
    borrow(&w, n, lender).expect("memory to spare");
    (w, lender, page, n)
}
fn borrow(w: &World, n: AnonNumber, lender: AnonNumber) -> Result<(), PageError> {
    let page = w.db.lookup_excl(&w.cx, w.fs.identity(lender)).expect("resident");
    w.fs.borrow(&w.cx, n, &page)
}
fn copies(w: &World) -> u64 {
    w.counter(Counter::BytesCopied) / PAGE_SIZE
}

#[test]
fn a_borrower_reads_the_lenders_page_and_gets_a_copy_when_it_needs_one() {
    let (w, lender, page, n) = borrowed();
    assert_eq!(w.fs.lender(&w.cx, n).expect("borrowed").id(), page);
    assert_eq!((w.resident(n), w.check().borrowed, w.db.page(page).loans()), (false, 1, 1));
    assert_eq!((w.load(n), copies(&w), w.fs.place(n)), ((65, false), 1, Place::Nowhere));
    assert!(w.fs.lender(&w.cx, n).is_none() && w.modified(n));
    assert_eq!((w.check().borrowed, w.db.lent_pages()), (0, 0));
    w.store(lender, 66);
    assert_eq!(w.load(n).0, 65);
    w.free(lender);
    w.free(n);
    w.check();
}

#[test]
fn a_lender_that_ends_leaves_its_page_and_nothing_is_copied() {
    let (w, lender, page, n) = borrowed();
    w.free(lender);
    assert_eq!((w.db.page(page).is_orphan(), w.check().borrowed), (true, 1));
    assert!(w.fs.lender(&w.cx, n).is_none(), "it is the borrower's for the asking");
    assert_eq!((w.load(n), copies(&w), w.page_of(n)), ((65, false), 0, page));
    assert_eq!((w.modified(n), w.db.lent_pages()), (true, 0), "the only copy");
    w.add("d", 8, 0);
    w.evict(n);
    assert_eq!(w.load(n), (65, true));
    w.free(n);
    w.check();
}

#[test]
fn of_two_borrowers_of_an_orphan_the_first_lends_to_the_second() {
    let (w, lender, page, n) = borrowed();
    let second = w.alloc();
    borrow(&w, second, lender).expect("memory to spare");
    w.free(lender);
    assert_eq!((w.load(n).0, w.page_of(n), w.db.page(page).loans()), (65, page, 1));
    assert_eq!((w.check().borrowed, w.db.lent_pages()), (1, 1));
    w.free(n);
    assert_eq!((w.load(second).0, w.page_of(second), copies(&w)), (65, page, 0));
    w.free(second);
    w.check();
}

#[test]
fn a_borrower_that_ends_gives_the_loan_back() {
    let (w, lender, page, n) = borrowed();
    let free = w.db.freemem();
    w.free(n);
    assert_eq!((w.db.page(page).loans(), w.check().borrowed, w.resident(lender)), (0, 0, true));
    let again = w.alloc();
    borrow(&w, again, lender).expect("memory to spare");
    w.free(lender);
    w.free(again);
    assert_eq!((w.db.freemem(), w.check().borrowed), (free + 1, 0), "the orphan's frame is free");
}

#[test]
fn nothing_is_stored_of_what_is_borrowed() {
    let (w, _, page, n) = borrowed();
    w.add("d", 8, 0);
    w.push(n).expect("nothing to do");
    w.evict(n);
    w.fs.read_ahead(&w.cx, n).expect("nothing to do");
    assert_eq!((w.check().stored, w.fs.place(n)), (0, Place::Borrowed(page)));
    let lender = w.db.lock_shared(&w.cx, page);
    assert!(!w.fs.free_slot(&w.cx, n, &lender));
}

#[test]
fn short_of_memory_a_borrower_goes_on_borrowing() {
    let (w, lender, _, n) = borrowed();
    let mut taken = Vec::new();
    while let Ok(page) = w.db.alloc(&w.cx, 0, page_db::Reserve::Normal) {
        taken.push(page.leak());
    }
    assert!(w.fs.get_page(&w.cx, n, 0).is_err(), "no frame for a copy");
    assert!(w.fs.lender(&w.cx, n).is_some());
    taken.into_iter().for_each(|p| w.db.free(&w.cx, w.db.adopt_excl(&w.cx, p), false));
    w.check();
    w.free(lender);
    assert_eq!(w.load(n).0, 65, "an orphan needs none");
}
