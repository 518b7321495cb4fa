//! Telling the processor which line will be written next.

#![allow(unsafe_code, reason = "the instruction is an intrinsic")]

/// Starts to fetch the first line of `what` for writing. A hint: it reads nothing, writes nothing and cannot fault.
#[inline]
pub fn prefetch_write<T: ?Sized>(what: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: a prefetch of any address is a hint without effect on memory; the instruction is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(core::ptr::from_ref(what).cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = what;
}
