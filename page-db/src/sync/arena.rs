//! A growing, type-stable store of small records named by `u32` ids.
//!
//! Anons, chunks of anon maps, page tables, mappings and vnodes are all records that many threads reach by id, and that
//! are freed and used again while somebody may still hold a stale id. So a record never moves and never becomes
//! another type: an old id reads a live record of the same kind, and the record's own fields say whether it is still the one meant.
//!
//! The records lie in a [`GrowTable`].
//!
//! - R1: id 0 is never handed out; it means "none" in links.
//! - R2: ids come back last-freed-first from the CPU's own magazine, then from the depot, at last from other CPUs' magazines;
//!   single-threaded use is deterministic.
//! - R3: `live` counts ids handed out; it is exact when quiet.
//! - R4: giving an id back cannot fail and allocates nothing.
//! - R5: the heap is asked with no lock held (N1 of [`super::spin`]): whoever finds neither old ids nor records for new ones lets go of its
//!   magazine, makes them (a bucket may be large) and looks again. Whoever comes first uses them.

use super::atomic::{AtomicU32, AtomicU64, Ordering};
use super::{GrowTable, PerCpu, SpinMutex, SpinMutexGuard};
use crate::cx::Cx;
use crate::fail::FailKind;
use crate::lock::Rank;
use alloc::vec::Vec;
use core::fmt;

/// Ids held by a magazine at most.
const MAGAZINE: usize = 32;
/// log2 of the first bucket's size.
const FIRST: u32 = 6;

/// No more ids or no heap for another bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("arena of {what} is full ({live} live)")]
pub struct ArenaFull {
    /// What the arena holds.
    pub what: &'static str,
    /// Ids handed out at that moment.
    pub live: u64,
}

/// One CPU's free ids, and beside them what can be read without the lock.
struct Stock {
    magazine: SpinMutex<Vec<u32>>,
    /// Ids handed out less ids given back on this CPU, wrapping; written under the lock.
    live: AtomicU64,
}

impl Stock {
    /// Adds `n` (wrapping) to the count of ids handed out here. The caller holds the magazine.
    fn count(&self, n: u64) {
        self.live.store(self.live.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

/// What an empty magazine found in the depot.
enum Restock {
    /// It has ids now.
    Filled,
    /// There are new ids, but records or room for those below this one only when they are made.
    Grow(u32),
    /// Every id up to the limit has been handed out.
    Empty,
}

struct Depot {
    free: Vec<u32>,
    next: u32,
}

/// The store.
pub struct Arena<T> {
    what: &'static str,
    limit: u32,
    records: GrowTable<T, FIRST>,
    stocks: PerCpu<Stock>,
    depot: SpinMutex<Depot>,
    high: AtomicU32,
}

impl<T: Default> Arena<T> {
    /// An empty store of at most `limit` records; `what` names them in errors.
    pub fn new(what: &'static str, cpus: u16, limit: u32) -> Self {
        Self {
            what,
            limit: limit.min(u32::MAX - (1 << FIRST)),
            records: GrowTable::new(),
            stocks: PerCpu::new(cpus, |_| Stock {
                magazine: SpinMutex::new(Rank::Arena, Vec::with_capacity(MAGAZINE)),
                live: AtomicU64::new(0),
            }),
            depot: SpinMutex::new(Rank::Arena, Depot { free: Vec::new(), next: 1 }),
            high: AtomicU32::new(0),
        }
    }
    /// The record named `id`, which has been handed out at least once.
    ///
    /// # Panics
    /// When `id` was never handed out: ids come from this arena only (R1).
    #[inline]
    pub fn get(&self, id: u32) -> &T {
        self.records.get(id).expect("R1: ids come from this arena")
    }
    /// The record named `id`, or `None` for 0 and ids never handed out.
    #[inline]
    pub fn try_get(&self, id: u32) -> Option<&T> {
        if id == 0 || id > self.high.load(Ordering::Acquire) { None } else { self.records.get(id) }
    }
    /// The record named `id` or one never handed out, which is as it was made; `None` where none was made. For records that say themselves whether they are
    /// somebody's.
    #[inline]
    pub fn peek(&self, id: u32) -> Option<&T> {
        self.records.get(id)
    }
    /// Hands out an id. The record is as its last user left it, or `T::default()`.
    ///
    /// # Errors
    /// [`ArenaFull`] when every id up to the limit is in use or the heap refuses; nothing is changed.
    pub fn alloc(&self, cx: &Cx) -> Result<u32, ArenaFull> {
        if cx.fails(FailKind::Record) {
            return Err(ArenaFull { what: self.what, live: self.live() });
        }
        let stock = self.stocks.mine(cx);
        if let Some(mut mag) = self.stocked(cx, stock)
            && let Some(id) = mag.pop()
        {
            stock.count(1);
            return Ok(id);
        }
        self.steal(cx)
    }
    /// Hands out as many ids as this CPU has at hand, `ids.len()` at most; how many. For what would be asked for one by one right afterwards.
    pub fn alloc_some(&self, cx: &Cx, ids: &mut [u32]) -> usize {
        if cx.fails(FailKind::Record) {
            return 0;
        }
        let stock = self.stocks.mine(cx);
        let Some(mut mag) = self.stocked(cx, stock) else { return 0 };
        let n = mag.len().min(ids.len());
        ids[..n].iter_mut().for_each(|id| *id = mag.pop().unwrap_or(0));
        stock.count(n as u64);
        n
    }
    /// This CPU's magazine with an id in it or more; `None` when neither old nor new ids are to be had.
    #[inline]
    fn stocked<'a>(&'a self, cx: &'a Cx, stock: &'a Stock) -> Option<SpinMutexGuard<'a, Vec<u32>>> {
        loop {
            let mut mag = stock.magazine.lock(cx);
            if !mag.is_empty() {
                return Some(mag);
            }
            match self.restock(cx, &mut mag) {
                Restock::Filled => return Some(mag),
                Restock::Empty => return None,
                Restock::Grow(end) => {
                    drop(mag);
                    self.grow(cx, end)?;
                }
            }
        }
    }
    /// Moves ids from the depot to an empty magazine, or new ones whose records are there. held: the magazine
    #[cold]
    fn restock(&self, cx: &Cx, mag: &mut Vec<u32>) -> Restock {
        let mut depot = self.depot.lock_nested(cx); // the magazine before the depot
        let keep = depot.free.len().saturating_sub(MAGAZINE / 2);
        if keep < depot.free.len() {
            mag.extend(depot.free.drain(keep..));
            return Restock::Filled;
        }
        let fresh = (MAGAZINE as u32 / 2).min(self.limit.saturating_sub(depot.next - 1));
        if fresh == 0 {
            return Restock::Empty;
        }
        let end = depot.next + fresh;
        let made = |id| self.records.get(id).is_some();
        if depot.free.capacity() < end as usize || !made(depot.next) || !made(end - 1) {
            return Restock::Grow(end);
        }
        mag.extend((depot.next..end).rev());
        depot.next = end;
        self.high.store(end - 1, Ordering::Release);
        Restock::Filled
    }
    /// Makes the last records below `end`, and room for every id below it to come back, for freeing allocates nothing (R4); `None` when the heap
    /// refuses. held: nothing (R5)
    #[cold]
    fn grow(&self, cx: &Cx, end: u32) -> Option<()> {
        // A magazine's worth is less than the smallest bucket, so they lie in at most two.
        for id in [end.saturating_sub(MAGAZINE as u32 / 2), end - 1] {
            self.records.ensure(id)?;
        }
        if self.depot.lock(cx).free.capacity() < end as usize {
            let mut room = Vec::new();
            room.try_reserve_exact((end as usize).next_power_of_two()).ok()?;
            let mut depot = self.depot.lock(cx);
            if depot.free.capacity() < room.capacity() {
                room.append(&mut depot.free); // few, if any: there were none a moment ago
                core::mem::swap(&mut depot.free, &mut room);
            }
            drop(depot); // before what was too small
        }
        Some(())
    }
    /// The last ids may lie in magazines of other CPUs.
    #[cold]
    fn steal(&self, cx: &Cx) -> Result<u32, ArenaFull> {
        for stock in self.stocks.iter() {
            let mut mag = stock.magazine.lock(cx);
            if let Some(id) = mag.pop() {
                stock.count(1);
                return Ok(id);
            }
        }
        // A rival may have put some into the depot meanwhile; then this answer was true a moment ago.
        Err(ArenaFull { what: self.what, live: self.live() })
    }
    /// Gives an id back. The caller has made the record say that it is nobody's.
    pub fn free(&self, cx: &Cx, id: u32) {
        debug_assert!(id != 0, "R1: 0 is never handed out");
        let stock = self.stocks.mine(cx);
        let mut mag = stock.magazine.lock(cx);
        if mag.len() >= MAGAZINE {
            let mut depot = self.depot.lock_nested(cx);
            depot.free.extend(mag.drain(..MAGAZINE / 2));
        }
        mag.push(id);
        stock.count(1u64.wrapping_neg());
    }
    /// Ids handed out and not given back (R3).
    pub fn live(&self) -> u64 {
        self.stocks.iter().fold(0, |n, s| n.wrapping_add(s.live.load(Ordering::Relaxed)))
    }
    /// The largest id ever handed out; walks visit `1..=high`.
    pub fn high(&self) -> u32 {
        self.high.load(Ordering::Acquire)
    }
}

impl<T> fmt::Debug for Arena<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("what", &self.what)
            .field("high", &self.high.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::testing::cx;

    #[test]
    fn freed_ids_come_back_last_first() {
        let cx = cx();
        let a = Arena::<AtomicU32>::new("test", 1, 1000);
        let ids: Vec<u32> = (0..200).map(|_| a.alloc(&cx).expect("room")).collect();
        assert_eq!(ids, (1..=200).collect::<Vec<_>>());
        a.free(&cx, 7);
        a.free(&cx, 9);
        assert_eq!(a.alloc(&cx), Ok(9));
        assert_eq!(a.alloc(&cx), Ok(7));
        assert_eq!(a.live(), 200);
    }

    #[test]
    fn the_last_ids_are_taken_from_other_magazines() {
        let counters = crate::Counters::new(2);
        let hooks = alloc::sync::Arc::new(crate::SpinHooks);
        let on =
            |cpu| Cx::new(&counters, crate::CpuId(cpu), crate::ThreadId(cpu.into()), hooks.clone());
        let (a, b) = (on(0), on(1));
        let arena = Arena::<AtomicU32>::new("test", 2, 16);
        // The first refill of CPU 0 takes all sixteen.
        assert_eq!(arena.alloc(&a), Ok(1));
        let mut rest: Vec<u32> =
            (1..16).map(|_| arena.alloc(&b).expect("CPU 0 has some")).collect();
        rest.sort_unstable();
        assert_eq!(rest, (2..=16).collect::<Vec<_>>());
        assert_eq!(arena.alloc(&b), Err(ArenaFull { what: "test", live: 16 }));
    }

    #[test]
    fn no_id_has_two_owners_under_threads() {
        let counters = crate::Counters::new(3);
        let hooks = alloc::sync::Arc::new(crate::SpinHooks);
        let arena = Arena::<AtomicU32>::new("test", 3, 500);
        std::thread::scope(|s| {
            for t in 0..4u16 {
                let cx =
                    Cx::new(&counters, crate::CpuId(t), crate::ThreadId(t.into()), hooks.clone());
                let arena = &arena;
                s.spawn(move || {
                    let mut mine = Vec::new();
                    let mut lot = crate::testing::Lot(u64::from(t) + 99);
                    for _ in 0..20_000 {
                        if lot.below(2) == 0 {
                            // Four threads wanting 150 each do not fit: some are refused.
                            if mine.len() < 150
                                && let Ok(id) = arena.alloc(&cx)
                            {
                                let was = arena.get(id).swap(u32::from(t) + 1, Ordering::SeqCst);
                                assert_eq!(was, 0, "id {id} had an owner");
                                mine.push(id);
                            }
                        } else if !mine.is_empty() {
                            let id = mine.swap_remove(lot.below(mine.len() as u64) as usize);
                            arena.get(id).store(0, Ordering::SeqCst);
                            arena.free(&cx, id);
                        }
                    }
                    for id in mine {
                        arena.get(id).store(0, Ordering::SeqCst);
                        arena.free(&cx, id);
                    }
                });
            }
        });
        assert_eq!(arena.live(), 0);
        assert!(arena.high() <= 500);
        // Every id can be had again.
        let cx = cx();
        let mut all: Vec<u32> = core::iter::from_fn(|| arena.alloc(&cx).ok()).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=500).collect::<Vec<_>>());
    }

    #[test]
    fn a_stale_id_reads_a_record_of_the_same_kind() {
        let cx = cx();
        let a = Arena::<AtomicU32>::new("test", 1, 1000);
        let id = a.alloc(&cx).expect("room");
        a.get(id).store(7, Ordering::Relaxed);
        a.free(&cx, id);
        assert_eq!(a.get(id).load(Ordering::Relaxed), 7);
        assert!(a.try_get(0).is_none() && a.try_get(a.high() + 1).is_none());
    }

    #[test]
    fn the_limit_is_an_error() {
        let cx = cx();
        let a = Arena::<AtomicU32>::new("test", 1, 3);
        for _ in 0..3 {
            a.alloc(&cx).expect("room");
        }
        assert_eq!(a.alloc(&cx), Err(ArenaFull { what: "test", live: 3 }));
        a.free(&cx, 2);
        assert_eq!(a.alloc(&cx), Ok(2));
    }

    #[test]
    fn giving_ids_back_wants_no_more_room() {
        let cx = cx();
        let a = Arena::<AtomicU32>::new("test", 1, 1000);
        let ids: Vec<u32> = core::iter::from_fn(|| a.alloc(&cx).ok()).collect();
        assert_eq!(ids, (1..=1000).collect::<Vec<_>>());
        let room = a.depot.lock(&cx).free.capacity();
        ids.iter().for_each(|id| a.free(&cx, *id));
        assert_eq!(a.depot.lock(&cx).free.capacity(), room, "R4");
        assert_eq!(a.live(), 0);
    }
}
