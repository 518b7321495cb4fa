//! An allocator that counts what the calling thread asks for, so that tests running side by side do not disturb each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static KEPT: Cell<i64> = const { Cell::new(0) };
}

#[derive(Debug)]
struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

/// Notes a change; a thread that is going away is not counted any more.
fn note(asked: usize, freed: usize) {
    let _ = ASKED.try_with(|n| n.set(n.get() + asked as u64));
    let _ = KEPT.try_with(|n| n.set(n.get() + asked as i64 - freed as i64));
}

// SAFETY: every method hands its arguments to the system allocator unchanged and returns its answer; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes of heap that `work` asked for on this thread, and those of them it still has (less what it freed of older ones).
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, u64, i64) {
    let before = (ASKED.get(), KEPT.get());
    let result = work();
    (result, ASKED.get() - before.0, KEPT.get() - before.1)
}
