//! Swap as people read it: the areas (`::swapinfo`, `swap -l`) and the sums (`swap -s`).

use crate::area::{AreaId, SwapArea};
use crate::fs::SwapFs;
use crate::reserve::AnonInfo;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use page_db::{PAGE_SIZE, WaitHooks};

/// One area at one moment.
#[doc(alias("swapent", "swapinfo"))]
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct AreaInfo {
    /// Which area.
    pub id: AreaId,
    /// The device's name.
    pub name: String,
    /// First page on the device.
    pub start: u64,
    /// Size in pages.
    pub pages: u64,
    /// Slots free.
    #[doc(alias = "si_nfpgs")]
    pub free: u64,
    /// Slots that could not be read and are kept out of use.
    pub bad: u64,
    /// Higher fills first.
    pub priority: i16,
    /// Being removed (`ST_INDEL | ST_DOINGDEL`).
    pub removing: bool,
}

impl AreaInfo {
    pub(crate) fn of(area: &SwapArea, hooks: &dyn WaitHooks) -> Self {
        let name = area.name().into();
        let slots = area.slots.lock_leaf(hooks);
        Self {
            id: area.id(),
            name,
            start: area.start(),
            pages: u64::from(area.pages()),
            free: u64::from(slots.free_count()),
            bad: u64::from(slots.bad_count()),
            priority: area.priority(),
            removing: slots.removal.is_some(),
        }
    }
}

/// The table of areas.
#[doc(alias("::swapinfo", "swap -l"))]
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct SwapInfo(pub Vec<AreaInfo>);

impl fmt::Display for SwapInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>4} {:>4} {:>10} {:>10} {:>10} {:>6} NAME",
            "AREA", "PRI", "START", "PAGES", "FREE", "BAD"
        )?;
        for a in &self.0 {
            write!(
                f,
                "\n{:>4} {:>4} {:>10} {:>10} {:>10} {:>6} {}",
                a.id.0, a.priority, a.start, a.pages, a.free, a.bad, a.name
            )?;
            if a.removing {
                f.write_str(" (INDEL)")?;
            }
        }
        Ok(())
    }
}

/// The sums of `swap -s`, in pages.
#[doc(alias("swap -s", "SC_AINFO"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct SwapSummary {
    /// Promised, and named by an anon.
    pub allocated: u64,
    /// Promised, and not yet named.
    pub reserved: u64,
    /// Promised.
    pub used: u64,
    /// Could still be promised.
    pub available: u64,
}

impl SwapSummary {
    /// The sums of the books.
    pub fn of(i: &AnonInfo) -> Self {
        let max = i.max + i.mem_resv + i.avail_mem;
        let allocated = max.saturating_sub(i.free + i.avail_mem);
        let used = i.reserved();
        Self {
            allocated,
            reserved: used.saturating_sub(allocated),
            used,
            available: max.saturating_sub(used),
        }
    }
}

impl fmt::Display for SwapSummary {
    /// The line `swap -s` prints, in kilobytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let k = |pages: u64| pages.saturating_mul(PAGE_SIZE / 1024);
        write!(
            f,
            "total: {}k bytes allocated + {}k reserved = {}k used, {}k available",
            k(self.allocated),
            k(self.reserved),
            k(self.used),
            k(self.available)
        )
    }
}

impl SwapFs {
    /// The table of areas.
    pub fn swapinfo(&self) -> SwapInfo {
        SwapInfo(self.list())
    }
    /// The sums of the books.
    pub fn summary(&self) -> SwapSummary {
        SwapSummary::of(&self.info())
    }
}
