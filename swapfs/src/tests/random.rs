//! Random operations against a table of bytes: whatever swap does, an anon holds what was stored last.

use super::{PUSH, World};
use crate::{AnonNumber, AreaId, FaultyDevice, MemDevice, Place};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::selock::LockedPage as _;
use page_db::{PutFlags, RefMod, VnodeError};

struct Rng(u64);
impl Rng {
    fn next(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

struct Sim {
    w: World,
    rng: Rng,
    bytes: BTreeMap<AnonNumber, u8>,
    reserved: u64,
    devices: Vec<Arc<FaultyDevice>>,
    areas: Vec<AreaId>,
    faults: bool,
}

impl Sim {
    fn new(seed: u64, faults: bool) -> Self {
        let w = World::new(48);
        let devices = (0..3)
            .map(|i| Arc::new(MemDevice::new(format!("d{i}"), 12)))
            .map(|d| Arc::new(FaultyDevice::new(d)))
            .collect();
        let rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (bytes, areas) = (BTreeMap::new(), Vec::new());
        Self { w, rng, bytes, reserved: 0, devices, areas, faults }
    }
    fn any(&mut self) -> Option<AnonNumber> {
        let len = self.bytes.len() as u64;
        (len != 0).then(|| {
            let i = self.rng.next(len) as usize;
            *self.bytes.keys().nth(i).expect("in range")
        })
    }
    /// Gets a page, making room by pushing when there is none.
    fn page(&mut self, n: AnonNumber, store: Option<u8>) -> Option<u8> {
        for _ in 0..4 {
            match self.w.fs.get_page(&self.w.cx, n, 0) {
                Ok(got) => {
                    if let Some(b) = store {
                        self.w.db.mem().write(got.page.pfn(), 100, &[b]);
                        got.page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
                    }
                    let mut b = [0];
                    self.w.db.mem().read(got.page.pfn(), 100, &mut b);
                    return Some(b[0]);
                }
                Err(VnodeError::NoMemory { .. }) => {
                    let all: Vec<_> = self.bytes.keys().copied().collect();
                    for n in all {
                        let _ = self.w.fs.put_page(&self.w.cx, n, PUSH);
                    }
                    let _ = self.w.fs.flush_pushes(&self.w.cx);
                }
                Err(VnodeError::Io { .. }) => {
                    assert!(self.faults);
                    assert!(matches!(self.w.fs.place(n), Place::Bad(_)));
                    return None;
                }
                Err(e) => panic!("{e}"),
            }
        }
        None
    }
    fn step(&mut self) {
        let put = |s: &mut Self, flags| {
            if let Some(n) = s.any() {
                let r = s.w.fs.put_page(&s.w.cx, n, flags);
                let ok = match r {
                    Ok(()) => true,
                    Err(VnodeError::NoSpace { .. }) => flags == PUSH,
                    Err(VnodeError::Io { .. }) => s.faults,
                    Err(_) => false,
                };
                assert!(ok, "{r:?}");
            }
        };
        match self.rng.next(22) {
            0..=3 => {
                if self.bytes.len() < 60 {
                    let n = self.w.alloc();
                    assert!(self.bytes.insert(n, 0).is_none(), "a number is handed out once");
                }
            }
            4..=7 => {
                if let Some(n) = self.any() {
                    let b = self.rng.next(256) as u8;
                    if self.page(n, Some(b)).is_some() {
                        self.bytes.insert(n, b);
                    }
                }
            }
            8..=10 => {
                if let Some(n) = self.any()
                    && let Some(b) = self.page(n, None)
                {
                    assert_eq!(Some(&b), self.bytes.get(&n), "anon {n}");
                }
            }
            11..=13 => put(self, PUSH),
            14 => put(self, PutFlags::empty()),
            15 => put(self, PutFlags::INVAL),
            16 => put(self, PutFlags::FREE | PutFlags::DONTNEED),
            17 => {
                if let Some(n) = self.any() {
                    self.bytes.remove(&n);
                    self.w.free(n);
                }
            }
            18 => {
                let i = self.rng.next(3) as usize;
                let priority = self.rng.next(2) as i16;
                let dev = self.devices[i].clone();
                if let Ok(id) = self.w.fs.add(&self.w.cx, dev, 0, 12, priority) {
                    self.areas.push(id);
                }
            }
            19 => {
                let i = self.rng.next(4) as usize;
                if i < self.areas.len() && self.w.fs.remove(&self.w.cx, self.areas[i]).is_ok() {
                    self.areas.remove(i);
                }
            }
            20 => {
                let n = self.rng.next(12);
                if self.rng.next(2) == 0 && self.w.fs.reserve(n).is_ok() {
                    self.reserved += n;
                } else if self.reserved >= n {
                    self.w.fs.unreserve(n);
                    self.reserved -= n;
                }
            }
            _ if self.faults => {
                let i = self.rng.next(3) as usize;
                match self.rng.next(3) {
                    0 => self.devices[i].fail_read(1),
                    _ => self.devices[i].fail_write(1),
                }
            }
            _ => {
                if let Some(n) = self.any()
                    && let Some(page) = self.w.db.lookup_excl(&self.w.cx, self.w.fs.identity(n))
                    && self.w.fs.free_slot(&self.w.cx, n, &page)
                {
                    page.page().set_ref_mod(RefMod::MOD);
                }
            }
        }
    }
    fn run(mut self, steps: u32) {
        for _ in 0..steps {
            self.step();
            let census = self.w.check();
            assert_eq!(census.live, self.bytes.len() as u64);
            assert_eq!(self.w.fs.info().reserved(), self.reserved);
        }
        let all: Vec<_> = self.bytes.keys().copied().collect();
        for n in all {
            self.w.free(n);
        }
        self.w.fs.unreserve(self.reserved);
        for a in self.areas {
            self.w.fs.remove(&self.w.cx, a).expect("nothing is stored");
        }
        let census = self.w.check();
        assert_eq!((census.live, census.slots), (0, 0));
        assert_eq!(self.w.db.free_mem().availrmem(), 48);
        assert_eq!(self.w.db.freemem(), 48);
    }
}

#[test]
fn random_operations_keep_every_byte() {
    for seed in 1..=20 {
        Sim::new(seed, false).run(600);
    }
}

#[test]
fn random_operations_with_failing_devices_lose_only_what_they_say() {
    for seed in 1..=20 {
        Sim::new(seed, true).run(600);
    }
}

#[test]
fn one_seed_runs_alike_twice() {
    let trace = |seed| {
        let mut s = Sim::new(seed, true);
        let mut out = Vec::new();
        for _ in 0..300 {
            s.step();
            out.push(format!("{:?} {:?}", s.w.fs.info(), s.w.fs.list()));
            let slots = s.bytes.keys().map(|n| s.w.fs.place(*n));
            out.push(format!("{:?}", slots.collect::<Vec<_>>()));
        }
        out
    };
    assert_eq!(trace(7), trace(7));
}
