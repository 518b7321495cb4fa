//! Why a file could not be used.

use page_db::{PageError, VnodeError, errno};

/// Why a file could not be read, written or resized.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// The file may not be written.
    #[error("`{name}` is on a read-only store")]
    ReadOnly {
        /// The file.
        name: String,
    },
    /// The offset is not one.
    #[error("offset {offset:#x} of `{name}` passes the largest file offset")]
    BadOffset {
        /// The file.
        name: String,
        /// What was asked for.
        offset: u64,
    },
    /// The file would become too large.
    #[error("`{name}` cannot have {end:#x} bytes")]
    TooBig {
        /// The file.
        name: String,
        /// Bytes it would have.
        end: u64,
    },
    /// The store refused a new size, or to open, or to flush.
    #[error("the store of `{name}` failed with errno {errno}")]
    Store {
        /// The file.
        name: String,
        /// What it said.
        errno: i32,
    },
    /// No frame could be had, and nothing can be reclaimed.
    #[error("no memory for a page of `{name}`: {source}")]
    NoMemory {
        /// The file.
        name: String,
        /// Why.
        source: PageError,
    },
    /// No number for the vnode.
    #[error("no vnode number is left for `{name}`")]
    NoVnode {
        /// The file.
        name: String,
    },
    /// A page could not be had.
    #[error(transparent)]
    Vnode(#[from] VnodeError),
}

impl FileError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::ReadOnly { .. } => errno::EROFS,
            Self::BadOffset { .. } => errno::EINVAL,
            Self::TooBig { .. } => errno::EFBIG,
            Self::Store { errno, .. } => *errno,
            Self::NoMemory { .. } | Self::NoVnode { .. } => errno::ENOMEM,
            Self::Vnode(e) => e.errno(),
        }
    }
}
