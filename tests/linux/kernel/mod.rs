//! The kernel under the tests as a world that scripts drive: real processes, real system calls.
//!
//! ```text
//!   test thread: Kernel ──call──▶ mailbox 0 ◀── process 0   a copy of the test's process with one thread
//!      │                          mailbox 1 ◀── process 1   `fork` is a real fork of process 0, but the test's child
//!      └ files: memfds, made before process 0 and so known to all under the same numbers
//! ```
//!
//! 1. A process of the trace touches nothing of the test's but its mailbox and the page store, which both share.
//! 2. Every process is a child of the test thread and dies with it, however it ends; the [`Kernel`] reaps what it started.
//! 3. A process that ends by itself, or does not answer for [`PATIENCE`], is a CRASH; what is asked of it later is skipped.
//!
//! The road not taken: a controller of its own, started as a program. It would be smaller to fork, but forks are not what takes the time.

mod child;
mod file;
mod mailbox;
mod means;
mod tests;
mod trap;
mod words;

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use segvm::script::BREAK_PAGES;
use segvm::script::ast::{Advice, Layout, LockAll, OpenMode, Prot, RemapFlags, SyncFlags};
use segvm::script::outcome::{
    Errno, FNV_OFFSET, FirstBytes, Outcome, PAGE_BYTES, PageBytes, PageState, SegvCode, fnv,
    is_zero, page_hash,
};
use segvm::script::world::{
    Access, FileContents, FileSlot, MapCall, MapSource, ProcSlot, Region, TransferCall, World,
};

use self::file::File;
use self::mailbox::{Call, SLOTS, Shared};
pub(crate) use self::means::Means;
use self::words::{access_outcome, advice_number, map_flags, prot_bits, system_outcome};

/// How long a process may take for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether it still lives.
const GLANCE: Duration = Duration::from_millis(50);

/// Files of the trace language.
const FILES: usize = 16;

/// The kernel, with process 0 alone once the first operation is met.
#[derive(Debug)]
pub(crate) struct Kernel {
    shared: Shared,
    layout: Layout,
    procs: BTreeMap<u32, libc::pid_t>,
    files: Vec<File>,
    /// Whose pages are in the page store, and whether they were stored to.
    seen: Option<(ProcSlot, bool)>,
    /// How long a process may take for one answer.
    patience: Duration,
}

impl Kernel {
    /// Nothing runs yet.
    pub(crate) fn new() -> Kernel {
        let layout = Layout { arena: 0, brk: 0 };
        let (procs, files) = (BTreeMap::new(), Vec::new());
        Kernel { shared: Shared::new(1), layout, procs, files, seen: None, patience: PATIENCE }
    }

    /// Asks a process; a process that does not answer is no more.
    fn ask(&mut self, proc: ProcSlot, call: Call, args: &[u64]) -> Result<[u64; 4], Outcome> {
        self.seen = None;
        let pid = *self.procs.get(&proc.0).ok_or(Outcome::Skip)?;
        let mailbox = self.shared.mailbox(proc.0 as usize);
        mailbox.ask(call, args);
        let begun = Instant::now();
        loop {
            if let Some(words) = mailbox.answer(GLANCE) {
                return Ok(words);
            }
            // SAFETY: looks whether a child of this thread has ended.
            let ended = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) } == pid;
            if ended || begun.elapsed() > self.patience {
                if !ended {
                    kill(pid);
                }
                self.procs.remove(&proc.0);
                return Err(Outcome::Crash);
            }
        }
    }

    fn system(&mut self, proc: ProcSlot, number: i64, args: [u64; 6]) -> Result<i64, Outcome> {
        let [a, b, c, d, e, f] = args;
        let words = self.ask(proc, Call::System, &[number as u64, a, b, c, d, e, f])?;
        Ok(words[0] as i64)
    }

    /// A system call on a range, with a word on top.
    fn on_range(&mut self, number: i64, region: Region, word: u64) -> Outcome {
        let r = self.system(region.proc, number, [region.addr, region.len, word, 0, 0, 0]);
        r.map_or_else(|crash| crash, system_outcome)
    }

    fn file_of(&mut self, slot: FileSlot) -> Option<&mut File> {
        self.files.get_mut(slot.0 as usize).filter(|f| f.mode.is_some())
    }

    fn fd_of(&self, slot: FileSlot) -> u64 {
        self.files.get(slot.0 as usize).map_or(-1, File::fd) as u64
    }

    /// `ok n=`, or the error, of a transfer between a file and a process.
    fn transfer(&mut self, number: i64, call: TransferCall) -> Outcome {
        let Region { proc, addr, len } = call.memory.region;
        let fd = self.fd_of(call.file);
        match self.system(proc, number, [fd, addr, len, call.offset, 0, 0]) {
            Err(crash) => crash,
            Ok(r) if r >= 0 => Outcome::count(r as u64),
            Ok(r) => system_outcome(r),
        }
    }
}

fn kill(pid: libc::pid_t) {
    // SAFETY: ends and reaps a child of this thread, which nobody else waits for.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.procs.values().for_each(|pid| kill(*pid));
    }
}

impl World for Kernel {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn begin(&mut self, arena_pages: u32) {
        self.shared = Shared::new((arena_pages + BREAK_PAGES) as usize);
        self.files = (0..FILES).map(|_| File::new()).collect();
        let pid = child::start(&self.shared);
        assert!(pid > 0, "a process cannot be made: error {}", -pid);
        self.procs.insert(0, pid as libc::pid_t);
        let [arena, brk, ..] =
            self.ask(ProcSlot(0), Call::Begin, &[]).expect("the first process answers");
        assert!(
            arena != 0 && brk != 0,
            "no room for the arena ({arena:#x}) or the break ({brk:#x})"
        );
        self.layout = Layout { arena, brk };
    }

    fn layout(&self, _proc: ProcSlot) -> Layout {
        self.layout
    }

    fn file(&mut self, file: FileSlot, size: u64, mode: OpenMode) -> Outcome {
        let file = self.files.get_mut(file.0 as usize).expect("the trace language has 16 files");
        file.mode = Some(mode);
        file.resize(size)
    }

    fn truncate(&mut self, file: FileSlot, size: u64) -> Outcome {
        self.seen = None;
        self.file_of(file).map_or(Outcome::Skip, |f| f.resize(size))
    }

    fn pwrite(&mut self, file: FileSlot, offset: u64, len: u64, byte: u8) -> Outcome {
        self.seen = None;
        let Some(file) = self.file_of(file) else { return Outcome::Skip };
        let bytes: Vec<u8> = (0..len).map(|i| byte.wrapping_add(i as u8)).collect();
        let mut done = 0;
        while done < bytes.len() {
            match file.write_at(offset + done as u64, &bytes[done..]) {
                Ok(n) => done += n,
                Err(e) => return e,
            }
        }
        Outcome::count(len)
    }

    fn pread(&mut self, file: FileSlot, offset: u64, len: u64) -> Outcome {
        let Some(file) = self.file_of(file) else { return Outcome::Skip };
        let mut piece = [0; PAGE_BYTES as usize];
        let (mut n, mut hash) = (0, FNV_OFFSET);
        while n < len {
            let want = (len - n).min(PAGE_BYTES) as usize;
            match file.read_at(offset + n, &mut piece[..want]) {
                Ok(0) => break,
                Ok(got) => {
                    hash = fnv(hash, &piece[..got]);
                    n += got as u64;
                }
                Err(e) => return e,
            }
        }
        Outcome::count_and_hash(n, hash)
    }

    fn fclose(&mut self, file: FileSlot) -> Outcome {
        let Some(file) = self.file_of(file) else { return Outcome::Skip };
        file.closed = true;
        let open = [0, 1, 2].map(|i| file.opened[i].as_raw_fd() as u64);
        let live: Vec<u32> = self.procs.keys().copied().collect();
        for (proc, fd) in live.into_iter().flat_map(|p| open.map(|fd| (ProcSlot(p), fd))) {
            if let Err(crash) = self.system(proc, libc::SYS_close, [fd, 0, 0, 0, 0, 0]) {
                return crash;
            }
        }
        Outcome::OK
    }

    fn map(&mut self, call: &MapCall) -> Outcome {
        let Region { proc, addr, len } = call.region;
        let (fd, offset) = match call.source {
            MapSource::Anon => (u64::MAX, 0),
            MapSource::File(file, offset) => (self.fd_of(file), offset),
        };
        let args = [addr, len, prot_bits(call.prot), map_flags(call), fd, offset];
        match self.system(proc, libc::SYS_mmap, args) {
            Err(crash) => crash,
            Ok(r) if system_outcome(r) != Outcome::OK => system_outcome(r),
            Ok(r) if r as u64 == addr & !(PAGE_BYTES - 1) => Outcome::OK,
            Ok(elsewhere) => {
                let gone = Region { proc, addr: elsewhere as u64, len };
                let gone = self.on_range(libc::SYS_munmap, gone, 0);
                if gone == Outcome::OK { Outcome::MOVED } else { gone }
            }
        }
    }

    fn unmap(&mut self, region: Region) -> Outcome {
        self.on_range(libc::SYS_munmap, region, 0)
    }

    fn protect(&mut self, region: Region, prot: Prot) -> Outcome {
        self.on_range(libc::SYS_mprotect, region, prot_bits(prot))
    }

    fn advise(&mut self, region: Region, advice: Advice) -> Outcome {
        self.on_range(libc::SYS_madvise, region, advice_number(advice) as u64)
    }

    fn sync(&mut self, region: Region, flags: SyncFlags) -> Outcome {
        let bits = [
            (flags.sync, libc::MS_SYNC),
            (flags.asynchronous, libc::MS_ASYNC),
            (flags.invalidate, libc::MS_INVALIDATE),
            (flags.bad, 0x100),
        ];
        let flags = bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        self.on_range(libc::SYS_msync, region, flags as u64)
    }

    fn lock(&mut self, region: Region) -> Outcome {
        self.on_range(libc::SYS_mlock, region, 0)
    }

    fn unlock(&mut self, region: Region) -> Outcome {
        self.on_range(libc::SYS_munlock, region, 0)
    }

    fn lock_all(&mut self, proc: ProcSlot, what: LockAll) -> Outcome {
        let flags = match what {
            LockAll::Current => libc::MCL_CURRENT,
            LockAll::Future => libc::MCL_FUTURE,
            LockAll::Both => libc::MCL_CURRENT | libc::MCL_FUTURE,
            LockAll::Nothing => 0,
        };
        let r = self.system(proc, libc::SYS_mlockall, [flags as u64, 0, 0, 0, 0, 0]);
        r.map_or_else(|crash| crash, system_outcome)
    }

    fn unlock_all(&mut self, proc: ProcSlot) -> Outcome {
        let r = self.system(proc, libc::SYS_munlockall, [0; 6]);
        r.map_or_else(|crash| crash, system_outcome)
    }

    fn incore(&mut self, region: Region) -> Outcome {
        // One byte per page of the arena or the break, and no range in a trace is longer without a hole.
        let bytes = self.shared.scratch();
        self.on_range(libc::SYS_mincore, region, bytes)
    }

    fn brk(&mut self, proc: ProcSlot, addr: u64) -> Outcome {
        match self.system(proc, libc::SYS_brk, [addr, 0, 0, 0, 0, 0]) {
            Err(crash) => crash,
            Ok(now) if now as u64 == addr => Outcome::OK,
            Ok(_) => Errno::ENOMEM.into(),
        }
    }

    fn remap(
        &mut self,
        region: Region,
        new_len: u64,
        flags: RemapFlags,
        to: Option<u64>,
    ) -> Outcome {
        let bits = [
            (flags.may, libc::MREMAP_MAYMOVE),
            (flags.fixed, libc::MREMAP_FIXED),
            (flags.dontunmap, libc::MREMAP_DONTUNMAP),
        ];
        let bits = bits.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        let Region { proc, addr, len } = region;
        let args = [addr, len, new_len, bits as u64, to.unwrap_or(0), 0];
        match self.system(proc, libc::SYS_mremap, args) {
            Err(crash) => crash,
            Ok(r) if system_outcome(r) != Outcome::OK => system_outcome(r),
            Ok(r) if flags.fixed || r as u64 == addr => Outcome::OK,
            Ok(elsewhere) => {
                let gone = Region { proc, addr: elsewhere as u64, len: new_len };
                let gone = self.on_range(libc::SYS_munmap, gone, 0);
                if gone == Outcome::OK { Outcome::MOVED } else { gone }
            }
        }
    }

    fn read(&mut self, access: Access) -> Outcome {
        let Region { proc, addr, len } = access.region;
        let words = match self.ask(proc, Call::Load, &[addr, len]) {
            Ok(words) => words,
            Err(crash) => return crash,
        };
        match access_outcome(words) {
            Err(signal) => signal,
            Ok(()) => {
                let first = u128::from(words[2]) | u128::from(words[3]) << 64;
                let n = len.min(FirstBytes::MAX as u64) as usize;
                Outcome::bytes(words[1], FirstBytes::of(&first.to_le_bytes()[..n]))
            }
        }
    }

    fn write(&mut self, access: Access, byte: u8) -> Outcome {
        let Region { proc, addr, len } = access.region;
        match self.ask(proc, Call::Store, &[addr, len, byte.into()]) {
            Ok(words) => access_outcome(words).map_or_else(|signal| signal, |()| Outcome::OK),
            Err(crash) => crash,
        }
    }

    fn fread(&mut self, call: TransferCall) -> Outcome {
        self.transfer(libc::SYS_pread64, call)
    }

    fn fwrite(&mut self, call: TransferCall) -> Outcome {
        self.transfer(libc::SYS_pwrite64, call)
    }

    fn fork(&mut self, parent: ProcSlot, child: ProcSlot) -> Outcome {
        assert!((child.0 as usize) < SLOTS, "the trace language has 8 processes");
        self.shared.mailbox(child.0 as usize).clear();
        match self.ask(parent, Call::Fork, &[child.0.into()]) {
            Err(crash) => crash,
            Ok(words) => {
                let pid = words[0] as i64;
                if pid > 0 {
                    self.procs.insert(child.0, pid as libc::pid_t);
                }
                system_outcome(pid)
            }
        }
    }

    fn exit(&mut self, proc: ProcSlot) -> Outcome {
        let done = self.ask(proc, Call::Exit, &[]);
        if let Some(pid) = self.procs.remove(&proc.0) {
            let mut status = 0;
            // SAFETY: waits for a child of this thread, which is about to end.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            if status != 0 {
                return Outcome::Crash;
            }
        }
        done.map_or_else(|crash| crash, |_| Outcome::OK)
    }

    fn pageout(&mut self, proc: Option<ProcSlot>) -> Outcome {
        let live: Vec<u32> = self.procs.keys().copied().collect();
        let len = (self.shared.pages() as u64 - u64::from(BREAK_PAGES)) * PAGE_BYTES;
        for slot in live.into_iter().map(ProcSlot).filter(|p| proc.is_none_or(|one| one == *p)) {
            let arena = Region { proc: slot, addr: self.layout.arena, len };
            // Whatever it answers: over a hole it is an error, and it must not be seen.
            if self.on_range(libc::SYS_madvise, arena, libc::MADV_PAGEOUT as u64) == Outcome::Crash
            {
                return Outcome::Crash;
            }
        }
        Outcome::OK
    }

    fn page(&mut self, proc: ProcSlot, addr: u64, store: bool, bytes: &mut PageBytes) -> PageState {
        // All pages are looked at in one go: nothing changes them until something else is asked.
        if self.seen != Some((proc, store)) {
            if self.ask(proc, Call::Look, &[store.into()]).is_err() {
                return PageState::Unmapped;
            }
            self.seen = Some((proc, store));
        }
        let arena = self.shared.pages() as u64 - u64::from(BREAK_PAGES);
        let of_arena = addr.wrapping_sub(self.layout.arena) / PAGE_BYTES;
        let of_break = addr.wrapping_sub(self.layout.brk) / PAGE_BYTES;
        let index = if of_arena < arena { of_arena } else { arena + of_break } as usize;
        let state = match self.shared.states().get(index) {
            Some(b'-') => PageState::NoAccess,
            Some(b'r') => PageState::Readable,
            Some(b'w') => PageState::Writable,
            Some(b'B') => PageState::Bus,
            Some(b'b') => PageState::BusOnWrite,
            _ => PageState::Unmapped,
        };
        if state.is_readable() {
            *bytes = *self.shared.page(index);
        }
        state
    }

    fn file_contents(&mut self, file: FileSlot) -> Option<FileContents> {
        let file = self.file_of(file)?;
        let size = file.size();
        let mut pages = Vec::new();
        for index in 0..size.div_ceil(PAGE_BYTES) {
            let mut page: PageBytes = [0; PAGE_BYTES as usize];
            let n = file.read_at(index * PAGE_BYTES, &mut page).ok()?;
            page[n..].fill(0);
            if !is_zero(&page) {
                pages.push((index, page_hash(&page)));
            }
        }
        Some(FileContents { size, pages })
    }

    fn verify(&mut self) -> Result<(), String> {
        Ok(())
    }
}
