//! What every [`Mmu`] must do, as checks that anybody can run over their own; see [`page_db::contract`] for how such suites are built.
//!
//! A backend is asked through a hat of the suite's own over it, because that is how it is driven, and what it remembers is seen by what a program can reach
//! through it ([`UserAccess`]). What it may forget at any time is never asked for: an access that should succeed is made again once after a fault.
//!
//! The suite of the hat's own trait is `addr_space::contract::hat`; it needs a good backend, and this one a good hat.

#[cfg(all(feature = "std", not(shuttle)))]
mod threads;

use crate::above::DENSE;
use crate::access::{Bytes, UserAccess};
use crate::error::SetupError;
use crate::geometry::{KERNEL_WINDOW, TOP, index};
use crate::mmu::{CpuSet, Mmu, SpaceId};
use crate::provider::HatX86;
use crate::pte::{PteBits, X86Pte};
use crate::tlb::FLUSH_ENTRIES;
use crate::walker::Mode;
use addr_space::{Hat, HatProvider, LoadFlags, UnloadFlags};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::contract::{Breach, Judge};
use page_db::{
    CpuId, Cx, LockedPage, PAGE_SIZE, PageDb, PageId, Prot, RefMod, Reserve, SyncMode, VirtAddr,
    VirtRange,
};

const CAPS: &str = "caps() and cpu_count() say the same at every call, and there is a processor";
const SERVES: &str = "serves() accepts the memory it was made for, before it has a hat";
const REACH: &str =
    "a processor reaches what is mapped in the space it runs in, and the bytes there";
const APART: &str = "a processor uses no translation of a space that it does not run in";
const LEFT: &str = "activate(None) leaves the user's half behind";
const RUNNING: &str = "running_on() is the processors that run in a space";
const REMEMBERED: &str =
    "remembered_on() has every processor that was in a space, and all for the kernel";
const FLUSH: &str = "after flush() no processor uses an entry as it was";
const GAINS: &str = "what an entry gains is used, after a fault at most";
const MARKS: &str = "an access marks its entry, again after the mark was taken and flushed";
const DEAD: &str =
    "of a destroyed space nothing is left: nobody is in it, gets in, or remembers it";
const TABLES: &str = "retire_tables() gives every frame back, at once or when it is asked again";
const KERNEL: &str = "the kernel's translations are part of every space, and no user's";
const QUIET: &str = "nothing is remembered wrongly when nothing runs";
const ROOM: &str = "the case has memory for the suite";

/// Where the suite maps.
const AT: u64 = 0x40_0000;

/// A backend under test.
#[derive(Clone)]
pub struct MmuCase<'a> {
    /// A context of the machine.
    pub cx: &'a Cx,
    /// Pages of the memory that the backend looks at, 128 of them free; it has no hat, and the suite gives it one for good.
    pub db: &'a Arc<PageDb>,
    /// What the breach calls it.
    pub name: &'a str,
    /// The backend.
    pub mmu: Arc<dyn Mmu>,
    /// Makes accesses on its processors.
    pub user: &'a dyn UserAccess,
}

impl fmt::Debug for MmuCase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmuCase").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Bench<'a> {
    judge: Judge,
    c: MmuCase<'a>,
    hx: Arc<HatX86>,
    /// The processors that are tried: the first few, and the last.
    cpus: Vec<CpuId>,
}

fn va(page: u64) -> VirtAddr {
    VirtAddr::new(AT + page * PAGE_SIZE).unwrap_or_default()
}
fn pages(first: u64, count: u64) -> VirtRange {
    VirtRange::exact(va(first).get(), count * PAGE_SIZE).unwrap_or(VirtRange::page_of(va(first)))
}

impl Bench<'_> {
    fn room<T, E: fmt::Debug>(&self, got: Result<T, E>) -> Result<T, Breach> {
        got.map_err(|e| self.judge.breach(ROOM, format_args!("{e:?}")))
    }
    fn hat(&self) -> Result<Arc<dyn Hat>, Breach> {
        self.room(self.hx.alloc(self.c.cx))
    }
    /// A page that begins with `byte`.
    fn page(&self, byte: u8) -> Result<PageId, Breach> {
        let page = self.room(self.c.db.alloc(self.c.cx, 0, Reserve::Push))?;
        self.c.db.mem().zero(page.pfn());
        self.c.db.mem().write(page.pfn(), 0, &[byte]);
        Ok(page.id())
    }
    fn give_back(&self, page: PageId) {
        let page = self.c.db.lock_excl(self.c.cx, page);
        self.c.db.destroy(self.c.cx, page);
    }
    fn map(&self, hat: &dyn Hat, at: VirtAddr, page: PageId, prot: Prot) -> Result<(), Breach> {
        let page = self.c.db.lock_shared(self.c.cx, page);
        self.room(hat.memload(self.c.cx, at, &page, prot, LoadFlags::REMAP, None)).map(drop)
    }
    fn unload(&self, hat: &dyn Hat, range: VirtRange) {
        hat.unload(self.c.cx, range, UnloadFlags::empty());
    }
    fn run(&self, cpu: CpuId, hat: Option<&dyn Hat>) {
        self.c.mmu.activate(self.c.cx, cpu, hat.map(|hat| SpaceId(hat.id())));
    }
    fn run_all(&self, hat: Option<&dyn Hat>) {
        self.cpus.iter().for_each(|cpu| self.run(*cpu, hat));
    }
    fn end(&self, hat: &dyn Hat) {
        hat.free_start(self.c.cx);
        hat.free_end(self.c.cx);
    }
    /// What is found at `at`, if the processor gets there at the first try.
    fn looks(&self, cpu: CpuId, mode: Mode, at: VirtAddr) -> Option<u8> {
        let mut byte = [0];
        let done = self.c.user.access(self.c.cx, cpu, mode, at, Bytes::Load(&mut byte));
        done.ok().map(|()| byte[0])
    }
    fn stores(&self, cpu: CpuId, at: VirtAddr, byte: u8) -> bool {
        self.c.user.store(self.c.cx, cpu, at, &[byte]).is_ok()
    }
    /// Every processor finds `due` at a page, at the second try at least.
    fn all_find(&self, clause: &'static str, page: u64, due: u8) -> Result<(), Breach> {
        self.cpus.iter().try_for_each(|cpu| self.finds(clause, *cpu, page, due))
    }
    fn finds(&self, clause: &'static str, cpu: CpuId, page: u64, due: u8) -> Result<(), Breach> {
        let look = || self.looks(cpu, Mode::User, va(page));
        let seen = look().or_else(look);
        self.judge.same(clause, format_args!("page {page} on cpu {}", cpu.0), seen, Some(due))
    }
    /// No processor gets to a page.
    fn none_find(&self, clause: &'static str, page: u64) -> Result<(), Breach> {
        self.cpus.iter().try_for_each(|cpu| {
            let seen = self.looks(*cpu, Mode::User, va(page));
            self.judge.same(clause, format_args!("page {page} on cpu {}", cpu.0), seen, None)
        })
    }
    /// Every processor can store to a page, at the second try at least, or none can.
    fn all_store(&self, clause: &'static str, page: u64, can: bool) -> Result<(), Breach> {
        self.cpus.iter().try_for_each(|cpu| {
            let store = || self.stores(*cpu, va(page), page as u8);
            let done = store() || (can && store());
            self.judge.same(clause, format_args!("a store to {page} on cpu {}", cpu.0), done, can)
        })
    }
    /// Whether a processor is in the set that `fill` fills.
    fn is_in(&self, cpu: CpuId, fill: &dyn Fn(&mut CpuSet)) -> bool {
        let mut set = CpuSet::of_group(cpu.0 / CpuSet::GROUP);
        fill(&mut set);
        set.contains(cpu)
    }
    fn runs(&self, cpu: CpuId, hat: &dyn Hat, due: bool) -> Result<(), Breach> {
        let id = SpaceId(hat.id());
        let seen = self.is_in(cpu, &|set| self.c.mmu.running_on(self.c.cx, id, set));
        self.judge.same(RUNNING, format_args!("cpu {} in space {id}", cpu.0), seen, due)
    }
    fn is_remembered(&self, cpu: CpuId, id: SpaceId) -> bool {
        self.is_in(cpu, &|set| self.c.mmu.remembered_on(self.c.cx, id, set))
    }
    /// Referenced and modified as harvested, and taken away.
    fn harvest(&self, page: PageId) -> RefMod {
        let page = self.c.db.lock_excl(self.c.cx, page);
        let bits = self.c.db.sync_ref_mod(self.c.cx, &page, SyncMode::ZeroRm);
        page.page().clear_ref_mod(RefMod::all());
        bits & (RefMod::REF | RefMod::MOD)
    }
    fn is_quiet(&self) -> Result<(), Breach> {
        let wrong = self.c.mmu.remembered_wrongly(self.c.cx);
        self.judge.same(QUIET, format_args!("what it says"), wrong, None)?;
        let sound = self.hx.verify(self.c.cx);
        self.judge.same(QUIET, format_args!("the tables"), sound, Ok(()))?;
        self.judge.holds_nothing(self.c.cx, "all of it")
    }
    /// All frames are free again that were before.
    fn gave_back(&self, before: u64) -> Result<(), Breach> {
        self.hx.reap_tables(self.c.cx);
        let free = self.c.db.freemem();
        self.judge.same(TABLES, format_args!("the number of free frames"), free, before)
    }
}

/// The contract of [`Mmu`]: processors reach what the tables say in the space they run in, forget it everywhere when they are told, keep spaces apart, leave one
/// that ends, and give the frames of tables back. With two processors at least it sees whether all of them are told.
///
/// # Errors
/// The first clause that does not hold.
pub fn check_mmu(case: &MmuCase<'_>) -> Result<(), Breach> {
    let judge = Judge::new("Mmu", case.name);
    let (caps, count) = (case.mmu.caps(), case.mmu.cpu_count());
    let again = (case.mmu.caps(), case.mmu.cpu_count());
    judge.same(CAPS, format_args!("the second answer"), again, (caps, count))?;
    judge.require(CAPS, count > 0, format_args!("there is no processor"))?;
    let hx = HatX86::new(case.cx, Arc::clone(case.db), Arc::clone(&case.mmu)).map_err(|e| {
        let clause = if e == SetupError::ForeignMmu { SERVES } else { ROOM };
        judge.breach(clause, format_args!("{e}"))
    })?;
    let mut cpus: Vec<CpuId> = (0..count.min(3)).chain([count - 1]).map(CpuId).collect();
    cpus.dedup();
    let b = Bench { judge, c: case.clone(), hx, cpus };
    spaces(&b)?;
    for count in [1, 3, FLUSH_ENTRIES as u64 + 8] {
        flushes(&b, count)?;
    }
    from_above(&b)?;
    marks(&b)?;
    kernel(&b)?;
    an_end(&b)?;
    stolen_tables(&b)?;
    unlinked(&b)?;
    #[cfg(all(feature = "std", not(shuttle)))]
    threads::under_way(&b)?;
    #[cfg(all(feature = "std", not(shuttle)))]
    threads::entering(&b)?;
    b.run_all(None);
    b.is_quiet()
}

/// [`check_mmu`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn mmu(case: &MmuCase<'_>) {
    Breach::raise(check_mmu(case));
}

fn spaces(b: &Bench<'_>) -> Result<(), Breach> {
    let before = b.c.db.freemem();
    let (one, two) = (b.hat()?, b.hat()?);
    let (first, second) = (b.page(1)?, b.page(2)?);
    b.map(&*one, va(0), first, Prot::RW)?;
    b.map(&*two, va(0), second, Prot::RW)?;
    b.map(&*two, va(1), second, Prot::READ)?;
    for cpu in b.cpus.iter().copied() {
        b.run(cpu, Some(&*one));
        b.finds(REACH, cpu, 0, 1)?;
        b.runs(cpu, &*one, true)?;
        b.runs(cpu, &*two, false)?;
        b.run(cpu, Some(&*two));
        b.finds(APART, cpu, 0, 2)?;
        b.finds(REACH, cpu, 1, 2)?;
        b.runs(cpu, &*one, false)?;
        b.run(cpu, Some(&*one));
        b.finds(APART, cpu, 0, 1)?;
        let seen = b.looks(cpu, Mode::User, va(1));
        b.judge.same(APART, format_args!("the other one's page on cpu {}", cpu.0), seen, None)?;
        b.run(cpu, None);
        let seen = b.looks(cpu, Mode::User, va(0));
        b.judge.same(LEFT, format_args!("a page on cpu {}", cpu.0), seen, None)?;
        b.runs(cpu, &*one, false)?;
        for id in [SpaceId(one.id()), SpaceId(two.id()), SpaceId::KERNEL] {
            let facts = format_args!("cpu {} is not among those of space {id}", cpu.0);
            b.judge.require(REMEMBERED, b.is_remembered(cpu, id), facts)?;
        }
    }
    [one, two].iter().for_each(|hat| b.end(&**hat));
    [first, second].into_iter().for_each(|page| b.give_back(page));
    b.gave_back(before)
}

/// Entries that lose something, `count` at a time: named one by one, or as a space.
fn flushes(b: &Bench<'_>, count: u64) -> Result<(), Breach> {
    let (hat, page, other) = (b.hat()?, b.page(7)?, b.page(8)?);
    (0..count).try_for_each(|n| b.map(&*hat, va(n), page, Prot::RW))?;
    let all = pages(0, count);
    b.run_all(Some(&*hat));
    (0..count).try_for_each(|n| b.all_store(REACH, n, true))?;
    hat.clear_write(b.c.cx, all);
    (0..count).try_for_each(|n| b.all_store(FLUSH, n, false))?;
    hat.chg_prot(b.c.cx, all, Prot::RW);
    (0..count).try_for_each(|n| b.all_store(GAINS, n, true))?;
    // Another frame in the place of the first.
    b.map(&*hat, va(0), other, Prot::READ)?;
    b.all_find(FLUSH, 0, 8)?;
    b.all_store(FLUSH, 0, false)?;
    // A processor that is elsewhere, or in no user's space, when it is told.
    let elsewhere = b.hat()?;
    for (n, cpu) in b.cpus.iter().enumerate() {
        b.run(*cpu, if n % 2 == 0 { None } else { Some(&*elsewhere) });
    }
    b.unload(&*hat, pages(count - 1, 1));
    b.run_all(Some(&*hat));
    b.none_find(FLUSH, count - 1)?;
    if count > 1 {
        b.all_find(REACH, 0, 8)?;
    }
    b.unload(&*hat, all);
    (0..count).try_for_each(|n| b.none_find(FLUSH, n))?;
    // By page, in whatever space.
    b.map(&*hat, va(0), page, Prot::RW)?;
    b.map(&*elsewhere, va(2), page, Prot::RW)?;
    b.all_store(REACH, 0, true)?;
    b.run_all(Some(&*elsewhere));
    b.all_store(REACH, 2, true)?;
    b.give_back(page); // which unloads it
    b.none_find(FLUSH, 2)?;
    b.run_all(Some(&*hat));
    b.none_find(FLUSH, 0)?;
    [&hat, &elsewhere].iter().for_each(|hat| b.end(&***hat));
    b.give_back(other);
    b.is_quiet()
}

/// An entry above loses the right to write for all below it.
fn from_above(b: &Bench<'_>) -> Result<(), Breach> {
    let (hat, page) = (b.hat()?, b.page(9)?);
    let count = u64::from(DENSE) + 2;
    (0..count).try_for_each(|n| b.map(&*hat, va(n), page, Prot::RW))?;
    b.run_all(Some(&*hat));
    for n in [0, 1, count - 1] {
        b.all_store(REACH, n, true)?;
    }
    hat.clear_write(b.c.cx, pages(0, 512));
    for n in [0, 1, count - 1] {
        b.all_store(FLUSH, n, false)?;
    }
    b.end(&*hat);
    b.give_back(page);
    b.is_quiet()
}

fn marks(b: &Bench<'_>) -> Result<(), Breach> {
    let (hat, page) = (b.hat()?, b.page(3)?);
    b.map(&*hat, va(0), page, Prot::RW)?;
    b.run_all(Some(&*hat));
    b.harvest(page);
    for round in 0..2 {
        for cpu in b.cpus.iter().copied() {
            b.finds(REACH, cpu, 0, 3)?;
            let what = format_args!("what a load on cpu {} marked, round {round}", cpu.0);
            b.judge.same(MARKS, what, b.harvest(page), RefMod::REF)?;
            let store = || b.stores(cpu, va(0), 3);
            b.judge.require(
                REACH,
                store() || store(),
                format_args!("no store on cpu {}", cpu.0),
            )?;
            let what = format_args!("what a store on cpu {} marked, round {round}", cpu.0);
            b.judge.same(MARKS, what, b.harvest(page), RefMod::REF | RefMod::MOD)?;
        }
    }
    b.end(&*hat);
    b.give_back(page);
    b.is_quiet()
}

fn kernel(b: &Bench<'_>) -> Result<(), Breach> {
    let (kernel, hat, page) = (b.hx.kernel(), b.hat()?, b.page(5)?);
    let (at, mode) = (KERNEL_WINDOW.start(), Mode::Supervisor { write_protect: true });
    let range = VirtRange::page_of(at);
    for round in 0..2 {
        b.map(&*kernel, at, page, Prot::RW)?;
        for cpu in b.cpus.iter().copied() {
            for space in [None, Some(&*hat)] {
                b.run(cpu, space);
                let user = b.looks(cpu, Mode::User, at);
                b.judge.same(KERNEL, format_args!("the kernel's page for a user"), user, None)?;
                // Last, so that it is remembered.
                let look = || b.looks(cpu, mode, at);
                let what = format_args!("the kernel's page on cpu {}, round {round}", cpu.0);
                b.judge.same(KERNEL, what, look().or_else(look), Some(5))?;
            }
        }
        b.unload(&*kernel, range);
        for cpu in b.cpus.iter().copied() {
            let seen = b.looks(cpu, mode, at);
            b.judge.same(FLUSH, format_args!("the kernel's page on cpu {}", cpu.0), seen, None)?;
        }
    }
    b.end(&*hat);
    b.give_back(page);
    b.is_quiet()
}

/// A space ends under its processors.
fn an_end(b: &Bench<'_>) -> Result<(), Breach> {
    let before = b.c.db.freemem();
    let (hat, page, next) = (b.hat()?, b.page(1)?, b.page(2)?);
    b.map(&*hat, va(0), page, Prot::RW)?;
    b.run_all(Some(&*hat));
    b.all_store(REACH, 0, true)?;
    hat.free_start(b.c.cx);
    let id = SpaceId(hat.id());
    let gone = || {
        for cpu in b.cpus.iter().copied() {
            let runs = b.is_in(cpu, &|set| b.c.mmu.running_on(b.c.cx, id, set));
            b.judge.same(DEAD, format_args!("cpu {} in it", cpu.0), runs, false)?;
            let facts = format_args!("cpu {} is said to remember it", cpu.0);
            b.judge.require(DEAD, !b.is_remembered(cpu, id), facts)?;
        }
        b.none_find(DEAD, 0)
    };
    gone()?;
    b.run_all(Some(&*hat));
    gone()?;
    hat.free_end(b.c.cx);
    b.run_all(Some(&*hat));
    gone()?;
    // Whoever is there next has a number and a page of his own.
    let other = b.hat()?;
    b.map(&*other, va(0), next, Prot::READ)?;
    b.run_all(Some(&*other));
    b.all_find(REACH, 0, 2)?;
    b.end(&*other);
    [page, next].into_iter().for_each(|page| b.give_back(page));
    b.gave_back(before)?;
    b.is_quiet()
}

fn stolen_tables(b: &Bench<'_>) -> Result<(), Breach> {
    let before = b.c.db.freemem();
    let (hat, page) = (b.hat()?, b.page(4)?);
    for round in 0..2 {
        b.map(&*hat, va(0), page, Prot::RW)?;
        b.run_all(Some(&*hat));
        b.all_find(REACH, 0, 4)?;
        let taken = b.hx.steal_tables(b.c.cx, 1);
        b.judge.require(ROOM, taken > 0, format_args!("no table was taken, round {round}"))?;
        b.none_find(FLUSH, 0)?;
    }
    b.end(&*hat);
    b.give_back(page);
    b.gave_back(before)?;
    b.is_quiet()
}

/// The tables above a page go with its last entry, and processors remember the way to them, too. They are somebody's frames then, whose bytes are no entries;
/// here they look like some.
fn unlinked(b: &Bench<'_>) -> Result<(), Breach> {
    let (before, db, cx) = (b.c.db.freemem(), b.c.db, b.c.cx);
    let (hat, page, other) = (b.hat()?, b.page(1)?, b.page(2)?);
    b.map(&*hat, va(0), page, Prot::RW)?;
    b.run_all(Some(&*hat));
    b.all_find(REACH, 0, 1)?;
    let tables = b.hx.dump_tables(cx, hat.id()).map(|tree| tree.tables).unwrap_or_default();
    b.unload(&*hat, pages(0, 1));
    b.hx.reap_tables(cx);
    let mut below = X86Pte::new(db.pfn(other), PteBits::P | PteBits::W | PteBits::U);
    let mut taken = Vec::new();
    // From the leaf up; a frame that the backend keeps is nobody's yet, and stays as it is.
    for table in tables.iter().rev().filter(|table| table.level != TOP) {
        if let Ok(frame) = db.alloc_at(cx, table.pfn, Reserve::Push) {
            db.mem().zero(table.pfn);
            let cell = db.mem().u64_at(table.pfn, index(AT, table.level));
            cell.store(below.0, core::sync::atomic::Ordering::SeqCst);
            taken.push(frame.id());
        }
        below = X86Pte::table(table.pfn, true);
    }
    let none = b.none_find(FLUSH, 0);
    for frame in taken {
        db.mem().zero(db.pfn(frame));
        b.give_back(frame);
    }
    none?;
    b.end(&*hat);
    [page, other].into_iter().for_each(|page| b.give_back(page));
    b.gave_back(before)?;
    b.is_quiet()
}
