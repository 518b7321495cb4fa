//! Vnodes: files, the swap vnodes, the kernel's, and a file with flaws.

use crate::{HOLDS, all_caught, all_caught_some_time, clauses_of};
use page_db::{
    Access, Cx, ExclPage, FileOffset, GotPage, Identity, LockedPage as _, PAGE_SIZE, PageDb, Prot,
    PutFlags, Rank, RefMod, Reserve, Vnode, VnodeError, VnodeId, errno,
};
use segvm::Machine;
use segvm::contract::{Breach, Transfer, VnodeCase, check_vnode, vnode};
use segvm::files::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

fn machine() -> Machine {
    Machine::builder().frames(128).cpus(2).build().expect("a small machine")
}

fn places<const N: usize>(pages: [u64; N]) -> [FileOffset; N] {
    pages.map(|n| FileOffset(n * PAGE_SIZE))
}

fn failing(m: &Machine, file: &File, kind: Transfer) {
    match kind {
        Transfer::Read => file.fail_read(m.cx(), 1, errno::EIO),
        Transfer::Write => file.fail_write(m.cx(), 1, errno::EIO),
    }
}

#[test]
fn files_keep_the_contract() {
    let m = machine();
    let places = places([0, 1, 2, 3]);
    let file = m.create_file("letters", 4 * PAGE_SIZE).expect("a file");
    let fail = |kind| failing(&m, &file, kind);
    let case = VnodeCase {
        cx: m.cx(),
        db: m.db(),
        vnode: &*file,
        places: &places,
        stores: true,
        fail: Some(&fail),
    };
    vnode(&case);
    m.verify().expect("every invariant holds");

    let path = std::env::temp_dir().join(format!("segvm-contract-vnode-{}", std::process::id()));
    std::fs::write(&path, vec![7; 4 * PAGE_SIZE as usize]).expect("a file of the host");
    let file = m.open_host_file(&path, true).expect("it exists");
    let fail = |kind| failing(&m, &file, kind);
    vnode(&VnodeCase { vnode: &*file, fail: Some(&fail), ..case });
    let file = m.open_host_file(&path, false).expect("it exists");
    vnode(&VnodeCase { vnode: &*file, fail: None, stores: false, ..case });
    std::fs::remove_file(&path).expect("it was made");
    m.verify().expect("every invariant holds");
}

#[test]
fn swap_vnodes_keep_the_contract() {
    let m = machine();
    let mut named = [(); 4].map(|()| m.swap().alloc_named(m.cx()).expect("a name"));
    named.sort_by_key(|(_, id)| *id);
    let first = named[0].1.vnode; // a CPU's names come from one vnode
    let places: Vec<_> = named.iter().map(|(_, id)| id.offset).collect();
    let object = m.db().vnodes().object(first).expect("swapfs lives");
    vnode(&VnodeCase {
        cx: m.cx(),
        db: m.db(),
        vnode: &*object,
        places: &places,
        stores: true,
        fail: None,
    });
    for (n, id) in named {
        let page = m.db().lookup_excl(m.cx(), id);
        page.into_iter().for_each(|page| m.db().destroy(m.cx(), page));
        m.swap().free(m.cx(), n);
    }
    m.verify().expect("every invariant holds");
}

#[test]
fn the_kernels_vnode_keeps_the_contract() {
    let m = machine();
    let range = m.kmem().alloc(&m.kernel_scx(), 4).expect("frames");
    let first = range.start().get() - m.kmem().window().start().get();
    let places = [0, 1, 2, 3].map(|n| FileOffset(first + n * PAGE_SIZE));
    vnode(&VnodeCase {
        cx: m.cx(),
        db: m.db(),
        vnode: &**m.kmem().vnode(),
        places: &places,
        stores: false,
        fail: None,
    });
    m.kmem().free(&m.kernel_scx(), range).expect("an allocation");
    m.verify().expect("every invariant holds");
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    GetsThePageBeside,
    GivesNoRights,
    LeavesAPageLocked,
    KeepsARank,
    HasNoEnd,
    MakesPagesPastTheEnd,
    DropsAStore,
    CleansWithoutWriting,
    PutsTheWholeVnode,
    PutsNothingForLengthZero,
    KeepsWhatIsInvalid,
    DropsPagesItShouldKeep,
    NeverFrees,
    NeverReads,
    WritesWhatIsTruncated,
    TakesClaimedPages,
    HidesAFailedRead,
    HidesAFailedWrite,
    DropsWhatItCouldNotWrite,
    StopsAtAFailedWrite,
    WaitsThoughItMayNot,
    HidesAHeldPage,
    CleansAHeldPage,
    StopsAtAHeldPage,
    PutsNothingThatMayNotWait,
    CreatesUnlocked,
    ReadAheadFails,
    TakesTheLastFrame,
    Renames,
    CleansNothing,
    ReadsAnew,
    HandsOutWhatIsOnItsWay,
    IgnoresForce,
    CannotSayWhatItCannot,
    MixesUpItsCallers,
    HasTwoPlaces,
}

/// A file behind a layer that breaks one clause.
#[derive(Debug)]
struct Flawed {
    inner: Arc<File>,
    flaw: Flaw,
    used: AtomicBool,
    /// What the last caller wanted.
    wanted: AtomicU64,
}

impl Flawed {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    fn name_of(&self, offset: FileOffset) -> Identity {
        Identity::new(self.inner.id(), offset)
    }
    fn each(&self, cx: &Cx, db: &PageDb, f: impl Fn(ExclPage<'_>)) {
        self.each_of(cx, db, FileOffset(0), 0, f);
    }
    /// Those of a range only; a length of 0 means all.
    fn each_of(&self, cx: &Cx, db: &PageDb, at: FileOffset, len: u64, f: impl Fn(ExclPage<'_>)) {
        let all = (0..4).map(|n| FileOffset(n * PAGE_SIZE));
        for offset in all.filter(|o| len == 0 || (at.0..at.0 + len).contains(&o.0)) {
            if let Some(page) = db.lookup_excl(cx, self.name_of(offset)) {
                f(page);
            }
        }
    }
    fn put(
        &self,
        cx: &Cx,
        db: &PageDb,
        at: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        self.inner.put_page(cx, db, at, len, flags)
    }
}

impl Vnode for Flawed {
    fn id(&self) -> VnodeId {
        self.inner.id()
    }
    fn name(&self) -> String {
        let changed = self.is(Flaw::Renames) && self.used.load(SeqCst);
        if changed { "another".into() } else { "flawed".into() }
    }
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        self.used.store(true, SeqCst);
        let beyond = offset.0 >= self.size();
        let at = match self.flaw {
            Flaw::GetsThePageBeside => FileOffset(offset.0 ^ PAGE_SIZE),
            Flaw::HasNoEnd if beyond => FileOffset(0),
            Flaw::MixesUpItsCallers if !beyond => {
                self.wanted.store(offset.0, SeqCst);
                std::thread::yield_now();
                FileOffset(self.wanted.load(SeqCst))
            }
            _ => offset,
        };
        if self.is(Flaw::ReadsAnew) && !beyond {
            let old = db.lookup_excl(cx, self.name_of(at)).map(|page| db.destroy(cx, page));
            // Its frame is taken meanwhile.
            let spare = old.and_then(|()| db.alloc(cx, 0, Reserve::Normal).ok());
            let spare = spare.map(ExclPage::leak);
            let got = self.inner.get_page(cx, db, at, access);
            spare.into_iter().for_each(|page| db.destroy(cx, db.adopt_excl(cx, page)));
            return got.map(|got| GotPage { read: false, ..got });
        }
        if self.is(Flaw::TakesTheLastFrame) && !beyond && db.exists(cx, self.name_of(at)).is_none()
        {
            // Reads as it should, and answers with an error of its own when memory is short.
            let room = db.alloc(cx, 0, Reserve::Normal).map(|page| db.destroy(cx, page));
            room.map_err(|_| VnodeError::NoSpace { vnode: self.id(), offset })?;
        }
        if self.is(Flaw::MakesPagesPastTheEnd)
            && beyond
            && let Ok(page) = db.create(cx, self.name_of(at), 0, Reserve::Normal)
        {
            page.end_io();
        }
        let got = match self.inner.get_page(cx, db, at, access) {
            Err(VnodeError::Io { .. }) if self.is(Flaw::HidesAFailedRead) => {
                self.inner.get_page(cx, db, at, access)
            }
            got => got,
        };
        let mut got = got?;
        match self.flaw {
            Flaw::GivesNoRights => got.prot = Prot::empty(),
            Flaw::LeavesAPageLocked => {
                let again = db.try_lookup_shared(cx, self.name_of(at));
                again.map(page_db::SharedPage::leak);
            }
            Flaw::KeepsARank => cx.rank_adopted(Rank::Vnode),
            Flaw::NeverReads => got.read = false,
            Flaw::HandsOutWhatIsOnItsWay => db.io_lock(cx, &got.page),
            Flaw::DropsAStore if access == Access::Read && got.read => {
                db.mem().write(got.page.pfn(), PAGE_SIZE as usize - 8, &[0; 8]);
            }
            _ => {}
        }
        Ok(got)
    }
    fn create_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
    ) -> Result<ExclPage<'a>, VnodeError> {
        if !self.is(Flaw::CreatesUnlocked) {
            return self.inner.create_page(cx, db, offset);
        }
        let page = db.create(cx, self.name_of(offset), 0, Reserve::Normal);
        let page = page.map_err(|_| VnodeError::NoMemory { vnode: self.id(), offset })?;
        page.end_io();
        Ok(page)
    }
    fn read_ahead(&self, cx: &Cx, db: &PageDb, offset: FileOffset) -> Result<(), VnodeError> {
        if self.is(Flaw::ReadAheadFails) {
            return Err(VnodeError::NotSupported { vnode: self.id(), op: "read_ahead" });
        }
        self.get_page(cx, db, offset, Access::Other).map(drop)
    }
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        at: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError> {
        match self.flaw {
            Flaw::CleansWithoutWriting => {
                self.each_of(cx, db, at, len, |p| p.page().clear_ref_mod(RefMod::MOD));
                self.put(cx, db, at, len, flags)
            }
            Flaw::CleansNothing if flags.is_empty() => Ok(()),
            Flaw::IgnoresForce if flags.contains(PutFlags::FORCE) => {
                self.put(cx, db, at, len, flags - PutFlags::FORCE).or(Ok(()))
            }
            Flaw::CannotSayWhatItCannot => {
                Err(VnodeError::Io { vnode: self.id(), offset: at, errno: errno::EIO })
            }
            Flaw::PutsTheWholeVnode => self.put(cx, db, FileOffset(0), 0, flags),
            Flaw::PutsNothingForLengthZero if len == 0 => Ok(()),
            Flaw::KeepsWhatIsInvalid => self.put(cx, db, at, len, flags - PutFlags::INVAL),
            Flaw::DropsPagesItShouldKeep => self.put(cx, db, at, len, flags | PutFlags::INVAL),
            Flaw::NeverFrees if flags.contains(PutFlags::FREE) => {
                self.put(cx, db, at, len, PutFlags::empty())?;
                // Somebody goes on using them.
                let all = (0..4).map(|n| FileOffset(n * PAGE_SIZE));
                all.into_iter().try_for_each(|p| self.get_page(cx, db, p, Access::Read).map(drop))
            }
            Flaw::WritesWhatIsTruncated => self.put(cx, db, at, len, flags - PutFlags::TRUNC),
            Flaw::TakesClaimedPages => self.put(cx, db, at, len, flags | PutFlags::FORCE),
            Flaw::HidesAFailedWrite => self.put(cx, db, at, len, flags).or(Ok(())),
            Flaw::DropsWhatItCouldNotWrite => self.put(cx, db, at, len, flags).inspect_err(|e| {
                if matches!(e, VnodeError::Io { .. }) {
                    self.each(cx, db, |p| db.destroy(cx, p));
                }
            }),
            Flaw::StopsAtAFailedWrite => {
                let all = (0..4).map(|n| FileOffset(n * PAGE_SIZE));
                let mut mine = all.filter(|p| len == 0 || *p == at);
                mine.try_for_each(|p| self.put(cx, db, p, PAGE_SIZE, flags))
            }
            Flaw::WaitsThoughItMayNot => self.put(cx, db, at, len, flags - PutFlags::NOWAIT),
            Flaw::HidesAHeldPage => match self.put(cx, db, at, len, flags) {
                Err(VnodeError::Deadlock { .. }) => Ok(()),
                done => done,
            },
            Flaw::CleansAHeldPage => self.put(cx, db, at, len, flags).inspect_err(|e| {
                if let VnodeError::Deadlock { offset, .. } = e {
                    let page = db.exists(cx, self.name_of(*offset)).expect("it is held");
                    db.page(page).clear_ref_mod(RefMod::MOD);
                }
            }),
            Flaw::StopsAtAHeldPage if flags.contains(PutFlags::NOWAIT) => {
                let mut all = (0..4).map(|n| FileOffset(n * PAGE_SIZE));
                all.try_for_each(|p| self.put(cx, db, p, PAGE_SIZE, flags))
            }
            Flaw::PutsNothingThatMayNotWait if flags.contains(PutFlags::NOWAIT) => Ok(()),
            _ => self.put(cx, db, at, len, flags),
        }
    }
}

/// Each flaw, and the clause that catches it.
const FLAWS: &[(Flaw, &str)] = {
    use Flaw::*;
    &[
        (GetsThePageBeside, "get_page returns the page of the offset"),
        (GivesNoRights, "the rights returned allow"),
        (LeavesAPageLocked, "no page stays locked"),
        (HasNoEnd, "pages at or past the size"),
        (MakesPagesPastTheEnd, "pages at or past the size"),
        (DropsAStore, "what was stored comes back"),
        (CleansWithoutWriting, "what was stored comes back"),
        (CleansNothing, "put_page writes the dirty pages"),
        (ReadsAnew, "get_page finds the page that is in memory"),
        (HandsOutWhatIsOnItsWay, "a page handed out is not on its way"),
        (IgnoresForce, "FORCE"),
        (CannotSayWhatItCannot, "what the vnode cannot do"),
        (PutsTheWholeVnode, "put_page leaves pages outside its range"),
        (PutsNothingForLengthZero, "a length of 0"),
        (KeepsWhatIsInvalid, "INVAL"),
        (DropsPagesItShouldKeep, "put_page without FREE and INVAL"),
        (NeverFrees, "FREE"),
        (NeverReads, "get_page says when a device was read"),
        (WritesWhatIsTruncated, "TRUNC"),
        (TakesClaimedPages, "pages locked in memory stay"),
        (HidesAFailedRead, "a failed read is an error"),
        (HidesAFailedWrite, "a page whose write failed"),
        (DropsWhatItCouldNotWrite, "a page whose write failed"),
        (StopsAtAFailedWrite, "after a failed write the walk goes on"),
        (WaitsThoughItMayNot, "NOWAIT: nobody who holds a page is waited for"),
        (HidesAHeldPage, "NOWAIT: a page that somebody holds stays"),
        (CleansAHeldPage, "NOWAIT: a page that somebody holds stays"),
        (StopsAtAHeldPage, "NOWAIT: what nobody holds is put"),
        (PutsNothingThatMayNotWait, "NOWAIT: what nobody holds is put"),
        (CreatesUnlocked, "create_page"),
        (ReadAheadFails, "read_ahead is a hint"),
        (TakesTheLastFrame, "without a frame"),
        (Renames, "id, name and size stay"),
        (KeepsARank, HOLDS),
        (HasTwoPlaces, "three places to try"),
    ]
};

/// Those that show when two threads meet in them.
const MEETINGS: &[(Flaw, &str)] = &[(Flaw::MixesUpItsCallers, "contents are complete")];

fn judged(flaw: Flaw) -> Result<(), Breach> {
    let m = machine();
    let inner = m.create_file("letters", 4 * PAGE_SIZE).expect("a file");
    let (all, fail) = (places([0, 1, 2, 3]), |kind| failing(&m, &inner, kind));
    let flawed = Flawed {
        inner: Arc::clone(&inner),
        flaw,
        used: AtomicBool::new(false),
        wanted: AtomicU64::new(0),
    };
    check_vnode(&VnodeCase {
        cx: m.cx(),
        db: m.db(),
        vnode: &flawed,
        places: if flaw == Flaw::HasTwoPlaces { &all[..2] } else { &all },
        stores: flaw != Flaw::CannotSayWhatItCannot,
        fail: Some(&fail),
    })
}

#[test]
fn every_flaw_of_a_vnode_is_caught_by_its_clause() {
    all_caught(FLAWS, judged);
    all_caught_some_time(MEETINGS, judged);
}

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    clauses_of(&[FLAWS, MEETINGS])
}
