//! Vnodes and their pages, hash chains, free and cache lists.

use crate::cx::Cx;
use crate::db::PageDb;
use crate::vnode::{VnodeId, VnodeKind};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One vnode.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct VnodeRow {
    /// Its number.
    pub vnode: VnodeId,
    /// What it stands for.
    pub kind: VnodeKind,
    /// Pages on its list, cached ones too.
    pub pages: u64,
    /// Of those, on the cache list.
    pub cached: u64,
    /// Size in bytes; 0 without an object.
    pub size: u64,
    /// Its name; `-` without an object.
    pub name: String,
}

/// `::vnode`: the vnodes by number.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct VnodeList {
    /// One row for each.
    pub rows: Vec<VnodeRow>,
}

impl VnodeList {
    /// Every vnode in use.
    pub fn of(cx: &Cx, db: &PageDb) -> Self {
        let row = |vnode| {
            let pages = db.vnode_pages(cx, vnode);
            let object = db.vnodes().object(vnode);
            VnodeRow {
                vnode,
                kind: db.vnodes().kind(vnode),
                pages: pages.len() as u64,
                cached: pages.iter().filter(|p| db.page(**p).is_free()).count() as u64,
                size: object.as_ref().map_or(0, |o| o.size()),
                name: object.map_or_else(|| String::from("-"), |o| o.name()),
            }
        };
        Self { rows: db.vnodes().ids().map(row).collect() }
    }
}

impl VnodeKind {
    /// The word tables print.
    pub fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Exec => "exec",
            Self::Swap => "swap",
            Self::Kernel => "kernel",
            Self::Device => "device",
        }
    }
}

impl fmt::Display for VnodeList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>5} {:<6} {:>7} {:>7} {:>10} NAME",
            "VNODE", "KIND", "PAGES", "CACHED", "SIZE"
        )?;
        for r in &self.rows {
            let (kind, size) = (r.kind.word(), alloc::format!("{:x}", r.size));
            writeln!(
                f,
                "{:>5} {kind:<6} {:>7} {:>7} {size:>10} {}",
                r.vnode.0, r.pages, r.cached, r.name
            )?;
        }
        Ok(())
    }
}

/// `::hash`: the shape of the page hash.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct HashStat {
    /// Which implementation.
    pub name: &'static str,
    /// Chains with 0, 1, 2, ... pages; the last counts everything longer.
    pub chains: Vec<u64>,
    /// Pages in the table.
    pub pages: u64,
}

impl HashStat {
    /// The hash of `db`.
    pub fn of(cx: &Cx, db: &PageDb) -> Self {
        Self {
            name: db.hash().name(),
            chains: db.hash().chain_lengths(cx, db.pages()),
            pages: db.hash().all(cx, db.pages()).len() as u64,
        }
    }
}

impl fmt::Display for HashStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "page_hash {}: {} pages in {} chains",
            self.name,
            self.pages,
            self.chains.iter().sum::<u64>()
        )?;
        writeln!(f, "{:>6} {:>9}", "LENGTH", "CHAINS")?;
        let last = self.chains.len().saturating_sub(1);
        for (n, chains) in self.chains.iter().enumerate().filter(|(_, c)| **c != 0) {
            let more = if n == last && n > 1 { "+" } else { "" };
            writeln!(f, "{:>6} {chains:>9}", alloc::format!("{n}{more}"))?;
        }
        Ok(())
    }
}

/// The lists of one colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ColourRow {
    /// The colour (`bin`).
    pub bin: u64,
    /// Pages on its free list.
    pub free: u64,
    /// Pages on its cache list.
    pub cached: u64,
}

/// `::freelist`: where the free frames are.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct FreeLists {
    /// One row for each colour.
    pub colours: Vec<ColourRow>,
    /// Frames in the magazine of each CPU.
    pub magazines: Vec<u64>,
    /// Pages free altogether.
    pub freemem: u64,
}

impl FreeLists {
    /// The lists of `db`.
    pub fn of(cx: &Cx, db: &PageDb) -> Self {
        let free = db.free_list().snapshot(cx, db.pages());
        let cached = db.cache_list().snapshot(cx, db.pages());
        let rows = free.iter().zip(&cached).zip(0u64..).map(|((f, c), bin)| ColourRow {
            bin,
            free: f.len() as u64,
            cached: c.len() as u64,
        });
        Self {
            colours: rows.collect(),
            magazines: db.free_list().magazines(cx).iter().map(|m| m.len() as u64).collect(),
            freemem: db.freemem(),
        }
    }
}

impl fmt::Display for FreeLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>5} {:>9} {:>9}", "BIN", "FREE", "CACHED")?;
        for r in &self.colours {
            writeln!(f, "{:>5} {:>9} {:>9}", r.bin, r.free, r.cached)?;
        }
        for (cpu, frames) in self.magazines.iter().enumerate().filter(|(_, n)| **n != 0) {
            writeln!(f, "cpu {cpu} holds {frames} in its magazine")?;
        }
        writeln!(f, "freemem {}", self.freemem)
    }
}
