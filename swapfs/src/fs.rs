//! The file system of pages without a file: numbers, places, areas and promises under one roof.

use crate::area::PhysSlot;
use crate::device::{DeviceError, DeviceOp};
use crate::error::SwapError;
use crate::name::{AnonNumber, Names, Place};
use crate::removal::{Removals, RemovalsSeen};
use crate::reserve::{Ledger, minfree_for, reserve_for};
use crate::space::Space;
use crate::sweep::Sweep;
use crate::vnode::SwapVnode;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::{Mutation, Mutex, mutated};
use page_db::{
    Cx, FailKind, Identity, LockedPage, PageDb, Pfn, PhysMem, Rank, VnodeId, VnodeKind, errno,
};

/// How to build a [`SwapFs`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwapConfig {
    /// Processors: sizes the per-CPU arrays.
    pub cpus: u16,
    /// `swapfs_minfree` in pages, or the rule of [`minfree_for`].
    pub minfree: Option<u64>,
    /// `swapfs_reserve` in pages, or the rule of [`reserve_for`].
    pub reserve: Option<u64>,
    /// Anon numbers at most.
    pub max_names: u32,
    /// Pages taken from one area before the next of its priority has its turn (`swap_maxcontig`).
    pub max_contig: u32,
    /// Pages that go out in one transfer at most (`klustsize`).
    pub cluster: u32,
}

impl Default for SwapConfig {
    fn default() -> Self {
        Self {
            cpus: 1,
            minfree: None,
            reserve: None,
            max_names: u32::MAX - 1,
            max_contig: 256,
            cluster: 16,
        }
    }
}

/// Swap; see the crate's theory.
pub struct SwapFs {
    me: Weak<Self>,
    db: Arc<PageDb>,
    names: Names,
    space: Space,
    ledger: Ledger,
    /// Pushes held back until a cluster is full.
    pub(crate) pushes: Mutex<Vec<AnonNumber>>,
    /// Removals of areas: they make pages of anons that they hold no reference on.
    pub(crate) removals: Removals,
    /// The search for slots of pages in memory.
    pub(crate) sweeps: Sweep,
    pub(crate) cluster: usize,
}

impl fmt::Debug for SwapFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SwapFs")
            .field("names", &self.names)
            .field("books", &self.info())
            .finish_non_exhaustive()
    }
}

impl SwapFs {
    /// Swap for the machine of `db`, without an area yet: promises are backed by memory until one is added.
    ///
    /// # Errors
    /// [`SwapError::NoHeap`].
    pub fn new(cx: &Cx, db: &Arc<PageDb>, config: SwapConfig) -> Result<Arc<Self>, SwapError> {
        let total = db.free_mem().total();
        let ledger = Ledger::new(
            config.minfree.unwrap_or_else(|| minfree_for(total)),
            config.reserve.unwrap_or_else(|| reserve_for(total)),
            db.hooks(),
        );
        let fs = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            db: Arc::clone(db),
            names: Names::new(config.cpus, config.max_names),
            space: Space::new(config.max_contig, db.hooks()),
            ledger,
            pushes: Mutex::new(Rank::SwapNames, Vec::new()),
            removals: Removals::default(),
            sweeps: Sweep::new(),
            cluster: config.cluster.max(1) as usize,
        });
        fs.names.first_vnode(cx, |i| fs.make_vnode(cx, i))?;
        Ok(fs)
    }
    fn make_vnode(&self, cx: &Cx, index: u32) -> Result<Arc<SwapVnode>, SwapError> {
        let table = self.db.vnodes();
        let id = table
            .register(cx, VnodeKind::Swap)
            .map_err(|_| SwapError::NoHeap { what: "a swap vnode" })?;
        let vnode = Arc::new(SwapVnode::new(Weak::clone(&self.me), id, index));
        let object: Weak<SwapVnode> = Arc::downgrade(&vnode);
        let attached = table.attach(id, object);
        debug_assert!(attached, "N2: a number just handed out has no other object");
        Ok(vnode)
    }
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    /// The page database.
    pub fn db(&self) -> &Arc<PageDb> {
        &self.db
    }

    /// Hands out a name. It has no page and no slot; its bytes read as zeros. The caller holds a reservation for it.
    ///
    /// # Errors
    /// [`SwapError::NoNames`], [`SwapError::NoHeap`].
    #[doc(alias("anon_alloc", "swap_alloc"))]
    pub fn alloc(&self, cx: &Cx) -> Result<AnonNumber, SwapError> {
        self.alloc_named(cx).map(|(n, _)| n)
    }
    /// [`SwapFs::alloc`] that also says the name of the number's page.
    ///
    /// # Errors
    /// As [`SwapFs::alloc`].
    #[inline]
    pub fn alloc_named(&self, cx: &Cx) -> Result<(AnonNumber, Identity), SwapError> {
        if cx.fails(FailKind::Anon) {
            return Err(SwapError::NoNames { live: self.live() });
        }
        self.names.alloc(cx, |index| self.make_vnode(cx, index))
    }
    /// Ends a name: its slot, or the loan of what it has borrowed, then its number. The caller has destroyed the page, or there is none, and nobody refers to the anon.
    ///
    /// # Locks
    /// No page lock held.
    #[doc(alias = "swap_free")]
    pub fn free(&self, cx: &Cx, n: AnonNumber) {
        self.free_run(cx, &[n], RemovalsSeen::default());
    }
    /// What has become of removals of areas until now; asked before the pages of anons that are to be freed are destroyed (W6).
    pub fn removals_seen(&self) -> RemovalsSeen {
        self.removals.seen()
    }
    /// Ends names as [`SwapFs::free`] does, in order, the numbers going back together. What was known of removals before their pages were destroyed spares
    /// a second search for them; a page that is found is waited for, as long as it is on its way out.
    ///
    /// # Locks
    /// No page lock held.
    pub fn free_run(&self, cx: &Cx, dead: &[AnonNumber], since: RemovalsSeen) {
        let mut from = 0;
        for (i, n) in dead.iter().enumerate() {
            let was = self.names.kill(*n);
            debug_assert!(was != Place::Dead, "W4: an anon is freed once");
            if was == Place::Dead {
                // The number is not this caller's to give back; those before and behind it are.
                self.names.free_run(cx, &dead[from..i]);
                from = i + 1;
                continue;
            }
            let late = mutated(Mutation::SlotBeforePage);
            if !late {
                self.end_page(cx, *n, since);
            }
            match was {
                Place::At(slot) => self.space.free(cx, slot),
                Place::Bad(slot) => self.lose(cx, slot),
                Place::Borrowed(lender) => self.db.unlend(cx, lender),
                Place::Nowhere | Place::Dead => {}
            }
            if late {
                self.end_page(cx, *n, since);
            }
        }
        self.names.free_run(cx, &dead[from..]);
    }
    /// Destroys the page of a name just killed, if a removal has made one since the caller looked.
    fn end_page(&self, cx: &Cx, n: AnonNumber, since: RemovalsSeen) {
        // The removal may be reading the name's slot right now, and looks at the word again when it has; or it is done, and page-out is writing the page
        // to a slot of another area, the one that `kill` has found. Until the page is gone neither slot nor number may be used again (W6).
        if self.removals.may_have_made_pages(since)
            && !mutated(Mutation::RemovalUnseen)
            && let Some(page) = self.db.lookup_excl(cx, self.identity(n))
        {
            self.db.destroy(cx, page);
        }
    }
    /// The name of an anon's page: arithmetic, and the vnode's number. A number never handed out gets a name that no page has.
    #[doc(alias("swap_xlate", "an_vp", "an_off"))]
    #[inline]
    pub fn identity(&self, n: AnonNumber) -> Identity {
        self.names.identity(n)
    }
    /// The anon whose page is named `id`, live or not; `None` when that is no swap name.
    #[doc(alias("swap_anon", "anon_hash", "an_hash"))]
    pub fn number_of(&self, id: Identity) -> Option<AnonNumber> {
        self.names.number_of(id)
    }
    /// Whether the number is handed out.
    pub fn is_live(&self, n: AnonNumber) -> bool {
        self.names.place(n) != Place::Dead
    }
    /// Numbers handed out; exact when nothing runs.
    pub fn live(&self) -> u64 {
        self.names.live()
    }
    /// The largest number ever handed out, 0 before the first. With several CPUs some smaller numbers may never have been.
    pub fn high(&self) -> u32 {
        self.names.high()
    }
    /// The live numbers, ascending.
    pub fn live_numbers(&self) -> impl Iterator<Item = AnonNumber> + '_ {
        self.names.walk(0).map(|(n, _)| n)
    }
    /// Where the anon's bytes are when its page is not in memory. A hint unless the page is locked.
    pub fn place(&self, n: AnonNumber) -> Place {
        self.names.place(n)
    }
    /// The anon's slot, if it has one. A hint unless the page is locked.
    #[doc(alias = "swap_getphysname")]
    pub fn slot(&self, _cx: &Cx, n: AnonNumber) -> Option<PhysSlot> {
        self.names.place(n).slot()
    }
    /// Reads a slot into the frame `to` of whatever memory, past plans and books: for views of what is not in memory.
    ///
    /// # Errors
    /// The device's.
    pub fn look(
        &self,
        cx: &Cx,
        slot: PhysSlot,
        to: Pfn,
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        let areas = self.space.areas();
        let gone =
            DeviceError { op: DeviceOp::Open, page: u64::from(slot.index), errno: errno::ENXIO };
        let area = areas.get(slot.area).ok_or(gone)?;
        area.device().read(cx, area.start() + u64::from(slot.index), to, mem)
    }
    /// The swap vnodes made so far, in order of making.
    #[doc(alias = "swapfs_getvp")]
    pub fn vnodes(&self) -> impl Iterator<Item = VnodeId> + '_ {
        (0..self.names.vnodes_made()).filter_map(|i| Some(self.names.vnode(i)?.id))
    }
    /// Gives up the slot of the anon whose page is `page`, locked either way; says whether there was one. The caller marks the page modified if so (W3). A page
    /// on its way out keeps its slot, as does one that is not the anon's: the answer is `false`.
    #[doc(alias("anon_swap_free", "swap_phys_free"))]
    pub fn free_slot(&self, cx: &Cx, n: AnonNumber, page: &dyn LockedPage) -> bool {
        let Place::At(slot) = self.names.place(n) else { return false };
        if !page.page().is(self.identity(n)) {
            return false;
        }
        // W1: a write-out that has the page shared, too, has the i/o lock, and may be going to write where the page was stored before.
        let looks = mutated(Mutation::SlotFreedByALook);
        let busy = if looks { self.db.is_io_locked(page.id()) } else { !self.db.io_trylock(page) };
        if busy {
            return false;
        }
        let ours = self.names.change(n, Place::At(slot), Place::Nowhere);
        if !looks {
            self.db.io_unlock(page.id());
        }
        if ours {
            self.space.free(cx, slot);
        }
        ours
    }
}
