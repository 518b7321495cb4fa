//! Pages locked in memory, and what they cost (behaviour 52, illumos.md 7.6).

use crate::db::Claim;
use crate::testing::{World, name};
use crate::{LockedPage as _, PageError, SharedPage, VnodeKind};
use std::thread;

struct Claimed {
    w: World,
}

impl Claimed {
    fn new() -> Self {
        let w = World::new(1000);
        let v = w.vnode(VnodeKind::Swap);
        for i in 0..2 {
            w.make(name(v, i));
        }
        Self { w }
    }
    fn page(&self, n: u64) -> SharedPage<'_> {
        self.w.db.lookup_shared(&self.w.cx, name(crate::VnodeId(1), n)).expect("there")
    }
    /// The same for a second page beside it.
    fn beside(&self, n: u64) -> SharedPage<'_> {
        self.w.db.try_lookup_shared(&self.w.cx, name(crate::VnodeId(1), n)).expect("there")
    }
    fn avail(&self) -> u64 {
        self.w.db.free_mem().availrmem()
    }
    fn counts(&self) -> (u16, u16) {
        let page = self.page(0);
        (page.page().lckcnt(), page.page().cowcnt())
    }
}

#[test]
fn cow_claims_are_charged_each_and_lck_claims_once() {
    let c = Claimed::new();
    let db = &c.w.db;
    for _ in 0..2 {
        db.claim(&c.page(0), Claim::Cow).expect("memory to spare");
    }
    assert_eq!((c.avail(), c.counts()), (998, (0, 2)));
    db.claim(&c.page(0), Claim::Lck).expect("memory to spare");
    let era = db.claim(&c.page(0), Claim::Lck).expect("memory to spare");
    assert_eq!((c.avail(), c.counts()), (997, (2, 2)));
    db.unclaim(&c.page(0), Claim::Lck, era);
    assert_eq!(c.avail(), 997);
    db.unclaim(&c.page(0), Claim::Lck, era);
    db.unclaim(&c.page(0), Claim::Lck, era); // at 0 already: tolerated
    assert_eq!((c.avail(), c.counts()), (998, (0, 2)));
}

#[test]
fn claims_at_the_floor_change_nothing() {
    let c = Claimed::new();
    let (mem, db) = (c.w.db.free_mem(), &c.w.db);
    assert!(mem.charge(mem.availrmem() - mem.pages_pp_maximum(), 0));
    let floor = mem.pages_pp_maximum();
    for claim in [Claim::Cow, Claim::Lck] {
        let e = db.claim(&c.page(0), claim).expect_err("availrmem is at pages_pp_maximum");
        assert_eq!(e, PageError::ClaimRefused { availrmem: floor, floor });
        assert_eq!(e.errno(), crate::errno::EAGAIN);
    }
    assert_eq!((c.avail(), c.counts()), (floor, (0, 0)));
    assert!(db.claim_forced(&c.page(0), Claim::Cow, None), "a claim that must not be lost");
    assert_eq!((c.avail(), c.counts()), (floor - 1, (0, 1)));
}

#[test]
fn the_last_lck_claim_just_moves_and_one_of_several_costs() {
    let c = Claimed::new();
    let (mem, db) = (c.w.db.free_mem(), &c.w.db);
    let era = db.claim(&c.page(0), Claim::Lck).expect("memory to spare");
    db.move_claim(&c.page(0), Claim::Cow, era).expect("page_addclaim of the only claim");
    assert_eq!((c.avail(), c.counts()), (999, (0, 1)));
    db.move_claim(&c.page(0), Claim::Lck, era).expect("page_subclaim");
    assert_eq!((c.avail(), c.counts()), (999, (1, 0)));
    db.claim(&c.page(0), Claim::Lck).expect("free of charge");
    db.move_claim(&c.page(0), Claim::Cow, era).expect("memory to spare");
    assert_eq!((c.avail(), c.counts()), (998, (1, 1)));
    // Back: both are lck claims again, one page is given up.
    db.move_claim(&c.page(0), Claim::Lck, era).expect("gives memory up");
    assert_eq!((c.avail(), c.counts()), (999, (2, 0)));
    // At the floor the costly move is refused and nothing has changed.
    assert!(mem.charge(mem.availrmem() - mem.pages_pp_maximum(), 0));
    assert!(db.move_claim(&c.page(0), Claim::Cow, era).is_err());
    assert_eq!(c.counts(), (2, 0));
    // Without a claim to move there is nothing to do.
    db.move_claim(&c.page(1), Claim::Cow, era).expect("nothing");
    c.w.verify();
}

#[test]
fn a_claim_goes_along_with_the_copy() {
    let c = Claimed::new();
    let db = &c.w.db;
    let era = db.claim(&c.page(0), Claim::Cow).expect("memory to spare");
    let from = c.page(0);
    let copy = name(crate::VnodeId(1), 1);
    let to = db.try_lookup_shared(&c.w.cx, copy).expect("there");
    db.use_claim(&from, &to, Claim::Cow, era).expect("net cost nothing");
    drop((from, to));
    assert_eq!((c.avail(), c.counts()), (999, (0, 0)));
    db.unclaim(&c.page(1), Claim::Cow, era);
    assert_eq!(c.avail(), 1000);
}

/// Q3: who claimed a page that has ended since does not take what others have claimed of the page that has its name now.
#[test]
fn a_claim_ends_with_its_page() {
    let c = Claimed::new();
    let db = &c.w.db;
    let first = db.claim(&c.page(0), Claim::Cow).expect("memory to spare");
    let kept = db.claim(&c.page(1), Claim::Cow).expect("memory to spare");
    assert_eq!(first, kept, "nothing has ended between the two");
    let id = name(crate::VnodeId(1), 0);
    db.destroy(&c.w.cx, db.lookup_excl(&c.w.cx, id).expect("there"));
    c.w.make(id);
    assert_eq!((c.avail(), c.counts()), (999, (0, 0)));
    let second = db.claim(&c.page(0), Claim::Cow).expect("memory to spare");
    let has = |era| db.has_claim(&c.page(0), Claim::Cow, era);
    assert_eq!(
        (has(first), has(second), db.has_claim(&c.page(1), Claim::Cow, kept)),
        (false, true, true)
    );
    db.unclaim(&c.page(0), Claim::Cow, first);
    db.move_claim(&c.page(0), Claim::Lck, first).expect("nothing");
    assert!(!db.claim_forced(&c.page(0), Claim::Cow, Some(first)), "claims of two eras do not mix");
    let (from, copy) = (c.page(0), name(crate::VnodeId(1), 1));
    let to = db.try_lookup_shared(&c.w.cx, copy).expect("there");
    db.use_claim(&from, &to, Claim::Cow, first).expect("nothing");
    drop((from, to));
    assert_eq!((c.avail(), c.counts()), (998, (0, 1)));
    let joined = db.claim(&c.page(1), Claim::Lck).expect("memory to spare");
    assert_eq!(joined, kept, "a claim that joins others is of their era");
    db.unclaim(&c.page(1), Claim::Lck, joined);
    db.unclaim(&c.page(1), Claim::Cow, kept);
    let again = db.claim(&c.page(1), Claim::Cow).expect("memory to spare");
    assert_eq!(again, kept, "the page is what it was");
    db.unclaim(&c.page(1), Claim::Cow, again);
    db.unclaim(&c.page(0), Claim::Cow, second);
    assert_eq!((c.avail(), c.counts()), (1000, (0, 0)));
    c.w.verify();
}

#[test]
fn counts_saturate_as_an_error() {
    let c = Claimed::new();
    let db = &c.w.db;
    for _ in 0..u16::MAX {
        db.claim(&c.page(0), Claim::Lck).expect("up to PAGE_LOCK_MAXIMUM");
    }
    assert!(db.claim(&c.page(0), Claim::Lck).is_err());
    assert_eq!((c.avail(), c.counts()), (999, (u16::MAX, 0)));
}

#[test]
fn claims_of_several_holders_are_charged_exactly() {
    // Readers claim, move and drop at once; an uncounted first or last claim would leave availrmem wrong.
    let c = Claimed::new();
    let (w, id) = (&c.w, c.page(0).leak());
    thread::scope(|s| {
        for t in 1..4 {
            let (db, make) = (&w.db, || w.thread(t));
            let cx = make();
            s.spawn(move || {
                for i in 0..5000 {
                    let page = db.lock_shared(&cx, id);
                    let claim = if (i + t) % 3 == 0 { Claim::Cow } else { Claim::Lck };
                    if let Ok(era) = db.claim(&page, claim) {
                        db.unclaim(&page, claim, era);
                    }
                }
            });
        }
    });
    drop(w.db.adopt_shared(&w.cx, id));
    assert_eq!((c.avail(), c.counts()), (1000, (0, 0)));
}

/// Q3: what a copy cannot be claimed for, memory being promised to the last page, is not taken for a claim by whoever locks again.
#[test]
fn a_claim_lost_on_the_way_to_a_copy_ends_its_era() {
    let c = Claimed::new();
    let (mem, db) = (c.w.db.free_mem(), &c.w.db);
    let era = db.claim(&c.page(0), Claim::Lck).expect("memory to spare");
    db.claim(&c.page(0), Claim::Lck).expect("another's, free of charge");
    let rest = mem.availrmem();
    assert!(mem.charge(rest, 0), "promised to the last page");
    assert!(db.use_claim(&c.page(0), &c.beside(1), Claim::Lck, era).is_err());
    assert_eq!((db.claim_era(), db.lost_claims()), (era, 0), "refused, and nothing is lost");
    assert!(!db.carry_claim(&c.page(0), &c.beside(1), Claim::Lck, era), "it would cost a page");
    assert_eq!((c.counts(), db.lost_claims()), ((1, 0), 1));
    assert!(db.has_claim(&c.page(0), Claim::Lck, era), "the other's");
    assert!(!db.has_claim(&c.page(1), Claim::Lck, era));
    assert_ne!(db.claim_era(), era, "or the note would say that there is a claim");
    mem.uncharge(rest);
    let again = db.claim(&c.page(1), Claim::Lck).expect("memory to spare");
    assert_eq!(again, db.claim_era());
    db.unclaim(&c.page(1), Claim::Lck, era); // by the old note: not of that era
    assert!(db.has_claim(&c.page(1), Claim::Lck, again));
    db.unclaim(&c.page(1), Claim::Lck, again);
    db.unclaim(&c.page(0), Claim::Lck, era);
    assert_eq!(c.avail(), 1000);
    c.w.verify();
}

/// One of several claims that find no page more, one that pays for itself, and one that ended with its page.
#[test]
fn a_claim_is_carried_whatever_became_of_the_source() {
    let c = Claimed::new();
    let (mem, db) = (c.w.db.free_mem(), &c.w.db);
    let era = db.claim(&c.page(0), Claim::Cow).expect("memory to spare");
    let rest = mem.availrmem();
    assert!(mem.charge(rest, 0), "promised to the last page");
    assert!(db.carry_claim(&c.page(0), &c.beside(1), Claim::Cow, era), "the source's page pays");
    assert_eq!((c.counts(), c.avail(), db.claim_era()), ((0, 0), 0, era));
    mem.uncharge(rest);
    let id = name(crate::VnodeId(1), 0);
    db.destroy(&c.w.cx, db.lookup_excl(&c.w.cx, name(crate::VnodeId(1), 1)).expect("there"));
    c.w.make(name(crate::VnodeId(1), 1));
    assert!(
        db.carry_claim(&c.page(1), &c.beside(0), Claim::Cow, era),
        "there is none to take along"
    );
    assert!(db.has_claim(&c.page(0), Claim::Cow, era), "of the note's era");
    assert_eq!((c.counts(), c.avail(), db.lost_claims()), ((0, 1), 999, 0));
    db.destroy(&c.w.cx, db.lookup_excl(&c.w.cx, id).expect("there"));
    c.w.verify();
}

/// A page that takes the place of another has the claims of both, and those who made them know them by: the era of whichever had claims.
#[test]
fn claims_that_come_together_keep_the_era_they_are_known_by() {
    for claimed_is_renamed in [true, false] {
        let c = Claimed::new();
        let (cx, db) = (&c.w.cx, &c.w.db);
        let (claimed, bare) = if claimed_is_renamed { (0, 1) } else { (1, 0) };
        // Each page has an era; one has a claim of it, too.
        let first = db.claim(&c.page(bare), Claim::Cow).expect("memory to spare");
        db.unclaim(&c.page(bare), Claim::Cow, first);
        let third = name(crate::VnodeId(1), 2);
        c.w.make(third);
        db.claim(&c.page(2), Claim::Cow).expect("memory to spare");
        db.destroy(cx, db.lookup_excl(cx, third).expect("there"));
        let second = db.claim(&c.page(claimed), Claim::Cow).expect("memory to spare");
        assert_ne!(first, second, "a claimed page has ended between the two");
        let page = db.lookup_excl(cx, name(crate::VnodeId(1), 0)).expect("there");
        db.rename(cx, &page, name(crate::VnodeId(1), 1)).expect("nobody holds the other");
        assert!(db.has_claim(&page, Claim::Cow, second), "{claimed_is_renamed}");
        db.unclaim(&page, Claim::Cow, second);
        assert_eq!((page.page().cowcnt(), c.avail()), (0, 1000));
        drop(page);
        c.w.verify();
    }
}
