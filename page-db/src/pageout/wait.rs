//! Waiting for memory on a machine that runs one step at a time: whoever needs memory runs page-out itself.

use super::Pageout;
use crate::cx::Cx;
use crate::db::{MemoryWait, PageDb};
use crate::error::PageError;
use alloc::sync::Arc;
use core::fmt;

/// What a machine adds to page-out when memory is short.
pub trait ReclaimHook: fmt::Debug + Send + Sync {
    /// Gives back frames that page-out cannot reach: page tables of idle ranges, other caches. Asked only when page-out came up short; the
    /// caller holds no lock. Returns how many frames were given back.
    #[doc(alias("htable_steal", "kmem_reap"))]
    fn steal(&self, cx: &Cx, db: &PageDb, want: u64) -> u64 {
        let _ = (cx, db, want);
        0
    }
    /// Whether an operation should start over although too little is free: something will be (a transfer under way, pages held by
    /// other threads for the moment). `false`, the default, makes it fail.
    fn is_reclaimable(&self, cx: &Cx, db: &PageDb) -> bool {
        let _ = (cx, db);
        false
    }
}

/// Nothing but page-out.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHook;
impl ReclaimHook for NoHook {}

/// Runs page-out in the thread that needs memory.
#[derive(Debug)]
pub struct SinglestepWait {
    pageout: Arc<Pageout>,
    hook: Arc<dyn ReclaimHook>,
}

impl SinglestepWait {
    /// Waiting means running `pageout`, and asking `hook` when that is not enough.
    pub fn new(pageout: Arc<Pageout>, hook: Arc<dyn ReclaimHook>) -> Self {
        Self { pageout, hook }
    }
}

impl MemoryWait for SinglestepWait {
    fn wait_for_memory(&self, cx: &Cx, db: &PageDb, pages: u64) -> Result<(), PageError> {
        let t = db.free_mem().thresholds();
        // What the caller's next attempt needs (Reserve::Normal), and what page-out aims at once it runs.
        let enough = pages.saturating_add(t.pageout_reserve);
        let aim = enough.max(t.lotsfree);
        self.pageout.reclaim(cx, db, aim);
        if db.freemem() < enough && self.hook.steal(cx, db, enough - db.freemem()) > 0 {
            // Pages that the stolen tables mapped have lost a user: look at them again.
            db.drain_magazines(cx);
            self.pageout.reclaim(cx, db, enough);
        }
        if db.freemem() >= enough || self.hook.is_reclaimable(cx, db) {
            return Ok(());
        }
        Err(db.no_memory(pages))
    }
}
