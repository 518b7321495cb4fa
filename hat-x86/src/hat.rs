//! The translations of one address space.
//!
//! [`X86Hat`] is what an address space holds: the shared half ([`HatX86`]) and the state of this one. Every method has the same
//! shape, which is the whole locking discipline of the crate:
//!
//! ```text
//!   gather what may fail ─▶ lock a table ─▶ change entries, note what is owed ─▶ unlock ─▶ ... ─▶ flush ─▶ give tables back
//! ```
//!
//! - T1, T2 of [`addr_space::hat`] hold on return.
//! - The hat maps its window and nothing else: the lower half for a user's, [`KERNEL_WINDOW`] for the kernel's. Ranges are cut
//!   to it, loads outside it are refused.
//!
//! The verbs: loading in [`crate::load`] and [`crate::run`], ranges in [`crate::range`].
//!
//! Sources: [SI §12.2, §12.4]; illumos `vm/hat.h` (interface), `i86pc/vm/hat_i86.c` (behaviour); illumos.md 9.

use crate::geometry::KERNEL_WINDOW;
use crate::mmu::SpaceId;
use crate::provider::HatX86;
use crate::walk::Hint;
use addr_space::{
    Hat, HatError, LoadFlags, Loaded, RunLoaded, RunPage, Stamp, Translation, UnloadFlags,
};
use alloc::sync::Arc;
use core::fmt;
use page_db::heap::NoHeap;
use page_db::sync::PerCpu;
use page_db::sync::atomic::{AtomicU8, Ordering::SeqCst};
use page_db::{Access, Cx, LockedPage, Pfn, Prot, SyncMode, VirtAddr, VirtRange};

/// Its space is being left by the processors.
const LEAVING: u8 = 8;
/// Nothing runs in it any more (`HAT_FREEING`).
const FREEING: u8 = 1;
/// Its tables are being taken apart; nothing more is asked of it.
const ENDING: u8 = 2;
/// Its top table is about to be somebody else's frame.
const GONE: u8 = 4;

/// What the provider keeps of a hat.
#[derive(Debug)]
pub(crate) struct HatState {
    pub(crate) id: u32,
    pub(crate) window: VirtRange,
    /// Id of the top table; fixed.
    pub(crate) root: u32,
    flags: AtomicU8,
    /// The leaf each CPU used last.
    pub(crate) hints: PerCpu<Hint>,
}

impl HatState {
    pub(crate) fn new(id: u32, window: VirtRange, root: u32, hints: PerCpu<Hint>) -> Self {
        Self { id, window, root, flags: AtomicU8::new(0), hints }
    }
    /// What a hat is going to hold for each processor.
    pub(crate) fn make_hints(cpus: u16) -> Result<PerCpu<Hint>, NoHeap> {
        PerCpu::try_new(cpus, |_| Ok(Hint::default()))
    }
    pub(crate) fn space(&self) -> SpaceId {
        SpaceId(self.id)
    }
    pub(crate) fn is_user(&self) -> bool {
        self.window != KERNEL_WINDOW
    }
    pub(crate) fn is_freeing(&self) -> bool {
        self.flags.load(SeqCst) & FREEING != 0
    }
    pub(crate) fn is_ending(&self) -> bool {
        self.flags.load(SeqCst) & ENDING != 0
    }
    pub(crate) fn is_gone(&self) -> bool {
        self.flags.load(SeqCst) & GONE != 0
    }
    /// Says whether this is the first time.
    pub(crate) fn begin_to_leave(&self) -> bool {
        self.flags.fetch_or(LEAVING, SeqCst) & LEAVING == 0
    }
    /// No processor is in it, and none gets in.
    pub(crate) fn begin_to_go(&self) {
        self.flags.fetch_or(FREEING, SeqCst);
    }
    /// Says whether this is the first time.
    pub(crate) fn begin_to_end(&self) -> bool {
        self.flags.fetch_or(ENDING, SeqCst) & ENDING == 0
    }
    pub(crate) fn go(&self) {
        self.flags.fetch_or(GONE, SeqCst);
    }
    /// The part of a range this hat may map.
    pub(crate) fn cut(&self, range: VirtRange) -> Option<VirtRange> {
        if self.is_ending() { None } else { self.window.intersect(range) }
    }
    /// Whether `addr` is this hat's to map.
    pub(crate) fn owns(&self, addr: VirtAddr) -> bool {
        self.window.contains(addr) && !self.is_ending()
    }
}

/// A hat over x86-64 page tables.
#[doc(alias = "struct hat")]
pub struct X86Hat {
    hx: Arc<HatX86>,
    st: Arc<HatState>,
}

impl X86Hat {
    pub(crate) fn new(hx: Arc<HatX86>, st: Arc<HatState>) -> Self {
        Self { hx, st }
    }
}

impl fmt::Debug for X86Hat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X86Hat")
            .field("id", &self.st.id)
            .field("window", &self.st.window)
            .finish_non_exhaustive()
    }
}

impl Hat for X86Hat {
    fn id(&self) -> u32 {
        self.st.id
    }
    #[doc(alias = "hati_pte_map")]
    fn memload(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        self.hx.memload(cx, &self.st, addr, page, prot, flags, stamp)
    }
    fn memload_run(
        &self,
        cx: &Cx,
        addr: VirtAddr,
        pages: &[Option<RunPage<'_>>],
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> RunLoaded {
        self.hx.memload_run(cx, &self.st, addr, pages, flags, stamp)
    }
    fn devload(
        &self,
        cx: &Cx,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        flags: LoadFlags,
    ) -> Result<(), HatError> {
        self.hx.devload(cx, &self.st, range, pfn, prot, flags)
    }
    fn unload(&self, cx: &Cx, range: VirtRange, flags: UnloadFlags) {
        if let Some(range) = self.st.cut(range) {
            self.hx.unload_state(cx, &self.st, range, flags);
        }
    }
    fn unlock(&self, cx: &Cx, range: VirtRange) {
        if let Some(range) = self.st.cut(range) {
            self.hx.unlock_range(cx, &self.st, range);
        }
    }
    fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) {
        let Some(range) = self.st.cut(range) else { return };
        if prot.intersects(Prot::RWX) {
            self.hx.chg_prot_range(cx, &self.st, range, prot);
        } else {
            self.hx.unload_state(cx, &self.st, range, UnloadFlags::empty());
        }
    }
    fn clear_write(&self, cx: &Cx, range: VirtRange) {
        if let Some(range) = self.st.cut(range) {
            self.hx.clear_write_range(cx, &self.st, range);
        }
    }
    fn sync(&self, cx: &Cx, range: VirtRange, mode: SyncMode) {
        if let Some(range) = self.st.cut(range) {
            self.hx.sync_range(cx, &self.st, range, mode);
        }
    }
    fn probe(&self, cx: &Cx, addr: VirtAddr) -> Option<Translation> {
        self.hx.translate(cx, &self.st, addr)
    }
    fn settle(&self, cx: &Cx) {
        if self.hx.debts.any() {
            self.hx.pay_for_others_in(cx, &self.st);
        }
    }
    fn allows(&self, cx: &Cx, addr: VirtAddr, access: Access) -> bool {
        self.st.owns(addr) && self.hx.entry_allows(cx, &self.st, addr, access)
    }
    fn walk(&self, cx: &Cx, range: VirtRange, f: &mut dyn FnMut(VirtAddr, Translation)) {
        if let Some(range) = self.st.cut(range) {
            self.hx.walk_range(cx, &self.st, range, f);
        }
    }
    fn rights(&self, cx: &Cx, range: VirtRange, out: &mut [Prot]) {
        out.fill(Prot::empty());
        if let Some(inside) = self.st.cut(range) {
            self.hx.rights_range(cx, &self.st, range, inside, out);
        }
    }
    fn resident(&self) -> u64 {
        if self.st.is_ending() { 0 } else { self.hx.resident_of(&self.st) }
    }
    fn free_start(&self, cx: &Cx) {
        if self.st.is_user() {
            self.hx.begin_to_end(cx, &self.st);
        }
    }
    fn free_end(&self, cx: &Cx) {
        if self.st.is_user() {
            self.hx.end(cx, &self.st);
        }
    }
}
