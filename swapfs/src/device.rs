//! Where slots are: a trait, a device in memory, and one that fails on request.
//!
//! A device is an array of pages. It moves bytes between them and frames through [`PhysMem`], so a driver may use a bounce
//! buffer or hand the frames to hardware. Every call may take long; swapfs makes it inside [`page_db::Cx::blocking`], holding page
//! locks and nothing else; around `prepare` the lock of adding areas, so it must not add one.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU64, Ordering};
use page_db::{Cx, PAGE_SIZE, Pfn, PhysMem, Rank, SpinHooks, errno};

pub(crate) const PAGE: usize = PAGE_SIZE as usize;

/// What was asked of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceOp {
    /// Preparing it for use.
    Open,
    /// Reading a page.
    Read,
    /// Writing pages.
    Write,
}

impl fmt::Display for DeviceOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// A device's refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{op} at page {page} failed (errno {errno})")]
pub struct DeviceError {
    /// What was asked.
    pub op: DeviceOp,
    /// The first page concerned.
    pub page: u64,
    /// Why, as illumos numbers it.
    pub errno: i32,
}

/// What a device's bytes lie on. Two devices of one medium are two ways to the same bytes, whatever they are called.
///
/// A name is not enough: a file has as many as there are links, dots and directories to reach it by, and an area on the same bytes
/// under another name would be written over without a word.
#[doc(alias = "si_vp")]
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Medium {
    /// Known by name alone: whoever names devices gives no two media the same name, and no medium two names.
    Named(String),
    /// A file of the host.
    File {
        /// The host's number of the file system it lies on (`st_dev`).
        device: u64,
        /// Its own number there (`st_ino`).
        inode: u64,
    },
    /// A block device of the host, whichever node it was opened by.
    Block {
        /// Its number (`st_rdev`).
        device: u64,
    },
}

/// A device that slots can be put on.
///
/// # Locks
/// A transfer is asked for with the locks of the pages it moves held, and often more: at a fault that brings a page in, the address space as reader and the
/// busy mark of an anon's slot. So a device waits for no lock that whoever maps, unmaps or pushes may hold meanwhile: it uses memory of its own, and
/// maps, unmaps and allocates pages for nobody while it transfers. Locks of the library's kind that it takes are of rank [`page_db::Rank::VnodeData`]. The thread
/// is marked asleep ([`Cx::blocking`]); it may wait for the medium. [`SwapDevice::prepare`] is called with the lock of whoever adds areas alone.
///
/// A device whose writes take pages of this machine takes them from [`page_db::Reserve::Push`] and does not wait for any: writing is how memory is freed.
#[doc(alias("VOP_PAGEIO", "si_vp"))]
pub trait SwapDevice: fmt::Debug + Send + Sync {
    /// What people call it: a path, for example.
    fn name(&self) -> String;
    /// What its bytes lie on: equal for two devices exactly when what is written to one is read from the other, and the same as long as the
    /// device lives. Areas of equal media may not overlap. A device that can be reached by more than one name must say more than
    /// its name, which is the default; one that wraps another answers the other's.
    fn medium(&self) -> Medium {
        Medium::Named(self.name())
    }
    /// Its size in pages: what it has, or will have once it is prepared.
    fn pages(&self) -> u64;
    /// Makes every page fit for transfers, and loses none of the bytes there. Called when an area is added, after it is known that no area
    /// in use shares a page with it, and before the first transfer; any number of times. The default has nothing to do.
    ///
    /// # Errors
    /// [`DeviceError`], with [`DeviceOp::Open`]; the device is not used then.
    #[doc(alias = "VOP_OPEN")]
    fn prepare(&self, cx: &Cx) -> Result<(), DeviceError> {
        let _ = cx;
        Ok(())
    }
    /// Fills the frame `to` with a page.
    ///
    /// # Errors
    /// [`DeviceError`]; the frame's contents are undefined then.
    fn read(&self, cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError>;
    /// Writes frames to consecutive pages from `page` on, in one transfer. Frames may be stored to meanwhile; the pages then hold some
    /// mixture, and will be written again.
    ///
    /// # Errors
    /// [`DeviceError`]; the pages' contents are undefined then.
    fn write(
        &self,
        cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError>;
}

const _: Option<&dyn SwapDevice> = None; // used as an object everywhere; stays one

const SHARDS: usize = 16;
type Shard = Mutex<BTreeMap<u64, Box<[u8]>>>;

/// A device on the heap. Pages never written cost nothing and read as zeros.
pub struct MemDevice {
    name: String,
    pages: u64,
    shards: [Shard; SHARDS],
    stored: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
}

impl MemDevice {
    /// A device of `pages` pages.
    pub fn new(name: impl Into<String>, pages: u64) -> Self {
        let shards = core::array::from_fn(|_| Mutex::new(Rank::VnodeData, BTreeMap::new()));
        let [stored, reads, writes] = [0; 3].map(AtomicU64::new);
        Self { name: name.into(), pages, shards, stored, reads, writes }
    }
    fn shard(&self, page: u64) -> &Shard {
        &self.shards[(page / SHARDS as u64) as usize % SHARDS]
    }
    fn check(&self, op: DeviceOp, page: u64, count: u64) -> Result<(), DeviceError> {
        match page.checked_add(count) {
            Some(end) if end <= self.pages => Ok(()),
            _ => Err(DeviceError { op, page, errno: errno::ENXIO }),
        }
    }
    /// Transfers so far: reads (of one page each) and writes (of one run each).
    pub fn transfers(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.writes.load(Ordering::Relaxed))
    }
    /// Pages that hold bytes.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for MemDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemDevice")
            .field("name", &self.name)
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

impl SwapDevice for MemDevice {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn pages(&self) -> u64 {
        self.pages
    }
    fn read(&self, cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
        self.check(DeviceOp::Read, page, 1)?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        match self.shard(page).lock(cx).get(&page) {
            Some(bytes) => mem.write(to, 0, bytes),
            None => mem.zero(to),
        }
        Ok(())
    }
    fn write(
        &self,
        cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        self.check(DeviceOp::Write, page, frames.len() as u64)?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        for (at, pfn) in (page..).zip(frames) {
            let mut shard = self.shard(at).lock(cx);
            let bytes = match shard.get_mut(&at) {
                Some(b) => b,
                None => {
                    let fresh = page_db::sync::grow::filled::<u8>(PAGE).ok_or(DeviceError {
                        op: DeviceOp::Write,
                        page: at,
                        errno: errno::ENOSPC,
                    })?;
                    self.stored.fetch_add(1, Ordering::Relaxed);
                    shard.entry(at).or_insert(fresh)
                }
            };
            mem.read(*pfn, 0, bytes);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct FaultPlan {
    /// Calls counted per kind: preparations, reads, writes.
    done: [u64; 3],
    /// Which of them fail, by kind, counted from 1.
    fail: [Vec<u64>; 3],
    /// Pages that fail whatever is done to them.
    pages: Vec<u64>,
}

/// Another device, with failures put in on request: for tests, whose threads turn where they find the plan of another in use.
pub struct FaultyDevice {
    inner: Arc<dyn SwapDevice>,
    plan: Mutex<FaultPlan>,
}

impl FaultyDevice {
    /// `inner`, failing nothing yet.
    pub fn new(inner: Arc<dyn SwapDevice>) -> Self {
        Self { inner, plan: Mutex::new(Rank::VnodeData, FaultPlan::default()) }
    }
    /// The `nth` preparation from now on fails (1 is the next), and the inner device hears nothing of it.
    pub fn fail_prepare(&self, nth: u64) {
        self.fail(DeviceOp::Open, nth);
    }
    /// The `nth` read from now on fails (1 is the next).
    pub fn fail_read(&self, nth: u64) {
        self.fail(DeviceOp::Read, nth);
    }
    /// The `nth` write from now on fails (1 is the next).
    pub fn fail_write(&self, nth: u64) {
        self.fail(DeviceOp::Write, nth);
    }
    fn fail(&self, op: DeviceOp, nth: u64) {
        let mut p = self.plan.lock_leaf(&SpinHooks);
        let at = p.done[op as usize].saturating_add(nth);
        p.fail[op as usize].push(at);
    }
    /// Every transfer that touches `page` fails until [`FaultyDevice::heal`].
    pub fn break_page(&self, page: u64) {
        self.plan.lock_leaf(&SpinHooks).pages.push(page);
    }
    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut p = self.plan.lock_leaf(&SpinHooks);
        p.fail = Default::default();
        p.pages.clear();
    }
    fn judge(&self, cx: &Cx, op: DeviceOp, page: u64, count: u64) -> Result<(), DeviceError> {
        let mut p = self.plan.lock_leaf(&**cx.hooks());
        let kind = op as usize;
        p.done[kind] += 1;
        let now = p.done[kind];
        let broken = p.pages.iter().any(|b| (page..page.saturating_add(count)).contains(b));
        if broken || p.fail[kind].contains(&now) {
            return Err(DeviceError { op, page, errno: errno::EIO });
        }
        Ok(())
    }
}

impl fmt::Debug for FaultyDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDevice").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl SwapDevice for FaultyDevice {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn medium(&self) -> Medium {
        self.inner.medium()
    }
    fn prepare(&self, cx: &Cx) -> Result<(), DeviceError> {
        self.judge(cx, DeviceOp::Open, 0, 0)?; // no page is touched
        self.inner.prepare(cx)
    }
    fn pages(&self) -> u64 {
        self.inner.pages()
    }
    fn read(&self, cx: &Cx, page: u64, to: Pfn, mem: &dyn PhysMem) -> Result<(), DeviceError> {
        self.judge(cx, DeviceOp::Read, page, 1)?;
        self.inner.read(cx, page, to, mem)
    }
    fn write(
        &self,
        cx: &Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        self.judge(cx, DeviceOp::Write, page, frames.len() as u64)?;
        self.inner.write(cx, page, frames, mem)
    }
}
