//! How much memory is free, how much is promised, and who waits for more.
//!
//! `freemem` counts pages on the free and cache lists and in magazines; it is never a variable of its own, so it cannot drift. `availrmem`
//! counts pages of memory not promised to locks, kernel use or swap reservations; it is a ledger, charged before the
//! thing it pays for exists. The thresholds are the textbook's, scaled down where the textbook's floor of 16 MB
//! would exceed an eighth of a small simulated machine.
//!
//! | name | rule | on a machine under 128 MB |
//! |---|---|---|
//! | lotsfree | clamp(total/64, 16 MB, 2 GB) | max(total/8, 8), at most total/2 |
//! | desfree | lotsfree / 2 | same |
//! | minfree, throttlefree | desfree * 3/4 | same |
//! | pageout_reserve | throttlefree * 3/4 | same |
//!
//! - B1: `availrmem` plus everything charged equals the total (claims, kernel pages, memory-backed reservations).
//!
//! Sources: [SI §10.3]; illumos.md 7.6, 8.1.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::units::PAGE_SIZE;

/// When page-out starts and allocators hold back, in pages.
#[doc(alias("lotsfree", "desfree", "minfree", "throttlefree", "pageout_reserve"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Thresholds {
    /// Below this the scanner runs.
    pub lotsfree: u64,
    /// Below this reclaim works harder.
    pub desfree: u64,
    /// Below this memory is critically short.
    pub minfree: u64,
    /// Below this ordinary allocators wait.
    pub throttlefree: u64,
    /// Kept for page-out itself.
    pub pageout_reserve: u64,
}

const MB: u64 = (1 << 20) / PAGE_SIZE;

impl Thresholds {
    /// The defaults for a machine of `total` pages.
    pub fn for_memory(total: u64) -> Self {
        let rule = (total / 64).clamp(16 * MB, 2048 * MB);
        let small = (total / 8).max(8).min((total / 2).max(1));
        Self::from_lotsfree(if rule > total / 8 { small } else { rule })
    }
    /// The others derived from `lotsfree`.
    pub fn from_lotsfree(lotsfree: u64) -> Self {
        let desfree = lotsfree / 2;
        let minfree = desfree * 3 / 4;
        Self { lotsfree, desfree, minfree, throttlefree: minfree, pageout_reserve: minfree * 3 / 4 }
    }
    /// Tuned thresholds for a machine of `total` pages: each that is not smaller than the next larger one is ignored, and follows the rule. Next
    /// larger than `lotsfree` are all pages; than `throttlefree`, which is another name for `minfree` by rule, `desfree`.
    pub fn settle(self, total: u64) -> Self {
        let tuned = |value: u64, next: u64, rule: u64| if value < next { value } else { rule };
        let lotsfree = tuned(self.lotsfree, total, Self::for_memory(total).lotsfree);
        let desfree = tuned(self.desfree, lotsfree, lotsfree / 2);
        // No product is large: lotsfree is less than all pages, or follows from their number.
        let minfree = tuned(self.minfree, desfree, desfree * 3 / 4);
        let throttlefree = tuned(self.throttlefree, desfree, minfree);
        let pageout_reserve = tuned(self.pageout_reserve, throttlefree, throttlefree * 3 / 4);
        Self { lotsfree, desfree, minfree, throttlefree, pageout_reserve }
    }
}

/// The ledger of promised memory.
#[doc(alias("freemem", "availrmem"))]
#[derive(Debug)]
pub struct FreeMem {
    total: u64,
    availrmem: AtomicU64,
    /// Pages user locks must leave.
    pages_pp_maximum: u64,
    /// Pages kernel reservations must leave.
    minarmem: u64,
    /// Pages wanted by threads that wait for memory.
    needfree: AtomicU64,
    /// The most pages free at once that waiters were told of, since page-out asked last.
    most_free: AtomicU64,
    thresholds: Thresholds,
    /// Whether ordinary allocators leave `throttlefree` instead of `pageout_reserve`.
    holds_back: AtomicBool,
}

impl FreeMem {
    pub(crate) fn new(total: u64, thresholds: Thresholds) -> Self {
        // t_minarmem is 25 pages in the textbook; a simulated machine may have fewer frames than that to spare.
        let minarmem = (total / 64).min(25);
        let pages_pp_maximum = (total / 25 + 4 * MB).min(total / 10).max(minarmem);
        Self {
            total,
            availrmem: AtomicU64::new(total),
            pages_pp_maximum,
            minarmem,
            needfree: AtomicU64::new(0),
            most_free: AtomicU64::new(0),
            thresholds,
            holds_back: AtomicBool::new(false),
        }
    }
    /// All pages of the machine.
    pub fn total(&self) -> u64 {
        self.total
    }
    /// Pages not promised to anybody.
    pub fn availrmem(&self) -> u64 {
        self.availrmem.load(Ordering::Acquire)
    }
    /// The floor under user locks.
    pub fn pages_pp_maximum(&self) -> u64 {
        self.pages_pp_maximum
    }
    /// Pages wanted by threads that wait for memory now; the scanner works the harder for them.
    pub fn needfree(&self) -> u64 {
        self.needfree.load(Ordering::SeqCst)
    }
    /// Somebody who waits is told that `pages` are free.
    pub(crate) fn told_free(&self, pages: u64) {
        self.most_free.fetch_max(pages, Ordering::SeqCst);
    }
    /// The most that was told since this was asked last.
    pub(crate) fn take_most_free(&self) -> u64 {
        self.most_free.swap(0, Ordering::SeqCst)
    }
    /// Counts `pages` as needed until the answer is dropped.
    pub(crate) fn need(&self, pages: u64) -> Need<'_> {
        self.needfree.fetch_add(pages, Ordering::SeqCst);
        Need { mem: self, pages }
    }
    /// The thresholds in force.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }
    /// Free pages that an ordinary allocation leaves: `pageout_reserve`, or `throttlefree` while allocators are held back.
    pub fn normal_reserve(&self) -> u64 {
        let t = self.thresholds;
        if self.holds_back.load(Ordering::SeqCst) { t.throttlefree } else { t.pageout_reserve }
    }
    /// Holds ordinary allocators back at `throttlefree` from now on, or lets them down to `pageout_reserve`. For page-out in threads of
    /// its own: below `throttlefree` whoever allocates waits for it, as long as it finds something.
    #[doc(alias = "throttlefree")]
    pub fn hold_back(&self, on: bool) {
        if self.holds_back.load(Ordering::Relaxed) != on {
            self.holds_back.store(on, Ordering::SeqCst);
        }
    }
    /// Charges `pages` if that leaves at least `floor`; says whether it did.
    #[must_use = "what was not charged is not there to be used, nor to be given back"]
    pub fn charge(&self, pages: u64, floor: u64) -> bool {
        self.availrmem
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |a| {
                a.checked_sub(pages).filter(|left| *left >= floor)
            })
            .is_ok()
    }
    /// Gives back what was charged.
    ///
    /// # Panics
    /// When that is more than all that is charged (B1); nothing has changed.
    #[doc(alias = "page_unresv")]
    pub fn uncharge(&self, pages: u64) {
        let sum = |a: u64| a.checked_add(pages).filter(|sum| *sum <= self.total);
        let back = self.availrmem.fetch_update(Ordering::AcqRel, Ordering::Acquire, sum);
        assert!(back.is_ok(), "B1: more memory returned than was promised");
    }
    /// Promises memory to the kernel (`page_resv`); says whether there was enough.
    #[doc(alias = "page_resv")]
    #[must_use = "what was not promised is not there to be used, nor to be given back"]
    pub fn reserve_kernel(&self, pages: u64) -> bool {
        self.charge(pages, self.minarmem)
    }
}

/// Pages that count in [`FreeMem::needfree`] while this lives.
#[derive(Debug)]
pub(crate) struct Need<'a> {
    mem: &'a FreeMem,
    pages: u64,
}

impl Drop for Need<'_> {
    fn drop(&mut self) {
        self.mem.needfree.fetch_sub(self.pages, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn thresholds_of_four_gigabytes_are_the_textbooks() {
        // Behaviour 55: a million pages.
        let t = Thresholds::for_memory(1 << 20);
        assert_eq!(
            t,
            Thresholds {
                lotsfree: 16384,
                desfree: 8192,
                minfree: 6144,
                throttlefree: 6144,
                pageout_reserve: 4608
            }
        );
    }

    #[test]
    fn thresholds_leave_a_small_machine_something_to_use() {
        for total in 1..300 {
            let t = Thresholds::for_memory(total);
            assert!(t.lotsfree <= (total / 2).max(1), "{total}: {t:?}");
            assert!(t.desfree <= t.lotsfree && t.minfree <= t.desfree, "{total}: {t:?}");
            assert!(t.pageout_reserve <= t.throttlefree && t.throttlefree == t.minfree);
        }
        assert_eq!(Thresholds::for_memory(64).lotsfree, 8);
    }

    #[test]
    fn tuned_thresholds_out_of_order_are_ignored() {
        let rule = Thresholds::for_memory(1000);
        let all = |v| Thresholds {
            lotsfree: v,
            desfree: v,
            minfree: v,
            throttlefree: v,
            pageout_reserve: v,
        };
        assert_eq!(all(u64::MAX).settle(1000), rule);
        assert_eq!(all(1000).settle(1000), rule);
        let sorted = Thresholds::from_lotsfree(600);
        assert_eq!(sorted.settle(1000), sorted);
        assert_eq!(rule.settle(1000), rule);
        // One that is wrong follows those above it.
        let t = Thresholds { desfree: 600, pageout_reserve: 1, ..sorted }.settle(1000);
        assert_eq!(t, Thresholds { pageout_reserve: 1, ..sorted });
        assert_eq!(all(0).settle(1000), all(0), "no page-out of its own accord, no reserve");
    }

    #[test]
    fn the_ledger_refuses_before_it_changes() {
        let m = FreeMem::new(1000, Thresholds::for_memory(1000));
        assert!(m.charge(900, 100));
        assert!(!m.charge(1, 100));
        assert_eq!(m.availrmem(), 100);
        m.uncharge(900);
        assert_eq!(m.availrmem(), 1000);
        // t_minarmem stays: 15 pages of 1000.
        assert!(m.reserve_kernel(985));
        assert!(!m.reserve_kernel(1));
    }

    #[test]
    fn need_counts_while_it_lives() {
        let m = FreeMem::new(64, Thresholds::for_memory(64));
        let a = m.need(3);
        assert_eq!(m.needfree(), 3);
        drop(a);
        assert_eq!(m.needfree(), 0);
    }
}
