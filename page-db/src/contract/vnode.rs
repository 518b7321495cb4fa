//! The contract of [`Vnode`].

mod nowait;

use super::{Breach, Judge};
use crate::access::Access;
use crate::cx::Cx;
use crate::db::{Claim, PageDb, Reserve};
use crate::error::VnodeError;
use crate::mappings::RefMod;
use crate::page::PageId;
use crate::selock::LockedPage as _;
use crate::units::{FileOffset, PAGE_MASK, PAGE_SIZE, Pfn};
use crate::vnode::{GotPage, Identity, PutFlags, Vnode};
use alloc::vec::Vec;
use core::fmt;

const ROOM: &str = "three places to try";
const NAME: &str = "id, name and size stay while nobody changes the vnode";
const GETS: &str = "get_page returns the page of the offset asked for";
const ONE: &str = "get_page finds the page that is in memory";
const ALLOWS: &str = "the rights returned allow the access asked for";
const NO_LOCK: &str = "no page stays locked but the one handed out";
const NO_IO: &str = "a page handed out is not on its way";
const END: &str = "pages at or past the size cannot be got";
const CLEAN: &str = "put_page writes the dirty pages of the range";
const BESIDE: &str = "put_page leaves pages outside its range alone";
const WHOLE: &str = "a length of 0 means the whole vnode";
const KEEPS: &str = "put_page without FREE and INVAL leaves pages in memory";
const INVAL: &str = "INVAL: the pages lose their identity";
const FREE: &str = "FREE: clean pages that nobody uses are freed";
const BACK: &str = "what was stored comes back";
const READ: &str = "get_page says when a device was read";
const TRUNC: &str = "TRUNC: contents are dropped, not written";
const CLAIMED: &str = "pages locked in memory stay";
const FORCE: &str = "FORCE: act even on pages locked in memory, or say that they are locked";
const BAD_READ: &str = "a failed read is an error, and no half-filled page stays named";
const BAD_WRITE: &str = "a page whose write failed stays dirty and resident";
const GOES_ON: &str = "after a failed write the walk goes on";
const NO_FRAME: &str = "without a frame get_page answers NoMemory and leaves nothing";
const CREATE: &str =
    "create_page returns a named page, exclusive and io-locked, or is not supported";
const AHEAD: &str = "read_ahead is a hint: the page is as if nobody had asked";
const TYPED: &str = "what the vnode cannot do it says with a typed error";
#[cfg(all(feature = "std", not(shuttle)))]
const TOGETHER: &str =
    "contents are complete, and no store is lost, when several threads get and put";

/// Which transfer is to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// From the backing store.
    Read,
    /// To it.
    Write,
}

/// A vnode to be judged, and where. The suite needs some sixteen free frames, and leaves the places with bytes of its own.
#[derive(Clone, Copy)]
pub struct VnodeCase<'a> {
    /// Who is running.
    pub cx: &'a Cx,
    /// The pages.
    pub db: &'a PageDb,
    /// The vnode.
    pub vnode: &'a dyn Vnode,
    /// Three or more places that have a page: page-aligned, ascending. Nobody else uses them.
    pub places: &'a [FileOffset],
    /// Whether pages can be stored to, put away, and come back.
    pub stores: bool,
    /// Makes the next transfer of a kind fail once, if the backing store can be made to.
    pub fail: Option<&'a dyn Fn(Transfer)>,
}

impl fmt::Debug for VnodeCase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VnodeCase")
            .field("vnode", &self.vnode)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// The contract of [`Vnode`]: pages by name, life cycle through get and put, failures, memory running out, several threads.
///
/// # Errors
/// The first clause that does not hold.
pub fn check_vnode(case: &VnodeCase<'_>) -> Result<(), Breach> {
    let b = &Bench { c: *case, judge: Judge::new("Vnode", case.vnode.name()) };
    let name = (case.vnode.id(), case.vnode.name(), case.vnode.size());
    b.judge.require(ROOM, case.places.len() > 2, format_args!("{case:?}"))?;
    gets(b)?;
    past_the_end(b)?;
    if case.stores {
        puts(b)?;
        comes_back(b)?;
        drops(b)?;
        locked_in_memory(b)?;
        creates(b)?;
        reads_ahead(b)?;
        fails(b)?;
        nowait::unheld(b)?;
        #[cfg(all(feature = "std", not(shuttle)))]
        nowait::held(b)?;
        without_frames(b)?;
        #[cfg(all(feature = "std", not(shuttle)))]
        together(b)?;
        fails_to_read(b)?;
    } else {
        let put =
            case.vnode.put_page(case.cx, case.db, case.places[0], PAGE_SIZE, PutFlags::empty());
        let typed = matches!(put, Ok(()) | Err(VnodeError::NotSupported { .. }));
        b.judge.require(TYPED, typed, format_args!("put_page answered {put:?}"))?;
    }
    let now = (case.vnode.id(), case.vnode.name(), case.vnode.size());
    b.judge.same(NAME, format_args!("the vnode now"), now, name)
}

/// [`check_vnode`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn vnode(case: &VnodeCase<'_>) {
    Breach::raise(check_vnode(case));
}

struct Bench<'a> {
    c: VnodeCase<'a>,
    judge: Judge,
}

impl<'a> Bench<'a> {
    fn name(&self, at: FileOffset) -> Identity {
        Identity::new(self.c.vnode.id(), at)
    }
    fn resident(&self, at: FileOffset) -> Option<PageId> {
        self.c.db.exists(self.c.cx, self.name(at))
    }
    fn got(&self, at: FileOffset, access: Access) -> Result<GotPage<'a>, Breach> {
        let got = self.c.vnode.get_page(self.c.cx, self.c.db, at, access);
        let got = got.map_err(|e| {
            self.judge.breach(GETS, format_args!("{access:?} of the page at {at} failed: {e}"))
        })?;
        let named = got.page.identity();
        self.judge.same(
            GETS,
            format_args!("the name of the page got"),
            named,
            Some(self.name(at)),
        )?;
        let io = self.c.db.is_io_locked(got.page.id());
        self.judge.require(NO_IO, !io, format_args!("the page at {at} is io-locked"))?;
        let facts = format_args!("{access:?} at {at} came with {}", got.prot);
        self.judge.require(ALLOWS, got.prot.allows(access), facts)?;
        Ok(got)
    }
    /// Stores `tag` into both ends of the page, as a user would.
    fn store(&self, at: FileOffset, tag: u64) -> Result<(), Breach> {
        let got = self.got(at, Access::Write)?;
        put_tag(self.c.db, got.page.pfn(), tag);
        got.page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
        Ok(())
    }
    /// Loads it; says whether a device was read.
    fn holds(&self, clause: &'static str, at: FileOffset, tag: u64) -> Result<bool, Breach> {
        let got = self.got(at, Access::Read)?;
        let has = tags(self.c.db, got.page.pfn());
        self.judge.same(clause, format_args!("the page at {at}"), has, [tag; 2])?;
        Ok(got.read)
    }
    fn put(&self, at: FileOffset, len: u64, flags: PutFlags) -> Result<(), VnodeError> {
        let (cx, db) = (self.c.cx, self.c.db);
        self.c.vnode.put_page(cx, db, at, len, flags).and(self.c.vnode.flush(cx, db))
    }
    fn puts(&self, at: FileOffset, len: u64, flags: PutFlags) -> Result<(), Breach> {
        let done = self.put(at, len, flags);
        let what = format_args!("put_page at {at}, {len:#x} bytes, {flags:?}");
        self.judge.same(CLEAN, what, done, Ok(()))?;
        self.judge.holds_nothing(self.c.cx, "put_page")?;
        self.unlocked("put_page")
    }
    /// Takes every page out of memory.
    fn empties(&self) -> Result<(), Breach> {
        self.puts(FileOffset(0), 0, PutFlags::INVAL)?;
        let left = self.c.places.iter().find(|at| self.resident(**at).is_some());
        self.judge.require(INVAL, left.is_none(), format_args!("{left:?} is still in memory"))
    }
    fn is_dirty(&self, at: FileOffset) -> Option<bool> {
        Some(self.c.db.page(self.resident(at)?).ref_mod().contains(RefMod::MOD))
    }
    fn dirty(&self) -> Vec<Option<bool>> {
        self.c.places.iter().map(|at| self.is_dirty(*at)).collect()
    }
    /// No page of a vnode that stores is locked now.
    fn unlocked(&self, after: &str) -> Result<(), Breach> {
        for (at, page) in self.c.places.iter().filter_map(|at| Some((at, self.resident(*at)?))) {
            let lock = self.c.db.lock_state(page);
            let free = !lock.excl && (lock.shared == 0 || !self.c.stores);
            let facts = format_args!("after {after} the page at {at} is locked: {lock:?}");
            self.judge.require(NO_LOCK, free, facts)?;
            let io = self.c.db.is_io_locked(page);
            self.judge.require(NO_LOCK, !io, format_args!("after {after} {at} is io-locked"))?;
        }
        Ok(())
    }
    /// Stores its number and `round` into every place.
    fn store_all(&self, round: u64) -> Result<(), Breach> {
        (1u64..).zip(self.c.places).try_for_each(|(i, at)| self.store(*at, i << 32 | round))
    }
    fn all_hold(&self, clause: &'static str, round: u64) -> Result<(), Breach> {
        let mut all = (1u64..).zip(self.c.places);
        all.try_for_each(|(i, at)| self.holds(clause, *at, i << 32 | round).map(drop))
    }
}

fn put_tag(db: &PageDb, pfn: Pfn, tag: u64) {
    db.mem().write(pfn, 0, &tag.to_le_bytes());
    db.mem().write(pfn, PAGE_SIZE as usize - 8, &tag.to_le_bytes());
}

fn tags(db: &PageDb, pfn: Pfn) -> [u64; 2] {
    [0, PAGE_SIZE as usize - 8].map(|at| {
        let mut bytes = [0; 8];
        db.mem().read(pfn, at, &mut bytes);
        u64::from_le_bytes(bytes)
    })
}

fn gets(b: &Bench<'_>) -> Result<(), Breach> {
    for at in b.c.places {
        let before = b.resident(*at).map_or(0, |p| b.c.db.lock_state(p).shared);
        let page = b.got(*at, Access::Read)?.page.id();
        b.judge.holds_nothing(b.c.cx, "get_page")?;
        let again = b.got(*at, Access::Read)?;
        b.judge.same(ONE, format_args!("the page got the second time"), again.page.id(), page)?;
        b.judge.same(READ, format_args!("a read of a page in memory"), again.read, false)?;
        drop(again);
        let after = b.c.db.lock_state(page).shared;
        b.judge.same(NO_LOCK, format_args!("the readers of the page at {at}"), after, before)?;
        b.judge.holds_nothing(b.c.cx, "get_page")?;
    }
    b.unlocked("get_page")
}

fn past_the_end(b: &Bench<'_>) -> Result<(), Breach> {
    let size = b.c.vnode.size();
    let Some(end) = size.checked_add(PAGE_MASK).map(|n| n & !PAGE_MASK) else { return Ok(()) };
    for at in [end, end.saturating_add(PAGE_SIZE), !PAGE_MASK].map(FileOffset) {
        for access in [Access::Read, Access::Write] {
            let got = b.c.vnode.get_page(b.c.cx, b.c.db, at, access).map(|got| got.page.id());
            let refused =
                matches!(got, Err(VnodeError::BeyondEof { vnode, .. }) if vnode == b.c.vnode.id());
            // A vnode that cannot be written may say that first.
            let refused = refused || (access == Access::Write && got.is_err());
            let facts = format_args!("{access:?} at {at} of {size:#x} bytes answered {got:?}");
            b.judge.require(END, refused, facts)?;
        }
        let _ = b.c.vnode.read_ahead(b.c.cx, b.c.db, at);
        b.judge.same(END, format_args!("the page named {at}"), b.resident(at), None)?;
        b.judge.holds_nothing(b.c.cx, "an attempt past the end")?;
    }
    Ok(())
}

fn puts(b: &Bench<'_>) -> Result<(), Breach> {
    let last = b.c.places.len() - 1;
    b.store_all(1)?;
    b.puts(b.c.places[0], PAGE_SIZE, PutFlags::empty())?;
    let dirty = b.dirty();
    b.judge.require(KEEPS, dirty[0].is_some(), format_args!("the page put is gone"))?;
    b.judge.require(CLEAN, dirty[0] == Some(false), format_args!("the page put is still dirty"))?;
    let beside = dirty[1..].iter().all(|d| *d == Some(true));
    b.judge.require(BESIDE, beside, format_args!("only the first was put: dirty are {dirty:?}"))?;
    b.puts(FileOffset(0), 0, PutFlags::empty())?;
    let dirty = b.dirty();
    let clean = dirty.iter().all(|d| *d == Some(false));
    b.judge.require(WHOLE, clean, format_args!("all were put: dirty are {dirty:?}"))?;
    b.all_hold(KEEPS, 1)?;
    b.puts(b.c.places[last], PAGE_SIZE, PutFlags::INVAL)?;
    let left = b.resident(b.c.places[last]);
    b.judge.require(INVAL, left.is_none(), format_args!("{left:?} is still in memory"))?;
    let others = b.c.places[..last].iter().all(|at| b.resident(*at).is_some());
    b.judge.require(BESIDE, others, format_args!("INVAL of the last took others along"))
}

fn comes_back(b: &Bench<'_>) -> Result<(), Breach> {
    b.store_all(2)?;
    b.empties()?;
    for (i, at) in (1u64..).zip(b.c.places) {
        let read = b.holds(BACK, *at, i << 32 | 2)?;
        b.judge.same(READ, format_args!("a read of {at}, which was not in memory"), read, true)?;
    }
    b.store_all(3)?;
    b.puts(FileOffset(0), 0, PutFlags::ASYNC | PutFlags::FREE)?;
    for at in b.c.places {
        let used = b.resident(*at).filter(|p| !b.c.db.page(*p).is_free());
        b.judge.require(FREE, used.is_none(), format_args!("the page at {at} is in use"))?;
    }
    b.all_hold(BACK, 3)?;
    b.unlocked("a push")
}

fn drops(b: &Bench<'_>) -> Result<(), Breach> {
    let at = b.c.places[1];
    b.store(at, 0xdead)?;
    b.puts(at, PAGE_SIZE, PutFlags::INVAL | PutFlags::TRUNC)?;
    let left = b.resident(at);
    b.judge.require(INVAL, left.is_none(), format_args!("{left:?} is still in memory"))?;
    let got = b.got(at, Access::Read)?;
    let has = tags(b.c.db, got.page.pfn());
    let gone = has.iter().all(|t| *t != 0xdead);
    b.judge.require(TRUNC, gone, format_args!("the page at {at} still holds {has:x?}"))
}

fn locked_in_memory(b: &Bench<'_>) -> Result<(), Breach> {
    let at = b.c.places[0];
    b.store(at, 4)?;
    let got = b.got(at, Access::Read)?;
    let page = got.page.id();
    let Ok(era) = b.c.db.claim(&got.page, Claim::Lck) else {
        return Ok(()); // the machine has no memory to lock
    };
    drop(got);
    // Said or not: the page may not go.
    let _ = b.put(at, PAGE_SIZE, PutFlags::INVAL);
    let now = b.resident(at);
    if now == Some(page) {
        b.c.db.unclaim(&b.c.db.lock_shared(b.c.cx, page), Claim::Lck, era);
    }
    b.judge.same(CLAIMED, format_args!("the claimed page after INVAL"), now, Some(page))?;
    b.judge.holds_nothing(b.c.cx, "INVAL of a claimed page")?;
    let got = b.got(at, Access::Read)?;
    let claimed = b.c.db.claim(&got.page, Claim::Lck);
    drop(got);
    if let Ok(era) = claimed {
        let flags = PutFlags::INVAL | PutFlags::FORCE;
        let put = b.put(at, PAGE_SIZE, flags);
        let left = b.resident(at);
        if let (Some(page), Err(VnodeError::Locked { .. })) = (left, put) {
            b.c.db.unclaim(&b.c.db.lock_shared(b.c.cx, page), Claim::Lck, era);
            return Ok(());
        }
        b.judge.same(FORCE, format_args!("a claimed page after FORCE ({put:?})"), left, None)?;
    }
    Ok(())
}

fn creates(b: &Bench<'_>) -> Result<(), Breach> {
    b.empties()?;
    let at = b.c.places[0];
    match b.c.vnode.create_page(b.c.cx, b.c.db, at) {
        Err(VnodeError::NotSupported { .. }) => Ok(()),
        Err(e) => Err(b.judge.breach(CREATE, format_args!("it answered: {e}"))),
        Ok(page) => {
            let (named, io) = (page.identity(), b.c.db.is_io_locked(page.id()));
            if io {
                page.end_io();
            }
            b.c.db.destroy(b.c.cx, page);
            b.judge.same(CREATE, format_args!("its name"), named, Some(b.name(at)))?;
            b.judge.same(CREATE, format_args!("the io lock"), io, true)
        }
    }
}

fn reads_ahead(b: &Bench<'_>) -> Result<(), Breach> {
    b.store_all(5)?;
    b.empties()?;
    for at in b.c.places {
        let done = b.c.vnode.read_ahead(b.c.cx, b.c.db, *at);
        b.judge.same(AHEAD, format_args!("read_ahead at {at}"), done, Ok(()))?;
        b.judge.holds_nothing(b.c.cx, "read_ahead")?;
    }
    b.all_hold(AHEAD, 5)?;
    b.unlocked("read_ahead")
}

fn fails(b: &Bench<'_>) -> Result<(), Breach> {
    let Some(fail) = b.c.fail else { return Ok(()) };
    b.store_all(6)?;
    fail(Transfer::Write);
    let put = b.put(FileOffset(0), 0, PutFlags::INVAL);
    b.judge.require(BAD_WRITE, put.is_err(), format_args!("put_page answered {put:?}"))?;
    b.judge.holds_nothing(b.c.cx, "a failed write")?;
    let dirty = b.dirty();
    let kept = dirty.contains(&Some(true));
    b.judge.require(BAD_WRITE, kept, format_args!("one write failed: dirty are {dirty:?}"))?;
    let others = dirty.iter().filter(|d| d.is_some()).count();
    b.judge.require(GOES_ON, others == 1, format_args!("one write failed: dirty are {dirty:?}"))?;
    b.empties()?;
    b.all_hold(BACK, 6)
}

/// The last scene: a pager may take a page it could not read for lost.
fn fails_to_read(b: &Bench<'_>) -> Result<(), Breach> {
    let Some(fail) = b.c.fail else { return Ok(()) };
    let at = b.c.places[1];
    b.store_all(7)?;
    b.empties()?;
    fail(Transfer::Read);
    for read in ["a read that failed", "one after it"] {
        let got = b.c.vnode.get_page(b.c.cx, b.c.db, at, Access::Read);
        let has = got.map(|got| tags(b.c.db, got.page.pfn()));
        let right = has == Ok([2 << 32 | 7; 2]) && read != "a read that failed";
        let facts = format_args!("{read} answered {has:x?}");
        b.judge.require(BAD_READ, right || has.is_err(), facts)?;
        if has.is_err() {
            b.judge.same(BAD_READ, format_args!("the page left"), b.resident(at), None)?;
        }
        b.judge.holds_nothing(b.c.cx, read)?;
    }
    b.holds(BACK, b.c.places[0], 1 << 32 | 7).map(drop)
}

fn without_frames(b: &Bench<'_>) -> Result<(), Breach> {
    b.empties()?;
    let (cx, db, at) = (b.c.cx, b.c.db, b.c.places[0]);
    let mut taken = Vec::new();
    while let Ok(page) = db.alloc(cx, 0, Reserve::Push) {
        taken.push(page.leak());
    }
    let got = b.c.vnode.get_page(cx, db, at, Access::Read).map(|got| got.page.id());
    let left = b.resident(at);
    for page in taken {
        db.destroy(cx, db.adopt_excl(cx, page));
    }
    let said = matches!(got, Err(VnodeError::NoMemory { .. }));
    b.judge.require(NO_FRAME, said, format_args!("get_page answered {got:?}"))?;
    b.judge.same(NO_FRAME, format_args!("the page left"), left, None)?;
    b.judge.holds_nothing(cx, "get_page without a frame")?;
    b.got(at, Access::Read).map(drop)
}

/// Each thread stores into a place of its own and puts it away again, while all look at all.
#[cfg(all(feature = "std", not(shuttle)))]
fn together(b: &Bench<'_>) -> Result<(), Breach> {
    const ROUNDS: u64 = 120;
    b.store_all(0)?;
    let (db, vnode, places, judge) = (b.c.db, b.c.vnode, b.c.places, &b.judge);
    let work = |me: usize| {
        let cpu = crate::CpuId(me as u16 % db.cpus());
        let id = crate::ThreadId(1 << 24 | me as u32);
        let cx = &Cx::new(db.counters(), cpu, id, alloc::sync::Arc::new(crate::SpinHooks));
        let failed = |e| judge.breach(TOGETHER, format_args!("thread {me}: {e}"));
        for round in 1..=ROUNDS {
            for (i, at) in places.iter().enumerate() {
                let got = vnode.get_page(cx, db, *at, Access::Write).map_err(failed)?;
                let has = tags(db, got.page.pfn());
                let owner = has.map(|t| t >> 32);
                let facts = format_args!("{at} holds {has:x?}, which only place {} has", i + 1);
                judge.require(TOGETHER, owner == [i as u64 + 1; 2], facts)?;
                if i == me {
                    let due = [(me as u64 + 1) << 32 | (round - 1); 2];
                    judge.same(TOGETHER, format_args!("{at} in round {round}"), has, due)?;
                    put_tag(db, got.page.pfn(), due[0] + 1);
                    got.page.page().set_ref_mod(RefMod::MOD | RefMod::REF);
                }
            }
            let kinds = [PutFlags::INVAL, PutFlags::FREE, PutFlags::ASYNC | PutFlags::FREE];
            let flags = kinds[(round as usize + me) % 3];
            vnode.put_page(cx, db, places[me], PAGE_SIZE, flags).map_err(failed)?;
            vnode.flush(cx, db).map_err(failed)?;
            judge.holds_nothing(cx, "get_page and put_page beside others")?;
        }
        Ok(())
    };
    judge.three_threads(work)?;
    b.unlocked("threads that got and put")
}
