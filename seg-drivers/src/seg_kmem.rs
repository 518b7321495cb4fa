//! `seg_kmem`: the kernel's heap.
//!
//! One segment of the kernel's address space covers the whole heap. What is allocated in it has pages named by the kernel's vnode at
//! the offset that equals the address within the heap, wired: claimed, left shared-locked, their translations locked and never harvested. There is no
//! demand fault; touching what is not allocated is an error, and so is asking for what only user-level memory can do.
//!
//! ```text
//!   alloc   address range ─▶ pages <kvp, offset>, zeroed, claimed ─▶ locked translations, supervisor only
//!   free    the reverse; every page is destroyed
//! ```
//!
//! - K1: every page of an allocation is resident, claimed once (`p_lckcnt` 1) and mapped in the kernel's half, which every hat shares.
//!   But for a range in `busy`, which is on its way: nobody has been given it yet, or it was given back. It belongs to the one call that put it there.
//! - K2: the claim pays for the page out of availrmem, and destroying the page gives that back. All that an allocation will claim is promised before its
//!   first page is made: who asks for more than can be promised is refused before anybody's page has gone for it.
//! - K3: who finds no frame lets page-out run, or waits for it, and holds nothing meanwhile but the range, which is busy.
//! - K4: a soft lock is counted in `pins` for as long as it holds its page, and an unlock takes up a lock that it has taken out of the count. The holders of the page say
//!   nothing about that: the wire may be among them or gone, and whoever looks at the page comes and goes. So a range is freed beside soft locks: `free`
//!   gives the wire's lock back and waits for theirs.
//!
//! Sources: [SI §11, Fig. 11.2]; illumos `vm/seg_kmem.c` (behaviour); illumos.md 10.

use crate::runs::{Runs, run_range, vpns};
use addr_space::avl::{Avl, GapQuery, Order, Visits};
use addr_space::{
    Advice, Capability, FaultError, FaultKind, HatError, InCore, LoadFlags, LockOp, NewlyLocked,
    Remnant, SegCreate, SegCx, SegDetail, SegError, SegKind, SegOps, SyncFlags, UnloadFlags,
};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::sync::Mutex;
use page_db::{
    Access, Counter, Cx, FileOffset, GotPage, Identity, LockedPage, MemoryTries, PAGE_SIZE, PageDb,
    Prot, PutFlags, Rank, RefMod, Reserve, VirtAddr, VirtRange, Vnode, VnodeError, VnodeId,
    VnodeKind, errno,
};

/// Frames that wiring a page may take: itself, and page tables.
const FRAMES: u64 = 4;

/// The vnode that names the kernel's pages.
#[doc(alias = "kvp")]
#[derive(Debug)]
pub struct KernelVnode {
    id: VnodeId,
}

impl Vnode for KernelVnode {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        "kvp".to_string()
    }
    fn size(&self) -> u64 {
        u64::MAX
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        _access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        // The kernel's pages are made by allocation only.
        match db.lookup_shared(cx, Identity::new(self.id, offset)) {
            Some(page) => Ok(GotPage { page, prot: Prot::RWX, read: false }),
            None => Err(VnodeError::NoName { vnode: self.id, offset }),
        }
    }
    fn put_page(
        &self,
        _: &Cx,
        _: &PageDb,
        _: FileOffset,
        _: u64,
        _: PutFlags,
    ) -> Result<(), VnodeError> {
        Err(VnodeError::NotSupported { vnode: self.id, op: "put_page" })
    }
}

#[derive(Debug)]
struct Heap {
    /// Allocated address ranges.
    ranges: Avl,
    /// Where those begin that are being made or taken apart (K1). It has room for all, so that a range can always leave.
    busy: Vec<u64>,
    /// Rights by virtual page number.
    prots: Runs<Prot>,
    /// How many soft locks a page has, by virtual page number, in order (K4). A page that has been locked once stays here until its allocation goes, so that an
    /// unlock needs no memory.
    pins: Vec<(u64, u32)>,
}

impl Heap {
    /// Counts a soft lock that the caller has left behind; refused when there is no room for the count.
    fn pin(&mut self, addr: VirtAddr) -> bool {
        let vpn = addr.vpn();
        let at = self.pins.partition_point(|(page, _)| *page < vpn);
        if self.pins.get(at).is_none_or(|(page, _)| *page != vpn) {
            if self.pins.try_reserve(1).is_err() {
                return false;
            }
            self.pins.insert(at, (vpn, 0));
        }
        self.pins[at].1 += 1; // far from its end: K6 of the page lock
        true
    }
    /// Takes a soft lock out of the count, if there is one: it is the caller's then.
    fn unpin(&mut self, addr: VirtAddr) -> bool {
        let at = self.pins.binary_search_by_key(&addr.vpn(), |(page, _)| *page);
        let Some((_, pins)) = at.ok().and_then(|at| self.pins.get_mut(at)) else { return false };
        let counted = *pins != 0;
        *pins -= u32::from(counted);
        counted
    }
    /// The lowest free range of `len` bytes in `window`, taken and busy, with all rights.
    fn take(&mut self, window: VirtRange, len: u64) -> Option<VirtRange> {
        let query = GapQuery {
            window: (window.start().get(), window.end()),
            len,
            align: 0,
            redzone: 0,
            order: Order::Lowest,
            containing: None,
        };
        let gap = self.ranges.find_gap(&query, &mut Visits(0))?;
        let range = VirtRange::exact(query.place_in(&gap)?, len).ok()?;
        let all = self.ranges.len() + 1; // each of them may be busy at once
        self.busy.try_reserve(all - self.busy.len()).ok()?;
        self.prots.make_room(vpns(range)).ok()?;
        let placed = self.ranges.insert(range.start().get(), range.end()).is_ok();
        if placed {
            self.busy.push(range.start().get());
            self.prots.set(vpns(range), Prot::RWX);
        }
        self.prots.trim();
        placed.then_some(range)
    }
    /// The caller's range becomes busy, if it is exactly one that is not.
    fn give_up(&mut self, range: VirtRange) -> bool {
        let start = range.start().get();
        let whole = self
            .ranges
            .find(start, &mut Visits(0))
            .is_some_and(|id| self.ranges.start(id) == start && self.ranges.end(id) == range.end());
        let theirs = whole && !self.busy.contains(&start);
        if theirs {
            self.busy.push(start);
        }
        theirs
    }
    /// A busy range is whole now, or gone.
    fn settle(&mut self, range: VirtRange, gone: bool) {
        let start = range.start().get();
        self.busy.retain(|busy| *busy != start);
        if gone && let Some(id) = self.ranges.find(start, &mut Visits(0)) {
            self.ranges.remove(id);
            let place = |vpn: u64| self.pins.partition_point(|(page, _)| *page < vpn);
            let pages = vpns(range);
            self.pins.drain(place(pages.start)..place(pages.end)); // all of them unlocked
        }
    }
}

/// The heap: what the segment and the allocator share.
#[derive(Debug)]
pub struct Kmem {
    window: VirtRange,
    vnode: Arc<KernelVnode>,
    heap: Mutex<Heap>,
}

impl Kmem {
    /// A heap over `window`, a range of the kernel's half. Its segment is made by mapping `window` with this as the argument.
    ///
    /// # Errors
    /// [`SegError::NoMemory`] when no vnode number is to be had, [`SegError::Invalid`] when somebody gives it back at once.
    pub fn new(cx: &Cx, db: &PageDb, window: VirtRange) -> Result<Arc<Self>, SegError> {
        let id = db
            .vnodes()
            .register(cx, VnodeKind::Kernel)
            .map_err(|_| SegError::NoMemory { range: window })?;
        let vnode = Arc::new(KernelVnode { id });
        let object: Arc<dyn Vnode> = Arc::clone(&vnode) as Arc<dyn Vnode>;
        if !db.vnodes().attach(id, Arc::downgrade(&object)) {
            let what = "a vnode number that somebody else gave back";
            return Err(SegError::Invalid { driver: "seg_kmem", what, range: window });
        }
        let ranges = Avl::new(window.start().get(), window.end());
        let heap = Heap { ranges, busy: Vec::new(), prots: Runs::new(Prot::RWX), pins: Vec::new() };
        Ok(Arc::new(Self { window, vnode, heap: Mutex::new(Rank::SegPrivate, heap) }))
    }
    /// The kernel's vnode.
    pub fn vnode(&self) -> &Arc<KernelVnode> {
        &self.vnode
    }
    /// The range the heap lies in.
    pub fn window(&self) -> VirtRange {
        self.window
    }
    fn check(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        let what = if !scx.db.vnodes().is_object(&*self.vnode) {
            "another machine's heap"
        } else if !scx.space.is_kernel() || !scx.space.limits().covers(self.window) {
            "an address space that does not have the heap"
        } else {
            return Ok(());
        };
        Err(SegError::Invalid { driver: "seg_kmem", what, range })
    }
    fn identity(&self, addr: VirtAddr) -> Identity {
        Identity::new(self.vnode.id, FileOffset(addr.get() - self.window.start().get()))
    }
    /// Allocates `pages` wired, zeroed pages at the lowest free address. `scx` speaks of the kernel's address space. The caller holds no lock: where frames are
    /// short, they are waited for.
    ///
    /// # Errors
    /// [`SegError::Invalid`] for no pages, or the `scx` of another machine or of a user's address space; [`SegError::NoMemory`] when the memory cannot be promised
    /// (`t_minarmem`; illumos's `KM_SLEEP` waits for that, too), or page-out finds no more; nothing has changed.
    #[doc(alias("segkmem_alloc", "kmem_alloc"))]
    pub fn alloc(&self, scx: &SegCx<'_>, pages: u64) -> Result<VirtRange, SegError> {
        self.check(scx, self.window)?;
        let len = pages.checked_mul(PAGE_SIZE).filter(|l| *l != 0).ok_or(SegError::Invalid {
            driver: "seg_kmem",
            what: "an allocation of no pages, or too many",
            range: self.window,
        })?;
        let taken = self.heap.lock(scx.cx).take(self.window, len);
        let range = taken.ok_or(SegError::NoMemory { range: self.window })?;
        let made = match scx.db.free_mem().reserve_kernel(pages) {
            true => self.wire_all(scx, range),
            false => Err(SegError::NoMemory { range }),
        };
        self.heap.lock(scx.cx).settle(range, made.is_err());
        made.map(|()| range)
    }
    /// Wires all pages of a busy range, for which memory is promised; or none, and the promise is given back.
    fn wire_all(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        for (done, addr) in range.iter_pages().enumerate() {
            let Err(e) = self.wire_in_time(scx, addr) else { continue };
            let done = done as u64;
            self.unwire(scx, range, done);
            scx.db.free_mem().uncharge(range.pages().get() - done); // the rest went with the claims (K2)
            return Err(match e {
                SegError::NoMemory { .. } => SegError::NoMemory { range },
                e => e,
            });
        }
        Ok(())
    }
    /// Wires one page, for which frames may have to be waited for (K3).
    fn wire_in_time(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), SegError> {
        let mut tries = MemoryTries::new(1, FRAMES);
        loop {
            match self.wire(scx, addr) {
                Err(e @ SegError::NoMemory { .. }) => tries.wait(scx.cx, scx.db).map_err(|_| e)?,
                done => return done,
            }
        }
    }
    /// Makes, zeroes, maps and claims one page (K1).
    fn wire(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), SegError> {
        let range = VirtRange::page_of(addr);
        let page = scx
            .db
            .create(scx.cx, self.identity(addr), PageDb::colour_for(addr), Reserve::Normal)
            .map_err(|_| SegError::NoMemory { range })?;
        scx.db.mem().zero(page.pfn());
        scx.cx.count_n(Counter::BytesZeroed, PAGE_SIZE);
        page.end_io();
        let flags = LoadFlags::LOCK | LoadFlags::NOSYNC;
        if let Err(e) = scx.hat.memload(scx.cx, addr, &page, Prot::RWX, flags, None) {
            scx.db.destroy(scx.cx, page);
            return Err(match e {
                HatError::NoMemory { .. } => SegError::NoMemory { range },
                // Not for want of memory: whoever waits for some would wait for ever.
                _ => SegError::Invalid {
                    driver: "seg_kmem",
                    what: "memory the hat cannot map",
                    range,
                },
            });
        }
        let is_claimed = scx.db.claim_reserved(&page);
        debug_assert!(is_claimed, "K1: a page just made is nobody else's");
        _ = page.downgrade().leak(); // found again by its name
        Ok(())
    }
    /// Undoes [`Kmem::wire`] for the first `pages` pages of `range`.
    fn unwire(&self, scx: &SegCx<'_>, range: VirtRange, pages: u64) {
        if let Ok(done) = VirtRange::exact(range.start().get(), pages * PAGE_SIZE) {
            scx.hat.unload(scx.cx, done, UnloadFlags::UNLOCK | UnloadFlags::NOSYNC);
            for addr in done.iter_pages() {
                let Some(id) = scx.db.exists(scx.cx, self.identity(addr)) else { continue };
                drop(scx.db.adopt_shared(scx.cx, id));
                let page = scx.db.lock_excl(scx.cx, id);
                scx.db.destroy(scx.cx, page);
            }
        }
    }
    /// Frees an allocation made by [`Kmem::alloc`], whole.
    ///
    /// # Errors
    /// [`SegError::Invalid`] when `range` is not exactly one allocation, or somebody is freeing it already, or `scx` is another machine's or a user's; nothing has
    /// changed.
    ///
    /// # Locks
    /// Waits for whoever has pages of it soft-locked (K4): not to be called by him.
    #[doc(alias("segkmem_free", "kmem_free"))]
    pub fn free(&self, scx: &SegCx<'_>, range: VirtRange) -> Result<(), SegError> {
        self.check(scx, range)?;
        if !self.heap.lock(scx.cx).give_up(range) {
            let what = "not one allocation";
            return Err(SegError::Invalid { driver: "seg_kmem", what, range });
        }
        self.unwire(scx, range, range.pages().get());
        self.heap.lock(scx.cx).settle(range, true);
        Ok(())
    }
    /// Pages allocated.
    pub fn allocated(&self, cx: &Cx) -> u64 {
        let heap = self.heap.lock(cx);
        heap.ranges.iter().map(|id| (heap.ranges.end(id) - heap.ranges.start(id)) / PAGE_SIZE).sum()
    }
}

/// Maps a heap's window: `AddrSpace::map(window, &KmemArgs(kmem))`.
#[derive(Debug)]
pub struct KmemArgs(pub Arc<Kmem>);

impl SegCreate for KmemArgs {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        if scx.seg != self.0.window {
            let what = "the segment must be the heap's whole window";
            return Err(SegError::Invalid { driver: "seg_kmem", what, range: scx.seg });
        }
        self.0.check(scx, scx.seg)?;
        Ok(Box::new(SegKmem { kmem: Arc::clone(&self.0) }))
    }
    fn may_merge(&self) -> bool {
        false
    }
}

/// The segment.
#[doc(alias("segkmem_ops", "kvseg"))]
#[derive(Debug)]
pub struct SegKmem {
    kmem: Arc<Kmem>,
}

impl SegKmem {
    fn unsupported<T>(op: &'static str) -> Result<T, SegError> {
        Err(SegError::NotSupported { driver: "seg_kmem", op })
    }
    fn soft_lock(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        access: Access,
    ) -> Result<(), FaultError> {
        for addr in range.iter_pages() {
            if let Err(e) = self.soft_lock_page(scx, addr) {
                if let Some(before) = range.until(addr.get()) {
                    self.soft_unlock(scx, before, access);
                }
                return Err(e);
            }
        }
        Ok(())
    }
    fn soft_lock_page(&self, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        let page = scx.db.lookup_shared(scx.cx, self.kmem.identity(addr));
        let page = page.ok_or(FaultError::NoMap { addr })?;
        if !page.may_leak() {
            return Err(FaultError::Object { addr, errno: errno::EAGAIN });
        }
        // Counted when it is there to be given back (K4): of two unlocks that come too soon neither finds it.
        let id = page.leak();
        if !self.kmem.heap.lock(scx.cx).pin(addr) {
            drop(scx.db.adopt_shared(scx.cx, id));
            return Err(FaultError::Object { addr, errno: errno::ENOMEM });
        }
        Ok(())
    }
    fn soft_unlock(&self, scx: &SegCx<'_>, range: VirtRange, access: Access) {
        for addr in range.iter_pages() {
            if !self.kmem.heap.lock(scx.cx).unpin(addr) {
                continue;
            }
            // held: a soft lock of the page, hence its name
            let Some(id) = scx.db.exists(scx.cx, self.kmem.identity(addr)) else { continue };
            let page = scx.db.adopt_shared(scx.cx, id);
            if access == Access::Write {
                page.page().set_ref_mod(RefMod::REF | RefMod::MOD);
            }
        }
    }
}

impl SegOps for SegKmem {
    fn driver(&self) -> &'static str {
        "seg_kmem"
    }
    fn dup(&self, _: &SegCx<'_>, _: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        Self::unsupported("dup")
    }
    fn unmap(&self, _: &SegCx<'_>, _: VirtRange) -> Result<Remnant, SegError> {
        Self::unsupported("unmap")
    }
    /// The kernel's heap takes no demand faults: what is allocated is mapped.
    #[doc(alias = "segkmem_fault")]
    fn fault(
        &self,
        scx: &SegCx<'_>,
        range: VirtRange,
        kind: FaultKind,
        access: Access,
    ) -> Result<(), FaultError> {
        match kind {
            FaultKind::SoftLock => self.soft_lock(scx, range, access),
            FaultKind::SoftUnlock => {
                self.soft_unlock(scx, range, access);
                Ok(())
            }
            kind => Err(FaultError::NoSupport { addr: range.start(), driver: "seg_kmem", kind }),
        }
    }
    #[doc(alias = "segkmem_setprot")]
    fn set_prot(&self, scx: &SegCx<'_>, range: VirtRange, prot: Prot) -> Result<(), SegError> {
        let prot = prot.difference(Prot::USER);
        if !prot.intersects(Prot::RWX) {
            // Nothing would bring the translation back: there is no demand fault (K1).
            let what = "wired memory stays mapped";
            return Err(SegError::Invalid { driver: "seg_kmem", what, range });
        }
        let mut heap = self.kmem.heap.lock(scx.cx);
        heap.prots.make_room(vpns(range)).map_err(|_| SegError::NoMemory { range })?;
        heap.prots.set(vpns(range), prot);
        heap.prots.trim();
        scx.hat.chg_prot(scx.cx, range, prot);
        Ok(())
    }
    fn prots(&self, scx: &SegCx<'_>, range: VirtRange, f: &mut dyn FnMut(VirtRange, Prot)) {
        let mut rest = vpns(range);
        while !rest.is_empty() {
            let (run, prot) = self.kmem.heap.lock(scx.cx).prots.first_of(rest.clone());
            rest.start = run.end;
            f(run_range(range, &run), prot);
        }
    }
    // What only user-level memory is asked for.
    fn faulta(&self, _: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
        Err(FaultError::NoSupport { addr, driver: "seg_kmem", kind: FaultKind::Invalid })
    }
    fn sync(&self, _: &SegCx<'_>, _: VirtRange, _: SyncFlags) -> Result<(), SegError> {
        Self::unsupported("sync")
    }
    /// Answers up to the first page that nobody has been given.
    fn incore(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
        let heap = self.kmem.heap.lock(scx.cx);
        let mut end = range.start().get();
        while end < range.end() {
            let found = heap.ranges.find(end, &mut Visits(0));
            let given = found.filter(|id| !heap.busy.contains(&heap.ranges.start(*id)));
            let Some(id) = given else { break };
            end = heap.ranges.end(id);
        }
        let pages = (end.min(range.end()) - range.start().get()) / PAGE_SIZE;
        let n = pages.min(out.len() as u64) as usize;
        out[..n].fill(InCore::INCORE.bits());
        n
    }
    fn lock_op(
        &self,
        _: &SegCx<'_>,
        _: VirtRange,
        _: LockOp,
        _: &mut NewlyLocked,
    ) -> Result<(), SegError> {
        Self::unsupported("lockop")
    }
    fn advise(&self, _: &SegCx<'_>, _: VirtRange, _: Advice) -> Result<(), SegError> {
        Self::unsupported("advise")
    }
    fn kind(&self) -> SegKind {
        SegKind::SHARED
    }
    fn capable(&self, what: Capability) -> bool {
        what == Capability::NoMinorFaults // the heap is wired
    }
    fn offset(&self, _: &SegCx<'_>, addr: VirtAddr) -> FileOffset {
        self.kmem.identity(addr.page_floor()).offset
    }
    fn vnode(&self, _: &SegCx<'_>, _: VirtAddr) -> Option<Arc<dyn Vnode>> {
        Some(Arc::clone(&self.kmem.vnode) as Arc<dyn Vnode>)
    }
    fn detail(&self, _: &SegCx<'_>) -> SegDetail {
        SegDetail {
            name: "[ seg_kmem ]".to_string(),
            prot: Prot::RWX,
            max_prot: Prot::RWX,
            ..SegDetail::default()
        }
    }
    /// K1, K2, K4. Nothing runs, so no range is on its way.
    fn verify(&self, scx: &SegCx<'_>) -> Result<(), String> {
        let (busy, pins) = {
            let heap = self.kmem.heap.lock(scx.cx);
            (heap.busy.first().copied(), heap.pins.clone())
        };
        if let Some(start) = busy {
            return Err(alloc::format!("K1: the range at {start:#x} is busy, and nobody runs"));
        }
        for (vpn, pins) in pins {
            let addr = self.kmem.window.page_at(vpn - self.kmem.window.start().vpn());
            let id = scx.db.exists(scx.cx, self.kmem.identity(addr));
            let held = id.map_or(0, |id| scx.db.lock_state(id).shared);
            if held <= pins {
                return Err(alloc::format!(
                    "K4: kernel page {addr} has {pins} soft locks and {held} holders, with the wire"
                ));
            }
        }
        let pages = self.kmem.allocated(scx.cx);
        let resident = scx.db.vnode_page_count(scx.cx, self.kmem.vnode.id);
        if pages != resident {
            return Err(alloc::format!(
                "K1: {pages} kernel pages are allocated, {resident} are resident"
            ));
        }
        for id in scx.db.vnode_pages(scx.cx, self.kmem.vnode.id) {
            let p = scx.db.page(id);
            if p.lckcnt() != 1 {
                return Err(alloc::format!("K1: kernel page {id} has {} claims", p.lckcnt()));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
