//! What a process may have of the stack, of the break, of address space and of locked memory (`setrlimit`).
//!
//! Each process has its own. The address space asks for two of them where it counts, and may have several users ([`super::image`]): a child that uses its
//! parent's memory sets limits, and runs a program under them. So the space is told a number, and told another when somebody sets it or goes:
//!
//! ```text
//!                              parent   the address space   child
//!   vfork                      8        8                   8
//!   setrlimit, by the child    8        2                   2
//!   exec, by the child         8        8                   2, and a space of its own that is told 2
//!   (exit, by the parent)               2                   2
//! ```
//!
//! - P3: of each limit the space has the number that was set last of those its users have. What somebody set who has gone holds no more; what somebody
//!   set who is still there holds, whoever else goes.
//! - P4: a number is stored and the space told under one lock, the image's. Who finds that the process has another image by then does it over there, and
//!   exec tells the new one again when it is the process's. So what is reported and what holds do not part.
//!
//! # The other road
//!
//! illumos compares with the limit of whoever asks. Here it is the segments that charge what is locked, often long after the call and in a daemon's thread, and
//! none of them knows for whom.
//!
//! Sources: illumos.md 3.5 (`p_vmem_ctl`).

use super::process::{Process, STACK_LIMIT};
use addr_space::AddrSpace;
use page_db::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// A limit on what a process may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Limit {
    /// Bytes the stack may grow to (`RLIMIT_STACK`).
    #[doc(alias = "RLIMIT_STACK")]
    Stack,
    /// Bytes the break may be moved up (`RLIMIT_DATA`).
    #[doc(alias = "RLIMIT_DATA")]
    Data,
    /// Bytes of address space (`RLIMIT_VMEM`).
    #[doc(alias = "RLIMIT_VMEM")]
    Vmem,
    /// Bytes locked in memory (`max-locked-memory`).
    Memlock,
}

/// A limit that the address space is told.
#[derive(Debug)]
struct Told {
    bytes: AtomicU64,
    /// When it was set, among those of the image's users.
    set: AtomicU64,
}

impl Told {
    const fn none() -> Self {
        Self { bytes: AtomicU64::new(u64::MAX), set: AtomicU64::new(0) }
    }
    fn inherit(&self, from: &Self) {
        copy(&self.bytes, &from.bytes);
        copy(&self.set, &from.set);
    }
    /// Sets it last of `all`.
    fn set<'a>(&self, bytes: u64, all: impl Iterator<Item = &'a Self>) {
        let last = all.map(|told| told.set.load(Ordering::Acquire)).max().unwrap_or(0);
        self.set.store(last + 1, Ordering::Release);
        self.bytes.store(bytes, Ordering::Release);
    }
    /// What was set last of `all`; nothing if there are none.
    fn last<'a>(all: impl Iterator<Item = &'a Self>) -> Option<u64> {
        let last = all.max_by_key(|told| told.set.load(Ordering::Acquire));
        last.map(|told| told.bytes.load(Ordering::Acquire))
    }
}

/// The limits of a process.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) stack: AtomicU64,
    pub(crate) data: AtomicU64,
    vmem: Told,
    memlock: Told,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stack: AtomicU64::new(STACK_LIMIT),
            data: AtomicU64::new(u64::MAX),
            vmem: Told::none(),
            memlock: Told::none(),
        }
    }
}

fn copy(to: &AtomicU64, from: &AtomicU64) {
    to.store(from.load(Ordering::Acquire), Ordering::Release);
}

impl Limits {
    /// Takes over a parent's.
    pub(crate) fn inherit(&self, from: &Self) {
        copy(&self.stack, &from.stack);
        copy(&self.data, &from.data);
        self.vmem.inherit(&from.vmem);
        self.memlock.inherit(&from.memlock);
    }
    /// Tells an address space what its `users` have set last (P3). held: the image's users
    pub(super) fn tell<'a>(users: impl Iterator<Item = &'a Self> + Clone, space: &AddrSpace) {
        let vmem = Told::last(users.clone().map(|user| &user.vmem));
        let memlock = Told::last(users.map(|user| &user.memlock));
        vmem.into_iter().for_each(|bytes| space.state().set_vmem_limit(bytes));
        memlock.into_iter().for_each(|bytes| space.state().set_memlock_limit(bytes));
    }
    /// Sets a limit, last of those of `users`. held: the image's users
    pub(super) fn set<'a>(&self, limit: Limit, bytes: u64, users: impl Iterator<Item = &'a Self>) {
        match limit {
            Limit::Stack => self.stack.store(bytes, Ordering::Release),
            Limit::Data => self.data.store(bytes, Ordering::Release),
            Limit::Vmem => self.vmem.set(bytes, users.map(|user| &user.vmem)),
            Limit::Memlock => self.memlock.set(bytes, users.map(|user| &user.memlock)),
        }
    }
    fn of(&self, limit: Limit) -> &AtomicU64 {
        match limit {
            Limit::Stack => &self.stack,
            Limit::Data => &self.data,
            Limit::Vmem => &self.vmem.bytes,
            Limit::Memlock => &self.memlock.bytes,
        }
    }
}

impl Process {
    /// Sets a limit in bytes; `u64::MAX` is no limit. What is over it already stays.
    #[doc(alias = "setrlimit")]
    pub fn set_limit(&self, limit: Limit, bytes: u64) {
        let mut image = self.shared.image();
        loop {
            image.set_limit(&self.shared.limits, limit, bytes);
            let now = self.shared.image();
            if Arc::ptr_eq(&image, &now) {
                return;
            }
            image = now; // P4: it runs another program by now
        }
    }
    /// A limit in bytes.
    #[doc(alias = "getrlimit")]
    pub fn limit(&self, limit: Limit) -> u64 {
        self.shared.limits.of(limit).load(Ordering::Acquire)
    }
}
