//! Vnodes: who a page belongs to, and who moves it in and out.
//!
//! A page's name is an [`Identity`], the pair (vnode, offset). The page layer knows vnodes by number only: the table in
//! here keeps, for each number, the head of the vnode's page list and a way back to the object for page-out. File
//! systems, swapfs and the kernel implement [`Vnode`].
//!
//! - N1: a number is in use from [`VnodeTable::register`] to [`VnodeTable::retire`], and is retired only once, with an empty page list, when its object is
//!   gone. So of two objects that live never two have one number.
//! - N2: the object is held weakly: the table never keeps a file alive.
//! - N3: only a number in use names pages: whoever adds one to a vnode's list looks, under the list's lock, whether the number is still in use. A number means nothing in another database, so whoever keeps an object to get pages from asks first whether it is
//!   this one's ([`VnodeTable::is_object`]).

use crate::access::{Access, Prot};
use crate::cx::{Cx, WaitHooks};
use crate::db::PageDb;
use crate::error::VnodeError;
use crate::lock::Rank;
use crate::selock::{ExclPage, SharedPage};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Arena, ArenaFull, Mutex, SpinMutex};
use crate::units::FileOffset;
use crate::vnode_pages::VnodePages;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::fmt;

/// A vnode's number: small, in order of creation, reused only after [`VnodeTable::retire`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct VnodeId(pub u32);

impl fmt::Display for VnodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The name of a page: which vnode, and where in it. The offset is a multiple of the page size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct Identity {
    /// Whose page.
    pub vnode: VnodeId,
    /// Byte offset of the page's first byte.
    pub offset: FileOffset,
}

impl Identity {
    /// The page of `vnode` that holds byte `offset` (rounds down).
    pub const fn new(vnode: VnodeId, offset: FileOffset) -> Self {
        Self { vnode, offset: offset.page_floor() }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}, {}>", self.vnode, self.offset)
    }
}

/// What kind of thing a vnode stands for; decides a page's row in `::memstat`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize)]
#[repr(u32)]
pub enum VnodeKind {
    /// A file.
    #[default]
    File = 0,
    /// A file being run (`VVMEXEC`).
    Exec = 1,
    /// One of swapfs's pseudo vnodes (`IS_SWAPFSVP`).
    Swap = 2,
    /// The kernel's pages (`kvp`).
    Kernel = 3,
    /// A device.
    Device = 4,
}

impl VnodeKind {
    fn from_word(w: u32) -> Self {
        match w {
            1 => Self::Exec,
            2 => Self::Swap,
            3 => Self::Kernel,
            4 => Self::Device,
            _ => Self::File,
        }
    }
}

bitflags::bitflags! {
    /// How pages are to be put (`B_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PutFlags: u8 {
        /// Start the writes and do not wait; pages that would have to be waited for are skipped.
        #[doc(alias = "B_ASYNC")]
        const ASYNC = 1;
        /// Free the pages afterwards: clean ones go to the cache list.
        #[doc(alias = "B_FREE")]
        const FREE = 2;
        /// Destroy the pages afterwards: they lose their identity.
        #[doc(alias = "B_INVAL")]
        const INVAL = 4;
        /// With `FREE`: the pages will not be wanted soon; head of the cache list.
        #[doc(alias = "B_DONTNEED")]
        const DONTNEED = 8;
        /// Drop contents without writing them (truncation).
        #[doc(alias = "B_TRUNC")]
        const TRUNC = 16;
        /// Act even on pages locked in memory (truncation, swap removal).
        #[doc(alias = "B_FORCE")]
        const FORCE = 32;
        /// Wait for nobody who holds a page, be it for a transfer: [`VnodeError::Deadlock`] says that one of them was held, and stayed as it was; the
        /// others are put. The caller lets go of what it holds and comes again.
        #[doc(alias = "B_PAGE_NOWAIT")]
        const NOWAIT = 64;
    }
}

/// A page handed out by [`Vnode::get_page`].
#[derive(Debug)]
pub struct GotPage<'a> {
    /// The page, shared-locked.
    pub page: SharedPage<'a>,
    /// Rights the vnode allows on a mapping of it, and of pages around it that are mapped along. Who is to be asked before the first store to a page withholds
    /// [`Prot::WRITE`] from whoever does not store; a single page is kept from stores by [`crate::RefMod::RO`].
    pub prot: Prot,
    /// Whether a device or file was read (a major fault).
    pub read: bool,
}

/// What a vnode does about its pages.
///
/// Implementations take their own lock (rank `Vnode`) before page locks, never keep a page lock on return except the one they hand
/// out, and wrap device waits in [`Cx::blocking`].
///
/// A vnode is mostly called by a fault, with the lock of the address space held as reader and a slot of its memory busy. It may read and look; what needs that lock
/// as writer (map, unmap, fork) would wait for the thread that it runs on. [`Vnode::add_map`] may come without the lock or with
/// it as writer: it looks at no address space.
pub trait Vnode: fmt::Debug + Send + Sync {
    /// The number under which pages name this vnode: one that [`VnodeTable::register`] handed out, and to which this very object is attached.
    fn id(&self) -> VnodeId;
    /// A name for people: a path, or `swap[3]`.
    fn name(&self) -> String;
    /// Size in bytes; pages at or past it cannot be got.
    fn size(&self) -> u64;

    /// Finds or reads the page at `offset` (page-aligned) and returns it shared-locked, with the rights that `access` needs. A page of another name, or of
    /// another database, is not mapped (`EIO`).
    ///
    /// `access` is [`Access::Write`] when the page will be stored to through a shared mapping.
    ///
    /// # Errors
    /// [`VnodeError::BeyondEof`], [`VnodeError::Io`], [`VnodeError::NoMemory`]; no page stays locked, none half-filled stays named.
    #[doc(alias = "VOP_GETPAGE")]
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
        access: Access,
    ) -> Result<GotPage<'a>, VnodeError>;

    /// Makes the page at `offset` without reading it; it must not exist. Returned exclusive and io-locked, contents undefined.
    ///
    /// # Errors
    /// [`VnodeError::NoMemory`], [`VnodeError::NotSupported`].
    #[doc(alias = "S_CREATE")]
    fn create_page<'a>(
        &self,
        cx: &'a Cx,
        db: &'a PageDb,
        offset: FileOffset,
    ) -> Result<ExclPage<'a>, VnodeError> {
        let _ = (cx, db, offset);
        Err(VnodeError::NotSupported { vnode: self.id(), op: "create" })
    }

    /// Starts reading the page at `offset` if it is absent (read-ahead); a hint that may do nothing.
    ///
    /// # Errors
    /// As [`Vnode::get_page`].
    fn read_ahead(&self, cx: &Cx, db: &PageDb, offset: FileOffset) -> Result<(), VnodeError> {
        self.get_page(cx, db, offset, Access::Other).map(drop)
    }

    /// Writes the dirty pages of `[offset, offset + len)` (whole vnode when `len` is 0) and disposes of them as `flags` say.
    ///
    /// # Errors
    /// The first failure; the walk goes on. A page whose write failed stays dirty and resident.
    #[doc(alias = "VOP_PUTPAGE")]
    fn put_page(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: FileOffset,
        len: u64,
        flags: PutFlags,
    ) -> Result<(), VnodeError>;

    /// Queued writes are written now. [`Vnode::put_page`] may hold back pushes (`ASYNC | FREE`) to write several in one
    /// transfer; page-out calls this when a scan ends. The caller holds no page lock.
    ///
    /// # Errors
    /// The first failed write; its pages stay dirty and resident.
    fn flush(&self, cx: &Cx, db: &PageDb) -> Result<(), VnodeError> {
        let _ = (cx, db);
        Ok(())
    }

    /// A mapping of `pages` pages at `offset` begins.
    ///
    /// # Errors
    /// The vnode refuses to be mapped; the mapping is not made.
    #[doc(alias = "VOP_ADDMAP")]
    fn add_map(&self, cx: &Cx, offset: FileOffset, pages: u64) -> Result<(), VnodeError> {
        let _ = (cx, offset, pages);
        Ok(())
    }
    /// A mapping of `pages` pages at `offset` ends.
    #[doc(alias = "VOP_DELMAP")]
    fn del_map(&self, cx: &Cx, offset: FileOffset, pages: u64) {
        let _ = (cx, offset, pages);
    }
}

const _: Option<&dyn Vnode> = None; // used as an object everywhere; stays one

/// What the page layer keeps for each vnode number. On lines of its own: the list locks of two vnodes are taken by two CPUs at once (D4).
#[repr(align(128))]
pub(crate) struct VnodeSlot {
    pub(crate) pages: SpinMutex<VnodePages>,
    object: Mutex<Option<Weak<dyn Vnode>>>,
    /// 0 while the number is nobody's, else the kind and 1 (N3).
    state: AtomicU32,
}

impl Default for VnodeSlot {
    fn default() -> Self {
        Self {
            pages: SpinMutex::new(Rank::VnodeList, VnodePages::default()),
            object: Mutex::new(Rank::Registry, None),
            state: AtomicU32::new(0),
        }
    }
}

impl VnodeSlot {
    /// What the vnode stands for.
    #[inline]
    pub(crate) fn kind(&self) -> VnodeKind {
        VnodeKind::from_word(self.state.load(Ordering::Relaxed).wrapping_sub(1))
    }
    /// Whether the number is somebody's.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.state.load(Ordering::Acquire) != 0
    }
}

/// The vnodes of a machine, by number.
pub struct VnodeTable {
    slots: Arena<VnodeSlot>,
    /// The database's.
    hooks: Arc<dyn WaitHooks>,
}

impl fmt::Debug for VnodeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VnodeTable").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl VnodeTable {
    pub(crate) fn new(hooks: &Arc<dyn WaitHooks>) -> Self {
        Self { slots: Arena::new("vnodes", 1, u32::MAX), hooks: Arc::clone(hooks) }
    }
    /// Hands out a number. Attach the object with [`VnodeTable::attach`] before its first page is dirtied.
    ///
    /// # Errors
    /// [`ArenaFull`] when no number or no heap is left.
    pub fn register(&self, cx: &Cx, kind: VnodeKind) -> Result<VnodeId, ArenaFull> {
        let id = self.slots.alloc(cx)?;
        self.slots.get(id).state.store(kind as u32 + 1, Ordering::Release);
        Ok(VnodeId(id))
    }
    /// Tells page-out where to find the vnode's object (N2). Says whether it did: not for a number that is not in use, nor for one whose object lives and is
    /// another.
    #[must_use = "what is not attached is never written out, and not believed (N2, N3)"]
    pub fn attach(&self, id: VnodeId, object: Weak<dyn Vnode>) -> bool {
        let Some(s) = self.used_slot(id) else { return false };
        let mut now = s.object.lock_leaf(&*self.hooks);
        if !s.is_used() {
            return false; // not any more
        }
        let other = |w: &Weak<dyn Vnode>| {
            w.strong_count() != 0 && !core::ptr::addr_eq(w.as_ptr(), object.as_ptr())
        };
        let free = !now.as_ref().is_some_and(other);
        let dropped = if free { now.replace(object) } else { Some(object) };
        drop((now, dropped)); // in this order: the heap is not asked under a leaf
        free
    }
    /// Changes what the vnode's pages count as (a file that begins to be run). Says whether the number is in use.
    pub fn set_kind(&self, id: VnodeId, kind: VnodeKind) -> bool {
        let state = |now| (now != 0).then_some(kind as u32 + 1);
        self.slots.try_get(id.0).is_some_and(|s| {
            s.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, state).is_ok()
        })
    }
    /// What the vnode stands for.
    pub fn kind(&self, id: VnodeId) -> VnodeKind {
        self.slots.try_get(id.0).map_or(VnodeKind::File, VnodeSlot::kind)
    }
    /// The object, if it lives.
    pub fn object(&self, id: VnodeId) -> Option<Arc<dyn Vnode>> {
        self.slots.try_get(id.0)?.object.lock_leaf(&*self.hooks).as_ref()?.upgrade()
    }
    /// Whether the object lives, asked by one who must not be the last to have it: with it whatever it is made of would go, under the locks that he holds.
    pub(crate) fn lives(&self, id: VnodeId) -> bool {
        let Some(s) = self.slots.try_get(id.0) else { return false };
        s.object.lock_leaf(&*self.hooks).as_ref().is_some_and(|w| w.strong_count() != 0)
    }
    /// Whether `vnode` is what its number stands for here: no other machine's object, which may have the number of any of this one's, and none that was never
    /// attached (N3).
    pub fn is_object(&self, vnode: &dyn Vnode) -> bool {
        let Some(s) = self.used_slot(vnode.id()) else { return false };
        // While `vnode` lives nothing else has its address.
        let object = s.object.lock_leaf(&*self.hooks);
        object.as_ref().is_some_and(|w| core::ptr::addr_eq(w.as_ptr(), vnode))
    }
    /// Gives the number back. Says whether it did: not for a number that is not in use, one whose object lives, or one that has pages (N1).
    #[must_use = "a number that was not given back is still in use"]
    pub fn retire(&self, cx: &Cx, id: VnodeId) -> bool {
        let Some(s) = self.used_slot(id) else { return false };
        let lives = |w: &Option<Weak<dyn Vnode>>| w.as_ref().is_some_and(|w| w.strong_count() != 0);
        if lives(&s.object.lock_leaf(&*self.hooks)) || s.pages.lock(cx).count() != 0 {
            return false;
        }
        // First the number is gone, then it is looked again: whoever attaches an object, or adds a page, meanwhile finds that out under the same lock as is
        // taken here, or is found.
        let state = s.state.swap(0, Ordering::AcqRel);
        if state == 0 {
            return false;
        }
        let mut object = s.object.lock_leaf(&*self.hooks);
        let dropped = if lives(&object) { None } else { object.take() };
        let lives = object.is_some();
        drop(object);
        if lives || s.pages.lock(cx).count() != 0 {
            s.state.store(state, Ordering::Release);
            return false;
        }
        drop(dropped); // nothing is locked: the heap gets it back
        self.slots.free(cx, id.0);
        true
    }
    /// What is kept for the vnode of a page that has a name.
    pub(crate) fn slot(&self, id: VnodeId) -> &VnodeSlot {
        self.slots.get(id.0)
    }
    pub(crate) fn try_slot(&self, id: VnodeId) -> Option<&VnodeSlot> {
        self.slots.try_get(id.0)
    }
    /// What is kept for a number in use (N3).
    #[inline]
    pub(crate) fn used_slot(&self, id: VnodeId) -> Option<&VnodeSlot> {
        self.slots.peek(id.0).filter(|s| s.is_used())
    }
    /// The numbers in use, ascending.
    pub fn ids(&self) -> impl Iterator<Item = VnodeId> + '_ {
        (1..=self.slots.high()).filter(|i| self.slots.get(*i).is_used()).map(VnodeId)
    }
}

impl fmt::Debug for VnodeSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VnodeSlot").field("kind", &self.kind()).finish_non_exhaustive()
    }
}
