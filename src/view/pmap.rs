//! `::pmap`, as pmap(1) prints it: what a process has mapped, with its heap and its stack by name.
//!
//! The table itself is `addr_space`'s; a process adds what it calls its ranges.

use crate::machine::Process;
use addr_space::dump::{Pmap, PmapRow};
use serde::Serialize;
use std::fmt;

/// The same table with the heap and the stack of `owner` called so.
pub fn named(mut table: Pmap, owner: Option<&Process>) -> Pmap {
    let Some(p) = owner else { return table };
    let (heap, top) = p.heap();
    let stack = p.stack();
    for row in table.rows.iter_mut().filter(|r| r.name == "[ anon ]") {
        if row.address >= heap && row.address < top {
            row.name = "[ heap ]".into();
        } else if stack.is_some_and(|s| row.address >= s.start().get() && row.address < s.end()) {
            row.name = "[ stack ]".into();
        }
    }
    table
}

/// Without residency: address, size, rights, name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(transparent)]
pub struct Brief(pub Pmap);

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PmapRow { address, kbytes, mode, name, .. } in &self.0.rows {
            writeln!(f, "{address:016x} {:>11} {mode} {name}", format!("{kbytes}K"))?;
        }
        let [kbytes, ..] = self.0.totals();
        writeln!(f, "{:>16} {:>11}", "total", format!("{kbytes}K"))
    }
}
