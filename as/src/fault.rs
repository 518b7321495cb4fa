//! The words of a fault: what happened, what was wanted, what it turns into.
//!
//! Sources: illumos `vm/seg_enum.h`, `vm/faultcode.h` (names and numbers); illumos.md 2.2, 3.6.

use page_db::{Access, VirtAddr, errno};

/// Why a fault is raised.
#[doc(alias = "fault_type")]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum FaultKind {
    /// No valid translation.
    #[doc(alias = "F_INVAL")]
    Invalid,
    /// The translation lacks the right.
    #[doc(alias = "F_PROT")]
    Prot,
    /// Lock pages and translations for i/o by software.
    #[doc(alias = "F_SOFTLOCK")]
    SoftLock,
    /// Undo a soft lock; address, length and access equal those of the lock.
    #[doc(alias = "F_SOFTUNLOCK")]
    SoftUnlock,
}

/// Why a fault could not be resolved.
#[doc(alias("faultcode_t", "FC_CODE", "FC_MAKE_ERR"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FaultError {
    /// No segment there.
    #[error("nothing is mapped at {addr}")]
    #[doc(alias = "FC_NOMAP")]
    NoMap {
        /// First address without a segment.
        addr: VirtAddr,
    },
    /// The segment does not allow the access.
    #[error("{access:?} is not allowed at {addr}")]
    #[doc(alias = "FC_PROT")]
    Prot {
        /// First page that refuses.
        addr: VirtAddr,
        /// What was attempted.
        access: Access,
    },
    /// The backing object failed.
    #[error("the object behind {addr} failed with errno {errno}")]
    #[doc(alias = "FC_OBJERR")]
    Object {
        /// Page concerned.
        addr: VirtAddr,
        /// What it answered.
        errno: i32,
    },
    /// The driver cannot do that kind of fault.
    #[error("{driver} does not support {kind:?} at {addr}")]
    #[doc(alias = "FC_NOSUPPORT")]
    NoSupport {
        /// Page concerned.
        addr: VirtAddr,
        /// The driver's name.
        driver: &'static str,
        /// The fault's kind.
        kind: FaultKind,
    },
    /// The hardware reported an error.
    #[error("hardware error at {addr}")]
    #[doc(alias = "FC_HWERR")]
    Hardware {
        /// Page concerned.
        addr: VirtAddr,
    },
    /// A misaligned access.
    #[error("misaligned access at {addr}")]
    #[doc(alias = "FC_ALIGN")]
    Align {
        /// The address.
        addr: VirtAddr,
    },
    /// No frame could be had. Inside the system this makes the operation back out, wait for memory and start over; what a caller
    /// sees has been turned into [`FaultError::Object`] with `ENOMEM`.
    #[error("no memory for the page at {addr}")]
    NoMemory {
        /// Page concerned.
        addr: VirtAddr,
    },
    /// What the fault was decided on has changed meanwhile; it starts over. Never leaves the address space.
    #[error("the fault at {addr} must start over")]
    Retry {
        /// Page concerned.
        addr: VirtAddr,
    },
    /// The segment shares its contents with a forked one until either needs its own, which is now: it is given its own
    /// ([`crate::SegOps::make_own`]), and the fault starts over. Never leaves the address space.
    #[error("the segment at {addr} must have contents of its own first")]
    #[doc(alias = "needs_copy")]
    NotOwn {
        /// Page concerned.
        addr: VirtAddr,
    },
}

/// A signal, with its code and address, as the trap layer would deliver it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum Signal {
    /// `SIGSEGV`, `SEGV_MAPERR`.
    SegvMapErr,
    /// `SIGSEGV`, `SEGV_ACCERR`.
    SegvAccErr,
    /// `SIGBUS`, `BUS_ADRERR`.
    BusAdrErr,
    /// `SIGBUS`, `BUS_ADRALN`.
    BusAdrAln,
    /// `SIGBUS`, `BUS_OBJERR`, with the object's errno.
    BusObjErr(i32),
    /// `SIGTRAP`: a watched byte. The code says what reached it; with `after`, that has been done.
    #[doc(alias("FLTWATCH", "TRAP_RWATCH", "TRAP_WWATCH", "TRAP_XWATCH"))]
    TrapWatch {
        /// A load (`TRAP_RWATCH`), a store (`TRAP_WWATCH`) or a fetch (`TRAP_XWATCH`).
        access: Access,
        /// Whether the access has been made (`si_trapafter`).
        after: bool,
    },
    /// No signal: the access is simply executed again (an interrupted object).
    None,
}

impl FaultError {
    /// The number illumos's `faultcode_t` holds: the class in the low byte, an object's errno above it.
    pub fn code(&self) -> i32 {
        match self {
            Self::Hardware { .. } => 1,
            Self::Align { .. } => 2,
            Self::Object { errno, .. } => (errno << 8) | 3,
            Self::NoMemory { .. } | Self::Retry { .. } | Self::NotOwn { .. } => {
                (errno::ENOMEM << 8) | 3
            }
            Self::Prot { .. } => 4,
            Self::NoMap { .. } => 5,
            Self::NoSupport { .. } => 6,
        }
    }
    /// The errno a system call reports for it.
    #[doc(alias = "fc_decode")]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Object { errno, .. } => *errno,
            Self::NoMemory { .. } | Self::Retry { .. } | Self::NotOwn { .. } => errno::ENOMEM,
            Self::Prot { .. } => errno::EACCES,
            _ => errno::EFAULT,
        }
    }
    /// The signal an access dies of.
    pub fn signal(&self) -> Signal {
        match self {
            Self::NoMap { .. } => Signal::SegvMapErr,
            Self::Prot { .. } => Signal::SegvAccErr,
            Self::Hardware { .. } | Self::NoSupport { .. } => Signal::BusAdrErr,
            Self::Align { .. } => Signal::BusAdrAln,
            Self::Object { errno, .. } if *errno == errno::EINTR => Signal::None,
            Self::Object { errno, .. } => Signal::BusObjErr(*errno),
            Self::NoMemory { .. } | Self::Retry { .. } | Self::NotOwn { .. } => {
                Signal::BusObjErr(errno::ENOMEM)
            }
        }
    }
    /// The address it is about.
    pub fn addr(&self) -> VirtAddr {
        match self {
            Self::NoMap { addr }
            | Self::Prot { addr, .. }
            | Self::Object { addr, .. }
            | Self::NoSupport { addr, .. }
            | Self::Hardware { addr }
            | Self::Align { addr }
            | Self::NoMemory { addr }
            | Self::Retry { addr }
            | Self::NotOwn { addr } => *addr,
        }
    }
}
