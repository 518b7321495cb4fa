//! A disk that waits to be let through, so that a test decides the order of what happens.

use page_db::Cx;
use segvm::files::{MemStore, PageBuf, Store};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Default)]
struct State {
    shut: bool,
    /// Pages that wait, in the order in which they came.
    waiting: Vec<u64>,
    /// Those that may pass.
    passed: Vec<u64>,
}

/// A gate that transfers pass one by one, when it is shut.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    /// From now on transfers wait.
    pub(crate) fn shut(&self) {
        self.state.lock().expect("no test panics in here").shut = true;
    }
    /// Waits until `n` transfers wait.
    pub(crate) fn wait_for(&self, n: usize) {
        let state = self.state.lock().expect("no test panics in here");
        drop(self.changed.wait_while(state, |s| s.waiting.len() < n));
    }
    /// Lets the transfer of one page through.
    pub(crate) fn let_through(&self, page: u64) {
        self.state.lock().expect("no test panics in here").passed.push(page);
        self.changed.notify_all();
    }
    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.state.lock().expect("no test panics in here").shut = false;
        self.changed.notify_all();
    }
    fn pass(&self, page: u64) {
        let mut state = self.state.lock().expect("no test panics in here");
        if !state.shut {
            return;
        }
        state.waiting.push(page);
        self.changed.notify_all();
        let closed = |s: &mut State| s.shut && !s.passed.contains(&page);
        let mut state = self.changed.wait_while(state, closed).expect("no test panics in here");
        state.waiting.retain(|p| *p != page);
        state.passed.retain(|p| *p != page);
        self.changed.notify_all();
    }
}

/// A file's bytes behind two gates.
#[derive(Debug)]
pub(crate) struct GatedStore {
    inner: MemStore,
    reads: Arc<Gate>,
    writes: Arc<Gate>,
}

impl GatedStore {
    /// An empty one, and its gates for reads and for writes, which are open.
    pub(crate) fn new() -> (Self, Arc<Gate>, Arc<Gate>) {
        let (reads, writes) = (Arc::<Gate>::default(), Arc::<Gate>::default());
        let store =
            Self { inner: MemStore::new(), reads: Arc::clone(&reads), writes: Arc::clone(&writes) };
        (store, reads, writes)
    }
}

impl Store for GatedStore {
    fn read(&self, cx: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32> {
        self.reads.pass(offset / page_db::PAGE_SIZE);
        self.inner.read(cx, offset, page)
    }
    fn write(&self, cx: &Cx, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        self.writes.pass(offset / page_db::PAGE_SIZE);
        self.inner.write(cx, offset, bytes)
    }
    fn resize(&self, cx: &Cx, from: u64, to: u64) -> Result<(), i32> {
        self.inner.resize(cx, from, to)
    }
}
