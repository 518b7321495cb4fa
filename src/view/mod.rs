//! Views: which tables there are, and how they are asked for.
//!
//! A table's printer belongs to the crate that owns the structure (its `dump` module); here it is asked for by name, for a process or a
//! file of a machine, and turned into text or JSON. Two things are put together here because no single owner knows all of it: the plain
//! [`pmap`], which knows what a process calls its heap and its stack, and the [`walk`] from an address down to its page.
//!
//! | view | table |
//! |---|---|
//! | `::segtree` `::seg` `::pmap` | `addr_space::dump`, [`pmap`] |
//! | `::anon` | `seg_drivers::dump` |
//! | `::page` `::vnode` `::memstat` `::hash` `::vmstat` | `page_db::dump` |
//! | `::htable` `::vatopfn` | `hat_x86::dump` |
//! | `::swapinfo` | `swapfs::dump` |
//! | `::walk` | [`walk`] |

pub mod anon;
pub mod page;
pub mod pmap;
pub mod swap;
pub mod walk;

use crate::machine::{Machine, MachineWorld, Process};
use crate::script::ast::{SpaceRef, ViewKind};
use crate::script::world::{FileSlot, ProcSlot, View, ViewCall, ViewError};
use addr_space::AddrSpace;
use page_db::dump::{HashStat, MemStat, PageTable, VmStat};
use page_db::{PageId, Pfn, VirtAddr};
use serde::Serialize;
use std::fmt::Display;
use std::sync::Arc;

/// A table as text and as JSON.
fn shown<T: Display + Serialize>(table: &T, json: bool) -> Result<View, ViewError> {
    let mut text = table.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let json = if json {
        serde_json::to_string(table).map_err(|e| ViewError::Failed(e.to_string()))?
    } else {
        String::new()
    };
    Ok(View { text, json })
}

/// An address of either half.
fn address(addr: u64) -> Result<VirtAddr, ViewError> {
    VirtAddr::new(addr).map_err(|e| ViewError::Failed(e.to_string()))
}

/// A process's address space, or the kernel's.
fn space(world: &MachineWorld, space: &SpaceRef<ProcSlot>) -> Result<Arc<AddrSpace>, ViewError> {
    match space {
        SpaceRef::Kernel => Ok(Arc::clone(world.machine().kas())),
        SpaceRef::Process(p) => Ok(process(world, *p)?.space()),
    }
}

fn process(world: &MachineWorld, slot: ProcSlot) -> Result<&Process, ViewError> {
    world.process(slot).ok_or(ViewError::NoProcess(slot))
}

fn vnode(world: &MachineWorld, slot: FileSlot) -> Result<page_db::VnodeId, ViewError> {
    use page_db::Vnode as _;
    world.file_in(slot).map(|f| f.vnode.id()).ok_or(ViewError::NoFile(slot))
}

fn page_at(machine: &Machine, pfn: u64) -> Result<PageId, ViewError> {
    let page = machine.db().page_of(Pfn(pfn));
    page.ok_or_else(|| ViewError::Failed(format!("frame {pfn:#x} is not memory of this machine")))
}

/// Shows a view of a scripted machine.
///
/// # Errors
/// [`ViewError`]: a process that does not live, a file that was not made, a name or number that stands for nothing.
pub fn show(world: &MachineWorld, call: &ViewCall) -> Result<View, ViewError> {
    let machine = world.machine();
    let (cx, db, json) = (machine.cx(), machine.db(), call.json);
    let no_hat = || ViewError::Failed("the process has no page tables any more".into());
    match &call.kind {
        ViewKind::Pmap { space: of, extended } => {
            let owner = match of {
                SpaceRef::Process(p) => Some(process(world, *p)?),
                SpaceRef::Kernel => None,
            };
            let table = pmap::named(space(world, of)?.pmap(cx), owner);
            if *extended { shown(&table, json) } else { shown(&pmap::Brief(table), json) }
        }
        ViewKind::Seg(of) => shown(&space(world, of)?.seg_table(cx), json),
        ViewKind::SegTree(of) => shown(&space(world, of)?.seg_tree(cx), json),
        ViewKind::Anon(p, addr) => {
            let addr = addr.map(address).transpose()?;
            shown(&anon::AnonTable::of(process(world, *p)?, addr), json)
        }
        ViewKind::Pages => shown(&PageTable::named(cx, db), json),
        ViewKind::FilePages(f) => shown(&page::of_file(cx, db, vnode(world, *f)?), json),
        ViewKind::PageAt(pfn) => shown(&page::WhatPage::of(machine, page_at(machine, *pfn)?), json),
        ViewKind::Memstat => shown(&MemStat::of(cx, db), json),
        ViewKind::Vnode(f) => shown(&page::VnodePages::of(machine, vnode(world, *f)?), json),
        ViewKind::Hash => shown(&HashStat::of(cx, db), json),
        ViewKind::VaToPfn(p, addr) => {
            let hat = process(world, *p)?.space().hat().id();
            let steps = machine.hat().vatopfn(cx, hat, address(*addr)?);
            shown(&steps.ok_or_else(no_hat)?, json)
        }
        ViewKind::HTable(p) => {
            let hat = process(world, *p)?.space().hat().id();
            shown(&machine.hat().dump_tables(cx, hat).ok_or_else(no_hat)?, json)
        }
        ViewKind::SwapInfo => shown(&swap::Swap::of(machine), json),
        ViewKind::VmStat(names) => {
            let counted = machine.counters().snapshot();
            let table = if names.is_empty() {
                VmStat::counted(&counted)
            } else {
                VmStat::chosen(&counted, names.iter().map(String::as_str))
                    .map_err(|name| ViewError::Failed(format!("there is no counter `{name}`")))?
            };
            shown(&table, json)
        }
        ViewKind::Walk(p, addr) => {
            shown(&walk::Walk::of(process(world, *p)?, address(*addr)?), json)
        }
    }
}

#[cfg(test)]
mod tests;
