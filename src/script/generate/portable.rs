//! What has no defined outcome, and what two systems may answer differently.
//!
//! Both depend on where things stand: a truncation is portable unless somebody has a private copy of a page that it cuts off, a lock is portable where
//! everything in the range can be had. So the [`Judge`] looks at an operation together with the model's state before it, and gives its reason in words.
//!
//! The differences are those between illumos and Linux. What Linux does with its own answer (a length of 0 is fine, an advice goes on behind a hole) does not
//! matter here, only that the answer differs; the list says when, and nothing is left out that both answer alike.

use crate::model::{Attempt, Backing, Model, Page, USER_TOP};

use super::super::ast::*;
use super::super::outcome::PAGE_BYTES;
use super::super::run::{RunOptions, Runner, Silent};

/// Files have at most so many bytes.
const MAX_FILE: u64 = 64 * PAGE_BYTES;

/// Lengths from here up are mistakes, not ranges.
const HUGE: u64 = 1 << 30;

/// Why a script is not portable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objection {
    /// The statement, counted from 0.
    pub statement: usize,
    /// What is wrong with it, where it stands.
    pub reason: &'static str,
}

/// Says why a script is not portable, if it is not: the first operation whose outcome is undefined or which illumos and Linux may answer differently.
pub fn objection(script: &Script) -> Option<Objection> {
    let mut runner = Runner::new(Model::new(), RunOptions::default());
    for (at, statement) in script.statements.iter().enumerate() {
        let operation = &statement.operation;
        let next = script.statements.get(at + 1).map(|s| &s.operation);
        let judge = Judge(runner.world());
        let reason = judge
            .undefined(operation)
            .or_else(|| judge.differs(operation))
            .or_else(|| reads_what_was_freed(operation, next));
        if let Some(reason) = reason {
            return Some(Objection { statement: at, reason });
        }
        if runner.step(statement, &mut Silent).is_err() {
            return Some(Objection { statement: at, reason: "it expects something" });
        }
    }
    None
}

/// Says why the outcome of an operation is not defined as things stand in `model`, even on one system, if it is not.
pub fn undefined(model: &Model, operation: &Operation) -> Option<&'static str> {
    Judge(model).undefined(operation)
}

/// Says why illumos and Linux may answer an operation differently as things stand in `model`, if they may.
pub fn differs(model: &Model, operation: &Operation) -> Option<&'static str> {
    Judge(model).differs(operation)
}

/// What `advise free` gave away must be overwritten at once.
fn reads_what_was_freed(operation: &Operation, next: Option<&Operation>) -> Option<&'static str> {
    let Operation::Advise(range, Advice::Free | Advice::Purge | Advice::Drop) = operation else {
        return None;
    };
    match next {
        Some(Operation::Write(over, _)) if over.range == *range => None,
        _ => Some("what was freed is not overwritten at once"),
    }
}

/// Looks at operations as things stand in a model.
pub(super) struct Judge<'a>(pub(super) &'a Model);

/// The pages of a range.
struct Pages<'a> {
    mapped: Vec<&'a Page>,
    hole: bool,
}

impl Judge<'_> {
    /// Why the outcome of an operation is not defined, even on one system.
    pub(super) fn undefined(&self, operation: &Operation) -> Option<&'static str> {
        use Operation as O;
        let in_break = |r: &Range| matches!(r.addr.base, AddrBase::Break(_));
        let too_long = match operation {
            O::Pwrite { offset, len, .. } => offset.saturating_add(*len) > MAX_FILE,
            O::Truncate { size, .. } => *size > MAX_FILE,
            O::Fwrite(t) => self.makes_long_file(t),
            _ => false,
        };
        let hurts_break = match operation {
            O::Map(m) => matches!(m.addr.base, AddrBase::Break(_)),
            O::Unmap(r) | O::Advise(r, Advice::DontFork) | O::Inherit(r, Inherit::None) => {
                in_break(r)
            }
            O::Remap { range, to, .. } => {
                in_break(range) || to.is_some_and(|to| matches!(to.base, AddrBase::Break(_)))
            }
            _ => false,
        };
        let stores = match operation {
            O::Write(a, _) => Some(&a.range),
            O::Fread(t) => Some(&t.memory.range),
            _ => None,
        };
        let over_itself = match operation {
            O::Fread(t) | O::Fwrite(t) => self.copies_over_itself(t),
            _ => false,
        };
        let maps_zero = match operation {
            O::Map(m) => m.placement != Placement::Hint && m.addr.base == AddrBase::Null,
            // No place is place 0.
            O::Remap { flags, to, .. } => {
                flags.fixed && to.is_none_or(|to| to.base == AddrBase::Null)
            }
            _ => false,
        };
        if too_long {
            Some("the file gets too long")
        } else if hurts_break {
            Some("a hole in the break, or something foreign")
        } else if self.asks_for_doubtful_locks(operation) {
            Some("discarding or lending what may or may not be locked")
        } else if self.discards_beside_pins(operation) {
            Some("discarding beside what a device has")
        } else if self.locks_shared_copies(operation) {
            Some("a lock of private pages of a file that are shared")
        } else if self.shares_locked_files(operation) {
            Some("locked private pages of a file that come to be shared")
        } else if maps_zero {
            Some("a mapping at address 0")
        } else if stores.is_some_and(|r| self.stores_past_end(r)) {
            Some("a store past the end of a file, in its last page")
        } else if over_itself {
            Some("a file copied over itself")
        } else {
            None
        }
    }

    /// Why illumos and Linux may answer an operation differently.
    pub(super) fn differs(&self, operation: &Operation) -> Option<&'static str> {
        use Operation as O;
        match operation {
            O::Map(m) => differing_map(m).or_else(|| self.differing_mistakes(m)),
            O::Truncate { file, size } => self.cuts_copies(file, *size),
            O::LockAll(_, LockAll::Nothing) => None,
            O::LockAll(..) => Some("everything is locked, files too"),
            O::Fread(t) => self.differing_transfer(t, Attempt::Store),
            O::Fwrite(t) => self.differing_transfer(t, Attempt::Load),
            O::Protect(r, _)
            | O::Advise(r, _)
            | O::Sync(r, _)
            | O::Lock(r)
            | O::Unlock(r)
            | O::Incore(r) => self.differing_range(operation, r),
            O::Remap { range, new_len, flags, to } => {
                self.differing_remap(range, *new_len, *flags, to.as_ref())
            }
            _ if operation.has_outcome() && !operation.is_traced() => {
                Some("this library alone has it")
            }
            _ => None,
        }
    }

    // ---- what is undefined

    fn resolved(&self, range: &Range) -> (u32, u64, u64) {
        let ProcRef::Slot(proc) = range.proc else { return (u32::MAX, 0, 0) };
        let addr = range.addr.resolve(Model::LAYOUT);
        (proc, addr, range.len.resolve(addr))
    }

    /// Would a store to this range fall past the end of a file, in its last page?
    fn stores_past_end(&self, range: &Range) -> bool {
        let (proc, addr, len) = self.resolved(range);
        let end = addr.saturating_add(len);
        let mut at = addr;
        while at < end {
            let next = (at / PAGE_BYTES + 1).saturating_mul(PAGE_BYTES).min(end);
            let Ok(page) = self.0.reach(proc, at, Attempt::Store, 0) else { return false };
            if let Backing::Object { object, index } = page.backing {
                let object = &self.0.objects()[object];
                let last = index * PAGE_BYTES + (next - 1) % PAGE_BYTES + 1;
                if page.shared && object.is_file() && last > object.size() {
                    return true;
                }
            }
            at = next;
        }
        false
    }

    /// A page past the end of a file, or where swap is reserved at the first touch, may not be there to be locked.
    fn asks_for_doubtful_locks(&self, operation: &Operation) -> bool {
        let (Operation::Advise(range, Advice::Discard)
        | Operation::Lend(range)
        | Operation::LendAnon(range)) = operation
        else {
            return false;
        };
        let (proc, addr, len) = self.resolved(range);
        let of_file = |page: &Page| match page.backing {
            Backing::Object { object, .. } => self.0.objects()[object].is_file(),
            Backing::Zero => false,
        };
        let pages = if len < HUGE { self.pages_of(proc, addr, len) } else { None };
        let mut pages = pages.into_iter().flat_map(|pages| pages.mapped);
        pages.any(|page| page.locked && (page.noreserve || of_file(page)))
    }

    /// A segment with pins refuses; what lies below it is gone by then, and how much that is goes by segments.
    fn discards_beside_pins(&self, operation: &Operation) -> bool {
        matches!(operation, Operation::Advise(_, Advice::Discard)) && !self.0.pins().is_empty()
    }

    /// A page that is locked where private memory is shared is copied at once, and which those are goes by segments.
    fn locks_shared_copies(&self, operation: &Operation) -> bool {
        use Operation as O;
        let (slot, forks) = match operation {
            O::Lock(Range { proc: ProcRef::Slot(p), .. }) | O::LockAll(ProcRef::Slot(p), _) => {
                (p, false)
            }
            O::Fork { parent: ProcRef::Slot(p), .. } => (p, true),
            _ => return false,
        };
        let Some(process) = self.0.processes().get(slot) else { return false };
        let of_file = |page: &&Page| !page.shared && page.backing != Backing::Zero;
        let mut pages = process.pages().values().filter(of_file);
        match forks {
            true => pages.any(|page| page.locked && page.is_handed_on()),
            false => self.0.has_shared_private_files() && pages.next().is_some(),
        }
    }

    /// A locked page of a file is copied as it comes to be shared, where it is there: which those are goes by what truncation has left.
    fn shares_locked_files(&self, operation: &Operation) -> bool {
        let Operation::ShareRange { range, .. } = operation else { return false };
        let (proc, addr, len) = self.resolved(range);
        let pages = if len < HUGE { self.pages_of(proc, addr, len) } else { None };
        let of_file = |page: &Page| !page.shared && page.backing != Backing::Zero;
        pages.is_some_and(|pages| pages.mapped.iter().any(|page| page.locked && of_file(page)))
    }

    /// A transfer between a file and a mapping of it, unless each byte goes where it is.
    fn copies_over_itself(&self, transfer: &Transfer) -> bool {
        let FileRef::Slot(slot) = transfer.file else { return true };
        let Some(file) = self.0.files().get(&slot) else { return false };
        let (proc, addr, len) = self.resolved(&transfer.memory.range);
        if len >= HUGE {
            return false;
        }
        let Some(process) = self.0.processes().get(&proc) else { return false };
        let size = self.0.objects()[file.object].size();
        let last = addr.saturating_add(len).div_ceil(PAGE_BYTES);
        process.pages().range(addr / PAGE_BYTES..last).any(|(n, page)| {
            let Backing::Object { object, index } = page.backing else { return false };
            let same_place = transfer.offset.checked_add(n * PAGE_BYTES);
            let same_place = same_place.and_then(|end| end.checked_sub(addr));
            let onto_itself = page.shared
                && same_place == Some(index * PAGE_BYTES)
                && (index + 1) * PAGE_BYTES <= size;
            object == file.object && !onto_itself
        })
    }

    fn makes_long_file(&self, transfer: &Transfer) -> bool {
        let (_, _, len) = self.resolved(&transfer.memory.range);
        len < HUGE && transfer.offset.saturating_add(len) > MAX_FILE
    }

    // ---- what differs

    /// Linux drops the private copies of pages that a truncation cuts off, illumos keeps them.
    fn cuts_copies(&self, file: &FileRef, size: u64) -> Option<&'static str> {
        let FileRef::Slot(slot) = file else { return None };
        let cut = self.0.files().get(slot)?.object;
        let kept = size.div_ceil(PAGE_BYTES);
        let pages = self.0.processes().values().flat_map(|p| p.pages().values());
        pages
            .filter(|page| self.0.is_copied(page))
            .any(|page| matches!(page.backing, Backing::Object { object, index } if object == cut && index >= kept))
            .then_some("a truncation below a private copy")
    }

    /// A transfer that stops half way, and one that fails past the end of a file.
    fn differing_transfer(&self, transfer: &Transfer, attempt: Attempt) -> Option<&'static str> {
        let (proc, addr, len) = self.resolved(&transfer.memory.range);
        if len >= HUGE || len == 0 || !self.0.processes().contains_key(&proc) {
            return None;
        }
        let reaches = |at| self.0.reach(proc, at, attempt, 0).is_ok();
        let first = reaches(addr);
        if !first && attempt == Attempt::Load && self.is_past_end(transfer) {
            return Some("a failing write past the end of a file");
        }
        let mut rest = addr / PAGE_BYTES + 1..addr.saturating_add(len).div_ceil(PAGE_BYTES);
        (first && !rest.all(|n| reaches(n.saturating_mul(PAGE_BYTES))))
            .then_some("a transfer that stops half way")
    }

    /// Linux looks for the place of a mapping before it looks at flags and rights, illumos afterwards; and what lies outside is told before what is off a page.
    fn differing_mistakes(&self, map: &Map) -> Option<&'static str> {
        let addr = map.addr.resolve(Model::LAYOUT);
        let len = map.len.resolve(addr).checked_next_multiple_of(PAGE_BYTES);
        let fixed = map.placement != Placement::Hint;
        let off_page = fixed && !addr.is_multiple_of(PAGE_BYTES);
        let outside = len.is_none_or(|len| len > USER_TOP || (fixed && addr > USER_TOP - len));
        let refused = match map.source {
            Source::File(FileRef::Slot(slot), _) => {
                let mode = self.0.files().get(&slot).map(|file| file.mode);
                let stores = map.share == Share::Shared
                    && matches!(map.prot, Prot::Letters { write: true, .. });
                mode == Some(OpenMode::WriteOnly) || (stores && mode == Some(OpenMode::ReadOnly))
            }
            _ => false,
        };
        let one = matches!(map.share, Share::Private | Share::Shared);
        let differs = (off_page && (outside || refused)) || (outside && (refused || !one));
        differs.then_some("several wrong arguments")
    }

    fn is_past_end(&self, transfer: &Transfer) -> bool {
        let FileRef::Slot(slot) = transfer.file else { return false };
        let file = self.0.files().get(&slot);
        file.is_some_and(|f| transfer.offset > self.0.objects()[f.object].size())
    }

    fn pages_of(&self, proc: u32, addr: u64, len: u64) -> Option<Pages<'_>> {
        let process = self.0.processes().get(&proc)?;
        let (first, last) = (addr / PAGE_BYTES, addr.saturating_add(len).div_ceil(PAGE_BYTES));
        let mapped: Vec<&Page> = process.pages().range(first..last).map(|(_, p)| p).collect();
        let hole = (mapped.len() as u64) < last - first;
        Some(Pages { mapped, hole })
    }

    /// illumos has no such call, so this library's is compared. What is one mapping depends on what the other system has merged, but for one page.
    fn differing_remap(
        &self,
        range: &Range,
        new_len: Length,
        flags: RemapFlags,
        to: Option<&Addr>,
    ) -> Option<&'static str> {
        let (proc, addr, len) = self.resolved(range);
        let new_len = new_len.resolve(addr);
        if len == 0 {
            return Some("an old length of 0");
        }
        if len > HUGE || new_len > HUGE {
            return Some("a length that overflows");
        }
        if to.is_some_and(|to| !matches!(to.base, AddrBase::Arena(_))) {
            return Some("a place where nothing may be mapped");
        }
        let pages = self.pages_of(proc, addr, len)?;
        let last = pages.mapped.last()?;
        if pages.hole {
            return Some("a range with a hole");
        }
        let (had, has) = (len.div_ceil(PAGE_BYTES), new_len.div_ceil(PAGE_BYTES));
        let in_place = has <= had && !flags.fixed && !flags.dontunmap;
        if had > 1 && !in_place {
            return Some("a range that may be several mappings");
        }
        if flags.dontunmap && last.locked {
            return Some("locks of what stays behind");
        }
        // Here such memory grows, there its object ends.
        let of_file = match last.backing {
            Backing::Object { object, .. } => self.0.objects()[object].is_file(),
            Backing::Zero => true,
        };
        (has > had && !of_file).then_some("shared memory that grows")
    }

    fn differing_range(&self, operation: &Operation, range: &Range) -> Option<&'static str> {
        use Operation as O;
        let (proc, addr, len) = self.resolved(range);
        if !self.0.processes().contains_key(&proc) {
            return None;
        }
        let misaligned = !addr.is_multiple_of(PAGE_BYTES);
        if len == 0 {
            return Some("a length of 0");
        }
        if matches!(operation, O::Protect(_, Prot::Bad)) {
            return Some("an unknown bit of protection");
        }
        if len > HUGE {
            // Of a length that overflows, protection alone says the same everywhere.
            let protects = matches!(operation, O::Protect(..));
            return (!protects).then_some("a length that overflows");
        }
        let pages = self.pages_of(proc, addr, len)?;
        match operation {
            O::Lock(_) | O::Unlock(_) if misaligned => Some("a lock that begins within a page"),
            O::Lock(_) | O::Unlock(_) if pages.hole => Some("a lock over a hole"),
            O::Lock(_) if !pages.mapped.iter().all(|p| self.is_locked_alike(p)) => {
                Some("a lock of what cannot be had, or of a private file")
            }
            O::Sync(..) if pages.hole && pages.mapped.iter().any(|p| p.locked) => {
                Some("a hole and a lock")
            }
            O::Advise(_, advice) if !misaligned => self.differing_advice(*advice, &pages),
            _ => None,
        }
    }

    /// Linux makes the copies of private file pages when it locks them, illumos later.
    fn is_locked_alike(&self, page: &Page) -> bool {
        let had = self.can_be_had(page);
        had && (page.shared || page.backing == Backing::Zero)
    }

    /// A load would find bytes, were it only for the object's own page.
    fn can_be_had(&self, page: &Page) -> bool {
        let there = match page.backing {
            Backing::Object { object, index } => index < self.0.objects()[object].page_count(),
            Backing::Zero => true,
        };
        there && page.is_readable()
    }

    fn differing_advice(&self, advice: Advice, pages: &Pages<'_>) -> Option<&'static str> {
        let all = |good: &dyn Fn(&Page) -> bool| pages.mapped.iter().all(|p| good(p));
        match advice {
            Advice::Bad => None,
            Advice::PopulateRead
            | Advice::PopulateWrite
            | Advice::Purge
            | Advice::Drop
            | Advice::Discard => Some("the trace language lacks it"),
            Advice::DontNeed if !all(&|p| p.shared && !p.locked) => {
                Some("private or locked memory that is not needed")
            }
            Advice::DontNeed => None,
            _ if pages.hole => Some("an advice over a hole"),
            Advice::Free if !all(&|p| p.is_private_anon() && !p.locked) => {
                Some("freeing what is not private anonymous")
            }
            Advice::WillNeed if !all(&|p| self.can_be_had(p)) => {
                Some("asking for what cannot be had")
            }
            _ => None,
        }
    }
}

fn differing_map(map: &Map) -> Option<&'static str> {
    let of_file = matches!(map.source, Source::File(..));
    let past_offsets = match &map.source {
        Source::File(_, offset) => {
            let addr = map.addr.resolve(Model::LAYOUT);
            let len = map.len.resolve(addr);
            // Lengths that do not fit are refused before offsets are looked at.
            let end = offset.resolve(0).checked_add(len);
            end.is_none_or(|end| end > i64::MAX as u64)
        }
        Source::Anon => false,
    };
    if map.placement == Placement::NoReplace || map.flags.populate || map.flags.locked {
        Some("Linux alone has it")
    } else if map.prot == Prot::Bad {
        Some("an unknown bit of protection")
    } else if map.share == Share::Both && of_file {
        Some("both kinds of sharing at once")
    } else if past_offsets {
        Some("an offset past the last")
    } else {
        None
    }
}
