//! The rest of the upper half: entries of top tables that are the backend's, as a kernel with text and stacks of its own has them.

use super::*;
use crate::access::{Bytes, Trap, UserAccess};
use crate::geometry::{KERNEL_TOP, TOP, entry_base, span};
use crate::mmu::{Caps, CpuSet};
use crate::{FlushDue, KERNEL_WINDOW, Mode, PteBits, X86Pte};
use page_db::{PAGE_SIZE, RefMod};

/// Frames of the database; the kernel's own tables lie behind them, where no page is.
const FRAMES: u64 = 64;
/// Where the tables of what the kernel has besides begin.
const OWN: Pfn = Pfn(16 + FRAMES);
/// Entries of the kernel: the lowest of the upper half leads to a view of all memory, the last to a table that is in nobody's memory.
const ENTRIES: [usize; 2] = [KERNEL_TOP, 511];

/// [`HostMmu`] with a kernel in the upper half.
#[derive(Debug)]
struct Kernel {
    mem: Arc<dyn PhysMem>,
    host: Arc<HostMmu>,
    /// Space whose root is forgotten.
    forgets: Option<SpaceId>,
}

impl Mmu for Kernel {
    fn caps(&self) -> Caps {
        self.host.caps()
    }
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        if self.forgets != Some(id) {
            for (index, pfn) in ENTRIES.into_iter().zip([OWN, Pfn(1 << 30)]) {
                let entry = X86Pte::table(pfn, false);
                self.mem.u64_at(root, index).store(entry.0, core::sync::atomic::Ordering::SeqCst);
            }
        }
        self.host.space_created(cx, id, root);
    }
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        self.host.space_destroyed(cx, id, root);
    }
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>) {
        self.host.activate(cx, cpu, id);
    }
    fn cpu_count(&self) -> u16 {
        self.host.cpu_count()
    }
    fn running_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        self.host.running_on(cx, id, cpus);
    }
    fn remembered_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        self.host.remembered_on(cx, id, cpus);
    }
    fn flush(&self, cx: &Cx, due: &FlushDue) {
        self.host.flush(cx, due);
    }
    fn remembered_wrongly(&self, cx: &Cx) -> Option<String> {
        self.host.remembered_wrongly(cx)
    }
}

fn machine(forgets: Option<SpaceId>) -> World {
    let counters = Counters::new(2);
    let cx = new_cx(&counters, 0);
    let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), FRAMES + 1).expect("heap"));
    // All memory by one entry of 1 GiB, as kernels have it.
    let all = X86Pte::new(Pfn(0), PteBits::P | PteBits::W | PteBits::G | PteBits::PS);
    mem.u64_at(OWN, 0).store(all.0, core::sync::atomic::Ordering::SeqCst);
    let config = PageDbConfig {
        frames: Some(FRAMES),
        cpus: 2,
        thresholds: Some(Thresholds::from_lotsfree(0)),
        ..PageDbConfig::default()
    };
    let clock = Arc::new(ManualClock::default());
    let db = PageDb::new(&cx, Arc::clone(&mem), clock, Arc::clone(&counters), &config);
    let db = Arc::new(db.expect("heap"));
    let mmu = HostMmu::new(Arc::clone(&mem), 2);
    let kernel: Arc<dyn Mmu> = Arc::new(Kernel { mem, host: Arc::clone(&mmu), forgets });
    let hx = HatX86::new(&cx, Arc::clone(&db), kernel).expect("room for the kernel's tables");
    World { cx, parts: Parts { counters, db, mmu, hx } }
}

/// What the kernel finds at `addr`.
fn kernel_load(w: &World, cpu: u16, addr: u64) -> Result<u8, Trap> {
    let (mut byte, mode) = ([0], Mode::Supervisor { write_protect: true });
    w.mmu.access(&w.cx, CpuId(cpu), mode, va(addr), Bytes::Load(&mut byte))?;
    Ok(byte[0])
}

/// Where the kernel sees a frame.
fn seen(w: &World, page: PageId) -> u64 {
    entry_base(0, TOP, ENTRIES[0]) + w.db.pfn(page).0 * PAGE_SIZE
}

#[test]
fn a_kernel_has_its_own_entries_in_every_space_and_keeps_them() {
    let w = machine(None);
    w.verify();
    let at_boot = (w.db.freemem(), w.hx.hats(&w.cx));
    let (parent, page) = (w.hat(), w.page());
    w.load(&*parent, 0x40_0000, page, U);
    let other = w.page();
    w.load(&*w.hx.kernel(), KERNEL_WINDOW.start().get(), other, Prot::READ | Prot::WRITE);
    w.run(0, &*parent);
    w.mmu_store(0, 0x40_0000);
    assert_eq!(kernel_load(&w, 0, seen(&w, page)), Ok(b'x'), "in a user's space");
    assert_eq!(kernel_load(&w, 1, seen(&w, page)), Ok(b'x'), "in none");
    w.verify();
    // As a fork does.
    let child = w.hat();
    parent.clear_write(&w.cx, range(0x40_0000, 1));
    w.load(&*child, 0x40_0000, page, Prot::READ);
    w.run(1, &*child);
    w.mmu_load(1, 0x40_0000);
    assert_eq!(kernel_load(&w, 1, seen(&w, page)), Ok(b'x'), "in a space made later");
    assert_eq!(kernel_load(&w, 1, KERNEL_WINDOW.start().get()), Ok(0), "the hat's window");
    w.verify();
    assert_eq!((parent.resident(), child.resident(), w.hx.kernel().resident()), (1, 1, 1));
    // Tables taken back, a space that ends, pages unloaded by name: nothing of the kernel's goes.
    assert!(w.hx.steal_tables(&w.cx, 1) > 0);
    w.verify();
    w.end(&parent);
    let gone = kernel_load(&w, 0, seen(&w, page)).expect("the CPU is in the kernel's space now");
    assert_eq!(gone, b'x');
    w.end(&child);
    w.hx.kernel().unload(&w.cx, KERNEL_WINDOW, UnloadFlags::empty());
    [page, other].into_iter().for_each(|page| w.free(page));
    w.verify();
    assert_eq!((w.db.freemem(), w.hx.hats(&w.cx)), at_boot);
}

#[test]
fn an_entry_that_leads_out_of_memory_is_the_processors_business() {
    let w = machine(None);
    let last = entry_base(0, TOP, ENTRIES[1]) + (span(TOP) - PAGE_SIZE);
    assert!(matches!(kernel_load(&w, 0, last), Err(Trap::Page(_))));
    let steps = w.hx.vatopfn(&w.cx, 0, va(last)).expect("the kernel's").steps;
    assert_eq!(steps.len(), 1, "shown, and not followed");
    assert_eq!(w.hx.mappings_of(&w.cx, w.page()), [], "no page has a translation by it");
    w.verify();
}

#[test]
fn an_entry_that_one_space_lacks_is_p1() {
    let w = machine(Some(SpaceId(2)));
    let (first, second) = (w.hat(), w.hat());
    assert_eq!((first.id(), second.id()), (1, 2));
    assert_eq!(w.hx.verify(&w.cx).expect_err("unlike").invariant, "P1 one kernel half");
    w.end(&second);
    w.verify();
    assert_eq!(w.bits(w.page()), RefMod::empty());
}
