//! `memcntl`: one call for what `msync`, `madvise`, `mlock` and `mlockall` are part of, with its numbers.
//!
//! ```text
//!   command            arg                          attr     address and length
//!   MC_SYNC            MS_ASYNC 1 | MS_INVALIDATE 2  yes      whole pages
//!                      | MS_SYNC 4; 0 is MS_SYNC
//!   MC_LOCK, _UNLOCK   0                            yes      whole pages
//!   MC_LOCKAS          MCL_CURRENT 1 | _FUTURE 2    yes      0 and 0
//!   MC_UNLOCKAS        0                            yes      0 and 0
//!   MC_ADVISE          MADV_*                       DONTNEED whole pages
//!   MC_HAT_ADVISE      address of a memcntl_mha     0        whole pages; 0 and 0 for stack and break
//!   MC_INHERIT_ZERO    0                            0        whole pages
//! ```
//!
//! `attr` selects pages: `SHARED` ones, or private ones where that bit lacks, and of those the ones whose rights are exactly the bits `PROT_*` in it. `attr` 0
//! selects all. Of the advices `MADV_DONTNEED` alone, which is a sync, asks for it. A right to store or to execute brings the right to load along, as it does for mappings. Arguments are checked in this order:
//! alignment and length, mask, `attr`, the privilege, the argument; and then the address space is asked, which knows the range.
//!
//! Sources: illumos `syscall/memcntl.c` (behaviour), memcntl(2); illumos.md 3.8.

use super::mmap::rights;
use super::process::{Process, user_pages, user_range};
use super::{MemAdvice, SysError};
use addr_space::{Advice, LockAll, Selection, SyncFlags};
use page_db::{PAGE_SIZE, errno};

const CALL: &str = "memcntl";

/// A command of [`Process::memcntl`], with illumos's number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub enum MemCommand {
    /// Write dirty pages back.
    #[doc(alias = "MC_SYNC")]
    Sync = 1,
    /// Lock pages.
    #[doc(alias = "MC_LOCK")]
    Lock = 2,
    /// Unlock pages.
    #[doc(alias = "MC_UNLOCK")]
    Unlock = 3,
    /// Advice.
    #[doc(alias = "MC_ADVISE")]
    Advise = 4,
    /// Lock everything.
    #[doc(alias = "MC_LOCKAS")]
    LockAll = 5,
    /// Unlock everything.
    #[doc(alias = "MC_UNLOCKAS")]
    UnlockAll = 6,
    /// Advice about page sizes.
    #[doc(alias = "MC_HAT_ADVISE")]
    HatAdvise = 7,
    /// Zeros for a child of fork.
    #[doc(alias = "MC_INHERIT_ZERO")]
    InheritZero = 8,
}

impl MemCommand {
    /// The command of a number.
    pub fn from_number(n: u32) -> Option<Self> {
        let all = [
            Self::Sync,
            Self::Lock,
            Self::Unlock,
            Self::Advise,
            Self::LockAll,
            Self::UnlockAll,
            Self::HatAdvise,
            Self::InheritZero,
        ];
        all.into_iter().find(|c| *c as u32 == n)
    }
    fn locks(self) -> bool {
        matches!(self, Self::Lock | Self::Unlock | Self::LockAll | Self::UnlockAll)
    }
    fn of_all(self) -> bool {
        matches!(self, Self::LockAll | Self::UnlockAll)
    }
}

bitflags::bitflags! {
    /// Which pages [`Process::memcntl`] means, with illumos's values; none of them: all.
    #[doc(alias("attr", "PROC_TEXT", "PROC_DATA"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MemAttr: u32 {
        /// Pages that can be loaded.
        const READ = 0x1;
        /// Pages that can be stored to.
        const WRITE = 0x2;
        /// Pages that can be executed.
        const EXEC = 0x4;
        /// Of shared mappings.
        const SHARED = 0x10;
        /// Of private mappings.
        const PRIVATE = 0x20;
        /// A program's text.
        const PROC_TEXT = 0x20 | 0x1 | 0x4;
        /// A program's data.
        const PROC_DATA = 0x20 | 0x2;
    }
}

/// What one call of [`Process::memcntl`] says; all numbers as a program hands them over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemCall {
    /// The first address.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// The command's number ([`MemCommand`]).
    pub command: u32,
    /// The command's argument.
    pub arg: u64,
    /// Which pages ([`MemAttr`]).
    pub attr: u32,
    /// Of no use yet; 0.
    pub mask: u32,
}

/// What page size is advised for.
#[doc(alias = "struct memcntl_mha")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HatAdvice {
    /// A range of addresses.
    #[doc(alias = "MHA_MAPSIZE_VA")]
    Range,
    /// The break, now and as it grows.
    #[doc(alias = "MHA_MAPSIZE_BSSBRK")]
    Break,
    /// The stack, now and as it grows.
    #[doc(alias = "MHA_MAPSIZE_STACK")]
    Stack,
}

fn wrong(what: &'static str) -> SysError {
    SysError::arg(CALL, errno::EINVAL, what)
}

/// `attr` as a selection; `None` selects all.
fn selection(attr: u32) -> Result<Option<Selection>, SysError> {
    let attr = MemAttr::from_bits(attr).ok_or_else(|| wrong("an unknown bit of selection"))?;
    if attr.contains(MemAttr::SHARED | MemAttr::PRIVATE) {
        return Err(wrong("pages that are shared and private"));
    }
    if attr.is_empty() {
        return Ok(None);
    }
    let bits = (attr - MemAttr::SHARED - MemAttr::PRIVATE).bits();
    let prot = rights(bits).ok_or_else(|| wrong("an unknown bit of selection"))?;
    Ok(Some(Selection { shared: attr.contains(MemAttr::SHARED), prot }))
}

impl Process {
    /// Controls memory: see the module's table for what each command takes.
    ///
    /// # Errors
    /// `EINVAL` for wrong arguments, `EPERM` without the privilege to lock, `EFAULT` for a structure that cannot be read, and what the calls say that do
    /// the same by their own names.
    #[doc(alias("mctl", "as_ctl"))]
    pub fn memcntl(&self, call: &MemCall) -> Result<(), SysError> {
        let named = |e: SysError| SysError { call: CALL, ..e };
        let command = MemCommand::from_number(call.command);
        let of_all = command.is_some_and(MemCommand::of_all);
        if of_all {
            if call.addr != 0 || call.len != 0 {
                return Err(wrong("a range for what concerns everything"));
            }
        } else if !call.addr.is_multiple_of(PAGE_SIZE) {
            return Err(wrong("the address is not on a page boundary"));
        } else if call.len == 0 && command != Some(MemCommand::HatAdvise) {
            return Err(wrong("the length is 0"));
        }
        if call.mask != 0 {
            return Err(wrong("a mask"));
        }
        let meant = selection(call.attr)?;
        let command = command.ok_or_else(|| wrong("an unknown command"))?;
        if command.locks() {
            self.may_lock(CALL)?;
        }
        match command {
            MemCommand::Sync => self.sync_meant(call, meant),
            MemCommand::Lock | MemCommand::Unlock | MemCommand::UnlockAll if call.arg != 0 => {
                Err(wrong("an argument where there is none"))
            }
            MemCommand::Lock => {
                let range = user_pages(CALL, call.addr, call.len)?;
                let done = self.space_now().lock_meant(self.cx(), range, meant);
                done.map_err(|e| SysError::of(CALL, e))
            }
            MemCommand::Unlock => {
                let range = user_pages(CALL, call.addr, call.len)?;
                let done = self.space_now().unlock_meant(self.cx(), range, meant);
                done.map_err(|e| SysError::of(CALL, e))
            }
            MemCommand::Advise => {
                let advice = advice_of(call.arg).ok_or_else(|| wrong("an unknown advice"))?;
                if advice == MemAdvice::DontNeed && !self.answers().dontneed_discards {
                    return self.dont_need_meant(call, meant);
                }
                self.madvise(call.addr, call.len, advice).map_err(named)
            }
            MemCommand::LockAll => {
                let what = u8::try_from(call.arg).ok().and_then(LockAll::from_bits);
                let what = what.filter(|what| !what.is_empty());
                let what = what.ok_or_else(|| wrong("neither current nor future memory"))?;
                let done = self.space_now().lock_all_meant(self.cx(), what, meant);
                done.map_err(|e| SysError::of(CALL, e))
            }
            MemCommand::UnlockAll => {
                let done = self.space_now().unlock_all_meant(self.cx(), meant);
                done.map_err(|e| SysError::of(CALL, e))
            }
            MemCommand::HatAdvise if call.attr != 0 => Err(wrong("a selection for page sizes")),
            MemCommand::HatAdvise => {
                let (what, size) = self.read_hat_advice(call.arg)?;
                self.hat_advise(call.addr, call.len, what, size)
            }
            MemCommand::InheritZero if call.attr != 0 || call.arg != 0 => {
                Err(wrong("a selection or an argument where there is none"))
            }
            MemCommand::InheritZero => {
                self.madvise(call.addr, call.len, MemAdvice::InheritZero).map_err(named)
            }
        }
    }
    fn sync_meant(&self, call: &MemCall, meant: Option<Selection>) -> Result<(), SysError> {
        let flags = u8::try_from(call.arg).ok().and_then(SyncFlags::from_bits);
        let flags = flags.filter(|flags| !flags.contains(SyncFlags::SYNC | SyncFlags::ASYNC));
        let flags = flags.ok_or_else(|| wrong("unknown flags, or both ways at once"))?;
        let range = user_pages(CALL, call.addr, call.len)?;
        let done = self.space_now().sync_meant(self.cx(), range, flags, meant);
        done.map_err(|e| SysError::of(CALL, e))
    }
    /// What `MADV_DONTNEED` is: pages go to where they belong, and leave memory.
    fn dont_need_meant(&self, call: &MemCall, meant: Option<Selection>) -> Result<(), SysError> {
        let range = user_pages(CALL, call.addr, call.len)?;
        let flags = SyncFlags::ASYNC | SyncFlags::INVALIDATE;
        let done = self.space_now().sync_meant(self.cx(), range, flags, meant);
        done.map_err(|e| SysError::of(CALL, e))
    }
    /// The structure that `MC_HAT_ADVISE` points to: a command, flags that must be 0, a page size.
    fn read_hat_advice(&self, at: u64) -> Result<(HatAdvice, u64), SysError> {
        let mut bytes = [0; 16];
        self.copyin(at, &mut bytes).map_err(|e| SysError { call: CALL, ..e })?;
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let what = match word(0) {
            1 => HatAdvice::Range,
            2 => HatAdvice::Break,
            4 => HatAdvice::Stack,
            _ => return Err(wrong("an unknown command about page sizes")),
        };
        if word(4) != 0 {
            return Err(wrong("flags about page sizes"));
        }
        Ok((what, u64::from(word(8)) | u64::from(word(12)) << 32))
    }
    /// Prefers a page size, which there is one of: 4096, or 0 for the system's choice.
    ///
    /// # Errors
    /// `EINVAL` for a size that is none, a range that is not whole pages, or a range where none belongs; `ENOMEM` for holes and what is no user range.
    #[doc(alias = "MC_HAT_ADVISE")]
    pub fn hat_advise(
        &self,
        addr: u64,
        len: u64,
        what: HatAdvice,
        size: u64,
    ) -> Result<(), SysError> {
        if size != 0 && size != PAGE_SIZE {
            return Err(wrong("no such page size"));
        }
        if what != HatAdvice::Range {
            let nowhere = addr == 0 && len == 0;
            return if nowhere { Ok(()) } else { Err(wrong("a range for the break or the stack")) };
        }
        if !addr.is_multiple_of(PAGE_SIZE) || !len.is_multiple_of(PAGE_SIZE) || len == 0 {
            return Err(wrong("not whole pages"));
        }
        let range = user_range(CALL, addr, len)?;
        self.space_now().set_page_size(self.cx(), range, 0).map_err(|e| SysError::of(CALL, e))
    }
}

/// `MADV_*` by number.
fn advice_of(n: u64) -> Option<MemAdvice> {
    Some(match n {
        0 => MemAdvice::Use(Advice::Normal),
        1 => MemAdvice::Use(Advice::Random),
        2 => MemAdvice::Use(Advice::Sequential),
        3 => MemAdvice::WillNeed,
        4 => MemAdvice::DontNeed,
        5 => MemAdvice::Use(Advice::Free),
        6 => MemAdvice::Use(Advice::AccessDefault),
        7 => MemAdvice::Use(Advice::AccessLwp),
        8 => MemAdvice::Use(Advice::AccessMany),
        9 => MemAdvice::Use(Advice::Purge),
        _ => return None,
    })
}

#[cfg(test)]
#[path = "memcntl_tests.rs"]
mod tests;
