//! What can go wrong in an address space and in a segment driver.

use crate::fault::FaultError;
use crate::hat::HatError;
use crate::state::AsId;
use crate::watch::WatchError;
use core::fmt;
use page_db::{FileOffset, PageError, UnitError, VirtAddr, VirtRange, VnodeError, errno};

/// A segment driver's answer when it cannot do what it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SegError {
    /// No swap can be reserved for this.
    #[error("no swap to reserve {bytes:#x} bytes for {range}")]
    #[doc(alias = "IE_NOMEM")]
    NoSwap {
        /// Where.
        range: VirtRange,
        /// How much was wanted.
        bytes: u64,
    },
    /// Redo the whole operation, holding the address-space lock as writer.
    #[error("the operation on {range} must be redone as writer")]
    #[doc(alias = "IE_RETRY")]
    Retry {
        /// Where.
        range: VirtRange,
    },
    /// Pages are pinned for i/o; wait for them or give up.
    #[error("pages of {range} are pinned")]
    #[doc(alias = "EAGAIN")]
    Pinned {
        /// Where.
        range: VirtRange,
    },
    /// Somebody holds a page that the operation must have alone, for a moment or pinned for i/o, whoever it is. The address space lets go of its lock, waits a
    /// tick and begins again; in the end it answers [`SegError::Pinned`].
    #[error("a page of {range} is held")]
    #[doc(alias = "EAGAIN")]
    Held {
        /// Where.
        range: VirtRange,
    },
    /// A right beyond the segment's ceiling was asked for, or a page lacks one.
    #[error("{range} may not have that protection")]
    #[doc(alias = "EACCES")]
    Access {
        /// Where.
        range: VirtRange,
    },
    /// No frame can be had now; back out and wait for memory.
    #[error("no memory for {range}")]
    NoMemory {
        /// Where.
        range: VirtRange,
    },
    /// Pages are locked in memory and the operation may not touch them.
    #[error("pages at {addr} are locked in memory")]
    #[doc(alias = "EBUSY")]
    Locked {
        /// First such page.
        addr: VirtAddr,
    },
    /// The process may not lock that much, or availrmem is too low.
    #[error("locking {range} passes a limit")]
    LockLimit {
        /// Where.
        range: VirtRange,
    },
    /// The driver has no such operation.
    #[error("{driver} does not support {op}")]
    NotSupported {
        /// The driver's name.
        driver: &'static str,
        /// The operation's name.
        op: &'static str,
    },
    /// What the driver maps has no identity that could be told.
    #[error("{driver} has no identity to tell")]
    #[doc(alias = "ENODEV")]
    NoIdentity {
        /// The driver's name.
        driver: &'static str,
    },
    /// The device refuses to have a page of it mapped.
    #[error("{driver}: the device has no page at offset {offset}")]
    #[doc(alias = "ENXIO")]
    NoDevicePage {
        /// The driver's name.
        driver: &'static str,
        /// Offset of the first such page on the device.
        offset: FileOffset,
    },
    /// The arguments make no sense to the driver.
    #[error("{driver}: {what} at {range}")]
    Invalid {
        /// The driver's name.
        driver: &'static str,
        /// What was wrong.
        what: &'static str,
        /// Where.
        range: VirtRange,
    },
    /// Nothing there counts as mapped (holes that look unmapped).
    #[error("nothing is mapped at {addr}")]
    Unmapped {
        /// First such address.
        addr: VirtAddr,
    },
    /// The vnode behind the segment failed.
    #[error(transparent)]
    Vnode(#[from] VnodeError),
    /// A fault made on the driver's behalf failed.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

impl SegError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoSwap { .. }
            | Self::Pinned { .. }
            | Self::Retry { .. }
            | Self::Held { .. }
            | Self::LockLimit { .. } => errno::EAGAIN,
            Self::Access { .. } => errno::EACCES,
            Self::NoMemory { .. } | Self::Unmapped { .. } => errno::ENOMEM,
            Self::Locked { .. } => errno::EBUSY,
            Self::NotSupported { .. } => errno::ENOTSUP,
            Self::NoIdentity { .. } => errno::ENODEV,
            Self::NoDevicePage { .. } => errno::ENXIO,
            Self::Invalid { .. } => errno::EINVAL,
            Self::Vnode(e) => e.errno(),
            Self::Fault(e) => e.errno(),
        }
    }
}

/// Whose something is, seen from an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Another machine.
    Machine,
    /// Another address space of this machine.
    Space(AsId),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("another machine"),
            Self::Space(id) => write!(f, "address space {}", id.0),
        }
    }
}

/// Why an operation on an address space failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AsError {
    /// The range is not one.
    #[error(transparent)]
    Range(#[from] UnitError),
    /// The range leaves the part of the address space that may be mapped.
    #[error("{range} lies outside {limits}")]
    OutsideSpace {
        /// What was asked for.
        range: VirtRange,
        /// What there is.
        limits: VirtRange,
    },
    /// A segment is in the way.
    #[error("{range} overlaps the segment {with}")]
    Overlap {
        /// What was asked for.
        range: VirtRange,
        /// What is there.
        with: VirtRange,
    },
    /// Nothing is mapped at some address of the range.
    #[error("nothing is mapped at {addr}")]
    Unmapped {
        /// First address without a segment.
        addr: VirtAddr,
    },
    /// No gap is large enough.
    #[error("no gap of {len:#x} bytes")]
    NoGap {
        /// Bytes wanted.
        len: u64,
    },
    /// The thread has the range claim of the address space already: it was called by what it does with it.
    #[error("the thread is choosing an address there already")]
    #[doc(alias = "EDEADLK")]
    Claimed,
    /// The process may not have that much address space.
    #[error("{bytes:#x} bytes more would pass the address-space limit of {limit:#x}")]
    VmemLimit {
        /// Bytes asked for.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The address space has been freed; nothing can be mapped in it any more.
    #[error("address space {} is gone", id.0)]
    Freed {
        /// Which one.
        id: AsId,
    },
    /// What was given is another machine's, or another address space's.
    #[error("{what} of {owner} in address space {}", id.0)]
    Foreign {
        /// What.
        what: &'static str,
        /// Whose it is.
        owner: Owner,
        /// Where it was to be used.
        id: AsId,
    },
    /// No memory could be had, and nothing can be reclaimed.
    #[error("out of memory: {0}")]
    NoMemory(#[source] PageError),
    /// The heap refused a record.
    #[error("no heap for a {what}")]
    NoHeap {
        /// What was to be allocated.
        what: &'static str,
    },
    /// A driver asked for the operation to start over, each time, and it has been given up.
    #[error("given up after {passes} passes: {why}")]
    #[doc(alias = "EDEADLK")]
    Deadlock {
        /// How often it was done again.
        passes: u32,
        /// What it said each time.
        why: &'static str,
        /// Where, if it said so.
        addr: Option<VirtAddr>,
    },
    /// A driver answered.
    #[error(transparent)]
    Seg(#[from] SegError),
    /// A fault could not be resolved.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The hat answered.
    #[error(transparent)]
    Hat(#[from] HatError),
    /// A watch cannot be set, or taken back.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl AsError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Range(_)
            | Self::OutsideSpace { .. }
            | Self::Unmapped { .. }
            | Self::NoGap { .. }
            | Self::Overlap { .. }
            | Self::VmemLimit { .. }
            | Self::NoMemory(_)
            | Self::NoHeap { .. } => errno::ENOMEM,
            Self::Foreign { .. } => errno::EINVAL,
            Self::Hat(e) => e.errno(),
            Self::Freed { .. } => errno::ESRCH,
            Self::Deadlock { .. } | Self::Claimed => errno::EDEADLK,
            Self::Seg(e) => e.errno(),
            Self::Fault(e) => e.errno(),
            Self::Watch(e) => e.errno(),
        }
    }
}
