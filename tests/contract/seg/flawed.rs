//! A driver behind a layer that breaks one clause.

use addr_space::{
    Advice, Borrower, Capability, Continued, Extract, FaultError, FaultKind, Inherit, Join, Like,
    LoadFlags, LockOp, MemId, NewlyLocked, PageList, Remnant, Residency, SegCreate, SegCx,
    SegDetail, SegError, SegKind, SegOps, SyncFlags,
};
use page_db::{Access, FileOffset, PAGE_SIZE, Prot, VirtAddr, VirtRange, Vnode, errno};
use seg_drivers::SegVnArgs;
use std::any::Any;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    FreesNothing,
    LeavesATranslation,
    StartsWithOldBytes,
    SaysItIsShared,
    CountsNothing,
    AnswersForTooMany,
    ResolvesNothing,
    ResolvesOnePage,
    AllowsEverything,
    NamesTheFirstPage,
    SaysObject,
    MapsWhatItReadsAhead,
    PopulatesHalf,
    ChangesTheWholeSegment,
    LeavesOldTranslations,
    IgnoresTheCeiling,
    TellsOnePageLess,
    SaysLow,
    UnmapsForReaders,
    ZeroesThePageAbove,
    ForgetsRightsAtACut,
    ShowsThePageAbove,
    ZeroesWhenJoining,
    SharesPrivateMemory,
    GivesZeros,
    ForgetsRightsAtFork,
    InheritsLocks,
    ForgetsHowToInherit,
    UnmapsPinned,
    LosesPinsInOneUnlock,
    TellsNobody,
    MovesPinnedPages,
    LeavesHalfASoftLock,
    ListsBackwards,
    ListsWithoutPinning,
    NotesTooMuch,
    LocksNothing,
    KeepsLocks,
    StaysAtOneOffset,
    NamesNoVnode,
    HasOneIdentity,
    LosesBytesAtSync,
    WritesNothing,
    ForgetsAdvice,
    TakesAnyPageSize,
    RefusesAsAnother,
    ListsNothing,
    HidesFailures,
    KeepsLocksOfAFailure,
    LeaksWhenItCannotBeMade,
    MixesUpItsCallers,
    ZeroesWhatMoves,
    LeavesTheOldPlace,
    ForgetsRightsWhenMoving,
    DropsLocksWhenMoving,
    MovesWhatIsPinned,
    GoesOnWithAllRights,
    GoesOnWithoutTheLock,
    ShowsSomethingElse,
    LendsBackwards,
    LendsWhatIsLocked,
    LetsStoreToWhatIsLent,
    LendsTwice,
    RetriesForEver,
    RetriesFaultsForEver,
    RetriesToBeMade,
    LeavesSomethingOfNothing,
    InheritsBeside,
    PushesMoreThanThereIs,
    LendsAnonsOnly,
    HasOffsetsInNothing,
}

/// Makes `seg_vn` segments with a flaw.
#[derive(Debug)]
pub(crate) struct FlawedArgs {
    pub(crate) inner: SegVnArgs,
    pub(crate) flaw: Flaw,
}

impl SegCreate for FlawedArgs {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        if self.flaw == Flaw::RetriesToBeMade {
            return Err(SegError::Retry { range: scx.seg });
        }
        let made = self.inner.create(scx).inspect_err(|_| {
            if self.flaw == Flaw::LeaksWhenItCannotBeMade {
                scx.space.add_resv(PAGE_SIZE);
            }
        });
        Ok(Flawed::over(made?, self.flaw))
    }
}

#[derive(Debug)]
struct Flawed {
    inner: Box<dyn SegOps>,
    flaw: Flaw,
    /// Whether faults find the page above ([`Flaw::ShowsThePageAbove`]).
    astray: bool,
    /// Soft locks under way.
    pins: Mutex<Vec<VirtRange>>,
    /// What the last caller wanted.
    wanted: Mutex<Option<VirtRange>>,
}

/// The last page of a range less.
fn less(range: VirtRange) -> Option<VirtRange> {
    range.until(range.end() - PAGE_SIZE)
}

fn zero(scx: &SegCx<'_>, addr: VirtAddr) {
    if let Some(there) = scx.hat.probe(scx.cx, addr) {
        scx.db.mem().zero(there.pfn);
    }
}

impl Flawed {
    fn over(inner: Box<dyn SegOps>, flaw: Flaw) -> Box<Self> {
        Box::new(Self {
            inner,
            flaw,
            astray: false,
            pins: Mutex::default(),
            wanted: Mutex::default(),
        })
    }
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    /// Whether it pins by a list of its own, and the pages move under it.
    fn pins_by_itself(&self) -> bool {
        use Flaw::{LosesPinsInOneUnlock, MovesPinnedPages, TellsNobody};
        matches!(self.flaw, LosesPinsInOneUnlock | MovesPinnedPages | TellsNobody)
    }
    fn pin(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        let mut pins = self.pins.lock().expect("quiet");
        if kind == FaultKind::SoftLock {
            self.inner.fault(scx, range, FaultKind::Invalid, access)?;
            pins.push(range);
            return Ok(());
        }
        if self.is(Flaw::LosesPinsInOneUnlock) {
            pins.clear();
        } else if let Some(at) = pins.iter().position(|pin| *pin == range) {
            pins.remove(at);
        }
        if !self.is(Flaw::TellsNobody) {
            scx.space.pins_released(scx.db.waits());
        }
        Ok(())
    }
    /// What a plain fault is resolved with.
    fn resolve(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        let one = VirtRange::page_of(range.start());
        match self.flaw {
            Flaw::ResolvesNothing if kind == FaultKind::Invalid => return Ok(()),
            Flaw::RetriesFaultsForEver => {
                return Err(FaultError::Retry { addr: range.start() });
            }
            Flaw::ResolvesOnePage => return self.inner.fault(scx, one, kind, access),
            Flaw::MixesUpItsCallers => {
                *self.wanted.lock().expect("quiet") = Some(range);
                (0..50).for_each(|_| std::thread::yield_now());
                let range = self.wanted.lock().expect("quiet").unwrap_or(range);
                return self.inner.fault(scx, range, kind, access);
            }
            _ if self.astray => {
                let start = scx.seg.start().get() - PAGE_SIZE;
                let seg = VirtRange::exact(start, scx.seg.len() + PAGE_SIZE).expect("above 0");
                return self.inner.fault(&scx.of(seg), range, kind, access);
            }
            _ => {}
        }
        let done = self.inner.fault(scx, range, kind, access);
        match (self.flaw, done) {
            (Flaw::AllowsEverything, Err(FaultError::Prot { .. })) => Ok(()),
            (Flaw::NamesTheFirstPage, Err(FaultError::Prot { access, .. })) => {
                Err(FaultError::Prot { addr: scx.seg.start(), access })
            }
            (Flaw::SaysObject, Err(FaultError::Prot { addr, .. })) => {
                Err(FaultError::Object { addr, errno: errno::EACCES })
            }
            (Flaw::HidesFailures, Err(e)) if !matches!(e, FaultError::Prot { .. }) => Ok(()),
            (Flaw::LeavesHalfASoftLock, Err(e)) if kind == FaultKind::SoftLock && range != one => {
                self.inner.fault(scx, one, kind, access)?;
                Err(e)
            }
            (Flaw::StartsWithOldBytes, Ok(())) => {
                let there = scx.hat.probe(scx.cx, range.start());
                let mut word = [0; 8];
                there.iter().for_each(|t| scx.db.mem().read(t.pfn, 0, &mut word));
                if let (Some(t), [0, 0, ..]) = (there, word) {
                    scx.db.mem().write(t.pfn, 0, b"somebody");
                }
                Ok(())
            }
            (_, done) => done,
        }
    }
}

impl SegOps for Flawed {
    fn driver(&self) -> &'static str {
        self.inner.driver()
    }
    fn inherit_run(&self, scx: &SegCx<'_>, range: VirtRange) -> VirtRange {
        let run = self.inner.inherit_run(scx, range);
        if self.is(Flaw::InheritsBeside) { scx.seg } else { run }
    }
    fn dup(&self, scx: &SegCx<'_>, child: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        let how = match self.flaw {
            Flaw::SharesPrivateMemory => Some(Inherit::Share),
            Flaw::GivesZeros => Some(Inherit::Zero),
            _ => None,
        };
        if how.is_some() {
            self.inner.inherit(scx, scx.seg, how)?;
        }
        let ops = self.inner.dup(scx, child)?;
        if how.is_some() {
            self.inner.inherit(scx, scx.seg, None)?;
        }
        match self.flaw {
            Flaw::ForgetsRightsAtFork => ops.set_prot(child, child.seg, Prot::RW)?,
            Flaw::InheritsLocks => {
                let page = VirtRange::page_of(child.seg.page_at(4));
                ops.lock_op(child, page, LockOp::Lock, &mut NewlyLocked::default())?;
            }
            _ => {}
        }
        Ok(Self::over(ops, self.flaw))
    }
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        let asked = *scx;
        let scx = &if self.is(Flaw::UnmapsForReaders) { asked.as_if_writer() } else { asked };
        scx.check_writer("flawed", range)?;
        if self.pins_by_itself() && !self.pins.lock().expect("quiet").is_empty() {
            return Err(SegError::Pinned { range });
        }
        let there = scx.hat.probe(scx.cx, range.start());
        match self.flaw {
            Flaw::ForgetsRightsAtACut if range != scx.seg => {
                self.inner.set_prot(scx, scx.seg, Prot::RW)?;
            }
            Flaw::ZeroesThePageAbove if range.end() < scx.seg.end() => {
                zero(scx, range.page_at(range.pages().get()));
            }
            _ => {}
        }
        let left = match self.inner.unmap(scx, range) {
            Err(SegError::Pinned { .. }) if self.is(Flaw::UnmapsPinned) => {
                let pins = std::mem::take(&mut *self.pins.lock().expect("quiet"));
                for pin in pins {
                    self.inner.fault(scx, pin, FaultKind::SoftUnlock, Access::Write)?;
                }
                self.inner.unmap(scx, range)?
            }
            left => left?,
        };
        if let (Flaw::LeavesATranslation, Some(t)) = (self.flaw, there) {
            let page = VirtRange::page_of(range.start());
            let _ = scx.hat.devload(scx.cx, page, t.pfn, Prot::READ, LoadFlags::NOCONSIST);
        }
        Ok(match left {
            Remnant::Both(_) if self.is(Flaw::SaysLow) => Remnant::Low,
            Remnant::Nothing if self.is(Flaw::LeavesSomethingOfNothing) => Remnant::High,
            Remnant::Both(high) => {
                let mut high = Self::over(high, self.flaw);
                high.astray = self.is(Flaw::ShowsThePageAbove);
                Remnant::Both(high)
            }
            left => left,
        })
    }
    fn free(&self, scx: &SegCx<'_>) {
        if !self.is(Flaw::FreesNothing) {
            self.inner.free(scx);
        }
    }
    fn make_own(&mut self, scx: &SegCx<'_>) -> Result<(), SegError> {
        self.inner.make_own(scx)
    }
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        let pin = matches!(kind, FaultKind::SoftLock | FaultKind::SoftUnlock);
        if pin && self.pins_by_itself() {
            return self.pin(scx, range, kind, access);
        }
        let done = self.resolve(scx, range, kind, access);
        let mut pins = self.pins.lock().expect("quiet");
        match kind {
            FaultKind::SoftLock if done.is_ok() => pins.push(range),
            FaultKind::SoftUnlock => {
                pins.pop();
            }
            _ => {}
        }
        done
    }
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        if self.is(Flaw::RetriesForEver) {
            return Err(SegError::Retry { range });
        }
        let mut there = Vec::new();
        scx.hat.walk(scx.cx, range, &mut |addr, t| there.push((addr, t)));
        let range = if self.is(Flaw::ChangesTheWholeSegment) { scx.seg } else { range };
        let done = self.inner.set_prot(scx, range, prot);
        match (self.flaw, done) {
            (Flaw::IgnoresTheCeiling, Err(SegError::Access { .. })) => Ok(()),
            (Flaw::LeavesOldTranslations, Ok(())) => {
                for (addr, t) in there {
                    let page = VirtRange::page_of(addr);
                    let flags = LoadFlags::NOCONSIST;
                    let _ = scx.hat.devload(scx.cx, page, t.pfn, t.prot, flags);
                }
                Ok(())
            }
            (_, done) => done,
        }
    }
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        let told = if self.is(Flaw::TellsOnePageLess) { less(range) } else { Some(range) };
        told.into_iter().for_each(|range| self.inner.prots(scx, range, f));
    }
    fn faulta(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        self.inner.faulta(scx, addr)
    }
    fn read_ahead(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), FaultError> {
        if self.is(Flaw::MapsWhatItReadsAhead) {
            return self.inner.fault(scx, range, FaultKind::Invalid, Access::Read);
        }
        self.inner.read_ahead(scx, range)
    }
    fn populate(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), FaultError> {
        let range = if self.is(Flaw::PopulatesHalf) { less(range) } else { Some(range) };
        range.map_or(Ok(()), |range| self.inner.populate(scx, range, access))
    }
    fn kluster(&self, scx: &SegCx<'_>, addr: VirtAddr, delta: i64) -> bool {
        self.inner.kluster(scx, addr, delta)
    }
    fn swapout(&self, scx: &SegCx<'_>) -> u64 {
        if self.is(Flaw::PushesMoreThanThereIs) { u64::MAX } else { self.inner.swapout(scx) }
    }
    fn sync(&self, scx: &SegCx<'_>, range: VirtRange, flags: SyncFlags) -> Result<(), SegError> {
        match self.flaw {
            Flaw::WritesNothing => return Ok(()),
            Flaw::LosesBytesAtSync => range.iter_pages().for_each(|addr| zero(scx, addr)),
            _ => {}
        }
        self.inner.sync(scx, range, flags)
    }
    fn incore(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        let n = self.inner.incore(scx, range, out);
        if self.is(Flaw::AnswersForTooMany) { n + 1 } else { n }
    }
    fn lock_op(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        op: LockOp,
        newly: &mut NewlyLocked,
    ) -> Result<(), SegError> {
        match (self.flaw, op) {
            (Flaw::LocksNothing, LockOp::Lock) => {
                range.iter_pages().for_each(|addr| newly.note(addr));
                Ok(())
            }
            (Flaw::KeepsLocks, LockOp::Unlock) => Ok(()),
            (Flaw::NotesTooMuch, LockOp::Lock) => {
                range.iter_pages().for_each(|addr| newly.note(addr));
                self.inner.lock_op(scx, range, op, &mut NewlyLocked::default())
            }
            (Flaw::KeepsLocksOfAFailure, LockOp::Lock) => {
                let mut own = NewlyLocked::default();
                self.inner.lock_op(scx, range, op, &mut own)?;
                let pages = own.runs().iter().flat_map(|run| run.iter_pages());
                pages.for_each(|addr| newly.note(addr));
                Ok(())
            }
            _ => self.inner.lock_op(scx, range, op, newly),
        }
    }
    fn offset(&self, scx: &SegCx<'_>, addr: VirtAddr) -> FileOffset {
        if self.is(Flaw::HasOffsetsInNothing) {
            return FileOffset(u64::MAX - addr.get());
        }
        let addr = if self.is(Flaw::StaysAtOneOffset) { scx.seg.start() } else { addr };
        self.inner.offset(scx, addr)
    }
    fn kind(&self) -> SegKind {
        let kind = self.inner.kind();
        if self.is(Flaw::SaysItIsShared) { kind | SegKind::SHARED } else { kind }
    }
    fn vnode(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Arc<dyn Vnode>> {
        self.inner.vnode(scx, addr).filter(|_| !self.is(Flaw::NamesNoVnode))
    }
    fn advise(&self, scx: &SegCx<'_>, range: VirtRange, advice: Advice) -> Result<(), SegError> {
        if self.is(Flaw::ForgetsAdvice) { Ok(()) } else { self.inner.advise(scx, range, advice) }
    }
    fn lock_pages(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<PageList, SegError> {
        let list = self.inner.lock_pages(scx, range, access);
        match (self.flaw, list) {
            (Flaw::ListsBackwards, Ok(mut list)) => {
                list.pages.reverse();
                Ok(list)
            }
            (Flaw::ListsWithoutPinning, Ok(list)) => {
                let pages = list.pages.clone();
                self.inner.unlock_pages(scx, range, access, list);
                Ok(PageList { pages })
            }
            (Flaw::ListsNothing, Err(_)) => Ok(PageList::default()),
            (Flaw::RefusesAsAnother, Err(SegError::NotSupported { op, .. })) => {
                Err(SegError::NotSupported { driver: "seg_other", op })
            }
            (_, list) => list,
        }
    }
    fn unlock_pages(&self, scx: &SegCx<'_>, range: VirtRange, access: Access, pages: PageList) {
        if !matches!(self.flaw, Flaw::ListsWithoutPinning | Flaw::ListsNothing) {
            self.inner.unlock_pages(scx, range, access, pages);
        }
    }
    fn lend_anons(
        &self,
        _: &SegCx<'_>,
        _: VirtRange,
        _: &mut dyn Borrower,
    ) -> Result<(), SegError> {
        if self.is(Flaw::LendsAnonsOnly) {
            return Ok(());
        }
        Err(SegError::NotSupported { driver: self.driver(), op: "loan to an anon" })
    }
    fn lend_pages(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<PageList, SegError> {
        if self.is(Flaw::LendsAnonsOnly) {
            return Err(SegError::NotSupported { driver: self.driver(), op: "loan" });
        }
        let mut there = Vec::new();
        scx.hat.walk(scx.cx, range, &mut |addr, t| there.push((addr, t)));
        let lent = self.inner.lend_pages(scx, range);
        match (self.flaw, lent) {
            (Flaw::LendsBackwards, Ok(mut lent)) => {
                lent.pages.reverse();
                Ok(lent)
            }
            (Flaw::LendsWhatIsLocked, Err(SegError::Locked { .. })) => {
                let mut newly = NewlyLocked::default();
                self.inner.lock_op(scx, range, LockOp::Unlock, &mut newly)?;
                self.inner.lend_pages(scx, range)
            }
            (Flaw::LetsStoreToWhatIsLent, Ok(lent)) => {
                for (addr, t) in there {
                    let page = VirtRange::page_of(addr);
                    let flags = LoadFlags::NOCONSIST;
                    let _ = scx.hat.devload(scx.cx, page, t.pfn, t.prot, flags);
                }
                Ok(lent)
            }
            (Flaw::LendsTwice, Ok(lent)) => self.inner.lend_pages(scx, range).map(|_| lent),
            (_, lent) => lent,
        }
    }
    fn extract(&self) -> Option<&dyn Extract> {
        self.inner.extract().map(|_| self as &dyn Extract)
    }
    fn set_page_size(&self, scx: &SegCx<'_>, range: VirtRange, code: u8) -> Result<(), SegError> {
        let code = if self.is(Flaw::TakesAnyPageSize) { 0 } else { code };
        self.inner.set_page_size(scx, range, code)
    }
    fn mem_id(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<MemId, SegError> {
        let addr = if self.is(Flaw::HasOneIdentity) { scx.seg.start() } else { addr };
        self.inner.mem_id(scx, addr)
    }
    fn policy(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Option<Advice> {
        self.inner.policy(scx, addr)
    }
    fn capable(&self, what: Capability) -> bool {
        self.inner.capable(what)
    }
    fn inherit_zero(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        self.inner.inherit_zero(scx, range)
    }
    fn inherit(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        how: Option<Inherit>,
    ) -> Result<(), SegError> {
        if self.is(Flaw::ForgetsHowToInherit) {
            Ok(())
        } else {
            self.inner.inherit(scx, range, how)
        }
    }
    fn concat(
        &self,
        scx: &SegCx<'_>,
        next_range: VirtRange,
        next: &dyn SegOps,
        join: Join,
    ) -> bool {
        if self.is(Flaw::ZeroesWhenJoining) {
            zero(scx, next_range.start());
        }
        let next = (next as &dyn Any).downcast_ref::<Self>();
        next.is_some_and(|next| self.inner.concat(scx, next_range, &*next.inner, join))
    }
    fn reserved(&self) -> u64 {
        self.inner.reserved()
    }
    fn counts_own_resv(&self, scx: &SegCx<'_>) -> bool {
        self.inner.counts_own_resv(scx)
    }
    fn memory(&self, scx: &SegCx<'_>) -> Option<VirtRange> {
        self.inner.memory(scx)
    }
    fn residency(&self, scx: &SegCx<'_>, range: VirtRange) -> Residency {
        let told = self.inner.residency(scx, range);
        if self.is(Flaw::CountsNothing) { Residency::default() } else { told }
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

impl Flawed {
    fn inner_extract(&self) -> &dyn Extract {
        self.inner.extract().expect("asked for where there is one")
    }
}

impl Extract for Flawed {
    fn may_move(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        match self.flaw {
            Flaw::MovesWhatIsPinned => Ok(()),
            _ => self.inner_extract().may_move(scx, range),
        }
    }
    fn split(&self, scx: &SegCx<'_>, at: VirtAddr) -> Box<dyn SegOps> {
        Self::over(self.inner_extract().split(scx, at), self.flaw)
    }
    fn relocate(&self, scx: &SegCx<'_>, to: VirtRange) {
        let first = VirtRange::page_of(scx.seg.start());
        let there = scx.hat.probe(scx.cx, scx.seg.start());
        let mut newly = NewlyLocked::default();
        match self.flaw {
            Flaw::ZeroesWhatMoves => scx.seg.iter_pages().for_each(|addr| zero(scx, addr)),
            Flaw::ForgetsRightsWhenMoving => {
                self.inner.set_prot(scx, scx.seg, Prot::RW).expect("memory");
            }
            Flaw::DropsLocksWhenMoving => {
                self.inner.lock_op(scx, scx.seg, LockOp::Unlock, &mut newly).expect("locked");
            }
            _ => {}
        }
        self.inner_extract().relocate(scx, to);
        if let (Flaw::LeavesTheOldPlace, Some(t)) = (self.flaw, there) {
            let _ = scx.hat.devload(scx.cx, first, t.pfn, Prot::READ, LoadFlags::NOCONSIST);
        }
    }
    fn may_share(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        self.inner_extract().may_share(scx, range)
    }
    fn continued(
        &self,
        scx: &SegCx<'_>,
        first: u64,
        like: Like,
        to: &SegCx<'_>,
    ) -> Result<Continued, SegError> {
        let made = match self.inner_extract().continued(scx, first, like, to)? {
            Continued::Made(made) => made,
            leaving => return Ok(leaving),
        };
        if self.is(Flaw::GoesOnWithAllRights) {
            made.set_prot(to, to.seg, Prot::RW)?;
        }
        Ok(Continued::Made(Self::over(made, self.flaw)))
    }
    fn share(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        to: &SegCx<'_>,
    ) -> Result<Box<dyn SegOps>, SegError> {
        let inner = self.inner_extract();
        let made = match self.flaw {
            Flaw::ShowsSomethingElse => match inner.continued(scx, 0, Like::Repeated, to)? {
                Continued::Made(made) => made,
                Continued::Leaving(_) => return Err(SegError::Pinned { range }),
            },
            _ => inner.share(scx, range, to)?,
        };
        Ok(Self::over(made, self.flaw))
    }
    fn is_locked(&self, scx: &SegCx<'_>, addr: VirtAddr) -> bool {
        !self.is(Flaw::GoesOnWithoutTheLock) && self.inner_extract().is_locked(scx, addr)
    }
}
