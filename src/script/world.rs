//! What a script drives.
//!
//! A [`World`] has processes, files and memory, named by slots. The machine of this crate is one,
//! the naive model another; a second executor is written by implementing this trait. Everything is
//! resolved before it gets here: addresses and lengths are numbers of bytes, names are slots, and
//! operations on processes that do not live or files that were not made never arrive (the
//! [`Runner`](super::Runner) answers `skip` itself).
//!
//! Operations of the trace language have no default. The others answer ENOSYS unless a world has
//! what they ask for.

use serde::Serialize;
use thiserror::Error;

use super::ast::MapFlags;
use super::ast::{
    Advice, ControlCommand, Inherit, Layout, Limit, LockAll, MemQuestions, OpenMode, PageChoice,
    PinFor, Placement, Prot, RemapFlags, Share, SwapSpec, SyncFlags, SystemName, ViewRequest,
    WatchFor,
};
use super::outcome::{Errno, Outcome, PageBytes, PageState};

/// The slot of a process. The trace language has 0 to 7; names get slots from 8 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ProcSlot(pub u32);

/// The slot of a file. The trace language has 0 to 15; names get slots from 16 up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FileSlot(pub u32);

/// A range of a process's addresses, in bytes. Nothing about it has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Whose.
    pub proc: ProcSlot,
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
}

/// An access of user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where.
    pub region: Region,
    /// On which CPU; the world's choice when not given.
    pub cpu: Option<u32>,
}

/// Where a mapping's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapSource {
    /// Zeros.
    Anon,
    /// A file, which need not exist, from an offset in bytes.
    File(FileSlot, u64),
}

/// The arguments of `map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapCall {
    /// Where.
    pub region: Region,
    /// Protection.
    pub prot: Prot,
    /// Sharing.
    pub share: Share,
    /// How the address is meant.
    pub placement: Placement,
    /// Where the bytes come from.
    pub source: MapSource,
    /// Flags.
    pub flags: MapFlags,
}

/// The arguments of `fread` and `fwrite`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferCall {
    /// The file.
    pub file: FileSlot,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The memory.
    pub memory: Access,
}

/// A view with everything in it resolved.
pub type ViewCall = ViewRequest<ProcSlot, FileSlot, u64>;

/// What a view shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// As a table for people; always there, because expectations look at it.
    pub text: String,
    /// As JSON; may be left empty when the request did not ask for it.
    pub json: String,
}

/// Why a view cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// This world has no such structure.
    #[error("there is no such view of this world")]
    NotSupported,
    /// The process does not live.
    #[error("process {} does not live", .0.0)]
    NoProcess(ProcSlot),
    /// The file was not made.
    #[error("file {} was not made", .0.0)]
    NoFile(FileSlot),
    /// Something else, in words.
    #[error("{0}")]
    Failed(String),
}

/// The contents of a file, as the final dump shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileContents {
    /// Bytes.
    pub size: u64,
    /// For every page that is not all zeros, upwards: its number and the hash of its bytes, of
    /// which those past the end of the file count as zeros.
    pub pages: Vec<(u64, u64)>,
}

/// What a script drives. All addresses, offsets and lengths are in bytes.
pub trait World {
    /// Its name in the result's first line.
    fn name(&self) -> &'static str;

    /// Says how many pages the arena has. Called once, before the first operation; process 0 then
    /// lives, with an empty arena.
    fn begin(&mut self, arena_pages: u32);

    /// Where a process's arena and initial break lie, both on page boundaries.
    fn layout(&self, proc: ProcSlot) -> Layout;

    /// Makes a file of zeros. `mode` is that of the descriptor which `map`, `fread` and `fwrite`
    /// use; the other file operations may always read and write.
    fn file(&mut self, file: FileSlot, size: u64, mode: OpenMode) -> Outcome;

    /// Sets a file's size.
    fn truncate(&mut self, file: FileSlot, size: u64) -> Outcome;

    /// Writes `byte`, `byte + 1`, ... at `offset`; answers `n=`.
    fn pwrite(&mut self, file: FileSlot, offset: u64, len: u64, byte: u8) -> Outcome;

    /// Reads; answers `n=` and `h=`.
    fn pread(&mut self, file: FileSlot, offset: u64, len: u64) -> Outcome;

    /// Closes the descriptor everywhere; mappings stay.
    fn fclose(&mut self, file: FileSlot) -> Outcome;

    /// Maps. When a hint cannot be followed, what was mapped elsewhere is unmapped at once and the
    /// answer is `ok moved`; a mapping made elsewhere never lies in the arena.
    fn map(&mut self, call: &MapCall) -> Outcome;

    /// Unmaps.
    fn unmap(&mut self, region: Region) -> Outcome;

    /// Changes protection.
    fn protect(&mut self, region: Region, prot: Prot) -> Outcome;

    /// Advises.
    fn advise(&mut self, region: Region, advice: Advice) -> Outcome;

    /// Writes back.
    fn sync(&mut self, region: Region, flags: SyncFlags) -> Outcome;

    /// Locks memory.
    fn lock(&mut self, region: Region) -> Outcome;

    /// Unlocks memory.
    fn unlock(&mut self, region: Region) -> Outcome;

    /// Locks all memory of a process.
    fn lock_all(&mut self, proc: ProcSlot, what: LockAll) -> Outcome;

    /// Unlocks all memory of a process.
    fn unlock_all(&mut self, proc: ProcSlot) -> Outcome;

    /// Asks what is resident; only the errno is a result.
    fn incore(&mut self, region: Region) -> Outcome;

    /// Sets the break to `addr`.
    fn brk(&mut self, proc: ProcSlot, addr: u64) -> Outcome;

    /// Moves or resizes a mapping, as Linux's mremap does.
    fn remap(
        &mut self,
        region: Region,
        new_len: u64,
        flags: RemapFlags,
        to: Option<u64>,
    ) -> Outcome;

    /// Loads byte by byte, upwards; answers `h=` and `b=`.
    fn read(&mut self, access: Access) -> Outcome;

    /// Stores `byte`, `byte + 1`, ... byte by byte, upwards.
    fn write(&mut self, access: Access, byte: u8) -> Outcome;

    /// pread(2) from a file into memory; answers `n=`.
    fn fread(&mut self, call: TransferCall) -> Outcome;

    /// pwrite(2) from memory into a file; answers `n=`.
    fn fwrite(&mut self, call: TransferCall) -> Outcome;

    /// Forks; on success `child` lives.
    fn fork(&mut self, parent: ProcSlot, child: ProcSlot) -> Outcome;

    /// Ends a process.
    fn exit(&mut self, proc: ProcSlot) -> Outcome;

    /// Reclaims what can be reclaimed, of one process or of all; must not be visible.
    fn pageout(&mut self, proc: Option<ProcSlot>) -> Outcome;

    /// Reads the page at `addr` (a page boundary) into `bytes` and says what it is. With `store`, a
    /// readable page is told from a writable one by storing a byte that was just read; without, it
    /// is [`PageState::Readable`] and nothing may change but residency. When the page cannot be
    /// read, `bytes` is left alone.
    fn page(&mut self, proc: ProcSlot, addr: u64, store: bool, bytes: &mut PageBytes) -> PageState;

    /// Like [`World::page`] without `store`, for comparing worlds while they run: where a world can
    /// look without faulting the page in, it does, so that looking does not change what happens
    /// next.
    fn peek(&mut self, proc: ProcSlot, addr: u64, bytes: &mut PageBytes) -> PageState {
        self.page(proc, addr, false, bytes)
    }

    /// The contents of a file; `None` when it was not made.
    fn file_contents(&mut self, file: FileSlot) -> Option<FileContents>;

    /// Checks every invariant.
    ///
    /// # Errors
    /// The first violated invariant, in words.
    fn verify(&mut self) -> Result<(), String>;

    /// Shows a view.
    ///
    /// # Errors
    /// [`ViewError::NotSupported`] when this world has no such structure, and whatever else keeps
    /// the view from being shown.
    fn view(&mut self, _call: &ViewCall) -> Result<View, ViewError> {
        Err(ViewError::NotSupported)
    }

    /// The value of a counter; `None` when there is none of this name.
    fn counter(&self, _name: &str) -> Option<u64> {
        None
    }

    /// The names of all counters, in the order in which views show them.
    fn counters(&self) -> Vec<String> {
        Vec::new()
    }

    /// Opens a file of the host.
    fn host_file(&mut self, _file: FileSlot, _path: &str, _mode: OpenMode) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Loads the program in a file into a process, whose old mappings go.
    fn exec(&mut self, _proc: ProcSlot, _file: FileSlot) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Makes a process that runs a program of the host; on success it lives.
    fn spawn(&mut self, _proc: ProcSlot, _path: &str) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Fetches an instruction; answers `b=` with the bytes there, up to the end of the page.
    fn fetch(&mut self, _proc: ProcSlot, _addr: u64, _cpu: Option<u32>) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Steps the clock of page-out; answers `n=` pages examined.
    fn scan(&mut self, _steps: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Takes frames away; answers `n=` frames that could be had.
    fn squeeze(&mut self, _frames: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Gives back all frames taken away; answers `n=` frames.
    fn release(&mut self) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Adds a swap area; answers `n=` its number.
    fn swap_add(&mut self, _area: &SwapSpec) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Removes a swap area, bringing back what is on it.
    fn swap_del(&mut self, _area: u32) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Makes a process that uses another's address space; on success `child` lives.
    fn vfork(&mut self, _parent: ProcSlot, _child: ProcSlot) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Says what a child of fork finds in a range.
    fn inherit(&mut self, _region: Region, _how: Inherit) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Says whose answers the system calls give.
    fn set_personality(&mut self, _proc: ProcSlot, _system: SystemName) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Shows what is mapped in a range at another place too, which must be free.
    fn share(&mut self, _region: Region, _into: ProcSlot, _to: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Controls memory, or chosen pages of it.
    fn memcntl(
        &mut self,
        _region: Region,
        _command: ControlCommand,
        _arg: u64,
        _pages: PageChoice,
    ) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Asks what is behind an address; answers `n=`, which questions are answered.
    fn meminfo(&mut self, _proc: ProcSlot, _addr: u64, _what: MemQuestions) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Lets the stack grow to an address below it.
    fn grow(&mut self, _proc: ProcSlot, _addr: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Watches bytes.
    fn watch(&mut self, _region: Region, _what: WatchFor) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Takes the watch on exactly these bytes back.
    fn unwatch(&mut self, _region: Region) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Lends pages to the kernel; the answer has the loan's number.
    fn lend(&mut self, _region: Region) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Reads the pages of a loan.
    fn lent(&mut self, _loan: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Ends a loan.
    fn unlend(&mut self, _loan: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Lends pages to anons; the answer has the loan's number.
    fn lend_anon(&mut self, _region: Region) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Shows a loan to anons in a process's memory, which ends it.
    fn borrow(&mut self, _proc: ProcSlot, _addr: u64, _loan: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Pins pages for i/o; the answer has the pin's number.
    fn pin(&mut self, _region: Region, _what: PinFor) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Reads the pages of a pin, as the device does.
    fn pinned(&mut self, _pin: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Lets go of the pages of a pin.
    fn unpin(&mut self, _pin: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Takes the frame behind an address out of service.
    fn retire(&mut self, _proc: ProcSlot, _addr: u64) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Puts the frames that are out of service back; answers `n=` frames.
    fn unretire(&mut self) -> Outcome {
        Errno::ENOSYS.into()
    }

    /// Sets a limit; `None` takes it away.
    fn set_rlimit(&mut self, _proc: ProcSlot, _limit: Limit, _bytes: Option<u64>) -> Outcome {
        Errno::ENOSYS.into()
    }
}
