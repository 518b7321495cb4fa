//! Copying an anon map: the radix level by level, the slots a chunk at a time.
//!
//! ```text
//!   source   block ─▶ block ─▶ chunk [ a b . c ]      each chunk: all its bits busy, once; a, b, c get a reference each
//!              │        │        │
//!   copy     block ─▶ block ─▶ chunk [ a b . c ]      same shape, same places; nobody else can reach it, so plain stores
//! ```
//!
//! The cost is a load and a store for a slot, and a load and a store for its anon's count: where the count says 1, this thread holds the only
//! slot there is, busy, and nobody else may change the count (N3), so adding takes no locked instruction.
//!
//! Where others use the map a slot may be busy for as long as a page is read from swap, and whoever waits for it must not have the shape locked: the first
//! touch of a chunk, an unmap and much else of every sharer would stand behind another's disk. So with the shape locked slots are only tried. From the first
//! chunk that somebody is at work in the rest is copied chunk by chunk, the shape locked to find the next one only.
//!
//! Sources: uvm.md 2.2; the Keyronex document (copies level by level).

use super::array::{CHUNK, Chunk, Shape, bits, owner_word, under};
use super::home::AnonHome;
use super::map::AnonMap;
use super::slots::mask_of;
use alloc::sync::Arc;
use core::ops::Range;
use page_db::sync::ArenaFull;
use page_db::sync::atomic::Ordering;
use page_db::{Counter, Cx, Rank};

/// What is copied, and where to.
struct Copying<'a> {
    cx: &'a Cx,
    to: &'a AnonMap,
    /// The slots wanted.
    range: Range<u64>,
    keep: Option<&'a dyn Fn(u64) -> bool>,
}

/// Why a radix is not copied to its end.
enum Stop {
    Full(ArenaFull),
    /// Somebody is at work in the chunk whose first slot this is.
    Busy(u64),
}

impl AnonMap {
    /// A new map, made at `home`, whose slots of `range` hold what this one's do, each anon with one reference more. Without `keep` all of
    /// them are copied, else those it says.
    ///
    /// # Errors
    /// [`ArenaFull`]; nothing is left behind.
    #[doc(alias("anon_dup", "amap_copy", "anon_copy_ptr"))]
    pub fn dup(
        &self,
        cx: &Cx,
        home: &Arc<AnonHome>,
        range: Range<u64>,
        keep: Option<&dyn Fn(u64) -> bool>,
    ) -> Result<Arc<Self>, ArenaFull> {
        let to = Self::new(home, 0);
        let c = Copying { cx, to: &to, range: range.clone(), keep };
        let done = match self.copy_radix(&c) {
            Err(Stop::Busy(at)) => self.copy_chunks(&c, at.max(range.start)..range.end),
            Err(Stop::Full(e)) => Err(e),
            Ok(()) => Ok(()),
        };
        if done.is_err() {
            to.lose(cx, range.clone(), range);
        }
        done.map(|()| to)
    }
    /// Copies what others are at work in, from where the radix was left.
    fn copy_chunks(&self, c: &Copying<'_>, rest: Range<u64>) -> Result<(), ArenaFull> {
        let mut done = Ok(());
        self.each_chunk(c.cx, rest, |from, at, mask| {
            let wanted = c.of(from.used() & mask, at);
            if wanted != 0 {
                // Without `grow`: nobody else reaches the copy.
                done = c.to.add_chunk(c.cx, at).map(|to| self.copy_slots(from, to, wanted));
            }
            done.is_ok()
        });
        done
    }
    fn copy_radix(&self, c: &Copying<'_>) -> Result<(), Stop> {
        let _grow = self.grow.lock(c.cx);
        // held: this map's shape; the copy is reached by nobody else
        let s = self.shape();
        let mut fresh = Shape { roots: [0; 2], ..s };
        let mut done = Ok(());
        if self.inside(s, c.range.clone()).is_some() {
            for (half, root) in s.roots.into_iter().enumerate().filter(|(_, root)| *root != 0) {
                let at = s.origin.wrapping_add(half as u64 * CHUNK);
                done = done
                    .and_then(|()| self.copy_node(c, root, s.height, at, &mut fresh.roots[half]));
            }
        }
        // Whatever there is is hung up, also after a failure: so it is found and freed.
        c.to.shape.store(if fresh.is_empty() { Shape::default() } else { fresh });
        done
    }
    /// Copies what is under `id`, whose first slot is `at`, and stores the copy's id in `out`; 0 when nothing of it is wanted.
    fn copy_node(
        &self,
        c: &Copying<'_>,
        id: u32,
        height: u32,
        at: u64,
        out: &mut u32,
    ) -> Result<(), Stop> {
        if height == 0 {
            return self.copy_chunk(c, id, at, out);
        }
        let blocks = &self.layer().blocks;
        let fresh = blocks.alloc(c.cx).map_err(Stop::Full)?;
        let step = under(height - 1);
        let (mut any, mut done) = (false, Ok(()));
        for (e, (from, to)) in (0..).zip(self.entries(id).iter().zip(self.entries(fresh))) {
            let first = at.wrapping_add(e * step);
            let child = from.load(Ordering::Acquire);
            if child == 0 || !c.wants(first, step) {
                continue;
            }
            let mut copy = 0;
            done = self.copy_node(c, child, height - 1, first, &mut copy);
            if copy != 0 {
                to.store(copy, Ordering::Release);
                any = true;
            }
            if done.is_err() {
                break;
            }
        }
        if any {
            *out = fresh;
        } else {
            blocks.free(c.cx, fresh);
        }
        done
    }
    fn copy_chunk(&self, c: &Copying<'_>, id: u32, at: u64, out: &mut u32) -> Result<(), Stop> {
        let from = self.layer().chunks.get(id);
        let mask = mask_of(at, &c.range);
        if mask == 0 {
            return Ok(());
        }
        if !from.try_busy(mask) {
            return Err(Stop::Busy(at));
        }
        c.cx.rank_tried(Rank::AnonSlot);
        debug_assert_eq!(
            from.owner.load(Ordering::SeqCst),
            owner_word(self.id, at),
            "H1: a chunk in the radix is its map's, under its lock"
        );
        c.cx.count_n(Counter::AnonSlots, u64::from(mask.count_ones()));
        let used = from.used();
        let wanted = c.of(used & mask, at);
        let mut done = Ok(());
        if wanted != 0 {
            done = self.layer().chunks.alloc(c.cx).map_err(Stop::Full).map(|to| {
                self.copy_slots(from, to, wanted);
                self.layer().chunks.get(to).owner.store(owner_word(c.to.id, at), Ordering::Release);
                *out = to;
            });
        }
        self.drop_bits(c.cx, from, id, mask, used);
        done
    }
    /// Puts what the slots `wanted` of a busy chunk hold into a fresh one of the copy.
    fn copy_slots(&self, from: &Chunk, to: u32, wanted: u32) {
        let layer = self.layer();
        let to = layer.chunks.get(to);
        debug_assert_eq!(to.used(), 0, "H1: a free chunk is empty");
        let mut counts = layer.anons.run();
        for i in bits(wanted) {
            let n = from.slots[i].load(Ordering::Relaxed);
            counts.inc_busy(n);
            to.slots[i].store(n, Ordering::Relaxed);
        }
        // A walker with an old id may have slots busy for a moment: its bits stay as they are.
        to.bits.fetch_or(u64::from(wanted) << 32, Ordering::SeqCst);
    }
}

impl Copying<'_> {
    /// Which of the slots `held` of the chunk at `at` are copied.
    fn of(&self, held: u32, at: u64) -> u32 {
        let Some(keep) = self.keep else { return held };
        bits(held).filter(|i| keep(at.wrapping_add(*i as u64))).fold(0, |m, i| m | 1 << i)
    }
    /// Whether any of the `slots` slots from `first` on is wanted.
    fn wants(&self, first: u64, slots: u64) -> bool {
        let end = first.wrapping_add(slots);
        (first.wrapping_sub(self.range.end) as i64) < 0
            && (self.range.start.wrapping_sub(end) as i64) < 0
    }
}
