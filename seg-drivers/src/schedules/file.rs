//! A file of zeros that can be cut.

use super::World;
use crate::seg_vn::SegVnArgs;
use addr_space::SegKind;
use alloc::string::String;
use alloc::sync::Arc;
use page_db::sync::Mutex;
use page_db::{
    Access, Cx, FileOffset, GotPage, Identity, LockedPage, PAGE_SIZE, PageDb, Prot, PutFlags, Rank,
    Vnode, VnodeError, VnodeId, VnodeKind, pvn,
};

#[derive(Debug)]
pub(super) struct Zeros {
    id: VnodeId,
    /// Bytes; whoever gets a page has it until the page is locked.
    size: Mutex<u64>,
}

impl Zeros {
    /// A file of `pages` pages, and a process that maps all of it shared, as the world's processes map their memory.
    pub(super) fn mapped(w: &World, cx: &Cx, pages: u64) -> (Arc<Self>, super::world::Proc) {
        let id = w.db.vnodes().register(cx, VnodeKind::File).expect("a number");
        let size = Mutex::new(Rank::Vnode, pages * PAGE_SIZE);
        let file = Arc::new(Self { id, size });
        assert!(w.db.vnodes().attach(id, Arc::<Self>::downgrade(&file)));
        let p = w.proc(cx, 1);
        p.map(cx, super::pages(0, pages), &file.shared(w, Prot::RW)).expect("free");
        (file, p)
    }
    /// A shared mapping of it, from its first page on.
    pub(super) fn shared(self: &Arc<Self>, w: &World, prot: Prot) -> SegVnArgs {
        let vnode: Arc<dyn Vnode> = Arc::clone(self) as _;
        let zfod = SegVnArgs::zfod(&w.driver, prot);
        SegVnArgs { vnode: Some(vnode), kind: SegKind::SHARED, ..zfod }
    }
    /// The name of a page.
    pub(super) fn page(&self, n: u64) -> Identity {
        Identity::new(self.id, FileOffset(n * PAGE_SIZE))
    }
    /// Shortens the file to `pages` pages: those behind are gone.
    pub(super) fn cut(&self, cx: &Cx, db: &PageDb, pages: u64) {
        let mut size = self.size.lock(cx);
        *size = pages * PAGE_SIZE;
        let flags = PutFlags::INVAL | PutFlags::TRUNC | PutFlags::FORCE;
        let gone = pvn::put_range(cx, db, self.id, FileOffset(*size), 0, flags, |_, _| Ok(()));
        gone.expect("nothing is written");
    }
}

impl Vnode for Zeros {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        String::from("zeros")
    }
    fn size(&self) -> u64 {
        *self.size.lock_host()
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        let size = self.size.lock(cx);
        if offset.0 >= *size {
            return Err(VnodeError::BeyondEof { vnode: self.id, offset, size: *size });
        }
        let got = pvn::get(cx, db, Identity::new(self.id, offset), 0, |page| {
            db.mem().zero(page.pfn());
            Ok(())
        })?;
        Ok(GotPage { page: got.page, prot: Prot::RWX, read: got.filled })
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        pvn::put_range(cx, db, self.id, offset, len, flags, |_, _| Ok(()))
    }
}
