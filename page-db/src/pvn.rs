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
//! - V2: modified is cleared *before* the write starts, so a store during the write makes the page modified again.
//! - V3: a failed write leaves the page resident and modified.
//! - V4: what was used during the write is not freed: a page found mapped, referenced or modified afterwards stays.
//! - V5: a clean page that nobody maps goes to the cache list whatever was asked, so that writing a file back does not keep it in use.
//!
//! Sources: illumos.md 7.8 (`pvn_getdirty`, `pvn_write_done`, `pvn_read_done`).

use crate::counters::Counter;
use crate::cx::Cx;
use crate::db::{PageDb, Reserve};
use crate::error::{PageError, VnodeError};
use crate::mappings::{RefMod, SyncMode};
use crate::page::PageId;
use crate::selock::{ExclPage, LockedPage, SharedPage};
use crate::units::{FileOffset, PAGE_SIZE, Pfn};
use crate::vnode::{Identity, PutFlags, VnodeId, VnodeKind};
use alloc::vec::Vec;

/// A page found or filled.
#[derive(Debug)]
pub struct Filled<'a> {
    /// The page, shared-locked.
    pub page: SharedPage<'a>,
    /// Whether `fill` ran.
    pub filled: bool,
}

/// Finds the page named `id`, or makes it and has `fill` give it contents. `fill` runs inside [`Cx::blocking`] with the page exclusive.
///
/// # Errors
/// [`VnodeError::NoMemory`], or what `fill` answered; then the page is gone again (V1).
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
            Err(_) => return Err(VnodeError::NoMemory { vnode: id.vnode, offset: id.offset }),
            Ok(page) => {
                let done = cx.blocking(|| fill(&page));
                page.end_io();
                return match done {
                    Ok(()) => Ok(Filled { page: page.downgrade(), filled: true }),
                    Err(e) => {
                        db.destroy(cx, page);
                        Err(e)
                    }
                };
            }
        }
    }
}

/// A dirty page on its way out: shared-locked, io-locked, already marked clean (V2).
#[derive(Debug)]
pub struct DirtyPage<'a> {
    /// The page.
    pub page: SharedPage<'a>,
    /// Its name.
    pub identity: Identity,
    /// Whether it was exclusive while its translations were removed (`FREE` or `INVAL`).
    pub unloaded: bool,
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
    let identity = page.identity()?;
    let leaves = flags.intersects(PutFlags::FREE | PutFlags::INVAL);
    if leaves && page.page().is_claimed() && !flags.intersects(PutFlags::TRUNC | PutFlags::FORCE) {
        return None;
    }
    if flags.contains(PutFlags::ASYNC) && !flags.contains(PutFlags::INVAL) {
        if !db.io_trylock(&page) {
            return None;
        }
    } else {
        cx.blocking(|| db.io_lock(cx, &page));
    }
    if leaves {
        db.unload(cx, &page);
    } else {
        db.sync_ref_mod(cx, &page, SyncMode::ZeroRm);
    }
    let dirty = page.page().ref_mod().contains(RefMod::MOD) && !flags.contains(PutFlags::TRUNC);
    if dirty {
        page.page().clear_ref_mod(RefMod::MOD | RefMod::REF);
        return Some(DirtyPage { page: page.downgrade(), identity, unloaded: leaves });
    }
    page.end_io();
    dispose(cx, db, page, flags);
    None
}

/// Frees, destroys or just unlocks a clean, exclusive page as `flags` say. Without `FREE` and `INVAL` it is released (V5).
#[doc(alias = "VN_DISPOSE")]
pub fn dispose(cx: &Cx, db: &PageDb, page: ExclPage<'_>, flags: PutFlags) {
    if flags.contains(PutFlags::INVAL) {
        db.destroy(cx, page);
    } else if !flags.contains(PutFlags::FREE) {
        db.release_excl(cx, page, true);
    } else if !page.page().is_mapped() && !page.page().is_claimed() {
        count_freed(cx, db, &page);
        db.free(cx, page, flags.contains(PutFlags::DONTNEED));
    }
}

/// Counts a page that page-out, or a push it started, is about to free.
pub(crate) fn count_freed(cx: &Cx, db: &PageDb, page: &dyn LockedPage) {
    cx.count(Counter::DFree);
    if let Some(id) = page.identity() {
        cx.count(match db.vnodes().kind(id.vnode) {
            VnodeKind::Swap => Counter::AnonFree,
            VnodeKind::Exec => Counter::ExecFree,
            _ => Counter::FsFree,
        });
    }
}

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
/// With `INVAL` the page must go: unless `ASYNC` is set too, readers that came during the write are waited for, so pages are handed in
/// one by one in the order of their offsets. Only a page stored to during the write stays even then: destroying it would lose bytes.
#[doc(alias = "pvn_write_done")]
pub fn write_done(cx: &Cx, db: &PageDb, dirty: DirtyPage<'_>, ok: bool, flags: PutFlags) {
    let id = dirty.page.id();
    if !ok {
        dirty.page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
    }
    db.io_unlock(id);
    if !ok {
        return;
    }
    let inval = flags.contains(PutFlags::INVAL);
    if !inval && !flags.contains(PutFlags::FREE) && dirty.page.page().is_mapped() {
        return;
    }
    let page = match dirty.page.try_upgrade() {
        Ok(page) => page,
        Err(shared) if inval && !flags.contains(PutFlags::ASYNC) => {
            drop(shared);
            let page = db.lock_excl_nested(cx, id);
            if page.identity() != Some(dirty.identity) {
                return; // destroyed by another, who was just as entitled
            }
            if page.page().is_free() {
                db.destroy(cx, page);
                return;
            }
            page
        }
        Err(_) => {
            cx.count(Counter::PgRec);
            return;
        }
    };
    let used = db.sync_ref_mod(cx, &page, SyncMode::DontZero);
    if inval {
        if !used.contains(RefMod::MOD) || flags.contains(PutFlags::TRUNC) {
            dispose(cx, db, page, flags);
        }
    } else if used.intersects(RefMod::REF | RefMod::MOD) || page.page().is_mapped() {
        cx.count(Counter::PgRec);
    } else {
        dispose(cx, db, page, flags);
    }
}

/// The pages of `vnode` with offsets in `[offset, offset + len)` (all from `offset` on when `len` is 0), in ascending order. Hints.
pub fn pages_in(
    cx: &Cx,
    db: &PageDb,
    vnode: VnodeId,
    offset: FileOffset,
    len: u64,
) -> Vec<(Identity, PageId)> {
    let end = if len == 0 { u64::MAX } else { offset.0.saturating_add(len) };
    let first = offset.page_floor().0;
    let pages = end.saturating_sub(first).div_ceil(PAGE_SIZE);
    let mut found: Vec<_> = if pages < db.vnode_page_count(cx, vnode) {
        (0..pages)
            .map(|i| Identity::new(vnode, FileOffset(first + i * PAGE_SIZE)))
            .filter_map(|id| db.exists(cx, id).map(|p| (id, p)))
            .collect()
    } else {
        let all = db.vnode_pages(cx, vnode).into_iter();
        all.filter_map(|p| db.page(p).identity().map(|id| (id, p)))
            .filter(|(id, _)| id.vnode == vnode && id.offset.0 >= first && id.offset.0 < end)
            .collect()
    };
    found.sort_unstable_by_key(|(id, _)| *id);
    found
}

/// Writes the dirty pages of a range one by one through `write` and disposes of them: what a simple file system's `put_page` is.
///
/// # Errors
/// The first failure of `write`; later pages are still attempted.
#[doc(alias("pvn_vplist_dirty", "pvn_write_kluster"))]
pub fn put_range(
    cx: &Cx,
    db: &PageDb,
    vnode: VnodeId,
    offset: FileOffset,
    len: u64,
    flags: PutFlags,
    mut write: impl FnMut(Identity, Pfn) -> Result<(), VnodeError>,
) -> Result<(), VnodeError> {
    let mut result = Ok(());
    for (id, found) in pages_in(cx, db, vnode, offset, len) {
        // A cached page is clean and free already; only invalidation has business with it.
        if db.page(found).is_free() && !flags.intersects(PutFlags::INVAL | PutFlags::TRUNC) {
            continue;
        }
        let wait = !flags.contains(PutFlags::ASYNC) || flags.contains(PutFlags::INVAL);
        let page = match wait {
            true => db.lookup_excl_cached(cx, id),
            false => db.try_lookup_excl(cx, id),
        };
        let Some(page) = page else { continue };
        if page.page().is_free() {
            if flags.intersects(PutFlags::INVAL | PutFlags::TRUNC) {
                db.destroy(cx, page);
            }
            continue;
        }
        if flags.contains(PutFlags::INVAL)
            && page.page().is_claimed()
            && !flags.intersects(PutFlags::TRUNC | PutFlags::FORCE)
        {
            result = result.and(Err(VnodeError::Locked { vnode, offset: id.offset }));
            continue;
        }
        let Some(dirty) = get_dirty(cx, db, page, flags) else { continue };
        let wrote = cx.blocking(|| write(id, dirty.page.pfn()));
        count_written(cx, db, vnode);
        write_done(cx, db, dirty, wrote.is_ok(), flags);
        result = result.and(wrote);
    }
    result
}
