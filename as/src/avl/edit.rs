//! Changing the tree: insert, remove, move one end of an interval, and the walk that mends it.
//!
//! An edit walks down once. Whoever has to look before he inserts (is the range free, who are the neighbours) keeps the way in a
//! [`Place`] and inserts there without a second walk.

use core::hint::select_unpredictable;

use page_db::sync::prefetch_read;

use super::node::{
    Cold, HEIGHT_MASK, Key, LEFT, NIL, NodeId, Path, RIGHT, Room, Visits, height_of, pack,
};
use super::{AllocError, Avl, InsertError, ResizeError};

/// For [`Avl::mend`]: no gap above the lowest node of the path was changed by hand.
const NO_GAP: usize = usize::MAX;

/// Where an interval may be inserted: the way down to it, and its neighbours. Good until the next edit.
#[derive(Debug)]
pub struct Place {
    start: u64,
    end: u64,
    path: Path,
    below: u32,
    above: u32,
    /// Depth of `above` on the path, or [`NO_GAP`].
    above_depth: usize,
    /// Where the hole begins.
    floor: u64,
}

impl Avl {
    /// Makes room for `additional` inserts, so that none of them allocates: called before an
    /// operation that must not fail half-way.
    ///
    /// # Errors
    /// [`AllocError`] when there is no memory for so many nodes, or when they would have no ids
    /// (the arena ends at 2^32 - 1 slots). The tree is as before.
    pub fn reserve(&mut self, additional: usize) -> Result<(), AllocError> {
        let refused = AllocError { wanted: additional };
        let free = self.keys.len() - self.len();
        let fresh = additional.saturating_sub(free);
        if fresh > NIL as usize - self.keys.len() {
            return Err(refused);
        }
        self.keys.try_reserve(fresh).map_err(|_| refused)?;
        self.rooms.try_reserve(fresh).map_err(|_| refused)?;
        self.cold.try_reserve(fresh).map_err(|_| refused)
    }

    /// Inserts `[start, end)`.
    ///
    /// # Errors
    /// [`InsertError`]; the tree is as before.
    #[doc(alias = "as_addseg")]
    #[doc(alias = "avl_add")]
    pub fn insert(&mut self, start: u64, end: u64) -> Result<NodeId, InsertError> {
        let place = self.locate(start, end, &mut Visits::default())?;
        self.insert_at(&place)
    }

    /// Finds the place of `[start, end)`, which must be free.
    ///
    /// # Errors
    /// [`InsertError`], with the lowest interval in the way.
    #[doc(alias = "avl_find")]
    #[inline] // a place is too long to be moved about
    pub fn locate(&self, start: u64, end: u64, visits: &mut Visits) -> Result<Place, InsertError> {
        if end <= start {
            return Err(InsertError::Empty);
        }
        if start < self.low || end > self.high {
            return Err(InsertError::OutOfLimits);
        }
        let mut path = Path::new();
        let (mut below, mut above, mut above_depth) = (NIL, NIL, NO_GAP);
        let mut at = self.root;
        while let Some(key) = self.keys.get(at as usize) {
            // Selected, not branched, as in `straddle`.
            let right = key.start <= start;
            below = select_unpredictable(right, at, below);
            above = select_unpredictable(right, above, at);
            above_depth = select_unpredictable(right, above_depth, path.len());
            path.push(at);
            at = select_unpredictable(right, key.kids[RIGHT], key.kids[LEFT]);
        }
        visits.0 += path.len() as u64;
        let floor = self.end_below(above);
        if start < floor {
            // `below` exists: only an interval could put the floor above the low limit.
            return Err(InsertError::Overlap { with: NodeId(below) });
        }
        if let Some(key) = self.keys.get(above as usize)
            && key.start < end
        {
            return Err(InsertError::Overlap { with: NodeId(above) });
        }
        Ok(Place { start, end, path, below, above, above_depth, floor })
    }

    /// Tells which intervals touch the place: the one that ends where it starts, and the one that starts where it ends.
    #[must_use]
    pub fn touching(&self, place: &Place) -> (Option<NodeId>, Option<NodeId>) {
        let below = if place.floor == place.start { place.below } else { NIL };
        let start = self.keys.get(place.above as usize).map(|key| key.start);
        let above = if start == Some(place.end) { place.above } else { NIL };
        (NodeId::from_link(below), NodeId::from_link(above))
    }

    /// Inserts the interval that `place` was located for; the tree has not been edited since.
    ///
    /// # Errors
    /// [`InsertError::NoMemory`], never after [`Avl::reserve`]; the tree is as before.
    pub fn insert_at(&mut self, place: &Place) -> Result<NodeId, InsertError> {
        let Place { start, end, path, below, above, above_depth, floor } = place;
        let (above, below) = (*above, *below);
        debug_assert_eq!(self.end_below(above), *floor, "A6: an edit made the place out of date");
        let cold = Cold { end: *end, next: above, prev: below };
        let new = self.take_slot(Key::leaf(*start), Room::leaf(start - floor), cold)?;
        // Nothing fails from here on.
        self.len += 1;
        self.thread_to(below, new, new, above);
        self.set_hole_start(above, *end);
        if path.len() == 0 {
            self.root = new;
        } else {
            let parent = path.at(path.len() - 1);
            let side = if parent == above { LEFT } else { RIGHT };
            self.keys[parent as usize].kids[side] = new;
        }
        self.mend(path, *above_depth);
        Ok(NodeId(new))
    }

    /// Removes the interval and returns its `[start, end)`; its id is free for reuse. A stale id
    /// answers `None`, and nothing changes.
    #[doc(alias = "as_removeseg")]
    #[doc(alias = "avl_remove")]
    pub fn remove(&mut self, id: NodeId) -> Option<(u64, u64)> {
        if !self.contains_id(id) {
            return None;
        }
        let gone = id.0;
        let Key { start, kids } = self.keys[id.index()];
        let augment = self.rooms[id.index()].augment;
        let Cold { end, next, prev } = self.cold[id.index()];
        let mut path = Path::new();
        let above_depth = self.descend(gone, start, &mut path);
        let depth = path.len() - 1;

        let (heir, mended_from) = match kids {
            [left, NIL] => {
                path.truncate(depth);
                (left, above_depth)
            }
            // By A5 the right child is a leaf, and so it is the successor.
            [NIL, right] => {
                self.rooms[right as usize].augment = augment;
                path.set(depth, right);
                (right, depth)
            }
            [_, _] => {
                self.take_out_next(next, gone, &mut path);
                path.set(depth, next);
                (next, depth)
            }
        };
        self.relink(&path, depth, gone, heir);
        self.thread_to(prev, next, prev, next);
        let floor = self.cold.get(prev as usize).map_or(self.low, |cold| cold.end);
        self.set_hole_start(next, floor);
        self.mend(&path, mended_from);
        self.give_slot(gone);
        self.len -= 1;
        Some((start, end))
    }

    /// Moves where the interval starts, up or down.
    ///
    /// # Errors
    /// [`ResizeError`]; the tree is as before.
    pub fn set_start(&mut self, id: NodeId, new: u64) -> Result<(), ResizeError> {
        if !self.contains_id(id) {
            return Err(ResizeError::NotInTree);
        }
        let old_start = self.keys[id.index()].start;
        let hole_start = self.hole_start(id.0);
        let cold = self.cold[id.index()];
        if new >= cold.end {
            return Err(ResizeError::Empty);
        }
        if new < self.low {
            return Err(ResizeError::OutOfLimits);
        }
        if new < hole_start {
            // Above the low limit and below the hole: there is a predecessor.
            return Err(ResizeError::Overlap { with: NodeId(cold.prev) });
        }
        let mut path = Path::new();
        self.descend(id.0, old_start, &mut path);
        self.keys[id.index()].start = new;
        self.rooms[id.index()].gap = new - hole_start;
        self.mend(&path, path.len() - 1);
        Ok(())
    }

    /// Moves where the interval ends, up or down.
    ///
    /// # Errors
    /// [`ResizeError`]; the tree is as before.
    pub fn set_end(&mut self, id: NodeId, new: u64) -> Result<(), ResizeError> {
        if !self.contains_id(id) {
            return Err(ResizeError::NotInTree);
        }
        if new <= self.keys[id.index()].start {
            return Err(ResizeError::Empty);
        }
        if new > self.high {
            return Err(ResizeError::OutOfLimits);
        }
        let next = self.cold[id.index()].next;
        let next_start = self.keys.get(next as usize).map_or(self.high, |key| key.start);
        if new > next_start {
            // Within the high limit and above the next start: there is a successor.
            return Err(ResizeError::Overlap { with: NodeId(next) });
        }
        self.cold[id.index()].end = new;
        self.set_hole_start(next, new);
        if next != NIL {
            let mut path = Path::new();
            self.descend(next, next_start, &mut path);
            self.mend(&path, path.len() - 1);
        }
        Ok(())
    }

    /// Starts to fetch what the mending of a walk through a node with `kids` will read. The way up asks at each level for the words of both children, on lines of
    /// their own that are in no cache near the leaves of a large tree, and what it does next hangs on the answer; on the way down they can be had all at once.
    #[inline]
    fn fetch_rooms(&self, kids: [u32; 2]) {
        for kid in kids {
            if let Some(room) = self.rooms.get(kid as usize) {
                prefetch_read(room);
            }
        }
    }
    /// Starts to fetch what taking out or moving the interval `id` reads besides its way from the root: its neighbours. For a caller who has something to do before.
    pub(crate) fn fetch_neighbours(&self, id: NodeId) {
        let Some(cold) = self.cold.get(id.index()) else { return };
        for at in [cold.prev, cold.next] {
            if let Some(cold) = self.cold.get(at as usize) {
                prefetch_read(cold);
            }
        }
        self.fetch_rooms([id.0, cold.next]);
    }

    /// Walks from the root to `target`, which is in the tree and starts at `start`, and leaves the
    /// way in `path`, `target` last. Returns the depth of the lowest of its ancestors that come
    /// after it in address order, or [`NO_GAP`].
    fn descend(&self, target: u32, start: u64, path: &mut Path) -> usize {
        let mut above_depth = NO_GAP;
        let mut at = self.root;
        while at != target {
            let key = &self.keys[at as usize];
            self.fetch_rooms(key.kids);
            let right = key.start <= start;
            above_depth = select_unpredictable(right, above_depth, path.len());
            path.push(at);
            at = select_unpredictable(right, key.kids[RIGHT], key.kids[LEFT]);
        }
        path.push(target);
        above_depth
    }

    /// Takes `next`, the successor of `gone`, out of the right subtree of `gone` and gives it the
    /// children and the augmentation of `gone`. `path` ends at `gone` on entry and at the old
    /// parent of `next` on return (which is `gone` itself if `next` was its child).
    fn take_out_next(&mut self, next: u32, gone: u32, path: &mut Path) {
        let [left, right] = self.keys[gone as usize].kids;
        let mut new_right = self.keys[next as usize].kids[RIGHT];
        if right != next {
            let mut parent = right;
            path.push(parent);
            while self.keys[parent as usize].kids[LEFT] != next {
                parent = self.keys[parent as usize].kids[LEFT];
                path.push(parent);
            }
            self.keys[parent as usize].kids[LEFT] = new_right;
            new_right = right;
        }
        self.keys[next as usize].kids = [left, new_right];
        self.rooms[next as usize].augment = self.rooms[gone as usize].augment;
    }

    /// Makes whatever pointed at `old`, which stood at `depth` of `path`, point at `new`.
    fn relink(&mut self, path: &Path, depth: usize, old: u32, new: u32) {
        if depth == 0 {
            self.root = new;
            return;
        }
        let kids = &mut self.keys[path.at(depth - 1) as usize].kids;
        let side = if kids[LEFT] == old { LEFT } else { RIGHT };
        kids[side] = new;
    }

    /// Sets the forward link of `low` and the backward link of `high`; an absent one stands for the
    /// ends of the thread.
    fn thread_to(&mut self, low: u32, after_low: u32, before_high: u32, high: u32) {
        match self.cold.get_mut(low as usize) {
            Some(cold) => cold.next = after_low,
            None => self.first = after_low,
        }
        match self.cold.get_mut(high as usize) {
            Some(cold) => cold.prev = before_high,
            None => self.last = before_high,
        }
    }

    /// Says where the hole below `above` begins, or where the tail does. Its ancestors are mended
    /// by the caller.
    fn set_hole_start(&mut self, above: u32, floor: u64) {
        match self.keys.get(above as usize) {
            Some(key) => self.rooms[above as usize].gap = key.start - floor,
            None => self.tail = floor,
        }
    }

    /// Puts heights, balance and largest gaps right from the end of `path` to the root. Stops where
    /// a subtree comes out as it was, but not below `gap_depth`, the least depth at which a gap
    /// was changed: what lies between looks unchanged and the node there is not.
    ///
    /// A node that comes out as it was is not written: another processor may be reading its line.
    fn mend(&mut self, path: &Path, gap_depth: usize) {
        // What was mended last, and what it came out as. Its parent then asks for the other child alone: a word just stored is dear to read back at once, and
        // heights and gaps are the same whichever child is which.
        let mut below = None;
        for depth in (0..path.len()).rev() {
            let at = path.at(depth);
            let kids = self.keys[at as usize].kids;
            let [one, other] = match below {
                Some((kid, augment)) => [augment, self.augment(kids[LEFT] ^ kids[RIGHT] ^ kid)],
                None => kids.map(|kid| self.augment(kid)),
            };
            let room = &mut self.rooms[at as usize];
            let before = room.augment;
            let (top, after) = if height_of(one).abs_diff(height_of(other)) <= 1 {
                let after = joined(room.gap, one, other);
                if after != before {
                    room.augment = after;
                }
                (at, after)
            } else {
                let [left, right] = kids.map(|kid| height_of(self.augment(kid)));
                let top = self.rotate(at, if left > right { LEFT } else { RIGHT });
                self.relink(path, depth, at, top);
                (top, self.rooms[top as usize].augment)
            };
            if after == before && depth <= gap_depth {
                break;
            }
            below = Some((top, after));
        }
    }

    /// Restores A5 at `at`, whose subtrees hold A4, A5 and A7 and whose child on `side` is higher by two. Returns the new top.
    fn rotate(&mut self, at: u32, side: usize) -> u32 {
        let high = self.keys[at as usize].kids[side];
        let kids = self.keys[high as usize].kids.map(|kid| height_of(self.augment(kid)));
        if kids[1 - side] > kids[side] {
            self.keys[at as usize].kids[side] = self.raise(high, 1 - side);
        }
        self.raise(at, side)
    }

    /// Rotates the child on `side` of `at` above it, and returns that child.
    pub(super) fn raise(&mut self, at: u32, side: usize) -> u32 {
        let up = self.keys[at as usize].kids[side];
        self.keys[at as usize].kids[side] = self.keys[up as usize].kids[1 - side];
        self.keys[up as usize].kids[1 - side] = at;
        self.refresh(at);
        self.refresh(up);
        up
    }

    /// Computes height and largest gap of `at` from its own gap and its children (A4, A7).
    fn refresh(&mut self, at: u32) {
        let [left, right] = self.keys[at as usize].kids.map(|kid| self.augment(kid));
        let room = &mut self.rooms[at as usize];
        room.augment = joined(room.gap, left, right);
    }

    #[inline]
    fn augment(&self, at: u32) -> u64 {
        self.rooms.get(at as usize).map_or(0, |room| room.augment)
    }

    /// Takes the slot freed last, or a new one at the end of the arena.
    fn take_slot(&mut self, key: Key, room: Room, cold: Cold) -> Result<u32, InsertError> {
        if self.free != NIL {
            let (free, slot) = (self.free, self.free as usize);
            self.free = self.cold[slot].next;
            (self.keys[slot], self.rooms[slot], self.cold[slot]) = (key, room, cold);
            return Ok(free);
        }
        self.reserve(1).map_err(|_| InsertError::NoMemory)?;
        let slot = self.keys.len() as u32; // below NIL, as `reserve` checked
        self.keys.push(key);
        self.rooms.push(room);
        self.cold.push(cold);
        Ok(slot)
    }

    /// Marks the slot free and puts it first on the free list.
    fn give_slot(&mut self, slot: u32) {
        self.keys[slot as usize] = Key::leaf(0);
        self.rooms[slot as usize] = Room { gap: 0, augment: 0 };
        self.cold[slot as usize] = Cold { end: 0, next: self.free, prev: NIL };
        self.free = slot;
    }
}

/// Height and largest gap of a node, from its own gap and the words of its children.
const fn joined(gap: u64, left: u64, right: u64) -> u64 {
    // The heights in the low bits may decide the maximum of two equal gaps; `pack` cuts them off.
    let kids = if left > right { left } else { right };
    let (left_height, right_height) = (left & HEIGHT_MASK, right & HEIGHT_MASK);
    let height = 1 + if left_height > right_height { left_height } else { right_height };
    pack(if gap > kids { gap } else { kids }, height)
}
