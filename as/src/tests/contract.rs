//! The toy keeps the contract of drivers.

use crate::contract::{SegCan, SegCase, seg_ops};
use crate::testing::{RecHat, World, at};
use crate::{AddrSpace, AsId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::Prot;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

#[test]
fn the_toy_keeps_the_contract() {
    let w = World::new();
    let made = AtomicU32::new(10);
    let space = || {
        let id = made.fetch_add(1, SeqCst);
        let hat = Arc::new(RecHat::new(id));
        let space = AddrSpace::new(&w.cx, AsId(id), w.space.limits(), hat, Arc::clone(&w.db));
        Ok(Arc::new(space?))
    };
    let usual = SegCan::FAULT | SegCan::STORE | SegCan::SPLIT | SegCan::DUP | SegCan::PROT;
    let usual = usual | SegCan::LOCK | SegCan::SOFTLOCK;
    let plain = w.toy().max_prot(Prot::RW).tag(1);
    let offering = w.toy().offering_pages();
    for (make, can) in [(plain, usual), (offering, usual | SegCan::PAGELOCK)] {
        seg_ops(&SegCase {
            cx: &w.cx,
            db: &w.db,
            name: "toy",
            space: &space,
            make: Some(&make),
            at: at(0x4000_0000), // its frames have the numbers of its pages, and are none of memory
            can,
            behind: None,
            counts: &Vec::new,
        });
    }
}
