//! One page-table entry, bit by bit.
//!
//! | bits | name | meaning | manual |
//! |---|---|---|---|
//! | 0 | P | the entry translates, or points to a table | [SDM 3A §4.5], table 4-20 |
//! | 1 | R/W | stores are allowed | §4.6 |
//! | 2 | U/S | user mode is allowed | §4.6 |
//! | 3, 4, 7 of a leaf | PWT PCD PAT | caching | §4.9 |
//! | 5 | A | used since last cleared; set by whoever walks | §4.8 |
//! | 6 | D | (leaf) stored through since last cleared | §4.8 |
//! | 7 of levels 1, 2 | PS | the entry is a leaf: 2 MiB or 1 GiB | §4.5 |
//! | 8 | G | (leaf) survives a change of CR3 | §4.10.2.4 |
//! | 9..11 | software | `PT_NOSYNC` 0x200 < `PT_NOCONSIST` 0x400, each implying the weaker | illumos.md 9.2 |
//! | 12..51 | frame | | |
//! | 63 | NX | fetches are not allowed | §4.6 |
//!
//! Rights of a translation are *effective*: P, R/W and U/S must be set at every level, NX at none. There is no entry without
//! the right to load, hence no entry at all for `PROT_NONE`.

use core::fmt;
use page_db::{Pfn, Prot, RefMod};

bitflags::bitflags! {
    /// The bits of an entry besides the frame.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct PteBits: u64 {
        /// Present.
        #[doc(alias = "PT_VALID")]
        const P = 1;
        /// Stores allowed.
        #[doc(alias = "PT_WRITABLE")]
        const W = 1 << 1;
        /// User mode allowed.
        #[doc(alias = "PT_USER")]
        const U = 1 << 2;
        /// Write-through.
        #[doc(alias = "PT_WRITETHRU")]
        const PWT = 1 << 3;
        /// Not cached.
        #[doc(alias = "PT_NOCACHE")]
        const PCD = 1 << 4;
        /// Accessed.
        #[doc(alias = "PT_REF")]
        const A = 1 << 5;
        /// Dirty.
        #[doc(alias = "PT_MOD")]
        const D = 1 << 6;
        /// A leaf above level 0.
        #[doc(alias = "PT_PAGESIZE")]
        const PS = 1 << 7;
        /// Global.
        #[doc(alias = "PT_GLOBAL")]
        const G = 1 << 8;
        /// Software: accessed and dirty are set from the start and never harvested.
        #[doc(alias = "PT_NOSYNC")]
        const NOSYNC = 0x200;
        /// Software: not on the page's mapping list.
        #[doc(alias = "PT_NOCONSIST")]
        const NOCONSIST = 0x400;
        /// Fetches not allowed.
        #[doc(alias = "PT_NX")]
        const NX = 1 << 63;
    }
}

/// The frame's bits.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Largest frame number an entry can hold.
pub const MAX_PFN: Pfn = Pfn(FRAME >> page_db::PAGE_SHIFT);

/// A page-table entry.
#[doc(alias("x86pte_t", "x86pte_get", "x86pte_set", "x86pte_cas"))]
#[derive(Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct X86Pte(pub u64);

impl X86Pte {
    /// No entry.
    pub const EMPTY: Self = Self(0);

    /// An entry for `pfn` with `bits`. Bits of the number above the frame field are dropped; callers have checked [`MAX_PFN`].
    #[inline]
    pub const fn new(pfn: Pfn, bits: PteBits) -> Self {
        Self(((pfn.0 << page_db::PAGE_SHIFT) & FRAME) | bits.bits())
    }
    /// An entry that points to a table, as it is linked: every right (H6). `user` for the lower half.
    #[inline]
    pub const fn table(pfn: Pfn, user: bool) -> Self {
        let bits = PteBits::P.union(PteBits::W);
        Self::new(pfn, if user { bits.union(PteBits::U) } else { bits })
    }
    /// All bits but the frame's.
    #[inline]
    pub const fn bits(self) -> PteBits {
        PteBits::from_bits_truncate(self.0 & !FRAME)
    }
    /// Whether all of `bits` are set.
    #[inline]
    pub const fn has(self, bits: PteBits) -> bool {
        self.0 & bits.bits() == bits.bits()
    }
    /// The entry with `on` set and `off` cleared.
    #[inline]
    #[must_use]
    pub const fn with(self, on: PteBits, off: PteBits) -> Self {
        Self((self.0 & !off.bits()) | on.bits())
    }
    /// Whether it translates or points to a table.
    #[doc(alias = "PTE_ISVALID")]
    #[inline]
    pub const fn is_present(self) -> bool {
        self.has(PteBits::P)
    }
    /// Whether it ends a walk at `level`.
    #[doc(alias = "PTE_ISPAGE")]
    #[inline]
    pub const fn is_leaf(self, level: u8) -> bool {
        level == 0 || self.has(PteBits::PS)
    }
    /// The frame.
    #[doc(alias = "PTE2PFN")]
    #[inline]
    pub const fn pfn(self) -> Pfn {
        Pfn((self.0 & FRAME) >> page_db::PAGE_SHIFT)
    }
    /// Whether the translation is on its page's mapping list.
    #[inline]
    pub const fn is_consistent(self) -> bool {
        !self.has(PteBits::NOCONSIST)
    }
    /// Whether accessed and dirty are harvested onto the page.
    #[inline]
    pub const fn is_synced(self) -> bool {
        self.0 & (PteBits::NOSYNC.bits() | PteBits::NOCONSIST.bits()) == 0
    }
    /// Accessed and dirty in the page layer's words.
    #[inline]
    pub const fn ref_mod(self) -> RefMod {
        // Bit 5 to bit 1, bit 6 to bit 0: every probe and every removal asks.
        RefMod::from_bits_truncate(((self.0 >> 4) & 2 | (self.0 >> 6) & 1) as u8)
    }
    /// The rights this entry grants by itself; none when it is not present.
    #[inline]
    pub const fn prot(self) -> Prot {
        if !self.is_present() {
            return Prot::empty();
        }
        // Bits 0 and 1 stay, the lack of bit 63 becomes bit 2, bit 2 becomes bit 3.
        Prot::from_bits_truncate((self.0 & 3 | (!self.0 >> 63) << 2 | (self.0 & 4) << 1) as u8)
    }
    /// The entry with exactly the rights `prot`, which must include a right; U/S is left as it is.
    #[inline]
    #[must_use]
    pub fn with_prot(self, prot: Prot) -> Self {
        let mut on = PteBits::P;
        on.set(PteBits::W, prot.contains(Prot::WRITE));
        on.set(PteBits::NX, !prot.contains(Prot::EXEC));
        self.with(on, PteBits::W.union(PteBits::NX))
    }
    /// Whether what remembers `self` must forget it when it becomes `new`: a right, the frame, A or D was lost.
    #[inline]
    pub fn loses_to(self, new: Self) -> bool {
        const KEPT: PteBits =
            PteBits::P.union(PteBits::W).union(PteBits::U).union(PteBits::A).union(PteBits::D);
        self.is_present()
            && (self.pfn() != new.pfn()
                || self.0 & KEPT.bits() & !new.0 != 0
                || new.0 & !self.0 & PteBits::NX.bits() != 0)
    }
}

impl fmt::Debug for X86Pte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for X86Pte {
    /// `pfn 0x12 P W U A D NX`, or `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        write!(f, "pfn {}", self.pfn())?;
        for (name, _) in self.bits().iter_names() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn bits_are_the_manuals() {
        let e = X86Pte::new(Pfn(0x1234), PteBits::P | PteBits::W | PteBits::NX);
        assert_eq!(e.0, 0x8000_0000_0123_4003);
        assert_eq!(e.pfn(), Pfn(0x1234));
        assert_eq!(e.prot(), Prot::RW);
        assert_eq!(e.with_prot(Prot::RX).0, 0x0123_4001);
        assert_eq!(e.to_string(), "pfn 0x1234 P W NX");
        assert_eq!(X86Pte::new(Pfn(u64::MAX), PteBits::empty()).pfn(), MAX_PFN);
    }

    #[test]
    fn rights_and_marks_move_bit_by_bit() {
        let all = PteBits::P | PteBits::W | PteBits::U | PteBits::A | PteBits::D | PteBits::NX;
        for bits in (0..=u64::from(u8::MAX)).flat_map(|low| [low, low | 1 << 63]) {
            let bits = PteBits::from_bits_truncate(bits) & all;
            let e = X86Pte::new(Pfn(0xf_ffff), bits);
            let (p, r) = (e.prot(), e.ref_mod());
            let present = bits.contains(PteBits::P);
            let is = |bit: PteBits, on: bool| present && bits.contains(bit) == on;
            assert_eq!(p.contains(Prot::READ), present);
            assert_eq!(p.contains(Prot::WRITE), is(PteBits::W, true));
            assert_eq!(p.contains(Prot::EXEC), is(PteBits::NX, false));
            assert_eq!(p.contains(Prot::USER), is(PteBits::U, true));
            assert_eq!(r.contains(RefMod::REF), bits.contains(PteBits::A));
            assert_eq!(r.contains(RefMod::MOD), bits.contains(PteBits::D));
            assert!(!r.contains(RefMod::RO));
        }
    }

    #[test]
    fn only_losses_are_flushed() {
        let ro = X86Pte::new(Pfn(1), PteBits::P | PteBits::U | PteBits::NX);
        let rw = ro.with(PteBits::W, PteBits::empty());
        assert!(!ro.loses_to(rw), "gaining a right");
        assert!(rw.loses_to(ro), "losing it");
        assert!(!X86Pte::EMPTY.loses_to(rw));
        assert!(rw.loses_to(X86Pte::EMPTY));
        let x = ro.with(PteBits::empty(), PteBits::NX);
        assert!(!ro.loses_to(x) && x.loses_to(ro), "NX counts the other way round");
        let used = ro.with(PteBits::A, PteBits::empty());
        assert!(used.loses_to(ro) && !ro.loses_to(used), "a harvested bit must be set again");
    }
}
