//! From statements to calls: slots and numbers filled in, `skip` where nothing can be meant.

use super::super::ast::*;
use super::super::outcome::{Digest, Outcome, PAGE_BYTES, PageState};
use super::super::world::*;
use super::{RunProblem, Runner, page_hash_of};

impl<W: World> Runner<W> {
    pub(super) fn perform(&mut self, operation: &Operation) -> Result<Outcome, RunProblem> {
        use Operation as O;
        match operation {
            O::File { .. }
            | O::HostFile { .. }
            | O::Truncate { .. }
            | O::Pwrite { .. }
            | O::Pread { .. }
            | O::Fclose(_) => self.on_file(operation),
            O::Scan(n) => Ok(self.world.scan(*n)),
            O::Squeeze(n) => Ok(self.world.squeeze(*n)),
            O::Release => Ok(self.world.release()),
            O::SwapAdd(area) => Ok(self.world.swap_add(area)),
            O::SwapDel(area) => Ok(self.world.swap_del(*area)),
            O::Lent(loan) => Ok(self.world.lent(*loan)),
            O::Unlend(loan) => Ok(self.world.unlend(*loan)),
            O::Pinned(pin) => Ok(self.world.pinned(*pin)),
            O::Unpin(pin) => Ok(self.world.unpin(*pin)),
            O::Unretire => Ok(self.world.unretire()),
            O::Pageout(None) => Ok(self.world.pageout(None)),
            O::Spawn { proc, path } => {
                let proc = self.new_proc(proc);
                if self.lives(proc) {
                    return Ok(Outcome::Skip);
                }
                let outcome = self.world.spawn(proc, path);
                if outcome.is_ok() {
                    self.live.insert(proc.0);
                }
                Ok(outcome)
            }
            _ => self.on_process(operation),
        }
    }

    fn on_file(&mut self, operation: &Operation) -> Result<Outcome, RunProblem> {
        use Operation as O;
        match operation {
            O::File { file, size, mode } => {
                let file = self.new_file(file);
                if self.is_made(file) {
                    return Ok(Outcome::Skip);
                }
                self.made.insert(file.0, false);
                return Ok(self.world.file(file, *size, *mode));
            }
            O::HostFile { file, path, mode } => {
                let file = self.new_file(file);
                if self.is_made(file) {
                    return Ok(Outcome::Skip);
                }
                let outcome = self.world.host_file(file, path, *mode);
                if outcome.is_ok() {
                    self.made.insert(file.0, false);
                }
                return Ok(outcome);
            }
            _ => {}
        }
        let (O::Truncate { file, .. }
        | O::Pwrite { file, .. }
        | O::Pread { file, .. }
        | O::Fclose(file)) = operation
        else {
            unreachable!("on_file is called with file operations only");
        };
        let slot = self.file(file)?;
        if !self.is_made(slot) {
            return Ok(Outcome::Skip);
        }
        Ok(match operation {
            O::Truncate { size, .. } => self.world.truncate(slot, *size),
            O::Pwrite { offset, len, byte, .. } => self.world.pwrite(slot, *offset, *len, *byte),
            O::Pread { offset, len, .. } => self.world.pread(slot, *offset, *len),
            _ => match self.made.insert(slot.0, true) {
                Some(true) => Outcome::Skip,
                _ => self.world.fclose(slot),
            },
        })
    }

    fn on_process(&mut self, operation: &Operation) -> Result<Outcome, RunProblem> {
        use Operation as O;
        if let O::Map(map) = operation {
            return self.map(map);
        }
        if let O::Unmap(r)
        | O::Protect(r, _)
        | O::Advise(r, _)
        | O::Sync(r, _)
        | O::Lock(r)
        | O::Unlock(r)
        | O::Incore(r)
        | O::Watch(r, _)
        | O::Unwatch(r)
        | O::Lend(r)
        | O::LendAnon(r)
        | O::Pin(r, _)
        | O::Inherit(r, _)
        | O::ShareRange { range: r, .. }
        | O::MemCntl { range: r, .. }
        | O::Remap { range: r, .. }
        | O::Read(AccessRange { range: r, .. })
        | O::Write(AccessRange { range: r, .. }, _)
        | O::Fread(Transfer { memory: AccessRange { range: r, .. }, .. })
        | O::Fwrite(Transfer { memory: AccessRange { range: r, .. }, .. }) = operation
        {
            let proc = self.proc(&r.proc)?;
            if !self.lives(proc) {
                return Ok(Outcome::Skip);
            }
            let region = self.region(proc, r.addr, r.len);
            return self.on_region(operation, region);
        }
        let (O::Brk { proc, .. }
        | O::LockAll(proc, _)
        | O::UnlockAll(proc)
        | O::Fork { parent: proc, .. }
        | O::Vfork { parent: proc, .. }
        | O::Exit(proc)
        | O::Digest(proc)
        | O::Pageout(Some(proc))
        | O::Exec { proc, .. }
        | O::Fetch { proc, .. }
        | O::Personality(proc, _)
        | O::MemInfo { proc, .. }
        | O::Grow { proc, .. }
        | O::Borrow { proc, .. }
        | O::Retire { proc, .. }
        | O::SetRlimit { proc, .. }) = operation
        else {
            unreachable!("on_process is called with operations of a process only");
        };
        let proc = self.proc(proc)?;
        // A name that fork gives its child gets its slot even when the fork is skipped.
        let child = match operation {
            O::Fork { child, .. } | O::Vfork { child, .. } => Some(self.new_proc(child)),
            _ => None,
        };
        if !self.lives(proc) {
            return Ok(Outcome::Skip);
        }
        let layout = self.world.layout(proc);
        Ok(match operation {
            O::Brk { to, .. } => self.world.brk(proc, layout.brk.wrapping_add(to.resolve(0))),
            O::LockAll(_, what) => self.world.lock_all(proc, *what),
            O::UnlockAll(_) => self.world.unlock_all(proc),
            O::Fork { .. } | O::Vfork { .. } => match child {
                Some(child) if !self.lives(child) => {
                    let outcome = match operation {
                        O::Vfork { .. } => self.world.vfork(proc, child),
                        _ => self.world.fork(proc, child),
                    };
                    if outcome.is_ok() {
                        self.live.insert(child.0);
                    }
                    outcome
                }
                _ => Outcome::Skip,
            },
            O::Exit(_) => {
                self.live.remove(&proc.0);
                self.world.exit(proc)
            }
            O::Digest(_) => self.digest(proc),
            O::Pageout(_) => self.world.pageout(Some(proc)),
            O::Exec { file, .. } => match self.file(file)? {
                file if self.is_made(file) => self.world.exec(proc, file),
                _ => Outcome::Skip,
            },
            O::Fetch { addr, cpu, .. } => self.world.fetch(proc, addr.resolve(layout), *cpu),
            O::Personality(_, system) => self.world.set_personality(proc, *system),
            O::MemInfo { addr, what, .. } => self.world.meminfo(proc, addr.resolve(layout), *what),
            O::Borrow { addr, loan, .. } => self.world.borrow(proc, addr.resolve(layout), *loan),
            O::Retire { addr, .. } => self.world.retire(proc, addr.resolve(layout)),
            O::Grow { addr, .. } => self.world.grow(proc, addr.resolve(layout)),
            O::SetRlimit { limit, bytes, .. } => self.world.set_rlimit(proc, *limit, *bytes),
            _ => unreachable!("matched above"),
        })
    }

    fn on_region(&mut self, operation: &Operation, region: Region) -> Result<Outcome, RunProblem> {
        use Operation as O;
        let world = &mut self.world;
        Ok(match operation {
            O::Unmap(_) => world.unmap(region),
            O::Protect(_, prot) => world.protect(region, *prot),
            O::Advise(_, advice) => world.advise(region, *advice),
            O::Sync(_, flags) => world.sync(region, *flags),
            O::Lock(_) => world.lock(region),
            O::Unlock(_) => world.unlock(region),
            O::Incore(_) => world.incore(region),
            O::Watch(_, what) => world.watch(region, *what),
            O::Unwatch(_) => world.unwatch(region),
            O::Lend(_) => world.lend(region),
            O::LendAnon(_) => world.lend_anon(region),
            O::Pin(_, what) => world.pin(region, *what),
            O::Inherit(_, how) => world.inherit(region, *how),
            O::ShareRange { into, to, .. } => {
                let into = self.proc(into)?;
                if !self.lives(into) {
                    return Ok(Outcome::Skip);
                }
                let to = to.resolve(self.world.layout(into));
                self.world.share(region, into, to)
            }
            O::MemCntl { command, arg, pages, .. } => world.memcntl(region, *command, *arg, *pages),
            O::Remap { new_len, flags, to, .. } => {
                let layout = world.layout(region.proc);
                let to = to.map(|a| a.resolve(layout));
                world.remap(region, new_len.resolve(region.addr), *flags, to)
            }
            O::Read(a) => world.read(Access { region, cpu: a.cpu }),
            O::Write(a, byte) => world.write(Access { region, cpu: a.cpu }, *byte),
            O::Fread(t) | O::Fwrite(t) => {
                let file = self.file(&t.file)?;
                if !self.is_made(file) {
                    return Ok(Outcome::Skip);
                }
                let memory = Access { region, cpu: t.memory.cpu };
                let call = TransferCall { file, offset: t.offset, memory };
                match operation {
                    O::Fread(_) => self.world.fread(call),
                    _ => self.world.fwrite(call),
                }
            }
            _ => unreachable!("matched by the caller"),
        })
    }

    fn map(&mut self, map: &Map) -> Result<Outcome, RunProblem> {
        let proc = self.proc(&map.proc)?;
        if !self.lives(proc) {
            return Ok(Outcome::Skip);
        }
        let source = match &map.source {
            Source::Anon => MapSource::Anon,
            Source::File(file, offset) => MapSource::File(self.file(file)?, offset.resolve(0)),
        };
        let Map { prot, share, placement, flags, .. } = *map;
        let region = self.region(proc, map.addr, map.len);
        Ok(self.world.map(&MapCall { region, prot, share, placement, source, flags }))
    }

    fn digest(&mut self, proc: ProcSlot) -> Outcome {
        let mut digest = Digest::default();
        let mut bytes = [0; PAGE_BYTES as usize];
        for (index, addr) in self.pages(proc) {
            let state = self.world.page(proc, addr, false, &mut bytes);
            if state != PageState::Unmapped {
                digest.page(index, state, page_hash_of(state, &bytes));
            }
        }
        Outcome::hash(digest.value())
    }
}
