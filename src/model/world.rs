//! The model as a world that scripts drive.

use crate::script::ast::{
    Advice, Inherit, Layout, Limit, LockAll, OpenMode, PinFor, Prot, RemapFlags, SyncFlags,
    WatchFor,
};
use crate::script::outcome::{Outcome, PageBytes, PageState};
use crate::script::world::{
    Access, FileContents, FileSlot, MapCall, ProcSlot, Region, TransferCall, World,
};

use super::{Attempt, Model};

impl World for Model {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn begin(&mut self, _arena_pages: u32) {}

    fn layout(&self, _proc: ProcSlot) -> Layout {
        self.layout
    }

    fn file(&mut self, file: FileSlot, size: u64, mode: OpenMode) -> Outcome {
        self.make_file(file.0, size, mode)
    }

    fn truncate(&mut self, file: FileSlot, size: u64) -> Outcome {
        self.resize_file(file.0, size)
    }

    fn pwrite(&mut self, file: FileSlot, offset: u64, len: u64, byte: u8) -> Outcome {
        self.write_file(file.0, offset, len, byte)
    }

    fn pread(&mut self, file: FileSlot, offset: u64, len: u64) -> Outcome {
        self.read_file(file.0, offset, len)
    }

    fn fclose(&mut self, file: FileSlot) -> Outcome {
        self.close_file(file.0)
    }

    fn map(&mut self, call: &MapCall) -> Outcome {
        self.seat(call.region.proc);
        self.map_range(call).into()
    }

    fn unmap(&mut self, region: Region) -> Outcome {
        self.on(region.proc, |p| p.unmap(region))
    }

    fn protect(&mut self, region: Region, prot: Prot) -> Outcome {
        self.on(region.proc, |p| p.protect(region, prot))
    }

    fn advise(&mut self, region: Region, advice: Advice) -> Outcome {
        self.seat(region.proc);
        match advice {
            Advice::PopulateRead => return self.populate(region, Attempt::Load),
            Advice::PopulateWrite => return self.populate(region, Attempt::Store),
            Advice::Discard => return self.discard(region),
            _ => {}
        }
        let Model { procs, objects, cells, .. } = self;
        let Some(p) = procs.get_mut(&region.proc.0) else { return Outcome::Skip };
        p.advise(region, advice, |page| super::is_past_end(objects, cells, page)).into()
    }

    fn inherit(&mut self, region: Region, how: Inherit) -> Outcome {
        self.on(region.proc, |p| p.set_inherit(region, how))
    }

    fn sync(&mut self, region: Region, flags: SyncFlags) -> Outcome {
        self.on(region.proc, |p| p.sync(region, flags))
    }

    fn lock(&mut self, region: Region) -> Outcome {
        self.on(region.proc, |p| p.lock(region))
    }

    fn unlock(&mut self, region: Region) -> Outcome {
        self.on(region.proc, |p| p.unlock(region))
    }

    fn lock_all(&mut self, proc: ProcSlot, what: LockAll) -> Outcome {
        self.on(proc, |p| p.lock_all(what))
    }

    fn unlock_all(&mut self, proc: ProcSlot) -> Outcome {
        self.on(proc, |p| p.unlock_all())
    }

    fn incore(&mut self, region: Region) -> Outcome {
        self.on(region.proc, |p| p.incore(region))
    }

    fn brk(&mut self, proc: ProcSlot, addr: u64) -> Outcome {
        let initial = self.layout.brk;
        self.on(proc, |p| p.set_brk(initial, addr))
    }

    fn remap(
        &mut self,
        region: Region,
        new_len: u64,
        flags: RemapFlags,
        to: Option<u64>,
    ) -> Outcome {
        self.seat(region.proc);
        self.remap_range(region, new_len, flags, to).into()
    }

    fn read(&mut self, access: Access) -> Outcome {
        self.seat(access.region.proc);
        self.load(access.region)
    }

    fn write(&mut self, access: Access, byte: u8) -> Outcome {
        self.seat(access.region.proc);
        self.store(access.region, byte)
    }

    fn fread(&mut self, call: TransferCall) -> Outcome {
        self.seat(call.memory.region.proc);
        self.file_to_memory(&call).into()
    }

    fn fwrite(&mut self, call: TransferCall) -> Outcome {
        self.seat(call.memory.region.proc);
        self.memory_to_file(&call).into()
    }

    fn fork(&mut self, parent: ProcSlot, child: ProcSlot) -> Outcome {
        let parent = self.seat(parent);
        self.fork_process(parent, child.0)
    }

    fn vfork(&mut self, parent: ProcSlot, child: ProcSlot) -> Outcome {
        self.share_process(parent.0, child.0)
    }

    fn exit(&mut self, proc: ProcSlot) -> Outcome {
        self.end_process(proc)
    }

    fn pageout(&mut self, _proc: Option<ProcSlot>) -> Outcome {
        Outcome::OK
    }

    fn page(&mut self, proc: ProcSlot, addr: u64, store: bool, bytes: &mut PageBytes) -> PageState {
        let slot = self.seat(proc);
        match self.reach(slot, addr, Attempt::Load, 0) {
            Ok(_) if self.is_watched(slot, addr, Attempt::Load) => PageState::Bus,
            Ok(page) => {
                *bytes = *self.bytes(page);
                match store && page.write {
                    true if self.is_watched(slot, addr, Attempt::Store) => PageState::BusOnWrite,
                    true => PageState::Writable,
                    false => PageState::Readable,
                }
            }
            Err(Outcome::Bus { .. }) => PageState::Bus,
            Err(Outcome::Segv { code: crate::script::outcome::SegvCode::Accerr, .. }) => {
                PageState::NoAccess
            }
            Err(_) => PageState::Unmapped,
        }
    }

    fn file_contents(&mut self, file: FileSlot) -> Option<FileContents> {
        self.contents_of(file.0)
    }

    fn verify(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn host_file(&mut self, file: FileSlot, path: &str, mode: OpenMode) -> Outcome {
        self.open_host_file(file.0, path, mode)
    }

    fn fetch(&mut self, proc: ProcSlot, addr: u64, _cpu: Option<u32>) -> Outcome {
        let slot = self.seat(proc);
        self.fetch_at(slot, addr)
    }

    fn lend(&mut self, region: Region) -> Outcome {
        self.lend_range(region, false).into()
    }

    fn lent(&mut self, loan: u64) -> Outcome {
        self.read_loan(loan).into()
    }

    fn unlend(&mut self, loan: u64) -> Outcome {
        self.end_loan(loan).into()
    }

    fn lend_anon(&mut self, region: Region) -> Outcome {
        self.lend_range(region, true).into()
    }

    fn borrow(&mut self, proc: ProcSlot, addr: u64, loan: u64) -> Outcome {
        self.borrow_loan(Region { proc, addr, len: 0 }, loan).into()
    }

    fn share(&mut self, region: Region, into: ProcSlot, to: u64) -> Outcome {
        self.share_pages(region, into, to).into()
    }

    fn watch(&mut self, region: Region, what: WatchFor) -> Outcome {
        self.on(region.proc, |p| p.watch(region, what))
    }

    fn unwatch(&mut self, region: Region) -> Outcome {
        self.on(region.proc, |p| p.unwatch(region))
    }

    fn pin(&mut self, region: Region, what: PinFor) -> Outcome {
        self.pin_range(region, what).into()
    }

    fn pinned(&mut self, pin: u64) -> Outcome {
        self.read_pin(pin).into()
    }

    fn unpin(&mut self, pin: u64) -> Outcome {
        self.end_pin(pin).into()
    }

    fn set_rlimit(&mut self, proc: ProcSlot, limit: Limit, bytes: Option<u64>) -> Outcome {
        self.on(proc, |p| p.set_limit(limit, bytes))
    }
}
