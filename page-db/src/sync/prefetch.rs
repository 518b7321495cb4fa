//! Telling the processor which line will be needed next.
//!
//! A hint and nothing else: no value is read, nothing is written, no fault is taken, and on other architectures nothing happens at all.

#![allow(unsafe_code, reason = "a prefetch is an instruction")]

/// Bytes of a cache line.
const LINE: usize = 64;

/// Starts to fetch the first line of `what` for reading.
#[inline]
pub fn prefetch_read<T: ?Sized>(what: &T) {
    fetch(core::ptr::from_ref(what).cast());
}

/// Starts to fetch every line of `what` for reading; meant for what spans a few.
#[inline]
pub fn prefetch_all<T: ?Sized>(what: &T) {
    let (first, size) = (core::ptr::from_ref(what).cast::<u8>(), size_of_val(what));
    (0..size).step_by(LINE).for_each(|at| fetch(first.wrapping_add(at)));
    fetch(first.wrapping_add(size.saturating_sub(1)));
}

#[inline]
fn fetch(line: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch of any address has no effect that a program can see.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    let _ = line;
}

/// Starts to fetch the first line of `what` for writing: it comes as this processor's own. (The instruction by name: the intrinsic turns
/// into a fetch for reading where the target's features do not promise the other, and every 64-bit processor runs or ignores it.)
#[inline]
pub fn prefetch_write<T: ?Sized>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) core::ptr::from_ref(what).cast::<u8>(), options(nostack, preserves_flags, readonly));
    }
    let _ = what;
}
