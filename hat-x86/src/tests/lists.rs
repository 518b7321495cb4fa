//! From a page to its mappings (behaviour 58).

use super::*;

/// What the page says of its mappings: embedded, share, and the count the page layer is told.
fn shape(w: &World, page: PageId) -> (bool, u32, u32) {
    let m = w.db.page(page).mapping();
    (m.is_embedded(), m.share(), w.db.share_count(&w.cx, page))
}

#[test]
fn one_mapping_is_embedded_two_are_a_list_and_a_list_of_one_stays_one() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    assert_eq!(shape(&w, page), (false, 0, 0));
    w.load(&*hat, 0x1000, page, U);
    assert_eq!(shape(&w, page), (true, 0, 1));
    w.load(&*hat, 0x2000, page, U);
    assert_eq!(shape(&w, page), (false, 2, 2));
    w.verify();
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(shape(&w, page), (false, 1, 1), "not embedded again");
    w.verify();
    w.unload(&*hat, 0x2000, 1);
    assert_eq!(shape(&w, page), (false, 0, 0));
    assert!(!w.db.page(page).is_mapped());
    w.load(&*hat, 0x3000, page, U);
    assert_eq!(shape(&w, page), (true, 0, 1), "the next one embeds");
    w.verify();
}

#[test]
fn a_page_mapped_a_thousand_times_loses_mappings_in_any_order() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    for i in 0..1000u64 {
        w.load(&*hat, i << 12, page, U);
    }
    assert_eq!(shape(&w, page), (false, 1000, 1000));
    w.verify();
    // 7 and 1000 have no common divisor: every index once, far apart.
    for i in (0..1000u64).map(|i| i * 7 % 1000).take(900) {
        w.unload(&*hat, i << 12, 1);
    }
    assert_eq!(shape(&w, page), (false, 100, 100));
    w.verify();
    w.free(page);
    assert_eq!(hat.resident(), 0);
    w.verify();
}

#[test]
fn mappings_are_listed_by_hat_and_address() {
    let w = World::new(64);
    let (a, b, page) = (w.hat(), w.hat(), w.page());
    w.load(&*b, 0x5000, page, Prot::READ);
    w.load(&*a, 0x9000, page, U);
    w.load(&*a, 0x2000, page, Prot::RX);
    let seen: Vec<_> =
        w.hx.mappings_of(&w.cx, page)
            .iter()
            .map(|(hat, va, e)| (*hat, va.get(), (e.prot() - Prot::USER).to_string()))
            .collect();
    let want = [(a.id(), 0x2000, "r-x"), (a.id(), 0x9000, "rw-"), (b.id(), 0x5000, "r--")];
    assert_eq!(seen, want.map(|(h, v, p)| (h, v, p.to_string())));
}

#[test]
fn device_mappings_are_on_no_list() {
    let w = World::new(64);
    let (hat, page) = (w.hat(), w.page());
    w.load_with(&*hat, 0x1000, page, U, LoadFlags::NOCONSIST);
    assert_eq!(shape(&w, page), (false, 0, 0));
    w.verify();
    w.unload(&*hat, 0x1000, 1);
    assert_eq!(w.bits(page), RefMod::empty(), "set from the start, never harvested");
    w.verify();
}
