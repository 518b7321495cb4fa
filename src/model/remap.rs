//! A mapping made longer, shorter, or taken elsewhere: records of pages taken out and put back under other numbers.

use crate::script::ast::{Limit, RemapFlags};
use crate::script::outcome::{Errno, Outcome, PAGE_BYTES};
use crate::script::world::Region;

use super::calls::{Answer, is_aligned, round_up};
use super::{Backing, Model, Page, Process, USER_TOP};

/// Where a mapping is afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// From the page with this number on.
    At(u64),
    /// Where the system chose; nobody looks at it any more.
    Away,
}

impl Model {
    pub(super) fn remap_range(
        &mut self,
        region: Region,
        new_len: u64,
        flags: RemapFlags,
        to: Option<u64>,
    ) -> Answer {
        let Some(process) = self.procs.get_mut(&region.proc.0) else { return Ok(Outcome::Skip) };
        let addr = region.addr;
        let (old_len, len) = (round_up(region.len), round_up(new_len));
        let silly = |len| len == 0 || len > USER_TOP;
        if ((flags.fixed || flags.dontunmap) && !flags.may)
            || !is_aligned(addr)
            || silly(old_len)
            || silly(len)
            || (flags.dontunmap && old_len != len)
        {
            return Err(Errno::EINVAL);
        }
        let to = to.filter(|_| flags.fixed);
        if to.is_some_and(|to| !is_aligned(to) || to > USER_TOP - len)
            || addr.checked_add(old_len).is_none()
        {
            return Err(Errno::EINVAL);
        }
        if addr > USER_TOP - old_len {
            return Err(Errno::EFAULT);
        }
        if to.is_some_and(|to| addr < to + len && to < addr + old_len) {
            return Err(Errno::EINVAL);
        }
        if process.span(addr, addr + old_len).contains(&None) {
            return Err(Errno::EFAULT);
        }
        let (first, had, has) = (addr / PAGE_BYTES, old_len / PAGE_BYTES, len / PAGE_BYTES);
        let place = match to {
            Some(to) => Place::At(to / PAGE_BYTES),
            None if flags.dontunmap => Place::Away,
            None if has <= had || process.is_room(first + had, first + has) => Place::At(first),
            None if flags.may => Place::Away,
            None => return Err(Errno::ENOMEM),
        };
        let replaced = match place {
            Place::At(to) if flags.dontunmap => process.pages.range(to..to + has).count() as u64,
            _ => 0,
        };
        if flags.dontunmap && process.is_over_without(replaced, had) {
            return Err(Errno::ENOMEM);
        }
        if let (Some(to), true) = (to, has > had) {
            process.drop_pages(to / PAGE_BYTES, has);
        }
        let mut pages = process.taken(first, had, flags.dontunmap);
        let grown = process.grown(&pages, has);
        if let Err(refused) = grown.as_ref().map(drop) {
            process.put(first, pages);
            return Err(*refused);
        }
        pages.truncate(has as usize);
        pages.extend(grown.into_iter().flatten());
        for page in pages.iter().skip(had as usize) {
            self.reach_out(page.backing, &pages[..had as usize]);
        }
        match place {
            Place::Away => Ok(Outcome::MOVED),
            Place::At(to) => {
                let process = self.procs.get_mut(&region.proc.0).expect("looked up above");
                process.put(to, pages);
                Ok(Outcome::OK)
            }
        }
    }
}

impl Model {
    /// Shared memory goes on to a page of its object. One that nobody maps, `taken` aside, is a page of zeros.
    fn reach_out(&mut self, backing: Backing, taken: &[Page]) {
        let Backing::Object { object, index } = backing else { return };
        if self.objects[object].is_file {
            return;
        }
        let mapped = self.procs.values().flat_map(|p| p.pages.values());
        if !mapped.chain(taken).any(|page| page.backing == backing) {
            self.objects[object].pages.remove(&index);
        }
        let end = (index + 1) * PAGE_BYTES;
        self.objects[object].size = self.objects[object].size.max(end);
    }
}

impl Process {
    /// Nothing is mapped there, and it is the user's.
    fn is_room(&self, from: u64, to: u64) -> bool {
        to <= USER_TOP / PAGE_BYTES && !self.has_any(from..to)
    }
    /// So many pages more would pass the limit on address space.
    fn is_over(&self, more: u64) -> bool {
        self.is_over_without(0, more)
    }
    /// The same when `gone` pages have gone.
    fn is_over_without(&self, gone: u64, more: u64) -> bool {
        let pages = (self.pages.len() as u64 - gone).saturating_add(more);
        more > Model::MAX_PAGES || pages.saturating_mul(PAGE_BYTES) > self.limit(Limit::Vmem)
    }
    fn drop_pages(&mut self, first: u64, n: u64) {
        let gone: Vec<u64> = self.pages.range(first..first + n).map(|(n, _)| *n).collect();
        gone.iter().for_each(|n| drop(self.pages.remove(n)));
    }
    /// Takes pages out, which all are there; what stays in their place is as new, if anything does.
    fn taken(&mut self, first: u64, n: u64, stays: bool) -> Vec<Page> {
        let take = |n| {
            let page = self.pages.remove(&n).expect("a range without holes");
            if stays {
                self.pages
                    .insert(n, Page { copy: None, cell: None, locked: false, ..page.clone() });
            }
            page
        };
        (first..first + n).map(take).collect()
    }
    fn put(&mut self, first: u64, pages: Vec<Page>) {
        self.pages.extend((first..).zip(pages));
    }
    /// What comes behind `pages`, which are not among the process's now, until there are `has`: each like the last, and what follows it.
    fn grown(&self, pages: &[Page], has: u64) -> Result<Vec<Page>, Errno> {
        let (had, last) = (pages.len() as u64, pages.last().expect("a range is not empty"));
        let more = has.saturating_sub(had);
        if more == 0 {
            return Ok(Vec::new());
        }
        if self.is_over(had.saturating_add(more)) {
            return Err(Errno::ENOMEM);
        }
        if let Backing::Object { index, .. } = last.backing
            && index + 1 + more > i64::MAX as u64 / PAGE_BYTES
        {
            return Err(Errno::EINVAL);
        }
        let locked = last.locked || self.future;
        let claims = |pages: &mut dyn Iterator<Item = &Page>| pages.filter(|p| p.locked).count();
        let held = claims(&mut self.pages.values()) + claims(&mut pages.iter());
        let limit = self.limit(Limit::Memlock) / PAGE_BYTES;
        if locked && (held as u64).saturating_add(more) > limit {
            return Err(Errno::EAGAIN);
        }
        let next = |i| {
            let backing = match last.backing {
                Backing::Zero => Backing::Zero,
                Backing::Object { object, index } => Backing::Object { object, index: index + i },
            };
            Page { backing, copy: None, cell: None, locked, ..last.clone() }
        };
        Ok((1..=more).map(next).collect())
    }
}
