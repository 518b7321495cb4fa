//! Where anon maps come from: a home for each CPU.
//!
//! # The difficulty
//!
//! The first touch of a segment makes its anon map. If that takes one lock, or counts one reference on what all maps share, two CPUs that touch
//! fresh memory write the same line, whatever else has been done about it.
//!
//! # The rule
//!
//! ```text
//!   map 3 ─┐                       ┌─ map 65
//!   map 7 ─┴▶ home of CPU 0 ──▶ layer ◀── home of CPU 1 ◀─┘
//!             list, numbers 1..64         list, numbers 65..128
//! ```
//!
//! A map counts its reference on the home of the CPU that makes it, is listed there, and has its number from that home's run. Views
//! gather the lists and sort by number; on one CPU numbers are the order of creation.
//!
//! - Z1: a live map is on exactly one home's list, at the place it remembers.

use super::{AnonLayer, AnonMap};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::sync::{Mutex, PerCpu};
use page_db::{Cx, Rank};

/// Numbers a home takes at a time.
const RUN: u32 = 64;

#[derive(Debug, Default)]
struct Registry {
    /// Numbers not given yet.
    numbers: Range<u32>,
    /// By place; a place without a map holds a pointer to nothing.
    maps: Vec<Weak<AnonMap>>,
    free: Vec<u32>,
}

/// The lists of all homes.
#[derive(Debug)]
pub(super) struct Registries {
    cpus: PerCpu<Mutex<Registry>>,
    /// Last number of the last run given.
    last: AtomicU32,
}

impl Registries {
    pub(super) fn new(cpus: u16) -> Self {
        Self {
            cpus: PerCpu::new(cpus, |_| Mutex::new(Rank::Registry, Registry::default())),
            last: AtomicU32::new(0),
        }
    }
    pub(super) fn all(&self) -> Vec<Arc<AnonMap>> {
        let mut all = Vec::new();
        for cpu in self.cpus.iter() {
            all.extend(cpu.lock_leaf().maps.iter().filter_map(Weak::upgrade));
        }
        all.sort_unstable_by_key(|map| map.id());
        all
    }
}

/// What the maps made on one CPU share; on cache lines of its own, for every map of it counts here.
#[repr(align(128))]
pub struct AnonHome {
    layer: Arc<AnonLayer>,
    cpu: u16,
}

impl fmt::Debug for AnonHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnonHome").field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

impl AnonHome {
    #[inline]
    pub(super) fn layer(&self) -> &AnonLayer {
        &self.layer
    }
    fn registry(&self) -> &Mutex<Registry> {
        self.layer.maps.cpus.get(usize::from(self.cpu))
    }
    /// Makes a map and lists it (Z1). `make` gets its number and its place.
    pub(super) fn list(&self, make: impl FnOnce(u32, u32) -> Arc<AnonMap>) -> Arc<AnonMap> {
        let mut r = self.registry().lock_leaf();
        if r.numbers.is_empty() {
            let last = self.layer.maps.last.fetch_add(RUN, Ordering::Relaxed);
            r.numbers = last + 1..last + 1 + RUN;
        }
        let id = r.numbers.start;
        r.numbers.start += 1;
        let place = r.free.pop().unwrap_or(r.maps.len() as u32);
        let map = make(id, place);
        match r.maps.get_mut(place as usize) {
            Some(free) => *free = Arc::downgrade(&map),
            None => r.maps.push(Arc::downgrade(&map)),
        }
        map
    }
    pub(super) fn forget(&self, place: u32) {
        let mut r = self.registry().lock_leaf();
        r.maps[place as usize] = Weak::new();
        r.free.push(place);
    }
}

/// A home for each CPU.
#[derive(Debug)]
pub struct Homes(PerCpu<Arc<AnonHome>>);

impl Homes {
    /// Homes of the maps of `layer`.
    pub fn new(layer: &Arc<AnonLayer>) -> Self {
        let cpus = layer.db().cpus();
        Self(PerCpu::new(cpus, |cpu| Arc::new(AnonHome { layer: Arc::clone(layer), cpu })))
    }
    /// The home of the CPU that `cx` runs on.
    #[inline]
    pub fn mine(&self, cx: &Cx) -> &Arc<AnonHome> {
        self.0.mine(cx)
    }
}
