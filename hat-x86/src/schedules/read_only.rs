//! A page that must not be stored to (`P_RO`).

use super::*;

/// U4: a range that is given the right to write while one of its pages is made read-only leaves that one without it.
#[test]
fn a_grant_against_a_page_made_read_only() {
    explore(300, &[M::GrantBesideTheList], || {
        let (w, cx) = world();
        let page = w.page(&cx);
        w.load(&cx, 0x1000, page);
        w.hat.clear_write(&cx, one(0x1000));
        let grant = w.spawn(1, |w, cx| w.hat.chg_prot(cx, one(0x1000), Prot::RW));
        let refuse = w.spawn(2, move |w, cx| {
            let page = w.db.lock_excl(cx, page);
            page.page().set_ref_mod(RefMod::RO);
            PageMappings::clear_write(&*w.hx, cx, page.id());
        });
        join([grant, refuse]);
        let rights = w.hat.probe(&cx, va(0x1000)).map(|t| t.prot - Prot::USER);
        assert_eq!(rights, Some(Prot::READ), "U4");
        w.db.page(page).clear_ref_mod(RefMod::RO);
        w.verify(&cx);
    });
}
