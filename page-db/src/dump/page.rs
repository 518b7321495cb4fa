//! `::page`: one line for each page structure.

use crate::cx::Cx;
use crate::db::PageDb;
use crate::mappings::RefMod;
use crate::page::PageId;
use crate::selock::SeState;
use crate::units::{FileOffset, Pfn};
use crate::vnode::VnodeId;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One page structure.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PageRow {
    /// The page.
    pub page: PageId,
    /// Its frame.
    pub pfn: Pfn,
    /// Whose page it is.
    pub vnode: Option<VnodeId>,
    /// Where in the vnode.
    pub offset: Option<FileOffset>,
    /// Who holds its lock.
    pub selock: SeState,
    /// Claims through shared or read-only mappings.
    pub lckcnt: u16,
    /// Claims through private writable mappings.
    pub cowcnt: u16,
    /// Contents in transit.
    pub io: bool,
    /// `p_state`, as bits.
    pub state: u8,
    /// Referenced and modified as kept on the page (`p_nrm`), as bits.
    pub nrm: u8,
    /// Translations.
    pub share: u32,
}

impl PageRow {
    /// The row of one page.
    pub fn of(cx: &Cx, db: &PageDb, id: PageId) -> Self {
        let p = db.page(id);
        let name = p.identity();
        Self {
            page: id,
            pfn: db.pfn(id),
            vnode: name.map(|n| n.vnode),
            offset: name.map(|n| n.offset),
            selock: db.lock_state(id),
            lckcnt: p.lckcnt(),
            cowcnt: p.cowcnt(),
            io: db.is_io_locked(id),
            state: p.state().bits(),
            nrm: p.ref_mod().bits(),
            share: db.share_count(cx, id),
        }
    }
    /// Referenced and modified as kept on the page, `-` for what is clear.
    pub fn ref_mod(&self) -> String {
        let bits = RefMod::from_bits_truncate(self.nrm);
        let letter = |bit, l| if bits.contains(bit) { l } else { '-' };
        [letter(RefMod::REF, 'r'), letter(RefMod::MOD, 'm')].into_iter().collect()
    }
}

impl fmt::Display for SeState {
    /// `-` free, `S` and the number of holders, `X` exclusive; `w` when an exclusive waiter is announced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = if self.wanted { "w" } else { "" };
        match (self.excl, self.shared) {
            (true, _) => f.pad(&alloc::format!("X{wanted}")),
            (false, 0) if self.wanted => f.pad("w"),
            (false, 0) => f.pad("-"),
            (false, n) => f.pad(&alloc::format!("S{n}{wanted}")),
        }
    }
}

impl fmt::Display for PageRow {
    /// One line with the facts named, for a single page.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page pfn={} ", self.pfn)?;
        match (self.vnode, self.offset) {
            (Some(v), Some(o)) => write!(f, "vp={v} off={o} ")?,
            _ => f.write_str("vp=- off=- ")?,
        }
        write!(
            f,
            "lock={} iolock={} lck={} cow={} state={:#x} nrm={} share={}",
            self.selock,
            u8::from(self.io),
            self.lckcnt,
            self.cowcnt,
            self.state,
            self.ref_mod(),
            self.share
        )
    }
}

/// Rows of `::page`.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PageTable {
    /// The pages, in the order asked for.
    pub rows: Vec<PageRow>,
}

impl PageTable {
    /// Every page with a name, by vnode and offset (`::walk page`).
    pub fn named(cx: &Cx, db: &PageDb) -> Self {
        let mut all = db.hash().all(cx, db.pages());
        all.sort_unstable();
        Self { rows: all.into_iter().map(|(_, id)| PageRow::of(cx, db, id)).collect() }
    }
    /// The pages of one vnode in the order of its page list, the last one added first.
    #[doc(alias = "v_pages")]
    pub fn of_vnode(cx: &Cx, db: &PageDb, vnode: VnodeId) -> Self {
        let rows = db.vnode_pages(cx, vnode).into_iter();
        Self { rows: rows.map(|id| PageRow::of(cx, db, id)).collect() }
    }
    /// The given pages.
    pub fn of(cx: &Cx, db: &PageDb, pages: impl IntoIterator<Item = PageId>) -> Self {
        Self { rows: pages.into_iter().map(|id| PageRow::of(cx, db, id)).collect() }
    }
    /// Every frame, by number.
    pub fn all(cx: &Cx, db: &PageDb) -> Self {
        Self::of(cx, db, db.pages().ids())
    }
}

impl fmt::Display for PageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>6} {:>5} {:>10} {:>6} {:>3} {:>3} {:>2} {:>2} {:>2} {:>6}",
            "PAGE", "VNODE", "OFFSET", "SELOCK", "LCT", "COW", "IO", "FS", "ST", "PFN"
        )?;
        for r in &self.rows {
            let vnode = r.vnode.map_or_else(|| String::from("-"), |v| alloc::format!("{v}"));
            let offset =
                r.offset.map_or_else(|| String::from("-"), |o| alloc::format!("{:x}", o.0));
            writeln!(
                f,
                "{:>6} {:>5} {:>10} {:>6} {:>3} {:>3} {:>2} {:>2} {:>2x} {:>6x}",
                r.page.link(),
                vnode,
                offset,
                r.selock,
                r.lckcnt,
                r.cowcnt,
                u8::from(r.io),
                0, // p_fsdata: no file system here keeps anything in it
                r.state,
                r.pfn.0
            )?;
        }
        Ok(())
    }
}
