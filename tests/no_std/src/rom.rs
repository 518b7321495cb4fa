//! A file: some bytes that cannot be written. The smallest vnode that can be mapped.

use crate::{Result, ensure};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::{
    Access, Cx, FileOffset, GotPage, Identity, LockedPage, PAGE_SIZE, PageDb, Prot, PutFlags,
    Vnode, VnodeError, VnodeId, VnodeKind, pvn,
};

/// A file in read-only memory.
#[derive(Debug)]
pub struct RomFile {
    id: VnodeId,
    bytes: Vec<u8>,
}

impl RomFile {
    /// A file of these bytes, known to the page database.
    ///
    /// # Errors
    /// No vnode number left.
    pub fn new(cx: &Cx, db: &PageDb, bytes: Vec<u8>) -> Result<Arc<Self>> {
        let id = db.vnodes().register(cx, VnodeKind::File)?;
        let file = Arc::new(Self { id, bytes });
        let object: Arc<dyn Vnode> = Arc::clone(&file) as _;
        ensure!(db.vnodes().attach(id, Arc::downgrade(&object)), "the number is somebody else's");
        Ok(file)
    }
    /// Drops its pages and gives its number back; says whether nobody used it any more.
    ///
    /// # Errors
    /// A page could not be dropped.
    pub fn close(self: Arc<Self>, cx: &Cx, db: &PageDb) -> Result<bool> {
        self.put_page(cx, db, FileOffset(0), 0, PutFlags::INVAL)?;
        let id = self.id;
        drop(self); // its number is given back when nobody can name pages by it any more
        Ok(db.vnodes().retire(cx, id))
    }
}

impl Vnode for RomFile {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        "rom".into()
    }
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _access: Access,
    ) -> core::result::Result<GotPage<'a>, VnodeError> {
        let from = offset.page_floor().0 as usize;
        let beyond = VnodeError::BeyondEof { vnode: self.id, offset, size: self.size() };
        let rest = self.bytes.get(from..).filter(|rest| !rest.is_empty()).ok_or(beyond)?;
        let id = Identity::new(self.id, offset);
        let got = pvn::get(cx, db, id, offset.page_index(), |page| {
            db.mem().zero(page.pfn());
            db.mem().write(page.pfn(), 0, &rest[..rest.len().min(PAGE_SIZE as usize)]);
            Ok(())
        })?;
        Ok(GotPage { page: got.page, prot: Prot::RX, read: got.filled })
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> core::result::Result<(), VnodeError> {
        // Its pages are never dirty: they are only dropped.
        pvn::put_range(cx, db, self.id, offset, len, flags, |_, _| {
            Err(VnodeError::NotSupported { vnode: self.id, op: "write" })
        })
    }
}
