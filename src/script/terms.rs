//! The small words of the language: who, where, how long, how.

use std::fmt;

use super::outcome::PAGE_BYTES;

/// The first page number that does not fit in an address.
pub const PAGE_LIMIT: u64 = u64::MAX / PAGE_BYTES;

/// A process, as a script writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProcRef {
    /// Its slot in the trace language, 0 to 7.
    Slot(u32),
    /// Its name, without the `$`.
    Name(String),
}

/// A file, as a script writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileRef {
    /// Its slot in the trace language, 0 to 15.
    Slot(u32),
    /// Its name, without the `$`.
    Name(String),
}

/// An address, as a script writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addr {
    /// Where counting starts.
    pub base: AddrBase,
    /// Bytes on top.
    pub plus: u64,
}

/// Where an address is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddrBase {
    /// Pages from the start of the arena.
    Arena(u64),
    /// `b:`: pages from the initial break.
    Break(u64),
    /// `@null`: address 0.
    Null,
    /// `@top`: the last but one page below the user limit.
    Top,
    /// `@kern`: the lowest address of the upper half.
    Kern,
    /// `0x...`: an address.
    Absolute(u64),
}

/// Where the things lie that addresses are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Address of the arena's first page.
    pub arena: u64,
    /// The process's initial break, rounded up to a page.
    pub brk: u64,
}

/// `@top`: the last but one page below the user limit.
pub const TOP_ADDRESS: u64 = 0x7fff_ffff_e000;

/// `@kern`: the lowest canonical address of the upper half.
pub const KERN_ADDRESS: u64 = 0xffff_8000_0000_0000;

impl Addr {
    /// `pages` from the start of the arena.
    pub const fn arena(pages: u64) -> Addr {
        Addr { base: AddrBase::Arena(pages), plus: 0 }
    }

    /// An absolute address.
    pub const fn absolute(address: u64) -> Addr {
        Addr { base: AddrBase::Absolute(address), plus: 0 }
    }

    /// The same with `bytes` on top.
    pub const fn plus(self, bytes: u64) -> Addr {
        Addr { base: self.base, plus: self.plus.wrapping_add(bytes) }
    }

    /// The address meant; sums wrap as the machine's do.
    pub const fn resolve(self, layout: Layout) -> u64 {
        let base = match self.base {
            AddrBase::Arena(pages) => layout.arena.wrapping_add(pages.wrapping_mul(PAGE_BYTES)),
            AddrBase::Break(pages) => layout.brk.wrapping_add(pages.wrapping_mul(PAGE_BYTES)),
            AddrBase::Null => 0,
            AddrBase::Top => TOP_ADDRESS,
            AddrBase::Kern => KERN_ADDRESS,
            AddrBase::Absolute(address) => address,
        };
        base.wrapping_add(self.plus)
    }
}

/// A length, as a script writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Length {
    /// Pages, and bytes on top.
    Pages(u64, u64),
    /// Bytes (`0x2000`, `64k`).
    Bytes(u64),
    /// `@max`: 2^64 - 1.
    Max,
    /// `@maxpg`: 2^64 - 4096.
    MaxPages,
    /// `@wrap`: so that address + length is 2^64 + 4096.
    Wrap,
}

impl Length {
    /// The number of bytes meant, for a range that starts at `address`.
    pub const fn resolve(self, address: u64) -> u64 {
        match self {
            Length::Pages(pages, plus) => pages.wrapping_mul(PAGE_BYTES).wrapping_add(plus),
            Length::Bytes(bytes) => bytes,
            Length::Max => u64::MAX,
            Length::MaxPages => u64::MAX - PAGE_BYTES + 1,
            Length::Wrap => PAGE_BYTES.wrapping_sub(address),
        }
    }

    /// So many bytes, as whole pages where they are.
    pub const fn of(bytes: u64) -> Length {
        Length::Pages(bytes / PAGE_BYTES, bytes % PAGE_BYTES)
    }
}

/// Protection letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prot {
    /// Some of `rwx`; none of them is written `-`.
    Letters {
        /// `r`
        read: bool,
        /// `w`
        write: bool,
        /// `x`
        exec: bool,
    },
    /// `bad`: read, and a bit that means nothing.
    Bad,
}

impl Prot {
    /// `rw`
    pub const RW: Prot = Prot::Letters { read: true, write: true, exec: false };
    /// `r`
    pub const R: Prot = Prot::Letters { read: true, write: false, exec: false };
    /// `-`
    pub const NONE: Prot = Prot::Letters { read: false, write: false, exec: false };
}

/// Defines an enum whose variants are words of the language.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal, $help:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* #[doc = $help] $variant,)* }

        impl $name {
            /// Every word, with what it means.
            pub const WORDS: &'static [(&'static str, &'static str)] = &[$(($word, $help),)*];

            /// The word.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }

            /// The value a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some($name::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// What a file descriptor may do.
    OpenMode {
        ReadWrite = "rw", "read and write";
        ReadOnly = "ro", "read only";
        WriteOnly = "wo", "write only";
    }
}

words! {
    /// The sharing flags of a mapping.
    Share {
        Private = "priv", "stores stay in this process";
        Shared = "shared", "stores go to the object";
        Both = "both", "both flags at once, which is a mistake";
        Neither = "neither", "no flag, which is a mistake";
    }
}

words! {
    /// How a mapping's address is meant.
    Placement {
        Fixed = "fixed", "exactly there, over what is there";
        Hint = "hint", "there if it is free";
        NoReplace = "noreplace", "exactly there, or EEXIST";
    }
}

words! {
    /// Advice about a range.
    Advice {
        Normal = "normal", "no special use";
        Random = "random", "no fault-ahead";
        Sequential = "sequential", "fault ahead, let go behind";
        WillNeed = "willneed", "bring the pages in now";
        PopulateRead = "populate_read", "bring the pages in and map them for loads";
        PopulateWrite = "populate_write", "the same for stores: pages of its own";
        DontNeed = "dontneed", "the pages may leave memory";
        Free = "free", "the contents are no longer wanted";
        Purge = "purge", "the same, and what is easily given up goes at once";
        Drop = "drop", "this side's contents go, as UVM frees";
        Discard = "discard", "the same, as Linux's dontneed: zeros or the file at once";
        DontFork = "dontfork", "a child has no such mapping";
        DoFork = "dofork", "a child has the mapping again";
        InheritZero = "inherit_zero", "a child finds zeros";
        InheritCopy = "inherit_copy", "a child finds a copy again";
        Bad = "bad", "an advice that means nothing";
    }
}

words! {
    /// What a child of fork finds.
    Inherit {
        Share = "share", "the same memory: what one stores the other sees";
        Copy = "copy", "a copy, on write";
        None = "none", "nothing is mapped there";
        Zero = "zero", "zeros";
    }
}

words! {
    /// Whose answers a process gets.
    SystemName {
        Illumos = "illumos", "those of illumos";
        Linux = "linux", "Linux's, where a system call can give them by itself";
    }
}

words! {
    /// What `memcntl` is asked for.
    ControlCommand {
        Sync = "sync", "write back";
        Lock = "lock", "lock in memory";
        Unlock = "unlock", "unlock";
        Advise = "advise", "advice";
        LockAs = "lockas", "lock all memory";
        UnlockAs = "unlockas", "unlock all memory";
        HatAdvise = "hat_advise", "advice about page sizes";
        InheritZero = "inherit_zero", "a child finds zeros";
        Bad = "bad", "a command that means nothing";
    }
}

words! {
    /// What `lockall` is to lock.
    LockAll {
        Current = "current", "what is mapped now";
        Future = "future", "what will be mapped";
        Both = "both", "what is mapped now and later";
        Nothing = "nothing", "no flag, which is a mistake";
    }
}

words! {
    /// A limit that `setrlimit` sets.
    Limit {
        Stack = "stack", "bytes the stack may grow to";
        Data = "data", "bytes the break may grow to";
        Vmem = "vmem", "bytes that may be mapped in all";
        Memlock = "memlock", "bytes that may be locked";
    }
}

words! {
    /// The page hash of a machine.
    HashKind {
        Chain = "chain", "chains through the page array";
        DashMap = "dashmap", "a sharded concurrent map";
    }
}

words! {
    /// What fork does with an amap.
    ForkPolicy {
        Eager = "eager", "copy the amap's slots at fork";
        Lazy = "lazy", "share the amap until someone needs it";
    }
}

words! {
    /// What fork does with pages that the parent has locked.
    LockedAtFork {
        Share = "share", "share them like others";
        Copy = "copy", "give the child copies at once";
    }
}

words! {
    /// What the i/o does with the pages that `pin` holds.
    PinFor {
        Read = "r", "the device reads memory";
        Write = "w", "the device writes memory";
    }
}

/// What `watch` waits for: letters of `rwx`, and `+after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WatchFor {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub exec: bool,
    /// The trap comes after the access.
    pub after: bool,
}

/// Which pages of a range `memcntl` means; none of it: all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageChoice {
    /// That can be loaded.
    pub read: bool,
    /// That can be stored to.
    pub write: bool,
    /// That can be executed.
    pub exec: bool,
    /// Of shared mappings.
    pub shared: bool,
    /// Of private mappings.
    pub private: bool,
    /// A bit that means nothing.
    pub bad: bool,
}

/// What `meminfo` is asked about an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemQuestions {
    /// The physical address.
    pub physical: bool,
    /// The locality group.
    pub group: bool,
    /// The size of the page.
    pub pagesize: bool,
    /// How many replicas there are.
    pub replicas: bool,
}

/// The flags of `sync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SyncFlags {
    /// Write and wait.
    pub sync: bool,
    /// Start writing.
    pub asynchronous: bool,
    /// Then forget the pages.
    pub invalidate: bool,
    /// A flag that means nothing.
    pub bad: bool,
}

/// The flags of `remap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RemapFlags {
    /// The mapping may move.
    pub may: bool,
    /// It moves to the address given.
    pub fixed: bool,
    /// The old range stays mapped, empty.
    pub dontunmap: bool,
}
