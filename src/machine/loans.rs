//! The loans of a script, by number.

use super::{Machine, Process, SysError};
use crate::script::outcome::{Errno, FNV_OFFSET, FirstBytes, Outcome, PAGE_BYTES, PageBytes, fnv};
use addr_space::LentPages;
use seg_drivers::LentAnons;

/// What was lent, and to whom.
#[derive(Debug)]
pub(super) enum Loan {
    Kernel(LentPages),
    Anons(LentAnons),
}

/// All that were made; those that have ended leave a gap.
#[derive(Debug, Default)]
pub(super) struct Loans(Vec<Option<Loan>>);

/// The machine ends, or its script does: what is still lent is lent for good.
impl Drop for Loans {
    fn drop(&mut self) {
        for loan in self.0.drain(..).flatten() {
            match loan {
                Loan::Kernel(lent) => lent.abandon(),
                Loan::Anons(lent) => lent.abandon(),
            }
        }
    }
}

/// Where the loan with this number is kept; they are counted from 1.
fn place_of(loan: u64) -> Option<usize> {
    usize::try_from(loan).ok()?.checked_sub(1)
}

impl Loans {
    /// Answers the number of a loan that was just made.
    pub(super) fn note(&mut self, lent: Result<Loan, SysError>) -> Outcome {
        match lent {
            Ok(lent) => {
                self.0.push(Some(lent));
                Outcome::count(self.0.len() as u64)
            }
            Err(e) => e.into(),
        }
    }
    fn place(&mut self, loan: u64) -> Option<&mut Option<Loan>> {
        self.0.get_mut(place_of(loan)?)
    }
    /// Reads what was lent to the kernel, as the kernel.
    pub(super) fn read(&self, loan: u64) -> Outcome {
        let lent = place_of(loan).and_then(|i| self.0.get(i)?.as_ref());
        let Some(Loan::Kernel(lent)) = lent else { return Errno::EINVAL.into() };
        let (mut hash, mut first) = (FNV_OFFSET, FirstBytes::default());
        let mut buf: PageBytes = [0; PAGE_BYTES as usize];
        for offset in (0..lent.range().len()).step_by(buf.len()) {
            let n = lent.read(offset, &mut buf);
            hash = fnv(hash, &buf[..n]);
            first.extend(&buf[..n]);
        }
        Outcome::bytes(hash, first)
    }
    /// Ends a loan of either kind.
    pub(super) fn end(&mut self, m: &Machine, loan: u64) -> Outcome {
        match self.place(loan).and_then(Option::take) {
            Some(Loan::Kernel(lent)) => lent.give_back(m.cx()),
            Some(Loan::Anons(lent)) => lent.give_back(m.cx()),
            None => return Errno::EINVAL.into(),
        }
        Outcome::OK
    }
    /// Shows what was lent to anons to a process; that ends the loan, if it can be shown there.
    pub(super) fn show(&mut self, p: &Process, addr: u64, loan: u64) -> Outcome {
        let Some(place) = self.place(loan) else { return Errno::EINVAL.into() };
        let lent = match place.take() {
            Some(Loan::Anons(lent)) => lent,
            other => {
                *place = other;
                return Errno::EINVAL.into();
            }
        };
        match p.borrow(lent, addr) {
            Ok(()) => Outcome::OK,
            Err(back) => {
                let (e, lent) = *back;
                *place = Some(Loan::Anons(lent));
                e.into()
            }
        }
    }
}
