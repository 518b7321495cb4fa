//! What drivers may know of, and tell, the address space they are called for.

use crate::error::AsError;
use page_db::sync::WaitTable;
use page_db::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use page_db::{Cx, VirtRange};

/// An address space's number, in order of creation; the kernel's is 0. No two of a machine have the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize)]
pub struct AsId(pub u32);

/// The part of an address space that is read and written without its lock: sizes, limits, flags. Each is an atomic; illumos guards its flags by a
/// mutex, `a_contents`.
#[doc(alias = "a_contents")]
#[derive(Debug)]
pub struct AsState {
    id: AsId,
    limits: VirtRange,
    memlock_limit: AtomicU64,
    vmem_limit: AtomicU64,
    lock_future: AtomicBool,
    counts: Counts,
}

/// What mapping and unmapping write. On lines of its own: a fault reads the limits, and must not wait for another thread's mapping to give
/// the line back.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    size: AtomicU64,
    resv_size: AtomicU64,
    locked: AtomicU64,
    unmap_waits: AtomicU64,
}

impl AsState {
    pub(crate) fn new(id: AsId, limits: VirtRange) -> Self {
        Self {
            id,
            limits,
            memlock_limit: AtomicU64::new(u64::MAX),
            vmem_limit: AtomicU64::new(u64::MAX),
            lock_future: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }
    /// The number.
    pub fn id(&self) -> AsId {
        self.id
    }
    /// The range that may be mapped (`a_userlimit` is its end).
    #[doc(alias = "a_userlimit")]
    pub fn limits(&self) -> VirtRange {
        self.limits
    }
    /// Whether this is the kernel's.
    pub fn is_kernel(&self) -> bool {
        self.limits.start().is_kernel()
    }
    /// Bytes mapped.
    #[doc(alias = "a_size")]
    pub fn size(&self) -> u64 {
        self.counts.size.load(Ordering::Acquire)
    }
    /// Bytes mapped, less unreserved `MAP_NORESERVE` memory: what a virtual-size limit sees.
    #[doc(alias = "a_resvsize")]
    pub fn resv_size(&self) -> u64 {
        self.counts.resv_size.load(Ordering::Acquire)
    }
    pub(crate) fn add_size(&self, bytes: u64) {
        self.counts.size.fetch_add(bytes, Ordering::AcqRel);
    }
    pub(crate) fn sub_size(&self, bytes: u64) {
        self.counts.size.fetch_sub(bytes, Ordering::AcqRel);
    }
    /// Whether a new mapping of so many bytes fits under the limit; nothing is counted.
    #[inline]
    pub(crate) fn check_resv(&self, bytes: u64) -> Result<(), AsError> {
        self.check_resv_without(0, bytes)
    }
    /// The same when so many bytes of what is counted have gone.
    #[inline]
    pub(crate) fn check_resv_without(&self, going: u64, bytes: u64) -> Result<(), AsError> {
        if bytes == 0 {
            return Ok(());
        }
        let limit = self.vmem_limit();
        let rest = self.resv_size().saturating_sub(going);
        let fits = rest.checked_add(bytes).is_some_and(|n| n <= limit);
        if fits { Ok(()) } else { Err(AsError::VmemLimit { bytes, limit }) }
    }
    /// Counts what a new mapping has reserved, if the limit allows it.
    pub(crate) fn charge_resv(&self, bytes: u64) -> Result<(), AsError> {
        if bytes == 0 {
            return Ok(());
        }
        let limit = self.vmem_limit();
        let add = |n: u64| n.checked_add(bytes).filter(|n| *n <= limit);
        let done = self.counts.resv_size.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        done.map(|_| ()).map_err(|_| AsError::VmemLimit { bytes, limit })
    }
    /// A driver (or the address space) counts bytes as reserved that are: what others see is never more than the truth, or they would be refused for nothing.
    pub fn add_resv(&self, bytes: u64) {
        self.counts.resv_size.fetch_add(bytes, Ordering::AcqRel);
    }
    /// The reverse of [`AsState::add_resv`].
    pub fn sub_resv(&self, bytes: u64) {
        self.counts.resv_size.fetch_sub(bytes, Ordering::AcqRel);
    }
    /// Bytes locked in memory by this address space's mappings.
    pub fn locked(&self) -> u64 {
        self.counts.locked.load(Ordering::Acquire)
    }
    /// Charges bytes to the locked-memory control; says whether the limit allows it.
    #[must_use = "what was not charged may not be locked, nor credited"]
    pub fn charge_locked(&self, bytes: u64) -> bool {
        let limit = self.memlock_limit.load(Ordering::Acquire);
        let add = |n: u64| n.checked_add(bytes).filter(|n| *n <= limit);
        self.counts.locked.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }
    /// Whether the limit would allow `bytes` more to be locked now; nothing is charged.
    pub fn may_lock(&self, bytes: u64) -> bool {
        self.locked().checked_add(bytes).is_some_and(|n| n <= self.memlock_limit())
    }
    /// Credits what was charged.
    pub fn credit_locked(&self, bytes: u64) {
        self.counts.locked.fetch_sub(bytes, Ordering::AcqRel);
    }
    /// The locked-memory limit in bytes.
    pub fn memlock_limit(&self) -> u64 {
        self.memlock_limit.load(Ordering::Acquire)
    }
    /// Sets the locked-memory limit.
    pub fn set_memlock_limit(&self, bytes: u64) {
        self.memlock_limit.store(bytes, Ordering::Release);
    }
    /// The address-space limit in bytes.
    #[doc(alias = "RLIMIT_VMEM")]
    pub fn vmem_limit(&self) -> u64 {
        self.vmem_limit.load(Ordering::Acquire)
    }
    /// Sets the address-space limit.
    pub fn set_vmem_limit(&self, bytes: u64) {
        self.vmem_limit.store(bytes, Ordering::Release);
    }
    /// Whether new mappings are locked at once (`mlockall(MCL_FUTURE)`).
    #[doc(alias = "AS_PAGLCK")]
    pub fn lock_future(&self) -> bool {
        self.lock_future.load(Ordering::SeqCst)
    }
    pub(crate) fn set_lock_future(&self, on: bool) {
        self.lock_future.store(on, Ordering::SeqCst);
    }
    fn wait_key(&self) -> u64 {
        1 << 48 | u64::from(self.id.0)
    }
    /// A driver's last soft lock is gone: operations that wait for pinned pages look again.
    #[doc(alias("AS_UNMAPWAIT", "AS_NOUNMAPWAIT"))]
    pub fn pins_released(&self, waits: &WaitTable) {
        self.counts.unmap_waits.fetch_add(1, Ordering::SeqCst);
        waits.wake_all(self.wait_key());
    }
    /// The number of releases so far; read it before trying, then [`AsState::wait_unpinned`] misses none.
    pub(crate) fn pin_epoch(&self) -> u64 {
        self.counts.unmap_waits.load(Ordering::SeqCst)
    }
    /// Sleeps until a release after `epoch`.
    pub(crate) fn wait_unpinned(&self, cx: &Cx, waits: &WaitTable, epoch: u64) {
        waits.wait_while(cx, self.wait_key(), || {
            self.counts.unmap_waits.load(Ordering::SeqCst) == epoch
        });
    }
}
