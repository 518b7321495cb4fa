//! An array with one padded entry for each CPU, sized at boot.

use crate::cx::Cx;
use crate::heap::{self, NoHeap};
use alloc::boxed::Box;
use core::fmt;
use crossbeam_utils::CachePadded;

/// One `T` for each CPU, each on cache lines of its own.
pub struct PerCpu<T> {
    entries: Box<[CachePadded<T>]>,
}

impl<T> PerCpu<T> {
    /// Entries for `cpus` processors (at least one), made in order.
    pub fn new(cpus: u16, mut make: impl FnMut(u16) -> T) -> Self {
        Self { entries: (0..cpus.max(1)).map(|c| CachePadded::new(make(c))).collect() }
    }
    /// As [`PerCpu::new`], of entries that want heap.
    ///
    /// # Errors
    /// [`NoHeap`].
    pub fn try_new(
        cpus: u16,
        mut make: impl FnMut(u16) -> Result<T, NoHeap>,
    ) -> Result<Self, NoHeap> {
        let entry = |cpu: usize| Ok(CachePadded::new(make(cpu as u16)?));
        Ok(Self { entries: heap::try_boxed(usize::from(cpus.max(1)), entry)? })
    }
    /// The entry of the CPU `cx` runs on. An index past the end wraps: two CPUs may share an entry, never fall off.
    #[inline]
    pub fn mine(&self, cx: &Cx) -> &T {
        self.get(usize::from(cx.cpu().0))
    }
    /// All entries, in order of CPU.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|e| &**e)
    }
    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// The entry of CPU `index`, wrapped as in [`PerCpu::mine`].
    #[inline]
    pub fn get(&self, index: usize) -> &T {
        // A division costs more than all else here, and the index is in range but on a machine told wrongly of its processors.
        self.entries.get(index).unwrap_or_else(|| &self.entries[index % self.entries.len()])
    }
}

impl<T: fmt::Debug> fmt::Debug for PerCpu<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
