//! The system calls: what they refuse, in illumos's order, and what they do to the records.
//!
//! Where a call meets a hole or an error half way, what it did before stays (protect, advise,
//! unlock) or is undone (lock), as illumos does.

use crate::script::ast::{
    Advice, Inherit, Limit, LockAll, OpenMode, Placement, Prot, Share, SyncFlags,
};
use crate::script::outcome::{Errno, FNV_OFFSET, FirstBytes, Outcome, PAGE_BYTES, fnv};
use crate::script::world::{MapCall, MapSource, ProcSlot, Region};

use super::watch::Hit;
use super::{Attempt, Backing, Model, Object, Page, Process, USER_TOP, pieces};

pub(super) type Answer = Result<Outcome, Errno>;

/// Rounds up to whole pages; lengths past the last page wrap to 0.
pub(super) fn round_up(len: u64) -> u64 {
    len.wrapping_add(PAGE_BYTES - 1) & !(PAGE_BYTES - 1)
}

pub(super) fn is_aligned(addr: u64) -> bool {
    addr.is_multiple_of(PAGE_BYTES)
}

/// The end of a range whose length is not 0: ENOMEM when rounding or adding wraps, or when it is not a user's address.
fn end_of(region: Region) -> Result<u64, Errno> {
    let len = round_up(region.len);
    let end = region.addr.checked_add(len).filter(|end| len != 0 && *end <= USER_TOP);
    end.ok_or(Errno::ENOMEM)
}

/// The end of a range for calls that refuse a misaligned start and length 0.
pub(super) fn checked_end(region: Region) -> Result<u64, Errno> {
    if !is_aligned(region.addr) || region.len == 0 {
        return Err(Errno::EINVAL);
    }
    end_of(region)
}

impl Model {
    fn proc(&mut self, slot: u32) -> Result<&mut Process, Outcome> {
        self.procs.get_mut(&slot).ok_or(Outcome::Skip)
    }

    /// Runs `call` on a process, or skips it.
    pub(super) fn on(
        &mut self,
        slot: ProcSlot,
        call: impl FnOnce(&mut Process) -> Answer,
    ) -> Outcome {
        let slot = self.seat(slot);
        match self.proc(slot) {
            Ok(p) => call(p).into(),
            Err(skip) => skip,
        }
    }

    // ---- mapping

    pub(super) fn map_range(&mut self, call: &MapCall) -> Answer {
        let Region { proc, addr, len } = call.region;
        let (file, offset) = match call.source {
            MapSource::Anon => (None, 0),
            MapSource::File(slot, offset) => (Some(slot), offset),
        };
        if !is_aligned(offset) {
            return Err(Errno::EINVAL);
        }
        let file = match file {
            None => None,
            Some(slot) => match self.files.get(&slot.0) {
                Some(f) if !f.closed => Some(*f),
                _ => return Err(Errno::EBADF),
            },
        };
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let hint = call.placement == Placement::Hint;
        let shared = match call.share {
            Share::Private => false,
            Share::Shared => true,
            Share::Both | Share::Neither => return Err(Errno::EINVAL),
        };
        if file.is_some() {
            check_file_range(offset, round_up(len))?;
        }
        let mode = file.map(|f| f.mode);
        let wants_write = matches!(call.prot, Prot::Letters { write: true, .. });
        if mode == Some(OpenMode::WriteOnly)
            || (shared && wants_write && mode == Some(OpenMode::ReadOnly))
        {
            return Err(Errno::EACCES);
        }
        if !hint && !is_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        let (read, write, exec) = match call.prot {
            Prot::Letters { read, write, exec } => (read, write, exec),
            Prot::Bad if hint && file.is_some() => return Err(Errno::EACCES),
            Prot::Bad => return Err(Errno::ENOTSUP),
        };
        let addr = if hint { addr & !(PAGE_BYTES - 1) } else { addr };
        let len = round_up(len);
        if len == 0 || len > USER_TOP || (!hint && addr > USER_TOP - len) {
            return Err(Errno::ENOMEM);
        }
        let Some(process) = self.procs.get(&proc.0) else { return Ok(Outcome::Skip) };
        // A hint may be any number; a range that wraps is not free.
        let pages = addr / PAGE_BYTES..addr.saturating_add(len).div_ceil(PAGE_BYTES);
        let busy = process.has_any(pages.clone());
        if call.placement == Placement::NoReplace && busy {
            return Err(Errno::EEXIST);
        }
        let count = len / PAGE_BYTES;
        let total_with =
            |mapped: usize| (mapped as u64).saturating_add(count).saturating_mul(PAGE_BYTES);
        if hint && (busy || addr == 0 || addr > USER_TOP - len) {
            // Wherever it goes, it goes over nothing.
            let fits = total_with(process.pages.len()) <= process.limit(Limit::Vmem);
            return if fits { Ok(Outcome::MOVED) } else { Err(Errno::ENOMEM) };
        }
        if count > Self::MAX_PAGES {
            return Err(Errno::ENOMEM);
        }
        let mapped = process.pages.len() - process.pages.range(pages.clone()).count();
        if total_with(mapped) > process.limit(Limit::Vmem) {
            // The limit is looked at when what was there is gone.
            if call.placement == Placement::Fixed {
                let process = self.procs.get_mut(&proc.0).expect("looked up above");
                process.pages.retain(|n, _| !pages.contains(n));
            }
            return Err(Errno::ENOMEM);
        }
        let object = match file {
            Some(f) => Some(f.object),
            None if shared => {
                self.objects.push(Object { size: len, ..Object::default() });
                Some(self.objects.len() - 1)
            }
            None => None,
        };
        let may_write = !(shared && mode == Some(OpenMode::ReadOnly));
        let process = self.procs.get_mut(&proc.0).expect("looked up above");
        let locked = process.future || call.flags.locked;
        let noreserve = call.flags.noreserve && !shared;
        for (i, page) in pages.enumerate() {
            let index = offset / PAGE_BYTES + i as u64;
            let backing = object.map_or(Backing::Zero, |object| Backing::Object { object, index });
            let fresh = Page { backing, shared, read, write, exec, may_write, ..Page::NEW };
            process.pages.insert(page, Page { noreserve, locked, ..fresh });
        }
        Ok(Outcome::OK)
    }

    // ---- memory

    /// Populating is a load or store of nothing on each page, upwards; what it meets it names as an advice does.
    pub(super) fn populate(&mut self, region: Region, attempt: Attempt) -> Outcome {
        let proc = region.proc.0;
        let mut span = Vec::new();
        let asked = self.on(region.proc, |p| {
            span = p.span(region.addr, checked_end(region)?);
            Ok(Outcome::OK)
        });
        if asked != Outcome::OK {
            return asked;
        }
        for page in span {
            let Some(page) = page else { return Errno::ENOMEM.into() };
            match self.reach(proc, page * PAGE_BYTES, attempt, 0) {
                Ok(_) if attempt == Attempt::Store => _ = self.own(proc, page * PAGE_BYTES),
                Ok(_) => {}
                Err(Outcome::Bus { .. }) => return Errno::EFAULT.into(),
                Err(_) => return Errno::EINVAL.into(),
            }
        }
        Outcome::OK
    }

    /// Private copies go, up to a hole or a locked page, but not those that another process has too.
    pub(super) fn discard(&mut self, region: Region) -> Outcome {
        let proc = region.proc.0;
        let end = match checked_end(region) {
            Ok(end) => end,
            Err(e) => return if self.procs.contains_key(&proc) { e.into() } else { Outcome::Skip },
        };
        let Some(p) = self.procs.get(&proc) else { return Outcome::Skip };
        for page in p.span(region.addr, end) {
            let Some(n) = page else { return Errno::ENOMEM.into() };
            let page = &self.procs[&proc].pages[&n];
            if page.locked {
                return Errno::EBUSY.into();
            }
            match page.cell {
                Some(cell) if self.users_of(cell) == 1 => self.cells[cell].copy = None,
                Some(_) => {}
                None => {
                    let page = self.procs.get_mut(&proc).and_then(|p| p.pages.get_mut(&n));
                    page.expect("looked at just now").copy = None;
                }
            }
        }
        Outcome::OK
    }

    /// How many pages of processes have their bytes in this cell.
    pub(super) fn users_of(&self, cell: usize) -> usize {
        let pages = self.procs.values().flat_map(|p| p.pages.values());
        pages.filter(|page| page.cell == Some(cell)).count()
    }

    pub(super) fn load(&self, region: Region) -> Outcome {
        let mut hash = FNV_OFFSET;
        let mut first = FirstBytes::default();
        for (done, at, n) in pieces(region.addr, region.len) {
            let hit = self.hit(region.proc.0, at, n as u64, Attempt::Load);
            match self.reach(region.proc.0, at, Attempt::Load, done) {
                Err(signal) => return stopped(hit, done, signal),
                Ok(_) if hit.is_some() => return hit.map_or(Outcome::OK, |hit| hit.trap(done)),
                Ok(page) => {
                    let i = (at % PAGE_BYTES) as usize;
                    let bytes = &self.bytes(page)[i..i + n];
                    hash = fnv(hash, bytes);
                    first.extend(bytes);
                }
            }
        }
        Outcome::bytes(hash, first)
    }

    pub(super) fn store(&mut self, region: Region, byte: u8) -> Outcome {
        for (done, at, n) in pieces(region.addr, region.len) {
            let hit = self.hit(region.proc.0, at, n as u64, Attempt::Store);
            if let Err(signal) = self.reach(region.proc.0, at, Attempt::Store, done) {
                return stopped(hit, done, signal);
            }
            let n = hit.map_or(n, |hit| hit.through as usize);
            if n != 0 {
                let i = (at % PAGE_BYTES) as usize;
                let bytes = self.own(region.proc.0, at);
                for (k, b) in bytes[i..i + n].iter_mut().enumerate() {
                    *b = byte.wrapping_add((done as usize + k) as u8);
                }
            }
            if let Some(hit) = hit {
                return hit.trap(done);
            }
        }
        Outcome::OK
    }

    pub(super) fn fetch_at(&self, proc: u32, addr: u64) -> Outcome {
        use crate::script::outcome::Facts;
        match self.reach(proc, addr, Attempt::Fetch, 0) {
            Err(signal) => signal,
            Ok(page) => {
                let bytes = &self.bytes(page)[(addr % PAGE_BYTES) as usize..];
                Outcome::Ok(Facts { b: Some(FirstBytes::of(bytes)), ..Facts::default() })
            }
        }
    }
}

/// What stops an access of a page that `signal` would stop: a watch on its first byte does before anybody has looked for the page.
fn stopped(hit: Option<Hit>, done: u64, signal: Outcome) -> Outcome {
    match (hit, signal) {
        (Some(hit), Outcome::Bus { .. }) if hit.through == 0 => hit.trap(done),
        _ => signal,
    }
}

/// A file can be mapped as far as offsets go.
fn check_file_range(offset: u64, len: u64) -> Result<(), Errno> {
    const OFFSET_MAX: u64 = i64::MAX as u64;
    if offset > OFFSET_MAX {
        return Err(Errno::ENXIO);
    }
    // A length is a signed number here; one that is negative is no range either, as will be said later.
    if len <= OFFSET_MAX && len > OFFSET_MAX - offset { Err(Errno::EOVERFLOW) } else { Ok(()) }
}

impl Page {
    pub(super) const NEW: Page = Page {
        backing: Backing::Zero,
        shared: false,
        read: true,
        write: true,
        exec: false,
        may_write: true,
        dont_fork: false,
        inherit: None,
        noreserve: false,
        locked: false,
        copy: None,
        cell: None,
    };
}

impl Process {
    pub(super) fn unmap(&mut self, region: Region) -> Answer {
        let Region { addr, len, .. } = region;
        if !is_aligned(addr) || len == 0 || addr > USER_TOP || len > USER_TOP - addr {
            return Err(Errno::EINVAL);
        }
        for page in self.span(addr, addr + round_up(len)).into_iter().flatten() {
            self.pages.remove(&page);
        }
        Ok(Outcome::OK)
    }

    pub(super) fn protect(&mut self, region: Region, prot: Prot) -> Answer {
        let end = checked_end(region)?;
        let Prot::Letters { read, write, exec } = prot else { return Err(Errno::ENOTSUP) };
        for page in self.span(region.addr, end) {
            let page = self.page_or_hole(page)?;
            if write && !page.may_write {
                return Err(Errno::EACCES);
            }
            (page.read, page.write, page.exec) = (read, write, exec);
        }
        Ok(Outcome::OK)
    }

    /// The record of a page, or ENOMEM for a hole.
    pub(super) fn page_or_hole(&mut self, page: Option<u64>) -> Result<&mut Page, Errno> {
        page.and_then(|n| self.pages.get_mut(&n)).ok_or(Errno::ENOMEM)
    }

    /// `is_past_end` knows the ends of files: reading ahead past one is refused as the read would be.
    pub(super) fn advise(
        &mut self,
        region: Region,
        advice: Advice,
        is_past_end: impl Fn(&Page) -> bool,
    ) -> Answer {
        if advice == Advice::Bad {
            return Err(Errno::EINVAL);
        }
        let end = checked_end(region)?;
        for page in self.span(region.addr, end) {
            let page = self.page_or_hole(page)?;
            match advice {
                Advice::DontNeed | Advice::Drop | Advice::Discard if page.locked => {
                    return Err(Errno::EBUSY);
                }
                Advice::WillNeed if is_past_end(page) => return Err(Errno::EFAULT),
                Advice::InheritZero if !page.is_private_anon() => return Err(Errno::EINVAL),
                Advice::InheritZero => page.inherit = Some(Inherit::Zero),
                Advice::InheritCopy => page.inherit = None,
                Advice::DontFork => page.dont_fork = true,
                Advice::DoFork => page.dont_fork = false,
                // Contents are kept: DONTNEED writes them out, FREE may keep them.
                _ => {}
            }
        }
        Ok(Outcome::OK)
    }

    pub(super) fn sync(&mut self, region: Region, flags: SyncFlags) -> Answer {
        if flags.bad || (flags.sync && flags.asynchronous) {
            return Err(Errno::EINVAL);
        }
        let end = checked_end(region)?;
        for page in self.span(region.addr, end) {
            let page = self.page_or_hole(page)?;
            if flags.invalidate && page.locked {
                return Err(Errno::EBUSY);
            }
        }
        Ok(Outcome::OK)
    }

    pub(super) fn lock(&mut self, region: Region) -> Answer {
        let end = lock_end(region)?;
        let limit = self.limit(Limit::Memlock) / PAGE_BYTES;
        let mut locked = self.pages.values().filter(|p| p.locked).count() as u64;
        let mut new = Vec::new();
        for page in self.span(region.addr, end) {
            let refused = match self.page_or_hole(page) {
                Err(e) => Some(e),
                Ok(p) if p.locked => None,
                Ok(_) if locked >= limit => Some(Errno::EAGAIN),
                Ok(p) => {
                    p.locked = true;
                    locked += 1;
                    new.extend(page);
                    None
                }
            };
            if let Some(e) = refused {
                for page in new {
                    self.pages.get_mut(&page).expect("locked above").locked = false;
                }
                return Err(e);
            }
        }
        Ok(Outcome::OK)
    }

    pub(super) fn unlock(&mut self, region: Region) -> Answer {
        let end = lock_end(region)?;
        for page in self.span(region.addr, end) {
            self.page_or_hole(page)?.locked = false;
        }
        Ok(Outcome::OK)
    }

    pub(super) fn lock_all(&mut self, what: LockAll) -> Answer {
        let (current, future) = match what {
            LockAll::Current => (true, false),
            LockAll::Future => (false, true),
            LockAll::Both => (true, true),
            LockAll::Nothing => return Err(Errno::EINVAL),
        };
        self.future |= future;
        if current {
            self.pages.values_mut().for_each(|p| p.locked = true);
        }
        Ok(Outcome::OK)
    }

    pub(super) fn unlock_all(&mut self) -> Answer {
        self.future = false;
        self.pages.values_mut().for_each(|p| p.locked = false);
        Ok(Outcome::OK)
    }

    pub(super) fn incore(&mut self, region: Region) -> Answer {
        let Region { addr, len, .. } = region;
        // The length is a signed number to this call.
        if !is_aligned(addr) || len == 0 || len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        match addr.checked_add(len) {
            Some(end) if end <= USER_TOP => {
                for page in self.span(addr, end) {
                    self.page_or_hole(page)?;
                }
                Ok(Outcome::OK)
            }
            _ => Err(Errno::ENOMEM),
        }
    }

    pub(super) fn set_brk(&mut self, initial: u64, to: u64) -> Answer {
        let over = to > self.brk && to.saturating_sub(initial) > self.limit(Limit::Data);
        if to < initial || to > USER_TOP || over {
            return Err(Errno::ENOMEM);
        }
        let (old, new) = (self.brk.div_ceil(PAGE_BYTES), to.div_ceil(PAGE_BYTES));
        if new > old {
            let grown = (self.pages.len() as u64).saturating_add(new - old);
            if self.has_any(old..new)
                || new - old > Model::MAX_PAGES
                || grown.saturating_mul(PAGE_BYTES) > self.limit(Limit::Vmem)
            {
                return Err(Errno::ENOMEM);
            }
            let locked = self.future;
            self.pages.extend((old..new).map(|n| (n, Page { locked, ..Page::NEW })));
        } else {
            (new..old).for_each(|n| {
                self.pages.remove(&n);
            });
        }
        self.brk = to;
        Ok(Outcome::OK)
    }

    pub(super) fn set_limit(&mut self, limit: Limit, bytes: Option<u64>) -> Answer {
        let word = limit.word();
        let known = self.limits.get(word).into_iter().chain(self.told.get(word));
        let last = known.map(|(_, set)| *set).max().unwrap_or(0);
        self.limits.insert(word, (bytes.unwrap_or(u64::MAX), last + 1));
        Ok(Outcome::OK)
    }
}

/// The end of a range to lock or unlock.
fn lock_end(region: Region) -> Result<u64, Errno> {
    if !is_aligned(region.addr) || region.len == 0 {
        return Err(Errno::EINVAL);
    }
    end_of(region)
}
