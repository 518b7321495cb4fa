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
//! - Z2: the heap is not asked while a list is locked, which is a leaf: a map is made before it is listed, and room for all that is to be known of
//!   its place too, the link of places without a map included.
//! - Z3: no two live maps have one number: by it alone a walker tells whose a chunk is (H1).
//!
//! There are 2^32 numbers, and a map for each mapping that is ever touched: a machine that makes ten thousand a second has had as many in five days. So when
//! few numbers are left that nobody had, a place begins to remember the number of its last map, and a map takes over the one of the place it comes to,
//! whose map is gone; only a place that has none yet takes a new one: what is left lasts for more maps at a time than memory holds. A walker keeps
//! the map that it walks, so its number is not another's. Until then a place costs a pointer and a link.

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
struct Registry {
    /// Numbers not given yet.
    numbers: Range<u32>,
    /// By place; a pointer to nothing, if it is free.
    maps: Vec<Weak<AnonMap>>,
    /// By place: the next one without a map, plus one, while it is one itself; 0 for none.
    links: Vec<u32>,
    /// The first place without a map, plus one; 0 for none.
    free: u32,
    /// By place, once few numbers are left: that of the map that is there, or was last; 0 for none.
    kept: Vec<u32>,
}

/// Room that was made for a [`Registry`] with nothing locked.
#[derive(Default)]
struct Room {
    maps: Vec<Weak<AnonMap>>,
    links: Vec<u32>,
    kept: Vec<u32>,
}

/// How many maps, links and numbers a [`Room`] is to have; 0 of what there is enough of.
type Wanted = [usize; 3];

impl Room {
    fn of([maps, links, kept]: Wanted) -> Self {
        let (maps, links) = (Vec::with_capacity(maps), Vec::with_capacity(links));
        Self { maps, links, kept: Vec::with_capacity(kept) }
    }
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
            cpus: PerCpu::new(cpus, |_| Mutex::new(Rank::Registry, Registry::new())),
            last: AtomicU32::new(0),
        }
    }
    /// Whether those given to maps whatever their place have been given.
    fn are_few_left(&self) -> bool {
        self.last.load(Ordering::Relaxed) >= FOR_MAPS
    }
    pub(super) fn all(&self, hooks: &dyn WaitHooks) -> Vec<Arc<AnonMap>> {
        let mut all = Vec::new();
        for cpu in self.cpus.iter() {
            loop {
                let r = cpu.lock_leaf(hooks);
                if all.capacity() - all.len() >= r.maps.len() {
                    all.extend(r.maps.iter().filter_map(Weak::upgrade));
                    break;
                }
                let more = r.maps.len();
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
        let mut room = Room::default();
        while let Err(wanted) = self.try_list(map, &mut room) {
            room = Room::of(wanted);
        }
    }
    /// As [`AnonHome::list`] if there is a place, or `room` for more; how much room is wanted otherwise (Z2).
    fn try_list(&self, map: &mut Arc<AnonMap>, room: &mut Room) -> Result<(), Wanted> {
        let mut r = self.registry();
        r.make_room(self.layer.maps.are_few_left(), room)?;
        let place = r.take_place();
        let number = match r.kept.get(place as usize) {
            Some(&number) if number != 0 => number, // Z3: its map is gone
            _ => r.new_number(&self.layer.maps.last),
        };
        if let Some(kept) = r.kept.get_mut(place as usize) {
            *kept = number;
        }
        Arc::get_mut(map).expect("Z1: a map is listed once, new").be_listed(number, place);
        r.maps[place as usize] = Arc::downgrade(map);
        Ok(())
    }
    pub(super) fn forget(&self, place: u32) {
        let mut r = self.registry();
        let next = core::mem::replace(&mut r.free, place + 1);
        r.maps[place as usize] = Weak::new(); // the map is going: its last pointer is not this one
        r.links[place as usize] = next;
    }
}

impl Registry {
    fn new() -> Self {
        let links = Vec::with_capacity(RUN as usize); // so few bytes that they are not asked for four at a time
        Self { numbers: 0..0, maps: Vec::new(), links, free: 0, kept: Vec::new() }
    }
    /// Sees that there is a place without a map, and with `few` numbers left that each place can keep one, or says how much `room` is wanted.
    fn make_room(&mut self, few: bool, room: &mut Room) -> Result<(), Wanted> {
        let places = self.maps.len() + usize::from(self.free == 0);
        let kept = if few { places } else { 0 };
        let given = [
            grow::give_room(&mut self.maps, &mut room.maps, places),
            grow::give_room(&mut self.links, &mut room.links, places),
            grow::give_room(&mut self.kept, &mut room.kept, kept),
        ];
        if given.iter().any(Result::is_err) {
            return Err(given.map(|given| given.err().unwrap_or(0)));
        }
        if few {
            self.kept.resize(places, 0);
        }
        Ok(())
    }
    /// A place without a map, when there is room for one.
    fn take_place(&mut self) -> u32 {
        if let Some(free) = self.free.checked_sub(1) {
            self.free = core::mem::replace(&mut self.links[free as usize], 0);
            return free;
        }
        self.maps.push(Weak::new());
        self.links.push(0);
        self.maps.len() as u32 - 1
    }
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
