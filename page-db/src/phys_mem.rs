//! The bytes of frames, reached without slices.
//!
//! Simulated users store into pages while the system copies them, as real ones do. Rust has no slice for memory that
//! another thread writes, so contents move through this trait: whole frames by an opaque copy, parts by atomic loads and
//! stores, and words that hardware walks as `&AtomicU64`.
//!
//! - M1: every access stays inside `[base, base + frames)`; a frame number outside is a bug of ours and panics.
//! - M2: contents are bytes of initialised memory at all times (frames start as zeros).
//! - M3: frames that lie side by side ([`PhysMem::side_by_side`]) are asked for once, at boot: a look at a word of a page table, of which a
//!   translation or a fault needs one, is then a few instructions instead of a call through the trait.

#![allow(unsafe_code, reason = "frame memory is shared with simulated users")]

use crate::sync::atomic::AtomicU64;
use crate::units::{PAGE_SIZE, Pfn};
use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;

/// Physical memory.
#[doc(alias("seg_kpm", "pagezero", "ppcopy"))]
pub trait PhysMem: fmt::Debug + Send + Sync {
    /// The first frame.
    fn base(&self) -> Pfn;
    /// How many frames there are from it on.
    fn frames(&self) -> u64;
    /// Whether a frame is memory to be handed out. Not all in between need be: holes for devices, what the firmware and the loader keep, the kernel itself. Asked
    /// for each frame by [`crate::PageDb::new`], and later of those that a device has; the answer stays. The contents of others are never asked for.
    #[doc(alias("pf_is_memory", "memlist", "phys_install"))]
    fn is_memory(&self, pfn: Pfn) -> bool {
        let _ = pfn;
        true
    }
    /// Whether `pfn` is a frame of this memory, and no hole in it: whether it has contents to ask for.
    fn has(&self, pfn: Pfn) -> bool {
        let inside = pfn.0.checked_sub(self.base().0).is_some_and(|i| i < self.frames());
        inside && self.is_memory(pfn)
    }
    /// Sets a frame to zeros.
    fn zero(&self, pfn: Pfn);
    /// Copies a whole frame.
    fn copy(&self, from: Pfn, to: Pfn);
    /// Reads bytes of one frame; `offset + buf.len()` stays within it.
    fn read(&self, pfn: Pfn, offset: usize, buf: &mut [u8]);
    /// Writes bytes of one frame; `offset + bytes.len()` stays within it.
    fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]);
    /// The 64-bit words of a frame: for loops over them, which ask for the frame once.
    fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS];
    /// All frames in order, if they lie side by side in the host's memory.
    fn side_by_side(&self) -> Option<&[[AtomicU64; WORDS]]> {
        None
    }
    /// The 64-bit word `index` (0..512) of a frame.
    fn u64_at(&self, pfn: Pfn, index: usize) -> &AtomicU64 {
        &self.words(pfn)[index]
    }
}

const _: Option<&dyn PhysMem> = None; // used as an object everywhere; stays one

const PAGE: usize = PAGE_SIZE as usize;
/// 64-bit words of a frame.
pub const WORDS: usize = PAGE / 8;

/// Memory, and the short way to the words of its frames (M3).
pub(crate) struct Memory {
    mem: Arc<dyn PhysMem>,
    base: Pfn,
    /// The frames, or none where they do not lie side by side.
    frames: NonNull<[[AtomicU64; WORDS]]>,
}

// SAFETY: `frames` is a shared reference to atomics in all but its lifetime, which is that of `mem` beside it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(mem: Arc<dyn PhysMem>) -> Self {
        let frames = NonNull::from(mem.side_by_side().unwrap_or(&[]));
        Self { base: mem.base(), frames, mem }
    }
    /// All of it.
    #[inline]
    pub(crate) fn all(&self) -> &dyn PhysMem {
        &*self.mem
    }
    #[inline]
    fn frames(&self) -> &[[AtomicU64; WORDS]] {
        // SAFETY: borrowed in `new` from what `mem` points to, which neither moves nor goes nor is reached by `&mut` while `mem` holds it.
        unsafe { self.frames.as_ref() }
    }
    /// The words of a frame.
    #[inline]
    pub(crate) fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS] {
        let at = pfn.0.wrapping_sub(self.base.0);
        let found = usize::try_from(at).ok().and_then(|at| self.frames().get(at));
        found.unwrap_or_else(|| self.mem.words(pfn))
    }
}

#[repr(C, align(4096))]
struct Frame([AtomicU64; WORDS]);

/// Frames that lie side by side on the host's heap.
///
/// A heap asked for zeroed memory gives fresh pages of the host, which cost nothing until they are touched; asked for zeroed memory of a large alignment it
/// takes any and writes all of it. So what is asked for is a frame more than needed, of no alignment, and the frames begin where the first one fits.
struct HostFrames {
    /// What the heap gave.
    raw: NonNull<u8>,
    layout: core::alloc::Layout,
    first: NonNull<Frame>,
    n: usize,
}

// SAFETY: owns its memory, which is reached as atomics only.
unsafe impl Send for HostFrames {}
// SAFETY: as above.
unsafe impl Sync for HostFrames {}

impl HostFrames {
    /// `n` frames of zeros, or none when the heap refuses or `n` is 0.
    fn new(n: usize) -> Option<Self> {
        let room = n.checked_add(1)?.checked_mul(size_of::<Frame>())?;
        let layout = core::alloc::Layout::from_size_align(room, align_of::<usize>()).ok()?;
        if n == 0 {
            return None;
        }
        // SAFETY: the layout is not empty: it has room for a frame.
        let raw = NonNull::new(unsafe { alloc::alloc::alloc_zeroed(layout) })?;
        let skipped = raw.align_offset(align_of::<Frame>());
        assert!(skipped <= size_of::<Frame>(), "an address of bytes can be aligned");
        // SAFETY: what is skipped is less than the frame that was asked for on top.
        let first = unsafe { raw.add(skipped) }.cast();
        Some(Self { raw, layout, first, n })
    }
}

impl core::ops::Deref for HostFrames {
    type Target = [Frame];
    #[inline]
    fn deref(&self) -> &[Frame] {
        // SAFETY: `n` frames from `first` were allocated in `new` and live as long as this does; zeros are valid atomics (M2).
        unsafe { core::slice::from_raw_parts(self.first.as_ptr(), self.n) }
    }
}

impl Drop for HostFrames {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; atomics have nothing to drop.
        unsafe { alloc::alloc::dealloc(self.raw.as_ptr(), self.layout) }
    }
}

/// Frames on the host's heap. Those that are never touched cost the host nothing, where its heap hands out zeroed memory lazily.
pub struct HostMem {
    base: Pfn,
    frames: HostFrames,
}

impl HostMem {
    /// `frames` zeroed frames, numbered from `base`.
    ///
    /// # Errors
    /// [`NoHostMemory`] when the host's heap refuses, or none are asked for.
    pub fn new(base: Pfn, frames: u64) -> Result<Self, NoHostMemory> {
        let refused = NoHostMemory { frames };
        let n = usize::try_from(frames).map_err(|_| refused)?;
        Ok(Self { base, frames: HostFrames::new(n).ok_or(refused)? })
    }
    fn frame(&self, pfn: Pfn) -> &Frame {
        &self.frames[(pfn.0 - self.base.0) as usize]
    }
    /// The frame's words, once an access to `len` bytes at `offset` is known to stay inside (M1).
    fn part(&self, pfn: Pfn, offset: usize, len: usize) -> &[AtomicU64; WORDS] {
        assert!(offset <= PAGE && len <= PAGE - offset, "M1: an access stays inside its frame");
        &self.frame(pfn).0
    }
}

/// The host's heap refused the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no host memory for {frames} frames")]
pub struct NoHostMemory {
    /// Frames asked for.
    pub frames: u64,
}

impl fmt::Debug for HostMem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMem")
            .field("base", &self.base)
            .field("frames", &self.frames.len())
            .finish()
    }
}

impl PhysMem for HostMem {
    fn base(&self) -> Pfn {
        self.base
    }
    fn frames(&self) -> u64 {
        self.frames.len() as u64
    }
    #[inline]
    fn zero(&self, pfn: Pfn) {
        bulk::zero(&self.frame(pfn).0);
    }
    #[inline]
    fn copy(&self, from: Pfn, to: Pfn) {
        bulk::copy(&self.frame(from).0, &self.frame(to).0);
    }
    fn read(&self, pfn: Pfn, offset: usize, buf: &mut [u8]) {
        bulk::load(self.part(pfn, offset, buf.len()), offset, buf);
    }
    fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) {
        bulk::store(self.part(pfn, offset, bytes.len()), offset, bytes);
    }
    #[inline]
    fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS] {
        &self.frame(pfn).0
    }
    fn side_by_side(&self) -> Option<&[[AtomicU64; WORDS]]> {
        let first = self.frames.as_ptr().cast::<[AtomicU64; WORDS]>();
        // SAFETY: a frame is its words and nothing else, by its representation and its size, which its alignment divides.
        Some(unsafe { core::slice::from_raw_parts(first, self.frames.len()) })
    }
    #[inline]
    fn u64_at(&self, pfn: Pfn, index: usize) -> &AtomicU64 {
        &self.frame(pfn).0[index]
    }
}

/// Bulk moves. On x86-64 they are string instructions, opaque to the compiler, so a store by a simulated user meanwhile is a race in
/// the machine's terms (some bytes old, some new), not in Rust's. Elsewhere, and under Miri, they are loops of atomics.
#[cfg(all(target_arch = "x86_64", not(miri), not(shuttle)))]
mod bulk {
    use super::{AtomicU64, WORDS};
    use core::arch::asm;

    pub(super) fn zero(to: &[AtomicU64; WORDS]) {
        // SAFETY: writes PAGE bytes at `to`, which is PAGE bytes of atomics (interior mutability) and 8-aligned; direction flag is clear by ABI.
        unsafe {
            asm!("rep stosq", inout("rcx") WORDS => _, inout("rdi") to.as_ptr() => _, in("rax") 0u64,
                 options(nostack, preserves_flags));
        }
    }
    pub(super) fn copy(from: &[AtomicU64; WORDS], to: &[AtomicU64; WORDS]) {
        // SAFETY: reads and writes PAGE bytes of atomics; the frames are distinct or identical, both fine for a forward copy.
        unsafe {
            asm!("rep movsq", inout("rcx") WORDS => _, inout("rdi") to.as_ptr() => _, inout("rsi") from.as_ptr() => _,
                 options(nostack, preserves_flags));
        }
    }
    /// The caller checked that `offset + buf.len()` stays within the frame.
    pub(super) fn load(from: &[AtomicU64; WORDS], offset: usize, buf: &mut [u8]) {
        let from = from.as_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: `from` has buf.len() bytes inside one frame (M1, checked by the caller); `buf` is exclusive.
        unsafe {
            asm!("rep movsb", inout("rcx") buf.len() => _, inout("rdi") buf.as_mut_ptr() => _, inout("rsi") from => _,
                 options(nostack, preserves_flags));
        }
    }
    /// The caller checked that `offset + bytes.len()` stays within the frame.
    pub(super) fn store(to: &[AtomicU64; WORDS], offset: usize, bytes: &[u8]) {
        let to = to.as_ptr().cast::<u8>().wrapping_add(offset);
        // SAFETY: `to` has bytes.len() bytes inside one frame of atomics (M1, checked by the caller); `bytes` is readable.
        unsafe {
            asm!("rep movsb", inout("rcx") bytes.len() => _, inout("rdi") to => _, inout("rsi") bytes.as_ptr() => _,
                 options(nostack, preserves_flags));
        }
    }
}

/// Words only: an access to part of a word reads it whole, and replaces the part by compare-and-swap, so that no access of
/// another size ever meets these and a neighbour's bytes are never written back old. Where schedules are explored, another thread may
/// run between the parts of a frame: two are enough to tear a copy.
#[cfg(not(all(target_arch = "x86_64", not(miri), not(shuttle))))]
mod bulk {
    use super::{AtomicU64, WORDS};
    use crate::sync::atomic::{Ordering::Relaxed, plain, point};

    const PART: usize = WORDS / 2;

    pub(super) fn zero(to: &[AtomicU64; WORDS]) {
        for part in to.chunks(PART) {
            point();
            part.iter().for_each(|w| plain(w).store(0, Relaxed));
        }
    }
    pub(super) fn copy(from: &[AtomicU64; WORDS], to: &[AtomicU64; WORDS]) {
        for (to, from) in to.chunks(PART).zip(from.chunks(PART)) {
            point();
            to.iter().zip(from).for_each(|(t, f)| plain(t).store(plain(f).load(Relaxed), Relaxed));
        }
    }
    /// The words that `len` bytes at `offset` touch: index, first byte in the word, number of bytes.
    fn words(mut offset: usize, mut len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        core::iter::from_fn(move || {
            let (word, at) = (offset / 8, offset % 8);
            let n = len.min(8 - at);
            (offset, len) = (offset + n, len - n);
            (n != 0).then_some((word, at, n))
        })
    }
    pub(super) fn load(from: &[AtomicU64; WORDS], offset: usize, mut buf: &mut [u8]) {
        for (word, at, n) in words(offset, buf.len()) {
            let bytes = from[word].load(Relaxed).to_ne_bytes();
            let (part, rest) = buf.split_at_mut(n);
            part.copy_from_slice(&bytes[at..at + n]);
            buf = rest;
        }
    }
    pub(super) fn store(to: &[AtomicU64; WORDS], offset: usize, mut bytes: &[u8]) {
        for (word, at, n) in words(offset, bytes.len()) {
            let (part, rest) = bytes.split_at(n);
            let mut old = to[word].load(Relaxed);
            loop {
                let mut new = old.to_ne_bytes();
                new[at..at + n].copy_from_slice(part);
                let new = u64::from_ne_bytes(new);
                match to[word].compare_exchange(old, new, Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(now) => old = now,
                }
            }
            bytes = rest;
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_in_and_come_out() {
        let m = HostMem::new(Pfn(16), 3).expect("heap");
        m.write(Pfn(17), 4090, b"abcdef");
        m.copy(Pfn(17), Pfn(18));
        let mut b = [0; 6];
        m.read(Pfn(18), 4090, &mut b);
        assert_eq!(&b, b"abcdef");
        m.zero(Pfn(18));
        m.read(Pfn(18), 4090, &mut b);
        assert_eq!(b, [0; 6]);
        m.u64_at(Pfn(16), 511).store(7, core::sync::atomic::Ordering::Relaxed);
        m.read(Pfn(16), 4088, &mut b);
        assert_eq!(b[0], 7);
    }

    #[test]
    fn parts_of_any_alignment_move_alone() {
        let m = HostMem::new(Pfn(0), 1).expect("heap");
        for offset in [0, 1, 7, 8, 13, 4070] {
            for len in [0, 1, 3, 8, 9, 20] {
                m.zero(Pfn(0));
                m.write(Pfn(0), 0, &[0xee; PAGE]);
                let bytes: alloc::vec::Vec<u8> = (1..=len as u8).collect();
                m.write(Pfn(0), offset, &bytes);
                let mut all = [0; PAGE];
                m.read(Pfn(0), 0, &mut all);
                assert!(all[..offset].iter().chain(&all[offset + len..]).all(|b| *b == 0xee));
                assert_eq!(all[offset..offset + len], bytes);
                let mut part = alloc::vec![0; len];
                m.read(Pfn(0), offset, &mut part);
                assert_eq!(part, bytes);
            }
        }
    }

    #[test]
    fn the_short_way_leads_to_the_same_words() {
        let memory = Memory::new(Arc::new(HostMem::new(Pfn(16), 3).expect("heap")));
        for pfn in (16..19).map(Pfn) {
            assert!(core::ptr::eq(memory.words(pfn), memory.all().words(pfn)), "M3");
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn there_is_no_short_way_outside() {
        Memory::new(Arc::new(HostMem::new(Pfn(16), 3).expect("heap"))).words(Pfn(19));
    }

    #[test]
    #[should_panic(expected = "M1")]
    fn an_access_that_wraps_is_refused() {
        HostMem::new(Pfn(0), 1).expect("heap").write(Pfn(0), usize::MAX, &[1, 2]);
    }

    /// Frames begin at a multiple of their size, wherever the heap's memory does.
    #[test]
    fn frames_are_aligned() {
        for n in 1..20 {
            let memory = HostMem::new(Pfn(0), n).expect("heap");
            let last = Pfn(n - 1);
            memory.write(last, PAGE - 1, &[7]);
            for pfn in (0..n).map(Pfn) {
                assert!(memory.words(pfn).as_ptr().addr().is_multiple_of(PAGE), "{n} {pfn:?}");
            }
            let mut byte = [0];
            memory.read(last, PAGE - 1, &mut byte);
            assert_eq!(byte, [7], "{n}");
        }
    }

    #[test]
    fn no_frames_is_an_error() {
        assert!(HostMem::new(Pfn(0), 0).is_err());
        assert!(HostMem::new(Pfn(0), u64::MAX / 2).is_err());
    }
}
