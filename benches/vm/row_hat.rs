//! Row 17: the translation layer alone, 65 536 pages in order of address, against bare page tables.
//!
//! Ours does what a page table alone does not: it knows the hat's window and locks the leaf table, keeps each page's list
//! of mappings, harvests referenced and modified bits, opens and closes a debt of flushes, counts, and frees tables that
//! become empty. No processor runs in the process, so the debts are empty; the other crates' flush does nothing either.

use std::hint::black_box;

use page_db::{Counter, ExclPage, LockedPage, Reserve};

use crate::harness::{Also, Config, Goal, Group, GroupSpec, Rng, Samples, timed};
use crate::linux::PAGE;
use crate::our_world::{Hand, RUN, World};
use crate::peers::shape;
use crate::tables::{Multiarch, Offset};

pub(crate) const SPEC: GroupSpec = GroupSpec {
    goals: &[
        Goal::at_most(
            "17a",
            "hat load, 16 at a time, per page, ns",
            ["17.load.batch", "17.peer.load.batch"],
            "page_table_multiarch, 16 to a cursor",
            [1.2, 0.5],
        ),
        Goal::at_most(
            "17b",
            "hat translate, ns",
            ["17.translate", "17.peer.translate"],
            "page_table_multiarch query",
            [1.0, 0.6],
        ),
        Goal::at_most(
            "17c",
            "hat re-protect of a range, per page, ns",
            ["17.protect", "17.peer.protect"],
            "page_table_multiarch region",
            [0.4, 0.15],
        ),
        Goal::at_most(
            "17d",
            "hat unload of a range, per page, ns",
            ["17.unload", "17.peer.unload"],
            "page_table_multiarch region",
            [0.4, 0.15],
        ),
    ],
    also: &[
        Also::new("17", "hat load, one at a time, ns", "17.load"),
        Also::new("17", "page_table_multiarch, a cursor each, ns", "17.peer.load"),
        Also::new("17", "x86_64 OffsetPageTable map, ns", "17.offset.load"),
        Also::new("17", "x86_64 OffsetPageTable translate, ns", "17.offset.translate"),
        Also::new("17", "hat translate, random order, ns", "17.translate.random"),
        Also::new("17", "page_table_multiarch query, random order, ns", "17.peer.translate.random"),
    ],
    build: |_| Ok(Box::new(Hats::new()?)),
};

const PAGES: usize = 65_536;

/// Leaf tables they lie in, and the tables above.
const LEAVES: usize = PAGES / 512 + 2;

struct Hats {
    world: World,
    offset: Offset,
    order: Vec<u32>,
}

impl Hats {
    fn new() -> Result<Self, String> {
        let world = World::new(PAGES + 12_288, false)?;
        Ok(Self { world, offset: Offset::new(), order: Rng::new(17).permutation(PAGES) })
    }
}

fn at(page: usize) -> usize {
    shape::BASE + page * PAGE
}

/// Loads one at a time, takes everything away again.
fn ours(hand: &Hand, pages: &[ExclPage<'_>], order: &[u32], samples: &mut Samples) {
    let loads = || timed(PAGES, |part| part.for_each(|i| hand.load(at(i), &pages[i])));
    loads(); // table records come to be
    hand.forget(shape::BASE, PAGES * PAGE);
    samples.put("17.load", hand.counted(&[(Counter::TableAllocs, LEAVES)], loads));
    translate(|at| hand.translate(at), order, "17.translate", "17.translate.random", samples);
    let protect = |part: std::ops::Range<usize>| {
        hand.hat_protect(at(part.start), part.len() * PAGE, false);
    };
    samples.put("17.protect", timed(PAGES, protect));
    assert!((0..PAGES).step_by(97).all(|i| hand.is_mapped(at(i)) && !hand.is_writable(at(i))));
    let unload = |part: std::ops::Range<usize>| hand.forget(at(part.start), part.len() * PAGE);
    let freed = [(Counter::TableFrees, LEAVES)];
    samples.put("17.unload", hand.counted(&freed, || timed(PAGES, unload)));
    assert!(pages.iter().all(|page| !page.page().is_mapped()), "every mapping is gone");
}

/// Translations in order of address, and in random order.
fn translate(
    translate: impl Fn(usize) -> usize,
    order: &[u32],
    sequential: &'static str,
    random: &'static str,
    samples: &mut Samples,
) {
    let sum = |sum: usize, page: usize| sum.wrapping_add(translate(at(page)));
    let run = |part: std::ops::Range<usize>| _ = black_box(part.fold(0, sum));
    samples.put(sequential, timed(PAGES, run));
    let run = |part: std::ops::Range<usize>| {
        _ = black_box(order[part].iter().map(|&page| page as usize).fold(0, sum));
    };
    samples.put(random, timed(PAGES, run));
}

fn multiarch(order: &[u32], samples: &mut Samples) {
    let mut table = Multiarch::new();
    let load = |table: &mut Multiarch, step: usize| {
        timed(PAGES / step, |part| {
            part.for_each(|i| table.load(at(i * step), step, |page| (i * step + page) * PAGE));
        }) / step as f64
    };
    samples.put("17.peer.load", load(&mut table, 1));
    let query = |at| table.translate(at);
    translate(query, order, "17.peer.translate", "17.peer.translate.random", samples);
    samples.put(
        "17.peer.protect",
        timed(PAGES, |part| table.protect(at(part.start), part.len() * PAGE, false)),
    );
    samples.put(
        "17.peer.unload",
        timed(PAGES, |part| table.unload(at(part.start), part.len() * PAGE)),
    );
    let mut table = Multiarch::new();
    samples.put("17.peer.load.batch", load(&mut table, RUN));
}

impl Group for Hats {
    fn measure(&mut self, _config: &Config, samples: &mut Samples) {
        let Self { world, offset, order } = self;
        let hand = world.on(0);
        let (db, cx) = (hand.machine().db(), hand.cx());
        let pages: Vec<ExclPage<'_>> = (0..PAGES)
            .map(|i| db.alloc(cx, i as u64, Reserve::Push).expect("a frame for every page"))
            .collect();
        ours(&hand, &pages, order, samples);
        let runs = timed(PAGES / RUN, |part| {
            part.for_each(|i| hand.load_run(at(i * RUN), &pages[i * RUN..(i + 1) * RUN]));
        });
        samples.put("17.load.batch", runs / RUN as f64);
        assert!((0..PAGES).step_by(97).all(|i| hand.is_writable(at(i))), "every page is mapped");
        hand.forget(shape::BASE, PAGES * PAGE);
        pages.into_iter().for_each(|page| db.destroy(cx, page));
        multiarch(order, samples);
        samples.put(
            "17.offset.load",
            timed(PAGES, |part| part.for_each(|i| offset.load(at(i), i * PAGE))),
        );
        let sum = |sum: usize, page: usize| sum.wrapping_add(offset.translate(at(page)));
        samples.put("17.offset.translate", timed(PAGES, |part| _ = black_box(part.fold(0, sum))));
        (0..PAGES).for_each(|page| offset.unload(at(page)));
    }
}
