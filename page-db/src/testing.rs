//! What this crate's own tests share: a small world, a hat that only remembers, a file that can fail.

#![cfg_attr(shuttle, allow(dead_code, reason = "schedules need only a part of it"))]

use crate::cx::SpinHooks;
use crate::lock::Rank;
use crate::pvn;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, Once};
use crate::{
    Access, Counters, CpuId, Cx, FileOffset, GotPage, HashKind, HostMem, Identity, LockedPage,
    ManualClock, PAGE_SIZE, PageDb, PageDbConfig, PageId, PageMappings, Pfn, PhysMem, Prot,
    PutFlags, RefMod, Reserve, SyncMode, ThreadId, Vnode, VnodeError, VnodeId, VnodeKind, errno,
};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

pub(crate) fn cx() -> Cx {
    Cx::new(&Counters::new(1), CpuId(0), ThreadId(0), Arc::new(SpinHooks))
}

/// Frames start at 16, so that an index taken for a frame number shows.
pub(crate) const BASE: u64 = 16;

/// A page database with a fake hat.
pub(crate) struct World {
    pub(crate) cx: Cx,
    pub(crate) db: Arc<PageDb>,
    pub(crate) hat: Arc<FakeHat>,
}

impl World {
    pub(crate) fn new(frames: u64) -> Self {
        Self::with(frames, &PageDbConfig::default())
    }
    pub(crate) fn with(frames: u64, config: &PageDbConfig) -> Self {
        Self::over(Arc::new(HostMem::new(Pfn(BASE), frames).expect("heap")), config)
    }
    pub(crate) fn over(mem: Arc<dyn PhysMem>, config: &PageDbConfig) -> Self {
        let counters = Counters::new(config.cpus);
        let cx = Cx::new(&counters, CpuId(0), ThreadId(1), Arc::new(SpinHooks));
        let clock = Arc::new(ManualClock::default());
        let db = Arc::new(PageDb::new(&cx, mem, clock, counters, config).expect("a database"));
        let hat = Arc::new(FakeHat::default());
        assert!(hat.db.set(Arc::downgrade(&db)).is_ok());
        assert!(db.set_mappings(Arc::clone(&hat) as Arc<dyn PageMappings>));
        Self { cx, db, hat }
    }
    /// A context for another thread.
    pub(crate) fn thread(&self, n: u32) -> Cx {
        Cx::new(self.db.counters(), CpuId(n as u16), ThreadId(n + 1), Arc::new(SpinHooks))
    }
    pub(crate) fn vnode(&self, kind: VnodeKind) -> VnodeId {
        self.db.vnodes().register(&self.cx, kind).expect("a number")
    }
    /// Makes the page named `id` and lets it go: in use, not referenced.
    pub(crate) fn make(&self, id: Identity) -> PageId {
        let page = self.db.create(&self.cx, id, 0, Reserve::Push).expect("a frame");
        page.end_io();
        page.page().clear_ref_mod(RefMod::all());
        page.id()
    }
    /// Frees the page named `id`.
    pub(crate) fn free(&self, id: Identity, dontneed: bool) {
        let page = self.db.lookup_excl(&self.cx, id).expect("the page is there");
        self.db.free(&self.cx, page, dontneed);
    }
    pub(crate) fn verify(&self) -> crate::db::PageCensus {
        self.db.verify(&self.cx).unwrap_or_else(|d| panic!("{d}"))
    }
    pub(crate) fn count(&self, c: crate::Counter) -> u64 {
        self.db.counters().get(c)
    }
}

pub(crate) fn name(vnode: VnodeId, page: u64) -> Identity {
    Identity::new(vnode, FileOffset(page * PAGE_SIZE))
}

/// Translations as a list of bits for each page.
#[derive(Debug)]
pub(crate) struct FakeHat {
    pub(crate) db: Once<Weak<PageDb>>,
    maps: Mutex<BTreeMap<PageId, Vec<RefMod>>>,
    /// Called while a page is being unloaded: bits that a user sets at the last moment.
    last_moment: Mutex<RefMod>,
    /// Looks at the bits of a page so far.
    pub(crate) looks: core::sync::atomic::AtomicU64,
    /// Told at each which one it is; and whether the test has come as far as it likes.
    pub(crate) at_look: Once<fn(u64, &core::sync::atomic::AtomicBool)>,
    pub(crate) come_so_far: core::sync::atomic::AtomicBool,
}

impl Default for FakeHat {
    fn default() -> Self {
        Self {
            db: Once::new(),
            maps: Mutex::new(Rank::HMent, BTreeMap::new()),
            last_moment: Mutex::new(Rank::HMent, RefMod::empty()),
            looks: Default::default(),
            at_look: Once::new(),
            come_so_far: Default::default(),
        }
    }
}

impl FakeHat {
    fn db(&self) -> Arc<PageDb> {
        self.db.get().and_then(Weak::upgrade).expect("the world lives")
    }
    /// Adds `n` translations of a page, none used.
    pub(crate) fn map(&self, cx: &Cx, page: PageId, n: usize) {
        let mut maps = self.maps.lock(cx);
        let bits = maps.entry(page).or_default();
        bits.extend((0..n).map(|_| RefMod::empty()));
        drop(maps);
        self.db().page(page).mapping().set_head(cx, 1);
    }
    /// A user goes through the first translation.
    pub(crate) fn touch(&self, cx: &Cx, page: PageId, bits: RefMod) {
        let mut maps = self.maps.lock(cx);
        maps.get_mut(&page).expect("mapped")[0] |= bits;
    }
    /// The next unload finds these bits besides; with [`RefMod::MOD`], a user has stored 66 to the page's first byte.
    pub(crate) fn touch_at_unload(&self, cx: &Cx, bits: RefMod) {
        *self.last_moment.lock(cx) = bits;
    }
}

impl PageMappings for FakeHat {
    fn unload(&self, cx: &Cx, page: PageId) {
        let late = core::mem::take(&mut *self.last_moment.lock(cx));
        let all = self.maps.lock(cx).remove(&page).unwrap_or_default();
        let union = all.into_iter().fold(late, RefMod::union);
        let db = self.db();
        if late.contains(RefMod::MOD) {
            db.mem().write(db.pfn(page), 0, &[66]);
        }
        db.page(page).set_ref_mod(union);
        db.page(page).mapping().set_head(cx, 0);
    }
    fn sync(&self, cx: &Cx, page: PageId, mode: SyncMode) -> RefMod {
        let look = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(at_look) = self.at_look.get() {
            at_look(look, &self.come_so_far);
        }
        let db = self.db();
        let mut maps = self.maps.lock(cx);
        let bits = maps.entry(page).or_default();
        let own = db.page(page).ref_mod();
        let union = bits.iter().copied().fold(own, RefMod::union);
        match mode {
            SyncMode::ZeroRm => {
                bits.fill(RefMod::empty());
                db.page(page).set_ref_mod(union);
                union
            }
            SyncMode::DontZero => union,
            SyncMode::StopOnRef { share_limit } if bits.len() as u32 > share_limit => {
                union | RefMod::REF
            }
            SyncMode::StopOnRef { .. } => union,
        }
    }
    fn clear_write(&self, _cx: &Cx, _page: PageId) {}
    fn share_count(&self, cx: &Cx, page: PageId) -> u32 {
        self.maps.lock(cx).get(&page).map_or(0, |b| b.len() as u32)
    }
}

/// A file without contents that counts what is done to it.
#[derive(Debug)]
pub(crate) struct TestFile {
    id: VnodeId,
    pub(crate) fail: AtomicBool,
    pub(crate) writes: Mutex<Vec<u64>>,
    pub(crate) puts: AtomicU64,
    pub(crate) flushes: AtomicU64,
    /// A page of this file is used while it is being written.
    pub(crate) during_write: Mutex<Option<(PageId, RefMod)>>,
}

impl TestFile {
    pub(crate) fn new(w: &World) -> Arc<Self> {
        let id = w.vnode(VnodeKind::File);
        let file = Arc::new(Self {
            id,
            fail: AtomicBool::new(false),
            writes: Mutex::new(Rank::VnodeData, Vec::new()),
            puts: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            during_write: Mutex::new(Rank::VnodeData, None),
        });
        let weak = Arc::downgrade(&(Arc::clone(&file) as Arc<dyn Vnode>));
        assert!(w.db.vnodes().attach(id, weak), "a number just handed out");
        file
    }
    pub(crate) fn page(&self, n: u64) -> Identity {
        name(self.id, n)
    }
}

impl Vnode for TestFile {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        String::from("test file")
    }
    fn size(&self) -> u64 {
        1 << 30
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        let id = Identity::new(self.id, offset);
        let failed = VnodeError::Io { vnode: self.id, offset, errno: errno::EIO };
        let got = pvn::get(cx, db, id, 0, |page| {
            db.mem().zero(page.pfn());
            if self.fail.load(Ordering::Relaxed) { Err(failed) } else { Ok(()) }
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
        self.puts.fetch_add(1, Ordering::Relaxed);
        pvn::put_range(cx, db, self.id, offset, len, flags, |id, _| {
            assert!(db.is_io_locked(db.exists(cx, id).expect("being written")));
            if let Some((page, bits)) = self.during_write.lock(cx).take() {
                db.page(page).set_ref_mod(bits);
            }
            if self.fail.load(Ordering::Relaxed) {
                return Err(VnodeError::Io { vnode: self.id, offset, errno: errno::EIO });
            }
            self.writes.lock(cx).push(id.offset.page_index());
            Ok(())
        })
    }
    fn flush(&self, _cx: &Cx, _db: &PageDb) -> Result<(), VnodeError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Every hash this build has.
pub(crate) fn hashes() -> impl Iterator<Item = HashKind> {
    let dash = cfg!(feature = "dashmap").then_some(HashKind::Dash);
    core::iter::once(HashKind::Chain).chain(dash)
}

/// Numbers that follow from a seed (xorshift).
pub(crate) struct Lot(pub(crate) u64);

impl Lot {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}
