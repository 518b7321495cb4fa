//! The allocator: power-of-two blocks from an arena in the program's own zeroed memory, one free list for each size, and a count of what is out.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;

/// Bytes of the arena; the system gives them memory when they are touched.
const ARENA: usize = 256 << 20;
/// Log2 of the smallest block.
const LEAST: u32 = 4;
const SIZES: usize = 32;

#[repr(align(4096))]
struct Arena(UnsafeCell<[u8; ARENA]>);

/// The program's heap. One thread runs, so nothing is locked.
pub(crate) struct Heap {
    arena: Arena,
    state: UnsafeCell<State>,
}

struct State {
    /// Bytes of the arena handed out for the first time.
    used: usize,
    /// First free block of each size; a free block holds the address of the next.
    free: [*mut u8; SIZES],
    /// Blocks allocated and not freed.
    live: usize,
}

// SAFETY: the program has one thread and no signal handlers.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap with nothing out.
    pub(crate) const fn new() -> Self {
        let state = State { used: 0, free: [null_mut(); SIZES], live: 0 };
        Self { arena: Arena(UnsafeCell::new([0; ARENA])), state: UnsafeCell::new(state) }
    }
    /// Blocks allocated and not freed.
    pub(crate) fn live(&self) -> usize {
        // SAFETY: one thread, and no reference to the state outlives a call.
        unsafe { (*self.state.get()).live }
    }
}

/// Log2 of the block that holds a layout: as large as its alignment, which makes every block aligned to its size.
fn order(layout: Layout) -> u32 {
    layout.size().max(layout.align()).next_power_of_two().trailing_zeros().max(LEAST)
}

// SAFETY: blocks come from the arena without overlap, are aligned to their size (the arena to a page, and see `alloc`), at least as large
// and as aligned as the layout, and stay out until they are given back with the same layout, which names the same list.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let order = order(layout);
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.state.get() };
        let Some(free) = state.free.get_mut(order as usize) else { return null_mut() };
        let block = if free.is_null() {
            let start = self.arena.0.get().cast::<u8>();
            let size = 1usize << order;
            // The address is aligned, not only the offset: alignments of more than a page are asked for rarely, but are.
            let at = (start as usize + state.used).next_multiple_of(size) - start as usize;
            if at + size > ARENA {
                return null_mut();
            }
            state.used = at + size;
            start.wrapping_add(at)
        } else {
            let block = *free;
            // SAFETY: a free block holds the address of the next.
            *free = unsafe { block.cast::<*mut u8>().read() };
            block
        };
        state.live += 1;
        block
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.state.get() };
        let free = &mut state.free[order(layout) as usize];
        // SAFETY: the block is the caller's to give back, has 16 bytes at least, and is aligned to its size.
        unsafe { block.cast::<*mut u8>().write(*free) };
        *free = block;
        state.live -= 1;
    }
}
