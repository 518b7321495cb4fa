//! What is lent to anons stays what it is, whoever sees it and whatever becomes of that.

use super::unhappy::range;
use super::*;
use crate::seg_vn::LentAnons;
use crate::seg_vn::borrow::Entry;

/// Entering a loan comes to nothing after another thread has stored to what was shown already: the loan that is handed back shows what was lent (L4).
#[test]
fn a_loan_handed_back_has_not_seen_what_was_stored_meanwhile() {
    for lender_ends in [false, true] {
        let w = world(128);
        let (p, q, r) = (w.proc(), w.proc(), w.proc());
        w.map(&p, 2);
        (0..2).for_each(|page| w.write(&p, page, 65));
        let lent = LentAnons::lend(&w.driver, &w.cx, &p.space, range(0, 2)).expect("swap");
        if lender_ends {
            p.space.free(&w.cx);
        }
        // As `enter` does where future memory is to be locked, with the store between the two.
        q.space.map(&w.cx, range(0, 2), &Entry { lent: &lent, prot: Prot::RW }).expect("free");
        w.write(&q, 0, 66);
        assert_eq!((w.read(&q, 0), w.read(&q, 1)), (66, 65));
        q.space.unmap(&w.cx, range(0, 2)).expect("mapped");
        lent.enter(&w.cx, &r.space, range(0, 2), Prot::RW).map_err(|(e, _)| e).expect("free");
        assert_eq!([0, 1].map(|page| w.read(&r, page)), [65, 65], "law 6");
        let copied = w.count(Counter::BytesCopied);
        w.write(&r, 0, 67);
        let copies = (w.count(Counter::BytesCopied) - copied) / PAGE_SIZE;
        assert_eq!(copies, u64::from(!lender_ends), "the loan is over");
        if !lender_ends {
            assert_eq!(w.read(&p, 0), 65);
            p.space.free(&w.cx);
        }
        [q, r].iter().for_each(|p| p.space.free(&w.cx));
        w.driver.layer().verify(&w.cx).expect("nothing is left of the maps");
        assert_eq!((w.swap.live(), w.swap.info().reserved()), (0, 0));
        assert_eq!(w.db.verify(&w.cx).expect("pages").named, 0);
    }
}

/// The same by way of a lock that is refused.
#[test]
fn a_loan_that_may_not_be_locked_is_handed_back() {
    let w = world(128);
    let (p, q) = (w.proc(), w.proc());
    w.map(&p, 2);
    (0..2).for_each(|page| w.write(&p, page, 65));
    let lent = LentAnons::lend(&w.driver, &w.cx, &p.space, range(0, 2)).expect("swap");
    q.space.lock_all(&w.cx, addr_space::LockAll::FUTURE).expect("nothing to lock yet");
    q.space.state().set_memlock_limit(PAGE_SIZE);
    let (e, lent) = lent.enter(&w.cx, &q.space, range(0, 2), Prot::RW).expect_err("two pages");
    assert_eq!((e.errno(), q.space.segs(&w.cx).len()), (page_db::errno::EAGAIN, 0));
    w.check(&q);
    lent.give_back(&w.cx);
    w.write(&p, 0, 66);
    [p, q].iter().for_each(|p| p.space.free(&w.cx));
    assert_eq!((w.swap.live(), w.swap.info().reserved()), (0, 0));
    assert_eq!(w.db.free_mem().availrmem(), w.db.free_mem().total());
}
