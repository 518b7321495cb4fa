//! The naive answer: what every operation does, page by page, with nothing clever about it.
//!
//! One record per (process, page), found in a map; a private copy is a box of bytes; a file is a
//! map from page to bytes. No segments, no amaps, no reference counts, no page tables, no shared
//! frames, no free lists: nothing the library does is done here, so the two can only agree by both
//! being right. It predicts outcomes as well as contents, answering as illumos does.
//!
//! ```text
//!   process 0   page 17 ──▶ Page { Zero,         copy: Some(bytes) }   private anonymous, stored to
//!               page 18 ──▶ Page { Object(2, 5), copy: None }          private or shared, page 5 of
//!   process 1   page 17 ──▶ Page { Zero,         copy: Some(bytes) }     object 2: a file, or shared
//!                                                                        anonymous memory
//! ```
//!
//! A load sees the copy, else the object's page, else zeros. A store makes the copy first when the
//! page is private. Fork copies the records, boxes and all, but where a page is inherited otherwise:
//! nothing, zeros, or shared. Private pages that are shared have one place for a copy together, a
//! *cell*, empty until one of them stores. That is the whole of it; `calls.rs` adds what the system
//! calls refuse, `fork.rs` what a child gets, `vfork.rs` who uses the same pages, `files.rs` what files do,
//! `share.rs` what is shown twice, `loans.rs` what others have of a process's memory, `watch.rs` which bytes are watched, `world.rs` the script's face.
//!
//! # What it does not predict
//!
//! Memory never runs out and swap is never full, and nobody waits for a device. Residency, addresses chosen by the system and
//! counts are not known here. Mappings of more than [`Model::MAX_PAGES`] and writes of more than
//! [`Model::MAX_WRITE`] are refused, because a naive record of each page costs memory.

mod calls;
mod files;
mod fork;
mod loans;
mod remap;
mod share;
mod vfork;
mod watch;
mod world;

use std::collections::BTreeMap;

use crate::script::ast::{Inherit, Layout, Limit, OpenMode};
use crate::script::outcome::{BusCode, Outcome, PAGE_BYTES, PageBytes, SegvCode};

/// The first address that user mappings may not reach.
pub const USER_TOP: u64 = 0x7fff_ffff_f000;

const ZERO: PageBytes = [0; PAGE_BYTES as usize];

/// What a page shows while it has no copy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Zeros.
    Zero,
    /// A page of an object.
    Object {
        /// Which object.
        object: usize,
        /// Which of its pages.
        index: u64,
    },
}

/// What is known of one page of a process.
#[derive(Clone, Debug)]
pub struct Page {
    /// What it shows while it has no copy.
    pub backing: Backing,
    /// Stores go to the object.
    pub shared: bool,
    /// Loads are allowed.
    pub read: bool,
    /// Stores are allowed.
    pub write: bool,
    /// Fetches are allowed.
    pub exec: bool,
    /// Write permission may be given.
    pub may_write: bool,
    /// A child has no such page.
    pub dont_fork: bool,
    /// What a child finds, where that is not what the mapping's kind says; never nothing.
    pub inherit: Option<Inherit>,
    /// Swap is reserved at the first touch.
    pub noreserve: bool,
    /// The page is locked.
    pub locked: bool,
    /// The process's own bytes, once it has stored.
    copy: Option<Box<PageBytes>>,
    /// The cell that has them instead, once the page is shared with a child or a parent.
    cell: Option<usize>,
}

impl Page {
    /// Any permission makes a page readable on this processor.
    pub fn is_readable(&self) -> bool {
        self.read || self.write || self.exec
    }

    /// Private memory that is not a file's.
    pub fn is_private_anon(&self) -> bool {
        self.backing == Backing::Zero && !self.shared
    }
}

/// A file, or shared anonymous memory.
#[derive(Clone, Debug, Default)]
pub struct Object {
    /// Bytes.
    size: u64,
    is_file: bool,
    pages: BTreeMap<u64, Box<PageBytes>>,
}

impl Object {
    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// It is a file, not shared anonymous memory.
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// Pages that lie at least partly before the end.
    pub fn page_count(&self) -> u64 {
        self.size.div_ceil(PAGE_BYTES)
    }

    fn peek(&self, index: u64) -> &PageBytes {
        self.pages.get(&index).map_or(&ZERO, |p| p)
    }

    fn page(&mut self, index: u64) -> &mut PageBytes {
        self.pages.entry(index).or_insert_with(|| Box::new(ZERO))
    }
}

/// A file as processes know it.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Its bytes.
    pub object: usize,
    /// What its descriptor may do.
    pub mode: OpenMode,
    /// The descriptor is closed.
    pub closed: bool,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pages: BTreeMap<u64, Page>,
    brk: u64,
    /// New mappings are locked.
    future: bool,
    /// Its limits, each with its place in the order in which they were set.
    limits: BTreeMap<&'static str, (u64, u32)>,
    /// What holds instead while it uses an address space with others.
    told: BTreeMap<&'static str, (u64, u32)>,
    /// Watched bytes, in order of address.
    watches: Vec<watch::Watch>,
}

impl Process {
    /// Every mapped page, by page number, upwards.
    pub fn pages(&self) -> &BTreeMap<u64, Page> {
        &self.pages
    }

    /// The break.
    pub fn brk(&self) -> u64 {
        self.brk
    }

    /// Whether a page that is touched for the first time is locked for certain, where that is what new mappings come to: no limit is in the way.
    pub fn locks_what_is_touched(&self) -> bool {
        self.future && self.limit(Limit::Memlock) == u64::MAX
    }

    fn limit(&self, limit: Limit) -> u64 {
        let own = self.limits.get(limit.word());
        self.told.get(limit.word()).or(own).map_or(u64::MAX, |(bytes, _)| *bytes)
    }

    /// The mapped pages of `[from, to)`, upwards, and `None` once for every hole between them.
    fn span(&self, from: u64, to: u64) -> Vec<Option<u64>> {
        let (mut next, end) = (from / PAGE_BYTES, to.div_ceil(PAGE_BYTES));
        let mut out = Vec::new();
        for &page in self.pages.range(next..end).map(|(n, _)| n) {
            if page > next {
                out.push(None);
            }
            out.push(Some(page));
            next = page + 1;
        }
        if next < end {
            out.push(None);
        }
        out
    }

    fn has_any(&self, pages: std::ops::Range<u64>) -> bool {
        self.pages.range(pages).next().is_some()
    }
}

/// What user code attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A load.
    Load,
    /// A store.
    Store,
    /// An instruction fetch.
    Fetch,
}

/// The naive model of a machine.
#[derive(Clone, Debug)]
pub struct Model {
    layout: Layout,
    procs: BTreeMap<u32, Process>,
    files: BTreeMap<u32, File>,
    objects: Vec<Object>,
    cells: Vec<Cell>,
    /// Processes that use one address space, those of each together; the first has its pages.
    joint: Vec<Vec<u32>>,
    loans: Vec<Option<loans::Loan>>,
    pins: Vec<Option<loans::Pin>>,
}

/// What private pages that are shared have together.
#[derive(Clone, Debug)]
struct Cell {
    /// Their bytes, once one of them was stored to.
    copy: Option<Box<PageBytes>>,
    of_file: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// Most pages one mapping may have.
    pub const MAX_PAGES: u64 = 1 << 22;

    /// Most bytes one write to a file may have.
    pub const MAX_WRITE: u64 = 1 << 30;

    /// Where arena and break lie unless something else is asked for.
    pub const LAYOUT: Layout = Layout { arena: 0x1000_0000_0000, brk: 0x6000_0000_0000 };

    /// A model with process 0 alone, its address space empty.
    pub fn new() -> Self {
        Self::with_layout(Self::LAYOUT)
    }

    /// The same with arena and break elsewhere, for scripts with absolute addresses.
    pub fn with_layout(layout: Layout) -> Self {
        let first = Process { brk: layout.brk, ..Process::default() };
        Model {
            layout,
            procs: BTreeMap::from([(0, first)]),
            files: BTreeMap::new(),
            objects: Vec::new(),
            cells: Vec::new(),
            joint: Vec::new(),
            loans: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// The page has bytes of its own, or with those it is shared with.
    pub fn is_copied(&self, page: &Page) -> bool {
        copy_of(&self.cells, page).is_some()
    }

    /// The page shows a place past the end of its object.
    pub fn is_past_end(&self, page: &Page) -> bool {
        is_past_end(&self.objects, &self.cells, page)
    }

    /// Private memory over a file was shared at some time.
    pub fn has_shared_private_files(&self) -> bool {
        self.cells.iter().any(|cell| cell.of_file)
    }

    /// The processes that live, by slot.
    pub fn processes(&self) -> &BTreeMap<u32, Process> {
        &self.procs
    }

    /// The files that were made, by slot.
    pub fn files(&self) -> &BTreeMap<u32, File> {
        &self.files
    }

    /// The objects, in order of creation.
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// Says whether process `proc` may do `attempt` at `addr`: `Err` holds the signal, at byte
    /// `at` of the access. A process that does not live can reach nothing.
    ///
    /// # Errors
    /// The signal the access would raise.
    pub fn reach(&self, proc: u32, addr: u64, attempt: Attempt, at: u64) -> Result<&Page, Outcome> {
        let unmapped = Outcome::Segv { at, code: SegvCode::Maperr };
        if addr >= USER_TOP {
            return Err(unmapped);
        }
        let page = self
            .procs
            .get(&proc)
            .and_then(|p| p.pages.get(&(addr / PAGE_BYTES)))
            .ok_or(unmapped)?;
        let allowed = match attempt {
            Attempt::Load => page.is_readable(),
            Attempt::Store => page.write,
            Attempt::Fetch => page.exec,
        };
        if !allowed {
            return Err(Outcome::Segv { at, code: SegvCode::Accerr });
        }
        // A private copy stays readable when the file is cut off below it.
        if self.is_past_end(page) {
            return Err(Outcome::Bus { at, code: BusCode::Objerr });
        }
        Ok(page)
    }

    /// The bytes that a load of a page of one of its processes finds, wherever rights and ends of files would let it.
    pub fn bytes_of<'a>(&'a self, page: &'a Page) -> &'a PageBytes {
        self.bytes(page)
    }

    /// The bytes a load finds.
    fn bytes<'a>(&'a self, page: &'a Page) -> &'a PageBytes {
        match (copy_of(&self.cells, page), page.backing) {
            (Some(copy), _) => copy,
            (None, Backing::Zero) => &ZERO,
            (None, Backing::Object { object, index }) => self.objects[object].peek(index),
        }
    }

    /// The bytes a store goes to. The page must be mapped.
    fn own(&mut self, proc: u32, addr: u64) -> &mut PageBytes {
        let Model { procs, objects, cells, .. } = self;
        let page = procs
            .get_mut(&proc)
            .and_then(|p| p.pages.get_mut(&(addr / PAGE_BYTES)))
            .expect("a store follows a reach");
        let copy = match page.cell {
            Some(cell) => &mut cells[cell].copy,
            None => &mut page.copy,
        };
        match page.backing {
            Backing::Object { object, index } if page.shared => objects[object].page(index),
            Backing::Object { object, index } => {
                copy.get_or_insert_with(|| Box::new(*objects[object].peek(index)))
            }
            Backing::Zero => copy.get_or_insert_with(|| Box::new(ZERO)),
        }
    }
}

/// The bytes that a private page has instead of what it was mapped from.
fn copy_of<'a>(cells: &'a [Cell], page: &'a Page) -> Option<&'a PageBytes> {
    let copy = page.cell.map_or(&page.copy, |cell| &cells[cell].copy);
    copy.as_deref()
}

fn is_past_end(objects: &[Object], cells: &[Cell], page: &Page) -> bool {
    let Backing::Object { object, index } = page.backing else { return false };
    copy_of(cells, page).is_none() && index >= objects[object].page_count()
}

/// The pieces of `[addr, addr + len)` that lie in one page each: bytes before it, its address, its
/// length. Ends where addresses wrap.
fn pieces(addr: u64, len: u64) -> impl Iterator<Item = (u64, u64, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = addr.wrapping_add(done);
        let n = (len - done).min(PAGE_BYTES - at % PAGE_BYTES);
        let piece = (done, at, n as usize);
        done += n;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
