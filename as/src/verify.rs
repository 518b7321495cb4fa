//! Checking an address space against itself, when nothing runs in it.
//!
//! In this order, because each relies on those before: the tree and the array of segments (V01, G4), the sizes (I13), each driver's own
//! invariants, and the translations against the segments (V05) and the watches on them (W1).

use crate::addr_space::AddrSpace;
use crate::avl::Invariant;
use crate::hat::Translation;
use crate::segs::{Seg, Segs};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use page_db::{Cx, Prot, VirtAddr, VirtRange};

/// A broken invariant of an address space.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct AsDamage {
    /// The invariant's short name, or the driver whose own invariant it is.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

fn broken(invariant: &'static str, what: String) -> AsDamage {
    AsDamage { invariant, what }
}

impl AddrSpace {
    /// Checks every invariant. Call when quiet: an operation under way looks like damage.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, cx: &Cx) -> Result<(), AsDamage> {
        let segs = self.lock.read(cx);
        segs.verify().map_err(|(invariant, what)| broken(invariant, what))?;
        self.verify_sizes(cx, &segs)?;
        for seg in segs.iter() {
            let own = seg.ops().verify(&self.scx(cx, seg.range(), false));
            own.map_err(|text| broken(seg.driver(), format!("{text} (segment {})", seg.range())))?;
        }
        if segs.is_closed() && !segs.is_empty() {
            return Err(broken("I13", format!("{} segments after the end", segs.len())));
        }
        self.verify_translations(cx, &segs)
    }
    fn verify_sizes(&self, cx: &Cx, segs: &Segs) -> Result<(), AsDamage> {
        let size: u64 = segs.iter().map(Seg::size).sum();
        if size != self.state.size() {
            return Err(broken(
                "I13",
                format!("segments have {size:#x} bytes, size says {:#x}", self.state.size()),
            ));
        }
        let counted = segs.iter().map(|seg| self.resv_of(cx, seg.range(), seg.ops()));
        let resv = counted.fold(0, u64::wrapping_add); // as the count itself does
        if resv != self.state.resv_size() {
            let said = self.state.resv_size();
            return Err(broken(
                "I13",
                format!("segments count {resv:#x} bytes as reserved, resv_size says {said:#x}"),
            ));
        }
        Ok(())
    }
    /// V05. Both lists are in order of address, so they are merged.
    fn verify_translations(&self, cx: &Cx, segs: &Segs) -> Result<(), AsDamage> {
        if self.is_freed() {
            return Ok(()); // nothing is mapped, and the hat may be gone
        }
        let mut mapped: Vec<(VirtAddr, Translation)> = Vec::new();
        self.hat.walk(cx, self.limits(), &mut |addr, entry| mapped.push((addr, entry)));
        let mut at = 0;
        for seg in segs.iter() {
            let first = mapped[at..].partition_point(|(addr, _)| *addr < seg.base());
            if first > 0 {
                break;
            }
            let inside = mapped[at..].partition_point(|(addr, _)| addr.get() < seg.end());
            self.verify_rights(cx, seg, &mapped[at..at + inside])?;
            at += inside;
        }
        match mapped.get(at) {
            Some((addr, entry)) => {
                Err(broken("V05", format!("{addr} is mapped to frame {} in no segment", entry.pfn)))
            }
            None => Ok(()),
        }
    }
    fn verify_rights(
        &self,
        cx: &Cx,
        seg: Seg<'_>,
        mapped: &[(VirtAddr, Translation)],
    ) -> Result<(), AsDamage> {
        if mapped.is_empty() {
            return Ok(());
        }
        let mut runs: Vec<(VirtRange, Prot)> = Vec::new();
        let scx = self.scx(cx, seg.range(), false);
        seg.ops().prots(&scx, seg.range(), &mut |run, prot| runs.push((run, prot)));
        let areas = self.watch.areas();
        for (addr, entry) in mapped {
            let taken = areas.as_ref().map_or(Prot::empty(), |areas| areas.taken(*addr));
            if entry.prot.intersects(taken) {
                let what = format!("{addr} is mapped {}, and watched: less {taken}", entry.prot);
                return Err(broken("W1", what));
            }
            let run = runs.partition_point(|(run, _)| run.end() <= addr.get());
            let allowed =
                runs.get(run).filter(|(run, _)| run.contains(*addr)).map(|(_, prot)| *prot);
            let Some(allowed) = allowed else {
                return Err(broken(
                    seg.driver(),
                    format!("no rights are reported for {addr} in {}", seg.range()),
                ));
            };
            // The hardware cannot withhold loads from a page that allows anything else.
            let least =
                if allowed.allows(page_db::Access::Other) { Prot::READ } else { Prot::empty() };
            let excess = entry.prot.difference(allowed | least | Prot::USER);
            if !excess.is_empty() || least.is_empty() {
                return Err(broken(
                    "V05",
                    format!("{addr} is mapped {}, its page allows {allowed}", entry.prot),
                ));
            }
        }
        Ok(())
    }
    /// Breaks one invariant, so that a test can see it named. Says whether it could.
    #[doc(hidden)]
    pub fn damage_for_test(&self, cx: &Cx, damage: TestDamage) -> bool {
        let mut segs = self.lock.write(cx);
        match damage {
            TestDamage::Tree(invariant) => segs.tree_for_test().damage_for_test(invariant),
            TestDamage::Size => {
                self.state.add_size(page_db::PAGE_SIZE);
                true
            }
            TestDamage::Resv => {
                self.state.add_resv(page_db::PAGE_SIZE);
                true
            }
            TestDamage::Driver => segs.lose_driver_for_test(),
        }
    }
}

/// What [`AddrSpace::damage_for_test`] breaks.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum TestDamage {
    /// An invariant of the tree.
    Tree(Invariant),
    /// I13: the size.
    Size,
    /// I13: the reserved size.
    Resv,
    /// G4: a segment's driver.
    Driver,
}
