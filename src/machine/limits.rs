//! What a process may have of the stack, of the break, of address space and of locked memory (`setrlimit`).
//!
//! Each process has its own. The address space asks for two of them where it counts, so it is told the number of whoever set it last. A child that uses its
//! parent's memory sets limits, and runs a program under them: when it has left, the space is told again what the process has that it was made for.
//!
//! ```text
//!                              parent   the address space   child
//!   vfork                      8        8                   8
//!   setrlimit, by the child    8        2                   2
//!   exec, by the child         8        8                   2, and a space of its own that is told 2
//! ```
//!
//! Sources: illumos.md 3.5 (`p_vmem_ctl`).

use super::process::{Process, STACK_LIMIT};
use addr_space::AddrSpace;
use page_db::sync::atomic::{AtomicU64, Ordering};

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

/// The limits of a process.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) stack: AtomicU64,
    pub(crate) data: AtomicU64,
    vmem: AtomicU64,
    memlock: AtomicU64,
}

impl Default for Limits {
    fn default() -> Self {
        let none = || AtomicU64::new(u64::MAX);
        Self { stack: AtomicU64::new(STACK_LIMIT), data: none(), vmem: none(), memlock: none() }
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
        copy(&self.vmem, &from.vmem);
        copy(&self.memlock, &from.memlock);
    }
    /// Tells an address space that these are the limits now.
    pub(crate) fn tell(&self, space: &AddrSpace) {
        space.state().set_vmem_limit(self.vmem.load(Ordering::Acquire));
        space.state().set_memlock_limit(self.memlock.load(Ordering::Acquire));
    }
    fn of(&self, limit: Limit) -> &AtomicU64 {
        match limit {
            Limit::Stack => &self.stack,
            Limit::Data => &self.data,
            Limit::Vmem => &self.vmem,
            Limit::Memlock => &self.memlock,
        }
    }
}

impl Process {
    /// Sets a limit in bytes; `u64::MAX` is no limit. What is over it already stays.
    #[doc(alias = "setrlimit")]
    pub fn set_limit(&self, limit: Limit, bytes: u64) {
        self.shared.limits.of(limit).store(bytes, Ordering::Release);
        match limit {
            Limit::Stack | Limit::Data => {}
            Limit::Vmem => self.space_now().state().set_vmem_limit(bytes),
            Limit::Memlock => self.space_now().state().set_memlock_limit(bytes),
        }
    }
    /// A limit in bytes.
    #[doc(alias = "getrlimit")]
    pub fn limit(&self, limit: Limit) -> u64 {
        self.shared.limits.of(limit).load(Ordering::Acquire)
    }
}
