//! Processes: an address space, its limits, its break and its stack.
//!
//! ```text
//!   0                                                                                    USER_TOP
//!   │  program  │ break ▲ │                                      │ mappings ▼ │ ▼ stack │
//! ```
//!
//! A [`Process`] is a handle that one thread works with: it carries that thread's [`Cx`]. Several handles of one process are
//! several threads of it ([`Process::another_thread`]). The system calls are its methods, a group a file; each checks its arguments in
//! illumos's order and answers with illumos's errno ([`SysError`]).
//!
//! Choosing an address, moving the break and growing the stack hold the address space's range claim, which therefore guards the break
//! and the stack's size. These belong to the address space rather than to the process ([`super::image`]).
//!
//! Sources: illumos `os/grow.c`, `os/fork.c` (behaviour); illumos.md 3.12.

use super::image::Image;
use super::limits::Limits;
use super::{Machine, SysError};
use addr_space::{AddrSpace, AsId};
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use page_db::{CpuId, Cx, PAGE_SIZE, Rank, VirtRange, errno};
use std::cell::{Ref, RefCell};
use std::sync::Arc;

/// First address user code cannot have (`USERLIMIT`).
pub const USER_TOP: u64 = 0x7fff_ffff_f000;

/// What user code can have.
pub const USER_RANGE: VirtRange = match VirtRange::exact(0, USER_TOP) {
    Ok(r) => r,
    Err(_) => panic!("U2: the user range is a range"),
};

/// First address above the stack (`p_usrstack`). Mappings that choose no address go below the room kept for the stack.
pub const STACK_TOP: u64 = 0x7fff_f000_0000;

/// Where the break starts in a process that runs no program.
pub const BREAK_BASE: u64 = 0x6000_0000_0000;

/// The stack's limit unless another is set: 10 MB, as illumos has it.
pub const STACK_LIMIT: u64 = 10 << 20;

/// A process's number, in order of creation from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct Pid(pub u32);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What all handles of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pid: Pid,
    /// Replaced by exec. `exited` is decided under its lock, so that of exit and exec each gives up the image that the other left.
    image: Mutex<Arc<Image>>,
    /// Counts replacements, so that handles notice.
    generation: AtomicU32,
    pub(crate) name: Mutex<String>,
    pub(crate) limits: Arc<Limits>,
    /// The privilege to lock memory.
    pub(crate) may_lock: AtomicBool,
    /// Whether the system calls answer as Linux's do ([`super::Personality`]).
    pub(crate) linux: AtomicBool,
    exited: AtomicBool,
}

/// One thread's handle of a process.
#[derive(Debug)]
pub struct Process {
    pub(crate) machine: Machine,
    pub(crate) shared: Arc<Shared>,
    image: RefCell<(u32, Arc<Image>)>,
}

impl Process {
    /// A process with an empty address space. Use [`Machine::spawn`].
    pub(crate) fn create(machine: &Machine, cpu: CpuId, name: &str) -> Result<Self, SysError> {
        let space = machine.new_space("fork")?;
        let limits = Arc::default();
        let image = Image::new(space, BREAK_BASE, Some(&limits));
        Ok(Self::with_image(machine, cpu, name, image, limits))
    }
    /// A process that uses an image, under `limits`. Nobody finds it until it is [`Process::announce`]d.
    pub(crate) fn with_image(
        machine: &Machine,
        cpu: CpuId,
        name: &str,
        image: Arc<Image>,
        limits: Arc<Limits>,
    ) -> Self {
        let machine = machine.thread(cpu);
        let shared = Arc::new(Shared::new(machine.next_pid(), name, Arc::clone(&image), limits));
        Self { machine, shared, image: RefCell::new((0, image)) }
    }
    /// From here on the process can be found by its number: it is what it is to be.
    pub(crate) fn announce(self) -> Self {
        self.machine.register(&self.shared);
        self
    }
    /// A handle with which exec works on an image that is not the process's yet, so that the calls that load a program find it there and nobody else finds it.
    pub(crate) fn preparing(&self, image: &Arc<Image>, name: &str) -> Self {
        let limits = Arc::clone(&self.shared.limits);
        let shared = Shared::new(self.pid(), name, Arc::clone(image), limits);
        shared.inherit(&self.shared);
        let machine = self.machine.thread(self.cx().cpu());
        Self { machine, shared: Arc::new(shared), image: RefCell::new((0, Arc::clone(image))) }
    }
    /// A handle of a process that exists, for a thread on `cpu`.
    pub(crate) fn handle(machine: &Machine, cpu: CpuId, shared: &Arc<Shared>) -> Self {
        let generation = shared.generation.load(Ordering::Acquire);
        let image = shared.image();
        Self {
            machine: machine.thread(cpu),
            shared: Arc::clone(shared),
            image: RefCell::new((generation, image)),
        }
    }
    /// Another thread of the same process, on `cpu`.
    #[must_use]
    pub fn another_thread(&self, cpu: CpuId) -> Self {
        Self::handle(&self.machine, cpu, &self.shared)
    }
    /// The number.
    pub fn pid(&self) -> Pid {
        self.shared.pid
    }
    /// The program's name, or what the process was called when it was made.
    pub fn name(&self) -> String {
        self.shared.name.lock_host().clone()
    }
    /// The machine it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
    /// This thread's context.
    pub fn cx(&self) -> &Cx {
        self.machine.cx()
    }
    /// Goes on on another CPU.
    pub fn run_on(&self, cpu: CpuId) {
        self.cx().migrate(self.machine.clamp_cpu(cpu));
    }
    /// The address space now; there is a new one after exec, and who keeps the old one keeps an empty one.
    #[doc(alias = "p_as")]
    pub fn space(&self) -> Arc<AddrSpace> {
        Arc::clone(&self.space_now())
    }
    /// The address space that a call works on: while this lives, calls of this handle that begin go on with it.
    pub(crate) fn space_now(&self) -> Ref<'_, Arc<AddrSpace>> {
        Ref::map(self.image(), |image| &image.space)
    }
    /// As [`Process::space_now`], with break and stack.
    pub(crate) fn image(&self) -> Ref<'_, Arc<Image>> {
        let now = self.shared.generation.load(Ordering::Acquire);
        // Who is in the middle of a call goes on with what it began with.
        if self.image.borrow().0 != now
            && let Ok(mut mine) = self.image.try_borrow_mut()
        {
            *mine = (now, self.shared.image());
        }
        Ref::map(self.image.borrow(), |(_, image)| image)
    }
    /// Puts the image of the program `name` in the place of the old one, which is returned for the caller to give up; `None` when the process has exited.
    pub(crate) fn replace_image(&self, image: &Arc<Image>, name: &str) -> Option<Arc<Image>> {
        let mut now = self.shared.image.lock_host();
        if self.has_exited() {
            return None;
        }
        // With the image: of two threads that run a program each, the last one's is there under its own name.
        name.clone_into(&mut self.shared.name.lock_host());
        let old = std::mem::replace(&mut *now, Arc::clone(image));
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        Some(old)
    }
    /// Marks the process as exited; the first one that does gets the image, which stays what it is, to give up.
    fn end_image(&self) -> Option<Arc<Image>> {
        let now = self.shared.image.lock_host();
        let first = !self.shared.exited.swap(true, Ordering::AcqRel);
        first.then(|| Arc::clone(&now))
    }
    /// P2.
    fn bury(&self, grave: &Arc<Image>) {
        *self.shared.image.lock_host() = Arc::clone(grave);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
    }
    /// Whether another process uses the same address space (`vfork`).
    pub fn shares_space(&self) -> bool {
        self.image().users() > 1
    }
    /// Whether the process has exited.
    pub fn has_exited(&self) -> bool {
        self.shared.exited.load(Ordering::Acquire)
    }
    /// Where the break starts, and where it is: the heap lies between.
    pub fn heap(&self) -> (u64, u64) {
        let s = self.image();
        (s.break_base.load(Ordering::Acquire), s.break_now.load(Ordering::Acquire))
    }
    /// The mapped stack, if there is one.
    pub fn stack(&self) -> Option<VirtRange> {
        let size = self.image().stack_size.load(Ordering::Acquire);
        VirtRange::exact(STACK_TOP.wrapping_sub(size), size).ok()
    }
    /// The addresses that are kept below the stack, if any are ([`super::STACK_GUARD`]).
    pub fn stack_guard(&self) -> Option<VirtRange> {
        let image = self.image();
        let (start, end) =
            (image.guard_start.load(Ordering::Acquire), image.guard_end.load(Ordering::Acquire));
        VirtRange::exact(start, end.saturating_sub(start)).ok()
    }
    /// Ends the process: everything it maps goes, unless another process uses it too. A second exit does nothing.
    /// Threads of it that still run find nothing mapped at their next access.
    #[doc(alias("proc_exit", "relvm"))]
    pub fn exit(&self) {
        if let Some(image) = self.end_image() {
            self.give_up(&image);
            if let Some(grave) = image.after() {
                self.bury(grave);
            }
            self.machine.unregister(self.pid());
        }
    }
    /// This process uses `image` no more; the last one frees the address space (P1).
    pub(crate) fn give_up(&self, image: &Image) {
        if image.leave(&self.shared.limits) {
            self.machine.release_space(&image.space);
        }
    }
}

impl Shared {
    fn new(pid: Pid, name: &str, image: Arc<Image>, limits: Arc<Limits>) -> Self {
        Self {
            pid,
            image: Mutex::new(Rank::Registry, image),
            generation: AtomicU32::new(0),
            name: Mutex::new(Rank::Registry, name.to_owned()),
            limits,
            may_lock: AtomicBool::new(true),
            linux: AtomicBool::new(false),
            exited: AtomicBool::new(false),
        }
    }
    pub(crate) fn space(&self) -> Arc<AddrSpace> {
        Arc::clone(&self.image.lock_host().space)
    }
    /// The image now.
    pub(super) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.image.lock_host())
    }
    /// Takes over what a child has besides an image and limits.
    pub(crate) fn inherit(&self, from: &Self) {
        for (to, from) in [(&self.may_lock, &from.may_lock), (&self.linux, &from.linux)] {
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
    }
}

/// A byte range as system calls check it: the pages that hold `[addr, addr + len)`, with `addr` on a page boundary.
///
/// # Errors
/// `EINVAL` for a misaligned address or length 0, `ENOMEM` for what wraps or leaves the user's half.
pub(crate) fn user_pages(call: &'static str, addr: u64, len: u64) -> Result<VirtRange, SysError> {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(SysError::arg(call, errno::EINVAL, "the address is not on a page boundary"));
    }
    if len == 0 {
        return Err(SysError::arg(call, errno::EINVAL, "the length is 0"));
    }
    user_range(call, addr, len)
}

/// The pages that hold `[addr, addr + len)`.
///
/// # Errors
/// `ENOMEM` for what wraps, is empty, or leaves the user's half.
pub(crate) fn user_range(call: &'static str, addr: u64, len: u64) -> Result<VirtRange, SysError> {
    match VirtRange::covering(addr, len) {
        Ok(range) if USER_RANGE.covers(range) => Ok(range),
        _ => Err(SysError::arg(call, errno::ENOMEM, "the range leaves the user's addresses")),
    }
}

/// The number of an address space, given by the machine.
pub(crate) fn as_id(n: u32) -> AsId {
    AsId(n)
}
