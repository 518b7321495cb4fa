//! What can go wrong with pages and vnodes.

use crate::units::FileOffset;
use crate::vnode::{Identity, VnodeId};

/// Errno values as illumos numbers them; the subset this system answers with.
pub mod errno {
    #![allow(missing_docs, reason = "each name is its own meaning")]
    pub const EPERM: i32 = 1;
    pub const ENOENT: i32 = 2;
    pub const ESRCH: i32 = 3;
    pub const EINTR: i32 = 4;
    pub const EIO: i32 = 5;
    pub const ENXIO: i32 = 6;
    pub const EBADF: i32 = 9;
    pub const EAGAIN: i32 = 11;
    pub const ENOMEM: i32 = 12;
    pub const EACCES: i32 = 13;
    pub const EFAULT: i32 = 14;
    pub const EBUSY: i32 = 16;
    pub const EEXIST: i32 = 17;
    pub const ENODEV: i32 = 19;
    pub const EISDIR: i32 = 21;
    pub const EINVAL: i32 = 22;
    pub const EFBIG: i32 = 27;
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
    pub const EIDRM: i32 = 36;
    pub const EDEADLK: i32 = 45;
    pub const ENOTSUP: i32 = 48;
    pub const EOVERFLOW: i32 = 79;
    pub const ENOSYS: i32 = 89;
}

/// Failures of the page layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageError {
    /// No frame can be had now; back out of all locks and wait for memory.
    #[error("no free frame ({wanted} wanted, {freemem} free)")]
    NoMemory {
        /// Pages asked for.
        wanted: u64,
        /// Pages free at that moment.
        freemem: u64,
    },
    /// The identity has a page already.
    #[error("page {0} exists")]
    Exists(Identity),
    /// The identity's vnode number is not in use.
    #[error("vnode number {vnode} is not in use")]
    NoVnode {
        /// The number.
        vnode: VnodeId,
    },
    /// A claim would take availrmem below its floor, or a count is saturated.
    #[error("page cannot be locked in memory (availrmem {availrmem}, floor {floor})")]
    ClaimRefused {
        /// Pages of memory not promised to anybody.
        availrmem: u64,
        /// Pages user locks must leave (`pages_pp_maximum`).
        floor: u64,
    },
}

impl PageError {
    /// The number the textbook prints.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoMemory { .. } => errno::ENOMEM,
            Self::Exists(_) => errno::EEXIST,
            Self::NoVnode { .. } => errno::EINVAL,
            Self::ClaimRefused { .. } => errno::EAGAIN,
        }
    }
}

/// Failures of a vnode's page operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VnodeError {
    /// The offset lies past the end of the file.
    #[error("offset {offset} of vnode {vnode} lies past its end ({size:#x} bytes)")]
    BeyondEof {
        /// Whose page was asked for.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
        /// The size at that moment, in bytes.
        size: u64,
    },
    /// A device or host file failed.
    #[error("i/o error {errno} at offset {offset} of vnode {vnode}")]
    Io {
        /// Whose page.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
        /// What the device said.
        errno: i32,
    },
    /// No frame can be had now; see [`PageError::NoMemory`].
    #[error("no memory for a page of vnode {vnode} at {offset}")]
    NoMemory {
        /// Whose page.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
    },
    /// No place on the backing store; the page stays dirty and resident.
    #[error("no backing space for vnode {vnode} at {offset}")]
    NoSpace {
        /// Whose page.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
    },
    /// The name has no anon any more (a free is in progress).
    #[error("vnode {vnode} has nothing named {offset}")]
    NoName {
        /// Whose page.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
    },
    /// The page database has no such vnode: the number is not in use, or the object is another machine's.
    #[error("vnode {vnode} is not one of this page database's")]
    NoVnode {
        /// What it calls itself.
        vnode: VnodeId,
    },
    /// The vnode cannot do this kind of operation.
    #[error("vnode {vnode} does not support {op}")]
    NotSupported {
        /// Which vnode.
        vnode: VnodeId,
        /// The operation's name.
        op: &'static str,
    },
    /// The page is claimed (mlocked) and the operation may not touch it.
    #[error("page at {offset} of vnode {vnode} is locked in memory")]
    Locked {
        /// Whose page.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
    },
    /// A lock inversion was detected; the caller backs out and tries again a tick later.
    #[error("deadlock avoided at {offset} of vnode {vnode}")]
    Deadlock {
        /// Whose page.
        vnode: VnodeId,
        /// Where.
        offset: FileOffset,
    },
}

impl VnodeError {
    /// The number the textbook prints (`EFAULT` beyond the end of a file).
    pub fn errno(&self) -> i32 {
        match self {
            Self::BeyondEof { .. } => errno::EFAULT,
            Self::Io { errno, .. } => *errno,
            Self::NoMemory { .. } => errno::ENOMEM,
            Self::NoSpace { .. } => errno::ENOSPC,
            Self::NoName { .. } => errno::EIDRM,
            Self::NoVnode { .. } => errno::EINVAL,
            Self::NotSupported { .. } => errno::ENOSYS,
            Self::Locked { .. } => errno::EBUSY,
            Self::Deadlock { .. } => errno::EDEADLK,
        }
    }
}
