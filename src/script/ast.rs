//! A script as a value.
//!
//! A [`Statement`] is what one line (or one piece between `;`) says, with the place of each of its
//! words. [`Operation`] holds everything that can be said; its [`Display`](std::fmt::Display) in
//! `print.rs` writes the canonical text, which parses to the same value again.

mod questions;
mod settings;

use super::token::Span;

pub use self::questions::*;
pub use self::settings::*;
pub use super::terms::*;

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
    /// `watch P A L WHAT`
    Watch(Range, WatchFor),
    /// `unwatch P A L`
    Unwatch(Range),
    /// `lend P A L`
    Lend(Range),
    /// `lent N`
    Lent(u64),
    /// `unlend N`
    Unlend(u64),
    /// `lendanon P A L`
    LendAnon(Range),
    /// `borrow P A N`
    Borrow { proc: ProcRef, addr: Addr, loan: u64 },
    /// `pin P A L r|w`
    Pin(Range, PinFor),
    /// `pinned N`
    Pinned(u64),
    /// `unpin N`
    Unpin(u64),
    /// `retire P A`: takes the frame behind an address out of service.
    Retire { proc: ProcRef, addr: Addr },
    /// `unretire`: puts all of them back.
    Unretire,
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
    /// `vfork P C`
    Vfork { parent: ProcRef, child: ProcRef },
    /// `inherit P A L share|copy|none|zero`
    Inherit(Range, Inherit),
    /// `personality P illumos|linux`
    Personality(ProcRef, SystemName),
    /// `share P A L C A2`
    ShareRange { range: Range, into: ProcRef, to: Addr },
    /// `memcntl P A L COMMAND ARG PAGES`
    MemCntl { range: Range, command: ControlCommand, arg: u64, pages: PageChoice },
    /// `meminfo P A WHAT`
    MemInfo { proc: ProcRef, addr: Addr, what: MemQuestions },
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
            | O::Vfork { .. }
            | O::Inherit(..)
            | O::Personality(..)
            | O::ShareRange { .. }
            | O::MemCntl { .. }
            | O::MemInfo { .. }
            | O::Grow { .. }
            | O::SetRlimit { .. }
            | O::Watch(..)
            | O::Unwatch(_)
            | O::Lend(_)
            | O::Lent(_)
            | O::Unlend(_)
            | O::LendAnon(_)
            | O::Borrow { .. }
            | O::Pin(..)
            | O::Pinned(_)
            | O::Unpin(_)
            | O::Retire { .. }
            | O::Unretire
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
                    | O::Vfork { .. }
                    | O::Inherit(..)
                    | O::Personality(..)
                    | O::ShareRange { .. }
                    | O::MemCntl { .. }
                    | O::MemInfo { .. }
                    | O::Grow { .. }
                    | O::SetRlimit { .. }
                    | O::Watch(..)
                    | O::Unwatch(_)
                    | O::Lend(_)
                    | O::Lent(_)
                    | O::Unlend(_)
                    | O::LendAnon(_)
                    | O::Borrow { .. }
                    | O::Pin(..)
                    | O::Pinned(_)
                    | O::Unpin(_)
                    | O::Retire { .. }
                    | O::Unretire
            )
    }
}
