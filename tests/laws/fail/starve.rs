//! Every deed, with little left: nothing is refused, there is no more.

use super::sweep::{Leeway, cases};
use super::world::{Situation, World};
use crate::world::{ANON, PAGE, PRIVATE, RW, at, map};
use segvm::machine::Process;

/// Where memory was short already.
const SITUATIONS: [Situation; 2] = [Situation::PagedOut, Situation::PagedOutLazily];

/// A process that takes what the others want.
fn hog(w: &World) -> Process {
    w.m.spawn("hog").unwrap()
}

/// Pages of swap that can still be promised.
fn left(w: &World) -> u64 {
    let (mut can, mut cannot) = (0, 10_000);
    while can + 1 < cannot {
        let pages = (can + cannot) / 2;
        if w.m.swap().take(pages).is_ok() {
            can = pages;
        } else {
            cannot = pages;
        }
    }
    can
}

/// All is as it was, but for the hog.
fn heal(w: &World) {
    w.disk.heal();
    w.m.processes().into_iter().filter(|p| p.name() == "hog").for_each(|p| p.exit());
}

/// Does every deed with each `k`; how many failed.
fn starve(ks: &[u64], harm: fn(&World, u64)) -> u32 {
    let mut errors = 0;
    cases(&SITUATIONS, Leeway::Copied, |case, _| {
        for &k in ks {
            errors += u32::from(case.try_harm(&format!("{k}"), |w| harm(w, k), heal));
        }
    });
    errors
}

/// All frames but `k - 1` are in use, and none can be had back: nothing can be written.
#[test]
fn frames_run_out() {
    let errors = starve(&[1, 2, 5], |w, k| {
        let hog = hog(w);
        (1..2000).for_each(|n| w.disk.fail_write(n));
        let pages = left(w) - 40;
        map(&hog, 0, pages, RW, PRIVATE | ANON, None).unwrap();
        let full = (0..pages).find(|page| hog.store(at(*page), b"x").is_err());
        let full = full.expect("there are more pages than frames");
        hog.munmap(at(full - k + 1), (k - 1).max(1) * PAGE).unwrap();
    });
    assert!(errors > 40, "only {errors} failed");
}

/// All swap but `k - 1` pages is promised to somebody else.
#[test]
fn promises_run_out() {
    let errors = starve(&[1, 3, 9], |w, k| {
        map(&hog(w), 0, left(w) - (k - 1), RW, PRIVATE | ANON, None).unwrap();
    });
    assert!(errors > 30, "only {errors} failed");
}
