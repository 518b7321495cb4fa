//! What every file system does with pages, once: get one by name and fill it, write a range of dirty ones.
//!
//! ```text
//!   get    lookup ── hit ──▶ shared page
//!            │ miss
//!            └▶ create (excl, io-locked) ─▶ fill ─▶ downgrade ─▶ shared page       fill failed: destroyed, nobody sees it
//!
//!   put    for each page: get_dirty ─▶ write ─▶ write_done                          write failed: modified again, kept
//! ```
//!
//! - V1: contents become visible under a name only when they are complete: the page stays exclusive while it is filled.
//! - V2: modified is cleared *before* the write starts, so a store during the write makes the page modified again. Whoever removes a translation
//!   gives the page its bits and flushes later; what a processor stores in between says nothing to anybody, if the bit was there already when it was
//!   given. So once it is cleared such flushes are waited for: each is noted as owed before its translation's bits are given.
//! - V3: a failed write leaves the page resident and modified; so does one that panics.
//! - V4: what was used during the write is not freed: a page found mapped, referenced or modified afterwards stays. Asked in this order, and one that is to go
//!   all the same loses its translations first: a store through one of them could come after a look at the bits.
//! - V5: a clean page that nobody maps goes to the cache list whatever was asked, so that writing a file back does not keep it in use.
//! - V6: a page that is locked in memory or lent leaves it only with `TRUNC` or `FORCE`; that is asked again after the write, during which
//!   it can be locked.
//!
//! Sources: illumos.md 7.8 (`pvn_getdirty`, `pvn_write_done`, `pvn_read_done`).

use crate::counters::Counter;
use crate::cx::Cx;
use crate::db::{PageDb, Released, Reserve};
use crate::error::{PageError, VnodeError};
use crate::heap::{self, NoHeap};
use crate::mappings::{RefMod, SyncMode};
use crate::page::{Page, PageId};
use crate::selock::{ExclPage, LockedPage, SharedPage};
use crate::sync::{Mutation, mutated};
use crate::units::{FileOffset, PAGE_SIZE, Pfn};
use crate::vnode::{Identity, PutFlags, VnodeId, VnodeKind};
use alloc::vec::Vec;
use core::ops::Deref;

/// A page found or filled.
#[derive(Debug)]
pub struct Filled<'a> {
    /// The page, shared-locked.
    pub page: SharedPage<'a>,
    /// Whether `fill` ran.
    pub filled: bool,
}

/// A page just made, exclusive and in transit, while it is given its contents. Dropped before that is [`Filling::done`], for an error or by a panic of
/// whoever fills it, it is gone again (V1): in its frame are somebody else's bytes.
#[must_use = "a page that is not filled is gone again"]
#[derive(Debug)]
pub struct Filling<'a> {
    /// There until it is done.
    page: Option<ExclPage<'a>>,
}

impl<'a> Filling<'a> {
    /// Watches over `page`, which [`PageDb::create`] has made.
    pub fn of(page: ExclPage<'a>) -> Self {
        Self { page: Some(page) }
    }
    /// The contents are whole: ends the transit.
    ///
    /// # Panics
    /// Never: the page is there until this is called, once (V1).
    pub fn done(mut self) -> ExclPage<'a> {
        let page = self.page.take().expect("V1: a page is done once");
        page.end_io();
        page
    }
}

impl<'a> Deref for Filling<'a> {
    type Target = ExclPage<'a>;
    fn deref(&self) -> &ExclPage<'a> {
        self.page.as_ref().expect("V1: a page is there until it is done")
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            page.undo();
        }
    }
}

/// Finds the page named `id`, or makes it and has `fill` give it contents. `fill` runs inside [`Cx::blocking`] with the page exclusive.
///
/// # Errors
/// [`VnodeError::NoMemory`], [`VnodeError::NoVnode`], or what `fill` answered; then the page is gone again, as it is after a panic in `fill` (V1).
pub fn get<'a>(
    cx: &'a Cx,
    db: &'a PageDb,
    id: Identity,
    colour: u64,
    mut fill: impl FnMut(&ExclPage<'a>) -> Result<(), VnodeError>,
) -> Result<Filled<'a>, VnodeError> {
    loop {
        if let Some(page) = db.lookup_shared(cx, id) {
            return Ok(Filled { page, filled: false });
        }
        match db.create(cx, id, colour, Reserve::Normal) {
            Err(PageError::Exists(_)) => {} // lost a race: look again
            Err(PageError::NoVnode { vnode }) => return Err(VnodeError::NoVnode { vnode }),
            Err(_) => return Err(VnodeError::NoMemory { vnode: id.vnode, offset: id.offset }),
            Ok(page) => {
                let new = Filling::of(page);
                cx.blocking(|| fill(&new))?;
                return Ok(Filled { page: new.done().downgrade(), filled: true });
            }
        }
    }
}

/// The i/o lock of a page that is written. Let go of without a word, for the write has panicked, it leaves what a failed write leaves (V3).
#[derive(Debug)]
struct Transit<'a> {
    db: &'a PageDb,
    id: PageId,
    over: bool,
}

impl Transit<'_> {
    /// Ends the transit; a page whose write failed is modified again first.
    fn end(&mut self, ok: bool) {
        if !ok {
            self.db.page(self.id).set_ref_mod(RefMod::MOD | RefMod::REF);
        }
        self.over = true;
        self.db.io_unlock(self.id);
    }
}

impl Drop for Transit<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.end(false);
        }
    }
}

/// A dirty page on its way out: shared-locked, io-locked, already marked clean (V2). [`write_done`] takes it; dropped, it is as after a failed write.
#[derive(Debug)]
pub struct DirtyPage<'a> {
    /// Ends before the page's lock does.
    transit: Transit<'a>,
    /// The page.
    pub page: SharedPage<'a>,
    /// Its name.
    pub identity: Identity,
    /// Whether it was exclusive while its translations were removed (`FREE` or `INVAL`).
    pub unloaded: bool,
}

/// As [`get_dirty`] for a page that stays where it is, which others may hold too: pinned for i/o, for instance. `flags` have none of `FREE`, `INVAL` and `TRUNC`.
pub fn get_dirty_shared<'a>(
    cx: &'a Cx,
    db: &'a PageDb,
    page: SharedPage<'a>,
    flags: PutFlags,
) -> Option<DirtyPage<'a>> {
    if !lock_for_io(cx, db, &page, flags) {
        return None;
    }
    get_in_transit_shared(cx, db, page, flags)
}

/// [`get_dirty_shared`] of a page whose i/o lock is had already.
fn get_in_transit_shared<'a>(
    cx: &'a Cx,
    db: &'a PageDb,
    page: SharedPage<'a>,
    flags: PutFlags,
) -> Option<DirtyPage<'a>> {
    let Some(identity) = page.identity() else {
        db.io_unlock(page.id());
        return None;
    };
    db.sync_ref_mod(cx, &page, SyncMode::ZeroRm);
    if page.page().ref_mod().contains(RefMod::MOD) {
        mark_clean(cx, db, &page);
        return Some(DirtyPage { transit: in_transit(db, &page), page, identity, unloaded: false });
    }
    db.io_unlock(page.id());
    if let Ok(page) = page.try_upgrade() {
        dispose(cx, db, page, flags); // V5
    }
    None
}

/// The i/o lock, waited for unless the flags say not to.
fn lock_for_io(cx: &Cx, db: &PageDb, page: &dyn LockedPage, flags: PutFlags) -> bool {
    if only_tries(flags) {
        return db.io_trylock(page);
    }
    cx.blocking(|| db.io_lock(cx, page));
    true
}

/// Whether what would have to be waited for is passed over.
fn only_tries(flags: PutFlags) -> bool {
    flags.contains(PutFlags::ASYNC) && !flags.contains(PutFlags::INVAL)
}

/// Takes an exclusive page that may be dirty. `Some`: write it, then call [`write_done`]. `None`: nothing to write, and the page has been
/// disposed of or unlocked.
#[doc(alias = "pvn_getdirty")]
pub fn get_dirty<'a>(
    cx: &'a Cx,
    db: &'a PageDb,
    page: ExclPage<'a>,
    flags: PutFlags,
) -> Option<DirtyPage<'a>> {
    if leaves(flags) && stays(page.page(), flags) {
        return None;
    }
    if !lock_for_io(cx, db, &page, flags) {
        return None;
    }
    get_in_transit(cx, db, page, flags)
}

/// Whether the page is to leave memory.
fn leaves(flags: PutFlags) -> bool {
    flags.intersects(PutFlags::FREE | PutFlags::INVAL)
}

/// [`get_dirty`] of a page that may go where the flags say, and whose i/o lock is had already.
fn get_in_transit<'a>(
    cx: &'a Cx,
    db: &'a PageDb,
    page: ExclPage<'a>,
    flags: PutFlags,
) -> Option<DirtyPage<'a>> {
    let Some(identity) = page.identity() else {
        page.end_io();
        return None;
    };
    let leaves = leaves(flags);
    if leaves {
        db.unload(cx, &page);
    } else {
        db.sync_ref_mod(cx, &page, SyncMode::ZeroRm);
    }
    let dirty = page.page().ref_mod().contains(RefMod::MOD) && !flags.contains(PutFlags::TRUNC);
    if dirty {
        mark_clean(cx, db, &page);
        let transit = in_transit(db, &page);
        return Some(DirtyPage { transit, page: page.downgrade(), identity, unloaded: leaves });
    }
    page.end_io();
    dispose(cx, db, page, flags);
    None
}

/// A page whose i/o lock is had, and that is to be written.
fn in_transit<'a>(db: &'a PageDb, page: &dyn LockedPage) -> Transit<'a> {
    Transit { db, id: page.id(), over: false }
}

/// Takes a page that is about to be written for clean (V2).
fn mark_clean(cx: &Cx, db: &PageDb, page: &dyn LockedPage) {
    page.page().clear_ref_mod(RefMod::MOD | RefMod::REF);
    if !mutated(Mutation::CleanBesideADebt) {
        db.settle(cx);
    }
}

/// Frees, destroys or just unlocks a clean, exclusive page as `flags` say. Without `FREE` and `INVAL` it is released (V5).
#[doc(alias = "VN_DISPOSE")]
pub fn dispose(cx: &Cx, db: &PageDb, page: ExclPage<'_>, flags: PutFlags) {
    let _ = put_away(cx, db, page, flags);
}

/// The same; says whether the page is free now, with its name.
fn put_away(cx: &Cx, db: &PageDb, page: ExclPage<'_>, flags: PutFlags) -> bool {
    if flags.contains(PutFlags::INVAL) {
        db.destroy(cx, page);
    } else if !flags.contains(PutFlags::FREE) {
        return db.release_excl(cx, page, true) == Released::Clean;
    } else if !page.page().is_mapped() && !page.page().is_kept() {
        db.free(cx, page, flags.contains(PutFlags::DONTNEED));
        return true;
    }
    false
}

/// Counts a page that the clock frees, or the end of its write. One that is let go clean by whoever used it counts in neither.
pub(crate) fn count_freed(cx: &Cx, db: &PageDb, vnode: VnodeId) {
    cx.count(Counter::DFree);
    cx.count(match db.vnodes().kind(vnode) {
        VnodeKind::Swap => Counter::AnonFree,
        VnodeKind::Exec => Counter::ExecFree,
        _ => Counter::FsFree,
    });
}

/// Counts a page that has been written, in a transfer of its own.
fn count_written(cx: &Cx, db: &PageDb, vnode: VnodeId) {
    cx.count(Counter::PgOut);
    cx.count(Counter::PgPgOut);
    cx.count(match db.vnodes().kind(vnode) {
        VnodeKind::Swap => Counter::AnonPgOut,
        VnodeKind::Exec => Counter::ExecPgOut,
        _ => Counter::FsPgOut,
    });
}

/// Ends the write of a page that [`get_dirty`] handed out. On success it is disposed of as `flags` say, unless somebody used it
/// meanwhile (V4); on failure it is modified again and stays (V3).
///
/// With `INVAL` the page must go: unless `ASYNC` or `NOWAIT` is set too, readers that came during the write are waited for, so pages are handed in
/// one by one in the order of their offsets. Only a page stored to during the write stays even then: destroying it would lose bytes.
///
/// # Errors
/// [`VnodeError::Locked`] when the page was locked in memory or lent during the write (whoever did so needed only to share it), and is to go
/// without `TRUNC` or `FORCE`: it stays, clean. [`VnodeError::Deadlock`], and it stays likewise, with `INVAL | NOWAIT` when somebody has come to hold it.
#[doc(alias = "pvn_write_done")]
pub fn write_done(
    cx: &Cx,
    db: &PageDb,
    mut dirty: DirtyPage<'_>,
    ok: bool,
    flags: PutFlags,
) -> Result<(), VnodeError> {
    let id = dirty.page.id();
    dirty.transit.end(ok);
    if !ok {
        return Ok(());
    }
    let inval = flags.contains(PutFlags::INVAL);
    if !inval && !flags.contains(PutFlags::FREE) && dirty.page.page().is_mapped() {
        return Ok(());
    }
    let page = match dirty.page.try_upgrade() {
        Ok(page) => page,
        Err(_) if inval && flags.contains(PutFlags::NOWAIT) => {
            let Identity { vnode, offset } = dirty.identity;
            return Err(VnodeError::Deadlock { vnode, offset });
        }
        Err(shared) if inval && !flags.contains(PutFlags::ASYNC) => {
            drop(shared);
            let page = db.lock_excl_named(cx, id, dirty.identity, true);
            let Some(page) = page.filter(|page| page.page().is(dirty.identity)) else {
                return Ok(()); // destroyed by another, who was just as entitled
            };
            if page.page().is_free() {
                db.destroy(cx, page);
                return Ok(());
            }
            page
        }
        Err(_) => return Ok(()),
    };
    if inval && stays(page.page(), flags) {
        let Identity { vnode, offset } = dirty.identity;
        return Err(VnodeError::Locked { vnode, offset });
    }
    if inval {
        // Its translations first: nobody stores to it from there on (V4).
        let bits = match mutated(Mutation::UsedAskedFirst) {
            true => db.sync_ref_mod(cx, &page, SyncMode::DontZero),
            false => {
                db.unload(cx, &page);
                page.page().ref_mod()
            }
        };
        if !bits.contains(RefMod::MOD) || flags.contains(PutFlags::TRUNC) {
            dispose(cx, db, page, flags);
        }
    } else if is_used(cx, db, &page) {
        cx.count(Counter::PgRec); // somebody has it again
    } else if put_away(cx, db, page, flags) {
        count_freed(cx, db, dirty.identity.vnode);
    }
    Ok(())
}

/// Whether somebody has used a page while it was written (V4). Who takes a translation away has given its bits to the page before, and nobody adds one to a page
/// that is held exclusively: so a page that is not mapped has its bits for good.
fn is_used(cx: &Cx, db: &PageDb, page: &ExclPage<'_>) -> bool {
    let used = RefMod::REF | RefMod::MOD;
    if mutated(Mutation::UsedAskedFirst) {
        return db.sync_ref_mod(cx, page, SyncMode::DontZero).intersects(used)
            || page.page().is_mapped();
    }
    page.page().is_mapped() || page.page().ref_mod().intersects(used)
}

/// Whether a page may not leave memory, for it is locked there or lent (V6).
fn stays(page: &Page, flags: PutFlags) -> bool {
    page.is_kept() && !flags.intersects(PutFlags::TRUNC | PutFlags::FORCE)
}

/// The pages of `vnode` with offsets in `[offset, offset + len)` (all from `offset` on when `len` is 0), in ascending order. Hints.
///
/// # Errors
/// [`NoHeap`] for the list.
pub fn pages_in(
    cx: &Cx,
    db: &PageDb,
    vnode: VnodeId,
    offset: FileOffset,
    len: u64,
) -> Result<Vec<(Identity, PageId)>, NoHeap> {
    let end = if len == 0 { u64::MAX } else { offset.0.saturating_add(len) };
    let first = offset.page_floor().0;
    let pages = end.saturating_sub(first).div_ceil(PAGE_SIZE);
    let mut found = Vec::new();
    if pages < db.vnode_page_count(cx, vnode) {
        for i in 0..pages {
            let id = Identity::new(vnode, FileOffset(first + i * PAGE_SIZE));
            if let Some(page) = db.exists(cx, id) {
                heap::push(&mut found, (id, page))?;
            }
        }
    } else {
        found = db.find_vnode_pages(cx, vnode, |id| (first..end).contains(&id.offset.0))?;
    }
    found.sort_unstable_by_key(|(id, _)| *id);
    Ok(found)
}

/// Writes the dirty pages of a range one by one through `write` and disposes of them: what a simple file system's `put_page` is.
///
/// # Errors
/// The first failure of `write` or of [`take`]; later pages are still attempted. [`VnodeError::NoMemory`] without heap for the list.
#[doc(alias("pvn_vplist_dirty", "pvn_write_kluster"))]
pub fn put_range(
    cx: &Cx,
    db: &PageDb,
    vnode: VnodeId,
    offset: FileOffset,
    len: u64,
    flags: PutFlags,
    write: impl FnMut(Identity, Pfn) -> Result<(), VnodeError>,
) -> Result<(), VnodeError> {
    let pages = pages_in(cx, db, vnode, offset, len);
    put_pages(cx, db, pages.map_err(|_| VnodeError::NoMemory { vnode, offset })?, flags, write)
}

/// As [`put_range`] for pages that [`pages_in`] has listed: for who must know that there is heap for the list before anything has changed.
///
/// # Errors
/// The first failure of `write` or of [`take`]; later pages are still attempted.
pub fn put_pages(
    cx: &Cx,
    db: &PageDb,
    pages: Vec<(Identity, PageId)>,
    flags: PutFlags,
    mut write: impl FnMut(Identity, Pfn) -> Result<(), VnodeError>,
) -> Result<(), VnodeError> {
    let mut result = Ok(());
    for (id, found) in pages {
        // A cached page is clean and free already; only invalidation has business with it.
        // What was found is a hint: the name may have gone to another page since, a dirty one.
        let page = db.page(found);
        let cached = page.is_free() && page.is(id);
        if cached && !flags.intersects(PutFlags::INVAL | PutFlags::TRUNC) {
            continue;
        }
        let dirty = match take(cx, db, id, flags) {
            Ok(Some(dirty)) => dirty,
            Ok(None) => continue,
            Err(e) => {
                result = result.and(Err(e));
                continue;
            }
        };
        let wrote = cx.blocking(|| write(id, dirty.page.pfn()));
        if wrote.is_ok() {
            count_written(cx, db, id.vnode);
        }
        let done = write_done(cx, db, dirty, wrote.is_ok(), flags);
        result = result.and(wrote).and(done);
    }
    result
}

/// Takes a page of a range that is put: dirty, or nothing, when it is disposed of already.
///
/// # Errors
/// [`VnodeError::Locked`] when it is to go and is locked in memory or lent; [`VnodeError::Deadlock`] when somebody has it, be it only for the time of a
/// transfer, and is not to be waited for (`NOWAIT`).
pub fn take<'a>(
    cx: &'a Cx,
    db: &'a PageDb,
    id: Identity,
    flags: PutFlags,
) -> Result<Option<DirtyPage<'a>>, VnodeError> {
    let Identity { vnode, offset } = id;
    let alone = PutFlags::INVAL | PutFlags::FREE | PutFlags::TRUNC;
    let nowait = flags.contains(PutFlags::NOWAIT);
    let wait = !only_tries(flags) && !nowait && !mutated(Mutation::HeldPagePassedOver);
    let missed = || match nowait && db.exists(cx, id).is_some() {
        true => Err(VnodeError::Deadlock { vnode, offset }),
        false => Ok(None),
    };
    if !flags.intersects(alone) {
        // To be retired or not: nobody has it by that, and once it is clean it can go.
        let page = if wait { db.lookup_shared(cx, id) } else { db.lookup_shared_now(cx, id) };
        let Some(page) = page else { return missed() };
        return match nowait {
            true if !db.io_trylock(&page) => missed(),
            true => Ok(get_in_transit_shared(cx, db, page, flags)),
            false => Ok(get_dirty_shared(cx, db, page, flags)),
        };
    }
    let page = if wait { db.lookup_excl_cached(cx, id) } else { db.try_lookup_excl_cached(cx, id) };
    let Some(page) = page else { return missed() };
    if page.page().is_free() {
        if flags.intersects(PutFlags::INVAL | PutFlags::TRUNC) {
            db.destroy(cx, page);
        }
        return Ok(None);
    }
    if flags.contains(PutFlags::INVAL) && stays(page.page(), flags) {
        return Err(VnodeError::Locked { vnode, offset });
    }
    if !nowait || (leaves(flags) && stays(page.page(), flags)) {
        return Ok(get_dirty(cx, db, page, flags));
    }
    match db.io_trylock(&page) {
        true => Ok(get_in_transit(cx, db, page, flags)),
        false => missed(),
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
