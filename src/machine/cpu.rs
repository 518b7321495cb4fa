//! What user code does: loads, stores and fetches, each on a processor, through its translations.
//!
//! ```text
//!   access ─▶ this process's space active on the CPU ─▶ remembered, or walked ─▶ bytes of a frame
//!                                                         │ trap
//!                                                         ▼
//!              AddrSpace::fault ── resolved ─▶ the access is made again
//!                     │ nothing mapped, below the stack ─▶ the stack grows ─▶ again
//!                     ▼
//!                  a signal, at the byte it happened
//! ```
//!
//! Where a watch and nothing else keeps the access from being made ([`addr_space::watch`]), the bytes that are not watched are moved by the system, and the first
//! that is ends it with SIGTRAP. The kernel's own copies come the same way.
//!
//! Threads of several processes may share a processor. Switching it to a space and making the access are one step, under the
//! processor's turn; faults are resolved without it.
//!
//! Sources: illumos `i86pc/os/trap.c` (behaviour); illumos.md 3.6.

use super::copy::pieces;
use super::process::{Process, USER_TOP};
use addr_space::{FaultError, FaultKind, Moved, Signal, WatchFlags};
use hat_x86::{Bytes, Mmu, PfError, SpaceId, Trap, UserAccess};
use page_db::sync::{Mutex, PerCpu};
use page_db::{Access, Prot, Rank, VirtAddr, VirtRange, errno};
use std::sync::Arc;

/// How often one access may fault before it is given up: a fault that is resolved and comes back for ever is a defect of ours, and
/// an answer is better than a hang.
const MOST_FAULTS: u32 = 10_000;

/// An access that stopped: the bytes before it are done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{signal:?} at {addr:#x}, after {done} bytes")]
pub struct AccessError {
    /// Bytes done before.
    pub done: u64,
    /// What the thread dies of.
    pub signal: Signal,
    /// The first byte that could not be reached.
    pub addr: u64,
}

impl AccessError {
    /// In words.
    pub fn what(&self) -> &'static str {
        match self.signal {
            Signal::SegvMapErr => "nothing is mapped there",
            Signal::SegvAccErr => "the mapping does not allow it",
            Signal::TrapWatch { .. } => "it is watched",
            Signal::BusObjErr(errno::ENOMEM) => "there is no memory for it",
            _ => "the object behind it failed",
        }
    }
}

/// What a machine's processors must be: a backend of the page tables through which user code's accesses can be made. [`hat_x86::HostMmu`], the
/// simulated one, is what a machine has unless [`MachineBuilder::mmu`](super::MachineBuilder::mmu) brings another.
pub trait Processors: Mmu + UserAccess {}
impl<T: Mmu + UserAccess> Processors for T {}

/// Whose turn it is on each processor. Held over a switch and one access, and given back before a fault is resolved.
pub(crate) type Turns = PerCpu<Mutex<()>>;

pub(crate) fn turns(cpus: u16) -> Turns {
    PerCpu::new(cpus, |_| Mutex::new(Rank::Turn, ()))
}

/// `n` of the bytes, from `from` on.
fn part<'a>(all: &'a mut Bytes<'_>, from: usize, n: usize) -> Bytes<'a> {
    match all {
        Bytes::Load(b) => Bytes::Load(&mut b[from..from + n]),
        Bytes::Fetch(b) => Bytes::Fetch(&mut b[from..from + n]),
        Bytes::Store(b) => Bytes::Store(&b[from..from + n]),
    }
}

impl Process {
    /// Loads bytes, upwards.
    ///
    /// # Errors
    /// [`AccessError`] with the signal; the bytes before it are in `buf`.
    pub fn load(&self, addr: u64, buf: &mut [u8]) -> Result<(), AccessError> {
        self.each_piece(addr, Bytes::Load(buf))
    }
    /// Stores bytes, upwards.
    ///
    /// # Errors
    /// [`AccessError`] with the signal; the bytes before it are stored.
    pub fn store(&self, addr: u64, bytes: &[u8]) -> Result<(), AccessError> {
        self.each_piece(addr, Bytes::Store(bytes))
    }
    /// Fetches instruction bytes, upwards.
    ///
    /// # Errors
    /// [`AccessError`] with the signal; the bytes before it are in `buf`.
    pub fn fetch(&self, addr: u64, buf: &mut [u8]) -> Result<(), AccessError> {
        self.each_piece(addr, Bytes::Fetch(buf))
    }
    /// Loads one byte.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn load_u8(&self, addr: u64) -> Result<u8, AccessError> {
        let mut b = [0];
        self.load(addr, &mut b).map(|()| b[0])
    }

    /// Makes an access of any length page by page, resolving faults.
    fn each_piece(&self, addr: u64, mut all: Bytes<'_>) -> Result<(), AccessError> {
        let access = all.access();
        for (done, at, n) in pieces(addr, all.len() as u64) {
            let stop = |signal| AccessError { done, signal, addr: at };
            let user = VirtAddr::new(at).ok().filter(|a| a.get() < USER_TOP);
            let va = user.ok_or(stop(Signal::SegvMapErr))?;
            let from = done as usize;
            let mut faults = 0;
            while let Err(trap) = self.access(va, part(&mut all, from, n)) {
                faults += 1;
                if faults >= MOST_FAULTS {
                    return Err(stop(Signal::BusObjErr(errno::EDEADLK)));
                }
                if self.is_kept_by_a_watch(va, access) {
                    match self.past_watches(va, part(&mut all, from, n)) {
                        Ok(true) => break,
                        Ok(false) => continue,
                        Err(e) => return Err(AccessError { done: done + e.done, ..e }),
                    }
                }
                self.resolve(trap, access).map_err(stop)?;
            }
        }
        Ok(())
    }
    /// Whether the page at `va` would allow `access`, were it not watched.
    fn is_kept_by_a_watch(&self, va: VirtAddr, access: Access) -> bool {
        let space = self.space_now();
        if !space.is_watched() || !space.is_watched_page(va, access) {
            return false;
        }
        let wanted = match access {
            Access::Write => Prot::WRITE,
            Access::Exec => Prot::EXEC,
            _ => Prot::READ,
        };
        space.check_prot(self.cx(), VirtRange::page_of(va), wanted).is_ok()
    }
    /// Makes an access within a page that is watched, up to the first byte that is. `Ok(false)`: it is to be made again.
    fn past_watches(&self, va: VirtAddr, bytes: Bytes<'_>) -> Result<bool, AccessError> {
        let (space, access, len) =
            (Arc::clone(&self.space_now()), bytes.access(), bytes.len() as u64);
        let hit = space.watch_hit(va, len, access);
        let after = hit.is_some_and(|hit| hit.area.flags.contains(WatchFlags::AFTER));
        let before = hit.map_or(len, |hit| hit.first.get() - va.get());
        let through = before + hit.filter(|_| after).map_or(0, |hit| hit.bytes);
        let n = through as usize;
        let moved = match bytes {
            Bytes::Load(b) => Moved::Load(&mut b[..n]),
            Bytes::Fetch(b) => Moved::Fetch(&mut b[..n]),
            Bytes::Store(b) => Moved::Store(&b[..n]),
        };
        if n != 0
            && let Err(e) = space.access_watched(self.cx(), va, moved, hit.filter(|_| after))
        {
            return match e.signal() {
                Signal::None => Ok(false),
                signal => Err(AccessError { done: 0, signal, addr: va.get() }),
            };
        }
        hit.map_or(Ok(true), |hit| {
            let signal = Signal::TrapWatch { access, after };
            Err(AccessError { done: through, signal, addr: hit.first.get() })
        })
    }
    /// One access within one page, in this process's space on this thread's CPU.
    fn access(&self, va: VirtAddr, bytes: Bytes<'_>) -> Result<(), Trap> {
        let (cx, parts) = (self.cx(), self.machine.parts());
        let cpu = cx.cpu();
        let id = SpaceId(self.space_now().hat().id());
        let _turn = parts.turns.get(usize::from(cpu.0)).lock(cx);
        if !parts.mmu.is_active(cx, cpu, id) {
            parts.mmu.activate(cx, cpu, Some(id));
        }
        match bytes {
            Bytes::Load(b) => parts.mmu.load(cx, cpu, va, b),
            Bytes::Store(b) => parts.mmu.store(cx, cpu, va, b),
            Bytes::Fetch(b) => parts.mmu.fetch(cx, cpu, va, b),
        }
    }
    /// Does what the trap handler does; `Ok` says that the access is to be made again.
    fn resolve(&self, trap: Trap, access: Access) -> Result<(), Signal> {
        let Trap::Page(fault) = trap else { return Err(Signal::BusAdrErr) };
        let kind =
            if fault.error.contains(PfError::P) { FaultKind::Prot } else { FaultKind::Invalid };
        let resolved = self.space_now().fault_at(self.cx(), fault.va, kind, access);
        match resolved {
            Ok(()) => Ok(()),
            Err(FaultError::NoMap { .. }) if self.try_grow(fault.va.get()) => Ok(()),
            Err(e) => match self.signal_of(&e) {
                Signal::None => Ok(()),
                signal => Err(signal),
            },
        }
    }
}
