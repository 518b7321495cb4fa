//! What a file says of the rights to its pages.

use super::unhappy::Zeros;
use super::*;
use addr_space::SegKind;
use alloc::string::String;
use page_db::sync::Mutex;
use page_db::{FileOffset, GotPage, PutFlags, Rank, Vnode, VnodeError, VnodeId, VnodeKind};

/// A file that hears of stores: it gives the right to them to whoever says that he stores.
#[derive(Debug)]
struct Hears {
    zeros: Zeros,
    stores: Mutex<Vec<u64>>,
}

impl Vnode for Hears {
    fn id(&self) -> VnodeId {
        self.zeros.id
    }
    fn name(&self) -> String {
        self.zeros.name()
    }
    fn size(&self) -> u64 {
        self.zeros.size
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        if access.is_write() {
            self.stores.lock(cx).push(offset.0 / PAGE_SIZE);
        }
        let got = self.zeros.get_page(cx, db, offset, access)?;
        let prot = if access.is_write() { Prot::RWX } else { Prot::RX };
        Ok(GotPage { prot, ..got })
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        self.zeros.put_page(cx, db, offset, len, flags)
    }
}

/// A load maps neighbours along, with the rights that the file gave: it hears of the first store to each.
#[test]
fn a_file_hears_of_the_first_store_to_what_was_mapped_along() {
    let w = world(64);
    let p = w.proc();
    let id = w.db.vnodes().register(&w.cx, VnodeKind::File).expect("a number");
    let zeros = Zeros { id, size: 4 * PAGE_SIZE };
    let file = Arc::new(Hears { zeros, stores: Mutex::new(Rank::Vnode, Vec::new()) });
    let vnode: Arc<dyn Vnode> = Arc::clone(&file) as _;
    assert!(w.db.vnodes().attach(id, Arc::downgrade(&vnode)));
    for page in 0..4 {
        let got = vnode.get_page(&w.cx, &w.db, FileOffset(page * PAGE_SIZE), Access::Read);
        drop(got.expect("frames"));
    }
    let range = VirtRange::exact(BASE, 4 * PAGE_SIZE).expect("aligned");
    let args = SegVnArgs {
        vnode: Some(vnode),
        kind: SegKind::SHARED,
        ..SegVnArgs::zfod(&w.driver, Prot::RW)
    };
    p.space.map(&w.cx, range, &args).expect("free");
    w.read(&p, 0);
    assert_eq!(w.db.counters().get(Counter::FaultAhead), 3, "the others are mapped along");
    for page in [1, 3, 1, 0] {
        w.write(&p, page, 7);
    }
    assert_eq!(*file.stores.lock(&w.cx), [1, 3, 0]);
    p.space.free(&w.cx);
}
