//! What went wrong, as a word: error numbers, and what a signal means.

use std::fmt;

use serde::{Serialize, Serializer};

/// Defines [`Errno`] with its names, numbers and explanations.
macro_rules! errnos {
    ($($name:ident = $number:literal, $what:literal;)*) => {
        /// An error number, with illumos's value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(clippy::upper_case_acronyms, reason = "they are spelt as errno.h spells them")]
        #[non_exhaustive]
        pub enum Errno {
            $(#[doc = $what] $name = $number,)*
        }

        impl Errno {
            /// Every error number there is, by name.
            pub const ALL: &'static [Errno] = &[$(Errno::$name,)*];

            /// The name, as errno.h spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* }
            }

            /// What it means, in a few words.
            pub const fn meaning(self) -> &'static str {
                match self { $(Errno::$name => $what,)* }
            }

            /// The number on illumos.
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The error with this illumos number, if it is one the system answers with.
            pub const fn from_number(number: i32) -> Option<Errno> {
                match number { $($number => Some(Errno::$name),)* _ => None }
            }

            /// The error with this name.
            pub fn from_name(name: &str) -> Option<Errno> {
                match name { $(stringify!($name) => Some(Errno::$name),)* _ => None }
            }
        }
    };
}

errnos! {
    EPERM = 1, "not permitted";
    ENOENT = 2, "no such file";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted";
    EIO = 5, "input or output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument list too long";
    ENOEXEC = 8, "not an executable";
    EBADF = 9, "bad file descriptor";
    EAGAIN = 11, "no resources now";
    ENOMEM = 12, "no memory, or no such addresses";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    EBUSY = 16, "in use";
    EEXIST = 17, "exists already";
    ENODEV = 19, "no such device";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    EROFS = 30, "read-only file system";
    EIDRM = 36, "identifier removed";
    EDEADLK = 45, "deadlock avoided";
    ENOTSUP = 48, "not supported";
    EOVERFLOW = 79, "value too large";
    ENOSYS = 89, "no such call";
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Errno {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// Which of the two things SIGSEGV can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SegvCode {
    /// Nothing is mapped there.
    #[doc(alias = "SEGV_MAPERR")]
    Maperr,
    /// The mapping does not allow the access.
    #[doc(alias = "SEGV_ACCERR")]
    Accerr,
}

impl SegvCode {
    /// The word in a result line.
    pub const fn word(self) -> &'static str {
        match self {
            SegvCode::Maperr => "maperr",
            SegvCode::Accerr => "accerr",
        }
    }
}

/// What reached a watched byte, behind SIGTRAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrapCode {
    /// A load.
    #[doc(alias = "TRAP_RWATCH")]
    Rwatch,
    /// A store.
    #[doc(alias = "TRAP_WWATCH")]
    Wwatch,
    /// An instruction fetch.
    #[doc(alias = "TRAP_XWATCH")]
    Xwatch,
}

impl TrapCode {
    /// The word in a result line.
    pub const fn word(self) -> &'static str {
        match self {
            TrapCode::Rwatch => "rwatch",
            TrapCode::Wwatch => "wwatch",
            TrapCode::Xwatch => "xwatch",
        }
    }
}

/// Which of the things SIGBUS can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BusCode {
    /// No such physical address; Linux also says this past the end of a file.
    #[doc(alias = "BUS_ADRERR")]
    Adrerr,
    /// The object behind the mapping failed: past the end of a file, input error, no swap.
    #[doc(alias = "BUS_OBJERR")]
    Objerr,
    /// A misaligned access.
    #[doc(alias = "BUS_ADRALN")]
    Adraln,
}

impl BusCode {
    /// The word in a result line.
    pub const fn word(self) -> &'static str {
        match self {
            BusCode::Adrerr => "adrerr",
            BusCode::Objerr => "objerr",
            BusCode::Adraln => "adraln",
        }
    }
}
