//! What somebody else has of a process's memory: the kernel or anons what was lent, a device what it has pinned.
//!
//! A loan is the bytes as they were: whoever stores later stores to something else. A device sees the page itself, whatever is stored there, so its bytes are
//! looked up when it is asked. What a device has of private memory that somebody may store to is no longer the file's.

use crate::script::ast::PinFor;
use crate::script::outcome::{Errno, FNV_OFFSET, FirstBytes, Outcome, PAGE_BYTES, PageBytes, fnv};
use crate::script::world::{ProcSlot, Region};

use super::calls::{Answer, is_aligned};
use super::{Attempt, Model, Page, USER_TOP};

/// What was lent.
#[derive(Clone, Debug)]
pub(super) struct Loan {
    /// To anons, and not to the kernel.
    to_anons: bool,
    pages: Vec<Box<PageBytes>>,
}

/// What a device has.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    proc: u32,
    pages: std::ops::Range<u64>,
}

/// By number, from 1; what has ended leaves a gap.
fn numbered<T>(all: &mut [Option<T>], number: u64) -> Option<&mut Option<T>> {
    all.get_mut(usize::try_from(number).ok()?.checked_sub(1)?)
}

/// The page numbers of a user range of whole pages.
fn whole_pages(region: Region) -> Result<std::ops::Range<u64>, Errno> {
    let Region { addr, len, .. } = region;
    let end = addr.checked_add(len).filter(|end| *end <= USER_TOP);
    match end {
        Some(end) if len != 0 && is_aligned(addr) && is_aligned(len) => {
            Ok(addr / PAGE_BYTES..end / PAGE_BYTES)
        }
        _ => Err(Errno::EINVAL),
    }
}

impl Model {
    /// The numbers of the pins that last.
    pub fn pins(&self) -> Vec<u64> {
        (1..).zip(&self.pins).filter_map(|(n, pin)| pin.as_ref().map(|_| n)).collect()
    }

    /// The numbers of the loans to anons, or to the kernel, that last, and how many pages each has.
    pub fn loans(&self, to_anons: bool) -> Vec<(u64, u64)> {
        let all = (1..).zip(&self.loans).filter_map(|(n, loan)| Some((n, loan.as_ref()?)));
        let these = all.filter(|(_, loan)| loan.to_anons == to_anons);
        these.map(|(n, loan)| (n, loan.pages.len() as u64)).collect()
    }

    /// Lends whole pages, as they are now.
    pub(super) fn lend_range(&mut self, region: Region, to_anons: bool) -> Answer {
        let proc = self.seat(region.proc);
        let mut pages = Vec::new();
        for n in whole_pages(region)? {
            let page = match self.reach(proc, n * PAGE_BYTES, Attempt::Load, 0) {
                Ok(page) => page,
                Err(Outcome::Bus { .. }) => return Err(Errno::EFAULT),
                Err(_) if self.procs[&proc].pages.contains_key(&n) => return Err(Errno::EACCES),
                Err(_) => return Err(Errno::ENOMEM),
            };
            if page.locked {
                return Err(Errno::EBUSY);
            }
            pages.push(Box::new(*self.bytes(page)));
        }
        self.loans.push(Some(Loan { to_anons, pages }));
        Ok(Outcome::count(self.loans.len() as u64))
    }

    /// What the kernel reads of a loan to it.
    pub(super) fn read_loan(&mut self, loan: u64) -> Answer {
        match numbered(&mut self.loans, loan) {
            Some(Some(loan)) if !loan.to_anons => Ok(hashed(loan.pages.iter().map(|p| &**p))),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn end_loan(&mut self, loan: u64) -> Answer {
        let loan = numbered(&mut self.loans, loan).and_then(Option::take);
        loan.map(|_| Outcome::OK).ok_or(Errno::EINVAL)
    }

    /// Shows a loan to anons as private memory, where nothing is.
    pub(super) fn borrow_loan(&mut self, region: Region, loan: u64) -> Answer {
        let proc = self.seat(region.proc);
        let Some(place) = numbered(&mut self.loans, loan) else { return Err(Errno::EINVAL) };
        let Some(lent) = place.take_if(|loan| loan.to_anons) else { return Err(Errno::EINVAL) };
        let len = lent.pages.len() as u64 * PAGE_BYTES;
        let Some(process) = self.procs.get_mut(&proc) else { return Ok(Outcome::Skip) };
        let room = match whole_pages(Region { len, ..region }) {
            Ok(room) if process.has_any(room.clone()) => Err(Errno::ENOMEM),
            room => room,
        };
        match room {
            Ok(room) => {
                let locked = process.future;
                for (n, bytes) in room.zip(lent.pages) {
                    process.pages.insert(n, Page { copy: Some(bytes), locked, ..Page::NEW });
                }
                Ok(Outcome::OK)
            }
            Err(e) => {
                *place = Some(lent);
                Err(e)
            }
        }
    }

    /// Pins whole pages for a device.
    pub(super) fn pin_range(&mut self, region: Region, what: PinFor) -> Answer {
        let proc = self.seat(region.proc);
        let attempt = match what {
            PinFor::Read => Attempt::Load,
            PinFor::Write => Attempt::Store,
        };
        let pages = whole_pages(region)?;
        for n in pages.clone() {
            match self.reach(proc, n * PAGE_BYTES, attempt, 0) {
                Ok(page) if self.is_copied_for_device(page) => _ = self.own(proc, n * PAGE_BYTES),
                Ok(_) => {}
                Err(Outcome::Bus { .. }) => return Err(Errno::EFAULT),
                Err(_) if self.procs[&proc].pages.contains_key(&n) => return Err(Errno::EACCES),
                Err(_) => return Err(Errno::EFAULT),
            }
        }
        self.pins.push(Some(Pin { proc, pages }));
        Ok(Outcome::count(self.pins.len() as u64))
    }

    /// Where a later store, by this mapping or by one that the page is shared with, would leave the device behind at the old page.
    fn is_copied_for_device(&self, page: &Page) -> bool {
        !page.shared && (page.write || page.cell.is_some_and(|cell| self.users_of(cell) > 1))
    }

    /// What a device sees of what it has pinned.
    pub(super) fn read_pin(&mut self, pin: u64) -> Answer {
        let Some(Some(pin)) = numbered(&mut self.pins, pin) else { return Err(Errno::EINVAL) };
        let Pin { proc, pages } = pin.clone();
        let proc = self.seat(ProcSlot(proc));
        let pages = pages.map(|n| self.procs.get(&proc)?.pages.get(&n));
        let pages: Option<Vec<&Page>> = pages.collect();
        let pages = pages.ok_or(Errno::EINVAL)?;
        Ok(hashed(pages.into_iter().map(|page| self.bytes(page))))
    }

    pub(super) fn end_pin(&mut self, pin: u64) -> Answer {
        let pin = numbered(&mut self.pins, pin).and_then(Option::take);
        pin.map(|_| Outcome::OK).ok_or(Errno::EINVAL)
    }
}

fn hashed<'a>(pages: impl Iterator<Item = &'a PageBytes>) -> Outcome {
    let (mut hash, mut first) = (FNV_OFFSET, FirstBytes::default());
    for bytes in pages {
        hash = fnv(hash, bytes);
        first.extend(bytes);
    }
    Outcome::bytes(hash, first)
}
