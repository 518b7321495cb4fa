//! Fork, and what a child gets of each page.
//!
//! | | usual | share | copy | zero |
//! |---|---|---|---|---|
//! | private | its own record, bytes and all | the same cell | the same as usual | zeros, no file |
//! | shared | the same object | the same as usual | a private record: bytes of memory, the file of a file | zeros, no file |

use crate::script::ast::Inherit;
use crate::script::outcome::{Errno, Outcome};
use crate::script::world::Region;

use super::calls::{Answer, checked_end};
use super::{Backing, Model, Page, Process};

impl Model {
    pub(super) fn fork_process(&mut self, parent: u32, child: u32) -> Outcome {
        if self.procs.contains_key(&child) {
            return Outcome::Skip;
        }
        let Some(p) = self.procs.get_mut(&parent) else { return Outcome::Skip };
        // Pages to be shared get a cell, which has the bytes that were the parent's alone.
        for page in p.pages.values_mut().filter(|page| page.is_handed_on()) {
            page.enter_cell(&mut self.cells);
        }
        let (brk, limits) = (p.brk, p.limits.clone());
        let p = &self.procs[&parent];
        let pages = p.pages.iter().filter(|(_, page)| !page.dont_fork);
        let pages = pages.map(|(n, page)| (*n, self.inherited(page))).collect();
        self.procs.insert(child, Process { pages, brk, limits, ..Process::default() });
        Outcome::OK
    }

    /// The child's record of a page.
    fn inherited(&self, page: &Page) -> Page {
        let own = Page { locked: false, dont_fork: false, ..page.clone() };
        match page.inherit {
            Some(Inherit::Zero) => {
                Page { backing: Backing::Zero, shared: false, copy: None, cell: None, ..own }
            }
            _ if page.is_handed_on() => own,
            Some(Inherit::Copy) if page.shared => self.private_view(page, own),
            _ if page.shared => own,
            _ => Page {
                copy: super::copy_of(&self.cells, page).map(|b| Box::new(*b)),
                cell: None,
                ..own
            },
        }
    }

    /// A copy of shared memory has its bytes, one of a file shows the file until it is stored to.
    fn private_view(&self, page: &Page, own: Page) -> Page {
        let Backing::Object { object, .. } = page.backing else { return own };
        if self.objects[object].is_file() {
            return Page { shared: false, ..own };
        }
        let copy = Some(Box::new(*self.bytes(page)));
        Page { shared: false, backing: Backing::Zero, copy, ..own }
    }
}

impl Page {
    /// The child's stores will be seen, though the mapping is private.
    pub fn is_handed_on(&self) -> bool {
        !self.shared && self.inherit == Some(Inherit::Share) && !self.dont_fork
    }
}

impl Process {
    /// Says what a child is to find. What is refused leaves what lies below done.
    pub(super) fn set_inherit(&mut self, region: Region, how: Inherit) -> Answer {
        let end = checked_end(region)?;
        for page in self.span(region.addr, end) {
            let page = self.page_or_hole(page)?;
            let usual = if page.shared { Inherit::Share } else { Inherit::Copy };
            match how {
                Inherit::None => page.dont_fork = true,
                Inherit::Share if page.noreserve => return Err(Errno::ENOTSUP),
                _ => {
                    page.dont_fork = false;
                    page.inherit = Some(how).filter(|how| *how != usual);
                }
            }
        }
        Ok(Outcome::OK)
    }
}
