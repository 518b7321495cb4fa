//! What the harness asks of the kernel it runs on: memory of its own, forks, affinity, and facts about the host.
//!
//! Notes that keep the comparison fair:
//!
//! - Huge pages are switched off for the whole process, so both sides work in 4 KiB pages.
//! - A test that wants recycled frames touches and releases them just before, so that they come back from the
//!   kernel's own lists and not from the host.
//! - `fork` copies the page tables of everything inheritable: see [`crate::linux_fork`].

use std::ffi::c_void;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

pub(crate) const PAGE: usize = 4096;

/// A mapping of our own, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is plain memory owned by this value; all access goes through atomics or through raw pointers whose
// users say why they do not race.
unsafe impl Send for Region {}
// SAFETY: as above; shared methods are system calls and atomic byte stores.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes of anonymous private memory, nothing touched.
    pub(crate) fn anonymous(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_PRIVATE)
    }

    /// The same shared with the children of this process.
    pub(crate) fn shared(len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED)
    }

    fn map(len: usize, sharing: i32) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = sharing | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an address of the kernel's choice is asked for, so nothing existing is replaced.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast::<u8>()).expect("mmap without an address never answers 0");
        Ok(Self { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The addresses of the region.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.start.as_ptr() as usize;
        start..start + self.len
    }

    fn part(&self, offset: usize, len: usize) -> *mut c_void {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "part of the region");
        self.start.as_ptr().wrapping_add(offset).cast()
    }

    /// Stores one byte at `offset`, which is how a page is touched.
    #[inline]
    pub(crate) fn touch(&self, offset: usize) {
        debug_assert!(offset < self.len);
        // SAFETY: the byte lies inside the mapping (callers pass offsets below `len`), is writable, and is only ever
        // reached as an atomic.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(offset)) }.store(1, Ordering::Relaxed);
    }

    /// Touches every page.
    pub(crate) fn touch_all(&self) {
        for offset in (0..self.len).step_by(PAGE) {
            self.touch(offset);
        }
    }

    /// Gives the pages of a part back, keeping the mapping.
    pub(crate) fn release(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_DONTNEED)
    }

    /// Faults a part in for writing with one call, no trap.
    pub(crate) fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        self.advise(offset, len, libc::MADV_POPULATE_WRITE)
    }

    fn advise(&self, offset: usize, len: usize, advice: i32) -> io::Result<()> {
        // SAFETY: the part lies inside our mapping and nothing keeps references into it.
        check(unsafe { libc::madvise(self.part(offset, len), len, advice) })
    }

    /// Punches a hole: the part is unmapped, and not touched again before [`Region::plug`].
    pub(crate) fn punch(&self, offset: usize, len: usize) -> io::Result<()> {
        // SAFETY: as for `advise`; callers never touch a hole.
        check(unsafe { libc::munmap(self.part(offset, len), len) })
    }

    /// Maps fresh anonymous memory in place of a part.
    pub(crate) fn plug(&self, offset: usize, len: usize) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.put(offset, len, flags, -1, 0)
    }

    /// Maps a part of a file, shared, in place of a part.
    pub(crate) fn put_file(
        &self,
        offset: usize,
        len: usize,
        file: &MemFile,
        from: usize,
    ) -> io::Result<()> {
        self.put(offset, len, libc::MAP_SHARED, file.0.as_raw_fd(), from)
    }

    fn put(&self, offset: usize, len: usize, flags: i32, fd: i32, from: usize) -> io::Result<()> {
        let (at, prot) = (self.part(offset, len), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: replaces a part of our own mapping, into which nothing keeps references.
        let put =
            unsafe { libc::mmap(at, len, prot, flags | libc::MAP_FIXED, fd, from as libc::off_t) };
        if put == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Makes a part read-only, or writable again.
    pub(crate) fn protect(&self, offset: usize, len: usize, writable: bool) -> io::Result<()> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: the part lies inside our mapping; nobody stores to it while it is read-only.
        check(unsafe { libc::mprotect(self.part(offset, len), len, prot) })
    }

    /// One byte a page of a part: bit 0 says whether it is in memory.
    pub(crate) fn in_core(&self, offset: usize, len: usize, out: &mut [u8]) -> io::Result<()> {
        assert!(out.len() >= len.div_ceil(PAGE), "a byte for every page");
        // SAFETY: the part lies inside our mapping and `out` has a byte for each of its pages.
        check(unsafe { libc::mincore(self.part(offset, len), len, out.as_mut_ptr()) })
    }

    /// Loads one byte at `offset`.
    #[inline]
    pub(crate) fn look(&self, offset: usize) -> u8 {
        debug_assert!(offset < self.len);
        // SAFETY: the byte lies inside the mapping, is readable, and is only ever reached as an atomic.
        unsafe { AtomicU8::from_ptr(self.start.as_ptr().add(offset)) }.load(Ordering::Relaxed)
    }

    /// The 64-bit word number `index`.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len / 8, "a word of the region");
        // SAFETY: the word lies inside the mapping, which is page-aligned and lives as long as `self`; it is only ever
        // reached as an atomic.
        unsafe { &*self.start.as_ptr().cast::<AtomicU64>().add(index) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and dies with its owner; holes are allowed in the range.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// A file in memory.
#[derive(Debug)]
pub(crate) struct MemFile(OwnedFd);

impl MemFile {
    /// A file of `len` zero bytes.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: the name is a live string; the call makes a new descriptor.
        let fd = unsafe { libc::memfd_create(c"bench".as_ptr(), libc::MFD_CLOEXEC) };
        check(fd.min(0))?;
        // SAFETY: the descriptor was made just now and has no other owner.
        let file = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: resizes our own file.
        check(unsafe { libc::ftruncate(file.0.as_raw_fd(), len as libc::off_t) })?;
        Ok(file)
    }
}

/// Faults of this process so far that needed no device.
pub(crate) fn minor_faults() -> u64 {
    // SAFETY: all zeros is a valid value of this plain structure, which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    usage.ru_minflt as u64
}

pub(crate) fn check(status: i32) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One `mmap` and `munmap` of an untouched anonymous page, anywhere.
pub(crate) fn map_and_unmap_one_page() {
    drop(Region::anonymous(PAGE).expect("one page of address space"));
}

/// The cheapest system call there is.
pub(crate) fn null_system_call() {
    // SAFETY: getppid takes nothing and cannot fail; called by number so that libc cannot cache it.
    unsafe { libc::syscall(libc::SYS_getppid) };
}

/// Switches huge pages off for this process.
pub(crate) fn without_huge_pages() -> bool {
    // SAFETY: a prctl of integers.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0 }
}

/// The processors this process may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid value of this plain structure.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a live structure of the size passed.
    let status = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if status != 0 {
        return vec![0];
    }
    // SAFETY: indices stay below CPU_SETSIZE, the set's capacity.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Pins the calling thread.
pub(crate) fn pin_thread(cpu: usize) {
    // SAFETY: an all-zero set is valid; the index is one that `allowed_cpus` answered; the call reads the set only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// Facts about the host that explain a figure.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) huge_pages: String,
    pub(crate) map_limit: String,
    pub(crate) damon: String,
    /// Seconds of processor time taken by the host since boot, all processors.
    pub(crate) steal_seconds: f64,
}

impl Environment {
    pub(crate) fn read(cpus: usize) -> Self {
        let line = |path: &str| {
            fs::read_to_string(path)
                .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
        };
        let cpu = fs::read_to_string("/proc/cpuinfo")
            .ok()
            .and_then(|text| {
                text.lines().find_map(|l| {
                    Some(l.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned())
                })
            })
            .unwrap_or_else(|| "unknown".into());
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu,
            cpus,
            huge_pages: line("/sys/kernel/mm/transparent_hugepage/enabled"),
            map_limit: line("/proc/sys/vm/max_map_count"),
            damon: line("/sys/module/damon_reclaim/parameters/enabled"),
            steal_seconds: steal_seconds(),
        }
    }
}

/// The `steal` column of `/proc/stat`, in seconds (its ticks are hundredths).
pub(crate) fn steal_seconds() -> f64 {
    let ticks = fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|text| text.lines().next()?.split_whitespace().nth(8)?.parse::<f64>().ok())
        .unwrap_or(0.0);
    ticks / 100.0
}
