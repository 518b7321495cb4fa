//! Atomics with core's layout; under shuttle each operation is preceded by a point where another thread may run.
//!
//! The layout matters: page-table entries and page contents are read through references to these types, so the shuttle
//! build cannot use shuttle's own.
//!
//! A point is not a yield. A scheduler that explores by priorities (PCT) takes a yield for the word of a thread that has nothing to do and puts
//! it last, so with a yield at each operation it would only ever see threads taking turns. Loops that wait for another thread's
//! progress do yield ([`spin_loop`]); a point yields once in some thousand times, for those that were overlooked.

pub use core::sync::atomic::Ordering;
#[cfg(not(shuttle))]
pub use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, fence};

#[cfg(shuttle)]
pub use yielding::*;

/// Tells the processor, or the scheduler that explores, that this thread waits for another one's progress.
#[cfg(not(shuttle))]
pub use core::hint::spin_loop;
#[cfg(shuttle)]
pub use shuttle::hint::spin_loop;

/// A place where another thread may run, when schedules are explored.
#[doc(hidden)]
#[cfg(not(shuttle))]
#[inline(always)]
pub fn point() {}

/// The cell itself, for what no schedule depends on.
#[doc(hidden)]
#[cfg(not(shuttle))]
#[inline(always)]
pub fn plain(cell: &AtomicU64) -> &AtomicU64 {
    cell
}

#[cfg(shuttle)]
mod yielding {
    use super::Ordering;
    use core::sync::atomic as core_atomic;

    /// Points after which even a thread that is preferred lets others run.
    const PATIENCE: usize = 4096;

    /// A place where another thread may run.
    pub fn point() {
        if shuttle::current::context_switches() % PATIENCE == PATIENCE - 1 {
            shuttle::thread::yield_now();
        } else {
            shuttle::sync::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
        }
    }

    /// The cell itself, for what no schedule depends on.
    pub fn plain(cell: &AtomicU64) -> &core_atomic::AtomicU64 {
        &cell.0
    }

    /// A fence, preceded by a point.
    pub fn fence(order: Ordering) {
        point();
        core_atomic::fence(order);
    }

    macro_rules! base {
        ($name:ident, $t:ty) => {
            /// Core's atomic of the same name with a point before each operation.
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub struct $name(core_atomic::$name);
            #[allow(missing_docs, reason = "the methods are core's")]
            impl $name {
                pub const fn new(v: $t) -> Self {
                    Self(core_atomic::$name::new(v))
                }
                pub fn load(&self, o: Ordering) -> $t {
                    point();
                    self.0.load(o)
                }
                pub fn store(&self, v: $t, o: Ordering) {
                    point();
                    self.0.store(v, o);
                }
                pub fn swap(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.swap(v, o)
                }
                pub fn compare_exchange(
                    &self,
                    c: $t,
                    n: $t,
                    s: Ordering,
                    f: Ordering,
                ) -> Result<$t, $t> {
                    point();
                    self.0.compare_exchange(c, n, s, f)
                }
                pub fn compare_exchange_weak(
                    &self,
                    c: $t,
                    n: $t,
                    s: Ordering,
                    f: Ordering,
                ) -> Result<$t, $t> {
                    self.compare_exchange(c, n, s, f)
                }
                pub fn fetch_and(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.fetch_and(v, o)
                }
                pub fn fetch_or(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.fetch_or(v, o)
                }
                pub fn fetch_xor(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.fetch_xor(v, o)
                }
                pub fn fetch_update(
                    &self,
                    s: Ordering,
                    f: Ordering,
                    mut next: impl FnMut($t) -> Option<$t>,
                ) -> Result<$t, $t> {
                    let mut old = self.load(f);
                    while let Some(new) = next(old) {
                        match self.compare_exchange(old, new, s, f) {
                            Ok(v) => return Ok(v),
                            Err(v) => old = v,
                        }
                    }
                    Err(old)
                }
                pub fn get_mut(&mut self) -> &mut $t {
                    self.0.get_mut()
                }
                pub fn into_inner(self) -> $t {
                    self.0.into_inner()
                }
            }
        };
    }
    macro_rules! integer {
        ($name:ident, $t:ty) => {
            base!($name, $t);
            #[allow(missing_docs, reason = "the methods are core's")]
            impl $name {
                pub fn fetch_add(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.fetch_add(v, o)
                }
                pub fn fetch_sub(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.fetch_sub(v, o)
                }
                pub fn fetch_max(&self, v: $t, o: Ordering) -> $t {
                    point();
                    self.0.fetch_max(v, o)
                }
            }
        };
    }
    base!(AtomicBool, bool);
    integer!(AtomicU8, u8);
    integer!(AtomicU16, u16);
    integer!(AtomicU32, u32);
    integer!(AtomicU64, u64);
}
