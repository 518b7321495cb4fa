//! Taking tables back when frames are short.
//!
//! Tables are a cache of what segments know, so any of them that maps nothing locked may go: what it maps is unloaded, its
//! referenced and modified bits go to the pages, and the next access faults and builds it again. Whoever waits for memory asks, when the
//! page layer alone cannot help; no hat lock and no page lock is held.
//!
//! ```text
//!   pass   takes leaves with at most          from hats that run nowhere first, then from the others;
//!     1    64 of 512 entries present          each pass starts behind the hat stolen from last, so that the burden goes round
//!     2    256
//!     3    any
//! ```
//!
//! The hats are gone through by number, one looked up after the other: a list of them would be asked of the heap, at the moment when memory is
//! short. So one that begins to run meanwhile may be met twice in a pass, or not at all.
//!
//! A leaf is visited even if it is spared, so a pass costs what the tables of the hats cost; tables with few entries go first since they
//! cost as much memory as full ones and give less.
//!
//! Sources: illumos `htable_steal`, `htable_steal_active` (behaviour); illumos.md 9.3; DESIGN D10.

use crate::geometry::ENTRIES;
use crate::hat::HatState;
use crate::provider::HatX86;
use crate::walk::Walk;
use alloc::sync::Arc;
use core::ops::Bound;
use page_db::Cx;
use page_db::sync::atomic::Ordering::Relaxed;

/// Most present entries of a leaf that each pass takes.
const PASSES: [usize; 3] = [ENTRIES / 8, ENTRIES / 2, ENTRIES];

impl HatX86 {
    /// Takes back at least `want` page tables if there are as many without locked translations; returns how many. The kernel's are left alone.
    ///
    /// Frames of tables that the backend kept for later ([`Mmu::retire_tables`](crate::Mmu::retire_tables)) are asked for first, and are among those returned; those
    /// of the tables taken now are asked for again at the end. What it still keeps then is counted all the same: it comes with the next call.
    ///
    /// # Locks
    /// None of the hat's on entry, none on return.
    #[doc(alias("htable_steal", "htable_reap"))]
    pub fn steal_tables(&self, cx: &Cx, want: u64) -> u64 {
        let kept = self.reap_tables(cx);
        let stolen = if kept < want { self.steal(cx, want - kept) } else { 0 };
        if stolen > 0 {
            self.reap_tables(cx);
        }
        kept + stolen
    }
    fn steal(&self, cx: &Cx, want: u64) -> u64 {
        let hand = self.steal_hand.load(Relaxed);
        let mut got = 0;
        for most in PASSES {
            for running in [false, true] {
                for ids in [
                    (Bound::Excluded(hand), Bound::Unbounded),
                    (Bound::Unbounded, Bound::Included(hand)),
                ] {
                    got += self.steal_among(cx, ids, running, want - got, most as u16);
                    if got >= want {
                        return got;
                    }
                }
            }
        }
        got
    }
    /// Steals from the user hats with these ids that run somewhere, or from those that run nowhere.
    fn steal_among(
        &self,
        cx: &Cx,
        (mut from, to): (Bound<u32>, Bound<u32>),
        running: bool,
        want: u64,
        most: u16,
    ) -> u64 {
        let mut got = 0;
        while got < want {
            let next = self.hats.lock(cx).range((from, to)).next().map(|(_, st)| Arc::clone(st));
            // held: none
            let Some(st) = next else { break };
            from = Bound::Excluded(st.id);
            let runs = || self.on_any(|cpus| self.mmu.running_on(cx, st.space(), cpus));
            if !st.is_user() || st.is_freeing() || runs() != running {
                continue;
            }
            let more = self.steal_from(cx, &st, want - got, most);
            if more > 0 {
                self.steal_hand.store(st.id, Relaxed);
            }
            got += more;
        }
        got
    }
    fn steal_from(&self, cx: &Cx, st: &HatState, want: u64, most: u16) -> u64 {
        let mut due = self.flush_due_of(cx, st);
        let mut got = 0;
        let mut walk = Walk::new(self, st, st.window);
        while got < want {
            let Some(leaf) = walk.next(cx) else { break };
            let rec = leaf.table.rec;
            if rec.locks() != 0 || rec.busy() != 0 || rec.valid() > most {
                continue;
            }
            self.empty_leaf(cx, st, &leaf, true, &mut due);
            let emptied = leaf.table.emptied();
            drop(leaf);
            got += self.reclaim(cx, emptied, &mut due);
        }
        self.finish(cx, &mut due);
        got
    }
}
