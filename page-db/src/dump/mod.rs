//! The page layer as tables: mdb's words and columns, in an order that never depends on the host.
//!
//! | asked for | here | rows |
//! |---|---|---|
//! | `::page`, `::walk page` | [`PageTable`] | pages with a name, by name; of one vnode; one page |
//! | `::memstat` | [`MemStat`] | what frames are used for |
//! | `::vnode` | [`VnodeList`] | vnodes by number, with their pages counted |
//! | `::hash` | [`HashStat`] | chains by length |
//! | `::freelist` | [`FreeLists`] | free and cache lists by colour, magazines by CPU |
//! | `::vmstat` | [`VmStat`] | counters by kstat name |
//!
//! Each is a plain structure (for programs, and serde) with a `Display` (for people). They are taken without stopping
//! anything: exact when quiet.
//!
//! Sources: mdb's `memory.c` (columns); illumos.md 11.

mod lists;
mod memstat;
mod page;
mod stat;
#[cfg(all(test, not(shuttle)))]
mod tests;

pub use lists::{ColourRow, FreeLists, HashStat, VnodeList, VnodeRow};
pub use memstat::{MemRow, MemStat};
pub use page::{PageRow, PageTable};
pub use stat::VmStat;
