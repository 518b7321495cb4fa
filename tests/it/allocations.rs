//! An allocator that counts each thread's allocations, so that tests beside each other do not count for each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// The system allocator with a count.
#[derive(Debug)]
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static MADE: Cell<u64> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Counts a request for `size` bytes and says whether it may be granted.
fn may(size: usize) -> bool {
    // A thread that is going allocates without it.
    let _ = MADE.try_with(|n| n.set(n.get() + 1));
    MOST.try_with(|most| size <= most.get()).unwrap_or(true)
}

// SAFETY: every method hands its arguments to the system allocator unchanged and returns its answer, or refuses, as an allocator may.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !may(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !may(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !may(size) {
            return ptr::null_mut();
        }
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Allocations (and growths) this thread has made so far.
pub(crate) fn made() -> u64 {
    MADE.with(Cell::get)
}

/// Runs `work` while this thread is refused pieces of more than `most` bytes.
pub(crate) fn refusing<R>(most: usize, work: impl FnOnce() -> R) -> R {
    let before = MOST.replace(most);
    let result = work();
    MOST.set(before);
    result
}
