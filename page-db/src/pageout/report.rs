//! What a scan did, and where page-out stands.

use crate::free_mem::Thresholds;
use core::fmt;

/// What one call of page-out did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct ScanReport {
    /// Frames both hands moved by.
    pub turns: u64,
    /// Of those, turns in which at least one hand met an eligible frame (`nscan`).
    #[doc(alias = "nscan")]
    pub scanned: u64,
    /// Frames the interval aimed at; 0 where no interval was asked for.
    pub desscan: u64,
    /// Looks that left the frame alone because it was in use.
    pub examined: u64,
    /// Looks at frames that are not page-out's business.
    pub skipped: u64,
    /// Of those, skipped for being shared more widely than `po_share`.
    pub shared: u64,
    /// Pages freed: by the scan, and by pushes that were complete when page-out looked.
    pub freed: u64,
    /// Dirty pages put in the queue.
    pub queued: u64,
    /// Pages handed to their vnodes.
    pub pushed: u64,
    /// Pushes and flushes that failed; their pages are dirty and resident.
    pub failed: u64,
    /// Times the front hand wrapped.
    pub revs: u64,
}

impl fmt::Display for ScanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "scanned {} examined {} skipped {} freed {} queued {} pushed {} failed {} revs {}",
            self.scanned,
            self.examined,
            self.skipped,
            self.freed,
            self.queued,
            self.pushed,
            self.failed,
            self.revs
        )
    }
}

/// Where page-out stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PageoutState {
    /// Frames in the circle.
    #[doc(alias = "looppages")]
    pub total: u64,
    /// Index of the frame the front hand looks at next.
    pub front: u64,
    /// The same of the back hand.
    pub back: u64,
    /// Frames between the hands.
    pub handspreadpages: u64,
    /// Frames per second when nothing is free.
    pub fastscan: u64,
    /// Frames per second at lotsfree.
    pub slowscan: u64,
    /// Frames per interval at the memory free now.
    pub desscan: u64,
    /// Pages with more mappings are left alone.
    #[doc(alias = "MIN_PO_SHARE")]
    pub po_share: u32,
    /// Pushes per second.
    pub maxpgio: u64,
    /// Pages waiting to be pushed.
    pub queued: u64,
    /// Pages free.
    pub freemem: u64,
    /// Pages waited for.
    #[doc(alias = "deficit")]
    pub needfree: u64,
    /// The thresholds in force.
    pub thresholds: Thresholds,
}

impl fmt::Display for PageoutState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.thresholds;
        writeln!(f, "freemem {} needfree {} of {} pages", self.freemem, self.needfree, self.total)?;
        writeln!(
            f,
            "lotsfree {} desfree {} minfree {} throttlefree {} pageout_reserve {}",
            t.lotsfree, t.desfree, t.minfree, t.throttlefree, t.pageout_reserve
        )?;
        writeln!(
            f,
            "front {} back {} handspreadpages {} po_share {}",
            self.front, self.back, self.handspreadpages, self.po_share
        )?;
        writeln!(
            f,
            "slowscan {} fastscan {} desscan {} maxpgio {} queued {}",
            self.slowscan, self.fastscan, self.desscan, self.maxpgio, self.queued
        )
    }
}
