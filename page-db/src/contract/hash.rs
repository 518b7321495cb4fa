//! The contract of [`PageHash`].

#[cfg(all(feature = "std", not(shuttle)))]
use super::steps::Steps;
use super::{Breach, Judge};
use crate::cx::{Cx, SpinHooks};
use crate::hash::PageHash;
use crate::page::{PageArray, PageId};
use crate::units::{CpuId, FileOffset, PAGE_SIZE, Pfn};
use crate::vnode::{Identity, VnodeId};
use crate::{Counters, ThreadId};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

const FRAMES: u64 = 256;

const ROOM: &str = "the host has memory for some hundred page structures";
const EXACT: &str = "a locked search is exact while nothing else runs";
const HINT: &str = "H1: a hint that the page confirms is the page filed";
#[cfg(all(feature = "std", not(shuttle)))]
const STAYS: &str = "H2: what is filed all the time is found by a hint or by the locked search";
const FIRST: &str = "H3: the first insert wins, and the loser learns who won";
#[cfg(all(feature = "std", not(shuttle)))]
const ONE_WINS: &str =
    "H3: of several inserts of one name at once exactly one wins, and the others learn who";
const LOSER: &str = "H3: the loser stays as it was";
const NAMED: &str = "H4: filing a page gives it the name";
const UNNAMED: &str = "H4: removing a page takes its name";
const MOVED: &str = "replace() files the new page in the place of the old one, and moves the name";
#[cfg(all(feature = "std", not(shuttle)))]
const ONE_OF_TWO: &str =
    "replace(): of the old page and the new one, a search finds one at any time";
const ALL: &str = "all() lists every entry once";
const LENGTHS: &str = "chain_lengths() counts the entries";
const RUN_IN: &str = "insert_run() files in order and stops at the first taken name";
const RUN_OUT: &str = "remove_run() removes what is named and passes over what is not";

fn context() -> Cx {
    Cx::new(&Counters::new(1), CpuId(0), ThreadId(0), Arc::new(SpinHooks))
}
fn name(vnode: u32, page: u64) -> Identity {
    Identity::new(VnodeId(vnode), FileOffset(page.wrapping_mul(PAGE_SIZE)))
}

/// A hash under test with pages to file.
struct Bench {
    judge: Judge,
    cx: Cx,
    hash: Box<dyn PageHash>,
    pages: PageArray,
    ids: Vec<PageId>,
}

impl Bench {
    fn new(make: &dyn Fn(u64) -> Box<dyn PageHash>) -> Result<Self, Breach> {
        let hash = make(FRAMES);
        let judge = Judge::new("PageHash", hash.name());
        let no_heap = || judge.breach(ROOM, format_args!("no page structures"));
        let pages = PageArray::new(Pfn(0), FRAMES).ok_or_else(no_heap)?;
        let ids = pages.ids().collect();
        Ok(Self { judge, cx: context(), hash, pages, ids })
    }
    fn insert(&self, id: Identity, page: PageId) -> Result<(), PageId> {
        self.hash.insert_unless_present(&self.cx, &self.pages, id, page)
    }
    /// Files `page` under the absent name `id`.
    fn files(&self, id: Identity, page: PageId) -> Result<(), Breach> {
        let filed = self.insert(id, page);
        self.judge.same(
            FIRST,
            format_args!("filing {page} under the free name {id}"),
            filed,
            Ok(()),
        )?;
        self.carries(NAMED, page, Some(id))?;
        self.judge.holds_nothing(&self.cx, "insert_unless_present()")
    }
    fn removes(&self, id: Identity, page: PageId) -> Result<(), Breach> {
        self.hash.remove(&self.cx, &self.pages, id, page);
        self.carries(UNNAMED, page, None)?;
        self.judge.holds_nothing(&self.cx, "remove()")
    }
    fn carries(
        &self,
        clause: &'static str,
        page: PageId,
        id: Option<Identity>,
    ) -> Result<(), Breach> {
        let has = self.pages.get(page).identity();
        self.judge.same(clause, format_args!("the name of {page}"), has, id)
    }
    fn finds(&self, id: Identity, page: Option<PageId>) -> Result<(), Breach> {
        let locked = self.hash.search_locked(&self.cx, &self.pages, id);
        self.judge.same(EXACT, format_args!("the page found under {id}"), locked, page)?;
        // A hint may still miss (a chain longer than a walk) or take one name for another, as long as the page says otherwise.
        let hint = self.hash.search_hint(&self.cx, &self.pages, id);
        let believed = hint.filter(|page| self.pages.get(*page).is(id));
        let facts = format_args!("the hint for {id} is {hint:?}, the page is {page:?}");
        self.judge.require(HINT, believed == page || believed.is_none(), facts)?;
        self.judge.holds_nothing(&self.cx, "a search")
    }
    fn lists(&self, mut due: Vec<(Identity, PageId)>) -> Result<(), Breach> {
        let mut all = self.hash.all(&self.cx, &self.pages);
        all.sort_unstable();
        due.sort_unstable();
        let missing = due.iter().find(|e| !all.contains(e));
        let facts = format_args!("{} listed, {} filed; missing: {missing:?}", all.len(), due.len());
        self.judge.require(ALL, all == due, facts)
    }
}

/// The contract of [`PageHash`]: exact when quiet, the first insert wins, identity and filing change together (H1 to H4), runs are as single
/// calls, and what stays filed is never missed while others move. `make` is told how many pages there are.
///
/// # Errors
/// The first clause that does not hold.
pub fn check_page_hash(make: impl Fn(u64) -> Box<dyn PageHash>) -> Result<(), Breach> {
    files_and_finds(&Bench::new(&make)?)?;
    the_first_insert_wins(&Bench::new(&make)?)?;
    names_at_the_edges(&Bench::new(&make)?)?;
    many_names(&Bench::new(&make)?)?;
    runs(&Bench::new(&make)?)?;
    replacements(&Bench::new(&make)?)?;
    #[cfg(all(feature = "std", not(shuttle)))]
    inserted_at_once(&Bench::new(&make)?)?;
    #[cfg(all(feature = "std", not(shuttle)))]
    under_threads(&Bench::new(&make)?)?;
    #[cfg(all(feature = "std", not(shuttle)))]
    replaced_under_threads(&Bench::new(&make)?)?;
    Ok(())
}

/// [`check_page_hash`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn page_hash(make: impl Fn(u64) -> Box<dyn PageHash>) {
    Breach::raise(check_page_hash(make));
}

fn files_and_finds(b: &Bench) -> Result<(), Breach> {
    let (id, page) = (name(1, 5), b.ids[0]);
    b.finds(id, None)?;
    b.files(id, page)?;
    b.finds(id, Some(page))?;
    b.finds(name(1, 6), None)?;
    b.finds(name(2, 5), None)?;
    b.removes(id, page)?;
    b.finds(id, None)?;
    // The same page under another name, and another page under the old one.
    b.files(name(9, 9), page)?;
    b.files(id, b.ids[1])?;
    b.finds(name(9, 9), Some(page))?;
    b.finds(id, Some(b.ids[1]))?;
    b.lists(alloc::vec![(id, b.ids[1]), (name(9, 9), page)])
}

fn the_first_insert_wins(b: &Bench) -> Result<(), Breach> {
    let (id, first, second) = (name(3, 0), b.ids[0], b.ids[1]);
    b.files(id, first)?;
    let told = b.insert(id, second);
    b.judge.same(FIRST, format_args!("filing {second} under {first}'s name"), told, Err(first))?;
    b.carries(LOSER, second, None)?;
    b.finds(id, Some(first))?;
    b.removes(id, first)?;
    b.files(id, second)?;
    b.finds(id, Some(second))
}

fn names_at_the_edges(b: &Bench) -> Result<(), Breach> {
    let last = u64::MAX / PAGE_SIZE;
    let names = [name(1, 0), name(1, last), name(u32::MAX, 0), name(u32::MAX, last)];
    let all = names.into_iter().zip(b.ids.iter().copied());
    all.clone().try_for_each(|(n, page)| b.files(n, page))?;
    all.clone().try_for_each(|(n, page)| b.finds(n, Some(page)))?;
    b.lists(all.collect())
}

/// Runs of neighbours in several vnodes, then every other one removed from the front of its chain, its middle or its end.
fn many_names(b: &Bench) -> Result<(), Breach> {
    let names: Vec<Identity> =
        (0..FRAMES).map(|i| name(1 + (i % 4) as u32, (i / 4) * 64 + i % 3)).collect();
    let all = || names.iter().copied().zip(b.ids.iter().copied()).enumerate();
    all().try_for_each(|(_, (n, page))| b.files(n, page))?;
    b.lists(all().map(|(_, e)| e).collect())?;
    let lengths = b.hash.chain_lengths(&b.cx, &b.pages);
    let counted: u64 = lengths.iter().zip(0u64..).map(|(chains, n)| chains * n).sum();
    // The last bucket counts everything longer, hence for less than it holds.
    let open = lengths.last().is_some_and(|longer| *longer > 0);
    let right = if open { counted <= FRAMES } else { counted == FRAMES };
    b.judge.require(
        LENGTHS,
        right,
        format_args!("{counted} by {lengths:?}, {FRAMES} are filed"),
    )?;
    all().filter(|(i, _)| i % 2 == 0).try_for_each(|(_, (n, page))| b.removes(n, page))?;
    all().try_for_each(|(i, (n, page))| b.finds(n, (i % 2 == 1).then_some(page)))?;
    b.lists(all().filter(|(i, _)| i % 2 == 1).map(|(_, e)| e).collect())
}

/// Several at a time, with a name that is taken, and a page that has none, in the middle.
fn runs(b: &Bench) -> Result<(), Breach> {
    let run: Vec<_> = (0..40).map(|i| (name(5, 100 + i), b.ids[i as usize])).collect();
    let (taken, holder) = (run[30].0, b.ids[99]);
    b.files(taken, holder)?;
    let done = b.hash.insert_run(&b.cx, &b.pages, &mut run.iter().copied());
    b.judge.same(RUN_IN, format_args!("a run whose place 30 is taken"), done, Err(30))?;
    for (i, (n, page)) in run.iter().enumerate() {
        let due = (i < 30).then_some(*n);
        let has = b.pages.get(*page).identity();
        b.judge.same(RUN_IN, format_args!("the name of place {i}"), has, due)?;
        b.finds(*n, if i == 30 { Some(holder) } else { (i < 30).then_some(*page) })?;
    }
    b.judge.holds_nothing(&b.cx, "insert_run()")?;
    // Place 35 has no name; what lies behind it must go all the same.
    let out = run[..20].iter().chain(&run[35..36]).chain(&run[20..30]).map(|(_, page)| *page);
    b.hash.remove_run(&b.cx, &b.pages, &mut { out });
    for (n, page) in &run[..30] {
        let has = b.pages.get(*page).identity();
        b.judge.same(RUN_OUT, format_args!("the name of {page}, removed by run"), has, None)?;
        b.finds(*n, None)?;
    }
    b.judge.holds_nothing(&b.cx, "remove_run()")?;
    b.lists(alloc::vec![(taken, holder)])
}

/// Three threads file a page of their own under one name, at the same moment; the winner removes it again.
#[cfg(all(feature = "std", not(shuttle)))]
fn inserted_at_once(b: &Bench) -> Result<(), Breach> {
    let (hash, pages, ids, judge) = (&*b.hash, &b.pages, &b.ids, &b.judge);
    use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
    // What each was told: who won, if it was not itself.
    let (steps, told) = (&Steps::default(), &[const { AtomicU32::new(0) }; 3]);
    let winner_of = |told: &AtomicU32| PageId::of_link(told.load(SeqCst));
    judge.three_threads(|me| {
        let (cx, _ended) = (context(), steps.ends(me));
        (0..200).try_for_each(|round| {
            let n = name(1, round * 3);
            steps.meet(me, round * 4 + 1);
            let mine = hash.insert_unless_present(&cx, pages, n, ids[me]);
            told[me].store(mine.err().map_or(0, PageId::link), SeqCst);
            steps.meet(me, round * 4 + 2);
            let told = told.each_ref().map(winner_of);
            let winner = told.iter().position(Option::is_none).map_or(ids[0], |won| ids[won]);
            let losers = told.iter().filter(|one| **one == Some(winner)).count();
            let facts = format_args!("of {:?} under {n}, they were told of {told:?}", &ids[..3]);
            judge.require(ONE_WINS, losers == 2, facts)?;
            let found = hash.search_locked(&cx, pages, n);
            judge.same(ONE_WINS, format_args!("the page found under {n}"), found, Some(winner))?;
            let due = (ids[me] == winner).then_some(n);
            let has = pages.get(ids[me]).identity();
            judge.same(ONE_WINS, format_args!("the name of {}", ids[me]), has, due)?;
            judge.holds_nothing(&cx, "insert_unless_present() beside others")?;
            steps.meet(me, round * 4 + 3);
            if mine.is_ok() {
                hash.remove(&cx, pages, n, ids[me]);
            }
            steps.meet(me, round * 4 + 4);
            Ok(())
        })
    })?;
    b.lists(Vec::new())
}

/// At the front of a chain, in its middle and at its end, each place twice.
fn replacements(b: &Bench) -> Result<(), Breach> {
    let names: Vec<Identity> = (0..FRAMES / 2).map(|i| name(1 + (i % 3) as u32, i * 64)).collect();
    let (first, second) = b.ids.split_at(names.len());
    for (n, page) in names.iter().zip(first) {
        b.files(*n, *page)?;
    }
    for (from, to) in [(first, second), (second, first)] {
        for (n, (from, to)) in names.iter().zip(from.iter().zip(to)) {
            b.hash.replace(&b.cx, &b.pages, *n, *from, *to);
            b.carries(MOVED, *from, None)?;
            b.carries(MOVED, *to, Some(*n))?;
            let found = b.hash.search_locked(&b.cx, &b.pages, *n);
            b.judge.same(MOVED, format_args!("the page found under {n}"), found, Some(*to))?;
            b.judge.holds_nothing(&b.cx, "replace()")?;
        }
    }
    names.iter().zip(first).try_for_each(|(n, page)| b.finds(*n, Some(*page)))?;
    b.lists(names.into_iter().zip(first.iter().copied()).collect())
}

/// Two pages take turns under one name, among others that come and go; who looks finds one of the two.
#[cfg(all(feature = "std", not(shuttle)))]
fn replaced_under_threads(b: &Bench) -> Result<(), Breach> {
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let (id, pair) = (name(1, 0), [b.ids[0], b.ids[1]]);
    b.files(id, pair[0])?;
    let (hash, pages, judge, others) = (&*b.hash, &b.pages, &b.judge, &b.ids[16..80]);
    let stop = &AtomicBool::new(false);
    let mover = || {
        let cx = context();
        for round in 0..4000u64 {
            let n = name(1, 1 + round % 60);
            let other = others[(round % 64) as usize];
            let mine = hash.insert_unless_present(&cx, pages, n, other).is_ok();
            let turn = (round % 2) as usize;
            hash.replace(&cx, pages, id, pair[turn], pair[1 - turn]);
            if mine {
                hash.remove(&cx, pages, n, other);
            }
        }
        Ok(())
    };
    let looker = || {
        let cx = context();
        while !stop.load(SeqCst) {
            let found = hash.search_locked(&cx, pages, id);
            let facts = format_args!("{found:?} is found under {id}");
            judge.require(ONE_OF_TWO, found.is_some_and(|p| pair.contains(&p)), facts)?;
        }
        Ok(())
    };
    std::thread::scope(|s| {
        let (mover, looker) = (s.spawn(mover), s.spawn(looker));
        let ended = mover.join();
        stop.store(true, SeqCst);
        [ended, looker.join()].into_iter().try_for_each(|e| judge.ended(e)?)
    })?;
    b.lists(alloc::vec![(id, pair[0])])
}

/// A page that stays filed is never missed by hint-then-locked while others are rehashed around it, and one inserter wins each name.
#[cfg(all(feature = "std", not(shuttle)))]
fn under_threads(b: &Bench) -> Result<(), Breach> {
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    let fixed: Vec<_> = (0..8).map(|i| (name(1, i * 3), b.ids[i as usize])).collect();
    fixed.iter().try_for_each(|(n, page)| b.files(*n, *page))?;
    let (hash, pages, judge, ids) = (&*b.hash, &b.pages, &b.judge, &b.ids);
    let stop = &AtomicBool::new(false);
    let mover = |t: usize| {
        let cx = context();
        let mine = &ids[16 + t * 100..116 + t * 100];
        for round in 0..300u64 {
            for (i, page) in (0u64..).zip(mine) {
                // Names collide between the movers in part.
                let n = name(1 + (round % 3) as u32, 1 + (i * 7 + round) % 120 * 3);
                match hash.insert_unless_present(&cx, pages, n, *page) {
                    Ok(()) => hash.remove(&cx, pages, n, *page),
                    Err(winner) => {
                        let facts = format_args!("{page} lost {n} to itself");
                        judge.require(FIRST, winner != *page, facts)?;
                    }
                }
            }
        }
        Ok(())
    };
    let looker = || {
        let cx = context();
        while !stop.load(SeqCst) {
            for (n, page) in &fixed {
                let found = hash
                    .search_hint(&cx, pages, *n)
                    .filter(|p| pages.get(*p).is(*n))
                    .or_else(|| hash.search_locked(&cx, pages, *n));
                judge.same(STAYS, format_args!("the page under {n}"), found, Some(*page))?;
            }
        }
        Ok(())
    };
    std::thread::scope(|s| {
        let mover = &mover;
        let movers = [0, 1].map(|t| s.spawn(move || mover(t)));
        let looker = s.spawn(looker);
        let ended = movers.map(|m| m.join());
        stop.store(true, SeqCst);
        ended.into_iter().chain([looker.join()]).try_for_each(|e| judge.ended(e)?)
    })?;
    b.lists(fixed)
}
