//! Files as the machine sees them: a vnode with pages in memory, and a store behind it.
//!
//! ```text
//!   FileHandle ──▶ File (a Vnode) ── pages by <vnode, offset> in the page cache     pread, pwrite, mappings
//!                    │ fill, write back
//!                    ▼
//!                  dyn Store ── MemStore: pages in a map      HostStore: a file of the host
//! ```
//!
//! All reading and writing goes through the page cache, so a descriptor and a mapping can never disagree: they look at the same
//! frame. [`mod@file`] tells how a file's size, its pages and its store are kept together, [`elf`] what a program file says about the
//! address space it wants.

pub mod elf;
pub mod file;
mod handle;
mod host_file;
mod mem_file;
pub mod store;

pub use elf::{ElfError, ElfImage, Piece};
pub use file::{File, FileError};
#[doc(alias = "file_t")]
pub use handle::FileHandle;
pub use handle::OpenMode;
pub use host_file::HostStore;
pub use mem_file::MemStore;
pub use store::{PageBuf, Store};
