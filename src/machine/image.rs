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
//! process, so that nothing has to be handed back. Memory locks belong to the address space and stay with it. Limits are each process's own; which of them the
//! address space has is told in [`super::limits`].
//!
//! - P1: an address space is given up by the last of its users that goes, by exit or exec.
//! - P2: who has gone reaches nothing any more: a process that exits while others go on gets an image whose address space has been freed.
//!
//! In illumos whoever called `vfork` waits until the child has an image of its own, or is gone. Here no process runs by itself, so nobody has to be kept
//! from running: who does not want to wait is one more thread in the same memory.
//!
//! Sources: illumos `os/fork.c`, `os/exec.c` (`relvm`; behaviour); uvm.md 4.1.

use super::limits::{Limit, Limits};
use addr_space::AddrSpace;
use page_db::Rank;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU64, Ordering};
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
    /// The limits of the processes that use it (P1, P3).
    users: Mutex<Users>,
    /// What those get that go first (P2); made before there are two.
    after: OnceLock<Arc<Image>>,
}

/// Of each process that uses an image, its limits.
#[derive(Debug)]
struct Users {
    /// Most have one, and no list.
    first: Option<Arc<Limits>>,
    others: Vec<Arc<Limits>>,
}

impl Users {
    fn iter(&self) -> impl Iterator<Item = &Limits> + Clone {
        self.first.iter().chain(&self.others).map(|limits| &**limits)
    }
    fn remove(&mut self, limits: &Arc<Limits>) {
        if self.first.as_ref().is_some_and(|first| Arc::ptr_eq(first, limits)) {
            self.first = self.others.pop();
        } else if let Some(at) = self.others.iter().position(|other| Arc::ptr_eq(other, limits)) {
            self.others.swap_remove(at);
        }
    }
}

/// Why nobody joins an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotJoined {
    /// The last of its users has gone.
    Gone,
    /// The heap refused a place in the list of users.
    NoHeap,
}

impl Image {
    /// An image of an address space in which nothing is mapped, for a process with the limits `user`, which the space is told; or what is left to whoever has
    /// gone (P2), which nobody uses.
    pub(crate) fn new(
        space: Arc<AddrSpace>,
        break_base: u64,
        user: Option<&Arc<Limits>>,
    ) -> Arc<Self> {
        let users = Users { first: user.map(Arc::clone), others: Vec::new() };
        let image = Arc::new(Self {
            space,
            break_base: AtomicU64::new(break_base),
            break_now: AtomicU64::new(break_base),
            stack_size: AtomicU64::new(0),
            guard_start: AtomicU64::new(0),
            guard_end: AtomicU64::new(0),
            users: Mutex::new(Rank::Registry, users),
            after: OnceLock::new(),
        });
        image.tell_limits();
        image
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
    pub(crate) fn users(&self) -> usize {
        self.users.lock_host().iter().count()
    }
    /// One user more, who takes over the limits of `parent`. `grave`, if there is none yet, is what whoever goes first will have.
    pub(crate) fn join(
        &self,
        grave: Option<Arc<Self>>,
        child: &Arc<Limits>,
        parent: &Limits,
    ) -> Result<(), NotJoined> {
        if let Some(grave) = grave {
            let _ = self.after.set(grave); // another thread may have been faster
        }
        let mut users = self.users.lock_host();
        if users.first.is_none() {
            return Err(NotJoined::Gone);
        }
        users.others.try_reserve(1).map_err(|_| NotJoined::NoHeap)?;
        child.inherit(parent);
        users.others.push(Arc::clone(child));
        self.tell(&users); // what it brings may have been set in another image meanwhile
        Ok(())
    }
    /// One user less; says whether it was the last (P1). Else what he has set of limits holds no more (P3).
    pub(crate) fn leave(&self, user: &Arc<Limits>) -> bool {
        let mut users = self.users.lock_host();
        users.remove(user);
        self.tell(&users);
        users.first.is_none()
    }
    /// Sets a limit of a user, and tells the space what holds now.
    pub(crate) fn set_limit(&self, user: &Limits, limit: Limit, bytes: u64) {
        let users = self.users.lock_host();
        user.set(limit, bytes, users.iter());
        self.tell(&users);
    }
    /// Tells the space what holds now.
    pub(crate) fn tell_limits(&self) {
        self.tell(&self.users.lock_host());
    }
    fn tell(&self, users: &Users) {
        Limits::tell(users.iter(), &self.space);
    }
    /// What a user that has gone while others go on is left with (P2).
    pub(crate) fn after(&self) -> Option<&Arc<Self>> {
        self.after.get()
    }
    pub(crate) fn has_grave(&self) -> bool {
        self.after.get().is_some()
    }
}
