//! A driver behind a layer that does something otherwise.

use addr_space::{
    Advice, Borrower, Capability, Continued, Extract, FaultError, FaultKind, Inherit, Join, Like,
    LockOp, MemId, NewlyLocked, PageList, Remnant, Residency, SegCreate, SegCx, SegDetail,
    SegError, SegKind, SegOps, SyncFlags,
};
use page_db::{Access, FileOffset, Pfn, Prot, ThreadId, VirtAddr, VirtRange, Vnode};
use std::any::Any;
use std::sync::{Arc, Mutex};

type Made = Result<Box<dyn SegOps>, SegError>;
type Faulted = Result<(), FaultError>;
type Done = Result<(), SegError>;
type Told<'a> = &'a mut dyn FnMut(VirtRange, Prot);

/// What a driver does, one function an operation, as illumos has its vectors of them. A flaw is written as what is otherwise than in [`AS_IT_IS`].
#[derive(Clone, Copy)]
pub(crate) struct Does {
    pub(crate) create: fn(&dyn SegCreate, &SegCx<'_>) -> Made,
    pub(crate) inherit_run: fn(&Flawed, &SegCx<'_>, VirtRange) -> VirtRange,
    pub(crate) dup: fn(&Flawed, &SegCx<'_>, &SegCx<'_>) -> Made,
    pub(crate) unmap: fn(&Flawed, &SegCx<'_>, VirtRange) -> Result<Remnant, SegError>,
    pub(crate) free: fn(&Flawed, &SegCx<'_>),
    pub(crate) fault: fn(&Flawed, &SegCx<'_>, VirtRange, FaultKind, Access) -> Faulted,
    pub(crate) set_prot: fn(&Flawed, &SegCx<'_>, VirtRange, Prot) -> Done,
    pub(crate) prots: fn(&Flawed, &SegCx<'_>, VirtRange, Told<'_>),
    pub(crate) check_prot: fn(&Flawed, &SegCx<'_>, VirtRange, Prot) -> Done,
    pub(crate) read_ahead: fn(&Flawed, &SegCx<'_>, VirtRange) -> Faulted,
    pub(crate) populate: fn(&Flawed, &SegCx<'_>, VirtRange, Access) -> Faulted,
    pub(crate) swapout: fn(&Flawed, &SegCx<'_>) -> u64,
    pub(crate) sync: fn(&Flawed, &SegCx<'_>, VirtRange, SyncFlags) -> Done,
    pub(crate) incore: fn(&Flawed, &SegCx<'_>, VirtRange, &mut [u8]) -> usize,
    pub(crate) lock_op: fn(&Flawed, &SegCx<'_>, VirtRange, LockOp, &mut NewlyLocked) -> Done,
    pub(crate) offset: fn(&Flawed, &SegCx<'_>, VirtAddr) -> FileOffset,
    pub(crate) kind: fn(&Flawed) -> SegKind,
    pub(crate) vnode: fn(&Flawed, &SegCx<'_>, VirtAddr) -> Option<Arc<dyn Vnode>>,
    pub(crate) advise: fn(&Flawed, &SegCx<'_>, VirtRange, Advice) -> Done,
    pub(crate) lock_pages: fn(&Flawed, &SegCx<'_>, VirtRange, Access) -> Result<PageList, SegError>,
    pub(crate) unlock_pages: fn(&Flawed, &SegCx<'_>, VirtRange, Access, PageList),
    pub(crate) lend_anons: fn(&Flawed, &SegCx<'_>, VirtRange, &mut dyn Borrower) -> Done,
    pub(crate) lend_pages: fn(&Flawed, &SegCx<'_>, VirtRange) -> Result<PageList, SegError>,
    pub(crate) set_page_size: fn(&Flawed, &SegCx<'_>, VirtRange, u8) -> Done,
    pub(crate) mem_id: fn(&Flawed, &SegCx<'_>, VirtAddr) -> Result<MemId, SegError>,
    pub(crate) inherit: fn(&Flawed, &SegCx<'_>, VirtRange, Option<Inherit>) -> Done,
    pub(crate) joins: fn(&Flawed, &SegCx<'_>, VirtRange),
    pub(crate) memory: fn(&Flawed, &SegCx<'_>) -> Option<VirtRange>,
    pub(crate) residency: fn(&Flawed, &SegCx<'_>, VirtRange) -> Residency,
    pub(crate) may_move: fn(&Flawed, &SegCx<'_>, VirtRange) -> Done,
    pub(crate) relocate: fn(&Flawed, &SegCx<'_>, VirtRange),
    pub(crate) continued:
        fn(&Flawed, &SegCx<'_>, u64, Like, &SegCx<'_>) -> Result<Continued, SegError>,
    pub(crate) share: fn(&Flawed, &SegCx<'_>, VirtRange, &SegCx<'_>) -> Made,
    pub(crate) is_locked: fn(&Flawed, &SegCx<'_>, VirtAddr) -> bool,
}

/// What the driver under the layer does.
pub(crate) const AS_IT_IS: Does = Does {
    create: |make, scx| make.create(scx),
    inherit_run: |d, scx, range| d.inner.inherit_run(scx, range),
    dup: |d, scx, child| d.inner.dup(scx, child),
    unmap: |d, scx, range| d.inner.unmap(scx, range),
    free: |d, scx| d.inner.free(scx),
    fault: |d, scx, range, kind, access| d.inner.fault(scx, range, kind, access),
    set_prot: |d, scx, range, prot| d.inner.set_prot(scx, range, prot),
    prots: |d, scx, range, f| d.inner.prots(scx, range, f),
    check_prot: |d, scx, range, prot| d.inner.check_prot(scx, range, prot),
    read_ahead: |d, scx, range| d.inner.read_ahead(scx, range),
    populate: |d, scx, range, access| d.inner.populate(scx, range, access),
    swapout: |d, scx| d.inner.swapout(scx),
    sync: |d, scx, range, flags| d.inner.sync(scx, range, flags),
    incore: |d, scx, range, out| d.inner.incore(scx, range, out),
    lock_op: |d, scx, range, op, newly| d.inner.lock_op(scx, range, op, newly),
    offset: |d, scx, addr| d.inner.offset(scx, addr),
    kind: |d| d.inner.kind(),
    vnode: |d, scx, addr| d.inner.vnode(scx, addr),
    advise: |d, scx, range, advice| d.inner.advise(scx, range, advice),
    lock_pages: |d, scx, range, access| d.inner.lock_pages(scx, range, access),
    unlock_pages: |d, scx, range, access, pages| d.inner.unlock_pages(scx, range, access, pages),
    lend_anons: |d, scx, range, to| d.inner.lend_anons(scx, range, to),
    lend_pages: |d, scx, range| d.inner.lend_pages(scx, range),
    set_page_size: |d, scx, range, code| d.inner.set_page_size(scx, range, code),
    mem_id: |d, scx, addr| d.inner.mem_id(scx, addr),
    inherit: |d, scx, range, how| d.inner.inherit(scx, range, how),
    joins: |_, _, _| {},
    memory: |d, scx| d.inner.memory(scx),
    residency: |d, scx, range| d.inner.residency(scx, range),
    may_move: |d, scx, range| d.side().may_move(scx, range),
    relocate: |d, scx, to| d.side().relocate(scx, to),
    continued: |d, scx, first, like, to| d.side().continued(scx, first, like, to),
    share: |d, scx, range, to| d.side().share(scx, range, to),
    is_locked: |d, scx, addr| d.side().is_locked(scx, addr),
};

/// How a driver came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Born {
    Mapped,
    /// What a cut left above it.
    Above,
    /// Of a fork.
    Child,
    /// By a mapping that goes on.
    Continued,
    /// Something new in the place of what has moved away.
    LeftBehind,
    /// What lay above a place where it was split, or is shown twice.
    Moved,
}

/// What some layers remember.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Ranges: soft locks under way, or what else there is to know of some.
    pub(crate) ranges: Vec<VirtRange>,
    /// What the last caller wanted.
    pub(crate) wanted: Option<VirtRange>,
    /// Who mapped it, or has pinned last.
    pub(crate) who: Option<ThreadId>,
    /// Pages, and the frames that they had.
    pub(crate) frames: Vec<(VirtAddr, Pfn)>,
    /// How often something has happened.
    pub(crate) count: u64,
}

/// Makes segments with a flaw.
pub(crate) struct FlawedArgs<'a> {
    pub(crate) inner: &'a (dyn SegCreate + Sync),
    pub(crate) does: &'static Does,
}

impl SegCreate for FlawedArgs<'_> {
    fn create(&self, scx: &SegCx<'_>) -> Made {
        let made = Flawed::over((self.does.create)(self.inner, scx)?, self.does, Born::Mapped);
        made.note(|n| n.who = Some(scx.cx.thread()));
        Ok(made)
    }
}

pub(crate) struct Flawed {
    pub(crate) inner: Box<dyn SegOps>,
    pub(crate) born: Born,
    notes: Mutex<Notes>,
    does: &'static Does,
}

impl std::fmt::Debug for Flawed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flawed")
            .field("inner", &self.inner)
            .field("born", &self.born)
            .finish_non_exhaustive()
    }
}

impl Flawed {
    fn over(inner: Box<dyn SegOps>, does: &'static Does, born: Born) -> Box<Self> {
        Box::new(Self { inner, does, born, notes: Mutex::default() })
    }
    fn like(&self, inner: Box<dyn SegOps>, born: Born) -> Box<Self> {
        Self::over(inner, self.does, born)
    }
    /// What it remembers, while `f` lasts.
    pub(crate) fn note<R>(&self, f: impl FnOnce(&mut Notes) -> R) -> R {
        f(&mut self.notes.lock().expect("quiet"))
    }
    /// The side to move by of the driver under it.
    fn side(&self) -> &dyn Extract {
        self.inner.extract().expect("asked for where there is one")
    }
}

impl SegOps for Flawed {
    fn driver(&self) -> &'static str {
        self.inner.driver()
    }
    fn inherit_run(&self, scx: &SegCx<'_>, range: VirtRange) -> VirtRange {
        (self.does.inherit_run)(self, scx, range)
    }
    fn copies_locked(&self) -> bool {
        self.inner.copies_locked()
    }
    fn dup(&self, scx: &SegCx<'_>, child: &SegCx<'_>) -> Made {
        Ok(self.like((self.does.dup)(self, scx, child)?, Born::Child))
    }
    fn dup_done(&self, scx: &SegCx<'_>, part: VirtRange, made: &dyn SegOps) {
        let made = (made as &dyn Any).downcast_ref::<Self>().expect("of its own kind");
        self.inner.dup_done(scx, part, &*made.inner);
    }
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        Ok(match (self.does.unmap)(self, scx, range)? {
            Remnant::Both(high) => Remnant::Both(self.like(high, Born::Above)),
            left => left,
        })
    }
    fn free(&self, scx: &SegCx<'_>) {
        (self.does.free)(self, scx);
    }
    fn make_own(&mut self, scx: &SegCx<'_>) -> Done {
        self.inner.make_own(scx)
    }
    fn fault(&self, scx: &SegCx<'_>, range: VirtRange, kind: FaultKind, access: Access) -> Faulted {
        (self.does.fault)(self, scx, range, kind, access)
    }
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Done {
        (self.does.set_prot)(self, scx, range, prot)
    }
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: Told<'_>) {
        (self.does.prots)(self, scx, range, f);
    }
    fn check_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Done {
        (self.does.check_prot)(self, scx, range, prot)
    }
    fn faulta(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Faulted {
        self.inner.faulta(scx, addr)
    }
    fn read_ahead(&self, scx: &SegCx<'_>, range: VirtRange) -> Faulted {
        (self.does.read_ahead)(self, scx, range)
    }
    fn populate(&self, scx: &SegCx<'_>, range: VirtRange, access: Access) -> Faulted {
        (self.does.populate)(self, scx, range, access)
    }
    fn kluster(&self, scx: &SegCx<'_>, addr: VirtAddr, delta: i64) -> bool {
        self.inner.kluster(scx, addr, delta)
    }
    fn swapout(&self, scx: &SegCx<'_>) -> u64 {
        (self.does.swapout)(self, scx)
    }
    fn sync(&self, scx: &SegCx<'_>, range: VirtRange, flags: SyncFlags) -> Done {
        (self.does.sync)(self, scx, range, flags)
    }
    fn incore(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        (self.does.incore)(self, scx, range, out)
    }
    fn lock_op(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        op: LockOp,
        newly: &mut NewlyLocked,
    ) -> Done {
        (self.does.lock_op)(self, scx, range, op, newly)
    }
    fn offset(&self, scx: &SegCx<'_>, addr: VirtAddr) -> FileOffset {
        (self.does.offset)(self, scx, addr)
    }
    fn kind(&self) -> SegKind {
        (self.does.kind)(self)
    }
    fn vnode(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Arc<dyn Vnode>> {
        (self.does.vnode)(self, scx, addr)
    }
    fn advise(&self, scx: &SegCx<'_>, range: VirtRange, advice: Advice) -> Done {
        (self.does.advise)(self, scx, range, advice)
    }
    fn lock_pages(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<PageList, SegError> {
        (self.does.lock_pages)(self, scx, range, access)
    }
    fn unlock_pages(&self, scx: &SegCx<'_>, range: VirtRange, access: Access, pages: PageList) {
        (self.does.unlock_pages)(self, scx, range, access, pages);
    }
    fn lend_anons(&self, scx: &SegCx<'_>, range: VirtRange, to: &mut dyn Borrower) -> Done {
        (self.does.lend_anons)(self, scx, range, to)
    }
    fn lend_pages(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<PageList, SegError> {
        (self.does.lend_pages)(self, scx, range)
    }
    fn extract(&self) -> Option<&dyn Extract> {
        self.inner.extract().map(|_| self as &dyn Extract)
    }
    fn set_page_size(&self, scx: &SegCx<'_>, range: VirtRange, code: u8) -> Done {
        (self.does.set_page_size)(self, scx, range, code)
    }
    fn mem_id(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<MemId, SegError> {
        (self.does.mem_id)(self, scx, addr)
    }
    fn policy(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Advice> {
        self.inner.policy(scx, addr)
    }
    fn capable(&self, what: Capability) -> bool {
        self.inner.capable(what)
    }
    fn inherit_zero(&self, scx: &SegCx<'_>, range: VirtRange) -> Done {
        self.inner.inherit_zero(scx, range)
    }
    fn inherit(&self, scx: &SegCx<'_>, range: VirtRange, how: Option<Inherit>) -> Done {
        (self.does.inherit)(self, scx, range, how)
    }
    fn concat(
        &self,
        scx: &SegCx<'_>,
        next_range: VirtRange,
        next: &dyn SegOps,
        join: Join,
    ) -> bool {
        let next = (next as &dyn Any).downcast_ref::<Self>();
        (self.does.joins)(self, scx, next_range);
        next.is_some_and(|next| self.inner.concat(scx, next_range, &*next.inner, join))
    }
    fn reserved(&self) -> u64 {
        self.inner.reserved()
    }
    fn counts_own_resv(&self, scx: &SegCx<'_>) -> bool {
        self.inner.counts_own_resv(scx)
    }
    fn memory(&self, scx: &SegCx<'_>) -> Option<VirtRange> {
        (self.does.memory)(self, scx)
    }
    fn residency(&self, scx: &SegCx<'_>, range: VirtRange) -> Residency {
        (self.does.residency)(self, scx, range)
    }
    fn first_locked(&self, scx: &SegCx<'_>, range: VirtRange) -> Option<VirtRange> {
        self.inner.first_locked(scx, range)
    }
    fn detail(&self, scx: &SegCx<'_>) -> SegDetail {
        self.inner.detail(scx)
    }
    fn verify(&self, scx: &SegCx<'_>) -> Result<(), String> {
        self.inner.verify(scx)
    }
}

impl Extract for Flawed {
    fn may_move(&self, scx: &SegCx<'_>, range: VirtRange) -> Done {
        (self.does.may_move)(self, scx, range)
    }
    fn split(&self, scx: &SegCx<'_>, at: VirtAddr) -> Box<dyn SegOps> {
        self.like(self.side().split(scx, at), Born::Moved)
    }
    fn relocate(&self, scx: &SegCx<'_>, to: VirtRange) {
        (self.does.relocate)(self, scx, to);
    }
    fn may_share(&self, scx: &SegCx<'_>, range: VirtRange) -> Done {
        self.side().may_share(scx, range)
    }
    fn continued(
        &self,
        scx: &SegCx<'_>,
        first: u64,
        like: Like,
        to: &SegCx<'_>,
    ) -> Result<Continued, SegError> {
        Ok(match (self.does.continued)(self, scx, first, like, to)? {
            Continued::Made(made) if like == Like::Before => {
                Continued::Made(self.like(made, Born::Continued))
            }
            Continued::Made(made) => Continued::Made(self.like(made, Born::LeftBehind)),
            leaving => leaving,
        })
    }
    fn share(&self, scx: &SegCx<'_>, range: VirtRange, to: &SegCx<'_>) -> Made {
        Ok(self.like((self.does.share)(self, scx, range, to)?, Born::Moved))
    }
    fn is_locked(&self, scx: &SegCx<'_>, addr: VirtAddr) -> bool {
        (self.does.is_locked)(self, scx, addr)
    }
}
