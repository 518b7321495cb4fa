//! An address space and what the system calls know of it: where the break is, where the stack, what guards it. Processes have one; those that share it
//! (`vfork`) have the same.
//!
//! ```text
//!   fork     parent ─▶ image A        child ─▶ image B     a copy
//!   vfork    parent ─▶ image A ◀───── child                one, with two users
//!   exec     parent ─▶ image A        child ─▶ image C     the child has its own; A has one user again
//! ```
//!
//! What the child does meanwhile is done to the parent's memory: it is the same memory. That holds for the break and the stack, which are here and not in the
//! process, so that nothing has to be handed back. Memory locks belong to the address space and stay with it. Limits are each process's own ([`super::limits`]).
//!
//! - P1: an address space is given up by the last of its users that goes, by exit or exec.
//! - P2: who has gone reaches nothing any more: a process that exits while others go on gets an image whose address space has been freed.
//!
//! In illumos whoever called `vfork` waits until the child has an image of its own, or is gone. Here no process runs by itself, so nobody has to be kept
//! from running: who does not want to wait is one more thread in the same memory.
//!
//! Sources: illumos `os/fork.c`, `os/exec.c` (`relvm`; behaviour); uvm.md 4.1.

use super::limits::Limits;
use addr_space::AddrSpace;
use page_db::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// See the module. Break, stack and guard are guarded by the address space's range claim.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) space: Arc<AddrSpace>,
    pub(crate) break_base: AtomicU64,
    /// First byte past the break; page-aligned or not.
    pub(crate) break_now: AtomicU64,
    /// Bytes of stack mapped below the stack's top.
    pub(crate) stack_size: AtomicU64,
    /// The addresses kept below the stack's limit: first one, and the end; both 0 when there are none.
    pub(crate) guard_start: AtomicU64,
    pub(crate) guard_end: AtomicU64,
    /// The limits of the process that it was made for, if it was for one.
    owner: Option<Arc<Limits>>,
    /// Processes that use it (P1).
    users: AtomicU32,
    /// What those get that go first (P2); made before there are two.
    after: OnceLock<Arc<Image>>,
}

impl Image {
    /// An image of an address space in which nothing is mapped, for a process with the limits `owner`, which the space is told by whoever makes it.
    pub(crate) fn new(
        space: Arc<AddrSpace>,
        break_base: u64,
        owner: Option<&Arc<Limits>>,
    ) -> Arc<Self> {
        let owner = owner.map(Arc::clone);
        Arc::new(Self {
            space,
            break_base: AtomicU64::new(break_base),
            break_now: AtomicU64::new(break_base),
            stack_size: AtomicU64::new(0),
            guard_start: AtomicU64::new(0),
            guard_end: AtomicU64::new(0),
            owner,
            users: AtomicU32::new(1),
            after: OnceLock::new(),
        })
    }
    /// Takes over what a copy of the address space takes over.
    pub(crate) fn inherit(&self, from: &Self) {
        for (to, from) in [
            (&self.break_base, &from.break_base),
            (&self.break_now, &from.break_now),
            (&self.stack_size, &from.stack_size),
            (&self.guard_start, &from.guard_start),
            (&self.guard_end, &from.guard_end),
        ] {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
    }
    /// Processes that use it now.
    pub(crate) fn users(&self) -> u32 {
        self.users.load(Ordering::Acquire)
    }
    /// One user more; `None` when the last one has gone. `grave`, if there is none yet, is what whoever goes first will have.
    pub(crate) fn join(&self, grave: Option<Arc<Self>>) -> Option<()> {
        if let Some(grave) = grave {
            let _ = self.after.set(grave); // another thread may have been faster
        }
        let more = |n: u32| if n == 0 { None } else { n.checked_add(1) };
        let done = self.users.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        done.ok().map(drop)
    }
    /// One user less; says whether it was the last (P1). Else what he has set of limits holds no more.
    pub(crate) fn leave(&self) -> bool {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            return true;
        }
        if let Some(owner) = &self.owner {
            owner.tell(&self.space);
        }
        false
    }
    /// What a user that has gone while others go on is left with (P2).
    pub(crate) fn after(&self) -> Option<&Arc<Self>> {
        self.after.get()
    }
    pub(crate) fn has_grave(&self) -> bool {
        self.after.get().is_some()
    }
}
