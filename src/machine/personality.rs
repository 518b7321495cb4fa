//! Whose answers a process gets where two systems differ and both are right.
//!
//! The library answers as illumos does. Where a system call can answer as Linux does by itself, without the address space or a driver knowing, a process
//! may ask for that (`Process::set_personality`): a program of that system then finds what it expects. The answers are one table, a field a question, and
//! the calls ask it; nothing below them does.
//!
//! | | asked | illumos | Linux |
//! |---|---|---|---|
//! | 1 | `mprotect`, `msync`, `madvise`, `mincore`, `mlock` of length 0 | `EINVAL` | nothing to do |
//! | 2 | `mlock`, `munlock` off the page boundary | `EINVAL` | from the page's start, one page at least |
//! | 5, 6 | `madvise`, `msync` over a hole | stop there, `ENOMEM` | go on behind it, then `ENOMEM`; `msync` that only starts writes stops |
//! | 7 | `mlock` over a hole | undone, `ENOMEM` | what lies below stays locked, `ENOMEM` |
//! | 8, 9 | `mlock` of what no load can reach: no right, past the end of a file | locked, or left out | `ENOMEM`, and stays marked |
//! | 10 | a lock, or `MAP_POPULATE`, of a private file's pages that may be stored to | claimed, or read | copied now |
//! | | a lock of memory that is promised to nobody, untouched | left out | made and locked |
//! | 11 | `mlock` over the limit | `EAGAIN` | `ENOMEM` |
//! | | the limit is compared with | what is mapped, a segment at a time | lengths, before anything is locked or unmapped |
//! | 12-14 | `MADV_DONTNEED` | written back, contents stay; locked: `EBUSY` | private contents go (`Advice::Discard`); locked: `EINVAL` |
//! | 15 | `MADV_FREE` of files, shared and locked memory; its length | ignored; rounded down | `EINVAL`; rounded up |
//! | 19 | a touch past the end of a file | `SIGBUS`, `BUS_OBJERR` | `SIGBUS`, `BUS_ADRERR` |
//! | 20 | `msync` without a flag | writes and waits | looks for holes |
//! | 22 | `msync` of a length that rounds to 2^64 | `ENOMEM` | nothing to do |
//! | 23 | `madvise` of a range that wraps | `ENOMEM` | `EINVAL` |
//! | | `mlock`, `munlock` of a range that wraps; of a length that rounds to 2^64 | `ENOMEM` | `EINVAL`; nothing to do |
//! | | `madvise` asks for what no load can reach | `EFAULT` | nothing to do |
//! | 24 | `mincore` of 2^63 bytes and more | `EINVAL` | `ENOMEM` |
//! | 26 | `mmap` of a file, shared and private at once | `EINVAL` | shared |
//! | 27 | an unknown bit of protection | `ENOTSUP` or `EACCES` | `mmap` ignores it; `mprotect`: `EINVAL` |
//! | 28 | `mmap` of anonymous memory, with a descriptor | `EINVAL` | the descriptor is ignored |
//! | 31 | `mmap` from a negative offset | `ENXIO` | `EOVERFLOW` |
//! | | `mmap` of several wrong arguments | flags, offset, rights, and then the place | the place, and then the others |
//! | 32 | `pread`, `pwrite` that meet a bad page half way | `EFAULT` | what was moved counts |
//! | 33 | `brk` up to the page below another mapping | may touch it | one page stays free |
//! | | `brk` down to where it is over a data limit that was lowered | goes | `ENOMEM` |
//!
//! The numbers are those of the list of differences that the trace language comes with; rows without one are not in it. A lock is `mlock`, `mlockall` and `MAP_LOCKED`, and
//! a mapping made where all future memory is to be locked. What is left of it is no difference in
//! answers, or needs more than a call:
//!
//! | | | why no call can give the other answer |
//! |---|---|---|
//! | 17 | a file cut below private copies | whoever cuts it has no say in what others have mapped, and need not be a process |
//! | 29 | a fixed mapping that fails late | what was there goes before the new mapping can fail; to put it back would take what its going has given to others |
//! | 30 | memory that is promised to nobody | every promise is kept by the driver of the mapping: protection, forks, locks and moves ask it later |
//!
//! The other road, a switch in the core, would put each of these questions into every driver, and every law of the core would hold twice.

use super::SysError;
use super::process::{Process, user_range};
use addr_space::{AsError, FaultError, SegError, SegKind, Signal};
use page_db::sync::atomic::Ordering;
use page_db::{Access, PAGE_SIZE, Prot, VirtAddr, VirtRange, errno};

/// Whose answers a process gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub enum Personality {
    /// illumos's.
    #[default]
    Illumos,
    /// Linux's, where a system call can give them by itself.
    Linux,
}

/// The table; see the module for the numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answers {
    /// 1.
    pub(crate) length_0_is_nothing: bool,
    /// 2.
    pub(crate) locks_whole_pages: bool,
    /// 5, 6.
    pub(crate) goes_on_behind_holes: bool,
    /// 7-10.
    pub(crate) locks_what_is_in: bool,
    /// 11.
    pub(crate) over_lock_limit: i32,
    /// 12-14.
    pub(crate) dontneed_discards: bool,
    /// 15.
    pub(crate) frees_private_memory_only: bool,
    /// 19.
    pub(crate) past_the_end_is_an_address: bool,
    /// 20.
    pub(crate) syncs_unasked: bool,
    /// 22.
    pub(crate) sync_may_round_to_nothing: bool,
    /// 23.
    pub(crate) advice_wraps: i32,
    /// Asking for what no load can reach.
    pub(crate) asks_in_vain: bool,
    /// 24.
    pub(crate) incore_negative: i32,
    /// 26.
    pub(crate) both_is_shared: bool,
    /// 27: for `mmap`, where it is not ignored, nothing.
    pub(crate) ignores_unknown_rights: bool,
    /// 27: for `mprotect`.
    pub(crate) unknown_rights: i32,
    /// 28.
    pub(crate) ignores_descriptor: bool,
    /// 31.
    pub(crate) negative_offset: i32,
    /// The place of a mapping before its flags and rights.
    pub(crate) place_first: bool,
    /// 32.
    pub(crate) counts_what_was_moved: bool,
    /// 33: bytes above the break that must be free.
    pub(crate) break_gap: u64,
    /// The data limit is for a break that goes down, too.
    pub(crate) limits_any_break: bool,
}

const ILLUMOS: Answers = Answers {
    length_0_is_nothing: false,
    locks_whole_pages: false,
    goes_on_behind_holes: false,
    locks_what_is_in: false,
    over_lock_limit: errno::EAGAIN,
    dontneed_discards: false,
    frees_private_memory_only: false,
    past_the_end_is_an_address: false,
    syncs_unasked: true,
    sync_may_round_to_nothing: false,
    advice_wraps: errno::ENOMEM,
    asks_in_vain: false,
    incore_negative: errno::EINVAL,
    both_is_shared: false,
    ignores_unknown_rights: false,
    unknown_rights: errno::ENOTSUP,
    ignores_descriptor: false,
    negative_offset: errno::ENXIO,
    place_first: false,
    counts_what_was_moved: false,
    break_gap: 0,
    limits_any_break: false,
};

const LINUX: Answers = Answers {
    length_0_is_nothing: true,
    locks_whole_pages: true,
    goes_on_behind_holes: true,
    locks_what_is_in: true,
    over_lock_limit: errno::ENOMEM,
    dontneed_discards: true,
    frees_private_memory_only: true,
    past_the_end_is_an_address: true,
    syncs_unasked: false,
    sync_may_round_to_nothing: true,
    advice_wraps: errno::EINVAL,
    asks_in_vain: true,
    incore_negative: errno::ENOMEM,
    both_is_shared: true,
    ignores_unknown_rights: true,
    unknown_rights: errno::EINVAL,
    ignores_descriptor: true,
    negative_offset: errno::EOVERFLOW,
    place_first: true,
    counts_what_was_moved: true,
    break_gap: PAGE_SIZE,
    limits_any_break: true,
};

/// What is mapped in a range.
pub(super) struct Mapped {
    /// Piece by piece, cut at borders of segments.
    pub(super) pieces: Vec<VirtRange>,
    /// The first address that is not.
    pub(super) hole: Option<VirtAddr>,
}

impl Process {
    /// Whose answers the system calls give, from now on and to children; what is mapped and locked stays as it is.
    #[doc(alias = "personality")]
    pub fn set_personality(&self, personality: Personality) {
        let linux = personality == Personality::Linux;
        self.shared.linux.store(linux, Ordering::Release);
    }
    /// Whose answers the system calls give.
    pub fn personality(&self) -> Personality {
        match self.shared.linux.load(Ordering::Acquire) {
            true => Personality::Linux,
            false => Personality::Illumos,
        }
    }
    pub(crate) fn answers(&self) -> &'static Answers {
        match self.personality() {
            Personality::Illumos => &ILLUMOS,
            Personality::Linux => &LINUX,
        }
    }
    /// The pages of a range on a page boundary; `None` when there is nothing to do (1).
    ///
    /// # Errors
    /// `EINVAL` off the boundary or for length 0, `ENOMEM` for what is no user range.
    pub(super) fn pages_of(
        &self,
        call: &'static str,
        addr: u64,
        len: u64,
    ) -> Result<Option<VirtRange>, SysError> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            let what = "the address is not on a page boundary";
            return Err(SysError::arg(call, errno::EINVAL, what));
        }
        if len == 0 && self.answers().length_0_is_nothing {
            return Ok(None);
        }
        if len == 0 {
            return Err(SysError::arg(call, errno::EINVAL, "the length is 0"));
        }
        user_range(call, addr, len).map(Some)
    }
    /// The same for locks, which may begin within a page (2) and wrap with another answer.
    pub(super) fn lock_pages_of(
        &self,
        call: &'static str,
        addr: u64,
        len: u64,
    ) -> Result<Option<VirtRange>, SysError> {
        if !self.answers().locks_whole_pages {
            return self.pages_of(call, addr, len);
        }
        let inside = addr % PAGE_SIZE;
        let bytes = len.checked_add(inside).and_then(|len| len.checked_next_multiple_of(PAGE_SIZE));
        let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else { return Ok(None) };
        if (addr - inside).checked_add(bytes).is_none() {
            return Err(SysError::arg(call, errno::EINVAL, "the range wraps"));
        }
        user_range(call, addr - inside, bytes).map(Some)
    }
    /// What is mapped in a range, holes or not.
    pub(super) fn mapped_in(&self, range: VirtRange) -> Mapped {
        let (space, cx) = (self.space_now(), self.cx());
        let segs = space.segs(cx);
        let mut mapped = Mapped { pieces: Vec::new(), hole: None };
        let mut rest = Some(range);
        while let Some(left) = rest {
            let found = segs.seg_at_or_above(cx, left.start());
            let found = found.filter(|seg| seg.range().start().get() < left.end());
            let Some(seg) = found else {
                mapped.hole.get_or_insert(left.start());
                break;
            };
            let (seg, looks_unmapped) = (seg.range(), seg.ops().kind().contains(SegKind::HOLE));
            if seg.start() > left.start() {
                mapped.hole.get_or_insert(left.start());
            }
            let from = if seg.start() > left.start() { seg.start() } else { left.start() };
            let end = seg.end().min(left.end());
            if looks_unmapped {
                mapped.hole.get_or_insert(from);
            } else if let Ok(piece) = VirtRange::exact(from.get(), end - from.get()) {
                mapped.pieces.push(piece);
            }
            rest = left.from(end);
        }
        mapped
    }
    /// Does `each` for what is mapped, and answers for the hole last (5, 6). The first error ends it.
    pub(super) fn around_holes(
        &self,
        call: &'static str,
        range: VirtRange,
        mut each: impl FnMut(VirtRange) -> Result<(), SysError>,
    ) -> Result<(), SysError> {
        let mapped = self.mapped_in(range);
        mapped.pieces.into_iter().try_for_each(&mut each)?;
        let hole = mapped.hole.map(|addr| AsError::Unmapped { addr });
        hole.map_or(Ok(()), |e| Err(SysError::of(call, e)))
    }
    /// Locks as Linux does (7-11): what lies below a hole, and brought in.
    ///
    /// What the limit refuses is refused before anything is locked or brought in. The first lock leaves out what nobody has touched where nothing is
    /// promised, so what was brought in is locked once more.
    pub(super) fn lock_and_bring_in(
        &self,
        call: &'static str,
        range: VirtRange,
    ) -> Result<(), SysError> {
        let space = self.space_now(); // all of it works on this one, whoever runs a program meanwhile
        let mapped = self.mapped_in(range);
        if !self.may_lock_more(range.len(), &mapped.pieces) {
            return Err(self.lock_error(call, SegError::LockLimit { range }.into()));
        }
        let below = mapped.hole.map_or(Some(range), |hole| range.until(hole.get()));
        let lock = || {
            let done = below.map_or(Ok(()), |below| space.lock(self.cx(), below));
            done.map_err(|e| self.lock_error(call, e))
        };
        lock()?;
        // Over a hole nothing is brought in but what would not be locked otherwise.
        let meant = |piece: &VirtRange| mapped.hole.is_none() || self.is_unpromised(*piece);
        let pieces = mapped.pieces.iter().filter_map(|p| below.and_then(|b| p.intersect(b)));
        let brought = pieces.filter(meant).map(|p| self.bring_in(p, false)).find(Result::is_err);
        lock()?;
        if let Some(addr) = mapped.hole {
            return Err(SysError::of(call, AsError::Unmapped { addr }));
        }
        brought.unwrap_or(Ok(())).map_err(|e| SysError::with(call, errno::ENOMEM, e))
    }
    /// Whether the limit lets `bytes` more be locked, of which `pieces` are mapped: what is locked of them counts once (11). What is not mapped counts, as
    /// what nobody has touched does.
    pub(super) fn may_lock_more(&self, bytes: u64, pieces: &[VirtRange]) -> bool {
        let space = self.space_now();
        let (limit, locked) = (space.state().memlock_limit(), space.state().locked());
        if locked.checked_add(bytes).is_some_and(|sum| sum <= limit) {
            return true;
        }
        // Only a range that the limit itself has room for is looked at, run by run of what is locked.
        let room = limit.checked_sub(bytes);
        room.is_some_and(|room| {
            let twice = pieces.iter().map(|piece| self.locked_pages_in(*piece) * PAGE_SIZE);
            locked.saturating_sub(twice.sum()) <= room
        })
    }
    /// Whether a piece of a segment is memory without a file for which nothing is promised.
    fn is_unpromised(&self, piece: VirtRange) -> bool {
        let (space, cx) = (self.space_now(), self.cx());
        let kind = space.kind_at(cx, piece.start());
        kind.is_some_and(|kind| kind.contains(SegKind::NORESERVE))
            && space.vnode_at(cx, piece.start()).flatten().is_none()
    }
    /// Brings in one piece of a segment: what may be stored to and is nobody else's, as a store does (10). Ends with the first page that cannot be had, or goes
    /// on behind the run of rights that it lies in.
    fn bring_in(&self, piece: VirtRange, go_on: bool) -> Result<(), AsError> {
        let (space, cx) = (self.space_now(), self.cx());
        let mut runs = Vec::new();
        space.prots(cx, piece, &mut |run, prot| runs.push((run, prot)))?;
        let shared = space.kind_at(cx, piece.start());
        let shared = shared.is_none_or(|kind| kind.contains(SegKind::SHARED));
        runs.into_iter().try_for_each(|(run, prot)| {
            let store = !shared && prot.contains(Prot::WRITE);
            let access = if store { Access::Write } else { Access::Read };
            let done = space.populate(cx, run, access).map_err(AsError::Fault);
            if go_on { Ok(()) } else { done }
        })
    }
    /// Brings in whatever is mapped in `range`, as far as it goes: what cannot be had now is had when it is touched.
    pub(super) fn bring_in_what_can_be_had(&self, range: VirtRange) {
        for piece in self.mapped_in(range).pieces {
            let _ = self.bring_in(piece, true);
        }
    }
    /// What a lock that was refused is called (11).
    pub(super) fn lock_error(&self, call: &'static str, error: AsError) -> SysError {
        match error {
            AsError::Seg(SegError::LockLimit { .. }) => {
                SysError::with(call, self.answers().over_lock_limit, error)
            }
            error => SysError::of(call, error),
        }
    }
    /// The signal of a touch that failed (19).
    pub(super) fn signal_of(&self, error: &FaultError) -> Signal {
        match error.signal() {
            Signal::BusObjErr(errno::EFAULT) if self.answers().past_the_end_is_an_address => {
                Signal::BusAdrErr
            }
            signal => signal,
        }
    }
}

#[cfg(test)]
#[path = "personality_tests.rs"]
mod tests;
