//! The five library crates in a program with nothing under it: no std, no libc, not even a C start-up.
//!
//! A `no_std` crate whose dependency uses std compiles all the same where a std target is installed; only linking such a program tells
//! ("found duplicate lang item `panic_impl`"). So that it links is the proof, and that it runs shows that nothing was
//! only declared: the whole tour of [`bare_machine`] is made, every part of all five crates it goes through comes from here, and everything it
//! allocated is given back.
//!
//! Runs on Linux, as a static executable, to be run by anybody: status 0 means that all went well.

#![no_std]
#![no_main]

extern crate alloc;

mod heap;

use alloc::sync::Arc;
use bare_machine::machine::Hooks;
use core::fmt::{self, Write as _};
use core::hint::black_box;
use page_db::{Clock, Counter, WaitHooks};

// Named so that each is linked whatever the tour comes to use.
use {addr_space as _, hat_x86 as _, seg_drivers as _, swapfs as _};

core::arch::global_asm!(include_str!("start.s"));

unsafe extern "C" {
    safe fn exit_with(status: i32) -> !;
    fn write_fd(fd: i32, bytes: *const u8, count: usize) -> isize;
}

#[global_allocator]
static HEAP: heap::Heap = heap::Heap::new();

/// A file descriptor as a place to print to.
struct Fd(i32);

impl fmt::Write for Fd {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: the bytes are readable for their length.
            let wrote = unsafe { write_fd(self.0, rest.as_ptr(), rest.len()) };
            rest = usize::try_from(wrote).ok().and_then(|n| rest.get(n..)).ok_or(fmt::Error)?;
        }
        Ok(())
    }
}

/// Hooks and clock of a program with one thread: nobody else can let go of anything, so whoever waits would wait for ever.
#[derive(Debug)]
struct Alone;

impl WaitHooks for Alone {
    fn pause(&self, _spins: u32) {
        panic!("waits for a thread that does not exist");
    }
}

impl Clock for Alone {
    fn now(&self) -> u64 {
        0
    }
    fn tick(&self) {
        panic!("waits a tick for a thread that does not exist");
    }
}

/// Whether the memory routines of `start.s` do what core and alloc take for granted.
fn memory_routines_work() -> bool {
    let mut bytes: [u8; 32] = core::array::from_fn(|i| i as u8);
    bytes.copy_within(black_box(0..24), black_box(8)); // upwards over itself
    let up = (8..32).all(|i| usize::from(bytes[i]) == i - 8) && bytes[7] == 7;
    bytes.copy_within(black_box(8..32), black_box(0)); // and down
    let down = (0..24).all(|i| usize::from(bytes[i]) == i) && bytes[31] == 23;
    bytes[..black_box(30)].fill(black_box(0xa5));
    let filled = bytes[..30].iter().all(|b| *b == 0xa5) && bytes[30..] == *black_box(&[22, 23]);
    let order = |a: &str, b: &str| black_box(a).cmp(black_box(b)) as i32;
    let compared =
        [order("same", "same"), order("abc", "abd"), order("\u{ff}", "a"), order("", "")];
    up && down && filled && compared == [0, -1, 1, 0]
}

/// Makes the tour and says what it did.
fn make_the_tour() -> Result<(), i32> {
    let hooks = Hooks::new(1, Arc::new(Alone), Arc::new(Alone));
    let mut step = |what: &str| {
        let _ = writeln!(Fd(1), "{what}");
    };
    match bare_machine::tour(&hooks, &mut step) {
        Ok(report) => {
            let [faults, copies, out, back] =
                [Counter::AsFault, Counter::CowFault, Counter::AnonPgOut, Counter::AnonPgIn]
                    .map(|counter| report.counters.get(counter));
            let _ = writeln!(
                Fd(1),
                "{faults} faults, {copies} copies on write, {out} pages out, {back} pages back"
            );
            Ok(())
        }
        Err(error) => {
            let _ = writeln!(Fd(2), "failed: {error}");
            Err(1)
        }
    }
}

/// Called by `_start`.
#[unsafe(no_mangle)]
extern "C" fn run() -> ! {
    assert!(memory_routines_work(), "start.s: a memory routine is wrong");
    if let Err(status) = make_the_tour() {
        exit_with(status);
    }
    let live = HEAP.live();
    if live != 0 {
        let _ = writeln!(Fd(2), "failed: {live} blocks of the heap were never freed");
        exit_with(2);
    }
    exit_with(0);
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Fd(2), "{info}");
    exit_with(101);
}
