//! Telling whoever holds pages of an address space for long that a range is about to go.
//!
//! An i/o framework that pins pages for a device would block an unmap for ever. It registers a callback; an unmap, a change of rights or the
//! end of the space that meets its pins runs it instead of sleeping. The callback gives the pins up and **deletes itself**:
//! the executor waits until it has, because the owner's memory may go with it.
//!
//! ```text
//!   registered ──executor picks it──▶ called ──delete from inside: deferred──▶ deleted; the executor unlinks it
//!        └──────delete before: unlinked at once
//! ```
//!
//! - Q1: a callback is called at most once; newer ones first.
//! - Q2: the lock of the address space is not held while one runs. The range claim may be: a fixed mapping, a break that goes down, a move, and a search for a
//!   hole that throws away what may go hold it while they take away what is in their place, pins and all. So a callback, and whoever is to let go of pins
//!   without one, neither chooses an address ([`AddrSpace::claim_range`], which refuses the thread that has the claim) nor makes a fault that grows the stack
//!   until he has let go.
//! - Q3: a waiter for pins looks again when a callback is added, so none is missed.
//! - Q4: a callback that is registered is called at the end of the address space at the latest. The end closes the list when it finds nobody left to
//!   call, under the list's own lock; who comes later is told so ([`CallbackError::Freed`]) rather than left to wait for a call that nobody makes.
//!
//! Sources: illumos.md 3.11.

use crate::addr_space::AddrSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicBool, Ordering};
use page_db::{Cx, Rank, VirtRange, errno};

bitflags::bitflags! {
    /// What a callback wants to hear of.
    #[doc(alias("AS_FREE_EVENT", "AS_SETPROT_EVENT", "AS_UNMAP_EVENT"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Events: u8 {
        /// The address space ends.
        const FREE = 1;
        /// Rights are about to change.
        const SETPROT = 2;
        /// A range is about to be unmapped.
        const UNMAP = 4;
    }
}

/// Someone who wants to be told.
#[doc(alias("as_callback", "as_execute_callback"))]
pub trait AsCallback: fmt::Debug + Send + Sync {
    /// Gives up the pins and calls [`AddrSpace::delete_callback`] with its token before it returns (or sees to it that another thread does).
    ///
    /// # Locks
    /// On entry: nothing, or the range claim of the space (Q2), so it may fault, soft-unlock and unmap, but chooses no address in this space.
    fn call(&self, cx: &Cx, space: &AddrSpace, event: Events);
}

/// What became of [`AddrSpace::delete_callback`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// It is gone and was never called.
    #[doc(alias = "AS_CALLBACK_DELETED")]
    Deleted,
    /// It is running; the executor removes it.
    #[doc(alias = "AS_CALLBACK_DELETE_DEFERRED")]
    Deferred,
    /// There is none with this token.
    #[doc(alias = "AS_CALLBACK_NOTFOUND")]
    NotFound,
}

/// Why a callback was not registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallbackError {
    /// No event was named.
    #[error("a callback for no event")]
    NoEvents,
    /// The kernel's address space has none.
    #[error("the kernel's address space takes no callbacks")]
    Kernel,
    /// The address space has ended.
    #[error("the address space has ended, and calls nobody any more")]
    Freed,
    /// The heap refused a record.
    #[error("no heap for a callback")]
    NoHeap,
}

impl CallbackError {
    /// The number a system call reports for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoEvents => errno::EINVAL,
            Self::Kernel | Self::Freed => errno::ENOMEM,
            Self::NoHeap => errno::EAGAIN,
        }
    }
}

#[derive(Debug)]
struct Entry {
    token: u64,
    events: Events,
    /// `None`: the whole address space.
    range: Option<VirtRange>,
    callback: Arc<dyn AsCallback>,
    called: bool,
    deleted: Arc<AtomicBool>,
}

impl Entry {
    /// Ranges match that meet, too: the end of each counts.
    fn wants(&self, event: Events, range: Option<VirtRange>) -> bool {
        let overlap = match (self.range, range) {
            (Some(own), Some(range)) => {
                own.start().get() <= range.end() && range.start().get() <= own.end()
            }
            _ => true,
        };
        !self.called && self.events.intersects(event) && overlap
    }
}

/// The callbacks of one address space.
#[derive(Debug)]
pub(crate) struct Callbacks(Mutex<List>);

#[derive(Debug)]
struct List {
    /// Newest last.
    entries: Vec<Entry>,
    /// Takes nobody any more (Q4).
    closed: bool,
}

impl Callbacks {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Rank::AsContents, List { entries: Vec::new(), closed: false }))
    }
}

impl AddrSpace {
    /// Registers a callback for `events` in `range`, or in the whole address space. `token` names it to [`AddrSpace::delete_callback`].
    ///
    /// # Errors
    /// [`CallbackError`].
    #[doc(alias = "as_add_callback")]
    pub fn add_callback(
        &self,
        cx: &Cx,
        callback: Arc<dyn AsCallback>,
        token: u64,
        events: Events,
        range: Option<VirtRange>,
    ) -> Result<(), CallbackError> {
        if events.is_empty() {
            return Err(CallbackError::NoEvents);
        }
        if self.state.is_kernel() {
            return Err(CallbackError::Kernel);
        }
        let deleted = Arc::new(AtomicBool::new(false));
        let entry = Entry { token, events, range, callback, called: false, deleted };
        {
            let list = &mut *self.callbacks.0.lock(cx);
            if list.closed {
                return Err(CallbackError::Freed);
            }
            list.entries.try_reserve(1).map_err(|_| CallbackError::NoHeap)?;
            list.entries.push(entry);
        }
        self.state.pins_released(self.db.waits()); // Q3
        Ok(())
    }
    /// Removes the newest callback named `token`, or tells its executor to.
    #[doc(alias = "as_delete_callback")]
    pub fn delete_callback(&self, cx: &Cx, token: u64) -> Deleted {
        let running = {
            let all = &mut self.callbacks.0.lock(cx).entries;
            let named = |e: &Entry| e.token == token && !e.deleted.load(Ordering::SeqCst);
            let Some(at) = all.iter().rposition(named) else { return Deleted::NotFound };
            if !all[at].called {
                all.remove(at);
                return Deleted::Deleted;
            }
            Arc::clone(&all[at].deleted)
        };
        running.store(true, Ordering::SeqCst);
        self.db.waits().wake_all(self.callback_key());
        Deleted::Deferred
    }
    /// Runs the newest callback that wants one of the events in `range` and waits until it has deleted itself. Says whether there was one.
    #[doc(alias = "as_execute_callback")]
    pub(crate) fn run_callback(&self, cx: &Cx, event: Events, range: Option<VirtRange>) -> bool {
        self.run_one(cx, event, range, false)
    }
    /// Runs the newest callback of all; when there is none, nobody can come any more (Q4).
    pub(crate) fn run_last_callback(&self, cx: &Cx) -> bool {
        self.run_one(cx, Events::all(), None, true)
    }
    fn run_one(&self, cx: &Cx, event: Events, range: Option<VirtRange>, last: bool) -> bool {
        let (callback, event, deleted) = {
            let list = &mut *self.callbacks.0.lock(cx);
            let Some(entry) = list.entries.iter_mut().rev().find(|e| e.wants(event, range)) else {
                list.closed |= last;
                return false;
            };
            entry.called = true;
            (Arc::clone(&entry.callback), entry.events & event, Arc::clone(&entry.deleted))
        };
        // held: nothing (Q2)
        callback.call(cx, self, event);
        let waits = self.db.waits();
        waits.wait_while(cx, self.callback_key(), || !deleted.load(Ordering::SeqCst));
        self.callbacks.0.lock(cx).entries.retain(|e| !Arc::ptr_eq(&e.deleted, &deleted));
        true
    }
    /// Runs a callback for the pinned segment `seg`, or sleeps until a pin is released after `epoch`.
    pub(crate) fn wait_for_pins(&self, cx: &Cx, event: Events, seg: VirtRange, epoch: u64) {
        if !self.run_callback(cx, event, Some(seg)) {
            self.state.wait_unpinned(cx, self.db.waits(), epoch);
        }
    }
    fn callback_key(&self) -> u64 {
        1 << 49 | u64::from(self.id().0)
    }
}
