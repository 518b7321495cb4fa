//! A table that grows and never moves: entries reached by index, made in blocks of doubling size.
//!
//! ```text
//!   index 0..64 ─▶ bucket 0    64..192 ─▶ bucket 1 (128)    192.. ─▶ bucket 2 (256) ...
//! ```
//!
//! Reading writes nothing and takes no lock; an entry once made stays where it is.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::Once;

/// log2 of the first bucket's size.
const FIRST: u32 = 6;
/// Buckets that cover every `u32`.
const BUCKETS: usize = 27;

/// The table.
pub(crate) struct Table<T> {
    buckets: [Once<Box<[T]>>; BUCKETS],
}

impl<T: Default> Table<T> {
    pub(crate) fn new() -> Self {
        Self { buckets: core::array::from_fn(|_| Once::new()) }
    }
    fn locate(index: u32) -> (usize, usize) {
        let x = u64::from(index) + (1 << FIRST);
        let top = 63 - x.leading_zeros();
        ((top - FIRST) as usize, (x - (1 << top)) as usize)
    }
    /// The entry, if its bucket exists.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let (b, i) = Self::locate(index);
        self.buckets[b].get().map(|bucket| &bucket[i])
    }
    /// The entry, made with its bucket if need be; `None` when the heap refuses.
    pub(crate) fn ensure(&self, index: u32) -> Option<&T> {
        let (b, i) = Self::locate(index);
        if self.buckets[b].get().is_none() {
            let bucket = filled(1usize.checked_shl(b as u32 + FIRST)?)?;
            let _ = self.buckets[b].set(bucket); // somebody else's is as good
        }
        self.buckets[b].get().map(|bucket| &bucket[i])
    }
}

/// `n` default values, or `None` when the heap refuses.
pub(crate) fn filled<T: Default>(n: usize) -> Option<Box<[T]>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).ok()?;
    v.resize_with(n, T::default);
    Some(v.into_boxed_slice())
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}
