//! The three sets of primitives behind [`super`]; one is compiled.

#![cfg_attr(
    not(feature = "std"),
    allow(unsafe_code, reason = "without std, a value set once is a pointer")
)]

#[cfg(all(feature = "std", not(shuttle)))]
mod chosen {
    use crate::cx::{Cx, WaitHooks};
    use crate::sync::generic::sleep_while;
    use crate::sync::wait::CpuPlace;
    use alloc::sync::Arc;
    pub(crate) use parking_lot::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard as RwReadGuard, RwLockWriteGuard as RwWriteGuard,
    };
    pub use std::sync::OnceLock as Once;

    #[inline]
    pub(crate) fn lock<'a, T>(m: &'a Mutex<T>, _cx: &Cx) -> MutexGuard<'a, T> {
        m.lock()
    }
    #[inline]
    pub(crate) fn lock_leaf<'a, T>(m: &'a Mutex<T>, _hooks: &dyn WaitHooks) -> MutexGuard<'a, T> {
        m.lock()
    }
    #[inline]
    pub(crate) fn try_lock<T>(m: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        m.try_lock()
    }
    /// A lock that is held for long; on a host whoever finds it taken parks.
    pub(crate) fn queue<'a, T>(m: &'a Mutex<T>, cx: &'a Cx, _at: &CpuPlace) -> MutexGuard<'a, T> {
        cx.blocking(|| lock(m, cx))
    }
    pub(crate) fn left_queue(_at: &CpuPlace) {}
    pub(crate) fn get_mut<T>(m: &mut Mutex<T>) -> &mut T {
        m.get_mut()
    }
    pub(crate) fn read<'a, T>(l: &'a RwLock<T>, _cx: &Cx) -> RwReadGuard<'a, T> {
        l.read()
    }
    pub(crate) fn write<'a, T>(l: &'a RwLock<T>, _cx: &Cx) -> RwWriteGuard<'a, T> {
        l.write()
    }

    /// Turns a waiter spins before it lets other threads run.
    const SPINS: u32 = 128;
    /// Yields before it sleeps: the holder's thread may be one that yielding does not help.
    const YIELDS: u32 = 64;

    pub(crate) use spin::{Mutex as SpinMutex, MutexGuard as SpinMutexGuard};
    #[inline]
    pub(crate) fn spin_lock<'a, T>(m: &'a SpinMutex<T>, cx: &Cx) -> SpinMutexGuard<'a, T> {
        m.try_lock().unwrap_or_else(|| spin_slow(m, cx))
    }
    #[cold]
    fn spin_slow<'a, T>(m: &'a SpinMutex<T>, cx: &Cx) -> SpinMutexGuard<'a, T> {
        let mut turns = 0u32;
        loop {
            if !m.is_locked()
                && let Some(g) = m.try_lock()
            {
                return g;
            }
            spin_wait(cx, turns);
            turns = turns.saturating_add(1);
        }
    }
    /// One turn of a wait for a lock that is held for a few instructions.
    #[cold]
    pub(crate) fn spin_wait(_cx: &Cx, turns: u32) {
        if turns < SPINS {
            core::hint::spin_loop();
        } else if turns < SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(core::time::Duration::from_micros(50));
        }
    }
    #[inline]
    pub(crate) fn spin_try_lock<T>(m: &SpinMutex<T>) -> Option<SpinMutexGuard<'_, T>> {
        m.try_lock()
    }

    /// A place where threads sleep: how often it was woken, and a condition. A host's threads need no hooks.
    pub(crate) struct WaitPoint {
        wakes: Mutex<u64>,
        cond: parking_lot::Condvar,
    }
    impl WaitPoint {
        pub(crate) fn new(_hooks: &Arc<dyn WaitHooks>) -> Self {
            Self { wakes: Mutex::default(), cond: parking_lot::Condvar::new() }
        }
        /// Sleeps while `must_wait` says so, which is asked with nothing locked. The caller has announced itself, so that a waker counts. What is
        /// waited for here often takes less than falling asleep and being woken does, so it is looked at a while before.
        pub(crate) fn wait_while(&self, _cx: &Cx, must_wait: &mut dyn FnMut() -> bool) {
            for _ in 0..SPINS {
                if !must_wait() {
                    return;
                }
                core::hint::spin_loop();
            }
            let sleep_past = |seen| {
                let mut wakes = self.wakes.lock();
                while *wakes == seen {
                    self.cond.wait(&mut wakes);
                }
            };
            sleep_while(must_wait, || *self.wakes.lock(), sleep_past, false);
        }
        pub(crate) fn wake_all(&self) {
            *self.wakes.lock() += 1;
            self.cond.notify_all();
        }
    }

    pub(crate) struct Published<T>(arc_swap::ArcSwap<T>);
    impl<T> Published<T> {
        pub(crate) fn new(_hooks: &Arc<dyn WaitHooks>, value: Arc<T>) -> Self {
            Self(arc_swap::ArcSwap::new(value))
        }
        pub(crate) fn load(&self) -> Arc<T> {
            self.0.load_full()
        }
        pub(crate) fn store(&self, value: Arc<T>) {
            self.0.store(value);
        }
    }
}

#[cfg(all(feature = "std", shuttle))]
mod chosen {
    use crate::cx::{Cx, WaitHooks};
    use crate::sync::generic::sleep_while;
    use crate::sync::wait::CpuPlace;
    use alloc::sync::Arc;
    pub(crate) use shuttle::sync::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard as RwReadGuard, RwLockWriteGuard as RwWriteGuard,
    };
    use std::sync::{LockResult, OnceLock, PoisonError};

    /// A scenario in which a thread panics has failed; that it may unwind, poisoned locks are locks.
    fn whole<G>(got: LockResult<G>) -> G {
        got.unwrap_or_else(PoisonError::into_inner)
    }

    /// A value set once. Whoever finds it being made waits for shuttle's lock: all threads of a scenario share one of the host's.
    #[derive(Debug)]
    pub struct Once<T> {
        making: Mutex<()>,
        value: OnceLock<T>,
    }
    impl<T> Once<T> {
        /// Not set yet.
        pub const fn new() -> Self {
            Self { making: Mutex::new(()), value: OnceLock::new() }
        }
        /// The value, if it has been set.
        pub fn get(&self) -> Option<&T> {
            super::super::atomic::point();
            self.value.get()
        }
        /// The value, made by `f` if it has not been set.
        pub fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
            let _making = whole(self.making.lock());
            if self.value.get().is_none() {
                let value = f();
                let _ = self.value.set(value); // nobody else sets it meanwhile
            }
            self.value.get().expect("set above")
        }
        /// Sets the value.
        ///
        /// # Errors
        /// Gives the value back when another was set before.
        pub fn set(&self, value: T) -> Result<(), T> {
            let _making = whole(self.making.lock());
            self.value.set(value)
        }
    }
    impl<T> Default for Once<T> {
        fn default() -> Self {
            Self::new()
        }
    }

    pub(crate) fn lock<'a, T>(m: &'a Mutex<T>, _cx: &Cx) -> MutexGuard<'a, T> {
        whole(m.lock())
    }
    pub(crate) fn lock_leaf<'a, T>(m: &'a Mutex<T>, _hooks: &dyn WaitHooks) -> MutexGuard<'a, T> {
        whole(m.lock())
    }
    pub(crate) fn try_lock<T>(m: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        m.try_lock().ok()
    }
    /// A lock that is held for long; on a host whoever finds it taken parks.
    pub(crate) fn queue<'a, T>(m: &'a Mutex<T>, cx: &'a Cx, _at: &CpuPlace) -> MutexGuard<'a, T> {
        cx.blocking(|| lock(m, cx))
    }
    pub(crate) fn left_queue(_at: &CpuPlace) {}
    pub(crate) fn get_mut<T>(m: &mut Mutex<T>) -> &mut T {
        whole(m.get_mut())
    }
    pub(crate) fn read<'a, T>(l: &'a RwLock<T>, _cx: &Cx) -> RwReadGuard<'a, T> {
        whole(l.read())
    }
    pub(crate) fn write<'a, T>(l: &'a RwLock<T>, _cx: &Cx) -> RwWriteGuard<'a, T> {
        whole(l.write())
    }

    pub(crate) use self::{
        Mutex as SpinMutex, MutexGuard as SpinMutexGuard, lock as spin_lock,
        try_lock as spin_try_lock,
    };
    pub(crate) fn spin_wait(_cx: &Cx, _turns: u32) {
        shuttle::thread::yield_now();
    }

    pub(crate) struct WaitPoint {
        wakes: Mutex<u64>,
        cond: shuttle::sync::Condvar,
    }
    impl WaitPoint {
        pub(crate) fn new(_hooks: &Arc<dyn WaitHooks>) -> Self {
            Self { wakes: Mutex::new(0), cond: shuttle::sync::Condvar::new() }
        }
        pub(crate) fn wait_while(&self, _cx: &Cx, must_wait: &mut dyn FnMut() -> bool) {
            let sleep_past = |seen| {
                let mut wakes = whole(self.wakes.lock());
                while *wakes == seen {
                    wakes = whole(self.cond.wait(wakes));
                }
            };
            sleep_while(must_wait, || *whole(self.wakes.lock()), sleep_past, false);
        }
        pub(crate) fn wake_all(&self) {
            *whole(self.wakes.lock()) += 1;
            self.cond.notify_all();
        }
    }

    pub(crate) struct Published<T>(Mutex<Arc<T>>);
    impl<T> Published<T> {
        pub(crate) fn new(_hooks: &Arc<dyn WaitHooks>, value: Arc<T>) -> Self {
            Self(Mutex::new(value))
        }
        pub(crate) fn load(&self) -> Arc<T> {
            let now = whole(self.0.lock());
            Arc::clone(&now)
        }
        pub(crate) fn store(&self, value: Arc<T>) {
            *whole(self.0.lock()) = value;
        }
    }
}

#[cfg(not(feature = "std"))]
mod chosen {
    use crate::cx::{Cx, WaitHooks};
    use crate::sync::wait::CpuPlace;
    use alloc::boxed::Box;
    use alloc::sync::Arc;
    use core::cell::UnsafeCell;
    use core::marker::PhantomData;
    use core::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};
    use core::sync::atomic::{AtomicPtr, fence};
    pub(crate) use spin::{
        Mutex, MutexGuard, RwLock, RwLockReadGuard as RwReadGuard, RwLockWriteGuard as RwWriteGuard,
    };

    /// A value set once; the face of `std::sync::OnceLock`. Nobody waits for it: of two who make one the first is believed, and the other's is dropped.
    pub struct Once<T> {
        /// Null, or a box of this one's.
        value: AtomicPtr<T>,
        owns: PhantomData<UnsafeCell<Option<T>>>,
    }
    // SAFETY: a shared `Once` takes a `T` from one thread (`set`) and shows it to all (`get`), so `T` is both; the pointer itself is atomic.
    unsafe impl<T: Send + Sync> Sync for Once<T> {}
    impl<T> Once<T> {
        /// Not set yet.
        pub const fn new() -> Self {
            Self { value: AtomicPtr::new(core::ptr::null_mut()), owns: PhantomData }
        }
        /// The value, if it has been set.
        pub fn get(&self) -> Option<&T> {
            // SAFETY: null, or from `Box::into_raw` in `set`, whose release this acquires; freed by `drop` alone, which nothing borrows.
            unsafe { self.value.load(Acquire).as_ref() }
        }
        /// The value, made by `f` if it has not been set.
        #[expect(clippy::missing_panics_doc, reason = "what is set is found")]
        pub fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
            if let Some(value) = self.get() {
                return value;
            }
            let _ = self.set(f()); // or somebody else has
            self.get().expect("set by now, and never unset")
        }
        /// Sets the value.
        ///
        /// # Errors
        /// Gives the value back when another was set before.
        pub fn set(&self, value: T) -> Result<(), T> {
            let mine = Box::into_raw(Box::new(value));
            match self.value.compare_exchange(core::ptr::null_mut(), mine, AcqRel, Acquire) {
                Ok(_) => Ok(()),
                // SAFETY: from `Box::into_raw` above, and not published.
                Err(_) => Err(*unsafe { Box::from_raw(mine) }),
            }
        }
    }
    impl<T> Drop for Once<T> {
        fn drop(&mut self) {
            let value = *self.value.get_mut();
            if !value.is_null() {
                // SAFETY: from `Box::into_raw` in `set`; `&mut self`: nobody borrows it.
                drop(unsafe { Box::from_raw(value) });
            }
        }
    }
    impl<T> Default for Once<T> {
        fn default() -> Self {
            Self::new()
        }
    }
    impl<T: core::fmt::Debug> core::fmt::Debug for Once<T> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            f.debug_tuple("Once").field(&self.get()).finish()
        }
    }

    fn turn<R>(hooks: &dyn WaitHooks, mut attempt: impl FnMut() -> Option<R>) -> R {
        let mut spins = 0;
        loop {
            if let Some(r) = attempt() {
                return r;
            }
            hooks.pause(spins);
            spins = spins.saturating_add(1);
        }
    }
    pub(crate) fn lock<'a, T>(m: &'a Mutex<T>, cx: &Cx) -> MutexGuard<'a, T> {
        turn(&**cx.hooks(), || m.try_lock())
    }
    pub(crate) fn lock_leaf<'a, T>(m: &'a Mutex<T>, hooks: &dyn WaitHooks) -> MutexGuard<'a, T> {
        turn(hooks, || m.try_lock())
    }
    pub(crate) fn try_lock<T>(m: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        m.try_lock()
    }
    /// A lock that is held for long: whoever finds it taken sleeps at a place, and whoever leaves it calls [`left_queue`].
    pub(crate) fn queue<'a, T>(m: &'a Mutex<T>, cx: &'a Cx, at: &CpuPlace) -> MutexGuard<'a, T> {
        loop {
            at.wait_while(cx, &mut || {
                fence(SeqCst); // between the announcement and the look
                m.is_locked()
            });
            if let Some(guard) = m.try_lock() {
                return guard;
            }
        }
    }
    pub(crate) fn left_queue(at: &CpuPlace) {
        fence(SeqCst); // between the unlock and the look for sleepers
        at.wake_all::<Cx>();
    }
    pub(crate) fn get_mut<T>(m: &mut Mutex<T>) -> &mut T {
        m.get_mut()
    }
    pub(crate) fn read<'a, T>(l: &'a RwLock<T>, cx: &Cx) -> RwReadGuard<'a, T> {
        turn(&**cx.hooks(), || l.try_read())
    }
    pub(crate) fn write<'a, T>(l: &'a RwLock<T>, cx: &Cx) -> RwWriteGuard<'a, T> {
        turn(&**cx.hooks(), || l.try_write())
    }

    pub(crate) use self::{
        Mutex as SpinMutex, MutexGuard as SpinMutexGuard, lock as spin_lock,
        try_lock as spin_try_lock,
    };
    pub(crate) fn spin_wait(cx: &Cx, turns: u32) {
        cx.pause(turns);
    }

    /// Without a scheduler of ours a thread sleeps and is woken as the embedder does it. The hooks know the place by its address: whoever sleeps
    /// or wakes here borrows it, so nothing else has that address meanwhile.
    pub(crate) struct WaitPoint {
        hooks: Arc<dyn WaitHooks>,
    }
    impl WaitPoint {
        pub(crate) fn new(hooks: &Arc<dyn WaitHooks>) -> Self {
            Self { hooks: Arc::clone(hooks) }
        }
        fn place(&self) -> u64 {
            core::ptr::from_ref(self).addr() as u64
        }
        pub(crate) fn wait_while(&self, cx: &Cx, must_wait: &mut dyn FnMut() -> bool) {
            let mut over = false; // what is over is not asked again: hooks may come back for whatever reason
            let mut goes_on = || {
                over = over || !must_wait();
                !over
            };
            while goes_on() {
                cx.hooks().sleep(self.place(), &mut goes_on);
            }
        }
        pub(crate) fn wake_all(&self) {
            self.hooks.wake(self.place());
        }
    }

    pub(crate) struct Published<T> {
        hooks: Arc<dyn WaitHooks>,
        now: Mutex<Arc<T>>,
    }
    impl<T> Published<T> {
        pub(crate) fn new(hooks: &Arc<dyn WaitHooks>, value: Arc<T>) -> Self {
            Self { hooks: Arc::clone(hooks), now: Mutex::new(value) }
        }
        fn now(&self) -> MutexGuard<'_, Arc<T>> {
            lock_leaf(&self.now, &*self.hooks)
        }
        pub(crate) fn load(&self) -> Arc<T> {
            Arc::clone(&self.now())
        }
        pub(crate) fn store(&self, value: Arc<T>) {
            let before = core::mem::replace(&mut *self.now(), value);
            drop(before); // with nothing locked
        }
    }
}

pub use chosen::Once;
pub(crate) use chosen::*;
