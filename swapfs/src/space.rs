//! All swap areas, and where the next run of slots comes from.
//!
//! Areas of the highest priority fill first. Among areas of one priority a rotor takes turns: after 1 MB from one area it moves to the
//! next, so transfers spread over devices and each still gets long runs. A full run anywhere in the class is better than a
//! piece in the area whose turn it is; a piece in this class is better than a run in a lower one.

use crate::area::{AreaId, PhysSlot, SwapArea};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use page_db::sync::{Mutex, MutexGuard, Published};
use page_db::{Cx, FailKind, Rank, WaitHooks};

/// The areas at one moment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Areas {
    /// By id.
    pub(crate) by_id: Vec<Arc<SwapArea>>,
    /// By priority, highest first, then by id.
    ranked: Vec<Arc<SwapArea>>,
}

impl Areas {
    pub(crate) fn get(&self, id: AreaId) -> Option<&Arc<SwapArea>> {
        let at = self.by_id.binary_search_by_key(&id, |a| a.id()).ok()?;
        self.by_id.get(at)
    }
    pub(crate) fn with(&self, area: Arc<SwapArea>) -> Self {
        let mut by_id = self.by_id.clone();
        by_id.push(area);
        Self::of(by_id)
    }
    pub(crate) fn without(&self, id: AreaId) -> Self {
        Self::of(self.by_id.iter().filter(|a| a.id() != id).cloned().collect())
    }
    fn of(mut by_id: Vec<Arc<SwapArea>>) -> Self {
        by_id.sort_by_key(|a| a.id());
        let mut ranked = by_id.clone();
        ranked.sort_by_key(|a| core::cmp::Reverse(a.priority())); // stable: by id within a priority
        Self { by_id, ranked }
    }
}

/// Whose turn it is among the areas of one priority (`silast`, `si_allocs`).
#[derive(Debug, Clone, Copy)]
struct Rotor {
    area: AreaId,
    taken: u32,
}

/// What adding, removing and allocating share.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) next_id: u32,
    pub(crate) removals: u64,
    rotors: BTreeMap<i16, Rotor>,
}

/// A run of slots just taken.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) area: Arc<SwapArea>,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The areas and the rotors.
#[derive(Debug)]
pub(crate) struct Space {
    areas: Published<Areas>,
    /// Held by the one thread that adds an area, also while it prepares the device.
    adding: Mutex<()>,
    control: Mutex<Control>,
    /// Pages taken from one area before the next one's turn (`swap_maxcontig`).
    turn: u32,
}

impl Space {
    pub(crate) fn new(turn: u32, hooks: &Arc<dyn WaitHooks>) -> Self {
        let control = Control { next_id: 1, removals: 0, rotors: BTreeMap::new() };
        Self {
            areas: Published::new(hooks, Areas::default()),
            adding: Mutex::new(Rank::Vnode, ()),
            control: Mutex::new(Rank::SwapArea, control),
            turn: turn.max(1),
        }
    }
    pub(crate) fn areas(&self) -> Arc<Areas> {
        self.areas.load()
    }
    /// Areas are added one after the other: none comes between looking for an overlap and publishing. Comes before the control lock, which
    /// pushes need and which is not held while a device is prepared.
    pub(crate) fn adding<'a>(&'a self, cx: &'a Cx) -> MutexGuard<'a, ()> {
        self.adding.lock(cx)
    }
    /// Adding and removing happen under this lock; an area's own lock comes after it.
    pub(crate) fn control<'a>(&'a self, cx: &'a Cx) -> MutexGuard<'a, Control> {
        self.control.lock(cx)
    }
    /// Replaces the list; the caller holds the control lock.
    pub(crate) fn publish(&self, _control: &mut Control, areas: Areas) {
        self.areas.store(areas);
    }
    /// Takes a run of up to `want` slots; `None` when every area is full or on its way out. By priority; but an area whose last write failed comes after all
    /// others, whatever its priority, and then only as the `last_resort`: its slots come back with each failure, and it would be tried for ever.
    #[doc(alias = "swap_phys_alloc")]
    pub(crate) fn alloc(&self, cx: &Cx, want: u32, last_resort: bool) -> Option<Run> {
        if cx.fails(FailKind::Slot) {
            return None;
        }
        let mut control = self.control.lock(cx);
        let areas = self.areas.load();
        let kinds = if last_resort { &[false, true][..] } else { &[false] };
        kinds.iter().find_map(|&failing| {
            let mut classes = areas.ranked.chunk_by(|a, b| a.priority() == b.priority());
            classes.find_map(|class| self.alloc_in(cx, &mut control, class, want, failing))
        })
    }
    /// From the areas of `class` of which the last write has failed, or has not.
    fn alloc_in(
        &self,
        cx: &Cx,
        control: &mut Control,
        class: &[Arc<SwapArea>],
        want: u32,
        failing: bool,
    ) -> Option<Run> {
        let priority = class.first()?.priority();
        let rotor = control.rotors.get(&priority).copied();
        // An area that is gone passes its turn to the next by id.
        let start = rotor.map_or(0, |r| class.partition_point(|a| a.id() < r.area) % class.len());
        let turns =
            || class[start..].iter().chain(&class[..start]).filter(|a| a.is_failing() == failing);
        let take = |exact| {
            turns().find_map(|a| {
                let (first, count) = a.slots.lock_nested(cx).alloc(want, exact)?; // control before area
                Some(Run { area: Arc::clone(a), first, count })
            })
        };
        let run = take(true).or_else(|| take(false))?;
        let id = run.area.id();
        let before = rotor.filter(|r| r.area == id).map_or(0, |r| r.taken);
        let mut next = Rotor { area: id, taken: before + run.count };
        if next.taken >= self.turn {
            let at = class.partition_point(|a| a.id() <= id) % class.len();
            next = Rotor { area: class[at].id(), taken: 0 };
        }
        control.rotors.insert(priority, next);
        Some(run)
    }
    /// Gives a slot back.
    pub(crate) fn free(&self, cx: &Cx, slot: PhysSlot) {
        let areas = self.areas.load();
        areas.get(slot.area).expect("W2: an area with slots in use stays").free(cx, slot.index);
    }
}
