//! The rates and distances of the clock, and how they follow from the size of memory.

use crate::units::PAGE_SIZE;

/// Settings of page-out; what is `None` follows the textbook's rule for the machine's size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PageoutConfig {
    /// Frames scanned per second when nothing is free: 64 MB by rule, and never more than total / 2. Ignored when 0.
    pub fastscan: Option<u64>,
    /// Frames scanned per second at lotsfree: min(fastscan / 10, 100) by rule, and never more than fastscan / 2. Ignored when 0.
    pub slowscan: Option<u64>,
    /// Frames between the hands: fastscan, and so when it is 0 (on one frame the second hand would find what the first has just cleared). At most all frames
    /// but one.
    pub handspreadpages: Option<u64>,
    /// Pushes per second: 40.
    pub maxpgio: Option<u64>,
    /// Dirty pages queued at most (`async_reqs`): 8192. Ignored when 0.
    #[doc(alias = "async_reqs")]
    pub queue: Option<u64>,
}

/// 64 MB in pages: what `maxfastscan` is taken for before a machine has measured itself.
const MAX_FAST_SCAN: u64 = (64 << 20) / PAGE_SIZE;
/// Two thirds of the revolutions a disk of the textbook's time made in a second (`DISKRPM` 60).
const MAX_PGIO: u64 = 40;
/// Requests of the fixed pool.
const ASYNC_REQS: u64 = 8192;

/// The values in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Settled {
    pub(super) fastscan: u64,
    pub(super) slowscan: u64,
    pub(super) handspreadpages: u64,
    pub(super) maxpgio: u64,
    pub(super) queue: usize,
}

impl PageoutConfig {
    pub(super) fn settle(self, total: u64) -> Settled {
        let most = (total / 2).max(1);
        let fastscan = self.fastscan.filter(|f| *f != 0).unwrap_or(MAX_FAST_SCAN).min(most);
        let rule = (fastscan / 10).min(100);
        let slowscan = self.slowscan.filter(|s| *s != 0).unwrap_or(rule);
        let slowscan = slowscan.clamp(1, (fastscan / 2).max(1));
        let spread = self.handspreadpages.filter(|h| *h != 0).unwrap_or(fastscan);
        let handspreadpages = spread.min(total.saturating_sub(1));
        let queue = self.queue.filter(|q| *q != 0).unwrap_or(ASYNC_REQS);
        Settled {
            fastscan,
            slowscan,
            handspreadpages,
            maxpgio: self.maxpgio.unwrap_or(MAX_PGIO),
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
        }
    }
}

impl Settled {
    /// Frames for a quarter of a second with `have` pages free.
    pub(super) fn desscan(&self, have: u64, lotsfree: u64) -> u64 {
        let lotsfree = lotsfree.max(1);
        let avail = have.min(lotsfree);
        let product = |rate: u64, pages: u64| u128::from(rate) * u128::from(pages);
        // Between the two rates, each of which fits.
        let rate = (product(self.slowscan, avail) + product(self.fastscan, lotsfree - avail))
            / u128::from(lotsfree);
        u64::try_from(rate / 4).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_linear_between_slowscan_and_fastscan() {
        // Behaviour 55, a million pages: lotsfree 16384.
        let s = PageoutConfig::default().settle(1 << 20);
        assert_eq!((s.fastscan, s.slowscan, s.handspreadpages), (16384, 100, 16384));
        assert_eq!(s.desscan(16384, 16384), 100 / 4);
        assert_eq!(s.desscan(1 << 20, 16384), 100 / 4);
        assert_eq!(s.desscan(0, 16384), 16384 / 4);
        assert_eq!(s.desscan(8192, 16384), (100 + 16384) / 2 / 4);
    }

    #[test]
    fn hands_stay_apart_on_any_machine() {
        for total in 1..200 {
            let s = PageoutConfig::default().settle(total);
            assert!(s.handspreadpages < total.max(1), "{total}");
            assert!(s.handspreadpages > 0 || total == 1, "{total}");
            assert!(s.slowscan <= (s.fastscan / 2).max(1) && s.slowscan > 0, "{total}");
            assert!(s.desscan(0, 0) > 0);
        }
    }

    #[test]
    fn no_rate_is_too_large() {
        let most = PageoutConfig {
            fastscan: Some(u64::MAX),
            slowscan: Some(u64::MAX),
            handspreadpages: Some(u64::MAX),
            maxpgio: Some(u64::MAX),
            queue: Some(u64::MAX),
        };
        let s = most.settle(64);
        assert_eq!((s.fastscan, s.slowscan, s.handspreadpages), (32, 16, 63));
        let s = most.settle(u64::MAX);
        for have in [0, 1, 8, u64::MAX] {
            for lotsfree in [8, u64::MAX] {
                let rate = s.desscan(have, lotsfree);
                assert!((u64::MAX / 16..=u64::MAX / 8).contains(&rate), "{rate}");
            }
        }
    }

    #[test]
    fn senseless_settings_are_ignored() {
        let c = PageoutConfig {
            fastscan: Some(0),
            slowscan: Some(0),
            handspreadpages: Some(0),
            queue: Some(0),
            maxpgio: None,
        };
        assert_eq!(c.settle(64), PageoutConfig::default().settle(64));
    }
}
