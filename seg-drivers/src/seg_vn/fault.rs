//! Resolving a fault, page by page.
//!
//! # Which case
//!
//! ```text
//!                       slot holds an anon?
//!                     yes │            │ no
//!            store, private,           file below?
//!            refs > 1?               yes │       │ no
//!          no │     │ yes       store,   │       └──────▶ 2B  zeros become an anon
//!             ▼     ▼           private? │
//!            1A     1B        no │    │ yes
//!     map the page  copy it      ▼    ▼
//!     (read-only             2A     2B  the file's page is copied
//!      if refs > 1)   map the file's page
//! ```
//!
//! Each case is a function ([`super::upper`], [`super::lower`]) and bumps a counter of its name.
//!
//! # What is held
//!
//! as (reader), then the slot's busy bit, then page locks: at most the source shared and a new page exclusive. Frames for a new page and for
//! page tables are asked for with these held, and never waited for: [`FaultError::NoMemory`] lets everything go and the address space
//! waits and starts over. A page-in sleeps with as (reader) and the slot.
//!
//! Sources: illumos.md 4.5, uvm.md 3; [UVM §4.7].

use super::{SegVn, lock, softlock};
use addr_space::{FaultError, FaultKind, HatError, LoadFlags, Loaded, SegCx, Stamp};
use page_db::db::Era;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated, spin_wait};
use page_db::{
    Access, Identity, LockedPage, PAGE_SIZE, PageError, Prot, VirtAddr, VirtRange, VnodeError,
    errno,
};
use swapfs::SwapError;

/// One page of a fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageFault<'a> {
    pub(super) scx: &'a SegCx<'a>,
    pub(super) addr: VirtAddr,
    pub(super) kind: FaultKind,
    pub(super) access: Access,
    /// The page's rights.
    pub(super) prot: Prot,
    pub(super) stamp: Stamp<'a>,
    /// Whether a shared source must be copied: a store, or a soft lock that does not say otherwise, in a mapping that has pages of its own and can be stored to.
    pub(super) break_cow: bool,
    /// Whether this mapping has the page locked in memory: of which era its claim is.
    pub(super) claim: Option<Era>,
    /// Whether it waits for nobody and reads nothing: everybody else waits for the lock, which is held as writer. What it would wait for is
    /// [`FaultError::Retry`], and a fault that may wait comes first. (A file's page is looked for, then asked of the file: whoever takes it exclusively between
    /// the two is waited for.)
    pub(super) quick: bool,
}

impl<'a> PageFault<'a> {
    /// A page that the system needs for its own purposes: nobody touches it, nothing is copied.
    pub(super) fn by_system(
        scx: &'a SegCx<'a>,
        addr: VirtAddr,
        prot: Prot,
        stamp: Stamp<'a>,
    ) -> Self {
        let (kind, access) = (FaultKind::Invalid, Access::Other);
        Self { scx, addr, kind, access, prot, stamp, break_cow: false, claim: None, quick: false }
    }
    /// The page must be had alone, and somebody has it as well. He is not waited for here, with the slot busy: the fault starts over, as reader a tick later.
    pub(super) fn held(&self) -> FaultError {
        match self.scx.is_writer() {
            true => FaultError::Retry { addr: self.addr },
            false => FaultError::Object { addr: self.addr, errno: errno::EDEADLK },
        }
    }
    pub(super) fn soft(&self) -> bool {
        self.kind == FaultKind::SoftLock
    }
    /// Fails where the page `id` cannot be had at once, and the fault is not to wait.
    #[inline]
    pub(super) fn at_once(&self, id: Option<Identity>) -> Result<(), FaultError> {
        let there = |id| self.scx.db.lookup_shared_now(self.scx.cx, id).is_some();
        if self.quick && !id.is_some_and(there) {
            return Err(FaultError::Retry { addr: self.addr });
        }
        Ok(())
    }
    pub(super) fn no_memory(&self) -> FaultError {
        FaultError::NoMemory { addr: self.addr }
    }
    pub(super) fn page_error(&self, e: PageError) -> FaultError {
        match e {
            PageError::NoMemory { .. } => self.no_memory(),
            // A fresh number's name has no page: only a leftover of a free in progress can be met, and it goes by itself.
            PageError::Exists(_) => FaultError::Retry { addr: self.addr },
            PageError::ClaimRefused { .. } | PageError::NoVnode { .. } => {
                FaultError::Object { addr: self.addr, errno: e.errno() }
            }
        }
    }
    pub(super) fn vnode_error(&self, e: VnodeError) -> FaultError {
        match e {
            VnodeError::NoMemory { .. } => self.no_memory(),
            VnodeError::Deadlock { .. } => self.held(),
            e => FaultError::Object { addr: self.addr, errno: e.errno() },
        }
    }
    pub(super) fn swap_error(&self, e: &SwapError) -> FaultError {
        FaultError::Object { addr: self.addr, errno: e.errno() }
    }
    /// Loads the translation, with the stamp; the page stays locked for a soft lock, unless it is locked so often already that no more may be.
    pub(super) fn load(
        &self,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), FaultError> {
        if self.soft() && !page.may_leak() {
            return Err(FaultError::Object { addr: self.addr, errno: errno::EAGAIN });
        }
        let lock = if self.soft() { LoadFlags::LOCK } else { LoadFlags::empty() };
        let prot = if page.page().is_lent() { prot.read_only() } else { prot }; // I10
        match self.scx.hat.memload(
            self.scx.cx,
            self.addr,
            page,
            prot,
            flags | lock,
            Some(self.stamp),
        ) {
            Ok(Loaded::Done) => Ok(()),
            Ok(Loaded::Stale) => Err(FaultError::Retry { addr: self.addr }),
            Err(HatError::NoMemory { .. }) => Err(self.no_memory()),
            // Another thread's older translation is still there; its removal is under way.
            Err(HatError::Conflict { .. }) => Err(FaultError::Retry { addr: self.addr }),
            Err(HatError::OutOfRange { .. }) => {
                Err(FaultError::Object { addr: self.addr, errno: errno::EFAULT })
            }
            Err(e @ HatError::ForeignPage { .. }) => {
                Err(FaultError::Object { addr: self.addr, errno: e.errno() })
            }
        }
    }
}

#[doc(alias("segvn_fault", "uvm_fault"))]
pub(super) fn fault(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    match kind {
        FaultKind::SoftUnlock => {
            softlock::unlock(seg, scx, range, access);
            Ok(())
        }
        FaultKind::SoftLock => softlock::lock(seg, scx, range, access),
        _ if range.len() == PAGE_SIZE => fault_alone(seg, scx, range.start(), kind, access),
        _ => fault_each(seg, scx, range, kind, access),
    }
}

#[inline(never)]
fn fault_each(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    range.iter_pages().try_for_each(|addr| fault_at(seg, scx, addr, kind, access))
}

/// One page, however often it has to be looked at. As writer once: what is in the way needs the lock to get out of it.
pub(super) fn fault_at(
    seg: &SegVn,
    scx: &SegCx<'_>,
    addr: VirtAddr,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    let first = fault_page(seg, scx, addr, kind, access);
    if must_look_again(scx, &first) { fault_once_more(seg, scx, addr, kind, access) } else { first }
}

/// The same in one piece, for the fault on a page that a processor brings: nearly all of them.
#[inline]
fn fault_alone(
    seg: &SegVn,
    scx: &SegCx<'_>,
    addr: VirtAddr,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    let first = resolve(seg, scx, addr, kind, access);
    if must_look_again(scx, &first) { fault_once_more(seg, scx, addr, kind, access) } else { first }
}

#[inline]
fn must_look_again(scx: &SegCx<'_>, done: &Result<(), FaultError>) -> bool {
    matches!(done, Err(FaultError::Retry { .. })) && !scx.is_writer()
}

/// From the second look on, out of the way of all faults that need one.
#[cold]
fn fault_once_more(
    seg: &SegVn,
    scx: &SegCx<'_>,
    addr: VirtAddr,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    let mut turns: u32 = 0;
    loop {
        let done = fault_page(seg, scx, addr, kind, access);
        if !must_look_again(scx, &done) {
            return done;
        }
        // Once is what a fault brings about by itself. From then on somebody is changing the segment beside it, and may be waiting for this very processor.
        spin_wait(scx.cx, turns);
        turns = turns.saturating_add(1);
    }
}

#[inline(never)]
fn fault_page(
    seg: &SegVn,
    scx: &SegCx<'_>,
    addr: VirtAddr,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    resolve(seg, scx, addr, kind, access)
}

#[doc(alias = "segvn_faultpage")]
#[inline(always)] // into `fault_page`, and into the one fault in a piece
fn resolve(
    seg: &SegVn,
    scx: &SegCx<'_>,
    addr: VirtAddr,
    kind: FaultKind,
    access: Access,
) -> Result<(), FaultError> {
    let f = seg.look(scx, addr, kind, access)?;
    let locks = seg.locks_what_is_touched(scx);
    let absent =
        locks && seg.amap().is_none_or(|map| map.peek(seg.slot_of(scx.seg, addr)).is_none());
    let done = if seg.backing.is_some() && (seg.shared() || !f.break_cow) {
        file_first(seg, &f)
    } else {
        anon_first(seg, &f)
    };
    // held: as (reader, or as writer, when nothing is done that can wait). What follows asks for the segment's lock, so the slot is gone by now.
    // A page that was made is there also if its translation was not loaded: whoever starts over finds it.
    if locks && (absent || matches!(done, Ok(Found::Made))) {
        lock::lock_touched(seg, scx, addr);
    }
    let (given, read) = match done? {
        Found::Made => return Ok(()),
        Found::There(given) => (given, false),
        Found::Read(given) => (given, true),
    };
    if !f.access.is_write() && !f.soft() && !f.quick {
        look_around(seg, &f, given, read);
    }
    Ok(())
}

/// What a load brings along, and leaves behind.
#[inline(never)]
fn look_around(seg: &SegVn, f: &PageFault<'_>, given: Prot, read: bool) {
    seg.free_behind(f);
    if read {
        seg.read_kluster(f);
    }
    seg.map_neighbours(f, given);
}

/// Whether a fault found its page, had to read it from a file, or had to make it. Neighbours of a page that was there are worth a look; those of the file are mapped with
/// the rights at most that the file gave for this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    There(Prot),
    Read(Prot),
    Made,
}

/// Anonymous memory, and a store to a private file mapping: the slot is needed, and its chunk.
#[inline(always)] // with what it is called from
fn anon_first<'a>(seg: &'a SegVn, f: &PageFault<'a>) -> Result<Found, FaultError> {
    let Some(map) = seg.amap() else {
        seg.amap_or_make(f.scx);
        // Making the map may bump the number the stamp was taken of: look again.
        return Err(FaultError::Retry { addr: f.addr });
    };
    if seg.needs_copy() {
        return Err(FaultError::NotOwn { addr: f.addr });
    }
    let at = seg.slot_of(f.scx.seg, f.addr);
    let early = if mutated(Mutation::SlotReadEarly) { map.peek(at) } else { None };
    let slot = match map.enter_known(f.scx.cx, at) {
        Some(slot) => slot,
        None => map.enter_made(f.scx.cx, at).map_err(|_| f.no_memory())?,
    };
    match early.or_else(|| slot.get()) {
        Some(n) => seg.upper(f, &slot, n),
        None if seg.backing.is_some() => seg.promote(f, &slot),
        None => seg.zero_fill(f, &slot),
    }
}

/// A file mapping whose lower layer may be mapped as it is: no chunk is made for looking above.
#[inline(never)]
fn file_first(seg: &SegVn, f: &PageFault<'_>) -> Result<Found, FaultError> {
    if seg.shared() {
        return seg.map_lower(f);
    }
    let Some(map) = seg.amap() else { return seg.map_lower(f) };
    let f = PageFault { stamp: f.stamp.and(map.chunks_made()), ..*f };
    let at = seg.slot_of(f.scx.seg, f.addr);
    let slot = if map.is_joint() {
        Some(map.enter_or_make(f.scx.cx, at).map_err(|_| f.no_memory())?) // J2
    } else {
        map.enter(f.scx.cx, at)
    };
    match slot {
        None => seg.map_lower(&f),
        Some(slot) => {
            // The busy slot now says what the map's number said before, and that number may have moved on.
            let f = PageFault { stamp: f.stamp.without_second(), ..f };
            match slot.get() {
                Some(n) => seg.upper(&f, &slot, n),
                None => seg.map_lower(&f),
            }
        }
    }
}

impl SegVn {
    /// Whether a page that has just been made is to be locked in memory (`lock.rs`, what is touched later).
    #[inline]
    fn locks_what_is_touched(&self, scx: &SegCx<'_>) -> bool {
        self.noreserve() && self.backing.is_none() && scx.space.lock_future() && self.noted()
    }
    /// Reads what decides a fault on one page: stamp first, then rights and lock state.
    #[inline]
    pub(super) fn look<'a>(
        &'a self,
        scx: &'a SegCx<'a>,
        addr: VirtAddr,
        kind: FaultKind,
        access: Access,
    ) -> Result<PageFault<'a>, FaultError> {
        let stamp = Stamp::take(&self.seq);
        let (prot, claim) = self.page_state(scx, addr);
        if !prot.allows(access) {
            return Err(FaultError::Prot { addr, access });
        }
        // Without the right to write no later store can copy the page away from the i/o, and nothing is reserved for a copy.
        // In a slot of a joint map that somebody else reaches, he can (J3).
        let softlock = kind == FaultKind::SoftLock
            && ((access != Access::ReadNoCow && prot.contains(Prot::WRITE))
                || self.shares_slot(scx, self.slot_of(scx.seg, addr)));
        let break_cow = !self.stores_below() && (access == Access::Write || softlock);
        let quick = scx.is_writer();
        Ok(PageFault { scx, addr, kind, access, prot, stamp, break_cow, claim, quick })
    }
    /// Rights of one page, and whether it is locked in memory, since when; read after taking a stamp.
    #[inline]
    pub(super) fn page_state(&self, scx: &SegCx<'_>, addr: VirtAddr) -> (Prot, Option<Era>) {
        if self.vpaged.load(Ordering::SeqCst) == 0 {
            return (self.prot(), None);
        }
        self.own_state(scx, addr)
    }
    #[cold]
    fn own_state(&self, scx: &SegCx<'_>, addr: VirtAddr) -> (Prot, Option<Era>) {
        let own = self.lock.lock(scx.cx).vpage.get(addr.vpn());
        (own.prot.unwrap_or_else(|| self.prot()), own.claim)
    }
}
