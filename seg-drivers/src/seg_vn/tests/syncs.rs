//! What a sync asks of a file.

use super::unhappy::{Zeros, range};
use super::*;
use addr_space::SyncFlags;
use alloc::string::String;
use page_db::{FileOffset, GotPage, PutFlags, Vnode, VnodeError, VnodeId, VnodeKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file, and how many pages it has been asked to put.
#[derive(Debug)]
struct Asked {
    file: Zeros,
    pages: AtomicU64,
}

impl Vnode for Asked {
    fn id(&self) -> VnodeId {
        self.file.id
    }
    fn name(&self) -> String {
        self.file.name()
    }
    fn size(&self) -> u64 {
        self.file.size
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        self.file.get_page(cx, db, offset, access)
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        self.pages.fetch_add(len / PAGE_SIZE, Ordering::Relaxed);
        self.file.put_page(cx, db, offset, len, flags)
    }
}

/// A private mapping of a file with copies here and there is synced by what is in memory, however long it is: each resident page that is seen is put once.
#[test]
fn a_sync_asks_for_what_is_resident() {
    let asked = |pages: u64| {
        let w = world(256);
        let (p, reader) = (w.proc(), w.proc());
        let id = w.db.vnodes().register(&w.cx, VnodeKind::File).expect("a number");
        let file = Zeros { id, size: pages * PAGE_SIZE };
        let file = Arc::new(Asked { file, pages: AtomicU64::new(0) });
        let vnode: Arc<dyn Vnode> = Arc::clone(&file) as _;
        assert!(w.db.vnodes().attach(id, Arc::downgrade(&vnode)));
        let (vnode, kind) = (Some(vnode), addr_space::SegKind::NORESERVE);
        let args = SegVnArgs { vnode, kind, ..SegVnArgs::zfod(&w.driver, Prot::RW) };
        p.space.map(&w.cx, range(0, pages), &args).expect("free");
        reader.space.map(&w.cx, range(0, pages), &args).expect("free");
        let step = pages / 16;
        for part in 0..16 {
            w.write(&p, part * step, 65); // copied: the file's page below is not seen
            w.read(&reader, part * step);
            w.read(&p, part * step + 1);
            w.read(&p, part * step + 2);
            w.read(&p, part * step + 9);
        }
        p.space.sync(&w.cx, range(0, pages), SyncFlags::empty()).expect("it writes");
        w.check(&p);
        [p, reader].iter().for_each(|p| p.space.free(&w.cx));
        file.pages.load(Ordering::Relaxed)
    };
    let (few, many) = (asked(512), asked(1 << 20));
    // Of each part the three pages that are read; the one that is stored to is not the file's.
    assert_eq!((few, many), (48, 48), "pages of the file put");
}
