//! What a push is said to have freed: what its own thread did.

use super::Pageout;
use crate::lock::Rank;
use crate::sync::Mutex;
use crate::testing::{World, name};
use crate::{
    Access, Cx, FileOffset, GotPage, Identity, PageDb, PutFlags, RefMod, Reserve, Vnode,
    VnodeError, VnodeId, VnodeKind, errno,
};
use alloc::string::String;
use alloc::sync::Arc;

/// What a vnode does with a page of its own, before its write fails.
#[derive(Clone, Copy, Debug)]
enum Doing {
    /// Takes it back from the cache list, and lets it go.
    TakesBack,
    /// Destroys it, cached as it is.
    Destroys,
    /// Another thread destroys it, in use.
    FreedElsewhere,
    /// Destroys it, in use; another thread makes a page meanwhile.
    FreesBesideAnother,
}

/// A vnode that keeps what it needs for a write in a page, and cannot write.
#[derive(Debug)]
struct Odd {
    id: VnodeId,
    own: Identity,
    doing: Doing,
    other: Mutex<Cx>,
}

impl Odd {
    fn failed(&self, offset: FileOffset) -> VnodeError {
        VnodeError::Io { vnode: self.id, offset, errno: errno::EIO }
    }
}

impl Vnode for Odd {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        String::from("odd")
    }
    fn size(&self) -> u64 {
        1 << 30
    }
    fn get_page<'a>(
        &self,
        _cx: &'a Cx,
        _db: &'a PageDb,
        offset: FileOffset,
        _access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        Err(self.failed(offset))
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        _len: u64,
        _flags: PutFlags,
    ) -> Result<(), VnodeError> {
        let other = self.other.lock(cx);
        let page = |cx| db.lookup_excl(cx, self.own).expect("its page");
        match self.doing {
            Doing::TakesBack => db.free(cx, page(cx), false),
            Doing::Destroys => {
                db.destroy(cx, db.lookup_excl_cached(cx, self.own).expect("its page"));
            }
            Doing::FreedElsewhere => db.destroy(&other, page(&other)),
            Doing::FreesBesideAnother => {
                db.destroy(cx, page(cx));
                let made = db.create(&other, name(self.own.vnode, 7), 0, Reserve::Push);
                made.expect("a frame").end_io();
            }
        }
        Err(self.failed(offset))
    }
    fn flush(&self, _cx: &Cx, _db: &PageDb) -> Result<(), VnodeError> {
        Ok(())
    }
}

/// What one push of an [`Odd`] is said to have freed.
fn freed(doing: Doing) -> u64 {
    let w = World::new(32);
    let own = name(w.vnode(VnodeKind::File), 0);
    let id = w.vnode(VnodeKind::File);
    let odd = Arc::new(Odd { id, own, doing, other: Mutex::new(Rank::Vnode, w.thread(1)) });
    let weak = Arc::downgrade(&(Arc::clone(&odd) as Arc<dyn Vnode>));
    assert!(w.db.vnodes().attach(id, weak), "a number just handed out");
    let dirty = w.make(name(id, 0));
    w.db.page(dirty).set_ref_mod(RefMod::MOD);
    let p = Pageout::new(&w.db, crate::PageoutConfig::default());
    p.check_page(&w.cx, &w.db, dirty, super::super::Hand::Back);
    w.make(own);
    if matches!(doing, Doing::TakesBack | Doing::Destroys) {
        w.free(own, false);
    }
    let report = p.push_queued(&w.cx, &w.db, 1);
    assert_eq!((report.pushed, report.failed), (1, 1));
    w.verify();
    report.freed
}

#[test]
fn a_push_that_takes_back_what_was_free_has_freed_nothing() {
    assert_eq!(freed(Doing::TakesBack), 0);
    assert_eq!(freed(Doing::Destroys), 0);
}

#[test]
fn a_push_has_freed_what_its_own_thread_freed() {
    assert_eq!(freed(Doing::FreedElsewhere), 0);
    assert_eq!(freed(Doing::FreesBesideAnother), 1);
}
