//! How often an operation that found no memory starts over.
//!
//! Nothing sleeps for memory where it wants it: the operation lets go of all it holds, waits, and starts over. Being told that memory is free proves nothing:
//!
//! - others may take it between the two;
//! - the operation may want more than it asked for. A page on the cache list is free until the operation itself takes it back, and is free once more when it
//!   lets go: it may be told of that page for ever, and need another one besides.
//!
//! So each time it asks for twice as much, up to what it can want at most and a bound of what can be free, and after some times it gives up. (Asking for more
//! than there can be would have every page evicted that anybody uses, and be refused. The bound is all frames but the reserve: what the kernel has, and what
//! is locked, comes and goes, so between the two the last attempt may still evict in vain.)

use super::PageDb;
use crate::cx::Cx;
use crate::error::PageError;

/// How often in a row an operation is told that memory is free and finds none. Once proves nothing; for ever would be a hang.
const MOST: u32 = 64;

/// The waits for memory of one operation.
#[derive(Debug)]
pub struct MemoryTries {
    /// Frames to ask for next.
    ask: u64,
    most: u64,
    tries: u32,
}

impl MemoryTries {
    /// For an operation that wants at most `most` frames at once, and asks for `first` of them at first, since a long one seldom wants all.
    pub const fn new(first: u64, most: u64) -> Self {
        Self { ask: first, most, tries: 0 }
    }
    /// The operation may want `pages` frames at once, it turns out.
    pub fn may_need(&mut self, pages: u64) {
        self.most = self.most.max(pages);
    }
    /// Waits until there is memory ([`PageDb::wait_for_memory`]); the caller holds no lock, and starts over.
    ///
    /// # Errors
    /// [`PageError::NoMemory`] when nothing can be reclaimed, or the operation has been here too often.
    pub fn wait(&mut self, cx: &Cx, db: &PageDb) -> Result<(), PageError> {
        self.tries += 1;
        if self.tries > MOST {
            return Err(db.no_memory(self.ask));
        }
        db.wait_for_memory(cx, self.ask)?;
        let mem = db.free_mem();
        let most = self.most.min(mem.total().saturating_sub(mem.normal_reserve()));
        self.ask = self.ask.saturating_mul(2).min(most).max(1);
        Ok(())
    }
}
