//! What is allowed, and what is attempted.

use core::fmt;

bitflags::bitflags! {
    /// Rights on a page. `READ` alone is the least a translation can carry; no rights means no translation.
    #[doc(alias("PROT_READ", "PROT_WRITE", "PROT_EXEC", "PROT_USER", "PROT_NONE"))]
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
        /// Usable from user mode; absent on kernel translations.
        const USER = 8;
    }
}

impl Prot {
    /// Load and store.
    pub const RW: Self = Self::READ.union(Self::WRITE);
    /// Load and fetch.
    pub const RX: Self = Self::READ.union(Self::EXEC);
    /// Everything a user page may carry besides [`Prot::USER`].
    pub const RWX: Self = Self::RW.union(Self::EXEC);

    /// Whether these rights allow `access`. [`Access::Other`] asks for any right at all.
    #[inline]
    pub fn allows(self, access: Access) -> bool {
        self.intersects(access.wants())
    }
    /// These rights less [`Prot::WRITE`].
    #[must_use]
    pub fn read_only(self) -> Self {
        self.difference(Self::WRITE)
    }
}

impl fmt::Display for Prot {
    /// Three letters, `rwx` with `-` for what is missing, as pmap prints a mode.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit, l| if self.contains(bit) { l } else { '-' };
        let s = [letter(Self::READ, 'r'), letter(Self::WRITE, 'w'), letter(Self::EXEC, 'x')];
        let mut text = [0u8; 3];
        for (t, c) in text.iter_mut().zip(s) {
            *t = c as u8;
        }
        f.pad(core::str::from_utf8(&text).unwrap_or("---"))
    }
}

impl serde::Serialize for Prot {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What an access is going to do.
#[doc(alias = "seg_rw")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize)]
pub enum Access {
    /// Not known, or the page is not touched.
    #[doc(alias = "S_OTHER")]
    #[default]
    Other,
    /// A load.
    #[doc(alias = "S_READ")]
    Read,
    /// A store.
    #[doc(alias = "S_WRITE")]
    Write,
    /// An instruction fetch.
    #[doc(alias = "S_EXEC")]
    Exec,
    /// The page must be made; nothing is read.
    #[doc(alias = "S_CREATE")]
    Create,
    /// A soft-locked load that must not break copy-on-write.
    #[doc(alias = "S_READ_NOCOW")]
    ReadNoCow,
}

impl Access {
    /// The rights of which one must be there. A constant for each kind: every fault asks twice.
    #[inline]
    const fn wants(self) -> Prot {
        const WANTS: [Prot; 6] = {
            let mut wants = [Prot::empty(); 6];
            wants[Access::Other as usize] = Prot::RWX;
            wants[Access::Read as usize] = Prot::READ;
            wants[Access::ReadNoCow as usize] = Prot::READ;
            wants[Access::Write as usize] = Prot::WRITE;
            wants[Access::Create as usize] = Prot::WRITE;
            wants[Access::Exec as usize] = Prot::EXEC;
            wants
        };
        WANTS[self as usize]
    }
    /// Whether the access stores.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::Create)
    }
}
