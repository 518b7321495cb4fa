//! Failures on request: the k-th frame, record, anon, promise, slot or transfer that is asked for is not to be had.
//!
//! # The difficulty
//!
//! Failures that are rare in life must come in tests one at a time and each once, so that every place where an operation may have to back
//! out is visited. They must come in the build that is shipped, too; and nobody who plans none may pay for them.
//!
//! # The rule
//!
//! ```text
//!   Machine::fail(plan) ─▶ Counters: k of each kind, and of all kinds together
//!                             └─▶ a flag in the block of every Cx
//!   where something is handed out:   Cx::fails(kind) ─▶ own block's flag? ─(never in life)─▶ count the request; is it the one?
//! ```
//!
//! The flag lies in the block that the thread counts its events in, a line that only it writes and that it has at hand: without a plan a
//! request costs one load and a branch that is never taken. Promises of swap have no [`crate::Cx`]; they look at the machine's own flag.
//!
//! A request is counted before it is judged, from 1 when the plan is made, and the plan names exactly one request of a kind; so a plan strikes once
//! in each of its lines, whatever is asked for afterwards and by how many threads. A plan that names nothing still counts ([`FailPlan::counting`]): that is how a test learns how
//! many there are to try.
//!
//! # The other road
//!
//! A hook in debug builds only costs nothing elsewhere, and leaves the release build untried. A flag beside the plan would be a line that every CPU
//! reads, which is nearly as good, and one line more in each fault.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed}; // plain: no schedule depends on them

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(usize)]
pub enum FailKind {
    /// A frame ([`crate::PageDb::alloc`]), for whatever use.
    Frame,
    /// A frame for a page table.
    Table,
    /// A record of an arena ([`crate::sync::Arena::alloc`], and what [`crate::sync::Arena::alloc_some`] has at hand): a chunk of anon slots, a block of an anon map, a page table's record, a mapping of a page with several.
    Record,
    /// An anon's number.
    Anon,
    /// Room for nodes in a tree of segments.
    Node,
    /// A promise of swap.
    Reservation,
    /// A run of slots on a swap device.
    Slot,
    /// A transfer from a swap device.
    DeviceRead,
    /// A transfer to a swap device.
    DeviceWrite,
    /// A transfer from a file's store.
    VnodeRead,
    /// A transfer to a file's store.
    VnodeWrite,
}

const KINDS: usize = FailKind::ALL.len();

impl FailKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Frame,
        Self::Table,
        Self::Record,
        Self::Anon,
        Self::Node,
        Self::Reservation,
        Self::Slot,
        Self::DeviceRead,
        Self::DeviceWrite,
        Self::VnodeRead,
        Self::VnodeWrite,
    ];
}

/// Which requests are to fail. The default is none; [`FailPlan::counting`] only counts.
///
/// ```
/// use page_db::fail::{FailKind, FailPlan};
/// let plan = FailPlan::counting().kth(FailKind::Frame, 3).kth(FailKind::VnodeRead, 1);
/// assert!(plan != FailPlan::default());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FailPlan {
    armed: bool,
    each: [u64; KINDS],
    any: u64,
}

impl FailPlan {
    /// Nothing fails, but what is asked for is counted.
    pub const fn counting() -> Self {
        Self { armed: true, each: [0; KINDS], any: 0 }
    }
    /// The `k`-th request of a kind fails, counted from 1; 0 for none.
    #[must_use]
    pub const fn kth(mut self, kind: FailKind, k: u64) -> Self {
        self.armed = true;
        self.each[kind as usize] = k;
        self
    }
    /// The `k`-th request of whatever kind fails, counted from 1; 0 for none.
    #[must_use]
    pub const fn kth_of_any(mut self, k: u64) -> Self {
        self.armed = true;
        self.any = k;
        self
    }
}

/// What was asked for while a plan was in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    each: [u64; KINDS],
    any: u64,
    failed: u64,
}

impl Asked {
    /// Requests of a kind.
    pub const fn of(&self, kind: FailKind) -> u64 {
        self.each[kind as usize]
    }
    /// Requests of all kinds.
    pub const fn all(&self) -> u64 {
        self.any
    }
    /// Requests that the plan made fail.
    pub const fn failed(&self) -> u64 {
        self.failed
    }
}

/// The plan in force, and what was asked for since it is.
#[derive(Debug, Default)]
pub(crate) struct Fails {
    armed: AtomicBool,
    plan: [AtomicU64; KINDS],
    any: AtomicU64,
    asked: [AtomicU64; KINDS],
    asked_any: AtomicU64,
    failed: AtomicU64,
}

impl Fails {
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Relaxed)
    }
    /// Puts a plan in force, and counts from nothing again.
    pub(crate) fn set(&self, plan: &FailPlan) {
        let zeros = [&self.asked_any, &self.failed].into_iter().chain(&self.asked);
        zeros.for_each(|cell| cell.store(0, Relaxed));
        self.any.store(plan.any, Relaxed);
        for (cell, k) in self.plan.iter().zip(plan.each) {
            cell.store(k, Relaxed);
        }
        self.armed.store(plan.armed, Relaxed);
    }
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            each: core::array::from_fn(|i| self.asked[i].load(Relaxed)),
            any: self.asked_any.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
    /// Counts a request, and says whether it is one that fails.
    #[cold]
    pub(crate) fn strike(&self, kind: FailKind) -> bool {
        let nth = self.asked[kind as usize].fetch_add(1, Relaxed) + 1;
        let of_any = self.asked_any.fetch_add(1, Relaxed) + 1;
        let fails =
            nth == self.plan[kind as usize].load(Relaxed) || of_any == self.any.load(Relaxed);
        self.failed.fetch_add(u64::from(fails), Relaxed);
        fails
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::{Counters, CpuId, Cx, SpinHooks, ThreadId};
    use alloc::sync::Arc;

    #[test]
    fn a_plan_strikes_once_a_line_and_reaches_threads_old_and_new() {
        let counters = Counters::new(2);
        let cx = |n| Cx::new(&counters, CpuId(n), ThreadId(u32::from(n)), Arc::new(SpinHooks));
        let old = cx(0);
        assert!(!old.fails(FailKind::Frame));
        counters.fail(&FailPlan::counting().kth(FailKind::Frame, 2).kth_of_any(4));
        let new = cx(1);
        assert!(!old.fails(FailKind::Frame));
        assert!(new.fails(FailKind::Frame), "the second frame, whoever asks");
        assert!(!new.fails(FailKind::Slot));
        assert!(old.fails(FailKind::Anon), "the fourth of any kind");
        assert!(!old.fails(FailKind::Frame) && !counters.fails(FailKind::Reservation));
        let asked = counters.asked();
        assert_eq!((asked.of(FailKind::Frame), asked.all(), asked.failed()), (3, 6, 2));
        counters.fail(&FailPlan::default());
        assert!(!old.fails(FailKind::Frame) && !new.fails(FailKind::Slot));
        assert_eq!(counters.asked().all(), 0, "without a plan nothing is counted");
    }
}
