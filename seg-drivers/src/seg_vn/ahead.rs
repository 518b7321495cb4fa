//! Neighbours: pages near a fault that are resident are mapped along, and pages behind a sequential reader are let go.
//!
//! Never blocks, allocates or reads: a neighbour is taken only if its slot, its page and its table are there and free at once.
//!
//! # Which
//!
//! ```text
//!   anonymous memory   3 back, 4 forward; 8 and 7 under sequential advice           UVM's windows
//!   over a file        the aligned window of 16 pages that holds the fault          so a reader in order faults once in 16 pages
//!   random advice      none
//! ```
//!
//! # How
//!
//! A neighbour by itself would cost a fault but for the trap. The window goes through each floor in one step instead, at most sixteen pages at a
//! time: the rights of what is mapped by now in one look, the slots with one locked instruction, the pages by a run of names, the translations
//! into one table. One stamp, taken before the rights are read, speaks for all of them.
//!
//! # Reading along
//!
//! None of this reads anything. What may be read along with a page that a load fault had to read from a file is another matter: klusters, which the textbook's
//! file systems read (`pvn_read_kluster`), asking the segment at each step whether it is sensible (`SEGOP_KLUSTER`). Here a vnode is asked for a page and
//! knows no segment, so the segment asks itself, and then for the pages. Forwards first, then backwards, each way up to the first that is resident, is not sensible, or lies past an end; not at all
//! when memory is short. Off unless [`super::VnTunables::kluster`] says otherwise: UVM reads nothing along, and nothing of it shows in what is counted then.
//! Page-out asks no segment: it pushes dirty pages that nobody's fault is waiting for, and who writes them clusters them (`swapfs`, by slots).
//!
//! Sources: uvm.md 3.1 (6, 8, 11), 7.2 C14; illumos.md 4.5 (steps 5, 6, 8), 4.8 (kluster).

use super::SegVn;
use super::fault::PageFault;
use crate::anon::array::CHUNK;
use crate::anon::{SlotGuard, SlotRun};
use addr_space::{Advice, FaultError, LoadFlags, RunPage, SegCx, Stamp};
use core::array;
use core::ops::Range;
use page_db::sync::atomic::Ordering;
use page_db::{
    Counter, FileOffset, Identity, LockedPage, PAGE_SIZE, Prot, PutFlags, SharedPage, VirtAddr,
    VirtRange, VnodeId, Wanted,
};

/// Pages of a window that are worked on together.
const PART: usize = 16;

/// Where the upper layer's slots of a part are to be looked at.
enum Slots<'a> {
    /// There are none, as long as the stamp holds.
    Absent,
    Held(SlotRun<'a>, u64),
}

/// Neighbours to be looked for: places in the part, names, and the rights to map them with.
struct Near {
    at: [usize; PART],
    prot: [Prot; PART],
    names: [Wanted; PART],
    count: usize,
}

impl Near {
    fn new() -> Self {
        let nothing = Wanted::from(Identity::new(VnodeId(0), FileOffset(0)));
        Self { at: [0; PART], prot: [Prot::empty(); PART], names: [nothing; PART], count: 0 }
    }
    fn add(&mut self, at: usize, prot: Prot, name: Wanted) {
        if prot.contains(Prot::READ) {
            let i = self.count;
            (self.at[i], self.prot[i], self.names[i]) = (at, prot, name);
            self.count += 1;
        }
    }
}

/// Pages in a row that somebody keeps, after which a sequential reader frees none behind them: a file that is locked in memory would cost each fault all of it.
const MOST_KEPT: u32 = 64;

/// Pages that one fault of a sequential reader writes at most, a kluster's worth: as many as a fault maps along over a file, so as many as such a reader leaves behind it
/// from one fault to the next. In illumos such writes are made in the background, however many they are; here the fault waits for each, and what was modified before that and lies
/// further back is page-out's.
const MOST_WRITTEN: u64 = PART as u64;

impl SegVn {
    /// Maps resident neighbours of a load fault, as advice says; the file's pages with no rights but those `given` for the one that was asked for.
    pub(super) fn map_neighbours(&self, f: &PageFault<'_>, given: Prot) {
        if f.soft() {
            return;
        }
        let window = self.window(f);
        let mut first = window.start;
        while first < window.end {
            // A part lies in one chunk of slots.
            let slot = self.amp_index().wrapping_add(first);
            let room = (CHUNK - slot % CHUNK).min(PART as u64);
            let end = window.end.min(first.saturating_add(room));
            self.map_part(f, first..end, given);
            first = end;
        }
    }
    /// The pages to look at, by their index in the segment.
    fn window(&self, f: &PageFault<'_>) -> Range<u64> {
        let t = &self.driver.tunables;
        let at = f.scx.seg.page_index(f.addr);
        let (back, forward) = match self.advice_at(f.scx, f.addr) {
            Advice::Random => return at..at,
            _ if self.backing.is_some() && t.ahead_file != 0 => {
                let back = f.addr.vpn() % t.ahead_file;
                (back, t.ahead_file - 1 - back)
            }
            Advice::Sequential => t.ahead_sequential,
            _ => t.ahead_normal,
        };
        let end = at.saturating_add(forward).saturating_add(1).min(f.scx.seg.pages().get());
        at.saturating_sub(back)..end
    }
    /// Maps what is resident of a part of a window, and not mapped yet.
    fn map_part(&self, f: &PageFault<'_>, part: Range<u64>, given: Prot) {
        let (scx, cx) = (f.scx, f.scx.cx);
        let n = (part.end - part.start) as usize;
        let start = scx.seg.page_at(part.start);
        let Ok(range) = VirtRange::exact(start.get(), n as u64 * PAGE_SIZE) else { return };
        let mut have = [Prot::empty(); PART];
        scx.hat.rights(cx, range, &mut have[..n]);
        let mut stamp = Stamp::take(&self.seq);
        let mut prots = [Prot::empty(); PART];
        self.rights(scx, range, &mut prots[..n]);
        for (page, (prot, have)) in part.clone().zip(prots.iter_mut().zip(&have)) {
            if !have.is_empty() || page == scx.seg.page_index(f.addr) {
                *prot = Prot::empty();
            }
        }
        if prots.iter().all(|p| p.is_empty()) {
            return;
        }
        let Some(slots) = self.slots_near(scx, start, n, &mut stamp) else { return };
        let near = self.names_near(scx, start, &prots[..n], given, &slots);
        // held: as (reader), slots
        let mut got: [Option<SharedPage<'_>>; PART] = array::from_fn(|_| None);
        let names = &near.names[..near.count];
        if scx.db.try_lookup_shared_run(cx, names, &mut got[..near.count]) == 0 {
            return;
        }
        let mut pages = [None; PART];
        for (i, page) in got[..near.count].iter().enumerate() {
            if let Some(page) = page.as_ref().filter(|p| !scx.db.is_io_locked(p.id())) {
                let lent = page.page().is_lent(); // I10
                let prot = if lent { near.prot[i].read_only() } else { near.prot[i] };
                pages[near.at[i]] = Some(RunPage::new(page, prot));
            }
        }
        let run = scx.hat.memload_run(cx, start, &pages[..n], LoadFlags::ADV, Some(stamp));
        cx.count_n(Counter::FaultAhead, run.loaded as u64);
    }
    /// The rights of the pages of `range`, read after taking a stamp.
    pub(super) fn rights(&self, scx: &SegCx<'_>, range: VirtRange, out: &mut [Prot]) {
        out.fill(self.prot());
        if self.vpaged.load(Ordering::SeqCst) != 0 {
            let first = range.start().vpn();
            let inner = self.lock.lock(scx.cx);
            for (i, out) in (0u64..).zip(out) {
                *out = inner.vpage.get(first + i).prot.unwrap_or(*out);
            }
        }
    }
    /// The slots of `n` pages, all of one chunk, busy as far as nobody else has them. `None` when without them nothing may be mapped.
    fn slots_near<'a>(
        &'a self,
        scx: &SegCx<'a>,
        start: VirtAddr,
        n: usize,
        stamp: &mut Stamp<'a>,
    ) -> Option<Slots<'a>> {
        let Some(map) = self.amap() else { return Some(Slots::Absent) };
        let first = self.slot_of(scx.seg, start);
        if let Some(run) = map.try_enter_run(scx.cx, first..first + n as u64) {
            return Some(Slots::Held(run, first));
        }
        self.backing.as_ref()?;
        if self.shared() {
            return Some(Slots::Absent); // nothing is above a shared file
        }
        if map.is_joint() {
            return None; // J2
        }
        *stamp = stamp.and(map.chunks_made());
        map.is_absent(scx.cx, first).then_some(Slots::Absent)
    }
    /// Names of the pages from `start` on that have rights in `prots`: of their anons, or of the file's pages.
    fn names_near(
        &self,
        scx: &SegCx<'_>,
        start: VirtAddr,
        prots: &[Prot],
        given: Prot,
        slots: &Slots<'_>,
    ) -> Near {
        let layer = &self.driver.layer;
        let mut near = Near::new();
        let file = self.backing.as_ref().zip(self.file_offset(scx.seg, start));
        let file = file.map(|(b, first)| (b.vnode.id(), first.0, b.vnode.size()));
        for (i, prot) in prots.iter().enumerate().filter(|(_, p)| !p.is_empty()) {
            let anon = match slots {
                Slots::Absent => None,
                Slots::Held(run, first) => {
                    let slot = first + i as u64;
                    if !run.holds(slot) {
                        continue;
                    }
                    run.get(slot)
                }
            };
            if let Some(n) = anon {
                let name = Wanted { id: layer.swap().identity(n), hint: layer.anons.hint(n) };
                near.add(i, self.mapped_prot(*prot, n), name);
            } else if let Some((vnode, first, size)) = file {
                let offset = first + i as u64 * PAGE_SIZE;
                if offset < size {
                    let prot = *prot & given;
                    let prot = if self.shared() { prot } else { prot.read_only() };
                    near.add(i, prot, Identity::new(vnode, FileOffset(offset)).into());
                }
            }
        }
        near
    }
    /// Reads pages near a load fault that had to read, as far as it is sensible. Best effort: a page that cannot be had now is read when it is touched.
    #[doc(alias = "pvn_read_kluster")]
    pub(super) fn read_kluster(&self, f: &PageFault<'_>) {
        let (most, seg) = (self.driver.tunables.kluster, f.scx.seg);
        if most <= 1 {
            return;
        }
        let at = seg.page_index(f.addr);
        let end = seg.pages().get().min(at.saturating_add(most));
        let mut left = most - 1;
        let mut read = |page: u64| {
            let go = left != 0 && self.read_along(f, seg.page_at(page));
            left -= u64::from(go);
            go
        };
        // Each way up to the first page that is not to be read.
        let _ = (at + 1..end).all(&mut read);
        let _ = (at.saturating_sub(most)..at).rev().all(&mut read);
    }
    /// Reads the page at `addr` along with that of the fault; says whether it did.
    fn read_along(&self, f: &PageFault<'_>, addr: VirtAddr) -> bool {
        let (scx, cx) = (f.scx, f.scx.cx);
        let delta = addr.get().wrapping_sub(f.addr.page_floor().get()) as i64;
        let (Some(b), Some(offset)) = (&self.backing, self.file_offset(scx.seg, addr)) else {
            return false;
        };
        let id = Identity::new(b.vnode.id(), offset);
        offset.0 < b.vnode.size()
            && scx.db.freemem() > scx.db.free_mem().thresholds().minfree
            && kluster(self, scx, f.addr.page_floor(), delta)
            && scx.db.exists(cx, id).is_none()
            && b.vnode.read_ahead(cx, scx.db, offset).is_ok()
    }
    /// Under sequential advice the pages behind the fault are offered to the cache list, from the nearest down to the first that is absent, or on that list already,
    /// or after [`MOST_WRITTEN`] that had to be written for it.
    pub(super) fn free_behind(&self, f: &PageFault<'_>) {
        if self.advice_at(f.scx, f.addr) != Advice::Sequential {
            return;
        }
        let Some(b) = &self.backing else { return };
        let at = f.scx.seg.page_index(f.addr);
        let written = || f.scx.cx.counted(Counter::PgPgOut); // by this thread: a vnode that holds its writes back makes nobody wait
        let most = written() + MOST_WRITTEN;
        let mut kept = 0; // in a row, by somebody else: the faults before have offered what lies behind them
        for i in (0..at).rev() {
            let addr = f.scx.seg.page_at(i);
            let Some(offset) = self.file_offset(f.scx.seg, addr) else { return };
            let id = Identity::new(b.vnode.id(), offset);
            let resident = f.scx.db.exists(f.scx.cx, id).filter(|p| !f.scx.db.page(*p).is_free());
            let Some(page) = resident else { return };
            if self.advice_at(f.scx, addr) != Advice::Sequential {
                return;
            }
            let flags = PutFlags::DONTNEED | PutFlags::FREE | PutFlags::ASYNC;
            if b.vnode.put_page(f.scx.cx, f.scx.db, offset, PAGE_SIZE, flags).is_err() {
                return;
            }
            kept = if f.scx.db.page(page).is_free() { 0 } else { kept + 1 };
            if kept == MOST_KEPT || written() >= most {
                return;
            }
        }
    }
}

/// Starts reading one page; loads no translation.
#[doc(alias = "segvn_faulta")]
pub(super) fn faulta(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> Result<(), FaultError> {
    let error = |e: page_db::VnodeError| match e {
        page_db::VnodeError::NoMemory { .. } => FaultError::NoMemory { addr },
        e => FaultError::Object { addr, errno: e.errno() },
    };
    // Busy during the read: the slot's reference keeps the number from being freed under the page that is made for it.
    let slot = seg.amap().and_then(|m| m.enter(scx.cx, seg.slot_of(scx.seg, addr)));
    if let Some(n) = slot.as_ref().and_then(SlotGuard::get) {
        return seg.driver.layer.swap().read_ahead(scx.cx, n).map_err(error);
    }
    drop(slot);
    match (&seg.backing, seg.file_offset(scx.seg, addr)) {
        (Some(b), Some(offset)) => b.vnode.read_ahead(scx.cx, scx.db, offset).map_err(error),
        _ => Ok(()),
    }
}

#[doc(alias = "segvn_kluster")]
pub(super) fn kluster(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr, delta: i64) -> bool {
    let Some(other) = addr.get().checked_add_signed(delta).and_then(|a| VirtAddr::new(a).ok())
    else {
        return false;
    };
    if !scx.seg.contains(other) {
        return false;
    }
    match seg.advice_at(scx, addr) {
        Advice::Random => return false,
        Advice::Sequential if delta < 0 => return false,
        _ => {}
    }
    if seg.shared() {
        return true;
    }
    let Some(map) = seg.amap() else { return true };
    let name = |a| map.peek(seg.slot_of(scx.seg, a)).map(|n| seg.driver.layer.swap().identity(n));
    match (name(addr), name(other)) {
        (None, None) => true,
        (Some(x), Some(y)) => {
            x.vnode == y.vnode && y.offset.0.wrapping_sub(x.offset.0) as i64 == delta
        }
        _ => false,
    }
}

/// Starts reading the pages of `range` that are kept somewhere: pushed anons and pages of the file. The rest is zeros and costs nothing. From below: of what
/// lies under a page that fails, nothing is left out.
pub(super) fn read_ahead(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Result<(), FaultError> {
    let (Some(b), Some(first)) = (&seg.backing, seg.file_offset(scx.seg, range.start())) else {
        return read_slots(seg, scx, range, false).map(drop);
    };
    let behind = b.vnode.size().saturating_sub(first.0).div_ceil(PAGE_SIZE);
    for addr in range.iter_pages().take(usize::try_from(behind).unwrap_or(usize::MAX)) {
        faulta(seg, scx, addr)?;
    }
    // Past the end of the file only the segment's own copies can be had; the first page that has none ends the walk.
    if behind >= range.pages().get() {
        return Ok(());
    }
    let Some(past) = range.from(range.page_at(behind).get()) else { return Ok(()) };
    match read_slots(seg, scx, past, true)? {
        Some(addr) => Err(FaultError::Object { addr, errno: page_db::errno::EFAULT }),
        None => Ok(()),
    }
}

/// Starts reading the anons of `range`. With `unbroken` it ends at the first page that has none, and says which.
fn read_slots(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    unbroken: bool,
) -> Result<Option<VirtAddr>, FaultError> {
    let mut next = 0;
    if let Some(map) = seg.amap() {
        let slots = seg.slots_of(scx.seg, range);
        for (slot, _) in map.slots(scx.cx, slots.clone()) {
            let index = slot.wrapping_sub(slots.start);
            if unbroken && index != next {
                break;
            }
            faulta(seg, scx, range.page_at(index))?;
            next = index + 1;
        }
    }
    Ok((unbroken && next < range.pages().get()).then(|| range.page_at(next)))
}
