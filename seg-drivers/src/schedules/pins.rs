//! Who wants a page alone beside those who have it pinned.

use super::file::Zeros;
use super::world::{World, page};
use crate::seg_vn::SegVnArgs;
use addr_space::{FaultError, FaultKind};
use page_db::sync::Mutation as M;
use page_db::sync::explore::{explore, join};
use page_db::{Access, LockedPage, PAGE_SIZE, Prot};

/// J5: a lent page of a file is stored to while another thread of the process pins it through a second mapping, and maps something: as writer it waits for the
/// store to leave the address space, so the store must not wait for the pin.
#[test]
fn store_to_a_lent_page_against_a_soft_lock() {
    explore(100, &[M::PinLookedFor], || {
        let (w, cx) = World::new(40);
        let (file, p) = Zeros::mapped(&w, &cx, 1);
        p.map(&cx, page(1), &file.shared(&w, Prot::READ)).expect("free");
        w.run(&cx, &p);
        w.store(&cx, &p, 0, 7).expect("mapped");
        let lent = {
            let page = w.db.lookup_excl(&cx, file.page(0)).expect("there");
            w.db.lend(&cx, &page).expect("there is memory");
            page.id()
        };
        let stores = {
            let p = p.clone();
            w.spawn(0, move |w, cx| {
                let done = w.store(cx, &p, 0, 8);
                assert!(matches!(done, Ok(()) | Err(FaultError::Object { .. })), "{done:?}");
            })
        };
        let pins = {
            let p = p.clone();
            w.spawn(1, move |w, cx| {
                let fault = |kind| p.fault(cx, page(1), kind, Access::Read).expect("mapped");
                fault(FaultKind::SoftLock);
                p.map(cx, page(2), &SegVnArgs::zfod(&w.driver, Prot::RW)).expect("free");
                fault(FaultKind::SoftUnlock);
            })
        };
        join([stores, pins]);
        w.store(&cx, &p, 0, 9).expect("nobody has it pinned");
        assert_eq!(w.load(&cx, &p, PAGE_SIZE), Ok(9));
        w.db.unlend(&cx, lent);
        file.cut(&cx, &w.db, 0);
        w.finish(&cx, &[&p]);
    });
}
