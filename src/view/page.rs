//! `::page` and `::vnode`: pages by file and by frame, with who maps them.

use crate::machine::Machine;
use page_db::dump::{PageRow, PageTable};
use page_db::{Cx, PageDb, PageId, VnodeId, VnodeKind};
use serde::Serialize;
use std::fmt;

/// The pages of a file by offset.
pub fn of_file(cx: &Cx, db: &PageDb, vnode: VnodeId) -> PageTable {
    let mut table = PageTable::of_vnode(cx, db, vnode);
    table.rows.sort_by_key(|r| r.offset);
    table
}

/// A vnode and its page list, as the list goes.
#[doc(alias = "v_pages")]
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VnodePages {
    /// Its number.
    pub vnode: VnodeId,
    /// What it stands for.
    pub kind: VnodeKind,
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its pages, the last one added first.
    pub pages: PageTable,
}

impl VnodePages {
    /// The list now.
    pub fn of(machine: &Machine, vnode: VnodeId) -> Self {
        let (cx, db) = (machine.cx(), machine.db());
        let object = db.vnodes().object(vnode);
        Self {
            vnode,
            kind: db.vnodes().kind(vnode),
            name: object.as_ref().map_or_else(String::new, |o| o.name()),
            size: object.as_ref().map_or(0, |o| o.size()),
            pages: PageTable::of_vnode(cx, db, vnode),
        }
    }
}

impl fmt::Display for VnodePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vnode, kind, name, size, pages } = self;
        let count = pages.rows.len();
        writeln!(f, "vnode {vnode} {} {name} size {size:#x} pages {count}", kind.word())?;
        write!(f, "{pages}")
    }
}

/// One translation of a page.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MappingRow {
    /// The hat.
    pub hat: u32,
    /// The address.
    pub addr: u64,
    /// The entry, decoded.
    pub entry: String,
}

/// One frame: its page structure, its name, and every translation to it.
#[doc(alias("::whatpage", "hat_page_getshare"))]
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct WhatPage {
    /// The page structure.
    pub page: PageRow,
    /// Name of the vnode.
    pub name: Option<String>,
    /// Who maps it, by hat and address.
    pub mappings: Vec<MappingRow>,
}

impl WhatPage {
    /// Everything about a page.
    pub fn of(machine: &Machine, id: PageId) -> Self {
        let (cx, db) = (machine.cx(), machine.db());
        let page = PageRow::of(cx, db, id);
        let name = page.vnode.and_then(|v| db.vnodes().object(v)).map(|o| o.name());
        let mappings = machine.hat().mappings_of(cx, id).into_iter();
        let mappings = mappings
            .map(|(hat, va, pte)| MappingRow { hat, addr: va.get(), entry: pte.to_string() })
            .collect();
        Self { page, name, mappings }
    }
}

impl fmt::Display for WhatPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", PageTable { rows: vec![self.page.clone()] })?;
        if let Some(name) = &self.name {
            writeln!(f, "vnode name {name}")?;
        }
        for m in &self.mappings {
            writeln!(f, "mapped by hat {} at {:#x}: {}", m.hat, m.addr, m.entry)?;
        }
        if self.mappings.is_empty() {
            writeln!(f, "mapped by nobody")?;
        }
        Ok(())
    }
}
