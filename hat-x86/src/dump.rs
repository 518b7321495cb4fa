//! `::htable` and `::vatopfn`: the tables as mdb shows them.
//!
//! Rows are plain values (they serialise); their `Display` is the canonical text of snapshots. Numbers of frames and tables are those of
//! this machine, handed out in order, so the same run prints the same text.
//!
//! Sources: illumos mdb `unix` module, `::htables`, `::vatopfn`, `::pte` (columns, restated).

use crate::geometry::{TOP, index};
use crate::provider::HatX86;
use crate::pte::X86Pte;
use crate::walker::narrow;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::atomic::Ordering::SeqCst;
use page_db::{Cx, Pfn, Prot, VirtAddr};

/// One page table.
#[doc(alias = "::htable")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct HTableRow {
    /// Its record's id.
    pub id: u32,
    /// Its hat.
    pub hat: u32,
    /// Its level; 3 is the top.
    pub level: u8,
    /// First address it translates.
    pub base: u64,
    /// Its frame.
    pub pfn: Pfn,
    /// Present entries.
    pub valid: u16,
    /// Locked translations.
    pub locks: u32,
}

/// The tables of a hat, the top first, each followed by those below it, by address.
#[doc(alias("::htables", "::htable"))]
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct HTableTree {
    /// The hat.
    pub hat: u32,
    /// Its tables.
    pub tables: Vec<HTableRow>,
}

impl fmt::Display for HTableTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<8} {:>18} {:>5} {:>8} {:>5} {:>5}",
            "LEVEL", "VADDR", "ID", "PFN", "VALID", "LOCKS"
        )?;
        for t in &self.tables {
            let (indent, pad) = (usize::from(TOP - t.level), 5 + usize::from(t.level));
            writeln!(
                f,
                "{:indent$}{:<pad$} {:>#18x} {:>5} {:>#8x} {:>5} {:>5}",
                "", t.level, t.base, t.id, t.pfn.0, t.valid, t.locks
            )?;
        }
        Ok(())
    }
}

/// One step of a translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct VatopfnStep {
    /// Level of the table.
    pub level: u8,
    /// Frame of the table.
    pub table: Pfn,
    /// Entry used.
    pub index: usize,
    /// Its contents.
    pub entry: X86Pte,
}

/// How an address is translated, level by level.
#[doc(alias = "::vatopfn")]
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Vatopfn {
    /// The hat.
    pub hat: u32,
    /// The address.
    pub va: u64,
    /// From the top to the leaf or the absent entry.
    pub steps: Vec<VatopfnStep>,
    /// The frame and the effective rights, if there is a translation.
    pub pfn: Option<(Pfn, Prot)>,
}

impl fmt::Display for Vatopfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for s in &self.steps {
            writeln!(
                f,
                "level={} htable={:#x} entry={:<3} {}",
                s.level, s.table.0, s.index, s.entry
            )?;
        }
        match self.pfn {
            Some((pfn, prot)) => {
                let user = if prot.contains(Prot::USER) { " user" } else { "" };
                writeln!(f, "virtual {:#x} mapped to pfn {:#x} {prot}{user}", self.va, pfn.0)
            }
            None => writeln!(f, "virtual {:#x} not mapped", self.va),
        }
    }
}

impl HatX86 {
    /// The tables of a hat; `None` if there is no such hat.
    pub fn dump_tables(&self, cx: &Cx, hat: u32) -> Option<HTableTree> {
        let st = self.state(cx, hat)?;
        let mut tables = Vec::new();
        self.each_table(&st, &mut |id| {
            let t = self.tables.get(id);
            tables.push(HTableRow {
                id,
                hat,
                level: t.level(),
                base: t.base(),
                pfn: t.pfn(),
                valid: t.valid(),
                locks: t.locks(),
            });
        });
        Some(HTableTree { hat, tables })
    }
    /// How a hat's tables translate any address, the kernel's half included; `None` if there is no such hat. Marks nothing.
    pub fn vatopfn(&self, cx: &Cx, hat: u32, va: VirtAddr) -> Option<Vatopfn> {
        let st = self.state(cx, hat)?;
        let (mut table, mut prot) = (self.root_pfn(&st), Prot::RWX | Prot::USER);
        let mut out = Vatopfn { hat, va: va.get(), steps: Vec::new(), pfn: None };
        for level in (0..=TOP).rev() {
            if self.db.page_of(table).is_none() {
                break; // not a table of ours
            }
            let index = index(va.get(), level);
            let entry = X86Pte(self.db.word(table, index).load(SeqCst));
            out.steps.push(VatopfnStep { level, table, index, entry });
            if !entry.is_present() {
                break;
            }
            prot = narrow(prot, entry);
            if entry.is_leaf(level) {
                out.pfn = Some((entry.pfn(), prot));
                break;
            }
            table = entry.pfn();
        }
        Some(out)
    }
}
