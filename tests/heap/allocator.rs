//! A heap that refuses on request.
//!
//! Only what the asking thread asks for while a [`Plan`] is in force is counted, and only from a size on: records of a fixed size, one for each thing that
//! is made, have no fallible way to the heap in stable Rust (`docs/heap.md`), and a refusal there would end the program.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::null_mut;

/// What is refused: requests of `from` bytes and more, the `k`-th of them or that and all later ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) from: usize,
    pub(crate) k: u64,
    pub(crate) and_later: bool,
}

/// What was asked for while a plan was in force.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Asked {
    pub(crate) requests: u64,
    pub(crate) refused: u64,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static ASKED: Cell<Asked> = const { Cell::new(Asked { requests: 0, refused: 0 }) };
}

/// Does something under a plan.
pub(crate) fn under<T>(plan: Plan, f: impl FnOnce() -> T) -> (T, Asked) {
    ASKED.set(Asked::default());
    PLAN.set(Some(plan));
    let done = f();
    PLAN.set(None);
    (done, ASKED.get())
}

fn is_refused(size: usize) -> bool {
    let Ok(Some(plan)) = PLAN.try_with(Cell::get) else { return false };
    if size < plan.from {
        return false;
    }
    let mut asked = ASKED.get();
    asked.requests += 1;
    let refused = asked.requests == plan.k || (plan.and_later && asked.requests > plan.k);
    asked.refused += u64::from(refused);
    ASKED.set(asked);
    refused
}

/// The system's heap, unless the plan says no.
#[derive(Debug)]
pub(crate) struct Heap;

// SAFETY: every block comes from `System` and goes back to it with the layout it was asked for with; a null pointer is the answer for "no memory", and
// nothing here allocates: the thread's cells need no initialisation and no destructor.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size()) {
            return null_mut();
        }
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size()) {
            return null_mut();
        }
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_refused(size) {
            return null_mut();
        }
        // SAFETY: `at` came from `System` with this layout, and the caller's promise about `size` is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}
