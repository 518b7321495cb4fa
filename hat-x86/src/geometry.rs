//! Levels, spans and indices of four-level paging, and the hole in the middle.
//!
//! ```text
//!   63      48 47    39 38    30 29    21 20    12 11        0
//!  ┌──────────┬────────┬────────┬────────┬────────┬───────────┐
//!  │ = bit 47 │ level 3│ level 2│ level 1│ level 0│  offset   │      a table: 512 entries of 8 bytes, one frame
//!  └──────────┴────────┴────────┴────────┴────────┴───────────┘
//!     entry spans   512 GiB    1 GiB    2 MiB    4 KiB
//! ```
//!
//! Addresses between the halves do not exist ([`VirtAddr`] cannot hold one), so arithmetic here stays within one half: a table is
//! described by its *base*, the first address it translates, and its *level*. The top table covers both halves; a hat
//! walks it from the first address of its own half.
//!
//! Sources: [SDM 3A §4.5], figure 4-8; illumos `i86pc/vm/htable.h` (numbering of levels from the leaf).

use page_db::{PAGE_SHIFT, VirtAddr, VirtRange};

/// Levels of tables: 0 maps 4 KiB pages, 3 is the top.
pub const LEVELS: u8 = 4;
/// The top level.
pub const TOP: u8 = LEVELS - 1;
/// Entries of a table.
pub const ENTRIES: usize = 512;
/// log2 of [`ENTRIES`].
const INDEX_BITS: u32 = 9;

/// log2 of the bytes that one entry of a table of `level` translates.
#[inline]
pub const fn shift(level: u8) -> u32 {
    PAGE_SHIFT + INDEX_BITS * level as u32
}
/// Bytes that one entry of a table of `level` translates.
#[inline]
pub const fn span(level: u8) -> u64 {
    1 << shift(level)
}
/// Bytes that a whole table of `level` translates (for the top: both halves and the hole).
#[inline]
pub const fn table_span(level: u8) -> u64 {
    1 << (shift(level) + INDEX_BITS)
}
/// The entry of a table of `level` that translates `addr`.
#[inline]
pub const fn index(addr: u64, level: u8) -> usize {
    ((addr >> shift(level)) as usize) & (ENTRIES - 1)
}
/// The base of the table of `level` that translates `addr`; 0 for the top table.
#[inline]
pub const fn table_base(addr: u64, level: u8) -> u64 {
    if level >= TOP { 0 } else { addr & !(table_span(level) - 1) }
}
/// The first address that entry `index` of a table with `base` and `level` translates, sign-extended over the hole.
#[inline]
pub const fn entry_base(base: u64, level: u8, index: usize) -> u64 {
    let addr = base + ((index as u64) << shift(level));
    if level == TOP && index >= ENTRIES / 2 { addr | 0xffff_0000_0000_0000 } else { addr }
}

/// First top-level entry of the upper half.
pub const KERNEL_TOP: usize = ENTRIES / 2;

/// The addresses the kernel's hat maps: one entry of the top table, 512 GiB.
///
/// Its level-2 table is made with the first hat and lasts as long as the machine, and every hat's top table carries the same
/// entry for it from birth. So the kernel's halves cannot diverge, and no top table is ever searched to be brought up to date.
#[doc(alias("kernelbase", "KERNELBASE"))]
pub const KERNEL_WINDOW: VirtRange = window(0xffff_fe00_0000_0000, span(TOP));

/// The window's entry of a top table: the one of the upper half that the hat knows of. The others are whatever a kernel has besides
/// ([`crate::Mmu::space_created`]).
pub const WINDOW_TOP: usize = index(KERNEL_WINDOW.start().get(), TOP);

/// The addresses user hats map: the whole lower half. Which of them a process may use is the business of its address space.
#[doc(alias("userlimit", "USERLIMIT"))]
pub const USER_WINDOW: VirtRange = window(0, VirtAddr::LOWER_END);

const fn window(start: u64, len: u64) -> VirtRange {
    match VirtRange::exact(start, len) {
        Ok(r) => r,
        Err(_) => panic!("a window is a range"),
    }
}

const _: () = assert!(
    KERNEL_WINDOW.start().get().is_multiple_of(span(TOP)),
    "the kernel's window is one top-level entry"
);
const _: () = assert!(WINDOW_TOP >= KERNEL_TOP, "P1: the window is in the upper half");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_indices() {
        let a = 0x0000_7f12_3456_7000;
        let parts = [index(a, 3), index(a, 2), index(a, 1), index(a, 0)];
        let back = (0..4).fold(0, |n, i| n + ((parts[i] as u64) << shift(TOP - i as u8)));
        assert_eq!(back, a);
        assert_eq!(table_base(a, 0), a & !0x1f_ffff);
        assert_eq!(table_base(a, TOP), 0);
    }

    #[test]
    fn the_upper_half_is_sign_extended() {
        assert_eq!(entry_base(0, TOP, 255), 0x0000_7f80_0000_0000);
        assert_eq!(entry_base(0, TOP, 256), VirtAddr::UPPER_START);
        let k = KERNEL_WINDOW.start().get();
        assert_eq!(entry_base(0, TOP, WINDOW_TOP), k);
    }
}
