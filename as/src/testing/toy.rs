//! A segment driver of few words: rights, locks and pins a page, everything asked of it noted, every failure ordered beforehand.

mod plan;

pub(crate) use self::plan::{Fail, Plan};

use crate::error::SegError;
use crate::extract::{Continued, Extract, Like};
use crate::fault::{FaultError, FaultKind};
use crate::hat::{LoadFlags, UnloadFlags};
use crate::leaving::Leaving;
use crate::seg::{
    Advice, InCore, Inherit, Join, LockOp, NewlyLocked, PageList, Remnant, Residency, SegCreate,
    SegCx, SegDetail, SegKind, SegOps, SyncFlags,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::any::Any;
use page_db::{Access, PAGE_SIZE, PageId, Pfn, Prot, VirtAddr, VirtRange};
use std::sync::{Mutex, MutexGuard};

/// How to make a toy.
#[derive(Clone, Debug)]
pub(crate) struct ToyArgs {
    pub(crate) plan: Arc<Plan>,
    pub(crate) name: &'static str,
    pub(crate) prot: Prot,
    pub(crate) max_prot: Prot,
    pub(crate) kind: SegKind,
    /// Toys merge when their tags are equal and not 0.
    pub(crate) tag: u32,
    pub(crate) neighbours_merge: bool,
    pub(crate) may_merge: bool,
    pub(crate) offers_pages: bool,
    /// Whether it says that fork copies what is locked.
    pub(crate) copies_locked: bool,
    pub(crate) moves: bool,
    /// Whether a fault maps the page above as well.
    pub(crate) ahead: bool,
    /// Whether it takes notes of what a child is to have.
    pub(crate) inherits: bool,
    /// Whether what a part held is left to be emptied.
    pub(crate) leaves: bool,
    /// What it says is left of itself, whatever is.
    pub(crate) says: Option<fn(&ToyArgs) -> Remnant>,
    /// What it says one driver of a child serves.
    pub(crate) run: Option<VirtRange>,
}

impl ToyArgs {
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        Self {
            plan: Arc::clone(plan),
            name: "toy",
            prot: Prot::RW,
            max_prot: Prot::RWX,
            kind: SegKind::empty(),
            tag: 0,
            neighbours_merge: true,
            may_merge: true,
            offers_pages: false,
            copies_locked: false,
            moves: false,
            ahead: false,
            inherits: false,
            leaves: false,
            says: None,
            run: None,
        }
    }
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }
    pub(crate) fn prot(self, prot: Prot) -> Self {
        Self { prot, ..self }
    }
    pub(crate) fn max_prot(self, max_prot: Prot) -> Self {
        Self { max_prot, ..self }
    }
    pub(crate) fn tag(self, tag: u32) -> Self {
        Self { tag, ..self }
    }
    pub(crate) fn kind(self, kind: SegKind) -> Self {
        Self { kind, ..self }
    }
    pub(crate) fn offering_pages(self) -> Self {
        Self { offers_pages: true, ..self }
    }
    pub(crate) fn moving(self) -> Self {
        Self { moves: true, ..self }
    }
    pub(crate) fn fresh(&self) -> Box<dyn SegOps> {
        self.make(BTreeMap::new())
    }
    fn make(&self, pages: BTreeMap<u64, PageBits>) -> Box<Toy> {
        Box::new(Toy { args: self.clone(), pages: Mutex::new(pages) })
    }
}

impl SegCreate for ToyArgs {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        self.plan.seg("create", scx, scx.seg)?;
        Ok(self.make(BTreeMap::new()))
    }
    fn may_merge(&self) -> bool {
        self.may_merge
    }
}

/// What a toy keeps of a page, by page number; pages without a record are as the segment.
#[derive(Clone, Copy, Default, Debug)]
struct PageBits {
    prot: Option<Prot>,
    locked: bool,
    soft: u32,
}

#[derive(Debug)]
struct Toy {
    args: ToyArgs,
    pages: Mutex<BTreeMap<u64, PageBits>>,
}

impl Toy {
    fn pages(&self) -> MutexGuard<'_, BTreeMap<u64, PageBits>> {
        self.pages.lock().expect("quiet")
    }
    fn prot_of(&self, page: VirtAddr) -> Prot {
        self.pages().get(&page.vpn()).and_then(|bits| bits.prot).unwrap_or(self.args.prot)
    }
    fn pinned(&self, range: VirtRange) -> bool {
        self.pages().range(vpns(range)).any(|(_, bits)| bits.soft > 0)
    }
    fn soft_unlock(&self, scx: &SegCx<'_>, range: VirtRange) {
        for addr in range.iter_pages() {
            let mut pages = self.pages();
            let bits = pages.get_mut(&addr.vpn()).expect("what is soft-unlocked was soft-locked");
            bits.soft = bits.soft.checked_sub(1).expect("a soft lock is undone once");
        }
        if !self.pinned(scx.seg) {
            scx.space.pins_released(scx.db.waits());
        }
    }
    fn fault_page(
        &self,
        scx: &SegCx<'_>,
        addr: VirtAddr,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        if let Some((_, Fail::Fault(error))) = self.args.plan.due("fault", VirtRange::page_of(addr))
        {
            return Err(error);
        }
        let prot = self.prot_of(addr);
        if !prot.allows(access) {
            return Err(FaultError::Prot { addr, access });
        }
        if kind == FaultKind::SoftLock {
            self.pages().entry(addr.vpn()).or_default().soft += 1;
        }
        let page = VirtRange::page_of(addr);
        let load = |page: VirtRange| {
            let pfn = Pfn(page.start().vpn());
            scx.hat.devload(scx.cx, page, pfn, prot, LoadFlags::empty())
        };
        load(page).map_err(|_| FaultError::NoMemory { addr })?;
        match scx.seg.from(page.end()) {
            Some(above) if self.args.ahead => {
                load(VirtRange::page_of(above.start())).map_err(|_| FaultError::NoMemory { addr })
            }
            _ => Ok(()),
        }
    }
}

fn vpns(range: VirtRange) -> core::ops::Range<u64> {
    range.start().vpn()..range.end() / PAGE_SIZE
}

impl SegOps for Toy {
    fn driver(&self) -> &'static str {
        self.args.name
    }
    fn copies_locked(&self) -> bool {
        self.args.copies_locked
    }
    fn inherit_run(&self, _: &SegCx<'_>, range: VirtRange) -> VirtRange {
        self.args.run.unwrap_or(range)
    }
    fn dup(&self, scx: &SegCx<'_>, child: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        assert!(scx.writer && child.writer, "G3: both locks are held as writer");
        assert!(scx.seg.covers(child.seg), "G1: what the child gets lies in the segment");
        self.args.plan.seg("dup", scx, scx.seg)?;
        let inherited = |bits: &PageBits| PageBits { prot: bits.prot, ..PageBits::default() };
        let mine = crate::runs::vpns(child.seg);
        let pages = self.pages().range(mine).map(|(vpn, bits)| (*vpn, inherited(bits))).collect();
        Ok(self.args.make(pages))
    }
    fn unmap(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<Remnant, SegError> {
        scx.check_writer("toy", range)?;
        self.args.plan.seg("unmap", scx, range)?;
        if self.pinned(scx.seg) {
            return Err(SegError::Pinned { range });
        }
        scx.hat.unload(scx.cx, range, UnloadFlags::UNMAP);
        let mut pages = self.pages();
        let mut above = pages.split_off(&range.start().vpn());
        let above = above.split_off(&(range.end() / PAGE_SIZE));
        if let Some(says) = self.args.says {
            return Ok(says(&self.args));
        }
        let (low, high) = (scx.seg.until(range.start().get()), scx.seg.from(range.end()));
        Ok(match (low, high) {
            (None, None) => Remnant::Nothing,
            (Some(_), None) => Remnant::Low,
            (None, Some(_)) => {
                *pages = above;
                Remnant::High
            }
            (Some(_), Some(_)) => Remnant::Both(self.args.make(above)),
        })
    }
    fn unmap_part(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
    ) -> Result<(Remnant, Option<Leaving>), SegError> {
        assert_ne!(range, scx.seg, "a part is less than the whole");
        let left = self.unmap(scx, range)?;
        let leaving =
            || Leaving::new(Arc::clone(&self.args.plan) as _, vpns(range), range.pages().get(), 0);
        Ok((left, self.args.leaves.then(leaving)))
    }
    fn make_own(&mut self, scx: &SegCx<'_>) -> Result<(), SegError> {
        self.args.plan.seg("make_own", scx, scx.seg)
    }
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        let op = match kind {
            FaultKind::SoftLock => "softlock",
            FaultKind::SoftUnlock => "softunlock",
            _ => "fault",
        };
        self.args.plan.note(op, scx, range);
        if kind == FaultKind::SoftUnlock {
            self.soft_unlock(scx, range);
            return Ok(());
        }
        for addr in range.iter_pages() {
            if let Err(error) = self.fault_page(scx, addr, kind, access) {
                if kind == FaultKind::SoftLock
                    && let Some(own) = range.until(addr.get())
                {
                    self.soft_unlock(scx, own);
                }
                return Err(error);
            }
        }
        Ok(())
    }
    fn populate(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), FaultError> {
        self.args.plan.note("populate", scx, range);
        if let Some((_, Fail::Fault(error))) = self.args.plan.due("populate", range) {
            return Err(error);
        }
        let mut pages = range.iter_pages().map(VirtRange::page_of);
        pages.try_for_each(|page| self.fault(scx, page, FaultKind::Invalid, access))
    }
    fn faulta(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        let page = VirtRange::page_of(addr);
        self.args.plan.note("faulta", scx, page);
        match self.args.plan.due("faulta", page) {
            Some((_, Fail::Fault(error))) => Err(error),
            _ => Ok(()),
        }
    }
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        self.args.plan.seg("set_prot", scx, range)?;
        if !self.args.max_prot.contains(prot) {
            return Err(SegError::Access { range });
        }
        if self.pinned(range) {
            return Err(SegError::Pinned { range });
        }
        for vpn in vpns(range) {
            self.pages().entry(vpn).or_default().prot = Some(prot);
        }
        scx.hat.chg_prot(scx.cx, range, prot);
        Ok(())
    }
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        assert!(scx.seg.covers(range), "G1");
        let mut rest = Some(range);
        while let Some(range) = rest {
            let prot = self.prot_of(range.start());
            // Pages without a record end at the next record, so that a large range is not walked page by page.
            let recorded =
                self.pages().range(range.start().vpn() + 1..).next().map(|(vpn, _)| *vpn);
            let differs = |vpn: &u64| {
                let addr = VirtAddr::new(vpn * PAGE_SIZE).expect("canonical");
                self.prot_of(addr) != prot
            };
            let mut next = recorded.unwrap_or(u64::MAX);
            let has_record = self.pages().contains_key(&range.start().vpn());
            if has_record {
                let span = range.start().vpn() + 1..range.end() / PAGE_SIZE;
                next = span.clone().find(differs).unwrap_or(span.end);
            }
            let end = next.saturating_mul(PAGE_SIZE).min(range.end());
            f(range.until(end).expect("it holds its start"), prot);
            rest = range.from(end);
        }
    }
    fn sync(&self, scx: &SegCx<'_>, range: VirtRange, _: SyncFlags) -> Result<(), SegError> {
        self.args.plan.seg("sync", scx, range)
    }
    fn inherit(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        how: Option<Inherit>,
    ) -> Result<(), SegError> {
        match (self.args.inherits, how) {
            (true, _) => self.args.plan.seg("inherit", scx, range),
            (false, None) => Ok(()),
            (false, _) => Err(SegError::NotSupported { driver: self.driver(), op: "inherit" }),
        }
    }
    fn incore(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        let stop = match self.args.plan.due("incore", range) {
            Some((page, _)) => range.page_index(page),
            None => range.pages().get(),
        };
        for (addr, byte) in range.iter_pages().zip(out.iter_mut()).take(stop as usize) {
            let locked = self.pages().get(&addr.vpn()).is_some_and(|bits| bits.locked);
            let mut bits = InCore::empty();
            bits.set(InCore::INCORE, locked || scx.hat.probe(scx.cx, addr).is_some());
            bits.set(InCore::LOCKED, locked);
            *byte = bits.bits();
        }
        (stop as usize).min(out.len())
    }
    fn lock_op(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        op: LockOp,
        newly: &mut NewlyLocked,
    ) -> Result<(), SegError> {
        let name = if op == LockOp::Lock { "lock" } else { "unlock" };
        self.args.plan.note(name, scx, range);
        for addr in range.iter_pages() {
            if let Some((_, Fail::Seg(error))) = self.args.plan.due(name, VirtRange::page_of(addr))
            {
                return Err(error);
            }
            let mut pages = self.pages();
            let bits = pages.entry(addr.vpn()).or_default();
            if op == LockOp::Lock && !bits.locked {
                newly.note(addr);
            }
            bits.locked = op == LockOp::Lock;
        }
        Ok(())
    }
    fn residency(&self, scx: &SegCx<'_>, range: VirtRange) -> Residency {
        let mut rss = 0;
        scx.hat.walk(scx.cx, range, &mut |_, _| rss += 1);
        let locked = self.pages().range(vpns(range)).filter(|(_, bits)| bits.locked).count() as u64;
        Residency { rss, locked, ..Residency::default() }
    }
    fn first_locked(&self, _: &SegCx<'_>, range: VirtRange) -> Option<VirtRange> {
        let pages = self.pages();
        let (vpn, _) = pages.range(vpns(range)).find(|(_, bits)| bits.locked)?;
        Some(VirtRange::page_of(range.page_at(vpn - range.start().vpn())))
    }
    fn kind(&self) -> SegKind {
        self.args.kind
    }
    fn advise(&self, scx: &SegCx<'_>, range: VirtRange, _: Advice) -> Result<(), SegError> {
        self.args.plan.seg("advise", scx, range)
    }
    fn lock_pages(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<PageList, SegError> {
        if !self.args.offers_pages {
            return Err(SegError::NotSupported { driver: self.driver(), op: "pagelock" });
        }
        if range.iter_pages().any(|page| !self.prot_of(page).allows(access)) {
            return Err(SegError::Access { range });
        }
        self.args.plan.seg("pagelock", scx, range)?;
        for vpn in vpns(range) {
            self.pages().entry(vpn).or_default().soft += 1;
        }
        let page = |vpn: u64| PageId::of_link((vpn % 60 + 1) as u32).expect("not 0");
        Ok(PageList { pages: vpns(range).map(page).collect() })
    }
    fn unlock_pages(&self, scx: &SegCx<'_>, range: VirtRange, _: Access, list: PageList) {
        self.args.plan.note("pageunlock", scx, range);
        assert_eq!(list.pages.len() as u64, range.pages().get());
        self.soft_unlock(scx, range);
    }
    fn concat(
        &self,
        scx: &SegCx<'_>,
        next_range: VirtRange,
        next: &dyn SegOps,
        join: Join,
    ) -> bool {
        assert!(scx.writer, "G3: the lock is held as writer");
        assert_eq!(scx.seg.end(), next_range.start().get(), "the two are adjacent");
        let name = if join == Join::Extend { "extend" } else { "concat" };
        let whole =
            VirtRange::exact(scx.seg.start().get(), next_range.end() - scx.seg.start().get());
        let whole = whole.expect("adjacent ranges make one");
        self.args.plan.note(name, &SegCx { seg: whole, ..*scx }, whole);
        let Some(next) = (next as &dyn Any).downcast_ref::<Self>() else { return false };
        let equal = self.args.tag != 0 && self.args.tag == next.args.tag;
        if !equal || (join == Join::Neighbours && !self.args.neighbours_merge) {
            return false;
        }
        self.pages().append(&mut next.pages());
        true
    }
    fn extract(&self) -> Option<&dyn Extract> {
        self.args.moves.then_some(self)
    }
    fn detail(&self, _: &SegCx<'_>) -> SegDetail {
        SegDetail {
            name: "[ toy ]".to_string(),
            prot: self.args.prot,
            max_prot: self.args.max_prot,
            ..SegDetail::default()
        }
    }
    fn verify(&self, scx: &SegCx<'_>) -> Result<(), String> {
        let pages = self.pages();
        let strays = pages.keys().filter(|vpn| !vpns(scx.seg).contains(vpn));
        match strays.min() {
            Some(vpn) => Err(alloc::format!("toy: page {vpn:#x} is not in the segment")),
            None => Ok(()),
        }
    }
}

impl Extract for Toy {
    fn may_move(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        assert!(scx.writer, "G3: the lock is held as writer");
        self.args.plan.seg("may_move", scx, range)?;
        if self.pinned(scx.seg) { Err(SegError::Pinned { range }) } else { Ok(()) }
    }
    fn split(&self, scx: &SegCx<'_>, at: VirtAddr) -> Box<dyn SegOps> {
        assert!(scx.seg.contains(at) && at != scx.seg.start(), "G8: inside the segment");
        self.args.plan.note("split", scx, VirtRange::page_of(at));
        let above = self.pages().split_off(&at.vpn());
        self.args.make(above)
    }
    fn relocate(&self, scx: &SegCx<'_>, to: VirtRange) {
        assert_eq!(scx.seg.len(), to.len());
        self.args.plan.note("relocate", scx, scx.seg);
        scx.hat.unload(scx.cx, scx.seg, UnloadFlags::UNMAP);
        let mut pages = self.pages();
        let shift = |(vpn, bits)| (vpn - scx.seg.start().vpn() + to.start().vpn(), bits);
        *pages = core::mem::take(&mut *pages).into_iter().map(shift).collect();
    }
    fn continued(
        &self,
        scx: &SegCx<'_>,
        first: u64,
        like: Like,
        to: &SegCx<'_>,
    ) -> Result<Continued, SegError> {
        let pages = scx.seg.pages().get();
        match like {
            Like::Repeated => assert!(first + to.seg.pages().get() <= pages),
            Like::Before => assert!((1..=pages).contains(&first)),
        }
        self.args.plan.seg("continued", to, to.seg)?;
        if self.args.plan.due("leaving", to.seg).is_some() {
            return Ok(Continued::Leaving(Arc::clone(&self.args.plan) as _));
        }
        Ok(Continued::Made(self.args.make(BTreeMap::new())))
    }
    fn share(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        to: &SegCx<'_>,
    ) -> Result<Box<dyn SegOps>, SegError> {
        assert!(scx.writer && to.writer, "G3: both locks are held as writer");
        assert_eq!(range.len(), to.seg.len());
        self.args.plan.seg("share", scx, range)?;
        Ok(self.args.make(BTreeMap::new()))
    }
    fn is_locked(&self, _: &SegCx<'_>, addr: VirtAddr) -> bool {
        self.pages().get(&addr.vpn()).is_some_and(|bits| bits.locked)
    }
}
