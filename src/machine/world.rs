//! A machine as a world that scripts drive.
//!
//! Slots of the script stand for processes and files of the machine; a slot is taken when its process is forked or its file is made.
//! Everything goes through the same calls and accesses as any other use of the machine: the digest reads pages by loads, on a CPU, through
//! translations, faulting.
//!
//! The arena lies at a fixed address, far from where mappings without an address go, and the break at its own, so results do not
//! depend on addresses.

mod files;
mod memory;

use self::files::Slot;
use super::loans::{Loan, Loans};
use super::pins::Pins;
use super::process::{BREAK_BASE, Process};
use super::words::{self, area_of, done, errno, prot_bits};
use super::{BootError, Limit, Machine, MemCall, Personality, SysError};
use crate::files::FileHandle;
use crate::script::ast::{self, ControlCommand, MemQuestions, PageChoice, PinFor, SystemName};
use crate::script::ast::{Layout, Limit as ScriptLimit, MachineSettings, SwapSpec};
use crate::script::ast::{LockAll, OpenMode, Prot, RemapFlags, SyncFlags, WatchFor};
use crate::script::outcome::{Errno, Outcome, PageBytes, PageState};
use crate::script::world::{
    Access, FileContents, FileSlot, MapCall, ProcSlot, Region, TransferCall, View, ViewCall,
    ViewError, World,
};
use addr_space::{Inherit, WatchFlags};
use page_db::db::RetireError;
use page_db::{Access as Reach, Counter, CpuId, Pfn, VirtAddr, Vnode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use swapfs::AreaId;

/// Where the arena lies in every process.
pub const ARENA: u64 = 0x1000_0000_0000;

/// A machine behind a script.
#[derive(Debug)]
pub struct MachineWorld {
    machine: Machine,
    procs: BTreeMap<u32, Process>,
    files: BTreeMap<u32, Slot>,
    /// By number, in order; what has been given back leaves its number.
    loans: Loans,
    pins: Pins,
    /// Frames that scripts have asked to be taken out of service.
    retired: BTreeSet<Pfn>,
}

/// `byte` and those that follow it, `len` of them from the place `from` on.
fn run_of(byte: u8, from: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| byte.wrapping_add((from + i) as u8)).collect()
}

impl MachineWorld {
    /// A world with process 0 alone, on the machine that a script asks for.
    ///
    /// # Errors
    /// [`BootError`]; [`BootError::NoProcess`] on a machine too small for one process.
    pub fn new(settings: &MachineSettings) -> Result<Self, BootError> {
        Self::on(settings.builder(Machine::builder()).build()?)
    }
    /// A world with process 0 alone, on a machine.
    ///
    /// # Errors
    /// As [`MachineWorld::new`].
    pub fn on(machine: Machine) -> Result<Self, BootError> {
        let first = machine.spawn("0").map_err(|_| BootError::NoProcess)?;
        Ok(Self {
            machine,
            procs: BTreeMap::from([(0, first)]),
            files: BTreeMap::new(),
            loans: Loans::default(),
            pins: Pins::default(),
            retired: BTreeSet::new(),
        })
    }
    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
    /// The process in a slot.
    pub fn process(&self, slot: ProcSlot) -> Option<&Process> {
        self.procs.get(&slot.0)
    }
    /// The file in a slot.
    pub fn file_in(&self, slot: FileSlot) -> Option<&FileHandle> {
        self.files.get(&slot.0).map(|f| &f.handle)
    }
    fn on_proc(&self, slot: ProcSlot, f: impl FnOnce(&Process) -> Outcome) -> Outcome {
        self.procs.get(&slot.0).map_or(Outcome::Skip, f)
    }
    fn add_child(
        &mut self,
        parent: ProcSlot,
        child: ProcSlot,
        make: fn(&Process) -> Result<Process, SysError>,
    ) -> Outcome {
        if self.procs.contains_key(&child.0) {
            return Outcome::Skip;
        }
        let Some(p) = self.procs.get(&parent.0) else { return Outcome::Skip };
        match make(p) {
            Ok(c) => {
                self.procs.insert(child.0, c);
                Outcome::OK
            }
            Err(e) => e.into(),
        }
    }
    fn on_cpu<'a>(&self, process: &'a Process, cpu: Option<u32>) -> &'a Process {
        process.run_on(CpuId(cpu.unwrap_or(0) as u16));
        process
    }
}

impl World for MachineWorld {
    fn name(&self) -> &'static str {
        "segvm"
    }
    fn begin(&mut self, _arena_pages: u32) {}
    fn layout(&self, proc: ProcSlot) -> Layout {
        let brk = self.procs.get(&proc.0).map_or(BREAK_BASE, |p| p.heap().0);
        Layout { arena: ARENA, brk }
    }

    fn file(&mut self, file: FileSlot, size: u64, mode: OpenMode) -> Outcome {
        self.make_file(file, size, mode)
    }
    fn truncate(&mut self, file: FileSlot, size: u64) -> Outcome {
        if let Some(f) = self.files.get(&file.0) {
            // Whoever cuts pages off waits for devices that have them.
            self.pins.end_those_of(&self.machine, f.handle.vnode.id());
        }
        self.on_file(file, |f| {
            done(f.handle.vnode.truncate(self.machine.cx(), self.machine.db(), size))
        })
    }
    fn pwrite(&mut self, file: FileSlot, offset: u64, len: u64, byte: u8) -> Outcome {
        self.write_file(file, offset, len, byte)
    }
    fn pread(&mut self, file: FileSlot, offset: u64, len: u64) -> Outcome {
        self.read_file(file, offset, len)
    }
    fn fclose(&mut self, file: FileSlot) -> Outcome {
        match self.files.get_mut(&file.0) {
            Some(f) if !f.closed => {
                f.closed = true;
                Outcome::OK
            }
            _ => Outcome::Skip,
        }
    }

    fn map(&mut self, call: &MapCall) -> Outcome {
        self.on_proc(call.region.proc, |p| self.map_call(p, call).unwrap_or_else(Into::into))
    }
    fn unmap(&mut self, r: Region) -> Outcome {
        self.on_proc(r.proc, |p| done(p.munmap(r.addr, r.len)))
    }
    fn protect(&mut self, r: Region, prot: Prot) -> Outcome {
        self.on_proc(r.proc, |p| done(p.mprotect(r.addr, r.len, prot_bits(prot))))
    }
    fn advise(&mut self, r: Region, advice: ast::Advice) -> Outcome {
        let Some(advice) = words::advice(advice) else { return Errno::EINVAL.into() };
        self.on_proc(r.proc, |p| done(p.madvise(r.addr, r.len, advice)))
    }
    fn sync(&mut self, r: Region, flags: SyncFlags) -> Outcome {
        let mut how = addr_space::SyncFlags::from_bits_retain(u8::from(flags.bad) << 7);
        how.set(addr_space::SyncFlags::SYNC, flags.sync);
        how.set(addr_space::SyncFlags::ASYNC, flags.asynchronous);
        how.set(addr_space::SyncFlags::INVALIDATE, flags.invalidate);
        self.on_proc(r.proc, |p| done(p.msync(r.addr, r.len, how)))
    }
    fn lock(&mut self, r: Region) -> Outcome {
        self.on_proc(r.proc, |p| done(p.mlock(r.addr, r.len)))
    }
    fn unlock(&mut self, r: Region) -> Outcome {
        self.on_proc(r.proc, |p| done(p.munlock(r.addr, r.len)))
    }
    fn lock_all(&mut self, proc: ProcSlot, what: LockAll) -> Outcome {
        use addr_space::LockAll as All;
        let what = match what {
            LockAll::Current => All::CURRENT,
            LockAll::Future => All::FUTURE,
            LockAll::Both => All::CURRENT | All::FUTURE,
            LockAll::Nothing => All::empty(),
        };
        self.on_proc(proc, |p| done(p.mlockall(what)))
    }
    fn unlock_all(&mut self, proc: ProcSlot) -> Outcome {
        self.on_proc(proc, |p| done(p.munlockall()))
    }
    fn incore(&mut self, r: Region) -> Outcome {
        self.on_proc(r.proc, |p| done(p.mincore(r.addr, r.len).map(drop)))
    }
    fn brk(&mut self, proc: ProcSlot, addr: u64) -> Outcome {
        self.on_proc(proc, |p| done(p.brk(addr)))
    }
    fn remap(&mut self, r: Region, len: u64, flags: RemapFlags, to: Option<u64>) -> Outcome {
        use super::RemapFlags as Flags;
        let mut how = Flags::empty();
        how.set(Flags::MAYMOVE, flags.may);
        how.set(Flags::FIXED, flags.fixed);
        how.set(Flags::DONTUNMAP, flags.dontunmap);
        self.on_proc(r.proc, |p| match p.mremap(r.addr, r.len, len, how, to.unwrap_or(0)) {
            Ok(at) if flags.fixed || at == r.addr => Outcome::OK,
            // Where the system chose is nothing a script can name.
            Ok(at) => p.munmap(at, len).map_or_else(Outcome::from, |()| Outcome::MOVED),
            Err(e) => e.into(),
        })
    }

    fn read(&mut self, a: Access) -> Outcome {
        self.on_proc(a.region.proc, |p| Self::read_range(self.on_cpu(p, a.cpu), a.region))
    }
    fn write(&mut self, a: Access, byte: u8) -> Outcome {
        self.on_proc(a.region.proc, |p| Self::write_range(self.on_cpu(p, a.cpu), a.region, byte))
    }
    fn fread(&mut self, t: TransferCall) -> Outcome {
        self.transfer(&t, |p, h, r| p.pread(h, t.offset, r.addr, r.len))
    }
    fn fwrite(&mut self, t: TransferCall) -> Outcome {
        self.transfer(&t, |p, h, r| p.pwrite(h, t.offset, r.addr, r.len))
    }

    fn fork(&mut self, parent: ProcSlot, child: ProcSlot) -> Outcome {
        self.add_child(parent, child, Process::fork)
    }
    fn vfork(&mut self, parent: ProcSlot, child: ProcSlot) -> Outcome {
        self.add_child(parent, child, Process::vfork)
    }
    fn exit(&mut self, proc: ProcSlot) -> Outcome {
        match self.procs.remove(&proc.0) {
            Some(p) => {
                p.exit();
                Outcome::OK
            }
            None => Outcome::Skip,
        }
    }
    fn pageout(&mut self, proc: Option<ProcSlot>) -> Outcome {
        if let Some(slot) = proc {
            let Some(p) = self.procs.get(&slot.0) else { return Outcome::Skip };
            p.swap_out();
        }
        self.machine.pageout_all();
        Outcome::OK
    }

    fn page(&mut self, proc: ProcSlot, addr: u64, store: bool, bytes: &mut PageBytes) -> PageState {
        self.look(proc, addr, store, bytes)
    }
    fn file_contents(&mut self, file: FileSlot) -> Option<FileContents> {
        self.contents(file)
    }
    fn verify(&mut self) -> Result<(), String> {
        self.machine.verify().map_err(|v| v.to_string())
    }

    fn view(&mut self, call: &ViewCall) -> Result<View, ViewError> {
        crate::view::show(self, call)
    }
    fn counter(&self, name: &str) -> Option<u64> {
        let counter = Counter::ALL.iter().find(|c| c.name() == name)?;
        Some(self.machine.counters().get(*counter))
    }
    fn counters(&self) -> Vec<String> {
        Counter::ALL.iter().map(|c| c.name().to_owned()).collect()
    }

    fn host_file(&mut self, file: FileSlot, path: &str, mode: OpenMode) -> Outcome {
        if self.files.contains_key(&file.0) {
            return Outcome::Skip;
        }
        let made = self.machine.open_host_file(Path::new(path), mode != OpenMode::ReadOnly);
        self.add_file(file, made, mode)
    }
    fn exec(&mut self, proc: ProcSlot, file: FileSlot) -> Outcome {
        let Some(f) = self.files.get(&file.0) else { return Outcome::Skip };
        if f.closed {
            return Errno::EBADF.into();
        }
        let vnode = Arc::clone(&f.handle.vnode);
        self.on_proc(proc, |p| done(p.exec(&vnode).map(drop)))
    }
    fn spawn(&mut self, proc: ProcSlot, path: &str) -> Outcome {
        if self.procs.contains_key(&proc.0) {
            return Outcome::Skip;
        }
        let file = match self.machine.open_host_file(Path::new(path), false) {
            Ok(file) => file,
            Err(e) => return e.into(),
        };
        let p = match self.machine.spawn(path) {
            Ok(p) => p,
            Err(e) => return e.into(),
        };
        match p.exec(&file) {
            Ok(_) => {
                self.procs.insert(proc.0, p);
                Outcome::OK
            }
            Err(e) => {
                p.exit();
                drop(p);
                self.machine.remove_file(file);
                e.into()
            }
        }
    }
    fn fetch(&mut self, proc: ProcSlot, addr: u64, cpu: Option<u32>) -> Outcome {
        self.fetch_bytes(proc, addr, cpu)
    }
    fn scan(&mut self, steps: u64) -> Outcome {
        let report = self.machine.scan(steps);
        Outcome::count(report.scanned)
    }
    fn squeeze(&mut self, frames: u64) -> Outcome {
        Outcome::count(self.machine.squeeze(frames))
    }
    fn release(&mut self) -> Outcome {
        Outcome::count(self.machine.release())
    }
    fn swap_add(&mut self, area: &SwapSpec) -> Outcome {
        match self.machine.swap_add(&area_of(area)) {
            Ok(id) => Outcome::count(u64::from(id.0)),
            Err(e) => errno(e.errno()),
        }
    }
    fn swap_del(&mut self, area: u32) -> Outcome {
        match self.machine.swap_del(AreaId(area)) {
            Ok(()) => Outcome::OK,
            Err(e) => errno(e.errno()),
        }
    }
    fn inherit(&mut self, r: Region, how: ast::Inherit) -> Outcome {
        let how = match how {
            ast::Inherit::Share => Inherit::Share,
            ast::Inherit::Copy => Inherit::Copy,
            ast::Inherit::None => Inherit::None,
            ast::Inherit::Zero => Inherit::Zero,
        };
        self.on_proc(r.proc, |p| done(p.minherit(r.addr, r.len, how)))
    }
    fn set_personality(&mut self, proc: ProcSlot, system: SystemName) -> Outcome {
        self.on_proc(proc, |p| {
            p.set_personality(match system {
                SystemName::Illumos => Personality::Illumos,
                SystemName::Linux => Personality::Linux,
            });
            Outcome::OK
        })
    }
    fn share(&mut self, r: Region, into: ProcSlot, to: u64) -> Outcome {
        let Some(other) = self.procs.get(&into.0) else { return Outcome::Skip };
        self.on_proc(r.proc, |p| done(p.share_range_at(r.addr, r.len, other, to)))
    }
    fn memcntl(
        &mut self,
        r: Region,
        command: ControlCommand,
        arg: u64,
        pages: PageChoice,
    ) -> Outcome {
        let (command, attr) = (words::command(command), words::attr(pages));
        let call = MemCall { addr: r.addr, len: r.len, command, arg, attr, mask: 0 };
        self.on_proc(r.proc, |p| done(p.memcntl(&call)))
    }
    fn meminfo(&mut self, proc: ProcSlot, addr: u64, what: MemQuestions) -> Outcome {
        self.on_proc(proc, |p| match p.meminfo(&[addr], &words::questions(what)) {
            Ok(answers) => Outcome::count(answers.iter().map(|a| u64::from(a.validity)).sum()),
            Err(e) => e.into(),
        })
    }
    fn grow(&mut self, proc: ProcSlot, addr: u64) -> Outcome {
        self.on_proc(proc, |p| done(p.grow_stack(addr)))
    }
    fn watch(&mut self, r: Region, what: WatchFor) -> Outcome {
        let mut flags = WatchFlags::empty();
        flags.set(WatchFlags::READ, what.read);
        flags.set(WatchFlags::WRITE, what.write);
        flags.set(WatchFlags::EXEC, what.exec);
        flags.set(WatchFlags::AFTER, what.after);
        self.on_proc(r.proc, |p| done(p.watch(r.addr, r.len, flags)))
    }
    fn unwatch(&mut self, r: Region) -> Outcome {
        self.on_proc(r.proc, |p| done(p.unwatch(r.addr, r.len)))
    }
    fn lend(&mut self, r: Region) -> Outcome {
        let Some(p) = self.procs.get(&r.proc.0) else { return Outcome::Skip };
        self.loans.note(p.lend(r.addr, r.len).map(Loan::Kernel))
    }
    fn lend_anon(&mut self, r: Region) -> Outcome {
        let Some(p) = self.procs.get(&r.proc.0) else { return Outcome::Skip };
        self.loans.note(p.lend_to_anons(r.addr, r.len).map(Loan::Anons))
    }
    fn lent(&mut self, loan: u64) -> Outcome {
        self.loans.read(loan)
    }
    fn unlend(&mut self, loan: u64) -> Outcome {
        self.loans.end(&self.machine, loan)
    }
    fn borrow(&mut self, proc: ProcSlot, addr: u64, loan: u64) -> Outcome {
        let Some(p) = self.procs.get(&proc.0) else { return Outcome::Skip };
        self.loans.show(p, addr, loan)
    }
    fn pin(&mut self, r: Region, what: PinFor) -> Outcome {
        let access = match what {
            PinFor::Read => Reach::Read,
            PinFor::Write => Reach::Write,
        };
        let Some(p) = self.procs.get(&r.proc.0) else { return Outcome::Skip };
        self.pins.add(p, r.addr, r.len, access).into()
    }
    fn pinned(&mut self, pin: u64) -> Outcome {
        self.pins.read(&self.machine, pin)
    }
    fn unpin(&mut self, pin: u64) -> Outcome {
        self.pins.end(&self.machine, pin)
    }
    fn retire(&mut self, proc: ProcSlot, addr: u64) -> Outcome {
        let Some(p) = self.procs.get(&proc.0) else { return Outcome::Skip };
        let at = VirtAddr::new(addr).ok();
        let Some(there) = at.and_then(|at| p.space().hat().probe(p.cx(), at)) else {
            return Errno::EFAULT.into();
        };
        let done = self.machine.db().retire(p.cx(), there.pfn);
        if done.is_ok() || matches!(done, Err(RetireError::Pending(_))) {
            self.retired.insert(there.pfn);
        }
        done.map_or_else(|e| errno(e.errno()), |()| Outcome::OK)
    }
    fn unretire(&mut self) -> Outcome {
        let (cx, db) = (self.machine.cx(), self.machine.db());
        let before = self.retired.len();
        // Those that are still in use stay noted, for the next time.
        self.retired.retain(|frame| db.unretire(cx, *frame).is_err());
        Outcome::count((before - self.retired.len()) as u64)
    }
    fn set_rlimit(&mut self, proc: ProcSlot, limit: ScriptLimit, bytes: Option<u64>) -> Outcome {
        let limit = match limit {
            ScriptLimit::Stack => Limit::Stack,
            ScriptLimit::Data => Limit::Data,
            ScriptLimit::Vmem => Limit::Vmem,
            ScriptLimit::Memlock => Limit::Memlock,
        };
        self.on_proc(proc, |p| {
            p.set_limit(limit, bytes.unwrap_or(u64::MAX));
            Outcome::OK
        })
    }
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
