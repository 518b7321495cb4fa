//! `madvise`, `minherit`, `mincore`, `msync`, `mlock` and their relatives (`memcntl`).
//!
//! Sources: illumos `os/grow.c`, `os/mem_cntl.c`, `os/mincore.c` (behaviour); illumos.md 3.8, 3.9.

use super::SysError;
use super::process::{Process, USER_RANGE, USER_TOP, user_pages, user_range};
use addr_space::{Advice, AsError, FaultError, Inherit, LockAll, SegError, SegKind, SyncFlags};
use page_db::sync::atomic::Ordering;
use page_db::{Access, PAGE_SIZE, VirtAddr, VirtRange, errno};

/// What `madvise` is told.
#[doc(alias(
    "MADV_NORMAL",
    "MADV_RANDOM",
    "MADV_SEQUENTIAL",
    "MADV_WILLNEED",
    "MADV_DONTNEED",
    "MADV_FREE",
    "MADV_POPULATE_READ",
    "MADV_POPULATE_WRITE"
))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum MemAdvice {
    /// A pattern of use, or that contents may go.
    Use(Advice),
    /// Bring the pages in.
    WillNeed,
    /// Bring the pages in and map them, for loads or for stores (Linux's advice, with its errors): what is done stays done when a later page fails.
    Populate(Access),
    /// The pages may leave memory; contents are kept.
    DontNeed,
    /// A child of fork finds zeros (`MC_INHERIT_ZERO`).
    InheritZero,
    /// A child of fork finds a copy again.
    InheritCopy,
    /// A child of fork has nothing there.
    DontFork,
    /// A child of fork has the mapping again.
    DoFork,
}

/// Pages that one step of `mincore` looks at.
const INCORE_CHUNK: u64 = 128;

impl Process {
    /// Gives advice about `[addr, addr + len)`. It stops at the first hole.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or length 0, `ENOMEM` for holes and what is no user range, `EBUSY` for
    /// [`MemAdvice::DontNeed`] of memory that is locked, or of a file and lent to anons, and what the driver says.
    #[doc(alias("memcntl", "MC_ADVISE"))]
    pub fn madvise(&self, addr: u64, len: u64, advice: MemAdvice) -> Result<(), SysError> {
        const CALL: &str = "madvise";
        let _space = self.space_now(); // every piece is of this one, whoever runs a program meanwhile
        let answers = self.answers();
        let end = len.checked_next_multiple_of(PAGE_SIZE).and_then(|len| addr.checked_add(len));
        if addr.is_multiple_of(PAGE_SIZE) && end.is_none() {
            return Err(SysError::arg(
                CALL,
                answers.advice_wraps,
                "the range leaves the user's addresses",
            ));
        }
        let Some(range) = self.pages_of(CALL, addr, len)? else { return Ok(()) };
        let stops = matches!(advice, MemAdvice::Populate(_)); // whoever answers
        if answers.goes_on_behind_holes && !stops {
            return self.around_holes(CALL, range, |piece| self.advise_piece(piece, advice));
        }
        match advice {
            MemAdvice::Use(how @ (Advice::Free | Advice::Purge)) => {
                self.madvise_free(range, len, how)
            }
            advice => self.advise_range(range, advice),
        }
    }
    /// One piece of a segment, with the answers that differ there.
    fn advise_piece(&self, piece: VirtRange, advice: MemAdvice) -> Result<(), SysError> {
        const CALL: &str = "madvise";
        let answers = self.answers();
        let (space, cx) = (self.space_now(), self.cx());
        match advice {
            MemAdvice::DontNeed if answers.dontneed_discards => {
                let done = space.advise(cx, piece, Advice::Discard);
                done.map_err(|e| match e {
                    AsError::Seg(SegError::Locked { .. }) => SysError::with(CALL, errno::EINVAL, e),
                    e => SysError::of(CALL, e),
                })
            }
            MemAdvice::Use(Advice::Free) if answers.frees_private_memory_only => {
                let shared = space.kind_at(cx, piece.start());
                let shared = shared.is_some_and(|kind| kind.contains(SegKind::SHARED));
                let file = space.vnode_at(cx, piece.start()).flatten();
                if shared || file.is_some() {
                    let what = "only private anonymous memory can be freed";
                    return Err(SysError::arg(CALL, errno::EINVAL, what));
                }
                let locked = self.first_locked(piece);
                let below = locked.map_or(Some(piece), |addr| piece.until(addr.get()));
                below.map_or(Ok(()), |below| self.advise_range(below, advice))?;
                let what = "memory that is locked is not freed";
                locked.map_or(Ok(()), |_| Err(SysError::arg(CALL, errno::EINVAL, what)))
            }
            MemAdvice::WillNeed if answers.asks_in_vain => {
                match space.will_need(cx, piece) {
                    // Past the end of a file, without the right, or a device's fault: whoever loads will hear of it.
                    Ok(()) | Err(AsError::Fault(_)) => Ok(()),
                    Err(e) => Err(will_need_error(CALL, e)),
                }
            }
            advice => self.advise_range(piece, advice),
        }
    }
    /// The first page of a piece of a segment that the mapping has locked.
    fn first_locked(&self, piece: VirtRange) -> Option<VirtAddr> {
        self.locked_runs(piece).next().map(VirtRange::start)
    }
    /// How many pages of a piece of a segment the mapping has locked.
    pub(super) fn locked_pages_in(&self, piece: VirtRange) -> u64 {
        self.locked_runs(piece).map(|run| run.pages().get()).sum()
    }
    /// The runs of a piece of a segment that the mapping has locked, from below. Pages that are not are not looked at.
    fn locked_runs(&self, piece: VirtRange) -> impl Iterator<Item = VirtRange> {
        let (space, cx) = (self.space_now(), self.cx());
        let mut rest = Some(piece);
        std::iter::from_fn(move || {
            let run = space.first_locked(cx, rest?)?;
            rest = piece.from(run.end());
            Some(run)
        })
    }
    fn advise_range(&self, range: VirtRange, advice: MemAdvice) -> Result<(), SysError> {
        const CALL: &str = "madvise";
        let (space, cx) = (self.space_now(), self.cx());
        let done = match advice {
            MemAdvice::Use(advice) => space.advise(cx, range, advice),
            MemAdvice::WillNeed => {
                return space.will_need(cx, range).map_err(|e| will_need_error(CALL, e));
            }
            MemAdvice::Populate(access) => {
                let done = space.populate(cx, range, access);
                return done.map_err(|e| populate_error(CALL, e));
            }
            MemAdvice::DontNeed => space.dont_need(cx, range),
            MemAdvice::InheritZero => space.inherit_zero(cx, range),
            MemAdvice::InheritCopy => space.inherit_usual(cx, range),
            MemAdvice::DontFork => space.leave_out(cx, range, true),
            MemAdvice::DoFork => space.leave_out(cx, range, false),
        };
        done.map_err(|e| SysError::of(CALL, e))
    }
    /// `MADV_FREE` speaks of whole pages: the length is rounded down. Of less than one nothing is asked but that it is mapped.
    fn madvise_free(&self, range: VirtRange, len: u64, advice: Advice) -> Result<(), SysError> {
        const CALL: &str = "madvise";
        let (space, cx) = (self.space_now(), self.cx());
        let done = match range.until(range.start().get() + len / PAGE_SIZE * PAGE_SIZE) {
            Some(whole) => space.advise(cx, whole, advice),
            None => space.check_mapped(cx, VirtRange::page_of(range.start())),
        };
        done.map_err(|e| SysError::of(CALL, e))
    }
    /// Sets what a child of fork finds in `[addr, addr + len)`. It stops at the first hole.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or length 0, `ENOMEM` for holes and what is no user range, `ENOTSUP` for drivers that know no such thing and
    /// for sharing private memory that reserves at the first touch.
    pub fn minherit(&self, addr: u64, len: u64, how: Inherit) -> Result<(), SysError> {
        const CALL: &str = "minherit";
        let range = user_pages(CALL, addr, len)?;
        self.space_now().inherit(self.cx(), range, how).map_err(|e| SysError::of(CALL, e))
    }

    /// One byte a page of `[addr, addr + len)`: bit 0 says whether it is in memory ([`addr_space::InCore`]).
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or a length of 0 or 2^63 and more, `ENOMEM` for holes. What was found before a hole:
    /// [`Process::mincore_into`].
    pub fn mincore(&self, addr: u64, len: u64) -> Result<Vec<u8>, SysError> {
        let mut out = Vec::new();
        self.mincore_into(addr, len, &mut out).map(|()| out)
    }
    /// The same, into `out`, where what was found stays when a hole is met (the textbook's call copies out as it goes).
    ///
    /// # Errors
    /// As [`Process::mincore`], and `EAGAIN` when there is no heap for the bytes. `out` has a byte for each page before the hole.
    pub fn mincore_into(&self, addr: u64, len: u64, out: &mut Vec<u8>) -> Result<(), SysError> {
        const CALL: &str = "mincore";
        let wrong = |what| SysError::arg(CALL, errno::EINVAL, what);
        out.clear();
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(wrong("the address is not on a page boundary"));
        }
        if len == 0 && self.answers().length_0_is_nothing {
            return Ok(());
        }
        if len == 0 {
            return Err(wrong("the length is 0 or negative"));
        }
        if len > i64::MAX as u64 {
            let errno = self.answers().incore_negative;
            return Err(SysError::arg(CALL, errno, "the length is 0 or negative"));
        }
        if addr.checked_add(len).is_none_or(|end| end > USER_TOP) {
            return Err(SysError::arg(
                CALL,
                errno::ENOMEM,
                "the range leaves the user's addresses",
            ));
        }
        let range = user_range(CALL, addr, len)?;
        let space = self.space_now();
        let mut rest = Some(range);
        while let Some(left) = rest {
            let chunk = left.until(left.page_at(INCORE_CHUNK.min(left.pages().get())).get());
            let chunk = chunk.unwrap_or(left);
            let (at, pages) = (out.len(), chunk.pages().get() as usize);
            let room = out.try_reserve(pages);
            room.map_err(|_| SysError::arg(CALL, errno::EAGAIN, "no heap for the bytes"))?;
            out.resize(at + pages, 0);
            let (got, done) = space.incore(self.cx(), chunk, &mut out[at..]);
            if let Err(e) = done {
                out.truncate(at + got.get() as usize);
                return Err(SysError::of(CALL, e));
            }
            rest = range.from(chunk.end());
        }
        Ok(())
    }

    /// Writes the dirty pages of `[addr, addr + len)` to where they belong. It stops at the first hole.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address, length 0, or flags that mean nothing or ask for both ways of writing; `ENOMEM` for holes and what is no user
    /// range, `EBUSY` when pages are to be dropped that are locked, or lent to anons, and i/o errors.
    #[doc(alias("MC_SYNC", "MS_SYNC", "MS_ASYNC", "MS_INVALIDATE"))]
    pub fn msync(&self, addr: u64, len: u64, flags: SyncFlags) -> Result<(), SysError> {
        const CALL: &str = "msync";
        let known = SyncFlags::from_bits(flags.bits()).is_some();
        if !known || flags.contains(SyncFlags::SYNC | SyncFlags::ASYNC) {
            return Err(SysError::arg(CALL, errno::EINVAL, "unknown flags, or both ways at once"));
        }
        let answers = self.answers();
        let to_nothing = len > 0 && len.checked_next_multiple_of(PAGE_SIZE).is_none();
        if to_nothing && addr.is_multiple_of(PAGE_SIZE) && answers.sync_may_round_to_nothing {
            return Ok(());
        }
        let Some(range) = self.pages_of(CALL, addr, len)? else { return Ok(()) };
        let space = self.space_now(); // every piece is of this one, whoever runs a program meanwhile
        let sync = |range| {
            let done = space.sync(self.cx(), range, flags);
            done.map_err(|e| SysError::of(CALL, e))
        };
        if flags.is_empty() && !answers.syncs_unasked {
            return self.around_holes(CALL, range, |_| Ok(()));
        }
        if answers.goes_on_behind_holes && flags != SyncFlags::ASYNC {
            return self.around_holes(CALL, range, sync);
        }
        sync(range)
    }

    /// Locks `[addr, addr + len)` in memory; on failure nothing of this call stays locked.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or length 0, `ENOMEM` for holes and what is no user range, `EPERM` without the privilege, `EAGAIN`
    /// over a limit, `EDEADLK` when a page that the lock must copy first stays pinned by somebody else.
    #[doc(alias = "MC_LOCK")]
    pub fn mlock(&self, addr: u64, len: u64) -> Result<(), SysError> {
        const CALL: &str = "mlock";
        let range = self.lock_pages_of(CALL, addr, len)?;
        self.may_lock(CALL)?;
        let Some(range) = range else { return Ok(()) };
        if self.answers().locks_what_is_in {
            return self.lock_and_bring_in(CALL, range);
        }
        self.space_now().lock(self.cx(), range).map_err(|e| self.lock_error(CALL, e))
    }
    /// Unlocks `[addr, addr + len)`, up to the first hole.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or length 0, `ENOMEM` for holes, for what is no user range, and without memory to tell a part of what is locked from the
    /// rest; `EPERM` without the privilege.
    #[doc(alias = "MC_UNLOCK")]
    pub fn munlock(&self, addr: u64, len: u64) -> Result<(), SysError> {
        const CALL: &str = "munlock";
        let range = self.lock_pages_of(CALL, addr, len)?;
        self.may_lock(CALL)?;
        let Some(range) = range else { return Ok(()) };
        self.space_now().unlock(self.cx(), range).map_err(|e| SysError::of(CALL, e))
    }
    /// Locks all memory, that of now, that of later, or both.
    ///
    /// # Errors
    /// `EINVAL` when neither is asked for, `EPERM` without the privilege, `EAGAIN` over a limit.
    #[doc(alias = "MC_LOCKAS")]
    pub fn mlockall(&self, what: LockAll) -> Result<(), SysError> {
        const CALL: &str = "mlockall";
        if what.is_empty() || LockAll::from_bits(what.bits()).is_none() {
            return Err(SysError::arg(CALL, errno::EINVAL, "neither current nor future memory"));
        }
        self.may_lock(CALL)?;
        let space = self.space_now(); // all of it works on this one, whoever runs a program meanwhile
        let lock = |what| {
            let done = space.lock_all(self.cx(), what);
            done.map_err(|e| self.lock_error(CALL, e))
        };
        let brings_in = what.contains(LockAll::CURRENT) && self.answers().locks_what_is_in;
        if brings_in {
            let mapped: u64 = self.mapped_in(USER_RANGE).pieces.iter().map(|p| p.len()).sum();
            if mapped > space.state().memlock_limit() {
                let limit = SegError::LockLimit { range: USER_RANGE };
                return Err(self.lock_error(CALL, limit.into()));
            }
        }
        lock(what)?;
        if brings_in {
            self.bring_in_what_can_be_had(USER_RANGE);
            lock(LockAll::CURRENT)?; // also what was not there the first time
        }
        Ok(())
    }
    /// Unlocks all memory; what is mapped later is not locked any more.
    ///
    /// # Errors
    /// `EPERM` without the privilege.
    #[doc(alias = "MC_UNLOCKAS")]
    pub fn munlockall(&self) -> Result<(), SysError> {
        self.may_lock("munlockall")?;
        self.space_now().unlock_all(self.cx());
        Ok(())
    }
    /// Gives or takes the privilege to lock memory, which a process has from the start and hands on to its children. What is locked stays locked.
    #[doc(alias = "PRIV_PROC_LOCK_MEMORY")]
    pub fn set_may_lock(&self, may: bool) {
        self.shared.may_lock.store(may, Ordering::Release);
    }
    pub(super) fn may_lock(&self, call: &'static str) -> Result<(), SysError> {
        if self.shared.may_lock.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(SysError::arg(call, errno::EPERM, "no privilege to lock memory"))
    }
}

/// The same for populating, where a right that lacks is `EINVAL` too.
fn populate_error(call: &'static str, error: FaultError) -> SysError {
    will_need_error(
        call,
        match error {
            FaultError::NoMap { addr } => AsError::Unmapped { addr },
            error => AsError::Fault(error),
        },
    )
}

/// What `madvise(MADV_WILLNEED)` makes of a fault: the object's errno, `ENOMEM` for a hole, `EINVAL` for the rest.
fn will_need_error(call: &'static str, error: AsError) -> SysError {
    match error {
        AsError::Fault(FaultError::Object { errno, .. }) => SysError::with(call, errno, error),
        AsError::Fault(_) => SysError::with(call, errno::EINVAL, error),
        error => SysError::of(call, error),
    }
}
