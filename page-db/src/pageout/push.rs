//! Dirty victims on their way to their vnodes.
//!
//! The scan only notes names. A name keeps nothing alive: if the vnode is gone when its turn comes, so are its pages, and
//! there is no hold that an abandoned request could leak.

use super::{Pageout, ScanReport};
use crate::counters::Counter;
use crate::cx::Cx;
use crate::db::PageDb;
use crate::units::PAGE_SIZE;
use crate::vnode::{Identity, PutFlags, Vnode};
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

#[cfg(all(test, not(shuttle)))]
mod tests;

/// Names to push, last in first out, each once.
#[derive(Debug)]
pub(super) struct Queue {
    stack: Vec<Identity>,
    members: BTreeSet<Identity>,
    limit: usize,
}

/// What became of a name given to [`Queue::push`].
pub(super) enum Queued {
    /// It waits now.
    New,
    /// It waited already.
    Already,
    /// There is no room for one more.
    Full,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { stack: Vec::new(), members: BTreeSet::new(), limit }
    }
    pub(super) fn len(&self) -> usize {
        self.stack.len()
    }
    pub(super) fn is_full(&self) -> bool {
        self.stack.len() >= self.limit
    }
    /// Adds a name.
    #[doc(alias = "queue_io_request")]
    pub(super) fn push(&mut self, id: Identity) -> Queued {
        if self.members.contains(&id) {
            return Queued::Already;
        }
        if self.is_full() {
            return Queued::Full;
        }
        self.members.insert(id);
        self.stack.push(id);
        Queued::New
    }
    fn pop(&mut self) -> Option<Identity> {
        let id = self.stack.pop()?;
        self.members.remove(&id);
        Some(id)
    }
}

impl Pageout {
    /// Has up to `most` queued pages pushed and flushed by their vnodes. held: nothing (O2)
    pub(super) fn push(&self, cx: &Cx, db: &PageDb, most: u64, report: &mut ScanReport) {
        // What this thread frees, and no other: beside one that reads a file through, or maps and exits, a push that freed nothing has freed nothing. A page
        // that a vnode takes back from the cache list, for its own use meanwhile, is in use without having been allocated.
        let in_use = || {
            let taken = cx.counted(Counter::FrameAllocs).wrapping_add(cx.counted(Counter::PgFrec));
            taken.wrapping_sub(cx.counted(Counter::FrameFrees))
        };
        let before = in_use();
        let mut asked: Vec<Arc<dyn Vnode>> = Vec::new(); // each once, in order
        let mut known = BTreeSet::new();
        let mut pushed = 0;
        cx.freeing_memory(|| {
            while pushed < most {
                let Some(id) = self.hands.lock(cx).queue.pop() else { break };
                let Some(vnode) = db.vnodes().object(id.vnode) else { continue };
                pushed += 1;
                let flags = PutFlags::ASYNC | PutFlags::FREE;
                if vnode.put_page(cx, db, id.offset, PAGE_SIZE, flags).is_err() {
                    report.failed += 1; // the page is dirty and resident (O4)
                }
                if known.insert(id.vnode) {
                    asked.push(vnode);
                }
            }
            for vnode in asked {
                if vnode.flush(cx, db).is_err() {
                    report.failed += 1;
                }
            }
        });
        report.pushed += pushed;
        report.freed += before.wrapping_sub(in_use()).cast_signed().max(0).cast_unsigned();
    }
}
