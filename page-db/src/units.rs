//! Addresses, ranges and counts as types, and every conversion between them.
//!
//! A bare integer in this system means nothing until its unit is known, and most of the wrap-around defects of thirty
//! years of virtual memory are an addition in the wrong unit. So the checks happen once, here, where a value enters:
//!
//! - U1: a [`VirtAddr`] is canonical: bits 48..64 repeat bit 47.
//! - U2: a [`VirtRange`] is page-aligned, not empty, lies in one canonical half, and its end does not wrap.
//! - U3: rounding is said in the name: `floor`, `covering` (rounds outwards), `exact` (refuses to round).
//!
//! The code behind these types has no such cases. Sources: [SDM 3A §3.3.7.1] for canonical addresses.

use core::fmt;

/// Bytes in a base page (the only size populated for now).
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Mask of the byte offset within a page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// Why a number is not an address or a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// Bits 48..64 do not repeat bit 47.
    #[error("address {0:#x} lies in the non-canonical hole")]
    NonCanonical(u64),
    /// The start is not a multiple of the page size.
    #[error("address {0:#x} is not page-aligned")]
    Misaligned(u64),
    /// The length is not a multiple of the page size.
    #[error("length {0:#x} is not a whole number of pages")]
    PartialPage(u64),
    /// The length is zero.
    #[error("range at {0:#x} is empty")]
    Empty(u64),
    /// Start plus length passes the end of the canonical half it starts in.
    #[error("range {start:#x}+{len:#x} wraps or leaves its canonical half")]
    Wraps {
        /// First byte asked for.
        start: u64,
        /// Length in bytes asked for.
        len: u64,
    },
}

/// A canonical virtual address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// First address past the lower (user) half.
    pub const LOWER_END: u64 = 0x0000_8000_0000_0000;
    /// First address of the upper (kernel) half.
    pub const UPPER_START: u64 = 0xffff_8000_0000_0000;

    /// Takes a canonical address.
    ///
    /// # Errors
    /// [`UnitError::NonCanonical`] for an address inside the hole.
    pub const fn new(addr: u64) -> Result<Self, UnitError> {
        if addr < Self::LOWER_END || addr >= Self::UPPER_START {
            Ok(Self(addr))
        } else {
            Err(UnitError::NonCanonical(addr))
        }
    }
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The start of the page this address lies in (rounds down).
    #[must_use]
    pub const fn page_floor(self) -> Self {
        Self(self.0 & !PAGE_MASK)
    }
    /// Byte offset within the page.
    pub const fn page_offset(self) -> u64 {
        self.0 & PAGE_MASK
    }
    /// Whether the address is a multiple of the page size.
    pub const fn is_page_aligned(self) -> bool {
        self.0 & PAGE_MASK == 0
    }
    /// Whether the address belongs to the upper half.
    pub const fn is_kernel(self) -> bool {
        self.0 >= Self::UPPER_START
    }
    /// The address `bytes` further on.
    ///
    /// # Errors
    /// [`UnitError::Wraps`] when the sum wraps, [`UnitError::NonCanonical`] when it lands in the hole.
    pub const fn checked_add(self, bytes: u64) -> Result<Self, UnitError> {
        match self.0.checked_add(bytes) {
            Some(a) => Self::new(a),
            None => Err(UnitError::Wraps { start: self.0, len: bytes }),
        }
    }
    /// Virtual page number: the address divided by the page size (rounds down).
    pub const fn vpn(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::LowerHex for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// A page-aligned, half-open, non-empty range of virtual addresses within one canonical half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtRange {
    start: VirtAddr,
    len: u64,
}

impl VirtRange {
    /// The range `[start, start + len)`; nothing is rounded.
    ///
    /// # Errors
    /// Any [`UnitError`]: misaligned start, partial page, empty, wrapping or crossing into the hole.
    pub const fn exact(start: u64, len: u64) -> Result<Self, UnitError> {
        if start & PAGE_MASK != 0 {
            return Err(UnitError::Misaligned(start));
        }
        if len & PAGE_MASK != 0 {
            return Err(UnitError::PartialPage(len));
        }
        Self::covering(start, len)
    }
    /// The pages that hold the bytes `[start, start + len)`: the start rounds down, the end up.
    ///
    /// # Errors
    /// [`UnitError::Empty`], [`UnitError::NonCanonical`] or [`UnitError::Wraps`].
    pub const fn covering(start: u64, len: u64) -> Result<Self, UnitError> {
        if len == 0 {
            return Err(UnitError::Empty(start));
        }
        let base = match VirtAddr::new(start) {
            Ok(a) => a.page_floor(),
            Err(e) => return Err(e),
        };
        let wraps = UnitError::Wraps { start, len };
        let Some(end) = start.checked_add(len) else { return Err(wraps) };
        let Some(end) = end.checked_add(PAGE_MASK) else { return Err(wraps) };
        let end = end & !PAGE_MASK;
        if !base.is_kernel() && end > VirtAddr::LOWER_END {
            return Err(wraps);
        }
        Ok(Self { start: base, len: end - base.0 })
    }
    /// The single page that holds `addr`. The last page of all ends where no number points: its [`VirtRange::end`] is that of its last byte.
    pub const fn page_of(addr: VirtAddr) -> Self {
        Self { start: addr.page_floor(), len: PAGE_SIZE }
    }
    /// First address.
    pub const fn start(self) -> VirtAddr {
        self.start
    }
    /// Length in bytes, a multiple of the page size, never zero.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty (U2)")]
    pub const fn len(self) -> u64 {
        self.len
    }
    /// First byte past the range. May be the first address of the hole, hence a bare number.
    pub const fn end(self) -> u64 {
        self.start.0.saturating_add(self.len)
    }
    /// Last byte of the range.
    const fn last(self) -> u64 {
        self.start.0 + (self.len - 1)
    }
    /// Number of pages.
    pub const fn pages(self) -> PageCount {
        PageCount(self.len >> PAGE_SHIFT)
    }
    /// Whether `addr` lies in the range.
    pub const fn contains(self, addr: VirtAddr) -> bool {
        addr.0 >= self.start.0 && addr.0 - self.start.0 < self.len
    }
    /// Whether every byte of `other` lies in the range.
    pub const fn covers(self, other: Self) -> bool {
        other.start.0 >= self.start.0 && other.last() <= self.last()
    }
    /// The common part, if any.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let start = self.start.0.max(other.start.0);
        let last = self.last().min(other.last());
        (start <= last).then(|| Self { start: VirtAddr(start), len: last - start + 1 })
    }
    /// The part from `addr` (page-aligned, inside or at the end) on; `None` when nothing is left.
    pub fn from(self, addr: u64) -> Option<Self> {
        let start = addr & !PAGE_MASK;
        let inside = addr >= self.start.0 && addr - self.start.0 < self.len;
        inside.then(|| Self { start: VirtAddr(start), len: self.len - (start - self.start.0) })
    }
    /// The part below `addr` (page-aligned, inside or at the end); `None` when nothing is left.
    pub fn until(self, addr: u64) -> Option<Self> {
        let addr = addr & !PAGE_MASK;
        (addr > self.start.0 && addr <= self.end())
            .then(|| Self { start: self.start, len: addr - self.start.0 })
    }
    /// Index of the page that holds `addr`, counted from the start; 0 for an address below it. Not checked against the end.
    pub const fn page_index(self, addr: VirtAddr) -> u64 {
        addr.0.saturating_sub(self.start.0) >> PAGE_SHIFT
    }
    /// Address of the page with index `index`, counted from the start (not checked against the end).
    pub const fn page_at(self, index: u64) -> VirtAddr {
        VirtAddr(self.start.0 + (index << PAGE_SHIFT))
    }
    /// The addresses of the pages, upwards.
    pub fn iter_pages(self) -> impl DoubleEndedIterator<Item = VirtAddr> + Clone {
        (0..self.pages().get()).map(move |i| self.page_at(i))
    }
    /// The same-length range moved so that it starts at `start`.
    ///
    /// # Errors
    /// As [`VirtRange::exact`].
    pub const fn at(self, start: u64) -> Result<Self, UnitError> {
        Self::exact(start, self.len)
    }
}

impl fmt::Debug for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end())
    }
}
impl fmt::Display for VirtRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end())
    }
}

/// A physical byte address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PhysAddr(pub u64);

impl PhysAddr {
    /// The frame the address lies in (rounds down).
    pub const fn pfn(self) -> Pfn {
        Pfn(self.0 >> PAGE_SHIFT)
    }
}

/// A page frame number: a physical address divided by the page size.
#[doc(alias = "pfn_t")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct Pfn(pub u64);

impl Pfn {
    /// Address of the frame's first byte.
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }
}
impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number of pages.
#[doc(alias = "pgcnt_t")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct PageCount(pub u64);

impl PageCount {
    /// Pages needed to hold `bytes` (rounds up).
    #[doc(alias = "btopr")]
    pub const fn covering(bytes: u64) -> Self {
        Self(bytes.div_ceil(PAGE_SIZE))
    }
    /// Whole pages in `bytes` (rounds down).
    #[doc(alias = "btop")]
    pub const fn within(bytes: u64) -> Self {
        Self(bytes >> PAGE_SHIFT)
    }
    /// The count.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// The same in bytes; `None` when that passes 2^64.
    #[doc(alias = "ptob")]
    pub const fn bytes(self) -> Option<u64> {
        self.0.checked_mul(PAGE_SIZE)
    }
}
impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A byte offset in a vnode.
#[doc(alias = "u_offset_t")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct FileOffset(pub u64);

impl FileOffset {
    /// Offset of page number `index`; `None` when it passes 2^64.
    pub const fn of_page(index: u64) -> Option<Self> {
        match index.checked_mul(PAGE_SIZE) {
            Some(b) => Some(Self(b)),
            None => None,
        }
    }
    /// Start of the page the offset lies in (rounds down).
    #[must_use]
    pub const fn page_floor(self) -> Self {
        Self(self.0 & !PAGE_MASK)
    }
    /// Number of the page the offset lies in (rounds down).
    pub const fn page_index(self) -> u64 {
        self.0 >> PAGE_SHIFT
    }
    /// Whether the offset is a multiple of the page size.
    pub const fn is_page_aligned(self) -> bool {
        self.0 & PAGE_MASK == 0
    }
    /// The offset `bytes` further on; `None` when it wraps.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(b) => Some(Self(b)),
            None => None,
        }
    }
}
impl fmt::Debug for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Index of a processor, from 0. A simulated CPU and a host thread are different things.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct CpuId(pub u16);

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_hole_is_not_addressable() {
        assert!(VirtAddr::new(0x7fff_ffff_ffff).is_ok());
        assert_eq!(VirtAddr::new(0x8000_0000_0000), Err(UnitError::NonCanonical(0x8000_0000_0000)));
        assert!(VirtAddr::new(0xffff_8000_0000_0000).is_ok());
        assert!(VirtAddr::new(u64::MAX).is_ok());
    }

    /// Whatever address a processor may report has its page, and questions about that are answered.
    #[test]
    fn the_last_page_of_all_is_asked_about_without_a_wrap() {
        let last = VirtRange::page_of(VirtAddr::new(u64::MAX).expect("addressable"));
        let user = VirtRange::exact(0x1000, 0x7000).expect("aligned");
        assert!(!user.covers(last) && user.intersect(last).is_none());
        assert!(last.covers(last) && last.contains(VirtAddr(u64::MAX)));
        assert_eq!((last.intersect(last), last.end()), (Some(last), u64::MAX));
        assert_eq!((last.from(last.start().get()), last.from(u64::MAX)), (Some(last), Some(last)));
        assert!(!alloc::format!("{last:?} {last}").is_empty());
        let first = VirtRange::page_of(VirtAddr(0));
        assert_eq!((first.end(), first.intersect(last)), (0x1000, None));
    }

    #[test]
    fn an_address_below_a_range_is_in_none_of_its_pages() {
        let range = VirtRange::exact(0x3000, 0x2000).expect("aligned");
        let index = |addr| range.page_index(VirtAddr::new(addr).expect("canonical"));
        assert_eq!([0x3000, 0x4fff, 0x5000, 0x1000, 0].map(index), [0, 1, 2, 0, 0]);
    }

    #[test]
    fn ranges_neither_wrap_nor_cross_the_hole() {
        assert!(matches!(VirtRange::exact(0x1000, 0), Err(UnitError::Empty(_))));
        assert!(matches!(VirtRange::exact(0x1001, 4096), Err(UnitError::Misaligned(_))));
        assert!(matches!(VirtRange::exact(0x1000, 4095), Err(UnitError::PartialPage(_))));
        assert!(matches!(VirtRange::covering(0x1000, u64::MAX), Err(UnitError::Wraps { .. })));
        assert!(matches!(VirtRange::exact(0x7fff_ffff_f000, 0x2000), Err(UnitError::Wraps { .. })));
        let last =
            VirtRange::exact(0x7fff_ffff_f000, 0x1000).expect("the last user page is a range");
        assert_eq!(last.end(), VirtAddr::LOWER_END);
        // The very last page of the address space would end at 2^64.
        assert!(matches!(VirtRange::covering(u64::MAX, 1), Err(UnitError::Wraps { .. })));
    }

    #[test]
    fn covering_rounds_outwards() {
        let r = VirtRange::covering(0x1fff, 2).expect("two bytes over a page boundary");
        assert_eq!((r.start().get(), r.len()), (0x1000, 0x2000));
        assert_eq!(PageCount::covering(4097), PageCount(2));
        assert_eq!(PageCount::within(8191), PageCount(1));
    }

    #[test]
    fn cutting_a_range() {
        let r = VirtRange::exact(0x1000, 0x3000).expect("three pages");
        assert_eq!(r.from(0x2000).map(|r| r.len()), Some(0x2000));
        assert_eq!(r.until(0x2000).map(|r| r.len()), Some(0x1000));
        assert_eq!(r.from(0x4000), None);
        assert_eq!(r.until(0x1000), None);
        assert_eq!(
            r.intersect(VirtRange::exact(0x3000, 0x9000).expect("ok")).map(|r| r.len()),
            Some(0x1000)
        );
    }
}
