//! What every scene is built from: places to live in, what a page shows, what is held.

use super::{SegCan, SegCase};
use crate::addr_space::AddrSpace;
use crate::fault::{FaultError, FaultKind};
use crate::hat::{Translation, UnloadFlags};
use crate::seg::{InCore, SegCx, SegOps};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::contract::{Breach, Judge};
use page_db::{
    Access, Cx, PAGE_SIZE, PageDb, PageId, Pfn, Prot, RefMod, VirtAddr, VirtRange, VnodeKind,
};

const ROOM: &str = "an address space, and eight free pages in it, to try";
const MAPS: &str = "what can be mapped is mapped";
pub(super) const SOUND: &str = "after each step every invariant of the address space holds";
const NOTHING: &str = "unmap and free give everything back";
const RESOLVED: &str = "a fault that the rights allow is resolved";
const GIVES: &str = "after a resolved fault the translation allows the access";
const SHOWN: &str = "rights are told page by page, in order and without gaps";
const PIECE: &str = "a page is of one piece: copied, zeroed and loaded to its last byte";

/// Pages of a place.
pub(super) const PAGES: u64 = 8;

pub(super) struct Bench<'a> {
    pub(super) c: SegCase<'a>,
    pub(super) judge: Judge,
}

/// What is held of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Census {
    /// Frames that are not free and hold no page of a file.
    frames: u64,
    /// Locks on pages.
    locks: u64,
    /// Claims on pages.
    claims: u64,
    availrmem: u64,
    /// What the case counts.
    others: Vec<(&'static str, u64)>,
}

/// What an address space shows of the eight pages, without touching any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Its segments, in pages of the place.
    pub(super) shape: Vec<(u64, u64)>,
    /// Rights of each page; `None` where nothing is mapped.
    pub(super) rights: Vec<Option<Prot>>,
    /// Whether each page is locked in memory.
    pub(super) locked: Vec<bool>,
    /// Bytes mapped, bytes that count as reserved, bytes locked.
    sizes: (u64, u64, u64),
}

/// One address space, seen by one thread.
pub(super) struct Place<'a> {
    pub(super) judge: &'a Judge,
    pub(super) cx: &'a Cx,
    pub(super) db: &'a PageDb,
    pub(super) space: Arc<AddrSpace>,
    at: VirtAddr,
    pub(super) can: SegCan,
    /// What is mapped, if that can be asked for on this thread.
    behind: Option<&'a dyn Fn(u64) -> Vec<u8>>,
}

impl Bench<'_> {
    pub(super) fn can(&self, what: SegCan) -> bool {
        self.c.can.contains(what)
    }
    /// Whether the segment stays where it is.
    pub(super) fn stands(&self) -> bool {
        self.c.make.is_none()
    }
    /// An address space as the case makes it.
    pub(super) fn empty(&self) -> Result<Place<'_>, Breach> {
        let space = (self.c.space)();
        let space = space.map_err(|e| self.judge.breach(ROOM, format_args!("{e}")))?;
        Ok(self.place_in(space))
    }
    pub(super) fn place_in(&self, space: Arc<AddrSpace>) -> Place<'_> {
        let SegCase { cx, db, at, can, behind, .. } = self.c;
        Place::new(&self.judge, cx, db, space, at, can, behind)
    }
    /// A place with the segment in it.
    pub(super) fn place(&self) -> Result<Place<'_>, Breach> {
        let place = self.empty()?;
        if self.c.make.is_some() {
            self.map(&place, 0, PAGES)?;
        }
        place.rights()?; // before anybody goes by what is told of them
        place.sound("map")?;
        Ok(place)
    }
    /// A place with the segment in it, and a word of its own in each of its first `pages` pages.
    pub(super) fn written(&self, pages: u64) -> Result<Place<'_>, Breach> {
        let place = self.place()?;
        (0..pages).try_for_each(|n| place.write(n, word(n)))?;
        place.sound("stores")?;
        Ok(place)
    }
    pub(super) fn map(&self, place: &Place<'_>, n: u64, pages: u64) -> Result<(), Breach> {
        let Some(make) = self.c.make else { return Ok(()) };
        let done = place.space.map(self.c.cx, place.range(n, pages), make);
        self.judge.same(MAPS, format_args!("map of {pages} pages at page {n}"), done, Ok(()))
    }
    /// The word that page `n` of a new mapping begins with.
    pub(super) fn fresh(&self, n: u64) -> u64 {
        self.c.behind.map_or(0, |behind| first_word(&behind(n)))
    }
    pub(super) fn census(&self) -> Census {
        let db = self.c.db;
        let file = |p: &PageId| {
            let id = db.page(*p).identity();
            id.is_some_and(|id| {
                matches!(db.vnodes().kind(id.vnode), VnodeKind::File | VnodeKind::Exec)
            })
        };
        let files = db.pages().ids().filter(|p| !db.page(*p).is_free() && file(p)).count() as u64;
        let locks = |p: PageId| {
            let lock = db.lock_state(p);
            u64::from(lock.excl) + u64::from(lock.shared)
        };
        let claims = |p: PageId| u64::from(db.page(p).lckcnt()) + u64::from(db.page(p).cowcnt());
        Census {
            frames: db.pages().len() - db.freemem() - files,
            locks: db.pages().ids().map(locks).sum(),
            claims: db.pages().ids().map(claims).sum(),
            availrmem: db.free_mem().availrmem(),
            others: (self.c.counts)(),
        }
    }
    pub(super) fn nothing_left(&self, before: &Census) -> Result<(), Breach> {
        self.judge.same(NOTHING, format_args!("what is held afterwards"), &self.census(), before)
    }
}

/// The word of page `n`.
pub(super) fn word(n: u64) -> u64 {
    (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// A page that begins with `word`, as the suite fills it: each word tells it and its place. Of 0 it is a page of zeros.
fn page_of(word: u64) -> Vec<u8> {
    let words = (0..PAGE_SIZE / 8).map(|i| word.wrapping_mul(2 * i + 1));
    words.flat_map(u64::to_le_bytes).collect()
}

pub(super) fn first_word(page: &[u8]) -> u64 {
    page.iter().take(8).rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

impl Census {
    /// Locks and claims on pages.
    pub(super) fn pages_held(&self) -> (u64, u64) {
        (self.locks, self.claims)
    }
    /// The same, frames aside: what is faulted along the way takes some.
    pub(super) fn without_frames(self) -> Self {
        Self { frames: 0, ..self }
    }
}

impl<'a> Place<'a> {
    pub(super) fn new(
        judge: &'a Judge,
        cx: &'a Cx,
        db: &'a PageDb,
        space: Arc<AddrSpace>,
        at: VirtAddr,
        can: SegCan,
        behind: Option<&'a dyn Fn(u64) -> Vec<u8>>,
    ) -> Self {
        Self { judge, cx, db, space, at, can, behind }
    }
    pub(super) fn can(&self, what: SegCan) -> bool {
        self.can.contains(what)
    }
    /// Whether words can be stored and read back.
    pub(super) fn keeps_words(&self) -> bool {
        self.can(SegCan::STORE | SegCan::BYTES)
    }
    pub(super) fn addr(&self, n: u64) -> VirtAddr {
        self.at.checked_add(n * PAGE_SIZE).unwrap_or(self.at)
    }
    pub(super) fn range(&self, n: u64, pages: u64) -> VirtRange {
        let range = VirtRange::exact(self.addr(n).get(), pages * PAGE_SIZE);
        range.unwrap_or_else(|_| VirtRange::page_of(self.at))
    }
    /// Every invariant holds, and nothing is held.
    pub(super) fn sound(&self, after: &str) -> Result<(), Breach> {
        if let Err(damage) = self.space.verify(self.cx) {
            return Err(self.judge.breach(SOUND, format_args!("after {after}: {damage}")));
        }
        self.judge.holds_nothing(self.cx, after)
    }
    /// Gives the address space back, if it is the suite's.
    pub(super) fn end(&self, b: &Bench<'_>) -> Result<(), Breach> {
        if !b.stands() {
            // An address space waits for pins to go before it does, and one that was left would never.
            let done = self.space.try_unmap(self.cx, self.range(0, PAGES));
            self.judge.same(NOTHING, format_args!("unmap of what is left"), done, Ok(()))?;
            self.space.free(self.cx);
        }
        self.sound("the end")
    }
    pub(super) fn shows(&self, n: u64) -> Option<Translation> {
        self.space.hat().probe(self.cx, self.addr(n))
    }
    pub(super) fn fault(&self, n: u64, kind: FaultKind, access: Access) -> Result<(), FaultError> {
        self.space.fault_at(self.cx, self.addr(n), kind, access)
    }
    /// Makes an access possible as a trap handler does; the frame it leads to.
    pub(super) fn reach(&self, n: u64, access: Access) -> Result<Pfn, Breach> {
        if self.can(SegCan::FAULT) {
            let done = self.fault(n, FaultKind::Invalid, access);
            self.judge.same(RESOLVED, format_args!("{access:?} of page {n}"), done, Ok(()))?;
        }
        match self.shows(n) {
            Some(t) if t.prot.allows(access) => Ok(t.pfn),
            t => {
                let has = t.map(|t| t.prot);
                Err(self.judge.breach(GIVES, format_args!("{access:?} of page {n} finds {has:?}")))
            }
        }
    }
    /// Fills a page with what belongs to a word, where that can be stored; touches it anyhow. What it finds before is of one piece.
    pub(super) fn write(&self, n: u64, word: u64) -> Result<(), Breach> {
        if !self.keeps_words() {
            return self.write_at(n, 0, &[]);
        }
        let found = self.page(self.reach(n, Access::Write)?);
        self.whole(format_args!("page {n}, about to be stored to,"), &found)?;
        self.write_at(n, 0, &page_of(word))
    }
    /// Stores some bytes and nothing else, where they can be stored; touches the page anyhow.
    pub(super) fn write_at(&self, n: u64, at: usize, bytes: &[u8]) -> Result<(), Breach> {
        let access = if self.can(SegCan::STORE) { Access::Write } else { Access::Read };
        let pfn = self.reach(n, access)?;
        if !self.keeps_words() {
            return Ok(());
        }
        self.db.mem().write(pfn, at, bytes);
        // What a processor notes in the translation is harvested to here.
        if let Some(page) = self.db.page_of(pfn) {
            self.db.page(page).set_ref_mod(RefMod::REF | RefMod::MOD);
        }
        Ok(())
    }
    /// The word at a place of page `n`, whatever else is there; 0 if pages keep none.
    #[cfg(all(feature = "std", not(shuttle)))]
    pub(super) fn read_at(&self, n: u64, at: usize) -> Result<u64, Breach> {
        let page = self.page(self.reach(n, Access::Read)?);
        Ok(first_word(page.get(at..).unwrap_or_default()))
    }
    /// The word that page `n` begins with and all of it belongs to; 0 if pages keep none.
    pub(super) fn read(&self, n: u64) -> Result<u64, Breach> {
        let page = self.page(self.reach(n, Access::Read)?);
        self.whole(format_args!("page {n}"), &page)?;
        Ok(first_word(&page))
    }
    /// Page `n` has this word, and all that belongs to it, if pages keep words; it can be loaded anyhow.
    pub(super) fn has(&self, clause: &'static str, n: u64, due: u64) -> Result<(), Breach> {
        let page = self.page(self.reach(n, Access::Read)?);
        if !self.can(SegCan::BYTES) {
            return Ok(());
        }
        let seen = first_word(&page);
        let facts = format_args!("page {n} holds {seen:#x}, not {due:#x}");
        self.judge.require(clause, seen == due, facts)?;
        self.whole(format_args!("page {n}"), &page)
    }
    /// What a frame holds; nothing if it is no memory.
    fn page(&self, pfn: Pfn) -> Vec<u8> {
        if !self.can(SegCan::BYTES) {
            return Vec::new();
        }
        let mut page = alloc::vec![0; PAGE_SIZE as usize];
        self.db.mem().read(pfn, 0, &mut page);
        page
    }
    /// All of a page is what the suite stores along with the word it begins with, or a page of what is mapped.
    pub(super) fn whole(&self, what: fmt::Arguments<'_>, page: &[u8]) -> Result<(), Breach> {
        let due = page_of(first_word(page));
        let Some(odd) = page.iter().zip(&due).position(|(seen, due)| seen != due) else {
            return Ok(());
        };
        let mapped = self.behind.is_some_and(|behind| (0..PAGES).any(|n| behind(n) == page));
        let facts = format_args!("{what} begins with {:#x}, up to byte {odd}", first_word(page));
        self.judge.require(PIECE, mapped, facts)
    }
    /// The pages named have the words that [`Bench::written`] stored, or what was there before where nothing can be stored.
    pub(super) fn have_words(
        &self,
        b: &Bench<'_>,
        clause: &'static str,
        pages: impl IntoIterator<Item = u64>,
    ) -> Result<(), Breach> {
        let due = |n| if self.keeps_words() { word(n) } else { b.fresh(n) };
        pages.into_iter().try_for_each(|n| self.has(clause, n, due(n)))
    }
    /// Takes the translations away: they are a cache (T2), and a fault brings them back.
    pub(super) fn forget(&self) {
        if self.can(SegCan::FAULT) {
            self.space.hat().unload(self.cx, self.range(0, PAGES), UnloadFlags::empty());
        }
    }
    /// Asks the driver at page `n` itself.
    pub(super) fn ask<R>(&self, n: u64, f: impl FnOnce(&SegCx<'_>, &dyn SegOps) -> R) -> Option<R> {
        let segs = self.space.segs(self.cx);
        let seg = segs.seg_at(self.cx, self.addr(n))?;
        Some(f(&self.space.scx(self.cx, seg.range(), false), seg.ops()))
    }
    /// The rights of each page, as the drivers tell them for as much as they serve.
    pub(super) fn rights(&self) -> Result<Vec<Option<Prot>>, Breach> {
        let mut all = alloc::vec![None; PAGES as usize];
        let whole = self.range(0, PAGES);
        let segs = self.space.segs(self.cx);
        for seg in segs.iter() {
            let Some(piece) = seg.range().intersect(whole) else { continue };
            let mut runs = Vec::new();
            let scx = self.space.scx(self.cx, seg.range(), false);
            seg.ops().prots(&scx, piece, &mut |run, prot| runs.push((run, prot)));
            let mut next = piece.start().get();
            for (run, prot) in runs {
                if run.start().get() != next || !piece.covers(run) {
                    let facts = format_args!("of {piece}, {run} is told after {next:#x}");
                    return Err(self.judge.breach(SHOWN, facts));
                }
                for addr in run.iter_pages() {
                    all[whole.page_index(addr) as usize] = Some(prot - Prot::USER);
                }
                next = run.end();
            }
            let facts = format_args!("of {piece} nothing is told from {next:#x} on");
            self.judge.require(SHOWN, next == piece.end(), facts)?;
        }
        Ok(all)
    }
    /// What `incore` says of page `n`.
    pub(super) fn in_core(&self, n: u64) -> InCore {
        let mut out = [0];
        let _ = self.space.incore(self.cx, self.range(n, 1), &mut out); // a hole says nothing
        InCore::from_bits_truncate(out[0])
    }
    pub(super) fn locked(&self) -> Vec<bool> {
        (0..PAGES).map(|n| self.in_core(n).contains(InCore::LOCKED)).collect()
    }
    /// The segments, in pages of the place.
    pub(super) fn shape(&self) -> Vec<(u64, u64)> {
        let whole = self.range(0, PAGES);
        let segs = self.space.segs(self.cx);
        let mine = segs.iter().filter_map(|seg| seg.range().intersect(whole));
        let first = whole.start().get();
        let page = |addr: u64| (addr - first) / PAGE_SIZE;
        mine.map(|r| (page(r.start().get()), page(r.end()))).collect()
    }
    pub(super) fn look(&self) -> Result<Look, Breach> {
        let state = self.space.state();
        Ok(Look {
            shape: self.shape(),
            rights: self.rights()?,
            locked: self.locked(),
            sizes: (state.size(), state.resv_size(), state.locked()),
        })
    }
    /// Everything shown is as it was.
    pub(super) fn unchanged(
        &self,
        clause: &'static str,
        after: &str,
        was: &Look,
    ) -> Result<(), Breach> {
        let now = self.look()?;
        let what = format!("after {after} the space");
        self.judge.same(clause, format_args!("{what}"), &now, was)
    }
}
