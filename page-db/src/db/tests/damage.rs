//! Every invariant of `verify`, broken behind the API's back and seen named.

use crate::damage::Damage;
use crate::db::{PageDbConfig, Reserve};
use crate::testing::{World, hashes, name};
use crate::{HashKind, PageId, VnodeId, VnodeKind};

/// What the world of a test holds before the damage.
struct Pages {
    v: VnodeId,
    other: VnodeId,
    /// In use, names 0 and 1 of `v`.
    used: [PageId; 2],
    /// Cached, name 2 of `v`.
    cached: PageId,
    /// Nameless, free.
    free: PageId,
    /// Nameless, the kernel's.
    kernel: PageId,
}

fn world(hash: HashKind) -> (World, Pages) {
    let w = World::with(16, &PageDbConfig { hash, ..PageDbConfig::default() });
    let (v, other) = (w.vnode(VnodeKind::File), w.vnode(VnodeKind::File));
    let used = [w.make(name(v, 0)), w.make(name(v, 1))];
    let cached = w.make(name(v, 2));
    w.free(name(v, 2), false);
    let table = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    w.db.set_kernel(&table, true);
    let kernel = table.leak();
    let free = w.db.pages().ids().next_back().expect("the last frame");
    w.verify();
    (w, Pages { v, other, used, cached, free, kernel })
}

#[track_caller]
fn sees(hash: HashKind, invariant: &str, what: &str, damage: impl Fn(&Pages) -> Damage) {
    let (w, pages) = world(hash);
    let d = damage(&pages);
    w.db.damage(&w.cx, d);
    let found = w.db.verify(&w.cx).expect_err("damaged");
    assert_eq!(found.invariant, invariant, "{d:?}: {found}");
    assert!(found.what.contains(what), "{d:?}: {found}");
}

#[test]
fn a_named_page_outside_the_hash_breaks_l1() {
    for hash in hashes() {
        sees(hash, "L1", "but is not in the hash", |p| Damage::Unhash(p.used[0]));
    }
}

#[test]
fn a_page_filed_under_a_name_it_does_not_carry_breaks_l1() {
    for hash in hashes() {
        let moved = |p: &Pages| Damage::Misname(p.used[0], name(p.v, 99));
        sees(hash, "L1", "", moved);
    }
}

#[test]
fn two_pages_of_one_name_break_i4() {
    sees(HashKind::Chain, "I4", "<1, 0x0> names pages", |p| Damage::Duplicate(p.used[0], p.kernel));
}

#[test]
fn a_page_off_its_vnode_list_breaks_p1() {
    for hash in hashes() {
        sees(hash, "P1", "is on 0 vnode lists", |p| Damage::Unlist(p.used[1]));
    }
}

#[test]
fn a_page_on_a_foreign_vnode_list_breaks_l1_or_p1() {
    // It was taken over from its own list, whose links are spoilt by that.
    sees(HashKind::Chain, "P1", "the list of vnode", |p| Damage::ListTwice(p.used[1], p.other));
    sees(HashKind::Chain, "L1", "is on the list of vnode 2", |p| {
        Damage::ListTwice(p.kernel, p.other)
    });
}

#[test]
fn a_free_bit_without_a_list_or_a_list_without_the_bit_breaks_f1_or_c1() {
    sees(HashKind::Chain, "C1", "is on 0 cache lists", |p| Damage::FlipFree(p.used[0]));
    sees(HashKind::Chain, "C1", "is on 1 cache lists", |p| Damage::FlipFree(p.cached));
    sees(HashKind::Chain, "F1", "is on 1 free lists", |p| Damage::FlipFree(p.free));
    sees(HashKind::Chain, "F1", "is on 0 free lists", |p| Damage::FlipFree(p.kernel));
}

#[test]
fn a_lost_frame_breaks_f1_or_c1() {
    sees(HashKind::Chain, "F1", "is on 0 free lists", |p| Damage::LoseFree(p.free));
    sees(HashKind::Chain, "C1", "is on 0 cache lists", |p| Damage::LoseCached(p.cached));
}

#[test]
fn a_spoilt_link_breaks_f1_or_c1() {
    sees(HashKind::Chain, "F1", "the links at page 16", |p| Damage::Unlink(p.free));
    sees(HashKind::Chain, "C1", "the links at page 3", |p| Damage::Unlink(p.cached));
}

#[test]
fn a_free_page_in_use_breaks_p2_or_k4() {
    for pick in [|p: &Pages| p.free, |p: &Pages| p.cached] {
        sees(HashKind::Chain, "P2", "is mapped", |p| Damage::Map(pick(p)));
        sees(HashKind::Chain, "P2", "is claimed", |p| Damage::Claim(pick(p), 1));
        sees(HashKind::Chain, "K4", "is in transit", |p| Damage::Transit(pick(p)));
    }
}

#[test]
fn state_bits_that_do_not_fit_the_name_break_p1() {
    sees(HashKind::Chain, "P1", "is in state", |p| Damage::FlipSwap(p.used[0]));
    sees(HashKind::Chain, "P1", "is in state", |p| Damage::FlipSwap(p.kernel));
}

#[test]
fn claims_nobody_paid_for_break_b1() {
    sees(HashKind::Chain, "B1", "claims and loans hold 3 pages, yet availrmem is 16 of 16", |p| {
        Damage::Claim(p.used[0], 3)
    });
}

#[test]
fn loans_that_do_not_add_up_are_named() {
    let used = |p: &Pages| p.used[0];
    sees(HashKind::Chain, "B1", "claims and loans hold 1 pages", |p| {
        Damage::Lend(used(p), 2, false)
    });
    sees(HashKind::Chain, "E4", "is an orphan with 2 loans", |p| Damage::Lend(used(p), 2, true));
    sees(HashKind::Chain, "E4", "is an orphan with 0 loans", |p| Damage::Lend(p.kernel, 0, true));
    sees(HashKind::Chain, "P2", "is lent", |p| Damage::Lend(p.free, 1, false));
}

#[test]
fn freemem_that_forgets_a_page_breaks_l4() {
    // A frame that is listed but not counted: taken off with its count, put back without.
    let (w, p) = world(HashKind::Chain);
    w.db.damage(&w.cx, Damage::LoseFree(p.free));
    w.db.free_list().add_uncounted(&w.cx, w.db.pages(), p.free);
    let found = w.db.verify(&w.cx).expect_err("damaged");
    assert_eq!(
        (found.invariant, found.what.as_str()),
        ("L4", "13 pages are free, freemem says 12")
    );
}

#[test]
fn an_overfull_magazine_breaks_f2() {
    let w = World::new(1024);
    for id in w.db.pages().ids().take(300) {
        w.db.damage(&w.cx, Damage::LoseFree(id));
        w.db.free_list().stuff_magazine(&w.cx, id);
    }
    let found = w.db.verify(&w.cx).expect_err("damaged");
    assert_eq!(found.invariant, "F2", "{found}");
}
