//! Watchpoints: bytes of an address space that a debugger wants to hear of before, or after, they are touched.
//!
//! # The difficulty
//!
//! The hardware watches pages, a debugger bytes; and what the hardware watches with, rights that are missing, is what segments give rights with. If a
//! watch took the rights away from the *segment*, it would split it, move the claims of locked pages, give a reservation back and perhaps not get it again,
//! and everybody who asks for a page's rights would have to be told those it would have. And a thread that stores next to a watched byte must go on.
//!
//! # The rule
//!
//! Rights are taken from *translations*, between the drivers and the hat. The segments know nothing of it: what they say of a page is what it would have.
//!
//! ```text
//!   driver ── memload(page, rw-) ──▶ watched? ─ no ──▶ hat
//!                                       │ yes: less the rights that its watches take
//!                                       ▼
//!                                      hat      w      takes w                        r-- is loaded
//!                                               r, x   take everything                nothing is loaded
//!
//!   an access traps ──▶ the segment does not allow it      ─▶ as ever: SIGSEGV, or a fault
//!                   ──▶ its first watched byte is b        ─▶ the bytes before b are moved, then SIGTRAP at b
//!                   ──▶ none of its bytes is watched       ─▶ they are moved
//! ```
//!
//! "Moved" is done by the system: the driver resolves a fault, and what it would have loaded into the tables it hands over page and all, locked, for the
//! bytes to be moved there and then ([`crate::AddrSpace::access_watched`]). So no translation with the rights taken exists at any moment, and no other thread
//! of the process can slip past a watch while one is let through, nor need any be stopped meanwhile.
//!
//! # Invariants
//!
//! - W1: no translation of a page has a right that a watch on it takes.
//! - W2: areas are disjoint, not empty, and in order of address. They change under the address-space lock as writer.
//! - W3: an address space without areas never looks for one: one flag says so.
//!
//! A watch stays when what it lies over is unmapped, protected or mapped anew: it is on addresses. A child of fork and a program that is executed have an
//! address space of their own, without any. Pages pinned for i/o keep the watches they have: their translations are counted by the hat.
//!
//! # The other road
//!
//! The textbook keeps a tree of watched pages with the rights they have and would have (`wp_prot`, `wp_oprot`), takes the rights away with `SEGOP_SETPROT`,
//! and gives them back around protect and fork; a page let through is given back for a moment, with the process's other threads stopped. Its tree of
//! pages is here a list of areas: a watched terabyte is one of them.
//!
//! Sources: illumos.md 3.7; illumos `vm/vm_as.c`, `os/watchpoint.c` (behaviour), proc(5) `PCWATCH`.

use crate::hat::{Hat, HatError, LoadFlags, Loaded, Stamp, Translation, UnloadFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::atomic::{AtomicBool, Ordering};
use page_db::sync::{Mutex, Once, Published};
use page_db::{
    Access, Cx, LockedPage, PAGE_MASK, PAGE_SIZE, Pfn, PhysMem, Prot, Rank, RefMod, SyncMode,
    VirtAddr, VirtRange, WaitHooks, errno,
};

bitflags::bitflags! {
    /// What a watch waits for.
    #[doc(alias("WA_READ", "WA_WRITE", "WA_EXEC", "WA_TRAPAFTER"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct WatchFlags: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
        /// The trap comes when the access has been made.
        const AFTER = 8;
    }
}

impl WatchFlags {
    /// Whether `access` is waited for.
    pub fn wait_for(self, access: Access) -> bool {
        self.contains(match access {
            Access::Write | Access::Create => Self::WRITE,
            Access::Exec => Self::EXEC,
            Access::Read | Access::ReadNoCow | Access::Other => Self::READ,
        })
    }
    /// The rights that are taken from the translations of watched pages: loads cannot be told from fetches by a right of their own.
    fn takes(self) -> Prot {
        match self {
            f if f.intersects(Self::READ | Self::EXEC) => Prot::RWX,
            f if f.contains(Self::WRITE) => Prot::WRITE,
            _ => Prot::empty(),
        }
    }
}

/// Watched bytes.
#[doc(alias("struct watched_area", "prwatch_t"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchArea {
    /// The first byte.
    pub start: VirtAddr,
    /// How many; not 0.
    pub len: u64,
    /// What for.
    pub flags: WatchFlags,
}

impl WatchArea {
    fn end(&self) -> u64 {
        self.start.get().saturating_add(self.len)
    }
}

/// Where an access meets a watch.
#[doc(alias = "pr_is_watchpoint")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchHit {
    /// The watch.
    pub area: WatchArea,
    /// The first byte that is watched.
    pub first: VirtAddr,
    /// How many bytes of the access it watches from there on.
    pub bytes: u64,
}

/// Why a watch is not set or taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchError {
    /// No bytes, nothing to wait for, or not addresses that can be mapped here.
    #[error("{len:#x} bytes at {start:#x} cannot be watched")]
    Invalid {
        /// First byte.
        start: u64,
        /// Bytes.
        len: u64,
    },
    /// Another watch is on some of the bytes. The same bytes may be watched for something else: that replaces the watch.
    #[error("{start} is watched already")]
    Overlap {
        /// First byte of the other.
        start: VirtAddr,
    },
    /// There is no such watch.
    #[error("{start} has no such watch")]
    NotFound {
        /// First byte.
        start: VirtAddr,
    },
}

impl WatchError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Invalid { .. } | Self::Overlap { .. } => errno::EINVAL,
            Self::NotFound { .. } => errno::ESRCH,
        }
    }
}

/// The areas, in order (W2). A new list takes the place of the old one whole.
#[derive(Default)]
pub(crate) struct Areas(Vec<WatchArea>);

impl Areas {
    pub(crate) fn list(&self) -> &[WatchArea] {
        &self.0
    }
    /// Those that have bytes in `[start, end)`.
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = &WatchArea> {
        let first = self.0.partition_point(|a| a.end() <= start);
        self.0[first..].iter().take_while(move |a| a.start.get() < end)
    }
    /// A copy with room for one more; `None` without heap.
    fn copy(&self) -> Option<Self> {
        let mut all = Vec::new();
        all.try_reserve_exact(self.0.len() + 1).ok()?;
        all.extend_from_slice(&self.0);
        Some(Self(all))
    }
    /// These and `new`, which may replace a watch on the very same bytes. The inner `None`: no heap.
    pub(crate) fn with(&self, new: WatchArea) -> Result<Option<Self>, WatchError> {
        let Some(mut all) = self.copy() else { return Ok(None) };
        let other = self.overlapping(new.start.get(), new.end()).next();
        match other {
            Some(o) if (o.start, o.len) != (new.start, new.len) => {
                return Err(WatchError::Overlap { start: o.start });
            }
            Some(_) => all.0.retain(|a| a.start != new.start),
            None => {}
        }
        let at = all.0.partition_point(|a| a.start < new.start);
        all.0.insert(at, new);
        Ok(Some(all))
    }
    /// These without the watch on exactly these bytes.
    pub(crate) fn without(&self, start: VirtAddr, len: u64) -> Result<Option<Self>, WatchError> {
        let Some(mut all) = self.copy() else { return Ok(None) };
        all.0.retain(|a| (a.start, a.len) != (start, len));
        if all.0.len() == self.0.len() {
            Err(WatchError::NotFound { start })
        } else {
            Ok(Some(all))
        }
    }
    /// Rights taken from the page at `addr`, and the end of the pages up to `end` from which the same are taken.
    fn taken_at(&self, addr: u64, end: u64) -> (Prot, u64) {
        let next_page = (addr & !PAGE_MASK).saturating_add(PAGE_SIZE);
        let mut taken = Prot::empty();
        for area in self.overlapping(addr & !PAGE_MASK, next_page) {
            taken |= area.flags.takes();
            if area.start.get() <= addr && area.end() >= next_page {
                return (taken, end.min(area.end() & !PAGE_MASK)); // alone on all of these pages (W2)
            }
        }
        if !taken.is_empty() {
            return (taken, end.min(next_page));
        }
        let next = self.overlapping(next_page, end).next();
        (taken, next.map_or(end, |a| end.min(a.start.get() & !PAGE_MASK)).max(next_page))
    }
    /// Rights taken from the translation of the page at `addr`.
    pub(crate) fn taken(&self, addr: VirtAddr) -> Prot {
        self.taken_at(addr.get(), u64::MAX).0
    }
    /// Calls `f` with each run of pages of `range`, and what is taken from them.
    pub(crate) fn runs(&self, range: VirtRange, mut f: impl FnMut(VirtRange, Prot)) {
        let mut at = range.start().get();
        while at < range.end() {
            let (taken, until) = self.taken_at(at, range.end());
            let Ok(run) = VirtRange::exact(at, until.min(range.end()) - at) else { return };
            f(run, taken);
            at = run.end();
        }
    }
    /// Where an access of `len` bytes at `addr` meets a watch that waits for it first.
    pub(crate) fn hit(&self, addr: VirtAddr, len: u64, access: Access) -> Option<WatchHit> {
        let end = addr.get().saturating_add(len);
        let area = self.overlapping(addr.get(), end).find(|a| a.flags.wait_for(access)).copied()?;
        let first = area.start.max(addr);
        Some(WatchHit { area, first, bytes: end.min(area.end()) - first.get() })
    }
}

/// The watches of an address space.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Whether there are areas (W3).
    armed: AtomicBool,
    /// Made by the first watch, and kept.
    hat: Once<WatchHat>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { armed: AtomicBool::new(false), hat: Once::new() }
    }
    /// The hat that drivers are to use while there are areas.
    #[inline]
    pub(crate) fn hat(&self) -> Option<&WatchHat> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        self.hat.get()
    }
    /// The areas now.
    pub(crate) fn areas(&self) -> Option<Arc<Areas>> {
        self.hat().map(|hat| hat.areas.load())
    }
    /// Puts other areas in force. The caller holds the address-space lock as writer.
    pub(crate) fn set(&self, areas: Areas, hat: &Arc<dyn Hat>, hooks: &Arc<dyn WaitHooks>) {
        let armed = !areas.0.is_empty();
        let none = || Published::new(hooks, Areas::default());
        let make = || WatchHat { hat: Arc::clone(hat), areas: none() };
        self.hat.get_or_init(make).areas.store(areas);
        self.armed.store(armed, Ordering::Release);
    }
}

/// A hat that loads less than it is told to, where pages are watched.
pub(crate) struct WatchHat {
    hat: Arc<dyn Hat>,
    areas: Published<Areas>,
}

impl fmt::Debug for WatchHat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let areas = self.areas.load();
        f.debug_struct("WatchHat").field("hat", &self.hat).field("areas", &areas.list()).finish()
    }
}

/// What a hat does that does not give rights.
macro_rules! as_the_inner_hat {
    () => {
        fn id(&self) -> u32 {
            self.hat.id()
        }
        fn unload(&self, cx: &Cx, range: VirtRange, flags: UnloadFlags) {
            self.hat.unload(cx, range, flags);
        }
        fn unlock(&self, cx: &Cx, range: VirtRange) {
            self.hat.unlock(cx, range);
        }
        fn clear_write(&self, cx: &Cx, range: VirtRange) {
            self.hat.clear_write(cx, range);
        }
        fn sync(&self, cx: &Cx, range: VirtRange, mode: SyncMode) {
            self.hat.sync(cx, range, mode);
        }
        fn probe(&self, cx: &Cx, addr: VirtAddr) -> Option<Translation> {
            self.hat.probe(cx, addr)
        }
        fn settle(&self, cx: &Cx) {
            self.hat.settle(cx);
        }
        fn walk(&self, cx: &Cx, range: VirtRange, f: &mut dyn FnMut(VirtAddr, Translation)) {
            self.hat.walk(cx, range, f);
        }
        fn rights(&self, cx: &Cx, range: VirtRange, out: &mut [Prot]) {
            self.hat.rights(cx, range, out);
        }
        fn resident(&self) -> u64 {
            self.hat.resident()
        }
        fn free_start(&self, cx: &Cx) {
            self.hat.free_start(cx);
        }
        fn free_end(&self, cx: &Cx) {
            self.hat.free_end(cx);
        }
    };
}

/// As the trait has it, page by page: runs are for speed, and rights differ from page to page here.
impl Hat for WatchHat {
    as_the_inner_hat!();
    fn memload(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        let prot = prot.difference(self.areas.load().taken(addr));
        if prot.intersects(Prot::RWX) {
            return self.hat.memload(cx, addr, page, prot, flags, stamp);
        }
        // Nothing is left to load (W1), and whoever loads may forget at any time (T2).
        Ok(if stamp.is_none_or(|s| s.is_current()) { Loaded::Done } else { Loaded::Stale })
    }
    fn devload(
        &self,
        cx: &Cx,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), HatError> {
        let mut done = Ok(());
        self.areas.load().runs(range, |run, taken| {
            let (prot, pfn) = (prot.difference(taken), Pfn(pfn.0 + range.page_index(run.start())));
            if done.is_ok() && prot.intersects(Prot::RWX) {
                done = self.hat.devload(cx, run, pfn, prot, flags);
            }
        });
        done
    }
    fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) {
        self.areas.load().runs(range, |run, taken| {
            self.hat.chg_prot(cx, run, prot.difference(taken));
        });
    }
}

/// The bytes of an access that the system makes for a thread.
#[derive(Debug)]
pub enum Moved<'a> {
    /// A load fills them.
    Load(&'a mut [u8]),
    /// A fetch fills them.
    Fetch(&'a mut [u8]),
    /// A store takes them.
    Store(&'a [u8]),
}

impl Moved<'_> {
    /// The same once more, for a pass that may have to be followed by another.
    pub(crate) fn again(&mut self) -> Moved<'_> {
        match self {
            Self::Load(b) => Moved::Load(b),
            Self::Fetch(b) => Moved::Fetch(b),
            Self::Store(b) => Moved::Store(b),
        }
    }
    /// What is attempted.
    pub fn access(&self) -> Access {
        match self {
            Self::Load(_) => Access::Read,
            Self::Fetch(_) => Access::Exec,
            Self::Store(_) => Access::Write,
        }
    }
    /// How many.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Load(b) | Self::Fetch(b) => b.len() as u64,
            Self::Store(b) => b.len() as u64,
        }
    }
}

/// A hat for one fault, which moves the bytes where it would load their translation.
pub(crate) struct MoveHat<'a> {
    hat: &'a dyn Hat,
    mem: &'a dyn PhysMem,
    at: VirtAddr,
    access: Access,
    bytes: Mutex<Moved<'a>>,
    done: AtomicBool,
}

impl<'a> MoveHat<'a> {
    pub(crate) fn new(
        hat: &'a dyn Hat,
        mem: &'a dyn PhysMem,
        at: VirtAddr,
        bytes: Moved<'a>,
    ) -> Self {
        let access = bytes.access();
        let (bytes, done) = (Mutex::new(Rank::Registry, bytes), AtomicBool::new(false));
        Self { hat, mem, at, access, bytes, done }
    }
    /// Whether the bytes have been moved.
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
    fn here(&self, page: VirtAddr) -> bool {
        self.at.page_floor() == page
    }
    /// Moves the bytes, once: a driver may load a page twice.
    fn move_bytes(&self, cx: &Cx, pfn: Pfn) {
        let at = self.at.page_offset() as usize;
        if !self.done.swap(true, Ordering::AcqRel) {
            match &mut *self.bytes.lock_leaf(&**cx.hooks()) {
                Moved::Load(bytes) | Moved::Fetch(bytes) => self.mem.read(pfn, at, bytes),
                Moved::Store(bytes) => self.mem.write(pfn, at, bytes),
            }
        }
    }
}

impl fmt::Debug for MoveHat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, done) = (self.at, self.is_done());
        f.debug_struct("MoveHat").field("at", &at).field("done", &done).finish_non_exhaustive()
    }
}

impl Hat for MoveHat<'_> {
    as_the_inner_hat!();
    fn memload(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        if !self.here(addr) {
            return self.hat.memload(cx, addr, page, prot, flags, stamp);
        }
        if stamp.is_some_and(|s| !s.is_current()) {
            return Ok(Loaded::Stale);
        }
        if prot.allows(self.access) {
            let stores = if self.access.is_write() { RefMod::MOD } else { RefMod::empty() };
            self.move_bytes(cx, page.pfn());
            page.page().set_ref_mod(RefMod::REF | stores); // after the store
        }
        Ok(Loaded::Done)
    }
    fn devload(
        &self,
        cx: &Cx,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), HatError> {
        if !range.contains(self.at) {
            return self.hat.devload(cx, range, pfn, prot, flags);
        }
        let pfn = Pfn(pfn.0 + range.page_index(self.at));
        if self.mem.has(pfn) && prot.allows(self.access) {
            self.move_bytes(cx, pfn);
        }
        Ok(())
    }
    fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) {
        self.hat.chg_prot(cx, range, prot);
    }
}
