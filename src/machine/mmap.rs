//! `mmap`, `munmap`, `mprotect`: who asks for what, and where it goes.
//!
//! Of several wrong arguments the first one in illumos's order gives the answer. Linux looks for the place first, which shows:
//!
//! ```text
//!   illumos   flags ─▶ length 0, offset off a page ─▶ offset past the last ─▶ rights of the descriptor ─▶ place: off a page, rights, outside
//!   Linux     offset off a page ─▶ length 0 ─▶ place: outside, off a page, taken ─▶ flags ─▶ offset past the last ─▶ rights of the descriptor
//! ```
//!
//! On x86-64 no translation can allow a store or a fetch without a load, so the right to write or execute brings the right to
//! read along, openly, here.
//!
//! Sources: illumos `os/grow.c` (behaviour); illumos.md 3.4, 3.12.

use super::SysError;
use super::personality::Answers;
use super::process::{Process, USER_TOP};
use crate::files::FileHandle;
use crate::files::file::MAX_OFFSET;
use addr_space::{
    AddrRequest, AddrSpace, AsError, Mark, SegCreate, SegCx, SegError, SegKind, SegOps,
};
use page_db::{FileOffset, PAGE_MASK, PAGE_SIZE, PageDb, Prot, VirtAddr, VirtRange, Vnode, errno};
use seg_drivers::seg_vn::SegVnArgs;
use std::sync::Arc;

bitflags::bitflags! {
    /// Flags of `mmap`, with illumos's values; the last five are extensions above them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        /// Stores are seen by everybody who maps the object.
        #[doc(alias = "MAP_SHARED")]
        const SHARED = 0x1;
        /// Stores stay in this address space.
        #[doc(alias = "MAP_PRIVATE")]
        const PRIVATE = 0x2;
        /// Exactly there, in place of what is there.
        #[doc(alias = "MAP_FIXED")]
        const FIXED = 0x10;
        /// Swap is not reserved now but at the first store.
        #[doc(alias = "MAP_NORESERVE")]
        const NORESERVE = 0x40;
        /// Zeros instead of a file.
        #[doc(alias = "MAP_ANON")]
        const ANON = 0x100;
        /// The address is an alignment.
        #[doc(alias = "MAP_ALIGN")]
        const ALIGN = 0x200;
        /// Program text.
        #[doc(alias = "MAP_TEXT")]
        const TEXT = 0x400;
        /// Initialised data.
        #[doc(alias = "MAP_INITDATA")]
        const INITDATA = 0x800;
        /// With `FIXED`: fail with `EEXIST` rather than replace anything.
        const EXCL = 0x1_0000;
        /// Fault the pages in at once.
        const POPULATE = 0x2_0000;
        /// Lock the pages at once.
        const LOCKED = 0x4_0000;
        /// May be thrown away whole when no hole is large enough for another mapping (`as_purge`), and is not inherited over fork.
        const PURGE = 0x8_0000;
        /// Addresses that nobody may ever use: private anonymous memory without rights, none of which can be given later; it promises no swap.
        const GUARD = 0x10_0000;
    }
}

/// What to map.
#[derive(Clone, Copy, Debug)]
pub struct MapRequest<'a> {
    /// Where, or a hint, or with [`MapFlags::ALIGN`] an alignment; 0 for anywhere.
    pub addr: u64,
    /// Bytes; rounded up to pages.
    pub len: u64,
    /// `PROT_*` bits: 1 read, 2 write, 4 execute.
    pub prot: u32,
    /// Flags.
    pub flags: MapFlags,
    /// The file, or `None` with [`MapFlags::ANON`].
    pub file: Option<&'a FileHandle>,
    /// Offset in the file, a multiple of the page size.
    pub offset: u64,
}

const MMAP: &str = "mmap";

fn invalid(what: &'static str) -> SysError {
    SysError::arg(MMAP, errno::EINVAL, what)
}

/// A request whose arguments have been checked.
struct Checked {
    /// Bytes, whole pages.
    len: u64,
    prot: Prot,
    max_prot: Prot,
    kind: SegKind,
    /// The fixed place.
    fixed: Option<VirtRange>,
}

/// `PROT_*` bits as rights; `None` when a bit means nothing.
pub(crate) fn rights(bits: u32) -> Option<Prot> {
    let prot = u8::try_from(bits).ok().and_then(Prot::from_bits)?;
    if prot.contains(Prot::USER) {
        return None;
    }
    let implied =
        if prot.intersects(Prot::WRITE | Prot::EXEC) { Prot::READ } else { Prot::empty() };
    Some(prot | implied)
}

impl MapRequest<'_> {
    fn check(
        &self,
        answers: &Answers,
        db: &PageDb,
        taken: impl FnOnce(VirtRange) -> bool,
    ) -> Result<Checked, SysError> {
        self.check_object(db)?;
        if self.len == 0 {
            return Err(invalid("the length is 0"));
        }
        let place = || {
            let place = self.check_place()?;
            let taken = self.flags.contains(MapFlags::EXCL) && place.1.is_some_and(taken);
            if taken { Err(exists()) } else { Ok(place) }
        };
        let prot = rights(if answers.ignores_unknown_rights { self.prot & 7 } else { self.prot });
        let unknown = |errno| SysError::arg(MMAP, errno, "an unknown protection bit");
        let (range, prot, max_prot) = if answers.place_first {
            let range = place()?;
            self.check_flags(answers)?;
            let prot = prot.ok_or_else(|| unknown(answers.unknown_rights))?;
            (range, prot, self.check_rights(answers, prot)?)
        } else {
            self.check_flags(answers)?;
            let max_prot = self.check_rights(answers, prot.unwrap_or(Prot::empty()))?;
            if prot.is_none() && !self.flags.contains(MapFlags::FIXED) && self.file.is_some() {
                return Err(unknown(errno::EACCES));
            }
            self.check_boundary()?;
            let prot = prot.ok_or_else(|| unknown(errno::ENOTSUP))?;
            (place()?, prot, max_prot)
        };
        let mut kind = SegKind::empty();
        for (flag, bit) in [
            (MapFlags::SHARED, SegKind::SHARED),
            (MapFlags::NORESERVE, SegKind::NORESERVE),
            (MapFlags::TEXT, SegKind::TEXT),
            (MapFlags::INITDATA, SegKind::INITDATA),
            (MapFlags::PURGE, SegKind::PURGE),
            (MapFlags::GUARD, SegKind::NORESERVE),
        ] {
            kind |= if self.flags.contains(flag) { bit } else { SegKind::empty() };
        }
        Ok(Checked { len: range.0, prot, max_prot, kind, fixed: range.1 })
    }
    fn check_object(&self, db: &PageDb) -> Result<(), SysError> {
        if MapFlags::from_bits(self.flags.bits()).is_none() {
            return Err(invalid("an unknown flag"));
        }
        if !self.offset.is_multiple_of(PAGE_SIZE) {
            return Err(invalid("the offset is not a multiple of the page size"));
        }
        match (self.flags.contains(MapFlags::ANON), self.file) {
            (true, Some(_)) => Err(invalid("anonymous memory and a descriptor")),
            (false, None) => Err(SysError::arg(MMAP, errno::EBADF, "no such descriptor")),
            (_, Some(file)) if !file.vnode.is_of(db) => Err(invalid("another machine's file")),
            _ => Ok(()),
        }
    }
    /// The length in whole pages, and the place if it is fixed.
    fn check_place(&self) -> Result<(u64, Option<VirtRange>), SysError> {
        let outside =
            || SysError::arg(MMAP, errno::ENOMEM, "the range leaves the user's addresses");
        let len = self.len.checked_next_multiple_of(PAGE_SIZE).ok_or_else(outside)?;
        if len > USER_TOP {
            return Err(outside());
        }
        if !self.flags.contains(MapFlags::FIXED) {
            return Ok((len, None));
        }
        if self.addr > USER_TOP - len {
            return Err(outside());
        }
        self.check_boundary()?;
        let range = VirtRange::exact(self.addr, len).map_err(|_| outside())?;
        Ok((len, Some(range)))
    }
    fn check_boundary(&self) -> Result<(), SysError> {
        if self.flags.contains(MapFlags::FIXED) && !self.addr.is_multiple_of(PAGE_SIZE) {
            return Err(invalid("the address is not on a page boundary"));
        }
        Ok(())
    }
    fn check_flags(&self, answers: &Answers) -> Result<(), SysError> {
        let has = |f| self.flags.contains(f);
        let both = has(MapFlags::SHARED | MapFlags::PRIVATE);
        let shared = both && answers.both_is_shared && self.file.is_some();
        if has(MapFlags::SHARED) == has(MapFlags::PRIVATE) && !shared {
            return Err(invalid("a mapping is either shared or private"));
        }
        if has(MapFlags::TEXT) && (self.prot & 4 == 0 || has(MapFlags::INITDATA)) {
            return Err(invalid("text that cannot be executed, or is data"));
        }
        let reserves = MapFlags::ANON | MapFlags::PRIVATE;
        if has(MapFlags::GUARD) && (!has(reserves) || self.prot != 0) {
            return Err(invalid("a guard that is shared, of a file, or has rights"));
        }
        if has(MapFlags::ALIGN) {
            let good = self.addr == 0 || (self.addr.is_power_of_two() && self.addr >= PAGE_SIZE);
            if has(MapFlags::FIXED) || !good {
                return Err(invalid("an alignment that is none, or a fixed place"));
            }
        }
        Ok(())
    }
    /// The ceiling for later changes of protection.
    fn check_rights(&self, answers: &Answers, prot: Prot) -> Result<Prot, SysError> {
        if self.flags.contains(MapFlags::GUARD) {
            return Ok(Prot::empty());
        }
        let Some(file) = self.file else { return Ok(Prot::RWX) };
        self.check_offset(answers)?;
        let read_only = self.flags.contains(MapFlags::SHARED) && !file.writable;
        let max = if read_only { Prot::RX } else { Prot::RWX };
        if !file.readable || !max.contains(prot) {
            return Err(SysError::arg(MMAP, errno::EACCES, "the descriptor does not allow that"));
        }
        if !file.vnode.is_mappable() {
            return Err(SysError::arg(MMAP, errno::ENODEV, "the object cannot be mapped"));
        }
        Ok(max)
    }
    /// Where in the file. A length is a signed number here: what is negative passes no offset, and no user range is as long.
    fn check_offset(&self, answers: &Answers) -> Result<(), SysError> {
        if self.offset > MAX_OFFSET {
            return Err(SysError::arg(MMAP, answers.negative_offset, "a negative offset"));
        }
        let len = self.len.checked_next_multiple_of(PAGE_SIZE).filter(|len| *len <= MAX_OFFSET);
        if len.is_some_and(|len| len > MAX_OFFSET - self.offset) {
            return Err(SysError::arg(
                MMAP,
                errno::EOVERFLOW,
                "the mapping passes the largest offset",
            ));
        }
        Ok(())
    }
}

/// What is mapped, and what it is known by if it is to be locked in memory.
struct Marked<'a> {
    args: &'a SegVnArgs,
    mark: Option<Mark>,
}

impl SegCreate for Marked<'_> {
    fn create(&self, scx: &SegCx<'_>) -> Result<Box<dyn SegOps>, SegError> {
        self.args.create(scx)
    }
    fn may_merge(&self) -> bool {
        self.args.may_merge()
    }
    fn counts(&self) -> bool {
        self.args.counts()
    }
    fn mark(&self) -> Option<Mark> {
        self.mark
    }
}

fn exists() -> SysError {
    SysError::arg(MMAP, errno::EEXIST, "something is mapped there")
}

impl Process {
    /// Maps a file or anonymous memory and says where.
    ///
    /// A fixed mapping replaces what is there; when it then fails for want of swap or by its object, what was there is gone.
    /// Otherwise a hint is followed if there is room, and else the highest hole below the stack is taken.
    ///
    /// # Errors
    /// `EINVAL`, `EBADF`, `EACCES`, `ENODEV`, `ENOTSUP`, `ENXIO`, `EOVERFLOW` for arguments; `EEXIST`; `EPERM` for [`MapFlags::LOCKED`] without the privilege
    /// to lock memory; `ENOMEM` when there is no room or a limit is
    /// passed; `EAGAIN` when no swap can be reserved or the new memory cannot be locked.
    #[doc(alias("smmap", "choose_addr", "map_addr"))]
    pub fn mmap(&self, request: &MapRequest<'_>) -> Result<u64, SysError> {
        let space = self.space_now();
        let answers = self.answers();
        let anonymous = request.flags.contains(MapFlags::ANON);
        let file = request.file.filter(|_| !(anonymous && answers.ignores_descriptor));
        let request = &MapRequest { file, ..*request };
        let checked =
            request.check(answers, self.machine.db(), |range| self.is_taken(&space, range))?;
        let locked = request.flags.contains(MapFlags::LOCKED);
        if locked {
            self.may_lock(MMAP)?;
        }
        let vnode = request.file.map(|f| Arc::clone(&f.vnode) as Arc<dyn Vnode>);
        let args = SegVnArgs {
            driver: Arc::clone(self.machine.vn()),
            vnode,
            offset: FileOffset(if request.file.is_some() { request.offset } else { 0 }),
            prot: checked.prot,
            max_prot: checked.max_prot,
            kind: checked.kind,
            amp: None,
        };
        let linux = answers.locks_what_is_in;
        let kept = linux && (locked || space.state().lock_future());
        if kept && !self.may_lock_more(checked.len, &[]) {
            let what = "the limit lets no more memory be locked";
            return Err(SysError::arg(MMAP, errno::EAGAIN, what));
        }
        // What is mapped is locked when it is there, and is gone again if it cannot be; what others map there meanwhile is not.
        let mark = (locked || kept).then(|| space.new_mark());
        let args = Marked { args: &args, mark };
        let range = self.place(&space, request, &checked, &args)?;
        // The space is still the one that was begun with, whoever runs a program meanwhile.
        let eager = request.flags.contains(MapFlags::POPULATE);
        if eager && !linux {
            self.populate(range, checked.prot);
        }
        let lock = || {
            let done = mark.map_or(Ok(()), |mark| space.lock_marked(self.cx(), range, mark));
            done.map_err(|e| SysError::of(MMAP, e))
        };
        let mut done = if locked { lock() } else { Ok(()) };
        if done.is_ok() && (kept || (linux && eager)) {
            self.bring_in_what_can_be_had(range);
        }
        if done.is_ok() && kept {
            done = lock(); // also what was not there the first time
        }
        if let Some(mark) = mark {
            space.forget_mark(self.cx(), range, mark);
        }
        done.map(|()| range.start().get())
    }
    fn place(
        &self,
        space: &AddrSpace,
        request: &MapRequest<'_>,
        checked: &Checked,
        args: &dyn SegCreate,
    ) -> Result<VirtRange, SysError> {
        let cx = self.cx();
        if let Some(range) = checked.fixed {
            let excl = request.flags.contains(MapFlags::EXCL);
            self.place_fixed(space, range, excl, args)?;
            return Ok(range);
        }
        let claim = space.claim_range(cx).map_err(|e| SysError::of(MMAP, e))?;
        let align = if request.flags.contains(MapFlags::ALIGN) { request.addr } else { 0 };
        let hint = if align == 0 { request.addr & !PAGE_MASK } else { 0 };
        let at_hint = hint != 0 && hint <= USER_TOP - checked.len;
        let wanted = AddrRequest {
            len: checked.len,
            hint: VirtAddr::new(hint).ok().filter(|_| at_hint),
            window: Some(self.mapping_window()),
            align,
            spare: None,
        };
        claim.map_anywhere(&wanted, args).map_err(|e| SysError::of(MMAP, e))
    }
    /// Maps at `range`. Where nothing is in the way that needs no claim: whoever is choosing an address finds this one taken and chooses again.
    fn place_fixed(
        &self,
        space: &AddrSpace,
        range: VirtRange,
        excl: bool,
        args: &dyn SegCreate,
    ) -> Result<(), SysError> {
        match space.map(self.cx(), range, args) {
            Err(AsError::Overlap { .. }) if excl => return Err(exists()), // somebody else was faster
            Err(AsError::Overlap { .. }) => {}
            done => return done.map_err(|e| SysError::of(MMAP, e)),
        }
        let claim = space.claim_range(self.cx());
        let replaced = claim.and_then(|claim| claim.map_fixed(range, args));
        replaced.map_err(|e| SysError::of(MMAP, e))
    }
    /// Whether anything is mapped in `range`.
    fn is_taken(&self, space: &AddrSpace, range: VirtRange) -> bool {
        space.segs(self.cx()).in_the_way(self.cx(), range).is_some()
    }
    /// Where mappings without an address go: below the room that the stack may take.
    pub(super) fn mapping_window(&self) -> VirtRange {
        let room = self.stack_room();
        VirtRange::exact(PAGE_SIZE, room.start().get() - PAGE_SIZE)
            .expect("U2: the stack's room lies far above the first page")
    }
    /// Faults a range in, as far as it goes: a failure shows when the page is used.
    fn populate(&self, range: VirtRange, prot: Prot) {
        use page_db::Access;
        let access = if prot.contains(Prot::READ) { Access::Read } else { Access::Other };
        let _ = self.space_now().populate(self.cx(), range, access);
    }
    /// Anonymous private memory anywhere: the common case in one line.
    ///
    /// # Errors
    /// As [`Process::mmap`].
    pub fn map_anon(&self, len: u64) -> Result<u64, SysError> {
        let flags = MapFlags::PRIVATE | MapFlags::ANON;
        self.mmap(&MapRequest { addr: 0, len, prot: 3, flags, file: None, offset: 0 })
    }

    /// Removes whatever is mapped in `[addr, addr + len)`; nothing there is no error.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address, length 0, or a range outside the user's addresses; `ENOMEM` when a segment would have to be cut
    /// in two and there is no heap.
    pub fn munmap(&self, addr: u64, len: u64) -> Result<(), SysError> {
        const CALL: &str = "munmap";
        let wrong = |what| SysError::arg(CALL, errno::EINVAL, what);
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(wrong("the address is not on a page boundary"));
        }
        if len == 0 {
            return Err(wrong("the length is 0"));
        }
        if addr > USER_TOP || len > USER_TOP - addr {
            return Err(wrong("the range leaves the user's addresses"));
        }
        let range = VirtRange::covering(addr, len).map_err(|_| wrong("no range"))?;
        self.space_now().unmap(self.cx(), range).map_err(|e| SysError::of(CALL, e))
    }

    /// Changes the rights of `[addr, addr + len)`; what lies below a hole or a page that refuses is changed and stays so.
    ///
    /// # Errors
    /// `EINVAL` for a misaligned address or length 0, `ENOMEM` for holes and what is no user range, `ENOTSUP` for bits that mean
    /// nothing, `EACCES` above the ceiling, `EAGAIN` when no swap can be reserved.
    pub fn mprotect(&self, addr: u64, len: u64, prot: u32) -> Result<(), SysError> {
        const CALL: &str = "mprotect";
        let Some(range) = self.pages_of(CALL, addr, len)? else { return Ok(()) };
        let unknown = self.answers().unknown_rights;
        let prot = rights(prot)
            .ok_or_else(|| SysError::arg(CALL, unknown, "an unknown protection bit"))?;
        self.space_now().set_prot(self.cx(), range, prot).map_err(|e| SysError::of(CALL, e))
    }
}
