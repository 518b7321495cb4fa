//! `::vmstat`: counters by their kstat names.

use crate::counters::{Counter, Snapshot};
use alloc::vec::Vec;
use core::fmt;

/// Chosen counters of one snapshot (or of the difference of two), in the order of [`Counter::ALL`] or as asked for.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct VmStat {
    /// Name and value.
    pub rows: Vec<(&'static str, u64)>,
}

impl VmStat {
    /// Every counter.
    pub fn all(s: &Snapshot) -> Self {
        Self { rows: s.iter().collect() }
    }
    /// Every counter that is not 0, but for those that only debug builds keep: the table is the same in every build.
    pub fn counted(s: &Snapshot) -> Self {
        let kept = Counter::ALL.iter().filter(|c| !c.is_debug_only());
        Self { rows: kept.map(|c| (c.name(), s.get(*c))).filter(|(_, n)| *n != 0).collect() }
    }
    /// The counters with these names, in this order.
    ///
    /// # Errors
    /// The first name that no counter has.
    pub fn chosen<'n>(
        s: &Snapshot,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<Self, &'n str> {
        let find = |name| {
            let counter = Counter::ALL.iter().find(|c| c.name() == name).ok_or(name)?;
            Ok((counter.name(), s.get(*counter)))
        };
        Ok(Self { rows: names.into_iter().map(find).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for VmStat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
        for (name, n) in &self.rows {
            writeln!(f, "{name:<width$} {n}")?;
        }
        Ok(())
    }
}
