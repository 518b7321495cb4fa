//! Anonymous memory: anons, the maps that hold them, and what they share.
//!
//! ```text
//!   seg_vn ──amp, index──▶ AnonMap ──radix──▶ chunk of 32 slots ──▶ anon number ──▶ refs, hint      (this module)
//!                                                                      │
//!                                                                      ├─ name: <swap vnode, offset>   computed (swapfs)
//!                                                                      └─ physical slot, if pushed      kept by swapfs
//! ```
//!
//! An **anon** is one page of anonymous memory, and here it is one number. What must be remembered beside the number is how
//! many slots of anon maps hold it ([`slot`]). Its page, if resident, is whatever the page hash finds under its name; the
//! hint kept beside the count is only tried first and always compared.
//!
//! - N1 (R1): an anon with more than one reference is mapped writable nowhere, except through shared mappings.
//! - N2 (I1): `refs` equals the number of slots that hold the number; a loan to anons holds them in the slots of a map, too.
//! - N3: only a holder of a slot may raise `refs`, with the slot busy; so whoever holds the only slot busy may trust `refs == 1` (R4).
//! - N4: `refs` may fall at any time. Whoever takes it to 0 frees, in this order: page (waiting for a push in flight), physical slot, number.
//!
//! An anon may have *borrowed* its bytes: they are in the page of a file, which is lent to it, until it needs one of its own ([`swapfs::borrow`]). Who wants
//! the page of an anon only to read it is given that one; nothing else here knows.
//!
//! Sources: [SI §9.6-9.7], [UVM §5]; illumos.md 5, uvm.md 1-2 and 7.2 (C1, C3, C5).

pub mod array;
pub mod busy;
mod copy;
pub mod cover;
pub(crate) mod free;
mod home;
pub mod lose;
pub mod map;
mod object;
mod promised;
mod radix;
pub mod slot;
pub mod slots;
#[cfg(test)]
mod tests;

pub use busy::SlotRun;
pub use home::{AnonHome, Homes};
pub use lose::Lost;
pub use map::{AnonMap, AnonMapId};
pub use slot::AnonTable;
pub use slots::SlotGuard;

use crate::anon::array::Block;
use crate::anon::array::Chunk;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::sync::Arena;
use page_db::{Cx, PageDb};
use swapfs::SwapFs;

/// What all anon maps of a machine share: the anons, and the stores their chunks come from.
#[derive(Debug)]
pub struct AnonLayer {
    db: Arc<PageDb>,
    swap: Arc<SwapFs>,
    pub(crate) anons: AnonTable,
    pub(crate) chunks: Arena<Chunk>,
    pub(crate) blocks: Arena<Block>,
    maps: home::Registries,
}

impl AnonLayer {
    /// An empty layer over `swap`. The pages are in the database that the names were registered with: in any other the same numbers name other things.
    pub fn new(swap: &Arc<SwapFs>) -> Arc<Self> {
        let db = Arc::clone(swap.db());
        let cpus = db.cpus();
        Arc::new(Self {
            db,
            swap: Arc::clone(swap),
            anons: AnonTable::default(),
            chunks: Arena::new("anon chunks", cpus, u32::MAX),
            blocks: Arena::new("anon map blocks", cpus, u32::MAX),
            maps: home::Registries::new(cpus),
        })
    }
    /// The pages.
    pub fn db(&self) -> &PageDb {
        &self.db
    }
    /// Names and places of anons.
    pub fn swap(&self) -> &SwapFs {
        &self.swap
    }
    /// References, by number.
    pub fn anons(&self) -> &AnonTable {
        &self.anons
    }
    /// The maps that live, by number; exact when nothing runs.
    pub fn maps(&self) -> Vec<Arc<AnonMap>> {
        self.maps.all(&**self.db().hooks())
    }
    /// A new anon with one reference, the caller's, and neither a page nor a place.
    pub(crate) fn fresh(&self, cx: &Cx) -> Result<swapfs::AnonNumber, swapfs::SwapError> {
        let n = self.swap.alloc(cx)?;
        self.start(cx, n).map(|_| n).ok_or(swapfs::SwapError::NoHeap { what: "anons" })
    }
    /// The record of a number just handed out, with one reference. Without heap for it the number goes back.
    #[inline]
    pub(crate) fn start(&self, cx: &Cx, n: swapfs::AnonNumber) -> Option<slot::Started<'_>> {
        let record = self.anons.start(n);
        if record.is_none() {
            self.swap.free(cx, n);
        }
        record
    }
    /// Checks that what is handed out of chunks and blocks is in some map (M4); exact when nothing runs. The text says what is not.
    ///
    /// # Errors
    /// The first kind of them that is not.
    pub fn verify(&self, cx: &Cx) -> Result<(), String> {
        let add = |(a, b): (u64, u64), (c, d)| (a + c, b + d);
        let (chunks, blocks) = self.maps().iter().map(|map| map.holds(cx)).fold((0, 0), add);
        for (what, live, held) in
            [("chunks", self.chunks.live(), chunks), ("blocks", self.blocks.live(), blocks)]
        {
            if live != held {
                return Err(alloc::format!("M4: {live} {what} are handed out, maps hold {held}"));
            }
        }
        Ok(())
    }
    /// Takes one reference from an anon; the last one frees page, physical slot and number (N4). No page lock may be held.
    #[doc(alias = "anon_decref")]
    pub fn unref(&self, cx: &Cx, n: swapfs::AnonNumber) {
        if self.anons.dec(n) > 0 {
            return;
        }
        // Unreachable from any map now; a push in flight may still hold the page.
        let (id, since) = (self.swap.identity(n), self.swap.removals_seen());
        if let Some(page) = self.db.lookup_excl(cx, id) {
            self.db.destroy(cx, page);
        }
        self.anons.forget(n);
        self.swap.free_run(cx, &[n], since);
    }
}
