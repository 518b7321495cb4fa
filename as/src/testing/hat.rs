//! A hat that is a map from pages to translations.

use crate::hat::{Hat, HatError, LoadFlags, Loaded, Stamp, Translation, UnloadFlags};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use page_db::{Cx, LockedPage, Pfn, Prot, RefMod, SyncMode, VirtAddr, VirtRange};
use std::sync::Mutex;

#[derive(Debug)]
pub(crate) struct RecHat {
    id: u32,
    entries: Mutex<BTreeMap<u64, (Pfn, Prot)>>,
    ends: Mutex<Vec<&'static str>>,
}

impl RecHat {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, entries: Mutex::default(), ends: Mutex::default() }
    }
    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (Pfn, Prot)>> {
        self.entries.lock().expect("no test panics in here")
    }
    /// Which of `free_start` and `free_end` were called, in order.
    pub(crate) fn ends(&self) -> Vec<&'static str> {
        self.ends.lock().expect("no test panics in here").clone()
    }
    /// Puts a translation there behind everybody's back.
    pub(crate) fn plant(&self, addr: u64, prot: Prot) {
        self.entries().insert(addr, (Pfn(1), prot));
    }
}

impl Hat for RecHat {
    fn id(&self) -> u32 {
        self.id
    }
    fn memload(
        &self,
        _: &Cx,
        addr: VirtAddr,
        page: &dyn LockedPage,
        prot: Prot,
        flags: LoadFlags,
        stamp: Option<Stamp<'_>>,
    ) -> Result<Loaded, HatError> {
        let (mut entries, want) = (self.entries(), page.pfn());
        if stamp.is_some_and(|s| !s.is_current()) {
            return Ok(Loaded::Stale);
        }
        match entries.get(&addr.get()) {
            Some((have, _)) if *have != want && !flags.contains(LoadFlags::REMAP) => {
                return Err(HatError::Conflict { addr, have: *have, want });
            }
            _ => entries.insert(addr.get(), (want, prot)),
        };
        Ok(Loaded::Done)
    }
    fn devload(
        &self,
        _: &Cx,
        range: VirtRange,
        pfn: Pfn,
        prot: Prot,
        _: LoadFlags,
    ) -> Result<(), HatError> {
        let pages = range.iter_pages().enumerate();
        self.entries().extend(pages.map(|(i, a)| (a.get(), (Pfn(pfn.0 + i as u64), prot))));
        Ok(())
    }
    fn unload(&self, _: &Cx, range: VirtRange, _: UnloadFlags) {
        self.entries().retain(|addr, _| !(range.start().get()..range.end()).contains(addr));
    }
    fn unlock(&self, _: &Cx, _: VirtRange) {}
    fn chg_prot(&self, cx: &Cx, range: VirtRange, prot: Prot) {
        if prot.is_empty() {
            return self.unload(cx, range, UnloadFlags::empty());
        }
        for (_, entry) in self.entries().range_mut(range.start().get()..range.end()) {
            entry.1 = prot;
        }
    }
    fn clear_write(&self, _: &Cx, range: VirtRange) {
        for (_, entry) in self.entries().range_mut(range.start().get()..range.end()) {
            entry.1 = entry.1.read_only();
        }
    }
    fn sync(&self, _: &Cx, _: VirtRange, _: SyncMode) {}
    fn settle(&self, _: &Cx) {}
    fn probe(&self, _: &Cx, addr: VirtAddr) -> Option<Translation> {
        let (pfn, prot) = *self.entries().get(&addr.page_floor().get())?;
        Some(Translation { pfn, prot, ref_mod: RefMod::empty(), level: 0 })
    }
    fn walk(&self, _: &Cx, range: VirtRange, f: &mut dyn FnMut(VirtAddr, Translation)) {
        for (addr, (pfn, prot)) in self.entries().range(range.start().get()..range.end()) {
            let addr = VirtAddr::new(*addr).expect("it came from one");
            f(addr, Translation { pfn: *pfn, prot: *prot, ref_mod: RefMod::empty(), level: 0 });
        }
    }
    fn resident(&self) -> u64 {
        self.entries().len() as u64
    }
    fn free_start(&self, _: &Cx) {
        self.ends.lock().expect("no test panics in here").push("start");
    }
    fn free_end(&self, _: &Cx) {
        assert_eq!(self.resident(), 0, "no translation outlives the address space");
        self.ends.lock().expect("no test panics in here").push("end");
    }
}

#[test]
fn the_recording_hat_keeps_the_contract() {
    let w = super::World::new();
    let made = std::sync::atomic::AtomicU32::new(10);
    crate::contract::hat(&crate::contract::HatCase {
        cx: &w.cx,
        db: &w.db,
        name: "RecHat",
        make: &|| {
            let id = made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(alloc::sync::Arc::new(RecHat::new(id)))
        },
        at: super::at(0x1_0000),
        lists: false,
        access: None,
    });
}
