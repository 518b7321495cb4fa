//! Frames that are no memory, and frames by their place.

use crate::db::{Contig, PageDbError, PlaceError, Reserve, RetireError};
use crate::dump::MemStat;
use crate::free_mem::Thresholds;
use crate::phys_mem::WORDS;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::testing::{BASE, World, cx, name};
use crate::{
    ExclPage, HostMem, LockedPage, ManualClock, PageDb, PageDbConfig, PageState, Pfn, PhysMem,
    RefMod, VnodeKind, errno,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

/// Memory with holes, which nobody may touch.
#[derive(Debug)]
struct Holes {
    mem: HostMem,
    holes: Vec<Range<u64>>,
}

impl Holes {
    fn new(frames: u64, holes: &[Range<u64>]) -> Arc<Self> {
        let mem = HostMem::new(Pfn(BASE), frames).expect("heap");
        Arc::new(Self { mem, holes: holes.to_vec() })
    }
    fn there(&self, pfn: Pfn) -> &HostMem {
        assert!(self.is_memory(pfn), "frame {pfn} is no memory");
        &self.mem
    }
}

impl PhysMem for Holes {
    fn base(&self) -> Pfn {
        self.mem.base()
    }
    fn frames(&self) -> u64 {
        self.mem.frames()
    }
    fn is_memory(&self, pfn: Pfn) -> bool {
        !self.holes.iter().any(|hole| hole.contains(&pfn.0))
    }
    fn zero(&self, pfn: Pfn) {
        self.there(pfn).zero(pfn);
    }
    fn copy(&self, from: Pfn, to: Pfn) {
        self.there(from);
        self.there(to).copy(from, to);
    }
    fn read(&self, pfn: Pfn, offset: usize, buf: &mut [u8]) {
        self.there(pfn).read(pfn, offset, buf);
    }
    fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) {
        self.there(pfn).write(pfn, offset, bytes);
    }
    fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS] {
        self.there(pfn).words(pfn)
    }
}

/// The first frame, some in the middle, the last: 61 of 1000.
const HOLES: [Range<u64>; 3] = [BASE..BASE + 10, 300..350, 1015..1016];
const FRAMES: u64 = 1000;
const MEMORY: u64 = 939;

fn world(cpus: u16, colours: u32) -> World {
    let config = PageDbConfig { cpus, colours, ..PageDbConfig::default() };
    World::over(Holes::new(FRAMES, &HOLES), &config)
}

fn all<'a>(w: &'a World) -> Vec<ExclPage<'a>> {
    core::iter::from_fn(|| w.db.alloc(&w.cx, 0, Reserve::Push).ok()).collect()
}

#[test]
fn what_is_no_memory_is_never_handed_out() {
    for (cpus, colours) in [(1, 1), (2, 8)] {
        let w = world(cpus, colours);
        let census = w.verify();
        assert_eq!((census.free, census.absent, census.total()), (MEMORY, 61, FRAMES));
        assert_eq!((w.db.freemem(), w.db.absent_frames()), (MEMORY, 61));
        let mem = w.db.free_mem();
        assert_eq!((mem.total(), mem.availrmem()), (MEMORY, MEMORY));
        assert_eq!(mem.thresholds(), Thresholds::for_memory(MEMORY));
        let pages = all(&w);
        assert_eq!(pages.len() as u64, MEMORY);
        for page in &pages {
            assert!(HOLES.iter().all(|hole| !hole.contains(&page.pfn().0)), "{}", page.pfn());
            w.db.mem().zero(page.pfn());
        }
        assert_eq!((w.db.freemem(), w.verify().unnamed), (0, MEMORY));
        pages.into_iter().for_each(|page| w.db.free(&w.cx, page, false));
        w.db.drain_magazines(&w.cx);
        assert_eq!((w.db.freemem(), w.verify().free), (MEMORY, MEMORY));
    }
}

#[test]
fn what_is_no_memory_has_no_page() {
    let w = world(1, 1);
    let hole = Pfn(310);
    assert_eq!((w.db.page_of(hole), w.db.page_of(Pfn(299)).is_some()), (None, true));
    assert_eq!(w.db.retire(&w.cx, hole), Err(RetireError::NoPage(hole)));
    assert_eq!(w.db.unretire(&w.cx, hole), Err(RetireError::NoPage(hole)));
    assert_eq!(w.db.retire_check(hole), Err(RetireError::NoPage(hole)));
    let refused = w.db.alloc_at(&w.cx, hole, Reserve::Push).map(drop);
    assert_eq!(refused, Err(PlaceError::NoPage(hole)));
    assert_eq!(PlaceError::NoPage(hole).errno(), errno::EINVAL);
    // What memory there is can be retired, to a thousandth of what there is.
    w.db.retire(&w.cx, Pfn(299)).expect("free");
    assert_eq!((w.verify().retired, w.db.most_retired()), (1, 1));
    let stat = MemStat::of(&w.cx, &w.db);
    assert_eq!((stat.physical.0, stat.freelist.0, stat.kernel.0), (MEMORY, MEMORY - 1, 1));
    assert_eq!(stat.rows()[5].percent, 99);
}

#[test]
fn page_out_goes_over_holes() {
    use crate::pageout::{Pageout, PageoutConfig};
    let w = world(1, 1);
    let v = w.vnode(VnodeKind::File);
    (0..MEMORY).for_each(|n| assert!(w.db.page(w.make(name(v, n))).is_named()));
    let pageout = Pageout::new(&w.db, PageoutConfig::default());
    pageout.reclaim_all(&w.cx, &w.db);
    assert_eq!((w.db.freemem(), w.verify().cached), (MEMORY, MEMORY), "clean, and unreferenced");
    let state = pageout.state(&w.cx, &w.db);
    assert_eq!((state.total, state.fastscan), (FRAMES, MEMORY / 2), "rates are shares of memory");
}

#[test]
fn a_hole_has_no_contents_to_ask_for() {
    let mem = Holes::new(FRAMES, &HOLES);
    let has = [BASE - 1, BASE, BASE + 10, 299, 300, 349, 350, 1015, 1016, u64::MAX];
    let has = has.map(|pfn| mem.has(Pfn(pfn)));
    assert_eq!(has, [false, false, true, true, false, false, true, false, false, false]);
}

#[test]
fn a_machine_without_memory_is_refused() {
    let build = |hole: Range<u64>| {
        let clock = Arc::new(ManualClock::default());
        let mem = Holes::new(8, &[hole]);
        let (cx, config) = (cx(), PageDbConfig::default());
        PageDb::new(&cx, mem, clock, Arc::clone(cx.counters()), &config).map(drop)
    };
    assert_eq!(build(BASE..BASE + 8), Err(PageDbError::NoFrames));
    assert_eq!(build(BASE..BASE + 7), Ok(()));
}

#[test]
fn damage_to_an_absent_page_is_a1() {
    let w = world(1, 1);
    let id = w.db.pages().of_pfn(Pfn(300)).expect("it has a structure");
    w.db.page(id).set_state(PageState::empty(), PageState::ABSENT);
    let found = w.db.verify(&w.cx).expect_err("one is lost");
    assert_eq!(found.invariant, "A1", "{found}");
    w.db.page(id).set_state(PageState::ABSENT | PageState::KERNEL, PageState::empty());
    assert_eq!(w.db.verify(&w.cx).expect_err("in use").invariant, "A1");
}

#[test]
fn a_frame_is_had_by_its_number() {
    let w = World::with(1000, &PageDbConfig { cpus: 2, ..PageDbConfig::default() });
    let at = |pfn, reserve| w.db.alloc_at(&w.cx, pfn, reserve);
    // On the list; in this processor's magazine; in another's.
    let mine = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    let other = w.thread(1);
    let theirs = w.db.alloc(&other, 0, Reserve::Normal).expect("a frame");
    let pfns = [Pfn(BASE + 900), mine.pfn(), theirs.pfn()];
    assert_eq!(at(pfns[1], Reserve::Normal).map(drop), Err(PlaceError::NotFree(pfns[1])));
    w.db.free(&w.cx, mine, false);
    w.db.free(&other, theirs, false);
    assert_ne!(w.db.free_list().in_magazines(), 0, "or nothing is shown");
    for pfn in pfns {
        let page = at(pfn, Reserve::Normal).expect("free");
        assert_eq!((page.pfn(), page.identity(), page.page().is_free()), (pfn, None, false));
        assert_eq!(w.verify().unnamed, 1);
        w.db.free(&w.cx, page, false);
    }
    // Cached: the name goes.
    let v = w.vnode(VnodeKind::File);
    let pfn = w.db.pfn(w.make(name(v, 0)));
    assert_eq!(at(pfn, Reserve::Normal).map(drop), Err(PlaceError::NotFree(pfn)), "in use");
    w.free(name(v, 0), false);
    let page = at(pfn, Reserve::Normal).expect("cached");
    assert!(w.db.exists(&w.cx, name(v, 0)).is_none());
    assert_eq!((w.db.freemem(), w.verify().cached), (999, 0));
    w.db.free(&w.cx, page, false);
    // Held by somebody, out of service, beyond the last.
    w.make(name(v, 1));
    w.free(name(v, 1), false);
    let held = w.db.lookup_shared(&w.cx, name(v, 1)).expect("taken back");
    let pfn = held.pfn();
    assert_eq!(at(pfn, Reserve::Push).map(drop), Err(PlaceError::NotFree(pfn)));
    drop(held);
    w.db.retire(&w.cx, pfn).expect("clean");
    assert_eq!(at(pfn, Reserve::Push).map(drop), Err(PlaceError::NotFree(pfn)));
    let beyond = Pfn(BASE + 1000);
    assert_eq!(at(beyond, Reserve::Push).map(drop), Err(PlaceError::NoPage(beyond)));
    w.verify();
}

#[test]
fn a_frame_by_its_number_leaves_what_the_reserve_keeps() {
    let w = World::new(64);
    let keep = w.db.free_mem().normal_reserve();
    assert!(keep > 0);
    let held: Vec<_> =
        (keep..64).map(|n| w.db.alloc_at(&w.cx, Pfn(BASE + n), Reserve::Push)).collect();
    assert_eq!(w.db.freemem(), keep);
    let first = |reserve| w.db.alloc_at(&w.cx, Pfn(BASE), reserve);
    assert!(matches!(first(Reserve::Normal).map(drop), Err(PlaceError::Memory(_))));
    let last = first(Reserve::Push).expect("may take the last");
    let pages = held.into_iter().map(|page| page.expect("free")).chain([last]);
    pages.for_each(|page| w.db.free(&w.cx, page, false));
    assert_eq!(w.verify().free, 64);
}

fn run(w: &World, wanted: Contig) -> Result<Vec<u64>, PlaceError> {
    let pages = w.db.alloc_contig(&w.cx, wanted, Reserve::Push)?;
    let pfns = pages.iter().map(|page| page.pfn().0).collect();
    pages.into_iter().for_each(|page| w.db.free(&w.cx, page, false));
    Ok(pfns)
}

#[test]
fn a_run_is_the_lowest_that_fits() {
    let w = world(2, 4);
    let v = w.vnode(VnodeKind::File);
    // Lowest memory is frame 26; frame 40 is in use, 50 is cached.
    let used = w.db.alloc_at(&w.cx, Pfn(40), Reserve::Push).expect("free");
    let cached = w.db.alloc_at(&w.cx, Pfn(50), Reserve::Push).expect("free");
    w.db.hash_in(&w.cx, &cached, name(v, 0)).expect("a new name");
    cached.page().clear_ref_mod(RefMod::all());
    w.db.free(&w.cx, cached, false);
    let runs = |count| run(&w, Contig::new(count)).map(|r| r[0]..r[r.len() - 1] + 1);
    assert_eq!(runs(1), Ok(26..27));
    assert_eq!(runs(14), Ok(26..40));
    assert!(w.db.exists(&w.cx, name(v, 0)).is_some(), "not needed");
    assert_eq!(runs(15), Ok(41..56));
    assert!(w.db.exists(&w.cx, name(v, 0)).is_none(), "its page gave up its name");
    assert_eq!(runs(259), Ok(41..300));
    assert_eq!(runs(260), Ok(350..610));
    assert_eq!(runs(665), Ok(350..1015), "the last frame is none");
    assert_eq!(run(&w, Contig::new(0)), Ok([].into()));
    let most = Contig::new(666);
    assert_eq!(run(&w, most), Err(PlaceError::NoRun(most)));
    assert_eq!(PlaceError::NoRun(most).errno(), errno::ENOMEM);
    for count in [MEMORY, 1 << 40, u64::MAX] {
        assert!(matches!(run(&w, Contig::new(count)), Err(PlaceError::Memory(_))), "{count}");
    }
    let aligned = |count, align, from, below| {
        let wanted = Contig { count, align, from: Pfn(from), below: Pfn(below) };
        run(&w, wanted).map(|r| r[0]).ok()
    };
    assert_eq!(aligned(8, 16, 0, u64::MAX), Some(32));
    assert_eq!(aligned(9, 16, 0, u64::MAX), Some(48));
    assert_eq!(aligned(4, 0, 300, u64::MAX), Some(350));
    assert_eq!(aligned(256, 256, 0, 768), Some(512));
    assert_eq!(aligned(256, 256, 0, 767), None);
    assert_eq!(aligned(1, u64::MAX, 1, u64::MAX), None);
    assert_eq!(aligned(1, 1, u64::MAX, u64::MAX), None);
    w.db.free(&w.cx, used, false);
    assert_eq!(w.verify().free, MEMORY, "all given back");
}

#[test]
fn a_run_that_another_cuts_is_given_back_and_looked_for_further_on() {
    let w = World::new(64);
    let (held, rival) = (Pfn(BASE + 5), w.thread(1));
    // Free, and its lock is not to be had: a look without locks takes it for free.
    let v = w.vnode(VnodeKind::File);
    let page = w.db.alloc_at(&w.cx, held, Reserve::Push).expect("free");
    w.db.hash_in(&w.cx, &page, name(v, 0)).expect("a new name");
    w.db.free(&w.cx, page, false);
    let id = w.db.page_of(held).expect("memory");
    let looks = w.db.try_lock_shared(&rival, id).expect("nobody has it");
    let before = w.db.freemem();
    let got = w.db.alloc_contig(&w.cx, Contig::new(8), Reserve::Push).expect("further on");
    assert_eq!(got[0].pfn(), Pfn(BASE + 6));
    assert_eq!(w.db.freemem(), before - 8);
    drop(looks);
    let most = Contig { below: Pfn(BASE + 8), ..Contig::new(3) };
    let low = w.db.alloc_contig(&w.cx, most, Reserve::Push).expect("below, too");
    assert_eq!(low[0].pfn(), Pfn(BASE));
    got.into_iter().chain(low).for_each(|page| w.db.free(&w.cx, page, false));
    assert_eq!(w.verify().cached, 1);
}

/// Threads take and free any frame, runs, frames by number and frames that go out of service, all of the same few.
#[test]
fn whoever_takes_a_frame_has_it_alone() {
    let w = World::with(320, &PageDbConfig { cpus: 4, ..PageDbConfig::default() });
    let there_and_back = AtomicU64::new(0);
    std::thread::scope(|threads| {
        for me in 0..4u32 {
            let (db, cx, there_and_back) = (&w.db, w.thread(me), &there_and_back);
            threads.spawn(move || {
                let mut bad = None; // on its way out of service, or out
                let tag = |page: &ExclPage<'_>| db.mem().u64_at(page.pfn(), 0);
                let mut held: Vec<ExclPage<'_>> = Vec::new();
                for round in 0..600u64 {
                    let pfn = Pfn(BASE + round * 7 % 320);
                    match (me, round % 3) {
                        (0, _) => held.extend(db.alloc(&cx, round, Reserve::Push)),
                        (1, _) => held.extend(db.alloc_at(&cx, pfn, Reserve::Push)),
                        (2, _) => {
                            let wanted = Contig { align: 4, ..Contig::new(1 + round % 9) };
                            let run = db.alloc_contig(&cx, wanted, Reserve::Push);
                            held.extend(run.into_iter().flatten());
                        }
                        _ => match bad {
                            None => {
                                let _ = db.retire(&cx, pfn); // now, or when others have let go of it
                                bad = Some(pfn);
                            }
                            Some(pfn) => {
                                if db.unretire(&cx, pfn).is_ok() {
                                    there_and_back.fetch_add(1, Relaxed);
                                    bad = None;
                                }
                            }
                        },
                    }
                    held.iter().for_each(|page| tag(page).store(u64::from(me), Relaxed));
                    std::thread::yield_now();
                    for page in &held {
                        assert_eq!(tag(page).load(Relaxed), u64::from(me), "{}", page.pfn());
                    }
                    if held.len() > 60 || round % 5 == 0 {
                        held.drain(..).for_each(|page| db.free(&cx, page, false));
                    }
                }
                held.into_iter().for_each(|page| db.free(&cx, page, false));
            });
        }
    });
    let census = w.verify();
    assert_eq!(census.free + census.retired, 320, "{census:?}");
    let there_and_back = there_and_back.into_inner();
    assert!(there_and_back > 20, "{there_and_back} frames went and came back");
}
