//! The page lock: shared, exclusive, exclusive-wanted, and the i/o lock inside it.
//!
//! ```text
//!   p_selock   bit 31 EXCL   30 EWANTED   29 WAITERS   28 RETIRE_PENDING   27 RETIRED   0..27 shared holders
//! ```
//!
//! | state | wants shared | wants exclusive |
//! |---|---|---|
//! | free | granted | granted |
//! | free, EWANTED | waits (tries fail) | granted to an announced waiter, which clears the bit; others wait |
//! | n readers | granted unless EWANTED | waits, announced with EWANTED if asked to be |
//! | exclusive | waits | waits |
//! | to be retired, retired | tries fail | tries fail when retired |
//!
//! - K1: an exclusive holder is alone.
//! - K2: whoever sleeps set WAITERS first, under the place it sleeps at; the unlocker that sees the bit clears it and wakes all.
//! - K3: after any wait the page's identity is compared again by whoever wanted a *named* page; the structure itself is permanent. Nor does he wait for longer
//!   than the page has the name, which it loses under an exclusive lock: whoever has the frame next may pin it, and be waiting for what this one holds. Who
//!   takes the name and keeps the lock wakes him.
//! - K4: the i/o lock is taken under the page lock and may be given back by any thread; a page is freed only without it.
//! - K5: a guard is shown to the database that it is of, and to no other: the numbers of pages, their lists and ledgers are each database's own. A guard knows
//!   which that is.
//! - K6: the holders never reach the marks above them. A lock that is left behind ([`SharedPage::leak`]) is nobody's guard, and there is no end to what users may
//!   pin: a pin is refused at `PINS` ([`LockedPage::may_leak`]), a guard at `FULL`. Between the two there is room for more guards than threads can be.
//!
//! Who waits is announced only on request ([`PageDb::lock_excl_wanted`]). A reader may be a pin, which stays for as long as somebody's i/o takes, and whoever
//! has pinned the page goes on using it meanwhile: behind an announcement it would wait for the one that waits for it.
//!
//! A locked page is a guard. [`SharedPage::leak`] and [`PageDb::adopt_shared`] carry a lock across a return (soft locks).
//! Sources: illumos `vm/page_lock.c` (behaviour); illumos.md 7.3.

use crate::counters::Counter;
use crate::cx::Cx;
use crate::db::PageDb;
use crate::lock::Rank;
use crate::mappings::RefMod;
use crate::page::{Page, PageId};
use crate::sync::atomic::Ordering::{Release, SeqCst};
use crate::sync::{Mutation, mutated};
use crate::units::Pfn;
use crate::vnode::Identity;
use core::fmt;
use core::mem::ManuallyDrop;

pub(crate) mod word;

pub(crate) const EXCL: u32 = 1 << 31;
pub(crate) const EWANTED: u32 = 1 << 30;
pub(crate) const WAITERS: u32 = 1 << 29;
/// The page is to be retired: tries for a shared lock are refused, and each unlock attempts it.
pub(crate) const RETIRE_PENDING: u32 = 1 << 28;
/// The page is out of service: every try is refused.
pub(crate) const RETIRED: u32 = 1 << 27;
const MARKS: u32 = RETIRE_PENDING | RETIRED;
pub(crate) const COUNT: u32 = RETIRED - 1;
/// So many holders that no more are let in (K6).
pub(crate) const FULL: u32 = 1 << 26;
/// So many that none may leave its lock behind.
const PINS: u32 = 1 << 25;

/// Who holds a page's lock, for views and checks.
#[doc(alias("p_selock", "SE_SHARED", "SE_EXCL", "SE_EWANTED"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct SeState {
    /// Shared holders.
    pub shared: u32,
    /// Exclusively held.
    pub excl: bool,
    /// An exclusive waiter keeps new readers out.
    pub wanted: bool,
}

impl PageDb {
    fn place(id: PageId) -> u64 {
        u64::from(id.link())
    }
    /// Takes the page's lock shared, waiting for it. The identity must be compared afterwards (K3).
    ///
    /// # Panics
    /// When 2^26 shared locks of the page were left behind, or their guards forgotten (K6).
    #[doc(alias = "page_lock")]
    pub fn lock_shared<'a>(&'a self, cx: &'a Cx, id: PageId) -> SharedPage<'a> {
        self.assert_cx(cx);
        cx.rank_wait(Rank::Page, false);
        let page = self.page(id);
        if !word::try_shared(&page.selock, EXCL | EWANTED) {
            word::wait_shared(&page.selock, |blocked| self.sleep_at(cx, id, blocked));
        }
        SharedPage { db: self, cx, page, id }
    }
    /// Takes the page's lock exclusively, waiting for it; readers come and go meanwhile. Compare the identity afterwards (K3).
    #[doc(alias = "page_lock")]
    pub fn lock_excl<'a>(&'a self, cx: &'a Cx, id: PageId) -> ExclPage<'a> {
        cx.rank_wait(Rank::Page, false);
        self.wait_excl(cx, id, false)
    }
    /// As [`PageDb::lock_excl`], announced: no new reader is let in meanwhile. The caller knows that no reader there is waits for another lock of the page.
    #[doc(alias = "SE_EXCL_WANTED")]
    pub fn lock_excl_wanted<'a>(&'a self, cx: &'a Cx, id: PageId) -> ExclPage<'a> {
        cx.rank_wait(Rank::Page, false);
        self.wait_excl(cx, id, true)
    }
    /// As [`PageDb::lock_shared`] of a page wanted as `name`; nothing when it has lost that name before the lock was to be had. Compare it all the same (K3).
    pub(crate) fn lock_shared_named<'a>(
        &'a self,
        cx: &'a Cx,
        id: PageId,
        name: Identity,
    ) -> Option<SharedPage<'a>> {
        self.assert_cx(cx);
        cx.rank_wait(Rank::Page, false);
        let page = self.page(id);
        let wanted = || page.is(name) || mutated(Mutation::StrangerAwaited);
        let sleep = |blocked: &mut dyn FnMut() -> bool| self.sleep_at(cx, id, blocked);
        if word::try_shared(&page.selock, EXCL | EWANTED)
            || word::wait_shared_while(&page.selock, wanted, sleep)
        {
            return Some(SharedPage { db: self, cx, page, id });
        }
        cx.rank_release(Rank::Page);
        None
    }
    /// As [`PageDb::lock_excl`] of a page wanted as `name`; nothing when it has lost that name before the lock was to be had. Compare it all the same (K3).
    /// `nested`: while other page locks are held; the caller keeps to the order of offsets within one vnode.
    pub(crate) fn lock_excl_named<'a>(
        &'a self,
        cx: &'a Cx,
        id: PageId,
        name: Identity,
        nested: bool,
    ) -> Option<ExclPage<'a>> {
        self.assert_cx(cx);
        cx.rank_wait(Rank::Page, nested);
        let page = self.page(id);
        let wanted = || page.is(name) || mutated(Mutation::StrangerAwaited);
        let sleep = |blocked: &mut dyn FnMut() -> bool| self.sleep_at(cx, id, blocked);
        if word::try_excl(&page.selock, EWANTED)
            || word::wait_excl_while(&page.selock, wanted, sleep)
        {
            return Some(ExclPage { db: self, cx, page, id });
        }
        cx.rank_release(Rank::Page);
        None
    }
    /// As [`PageDb::lock_excl`] for a page that others hold only for moments (a free frame met by a stale lookup or the scanner's
    /// look), hence without regard to the order of page locks: whoever holds it waits for no page lock in turn.
    pub fn lock_unnamed<'a>(&'a self, cx: &'a Cx, id: PageId) -> ExclPage<'a> {
        cx.rank_tried(Rank::Page);
        self.wait_excl(cx, id, false)
    }
    #[inline]
    fn wait_excl<'a>(&'a self, cx: &'a Cx, id: PageId, announced: bool) -> ExclPage<'a> {
        self.assert_cx(cx);
        let page = self.page(id);
        if !word::try_excl(&page.selock, EWANTED) {
            word::wait_excl(&page.selock, announced, |blocked| self.sleep_at(cx, id, blocked));
        }
        ExclPage { db: self, cx, page, id }
    }
    /// Wakes those who wait for a page by a name that it has just lost, for its holder keeps it (K3).
    pub(crate) fn rouse(&self, page: &ExclPage<'_>) {
        word::rouse(&page.page().selock, || self.waits().wake_all(Self::place(page.id())));
    }
    fn sleep_at(&self, cx: &Cx, id: PageId, blocked: &mut dyn FnMut() -> bool) {
        cx.count(Counter::PageLockWaits);
        self.waits().wait_while(cx, Self::place(id), blocked);
    }
    /// Takes the page's lock shared if that needs no waiting; refused while an exclusive waiter is announced.
    #[doc(alias = "page_trylock")]
    #[inline]
    pub fn try_lock_shared<'a>(&'a self, cx: &'a Cx, id: PageId) -> Option<SharedPage<'a>> {
        self.try_shared_unless(cx, id, EXCL | EWANTED | MARKS)
    }
    /// As [`PageDb::try_lock_shared`], and also of a page that is to be retired: that may last, and whoever waits for a page has it meanwhile.
    #[inline]
    pub fn lock_shared_now<'a>(&'a self, cx: &'a Cx, id: PageId) -> Option<SharedPage<'a>> {
        self.try_shared_unless(cx, id, EXCL | EWANTED)
    }
    /// The page's lock shared, unless one of the bits is set.
    #[inline]
    fn try_shared_unless<'a>(
        &'a self,
        cx: &'a Cx,
        id: PageId,
        refused: u32,
    ) -> Option<SharedPage<'a>> {
        self.assert_cx(cx);
        let page = self.page(id);
        word::try_shared(&page.selock, refused).then(|| {
            cx.rank_tried(Rank::Page);
            SharedPage { db: self, cx, page, id }
        })
    }
    /// As [`PageDb::lock_shared`] when the lock is free enough; nothing otherwise.
    #[inline]
    pub(crate) fn lock_shared_at_once<'a>(
        &'a self,
        cx: &'a Cx,
        id: PageId,
        page: &'a Page,
    ) -> Option<SharedPage<'a>> {
        self.assert_cx(cx);
        word::try_shared(&page.selock, EXCL | EWANTED).then(|| {
            cx.rank_wait(Rank::Page, false);
            SharedPage { db: self, cx, page, id }
        })
    }
    /// Takes the page's lock exclusively if that needs no waiting; refused while an exclusive waiter is announced.
    #[doc(alias = "page_trylock")]
    #[inline]
    pub fn try_lock_excl<'a>(&'a self, cx: &'a Cx, id: PageId) -> Option<ExclPage<'a>> {
        self.try_excl_unless(cx, id, EWANTED | RETIRED)
    }
    /// As [`PageDb::try_lock_excl`] for a page that may be retired.
    pub(crate) fn try_lock_retired<'a>(&'a self, cx: &'a Cx, id: PageId) -> Option<ExclPage<'a>> {
        self.try_excl_unless(cx, id, EWANTED)
    }
    /// The page's lock exclusively, unless somebody has it or one of the bits is set.
    #[inline]
    fn try_excl_unless<'a>(&'a self, cx: &'a Cx, id: PageId, refused: u32) -> Option<ExclPage<'a>> {
        self.assert_cx(cx);
        let page = self.page(id);
        word::try_excl(&page.selock, refused).then(|| {
            cx.rank_tried(Rank::Page);
            ExclPage { db: self, cx, page, id }
        })
    }
    /// Makes a guard of a shared lock that [`SharedPage::leak`] left behind. The caller owns exactly one such lock on the page.
    ///
    /// # Panics
    /// When nobody holds the page shared (`page_unlock` of an unlocked page).
    pub fn adopt_shared<'a>(&'a self, cx: &'a Cx, id: PageId) -> SharedPage<'a> {
        assert!(self.lock_state(id).shared != 0, "K1: page {id} is not held shared");
        cx.rank_adopted(Rank::Page);
        SharedPage { db: self, cx, page: self.page(id), id }
    }
    /// Who holds the page's lock now.
    pub fn lock_state(&self, id: PageId) -> SeState {
        word::state(&self.page(id).selock)
    }
    /// What a shared holder that has stepped out of `page` owes: `old` is the word it left.
    #[cold]
    fn left_shared(&self, cx: &Cx, id: PageId, page: &Page, old: u32) {
        assert!(old & COUNT != 0, "K1: unlock of a page nobody holds");
        word::left_shared(&page.selock, old, || self.waits().wake_all(Self::place(id)));
        if old & RETIRE_PENDING != 0 {
            self.retire_pending(cx, id);
        }
    }
    /// What an exclusive holder that has stepped out owes; answers whether the page is to be retired.
    #[cold]
    fn left_excl(&self, id: PageId, old: u32) -> bool {
        assert!(old & EXCL != 0, "K1: exclusive unlock of a page nobody holds");
        if old & WAITERS != 0 {
            self.waits().wake_all(Self::place(id));
        }
        old & RETIRE_PENDING != 0
    }
    #[inline]
    fn unlock_excl(&self, id: PageId, page: &Page) -> bool {
        let old = word::unlock_excl(&page.selock);
        old & (EXCL | WAITERS | RETIRE_PENDING) != EXCL && self.left_excl(id, old)
    }
}

mod sealed {
    /// Keeps other types from claiming to be a held lock.
    pub trait Sealed {}
}

/// What both guards offer. Only guards implement it (it is sealed), so holding one proves that the page is locked.
pub trait LockedPage: sealed::Sealed {
    /// The page's id.
    fn id(&self) -> PageId;
    /// The page structure.
    fn page(&self) -> &Page;
    /// The frame.
    fn pfn(&self) -> Pfn;
    /// The database that the page is of (K5).
    fn db(&self) -> &PageDb;
    /// Whether nobody else has the page locked, nor can.
    fn is_exclusive(&self) -> bool;
    /// Whether one more shared lock of the page may be left behind (K6). Asked before a lock is, where it is users who say how many there are: an answer of no
    /// is `EAGAIN` to them. Others who ask at this moment may get the same answer; there is room for that.
    fn may_leak(&self) -> bool {
        word::state(&self.page().selock).shared <= PINS
    }
    /// The name, stable while locked.
    fn identity(&self) -> Option<Identity> {
        self.page().identity()
    }
}

macro_rules! guard {
    ($t:ident, $exclusive:literal) => {
        impl sealed::Sealed for $t<'_> {}
        impl LockedPage for $t<'_> {
            #[inline]
            fn id(&self) -> PageId {
                self.id
            }
            #[inline]
            fn page(&self) -> &Page {
                self.page
            }
            #[inline]
            fn pfn(&self) -> Pfn {
                self.db.pages().pfn(self.id)
            }
            #[inline]
            fn db(&self) -> &PageDb {
                self.db
            }
            #[inline]
            fn is_exclusive(&self) -> bool {
                $exclusive
            }
        }
        impl fmt::Debug for $t<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($t), "({}, {:?})"), self.id, self.identity())
            }
        }
    };
}

/// A page locked shared: its identity and contents' validity are stable.
#[doc(alias = "page_unlock")]
#[must_use = "dropping the guard unlocks the page"]
pub struct SharedPage<'a> {
    db: &'a PageDb,
    cx: &'a Cx,
    page: &'a Page,
    id: PageId,
}
guard!(SharedPage, false);

impl<'a> SharedPage<'a> {
    /// Becomes exclusive if this is the only holder and no exclusive waiter is announced.
    ///
    /// # Errors
    /// The guard itself, unchanged.
    #[doc(alias = "page_tryupgrade")]
    pub fn try_upgrade(self) -> Result<ExclPage<'a>, Self> {
        if !word::try_upgrade(&self.page.selock) {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        Ok(ExclPage { db: this.db, cx: this.cx, page: this.page, id: this.id })
    }
    /// Keeps the lock past the guard's life (a soft lock); [`PageDb::adopt_shared`] takes it up again. How often a user may have that done, ask first
    /// ([`LockedPage::may_leak`]).
    #[must_use = "nothing else knows that this page is still locked: keep its number, or know how to find the page again"]
    pub fn leak(self) -> PageId {
        let this = ManuallyDrop::new(self);
        this.cx.rank_release(Rank::Page);
        this.id
    }
}

impl Drop for SharedPage<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cx.rank_release(Rank::Page);
        let old = word::unlock_shared(&self.page.selock);
        if old & (WAITERS | RETIRE_PENDING) != 0 || old & COUNT == 0 {
            self.db.left_shared(self.cx, self.id, self.page, old);
        }
    }
}

/// A page locked exclusively: identity and state may be changed.
#[doc(alias = "page_unlock")]
#[must_use = "dropping the guard unlocks the page"]
pub struct ExclPage<'a> {
    db: &'a PageDb,
    cx: &'a Cx,
    page: &'a Page,
    id: PageId,
}
guard!(ExclPage, true);

impl<'a> ExclPage<'a> {
    /// Becomes shared and lets waiting readers look again.
    #[doc(alias = "page_downgrade")]
    pub fn downgrade(self) -> SharedPage<'a> {
        let this = ManuallyDrop::new(self);
        word::downgrade(&this.page.selock, || this.db.waits().wake_all(PageDb::place(this.id)));
        SharedPage { db: this.db, cx: this.cx, page: this.page, id: this.id }
    }
    /// Marks the contents as in transit (`page_io_lock` on a page nobody else can be moving, or waiting for).
    pub(crate) fn start_io(&self) {
        self.page().iolock.store(IO_INUSE, Release);
    }
    /// Ends the transit and wakes whoever waits for it.
    ///
    /// # Panics
    /// When the page is not in transit.
    #[doc(alias = "page_io_unlock")]
    #[inline]
    pub fn end_io(&self) {
        let word = &self.page().iolock;
        // Whoever waits for it holds the page lock (K4), and this holder is alone (K1): a waiter can be left over, but none can come.
        let old = word.load(SeqCst);
        assert!(old & IO_INUSE != 0, "K4: i/o unlock of page {}, which is not in transit", self.id);
        word.store(0, Release);
        if old & IO_WANTED != 0 {
            self.db.waits().wake_all(io_key(self.id));
        }
    }
    /// Makes a page in transit as if it had never been.
    pub(crate) fn undo(self) {
        let (cx, db) = (self.cx, self.db);
        self.end_io();
        db.destroy(cx, self);
    }
    /// Marks the contents as written just now, by the holder. Only for a page that nobody maps: the bits of others are not waited for.
    pub fn mark_filled(&self) {
        debug_assert!(
            !self.page().is_mapped(),
            "P2: page {} is mapped while it is filled",
            self.id
        );
        self.page().set_ref_mod_alone(RefMod::REF | RefMod::MOD);
    }
    /// Unlocks without looking whether the page is to be retired: who has just looked does this, or is about to.
    pub(crate) fn unlock_quietly(self) {
        let this = ManuallyDrop::new(self);
        this.cx.rank_release(Rank::Page);
        this.db.unlock_excl(this.id, this.page);
    }
    /// Keeps the lock past the guard's life; [`PageDb::adopt_excl`] takes it up again.
    #[must_use = "nothing else knows that this page is still locked: keep its number, or know how to find the page again"]
    pub fn leak(self) -> PageId {
        let this = ManuallyDrop::new(self);
        this.cx.rank_release(Rank::Page);
        this.id
    }
}

impl Drop for ExclPage<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cx.rank_release(Rank::Page);
        if self.db.unlock_excl(self.id, self.page) {
            self.db.retire_pending(self.cx, self.id);
        }
    }
}

const IO_INUSE: u8 = 1;
const IO_WANTED: u8 = 2;

impl PageDb {
    /// K5.
    #[inline]
    #[track_caller]
    pub(crate) fn assert_own<P: LockedPage + ?Sized>(&self, page: &P) {
        assert!(core::ptr::eq(self, page.db()), "K5: page {} is another database's", page.id());
    }
    /// Makes a guard of an exclusive lock that [`ExclPage::leak`] left behind. The caller owns that lock.
    ///
    /// # Panics
    /// When nobody holds the page exclusively.
    pub fn adopt_excl<'a>(&'a self, cx: &'a Cx, id: PageId) -> ExclPage<'a> {
        assert!(self.lock_state(id).excl, "K1: page {id} is not held exclusively");
        cx.rank_adopted(Rank::Page);
        ExclPage { db: self, cx, page: self.page(id), id }
    }
    /// Takes the i/o lock of a page whose page lock the caller holds, waiting for it.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias("page_io_lock", "p_iolock", "p_iolock_state"))]
    pub fn io_lock(&self, cx: &Cx, page: &dyn LockedPage) {
        self.assert_own(page);
        let word = &page.page().iolock;
        while !self.io_trylock(page) {
            self.waits().wait_while(cx, io_key(page.id()), || {
                let mut w = word.load(SeqCst);
                if mutated(Mutation::IoWaiterUnannounced) {
                    return w & IO_INUSE != 0;
                }
                while w & IO_INUSE != 0 {
                    match word.compare_exchange(w, w | IO_WANTED, SeqCst, SeqCst) {
                        Ok(_) => return true,
                        Err(now) => w = now,
                    }
                }
                false
            });
        }
    }
    /// Takes the i/o lock if that needs no waiting.
    #[doc(alias = "page_io_trylock")]
    #[must_use = "who did not get it has somebody else's transfer under way"]
    pub fn io_trylock(&self, page: &dyn LockedPage) -> bool {
        page.page().iolock.fetch_or(IO_INUSE, SeqCst) & IO_INUSE == 0
    }
    /// Releases the i/o lock; any thread may (an i/o completion).
    ///
    /// # Panics
    /// When the page is not in transit.
    pub fn io_unlock(&self, id: PageId) {
        let old = self.pages().get(id).iolock.swap(0, SeqCst);
        assert!(old & IO_INUSE != 0, "K4: i/o unlock of page {id}, which is not in transit");
        if old & IO_WANTED != 0 {
            self.waits().wake_all(io_key(id));
        }
    }
    /// Whether the page's contents are in transit.
    pub fn is_io_locked(&self, id: PageId) -> bool {
        self.pages().get(id).iolock.load(SeqCst) & IO_INUSE != 0
    }
}

fn io_key(id: PageId) -> u64 {
    u64::from(id.link()) | 1 << 40
}
