//! `::memstat`: what the frames are used for.

use crate::cx::Cx;
use crate::db::PageDb;
use crate::page::PageState;
use crate::units::{PAGE_SIZE, PageCount};
use crate::vnode::VnodeKind;
use core::fmt;

/// One row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct MemRow {
    /// What the pages are.
    pub what: &'static str,
    /// How many.
    pub pages: PageCount,
    /// The same in megabytes (rounds down).
    pub mb: u64,
    /// The same in percent of physical memory (rounds down).
    pub percent: u64,
}

/// The summary. Every frame of memory is in exactly one of the first six fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct MemStat {
    /// Page tables, pages of the kernel's vnode, retired pages, and nameless pages in the hands of an operation.
    pub kernel: PageCount,
    /// Pages of swapfs vnodes.
    pub anon: PageCount,
    /// Pages of files that are run.
    pub exec: PageCount,
    /// Pages of other files.
    pub page_cache: PageCount,
    /// Free pages that keep their names.
    pub cachelist: PageCount,
    /// Free pages without names.
    pub freelist: PageCount,
    /// All frames that are memory.
    pub physical: PageCount,
}

impl MemStat {
    /// Classifies every frame of memory.
    pub fn of(_cx: &Cx, db: &PageDb) -> Self {
        let mut m = Self { physical: PageCount(db.free_mem().total()), ..Self::default() };
        for id in db.pages().ids() {
            let p = db.page(id);
            if p.state().contains(PageState::ABSENT) {
                continue;
            }
            let free = p.state().contains(PageState::FREE);
            let row = match (p.identity(), free) {
                (None, true) => &mut m.freelist,
                (Some(_), true) => &mut m.cachelist,
                (None, false) => &mut m.kernel,
                (Some(name), false) => match db.vnodes().kind(name.vnode) {
                    VnodeKind::Kernel => &mut m.kernel,
                    VnodeKind::Swap => &mut m.anon,
                    VnodeKind::Exec => &mut m.exec,
                    VnodeKind::File | VnodeKind::Device => &mut m.page_cache,
                },
            };
            row.0 += 1;
        }
        m
    }
    /// The rows in mdb's order.
    pub fn rows(&self) -> [MemRow; 8] {
        let total = self.physical;
        [
            ("Kernel", self.kernel),
            ("Anon", self.anon),
            ("Exec and libs", self.exec),
            ("Page cache", self.page_cache),
            ("Free (cachelist)", self.cachelist),
            ("Free (freelist)", self.freelist),
            ("Total", total),
            ("Physical", total),
        ]
        .map(|(what, pages)| MemRow {
            what,
            pages,
            mb: (pages.0 * PAGE_SIZE) >> 20,
            percent: pages.0 * 100 / total.0.max(1),
        })
    }
}

impl fmt::Display for MemStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Page Summary                Pages                MB  %Tot")?;
        writeln!(f, "------------     ----------------  ----------------  ----")?;
        for (i, r) in self.rows().iter().enumerate() {
            if i == 6 {
                writeln!(f)?;
            }
            write!(f, "{:<16} {:>16}  {:>16}", r.what, r.pages, r.mb)?;
            if i < 6 {
                write!(f, "  {:>3}%", r.percent)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
