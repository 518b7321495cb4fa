//! Law 7, from below: objects and drivers that do not keep their word. Whatever they answer, the caller has an errno or a signal, and every invariant holds.

use crate::world::{BASE, PAGE, at};
use addr_space::{
    Advice, Borrower, FaultError, FaultKind, Remnant, Residency, SegCreate, SegCx, SegDetail,
    SegError, SegKind, SegOps, Signal, SyncFlags, UnloadFlags,
};
use page_db::{
    Access, Counters, CpuId, Cx, FileOffset, GotPage, Identity, LockedPage as _, PageDb, PageState,
    Prot, PutFlags, SpinHooks, ThreadId, VirtRange, Vnode, VnodeError, VnodeId, VnodeKind, errno,
    pvn,
};
use seg_drivers::SegVnArgs;
use segvm::Machine;
use segvm::machine::{MemAdvice, Process};
use std::num::NonZeroU32;
use std::sync::Arc;

fn range(page: u64, pages: u64) -> VirtRange {
    VirtRange::exact(at(page), pages * PAGE).unwrap()
}

/// What a vnode hands out instead of the page that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Instead {
    APageOfTheKernel,
    AFreePage,
    AnotherPageOfItsOwn,
    TheSamePageOfAnotherMachine,
    ThePageWithoutRights,
    AnInversion,
    ThePage,
}

struct Liar {
    id: VnodeId,
    instead: Instead,
    /// Another machine's pages, and who runs there.
    elsewhere: (&'static PageDb, &'static Arc<Counters>),
}

impl std::fmt::Debug for Liar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.instead.fmt(f)
    }
}

fn own<'a>(cx: &'a Cx, db: &'a PageDb, id: Identity) -> Result<GotPage<'a>, VnodeError> {
    let got = pvn::get(cx, db, id, 0, |page| {
        db.mem().zero(page.pfn());
        Ok(())
    })?;
    Ok(GotPage { page: got.page, prot: Prot::RWX, read: got.filled })
}

impl Vnode for Liar {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        format!("{:?}", self.instead)
    }
    fn size(&self) -> u64 {
        16 * PAGE
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        let id = Identity::new(self.id, offset);
        let some = |state: PageState| {
            let mut all = db.pages().ids().filter(|page| db.page(*page).state().contains(state));
            let page = all.find_map(|page| db.try_lock_shared(cx, page)).expect("there is one");
            Ok(GotPage { page, prot: Prot::RWX, read: false })
        };
        match self.instead {
            Instead::APageOfTheKernel => some(PageState::KERNEL),
            Instead::AFreePage => some(PageState::FREE),
            Instead::AnotherPageOfItsOwn => {
                own(cx, db, Identity::new(self.id, FileOffset(offset.0 + PAGE)))
            }
            Instead::TheSamePageOfAnotherMachine => {
                let (db, counters) = self.elsewhere;
                let cx = Cx::new(counters, CpuId(0), ThreadId(99), Arc::new(SpinHooks));
                own(Box::leak(Box::new(cx)), db, id)
            }
            Instead::ThePageWithoutRights => {
                own(cx, db, id).map(|got| GotPage { prot: Prot::empty(), ..got })
            }
            Instead::AnInversion => {
                Err(VnodeError::Io { vnode: self.id, offset, errno: errno::EDEADLK })
            }
            Instead::ThePage => own(cx, db, id),
        }
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

struct World {
    m: Machine,
    p: Process,
    liar: Arc<Liar>,
}

fn machine() -> Machine {
    Machine::builder().frames(512).cpus(2).build().unwrap()
}

fn register(m: &Machine) -> VnodeId {
    m.db().vnodes().register(m.cx(), VnodeKind::File).unwrap()
}

/// A process with four pages of the liar's, shared, and four behind them, private.
fn world(instead: Instead) -> World {
    let (m, other) = (machine(), machine());
    let (id, twin) = (register(&m), register(&other));
    assert_eq!(id, twin, "two machines made alike");
    let counters: &'static Arc<Counters> = Box::leak(Box::new(Arc::clone(other.db().counters())));
    let db: &'static Arc<PageDb> = Box::leak(Box::new(Arc::clone(other.db())));
    let liar = Arc::new(Liar { id, instead, elsewhere: (db, counters) });
    let object: Arc<dyn Vnode> = Arc::clone(&liar) as _;
    assert!(m.db().vnodes().attach(id, Arc::downgrade(&object)));
    let p = m.spawn("p").unwrap();
    for (page, kind) in [(0, SegKind::SHARED), (4, SegKind::empty())] {
        let vnode = Some(Arc::clone(&object));
        let args = SegVnArgs { vnode, kind, ..SegVnArgs::zfod(m.vn(), Prot::RW) };
        p.space().map(p.cx(), range(page, 4), &args).unwrap();
    }
    World { m, p, liar }
}

fn signal(done: Result<(), segvm::machine::AccessError>) -> Signal {
    done.map_or_else(|e| e.signal, |()| Signal::None)
}

#[test]
fn a_page_that_was_not_asked_for_is_not_mapped() {
    let lies = [
        (Instead::APageOfTheKernel, errno::EIO),
        (Instead::AFreePage, errno::EIO),
        (Instead::AnotherPageOfItsOwn, errno::EIO),
        (Instead::TheSamePageOfAnotherMachine, errno::EIO),
        (Instead::ThePageWithoutRights, errno::EIO),
        (Instead::AnInversion, errno::EDEADLK),
    ];
    for (instead, errno) in lies {
        let World { m, p, liar } = world(instead);
        let died = Signal::BusObjErr(errno);
        for page in [0, 4] {
            assert_eq!(signal(p.load(at(page), &mut [0])), died, "{instead:?}: a load");
            assert_eq!(signal(p.store(at(page) + PAGE, &[1])), died, "{instead:?}: a store");
            m.verify().unwrap_or_else(|e| panic!("{instead:?}: {e}"));
            assert!(p.mlock(at(page), PAGE).is_err(), "{instead:?}");
            let _ = p.madvise(at(page), 2 * PAGE, MemAdvice::WillNeed); // it may do nothing
        }
        let shown = |page| p.space().hat().probe(p.cx(), range(page, 1).start());
        assert!((0..8).all(|page| shown(page).is_none()), "{instead:?}");
        let _ = p.msync(at(0), 4 * PAGE, SyncFlags::INVALIDATE);
        p.exit();
        m.verify().unwrap_or_else(|e| panic!("{instead:?}: {e}"));
        drop(liar);
    }
}

#[test]
fn the_page_that_was_asked_for_is_mapped() {
    let World { m, p, liar } = world(Instead::ThePage);
    for page in [0, 4] {
        p.store(at(page), b"kept").unwrap();
        let mut bytes = [0; 4];
        p.load(at(page), &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept");
    }
    m.verify().unwrap();
    drop(liar);
}

/// A driver that resolves nothing and says what it is told to.
#[derive(Clone, Debug)]
struct Talker {
    huge: bool,
    /// Offered to whoever borrows.
    anon: Option<(u64, u32)>,
}

impl SegCreate for Talker {
    fn create(&self, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Ok(Box::new(self.clone()))
    }
}

impl SegOps for Talker {
    fn driver(&self) -> &'static str {
        "seg_talk"
    }
    fn dup(&self, _: &SegCx<'_>, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Ok(Box::new(self.clone()))
    }
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP);
        Err(SegError::Invalid { driver: "seg_talk", what: "it stays", range })
    }
    fn fault(
        &self,
        _: &SegCx<'_>,
        _: VirtRange,
        _: FaultKind,
        _: Access,
    ) -> Result<(), FaultError> {
        Ok(())
    }
    fn set_prot(&self, _: &SegCx<'_>, _: VirtRange, _: Prot) -> Result<(), SegError> {
        Ok(())
    }
    fn prots(&self, _: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        f(range, Prot::RW);
    }
    fn lend_anons(
        &self,
        scx: &SegCx<'_>,
        _: VirtRange,
        to: &mut dyn Borrower,
    ) -> Result<(), SegError> {
        let (page, n) = self.anon.unwrap_or((0, 1));
        to.take(scx.cx, range(page, 1).start(), NonZeroU32::new(n).unwrap())
    }
    fn residency(&self, _: &SegCx<'_>, _: VirtRange) -> Residency {
        let n = if self.huge { u64::MAX } else { 0 };
        Residency { rss: n, anon: n, locked: n }
    }
    fn swapout(&self, _: &SegCx<'_>) -> u64 {
        u64::MAX
    }
    fn reserved(&self) -> u64 {
        u64::MAX
    }
    fn counts_own_resv(&self, _: &SegCx<'_>) -> bool {
        self.huge
    }
    fn detail(&self, _: &SegCx<'_>) -> SegDetail {
        let (offset, swresv) = (FileOffset(u64::MAX), u64::MAX);
        SegDetail { prot: Prot::RW, max_prot: Prot::RW, offset, swresv, ..SegDetail::default() }
    }
}

#[test]
fn numbers_that_cannot_be_are_shown_and_overflow_nothing() {
    let m = machine();
    let p = m.spawn("p").unwrap();
    let talker = Talker { huge: true, anon: None };
    p.space().map(p.cx(), range(0, 4), &talker).unwrap();
    assert_eq!(p.space().swapout(p.cx()), u64::MAX);
    let pmap = p.space().pmap(p.cx());
    assert_eq!((pmap.rows[0].rss, pmap.totals()[1]), (u64::MAX, u64::MAX));
    let text = format!("{pmap}{}{}", pmap.swap_view(), p.space().seg_table(p.cx()));
    assert!(text.contains("seg_talk"), "{text}");
    let damage = m.verify().expect_err("nobody has promised so much").to_string();
    assert!(damage.starts_with("I12"), "{damage}");
    // Nor is there any end to what it says it has reserved: a second one fits under no limit, or both are counted, round the corner.
    let _ = p.space().map(p.cx(), range(8, 4), &talker);
    let _ = (p.space().swapout(p.cx()), p.space().pmap(p.cx()).totals(), m.verify());
    let _ = p.space().advise(p.cx(), range(0, 1), Advice::Random);
    p.exit();
    m.verify().unwrap();
}

#[test]
fn a_fault_that_is_resolved_by_nothing_ends_in_a_signal() {
    let m = machine();
    let p = m.spawn("p").unwrap();
    p.space().map(p.cx(), range(0, 4), &Talker { huge: false, anon: None }).unwrap();
    assert_eq!(signal(p.load(BASE, &mut [0])), Signal::BusObjErr(errno::EDEADLK));
    p.exit();
    m.verify().unwrap();
}

#[test]
fn an_anon_that_is_not_anybodys_is_not_borrowed() {
    for anon in [(1, 77_777), (1, u32::MAX), (1, 0), (0, 1), (100, 1)] {
        let m = machine();
        let p = m.spawn("p").unwrap();
        let bare = m.swap().alloc(m.cx()).unwrap(); // a number, and no anon
        let (page, n) = anon;
        let anon = Some((page, if n == 0 { bare.get() } else { n }));
        p.space().map(p.cx(), range(1, 2), &Talker { huge: false, anon }).unwrap();
        let refused = p.lend_to_anons(at(1), 2 * PAGE).map(|lent| lent.give_back(p.cx()));
        assert_eq!(refused.map_err(|e| e.errno), Err(errno::EINVAL), "{anon:?}");
        m.swap().free(m.cx(), bare);
        p.exit();
        m.verify().unwrap();
    }
}

#[test]
fn whoever_lists_the_segments_may_load_from_each() {
    let World { m, p, liar } = world(Instead::ThePage);
    let space = Arc::clone(&p.space());
    let segs = space.segs(p.cx());
    for seg in segs.iter() {
        p.load(seg.base().get(), &mut [0]).unwrap();
        p.store(seg.base().get() + PAGE, &[1]).unwrap();
    }
    assert!(segs.len() >= 2);
    drop(segs);
    m.verify().unwrap();
    drop(liar);
}
