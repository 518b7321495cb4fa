//! A table that grows and never moves: entries reached by index, made in buckets of doubling size.
//!
//! ```text
//!   index 0..64 ─▶ bucket 0    64..192 ─▶ bucket 1 (128)    192.. ─▶ bucket 2 (256) ...      FIRST = 6
//! ```
//!
//! Reading writes nothing, takes no lock and asks one pointer; an entry once made stays where it is until the table goes. Every fault
//! looks up half a dozen records by number, so what a lookup costs is one bit scan, one load and one comparison: the bucket's length follows from
//! its place and is not read.
//!
//! - T1: a bucket's pointer is null or leads to as many entries as its place says, and never changes again.

#![allow(unsafe_code, reason = "this file is a table read without a lock")]

use crate::heap;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering};

/// Lets `list`, which a lock guards, hold `need` entries without asking the heap: as it is, or with the `room` that was made for it with nothing locked, which
/// then has the list's old room.
///
/// # Errors
/// How much room is to be made; the caller unlocks, makes it, and comes again.
pub fn give_room<T>(list: &mut Vec<T>, room: &mut Vec<T>, need: usize) -> Result<(), usize> {
    if list.capacity() < need {
        if room.capacity() < need {
            return Err(need.checked_next_power_of_two().unwrap_or(need).max(4));
        }
        room.append(list); // empty, and large enough
        core::mem::swap(list, room);
    }
    Ok(())
}

/// Buckets that cover every `u32` whatever the size of the first.
const BUCKETS: usize = 33;

/// The table; its first bucket has `1 << FIRST` entries.
pub struct GrowTable<T, const FIRST: u32> {
    // core's: what is published here is published once, and readers who come too early see nothing.
    buckets: [AtomicPtr<T>; BUCKETS],
    owns: core::marker::PhantomData<Box<[T]>>,
}

// SAFETY: the table owns its entries and hands out shared references to them on any thread; it drops them on one.
unsafe impl<T: Send + Sync, const FIRST: u32> Sync for GrowTable<T, FIRST> {}

impl<T: Default, const FIRST: u32> Default for GrowTable<T, FIRST> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bucket and place in it; a bucket's number is below [`BUCKETS`].
#[inline]
fn locate<const FIRST: u32>(index: u32) -> (usize, usize) {
    const { assert!(FIRST < 32, "the first bucket fits the index") };
    let x = u64::from(index) + (1 << FIRST);
    let top = 63 - x.leading_zeros();
    ((top - FIRST) as usize, (x - (1 << top)) as usize)
}
fn size<const FIRST: u32>(bucket: usize) -> Option<usize> {
    1usize.checked_shl(bucket as u32 + FIRST)
}

impl<T: Default, const FIRST: u32> GrowTable<T, FIRST> {
    /// A table without entries.
    pub const fn new() -> Self {
        Self {
            buckets: [const { AtomicPtr::new(ptr::null_mut()) }; BUCKETS],
            owns: core::marker::PhantomData,
        }
    }
    /// The entry, if its bucket has been made.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (b, i) = locate::<FIRST>(index);
        let bucket = NonNull::new(self.buckets.get(b)?.load(Ordering::Acquire))?;
        // SAFETY: T1: the bucket has 2^(b + FIRST) entries and `locate` gives a smaller place; they live as long as `self`.
        Some(unsafe { bucket.add(i).as_ref() })
    }
    /// The entry, made with its bucket if need be, with default values; `None` when the heap refuses.
    pub fn ensure(&self, index: u32) -> Option<&T> {
        if let Some(entry) = self.get(index) {
            return Some(entry);
        }
        let (b, _) = locate::<FIRST>(index);
        let fresh = Box::into_raw(filled::<T>(size::<FIRST>(b)?)?);
        let first = fresh.cast::<T>();
        let made = self.buckets[b].compare_exchange(
            ptr::null_mut(),
            first,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if made.is_err() {
            // SAFETY: from `into_raw` above, and published nowhere: somebody else's bucket is as good.
            drop(unsafe { Box::from_raw(fresh) });
        }
        self.get(index)
    }
}

impl<T, const FIRST: u32> Drop for GrowTable<T, FIRST> {
    fn drop(&mut self) {
        for (b, bucket) in self.buckets.iter_mut().enumerate() {
            let first = *bucket.get_mut();
            if !first.is_null()
                && let Some(n) = size::<FIRST>(b)
            {
                // SAFETY: T1: made by `ensure` as a boxed slice of this length, and nobody can reach it any more.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(first, n)) });
            }
        }
    }
}

impl<T, const FIRST: u32> fmt::Debug for GrowTable<T, FIRST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrowTable").finish_non_exhaustive()
    }
}

/// `n` default values, or `None` when the heap refuses.
pub fn filled<T: Default>(n: usize) -> Option<Box<[T]>> {
    heap::boxed(n, |_| T::default()).ok()
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use core::sync::atomic::AtomicU32;

    #[test]
    fn entries_lie_side_by_side() {
        let mut last = (0, 63);
        for id in 0..5000u32 {
            let (b, i) = locate::<6>(id);
            if id > 0 {
                assert!(
                    (b == last.0 && i == last.1 + 1) || (b == last.0 + 1 && i == 0) || id == 1,
                    "id {id}"
                );
            }
            assert!(i < 1 << (b as u32 + 6));
            last = (b, i);
        }
    }

    #[test]
    fn entries_are_made_with_their_bucket_and_stay() {
        let t = GrowTable::<AtomicU32, 6>::new();
        assert!(t.get(0).is_none() && t.get(u32::MAX).is_none());
        for i in [0, 63, 64, 191, 192, 100_000] {
            t.ensure(i).expect("heap").store(i + 1, Ordering::Relaxed);
        }
        for i in [0, 63, 64, 191, 192, 100_000] {
            assert_eq!(t.get(i).expect("made").load(Ordering::Relaxed), i + 1);
        }
        assert_eq!(t.get(65).expect("the same bucket").load(Ordering::Relaxed), 0);
        assert!(t.get(1_000_000).is_none());
    }

    #[test]
    fn two_makers_end_with_one_bucket() {
        let t = GrowTable::<AtomicU32, 6>::new();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    (0..2000).for_each(|i| {
                        t.ensure(i).expect("heap").fetch_add(1, Ordering::Relaxed);
                    });
                });
            }
        });
        assert!((0..2000).all(|i| t.get(i).is_some_and(|e| e.load(Ordering::Relaxed) == 4)));
    }

    #[test]
    fn the_table_drops_its_entries() {
        #[derive(Default)]
        struct Counted(Option<Arc<()>>);
        let seen = Arc::new(());
        let mut t = GrowTable::<Counted, 2>::new();
        t.ensure(9);
        let (b, i) = locate::<2>(9);
        // SAFETY: the bucket of entry 9 was just made, and `t` is not shared.
        unsafe { (*t.buckets[b].get_mut().add(i)).0 = Some(Arc::clone(&seen)) };
        assert_eq!(Arc::strong_count(&seen), 2);
        assert!(t.get(9).is_some_and(|c| c.0.is_some()));
        drop(t);
        assert_eq!(Arc::strong_count(&seen), 1);
    }
}
