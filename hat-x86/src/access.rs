//! Running user code's accesses: the second trait of a backend.
//!
//! A program's load, store or fetch goes through what the processor remembers and what the tables say, and ends in a byte of a frame or in
//! a trap. An access lies within one page, as a processor splits its own; the helpers at the end cut longer ones at the
//! pages and report how far they came, which is what copying to and from user memory needs.
//!
//! - A1: while an access is under way a flush that takes its translation away waits for it, so no frame is used again under an access.
//!
//! Sources: live-backends notes, section 5; [SDM 3A §4.7].

use crate::mmu::SpaceId;
use crate::walker::{Mode, PageFault};
use core::fmt;
use page_db::{Access, CpuId, Cx, PAGE_SIZE, Pfn, VirtAddr};

/// The bytes of an access.
#[derive(Debug)]
pub enum Bytes<'a> {
    /// A load fills them.
    Load(&'a mut [u8]),
    /// A store takes them.
    Store(&'a [u8]),
    /// A fetch fills them.
    Fetch(&'a mut [u8]),
}

impl Bytes<'_> {
    /// What a page fault says was attempted.
    pub fn access(&self) -> Access {
        match self {
            Self::Load(_) => Access::Read,
            Self::Store(_) => Access::Write,
            Self::Fetch(_) => Access::Exec,
        }
    }
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Load(b) | Self::Fetch(b) => b.len(),
            Self::Store(b) => b.len(),
        }
    }
    /// Whether there are none; such an access touches nothing and cannot trap.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why an access did not happen. No byte was moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trap {
    /// The translation is absent or does not allow it: the address space is asked, and the access made again.
    #[error(transparent)]
    Page(#[from] PageFault),
    /// The translation leads to a frame that is no memory (a device nobody models).
    #[error("no memory behind {va}: frame {pfn}")]
    Bus {
        /// The address.
        va: VirtAddr,
        /// The frame.
        pfn: Pfn,
    },
    /// The bytes lie in two pages; see [`load`], [`store`], [`fetch`].
    #[error("{len} bytes at {va} cross a page boundary")]
    Crosses {
        /// First byte.
        va: VirtAddr,
        /// Length.
        len: usize,
    },
}

/// A backend that makes accesses one at a time.
pub trait UserAccess: fmt::Debug + Send + Sync {
    /// Makes an access within one page, on `cpu`, in the space that is active there.
    ///
    /// # Errors
    /// [`Trap`]; no byte was moved.
    fn access(
        &self,
        cx: &Cx,
        cpu: CpuId,
        mode: Mode,
        va: VirtAddr,
        bytes: Bytes<'_>,
    ) -> Result<(), Trap>;
    /// Whether `cpu` is known to run in `id`; where that cannot be told, the default, whoever asks activates it again.
    fn is_active(&self, cx: &Cx, cpu: CpuId, id: SpaceId) -> bool {
        let _ = (cx, cpu, id);
        false
    }
    /// A user's load within one page.
    ///
    /// # Errors
    /// [`Trap`]; no byte was moved.
    fn load(&self, cx: &Cx, cpu: CpuId, va: VirtAddr, buf: &mut [u8]) -> Result<(), Trap> {
        self.access(cx, cpu, Mode::User, va, Bytes::Load(buf))
    }
    /// A user's store within one page.
    ///
    /// # Errors
    /// [`Trap`]; no byte was moved.
    fn store(&self, cx: &Cx, cpu: CpuId, va: VirtAddr, bytes: &[u8]) -> Result<(), Trap> {
        self.access(cx, cpu, Mode::User, va, Bytes::Store(bytes))
    }
    /// A user's fetch within one page.
    ///
    /// # Errors
    /// [`Trap`]; no byte was moved.
    fn fetch(&self, cx: &Cx, cpu: CpuId, va: VirtAddr, buf: &mut [u8]) -> Result<(), Trap> {
        self.access(cx, cpu, Mode::User, va, Bytes::Fetch(buf))
    }
}

const _: Option<&dyn UserAccess> = None; // used as an object everywhere; stays one

/// An access over several pages that stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("stopped after {done} bytes: {trap}")]
pub struct Stopped {
    /// Bytes moved before the trap.
    pub done: usize,
    /// Why, at the page it stopped at.
    pub trap: Trap,
}

/// Length of the first piece of `len` bytes at `va`: up to the end of the page.
fn piece(va: VirtAddr, len: usize) -> usize {
    len.min((PAGE_SIZE - va.page_offset()) as usize)
}

/// Calls `f` with address, offset and length of each piece of `len` bytes at `va` that lies within a page.
fn split(
    va: VirtAddr,
    len: usize,
    access: Access,
    mut f: impl FnMut(VirtAddr, usize, usize) -> Result<(), Trap>,
) -> Result<(), Stopped> {
    let mut done = 0;
    while done < len {
        let stopped = |trap| Stopped { done, trap };
        // An address past the end of its half is as absent as any.
        let at = va.checked_add(done as u64).map_err(|_| {
            let why = crate::walker::PfError::empty();
            stopped(Trap::Page(PageFault::new(va, access, Mode::User, why)))
        })?;
        let n = piece(at, len - done);
        f(at, done, n).map_err(stopped)?;
        done += n;
    }
    Ok(())
}

/// Loads bytes of any length, page by page.
///
/// # Errors
/// [`Stopped`] with how many bytes were loaded; go on behind them once the trap is resolved.
pub fn load(
    by: &dyn UserAccess,
    cx: &Cx,
    cpu: CpuId,
    va: VirtAddr,
    buf: &mut [u8],
) -> Result<(), Stopped> {
    split(va, buf.len(), Access::Read, |at, from, n| by.load(cx, cpu, at, &mut buf[from..from + n]))
}

/// Stores bytes of any length, page by page.
///
/// # Errors
/// [`Stopped`] with how many bytes were stored.
pub fn store(
    by: &dyn UserAccess,
    cx: &Cx,
    cpu: CpuId,
    va: VirtAddr,
    bytes: &[u8],
) -> Result<(), Stopped> {
    split(va, bytes.len(), Access::Write, |at, from, n| {
        by.store(cx, cpu, at, &bytes[from..from + n])
    })
}

/// Fetches bytes of any length, page by page.
///
/// # Errors
/// [`Stopped`] with how many bytes were fetched.
pub fn fetch(
    by: &dyn UserAccess,
    cx: &Cx,
    cpu: CpuId,
    va: VirtAddr,
    buf: &mut [u8],
) -> Result<(), Stopped> {
    split(va, buf.len(), Access::Exec, |at, from, n| {
        by.fetch(cx, cpu, at, &mut buf[from..from + n])
    })
}
