//! What a segment can be.
//!
//! | driver | what it maps | above | below |
//! |---|---|---|---|
//! | [`seg_vn`] | files and anonymous memory | anon map | vnode |
//! | [`seg_dev`] | frames of a device, as they are | - | - |
//! | [`seg_hole`] | nothing: addresses that are kept | - | - |
//! | [`seg_kmem`] | the kernel's heap, wired | - | - |
//!
//! Drivers know pages, vnodes and anons; they never see the tree of segments. The theory of each stands at the head of its module, that
//! of anonymous memory in [`anon`].
//!
//! Sources: [SI §9], [UVM §4-5]; illumos.md 4, 5, 10.

#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod anon;
pub mod dump;
#[cfg(all(test, shuttle))]
mod schedules;
pub mod seg_dev;
pub mod seg_hole;
pub mod seg_kmem;
pub mod seg_vn;

pub use addr_space::runs;
pub use anon::{AnonHome, AnonLayer, AnonMap};
pub use seg_dev::{DeviceMemory, SegDev, SegDevArgs};
pub use seg_hole::{SegHole, SegHoleArgs};
pub use seg_kmem::{Kmem, KmemArgs, SegKmem};
pub use seg_vn::{ForkPolicy, LentAnons, LockedAtFork, SegVn, SegVnArgs, VnDriver, VnTunables};
