//! Runs in order, in blocks: an ordered map that can ask for memory before it changes.

use alloc::vec::Vec;
use core::ops::Range;
use page_db::heap::NoHeap;

/// Runs of a block, so that an insertion moves two kilobytes at most.
const BLOCK: usize = 64;

/// A run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run<V> {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) v: V,
}

/// Where a run is: the block, and the place in it.
pub(super) type At = (usize, usize);

/// The runs. No block is empty, none has more than [`BLOCK`].
#[derive(Debug)]
pub(super) struct Store<V> {
    blocks: Vec<Vec<Run<V>>>,
    /// Blocks for insertions to come, with room for [`BLOCK`] each.
    spare: Vec<Vec<Run<V>>>,
    /// Room has been made and not been let go of.
    roomy: bool,
}

impl<V: Copy> Store<V> {
    pub(super) const fn new() -> Self {
        Self { blocks: Vec::new(), spare: Vec::new(), roomy: false }
    }
    pub(super) fn is_roomy(&self) -> bool {
        self.roomy
    }
    pub(super) fn get(&self, (block, i): At) -> Option<Run<V>> {
        self.blocks.get(block)?.get(i).copied()
    }
    pub(super) fn set(&mut self, (block, i): At, run: Run<V>) {
        self.blocks[block][i] = run;
    }
    /// Where the first run is that ends behind `at`, or the end.
    pub(super) fn seek(&self, at: u64) -> At {
        let block = self.blocks.partition_point(|b| b.last().is_none_or(|r| r.end <= at));
        (block, self.blocks.get(block).map_or(0, |b| b.partition_point(|r| r.end <= at)))
    }
    pub(super) fn after(&self, (block, i): At) -> At {
        if i + 1 < self.blocks[block].len() { (block, i + 1) } else { (block + 1, 0) }
    }
    /// The only run, if there is only one.
    pub(super) fn only(&self) -> Option<Run<V>> {
        match &*self.blocks {
            [block] if block.len() == 1 => block.first().copied(),
            _ => None,
        }
    }
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = &Run<V>> {
        self.blocks.iter().flatten()
    }
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Run<V>> {
        self.blocks.iter_mut().flatten()
    }
    /// Puts a run in before the one that is at a place. In the room that was made, or the heap must give it.
    pub(super) fn insert(&mut self, (block, i): At, run: Run<V>) {
        // At the end of everything the last block goes on.
        let (block, i) = match self.blocks.last() {
            None => {
                let fresh = self.spare.pop().unwrap_or_default();
                self.blocks.push(fresh);
                (0, 0)
            }
            Some(last) if block == self.blocks.len() => (block - 1, last.len()),
            Some(_) => (block, i),
        };
        if self.blocks[block].len() < BLOCK {
            self.blocks[block].insert(i, run);
            return;
        }
        let mut high = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK));
        high.extend(self.blocks[block].drain(BLOCK / 2..));
        self.blocks.insert(block + 1, high);
        let (block, i) = if i <= BLOCK / 2 { (block, i) } else { (block + 1, i - BLOCK / 2) };
        self.blocks[block].insert(i, run);
    }
    pub(super) fn remove(&mut self, (block, i): At) {
        self.blocks[block].remove(i);
        if self.blocks[block].is_empty() {
            self.blocks.remove(block);
        }
    }
    /// Makes room, so that two changes of the runs and gaps of `range` ask for nothing.
    pub(super) fn make_room(&mut self, range: &Range<u64>) -> Result<(), NoHeap> {
        let (first, from) = self.seek(range.start.saturating_sub(1));
        let width = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut spare = usize::from(self.blocks.is_empty());
        // An insertion at the end of a block is one at the end of the block before.
        let mut block = first.min(self.blocks.len().saturating_sub(1));
        if from == 0 {
            block = block.saturating_sub(1);
        }
        while let Some(b) = self.blocks.get_mut(block) {
            // The gap before each run of the range may become a run, and the gap behind the last one; two runs may be cut.
            let fresh = width.min(b.len()) + 3;
            if b.len() + fresh > BLOCK {
                // The first split comes with the insertion that finds the block full, each further one half a block of insertions later; and all that
                // for two changes.
                spare += 2 * (1 + (b.len() + fresh - BLOCK - 1) / (BLOCK / 2));
                b.try_reserve_exact(BLOCK - b.len()).map_err(|_| NoHeap)?;
            } else {
                b.try_reserve(fresh).map_err(|_| NoHeap)?;
            }
            block += 1;
            if b.last().is_some_and(|r| r.start > range.end) {
                break;
            }
        }
        self.spare_blocks(spare)
    }
    fn spare_blocks(&mut self, n: usize) -> Result<(), NoHeap> {
        self.roomy = true;
        self.blocks.try_reserve(n).map_err(|_| NoHeap)?;
        self.spare.truncate(n);
        let missing = n - self.spare.len();
        self.spare.try_reserve(missing).map_err(|_| NoHeap)?;
        for _ in 0..missing {
            self.spare.push(block()?);
        }
        Ok(())
    }
    /// Makes room for `n` runs, wherever they come to lie among those that follow one of `places` now.
    pub(super) fn make_room_at(&mut self, places: &[u64], n: usize) -> Result<(), NoHeap> {
        for at in places {
            // As an insertion finds it; where it is between two blocks, either may be meant.
            let (block, i) = self.seek(*at);
            let last = self.blocks.len().saturating_sub(1);
            for block in [block.min(last), if i == 0 { block.saturating_sub(1) } else { block }] {
                if let Some(b) = self.blocks.get_mut(block) {
                    b.try_reserve_exact(BLOCK - b.len()).map_err(|_| NoHeap)?;
                }
            }
        }
        // A block is split when it is full: each that is here already once, each new one after half a block of runs.
        self.spare_blocks(1 + 2 * places.len() + n.div_ceil(BLOCK / 2))
    }
    /// Puts a run behind all others.
    pub(super) fn try_push(&mut self, run: Run<V>) -> Result<(), NoHeap> {
        if self.blocks.last().is_none_or(|b| b.len() == BLOCK) {
            self.blocks.try_reserve(1).map_err(|_| NoHeap)?;
            self.blocks.push(Vec::new());
        }
        let Some(last) = self.blocks.last_mut() else { return Err(NoHeap) };
        if last.try_reserve(1).is_err() {
            if last.is_empty() {
                self.blocks.pop();
            }
            return Err(NoHeap);
        }
        last.push(run);
        Ok(())
    }
    /// Lets go of the room that is left.
    pub(super) fn trim(&mut self) {
        self.spare = Vec::new();
        self.roomy = false;
    }
    pub(super) fn verify(&self) -> bool {
        self.blocks.iter().all(|b| !b.is_empty() && b.len() <= BLOCK)
    }
}

/// An empty block.
fn block<V>() -> Result<Vec<Run<V>>, NoHeap> {
    let mut block = Vec::new();
    block.try_reserve_exact(BLOCK).map_err(|_| NoHeap)?;
    Ok(block)
}
