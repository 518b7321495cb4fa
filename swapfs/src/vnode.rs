//! One of swapfs's many pseudo vnodes, as the page layer sees it.
//!
//! It has no bytes of its own: everything is done by [`SwapFs`], which owns the vnodes; a vnode holds swapfs weakly, and once
//! swapfs is gone it knows no names.

use crate::fs::SwapFs;
use crate::name::{AnonNumber, VNODE_PAGES};
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::fmt;
use page_db::pvn;
use page_db::{
    Access, Cx, ExclPage, FileOffset, GotPage, PAGE_SIZE, PageDb, PageError, PutFlags, Reserve,
    Vnode, VnodeError, VnodeId,
};

/// A swap vnode.
#[doc(alias("swap_vnodes", "swapfs_getvp"))]
pub struct SwapVnode {
    fs: Weak<SwapFs>,
    id: VnodeId,
    index: u32,
}

impl fmt::Debug for SwapVnode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwapVnode").field("id", &self.id).field("index", &self.index).finish()
    }
}

impl SwapVnode {
    pub(crate) fn new(fs: Weak<SwapFs>, id: VnodeId, index: u32) -> Self {
        Self { fs, id, index }
    }
    /// The vnode's number.
    pub fn number(&self) -> VnodeId {
        self.id
    }
    /// Which swap vnode it is, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }
    fn find(&self, offset: FileOffset) -> Result<(Arc<SwapFs>, AnonNumber), VnodeError> {
        if offset.0 >= self.size() {
            return Err(VnodeError::BeyondEof { vnode: self.id, offset, size: self.size() });
        }
        let no_name = VnodeError::NoName { vnode: self.id, offset };
        let fs = self.fs.upgrade().ok_or(no_name)?;
        let n = AnonNumber::at(self.index, offset).filter(|n| fs.is_live(*n)).ok_or(no_name)?;
        Ok((fs, n))
    }
}

impl Vnode for SwapVnode {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        format!("swap[{}]", self.index)
    }
    fn size(&self) -> u64 {
        u64::from(VNODE_PAGES) * PAGE_SIZE
    }
    #[doc(alias = "swap_getpage")]
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        let (fs, n) = self.find(offset)?;
        fs.get_page_in(cx, db, n, offset.page_index())
    }
    fn create_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
    ) -> Result<ExclPage<'a>, VnodeError> {
        let (fs, n) = self.find(offset)?;
        let id = fs.identity(n);
        loop {
            match db.create(cx, id, offset.page_index(), Reserve::Normal) {
                Ok(page) => return Ok(page),
                Err(PageError::Exists(_)) => {
                    // Only a leftover can be there: an anon is made once.
                    if let Some(page) = db.lookup_excl(cx, id) {
                        db.destroy(cx, page);
                    }
                }
                Err(_) => return Err(VnodeError::NoMemory { vnode: self.id, offset }),
            }
        }
    }
    fn read_ahead(&self, cx: &Cx, _db: &PageDb, offset: FileOffset) -> Result<(), VnodeError> {
        let (fs, n) = self.find(offset)?;
        fs.read_ahead(cx, n)
    }
    #[doc(alias = "swap_putpage")]
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        let Some(fs) = self.fs.upgrade() else {
            return Err(VnodeError::NoName { vnode: self.id, offset });
        };
        let mut result = Ok(());
        let no_heap = |_| VnodeError::NoMemory { vnode: self.id, offset };
        for (id, _) in pvn::pages_in(cx, db, self.id, offset, len).map_err(no_heap)? {
            if let Some(n) = fs.number_of(id) {
                result = result.and(fs.put_page(cx, n, flags));
            }
        }
        result
    }
    fn flush(&self, cx: &Cx, _db: &PageDb) -> Result<(), VnodeError> {
        self.fs.upgrade().map_or(Ok(()), |fs| fs.flush_pushes(cx))
    }
}
