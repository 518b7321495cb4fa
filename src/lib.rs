//! segvm: the illumos virtual memory system as a framework of trait objects, assembled.
//!
//! The crates below this one each own a part: [`page_db`] the pages, [`addr_space`] the segments, [`swapfs`] names and places of anonymous
//! pages, [`hat_x86`] the page tables and the processors that walk them, [`seg_drivers`] what a segment can be. This one puts them together
//! into a [`Machine`] that boots, runs processes and can be looked at.
//!
//! # Thirty lines: map, fault, fork, look
//!
//! ```
//! use segvm::Machine;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let machine = Machine::builder().frames(512).build()?;
//! let parent = machine.spawn("parent")?;
//!
//! // Private, zero-filled on demand: nothing is allocated until it is touched.
//! let at = parent.map_anon(64 << 10)?;
//! assert_eq!(parent.space().hat().resident(), 0);
//!
//! // A store faults: an anon with one reference, a page named by it, a translation.
//! parent.store(at, b"hello")?;
//! assert_eq!(parent.space().hat().resident(), 1);
//!
//! // The child's anon map holds the same anon; both translations are read-only now.
//! let child = parent.fork()?;
//! child.store(at, b"HELLO")?; // finds two references, and copies
//! parent.store(at, b"hey")?; // finds one, and stores in place
//!
//! let mut bytes = [0; 5];
//! parent.load(at, &mut bytes)?;
//! assert_eq!(&bytes, b"heylo");
//! child.load(at, &mut bytes)?;
//! assert_eq!(&bytes, b"HELLO");
//!
//! // The segment tree, as `::segtree` prints it.
//! println!("{}", parent.space().seg_tree(parent.cx()));
//! machine.verify()?; // every invariant of every crate, and the laws between them
//! # child.exit();
//! # parent.exit();
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go from here
//!
//! [`machine`] has the system calls and the accesses; [`script`] the language that the command, the tests and the benchmarks speak, described in
//! `docs/script.md`; [`view`] the debugger's tables; [`model`] the naive answer that random worlds are compared with.

#![forbid(unsafe_code)]

pub mod contract;
pub mod files;
pub mod machine;
pub mod model;
pub mod script;
pub mod sizes;
pub mod view;

pub use machine::{
    BootError, Machine, MachineBuilder, MapFlags, MapRequest, Pid, Process, SysError,
};
