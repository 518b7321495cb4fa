//! What a system call answers when it does not do what it is asked.

use crate::files::{ElfError, FileError};
use addr_space::{AsError, FaultError, SegError};
use page_db::{PageError, errno};

/// A failed system call: which, the number its caller sees, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{call}: {cause} (errno {errno})")]
pub struct SysError {
    /// The call's name.
    pub call: &'static str,
    /// What the caller sees.
    pub errno: i32,
    /// What happened.
    pub cause: Cause,
}

/// Why a system call failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    /// The arguments are wrong, which is found out before anything is touched.
    #[error("{0}")]
    Argument(&'static str),
    /// The address space answered.
    #[error(transparent)]
    Space(#[from] AsError),
    /// A file answered.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program file is malformed.
    #[error(transparent)]
    Program(#[from] ElfError),
    /// User memory could not be reached.
    #[error("user memory cannot be reached: {0}")]
    User(FaultError),
    /// No memory for what the kernel itself needs.
    #[error(transparent)]
    Memory(#[from] PageError),
}

impl Cause {
    fn errno(&self) -> i32 {
        match self {
            Self::Argument(_) => errno::EINVAL,
            Self::Space(e) => e.errno(),
            Self::File(e) => e.errno(),
            Self::Program(e) => e.errno(),
            Self::User(_) => errno::EFAULT,
            Self::Memory(e) => e.errno(),
        }
    }
}

impl SysError {
    /// A cause with its own number.
    pub(crate) fn of(call: &'static str, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        Self { call, errno: cause.errno(), cause }
    }
    /// A cause that this call reports under another number.
    pub(crate) fn with(call: &'static str, errno: i32, cause: impl Into<Cause>) -> Self {
        Self { call, errno, cause: cause.into() }
    }
    /// A wrong argument.
    pub(crate) fn arg(call: &'static str, errno: i32, what: &'static str) -> Self {
        Self { call, errno, cause: Cause::Argument(what) }
    }
}

impl From<SegError> for Cause {
    fn from(e: SegError) -> Self {
        Self::Space(AsError::Seg(e))
    }
}
