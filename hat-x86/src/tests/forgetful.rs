//! Processors that do not do all that they are told.

use super::*;
use crate::{Caps, CpuSet, FlushDue, KeptTables, RetiredTables};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(super) type Meanwhile = Box<dyn FnOnce() + Send>;

/// A backend that loses every flush while told to, lets something happen before the next one, and may keep frames.
pub(super) struct Forgetful {
    host: Arc<HostMmu>,
    pub(super) lose: AtomicBool,
    pub(super) meanwhile: std::sync::Mutex<Option<Meanwhile>>,
    /// Whether frames of tables come back one call late, and those on their way.
    pub(super) late: AtomicBool,
    kept: std::sync::Mutex<KeptTables>,
}

impl core::fmt::Debug for Forgetful {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Forgetful").finish_non_exhaustive()
    }
}

impl Mmu for Forgetful {
    fn caps(&self) -> Caps {
        self.host.caps()
    }
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn) {
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
        let meanwhile = self.meanwhile.lock().expect("not poisoned").take();
        meanwhile.into_iter().for_each(|f| f());
        if !self.lose.load(Relaxed) {
            self.host.flush(cx, due);
        }
    }
    fn retire_tables(&self, _: &Cx, tables: &mut RetiredTables<'_>, free: &mut dyn FnMut(Pfn)) {
        let mut kept = self.kept.lock().expect("not poisoned");
        let mut before = std::mem::take(&mut *kept);
        if self.late.load(Relaxed) {
            tables.keep(&mut kept);
        }
        tables.bring_back(&mut before);
        tables.for_each(free);
    }
    fn remembered_wrongly(&self, cx: &Cx) -> Option<String> {
        self.host.remembered_wrongly(cx)
    }
}

/// A world whose flushes may get lost.
pub(super) fn forgetful() -> (World, Arc<Forgetful>) {
    let (counters, cx, mem, db) = floor(64);
    let host = HostMmu::new(mem, 2);
    let mmu = Arc::new(Forgetful {
        host: Arc::clone(&host),
        lose: AtomicBool::new(false),
        meanwhile: std::sync::Mutex::new(None),
        late: AtomicBool::new(false),
        kept: std::sync::Mutex::default(),
    });
    let hx = HatX86::new(&cx, Arc::clone(&db), mmu.clone() as Arc<dyn Mmu>).expect("room");
    (World { cx, parts: Parts { counters, db, mmu: host, hx } }, mmu)
}
