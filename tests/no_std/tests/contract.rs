//! The contract suites over what is here and nowhere else: the file in read-only memory, alone and under a mapping. Without std they run as
//! they do in a kernel, threads aside.

use addr_space::contract::{SegCan, SegCase, seg_ops};
use bare_machine::machine::Hooks;
use bare_machine::{Machine, RomFile};
use page_db::contract::{VnodeCase, vnode};
use page_db::{Cx, FileOffset, ManualClock, PAGE_SIZE, Prot, SpinHooks, VirtAddr};
use seg_drivers::SegVnArgs;
use std::sync::Arc;

/// Pages of the file.
const PAGES: u64 = 8;

fn page(n: u64) -> Vec<u8> {
    (0..PAGE_SIZE).map(|at| (n * 3 + at * 5 + at / 256) as u8).collect()
}

fn machine() -> (Cx, Machine, Arc<RomFile>) {
    let hooks = Hooks::new(1, Arc::new(SpinHooks), Arc::new(ManualClock::default()));
    let cx = hooks.cx(0, 1);
    let machine = Machine::boot(&cx, &hooks, 1).expect("a machine");
    let bytes = (0..PAGES).flat_map(page).collect();
    let file = RomFile::new(&cx, &machine.db, bytes).expect("a vnode");
    (cx, machine, file)
}

#[test]
fn the_file_in_read_only_memory_keeps_the_contract() {
    let (cx, machine, file) = machine();
    vnode(&VnodeCase {
        cx: &cx,
        db: &machine.db,
        vnode: &*file,
        places: &[0, 1, 2, 3].map(|n| FileOffset(n * PAGE_SIZE)),
        stores: false,
        fail: None,
    });
    assert!(file.close(&cx, &machine.db).expect("nothing is dirty"));
    machine.verify(&cx, &[]).expect("every invariant");
}

#[test]
fn a_mapping_of_it_keeps_the_contract() {
    let (cx, machine, file) = machine();
    let args =
        SegVnArgs { vnode: Some(Arc::clone(&file) as _), ..SegVnArgs::zfod(&machine.vn, Prot::RW) };
    let can = SegCan::all() - SegCan::SHARE - SegCan::PAGELOCK;
    seg_ops(&SegCase {
        cx: &cx,
        db: &machine.db,
        name: "a private mapping of read-only memory",
        space: &|| Ok(Arc::new(machine.space(&cx).expect("a frame for the top table"))),
        make: Some(&args),
        at: VirtAddr::new(0x20_0000).expect("canonical"),
        can,
        behind: Some(&page),
        counts: &|| {
            vec![("anons", machine.swap.live()), ("promised", machine.swap.info().reserved())]
        },
    });
    drop(args); // it names the file
    assert!(file.close(&cx, &machine.db).expect("nothing is dirty"));
    machine.verify(&cx, &[]).expect("every invariant");
}
