//! The behaviours that the references list, one test for each number.
//!
//! ```text
//!   illumos::<section>::b01 .. b61    illumos.md 12
//!   uvm::<subject>::u01 .. u40        uvm.md 9; in uvm::lazy, its differences under lazy forks
//!   cases_a::a01 .. cases_m::m14      the cases distilled from the suites of trusted systems
//!   invariants::v01 .. v30            the scenario that attacks each invariant
//! ```
//!
//! A test's name begins with its number, and [`listing`] holds that no number is missing and none is there twice. Where a unit test of a lower
//! layer pins a behaviour to the last count, the test here shows what follows from it in the whole machine, and its comment names the other.
//!
//! Where a source asks for what Linux alone does, the illumos answer is what is tested. What does not exist is tested to be refused:
//! [`not_built`] holds the list. [`differences`] holds the README's tables to their tests.
//!
//! Every statement of a script is followed by `verify()`, and nothing may be left when a scene ends, as in the other integration tests, whose harness this
//! is.

/// Tests that are scripts and nothing else.
macro_rules! scripts {
    ($($name:ident: $script:expr;)*) => { $(
        #[test]
        fn $name() {
            crate::run_ok(concat!("machine memory=512\n", $script));
        }
    )* };
}

mod cases_a;
mod cases_b;
mod cases_c;
mod cases_d;
mod cases_e;
mod cases_f;
mod cases_g;
mod cases_h;
mod cases_i;
mod cases_j;
mod cases_k;
mod cases_l;
mod cases_m;
mod differences;
mod gate;
#[path = "../it/harness.rs"]
#[allow(dead_code, reason = "snapshots and mappers are the other target's")]
mod harness;
mod illumos;
mod invariants;
mod listing;
mod not_built;
mod uvm;

pub(crate) use harness::{Scene, addr, run_ok};

use addr_space::{AddrSpace, SegKind};
use page_db::{FileOffset, PAGE_SIZE, Pfn, Prot, VirtRange};
use seg_drivers::{DeviceMemory, SegDevArgs};
use std::sync::Arc;

/// A machine of 512 frames after `setup`.
#[track_caller]
fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Pages of the arena.
fn range(page: u64, pages: u64) -> VirtRange {
    VirtRange::exact(addr(page).get(), pages * PAGE_SIZE).expect("a range of the arena")
}

/// The address space of a process.
#[track_caller]
fn space(s: &Scene, proc: u32) -> Arc<AddrSpace> {
    Arc::clone(&s.process(proc).space())
}

/// Segments of a process, and its size in pages.
#[track_caller]
fn shape(s: &Scene, proc: u32) -> (usize, u64) {
    let space = space(s, proc);
    (space.segs(s.machine().cx()).len(), space.state().size() / PAGE_SIZE)
}

/// Pages of swap promised now.
fn reserved(s: &Scene) -> u64 {
    s.machine().swap().info().reserved()
}

/// Pages of memory that may still be locked.
fn available(s: &Scene) -> u64 {
    s.machine().db().free_mem().availrmem()
}

/// The page that a page of a process is mapped to.
#[track_caller]
fn page(s: &Scene, proc: u32, page: u64) -> &page_db::Page {
    let frame = s.frame(proc, page).expect("mapped");
    s.machine().db().page(s.page(frame))
}

/// A device with one frame.
#[derive(Debug)]
struct OneFrame(Pfn);

impl DeviceMemory for OneFrame {
    fn name(&self) -> String {
        "fb0".to_owned()
    }
    fn pages(&self) -> u64 {
        1
    }
    fn frame(&self, _: u64) -> Option<Pfn> {
        Some(self.0)
    }
}

/// Maps a device of one frame, which is taken out of memory, into process 0 at `page`.
#[track_caller]
fn device(s: &mut Scene, page: u64) {
    let device = Arc::new(OneFrame(s.device_frames(1)[0]));
    let (offset, prot) = (FileOffset(0), Prot::RW);
    let args = SegDevArgs { device, offset, prot, max_prot: Prot::RWX, kind: SegKind::SHARED };
    space(s, 0).map(s.machine().cx(), range(page, 1), &args).expect("a free range");
}
