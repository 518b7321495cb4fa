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
//! - Z2: the heap is not asked while a list is locked, which is a leaf: a map is made before it is listed, room for it too, and places without a map
//!   are chained through themselves.
//! - Z3: no two live maps have one number: by it alone a walker tells whose a chunk is (H1).
//!
//! There are 2^32 numbers, and a map for each mapping that is ever touched: a machine that makes ten thousand a second has had as many in five days. So a place
//! remembers the number of its last map. When few numbers are left that nobody had, a map takes over the one of the place it comes to, whose map is gone,
//! and only a place that is itself new takes a new one: what is left lasts for more maps at a time than memory holds. A walker keeps the map that it
//! walks, so its number is not another's.

use super::{AnonLayer, AnonMap};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::ops::{DerefMut, Range};
use page_db::sync::atomic::{AtomicU32, Ordering};
use page_db::sync::{Mutex, PerCpu, grow};
use page_db::{Cx, Rank, WaitHooks};

/// Numbers a home takes at a time.
const RUN: u32 = 64;

/// Numbers given to maps whatever their place; the rest, three of four, are for places.
const FOR_MAPS: u32 = 1 << 30;

#[derive(Debug)]
struct Place {
    /// A pointer to nothing, if the place is free.
    map: Weak<AnonMap>,
    /// Of the map that is here, or was last.
    number: u32,
    /// The next place without a map, plus one, while this is one; 0 for none.
    next_free: u32,
}

#[derive(Debug, Default)]
struct Registry {
    /// Numbers not given yet.
    numbers: Range<u32>,
    places: Vec<Place>,
    /// The first place without a map, plus one; 0 for none.
    free: u32,
}

/// The lists of all homes.
#[derive(Debug)]
pub(super) struct Registries {
    cpus: PerCpu<Mutex<Registry>>,
    /// Last number of the last run given.
    pub(super) last: AtomicU32,
}

impl Registries {
    pub(super) fn new(cpus: u16) -> Self {
        Self {
            cpus: PerCpu::new(cpus, |_| Mutex::new(Rank::Registry, Registry::default())),
            last: AtomicU32::new(0),
        }
    }
    pub(super) fn all(&self, hooks: &dyn WaitHooks) -> Vec<Arc<AnonMap>> {
        let mut all = Vec::new();
        for cpu in self.cpus.iter() {
            loop {
                let r = cpu.lock_leaf(hooks);
                if all.capacity() - all.len() >= r.places.len() {
                    all.extend(r.places.iter().filter_map(|place| place.map.upgrade()));
                    break;
                }
                let more = r.places.len();
                drop(r);
                all.reserve(more); // with nothing locked (Z2)
            }
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
    fn registry(&self) -> impl DerefMut<Target = Registry> + '_ {
        let registry = self.layer.maps.cpus.get(usize::from(self.cpu));
        registry.lock_leaf(&**self.layer.db().hooks())
    }
    /// Gives a map, which is nobody else's yet, its number and its place, and lists it (Z1).
    pub(super) fn list(&self, map: &mut Arc<AnonMap>) {
        let mut room = Vec::new();
        while let Err(more) = self.try_list(map, &mut room) {
            room = Vec::with_capacity(more);
        }
    }
    /// As [`AnonHome::list`] if there is a place, or `room` for more; how much room is wanted otherwise (Z2).
    fn try_list(&self, map: &mut Arc<AnonMap>, room: &mut Vec<Place>) -> Result<(), usize> {
        let mut r = self.registry();
        let free = r.free.checked_sub(1);
        if free.is_none() {
            let need = r.places.len() + 1;
            grow::give_room(&mut r.places, room, need)?;
        }
        let last = &self.layer.maps.last;
        let few = r.numbers.is_empty() && last.load(Ordering::Relaxed) >= FOR_MAPS;
        let number = match free {
            Some(place) if few => r.places[place as usize].number, // Z3: its map is gone
            _ => r.new_number(last),
        };
        let place = free.unwrap_or(r.places.len() as u32);
        Arc::get_mut(map).expect("Z1: a map is listed once, new").be_listed(number, place);
        let here = Place { map: Arc::downgrade(map), number, next_free: 0 };
        let Registry { places, free, .. } = &mut *r;
        match places.get_mut(place as usize) {
            Some(at) => *free = core::mem::replace(at, here).next_free,
            None => places.push(here),
        }
        Ok(())
    }
    pub(super) fn forget(&self, place: u32) {
        let mut r = self.registry();
        let Registry { places, free, .. } = &mut *r;
        let at = &mut places[place as usize];
        at.map = Weak::new(); // the map is going: its last pointer is not this one
        at.next_free = core::mem::replace(free, place + 1);
    }
}

impl Registry {
    /// A number that no map has had.
    fn new_number(&mut self, last: &AtomicU32) -> u32 {
        if self.numbers.is_empty() {
            let next = |last: u32| last.checked_add(RUN).filter(|last| *last != u32::MAX);
            let taken = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            let last = taken.expect("Z3: memory for 2^31 maps at a time is used up before");
            self.numbers = last + 1..last + 1 + RUN;
        }
        let number = self.numbers.start;
        self.numbers.start += 1;
        number
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
