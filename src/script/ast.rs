//! A script as a value.
//!
//! A [`Statement`] is what one line (or one piece between `;`) says, with the place of each of its
//! words. [`Operation`] holds everything that can be said; its [`Display`](std::fmt::Display) in
//! `print.rs` writes the canonical text, which parses to the same value again.

use std::fmt;

use super::outcome::{BusCode, Errno, FirstBytes, PAGE_BYTES, SegvCode};
use super::token::Span;

/// The first page number that does not fit in an address.
pub const PAGE_LIMIT: u64 = u64::MAX / PAGE_BYTES;

/// A whole script.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// What it says, in order.
    pub statements: Vec<Statement>,
}

impl Script {
    /// The operations alone, without places.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.statements.iter().map(|s| &s.operation)
    }

    /// The machine it asks for: all its `machine` statements together, later words over earlier.
    pub fn machine(&self) -> MachineSettings {
        let mut all = MachineSettings::default();
        for operation in self.operations() {
            if let Operation::Machine(settings) = operation {
                all.merge(settings);
            }
        }
        all
    }
}

/// One statement and where it stands.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it says.
    pub operation: Operation,
    /// Where each of its words stands, the first word first. Never empty.
    pub words: Vec<Span>,
}

impl Statement {
    /// Where the statement begins.
    pub fn span(&self) -> Span {
        self.words.first().copied().unwrap_or_default()
    }
}

impl From<Operation> for Statement {
    fn from(operation: Operation) -> Self {
        Statement { operation, words: Vec::new() }
    }
}

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
        DontNeed = "dontneed", "the pages may leave memory";
        Free = "free", "the contents are no longer wanted";
        DontFork = "dontfork", "a child has no such mapping";
        DoFork = "dofork", "a child has the mapping again";
        InheritZero = "inherit_zero", "a child finds zeros";
        InheritCopy = "inherit_copy", "a child finds a copy again";
        Bad = "bad", "an advice that means nothing";
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

/// Where a mapping's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Zeros.
    Anon,
    /// A file from an offset in bytes (written as pages and bytes on top, or in bytes).
    File(FileRef, Length),
}

/// Flags that follow a mapping's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MapFlags {
    /// Reserve no swap.
    pub noreserve: bool,
    /// Bring the pages in now.
    pub populate: bool,
    /// Lock them.
    pub locked: bool,
}

/// The words of `map`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Map {
    /// Whose address space.
    pub proc: ProcRef,
    /// Where.
    pub addr: Addr,
    /// How long.
    pub len: Length,
    /// Protection.
    pub prot: Prot,
    /// Sharing.
    pub share: Share,
    /// How the address is meant.
    pub placement: Placement,
    /// Where the bytes come from.
    pub source: Source,
    /// Flags.
    pub flags: MapFlags,
}

/// A range of a process's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// Whose.
    pub proc: ProcRef,
    /// From where.
    pub addr: Addr,
    /// How long.
    pub len: Length,
}

/// A range that a CPU loads from or stores to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessRange {
    /// The range.
    pub range: Range,
    /// The CPU it runs on; the machine's choice when not given.
    pub cpu: Option<u32>,
}

/// The words of `fread` and `fwrite`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// The file.
    pub file: FileRef,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The memory.
    pub memory: AccessRange,
}

/// Where a swap area's pages are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SwapBacking {
    /// In memory of the host.
    Memory,
    /// In a file of the host.
    File(String),
}

/// A swap area.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SwapSpec {
    /// Where it is kept.
    pub backing: SwapBacking,
    /// How many pages it holds.
    pub pages: u64,
    /// Its priority; areas of higher priority fill first.
    pub priority: Option<i32>,
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Amount {
    /// Frames.
    Frames(u64),
    /// Bytes.
    Bytes(u64),
}

impl Amount {
    /// The number of whole frames, rounded down.
    pub const fn frames(self) -> u64 {
        match self {
            Amount::Frames(n) => n,
            Amount::Bytes(n) => n / PAGE_BYTES,
        }
    }
}

/// The settings of a `machine` statement; what is not given is the machine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MachineSettings {
    /// Physical memory.
    pub memory: Option<Amount>,
    /// Number of simulated CPUs.
    pub cpus: Option<u32>,
    /// Number of page colours.
    pub colours: Option<u32>,
    /// Which page hash.
    pub hash: Option<HashKind>,
    /// What fork does with amaps.
    pub fork: Option<ForkPolicy>,
    /// Seed of whatever the machine draws by lot.
    pub seed: Option<u64>,
    /// Swap areas, in order. Empty means the machine's default.
    pub swap: Vec<SwapSpec>,
}

impl MachineSettings {
    /// Lays `later` over this: its words win, its swap areas follow.
    pub fn merge(&mut self, later: &MachineSettings) {
        self.memory = later.memory.or(self.memory);
        self.cpus = later.cpus.or(self.cpus);
        self.colours = later.colours.or(self.colours);
        self.hash = later.hash.or(self.hash);
        self.fork = later.fork.or(self.fork);
        self.seed = later.seed.or(self.seed);
        self.swap.extend(later.swap.iter().cloned());
    }
}

/// Whose address space a view shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpaceRef<P = ProcRef> {
    /// A process's.
    Process(P),
    /// `kas`: the kernel's.
    Kernel,
}

/// A view, of processes `P`, files `F` and addresses `A`: as a script writes them, or resolved to
/// slots and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewRequest<P = ProcRef, F = FileRef, A = Addr> {
    /// Which.
    pub kind: ViewKind<P, F, A>,
    /// As JSON instead of a table.
    pub json: bool,
}

/// The views there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ViewKind<P = ProcRef, F = FileRef, A = Addr> {
    /// `::pmap [-x] P`
    Pmap {
        /// Whose.
        space: SpaceRef<P>,
        /// With residency, anonymous and locked columns.
        extended: bool,
    },
    /// `::seg P`
    Seg(SpaceRef<P>),
    /// `::segtree P`
    SegTree(SpaceRef<P>),
    /// `::anon P [A]`
    Anon(P, Option<A>),
    /// `::page`
    Pages,
    /// `::page F`
    FilePages(F),
    /// `::page pfn N`
    PageAt(u64),
    /// `::memstat`
    Memstat,
    /// `::vnode F`
    Vnode(F),
    /// `::hash`
    Hash,
    /// `::vatopfn P A`
    VaToPfn(P, A),
    /// `::htable P`
    HTable(P),
    /// `::swapinfo`
    SwapInfo,
    /// `::vmstat [NAME...]`
    VmStat(Vec<String>),
    /// `::walk P A`
    Walk(P, A),
}

/// What `expect` expects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// The last operation answered so; only the words given are compared.
    Outcome(ExpectedOutcome),
    /// The last view's text holds this, or does not.
    Text {
        /// The piece of text.
        text: String,
        /// `false` for `expect not`.
        present: bool,
    },
    /// A counter's value.
    Counter {
        /// Its name.
        name: String,
        /// `+`: counted since the last operation began, not since the machine began.
        delta: bool,
        /// `>=`: at least so much, not exactly.
        at_least: bool,
        /// How much.
        value: u64,
    },
}

/// A pattern of outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExpectedOutcome {
    /// `ok` with these words, if given.
    Ok {
        /// `moved`
        moved: bool,
        /// `n=`
        n: Option<u64>,
        /// `h=`
        h: Option<u64>,
        /// `b=`: the first bytes shown begin so.
        b: Option<FirstBytes>,
    },
    /// An errno.
    Errno(Errno),
    /// `SEGV` with these words, if given.
    Segv {
        /// `at=`
        at: Option<u64>,
        /// `code=`
        code: Option<SegvCode>,
    },
    /// `BUS` with these words, if given.
    Bus {
        /// `at=`
        at: Option<u64>,
        /// `code=`
        code: Option<BusCode>,
    },
    /// `skip`
    Skip,
}

/// Everything a statement can say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are the operands, in the order of docs/script.md")]
pub enum Operation {
    /// `vmtrace 1`: the header.
    Header,
    /// `arena N`: pages of the arena.
    Arena(u32),
    /// `machine KEY=VALUE...`
    Machine(MachineSettings),
    /// `proc $NAME = SLOT`
    Proc { name: String, slot: u32 },

    /// `file F SIZE [rw|ro|wo]`
    File { file: FileRef, size: u64, mode: OpenMode },
    /// `truncate F SIZE`
    Truncate { file: FileRef, size: u64 },
    /// `pwrite F OFF LEN BYTE`
    Pwrite { file: FileRef, offset: u64, len: u64, byte: u8 },
    /// `pread F OFF LEN`
    Pread { file: FileRef, offset: u64, len: u64 },
    /// `fclose F`
    Fclose(FileRef),
    /// `map P A L PROT SHARE MODE SRC [FLAG...]`
    Map(Map),
    /// `unmap P A L`
    Unmap(Range),
    /// `protect P A L PROT`
    Protect(Range, Prot),
    /// `advise P A L HOW`
    Advise(Range, Advice),
    /// `sync P A L HOW`
    Sync(Range, SyncFlags),
    /// `lock P A L`
    Lock(Range),
    /// `unlock P A L`
    Unlock(Range),
    /// `lockall P WHAT`
    LockAll(ProcRef, LockAll),
    /// `unlockall P`
    UnlockAll(ProcRef),
    /// `incore P A L`
    Incore(Range),
    /// `brk P PAGES[+BYTES]`
    Brk { proc: ProcRef, to: Length },
    /// `remap P A OLD NEW HOW [A2]`
    Remap { range: Range, new_len: Length, flags: RemapFlags, to: Option<Addr> },
    /// `read P A L [cpu=N]`
    Read(AccessRange),
    /// `write P A L BYTE [cpu=N]`
    Write(AccessRange, u8),
    /// `fread P F OFF A L [cpu=N]`
    Fread(Transfer),
    /// `fwrite P F OFF A L [cpu=N]`
    Fwrite(Transfer),
    /// `fork P C`
    Fork { parent: ProcRef, child: ProcRef },
    /// `exit P`
    Exit(ProcRef),
    /// `pageout *|P`
    Pageout(Option<ProcRef>),
    /// `digest P`
    Digest(ProcRef),

    /// `hostfile F "PATH" [ro|rw|wo]`
    HostFile { file: FileRef, path: String, mode: OpenMode },
    /// `exec P F`
    Exec { proc: ProcRef, file: FileRef },
    /// `spawn P "PATH"`
    Spawn { proc: ProcRef, path: String },
    /// `fetch P A [cpu=N]`
    Fetch { proc: ProcRef, addr: Addr, cpu: Option<u32> },
    /// `scan N`: steps of the two-handed clock.
    Scan(u64),
    /// `squeeze N`: takes frames away.
    Squeeze(u64),
    /// `release`: gives them back.
    Release,
    /// `swapadd mem|file "PATH" PAGES [pri=N]`
    SwapAdd(SwapSpec),
    /// `swapdel N`
    SwapDel(u32),
    /// `grow P A`: a fault below the stack.
    Grow { proc: ProcRef, addr: Addr },
    /// `setrlimit P KIND N|none`
    SetRlimit { proc: ProcRef, limit: Limit, bytes: Option<u64> },
    /// `::view`
    View(ViewRequest),
    /// `expect ...`
    Expect(Expectation),
    /// `echo "text"`
    Echo(String),
    /// `verify`
    Verify,
}

impl Operation {
    /// Says whether this is an operation of the trace language, which has a number in the result.
    pub fn is_traced(&self) -> bool {
        use Operation as O;
        match self {
            O::File { .. }
            | O::Truncate { .. }
            | O::Pwrite { .. }
            | O::Pread { .. }
            | O::Fclose(_)
            | O::Map(_)
            | O::Unmap(_)
            | O::Protect(..)
            | O::Advise(..)
            | O::Sync(..)
            | O::Lock(_)
            | O::Unlock(_)
            | O::LockAll(..)
            | O::UnlockAll(_)
            | O::Incore(_)
            | O::Brk { .. }
            | O::Remap { .. }
            | O::Read(_)
            | O::Write(..)
            | O::Fread(_)
            | O::Fwrite(_)
            | O::Fork { .. }
            | O::Exit(_)
            | O::Pageout(_)
            | O::Digest(_) => true,
            O::Header
            | O::Arena(_)
            | O::Machine(_)
            | O::Proc { .. }
            | O::HostFile { .. }
            | O::Exec { .. }
            | O::Spawn { .. }
            | O::Fetch { .. }
            | O::Scan(_)
            | O::Squeeze(_)
            | O::Release
            | O::SwapAdd(_)
            | O::SwapDel(_)
            | O::Grow { .. }
            | O::SetRlimit { .. }
            | O::View(_)
            | O::Expect(_)
            | O::Echo(_)
            | O::Verify => false,
        }
    }

    /// Says whether this acts on the machine and has an outcome (traced operations do, and so do
    /// those that people need on top; settings, views and expectations do not).
    pub fn has_outcome(&self) -> bool {
        use Operation as O;
        self.is_traced()
            || matches!(
                self,
                O::HostFile { .. }
                    | O::Exec { .. }
                    | O::Spawn { .. }
                    | O::Fetch { .. }
                    | O::Scan(_)
                    | O::Squeeze(_)
                    | O::Release
                    | O::SwapAdd(_)
                    | O::SwapDel(_)
                    | O::Grow { .. }
                    | O::SetRlimit { .. }
            )
    }
}
