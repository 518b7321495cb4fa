//! `mremap`: a mapping made longer, shorter, or taken elsewhere; and the extraction beneath it, which shows a mapping twice.
//!
//! illumos has no such call. What it does is UVM's, its arguments and error numbers are Linux's, whose programs are the ones that call it:
//!
//! ```text
//!   shorter   the tail is unmapped
//!   longer    in place where nothing is in the way, else elsewhere if it may move
//!   fixed     to that place, whatever is there goes
//! ```
//!
//! A range may span several mappings, as in UVM, and must not have holes. The new pages are like the last page of the old range: what follows in its file, zeros in
//! private memory, the slots that follow in shared memory. Pages that move are moved: no byte is copied, nothing is promised twice.
//!
//! Order: all that can be refused is looked at first; the new pages are mapped where they will lie; then the old ones are carried beside them, which needs no memory;
//! then what is superfluous goes. A failure takes the new pages away again.
//!
//! Sources: uvm.md 5.6.

use super::SysError;
use super::process::{Process, USER_RANGE, USER_TOP};
use addr_space::{AddrRequest, AddrSpace, AsError, Leave, RangeClaim, SegError, Target};
use page_db::{PAGE_SIZE, VirtAddr, VirtRange, errno};

bitflags::bitflags! {
    /// Flags of `mremap`, with Linux's values.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RemapFlags: u32 {
        /// The mapping may move where there is no room for it to grow.
        #[doc(alias = "MREMAP_MAYMOVE")]
        const MAYMOVE = 1;
        /// It moves, to exactly the place given, in place of what is there. With `MAYMOVE` only.
        #[doc(alias = "MREMAP_FIXED")]
        const FIXED = 2;
        /// It moves, and its old place stays mapped, as if nothing had been stored there. With `MAYMOVE` only, and the same length.
        #[doc(alias = "MREMAP_DONTUNMAP")]
        const DONTUNMAP = 4;
    }
}

const CALL: &str = "mremap";

fn invalid(what: &'static str) -> SysError {
    SysError::arg(CALL, errno::EINVAL, what)
}

/// The error of the address space. What is not mapped is a bad address to this call.
fn failed(error: AsError) -> SysError {
    failed_in(CALL, error)
}

fn failed_in(call: &'static str, error: AsError) -> SysError {
    match error {
        AsError::Unmapped { .. } | AsError::Seg(SegError::Unmapped { .. }) => {
            SysError::with(call, errno::EFAULT, error)
        }
        error => SysError::of(call, error),
    }
}

const SHARE: &str = "share_range";

/// Whole pages that hold `len` bytes, if the user could have as many.
fn whole(len: u64) -> Result<u64, SysError> {
    let pages = len.checked_next_multiple_of(PAGE_SIZE).filter(|len| (1..=USER_TOP).contains(len));
    pages.ok_or_else(|| invalid("a length of 0, or of more than there is"))
}

/// `len` bytes from `start` on; both are whole pages, and the range is the user's.
fn at(start: u64, len: u64) -> Result<VirtRange, SysError> {
    let range = VirtRange::exact(start, len).ok().filter(|range| USER_RANGE.covers(*range));
    range.ok_or_else(|| invalid("the range leaves the user's addresses"))
}

/// A call whose arguments have been checked.
#[derive(Clone, Copy)]
struct Remap {
    from: VirtRange,
    /// Bytes it is to have.
    len: u64,
    flags: RemapFlags,
    /// The place, if it is fixed.
    fixed: Option<VirtRange>,
}

impl Remap {
    fn check(
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: RemapFlags,
        to: u64,
    ) -> Result<Self, SysError> {
        let has = |flag| flags.contains(flag);
        if RemapFlags::from_bits(flags.bits()).is_none() {
            return Err(invalid("an unknown flag"));
        }
        if flags.intersects(RemapFlags::FIXED | RemapFlags::DONTUNMAP) && !has(RemapFlags::MAYMOVE)
        {
            return Err(invalid("a move that may not move"));
        }
        if !old.is_multiple_of(PAGE_SIZE) {
            return Err(invalid("the old address is not on a page boundary"));
        }
        let (old_len, len) = (whole(old_len)?, whole(new_len)?);
        if has(RemapFlags::DONTUNMAP) && old_len != len {
            return Err(invalid("what stays mapped has the length of what moves"));
        }
        let fixed = if has(RemapFlags::FIXED) {
            if !to.is_multiple_of(PAGE_SIZE) {
                return Err(invalid("the new address is not on a page boundary"));
            }
            Some(at(to, len)?)
        } else {
            None
        };
        if old.checked_add(old_len).is_none() {
            return Err(invalid("the old range wraps"));
        }
        let unmapped = || SysError::arg(CALL, errno::EFAULT, "the old range is no user range");
        let from = at(old, old_len).map_err(|_| unmapped())?;
        if fixed.is_some_and(|to| from.intersect(to).is_some()) {
            return Err(invalid("the old and the new range overlap"));
        }
        Ok(Self { from, len, flags, fixed })
    }
    /// The part of the old range that is kept.
    fn kept(&self) -> VirtRange {
        self.from.until(self.from.start().get() + self.len).unwrap_or(self.from)
    }
    /// The part of `range`, where the mapping will be, that it grows by.
    fn tail(&self, range: VirtRange) -> Option<VirtRange> {
        range.from(range.start().get() + self.from.len())
    }
}

impl Process {
    /// Makes what is mapped in `[old, old + old_len)` `new_len` bytes long, moves it if need be, and says where it is. `to` is looked at
    /// with [`RemapFlags::FIXED`] only. Lengths are rounded up to pages.
    ///
    /// # Errors
    /// `EINVAL` for unknown flags, flags that do not go together, misaligned addresses, a length of 0, what wraps, a place that overlaps the old
    /// range, and where the offsets of a file end; `EFAULT` when part of the old range is not mapped; `ENOMEM` when there is no room, or a limit is
    /// passed; `EAGAIN` while pages are pinned for i/o, when no swap can be reserved, and when the new pages cannot be locked as the old
    /// ones are; `ENOTSUP` for mappings of devices. Nothing has changed, except that what was at a fixed place may be gone, and other mappings that may be
    /// thrown away for want of room.
    pub fn mremap(
        &self,
        old: u64,
        old_len: u64,
        new_len: u64,
        flags: RemapFlags,
        to: u64,
    ) -> Result<u64, SysError> {
        let call = Remap::check(old, old_len, new_len, flags, to)?;
        let (space, cx) = (self.space_now(), self.cx());
        let claim = space.claim_range(cx).map_err(failed)?;
        // held: as range
        space.check_mapped(cx, call.from).map_err(failed)?;
        if let Some(to) = call.fixed {
            self.remap_to(&space, &call, to)?;
            return Ok(to.start().get());
        }
        if call.flags.contains(RemapFlags::DONTUNMAP) {
            return self.remap_away(&claim, &space, &call);
        }
        if call.len <= call.from.len() {
            if let Some(less) = call.from.from(old + call.len) {
                space.unmap(cx, less).map_err(failed)?;
            }
            return Ok(old);
        }
        if self.grown_in_place(&space, &call)? {
            return Ok(old);
        }
        if !call.flags.contains(RemapFlags::MAYMOVE) {
            return Err(SysError::arg(CALL, errno::ENOMEM, "something is mapped behind it"));
        }
        space.may_move(cx, call.from).map_err(failed)?;
        self.remap_away(&claim, &space, &call)
    }
    /// Moves the mapping to a place that is free, and says where that is.
    fn remap_away(
        &self,
        claim: &RangeClaim<'_>,
        space: &AddrSpace,
        call: &Remap,
    ) -> Result<u64, SysError> {
        loop {
            let to = self.new_place(claim, call.len, Some(call.from))?;
            match self.carry(space, call, to, Target::Free) {
                // A mapping at a given address, which needs no claim, was faster; or the old range has gone, and the place is its own.
                Err(AsError::Overlap { .. }) => {
                    space.check_mapped(self.cx(), call.from).map_err(failed)?;
                }
                done => return done.map(|()| to.start().get()).map_err(failed),
            }
        }
    }
    /// Lets the mapping grow where it is; says whether there was room.
    fn grown_in_place(&self, space: &AddrSpace, call: &Remap) -> Result<bool, SysError> {
        let whole = VirtRange::exact(call.from.start().get(), call.len).ok();
        let whole = whole.filter(|range| USER_RANGE.covers(*range));
        let Some(tail) = whole.and_then(|range| call.tail(range)) else { return Ok(false) };
        match space.extend(self.cx(), last_page(call.from), tail) {
            Ok(()) => Ok(true),
            Err(AsError::Overlap { .. } | AsError::OutsideSpace { .. }) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
    /// Moves the mapping to `to`, in place of what is there, and lets it grow or shrink.
    fn remap_to(&self, space: &AddrSpace, call: &Remap, to: VirtRange) -> Result<(), SysError> {
        let cx = self.cx();
        space.may_move(cx, call.from).map_err(failed)?;
        let grows = call.len > call.from.len();
        loop {
            if grows {
                space.unmap(cx, to).map_err(failed)?;
            }
            match self.carry(space, call, to, Target::Replace) {
                // A mapping at a given address, which needs no claim, has taken the place meanwhile; or the old range has gone, and the place is its own.
                Err(AsError::Overlap { .. }) if grows => {
                    space.check_mapped(cx, call.from).map_err(failed)?;
                }
                done => break done.map_err(failed)?,
            }
        }
        if let Some(less) = call.from.from(call.kept().end()) {
            space.unmap(cx, less).map_err(failed)?;
        }
        Ok(())
    }
    /// Maps what the mapping grows by at the end of `to`, if it does, and carries what is kept of it to the start.
    fn carry(
        &self,
        space: &AddrSpace,
        call: &Remap,
        to: VirtRange,
        target: Target,
    ) -> Result<(), AsError> {
        let cx = self.cx();
        let tail = call.tail(to);
        if let Some(tail) = tail {
            space.extend(cx, last_page(call.from), tail)?;
        }
        let stays = call.flags.contains(RemapFlags::DONTUNMAP);
        let leave = if stays { Leave::Fresh } else { Leave::Hole };
        let done = space.move_range(cx, call.kept(), to.start(), leave, target);
        done.inspect_err(|_| {
            if let Some(tail) = tail {
                // It is new, and a whole segment but where it has joined another: that alone could want heap.
                let _ = space.unmap(cx, tail);
            }
        })
    }
    /// A place for what is mapped in `spare` now, if that is here: it is not thrown away to make room for itself.
    fn new_place(
        &self,
        claim: &RangeClaim<'_>,
        len: u64,
        spare: Option<VirtRange>,
    ) -> Result<VirtRange, SysError> {
        let window = Some(self.mapping_window());
        let request = AddrRequest { window, spare, ..AddrRequest::new(len) };
        claim.choose_addr(&request).map_err(failed)
    }

    /// Shows what is mapped in `[addr, addr + len)` a second time, in `into` (which may be this process), and says where: what either stores the other
    /// sees, in private memory too, and nothing is copied. Locks in memory do not come along.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or length 0, `EFAULT` when part of the range is not mapped, `ENOMEM` when there is no room or a limit is passed, `EAGAIN`
    /// when no swap can be reserved or a page that would be replaced is pinned for i/o, `ENOTSUP` for devices and for private memory that reserves at the first touch. Nothing has changed, but that
    /// where swap or memory ran out on the way, or another process has a page pinned, locked pages which a fork left to several processes, or which are
    /// a file's still, may have been copied.
    #[doc(alias("uvm_map_extract", "MAP_REMAPDUP"))]
    pub fn share_range(&self, addr: u64, len: u64, into: &Self) -> Result<u64, SysError> {
        let from = super::process::user_pages(SHARE, addr, len)?;
        self.check_machine_of(into)?;
        let (space, theirs) = (self.space_now(), into.space_now());
        let own = std::sync::Arc::ptr_eq(&*space, &*theirs).then_some(from);
        let claim = theirs.claim_range(self.cx()).map_err(|e| failed_in(SHARE, e))?;
        loop {
            let to = into.new_place(&claim, from.len(), own)?;
            match space.share_range(self.cx(), from, &theirs, to.start()) {
                // A mapping at a given address, which needs no claim, was faster.
                Err(AsError::Overlap { .. }) => {}
                done => {
                    return done.map(|()| to.start().get()).map_err(|e| failed_in(SHARE, e));
                }
            }
        }
    }
    /// The same at a place of the caller's choice, which must be free.
    ///
    /// # Errors
    /// As [`Process::share_range`], and `EINVAL` for a misaligned place, `EEXIST` where something is.
    pub fn share_range_at(
        &self,
        addr: u64,
        len: u64,
        into: &Self,
        to: u64,
    ) -> Result<(), SysError> {
        let from = super::process::user_pages(SHARE, addr, len)?;
        self.check_machine_of(into)?;
        let place = super::process::user_pages(SHARE, to, from.len())?;
        let done = self.space_now().share_range(self.cx(), from, &into.space_now(), place.start());
        done.map_err(|e| match e {
            AsError::Overlap { .. } => SysError::with(SHARE, errno::EEXIST, e),
            e => failed_in(SHARE, e),
        })
    }
    fn check_machine_of(&self, other: &Self) -> Result<(), SysError> {
        if std::sync::Arc::ptr_eq(self.machine.db(), other.machine.db()) {
            return Ok(());
        }
        Err(SysError::arg(SHARE, errno::EINVAL, "a process of another machine"))
    }
}

/// The page that growth is to be like.
fn last_page(range: VirtRange) -> VirtAddr {
    range.page_at(range.pages().get() - 1)
}
