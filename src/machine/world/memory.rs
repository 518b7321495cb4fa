//! What a script does to memory: mapping, loads and stores.

use super::{MachineWorld, run_of};
use crate::machine::copy::pieces;
use crate::machine::words::prot_bits;
use crate::machine::{AccessError, MapFlags, MapRequest, Process, SysError};
use crate::script::ast::{Placement, Share};
use crate::script::outcome::{
    FNV_OFFSET, Facts, FirstBytes, Outcome, PAGE_BYTES, PageBytes, PageState, fnv,
};
use crate::script::world::{MapCall, MapSource, ProcSlot, Region};
use addr_space::Signal;

impl MachineWorld {
    /// Maps as the call says; whether a hint was not followed is seen from the address.
    pub(super) fn map_call(&self, p: &Process, call: &MapCall) -> Result<Outcome, SysError> {
        let Region { addr, len, .. } = call.region;
        let mut flags = match call.share {
            Share::Private => MapFlags::PRIVATE,
            Share::Shared => MapFlags::SHARED,
            Share::Both => MapFlags::PRIVATE | MapFlags::SHARED,
            Share::Neither => MapFlags::empty(),
        };
        flags |= match call.placement {
            Placement::Fixed => MapFlags::FIXED,
            Placement::Hint => MapFlags::empty(),
            Placement::NoReplace => MapFlags::FIXED | MapFlags::EXCL,
        };
        for (on, flag) in [
            (call.flags.noreserve, MapFlags::NORESERVE),
            (call.flags.populate, MapFlags::POPULATE),
            (call.flags.locked, MapFlags::LOCKED),
        ] {
            flags.set(flag, on);
        }
        let (file, offset) = match call.source {
            MapSource::Anon => (None, 0),
            MapSource::File(slot, offset) => {
                (self.files.get(&slot.0).filter(|f| !f.closed).map(|f| &f.handle), offset)
            }
        };
        flags.set(MapFlags::ANON, call.source == MapSource::Anon);
        let request = MapRequest { addr, len, prot: prot_bits(call.prot), flags, file, offset };
        let at = p.mmap(&request)?;
        if call.placement == Placement::Hint && at != addr & !(PAGE_BYTES - 1) {
            p.munmap(at, len)?;
            return Ok(Outcome::MOVED);
        }
        if addr == 0 && call.placement == Placement::Hint {
            p.munmap(at, len)?;
            return Ok(Outcome::MOVED);
        }
        Ok(Outcome::OK)
    }
    /// Loads a range page by page into the hash of its bytes.
    pub(super) fn read_range(p: &Process, region: Region) -> Outcome {
        let mut hash = FNV_OFFSET;
        let mut first = FirstBytes::default();
        let mut buf: PageBytes = [0; PAGE_BYTES as usize];
        for (done, at, n) in pieces(region.addr, region.len) {
            match p.load(at, &mut buf[..n]) {
                Ok(()) => {
                    hash = fnv(hash, &buf[..n]);
                    first.extend(&buf[..n]);
                }
                Err(e) => return AccessError { done: done + e.done, ..e }.into(),
            }
        }
        Outcome::bytes(hash, first)
    }
    /// Stores `byte` and those that follow it, page by page.
    pub(super) fn write_range(p: &Process, region: Region, byte: u8) -> Outcome {
        for (done, at, n) in pieces(region.addr, region.len) {
            if let Err(e) = p.store(at, &run_of(byte, done, n)) {
                return AccessError { done: done + e.done, ..e }.into();
            }
        }
        Outcome::OK
    }
    /// What a page of a process is to a load, and if `store` says so to a store, with its bytes.
    pub(super) fn look(
        &self,
        proc: ProcSlot,
        addr: u64,
        store: bool,
        bytes: &mut PageBytes,
    ) -> PageState {
        let Some(p) = self.procs.get(&proc.0) else { return PageState::Unmapped };
        match p.load(addr, bytes) {
            Ok(()) if !store => PageState::Readable,
            Ok(()) => match p.store(addr, &bytes[..1]) {
                Ok(()) => PageState::Writable,
                Err(e) if e.signal == Signal::SegvAccErr => PageState::Readable,
                Err(_) => PageState::BusOnWrite,
            },
            Err(e) => match e.signal {
                Signal::SegvMapErr => PageState::Unmapped,
                Signal::SegvAccErr => PageState::NoAccess,
                _ => PageState::Bus,
            },
        }
    }
    pub(super) fn fetch_bytes(&self, proc: ProcSlot, addr: u64, cpu: Option<u32>) -> Outcome {
        self.on_proc(proc, |p| {
            let n = (PAGE_BYTES - addr % PAGE_BYTES).min(FirstBytes::MAX as u64) as usize;
            let mut bytes = [0; FirstBytes::MAX];
            match self.on_cpu(p, cpu).fetch(addr, &mut bytes[..n]) {
                Ok(()) => {
                    Outcome::Ok(Facts { b: Some(FirstBytes::of(&bytes[..n])), ..Facts::default() })
                }
                Err(e) => e.into(),
            }
        })
    }
}
