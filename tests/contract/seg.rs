//! Segment drivers: files and anonymous memory, devices, the kernel's heap, the example's mirror, and drivers with flaws.

mod desk;
mod flawed;
pub(crate) mod flaws;
#[path = "../../examples/driver/seg_mirror.rs"]
mod seg_mirror;

use addr_space::SegKind;
use desk::{Card, Desk, PAGES};
use page_db::{FileOffset, Prot, Reserve};
use seg_drivers::seg_dev::SegDevArgs;
use seg_mirror::SegMirror;
use segvm::contract::{Breach, SegCan, SegCase, seg_ops};
use segvm::machine::ForkPolicy;
use std::sync::Arc;

const FORKS: [ForkPolicy; 2] = [ForkPolicy::Eager, ForkPolicy::Lazy];

#[test]
fn private_anonymous_memory_keeps_the_contract() {
    for fork in FORKS {
        let desk = Desk::new(fork);
        desk.keeps("private memory", &desk.memory(SegKind::empty()), Desk::ANON, None);
    }
}

#[test]
fn private_memory_without_a_promise_keeps_the_contract() {
    for fork in FORKS {
        let desk = Desk::new(fork);
        // Two who share it for good could not say who pays.
        let can = Desk::ANON - SegCan::INHERIT_SHARE;
        let args = desk.memory(SegKind::NORESERVE);
        desk.keeps("private memory without a promise", &args, can, None);
    }
}

#[test]
fn shared_anonymous_memory_keeps_the_contract() {
    for fork in FORKS {
        let desk = Desk::new(fork);
        let can = Desk::ANON | SegCan::SHARE;
        desk.keeps("shared memory", &desk.memory(SegKind::SHARED), can, None);
    }
}

#[test]
fn private_files_keep_the_contract() {
    for fork in FORKS {
        let desk = Desk::new(fork);
        let behind = |n| desk.page_of_file(n);
        let args = desk.file(SegKind::empty());
        desk.keeps("a private file", &args, Desk::FILE, Some(&behind));
    }
}

#[test]
fn shared_files_keep_the_contract() {
    for fork in FORKS {
        let desk = Desk::new(fork);
        let behind = |n| desk.page_of_file(n);
        let can = Desk::FILE | SegCan::SHARE;
        desk.keeps("a shared file", &desk.file(SegKind::SHARED), can, Some(&behind));
    }
}

#[test]
fn devices_keep_the_contract() {
    let desk = Desk::new(ForkPolicy::Eager);
    let (cx, db) = (desk.m.cx(), desk.m.db());
    let frame = |n| {
        let page = db.alloc(cx, n, Reserve::Normal).expect("a frame");
        db.set_device(&page, true); // the card's own
        page.downgrade().leak()
    };
    let frames: Vec<_> = (0..PAGES).map(frame).collect();
    let card = Arc::new(Card(frames.iter().map(|frame| db.pfn(*frame)).collect()));
    card.0.iter().for_each(|pfn| db.mem().zero(*pfn));
    let args = SegDevArgs {
        device: Arc::clone(&card) as _,
        offset: FileOffset(0),
        prot: Prot::RW,
        max_prot: Prot::RW,
        kind: SegKind::SHARED,
    };
    let behind = |n| desk.page_at(card.0[n as usize]);
    let can = SegCan::FAULT | SegCan::STORE | SegCan::BYTES | SegCan::SHARE | SegCan::SPLIT;
    let can = can | SegCan::DUP | SegCan::PROT | SegCan::SOFTLOCK | SegCan::MEM_ID;
    Breach::raise(desk.check("seg_dev", &args, can, Some(&behind)));
    for frame in frames {
        drop(db.adopt_shared(cx, frame));
        let page = db.lock_excl(cx, frame);
        db.free(cx, page, false);
    }
    desk.end();
}

#[test]
fn the_kernels_heap_keeps_the_contract() {
    let desk = Desk::new(ForkPolicy::Eager);
    let m = &desk.m;
    let range = m.kmem().alloc(&m.kernel_scx(), PAGES).expect("frames");
    let behind = |n| {
        let there = m.kas().hat().probe(m.cx(), range.page_at(n)).expect("wired");
        desk.page_at(there.pfn)
    };
    let can = SegCan::STORE | SegCan::BYTES | SegCan::SHARE | SegCan::PROT;
    seg_ops(&SegCase {
        cx: m.cx(),
        db: m.db(),
        name: "seg_kmem",
        space: &|| Ok(Arc::clone(m.kas())),
        make: None,
        at: range.start(),
        can: can | SegCan::SOFTLOCK | SegCan::VNODE,
        behind: Some(&behind),
        counts: &|| desk.counts(),
    });
    m.kmem().free(&m.kernel_scx(), range).expect("an allocation");
    desk.end();
}

#[test]
fn the_example_keeps_the_contract() {
    let desk = Desk::new(ForkPolicy::Eager);
    let mirror = SegMirror(Arc::clone(&desk.file) as _);
    let behind = |_| desk.page_of_file(0);
    let can = SegCan::FAULT | SegCan::BYTES | SegCan::SPLIT | SegCan::DUP;
    desk.keeps("seg_mirror", &mirror, can, Some(&behind));
}
