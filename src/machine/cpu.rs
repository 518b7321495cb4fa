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
//! Threads of several processes may share a processor. Switching it to a space and making the access are one step, under the
//! processor's turn; faults are resolved without it.
//!
//! Sources: illumos `i86pc/os/trap.c` (behaviour); illumos.md 3.6.

use super::copy::pieces;
use super::process::{Process, USER_TOP};
use addr_space::{FaultError, FaultKind, Signal};
use hat_x86::{Bytes, Mmu, PfError, SpaceId, Trap, UserAccess};
use page_db::sync::{Mutex, PerCpu};
use page_db::{Access, Rank, VirtAddr, errno};

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
            _ => "the object behind it failed",
        }
    }
}

/// Whose turn it is on each processor. Taken with nothing held, hence the first rank; held over a switch and one access.
pub(crate) type Turns = PerCpu<Mutex<()>>;

pub(crate) fn turns(cpus: u16) -> Turns {
    PerCpu::new(cpus, |_| Mutex::new(Rank::AsRange, ()))
}

impl Process {
    /// Loads bytes, upwards.
    ///
    /// # Errors
    /// [`AccessError`] with the signal; the bytes before it are in `buf`.
    pub fn load(&self, addr: u64, buf: &mut [u8]) -> Result<(), AccessError> {
        self.each_piece(addr, buf.len(), Access::Read, |va, from, n| {
            self.access(va, Bytes::Load(&mut buf[from..from + n]))
        })
    }
    /// Stores bytes, upwards.
    ///
    /// # Errors
    /// [`AccessError`] with the signal; the bytes before it are stored.
    pub fn store(&self, addr: u64, bytes: &[u8]) -> Result<(), AccessError> {
        self.each_piece(addr, bytes.len(), Access::Write, |va, from, n| {
            self.access(va, Bytes::Store(&bytes[from..from + n]))
        })
    }
    /// Fetches instruction bytes, upwards.
    ///
    /// # Errors
    /// [`AccessError`] with the signal; the bytes before it are in `buf`.
    pub fn fetch(&self, addr: u64, buf: &mut [u8]) -> Result<(), AccessError> {
        self.each_piece(addr, buf.len(), Access::Exec, |va, from, n| {
            self.access(va, Bytes::Fetch(&mut buf[from..from + n]))
        })
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
    fn each_piece(
        &self,
        addr: u64,
        len: usize,
        access: Access,
        mut make: impl FnMut(VirtAddr, usize, usize) -> Result<(), Trap>,
    ) -> Result<(), AccessError> {
        for (done, at, n) in pieces(addr, len as u64) {
            let stop = |signal| AccessError { done, signal, addr: at };
            let user = VirtAddr::new(at).ok().filter(|a| a.get() < USER_TOP);
            let va = user.ok_or(stop(Signal::SegvMapErr))?;
            let mut faults = 0;
            while let Err(trap) = make(va, done as usize, n) {
                faults += 1;
                debug_assert!(
                    faults < MOST_FAULTS,
                    "a resolved fault lets the access through: {trap}"
                );
                if faults >= MOST_FAULTS {
                    return Err(stop(Signal::BusObjErr(errno::EDEADLK)));
                }
                self.resolve(trap, access).map_err(stop)?;
            }
        }
        Ok(())
    }
    /// One access within one page, in this process's space on this thread's CPU.
    fn access(&self, va: VirtAddr, bytes: Bytes<'_>) -> Result<(), Trap> {
        let (cx, parts) = (self.cx(), self.machine.parts());
        let cpu = cx.cpu();
        let id = SpaceId(self.space().hat().id());
        let _turn = parts.turns.get(usize::from(cpu.0)).lock(cx);
        if parts.mmu.current(cx, cpu) != id {
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
        let resolved = self.space().fault_at(self.cx(), fault.va, kind, access);
        match resolved {
            Ok(()) => Ok(()),
            Err(FaultError::NoMap { .. }) if self.try_grow(fault.va.get()) => Ok(()),
            Err(e) => match e.signal() {
                Signal::None => Ok(()),
                signal => Err(signal),
            },
        }
    }
}
