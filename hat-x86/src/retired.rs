//! Frames of unlinked tables on their way back, in lists that ask for no memory.
//!
//! Tables go back where nothing may fail: at the end of an unmap, at a process's end, and when memory is short. So the list of them is made of what they have
//! already, the records, which stay theirs until the frame is free again:
//!
//! ```text
//!   FlushDue::retired ─▶ HTable ─link─▶ HTable ─link─▶ 0      the debt's, until it is paid (F3)
//!   RetiredTables ─────▶   ...                                the backend's, while Mmu::retire_tables lasts
//!   KeptTables ────────▶   ...                                the backend's, from that call to a later one
//! ```
//!
//! A record is in one list at a time, and a list is one owner's: whoever has it exclusively reads and writes the links. A backend that keeps
//! frames for later has a list, or several, under a lock of its own.
//!
//! The other roads: an array, which asks the heap or has an end; a link in the frame itself, which a processor may still walk while the backend keeps it.

use crate::htable::HTable;
use core::fmt;
use page_db::Pfn;
use page_db::sync::Arena;
use page_db::sync::atomic::Ordering::Relaxed;

/// The frames that [`Mmu::retire_tables`](crate::Mmu::retire_tables) is handed: each comes out once, or goes into a [`KeptTables`]. What is still in it when that call
/// returns is lost to the machine.
pub struct RetiredTables<'a> {
    tables: &'a Arena<HTable>,
    /// Id of the first; 0 for none.
    first: u32,
}

/// Frames of tables that a backend keeps for later. Dropped, they are lost to the machine.
#[derive(Debug, Default)]
pub struct KeptTables {
    /// Id of the first; 0 for none.
    first: u32,
}

impl KeptTables {
    /// None; the same as the default.
    pub const fn new() -> Self {
        Self { first: 0 }
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first == 0
    }
}

impl<'a> RetiredTables<'a> {
    pub(crate) fn new(tables: &'a Arena<HTable>, first: u32) -> Self {
        Self { tables, first }
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.first == 0
    }
    /// Moves all that are left here into `kept`, before those there. As many steps as there are left.
    pub fn keep(&mut self, kept: &mut KeptTables) {
        splice(self.tables, &mut self.first, &mut kept.first);
    }
    /// Moves all of `kept`, which were handed over by this hat, here, before those that are left. As many steps as were kept.
    pub fn bring_back(&mut self, kept: &mut KeptTables) {
        splice(self.tables, &mut kept.first, &mut self.first);
    }
}

/// Puts all of the list `from` before the list `to`.
fn splice(tables: &Arena<HTable>, from: &mut u32, to: &mut u32) {
    let (first, mut last) = (core::mem::take(from), 0);
    let mut id = first;
    while id != 0 {
        last = id;
        id = tables.get(id).link.load(Relaxed);
    }
    if last != 0 {
        tables.get(last).link.store(*to, Relaxed);
        *to = first;
    }
}

impl Iterator for RetiredTables<'_> {
    type Item = Pfn;

    /// Takes the next one out; it is whoever asks's to free, or to keep by himself.
    fn next(&mut self) -> Option<Pfn> {
        if self.first == 0 {
            return None;
        }
        // The link first: the record may be another table's as soon as the frame is free.
        let rec = self.tables.get(self.first);
        self.first = rec.link.load(Relaxed);
        Some(rec.pfn())
    }
}

impl fmt::Debug for RetiredTables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetiredTables").field("first", &self.first).finish_non_exhaustive()
    }
}
